//! Evidence behind the record stage: which parts leave some, and the pictures a person looks at to understand one verdict.
//!
//! [`Archivist`] turns finished jobs into folders of the archive ([`crate::record::archive`]); [`picture`] is the overlay itself, which
//! [`write()`] saves for the offline verbs too.

use std::path::Path;

use super::job::Job;
use super::steps::verdict_word;
use crate::error::{Error, Kind, Result};
use crate::overlay::{Canvas, Headline, Scene, render};
use crate::record::archive::writer::{Counts, Part, Skipped, Writer};
use crate::record::event::{InspectionEvent, Verdict};

/// Which archived results get an overlay picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlays {
    /// None.
    None,
    /// NG and ERROR.
    NotOk,
    /// Every one.
    All,
}

/// Which results leave evidence: every NG and ERROR, and of the OK the first of every so many.
#[derive(Debug, Clone)]
pub struct Sampling {
    ok_every: u64,
    seen_ok: u64,
}

impl Sampling {
    /// One in `ok_every` OK; 0 = none.
    #[must_use]
    pub fn new(ok_every: u64) -> Self {
        Self { ok_every, seen_ok: 0 }
    }

    /// Whether this job's result leaves evidence; counts the OK.
    pub fn wants(&mut self, job: &Job) -> bool {
        if verdict_word(job) != "OK" {
            return true;
        }
        self.seen_ok += 1;
        self.ok_every > 0 && (self.seen_ok - 1).is_multiple_of(self.ok_every)
    }
}

/// Writes finished jobs to the archive, on a thread that nothing waits for.
pub struct Archivist {
    writer: Writer,
    overlays: Overlays,
    sampling: Sampling,
}

impl Archivist {
    /// Of this writer.
    #[must_use]
    pub fn new(mut writer: Writer, overlays: Overlays, ok_every: u64) -> Self {
        if let Err(e) = writer.ready() {
            log::warn!("{e:#}; no evidence is kept until it is there, results are recorded");
        }
        Self { writer, overlays, sampling: Sampling::new(ok_every) }
    }

    /// Which results it wants.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.sampling.clone()
    }

    /// Its counters, to count what never reached it.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.writer.counts().clone()
    }

    /// Keeps one part's evidence, or counts why not.
    ///
    /// # Errors
    /// Why it was not kept.
    pub fn keep(&mut self, job: &Job, event: &InspectionEvent) -> Result<(), Skipped> {
        let wanted = match self.overlays {
            Overlays::None => false,
            Overlays::NotOk => event.verdict != Verdict::Ok,
            Overlays::All => true,
        };
        let overlay = (wanted && !job.image.data().is_empty()).then(|| picture(job));
        let product = job.product.as_deref();
        let view = job.view();
        let registration = job.registration.as_ref();
        let warped = registration.is_some_and(|r| r.accepted) && job.warped.size() == job.image.size();
        let part = Part {
            event,
            frame: &job.image,
            template: view.map(|v| (v.picture.image.size(), v.picture.sha256.as_str())),
            pose: registration.map(|r| (&r.frame_from_template, r.accepted, r.confidence)),
            aligned: warped.then_some((&job.warped, &job.valid)),
            decided: match (&job.decision, view, &job.fault) {
                (Some(decision), Some(view), None) => Some((&job.map, &view.decision, decision)),
                _ => None,
            },
            detector: product.map_or("ssds", |p| p.detector.name()),
            recipe_sha256: product.and_then(|p| p.recipe_sha256.as_deref()),
            overlay: overlay.as_ref(),
        };
        self.writer.keep(&part).map(|_| ())
    }
}

/// Draws the job and writes it as PNG, under a temporary name first, so that no reader sees half a picture.
///
/// # Errors
/// [`Kind::CannotCreate`] naming the file.
pub fn write(path: &Path, job: &Job) -> Result<()> {
    let temporary = path.with_extension("png.part");
    picture(job).save(&temporary)?;
    std::fs::rename(&temporary, path)
        .map_err(|e| Error::io(format!("picture {}", path.display()), e).with_kind(Kind::CannotCreate))
}

/// Draws the job: the frame with its defects outlined, the template beside it, the score map, and what was decided in words.
#[must_use]
pub fn picture(job: &Job) -> Canvas {
    let word = verdict_word(job);
    let view = job.view();
    let settings = view.map(|v| &v.decision);
    let mut notes = Vec::new();
    if let Some(r) = job.registration.as_ref() {
        let pose = &r.frame_from_template;
        let (dx, dy) = view.map_or((0.0, 0.0), |v| pose.centre_shift(v.picture.image.size(), job.image.size()));
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
    let accepted = job.registration.as_ref().is_some_and(|r| r.accepted) && job.warped.size() == job.image.size();
    let inspected = job.decision.is_some();
    let title = format!(
        "{}  frame {}  {}",
        view.map_or("no template", |v| v.template.id.as_str()),
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
        template: if accepted { Some(&job.warped) } else { view.map(|v| &*v.picture.image) },
        map: inspected.then_some(&job.map),
        mask: None,
        blobs,
        threshold: settings.map_or(0.5, |s| s.threshold),
        outline: match (job.registration.as_ref(), view) {
            (Some(r), Some(v)) if r.accepted => Some((r.frame_from_template, v.picture.image.size())),
            _ => None,
        },
    };
    render(&scene)
}
