//! What those who watch the station see of each part: the brief of its result, and a picture with the defects outlined.
//!
//! The record stage calls [`Live::part`] after each commit. Nobody watching costs a check; watched, a part costs one copy of its frame
//! into a buffer that is kept, at most [`PICTURES_PER_SECOND`] times a second. Drawing and JPEG coding are the watchers' work
//! ([`Live::jpeg`]). Nothing here delays the line: a slot that is just being read is left as it is, a watcher that is too slow misses parts.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::decide::Blob;
use crate::error::{Error, Result};
use crate::frame::Gray;
use crate::geometry::Affine;
use crate::overlay::{Headline, Scale, Scene, frame_panel};
use crate::record::event::{InspectionEvent, Verdict};

/// Most live pictures a second.
pub const PICTURES_PER_SECOND: u32 = 10;
/// Longest side of a live picture, pixels.
const PICTURE_PX: usize = 1280;
/// JPEG quality of live pictures, 1..100.
const QUALITY: u8 = 80;
/// Briefs that a slow watcher may lag behind.
const BACKLOG: usize = 256;

/// What the record stage knows of a part.
pub struct Part<'a> {
    /// The committed result.
    pub event: &'a InspectionEvent,
    /// The frame.
    pub frame: &'a Gray,
    /// Its defects.
    pub blobs: &'a [Blob],
    /// Pose and template size, for the outline.
    pub outline: Option<(Affine, (usize, usize))>,
}

/// The last part's picture.
#[derive(Default)]
struct Slot {
    number: u64,
    at: Option<Instant>,
    frame: Gray,
    blobs: Vec<Blob>,
    outline: Option<(Affine, (usize, usize))>,
    verdict: Option<Verdict>,
}

/// Shared by the record stage and those who watch; cloning shares it.
#[derive(Clone)]
pub struct Live {
    briefs: broadcast::Sender<Arc<str>>,
    numbers: watch::Sender<u64>,
    slot: Arc<Mutex<Slot>>,
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Live {
    /// Nothing to see yet.
    #[must_use]
    pub fn new() -> Self {
        Self { briefs: broadcast::Sender::new(BACKLOG), numbers: watch::Sender::new(0), slot: Arc::default() }
    }

    /// A part was recorded.
    pub fn part(&self, part: &Part<'_>) {
        if self.briefs.receiver_count() > 0 {
            // An error only says that the last watcher has just gone.
            let _ = self.briefs.send(brief(part.event).to_string().into());
        }
        let mut slot = match self.slot.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(slot)) => slot.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // The first part is kept even unwatched, so that a page that is opened while the line stands shows something.
        let least =
            if self.numbers.receiver_count() > 0 { Duration::from_secs(1) / PICTURES_PER_SECOND } else { Duration::from_secs(1) };
        if part.frame.data().is_empty() || slot.at.is_some_and(|at| at.elapsed() < least) {
            return;
        }
        let (width, height) = part.frame.size();
        slot.frame.resize_for_overwrite(width, height);
        slot.frame.data_mut().copy_from_slice(part.frame.data());
        slot.blobs.clear();
        slot.blobs.extend_from_slice(part.blobs);
        slot.outline = part.outline;
        slot.verdict = Some(part.event.verdict);
        slot.at = Some(Instant::now());
        slot.number += 1;
        let number = slot.number;
        drop(slot);
        self.numbers.send_replace(number);
    }

    /// The briefs of parts from now on, as JSON text.
    #[must_use]
    pub fn briefs(&self) -> broadcast::Receiver<Arc<str>> {
        self.briefs.subscribe()
    }

    /// The number of the last picture, from 1; 0 = none yet.
    #[must_use]
    pub fn numbers(&self) -> watch::Receiver<u64> {
        self.numbers.subscribe()
    }

    /// The last picture as JPEG with its number; none before the first part. Takes milliseconds.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] when the picture cannot be coded.
    pub fn jpeg(&self) -> Result<Option<(u64, Vec<u8>)>> {
        let (number, frame, blobs, outline, verdict) = {
            let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(verdict) = slot.verdict else { return Ok(None) };
            (slot.number, slot.frame.clone(), slot.blobs.clone(), slot.outline, verdict)
        };
        let headline = match verdict {
            Verdict::Ok => Headline::Ok,
            Verdict::Ng => Headline::Ng,
            Verdict::Error => Headline::Error,
        };
        let scene = Scene {
            headline,
            title: "",
            notes: &[],
            frame: &frame,
            template: None,
            map: None,
            mask: None,
            blobs: &blobs,
            threshold: 0.5,
            outline,
        };
        let mut canvas = frame_panel(&scene, Scale::to_fit(frame.size(), PICTURE_PX));
        let (w, h) = (canvas.width(), canvas.height());
        canvas.frame(0, 0, w, h, (w.min(h) / 80).max(3), headline.colour());
        let mut out = Vec::with_capacity(w * h / 4);
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, QUALITY)
            .encode(canvas.rgb(), w as u32, h as u32, image::ExtendedColorType::Rgb8)
            .map_err(|e| Error::internal("the live picture").with_source(e))?;
        Ok(Some((number, out)))
    }
}

/// What lists and trends need of a result.
#[must_use]
pub fn brief(event: &InspectionEvent) -> Value {
    let t = &event.timing_ms;
    json!({
        "event_id": event.event_id,
        "seq": event.seq,
        "captured_at": event.captured_at,
        "part_id": event.part_id,
        "product": event.product,
        "template": format!("{} v{}", event.template.id, event.template.version),
        "verdict": event.verdict,
        "error": event.error,
        "defects_total": event.defects_total,
        "max_score": event.decision.max_score,
        "threshold": event.decision.threshold,
        "ncc": event.align.ncc,
        "ms": { "capture": t.capture, "align": t.align, "infer": t.infer, "decide": t.decide, "queue": t.queue, "total": t.total },
        "evidence": event.evidence.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part<'a>(event: &'a InspectionEvent, frame: &'a Gray) -> Part<'a> {
        Part { event, frame, blobs: &[], outline: None }
    }

    #[test]
    fn the_first_part_is_kept_and_later_ones_at_a_bounded_rate() {
        let live = Live::new();
        assert!(live.jpeg().unwrap().is_none());
        let event = InspectionEvent::example();
        let (first, second) = (Gray::from_fn(80, 60, |_, _| 10), Gray::from_fn(80, 60, |_, _| 200));
        live.part(&part(&event, &first));
        live.part(&part(&event, &second));
        let (number, jpeg) = live.jpeg().unwrap().unwrap();
        assert_eq!(number, 1);
        let picture = image::load_from_memory(&jpeg).unwrap().to_luma8();
        // Small frames are enlarged by a whole number.
        assert_eq!(picture.dimensions(), (320, 240));
        assert!(picture.get_pixel(160, 120).0[0] < 40, "the second came too soon after the first");
    }

    #[test]
    fn briefs_reach_those_who_watch_and_cost_nobody_else() {
        let live = Live::new();
        let event = InspectionEvent::example();
        let frame = Gray::new(8, 8);
        live.part(&part(&event, &frame));
        let mut watcher = live.briefs();
        assert!(watcher.try_recv().is_err(), "what came before is not told");
        live.part(&part(&event, &frame));
        let brief: Value = serde_json::from_str(&watcher.try_recv().unwrap()).unwrap();
        assert_eq!(brief["verdict"], "NG");
        assert_eq!((brief["defects_total"].as_u64(), brief["max_score"].as_f64()), (Some(1), Some(0.97)));
    }
}
