//! Starting a session: the first provider that works, its engine when it needs one, and the proof that it computes what it should.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

use super::detector::Progress;
use super::engine::{self, Key, Machine};
use super::library::{self, Library};
use super::model::ModelFile;
use super::parity::{self, Parity};
use super::provider::{self, Precision, Profile, Provider};
use super::session::Runner;
use super::{ModelInfo, Settings};

/// How often [`Progress::Engine`] is told.
const TICK: Duration = Duration::from_secs(1);

/// A report of each step.
pub(super) type Report<'a> = &'a (dyn Fn(Progress) + Sync);

/// What [`build_engine`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineReport {
    /// The engine's folder.
    pub path: PathBuf,
    /// Built now, or already there.
    pub built: bool,
    /// Time it took, s.
    pub seconds: f64,
    /// Size of its files, bytes.
    pub bytes: u64,
}

/// Builds and verifies a session on the first provider that works.
pub(super) fn start(
    settings: &Settings,
    model: &ModelFile,
    library: &Library,
    report: Report<'_>,
) -> Result<(Runner, ModelInfo)> {
    let contract = &model.contract;
    let what = format!("model {}", model.path.display());
    let profile = profile(settings, model);
    let mut fallbacks: Vec<(Provider, String)> = Vec::new();
    for &provider in &settings.providers {
        report(Progress::Building(provider));
        let built = match build(settings, model, library, provider, &profile, report) {
            Ok(built) => built,
            // The processor refuses the model itself, not the provider.
            Err(error) if provider == Provider::Cpu => return Err(error.context(&what)),
            Err(error) if settings.required => {
                return Err(error
                    .context(&what)
                    .context("inference.required is true and the first provider cannot be used")
                    .with_kind(Kind::Unavailable));
            }
            Err(error) => {
                log::warn!("{error}; trying the next provider");
                fallbacks.push((provider, error.message().to_owned()));
                continue;
            }
        };
        let mut runner = Runner::new(built.session).map_err(|e| e.context(&what))?;
        report(Progress::Verifying);
        let precision = provider::precision(provider, settings);
        let parity = verify(settings, model, library, provider, precision, &profile, &mut runner)
            .map_err(|e| e.context(format!("{what} on provider {provider} ({precision})")).with_kind(Kind::Data))?;
        let info = ModelInfo {
            name: contract.name.clone(),
            version: contract.version.clone(),
            sha256: model.sha256.clone(),
            provider: provider.as_str(),
            precision: precision.as_str(),
            threshold: contract.threshold,
            runtime_version: library.version.clone(),
            runtime_path: library.path.clone(),
            path: model.path.clone(),
            contract: contract.clone(),
            parity,
            fallbacks,
            partly_on_cpu: built.partly_on_cpu,
            threads: settings.thread_count(),
        };
        return Ok((runner, info));
    }
    let reasons = fallbacks.iter().map(|(_, reason)| format!("\n  {reason}")).collect::<String>();
    Err(Error::unavailable(format!("{what}: none of inference.providers can be used:{reasons}")))
}

/// Builds the TensorRT engine of `settings` ahead of the first start; `force` also when there is a good one.
///
/// # Errors
/// [`Kind::Unavailable`] without TensorRT, [`Kind::CannotCreate`] when the engine folder cannot be written, and what reading the model
/// answers.
pub fn build_engine(settings: &Settings, force: bool, report: &(dyn Fn(Progress) + Sync)) -> Result<EngineReport> {
    settings.check()?;
    report(Progress::Loading);
    let model = ModelFile::read(settings)?;
    let library = library::load(settings.library.as_deref())?;
    let begun = Instant::now();
    let (path, built) = engine_for(settings, &model, &library, &profile(settings, &model), force, report)?;
    let size = |entry: std::io::Result<std::fs::DirEntry>| entry.and_then(|e| e.metadata()).map_or(0, |m| m.len());
    let bytes = std::fs::read_dir(&path).map_err(|e| Error::io(format!("engine {}", path.display()), e))?.map(size).sum();
    Ok(EngineReport { path, built, seconds: begun.elapsed().as_secs_f64(), bytes })
}

