//! The chain from a frame to its pose: search, verification, refinement, early out, fallback.

use std::sync::Arc;

use super::coarse::{CoarseScratch, CoarseTemplate, Fit};
use super::contrast;
use super::isa::Isa;
use super::model::TemplateModel;
use super::phase_correlation::{self, Peak};
use super::pyramid::{Pyramid, pose_at_level, pose_from_level};
use super::refine::{self, Effort, Light, Refined};
use super::settings::{Model, Settings};
use super::walk::Walk;
use super::{Refusal, Registration};
use crate::frame::{Gray, Map};
use crate::geometry::Affine;

/// Log-polar peaks that are followed at most.
const PEAKS: usize = 6;
/// Shifts followed for each peak and 180-degree hypothesis.
const SHIFTS: usize = 2;
/// A first answer is taken without looking further when its NCC is above this ...
const EARLY_NCC: f32 = 0.8;
/// ... and no other peak or candidate reaches this share of it: self-similar boards come out wrong without the second condition.
const EARLY_RIVAL: f32 = 0.6;
/// Verified NCC from which refining is tried before all peaks are followed.
const PROMISING_NCC: f32 = 0.5;
/// Least strength of a candidate worth refining.
const LEAST_Z: f32 = 2.0;
/// Candidates refined at most in one choice.
const REFINED: usize = 4;
/// Corners nearer than this, px of the search level, make two poses the same.
const SAME_PX: f64 = 3.0;
/// Refined NCC below which the fallback runs.
const FALLBACK_NCC: f32 = 0.6;
/// Confidence from which a first answer is not looked at again by the fallback.
const SURE: f32 = 0.5;
/// Candidates of the fallback that go on to refinement.
const FALLBACK_KEPT: usize = 40;
/// Strength from which confidence is no longer held down.
const FULL_Z: f32 = 25.0;
/// The same for a pose near the nominal one (template and frame concentric, not turned, not scaled). A pose that was looked for among a
/// million can fit by chance far better than the one that was expected.
const FULL_Z_NOMINAL: f32 = 5.0;
/// Margin over the second-best pose from which confidence is no longer held down.
const FULL_MARGIN: f32 = 0.2;
/// What is left of the confidence of a pose that leads over no other.
const NO_MARGIN: f32 = 0.4;
/// NCC at full size from which confidence is no longer held down, where the pose is not near the nominal one.
const FULL_NCC: f32 = 0.55;
/// Bonus of the nominal pose in strength: on a board that looks alike after half a turn or a few pads further on, it is the one expected.
const NOMINAL_BONUS: f32 = 1.25;
/// Largest distance of the corners from the nominal pose, as a share of the template's longest side, for a pose to be near it.
const NOMINAL_SHARE: f64 = 0.04;
/// LCN value from which a pixel of the frame counts as structure, for templates that have none.
const STRUCTURE: f32 = 0.5;
/// Largest share of structure in a frame that matches a blank template: room for defects.
const BLANK_STRUCTURE: f32 = 0.05;
/// Largest ratio of the mean gray levels of a blank template and its frame.
const BLANK_LIGHT: f64 = 3.0;
/// Rotation, degrees, by which a candidate may exceed the allowed range before refinement.
const ROTATION_SLACK_DEGREES: f64 = 3.0;
/// Standard deviation of the LCN picture below which a frame shows nothing.
const LEAST_CONTRAST: f64 = 0.02;

/// Refinement at the two coarse levels.
const COARSE_EFFORT: Effort = Effort { rounds: 8, fresh_rounds: 3, stop_px: 0.03 };
/// Refinement between them and full size.
const MIDDLE_EFFORT: Effort = Effort { rounds: 5, fresh_rounds: 2, stop_px: 0.03 };
/// Refinement at full size.
const FULL_EFFORT: Effort = Effort { rounds: 6, fresh_rounds: 2, stop_px: 0.005 };
/// Refinement of an affine map at full size.
const AFFINE_EFFORT: Effort = Effort { rounds: 8, fresh_rounds: 3, stop_px: 0.005 };
/// Pyramid levels that the refinement climbs at a time.
const CLIMB: usize = 3;

/// A hypothesis at the search level.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Coarse template pixels to coarse frame pixels.
    pub pose: Affine,
    /// How well it fits.
    pub fit: Fit,
    /// Whether it is the nominal pose.
    pub nominal: bool,
}

