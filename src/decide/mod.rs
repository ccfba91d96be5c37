//! From the defect map to a verdict: threshold with hysteresis, connected components, zones, limits.
//!
//! Input: the defect map (scores 0..1, frame coordinates), the picture of what the template covers (255, else 0), the frame and the
//! template warped to it, the [`Settings`], and optionally the recipe's [`ZoneMap`] with the pose. Output: a [`Decision`] with its
//! [`Blob`]s; areas in frame pixels, coordinates in frame pixels with pixel centres at integers.
//!
//! Steps, and the order they are in:
//! 1. A score is seen as its 16-bit level, `round(65535 score)`, the value a stored score map holds: deciding again from the archive
//!    gives the same blobs to the bit. A score that is not finite is an error, wherever it lies.
//! 2. Judged are the pixels that the template covers, farther than `edge_margin_px` from where it (or the frame) ends, and in no
//!    ignore zone.
//! 3. Hysteresis: 8-connected components of `score >= low_threshold` that hold a pixel with `score >= threshold`.
//! 4. Components with at most `merge_distance_px` pixels between them (Chebyshev) are one blob.
//! 5. Blobs below the minimum area or size of the zone that holds most of them are left out; the rest are defects.
//! 6. The verdict is NG when the defects break a limit: by default, when there is one.
//!
//! Invariants: no allocation that grows with the number of frames (scratch is reused, listed blobs are at most [`MAX_BLOBS`]); cost
//! follows the number of pixels over the threshold, plus one pass over the map. Limits: pictures up to 65535 pixels a side.
//! Components by runs and union-find after He, Chao, Suzuki, "A Run-Based Two-Scan Labeling Algorithm", IEEE TIP 17(5), 2008.

mod blob;
mod components;
mod runs;
mod zones;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use crate::geometry::Affine;

pub use blob::{Blob, Polarity, Sign};
pub use zones::{Role, Shape, Zone, ZoneMap};

/// Most blobs a [`Decision`] lists; `blobs_total` counts them all.
pub const MAX_BLOBS: usize = 1024;
/// Largest picture side, px.
pub const MAX_SIDE: usize = 65_535;

/// How a defect map becomes a verdict. All values are checked by [`Settings::faults`].
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Score from which a pixel is a defect, above 0 and at most 1.
    pub threshold: f32,
    /// Lower score down to which a defect is followed, above 0 and at most `threshold`; none = `threshold`.
    pub low_threshold: Option<f32>,
    /// Smallest blob that is a defect, px.
    pub min_area_px: usize,
    /// Least longer side of a defect's box, px; 1 = any.
    pub min_size_px: usize,
    /// Width of the strip along the end of the template's cover (and of the frame) that is not judged, px.
    pub edge_margin_px: usize,
    /// Most pixels between two pieces of one blob; 0 = 8-connected pieces only.
    pub merge_distance_px: usize,
    /// Most defects a good part may have.
    pub max_defects: usize,
    /// Largest defect a good part may have, px; none = any (the count still holds).
    pub max_defect_area_px: Option<usize>,
    /// Largest area of all defects together that a good part may have, px; none = any.
    pub max_total_area_px: Option<usize>,
    /// Which gray counts as material when a blob's sign is told.
    pub polarity: Polarity,
    /// Zones of the template, which [`Decider::decide_posed`] moves to the frame.
    pub zones: Option<Arc<ZoneMap>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            low_threshold: None,
            min_area_px: 6,
            min_size_px: 1,
            edge_margin_px: 4,
            merge_distance_px: 4,
            max_defects: 0,
            max_defect_area_px: None,
            max_total_area_px: None,
            polarity: Polarity::Bright,
            zones: None,
        }
    }
}

