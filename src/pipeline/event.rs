//! From a finished job to the event that is recorded and published.

use std::time::Duration;

use super::job::{Job, View};
use crate::decide::{self, Decision};
use crate::frame::Gray;
use crate::geometry::Affine;
use crate::infer::ModelInfo;
use crate::record::event::{
    AlignFigures, ClockState, DecisionFigures, Defect, ErrorCode, EventError, Evidence, INSPECTION_SCHEMA, ImageFigures,
    InspectionEvent, ModelRef, Precision, Provider, ResultState, Sign, TemplateRef, TimingMs, Trigger, Verdict,
};

/// What is the same in every event of a run.
#[derive(Debug, Clone)]
pub struct Station {
    /// Name.
    pub name: String,
    /// The machine's boot, 32 hex digits.
    pub boot_id: String,
    /// SHA-256 of the configuration in force.
    pub config_sha256: String,
    /// Events are marked as simulated.
    pub simulated: bool,
    /// Product, when no template is active.
    pub product: String,
    /// The model in force.
    pub model: ModelRef,
}

/// The model's identity as events give it.
#[must_use]
pub fn model_ref(info: &ModelInfo) -> ModelRef {
    ModelRef {
        name: info.name.clone(),
        version: Some(info.version.clone()),
        sha256: info.sha256.clone(),
        provider: match info.provider {
            "tensorrt" => Provider::Tensorrt,
            "cuda" => Provider::Cuda,
            _ => Provider::Cpu,
        },
        precision: match info.precision {
            "fp16" => Precision::Fp16,
            "int8" => Precision::Int8,
            _ => Precision::Fp32,
        },
        runtime_version: Some(info.runtime_version.clone()),
    }
}

/// Whether the system's clock is disciplined, as systemd-timesyncd, chrony and ntpd tell the kernel; the file is systemd's sign of it.
#[must_use]
pub fn clock_state() -> ClockState {
    if std::path::Path::new("/run/systemd/timesync/synchronized").exists() { ClockState::Synced } else { ClockState::Unknown }
}

/// The event of a finished job. `seq` is the store's to give.
#[must_use]
pub fn event_of(job: &Job, station: &Station, clock: ClockState, evidence: Option<Evidence>) -> InspectionEvent {
    let verdict = match (&job.fault, &job.decision) {
        (None, Some(d)) if d.verdict == decide::Verdict::Ok => Verdict::Ok,
        (None, Some(_)) => Verdict::Ng,
        _ => Verdict::Error,
    };
    let product = job.product.as_deref();
    let view = job.view();
    let template = view.map(|v| &*v.template);
    InspectionEvent {
        schema: INSPECTION_SCHEMA.into(),
        event_id: uuid::Uuid::now_v7().to_string(),
        station: station.name.clone(),
        boot_id: station.boot_id.clone(),
        seq: 0,
        captured_at: job.captured_at,
        captured_mono_ns: Some(job.captured_mono_ns),
        clock,
        job_id: job.job_id.as_deref().map(str::to_owned),
        part_id: job.part_id.as_deref().map(str::to_owned),
        trigger: trigger_of(job.trigger),
        verdict,
        result_state: match &job.fault {
            None => ResultState::Completed,
            Some(fault) if fault.aborted => ResultState::Aborted,
            Some(_) => ResultState::Failed,
        },
        error: match (&job.fault, verdict) {
            (Some(fault), _) => Some(EventError { code: code_of(fault.code), message: fault.message.clone() }),
            (None, Verdict::Error) => {
                Some(EventError { code: ErrorCode::Internal, message: "the frame reached the end without a decision".into() })
            }
            _ => None,
        },
        product: product.map_or_else(|| station.product.clone(), |p| p.template.product().to_owned()),
        template: template.map_or_else(TemplateRef::none, |t| TemplateRef {
            id: t.id.clone(),
            version: t.version,
            sha256: t.sha256.clone(),
        }),
        model: station.model.clone(),
        config_sha256: station.config_sha256.clone(),
        align: align_figures(job, view.map(|v| &*v.picture.image), &job.image),
        image: (job.stats.mean > 0.0 || job.stats.focus > 0.0).then(|| ImageFigures {
            mean: Some(f64::from(job.stats.mean)),
            saturated_frac: Some(f64::from(job.stats.saturated_frac)),
            focus: Some(f64::from(job.stats.focus)),
            noise: Some(f64::from(job.stats.noise)),
            drift_z: None,
        }),
        decision: decision_figures(job, view),
        defects_total: job.decision.as_ref().map_or(0, |d| u32::try_from(d.blobs_total).unwrap_or(u32::MAX)),
        defects: job.decision.as_ref().map_or_else(Vec::new, |d| {
            let mm = Millimetres::of(job);
            d.blobs.iter().enumerate().map(|b| defect_of(b, mm.as_ref())).collect()
        }),
        evidence,
        timing_ms: timing_of(job),
        simulated: station.simulated,
        spooled_at: None,
        replayed: false,
    }
}

