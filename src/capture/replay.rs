//! The replay camera: recorded pictures at a set rate, as a camera would deliver them.
//!
//! Pictures come from a folder (PNG, JPEG, BMP, TIFF by extension, in order of their names, subfolders not entered), a text list (one path
//! a line, `#` begins a comment) or a JSONL pair manifest (its `image` keys). They are converted to 8-bit gray as
//! [`crate::frame::load_gray`] states. Frame `n` is due at start + n / rate on the monotonic clock; a slow consumer makes later frames
//! late, never lost. The time of exposure is the time a frame became due. A picture that cannot be read is reported as
//! [`Grab::Unusable`], and the replay goes on. Triggered, it shows one picture for each software trigger, at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Camera, Captured, Grab};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::frame::load_gray;

/// What to replay and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name in logs.
    pub name: String,
    /// Folder, .txt list or .jsonl manifest.
    pub path: PathBuf,
    /// Frames a second.
    pub rate_hz: f64,
    /// Start again after the last picture.
    pub looping: bool,
    /// One picture for each software trigger instead of a rate.
    pub triggered: bool,
}

/// The replay camera.
pub struct Replay {
    settings: Settings,
    files: Vec<PathBuf>,
    clock: Arc<dyn Clock>,
    next: u64,
    start_ns: Option<u64>,
    /// Triggers that have not brought their picture yet.
    triggers: u64,
}

impl Replay {
    /// Lists the pictures.
    ///
    /// # Errors
    /// [`Kind::Config`] when the path is missing, unreadable, or holds no picture: a replay folder does not come back by itself.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let files = list(&settings.path).map_err(|e| e.with_kind(Kind::Config))?;
        if files.is_empty() {
            return Err(Error::config(format!(
                "camera.path {}: holds no picture; wanted at least one .png, .jpg, .bmp or .tif file",
                settings.path.display()
            )));
        }
        Ok(Self { settings, files, clock, next: 0, start_ns: None, triggers: 0 })
    }

    /// Number of pictures in one round.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Never: opening an empty replay fails.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// The pictures of a folder, text list or JSONL manifest.
fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("camera.path {}", path.display());
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(what(), e))?;
        let mut files = Vec::new();
        for entry in entries {
            let file = entry.map_err(|e| Error::io(what(), e))?.path();
            let extension = file.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
            if extension.is_some_and(|e| matches!(e.as_str(), "png" | "jpg" | "jpeg" | "bmp" | "tif" | "tiff")) {
                files.push(file);
            }
        }
        files.sort();
        return Ok(files);
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(what(), e))?;
    let is_manifest = path.extension().is_some_and(|e| e == "jsonl");
    let mut files = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if is_manifest {
            let value: serde_json::Value = serde_json::from_str(line)
                .map_err(|e| Error::data(format!("{}:{}: not JSON: {e}", path.display(), number + 1)))?;
            let image = value["image"].as_str().ok_or_else(|| {
                Error::data(format!("{}:{}: key image must be a path, got {}", path.display(), number + 1, value["image"]))
            })?;
            files.push(folder.join(image));
        } else {
            files.push(folder.join(line));
        }
    }
    Ok(files)
}

impl Camera for Replay {
    fn describe(&self) -> String {
        format!(
            "{}: replay of {} pictures from {} {}{}",
            self.settings.name,
            self.files.len(),
            self.settings.path.display(),
            if self.settings.triggered { "by software trigger".to_owned() } else { format!("at {} Hz", self.settings.rate_hz) },
            if self.settings.looping { ", looping" } else { "" }
        )
    }

    fn may_be_silent(&self) -> bool {
        true
    }

    fn is_live(&self) -> bool {
        false
    }

    fn trigger(&mut self) -> Result<()> {
        if !self.settings.triggered {
            return Err(Error::new(Kind::Usage, format!("{}: is not in software trigger mode", self.settings.name)));
        }
        self.triggers += 1;
        Ok(())
    }

    fn grab(&mut self, timeout: Duration) -> Result<Grab> {
        let count = self.files.len() as u64;
        if !self.settings.looping && self.next >= count {
            return Ok(Grab::End);
        }
        if self.settings.triggered {
            if self.triggers == 0 {
                self.clock.sleep(timeout);
                return Ok(Grab::Idle);
            }
            self.triggers -= 1;
            return Ok(self.show());
        }
        let now = self.clock.mono_ns();
        let start = *self.start_ns.get_or_insert(now);
        let due = start + (self.next as f64 * 1e9 / self.settings.rate_hz) as u64;
        if due > now {
            let wait = Duration::from_nanos(due - now);
            if wait > timeout {
                self.clock.sleep(timeout);
                return Ok(Grab::Idle);
            }
            self.clock.sleep(wait);
        }
        Ok(self.show())
    }
}

impl Replay {
    /// The next picture.
    fn show(&mut self) -> Grab {
        let file = &self.files[(self.next % self.files.len() as u64) as usize];
        let device_sequence = self.next;
        self.next += 1;
        let source: Arc<str> = file.to_string_lossy().into();
        let (captured_at, captured_mono_ns) = (self.clock.now(), self.clock.mono_ns());
        match load_gray(file) {
            Ok(image) => Grab::Frame(Captured {
                image,
                captured_at,
                captured_mono_ns,
                device_sequence,
                device_time_ns: None,
                source,
                part_id: None,
            }),
            Err(e) => Grab::Unusable { source, message: format!("{e:#}") },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};
    use crate::frame::{Gray, save_gray_png};

    fn folder(n: usize) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..n {
            save_gray_png(&dir.path().join(format!("{i:03}.png")), &Gray::from_fn(4, 3, |_, _| i as u8)).unwrap();
        }
        dir
    }

