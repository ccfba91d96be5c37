//! `ssds inspect`: pairs of template and frame through registration, network and decision, offline.
//!
//! With `--pairs` every pair of a manifest is inspected: its defect map goes to `--maps DIR/<pair>.png` (16-bit gray, frame coordinates,
//! 0..65535 = score 0..1, 0 where the template does not cover the frame), its event line to `--out`. A pair that fails writes an all-zero
//! map and an ERROR line, and the run goes on. With `--template T --image I` one frame is inspected and its event printed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::align;
use crate::clock::{Clock, SystemClock};
use crate::dataset::{self, Manifest};
use crate::decide::{self, Decider};
use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, load_gray, save_map_png};
use crate::infer::{self, Detector};
use crate::pipeline::event::{Station, event_of, model_ref};
use crate::pipeline::finders::Finders;
use crate::pipeline::job::{Job, Product};
use crate::pipeline::registrar::Registrar;
use crate::pipeline::steps;
use crate::recipe::{self, DETECTORS};
use crate::record::event::{ClockState, InspectionEvent, ModelRef, Precision, Provider, Verdict};
use crate::residual::{self, Remover};
use crate::template::{Meta, Template};

/// What to inspect.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pair manifest (JSON lines).
    #[arg(long, required_unless_present = "image", conflicts_with_all = ["image", "template"])]
    pairs: Option<PathBuf>,
    /// Template picture of a single inspection.
    #[arg(long, requires = "image")]
    template: Option<PathBuf>,
    /// Frame of a single inspection.
    #[arg(long, requires = "template")]
    image: Option<PathBuf>,
    /// The network.
    #[arg(long, default_value = "models/ssds.onnx")]
    model: PathBuf,
    /// Folder for the defect maps.
    #[arg(long, requires = "pairs")]
    maps: Option<PathBuf>,
    /// File for the event lines (JSON lines); standard output when left out.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Folder for overlay pictures of what is NG.
    #[arg(long)]
    overlays: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Options of everything that runs the network offline.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineArgs {
    /// What finds the defects: ssds (the network), or a comparator: absdiff, ssim, variation.
    #[arg(long, default_value = "ssds", value_parser = detector_of)]
    pub method: recipe::Detector,
    /// libonnxruntime.so; searched in ORT_DYLIB_PATH, beside the program, in runtime/, /usr/lib/ssds and the system when left out.
    #[arg(long)]
    pub library: Option<PathBuf>,
    /// Execution providers, tried in this order.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    pub providers: Vec<infer::Provider>,
    /// CPU threads inside one run of the network.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Side of a tile, a multiple of 16; larger frames are tiled.
    #[arg(long, default_value_t = 640)]
    pub tile_px: usize,
    /// Overlap of neighbouring tiles.
    #[arg(long, default_value_t = 32)]
    pub overlap_px: usize,
    /// A pixel scoring at least this is defective.
    #[arg(long, default_value_t = 0.5)]
    pub threshold: f32,
    /// Smallest region that counts, frame pixels.
    #[arg(long, default_value_t = 12)]
    pub min_area_px: usize,
    /// Largest rotation looked for, degrees either way.
    #[arg(long, default_value_t = 180.0)]
    pub max_rotation_degrees: f64,
    /// Largest local shift, px, that is removed between registration and network; 0 = off.
    #[arg(long, default_value_t = 0)]
    pub residual_px: usize,
    /// A registration below this confidence is refused.
    #[arg(long)]
    pub min_confidence: Option<f64>,
}

impl EngineArgs {
    /// The detector's settings for `model`.
    #[must_use]
    pub fn inference(&self, model: &Path) -> infer::Settings {
        infer::Settings {
            model: model.to_path_buf(),
            library: self.library.clone(),
            providers: self.providers.clone(),
            threads: self.threads,
            tile_px: self.tile_px,
            overlap_px: self.overlap_px,
            ..infer::Settings::default()
        }
    }

