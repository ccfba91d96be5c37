//! Classical comparators: what a template and a registered frame differ by, without a network.
//!
//! Input as for the network: the template warped to the frame, the picture of what it covers, the frame. Output: a map of scores 0..1
//! in frame coordinates, 0 where the template does not cover. Every comparator's score reaches 0.5 exactly where its own threshold is
//! reached, so that the decision's default fits all.
//!
//! | method | difference | score 0.5 at |
//! |---|---|---|
//! | `absdiff` | smallest absolute difference to a template pixel within ±k | `absdiff_gray` |
//! | `ssim` | structural similarity, Gaussian window of 11x11 (Wang et al., IEEE TIP 13(4), 2004) | SSIM 0 |
//! | `variation` | HALCON's variation model: outside mean ± max(a, b · variation) | the borders of that band |
//!
//! Before they compare, all fit the template's mean and standard deviation to the frame's (`match_light`), and uncovered pixels of the
//! template take the frame's values, so that windows across the cover's end see no false edge. Invariants: no allocation that grows
//! with the number of frames. `tests/data/classical/make.py` computes the same independently.

mod absdiff;
pub mod learn;
mod light;
mod ssim;
mod variation;

use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use crate::geometry::Affine;
use crate::template::Tolerance;

pub use variation::warp_map;

/// What finds defects in a registered frame: the network or a comparator.
pub trait Detect {
    /// Scores 0..1 into `out` (resized to the frame), 0 where `valid` is 0; all pictures are of one size.
    ///
    /// # Errors
    /// What the method says.
    fn detect(&mut self, warped_template: &Gray, valid: &Gray, frame: &Gray, out: &mut Map) -> Result<()>;

    /// The same, with what was learnt from good parts: template coordinates, moved by the pose. Only the variation model has a use for it,
    /// the others compare as ever.
    ///
    /// # Errors
    /// As [`Detect::detect`].
    fn detect_learnt(
        &mut self,
        _tolerance: &Tolerance,
        _frame_from_template: &Affine,
        warped_template: &Gray,
        valid: &Gray,
        frame: &Gray,
        out: &mut Map,
    ) -> Result<()> {
        self.detect(warped_template, valid, frame, out)
    }
}

/// Which comparator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Tolerant absolute difference.
    AbsDiff,
    /// Structural similarity.
    Ssim,
    /// Variation model.
    Variation,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 3] = [Method::AbsDiff, Method::Ssim, Method::Variation];

    /// The name in settings and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Method::AbsDiff => "absdiff",
            Method::Ssim => "ssim",
            Method::Variation => "variation",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// Settings of all comparators.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Fit the template's mean and standard deviation to the frame's first.
    pub match_light: bool,
    /// `absdiff`: how far a template pixel may lie to count, px either way.
    pub absdiff_tolerance_px: usize,
    /// `absdiff`: difference of score 0.5, gray values.
    pub absdiff_gray: f32,
    /// `variation`: least half width of the band, gray values (HALCON AbsThreshold).
    pub variation_absolute: f32,
    /// `variation`: half width of the band in units of the variation (HALCON VarThreshold).
    pub variation_factor: f32,
}

impl Default for Settings {
    /// HALCON's defaults for the variation model (10 and 2); 2 px and 60 gray values for the difference.
    fn default() -> Self {
        Self { match_light: true, absdiff_tolerance_px: 2, absdiff_gray: 60.0, variation_absolute: 10.0, variation_factor: 2.0 }
    }
}

impl Settings {
    /// Every value out of its range, as `key must be ..., got ...`; empty when all is well.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.absdiff_tolerance_px > 10 {
            out.push(format!("absdiff_tolerance_px must be at most 10, got {}", self.absdiff_tolerance_px));
        }
        for (key, value) in [
            ("absdiff_gray", self.absdiff_gray),
            ("variation_absolute", self.variation_absolute),
            ("variation_factor", self.variation_factor),
        ] {
            if !(value > 0.0 && value <= 255.0) {
                out.push(format!("{key} must be above 0 and at most 255, got {value}"));
            }
        }
        out
    }
}

/// One comparator with its working memory.
#[derive(Debug)]
pub struct Comparator {
    method: Method,
    settings: Settings,
    template: Gray,
    absdiff: absdiff::Scratch,
    ssim: ssim::Scratch,
    mean: Map,
    deviation: Map,
}

impl Comparator {
    /// A comparator.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] naming every value out of range.
    pub fn new(method: Method, settings: &Settings) -> Result<Self> {
        let faults = settings.faults();
        if !faults.is_empty() {
            return Err(Error::config(format!("comparator settings: {}", faults.join("; "))));
        }
        Ok(Self {
            method,
            settings: settings.clone(),
            template: Gray::default(),
            absdiff: absdiff::Scratch::default(),
            ssim: ssim::Scratch::default(),
            mean: Map::default(),
            deviation: Map::default(),
        })
    }

    /// Which one it is.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }
}

impl Detect for Comparator {
    fn detect(&mut self, warped_template: &Gray, valid: &Gray, frame: &Gray, out: &mut Map) -> Result<()> {
        check_sizes(warped_template, valid, frame)?;
        let line = if self.settings.match_light {
            light::fit(warped_template.data().iter().map(|&v| f32::from(v)), valid, frame)
        } else {
            light::Line::IDENTITY
        };
        light::relight(line, warped_template, valid, frame, &mut self.template);
        match self.method {
            Method::AbsDiff => self.absdiff.compare(&self.template, frame, &self.settings, out),
            Method::Ssim => self.ssim.compare(&self.template, frame, out),
            Method::Variation => variation::one_image(&self.template, frame, &self.settings, out),
        }
        for (score, &v) in out.data_mut().iter_mut().zip(valid.data()) {
            if v == 0 {
                *score = 0.0;
            }
        }
        Ok(())
    }

    fn detect_learnt(
        &mut self,
        tolerance: &Tolerance,
        frame_from_template: &Affine,
        warped_template: &Gray,
        valid: &Gray,
        frame: &Gray,
        out: &mut Map,
    ) -> Result<()> {
        if self.method != Method::Variation {
            return self.detect(warped_template, valid, frame, out);
        }
        check_sizes(warped_template, valid, frame)?;
        warp_map(&tolerance.mean, frame_from_template, frame.size(), &mut self.mean);
        warp_map(&tolerance.deviation, frame_from_template, frame.size(), &mut self.deviation);
        let line = if self.settings.match_light {
            light::fit(self.mean.data().iter().copied(), valid, frame)
        } else {
            light::Line::IDENTITY
        };
        variation::learnt(&self.mean, &self.deviation, line, valid, frame, &self.settings, out);
        Ok(())
    }
}

/// A ratio of 1 becomes score 0.5, 0 becomes 0, infinity 1.
#[inline]
fn score_of_ratio(ratio: f32) -> f32 {
    ratio / (1.0 + ratio)
}

fn check_sizes(warped_template: &Gray, valid: &Gray, frame: &Gray) -> Result<()> {
    if warped_template.size() != frame.size() || valid.size() != frame.size() || frame.data().is_empty() {
        return Err(Error::internal(format!(
            "warped template of {}x{} px and valid picture of {}x{} px beside a frame of {}x{} px: one size above 0 wanted",
            warped_template.width(),
            warped_template.height(),
            valid.width(),
            valid.height(),
            frame.width(),
            frame.height()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