    fn open(path: &Path, looping: bool) -> (Replay, Arc<SimulatedClock>) {
        let clock = Arc::new(SimulatedClock::new(Timestamp::UNIX_EPOCH));
        let settings = Settings { name: "cam".into(), path: path.into(), rate_hz: 10.0, looping, triggered: false };
        (Replay::open(settings, clock.clone()).unwrap(), clock)
    }

    fn frame(grab: Grab) -> Captured {
        match grab {
            Grab::Frame(f) => f,
            other => panic!("wanted a frame, got {other:?}"),
        }
    }

    #[test]
    fn frames_come_in_order_at_the_set_rate_and_end() {
        let dir = folder(3);
        let (mut camera, clock) = open(dir.path(), false);
        for i in 0..3u64 {
            let f = frame(camera.grab(Duration::from_secs(1)).unwrap());
            assert_eq!(f.image.get(0, 0), i as u8);
            assert_eq!(f.device_sequence, i);
            assert_eq!(f.captured_mono_ns, i * 100_000_000);
        }
        assert!(matches!(camera.grab(Duration::from_secs(1)).unwrap(), Grab::End));
        assert_eq!(clock.mono_ns(), 200_000_000);
    }

    #[test]
    fn a_short_timeout_is_idle_not_a_frame() {
        let dir = folder(2);
        let (mut camera, _) = open(dir.path(), false);
        frame(camera.grab(Duration::from_millis(10)).unwrap());
        assert!(matches!(camera.grab(Duration::from_millis(10)).unwrap(), Grab::Idle));
    }

    #[test]
    fn a_loop_goes_round_with_rising_numbers() {
        let dir = folder(2);
        let (mut camera, _) = open(dir.path(), true);
        let seen: Vec<(u64, u8)> = (0..5)
            .map(|_| frame(camera.grab(Duration::from_secs(1)).unwrap()))
            .map(|f| (f.device_sequence, f.image.get(0, 0)))
            .collect();
        assert_eq!(seen, [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]);
    }

    #[test]
    fn triggered_it_shows_one_picture_a_trigger() {
        let dir = folder(2);
        let clock = Arc::new(SimulatedClock::new(Timestamp::UNIX_EPOCH));
        let settings = Settings { name: "cam".into(), path: dir.path().into(), rate_hz: 10.0, looping: false, triggered: true };
        let mut camera = Replay::open(settings, clock).unwrap();
        let second = Duration::from_secs(1);
        assert!(matches!(camera.grab(second).unwrap(), Grab::Idle));
        camera.trigger().unwrap();
        assert_eq!(frame(camera.grab(second).unwrap()).device_sequence, 0);
        assert!(matches!(camera.grab(second).unwrap(), Grab::Idle));
        camera.trigger().unwrap();
        camera.trigger().unwrap();
        assert_eq!(frame(camera.grab(second).unwrap()).device_sequence, 1);
        assert!(matches!(camera.grab(second).unwrap(), Grab::End));
        assert_eq!(open(dir.path(), false).0.trigger().unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn an_unreadable_picture_is_reported_and_the_replay_goes_on() {
        let dir = folder(3);
        std::fs::write(dir.path().join("001.png"), b"not a picture").unwrap();
        let (mut camera, _) = open(dir.path(), false);
        frame(camera.grab(Duration::from_secs(1)).unwrap());
        match camera.grab(Duration::from_secs(1)).unwrap() {
            Grab::Unusable { message, .. } => {
                assert!(message.contains("001.png: not a PNG, JPEG, BMP or TIFF file"), "{message}")
            }
            other => panic!("wanted Unusable, got {other:?}"),
        }
        frame(camera.grab(Duration::from_secs(1)).unwrap());
    }

    #[test]
    fn lists_and_manifests_name_their_pictures() {
        let dir = folder(3);
        std::fs::write(dir.path().join("l.txt"), "# two of them\n002.png\n\n000.png\n").unwrap();
        assert_eq!(open(&dir.path().join("l.txt"), false).0.len(), 2);
        std::fs::write(dir.path().join("p.jsonl"), "{\"pair\":\"a\",\"template\":\"t.png\",\"image\":\"001.png\"}\n").unwrap();
        let (mut camera, _) = open(&dir.path().join("p.jsonl"), false);
        assert_eq!(frame(camera.grab(Duration::from_secs(1)).unwrap()).image.get(0, 0), 1);
    }

    #[test]
    fn a_missing_or_empty_folder_is_a_configuration_fault() {
        let clock = Arc::new(SimulatedClock::new(Timestamp::UNIX_EPOCH));
        let dir = tempfile::tempdir().unwrap();
        let at = |path: PathBuf| {
            let settings = Settings { name: "cam".into(), path, rate_hz: 1.0, looping: false, triggered: false };
            Replay::open(settings, clock.clone()).map(|_| ()).unwrap_err()
        };
        let empty = at(dir.path().into());
        assert_eq!(empty.kind(), Kind::Config);
        assert!(empty.to_string().contains("holds no picture"), "{empty}");
        let missing = at(dir.path().join("none"));
        assert_eq!(missing.kind(), Kind::Config);
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
