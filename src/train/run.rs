//! The training loop: batches in, checkpoints, metrics and an exported model out.
//!
//! A run lives in one folder: `train.toml` (the settings), `metrics.jsonl` (a line a report), `last.ckpt` and the one before it,
//! `best.ckpt` (highest validation AP), `model.onnx`. A run stopped by a signal, SIGKILL included, goes on from `last.ckpt`; what was
//! computed after it is computed again from the same batches, so the result is the same.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::error::{Error, Kind, Result};
use crate::train::batch::{self, Loader};
use crate::train::checkpoint::{Checkpoint, write_atomic};
use crate::train::config::TrainConfig;
use crate::train::engine::Engine;
use crate::train::loss::Parts;
use crate::train::optim::{Rates, average};
use crate::train::spec::Layout;
use crate::train::validate::{Scores, score};

/// Steps between lines of the metrics file.
const REPORT_EVERY: u64 = 25;

/// How a run is started; none of it changes what is computed.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The run's folder.
    pub folder: PathBuf,
    /// Threads that simulate.
    pub simulation_threads: usize,
    /// Say nothing on standard error.
    pub quiet: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// All steps, or the whole time budget.
    Complete,
    /// No improvement for `patience` validations.
    Early,
    /// Asked to stop; the checkpoint continues it.
    Stopped,
}

/// The files of a run.
#[must_use]
pub fn last_checkpoint(folder: &Path) -> PathBuf {
    folder.join("last.ckpt")
}

/// Progress of the schedule, 0..1.
fn progress(config: &TrainConfig, step: u64, elapsed_secs: f64) -> f64 {
    let by_steps = step as f64 / config.steps as f64;
    let by_time = config.max_minutes.map_or(0.0, |m| elapsed_secs / (60.0 * m));
    by_steps.max(by_time).min(1.0)
}

/// Starts a run in an empty folder, or goes on with the one in it.
///
/// # Errors
/// Settings out of range; a folder that holds another run; files that cannot be written.
pub fn prepare(config: Option<&TrainConfig>, options: &RunOptions, resume: bool) -> Result<(Layout, Checkpoint)> {
    let last = last_checkpoint(&options.folder);
    if resume {
        return Checkpoint::load(&last);
    }
    let Some(config) = config else {
        return Err(Error::internal("a new run needs settings"));
    };
    if last.exists() {
        return Err(Error::new(
            Kind::Usage,
            format!("{} already holds a run: add --resume to go on with it, or choose another --out", options.folder.display()),
        ));
    }
    let (layout, state) = Checkpoint::start(config)?;
    std::fs::create_dir_all(&options.folder)
        .map_err(|e| Error::new(Kind::CannotCreate, format!("folder {}: cannot be created: {e}", options.folder.display())))?;
    write_atomic(&options.folder.join("train.toml"), config.to_toml()?.as_bytes(), "training configuration")?;
    Ok((layout, state))
}

struct Reporter {
    metrics: std::fs::File,
    path: PathBuf,
    quiet: bool,
    terminal: bool,
}

impl Reporter {
    fn open(options: &RunOptions) -> Result<Self> {
        let path = options.folder.join("metrics.jsonl");
        let metrics = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Error::new(Kind::CannotCreate, format!("metrics {}: cannot be written: {e}", path.display())))?;
        Ok(Self { metrics, path, quiet: options.quiet, terminal: std::io::stderr().is_terminal() })
    }

    fn record(&mut self, line: &serde_json::Value) -> Result<()> {
        writeln!(self.metrics, "{line}").map_err(|e| Error::io(format!("metrics {}", self.path.display()), e))
    }

    fn say(&self, text: &str, stays: bool) {
        if self.quiet {
            return;
        }
        if self.terminal && !stays {
            eprint!("\r\x1b[K{text}");
        } else if self.terminal {
            eprintln!("\r\x1b[K{text}");
        } else {
            eprintln!("{text}");
        }
    }
}

fn duration(secs: f64) -> String {
    let s = secs.max(0.0).round() as u64;
    if s >= 3600 { format!("{}h{:02}m", s / 3600, s % 3600 / 60) } else { format!("{}m{:02}s", s / 60, s % 60) }
}

