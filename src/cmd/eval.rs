//! `ssds eval`: scores defect maps against ground truth.
//!
//! Reads a pair manifest ([`crate::dataset`]); takes each pair's map from `--maps DIR` (`DIR/<pair>.png`, as `ssds inspect` writes them)
//! or from registration and network on this machine; prints a table or, with `--json`, an object; with `--html DIR` also writes
//! charts (SVG) and a page of the worst pairs. Figures and protocol are [`crate::score`]'s.

use std::path::{Path, PathBuf};

use super::inspect::{EngineArgs, Inspector};
use crate::dataset::{self, Manifest, Pair, Truth};
use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, Map, save_gray_png, save_rgb_png};
use crate::pipeline::job::Job;
use crate::score::plot::{Bars, Chart};
use crate::score::{self, Entry, PairScore, Report, Scorer};

/// What to score, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Pair manifest with ground truth (JSON lines).
    #[arg(long)]
    pub pairs: PathBuf,
    /// Folder of maps `<pair>.png` to score; without it the pairs are registered and detected with the model.
    #[arg(long)]
    pub maps: Option<PathBuf>,
    /// The network.
    #[arg(long, default_value = "models/ssds.onnx", conflicts_with = "maps")]
    pub model: PathBuf,
    /// Join pieces nearer than about twice this.
    #[arg(long, default_value_t = 4)]
    pub merge_px: usize,
    /// Grow the boxes of objects before matching.
    #[arg(long, default_value_t = 10)]
    pub pad_px: usize,
    /// Intersection over union a match needs.
    #[arg(long, default_value_t = 0.33)]
    pub iou: f64,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Folder for charts and a page of the worst pairs.
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// How many pairs that page shows.
    #[arg(long, default_value_t = 24)]
    pub worst: usize,
    #[command(flatten)]
    engine: EngineArgs,
}

/// A pair's outcome.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The defect map, scores 0..1 in frame coordinates.
    Map(Map),
    /// Registration was refused: scored as an all-zero map and counted.
    Refused,
}

/// What turns a pair into a map: files, or registration and a detector.
pub trait MapSource {
    /// The pair's outcome.
    ///
    /// # Errors
    /// Whatever keeps the pair from being answered; it ends the evaluation.
    fn answer(&mut self, manifest: &Manifest, pair: &Pair) -> Result<Answer>;
}

impl<F: FnMut(&Manifest, &Pair) -> Result<Answer>> MapSource for F {
    fn answer(&mut self, manifest: &Manifest, pair: &Pair) -> Result<Answer> {
        self(manifest, pair)
    }
}

/// Maps that lie in a folder as `<pair>.png`.
#[derive(Debug, Clone)]
pub struct MapFolder(pub PathBuf);

impl MapSource for MapFolder {
    fn answer(&mut self, _manifest: &Manifest, pair: &Pair) -> Result<Answer> {
        let path = self.0.join(format!("{}.png", pair.id));
        dataset::load_map(&path).map(Answer::Map).map_err(|e| e.context(format!("pair `{}`", pair.id)))
    }
}

/// A pair kept for the page.
#[derive(Debug, Clone)]
struct Kept {
    score: PairScore,
    index: usize,
    map: Map,
}

/// A scored set, with the maps of its worst pairs.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// All figures are here.
    pub scorer: Scorer,
    worst: Vec<Kept>,
}

/// From worst to best: missed defects, false alarms, then pixel AP.
fn badness(a: &PairScore, b: &PairScore) -> std::cmp::Ordering {
    b.missed
        .cmp(&a.missed)
        .then(b.false_alarms.cmp(&a.false_alarms))
        .then(a.pixel_ap.unwrap_or(1.0).total_cmp(&b.pixel_ap.unwrap_or(1.0)))
}

fn truth_of(manifest: &Manifest, pair: &Pair) -> Result<Truth> {
    manifest
        .truth(pair)?
        .ok_or_else(|| Error::data(format!("pair `{}`: eval needs a mask or boxes, the manifest has neither", pair.id)))
}

