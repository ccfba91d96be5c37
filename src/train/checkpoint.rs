//! Checkpoints: everything a training needs to go on as if it had never stopped.
//!
//! Format, all little-endian: the magic `SSDSCKP1`, the length of a JSON header (u64), the header (configuration, step, scores, lengths of
//! the arrays in order), the arrays as f32, and the SHA-256 of all that precedes it. A file is written beside its place, synced and
//! renamed, and the one it replaces is kept as `*.previous`: a full disk or a power cut never costs the last good one.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::train::config::TrainConfig;
use crate::train::optim::AdamW;
use crate::train::spec::Layout;
use crate::train::validate::Scores;

const MAGIC: &[u8; 8] = b"SSDSCKP1";
const HASH_BYTES: usize = 32;
/// Best score before the first validation; JSON has no infinity.
const NO_SCORE: f64 = -1e30;

/// What is not an array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: TrainConfig,
    step: u64,
    stage: usize,
    stage_first_step: u64,
    elapsed_secs: f64,
    best_score: f64,
    validations_since_best: u64,
    optimizer_steps: u64,
    scores: Option<Scores>,
    arrays: Vec<usize>,
}

/// The state of a training after `step` steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The settings it runs with.
    pub config: TrainConfig,
    /// Steps taken.
    pub step: u64,
    /// Stage in force.
    pub stage: usize,
    /// Step at which that stage began.
    pub stage_first_step: u64,
    /// Training time so far, s.
    pub elapsed_secs: f64,
    /// Best validation score so far.
    pub best_score: f64,
    /// Validations since then.
    pub validations_since_best: u64,
    /// Scores of the last validation.
    pub scores: Option<Scores>,
    /// Trained values.
    pub params: Vec<f32>,
    /// Running means and variances.
    pub stats: Vec<f32>,
    /// Moving average of `params`: what is validated and exported.
    pub average: Vec<f32>,
    /// Moving average of `stats`.
    pub average_stats: Vec<f32>,
    /// The optimizer.
    pub optimizer: AdamW,
}

impl Checkpoint {
    /// The start of a training.
    ///
    /// # Errors
    /// Settings that do not pass their check.
    pub fn start(config: &TrainConfig) -> Result<(Layout, Self)> {
        config.check()?;
        let layout = config.spec().layout()?;
        let params = layout.initial(config.seed, -3.0);
        let stats = layout.initial_stats();
        let state = Self {
            config: config.clone(),
            step: 0,
            stage: 0,
            stage_first_step: 0,
            elapsed_secs: 0.0,
            best_score: NO_SCORE,
            validations_since_best: 0,
            scores: None,
            average: params.clone(),
            average_stats: stats.clone(),
            optimizer: AdamW::new(&layout),
            params,
            stats,
        };
        Ok((layout, state))
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// None that is known: the header has a JSON form.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let arrays = [&self.params, &self.stats, &self.average, &self.average_stats, &self.optimizer.m, &self.optimizer.v];
        let header = Header {
            config: self.config.clone(),
            step: self.step,
            stage: self.stage,
            stage_first_step: self.stage_first_step,
            elapsed_secs: self.elapsed_secs,
            // JSON knows no infinity
            best_score: self.best_score.max(NO_SCORE),
            validations_since_best: self.validations_since_best,
            optimizer_steps: self.optimizer.steps,
            scores: self.scores.clone(),
            arrays: arrays.iter().map(|a| a.len()).collect(),
        };
        let header = serde_json::to_vec(&header).map_err(|e| Error::internal(format!("checkpoint header: {e}")))?;
        let mut out = Vec::with_capacity(64 + header.len() + 4 * arrays.iter().map(|a| a.len()).sum::<usize>());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&(header.len() as u64).to_le_bytes());
        out.extend_from_slice(&header);
        for array in arrays {
            out.extend(array.iter().flat_map(|v| v.to_le_bytes()));
        }
        let hash = Sha256::digest(&out);
        out.extend_from_slice(&hash);
        Ok(out)
    }

    /// Writes the checkpoint so that a good one survives whatever happens.
    ///
    /// # Errors
    /// [`Kind::CannotCreate`] naming the file; what was there before is untouched.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes()?;
        if path.exists() {
            let previous = previous_of(path);
            let _ = std::fs::remove_file(&previous);
            // without hard links (some network disks) only the newest is kept: the rename below is still atomic
            let _ = std::fs::hard_link(path, &previous);
        }
        write_atomic(path, &bytes, "checkpoint")
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// A file that is missing, empty, cut short, changed, or not of this program's form; the message says which, and names the previous
    /// checkpoint when there is one.
    pub fn load(path: &Path) -> Result<(Layout, Self)> {
        let what = format!("checkpoint {}", path.display());
        let bytes = std::fs::read(path).map_err(|e| Error::io(&what, e))?;
        Self::from_bytes(&bytes).map_err(|e| {
            let previous = previous_of(path);
            let hint = if previous.exists() { format!("; the one before it is {}", previous.display()) } else { String::new() };
            Error::new(e.kind(), format!("{what}: {}{hint}", e.message()))
        })
    }

    /// The inverse of [`Checkpoint::to_bytes`].
    ///
    /// # Errors
    /// See [`Checkpoint::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<(Layout, Self)> {
        if bytes.is_empty() {
            return Err(Error::data("the file is empty"));
        }
        if bytes.len() < 16 + HASH_BYTES || &bytes[..8] != MAGIC {
            return Err(Error::data("not a checkpoint of ssds-train (it does not begin with SSDSCKP1)"));
        }
        let (body, hash) = bytes.split_at(bytes.len() - HASH_BYTES);
        if Sha256::digest(body)[..] != *hash {
            return Err(Error::data("the checksum does not match: the file was cut short or changed"));
        }
        let mut length = [0u8; 8];
        length.copy_from_slice(&body[8..16]);
        let end = usize::try_from(u64::from_le_bytes(length)).ok().and_then(|n| n.checked_add(16)).filter(|n| *n <= body.len());
        let Some(end) = end else {
            return Err(Error::data("the header is longer than the file"));
        };
        let header: Header = serde_json::from_slice(&body[16..end])
            .map_err(|e| Error::data(format!("the header does not fit this version of ssds-train: {e}")))?;
        header.config.check()?;
        let layout = header.config.spec().layout()?;
        let (p, s) = (layout.param_count, layout.stat_count);
        let wanted = vec![p, s, p, s, p, p];
        if header.arrays != wanted || body.len() - end != 4 * wanted.iter().sum::<usize>() {
            return Err(Error::data(format!(
                "holds arrays of {:?} values, but preset {} needs {wanted:?}",
                header.arrays,
                header.config.preset.name()
            )));
        }
        let mut values = body[end..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let mut take = |n: usize| values.by_ref().take(n).collect::<Vec<f32>>();
        let (params, stats, average, average_stats) = (take(p), take(s), take(p), take(s));
        let mut optimizer = AdamW::new(&layout);
        (optimizer.m, optimizer.v, optimizer.steps) = (take(p), take(p), header.optimizer_steps);
        let state = Self {
            config: header.config,
            step: header.step,
            stage: header.stage,
            stage_first_step: header.stage_first_step,
            elapsed_secs: header.elapsed_secs,
            best_score: header.best_score,
            validations_since_best: header.validations_since_best,
            scores: header.scores,
            params,
            stats,
            average,
            average_stats,
            optimizer,
        };
        Ok((layout, state))
    }
}

