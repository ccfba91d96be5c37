//! A template's self-proof: what the line can and cannot see on this product, from the golden image alone.
//!
//! The simulator photographs good parts and parts with one defect each, within the limits given; the real registration, the real
//! detector and the real decision judge them. Reported are: registrations refused and wrong, the lowest confidence and its margin over
//! the limit, the false-reject rate with its 95 % bound (Clopper-Pearson), and the probability of detection over defect size, with the
//! size found with 90 % probability (a90) overall and per zone.
//!
//! Probability of detection: p(a) = 1 / (1 + exp(-(b0 + b1 ln a))), maximum likelihood on hit/miss data, a90 = exp((ln 9 - b0) / b1), its
//! 95 % bound by the delta method (MIL-HDBK-1823A, section G.3). a = diameter of a circle of the defect's area, template px.
//! Limits: simulated light, blur, noise and defects; beyond the picture's edge the simulator repeats edge values. The proof says what is
//! possible, not what the plant's parts will do.

mod sheet;

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::align::{self, Aligner, TemplateModel, warp};
use crate::calibrate::upper_bound;
use crate::classical::Detect;
use crate::decide::{self, Decider, PlacedZones, Verdict, ZoneMap};
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use crate::simulate::part::{Part, PartOptions, Product};
use crate::template::Template;

/// Corner error from which an accepted pose is wrong, px.
const WRONG_POSE_PX: f64 = 3.0;
/// How far from a defect's pixels a blob still counts as its detection, px.
const REACH_PX: usize = 2;
/// Fewest trials for a probability-of-detection curve.
const FEWEST: usize = 20;

/// How many parts, and what they may look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Good parts.
    pub good: usize,
    /// Parts with one defect each.
    pub defective: usize,
    /// The same seed gives the same parts.
    pub seed: u64,
    /// Pose, light, blur, noise and frame size; `defects` is set here.
    pub parts: PartOptions,
}

impl Settings {
    /// 300 good and 300 defective parts in frames of the template's size, turned by at most 5 degrees.
    #[must_use]
    pub fn for_template(size: (usize, usize)) -> Self {
        Self {
            good: 300,
            defective: 300,
            seed: 1,
            parts: PartOptions {
                frame_size: size,
                rotation_degrees: [-5.0, 5.0],
                scale: [0.97, 1.03],
                shift_px: [-8.0, 8.0],
                defect_radius_px: [0.8, 10.0],
                ..PartOptions::default()
            },
        }
    }
}

/// One defective part.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Trial {
    /// Diameter of a circle of the defect's area, template px.
    pub diameter_px: f64,
    /// Mean absolute gray difference between frame and registered template over the defect.
    pub contrast: f64,
    /// Zone of its centre; empty outside all.
    pub zone: String,
    /// Whether the verdict was NG because of it.
    pub found: bool,
}

/// A probability-of-detection curve.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Curve {
    /// b0.
    pub intercept: f64,
    /// b1, on ln of the diameter.
    pub slope: f64,
    /// Diameter found with 90 % probability, template px.
    pub a90_px: f64,
    /// Upper 95 % bound of it.
    pub a90_bound_px: f64,
}

impl Curve {
    /// Probability of finding a defect of that diameter.
    #[must_use]
    pub fn at(&self, diameter_px: f64) -> f64 {
        1.0 / (1.0 + (-(self.intercept + self.slope * diameter_px.max(1e-9).ln())).exp())
    }
}

/// Detection in one zone.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ZoneProof {
    /// The zone; empty outside all.
    pub zone: String,
    /// Defects there.
    pub trials: usize,
    /// Those found.
    pub found: usize,
    /// The curve; none when there are too few trials, or all or none were found.
    pub curve: Option<Curve>,
}

