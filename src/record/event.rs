//! The inspection event: what one inspected part becomes on disk and on the wire.
//!
//! For: one self-contained JSON object a part, schema `ssds.inspection/1` (`config/schema/inspection.v1.schema.json`), kept in the
//! spool and published on `result/{ok,ng,error}`. Inputs: the pipeline's figures (pixels, degrees, milliseconds, scores 0..1).
//!
//! Invariants: `replayed` is the last field of the written form, so that [`mark_replayed`] can set it without decoding; numbers are
//! finite, lists and texts within the schema's limits and the whole within [`MAX_PAYLOAD_BYTES`] once [`InspectionEvent::normalise`]
//! has run (the store does that before it writes). Only additive changes within a major version: readers ignore unknown fields.
//!
//! Names follow OPC 40100-1 (VDMA 40100): `event_id` = ResultId, `part_id`, `job_id`, template id + version = InternalRecipeId,
//! `simulated` = IsSimulated, `captured_at` = CreationTime.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};

/// Schema name and major version of [`InspectionEvent`].
pub const INSPECTION_SCHEMA: &str = "ssds.inspection/1";
/// Most defects listed in one event; `defects_total` counts them all.
pub const MAX_DEFECTS: usize = 64;
/// Largest payload of any message, bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// Longest error message, characters.
pub const MAX_ERROR_CHARS: usize = 256;

/// What was decided about the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// No defect.
    Ok,
    /// At least one defect.
    Ng,
    /// Not inspected: see [`InspectionEvent::error`].
    Error,
}

impl Verdict {
    /// The topic's last level: `ok`, `ng` or `error`.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Ng => "ng",
            Verdict::Error => "error",
        }
    }

    /// The stored code: 0 OK, 1 NG, 2 ERROR.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Ng => 1,
            Verdict::Error => 2,
        }
    }

    /// The reverse of [`Verdict::code`].
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Verdict::Ok),
            1 => Some(Verdict::Ng),
            2 => Some(Verdict::Error),
            _ => None,
        }
    }
}

/// How the evaluation ended (OPC 40100-1 ResultState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultState {
    /// Evaluated to the end.
    Completed,
    /// Given up on request.
    Aborted,
    /// Could not be evaluated.
    Failed,
}

/// Whether the wall clock is disciplined by a time source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockState {
    /// A time source holds it.
    Synced,
    /// It runs free.
    Unsynced,
    /// The system does not say.
    Unknown,
}

/// What started the inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The camera's own rhythm.
    FreeRun,
    /// A call inside the daemon.
    Software,
    /// `cmd/trigger` over MQTT.
    Mqtt,
    /// The HTTP interface.
    Http,
    /// A digital input.
    Gpio,
    /// A recorded frame.
    Replay,
    /// The self-test.
    Selftest,
}

/// Why a part could not be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The frame could not be registered to the template.
    AlignFail,
    /// The template no longer fits what the camera sees.
    TemplateStale,
    /// Too dark.
    ImageDark,
    /// Too bright.
    ImageBright,
    /// Out of focus or moved.
    ImageBlur,
    /// No frame from the camera.
    CameraLost,
    /// The frame was too old.
    FrameStale,
    /// The inference failed.
    InferFail,
    /// The inference gave numbers that are not finite.
    InferNan,
    /// A trigger came while the station was busy.
    Overrun,
    /// No template for the product.
    NoTemplate,
    /// The picture of the part cannot be read or decoded.
    FrameInvalid,
    /// A trigger brought no frame in time.
    CameraTimeout,
    /// A fault of the program.
    Internal,
}

/// An error code with a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventError {
    /// Code.
    pub code: ErrorCode,
    /// At most [`MAX_ERROR_CHARS`] characters.
    pub message: String,
}

/// Which template the part was compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRef {
    /// `product/view`.
    pub id: String,
    /// From 1.
    pub version: u32,
    /// SHA-256 of the picture, 64 hex digits.
    pub sha256: String,
}

