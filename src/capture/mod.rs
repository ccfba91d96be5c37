//! Where frames come from: the [`Camera`] trait and its back ends.
//!
//! A camera is opened, grabbed from with a time-out, and dropped. A fault is an [`crate::Error`]: the capture stage drops the
//! camera and opens it again, for ever, unless the error's kind says that a person must act.

mod device;
#[cfg(feature = "genicam")]
pub mod genicam;
pub mod guard;
pub mod mjpg;
pub mod replay;
pub mod unpack;
pub mod uvc;
pub mod v4l2;

pub use crate::config::Trigger;
pub use device::{Losses, Settings, Values, differences};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::frame::Gray;

/// One picture as a camera delivered it.
#[derive(Debug, Clone)]
pub struct Captured {
    /// 8-bit gray.
    pub image: Gray,
    /// Wall-clock time of exposure as well as the device tells.
    pub captured_at: Timestamp,
    /// The same on CLOCK_MONOTONIC, ns.
    pub captured_mono_ns: u64,
    /// The device's own frame number; a gap means lost frames.
    pub device_sequence: u64,
    /// The device's own clock at exposure, ns from a start it does not tell.
    pub device_time_ns: Option<u64>,
    /// The camera's name, or the file of a replay.
    pub source: Arc<str>,
    /// The part the trigger named.
    pub part_id: Option<Arc<str>>,
}

/// What a grab brought.
#[derive(Debug)]
pub enum Grab {
    /// A picture.
    Frame(Captured),
    /// A part was there, but its picture is unusable: it is answered with an ERROR result.
    Unusable {
        /// The camera's name or the file.
        source: Arc<str>,
        /// Why, naming the file or device.
        message: String,
    },
    /// Nothing within the time-out; not a fault in itself.
    Idle,
    /// The source is at its end (a replay that does not loop).
    End,
}

/// A source of frames.
pub trait Camera: Send {
    /// What this is, for logs: name, device, format.
    fn describe(&self) -> String;

    /// Waits at most `timeout` for the next frame.
    ///
    /// # Errors
    /// The device failed; it must be opened anew.
    fn grab(&mut self, timeout: Duration) -> Result<Grab>;

    /// Asks a camera in software trigger mode for one picture.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] when this camera is in another mode; a device that does not answer.
    fn trigger(&mut self) -> Result<()> {
        Err(Error::new(crate::error::Kind::Usage, format!("{}: takes no software trigger", self.describe())))
    }

    /// What was lost since the camera was opened.
    fn losses(&self) -> Losses {
        Losses::default()
    }

    /// Whether silence is no fault: a triggered camera, or a replay slower than the time-out.
    fn may_be_silent(&self) -> bool {
        false
    }

    /// The controls' values, read back when the camera was opened.
    fn values(&self) -> Values {
        Values::new()
    }

    /// Whether this is a sensor, whose noise makes every picture differ from the one before.
    fn is_live(&self) -> bool {
        true
    }

    /// Gives a picture back whose memory the next one may use.
    fn recycle(&mut self, _picture: Gray) {}
}

/// Opens the camera that the configuration names.
///
/// # Errors
/// [`crate::Kind::Config`] for settings that can never work, retryable kinds for a device that is not there.
pub fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Box<dyn Camera>> {
    open_with(config, Trigger::of(config), clock)
}

/// The same with another trigger mode than the configuration's, which a recipe may ask for.
///
/// # Errors
/// As [`open`].
pub fn open_with(config: &Config, trigger: Trigger, clock: Arc<dyn Clock>) -> Result<Box<dyn Camera>> {
    match config.text("camera.backend").as_str() {
        "replay" => {
            let settings = replay::Settings {
                name: config.text("camera.name"),
                path: config.path("camera.path"),
                rate_hz: config.f64("camera.rate_hz"),
                looping: config.bool("camera.loop"),
                triggered: trigger == Trigger::Software,
            };
            Ok(Box::new(replay::Replay::open(settings, clock)?))
        }
        backend => open_device(backend, &Settings { trigger, ..Settings::of(config) }, clock),
    }
}

/// Opens a device by back end and settings.
///
/// # Errors
/// As [`open`].
pub fn open_device(backend: &str, settings: &Settings, clock: Arc<dyn Clock>) -> Result<Box<dyn Camera>> {
    match backend {
        "auto" => {
            let (backend, why) = choose_backend(settings)?;
            log::info!("{}: camera.backend auto took {backend}: {why}", settings.label());
            open_device(backend, settings, clock)
        }
        "v4l2" => Ok(Box::new(v4l2::V4l2::open(settings.clone(), clock)?)),
        "uvc" => Ok(Box::new(uvc::Uvc::open(settings.clone(), clock)?)),
        #[cfg(feature = "genicam")]
        "genicam" => Ok(Box::new(genicam::GenIcam::open(settings.clone(), clock)?)),
        #[cfg(not(feature = "genicam"))]
        "genicam" => Err(Error::config(format!("{}: this program was built without the feature genicam", settings.label()))),
        other => Err(Error::config(format!("{}: there is no back end {other}", settings.label()))),
    }
}

/// The back end for a device, by what it offers, and why.
///
/// # Errors
/// As [`v4l2::probe`]; [`crate::Kind::Config`] when nothing it offers can be read.
fn choose_backend(settings: &Settings) -> Result<(&'static str, String)> {
    if !settings.device.starts_with('/') {
        return Ok(("genicam", "the device is named by address, serial number or name, not by a path".into()));
    }
    let label = settings.label();
    let (_, offered) = v4l2::probe(&label, Path::new(&settings.device))?;
    let (format, _) = v4l2::choose(&label, settings.format.as_deref(), &offered)?;
    Ok(("v4l2", format!("it offers {}", v4l2::name_of(format))))
}
