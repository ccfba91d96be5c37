//! Ablations: what each part of the recipe is worth, by training without it.
//!
//! Every variant is trained for the same number of steps with the same seeds, from the same settings but for what its name says, and
//! scored on held-out simulation of both recipes and on pair manifests of real boards (the paper's Table III for this network). Runs and
//! scores are kept in the output folder; an interrupted ablation goes on where it stopped.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::simulate;
use crate::train::batch;
use crate::train::checkpoint::write_atomic;
use crate::train::config::TrainConfig;
use crate::train::engine::Engine;
use crate::train::evaluate::Marker;
use crate::train::export;
use crate::train::run::{self, Ending, RunOptions, last_checkpoint};
use crate::train::validate::score;

/// A variant: its name in the table, and what it changes.
type Variant = (&'static str, fn(&mut TrainConfig));

/// What is compared; the first is the whole recipe.
const VARIANTS: [Variant; 7] = [
    ("SSDS (both stages, L_irr, BCE + Dice + MSE, wide simulation with a share of the paper's)", |_| {}),
    ("without L_irr", |c| c.loss.irrelevance = 0.0),
    ("L_irr ten times stronger", |c| c.loss.irrelevance *= 10.0),
    ("without mask stage (N_d alone)", |c| c.single_stage = true),
    ("L_def = MSE alone, as in the paper", |c| (c.loss.mse, c.loss.bce, c.loss.dice) = (1.0, 0.0, 0.0)),
    ("wide simulation alone", |c| c.simulation.paper_share = 0.0),
    ("simulation of the paper", |c| c.simulation.preset = simulate::Preset::Paper),
];

/// Pairs of the paper-like hold-out.
const PAPER_PAIRS: usize = 64;

/// A manifest to score on.
#[derive(Debug, Clone)]
pub struct Bench {
    /// Its name in the table.
    pub name: String,
    /// The manifest.
    pub manifest: PathBuf,
    /// Components of fewer pixels do not count.
    pub min_area_px: usize,
}

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Settings that all variants share.
    pub config: TrainConfig,
    /// Seeds; at least two give a spread.
    pub seeds: Vec<u64>,
    /// Where runs and scores go.
    pub folder: PathBuf,
    /// The Markdown file with the table.
    pub report: PathBuf,
    /// Manifests of real boards.
    pub benches: Vec<Bench>,
    /// Threads that simulate.
    pub simulation_threads: usize,
    /// The command, for the report.
    pub command: String,
}

/// Scores of one run: AP, MaxF1 and, where objects are known, object F1 at 0.5, percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    variant: String,
    seed: u64,
    steps: u64,
    minutes: f64,
    irrelevance: f64,
    columns: Vec<(String, Vec<f64>)>,
}

fn results_path(folder: &Path) -> PathBuf {
    folder.join("results.json")
}

fn load(folder: &Path) -> Result<Vec<Entry>> {
    let path = results_path(folder);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(format!("ablation results {}", path.display()), e))?;
    serde_json::from_str(&text).map_err(|e| Error::data(format!("ablation results {}: {e}", path.display())))
}

fn one(plan: &Plan, variant: &Variant, number: usize, seed: u64, stop: &AtomicBool) -> Result<Option<Entry>> {
    let mut config = plan.config.clone();
    config.seed = seed;
    variant.1(&mut config);
    let folder = plan.folder.join(format!("{number}-{seed}"));
    let options = RunOptions { folder: folder.clone(), simulation_threads: plan.simulation_threads, quiet: true };
    let (layout, mut state) = run::prepare(Some(&config), &options, last_checkpoint(&folder).exists())?;
    if run::train(&layout, &mut state, &options, stop)? == Ending::Stopped {
        return Ok(None);
    }
    let made = export::export(&layout, &state, "ablation", "unknown")?;
    write_atomic(&folder.join("model.onnx"), &made.bytes, "model")?;
    let mut engine = Engine::new(&layout, config.device)?;
    let mut columns = Vec::new();
    for (name, preset) in [("wide simulation", simulate::Preset::Wide), ("simulation of the paper", simulate::Preset::Paper)] {
        let held_out = TrainConfig { simulation: simulate::Config::preset(preset), ..plan.config.clone() };
        let pairs = batch::validation(&held_out, 128, PAPER_PAIRS);
        let logits = engine.logits(&state.average, &made.stats, &pairs.pair, pairs.crop)?;
        let s = score(&logits, &pairs);
        columns.push((name.to_string(), vec![s.ap, s.max_f1]));
    }
    let marker = Marker { layout: &layout, params: &state.average, stats: &made.stats, calibration: made.calibration };
    for bench in &plan.benches {
        let r = marker.report(&mut engine, &bench.manifest, bench.min_area_px)?;
        columns.push((bench.name.clone(), vec![r.pixel.ap.unwrap_or(f64::NAN), r.pixel.max_f1.unwrap_or(f64::NAN), r.object.f1]));
    }
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    let lines = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let irrelevance = lines.filter_map(|l| l["irrelevance"].as_f64()).next_back().unwrap_or(0.0);
    Ok(Some(Entry {
        variant: variant.0.to_string(),
        seed,
        steps: state.step,
        minutes: state.elapsed_secs / 60.0,
        irrelevance,
        columns,
    }))
}

/// Mean and half the range over seeds.
fn spread(values: &[f64]) -> String {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    if values.len() > 1 { format!("{mean:.1} ± {:.1}", (high - low) / 2.0) } else { format!("{mean:.1}") }
}

