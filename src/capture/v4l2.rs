//! Linux video devices (V4L2, single-planar) by memory-mapped streaming.
//!
//! The device is opened by path, set to one of [`FORMATS`] (stride and picture size are left to the driver), and read with `poll`, so a
//! silent device is a time-out and never a hang. Every frame carries the kernel's sequence number, whose gaps are lost frames, and its
//! CLOCK_MONOTONIC timestamp. Buffers that the driver marks bad or fills in part are counted and never delivered. V4L2 has no common
//! trigger: where a driver has a control for it, `camera.controls` sets it and `camera.trigger` hardware lets the device be silent. Limits:
//! no multi-planar devices, no compressed pictures but MJPG. Source: the kernel's V4L2 API reference.

pub mod controls;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use v4l::buffer::{Flags, Metadata, Type};
use v4l::capability::Flags as Can;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::video::Capture as _;
use v4l::{Device, FourCC};

use super::device::{Sequence, device_error, moments_ago, must_agree};
use super::unpack::{self, Layout, Mosaic};
use super::{Camera, Captured, Grab, Losses, Settings, Trigger, Values, mjpg};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::frame::Gray;

/// How a frame's bytes become gray.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Pixels in lines.
    Plain(Layout),
    /// A JPEG file.
    Jpeg,
}

/// The formats that become gray, best first: the kernel's four characters, and how.
pub const FORMATS: [(&[u8; 4], Coding); 13] = [
    (b"GREY", Coding::Plain(Layout::Mono8)),
    (b"Y10 ", Coding::Plain(Layout::Mono10)),
    (b"Y12 ", Coding::Plain(Layout::Mono12)),
    (b"Y16 ", Coding::Plain(Layout::Mono16)),
    (b"Y10P", Coding::Plain(Layout::Mipi10)),
    (b"Y12P", Coding::Plain(Layout::Mipi12)),
    (b"RGGB", Coding::Plain(Layout::Bayer(Mosaic::Rggb))),
    (b"BA81", Coding::Plain(Layout::Bayer(Mosaic::Bggr))),
    (b"GRBG", Coding::Plain(Layout::Bayer(Mosaic::Grbg))),
    (b"GBRG", Coding::Plain(Layout::Bayer(Mosaic::Gbrg))),
    (b"NV12", Coding::Plain(Layout::Nv12)),
    (b"YUYV", Coding::Plain(Layout::Yuyv)),
    (b"MJPG", Coding::Jpeg),
];

/// `ENODEV`: the device was unplugged.
const ENODEV: i32 = 19;

/// Four characters as people write them.
#[must_use]
pub fn name_of(fourcc: &[u8; 4]) -> String {
    String::from_utf8_lossy(fourcc).trim_end().to_owned()
}

/// The format to use: the asked one, or the best that is offered.
///
/// # Errors
/// [`crate::Kind::Config`] naming what is offered and what can be read.
pub fn choose(label: &str, asked: Option<&str>, offered: &[[u8; 4]]) -> Result<(&'static [u8; 4], Coding)> {
    let found = match asked {
        Some(asked) => FORMATS.iter().find(|f| name_of(f.0) == asked && offered.contains(f.0)),
        None => FORMATS.iter().find(|f| offered.contains(f.0)),
    };
    found.map(|f| (f.0, f.1)).ok_or_else(|| {
        let list = |all: &mut dyn Iterator<Item = &[u8; 4]>| all.map(name_of).collect::<Vec<_>>().join(", ");
        Error::config(format!(
            "{label}: offers {}, wanted {}",
            list(&mut offered.iter()),
            asked.map_or_else(|| format!("one of {}", list(&mut FORMATS.iter().map(|f| f.0))), str::to_owned)
        ))
    })
}

/// Opens a device node and asks for its formats.
///
/// # Errors
/// A retryable error naming the device when it is not there; [`crate::Kind::Config`] when it cannot capture by streaming.
pub fn probe(label: &str, path: &Path) -> Result<(Device, Vec<[u8; 4]>)> {
    let device = Device::with_path(path).map_err(|e| device_error(label, &format!("opening {}", path.display()), &e))?;
    let caps = device.query_caps().map_err(|e| device_error(label, "asking what it can do", &e))?;
    if !caps.capabilities.contains(Can::VIDEO_CAPTURE | Can::STREAMING) {
        return Err(Error::config(format!(
            "{label}: {} ({}) has no single-planar capture with streaming",
            caps.card, caps.driver
        )));
    }
    let formats = device.enum_formats().map_err(|e| device_error(label, "asking for its formats", &e))?;
    Ok((device, formats.iter().map(|f| f.fourcc.repr).collect()))
}

