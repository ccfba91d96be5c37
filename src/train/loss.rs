//! L = L_def + L_irr: what the network is trained to make small.
//!
//! L_def is the paper's MSE (on the sigmoid of the logit), BCE, Dice, or a weighted sum of them; L_irr is in `phase`. Pixels of weight 0
//! (specks that are not scored, the rim the template does not cover) count in none of L_def.

use burn::tensor::{Device, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::train::phase::Form;

/// Weights of the parts of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Weight of the mean squared error of the map (the paper's L_def).
    pub mse: f32,
    /// Weight of the binary cross entropy.
    pub bce: f32,
    /// Weight of one minus the Dice coefficient over the batch.
    pub dice: f32,
    /// Weight of a defect pixel in the binary cross entropy against 1 of a good one.
    pub positive_weight: f32,
    /// The binary cross entropy's targets are this and one minus this, so that the map does not saturate.
    pub label_smoothing: f32,
    /// Weight of L_irr; 0 leaves it out.
    pub irrelevance: f32,
    /// Share of the training over which that weight grows from 0.
    pub irrelevance_warmup: f32,
    /// Multiplies the correlation map before the softmax of L_irr.
    pub irrelevance_temperature: f32,
    /// Which L_irr.
    pub irrelevance_form: Form,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            mse: 1.0,
            bce: 2.0,
            dice: 1.0,
            positive_weight: 2.0,
            label_smoothing: 0.01,
            irrelevance: 0.005,
            irrelevance_warmup: 0.1,
            irrelevance_temperature: 30.0,
            irrelevance_form: Form::Paper,
        }
    }
}

impl LossConfig {
    /// Whether every value is in its range.
    ///
    /// # Errors
    /// The first that is not, with what was wanted.
    pub fn check(&self) -> Result<()> {
        let range = |name: &str, v: f32, low: f32, high: f32| {
            if v >= low && v <= high {
                Ok(())
            } else {
                Err(Error::config(format!("train.loss.{name} must be between {low} and {high}, got {v}")))
            }
        };
        range("mse", self.mse, 0.0, 1000.0)?;
        range("bce", self.bce, 0.0, 1000.0)?;
        range("dice", self.dice, 0.0, 1000.0)?;
        range("positive_weight", self.positive_weight, 0.1, 100.0)?;
        range("label_smoothing", self.label_smoothing, 0.0, 0.4)?;
        range("irrelevance", self.irrelevance, 0.0, 1000.0)?;
        range("irrelevance_warmup", self.irrelevance_warmup, 0.0, 1.0)?;
        range("irrelevance_temperature", self.irrelevance_temperature, 0.1, 1e5)?;
        if self.mse + self.bce + self.dice <= 0.0 {
            return Err(Error::config("train.loss: at least one of mse, bce and dice must be above 0"));
        }
        Ok(())
    }
}

/// The parts of one step's loss.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Parts {
    /// The weighted sum that was minimised.
    pub total: f32,
    /// Mean squared error.
    pub mse: f32,
    /// Binary cross entropy.
    pub bce: f32,
    /// One minus Dice.
    pub dice: f32,
    /// L_irr, unweighted; 0 when it is left out.
    pub irrelevance: f32,
}

