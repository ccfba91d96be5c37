//! What travels through the pipeline: one frame with everything found out about it so far.
//!
//! Jobs are boxed and recycled through a [`Pool`], so that their pictures' memory is reused from frame to frame.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::ledger::Token;
use super::selftest::Probe;
use super::steps::ImageLimits;
use super::trigger::Reply;
use crate::align::{self, Registration, TemplateModel};
use crate::capture::Trigger;
use crate::classical;
use crate::clock::Timestamp;
use crate::decide::{self, Decision};
use crate::error::Result;
use crate::frame::{FrameId, Gray, Map};
use crate::recipe::Detector;
use crate::template::{Picture, Template};

/// Why a frame's verdict is ERROR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Code of the event schema, such as `ALIGN_FAIL`.
    pub code: &'static str,
    /// For a person: thing, value, what was wanted.
    pub message: String,
    /// The inspection was given up (a stop) rather than failed.
    pub aborted: bool,
}

/// Figures of the picture itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ImageStats {
    /// Mean gray level, 0..255.
    pub mean: f32,
    /// Share of pixels at 255.
    pub saturated_frac: f32,
    /// Focus measure: variance of the 4-neighbour Laplacian, on every second pixel of every second row.
    pub focus: f32,
    /// Noise, standard deviation in gray levels: the median of |a - 2b + c| along rows and columns at once, which structure touches little
    /// (Immerkaer 1996 with a median for its mean), on every second pixel of every second row.
    pub noise: f32,
}

impl ImageStats {
    /// Measures `image`.
    #[must_use]
    pub fn of(image: &Gray) -> Self {
        let data = image.data();
        if data.is_empty() {
            return Self::default();
        }
        let (mut sum, mut saturated) = (0u64, 0usize);
        for &v in data {
            sum += u64::from(v);
            saturated += usize::from(v == 255);
        }
        let (mut n, mut total, mut squares) = (0u32, 0i64, 0i64);
        let mut masks = [0u32; MASK_BINS];
        for y in (1..image.height().saturating_sub(1)).step_by(2) {
            let (up, here, down) = (image.row(y - 1), image.row(y), image.row(y + 1));
            for x in (1..image.width().saturating_sub(1)).step_by(2) {
                let around = i64::from(up[x]) + i64::from(down[x]) + i64::from(here[x - 1]) + i64::from(here[x + 1]);
                let l = around - 4 * i64::from(here[x]);
                let corners = i64::from(up[x - 1]) + i64::from(up[x + 1]) + i64::from(down[x - 1]) + i64::from(down[x + 1]);
                let mask = (corners - 2 * around + 4 * i64::from(here[x])).unsigned_abs() as usize;
                masks[mask.min(MASK_BINS - 1)] += 1;
                n += 1;
                total += l;
                squares += l * l;
            }
        }
        let n = f64::from(n.max(1));
        let mean_l = total as f64 / n;
        Self {
            mean: (sum as f64 / data.len() as f64) as f32,
            saturated_frac: (saturated as f64 / data.len() as f64) as f32,
            focus: (squares as f64 / n - mean_l * mean_l) as f32,
            noise: noise_of(&masks),
        }
    }
}

/// Values of the noise mask that are told apart; its largest is 8 * 255.
const MASK_BINS: usize = 8 * 255 + 1;

/// Standard deviation of Gaussian noise from the histogram of the noise mask's magnitudes. The mask's weights make its deviation six times
/// the noise's, and half of a normal distribution lies within 0.6745 deviations. Rounding to whole levels makes the median a step; it is
/// interpolated within its bin.
fn noise_of(masks: &[u32; MASK_BINS]) -> f32 {
    let total: u64 = masks.iter().map(|c| u64::from(*c)).sum();
    let half = total as f64 / 2.0;
    let mut below = 0.0;
    for (value, &count) in masks.iter().enumerate() {
        let count = f64::from(count);
        if count > 0.0 && below + count >= half {
            // Magnitude 0 is half a bin wide, the others whole.
            let (from, width) = if value == 0 { (0.0, 0.5) } else { (value as f64 - 0.5, 1.0) };
            // A picture without any noise has all its mass at 0.
            if value == 0 && count >= 0.95 * total as f64 {
                return 0.0;
            }
            let median = from + width * (half - below) / count;
            return (median / 0.6745 / 6.0) as f32;
        }
        below += count;
    }
    0.0
}

/// One picture that frames are registered to.
#[derive(Debug)]
pub struct View {
    /// The template and its identity.
    pub template: Arc<Template>,
    /// The picture of its bank, all in the coordinates of the first.
    pub picture: Picture,
    /// Its side of the registration, computed once.
    pub model: TemplateModel,
    /// How the defect map becomes a verdict, with the zones painted on this template.
    pub decision: decide::Settings,
}

