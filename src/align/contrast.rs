//! Local contrast normalisation (LCN): `(I - mean) / sqrt(variance + 64)` over a box around each pixel.
//!
//! Gain, offset, slow light gradients and most of a gamma curve vanish; 64 = 8² gray levels keeps flat areas' noise from being blown up.
//! The box is cut at the picture's border. Sums are whole numbers, so the result does not depend on the order of summation.

use super::isa::kernel;
use super::lanes::Simd;
use crate::frame::{Gray, Map};

/// Regularisation of the variance, gray levels squared.
const FLOOR: f32 = 64.0;
/// Box radius as a share of the picture's longest side.
const RADIUS_SHARE: f64 = 0.08;

/// Working memory of [`normalise`], reused between frames.
#[derive(Debug, Default)]
pub struct Scratch {
    column_sum: Vec<u32>,
    column_square: Vec<u32>,
    prefix_sum: Vec<u32>,
    prefix_square: Vec<u32>,
    count: Vec<f32>,
}

/// Box radius for a picture of that size, px.
#[must_use]
pub fn radius(width: usize, height: usize) -> usize {
    ((width.max(height) as f64 * RADIUS_SHARE) as usize).max(3)
}

/// Writes the normalised picture to `out` (same size). A constant picture gives zeros. Sides up to 1000 px (sums are 32-bit).
pub fn normalise(isa: super::Isa, picture: &Gray, out: &mut Map, s: &mut Scratch) {
    let (w, h) = picture.size();
    let r = radius(w, h);
    out.resize_for_overwrite(w, h);
    for v in [&mut s.column_sum, &mut s.column_square] {
        v.clear();
        v.resize(w, 0);
    }
    for v in [&mut s.prefix_sum, &mut s.prefix_square] {
        v.clear();
        v.resize(w + 1, 0);
    }
    s.count.clear();
    s.count.extend((0..w).map(|x| ((x + r).min(w - 1) + 1 - x.saturating_sub(r)) as f32));
    for y in 0..r.min(h) {
        add_row(isa, picture.row(y), &mut s.column_sum, &mut s.column_square);
    }
    for y in 0..h {
        if y + r < h {
            add_row(isa, picture.row(y + r), &mut s.column_sum, &mut s.column_square);
        }
        if y > r {
            remove_row(isa, picture.row(y - r - 1), &mut s.column_sum, &mut s.column_square);
        }
        let (mut a, mut b) = (0u32, 0u32);
        for x in 0..w {
            a = a.wrapping_add(s.column_sum[x]);
            b = b.wrapping_add(s.column_square[x]);
            s.prefix_sum[x + 1] = a;
            s.prefix_square[x + 1] = b;
        }
        let rows = ((y + r).min(h - 1) + 1 - y.saturating_sub(r)) as f32;
        normalise_row(isa, picture.row(y), &s.prefix_sum, &s.prefix_square, &s.count, rows, r, out.row_mut(y));
    }
}

kernel! {
    fn add_row(row: &[u8], sum: &mut [u32], square: &mut [u32]) = add_row_body
}
kernel! {
    fn remove_row(row: &[u8], sum: &mut [u32], square: &mut [u32]) = remove_row_body
}
kernel! {
    fn normalise_row(row: &[u8], sum: &[u32], square: &[u32], count: &[f32], rows: f32, r: usize, out: &mut [f32]) = normalise_row_body
}

#[inline(always)]
fn add_row_body<S: Simd>(_: S, row: &[u8], sum: &mut [u32], square: &mut [u32]) {
    for ((v, s), q) in row.iter().zip(sum).zip(square) {
        let v = u32::from(*v);
        *s += v;
        *q += v * v;
    }
}

#[inline(always)]
fn remove_row_body<S: Simd>(_: S, row: &[u8], sum: &mut [u32], square: &mut [u32]) {
    for ((v, s), q) in row.iter().zip(sum).zip(square) {
        let v = u32::from(*v);
        *s -= v;
        *q -= v * v;
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn normalise_row_body<S: Simd>(
    _: S,
    row: &[u8],
    sum: &[u32],
    square: &[u32],
    count: &[f32],
    rows: f32,
    r: usize,
    out: &mut [f32],
) {
    let w = row.len();
    let pixel = |v: u8, s: u32, q: u32, n: f32| {
        let k = 1.0 / (n * rows);
        let mean = s as i32 as f32 * k;
        let variance = (q as i32 as f32 * k - mean * mean).max(0.0);
        (f32::from(v) - mean) / (variance + FLOOR).sqrt()
    };
    let (left, right) = (r.min(w), w.saturating_sub(r + 1).max(r.min(w)));
    for x in (0..left).chain(right..w) {
        let (lo, hi) = (x.saturating_sub(r), (x + r + 1).min(w));
        out[x] = pixel(row[x], sum[hi].wrapping_sub(sum[lo]), square[hi].wrapping_sub(square[lo]), count[x]);
    }
    // Inside, both ends move with x: plain slices, which vectorise.
    let n = right - left;
    if n == 0 {
        return;
    }
    let full = (2 * r + 1) as f32;
    let (lo, hi) = (left - r, left + r + 1);
    let (s0, s1) = (&sum[lo..lo + n], &sum[hi..hi + n]);
    let (q0, q1) = (&square[lo..lo + n], &square[hi..hi + n]);
    let (v, o) = (&row[left..left + n], &mut out[left..left + n]);
    for i in 0..n {
        o[i] = pixel(v[i], s1[i].wrapping_sub(s0[i]), q1[i].wrapping_sub(q0[i]), full);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;

    fn direct(p: &Gray, x: usize, y: usize, r: usize) -> f64 {
        let (mut n, mut s, mut q) = (0.0, 0.0, 0.0);
        for j in y.saturating_sub(r)..(y + r + 1).min(p.height()) {
            for i in x.saturating_sub(r)..(x + r + 1).min(p.width()) {
                let v = f64::from(p.get(i, j));
                n += 1.0;
                s += v;
                q += v * v;
            }
        }
        let m: f64 = s / n;
        (f64::from(p.get(x, y)) - m) / (q / n - m * m + 64.0f64).sqrt()
    }

    /// Rounding of the variance in f32 at 255² gray levels squared, over its floor of 64.
    const TOLERANCE: f64 = 2e-3;

    #[test]
    fn equals_the_definition_on_odd_sizes() {
        for (w, h) in [(64, 40), (33, 57), (7, 5), (130, 9)] {
            let p = Gray::from_fn(w, h, |x, y| ((x * x + 31 * y + x * y * 3) % 251) as u8);
            let r = radius(w, h);
            for isa in [Isa::scalar(), Isa::detect()] {
                let mut out = Map::default();
                normalise(isa, &p, &mut out, &mut Scratch::default());
                for y in 0..h {
                    for x in 0..w {
                        let e = direct(&p, x, y, r);
                        assert!((f64::from(out.get(x, y)) - e).abs() < TOLERANCE, "{w}x{h} at {x},{y}: {} {e}", out.get(x, y));
                    }
                }
            }
        }
    }

    #[test]
    fn a_constant_picture_becomes_zero() {
        let p = Gray::from_fn(50, 50, |_, _| 255);
        let mut out = Map::default();
        normalise(Isa::detect(), &p, &mut out, &mut Scratch::default());
        assert!(out.data().iter().all(|v| v.abs() < 1e-3));
    }
}
