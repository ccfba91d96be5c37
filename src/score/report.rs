//! The figures of a scored set, as a table and as JSON.

use serde::Serialize;

use super::Scorer;

/// Pixel figures, percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pixel {
    /// Average precision over all scored pixels; none without a defective pixel.
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    /// Best F1 over all thresholds.
    #[serde(rename = "MaxF1")]
    pub max_f1: Option<f64>,
    /// The threshold of MaxF1, 0..1.
    pub thr: f64,
    /// Intersection over union there.
    #[serde(rename = "IoU")]
    pub iou: Option<f64>,
    /// AP without false pixels close outside a true outline.
    #[serde(rename = "AP_tol")]
    pub ap_tol: Option<f64>,
    /// MaxF1 likewise.
    #[serde(rename = "MaxF1_tol")]
    pub max_f1_tol: Option<f64>,
    /// Mean AP over the pairs with defective pixels.
    #[serde(rename = "AP_img")]
    pub ap_img: Option<f64>,
    /// Mean MaxF1 over them.
    #[serde(rename = "F1_img")]
    pub f1_img: Option<f64>,
}

/// Object figures, percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Object {
    /// Operating threshold, 0..1.
    pub thr: f64,
    /// Precision there.
    #[serde(rename = "P")]
    pub p: f64,
    /// Recall there.
    #[serde(rename = "R")]
    pub r: f64,
    /// F1 there.
    #[serde(rename = "F1")]
    pub f1: f64,
    /// Average precision of the objects found at the best threshold, ranked by peak.
    #[serde(rename = "AP")]
    pub ap: f64,
    /// Threshold of the sweep with the best F1.
    pub best_thr: f64,
    /// Precision there.
    #[serde(rename = "best_P")]
    pub best_p: f64,
    /// Recall there.
    #[serde(rename = "best_R")]
    pub best_r: f64,
    /// F1 there.
    #[serde(rename = "best_F1")]
    pub best_f1: f64,
}

/// Hits and false alarms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Operating threshold, 0..1.
    pub thr: f64,
    /// Share of true boxes hit, percent.
    pub recall: f64,
    /// False alarms a pair.
    pub fa: f64,
    /// Best share with at most 0.1 false alarms a pair.
    #[serde(rename = "recall@fa<=0.1")]
    pub recall_at_0_1: f64,
    /// Best share with at most 0.5.
    #[serde(rename = "recall@fa<=0.5")]
    pub recall_at_0_5: f64,
    /// Best share with at most 1.
    #[serde(rename = "recall@fa<=1")]
    pub recall_at_1: f64,
}

/// Alarms on clean pairs, percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Clean {
    /// At the operating threshold.
    pub alarm_rate: f64,
    /// At the best threshold for objects.
    pub alarm_rate_best: f64,
}

/// Pair-level ranking, percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Image {
    /// Chance that a defective pair's peak is above a clean one's.
    #[serde(rename = "AUROC")]
    pub auroc: Option<f64>,
}

/// Recall by the size of true boxes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizeRecall {
    /// Square root of the box's area, px: from.
    pub from_px: f64,
    /// Up to, exclusive; none for the last class.
    pub to_px: Option<f64>,
    /// True boxes of this size.
    pub defects: usize,
    /// Share hit, percent.
    pub hit: f64,
    /// Share matched one to one, percent.
    pub matched: f64,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Pairs scored.
    pub pairs: usize,
    /// True boxes.
    pub defects: usize,
    /// Pairs without a defect.
    pub clean_pairs: usize,
    /// Pairs whose registration was refused (scored as all-zero maps).
    pub refused: usize,
    /// Pixels.
    pub pixel: Pixel,
    /// Objects.
    pub object: Object,
    /// Hits.
    pub hit: Hit,
    /// Clean pairs, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Clean>,
    /// Ranking of pairs, if any is clean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Recall by size.
    pub by_size: Vec<SizeRecall>,
}

/// Edges of the size classes: square root of the box's area, px.
const SIZE_EDGES_PX: [f64; 7] = [0.0, 24.0, 28.0, 32.0, 40.0, 56.0, 80.0];

fn percent(share: f64) -> f64 {
    (share * 1e4).round() / 1e2
}

fn percent_if(share: f64) -> Option<f64> {
    share.is_finite().then(|| percent(share))
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| percent(values.iter().sum::<f64>() / values.len() as f64))
}

/// A threshold as it was written, without the tail that f32 to f64 shows.
fn short(threshold: f32) -> f64 {
    (f64::from(threshold) * 1e6).round() / 1e6
}

fn auroc(peaks: &[(f32, bool)]) -> Option<f64> {
    let (defective, clean): (Vec<&(f32, bool)>, Vec<&(f32, bool)>) = peaks.iter().partition(|p| p.1);
    if defective.is_empty() || clean.is_empty() {
        return None;
    }
    let mut wins = 0.0;
    for d in &defective {
        for c in &clean {
            wins += if d.0 > c.0 {
                1.0
            } else if d.0 == c.0 {
                0.5
            } else {
                0.0
            };
        }
    }
    Some(percent(wins / (defective.len() * clean.len()) as f64))
}

