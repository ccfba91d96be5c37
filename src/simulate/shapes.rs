//! What scenes are made of: elements of a few primitives each, in pixels about the element's own position.

use super::random::{Draw, PI, sin_cos};
use super::raster::{self, Point};
use crate::frame::Map;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rectangle,
    Triangle,
    Polygon,
    Plus,
    Mesh,
    Disc,
    Ring,
    Pad,
    Via,
    Trace,
    Bus,
    Component,
    Text,
    Pour,
    PadRow,
    ViaGrid,
}

/// One thing to draw; coordinates relative to the element's position, px.
#[derive(Debug, Clone)]
pub(crate) enum Primitive {
    Polygon(Vec<Point>),
    Disc { centre: Point, radius: f32 },
    Circle { centre: Point, radius: f32, width: f32 },
    Stroke { points: Vec<Point>, width: f32 },
}

/// A shape with its gray value. `grows` says how its size follows the etching change: +1 copper-like, -1 holes in copper.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub primitive: Primitive,
    pub gray: f32,
    pub grows: f32,
}

/// An element of a scene.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub kind: Kind,
    pub at: Point,
    pub parts: Vec<Part>,
}

/// Where the canvas lies: `canvas = (scene + margin) * factor + (factor - 1) / 2`, so that a canvas of `factor` times the resolution,
/// averaged over `factor` x `factor` blocks, has scene pixel centres at integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    pub margin: f32,
    pub factor: f32,
}

impl View {
    pub(crate) fn point(&self, p: Point) -> Point {
        let half = (self.factor - 1.0) / 2.0;
        [(p[0] + self.margin) * self.factor + half, (p[1] + self.margin) * self.factor + half]
    }
}

impl Element {
    /// Draws the element moved by `shift` px, with lines wider by `width_change` px.
    pub(crate) fn draw(&self, canvas: &mut Map, view: View, shift: Point, width_change: f32) {
        let place = |p: &Point| view.point([self.at[0] + shift[0] + p[0], self.at[1] + shift[1] + p[1]]);
        for part in &self.parts {
            let grown = width_change * part.grows;
            match &part.primitive {
                Primitive::Polygon(points) => {
                    let points: Vec<Point> = points.iter().map(place).collect();
                    raster::polygon(canvas, &points, part.gray);
                }
                Primitive::Disc { centre, radius } => {
                    let radius = (radius + grown / 2.0).max(0.5);
                    raster::disc(canvas, place(centre), radius * view.factor, part.gray);
                }
                Primitive::Circle { centre, radius, width } => {
                    let width = (width + grown).max(0.5);
                    raster::circle(canvas, place(centre), radius * view.factor, width * view.factor, part.gray);
                }
                Primitive::Stroke { points, width } => {
                    let points: Vec<Point> = points.iter().map(place).collect();
                    raster::stroke(canvas, &points, (width + grown).max(0.5) * view.factor, part.gray);
                }
            }
        }
    }

    /// Whether the element is small enough to go missing as a whole.
    pub(crate) fn is_small(&self) -> bool {
        matches!(self.kind, Kind::Rectangle | Kind::Plus | Kind::Disc | Kind::Pad | Kind::Text | Kind::Via | Kind::Triangle)
    }
}

fn turned(points: &[Point], angle: f32) -> Vec<Point> {
    let (s, c) = sin_cos(angle);
    points.iter().map(|p| [c * p[0] - s * p[1], s * p[0] + c * p[1]]).collect()
}

fn rectangle(w: f32, h: f32) -> Vec<Point> {
    vec![[-w / 2.0, -h / 2.0], [w / 2.0, -h / 2.0], [w / 2.0, h / 2.0], [-w / 2.0, h / 2.0]]
}

/// A random star-shaped polygon of `corners` about the origin, radius 0.5..1 of `size`, flattened to `flat` along one axis.
pub(crate) fn blob(draw: &mut Draw, corners: usize, size: f32, flat: f32) -> Vec<Point> {
    let mut angles: Vec<f32> = (0..corners).map(|_| draw.uniform(0.0, 2.0 * PI)).collect();
    angles.sort_by(f32::total_cmp);
    let points: Vec<Point> = angles
        .iter()
        .map(|a| {
            let (s, c) = sin_cos(*a);
            let r = draw.uniform(0.5, 1.0) * size;
            [c * r, s * r * flat]
        })
        .collect();
    let angle = draw.uniform(0.0, PI);
    turned(&points, angle)
}

/// The unit vector at `eighths` of 45 degrees.
fn octant(eighths: i32) -> Point {
    const H: f32 = std::f32::consts::FRAC_1_SQRT_2;
    [[1.0, 0.0], [H, H], [0.0, 1.0], [-H, H], [-1.0, 0.0], [-H, -H], [0.0, -1.0], [H, -H]][eighths.rem_euclid(8) as usize]
}