/// Scores every pair of `manifest` and keeps the maps of the `worst` worst.
///
/// # Errors
/// [`Kind::Data`] when a pair has no truth or a map does not fit it; what `source` fails with.
pub fn evaluate(manifest: &Manifest, settings: score::Settings, source: &mut dyn MapSource, worst: usize) -> Result<Evaluation> {
    let mut scorer = Scorer::new(settings)?;
    let mut kept: Vec<Kept> = Vec::new();
    for (index, pair) in manifest.pairs.iter().enumerate() {
        let truth = truth_of(manifest, pair)?;
        let map = match source.answer(manifest, pair)? {
            Answer::Map(map) => {
                scorer.add(&pair.id, &map, &truth)?;
                map
            }
            Answer::Refused => {
                let size = match &truth.mask {
                    Some(mask) => mask.size(),
                    None => manifest.image(pair)?.size(),
                };
                scorer.add_refused(&pair.id, size, &truth)?;
                Map::new(size.0, size.1)
            }
        };
        if worst > 0
            && let Some(score) = scorer.pairs().last()
        {
            kept.push(Kept { score: score.clone(), index, map });
            kept.sort_by(|a, b| badness(&a.score, &b.score));
            kept.truncate(worst);
        }
    }
    Ok(Evaluation { scorer, worst: kept })
}

/// The charts of a scored set: file name and SVG.
#[must_use]
pub fn charts(scorer: &Scorer, report: &Report) -> Vec<(String, String)> {
    let percent = |points: Vec<(f64, f64)>| points.into_iter().map(|(x, y)| (100.0 * x, 100.0 * y)).collect::<Vec<_>>();
    let sweep = scorer.sweep();
    let pixels = Chart {
        title: "Precision and recall".into(),
        x_label: "recall, %".into(),
        y_label: "precision, %".into(),
        x: (0.0, 100.0),
        y: (0.0, 100.0),
        lines: vec![
            ("pixels, pooled".into(), percent(scorer.pixel_curve(400))),
            ("objects, by threshold".into(), percent(sweep.iter().map(|s| (s[2], s[1])).collect())),
        ],
    };
    let most = sweep.iter().map(|s| s[4]).fold(0.1, f64::max).min(4.0);
    let alarms = Chart {
        title: "Hits against false alarms".into(),
        x_label: "false alarms a pair".into(),
        y_label: "defects hit, %".into(),
        x: (0.0, most),
        y: (0.0, 100.0),
        lines: vec![("thresholds of the sweep".into(), sweep.iter().map(|s| (s[4], 100.0 * s[3])).collect())],
    };
    let sizes = Bars {
        title: "Recall by defect size (square root of the box, px)".into(),
        y_label: "defects found, %".into(),
        groups: report
            .by_size
            .iter()
            .map(|s| {
                let to = s.to_px.map_or_else(|| "more".to_string(), |t| t.to_string());
                (format!("{}-{to} ({})", s.from_px, s.defects), vec![s.hit, s.matched])
            })
            .collect(),
        series: vec!["hit".into(), "matched one to one".into()],
    };
    vec![
        ("precision-recall.svg".into(), pixels.svg()),
        ("false-alarms.svg".into(), alarms.svg()),
        ("sizes.svg".into(), sizes.svg()),
    ]
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| Error::new(Kind::CannotCreate, format!("{}: cannot be written: {e}", path.display())))
}

/// The frame with truth outlined in green, detections at the threshold in red.
fn overlay(frame: &Gray, map: &Map, truth: &Truth, threshold: f32) -> Vec<u8> {
    let (w, h) = frame.size();
    let outline = |x: usize, y: usize, inside: &dyn Fn(usize, usize) -> bool| {
        inside(x, y)
            && (x == 0
                || y == 0
                || x + 1 == w
                || y + 1 == h
                || !inside(x - 1, y)
                || !inside(x + 1, y)
                || !inside(x, y - 1)
                || !inside(x, y + 1))
    };
    let found = |x: usize, y: usize| map.get(x, y) >= threshold;
    let real = |x: usize, y: usize| truth.mask.as_ref().is_some_and(|m| m.get(x, y) == 255);
    let on_box = |x: usize, y: usize| {
        truth.boxes.iter().any(|b| {
            let [x1, y1, x2, y2] = b.map(|v| v as i64);
            let (x, y) = (x as i64, y as i64);
            (x1..x2).contains(&x) && (y1..y2).contains(&y) && (x == x1 || x == x2 - 1 || y == y1 || y == y2 - 1)
        })
    };
    let mut rgb = Vec::with_capacity(w * h * 3);
    for y in 0..h {
        for x in 0..w {
            let v = frame.get(x, y);
            rgb.extend(if outline(x, y, &found) {
                [255, 40, 40]
            } else if outline(x, y, &real) || on_box(x, y) {
                [40, 200, 60]
            } else {
                [v; 3]
            });
        }
    }
    rgb
}

