//! Correlation of spectra: rotation and scale from the log-polar spectra, translation for both 180-degree hypotheses.
//!
//! Equations (3) to (5) of the paper, with the cross spectrum half whitened (divided by the root of its magnitude) instead of wholly:
//! the whole-phase correlation of the paper finds clearly fewer right peaks on noisy and blurred frames.

use rustfft::num_complex::Complex32;

use super::coarse::{CoarseScratch, CoarseTemplate};
use super::isa::kernel;
use super::lanes::Simd;
use super::log_polar::{ANGLES, RADII};
use super::sampling::{self, CHUNK, Chunk};
use super::spectrum;
use crate::frame::Map;
use crate::geometry::Affine;

/// A peak of the log-polar correlation: a rotation (known up to 180 degrees) and a scale of the template in the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Height of the correlation, in its own units: only ratios between peaks of one frame mean something.
    pub height: f32,
    /// Rotation, radians, in -pi/180..pi.
    pub rotation_rad: f64,
    /// Scale.
    pub scale: f64,
}

/// Offset in -0.5..0.5 of the top of the parabola through three equally spaced values whose middle one is the largest.
fn parabola(left: f32, middle: f32, right: f32) -> f32 {
    let bend = left - 2.0 * middle + right;
    if bend < -1e-12 { (0.5 * (left - right) / bend).clamp(-0.5, 0.5) } else { 0.0 }
}

/// Writes the `count` highest peaks inside the scale band to `out`, best first.
pub fn rotation_scale_peaks(isa: super::Isa, t: &CoarseTemplate, s: &mut CoarseScratch, count: usize, out: &mut Vec<Peak>) {
    spectrum::half_whitened(isa, &s.log_spectrum, &t.log_spectrum, &mut s.log_product);
    t.log_plan.inverse(&mut s.log_product, usize::MAX, &mut s.log_polar, &mut s.fft);
    let c = &s.log_polar;
    // A picture magnified by s has its spectrum shrunk by s: a shift of -ln s along log r.
    let step = t.table.log_step();
    let low = (-t.scale_band.1.ln() / step).floor() as i64;
    let high = (-t.scale_band.0.ln() / step).ceil() as i64;
    let at = |i: i64, j: i64| c[i.rem_euclid(ANGLES as i64) as usize * RADII + j.rem_euclid(RADII as i64) as usize];
    out.clear();
    for i in 0..ANGLES as i64 {
        for j in low..=high {
            let v = at(i, j);
            let enough = v > 0.0 && (out.len() < count || out.last().is_some_and(|p| v > p.height));
            if !enough || (-1..=1).any(|a| (-1..=1).any(|b| at(i + a, j + b) > v)) {
                continue;
            }
            let di = f64::from(parabola(at(i - 1, j), v, at(i + 1, j)));
            let dj = f64::from(parabola(at(i, j - 1), v, at(i, j + 1)));
            let peak = Peak {
                height: v,
                rotation_rad: std::f64::consts::PI * (i as f64 + di) / ANGLES as f64,
                scale: (-(j as f64 + dj) * step).exp(),
            };
            let place = out.iter().position(|p| v > p.height).unwrap_or(out.len());
            if out.len() == count {
                out.pop();
            }
            out.insert(place, peak);
        }
    }
}

/// Finds the best `count` shifts of the frame turned back by (`rotation_rad`, `scale`), and of the same turned by 180 degrees more, and
/// hands each pose (coarse template pixels to coarse frame pixels) to `found`.
///
/// One warp and one transform serve both hypotheses: the spectrum of a picture turned by 180 degrees is the conjugate times a linear
/// phase.
#[allow(clippy::too_many_arguments)]
pub fn shifts(
    isa: super::Isa,
    t: &CoarseTemplate,
    s: &mut CoarseScratch,
    frame: &Map,
    rotation_rad: f64,
    scale: f64,
    count: usize,
    mut found: impl FnMut(Affine),
) {
    let (w, h) = t.plan.size();
    let frame_from_canvas = Affine::about_centres(rotation_rad, scale, 0.0, 0.0, (w, h), frame.size());
    turn_back(isa, frame, &frame_from_canvas, w, &t.canvas_window, &mut s.picture);
    t.plan.forward(&mut s.picture, &mut s.spectrum, &mut s.fft);
    let (sw, sh) = t.shift_plan.size();
    let (kx, ky) = t.band;
    let (step_x, step_y) = (w as f64 / sw as f64, h as f64 / sh as f64);
    for flipped in [false, true] {
        cross_band(
            isa,
            &s.spectrum,
            &t.spectrum,
            (h, sh, kx, ky),
            flipped.then_some((&t.turn_x, &t.turn_y)),
            &mut s.line,
            &mut s.product,
        );
        t.shift_plan.inverse(&mut s.product, kx + 1, &mut s.correlation, &mut s.fft);
        let pose = if flipped {
            Affine::about_centres(rotation_rad + std::f64::consts::PI, scale, 0.0, 0.0, (w, h), frame.size())
        } else {
            frame_from_canvas
        };
        s.tops.clear();
        tops(&s.correlation, sw, count, &mut s.tops);
        for &(x, y) in &s.tops {
            let signed = |v: f32, n: usize| f64::from(if v > n as f32 / 2.0 { v - n as f32 } else { v });
            let (dx, dy) = (signed(x, sw) * step_x, signed(y, sh) * step_y);
            // A peak at d says: template on the canvas at p = turned frame at p - d.
            let (ox, oy) = t.offset;
            found(pose.compose(&Affine::similarity(0.0, 1.0, ox as f64 - dx, oy as f64 - dy)));
        }
    }
}