impl TemplateRef {
    /// The value of an event that had no template: empty id, version 1 and a hash of zeros.
    #[must_use]
    pub fn none() -> Self {
        Self { id: String::new(), version: 1, sha256: "0".repeat(64) }
    }
}

/// Where the network ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// NVIDIA TensorRT.
    Tensorrt,
    /// NVIDIA CUDA.
    Cuda,
    /// The processor.
    Cpu,
}

/// Arithmetic of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// 16-bit floating point.
    Fp16,
    /// 8-bit integers.
    Int8,
}

/// Which model judged the part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Name.
    pub name: String,
    /// Version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// SHA-256 of the ONNX file, 64 hex digits.
    pub sha256: String,
    /// Where it ran.
    pub provider: Provider,
    /// Its arithmetic.
    pub precision: Precision,
    /// Version of ONNX Runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_version: Option<String>,
}

/// Registration of the frame to the template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlignFigures {
    /// Accepted.
    pub ok: bool,
    /// Rotation, degrees.
    pub rotation_deg: f64,
    /// Scale, above 0.
    pub scale: f64,
    /// Translation along x, pixels.
    pub dx_px: f64,
    /// Translation along y, pixels.
    pub dy_px: f64,
    /// Peak-to-sidelobe ratio of the final phase correlation.
    pub psr: f64,
    /// Normalised cross-correlation after the warp, -1..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ncc: Option<f64>,
    /// Share of the template inside the frame, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<f64>,
}

/// Figures of the picture itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageFigures {
    /// Mean gray value, 0..255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Share of saturated pixels, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturated_frac: Option<f64>,
    /// Focus measure (variance of the Laplacian).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub focus: Option<f64>,
    /// Noise, standard deviation in gray values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// Distance of the running average of light or focus, whichever is larger, from the template's first parts, in their spreads; none before there are
    /// enough of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_z: Option<f64>,
}

/// How the verdict came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionFigures {
    /// Score from which a pixel is a defect, 0..1.
    pub threshold: f64,
    /// Smallest blob that counts, pixels.
    pub min_area_px: u32,
    /// Highest score of the map, 0..1.
    pub max_score: f64,
    /// Area of all defects, pixels.
    pub ng_area_px: u32,
    /// The same, square millimetres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ng_area_mm2: Option<f64>,
    /// Distance of the highest score from the threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

/// Whether a defect adds to the template or lacks from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// Something more than the template shows.
    Added,
    /// Something the template shows is not there.
    Missing,
    /// Both.
    Mixed,
}

/// One defect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Defect {
    /// From 1 within the event.
    pub id: u32,
    /// x, y, width, height in frame pixels.
    pub bbox_px: [i32; 4],
    /// x, y in frame pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centroid_px: Option<[f64; 2]>,
    /// x, y in millimetres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centroid_mm: Option<[f64; 2]>,
    /// Pixels.
    pub area_px: u32,
    /// Highest score, 0..1.
    pub score_max: f64,
    /// Mean score, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_mean: Option<f64>,
    /// Added, missing or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<Sign>,
    /// Zone of the recipe it lies in; empty outside all.
    pub zone: String,
}

/// Where the pictures of this part are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Path below the station's HTTP address.
    pub uri: String,
    /// SHA-256 of the frame's file, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_sha256: Option<String>,
    /// Size of the frame's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Milliseconds per stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TimingMs {
    /// Waiting in queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<f64>,
    /// Capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<f64>,
    /// Registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub align: Option<f64>,
    /// Inference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer: Option<f64>,
    /// Decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decide: Option<f64>,
    /// Commit to the spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<f64>,
    /// From the trigger to the decision.
    pub total: f64,
}