/// What a device offers, as JSON: formats with sizes and rates, controls with ranges.
///
/// # Errors
/// As [`probe`].
pub fn offers(path: &Path) -> Result<Value> {
    let label = format!("camera {}", path.display());
    let (device, formats) = probe(&label, path)?;
    let caps = device.query_caps().map_err(|e| device_error(&label, "asking what it can do", &e))?;
    let formats: Vec<Value> = formats
        .iter()
        .map(|f| {
            let fourcc = FourCC::new(f);
            let sizes: Vec<Value> = device
                .enum_framesizes(fourcc)
                .unwrap_or_default()
                .into_iter()
                .map(|s| match s.size {
                    FrameSizeEnum::Discrete(d) => {
                        json!({"size_px": [d.width, d.height], "rates_hz": rates(&device, fourcc, d.width, d.height)})
                    }
                    FrameSizeEnum::Stepwise(s) => json!({
                        "min_px": [s.min_width, s.min_height], "max_px": [s.max_width, s.max_height],
                        "step_px": [s.step_width, s.step_height], "rates_hz": rates(&device, fourcc, s.max_width, s.max_height),
                    }),
                })
                .collect();
            json!({"format": name_of(f), "readable": FORMATS.iter().any(|known| known.0 == f), "sizes": sizes})
        })
        .collect();
    let controls = controls::list(&device).map_err(|e| device_error(&label, "asking for its controls", &e))?;
    let controls: serde_json::Map<String, Value> = controls.iter().map(|c| (c.name.clone(), c.json(&device))).collect();
    Ok(json!({"card": caps.card, "driver": caps.driver, "bus": caps.bus, "formats": formats, "controls": controls}))
}

/// Frame rates at one size, Hz, highest first; a range as its two ends.
fn rates(device: &Device, fourcc: FourCC, width: u32, height: u32) -> Vec<f64> {
    let rate = |f: &v4l::Fraction| (f64::from(f.denominator) / f64::from(f.numerator.max(1)) * 100.0).round() / 100.0;
    let mut out: Vec<f64> = device
        .enum_frameintervals(fourcc, width, height)
        .unwrap_or_default()
        .iter()
        .flat_map(|i| match &i.interval {
            FrameIntervalEnum::Discrete(f) => vec![rate(f)],
            FrameIntervalEnum::Stepwise(s) => vec![rate(&s.min), rate(&s.max)],
        })
        .collect();
    out.sort_by(|a, b| b.total_cmp(a));
    out
}

/// What to do with a dequeued buffer.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    /// Why not.
    Incomplete(&'static str),
}

/// A buffer is inspected only when the driver calls it good and it holds a whole picture.
fn fate(meta: &Metadata, wanted: usize) -> Fate {
    if meta.flags.contains(Flags::ERROR) {
        Fate::Incomplete("marked_bad")
    } else if (meta.bytesused as usize) < wanted {
        Fate::Incomplete("short")
    } else {
        Fate::Whole
    }
}

/// Age of a frame at `now_ns` by the driver's stamp; 0 where the driver's clock is another one or the stamp lies ahead.
fn age(meta: &Metadata, now_ns: u64) -> Duration {
    let monotonic = meta.flags & Flags::TIMESTAMP_MASK == Flags::TIMESTAMP_MONOTONIC;
    let seconds = u64::try_from(meta.timestamp.sec).unwrap_or(0);
    let micros = u64::try_from(meta.timestamp.usec).unwrap_or(0);
    let stamp = seconds * 1_000_000_000 + micros * 1000;
    if monotonic && stamp > 0 { Duration::from_nanos(now_ns.saturating_sub(stamp)) } else { Duration::ZERO }
}

/// An open, streaming device.
pub struct V4l2 {
    settings: Settings,
    device: Device,
    stream: Option<Stream<'static>>,
    clock: Arc<dyn Clock>,
    source: Arc<str>,
    card: String,
    fourcc: String,
    coding: Coding,
    size: (usize, usize),
    stride: usize,
    sequence: Sequence,
    losses: Losses,
    values: Values,
    spare: Gray,
}

