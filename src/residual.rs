//! Removal of what registration leaves: a small shift between the warped template and the frame, global and smoothly local.
//!
//! A similarity cannot follow a bent board, a swapped lens or a template taken on another day: a quarter of the published "aligned"
//! pairs of DeepPCB is off by 1-4 px. Between registration and the network, [`Remover::remove`] estimates a shift for every block of
//! [`Settings::block_px`] and moves the template by a smooth field made of them.
//!
//! Input: template warped to the frame, its validity (255 where the template covers the frame pixel, else 0), frame; all of one size,
//! 8-bit gray. Output: the template moved, and its validity moved along.
//!
//! Method: both pictures are normalised by local mean and deviation, so that lighting drops out; every whole-pixel shift up to
//! [`Settings::reach_px`] costs the truncated absolute difference, summed per block (truncation keeps defects from pulling); the shifts
//! minimise block costs plus a quadratic penalty on differences between neighbours (iterated conditional modes, started at the best
//! global shift), so that blocks without structure, or with edges of one direction only, follow their neighbours; parabolas give
//! fractions of a pixel. A shift is used only where it pays, and where blocks of their own gain little the template moves as a whole by
//! whole pixels, which keeps edges as sharp as they were.
//!
//! Limits: shifts beyond the reach are not found; a defect that displaces structure over more than a block counts as shift.

use crate::error::{Error, Result};
use crate::frame::Gray;

/// How residual shift is estimated and removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Largest shift looked for along an axis, whole px, 0..=8; 0 switches the removal off.
    pub reach_px: usize,
    /// Side of the blocks with a shift of their own, px, 16..=256.
    pub block_px: usize,
    /// Weight of the squared difference between neighbouring blocks' shifts against the mean cost of a pixel (0..255), 0 or more.
    pub stiffness: f32,
    /// Share of the cost that moving must save, 0..1; a smaller gain leaves the template as it is.
    pub least_gain: f32,
    /// Share of the cost that moving blocks on their own must save beyond moving all alike, 0..1.
    pub least_local_gain: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reach_px: 6, block_px: 48, stiffness: 1.5, least_gain: 0.02, least_local_gain: 0.2 }
    }
}

