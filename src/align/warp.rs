//! Moving the template onto the frame: what the network compares the frame with.
//!
//! Kernel: Catmull-Rom cubic convolution (Keys 1981, a = -1/2), separable, 4x4 taps; exact at pixel centres and for quadratics, values
//! rounded and clamped to 0..255. Taps beyond the border repeat the border pixel. A frame pixel is valid where its position on the
//! template lies within the template's pixel centres, [0, w-1] x [0, h-1].

use super::isa::{Isa, kernel};
use super::lanes::Simd;
use crate::frame::Gray;
use crate::geometry::Affine;

/// Frame pixels handled at a time.
const CHUNK: usize = 64;

/// Warps `template` to the frame: `out` (resized to `frame_size`) is the template as the frame would show it, 0 where the template does
/// not reach; `valid` is 255 where it does, else 0. A pose that folds the plane onto a line covers nothing.
pub fn warp_template(
    template: &Gray,
    frame_from_template: &Affine,
    frame_size: (usize, usize),
    out: &mut Gray,
    valid: &mut Gray,
) {
    warp_template_with(Isa::detect(), template, frame_from_template, frame_size, out, valid);
}

/// [`warp_template`] with the instruction set chosen, so that two can be compared.
pub fn warp_template_with(
    isa: Isa,
    template: &Gray,
    frame_from_template: &Affine,
    frame_size: (usize, usize),
    out: &mut Gray,
    valid: &mut Gray,
) {
    out.reset(frame_size.0, frame_size.1);
    valid.reset(frame_size.0, frame_size.1);
    let Some(inverse) = frame_from_template.invert().filter(Affine::is_finite) else {
        return;
    };
    if template.width() < 4 || template.height() < 4 {
        return;
    }
    for y in 0..frame_size.1 {
        let span = covered(&inverse, template.size(), frame_size.0, y);
        if span.is_empty() {
            continue;
        }
        valid.row_mut(y)[span.clone()].fill(255);
        warp_row(isa, template, &inverse, y, span.start, &mut out.row_mut(y)[span]);
    }
}

/// Columns of frame row `y` whose position on the template lies within its pixel centres.
fn covered(template_from_frame: &Affine, size: (usize, usize), width: usize, y: usize) -> std::ops::Range<usize> {
    let m = &template_from_frame.m;
    let (mut low, mut high) = (0.0f64, width as f64 - 1.0);
    for (row, side) in [(m[0], size.0), (m[1], size.1)] {
        // 0 <= slope x + at <= side - 1
        let (slope, at, last) = (row[0], row[1] * y as f64 + row[2], side as f64 - 1.0);
        if slope.abs() < 1e-12 {
            if !(0.0..=last).contains(&at) {
                return 0..0;
            }
            continue;
        }
        let (a, b) = (-at / slope, (last - at) / slope);
        low = low.max(a.min(b));
        high = high.min(a.max(b));
    }
    // A position on the border to within rounding counts as covered.
    let (start, end) = ((low - 1e-9).ceil().max(0.0), (high + 1e-9).floor());
    if end < start { 0..0 } else { start as usize..(end as usize + 1).min(width) }
}

kernel! {
    fn warp_row(template: &Gray, template_from_frame: &Affine, y: usize, first: usize, out: &mut [u8]) = warp_row_body
}

/// Weights of the taps at -1, 0, 1, 2 from a position `f` past tap 0.
#[inline(always)]
fn weights<S: Simd>(simd: S, f: f32) -> [f32; 4] {
    let poly = |a: f32, b: f32, c: f32, d: f32| simd.fma(f, simd.fma(f, simd.fma(f, a, b), c), d);
    [poly(-0.5, 1.0, -0.5, 0.0), poly(1.5, -2.5, 0.0, 1.0), poly(-1.5, 2.0, 0.5, 0.0), poly(0.5, -0.5, 0.0, 0.0)]
}

