//! Runs: stretches of one row that are judged, reach the low threshold and lie in one zone.
//!
//! One pass over the map. Whole stretches of a row below everything of interest cost a maximum and a check for finite values; the
//! cover of the template, the edge margin and the zone are looked up only for pixels that could matter.

use crate::error::{Error, Result};
use crate::frame::{Gray, Map};

use super::PlacedZones;
use super::zones::Rules;

/// The 16-bit level of a score; `frame::save_map_png` writes the same number.
#[inline]
pub(super) fn level(score: f32) -> u16 {
    let scaled = score.clamp(0.0, 1.0) * 65535.0;
    // `f32::round` without its library call: the difference to the whole part is exact.
    let whole = scaled as u16;
    whole + u16::from(scaled - f32::from(whole) >= 0.5)
}

/// The score that a level stands for.
#[inline]
pub(super) fn score(level: u16) -> f32 {
    f32::from(level) / 65535.0
}

/// Lowest level that reaches the threshold `t`, 0 < t <= 1.
pub(super) fn threshold_level(t: f32) -> u16 {
    (f64::from(t) * 65535.0).ceil() as u16
}

/// One stretch: columns `x0..x1` of row `y`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub y: u32,
    pub x0: u32,
    pub x1: u32,
    /// Index of its rule.
    pub zone: u8,
    /// Whether a pixel reaches the high threshold.
    pub high: bool,
    pub level_max: u16,
    pub level_sum: u64,
}

/// Pixels looked at together.
const STRETCH: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Extractor {
    runs: Vec<Run>,
    judged: JudgedRow,
}

impl Extractor {
    /// The runs of the last map, by row, then column.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Finds the runs of `map`; returns the highest level of a judged pixel.
    pub fn extract(
        &mut self,
        map: &Map,
        valid: &Gray,
        margin: usize,
        rules: &Rules<'_>,
        zones: Option<PlacedZones<'_>>,
    ) -> Result<u16> {
        self.runs.clear();
        let lowest = rules.lowest();
        let mut best = 0u16;
        // A level step below the lowest score that rounds to the level of interest, so that the quick look never misses one.
        let floor_of = |level: u16| (f32::from(level) - 0.75) / 65535.0;
        let mut floor = floor_of(lowest.min(1));
        for y in 0..map.height() {
            let row = map.row(y);
            let mut prepared = false;
            let row_start = self.runs.len();
            for x_start in (0..row.len()).step_by(STRETCH) {
                let stretch = &row[x_start..row.len().min(x_start + STRETCH)];
                let (highest, finite) = peak(stretch);
                if !finite {
                    let at = stretch.iter().position(|v| !v.is_finite()).unwrap_or(0);
                    return Err(Error::data(format!(
                        "defect map: score {} at ({}, {y}), a finite number was wanted",
                        stretch[at],
                        x_start + at
                    )));
                }
                if highest < floor {
                    continue;
                }
                if !prepared {
                    self.judged.prepare(valid, y, margin);
                    prepared = true;
                }
                let judged = if margin == 0 { valid.row(y) } else { &self.judged.row };
                for (i, &value) in stretch.iter().enumerate() {
                    let x = x_start + i;
                    if value < floor || judged[x] == 0 {
                        continue;
                    }
                    let level = level(value);
                    let zone = match zones {
                        None => 0,
                        Some(z) => z.map.rule_at(z.template_from_frame, x, y),
                    };
                    let Some(rule) = rules.get(zone) else { continue };
                    if level > best {
                        best = level;
                        floor = floor_of(lowest.min(best.saturating_add(1)));
                    }
                    if level < rule.low {
                        continue;
                    }
                    let high = level >= rule.high;
                    match self.runs[row_start..].last_mut() {
                        Some(run) if run.x1 as usize == x && run.zone == zone => {
                            run.x1 += 1;
                            run.high |= high;
                            run.level_max = run.level_max.max(level);
                            run.level_sum += u64::from(level);
                        }
                        _ => self.runs.push(Run {
                            y: y as u32,
                            x0: x as u32,
                            x1: x as u32 + 1,
                            zone,
                            high,
                            level_max: level,
                            level_sum: u64::from(level),
                        }),
                    }
                }
            }
        }
        Ok(best)
    }
}

/// Highest value and whether all are finite; written so that it runs on vector units.
#[inline]
fn peak(values: &[f32]) -> (f32, bool) {
    const LANES: usize = 8;
    const EXPONENT: u32 = 0x7f80_0000;
    let mut top = [f32::NEG_INFINITY; LANES];
    let mut bad = [0u32; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            top[i] = if chunk[i] > top[i] { chunk[i] } else { top[i] };
            bad[i] |= u32::from(chunk[i].to_bits() & EXPONENT == EXPONENT);
        }
    }
    for (i, &v) in chunks.remainder().iter().enumerate() {
        top[i] = if v > top[i] { v } else { top[i] };
        bad[i] |= u32::from(!v.is_finite());
    }
    (top.iter().copied().fold(f32::NEG_INFINITY, f32::max), bad.iter().all(|&b| b == 0))
}

/// One row of the judged pixels: covered by the template, and no uncovered pixel nor frame border within the margin (Chebyshev).
#[derive(Debug, Default)]
struct JudgedRow {
    row: Vec<u8>,
}

impl JudgedRow {
    /// Computes row `y` for a margin above 0 (with a margin of 0 the row of `valid` itself serves).
    fn prepare(&mut self, valid: &Gray, y: usize, margin: usize) {
        let (width, height) = valid.size();
        if margin == 0 {
            return;
        }
        self.row.clear();
        if y < margin || y + margin >= height {
            self.row.resize(width, 0);
            return;
        }
        self.row.resize(width, 255);
        for other in y - margin..=y + margin {
            for (a, &b) in self.row.iter_mut().zip(valid.row(other)) {
                *a &= if b != 0 { 255 } else { 0 };
            }
        }
        // Horizontal erosion in place. What is cleared for being near an uncovered column must not clear its own neighbours, so it is
        // marked with 1 until the end when it lies ahead; the frame's ends count as uncovered.
        let mut near_until = margin;
        for x in 0..width {
            if self.row[x] == 0 {
                self.row[x.saturating_sub(margin)..x].fill(0);
                near_until = x + margin + 1;
            } else if x < near_until {
                self.row[x] = 1;
            }
        }
        self.row[width.saturating_sub(margin)..].fill(0);
        for v in &mut self.row {
            *v &= 0xfe;
        }
    }
}
