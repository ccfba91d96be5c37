//! The command line of `ssds-train`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::simulate;
use crate::train::ablate::{self, Bench, Plan};
use crate::train::checkpoint::{Checkpoint, write_atomic};
use crate::train::config::{DeviceKind, TrainConfig};
use crate::train::engine::Engine;
use crate::train::evaluate::Marker;
use crate::train::export;
use crate::train::init::{Init, describe};
use crate::train::measure::measure;
use crate::train::run::{self, Ending, RunOptions};
use crate::train::spec::Preset;

/// Trains the SSDS network in simulation and writes it as ONNX.
#[derive(Debug, Parser)]
#[command(name = "ssds-train", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trains a network; Ctrl-C saves and says how to go on.
    Train(TrainArgs),
    /// Writes a checkpoint's network as ONNX, its threshold calibrated on simulation.
    Export(ExportArgs),
    /// Writes simulated pairs: pictures, masks, a manifest, a contact sheet.
    Simulate(SimulateArgs),
    /// Trains without each part of the recipe in turn and tables what it was worth.
    Ablate(AblateArgs),
    /// Scores a checkpoint on a pair manifest.
    Score {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// The manifest (pairs.jsonl); its poses are used where it has them.
        #[arg(long)]
        pairs: PathBuf,
        /// Components of fewer pixels do not count.
        #[arg(long, default_value_t = 4)]
        min_area: usize,
    },
    /// Measures simulation, steps and memory on this machine.
    Measure {
        /// Settings in TOML.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Size of the network.
        #[arg(long, value_enum)]
        preset: Option<Preset>,
        /// Where tensors are computed.
        #[arg(long, value_enum)]
        device: Option<DeviceKind>,
        /// Steps to time.
        #[arg(long, default_value_t = 10)]
        steps: usize,
        /// Pairs to simulate.
        #[arg(long, default_value_t = 400)]
        pairs: u64,
        /// Threads that simulate.
        #[arg(long, default_value_t = 2)]
        simulation_threads: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Says what a checkpoint holds.
    Inspect {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
}

#[derive(Debug, Args)]
struct TrainArgs {
    /// Folder of the run: settings, metrics, checkpoints, model.
    #[arg(long)]
    out: PathBuf,
    /// Settings in TOML; the flags below come on top.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Goes on with the run in --out.
    #[arg(long, conflicts_with_all = ["config", "preset", "seed"])]
    resume: bool,
    /// Starts from these weights instead of random ones: a checkpoint, or a model that this trainer exported.
    #[arg(long, conflicts_with = "resume")]
    init: Option<PathBuf>,
    /// Size of the network.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Seed of weights and simulation.
    #[arg(long)]
    seed: Option<u64>,
    /// Steps in all.
    #[arg(long)]
    steps: Option<u64>,
    /// Wall-clock budget, minutes: the schedule is stretched over it.
    #[arg(long)]
    max_minutes: Option<f64>,
    /// Highest learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Weight of the irrelevance loss.
    #[arg(long)]
    irrelevance: Option<f32>,
    /// Where tensors are computed.
    #[arg(long, value_enum)]
    device: Option<DeviceKind>,
    /// Threads that simulate, beside the training's own.
    #[arg(long, default_value_t = 1)]
    simulation_threads: usize,
    /// Says nothing on standard error.
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The checkpoint.
    checkpoint: PathBuf,
    /// The model file.
    #[arg(long)]
    out: PathBuf,
    /// Refuses a checkpoint of another preset.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Name in the metadata.
    #[arg(long, default_value = "ssds")]
    name: String,
    /// Source revision in the metadata.
    #[arg(long, default_value = "unknown")]
    revision: String,
    /// Leaves out the comparison with ONNX Runtime.
    #[arg(long)]
    no_check: bool,
}

#[derive(Debug, Args)]
struct SimulateArgs {
    /// Recipe: wide or paper.
    #[arg(long, default_value = "wide")]
    preset: simulate::Preset,
    /// Pairs.
    #[arg(long, default_value_t = 64)]
    n: usize,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Side of the pictures, px.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct AblateArgs {
    /// Folder of runs and scores; the same folder goes on where it stopped.
    #[arg(long)]
    out: PathBuf,
    /// Markdown file with the table.
    #[arg(long, default_value = "docs/bench/ablation.md")]
    report: PathBuf,
    /// Settings in TOML that all variants share.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Size of the network.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Steps of every variant.
    #[arg(long)]
    steps: Option<u64>,
    /// Seeds.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    seeds: Vec<u64>,
    /// A manifest of real boards as NAME=PATH or NAME=PATH:MIN_AREA; may be given again.
    #[arg(long = "bench", value_parser = bench)]
    benches: Vec<Bench>,
    /// Threads that simulate.
    #[arg(long, default_value_t = 1)]
    simulation_threads: usize,
}

fn bench(text: &str) -> std::result::Result<Bench, String> {
    let (name, rest) = text.split_once('=').ok_or_else(|| format!("wanted NAME=PATH or NAME=PATH:MIN_AREA, got {text}"))?;
    let (path, area) = match rest.rsplit_once(':') {
        Some((path, area)) => (path, area.parse().map_err(|_| format!("MIN_AREA must be a number of pixels, got {area}"))?),
        None => (rest, 4),
    };
    Ok(Bench { name: name.to_string(), manifest: PathBuf::from(path), min_area_px: area })
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Train(args) => train(&args),
        Command::Export(args) => export_checkpoint(&args),
        Command::Simulate(args) => simulate_pairs(&args),
        Command::Ablate(args) => ablate_variants(&args),
        Command::Score { checkpoint, pairs, min_area } => score_pairs(&checkpoint, &pairs, min_area),
        Command::Measure { config, preset, device, steps, pairs, simulation_threads, json } => {
            measure_speed(config.as_deref(), (preset, device), (steps, pairs, simulation_threads), json)
        }
        Command::Inspect { checkpoint } => inspect(&checkpoint),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ssds-train: {e:#}");
            ExitCode::from(e.kind().exit_code())
        }
    }
}

fn settings(args: &TrainArgs, mut config: TrainConfig) -> TrainConfig {
    if let Some(v) = args.preset {
        config.preset = v;
    }
    if let Some(file) = &args.init {
        config.init = Some(Init { file: file.clone(), sha256: String::new(), made: String::new() });
    }
    if let Some(v) = args.seed {
        config.seed = v;
    }
    if let Some(v) = args.steps {
        config.steps = v;
    }
    if let Some(v) = args.max_minutes {
        config.max_minutes = Some(v);
    }
    if let Some(v) = args.learning_rate {
        config.learning_rate = v;
    }
    if let Some(v) = args.irrelevance {
        config.loss.irrelevance = v;
    }
    if let Some(v) = args.device {
        config.device = v;
    }
    config
}

/// Set by the first Ctrl-C or SIGTERM; the second ends at once.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        // the last checkpoint is whole in any case
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; once more ends at once");
    })
    .map_err(|e| Error::internal(format!("installing the signal handler: {e}")))?;
    Ok(stop)
}

