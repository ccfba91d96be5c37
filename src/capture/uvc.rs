//! Webcams (UVC) through nokhwa: YUYV, NV12 and MJPG to gray.
//!
//! nokhwa waits for a frame without a time-out, so a thread of its own, `uvc`, opens the device, reads it and hands the newest frame over;
//! a frame nobody took is replaced by the next one and counted as missing. The time of exposure is the driver's stamp as nokhwa passes it on.
//! Limits: nokhwa tells neither the kernel's sequence number nor its mark for bad buffers, and opens by number, not by path; so frame
//! numbers are counted here. Nor does it tell how much of a buffer the driver filled: behind a torn frame lies what the buffer held before, so
//! that a torn frame may pass for a whole one (a torn MJPG is seen only where that does not decode). [`super::v4l2`] reads all of these formats
//! without such limits and is what `auto` takes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nokhwa::utils::{CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType};
use nokhwa::{Buffer, Camera as Device, NokhwaError};

use super::device::moments_ago;
use super::unpack::{self, Layout};
use super::{Camera, Captured, Grab, Losses, Settings, Trigger, Values, mjpg};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::frame::Gray;

/// The formats read here, best first, by the kernel's names.
pub const FORMATS: [(&str, FrameFormat); 3] =
    [("YUYV", FrameFormat::YUYV), ("NV12", FrameFormat::NV12), ("MJPG", FrameFormat::MJPEG)];

/// Opening a device takes at most this long.
const OPENING: Duration = Duration::from_secs(8);
/// A closing thread gets this long to see it.
const CLOSING: Duration = Duration::from_secs(2);

/// Number of the node that a path leads to: 2 for a link to `/dev/video2`.
fn index_of(label: &str, path: &Path) -> Result<u32> {
    let node =
        std::fs::canonicalize(path).map_err(|e| Error::unavailable(format!("{label}: opening {}: {e}", path.display())))?;
    let name = node.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.strip_prefix("video")
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| Error::config(format!("{label}: {} is no video device; wanted a path to /dev/videoN", node.display())))
}

fn failed(label: &str, what: &str, error: &NokhwaError) -> Error {
    Error::unavailable(format!("{label}: {what}: {error}"))
}

/// Which of the device's formats to ask for.
fn choose(label: &str, settings: &Settings, offered: &[CameraFormat]) -> Result<CameraFormat> {
    let wanted_name = settings.format.as_deref();
    let fits = |f: &&CameraFormat| {
        settings.width.is_none_or(|w| f.width() == w)
            && settings.height.is_none_or(|h| f.height() == h)
            && settings.frame_rate.is_none_or(|r| (f64::from(f.frame_rate()) - r).abs() <= 0.01 * r)
    };
    for (name, format) in FORMATS.iter().filter(|f| wanted_name.is_none_or(|w| w == f.0)) {
        // The largest picture, then the highest rate, where nothing was asked.
        let best = offered
            .iter()
            .filter(|f| f.format() == *format)
            .filter(fits)
            .max_by_key(|f| (f.width() as u64 * f.height() as u64, f.frame_rate()));
        if let Some(best) = best {
            log::debug!("{label}: {name} {}x{} at {} Hz", best.width(), best.height(), best.frame_rate());
            return Ok(*best);
        }
    }
    let mut names: Vec<String> =
        offered.iter().map(|f| format!("{} {}x{}@{}", f.format(), f.width(), f.height(), f.frame_rate())).collect();
    names.sort();
    names.dedup();
    Err(Error::config(format!(
        "{label}: offers {}; wanted {} {}x{} at {}",
        names.join(", "),
        wanted_name.unwrap_or("YUYV, NV12 or MJPG"),
        settings.width.map_or_else(|| "any".into(), |v| v.to_string()),
        settings.height.map_or_else(|| "any".into(), |v| v.to_string()),
        settings.frame_rate.map_or_else(|| "any rate".into(), |v| format!("{v} Hz")),
    )))
}

/// A frame read, or why there are no more.
type Read = Result<Frame>;

/// What the reading thread hands over.
struct Frame {
    number: u64,
    buffer: Buffer,
    /// When it was taken, monotonic nanoseconds.
    taken_ns: u64,
}

/// An open device, or why it is not.
type Opened = Result<(CameraFormat, String)>;

/// A webcam.
pub struct Uvc {
    settings: Settings,
    clock: Arc<dyn Clock>,
    source: Arc<str>,
    frames: Receiver<Read>,
    replaced: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    ended: Receiver<()>,
    format: CameraFormat,
    card: String,
    losses: Losses,
    spare: Gray,
}

