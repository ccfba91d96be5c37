//! What the stages do to a frame: registration, inference, decision. The offline verbs call the same functions one after another.

use std::time::Instant;

use super::finders::Finders;
use super::job::{ImageStats, Job};
use super::registrar::Registrar;
use crate::align::{Refusal, warp};
use crate::decide::Decider;
use crate::geometry::Affine;
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
pub fn align(job: &mut Job, registrar: &mut Registrar, remover: Option<&mut Remover>) {
    if job.fault.is_some() {
        return;
    }
    let start = Instant::now();
    job.stats = ImageStats::of(&job.image);
    // What an earlier frame left is not this one's.
    job.warped.reset(0, 0);
    job.valid.reset(0, 0);
    if let Some(product) = job.product.clone() {
        if let Some((code, message)) = product.limits.broken_by(&job.stats) {
            job.fail(code, message);
            job.times.align = start.elapsed();
            return;
        }
        let (view, registration) = registrar.register(&product, &job.image);
        job.view = view;
        let (template, picture) = (&product.views[view].template, &product.views[view].picture);
        let pose = registration.frame_from_template;
        let (dx, dy) = pose.centre_shift(picture.image.size(), job.image.size());
        if registration.accepted
            && let Some(most) = product.max_shift_px
            && !(dx.abs() <= most && dy.abs() <= most)
        {
            let name = &template.id;
            job.fail(
                "ALIGN_FAIL",
                format!(
                    "the centre of template {name} lies ({dx:.1}, {dy:.1}) px from the frame's; align.max_shift_px is {most}"
                ),
            );
        } else if registration.accepted {
            warp::warp_template(&picture.image, &pose, job.image.size(), &mut job.warped, &mut job.valid);
            if let Some(remover) = remover
                && let Err(e) = remover.remove(&mut job.warped, &mut job.valid, &job.image)
            {
                job.fail("INTERNAL", format!("{e:#}"));
            }
        } else {
            let why = match registration.refusal {
                Some(r @ Refusal::FrameSize) => {
                    let ((w, h), (tw, th)) = (job.image.size(), picture.image.size());
                    format!(": the frame is {w} x {h} px, the template {tw} x {th}: {r}")
                }
                Some(r) => format!(": {r}"),
                None => String::new(),
            };
            let name = &template.id;
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

/// Runs the product's detector on the frame and the warped template, and the one beside it.
pub fn infer(job: &mut Job, finders: &mut Finders) {
    if job.fault.is_some() {
        return;
    }
    let start = Instant::now();
    finders.find(job);
    job.times.infer = start.elapsed();
}

/// Turns the defect map into a verdict.
pub fn decide(job: &mut Job, decider: &mut Decider) {
    if job.fault.is_some() {
        return;
    }
    let start = Instant::now();
    if let Some(product) = job.product.clone()
        && let Some(view) = product.views.get(job.view)
    {
        let pose = job.registration.as_ref().map_or(Affine::IDENTITY, |r| r.frame_from_template);
        match decider.decide_posed(&job.map, &job.valid, &job.image, &job.warped, &view.decision, &pose) {
            Ok(decision) => job.decision = Some(decision),
            Err(e) => job.fail("INTERNAL", format!("{e:#}")),
        }
        if product.compare_with.is_some() && job.second.size() == job.image.size() {
            match decider.decide_posed(&job.second, &job.valid, &job.image, &job.warped, &view.decision, &pose) {
                Ok(second) => job.second_verdict = Some(second.verdict),
                // The detector in force has decided; the one beside it only watches.
                Err(e) => log::warn!("frame {}: the detector beside did not decide: {e:#}", job.id),
            }
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
    use std::sync::Arc;

    use super::*;
    use crate::align;
    use crate::classical::Method;
    use crate::clock::Timestamp;
    use crate::decide;
    use crate::frame::Gray;
    use crate::pipeline::job::{Pool, Product};
    use crate::recipe::Detector;
    use crate::simulate::part::PartOptions;
    use crate::template::{Meta, Template};

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

    /// The steps of one frame in a job out of the pool, as the line's threads do them.
    fn inspect(
        product: &Arc<Product>,
        frame: &Gray,
        pool: &Pool,
        tools: (&mut Registrar, &mut Remover, &mut Finders, &mut Decider),
    ) -> &'static str {
        let mut job = pool.take();
        job.image.copy_from(frame);
        job.product = Some(Arc::clone(product));
        align(&mut job, tools.0, Some(tools.1));
        infer(&mut job, tools.2);
        decide(&mut job, tools.3);
        let word = verdict_word(&job);
        pool.put(job);
        word
    }

    #[test]
    fn a_steady_stream_of_frames_allocates_nothing() {
        let image = crate::simulate::part::product(3, (320, 256)).unwrap();
        let template = Template::loose("demo/main", image.clone(), Meta::at(Timestamp::UNIX_EPOCH)).unwrap();
        let align = align::Settings::default();
        let template = Arc::new(template);
        let part = crate::simulate::part::Product::from_template(&image).unwrap();
        let options = PartOptions { frame_size: (320, 256), rotation_degrees: [-3.0, 3.0], defects: 0, ..PartOptions::default() };
        let frames: Vec<Gray> = (0..4).map(|i| part.part(5, i, &options).unwrap().frame).collect();
        let mut detectors = vec![(Detector::Classical(Method::AbsDiff), None)];
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        if let Some(library) = crate::infer::tests::runtime() {
            let settings = crate::infer::Settings {
                model: root.join("models/ssds-tiny.onnx"),
                library: Some(library),
                providers: vec![crate::infer::Provider::Cpu],
                threads: 1,
                ..crate::infer::Settings::default()
            };
            detectors.push((Detector::Ssds, Some(crate::infer::Detector::open(&settings).unwrap())));
        }
        for (detector, network) in detectors {
            let views = vec![(Arc::clone(&template), decide::Settings::default())];
            let product = Arc::new(Product { detector, ..Product::new(views, &align).unwrap() });
            let pool = Pool::new(2);
            let mut tools = (
                Registrar::new(),
                Remover::new(&crate::residual::Settings::default()).unwrap(),
                Finders::new(network),
                Decider::new(),
            );
            let mut words = [""; 4];
            let mut run = |words: &mut [&'static str; 4]| {
                for (word, frame) in words.iter_mut().zip(&frames) {
                    *word = inspect(&product, frame, &pool, (&mut tools.0, &mut tools.1, &mut tools.2, &mut tools.3));
                }
            };
            run(&mut words);
            let count = allocation_counter::measure(|| run(&mut words)).count_total;
            assert_eq!((words, count), (["OK"; 4], 0), "{}", detector.name());
        }
    }
}