/// What frames are compared with: one product's templates, ready for use, and how.
#[derive(Debug)]
pub struct Product {
    /// The first view's template.
    pub template: Arc<Template>,
    /// Every picture of every template, at least one; the one registered with the highest confidence is compared with.
    pub views: Vec<View>,
    /// The recipe in force; none = as configured.
    pub recipe_sha256: Option<String>,
    /// Registration.
    pub align: Arc<align::Settings>,
    /// Largest shift of the template's centre from the frame's along each axis, px.
    pub max_shift_px: Option<f64>,
    /// Limits of the picture.
    pub limits: ImageLimits,
    /// What finds the defects.
    pub detector: Detector,
    /// What runs beside it, for the disagreement counter.
    pub compare_with: Option<Detector>,
    /// Settings of the comparators.
    pub classical: classical::Settings,
    /// Size of a template pixel on the part, mm.
    pub mm_per_px: Option<f64>,
    /// What starts an inspection; none = as configured.
    pub trigger: Option<Trigger>,
}

impl Product {
    /// A product of these templates, each with its own decision: the network on the best registered picture, no limits of the picture.
    ///
    /// # Errors
    /// What [`TemplateModel::new`] says, naming the template; [`crate::Kind::Internal`] without any template.
    pub fn new(templates: Vec<(Arc<Template>, decide::Settings)>, align: &align::Settings) -> Result<Self> {
        let mut views = Vec::new();
        for (template, decision) in templates {
            let first = Picture { sha256: template.sha256.clone(), image: Arc::clone(&template.image) };
            for picture in std::iter::once(first).chain(template.bank.iter().cloned()) {
                let mask = template.mask.as_deref().filter(|m| m.size() == picture.image.size());
                let model = TemplateModel::new(&picture.image, mask, align)
                    .map_err(|e| e.context(format!("template {} version {}", template.id, template.version)))?;
                views.push(View { template: Arc::clone(&template), picture, model, decision: decision.clone() });
            }
        }
        let Some(template) = views.first().map(|v| Arc::clone(&v.template)) else {
            return Err(crate::Error::internal("a product needs a template"));
        };
        Ok(Self {
            mm_per_px: template.meta.mm_per_px,
            template,
            views,
            recipe_sha256: None,
            align: Arc::new(align.clone()),
            max_shift_px: None,
            limits: ImageLimits::NONE,
            detector: Detector::Ssds,
            compare_with: None,
            classical: classical::Settings::default(),
            trigger: None,
        })
    }
}

/// Time spent in each stage, and marks between them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Reading out and converting.
    pub capture: Duration,
    /// Registration and warp.
    pub align: Duration,
    /// The network.
    pub infer: Duration,
    /// Threshold to verdict.
    pub decide: Duration,
}

/// One frame on its way.
#[derive(Debug)]
pub struct Job {
    /// Place in the ledger; `None` for offline work.
    pub token: Option<Token>,
    /// Number within this run.
    pub id: FrameId,
    /// Wall-clock time of exposure.
    pub captured_at: Timestamp,
    /// The same, monotonic ns.
    pub captured_mono_ns: u64,
    /// Camera or file.
    pub source: Arc<str>,
    /// The part that the trigger named.
    pub part_id: Option<Arc<str>>,
    /// The order it belongs to.
    pub job_id: Option<Arc<str>>,
    /// Who is told the recorded result.
    pub reply: Option<Reply>,
    /// The trigger's kind, a word of the event schema.
    pub trigger: &'static str,
    /// The picture.
    pub image: Gray,
    /// What it is compared with.
    pub product: Option<Arc<Product>>,
    /// Figures of the picture.
    pub stats: ImageStats,
    /// Which of the product's views was registered.
    pub view: usize,
    /// The pose.
    pub registration: Option<Registration>,
    /// The template in frame coordinates.
    pub warped: Gray,
    /// 255 where the template covers the frame.
    pub valid: Gray,
    /// Defect scores 0..1 in frame coordinates.
    pub map: Map,
    /// The same of the detector that runs beside, when there is one.
    pub second: Map,
    /// Verdict and blobs.
    pub decision: Option<Decision>,
    /// What the detector that runs beside would have decided.
    pub second_verdict: Option<decide::Verdict>,
    /// Set: the verdict is ERROR.
    pub fault: Option<Fault>,
    /// Time in each stage.
    pub times: Times,
    /// When the pipeline took the frame.
    pub admitted: Instant,
    /// No frame at all, but a self-test on its way.
    pub probe: Option<Box<Probe>>,
}