impl Settings {
    /// Whether every value lies in its range.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] naming the value and its range.
    pub fn check(&self) -> Result<()> {
        if self.reach_px > 8 {
            return Err(Error::config(format!("residual.reach_px must be between 0 and 8, got {}", self.reach_px)));
        }
        if !(16..=256).contains(&self.block_px) {
            return Err(Error::config(format!("residual.block_px must be between 16 and 256, got {}", self.block_px)));
        }
        for (name, value, most) in [
            ("stiffness", self.stiffness, 1e3),
            ("least_gain", self.least_gain, 1.0),
            ("least_local_gain", self.least_local_gain, 1.0),
        ] {
            if !(value >= 0.0 && value <= most) {
                return Err(Error::config(format!("residual.{name} must be between 0 and {most}, got {value}")));
            }
        }
        Ok(())
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Residual {
    /// Best whole-pixel shift of all blocks together: template content moves by (x, y).
    pub global_px: (i32, i32),
    /// Shift of every block, row-major, px: template content there moves by (x, y).
    pub blocks: Vec<[f32; 2]>,
    /// Blocks in a row.
    pub columns: usize,
    /// Rows of blocks.
    pub rows: usize,
    /// Mean cost before, 0..255.
    pub cost_before: f32,
    /// Mean cost after, by whole-pixel shifts (the cost before when the template was left alone).
    pub cost_after: f32,
    /// Largest shift applied anywhere, px (0: the template was left alone).
    pub largest_px: f32,
}

/// Normalised differences above this count no more: what differs this much is a defect, not misfit.
const TRUNCATION: u8 = 96;
/// Half width of the window for local mean and deviation, px.
const WINDOW_PX: usize = 20;
/// Added to the local deviation, gray values, so that noise in flat areas stays small.
const FLOOR: f32 = 12.0;
/// Mean cost that moving must save at least, 0..255: less is noise.
const LEAST_SAVING: f32 = 0.05;
/// Costs are summed over every so manyth row: shifts and blocks are much larger.
const ROW_STEP: usize = 3;
/// Sweeps of iterated conditional modes.
const SWEEPS: usize = 12;

/// One thread's scratch.
#[derive(Debug, Clone)]
pub struct Remover {
    settings: Settings,
    template: Vec<u8>,
    frame: Vec<u8>,
    costs: Vec<f32>,
    counts: Vec<f32>,
    line: Vec<u8>,
    mask: Vec<u8>,
    spans: Vec<(usize, usize)>,
    labels: Vec<usize>,
    fine: Vec<[f32; 2]>,
    window: Window,
    found: Residual,
    source: Gray,
    covered: Gray,
    across: Vec<(usize, usize, f32)>,
}

/// Sums for local means and deviations.
#[derive(Debug, Clone, Default)]
struct Window {
    source: Vec<u8>,
    /// Sum and sum of squares over the window's rows, a column.
    columns: Vec<[u32; 2]>,
    /// Their sums from the left edge.
    sums: Vec<u32>,
    squares: Vec<u64>,
}

impl Remover {
    /// Scratch for one thread.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn new(settings: &Settings) -> Result<Self> {
        settings.check()?;
        Ok(Self {
            settings: settings.clone(),
            template: Vec::new(),
            frame: Vec::new(),
            costs: Vec::new(),
            counts: Vec::new(),
            line: Vec::new(),
            mask: Vec::new(),
            spans: Vec::new(),
            labels: Vec::new(),
            fine: Vec::new(),
            window: Window::default(),
            found: Residual::default(),
            source: Gray::default(),
            covered: Gray::default(),
            across: Vec::new(),
        })
    }

    /// Moves `template` and `valid` so that the template lies on the frame; both are changed in place.
    ///
    /// Pixels that came from beyond the picture's edge repeat the edge.
    ///
    /// # Errors
    /// [`crate::error::Kind::Data`] when the three pictures differ in size.
    pub fn remove(&mut self, template: &mut Gray, valid: &mut Gray, frame: &Gray) -> Result<&Residual> {
        self.estimate(template, valid, frame)?;
        if self.found.largest_px > 0.0 {
            self.apply(template, valid);
        }
        Ok(&self.found)
    }

    /// Estimates without moving.
    ///
    /// # Errors
    /// As [`Remover::remove`].
    pub fn estimate(&mut self, template: &Gray, valid: &Gray, frame: &Gray) -> Result<&Residual> {
        let (w, h) = frame.size();
        if template.size() != (w, h) || valid.size() != (w, h) {
            return Err(Error::data(format!(
                "residual shift needs pictures of one size, got template {:?}, validity {:?}, frame {:?}",
                template.size(),
                valid.size(),
                frame.size()
            )));
        }
        let Settings { reach_px: reach, block_px, least_gain, least_local_gain, .. } = self.settings;
        let (columns, rows) = (w.div_ceil(block_px), h.div_ceil(block_px));
        let blocks = columns * rows;
        let mut moved = std::mem::take(&mut self.found.blocks);
        moved.clear();
        moved.resize(blocks, [0.0; 2]);
        self.found = Residual { blocks: moved, columns, rows, ..Residual::default() };
        if reach == 0 || w <= 4 * reach || h <= 4 * reach {
            return Ok(&self.found);
        }
        normalise(template, valid, &mut self.window, &mut self.template);
        normalise(frame, valid, &mut self.window, &mut self.frame);
        let side = 2 * reach + 1;
        let shifts = side * side;
        self.block_costs(valid, w, h, columns, rows);

        // The one shift that is best for all blocks.
        let total: f32 = self.counts.iter().sum();
        if total == 0.0 {
            return Ok(&self.found);
        }
        let sum_at = |k: usize| (0..blocks).map(|b| self.costs[b * shifts + k]).sum::<f32>() / total;
        let centre = shifts / 2;
        let before = sum_at(centre);
        // Ties and near ties go to the smaller shift.
        let bias = |k: usize| {
            let (dx, dy) = ((k % side) as f32 - reach as f32, (k / side) as f32 - reach as f32);
            1e-3 * (dx * dx + dy * dy)
        };
        let best = (0..shifts).min_by(|a, b| (sum_at(*a) + bias(*a)).total_cmp(&(sum_at(*b) + bias(*b)))).unwrap_or(centre);
        let rigid = sum_at(best);

        self.relax(best, columns, rows);
        let after = (0..blocks).map(|b| self.costs[b * shifts + self.labels[b]]).sum::<f32>() / total;
        let local = after < rigid * (1.0 - least_local_gain);
        let cost_after = if local { after } else { rigid };
        let global = [(best % side) as f32 - reach as f32, (best / side) as f32 - reach as f32];
        self.found.global_px = (global[0] as i32, global[1] as i32);
        self.found.cost_before = before;
        if cost_after > before * (1.0 - least_gain) || before - cost_after < LEAST_SAVING {
            self.found.cost_after = before;
            return Ok(&self.found);
        }
        self.found.cost_after = cost_after;
        if local {
            self.sub_pixel(columns, rows);
        } else {
            self.found.blocks.fill(global);
        }
        self.found.largest_px = self.found.blocks.iter().map(|b| (b[0] * b[0] + b[1] * b[1]).sqrt()).fold(0.0, f32::max);
        Ok(&self.found)
    }

    /// Sums of truncated differences for every block and shift. Shift `k` = (dx, dy) compares frame(x, y) with template(x - dx, y - dy).
    fn block_costs(&mut self, valid: &Gray, w: usize, h: usize, columns: usize, rows: usize) {
        let (reach, block) = (self.settings.reach_px, self.settings.block_px);
        let side = 2 * reach + 1;
        let shifts = side * side;
        self.costs.clear();
        self.costs.resize(columns * rows * shifts, 0.0);
        self.counts.clear();
        self.counts.resize(columns * rows, 0.0);
        self.mask.resize(w, 0);
        self.line.resize(w, 0);
        let inner = reach..w - reach;
        let span = |b: usize| ((b * block).clamp(inner.start, inner.end), ((b + 1) * block).clamp(inner.start, inner.end));
        self.spans.clear();
        self.spans.extend((0..columns).map(span));
        let (row_mask, spans) = (&mut self.mask[..w], &self.spans);
        for y in (reach..h - reach).step_by(ROW_STEP) {
            for (m, v) in row_mask.iter_mut().zip(valid.row(y)) {
                *m = if *v != 0 { TRUNCATION } else { 0 };
            }
            let first = (y / block) * columns;
            for (count, (x0, x1)) in self.counts[first..].iter_mut().zip(spans) {
                *count += row_mask[*x0..*x1].iter().filter(|m| **m != 0).count() as f32;
            }
            let frame = &self.frame[y * w..(y + 1) * w];
            for ky in 0..side {
                let template = &self.template[(y + reach - ky) * w..(y + reach - ky + 1) * w];
                for kx in 0..side {
                    let moved = &template[inner.start + reach - kx..inner.end + reach - kx];
                    let fixed = &frame[inner.clone()];
                    let line = &mut self.line[inner.clone()];
                    for (((l, f), t), m) in line.iter_mut().zip(fixed).zip(moved).zip(&row_mask[inner.clone()]) {
                        *l = f.abs_diff(*t).min(*m);
                    }
                    let k = ky * side + kx;
                    for (b, (x0, x1)) in spans.iter().enumerate() {
                        let sum: u32 = self.line[*x0..*x1].iter().map(|v| u32::from(*v)).sum();
                        self.costs[(first + b) * shifts + k] += sum as f32;
                    }
                }
            }
        }
    }

    /// Whole-pixel shifts of all blocks that minimise costs and differences between neighbours, started at `best`.
    fn relax(&mut self, best: usize, columns: usize, rows: usize) {
        let reach = self.settings.reach_px;
        let side = 2 * reach + 1;
        let shifts = side * side;
        // The penalty is in units of a full block's summed cost.
        let full = (self.settings.block_px * self.settings.block_px) as f32 / ROW_STEP as f32;
        let weight = self.settings.stiffness * full;
        let split = |k: usize| ((k % side) as f32, (k / side) as f32);
        self.labels.clear();
        self.labels.resize(columns * rows, best);
        let (labels, costs) = (&mut self.labels, &self.costs);
        for _ in 0..SWEEPS {
            let mut changed = false;
            for y in 0..rows {
                for x in 0..columns {
                    let b = y * columns + x;
                    // Sum over neighbours |d - d_n|^2 = n |d|^2 - 2 d . sum(d_n) + const.
                    let (mut n, mut sx, mut sy) = (0.0f32, 0.0f32, 0.0f32);
                    let mut see = |i: usize| {
                        let (dx, dy) = split(labels[i]);
                        n += 1.0;
                        sx += dx;
                        sy += dy;
                    };
                    if x > 0 {
                        see(b - 1);
                    }
                    if x + 1 < columns {
                        see(b + 1);
                    }
                    if y > 0 {
                        see(b - columns);
                    }
                    if y + 1 < rows {
                        see(b + columns);
                    }
                    let energy = |k: usize| {
                        let (dx, dy) = split(k);
                        costs[b * shifts + k] + weight * (n * (dx * dx + dy * dy) - 2.0 * (dx * sx + dy * sy))
                    };
                    let current = labels[b];
                    let mut top = (energy(current) - 1e-3, current);
                    for k in 0..shifts {
                        let e = energy(k);
                        if e < top.0 {
                            top = (e, k);
                        }
                    }
                    if top.1 != current {
                        labels[b] = top.1;
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
    }

    /// Refines by parabolas through the neighbouring costs, then smooths the field a little.
    fn sub_pixel(&mut self, columns: usize, rows: usize) {
        let reach = self.settings.reach_px;
        let side = 2 * reach + 1;
        let shifts = side * side;
        let (costs, counts) = (&self.costs, &self.counts);
        self.fine.clear();
        self.fine.extend(self.labels.iter().enumerate().map(|(b, k)| {
            let (kx, ky) = (k % side, k / side);
            let cost = |x: usize, y: usize| costs[b * shifts + y * side + x];
            let here = cost(kx, ky);
            let fraction = |low: f32, high: f32| {
                // A flat valley says nothing about fractions: its curvature must be a fair part of a gray level for every pixel.
                let curvature = low + high - 2.0 * here;
                if curvature > 0.4 * counts[b].max(1.0) { (0.5 * (low - high) / curvature).clamp(-0.5, 0.5) } else { 0.0 }
            };
            let fx = if kx > 0 && kx + 1 < side { fraction(cost(kx - 1, ky), cost(kx + 1, ky)) } else { 0.0 };
            let fy = if ky > 0 && ky + 1 < side { fraction(cost(kx, ky - 1), cost(kx, ky + 1)) } else { 0.0 };
            [kx as f32 - reach as f32 + fx, ky as f32 - reach as f32 + fy]
        }));
        let at = |x: usize, y: usize| self.fine[y * columns + x];
        for (b, out) in self.found.blocks.iter_mut().enumerate() {
            let (x, y) = (b % columns, b / columns);
            let (left, right) = (x.saturating_sub(1), (x + 1).min(columns - 1));
            let (up, down) = (y.saturating_sub(1), (y + 1).min(rows - 1));
            for (i, o) in out.iter_mut().enumerate() {
                *o = 0.5 * at(x, y)[i] + 0.125 * (at(left, y)[i] + at(right, y)[i] + at(x, up)[i] + at(x, down)[i]);
            }
        }
    }

    /// Moves template and validity by the field found: bilinear between block centres, bilinear in the picture, edges repeated.
    fn apply(&mut self, template: &mut Gray, valid: &mut Gray) {
        let (w, h) = template.size();
        let found = &self.found;
        self.source.copy_from(template);
        self.covered.copy_from(valid);
        let (source, covered) = (&self.source, &self.covered);
        let first = found.blocks[0];
        let rigid = found.blocks.iter().all(|b| *b == first) && first[0].fract() == 0.0 && first[1].fract() == 0.0;
        let clamp = |v: f32, size: usize| v.clamp(0.0, size as f32 - 1.0);
        if rigid {
            for y in 0..h {
                let sy = clamp(y as f32 - first[1], h) as usize;
                for x in 0..w {
                    let sx = clamp(x as f32 - first[0], w) as usize;
                    template.set(x, y, source.get(sx, sy));
                    valid.set(x, y, covered.get(sx, sy));
                }
            }
            return;
        }
        // Between which two blocks a pixel lies along one axis, and how far.
        let block_px = self.settings.block_px;
        let place = |p: usize, n: usize| {
            let at = ((p as f32 + 0.5) / block_px as f32 - 0.5).clamp(0.0, n as f32 - 1.0);
            let low = at as usize;
            (low, (low + 1).min(n - 1), at - low as f32)
        };
        self.across.clear();
        self.across.extend((0..w).map(|x| place(x, found.columns)));
        for y in 0..h {
            let (b0, b1, by) = place(y, found.rows);
            for (x, &(a0, a1, bx)) in self.across.iter().enumerate() {
                let [dx, dy] = [0, 1].map(|i| {
                    let at = |column: usize, row: usize| found.blocks[row * found.columns + column][i];
                    let top = at(a0, b0) + bx * (at(a1, b0) - at(a0, b0));
                    let bottom = at(a0, b1) + bx * (at(a1, b1) - at(a0, b1));
                    top + by * (bottom - top)
                });
                let (sx, sy) = (clamp(x as f32 - dx, w), clamp(y as f32 - dy, h));
                let (x0, y0) = (sx as usize, sy as usize);
                let (x1, y1) = ((x0 + 1).min(w - 1), (y0 + 1).min(h - 1));
                let (fx, fy) = (sx - x0 as f32, sy - y0 as f32);
                let v = |x: usize, y: usize| f32::from(source.get(x, y));
                let top = v(x0, y0) + fx * (v(x1, y0) - v(x0, y0));
                let bottom = v(x0, y1) + fx * (v(x1, y1) - v(x0, y1));
                template.set(x, y, (top + fy * (bottom - top) + 0.5) as u8);
                let all = covered.get(x0, y0) & covered.get(x1, y0) & covered.get(x0, y1) & covered.get(x1, y1);
                valid.set(x, y, if all != 0 { 255 } else { 0 });
            }
        }
    }
}

/// Local contrast normalisation to 8 bits: `128 + 50 (v - mean) / (deviation + floor)` over a square window; pixels that are not valid
/// count as the picture's mean.
fn normalise(picture: &Gray, valid: &Gray, window: &mut Window, out: &mut Vec<u8>) {
    let (w, h) = picture.size();
    let (mut sum, mut n) = (0u64, 0u64);
    for (v, ok) in picture.data().iter().zip(valid.data()) {
        if *ok != 0 {
            sum += u64::from(*v);
            n += 1;
        }
    }
    let mean = (sum + n / 2).checked_div(n).map_or(128, |m| m as u8);
    out.clear();
    out.extend(picture.data().iter().zip(valid.data()).map(|(v, ok)| if *ok != 0 { *v } else { mean }));
    let Window { source, columns, sums, squares } = window;
    source.clone_from(out);
    // Sums over the window's rows for every column, moved down row by row; 41 rows of 255^2 fit easily.
    columns.clear();
    columns.resize(w, [0; 2]);
    let row = |y: usize| &source[y * w..(y + 1) * w];
    let add = |columns: &mut [[u32; 2]], y: usize| {
        for (c, v) in columns.iter_mut().zip(row(y)) {
            let v = u32::from(*v);
            c[0] += v;
            c[1] += v * v;
        }
    };
    for y in 0..WINDOW_PX.min(h) {
        add(columns, y);
    }
    // The first stays 0.
    sums.resize(w + 1, 0);
    squares.resize(w + 1, 0);
    for y in 0..h {
        if y + WINDOW_PX < h {
            add(columns, y + WINDOW_PX);
        }
        if y > WINDOW_PX {
            for (c, v) in columns.iter_mut().zip(row(y - WINDOW_PX - 1)) {
                let v = u32::from(*v);
                c[0] -= v;
                c[1] -= v * v;
            }
        }
        for (x, c) in columns.iter().enumerate() {
            sums[x + 1] = sums[x] + c[0];
            squares[x + 1] = squares[x] + u64::from(c[1]);
        }
        let rows = (y + WINDOW_PX + 1).min(h) - y.saturating_sub(WINDOW_PX);
        let line = &mut out[y * w..(y + 1) * w];
        for (x, v) in line.iter_mut().enumerate() {
            let (x0, x1) = (x.saturating_sub(WINDOW_PX), (x + WINDOW_PX + 1).min(w));
            let share = 1.0 / ((x1 - x0) * rows) as f32;
            let m = (sums[x1] - sums[x0]) as f32 * share;
            let deviation = ((squares[x1] - squares[x0]) as f32 * share - m * m).max(0.0).sqrt();
            *v = (128.5 + 50.0 * (f32::from(*v) - m) / (deviation + FLOOR)) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::product;

    fn shifted(source: &Gray, field: impl Fn(f32, f32) -> [f32; 2]) -> Gray {
        let (w, h) = source.size();
        Gray::from_fn(w, h, |x, y| {
            let d = field(x as f32, y as f32);
            let (sx, sy) = ((x as f32 - d[0]).clamp(0.0, w as f32 - 1.001), (y as f32 - d[1]).clamp(0.0, h as f32 - 1.001));
            let (x0, y0, fx, fy) = (sx as usize, sy as usize, sx.fract(), sy.fract());
            let v = |x: usize, y: usize| f32::from(source.get(x, y));
            let top = v(x0, y0) * (1.0 - fx) + v(x0 + 1, y0) * fx;
            let bottom = v(x0, y0 + 1) * (1.0 - fx) + v(x0 + 1, y0 + 1) * fx;
            (top * (1.0 - fy) + bottom * fy + 0.5) as u8
        })
    }

    fn remover() -> Remover {
        Remover::new(&Settings::default()).unwrap()
    }

    fn full(size: (usize, usize)) -> Gray {
        Gray::from_fn(size.0, size.1, |_, _| 255)
    }

    fn mean_difference(a: &Gray, b: &Gray) -> f32 {
        let (w, h) = a.size();
        let mut sum = 0.0;
        for y in 8..h - 8 {
            for x in 8..w - 8 {
                sum += (f32::from(a.get(x, y)) - f32::from(b.get(x, y))).abs();
            }
        }
        sum / ((w - 16) * (h - 16)) as f32
    }

    #[test]
    fn whole_pixel_shifts_are_undone_exactly_under_changed_light() {
        let template = product(4, (240, 200)).unwrap();
        let mut remover = Remover::new(&Settings::default()).unwrap();
        for shift in [[0.0, 0.0], [3.0, -2.0], [-4.0, 4.0], [0.0, 1.0]] {
            let moved = shifted(&template, |_, _| shift);
            let frame = Gray::from_fn(240, 200, |x, y| {
                let light = 0.7 + 0.3 * x as f32 / 240.0;
                (f32::from(moved.get(x, y)) * light + 10.0) as u8
            });
            let (mut t, mut v) = (template.clone(), full(template.size()));
            let found = remover.remove(&mut t, &mut v, &frame).unwrap();
            assert_eq!(found.global_px, (shift[0] as i32, shift[1] as i32));
            assert_eq!(mean_difference(&t, &moved), 0.0, "shift {shift:?}: {found:?}");
        }
    }

    #[test]
    fn smooth_local_distortions_are_followed() {
        let template = product(7, (320, 256)).unwrap();
        let frame = shifted(&template, |x, y| [1.0 + 2.5 * x / 320.0, -2.0 + 3.0 * y / 256.0]);
        let (mut t, mut v) = (template.clone(), full(template.size()));
        let found = remover().remove(&mut t, &mut v, &frame).unwrap().clone();
        let (before, after) = (mean_difference(&template, &frame), mean_difference(&t, &frame));
        assert!(after < 0.35 * before, "before {before}, after {after}: {found:?}");
    }

    #[test]
    fn defects_do_not_pull_and_nothing_is_moved_without_need() {
        let template = product(9, (256, 256)).unwrap();
        let mut frame = shifted(&template, |_, _| [2.0, 0.0]);
        for y in 90..130 {
            for x in 100..150 {
                frame.set(x, y, 255 - frame.get(x, y));
            }
        }
        let (mut t, mut v) = (template.clone(), full(template.size()));
        let found = remover().remove(&mut t, &mut v, &frame).unwrap().clone();
        assert_eq!(found.global_px, (2, 0));
        assert!(found.blocks.iter().all(|b| *b == [2.0, 0.0]), "{found:?}");

        let flat = Gray::from_fn(128, 128, |_, _| 90);
        let (mut t, mut v) = (flat.clone(), full(flat.size()));
        let found = remover().remove(&mut t, &mut v, &flat).unwrap().clone();
        assert_eq!((found.largest_px, &t), (0.0, &flat));
    }

    #[test]
    fn pictures_of_other_sizes_and_settings_out_of_range_are_refused() {
        let mut remover = Remover::new(&Settings::default()).unwrap();
        let (mut t, mut v) = (Gray::new(64, 64), full((64, 64)));
        let error = remover.remove(&mut t, &mut v, &Gray::new(64, 60)).unwrap_err();
        assert_eq!(
            error.message(),
            "residual shift needs pictures of one size, got template (64, 64), validity (64, 64), frame (64, 60)"
        );
        let wrong = |s: Settings| Remover::new(&s).unwrap_err().message().to_string();
        assert_eq!(wrong(Settings { reach_px: 9, ..Settings::default() }), "residual.reach_px must be between 0 and 8, got 9");
        assert_eq!(
            wrong(Settings { stiffness: f32::NAN, ..Settings::default() }),
            "residual.stiffness must be between 0 and 1000, got NaN"
        );
    }
}
