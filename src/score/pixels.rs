//! Pooled pixel statistics: histograms over 65536 score levels and the precision-recall curve they give.

use crate::frame::Map;

/// Distinct score levels.
pub(super) const LEVELS: usize = 65536;

/// Counts of scored pixels by level, defective and good.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    defective: Vec<u64>,
    good: Vec<u64>,
}

/// The precision-recall curve of a histogram, from the highest threshold to the lowest.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    pub recall: Vec<f64>,
    pub precision: Vec<f64>,
    /// Area under the curve without interpolation; NaN without defective pixels.
    pub average_precision: f64,
    pub max_f1: f64,
    /// Score of the threshold with the best F1.
    pub best_threshold: f64,
}

fn level(score: f32) -> usize {
    ((score * (LEVELS - 1) as f32 + 0.5) as usize).min(LEVELS - 1)
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { defective: vec![0; LEVELS], good: vec![0; LEVELS] }
    }

    /// Adds all scored pixels; `state` is the mask (0 good, 255 defective) or empty.
    pub(super) fn add(&mut self, map: &Map, state: &[u8]) {
        self.add_where(map, state, |_| true);
    }

    /// Adds defective pixels, and good ones where `counts` holds.
    pub(super) fn add_where(&mut self, map: &Map, state: &[u8], counts: impl Fn(usize) -> bool) {
        for (i, (v, s)) in map.data().iter().zip(state).enumerate() {
            match s {
                255 => self.defective[level(*v)] += 1,
                0 if counts(i) => self.good[level(*v)] += 1,
                _ => {}
            }
        }
    }

    pub(super) fn curve(&self) -> Curve {
        let total: u64 = self.defective.iter().sum();
        if total == 0 {
            let none = Vec::new();
            return Curve {
                recall: none.clone(),
                precision: none,
                average_precision: f64::NAN,
                max_f1: f64::NAN,
                best_threshold: 0.0,
            };
        }
        let (mut hits, mut alarms) = (0u64, 0u64);
        let (mut recall, mut precision) = (Vec::with_capacity(LEVELS), Vec::with_capacity(LEVELS));
        let (mut area, mut before, mut best, mut best_level) = (0.0, 0.0, -1.0, 0);
        for l in (0..LEVELS).rev() {
            hits += self.defective[l];
            alarms += self.good[l];
            let r = hits as f64 / total as f64;
            let p = hits as f64 / (hits + alarms).max(1) as f64;
            area += (r - before) * p;
            before = r;
            let f1 = 2.0 * p * r / (p + r).max(1e-12);
            if f1 > best {
                (best, best_level) = (f1, l);
            }
            recall.push(r);
            precision.push(p);
        }
        let best_threshold = best_level as f64 / (LEVELS - 1) as f64;
        Curve { recall, precision, average_precision: area, max_f1: best, best_threshold }
    }
}

impl Curve {
    /// (recall, precision) where the recall moved on by about 1 / `points` or more, and the last point.
    pub(super) fn thinned(&self, points: usize) -> Vec<(f64, f64)> {
        let step = 1.0 / points.max(2) as f64;
        let mut out: Vec<(f64, f64)> = Vec::new();
        for (r, p) in self.recall.iter().zip(&self.precision) {
            if *r > 0.0 && out.last().is_none_or(|(last, _)| r - last >= step) {
                out.push((*r, *p));
            }
        }
        if let (Some(r), Some(p)) = (self.recall.last(), self.precision.last())
            && out.last() != Some(&(*r, *p))
        {
            out.push((*r, *p));
        }
        out
    }
}

/// Which pixels lie within `reach` (a square) of a defective one without being defective themselves.
pub(super) fn ring(state: &[u8], width: usize, height: usize, reach: usize) -> Vec<bool> {
    let defective: Vec<bool> = state.iter().map(|s| *s == 255).collect();
    let mut near = dilate(&defective, width, height, reach);
    for (n, d) in near.iter_mut().zip(&defective) {
        *n &= !d;
    }
    near
}