    /// The decision's settings.
    #[must_use]
    pub fn decision(&self) -> decide::Settings {
        decide::Settings { threshold: self.threshold, min_area_px: self.min_area_px, ..decide::Settings::default() }
    }

    /// The registration's settings.
    ///
    /// # Errors
    /// [`Kind::Usage`] for values out of range.
    pub fn align(&self) -> Result<align::Settings> {
        if !(0.0..=180.0).contains(&self.max_rotation_degrees) {
            return Err(Error::new(
                Kind::Usage,
                format!("--max-rotation-degrees must be from 0 to 180, got {}", self.max_rotation_degrees),
            ));
        }
        let mut settings = align::Settings { max_rotation_degrees: self.max_rotation_degrees, ..align::Settings::default() };
        if let Some(confidence) = self.min_confidence {
            settings.min_confidence = confidence;
        }
        Ok(settings)
    }
}

fn detector_of(name: &str) -> Result<recipe::Detector, String> {
    recipe::Detector::from_name(name).ok_or_else(|| format!("one of {} wanted", DETECTORS.join(", ")))
}

/// Registration, network and decision on one thread.
pub struct Inspector {
    align: align::Settings,
    decision: decide::Settings,
    registrar: Registrar,
    remover: Option<Remover>,
    method: recipe::Detector,
    finders: Finders,
    decider: Decider,
    station: Station,
    last_template: Option<(PathBuf, Arc<Product>)>,
}

impl Inspector {
    /// Opens the network, unless a comparator alone is asked for.
    ///
    /// # Errors
    /// As [`Detector::open`].
    pub fn open(model: &Path, engine: &EngineArgs) -> Result<Self> {
        let align = engine.align()?;
        let network = match engine.method {
            recipe::Detector::Ssds => Some(Detector::open(&engine.inference(model))?),
            recipe::Detector::Classical(_) => None,
        };
        let station = Station {
            name: "offline".into(),
            boot_id: "0".repeat(32),
            config_sha256: "0".repeat(64),
            simulated: false,
            product: "offline".into(),
            model: network.as_ref().map_or_else(no_model, |n| model_ref(n.info())),
        };
        let residual = residual::Settings { reach_px: engine.residual_px, ..residual::Settings::default() };
        let remover = (engine.residual_px > 0).then(|| Remover::new(&residual)).transpose()?;
        Ok(Self {
            align,
            decision: engine.decision(),
            registrar: Registrar::new(),
            remover,
            method: engine.method,
            finders: Finders::new(network),
            decider: Decider::new(),
            station,
            last_template: None,
        })
    }

    /// The template of `path`, prepared; consecutive pairs with the same template prepare it once.
    fn product(&mut self, path: &Path) -> Result<Arc<Product>> {
        if let Some((last, product)) = &self.last_template
            && last == path
        {
            return Ok(Arc::clone(product));
        }
        let image = load_gray(path)?;
        let template = Arc::new(Template::loose("offline/main", image, Meta::at(SystemClock.now()))?);
        let mut product = Product::new(vec![(template, self.decision.clone())], &self.align)
            .map_err(|e| e.context(format!("template {}", path.display())))?;
        product.detector = self.method;
        let product = Arc::new(product);
        self.last_template = Some((path.to_path_buf(), Arc::clone(&product)));
        Ok(product)
    }

    /// Inspects one pair. A fault of the pair is in the job (`fault`), its map then all zero.
    pub fn inspect(&mut self, template: &Path, image: &Path, job: &mut Job) {
        let clock = SystemClock;
        (job.captured_at, job.captured_mono_ns) = (clock.now(), clock.mono_ns());
        job.source = image.to_string_lossy().into();
        job.trigger = "replay";
        match load_gray(image) {
            Ok(picture) => job.image = picture,
            Err(e) => {
                job.image = Gray::new(1, 1);
                job.fail("FRAME_INVALID", format!("{e:#}"));
            }
        }
        match self.product(template) {
            Ok(product) => job.product = Some(product),
            Err(e) => job.fail("NO_TEMPLATE", format!("{e:#}")),
        }
        job.admitted = std::time::Instant::now();
        steps::align(job, &mut self.registrar, self.remover.as_mut());
        steps::infer(job, &mut self.finders);
        steps::decide(job, &mut self.decider);
        if job.fault.is_some() {
            let (w, h) = job.image.size();
            job.map.reset(w, h);
        }
    }

