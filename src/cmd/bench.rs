//! `ssds bench`: how long each stage takes on this machine, p50 / p95 / p99 / max, and what that gives end to end.
//!
//! Frames are simulated parts of one product at the asked size, seeded, so that two machines bench the same pictures, or the pairs of a
//! manifest. Every frame goes through the stages one after another on one thread; the network may use more threads inside its stage, and
//! results are committed to a spool of their own as the daemon does it. Times are wall clock, ms; the first frames warm caches up and are
//! not counted. Beside them stands the processor time of that one thread (Linux: /proc/thread-self/schedstat), which a machine shared with
//! other work does not blur; it is the whole cost of a stage only with `--threads 1`, and a mean, as the kernel counts it in steps of up
//! to a scheduler tick (4 ms).
//!
//! With `--line` the running line of the daemon gets the same frames: as fast as it takes them (throughput beside its own slowest stage)
//! and one at a time (latency beside the sum of the stages), in rounds that alternate with the stages alone.

mod figures;
mod line;
mod stages;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::align;
use crate::clock::{Clock as _, SystemClock};
use crate::dataset::Manifest;
use crate::decide;
use crate::error::{Error, Kind, Result};
use crate::frame::Gray;
use crate::infer::{self, Detector};
use crate::pipeline::job::Product;
use crate::simulate::part::{self, PartOptions};
use crate::template::{Meta, Template};

use self::figures::peak_memory_bytes;
use self::stages::{Bench, STAGES, Timed};
use super::model::{RuntimeArgs, info_json};

/// Different frames of one size; they are used in turn.
const PICTURES: usize = 16;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The network.
    #[arg(long, default_value = "models/ssds.onnx")]
    model: PathBuf,
    /// Size of the simulated frames, pixels, WxH or one side; may be given more than once.
    #[arg(long = "size", default_values = ["640"])]
    sizes: Vec<String>,
    /// Bench the pairs of this manifest instead of simulated frames.
    #[arg(long, conflicts_with_all = ["sizes", "seed"])]
    pairs: Option<PathBuf>,
    /// Frames that are measured, for each size.
    #[arg(long, default_value_t = 50)]
    frames: usize,
    /// Frames before that.
    #[arg(long, default_value_t = 5)]
    warm_up: usize,
    /// Seed of the simulated frames.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measure the running line too: throughput beside its slowest stage, latency beside the sum of its stages.
    #[arg(long)]
    line: bool,
    /// Rounds of stages alone, line at full speed, line one frame at a time (with --line); --frames is divided among them.
    #[arg(long, default_value_t = 5, requires = "line")]
    rounds: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// What durable recording costs on this disk, and how fast a backlog leaves for the broker.
    Publish(super::bench_publish::Args),
}

/// One frame and what it is compared with.
#[derive(Debug, Clone)]
struct Picture {
    frame: Gray,
    product: Arc<Product>,
}

/// Frames that are benched together.
struct Set {
    name: String,
    pictures: Vec<Picture>,
}

impl Set {
    /// Largest frame, (width, height).
    fn size(&self) -> (usize, usize) {
        self.pictures.iter().map(|p| p.frame.size()).fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)))
    }
}

/// Measures and prints.
///
/// # Errors
/// A model or library that is refused, sizes or pairs that cannot be read, a set of which no frame can be inspected.
pub fn run(args: Args) -> Result<u8> {
    if let Some(What::Publish(args)) = args.what {
        return super::bench_publish::run(args);
    }
    for (name, value) in [("--frames", args.frames), ("--rounds", args.rounds)] {
        if value == 0 {
            return Err(Error::new(Kind::Usage, format!("{name} must be at least 1, got 0")));
        }
    }
    // The line tells every part; here only what went wrong matters.
    log::set_max_level(log::LevelFilter::Warn);
    let sets = match &args.pairs {
        Some(path) => vec![pairs(path)?],
        None => args.sizes.iter().map(|text| simulated(size(text)?, args.seed)).collect::<Result<_>>()?,
    };
    let mut settings = args.runtime.settings(args.model.clone())?;
    let mut answers = Vec::new();
    for set in &sets {
        settings.warm_up_px = Some(set.size());
        let answer = measure(&settings, set, &args)?;
        if args.json {
            answers.push(answer);
        }
    }
    if args.json {
        println!("{}", json!({ "benches": answers }));
    }
    Ok(0)
}

