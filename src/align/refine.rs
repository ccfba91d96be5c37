//! Sub-pixel refinement of a pose: sparse, robust, inverse-compositional Gauss-Newton with a model of the light.
//!
//! Unknowns are the pose (4 numbers of a similarity, or 6 of an affine map) and 8 of the light: gain, offset, additive gradient (2),
//! multiplicative gradient (2), a curvature of the gain curve, and blur (to first order: the template's Laplacian). The Jacobian comes from the template (Baker & Matthews 2004), so a
//! round only samples the frame. Residuals are weighted by Tukey's biweight on a scale from the median absolute deviation; samples
//! clipped by the camera (near 0 or 255) that err to the clipped side are left out. Light and scale pass on to the next level.

use super::isa::{Isa, kernel};
use super::lanes::{LANES, Simd};
use super::points::LevelPoints;
use super::sampling::{self, CHUNK, Chunk};
use crate::frame::Gray;
use crate::geometry::Affine;

/// Unknowns of the light model.
pub const LIGHT: usize = 8;
/// Most unknowns: affine pose and light.
const MOST: usize = 6 + LIGHT;
/// Columns of the accumulated products: unknowns and the residual.
const COLUMNS: usize = MOST + 1;
/// Gray levels that one unit of the gain column stands for.
const GAIN_UNIT: f32 = 64.0;
/// Tukey's biweight constant: 95 % efficiency on normal residuals.
const TUKEY: f32 = 4.685;
/// Gray levels beyond which a (smoothed) sample may be clipped by the camera.
const CLIPPED: (f32, f32) = (3.0, 252.0);
/// Fewest visible points that a pose is solved from.
const LEAST_POINTS: usize = 40;
/// Least share of the points that must be visible.
const LEAST_VISIBLE: f32 = 0.2;
/// Longest step, px, of a round: further away the gradients say nothing.
const LONGEST_STEP_PX: f64 = 8.0;
/// Lowest gain; below, contrast is gone or turned over: not the same thing.
const LEAST_GAIN: f64 = 0.05;
/// Added to the light's diagonal for each visible point: gain, offset, gradients; the second-order terms are held by a little more, since
/// a plain template hardly shows them.
const RIDGE: [f64; LIGHT] = [1e-6, 1e-6, 1e-6, 1e-6, 2e-3, 2e-3, 2e-3, 0.1];
/// The same where the shift alone is free, for templates so plain that gradients of the light would take the place of their few edges.
const STIFF_RIDGE: [f64; LIGHT] = [1e-6, 1e-6, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0];
/// Points that the scale is estimated from.
const SCALE_SAMPLES: usize = 2048;
/// Edges among them below which every point counts.
const LEAST_EDGES: usize = 40;

/// Working memory.
#[derive(Debug, Default)]
pub struct Scratch {
    value: Vec<f32>,
    visible: Vec<f32>,
    residual: Vec<f32>,
}

/// What a level hands to the next: the light and the residuals' scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Light {
    coefficients: [f32; LIGHT],
    /// Gray levels; from the MAD.
    pub sigma: f32,
}

impl Light {
    /// Slope of frame gray levels over template gray levels.
    #[must_use]
    pub fn gain(&self) -> f32 {
        self.coefficients[0] / GAIN_UNIT
    }
}

/// A refined pose and how well it fits.
#[derive(Debug, Clone, Copy)]
pub struct Refined {
    /// Template to frame, px of the level.
    pub pose: Affine,
    /// Correlation of template and frame values after the additive light gradient is taken out.
    pub ncc: f32,
    /// Share of the points that the frame shows.
    pub visible_share: f32,
    /// Share of the visible points whose residual the robust weight keeps.
    pub inlier_share: f32,
    /// Light found.
    pub light: Light,
    /// Length of the last step at the corners of the box around the template's edges, px of the level.
    pub last_step_px: f64,
    /// Rounds taken.
    pub rounds: usize,
}

impl Refined {
    /// `pose` before the first round.
    #[must_use]
    pub fn unmoved(pose: Affine) -> Self {
        Self {
            pose,
            ncc: -1.0,
            visible_share: 0.0,
            inlier_share: 0.0,
            light: Light { coefficients: [0.0; LIGHT], sigma: 0.0 },
            last_step_px: f64::INFINITY,
            rounds: 0,
        }
    }
}

/// How long to refine.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Most rounds.
    pub rounds: usize,
    /// Rounds that build the normal matrix anew and estimate the residuals' scale; later ones keep both.
    pub fresh_rounds: usize,
    /// Stop when a step moves nothing further than this, px of the level.
    pub stop_px: f64,
}

