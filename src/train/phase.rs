//! Differentiable rotation-and-scale phase correlation, and the irrelevance loss on it (section III-A and equations 7-8 of the paper).
//!
//! |F(O_t)| and |F(O_s)| are resampled to log-polar coordinates, where a rotation is a shift along the first axis and a scaling along
//! the second; phase correlation of the two gives a map p(xi). The magnitude of a real picture's spectrum repeats after half a turn, so
//! the angle axis covers half a turn in `n` bins; read modulo that half turn the correlation has one peak, and the bin farthest from
//! "no rotation" is the value that the paper's solver calls 180 degrees and returns when nothing is in common. The loss is
//! KL(1_180 || softmax(temperature * p)), large when the two pictures share content, whose peak lies at no rotation.
//!
//! The divergence can only fall to zero if a perfect peak has the target's shape. A phase correlation peak is one bin wide, the target is
//! Gaussian-blurred; without care the perfect answer costs almost as much as the worst one, and the loss never falls. So the map is
//! blurred by the same Gaussian (a factor on the cross-power spectrum, which also takes the noise out of the whitened high frequencies),
//! scaled so that a perfect peak is 1 high, and the target is what the same softmax makes of a perfect peak at 180 degrees.
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

/// Standard deviation of the blur of the map and of the target's peak, bins.
const BLUR_SIGMA: f64 = 2.0;
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
    /// Blur on the half spectrum of the map, [1, n, n / 2 + 1]; a perfect peak stays 1 high.
    blur: Tensor<3>,
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
        // cell (t, r) of the correlation map is a rotation by t bins and a scaling by r; nothing in common: t = n / 2, scale 1
        let mut target = vec![0f64; n * n];
        let mut angle = vec![0f32; n * n];
        for t in 0..n {
            for r in 0..n {
                let d = ring(t, n / 2, n).pow(2) + ring(r, 0, n).pow(2);
                let peak = (-0.5 * d as f64 / (BLUR_SIGMA * BLUR_SIGMA)).exp();
                target[t * n + r] = (f64::from(temperature) * (peak - 1.0)).exp();
                // the paper's axis runs from -180 to 180 over what is half a turn here
                angle[t * n + r] = (ring(t, 0, n) * 360 / n) as f32;
            }
        }
        let sum: f64 = target.iter().sum();
        let entropy = -target.iter().map(|v| v / sum).filter(|v| *v > 0.0).map(|v| v * v.ln()).sum::<f64>() as f32;
        let target: Vec<f32> = target.iter().map(|v| (v / sum) as f32).collect();
        let mut blur = vec![0f32; n * half];
        let decay = |k: usize| {
            let f = ring(k, 0, n) as f64 / n as f64;
            (-2.0 * (std::f64::consts::PI * BLUR_SIGMA * f).powi(2)).exp()
        };
        let height = std::f64::consts::TAU * BLUR_SIGMA * BLUR_SIGMA;
        for v in 0..n {
            for u in 0..half {
                blur[v * half + u] = (height * decay(u) * decay(v)) as f32;
            }
        }
        let ints = |v: &Vec<i64>| Tensor::<1, Int>::from_data(TensorData::new(v.clone(), [n * n]), device);
        let floats = |v: &Vec<f32>| Tensor::<2>::from_data(TensorData::new(v.clone(), [1, n * n]), device);
        Ok(Self {
            size,
            index: [ints(&index[0]), ints(&index[1]), ints(&index[2]), ints(&index[3])],
            weight: [floats(&weight[0]), floats(&weight[1]), floats(&weight[2]), floats(&weight[3])],
            blur: Tensor::from_data(TensorData::new(blur, [1, n, half]), device),
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

    /// The blurred correlation map p(xi) of O_t and O_s: [b, 2, n, n] to [b, n angles, n scales], no rotation and scale 1 at (0, 0).
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
        let gain = self.blur.clone() / magnitude;
        inverse_spectrum(re * gain.clone(), im * gain)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::loss::{read, tensor4};

    /// Smooth blobs: pictures with a spectrum that log-polar sampling can follow.
    fn blobs(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut out = vec![0f32; n * n];
        for _ in 0..12 {
            let (cx, cy, r, ratio, angle, a) =
                (next(), next(), 0.02 + 0.06 * next(), 0.3 + next(), std::f32::consts::PI * next(), 0.5 + next());
            for y in 0..n {
                for x in 0..n {
                    let (dx, dy) = (x as f32 / n as f32 - cx, y as f32 / n as f32 - cy);
                    let (u, v) = (dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin());
                    out[y * n + x] += a * (-(u * u + v * v / (ratio * ratio)) / (r * r)).exp();
                }
            }
        }
        out
    }

    fn pair(n: usize, a: u64, b: u64) -> Vec<f32> {
        [blobs(n, a), blobs(n, b)].concat()
    }

    #[test]
    fn pictures_that_share_content_peak_at_no_rotation() {
        let device = Device::flex();
        let irr = Irrelevance::new(64, 30.0, &device).unwrap();
        let map = read(irr.correlation(tensor4(&pair(64, 3, 3), [1, 2, 64, 64], &device))).unwrap();
        let peak = (0..map.len()).max_by(|a, b| map[*a].total_cmp(&map[*b])).unwrap();
        assert_eq!(peak, 0, "peak {} at {peak}, {} at 0", map[peak], map[0]);
        assert!(map[0] > 0.5, "{}", map[0]);
    }

    #[test]
    fn a_quarter_turn_is_the_farthest_angle_and_costs_least() {
        let device = Device::flex();
        let n = 64;
        let irr = Irrelevance::new(n, 30.0, &device).unwrap();
        let a = blobs(n, 3);
        let turned: Vec<f32> = (0..n * n).map(|i| a[(n - 1 - i % n) * n + i / n]).collect();
        let map = read(irr.correlation(tensor4(&[a.clone(), turned.clone()].concat(), [1, 2, n, n], &device))).unwrap();
        let peak = (0..map.len()).max_by(|a, b| map[*a].total_cmp(&map[*b])).unwrap();
        assert_eq!((peak / n, peak % n), (n / 2, 0));
        let cost = |second: &[f32]| {
            let x = tensor4(&[a.clone(), second.to_vec()].concat(), [1, 2, n, n], &device);
            read(irr.loss(x, Form::Paper)).unwrap()[0]
        };
        let (same, other, far) = (cost(&a), cost(&blobs(n, 9)), cost(&turned));
        assert!(far < other && other < same, "turned {far}, unrelated {other}, the same {same}");
        // rounding may leave it a hair under zero
        assert!(far > -1e-3 && far < 0.1 * other, "turned {far}");
    }

    #[test]
    fn the_gradient_equals_differences() {
        let device = Device::flex().autodiff();
        let (n, b) = (16, 2);
        for form in [Form::Paper, Form::PublishedCode] {
            let irr = Irrelevance::new(n, 20.0, &device).unwrap();
            let x: Vec<f32> = (0..b as u64).flat_map(|i| pair(n, 11 + i, 21 + i)).collect();
            let at = |x: &[f32]| f64::from(read(irr.loss(tensor4(x, [b, 2, n, n], &device), form)).unwrap()[0]);
            let leaf = tensor4(&x, [b, 2, n, n], &device).require_grad();
            let grads = irr.loss(leaf.clone(), form).backward();
            let gradient = read(leaf.grad(&grads).unwrap()).unwrap();
            let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!(length > 0.0);
            // along the gradient, and along two directions of ones and minus ones that mix all pixels
            let mut directions = vec![gradient.iter().map(|g| (f64::from(*g) / length) as f32).collect::<Vec<f32>>()];
            for k in [3usize, 7] {
                let s = 1.0 / (x.len() as f32).sqrt();
                directions.push((0..x.len()).map(|i| if (i * k + i / 5) % 2 == 0 { s } else { -s }).collect());
            }
            for d in directions {
                let analytic: f64 = gradient.iter().zip(&d).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
                let step = 2e-3f32;
                let moved = |sign: f32| x.iter().zip(&d).map(|(x, d)| x + sign * step * d).collect::<Vec<f32>>();
                let numeric = (at(&moved(1.0)) - at(&moved(-1.0))) / (2.0 * f64::from(step));
                // single precision limits the difference quotient to a few thousandths of the steepest slope
                assert!(
                    (analytic - numeric).abs() < 0.02 * length,
                    "{form:?}: analytic {analytic}, numeric {numeric}, slope {length}"
                );
            }
        }
    }

    #[test]
    fn minimising_it_alone_drives_two_related_pictures_apart() {
        let device = Device::flex().autodiff();
        let n = 32;
        let irr = Irrelevance::new(n, 30.0, &device).unwrap();
        // the same scene, the second a pixel aside and dimmer: what a difference learner starts from
        let a = blobs(n, 5);
        let b: Vec<f32> = (0..n * n).map(|i| 0.8 * a[(i / n) * n + (i % n + n - 1) % n] + 0.05).collect();
        let mut x = [a, b].concat();
        let (mut m, mut v) = (vec![0f32; x.len()], vec![0f32; x.len()]);
        let mut history = Vec::new();
        for t in 1..=150 {
            let leaf = tensor4(&x, [1, 2, n, n], &device).require_grad();
            let loss = irr.loss(leaf.clone(), Form::Paper);
            let grads = loss.backward();
            history.push(read(loss).unwrap()[0]);
            let g = read(leaf.grad(&grads).unwrap()).unwrap();
            for i in 0..x.len() {
                m[i] = 0.9 * m[i] + 0.1 * g[i];
                v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
                let (mh, vh) = (m[i] / (1.0 - 0.9f32.powi(t)), v[i] / (1.0 - 0.999f32.powi(t)));
                x[i] -= 0.02 * mh / (vh.sqrt() + 1e-12);
            }
        }
        let (first, last) = (history[0], history[history.len() - 1]);
        assert!(first > 10.0, "related pictures cost {first}");
        assert!(last < 0.05 * first, "the divergence went from {first} to {last} only");
        let map = read(irr.correlation(tensor4(&x, [1, 2, n, n], &device))).unwrap();
        assert!(map[0] < 0.3, "the peak of common content is still {}", map[0]);
    }

    #[test]
    fn constant_pictures_give_finite_gradients() {
        let device = Device::flex().autodiff();
        let irr = Irrelevance::new(16, 30.0, &device).unwrap();
        for form in [Form::Paper, Form::PublishedCode] {
            let leaf = tensor4(&[0.5; 512], [1, 2, 16, 16], &device).require_grad();
            let loss = irr.loss(leaf.clone(), form);
            let g = read(leaf.grad(&loss.backward()).unwrap()).unwrap();
            assert!(g.iter().all(|g| g.is_finite()), "{form:?}");
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        let error = Irrelevance::new(96, 30.0, &Device::flex()).map(|_| ()).unwrap_err();
        assert_eq!(
            error.message(),
            "train.stages crop_px: with the irrelevance loss every crop must be a power of two of at least 16 px, got 96; \
             choose another crop or set train.loss.irrelevance = 0"
        );
    }
}