/// The proof.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Proof {
    /// Good parts photographed.
    pub good: usize,
    /// Good parts whose registration was refused (ERROR, not NG).
    pub refused: usize,
    /// Parts, good or not, accepted in a pose over 3 px off at a corner.
    pub wrong_poses: usize,
    /// Lowest confidence of an accepted good part.
    pub min_confidence: f64,
    /// Confidence under which frames are refused.
    pub confidence_limit: f64,
    /// Median corner error of accepted good parts, px.
    pub median_pose_error_px: f64,
    /// Lowest lead of the right pose over the second best, 0..1.
    pub min_pose_lead: f64,
    /// Good parts that were NG.
    pub false_rejects: usize,
    /// Share of the registered good parts that were NG.
    pub false_reject_rate: f64,
    /// Upper 95 % bound of that rate.
    pub false_reject_bound: f64,
    /// All defects.
    pub all: ZoneProof,
    /// By zone, when there are zones.
    pub zones: Vec<ZoneProof>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// One entry a registered defective part.
    pub trials: Vec<Trial>,
}

/// What the proof is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The template.
    pub template: &'a Template,
    /// Its side of the registration.
    pub model: &'a TemplateModel,
    /// Registration.
    pub align: &'a align::Settings,
    /// Decision.
    pub decision: &'a decide::Settings,
    /// Zones.
    pub zones: Option<&'a ZoneMap>,
}

/// What became of one part.
#[derive(Debug, Clone, Default)]
struct Outcome {
    accepted: bool,
    confidence: f64,
    lead: f64,
    pose_error_px: f64,
    ng: bool,
    trial: Option<Trial>,
}

/// Runs the proof; each of `detectors` works on a core of its own. `progress` is told parts done and parts in all.
///
/// # Errors
/// Options out of range ([`PartOptions`]), a template too small, what the detector says.
pub fn prove<D: Detect + Send>(
    subject: Subject<'_>,
    detectors: &mut [D],
    settings: &Settings,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Proof> {
    if detectors.is_empty() || settings.good == 0 {
        return Err(Error::internal("proof: at least one detector and one good part wanted"));
    }
    let product = Product::from_template(&subject.template.image)?;
    let (total, workers) = (settings.good + settings.defective, detectors.len());
    let done = AtomicUsize::new(0);
    let parts: Vec<Result<Vec<(usize, Outcome)>>> = detectors
        .par_iter_mut()
        .enumerate()
        .map(|(worker, detector)| {
            let mut bench = Bench {
                subject,
                aligner: Aligner::new(subject.align),
                decider: Decider::new(),
                warped: Gray::default(),
                valid: Gray::default(),
                map: Map::default(),
                mask: Gray::default(),
            };
            let mut out = Vec::new();
            for index in (worker..total).step_by(workers) {
                let defects = usize::from(index >= settings.good);
                let options = PartOptions { defects, ..settings.parts.clone() };
                let part = product.part(settings.seed, index as u64, &options)?;
                out.push((index, bench.judge(&part, detector)?));
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            }
            Ok(out)
        })
        .collect();
    let mut outcomes = vec![Outcome::default(); total];
    for part in parts {
        for (index, outcome) in part? {
            outcomes[index] = outcome;
        }
    }
    Ok(report(subject, settings, &outcomes))
}

/// One core's share of the line.
struct Bench<'a> {
    subject: Subject<'a>,
    aligner: Aligner,
    decider: Decider,
    warped: Gray,
    valid: Gray,
    map: Map,
    mask: Gray,
}