impl Job {
    /// An empty job.
    #[must_use]
    pub fn new() -> Self {
        Self {
            token: None,
            id: FrameId(0),
            captured_at: Timestamp::UNIX_EPOCH,
            captured_mono_ns: 0,
            source: Arc::default(),
            part_id: None,
            job_id: None,
            reply: None,
            trigger: "free_run",
            image: Gray::default(),
            product: None,
            stats: ImageStats::default(),
            view: 0,
            registration: None,
            warped: Gray::default(),
            valid: Gray::default(),
            map: Map::default(),
            second: Map::default(),
            decision: None,
            second_verdict: None,
            fault: None,
            times: Times::default(),
            admitted: Instant::now(),
            probe: None,
        }
    }

    /// The view that was registered.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.product.as_ref().and_then(|p| p.views.get(self.view))
    }

    /// Marks the frame as ERROR; the first fault stays.
    pub fn fail(&mut self, code: &'static str, message: impl Into<String>) {
        self.fault.get_or_insert(Fault { code, message: message.into(), aborted: false });
    }

    /// Clears everything but the pictures' memory.
    fn clear(&mut self) {
        let (image, warped, valid, map, second) = (
            std::mem::take(&mut self.image),
            std::mem::take(&mut self.warped),
            std::mem::take(&mut self.valid),
            std::mem::take(&mut self.map),
            std::mem::take(&mut self.second),
        );
        *self = Self { image, warped, valid, map, second, ..Self::new() };
    }
}

impl Default for Job {
    fn default() -> Self {
        Self::new()
    }
}

/// Finished jobs, kept for their memory.
#[derive(Debug, Clone)]
pub struct Pool {
    put: Sender<Box<Job>>,
    take: Receiver<Box<Job>>,
}

impl Pool {
    /// Keeps at most `capacity` jobs.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let (put, take) = bounded(capacity);
        Self { put, take }
    }

    /// An empty job, with an old one's memory where there is one.
    #[must_use]
    pub fn take(&self) -> Box<Job> {
        self.take.try_recv().unwrap_or_default()
    }

    /// Gives a finished job back.
    pub fn put(&self, mut job: Box<Job>) {
        job.clear();
        // A full pool means enough memory is kept; this one is freed.
        let _ = self.put.try_send(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_job_keeps_memory_and_nothing_else() {
        let pool = Pool::new(1);
        let mut job = pool.take();
        job.image = Gray::new(100, 100);
        let before = job.image.data().as_ptr();
        job.fail("INFER_FAIL", "no");
        job.part_id = Some("P1".into());
        pool.put(job);
        let again = pool.take();
        assert_eq!(again.image.data().as_ptr(), before);
        assert!(again.fault.is_none() && again.part_id.is_none());
    }

    #[test]
    fn stats_of_flat_bright_and_sharp_pictures() {
        let flat = ImageStats::of(&Gray::from_fn(16, 16, |_, _| 100));
        assert_eq!((flat.mean, flat.saturated_frac, flat.focus), (100.0, 0.0, 0.0));
        let white = ImageStats::of(&Gray::from_fn(16, 16, |_, _| 255));
        assert_eq!((white.mean, white.saturated_frac), (255.0, 1.0));
        let checks = ImageStats::of(&Gray::from_fn(64, 64, |x, y| if (x / 3 + y / 3) % 2 == 0 { 50 } else { 200 }));
        let soft = ImageStats::of(&Gray::from_fn(64, 64, |x, y| if (x / 12 + y / 12) % 2 == 0 { 50 } else { 200 }));
        assert!(checks.focus > soft.focus && soft.focus > 0.0, "{checks:?} {soft:?}");
        assert_eq!(ImageStats::of(&Gray::new(0, 0)), ImageStats::default());
    }

    #[test]
    fn noise_is_measured_whatever_the_part_shows() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_pcg::Pcg64::seed_from_u64(5);
        // Twelve uniform numbers make a normal one.
        let mut normal = || (0..12).map(|_| rng.random_range(0.0..1.0f64)).sum::<f64>() - 6.0;
        for sigma in [0.0, 1.0, 2.0, 5.0, 12.0] {
            for block in [400, 16] {
                let image = Gray::from_fn(400, 300, |x, y| {
                    let base = if (x / block + y / block) % 2 == 0 { 90.0 } else { 150.0 };
                    (base + sigma * normal()).round() as u8
                });
                let got = f64::from(ImageStats::of(&image).noise);
                // Edges of 16-pixel blocks are a quarter of all places; a mean would be far off.
                assert!((got - sigma).abs() <= 0.1 + 0.35 * sigma, "{sigma} in blocks of {block}: {got}");
                assert!(sigma > 0.0 || got == 0.0, "{got}");
            }
        }
    }
}
