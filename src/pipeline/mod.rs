//! The running line: capture → align → infer → decide → record, one named thread each, over bounded queues; evidence and the
//! publisher follow behind the record stage, where they can delay nothing.
//!
//! ```text
//! capture ─▶ [queue] ─▶ align ─▶ [queue] ─▶ infer ─▶ [queue] ─▶ decide ─▶ [queue] ─▶ record ─▶ archive
//!     └──────── answered without inspection (overrun, unusable picture) ───────────────▲   └─▶ publisher
//! ```
//!
//! - Frames end once: [`ledger`] proves it. Queues hold [`job::Job`]s, whose pictures are recycled.
//! - A stop closes the source; the end then flows through the queues. Frames not inspected by the drain limit are recorded as aborted.
//! - A self-test ([`selftest`]) goes through the same queues between two frames and is no frame.
//! - While results cannot be kept, the record stage holds what it has and tries again, and the source takes no frame.

pub mod drift;
pub mod event;
pub mod evidence;
pub mod finders;
pub mod frozen;
pub mod job;
pub mod ledger;
pub mod registrar;
pub mod selftest;
pub mod source;
pub mod stage;
pub mod steps;
pub mod supervisor;
pub mod trigger;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::drift::Drift;
use self::event::{Station, clock_state, event_of};
use self::evidence::{Archivist, Sampling};
use self::finders::Finders;
use self::frozen::Frozen;
use self::job::{Fault, Job, Pool, Product};
use self::ledger::Ledger;
use self::registrar::Registrar;
use self::selftest::{Probe, Report};
use self::source::{OpenCamera, Overload, Source};
use self::stage::{Context, Pulse, Stage};
use self::trigger::{Outcome, TriggerHandle};
use crate::capture::Trigger;
use crate::clock::Clock;
use crate::decide::Decider;
use crate::error::{Error, Kind, Result};
use crate::frame::FrameId;
use crate::infer::{self, Detector};
use crate::record::archive::writer::{Counts, Skipped};
use crate::record::event::{Evidence, InspectionEvent, Verdict};
use crate::record::store::Store;
use crate::residual::{self, Remover};
use crate::shutdown::Shutdown;
use crate::status::Status;
use crate::status::live::{Live, Part};
use crate::telemetry::{Counter, Gauge, Telemetry};

/// The stage that no result waits for.
const ARCHIVE: &str = "archive";
/// Most events in one commit.
const RECORD_BATCH: usize = 64;

/// The template in force; swapped between two frames.
pub type ActiveProduct = Arc<RwLock<Option<Arc<Product>>>>;

/// How the line runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Capacity of each queue.
    pub queue_frames: usize,
    /// Full-queue policy; none = by the trigger mode in force: the newest frame wins in free run, every trigger is answered.
    pub overload: Option<Overload>,
    /// A camera silent for so long is reopened.
    pub camera_timeout: Duration,
    /// A frame older than this is not inspected.
    pub max_age: Duration,
    /// On a stop, frames are inspected for so long and then recorded as aborted.
    pub drain: Duration,
    /// What starts an inspection, where the product in force asks for nothing else.
    pub trigger: Trigger,
    /// The trigger's word in events; none = the trigger mode's.
    pub trigger_word: Option<&'static str>,
    /// A software trigger's picture is awaited at most so long.
    pub trigger_timeout: Duration,
    /// A stage stuck in the camera's driver for so long is started anew.
    pub stall: Duration,
    /// So many identical frames are a frozen picture; 0 = off.
    pub frozen_frames: u32,
    /// When slow changes of light, focus and pose are told.
    pub drift: drift::Settings,
    /// Removal of what registration leaves; `None` = off.
    pub residual: Option<residual::Settings>,
}

/// What the line is built from.
pub struct Parts {
    /// Opens the camera.
    pub open_camera: OpenCamera,
    /// What frames are compared with.
    pub product: ActiveProduct,
    /// The network.
    pub detector: Detector,
    /// Where results are committed.
    pub store: Store,
    /// What is the same in every event.
    pub station: Station,
    /// Called after every commit.
    pub committed: Box<dyn FnMut() + Send>,
    /// Writes evidence.
    pub archive: Option<Archivist>,
    /// Told of every recorded event, for those who show them live.
    pub watch: Option<Sender<Arc<InspectionEvent>>>,
    /// Shown every recorded part, for the page.
    pub live: Option<Live>,
    /// Asked to stop.
    pub shutdown: Shutdown,
    /// Public state.
    pub status: Status,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub telemetry: Telemetry,
}

