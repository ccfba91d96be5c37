//! `ssds teach`: a product's template from one defect-free picture.
//!
//! The picture is checked (readable, registers to itself), stored content-addressed as the next version, and activated. With `--prove`
//! simulated good and defective parts are inspected first ([`crate::prove`]), and what can be seen is told.

use std::path::PathBuf;

use crate::align::{self, Aligner, TemplateModel};
use crate::capture::Values;
use crate::classical::Detect;
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::{Gray, Map, load_gray};
use crate::geometry::Affine;
use crate::infer::Detector;
use crate::prove::{self, Proof};
use crate::template::store::{Draft, Store};
use crate::template::{Meta, Template, id_of};

/// Largest distance of a template's own registration from the identity, px at the corners.
const SELF_ERROR_PX: f64 = 0.25;

/// What to teach.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The product's name.
    product: String,
    /// A defect-free picture of it.
    #[arg(required_unless_present = "grab")]
    image: Option<PathBuf>,
    /// Take the picture with the configured camera instead; its control values are kept with the template, and a camera that later runs with
    /// others raises the alarm template_stale.
    #[arg(long, conflicts_with = "image")]
    grab: bool,
    /// Configuration file: names the template folder and the registration's limits.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// A note kept with the template.
    #[arg(long, default_value = "")]
    note: String,
    /// Prove what can be seen on this product with simulated good and defective parts; the figures are printed.
    #[arg(long)]
    prove: bool,
    /// Good parts of the proof, and as many with a defect.
    #[arg(long, default_value_t = 300, requires = "prove")]
    parts: usize,
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
    let (image, source, camera) = match &args.image {
        Some(path) => (load_gray(path)?, path.to_string_lossy().into_owned(), Values::new()),
        None => super::camera::take(&config)?,
    };
    let meta = Meta { source, camera, note: args.note.clone(), ..Meta::at(SystemClock.now()) };
    let taught = store_template(&config, &args.product, image, meta)?;
    let Taught { store, template, model, settings, confidence } = &taught;
    let (w, h) = template.image.size();
    // Proved before it comes into force: when the proof cannot be had, the template before stays active.
    let proof = if args.prove { Some(prove_template(&config, template, model, settings, &args)?) } else { None };
    store.activate(&template.id, template.version, SystemClock.now())?;
    if args.json {
        println!(
            "{}",
            serde_json::json!({"id": template.id, "version": template.version, "sha256": template.sha256, "size_px": [w, h], "active": true,
                "confidence": confidence, "proof": proof})
        );
    } else {
        println!("{} version {} ({w}x{h}, sha256 {}) is active", template.id, template.version, &template.sha256[..12]);
        for line in proof.iter().flat_map(Proof::lines) {
            println!("{line}");
        }
    }
    Ok(0)
}

/// A template that was checked and stored, and is not in force yet.
pub struct Taught {
    /// Where it is.
    pub store: Store,
    /// The new version.
    pub template: Template,
    /// Its side of the registration.
    pub model: TemplateModel,
    /// The registration's settings.
    pub settings: align::Settings,
    /// Confidence of its registration to itself.
    pub confidence: f32,
}

/// Checks that `image` can serve as a template and stores it with `meta` as the product's next version.
///
/// # Errors
/// A picture that cannot serve (the reason is named), a store that cannot be written.
pub fn store_template(config: &config::Config, product: &str, image: Gray, meta: Meta) -> Result<Taught> {
    let settings = super::run::align_settings(config);
    let source = meta.source.clone();
    let what = || format!("template picture {source}");
    let model = TemplateModel::new(&image, None, &settings).map_err(|e| e.context(what()))?;
    let found = Aligner::new(&settings).align(&model, &image);
    let (w, h) = image.size();
    let off = found.frame_from_template.corner_error(&Affine::IDENTITY, w, h);
    if !found.accepted || off > SELF_ERROR_PX {
        let why = if found.accepted {
            format!("it looks alike in another pose ({off:.1} px off)")
        } else {
            format!("confidence {:.2} where at least {:.2} is wanted", found.confidence, settings.min_confidence)
        };
        return Err(Error::data(format!("{}: cannot serve as a template: it does not register to itself: {why}", what())));
    }
    let store = Store::open(&config.template_dir())?;
    let template = store.add(&Draft::new(&id_of(product)?, image, meta))?;
    Ok(Taught { store, template, model, settings, confidence: found.confidence })
}

/// Stores and activates; what the page's teaching answers.
///
/// # Errors
/// As [`store_template`].
pub fn teach(config: &config::Config, product: &str, image: Gray, note: &str) -> Result<serde_json::Value> {
    let (w, h) = image.size();
    let meta = Meta { source: "sent over HTTP".into(), note: note.to_owned(), ..Meta::at(SystemClock.now()) };
    let taught = store_template(config, product, image, meta)?;
    let template = taught.store.activate(&taught.template.id, taught.template.version, SystemClock.now())?;
    Ok(serde_json::json!({
        "id": template.id, "version": template.version, "sha256": template.sha256, "size_px": [w, h], "active": true,
        "confidence": taught.confidence,
    }))
}

/// Runs the proof with the configuration's detector and decision, one detector a core.
fn prove_template(
    config: &config::Config,
    template: &Template,
    model: &TemplateModel,
    align: &align::Settings,
    args: &Args,
) -> Result<Proof> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let mut detectors = (0..cores).map(|_| super::run::open_detector(config).map(Network)).collect::<Result<Vec<_>>>()?;
    let decision = super::run::decision_settings(config);
    let subject = prove::Subject { template, model, align, decision: &decision, zones: None };
    let mut settings =
        prove::Settings { good: args.parts, defective: args.parts, ..prove::Settings::for_template(template.image.size()) };
    // Parts as the line allows them: a pose it refuses says nothing about detection.
    let turn = settings.parts.rotation_degrees[1].min(align.max_rotation_degrees);
    settings.parts.rotation_degrees = [-turn, turn];
    settings.parts.scale = [settings.parts.scale[0].max(align.min_scale), settings.parts.scale[1].min(align.max_scale)];
    let proof = prove::prove(subject, &mut detectors, &settings, &|done, total| {
        if done.is_multiple_of(20) || done == total {
            eprint!("\rproof: {done} of {total} parts");
            if done == total {
                eprintln!();
            }
        }
    })?;
    if let Some(path) = &args.sheet {
        proof.sheet(&format!("{} version {}", template.id, template.version), &template.image).save(path)?;
    }
    Ok(proof)
}

/// The network as the proof's detector.
struct Network(Detector);

impl Detect for Network {
    fn detect(&mut self, warped_template: &Gray, valid: &Gray, frame: &Gray, out: &mut Map) -> Result<()> {
        self.0.detect(warped_template, valid, frame, out)
    }
}
