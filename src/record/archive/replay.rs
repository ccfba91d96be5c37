//! Deciding archived events again: as they were decided, or by other settings. No network runs.

use super::manifest::{DecisionRecord, Manifest};
use super::{Entry, Picture, ZONES, picture};
use crate::decide::{self, Decider, Decision};
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use crate::geometry::Affine;
use crate::record::event::Verdict;

/// What was seen of one part, out of its folder.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The score map.
    pub map: Map,
    /// Where the template covers the frame.
    pub valid: Gray,
    /// The frame; empty when only the verdict was asked for.
    pub frame: Gray,
    /// The template in the frame's place; empty when only the verdict was asked for.
    pub warped: Gray,
    /// Template to frame.
    pub pose: Affine,
}

impl Seen {
    /// Reads score map and cover, which is all that a verdict needs.
    ///
    /// # Errors
    /// [`crate::Kind::Missing`] when the event has no score map, [`crate::Kind::Data`] when a file is damaged.
    pub fn scores(entry: &Entry, manifest: &Manifest) -> Result<Self> {
        let name = Picture::Score.file();
        let map = picture::read_score(&entry.file(manifest, name)?, &entry.folder.join(name))?;
        let name = Picture::Mask.file();
        let valid = picture::cover_of(&picture::read_gray(&entry.file(manifest, name)?, &entry.folder.join(name))?);
        let pose = manifest.pose.as_ref().map_or(Affine::IDENTITY, super::manifest::PoseRecord::affine);
        if map.size() != valid.size() {
            return Err(Error::data(format!("evidence {}: score map and mask are not of one size", entry.folder.display())));
        }
        Ok(Self { map, valid, pose, frame: Gray::default(), warped: Gray::default() })
    }

    /// Reads frame and aligned template too, for signs and gray differences.
    ///
    /// # Errors
    /// As [`Seen::scores`].
    pub fn all(entry: &Entry, manifest: &Manifest) -> Result<Self> {
        let mut out = Self::scores(entry, manifest)?;
        let name = Picture::Frame.file();
        out.frame = picture::read_gray(&entry.file(manifest, name)?, &entry.folder.join(name))?;
        let name = Picture::Aligned.file();
        (out.warped, out.valid) = picture::read_aligned(&entry.file(manifest, name)?, &entry.folder.join(name))?;
        Ok(out)
    }
}

/// The settings that an event was decided with, zones painted.
///
/// # Errors
/// [`crate::Kind::Missing`] when it was never decided, [`crate::Kind::Data`] when a file is damaged.
pub fn settings_of(entry: &Entry, manifest: &Manifest) -> Result<decide::Settings> {
    let record = decided(entry, manifest)?;
    let labels = match manifest.files.contains_key(ZONES) {
        true => Some(picture::read_gray(&entry.file(manifest, ZONES)?, &entry.folder.join(ZONES))?),
        false => None,
    };
    record.settings.settings(labels).map_err(|e| e.context(format!("evidence {}", entry.folder.display())))
}

fn decided<'a>(entry: &Entry, manifest: &'a Manifest) -> Result<&'a DecisionRecord> {
    manifest.decision.as_ref().ok_or_else(|| {
        Error::new(
            crate::Kind::Missing,
            format!("evidence {}: the part was not inspected, so there is nothing to decide again", entry.folder.display()),
        )
    })
}

/// Decides archived parts; holds the scratch memory of one thread.
#[derive(Debug, Default)]
pub struct Replayer {
    decider: Decider,
    blank: Gray,
}

impl Replayer {
    /// Decides by `settings`. Without frame and template the signs and gray differences of the blobs mean nothing; all else holds.
    ///
    /// # Errors
    /// As [`Decider::decide`].
    pub fn decide(&mut self, seen: &Seen, settings: &decide::Settings) -> Result<Decision> {
        let (frame, warped) = if seen.frame.size() == seen.map.size() {
            (&seen.frame, &seen.warped)
        } else {
            if self.blank.size() != seen.map.size() {
                self.blank.reset(seen.map.width(), seen.map.height());
            }
            (&self.blank, &self.blank)
        };
        self.decider.decide_posed(&seen.map, &seen.valid, frame, warped, settings, &seen.pose)
    }

    /// Decides pictures that are still in memory.
    ///
    /// # Errors
    /// As [`Decider::decide`].
    pub fn again(
        &mut self,
        map: &Map,
        valid: &Gray,
        frame: &Gray,
        warped: &Gray,
        settings: &decide::Settings,
        pose: &Affine,
    ) -> Result<Decision> {
        self.decider.decide_posed(map, valid, frame, warped, settings, pose)
    }

    /// Draws the defects of the last decision.
    pub fn draw_mask(&self, size: (usize, usize), out: &mut Gray) {
        self.decider.draw_mask(size, out);
    }

    /// Decides an event again as it was decided and compares every figure to the bit; the differences, empty when there is none. An
    /// event that was not inspected has nothing to differ in.
    ///
    /// # Errors
    /// As [`Seen::all`] and [`Decider::decide`].
    pub fn differences(&mut self, entry: &Entry, manifest: &Manifest) -> Result<Vec<String>> {
        let Some(record) = &manifest.decision else { return Ok(Vec::new()) };
        let settings = settings_of(entry, manifest)?;
        let again = self.decide(&Seen::all(entry, manifest)?, &settings)?;
        let now = DecisionRecord::new(&settings, &again);
        let mut out = Vec::new();
        let mut compare = |what: &str, was: String, is: String| {
            if was != is {
                out.push(format!("{what} was {was}, is {is}"));
            }
        };
        compare("verdict", manifest.verdict.topic().into(), verdict_of(&again).topic().into());
        compare("max_score", format!("{:?}", record.max_score.0), format!("{:?}", now.max_score.0));
        compare("blobs_total", record.blobs_total.to_string(), now.blobs_total.to_string());
        compare("specks_total", record.specks_total.to_string(), now.specks_total.to_string());
        compare("ng_area_px", record.ng_area_px.to_string(), now.ng_area_px.to_string());
        compare("blobs_sha256", record.blobs_sha256.clone(), now.blobs_sha256);
        Ok(out)
    }
}

/// The event's word for a decision.
#[must_use]
pub fn verdict_of(decision: &Decision) -> Verdict {
    match decision.verdict {
        decide::Verdict::Ok => Verdict::Ok,
        decide::Verdict::Ng => Verdict::Ng,
    }
}
