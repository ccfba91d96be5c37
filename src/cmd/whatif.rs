//! `ssds whatif`: what another recipe would have made of the archived parts.
//!
//! Every part with evidence is decided again from its stored score map by the new recipe's settings, zones and limits; no network runs.
//! Told are the parts that would flip, by old and new verdict, and in a page with their pictures. What cannot be said is counted with its
//! reason: parts of another product, parts that were never inspected, parts judged by another detector. Limit: where the zones in force then
//! left a whole tile of a large frame unjudged, the network did not look and the stored scores are 0.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use rayon::prelude::*;
use serde::Serialize;

use super::archive::Filter;
use super::template::print_json;
use crate::config::{self, Config};
use crate::decide::{self, Decision};
use crate::error::{Error, Kind, Result};
use crate::overlay::{Headline, Scene, render};
use crate::pipeline::job::{ImageStats, Product};
use crate::recipe::Recipe;
use crate::record::archive::manifest::Manifest;
use crate::record::archive::replay::{self, Replayer, Seen, verdict_of};
use crate::record::archive::{Archive, Entry, picture};
use crate::record::event::Verdict;
use crate::score::plot::escape;

/// What to ask.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file: names the archive and what recipes build on.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// The recipe's file.
    #[arg(long)]
    recipe: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// Write a page (one HTML file) with the parts that would flip.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Most flips with pictures on that page; the others are listed.
    #[arg(long, default_value_t = 100)]
    pictures: usize,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// A part whose verdict would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flip {
    /// The event.
    pub event_id: String,
    /// Its number.
    pub seq: u64,
    /// When the frame was taken.
    pub captured_at: crate::clock::Timestamp,
    /// As recorded.
    pub was: Verdict,
    /// By the new recipe.
    pub now: Verdict,
    /// Highest judged score, as recorded and now.
    pub max_score: (f32, f32),
    /// Defects, as recorded and now.
    pub defects: (usize, usize),
    /// Why.
    pub why: String,
    #[serde(skip)]
    entry: Entry,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WhatIf {
    /// Parts with evidence that were looked at.
    pub parts: usize,
    /// Those decided again.
    pub decided: usize,
    /// Verdicts kept.
    pub same: usize,
    /// Flips by `WAS -> NOW`.
    pub counts: BTreeMap<String, usize>,
    /// What cannot be said, by reason.
    pub unknown: BTreeMap<String, usize>,
    /// Every flip, oldest first.
    pub flips: Vec<Flip>,
    /// Seconds it took.
    pub seconds: f64,
}

/// What became of one part.
enum Answer {
    Same,
    Flip(Box<Flip>),
    Unknown(String),
}

/// The product that a recipe makes, with its decision settings painted for templates of any size.
struct Question<'a> {
    recipe: &'a Recipe,
    product: &'a Product,
    base: decide::Settings,
}

impl Question<'_> {
    /// The settings for the template of an event.
    fn settings(&self, manifest: &Manifest) -> Result<Option<decide::Settings>> {
        let Some(view) = self.product.views.iter().find(|v| v.template.id == manifest.template.id) else { return Ok(None) };
        match manifest.template_size_px {
            Some(size) if view.decision.zones.is_some() && size != view.template.image.size() => {
                let zones = self.recipe.zone_map(size, &self.base)?.map(Arc::new);
                Ok(Some(decide::Settings { zones, ..view.decision.clone() }))
            }
            _ => Ok(Some(view.decision.clone())),
        }
    }

    fn ask(&self, entry: &Entry, replayer: &mut Replayer) -> Result<Answer> {
        let unknown = |why: &str| Ok(Answer::Unknown(why.to_owned()));
        let manifest = match entry.manifest() {
            Ok(m) => m,
            // Removed by age meanwhile.
            Err(e) if e.kind() == Kind::Missing => return unknown("evidence gone meanwhile"),
            Err(e) => return Err(e),
        };
        if manifest.product != self.recipe.product {
            return unknown("another product");
        }
        let Some(record) = &manifest.decision else { return unknown("not inspected then") };
        if manifest.detector != self.product.detector.name() {
            return unknown("judged by another detector");
        }
        let Some(settings) = self.settings(&manifest)? else { return unknown("template not in the recipe") };
        let seen = Seen::scores(entry, &manifest)?;
        let decision = replayer.decide(&seen, &settings)?;
        let (now, why) = match self.refusal(&manifest, seen.map.size()) {
            Some(why) => (Verdict::Error, why),
            None => (verdict_of(&decision), reason(&decision)),
        };
        if now == manifest.verdict {
            return Ok(Answer::Same);
        }
        Ok(Answer::Flip(Box::new(Flip {
            event_id: manifest.event_id.clone(),
            seq: manifest.seq,
            captured_at: manifest.captured_at,
            was: manifest.verdict,
            now,
            max_score: (record.max_score.0 as f32, decision.max_score),
            defects: (record.blobs_total, decision.blobs_total),
            why,
            entry: entry.clone(),
        })))
    }

    /// The limit of picture or pose that would refuse the part.
    fn refusal(&self, manifest: &Manifest, frame: (usize, usize)) -> Option<String> {
        if let Some(image) = &manifest.image {
            let stats = ImageStats {
                mean: image.mean.0 as f32,
                saturated_frac: image.saturated_frac.0 as f32,
                focus: image.focus.0 as f32,
                // Noise is no recipe's to limit, and the configuration's limit held when the part was inspected.
                noise: 0.0,
            };
            if let Some((_, message)) = self.product.limits.broken_by(&stats) {
                return Some(message);
            }
        }
        let (pose, limits) = (manifest.pose.as_ref()?, &self.product.align);
        let (affine, template) = (pose.affine(), manifest.template_size_px?);
        let turn = affine.rotation_rad().to_degrees();
        if turn.abs() > limits.max_rotation_degrees {
            return Some(format!("turned by {turn:.2} degrees, align.max_rotation_degrees is {}", limits.max_rotation_degrees));
        }
        let scale = affine.scale();
        if !(limits.min_scale..=limits.max_scale).contains(&scale) {
            return Some(format!("scale {scale:.3}, align allows {} to {}", limits.min_scale, limits.max_scale));
        }
        if pose.confidence.0 < limits.min_confidence {
            return Some(format!("confidence {:.2}, align.min_confidence is {}", pose.confidence.0, limits.min_confidence));
        }
        let (dx, dy) = affine.centre_shift(template, frame);
        let most = self.product.max_shift_px?;
        (!(dx.abs() <= most && dy.abs() <= most))
            .then(|| format!("shifted by ({dx:.1}, {dy:.1}) px, align.max_shift_px is {most}"))
    }
}

