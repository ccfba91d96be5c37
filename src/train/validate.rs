//! Scores on held-out simulation: pixel AP and MaxF1 (the paper's), F1 at 0.5, and the calibration that makes 0.5 the right threshold.

use serde::{Deserialize, Serialize};

use crate::train::batch::Batch;

/// What a validation found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Area under the pooled pixel precision-recall curve, percent.
    pub ap: f64,
    /// Largest 2PR / (P + R) on it, percent.
    pub max_f1: f64,
    /// The same at score 0.5 as the map stands, percent.
    pub f1_at_half: f64,
    /// The logit at which F1 is largest.
    pub best_logit: f64,
}

/// Buckets of the histogram over logits, and its half width.
const BUCKETS: usize = 8192;
const REACH: f32 = 24.0;

/// Scores logits against labels; pixels of weight 0 do not count.
#[must_use]
pub fn score(logits: &[f32], batch: &Batch) -> Scores {
    let mut positive = vec![0u64; BUCKETS];
    let mut negative = vec![0u64; BUCKETS];
    for ((z, label), weight) in logits.iter().zip(&batch.label).zip(&batch.weight) {
        if *weight > 0.0 {
            let b = ((z + REACH) / (2.0 * REACH) * BUCKETS as f32).clamp(0.0, BUCKETS as f32 - 1.0) as usize;
            if *label > 0.5 { positive[b] += 1 } else { negative[b] += 1 }
        }
    }
    let total: u64 = positive.iter().sum();
    let mut out = Scores::default();
    if total == 0 {
        return out;
    }
    let (mut tp, mut fp, mut recall_before) = (0u64, 0u64, 0f64);
    let f1 = |tp: u64, fp: u64| 200.0 * tp as f64 / (2 * tp + fp + (total - tp)) as f64;
    for b in (0..BUCKETS).rev() {
        tp += positive[b];
        fp += negative[b];
        if tp + fp == 0 {
            continue;
        }
        let recall = tp as f64 / total as f64;
        out.ap += 100.0 * (recall - recall_before) * tp as f64 / (tp + fp) as f64;
        recall_before = recall;
        let f = f1(tp, fp);
        let logit = f64::from(b as f32 / BUCKETS as f32 * 2.0 * REACH - REACH);
        if f > out.max_f1 {
            (out.max_f1, out.best_logit) = (f, logit);
        }
        if logit >= 0.0 {
            out.f1_at_half = f;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(label: &[f32], weight: &[f32]) -> Batch {
        Batch { n: 1, crop: 2, pair: vec![], label: label.to_vec(), weight: weight.to_vec() }
    }

    #[test]
    fn a_small_curve_by_hand() {
        // by falling score: hit, miss, hit, miss; the fifth pixel is not scored
        let s = score(&[3.0, 2.0, 1.0, -1.0, 9.0], &batch(&[1.0, 0.0, 1.0, 0.0, 0.0], &[1.0, 1.0, 1.0, 1.0, 0.0]));
        assert!((s.ap - (50.0 * 1.0 + 50.0 * 2.0 / 3.0)).abs() < 1e-9, "{s:?}");
        assert!((s.max_f1 - 80.0).abs() < 1e-9 && (s.f1_at_half - 80.0).abs() < 1e-9);
        assert!((s.best_logit - 1.0).abs() < 0.01);
    }

    #[test]
    fn nothing_to_find_scores_nothing() {
        assert_eq!(score(&[1.0], &batch(&[0.0], &[1.0])), Scores::default());
    }
}
