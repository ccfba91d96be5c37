//! A session with its reused input and output buffers.
//!
//! Every shape `[n, 2, h, w]` gets one input and one output tensor, owned by this program and used again, so that a steady stream of frames
//! allocates nothing outside ONNX Runtime. At most [`MAX_SHAPES`] shapes are kept; the oldest goes.

use std::time::{Duration, Instant};

use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::Tensor;

use crate::error::{Error, Result};

use super::contract::{INPUT, OUTPUT};
use super::detector::Fault;
use super::library::reason;

/// Shapes kept: whole frame, full batch and last batch of two frame sizes.
const MAX_SHAPES: usize = 4;
/// How far a score may be outside 0..1 before it is a fault and not rounding.
const SCORE_SLACK: f32 = 1e-3;

type Shape = [usize; 3];

struct Buffers {
    shape: Shape,
    input: Tensor<f32>,
    options: RunOptions<HasSelectedOutputs>,
}

/// A session ready to run.
pub(super) struct Runner {
    session: Session,
    buffers: Vec<Buffers>,
    spent: Duration,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("shapes", &self.buffers.iter().map(|b| b.shape).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Takes a session whose names the contract has checked; what ONNX Runtime made of them is compared once more.
    pub(super) fn new(session: Session) -> Result<Self> {
        let names = |outlets: &[ort::value::Outlet]| outlets.iter().map(|o| o.name().to_owned()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(session.inputs()), names(session.outputs()));
        if inputs != [INPUT] || outputs != [OUTPUT] {
            return Err(Error::data(format!(
                "ONNX Runtime sees inputs {inputs:?} and outputs {outputs:?}, wanted `{INPUT}` and `{OUTPUT}`"
            )));
        }
        Ok(Self { session, buffers: Vec::new(), spent: Duration::ZERO })
    }

    /// Time within ONNX Runtime since the last call of this.
    pub(super) fn take_spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    /// Runs `n` pictures of `h` x `w`: `fill` writes `[n, 2, h, w]`, `take` reads `[n, 1, h, w]` (scores 0..1, finite).
    ///
    /// # Errors
    /// With a [`Fault`] as source.
    pub(super) fn run<R>(&mut self, shape: Shape, fill: impl FnOnce(&mut [f32]), take: impl FnOnce(&[f32]) -> R) -> Result<R> {
        let i = self.buffers_for(shape)?;
        let buffers = &mut self.buffers[i];
        fill(buffers.input.extract_tensor_mut().1);
        let begun = Instant::now();
        let outputs = self.session.run_with_options(ort::inputs![&buffers.input], &buffers.options);
        self.spent += begun.elapsed();
        let outputs = outputs.map_err(failed)?;
        let (found, scores) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        let [n, h, w] = shape;
        if found[..] != [n as i64, 1, h as i64, w as i64] {
            return Err(Fault::Failed.error(format!("the model answers shape {found:?}, wanted [{n}, 1, {h}, {w}]")));
        }
        check_scores(scores, w, h)?;
        Ok(take(scores))
    }

    fn buffers_for(&mut self, shape: Shape) -> Result<usize> {
        if let Some(i) = self.buffers.iter().position(|b| b.shape == shape) {
            return Ok(i);
        }
        if self.buffers.len() == MAX_SHAPES {
            self.buffers.remove(0);
        }
        let [n, h, w] = shape;
        let tensor =
            |channels: usize| Tensor::from_array(([n, channels, h, w], vec![0.0_f32; n * channels * h * w])).map_err(failed);
        let options = RunOptions::new().map_err(failed)?;
        let options = options.with_outputs(OutputSelector::no_default().with(OUTPUT).preallocate(OUTPUT, tensor(1)?));
        self.buffers.push(Buffers { shape, input: tensor(2)?, options });
        Ok(self.buffers.len() - 1)
    }
}

fn failed(error: ort::Error) -> Error {
    Fault::Failed.error(reason(error.message()))
}

fn check_scores(scores: &[f32], width: usize, height: usize) -> Result<()> {
    // NaN fails both comparisons.
    let good = |v: &f32| *v >= -SCORE_SLACK && *v <= 1.0 + SCORE_SLACK;
    if scores.iter().all(good) {
        return Ok(());
    }
    let bad = scores.iter().filter(|v| !good(v)).count();
    let i = scores.iter().position(|v| !good(v)).unwrap_or_default();
    let (x, y) = (i % width, i / width % height);
    let (value, of) = (scores[i], scores.len());
    Err(if value.is_finite() {
        Fault::Failed.error(format!("score {value} at ({x}, {y}) of a tile is outside 0..1 ({bad} of {of} values)"))
    } else {
        Fault::NotFinite.error(format!("score {value} at ({x}, {y}) of a tile is not finite ({bad} of {of} values)"))
    })
}
