//! Reading pictures between their pixels, a chunk of positions at a time.
//!
//! A chunk goes through three passes: positions to indices and fractions (vector), the loads (scalar: no instruction set gathers bytes
//! faster), and the weights (vector). Positions outside are moved inside for the loads and reported as not visible, so that the passes
//! need no branch.

use super::lanes::Simd;
use crate::frame::{Gray, Map};

/// Positions handled at a time: small enough that everything stays in the first-level cache.
pub const CHUNK: usize = 64;

/// Positions and results of a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// Column of each position, px.
    pub x: [f32; CHUNK],
    /// Row of each position, px.
    pub y: [f32; CHUNK],
    /// Sampled value; meaningless where `visible` is 0.
    pub value: [f32; CHUNK],
    /// 1 where the kernel's whole support lies inside the picture, else 0.
    pub visible: [f32; CHUNK],
}

impl Default for Chunk {
    fn default() -> Self {
        Self { x: [0.0; CHUNK], y: [0.0; CHUNK], value: [0.0; CHUNK], visible: [0.0; CHUNK] }
    }
}

/// `index[i]` = position of the top left tap, `fx`, `fy` = distance from the tap at `(before, before)` of the support.
/// A support of `before` pixels left of the position's pixel and `after` right of it must fit the `width` x `height` picture.
#[inline(always)]
fn locate<S: Simd>(
    _: S,
    c: &mut Chunk,
    width: usize,
    height: usize,
    before: usize,
    after: usize,
    index: &mut [u32; CHUNK],
    fx: &mut [f32; CHUNK],
    fy: &mut [f32; CHUNK],
) {
    let low = before as f32;
    let (right, bottom) = ((width - after) as f32, (height - after) as f32);
    let (last_x, last_y) = ((width - after - 1) as i32, (height - after - 1) as i32);
    let first = before as i32;
    for i in 0..CHUNK {
        let (x, y) = (c.x[i], c.y[i]);
        let inside = (x >= low) & (y >= low) & (x < right) & (y < bottom);
        c.visible[i] = if inside { 1.0 } else { 0.0 };
        // NaN and far positions become 0 by the cast's own rule, then the first pixel by the clamp.
        let (xi, yi) = ((x as i32).clamp(first, last_x), (y as i32).clamp(first, last_y));
        // Kept in 0..=1 (0 for NaN), so that no value is infinite: weights of 0 must be able to silence it.
        fx[i] = (x - xi as f32).max(0.0).min(1.0);
        fy[i] = (y - yi as f32).max(0.0).min(1.0);
        index[i] = ((yi - first) * width as i32 + (xi - first)) as u32;
    }
}

/// Bilinear samples of `plane` at the chunk's positions. The plane must be at least 2x2.
#[inline(always)]
pub fn bilinear<S: Simd>(simd: S, plane: &Map, c: &mut Chunk) {
    let (w, h) = plane.size();
    let (mut index, mut fx, mut fy) = ([0; CHUNK], [0.0; CHUNK], [0.0; CHUNK]);
    locate(simd, c, w, h, 0, 1, &mut index, &mut fx, &mut fy);
    let data = plane.data();
    let mut taps = [[0.0f32; CHUNK]; 4];
    for i in 0..CHUNK {
        let k = index[i] as usize;
        let t = &data[k..k + w + 2];
        taps[0][i] = t[0];
        taps[1][i] = t[1];
        taps[2][i] = t[w];
        taps[3][i] = t[w + 1];
    }
    for i in 0..CHUNK {
        let top = simd.fma(fx[i], taps[1][i] - taps[0][i], taps[0][i]);
        let bottom = simd.fma(fx[i], taps[3][i] - taps[2][i], taps[2][i]);
        c.value[i] = simd.fma(fy[i], bottom - top, top);
    }
}

/// Weights of the cubic B-spline at -1, 0, 1, 2 from a position `f` past tap 0.
#[inline(always)]
pub fn spline_weights<S: Simd>(simd: S, f: f32) -> [f32; 4] {
    let g = 1.0 - f;
    let (f2, g2) = (f * f, g * g);
    // (4 - 6 f² + 3 f³) / 6 and its mirror image.
    let inner = |t: f32, t2: f32| simd.fma(t2, simd.fma(0.5, t, -1.0), 2.0 / 3.0);
    [g2 * g * (1.0 / 6.0), inner(f, f2), inner(g, g2), f2 * f * (1.0 / 6.0)]
}

