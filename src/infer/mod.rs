//! Inference: the defect map of a frame and its warped template, through ONNX Runtime.
//!
//! [`Detector::open`] finds the library ([`library`]), reads and checks the model file ([`model`], [`onnx`], [`contract`]), builds a session
//! on the first provider that works ([`provider`]), compares it with the model's golden vector ([`parity`]) and warms it up;
//! [`Detector::detect`] cuts a frame into tiles ([`tile`]), runs them and blends the scores.
//!
//! Inputs: 8-bit gray pictures of one size. Output: a map of scores 0..1 of that size, 0 where the template does not cover the frame.
//! Invariants: a map is either complete and finite or an error; the provider in force, its precision and the library's version are in
//! [`ModelInfo`]; nothing falls back without an entry in [`ModelInfo::fallbacks`] and a warning. Limits: one library a process; a
//! [`Detector`] belongs to one thread at a time.

pub mod contract;
mod detector;
pub mod doctor;
pub mod engine;
pub mod library;
pub mod model;
pub mod onnx;
pub mod parity;
pub mod provider;
mod session;
pub mod signature;
mod start;
pub mod tile;

#[cfg(test)]
#[path = "../../tests/it/onnx_fixture.rs"]
mod fixture;
#[cfg(test)]
mod isolated;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;

pub use detector::{Detector, Fault, Progress};
pub use parity::Parity;
pub use provider::{Precision, Provider};
pub use start::{EngineReport, build_engine};

use crate::error::{Error, Result};

/// Settings of inference (`[inference]`), checked by [`Settings::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The ONNX file.
    pub model: PathBuf,
    /// The ONNX Runtime library, or the folder that holds it; `None` searches ([`library`]).
    pub library: Option<PathBuf>,
    /// Providers in the order they are tried.
    pub providers: Vec<Provider>,
    /// Refuse to start on any provider but the first.
    pub required: bool,
    /// Number of the GPU.
    pub device: i32,
    /// TensorRT may compute in 16 bits.
    pub fp16: bool,
    /// TensorRT may compute in 8 bits with this calibration table.
    pub int8_calibration: Option<PathBuf>,
    /// CUDA may use TensorFloat-32.
    pub tf32: bool,
    /// Memory TensorRT may use while building, MiB.
    pub workspace_mib: usize,
    /// Folder of built TensorRT engines.
    pub engines: PathBuf,
    /// Threads of one session on the processor; 0 = one a core.
    pub threads: usize,
    /// Idle threads spin for work: faster on cores of their own, wasteful on shared ones.
    pub spinning: bool,
    /// Processors (from 0) the session's helper threads are bound to; empty = any.
    pub cpus: Vec<usize>,
    /// Largest side of a tile, pixels.
    pub tile_px: usize,
    /// Least overlap of tiles, pixels.
    pub overlap_px: usize,
    /// Tiles computed at once.
    pub batch: usize,
    /// (width, height) of the warm-up run, best the camera's; `None` = one tile of at most 128 px.
    pub warm_up_px: Option<(usize, usize)>,
    /// SHA-256 that the model file must have, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// Public keys of which one must have signed the model ([`signature`]); empty = no signature is asked for.
    pub trusted_keys: Vec<String>,
    /// Refuse a model without a golden vector.
    pub require_parity: bool,
    /// Largest difference from the golden vector at 32 bits.
    pub tolerance: f32,
    /// The same for 16- and 8-bit engines and TensorFloat-32.
    pub tolerance_reduced: f32,
    /// Failures in a row after which the session is built anew; 0 = never.
    pub reload_after: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: PathBuf::from("/usr/lib/ssds/models/ssds.onnx"),
            library: None,
            providers: Provider::ALL.to_vec(),
            required: false,
            device: 0,
            fp16: true,
            int8_calibration: None,
            tf32: false,
            workspace_mib: 1024,
            engines: PathBuf::from("/var/cache/ssds/engines"),
            threads: 0,
            spinning: false,
            cpus: Vec::new(),
            tile_px: 1024,
            overlap_px: 128,
            batch: 1,
            warm_up_px: None,
            sha256: None,
            trusted_keys: Vec::new(),
            require_parity: false,
            tolerance: 1e-3,
            tolerance_reduced: 2e-2,
            reload_after: 3,
        }
    }
}

impl Settings {
    /// Checks ranges and what must agree; all faults in one message.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] naming each key, value and range.
    pub fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        let mut range = |key: &str, value: f64, low: f64, high: f64| {
            if !(low..=high).contains(&value) {
                faults.push(format!("inference.{key} must be between {low} and {high}, got {value}"));
            }
        };
        range("device", f64::from(self.device), 0.0, 63.0);
        range("workspace_mib", self.workspace_mib as f64, 16.0, 65536.0);
        range("threads", self.threads as f64, 0.0, 256.0);
        range("tile_px", self.tile_px as f64, 64.0, 8192.0);
        range("overlap_px", self.overlap_px as f64, 1.0, 4096.0);
        range("batch", self.batch as f64, 1.0, 64.0);
        range("tolerance", f64::from(self.tolerance), 1e-6, 0.1);
        range("tolerance_reduced", f64::from(self.tolerance_reduced), 1e-6, 0.5);
        range("reload_after", f64::from(self.reload_after), 0.0, 1000.0);
        if self.overlap_px * 2 >= self.tile_px {
            faults.push(format!(
                "inference.overlap_px must be less than half of inference.tile_px ({}), got {}",
                self.tile_px, self.overlap_px
            ));
        }
        if self.providers.is_empty() {
            faults.push("inference.providers is empty, wanted at least one of tensorrt, cuda, cpu".into());
        }
        if let Some(twice) = self.providers.iter().enumerate().find(|(i, p)| self.providers[..*i].contains(p)) {
            faults.push(format!("inference.providers names `{}` twice", twice.1));
        }
        if let Some(sum) = &self.sha256
            && (sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            faults.push(format!("inference.sha256 must be 64 hexadecimal digits, got `{sum}`"));
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::config(faults.join("; "))) }
    }

    /// Threads of one session: the setting, or one a core.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        if self.threads > 0 { self.threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

/// What is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// `ssds.name` of the model.
    pub name: String,
    /// `ssds.version` of the model.
    pub version: String,
    /// SHA-256 of the model file, 64 hexadecimal digits.
    pub sha256: String,
    /// `tensorrt`, `cuda` or `cpu`.
    pub provider: &'static str,
    /// `fp32`, `fp16` or `int8`.
    pub precision: &'static str,
    /// The model's own decision threshold, 0..1.
    pub threshold: f32,
    /// Version of ONNX Runtime.
    pub runtime_version: String,
    /// File of ONNX Runtime.
    pub runtime_path: PathBuf,
    /// The model file.
    pub path: PathBuf,
    /// What the file says about itself.
    pub contract: contract::Contract,
    /// How the session compares with the golden vector.
    pub parity: Parity,
    /// Providers that were tried before and failed, with the reason.
    pub fallbacks: Vec<(Provider, String)>,
    /// Some nodes of a GPU session run on the processor.
    pub partly_on_cpu: bool,
    /// Threads of the session.
    pub threads: usize,
}