/// One inspected part, schema `ssds.inspection/1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InspectionEvent {
    /// Always [`INSPECTION_SCHEMA`].
    pub schema: Cow<'static, str>,
    /// UUID version 7; the key for removing duplicates.
    pub event_id: String,
    /// Station name.
    pub station: String,
    /// The machine's boot, 32 hex digits.
    pub boot_id: String,
    /// Gap-free number within the station, from 1; 0 until the store has given it.
    pub seq: u64,
    /// When the frame was taken, UTC.
    pub captured_at: Timestamp,
    /// The same on the monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captured_mono_ns: Option<u64>,
    /// State of the wall clock at that time.
    pub clock: ClockState,
    /// The order the part belongs to.
    pub job_id: Option<String>,
    /// Serial number of the part.
    pub part_id: Option<String>,
    /// What started the inspection.
    pub trigger: Trigger,
    /// OK, NG or ERROR.
    pub verdict: Verdict,
    /// How the evaluation ended.
    pub result_state: ResultState,
    /// Present with verdict ERROR.
    pub error: Option<EventError>,
    /// Product.
    pub product: String,
    /// Template.
    pub template: TemplateRef,
    /// Model.
    pub model: ModelRef,
    /// SHA-256 of the settings in force, 64 hex digits.
    pub config_sha256: String,
    /// Registration.
    pub align: AlignFigures,
    /// Picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageFigures>,
    /// Decision.
    pub decision: DecisionFigures,
    /// Defects found.
    pub defects_total: u32,
    /// The first [`MAX_DEFECTS`] of them.
    pub defects: Vec<Defect>,
    /// Pictures kept, if any.
    pub evidence: Option<Evidence>,
    /// Milliseconds per stage.
    pub timing_ms: TimingMs,
    /// True when no real part was inspected.
    pub simulated: bool,
    /// When the event was committed to disk; the store sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spooled_at: Option<Timestamp>,
    /// Sent later than twice the publish time-out: no actuator may act on it (Sparkplug is_historical). Stays the last field.
    pub replayed: bool,
}

impl InspectionEvent {
    /// Brings the event within the schema's limits, so that a result can always be written: lists and texts are cut (`defects_total`
    /// keeps the count), a number that is not finite becomes 0 (a scale 1), an over-long list shrinks until the whole fits
    /// [`MAX_PAYLOAD_BYTES`]. Returns what was changed, empty when nothing was.
    pub fn normalise(&mut self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        let mut note = |what: &'static str, hit: bool| {
            if hit && !changed.contains(&what) {
                changed.push(what);
            }
        };
        if let Some(error) = &mut self.error {
            note("error.message", truncate_chars(&mut error.message, MAX_ERROR_CHARS));
        }
        if let Some(job) = &mut self.job_id {
            note("job_id", truncate_chars(job, 64));
        }
        if let Some(part) = &mut self.part_id {
            note("part_id", truncate_chars(part, 128));
        }
        let found = u32::try_from(self.defects.len()).unwrap_or(u32::MAX);
        if self.defects_total < found {
            self.defects_total = found;
            note("defects_total", true);
        }
        if self.defects.len() > MAX_DEFECTS {
            self.defects.truncate(MAX_DEFECTS);
        }
        note("align", self.align.make_finite());
        note("decision", make_finite_all(&mut [&mut self.decision.threshold, &mut self.decision.max_score]));
        note("decision", make_finite_opt(&mut [&mut self.decision.ng_area_mm2, &mut self.decision.margin]));
        if let Some(image) = &mut self.image {
            let ImageFigures { mean, saturated_frac, focus, noise, drift_z } = image;
            note("image", make_finite_opt(&mut [mean, saturated_frac, focus, noise, drift_z]));
        }
        let TimingMs { queue, capture, align, infer, decide, spool, total } = &mut self.timing_ms;
        note("timing_ms", make_finite_all(&mut [total]));
        note("timing_ms", make_finite_opt(&mut [queue, capture, align, infer, decide, spool]));
        for defect in &mut self.defects {
            note("defects", make_finite_all(&mut [&mut defect.score_max]));
            note("defects", make_finite_opt(&mut [&mut defect.score_mean]));
            for centroid in [&mut defect.centroid_px, &mut defect.centroid_mm].into_iter().flatten() {
                let [x, y] = centroid;
                note("defects", make_finite_all(&mut [x, y]));
            }
        }
        changed
    }

    /// The written form, at most [`MAX_PAYLOAD_BYTES`] long: further defects are left out until it fits.
    ///
    /// # Errors
    /// [`Kind::Data`](crate::Kind) when the event is too long even without a listed defect.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let body = encode(self)?;
        if body.len() <= MAX_PAYLOAD_BYTES {
            return Ok(body);
        }
        let mut shorter = self.clone();
        while !shorter.defects.is_empty() {
            shorter.defects.truncate(shorter.defects.len() / 2);
            let body = encode(&shorter)?;
            if body.len() <= MAX_PAYLOAD_BYTES {
                return Ok(body);
            }
        }
        Err(Error::data(format!(
            "event {}: {} bytes without any defect listed, wanted at most {MAX_PAYLOAD_BYTES}",
            self.event_id,
            encode(&shorter)?.len()
        )))
    }

    /// A complete NG result, the example of `config/mqtt.md`, for benchmarks and tests.
    ///
    /// # Panics
    /// Never: a test reads the text.
    #[must_use]
    pub fn example() -> Self {
        let text = include_bytes!("../../config/schema/examples/inspection.json");
        Self::from_json(text).expect("the example that is compiled in decodes, as a test shows")
    }

    /// Reads the written form.
    ///
    /// # Errors
    /// [`Kind::Data`](crate::Kind) when it is no JSON of this schema.
    pub fn from_json(body: &[u8]) -> Result<Self> {
        let event: Self =
            serde_json::from_slice(body).map_err(|e| Error::data("inspection event does not decode").with_source(e))?;
        if event.schema != INSPECTION_SCHEMA {
            return Err(Error::data(format!("event schema must be {INSPECTION_SCHEMA}, got {}", event.schema)));
        }
        Ok(event)
    }
}