/// Time limit of a stop, shared by the stages.
#[derive(Debug, Clone, Default)]
struct Drain(Arc<AtomicU64>);

impl Drain {
    fn begin(&self, deadline_ns: u64) {
        self.0.store(deadline_ns.max(1), Ordering::SeqCst);
    }

    fn is_over(&self, clock: &dyn Clock) -> bool {
        let deadline = self.0.load(Ordering::SeqCst);
        deadline != 0 && clock.mono_ns() > deadline
    }
}

/// Why no frame is taken now; cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Hold(Arc<AtomicU8>);

impl Hold {
    /// Results cannot be committed.
    pub const STORE: u8 = 1;
    /// The outbox is at its cap.
    pub const SPOOL: u8 = 2;
    /// Paused by a command.
    pub const PAUSED: u8 = 4;

    /// Sets or clears one reason; true when that changed something.
    pub fn set(&self, reason: u8, on: bool) -> bool {
        let before = if on { self.0.fetch_or(reason, Ordering::SeqCst) } else { self.0.fetch_and(!reason, Ordering::SeqCst) };
        (before & reason != 0) != on
    }

    /// Whether any reason stands.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    /// The reasons, in words.
    #[must_use]
    pub fn why(&self) -> String {
        let bits = self.0.load(Ordering::SeqCst);
        let words =
            [(Self::STORE, "results cannot be committed"), (Self::SPOOL, "the outbox is at its cap"), (Self::PAUSED, "paused")];
        words.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
    }
}