/// The largest shape that a session will get.
pub(super) fn profile(settings: &Settings, model: &ModelFile) -> Profile {
    let contract = &model.contract;
    let tile = (settings.tile_px / contract.multiple).max(1) * contract.multiple;
    let (height, width) = contract.fixed_size.unwrap_or((tile, tile));
    Profile { batch: contract.fixed_batch.unwrap_or(settings.batch), height, width, multiple: contract.multiple }
}

fn build(
    settings: &Settings,
    model: &ModelFile,
    library: &Library,
    provider: Provider,
    profile: &Profile,
    report: Report<'_>,
) -> Result<provider::Built> {
    let engines = match provider {
        Provider::TensorRt => Some(engine_for(settings, model, library, profile, false, report)?.0),
        Provider::Cuda | Provider::Cpu => None,
    };
    provider::build(library, &model.bytes, settings, provider, profile, engines.as_deref())
}

fn engine_for(
    settings: &Settings,
    model: &ModelFile,
    library: &Library,
    profile: &Profile,
    force: bool,
    report: Report<'_>,
) -> Result<(PathBuf, bool)> {
    // A library without TensorRT says so before any folder is made.
    provider::probe(library, settings, Provider::TensorRt, profile)?;
    let key = Key::new(&model.sha256, &library.version, &Machine::detect(), settings, profile)?;
    let build = |folder: &Path| {
        log::info!("building a TensorRT engine for model {}; this takes minutes", model.path.display());
        ticking(report, || {
            let built = provider::build(library, &model.bytes, settings, Provider::TensorRt, profile, Some(folder))?;
            // Some engines are built only when the first picture comes.
            let mut runner = Runner::new(built.session)?;
            runner.run([profile.batch, profile.height, profile.width], |input| input.fill(0.5), |_| ())
        })
    };
    if force {
        engine::rebuild(&settings.engines, &key, build).map(|path| (path, true))
    } else {
        engine::ensure(&settings.engines, &key, build)
    }
}

/// Runs `work` while another thread tells about once a second how long it has taken.
fn ticking<R>(report: Report<'_>, work: impl FnOnce() -> R) -> R {
    let begun = Instant::now();
    let (done, wait) = crossbeam_channel::bounded::<()>(0);
    std::thread::scope(|scope| {
        let ticker = std::thread::Builder::new().name("ssds-engine".into()).spawn_scoped(scope, move || {
            // Ends when `done` is dropped.
            while wait.recv_timeout(TICK) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                report(Progress::Engine(begun.elapsed().as_secs()));
            }
        });
        if let Err(error) = ticker {
            log::warn!("no thread to report the engine's progress: {error}");
        }
        let result = work();
        drop(done);
        result
    })
}

fn verify(
    settings: &Settings,
    model: &ModelFile,
    library: &Library,
    provider: Provider,
    precision: Precision,
    profile: &Profile,
    runner: &mut Runner,
) -> Result<Parity> {
    let contract = &model.contract;
    let batch = contract.fixed_batch.unwrap_or(1);
    let reduced = precision != Precision::Fp32 || (provider == Provider::Cuda && settings.tf32);
    let tolerance = if reduced { settings.tolerance_reduced } else { settings.tolerance };
    if let Some(golden) = &contract.golden {
        return parity::against_golden(runner, golden, batch, tolerance);
    }
    if settings.require_parity {
        return Err(Error::data("has no golden vector (ssds.golden.*), which inference.require_parity asks for"));
    }
    log::warn!("model {} has no golden vector; the trained result itself cannot be verified", model.path.display());
    if provider == Provider::Cpu {
        return Ok(Parity::Unverified);
    }
    let reference = provider::build(library, &model.bytes, settings, Provider::Cpu, profile, None)?;
    parity::against_processor(runner, &mut Runner::new(reference.session)?, contract.fixed_size, batch, tolerance)
}
