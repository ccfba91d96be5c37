//! What the back ends for real devices have in common: their settings, the count of losses, sequence numbers that never wrap, and the
//! check that a device took a value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Trigger};
use crate::error::{Error, Kind, Result};

/// Values of a device's controls by name, as read back from it.
pub type Values = BTreeMap<String, String>;

/// A device and what is asked of it; `None` leaves the device as it is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name in logs and events.
    pub name: String,
    /// Path, address, serial number or name.
    pub device: String,
    /// Pixel format by the device's own name.
    pub format: Option<String>,
    /// Width, px.
    pub width: Option<u32>,
    /// Height, px.
    pub height: Option<u32>,
    /// Left edge on the sensor, px.
    pub offset_x: Option<u32>,
    /// Top edge on the sensor, px.
    pub offset_y: Option<u32>,
    /// Frames a second.
    pub frame_rate: Option<f64>,
    /// Exposure, microseconds.
    pub exposure_us: Option<f64>,
    /// Gain, the device's unit.
    pub gain: Option<f64>,
    /// Buffers in turn.
    pub buffers: u32,
    /// What starts an exposure.
    pub trigger: Trigger,
    /// The input of a hardware trigger.
    pub trigger_source: String,
    /// The edge or level that triggers, by the camera's name for it.
    pub trigger_activation: String,
    /// Switch automatic exposure, gain and white balance off where the device has them.
    pub auto_off: bool,
    /// Further controls by the device's own names, in this order.
    pub controls: Vec<(String, String)>,
    /// GigE Vision packet size, bytes.
    pub packet_size: Option<u32>,
    /// GigE Vision pause between packets, ns.
    pub packet_delay_ns: Option<u32>,
}

impl Settings {
    /// A device as it is, under its own name.
    #[must_use]
    pub fn new(device: &str) -> Self {
        Self {
            name: device.to_owned(),
            device: device.to_owned(),
            format: None,
            width: None,
            height: None,
            offset_x: None,
            offset_y: None,
            frame_rate: None,
            exposure_us: None,
            gain: None,
            buffers: 4,
            trigger: Trigger::Free,
            trigger_source: "Line1".to_owned(),
            trigger_activation: "RisingEdge".to_owned(),
            auto_off: true,
            controls: Vec::new(),
            packet_size: None,
            packet_delay_ns: None,
        }
    }

    /// From the `camera` section.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let whole = |key: &str| config.has(key).then(|| u32::try_from(config.usize(key)).unwrap_or(u32::MAX));
        Self {
            name: config.text("camera.name"),
            device: config.text("camera.device"),
            format: config.text_opt("camera.format"),
            width: whole("camera.width"),
            height: whole("camera.height"),
            offset_x: whole("camera.offset_x"),
            offset_y: whole("camera.offset_y"),
            frame_rate: config.f64_opt("camera.frame_rate"),
            exposure_us: config.f64_opt("camera.exposure_us"),
            gain: config.f64_opt("camera.gain"),
            buffers: whole("camera.buffers").unwrap_or(4),
            trigger: Trigger::of(config),
            trigger_source: config.text("camera.trigger_source"),
            trigger_activation: config.text("camera.trigger_activation"),
            auto_off: config.bool("camera.auto_off"),
            controls: config.texts("camera.controls").iter().filter_map(|t| split_control(t)).collect(),
            packet_size: whole("camera.packet_size"),
            packet_delay_ns: whole("camera.packet_delay_ns"),
        }
    }

    /// The beginning of messages: `camera NAME (DEVICE)`.
    #[must_use]
    pub fn label(&self) -> String {
        if self.name == self.device {
            format!("camera {}", self.device)
        } else {
            format!("camera {} ({})", self.name, self.device)
        }
    }
}

/// Name and value of a control written as `name=value`.
fn split_control(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim().to_owned(), value.trim().to_owned()))
}

/// Frames that never reached inspection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Arrived in part or marked bad by the driver; never delivered.
    pub incomplete: u64,
    /// The same by the driver's word for what was wrong.
    pub by_status: BTreeMap<&'static str, u64>,
    /// Numbers that the device skipped.
    pub missing: u64,
}

impl Losses {
    /// Counts skipped numbers.
    pub(super) fn skip(&mut self, skipped: u64) {
        self.missing += skipped;
    }

    /// Counts one frame that is not delivered.
    pub(super) fn count(&mut self, status: &'static str) {
        self.incomplete += 1;
        *self.by_status.entry(status).or_default() += 1;
    }
}

/// Differences between two sets of control values, as `name ASKED, now ACTUAL`; names that only one of them has say nothing. Numbers
/// agree within a hundredth.
#[must_use]
pub fn differences(taught: &Values, now: &Values) -> Vec<String> {
    let same = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => (x - y).abs() <= 0.01 * x.abs(),
        _ => a == b,
    };
    taught
        .iter()
        .filter_map(|(name, was)| now.get(name).filter(|is| !same(was, is)).map(|is| format!("{name} {was}, now {is}")))
        .collect()
}

