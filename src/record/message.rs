//! The messages beside the inspection event: status, state, alarm, statistics, commands and their responses.
//!
//! For: one JSON object a message, its schema named in the field `schema` and shipped in `config/schema/`. Topics are in
//! `publish::topics`. Units are in the names; times are RFC 3339 UTC. Only additive changes within a major version.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::record::event::{ClockState, ModelRef, TemplateRef};

/// Schema of [`Status`].
pub const STATUS_SCHEMA: &str = "ssds.status/1";
/// Schema of [`State`].
pub const STATE_SCHEMA: &str = "ssds.state/1";
/// Schema of [`Alarm`].
pub const ALARM_SCHEMA: &str = "ssds.alarm/1";
/// Schema of [`Stats`].
pub const STATS_SCHEMA: &str = "ssds.stats/1";
/// Schema of [`CommandRequest`].
pub const COMMAND_SCHEMA: &str = "ssds.command/1";
/// Schema of [`CommandResponse`].
pub const RESPONSE_SCHEMA: &str = "ssds.response/1";

/// Whether the station is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Connected (birth).
    Online,
    /// Ended in order.
    Stopped,
    /// Gone without a word (the broker publishes the last will).
    Offline,
}

/// `status`: birth, stop and last will; QoS 1, retained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Always [`STATUS_SCHEMA`].
    pub schema: String,
    /// Station name.
    pub station: String,
    /// Online, stopped or offline.
    pub status: Presence,
    /// The machine's boot, 32 hex digits.
    pub boot_id: String,
    /// When it was connected (online, offline) or stopped.
    pub at: Timestamp,
    /// State of the wall clock at that time.
    pub clock: ClockState,
    /// The program's version.
    pub version: String,
    /// Model in force.
    pub model: Option<ModelRef>,
    /// Template in force.
    pub template: Option<TemplateRef>,
    /// The last number given when the message was made; absent from the last will, which is made before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
    /// Events not yet acknowledged when the message was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbox_events: Option<u64>,
}

/// States of the OPC 40100-1 vision state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisionState {
    /// Started, not able to inspect yet.
    Preoperational,
    /// Model and camera are there, no recipe is active.
    Initialized,
    /// Waiting for a trigger.
    Ready,
    /// One triggered inspection under way.
    SingleExecution,
    /// Inspecting by itself.
    ContinuousExecution,
    /// A fault keeps it from inspecting.
    Error,
    /// Ended.
    Halted,
}

/// Who starts an inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The camera's rhythm.
    FreeRun,
    /// A trigger.
    Triggered,
    /// Nobody: paused by a command.
    Paused,
}

/// The recipe in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRecipe {
    /// Product.
    pub product: String,
    /// Template.
    pub template: TemplateRef,
}

/// `state`: what the station does; QoS 1, retained, on change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Always [`STATE_SCHEMA`].
    pub schema: String,
    /// Station name.
    pub station: String,
    /// OPC 40100-1 state.
    pub state: VisionState,
    /// Mode.
    pub mode: Mode,
    /// Recipe in force.
    pub recipe: Option<ActiveRecipe>,
    /// The network in force: file, provider, precision, library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// Since when.
    pub since: Timestamp,
    /// Why, for a person; in the state error always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What is wrong, by code; the topic's last level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmCode {
    /// The camera gives no frames.
    CameraLost,
    /// The camera gives the same picture again and again.
    CameraFrozen,
    /// The light has changed.
    LightDrift,
    /// The focus has changed.
    FocusDrift,
    /// The parts lie elsewhere than before.
    PoseDrift,
    /// The template no longer fits.
    TemplateStale,
    /// The outbox is past its alarm level or at its cap.
    SpoolHigh,
    /// Events were lost to a damaged spool file.
    SpoolDamaged,
    /// Little disk space.
    DiskLow,
    /// Inference runs on another provider than the first choice.
    EngineFallback,
    /// The detector in force and the one beside it disagree too often.
    DetectorDisagreement,
}

impl AlarmCode {
    /// All codes.
    pub const ALL: [AlarmCode; 11] = [
        AlarmCode::CameraLost,
        AlarmCode::CameraFrozen,
        AlarmCode::LightDrift,
        AlarmCode::FocusDrift,
        AlarmCode::PoseDrift,
        AlarmCode::TemplateStale,
        AlarmCode::SpoolHigh,
        AlarmCode::SpoolDamaged,
        AlarmCode::DiskLow,
        AlarmCode::EngineFallback,
        AlarmCode::DetectorDisagreement,
    ];