impl Settings {
    /// Every value out of its range, as `key must be ..., got ...`; empty when all is well.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut out = Vec::new();
        let score = |v: f32| v > 0.0 && v <= 1.0;
        if !score(self.threshold) {
            out.push(format!("threshold must be above 0 and at most 1, got {}", self.threshold));
        }
        if let Some(low) = self.low_threshold
            && !(score(low) && low <= self.threshold)
        {
            out.push(format!("low_threshold must be above 0 and at most threshold ({}), got {low}", self.threshold));
        }
        if self.min_area_px == 0 {
            out.push("min_area_px must be at least 1, got 0".into());
        }
        if self.min_size_px == 0 {
            out.push("min_size_px must be at least 1, got 0".into());
        }
        if self.edge_margin_px > 1000 {
            out.push(format!("edge_margin_px must be at most 1000, got {}", self.edge_margin_px));
        }
        if self.merge_distance_px > 100 {
            out.push(format!("merge_distance_px must be at most 100, got {}", self.merge_distance_px));
        }
        out
    }
}

/// Good or not; a part that could not be inspected never gets this far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// No limit is broken.
    Ok,
    /// At least one limit is broken.
    Ng,
}

impl Verdict {
    /// `OK` or `NG`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "OK",
            Verdict::Ng => "NG",
        }
    }
}

/// A limit that the defects break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// More defects than allowed.
    Count {
        /// Defects found.
        found: usize,
        /// Most allowed.
        allowed: usize,
    },
    /// A defect larger than allowed, px.
    Area {
        /// Largest defect.
        found: usize,
        /// Largest allowed.
        allowed: usize,
    },
    /// More area than allowed, px.
    TotalArea {
        /// Area of all defects.
        found: usize,
        /// Largest allowed.
        allowed: usize,
    },
}

/// What was decided about one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// OK or NG.
    pub verdict: Verdict,
    /// The defects, largest first, at most [`MAX_BLOBS`].
    pub blobs: Vec<Blob>,
    /// Number of defects, listed or not.
    pub blobs_total: usize,
    /// Blobs left out because they are below the minimum area or size.
    pub specks_total: usize,
    /// Highest score of a judged pixel, 0..1 in steps of 1/65535.
    pub max_score: f32,
    /// Area of all defects, px.
    pub ng_area_px: usize,
    /// `max_score` less the threshold of the settings: how far this part was from the line, negative below it.
    pub margin: f32,
    /// The limits that are broken; empty exactly when the verdict is OK.
    pub violations: Vec<Violation>,
}

/// Zones of the template with the way from the frame to it.
#[derive(Debug, Clone, Copy)]
pub struct PlacedZones<'a> {
    /// The zones, in template coordinates.
    pub map: &'a ZoneMap,
    /// Takes frame coordinates to template coordinates (the inverse of the registration's pose).
    pub template_from_frame: &'a Affine,
}

/// Decides frame after frame; holds the scratch memory of one thread.
#[derive(Debug, Default)]
pub struct Decider {
    runs: runs::Extractor,
    components: components::Components,
    blobs: blob::Gatherer,
    rules: Vec<Option<zones::Rule>>,
}

impl Decider {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides one frame without zones. `map`, `valid` (255 where the template covers the frame, else 0), `frame` and
    /// `warped_template` are of one size.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] for a score that is not finite, [`crate::Kind::Internal`] for pictures of different sizes, sides over
    /// [`MAX_SIDE`] or settings with zones (they need a pose), [`crate::Kind::Config`] for settings out of range.
    pub fn decide(
        &mut self,
        map: &Map,
        valid: &Gray,
        frame: &Gray,
        warped_template: &Gray,
        settings: &Settings,
    ) -> Result<Decision> {
        if settings.zones.is_some() {
            return Err(Error::internal("the decision's settings have zones, so the pose is wanted too"));
        }
        self.decide_zones(map, valid, frame, warped_template, settings, None)
    }