fn reason(decision: &Decision) -> String {
    let word = |v: &decide::Violation| match v {
        decide::Violation::Count { found, allowed } => format!("{found} defects, {allowed} allowed"),
        decide::Violation::Area { found, allowed } => format!("a defect of {found} px, {allowed} allowed"),
        decide::Violation::TotalArea { found, allowed } => format!("{found} px in all, {allowed} allowed"),
    };
    if decision.violations.is_empty() {
        format!(
            "{} defects, {} blobs too small, highest score {:.3}",
            decision.blobs_total, decision.specks_total, decision.max_score
        )
    } else {
        decision.violations.iter().map(word).collect::<Vec<_>>().join("; ")
    }
}

/// Asks of every entry what `recipe` would have made of it, on every core.
///
/// # Errors
/// Damaged evidence, named; a recipe that does not fit ([`super::product::of_recipe`]).
pub fn ask(config: &Config, recipe: &Recipe, entries: &[Entry]) -> Result<WhatIf> {
    let start = std::time::Instant::now();
    let product = super::product::of_recipe(config, super::recipe::prepare(config, recipe.clone())?)?;
    let question = Question { recipe, product: &product, base: super::run::decision_settings(config) };
    let answers: Vec<Result<Answer>> =
        entries.par_iter().map_init(Replayer::default, |replayer, entry| question.ask(entry, replayer)).collect();
    let mut out = WhatIf { parts: entries.len(), ..WhatIf::default() };
    for answer in answers {
        match answer? {
            Answer::Same => out.same += 1,
            Answer::Unknown(why) => *out.unknown.entry(why).or_default() += 1,
            Answer::Flip(flip) => {
                *out.counts.entry(format!("{} -> {}", word(flip.was), word(flip.now))).or_default() += 1;
                out.flips.push(*flip);
            }
        }
    }
    out.decided = out.same + out.flips.len();
    out.seconds = start.elapsed().as_secs_f64();
    Ok(out)
}

fn word(v: Verdict) -> String {
    v.topic().to_uppercase()
}

impl WhatIf {
    /// The answer in lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let rate = self.parts as f64 / self.seconds.max(1e-9);
        let mut out = vec![format!(
            "{} archived parts, {} decided again: {} keep their verdict, {} would flip ({rate:.0} events/s)",
            self.parts,
            self.decided,
            self.same,
            self.flips.len()
        )];
        out.extend(self.counts.iter().map(|(what, n)| format!("flips    {what:<14} {n}")));
        out.extend(self.unknown.iter().map(|(why, n)| format!("unknown  {why}: {n}")));
        out
    }
}

