//! Simulated pairs with truth: what the network learns from, the demo shows and `teach` proves itself on.
//!
//! [`sample`] makes pair `index` of a seed: a template already warped to the frame (with the misfit that registration leaves), the frame
//! with its defects, and the label. It depends on nothing but its arguments: the same bytes on every machine, whatever the thread
//! count or the order of calls, because only exactly rounded operations are used (see `random`). Pictures are 8-bit gray, lengths are
//! pixels of the finished picture, pixel centres at integers.
//!
//! A pixel is a defect where the frame with and without its defects, both before lighting, differ by more than
//! [`Config::label_contrast`]; groups under [`Config::speck_px`] pixels, and those that the finished frame no longer shows, are marked 128
//! and not scored.
//!
//! Sources: section III-D of the SSDS paper (arXiv 2103.04297) for the idea and the `paper` preset; the wide recipe is this project's.

mod config;
mod defects;
mod export;
mod label;
mod pair;
mod paper;
pub mod part;
mod photometry;
mod random;
mod raster;
mod scene;
mod shapes;

pub use config::{Config, Preset};
pub use export::{Exported, contact_sheet, export};
pub use label::{DEFECT, GOOD, NOT_SCORED};
pub use part::product;
pub use scene::Family;

use crate::frame::Gray;

/// How a pair came about, for manifests and for looking at what goes wrong.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Notes {
    /// The scene's family (none for the paper's recipe).
    pub family: Option<Family>,
    /// Whether the scene has two gray values.
    pub two_tone: bool,
    /// Whether both pictures were thresholded.
    pub binarised: bool,
    /// Defects painted (some may lie outside the picture or be too faint to be labelled).
    pub defects: usize,
    /// Whether a whole part is missing, moved or extra.
    pub part_defect: bool,
    /// Level of misregistration: standard deviation of the shift along an axis, px.
    pub misfit_px: f32,
    /// Residual shift (x, y), px.
    pub shift_px: [f32; 2],
    /// Whether the frame is distorted locally.
    pub local_warp: bool,
    /// Whether the template covers only a part of the frame.
    pub part_cover: bool,
}

/// A simulated pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The template, warped to the frame but for a residual misfit.
    pub template: Gray,
    /// The frame.
    pub frame: Gray,
    /// 255 defect, 0 good, 128 not scored; frame coordinates.
    pub label: Gray,
    /// Whether no pixel is labelled a defect.
    pub clean: bool,
    /// How it was made.
    pub notes: Notes,
}

/// Pair `index` under `seed`. The settings must have passed [`Config::check`]; out-of-range ones give odd pictures or panic.
#[must_use]
pub fn sample(config: &Config, seed: u64, index: u64) -> Sample {
    let mut draw = random::Draw::new(seed, index);
    match config.preset {
        // a share of 0 draws nothing, so that it leaves every other pair as it was
        Preset::Wide if config.paper_share > 0.0 && draw.chance(config.paper_share) => paper::paper(config, &mut draw),
        Preset::Wide => pair::wide(config, &mut draw),
        Preset::Paper => paper::paper(config, &mut draw),
    }
}

#[cfg(test)]
mod tests;
