//! Components of a thresholded map as objects, and how they match true boxes.

use super::Settings;
use super::components::label8;
use super::pixels::dilate;
use crate::dataset::Box4;
use crate::frame::{Gray, Map};

/// How near a component must come to a true box to hit it, px.
const HIT_MARGIN_PX: i64 = 2;

/// Components of one map at one threshold.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Kept objects, in the order of [`block_key`].
    pub objects: Vec<Object>,
    /// For each pixel the object's index + 1, or 0.
    labels: Vec<u32>,
    width: usize,
    height: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    /// Box grown by the protocol's padding.
    pub bounds: Box4,
    /// Highest score in it.
    pub peak: f32,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    area: usize,
    unscored: usize,
    peak: f32,
    x: (usize, usize),
    y: (usize, usize),
    key: usize,
}

/// Where a scan by 2x2 blocks first meets a pixel: ties in score are ranked in this order, that of OpenCV's labelling.
fn block_key(x: usize, y: usize, width: usize) -> usize {
    (y / 2) * width.div_ceil(2) + x / 2
}

/// Finds the objects of `map >= threshold`.
pub(super) fn components(map: &Map, threshold: f32, settings: &Settings, state: &[u8]) -> Found {
    let (w, h) = map.size();
    let inside: Vec<bool> = map.data().iter().map(|v| *v >= threshold).collect();
    let none = Found { objects: Vec::new(), labels: Vec::new(), width: w, height: h };
    if !inside.contains(&true) {
        return none;
    }
    let joined = dilate(&inside, w, h, settings.merge_px);
    let mut groups = label8(w, h, |i| joined[i]);
    let empty = Extent { area: 0, unscored: 0, peak: 0.0, x: (usize::MAX, 0), y: (usize::MAX, 0), key: usize::MAX };
    let mut extents = vec![empty; groups.count + 1];
    for y in 0..h {
        for x in 0..w {
            let i = y * w + x;
            if groups.labels[i] != 0 {
                let e = &mut extents[groups.labels[i] as usize];
                e.key = e.key.min(block_key(x, y, w));
                if inside[i] {
                    e.area += 1;
                    e.unscored += usize::from(state.get(i).is_some_and(|s| *s != 0 && *s != 255));
                    e.peak = e.peak.max(map.data()[i]);
                    e.x = (e.x.0.min(x), e.x.1.max(x + 1));
                    e.y = (e.y.0.min(y), e.y.1.max(y + 1));
                } else {
                    groups.labels[i] = 0;
                }
            }
        }
    }
    let mut kept: Vec<usize> = (1..extents.len())
        .filter(|i| extents[*i].area >= settings.min_area_px && 2 * extents[*i].unscored <= extents[*i].area)
        .collect();
    kept.sort_by_key(|i| extents[*i].key);
    let mut number = vec![0u32; extents.len()];
    let objects = kept
        .iter()
        .enumerate()
        .map(|(n, i)| {
            number[*i] = n as u32 + 1;
            let e = &extents[*i];
            Object { bounds: grown(e.x, e.y, settings.pad_px, w, h), peak: e.peak }
        })
        .collect();
    for l in &mut groups.labels {
        *l = number[*l as usize];
    }
    Found { objects, labels: groups.labels, width: w, height: h }
}

fn grown(x: (usize, usize), y: (usize, usize), pad: usize, width: usize, height: usize) -> Box4 {
    [
        x.0.saturating_sub(pad) as f64,
        y.0.saturating_sub(pad) as f64,
        (x.1 + pad).min(width) as f64,
        (y.1 + pad).min(height) as f64,
    ]
}

/// Boxes of a mask's defects (value 255), pieces nearer than about `2 merge_px` joined, grown by `pad_px`.
#[must_use]
pub fn boxes_of_mask(mask: &Gray, merge_px: usize, pad_px: usize) -> Vec<Box4> {
    let (w, h) = mask.size();
    let map = Map::from_fn(w, h, |x, y| if mask.get(x, y) == 255 { 1.0 } else { 0.0 });
    let settings = Settings { merge_px, pad_px, min_area_px: 1, ..Settings::default() };
    components(&map, 0.5, &settings, &[]).objects.into_iter().map(|o| o.bounds).collect()
}

