//! The variation model: a pixel is a defect when it leaves the band `mean ± max(a, b · variation)`.
//!
//! That is HALCON's prepare_variation_model / compare_variation_model (reference manual, operators of the chapter "Variation Model"),
//! with its default thresholds a = 10 and b = 2. The variation is the standard deviation learnt from good parts, or, from one picture
//! (prepare_direct_variation_model), its edge amplitude: Sobel 3x3, (|dx| + |dy|) / 4, as sobel_amp's `sum_abs`.
//! Score: with r = |frame - mean| / max(a, b · variation), r / (1 + r): 0.5 on the band's borders.

use crate::frame::{Gray, Map};
use crate::geometry::Affine;

use super::light::Line;
use super::{Settings, score_of_ratio};

/// From one picture.
pub(super) fn one_image(template: &Gray, frame: &Gray, settings: &Settings, out: &mut Map) {
    let (w, h) = frame.size();
    out.resize_for_overwrite(w, h);
    for y in 0..h {
        let rows = [y.saturating_sub(1), y, (y + 1).min(h - 1)].map(|r| template.row(r));
        let f = frame.row(y);
        let o = out.row_mut(y);
        for x in 0..w {
            let (l, r) = (x.saturating_sub(1), (x + 1).min(w - 1));
            let at = |row: usize, x: usize| i32::from(rows[row][x]);
            let dx = at(0, r) + 2 * at(1, r) + at(2, r) - at(0, l) - 2 * at(1, l) - at(2, l);
            let dy = at(2, l) + 2 * at(2, x) + at(2, r) - at(0, l) - 2 * at(0, x) - at(0, r);
            let amplitude = (dx.abs() + dy.abs()) as f32 / 4.0;
            let band = settings.variation_absolute.max(settings.variation_factor * amplitude);
            o[x] = score_of_ratio(f32::from(f[x].abs_diff(rows[1][x])) / band);
        }
    }
}

/// From what was learnt: mean and deviation moved to the frame; `line` takes the mean to the frame's light.
pub(super) fn learnt(mean: &Map, deviation: &Map, line: Line, valid: &Gray, frame: &Gray, settings: &Settings, out: &mut Map) {
    out.resize_for_overwrite(frame.width(), frame.height());
    let (gain, offset) = (line.gain as f32, line.offset as f32);
    for (i, o) in out.data_mut().iter_mut().enumerate() {
        let band = settings.variation_absolute.max(settings.variation_factor * gain * deviation.data()[i]);
        let difference = (f32::from(frame.data()[i]) - (gain * mean.data()[i] + offset)).abs();
        *o = if valid.data()[i] == 0 { 0.0 } else { score_of_ratio(difference / band) };
    }
}

/// Moves a map of template coordinates to the frame, bilinearly; places outside take the nearest border value.
pub fn warp_map(map: &Map, frame_from_template: &Affine, frame_size: (usize, usize), out: &mut Map) {
    out.reset(frame_size.0, frame_size.1);
    let Some(back) = frame_from_template.invert() else { return };
    let (w, h) = map.size();
    for y in 0..frame_size.1 {
        for (x, o) in out.row_mut(y).iter_mut().enumerate() {
            let (tx, ty) = back.apply(x as f64, y as f64);
            let (tx, ty) = (tx.clamp(0.0, w as f64 - 1.0), ty.clamp(0.0, h as f64 - 1.0));
            let (x0, y0) = (tx as usize, ty as usize);
            let (x1, y1) = ((x0 + 1).min(w - 1), (y0 + 1).min(h - 1));
            let (fx, fy) = ((tx - x0 as f64) as f32, (ty - y0 as f64) as f32);
            let top = map.get(x0, y0) * (1.0 - fx) + map.get(x1, y0) * fx;
            let bottom = map.get(x0, y1) * (1.0 - fx) + map.get(x1, y1) * fx;
            *o = top * (1.0 - fy) + bottom * fy;
        }
    }
}
