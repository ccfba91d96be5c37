//! Weights to start from: a checkpoint, or a model file that this trainer exported.
//!
//! A model file holds each convolution with its batch norm folded in, `y = relu(W x + b)`; training wants them apart again. Any split with
//! `gamma / sqrt(variance + epsilon) = 1 / k`, weights `k W`, and `beta - mean / k = b` computes the same by the running statistics. This
//! module takes `k` so that every filter has the length He initialisation gives it (a filter's length decides how fast Adam turns it), and
//! for mean and variance those of `k W x` over simulated pairs, so that a pass by the batch's own statistics answers nearly the same too.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::train::batch;
use crate::train::checkpoint::Checkpoint;
use crate::train::config::TrainConfig;
use crate::train::cpu::CpuNet;
use crate::train::onnx::read::{self, Conv};
use crate::train::spec::{BATCH_NORM_EPSILON, ConvBn, Layout, UNetLayout};

/// Pairs over which the statistics are taken.
const PAIRS: usize = 32;
/// Pictures of one pass.
const BATCH: usize = 8;
/// Length of a filter under He initialisation: variance 2 / n in each of n values.
const FILTER_LENGTH: f32 = std::f32::consts::SQRT_2;
/// Filters shorter than this are dead and left as they are.
const SHORTEST_FILTER: f32 = 1e-6;

/// Where a run's first weights came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// The checkpoint or model file.
    pub file: PathBuf,
    /// Its SHA-256, hexadecimal; filled in when the run starts, and asked for when the settings already hold it.
    #[serde(default)]
    pub sha256: String,
    /// How it was made: preset, seed, steps, and what it started from itself.
    #[serde(default)]
    pub made: String,
}

/// Weights and running statistics read from a file.
struct Start {
    params: Vec<f32>,
    stats: Vec<f32>,
    made: String,
}

fn history(preset: &str, seed: &str, steps: &str, before: Option<&str>) -> String {
    let before = before.map(|b| format!(", started from ({b})")).unwrap_or_default();
    format!("preset {preset}, seed {seed}, {steps} steps{before}")
}

/// One line on where the weights of `config`'s run come from, if not from random numbers.
#[must_use]
pub fn describe(init: &Init) -> String {
    let name = init.file.file_name().map_or_else(|| init.file.display().to_string(), |n| n.to_string_lossy().into_owned());
    format!("{name} sha256 {}: {}", init.sha256, init.made)
}

/// The convolutions of a U-Net in the order of computation, its head last.
fn places(u: &UNetLayout) -> Vec<(Option<&ConvBn>, [usize; 4])> {
    let blocks = u.blocks().map(|b| (Some(b), [b.outputs, b.inputs, 3, 3]));
    blocks.chain([(None, [u.head_channels(), u.spec.channels[0], 1, 1])]).collect()
}

