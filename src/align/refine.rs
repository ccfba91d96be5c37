//! Sub-pixel refinement of a pose: sparse, robust, inverse-compositional Gauss-Newton with a model of the light.
//!
//! Unknowns are the pose (4 numbers of a similarity, or 6 of an affine map) and 7 of the light: gain, offset, additive gradient (2),
//! multiplicative gradient (2), and a curvature of the gain curve. The Jacobian comes from the template (Baker & Matthews 2004), so a
//! round only samples the frame. Residuals are weighted by Tukey's biweight on a scale from the median absolute deviation; samples
//! clipped by the camera (near 0 or 255) that err to the clipped side are left out. Light and scale pass on to the next level.

use super::isa::{Isa, fma, kernel};
use super::points::LevelPoints;
use super::sampling::{self, CHUNK, Chunk};
use crate::frame::Gray;
use crate::geometry::Affine;

/// Unknowns of the light model.
pub const LIGHT: usize = 7;
/// Most unknowns: affine pose and light.
const MOST: usize = 6 + LIGHT;
/// Columns of the accumulated products: unknowns and the residual.
const COLUMNS: usize = MOST + 1;
/// Sums kept in vector lanes.
const LANES: usize = 8;
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
/// Residuals that the scale is estimated from.
const SCALE_SAMPLES: usize = 2048;

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
    /// Length of the last step at the template's corner, px of the level.
    pub last_step_px: f64,
    /// Rounds taken.
    pub rounds: usize,
}