/// A device's frame counter, unwrapped.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The last raw number.
    last: Option<u64>,
    /// The same without wrap, from the first frame's own.
    total: u64,
    /// Frames since then whose numbers cannot be trusted.
    unnumbered: u64,
}

impl Sequence {
    /// Takes the next raw number, whose counter runs from `first` to `max` and then again from `first`; returns the unwrapped number and
    /// how many frames were skipped, those of [`Self::unnumbered`] apart. A counter that stands still or goes back without a wrap, as of a
    /// device that began anew, skipped nothing.
    pub(super) fn next(&mut self, raw: u64, first: u64, max: u64) -> (u64, u64) {
        let unnumbered = std::mem::take(&mut self.unnumbered);
        let step = match self.last.replace(raw) {
            None => {
                self.total = raw;
                return (raw, 0);
            }
            Some(last) if raw > last => raw - last,
            // Near the end before, near the beginning now: a wrap.
            Some(last) if last <= max && max - last < 1024 && raw < first + 1024 => max - last + 1 + (raw - first.min(raw)),
            Some(_) => 1 + unnumbered,
        };
        self.total += step;
        (self.total, (step - 1).saturating_sub(unnumbered))
    }

    /// A frame came whose number cannot be trusted.
    #[cfg(any(test, feature = "genicam"))]
    pub(super) fn unnumbered(&mut self) {
        self.unnumbered += 1;
    }
}

/// An error naming both values unless `actual` is within a hundredth of `asked` (a device's own step).
pub(super) fn must_agree(label: &str, what: &str, asked: f64, actual: f64) -> Result<()> {
    if (asked - actual).abs() <= 0.01 * asked.abs() {
        return Ok(());
    }
    Err(Error::unavailable(format!("{label}: {what} was set to {asked}, but the device reads back {actual}")))
}

/// Opening or reading a device failed: it may come back, or another program let go of it, unless access is denied.
pub(super) fn device_error(label: &str, what: &str, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Kind::Permission,
        std::io::ErrorKind::ResourceBusy => Kind::TryAgain,
        _ => Kind::Unavailable,
    };
    Error::new(kind, format!("{label}: {what}: {error}"))
}

/// What the wall clock's stamps mean on the monotonic clock, also when the wall clock was set between the stamp and now.
#[cfg(any(test, feature = "genicam"))]
#[derive(Debug)]
pub(super) struct Stamps {
    /// Wall clock less monotonic clock when last looked at, nanoseconds.
    offset: i128,
    /// The last stamp's moment, or the opening's, monotonic nanoseconds: none is older.
    last: u64,
}

#[cfg(any(test, feature = "genicam"))]
impl Stamps {
    /// Two readings of two clocks may differ so much, nanoseconds.
    const SLACK: i128 = 1_000_000;

    pub(super) fn new(clock: &dyn Clock) -> Self {
        Self { offset: offset_ns(clock), last: clock.mono_ns() }
    }

    /// Looks at the clocks; to be called at least as often as a wait for a frame ends.
    pub(super) fn look(&mut self, clock: &dyn Clock) {
        self.offset = offset_ns(clock);
    }

    /// How long ago a stamp of the wall clock, nanoseconds since the epoch, was made. The stamp is read by the wall clock as it is now or, when
    /// that puts it after now or before the stamp before it, as it was at the last look. A jump shorter than this frame's
    /// wait (back) or than the time since the stamp before (forward) passes unseen, and the age is wrong by it.
    pub(super) fn age(&mut self, stamp_ns: i128, clock: &dyn Clock) -> Duration {
        let (now, offset) = (i128::from(clock.mono_ns()), offset_ns(clock));
        let fits = |at: &i128| (i128::from(self.last) - Self::SLACK..=now + Self::SLACK).contains(at);
        let at = [stamp_ns - offset, stamp_ns - self.offset].into_iter().find(fits).unwrap_or(stamp_ns - offset);
        let at = u64::try_from(at.clamp(0, now)).unwrap_or(0);
        (self.offset, self.last) = (offset, self.last.max(at));
        Duration::from_nanos(clock.mono_ns().saturating_sub(at))
    }
}

#[cfg(any(test, feature = "genicam"))]
fn offset_ns(clock: &dyn Clock) -> i128 {
    clock.now().as_nanosecond() - i128::from(clock.mono_ns())
}