/// Sums of one round over the points.
#[derive(Clone)]
struct Sums {
    products: [[[f32; LANES]; COLUMNS]; MOST],
    /// visible, inliers, t, v, t², v², t v
    fit: [[f32; LANES]; 7],
}

/// What one round needs beside the points.
#[derive(Clone, Copy)]
struct Round {
    light: [f32; LIGHT],
    /// 1 / (TUKEY sigma); 0 = all weights 1.
    weight_scale: f32,
    /// Clipping bounds.
    clipped: (f32, f32),
    centre: (f32, f32),
    unit: f32,
    mean: f32,
    normal_matrix: bool,
}

/// Refines `start` (template to frame, px of the level) with `P` pose unknowns: 4 keeps a similarity, 6 frees an affine map.
///
/// `None` when too little is visible, the system has no solution, contrast is gone, or a step runs away.
pub fn refine<const P: usize>(
    isa: Isa,
    points: &LevelPoints,
    picture: &Gray,
    start: &Affine,
    light: Option<Light>,
    effort: Effort,
    s: &mut Scratch,
) -> Option<Refined> {
    if points.count < LEAST_POINTS || picture.width() < 4 || picture.height() < 4 {
        return None;
    }
    let n = P + LIGHT;
    let ridge = if P == 2 { STIFF_RIDGE } else { RIDGE };
    let (cx, cy) = ((points.size.0 as f64 - 1.0) / 2.0, (points.size.1 as f64 - 1.0) / 2.0);
    let unit = 1.0 / cx.max(cy);
    let mut round = Round {
        light: light.map_or([0.0; LIGHT], |l| l.coefficients),
        weight_scale: 0.0,
        clipped: (-1.0, f32::MAX),
        centre: (cx as f32, cy as f32),
        unit: unit as f32,
        mean: points.mean,
        normal_matrix: true,
    };
    s.value.resize(points.x.len(), 0.0);
    s.visible.resize(points.x.len(), 0.0);
    let mut factor = [[0.0f64; MOST]; MOST];
    let mut sums = Sums { products: [[[0.0; LANES]; COLUMNS]; MOST], fit: [[0.0; LANES]; 7] };
    let mut out = Refined::unmoved(*start);
    if let Some(light) = light {
        out.light = light;
    }
    while out.rounds < effort.rounds {
        let fresh = out.rounds < effort.fresh_rounds;
        sample(isa, picture, &out.pose, &points.x, &points.y, &mut s.value, &mut s.visible);
        if out.rounds > 0 || light.is_some() {
            round.clipped = CLIPPED;
            if fresh {
                out.light.sigma = scale(isa, points, &round, s)?;
                round.weight_scale = 1.0 / (TUKEY * out.light.sigma);
            }
        }
        round.normal_matrix = fresh;
        sums.fit = [[0.0; LANES]; 7];
        for k in 0..n {
            let from = if fresh { k } else { n };
            sums.products[k][from..=n].fill([0.0; LANES]);
        }
        accumulate::<P>(isa, points, &s.value, &s.visible, &round, &mut sums);
        out.rounds += 1;
        let fit = sums.fit.map(|l| l.iter().map(|v| f64::from(*v)).sum::<f64>());
        out.visible_share = (fit[0] / points.count as f64) as f32;
        if fit[0] < LEAST_POINTS as f64 || out.visible_share < LEAST_VISIBLE {
            return None;
        }
        out.inlier_share = (fit[1] / fit[0]) as f32;
        out.ncc = ncc(&fit);
        let lanes = |l: &[f32; LANES]| l.iter().map(|v| f64::from(*v)).sum::<f64>();
        if fresh {
            for k in 0..n {
                for j in k..n {
                    factor[j][k] = lanes(&sums.products[k][j]);
                }
                factor[k][k] += if k < P { factor[k][k] * 1e-6 } else { fit[0] * ridge[k - P] };
            }
            cholesky(&mut factor, n)?;
        }
        let mut step: [f64; MOST] = std::array::from_fn(|k| if k < n { lanes(&sums.products[k][n]) } else { 0.0 });
        cholesky_solve(&factor, &mut step, n);
        for (l, d) in round.light.iter_mut().zip(&step[P..n]) {
            *l += *d as f32;
        }
        out.light.coefficients = round.light;
        let gain = f64::from(out.light.gain());
        if !(gain >= LEAST_GAIN) {
            return None;
        }
        let warp = increment::<P>(&step, gain, unit, cx, cy);
        out.last_step_px = points.corners.iter().map(|&(x, y)| moved(&warp, x, y)).fold(0.0, f64::max);
        if !(out.last_step_px < LONGEST_STEP_PX) {
            return None;
        }
        out.pose = out.pose.compose(&warp.invert()?);
        if out.last_step_px < effort.stop_px && (out.rounds > 1 || light.is_some()) {
            break;
        }
    }
    Some(out)
}

