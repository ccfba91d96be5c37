//! From a checkpoint to a model file: statistics of the averaged weights, calibration on simulation, ONNX, and the comparison with
//! ONNX Runtime.

use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::frame::Map;
use crate::golden::{self, Golden};
use crate::train::batch::{self, Batch, Loader};
use crate::train::checkpoint::Checkpoint;
use crate::train::config::TrainConfig;
use crate::train::engine::Engine;
use crate::train::init;
use crate::train::onnx::{self, Calibration};
use crate::train::spec::Layout;
use crate::train::validate::{Scores, score};

/// Batches over which batch norm's statistics are gathered for the averaged weights.
const STATISTICS_BATCHES: usize = 24;
/// Pairs of the calibration, on the validation's seed.
const CALIBRATION_PAIRS: usize = 96;
/// Seed and side of the golden input that the model file carries its answer to.
const GOLDEN_SEED: u64 = 1;
const GOLDEN_PX: usize = 128;
/// Largest difference between the model file under ONNX Runtime and the network.
pub const TOLERANCE: f32 = 1e-5;

/// A model file and what was found about it.
pub struct Export {
    /// The file.
    pub bytes: Vec<u8>,
    /// Scores on held-out simulation, after calibration.
    pub scores: Scores,
    /// The calibration in the graph.
    pub calibration: Calibration,
    /// Running statistics in the graph.
    pub stats: Vec<f32>,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// The slope that makes the cross entropy smallest with the centre held: the scores' meaning between 0 and 1.
fn slope(logits: &[f32], batch: &Batch, centre: f32) -> f32 {
    let cost = |scale: f32| {
        logits
            .iter()
            .zip(&batch.label)
            .zip(&batch.weight)
            .filter(|(_, w)| **w > 0.0)
            .map(|((z, y), _)| {
                let z = f64::from(scale * (z - centre));
                z.max(0.0) - z * f64::from(*y) + (-z.abs()).exp().ln_1p()
            })
            .sum::<f64>()
    };
    let (mut low, mut high) = (0.2f32, 4.0f32);
    for _ in 0..24 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if cost(a) < cost(b) { high = b } else { low = a }
    }
    0.5 * (low + high)
}

/// Makes the model file of a checkpoint's averaged weights.
///
/// # Errors
/// The device's failure; a simulation that cannot be started.
pub fn export(layout: &Layout, state: &Checkpoint, name: &str, revision: &str) -> Result<Export> {
    let config: &TrainConfig = &state.config;
    let mut engine = Engine::new(layout, config.device)?;
    // crops of the training's own kind, on a seed it never used
    let apart = TrainConfig { seed: config.seed ^ 0x6e6f_726d, pool: config.pool.min(128), ..config.clone() };
    // the last stage: its crops are nearest to the pictures the model will see
    let last = apart.stages.len() - 1;
    let stage = &apart.stages[last];
    let n = STATISTICS_BATCHES.min((apart.pool * apart.reuse) as usize / stage.batch + 1);
    let loader = Loader::start(&apart, last, 0, 2)?;
    let batches = (0..n).map(|_| loader.next()).collect::<Result<Vec<Batch>>>()?;
    drop(loader);
    let stats = engine.recalibrate(&state.average, &batches)?;
    let held_out = batch::validation(config, stage.crop_px, CALIBRATION_PAIRS);
    let logits = engine.logits(&state.average, &stats, &held_out.pair, held_out.crop)?;
    let centre = score(&logits, &held_out).best_logit as f32;
    let calibration = Calibration { scale: slope(&logits, &held_out, centre), centre };
    let calibrated: Vec<f32> = logits.iter().map(|z| calibration.scale * (z - centre)).collect();
    let scores = score(&calibrated, &held_out);
    let scores_json = serde_json::to_string(&scores).map_err(|e| Error::internal(format!("scores as JSON: {e}")))?;
    let text = |k: &str, v: String| (format!("ssds.{k}"), v);
    let mut metadata = vec![
        text("name", name.to_string()),
        text("version", env!("CARGO_PKG_VERSION").to_string()),
        text("preset", config.preset.name().to_string()),
        text("seed", config.seed.to_string()),
        text("steps", state.step.to_string()),
        text("scores", scores_json),
        text("revision", revision.to_string()),
    ];
    if let Some(init) = &config.init {
        metadata.push(text("init", init::describe(init)));
    }
    let (template, frame) = golden::pair(GOLDEN_SEED, GOLDEN_PX, GOLDEN_PX);
    let mut input: Vec<f32> = [template, frame].iter().flat_map(|p| p.data().iter().map(|v| f32::from(*v) / 255.0)).collect();
    input.chunks_exact_mut(GOLDEN_PX * GOLDEN_PX).for_each(batch::standardise);
    let logits = engine.logits(&state.average, &stats, &input, GOLDEN_PX)?;
    let answer = logits.iter().map(|z| 1.0 / (1.0 + (-calibration.scale * (z - calibration.centre)).exp())).collect();
    metadata.extend(Golden::of(GOLDEN_SEED, &Map::from_vec(GOLDEN_PX, GOLDEN_PX, answer)?).to_metadata());
    let bytes = onnx::export(layout, &state.average, &stats, calibration, &metadata);
    let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok(Export { bytes, scores, calibration, stats, sha256 })
}