    /// [`Decider::decide`] with the zones of the settings, moved by the pose.
    ///
    /// # Errors
    /// As [`Decider::decide`]; [`crate::Kind::Internal`] when there are zones and the pose folds the plane onto a line.
    pub fn decide_posed(
        &mut self,
        map: &Map,
        valid: &Gray,
        frame: &Gray,
        warped_template: &Gray,
        settings: &Settings,
        frame_from_template: &Affine,
    ) -> Result<Decision> {
        let Some(zones) = &settings.zones else {
            return self.decide_zones(map, valid, frame, warped_template, settings, None);
        };
        let Some(back) = frame_from_template.invert() else {
            return Err(Error::internal("the pose folds the plane onto a line, zones cannot be placed by it"));
        };
        let placed = PlacedZones { map: zones, template_from_frame: &back };
        self.decide_zones(map, valid, frame, warped_template, settings, Some(placed))
    }

    /// [`Decider::decide`] with these zones (not those of the settings), which come before the settings wherever they say something.
    ///
    /// # Errors
    /// As [`Decider::decide`].
    pub fn decide_zones(
        &mut self,
        map: &Map,
        valid: &Gray,
        frame: &Gray,
        warped_template: &Gray,
        settings: &Settings,
        zones: Option<PlacedZones<'_>>,
    ) -> Result<Decision> {
        check_sizes(map, valid, frame, warped_template)?;
        let faults = settings.faults();
        if !faults.is_empty() {
            return Err(Error::config(format!("decision settings: {}", faults.join("; "))));
        }
        let rules = zones::Rules::new(settings, zones.map(|z| z.map), &mut self.rules);
        let level_max = self.runs.extract(map, valid, settings.edge_margin_px, &rules, zones)?;
        self.components.label(self.runs.runs(), settings.merge_distance_px);
        let summary = self.blobs.gather(
            self.runs.runs(),
            &self.components,
            &rules,
            blob::Pictures { map, valid, frame, warped_template },
            settings.polarity,
        );

        let mut violations = Vec::new();
        if summary.total > settings.max_defects {
            violations.push(Violation::Count { found: summary.total, allowed: settings.max_defects });
        }
        if let Some(allowed) = settings.max_defect_area_px
            && summary.largest_px > allowed
        {
            violations.push(Violation::Area { found: summary.largest_px, allowed });
        }
        if let Some(allowed) = settings.max_total_area_px
            && summary.area_px > allowed
        {
            violations.push(Violation::TotalArea { found: summary.area_px, allowed });
        }
        let max_score = runs::score(level_max);
        Ok(Decision {
            verdict: if violations.is_empty() { Verdict::Ok } else { Verdict::Ng },
            blobs: summary.blobs,
            blobs_total: summary.total,
            specks_total: summary.specks,
            max_score,
            ng_area_px: summary.area_px,
            margin: max_score - settings.threshold,
            violations,
        })
    }

    /// Draws the defects of the last decision: 255 where a defect is, else 0, of the given size (that of the last map).
    pub fn draw_mask(&self, size: (usize, usize), out: &mut Gray) {
        out.reset(size.0, size.1);
        for (run, label) in self.runs.runs().iter().zip(self.components.labels()) {
            if let Some(label) = label.get()
                && self.blobs.is_defect(label)
                && (run.y as usize) < size.1
                && run.x1 as usize <= size.0
            {
                out.row_mut(run.y as usize)[run.x0 as usize..run.x1 as usize].fill(255);
            }
        }
    }
}

fn check_sizes(map: &Map, valid: &Gray, frame: &Gray, warped_template: &Gray) -> Result<()> {
    let size = map.size();
    if size.0 > MAX_SIDE || size.1 > MAX_SIDE {
        return Err(Error::internal(format!("defect map of {}x{} px: at most {MAX_SIDE} a side", size.0, size.1)));
    }
    for (name, other) in [("valid picture", valid), ("frame", frame), ("warped template", warped_template)] {
        if other.size() != size {
            return Err(Error::internal(format!(
                "{name} of {}x{} px beside a defect map of {}x{} px: one size wanted",
                other.width(),
                other.height(),
                size.0,
                size.1
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
