//! What the publisher's thread shares with the rest of the daemon: what is to be said, and how the connection stands.
//!
//! One short lock, never held while waiting or sending. Retained topics are kept as their latest payload with a version; the connection
//! remembers which versions it has sent, so that a new connection says everything again and a standing one only what changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;

use super::topics::Topics;
use crate::clock::{Clock, Timestamp};
use crate::record::event::{ClockState, ModelRef, TemplateRef};
use crate::record::message::{
    ALARM_SCHEMA, Alarm, AlarmCode, CommandResponse, Outcome, RESPONSE_SCHEMA, Reason, STATE_SCHEMA, STATS_SCHEMA, State, Stats,
};

/// Responses that may wait for the connection; a flood of commands beyond it costs the connection.
pub(crate) const MAX_RESPONSES: usize = 1024;

/// How the connection stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "link", rename_all = "snake_case")]
pub enum Link {
    /// On the way to the broker.
    #[default]
    Connecting,
    /// Connected and accepted.
    Online,
    /// The broker is there and does not take this station, or one of its messages: a person must act. Tried again all the same.
    Refused {
        /// Why, by code.
        reason: RefusedReason,
        /// What it said.
        message: String,
    },
    /// Nobody answers.
    Unreachable {
        /// What the system said.
        message: String,
    },
    /// Ended.
    Stopped,
}

/// Why the broker refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedReason {
    /// User name or password.
    BadLogin,
    /// Its access rules.
    NotAuthorized,
    /// The client id is not accepted, or another client uses it.
    ClientId,
    /// It does not speak this version of the protocol.
    ProtocolVersion,
    /// It has no room now.
    Unavailable,
    /// Certificates.
    Tls,
    /// It took the connection and refused a message.
    Message,
    /// Something else.
    Other,
}

/// The publisher at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PublishStatus {
    /// How the connection stands.
    #[serde(flatten)]
    pub link: Link,
    /// Since when.
    pub since: Timestamp,
    /// `mqtt://host:port`.
    pub broker: String,
    /// Connections made since the start.
    pub connections: u64,
    /// Results sent since the start, again-sent ones included.
    pub sent: u64,
    /// Of these, sent again after a fault.
    pub resent: u64,
    /// Results acknowledged and deleted from the outbox.
    pub acknowledged: u64,
    /// Sent without an acknowledgement yet.
    pub in_flight: u64,
    /// Commands received.
    pub commands: u64,
    /// Events waiting for the broker.
    pub outbox_events: u64,
    /// Their bytes on disk.
    pub outbox_bytes: u64,
    /// Age of the oldest, seconds; as of the last second.
    pub outbox_oldest_age_s: f64,
}

/// Who the station is, for its birth message.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The machine's boot, 32 hex digits.
    pub boot_id: String,
    /// The program's version.
    pub version: String,
    /// State of the wall clock.
    pub clock: ClockState,
    /// Model in force.
    pub model: Option<ModelRef>,
    /// Template in force.
    pub template: Option<TemplateRef>,
}

/// Counters of the thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub connections: AtomicU64,
    pub sent: AtomicU64,
    pub resent: AtomicU64,
    pub acknowledged: AtomicU64,
    pub in_flight: AtomicU64,
    pub commands: AtomicU64,
    pub outbox_events: AtomicU64,
    pub outbox_bytes: AtomicU64,
    pub outbox_oldest_ms: AtomicU64,
}

/// A retained topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    State,
    Alarm(AlarmCode),
    Stats,
}

