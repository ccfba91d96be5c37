//! `ssds camera list`, `grab` and `watch`: what devices there are, pictures from one, and how steadily it delivers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::capture::guard::Guarded;
use crate::capture::{self, Camera, Grab, Settings, Trigger, Values, v4l2};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::{Gray, save_gray_png};

/// Longest time to open a camera.
const OPENING: Duration = Duration::from_secs(10);

/// Cameras.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// One JSON line for each camera found: formats, sizes, rates, controls with ranges.
    List,
    /// Take pictures: PNG files and one JSON line each.
    Grab(GrabArgs),
    /// Watch a camera: rate, jitter, losses and age of its frames, as one JSON line.
    Watch(WatchArgs),
}

/// Which camera.
#[derive(Debug, clap::Args)]
struct Which {
    /// Configuration file whose camera section is used.
    #[arg(long, default_value = "/etc/ssds/ssds.toml", conflicts_with = "device")]
    config: PathBuf,
    /// A device instead: a path such as /dev/video0, or a GenICam camera's address, serial number or name.
    #[arg(long)]
    device: Option<String>,
    /// Back end, with --device.
    #[arg(long, requires = "device", default_value = "auto", value_parser = ["auto", "v4l2", "uvc", "genicam"])]
    backend: String,
    /// Pixel format, with --device.
    #[arg(long, requires = "device")]
    format: Option<String>,
    /// Picture width, px, with --device.
    #[arg(long, requires = "device")]
    width: Option<u32>,
    /// Picture height, px, with --device.
    #[arg(long, requires = "device")]
    height: Option<u32>,
    /// Frames a second, with --device.
    #[arg(long, requires = "device")]
    rate: Option<f64>,
    /// Trigger each picture by software, with --device (genicam).
    #[arg(long, requires = "device")]
    software_trigger: bool,
}

impl Which {
    /// Opens the camera on a thread of its own; whether each picture is triggered by software.
    fn open(&self, clock: &Arc<SystemClock>) -> Result<(Guarded, bool)> {
        let (name, triggered, opener): (String, bool, capture::guard::Opener) = match &self.device {
            Some(device) => {
                let settings = Settings {
                    format: self.format.clone(),
                    width: self.width,
                    height: self.height,
                    frame_rate: self.rate,
                    trigger: if self.software_trigger { Trigger::Software } else { Trigger::Free },
                    ..Settings::new(device)
                };
                let (backend, clock) = (self.backend.clone(), Arc::clone(clock));
                (settings.label(), self.software_trigger, Box::new(move || capture::open_device(&backend, &settings, clock)))
            }
            None => {
                let (config, clock) = (config::load(&self.config)?, Arc::clone(clock));
                let triggered = config.text("camera.trigger") == "software";
                (format!("camera {}", config.text("camera.name")), triggered, Box::new(move || capture::open(&config, clock)))
            }
        };
        let camera = Guarded::open(&name, opener, OPENING, &mut || true, &mut false)?;
        eprintln!("{}", camera.describe());
        Ok((camera, triggered))
    }
}

/// What to grab.
#[derive(Debug, clap::Args)]
struct GrabArgs {
    #[command(flatten)]
    which: Which,
    /// Number of pictures.
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u32,
    /// Folder for the pictures; it is made.
    #[arg(long)]
    out: PathBuf,
    /// Longest wait for one picture, ms.
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
}

/// What to watch.
#[derive(Debug, clap::Args)]
struct WatchArgs {
    #[command(flatten)]
    which: Which,
    /// For so many seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Print a line each so many seconds as well; 0 = only at the end.
    #[arg(long, default_value_t = 0.0)]
    every: f64,
}