fn table(plan: &Plan, entries: &[Entry]) -> String {
    let mut out = String::new();
    let config = &plan.config;
    let _ = writeln!(out, "# Ablations\n\nWritten by `{}`.\n", plan.command);
    let _ = writeln!(
        out,
        "Preset `{}`, {} steps of {} crops of {} px each, seeds {:?}; every row changes one thing of the first. Trained in simulation\n\
         only. AP / MaxF1 over pixels, and object F1 at the threshold 0.5 fixed beforehand on simulation, percent; mean over the seeds\n\
         ± half their range. Real boards: as `ssds eval` scores them, residual shift removed, poses as in the manifest. The last column\n\
         is L_irr at the end (0 = perfect, about 30 = the two outputs share their content, - = not part of the loss).\n",
        config.preset.name(),
        config.steps,
        config.stages[0].batch,
        config.stages[0].crop_px,
        plan.seeds
    );
    let names: Vec<&str> = entries.first().map(|e| e.columns.iter().map(|c| c.0.as_str()).collect()).unwrap_or_default();
    let _ = writeln!(out, "| variant | {} | L_irr |", names.join(" | "));
    let _ = writeln!(out, "|---|{}---|", "---|".repeat(names.len()));
    for (name, _) in &VARIANTS {
        let rows: Vec<&Entry> = entries.iter().filter(|e| e.variant == *name).collect();
        if rows.is_empty() {
            continue;
        }
        let cells: Vec<String> = (0..names.len())
            .map(|k| {
                let figures = rows.iter().map(|r| r.columns[k].1.len()).min().unwrap_or(0);
                let parts: Vec<String> =
                    (0..figures).map(|f| spread(&rows.iter().map(|r| r.columns[k].1[f]).collect::<Vec<f64>>())).collect();
                parts.join(" / ")
            })
            .collect();
        let without = rows.iter().all(|r| r.irrelevance == 0.0);
        let irr = if without { "-".to_string() } else { spread(&rows.iter().map(|r| r.irrelevance).collect::<Vec<f64>>()) };
        let _ = writeln!(out, "| {name} | {} | {irr} |", cells.join(" | "));
    }
    out
}

/// Trains and scores every variant under every seed and writes the table after each.
///
/// # Errors
/// Settings out of range; benches or folders that cannot be read or written.
pub fn ablate(plan: &Plan, stop: &AtomicBool) -> Result<()> {
    plan.config.check()?;
    for bench in &plan.benches {
        crate::dataset::Manifest::read(&bench.manifest)?;
    }
    std::fs::create_dir_all(&plan.folder).map_err(|e| Error::io(format!("folder {}", plan.folder.display()), e))?;
    let mut entries = load(&plan.folder)?;
    // seed by seed, so that a first complete table is there early
    for seed in &plan.seeds {
        for (number, variant) in VARIANTS.iter().enumerate() {
            if entries.iter().any(|e| e.variant == variant.0 && e.seed == *seed) {
                continue;
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Some(entry) = one(plan, variant, number, *seed, stop)? else {
                eprintln!("stopped; the same command goes on");
                return Ok(());
            };
            eprintln!("seed {seed}, {}: {:?}", variant.0, entry.columns);
            entries.push(entry);
            let json = serde_json::to_vec_pretty(&entries).map_err(|e| Error::internal(format!("ablation results: {e}")))?;
            write_atomic(&results_path(&plan.folder), &json, "ablation results")?;
            write_atomic(&plan.report, table(plan, &entries).as_bytes(), "ablation report")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::Stage;

    #[test]
    fn every_variant_is_trained_scored_and_tabled_and_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let pairs = folder.path().join("pairs");
        simulate::export(&simulate::Config::default().with_size(64), 5, 3, &pairs).unwrap();
        let config = TrainConfig {
            stages: vec![Stage { crop_px: 32, batch: 2, until: 1.0 }],
            steps: 3,
            pool: 4,
            validation_pairs: 2,
            ..TrainConfig::smoke()
        };
        let plan = Plan {
            config,
            seeds: vec![1, 2],
            folder: folder.path().join("runs"),
            report: folder.path().join("ablation.md"),
            benches: vec![Bench { name: "boards".into(), manifest: pairs.join("pairs.jsonl"), min_area_px: 4 }],
            simulation_threads: 1,
            command: "test".into(),
        };
        let stop = AtomicBool::new(false);
        ablate(&plan, &stop).unwrap();
        let entries = load(&plan.folder).unwrap();
        assert_eq!(entries.len(), 2 * VARIANTS.len());
        let report = std::fs::read_to_string(&plan.report).unwrap();
        assert_eq!(report.lines().filter(|l| l.starts_with("| ")).count(), 1 + VARIANTS.len(), "{report}");
        assert!(report.contains("| variant | wide simulation | simulation of the paper | boards | L_irr |"), "{report}");
        let before = std::fs::metadata(results_path(&plan.folder)).unwrap().modified().unwrap();
        ablate(&plan, &stop).unwrap();
        assert_eq!(before, std::fs::metadata(results_path(&plan.folder)).unwrap().modified().unwrap());
    }

    #[test]
    fn spread_is_half_the_range() {
        assert_eq!(spread(&[90.0, 92.0]), "91.0 ± 1.0");
        assert_eq!(spread(&[90.04]), "90.0");
    }
}
