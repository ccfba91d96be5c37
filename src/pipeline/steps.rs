//! What the stages do to a frame: registration, inference, decision. The offline verbs call the same functions one after another.

use std::time::Instant;

use super::job::{ImageStats, Job};
use crate::align::{Aligner, Refusal, warp};
use crate::decide::{Decider, Role, ZoneMap};
use crate::frame::Gray;
use crate::geometry::Affine;
use crate::infer::Detector;
use crate::residual::Remover;

/// Limits that a frame must keep before it is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageLimits {
    /// Lowest mean gray level.
    pub min_mean: f32,
    /// Highest mean gray level.
    pub max_mean: f32,
    /// Largest share of pixels at 255; 1 = off.
    pub max_saturated_frac: f32,
    /// Lowest focus measure; 0 = off.
    pub min_focus: f32,
    /// Most noise, gray levels; 255 = off.
    pub max_noise: f32,
}

impl ImageLimits {
    /// No limit at all (offline work on pictures of any kind).
    pub const NONE: Self = Self { min_mean: 0.0, max_mean: 255.0, max_saturated_frac: 1.0, min_focus: 0.0, max_noise: 255.0 };

    /// The limit that `stats` breaks: the fault's code and message.
    #[must_use]
    pub fn broken_by(&self, stats: &ImageStats) -> Option<(&'static str, String)> {
        if stats.mean < self.min_mean {
            let message = format!("mean gray level {:.1} is below image.min_mean {}", stats.mean, self.min_mean);
            return Some(("IMAGE_DARK", message));
        }
        if stats.mean > self.max_mean {
            let message = format!("mean gray level {:.1} is above image.max_mean {}", stats.mean, self.max_mean);
            return Some(("IMAGE_BRIGHT", message));
        }
        if stats.saturated_frac > self.max_saturated_frac {
            let message = format!(
                "share of saturated pixels {:.3} is above image.max_saturated_frac {}",
                stats.saturated_frac, self.max_saturated_frac
            );
            return Some(("IMAGE_BRIGHT", message));
        }
        if stats.focus < self.min_focus {
            let message = format!("focus measure {:.1} is below image.min_focus {}", stats.focus, self.min_focus);
            return Some(("IMAGE_BLUR", message));
        }
        if stats.noise > self.max_noise {
            let message =
                format!("noise of {:.1} gray levels is above image.max_noise {}: too little light", stats.noise, self.max_noise);
            return Some(("IMAGE_DARK", message));
        }
        None
    }
}

/// Checks the picture, registers the template to it, warps the template onto it and removes the shift that a rigid pose leaves.
pub fn align(job: &mut Job, aligner: &mut Aligner, remover: Option<&mut Remover>, limits: &ImageLimits) {
    if job.fault.is_some() {
        return;
    }
    let start = Instant::now();
    job.stats = ImageStats::of(&job.image);
    if let Some((code, message)) = limits.broken_by(&job.stats) {
        job.fail(code, message);
    } else if let Some(product) = job.product.clone() {
        let registration = aligner.align(&product.model, &job.image);
        if registration.accepted {
            let pose = registration.frame_from_template;
            warp::warp_template(&product.template.image, &pose, job.image.size(), &mut job.warped, &mut job.valid);
            if let Some(remover) = remover
                && let Err(e) = remover.remove(&mut job.warped, &mut job.valid, &job.image)
            {
                job.fail("INTERNAL", format!("{e:#}"));
            }
        } else {
            let why = match registration.refusal {
                Some(r @ Refusal::FrameSize) => {
                    let ((w, h), (tw, th)) = (job.image.size(), product.template.image.size());
                    format!(": the frame is {w} x {h} px, the template {tw} x {th}: {r}")
                }
                Some(r) => format!(": {r}"),
                None => String::new(),
            };
            let name = &product.template.id;
            job.fail(
                "ALIGN_FAIL",
                format!("template {name} was not found in the frame (confidence {:.2}){why}", registration.confidence),
            );
        }
        job.registration = Some(registration);
    } else {
        job.fail("NO_TEMPLATE", "no template is active");
    }
    job.times.align = start.elapsed();
}

/// Runs the network on the frame and the warped template. Of a frame in several tiles only those are computed in which something is judged.
pub fn infer(job: &mut Job, detector: &mut Detector) {
    if job.fault.is_some() {
        return;
    }
    let start = Instant::now();
    let zones = job.product.as_deref().and_then(|p| p.decision.zones.clone());
    let back = job.registration.as_ref().and_then(|r| r.frame_from_template.invert());
    let judged = match (zones, back) {
        (Some(zones), Some(back)) if detector.is_tiled(job.image.size()) => {
            draw_judged(&zones, &back, job.image.size(), &mut job.judged);
            Some(&job.judged)
        }
        _ => None,
    };
    if let Err(e) = detector.detect_within(&job.warped, &job.valid, &job.image, judged, &mut job.map) {
        job.fail(crate::infer::Fault::of(&e).code(), e.message());
    }
    job.times.infer = start.elapsed();
}

