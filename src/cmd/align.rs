//! `ssds align`: registers templates to frames and prints the poses.
//!
//! One pair: `--template T --image I`. Many: `--pairs P --out R.jsonl`, a pair manifest of JSON lines (`pair`, `template`, `image`, paths
//! relative to the manifest's folder, other keys ignored) answered by a line a pair.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::align::{Aligner, Model, Registration, Settings, TemplateModel};
use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, load_gray};
use crate::geometry::Rect;

/// Exit code of a refused frame: the inspection would end in ERROR.
const REFUSED: u8 = 2;

/// Arguments of `ssds align`.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["pairs", "template"])))]
pub struct Args {
    /// Pair manifest (JSON lines) to register.
    #[arg(long, value_name = "FILE", requires = "out")]
    pub pairs: Option<PathBuf>,
    /// Where the answers to --pairs go, a JSON line a pair.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Template picture of a single pair.
    #[arg(long, value_name = "FILE", requires = "image")]
    pub template: Option<PathBuf>,
    /// Frame picture of a single pair.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Registration mask of a single pair's template: 0 = leave out.
    #[arg(long, value_name = "FILE", conflicts_with = "pairs")]
    pub mask: Option<PathBuf>,
    /// The part of the template to register on: left, top, width, height in its pixels.
    #[arg(long, value_name = "X,Y,W,H", value_parser = parse_region)]
    pub region: Option<Rect>,
    /// What the last stage leaves free: similarity or affine.
    #[arg(long, value_name = "MODEL", default_value = "similarity")]
    pub model: String,
    /// Lowest confidence accepted, 0 to 1.
    #[arg(long, value_name = "C")]
    pub min_confidence: Option<f64>,
    /// Never walk through all rotations and scales.
    #[arg(long)]
    pub no_fallback: bool,
    /// Threads that the fallback search may use; 0 = one a core.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Align each pair this often and report the fastest time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Points at full size that the pose is refined on.
    #[arg(long, value_name = "N")]
    pub max_points: Option<usize>,
    /// Print a single pair's answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// One line of a pair manifest, as far as registration reads it.
#[derive(serde::Deserialize)]
struct Pair {
    pair: String,
    template: PathBuf,
    image: PathBuf,
}

/// One line of the answer. `ms` is the CPU time of the aligning thread, template preparation left out; `matrix` is null when refused.
#[derive(serde::Serialize)]
struct Answer {
    pair: String,
    matrix: Option<[[f64; 3]; 2]>,
    confidence: f32,
    ms: f64,
    prepare_ms: f64,
    refusal: Option<&'static str>,
    ncc: f32,
    psr: f32,
    visible_share: f32,
    inlier_share: f32,
    margin: f32,
    used_fallback: bool,
}

/// Reads `X,Y,W,H` in whole pixels.
///
/// # Errors
/// A text that says what was wanted.
pub fn parse_region(text: &str) -> std::result::Result<Rect, String> {
    let numbers: Vec<usize> = text.split(',').map_while(|n| n.trim().parse().ok()).collect();
    match (numbers.as_slice(), text.split(',').count()) {
        (&[x, y, width, height], 4) => Ok(Rect { x, y, width, height }),
        _ => Err(format!("four whole numbers left,top,width,height wanted, got {text}")),
    }
}

/// Runs the verb; the result is the process's exit code: 0, or 2 when a single pair is refused.
///
/// # Errors
/// A setting out of range, an unreadable picture or manifest, an output that cannot be written.
pub fn run(args: Args) -> Result<u8> {
    let model = match args.model.as_str() {
        "similarity" => Model::Similarity,
        "affine" => Model::Affine,
        other => return Err(Error::new(Kind::Usage, format!("--model must be similarity or affine, got {other}"))),
    };
    let defaults = Settings::default();
    let max_points = args.max_points.unwrap_or(defaults.max_points);
    let settings = Settings {
        model,
        fallback_threads: args.threads,
        max_points,
        region: args.region,
        min_confidence: args.min_confidence.unwrap_or(defaults.min_confidence),
        fallback: !args.no_fallback,
        ..defaults
    };
    settings.check()?;
    match (&args.pairs, &args.out, &args.template, &args.image) {
        (Some(pairs), Some(out), _, _) => run_pairs(pairs, out, &settings, args.repeat).map(|()| 0),
        (_, _, Some(template), Some(image)) => {
            let mask = args.mask.as_deref().map(load_gray).transpose()?;
            let template = load_gray(template)?;
            let (answer, registration) =
                one(String::new(), &template, mask.as_ref(), &load_gray(image)?, &settings, args.repeat)?;
            print_one(&answer, &registration, args.json)?;
            Ok(if registration.accepted { 0 } else { REFUSED })
        }
        _ => Err(Error::new(Kind::Usage, "ssds align needs --pairs with --out, or --template with --image")),
    }
}

/// Registers every pair of the manifest `pairs` and writes the answers to `out`.
///
/// # Errors
/// As [`run`]; the message names the manifest's line.
pub fn run_pairs(pairs: &Path, out: &Path, settings: &Settings, repeat: u32) -> Result<()> {
    let text = std::fs::read_to_string(pairs).map_err(|e| Error::io(format!("pair manifest {}", pairs.display()), e))?;
    let folder = pairs.parent().unwrap_or(Path::new(""));
    let cannot = |e: std::io::Error| Error::new(Kind::CannotCreate, format!("{}: {e}", out.display()));
    let mut answers = std::io::BufWriter::new(std::fs::File::create(out).map_err(cannot)?);
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let place = || format!("pair manifest {} line {}", pairs.display(), number + 1);
        let pair: Pair = serde_json::from_str(line).map_err(|e| Error::data(format!("{}: {e}", place())))?;
        let read = |p: &Path| load_gray(&folder.join(p)).map_err(|e| e.context(place()));
        let (template, frame) = (read(&pair.template)?, read(&pair.image)?);
        let (answer, _) = one(pair.pair, &template, None, &frame, settings, repeat).map_err(|e| e.context(place()))?;
        let line = serde_json::to_string(&answer).map_err(|e| Error::internal(format!("answer of {}: {e}", answer.pair)))?;
        writeln!(answers, "{line}").map_err(cannot)?;
    }
    answers.flush().map_err(cannot)
}

