//! Where frames come from: the [`Camera`] trait and its back ends.
//!
//! A camera is opened, grabbed from with a time-out, and dropped. A fault is an [`Error`](crate::Error): the capture stage drops the
//! camera and opens it again, for ever, unless the error's kind says that a person must act.

pub mod replay;
pub mod unpack;

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

    /// Whether silence is no fault: a triggered camera, or a replay slower than the time-out.
    fn may_be_silent(&self) -> bool {
        false
    }
}

/// Opens the camera that the configuration names.
///
/// # Errors
/// [`crate::Kind::Config`] for settings that can never work, retryable kinds for a device that is not there.
pub fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Box<dyn Camera>> {
    match config.text("camera.backend").as_str() {
        "replay" => {
            let settings = replay::Settings {
                name: config.text("camera.name"),
                path: config.path("camera.path"),
                rate_hz: config.f64("camera.rate_hz"),
                looping: config.bool("camera.loop"),
            };
            Ok(Box::new(replay::Replay::open(settings, clock)?))
        }
        other => Err(Error::config(format!("camera.backend must be replay, got {other:?}"))),
    }
}