fn train(args: &TrainArgs) -> Result<()> {
    let options = RunOptions { folder: args.out.clone(), simulation_threads: args.simulation_threads, quiet: args.quiet };
    let base = match &args.config {
        Some(path) => TrainConfig::load(path)?,
        None => TrainConfig::default(),
    };
    let config = settings(args, base);
    let (layout, mut state) = run::prepare(Some(&config), &options, args.resume)?;
    if args.resume {
        state.config = settings(args, state.config);
        state.config.check()?;
    }
    let stop = stop_on_signal()?;
    let ending = run::train(&layout, &mut state, &options, &stop)?;
    if ending == Ending::Stopped {
        eprintln!("stopped after step {}; go on with: ssds-train train --resume --out {}", state.step, args.out.display());
        return Ok(());
    }
    let model = args.out.join("model.onnx");
    let made = export::export(&layout, &state, "ssds", "unknown")?;
    write_atomic(&model, &made.bytes, "model")?;
    eprintln!(
        "done after step {}: {} (held-out AP {:.2}, F1 at 0.5 {:.2})",
        state.step,
        model.display(),
        made.scores.ap,
        made.scores.f1_at_half
    );
    Ok(())
}

fn export_checkpoint(args: &ExportArgs) -> Result<()> {
    let (layout, state) = Checkpoint::load(&args.checkpoint)?;
    if let Some(wanted) = args.preset.filter(|p| *p != state.config.preset) {
        return Err(Error::data(format!(
            "checkpoint {}: holds preset {}, --preset asks for {}",
            args.checkpoint.display(),
            state.config.preset.name(),
            wanted.name()
        )));
    }
    let made = export::export(&layout, &state, &args.name, &args.revision)?;
    write_atomic(&args.out, &made.bytes, "model")?;
    println!("{}", export::summary(&args.out, &made));
    if !args.no_check {
        println!("{}", export::check(&layout, &state, &made, &args.out)?);
    }
    Ok(())
}

