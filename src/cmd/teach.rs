//! `ssds teach`: a product's template from defect-free pictures; one is enough.
//!
//! The first picture is checked (readable, sharp, with structure, not to be mistaken for itself at another pose, registers to itself) and
//! refused with the reason unless `--force` is given; how precisely it can be registered is told. The others must register to it; the first is the template, the others become a bank in its
//! coordinates, of which the best registered one is compared with, and with `--tolerance` what good parts vary by is learnt from all.
//! The version is stored content-addressed and activated. With `--prove` simulated good and defective parts are inspected first
//! ([`crate::prove`]) by the product's recipe, and what can be seen is told.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use crate::align::{self, Aligner, NOISE, Registration, TemplateModel, TemplateQuality, warp};
use crate::capture::Values;
use crate::classical::learn::Learner;
use crate::classical::{Comparator, Detect};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, Map, load_gray};
use crate::geometry::{Affine, Rect};
use crate::infer;
use crate::prove::{self, Proof};
use crate::recipe::{Detector, Recipe};
use crate::template::store::{Draft, Store};
use crate::template::{Meta, Template, Tolerance, id_of};

/// Largest distance of a template's own registration from the identity, px at the corners.
const SELF_ERROR_PX: f64 = 0.25;

/// What to teach.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The product's name.
    product: String,
    /// Defect-free pictures of it; the first is the template.
    #[arg(required_unless_present = "grab")]
    images: Vec<PathBuf>,
    /// Take the picture with the configured camera instead; its control values are kept with the template, and a camera that later runs with
    /// others raises the alarm template_stale.
    #[arg(long, conflicts_with = "images")]
    grab: bool,
    /// Configuration file: names the template folder and the registration's limits.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// A note kept with the template.
    #[arg(long, default_value = "")]
    note: String,
    /// Size of a template pixel on the part, mm.
    #[arg(long)]
    mm_per_px: Option<f64>,
    /// Learn from all pictures how good parts vary, for the variation model.
    #[arg(long)]
    tolerance: bool,
    /// Keep the first picture alone; the others serve the tolerance only.
    #[arg(long, requires = "tolerance")]
    no_bank: bool,
    /// Store the version without putting it in force.
    #[arg(long)]
    no_activate: bool,
    /// Registration mask, of the picture's size: 0 = leave out what moves or varies. It is kept with the template.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Register on this part only: left, top, width, height in the picture's pixels. It becomes the mask, or cuts it.
    #[arg(long, value_name = "X,Y,W,H", value_parser = super::align::parse_region)]
    region: Option<Rect>,
    /// Take the picture although it is blank, blurred, symmetric or self-similar.
    #[arg(long)]
    force: bool,
    /// Prove what can be seen on this product with simulated good and defective parts; the figures are printed.
    #[arg(long)]
    prove: bool,
    /// Good parts of the proof, and as many with a defect.
    #[arg(long, default_value_t = 300, requires = "prove")]
    parts: usize,
    /// Recipe that the proof goes by; the product's last applied one when left out.
    #[arg(long, requires = "prove")]
    recipe: Option<PathBuf>,
    /// Write the proof as one picture.
    #[arg(long, requires = "prove")]
    sheet: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Teaches.
