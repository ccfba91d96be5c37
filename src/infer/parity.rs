//! Whether a loaded session computes what the network is meant to compute.
//!
//! The model file's golden vector ([`crate::golden`]) is the fp32 CPU reference of the trainer. A session that differs by more than the
//! tolerance, or gives a value that is not finite, is refused with the figures. Without a golden vector a GPU session is compared with an
//! fp32 session on the processor at the same input; a CPU session then stays [`Parity::Unverified`], which is reported.

use std::fmt;

use crate::error::{Error, Result};
use crate::frame::Map;
use crate::golden::{self, Drift, Golden};

use super::session::Runner;

/// The input when the model brings no golden vector.
const STAND_IN: (u64, usize) = (1, 128);

/// How a session compares with its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Parity {
    /// Equals the model's golden vector within the tolerance.
    Golden {
        /// Largest absolute difference.
        max_abs: f32,
        /// What was allowed.
        tolerance: f32,
    },
    /// Equals an fp32 session on the processor within the tolerance; the model has no golden vector.
    Processor {
        /// Largest absolute difference.
        max_abs: f32,
        /// What was allowed.
        tolerance: f32,
    },
    /// The model has no golden vector, and the session is itself the reference.
    Unverified,
}

impl fmt::Display for Parity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parity::Golden { max_abs, tolerance } => write!(f, "verified (differs by {max_abs:.1e}, allowed {tolerance:.1e})"),
            Parity::Processor { max_abs, tolerance } => {
                write!(f, "equals the processor (differs by {max_abs:.1e}, allowed {tolerance:.1e})")
            }
            Parity::Unverified => f.write_str("unverified"),
        }
    }
}

/// Runs the golden input and compares.
///
/// # Errors
/// [`crate::Kind::Data`] with the figures when the session drifts.
pub(super) fn against_golden(runner: &mut Runner, golden: &Golden, fixed_batch: usize, tolerance: f32) -> Result<Parity> {
    let map = answer(runner, golden.seed, golden.width, golden.height, fixed_batch)?;
    let max_abs = judge(&golden.drift(&map)?, tolerance, "the golden vector")?;
    Ok(Parity::Golden { max_abs, tolerance })
}

/// Compares with `reference`, a session of the same model on the processor.
///
/// # Errors
/// [`crate::Kind::Data`] with the figures when the session drifts.
pub(super) fn against_processor(
    runner: &mut Runner,
    reference: &mut Runner,
    fixed_size: Option<(usize, usize)>,
    fixed_batch: usize,
    tolerance: f32,
) -> Result<Parity> {
    let (seed, side) = STAND_IN;
    let (height, width) = fixed_size.unwrap_or((side, side));
    let wanted = answer(reference, seed, width, height, fixed_batch)?;
    let found = answer(runner, seed, width, height, fixed_batch)?;
    let max_abs = judge(&Golden::of(seed, &wanted).drift(&found)?, tolerance, "the processor")?;
    Ok(Parity::Processor { max_abs, tolerance })
}

/// The network's map of the golden input.
pub(super) fn answer(runner: &mut Runner, seed: u64, width: usize, height: usize, batch: usize) -> Result<Map> {
    let (template, frame) = golden::pair(seed, width, height);
    let fill = |input: &mut [f32]| {
        for picture in input.chunks_exact_mut(2 * width * height) {
            let pixels = template.data().iter().chain(frame.data());
            picture.iter_mut().zip(pixels).for_each(|(out, &v)| *out = f32::from(v) / 255.0);
        }
    };
    let scores = runner.run([batch, height, width], fill, |scores| scores[..width * height].to_vec())?;
    Map::from_vec(width, height, scores)
}

fn judge(drift: &Drift, tolerance: f32, reference: &str) -> Result<f32> {
    // Written so that NaN fails.
    if drift.max_abs <= tolerance {
        return Ok(drift.max_abs);
    }
    Err(Error::data(format!(
        "differs from {reference} by {:.6} at {:?} ({:.6} wanted, {:.6} found; mean {:.6}), allowed {tolerance}",
        drift.max_abs, drift.at, drift.wanted, drift.found, drift.mean_abs
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_refused_with_its_figures() {
        let drift = Drift { max_abs: 0.25, mean_abs: 0.0625, at: (12, 4), wanted: 0.5, found: 0.75 };
        assert_eq!(judge(&drift, 0.25, "the golden vector").unwrap(), 0.25);
        let error = judge(&drift, 0.001, "the golden vector").unwrap_err();
        assert_eq!(
            error.to_string(),
            "differs from the golden vector by 0.250000 at (12, 4) (0.500000 wanted, 0.750000 found; mean 0.062500), allowed 0.001"
        );
        assert!(judge(&Drift { max_abs: f32::NAN, ..drift }, 1.0, "x").is_err());
    }
}