impl Bench<'_> {
    fn judge<D: Detect>(&mut self, part: &Part, detector: &mut D) -> Result<Outcome> {
        let s = &self.subject;
        self.aligner.forget_pose();
        let found = self.aligner.align(s.model, &part.frame);
        let (w, h) = s.template.image.size();
        let mut out = Outcome {
            accepted: found.accepted,
            confidence: f64::from(found.confidence),
            lead: f64::from(found.margin),
            pose_error_px: found.frame_from_template.corner_error(&part.frame_from_template, w, h),
            ..Outcome::default()
        };
        if !found.accepted {
            return Ok(out);
        }
        let size = part.frame.size();
        warp::warp_template(&s.template.image, &found.frame_from_template, size, &mut self.warped, &mut self.valid);
        match &s.template.tolerance {
            Some(tolerance) => {
                let pose = &found.frame_from_template;
                detector.detect_learnt(tolerance, pose, &self.warped, &self.valid, &part.frame, &mut self.map)?;
            }
            None => detector.detect(&self.warped, &self.valid, &part.frame, &mut self.map)?,
        }
        let back = found.frame_from_template.invert();
        let placed = s.zones.zip(back.as_ref()).map(|(map, template_from_frame)| PlacedZones { map, template_from_frame });
        let decision = self.decider.decide_zones(&self.map, &self.valid, &part.frame, &self.warped, s.decision, placed)?;
        out.ng = decision.verdict == Verdict::Ng;
        if !part.clean {
            self.decider.draw_mask(size, &mut self.mask);
            out.trial = Some(self.trial(part, out.ng));
        }
        Ok(out)
    }

    fn trial(&self, part: &Part, ng: bool) -> Trial {
        let (mut area, mut x_sum, mut y_sum, mut difference, mut hit) = (0u64, 0u64, 0u64, 0u64, false);
        let (w, h) = part.frame.size();
        for y in 0..h {
            for (x, _) in part.label.row(y).iter().enumerate().filter(|(_, v)| **v == 255) {
                area += 1;
                x_sum += x as u64;
                y_sum += y as u64;
                difference += u64::from(part.frame.get(x, y).abs_diff(self.warped.get(x, y)));
                hit = hit
                    || (y.saturating_sub(REACH_PX)..(y + REACH_PX + 1).min(h))
                        .any(|row| self.mask.row(row)[x.saturating_sub(REACH_PX)..(x + REACH_PX + 1).min(w)].contains(&255));
            }
        }
        let n = area.max(1) as f64;
        let zone = self.subject.zones.zip(part.frame_from_template.invert()).map_or_else(String::new, |(zones, back)| {
            let (x, y) = back.apply(x_sum as f64 / n, y_sum as f64 / n);
            zones.zone_at(x, y).map_or_else(String::new, |z| z.name.to_string())
        });
        Trial {
            diameter_px: 2.0 * (area as f64 / std::f64::consts::PI).sqrt() / part.frame_from_template.scale(),
            contrast: difference as f64 / n,
            zone,
            found: ng && hit,
        }
    }
}

fn report(subject: Subject<'_>, settings: &Settings, outcomes: &[Outcome]) -> Proof {
    let good = &outcomes[..settings.good];
    let registered: Vec<&Outcome> = good.iter().filter(|o| o.accepted).collect();
    let least = |f: fn(&Outcome) -> f64| registered.iter().map(|o| f(o)).fold(f64::INFINITY, f64::min);
    let mut errors: Vec<f64> = registered.iter().map(|o| o.pose_error_px).collect();
    errors.sort_by(f64::total_cmp);
    let false_rejects = registered.iter().filter(|o| o.ng).count();
    let wrong_poses = outcomes.iter().filter(|o| o.accepted && o.pose_error_px >= WRONG_POSE_PX).count();
    let trials: Vec<Trial> = outcomes.iter().filter_map(|o| o.trial.clone()).collect();
    let zone_names: std::collections::BTreeSet<&str> = trials.iter().map(|t| t.zone.as_str()).collect();
    let all = zone_proof("", trials.iter());
    let zones = match subject.zones {
        None => Vec::new(),
        Some(_) => zone_names.iter().map(|name| zone_proof(name, trials.iter().filter(|t| t.zone == *name))).collect(),
    };
    let refused = good.len() - registered.len();
    let limit = subject.align.min_confidence;
    let n = registered.len();
    let finite = |v: f64| if v.is_finite() { v } else { 0.0 };
    let min_confidence = finite(least(|o| o.confidence));
    let mut warnings = Vec::new();
    if wrong_poses > 0 {
        warnings.push(format!(
            "{wrong_poses} of {} parts were registered in a wrong pose: the product looks alike in several poses; limit rotation and shift, \
             or mask the repeated structure",
            outcomes.len()
        ));
    }
    if refused > 0 {
        warnings.push(format!("{refused} of {} good parts could not be registered (they would be ERROR)", good.len()));
    }
    if n > 0 && min_confidence < limit + 0.1 {
        warnings.push(format!("the lowest confidence of a good part, {min_confidence:.2}, is close to the limit of {limit:.2}"));
    }
    if false_rejects > 0 {
        warnings.push(format!(
            "{false_rejects} of {n} good parts were NG: raise the threshold or the minimum area, or ignore the zone"
        ));
    }
    Proof {
        good: good.len(),
        refused,
        wrong_poses,
        min_confidence,
        confidence_limit: limit,
        median_pose_error_px: errors.get(errors.len() / 2).copied().unwrap_or(0.0),
        min_pose_lead: finite(least(|o| o.lead)),
        false_rejects,
        false_reject_rate: if n == 0 { 0.0 } else { false_rejects as f64 / n as f64 },
        false_reject_bound: if n == 0 { 1.0 } else { upper_bound(n, false_rejects, 0.95) },
        all,
        zones,
        warnings,
        trials,
    }
}

