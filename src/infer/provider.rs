//! Execution providers: what computes the network, and how a session is built on it.
//!
//! A provider's `is_available()` says only that the library was compiled with it, and ONNX Runtime falls back to the CPU without a word. Here
//! every provider is registered with `error_on_failure`, the CPU is forbidden to take over nodes of a GPU session unless that is reported
//! ([`Built::partly_on_cpu`]), and a failed attempt is an error with the library's own words.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ort::ep;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::error::{Error, Result};

use super::Settings;
use super::library::{Library, reason};

/// What computes the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA with cuDNN.
    Cuda,
    /// The processor.
    Cpu,
}

impl Provider {
    /// All, fastest first.
    pub const ALL: [Provider; 3] = [Provider::TensorRt, Provider::Cuda, Provider::Cpu];

    /// The name in settings and results.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Provider::TensorRt => "tensorrt",
            Provider::Cuda => "cuda",
            Provider::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|p| p.as_str() == text);
        known.ok_or_else(|| Error::config(format!("`{text}` is no execution provider, wanted tensorrt, cuda or cpu")))
    }
}

/// Number format in which the network is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floating point (with CUDA's `tf32` setting: 19 bits in the products).
    Fp32,
    /// 16-bit floating point where TensorRT finds it faster.
    Fp16,
    /// 8-bit integers where TensorRT finds them faster; needs a calibration table.
    Int8,
}

impl Precision {
    /// The name in results.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The precision that `provider` gets by these settings.
#[must_use]
pub fn precision(provider: Provider, settings: &Settings) -> Precision {
    match provider {
        Provider::TensorRt if settings.int8_calibration.is_some() => Precision::Int8,
        Provider::TensorRt if settings.fp16 => Precision::Fp16,
        _ => Precision::Fp32,
    }
}

/// A session and what must be said about it.
#[derive(Debug)]
pub struct Built {
    /// The session.
    pub session: Session,
    /// Some nodes of a GPU session run on the processor.
    pub partly_on_cpu: bool,
}

/// Largest shape `[batch, 2, height, width]` that a session will get; TensorRT optimises for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Pictures at once.
    pub batch: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
    /// Least side, pixels.
    pub multiple: usize,
}

/// Builds a session of the model in `bytes` on `provider`.
///
/// # Errors
/// [`crate::Kind::Unavailable`] when the provider cannot be used, [`crate::Kind::Data`] when the CPU refuses the model.
pub fn build(
    library: &Library,
    bytes: &[u8],
    settings: &Settings,
    provider: Provider,
    profile: &Profile,
    engines: Option<&Path>,
) -> Result<Built> {
    let commit = |allow_cpu: bool| -> Result<Session, ort::Error> {
        let builder = builder(library, settings)?;
        let mut builder = match provider {
            Provider::Cpu => builder,
            _ if allow_cpu => builder,
            _ => builder.with_disable_cpu_fallback()?,
        }
        .with_execution_providers(dispatches(library, settings, provider, profile, engines))?;
        builder.commit_from_memory(bytes)
    };
    let fault = |error: ort::Error| {
        log::debug!("provider {provider}: {}", error.message().trim());
        let error = format!("provider {provider}: {}", reason(error.message()));
        if provider == Provider::Cpu { Error::data(error) } else { Error::unavailable(error) }
    };
    match commit(false) {
        Ok(session) => Ok(Built { session, partly_on_cpu: false }),
        Err(error)
            if provider != Provider::Cpu && error.message().contains("fallback to CPU EP has been explicitly disabled") =>
        {
            let session = commit(true).map_err(fault)?;
            log::warn!("provider {provider}: some nodes of the model run on the processor");
            Ok(Built { session, partly_on_cpu: true })
        }
        Err(error) => Err(fault(error)),
    }
}

