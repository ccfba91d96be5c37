//! Time, behind a trait so that tests never sleep.
//!
//! [`SystemClock`] is the only place that asks the operating system; `clippy.toml` refuses the raw calls elsewhere.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Wall-clock time, UTC, nanosecond resolution.
pub type Timestamp = jiff::Timestamp;

/// A source of wall-clock and monotonic time, and of waiting.
pub trait Clock: Send + Sync {
    /// Wall-clock time (may jump when the system's clock is set).
    fn now(&self) -> Timestamp;
    /// Nanoseconds since an arbitrary start, never going back (CLOCK_MONOTONIC on Linux, comparable with V4L2 timestamps).
    fn mono_ns(&self) -> u64;
    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn mono_ns(&self) -> u64 {
        monotonic_ns()
    }

    #[allow(clippy::disallowed_methods)]
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// CLOCK_MONOTONIC in nanoseconds: `Instant` is that clock on Linux, measured from a start taken once.
fn monotonic_ns() -> u64 {
    #[cfg(feature = "daemon")]
    {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `t` is a valid, writable timespec for the duration of the call.
        let rc = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
        if rc == 0 {
            return (t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64;
        }
    }
    use std::sync::OnceLock;
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}

/// A clock that stands still until told to move; `sleep` advances it.
#[derive(Debug)]
pub struct SimulatedClock {
    wall_ns: AtomicI64,
    mono_ns: AtomicU64,
}

impl SimulatedClock {
    /// Starts at `wall`, monotonic 0.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        Self { wall_ns: AtomicI64::new(wall.as_nanosecond() as i64), mono_ns: AtomicU64::new(0) }
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        self.wall_ns.fetch_add(by.as_nanos() as i64, Ordering::SeqCst);
        self.mono_ns.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as a time server would; nanoseconds since the epoch are added.
    pub fn jump_wall(&self, by_ns: i64) {
        self.wall_ns.fetch_add(by_ns, Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.wall_ns.load(Ordering::SeqCst))).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn mono_ns(&self) -> u64 {
        self.mono_ns.load(Ordering::SeqCst)
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_clock_moves_only_when_told() {
        let clock = SimulatedClock::new(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.mono_ns(), 0);
        clock.sleep(Duration::from_millis(5));
        assert_eq!(clock.mono_ns(), 5_000_000);
        clock.jump_wall(-86_400_000_000_000);
        assert_eq!(clock.mono_ns(), 5_000_000);
        assert!(clock.now() < Timestamp::UNIX_EPOCH);
    }
}