fn from_onnx(bytes: &[u8], config: &TrainConfig, layout: &Layout) -> Result<Start> {
    let contents = read::read(bytes)?;
    let nets: Vec<&UNetLayout> = std::iter::once(&layout.differ).chain(&layout.mask).collect();
    let wanted: Vec<[usize; 4]> = nets.iter().flat_map(|u| places(u)).map(|(_, dims)| dims).collect();
    let found: Vec<[usize; 4]> = contents.convolutions.iter().map(|c| c.dims).collect();
    let text = |k: &str| contents.metadata.get(k).map_or("unknown", String::as_str);
    if found != wanted {
        let at = found.iter().zip(&wanted).position(|(f, w)| f != w);
        let difference = match at {
            Some(k) => format!("convolution {k} is {:?} instead of {:?}", found[k], wanted[k]),
            None => format!("it has {} convolutions instead of {}", found.len(), wanted.len()),
        };
        return Err(Error::data(format!(
            "holds preset {}, whose weights do not fit preset {}: {difference}",
            text("ssds.preset"),
            config.preset.name()
        )));
    }
    let (mut params, mut stats) = (vec![0f32; layout.param_count], vec![0f32; layout.stat_count]);
    // first the plain form, running mean 0 and scale 1: it answers as the file does
    let mut convolutions = contents.convolutions.iter();
    let mut folded: Vec<(&ConvBn, &Conv)> = Vec::new();
    for u in &nets {
        for ((block, _), conv) in places(u).into_iter().zip(convolutions.by_ref()) {
            if let Some(b) = block {
                params[b.weight..b.weight + conv.weight.len()].copy_from_slice(&conv.weight);
                params[b.gamma..b.gamma + b.outputs].fill(1.0);
                params[b.beta..b.beta + b.outputs].copy_from_slice(&conv.bias);
                stats[b.variance..b.variance + b.outputs].fill(1.0 - BATCH_NORM_EPSILON);
                folded.push((b, conv));
            } else {
                params[u.head_weight..u.head_weight + conv.weight.len()].copy_from_slice(&conv.weight);
                params[u.head_bias..u.head_bias + conv.bias.len()].copy_from_slice(&conv.bias);
            }
        }
    }
    // then what goes through it
    let crop = config.stages[0].crop_px;
    let pairs = batch::validation(config, crop, PAIRS).pair;
    let mut seen = vec![0f64; layout.stat_count];
    let mut net = CpuNet::new(layout, BATCH, crop, crop);
    for chunk in pairs.chunks_exact(BATCH * 2 * crop * crop) {
        net.forward(&params, &stats, chunk);
        net.add_moments(&mut seen);
    }
    let passes = (PAIRS / BATCH) as f64;
    for (b, conv) in folded {
        let inner = b.inputs * 9;
        for o in 0..b.outputs {
            let mean = (seen[b.mean + o] / passes) as f32;
            let variance = (seen[b.variance + o] / passes - f64::from(mean).powi(2)).max(0.0) as f32;
            let filter = &conv.weight[o * inner..(o + 1) * inner];
            let length = filter.iter().map(|w| w * w).sum::<f32>().sqrt();
            let k = if length < SHORTEST_FILTER { 1.0 } else { FILTER_LENGTH / length };
            params[b.weight + o * inner..b.weight + (o + 1) * inner].iter_mut().zip(filter).for_each(|(p, w)| *p = k * w);
            stats[b.mean + o] = k * mean;
            stats[b.variance + o] = k * k * variance;
            params[b.gamma + o] = (k * k * variance + BATCH_NORM_EPSILON).sqrt() / k;
            params[b.beta + o] = conv.bias[o] + mean;
        }
    }
    let before = contents.metadata.get("ssds.init").map(String::as_str);
    Ok(Start { params, stats, made: history(text("ssds.preset"), text("ssds.seed"), text("ssds.steps"), before) })
}

fn from_checkpoint(bytes: &[u8], config: &TrainConfig) -> Result<Start> {
    let (layout, state) = Checkpoint::from_bytes(bytes)?;
    if layout != config.spec().layout()? {
        let stages = |single: bool| if single { ", single stage" } else { "" };
        return Err(Error::data(format!(
            "holds preset {}{}, whose weights do not fit preset {}{}",
            state.config.preset.name(),
            stages(state.config.single_stage),
            config.preset.name(),
            stages(config.single_stage)
        )));
    }
    let before = state.config.init.as_ref().map(describe);
    let (seed, steps) = (state.config.seed.to_string(), state.step.to_string());
    let made = history(state.config.preset.name(), &seed, &steps, before.as_deref());
    Ok(Start { params: state.average, stats: state.average_stats, made })
}

/// Puts the weights of `config.init` into a run that has not begun, and writes down in its settings what they were.
///
/// # Errors
/// A file that cannot be read, is neither checkpoint nor model of this trainer, belongs to another network, or is not the one whose
/// checksum the settings hold.
pub fn apply(state: &mut Checkpoint, layout: &Layout) -> Result<()> {
    let Some(init) = state.config.init.clone() else { return Ok(()) };
    let what = format!("weights to start from {}", init.file.display());
    let bytes = std::fs::read(&init.file).map_err(|e| Error::io(&what, e))?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    if !init.sha256.is_empty() && init.sha256 != sha256 {
        return Err(Error::data(format!("{what}: sha256 is {sha256}, the settings want {}", init.sha256)));
    }
    let start = if is_checkpoint(&init.file, &bytes) {
        from_checkpoint(&bytes, &state.config)
    } else {
        from_onnx(&bytes, &state.config, layout)
    };
    let start = start.map_err(|e| Error::new(e.kind(), format!("{what}: {}", e.message())))?;
    state.config.init = Some(Init { file: init.file, sha256, made: start.made });
    (state.average, state.average_stats) = (start.params.clone(), start.stats.clone());
    (state.params, state.stats) = (start.params, start.stats);
    Ok(())
}

