//! Differentiable rotation-and-scale phase correlation, and the irrelevance loss on it (section III-A and equations 7-8 of the paper).
//!
//! |F(O_t)| and |F(O_s)| are resampled to log-polar coordinates, where a rotation is a shift along the first axis and a scaling along
//! the second; phase correlation of the two gives a map p(xi). The magnitude of a real picture's spectrum repeats after half a turn, so
//! the angle axis covers half a turn in `n` bins; read modulo that half turn the correlation has one peak, and the bin farthest from
//! "no rotation" is the value that the paper's solver calls 180 degrees and returns when nothing is in common. The loss is
//! KL(1_180 || softmax(temperature * p)): zero when all mass lies in one Gaussian-blurred peak there, large when the two pictures share
//! content, whose peak lies at no rotation.
//!
//! The log-polar resampling is four constant gathers into the half spectrum of the real FFT (X(-u, -v) is the conjugate of X(u, v)) with
//! bilinear weights, into which the usual high-pass is folded. All sizes are powers of two (the FFT's demand). Every square root and
//! logarithm has an epsilon inside, so that gradients stay finite on constant pictures.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which irrelevance loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The Kullback-Leibler divergence of equations 7 and 8.
    #[default]
    Paper,
    /// What the published code computes: 0.001 / |expected angle| in degrees.
    PublishedCode,
}

/// Standard deviation of the target's peak, bins.
const TARGET_SIGMA: f64 = 2.0;
/// Inside square roots of powers.
const EPSILON: f32 = 1e-9;
/// Inside the cross-power's magnitude: bins in which neither picture holds anything count nothing instead of noise.
const WHITEN_EPSILON: f32 = 1e-6;

/// The constants of the loss for pictures of one size.
pub struct Irrelevance {
    size: usize,
    /// Indices into the half spectrum, one list a corner of the bilinear cell, [n * n].
    index: [Tensor<1, Int>; 4],
    /// Bilinear weight times high-pass, [1, n * n].
    weight: [Tensor<2>; 4],
    /// Target distribution, [1, n * n], and its entropy.
    target: Tensor<2>,
    entropy: f32,
    /// Angle of each cell of the map in degrees of the paper's axis, [1, n * n].
    angle: Tensor<2>,
    temperature: f32,
}

/// Real FFT along columns, then FFT along rows: [b, n, n] to the half spectrum [b, n, n / 2 + 1], real and imaginary.
fn spectrum(x: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let (re, im) = burn::signal::rfft(x, 2, None);
    burn::signal::cfft(re, im, 1, None)
}

/// The inverse of [`spectrum`].
fn inverse_spectrum(re: Tensor<3>, im: Tensor<3>) -> Tensor<3> {
    // inverse FFT = conjugate of the FFT of the conjugate, over n
    let n = re.dims()[1] as f32;
    let (re, im) = burn::signal::cfft(re, im.neg(), 1, None);
    burn::signal::irfft(re / n, im.neg() / n, 2, None)
}

/// Shortest distance between two bins of a ring of `n`.
fn ring(a: usize, b: usize, n: usize) -> usize {
    let d = a.abs_diff(b);
    d.min(n - d)
}