impl AlignFigures {
    fn make_finite(&mut self) -> bool {
        let bad_scale = !(self.scale.is_finite() && self.scale > 0.0);
        if bad_scale {
            self.scale = 1.0;
        }
        let figures = make_finite_all(&mut [&mut self.rotation_deg, &mut self.dx_px, &mut self.dy_px, &mut self.psr]);
        let optional = make_finite_opt(&mut [&mut self.ncc, &mut self.overlap]);
        let overlap = match &mut self.overlap {
            Some(v) if !(0.0..=1.0).contains(v) => {
                *v = v.clamp(0.0, 1.0);
                true
            }
            _ => false,
        };
        bad_scale || figures || optional || overlap
    }
}

fn encode(event: &InspectionEvent) -> Result<Vec<u8>> {
    serde_json::to_vec(event).map_err(|e| Error::internal(format!("event {} does not encode", event.event_id)).with_source(e))
}

fn make_finite_all(values: &mut [&mut f64]) -> bool {
    let mut changed = false;
    for value in values {
        if !value.is_finite() {
            **value = 0.0;
            changed = true;
        }
    }
    changed
}

fn make_finite_opt(values: &mut [&mut Option<f64>]) -> bool {
    let mut changed = false;
    for value in values {
        if value.is_some_and(|v| !v.is_finite()) {
            **value = None;
            changed = true;
        }
    }
    changed
}

fn truncate_chars(text: &mut String, limit: usize) -> bool {
    match text.char_indices().nth(limit) {
        Some((at, _)) => {
            text.truncate(at);
            true
        }
        None => false,
    }
}

/// A single-precision figure for the wire: four decimals, without the digits that the widening to `f64` would invent.
#[must_use]
pub fn round4(value: f32) -> f64 {
    (f64::from(value) * 1e4).round() / 1e4
}

