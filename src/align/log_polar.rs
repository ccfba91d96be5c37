//! Log-polar spectra: where a turn and a change of scale become shifts.
//!
//! The picture's `|F|^0.5` is read on a grid of [`ANGLES`] directions over 180 degrees (the spectrum of a real picture is symmetric) by
//! [`RADII`] radii in geometric progression, from 5 cycles a picture to 0.45 cycles a pixel, by a lookup table with bilinear weights.
//! Frequencies are in cycles a pixel, so pictures that are not square need nothing more than `u = kx / W`, `v = ky / H`. Each radius is
//! then normalised to mean 0 and deviation 1 over the angles (this replaces the high-pass filter of the usual Fourier-Mellin scheme) and
//! tapered along log r. Equation (2) of the paper.

use rustfft::num_complex::Complex32;

use super::isa::kernel;
use super::lanes::Simd;
use super::spectrum::{self, Fft2};

/// Directions over 180 degrees; a multiple of 2, 3 and 5 only.
pub const ANGLES: usize = 180;
/// Radii; even, for the real FFT.
pub const RADII: usize = 64;
/// Lowest frequency, cycles over the picture's mean side: below it lie the light and the window.
const LOWEST_CYCLES: f64 = 5.0;
/// Highest frequency, cycles a pixel.
const HIGHEST: f64 = 0.45;

/// Lookup table for one canvas size.
#[derive(Debug)]
pub struct LogPolar {
    index: Vec<[u32; 4]>,
    fraction_u: Vec<f32>,
    fraction_v: Vec<f32>,
    taper: Vec<f32>,
    log_step: f64,
}

/// Working memory.
#[derive(Debug, Default)]
pub struct Scratch {
    magnitude: Vec<f32>,
    corners: [Vec<f32>; 4],
    sum: Vec<f32>,
    square: Vec<f32>,
}

impl LogPolar {
    /// The table for spectra of `plan`.
    #[must_use]
    pub fn new(plan: &Fft2) -> Self {
        let (w, h) = plan.size();
        let lowest = LOWEST_CYCLES / ((w * h) as f64).sqrt();
        let log_step = (HIGHEST / lowest).ln() / RADII as f64;
        let n = ANGLES * RADII;
        let (mut index, mut fraction_u, mut fraction_v) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
        let last = w / 2;
        for i in 0..ANGLES {
            let angle = std::f64::consts::PI * (i as f64 / ANGLES as f64 - 0.5);
            for j in 0..RADII {
                let r = lowest * (log_step * j as f64).exp();
                let u = (r * angle.cos() * w as f64).clamp(0.0, last as f64 - 0.001);
                let v = r * angle.sin() * h as f64;
                let wrap = |k: f64| (k as i64).rem_euclid(h as i64) as usize;
                let (x0, x1) = (u as usize, (u as usize + 1).min(last));
                let (y0, y1) = (wrap(v.floor()), wrap(v.floor() + 1.0));
                index.push([x0 * h + y0, x1 * h + y0, x0 * h + y1, x1 * h + y1].map(|k| k as u32));
                fraction_u.push((u - u.floor()) as f32);
                fraction_v.push((v - v.floor()) as f32);
            }
        }
        Self { index, fraction_u, fraction_v, taper: spectrum::tukey(RADII, 0.5), log_step }
    }

    /// Natural logarithm of the ratio of neighbouring radii.
    #[must_use]
    pub fn log_step(&self) -> f64 {
        self.log_step
    }

    /// Writes the normalised log-polar magnitude, `[angle][radius]`, of `spectrum` to `out` (`ANGLES * RADII` values).
    pub fn sample(&self, isa: super::Isa, spectrum: &[Complex32], out: &mut [f32], s: &mut Scratch) {
        s.magnitude.resize(spectrum.len(), 0.0);
        spectrum::root_magnitude(isa, spectrum, &mut s.magnitude);
        let magnitude = &s.magnitude[..];
        for c in &mut s.corners {
            c.resize(self.index.len(), 0.0);
        }
        let [c0, c1, c2, c3] = &mut s.corners;
        for ((((i, a), b), c), d) in self.index.iter().zip(c0.iter_mut()).zip(c1.iter_mut()).zip(c2.iter_mut()).zip(c3.iter_mut())
        {
            *a = magnitude[i[0] as usize];
            *b = magnitude[i[1] as usize];
            *c = magnitude[i[2] as usize];
            *d = magnitude[i[3] as usize];
        }
        blend(isa, &s.corners, &self.fraction_u, &self.fraction_v, out);
        for v in [&mut s.sum, &mut s.square] {
            v.clear();
            v.resize(RADII, 0.0);
        }
        standardise(isa, out, &self.taper, &mut s.sum, &mut s.square);
    }
}

