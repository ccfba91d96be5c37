//! What the daemon knows about itself: camera, model, store, broker, and the state that follows from them.
//!
//! States are OPC 40100-1's: preoperational (starting, or something needed is missing), ready, continuous execution (frames are being
//! inspected), error (results cannot be kept), halted (ended).

pub mod http;
pub mod live;
pub mod report;

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::pipeline::drift::Findings;
use crate::record::message::Alarm;

/// State of the station (OPC 40100-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Starting, or a needed part is missing.
    Preoperational,
    /// Everything is there; no frame yet.
    Ready,
    /// Frames are being inspected.
    ContinuousExecution,
    /// Results cannot be kept.
    Error,
    /// Ended.
    Halted,
}

impl State {
    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            State::Preoperational => "preoperational",
            State::Ready => "ready",
            State::ContinuousExecution => "continuous_execution",
            State::Error => "error",
            State::Halted => "halted",
        }
    }
}

/// Facts that the state follows from.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Model loaded and warmed up.
    pub model_ready: bool,
    /// How far loading the model is.
    pub model_progress: String,
    /// A template is active.
    pub template_ready: bool,
    /// The store takes results.
    pub store_ready: bool,
    /// Why the store does not.
    pub store_problem: String,
    /// The outbox is at its cap.
    pub spool_full: bool,
    /// A person or a command paused the station.
    pub paused: bool,
    /// The camera delivers.
    pub camera_up: bool,
    /// Why it does not.
    pub camera_problem: String,
    /// So many frames in a row were identical.
    pub camera_frozen: Option<u32>,
    /// The camera's control values, read back when it was opened.
    pub camera_values: std::collections::BTreeMap<String, String>,
    /// What differs between the camera now and when the template was taught.
    pub template_stale: Vec<String>,
    /// Each part is inspected at a trigger.
    pub triggered: bool,
    /// A frame has been inspected.
    pub inspected: bool,
    /// The pipeline has ended.
    pub halted: bool,
    /// Standing alarms, in the order in which they came.
    pub alarms: Vec<Alarm>,
    /// Light, focus or pose have drifted away from how they were.
    pub drift: Findings,
    /// The detector in force and the one beside it disagree too often; how often.
    pub disagreement: Option<String>,
}

/// Shared view of the facts; cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Mutex<(Facts, Option<Error>)>>);

impl Status {
    /// Nothing is ready yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes facts.
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).0);
    }

    /// The facts now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Says whether the camera delivers, and why not.
    pub fn set_camera(&self, up: bool, problem: &str) {
        self.update(|f| {
            if f.camera_up != up || f.camera_problem != problem {
                f.camera_up = up;
                problem.clone_into(&mut f.camera_problem);
            }
        });
    }

    /// Notes an error that ends the process once the pipeline has drained.
    pub fn fatal(&self, error: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.get_or_insert(error);
    }

    /// The error that ends the process, if there is one.
    #[must_use]
    pub fn take_fatal(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.take()
    }

    /// The state that follows from the facts.
    #[must_use]
    pub fn state(&self) -> State {
        let f = self.facts();
        if f.halted {
            State::Halted
        } else if f.model_ready && f.template_ready && (!f.store_ready || f.spool_full) {
            State::Error
        } else if !(f.model_ready && f.template_ready && f.camera_up) {
            State::Preoperational
        } else if f.inspected {
            State::ContinuousExecution
        } else {
            State::Ready
        }
    }

    /// Why inspection is not ready: empty when it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let f = self.facts();
        let mut out = Vec::new();
        let mut say = |bad: bool, text: String| {
            if bad {
                out.push(text);
            }
        };
        say(!f.model_ready, format!("model: {}", if f.model_progress.is_empty() { "not loaded" } else { &f.model_progress }));
        say(!f.template_ready, "template: none is active".into());
        say(!f.store_ready, format!("store: {}", if f.store_problem.is_empty() { "not open" } else { &f.store_problem }));
        say(f.spool_full, "store: the outbox is at its cap; the broker must take results first".into());
        say(f.paused, "paused".into());
        say(!f.camera_up, format!("camera: {}", if f.camera_problem.is_empty() { "no frame yet" } else { &f.camera_problem }));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_facts() {
        let status = Status::new();
        assert_eq!(status.state(), State::Preoperational);
        assert_eq!(status.reasons()[0], "model: not loaded");
        status.update(|f| f.model_progress = "building the TensorRT engine, 12 s so far".into());
        assert_eq!(status.reasons()[0], "model: building the TensorRT engine, 12 s so far");
        status.update(|f| (f.model_ready, f.template_ready, f.store_ready) = (true, true, true));
        assert_eq!(status.reasons(), ["camera: no frame yet"]);
        status.set_camera(true, "");
        assert_eq!(status.state(), State::Ready);
        assert!(status.reasons().is_empty());
        status.update(|f| f.inspected = true);
        assert_eq!(status.state(), State::ContinuousExecution);
        status.update(|f| f.store_ready = false);
        assert_eq!(status.state(), State::Error);
        status.update(|f| f.halted = true);
        assert_eq!(status.state(), State::Halted);
    }
}