/// A routed path: straight runs with turns of 45 degrees.
fn route(draw: &mut Draw, longest: f32) -> Vec<Point> {
    let mut heading = draw.whole(0, 7) as i32;
    let mut at = [0.0, 0.0];
    let mut path = vec![at];
    for _ in 0..draw.whole(2, 5) {
        let run = draw.uniform(10.0, longest.max(11.0));
        let d = octant(heading);
        at = [at[0] + d[0] * run, at[1] + d[1] * run];
        path.push(at);
        heading += if draw.chance(0.5) { 1 } else { -1 };
    }
    path
}

/// The path moved sideways by `distance` with mitred corners, so that parallel lines keep their distance in the bends.
fn parallel(path: &[Point], distance: f32) -> Vec<Point> {
    let normals: Vec<Point> = path
        .windows(2)
        .map(|p| {
            let (dx, dy) = (p[1][0] - p[0][0], p[1][1] - p[0][1]);
            let l = (dx * dx + dy * dy).sqrt().max(1e-3);
            [-dy / l, dx / l]
        })
        .collect();
    path.iter()
        .enumerate()
        .map(|(i, p)| {
            let (a, b) = (normals[i.saturating_sub(1)], normals[i.min(normals.len() - 1)]);
            let (mx, my) = (a[0] + b[0], a[1] + b[1]);
            let square = (mx * mx + my * my).max(0.2);
            let k = 2.0 * distance / square;
            [p[0] + mx * k, p[1] + my * k]
        })
        .collect()
}

/// Strokes of a few letters and digits on a grid 4 wide and 6 high; pairs of digits are points, a space lifts the pen.
const GLYPHS: [&str; 24] = [
    "0602204246 0444",
    "0600304143330333443506",
    "4130100105163645",
    "06003041453606",
    "40000646 0333",
    "400006 0333",
    "4110010516364543 2343",
    "0006 4046 0343",
    "2026",
    "4045361605",
    "0006 4003 0346",
    "000646",
    "0600224046",
    "06004640",
    "1030414536160501 10",
    "060030414333 0333",
    "400103434536 0606",
    "0040 2026",
    "00053646 4045",
    "002640",
    "0046 4006",
    "00401646",
    "1131 3113",
    "10304145361605 0110",
];

/// Strokes of glyph `index` with cells of `size` px, its left top corner at the origin.
pub(crate) fn glyph(index: usize, size: f32) -> Vec<Vec<Point>> {
    GLYPHS[index % GLYPHS.len()]
        .split(' ')
        .map(|run| {
            let digits: Vec<f32> = run.bytes().map(|b| f32::from(b - b'0')).collect();
            digits.chunks_exact(2).map(|p| [p[0] * size, p[1] * size]).collect::<Vec<Point>>()
        })
        .filter(|run| run.len() > 1)
        .collect()
}

/// Gray values an element may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ink {
    /// The element's own gray.
    pub gray: f32,
    /// The substrate's.
    pub background: f32,
    /// A second gray for what sits on the element.
    pub second: f32,
}

