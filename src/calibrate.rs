//! The threshold from good parts, with what it promises.
//!
//! Input: one number a good part, its critical score: the highest threshold at which the part would have been NG
//! ([`critical_score`]). Output: the lowest threshold that rejects at most the allowed number of them, and an upper bound of the
//! false-reject rate in production at the stated confidence. With no part rejected out of n the bound is 1 - (1 - c)^(1/n), about 3/n for
//! c = 95 % (the rule of three); else Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
//! binomial", Biometrika 26, 1934. The bound holds for parts like those shown: the same product, light and camera.

use crate::decide::{Decider, PlacedZones, Settings, Verdict};
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};

/// Levels of a score: the decision sees scores in steps of 1/65535.
const LEVELS: u32 = 65_535;

/// Thresholds that are tried where the verdict may come back to NG.
const STEPS: u32 = 1285;

/// What is asked of a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// False-reject rate to stay under, above 0 and below 1.
    pub max_reject_rate: f64,
    /// Confidence of that statement, above 0 and below 1.
    pub confidence: f64,
    /// Added to the threshold that the good parts need, 0..1: room for parts a little worse than those shown.
    pub margin: f32,
}

impl Default for Demand {
    /// At most 1 % at 95 % confidence, 0.05 of room.
    fn default() -> Self {
        Self { max_reject_rate: 0.01, confidence: 0.95, margin: 0.05 }
    }
}

/// A threshold and what it promises.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Calibration {
    /// Good parts shown.
    pub parts: usize,
    /// Those that the threshold rejects.
    pub rejected: usize,
    /// The threshold, margin included.
    pub threshold: f32,
    /// Highest critical score of any part.
    pub worst_score: f32,
    /// Upper bound of the false-reject rate.
    pub reject_rate_bound: f64,
    /// Confidence of the bound.
    pub confidence: f64,
}

/// The highest threshold at which this part is NG, with the other settings as they are (a low threshold above it moves down with it);
/// 0 when it is OK at every threshold. As long as no defect is allowed, the verdict only goes from NG to OK as the threshold rises, and halving
/// finds it. With [`Settings::max_defects`] a rising threshold may cut one defect into too many; then [`STEPS`] thresholds are tried from the
/// top, and halving goes on above the first that is NG: a part NG over less than a step may be missed there.
///
/// # Errors
/// As [`Decider::decide`].
pub fn critical_score(
    decider: &mut Decider,
    map: &Map,
    valid: &Gray,
    frame: &Gray,
    warped_template: &Gray,
    settings: &Settings,
    zones: Option<PlacedZones<'_>>,
) -> Result<f32> {
    let mut is_ng = |level: u32| -> Result<bool> {
        let threshold = level as f32 / LEVELS as f32;
        let settings =
            Settings { threshold, low_threshold: settings.low_threshold.map(|l| l.min(threshold)), ..settings.clone() };
        Ok(decider.decide_zones(map, valid, frame, warped_template, &settings, zones)?.verdict == Verdict::Ng)
    };
    // NG at `low` (0 stands for nothing), OK above `high`.
    let (mut low, mut high) = (0, LEVELS);
    if settings.max_defects > 0 {
        for step in (1..=STEPS).rev() {
            let level = step * (LEVELS / STEPS);
            if is_ng(level)? {
                low = level;
                break;
            }
            high = level - 1;
        }
    }
    while low < high {
        let middle = (low + high).div_ceil(2);
        if is_ng(middle)? { low = middle } else { high = middle - 1 }
    }
    Ok(low as f32 / LEVELS as f32)
}

/// The lowest threshold that keeps the demand on these good parts.
///
/// # Errors
/// [`crate::Kind::Config`] for a demand out of range; [`crate::Kind::Data`] for too few parts (how many are wanted is said) and when the
/// threshold would exceed 1.
pub fn calibrate(critical_scores: &[f32], demand: &Demand) -> Result<Calibration> {
    let open = |v: f64| v > 0.0 && v < 1.0;
    if !open(demand.max_reject_rate) || !open(demand.confidence) || !(0.0..1.0).contains(&demand.margin) {
        return Err(Error::config(format!(
            "calibration: max_reject_rate and confidence must be above 0 and below 1 and margin from 0 to below 1, got {}, {} and {}",
            demand.max_reject_rate, demand.confidence, demand.margin
        )));
    }
    let n = critical_scores.len();
    let wanted = ((1.0 - demand.confidence).ln() / (1.0 - demand.max_reject_rate).ln()).ceil() as usize;
    if n < wanted {
        return Err(Error::data(format!(
            "calibration: {n} good parts, at least {wanted} wanted to show a false-reject rate under {} % at {} % confidence",
            100.0 * demand.max_reject_rate,
            100.0 * demand.confidence
        )));
    }
    // The most parts that may be rejected and still leave the bound under the rate.
    let mut rejected = 0;
    while rejected + 1 < n && upper_bound(n, rejected + 1, demand.confidence) <= demand.max_reject_rate {
        rejected += 1;
    }
    let mut sorted = critical_scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    // One step above the worst part that must pass, then the margin.
    let threshold = sorted[n - 1 - rejected] + 1.0 / LEVELS as f32 + demand.margin;
    if threshold > 1.0 {
        return Err(Error::data(format!(
            "calibration: the good parts score up to {:.3}; with a margin of {} no threshold up to 1 lets them pass",
            sorted[n - 1 - rejected],
            demand.margin
        )));
    }
    let rejected = sorted.iter().filter(|s| **s >= threshold).count();
    Ok(Calibration {
        parts: n,
        rejected,
        threshold,
        worst_score: sorted[n - 1],
        reject_rate_bound: upper_bound(n, rejected, demand.confidence),
        confidence: demand.confidence,
    })
}

