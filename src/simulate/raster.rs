//! Hard-edged drawing on a real-valued canvas.
//!
//! Coordinates are canvas pixels with pixel centres at integers; a pixel belongs to a shape when its centre does. Smooth edges come
//! later, from warping and averaging a canvas drawn at twice the picture's resolution. Everything is clipped to the canvas.

use super::random::{PI, sin_cos};
use crate::frame::Map;

/// A point of the plane, (x, y).
pub(crate) type Point = [f32; 2];

/// Rows that a shape between `low` and `high` can touch on a canvas of `size` rows (or columns).
fn covered(low: f32, high: f32, size: usize) -> std::ops::Range<usize> {
    let first = low.ceil().max(0.0);
    let last = high.floor().min(size as f32 - 1.0);
    if first > last || !first.is_finite() || !last.is_finite() { 0..0 } else { first as usize..last as usize + 1 }
}

fn span(canvas: &mut Map, y: usize, low: f32, high: f32, gray: f32) {
    let columns = covered(low, high, canvas.width());
    canvas.row_mut(y)[columns].fill(gray);
}

/// Fills a polygon (even-odd rule).
pub(crate) fn polygon(canvas: &mut Map, points: &[Point], gray: f32) {
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for p in points {
        low = low.min(p[1]);
        high = high.max(p[1]);
    }
    let mut crossings: Vec<f32> = Vec::with_capacity(8);
    for y in covered(low, high, canvas.height()) {
        let at = y as f32;
        crossings.clear();
        for (i, a) in points.iter().enumerate() {
            let b = &points[(i + 1) % points.len()];
            if (a[1] <= at) != (b[1] <= at) {
                crossings.push(a[0] + (at - a[1]) / (b[1] - a[1]) * (b[0] - a[0]));
            }
        }
        crossings.sort_by(f32::total_cmp);
        for pair in crossings.chunks_exact(2) {
            span(canvas, y, pair[0], pair[1], gray);
        }
    }
}

/// Fills a disc.
pub(crate) fn disc(canvas: &mut Map, centre: Point, radius: f32, gray: f32) {
    for y in covered(centre[1] - radius, centre[1] + radius, canvas.height()) {
        let dy = y as f32 - centre[1];
        let half = (radius * radius - dy * dy).max(0.0).sqrt();
        span(canvas, y, centre[0] - half, centre[0] + half, gray);
    }
}

/// Draws a circle's outline of `width` about `radius`.
pub(crate) fn circle(canvas: &mut Map, centre: Point, radius: f32, width: f32, gray: f32) {
    let (outer, inner) = (radius + width / 2.0, radius - width / 2.0);
    for y in covered(centre[1] - outer, centre[1] + outer, canvas.height()) {
        let dy = y as f32 - centre[1];
        let reach = (outer * outer - dy * dy).max(0.0).sqrt();
        let hole = inner * inner - dy * dy;
        if inner > 0.0 && hole > 0.0 {
            let hole = hole.sqrt();
            span(canvas, y, centre[0] - reach, centre[0] - hole, gray);
            span(canvas, y, centre[0] + hole, centre[0] + reach, gray);
        } else {
            span(canvas, y, centre[0] - reach, centre[0] + reach, gray);
        }
    }
}

/// Draws a polyline of `width` with round joints and ends (at least about one pixel wide).
pub(crate) fn stroke(canvas: &mut Map, points: &[Point], width: f32, gray: f32) {
    let half = width.max(1.0) / 2.0;
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length = (dx * dx + dy * dy).sqrt();
        if length > 1e-3 {
            let (nx, ny) = (-dy / length * half, dx / length * half);
            polygon(
                canvas,
                &[[a[0] + nx, a[1] + ny], [b[0] + nx, b[1] + ny], [b[0] - nx, b[1] - ny], [a[0] - nx, a[1] - ny]],
                gray,
            );
        }
    }
    for p in points {
        disc(canvas, *p, half, gray);
    }
}

/// Points of a turned ellipse.
pub(crate) fn ellipse_points(centre: Point, radii: [f32; 2], angle: f32) -> Vec<Point> {
    let (s, c) = sin_cos(angle);
    (0..28)
        .map(|i| {
            let (y, x) = sin_cos(i as f32 * (2.0 * PI / 28.0));
            let (x, y) = (x * radii[0], y * radii[1]);
            [centre[0] + c * x - s * y, centre[1] + s * x + c * y]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(canvas: &Map) -> usize {
        canvas.data().iter().filter(|v| **v > 0.5).count()
    }

    #[test]
    fn shapes_cover_their_area() {
        let mut canvas = Map::new(100, 100);
        polygon(&mut canvas, &[[9.5, 19.5], [49.5, 19.5], [49.5, 39.5], [9.5, 39.5]], 1.0);
        assert_eq!(area(&canvas), 40 * 20);

        let mut canvas = Map::new(100, 100);
        disc(&mut canvas, [50.2, 49.7], 20.0, 1.0);
        assert!((area(&canvas) as f32 - PI * 400.0).abs() < 20.0);

        let mut canvas = Map::new(100, 100);
        circle(&mut canvas, [50.0, 50.0], 30.0, 4.0, 1.0);
        assert!((area(&canvas) as f32 - PI * (32.0 * 32.0 - 28.0 * 28.0)).abs() < 30.0);

        let mut canvas = Map::new(100, 100);
        // Not along the diagonal of the grid, where whole diagonals of pixels fall in or out at once.
        stroke(&mut canvas, &[[20.0, 20.3], [80.0, 61.7]], 6.0, 1.0);
        let expected = 60f32.hypot(41.4) * 6.0 + PI * 9.0;
        assert!((area(&canvas) as f32 - expected).abs() < 30.0, "{} {expected}", area(&canvas));

        let mut canvas = Map::new(100, 100);
        polygon(&mut canvas, &ellipse_points([50.0, 50.0], [30.0, 10.0], 0.7), 1.0);
        assert!((area(&canvas) as f32 - PI * 300.0).abs() < 25.0);
    }

    #[test]
    fn shapes_outside_the_canvas_are_clipped() {
        let mut canvas = Map::new(10, 10);
        disc(&mut canvas, [-50.0, 5.0], 20.0, 1.0);
        stroke(&mut canvas, &[[-30.0, -5.0], [40.0, -5.0]], 3.0, 1.0);
        polygon(&mut canvas, &[[20.0, 0.0], [30.0, 0.0], [25.0, 9.0]], 1.0);
        assert_eq!(area(&canvas), 0);
        polygon(&mut canvas, &[[-100.0, -100.0], [100.0, -100.0], [100.0, 100.0], [-100.0, 100.0]], 1.0);
        assert_eq!(area(&canvas), 100);
    }
}