/// The running line.
pub struct Pipeline {
    stages: Vec<Stage>,
    drain: Drain,
    drain_limit: Duration,
    clock: Arc<dyn Clock>,
    queues: Vec<(&'static str, Box<dyn Fn() -> usize + Send>, Gauge)>,
    /// Self-tests on their way to the source.
    probes: Sender<Box<Probe>>,
    product: ActiveProduct,
    /// Reasons to take no frame.
    pub hold: Hold,
    /// Frame accounts.
    pub ledger: Ledger,
    /// Where software triggers are given.
    pub trigger: TriggerHandle,
}

impl Pipeline {
    /// Starts the threads, last stage first.
    ///
    /// # Errors
    /// [`Kind::TryAgain`] when the system refuses a thread, [`Kind::Config`] for registration settings that cannot work.
    pub fn start(settings: &Settings, parts: Parts) -> Result<Self> {
        let Parts {
            open_camera,
            product,
            detector,
            store,
            station,
            committed,
            archive,
            watch,
            live,
            shutdown,
            status,
            clock,
            telemetry,
        } = parts;
        let context = Context { clock: Arc::clone(&clock), telemetry: telemetry.clone() };
        let ledger = Ledger::new(&telemetry);
        let pool = Pool::new(settings.queue_frames * 4 + 8);
        let drain = Drain::default();
        let hold = Hold::default();
        let mode = trigger::Mode::new(settings.trigger, Arc::clone(&product));
        let (trigger, orders) = TriggerHandle::new(mode.clone(), hold.clone(), Arc::clone(&clock));
        let capacity = settings.queue_frames;
        let (to_align, at_align) = bounded::<Box<Job>>(capacity);
        let (to_infer, at_infer) = bounded::<Box<Job>>(capacity);
        let (to_decide, at_decide) = bounded::<Box<Job>>(capacity);
        let (to_record, at_record) = bounded::<Box<Job>>(capacity.max(RECORD_BATCH));
        let mut queues = Vec::new();
        for (name, queue) in [("align", &at_align), ("infer", &at_infer), ("decide", &at_decide), ("record", &at_record)] {
            let queue: Receiver<Box<Job>> = queue.clone();
            let gauge = telemetry.gauge("ssds_queue_depth", "Frames waiting in front of a stage.", &[("queue", name)]);
            queues.push((name, Box::new(move || queue.len()) as Box<dyn Fn() -> usize + Send>, gauge));
        }

        let mut stages = Vec::new();
        let to_archive = match archive {
            Some(mut archivist) => {
                let (sampling, counts) = (archivist.sampling(), archivist.counts());
                let (queue, at_archive) = bounded::<(Box<Job>, Arc<InspectionEvent>)>(capacity.max(8));
                let (archive_pool, own_drain, own_clock) = (pool.clone(), drain.clone(), Arc::clone(&clock));
                stages.push(Stage::batched(ARCHIVE, &context, at_archive, None::<Sender<()>>, 1, move |batch, _, _| {
                    for (job, event) in batch.drain(..) {
                        if own_drain.is_over(own_clock.as_ref()) {
                            archivist.counts().skip(Skipped::Busy);
                        } else {
                            // Why not is counted and told by the archivist; the result itself is safe.
                            let _ = archivist.keep(&job, &event);
                        }
                        archive_pool.put(job);
                    }
                })?);
                Some(ToArchive { sampling, counts, queue })
            }
            None => None,
        };
        let recorder = Recorder {
            store: Some(store),
            station,
            committed,
            to_archive,
            watch,
            live,
            pool: pool.clone(),
            hold: hold.clone(),
            status: status.clone(),
            drain: drain.clone(),
            clock: Arc::clone(&clock),
            counts: VerdictCounters::new(&telemetry),
            disagreement: Disagreement::new(&telemetry),
            drift: Drift::new(settings.drift.clone()),
            end_to_end: telemetry.histogram("ssds_end_to_end_seconds", "From capture to committed result.", &[]),
            events: Vec::new(),
        };
        stages.push(recorder.start(&context, at_record)?);

        let mut decider = Decider::new();
        stages.push(Stage::each("decide", &context, at_decide, to_record.clone(), move |mut job: Box<Job>| {
            steps::decide(&mut job, &mut decider);
            job
        })?);

        let mut finders = Finders::new(Some(detector));
        let (own_drain, own_clock) = (drain.clone(), Arc::clone(&clock));
        let figures = InferFigures::new(&telemetry);
        stages.push(Stage::each("infer", &context, at_infer, to_decide, move |mut job: Box<Job>| {
            abort_when_over(&mut job, &own_drain, own_clock.as_ref());
            match &mut job.probe {
                Some(probe) => {
                    if let Some(network) = finders.network_mut() {
                        probe.infer(network);
                    }
                }
                None => {
                    steps::infer(&mut job, &mut finders);
                    if let Some(network) = finders.network() {
                        figures.count(&job, network);
                    }
                }
            }
            job
        })?);

        let mut registrar = Registrar::new();
        let mut remover = settings.residual.as_ref().map(Remover::new).transpose()?;
        let (own_drain, own_clock) = (drain.clone(), Arc::clone(&clock));
        let max_age = settings.max_age;
        stages.push(Stage::each("align", &context, at_align.clone(), to_infer, move |mut job: Box<Job>| {
            if let Some(probe) = &mut job.probe {
                probe.align(&mut registrar);
                return job;
            }
            abort_when_over(&mut job, &own_drain, own_clock.as_ref());
            let age = Duration::from_nanos(own_clock.mono_ns().saturating_sub(job.captured_mono_ns));
            if age > max_age {
                job.fail(
                    "FRAME_STALE",
                    format!("the frame is {} ms old; camera.max_age_ms is {}", age.as_millis(), max_age.as_millis()),
                );
            }
            steps::align(&mut job, &mut registrar, remover.as_mut());
            job
        })?);

        let ((probes, at_source), own_product) = (bounded(1), Arc::clone(&product));
        let source = Source {
            probes: at_source,
            open: open_camera,
            timeout: settings.camera_timeout,
            overload: settings.overload,
            mode,
            trigger_word: settings.trigger_word,
            ledger: ledger.clone(),
            pool,
            output: to_align,
            oldest: at_align,
            answered: to_record,
            product,
            hold: hold.clone(),
            orders,
            trigger_timeout: settings.trigger_timeout,
            open_limit: settings.stall,
            frozen: Frozen::new(settings.frozen_frames),
            shutdown,
            status,
            clock: Arc::clone(&clock),
            telemetry,
        };
        stages.push(Stage::source("capture", move |pulse| source.run(pulse))?);
        let drain_limit = settings.drain;
        Ok(Self { stages, drain, drain_limit, clock, queues, probes, product: own_product, hold, ledger, trigger })
    }

    /// The signs of life of the stages that a result needs; the archive may wait for a slow disk as long as it likes.
    #[must_use]
    pub fn pulses(&self) -> Vec<(&'static str, Pulse)> {
        self.stages.iter().filter(|s| s.name != ARCHIVE).map(|s| (s.name, s.pulse.clone())).collect()
    }