/// The written form with `replayed` set. The field is the last one, so this exchanges the end of the text; a body that ends otherwise
/// (written by another version) is decoded and encoded as JSON.
///
/// # Errors
/// [`Kind::Data`](crate::Kind) when the body is neither.
pub fn mark_replayed(body: &[u8]) -> Result<Vec<u8>> {
    const NOT_LATE: &[u8] = b"\"replayed\":false}";
    const LATE: &[u8] = b"\"replayed\":true}";
    if let Some(head) = body.strip_suffix(NOT_LATE) {
        return Ok([head, LATE].concat());
    }
    if body.ends_with(LATE) {
        return Ok(body.to_vec());
    }
    let mut value: serde_json::Value =
        serde_json::from_slice(body).map_err(|e| Error::data("stored event does not decode").with_source(e))?;
    value["replayed"] = serde_json::Value::Bool(true);
    serde_json::to_vec(&value).map_err(|e| Error::internal("stored event does not encode").with_source(e))
}

/// A new event id: UUID version 7 of the clock's time (RFC 9562), lower-case hyphenated.
#[must_use]
pub fn new_event_id(clock: &dyn Clock) -> String {
    let now = clock.now();
    // Times before 1970 have no UUIDv7; such a clock is unset, and the random part still keeps ids apart.
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos)).hyphenated().to_string()
}

