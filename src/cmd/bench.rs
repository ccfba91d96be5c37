//! `ssds bench`: how long each stage takes on this machine, p50 / p95 / p99 / max, and what that gives end to end.
//!
//! Frames are simulated pairs of the asked size, seeded, so that two machines bench the same pictures. Every frame goes through the stages
//! one after another on one thread; the network may use more threads inside its stage. Times are wall clock, ms; the first frames warm
//! caches up and are not counted. Beside them stands the processor time of that one thread (Linux: /proc/thread-self/schedstat), which a
//! machine shared with other work does not blur; it is the whole cost of a stage only with `--threads 1`, and a mean, as the kernel counts
//! it in steps of up to a scheduler tick (4 ms).

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use crate::decide::{self, Decider};
use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, Map};
use crate::infer::Detector;
use crate::simulate;

use super::model::{RuntimeArgs, info_json};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The network.
    #[arg(long, default_value = "models/ssds.onnx")]
    model: PathBuf,
    /// Size of the simulated frames, pixels, WxH or one side; may be given more than once.
    #[arg(long = "size", default_values = ["640"])]
    sizes: Vec<String>,
    /// Frames that are measured, for each size.
    #[arg(long, default_value_t = 50)]
    frames: usize,
    /// Frames before that.
    #[arg(long, default_value_t = 5)]
    warm_up: usize,
    /// Seed of the simulated frames.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// One measured quantity, ms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds a time.
    pub fn push(&mut self, ms: f64) {
        self.0.push(ms);
    }

    /// The mean; NaN when empty.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The value that `share` of all values do not exceed (nearest rank); NaN when empty.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }
}

/// Wall-clock and processor time of one stage.
#[derive(Debug, Clone, Default)]
struct Times {
    wall: Series,
    processor: Series,
}

impl Times {
    fn push(&mut self, from: &Moment, to: &Moment) {
        self.wall.push((to.wall - from.wall).as_secs_f64() * 1e3);
        self.processor.push(to.processor_ns.saturating_sub(from.processor_ns) as f64 / 1e6);
    }