/// Writes `index.html`, the charts and the pictures of the worst pairs to `folder`.
///
/// # Errors
/// [`Kind::CannotCreate`] when something cannot be written; reading errors of the pairs' pictures.
pub fn write_page(evaluation: &Evaluation, manifest: &Manifest, settings: &score::Settings, folder: &Path) -> Result<()> {
    dataset::make_folder(&folder.join("pictures"))?;
    let report = evaluation.scorer.report();
    let mut names = Vec::new();
    for (name, svg) in charts(&evaluation.scorer, &report) {
        write(&folder.join(&name), &svg)?;
        names.push(name);
    }
    let mut entries = Vec::new();
    for (n, kept) in evaluation.worst.iter().enumerate() {
        let pair = &manifest.pairs[kept.index];
        let (template, frame, truth) = (manifest.template(pair)?, manifest.image(pair)?, truth_of(manifest, pair)?);
        if frame.size() != kept.map.size() {
            let ((mw, mh), (fw, fh)) = (kept.map.size(), frame.size());
            return Err(Error::data(format!("pair `{}`: the map is {mw}x{mh}, its frame {fw}x{fh}", pair.id)));
        }
        let mut pictures = Vec::new();
        let mut name = |what: &str| {
            let path = format!("pictures/{n:03}-{what}.png");
            pictures.push((what.to_string(), path.clone()));
            folder.join(path)
        };
        save_gray_png(&name("template"), &template)?;
        save_gray_png(&name("frame"), &frame)?;
        let (w, h) = kept.map.size();
        save_gray_png(&name("map"), &Gray::from_fn(w, h, |x, y| (kept.map.get(x, y).clamp(0.0, 1.0) * 255.0).round() as u8))?;
        save_rgb_png(&name("found red, true green"), &overlay(&frame, &kept.map, &truth, settings.threshold), w, h)?;
        entries.push(Entry { score: kept.score.clone(), pictures });
    }
    write(&folder.join("index.html"), &score::gallery_html("Evaluation", &report, &names, &entries))
}

impl MapSource for Inspector {
    fn answer(&mut self, manifest: &Manifest, pair: &Pair) -> Result<Answer> {
        let mut job = Job::new();
        self.inspect(&manifest.folder.join(&pair.template), &manifest.folder.join(&pair.image), &mut job);
        match &job.fault {
            None => Ok(Answer::Map(job.map)),
            Some(fault) if fault.code == "ALIGN_FAIL" => Ok(Answer::Refused),
            Some(fault) => Err(Error::data(format!("pair `{}`: {}: {}", pair.id, fault.code, fault.message))),
        }
    }
}

