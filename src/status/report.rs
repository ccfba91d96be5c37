//! Tells the broker how the station is: `state` on change, `alarm/{code}` on change, `stats` at its interval.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::{State, Status};
use crate::clock::{Clock, Timestamp};
use crate::pipeline::ledger::Ledger;
use crate::publish::mqtt::PublishHandle;
use crate::record::event::{InspectionEvent, ModelRef, Verdict};
use crate::record::message::{
    ALARM_SCHEMA, ActiveRecipe, Alarm, AlarmCode, Mode, Processing, STATE_SCHEMA, STATS_SCHEMA, Severity, State as StateMessage,
    Stats, Takt, VisionState,
};
use crate::record::store::{Admission, StoreReader};

/// Times of one period.
#[derive(Debug, Default)]
struct Period {
    processing_ms: Vec<f64>,
    takt_last: Option<f64>,
    takt_worst: Option<f64>,
}

/// Watches the facts and tells the broker what changed.
pub struct Reporter {
    handle: Option<PublishHandle>,
    reader: StoreReader,
    status: Status,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    station: String,
    boot_id: String,
    recipe: Option<ActiveRecipe>,
    model: ModelRef,
    /// Recorded events, for takt and processing times.
    events: Receiver<Arc<InspectionEvent>>,
    fallback: Option<String>,
    interval: Duration,
    told: Option<(State, Vec<String>, bool)>,
    since: Timestamp,
    standing: BTreeMap<AlarmCode, Timestamp>,
    counts: [u64; 4],
    last_part: Option<f64>,
    period: Period,
    period_start: Instant,
}

/// What a [`Reporter`] is made of.
pub struct ReporterParts {
    /// The publisher's topics; without one only the facts are kept.
    pub handle: Option<PublishHandle>,
    /// The store, for outbox figures.
    pub reader: StoreReader,
    /// Facts.
    pub status: Status,
    /// Frame accounts.
    pub ledger: Ledger,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// Station name.
    pub station: String,
    /// The machine's boot.
    pub boot_id: String,
    /// Recipe in force.
    pub recipe: Option<ActiveRecipe>,
    /// The network in force.
    pub model: ModelRef,
    /// Recorded events.
    pub events: Receiver<Arc<InspectionEvent>>,
    /// Why inference does not run on the first provider asked for, if so.
    pub fallback: Option<String>,
    /// Interval of `stats`.
    pub interval: Duration,
}

fn mode_of(paused: bool, triggered: bool) -> Mode {
    match (paused, triggered) {
        (true, _) => Mode::Paused,
        (false, true) => Mode::Triggered,
        (false, false) => Mode::FreeRun,
    }
}

impl Reporter {
    /// A reporter that has told nothing yet.
    #[must_use]
    pub fn new(parts: ReporterParts) -> Self {
        let ReporterParts { handle, reader, status, ledger, clock, station, boot_id, recipe, model, events, fallback, interval } =
            parts;
        let since = clock.now();
        Self {
            handle,
            reader,
            status,
            ledger,
            clock,
            station,
            boot_id,
            recipe,
            model,
            events,
            fallback,
            interval,
            told: None,
            since,
            standing: BTreeMap::new(),
            counts: [0; 4],
            last_part: None,
            period: Period::default(),
            period_start: Instant::now(),
        }
    }

    /// Whether the store still takes results; at the cap no frame may be taken.
    #[must_use]
    pub fn admission(&self) -> Admission {
        self.reader.admission()
    }

