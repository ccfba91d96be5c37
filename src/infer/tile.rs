//! Cuts frames of any size into overlapping tiles and blends the tiles' scores.
//!
//! [`Plan`] depends only on sizes. Every tile starts at a multiple of the network's `ssds.multiple`, so that pooling grids coincide with the
//! untiled run; the frame is padded on the right and below by repeating its last pixel. Where tiles overlap, each one's weight is 0 in the
//! quarter of the overlap next to its own inner edge (there the network sees its zero padding), then rises linearly over half of it; the
//! weights are normalised to sum to 1 at every pixel, and separate into columns and rows.
//!
//! Invariants: the tiles cover the frame; neighbours overlap by at least the asked overlap; weights sum to 1; one tile has weight 1.
//! Limit: a network that standardises its input per picture sees the statistics of the tile, not of the frame.

use crate::error::{Error, Result};
use crate::frame::{Gray, Map};

/// How one direction is cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Length of a tile, pixels.
    pub tile: usize,
    /// First pixel of each tile.
    pub starts: Vec<usize>,
    /// Weight of each pixel of each tile, `[tile number][pixel]`; 0 outside the frame.
    weights: Vec<Vec<f32>>,
    length: usize,
}

/// How tiles are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Largest side of a tile, pixels; more than two overlaps.
    pub tile_px: usize,
    /// Least overlap of neighbours, pixels.
    pub overlap_px: usize,
    /// Sides and starts are multiples of this, pixels.
    pub multiple: usize,
    /// (height, width) when the network takes one size only.
    pub fixed: Option<(usize, usize)>,
}

/// How a frame is cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Columns.
    pub x: Axis,
    /// Rows.
    pub y: Axis,
}

impl Axis {
    fn new(length: usize, limit: usize, overlap: usize, multiple: usize, fixed: bool) -> Self {
        let up = |v: usize| v.div_ceil(multiple) * multiple;
        let padded = up(length);
        let (tile, starts) = if padded <= limit {
            (if fixed { limit } else { padded }, vec![0])
        } else {
            let overlap = up(overlap);
            let count = (padded - overlap).div_ceil(limit - overlap);
            // The smallest tile that still covers: fewer pixels computed twice.
            let tile = if fixed { limit } else { up((padded + (count - 1) * overlap).div_ceil(count)).min(limit) };
            let last = (padded - tile) / multiple;
            (tile, (0..count).map(|i| last * i / (count - 1) * multiple).collect())
        };
        let weights = weights(length, tile, &starts, overlap as f32);
        Self { tile, starts, weights, length }
    }

    /// The tile's part inside the frame, pixels.
    fn inside(&self, i: usize) -> usize {
        self.tile.min(self.length - self.starts[i])
    }
}

fn weights(length: usize, tile: usize, starts: &[usize], overlap: f32) -> Vec<Vec<f32>> {
    let (guard, ramp) = (overlap / 4.0, overlap / 2.0);
    let mut sum = vec![0.0_f32; length];
    let mut out: Vec<Vec<f32>> = Vec::with_capacity(starts.len());
    for (i, &start) in starts.iter().enumerate() {
        let weight = |p: usize| {
            let left = if i == 0 { f32::INFINITY } else { p as f32 + 0.5 };
            let right = if i + 1 == starts.len() { f32::INFINITY } else { (tile - p) as f32 - 0.5 };
            if start + p >= length { 0.0 } else { ((left.min(right) - guard) / ramp).clamp(0.0, 1.0) }
        };
        let weights: Vec<f32> = if starts.len() == 1 {
            (0..tile).map(|p| f32::from(u8::from(p < length))).collect()
        } else {
            (0..tile).map(weight).collect()
        };
        sum[start.min(length)..].iter_mut().zip(&weights).for_each(|(s, w)| *s += w);
        out.push(weights);
    }
    for (weights, &start) in out.iter_mut().zip(starts) {
        weights.iter_mut().zip(&sum[start.min(length)..]).for_each(|(w, s)| *w /= s);
    }
    out
}