/// How long to refine.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Most rounds.
    pub rounds: usize,
    /// Rounds that build the normal matrix anew and estimate the residuals' scale; later ones keep both.
    pub fresh_rounds: usize,
    /// Stop when a step moves no template corner further than this, px of the level.
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
    let mut out = Refined {
        pose: *start,
        ncc: -1.0,
        visible_share: 0.0,
        inlier_share: 0.0,
        light: light.unwrap_or(Light { coefficients: [0.0; LIGHT], sigma: 0.0 }),
        last_step_px: f64::INFINITY,
        rounds: 0,
    };
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
                // The light's second-order terms are held by a little more, since a plain template hardly shows them.
                factor[k][k] += if k < P { factor[k][k] * 1e-6 } else { fit[0] * if k < P + 4 { 1e-6 } else { 2e-3 } };
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
        out.last_step_px = warp.corner_error(&Affine::IDENTITY, points.size.0, points.size.1);
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
    let l = if P == 4 {
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

fn ncc(fit: &[f64; 7]) -> f32 {
    let [n, _, t, v, tt, vv, tv] = *fit;
    let product = (tt - t * t / n) * (vv - v * v / n);
    if product > 1e-9 { ((tv - t * v / n) / product.sqrt()).clamp(-1.0, 1.0) as f32 } else { 0.0 }
}

/// Residuals' standard deviation from the median absolute deviation of a sample of them, gray levels, at least 1.
fn scale(isa: Isa, points: &LevelPoints, round: &Round, s: &mut Scratch) -> Option<f32> {
    let chunks = points.x.len() / CHUNK;
    let stride = (chunks * CHUNK / SCALE_SAMPLES).max(1);
    s.residual.clear();
    let mut out = [0.0; CHUNK];
    for k in (0..chunks).step_by(stride) {
        let at = k * CHUNK..(k + 1) * CHUNK;
        absolute_residuals(isa, points, &s.value, round, at.start, &mut out);
        s.residual.extend(out.iter().zip(&s.visible[at]).filter(|(_, v)| **v > 0.0).map(|(r, _)| *r));
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
fn sample_body<const FUSED: bool>(picture: &Gray, pose: &Affine, x: &[f32], y: &[f32], value: &mut [f32], visible: &mut [f32]) {
    let m = pose.m.map(|r| r.map(|v| v as f32));
    let mut c = Chunk::default();
    let (x, y) = (x.as_chunks::<CHUNK>().0, y.as_chunks::<CHUNK>().0);
    let (value, visible) = (value.as_chunks_mut::<CHUNK>().0, visible.as_chunks_mut::<CHUNK>().0);
    for (((x, y), value), visible) in x.iter().zip(y).zip(value).zip(visible) {
        for i in 0..CHUNK {
            c.x[i] = m[0][0] * x[i] + m[0][1] * y[i] + m[0][2];
            c.y[i] = m[1][0] * x[i] + m[1][1] * y[i] + m[1][2];
        }
        sampling::spline::<FUSED>(picture, &mut c);
        *value = c.value;
        *visible = c.visible;
    }
}

/// One point's place in the light model: (u, w, tn), each of order 1.
#[inline(always)]
fn coordinates(round: &Round, x: f32, y: f32, t: f32) -> (f32, f32, f32) {
    ((x - round.centre.0) * round.unit, (y - round.centre.1) * round.unit, (t - round.mean) * (1.0 / GAIN_UNIT))
}

/// Frame value that the light model expects; the additive gradient alone is the second result.
#[inline(always)]
fn expected<const FUSED: bool>(light: &[f32; LIGHT], u: f32, w: f32, tn: f32) -> (f32, f32) {
    let gradient = fma::<FUSED>(light[2], u, light[3] * w);
    let gain = fma::<FUSED>(light[4], u, fma::<FUSED>(light[5], w, light[0]));
    let curve = light[6] * fma::<FUSED>(tn, tn, -0.5);
    (fma::<FUSED>(gain, tn, light[1] + gradient + curve), gradient)
}

#[inline(always)]
fn absolute_residuals_body<const FUSED: bool>(
    points: &LevelPoints,
    value: &[f32],
    round: &Round,
    start: usize,
    out: &mut [f32; CHUNK],
) {
    let at = start..start + CHUNK;
    let (x, y, t, v) = (&points.x[at.clone()], &points.y[at.clone()], &points.value[at.clone()], &value[at]);
    for i in 0..CHUNK {
        let (u, w, tn) = coordinates(round, x[i], y[i], t[i]);
        out[i] = (v[i] - expected::<FUSED>(&round.light, u, w, tn).0).abs();
    }
}

#[inline(always)]
fn accumulate_body<const FUSED: bool, const P: usize>(
    points: &LevelPoints,
    value: &[f32],
    visible: &[f32],
    round: &Round,
    sums: &mut Sums,
) {
    let n = P + LIGHT;
    let mut column = [[0.0f32; CHUNK]; COLUMNS];
    let mut weight = [0.0f32; CHUNK];
    for k in 0..points.x.len() / CHUNK {
        let at = k * CHUNK..(k + 1) * CHUNK;
        let (x, y, t) = (&points.x[at.clone()], &points.y[at.clone()], &points.value[at.clone()]);
        let (gx, gy) = (&points.gx[at.clone()], &points.gy[at.clone()]);
        let (v, seen) = (&value[at.clone()], &visible[at]);
        for i in 0..CHUNK {
            let (u, w, tn) = coordinates(round, x[i], y[i], t[i]);
            column[0][i] = gx[i];
            column[1][i] = gy[i];
            if P == 4 {
                column[2][i] = fma::<FUSED>(gx[i], u, gy[i] * w);
                column[3][i] = fma::<FUSED>(gy[i], u, -(gx[i] * w));
            } else {
                column[2][i] = gx[i] * u;
                column[3][i] = gy[i] * u;
                column[4][i] = gx[i] * w;
                column[5][i] = gy[i] * w;
            }
            column[P][i] = tn;
            column[P + 1][i] = 1.0;
            column[P + 2][i] = u;
            column[P + 3][i] = w;
            column[P + 4][i] = tn * u;
            column[P + 5][i] = tn * w;
            column[P + 6][i] = fma::<FUSED>(tn, tn, -0.5);
            let (model, _) = expected::<FUSED>(&round.light, u, w, tn);
            let r = v[i] - model;
            column[n][i] = r;
            let z = r * round.weight_scale;
            let open = fma::<FUSED>(-z, z, 1.0).max(0.0);
            let cut = ((v[i] <= round.clipped.0) & (r > 0.0)) | ((v[i] >= round.clipped.1) & (r < 0.0));
            weight[i] = if cut { 0.0 } else { open * open * seen[i] };
        }
        // Sums for the figures.
        for b in 0..CHUNK / LANES {
            for l in 0..LANES {
                let i = b * LANES + l;
                let gradient = fma::<FUSED>(round.light[2], column[P + 2][i], round.light[3] * column[P + 3][i]);
                let (t, v) = (t[i] * seen[i], (v[i] - gradient) * seen[i]);
                let inlier = if column[n][i].abs() * round.weight_scale < 1.0 { seen[i] } else { 0.0 };
                sums.fit[0][l] += seen[i];
                sums.fit[1][l] += inlier;
                sums.fit[2][l] += t;
                sums.fit[3][l] += v;
                sums.fit[4][l] = fma::<FUSED>(t, t, sums.fit[4][l]);
                sums.fit[5][l] = fma::<FUSED>(v, v, sums.fit[5][l]);
                sums.fit[6][l] = fma::<FUSED>(t, v, sums.fit[6][l]);
            }
        }
        for j in 0..n {
            let mut weighted = [0.0f32; CHUNK];
            for i in 0..CHUNK {
                weighted[i] = weight[i] * column[j][i];
            }
            let from = if round.normal_matrix { j } else { n };
            for (sum, c) in sums.products[j][from..=n].iter_mut().zip(&column[from..=n]) {
                let mut s = *sum;
                for b in 0..CHUNK / LANES {
                    for l in 0..LANES {
                        s[l] = fma::<FUSED>(weighted[b * LANES + l], c[b * LANES + l], s[l]);
                    }
                }
                *sum = s;
            }
        }
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