kernel! {
    fn blend(corners: &[Vec<f32>; 4], u: &[f32], v: &[f32], out: &mut [f32]) = blend_body
}
kernel! {
    fn standardise(rows: &mut [f32], taper: &[f32], sum: &mut [f32], square: &mut [f32]) = standardise_body
}

#[inline(always)]
fn blend_body<S: Simd>(simd: S, corners: &[Vec<f32>; 4], u: &[f32], v: &[f32], out: &mut [f32]) {
    let n = out.len();
    let [a, b, c, d] = corners;
    let (a, b, c, d, u, v) = (&a[..n], &b[..n], &c[..n], &d[..n], &u[..n], &v[..n]);
    for i in 0..n {
        let top = simd.fma(u[i], b[i] - a[i], a[i]);
        let bottom = simd.fma(u[i], d[i] - c[i], c[i]);
        out[i] = simd.fma(v[i], bottom - top, top);
    }
}

#[inline(always)]
fn standardise_body<S: Simd>(simd: S, rows: &mut [f32], taper: &[f32], sum: &mut [f32], square: &mut [f32]) {
    for row in rows.chunks_exact(RADII) {
        for ((v, s), q) in row.iter().zip(sum.iter_mut()).zip(square.iter_mut()) {
            *s += v;
            *q = simd.fma(*v, *v, *q);
        }
    }
    let k = 1.0 / ANGLES as f32;
    for ((s, q), t) in sum.iter_mut().zip(square.iter_mut()).zip(taper) {
        *s *= k;
        *q = t / (*q * k - *s * *s).max(1e-9).sqrt();
    }
    for row in rows.chunks_exact_mut(RADII) {
        for ((v, s), q) in row.iter_mut().zip(sum.iter()).zip(square.iter()) {
            *v = (*v - s) * q;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;

    #[test]
    fn each_radius_has_mean_zero_and_the_tapers_deviation() {
        let plan = Fft2::new(64, 48);
        let mut p: Vec<f32> = (0..plan.picture_len()).map(|i| ((i * 2_654_435_761) >> 9 & 255) as f32).collect();
        let mut spectrum = vec![Complex32::default(); plan.spectrum_len()];
        plan.forward(&mut p, &mut spectrum, &mut spectrum::Scratch::default());
        let table = LogPolar::new(&plan);
        let mut outs = [Isa::scalar(), Isa::detect()].map(|isa| {
            let mut out = vec![0.0; ANGLES * RADII];
            table.sample(isa, &spectrum, &mut out, &mut Scratch::default());
            out
        });
        for j in 0..RADII {
            let column: Vec<f64> = (0..ANGLES).map(|i| f64::from(outs[0][i * RADII + j])).collect();
            let mean = column.iter().sum::<f64>() / ANGLES as f64;
            let deviation = (column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / ANGLES as f64).sqrt();
            assert!(mean.abs() < 1e-3, "radius {j}: mean {mean}");
            assert!((deviation - f64::from(table.taper[j])).abs() < 1e-2, "radius {j}: deviation {deviation}");
        }
        let (a, b) = outs.split_at_mut(1);
        // Only rounding differs; the scaling by 1 / deviation may raise it.
        assert!(a[0].iter().zip(&b[0]).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn a_wave_shows_at_its_direction_and_frequency() {
        // 16 cycles along x in 128 px: frequency 1/8 at angle 0, the table's middle row.
        let plan = Fft2::new(128, 128);
        let window = spectrum::hann(128);
        let mut p: Vec<f32> = (0..128 * 128)
            .map(|i| (2.0 * std::f32::consts::PI * 16.0 * (i % 128) as f32 / 128.0).cos() * window[i % 128] * window[i / 128])
            .collect();
        let mut spectrum = vec![Complex32::default(); plan.spectrum_len()];
        plan.forward(&mut p, &mut spectrum, &mut spectrum::Scratch::default());
        let table = LogPolar::new(&plan);
        let radius = ((16.0f64 / 5.0).ln() / table.log_step()).round() as usize;
        let mut out = vec![0.0; ANGLES * RADII];
        table.sample(Isa::scalar(), &spectrum, &mut out, &mut Scratch::default());
        let at = |j: usize| (0..ANGLES).max_by(|a, b| out[a * RADII + j].total_cmp(&out[b * RADII + j])).unwrap();
        assert_eq!(at(radius), ANGLES / 2);
    }
}