fn simulate_pairs(args: &SimulateArgs) -> Result<()> {
    let config = simulate::Config::preset(args.preset).with_size(args.size);
    let made = simulate::export(&config, args.seed, args.n, &args.out)?;
    println!("{} pairs ({} without a defect): {}", made.pairs, made.clean, made.manifest.display());
    println!("contact sheet: {}", made.sheet.display());
    Ok(())
}

fn ablate_variants(args: &AblateArgs) -> Result<()> {
    let mut config = match &args.config {
        Some(path) => TrainConfig::load(path)?,
        None => TrainConfig::default(),
    };
    if let Some(v) = args.preset {
        config.preset = v;
    }
    if let Some(v) = args.steps {
        config.steps = v;
    }
    let command = std::env::args().skip(1).fold("ssds-train".to_string(), |c, a| format!("{c} {a}"));
    let plan = Plan {
        config,
        seeds: args.seeds.clone(),
        folder: args.out.clone(),
        report: args.report.clone(),
        benches: args.benches.clone(),
        simulation_threads: args.simulation_threads,
        command,
    };
    let stop = stop_on_signal()?;
    ablate::ablate(&plan, &stop)
}

fn score_pairs(checkpoint: &Path, pairs: &Path, min_area: usize) -> Result<()> {
    let (layout, state) = Checkpoint::load(checkpoint)?;
    let made = export::export(&layout, &state, "score", "unknown")?;
    let mut engine = Engine::new(&layout, state.config.device)?;
    let marker = Marker { layout: &layout, params: &state.average, stats: &made.stats, calibration: made.calibration };
    let report = marker.report(&mut engine, pairs, min_area)?;
    let text = serde_json::to_string_pretty(&report).map_err(|e| Error::internal(format!("report as JSON: {e}")))?;
    println!("{text}");
    Ok(())
}

fn measure_speed(
    config: Option<&Path>,
    (preset, device): (Option<Preset>, Option<DeviceKind>),
    (steps, pairs, simulation_threads): (usize, u64, usize),
    json: bool,
) -> Result<()> {
    let mut config = config.map(TrainConfig::load).transpose()?.unwrap_or_default();
    config.preset = preset.unwrap_or(config.preset);
    config.device = device.unwrap_or(config.device);
    let speed = measure(&config, steps, pairs, simulation_threads)?;
    if json {
        let text = serde_json::to_string(&speed).map_err(|e| Error::internal(format!("speed as JSON: {e}")))?;
        println!("{text}");
    } else {
        println!("{speed}");
    }
    Ok(())
}

fn inspect(path: &Path) -> Result<()> {
    let (layout, state) = Checkpoint::load(path)?;
    println!("checkpoint   {}", path.display());
    println!("preset       {} ({} values)", state.config.preset.name(), layout.param_count);
    println!("seed         {}", state.config.seed);
    if let Some(init) = &state.config.init {
        println!("started from {}", describe(init));
    }
    println!("step         {} of {}", state.step, state.config.steps);
    println!("time         {:.1} min", state.elapsed_secs / 60.0);
    println!("multiple     {} px", layout.multiple);
    match &state.scores {
        Some(s) => println!("held out     AP {:.2}  MaxF1 {:.2}  F1 at 0.5 {:.2}", s.ap, s.max_f1, s.f1_at_half),
        None => println!("held out     not validated yet"),
    }
    println!("\n{}", state.config.to_toml()?);
    Ok(())
}