/// Runs the verb. Returns the exit code 0.
///
/// # Errors
/// An unusable manifest, model or setting; else as [`evaluate`] and [`write_page`].
pub fn run(args: Args) -> Result<u8> {
    let manifest = Manifest::read(&args.pairs)?;
    let settings = score::Settings {
        threshold: args.engine.threshold,
        min_area_px: args.engine.min_area_px,
        merge_px: args.merge_px,
        pad_px: args.pad_px,
        iou: args.iou,
        ..score::Settings::default()
    };
    settings.check()?;
    let worst = if args.html.is_some() { args.worst } else { 0 };
    let evaluation = match &args.maps {
        Some(folder) => evaluate(&manifest, settings.clone(), &mut MapFolder(folder.clone()), worst)?,
        None => evaluate(&manifest, settings.clone(), &mut Inspector::open(&args.model, &args.engine)?, worst)?,
    };
    let report = evaluation.scorer.report();
    if args.json {
        let mut value = serde_json::to_value(&report).map_err(|e| Error::internal(format!("report: {e}")))?;
        if let Some(object) = value.as_object_mut() {
            let extra = |e: serde_json::Error| Error::internal(format!("report: {e}"));
            object.insert("protocol".into(), serde_json::to_value(&settings).map_err(extra)?);
            object.insert("per_pair".into(), serde_json::to_value(evaluation.scorer.pairs()).map_err(extra)?);
        }
        println!("{value:#}");
    } else {
        print!("{report}");
    }
    if let Some(folder) = &args.html {
        write_page(&evaluation, &manifest, &settings, folder)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::save_map_png;
    use crate::simulate::{self, Config};

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(list: &[&str]) -> Args {
        use clap::Parser as _;
        Cli::try_parse_from(std::iter::once(&"eval").chain(list)).unwrap().args
    }

    #[test]
    fn perfect_maps_of_simulated_pairs_score_full_marks_and_the_page_shows_the_worst() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { size_px: 96, clean_share: 0.3, ..Config::default() };
        let done = simulate::export(&config, 8, 6, dir.path()).unwrap();
        let manifest = Manifest::read(&done.manifest).unwrap();
        let maps = dir.path().join("maps");
        for (i, pair) in manifest.pairs.iter().enumerate() {
            let label = manifest.truth(pair).unwrap().unwrap().mask.unwrap();
            let map = Map::from_fn(96, 96, |x, y| if i != 2 && label.get(x, y) == 255 { 0.9 } else { 0.0 });
            save_map_png(&dataset::path_for(&maps, &pair.id, "png").unwrap(), &map).unwrap();
        }
        let html = dir.path().join("page");
        let (pairs, maps_dir, page) =
            (done.manifest.display().to_string(), maps.display().to_string(), html.display().to_string());
        let arguments = args(&["--pairs", &pairs, "--maps", &maps_dir, "--html", &page, "--worst", "2"]);
        assert_eq!(run(arguments).unwrap(), 0);
        let evaluation = evaluate(&manifest, score::Settings::default(), &mut MapFolder(maps), 2).unwrap();
        let report = evaluation.scorer.report();
        assert_eq!(report.pairs, 6);
        assert_eq!(report.hit.fa, 0.0);
        let lost = evaluation.scorer.pairs()[2].defects;
        assert_eq!(evaluation.scorer.pairs().iter().map(|p| p.missed).sum::<usize>(), lost);
        if lost > 0 {
            assert_eq!(evaluation.worst[0].index, 2);
        }
        assert_eq!(evaluation.worst.len(), 2);
        let text = std::fs::read_to_string(html.join("index.html")).unwrap();
        assert!(text.contains("precision-recall.svg") && text.contains(&format!("<b>{}</b>", evaluation.worst[0].score.pair)));
        assert!(html.join("pictures/001-map.png").exists());
    }

    #[test]
    fn refusals_count_and_what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let done = simulate::export(&Config { size_px: 64, clean_share: 0.0, ..Config::default() }, 8, 2, dir.path()).unwrap();
        let manifest = Manifest::read(&done.manifest).unwrap();
        let mut refuse = |_: &Manifest, _: &Pair| Ok(Answer::Refused);
        let report = evaluate(&manifest, score::Settings::default(), &mut refuse, 0).unwrap().scorer.report();
        assert_eq!((report.refused, report.hit.recall), (2, 0.0));

        let pairs = done.manifest.display().to_string();
        let error = run(args(&["--pairs", &pairs, "--model", "/nowhere.onnx"])).unwrap_err();
        assert!(error.message().contains("/nowhere.onnx"), "{error}");
        let error = run(args(&["--pairs", &pairs, "--maps", "/nowhere"])).unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
        assert!(error.message().starts_with("pair `0000`: map /nowhere/0000.png"), "{error}");

        let mut bare = manifest.clone();
        bare.pairs[0].mask = None;
        bare.pairs[0].boxes = None;
        let error = evaluate(&bare, score::Settings::default(), &mut refuse, 0).unwrap_err();
        assert_eq!(error.message(), "pair `0000`: eval needs a mask or boxes, the manifest has neither");
    }
}