fn intersection_over_union(a: &Box4, b: &Box4) -> f64 {
    let w = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let h = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |r: &Box4| (r[2] - r[0]) * (r[3] - r[1]);
    w * h / (area(a) + area(b) - w * h).max(1e-9)
}

/// Counts at one threshold over all pairs.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub detections: usize,
    pub matched: usize,
    pub hits: usize,
    pub false_alarms: usize,
    pub clean_alarms: usize,
    /// Peak and whether matched, of every object.
    pub ranked: Vec<(f32, bool)>,
}

/// One pair at one threshold.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub detections: usize,
    pub matched: usize,
    pub missed: usize,
    pub false_alarms: usize,
    /// Per true box: touched by an object.
    pub hits: Vec<bool>,
    /// Per true box: matched one to one.
    pub box_matched: Vec<bool>,
}

impl Tally {
    /// Matches one pair's objects with its boxes and adds the counts.
    pub(super) fn add(&mut self, found: &Found, boxes: &[Box4], settings: &Settings, clean: bool) -> Outcome {
        let mut order: Vec<usize> = (0..found.objects.len()).collect();
        order.sort_by(|a, b| found.objects[*b].peak.total_cmp(&found.objects[*a].peak));
        let mut box_matched = vec![false; boxes.len()];
        let mut flags = vec![false; found.objects.len()];
        for o in order {
            let mut best: Option<(f64, usize)> = None;
            for (g, b) in boxes.iter().enumerate().filter(|(g, _)| !box_matched[*g]) {
                let iou = intersection_over_union(&found.objects[o].bounds, b);
                if best.is_none_or(|(top, _)| iou > top) {
                    best = Some((iou, g));
                }
            }
            if let Some((iou, g)) = best
                && iou >= settings.iou
            {
                box_matched[g] = true;
                flags[o] = true;
            }
        }
        let mut touched = vec![false; found.objects.len()];
        let hits: Vec<bool> = boxes.iter().map(|b| touch(found, b, &mut touched)).collect();
        let outcome = Outcome {
            detections: found.objects.len(),
            matched: flags.iter().filter(|f| **f).count(),
            missed: hits.iter().filter(|h| !**h).count(),
            false_alarms: touched.iter().filter(|t| !**t).count(),
            hits,
            box_matched,
        };
        self.detections += outcome.detections;
        self.matched += outcome.matched;
        self.hits += boxes.len() - outcome.missed;
        self.false_alarms += outcome.false_alarms;
        self.clean_alarms += usize::from(clean && !found.objects.is_empty());
        self.ranked.extend(found.objects.iter().zip(&flags).map(|(o, f)| (o.peak, *f)));
        outcome
    }

    /// Precision, recall and F1 of the one-to-one matches.
    pub(super) fn precision_recall_f1(&self, defects: usize) -> (f64, f64, f64) {
        let p = self.matched as f64 / self.detections.max(1) as f64;
        let r = self.matched as f64 / defects.max(1) as f64;
        (p, r, 2.0 * p * r / (p + r).max(1e-12))
    }

    /// Average precision of the objects ranked by peak.
    pub(super) fn average_precision(&self, defects: usize) -> f64 {
        let mut ranked = self.ranked.clone();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut right, mut sum) = (0usize, 0.0);
        for (i, (_, matched)) in ranked.iter().enumerate() {
            if *matched {
                right += 1;
                sum += right as f64 / (i + 1) as f64;
            }
        }
        sum / defects.max(1) as f64
    }
}