/// Draws 255 where a frame pixel falls, by the nearest template pixel, on what is judged; the decision looks zones up in the same way.
fn draw_judged(zones: &ZoneMap, template_from_frame: &Affine, size: (usize, usize), out: &mut Gray) {
    let mut kept = [0_u8; 256];
    kept[0] = if zones.judges_outside() { 255 } else { 0 };
    for (kept, zone) in kept[1..].iter_mut().zip(zones.zones()) {
        *kept = if zone.role == Role::Inspect { 255 } else { 0 };
    }
    let labels = zones.labels();
    let (right, bottom) = (labels.width() as i64 - 1, labels.height() as i64 - 1);
    out.resize_for_overwrite(size.0, size.1);
    for y in 0..size.1 {
        for (x, out) in out.row_mut(y).iter_mut().enumerate() {
            let (tx, ty) = template_from_frame.apply(x as f64, y as f64);
            let tx = ((tx + 0.5).floor() as i64).clamp(0, right) as usize;
            let ty = ((ty + 0.5).floor() as i64).clamp(0, bottom) as usize;
            *out = kept[usize::from(labels.get(tx, ty))];
        }
    }
}

/// Turns the defect map into a verdict.
pub fn decide(job: &mut Job, decider: &mut Decider) {
    if job.fault.is_some() {
        return;
    }
    let start = Instant::now();
    if let Some(product) = job.product.clone() {
        let pose = job.registration.as_ref().map_or(Affine::IDENTITY, |r| r.frame_from_template);
        match decider.decide_posed(&job.map, &job.valid, &job.image, &job.warped, &product.decision, &pose) {
            Ok(decision) => job.decision = Some(decision),
            Err(e) => job.fail("INTERNAL", format!("{e:#}")),
        }
    }
    job.times.decide = start.elapsed();
}

/// The verdict's word in events and logs.
#[must_use]
pub fn verdict_word(job: &Job) -> &'static str {
    match (&job.fault, &job.decision) {
        (None, Some(d)) if d.verdict == crate::decide::Verdict::Ok => "OK",
        (None, Some(_)) => "NG",
        _ => "ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{self, Shape, Zone};

    #[test]
    fn what_is_judged_is_what_the_decision_looks_at() {
        let square = |x: f64, y: f64, side: f64| Shape::Polygon(vec![(x, y), (x + side, y), (x + side, y + side), (x, y + side)]);
        let zone = |name: &str, role, shape| Zone {
            name: name.into(),
            role,
            shape,
            threshold: None,
            low_threshold: None,
            min_area_px: None,
        };
        let zones = vec![zone("a", Role::Inspect, square(10.0, 10.0, 30.0)), zone("b", Role::Ignore, square(20.0, 20.0, 8.0))];
        for outside in [false, true] {
            let map = ZoneMap::new((60, 50), zones.clone(), outside, &decide::Settings::default()).unwrap();
            let pose = Affine::similarity(0.3, 1.1, 12.0, 7.0);
            let back = pose.invert().unwrap();
            let mut judged = Gray::default();
            draw_judged(&map, &back, (80, 70), &mut judged);
            for y in 0..70 {
                for x in 0..80 {
                    let (tx, ty) = back.apply(x as f64, y as f64);
                    let wanted = map.zone_at(tx, ty).map_or(outside, |zone| zone.role == Role::Inspect);
                    assert_eq!(judged.get(x, y) != 0, wanted, "({x}, {y})");
                }
            }
        }
    }

    #[test]
    fn each_limit_has_its_code_and_names_its_setting() {
        let limits = ImageLimits { min_mean: 10.0, max_mean: 200.0, max_saturated_frac: 0.2, min_focus: 5.0, max_noise: 8.0 };
        let good = ImageStats { mean: 100.0, saturated_frac: 0.1, focus: 50.0, noise: 2.0 };
        assert_eq!(limits.broken_by(&good), None);
        for (stats, code, names) in [
            (ImageStats { mean: 9.9, ..good }, "IMAGE_DARK", "image.min_mean 10"),
            (ImageStats { mean: 200.1, ..good }, "IMAGE_BRIGHT", "image.max_mean 200"),
            (ImageStats { saturated_frac: 0.3, ..good }, "IMAGE_BRIGHT", "image.max_saturated_frac 0.2"),
            (ImageStats { focus: 4.0, ..good }, "IMAGE_BLUR", "image.min_focus 5"),
            (ImageStats { noise: 8.5, ..good }, "IMAGE_DARK", "image.max_noise 8"),
        ] {
            let (got, message) = limits.broken_by(&stats).unwrap();
            assert_eq!(got, code);
            assert!(message.contains(names), "{message}");
            assert_eq!(ImageLimits::NONE.broken_by(&stats), None);
        }
    }
}