/// Lists, grabs or watches.
///
/// # Errors
/// A device that is not there or fails, a picture that did not come in time, a folder that cannot be written.
pub fn run(args: Args) -> Result<u8> {
    match args.verb {
        Verb::List => {
            for line in list(Path::new("/dev")) {
                println!("{line}");
            }
            Ok(0)
        }
        Verb::Grab(args) => grab(&args),
        Verb::Watch(args) => watch(&args),
    }
}

/// One object for each device; a device that cannot be asked is listed with its error.
fn list(dev: &Path) -> Vec<Value> {
    let mut nodes: Vec<PathBuf> =
        std::fs::read_dir(dev).map(|entries| entries.filter_map(|e| e.ok().map(|e| e.path())).collect()).unwrap_or_default();
    nodes.retain(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("video")));
    nodes.sort();
    let mut out: Vec<Value> = nodes
        .iter()
        .map(|path| {
            let links = stable_paths(dev, path);
            let mut line = match v4l2::offers(path) {
                Ok(offers) => json!({"backend": "v4l2", "device": path, "offers": offers}),
                Err(e) => json!({"backend": "v4l2", "device": path, "error": format!("{e:#}")}),
            };
            line["stable_paths"] = json!(links);
            line
        })
        .collect();
    out.extend(genicam_devices());
    out
}

/// Links below `dev/v4l/` that lead to `node`: names that stay when devices are numbered anew.
fn stable_paths(dev: &Path, node: &Path) -> Vec<PathBuf> {
    let Ok(node) = std::fs::canonicalize(node) else { return Vec::new() };
    let mut out: Vec<PathBuf> = ["by-id", "by-path"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(dev.join("v4l").join(folder)).ok())
        .flatten()
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|link| std::fs::canonicalize(link).is_ok_and(|target| target == node))
        .collect();
    out.sort();
    out
}

#[cfg(feature = "genicam")]
fn genicam_devices() -> Vec<Value> {
    let line = |found: capture::genicam::Found| {
        let mut line = json!({"backend": "genicam", "device": found.id, "vendor": found.vendor, "model": found.model,
            "protocol": found.protocol, "address": found.address});
        match capture::genicam::offers(&found.id) {
            Ok(offers) => line["offers"] = offers,
            Err(e) => line["error"] = format!("{e:#}").into(),
        }
        line
    };
    capture::genicam::find().into_iter().map(line).collect()
}

#[cfg(not(feature = "genicam"))]
fn genicam_devices() -> Vec<Value> {
    vec![json!({"backend": "genicam", "error": "this program was built without the feature genicam"})]
}

fn grab(args: &GrabArgs) -> Result<u8> {
    let clock = Arc::new(SystemClock);
    let (mut camera, triggered) = args.which.open(&clock)?;
    std::fs::create_dir_all(&args.out)
        .map_err(|e| Error::io(format!("folder {}", args.out.display()), e).with_kind(crate::Kind::CannotCreate))?;
    for n in 0..args.count {
        if triggered {
            camera.trigger()?;
        }
        let file = args.out.join(format!("{n:06}.png"));
        let Some(line) = one(&mut camera, clock.as_ref(), &file, args.timeout_ms)? else {
            break;
        };
        println!("{line}");
    }
    Ok(0)
}

/// What a watched camera did.
#[derive(Debug, Default)]
struct Watched {
    /// Frames.
    frames: u64,
    unusable: u64,
    /// Between exposures, ms.
    intervals_ms: Vec<f64>,
    ages_ms: Vec<f64>,
    last_ns: Option<u64>,
}

impl Watched {
    fn take(&mut self, captured_ns: u64, now_ns: u64) {
        self.frames += 1;
        self.ages_ms.push(now_ns.saturating_sub(captured_ns) as f64 / 1e6);
        if let Some(last) = self.last_ns.replace(captured_ns) {
            self.intervals_ms.push((captured_ns as f64 - last as f64) / 1e6);
        }
    }

