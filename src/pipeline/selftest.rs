//! The self-test of the running line: a probe that takes its turn between two frames.
//!
//! It goes through the stages' own queues and proves in each what the stage needs: registration finds the template in force in the
//! template's own picture; the session in force still computes the model's golden vector; the store makes a row durable. It is no
//! inspection: it has no number, leaves no event and sends no result. It costs the line one registration, one run of the golden picture
//! and one synced commit.
//!
//! Limits: a probe that overload throws out of the queue is gone; the receiver of its [`Report`] is then disconnected, and it may be
//! sent again.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use serde::Serialize;

use super::job::Product;
use super::registrar::Registrar;
use crate::clock::Clock;
use crate::geometry::Affine;
use crate::infer::{Detector, Parity};
use crate::record::store::Store;

/// Largest distance of a template corner from its own place, px; an undisturbed picture registers far better.
const MAX_SELF_ERROR_PX: f64 = 0.5;

/// What a self-test found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Every part is there and in order.
    pub passed: bool,
    /// The template against its own picture.
    pub registration: Option<RegistrationCheck>,
    /// The network against its golden vector.
    pub network: Option<NetworkCheck>,
    /// A durable write.
    pub store: Option<StoreCheck>,
}

/// See [`Report::registration`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegistrationCheck {
    /// Found at its own place, and trusted.
    pub ok: bool,
    /// Time it took, ms.
    pub ms: f64,
    /// Confidence, 0..1.
    pub confidence: f64,
    /// Largest distance of a corner from its own place, template px; null without a pose.
    pub corner_error_px: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// See [`Report::network`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NetworkCheck {
    /// It computes what it should; also true when the model brings no golden vector and the run merely succeeded (`verified` is false then).
    pub ok: bool,
    /// Time it took, ms.
    pub ms: f64,
    /// The provider in force.
    pub provider: &'static str,
    /// Compared with a golden vector.
    pub verified: bool,
    /// Largest absolute difference of a score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_abs: Option<f64>,
    /// What was allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// See [`Report::store`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoreCheck {
    /// Written, synced and read back.
    pub ok: bool,
    /// Time it took, ms.
    pub ms: f64,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A self-test on its way.
#[derive(Debug)]
pub struct Probe {
    product: Option<Arc<Product>>,
    report: Report,
    answer: Sender<Report>,
}

impl Probe {
    /// A probe of the line with this product in force; it answers once.
    #[must_use]
    pub fn new(product: Option<Arc<Product>>, answer: Sender<Report>) -> Self {
        Self { product, report: Report::default(), answer }
    }

    /// In the registration stage.
    pub fn align(&mut self, registrar: &mut Registrar) {
        let Some(product) = &self.product else {
            let message = Some("no template is active".to_owned());
            self.report.registration =
                Some(RegistrationCheck { ok: false, ms: 0.0, confidence: 0.0, corner_error_px: None, message });
            return;
        };
        let (begun, image) = (Instant::now(), &product.template.image);
        // Neither starts from a part's pose, nor leaves its own to the next part.
        registrar.forget_pose();
        let (_, found) = registrar.register(product, image);
        registrar.forget_pose();
        let (width, height) = image.size();
        let error = found.frame_from_template.corner_error(&Affine::IDENTITY, width, height);
        let message = match &found.refusal {
            Some(refusal) => Some(refusal.to_string()),
            // Written so that NaN fails.
            None if !(error <= MAX_SELF_ERROR_PX) => {
                Some(format!("the template lies {error:.2} px off in its own picture, allowed are {MAX_SELF_ERROR_PX}"))
            }
            None => None,
        };
        self.report.registration = Some(RegistrationCheck {
            ok: message.is_none(),
            ms: ms(begun),
            confidence: short(found.confidence),
            corner_error_px: (found.accepted && error.is_finite()).then_some(error),
            message,
        });
    }

    /// In the inference stage.
    pub fn infer(&mut self, detector: &mut Detector) {
        let begun = Instant::now();
        let answer = detector.verify();
        let (ms, provider) = (ms(begun), detector.info().provider);
        let check = NetworkCheck { ok: true, ms, provider, verified: false, max_abs: None, tolerance: None, message: None };
        self.report.network = Some(match answer {
            Ok(Parity::Golden { max_abs, tolerance } | Parity::Processor { max_abs, tolerance }) => {
                NetworkCheck { verified: true, max_abs: Some(short(max_abs)), tolerance: Some(short(tolerance)), ..check }
            }
            Ok(Parity::Unverified) => check,
            Err(e) => NetworkCheck { ok: false, message: Some(format!("{e:#}")), ..check },
        });
    }

    /// In the record stage, its last: answers.
    pub fn finish(mut self, store: &mut Store, clock: &dyn Clock) {
        let begun = Instant::now();
        let message = store.prove_write(clock).err().map(|e| format!("{e:#}"));
        self.report.store = Some(StoreCheck { ok: message.is_none(), ms: ms(begun), message });
        let r = &self.report;
        self.report.passed = r.registration.as_ref().is_some_and(|c| c.ok)
            && r.network.as_ref().is_some_and(|c| c.ok)
            && r.store.as_ref().is_some_and(|c| c.ok);
        // Nobody waits any more when the asker gave up.
        let _ = self.answer.try_send(self.report);
    }
}

fn ms(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// With as many digits as a small difference needs and no more.
fn short(value: f32) -> f64 {
    (f64::from(value) * 1e9).round() / 1e9
}
