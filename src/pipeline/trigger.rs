//! Triggers from outside: from whoever asks (a broker's command, HTTP, a verb) to the capture stage, and the result back. In software
//! mode an order takes a picture; in hardware mode it names the part of the next one that the camera's own input takes.
//!
//! An [`Order`] names the part; its ids travel with the frame into the event. Whoever holds an order's [`Reply`] is told the recorded
//! result once, or drops it unanswered when the frame ends without one. An order is never delayed: one that comes while another part's
//! picture is awaited is answered with an OVERRUN result, because by the time it could be served another part would lie there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{ActiveProduct, Hold};
use crate::capture::Trigger;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::record::event::{EventError, InspectionEvent, Verdict};

/// Orders that the capture stage has not looked at yet; it looks at once.
const WAITING: usize = 16;
/// Longest part id in an event, characters.
pub const MAX_PART_ID: usize = 128;
/// Longest job id in an event, characters.
pub const MAX_JOB_ID: usize = 64;

/// What became of a trigger, as recorded.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Outcome {
    /// The result's id.
    pub event_id: String,
    /// Its number.
    pub seq: u64,
    /// OK, NG or ERROR.
    pub verdict: Verdict,
    /// Why not inspected.
    pub error: Option<EventError>,
}

impl Outcome {
    /// Of a recorded event.
    #[must_use]
    pub fn of(event: &InspectionEvent) -> Self {
        Self { event_id: event.event_id.clone(), seq: event.seq, verdict: event.verdict, error: event.error.clone() }
    }
}

/// Told the outcome once it is recorded; dropped when there is none.
pub struct Reply(Box<dyn FnOnce(Outcome) + Send>);

impl Reply {
    /// Calls `told` with the outcome.
    pub fn new(told: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self(Box::new(told))
    }