/// Where the checkpoint before `path` is kept.
#[must_use]
pub fn previous_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".previous");
    PathBuf::from(name)
}

/// Writes a file beside its place, syncs it and renames it over.
///
/// # Errors
/// [`Kind::CannotCreate`] naming the file; what was there before is untouched.
pub fn write_atomic(path: &Path, bytes: &[u8], what: &str) -> Result<()> {
    let fail = |e: std::io::Error| {
        Error::new(
            Kind::CannotCreate,
            format!("{what} {}: cannot be written: {e}; the one before it is untouched", path.display()),
        )
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new();
    // temporary files are private by default; a model or checkpoint is for other users too
    #[cfg(unix)]
    file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = file.tempfile_in(folder).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Checkpoint {
        let (_, mut state) = Checkpoint::start(&TrainConfig::smoke()).unwrap();
        state.step = 7;
        state.params[3] = 0.1 + 0.2;
        state.optimizer.v[5] = f32::MIN_POSITIVE;
        state.optimizer.steps = 7;
        state.elapsed_secs = 1.25;
        state.best_score = 12.345_678_901_234;
        state
    }

    #[test]
    fn a_checkpoint_comes_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.ckpt");
        let state = state();
        state.save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap().1, state);
    }

    #[test]
    fn the_one_before_is_kept_and_named_when_the_last_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.ckpt");
        let mut state = state();
        state.save(&path).unwrap();
        state.step = 8;
        state.save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap().1.step, 8);
        assert_eq!(Checkpoint::load(&previous_of(&path)).unwrap().1.step, 7);

        let bytes = std::fs::read(&path).unwrap();
        for (broken, why) in [
            (Vec::new(), "the file is empty"),
            (b"hello".repeat(20), "not a checkpoint of ssds-train (it does not begin with SSDSCKP1)"),
            (bytes[..bytes.len() - 9].to_vec(), "the checksum does not match: the file was cut short or changed"),
            (
                bytes.iter().enumerate().map(|(i, b)| if i == 5000 { b ^ 1 } else { *b }).collect(),
                "the checksum does not match: the file was cut short or changed",
            ),
        ] {
            std::fs::write(&path, broken).unwrap();
            let error = Checkpoint::load(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Data);
            assert_eq!(
                error.message(),
                format!("checkpoint {}: {why}; the one before it is {}", path.display(), previous_of(&path).display())
            );
        }
    }

    #[test]
    fn a_missing_checkpoint_is_named() {
        let error = Checkpoint::load(Path::new("/nowhere/last.ckpt")).unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
        assert!(error.message().contains("checkpoint /nowhere/last.ckpt"), "{error}");
    }

    #[test]
    fn arrays_of_another_network_are_refused() {
        let mut state = state();
        state.params.push(0.0);
        let error = Checkpoint::from_bytes(&state.to_bytes().unwrap()).unwrap_err();
        assert!(error.message().starts_with("holds arrays of ["), "{error}");
        assert!(error.message().contains("but preset micro needs ["), "{error}");
    }

    #[test]
    fn a_folder_that_takes_no_file_is_an_error_and_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone").join("last.ckpt");
        let error = state().save(&path).unwrap_err();
        assert_eq!(error.kind(), Kind::CannotCreate);
        assert!(error.message().starts_with(&format!("checkpoint {}: cannot be written: ", path.display())), "{error}");
        assert!(error.message().ends_with("; the one before it is untouched"), "{error}");
    }
}
