//! What finds the defects in a registered frame: the network or a comparator, as the frame's product says, and a second one beside it.

use super::job::{Job, Product};
use crate::classical::{self, Comparator, Detect as _, Method};
use crate::decide::{Role, ZoneMap};
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use crate::geometry::Affine;
use crate::infer::{self, Detector as Network};
use crate::recipe::Detector;

/// One thread's detectors.
pub struct Finders {
    network: Option<Network>,
    comparators: Vec<Comparator>,
    /// What the comparators were made for.
    settings: classical::Settings,
    /// Not 0 where zones have the frame judged; used with zones on tiled frames only.
    judged: Gray,
}

impl Finders {
    /// With a network, or with comparators alone.
    #[must_use]
    pub fn new(network: Option<Network>) -> Self {
        Self { network, comparators: Vec::new(), settings: classical::Settings::default(), judged: Gray::default() }
    }

    /// The network, when there is one.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// The same, to run it.
    pub fn network_mut(&mut self) -> Option<&mut Network> {
        self.network.as_mut()
    }

    /// Fills the job's map, and the second map where the product compares two detectors.
    pub fn find(&mut self, job: &mut Job) {
        let Some(product) = job.product.clone() else { return };
        let mut map = std::mem::take(&mut job.map);
        if let Err((code, message)) = self.run(product.detector, &product, job, &mut map) {
            job.fail(code, message);
        }
        job.map = map;
        let mut second = std::mem::take(&mut job.second);
        match product.compare_with {
            Some(other) if job.fault.is_none() => {
                if let Err((_, message)) = self.run(other, &product, job, &mut second) {
                    log::warn!(
                        "frame {}: {} beside {} found nothing out: {message}",
                        job.id,
                        other.name(),
                        product.detector.name()
                    );
                    second.reset(0, 0);
                }
            }
            _ => second.reset(0, 0),
        }
        job.second = second;
    }

    fn run(&mut self, which: Detector, product: &Product, job: &Job, out: &mut Map) -> Result<(), (&'static str, String)> {
        match which {
            Detector::Ssds => {
                let Some(network) = &mut self.network else {
                    return Err(("INFER_FAIL", "no network is loaded".into()));
                };
                // Of a frame in several tiles only those are computed in which something is judged.
                let zones = job.view().and_then(|v| v.decision.zones.clone());
                let back = job.registration.as_ref().and_then(|r| r.frame_from_template.invert());
                let judged = match (zones, back) {
                    (Some(zones), Some(back)) if network.is_tiled(job.image.size()) => {
                        draw_judged(&zones, &back, job.image.size(), &mut self.judged);
                        Some(&self.judged)
                    }
                    _ => None,
                };
                let answer = network.detect_within(&job.warped, &job.valid, &job.image, judged, out);
                answer.map_err(|e| (infer::Fault::of(&e).code(), e.message().to_owned()))
            }
            Detector::Classical(method) => {
                self.compare(method, product, job, out).map_err(|e| ("INTERNAL", format!("{}: {e:#}", method.name())))
            }
        }
    }

    fn compare(&mut self, method: Method, product: &Product, job: &Job, out: &mut Map) -> Result<()> {
        if self.settings != product.classical {
            self.comparators.clear();
            self.settings = product.classical.clone();
        }
        let at = match self.comparators.iter().position(|c| c.method() == method) {
            Some(at) => at,
            None => {
                self.comparators.push(Comparator::new(method, &self.settings)?);
                self.comparators.len() - 1
            }
        };
        let comparator = &mut self.comparators[at];
        let learnt = job.view().and_then(|v| v.template.tolerance.clone()).filter(|_| method == Method::Variation);
        match (learnt, &job.registration) {
            (Some(tolerance), Some(r)) => {
                comparator.detect_learnt(&tolerance, &r.frame_from_template, &job.warped, &job.valid, &job.image, out)
            }
            (Some(_), None) => Err(Error::internal("the frame was not registered")),
            (None, _) => comparator.detect(&job.warped, &job.valid, &job.image, out),
        }
    }
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
            min_size_px: None,
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
}
