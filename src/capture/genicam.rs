//! GigE Vision and USB3 Vision cameras through libaravis.
//!
//! A camera is found by address (GigE), serial number, user name or `vendor-model-serial`, set up, read back and started. Buffers that
//! did not arrive whole are counted by the library's status and given back unread. Frame numbers are the camera's own block numbers; a
//! gap means lost frames. The time of exposure is the host's clock at the arrival of a frame's first packet (cameras' own clocks run from a
//! start they do not tell); the camera's stamp goes along as `device_time_ns`. A camera that is silent is asked for a sign of life, so that
//! an unplugged one is noticed in a triggered line too. Sources: GenICam SFNC 2 feature names; GigE Vision 1.2; aravis 0.8 reference.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aravis::glib::prelude::*;
use aravis::prelude::*;
use aravis::{Aravis, Auto, Buffer, BufferStatus, Camera as Device, GvDevice, GvPacketSizeAdjustment, RangeCheckPolicy, Stream};

use super::device::{Sequence, Stamps, moments_ago, must_agree};
use super::unpack::{self, Layout, Mosaic};
use super::{Camera, Captured, Grab, Losses, Settings, Trigger, Values};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::frame::Gray;

/// The formats that become gray, best first: the Pixel Format Naming Convention's names, and the layout.
pub const FORMATS: [(&str, Layout); 12] = [
    ("Mono8", Layout::Mono8),
    ("Mono10", Layout::Mono10),
    ("Mono12", Layout::Mono12),
    ("Mono16", Layout::Mono16),
    ("Mono10p", Layout::Stream10),
    ("Mono12p", Layout::Stream12),
    ("Mono10Packed", Layout::Packed10),
    ("Mono12Packed", Layout::Packed12),
    ("BayerRG8", Layout::Bayer(Mosaic::Rggb)),
    ("BayerBG8", Layout::Bayer(Mosaic::Bggr)),
    ("BayerGR8", Layout::Bayer(Mosaic::Grbg)),
    ("BayerGB8", Layout::Bayer(Mosaic::Gbrg)),
];

/// Block numbers of GigE Vision 1.x run from 1 to this and then from 1 again.
const GV_LAST_BLOCK: u64 = 65_535;
/// A camera silent for so long is asked for a sign of life.
const SILENCE: Duration = Duration::from_millis(500);

/// A device as the library found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name to open it by: vendor-model-serial.
    pub id: String,
    /// Vendor.
    pub vendor: String,
    /// Model.
    pub model: String,
    /// `GigEVision` or `USB3Vision`.
    pub protocol: String,
    /// Network address or USB path.
    pub address: String,
}

/// Every GenICam device that answers; takes a second or two.
#[must_use]
pub fn find() -> Vec<Found> {
    static LIBRARY: OnceLock<Mutex<Option<Aravis>>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| Mutex::new(Aravis::initialize().ok()));
    let library = library.lock().unwrap_or_else(PoisonError::into_inner);
    let text = |s: &std::ffi::CString| s.to_string_lossy().into_owned();
    library
        .as_ref()
        .map(Aravis::get_device_list)
        .unwrap_or_default()
        .iter()
        .map(|d| Found {
            id: text(&d.id),
            vendor: text(&d.vendor),
            model: text(&d.model),
            protocol: text(&d.protocol),
            address: text(&d.address),
        })
        .collect()
}

/// What one camera offers, as JSON: formats, sensor size, ranges.
///
/// # Errors
/// [`Kind::Unavailable`] when it does not open or answer.
pub fn offers(device: &str) -> Result<serde_json::Value> {
    let label = format!("camera {device}");
    let camera = Device::new(Some(device)).map_err(|e| failed(&label, "opening it", &e))?;
    let range = |bounds: std::result::Result<(f64, f64), aravis::glib::Error>,
                 now: std::result::Result<f64, aravis::glib::Error>| {
        bounds.ok().map(|(min, max)| serde_json::json!({"min": min, "max": max, "value": now.ok()}))
    };
    let formats: Vec<String> =
        camera.dup_available_pixel_formats_as_strings().map(|v| v.iter().map(ToString::to_string).collect()).unwrap_or_default();
    let sources: Vec<String> =
        camera.dup_available_trigger_sources().map(|v| v.iter().map(ToString::to_string).collect()).unwrap_or_default();
    let whole = |bounds: std::result::Result<(i32, i32), aravis::glib::Error>| bounds.ok().map(|(min, max)| [min, max]);
    Ok(serde_json::json!({
        "formats": formats,
        "sensor_px": camera.sensor_size().ok(),
        "width_px": whole(camera.width_bounds()),
        "height_px": whole(camera.height_bounds()),
        "frame_rate": range(camera.frame_rate_bounds(), camera.frame_rate()),
        "trigger_sources": sources,
        "controls": {
            "exposure_us": range(camera.exposure_time_bounds(), camera.exposure_time()),
            "gain": range(camera.gain_bounds(), camera.gain()),
        },
    }))
}