pub(super) fn build(s: &Scorer) -> Report {
    let pixels = s.pixels.curve();
    let tolerant = s.tolerant.curve();
    let at = s.thresholds.iter().position(|t| *t == s.settings.threshold).unwrap_or(0);
    let mut best = 0;
    for i in 1..s.thresholds.len() {
        if s.tallies[i].precision_recall_f1(s.defects).2 > s.tallies[best].precision_recall_f1(s.defects).2 {
            best = i;
        }
    }
    let (p, r, f1) = s.tallies[at].precision_recall_f1(s.defects);
    let (best_p, best_r, best_f1) = s.tallies[best].precision_recall_f1(s.defects);
    let (defects, pairs) = (s.defects.max(1) as f64, s.pairs.len().max(1) as f64);
    let recall_within = |limit: f64| {
        let allowed = s.tallies.iter().filter(|t| t.false_alarms as f64 / pairs <= limit);
        percent(allowed.map(|t| t.hits as f64 / defects).fold(0.0, f64::max))
    };
    let clean = (s.clean_pairs > 0).then(|| {
        let rate = |i: usize| percent(s.tallies[i].clean_alarms as f64 / s.clean_pairs as f64);
        Clean { alarm_rate: rate(at), alarm_rate_best: rate(best) }
    });
    let by_size = SIZE_EDGES_PX
        .iter()
        .enumerate()
        .filter_map(|(i, from)| {
            let to = SIZE_EDGES_PX.get(i + 1).copied();
            let members: Vec<_> = s.sizes.iter().filter(|m| m.0 >= *from && to.is_none_or(|t| m.0 < t)).collect();
            let share = |f: fn(&(f64, bool, bool)) -> bool| {
                percent(members.iter().filter(|m| f(m)).count() as f64 / members.len() as f64)
            };
            (!members.is_empty()).then(|| SizeRecall {
                from_px: *from,
                to_px: to,
                defects: members.len(),
                hit: share(|m| m.1),
                matched: share(|m| m.2),
            })
        })
        .collect();
    let per_pair: Vec<f64> = s.pairs.iter().filter_map(|p| p.pixel_ap).collect();
    Report {
        pairs: s.pairs.len(),
        defects: s.defects,
        clean_pairs: s.clean_pairs,
        refused: s.refused,
        pixel: Pixel {
            ap: percent_if(pixels.average_precision),
            max_f1: percent_if(pixels.max_f1),
            thr: (pixels.best_threshold * 1e4).round() / 1e4,
            iou: percent_if(pixels.max_f1 / (2.0 - pixels.max_f1)),
            ap_tol: percent_if(tolerant.average_precision),
            max_f1_tol: percent_if(tolerant.max_f1),
            ap_img: mean(&per_pair),
            f1_img: mean(&s.pair_f1),
        },
        object: Object {
            thr: short(s.settings.threshold),
            p: percent(p),
            r: percent(r),
            f1: percent(f1),
            ap: percent(s.tallies[best].average_precision(s.defects)),
            best_thr: short(s.thresholds[best]),
            best_p: percent(best_p),
            best_r: percent(best_r),
            best_f1: percent(best_f1),
        },
        hit: Hit {
            thr: short(s.settings.threshold),
            recall: percent(s.tallies[at].hits as f64 / defects),
            fa: (s.tallies[at].false_alarms as f64 / pairs * 1e3).round() / 1e3,
            recall_at_0_1: recall_within(0.1),
            recall_at_0_5: recall_within(0.5),
            recall_at_1: recall_within(1.0),
        },
        clean,
        image: (s.clean_pairs > 0).then(|| Image { auroc: auroc(&s.peaks) }),
        by_size,
    }
}

impl std::fmt::Display for Report {
    /// A table for a person; percent unless a unit is given.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let opt = |v: Option<f64>| v.map_or_else(|| "-".to_string(), |v| format!("{v:.2}"));
        writeln!(
            f,
            "pairs {} (clean {}, registration refused {}), defects {}",
            self.pairs, self.clean_pairs, self.refused, self.defects
        )?;
        let p = &self.pixel;
        writeln!(f, "pixel   AP {}   MaxF1 {} (at {})   IoU {}", opt(p.ap), opt(p.max_f1), p.thr, opt(p.iou))?;
        writeln!(f, "        AP {}   MaxF1 {} with outlines tolerant", opt(p.ap_tol), opt(p.max_f1_tol))?;
        writeln!(f, "        AP {}   MaxF1 {} as means over pairs", opt(p.ap_img), opt(p.f1_img))?;
        let o = &self.object;
        writeln!(f, "object  P {:.2}   R {:.2}   F1 {:.2} at {}   AP {:.2}", o.p, o.r, o.f1, o.thr, o.ap)?;
        writeln!(f, "        P {:.2}   R {:.2}   F1 {:.2} at {} (best)", o.best_p, o.best_r, o.best_f1, o.best_thr)?;
        let h = &self.hit;
        writeln!(f, "hit     recall {:.2}   false alarms a pair {:.3} at {}", h.recall, h.fa, h.thr)?;
        writeln!(
            f,
            "        recall {:.2} / {:.2} / {:.2} at 0.1 / 0.5 / 1 false alarms a pair",
            h.recall_at_0_1, h.recall_at_0_5, h.recall_at_1
        )?;
        if let Some(c) = &self.clean {
            writeln!(f, "clean   false rejects {:.2} (at the best threshold {:.2})", c.alarm_rate, c.alarm_rate_best)?;
        }
        if let Some(i) = &self.image {
            writeln!(f, "image   AUROC {}", opt(i.auroc))?;
        }
        for s in &self.by_size {
            let to = s.to_px.map_or_else(|| "   ".to_string(), |t| format!("{t:3}"));
            writeln!(
                f,
                "size    {:3} to {to} px: {:5} defects, hit {:.2}, matched {:.2}",
                s.from_px, s.defects, s.hit, s.matched
            )?;
        }
        Ok(())
    }
}