fn ms(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

fn timing_of(job: &Job) -> TimingMs {
    let total = job.admitted.elapsed() + job.times.capture;
    let work = job.times.capture + job.times.align + job.times.infer + job.times.decide;
    TimingMs {
        queue: Some(ms(total.saturating_sub(work))),
        capture: Some(ms(job.times.capture)),
        align: Some(ms(job.times.align)),
        infer: Some(ms(job.times.infer)),
        decide: Some(ms(job.times.decide)),
        spool: None,
        total: ms(total),
    }
}

fn align_figures(job: &Job, template: Option<&Gray>, frame: &Gray) -> AlignFigures {
    match (&job.registration, template) {
        (Some(r), Some(template)) if r.frame_from_template.is_finite() && r.frame_from_template.scale() > 0.0 => {
            let pose = &r.frame_from_template;
            let (dx, dy) = pose.centre_shift(template.size(), frame.size());
            AlignFigures {
                ok: r.accepted,
                rotation_deg: pose.rotation_rad().to_degrees(),
                scale: pose.scale(),
                dx_px: dx,
                dy_px: dy,
                psr: f64::from(r.psr),
                ncc: Some(f64::from(r.ncc)),
                overlap: Some(f64::from(r.visible_share).clamp(0.0, 1.0)),
            }
        }
        _ => {
            AlignFigures { ok: false, rotation_deg: 0.0, scale: 1.0, dx_px: 0.0, dy_px: 0.0, psr: 0.0, ncc: None, overlap: None }
        }
    }
}

/// Sizes on the part, where the size of a template pixel is known and the frame is registered.
struct Millimetres {
    template_from_frame: Affine,
    mm_per_px: f64,
    mm2_per_frame_px: f64,
}

impl Millimetres {
    fn of(job: &Job) -> Option<Self> {
        let mm_per_px = job.product.as_ref()?.mm_per_px?;
        let template_from_frame = job.registration.as_ref().filter(|r| r.accepted)?.frame_from_template.invert()?;
        let mm2_per_frame_px = template_from_frame.determinant().abs() * mm_per_px * mm_per_px;
        mm2_per_frame_px.is_finite().then_some(Self { template_from_frame, mm_per_px, mm2_per_frame_px })
    }

    /// From the template's first pixel, along its axes.
    fn place(&self, (x, y): (f32, f32)) -> [f64; 2] {
        let (x, y) = self.template_from_frame.apply(f64::from(x), f64::from(y));
        [x * self.mm_per_px, y * self.mm_per_px]
    }
}

fn decision_figures(job: &Job, view: Option<&View>) -> DecisionFigures {
    let decision: Option<&Decision> = job.decision.as_ref();
    let (threshold, min_area) = view.map_or((0.5, 1), |v| (f64::from(v.decision.threshold), v.decision.min_area_px));
    let max_score = decision.map_or(0.0, |d| f64::from(d.max_score));
    DecisionFigures {
        threshold,
        min_area_px: u32::try_from(min_area).unwrap_or(u32::MAX),
        max_score,
        ng_area_px: decision.map_or(0, |d| u32::try_from(d.ng_area_px).unwrap_or(u32::MAX)),
        ng_area_mm2: decision.and_then(|d| Millimetres::of(job).map(|mm| d.ng_area_px as f64 * mm.mm2_per_frame_px)),
        margin: decision.map(|_| max_score - threshold),
    }
}

fn defect_of((index, blob): (usize, &decide::Blob), mm: Option<&Millimetres>) -> Defect {
    let to_i32 = |v: usize| i32::try_from(v).unwrap_or(i32::MAX);
    Defect {
        id: u32::try_from(index + 1).unwrap_or(u32::MAX),
        bbox_px: [to_i32(blob.bbox.x), to_i32(blob.bbox.y), to_i32(blob.bbox.width), to_i32(blob.bbox.height)],
        centroid_px: Some([f64::from(blob.centroid.0), f64::from(blob.centroid.1)]),
        centroid_mm: mm.map(|mm| mm.place(blob.centroid)),
        area_px: u32::try_from(blob.area_px).unwrap_or(u32::MAX),
        score_max: f64::from(blob.score_max),
        score_mean: Some(f64::from(blob.score_mean)),
        sign: Some(match blob.sign {
            decide::Sign::Added => Sign::Added,
            decide::Sign::Missing => Sign::Missing,
            decide::Sign::Mixed => Sign::Mixed,
        }),
        zone: blob.zone.to_string(),
    }
}

fn trigger_of(word: &str) -> Trigger {
    match word {
        "software" => Trigger::Software,
        "mqtt" => Trigger::Mqtt,
        "http" => Trigger::Http,
        "gpio" => Trigger::Gpio,
        "replay" => Trigger::Replay,
        "selftest" => Trigger::Selftest,
        _ => Trigger::FreeRun,
    }
}

fn code_of(word: &str) -> ErrorCode {
    match word {
        "ALIGN_FAIL" => ErrorCode::AlignFail,
        "TEMPLATE_STALE" => ErrorCode::TemplateStale,
        "IMAGE_DARK" => ErrorCode::ImageDark,
        "IMAGE_BRIGHT" => ErrorCode::ImageBright,
        "IMAGE_BLUR" => ErrorCode::ImageBlur,
        "CAMERA_LOST" => ErrorCode::CameraLost,
        "FRAME_STALE" => ErrorCode::FrameStale,
        "FRAME_INVALID" => ErrorCode::FrameInvalid,
        "INFER_FAIL" => ErrorCode::InferFail,
        "INFER_NAN" => ErrorCode::InferNan,
        "OVERRUN" => ErrorCode::Overrun,
        "NO_TEMPLATE" => ErrorCode::NoTemplate,
        "CAMERA_TIMEOUT" => ErrorCode::CameraTimeout,
        _ => ErrorCode::Internal,
    }
}
