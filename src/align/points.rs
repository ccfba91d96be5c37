//! The sparse template points that the pose is refined on, one list a pyramid level.
//!
//! Value and gradient of each point are those of the cubic B-spline through the template's pixels without prefilter, the very kernel the
//! frame is sampled with ([`super::sampling::spline`]), so that no interpolation bias is left between the two. Three quarters are the
//! strongest gradients of each cell of a grid that has any (coverage first, then strength): on a board with structure in one corner only
//! they all lie there. The rest is spread evenly whatever the gradient, which holds the light model down.

use super::coarse::NOWHERE;
use super::sampling::CHUNK;
use crate::frame::Gray;

/// Cells a side of the selection grid.
const CELLS: usize = 12;
/// Gradient, squared gray levels a pixel, below which a point says nothing about the pose.
const WEAK: f32 = 4.0;

/// The points of one level: structure of arrays, padded to whole chunks with points that are never visible.
#[derive(Debug, Default)]
pub struct LevelPoints {
    /// Size of the template at this level.
    pub size: (usize, usize),
    /// Real points; the arrays are longer.
    pub count: usize,
    /// Column, px of this level.
    pub x: Vec<f32>,
    /// Row, px of this level.
    pub y: Vec<f32>,
    /// Smoothed template value, gray levels.
    pub value: Vec<f32>,
    /// Derivative along x, gray levels a px.
    pub gx: Vec<f32>,
    /// Derivative along y.
    pub gy: Vec<f32>,
    /// Laplacian, gray levels a px²: what a little blur adds.
    pub laplacian: Vec<f32>,
    /// Mean template value that the light model counts from, gray levels; the same on all levels.
    pub mean: f32,
    /// Squared gradient from which a point counts as an edge: residuals' scale is taken from edges.
    pub edge: f32,
    /// The box around the edges, its outer corners: steps are measured there. Beyond it nothing says how far a step goes.
    pub corners: [(f64, f64); 4],
}

/// The cubic B-spline through a picture's pixels (no prefilter) and its derivatives, at pixels.
pub struct Smooth<'a> {
    data: &'a [u8],
    width: usize,
}

impl<'a> Smooth<'a> {
    /// Of `picture`.
    #[must_use]
    pub fn new(picture: &'a Gray) -> Self {
        Self { data: picture.data(), width: picture.width() }
    }

    /// [value, gx, gy, Laplacian] of the B-spline at an inner pixel.
    #[must_use]
    pub fn at(&self, x: usize, y: usize) -> [f32; 4] {
        // Value, first and second derivative of the kernel at -1, 0, 1.
        const KERNEL: [[f32; 3]; 3] = [[1.0 / 6.0, -0.5, 1.0], [4.0 / 6.0, 0.0, -2.0], [1.0 / 6.0, 0.5, 1.0]];
        let [mut value, mut gx, mut gy, mut laplacian] = [0.0; 4];
        for (j, [k, d, dd]) in KERNEL.iter().enumerate() {
            let row = &self.data[(y + j - 1) * self.width + x - 1..][..3];
            let [a, b, c] = [row[0], row[1], row[2]].map(f32::from);
            let smooth = (a + c) / 6.0 + b * (4.0 / 6.0);
            value += k * smooth;
            gx += k * 0.5 * (c - a);
            gy += d * smooth;
            laplacian += k * (a - 2.0 * b + c) + dd * smooth;
        }
        [value, gx, gy, laplacian]
    }
}

impl LevelPoints {
    /// Chooses about `limit` points of `picture`, only where `used` is true for the pixel and its neighbours.
    #[must_use]
    pub fn choose(picture: &Gray, used: &[bool], limit: usize, mean: f32) -> Self {
        let (w, h) = picture.size();
        let smooth = Smooth::new(picture);
        let mut cells: Vec<Vec<(f32, u32, u32)>> = vec![Vec::new(); CELLS * CELLS];
        for y in 1..h.saturating_sub(1) {
            for x in 1..w.saturating_sub(1) {
                if (y - 1..=y + 1).any(|j| used[j * w + x - 1..=j * w + x + 1].contains(&false)) {
                    continue;
                }
                let [_, gx, gy, _] = smooth.at(x, y);
                cells[(y * CELLS / h) * CELLS + x * CELLS / w].push((gx * gx + gy * gy, x as u32, y as u32));
            }
        }
        let filled = cells.iter().filter(|c| !c.is_empty()).count().max(1);
        let structured = cells.iter().filter(|c| c.iter().any(|p| p.0 > WEAK)).count().max(1);
        let (strong, even) = ((limit * 3 / 4 / structured).max(3), (limit / 4 / filled).max(1));
        let mut chosen = Vec::with_capacity(limit + filled);
        for cell in &mut cells {
            choose_in_cell(cell, strong, even, &mut chosen);
        }
        // Row by row: neighbours in the list are neighbours in memory.
        chosen.sort_unstable_by_key(|p| (p.1, p.0));
        chosen.dedup();
        let mut out = Self { size: (w, h), count: chosen.len(), mean, edge: f32::INFINITY, ..Self::default() };
        for (x, y) in chosen {
            let [value, gx, gy, laplacian] = smooth.at(x as usize, y as usize);
            out.x.push(x as f32);
            out.y.push(y as f32);
            out.value.push(value);
            out.gx.push(gx);
            out.gy.push(gy);
            out.laplacian.push(laplacian);
        }
        out.edge = edge_strength(&out.gx, &out.gy);
        out.corners = corners(&out);
        let padded = out.count.next_multiple_of(CHUNK);
        for list in [&mut out.x, &mut out.y] {
            list.resize(padded, NOWHERE);
        }
        for list in [&mut out.value, &mut out.gx, &mut out.gy, &mut out.laplacian] {
            list.resize(padded, 0.0);
        }
        out
    }
}