    /// Whether every thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stages.iter().all(Stage::is_finished)
    }

    /// Updates the queue gauges.
    pub fn measure_queues(&self) {
        for (_, length, gauge) in &self.queues {
            gauge.set(length() as f64);
        }
    }

    /// Sends a self-test through the line; the receiver gets its one report, or is disconnected when overload threw it out. None while
    /// another one waits.
    #[must_use]
    pub fn self_test(&self) -> Option<Receiver<Report>> {
        let (answer, report) = bounded(1);
        let product = self.product.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        self.probes.try_send(Box::new(Probe::new(product, answer))).ok().map(|()| report)
    }

    /// Waits for the end that a stop has begun: first within the drain limit, then with frames being recorded as aborted. True when every
    /// thread ended by `deadline`.
    #[must_use]
    pub fn drain(self, deadline: Instant) -> bool {
        let limit = self.clock.mono_ns() + u64::try_from(self.drain_limit.as_nanos()).unwrap_or(u64::MAX / 2);
        self.drain.begin(limit);
        let mut clean = true;
        // Source first: each stage ends when its input disconnects.
        for stage in self.stages.into_iter().rev() {
            let name = stage.name;
            if !stage.join_until(deadline) {
                log::error!("stage {name} did not end in time");
                clean &= name == ARCHIVE;
            }
        }
        clean
    }
}

fn abort_when_over(job: &mut Job, drain: &Drain, clock: &dyn Clock) {
    if drain.is_over(clock) && job.fault.is_none() {
        job.fault =
            Some(Fault { code: "INTERNAL", message: "the station stopped before the frame was inspected".into(), aborted: true });
    }
}

/// What goes wrong in the network.
struct InferFigures {
    failed: Counter,
    not_finite: Counter,
    reloads: Gauge,
}

impl InferFigures {
    fn new(telemetry: &Telemetry) -> Self {
        let counter = |code| telemetry.counter("ssds_infer_faults_total", "Frames the network failed on.", &[("code", code)]);
        Self {
            failed: counter(infer::Fault::Failed.code()),
            not_finite: counter(infer::Fault::NotFinite.code()),
            reloads: telemetry.gauge("ssds_infer_reloads", "How often the network's session was built anew.", &[]),
        }
    }

    fn count(&self, job: &Job, detector: &Detector) {
        match &job.fault {
            Some(fault) if fault.code == infer::Fault::Failed.code() => self.failed.inc(),
            Some(fault) if fault.code == infer::Fault::NotFinite.code() => self.not_finite.inc(),
            _ => return,
        }
        self.reloads.set(detector.reloads() as f64);
    }
}

struct VerdictCounters {
    ok: Counter,
    ng: Counter,
    error: Counter,
}

impl VerdictCounters {
    fn new(telemetry: &Telemetry) -> Self {
        let counter =
            |verdict| telemetry.counter("ssds_inspections_total", "Recorded results by verdict.", &[("verdict", verdict)]);
        Self { ok: counter("OK"), ng: counter("NG"), error: counter("ERROR") }
    }

    fn count(&self, verdict: Verdict) {
        match verdict {
            Verdict::Ok => self.ok.inc(),
            Verdict::Ng => self.ng.inc(),
            Verdict::Error => self.error.inc(),
        }
    }
}

/// Most recent parts that two detectors judged, and how often they disagreed.
struct Disagreement {
    compared: Counter,
    disagreed: Counter,
    recent: std::collections::VecDeque<bool>,
}

impl Disagreement {
    /// Parts looked back on.
    const WINDOW: usize = 100;
    /// Fewest parts that say something.
    const FEWEST: usize = 20;
    /// Share of disagreements from which a person should look: the parts are unlike those that the network was made for, or the
    /// template, the light or the comparator's settings no longer fit.
    const SHARE: f64 = 0.2;

    fn new(telemetry: &Telemetry) -> Self {
        Self {
            compared: telemetry.counter("ssds_detector_compared_total", "Parts judged by two detectors.", &[]),
            disagreed: telemetry.counter("ssds_detector_disagreements_total", "Parts on which two detectors disagreed.", &[]),
            recent: std::collections::VecDeque::with_capacity(Self::WINDOW),
        }
    }