fn measure(settings: &infer::Settings, set: &Set, args: &Args) -> Result<Value> {
    let mut bench = Bench::new(Detector::open(settings)?)?;
    let info = info_json(bench.detector().info());
    bench.run(&set.pictures, args.warm_up, false)?;
    let (timed, line) = if args.line {
        let (timed, line) = line::measure(settings, &mut bench, &set.pictures, args.frames, args.rounds)?;
        (timed, Some(line))
    } else {
        (bench.run(&set.pictures, args.frames, true)?, None)
    };
    let per_second = 1000.0 / timed.total.wall.mean();
    if args.json {
        let stages: serde_json::Map<_, _> =
            STAGES.iter().zip(&timed.stages).map(|(name, s)| ((*name).to_owned(), s.json())).collect();
        let (width, height) = set.size();
        return Ok(json!({
            "set": set.name, "width": width, "height": height, "frames": args.frames, "refused": timed.refused, "stages": stages,
            "total": timed.total.json(),
            "infer_in_session": timed.in_session.median(), "frames_per_second": per_second, "line": line.as_ref().map(line::Figures::json),
            "peak_memory_bytes": peak_memory_bytes(), "runtime": info,
        }));
    }
    let word = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
    println!(
        "{} {} on {} ({}), {} threads, ONNX Runtime {}",
        word("model"),
        word("version"),
        word("provider"),
        word("precision"),
        info["threads"],
        word("runtime_version")
    );
    print(&set.name, args.frames, &timed);
    println!("  {:.1} % of infer within ONNX Runtime (median)", timed.in_session.median() * 100.0);
    println!("  {per_second:.1} frames/s on one thread of stages; peak memory {} MiB", peak_memory_bytes() >> 20);
    if let Some(line) = &line {
        println!("{line}");
    }
    Ok(Value::Null)
}

fn print(name: &str, frames: usize, timed: &Timed) {
    let refused = if timed.refused > 0 { format!(", {} of them refused by registration", timed.refused) } else { String::new() };
    println!("\n{name}, {frames} frames{refused}");
    println!("  {:<18}{:>9}{:>9}{:>9}{:>9}{:>16}", "ms", "p50", "p95", "p99", "max", "processor mean");
    for (name, times) in STAGES.iter().chain(&["total"]).zip(timed.stages.iter().chain([&timed.total])) {
        let [p50, p95, p99, max, processor] = times.row();
        println!("  {name:<18}{p50:>9.2}{p95:>9.2}{p99:>9.2}{max:>9.2}{processor:>16.2}");
    }
}

/// `640` or `640x480`.
fn size(text: &str) -> Result<(usize, usize)> {
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.parse::<usize>().ok().filter(|v| (64..=8_192).contains(v));
    match (side(width), side(height)) {
        (Some(width), Some(height)) => Ok((width, height)),
        _ => Err(Error::new(Kind::Usage, format!("--size must be WxH or one side, 64 to 8192 px, got `{text}`"))),
    }
}

fn product(image: Gray, what: &str) -> Result<Arc<Product>> {
    let template = Arc::new(Template::loose("bench/main", image, Meta::at(SystemClock.now()))?);
    let templates = vec![(template, decide::Settings::default())];
    Product::new(templates, &align::Settings::default()).map(Arc::new).map_err(|e| e.context(what))
}

/// Parts of one simulated product, turned by up to 12 degrees, every second one with two defects; the template fills four fifths of the
/// frame in each direction.
fn simulated((width, height): (usize, usize), seed: u64) -> Result<Set> {
    let design = part::Product::random(seed, (width * 4 / 5, height * 4 / 5))?;
    let product = product(design.template.clone(), "simulated template")?;
    let reach = width.min(height) as f64 / 25.0;
    let pictures = (0..PICTURES as u64).map(|index| {
        let options = PartOptions {
            frame_size: (width, height),
            shift_px: [-reach, reach],
            defects: if index % 2 == 0 { 0 } else { 2 },
            ..PartOptions::default()
        };
        let frame = design.part(seed, index, &options)?.frame;
        Ok(Picture { frame, product: Arc::clone(&product) })
    });
    Ok(Set { name: format!("{width}x{height} simulated"), pictures: pictures.collect::<Result<_>>()? })
}

/// The pairs of a manifest; consecutive pairs of one template prepare it once.
fn pairs(path: &std::path::Path) -> Result<Set> {
    let manifest = Manifest::read(path)?;
    let mut pictures: Vec<Picture> = Vec::new();
    let mut last: Option<(PathBuf, Arc<Product>)> = None;
    for pair in &manifest.pairs {
        let product = match last.take().filter(|(path, _)| *path == pair.template) {
            Some((_, product)) => product,
            None => product(manifest.template(pair)?, &format!("template {}", pair.template.display()))?,
        };
        pictures.push(Picture { frame: manifest.image(pair)?, product: Arc::clone(&product) });
        last = Some((pair.template.clone(), product));
    }
    if pictures.is_empty() {
        return Err(Error::data(format!("manifest {}: holds no pair", path.display())));
    }
    Ok(Set { name: path.display().to_string(), pictures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_or_refused() {
        assert_eq!(size("640").unwrap(), (640, 640));
        assert_eq!(size("1280x720").unwrap(), (1280, 720));
        let error = size("0x9").unwrap_err();
        assert_eq!(error.to_string(), "--size must be WxH or one side, 64 to 8192 px, got `0x9`");
    }

    #[test]
    fn simulated_frames_have_the_asked_size_and_are_the_same_again() {
        let set = simulated((160, 96), 5).unwrap();
        assert_eq!((set.size(), set.pictures.len()), ((160, 96), PICTURES));
        let again = simulated((160, 96), 5).unwrap();
        assert!(set.pictures.iter().zip(&again.pictures).all(|(a, b)| a.frame == b.frame));
        assert_ne!(set.pictures[0].frame, set.pictures[1].frame);
    }
}
