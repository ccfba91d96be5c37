//! Overlay pictures: what a person looks at to understand one verdict.
//!
//! [`OverlayWriter`] writes them behind the record stage as `<folder>/<event id>.png`, removing the oldest beyond its limit; [`write()`] is
//! the picture itself, for the offline verbs too.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::job::Job;
use super::steps::verdict_word;
use crate::error::{Error, Kind, Result};
use crate::overlay::{Headline, Scene, render};

/// Which results leave a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// NG and ERROR.
    NotOk,
    /// Every result.
    All,
}

/// Writes overlay pictures into one folder.
#[derive(Debug)]
pub struct OverlayWriter {
    folder: PathBuf,
    keep: Keep,
    max_files: usize,
    files: VecDeque<PathBuf>,
}

impl OverlayWriter {
    /// Makes the folder and takes stock of what is in it.
    ///
    /// # Errors
    /// [`Kind::CannotCreate`] naming the folder.
    pub fn open(folder: &Path, keep: Keep, max_files: usize) -> Result<Self> {
        let what = || format!("overlay folder {}", folder.display());
        std::fs::create_dir_all(folder).map_err(|e| Error::io(what(), e).with_kind(Kind::CannotCreate))?;
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .map_err(|e| Error::io(what(), e))?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "png"))
            .collect();
        // Event ids are UUIDs of version 7: their order is their age.
        files.sort();
        Ok(Self { folder: folder.to_path_buf(), keep, max_files: max_files.max(1), files: files.into() })
    }

    /// Which results leave a picture.
    #[must_use]
    pub fn keep(&self) -> Keep {
        self.keep
    }

    /// Writes one picture. A failure is logged and counted by the caller's log, never more: the result itself is safe.
    pub fn write(&mut self, job: &Job, event_id: &str) {
        while self.files.len() >= self.max_files {
            if let Some(oldest) = self.files.pop_front()
                && let Err(e) = std::fs::remove_file(&oldest)
            {
                log::warn!("overlay {}: cannot be removed: {e}", oldest.display());
            }
        }
        let path = self.folder.join(format!("{event_id}.png"));
        match write(&path, job) {
            Ok(()) => self.files.push_back(path),
            Err(e) => log::warn!("{e:#}; the result itself is recorded"),
        }
    }
}

/// Whether this job's result leaves a picture under `keep`.
#[must_use]
pub fn wants(keep: Keep, job: &Job) -> bool {
    keep == Keep::All || verdict_word(job) != "OK"
}

/// Draws the job and writes it as PNG, under a temporary name first, so that no reader sees half a picture.
///
/// # Errors
/// [`Kind::CannotCreate`] naming the file.
pub fn write(path: &Path, job: &Job) -> Result<()> {
    let word = verdict_word(job);
    let product = job.product.as_deref();
    let settings = product.map(|p| &p.decision);
    let mut notes = Vec::new();
    if let Some(r) = job.registration.as_ref() {
        let pose = &r.frame_from_template;
        let (dx, dy) = product.map_or((0.0, 0.0), |p| pose.centre_shift(p.template.image.size(), job.image.size()));
        notes.push(format!(
            "pose {:+.2} deg, scale {:.3}, shift {dx:+.1} {dy:+.1} px, confidence {:.2}",
            pose.rotation_rad().to_degrees(),
            pose.scale(),
            r.confidence
        ));
    }
    if let Some(fault) = &job.fault {
        notes.push(format!("{}: {}", fault.code, fault.message));
    }
    let accepted = job.registration.as_ref().is_some_and(|r| r.accepted);
    let inspected = job.decision.is_some();
    let title = format!(
        "{}  frame {}  {}",
        product.map_or("no template", |p| p.template.id.as_str()),
        job.id,
        Path::new(&*job.source).file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    );
    let blobs = job.decision.as_ref().map_or(&[][..], |d| &d.blobs[..]);
    let scene = Scene {
        headline: match word {
            "OK" => Headline::Ok,
            "NG" => Headline::Ng,
            _ => Headline::Error,
        },
        title: &title,
        notes: &notes,
        frame: &job.image,
        template: if accepted { Some(&job.warped) } else { product.map(|p| &*p.template.image) },
        map: inspected.then_some(&job.map),
        mask: None,
        blobs,
        threshold: settings.map_or(0.5, |s| s.threshold),
        outline: match (job.registration.as_ref(), product) {
            (Some(r), Some(p)) if r.accepted => Some((r.frame_from_template, p.template.image.size())),
            _ => None,
        },
    };
    let temporary = path.with_extension("png.part");
    render(&scene).save(&temporary)?;
    std::fs::rename(&temporary, path)
        .map_err(|e| Error::io(format!("picture {}", path.display()), e).with_kind(Kind::CannotCreate))
}