impl Irrelevance {
    /// Precomputes everything for pictures of `size` x `size` px. `temperature` multiplies the correlation map before the softmax.
    ///
    /// # Errors
    /// A size that is no power of two, or under 16.
    pub fn new(size: usize, temperature: f32, device: &Device) -> Result<Self> {
        if !size.is_power_of_two() || size < 16 {
            return Err(Error::config(format!(
                "train.stages crop_px: with the irrelevance loss every crop must be a power of two of at least 16 px, got {size}; \
                 choose another crop or set train.loss.irrelevance = 0"
            )));
        }
        let n = size;
        let half = n / 2 + 1;
        let log_base = (n as f64 / 2.0 * 0.98).ln() / n as f64;
        let mut index = vec![vec![0i64; n * n]; 4];
        let mut weight = vec![vec![0f32; n * n]; 4];
        for t in 0..n {
            let theta = std::f64::consts::PI * t as f64 / n as f64;
            for r in 0..n {
                let radius = (log_base * r as f64).exp();
                let (u, v) = (radius * theta.cos(), radius * theta.sin());
                let frequency = radius / (n as f64 / 2.0);
                let high_pass = 1.0 - (frequency * std::f64::consts::FRAC_PI_2).cos().powi(2);
                for corner in 0..4 {
                    let (du, dv) = (corner & 1, corner >> 1);
                    let (mut a, mut b) = (u.floor() as i64 + du, v.floor() as i64 + dv);
                    let (fu, fv) = (u - u.floor(), v - v.floor());
                    let w = (if du == 1 { fu } else { 1.0 - fu }) * (if dv == 1 { fv } else { 1.0 - fv });
                    if a < 0 {
                        (a, b) = (-a, -b);
                    }
                    index[corner as usize][t * n + r] = b.rem_euclid(n as i64) * half as i64 + a.min(half as i64 - 1);
                    weight[corner as usize][t * n + r] = (w * high_pass) as f32;
                }
            }
        }
        // cell (t, r) of the correlation map is a rotation by t bins and a scaling by r; nothing in common: t = n / 2, any scale near 1
        let mut target = vec![0f64; n * n];
        let mut angle = vec![0f32; n * n];
        for t in 0..n {
            for r in 0..n {
                let d = ring(t, n / 2, n).pow(2) + ring(r, 0, n).pow(2);
                target[t * n + r] = (-0.5 * d as f64 / (TARGET_SIGMA * TARGET_SIGMA)).exp();
                // the paper's axis runs from -180 to 180 over what is half a turn here
                angle[t * n + r] = (ring(t, 0, n) * 360 / n) as f32;
            }
        }
        let sum: f64 = target.iter().sum();
        let target: Vec<f32> = target.iter().map(|v| (v / sum) as f32).collect();
        let entropy = -target.iter().filter(|v| **v > 0.0).map(|v| v * v.ln()).sum::<f32>();
        let ints = |v: &Vec<i64>| Tensor::<1, Int>::from_data(TensorData::new(v.clone(), [n * n]), device);
        let floats = |v: &Vec<f32>| Tensor::<2>::from_data(TensorData::new(v.clone(), [1, n * n]), device);
        Ok(Self {
            size,
            index: [ints(&index[0]), ints(&index[1]), ints(&index[2]), ints(&index[3])],
            weight: [floats(&weight[0]), floats(&weight[1]), floats(&weight[2]), floats(&weight[3])],
            target: floats(&target),
            entropy,
            angle: floats(&angle),
            temperature,
        })
    }

    /// |F| in log-polar coordinates: [b, n, n] to [b, n angles, n radii].
    fn log_polar(&self, x: Tensor<3>) -> Tensor<3> {
        let [b, n, _] = x.dims();
        // the mean carries no rotation, and its leakage hides what does
        let x = x.clone() - x.mean_dim(2).mean_dim(1);
        let (re, im) = spectrum(x);
        let magnitude = (re.clone() * re + im.clone() * im + EPSILON).sqrt();
        let flat = magnitude.reshape([b, n * (n / 2 + 1)]);
        let mut out = flat.clone().select(1, self.index[0].clone()) * self.weight[0].clone();
        for k in 1..4 {
            out = out + flat.clone().select(1, self.index[k].clone()) * self.weight[k].clone();
        }
        out.reshape([b, n, n])
    }

    /// The correlation map p(xi) of O_t and O_s: [b, 2, n, n] to [b, n angles, n scales], no rotation and scale 1 at (0, 0).
    #[must_use]
    pub fn correlation(&self, pair: Tensor<4>) -> Tensor<3> {
        let [b, _, n, _] = pair.dims();
        assert_eq!(n, self.size);
        let t = pair.clone().narrow(1, 0, 1).reshape([b, n, n]);
        let s = pair.narrow(1, 1, 1).reshape([b, n, n]);
        let (ar, ai) = spectrum(self.log_polar(t));
        let (br, bi) = spectrum(self.log_polar(s));
        let re = ar.clone() * br.clone() + ai.clone() * bi.clone();
        let im = ai * br - ar * bi;
        let magnitude = (re.clone() * re.clone() + im.clone() * im.clone() + WHITEN_EPSILON).sqrt();
        inverse_spectrum(re / magnitude.clone(), im / magnitude)
    }

    /// The loss, averaged over the batch: [b, 2, n, n] to [1].
    #[must_use]
    pub fn loss(&self, pair: Tensor<4>, form: Form) -> Tensor<1> {
        let [b, _, n, _] = pair.dims();
        let map = self.correlation(pair).reshape([b, n * n]) * self.temperature;
        match form {
            Form::Paper => {
                let log_p = activation::log_softmax(map, 1);
                (log_p * self.target.clone()).sum_dim(1).mean().neg() - self.entropy
            }
            Form::PublishedCode => {
                let p = activation::softmax(map, 1);
                let expected = (p * self.angle.clone()).sum_dim(1);
                (expected.abs() + 1e-3).recip().mean() * 1e-3
            }
        }
    }
}
