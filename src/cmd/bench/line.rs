//! The daemon's running line on frames from memory: throughput beside its slowest stage, latency beside the sum of its stages.
//!
//! A round times the stages alone, then the line at full speed, then the line one frame at a time (the next frame comes when the result of
//! the one before is committed). Ratios are taken within a round, where both sides saw the same machine, and the median round is told.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::Picture;
use super::figures::Series;
use super::stages::{Bench, STAGES, Timed, spool};
use crate::capture::{Camera, Captured, Grab, Trigger};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::infer::{self, Detector};
use crate::pipeline::source::Overload;
use crate::pipeline::{ActiveProduct, Parts, Pipeline, Settings, drift};
use crate::record::event::InspectionEvent;
use crate::shutdown::Shutdown;
use crate::status::Status;
use crate::telemetry::Telemetry;

/// No frame takes so long; a line that says nothing for so long is broken.
const SILENCE: Duration = Duration::from_secs(120);

/// What the line achieved.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Results a second at full speed.
    pub per_second: f64,
    /// Name of the slowest stage and the frames a second it would take alone.
    pub slowest: (&'static str, f64),
    /// Throughput by the slowest stage's.
    pub throughput_ratio: f64,
    /// From picture to committed result, one frame at a time, ms.
    pub latency: Series,
    /// Median of the sum of the stages, ms.
    pub stages_sum_ms: f64,
    /// Latency by the sum of the stages, medians.
    pub latency_ratio: f64,
}

impl Figures {
    /// For `--json`.
    #[must_use]
    pub fn json(&self) -> Value {
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| self.latency.quantile(share));
        json!({
            "frames_per_second": self.per_second, "slowest_stage": self.slowest.0, "slowest_stage_per_second": self.slowest.1,
            "throughput_ratio": self.throughput_ratio,
            "latency": { "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max },
            "stages_sum_ms": self.stages_sum_ms, "latency_ratio": self.latency_ratio,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  line: {:.2} frames/s; slowest stage alone ({}) {:.2} frames/s; ratio {:.3}",
            self.per_second, self.slowest.0, self.slowest.1, self.throughput_ratio
        )?;
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| self.latency.quantile(share));
        write!(
            f,
            "  line, one frame at a time: picture to committed result p50 {p50:.2} p95 {p95:.2} p99 {p99:.2} max {max:.2} ms; sum of the \
             stages {:.2} ms; ratio {:.3}",
            self.stages_sum_ms, self.latency_ratio
        )
    }
}

/// Measures in rounds; answers the stages' times too.
///
/// # Errors
/// What opening the network, the line and its spool answers; a line that stops.
pub fn measure(
    settings: &infer::Settings,
    bench: &mut Bench,
    pictures: &[Picture],
    frames: usize,
    rounds: usize,
) -> Result<(Timed, Figures)> {
    let each = frames.div_ceil(rounds);
    let mut all = Timed::default();
    let (mut rates, mut rate_ratios, mut latency_ratios) = (Series::default(), Series::default(), Series::default());
    let (mut latency, mut sums, mut slowest_rates) = (Series::default(), Series::default(), Series::default());
    let mut slowest = STAGES[0];
    for _ in 0..rounds {
        let timed = bench.run(pictures, each, true)?;
        let (name, slowest_ms) = STAGES
            .iter()
            .zip(&timed.stages)
            .map(|(name, times)| (*name, times.wall.mean()))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((STAGES[0], f64::NAN));
        slowest = name;
        let sum = timed.total.wall.median();
        let rate = full_speed(settings, pictures, each)?;
        let one = one_at_a_time(settings, pictures, each)?;
        slowest_rates.push(1e3 / slowest_ms);
        rates.push(rate);
        rate_ratios.push(rate * slowest_ms / 1e3);
        latency_ratios.push(one.median() / sum);
        sums.push(sum);
        latency.0.extend(one.0);
        all.extend(timed);
    }
    let figures = Figures {
        per_second: rates.median(),
        slowest: (slowest, slowest_rates.median()),
        throughput_ratio: rate_ratios.median(),
        latency,
        stages_sum_ms: sums.median(),
        latency_ratio: latency_ratios.median(),
    };
    Ok((all, figures))
}