    fn row(&self) -> [f64; 5] {
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| self.wall.quantile(share));
        [p50, p95, p99, max, self.processor.mean()]
    }

    fn json(&self) -> serde_json::Value {
        let [p50, p95, p99, max, processor] = self.row();
        json!({ "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max, "processor_mean_ms": processor })
    }
}

/// A point in time on both clocks.
struct Moment {
    wall: Instant,
    processor_ns: u64,
}

impl Moment {
    fn now() -> Self {
        Self { wall: Instant::now(), processor_ns: thread_time_ns() }
    }
}

/// Processor time of this thread so far, ns; 0 where the kernel does not tell.
fn thread_time_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Stages in the order of the line.
const STAGES: [&str; 2] = ["infer", "decide"];

struct Picture {
    template: Gray,
    frame: Gray,
}

/// Measures and prints.
///
/// # Errors
/// A model or library that is refused, sizes that cannot be read.
pub fn run(args: Args) -> Result<u8> {
    if args.frames == 0 {
        return Err(Error::new(Kind::Usage, "--frames must be at least 1, got 0"));
    }
    let sizes = args.sizes.iter().map(|text| size(text)).collect::<Result<Vec<_>>>()?;
    let mut settings = args.runtime.settings(args.model.clone())?;
    let mut answers = Vec::new();
    for (i, &(width, height)) in sizes.iter().enumerate() {
        settings.warm_up_px = Some((width, height));
        let mut detector = Detector::open(&settings)?;
        if i == 0 && !args.json {
            let info = detector.info();
            println!(
                "{} {} on {} ({}), {} threads, ONNX Runtime {}",
                info.name, info.version, info.provider, info.precision, info.threads, info.runtime_version
            );
        }
        let pictures = pictures(width, height, args.seed, args.frames.min(16));
        let (stages, total) = measure(&mut detector, &pictures, args.warm_up, args.frames)?;
        let per_second = 1000.0 / total.wall.mean();
        if args.json {
            let stages: serde_json::Map<_, _> =
                STAGES.iter().zip(&stages).map(|(name, s)| ((*name).to_owned(), s.json())).collect();
            answers.push(json!({
                "width": width, "height": height, "frames": args.frames, "stages": stages, "total": total.json(),
                "frames_per_second": per_second, "peak_memory_bytes": peak_memory_bytes(), "runtime": info_json(detector.info()),
            }));
        } else {
            println!("\n{width}x{height}, {} frames, ms       p50      p95      p99      max processor mean", args.frames);
            for (name, times) in STAGES.iter().chain(&["total"]).zip(stages.iter().chain([&total])) {
                let [p50, p95, p99, max, processor] = times.row();
                println!("  {name:<20}{p50:>9.2}{p95:>9.2}{p99:>9.2}{max:>9.2}{processor:>15.2}");
            }
            println!("  {per_second:.1} frames/s on one thread of stages; peak memory {} MiB", peak_memory_bytes() >> 20);
        }
    }
    if args.json {
        println!("{}", json!({ "benches": answers }));
    }
    Ok(0)
}

/// `640` or `640x480`.
fn size(text: &str) -> Result<(usize, usize)> {
    let (width, height) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.parse::<usize>().ok().filter(|v| (16..=16_384).contains(v));
    match (side(width), side(height)) {
        (Some(width), Some(height)) => Ok((width, height)),
        _ => Err(Error::new(Kind::Usage, format!("--size must be WxH or one side, 16 to 16384 px, got `{text}`"))),
    }
}

/// Simulated pairs: square ones are drawn and repeated to the asked size, so that any size costs the same to make.
fn pictures(width: usize, height: usize, seed: u64, count: usize) -> Vec<Picture> {
    let side = width.max(height).clamp(64, 512);
    let config = simulate::Config::preset(simulate::Preset::Wide).with_size(side);
    let repeat = |picture: &Gray| Gray::from_fn(width, height, |x, y| picture.get(x % side, y % side));
    (0..count as u64)
        .map(|index| {
            let sample = simulate::sample(&config, seed, index);
            Picture { template: repeat(&sample.template), frame: repeat(&sample.frame) }
        })
        .collect()
}

fn measure(detector: &mut Detector, pictures: &[Picture], warm_up: usize, frames: usize) -> Result<([Times; 2], Times)> {
    let (width, height) = pictures[0].frame.size();
    let valid = Gray::from_fn(width, height, |_, _| 255);
    let settings = decide::Settings::default();
    let (mut decider, mut map) = (Decider::new(), Map::new(width, height));
    let (mut stages, mut total) = ([Times::default(), Times::default()], Times::default());
    for i in 0..warm_up + frames {
        let picture = &pictures[i % pictures.len()];
        let begun = Moment::now();
        detector.detect(&picture.template, &valid, &picture.frame, &mut map)?;
        let inferred = Moment::now();
        decider.decide(&map, &valid, &picture.frame, &picture.template, &settings)?;
        let decided = Moment::now();
        if i >= warm_up {
            stages[0].push(&begun, &inferred);
            stages[1].push(&inferred, &decided);
            total.push(&begun, &decided);
        }
    }
    Ok((stages, total))
}

/// The process's largest resident size so far (VmHWM); 0 where the kernel does not tell.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let series = Series((1..=100).rev().map(f64::from).collect());
        assert_eq!([0.5, 0.95, 0.99, 1.0].map(|share| series.quantile(share)), [50.0, 95.0, 99.0, 100.0]);
        assert_eq!(Series(vec![7.0]).quantile(0.5), 7.0);
        assert!(Series::default().quantile(0.5).is_nan());
    }

    #[test]
    fn sizes_are_read_or_refused() {
        assert_eq!(size("640").unwrap(), (640, 640));
        assert_eq!(size("1280x720").unwrap(), (1280, 720));
        let error = size("0x9").unwrap_err();
        assert_eq!(error.to_string(), "--size must be WxH or one side, 16 to 16384 px, got `0x9`");
    }
}
