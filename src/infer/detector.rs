//! The detector: from pictures to the defect map, with faults counted and the session built anew when they repeat.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, Map};

use super::library::{self, Library};
use super::model::ModelFile;
use super::parity::{self, Parity};
use super::provider::Provider;
use super::session::Runner;
use super::start::start;
use super::tile::{Pair, Plan, Shape, fill_table};
use super::{ModelInfo, Settings};

/// Side of the warm-up tile when the camera's size is not known, pixels.
const WARM_UP_PX: usize = 128;

/// What went wrong with one frame; the source of [`Detector::detect`]'s errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The run failed or answered something outside the contract.
    Failed,
    /// A score is NaN or infinite.
    NotFinite,
}

impl Fault {
    /// The code in results.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Fault::Failed => "INFER_FAIL",
            Fault::NotFinite => "INFER_NAN",
        }
    }

    /// The fault behind an error of [`Detector::detect`]; whatever has none is [`Fault::Failed`].
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<Fault>());
        source.copied().unwrap_or(Fault::Failed)
    }

    pub(super) fn error(self, message: impl Into<String>) -> Error {
        Error::new(Kind::Unavailable, message).with_source(self)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for Fault {}

/// How far [`Detector::open_with`] is; a service tells its manager, which then waits longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Looking for ONNX Runtime and reading the model.
    Loading,
    /// Building a session on a provider.
    Building(Provider),
    /// TensorRT is building an engine, for this long so far, s; told about once a second.
    Engine(u64),
    /// Comparing with the golden vector.
    Verifying,
    /// Running once at the frame's size.
    WarmingUp,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Progress::Loading => f.write_str("loading"),
            Progress::Building(provider) => write!(f, "building a session on {provider}"),
            Progress::Engine(seconds) => write!(f, "building the TensorRT engine, {seconds} s so far"),
            Progress::Verifying => f.write_str("comparing with the golden vector"),
            Progress::WarmingUp => f.write_str("warming up"),
        }
    }
}

/// The network, ready to run. Belongs to one thread at a time.
#[derive(Debug)]
pub struct Detector {
    settings: Settings,
    model: ModelFile,
    library: Library,
    info: ModelInfo,
    runner: Runner,
    plan: Option<Plan>,
    needed: Vec<usize>,
    failures: u32,
    reloads: u64,
    session_time: Duration,
}

impl Detector {
    /// Opens the model of `settings`; after this the first frame is as fast as any other.
    ///
    /// # Errors
    /// [`Kind::Config`] for settings that do not fit; [`Kind::Missing`] or [`Kind::Data`] for a model that is not there, does not follow the
    /// contract or drifts from its golden vector; [`Kind::Unavailable`] when there is no library or no provider works (the message has each
    /// one's reason).
    pub fn open(settings: &Settings) -> Result<Self> {
        Self::open_with(settings, &|_| {})
    }

    /// [`Detector::open`] with a report of each step.
    ///
    /// # Errors
    /// As [`Detector::open`].
    pub fn open_with(settings: &Settings, progress: &(dyn Fn(Progress) + Sync)) -> Result<Self> {
        settings.check()?;
        progress(Progress::Loading);
        let model = ModelFile::read(settings)?;
        let library = library::load(settings.library.as_deref())?;
        let (runner, info) = start(settings, &model, &library, progress)?;
        let mut detector = Self {
            settings: settings.clone(),
            model,
            library,
            info,
            runner,
            plan: None,
            needed: Vec::new(),
            failures: 0,
            reloads: 0,
            session_time: Duration::ZERO,
        };
        progress(Progress::WarmingUp);
        detector
            .warm_up()
            .map_err(|e| e.context(format!("model {}: warm-up", settings.model.display())).with_kind(Kind::Data))?;
        log::info!("{}", detector.describe());
        Ok(detector)
    }