impl Plan {
    /// Cuts a frame of `width` x `height` pixels.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] when the tile is too small for its overlap or no multiple of the network's; [`crate::Kind::Data`] for an empty
    /// frame.
    pub fn new(width: usize, height: usize, shape: &Shape) -> Result<Self> {
        if width == 0 || height == 0 {
            return Err(Error::data(format!("the frame is {width}x{height}, wanted at least one pixel")));
        }
        let (limit_y, limit_x) = shape.fixed.unwrap_or((shape.tile_px, shape.tile_px));
        for (limit, length) in [(limit_x, width), (limit_y, height)] {
            let overlap = shape.overlap_px.div_ceil(shape.multiple) * shape.multiple;
            let fits = limit >= shape.multiple && limit % shape.multiple == 0;
            if !fits || (length > limit && (limit <= 2 * overlap || overlap == 0)) {
                return Err(Error::config(format!(
                    "a tile of {limit} px with an overlap of {} px cannot cut a frame of {width}x{height}: wanted a multiple of {} above \
                     twice the overlap, and an overlap of at least 1",
                    shape.overlap_px, shape.multiple
                )));
            }
        }
        let fixed = shape.fixed.is_some();
        Ok(Self {
            x: Axis::new(width, limit_x, shape.overlap_px, shape.multiple, fixed),
            y: Axis::new(height, limit_y, shape.overlap_px, shape.multiple, fixed),
        })
    }

    /// (width, height) of the frame that this plan is for.
    #[must_use]
    pub fn frame_size(&self) -> (usize, usize) {
        (self.x.length, self.y.length)
    }

    /// Number of tiles.
    #[must_use]
    pub fn tiles(&self) -> usize {
        self.x.starts.len() * self.y.starts.len()
    }

    /// Whether tile `i` holds a pixel that both masks keep (a missing mask keeps all).
    #[must_use]
    pub fn is_needed(&self, i: usize, valid: &Gray, zones: Option<&Gray>) -> bool {
        let (ix, iy) = self.split(i);
        let (x, y) = (self.x.starts[ix], self.y.starts[iy]);
        let columns = x..x + self.x.inside(ix);
        (y..y + self.y.inside(iy)).any(|row| {
            let valid = &valid.row(row)[columns.clone()];
            match zones {
                None => valid.iter().any(|&v| v != 0),
                Some(zones) => valid.iter().zip(&zones.row(row)[columns.clone()]).any(|(&v, &z)| v != 0 && z != 0),
            }
        })
    }

    /// Writes tile `i` of the pair into `input`, `[2, tile h, tile w]`: channel 0 the warped template, channel 1 the frame, x/255.
    ///
    /// Where `valid` is 0 there is no template: channel 0 takes the frame's own value, moved to the template's brightness by `fill`, so that
    /// the network sees no difference there.
    pub fn write_input(&self, i: usize, pair: &Pair<'_>, fill: &[f32; 256], input: &mut [f32]) {
        let (ix, iy) = self.split(i);
        let (x, inside) = (self.x.starts[ix], self.x.inside(ix));
        let (tile_w, tile_h) = (self.x.tile, self.y.tile);
        let (template_out, frame_out) = input.split_at_mut(tile_w * tile_h);
        for (row, (out_t, out_f)) in template_out.chunks_exact_mut(tile_w).zip(frame_out.chunks_exact_mut(tile_w)).enumerate() {
            let y = (self.y.starts[iy] + row).min(self.y.length - 1);
            let columns = x..x + inside;
            let (t, v) = (&pair.template.row(y)[columns.clone()], &pair.valid.row(y)[columns.clone()]);
            let f = &pair.frame.row(y)[columns];
            for (out, &f) in out_f.iter_mut().zip(f) {
                *out = f32::from(f) / 255.0;
            }
            for (((out, &t), &v), &f) in out_t.iter_mut().zip(t).zip(v).zip(f) {
                *out = if v == 0 { fill[usize::from(f)] } else { f32::from(t) / 255.0 };
            }
            for out in [out_t, out_f] {
                let last = out[inside - 1];
                out[inside..].fill(last);
            }
        }
    }