    /// The topic's last level.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            AlarmCode::CameraLost => "camera_lost",
            AlarmCode::CameraFrozen => "camera_frozen",
            AlarmCode::LightDrift => "light_drift",
            AlarmCode::FocusDrift => "focus_drift",
            AlarmCode::PoseDrift => "pose_drift",
            AlarmCode::TemplateStale => "template_stale",
            AlarmCode::SpoolHigh => "spool_high",
            AlarmCode::SpoolDamaged => "spool_damaged",
            AlarmCode::DiskLow => "disk_low",
            AlarmCode::EngineFallback => "engine_fallback",
            AlarmCode::DetectorDisagreement => "detector_disagreement",
        }
    }
}

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Inspection goes on as before.
    Warning,
    /// A person must act.
    Error,
}

/// `alarm/{code}`: stands while retained, an empty payload clears it; QoS 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Always [`ALARM_SCHEMA`].
    pub schema: String,
    /// Station name.
    pub station: String,
    /// Code.
    pub code: AlarmCode,
    /// How bad.
    pub severity: Severity,
    /// Since when.
    pub since: Timestamp,
    /// For a person.
    pub message: String,
    /// The figure that raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The figure's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
}

/// Time between parts, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Takt {
    /// The last.
    pub last: f64,
    /// The longest of the period.
    pub worst: f64,
}

/// Time from trigger to decision, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Processing {
    /// Shortest of the period.
    pub min: f64,
    /// Mean of the period.
    pub mean: f64,
    /// Longest of the period.
    pub max: f64,
    /// 99th percentile of the period.
    pub p99: f64,
}

/// `stats`: counts since the start and times of the last period; QoS 0, retained, every 10 s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Always [`STATS_SCHEMA`].
    pub schema: String,
    /// Station name.
    pub station: String,
    /// When it was made.
    pub at: Timestamp,
    /// The machine's boot, 32 hex digits.
    pub boot_id: String,
    /// Length of the period, seconds.
    pub period_s: f64,
    /// Triggers since the start.
    pub triggers: u64,
    /// OK since the start.
    pub ok: u64,
    /// NG since the start.
    pub ng: u64,
    /// ERROR since the start.
    pub error: u64,
    /// Triggers that came while busy, since the start.
    pub overruns: u64,
    /// Time between parts; null before the second part.
    pub takt_ms: Option<Takt>,
    /// Processing time; null without a part in the period.
    pub processing_ms: Option<Processing>,
    /// Events not yet acknowledged.
    pub outbox_events: u64,
    /// Age of the oldest of them, seconds.
    pub outbox_oldest_age_s: f64,
}

/// `cmd/{trigger,recipe,pause,resume,selftest}`: a request; QoS 1, not retained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// [`COMMAND_SCHEMA`]; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The requester's key: 1 to 64 of `A-Z a-z 0-9 _ -`; the response's topic ends with it. Never used twice.
    pub request_id: String,
    /// When it was asked.
    pub issued_at: Timestamp,
    /// How long it may wait, milliseconds.
    pub ttl_ms: u64,
    /// By command.
    #[serde(default)]
    pub args: serde_json::Map<String, serde_json::Value>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Carried out.
    Done,
    /// Not begun: see the reason.
    Refused,
    /// Begun, not finished.
    Failed,
}

/// Why a command was refused or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was retained: it may be of any age, and comes again with every connection.
    Retained,
    /// Older than its `ttl_ms`, or that is longer than the station allows.
    Stale,
    /// Issued in the future by the station's clock.
    IssuedInFuture,
    /// The request id was used before.
    Replayed,
    /// Longer than the station allows; it was not read.
    Oversized,
    /// No such command.
    Unknown,
    /// Not JSON of `ssds.command/1`.
    Malformed,
    /// The arguments do not fit the command.
    BadArguments,
    /// Too many commands wait.
    Busy,
    /// The station's state does not allow it.
    NotNow,
    /// Nothing answered in time.
    Timeout,
    /// A fault of the program.
    Internal,
}

/// `rsp/{request_id}`: the one answer to a command; QoS 1, not retained. Requests without a readable id are answered on `rsp/invalid`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandResponse {
    /// Always [`RESPONSE_SCHEMA`].
    pub schema: String,
    /// Station name.
    pub station: String,
    /// Of the request; null when it could not be read.
    pub request_id: Option<String>,
    /// The command topic's last level.
    pub command: String,
    /// When it was answered.
    pub at: Timestamp,
    /// Done, refused or failed.
    pub outcome: Outcome,
    /// Absent when done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// For a person; absent when done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What was done, by command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_code_is_written_as_its_topic() {
        for code in AlarmCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.topic());
        }
    }

    #[test]
    fn a_command_with_unknown_fields_does_not_decode() {
        let good = r#"{"request_id":"a","issued_at":"2026-01-01T00:00:00Z","ttl_ms":500}"#;
        assert!(serde_json::from_str::<CommandRequest>(good).unwrap().args.is_empty());
        let bad = r#"{"request_id":"a","issued_at":"2026-01-01T00:00:00Z","ttl_ms":500,"arg":{}}"#;
        assert!(serde_json::from_str::<CommandRequest>(bad).unwrap_err().to_string().starts_with("unknown field `arg`"));
    }
}
