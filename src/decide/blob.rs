//! Blobs: what is told about one connected defect.

use std::sync::Arc;

use crate::frame::{Gray, Map};
use crate::geometry::Rect;

use super::MAX_BLOBS;
use super::components::Components;
use super::runs::{self, Run};
use super::zones::Rules;

/// Whether a defect adds to the template or lacks from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sign {
    /// More material than the template shows.
    Added,
    /// Less material than the template shows.
    Missing,
    /// Both, or no difference in gray.
    Mixed,
}

impl Sign {
    /// The word of the event schema.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Sign::Added => "added",
            Sign::Missing => "missing",
            Sign::Mixed => "mixed",
        }
    }
}

/// Which gray is material: decides between [`Sign::Added`] and [`Sign::Missing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Polarity {
    /// Material is brighter than what it lies on (copper, print on dark ground).
    #[default]
    Bright,
    /// Material is darker than what it lies on (ink on paper, back light).
    Dark,
}

/// One defect, in frame pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Blob {
    /// Smallest rectangle that holds it.
    pub bbox: Rect,
    /// Pixels.
    pub area_px: usize,
    /// Mean (x, y) of its pixels.
    pub centroid: (f32, f32),
    /// Highest score, 0..1.
    pub score_max: f32,
    /// Mean score, 0..1.
    pub score_mean: f32,
    /// Added, missing or mixed: one side holds less than a quarter of the total gray difference, or it is mixed.
    pub sign: Sign,
    /// Mean of frame minus warped template over the blob, less the median of that difference around it (light), gray values.
    pub mean_gray_difference: f32,
    /// Name of the zone that holds most of it; empty outside all zones.
    pub zone: Arc<str>,
}

/// The pictures of one frame, all of one size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pictures<'a> {
    pub map: &'a Map,
    pub valid: &'a Gray,
    pub frame: &'a Gray,
    pub warped_template: &'a Gray,
}

/// What [`Gatherer::gather`] found.
#[derive(Debug)]
pub(super) struct Summary {
    pub blobs: Vec<Blob>,
    pub total: usize,
    pub specks: usize,
    pub area_px: usize,
    pub largest_px: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    x0: u32,
    y0: u32,
    x1: u32,
    y1: u32,
    area: u64,
    x: u64,
    y: u64,
    level_max: u16,
    level_sum: u64,
    zone: u8,
    zone_area: u64,
    listed: Option<u32>,
    defect: bool,
}

impl Sums {
    /// Longer side of the box; 0 for an empty component.
    fn longer_side(&self) -> u64 {
        u64::from(self.x1.saturating_sub(self.x0).max(self.y1.saturating_sub(self.y0)))
    }
}

/// Gray differences of a listed blob.
#[derive(Debug, Clone, Copy, Default)]
struct Grays {
    /// Median difference around the blob.
    reference: i32,
    sum: i64,
    brighter: i64,
    darker: i64,
}

/// Distance at which the surroundings of a blob are looked at, px.
const RING_PX: i64 = 5;
/// Most samples of the surroundings.
const RING_SAMPLES: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Gatherer {
    sums: Vec<Sums>,
    zones: Vec<(u32, u8, u64)>,
    order: Vec<u32>,
    grays: Vec<Grays>,
}

impl Gatherer {
    /// Whether component `label` of the last frame is a defect.
    pub fn is_defect(&self, label: usize) -> bool {
        self.sums.get(label).is_some_and(|s| s.defect)
    }

    pub fn gather(
        &mut self,
        runs: &[Run],
        components: &Components,
        rules: &Rules<'_>,
        pictures: Pictures<'_>,
        polarity: Polarity,
    ) -> Summary {
        self.sum_up(runs, components, rules);
        self.order.clear();
        let (mut specks, mut area_px, mut largest_px) = (0, 0, 0);
        for (i, s) in self.sums.iter_mut().enumerate() {
            s.defect = rules.get(s.zone).is_some_and(|r| s.area >= r.min_area as u64 && s.longer_side() >= r.min_size as u64);
            if s.defect {
                self.order.push(i as u32);
                area_px += s.area as usize;
                largest_px = largest_px.max(s.area as usize);
            } else {
                specks += 1;
            }
        }
        let total = self.order.len();
        let sums = &self.sums;
        self.order.sort_unstable_by_key(|&i| (std::cmp::Reverse(sums[i as usize].area), i));
        self.order.truncate(MAX_BLOBS);
        self.differences(runs, components, pictures);

        let blobs = self.order.iter().zip(&self.grays);
        let blobs = blobs
            .map(|(&i, g)| {
                let s = &self.sums[i as usize];
                let n = s.area as f64;
                let more = match polarity {
                    Polarity::Bright => (g.brighter, g.darker),
                    Polarity::Dark => (g.darker, g.brighter),
                };
                Blob {
                    bbox: Rect {
                        x: s.x0 as usize,
                        y: s.y0 as usize,
                        width: (s.x1 - s.x0) as usize,
                        height: (s.y1 - s.y0) as usize,
                    },
                    area_px: s.area as usize,
                    centroid: ((s.x as f64 / n) as f32, (s.y as f64 / n) as f32),
                    score_max: runs::score(s.level_max),
                    score_mean: (s.level_sum as f64 / n / 65535.0) as f32,
                    sign: match more {
                        (a, b) if a > 3 * b => Sign::Added,
                        (a, b) if b > 3 * a => Sign::Missing,
                        _ => Sign::Mixed,
                    },
                    mean_gray_difference: (g.sum as f64 / n) as f32,
                    zone: rules.name(s.zone),
                }
            })
            .collect();
        Summary { blobs, total, specks, area_px, largest_px }
    }

