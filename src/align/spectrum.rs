//! Two-dimensional real Fourier transforms, windows, and the half-whitened cross spectrum.
//!
//! A spectrum of a `w` x `h` picture is kept transposed, `[kx][ky]` with `kx` in `0..=w/2` and `ky` in `0..h`: the second pass then runs
//! along contiguous memory, and low-pass cuts along x are plain prefixes. Transforms are not normalised (forward then inverse multiplies
//! by `w * h`). Plans hold no working memory and are shared; [`Scratch`] belongs to a thread.

use std::sync::Arc;

use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftPlanner};

use super::isa::kernel;
use super::lanes::Simd;

/// Smallest even length >= `n` with no prime factor above 5: what the FFT is fast at.
#[must_use]
pub fn good_length(n: usize) -> usize {
    let smooth = |mut k: usize| {
        for p in [2, 3, 5] {
            while k.is_multiple_of(p) {
                k /= p;
            }
        }
        k == 1
    };
    (n.max(2)..).find(|k| k % 2 == 0 && smooth(*k)).expect("powers of two have no bound")
}

/// The plan of one picture size.
#[derive(Clone)]
pub struct Fft2 {
    width: usize,
    height: usize,
    rows_forward: Arc<dyn RealToComplex<f32>>,
    rows_inverse: Arc<dyn ComplexToReal<f32>>,
    columns_forward: Arc<dyn Fft<f32>>,
    columns_inverse: Arc<dyn Fft<f32>>,
}

impl std::fmt::Debug for Fft2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fft2({}x{})", self.width, self.height)
    }
}

/// Working memory of the transforms.
#[derive(Debug, Default)]
pub struct Scratch {
    rows: Vec<Complex32>,
    line: Vec<Complex32>,
}

impl Scratch {
    fn fit(&mut self, plan: &Fft2) {
        let n = plan.spectrum_len();
        if self.rows.len() < n {
            self.rows.resize(n, Complex32::default());
        }
        let n = (plan.rows_forward.get_scratch_len())
            .max(plan.rows_inverse.get_scratch_len())
            .max(plan.columns_forward.get_inplace_scratch_len())
            .max(plan.columns_inverse.get_inplace_scratch_len());
        if self.line.len() < n {
            self.line.resize(n, Complex32::default());
        }
    }
}

impl Fft2 {
    /// Plans transforms of `width` x `height` (width even).
    #[must_use]
    pub fn new(width: usize, height: usize) -> Self {
        let (mut real, mut complex) = (RealFftPlanner::<f32>::new(), FftPlanner::<f32>::new());
        Self {
            width,
            height,
            rows_forward: real.plan_fft_forward(width),
            rows_inverse: real.plan_fft_inverse(width),
            columns_forward: complex.plan_fft_forward(height),
            columns_inverse: complex.plan_fft_inverse(height),
        }
    }

    /// (width, height).
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Values in a picture.
    #[must_use]
    pub fn picture_len(&self) -> usize {
        self.width * self.height
    }

    /// Values in a spectrum: `(width / 2 + 1) * height`.
    #[must_use]
    pub fn spectrum_len(&self) -> usize {
        (self.width / 2 + 1) * self.height
    }

    /// Transforms `picture` (destroyed) to `spectrum`; lengths as [`Fft2::picture_len`] and [`Fft2::spectrum_len`] say.
    pub fn forward(&self, picture: &mut [f32], spectrum: &mut [Complex32], s: &mut Scratch) {
        s.fit(self);
        let half = self.width / 2 + 1;
        let rows = &mut s.rows[..half * self.height];
        for (row, out) in picture.chunks_exact_mut(self.width).zip(rows.chunks_exact_mut(half)) {
            self.rows_forward.process_with_scratch(row, out, &mut s.line).expect("lengths fit the plan");
        }
        transpose(rows, spectrum, self.height, half);
        self.columns_forward.process_with_scratch(spectrum, &mut s.line);
    }

    /// Transforms `spectrum` (destroyed) to `picture`, without the factor 1 / (w h). Only the first `columns` values of kx may be other
    /// than zero; the rest is taken as zero whatever it holds.
    pub fn inverse(&self, spectrum: &mut [Complex32], columns: usize, picture: &mut [f32], s: &mut Scratch) {
        s.fit(self);
        let half = self.width / 2 + 1;
        let columns = columns.min(half);
        self.columns_inverse.process_with_scratch(&mut spectrum[..columns * self.height], &mut s.line);
        spectrum[columns * self.height..half * self.height].fill(Complex32::default());
        let rows = &mut s.rows[..half * self.height];
        transpose(&spectrum[..half * self.height], rows, half, self.height);
        for (row, out) in rows.chunks_exact_mut(half).zip(picture.chunks_exact_mut(self.width)) {
            // These are real for a real picture; what rounding left there would be reported as an error.
            row[0].im = 0.0;
            row[half - 1].im = 0.0;
            self.rows_inverse.process_with_scratch(row, out, &mut s.line).expect("lengths fit the plan");
        }
    }
}

/// Transposes a `rows` x `columns` matrix in blocks that fit the cache.
fn transpose(source: &[Complex32], out: &mut [Complex32], rows: usize, columns: usize) {
    const BLOCK: usize = 8;
    for r0 in (0..rows).step_by(BLOCK) {
        let r1 = (r0 + BLOCK).min(rows);
        for c in 0..columns {
            let o = &mut out[c * rows + r0..c * rows + r1];
            for (o, r) in o.iter_mut().zip(r0..r1) {
                *o = source[r * columns + c];
            }
        }
    }
}

