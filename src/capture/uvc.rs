//! Webcams (UVC) through nokhwa: YUYV, NV12 and MJPG to gray.
//!
//! nokhwa waits for a frame without a time-out, so a thread of its own, `uvc`, opens the device, reads it and hands the newest frame over;
//! a frame nobody took is replaced by the next one and counted as missing. The time of exposure is the driver's stamp as nokhwa passes it on.
//! Limits: nokhwa tells neither the kernel's sequence number nor its mark for bad buffers, and opens by number, not by path; so frame
//! numbers are counted here, a torn YUYV or NV12 frame cannot be told from a whole one (a torn MJPG does not decode and is counted), and
//! [`super::v4l2`] is the better reader for every format that it knows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nokhwa::utils::{CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType};
use nokhwa::{Buffer, Camera as Device, NokhwaError};

use super::device::moments_ago;
use super::unpack::{self, Layout};
use super::{Camera, Captured, Grab, Losses, Settings, Trigger, Values};
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

/// Decodes a JPEG's gray picture.
///
/// # Errors
/// [`Kind::Data`] when it does not decode or has another size.
pub fn gray_of_jpeg(bytes: &[u8], width: usize, height: usize) -> Result<Gray> {
    // The decoder fills what is missing with gray. Within a picture's data FF is always followed by 00, so this mark is its end.
    if !bytes.windows(2).any(|w| w == [0xff, 0xd9]) {
        return Err(Error::data("an MJPG frame is torn: it has no end mark"));
    }
    let picture = image::load_from_memory_with_format(bytes, image::ImageFormat::Jpeg)
        .map_err(|e| Error::data(format!("an MJPG frame does not decode: {e}")))?;
    let gray = crate::frame::gray_from_dynamic(&picture);
    if gray.size() != (width, height) {
        let (w, h) = gray.size();
        return Err(Error::data(format!("an MJPG frame is {w}x{h}, wanted {width}x{height}")));
    }
    Ok(gray)
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

/// An open device, or why it is not.
type Opened = Result<(CameraFormat, String)>;

/// A webcam.
pub struct Uvc {
    settings: Settings,
    clock: Arc<dyn Clock>,
    source: Arc<str>,
    frames: Receiver<std::result::Result<(u64, Buffer), Error>>,
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

    fn convert(&mut self, number: u64, buffer: &Buffer) -> Result<Option<Captured>> {
        let (width, height) = (self.format.width() as usize, self.format.height() as usize);
        let mut image = std::mem::take(&mut self.spare);
        let read = match self.format.format() {
            FrameFormat::MJPEG => gray_of_jpeg(buffer.buffer(), width, height).map(|g| image = g),
            FrameFormat::NV12 => unpack::to_gray(Layout::Nv12, buffer.buffer(), width, height, 0, &mut image),
            _ => unpack::to_gray(Layout::Yuyv, buffer.buffer(), width, height, 0, &mut image),
        };
        if let Err(e) = read {
            self.losses.count("undecodable");
            log::debug!("{}: frame {number}: {e}", self.settings.label());
            self.spare = image;
            return Ok(None);
        }
        let now = self.clock.now().as_nanosecond();
        let age = buffer
            .capture_timestamp()
            .and_then(|at| u64::try_from(now - i128::try_from(at.as_nanos()).unwrap_or(now)).ok())
            .map_or(Duration::ZERO, Duration::from_nanos);
        let (captured_at, captured_mono_ns) = moments_ago(&self.clock, age);
        Ok(Some(Captured {
            image,
            captured_at,
            captured_mono_ns,
            device_sequence: number,
            device_time_ns: None,
            source: Arc::clone(&self.source),
            part_id: None,
        }))
    }
}

/// What the reading thread has.
struct Reader {
    label: String,
    settings: Settings,
    index: u32,
    opened: Sender<Opened>,
    frames: Sender<std::result::Result<(u64, Buffer), Error>>,
    /// The same queue's other end, to replace a frame nobody took.
    oldest: Receiver<std::result::Result<(u64, Buffer), Error>>,
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
            let mut item = read.map(|b| (number, b)).map_err(|e| failed(&self.label, "reading a frame", &e));
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
            Ok(Ok((number, buffer))) => Ok(self.convert(number, &buffer)?.map_or(Grab::Idle, Grab::Frame)),
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

    fn jpeg(width: usize, height: usize, color: bool) -> (Vec<u8>, Gray) {
        let gray = Gray::from_fn(width, height, |x, y| (40 + 3 * x + 2 * y) as u8);
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
        if color {
            let rgb: Vec<u8> = gray.data().iter().flat_map(|v| [*v; 3]).collect();
            encoder.encode(&rgb, width as u32, height as u32, image::ExtendedColorType::Rgb8).unwrap();
        } else {
            encoder.encode(gray.data(), width as u32, height as u32, image::ExtendedColorType::L8).unwrap();
        }
        (bytes, gray)
    }

    #[test]
    fn mjpg_becomes_gray_on_odd_sizes_and_torn_frames_do_not_pass() {
        for (width, height) in [(8, 8), (33, 17), (7, 5)] {
            for color in [false, true] {
                let (mut bytes, want) = jpeg(width, height, color);
                // What a driver leaves behind the picture is not read.
                bytes.extend_from_slice(&[0; 40]);
                let got = gray_of_jpeg(&bytes, width, height).unwrap();
                let worst = got.data().iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(worst <= 2, "{width}x{height}: {worst} levels off");
                let size = gray_of_jpeg(&bytes, width + 1, height).unwrap_err();
                assert_eq!(size.to_string(), format!("an MJPG frame is {width}x{height}, wanted {}x{height}", width + 1));
            }
        }
        let (bytes, _) = jpeg(64, 64, true);
        for kept in [20, bytes.len() / 2, bytes.len() - 2] {
            let torn = gray_of_jpeg(&bytes[..kept], 64, 64).unwrap_err();
            assert_eq!(torn.to_string(), "an MJPG frame is torn: it has no end mark", "{kept} bytes");
        }
        let other = gray_of_jpeg(b"no picture at all\xff\xd9", 64, 64).unwrap_err();
        assert!(other.to_string().starts_with("an MJPG frame does not decode"), "{other}");
    }

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