/// One-sided upper bound of a rate of which `hits` were seen in `n` trials (Clopper-Pearson).
#[must_use]
pub fn upper_bound(n: usize, hits: usize, confidence: f64) -> f64 {
    if hits >= n {
        return 1.0;
    }
    // The rate at which `hits` or fewer would be seen with probability 1 - confidence.
    let (mut low, mut high) = (hits as f64 / n as f64, 1.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if at_most(n, hits, middle) > 1.0 - confidence { low = middle } else { high = middle }
    }
    high
}

/// Probability of at most `hits` in `n` trials of rate `p`.
fn at_most(n: usize, hits: usize, p: f64) -> f64 {
    if p >= 1.0 {
        return 0.0;
    }
    let (ln_p, ln_q) = (p.ln(), (1.0 - p).ln());
    let (mut sum, mut ln_choose) = (0.0, 0.0);
    for k in 0..=hits {
        if k > 0 {
            ln_choose += ((n - k + 1) as f64).ln() - (k as f64).ln();
        }
        sum += (ln_choose + k as f64 * ln_p + (n - k) as f64 * ln_q).exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use proptest::prelude::*;

    #[test]
    fn bounds_equal_the_tables() {
        // scipy.stats.beta.ppf(0.95, k + 1, n - k)
        for (n, k, expected) in [(10, 0, 0.2588656), (300, 0, 0.0099361), (300, 2, 0.0208362), (50, 5, 0.1988330), (7, 7, 1.0)] {
            let found = upper_bound(n, k, 0.95);
            assert!((found - expected).abs() < 1e-6, "{k} of {n}: {found}, {expected}");
        }
    }

    #[test]
    fn too_few_parts_are_refused_and_the_number_wanted_is_said() {
        let error = calibrate(&[0.1; 100], &Demand::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert_eq!(
            error.to_string(),
            "calibration: 100 good parts, at least 299 wanted to show a false-reject rate under 1 % at 95 % confidence"
        );
        assert!(calibrate(&[0.1; 299], &Demand::default()).is_ok());
        let error = calibrate(&[0.97; 299], &Demand::default()).unwrap_err();
        assert!(error.to_string().contains("score up to 0.970; with a margin of 0.05 no threshold"), "{error}");
        let error = calibrate(&[], &Demand { confidence: 1.0, ..Demand::default() }).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
    }

    #[test]
    fn many_parts_allow_a_few_to_be_rejected() {
        let mut scores = vec![0.2f32; 1000];
        scores[17] = 0.9;
        let c = calibrate(&scores, &Demand::default()).unwrap();
        assert_eq!((c.parts, c.rejected, c.worst_score), (1000, 1, 0.9));
        assert!(c.threshold > 0.25 && c.threshold < 0.2502 && c.reject_rate_bound < 0.01);
    }

    #[test]
    fn a_defect_that_falls_apart_is_seen_where_some_are_allowed() {
        // Two tops of 0.9 on a ridge of 0.3: one defect up to 0.3, then two, of which one is allowed.
        let map = Map::from_fn(16, 5, |x, y| match (x, y) {
            (2..=4 | 11..=13, 1..=3) => 0.9,
            (5..=10, 2) => 0.3,
            _ => 0.0,
        });
        let (valid, gray) = (Gray::from_fn(16, 5, |_, _| 255), Gray::new(16, 5));
        let settings =
            Settings { min_area_px: 2, edge_margin_px: 0, merge_distance_px: 0, max_defects: 1, ..Settings::default() };
        let critical = critical_score(&mut Decider::new(), &map, &valid, &gray, &gray, &settings, None).unwrap();
        assert!((critical - 0.9).abs() < 2.0 / LEVELS as f32, "{critical}");
    }

    proptest! {
        #[test]
        fn the_critical_score_is_where_the_verdict_turns(
            scores in prop::collection::vec(0.0f32..1.0, 120),
            min_area_px in 1usize..5,
        ) {
            let map = Map::from_vec(12, 10, scores).unwrap();
            let (valid, gray) = (Gray::from_fn(12, 10, |_, _| 255), Gray::new(12, 10));
            let settings = Settings { min_area_px, edge_margin_px: 0, merge_distance_px: 1, ..Settings::default() };
            let mut decider = Decider::new();
            let critical = critical_score(&mut decider, &map, &valid, &gray, &gray, &settings, None).unwrap();
            let mut verdict = |threshold: f32| decider.decide(&map, &valid, &gray, &gray, &Settings { threshold, ..settings.clone() }).unwrap().verdict;
            if critical > 0.0 {
                prop_assert_eq!(verdict(critical), Verdict::Ng);
            }
            // A part that is NG at the highest threshold there is has no threshold above.
            let above = critical + 1.5 / LEVELS as f32;
            if above <= 1.0 {
                prop_assert_eq!(verdict(above), Verdict::Ok);
            }
        }
    }
}