impl Uvc {
    /// Opens and starts the device.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] naming the device when it is not there or does not open; [`Kind::Config`] for a format, size, rate or control
    /// that cannot be had through this back end.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let label = settings.label();
        if settings.trigger != Trigger::Free {
            return Err(Error::config(format!("{label}: the uvc back end has no triggers; wanted camera.trigger free")));
        }
        if settings.exposure_us.is_some() || settings.gain.is_some() || !settings.controls.is_empty() {
            return Err(Error::config(format!(
                "{label}: the uvc back end sets no controls; use camera.backend v4l2 for exposure, gain and controls"
            )));
        }
        let index = index_of(&label, Path::new(&settings.device))?;
        let (opened, at_opened) = bounded::<Opened>(1);
        let (frames_in, frames) = bounded(1);
        let (alive, ended) = bounded::<()>(0);
        let (stop, replaced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let reader = Reader {
            label: label.clone(),
            settings: settings.clone(),
            clock: Arc::clone(&clock),
            index,
            opened,
            oldest: frames.clone(),
            frames: frames_in,
            stop: Arc::clone(&stop),
            replaced: Arc::clone(&replaced),
        };
        std::thread::Builder::new()
            .name("uvc".into())
            .spawn(move || {
                reader.run();
                drop(alive);
            })
            .map_err(|e| Error::new(Kind::TryAgain, format!("thread uvc cannot be started: {e}")))?;
        let (format, card) = match at_opened.recv_timeout(OPENING) {
            Ok(answer) => answer?,
            Err(_) => {
                stop.store(true, Ordering::SeqCst);
                return Err(Error::unavailable(format!("{label}: does not open within {:.0} s", OPENING.as_secs_f64())));
            }
        };
        Ok(Self {
            source: settings.name.as_str().into(),
            settings,
            clock,
            frames,
            replaced,
            stop,
            ended,
            format,
            card,
            losses: Losses::default(),
            spare: Gray::default(),
        })
    }

    fn convert(&mut self, frame: &Frame) -> Option<Captured> {
        let Frame { number, buffer, taken_ns } = frame;
        let (width, height) = (self.format.width() as usize, self.format.height() as usize);
        let mut image = std::mem::take(&mut self.spare);
        let read = match self.format.format() {
            FrameFormat::MJPEG => mjpg::gray_of_jpeg(buffer.buffer(), width, height).map(|g| image = g),
            FrameFormat::NV12 => unpack::to_gray(Layout::Nv12, buffer.buffer(), width, height, 0, &mut image),
            _ => unpack::to_gray(Layout::Yuyv, buffer.buffer(), width, height, 0, &mut image),
        };
        if let Err(e) = read {
            self.losses.count("undecodable");
            log::debug!("{}: frame {number}: {e}", self.settings.label());
            self.spare = image;
            return None;
        }
        let age = Duration::from_nanos(self.clock.mono_ns().saturating_sub(*taken_ns));
        let (captured_at, captured_mono_ns) = moments_ago(&self.clock, age);
        Some(Captured {
            image,
            captured_at,
            captured_mono_ns,
            device_sequence: *number,
            device_time_ns: None,
            source: Arc::clone(&self.source),
            part_id: None,
        })
    }
}

/// When a frame just read was taken, monotonic nanoseconds. nokhwa turns the driver's monotonic stamp into the wall clock's time while it reads
/// the frame; turned back at once, a wall clock that is set while the frame waits plays no part.
fn taken_ns(buffer: &Buffer, clock: &dyn Clock) -> u64 {
    let now = clock.now().as_nanosecond();
    let age = buffer.capture_timestamp().and_then(|at| u64::try_from(now - i128::try_from(at.as_nanos()).unwrap_or(now)).ok());
    clock.mono_ns().saturating_sub(age.unwrap_or(0))
}

/// What the reading thread has.
struct Reader {
    label: String,
    settings: Settings,
    clock: Arc<dyn Clock>,
    index: u32,
    opened: Sender<Opened>,
    frames: Sender<Read>,
    /// The same queue's other end, to replace a frame nobody took.
    oldest: Receiver<Read>,
    stop: Arc<AtomicBool>,
    replaced: Arc<AtomicU64>,
}

impl Reader {
    fn run(self) {
        let mut device = match self.start() {
            Ok(device) => device,
            Err(e) => {
                // Nobody listening means the opening was given up.
                let _ = self.opened.send(Err(e));
                return;
            }
        };
        if self.opened.send(Ok((device.camera_format(), device.info().human_name()))).is_err() {
            return;
        }
        for number in 0.. {
            let read = device.frame();
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let ends = read.is_err();
            let mut item = read
                .map(|buffer| {
                    let taken_ns = taken_ns(&buffer, self.clock.as_ref());
                    Frame { number, buffer, taken_ns }
                })
                .map_err(|e| failed(&self.label, "reading a frame", &e));
            while let Err(e) = self.frames.try_send(item) {
                if e.is_disconnected() {
                    return;
                }
                item = e.into_inner();
                if self.oldest.try_recv().is_ok() {
                    self.replaced.fetch_add(1, Ordering::Relaxed);
                }
            }
            if ends {
                return;
            }
        }
    }

