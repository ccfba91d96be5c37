//! Commands: checked before anything is done, answered once.
//!
//! For: `cmd/{trigger,recipe,pause,resume,selftest}` in, one `rsp/{request_id}` out a message. Inputs: topic, retained flag and payload
//! as the broker delivered them, the station's wall clock, the request ids already seen (kept in the spool, over restarts). Outputs:
//! [`Command`]s for the pipeline, or a refusal with its reason.
//!
//! Invariants: the size is checked before the payload is parsed; a command is carried out at most once (its id is noted on disk before it
//! is handed over); whoever holds a [`Command`] answers by consuming it, dropping it answers `failed`, and the first answer stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

use super::desk::Desk;
use super::settings::CommandSettings;
use super::topics::CommandKind;
use crate::clock::Timestamp;
use crate::record::message::{COMMAND_SCHEMA, CommandRequest, Outcome, Reason};

/// A request that passed every check; answer it.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub kind: CommandKind,
    /// Its arguments.
    pub args: Map<String, Value>,
    /// The requester's key.
    pub request_id: String,
    answer: Answer,
}

impl Command {
    pub(crate) fn new(kind: CommandKind, request: CommandRequest, answer: Answer) -> Self {
        Self { kind, args: request.args, request_id: request.request_id, answer }
    }

    /// Carried out; `result` says what came of it.
    pub fn done(self, result: Value) {
        self.answer.give(Outcome::Done, None, None, Some(result));
    }

    /// Not begun.
    pub fn refuse(self, reason: Reason, message: impl Into<String>) {
        self.answer.give(Outcome::Refused, Some(reason), Some(message.into()), None);
    }

    /// Begun, not finished.
    pub fn fail(self, message: impl Into<String>) {
        self.answer.give(Outcome::Failed, Some(Reason::Internal), Some(message.into()), None);
    }
}

/// The duty to answer one request.
#[derive(Debug)]
pub(crate) struct Answer {
    desk: Arc<Desk>,
    name: String,
    request_id: String,
    given: Arc<AtomicBool>,
}

impl Answer {
    pub(crate) fn new(desk: Arc<Desk>, name: &str, request_id: &str) -> Self {
        Self { desk, name: name.to_owned(), request_id: request_id.to_owned(), given: Arc::new(AtomicBool::new(false)) }
    }

