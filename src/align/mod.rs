//! Registration: where in the frame the template lies, to a small part of a pixel.
//!
//! Input: a [`TemplateModel`] (prepared once) and an 8-bit gray frame of any size within a factor of two. Output: a [`Registration`], the
//! 2x3 matrix from template to frame pixels with the figures that say how far to trust it. A frame that cannot be registered is refused
//! with a reason; it is never passed on with a doubtful pose.
//!
//! The chain, coarse to fine:
//! 1. [`pyramid`]: box pyramid down to the search level; [`contrast`]: local contrast normalisation there.
//! 2. [`log_polar`], [`phase_correlation`]: rotation (up to 180 degrees) and scale from log-polar spectra, then translation for both
//!    180-degree hypotheses: equations (1) to (5) of the paper, half whitened.
//! 3. [`coarse`]: each candidate is verified by its NCC over a grid of points.
//! 4. [`refine`]: the best few by Gauss-Newton on sparse points with a model of the light, up the pyramid to full size.
//! 5. When that leads nowhere, a bounded walk through all rotations and scales.
//!
//! Invariants: the answer depends on template, frame and settings only (and on the last pose where `track` is on), not on threads; no
//! figure is NaN; nothing panics on any frame. After warm-up a call allocates nothing, but for the thread pool's own queue when the
//! fallback runs on more than one thread. The hot loops choose AVX2 or NEON at run time ([`isa`]).
//!
//! Limits: 8-bit gray; similarity (or slightly affine) maps; at least 32 px a side; a template without structure or that looks the same
//! after a turn cannot be registered, which [`assess()`] tells when it is taught.

mod aligner;
mod assess;
mod coarse;
mod contrast;
#[cfg(test)]
mod golden_tests;
mod isa;
mod lanes;
pub mod log_polar;
mod model;
mod phase_correlation;
pub mod points;
mod pyramid;
pub mod refine;
mod sampling;
mod settings;
pub mod spectrum;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod walk;
pub mod warp;

pub use aligner::Aligner;
pub use assess::{NOISE, TemplateQuality, Weakness, assess};
pub use isa::Isa;
pub use model::TemplateModel;
pub use settings::{Model, Settings};

use crate::geometry::Affine;

/// Why a frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The frame's size is not within a factor of two of the template's, or below 32 px.
    FrameSize,
    /// The frame shows nothing: constant, saturated or without contrast.
    Featureless,
    /// No pose fits at all.
    NotFound,
    /// The best pose lies outside the rotation, scale or visible share that the settings allow.
    OutOfRange,
    /// The best pose fits too badly to be trusted.
    LowConfidence,
    /// The template shows nothing to register on, and the frame is not as plain or not lit like it.
    BlankTemplate,
}

impl Refusal {
    /// Code for messages and records: lower case with underscores.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Refusal::FrameSize => "frame_size",
            Refusal::Featureless => "featureless",
            Refusal::NotFound => "not_found",
            Refusal::OutOfRange => "out_of_range",
            Refusal::LowConfidence => "low_confidence",
            Refusal::BlankTemplate => "blank_template",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::FrameSize => "the frame's size does not go with the template's (more than a factor of two, or under 32 px)",
            Refusal::Featureless => "the frame shows nothing to register on",
            Refusal::NotFound => "the template was not found in the frame",
            Refusal::OutOfRange => "the template lies outside the rotation, scale or visible share allowed",
            Refusal::LowConfidence => "the best pose fits too badly to be trusted",
            Refusal::BlankTemplate => "the template shows nothing to register on and the frame is not as plain as it",
        })
    }
}

/// The pose of the template in a frame and how far to trust it. Where the frame is refused the pose is the best one found, for display
/// only (the identity when there is none).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Registration {
    /// Template pixel coordinates to frame pixel coordinates.
    pub frame_from_template: Affine,
    /// Whether the pose may be used: exactly when `refusal` is `None`.
    pub accepted: bool,
    /// Why not.
    pub refusal: Option<Refusal>,
    /// 0..1: `ncc * sqrt(inlier_share) * doubt`, with `doubt = min(1, psr / 25) * (0.4 + 0.6 min(1, margin / 0.2)) * min(1, ncc / 0.55)`,
    /// near the nominal pose `min(1, psr / 5)`; for a template without structure the share of the frame that has none either.
    pub confidence: f32,
    /// Normalised cross-correlation at full size with the additive light gradient taken out, -1..1.
    pub ncc: f32,
    /// Strength of the match at the search level in standard deviations of chance: `atanh(NCC) sqrt(points)`.
    pub psr: f32,
    /// Share of the template that the frame shows, 0..1.
    pub visible_share: f32,
    /// Share of the visible points that fit, 0..1; 1 where the nominal pose was taken without refinement.
    pub inlier_share: f32,
    /// Lead over the second-best pose, 0..1: `1 - psr of the second / psr of the best`.
    pub margin: f32,
    /// Whether the walk through all rotations and scales ran.
    pub used_fallback: bool,
    /// Whether the pose was reached from the last one without a search.
    pub tracked: bool,
}

impl Registration {
    fn refused(refusal: Refusal) -> Self {
        Self {
            frame_from_template: Affine::IDENTITY,
            accepted: false,
            refusal: Some(refusal),
            confidence: 0.0,
            ncc: 0.0,
            psr: 0.0,
            visible_share: 0.0,
            inlier_share: 0.0,
            margin: 0.0,
            used_fallback: false,
            tracked: false,
        }
    }
}