fn failed(label: &str, what: &str, error: &aravis::glib::Error) -> Error {
    Error::unavailable(format!("{label}: {what}: {}", error.message()))
}

/// The word for what was wrong with a buffer; `None` for a whole picture.
fn fault_of(status: BufferStatus) -> Option<&'static str> {
    match status {
        BufferStatus::Success => None,
        BufferStatus::Timeout => Some("timeout"),
        BufferStatus::MissingPackets => Some("missing_packets"),
        BufferStatus::WrongPacketId => Some("wrong_packet_id"),
        BufferStatus::SizeMismatch => Some("size_mismatch"),
        BufferStatus::Aborted => Some("aborted"),
        BufferStatus::PayloadNotSupported => Some("payload_not_supported"),
        _ => Some("unknown"),
    }
}

/// The format to use: the asked one, or the best that is offered.
fn choose(label: &str, asked: Option<&str>, offered: &[String]) -> Result<(&'static str, Layout)> {
    let found = FORMATS.iter().find(|f| asked.is_none_or(|a| a == f.0) && offered.iter().any(|o| o == f.0));
    found.copied().ok_or_else(|| {
        let readable = FORMATS.map(|f| f.0).join(", ");
        let wanted = asked.map_or_else(|| format!("one of {readable}"), str::to_owned);
        let hint = if asked.is_some_and(|a| offered.iter().any(|o| o == a)) {
            format!(" (only {readable} can be read)")
        } else {
            String::new()
        };
        Error::config(format!("{label}: offers {}, wanted {wanted}{hint}", offered.join(", ")))
    })
}

/// An open, streaming camera.
pub struct GenIcam {
    settings: Settings,
    clock: Arc<dyn Clock>,
    source: Arc<str>,
    // Closed in this order.
    stream: Stream,
    camera: Device,
    format: &'static str,
    layout: Layout,
    size: (usize, usize),
    is_gv: bool,
    sequence: Sequence,
    stamps: Stamps,
    losses: Losses,
    values: Values,
    lost: Arc<AtomicBool>,
    last_life: Instant,
    spare: Gray,
}

impl GenIcam {
    /// Opens, sets up, reads back and starts the camera.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] naming the device when it is not there, is controlled by another program, or reads back another value than
    /// was asked (both named); [`Kind::Config`] for a format that cannot be read.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let label = settings.label();
        let camera = Device::new(Some(&settings.device)).map_err(|e| failed(&label, "opening it", &e))?;
        let device = camera.device().ok_or_else(|| Error::internal(format!("{label}: opened without a device")))?;
        if device.downcast_ref::<GvDevice>().is_some_and(|gv| !gv.is_controller()) {
            return Err(Error::unavailable(format!("{label}: another program controls it")));
        }
        let lost = Arc::new(AtomicBool::new(false));
        let own_lost = Arc::clone(&lost);
        device.connect_control_lost(move |_| own_lost.store(true, Ordering::SeqCst));
        let is_gv = camera.is_gv_device();
        // A value out of range is an error here, not whatever the camera makes of it.
        camera.set_range_check_policy(RangeCheckPolicy::Enable);

        let mut setup = Setup { label: &label, settings: &settings, camera: &camera, values: Values::new() };
        let (format, layout) = setup.format()?;
        let size = setup.region()?;
        setup.auto_modes()?;
        setup.exposure_and_gain()?;
        // The rate first: setting it clears triggers.
        setup.frame_rate()?;
        setup.trigger()?;
        setup.controls()?;
        if is_gv {
            setup.packets()?;
        }
        let values = setup.values;