impl Candidate {
    /// Strength by which candidates are ranked.
    fn rank(&self) -> f32 {
        if self.nominal { NOMINAL_BONUS * self.fit.z } else { self.fit.z }
    }
}

/// The best refined candidate so far.
#[derive(Debug, Clone, Copy)]
struct Best {
    pose: Affine,
    fit: Fit,
    light: Light,
}

/// One thread's registration: settings and working memory, reused from frame to frame.
#[derive(Debug)]
pub struct Aligner {
    settings: Settings,
    isa: Isa,
    pyramid: Pyramid,
    contrast: contrast::Scratch,
    lcn: Map,
    coarse: CoarseScratch,
    refine: refine::Scratch,
    peaks: Vec<Peak>,
    candidates: Vec<Candidate>,
    tried: Vec<Affine>,
    walk: Walk,
    search: Option<(u64, (usize, usize), Arc<CoarseTemplate>)>,
    last: Option<(u64, Affine)>,
}

impl Aligner {
    /// An aligner for the calling thread. `settings` should be those of the models; values out of range are those of
    /// [`TemplateModel::new`] to report.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self::with_isa(settings, Isa::detect())
    }

    /// The same with the instruction set chosen, so that two can be compared.
    #[must_use]
    pub fn with_isa(settings: &Settings, isa: Isa) -> Self {
        Self {
            settings: settings.clone(),
            isa,
            pyramid: Pyramid::default(),
            contrast: contrast::Scratch::default(),
            lcn: Map::default(),
            coarse: CoarseScratch::default(),
            refine: refine::Scratch::default(),
            peaks: Vec::with_capacity(PEAKS + 1),
            candidates: Vec::new(),
            tried: Vec::with_capacity(REFINED),
            walk: Walk::default(),
            search: None,
            last: None,
        }
    }

    /// Forgets the last pose that tracking would start from.
    pub fn forget_pose(&mut self) {
        self.last = None;
    }

    /// Registers `model`'s template to `frame`.
    pub fn align(&mut self, model: &TemplateModel, frame: &Gray) -> Registration {
        let out = self.run(model, frame);
        if self.settings.track {
            self.last = out.accepted.then_some((model.fingerprint(), out.frame_from_template));
        }
        out
    }

    fn run(&mut self, model: &TemplateModel, frame: &Gray) -> Registration {
        if !model.takes_frame(frame.size()) {
            return Registration::refused(Refusal::FrameSize);
        }
        let search = self.search_for(model, frame.size());
        self.coarse.fit(&search);
        // One level above the search level is refined on too where the template has one.
        let above = (search.level + 1).min(model.top());
        self.pyramid.build(self.isa, frame, above);
        contrast::normalise(self.isa, self.pyramid.level(frame, search.level), &mut self.lcn, &mut self.contrast);
        if search.is_blank() {
            return self.blank(model, frame);
        }
        let power: f64 = self.lcn.data().iter().map(|v| f64::from(v * v)).sum::<f64>() / self.lcn.data().len() as f64;
        if power.sqrt() < LEAST_CONTRAST {
            return Registration::refused(Refusal::Featureless);
        }
        self.candidates.clear();
        if let Some(out) = self.track(model, frame, &search) {
            return out;
        }
        // The pose of a part that lies as it should is always tried: windows hide structure at the border from the search.
        let nominal = pose_at_level(&nominal(model, frame), search.level);
        let fit = search.verify(self.isa, &self.lcn, &nominal, self.settings.min_visible_share as f32);
        self.candidates.push(Candidate { pose: nominal, fit, nominal: true });
        let mut best = self.search_peaks(model, frame, &search);
        let mut used_fallback = false;
        if self.settings.fallback && best.is_none_or(|b| b.fit.ncc < FALLBACK_NCC) {
            used_fallback = true;
            self.walk(&search);
            let second = self.choose(model, frame, &search);
            if second.map_or(-1.0, |b| b.fit.ncc) > best.map_or(-1.0, |b| b.fit.ncc) {
                best = second;
            }
        }
        let mut out = self.finish_or_refuse(model, frame, &search, best);
        // A pose that is taken only just may be the wrong one of two: the walk sees all.
        if self.settings.fallback && !used_fallback && out.confidence < SURE {
            used_fallback = true;
            self.walk(&search);
            let second = self.choose(model, frame, &search);
            let second = self.finish_or_refuse(model, frame, &search, second);
            // One that was refused for its range is no reason against one that was taken.
            if (second.accepted, second.confidence) > (out.accepted, out.confidence) {
                out = second;
            }
        }
        let shifted = if out.accepted { None } else { self.shifted(model, frame, &search) };
        // A shift that fits badly is not taken while a pose that was refused fits better: the part may lie there.
        let weight = |r: &Registration| r.ncc * r.inlier_share.sqrt() * r.visible_share;
        let shifted = shifted.filter(|s| s.ncc >= FULL_NCC || weight(s) >= weight(&out));
        let out = shifted.unwrap_or(out);
        Registration { used_fallback, ..out }
    }

    /// A template without structure lies anywhere: whatever the pose, the network sees the same. The nominal pose is taken where the
    /// frame is as plain as the template and lit much like it.
    fn blank(&self, model: &TemplateModel, frame: &Gray) -> Registration {
        let structure = self.lcn.data().iter().filter(|v| v.abs() > STRUCTURE).count() as f32 / self.lcn.data().len() as f32;
        let mean = |g: &Gray| 1.0 + g.data().iter().map(|v| f64::from(*v)).sum::<f64>() / g.data().len() as f64;
        let light = mean(model.picture(0)) / mean(frame);
        if structure > BLANK_STRUCTURE || !(1.0 / BLANK_LIGHT..=BLANK_LIGHT).contains(&light) {
            return Registration::refused(Refusal::BlankTemplate);
        }
        Registration {
            frame_from_template: nominal(model, frame),
            accepted: true,
            refusal: None,
            confidence: 1.0 - structure,
            visible_share: 1.0,
            inlier_share: 1.0 - structure,
            ..Registration::refused(Refusal::BlankTemplate)
        }
    }

    fn search_for(&mut self, model: &TemplateModel, size: (usize, usize)) -> Arc<CoarseTemplate> {
        if let Some((fingerprint, s, search)) = &self.search
            && *fingerprint == model.fingerprint()
            && *s == size
        {
            return Arc::clone(search);
        }
        let search = model.search(size);
        self.search = Some((model.fingerprint(), size, Arc::clone(&search)));
        search
    }

    /// From the last pose, without a search; `None` when that does not lead to an accepted pose.
    fn track(&mut self, model: &TemplateModel, frame: &Gray, search: &CoarseTemplate) -> Option<Registration> {
        let (_, last) = self.last.filter(|(f, _)| self.settings.track && *f == model.fingerprint())?;
        let (pose, light) = self.refine_coarse(model, frame, search, &last)?;
        let fit = self.verify(search, &pose);
        if fit.ncc < EARLY_NCC {
            return None;
        }
        let out = self.finish(model, frame, search, Best { pose, fit, light });
        out.accepted.then_some(Registration { tracked: true, ..out })
    }

    /// Follows the log-polar peaks; stops as soon as one is beyond doubt.
    fn search_peaks(&mut self, model: &TemplateModel, frame: &Gray, search: &CoarseTemplate) -> Option<Best> {
        search.frame_mellin(self.isa, &self.lcn, &mut self.coarse);
        let mut peaks = std::mem::take(&mut self.peaks);
        phase_correlation::rotation_scale_peaks(self.isa, search, &mut self.coarse, PEAKS, &mut peaks);
        let mut best: Option<Best> = None;
        for (i, peak) in peaks.iter().enumerate() {
            let rival = |k: usize| peaks.get(k).is_some_and(|p| p.height >= EARLY_RIVAL * peaks[0].height);
            if best.is_some() && !rival(i) {
                break;
            }
            let from = self.candidates.len();
            self.follow(search, peak);
            let top = self.candidates[from..].iter().map(|c| c.fit.ncc).fold(-1.0, f32::max);
            if top > PROMISING_NCC && !rival(i + 1) {
                best = self.choose(model, frame, search);
                if best.is_some_and(|b| b.fit.ncc > EARLY_NCC) {
                    self.peaks = peaks;
                    return best;
                }
            }
        }
        self.peaks = peaks;
        let all = self.choose(model, frame, search);
        if all.map_or(-1.0, |b| b.fit.z) > best.map_or(-1.0, |b| b.fit.z) { all } else { best }
    }

    /// Adds the verified candidates of one peak.
    fn follow(&mut self, search: &CoarseTemplate, peak: &Peak) {
        let (isa, lcn, settings) = (self.isa, &self.lcn, &self.settings);
        let from = self.candidates.len();
        let candidates = &mut self.candidates;
        phase_correlation::shifts(isa, search, &mut self.coarse, lcn, peak.rotation_rad, peak.scale, SHIFTS, |pose| {
            if rotation_allowed(&pose, settings, ROTATION_SLACK_DEGREES) {
                candidates.push(Candidate { pose, fit: Fit { z: 0.0, ncc: 0.0, visible_share: 0.0 }, nominal: false });
            }
        });
        for c in &mut self.candidates[from..] {
            c.fit = search.verify(isa, lcn, &c.pose, settings.min_visible_share as f32);
        }
    }

    fn verify(&self, search: &CoarseTemplate, pose: &Affine) -> Fit {
        let pose = pose_at_level(pose, search.level);
        search.verify(self.isa, &self.lcn, &pose, self.settings.min_visible_share as f32)
    }

    /// All rotations and scales on a grid, spread over the threads allowed; leaves the best candidates.
    fn walk(&mut self, search: &CoarseTemplate) {
        self.walk.run(self.isa, search, &self.lcn, &self.settings);
        self.candidates.retain(|c| c.nominal);
        self.candidates.extend(self.walk.found());
        self.sort_candidates();
        // The nominal pose stays, wherever it ranks.
        let mut place = 0;
        self.candidates.retain(|c| {
            place += 1;
            c.nominal || place <= FALLBACK_KEPT
        });
    }

    /// Strongest first; ties by the pose's own values, so that the order does not depend on how the work was spread.
    fn sort_candidates(&mut self) {
        self.candidates.sort_unstable_by(|a, b| b.rank().total_cmp(&a.rank()).then_with(|| order(&a.pose).cmp(&order(&b.pose))));
    }

    /// Refines the strongest distinct candidates at the coarse levels; the best by strength.
    fn choose(&mut self, model: &TemplateModel, frame: &Gray, search: &CoarseTemplate) -> Option<Best> {
        self.sort_candidates();
        self.tried.clear();
        let (w, h) = search.template_size;
        let mut best: Option<Best> = None;
        let mut best_rank = f32::NEG_INFINITY;
        for i in 0..self.candidates.len() {
            let c = self.candidates[i];
            // The nominal pose is never passed over: before refinement, a part that lies a little off it may look the worse.
            if c.fit.z < LEAST_Z || (self.tried.len() >= REFINED && !c.nominal) {
                continue;
            }
            if self.tried.iter().any(|t| t.corner_error(&c.pose, w, h) < SAME_PX) {
                continue;
            }
            self.tried.push(c.pose);
            let Some((pose, light)) = self.refine_coarse(model, frame, search, &pose_from_level(&c.pose, search.level)) else {
                continue;
            };
            if !(search.scale_band.0 / 1.05..=search.scale_band.1 * 1.05).contains(&pose.scale()) {
                continue;
            }
            let fit = self.verify(search, &pose);
            let rank = Candidate { fit, ..c }.rank();
            if rank > best_rank {
                (best, best_rank) = (Some(Best { pose, fit, light }), rank);
            }
            let next = self.candidates.get(i + 1).map_or(0.0, |c| c.fit.z);
            if fit.ncc > EARLY_NCC && next < EARLY_RIVAL * fit.z {
                break;
            }
        }
        best
    }

    /// Refines `pose` (full size) at the level above the search level and at the search level.
    fn refine_coarse(
        &mut self,
        model: &TemplateModel,
        frame: &Gray,
        search: &CoarseTemplate,
        pose: &Affine,
    ) -> Option<(Affine, Light)> {
        let above = (search.level + 1).min(model.top());
        let (mut pose, mut light) = (*pose, None);
        // Little structure may be too little at the level above: that is no reason against the pose.
        if above > search.level
            && let Some(r) = self.refine_at::<4>(model, frame, above, &pose, None, COARSE_EFFORT)
        {
            pose = pose_from_level(&r.pose, above);
            light = Some(r.light);
        }
        let r = self.refine_at::<4>(model, frame, search.level, &pose, light, COARSE_EFFORT)?;
        Some((pose_from_level(&r.pose, search.level), r.light))
    }

    fn refine_at<const P: usize>(
        &mut self,
        model: &TemplateModel,
        frame: &Gray,
        level: usize,
        pose: &Affine,
        light: Option<Light>,
        effort: Effort,
    ) -> Option<Refined> {
        let picture = self.pyramid.level(frame, level);
        refine::refine::<P>(self.isa, model.points(level), picture, &pose_at_level(pose, level), light, effort, &mut self.refine)
    }

    /// From the search level to full size in strides: the refined pose, px of full size, and its figures.
    fn climb(&mut self, model: &TemplateModel, frame: &Gray, search: &CoarseTemplate, best: &Best) -> Option<(Affine, Refined)> {
        let affine = self.settings.model == Model::Affine;
        let (mut pose, mut light, mut last) = (best.pose, best.light, None);
        // An affine map is first freed at the search level: at full size a tilt of a few px is out of the gradients' reach.
        let mut level = if affine { search.level + CLIMB } else { search.level };
        while level > 0 || last.is_none() {
            level = level.saturating_sub(CLIMB);
            let r = match (affine, level) {
                (false, 0) => self.refine_at::<4>(model, frame, level, &pose, Some(light), FULL_EFFORT),
                (false, _) => self.refine_at::<4>(model, frame, level, &pose, Some(light), MIDDLE_EFFORT),
                (true, 0) => self.refine_at::<6>(model, frame, level, &pose, Some(light), AFFINE_EFFORT),
                (true, _) => self.refine_at::<6>(model, frame, level, &pose, Some(light), COARSE_EFFORT),
            }?;
            pose = pose_from_level(&r.pose, level);
            light = r.light;
            last = Some(r);
        }
        last.map(|r| (pose, r))
    }

    /// The same level by level with more rounds, for boards that no rigid pose fits to a pixel (bent, stretched, taken elsewhere): full
    /// size may then be out of the gradients' reach. The finest level that fits counts.
    fn climb_slowly(
        &mut self,
        model: &TemplateModel,
        frame: &Gray,
        search: &CoarseTemplate,
        best: &Best,
    ) -> Option<(Affine, Refined)> {
        let (mut pose, mut light, mut last) = (best.pose, best.light, None::<(Affine, Refined)>);
        for level in (0..=search.level).rev() {
            let Some(r) = self.refine_at::<4>(model, frame, level, &pose, Some(light), COARSE_EFFORT) else {
                break;
            };
            if r.ncc < FALLBACK_NCC && last.is_some() {
                break;
            }
            pose = pose_from_level(&r.pose, level);
            light = r.light;
            last = Some((pose, r));
        }
        last
    }

    /// A part that lies nearly as it should and shows too little to tell turn and scale from (a corner, a row of pads at the border):
    /// the shift alone is refined, or, where not even that can be told, the nominal pose is taken as it is when it fits well.
    fn shifted(&mut self, model: &TemplateModel, frame: &Gray, search: &CoarseTemplate) -> Option<Registration> {
        let start = self.candidates.iter().find(|c| c.nominal).copied().filter(|c| c.fit.z >= FULL_Z_NOMINAL)?;
        let nominal = pose_from_level(&start.pose, search.level);
        let out = match self.climb_shift(model, frame, search, &nominal) {
            Some((pose, r)) => self.judge(model, frame, search, self.verify(search, &pose), &pose, &r),
            None if start.fit.z >= 2.0 * FULL_Z_NOMINAL => {
                let (ncc, visible_share) = (start.fit.ncc, start.fit.visible_share);
                let r = Refined { ncc, visible_share, inlier_share: 1.0, ..Refined::unmoved(nominal) };
                self.judge(model, frame, search, start.fit, &nominal, &r)
            }
            None => return None,
        };
        out.accepted.then_some(out)
    }

    /// The shift alone, level by level to full size.
    fn climb_shift(
        &mut self,
        model: &TemplateModel,
        frame: &Gray,
        search: &CoarseTemplate,
        start: &Affine,
    ) -> Option<(Affine, Refined)> {
        let (mut pose, mut light, mut last) = (*start, None, None);
        for level in (0..=search.level).rev() {
            let r = self.refine_at::<2>(model, frame, level, &pose, light, COARSE_EFFORT)?;
            pose = pose_from_level(&r.pose, level);
            light = Some(r.light);
            last = Some(r);
        }
        last.map(|r| (pose, r))
    }

    fn finish_or_refuse(
        &mut self,
        model: &TemplateModel,
        frame: &Gray,
        search: &CoarseTemplate,
        best: Option<Best>,
    ) -> Registration {
        best.map_or_else(|| Registration::refused(Refusal::NotFound), |best| self.finish(model, frame, search, best))
    }

    /// From the search level to full size, and the figures.
    fn finish(&mut self, model: &TemplateModel, frame: &Gray, search: &CoarseTemplate, best: Best) -> Registration {
        let mut found = self.climb(model, frame, search, &best);
        if is_near(model, frame, &best.pose) && found.is_none_or(|f| f.1.ncc < FALLBACK_NCC) {
            found = self.climb_slowly(model, frame, search, &best).or(found);
        }
        match found {
            Some((pose, r)) => self.judge(model, frame, search, best.fit, &pose, &r),
            None => Registration { frame_from_template: best.pose, ..Registration::refused(Refusal::NotFound) },
        }
    }

    /// Whether a refined pose can be trusted. `fit` is that of the search level, `pose` and `r` that of full size.
    fn judge(
        &self,
        model: &TemplateModel,
        frame: &Gray,
        search: &CoarseTemplate,
        fit: Fit,
        pose: &Affine,
        r: &Refined,
    ) -> Registration {
        let (w, h) = search.template_size;
        let coarse = pose_at_level(pose, search.level);
        let z = fit.z.max(0.0);
        let rival = (self.candidates.iter())
            .filter(|c| c.pose.corner_error(&coarse, w, h) > 2.0 * SAME_PX)
            .map(|c| c.fit.z)
            .fold(0.0, f32::max);
        let margin = if z > 0.0 { (1.0 - rival / z).clamp(0.0, 1.0) } else { 0.0 };
        // Where it is not expected, a pose must fit all the better, the more so when it leads over no other.
        let doubt = if is_near(model, frame, pose) {
            (z / FULL_Z_NOMINAL).min(1.0)
        } else {
            let lead = NO_MARGIN + (1.0 - NO_MARGIN) * (margin / FULL_MARGIN).min(1.0);
            (z / FULL_Z).min(1.0) * lead * (r.ncc / FULL_NCC).clamp(0.0, 1.0)
        };
        let confidence = r.ncc.max(0.0) * r.inlier_share.sqrt() * doubt;
        let refusal = if !self.in_range(pose, r.visible_share) {
            Some(Refusal::OutOfRange)
        } else if f64::from(confidence) < self.settings.min_confidence {
            Some(Refusal::LowConfidence)
        } else {
            None
        };
        Registration {
            frame_from_template: *pose,
            accepted: refusal.is_none(),
            refusal,
            confidence,
            ncc: r.ncc,
            psr: z,
            visible_share: r.visible_share,
            inlier_share: r.inlier_share,
            margin,
            used_fallback: false,
            tracked: false,
        }
    }

    fn in_range(&self, pose: &Affine, visible_share: f32) -> bool {
        let s = &self.settings;
        pose.is_finite()
            && rotation_allowed(pose, s, 0.0)
            && (s.min_scale..=s.max_scale).contains(&pose.scale())
            && f64::from(visible_share) >= s.min_visible_share
    }
}

/// Whether `pose` is near the nominal one.
fn is_near(model: &TemplateModel, frame: &Gray, pose: &Affine) -> bool {
    let (w, h) = model.size();
    pose.corner_error(&nominal(model, frame), w, h) <= NOMINAL_SHARE * w.max(h) as f64
}

/// The pose of a part that lies as the template does: concentric, not turned, not scaled.
fn nominal(model: &TemplateModel, frame: &Gray) -> Affine {
    Affine::about_centres(0.0, 1.0, 0.0, 0.0, model.size(), frame.size())
}

/// Whether the settings allow the pose's rotation, to within `slack_degrees`.
pub fn rotation_allowed(pose: &Affine, settings: &Settings, slack_degrees: f64) -> bool {
    pose.rotation_rad().to_degrees().abs() <= settings.max_rotation_degrees + slack_degrees
}

/// A total order of poses, to break ties the same way every time.
fn order(pose: &Affine) -> [i64; 6] {
    let m = &pose.m;
    [m[0][0], m[0][1], m[0][2], m[1][0], m[1][1], m[1][2]].map(|v| (v * 1024.0) as i64)
}
