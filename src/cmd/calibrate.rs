//! `ssds calibrate`: the threshold that good parts need, with the false-reject rate it promises.
//!
//! The good parts are pictures in a folder, inspected by the recipe in force, or what the archive keeps. From each part comes its
//! critical score: the highest threshold at which it would have been NG ([`crate::calibrate`]).

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::json;

use super::archive::Filter;
use super::template::print_json;
use crate::calibrate::{Calibration, Demand, calibrate, critical_score};
use crate::config::{self, Config};
use crate::decide::{Decider, PlacedZones};
use crate::error::{Error, Kind, Result};
use crate::frame::load_gray;
use crate::pipeline::finders::Finders;
use crate::pipeline::job::{Job, Product};
use crate::pipeline::registrar::Registrar;
use crate::pipeline::steps;
use crate::record::archive::replay::Seen;
use crate::record::archive::{Archive, Entry};
use crate::record::event::Verdict;
use crate::record::labels::{self, Truth};
use crate::residual::Remover;

/// Which parts, and what is asked of the threshold.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file: names product, network and archive.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// Folder of pictures of good parts (PNG, JPEG, BMP, TIFF).
    #[arg(long, conflicts_with = "archive", required_unless_present = "archive")]
    good: Option<PathBuf>,
    /// Take the good parts of the archive: decided OK and not labelled ng, or labelled ok.
    #[arg(long)]
    archive: bool,
    #[command(flatten)]
    filter: Filter,
    /// False-reject rate to stay under.
    #[arg(long, default_value_t = 0.01)]
    max_reject_rate: f64,
    /// Confidence of that statement.
    #[arg(long, default_value_t = 0.95)]
    confidence: f64,
    /// Added to the threshold that the good parts need.
    #[arg(long, default_value_t = 0.05)]
    margin: f32,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Scores of good parts, and what could not be used.
#[derive(Debug, Default)]
struct Parts {
    scores: Vec<f32>,
    refused: Vec<String>,
    passed_over: usize,
}

/// Runs.
///
/// # Errors
/// Too few good parts, parts whose scores leave no threshold, an empty folder or archive.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    let product = super::run::load_product(&config)?;
    let parts = match &args.good {
        Some(folder) => of_folder(&config, product, folder)?,
        None => of_archive(&config, &product, &args.filter)?,
    };
    for why in &parts.refused {
        eprintln!("not used: {why}");
    }
    let demand = Demand { max_reject_rate: args.max_reject_rate, confidence: args.confidence, margin: args.margin };
    let answer = calibrate(&parts.scores, &demand)?;
    tell(&answer, &parts, &args)?;
    Ok(0)
}

fn tell(c: &Calibration, parts: &Parts, args: &Args) -> Result<()> {
    if args.json {
        return print_json(&json!({"calibration": c, "not_used": parts.refused, "passed_over": parts.passed_over}));
    }
    println!("threshold        {:.4} (margin {} included)", c.threshold, args.margin);
    println!(
        "good parts       {} used, {} could not be inspected, {} passed over",
        c.parts,
        parts.refused.len(),
        parts.passed_over
    );
    println!("highest score    {:.4} of any good part", c.worst_score);
    println!(
        "false rejects    {} of {}; in production at most {:.2} % ({:.0} % confidence), for parts like these",
        c.rejected,
        c.parts,
        100.0 * c.reject_rate_bound,
        100.0 * c.confidence
    );
    if args.archive {
        println!(
            "note             parts that were NG count only when labelled ok: scores above the present threshold are seen through labels alone"
        );
    }
    println!("in the recipe    [decision] threshold = {:.4}", c.threshold);
    Ok(())
}

/// Inspects every picture of a folder.
fn of_folder(config: &Config, product: Product, folder: &Path) -> Result<Parts> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|e| Error::io(format!("--good {}", folder.display()), e))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::new(Kind::Missing, format!("--good {}: no picture is in it", folder.display())));
    }
    let network = match product.detector {
        crate::recipe::Detector::Ssds => Some(super::run::open_detector(config)?),
        crate::recipe::Detector::Classical(_) => None,
    };
    let product = std::sync::Arc::new(Product { compare_with: None, ..product });
    let (mut registrar, mut finders, mut decider) = (Registrar::new(), Finders::new(network), Decider::new());
    let mut remover = super::run::residual_settings(config).map(|s| Remover::new(&s)).transpose()?;
    let mut out = Parts::default();
    for path in &files {
        let mut job = Job::new();
        job.product = Some(std::sync::Arc::clone(&product));
        job.image = match load_gray(path) {
            Ok(picture) => picture,
            Err(e) => {
                out.refused.push(format!("{e:#}"));
                continue;
            }
        };
        steps::align(&mut job, &mut registrar, remover.as_mut());
        steps::infer(&mut job, &mut finders);
        if let Some(fault) = &job.fault {
            out.refused.push(format!("{}: {}: {}", path.display(), fault.code, fault.message));
            continue;
        }
        let (Some(view), Some(r)) = (job.view(), &job.registration) else {
            return Err(Error::internal("a registered frame without view or pose"));
        };
        let back = r.frame_from_template.invert();
        let zones = view.decision.zones.as_deref().zip(back.as_ref());
        let placed = zones.map(|(map, template_from_frame)| PlacedZones { map, template_from_frame });
        out.scores.push(critical_score(&mut decider, &job.map, &job.valid, &job.image, &job.warped, &view.decision, placed)?);
    }
    Ok(out)
}

/// Takes the good parts of the archive, by the product in force.
fn of_archive(config: &Config, product: &Product, filter: &Filter) -> Result<Parts> {
    let archive = Archive::open(&config.archive_dir())?;
    let (labels, faults) = labels::read(&config.path("paths.state_dir").join(labels::FILE))?;
    faults.iter().for_each(|f| log::warn!("{f}"));
    let good = |e: &Entry| match labels.get(&e.event_id).map(|l| l.truth) {
        Some(truth) => truth == Truth::Ok,
        None => e.verdict() == Verdict::Ok,
    };
    let entries: Vec<Entry> = filter.entries(&archive)?.into_iter().filter(|e| good(e)).collect();
    if entries.is_empty() {
        return Err(Error::new(
            Kind::Missing,
            format!("archive {}: no good part in it (of these verdicts and times)", config.archive_dir().display()),
        ));
    }
    let scores: Vec<Result<Option<f32>>> =
        entries.par_iter().map_init(Decider::new, |decider, entry| score_of(product, entry, decider)).collect();
    let mut out = Parts::default();
    for score in scores {
        match score? {
            Some(score) => out.scores.push(score),
            None => out.passed_over += 1,
        }
    }
    Ok(out)
}

/// None for a part of another product, detector or template, or one that was not inspected.
fn score_of(product: &Product, entry: &Entry, decider: &mut Decider) -> Result<Option<f32>> {
    let manifest = entry.manifest()?;
    let view = product
        .views
        .iter()
        .find(|v| v.template.id == manifest.template.id && manifest.template_size_px == Some(v.template.image.size()));
    let Some(view) = view.filter(|_| manifest.decision.is_some() && manifest.detector == product.detector.name()) else {
        return Ok(None);
    };
    let seen = Seen::scores(entry, &manifest)?;
    let blank = crate::frame::Gray::new(seen.map.width(), seen.map.height());
    let back = seen.pose.invert();
    let zones = view.decision.zones.as_deref().zip(back.as_ref());
    let placed = zones.map(|(map, template_from_frame)| PlacedZones { map, template_from_frame });
    critical_score(decider, &seen.map, &seen.valid, &blank, &blank, &view.decision, placed).map(Some)
}
