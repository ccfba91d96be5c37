//! Structural similarity, one window a pixel: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
//! structural similarity", IEEE TIP 13(4), 2004, equation (13) with alpha = beta = gamma = 1.
//!
//! Gaussian window of 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255, population moments; borders are mirrored with the border pixel
//! repeated. Score = (1 - SSIM) / 2, clamped to 0..1.

use crate::frame::{Gray, Map};

const RADIUS: usize = 5;
const SIGMA: f64 = 1.5;
const C1: f32 = (0.01 * 255.0) * (0.01 * 255.0);
const C2: f32 = (0.03 * 255.0) * (0.03 * 255.0);
/// Windowed means of: template, frame, template², frame², template · frame.
const FIELDS: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// One field, filtered along the rows.
    across: Vec<f32>,
    fields: [Vec<f32>; FIELDS],
    padded: Vec<f32>,
}

impl Scratch {
    pub fn compare(&mut self, template: &Gray, frame: &Gray, out: &mut Map) {
        let (w, h) = frame.size();
        let kernel = kernel();
        for field in 0..FIELDS {
            self.across.resize(w * h, 0.0);
            for y in 0..h {
                let (t, f) = (template.row(y), frame.row(y));
                self.padded.clear();
                self.padded.extend((0..w + 2 * RADIUS).map(|i| {
                    let x = mirrored(i as i64 - RADIUS as i64, w);
                    let (t, f) = (f32::from(t[x]), f32::from(f[x]));
                    match field {
                        0 => t,
                        1 => f,
                        2 => t * t,
                        3 => f * f,
                        _ => t * f,
                    }
                }));
                let row = &mut self.across[y * w..(y + 1) * w];
                row.fill(0.0);
                for (i, k) in kernel.iter().enumerate() {
                    for (o, v) in row.iter_mut().zip(&self.padded[i..]) {
                        *o += k * v;
                    }
                }
            }
            let down = &mut self.fields[field];
            down.clear();
            down.resize(w * h, 0.0);
            for y in 0..h {
                let row = &mut down[y * w..(y + 1) * w];
                for (i, k) in kernel.iter().enumerate() {
                    let from = mirrored(y as i64 + i as i64 - RADIUS as i64, h);
                    for (o, v) in row.iter_mut().zip(&self.across[from * w..(from + 1) * w]) {
                        *o += k * v;
                    }
                }
            }
        }
        out.resize_for_overwrite(w, h);
        let [mt, mf, tt, ff, tf] = &self.fields;
        for (i, o) in out.data_mut().iter_mut().enumerate() {
            let (a, b) = (mt[i], mf[i]);
            let (va, vb, cov) = (tt[i] - a * a, ff[i] - b * b, tf[i] - a * b);
            let ssim = ((2.0 * a * b + C1) * (2.0 * cov + C2)) / ((a * a + b * b + C1) * (va + vb + C2));
            *o = ((1.0 - ssim) / 2.0).clamp(0.0, 1.0);
        }
    }
}

fn kernel() -> [f32; 2 * RADIUS + 1] {
    let weight = |i: usize| (-0.5 * ((i as f64 - RADIUS as f64) / SIGMA).powi(2)).exp();
    let sum: f64 = (0..=2 * RADIUS).map(weight).sum();
    std::array::from_fn(|i| (weight(i) / sum) as f32)
}

/// The index that mirroring at the borders leads to: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
fn mirrored(i: i64, n: usize) -> usize {
    let period = 2 * n as i64;
    let i = i.rem_euclid(period);
    (if i < n as i64 { i } else { period - 1 - i }) as usize
}