impl V4l2 {
    /// Opens, sets up, reads back and starts the device.
    ///
    /// # Errors
    /// As [`probe`] and [`choose`]; a retryable error naming both values where the device does not take one.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let label = settings.label();
        if settings.trigger == Trigger::Software {
            return Err(Error::config(format!("{label}: V4L2 has no software trigger; wanted camera.trigger free or hardware")));
        }
        let (device, offered) = probe(&label, Path::new(&settings.device))?;
        let failed = |what: &str, e: &std::io::Error| device_error(&label, what, e);
        let card = device.query_caps().map_err(|e| failed("asking what it can do", &e))?.card;
        let (fourcc, coding) = choose(&label, settings.format.as_deref(), &offered)?;
        let mut format = device.format().map_err(|e| failed("asking for its format", &e))?;
        format.fourcc = FourCC::new(fourcc);
        format.width = settings.width.unwrap_or(format.width);
        format.height = settings.height.unwrap_or(format.height);
        // What the driver reported belongs to the format before.
        format.stride = 0;
        format.size = 0;
        let actual = device.set_format(&format).map_err(|e| failed("setting its format", &e))?;
        if (actual.fourcc.repr, actual.width, actual.height) != (*fourcc, format.width, format.height) {
            return Err(Error::unavailable(format!(
                "{label}: format was set to {} {}x{}, but the device reads back {} {}x{}",
                name_of(fourcc),
                format.width,
                format.height,
                name_of(&actual.fourcc.repr),
                actual.width,
                actual.height
            )));
        }
        if let Some(rate) = settings.frame_rate {
            let mut params = device.params().map_err(|e| failed("asking for its frame rate", &e))?;
            params.interval = v4l::Fraction::new(1000, (rate * 1000.0).round() as u32);
            let actual = device.set_params(&params).map_err(|e| failed("setting frame_rate", &e))?.interval;
            must_agree(&label, "frame_rate", rate, f64::from(actual.denominator) / f64::from(actual.numerator))?;
        }
        let mut values = controls::apply(&label, &device, &settings)?;
        values.insert("format".into(), name_of(fourcc));
        values.insert("size".into(), format!("{}x{}", actual.width, actual.height));
        let stream = start(&device, settings.buffers).map_err(|e| failed("starting its stream", &e))?;
        Ok(Self {
            source: settings.name.as_str().into(),
            device,
            stream: Some(stream),
            clock,
            card,
            fourcc: name_of(fourcc),
            coding,
            size: (actual.width as usize, actual.height as usize),
            stride: actual.stride as usize,
            sequence: Sequence::default(),
            losses: Losses::default(),
            values,
            spare: Gray::default(),
            settings,
        })
    }

    /// Takes the ready buffer.
    fn take(&mut self) -> Result<Option<Captured>> {
        let label = self.settings.label();
        let Some(stream) = &mut self.stream else { return Err(Error::internal("a video stream that was closed is read")) };
        let (data, meta) = stream.next().map_err(|e| device_error(&label, "reading a frame", &e))?;
        let meta = *meta;
        let (number, skipped) = self.sequence.next(u64::from(meta.sequence), 0, u64::from(u32::MAX));
        self.losses.skip(skipped);
        let (width, height) = self.size;
        let stride_of = |layout: Layout| if self.stride == 0 { layout.line_bytes(width) } else { self.stride };
        let wanted = match self.coding {
            Coding::Plain(layout) => stride_of(layout) * (height - 1) + layout.line_bytes(width),
            Coding::Jpeg => 1,
        };
        if let Fate::Incomplete(word) = fate(&meta, wanted) {
            self.losses.count(word);
            log::debug!("{label}: frame {number} is incomplete: {} of {wanted} bytes, flags {:?}", meta.bytesused, meta.flags);
            return Ok(None);
        }
        let mut image = std::mem::take(&mut self.spare);
        let used = (meta.bytesused as usize).min(data.len());
        match self.coding {
            Coding::Plain(layout) => unpack::to_gray(layout, &data[..used], width, height, stride_of(layout), &mut image)
                .map_err(|e| Error::unavailable(format!("{label}: {e}")))?,
            // A webcam loses parts of pictures now and then; a picture of another size never passes either.
            Coding::Jpeg => match mjpg::gray_of_jpeg(&data[..used], width, height) {
                Ok(gray) => image = gray,
                Err(e) => {
                    self.losses.count("undecodable");
                    log::debug!("{label}: frame {number}: {e}");
                    self.spare = image;
                    return Ok(None);
                }
            },
        }
        let (captured_at, captured_mono_ns) = moments_ago(&self.clock, age(&meta, self.clock.mono_ns()));
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

/// Starts a stream such that [`Stream::next`] never waits.
///
/// `next` queues the buffer it gave out last and then dequeues; after a time-out it would queue one twice, which the kernel refuses.
/// So all buffers but the first are queued here, and `next` is called only when `poll` says that one is ready: its first call queues
/// the first buffer.
fn start(device: &Device, buffers: u32) -> std::io::Result<Stream<'static>> {
    let mut stream = Stream::with_buffers(device, Type::VideoCapture, buffers)?;
    stream.set_timeout(Duration::from_secs(1));
    // The driver may have given another number of buffers; it refuses the first that it lacks.
    let mut queued = 0;
    while queued + 1 < 64 && CaptureStream::queue(&mut stream, queued + 1).is_ok() {
        queued += 1;
    }
    if queued == 0 {
        return Err(std::io::Error::other("the driver gave fewer than two buffers"));
    }
    stream.start()?;
    Ok(stream)
}