    fn take(&mut self, job: &Job, status: &Status) {
        let (Some(first), Some(second)) = (job.decision.as_ref(), job.second_verdict) else {
            if job.decision.is_some() && !self.recent.is_empty() && job.product.as_ref().is_some_and(|p| p.compare_with.is_none())
            {
                // A recipe without a second detector is in force now.
                self.recent.clear();
                status.update(|f| f.disagreement = None);
            }
            return;
        };
        let differ = first.verdict != second;
        self.compared.inc();
        if differ {
            self.disagreed.inc();
        }
        if self.recent.len() == Self::WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(differ);
        let (n, of) = (self.recent.iter().filter(|d| **d).count(), self.recent.len());
        let alarm = of >= Self::FEWEST && n as f64 >= Self::SHARE * of as f64;
        let names = job.product.as_ref().map(|p| (p.detector.name(), p.compare_with.map_or("", crate::recipe::Detector::name)));
        let (a, b) = names.unwrap_or_default();
        let text = alarm.then(|| format!("{a} and {b} disagreed on {n} of the last {of} parts"));
        status.update(|f| {
            if f.disagreement.is_some() != text.is_some() {
                f.disagreement = text;
            }
        });
    }
}

/// The way to the archive.
struct ToArchive {
    sampling: Sampling,
    counts: Counts,
    queue: Sender<(Box<Job>, Arc<InspectionEvent>)>,
}

/// The record stage: commits, then tells the publisher and the archive.
struct Recorder {
    /// There until the stage ends, which closes it in order.
    store: Option<Store>,
    station: Station,
    committed: Box<dyn FnMut() + Send>,
    to_archive: Option<ToArchive>,
    watch: Option<Sender<Arc<InspectionEvent>>>,
    live: Option<Live>,
    pool: Pool,
    hold: Hold,
    status: Status,
    drain: Drain,
    clock: Arc<dyn Clock>,
    counts: VerdictCounters,
    disagreement: Disagreement,
    drift: Drift,
    end_to_end: crate::telemetry::Histogram,
    events: Vec<InspectionEvent>,
}

impl Recorder {
    fn start(mut self, context: &Context, input: Receiver<Box<Job>>) -> Result<Stage> {
        Stage::batched("record", context, input, None::<Sender<()>>, RECORD_BATCH, move |batch: &mut Vec<Box<Job>>, _, pulse| {
            self.record(batch, pulse);
        })
    }

    fn record(&mut self, batch: &mut Vec<Box<Job>>, pulse: &Pulse) {
        for mut job in batch.extract_if(.., |job| job.probe.is_some()) {
            if let (Some(probe), Some(store)) = (job.probe.take(), &mut self.store) {
                probe.finish(store, self.clock.as_ref());
            }
            self.pool.put(job);
        }
        if batch.is_empty() {
            return;
        }
        let clock_state = clock_state();
        // The queue has one sender, this one: room seen now stays room.
        let mut room = self.to_archive.as_ref().map_or(0, |a| a.queue.capacity().unwrap_or(0).saturating_sub(a.queue.len()));
        let mut archived = Vec::with_capacity(batch.len());
        self.events.clear();
        for job in batch.iter() {
            let wanted = self.to_archive.as_mut().is_some_and(|a| a.sampling.wants(job));
            let granted = wanted && room > 0;
            room -= usize::from(granted);
            if let Some(archive) = self.to_archive.as_ref().filter(|_| wanted && !granted) {
                archive.counts.skip(Skipped::Busy);
            }
            archived.push(granted);
            let mut event = event_of(job, &self.station, clock_state, None);
            if granted {
                let uri = format!("/api/v1/inspections/{}", event.event_id);
                event.evidence = Some(Evidence { uri, frame_sha256: None, bytes: None });
            }
            if let Some(findings) = self.drift.take(&mut event) {
                self.status.update(|f| {
                    if f.drift != findings {
                        f.drift = findings;
                    }
                });
            }
            self.events.push(event);
        }
        if !self.commit(pulse) {
            for job in batch.iter_mut() {
                if let Some(token) = &mut job.token {
                    token.dropped("record", "store_failed");
                }
            }
            return;
        }
        (self.committed)();
        for ((mut job, event), archived) in batch.drain(..).zip(self.events.drain(..)).zip(archived) {
            if let Some(token) = &mut job.token {
                token.recorded();
            }
            self.counts.count(event.verdict);
            if let Some(reply) = job.reply.take() {
                reply.give(Outcome::of(&event));
            }
            self.end_to_end.observe(job.admitted.elapsed() + job.times.capture);
            log::info!("{}", line_of(&event, job.id));
            self.disagreement.take(&job, &self.status);
            if let Some(live) = &self.live {
                live.part(&part_of(&event, &job));
            }
            let event = Arc::new(event);
            if let Some(watch) = &self.watch {
                // A slow watcher misses lines; it never delays recording.
                let _ = watch.try_send(Arc::clone(&event));
            }
            match (&self.to_archive, archived) {
                (Some(archive), true) => {
                    if let Err(e) = archive.queue.try_send((job, event)) {
                        archive.counts.skip(Skipped::Busy);
                        self.pool.put(e.into_inner().0);
                    }
                }
                _ => self.pool.put(job),
            }
        }
    }