    /// Tells what changed; call it often.
    pub fn tick(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.take(&event);
        }
        let admission = self.reader.admission();
        self.status.update(|f| f.spool_full = admission == Admission::Full);
        self.tell_state();
        self.tell_alarms(admission);
        if self.period_start.elapsed() >= self.interval {
            self.tell_stats();
        }
    }

    fn take(&mut self, event: &InspectionEvent) {
        let slot = match event.verdict {
            Verdict::Ok => 0,
            Verdict::Ng => 1,
            Verdict::Error => 2,
        };
        self.counts[slot] += 1;
        let overrun = event.error.as_ref().is_some_and(|e| e.code == crate::record::event::ErrorCode::Overrun);
        self.counts[3] += u64::from(overrun);
        self.period.processing_ms.push(event.timing_ms.total);
        if let Some(mono) = event.captured_mono_ns {
            let now = mono as f64 * 1e-6;
            if let Some(last) = self.last_part {
                let takt = now - last;
                self.period.takt_last = Some(takt);
                self.period.takt_worst = Some(self.period.takt_worst.unwrap_or(0.0).max(takt));
            }
            self.last_part = Some(now);
        }
    }

    fn tell_state(&mut self) {
        let facts = self.status.facts();
        let (state, reasons, paused) = (self.status.state(), self.status.reasons(), facts.paused);
        let now = (state, reasons, paused);
        if self.told.as_ref() == Some(&now) {
            return;
        }
        if self.told.as_ref().map(|t| t.0) != Some(now.0) {
            self.since = self.clock.now();
        }
        let message = StateMessage {
            schema: STATE_SCHEMA.to_owned(),
            station: self.station.clone(),
            state: match now.0 {
                State::Preoperational => VisionState::Preoperational,
                State::Ready => VisionState::Ready,
                State::ContinuousExecution => VisionState::ContinuousExecution,
                State::Error => VisionState::Error,
                State::Halted => VisionState::Halted,
            },
            mode: mode_of(paused, facts.triggered),
            recipe: self.recipe.clone(),
            model: Some(self.model.clone()),
            since: self.since,
            message: (!now.1.is_empty()).then(|| now.1.join("; ")),
        };
        if let Some(handle) = &self.handle {
            handle.set_state(message);
        }
        self.told = Some(now);
    }

    fn tell_alarms(&mut self, admission: Admission) {
        let facts = self.status.facts();
        let camera =
            (!facts.camera_up && !facts.camera_problem.is_empty()).then(|| (Severity::Error, facts.camera_problem.clone()));
        self.alarm(AlarmCode::CameraLost, camera);
        let frozen = facts.camera_frozen.map(|n| {
            (Severity::Error, format!("{n} frames in a row without one differing pixel: the sensor's picture is frozen"))
        });
        self.alarm(AlarmCode::CameraFrozen, frozen);
        let stale = (!facts.template_stale.is_empty()).then(|| {
            (Severity::Warning, format!("the template was taught with other camera values: {}", facts.template_stale.join("; ")))
        });
        self.alarm(AlarmCode::TemplateStale, stale);
        let spool = match admission {
            Admission::Open => None,
            Admission::High => {
                Some((Severity::Warning, "the outbox is past its alarm level: the broker does not take results".to_owned()))
            }
            Admission::Full => {
                Some((Severity::Error, "the outbox is at its cap: no frame is taken until the broker takes results".to_owned()))
            }
        };
        self.alarm(AlarmCode::SpoolHigh, spool);
        let damaged = self.reader.damaged();
        let damage = (damaged > 0).then(|| (Severity::Error, format!("{damaged} events were lost to a damaged spool file")));
        self.alarm(AlarmCode::SpoolDamaged, damage);
        let fallback = self.fallback.clone().map(|why| (Severity::Warning, why));
        self.alarm(AlarmCode::EngineFallback, fallback);
    }

    fn alarm(&mut self, code: AlarmCode, wanted: Option<(Severity, String)>) {
        match (wanted, self.standing.contains_key(&code)) {
            (Some((severity, message)), false) => {
                let since = self.clock.now();
                self.standing.insert(code, since);
                log::warn!("alarm {}: {message}", code.topic());
                let station = self.station.clone();
                let alarm =
                    Alarm { schema: ALARM_SCHEMA.to_owned(), station, code, severity, since, message, value: None, limit: None };
                self.status.update(|f| f.alarms.push(alarm.clone()));
                if let Some(handle) = &self.handle {
                    handle.set_alarm(code, Some(alarm));
                }
            }
            (None, true) => {
                self.standing.remove(&code);
                log::info!("alarm {} is over", code.topic());
                self.status.update(|f| f.alarms.retain(|a| a.code != code));
                if let Some(handle) = &self.handle {
                    handle.set_alarm(code, None);
                }
            }
            _ => {}
        }
    }

    fn tell_stats(&mut self) {
        let period = std::mem::take(&mut self.period);
        let mut sorted = period.processing_ms;
        sorted.sort_by(f64::total_cmp);
        let processing_ms = sorted.first().map(|min| Processing {
            min: *min,
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            max: sorted[sorted.len() - 1],
            p99: sorted[(sorted.len() * 99).div_ceil(100).saturating_sub(1)],
        });
        let period_s = std::mem::replace(&mut self.period_start, Instant::now()).elapsed().as_secs_f64();
        let Some(handle) = &self.handle else { return };
        let publish = handle.status();
        handle.set_stats(Stats {
            schema: STATS_SCHEMA.to_owned(),
            station: self.station.clone(),
            at: self.clock.now(),
            boot_id: self.boot_id.clone(),
            period_s,
            triggers: self.ledger.balance().captured,
            ok: self.counts[0],
            ng: self.counts[1],
            error: self.counts[2],
            overruns: self.counts[3],
            takt_ms: period.takt_last.map(|last| Takt { last, worst: period.takt_worst.unwrap_or(last) }),
            processing_ms,
            outbox_events: publish.outbox_events,
            outbox_oldest_age_s: publish.outbox_oldest_age_s,
        });
    }
}