impl Camera for V4l2 {
    fn describe(&self) -> String {
        let (w, h) = self.size;
        format!("{}: {} by v4l2, {w}x{h} {}", self.settings.label(), self.card, self.fourcc)
    }

    fn losses(&self) -> Losses {
        self.losses.clone()
    }

    fn may_be_silent(&self) -> bool {
        self.settings.trigger == Trigger::Hardware
    }

    fn values(&self) -> Values {
        self.values.clone()
    }

    fn recycle(&mut self, picture: Gray) {
        self.spare = picture;
    }

    fn grab(&mut self, timeout: Duration) -> Result<Grab> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            match self.device.handle().poll(libc::POLLIN, ms) {
                Ok(0) => return Ok(Grab::Idle),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(device_error(&self.settings.label(), "waiting for a frame", &e)),
            }
            match self.take()? {
                Some(frame) => return Ok(Grab::Frame(frame)),
                None if left.is_zero() => return Ok(Grab::Idle),
                None => {}
            }
        }
    }
}

impl Drop for V4l2 {
    fn drop(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        if let Err(e) = stream.stop()
            && e.raw_os_error() != Some(ENODEV)
        {
            // The crate's own drop panics on such a device; a leaked mapping is the lesser evil.
            log::warn!("{}: stopping its stream: {e}", self.settings.label());
            let _leaked = std::mem::ManuallyDrop::new(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::error::Kind;

    #[test]
    fn a_missing_device_is_retryable_and_named() {
        let settings = Settings { name: "top".into(), ..Settings::new("/dev/v4l/by-id/no-such-camera") };
        let error = V4l2::open(settings, Arc::new(SystemClock)).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(
            error.to_string(),
            "camera top (/dev/v4l/by-id/no-such-camera): opening /dev/v4l/by-id/no-such-camera: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_file_that_is_no_video_device_is_an_error_not_a_camera() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_string_lossy().into_owned();
        let error = V4l2::open(Settings::new(&path), Arc::new(SystemClock)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("asking what it can do"), "{error}");
    }

    #[test]
    fn the_best_offered_format_is_chosen_and_a_foreign_one_named() {
        let offered = [*b"YUYV", *b"RGGB", *b"Y16 "];
        assert_eq!(choose("c", None, &offered).unwrap(), (b"Y16 ", Coding::Plain(Layout::Mono16)));
        assert_eq!(choose("c", Some("RGGB"), &offered).unwrap().1, Coding::Plain(Layout::Bayer(Mosaic::Rggb)));
        assert_eq!(choose("c", None, &[*b"H264", *b"MJPG"]).unwrap(), (b"MJPG", Coding::Jpeg));
        let lacking = choose("c", Some("GREY"), &offered).unwrap_err();
        assert_eq!(lacking.kind(), Kind::Config);
        assert_eq!(lacking.to_string(), "c: offers YUYV, RGGB, Y16, wanted GREY");
        assert!(choose("c", None, &[*b"H264"]).unwrap_err().to_string().starts_with("c: offers H264, wanted one of GREY, Y10"));
    }

    #[test]
    fn bad_and_short_buffers_are_not_pictures() {
        let whole = Metadata { bytesused: 100, ..Metadata::default() };
        assert_eq!(fate(&whole, 100), Fate::Whole);
        assert_eq!(fate(&whole, 101), Fate::Incomplete("short"));
        assert_eq!(fate(&Metadata { flags: Flags::ERROR, ..whole }, 100), Fate::Incomplete("marked_bad"));
    }

    #[test]
    fn age_is_measured_by_the_driver_s_monotonic_stamp_alone() {
        let at = |flags| Metadata { flags, timestamp: v4l::Timestamp::new(5, 250_000), ..Metadata::default() };
        assert_eq!(age(&at(Flags::TIMESTAMP_MONOTONIC), 5_300_000_000), Duration::from_millis(50));
        assert_eq!(age(&at(Flags::TIMESTAMP_MONOTONIC), 5_000_000_000), Duration::ZERO);
        assert_eq!(age(&at(Flags::TIMESTAMP_COPY), 5_300_000_000), Duration::ZERO);
    }
}