/// Hann window of `n` samples, symmetric, never quite zero: `sin²(pi (i + 1/2) / n)`.
#[must_use]
pub fn hann(n: usize) -> Vec<f32> {
    (0..n).map(|i| (std::f32::consts::PI * (i as f32 + 0.5) / n as f32).sin().powi(2)).collect()
}

/// Tukey window of `n` samples whose two cosine flanks together take the share `taper` of it.
#[must_use]
pub fn tukey(n: usize, taper: f32) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let t = (i as f32 + 0.5) / n as f32;
            let d = t.min(1.0 - t);
            if d >= taper / 2.0 { 1.0 } else { (std::f32::consts::PI * d / taper).sin().powi(2) }
        })
        .collect()
}

kernel! {
    /// `|F|^0.5` of each value of a spectrum.
    pub fn root_magnitude(spectrum: &[Complex32], out: &mut [f32]) = root_magnitude_body
}

#[inline(always)]
fn root_magnitude_body<S: Simd>(simd: S, spectrum: &[Complex32], out: &mut [f32]) {
    for (o, c) in out.iter_mut().zip(spectrum) {
        *o = simd.fma(c.re, c.re, c.im * c.im).sqrt().sqrt();
    }
}

kernel! {
    /// Half-whitened cross spectrum `p |p|^-1/2` with `p = a conj(b)`: between plain correlation and pure phase correlation.
    pub fn half_whitened(a: &[Complex32], b: &[Complex32], out: &mut [Complex32]) = half_whitened_body
}

/// Keeps empty bins at zero without a branch; far below any bin's power (LCN pictures are of order 1 a pixel).
const TINY_POWER: f32 = 1e-6;

#[inline(always)]
fn half_whitened_body<S: Simd>(simd: S, a: &[Complex32], b: &[Complex32], out: &mut [Complex32]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        let re = simd.fma(a.re, b.re, a.im * b.im);
        let im = simd.fma(a.im, b.re, -(a.re * b.im));
        let w = 1.0 / simd.fma(re, re, simd.fma(im, im, TINY_POWER)).sqrt().sqrt();
        *o = Complex32::new(re * w, im * w);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;

    fn picture(w: usize, h: usize) -> Vec<f32> {
        (0..w * h).map(|i| ((i * 2_654_435_761) >> 7 & 255) as f32 / 255.0 - 0.5).collect()
    }

    #[test]
    fn lengths_are_even_and_smooth() {
        assert_eq!([1, 7, 67, 121, 128, 161, 257].map(good_length), [2, 8, 72, 128, 128, 162, 270]);
    }

    #[test]
    fn forward_equals_the_definition_and_inverse_undoes_it() {
        for (w, h) in [(16, 10), (12, 9), (8, 25)] {
            let (plan, p) = (Fft2::new(w, h), picture(w, h));
            let mut s = Scratch::default();
            let mut spectrum = vec![Complex32::default(); plan.spectrum_len()];
            plan.forward(&mut p.clone(), &mut spectrum, &mut s);
            for (kx, ky) in [(0, 0), (1, 2), (w / 2, h - 1), (3, 4)] {
                let (mut re, mut im) = (0.0f64, 0.0f64);
                for y in 0..h {
                    for x in 0..w {
                        let a = -2.0 * std::f64::consts::PI * (kx as f64 * x as f64 / w as f64 + ky as f64 * y as f64 / h as f64);
                        re += f64::from(p[y * w + x]) * a.cos();
                        im += f64::from(p[y * w + x]) * a.sin();
                    }
                }
                let c = spectrum[kx * h + ky];
                assert!((f64::from(c.re) - re).abs() < 1e-3 && (f64::from(c.im) - im).abs() < 1e-3, "{kx} {ky}: {c} {re} {im}");
            }
            let mut back = vec![0.0; plan.picture_len()];
            plan.inverse(&mut spectrum, usize::MAX, &mut back, &mut s);
            for (a, b) in p.iter().zip(&back) {
                assert!((a - b / (w * h) as f32).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn half_whitening_keeps_the_phase_and_takes_the_root_of_the_magnitude() {
        let a: Vec<Complex32> = (0..37).map(|i| Complex32::from_polar(1.0 + i as f32, i as f32)).collect();
        let b: Vec<Complex32> = (0..37).map(|i| Complex32::from_polar(2.0, 0.3 * i as f32)).collect();
        for isa in [Isa::scalar(), Isa::detect()] {
            let mut out = vec![Complex32::default(); 37];
            half_whitened(isa, &a, &b, &mut out);
            for (i, o) in out.iter().enumerate() {
                let want = Complex32::from_polar((2.0 * (1.0 + i as f32)).sqrt(), 0.7 * i as f32);
                assert!((o - want).norm() < 1e-3, "{i}: {o} {want}");
            }
        }
    }

    #[test]
    fn windows_are_symmetric_and_bounded() {
        for w in [hann(33), tukey(40, 0.4), tukey(7, 0.9)] {
            for (a, b) in w.iter().zip(w.iter().rev()) {
                assert!((a - b).abs() < 1e-6 && (0.0..=1.0).contains(a));
            }
        }
        assert_eq!(tukey(40, 0.4)[20], 1.0);
    }
}