/// Dilation by a square of side `2 reach + 1`.
pub(super) fn dilate(mask: &[bool], width: usize, height: usize, reach: usize) -> Vec<bool> {
    if reach == 0 {
        return mask.to_vec();
    }
    let mut across = vec![false; mask.len()];
    for y in 0..height {
        let row = &mask[y * width..(y + 1) * width];
        let out = &mut across[y * width..(y + 1) * width];
        for (x, _) in row.iter().enumerate().filter(|(_, v)| **v) {
            out[x.saturating_sub(reach)..(x + reach + 1).min(width)].fill(true);
        }
    }
    let mut out = vec![false; mask.len()];
    for y in 0..height {
        let row = &across[y * width..(y + 1) * width];
        if row.contains(&true) {
            for below in y.saturating_sub(reach)..(y + reach + 1).min(height) {
                for (o, v) in out[below * width..(below + 1) * width].iter_mut().zip(row) {
                    *o |= v;
                }
            }
        }
    }
    out
}

/// Largest 3x3 mean of the map with unscored pixels at 0; borders mirror without repeating the edge (as OpenCV's default border).
pub(super) fn smoothed_peak(map: &Map, state: &[u8]) -> f32 {
    let (w, h) = map.size();
    let value = |x: usize, y: usize| {
        let i = y * w + x;
        let unscored = state.get(i).is_some_and(|s| *s != 0 && *s != 255);
        if unscored { 0.0 } else { f64::from(map.data()[i]) }
    };
    let around = |i: usize, n: usize| {
        let before = if i > 0 { i - 1 } else { 1.min(n - 1) };
        let after = if i + 1 < n { i + 1 } else { n.saturating_sub(2) };
        [before, i, after]
    };
    let mut best = 0.0f64;
    for y in 0..h {
        for x in 0..w {
            let sum: f64 = around(y, h).iter().map(|v| around(x, w).iter().map(|u| value(*u, *v)).sum::<f64>()).sum();
            best = best.max(sum / 9.0);
        }
    }
    best as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_computed_curve() {
        // Scores from high to low: defect, good, defect, good; unscored pixels do not count.
        let map = Map::from_vec(5, 1, vec![0.9, 0.8, 0.7, 0.6, 0.95]).unwrap();
        let mut h = Histogram::new();
        h.add(&map, &[255, 0, 255, 0, 128]);
        let c = h.curve();
        // P at R = 1/2 is 1, at R = 1 it is 2/3: AP = 1/2 + 1/3; best F1 = 2 (2/3) / (5/3) = 0.8 at score 0.7.
        assert!((c.average_precision - (0.5 + 1.0 / 3.0)).abs() < 1e-12);
        assert!((c.max_f1 - 0.8).abs() < 1e-12);
        assert!((c.best_threshold - 0.7).abs() < 1e-5);
        assert_eq!(c.thinned(10), [(0.5, 1.0), (1.0, 2.0 / 3.0), (1.0, 0.5)]);
        assert!(Histogram::new().curve().average_precision.is_nan());
    }

    #[test]
    fn the_ring_is_the_dilation_less_the_mask() {
        let mut state = vec![0u8; 81];
        state[40] = 255;
        let near = ring(&state, 9, 9, 2);
        assert_eq!(near.iter().filter(|v| **v).count(), 24);
        assert!(!near[40] && near[20] && !near[10]);
        let corner = dilate(
            &{
                let mut m = vec![false; 12];
                m[0] = true;
                m
            },
            4,
            3,
            1,
        );
        assert_eq!(corner.iter().filter(|v| **v).count(), 4);
    }

    #[test]
    fn the_peak_is_a_mean_of_nine() {
        let mut map = Map::new(5, 5);
        map.set(2, 2, 0.9);
        assert!((smoothed_peak(&map, &[]) - 0.1).abs() < 1e-6);
        // Mirrored at the corner the pixel beside it counts twice or four times.
        let mut map = Map::new(5, 5);
        map.set(1, 1, 0.9);
        assert!((smoothed_peak(&map, &[]) - 0.4).abs() < 1e-6);
        let mut state = vec![0u8; 25];
        state[6] = 128;
        assert_eq!(smoothed_peak(&map, &state), 0.0);
    }
}
