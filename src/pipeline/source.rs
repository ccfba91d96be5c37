//! The capture stage: opens the camera, takes frames, answers triggers, and decides what happens when the pipeline is full.
//!
//! `run` tries `run_once` for ever: a camera that fails is dropped, reported, and opened again with a growing pause. The camera works on a
//! thread of its own ([`crate::capture::guard`]); one that hangs in its driver is abandoned and started anew, at most [`RESTARTS`] times a
//! minute, while this stage goes on and answers. Frames are offered to registration under the [`Overload`] policy; every frame and every
//! trigger that got a number is in the ledger from then on.
//!
//! Software triggers: one frame a trigger. While one part's picture is awaited a further trigger is answered OVERRUN, without a camera
//! CAMERA_LOST, without a frame in time CAMERA_TIMEOUT. After a time-out the camera is opened anew, so that a late frame can never be taken
//! for the next part's; a frame that nobody asked for is thrown away and counted.
//!
//! Hardware triggers: every frame is a part. An order names the next one: the first frame exposed after it was given carries its ids. A
//! second order meanwhile is answered OVERRUN, and one whose part does not come in time CAMERA_TIMEOUT; the camera stays open, for the part
//! may not have come at all.
//!
//! A recipe may bring another trigger mode. The part whose picture is awaited is finished; then the camera is closed and opened in the new
//! mode, and a frame of the old free run that comes meanwhile is nobody's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::Hold;
use super::frozen::Frozen;
use super::job::{Job, Pool, Product};
use super::ledger::Ledger;
use super::selftest::Probe;
use super::stage::{Pulse, duration_of, send_waiting};
use super::trigger::{Mode, Order};
use crate::capture::guard::Guarded;
use crate::capture::{Camera, Captured, Grab, Losses, Trigger};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::shutdown::Shutdown;
use crate::status::Status;
use crate::telemetry::Telemetry;

/// Longest wait for a frame between two looks at everything else.
const LOOK: Duration = Duration::from_millis(100);
/// The same while a trigger's picture is awaited.
const TRIGGERED_LOOK: Duration = Duration::from_millis(20);
/// First and longest pause before a camera is opened again: one that comes back is inspecting within five seconds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(1500));
/// Camera threads that hung may be started anew so often within [`RESTART_WINDOW`].
pub const RESTARTS: usize = 5;
/// See [`RESTARTS`].
const RESTART_WINDOW: Duration = Duration::from_secs(60);

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

/// Opens the camera in a trigger mode, on the camera's thread; called again after every fault and for every other mode.
pub type OpenCamera = Arc<dyn Fn(Trigger) -> Result<Box<dyn Camera>> + Send + Sync>;

/// The capture stage's parts.
pub struct Source {
    /// Opens the camera.
    pub open: OpenCamera,
    /// A camera silent for so long is reported lost and reopened; `None` for sources that may be silent.
    pub timeout: Duration,
    /// Full-queue policy; none = by the trigger mode.
    pub overload: Option<Overload>,
    /// What starts an inspection.
    pub mode: Mode,
    /// The trigger's word in events; none = the mode's.
    pub trigger_word: Option<&'static str>,
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
    /// Self-tests to be put between two frames.
    pub probes: Receiver<Box<Probe>>,
    /// Reasons to take no frame.
    pub hold: Hold,
    /// Software triggers.
    pub orders: Receiver<Order>,
    /// A software trigger's picture is awaited at most so long.
    pub trigger_timeout: Duration,
    /// Longest time to open a camera.
    pub open_limit: Duration,
    /// Watches for a picture that stands still.
    pub frozen: Frozen,
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
    /// The camera has to run in another trigger mode.
    Switched,
}

/// A trigger whose picture is awaited, or the name of the part that a hardware trigger takes next.
struct Pending {
    order: Order,
    since: Instant,
}