    /// Adds tile `i`'s scores, `[tile h, tile w]`, to `map` with the tile's weights.
    pub fn blend(&self, i: usize, scores: &[f32], map: &mut Map) {
        let (ix, iy) = self.split(i);
        let (x, inside) = (self.x.starts[ix], self.x.inside(ix));
        let weights = &self.x.weights[ix][..inside];
        for row in 0..self.y.inside(iy) {
            let wy = self.y.weights[iy][row];
            if wy == 0.0 {
                continue;
            }
            let scores = &scores[row * self.x.tile..][..inside];
            let out = &mut map.row_mut(self.y.starts[iy] + row)[x..x + inside];
            for ((out, &score), &wx) in out.iter_mut().zip(scores).zip(weights) {
                *out += score * (wx * wy);
            }
        }
    }

    fn split(&self, i: usize) -> (usize, usize) {
        (i % self.x.starts.len(), i / self.x.starts.len())
    }
}

/// The pictures of one inspection, all of the frame's size.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The template warped to the frame.
    pub template: &'a Gray,
    /// 255 where the template covers the frame, else 0.
    pub valid: &'a Gray,
    /// The frame.
    pub frame: &'a Gray,
}

/// Table that moves a frame's gray value to the template's mean and spread over the valid pixels, as x/255 within 0..1.
#[must_use]
pub fn fill_table(pair: &Pair<'_>) -> [f32; 256] {
    let mut frame_count = [0_u32; 256];
    let mut template_count = [0_u32; 256];
    let mut covered = 0_usize;
    for ((&t, &v), &f) in pair.template.data().iter().zip(pair.valid.data()).zip(pair.frame.data()) {
        if v != 0 {
            frame_count[usize::from(f)] += 1;
            template_count[usize::from(t)] += 1;
            covered += 1;
        }
    }
    let identity = |v: usize| v as f32 / 255.0;
    if covered == 0 || covered == pair.valid.data().len() {
        return std::array::from_fn(identity);
    }
    let moments = |count: &[u32; 256]| {
        let sum = |f: &dyn Fn(f64) -> f64| count.iter().enumerate().map(|(v, &n)| f(v as f64) * f64::from(n)).sum::<f64>();
        let mean = sum(&|v| v) / covered as f64;
        (mean, (sum(&|v| (v - mean) * (v - mean)) / covered as f64).sqrt())
    };
    let ((mean_f, spread_f), (mean_t, spread_t)) = (moments(&frame_count), moments(&template_count));
    // A flat frame has no contrast to scale by.
    let gain = if spread_f < 1.0 { 1.0 } else { spread_t / spread_f };
    std::array::from_fn(|v| (((v as f64 - mean_f) * gain + mean_t) / 255.0).clamp(0.0, 1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(tile_px: usize, overlap_px: usize, multiple: usize) -> Shape {
        Shape { tile_px, overlap_px, multiple, fixed: None }
    }

    #[test]
    fn tiles_cover_overlap_and_sum_to_one() {
        for length in [1, 15, 16, 17, 255, 256, 257, 640, 1000, 1023, 2047, 4096] {
            for (limit, overlap, multiple) in [(64, 16, 16), (256, 48, 16), (256, 40, 16), (128, 63, 1), (512, 64, 32)] {
                for fixed in [None, Some((limit, limit))] {
                    let plan = Plan::new(length, 7, &Shape { fixed, ..shape(limit, overlap, multiple) }).unwrap();
                    let axis = &plan.x;
                    let what = format!("{length} {limit} {overlap} {multiple} {fixed:?} {:?} {}", axis.starts, axis.tile);
                    assert!(axis.tile <= limit && axis.tile.is_multiple_of(multiple), "{what}");
                    assert!(axis.starts.iter().all(|s| s % multiple == 0), "{what}");
                    assert_eq!(axis.starts[0], 0, "{what}");
                    assert!(axis.starts.windows(2).all(|s| s[0] + axis.tile >= s[1] + overlap && s[0] < s[1]), "{what}");
                    assert!(axis.starts.last().unwrap() + axis.tile >= length, "{what}");
                    let mut sum = vec![0.0; length];
                    for (weights, &start) in axis.weights.iter().zip(&axis.starts) {
                        for (p, w) in weights.iter().enumerate() {
                            if start + p < length { sum[start + p] += w } else { assert_eq!(*w, 0.0, "{what}") }
                        }
                    }
                    assert!(sum.iter().all(|s: &f32| (s - 1.0).abs() < 1e-6), "{what}");
                }
            }
        }
    }

    #[test]
    fn a_frame_that_fits_is_one_tile_of_its_padded_size() {
        let plan = Plan::new(630, 470, &shape(1024, 64, 16)).unwrap();
        assert_eq!((plan.tiles(), plan.x.tile, plan.y.tile), (1, 640, 480));
    }

    #[test]
    fn impossible_tiles_are_refused() {
        let error = Plan::new(640, 64, &shape(128, 64, 16)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a tile of 128 px with an overlap of 64 px cannot cut a frame of 640x64: wanted a multiple of 16 above twice the overlap, \
             and an overlap of at least 1"
        );
        assert_eq!(
            Plan::new(0, 64, &shape(128, 16, 16)).unwrap_err().to_string(),
            "the frame is 0x64, wanted at least one pixel"
        );
    }

    #[test]
    fn input_is_padded_by_repeating_and_filled_from_the_frame() {
        let template = Gray::from_vec(3, 1, vec![100, 100, 7]).unwrap();
        let frame = Gray::from_vec(3, 1, vec![50, 50, 60]).unwrap();
        let valid = Gray::from_vec(3, 1, vec![255, 255, 0]).unwrap();
        let pair = Pair { template: &template, valid: &valid, frame: &frame };
        let fill = fill_table(&pair);
        let plan = Plan::new(3, 1, &shape(64, 16, 4)).unwrap();
        let mut input = vec![f32::NAN; 2 * 16];
        plan.write_input(0, &pair, &fill, &mut input);
        // Flat pictures: the fill moves only the brightness, from 50 to 100.
        let wanted: [f32; 4] = [100.0, 100.0, 110.0, 110.0].map(|v: f32| v / 255.0);
        for row in input[..16].chunks(4) {
            assert!(row.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{row:?}");
        }
        assert_eq!(input[16..20], [50.0, 50.0, 60.0, 60.0].map(|v: f32| v / 255.0));
    }

    #[test]
    fn blending_equal_tiles_gives_the_tile() {
        let plan = Plan::new(300, 200, &shape(128, 32, 16)).unwrap();
        let mut map = Map::new(300, 200);
        let scores = vec![0.25; plan.x.tile * plan.y.tile];
        (0..plan.tiles()).for_each(|i| plan.blend(i, &scores, &mut map));
        assert!(map.data().iter().all(|v| (v - 0.25).abs() < 1e-6));
    }

    #[test]
    fn tiles_without_a_valid_pixel_or_zone_are_not_needed() {
        let plan = Plan::new(300, 64, &shape(128, 32, 16)).unwrap();
        let mut valid = Gray::new(300, 64);
        valid.set(299, 63, 255);
        let needed: Vec<bool> = (0..plan.tiles()).map(|i| plan.is_needed(i, &valid, None)).collect();
        assert_eq!(needed, [false, false, true]);
        assert!(!plan.is_needed(2, &valid, Some(&Gray::new(300, 64))));
    }
}
