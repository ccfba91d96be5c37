//! `ssds teach`: a product's template from one defect-free picture.
//!
//! The picture is checked (readable, registers to itself), stored content-addressed as the next version, and activated.

use std::path::PathBuf;

use crate::align::{Aligner, TemplateModel};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::load_gray;
use crate::geometry::Affine;
use crate::template::store::{Draft, Store};
use crate::template::{Meta, id_of};

/// Largest distance of a template's own registration from the identity, px at the corners.
const SELF_ERROR_PX: f64 = 0.25;

/// What to teach.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The product's name.
    product: String,
    /// A defect-free picture of it.
    image: PathBuf,
    /// Configuration file: names the template folder and the registration's limits.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// A note kept with the template.
    #[arg(long, default_value = "")]
    note: String,
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
    let image = load_gray(&args.image)?;
    let settings = super::run::align_settings(&config);
    let what = || format!("template picture {}", args.image.display());
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
    let meta = Meta { source: args.image.to_string_lossy().into_owned(), note: args.note, ..Meta::at(SystemClock.now()) };
    let store = Store::open(&config.template_dir())?;
    let template = store.add(&Draft::new(&id_of(&args.product)?, image, meta))?;
    store.activate(&template.id, template.version, SystemClock.now())?;
    if args.json {
        println!(
            "{}",
            serde_json::json!({"id": template.id, "version": template.version, "sha256": template.sha256, "size_px": [w, h], "active": true,
                "confidence": found.confidence})
        );
    } else {
        println!("{} version {} ({w}x{h}, sha256 {}) is active", template.id, template.version, &template.sha256[..12]);
    }
    Ok(0)
}