/// Marks the objects with a pixel in the box or within the margin; whether there is any.
fn touch(found: &Found, b: &Box4, touched: &mut [bool]) -> bool {
    if found.objects.is_empty() {
        return false;
    }
    let range = |low: f64, high: f64, size: usize| {
        let first = (low as i64 - HIT_MARGIN_PX).clamp(0, size as i64) as usize;
        let last = (high as i64 + HIT_MARGIN_PX).clamp(0, size as i64) as usize;
        first..last.max(first)
    };
    let mut any = false;
    for y in range(b[1], b[3], found.height) {
        for x in range(b[0], b[2], found.width) {
            let l = found.labels[y * found.width + x];
            if l != 0 {
                touched[l as usize - 1] = true;
                any = true;
            }
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map_of(rows: &[&str]) -> Map {
        Map::from_fn(rows[0].len(), rows.len(), |x, y| f32::from(rows[y].as_bytes()[x] - b'0') / 10.0)
    }

    fn plain() -> Settings {
        Settings { merge_px: 0, pad_px: 0, min_area_px: 1, ..Settings::default() }
    }

    #[test]
    fn objects_have_boxes_peaks_and_a_smallest_area() {
        let map = map_of(&["0660000", "0090000", "0000007", "0000060"]);
        let found = components(&map, 0.5, &plain(), &[]);
        assert_eq!(
            found.objects,
            [Object { bounds: [1.0, 0.0, 3.0, 2.0], peak: 0.9 }, Object { bounds: [5.0, 2.0, 7.0, 4.0], peak: 0.7 }]
        );
        let large = Settings { min_area_px: 3, pad_px: 1, ..plain() };
        assert_eq!(components(&map, 0.5, &large, &[]).objects, [Object { bounds: [0.0, 0.0, 4.0, 3.0], peak: 0.9 }]);
        // Nearer than 2 x 2 px: one object.
        let merged = components(&map, 0.5, &Settings { merge_px: 2, ..plain() }, &[]);
        assert_eq!(merged.objects, [Object { bounds: [1.0, 0.0, 7.0, 4.0], peak: 0.9 }]);
        // More than half unscored: no object.
        let mut state = vec![0u8; 28];
        (state[20], state[26]) = (128, 0);
        assert_eq!(components(&map, 0.5, &plain(), &state).objects.len(), 2);
        state[26] = 128;
        assert_eq!(components(&map, 0.5, &plain(), &state).objects.len(), 1);
    }

    #[test]
    fn matching_is_one_to_one_and_highest_first() {
        let map = map_of(&["0660000", "0090000", "0000000", "0000007"]);
        let found = components(&map, 0.5, &plain(), &[]);
        let mut tally = Tally::default();
        // Both boxes overlap the first object; nothing is near the second.
        let outcome = tally.add(&found, &[[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 3.0, 2.0]], &plain(), false);
        assert_eq!((outcome.detections, outcome.matched, outcome.missed, outcome.false_alarms), (2, 1, 0, 1));
        assert_eq!(outcome.box_matched, [true, false]);
        assert_eq!(tally.precision_recall_f1(2), (0.5, 0.5, 0.5));
        // Ranked: match, miss -> AP = 1/2 of two defects.
        assert_eq!(tally.average_precision(2), 0.5);
        let mut tally = Tally::default();
        let outcome = tally.add(&found, &[], &plain(), true);
        assert_eq!((outcome.false_alarms, tally.clean_alarms), (2, 1));
    }

    #[test]
    fn a_near_box_is_hit_though_not_matched() {
        let map = map_of(&["00000000", "00000000", "00000009"]);
        let found = components(&map, 0.5, &plain(), &[]);
        let hit = |b: Box4| Tally::default().add(&found, &[b], &plain(), false).hits[0];
        assert!(hit([0.0, 0.0, 6.0, 2.0]));
        assert!(!hit([0.0, 0.0, 5.0, 2.0]));
    }

    #[test]
    fn boxes_of_a_mask_join_near_pieces() {
        let mut mask = Gray::new(60, 20);
        for x in [5, 6, 12, 40] {
            mask.set(x, 9, 255);
        }
        mask.set(30, 9, 128);
        assert_eq!(boxes_of_mask(&mask, 4, 3), [[2.0, 6.0, 16.0, 13.0], [37.0, 6.0, 44.0, 13.0]]);
    }
}