fn zone_proof<'a>(zone: &str, trials: impl Iterator<Item = &'a Trial>) -> ZoneProof {
    let data: Vec<(f64, bool)> = trials.map(|t| (t.diameter_px, t.found)).collect();
    let found = data.iter().filter(|d| d.1).count();
    ZoneProof { zone: zone.to_owned(), trials: data.len(), found, curve: fit(&data) }
}

/// The curve of hit/miss data (diameter, found); none with fewer than 20 trials, when all or none were found, or when larger defects are
/// not found more often.
#[must_use]
pub fn fit(data: &[(f64, bool)]) -> Option<Curve> {
    let found = data.iter().filter(|d| d.1).count();
    if data.len() < FEWEST || found == 0 || found == data.len() {
        return None;
    }
    // Newton's method on the log-likelihood with a slight pull of the slope to 0, so that separable data (every defect over some size
    // found, every smaller one missed) still has a maximum.
    const PULL: f64 = 1e-3;
    let (mut b0, mut b1) = (0.0f64, 0.0f64);
    let mut information = [0.0; 3];
    for _ in 0..100 {
        let (mut g0, mut g1) = (0.0, -PULL * b1);
        information = [0.0, 0.0, PULL];
        for &(a, hit) in data {
            let x = a.max(1e-9).ln();
            let p = 1.0 / (1.0 + (-(b0 + b1 * x)).exp());
            let (residual, weight) = (f64::from(u8::from(hit)) - p, p * (1.0 - p));
            g0 += residual;
            g1 += residual * x;
            information[0] += weight;
            information[1] += weight * x;
            information[2] += weight * x * x;
        }
        let determinant = information[0] * information[2] - information[1] * information[1];
        if !(determinant > 1e-12) {
            return None;
        }
        let d0 = (information[2] * g0 - information[1] * g1) / determinant;
        let d1 = (information[0] * g1 - information[1] * g0) / determinant;
        // Steps of at most 2 keep the iteration from running away on steep data.
        let shrink = (2.0 / d0.abs().max(d1.abs()).max(2.0)).min(1.0);
        b0 += shrink * d0;
        b1 += shrink * d1;
        if d0.abs().max(d1.abs()) < 1e-9 {
            break;
        }
    }
    if !(b1 > 1e-6) {
        return None;
    }
    let [i00, i01, i11] = information;
    let determinant = i00 * i11 - i01 * i01;
    let (v00, v01, v11) = (i11 / determinant, -i01 / determinant, i00 / determinant);
    let ln_a90 = (9f64.ln() - b0) / b1;
    // ln a90 = (ln 9 - b0) / b1: derivatives -1/b1 and -ln a90 / b1.
    let variance = (v00 + 2.0 * ln_a90 * v01 + ln_a90 * ln_a90 * v11) / (b1 * b1);
    let bound = ln_a90 + 1.644_853_626_951_472_7 * variance.max(0.0).sqrt();
    (ln_a90.is_finite() && bound.is_finite()).then(|| Curve {
        intercept: b0,
        slope: b1,
        a90_px: ln_a90.exp(),
        a90_bound_px: bound.exp(),
    })
}

#[cfg(test)]
mod tests;