/// L_def as a tensor (scalar, [1]) and its parts in the order total, mse, bce, dice ([4]).
///
/// Shapes: `logit`, `label`, `weight` [n, 1, h, w].
#[must_use]
pub fn definition(config: &LossConfig, logit: Tensor<4>, label: Tensor<4>, weight: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let count = weight.clone().sum().clamp_min(1.0); // [1]
    let p = activation::sigmoid(logit.clone()); // [n, 1, h, w]
    let mse = ((p.clone() - label.clone()).powi_scalar(2) * weight.clone()).sum() / count.clone();
    // log(1 + exp(z)) - z * y, in the form that does not overflow
    let target = label.clone() * (1.0 - 2.0 * config.label_smoothing) + config.label_smoothing;
    let softplus = logit.clone().clamp_min(0.0) + (logit.clone().abs().neg().exp() + 1.0).log();
    let emphasis = (label.clone() * (config.positive_weight - 1.0) + 1.0) * weight.clone();
    let bce = ((softplus - logit * target) * emphasis).sum() / count;
    let (pw, yw) = (p * weight.clone(), label * weight);
    let dice = ((pw.clone() * yw.clone()).sum() * 2.0 + 1.0) / (pw.sum() + yw.sum() + 1.0);
    let dice = dice.neg() + 1.0;
    let total = mse.clone() * config.mse + bce.clone() * config.bce + dice.clone() * config.dice;
    let parts = Tensor::cat(vec![total.clone(), mse, bce, dice], 0);
    (total, parts)
}

/// Reads the parts of [`definition`] and adds L_irr with its weight.
///
/// # Errors
/// The device's failure to read.
pub fn read_parts(parts: Tensor<1>, irrelevance: f32, weight: f32) -> Result<Parts> {
    let v = read(parts)?;
    Ok(Parts { total: v[0] + weight * irrelevance, mse: v[1], bce: v[2], dice: v[3], irrelevance })
}

/// Copies a tensor to memory.
///
/// # Errors
/// The device's failure to read.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor.into_data().try_to_vec::<f32>().map_err(|e| Error::internal(format!("reading a tensor: {e:?}")))
}

/// A batch of pictures as a tensor.
#[must_use]
pub fn tensor4(values: &[f32], dims: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_small_case_by_hand() {
        let device = Device::flex();
        let t = |v: &[f32]| tensor4(v, [1, 1, 1, 3], &device);
        let config = LossConfig { positive_weight: 3.0, label_smoothing: 0.0, ..LossConfig::default() };
        // scores 0.5, 0.8 and one that does not count
        let logit = [0.0, 4f32.ln(), 50.0];
        let (_, parts) = definition(&config, t(&logit), t(&[1.0, 0.0, 0.0]), t(&[1.0, 1.0, 0.0]));
        let p = read_parts(parts, 3.0, 0.5).unwrap();
        assert!((p.mse - (0.25 + 0.64) / 2.0).abs() < 1e-5, "{p:?}");
        assert!((p.bce - (3.0 * 2f32.ln() - 0.2f32.ln()) / 2.0).abs() < 1e-5, "{p:?}");
        assert!((p.dice - (1.0 - (2.0 * 0.5 + 1.0) / (1.3 + 1.0 + 1.0))).abs() < 1e-5, "{p:?}");
        assert!((p.total - (p.mse + 2.0 * p.bce + p.dice + 1.5)).abs() < 1e-5);
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let device = Device::flex().autodiff();
        let logit = tensor4(&[90.0, -90.0], [1, 1, 1, 2], &device).require_grad();
        let t = |v: &[f32]| tensor4(v, [1, 1, 1, 2], &device);
        let (total, parts) = definition(&LossConfig::default(), logit.clone(), t(&[0.0, 1.0]), t(&[1.0, 1.0]));
        assert!(read_parts(parts, 0.0, 0.0).unwrap().total.is_finite());
        let g = read(logit.grad(&total.backward()).unwrap()).unwrap();
        assert!(g.iter().all(|g| g.is_finite()), "{g:?}");
    }

    #[test]
    fn ranges_are_checked() {
        let fault = |c: LossConfig| c.check().unwrap_err().message().to_string();
        assert_eq!(
            fault(LossConfig { label_smoothing: f32::NAN, ..LossConfig::default() }),
            "train.loss.label_smoothing must be between 0 and 0.4, got NaN"
        );
        assert_eq!(
            fault(LossConfig { mse: 0.0, bce: 0.0, dice: 0.0, ..LossConfig::default() }),
            "train.loss: at least one of mse, bce and dice must be above 0"
        );
    }
}