    /// Commits `self.events`, for as long as it takes; false when a stop's limit passed before it was possible.
    fn commit(&mut self, pulse: &Pulse) -> bool {
        let mut pause = Duration::from_millis(20);
        let mut reported = Instant::now() - Duration::from_secs(60);
        // The stage's end alone takes the store away.
        let Some(store) = &mut self.store else { return false };
        loop {
            match store.record(&mut self.events) {
                Ok(_) => {
                    let inspected = self.events.iter().any(|e| e.verdict != Verdict::Error);
                    let recovered = self.hold.set(Hold::STORE, false);
                    self.status.update(|f| {
                        f.inspected |= inspected;
                        f.store_ready = true;
                        f.store_problem.clear();
                    });
                    if recovered {
                        log::warn!("store: results are kept again");
                    }
                    return true;
                }
                Err(e) => {
                    self.hold.set(Hold::STORE, true);
                    let text = format!("{e:#}");
                    self.status.update(|f| (f.store_ready, f.store_problem) = (false, text.clone()));
                    if reported.elapsed() >= Duration::from_secs(10) {
                        let n = self.events.len();
                        log::error!(
                            "store: {n} results cannot be committed: {text}; they are kept in memory and tried again, no frame is taken meanwhile"
                        );
                        reported = Instant::now();
                    }
                    if self.drain.is_over(self.clock.as_ref()) {
                        let n = self.events.len();
                        self.status.fatal(
                            Error::new(Kind::Io, format!("{n} results could not be committed before the stop")).with_source(e),
                        );
                        return false;
                    }
                    pulse.idle();
                    self.clock.sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }
}

/// What the page shows of a part.
fn part_of<'a>(event: &'a InspectionEvent, job: &'a Job) -> Part<'a> {
    let outline = match (&job.registration, job.view()) {
        (Some(r), Some(v)) if r.accepted => Some((r.frame_from_template, v.picture.image.size())),
        _ => None,
    };
    Part { event, frame: &job.image, blobs: job.decision.as_ref().map_or(&[][..], |d| &d.blobs[..]), outline }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.store.take().map(Store::close) {
            log::error!("store: {e:#}; the results in it are safe");
        }
    }
}

/// The log line of one part: verdict, pose, defects, milliseconds a stage.
fn line_of(event: &InspectionEvent, frame: FrameId) -> String {
    let what = match (&event.error, event.verdict) {
        (Some(error), _) => error.message.clone(),
        (None, Verdict::Ok) => format!("no defect, highest score {:.2}", event.decision.max_score),
        _ => {
            let first = event.defects.first().map_or_else(String::new, |d| {
                let [x, y, w, h] = d.bbox_px;
                format!(", first {}x{} at {},{} score {:.2}", w, h, x, y, d.score_max)
            });
            format!("{} defect{}{first}", event.defects_total, if event.defects_total == 1 { "" } else { "s" })
        }
    };
    let pose = if event.align.ok {
        let a = &event.align;
        format!("{:+.2}° x{:.3} ({:+.1}, {:+.1}) px", a.rotation_deg, a.scale, a.dx_px, a.dy_px)
    } else {
        "no pose".into()
    };
    let t = &event.timing_ms;
    let n = |v: Option<f64>| v.unwrap_or(0.0);
    format!(
        "frame {frame} seq {} {} {:<5} {pose} | {what} | ms: capture {:.1} align {:.1} infer {:.1} decide {:.1} queue {:.1} total {:.1}",
        event.seq,
        event.product,
        match event.verdict {
            Verdict::Ok => "OK",
            Verdict::Ng => "NG",
            Verdict::Error => "ERROR",
        },
        n(t.capture),
        n(t.align),
        n(t.infer),
        n(t.decide),
        n(t.queue),
        t.total
    )
}