/// The machine's boot as 32 hex digits (Linux `boot_id`); CLOCK_MONOTONIC values compare within one boot only.
///
/// # Errors
/// An I/O error when the kernel does not say.
pub fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(PATH).map_err(|e| Error::io(format!("reading {PATH}"), e))?;
    Ok(text.trim().replace('-', "").to_ascii_lowercase())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::SimulatedClock;

    /// A complete NG event.
    pub(crate) fn sample() -> InspectionEvent {
        InspectionEvent {
            schema: INSPECTION_SCHEMA.into(),
            event_id: "0193a6d2-7c11-7b3e-9f10-3d5b6c1e8a42".into(),
            station: "aoi1".into(),
            boot_id: "9c1f0b6a7e2d4c55a1b2c3d4e5f60718".into(),
            seq: 0,
            captured_at: "2026-11-23T02:48:46.123456Z".parse().unwrap(),
            captured_mono_ns: Some(912_345_678_901),
            clock: ClockState::Synced,
            job_id: Some("WO-77120".into()),
            part_id: Some("SN00012345".into()),
            trigger: Trigger::Software,
            verdict: Verdict::Ng,
            result_state: ResultState::Completed,
            error: None,
            product: "pcb-a17".into(),
            template: TemplateRef { id: "pcb-a17/top".into(), version: 3, sha256: "a".repeat(64) },
            model: ModelRef {
                name: "ssds-256".into(),
                version: Some("1.2.0".into()),
                sha256: "b".repeat(64),
                provider: Provider::Tensorrt,
                precision: Precision::Fp16,
                runtime_version: Some("1.31.1".into()),
            },
            config_sha256: "c".repeat(64),
            align: AlignFigures {
                ok: true,
                rotation_deg: 1.72,
                scale: 1.003,
                dx_px: -4.25,
                dy_px: 2.5,
                psr: 14.8,
                ncc: Some(0.962),
                overlap: Some(0.98),
            },
            image: Some(ImageFigures {
                mean: Some(118.2),
                saturated_frac: Some(0.0004),
                focus: Some(231.5),
                noise: None,
                drift_z: Some(0.4),
            }),
            decision: DecisionFigures {
                threshold: 0.5,
                min_area_px: 6,
                max_score: 0.97,
                ng_area_px: 88,
                ng_area_mm2: None,
                margin: Some(0.47),
            },
            defects_total: 1,
            defects: vec![Defect {
                id: 1,
                bbox_px: [201, 77, 14, 9],
                centroid_px: Some([207.4, 81.2]),
                centroid_mm: None,
                area_px: 88,
                score_max: 0.97,
                score_mean: Some(0.81),
                sign: Some(Sign::Added),
                zone: "solder".into(),
            }],
            evidence: Some(Evidence {
                uri: "/api/v1/inspections/0193a6d2-7c11-7b3e-9f10-3d5b6c1e8a42".into(),
                frame_sha256: Some("d".repeat(64)),
                bytes: Some(412_331),
            }),
            timing_ms: TimingMs {
                queue: Some(0.1),
                capture: Some(2.1),
                align: Some(6.0),
                infer: Some(7.2),
                decide: Some(0.6),
                spool: Some(0.8),
                total: 16.8,
            },
            simulated: false,
            spooled_at: None,
            replayed: false,
        }
    }

    #[test]
    fn the_example_is_the_documented_one() {
        assert_eq!(InspectionEvent { seq: 0, ..InspectionEvent::example() }, sample());
    }

    #[test]
    fn the_written_form_reads_back() {
        let event = sample();
        let body = event.to_json().unwrap();
        assert!(body.ends_with(b"\"replayed\":false}"), "{}", String::from_utf8_lossy(&body));
        assert_eq!(InspectionEvent::from_json(&body).unwrap(), event);
    }

    #[test]
    fn replayed_is_set_in_the_text_and_in_foreign_field_order() {
        let body = sample().to_json().unwrap();
        let late = InspectionEvent::from_json(&mark_replayed(&body).unwrap()).unwrap();
        assert_eq!(late, InspectionEvent { replayed: true, ..sample() });
        assert_eq!(mark_replayed(&mark_replayed(&body).unwrap()).unwrap(), mark_replayed(&body).unwrap());
        let mut value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        value["zz"] = 1.into();
        let foreign = mark_replayed(&serde_json::to_vec(&value).unwrap()).unwrap();
        assert!(InspectionEvent::from_json(&foreign).unwrap().replayed);
        assert_eq!(mark_replayed(b"nonsense").unwrap_err().to_string(), "stored event does not decode");
    }

    #[test]
    fn normalise_keeps_every_result_writable() {
        let mut event = sample();
        event.align.psr = f64::INFINITY;
        event.align.scale = f64::NAN;
        event.image.as_mut().unwrap().focus = Some(f64::NAN);
        event.part_id = Some("ü".repeat(200));
        event.error = Some(EventError { code: ErrorCode::InferNan, message: "x".repeat(1000) });
        event.defects = vec![event.defects[0].clone(); 100];
        event.defects[0].score_max = f64::NAN;
        assert_eq!(event.normalise(), ["error.message", "part_id", "defects_total", "align", "image", "defects"]);
        assert_eq!((event.defects_total, event.defects.len()), (100, 64));
        assert_eq!((event.align.psr, event.align.scale), (0.0, 1.0));
        assert_eq!(event.part_id.as_ref().unwrap().chars().count(), 128);
        assert_eq!(event.normalise(), Vec::<&str>::new());
        assert_eq!(InspectionEvent::from_json(&event.to_json().unwrap()).unwrap(), event);
    }

    #[test]
    fn an_over_long_event_loses_listed_defects_only() {
        let mut event = sample();
        event.defects = vec![Defect { zone: "z".repeat(3000), ..event.defects[0].clone() }; 64];
        event.defects_total = 64;
        let body = event.to_json().unwrap();
        assert!(body.len() <= MAX_PAYLOAD_BYTES);
        let read = InspectionEvent::from_json(&body).unwrap();
        assert_eq!((read.defects_total, read.defects.len()), (64, 16));
        event.product = "p".repeat(70_000);
        let error = event.to_json().unwrap_err().to_string();
        assert!(error.contains("without any defect listed, wanted at most 65536"), "{error}");
    }

    #[test]
    fn ids_are_version_7_and_carry_the_clock() {
        let clock = SimulatedClock::new("2026-11-23T02:48:46Z".parse().unwrap());
        let (a, b) = (new_event_id(&clock), new_event_id(&clock));
        assert_ne!(a, b);
        assert_eq!(&a[..13], &b[..13]);
        assert_eq!(&a[14..15], "7");
        assert_eq!(boot_id().unwrap().len(), 32);
    }

    #[test]
    fn another_schema_is_refused() {
        let body = String::from_utf8(sample().to_json().unwrap()).unwrap().replace("ssds.inspection/1", "ssds.inspection/2");
        let error = InspectionEvent::from_json(body.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "event schema must be ssds.inspection/1, got ssds.inspection/2");
    }
}
