//! The template side, computed once and shared between threads.

use std::sync::{Arc, Mutex, PoisonError};

use super::coarse::CoarseTemplate;
use super::contrast;
use super::isa::Isa;
use super::points::LevelPoints;
use super::pyramid::Pyramid;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};

/// Shortest side of a template or frame, px.
pub const LEAST_SIDE: usize = 32;
/// Most pixels of a template or frame (its pose is computed in f32).
pub const MOST_PIXELS: usize = 64_000_000;
/// Longest ratio of a frame's side to the template's.
pub const MOST_RATIO: usize = 2;
/// Mean side, px, that the search level must not exceed.
const COARSE_SIDE: f64 = 192.0;
/// Shortest side, px, that is halved once more.
const HALVE_FROM: usize = 96;
/// Points of every level but the first.
const LEVEL_POINTS: usize = 2500;
/// Frame sizes that search tables are kept for.
const KEPT_SIZES: usize = 4;

/// A template prepared for registration: pyramid, refinement points, and search tables for each frame size in use.
///
/// `Send + Sync`; share it by [`Arc`].
#[derive(Debug)]
pub struct TemplateModel {
    size: (usize, usize),
    levels: Vec<Level>,
    scale_band: (f64, f64),
    fingerprint: u64,
    searches: Mutex<Vec<Arc<CoarseTemplate>>>,
}

#[derive(Debug)]
struct Level {
    picture: Gray,
    used: Vec<bool>,
    points: LevelPoints,
}

impl TemplateModel {
    /// Prepares `template` for registration. Where `mask` (same size) is 0 the template is left out: other values count as used. Frames
    /// of the template's own size are prepared for at once, others when the first one comes.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] when the template is too small or too large, the mask has another size, or too little is left after the mask
    /// and `settings.region`; [`crate::Kind::Config`] when a setting is out of range or the region lies outside.
    pub fn new(template: &Gray, mask: Option<&Gray>, settings: &Settings) -> Result<Self> {
        settings.check()?;
        let (w, h) = template.size();
        if w.min(h) < LEAST_SIDE || w * h > MOST_PIXELS {
            return Err(Error::data(format!(
                "template of {w}x{h} px: registration needs at least {LEAST_SIDE}x{LEAST_SIDE} and at most {MOST_PIXELS} pixels"
            )));
        }
        let used = used_pixels(template, mask, settings)?;
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(&[
            w as u64,
            h as u64,
            settings.max_points as u64,
            settings.min_scale.to_bits(),
            settings.max_scale.to_bits(),
        ]);
        fingerprint.add_bytes(template.data().iter().copied());
        fingerprint.add_bytes(used.iter().map(|u| u8::from(*u)));

        let top = (0..).take_while(|l| (w >> l).min(h >> l) >= HALVE_FROM).count();
        let mut pyramid = Pyramid::default();
        pyramid.build(Isa::detect(), template, top);
        let mean = mean_used(template, &used);
        let mut levels: Vec<Level> = Vec::with_capacity(top + 1);
        for l in 0..=top {
            let picture = pyramid.level(template, l).clone();
            let used = match levels.last() {
                None => used.clone(),
                Some(below) => halve_used(&below.used, below.picture.width(), picture.size()),
            };
            let points = LevelPoints::choose(&picture, &used, if l == 0 { settings.max_points } else { LEVEL_POINTS }, mean);
            levels.push(Level { picture, used, points });
        }
        let out = Self {
            size: (w, h),
            levels,
            // A little wider than asked for: the true scale may lie on the edge, and a peak is off by half a bin.
            scale_band: (settings.min_scale / 1.03, settings.max_scale * 1.03),
            fingerprint: fingerprint.0,
            searches: Mutex::new(Vec::new()),
        };
        out.search((w, h));
        Ok(out)
    }

    /// (width, height) of the template, px.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// A number that two models share exactly when they hold the same template, mask and settings (up to hash collisions).
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Top level of the pyramid.
    pub(super) fn top(&self) -> usize {
        self.levels.len() - 1
    }

    /// The template's picture at a level.
    pub(super) fn picture(&self, level: usize) -> &Gray {
        &self.levels[level].picture
    }

    /// Which of its pixels mask and region leave.
    pub(super) fn used(&self, level: usize) -> &[bool] {
        &self.levels[level].used
    }

    /// Refinement points of a level.
    pub(super) fn points(&self, level: usize) -> &LevelPoints {
        &self.levels[level].points
    }

    /// Whether frames of that size can be registered: neither side more than twice or less than half the template's.
    #[must_use]
    pub fn takes_frame(&self, (w, h): (usize, usize)) -> bool {
        let fits = |f: usize, t: usize| f <= MOST_RATIO * t && t <= MOST_RATIO * f;
        // A frame may lie on its side: a turn by 90 degrees swaps the template's sides.
        let (tw, th) = self.size;
        w.min(h) >= LEAST_SIDE && w * h <= MOST_PIXELS && fits(w.max(h), tw.max(th)) && fits(w.min(h), tw.min(th))
    }