fn one(
    pair: String,
    template: &Gray,
    mask: Option<&Gray>,
    frame: &Gray,
    settings: &Settings,
    repeat: u32,
) -> Result<(Answer, Registration)> {
    let start = thread_time();
    let model = Arc::new(TemplateModel::new(template, mask, settings)?);
    let prepare_ms = (thread_time() - start).as_secs_f64() * 1e3;
    let mut aligner = Aligner::new(settings);
    let mut ms = f64::INFINITY;
    let mut registration = None;
    // The first call makes the working memory and is not what a station sees: it is timed only when there is no other.
    for k in 0..repeat + u32::from(repeat > 1) {
        let start = thread_time();
        registration = Some(aligner.align(&model, frame));
        let took = (thread_time() - start).as_secs_f64() * 1e3;
        if k > 0 || repeat == 1 {
            ms = ms.min(took);
        }
    }
    let r = registration.expect("the loop runs at least once");
    let answer = Answer {
        pair,
        matrix: r.accepted.then_some(r.frame_from_template.m),
        confidence: r.confidence,
        ms,
        prepare_ms,
        refusal: r.refusal.map(|r| r.code()),
        ncc: r.ncc,
        psr: r.psr,
        visible_share: r.visible_share,
        inlier_share: r.inlier_share,
        margin: r.margin,
        used_fallback: r.used_fallback,
    };
    Ok((answer, r))
}

fn print_one(answer: &Answer, r: &Registration, json: bool) -> Result<()> {
    let out = |text: String| writeln!(std::io::stdout(), "{text}").map_err(|e| Error::io("standard output", e));
    if json {
        return out(serde_json::to_string_pretty(answer).map_err(|e| Error::internal(format!("answer: {e}")))?);
    }
    let pose = &r.frame_from_template;
    let m = &pose.m;
    if let Some(refusal) = r.refusal {
        out(format!("refused: {refusal}"))?;
    }
    out(format!(
        "matrix      [[{:.6}, {:.6}, {:.3}], [{:.6}, {:.6}, {:.3}]]",
        m[0][0], m[0][1], m[0][2], m[1][0], m[1][1], m[1][2]
    ))?;
    out(format!("rotation    {:.4} degrees", pose.rotation_rad().to_degrees()))?;
    out(format!("scale       {:.6}", pose.scale()))?;
    out(format!("confidence  {:.3}", r.confidence))?;
    out(format!(
        "ncc {:.3}  psr {:.1}  visible {:.2}  inliers {:.2}  margin {:.2}  fallback {}",
        r.ncc, r.psr, r.visible_share, r.inlier_share, r.margin, r.used_fallback
    ))?;
    out(format!("time        {:.2} ms (template {:.1} ms)", answer.ms, answer.prepare_ms))
}

/// CPU time of this thread: on a busy machine wall time would tell of the neighbours.
fn thread_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32)
}