/// Whether `provider` can be registered at all; builds nothing.
///
/// # Errors
/// As [`build`].
pub fn probe(library: &Library, settings: &Settings, provider: Provider, profile: &Profile) -> Result<()> {
    let registered = builder(library, settings)
        .and_then(|b| Ok(b.with_execution_providers(dispatches(library, settings, provider, profile, None))?));
    registered.map(drop).map_err(|error| Error::unavailable(format!("provider {provider}: {}", reason(error.message()))))
}

fn builder(library: &Library, settings: &Settings) -> Result<SessionBuilder, ort::Error> {
    let threads = settings.thread_count();
    let mut builder = Session::builder(library.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(settings.spinning)?
        .with_inter_op_spinning(settings.spinning)?;
    if let Some(affinities) = affinities(&settings.cpus, threads) {
        builder = builder.with_config_entry("session.intra_op_thread_affinities", affinities)?;
    }
    Ok(builder)
}

/// ONNX Runtime's affinity string: a processor, counted from 1, for every thread of the pool; the calling thread is not one of them.
fn affinities(cpus: &[usize], threads: usize) -> Option<String> {
    if cpus.is_empty() || threads < 2 {
        return None;
    }
    let pool = (1..threads).map(|i| (cpus[i % cpus.len()] + 1).to_string());
    Some(pool.collect::<Vec<_>>().join(";"))
}

fn dispatches(
    library: &Library,
    settings: &Settings,
    provider: Provider,
    profile: &Profile,
    engines: Option<&Path>,
) -> Vec<ep::ExecutionProviderDispatch> {
    if provider != Provider::Cpu {
        library.load_companions();
    }
    let cuda = || ep::CUDA::default().with_device_id(settings.device).with_tf32(settings.tf32).build().error_on_failure();
    match provider {
        Provider::Cpu => Vec::new(),
        Provider::Cuda => vec![cuda()],
        Provider::TensorRt => {
            let shape = |n: usize, h: usize, w: usize| format!("{}:{n}x2x{h}x{w}", super::contract::INPUT);
            let largest = shape(profile.batch, profile.height, profile.width);
            let mut options = ep::TensorRT::default()
                .with_device_id(settings.device)
                .with_max_workspace_size(settings.workspace_mib << 20)
                .with_fp16(precision(provider, settings) != Precision::Fp32)
                .with_profile_min_shapes(shape(1, profile.multiple, profile.multiple))
                .with_profile_opt_shapes(&largest)
                .with_profile_max_shapes(&largest);
            if let Some(table) = &settings.int8_calibration {
                options = options
                    .with_int8(true)
                    .with_int8_calibration_table_name(table.display())
                    .with_int8_use_native_calibration_table(true);
            }
            if let Some(folder) = engines {
                options = options
                    .with_engine_cache(true)
                    .with_engine_cache_path(folder.display())
                    .with_timing_cache(true)
                    .with_timing_cache_path(folder.display());
            }
            // What TensorRT leaves goes to CUDA.
            vec![options.build().error_on_failure(), cuda()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_round_and_others_are_refused() {
        for provider in Provider::ALL {
            assert_eq!(provider.as_str().parse::<Provider>().unwrap(), provider);
        }
        let error = "gpu".parse::<Provider>().unwrap_err();
        assert_eq!(error.to_string(), "`gpu` is no execution provider, wanted tensorrt, cuda or cpu");
    }

    #[test]
    fn affinities_name_the_pools_threads_only() {
        assert_eq!(affinities(&[], 4), None);
        assert_eq!(affinities(&[0], 1), None);
        assert_eq!(affinities(&[2, 3], 4).unwrap(), "4;3;4");
    }

    #[test]
    fn precision_follows_provider_and_settings() {
        let settings = Settings { fp16: true, ..Settings::default() };
        assert_eq!(precision(Provider::TensorRt, &settings), Precision::Fp16);
        assert_eq!(precision(Provider::Cuda, &settings), Precision::Fp32);
        let settings = Settings { int8_calibration: Some("t".into()), ..settings };
        assert_eq!(precision(Provider::TensorRt, &settings), Precision::Int8);
    }
}
