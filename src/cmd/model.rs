//! `ssds model`: what a model file is, whether this machine computes it rightly, and its TensorRT engine ahead of the first start.
//!
//! `info` reads the file only; `verify` loads it as the daemon does (library, contract, sum, signature, provider, golden vector, warm-up);
//! `doctor` says what is not as the settings ask; `build` makes the TensorRT engine. With `--config` they take every setting from the daemon's configuration, so that the engine is the
//! one the daemon looks for. Exit codes: 0 good; 1 loaded, but without a golden vector to verify by, or not on the first provider;
//! refusals exit with their kind's code.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use serde_json::json;

use crate::config::{self, Config};
use crate::error::Result;
use crate::infer::model::ModelFile;
use crate::infer::{self, Detector, ModelInfo, Parity, Progress, Provider, doctor, signature};

/// What to do with which model.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print what the file says about itself; needs no ONNX Runtime.
    Info {
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Load it as the daemon does and compare it with its golden vector.
    Verify {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        runtime: RuntimeArgs,
        /// Take model and settings from the daemon's configuration file instead.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Look at library, GPU, providers, model and engine, and say what is not as the settings ask.
    Doctor {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        runtime: RuntimeArgs,
        /// Take model and settings from the daemon's configuration file instead.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Build the TensorRT engine ahead.
    Build {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        runtime: RuntimeArgs,
        /// Take model and settings from the daemon's configuration file instead.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Folder of built engines.
        #[arg(long, default_value = "/var/cache/ssds/engines")]
        engines: PathBuf,
        /// Build also when there is a good one.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ModelArgs {
    /// The network.
    #[arg(long, default_value = "models/ssds.onnx")]
    model: PathBuf,
    /// SHA-256 the file must have.
    #[arg(long)]
    sha256: Option<String>,
    /// Ed25519 public key (64 hexadecimal digits or a PEM file) that may have signed it; may be given more than once.
    #[arg(long = "trusted-key")]
    trusted_keys: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How the network is run; shared by the verbs that run it without a configuration.
#[derive(Debug, Clone, clap::Args)]
pub struct RuntimeArgs {
    /// libonnxruntime.so or its folder; searched in ORT_DYLIB_PATH, beside the program, /usr/lib/ssds and the system when left out.
    #[arg(long)]
    pub library: Option<PathBuf>,
    /// Execution providers (tensorrt, cuda, cpu), tried in this order.
    #[arg(long, value_delimiter = ',', default_value = "tensorrt,cuda,cpu")]
    pub providers: Vec<String>,
    /// Refuse any provider but the first.
    #[arg(long)]
    pub required: bool,
    /// Keep TensorRT at 32 bits.
    #[arg(long)]
    pub fp32: bool,
    /// CPU threads; 0 = one a core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Let idle CPU threads spin for work.
    #[arg(long)]
    pub spinning: bool,
    /// Largest side of a tile, pixels.
    #[arg(long, default_value_t = infer::Settings::default().tile_px)]
    pub tile_px: usize,
    /// Least overlap of tiles, pixels.
    #[arg(long, default_value_t = infer::Settings::default().overlap_px)]
    pub overlap_px: usize,
    /// Tiles computed at once.
    #[arg(long, default_value_t = infer::Settings::default().batch)]
    pub batch: usize,
}

impl RuntimeArgs {
    /// The detector's settings for `model`.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] for an unknown provider.
    pub fn settings(&self, model: PathBuf) -> Result<infer::Settings> {
        Ok(infer::Settings {
            model,
            library: self.library.clone(),
            providers: self.providers.iter().map(|p| p.parse::<Provider>()).collect::<Result<_>>()?,
            required: self.required,
            fp16: !self.fp32,
            threads: self.threads,
            spinning: self.spinning,
            tile_px: self.tile_px,
            overlap_px: self.overlap_px,
            batch: self.batch,
            ..infer::Settings::default()
        })
    }
}

impl ModelArgs {
    fn apply(&self, settings: infer::Settings) -> infer::Settings {
        infer::Settings { sha256: self.sha256.clone(), trusted_keys: self.trusted_keys.clone(), ..settings }
    }
}

/// Does it.
///
/// # Errors
/// A model that is refused, a library or provider that cannot be used, an engine folder that cannot be written.
pub fn run(args: Args) -> Result<u8> {
    match args.what {
        What::Info { model } => info(&model),
        What::Verify { model, runtime, config } => {
            let settings = match &config {
                Some(path) => settings_of(&config::load(path)?)?,
                None => model.apply(runtime.settings(model.model.clone())?),
            };
            verify(model.json, &settings)
        }
        What::Doctor { model, runtime, config } => {
            let settings = match &config {
                Some(path) => settings_of(&config::load(path)?)?,
                None => model.apply(runtime.settings(model.model.clone())?),
            };
            Ok(show(&doctor::examine(&settings), model.json))
        }
        What::Build { model, runtime, config, engines, force } => {
            let settings = match &config {
                Some(path) => settings_of(&config::load(path)?)?,
                None => infer::Settings { engines, ..model.apply(runtime.settings(model.model.clone())?) },
            };
            build(model.json, &settings, force)
        }
    }
}

fn info(args: &ModelArgs) -> Result<u8> {
    let settings = args.apply(infer::Settings { model: args.model.clone(), ..infer::Settings::default() });
    let file = ModelFile::read(&settings)?;
    let (contract, structure) = (&file.contract, &file.structure);
    if args.json {
        let answer = json!({
            "path": file.path, "sha256": file.sha256, "manifest": file.manifest, "signed_by": file.signed_by,
            "bytes": file.bytes.len(), "producer": structure.producer, "opset": structure.opset, "nodes": structure.nodes,
            "parameters": structure.parameters, "metadata": structure.metadata, "golden": contract.golden.is_some(),
        });
        println!("{answer}");
        return Ok(0);
    }
    println!("model      {} {} (preset {})", contract.name, contract.version, contract.preset);
    println!("file       {} ({} bytes)", file.path.display(), file.bytes.len());
    println!("sha256     {}{}", file.sha256, file.manifest.as_ref().map_or(String::new(), |m| format!(" as in {}", m.display())));
    println!("signed by  {}", file.signed_by.as_deref().unwrap_or("not asked for"));
    println!(
        "producer   {}, opset {}, {} nodes, {} parameters",
        structure.producer, structure.opset, structure.nodes, structure.parameters
    );
    println!("trained    seed {}, {} steps, revision {}", contract.seed, contract.steps, contract.revision);
    println!("threshold  {}", contract.threshold);
    println!("scores     {}", contract.scores);
    match (contract.fixed_batch, contract.fixed_size) {
        (None, None) => println!("size       any multiple of {}", contract.multiple),
        (batch, size) => println!("size       fixed: batch {batch:?}, (height, width) {size:?}"),
    }
    println!(
        "golden     {}",
        contract.golden.as_ref().map_or("none".into(), |g| format!("{} scores of {}x{}", g.scores.len(), g.width, g.height))
    );
    Ok(0)
}

/// The detector's settings by the configuration `[inference]`.
///
/// # Errors
/// [`crate::Kind::Config`] naming each key, value and range.
pub fn settings_of(config: &Config) -> Result<infer::Settings> {
    let key = |text: String| {
        if signature::is_inline_key(&text) {
            text
        } else {
            config.beside("inference.trusted_keys", &text).to_string_lossy().into_owned()
        }
    };
    let size = config.has("camera.width") && config.has("camera.height");
    let settings = infer::Settings {
        model: config.path("inference.model"),
        library: config.path_opt("inference.library"),
        providers: config.texts("inference.providers").iter().map(|p| p.parse()).collect::<Result<_>>()?,
        required: config.bool("inference.required"),
        device: i32::try_from(config.i64("inference.device")).unwrap_or_default(),
        fp16: config.bool("inference.fp16"),
        int8_calibration: config.path_opt("inference.int8_calibration"),
        tf32: config.bool("inference.tf32"),
        workspace_mib: config.usize("inference.workspace_mib"),
        engines: config.path("paths.cache_dir").join("engines"),
        threads: config.usize("inference.threads"),
        spinning: config.bool("inference.spinning"),
        cpus: config.usizes("inference.cpus"),
        tile_px: config.usize("inference.tile_px"),
        overlap_px: config.usize("inference.overlap_px"),
        batch: config.usize("inference.batch"),
        warm_up_px: size.then(|| (config.usize("camera.width"), config.usize("camera.height"))),
        sha256: config.text_opt("inference.sha256"),
        trusted_keys: config.texts("inference.trusted_keys").into_iter().map(key).collect(),
        require_parity: config.bool("inference.require_parity"),
        tolerance: config.f64("inference.tolerance") as f32,
        tolerance_reduced: config.f64("inference.tolerance_reduced") as f32,
        reload_after: u32::try_from(config.i64("inference.reload_after")).unwrap_or_default(),
    };
    settings.check()?;
    Ok(settings)
}

/// What `ssds doctor` says about library, providers, model and engine of a configuration.
///
/// # Errors
/// [`crate::Kind::Config`] for settings out of range.
pub fn examine(config: &Config) -> Result<Vec<doctor::Finding>> {
    settings_of(config).map(|settings| doctor::examine(&settings))
}

fn show(findings: &[doctor::Finding], json: bool) -> u8 {
    let good = findings.iter().all(|f| f.good);
    if json {
        let list: Vec<_> = findings.iter().map(|f| json!({ "what": f.what, "ok": f.good, "text": f.text })).collect();
        println!("{}", json!({ "ok": good, "findings": list }));
    } else {
        for f in findings {
            println!("{:<5} {:<18} {}", if f.good { "ok" } else { "FAULT" }, f.what, f.text);
        }
    }
    u8::from(!good)
}

fn verify(json: bool, settings: &infer::Settings) -> Result<u8> {
    let detector = Detector::open_with(settings, &tell)?;
    let info = detector.info();
    let good = info.parity != Parity::Unverified && info.fallbacks.is_empty();
    if json {
        println!("{}", info_json(info));
    } else {
        println!("model     {} {}, sha256 {}", info.name, info.version, info.sha256);
        println!("runtime   ONNX Runtime {} from {}", info.runtime_version, info.runtime_path.display());
        println!("provider  {} ({}, {} threads)", info.provider, info.precision, info.threads);
        for (provider, reason) in &info.fallbacks {
            println!("          not {provider}: {reason}");
        }
        println!("parity    {}", info.parity);
    }
    Ok(u8::from(!good))
}

/// What is in force, for `--json` answers.
#[must_use]
pub fn info_json(info: &ModelInfo) -> serde_json::Value {
    let (parity, max_abs, tolerance) = match info.parity {
        Parity::Golden { max_abs, tolerance } => ("golden", Some(max_abs), Some(tolerance)),
        Parity::Processor { max_abs, tolerance } => ("processor", Some(max_abs), Some(tolerance)),
        Parity::Unverified => ("unverified", None, None),
    };
    let fallbacks: Vec<_> =
        info.fallbacks.iter().map(|(p, reason)| json!({ "provider": p.as_str(), "reason": reason })).collect();
    json!({
        "model": info.name, "name": info.name, "version": info.version, "sha256": info.sha256, "runtime_version": info.runtime_version,
        "runtime_path": info.runtime_path, "provider": info.provider, "precision": info.precision, "threads": info.threads,
        "partly_on_cpu": info.partly_on_cpu, "fallbacks": fallbacks,
        "parity": { "state": parity, "max_abs": max_abs, "tolerance": tolerance },
    })
}

fn build(json: bool, settings: &infer::Settings, force: bool) -> Result<u8> {
    let report = infer::build_engine(settings, force, &tell)?;
    let state = if report.built { "built" } else { "fresh" };
    if json {
        println!("{}", json!({ "engine": report.path, "state": state, "seconds": report.seconds, "bytes": report.bytes }));
    } else {
        println!("engine {} {state}: {} bytes in {:.1} s", report.path.display(), report.bytes, report.seconds);
    }
    Ok(0)
}

/// Progress for a person; a pipe gets only the answer.
fn tell(progress: Progress) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    match progress {
        Progress::Engine(_) => eprint!("\r{progress} "),
        _ => eprintln!("{progress}"),
    }
}