    /// The search side for frames of that size; made when first asked for.
    pub(super) fn search(&self, frame: (usize, usize)) -> Arc<CoarseTemplate> {
        let area = ((self.size.0 * self.size.1) as f64 * (frame.0 * frame.1) as f64).sqrt();
        let level =
            (0..self.top()).find(|l| area / f64::from(1u32 << (2 * l)) <= COARSE_SIDE * COARSE_SIDE).unwrap_or(self.top());
        let size = (frame.0 >> level, frame.1 >> level);
        let mut searches = self.searches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = searches.iter().find(|s| s.level == level && s.frame_size == size) {
            return Arc::clone(found);
        }
        let Level { picture, used, .. } = &self.levels[level];
        let mut lcn = Map::default();
        contrast::normalise(Isa::detect(), picture, &mut lcn, &mut contrast::Scratch::default());
        for (v, used) in lcn.data_mut().iter_mut().zip(used) {
            if !used {
                *v = 0.0;
            }
        }
        let made = Arc::new(CoarseTemplate::new(level, &lcn, used, size, self.scale_band));
        if searches.len() == KEPT_SIZES {
            searches.remove(0);
        }
        searches.push(Arc::clone(&made));
        made
    }
}

/// Which pixels the mask and the region leave.
fn used_pixels(template: &Gray, mask: Option<&Gray>, settings: &Settings) -> Result<Vec<bool>> {
    let (w, h) = template.size();
    let mut used = match mask {
        None => vec![true; w * h],
        Some(mask) if mask.size() == (w, h) => mask.data().iter().map(|v| *v != 0).collect(),
        Some(mask) => {
            let (mw, mh) = mask.size();
            return Err(Error::data(format!(
                "registration mask of {mw}x{mh} px for a template of {w}x{h} px: sizes must be equal"
            )));
        }
    };
    if let Some(r) = settings.region {
        if r.x + r.width > w || r.y + r.height > h {
            return Err(Error::config(format!(
                "align.region {}x{} at ({}, {}) reaches outside the template of {w}x{h} px",
                r.width, r.height, r.x, r.y
            )));
        }
        for (i, u) in used.iter_mut().enumerate() {
            *u &= r.contains(i % w, i / w);
        }
    }
    let left = used.iter().filter(|u| **u).count();
    if left < LEAST_SIDE * LEAST_SIDE {
        return Err(Error::data(format!(
            "registration mask leaves {left} of {} template pixels, at least {} are needed",
            w * h,
            LEAST_SIDE * LEAST_SIDE
        )));
    }
    Ok(used)
}

fn mean_used(picture: &Gray, used: &[bool]) -> f32 {
    let (sum, n) =
        picture.data().iter().zip(used).filter(|(_, u)| **u).fold((0u64, 0u64), |(sum, n), (v, _)| (sum + u64::from(*v), n + 1));
    (sum as f64 / n.max(1) as f64) as f32
}

/// A pixel is used when all four below it are.
pub(super) fn halve_used(below: &[bool], below_width: usize, (w, h): (usize, usize)) -> Vec<bool> {
    (0..w * h)
        .map(|i| {
            let at = 2 * (i / w) * below_width + 2 * (i % w);
            below[at] && below[at + 1] && below[at + below_width] && below[at + below_width + 1]
        })
        .collect()
}

/// FNV-1a, 64 bits.
struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    fn add_bytes(&mut self, bytes: impl Iterator<Item = u8>) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn add(&mut self, numbers: &[u64]) {
        self.add_bytes(numbers.iter().flat_map(|n| n.to_le_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn textured(w: usize, h: usize) -> Gray {
        Gray::from_fn(w, h, |x, y| ((x * 37 + y * 91 + x * y) % 256) as u8)
    }

    #[test]
    fn unusable_templates_and_masks_are_named() {
        let s = Settings::default();
        let message = |r: Result<TemplateModel>| r.unwrap_err().to_string();
        assert_eq!(
            message(TemplateModel::new(&textured(31, 100), None, &s)),
            "template of 31x100 px: registration needs at least 32x32 and at most 64000000 pixels"
        );
        assert_eq!(
            message(TemplateModel::new(&textured(64, 64), Some(&Gray::new(64, 65)), &s)),
            "registration mask of 64x65 px for a template of 64x64 px: sizes must be equal"
        );
        assert_eq!(
            message(TemplateModel::new(&textured(64, 64), Some(&Gray::new(64, 64)), &s)),
            "registration mask leaves 0 of 4096 template pixels, at least 1024 are needed"
        );
        let region = crate::geometry::Rect { x: 40, y: 0, width: 32, height: 32 };
        assert_eq!(
            message(TemplateModel::new(&textured(64, 64), None, &Settings { region: Some(region), ..s })),
            "align.region 32x32 at (40, 0) reaches outside the template of 64x64 px"
        );
    }

    #[test]
    fn frames_within_a_factor_of_two_are_taken_even_on_their_side() {
        let m = TemplateModel::new(&textured(128, 64), None, &Settings::default()).unwrap();
        for (size, want) in [((128, 64), true), ((64, 128), true), ((256, 128), true), ((257, 128), false), ((63, 40), false)] {
            assert_eq!(m.takes_frame(size), want, "{size:?}");
        }
    }

    #[test]
    fn the_fingerprint_tells_templates_and_masks_apart() {
        let s = Settings::default();
        let make = |mask: Option<&Gray>| TemplateModel::new(&textured(64, 64), mask, &s).unwrap().fingerprint();
        let half = Gray::from_fn(64, 64, |x, _| if x < 40 { 255 } else { 0 });
        assert_eq!(make(None), make(None));
        assert_ne!(make(None), make(Some(&half)));
    }
}
