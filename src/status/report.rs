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
use crate::record::store::{Admission, Fill, StoreReader};

/// Times of one period.
#[derive(Debug, Default)]
struct Period {
    processing_ms: Vec<f64>,
    takt_last: Option<f64>,
    takt_worst: Option<f64>,
}

/// What stands in an alarm.
struct Finding {
    severity: Severity,
    message: String,
    /// The figure that raised it, and its limit.
    figure: Option<(f64, f64)>,
    /// A standing alarm is told again when this or the severity changes.
    again: u64,
}

impl Finding {
    fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self { severity, message: message.into(), figure: None, again: 0 }
    }
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
    /// The state must be told again though nothing of `told` changed.
    stale: bool,
    since: Timestamp,
    /// Since when, how bad, and [`Finding::again`].
    standing: BTreeMap<AlarmCode, (Timestamp, Severity, u64)>,
    min_free_bytes: u64,
    free_bytes: Option<u64>,
    disk_looked: Option<Instant>,
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
    /// Free disk space below which the alarm `disk_low` is raised, bytes; 0 = never.
    pub min_free_bytes: u64,
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
        let ReporterParts {
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
            min_free_bytes,
            interval,
        } = parts;
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
            stale: false,
            since,
            standing: BTreeMap::new(),
            min_free_bytes,
            free_bytes: None,
            disk_looked: None,
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

    /// Another recipe is in force; the state says so with the next [`Reporter::tick`].
    pub fn set_recipe(&mut self, recipe: ActiveRecipe) {
        if self.recipe.as_ref() != Some(&recipe) {
            self.recipe = Some(recipe);
            self.stale = true;
        }
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
        if self.told.as_ref() == Some(&now) && !self.stale {
            return;
        }
        self.stale = false;
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
        let lost = !facts.camera_up && !facts.camera_problem.is_empty();
        self.alarm(AlarmCode::CameraLost, lost.then(|| Finding::new(Severity::Error, facts.camera_problem.clone())));
        self.alarm(AlarmCode::SpoolHigh, spool_finding(admission, &self.reader.fill()));
        let frozen = facts.camera_frozen.map(|n| {
            let text = format!("{n} frames in a row without one differing pixel: the sensor's picture is frozen");
            Finding::new(Severity::Error, text)
        });
        self.alarm(AlarmCode::CameraFrozen, frozen);
        let stale = (!facts.template_stale.is_empty()).then(|| {
            let values = facts.template_stale.join("; ");
            Finding::new(Severity::Warning, format!("the template was taught with other camera values: {values}"))
        });
        self.alarm(AlarmCode::TemplateStale, stale);
        let damaged = self.reader.damaged();
        let damage = (damaged > 0).then(|| Finding {
            again: damaged,
            ..Finding::new(Severity::Error, format!("{damaged} events were lost to a damaged spool file"))
        });
        self.alarm(AlarmCode::SpoolDamaged, damage);
        self.look_at_disk();
        let stands = self.standing.contains_key(&AlarmCode::DiskLow);
        self.alarm(AlarmCode::DiskLow, disk_finding(self.free_bytes, self.min_free_bytes, stands));
        let fallback = self.fallback.clone().map(|why| Finding::new(Severity::Warning, why));
        self.alarm(AlarmCode::EngineFallback, fallback);
        for (code, finding) in [
            (AlarmCode::LightDrift, facts.drift.light),
            (AlarmCode::FocusDrift, facts.drift.focus),
            (AlarmCode::PoseDrift, facts.drift.pose),
        ] {
            let found =
                finding.map(|d| Finding { figure: Some((d.distance, d.limit)), ..Finding::new(Severity::Warning, d.text) });
            self.alarm(code, found);
        }
        let disagreement = facts.disagreement.map(|what| Finding::new(Severity::Warning, what));
        self.alarm(AlarmCode::DetectorDisagreement, disagreement);
    }

    /// Asks the system for the free space, once a second.
    fn look_at_disk(&mut self) {
        if self.disk_looked.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.disk_looked = Some(Instant::now());
        match self.reader.free_bytes() {
            Ok(free) => self.free_bytes = Some(free),
            Err(e) => log::warn!("{e:#}"),
        }
    }

    fn alarm(&mut self, code: AlarmCode, wanted: Option<Finding>) {
        let standing = self.standing.get(&code).copied();
        match (wanted, standing) {
            (Some(f), _) if standing.is_none_or(|(_, severity, again)| (severity, again) != (f.severity, f.again)) => {
                let since = standing.map_or_else(|| self.clock.now(), |(since, ..)| since);
                self.standing.insert(code, (since, f.severity, f.again));
                match f.severity {
                    Severity::Warning => log::warn!("alarm {}: {}", code.topic(), f.message),
                    Severity::Error => log::error!("alarm {}: {}", code.topic(), f.message),
                }
                let alarm = Alarm {
                    schema: ALARM_SCHEMA.to_owned(),
                    station: self.station.clone(),
                    code,
                    severity: f.severity,
                    since,
                    message: f.message,
                    value: f.figure.map(|(value, _)| value),
                    limit: f.figure.map(|(_, limit)| limit),
                };
                self.status.update(|f| {
                    f.alarms.retain(|a| a.code != code);
                    f.alarms.push(alarm.clone());
                });
                if let Some(handle) = &self.handle {
                    handle.set_alarm(code, Some(alarm));
                }
            }
            (None, Some(_)) => {
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

/// What stands in `spool_high`: the limit that is nearer.
fn spool_finding(admission: Admission, fill: &Fill) -> Option<Finding> {
    let share = |value: u64, limit: u64| value as f64 / limit.max(1) as f64;
    let by_events = share(fill.events, fill.max_events) >= share(fill.bytes, fill.max_bytes);
    let (waits, cap, figure) = if by_events {
        (fill.events.to_string(), fill.max_events.to_string(), (fill.events as f64, fill.max_events as f64))
    } else {
        let gib = |bytes: u64| format!("{:.2} GiB of", bytes as f64 / f64::from(1 << 30));
        (gib(fill.bytes), gib(fill.max_bytes).replace(" of", ""), (fill.bytes as f64, fill.max_bytes as f64))
    };
    let (severity, message) = match admission {
        Admission::Open => return None,
        Admission::High => {
            (Severity::Warning, format!("{waits} results wait for the broker; at {cap} no more parts are inspected"))
        }
        Admission::Full => (
            Severity::Error,
            format!("{waits} results wait for the broker, the cap is {cap}: no part is inspected until it takes them"),
        ),
    };
    Some(Finding { figure: Some(figure), ..Finding::new(severity, message) })
}

/// What stands in `disk_low`: a warning below the limit, an error below a quarter of it; over once a tenth more than the limit is free.
fn disk_finding(free: Option<u64>, limit: u64, stands: bool) -> Option<Finding> {
    let free = free?;
    let bound = if stands { limit + limit / 10 } else { limit };
    if free >= bound {
        return None;
    }
    let severity = if free < limit / 4 { Severity::Error } else { Severity::Warning };
    let mib = |bytes: u64| bytes >> 20;
    let message = format!("{} MiB are free on the disk of the results, wanted are {} MiB", mib(free), mib(limit));
    Some(Finding { figure: Some((free as f64, limit as f64)), ..Finding::new(severity, message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(finding: Option<Finding>) -> Option<(Severity, String, Option<(f64, f64)>)> {
        finding.map(|f| (f.severity, f.message, f.figure))
    }

    #[test]
    fn the_nearer_limit_of_the_outbox_is_named() {
        let fill = Fill { events: 60, max_events: 100, bytes: 1 << 29, max_bytes: 2 << 30 };
        assert!(spool_finding(Admission::Open, &fill).is_none());
        let text = "60 results wait for the broker; at 100 no more parts are inspected";
        assert_eq!(said(spool_finding(Admission::High, &fill)), Some((Severity::Warning, text.into(), Some((60.0, 100.0)))));
        let fill = Fill { bytes: 2 << 30, ..fill };
        let (severity, text, figure) = said(spool_finding(Admission::Full, &fill)).unwrap();
        assert_eq!(
            (severity, text.as_str()),
            (
                Severity::Error,
                "2.00 GiB of results wait for the broker, the cap is 2.00 GiB: no part is inspected until it takes them"
            )
        );
        assert_eq!(figure, Some((f64::from(1_u32 << 31), f64::from(1_u32 << 31))));
    }

    #[test]
    fn little_disk_space_is_told_and_does_not_flutter() {
        let mib = |n: u64| Some(n << 20);
        assert!(disk_finding(None, 100 << 20, false).is_none());
        assert!(disk_finding(mib(100), 100 << 20, false).is_none());
        let (severity, text, _) = said(disk_finding(mib(99), 100 << 20, false)).unwrap();
        let wanted = "99 MiB are free on the disk of the results, wanted are 100 MiB";
        assert_eq!((severity, text.as_str()), (Severity::Warning, wanted));
        assert!(disk_finding(mib(105), 100 << 20, true).is_some() && disk_finding(mib(110), 100 << 20, true).is_none());
        assert_eq!(said(disk_finding(mib(24), 100 << 20, true)).unwrap().0, Severity::Error);
        assert!(disk_finding(mib(0), 0, false).is_none(), "0 = never");
    }
}