///
/// # Errors
/// An unreadable picture, a picture that cannot serve as a template (the reason is named), a store that cannot be written.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    let id = id_of(&args.product)?;
    if args.mm_per_px.is_some_and(|mm| !(1e-6..=1e3).contains(&mm)) {
        return Err(Error::new(
            Kind::Usage,
            format!("--mm-per-px must be from 0.000001 to 1000, got {}", args.mm_per_px.unwrap_or_default()),
        ));
    }
    let recipe = match &args.recipe {
        Some(path) => Some(Recipe::load(path)?),
        None if args.prove => super::recipe::book(&config)?.look_up(args.product.split('/').next().unwrap_or(&args.product))?,
        None => None,
    };
    let base = super::run::align_settings(&config);
    let settings = recipe.as_ref().map_or_else(|| base.clone(), |r| r.align(&base));
    let (first, source, camera) = match args.images.first() {
        Some(path) => (load_gray(path)?, path.to_string_lossy().into_owned(), Values::new()),
        None => super::camera::take(&config)?,
    };
    let (w, h) = first.size();
    let mask = registration_mask(&args, (w, h))?;
    let Checked { model, confidence, quality } = check(&first, mask.as_ref(), &source, &settings, args.force)?;

    let meta = Meta { source, camera, note: args.note.clone(), mm_per_px: args.mm_per_px, ..Meta::at(SystemClock.now()) };
    let others = gather(args.images.get(1..).unwrap_or_default(), &first, &model, &settings)?;
    let mut draft = Draft { mask, ..Draft::new(&id, first, meta) };
    if args.tolerance {
        let mut learner = Learner::new(&draft.image);
        for other in &others {
            learner.add(&other.picture, &other.covered)?;
        }
        draft.tolerance = Some(learner.finish()?);
    }
    if !args.no_bank {
        draft.bank = others.iter().map(|o| o.filled(&draft.image)).collect();
    }
    let store = Store::open(&config.template_dir())?;
    let template = store.add(&draft)?;
    // Proved before it comes into force: when the proof cannot be had, the template before stays active.
    let proof = match args.prove {
        true => Some(prove_template(&config, &template, &model, &settings, recipe.as_ref(), &args)?),
        false => None,
    };
    if !args.no_activate {
        store.activate(&template.id, template.version, SystemClock.now())?;
    }
    if args.json {
        println!(
            "{}",
            serde_json::json!({"id": template.id, "version": template.version, "sha256": template.sha256, "size_px": [w, h],
                "active": !args.no_activate, "pictures": 1 + template.bank.len(), "tolerance_parts": template.tolerance.as_ref().map(|t| t.parts),
                "confidence": confidence, "quality": quality_json(&quality), "proof": proof})
        );
    } else {
        let state = if args.no_activate { "is stored" } else { "is active" };
        println!("{} version {} ({w}x{h}, sha256 {}) {state}", template.id, template.version, &template.sha256[..12]);
        println!(
            "registration: expected corner error {:.3} px at {NOISE} gray levels of noise | edges {:.1} px wide | margin to half a turn {:.2}, to any other pose {:.2}",
            quality.expected_corner_error_px, quality.edge_width_px, quality.margin_180, quality.margin_self
        );
        for reason in quality.reasons() {
            println!("taken by force although {reason}");
        }
        if !template.bank.is_empty() {
            println!("bank of {} pictures; the best registered one is compared with", 1 + template.bank.len());
        }
        if let Some(t) = &template.tolerance {
            println!("variation learnt from {} parts", t.parts);
        }
        for line in proof.iter().flat_map(Proof::lines) {
            println!("{line}");
        }
    }
    Ok(0)
}

/// A picture that can serve as a template.
struct Checked {
    /// Its side of the registration.
    model: TemplateModel,
    /// Confidence of its registration to itself.
    confidence: f32,
    /// What registration can expect of it.
    quality: TemplateQuality,
}

/// Checks that `image` (from `source`) can serve as a template, registered on where `mask` is 255 (`None` = everywhere). By force a weak
/// one passes too.
fn check(image: &Gray, mask: Option<&Gray>, source: &str, settings: &align::Settings, force: bool) -> Result<Checked> {
    let what = || format!("template picture {source}");
    let model = TemplateModel::new(image, mask, settings).map_err(|e| e.context(what()))?;
    let quality = align::assess(image, mask, settings).map_err(|e| e.context(what()))?;
    if !quality.weaknesses.is_empty() && !force {
        let reasons = quality.reasons().join("; ");
        return Err(Error::data(format!("{}: cannot serve as a template: {reasons}; --force takes it all the same", what())));
    }
    let found = Aligner::new(settings).align(&model, image);
    let (w, h) = image.size();
    let off = found.frame_from_template.corner_error(&Affine::IDENTITY, w, h);
    if (!found.accepted || off > SELF_ERROR_PX) && !force {
        let why = if found.accepted {
            format!("it looks alike in another pose ({off:.1} px off)")
        } else {
            format!("confidence {:.2} where at least {:.2} is wanted", found.confidence, settings.min_confidence)
        };
        return Err(Error::data(format!("{}: cannot serve as a template: it does not register to itself: {why}", what())));
    }
    Ok(Checked { model, confidence: found.confidence, quality })
}