    fn json(&self, seconds: f64, losses: &capture::Losses) -> Value {
        let spread = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            let at = |p: f64| sorted.get(((sorted.len() as f64 * p).ceil() as usize).saturating_sub(1)).copied();
            json!({"min": sorted.first(), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": sorted.last()})
        };
        let n = self.intervals_ms.len() as f64;
        let mean = self.intervals_ms.iter().sum::<f64>() / n;
        let deviation = (self.intervals_ms.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        let lost = losses.missing + losses.incomplete;
        json!({
            "seconds": seconds, "frames": self.frames, "unusable": self.unusable,
            "rate_hz": (n > 0.0).then(|| 1000.0 / mean), "jitter_ms": (n > 0.0).then_some(deviation),
            "interval_ms": spread(&self.intervals_ms), "age_ms": spread(&self.ages_ms),
            "missing": losses.missing, "incomplete": losses.incomplete, "incomplete_by_status": losses.by_status,
            "lost_share": if self.frames + lost == 0 { 0.0 } else { lost as f64 / (self.frames + lost) as f64 },
        })
    }
}

fn watch(args: &WatchArgs) -> Result<u8> {
    let clock = Arc::new(SystemClock);
    let (mut camera, triggered) = args.which.open(&clock)?;
    let mut watched = Watched::default();
    let (start, mut told) = (Instant::now(), Instant::now());
    let mut waiting = false;
    while start.elapsed().as_secs_f64() < args.seconds {
        if triggered && !waiting {
            camera.trigger()?;
            waiting = true;
        }
        match camera.grab(Duration::from_millis(100))? {
            Grab::Frame(frame) => {
                waiting = false;
                watched.take(frame.captured_mono_ns, clock.mono_ns());
                camera.recycle(frame.image);
            }
            Grab::Unusable { .. } => {
                waiting = false;
                watched.unusable += 1;
            }
            Grab::Idle => {}
            Grab::End => break,
        }
        if args.every > 0.0 && told.elapsed().as_secs_f64() >= args.every {
            told = Instant::now();
            println!("{}", watched.json(start.elapsed().as_secs_f64(), &camera.losses()));
        }
    }
    println!("{}", watched.json(start.elapsed().as_secs_f64(), &camera.losses()));
    Ok(u8::from(watched.frames == 0))
}

/// One picture from the configured camera, its name, and the values of its controls.
///
/// # Errors
/// As the camera's; no picture within five seconds.
pub fn take(config: &config::Config) -> Result<(Gray, String, Values)> {
    let (own, clock) = (config.clone(), Arc::new(SystemClock));
    let name = format!("camera {}", config.text("camera.name"));
    let opener: capture::guard::Opener = Box::new(move || capture::open(&own, clock));
    let mut camera = Guarded::open(&name, opener, OPENING, &mut || true, &mut false)?;
    if config.text("camera.trigger") == "software" {
        camera.trigger()?;
    }
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match camera.grab(until.saturating_duration_since(Instant::now()))? {
            Grab::Frame(frame) => return Ok((frame.image, frame.source.to_string(), camera.values())),
            Grab::Unusable { source, message } => return Err(Error::data(format!("{source}: {message}"))),
            Grab::Idle if Instant::now() < until => {}
            Grab::Idle | Grab::End => return Err(Error::unavailable(format!("{}: no picture came", camera.describe()))),
        }
    }
}

/// One picture into `file` and its line; `None` at the end of a replay.
fn one(camera: &mut dyn Camera, clock: &dyn Clock, file: &Path, timeout_ms: u64) -> Result<Option<Value>> {
    let until = Instant::now() + Duration::from_millis(timeout_ms);
    loop {
        match camera.grab(until.saturating_duration_since(Instant::now()))? {
            Grab::Frame(frame) => {
                let age_ms = clock.mono_ns().saturating_sub(frame.captured_mono_ns) as f64 / 1e6;
                save_gray_png(file, &frame.image)?;
                let losses = camera.losses();
                return Ok(Some(json!({
                    "file": file, "source": frame.source.as_ref(), "captured_at": frame.captured_at.to_string(),
                    "captured_mono_ns": frame.captured_mono_ns, "device_time_ns": frame.device_time_ns,
                    "device_sequence": frame.device_sequence, "age_ms": age_ms, "size_px": [frame.image.width(), frame.image.height()],
                    "incomplete": losses.incomplete, "incomplete_by_status": losses.by_status, "missing": losses.missing,
                    "controls": camera.values(),
                })));
            }
            Grab::Unusable { source, message } => return Err(Error::data(format!("{source}: {message}"))),
            Grab::End => return Ok(None),
            Grab::Idle if Instant::now() >= until => {
                return Err(Error::unavailable(format!("{}: no picture within {timeout_ms} ms", camera.describe())));
            }
            Grab::Idle => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::replay;
    use crate::frame::load_gray;

    #[test]
    fn a_picture_and_its_line_are_written_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let image = Gray::from_fn(5, 4, |x, y| (x * 40 + y) as u8);
        save_gray_png(&dir.path().join("a.png"), &image).unwrap();
        let settings =
            replay::Settings { name: "cam".into(), path: dir.path().into(), rate_hz: 100.0, looping: false, triggered: false };
        let mut camera = replay::Replay::open(settings, Arc::new(SystemClock)).unwrap();
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("0.png");
        let line = one(&mut camera, &SystemClock, &file, 1000).unwrap().unwrap();
        assert_eq!(load_gray(&file).unwrap(), image);
        assert_eq!(line["size_px"], json!([5, 4]));
        assert_eq!(line["device_sequence"], 0);
        assert!(one(&mut camera, &SystemClock, &file, 1000).unwrap().is_none());
    }

    #[test]
    fn rate_jitter_and_age_follow_from_the_stamps() {
        let mut watched = Watched::default();
        for (captured, now) in [(0, 5), (100, 110), (200, 203), (320, 321)] {
            watched.take(captured * 1_000_000, now * 1_000_000);
        }
        let losses = capture::Losses { missing: 1, ..capture::Losses::default() };
        let line = watched.json(1.0, &losses);
        assert_eq!((line["frames"].as_u64(), line["lost_share"].as_f64()), (Some(4), Some(0.2)));
        assert!((line["rate_hz"].as_f64().unwrap() - 9.375).abs() < 1e-9, "{line}");
        // 100, 100, 120: deviation of the population.
        assert!((line["jitter_ms"].as_f64().unwrap() - (800.0f64 / 9.0).sqrt()).abs() < 1e-9, "{line}");
        assert_eq!((line["age_ms"]["max"].as_f64(), line["age_ms"]["p50"].as_f64()), (Some(10.0), Some(3.0)));
        assert_eq!(Watched::default().json(1.0, &capture::Losses::default())["rate_hz"], Value::Null);
    }

    #[test]
    fn stable_names_of_a_node_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("video3"), b"").unwrap();
        std::fs::create_dir_all(dir.path().join("v4l/by-id")).unwrap();
        let link = dir.path().join("v4l/by-id/usb-cam-index0");
        std::os::unix::fs::symlink("../../video3", &link).unwrap();
        std::os::unix::fs::symlink("../../video4", dir.path().join("v4l/by-id/other")).unwrap();
        assert_eq!(stable_paths(dir.path(), &dir.path().join("video3")), [link]);
    }

    #[test]
    fn a_node_that_is_no_camera_is_listed_with_its_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("video7"), b"").unwrap();
        std::fs::write(dir.path().join("tty"), b"").unwrap();
        let found = list(dir.path());
        let nodes: Vec<&Value> = found.iter().filter(|v| v["backend"] == "v4l2").collect();
        assert_eq!(nodes.len(), 1);
        assert!(nodes[0]["error"].as_str().unwrap().contains("video7"), "{nodes:?}");
    }
}
