//! AdamW with clipping and the moving average of the weights, on the flat parameter vector.

use crate::error::{Error, Result};
use crate::train::spec::{Layout, Role};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// State of the optimizer.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
    /// Steps taken.
    pub steps: u64,
    /// Which values decay: convolution weights do, batch norm and biases do not.
    decays: Vec<bool>,
}

/// What one step is taken with.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Longest gradient.
    pub clip_norm: f64,
}

impl AdamW {
    /// All moments zero.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        let mut decays = vec![false; layout.param_count];
        for p in layout.params.iter().filter(|p| p.role == Role::Weight) {
            decays[p.range()].fill(true);
        }
        Self { m: vec![0.0; layout.param_count], v: vec![0.0; layout.param_count], steps: 0, decays }
    }

    /// Takes one step and returns the gradient's length before clipping.
    ///
    /// # Errors
    /// A gradient that is not finite; nothing is changed then.
    pub fn step(&mut self, params: &mut [f32], grads: &[f32], rates: Rates) -> Result<f64> {
        let norm = grads.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Err(Error::data(format!("the gradient's length became {norm}")));
        }
        let clip = if norm > rates.clip_norm { rates.clip_norm / norm } else { 1.0 } as f32;
        self.steps += 1;
        let t = self.steps as i32;
        let (c1, c2) = (1.0 - BETA1.powi(t), 1.0 - BETA2.powi(t));
        let (b1, b2) = (BETA1 as f32, BETA2 as f32);
        let rate = (rates.learning_rate / c1) as f32;
        let decay = (rates.learning_rate * rates.weight_decay) as f32;
        let root = (1.0 / c2) as f32;
        for i in 0..params.len() {
            let g = grads[i] * clip;
            self.m[i] = b1 * self.m[i] + (1.0 - b1) * g;
            self.v[i] = b2 * self.v[i] + (1.0 - b2) * g * g;
            if self.decays[i] {
                params[i] -= decay * params[i];
            }
            params[i] -= rate * self.m[i] / ((self.v[i] * root).sqrt() + EPSILON as f32);
        }
        Ok(norm)
    }
}

/// Moves `average` towards `values`; early in a training faster than `decay` says, so that the random start is forgotten.
pub fn average(average: &mut [f32], values: &[f32], decay: f64, step: u64) {
    let decay = decay.min((1.0 + step as f64) / (10.0 + step as f64));
    let share = (1.0 - decay) as f32;
    for (a, v) in average.iter_mut().zip(values) {
        *a += share * (v - *a);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::spec::Preset;

    #[test]
    fn a_parabola_is_descended_and_only_weights_decay() {
        let layout = Preset::Micro.spec().layout().unwrap();
        let mut adam = AdamW::new(&layout);
        let mut params = vec![1.0f32; layout.param_count];
        let rates = Rates { learning_rate: 0.05, weight_decay: 0.0, clip_norm: 1e9 };
        for _ in 0..200 {
            let grads: Vec<f32> = params.iter().map(|p| 2.0 * (p - 0.25)).collect();
            adam.step(&mut params, &grads, rates).unwrap();
        }
        assert!(params.iter().all(|p| (p - 0.25).abs() < 0.02), "{}", params[0]);
        let mut params = vec![1.0f32; layout.param_count];
        let zero = vec![0f32; layout.param_count];
        let mut adam = AdamW::new(&layout);
        adam.step(&mut params, &zero, Rates { learning_rate: 0.1, weight_decay: 0.5, clip_norm: 1.0 }).unwrap();
        for p in &layout.params {
            let wanted = if p.role == Role::Weight { 0.95 } else { 1.0 };
            assert!(params[p.range()].iter().all(|v| (v - wanted).abs() < 1e-6), "{}", p.name);
        }
    }

    #[test]
    fn long_gradients_are_shortened_and_broken_ones_refused() {
        let layout = Preset::Micro.spec().layout().unwrap();
        let mut adam = AdamW::new(&layout);
        let mut params = vec![0f32; layout.param_count];
        let mut grads = vec![0f32; layout.param_count];
        grads[0] = 30.0;
        grads[1] = 40.0;
        let rates = Rates { learning_rate: 0.1, weight_decay: 0.0, clip_norm: 1.0 };
        assert!((adam.step(&mut params, &grads, rates).unwrap() - 50.0).abs() < 1e-6);
        assert!((adam.m[0] - 0.06).abs() < 1e-6 && (adam.m[1] - 0.08).abs() < 1e-6);
        let before = (params.clone(), adam.clone());
        grads[2] = f32::NAN;
        let error = adam.step(&mut params, &grads, rates).unwrap_err();
        assert_eq!(error.message(), "the gradient's length became NaN");
        assert_eq!(before, (params, adam));
    }
}