    /// Area, sums, box and zone of every component.
    fn sum_up(&mut self, runs: &[Run], components: &Components, rules: &Rules<'_>) {
        self.sums.clear();
        self.sums.resize(components.count(), Sums { x0: u32::MAX, y0: u32::MAX, ..Sums::default() });
        self.zones.clear();
        for (run, label) in runs.iter().zip(components.labels()) {
            let Some(label) = label.get() else { continue };
            let s = &mut self.sums[label];
            let n = u64::from(run.x1 - run.x0);
            s.x0 = s.x0.min(run.x0);
            s.x1 = s.x1.max(run.x1);
            s.y0 = s.y0.min(run.y);
            s.y1 = s.y1.max(run.y + 1);
            s.area += n;
            s.x += (u64::from(run.x0) + u64::from(run.x1) - 1) * n / 2; // a sum of consecutive numbers is whole
            s.y += u64::from(run.y) * n;
            s.level_max = s.level_max.max(run.level_max);
            s.level_sum += run.level_sum;
            if rules.has_zones() {
                self.zones.push((label as u32, run.zone, n));
            }
        }
        // The zone with most of the component's pixels; the earlier one when equal.
        self.zones.sort_unstable_by_key(|&(label, zone, _)| (label, zone));
        let mut i = 0;
        while i < self.zones.len() {
            let (label, zone, _) = self.zones[i];
            let mut area = 0;
            while i < self.zones.len() && (self.zones[i].0, self.zones[i].1) == (label, zone) {
                area += self.zones[i].2;
                i += 1;
            }
            let s = &mut self.sums[label as usize];
            if area > s.zone_area {
                (s.zone, s.zone_area) = (zone, area);
            }
        }
    }

    /// Gray differences of the listed blobs.
    fn differences(&mut self, runs: &[Run], components: &Components, pictures: Pictures<'_>) {
        self.grays.clear();
        for (place, &i) in self.order.iter().enumerate() {
            let s = &mut self.sums[i as usize];
            s.listed = Some(place as u32);
            let reference = surroundings(s, pictures);
            self.grays.push(Grays { reference, ..Grays::default() });
        }
        for (run, label) in runs.iter().zip(components.labels()) {
            let Some(place) = label.get().and_then(|l| self.sums[l].listed) else { continue };
            let g = &mut self.grays[place as usize];
            let span = run.x0 as usize..run.x1 as usize;
            let frame = &pictures.frame.row(run.y as usize)[span.clone()];
            let template = &pictures.warped_template.row(run.y as usize)[span];
            for (&f, &t) in frame.iter().zip(template) {
                let d = i64::from(i32::from(f) - i32::from(t) - g.reference);
                g.sum += d;
                if d > 0 {
                    g.brighter += d;
                } else {
                    g.darker -= d;
                }
            }
        }
    }
}

/// Median of frame minus template at places around the blob that the template covers and whose score is under a half of the blob's
/// mean; 0 when there is none. Scores are seen by their level, as everywhere in the decision.
fn surroundings(s: &Sums, pictures: Pictures<'_>) -> i32 {
    let (w, h) = (pictures.map.width() as i64, pictures.map.height() as i64);
    let (x0, y0) = (i64::from(s.x0) - RING_PX, i64::from(s.y0) - RING_PX);
    let (x1, y1) = (i64::from(s.x1) - 1 + RING_PX, i64::from(s.y1) - 1 + RING_PX);
    let (across, down) = (x1 - x0, y1 - y0);
    let length = 2 * (across + down);
    let quiet = (s.level_sum as f64 / s.area as f64 / 65535.0 / 2.0) as f32;
    let mut found = [0i32; RING_SAMPLES];
    let mut n = 0;
    for k in 0..RING_SAMPLES as i64 {
        let at = k * length / RING_SAMPLES as i64;
        let (x, y) = if at < across {
            (x0 + at, y0)
        } else if at < across + down {
            (x1, y0 + at - across)
        } else if at < 2 * across + down {
            (x1 - (at - across - down), y1)
        } else {
            (x0, y1 - (at - 2 * across - down))
        };
        if x < 0 || y < 0 || x >= w || y >= h {
            continue;
        }
        let (x, y) = (x as usize, y as usize);
        if pictures.valid.get(x, y) != 0 && runs::score(runs::level(pictures.map.get(x, y))) < quiet {
            found[n] = i32::from(pictures.frame.get(x, y)) - i32::from(pictures.warped_template.get(x, y));
            n += 1;
        }
    }
    if n == 0 {
        return 0;
    }
    let found = &mut found[..n];
    found.sort_unstable();
    found[n / 2]
}