        let payload = camera.payload().map_err(|e| failed(&label, "asking for its payload size", &e))?;
        let stream = camera.create_stream().map_err(|e| failed(&label, "making a stream", &e))?;
        for _ in 0..settings.buffers {
            stream.push_buffer(Buffer::new_allocate(payload as usize));
        }
        camera.start_acquisition().map_err(|e| failed(&label, "starting it", &e))?;
        Ok(Self {
            source: settings.name.as_str().into(),
            stamps: Stamps::new(clock.as_ref()),
            clock,
            stream,
            camera,
            format,
            layout,
            size,
            is_gv,
            sequence: Sequence::default(),
            losses: Losses::default(),
            values,
            lost,
            last_life: Instant::now(),
            spare: Gray::default(),
            settings,
        })
    }

    /// Reads a filled buffer; `None` when it is no whole picture.
    fn read(&mut self, buffer: &Buffer) -> Result<Option<Captured>> {
        let label = self.settings.label();
        if let Some(word) = fault_of(buffer.status()) {
            // Its number comes with the leading packet. Where that one is missing, the buffer bears the number of what it held before, or 0.
            self.sequence.unnumbered();
            self.losses.count(word);
            log::debug!("{label}: a frame is incomplete: {word}");
            return Ok(None);
        }
        let last = if self.is_gv { GV_LAST_BLOCK } else { u64::MAX };
        let (number, skipped) = self.sequence.next(buffer.frame_id(), u64::from(self.is_gv), last);
        self.losses.skip(skipped);
        let size = (usize::try_from(buffer.image_width()).unwrap_or(0), usize::try_from(buffer.image_height()).unwrap_or(0));
        if size != self.size {
            return Err(Error::unavailable(format!(
                "{label}: was set to {}x{}, but delivers {}x{}",
                self.size.0, self.size.1, size.0, size.1
            )));
        }
        let (padding, _) = buffer.image_padding();
        let stride = self.layout.line_bytes(size.0) + usize::try_from(padding).unwrap_or(0);
        let (pointer, length) = buffer.data();
        if pointer.is_null() {
            self.losses.count("unknown");
            return Ok(None);
        }
        // SAFETY: the library gave `length` initialised bytes at `pointer`, owned by `buffer`. The buffer was popped from the stream, so the
        // library does not write to it until it is pushed back, which happens after this borrow has ended.
        let data = unsafe { std::slice::from_raw_parts(pointer.cast_const(), length) };
        let mut image = std::mem::take(&mut self.spare);
        unpack::to_gray(self.layout, data, size.0, size.1, stride, &mut image)
            .map_err(|e| e.with_kind(Kind::Unavailable).context(&label))?;
        let age = self.stamps.age(i128::from(buffer.system_timestamp()), self.clock.as_ref());
        let (captured_at, captured_mono_ns) = moments_ago(&self.clock, age);
        Ok(Some(Captured {
            image,
            captured_at,
            captured_mono_ns,
            device_sequence: number,
            device_time_ns: Some(buffer.timestamp()),
            source: Arc::clone(&self.source),
            part_id: None,
        }))
    }

    /// Asks a silent camera for a sign of life.
    fn check_life(&mut self) -> Result<()> {
        let label = self.settings.label();
        if self.lost.load(Ordering::SeqCst) {
            return Err(Error::unavailable(format!("{label}: control of the camera was lost")));
        }
        if self.last_life.elapsed() < SILENCE {
            return Ok(());
        }
        // Any register will do; the payload's is always there.
        let answer = self.camera.payload().map_err(|e| failed(&label, "asking for a sign of life", &e));
        match answer {
            Ok(_) => self.last_life = Instant::now(),
            Err(e) => {
                self.lost.store(true, Ordering::SeqCst);
                return Err(e);
            }
        }
        Ok(())
    }
}

impl Camera for GenIcam {
    fn describe(&self) -> String {
        let model = self.camera.model_name().map_or_else(|_| "?".to_owned(), |m| m.to_string());
        let vendor = self.camera.vendor_name().map_or_else(|_| "?".to_owned(), |v| v.to_string());
        let (w, h) = self.size;
        format!("{}: {vendor} {model} by genicam, {w}x{h} {}", self.settings.label(), self.format)
    }

    fn grab(&mut self, timeout: Duration) -> Result<Grab> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
            let Some(buffer) = self.stream.timeout_pop_buffer(micros) else {
                self.stamps.look(self.clock.as_ref());
                self.check_life()?;
                return Ok(Grab::Idle);
            };
            self.last_life = Instant::now();
            let read = self.read(&buffer);
            self.stream.push_buffer(buffer);
            match read? {
                Some(frame) => return Ok(Grab::Frame(frame)),
                None if left.is_zero() => return Ok(Grab::Idle),
                None => {}
            }
        }
    }

    fn trigger(&mut self) -> Result<()> {
        if self.settings.trigger != Trigger::Software {
            return Err(Error::new(Kind::Usage, format!("{}: is not in software trigger mode", self.settings.label())));
        }
        self.camera.software_trigger().map_err(|e| failed(&self.settings.label(), "triggering", &e))
    }

    fn losses(&self) -> Losses {
        self.losses.clone()
    }

    fn may_be_silent(&self) -> bool {
        self.settings.trigger != Trigger::Free
    }

    fn values(&self) -> Values {
        self.values.clone()
    }

    fn recycle(&mut self, picture: Gray) {
        self.spare = picture;
    }
}