/// A few lines for a person.
#[must_use]
pub fn summary(path: &Path, made: &Export) -> String {
    format!(
        "{}: {} bytes, sha256 {}\nheld-out simulation: AP {:.2}  MaxF1 {:.2}  F1 at 0.5 {:.2}\ncalibration: sigmoid({:.3} * (logit - {:.3}))",
        path.display(),
        made.bytes.len(),
        made.sha256,
        made.scores.ap,
        made.scores.max_f1,
        made.scores.f1_at_half,
        made.calibration.scale,
        made.calibration.centre
    )
}

/// Runs the file through onnx.checker and ONNX Runtime; argument 1 the model, 2 the pairs, 3 where to write the scores.
const CHECK: &str = r"
import sys
try:
    import numpy as np, onnx, onnxruntime as rt
except ImportError as e:
    print(e); sys.exit(77)
m = onnx.load(sys.argv[1]); onnx.checker.check_model(m, full_check=True)
s = rt.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
with open(sys.argv[2], 'rb') as f:
    n, h, w = np.frombuffer(f.read(12), '<u4'); x = np.frombuffer(f.read(), '<f4').reshape(n, 2, h, w)
s.run(['score'], {'pair': x})[0].astype('<f4').tofile(sys.argv[3])
";

/// Compares the file under ONNX Runtime with the network and gives a line saying how near they are, or why nothing could be compared.
/// Uses the Python of `SSDS_PYTHON`, else `python3`, with the packages onnx and onnxruntime.
///
/// # Errors
/// A file that onnx.checker refuses; scores further apart than [`TOLERANCE`].
pub fn check(layout: &Layout, state: &Checkpoint, made: &Export, path: &Path) -> Result<String> {
    let python = std::env::var("SSDS_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let folder = tempfile::tempdir().map_err(|e| Error::io("temporary folder", e))?;
    let (n, crop) = (2usize, layout.multiple.max(16) * 4);
    let raw: Vec<f32> = {
        let simulation = state.config.simulation.clone().with_size(crop);
        (0..n as u64)
            .flat_map(|i| {
                let s = crate::simulate::sample(&simulation, 77, i);
                [s.template, s.frame]
                    .into_iter()
                    .flat_map(|p| p.into_vec().into_iter().map(|v| f32::from(v) / 255.0))
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    let (input, output) = (folder.path().join("pair"), folder.path().join("score"));
    let mut bytes: Vec<u8> = [n, crop, crop].iter().flat_map(|v| (*v as u32).to_le_bytes()).collect();
    bytes.extend(raw.iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(&input, bytes).map_err(|e| Error::io("pairs for the check", e))?;
    let ran = Command::new(&python).args(["-c", CHECK]).arg(path).arg(&input).arg(&output).output();
    let ran = match ran {
        Ok(ran) => ran,
        Err(e) => return Ok(format!("not compared with ONNX Runtime: {python} cannot be started ({e}); set SSDS_PYTHON")),
    };
    if ran.status.code() == Some(77) {
        let why = String::from_utf8_lossy(&ran.stdout);
        return Ok(format!("not compared with ONNX Runtime: {}; pip install onnx onnxruntime, or set SSDS_PYTHON", why.trim()));
    }
    if !ran.status.success() {
        let why = String::from_utf8_lossy(&ran.stderr);
        return Err(Error::new(Kind::Internal, format!("model {}: refused: {}", path.display(), why.trim())));
    }
    let theirs = std::fs::read(&output).map_err(|e| Error::io("scores of the check", e))?;
    let mut pairs = raw;
    pairs.chunks_exact_mut(crop * crop).for_each(batch::standardise);
    let logits = Engine::new(layout, state.config.device)?.logits(&state.average, &made.stats, &pairs, crop)?;
    let (scale, centre) = (made.calibration.scale, made.calibration.centre);
    let ours = logits.iter().map(|z| 1.0 / (1.0 + (-scale * (z - centre)).exp()));
    let theirs = theirs.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let worst = ours.zip(theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    if worst > TOLERANCE || worst.is_nan() {
        return Err(Error::internal(format!(
            "model {}: its scores under ONNX Runtime differ from the network's by {worst:e}, wanted at most {TOLERANCE:e}",
            path.display()
        )));
    }
    Ok(format!("onnx.checker passes; scores under ONNX Runtime equal the network's within {worst:.1e}"))
}