/// Cubic B-spline samples (without prefilter, so smoothing: 1/6, 4/6, 1/6 at a pixel) of `picture` at the chunk's positions.
/// The picture must be at least 4x4.
#[inline(always)]
pub fn spline<S: Simd>(simd: S, picture: &Gray, c: &mut Chunk) {
    let (w, h) = picture.size();
    let (mut index, mut fx, mut fy) = ([0; CHUNK], [0.0; CHUNK], [0.0; CHUNK]);
    locate(simd, c, w, h, 1, 2, &mut index, &mut fx, &mut fy);
    let data = picture.data();
    // A row of four pixels is one 32-bit load.
    let mut taps = [[0u32; CHUNK]; 4];
    for i in 0..CHUNK {
        let k = index[i] as usize;
        let t = &data[k..k + 3 * w + 4];
        let four = |o: usize| u32::from_le_bytes([t[o], t[o + 1], t[o + 2], t[o + 3]]);
        taps[0][i] = four(0);
        taps[1][i] = four(w);
        taps[2][i] = four(2 * w);
        taps[3][i] = four(3 * w);
    }
    for i in 0..CHUNK {
        let (wx, wy) = (spline_weights(simd, fx[i]), spline_weights(simd, fy[i]));
        let row = |t: u32| {
            let b = |shift: u32| ((t >> shift) & 255) as i32 as f32;
            let s = simd.fma(wx[1], b(8), wx[0] * b(0));
            simd.fma(wx[3], b(24), simd.fma(wx[2], b(16), s))
        };
        let s = simd.fma(wy[1], row(taps[1][i]), wy[0] * row(taps[0][i]));
        c.value[i] = simd.fma(wy[3], row(taps[3][i]), simd.fma(wy[2], row(taps[2][i]), s));
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::{Isa, kernel};
    use super::*;

    kernel! {
        fn spline_by(picture: &Gray, c: &mut Chunk) = spline
    }
    kernel! {
        fn bilinear_by(plane: &Map, c: &mut Chunk) = bilinear
    }

    fn positions(w: usize, h: usize) -> Chunk {
        let mut c = Chunk::default();
        for i in 0..CHUNK {
            c.x[i] = (i as f32 * 0.377) % (w as f32 + 2.0) - 1.0;
            c.y[i] = (i as f32 * 0.731) % (h as f32 + 2.0) - 1.0;
        }
        c.x[5] = f32::NAN;
        c.y[6] = -1e9;
        c.x[7] = f32::INFINITY;
        c
    }

    /// Against the tensor product of the closed form; also that both builds agree. 255 gray levels times a few rounding steps.
    const TOLERANCE: f32 = 1e-3;

    #[test]
    fn spline_samples_equal_the_definition_and_know_their_border() {
        let p = Gray::from_fn(13, 9, |x, y| ((x * 37 + y * 71 + x * y * 5) % 256) as u8);
        let (mut a, mut b) = (positions(13, 9), positions(13, 9));
        spline_by(Isa::scalar(), &p, &mut a);
        spline_by(Isa::detect(), &p, &mut b);
        let weight = |d: f32| {
            let d = d.abs();
            if d < 1.0 { (4.0 - 6.0 * d * d + 3.0 * d * d * d) / 6.0 } else { (2.0 - d).max(0.0).powi(3) / 6.0 }
        };
        let mut seen = 0;
        for i in 0..CHUNK {
            let (x, y) = (a.x[i], a.y[i]);
            let inside = x >= 1.0 && y >= 1.0 && x < 11.0 && y < 7.0;
            assert_eq!(a.visible[i] > 0.0, inside, "{x} {y}");
            assert_eq!(a.visible[i], b.visible[i]);
            if inside {
                let want: f32 = (0..13 * 9)
                    .map(|k| weight(x - (k % 13) as f32) * weight(y - (k / 13) as f32) * f32::from(p.get(k % 13, k / 13)))
                    .sum();
                assert!((a.value[i] - want).abs() < TOLERANCE && (b.value[i] - want).abs() < TOLERANCE);
                seen += 1;
            }
        }
        assert!(seen > 10);
    }

    #[test]
    fn bilinear_samples_a_plane_exactly() {
        let p = Map::from_fn(13, 9, |x, y| 3.0 * x as f32 - 2.0 * y as f32);
        let mut c = positions(13, 9);
        bilinear_by(Isa::detect(), &p, &mut c);
        for i in 0..CHUNK {
            let (x, y) = (c.x[i], c.y[i]);
            let inside = x >= 0.0 && y >= 0.0 && x < 12.0 && y < 8.0;
            assert_eq!(c.visible[i] > 0.0, inside);
            assert!(!inside || (c.value[i] - (3.0 * x - 2.0 * y)).abs() < TOLERANCE);
        }
    }
}
