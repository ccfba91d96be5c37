//! The generic stage: a named thread between two bounded queues.
//!
//! A stage owns its thread, queue, timing, counters and end; what it does to an item is a function. It ends when its input disconnects,
//! after it has worked off what was waiting, and then disconnects its output, so shutdown flows with the data. While it works, waits or
//! idles it keeps its [`Pulse`] current; only work that takes too long counts as a stall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::telemetry::{Histogram, Telemetry};

/// How often a waiting stage shows that it lives.
const BEAT: Duration = Duration::from_millis(200);

/// Shows whether a stage lives: 0 while it waits, else the monotonic time at which its present work began.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    busy_since_ns: Arc<AtomicU64>,
    beats: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Pulse {
    /// Work begins.
    pub fn busy(&self, now_ns: u64) {
        self.busy_since_ns.store(now_ns.max(1), Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Waiting for input or room.
    pub fn idle(&self) {
        self.busy_since_ns.store(0, Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// The stage has done its work and its thread returns; from now on silence is no fault.
    pub fn end(&self) {
        self.idle();
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether the stage returned by itself (not by a panic).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// How long the present work has been going on.
    #[must_use]
    pub fn busy_for(&self, now_ns: u64) -> Duration {
        match self.busy_since_ns.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_nanos(now_ns.saturating_sub(since)),
        }
    }

    /// Counts signs of life; a number that stands still means a dead thread.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

/// What every stage is given.
#[derive(Clone)]
pub struct Context {
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub telemetry: Telemetry,
}

/// A running stage.
pub struct Stage {
    /// The thread's name.
    pub name: &'static str,
    /// Its signs of life.
    pub pulse: Pulse,
    handle: JoinHandle<()>,
}

impl Stage {
    /// Starts a thread that is not fed by a queue (the source of the pipeline).
    ///
    /// # Errors
    /// [`crate::Kind::TryAgain`] when the system refuses a thread.
    pub fn source(name: &'static str, body: impl FnOnce(&Pulse) + Send + 'static) -> Result<Self> {
        let pulse = Pulse::default();
        let own = pulse.clone();
        let handle = spawn(name, move || {
            body(&own);
            own.end();
        })?;
        Ok(Self { name, pulse, handle })
    }

    /// Starts a stage that works on batches: at least one item, and as many more as are waiting, up to `max_batch`. The function takes the
    /// batch and adds its outputs in order to the second vector.
    ///
    /// # Errors
    /// [`crate::Kind::TryAgain`] when the system refuses a thread.
    pub fn batched<I: Send + 'static, O: Send + 'static>(
        name: &'static str,
        context: &Context,
        input: Receiver<I>,
        output: Option<Sender<O>>,
        max_batch: usize,
        mut work: impl FnMut(&mut Vec<I>, &mut Vec<O>, &Pulse) + Send + 'static,
    ) -> Result<Self> {
        let pulse = Pulse::default();
        let own = pulse.clone();
        let clock = Arc::clone(&context.clock);
        let duration = duration_of(&context.telemetry, name);
        let handle = spawn(name, move || {
            let (mut batch, mut done) = (Vec::with_capacity(max_batch), Vec::with_capacity(max_batch));
            loop {
                own.idle();
                match input.recv_timeout(BEAT) {
                    Ok(item) => batch.push(item),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => break own.end(),
                }
                batch.extend(input.try_iter().take(max_batch - 1));
                let items = batch.len() as u32;
                own.busy(clock.mono_ns());
                let start = Instant::now();
                work(&mut batch, &mut done, &own);
                let each = start.elapsed() / items.max(1);
                (0..items).for_each(|_| duration.observe(each));
                batch.clear();
                for item in done.drain(..) {
                    if let Some(output) = &output {
                        send_waiting(output, item, &own);
                    }
                }
            }
        })?;
        Ok(Self { name, pulse, handle })
    }

    /// Starts a stage that works on one item at a time.
    ///
    /// # Errors
    /// [`crate::Kind::TryAgain`] when the system refuses a thread.
    pub fn each<I: Send + 'static, O: Send + 'static>(
        name: &'static str,
        context: &Context,
        input: Receiver<I>,
        output: Sender<O>,
        mut work: impl FnMut(I) -> O + Send + 'static,
    ) -> Result<Self> {
        Self::batched(name, context, input, Some(output), 1, move |batch, done, _| done.extend(batch.drain(..).map(&mut work)))
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for the thread's end until `deadline`; false when it is still running then.
    #[must_use]
    pub fn join_until(self, deadline: Instant) -> bool {
        while !self.handle.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        if self.handle.join().is_err() {
            log::error!("stage {} ended by a panic", self.name);
        }
        true
    }
}

/// The duration histogram of a stage.
#[must_use]
pub fn duration_of(telemetry: &Telemetry, stage: &'static str) -> Histogram {
    telemetry.histogram("ssds_stage_duration_seconds", "Time a stage worked on a frame.", &[("stage", stage)])
}

/// Sends, waiting as long as it takes while showing signs of life. A disconnected receiver ends the stage's successor chain: the item is
/// dropped here and its ledger token counts it.
pub fn send_waiting<T>(output: &Sender<T>, mut item: T, pulse: &Pulse) {
    pulse.idle();
    loop {
        match output.send_timeout(item, BEAT) {
            Ok(()) | Err(SendTimeoutError::Disconnected(_)) => return,
            Err(SendTimeoutError::Timeout(back)) => {
                item = back;
                pulse.idle();
            }
        }
    }
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|e| Error::new(crate::Kind::TryAgain, format!("thread {name} cannot be started: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crossbeam_channel::bounded;

    fn context() -> Context {
        Context { clock: Arc::new(SystemClock), telemetry: Telemetry::new() }
    }

    #[test]
    fn items_keep_their_order_and_the_end_flows_through() {
        let context = context();
        let (tx, rx) = bounded(2);
        let (tx2, rx2) = bounded(2);
        let (tx3, rx3) = bounded(2);
        let a = Stage::each("double", &context, rx, tx2, |v: u32| v * 2).unwrap();
        let b = Stage::each("inc", &context, rx2, tx3, |v: u32| v + 1).unwrap();
        let feed = std::thread::Builder::new().spawn(move || (0..100).for_each(|v| tx.send(v).unwrap())).unwrap();
        let got: Vec<u32> = rx3.iter().collect();
        assert_eq!(got, (0..100).map(|v| v * 2 + 1).collect::<Vec<_>>());
        feed.join().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        assert!(a.join_until(deadline) && b.join_until(deadline));
        assert_eq!(duration_of(&context.telemetry, "double").summary().count, 100);
    }

    #[test]
    fn a_batch_takes_what_waits_up_to_its_limit() {
        let context = context();
        let (tx, rx) = bounded(10);
        (0..10).for_each(|v| tx.send(v).unwrap());
        drop(tx);
        let (out, sizes) = bounded(20);
        let stage =
            Stage::batched("batch", &context, rx, Some(out), 4, |batch: &mut Vec<i32>, done, _| done.push(batch.len())).unwrap();
        assert_eq!(sizes.iter().collect::<Vec<_>>(), [4, 4, 2]);
        assert!(stage.join_until(Instant::now() + Duration::from_secs(5)));
    }

    #[test]
    fn a_stall_shows_and_waiting_does_not() {
        let pulse = Pulse::default();
        pulse.busy(1_000);
        assert_eq!(pulse.busy_for(5_001_000), Duration::from_millis(5));
        pulse.idle();
        assert_eq!(pulse.busy_for(u64::MAX), Duration::ZERO);
        assert_eq!(pulse.beats(), 2);
    }
}