#[inline(always)]
fn warp_row_body<S: Simd>(simd: S, template: &Gray, template_from_frame: &Affine, y: usize, first: usize, out: &mut [u8]) {
    let (w, h) = template.size();
    let data = template.data();
    let m = &template_from_frame.m;
    let (row_x, row_y) = (m[0][1] * y as f64 + m[0][2], m[1][1] * y as f64 + m[1][2]);
    let (mut xi, mut yi) = ([0i32; CHUNK], [0i32; CHUNK]);
    let (mut fx, mut fy) = ([0.0f32; CHUNK], [0.0f32; CHUNK]);
    let mut taps = [[0u32; CHUNK]; 4];
    let mut value = [0u8; CHUNK];
    for (k, out) in out.chunks_mut(CHUNK).enumerate() {
        let start = (first + k * CHUNK) as f64;
        // The chunk's first position in f64, the way along it in f32: exact to 1e-5 px at any frame size.
        let (x0, y0) = (m[0][0] * start + row_x, m[1][0] * start + row_y);
        let (bx, by) = (x0.floor(), y0.floor());
        let (ox, oy) = ((x0 - bx) as f32, (y0 - by) as f32);
        let (bx, by) = (bx as i32, by as i32);
        let (sx, sy) = (m[0][0] as f32, m[1][0] as f32);
        for i in 0..CHUNK {
            let (x, y) = (simd.fma(sx, i as i32 as f32, ox), simd.fma(sy, i as i32 as f32, oy));
            let (x1, y1) = (x.floor(), y.floor());
            fx[i] = x - x1;
            fy[i] = y - y1;
            xi[i] = bx + x1 as i32 - 1;
            yi[i] = by + y1 as i32 - 1;
        }
        let inside = |i: usize| xi[i] >= 0 && yi[i] >= 0 && xi[i] + 4 <= w as i32 && yi[i] + 4 <= h as i32;
        let last = out.len() - 1;
        if inside(0) && inside(last) {
            for i in 0..=last {
                let at = yi[i] as usize * w + xi[i] as usize;
                let t = &data[at..at + 3 * w + 4];
                let four = |o: usize| u32::from_le_bytes([t[o], t[o + 1], t[o + 2], t[o + 3]]);
                taps[0][i] = four(0);
                taps[1][i] = four(w);
                taps[2][i] = four(2 * w);
                taps[3][i] = four(3 * w);
            }
        } else {
            let clamp = |v: i32, n: usize| v.clamp(0, n as i32 - 1) as usize;
            for i in 0..=last {
                for (j, taps) in taps.iter_mut().enumerate() {
                    let row = &data[clamp(yi[i] + j as i32, h) * w..][..w];
                    taps[i] = u32::from_le_bytes(std::array::from_fn(|c| row[clamp(xi[i] + c as i32, w)]));
                }
            }
        }
        for i in 0..CHUNK {
            let (wx, wy) = (weights(simd, fx[i]), weights(simd, fy[i]));
            let row = |t: u32| {
                let b = |shift: u32| ((t >> shift) & 255) as i32 as f32;
                let s = simd.fma(wx[1], b(8), wx[0] * b(0));
                simd.fma(wx[3], b(24), simd.fma(wx[2], b(16), s))
            };
            let s = simd.fma(wy[1], row(taps[1][i]), wy[0] * row(taps[0][i]));
            let v = simd.fma(wy[3], row(taps[3][i]), simd.fma(wy[2], row(taps[2][i]), s));
            value[i] = (v.clamp(0.0, 255.0) + 0.5) as i32 as u8;
        }
        out.copy_from_slice(&value[..=last]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn textured(w: usize, h: usize) -> Gray {
        Gray::from_fn(w, h, |x, y| ((x * 37 + y * 91 + x * y) % 256) as u8)
    }

    #[test]
    fn the_identity_copies_and_a_whole_shift_moves() {
        let t = textured(90, 70);
        let (mut out, mut valid) = (Gray::default(), Gray::default());
        warp_template(&t, &Affine::IDENTITY, (90, 70), &mut out, &mut valid);
        assert_eq!(out, t);
        assert!(valid.data().iter().all(|v| *v == 255));
        warp_template(&t, &Affine::similarity(0.0, 1.0, 5.0, -3.0), (100, 70), &mut out, &mut valid);
        for y in 0..70 {
            for x in 0..100 {
                let inside = (5..95).contains(&x) && y < 67;
                assert_eq!(valid.get(x, y), if inside { 255 } else { 0 }, "{x} {y}");
                assert_eq!(out.get(x, y), if inside { t.get(x - 5, y + 3) } else { 0 });
            }
        }
    }

    #[test]
    fn a_quadratic_is_reproduced_under_any_pose() {
        let f = |x: f64, y: f64| 20.0 + 0.004 * (x - 10.0).powi(2) + 0.5 * y + 0.003 * x * y;
        let t = Gray::from_fn(120, 100, |x, y| f(x as f64, y as f64).round() as u8);
        let pose = Affine::about_centres(0.6, 1.1, 4.0, -2.0, (120, 100), (150, 140));
        let inverse = pose.invert().unwrap();
        let (mut out, mut valid) = (Gray::default(), Gray::default());
        warp_template(&t, &pose, (150, 140), &mut out, &mut valid);
        let mut seen = 0;
        for y in 0..140 {
            for x in 0..150 {
                let (u, v) = inverse.apply(x as f64, y as f64);
                let inside = (0.0..=119.0).contains(&u) && (0.0..=99.0).contains(&v);
                assert_eq!(valid.get(x, y) == 255, inside);
                if (1.0..118.0).contains(&u) && (1.0..98.0).contains(&v) {
                    // The template's rounding, weighted by taps whose magnitudes sum to at most 1.6, and the output's.
                    assert!((f64::from(out.get(x, y)) - f(u, v)).abs() < 1.4, "{x} {y}: {} {}", out.get(x, y), f(u, v));
                    seen += 1;
                }
            }
        }
        assert!(seen > 8000);
    }

    #[test]
    fn both_builds_agree_to_one_gray_level_and_a_flat_pose_covers_nothing() {
        let t = textured(90, 70);
        let pose = Affine::about_centres(2.5, 0.83, 7.3, 1.2, (90, 70), (97, 75));
        let [mut a, mut b, mut va, mut vb] = [(); 4].map(|()| Gray::default());
        warp_template_with(Isa::scalar(), &t, &pose, (97, 75), &mut a, &mut va);
        warp_template_with(Isa::detect(), &t, &pose, (97, 75), &mut b, &mut vb);
        assert_eq!(va, vb);
        assert!(a.data().iter().zip(b.data()).all(|(a, b)| a.abs_diff(*b) <= 1));
        let flat = Affine { m: [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]] };
        warp_template(&t, &flat, (97, 75), &mut a, &mut va);
        assert!(va.data().iter().all(|v| *v == 0));
    }
}