/// A tenth of the squared gradient that the sum of squared gradients comes from (their contraharmonic mean).
fn edge_strength(gx: &[f32], gy: &[f32]) -> f32 {
    let (first, second) = gx.iter().zip(gy).fold((0.0f64, 0.0f64), |(first, second), (x, y)| {
        let g = f64::from(x * x + y * y);
        (first + g, second + g * g)
    });
    if first > 0.0 { (0.1 * second / first) as f32 } else { f32::INFINITY }
}

/// Corners of the box around the points whose gradient is at least an edge's.
fn corners(points: &LevelPoints) -> [(f64, f64); 4] {
    let [mut left, mut top] = [f32::INFINITY; 2];
    let [mut right, mut bottom] = [f32::NEG_INFINITY; 2];
    for (i, (gx, gy)) in points.gx.iter().zip(&points.gy).enumerate() {
        if gx * gx + gy * gy >= points.edge {
            left = left.min(points.x[i]);
            right = right.max(points.x[i]);
            top = top.min(points.y[i]);
            bottom = bottom.max(points.y[i]);
        }
    }
    if left > right {
        return [(0.0, 0.0); 4];
    }
    [(left, top), (right, top), (right, bottom), (left, bottom)].map(|(x, y)| (f64::from(x), f64::from(y)))
}

/// `wanted` from the strongest gradients, thinned so that neighbours do not all repeat one edge, and `even` spread through the list
/// sorted by strength.
fn choose_in_cell(cell: &mut [(f32, u32, u32)], wanted: usize, even: usize, chosen: &mut Vec<(u32, u32)>) {
    cell.sort_unstable_by(|p, q| q.0.total_cmp(&p.0).then((p.2, p.1).cmp(&(q.2, q.1))));
    let strong = cell.iter().filter(|p| p.0 > 2.0 * WEAK).count();
    let wanted = wanted.min(cell.len() * 3 / 4);
    let step = (strong / wanted.max(1)).clamp(1, 3);
    chosen.extend(cell.iter().step_by(step).take(wanted).take_while(|p| p.0 > WEAK).map(|p| (p.1, p.2)));
    let step = (cell.len() / even).max(1);
    chosen.extend(cell.iter().skip(step / 2).step_by(step).map(|p| (p.1, p.2)));
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Scalar;
    use super::super::sampling::{Chunk, spline};
    use super::*;

    #[test]
    fn values_are_those_of_the_sampling_kernel_and_padding_is_never_visible() {
        let p = Gray::from_fn(60, 40, |x, y| ((x * 31 + y * 17 + x * y) % 256) as u8);
        let points = LevelPoints::choose(&p, &vec![true; 60 * 40], 500, 100.0);
        assert!((400..=700).contains(&points.count), "{}", points.count);
        assert_eq!(points.x.len() % CHUNK, 0);
        let mut c = Chunk::default();
        c.x.copy_from_slice(&points.x[..CHUNK]);
        c.y.copy_from_slice(&points.y[..CHUNK]);
        spline(Scalar, &p, &mut c);
        for i in 0..CHUNK {
            assert!(c.visible[i] == 0.0 || (c.value[i] - points.value[i]).abs() < 1e-3);
        }
        assert!(points.x[points.count..].iter().all(|x| *x == NOWHERE));
    }

    #[test]
    fn unused_pixels_and_their_neighbours_are_left_out() {
        let p = Gray::from_fn(60, 40, |x, y| ((x * 31 + y * 17 + x * y) % 256) as u8);
        let used: Vec<bool> = (0..60 * 40).map(|i| i % 60 < 30).collect();
        let points = LevelPoints::choose(&p, &used, 500, 100.0);
        assert!(points.count > 200 && points.x[..points.count].iter().all(|x| *x < 29.0));
        assert_eq!(LevelPoints::choose(&p, &[false; 2400], 500, 100.0).count, 0);
    }
}