/// Draws the parameters of one element; `longest` bounds runs of traces, px.
pub(crate) fn element(draw: &mut Draw, kind: Kind, at: Point, ink: Ink, longest: f32) -> Element {
    let mut parts: Vec<Part> = Vec::new();
    let mut add = |primitive: Primitive, gray: f32| {
        let grows = if gray == ink.background && ink.gray != ink.background { -1.0 } else { 1.0 };
        parts.push(Part { primitive, gray, grows });
    };
    let angle = if draw.chance(0.3) { draw.uniform(0.0, PI) } else { 0.0 };
    match kind {
        Kind::Rectangle => {
            let z = draw.uniform(4.0, 30.0) * 1.43;
            let sides = [z * draw.uniform(0.4, 1.0), z * draw.uniform(0.4, 1.0)];
            add(Primitive::Polygon(turned(&rectangle(sides[0], sides[1]), angle)), ink.gray);
        }
        Kind::Triangle => {
            let z = draw.uniform(4.0, 30.0) / 1.4;
            let quarter = draw.whole(0, 3) as f32 * (PI / 2.0);
            add(Primitive::Polygon(turned(&[[-z, -z], [z, -z], [-z, z]], angle + quarter)), ink.gray);
        }
        Kind::Polygon => {
            let (corners, size) = (draw.whole(4, 8), draw.uniform(4.0, 60.0));
            add(Primitive::Polygon(blob(draw, corners, size, 1.0)), ink.gray);
        }
        Kind::Plus => {
            let (z, width) = (draw.uniform(4.0, 30.0) / 1.6, draw.uniform(1.5, 5.0));
            for v in turned(&[[z, 0.0], [0.0, z]], angle) {
                add(Primitive::Stroke { points: vec![[-v[0], -v[1]], v], width }, ink.gray);
            }
        }
        Kind::Mesh => {
            let (pitch, n) = (draw.uniform(3.0, 6.0), draw.whole(2, 5));
            for i in 0..n * n {
                let centre = [(i % n) as f32 * pitch * 2.0, (i / n) as f32 * pitch * 2.0];
                add(Primitive::Disc { centre, radius: pitch * 0.6 }, ink.gray);
            }
        }
        Kind::Disc => {
            let radius = draw.uniform(2.0, 18.0);
            add(Primitive::Disc { centre: [0.0, 0.0], radius }, ink.gray);
        }
        Kind::Ring => {
            let (radius, width) = (draw.uniform(2.0, 18.0), draw.uniform(1.5, 5.0));
            add(Primitive::Circle { centre: [0.0, 0.0], radius, width }, ink.gray);
        }
        Kind::Pad => {
            let (w, h) = (draw.uniform(4.0, 20.0), draw.uniform(4.0, 20.0));
            if draw.chance(0.5) {
                add(Primitive::Polygon(rectangle(w, h)), ink.gray);
            } else {
                add(Primitive::Stroke { points: vec![[-w / 2.0, 0.0], [w / 2.0, 0.0]], width: h }, ink.gray);
            }
        }
        Kind::Via => {
            let radius = draw.uniform(5.0, 22.0);
            add(Primitive::Disc { centre: [0.0, 0.0], radius }, ink.gray);
            add(Primitive::Disc { centre: [0.0, 0.0], radius: radius * draw.uniform(0.3, 0.7) }, ink.background);
        }
        Kind::Trace => {
            let points = route(draw, longest);
            let width = draw.uniform(1.5, 14.0);
            let ends = [points[0], points[points.len() - 1]];
            add(Primitive::Stroke { points, width }, ink.gray);
            if draw.chance(0.4) {
                // Ends in a pad or a via, as routed copper does.
                let radius = width * draw.uniform(0.8, 1.6) + 1.5;
                let hole = if draw.chance(0.4) { radius * draw.uniform(0.3, 0.6) } else { 0.0 };
                for end in ends {
                    add(Primitive::Disc { centre: end, radius }, ink.gray);
                    if hole > 0.0 {
                        add(Primitive::Disc { centre: end, radius: hole }, ink.background);
                    }
                }
            }
        }
        Kind::Bus => {
            let path = route(draw, longest);
            let width = draw.uniform(1.5, 6.0);
            let pitch = width + draw.uniform(2.0, 8.0);
            let lines = draw.whole(3, 8);
            let skew = draw.chance(0.3).then(|| if draw.chance(0.5) { [1.0, -0.414] } else { [0.414, 1.0] });
            let ends = draw.chance(0.25).then(|| width * draw.uniform(0.7, 1.1) + 0.5);
            for j in 0..lines {
                let offset = pitch * j as f32;
                let points = match skew {
                    Some(n) => path.iter().map(|p| [p[0] + n[0] * offset, p[1] + n[1] * offset]).collect(),
                    None => parallel(&path, offset - pitch * lines as f32 / 2.0),
                };
                if let Some(radius) = ends {
                    add(Primitive::Disc { centre: points[0], radius }, ink.gray);
                }
                add(Primitive::Stroke { points, width }, ink.gray);
            }
        }
        Kind::Component => {
            let (w, h, leads) = (draw.uniform(8.0, 40.0), draw.uniform(6.0, 24.0), draw.whole(1, 6));
            let upright = draw.chance(0.4);
            let place = |p: Point| if upright { [p[1], p[0]] } else { p };
            for j in 0..leads {
                let y = -h / 2.0 + (j as f32 + 0.5) * h / leads as f32;
                let points = vec![place([-w / 2.0 - 4.0, y]), place([w / 2.0 + 4.0, y])];
                add(Primitive::Stroke { points, width: (h / leads as f32 * 0.5).min(3.0) }, ink.second);
            }
            add(Primitive::Polygon(rectangle(w, h).into_iter().map(place).collect()), ink.gray);
            if draw.chance(0.5) {
                add(Primitive::Disc { centre: place([-w / 4.0, -h / 4.0]), radius: 1.5 }, ink.second);
            }
        }
        Kind::Text => {
            let (size, width) = (draw.uniform(1.2, 3.6), draw.uniform(1.0, 2.6));
            let upright = draw.chance(0.25);
            for i in 0..draw.whole(1, 4) {
                for run in glyph(draw.whole(0, GLYPHS.len() - 1), size) {
                    let moved = run.iter().map(|p| [p[0] + i as f32 * size * 6.0, p[1]]);
                    let points = moved.map(|p| if upright { [p[1], -p[0]] } else { p }).collect();
                    add(Primitive::Stroke { points, width }, ink.gray);
                }
            }
        }
        Kind::Pour => {
            // A copper area with chamfered corners, holes and slots.
            let (w, h) = (draw.uniform(25.0, 110.0), draw.uniform(20.0, 80.0));
            let cut = draw.uniform(0.0, 0.5) * w.min(h);
            let mut points = Vec::with_capacity(8);
            for (sx, sy) in [(-1.0f32, -1.0f32), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)] {
                let (x, y) = (sx * w / 2.0, sy * h / 2.0);
                if draw.chance(0.5) {
                    let (a, b) = ([x - sx * cut, y], [x, y - sy * cut]);
                    points.extend(if sx == sy { [b, a] } else { [a, b] });
                } else {
                    points.push([x, y]);
                }
            }
            add(Primitive::Polygon(points), ink.gray);
            for _ in 0..draw.whole(0, 5) {
                let centre = [draw.uniform(-0.42, 0.42) * w, draw.uniform(-0.42, 0.42) * h];
                let radius = draw.uniform(2.0, 9.0);
                match draw.whole(0, 3) {
                    0 => add(
                        Primitive::Stroke { points: vec![centre, [centre[0] + radius * 3.0, centre[1]]], width: radius },
                        ink.background,
                    ),
                    1 => {
                        add(Primitive::Disc { centre, radius: radius + draw.uniform(1.5, 4.0) }, ink.background);
                        add(Primitive::Disc { centre, radius: radius * 0.8 }, ink.gray);
                    }
                    _ => add(Primitive::Disc { centre, radius }, ink.background),
                }
            }
        }
        Kind::PadRow => {
            let (w, h) = (draw.uniform(2.5, 9.0), draw.uniform(6.0, 26.0));
            let pitch = w + draw.uniform(2.0, 9.0);
            let (upright, round, tail) = (draw.chance(0.5), draw.chance(0.4), draw.chance(0.3));
            let count = draw.whole(3, 12);
            let lean = draw.whole(0, 2) as f32 - 1.0;
            for j in 0..count {
                let x = j as f32 * pitch;
                let place = |p: Point| if upright { [p[1], p[0]] } else { p };
                if round {
                    let points = vec![place([x, -h / 2.0]), place([x, h / 2.0])];
                    add(Primitive::Stroke { points, width: w }, ink.gray);
                } else {
                    let corners = rectangle(w, h).into_iter().map(|p| place([p[0] + x, p[1]])).collect();
                    add(Primitive::Polygon(corners), ink.gray);
                }
                if tail {
                    let points = vec![place([x, h / 2.0]), place([x, h]), place([x + lean * h, h * 2.0])];
                    add(Primitive::Stroke { points, width: (w * 0.45).max(1.2) }, ink.gray);
                }
            }
        }
        Kind::ViaGrid => {
            let radius = draw.uniform(2.5, 8.0);
            let pitch = radius * 2.0 + draw.uniform(2.0, 14.0);
            let (columns, rows) = (draw.whole(1, 5), draw.whole(2, 5));
            let hole = if draw.chance(0.6) { radius * draw.uniform(0.3, 0.65) } else { 0.0 };
            let upright = draw.chance(0.5);
            for i in 0..columns * rows {
                let p = [(i % columns) as f32 * pitch, (i / columns) as f32 * pitch];
                let centre = if upright { [p[1], p[0]] } else { p };
                add(Primitive::Disc { centre, radius }, ink.gray);
                if hole > 0.0 {
                    add(Primitive::Disc { centre, radius: hole }, ink.background);
                }
            }
        }
    }
    Element { kind, at, parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_lines_keep_their_distance_in_bends() {
        let path = [[0.0, 0.0], [50.0, 0.0], [80.0, 30.0]];
        let moved = parallel(&path, 6.0);
        // Distance of every moved vertex from the straight lines through the path's segments.
        let distance = |p: Point, a: Point, b: Point| {
            let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
            ((p[0] - a[0]) * dy - (p[1] - a[1]) * dx).abs() / (dx * dx + dy * dy).sqrt()
        };
        for (p, a, b) in [
            (moved[0], path[0], path[1]),
            (moved[1], path[0], path[1]),
            (moved[1], path[1], path[2]),
            (moved[2], path[1], path[2]),
        ] {
            assert!((distance(p, a, b) - 6.0).abs() < 1e-3, "{p:?}");
        }
    }

    #[test]
    fn every_glyph_has_strokes_inside_its_cell() {
        for i in 0..GLYPHS.len() {
            let runs = glyph(i, 1.0);
            assert!(!runs.is_empty(), "glyph {i}");
            assert!(runs.iter().flatten().all(|p| p[0] <= 4.0 && p[1] <= 6.0), "glyph {i}");
        }
    }
}