    /// Tells it.
    pub fn give(self, outcome: Outcome) {
        (self.0)(outcome);
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

/// One trigger.
#[derive(Debug)]
pub struct Order {
    /// Who asks, a word of the event schema: `software`, `mqtt` or `http`.
    pub from: &'static str,
    /// The part's serial number.
    pub part_id: Option<Arc<str>>,
    /// The order it belongs to.
    pub job_id: Option<Arc<str>>,
    /// The requester's key, for the log.
    pub request_id: Option<Arc<str>>,
    /// Who is told.
    pub reply: Option<Reply>,
    /// When it was given, monotonic; [`TriggerHandle::fire`] sets it. In hardware mode a picture exposed before is not this part's.
    pub given_mono_ns: u64,
}

impl Order {
    /// An order without ids.
    #[must_use]
    pub fn from(from: &'static str) -> Self {
        Self { from, part_id: None, job_id: None, request_id: None, reply: None, given_mono_ns: 0 }
    }

    /// Checks the ids against the event schema's limits.
    ///
    /// # Errors
    /// [`Kind::Usage`] naming the id.
    pub fn check(&self) -> Result<()> {
        let limits =
            [("part_id", &self.part_id, MAX_PART_ID), ("job_id", &self.job_id, MAX_JOB_ID), ("request_id", &self.request_id, 64)];
        for (name, id, max) in limits {
            let Some(id) = id else { continue };
            let length = id.chars().count();
            if length == 0 || length > max || id.chars().any(char::is_control) {
                let shown: String = id.chars().take(40).collect();
                return Err(Error::new(
                    Kind::Usage,
                    format!("{name} must be 1 to {max} characters without control characters, got {length}: {shown:?}"),
                ));
            }
        }
        Ok(())
    }
}

/// What starts an inspection at the moment: what the recipe in force asks for, or else the configuration; cloning shares it.
#[derive(Debug, Clone)]
pub struct Mode {
    configured: Trigger,
    product: ActiveProduct,
}

impl Mode {
    /// `configured` wherever the product asks for nothing.
    #[must_use]
    pub fn new(configured: Trigger, product: ActiveProduct) -> Self {
        Self { configured, product }
    }

    /// In force now.
    #[must_use]
    pub fn now(&self) -> Trigger {
        let product = self.product.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        product.as_ref().and_then(|p| p.trigger).unwrap_or(self.configured)
    }
}

/// Where triggers are given; cloning shares it.
#[derive(Clone)]
pub struct TriggerHandle {
    orders: Sender<Order>,
    mode: Mode,
    hold: Hold,
    clock: Arc<dyn Clock>,
    fired: Arc<AtomicU64>,
}

impl TriggerHandle {
    /// The two ends: for those who trigger, and for the capture stage.
    #[must_use]
    pub fn new(mode: Mode, hold: Hold, clock: Arc<dyn Clock>) -> (Self, Receiver<Order>) {
        let (orders, at_capture) = bounded(WAITING);
        (Self { orders, mode, hold, clock, fired: Arc::default() }, at_capture)
    }

    /// Orders that the capture stage has not looked at yet.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.orders.len()
    }

    /// Triggers, or in hardware mode names the next part.
    ///
    /// # Errors
    /// Nothing happened: [`Kind::Usage`] for ids that no event can carry, a camera that runs free, or an order in hardware mode that names
    /// nothing, [`Kind::TryAgain`] while paused, while results cannot be kept, or when too many orders wait, [`Kind::Unavailable`] when the
    /// line has ended.
    pub fn fire(&self, order: Order) -> Result<()> {
        order.check()?;
        let mode = self.mode.now();
        let why = match mode {
            Trigger::Software => None,
            Trigger::Hardware if order.part_id.is_some() || order.job_id.is_some() => None,
            Trigger::Hardware => Some("the camera's own input takes the pictures; name the next part by its part_id or job_id"),
            Trigger::Free => Some("not software: this station takes no triggers now"),
        };
        if let Some(why) = why {
            let text = format!("the trigger mode of camera.trigger or the recipe in force is {}, {why}", mode.word());
            return Err(Error::new(Kind::Usage, text));
        }
        if self.hold.any() {
            return Err(Error::new(Kind::TryAgain, format!("no part is inspected now: {}", self.hold.why())));
        }
        let id = order.request_id.clone();
        match self.orders.try_send(Order { given_mono_ns: self.clock.mono_ns(), ..order }) {
            Ok(()) => {
                self.fired.fetch_add(1, Ordering::Relaxed);
                log::debug!("trigger taken, request {}", id.as_deref().unwrap_or("-"));
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(Error::new(Kind::TryAgain, format!("{WAITING} triggers wait already"))),
            Err(TrySendError::Disconnected(_)) => Err(Error::unavailable("the line has ended")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn ids_keep_to_the_schema() {
        let with = |part: &str| Order { part_id: Some(part.into()), ..Order::from("http") };
        with("SN-0001").check().unwrap();
        with(&"x".repeat(128)).check().unwrap();
        for bad in ["", "a\nb", &"x".repeat(129)] {
            let e = with(bad).check().unwrap_err();
            assert_eq!(e.kind(), Kind::Usage);
            assert!(e.to_string().starts_with("part_id must be 1 to 128 characters"), "{e}");
        }
    }

    #[test]
    fn triggers_are_refused_where_nothing_would_come_of_them() {
        let hold = Hold::default();
        let mode = |configured| Mode::new(configured, ActiveProduct::default());
        let clock = || Arc::new(SystemClock);
        let (free, _at) = TriggerHandle::new(mode(Trigger::Free), hold.clone(), clock());
        assert_eq!(free.fire(Order::from("http")).unwrap_err().kind(), Kind::Usage);
        let (input, at_input) = TriggerHandle::new(mode(Trigger::Hardware), hold.clone(), clock());
        let unnamed = input.fire(Order::from("http")).unwrap_err();
        assert_eq!(
            (unnamed.kind(), unnamed.to_string().as_str()),
            (
                Kind::Usage,
                "the trigger mode of camera.trigger or the recipe in force is gpio, the camera's own input takes the pictures; name the \
                 next part by its part_id or job_id"
            )
        );
        let before = SystemClock.mono_ns();
        input.fire(Order { part_id: Some("SN1".into()), ..Order::from("http") }).unwrap();
        assert!((before..=SystemClock.mono_ns()).contains(&at_input.recv().unwrap().given_mono_ns));
        let (handle, at_capture) = TriggerHandle::new(mode(Trigger::Software), hold.clone(), clock());
        hold.set(Hold::PAUSED, true);
        let paused = handle.fire(Order::from("http")).unwrap_err();
        assert_eq!(paused.to_string(), "no part is inspected now: paused");
        hold.set(Hold::PAUSED, false);
        for _ in 0..WAITING {
            handle.fire(Order::from("http")).unwrap();
        }
        assert_eq!(handle.fire(Order::from("http")).unwrap_err().kind(), Kind::TryAgain);
        drop(at_capture);
        assert_eq!(handle.fire(Order::from("http")).unwrap_err().kind(), Kind::Unavailable);
    }
}