/// Both clocks at a moment `age` ago.
pub(super) fn moments_ago(clock: &Arc<dyn Clock>, age: Duration) -> (Timestamp, u64) {
    let (wall, mono) = (clock.now(), clock.mono_ns());
    let ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    let wall = Timestamp::from_nanosecond(wall.as_nanosecond() - i128::from(ns)).unwrap_or(wall);
    (wall, mono.saturating_sub(ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;

    #[test]
    fn sequence_numbers_unwrap_and_tell_gaps() {
        let mut s = Sequence::default();
        assert_eq!(s.next(65_533, 1, 65_535), (65_533, 0));
        assert_eq!(s.next(65_535, 1, 65_535), (65_535, 1));
        assert_eq!(s.next(1, 1, 65_535), (65_536, 0));
        assert_eq!(s.next(4, 1, 65_535), (65_539, 2));
        assert_eq!(s.next(900, 1, 65_535), (66_435, 895));
        // The device began anew.
        assert_eq!(s.next(1, 1, 65_535), (66_436, 0));
        let mut v = Sequence::default();
        assert_eq!(v.next(u64::from(u32::MAX), 0, u64::from(u32::MAX)), (u64::from(u32::MAX), 0));
        assert_eq!(v.next(1, 0, u64::from(u32::MAX)), (u64::from(u32::MAX) + 2, 1));
        // A counter that stands still.
        let mut still = Sequence::default();
        assert_eq!([0, 0, 0].map(|n| still.next(n, 0, u64::from(u32::MAX))), [(0, 0), (1, 0), (2, 0)]);
    }

    #[test]
    fn frames_without_a_number_are_not_skipped_ones() {
        let mut s = Sequence::default();
        assert_eq!(s.next(65_530, 1, 65_535), (65_530, 0));
        s.unnumbered();
        s.unnumbered();
        assert_eq!(s.next(65_533, 1, 65_535), (65_533, 0));
        assert_eq!(s.next(65_534, 1, 65_535), (65_534, 0));
        // One of four, over the wrap.
        s.unnumbered();
        assert_eq!(s.next(4, 1, 65_535), (65_539, 3));
        // The device began anew meanwhile.
        s.unnumbered();
        assert_eq!(s.next(2, 1, 65_535), (65_541, 0));
        // More of them than numbers between: rests of one picture.
        s.unnumbered();
        assert_eq!(s.next(3, 1, 65_535), (65_542, 0));
    }

    #[test]
    fn a_stamp_keeps_its_age_when_the_wall_clock_is_set() {
        const MS: i128 = 1_000_000;
        let clock = SimulatedClock::new(Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000));
        clock.advance(Duration::from_secs(5));
        let mut stamps = Stamps::new(&clock);
        let day: i64 = 86_400_000_000_000;
        for jump in [0, day, -day, day, 90_000_000, -90_000_000] {
            // Set between the stamp and its reading.
            let before = clock.now().as_nanosecond();
            clock.advance(Duration::from_millis(20));
            clock.jump_wall(jump);
            clock.advance(Duration::from_millis(30));
            assert_eq!(stamps.age(before, &clock), Duration::from_millis(50), "set by {jump} ns behind the stamp");
            // Set before the stamp, with a frame between and without.
            for seen in [true, false] {
                clock.advance(Duration::from_millis(100));
                clock.jump_wall(jump);
                if seen {
                    stamps.look(&clock);
                }
                let after = clock.now().as_nanosecond();
                clock.advance(Duration::from_millis(7));
                assert_eq!(stamps.age(after, &clock), Duration::from_millis(7), "set by {jump} ns, then stamped");
            }
        }
        // A little ahead: two clocks are never read at once.
        let ahead = clock.now().as_nanosecond() + MS / 2;
        assert_eq!(stamps.age(ahead, &clock), Duration::ZERO);
        // Old for no such reason: old.
        let old = clock.now().as_nanosecond() - 60_000 * MS;
        assert_eq!(stamps.age(old, &clock), Duration::from_nanos(clock.mono_ns()), "older than the machine's start");
    }

    #[test]
    fn differing_values_are_named_and_steps_are_not() {
        let values = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Values>();
        let taught = values(&[("exposure_us", "1000"), ("format", "Mono8"), ("gain", "0"), ("only_then", "1")]);
        let now = values(&[("exposure_us", "1009.5"), ("format", "Mono12"), ("gain", "0.0"), ("only_now", "2")]);
        assert_eq!(differences(&taught, &now), ["format Mono8, now Mono12"]);
        let later = values(&[("exposure_us", "2000"), ("gain", "0.5")]);
        assert_eq!(differences(&taught, &later), ["exposure_us 1000, now 2000", "gain 0, now 0.5"]);
    }

    #[test]
    fn a_value_that_was_not_taken_names_both() {
        must_agree("camera c", "exposure_us", 1000.0, 1009.0).unwrap();
        let e = must_agree("camera c", "exposure_us", 1000.0, 1011.0).unwrap_err();
        assert_eq!(e.to_string(), "camera c: exposure_us was set to 1000, but the device reads back 1011");
        assert!(e.kind().is_retryable());
        assert!(must_agree("camera c", "gain", 1.0, f64::NAN).is_err());
    }
}
