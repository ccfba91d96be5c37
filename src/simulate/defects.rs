//! Defects painted into a drawn scene: spurs, mouse bites, opens, shorts, pin holes, scratches, hairs, stains, foreign matter; and
//! whole parts missing, moved or extra.

use super::config::Config;
use super::random::{Draw, PI, sin_cos};
use super::raster::{self, Point, ellipse_points};
use super::scene::{Deviation, REFERENCE_SIDE_PX, Scene};
use super::shapes::{self, View};
use crate::frame::Map;

/// Contrast between neighbouring canvas pixels that makes an edge.
const EDGE_CONTRAST: f32 = 0.1;
/// A whole-part defect changes at least one pixel and at most this share of the picture.
const MOST_PART_CHANGE: f32 = 0.03;

/// Number of defects for a picture: 0 for a clean one, else 1 up to the setting scaled to the picture's area.
pub(crate) fn count(draw: &mut Draw, config: &Config, width: f32, height: f32) -> usize {
    let share = width * height / (REFERENCE_SIDE_PX * REFERENCE_SIDE_PX);
    let most = ((config.defects * share + 0.5) as usize).max(1);
    if draw.chance(config.clean_share) { 0 } else { draw.whole(1, most) }
}

/// Draws the scene again with one small part missing, moved or extra; `None` when no such change is visible and small.
pub(crate) fn part_defect(draw: &mut Draw, scene: &Scene, good: &Map, view: View, deviation: &Deviation) -> Option<Map> {
    let small: Vec<usize> = (0..scene.elements.len()).filter(|i| scene.elements[*i].is_small()).collect();
    if small.is_empty() {
        return None;
    }
    let which = *draw.pick(&small);
    let bad = match draw.weighted(&[0.6, 0.25, 0.15]) {
        0 => scene.draw(view, good.size(), deviation, Some(which)),
        moved_or_extra => {
            let (s, c) = sin_cos(draw.uniform(0.0, 2.0 * PI));
            let distance = draw.uniform(5.0, 14.0);
            let mut other = scene.elements[which].clone();
            other.at = [other.at[0] + c * distance, other.at[1] + s * distance];
            let mut bad = if moved_or_extra == 1 { scene.draw(view, good.size(), deviation, Some(which)) } else { good.clone() };
            other.draw(&mut bad, view, [0.0, 0.0], deviation.width_change);
            bad
        }
    };
    let changed = good.data().iter().zip(bad.data()).filter(|(a, b)| (**a - **b).abs() > EDGE_CONTRAST).count();
    let share = changed as f32 / good.data().len() as f32;
    (changed > 0 && share < MOST_PART_CHANGE).then_some(bad)
}

/// Positions of edges on the canvas, as indices.
fn edges(canvas: &Map) -> Vec<u32> {
    let (w, h) = canvas.size();
    let mut out = Vec::new();
    for y in 0..h - 1 {
        let (row, below) = (canvas.row(y), canvas.row(y + 1));
        for x in 0..w - 1 {
            if (row[x] - row[x + 1]).abs() > EDGE_CONTRAST || (row[x] - below[x]).abs() > EDGE_CONTRAST {
                out.push((y * w + x) as u32);
            }
        }
    }
    out
}

fn at(canvas: &Map, p: Point) -> f32 {
    let (w, h) = canvas.size();
    let x = p[0].clamp(0.0, w as f32 - 1.0) as usize;
    let y = p[1].clamp(0.0, h as f32 - 1.0) as usize;
    canvas.get(x, y)
}

/// What defects are painted with and where they may sit.
pub(crate) struct Ground<'a> {
    /// Gray values of the scene; the last is the substrate's.
    pub palette: &'a [f32],
    /// Canvas pixels for a picture pixel.
    pub factor: f32,
    /// Region for defects' centres on the canvas: x0, y0, x1, y1.
    pub inner: [f32; 4],
    /// Which of its points are allowed.
    pub allowed: &'a dyn Fn(Point) -> bool,
}

/// How often a place is drawn anew when it is not allowed; the defect is left out after that.
const PLACE_TRIES: usize = 50;

/// Paints `count` defects on top of `bad`; `good` is the scene without them.
pub(crate) fn paint(draw: &mut Draw, config: &Config, ground: &Ground, good: &Map, bad: &mut Map, count: usize) {
    let (f, inner) = (ground.factor, ground.inner);
    let edges = if count > 0 { edges(good) } else { Vec::new() };
    let width = good.width();
    let inside = |p: Point| p[0] >= inner[0] && p[0] < inner[2] && p[1] >= inner[1] && p[1] < inner[3] && (ground.allowed)(p);
    for _ in 0..count {
        let on_edge = !edges.is_empty() && draw.chance(config.on_edge_share);
        let mut place = None;
        for attempt in 0..PLACE_TRIES {
            let at = if on_edge && attempt < PLACE_TRIES / 2 {
                let e = *draw.pick(&edges) as usize;
                [(e % width) as f32 + draw.normal(2.0 * f), (e / width) as f32 + draw.normal(2.0 * f)]
            } else {
                [
                    inner[0] + draw.uniform(0.03, 0.97) * (inner[2] - inner[0]),
                    inner[1] + draw.uniform(0.03, 0.97) * (inner[3] - inner[1]),
                ]
            };
            if inside(at) {
                place = Some(at);
                break;
            }
        }
        let Some(centre) = place else { continue };
        let here = at(bad, centre);
        let gray = gray_of(draw, config, ground, bad, centre, here);
        let side = (inner[2] - inner[0]).min(inner[3] - inner[1]);
        let radius = if draw.chance(config.large_share) {
            (draw.log_within(config.large_radius_px) * f).min(0.3 * side)
        } else {
            draw.log_within(config.defect_radius_px) * f
        };
        if draw.chance(config.stain_share) {
            let mut layer = bad.clone();
            form(draw, config, &mut layer, centre, radius, gray, f);
            let opacity = draw.uniform(0.35, 0.8);
            for (b, l) in bad.data_mut().iter_mut().zip(layer.data()) {
                *b += opacity * (*l - *b);
            }
        } else {
            form(draw, config, bad, centre, radius, gray, f);
        }
    }
}