/// Results a second between the first and the last, the line filled before and after.
fn full_speed(settings: &infer::Settings, pictures: &[Picture], frames: usize) -> Result<f64> {
    // The first fill the queues, the last keep them full.
    const MARGIN: usize = 6;
    let line = Line::start(settings, pictures, MARGIN, frames + MARGIN, None)?;
    for _ in 0..MARGIN {
        line.result()?;
    }
    let begun = Instant::now();
    for _ in 0..frames {
        line.result()?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    line.stop();
    Ok(frames as f64 / seconds)
}

/// Times from picture to committed result, ms.
fn one_at_a_time(settings: &infer::Settings, pictures: &[Picture], frames: usize) -> Result<Series> {
    let (go, permits) = bounded(1);
    let lead = 2;
    let line = Line::start(settings, pictures, lead, frames, Some(permits))?;
    let mut out = Series::default();
    for i in 0..frames + lead {
        let begun = Instant::now();
        go.send(()).map_err(|_| Error::internal("the line stopped before its frames were used up"))?;
        line.result()?;
        if i >= lead {
            out.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    line.stop();
    Ok(out)
}

/// A running line with its spool.
struct Line {
    pipeline: Pipeline,
    results: Receiver<Arc<InspectionEvent>>,
    shutdown: Shutdown,
    _folder: tempfile::TempDir,
}

impl Line {
    /// `lead` pictures before the first of the set, then `frames` from the first on: what is timed is what the stages alone were timed on.
    fn start(
        settings: &infer::Settings,
        pictures: &[Picture],
        lead: usize,
        frames: usize,
        permits: Option<Receiver<()>>,
    ) -> Result<Self> {
        let detector = Detector::open(settings)?;
        let (folder, store, station) = spool(&detector)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let product: ActiveProduct = Arc::new(RwLock::new(None));
        let (watch, results): (Sender<Arc<InspectionEvent>>, _) = bounded(lead + frames + 1);
        let shutdown = Shutdown::new();
        let camera = Memory {
            pictures: pictures.to_vec(),
            next: pictures.len() * lead - lead,
            left: lead + frames,
            permits,
            product: Arc::clone(&product),
            clock: Arc::clone(&clock),
        };
        let camera = Mutex::new(Some(camera));
        let parts = Parts {
            open_camera: Arc::new(move |_| {
                let camera = camera.lock().unwrap_or_else(PoisonError::into_inner).take();
                let camera = camera.ok_or_else(|| Error::internal("the bench's camera was opened twice"))?;
                Ok(Box::new(camera) as Box<dyn Camera>)
            }),
            product,
            detector,
            store,
            station,
            committed: Box::new(|| {}),
            archive: None,
            watch: Some(watch),
            live: None,
            shutdown: shutdown.clone(),
            status: Status::new(),
            clock,
            telemetry: Telemetry::new(),
        };
        let settings = Settings {
            queue_frames: 4,
            overload: Some(Overload::Wait),
            camera_timeout: SILENCE,
            max_age: SILENCE,
            drain: Duration::from_secs(3),
            trigger: Trigger::Free,
            trigger_word: Some("selftest"),
            trigger_timeout: SILENCE,
            stall: SILENCE,
            frozen_frames: 0,
            drift: drift::Settings { parts: 0, limit: 3.0, folder: None },
            residual: None,
        };
        let pipeline = Pipeline::start(&settings, parts)?;
        Ok(Self { pipeline, results, shutdown, _folder: folder })
    }

    fn result(&self) -> Result<Arc<InspectionEvent>> {
        self.results
            .recv_timeout(SILENCE)
            .map_err(|_| Error::unavailable(format!("the line gave no result for {} s", SILENCE.as_secs())))
    }

    fn stop(self) {
        self.shutdown.ask();
        if !self.pipeline.drain(Instant::now() + Duration::from_secs(10)) {
            log::warn!("the bench's line did not stop in time");
        }
    }
}

/// A camera that delivers pictures from memory: at once, or one a permit.
struct Memory {
    pictures: Vec<Picture>,
    next: usize,
    left: usize,
    permits: Option<Receiver<()>>,
    product: ActiveProduct,
    clock: Arc<dyn Clock>,
}

impl Camera for Memory {
    fn describe(&self) -> String {
        "frames from memory".into()
    }

    fn grab(&mut self, timeout: Duration) -> Result<Grab> {
        if self.left == 0 {
            return Ok(Grab::End);
        }
        if let Some(permits) = &self.permits
            && permits.recv_timeout(timeout).is_err()
        {
            return Ok(Grab::Idle);
        }
        let picture = &self.pictures[self.next % self.pictures.len()];
        (self.next, self.left) = (self.next + 1, self.left - 1);
        // Each pair has its own template; the source asks for it right after this.
        *self.product.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Arc::clone(&picture.product));
        Ok(Grab::Frame(Captured {
            image: picture.frame.clone(),
            captured_at: self.clock.now(),
            captured_mono_ns: self.clock.mono_ns(),
            device_sequence: self.next as u64,
            device_time_ns: None,
            source: "memory".into(),
            part_id: None,
        }))
    }

    fn may_be_silent(&self) -> bool {
        true
    }
}