    /// The job's event.
    #[must_use]
    pub fn event(&self, job: &Job) -> InspectionEvent {
        event_of(job, &self.station, ClockState::Unknown, None)
    }
}

/// Inspects.
///
/// # Errors
/// Wrong arguments, an unusable model or manifest, outputs that cannot be written. Faults of single pairs are ERROR lines, not errors.
pub fn run(args: Args) -> Result<u8> {
    let mut inspector = Inspector::open(&args.model, &args.engine)?;
    let mut out: Box<dyn Write> = match &args.out {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path)
                .map_err(|e| Error::io(format!("--out {}", path.display()), e).with_kind(Kind::CannotCreate))?,
        )),
        None => Box::new(std::io::stdout()),
    };
    let write_error = |e: std::io::Error| Error::io("event line", e);
    if let (Some(template), Some(image)) = (&args.template, &args.image) {
        for path in [template, image] {
            load_gray(path)?;
        }
        let mut job = Job::new();
        inspector.inspect(template, image, &mut job);
        let event = inspector.event(&job);
        overlay(args.overlays.as_deref(), "inspection", &job)?;
        writeln!(out, "{}", to_json(&event)?).map_err(write_error)?;
        out.flush().map_err(write_error)?;
        return Ok(exit_code(event.verdict));
    }
    let manifest = args.pairs.as_deref().unwrap_or(Path::new(""));
    let manifest = Manifest::read(manifest)?;
    let (mut counts, started) = ([0usize; 3], std::time::Instant::now());
    for pair in &manifest.pairs {
        let mut job = Job::new();
        inspector.inspect(&manifest.folder.join(&pair.template), &manifest.folder.join(&pair.image), &mut job);
        if let Some(maps) = &args.maps {
            let path = dataset::path_for(maps, &pair.id, "png")?;
            save_map_png(&path, &job.map)?;
        }
        let event = inspector.event(&job);
        counts[event.verdict.code() as usize] += 1;
        if event.verdict == Verdict::Ng {
            overlay(args.overlays.as_deref(), &pair.id, &job)?;
        }
        let mut line =
            serde_json::to_value(&event).map_err(|e| Error::internal("an event cannot be written as JSON").with_source(e))?;
        line["pair"] = pair.id.clone().into();
        writeln!(out, "{line}").map_err(write_error)?;
    }
    out.flush().map_err(write_error)?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "{} pairs: {} OK, {} NG, {} ERROR in {seconds:.1} s ({:.1} ms a pair, {})",
        manifest.pairs.len(),
        counts[0],
        counts[1],
        counts[2],
        1e3 * seconds / manifest.pairs.len().max(1) as f64,
        inspector.finders.network().map_or(inspector.method.name(), |n| n.info().provider)
    );
    Ok(if counts[2] > 0 { 2 } else { u8::from(counts[1] > 0) })
}

/// The model of an inspection that ran none.
fn no_model() -> ModelRef {
    let sha256 = "0".repeat(64);
    ModelRef {
        name: "none".into(),
        version: None,
        sha256,
        provider: Provider::Cpu,
        precision: Precision::Fp32,
        runtime_version: None,
    }
}

fn overlay(folder: Option<&Path>, name: &str, job: &Job) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    let path = dataset::path_for(folder, name, "png")?;
    crate::pipeline::evidence::write(&path, job)
}

fn to_json(event: &InspectionEvent) -> Result<String> {
    serde_json::to_string(event).map_err(|e| Error::internal("an event cannot be written as JSON").with_source(e))
}

fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Ok => 0,
        Verdict::Ng => 1,
        Verdict::Error => 2,
    }
}