/// Stores one picture and puts it in force; what the page's teaching answers.
///
/// # Errors
/// A picture that cannot serve (the reason is named), a store that cannot be written.
pub fn teach(config: &Config, product: &str, image: Gray, note: &str) -> Result<serde_json::Value> {
    let source = "sent over HTTP";
    let (w, h) = image.size();
    let checked = check(&image, None, source, &super::run::align_settings(config), false)?;
    let meta = Meta { source: source.to_owned(), note: note.to_owned(), ..Meta::at(SystemClock.now()) };
    let store = Store::open(&config.template_dir())?;
    let added = store.add(&Draft::new(&id_of(product)?, image, meta))?;
    let template = store.activate(&added.id, added.version, SystemClock.now())?;
    Ok(serde_json::json!({
        "id": template.id, "version": template.version, "sha256": template.sha256, "size_px": [w, h], "active": true,
        "confidence": checked.confidence, "quality": quality_json(&checked.quality),
    }))
}

/// The mask file cut to the region; `None` when neither is given.
fn registration_mask(args: &Args, (w, h): (usize, usize)) -> Result<Option<Gray>> {
    let mut mask = args.mask.as_deref().map(load_gray).transpose()?;
    if let Some(r) = args.region {
        if r.x.saturating_add(r.width) > w || r.y.saturating_add(r.height) > h {
            let Rect { x, y, width, height } = r;
            return Err(Error::new(
                Kind::Usage,
                format!("--region {x},{y},{width},{height} reaches outside the picture of {w}x{h} px"),
            ));
        }
        let whole = mask.take().unwrap_or_else(|| Gray::from_fn(w, h, |_, _| 255));
        let (mw, mh) = whole.size();
        mask = Some(Gray::from_fn(mw, mh, |x, y| if r.contains(x, y) { whole.get(x, y) } else { 0 }));
    }
    Ok(mask.map(|m| Gray::from_fn(m.width(), m.height(), |x, y| if m.get(x, y) == 0 { 0 } else { 255 })))
}

/// How well the template can be registered, for the JSON answer.
fn quality_json(q: &TemplateQuality) -> serde_json::Value {
    serde_json::json!({
        "expected_corner_error_px": q.expected_corner_error_px, "contrast": q.contrast, "edge_width_px": q.edge_width_px,
        "margin_180": q.margin_180, "margin_self": q.margin_self, "used_share": q.used_share,
        "weaknesses": q.weaknesses.iter().map(|w| w.code()).collect::<Vec<_>>(),
    })
}

/// A further picture in the template's coordinates.
struct Other {
    picture: Gray,
    covered: Gray,
}

impl Other {
    /// The picture, with the template's pixels where it shows nothing of the part.
    fn filled(&self, template: &Gray) -> Gray {
        let mut out = self.picture.clone();
        for ((o, &c), &t) in out.data_mut().iter_mut().zip(self.covered.data()).zip(template.data()) {
            if c == 0 {
                *o = t;
            }
        }
        out
    }
}

/// Registers further pictures to the first and moves them to its coordinates.
fn gather(images: &[PathBuf], first: &Gray, model: &TemplateModel, settings: &align::Settings) -> Result<Vec<Other>> {
    let mut aligner = Aligner::new(settings);
    let mut out = Vec::new();
    for path in images {
        let picture = load_gray(path)?;
        let found: Registration = aligner.align(model, &picture);
        let back = found.frame_from_template.invert().filter(|_| found.accepted);
        let Some(back) = back else {
            let why = found.refusal.as_ref().map_or_else(String::new, |r| format!(": {r}"));
            return Err(Error::data(format!(
                "picture {}: does not show the part of the first picture (confidence {:.2}){why}",
                path.display(),
                found.confidence
            )));
        };
        let mut other = Other { picture: Gray::default(), covered: Gray::default() };
        warp::warp_template(&picture, &back, first.size(), &mut other.picture, &mut other.covered);
        out.push(other);
    }
    Ok(out)
}

