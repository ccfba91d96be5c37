//! The capture stage: opens the camera, takes frames, and decides what happens when the pipeline is full.
//!
//! `run` tries `run_once` for ever: a camera that fails is dropped, reported, and opened again with a growing pause. Frames are offered to
//! registration under the [`Overload`] policy; every frame that got a number is in the ledger from then on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::Hold;
use super::job::{Job, Pool, Product};
use super::ledger::Ledger;
use super::stage::{Pulse, duration_of, send_waiting};
use crate::capture::{Camera, Captured, Grab};
use crate::clock::Clock;
use crate::error::{Kind, Result};
use crate::shutdown::Shutdown;
use crate::status::Status;
use crate::telemetry::Telemetry;

/// What happens when frames come faster than they are inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// The oldest waiting frame is dropped and counted.
    Newest,
    /// The new frame is answered with ERROR `OVERRUN`.
    Answer,
    /// The source waits.
    Wait,
}

/// Opens the camera; called again after every fault.
pub type OpenCamera = Box<dyn FnMut() -> Result<Box<dyn Camera>> + Send>;

/// The capture stage's parts.
pub struct Source {
    /// Opens the camera.
    pub open: OpenCamera,
    /// A camera silent for so long is reported lost and reopened; `None` for sources that may be silent.
    pub timeout: Duration,
    /// Full-queue policy.
    pub overload: Overload,
    /// The trigger's word in events.
    pub trigger: &'static str,
    /// Frame numbers and accounts.
    pub ledger: Ledger,
    /// Recycled jobs.
    pub pool: Pool,
    /// To registration.
    pub output: Sender<Box<Job>>,
    /// The same queue's other end, to take out the oldest.
    pub oldest: Receiver<Box<Job>>,
    /// Straight to the record stage, for frames that are answered without inspection.
    pub answered: Sender<Box<Job>>,
    /// What frames are compared with.
    pub product: Arc<std::sync::RwLock<Option<Arc<Product>>>>,
    /// Reasons to take no frame.
    pub hold: Hold,
    /// Asked to stop.
    pub shutdown: Shutdown,
    /// Public state.
    pub status: Status,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub telemetry: Telemetry,
}

/// Why a round with one open camera ended.
enum Ended {
    Stop,
    EndOfStream,
}

impl Source {
    /// The thread's body: returns when asked to stop or at the end of the stream.
    pub fn run(mut self, pulse: &Pulse) {
        let mut pause = Duration::from_millis(250);
        loop {
            match self.run_once(pulse, &mut pause) {
                Ok(Ended::Stop) => break,
                Ok(Ended::EndOfStream) => {
                    // No stop: the frames under way are inspected to the last, however long that takes.
                    log::info!("camera: end of stream after {} frames", self.ledger.balance().captured);
                    return;
                }
                Err(e) if e.kind() == Kind::Config => {
                    log::error!("camera: {e:#}; it is not opened again");
                    self.status.fatal(e);
                    break;
                }
                Err(e) => {
                    self.status.set_camera(false, &format!("{e:#}"));
                    log::error!("camera: {e:#}; reopening in {:.1} s", pause.as_secs_f64());
                    if self.wait(pause, pulse) {
                        break;
                    }
                    pause = (pause * 2).min(Duration::from_secs(10));
                }
            }
        }
        self.shutdown.ask();
    }

    /// Opens the camera and takes frames until it fails, ends, or a stop is asked.
    fn run_once(&mut self, pulse: &Pulse, pause: &mut Duration) -> Result<Ended> {
        pulse.busy(self.clock.mono_ns());
        let mut camera = (self.open)()?;
        log::info!("camera: {}", camera.describe());
        let duration = duration_of(&self.telemetry, "capture");
        let mut last = self.clock.mono_ns();
        loop {
            pulse.idle();
            if self.shutdown.asked() {
                return Ok(Ended::Stop);
            }
            if self.hold.any() {
                self.clock.sleep(Duration::from_millis(20));
                continue;
            }
            let grab = camera.grab(self.timeout.min(Duration::from_millis(100)))?;
            let taken = Instant::now();
            match grab {
                Grab::Frame(captured) => {
                    last = self.clock.mono_ns();
                    *pause = Duration::from_millis(250);
                    self.status.set_camera(true, "");
                    let job = self.admit(captured, taken);
                    duration.observe(job.times.capture);
                    self.offer(job, pulse);
                }
                Grab::Unusable { source, message } => {
                    last = self.clock.mono_ns();
                    let mut job = self.blank(source, taken);
                    job.fail("FRAME_INVALID", message);
                    send_waiting(&self.answered, job, pulse);
                }
                Grab::Idle => {
                    let silent = Duration::from_nanos(self.clock.mono_ns().saturating_sub(last));
                    if silent > self.timeout && !camera.may_be_silent() {
                        return Err(crate::Error::unavailable(format!("no frame for {:.1} s", silent.as_secs_f64())));
                    }
                }
                Grab::End => return Ok(Ended::EndOfStream),
            }
        }
    }

    fn blank(&self, source: Arc<str>, taken: Instant) -> Box<Job> {
        let mut job = self.pool.take();
        let token = self.ledger.admit();
        job.id = token.id();
        job.token = Some(token);
        job.captured_at = self.clock.now();
        job.captured_mono_ns = self.clock.mono_ns();
        job.source = source;
        job.trigger = self.trigger;
        job.admitted = taken;
        job.product = self.product.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        job
    }

    fn admit(&self, captured: Captured, taken: Instant) -> Box<Job> {
        let mut job = self.blank(captured.source, taken);
        job.captured_at = captured.captured_at;
        job.captured_mono_ns = captured.captured_mono_ns;
        job.part_id = captured.part_id;
        job.image = captured.image;
        job.times.capture = std::time::Duration::from_nanos(self.clock.mono_ns().saturating_sub(job.captured_mono_ns));
        job
    }

    /// Hands the job on under the overload policy.
    fn offer(&self, job: Box<Job>, pulse: &Pulse) {
        let mut job = match self.output.try_send(job) {
            Ok(()) => return,
            Err(TrySendError::Disconnected(mut job)) => {
                if let Some(token) = &mut job.token {
                    token.dropped("capture", "stopping");
                }
                return;
            }
            Err(TrySendError::Full(job)) => job,
        };
        match self.overload {
            Overload::Wait => send_waiting(&self.output, job, pulse),
            Overload::Answer => {
                job.fail("OVERRUN", format!("{} frames are already waiting; the part came too early", self.output.len()));
                send_waiting(&self.answered, job, pulse);
            }
            Overload::Newest => loop {
                if let Ok(mut old) = self.oldest.try_recv() {
                    if let Some(token) = &mut old.token {
                        token.dropped("align", "overload");
                    }
                    self.pool.put(old);
                }
                match self.output.try_send(job) {
                    Ok(()) => break,
                    Err(TrySendError::Full(back)) => job = back,
                    Err(TrySendError::Disconnected(mut back)) => {
                        if let Some(token) = &mut back.token {
                            token.dropped("capture", "stopping");
                        }
                        break;
                    }
                }
            },
        }
    }

    /// Waits in small steps; true when a stop was asked meanwhile.
    fn wait(&self, how_long: Duration, pulse: &Pulse) -> bool {
        let until = Instant::now() + how_long;
        while Instant::now() < until {
            pulse.idle();
            if self.shutdown.asked() {
                return true;
            }
            self.clock.sleep(Duration::from_millis(50).min(how_long));
        }
        self.shutdown.asked()
    }
}