/// The warp of the template's own pixels that the step stands for: `p + d + L (p - c)`.
fn increment<const P: usize>(step: &[f64; MOST], gain: f64, unit: f64, cx: f64, cy: f64) -> Affine {
    let d = [step[0] / gain, step[1] / gain];
    let l = if P == 2 {
        [[0.0; 2]; 2]
    } else if P == 4 {
        let (grow, turn) = (step[2] / gain * unit, step[3] / gain * unit);
        [[grow, -turn], [turn, grow]]
    } else {
        let k = unit / gain;
        [[step[2] * k, step[4] * k], [step[3] * k, step[5] * k]]
    };
    Affine {
        m: [
            [1.0 + l[0][0], l[0][1], d[0] - l[0][0] * cx - l[0][1] * cy],
            [l[1][0], 1.0 + l[1][1], d[1] - l[1][0] * cx - l[1][1] * cy],
        ],
    }
}

/// How far `warp` moves a point.
fn moved(warp: &Affine, x: f64, y: f64) -> f64 {
    let (u, v) = warp.apply(x, y);
    (u - x).hypot(v - y)
}

fn ncc(fit: &[f64; 7]) -> f32 {
    let [n, _, t, v, tt, vv, tv] = *fit;
    let product = (tt - t * t / n) * (vv - v * v / n);
    if product > 1e-9 { ((tv - t * v / n) / product.sqrt()).clamp(-1.0, 1.0) as f32 } else { 0.0 }
}

/// Residuals' standard deviation from the median absolute deviation of a sample of them, gray levels, at least 1. Only edges count, the
/// points that say where the template lies: on a nearly plain board the rest would call every edge that is half a pixel off an outlier.
fn scale(isa: Isa, points: &LevelPoints, round: &Round, s: &mut Scratch) -> Option<f32> {
    let chunks = points.x.len() / CHUNK;
    let stride = (chunks * CHUNK / SCALE_SAMPLES).max(1);
    let mut out = [0.0; CHUNK];
    for least in [points.edge, 0.0] {
        s.residual.clear();
        for k in (0..chunks).step_by(stride) {
            let at = k * CHUNK..(k + 1) * CHUNK;
            absolute_residuals(isa, points, &s.value, round, at.start, &mut out);
            let (gx, gy) = (&points.gx[at.clone()], &points.gy[at.clone()]);
            for (((r, v), gx), gy) in out.iter().zip(&s.visible[at]).zip(gx).zip(gy) {
                if *v > 0.0 && gx * gx + gy * gy >= least {
                    s.residual.push(*r);
                }
            }
        }
        if s.residual.len() >= LEAST_EDGES {
            break;
        }
    }
    if s.residual.is_empty() {
        return None;
    }
    let middle = s.residual.len() / 2;
    let (_, median, _) = s.residual.select_nth_unstable_by(middle, f32::total_cmp);
    Some((*median * 1.4826).max(1.0))
}

kernel! {
    /// B-spline samples of `picture` at `pose` of each point, and whether they lie inside (1 or 0).
    fn sample(picture: &Gray, pose: &Affine, x: &[f32], y: &[f32], value: &mut [f32], visible: &mut [f32]) = sample_body
}
kernel! {
    fn absolute_residuals(points: &LevelPoints, value: &[f32], round: &Round, start: usize, out: &mut [f32; CHUNK]) = absolute_residuals_body
}
kernel! {
    /// Adds every point's weighted products to `sums`.
    fn accumulate<const P: usize>(points: &LevelPoints, value: &[f32], visible: &[f32], round: &Round, sums: &mut Sums) = accumulate_body
}

#[inline(always)]
fn sample_body<S: Simd>(simd: S, picture: &Gray, pose: &Affine, x: &[f32], y: &[f32], value: &mut [f32], visible: &mut [f32]) {
    let m = pose.m.map(|r| r.map(|v| v as f32));
    let mut c = Chunk::default();
    let (x, y) = (x.as_chunks::<CHUNK>().0, y.as_chunks::<CHUNK>().0);
    let (value, visible) = (value.as_chunks_mut::<CHUNK>().0, visible.as_chunks_mut::<CHUNK>().0);
    for (((x, y), value), visible) in x.iter().zip(y).zip(value).zip(visible) {
        for i in 0..CHUNK {
            c.x[i] = m[0][0] * x[i] + m[0][1] * y[i] + m[0][2];
            c.y[i] = m[1][0] * x[i] + m[1][1] * y[i] + m[1][2];
        }
        sampling::spline(simd, picture, &mut c);
        *value = c.value;
        *visible = c.visible;
    }
}