    /// For the time-out: set when an answer was given.
    pub(crate) fn given(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.given)
    }

    fn give(&self, outcome: Outcome, reason: Option<Reason>, message: Option<String>, result: Option<Value>) {
        if !self.given.swap(true, Ordering::SeqCst) {
            self.desk.respond(Some(&self.request_id), &self.name, outcome, reason, message, result);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give(Outcome::Failed, Some(Reason::Internal), Some("the station dropped the command".to_owned()), None);
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub request_id: Option<String>,
    pub reason: Reason,
    pub message: String,
}

/// Checks everything that needs no memory of earlier requests. `name`: what follows `cmd/` in the topic.
pub(crate) fn check(
    settings: &CommandSettings,
    name: &str,
    retained: bool,
    payload: &[u8],
    now: Timestamp,
) -> Result<(CommandKind, CommandRequest), Refusal> {
    if payload.len() > settings.max_bytes {
        return Err(oversized(settings, payload.len()));
    }
    let request: CommandRequest = serde_json::from_slice(payload)
        .map_err(|e| refuse(request_id_of(payload), Reason::Malformed, format!("not a request of {COMMAND_SCHEMA}: {e}")))?;
    let id = request.request_id.clone();
    if !is_request_id(&id) {
        return Err(refuse(None, Reason::Malformed, "request_id must be 1 to 64 of A-Z, a-z, 0-9, `_`, `-`"));
    }
    let no = |reason, message: String| Err(refuse(Some(id.clone()), reason, message));
    if request.schema.as_deref().is_some_and(|s| s != COMMAND_SCHEMA) {
        return no(Reason::Malformed, format!("schema must be {COMMAND_SCHEMA}"));
    }
    if retained {
        return no(Reason::Retained, "a command must not be retained".to_owned());
    }
    let Some(kind) = CommandKind::ALL.into_iter().find(|k| k.name() == name) else {
        return no(Reason::Unknown, format!("no command `{name}`; there are trigger, recipe, pause, resume, selftest"));
    };
    let max_ttl_ms = settings.max_ttl.as_millis();
    if u128::from(request.ttl_ms) > max_ttl_ms {
        return no(Reason::Stale, format!("ttl_ms must be at most {max_ttl_ms}, got {}", request.ttl_ms));
    }
    let age_ms = now.as_millisecond().saturating_sub(request.issued_at.as_millisecond());
    if i128::from(age_ms) > i128::from(request.ttl_ms) {
        return no(
            Reason::Stale,
            format!("issued {age_ms} ms ago by this station's clock ({now}), more than its ttl_ms of {}", request.ttl_ms),
        );
    }
    if i128::from(-age_ms) > settings.max_clock_skew.as_millis() as i128 {
        return no(Reason::IssuedInFuture, format!("issued {} ms in the future by this station's clock ({now})", -age_ms));
    }
    Ok((kind, request))
}

/// The refusal of a request that was not read.
pub(crate) fn oversized(settings: &CommandSettings, bytes: usize) -> Refusal {
    refuse(None, Reason::Oversized, format!("a request may have {} bytes, got {bytes}", settings.max_bytes))
}

fn refuse(request_id: Option<String>, reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal { request_id, reason, message: message.into() }
}

fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The id of a request that does not decode as a whole, so that its sender hears of it.
fn request_id_of(payload: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    value.get("request_id")?.as_str().filter(|id| is_request_id(id)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().unwrap()
    }

    fn reason(name: &str, retained: bool, payload: &str) -> (Option<String>, Reason, String) {
        let r = check(&CommandSettings::default(), name, retained, payload.as_bytes(), now()).unwrap_err();
        (r.request_id, r.reason, r.message)
    }

    #[test]
    fn a_fresh_command_passes() {
        let payload = r#"{"request_id":"r-1","issued_at":"2026-11-23T09:59:59.5Z","ttl_ms":1000,"args":{"part_id":"SN1"}}"#;
        let (kind, request) = check(&CommandSettings::default(), "trigger", false, payload.as_bytes(), now()).unwrap();
        assert_eq!(
            (kind, request.request_id.as_str(), request.args["part_id"].as_str()),
            (CommandKind::Trigger, "r-1", Some("SN1"))
        );
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let fresh = r#"{"request_id":"r","issued_at":"2026-11-23T10:00:00Z","ttl_ms":1000}"#;
        let id = Some("r".to_owned());
        assert_eq!(reason("trigger", true, fresh), (id.clone(), Reason::Retained, "a command must not be retained".into()));
        assert_eq!(
            reason("shutdown", false, fresh),
            (id.clone(), Reason::Unknown, "no command `shutdown`; there are trigger, recipe, pause, resume, selftest".into())
        );
        let old = fresh.replace("10:00:00", "09:59:58");
        assert_eq!(
            reason("pause", false, &old),
            (
                id.clone(),
                Reason::Stale,
                "issued 2000 ms ago by this station's clock (2026-11-23T10:00:00Z), more than its ttl_ms of 1000".into()
            )
        );
        assert_eq!(
            reason("pause", false, &fresh.replace("1000}", "60001}")),
            (id.clone(), Reason::Stale, "ttl_ms must be at most 60000, got 60001".into())
        );
        assert_eq!(
            reason("pause", false, &fresh.replace("10:00:00", "10:00:06")),
            (
                id.clone(),
                Reason::IssuedInFuture,
                "issued 6000 ms in the future by this station's clock (2026-11-23T10:00:00Z)".into()
            )
        );
        assert_eq!(
            reason("pause", false, &"x".repeat(4097)),
            (None, Reason::Oversized, "a request may have 4096 bytes, got 4097".into())
        );
        let (none, malformed, message) = reason("pause", false, "{");
        assert_eq!((none, malformed), (None, Reason::Malformed));
        assert!(message.starts_with("not a request of ssds.command/1: EOF"), "{message}");
        assert_eq!(reason("pause", false, &fresh.replace("ttl_ms", "ttl")).0, id);
        assert_eq!(
            reason("pause", false, &fresh.replace("\"r\"", "\"a/b\"")),
            (None, Reason::Malformed, "request_id must be 1 to 64 of A-Z, a-z, 0-9, `_`, `-`".into())
        );
        let other = fresh.replace("{\"request", "{\"schema\":\"x/1\",\"request");
        assert_eq!(reason("pause", false, &other), (id, Reason::Malformed, "schema must be ssds.command/1".into()));
    }
}