impl Source {
    /// The thread's body: returns when asked to stop or at the end of the stream.
    pub fn run(mut self, pulse: &Pulse) {
        let mut pause = PAUSES.0;
        let mut restarts = VecDeque::new();
        let mut was_open = false;
        loop {
            let mut left = false;
            match self.run_once(pulse, &mut pause, &mut was_open, &mut left) {
                Ok(Ended::Stop) => break,
                Ok(Ended::EndOfStream) => {
                    // No stop: the frames under way are inspected to the last, however long that takes.
                    log::info!("camera: end of stream after {} frames", self.ledger.balance().captured);
                    return;
                }
                Ok(Ended::Switched) if !left => {}
                Ok(Ended::Switched) => {
                    self.status.set_camera(false, "its driver holds on to it; it is opened in another trigger mode");
                    if self.wait(self.restart_pause(&mut restarts), pulse) {
                        break;
                    }
                }
                // Settings that never worked are wrong; once they have, another device may have been plugged in.
                Err(e) if e.kind() == Kind::Config && !was_open => {
                    log::error!("camera: {e:#}; it is not opened again");
                    self.status.fatal(e);
                    break;
                }
                Err(_) if self.shutdown.asked() => break,
                Err(e) => {
                    self.status.set_camera(false, &format!("{e:#}"));
                    if left {
                        pause = self.restart_pause(&mut restarts).max(pause);
                    }
                    log::error!("camera: {e:#}; reopening in {:.1} s", pause.as_secs_f64());
                    if self.wait(pause, pulse) {
                        break;
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
        self.shutdown.ask();
    }

    /// Notes that a camera thread was abandoned; how long to wait so that there are at most [`RESTARTS`] in [`RESTART_WINDOW`].
    fn restart_pause(&self, restarts: &mut VecDeque<Instant>) -> Duration {
        let help = "Camera threads that hung in their driver and were started anew.";
        self.telemetry.counter("ssds_camera_restarts_total", help, &[]).inc();
        let now = Instant::now();
        restarts.push_back(now);
        if restarts.len() <= RESTARTS {
            return Duration::ZERO;
        }
        restarts.pop_front().map_or(Duration::ZERO, |oldest| RESTART_WINDOW.saturating_sub(now - oldest))
    }

    /// Opens the camera and takes frames until it fails, ends, or a stop is asked.
    fn run_once(&mut self, pulse: &Pulse, pause: &mut Duration, was_open: &mut bool, left: &mut bool) -> Result<Ended> {
        let (open, mode) = (Arc::clone(&self.open), self.mode.now());
        let opened = Guarded::open("camera", Box::new(move || open(mode)), self.open_limit, &mut || self.wait_step(pulse), left);
        let mut camera = opened?;
        *was_open = true;
        log::info!("camera: {}, trigger mode {}", camera.describe(), mode.word());
        self.frozen.reset();
        self.status.update(|f| (f.camera_values, f.triggered) = (camera.values(), mode != Trigger::Free));
        if camera.may_be_silent() && mode == Trigger::Software {
            // Nothing more shows before the first part comes.
            self.status.set_camera(true, "");
        }
        let mut counted = Losses::default();
        let ended = self.take_frames(&mut camera, mode, pulse, pause, &mut counted);
        self.count_losses(&camera.losses(), &mut counted);
        if let Err(e) = &ended {
            // Said before the driver is waited for.
            self.status.set_camera(false, &format!("{e:#}"));
        }
        *left = !camera.close(&mut || self.wait_step(pulse));
        ended
    }

    /// Adds what was lost since the last look to the metrics.
    fn count_losses(&self, losses: &Losses, counted: &mut Losses) {
        if losses == counted {
            return;
        }
        for (status, n) in &losses.by_status {
            let help = "Frames that did not arrive whole or were not asked for, by status; never inspected.";
            let more = n.saturating_sub(counted.by_status.get(status).copied().unwrap_or(0));
            self.telemetry.counter("ssds_camera_incomplete_total", help, &[("status", status)]).add(more);
        }
        let help = "Frames that the device's numbers skipped.";
        self.telemetry.counter("ssds_camera_missing_total", help, &[]).add(losses.missing.saturating_sub(counted.missing));
        losses.clone_into(counted);
    }

    fn take_frames(
        &mut self,
        camera: &mut Guarded,
        mode: Trigger,
        pulse: &Pulse,
        pause: &mut Duration,
        counted: &mut Losses,
    ) -> Result<Ended> {
        let duration = duration_of(&self.telemetry, "capture");
        let mut last = self.clock.mono_ns();
        let mut pending: Option<Pending> = None;
        loop {
            pulse.idle();
            if self.shutdown.asked() {
                if let Some(p) = pending.take() {
                    self.refuse(p.order, "INTERNAL", "the station stopped before the frame came".into(), true, pulse);
                }
                return Ok(Ended::Stop);
            }
            self.pass_probe(pulse);
            let wanted = self.mode.now();
            if wanted != mode && pending.is_none() {
                log::info!(
                    "camera: the recipe in force asks for trigger mode {}, not {}; opening it anew",
                    wanted.word(),
                    mode.word()
                );
                return Ok(Ended::Switched);
            }
            if self.hold.any() && pending.is_none() {
                // Given just before the hold began; by its end another part lies there.
                while let Ok(order) = self.orders.try_recv() {
                    self.refuse(order, "OVERRUN", format!("no part is inspected now: {}", self.hold.why()), false, pulse);
                }
                self.clock.sleep(Duration::from_millis(20));
                last = self.clock.mono_ns();
                continue;
            }
            self.take_orders(camera, mode, &mut pending, pulse)?;
            let look = match (mode, &pending) {
                (Trigger::Software, Some(_)) => TRIGGERED_LOOK,
                // The wait was for an order.
                (Trigger::Software, None) => Duration::ZERO,
                _ => self.timeout.min(LOOK),
            };
            let grab = match camera.grab(look) {
                Ok(grab) => grab,
                Err(e) => {
                    if let Some(p) = pending.take() {
                        self.refuse(p.order, "CAMERA_LOST", format!("{e:#}"), false, pulse);
                    }
                    return Err(e);
                }
            };
            let taken = Instant::now();
            self.count_losses(&camera.losses(), counted);
            match grab {
                Grab::Frame(captured) => {
                    last = self.clock.mono_ns();
                    *pause = PAUSES.0;
                    self.status.set_camera(true, "");
                    if mode == Trigger::Hardware {
                        // Named while the camera was waited for, and maybe before this frame.
                        self.take_orders(camera, mode, &mut pending, pulse)?;
                    }
                    let exposed = captured.captured_mono_ns;
                    let is_its = |p: &mut Pending| mode != Trigger::Hardware || p.order.given_mono_ns <= exposed;
                    let order = pending.take_if(is_its).map(|p| p.order);
                    // A hardware trigger's frame is a part whatever the recipe asks for by now.
                    let is_part = match mode {
                        Trigger::Software => order.is_some(),
                        Trigger::Free => self.mode.now() == Trigger::Free,
                        Trigger::Hardware => true,
                    };
                    if !is_part {
                        let help = "Frames that did not arrive whole or were not asked for, by status; never inspected.";
                        self.telemetry.counter("ssds_camera_incomplete_total", help, &[("status", "untriggered")]).inc();
                        camera.recycle(captured.image);
                        continue;
                    }
                    let frozen = if camera.is_live() { self.frozen.judge(&captured.image) } else { None };
                    self.status.update(|f| f.camera_frozen = frozen);
                    let mut job = self.admit(captured, mode, order, taken, camera);
                    duration.observe(job.times.capture);
                    if let Some(n) = frozen {
                        job.fail(
                            "FRAME_STALE",
                            format!("{n} frames in a row without one differing pixel: the sensor's picture is frozen"),
                        );
                        send_waiting(&self.answered, job, pulse);
                    } else {
                        self.offer(job, mode, pulse);
                    }
                }
                Grab::Unusable { source, message } => {
                    last = self.clock.mono_ns();
                    let mut job = self.blank(source, mode, pending.take().map(|p| p.order), taken);
                    job.fail("FRAME_INVALID", message);
                    send_waiting(&self.answered, job, pulse);
                }
                Grab::Idle => {
                    let late = pending.as_ref().is_some_and(|p| p.since.elapsed() > self.trigger_timeout);
                    if let Some(p) = pending.take_if(|_| late) {
                        let limit = self.trigger_timeout.as_millis();
                        if mode == Trigger::Hardware {
                            let message = format!("no frame by the camera's input within {limit} ms of the part's name");
                            self.refuse(p.order, "CAMERA_TIMEOUT", message, false, pulse);
                            continue;
                        }
                        let message = format!("no frame within {limit} ms of the trigger");
                        self.refuse(p.order, "CAMERA_TIMEOUT", message.clone(), false, pulse);
                        return Err(Error::unavailable(message));
                    }
                    let silent = Duration::from_nanos(self.clock.mono_ns().saturating_sub(last));
                    if silent > self.timeout && !camera.may_be_silent() {
                        return Err(Error::unavailable(format!("no frame for {:.1} s", silent.as_secs_f64())));
                    }
                }
                Grab::End => {
                    if let Some(p) = pending.take() {
                        self.refuse(p.order, "CAMERA_LOST", "the replay has no further picture".into(), false, pulse);
                    }
                    return Ok(Ended::EndOfStream);
                }
            }
        }
    }

    /// Puts a waiting self-test in the line's first queue.
    fn pass_probe(&self, pulse: &Pulse) {
        if let Ok(probe) = self.probes.try_recv() {
            let mut job = self.pool.take();
            job.probe = Some(probe);
            send_waiting(&self.output, job, pulse);
        }
    }

    /// Looks at the triggers given: the first becomes the pending one, any more are answered at once. In software mode it waits for one when
    /// none is pending.
    fn take_orders(&self, camera: &mut Guarded, mode: Trigger, pending: &mut Option<Pending>, pulse: &Pulse) -> Result<()> {
        if mode == Trigger::Free {
            // Given just before or after a switch of the recipe.
            while let Ok(order) = self.orders.try_recv() {
                self.refuse(
                    order,
                    "OVERRUN",
                    format!("the camera runs in trigger mode {}, not software", mode.word()),
                    false,
                    pulse,
                );
            }
            return Ok(());
        }
        let first = if mode == Trigger::Hardware || pending.is_some() { Duration::ZERO } else { LOOK };
        let mut next = self.orders.recv_timeout(first).ok();
        while let Some(order) = next {
            if pending.is_some() {
                self.refuse(
                    order,
                    "OVERRUN",
                    "the picture of the part before is still awaited; the part came too early".into(),
                    false,
                    pulse,
                );
            } else {
                log::debug!("trigger from {}, request {}", order.from, order.request_id.as_deref().unwrap_or("-"));
                let since = Instant::now();
                if mode == Trigger::Software
                    && let Err(e) = camera.trigger()
                {
                    self.refuse(order, "CAMERA_LOST", format!("{e:#}"), false, pulse);
                    return Err(e);
                }
                *pending = Some(Pending { order, since });
            }
            next = self.orders.try_recv().ok();
        }
        Ok(())
    }

    /// Answers a trigger without a picture.
    fn refuse(&self, order: Order, code: &'static str, message: String, aborted: bool, pulse: &Pulse) {
        let mut job = self.blank("".into(), Trigger::Software, Some(order), Instant::now());
        job.fail(code, message);
        if let Some(fault) = &mut job.fault {
            fault.aborted = aborted;
        }
        send_waiting(&self.answered, job, pulse);
    }

    /// One step of waiting for a camera: triggers are answered meanwhile; false when a stop was asked.
    fn wait_step(&self, pulse: &Pulse) -> bool {
        pulse.idle();
        while let Ok(order) = self.orders.try_recv() {
            let problem = self.status.facts().camera_problem;
            let why = if problem.is_empty() { "it is being opened".to_owned() } else { problem };
            self.refuse(order, "CAMERA_LOST", format!("no camera: {why}"), false, pulse);
        }
        !self.shutdown.asked()
    }

    fn blank(&self, source: Arc<str>, mode: Trigger, order: Option<Order>, taken: Instant) -> Box<Job> {
        let mut job = self.pool.take();
        let token = self.ledger.admit();
        job.id = token.id();
        job.token = Some(token);
        job.captured_at = self.clock.now();
        job.captured_mono_ns = self.clock.mono_ns();
        job.source = source;
        job.trigger = self.trigger_word.unwrap_or(mode.word());
        job.admitted = taken;
        job.product = self.product.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(order) = order {
            if mode != Trigger::Hardware {
                job.trigger = order.from;
            }
            (job.part_id, job.job_id, job.reply) = (order.part_id, order.job_id, order.reply);
        }
        job
    }

    /// A frame becomes a job; the job's old picture goes back to the camera.
    fn admit(&self, captured: Captured, mode: Trigger, order: Option<Order>, taken: Instant, camera: &mut Guarded) -> Box<Job> {
        let mut job = self.blank(captured.source, mode, order, taken);
        job.captured_at = captured.captured_at;
        job.captured_mono_ns = captured.captured_mono_ns;
        if captured.part_id.is_some() {
            job.part_id = captured.part_id;
        }
        camera.recycle(std::mem::replace(&mut job.image, captured.image));
        job.times.capture = Duration::from_nanos(self.clock.mono_ns().saturating_sub(job.captured_mono_ns));
        job
    }

    /// Hands the job on under the overload policy.
    fn offer(&self, job: Box<Job>, mode: Trigger, pulse: &Pulse) {
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
        let by_mode = if mode == Trigger::Free { Overload::Newest } else { Overload::Answer };
        match self.overload.unwrap_or(by_mode) {
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
            if !self.wait_step(pulse) {
                return true;
            }
            self.pass_probe(pulse);
            self.clock.sleep(Duration::from_millis(20).min(how_long));
        }
        self.shutdown.asked()
    }
}

#[cfg(test)]
mod tests;