/// One point's place in the light model: (u, w, tn), each of order 1.
#[inline(always)]
fn coordinates(round: &Round, x: f32, y: f32, t: f32) -> (f32, f32, f32) {
    ((x - round.centre.0) * round.unit, (y - round.centre.1) * round.unit, (t - round.mean) * (1.0 / GAIN_UNIT))
}

/// Frame value that the light model expects; what of it is additive gradient and blur is the second result.
#[inline(always)]
fn expected<S: Simd>(simd: S, light: &[f32; LIGHT], u: f32, w: f32, tn: f32, laplacian: f32) -> (f32, f32) {
    let gradient = simd.fma(light[2], u, simd.fma(light[3], w, light[7] * laplacian));
    let gain = simd.fma(light[4], u, simd.fma(light[5], w, light[0]));
    let curve = light[6] * simd.fma(tn, tn, -0.5);
    (simd.fma(gain, tn, light[1] + gradient + curve), gradient)
}

#[inline(always)]
fn absolute_residuals_body<S: Simd>(
    simd: S,
    points: &LevelPoints,
    value: &[f32],
    round: &Round,
    start: usize,
    out: &mut [f32; CHUNK],
) {
    let at = start..start + CHUNK;
    let (x, y, t, v) = (&points.x[at.clone()], &points.y[at.clone()], &points.value[at.clone()], &value[at.clone()]);
    let laplacian = &points.laplacian[at];
    for i in 0..CHUNK {
        let (u, w, tn) = coordinates(round, x[i], y[i], t[i]);
        out[i] = (v[i] - expected(simd, &round.light, u, w, tn, laplacian[i]).0).abs();
    }
}

/// What the light model expects of eight points: (frame value, additive gradient and blur in it).
#[inline(always)]
fn expected_lanes<S: Simd>(simd: S, light: &[S::V; LIGHT], u: S::V, w: S::V, tn: S::V, laplacian: S::V) -> (S::V, S::V) {
    let extra = simd.mul_add(light[2], u, simd.mul_add(light[3], w, simd.mul(light[7], laplacian)));
    let gain = simd.mul_add(light[4], u, simd.mul_add(light[5], w, light[0]));
    let curve = simd.mul(light[6], simd.mul_add(tn, tn, simd.splat(-0.5)));
    (simd.mul_add(gain, tn, simd.add(simd.add(light[1], extra), curve)), extra)
}