impl Slot {
    /// Where it is published.
    pub(crate) fn topic(self, topics: &Topics) -> String {
        match self {
            Slot::State => topics.state(),
            Slot::Alarm(code) => topics.alarm(code),
            Slot::Stats => topics.stats(),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Retained {
    pub payload: Bytes,
    pub version: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub id: u64,
    pub topic: String,
    pub payload: Bytes,
}

#[derive(Debug)]
struct Waiting {
    request_id: String,
    name: String,
    given: Arc<AtomicBool>,
    until_mono_ns: u64,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    since: Timestamp,
    identity: Identity,
    identity_version: u64,
    retained: BTreeMap<Slot, Retained>,
    responses: VecDeque<Response>,
    waiting: Vec<Waiting>,
    version: u64,
}

/// See the module.
pub(crate) struct Desk {
    pub(crate) station: String,
    pub(crate) topics: Topics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) notify: Notify,
    pub(crate) counters: Counters,
    /// Grows with everything that is to be said; asked without the lock.
    changes: AtomicU64,
    broker: String,
    stop: AtomicBool,
    stop_until_mono_ns: AtomicU64,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("station", &self.station).finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn new(station: String, topics: Topics, broker: String, clock: Arc<dyn Clock>, identity: Identity) -> Self {
        let since = clock.now();
        // What an earlier process left retained is not true any more: every alarm begins cleared.
        let retained = AlarmCode::ALL.map(|code| (Slot::Alarm(code), Retained { payload: Bytes::new(), version: 1 })).into();
        let inner = Inner {
            link: Link::Connecting,
            since,
            identity,
            identity_version: 1,
            retained,
            responses: VecDeque::new(),
            waiting: Vec::new(),
            version: 1,
        };
        Self {
            station,
            topics,
            clock,
            notify: Notify::new(),
            counters: Counters::default(),
            changes: AtomicU64::new(1),
            broker,
            stop: AtomicBool::new(false),
            stop_until_mono_ns: AtomicU64::new(0),
            inner: Mutex::new(inner),
        }
    }

    /// A number that differs once there is something new to say.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// A panic elsewhere leaves the data whole: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> PublishStatus {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        let inner = self.lock();
        PublishStatus {
            link: inner.link.clone(),
            since: inner.since,
            broker: self.broker.clone(),
            connections: get(&c.connections),
            sent: get(&c.sent),
            resent: get(&c.resent),
            acknowledged: get(&c.acknowledged),
            in_flight: get(&c.in_flight),
            commands: get(&c.commands),
            outbox_events: get(&c.outbox_events),
            outbox_bytes: get(&c.outbox_bytes),
            outbox_oldest_age_s: get(&c.outbox_oldest_ms) as f64 / 1e3,
        }
    }

    /// Notes how the connection stands; true when that is news.
    pub(crate) fn set_link(&self, link: Link) -> bool {
        let now = self.clock.now();
        let mut inner = self.lock();
        if inner.link == link {
            return false;
        }
        (inner.link, inner.since) = (link, now);
        true
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        {
            let mut inner = self.lock();
            if inner.identity == identity {
                return;
            }
            inner.identity = identity;
            inner.identity_version += 1;
        }
        self.changed();
    }

    pub(crate) fn set_template(&self, template: TemplateRef) {
        let identity = Identity { template: Some(template), ..self.identity().0 };
        self.set_identity(identity);
    }

    /// The identity and its version.
    pub(crate) fn identity(&self) -> (Identity, u64) {
        let inner = self.lock();
        (inner.identity.clone(), inner.identity_version)
    }

    pub(crate) fn identity_version(&self) -> u64 {
        self.lock().identity_version
    }

    pub(crate) fn set_state(&self, mut state: State) {
        (state.schema, state.station) = (STATE_SCHEMA.to_owned(), self.station.clone());
        self.retain(Slot::State, encode(&state));
    }

    pub(crate) fn set_alarm(&self, code: AlarmCode, alarm: Option<Alarm>) {
        let payload = match alarm {
            None => Bytes::new(),
            Some(mut alarm) => {
                (alarm.schema, alarm.station, alarm.code) = (ALARM_SCHEMA.to_owned(), self.station.clone(), code);
                encode(&alarm)
            }
        };
        self.retain(Slot::Alarm(code), payload);
    }

    pub(crate) fn set_stats(&self, mut stats: Stats) {
        (stats.schema, stats.station) = (STATS_SCHEMA.to_owned(), self.station.clone());
        self.retain(Slot::Stats, encode(&stats));
    }

    fn retain(&self, slot: Slot, payload: Bytes) {
        {
            let mut inner = self.lock();
            if inner.retained.get(&slot).is_some_and(|r| r.payload == payload) {
                return;
            }
            inner.version += 1;
            let version = inner.version;
            inner.retained.insert(slot, Retained { payload, version });
        }
        self.changed();
    }

    /// The retained topics whose version `sent` does not have.
    pub(crate) fn unsent(&self, sent: &BTreeMap<Slot, u64>) -> Vec<(Slot, Retained)> {
        let inner = self.lock();
        inner.retained.iter().filter(|(slot, r)| sent.get(slot) != Some(&r.version)).map(|(s, r)| (*s, r.clone())).collect()
    }

    /// Puts an answer in the queue.
    pub(crate) fn respond(
        &self,
        request_id: Option<&str>,
        command: &str,
        outcome: Outcome,
        reason: Option<Reason>,
        message: Option<String>,
        result: Option<Value>,
    ) {
        let response = CommandResponse {
            schema: RESPONSE_SCHEMA.to_owned(),
            station: self.station.clone(),
            request_id: request_id.map(str::to_owned),
            command: command.chars().take(64).collect(),
            at: self.clock.now(),
            outcome,
            reason,
            message,
            result,
        };
        let payload = encode(&response);
        {
            let mut inner = self.lock();
            inner.version += 1;
            let id = inner.version;
            inner.responses.push_back(Response { id, topic: self.topics.response(request_id), payload });
        }
        self.changed();
    }

    /// The answers after `after`, oldest first, at most `limit`.
    pub(crate) fn responses(&self, after: u64, limit: usize) -> Vec<Response> {
        self.lock().responses.iter().filter(|r| r.id > after).take(limit).cloned().collect()
    }

    /// The broker has this answer.
    pub(crate) fn response_done(&self, id: u64) {
        self.lock().responses.retain(|r| r.id != id);
    }

    pub(crate) fn responses_waiting(&self) -> usize {
        self.lock().responses.len()
    }

    /// Starts the time for an answer.
    pub(crate) fn expect_answer(&self, request_id: &str, name: &str, given: Arc<AtomicBool>, within: Duration) {
        let until_mono_ns = self.clock.mono_ns().saturating_add(u64::try_from(within.as_nanos()).unwrap_or(u64::MAX));
        self.lock().waiting.push(Waiting { request_id: request_id.to_owned(), name: name.to_owned(), given, until_mono_ns });
    }

    /// Answers what nobody answered in time.
    pub(crate) fn time_out_answers(&self) {
        let now = self.clock.mono_ns();
        let late: Vec<Waiting> = {
            let mut inner = self.lock();
            inner.waiting.retain(|w| !w.given.load(Ordering::SeqCst));
            inner.waiting.extract_if(.., |w| w.until_mono_ns <= now).collect()
        };
        for w in late {
            if !w.given.swap(true, Ordering::SeqCst) {
                let message = Some("the station did not answer in time; it may still be carried out".to_owned());
                self.respond(Some(&w.request_id), &w.name, Outcome::Failed, Some(Reason::Timeout), message, None);
            }
        }
    }

    /// Asks the thread to end by then.
    pub(crate) fn stop(&self, within: Duration) {
        let until = self.clock.mono_ns().saturating_add(u64::try_from(within.as_nanos()).unwrap_or(u64::MAX));
        self.stop_until_mono_ns.store(until, Ordering::SeqCst);
        self.stop.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Time left when asked to end.
    pub(crate) fn stopping(&self) -> Option<Duration> {
        if !self.stop.load(Ordering::SeqCst) {
            return None;
        }
        let until = self.stop_until_mono_ns.load(Ordering::SeqCst);
        Some(Duration::from_nanos(until.saturating_sub(self.clock.mono_ns())))
    }
}

/// Our own types always encode; a fault here would be one of this program and is shown as an empty object.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    match serde_json::to_vec(value) {
        Ok(text) => Bytes::from(text),
        Err(e) => {
            log::error!("message does not encode: {e}");
            Bytes::from_static(b"{}")
        }
    }
}
