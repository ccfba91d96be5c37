//! Section III-D of the paper taken literally: simple bright shapes on black, drawn twice with a pixel of jitter, then registered with
//! a small residual; added shapes are the only defects and cover at most about one percent; no lighting, no noise. White added to white
//! changes nothing: as in the wide recipe only what differs is labelled (a sixth of the added area on average lies on designed shapes).

use super::config::Config;
use super::random::Draw;
use super::random::{PI, sin_cos};
use super::raster::{self, Point};
use super::{Notes, Sample, label};
use crate::frame::{Gray, Map};

/// The published pictures' side, px; shapes are sized relative to it, smaller samples are crops of it.
const SIDE: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Triangle,
    Ring,
    Disc,
    Mesh,
    Square,
    Plus,
}

fn put(map: &mut Map, form: Form, at: [i64; 3]) {
    let [x, y, z] = at.map(|v| v as f32);
    let half = (z / 2.0).floor();
    match form {
        Form::Triangle => {
            let corners: [Point; 3] = [[x - half, y - half], [x - half, y + half], [x + half, y + half]];
            raster::polygon(map, &corners, 1.0);
        }
        Form::Ring => raster::circle(map, [x, y], z, (z * 0.3).floor().max(1.0), 1.0),
        Form::Disc => raster::disc(map, [x, y], z, 1.0),
        Form::Square => {
            let (a, b) = (half + 0.5, half + 0.5);
            raster::polygon(map, &[[x - a, y - b], [x + a, y - b], [x + a, y + b], [x - a, y + b]], 1.0);
        }
        Form::Mesh => {
            let steps = half as i64;
            for j in 0..steps {
                for i in 0..steps {
                    let p = [x - half + 2.0 * i as f32, y - half + 2.0 * j as f32];
                    raster::disc(map, p, 0.4, 1.0);
                }
            }
        }
        Form::Plus => {
            raster::stroke(map, &[[x - half, y], [x + half, y]], 2.0, 1.0);
            raster::stroke(map, &[[x, y - half], [x, y + half]], 2.0, 1.0);
        }
    }
}

/// Samples `map` turned by `angle` about its centre and shifted, bilinear, black beyond.
fn turned(map: &Map, angle: f32, shift: Point) -> Map {
    let (s, c) = sin_cos(angle);
    let (w, h) = map.size();
    let centre = [(w as f32 - 1.0) / 2.0, (h as f32 - 1.0) / 2.0];
    let at = |x: f32, y: f32| {
        if x >= 0.0 && y >= 0.0 && x < w as f32 && y < h as f32 { map.get(x as usize, y as usize) } else { 0.0 }
    };
    Map::from_fn(w, h, |x, y| {
        let (dx, dy) = (x as f32 - centre[0] - shift[0], y as f32 - centre[1] - shift[1]);
        let (sx, sy) = (c * dx + s * dy + centre[0], -s * dx + c * dy + centre[1]);
        let (x0, y0) = (sx.floor(), sy.floor());
        let (fx, fy) = (sx - x0, sy - y0);
        let top = at(x0, y0) * (1.0 - fx) + at(x0 + 1.0, y0) * fx;
        let bottom = at(x0, y0 + 1.0) * (1.0 - fx) + at(x0 + 1.0, y0 + 1.0) * fx;
        top * (1.0 - fy) + bottom * fy
    })
}

/// A pair of the paper's recipe.
pub(crate) fn paper(config: &Config, draw: &mut Draw) -> Sample {
    let size = config.size_px;
    let side = SIDE.max(size);
    let place = |draw: &mut Draw, zoom: f32| -> [i64; 3] {
        let at = |draw: &mut Draw| (side as f32 * draw.uniform(0.1, 0.9)) as i64;
        let (x, y) = (at(draw), at(draw));
        [x, y, ((SIDE as f32 * draw.uniform(0.06, 0.12) * zoom) as i64).max(4)]
    };
    let designed = [
        (Form::Triangle, 1.0),
        (Form::Triangle, 1.0),
        (Form::Ring, 0.7),
        (Form::Disc, 0.5),
        (Form::Ring, 0.9),
        (Form::Mesh, 1.0),
        (Form::Square, 0.8),
        (Form::Plus, 1.2),
        (Form::Plus, 1.2),
        (Form::Plus, 1.2),
        (Form::Plus, 1.2),
    ];
    let added = [(Form::Triangle, 0.5), (Form::Plus, 0.6), (Form::Square, 0.5), (Form::Ring, 0.4)];
    let repeats = (side * side).div_ceil(SIDE * SIDE);
    let mut template = Map::new(side, side);
    let mut good = Map::new(side, side);
    for (form, zoom) in designed.iter().cycle().take(designed.len() * repeats) {
        if draw.chance(0.9) {
            let at = place(draw, *zoom);
            put(&mut template, *form, at);
            let jitter = if draw.chance(0.4) { [draw.whole(0, 1) as i64, draw.whole(0, 1) as i64] } else { [0, 0] };
            put(&mut good, *form, [at[0] + jitter[0], at[1] + jitter[1], at[2]]);
        }
    }
    let corner = [draw.whole(0, side - size), draw.whole(0, side - size)];
    let mut frame = good.clone();
    let mut defects = 0;
    if !draw.chance(config.clean_share) {
        for (form, zoom) in added.iter().cycle().take(added.len() * repeats) {
            if draw.chance(0.7) {
                let at = place(draw, *zoom);
                put(&mut frame, *form, at);
                defects += 1;
            }
        }
    }
    let angle = draw.normal(0.3) * PI / 180.0;
    let shift = [draw.normal(0.5), draw.normal(0.5)];
    let template = turned(&template, angle, shift);
    let crop = |map: &Map| Gray::from_fn(size, size, |x, y| (map.get(corner[0] + x, corner[1] + y) * 255.0 + 0.5) as u8);
    let frame = crop(&frame);
    let changed: Vec<bool> = crop(&good).data().iter().zip(frame.data()).map(|(g, f)| g != f).collect();
    let label = label::from_mask(size, size, &changed, config.speck_px, None);
    let clean = label.data().iter().all(|v| *v != super::DEFECT);
    let notes = Notes { two_tone: true, defects, misfit_px: 0.5, shift_px: shift, ..Notes::default() };
    Sample { template: crop(&template), frame, label, clean, notes }
}