impl Drop for GenIcam {
    fn drop(&mut self) {
        // A camera that is gone would be waited for in vain.
        if !self.lost.load(Ordering::SeqCst)
            && let Err(e) = self.camera.stop_acquisition()
        {
            log::debug!("{}: stopping it: {}", self.settings.label(), e.message());
        }
    }
}

/// Setting a camera up and reading back what it took.
struct Setup<'a> {
    label: &'a str,
    settings: &'a Settings,
    camera: &'a Device,
    values: Values,
}

impl Setup<'_> {
    fn note(&mut self, name: &str, value: impl ToString) {
        self.values.insert(name.to_owned(), value.to_string());
    }

    fn failed<'b>(&'b self, what: &'b str) -> impl Fn(aravis::glib::Error) -> Error + 'b {
        move |e| failed(self.label, what, &e)
    }

    fn has(&self, feature: &str) -> bool {
        self.camera.is_feature_available(feature).unwrap_or(false)
    }

    /// Sets an enumeration or string and reads it back.
    fn text(&mut self, feature: &str, value: &str) -> Result<()> {
        self.camera.set_string(feature, value).map_err(self.failed(&format!("setting {feature} to {value}")))?;
        let actual = self.camera.string(feature).map_err(self.failed(&format!("reading {feature} back")))?;
        if actual != value {
            return Err(Error::unavailable(format!(
                "{}: {feature} was set to {value}, but the device reads back {actual}",
                self.label
            )));
        }
        Ok(())
    }

    fn format(&mut self) -> Result<(&'static str, Layout)> {
        let offered =
            self.camera.dup_available_pixel_formats_as_strings().map_err(self.failed("asking for its pixel formats"))?;
        let offered: Vec<String> = offered.iter().map(ToString::to_string).collect();
        let (format, layout) = choose(self.label, self.settings.format.as_deref(), &offered)?;
        self.text("PixelFormat", format)?;
        self.note("format", format);
        Ok((format, layout))
    }

    fn region(&mut self) -> Result<(usize, usize)> {
        let s = self.settings;
        let (x0, y0, w0, h0) = self.camera.region().map_err(self.failed("asking for its region"))?;
        let whole = |v: Option<u32>, now: i32| v.map_or(now, |v| i32::try_from(v).unwrap_or(i32::MAX));
        let asked = (whole(s.offset_x, x0), whole(s.offset_y, y0), whole(s.width, w0), whole(s.height, h0));
        if asked != (x0, y0, w0, h0) {
            self.camera.set_region(asked.0, asked.1, asked.2, asked.3).map_err(self.failed("setting its region"))?;
        }
        let actual = self.camera.region().map_err(self.failed("reading its region back"))?;
        if actual != asked {
            let show = |r: (i32, i32, i32, i32)| format!("{}x{} at {},{}", r.2, r.3, r.0, r.1);
            return Err(Error::unavailable(format!(
                "{}: region was set to {}, but the device reads back {}",
                self.label,
                show(asked),
                show(actual)
            )));
        }
        self.note("region", format!("{},{} {}x{}", actual.0, actual.1, actual.2, actual.3));
        Ok((usize::try_from(actual.2).unwrap_or(0), usize::try_from(actual.3).unwrap_or(0)))
    }

    fn auto_modes(&mut self) -> Result<()> {
        let asked = |value: Option<f64>| value.is_some() || self.settings.auto_off;
        if asked(self.settings.exposure_us) && self.camera.is_exposure_auto_available().unwrap_or(false) {
            self.camera.set_exposure_time_auto(Auto::Off).map_err(self.failed("switching automatic exposure off"))?;
        }
        if asked(self.settings.gain) && self.camera.is_gain_auto_available().unwrap_or(false) {
            self.camera.set_gain_auto(Auto::Off).map_err(self.failed("switching automatic gain off"))?;
        }
        if self.settings.auto_off && self.has("BalanceWhiteAuto") {
            self.text("BalanceWhiteAuto", "Off")?;
        }
        Ok(())
    }

    fn exposure_and_gain(&mut self) -> Result<()> {
        if let Some(us) = self.settings.exposure_us {
            self.camera.set_exposure_time(us).map_err(self.failed("setting exposure_us"))?;
            must_agree(
                self.label,
                "exposure_us",
                us,
                self.camera.exposure_time().map_err(self.failed("reading exposure_us back"))?,
            )?;
        }
        if let Some(gain) = self.settings.gain {
            self.camera.set_gain(gain).map_err(self.failed("setting gain"))?;
            must_agree(self.label, "gain", gain, self.camera.gain().map_err(self.failed("reading gain back"))?)?;
        }
        if let Ok(us) = self.camera.exposure_time() {
            self.note("exposure_us", us);
        }
        if let Ok(gain) = self.camera.gain() {
            self.note("gain", gain);
        }
        Ok(())
    }

    fn frame_rate(&mut self) -> Result<()> {
        let Some(rate) = self.settings.frame_rate else { return Ok(()) };
        self.camera.set_frame_rate(rate).map_err(self.failed("setting frame_rate"))?;
        must_agree(self.label, "frame_rate", rate, self.camera.frame_rate().map_err(self.failed("reading frame_rate back"))?)
    }

    fn trigger(&mut self) -> Result<()> {
        let source = match self.settings.trigger {
            Trigger::Free => {
                if self.has("TriggerMode") {
                    self.camera.clear_triggers().map_err(self.failed("switching triggers off"))?;
                }
                return Ok(());
            }
            Trigger::Software => "Software",
            Trigger::Hardware => self.settings.trigger_source.as_str(),
        };
        self.camera.set_trigger(source).map_err(self.failed(&format!("setting trigger {source}")))?;
        if self.settings.trigger == Trigger::Hardware && self.has("TriggerActivation") {
            let activation = self.settings.trigger_activation.clone();
            self.text("TriggerActivation", &activation)?;
        }
        for (feature, wanted) in [("TriggerMode", "On"), ("TriggerSource", source)] {
            let actual = self.camera.string(feature).map_err(self.failed(&format!("reading {feature} back")))?;
            if actual != wanted {
                return Err(Error::unavailable(format!(
                    "{}: {feature} was set to {wanted}, but the device reads back {actual}",
                    self.label
                )));
            }
        }
        Ok(())
    }

    fn controls(&mut self) -> Result<()> {
        for (name, value) in &self.settings.controls {
            let device = self.camera.device().ok_or_else(|| Error::internal("a camera without a device"))?;
            let node = device
                .feature(name)
                .and_then(|n| n.downcast::<aravis::GcFeatureNode>().ok())
                .ok_or_else(|| Error::config(format!("{}: has no control {name}", self.label)))?;
            node.set_value_from_string(value).map_err(self.failed(&format!("setting {name} to {value}")))?;
            let actual = node.value_as_string().map_err(self.failed(&format!("reading {name} back")))?;
            match (value.parse::<f64>(), actual.parse::<f64>()) {
                (Ok(asked), Ok(actual)) => must_agree(self.label, name, asked, actual)?,
                _ if actual == value.as_str() => {}
                _ => {
                    return Err(Error::unavailable(format!(
                        "{}: {name} was set to {value}, but the device reads back {actual}",
                        self.label
                    )));
                }
            }
            self.values.insert(name.clone(), actual.to_string());
        }
        Ok(())
    }

    fn packets(&mut self) -> Result<()> {
        if let Some(bytes) = self.settings.packet_size {
            self.camera.gv_set_packet_size_adjustment(GvPacketSizeAdjustment::Never);
            self.camera
                .gv_set_packet_size(i32::try_from(bytes).unwrap_or(i32::MAX))
                .map_err(self.failed("setting packet_size"))?;
            let actual = self.camera.gv_get_packet_size().map_err(self.failed("reading packet_size back"))?;
            must_agree(self.label, "packet_size", f64::from(bytes), f64::from(actual))?;
        }
        if let Some(ns) = self.settings.packet_delay_ns {
            self.camera.gv_set_packet_delay(i64::from(ns)).map_err(self.failed("setting packet_delay_ns"))?;
            let actual = self.camera.gv_get_packet_delay().map_err(self.failed("reading packet_delay_ns back"))?;
            must_agree(self.label, "packet_delay_ns", f64::from(ns), actual as f64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