fn is_checkpoint(file: &Path, bytes: &[u8]) -> bool {
    bytes.starts_with(b"SSDSCKP1") || file.extension().is_some_and(|e| e == "ckpt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::Stage;
    use crate::train::engine::Engine;
    use crate::train::export;
    use crate::train::validate::score;

    fn config() -> TrainConfig {
        TrainConfig { stages: vec![Stage { crop_px: 32, batch: 8, until: 1.0 }], pool: 16, ..TrainConfig::smoke() }
    }

    fn started(file: &Path, config: &TrainConfig) -> Result<(Layout, Checkpoint)> {
        let init = Some(Init { file: file.to_path_buf(), sha256: String::new(), made: String::new() });
        let (layout, mut state) = Checkpoint::start(&TrainConfig { init, ..config.clone() })?;
        apply(&mut state, &layout)?;
        Ok((layout, state))
    }

    /// A network whose batch norms are all but neutral.
    fn network() -> (Layout, Checkpoint) {
        let (layout, mut state) = Checkpoint::start(&config()).unwrap();
        for (i, p) in state.average.iter_mut().enumerate() {
            *p += 0.2 * ((i * 37 % 101) as f32 / 101.0 - 0.5);
        }
        state.params = state.average.clone();
        state.step = 12;
        (layout, state)
    }

    fn worst(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_model_file_starts_a_run_that_answers_as_it_did() {
        let (layout, state) = network();
        let made = export::export(&layout, &state, "ssds", "test").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.onnx");
        std::fs::write(&file, &made.bytes).unwrap();
        let other = TrainConfig { seed: 9, ..config() };
        let (_, new) = started(&file, &other).unwrap();
        let data = batch::validation(&other, 32, 8);
        let mut engine = Engine::new(&layout, other.device).unwrap();
        let c = made.calibration;
        let theirs: Vec<f32> = engine
            .logits(&state.average, &made.stats, &data.pair, 32)
            .unwrap()
            .iter()
            .map(|z| c.scale * (z - c.centre))
            .collect();
        let ours = engine.logits(&new.average, &new.average_stats, &data.pair, 32).unwrap();
        let reach = theirs.iter().fold(0f32, |m, z| m.max(z.abs()));
        assert!(reach > 0.5, "the network answers nothing: {reach}");
        assert!(worst(&ours, &theirs) < 2e-4 * reach, "{} of {reach}", worst(&ours, &theirs));
        // by the batch's own statistics it answers nearly the same: the training begins where the file ended
        let mut net = CpuNet::new(&layout, 8, 32, 32);
        let by_batch = net.forward_train(&new.params, &mut new.stats.clone(), 0.1, &data.pair).logit;
        let (a, b) = (score(&by_batch, &data), score(&theirs, &data));
        assert!((a.ap - b.ap).abs() < 3.0, "{a:?} {b:?}");
        let init = new.config.init.unwrap();
        assert_eq!(init.made, "preset micro, seed 1, 12 steps");
        assert_eq!(init.sha256, made.sha256);
    }

    #[test]
    fn a_checkpoint_starts_a_run_with_its_averaged_weights_and_the_chain_is_told() {
        let (_, mut state) = network();
        state.config.init =
            Some(Init { file: "first.onnx".into(), sha256: "ab".into(), made: "preset micro, seed 5, 3 steps".into() });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("last.ckpt");
        state.save(&file).unwrap();
        let (_, new) = started(&file, &config()).unwrap();
        assert_eq!((new.step, &new.params, &new.average_stats), (0, &state.average, &state.average_stats));
        assert_eq!(
            new.config.init.unwrap().made,
            "preset micro, seed 1, 12 steps, started from (first.onnx sha256 ab: preset micro, seed 5, 3 steps)"
        );
    }

    #[test]
    fn files_that_do_not_fit_are_refused_by_name() {
        let (layout, state) = network();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let said = |file: &Path, config: &TrainConfig| started(file, config).map(|_| ()).unwrap_err().message().to_string();
        let what = |name: &str| format!("weights to start from {}: ", path(name).display());
        std::fs::write(path("m.onnx"), export::export(&layout, &state, "ssds", "test").unwrap().bytes).unwrap();
        let tiny = TrainConfig { preset: crate::train::spec::Preset::Tiny, ..config() };
        assert_eq!(
            said(&path("m.onnx"), &tiny),
            what("m.onnx")
                + "holds preset micro, whose weights do not fit preset tiny: convolution 2 is [8, 8, 3, 3] instead of [16, 8, 3, 3]"
        );
        state.save(&path("last.ckpt")).unwrap();
        let single = TrainConfig { single_stage: true, ..config() };
        assert_eq!(
            said(&path("last.ckpt"), &single),
            what("last.ckpt") + "holds preset micro, whose weights do not fit preset micro, single stage"
        );
        std::fs::write(path("x.onnx"), "hello").unwrap();
        assert!(said(&path("x.onnx"), &config()).starts_with(&what("x.onnx")));
        assert!(said(&path("none.onnx"), &config()).contains("weights to start from"));
        let init = Some(Init { file: path("m.onnx"), sha256: "00".into(), made: String::new() });
        let (layout, mut state) = Checkpoint::start(&TrainConfig { init, ..config() }).unwrap();
        let error = apply(&mut state, &layout).unwrap_err();
        assert!(error.message().ends_with(", the settings want 00"), "{error}");
    }
}