fn gray_of(draw: &mut Draw, config: &Config, ground: &Ground, canvas: &Map, centre: Point, here: f32) -> f32 {
    let mut gray = if draw.chance(config.neighbour_gray_share) {
        let (s, c) = sin_cos(draw.uniform(0.0, 2.0 * PI));
        let reach = draw.uniform(3.0, 14.0) * ground.factor;
        let found = at(canvas, [centre[0] + c * reach, centre[1] + s * reach]);
        if (found - here).abs() < 0.1 { *draw.pick(ground.palette) } else { found }
    } else {
        draw.unit()
    };
    if (gray - here).abs() < 0.15 && draw.chance(0.8) {
        let away = if here < 0.5 { 1.0 } else { -1.0 };
        gray = here + 0.3 * away * draw.uniform(0.7, 1.5);
    }
    gray.clamp(0.0, 1.0)
}

/// One defect's form. `radius` in canvas pixels.
fn form(draw: &mut Draw, config: &Config, canvas: &mut Map, centre: Point, radius: f32, gray: f32, f: f32) {
    let moved = |points: Vec<Point>| -> Vec<Point> { points.iter().map(|p| [p[0] + centre[0], p[1] + centre[1]]).collect() };
    match draw.weighted(&config.defect_weights) {
        0 => {
            let (corners, flat) = (draw.whole(5, 10), draw.uniform(0.3, 1.0));
            let points = moved(shapes::blob(draw, corners, radius, flat));
            raster::polygon(canvas, &points, gray);
            // A star that covers no pixel centre still marks its place.
            raster::disc(canvas, centre, 0.5 * f, gray);
        }
        1 => {
            let (flat, angle) = (draw.uniform(0.3, 1.0), draw.uniform(0.0, PI));
            raster::polygon(canvas, &ellipse_points(centre, [radius, (radius * flat).max(0.5 * f)], angle), gray);
        }
        2 => {
            let segments = draw.whole(1, 4);
            let (step, bend, width) = (draw.uniform(0.6, 1.6) * radius, 0.5, draw.uniform(1.5, 4.0) * f);
            wander(draw, canvas, centre, segments, step, bend, width, gray);
        }
        3 => {
            let segments = draw.whole(5, 10);
            let (step, bend, width) = (draw.uniform(0.35, 0.8) * radius, 0.45, draw.uniform(1.2, 2.6) * f);
            wander(draw, canvas, centre, segments, step, bend, width, gray);
        }
        4 => {
            let points =
                moved(vec![[-radius, -radius * 0.6], [radius, -radius * 0.6], [radius, radius * 0.6], [-radius, radius * 0.6]]);
            raster::polygon(canvas, &points, gray);
        }
        5 => {
            // A straight cut or bridge at a multiple of 45 degrees, a little off.
            let angle = draw.whole(0, 3) as f32 * (PI / 4.0) + draw.normal(0.12);
            let (s, c) = sin_cos(angle);
            let reach = radius * draw.uniform(0.8, 1.5);
            let width = (radius * draw.uniform(0.25, 0.7)).max(1.5 * f);
            let ends = [[centre[0] - c * reach, centre[1] - s * reach], [centre[0] + c * reach, centre[1] + s * reach]];
            raster::stroke(canvas, &ends, width, gray);
        }
        _ => {
            let size = (radius * 0.35).max(1.2 * f);
            let width = (size * draw.uniform(0.4, 0.9)).max(1.2 * f);
            for run in shapes::glyph(draw.whole(0, 99), size) {
                raster::stroke(canvas, &moved(run), width, gray);
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "a path's parameters, used by two forms above")]
fn wander(draw: &mut Draw, canvas: &mut Map, centre: Point, segments: usize, step: f32, bend: f32, width: f32, gray: f32) {
    let mut angle = draw.uniform(0.0, 2.0 * PI);
    let mut points = vec![centre];
    for _ in 0..segments {
        angle += draw.normal(bend);
        let (s, c) = sin_cos(angle);
        let last = points[points.len() - 1];
        let run = step * draw.uniform(0.6, 1.4);
        points.push([last[0] + c * run, last[1] + s * run]);
    }
    raster::stroke(canvas, &points, width, gray);
}