/// The highest `count` local maxima of a periodic map of `width` columns, refined by parabolas: (x, y).
fn tops(map: &[f32], width: usize, count: usize, out: &mut Vec<(f32, f32)>) {
    let height = map.len() / width;
    let mut best = [(0.0f32, 0usize); 4];
    let count = count.min(best.len());
    let mut filled = 0;
    let around = |i: usize| {
        let (x, y) = (i % width, i / width);
        let left = if x == 0 { i + width - 1 } else { i - 1 };
        let right = if x + 1 == width { i + 1 - width } else { i + 1 };
        let up = if y == 0 { i + (height - 1) * width } else { i - width };
        let down = if y + 1 == height { x } else { i + width };
        [map[left], map[right], map[up], map[down]]
    };
    for (y, row) in map.chunks_exact(width).enumerate() {
        // Most rows hold nothing: one vectorised maximum a row settles them.
        let floor = if filled < count { 0.0 } else { best[count - 1].0 };
        let top = row.iter().fold(0.0f32, |a, v| if *v > a { *v } else { a });
        if top <= floor {
            continue;
        }
        for (x, &v) in row.iter().enumerate() {
            let floor = if filled < count { 0.0 } else { best[count - 1].0 };
            let i = y * width + x;
            if v <= floor || around(i).iter().any(|n| *n > v) {
                continue;
            }
            let place = best[..filled].iter().position(|b| v > b.0).unwrap_or(filled);
            filled = (filled + 1).min(count);
            best.copy_within(place..filled - 1, place + 1);
            best[place] = (v, i);
        }
    }
    for &(v, i) in &best[..filled] {
        let [left, right, up, down] = around(i);
        out.push(((i % width) as f32 + parabola(left, v, right), (i / width) as f32 + parabola(up, v, down)));
    }
}

kernel! {
    /// Reads `frame` at `frame_from_canvas(x, y)` for each canvas pixel (rows of `width`), times `window`; 0 outside the frame.
    fn turn_back(frame: &Map, frame_from_canvas: &Affine, width: usize, window: &[f32], out: &mut [f32]) = turn_back_body
}

#[inline(always)]
fn turn_back_body<S: Simd>(simd: S, frame: &Map, frame_from_canvas: &Affine, width: usize, window: &[f32], out: &mut [f32]) {
    let m = frame_from_canvas.m.map(|r| r.map(|v| v as f32));
    let mut c = Chunk::default();
    for (y, (row, window)) in out.chunks_exact_mut(width).zip(window.chunks_exact(width)).enumerate() {
        let (x0, y0) = (m[0][1] * y as f32 + m[0][2], m[1][1] * y as f32 + m[1][2]);
        for (k, (out, window)) in row.chunks_mut(CHUNK).zip(window.chunks(CHUNK)).enumerate() {
            for i in 0..CHUNK {
                let x = (k * CHUNK + i) as i32 as f32;
                c.x[i] = m[0][0] * x + x0;
                c.y[i] = m[1][0] * x + y0;
            }
            sampling::bilinear(simd, frame, &mut c);
            for (i, (o, w)) in out.iter_mut().zip(window).enumerate() {
                *o = c.value[i] * c.visible[i] * w;
            }
        }
    }
}

/// Half-whitened cross spectrum of `template` with `frame`, cut to |kx| <= `kx` and |ky| <= `ky` and laid out for a canvas of `small_h`
/// rows; with the turn by 180 degrees applied to `frame` where `turn` gives its phases along x and y.
fn cross_band(
    isa: super::Isa,
    frame: &[Complex32],
    template: &[Complex32],
    (h, small_h, kx, ky): (usize, usize, usize, usize),
    turn: Option<(&[Complex32], &[Complex32])>,
    line: &mut Vec<Complex32>,
    out: &mut [Complex32],
) {
    line.resize(ky * 2 + 1, Complex32::default());
    for x in 0..=kx {
        let out = &mut out[x * small_h..(x + 1) * small_h];
        out[ky + 1..small_h - ky].fill(Complex32::default());
        for (from, to, n) in [(0, 0, ky + 1), (h - ky, small_h - ky, ky)] {
            let f = &frame[x * h + from..x * h + from + n];
            let t = &template[x * h + from..x * h + from + n];
            if let Some((turn_x, turn_y)) = turn {
                turned(isa, f, turn_x[x], &turn_y[from..from + n], &mut line[..n]);
                spectrum::half_whitened(isa, t, &line[..n], &mut out[to..to + n]);
            } else {
                spectrum::half_whitened(isa, t, f, &mut out[to..to + n]);
            }
        }
    }
}

kernel! {
    /// `conj(a) * px * py`.
    fn turned(a: &[Complex32], px: Complex32, py: &[Complex32], out: &mut [Complex32]) = turned_body
}

#[inline(always)]
fn turned_body<S: Simd>(_: S, a: &[Complex32], px: Complex32, py: &[Complex32], out: &mut [Complex32]) {
    for ((o, a), py) in out.iter_mut().zip(a).zip(py) {
        *o = a.conj() * (px * py);
    }
}