    fn start(&self) -> Result<Device> {
        let label = self.label.as_str();
        let say = move |what: &'static str| move |e: NokhwaError| failed(label, what, &e);
        let readable = FORMATS.map(|f| f.1);
        let index = CameraIndex::Index(self.index);
        let any = RequestedFormat::with_formats(RequestedFormatType::None, &readable);
        let offered = Device::new(index.clone(), any).map_err(say("opening it"))?.compatible_camera_formats();
        let format = choose(&self.label, &self.settings, &offered.map_err(say("asking for its formats"))?)?;
        let exact = RequestedFormat::with_formats(RequestedFormatType::Exact(format), &readable);
        let mut device = Device::new(index, exact).map_err(say("setting its format"))?;
        let actual = device.camera_format();
        if actual != format {
            return Err(Error::unavailable(format!(
                "{}: format was set to {format}, but the device reads back {actual}",
                self.label
            )));
        }
        device.open_stream().map_err(say("starting it"))?;
        log::warn!("{}: the uvc back end cannot tell every torn frame from a whole one; camera.backend v4l2 can", self.label);
        Ok(device)
    }
}

impl Camera for Uvc {
    fn describe(&self) -> String {
        let f = &self.format;
        format!(
            "{}: {} by uvc, {}x{} {} at {} Hz",
            self.settings.label(),
            self.card,
            f.width(),
            f.height(),
            f.format(),
            f.frame_rate()
        )
    }

    fn grab(&mut self, timeout: Duration) -> Result<Grab> {
        match self.frames.recv_timeout(timeout) {
            Ok(Ok(frame)) => Ok(self.convert(&frame).map_or(Grab::Idle, Grab::Frame)),
            Ok(Err(e)) => Err(e),
            Err(RecvTimeoutError::Timeout) => Ok(Grab::Idle),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::unavailable(format!("{}: its reader has ended", self.settings.label())))
            }
        }
    }

    fn losses(&self) -> Losses {
        Losses { missing: self.replaced.load(Ordering::Relaxed), ..self.losses.clone() }
    }

    fn values(&self) -> Values {
        let f = &self.format;
        [("format".to_owned(), f.format().to_string()), ("size".to_owned(), format!("{}x{}", f.width(), f.height()))].into()
    }

    fn recycle(&mut self, picture: Gray) {
        self.spare = picture;
    }
}

impl Drop for Uvc {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if self.ended.recv_timeout(CLOSING) == Err(RecvTimeoutError::Timeout) {
            log::error!("{}: its driver does not let go; the reading thread is left to it", self.settings.label());
        }
    }
}

#[cfg(test)]
mod tests {
    use nokhwa::utils::Resolution;

    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn the_wanted_format_is_chosen_and_a_missing_one_named() {
        let at = |w, h, f, r| CameraFormat::new(Resolution::new(w, h), f, r);
        let offered = [
            at(640, 480, FrameFormat::MJPEG, 60),
            at(640, 480, FrameFormat::YUYV, 30),
            at(320, 240, FrameFormat::YUYV, 30),
            at(320, 240, FrameFormat::YUYV, 15),
        ];
        let pick = |s: &Settings| choose("c", s, &offered);
        let any = Settings::new("/dev/video0");
        assert_eq!(pick(&any).unwrap(), offered[1]);
        assert_eq!(pick(&Settings { format: Some("MJPG".into()), ..any.clone() }).unwrap(), offered[0]);
        assert_eq!(pick(&Settings { width: Some(320), frame_rate: Some(15.0), ..any.clone() }).unwrap(), offered[3]);
        let error = pick(&Settings { format: Some("NV12".into()), width: Some(800), ..any }).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().ends_with("wanted NV12 800xany at any rate"), "{error}");
    }

    #[test]
    fn what_is_no_webcam_is_named() {
        let open = |s: Settings| Uvc::open(s, Arc::new(SystemClock)).map(|_| ()).unwrap_err();
        let missing = open(Settings::new("/dev/v4l/by-id/no-such-camera"));
        assert_eq!(missing.kind(), Kind::Unavailable);
        let other = open(Settings::new("/dev/null"));
        assert_eq!(other.to_string(), "camera /dev/null: /dev/null is no video device; wanted a path to /dev/videoN");
        let gain = open(Settings { gain: Some(1.0), ..Settings::new("/dev/video0") });
        assert!(gain.to_string().contains("use camera.backend v4l2"), "{gain}");
    }
}