/// Runs the proof with the recipe's detector and decision, one detector a core.
fn prove_template(
    config: &Config,
    template: &Template,
    model: &TemplateModel,
    align: &align::Settings,
    recipe: Option<&Recipe>,
    args: &Args,
) -> Result<Proof> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let base = super::run::decision_settings(config);
    let decision = recipe.map_or_else(|| base.clone(), |r| r.decision(&base));
    let zones = recipe.map(|r| r.zone_map(template.image.size(), &base)).transpose()?.flatten();
    let mut detectors = (0..cores).map(|_| Finder::open(config, recipe)).collect::<Result<Vec<_>>>()?;
    let subject = prove::Subject { template, model, align, decision: &decision, zones: zones.as_ref() };
    let mut settings =
        prove::Settings { good: args.parts, defective: args.parts, ..prove::Settings::for_template(template.image.size()) };
    // Parts as the line allows them: a pose it refuses says nothing about detection.
    let turn = settings.parts.rotation_degrees[1].min(align.max_rotation_degrees);
    settings.parts.rotation_degrees = [-turn, turn];
    settings.parts.scale = [settings.parts.scale[0].max(align.min_scale), settings.parts.scale[1].min(align.max_scale)];
    if let Some(most) = recipe.and_then(|r| r.pose.max_shift_px) {
        let most = most.min(settings.parts.shift_px[1]);
        settings.parts.shift_px = [-most, most];
    }
    let bar = Bar::new();
    let proof = prove::prove(subject, &mut detectors, &settings, &|done, total| bar.show(done, total))?;
    if let Some(path) = &args.sheet {
        write_sheet(&proof, template, path)?;
    }
    Ok(proof)
}

fn write_sheet(proof: &Proof, template: &Template, path: &Path) -> Result<()> {
    proof.sheet(&format!("{} version {}", template.id, template.version), &template.image).save(path)
}

/// A progress bar on standard error: redrawn in place on a terminal, a line every tenth elsewhere.
struct Bar {
    start: Instant,
    terminal: bool,
    told: Mutex<usize>,
}

impl Bar {
    fn new() -> Self {
        Self { start: Instant::now(), terminal: std::io::stderr().is_terminal(), told: Mutex::new(0) }
    }

    fn show(&self, done: usize, total: usize) {
        const CELLS: usize = 30;
        let steps = if self.terminal { 100 } else { 10 };
        let step = done * steps / total.max(1);
        // Two workers may end out of order: the bar never goes back.
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if step <= *told {
            return;
        }
        *told = step;
        let spent = self.start.elapsed().as_secs_f64();
        let left = spent * (total - done) as f64 / done.max(1) as f64;
        let full = done * CELLS / total.max(1);
        let bar = format!("[{}{}]", "#".repeat(full), ".".repeat(CELLS - full));
        let line = format!("proof {bar} {done}/{total} parts, {spent:.0} s, {left:.0} s left");
        if self.terminal {
            eprint!("\r{line}  ");
            if done == total {
                eprintln!();
            }
        } else {
            eprintln!("{line}");
        }
    }
}

/// The proof's detector: the network, or the comparator that the recipe names.
enum Finder {
    Network(Box<infer::Detector>),
    Comparator(Box<Comparator>),
}

impl Finder {
    fn open(config: &Config, recipe: Option<&Recipe>) -> Result<Self> {
        match recipe.map_or(Detector::Ssds, |r| r.detector) {
            Detector::Ssds => super::run::open_detector(config).map(|d| Finder::Network(Box::new(d))),
            Detector::Classical(method) => {
                let settings = recipe.map(|r| r.classical.clone()).unwrap_or_default();
                Comparator::new(method, &settings).map(|c| Finder::Comparator(Box::new(c)))
            }
        }
    }
}

impl Detect for Finder {
    fn detect(&mut self, warped_template: &Gray, valid: &Gray, frame: &Gray, out: &mut Map) -> Result<()> {
        match self {
            Finder::Network(n) => n.detect(warped_template, valid, frame, out),
            Finder::Comparator(c) => c.detect(warped_template, valid, frame, out),
        }
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
        match self {
            Finder::Network(n) => n.detect(warped_template, valid, frame, out),
            Finder::Comparator(c) => c.detect_learnt(tolerance, frame_from_template, warped_template, valid, frame, out),
        }
    }
}
