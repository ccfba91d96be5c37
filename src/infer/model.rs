//! Reads a model file: its bytes, its SHA-256, what its manifest says, its structure and its contract.
//!
//! The file is read once; what is hashed and checked is what ONNX Runtime gets, so nobody can exchange it in between. The sum must equal the
//! setting `inference.sha256` when that is set, and the line of a manifest beside the model when there is one: `MODEL.sha256` or
//! `SHA256SUMS`, both as `sha256sum` writes them. With `inference.trusted_keys` it must also be signed ([`super::signature`]).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};

use super::Settings;
use super::contract::Contract;
use super::onnx::{self, Structure};
use super::signature;

/// A model file that passed every check that needs no ONNX Runtime.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Arc<[u8]>,
    /// Its SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    /// The manifest that confirmed the sum, when there is one.
    pub manifest: Option<PathBuf>,
    /// The trusted key that signed it, when signatures are asked for.
    pub signed_by: Option<String>,
    /// What it holds.
    pub structure: Structure,
    /// What it says about itself.
    pub contract: Contract,
}

impl ModelFile {
    /// Reads and checks `settings.model`.
    ///
    /// # Errors
    /// [`Kind::Missing`], [`Kind::Permission`] or [`Kind::Io`] when it cannot be read; [`Kind::Data`] when a sum, the structure or the contract
    /// does not fit. Every message names the file.
    pub fn read(settings: &Settings) -> Result<Self> {
        let path = settings.model.clone();
        let what = format!("model {}", path.display());
        let length = std::fs::metadata(&path).map_err(|e| Error::io(&what, e))?;
        if !length.is_file() {
            return Err(Error::new(Kind::Missing, format!("{what}: is no file")));
        }
        if length.len() > onnx::MAX_BYTES as u64 {
            return Err(Error::data(format!("{what}: the file has {} bytes, wanted at most {}", length.len(), onnx::MAX_BYTES)));
        }
        let bytes: Arc<[u8]> = std::fs::read(&path).map_err(|e| Error::io(&what, e))?.into();
        let sha256 = hex(&Sha256::digest(&bytes));
        if let Some(wanted) = &settings.sha256
            && !wanted.eq_ignore_ascii_case(&sha256)
        {
            return Err(Error::data(format!("{what}: sha256 is {sha256}, inference.sha256 wants {wanted}")));
        }
        let manifest = check_manifest(&path, &sha256).map_err(|e| e.context(&what))?;
        let signed_by = signature::check(&path, &bytes, &settings.trusted_keys).map_err(|e| e.context(&what))?;
        let structure = onnx::read(&bytes).map_err(|e| e.context(&what))?;
        let contract = Contract::of(&structure).map_err(|e| e.context(&what))?;
        Ok(Self { path, bytes, sha256, manifest, signed_by, structure, contract })
    }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Finds the manifest and compares; `None` when there is none that names the model.
fn check_manifest(model: &Path, sha256: &str) -> Result<Option<PathBuf>> {
    let name = model.file_name().unwrap_or_default();
    let mut own = name.to_os_string();
    own.push(".sha256");
    for file in [model.with_file_name(own), model.with_file_name("SHA256SUMS")] {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io(format!("manifest {}", file.display()), e)),
        };
        // `<sum>  <name>` or `<sum> *<name>`.
        let line = text.lines().filter_map(|line| line.split_once(' ')).find(|(_, n)| Some(n[1..].trim_end()) == name.to_str());
        match line {
            Some((sum, _)) if sum.eq_ignore_ascii_case(sha256) => return Ok(Some(file)),
            Some((sum, _)) => {
                return Err(Error::data(format!("sha256 is {sha256}, manifest {} wants {sum}", file.display())));
            }
            None if file.file_name() != Some("SHA256SUMS".as_ref()) => {
                return Err(Error::data(format!("manifest {} has no line for {}", file.display(), name.display())));
            }
            None => {}
        }
    }
    Ok(None)
}