/// Trains until the end, `stop`, or an error; `state` is the last step taken in any case.
///
/// # Errors
/// A loss that is no number, a file that cannot be written, a device that fails. The last good checkpoint stays as it is.
pub fn train(layout: &Layout, state: &mut Checkpoint, options: &RunOptions, stop: &AtomicBool) -> Result<Ending> {
    let config = state.config.clone();
    let last = last_checkpoint(&options.folder);
    let mut reporter = Reporter::open(options)?;
    let mut engine = Engine::new(layout, config.device)?;
    let held_out = batch::validation(&config, config.stages[0].crop_px, config.validation_pairs);
    let elapsed_before = state.elapsed_secs;
    let began = Instant::now();
    let first_step = state.step;
    let mut loader: Option<(usize, Loader)> = None;
    let mut sums = (Parts::default(), 0u64, 0f64);
    let mut ending = Ending::Complete;
    if state.step == 0 {
        state.save(&last)?;
    }
    loop {
        state.elapsed_secs = elapsed_before + began.elapsed().as_secs_f64();
        let p = progress(&config, state.step, state.elapsed_secs);
        if p >= 1.0 {
            break;
        }
        if stop.load(Ordering::Relaxed) {
            ending = Ending::Stopped;
            break;
        }
        let (k, stage) = config.stage(p);
        let batches = match loader.take() {
            Some((stage, batches)) if stage == k => batches,
            _ => {
                if k != state.stage || state.step == 0 {
                    (state.stage, state.stage_first_step) = (k, state.step);
                }
                Loader::start(&config, k, (state.step - state.stage_first_step) * stage.batch as u64, options.simulation_threads)?
            }
        };
        let batch = batches.next()?;
        loader = Some((k, batches));
        let weight = if config.single_stage { 0.0 } else { config.irrelevance_weight(p) };
        let (parts, grads) = engine.step(&config, &state.params, &mut state.stats, &batch, weight)?;
        let rates = Rates { learning_rate: config.rate(p), weight_decay: config.weight_decay, clip_norm: config.clip_norm };
        let broken = |what: &str| {
            Error::data(format!(
                "step {}: {what}; training stops here, {} holds the last good state (try a lower --learning-rate)",
                state.step + 1,
                last.display()
            ))
        };
        if !parts.total.is_finite() {
            return Err(broken(&format!("the loss became {}", parts.total)));
        }
        let norm = match state.optimizer.step(&mut state.params, &grads, rates) {
            Ok(norm) => norm,
            Err(e) => return Err(broken(e.message())),
        };
        state.step += 1;
        average(&mut state.average, &state.params, config.ema_decay, state.step);
        average(&mut state.average_stats, &state.stats, config.ema_decay, state.step);
        sums.0.total += parts.total;
        sums.0.mse += parts.mse;
        sums.0.bce += parts.bce;
        sums.0.dice += parts.dice;
        sums.0.irrelevance += parts.irrelevance;
        sums.1 += 1;
        sums.2 += norm;
        if state.step % REPORT_EVERY == 0 {
            let n = sums.1 as f32;
            let elapsed = began.elapsed().as_secs_f64();
            let speed = (state.step - first_step) as f64 / elapsed;
            let left = config.max_minutes.map_or(f64::INFINITY, |m| m * 60.0 - elapsed_before - elapsed);
            let left = left.min((config.steps - state.step) as f64 / speed);
            reporter.record(&json!({
                "step": state.step, "progress": p, "loss": sums.0.total / n, "mse": sums.0.mse / n, "bce": sums.0.bce / n,
                "dice": sums.0.dice / n, "irrelevance": sums.0.irrelevance / n, "gradient": sums.2 / f64::from(n),
                "rate": rates.learning_rate, "crop": batch.crop, "steps_per_sec": speed, "elapsed_secs": elapsed_before + elapsed,
            }))?;
            reporter.say(
                &format!(
                    "step {:>6}  {:>3.0} %  loss {:.4}  bce {:.4}  dice {:.3}  irr {:.3}  rate {:.1e}  {:.2} steps/s  left {}",
                    state.step,
                    100.0 * p,
                    sums.0.total / n,
                    sums.0.bce / n,
                    sums.0.dice / n,
                    sums.0.irrelevance / n,
                    rates.learning_rate,
                    speed,
                    duration(left)
                ),
                state.step % (REPORT_EVERY * 4) == 0,
            );
            sums = (Parts::default(), 0, 0.0);
        }
        let validates = state.step % config.validate_every == 0;
        if validates {
            let logits = engine.logits(&state.average, &state.average_stats, &held_out.pair, held_out.crop)?;
            let scores = score(&logits, &held_out);
            let better = scores.ap > state.best_score;
            if better {
                (state.best_score, state.validations_since_best) = (scores.ap, 0);
            } else {
                state.validations_since_best += 1;
            }
            report_scores(&mut reporter, state.step, &scores)?;
            state.scores = Some(scores);
            if better {
                state.save(&options.folder.join("best.ckpt"))?;
            }
        }
        if state.step % config.checkpoint_every == 0 {
            state.elapsed_secs = elapsed_before + began.elapsed().as_secs_f64();
            state.save(&last)?;
        }
        if validates && config.patience > 0 && state.validations_since_best >= config.patience {
            ending = Ending::Early;
            break;
        }
    }
    state.save(&last)?;
    Ok(ending)
}

fn report_scores(reporter: &mut Reporter, step: u64, s: &Scores) -> Result<()> {
    reporter.record(&json!({ "step": step, "validation": s }))?;
    reporter.say(
        &format!(
            "step {step:>6}  held-out simulation: AP {:.2}  MaxF1 {:.2}  F1 at 0.5 {:.2}  best threshold at logit {:.2}",
            s.ap, s.max_f1, s.f1_at_half, s.best_logit
        ),
        true,
    );
    Ok(())
}