/// Runs.
///
/// # Errors
/// A recipe that does not fit, an archive that is not there or is empty, damaged evidence.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    let recipe = Recipe::load(&args.recipe)?;
    let archive = Archive::open(&config.archive_dir())?;
    let entries = args.filter.entries(&archive)?;
    if entries.is_empty() {
        return Err(Error::new(
            Kind::Missing,
            format!("archive {}: no evidence to decide again (of these verdicts and times)", config.archive_dir().display()),
        ));
    }
    let answer = ask(&config, &recipe, &entries)?;
    if args.json {
        print_json(&answer)?;
    } else {
        for line in answer.lines() {
            println!("{line}");
        }
        for f in answer.flips.iter().take(50) {
            println!("{} seq {} {} {} -> {}: {}", f.event_id, f.seq, f.captured_at, word(f.was), word(f.now), f.why);
        }
        if answer.flips.len() > 50 {
            println!("and {} more; --json lists all", answer.flips.len() - 50);
        }
    }
    if let Some(path) = &args.html {
        write_page(&config, &recipe, &answer, path, args.pictures)?;
    }
    Ok(0)
}

/// Writes the page, pictures within it.
fn write_page(config: &Config, recipe: &Recipe, answer: &WhatIf, path: &Path, pictures: usize) -> Result<()> {
    use std::fmt::Write as _;
    let product = super::product::of_recipe(config, super::recipe::prepare(config, recipe.clone())?)?;
    let question = Question { recipe, product: &product, base: super::run::decision_settings(config) };
    let shown: Vec<Result<String>> = answer
        .flips
        .par_iter()
        .take(pictures)
        .map_init(Replayer::default, |replayer, flip| picture_of(&question, flip, replayer))
        .collect();
    let mut out = page_head(&format!("What if: recipe of {} ({})", recipe.product, &recipe.sha256[..12]));
    let _ = writeln!(out, "<pre>{}</pre>", escape(&answer.lines().join("\n")));
    for (flip, image) in answer.flips.iter().zip(shown) {
        let _ = writeln!(
            out,
            "<div class=\"part\"><b>{} &rarr; {}</b> seq {} of {} &mdash; {}<br><small>{}</small><br><img src=\"data:image/png;base64,{}\" alt=\"part {}\"></div>",
            word(flip.was),
            word(flip.now),
            flip.seq,
            flip.captured_at,
            escape(&flip.why),
            flip.event_id,
            image?,
            flip.seq
        );
    }
    if answer.flips.len() > pictures {
        let _ = writeln!(out, "<h2>{} more</h2><ul>", answer.flips.len() - pictures);
        for f in &answer.flips[pictures..] {
            let _ = writeln!(
                out,
                "<li>{} &rarr; {} seq {} of {} <small>{}</small>: {}</li>",
                word(f.was),
                word(f.now),
                f.seq,
                f.captured_at,
                f.event_id,
                escape(&f.why)
            );
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</html>\n");
    std::fs::write(path, out).map_err(|e| Error::io(format!("--html {}", path.display()), e).with_kind(Kind::CannotCreate))
}

/// The beginning of a page.
pub(super) fn page_head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title>\n<style>\
         body{{font-family:sans-serif;margin:1.5rem;background:#fafafa;color:#222}}\
         pre{{background:#fff;border:1px solid #ddd;padding:.8rem;overflow:auto}}\
         .part{{background:#fff;border:1px solid #ddd;margin:.8rem 0;padding:.6rem}}\
         img{{max-width:100%}}table{{border-collapse:collapse;background:#fff}}\
         td,th{{border:1px solid #ddd;padding:.25rem .6rem;text-align:right}}\
         td:first-child,th:first-child{{text-align:left}}</style>\n<h1>{0}</h1>\n",
        escape(title)
    )
}

/// The part with the defects of the decision that found some: the new one, or the recorded one for a part that would now pass.
fn picture_of(question: &Question<'_>, flip: &Flip, replayer: &mut Replayer) -> Result<String> {
    let manifest = flip.entry.manifest()?;
    let seen = Seen::all(&flip.entry, &manifest)?;
    let settings = match question.settings(&manifest)? {
        Some(new) if flip.now == Verdict::Ng => new,
        _ => replay::settings_of(&flip.entry, &manifest)?,
    };
    let decision = replayer.decide(&seen, &settings)?;
    let title = format!("{} seq {}: was {}", manifest.template.id, flip.seq, word(flip.was));
    let notes = [flip.why.clone(), format!("outlined by threshold {}", settings.threshold)];
    let canvas = render(&Scene {
        headline: match flip.now {
            Verdict::Ok => Headline::Ok,
            Verdict::Ng => Headline::Ng,
            Verdict::Error => Headline::Error,
        },
        title: &title,
        notes: &notes,
        frame: &seen.frame,
        template: Some(&seen.warped),
        map: Some(&seen.map),
        mask: None,
        blobs: &decision.blobs,
        threshold: settings.threshold,
        outline: manifest.template_size_px.map(|size| (seen.pose, size)),
    });
    let png = picture::rgb_png(canvas.rgb(), (canvas.width(), canvas.height()))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(png))
}
