//! `ssds camera list` and `ssds camera grab`: what devices there are, and pictures from one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::capture::{self, Camera, Grab, Settings, Trigger, v4l2};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::error::{Error, Result};
use crate::frame::save_gray_png;

/// Cameras.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// One JSON line for each video device found.
    List,
    /// Take pictures: PNG files and one JSON line each.
    Grab(GrabArgs),
}

/// What to grab.
#[derive(Debug, clap::Args)]
struct GrabArgs {
    /// Configuration file whose camera section is used.
    #[arg(long, default_value = "/etc/ssds/ssds.toml", conflicts_with = "device")]
    config: PathBuf,
    /// A device instead: a path such as /dev/video0, or a GenICam camera's address, serial number or name.
    #[arg(long)]
    device: Option<String>,
    /// Pixel format, with --device.
    #[arg(long, requires = "device")]
    format: Option<String>,
    /// Trigger each picture by software, with --device.
    #[arg(long, requires = "device")]
    software_trigger: bool,
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

/// Lists or grabs.
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
    }
}

/// One object for each device; a device that cannot be asked is listed with its error.
fn list(dev: &Path) -> Vec<Value> {
    let mut nodes: Vec<PathBuf> =
        std::fs::read_dir(dev).map(|entries| entries.filter_map(|e| e.ok().map(|e| e.path())).collect()).unwrap_or_default();
    nodes.retain(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("video")));
    nodes.sort();
    nodes
        .iter()
        .map(|path| match v4l2::probe(&format!("camera {}", path.display()), path) {
            Ok((_, formats)) => {
                let names: Vec<String> = formats.iter().map(|f| String::from_utf8_lossy(f).trim_end().to_owned()).collect();
                json!({"backend": "v4l2", "device": path, "formats": names})
            }
            Err(e) => json!({"backend": "v4l2", "device": path, "error": format!("{e:#}")}),
        })
        .collect()
}

fn grab(args: &GrabArgs) -> Result<u8> {
    let clock = Arc::new(SystemClock);
    let mut camera = match &args.device {
        Some(device) => {
            let settings = Settings {
                format: args.format.clone(),
                trigger: if args.software_trigger { Trigger::Software } else { Trigger::Free },
                ..Settings::new(device)
            };
            if args.software_trigger && device.starts_with('/') {
                return Err(Error::new(crate::Kind::Usage, format!("--software-trigger needs a GenICam camera, got {device}")));
            }
            capture::open_device("auto", &settings, clock.clone())?
        }
        None => capture::open(&config::load(&args.config)?, clock.clone())?,
    };
    eprintln!("{}", camera.describe());
    std::fs::create_dir_all(&args.out)
        .map_err(|e| Error::io(format!("folder {}", args.out.display()), e).with_kind(crate::Kind::CannotCreate))?;
    for n in 0..args.count {
        if args.software_trigger {
            camera.trigger()?;
        }
        let Some(line) = one(camera.as_mut(), clock.as_ref(), &args.out.join(format!("{n:06}.png")), args.timeout_ms)? else {
            break;
        };
        println!("{line}");
    }
    Ok(0)
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
                    "incomplete": losses.incomplete, "missing": losses.missing,
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
    use crate::frame::{Gray, load_gray};

    #[test]
    fn a_picture_and_its_line_are_written_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let image = Gray::from_fn(5, 4, |x, y| (x * 40 + y) as u8);
        save_gray_png(&dir.path().join("a.png"), &image).unwrap();
        let settings = replay::Settings { name: "cam".into(), path: dir.path().into(), rate_hz: 100.0, looping: false };
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