    /// What is in force.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// How often the session was built anew after repeated failures.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        self.reloads
    }

    /// How much of the last frame's time was spent within ONNX Runtime; the rest is this program's conversion, checks and blending.
    #[must_use]
    pub fn session_time(&self) -> Duration {
        self.session_time
    }

    /// Whether a frame of this size is cut into several tiles.
    #[must_use]
    pub fn is_tiled(&self, (width, height): (usize, usize)) -> bool {
        let shape = self.shape();
        let (most_y, most_x) = shape.fixed.unwrap_or((shape.tile_px, shape.tile_px));
        width > most_x || height > most_y
    }

    /// Writes the defect map of `frame` to `out`: scores 0..1, 0 where `valid` is 0. All pictures have one size; any size will do.
    ///
    /// # Errors
    /// With a [`Fault`] as source ([`Fault::of`] gives the result's code); `out` is then all zero. After `reload_after` failures in a row the
    /// session is built anew before the error is answered.
    pub fn detect(&mut self, warped_template: &Gray, valid: &Gray, frame: &Gray, out: &mut Map) -> Result<()> {
        self.detect_within(warped_template, valid, frame, None, out)
    }

    /// [`Detector::detect`] that computes only tiles with a pixel in `zones` (not 0), and scores 0 outside of them.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn detect_within(
        &mut self,
        warped_template: &Gray,
        valid: &Gray,
        frame: &Gray,
        zones: Option<&Gray>,
        out: &mut Map,
    ) -> Result<()> {
        let pair = Pair { template: warped_template, valid, frame };
        out.reset(frame.width(), frame.height());
        let result = self.compute(&pair, zones, out);
        self.session_time = self.runner.take_spent();
        match &result {
            Ok(()) => self.failures = 0,
            Err(error) => {
                out.reset(frame.width(), frame.height());
                self.failures += 1;
                if self.settings.reload_after > 0 && self.failures >= self.settings.reload_after {
                    self.failures = 0;
                    log::error!(
                        "inference failed {} times in a row ({error}); building the session anew",
                        self.settings.reload_after
                    );
                    // The frame's own fault is the answer; a session that cannot be built leaves the one before.
                    if let Err(error) = self.reload() {
                        log::error!("the session cannot be built anew: {error}");
                    }
                }
            }
        }
        result
    }

    /// Builds the session anew from the bytes read at the start, on the provider in force: results name one provider for a whole run, so
    /// another one takes a restart.
    ///
    /// # Errors
    /// As [`Detector::open`]; the old session stays then.
    pub fn reload(&mut self) -> Result<()> {
        let provider = self.info.provider.parse()?;
        let settings = Settings { providers: vec![provider], ..self.settings.clone() };
        let (runner, info) = start(&settings, &self.model, &self.library, &|_| {})?;
        self.runner = runner;
        self.info = ModelInfo { fallbacks: std::mem::take(&mut self.info.fallbacks), ..info };
        self.reloads += 1;
        Ok(())
    }

    /// Runs the model's golden vector through the session in force and compares, as the start did.
    ///
    /// # Errors
    /// [`Kind::Data`] with the figures when the session drifts; what a run answers. A model without a golden vector is only run
    /// ([`Parity::Unverified`]).
    pub fn verify(&mut self) -> Result<Parity> {
        let (golden, batch) = (self.info.contract.golden.clone(), self.info.contract.fixed_batch.unwrap_or(1));
        match (golden, self.info.parity) {
            (Some(golden), Parity::Golden { tolerance, .. }) => {
                parity::against_golden(&mut self.runner, &golden, batch, tolerance)
            }
            _ => self.warm_up().map(|()| Parity::Unverified),
        }
    }

    fn compute(&mut self, pair: &Pair<'_>, zones: Option<&Gray>, out: &mut Map) -> Result<()> {
        let (width, height) = pair.frame.size();
        for (name, size) in [("warped template", Some(pair.template)), ("valid mask", Some(pair.valid)), ("zones", zones)]
            .map(|(n, p)| (n, p.map(Gray::size)))
        {
            if size.is_some_and(|size| size != (width, height)) {
                let (w, h) = size.unwrap_or_default();
                return Err(Error::internal(format!("the {name} is {w}x{h}, wanted {width}x{height} as the frame")));
            }
        }
        let plan = match self.plan.take().filter(|plan| plan.frame_size() == (width, height)) {
            Some(plan) => plan,
            None => Plan::new(width, height, &self.shape())?,
        };
        let result = self.compute_tiles(&plan, pair, zones, out);
        self.plan = Some(plan);
        result
    }

    fn compute_tiles(&mut self, plan: &Plan, pair: &Pair<'_>, zones: Option<&Gray>, out: &mut Map) -> Result<()> {
        self.needed.clear();
        self.needed.extend((0..plan.tiles()).filter(|&i| plan.is_needed(i, pair.valid, zones)));
        let fill = fill_table(pair);
        let (tile_w, tile_h) = (plan.x.tile, plan.y.tile);
        let fixed = self.info.contract.fixed_batch;
        for tiles in self.needed.chunks(fixed.unwrap_or(self.settings.batch)) {
            let n = fixed.unwrap_or(tiles.len());
            let write = |input: &mut [f32]| {
                let mut pictures = input.chunks_exact_mut(2 * tile_w * tile_h);
                for (&tile, picture) in tiles.iter().zip(&mut pictures) {
                    plan.write_input(tile, pair, &fill, picture);
                }
                // A fixed batch that is not full.
                pictures.for_each(|picture| picture.fill(0.0));
            };
            self.runner.run([n, tile_h, tile_w], write, |scores| {
                for (&tile, scores) in tiles.iter().zip(scores.chunks_exact(tile_w * tile_h)) {
                    plan.blend(tile, scores, out);
                }
            })?;
        }
        for (i, out) in out.data_mut().iter_mut().enumerate() {
            let kept = pair.valid.data()[i] != 0 && zones.is_none_or(|zones| zones.data()[i] != 0);
            *out = if kept { out.clamp(0.0, 1.0) } else { 0.0 };
        }
        Ok(())
    }

    fn shape(&self) -> Shape {
        let contract = &self.info.contract;
        let multiple = contract.multiple;
        Shape {
            tile_px: (self.settings.tile_px / multiple).max(1) * multiple,
            overlap_px: self.settings.overlap_px,
            multiple,
            fixed: contract.fixed_size,
        }
    }

    fn warm_up(&mut self) -> Result<()> {
        let side = WARM_UP_PX.min(self.settings.tile_px);
        let (width, height) = self.settings.warm_up_px.unwrap_or((side, side));
        let (template, frame) = crate::golden::pair(0, width, height);
        let valid = Gray::from_fn(width, height, |_, _| 255);
        let pair = Pair { template: &template, valid: &valid, frame: &frame };
        let mut out = Map::new(width, height);
        self.compute(&pair, None, &mut out)
    }

    fn describe(&self) -> String {
        let info = &self.info;
        format!(
            "model {} {} ({}, sha256 {}): provider {}{}, {}, ONNX Runtime {}, {} threads, parity {}",
            info.name,
            info.version,
            info.path.display(),
            &info.sha256[..12],
            info.provider,
            if info.partly_on_cpu { " (some nodes on the processor)" } else { "" },
            info.precision,
            info.runtime_version,
            info.threads,
            info.parity
        )
    }
}
