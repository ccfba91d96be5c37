//! Conservation of frames: every frame that got a number ends exactly once, as a recorded result or as a counted drop.
//!
//! A frame's [`Token`] travels with it. Settling it counts the frame where it ended; a token that is dropped unsettled is counted as
//! `lost`, which a correct pipeline never shows. `captured = recorded + dropped + in flight` holds at every moment, and in flight is 0
//! after a clean stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::frame::FrameId;
use crate::telemetry::{Counter, Telemetry};

#[derive(Debug)]
struct Inner {
    telemetry: Telemetry,
    next_id: AtomicU64,
    captured: Counter,
    recorded: AtomicU64,
    dropped: AtomicU64,
    lost: AtomicU64,
}

/// Counts frames in and out; cloning shares it.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Inner>);

/// The sums of a [`Ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Frames that got a number.
    pub captured: u64,
    /// Frames whose result is on disk.
    pub recorded: u64,
    /// Frames dropped and counted with stage and reason.
    pub dropped: u64,
    /// Frames that vanished: a fault of this program.
    pub lost: u64,
}

impl Balance {
    /// Frames still on their way.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.captured.saturating_sub(self.recorded + self.dropped + self.lost)
    }
}

impl Ledger {
    /// An empty ledger that also keeps the public counters.
    #[must_use]
    pub fn new(telemetry: &Telemetry) -> Self {
        Self(Arc::new(Inner {
            telemetry: telemetry.clone(),
            next_id: AtomicU64::new(1),
            captured: telemetry.counter("ssds_frames_captured_total", "Frames that got a number.", &[]),
            recorded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }))
    }

    /// Gives the next frame its number.
    #[must_use]
    pub fn admit(&self) -> Token {
        self.0.captured.inc();
        Token { ledger: self.clone(), id: FrameId(self.0.next_id.fetch_add(1, Ordering::SeqCst)), settled: false }
    }

    /// The sums now.
    #[must_use]
    pub fn balance(&self) -> Balance {
        Balance {
            recorded: self.0.recorded.load(Ordering::SeqCst),
            dropped: self.0.dropped.load(Ordering::SeqCst),
            lost: self.0.lost.load(Ordering::SeqCst),
            captured: self.0.captured.get(),
        }
    }

    fn count_drop(&self, stage: &str, reason: &str) {
        let help = "Frames that ended without a result, by stage and reason.";
        self.0.telemetry.counter("ssds_frames_dropped_total", help, &[("stage", stage), ("reason", reason)]).inc();
    }
}

/// A frame's place in the ledger.
#[derive(Debug)]
pub struct Token {
    ledger: Ledger,
    id: FrameId,
    settled: bool,
}

impl Token {
    /// The frame's number.
    #[must_use]
    pub fn id(&self) -> FrameId {
        self.id
    }

    /// The frame's result is on disk.
    pub fn recorded(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.ledger.0.recorded.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The frame ends here without a result.
    pub fn dropped(&mut self, stage: &'static str, reason: &'static str) {
        if !std::mem::replace(&mut self.settled, true) {
            self.ledger.0.dropped.fetch_add(1, Ordering::SeqCst);
            self.ledger.count_drop(stage, reason);
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.settled {
            self.ledger.0.lost.fetch_add(1, Ordering::SeqCst);
            self.ledger.count_drop("unknown", "lost");
            log::error!("frame {} vanished without a result or a counted drop: this is a fault of the program", self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_ends_once() {
        let ledger = Ledger::new(&Telemetry::new());
        let mut a = ledger.admit();
        let mut b = ledger.admit();
        assert_eq!((a.id(), b.id()), (FrameId(1), FrameId(2)));
        assert_eq!(ledger.balance().in_flight(), 2);
        a.recorded();
        a.dropped("align", "overload");
        b.dropped("align", "overload");
        assert_eq!(ledger.balance(), Balance { captured: 2, recorded: 1, dropped: 1, lost: 0 });
        drop(ledger.admit());
        assert_eq!(ledger.balance(), Balance { captured: 3, recorded: 1, dropped: 1, lost: 1 });
        assert_eq!(ledger.balance().in_flight(), 0);
    }
}