#[inline(always)]
fn accumulate_body<S: Simd, const P: usize>(
    simd: S,
    points: &LevelPoints,
    value: &[f32],
    visible: &[f32],
    round: &Round,
    sums: &mut Sums,
) {
    const BLOCKS: usize = CHUNK / LANES;
    let n = P + LIGHT;
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    // No closures among the lane operations: the compiler does not always inline one into a function with more instructions switched on.
    let mut light = [zero; LIGHT];
    for (l, c) in light.iter_mut().zip(&round.light) {
        *l = simd.splat(*c);
    }
    let (centre_x, centre_y) = (simd.splat(round.centre.0), simd.splat(round.centre.1));
    let (unit, mean, gain_unit) = (simd.splat(round.unit), simd.splat(round.mean), simd.splat(1.0 / GAIN_UNIT));
    let (scale, low, high) = (simd.splat(round.weight_scale), simd.splat(round.clipped.0), simd.splat(round.clipped.1));
    let [x, y, t, gx, gy, laplacian, value, visible] =
        [&points.x, &points.y, &points.value, &points.gx, &points.gy, &points.laplacian, value, visible]
            .map(|list| list.as_chunks::<LANES>().0);
    let mut column = [[[0.0f32; LANES]; BLOCKS]; COLUMNS];
    let mut weight = [[0.0f32; LANES]; BLOCKS];
    let mut fit = [zero; 7];
    for (f, sum) in fit.iter_mut().zip(&sums.fit) {
        *f = simd.load(sum);
    }
    for chunk in 0..points.x.len() / CHUNK {
        for b in 0..BLOCKS {
            let i = chunk * BLOCKS + b;
            let (seen, v, t) = (simd.load(&visible[i]), simd.load(&value[i]), simd.load(&t[i]));
            let (gx, gy, laplacian) = (simd.load(&gx[i]), simd.load(&gy[i]), simd.load(&laplacian[i]));
            let u = simd.mul(simd.sub(simd.load(&x[i]), centre_x), unit);
            let w = simd.mul(simd.sub(simd.load(&y[i]), centre_y), unit);
            let tn = simd.mul(simd.sub(t, mean), gain_unit);
            let (model, extra) = expected_lanes(simd, &light, u, w, tn, laplacian);
            let r = simd.sub(v, model);
            let z = simd.mul(r, scale);
            let open = simd.max(simd.mul_sub_from(z, z, one), zero);
            let clipped =
                simd.or(simd.and(simd.less(v, low), simd.less(zero, r)), simd.and(simd.less(high, v), simd.less(r, zero)));
            simd.store(simd.and_not(clipped, simd.mul(simd.mul(open, open), seen)), &mut weight[b]);
            simd.store(gx, &mut column[0][b]);
            simd.store(gy, &mut column[1][b]);
            if P == 4 {
                simd.store(simd.mul_add(gx, u, simd.mul(gy, w)), &mut column[2][b]);
                simd.store(simd.mul_sub_from(gx, w, simd.mul(gy, u)), &mut column[3][b]);
            } else if P == 6 {
                simd.store(simd.mul(gx, u), &mut column[2][b]);
                simd.store(simd.mul(gy, u), &mut column[3][b]);
                simd.store(simd.mul(gx, w), &mut column[4][b]);
                simd.store(simd.mul(gy, w), &mut column[5][b]);
            }
            simd.store(tn, &mut column[P][b]);
            simd.store(one, &mut column[P + 1][b]);
            simd.store(u, &mut column[P + 2][b]);
            simd.store(w, &mut column[P + 3][b]);
            simd.store(simd.mul(tn, u), &mut column[P + 4][b]);
            simd.store(simd.mul(tn, w), &mut column[P + 5][b]);
            simd.store(simd.mul_add(tn, tn, simd.splat(-0.5)), &mut column[P + 6][b]);
            simd.store(laplacian, &mut column[P + 7][b]);
            simd.store(r, &mut column[n][b]);
            let (t, v) = (simd.mul(t, seen), simd.mul(simd.sub(v, extra), seen));
            fit[0] = simd.add(fit[0], seen);
            fit[1] = simd.add(fit[1], simd.and(simd.less(zero, open), seen));
            fit[2] = simd.add(fit[2], t);
            fit[3] = simd.add(fit[3], v);
            fit[4] = simd.mul_add(t, t, fit[4]);
            fit[5] = simd.mul_add(v, v, fit[5]);
            fit[6] = simd.mul_add(t, v, fit[6]);
        }
        for j in 0..n {
            let mut weighted = [zero; BLOCKS];
            for b in 0..BLOCKS {
                weighted[b] = simd.mul(simd.load(&weight[b]), simd.load(&column[j][b]));
            }
            let from = if round.normal_matrix { j } else { n };
            for (sum, c) in sums.products[j][from..=n].iter_mut().zip(&column[from..=n]) {
                // Two chains, so that one addition need not wait for the other.
                let (mut even, mut odd) = (simd.load(sum), zero);
                for b in (0..BLOCKS).step_by(2) {
                    even = simd.mul_add(weighted[b], simd.load(&c[b]), even);
                    odd = simd.mul_add(weighted[b + 1], simd.load(&c[b + 1]), odd);
                }
                simd.store(simd.add(even, odd), sum);
            }
        }
    }
    for (sum, fit) in sums.fit.iter_mut().zip(fit) {
        simd.store(fit, sum);
    }
}

/// Replaces the lower triangle of the leading `n` x `n` block by its Cholesky factor.
fn cholesky(a: &mut [[f64; MOST]; MOST], n: usize) -> Option<()> {
    for i in 0..n {
        for j in 0..=i {
            let mut sum = a[i][j];
            for k in 0..j {
                sum -= a[i][k] * a[j][k];
            }
            a[i][j] = if i != j {
                sum / a[j][j]
            } else if sum > 1e-9 {
                sum.sqrt()
            } else {
                return None;
            };
        }
    }
    Some(())
}

fn cholesky_solve(l: &[[f64; MOST]; MOST], b: &mut [f64; MOST], n: usize) {
    for i in 0..n {
        for k in 0..i {
            b[i] -= l[i][k] * b[k];
        }
        b[i] /= l[i][i];
    }
    for i in (0..n).rev() {
        for k in i + 1..n {
            b[i] -= l[k][i] * b[k];
        }
        b[i] /= l[i][i];
    }
}
