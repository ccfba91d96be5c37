//! The template side of the search at the coarse level, for one frame size: spectra, windows, tables and the verification grid.
//!
//! Template and frame share one canvas, large enough for both, so that pictures of different sizes and shapes correlate without being
//! resampled. [`CoarseTemplate`] is read only and shared; [`CoarseScratch`] belongs to a thread.

use rustfft::num_complex::Complex32;

use super::isa::{Isa, kernel};
use super::lanes::{LANES, Simd};
use super::log_polar::{self, ANGLES, LogPolar, RADII};
use super::model::halve_used;
use super::sampling::{self, CHUNK, Chunk};
use super::spectrum::{self, Fft2, good_length, hann, tukey};
use crate::frame::Map;
use crate::geometry::Affine;

/// Share of the canvas that the flanks of the translation stage's window take: a Hann window would hide most of a shifted template.
const TUKEY_TAPER: f32 = 0.4;
/// Low-pass of the translation stage, cycles a coarse pixel.
const BAND: f64 = 0.4;
/// Points a side of the verification grid.
const GRID: usize = 44;
/// Mean square of the template's LCN picture below which there is nothing to register on.
const LEAST_POWER: f64 = 4e-4;
/// Shorter side of the search level, px, from which the walk through all poses works at half its size: its steps of rotation blur what is finer anyway.
const WALK_HALVE_FROM: usize = 96;
/// Kurtosis of a normal distribution; a board's LCN picture comes close to it.
const NORMAL_KURTOSIS: f64 = 3.0;

/// What the search needs of the template. Positions are coarse-level pixels.
#[derive(Debug)]
pub struct CoarseTemplate {
    /// Pyramid level of the search.
    pub level: usize,
    /// Size of the frame at that level.
    pub frame_size: (usize, usize),
    /// Size of the template at that level.
    pub template_size: (usize, usize),
    /// Transform of the canvas.
    pub plan: Fft2,
    /// Transform of the log-polar spectra.
    pub log_plan: Fft2,
    /// Transform of the band-limited correlation.
    pub shift_plan: Fft2,
    /// Largest kx and ky of the band.
    pub band: (usize, usize),
    /// Log-polar lookup.
    pub table: LogPolar,
    /// Scales to look for, smallest and largest.
    pub scale_band: (f64, f64),
    /// Where the template's pixel (0, 0) lies on the canvas.
    pub offset: (usize, usize),
    /// Window of the translation stage, the canvas's size.
    pub canvas_window: Vec<f32>,
    /// Spectrum of the windowed template.
    pub spectrum: Vec<Complex32>,
    /// Spectrum of the template's log-polar spectrum.
    pub log_spectrum: Vec<Complex32>,
    /// Phases of the turn by 180 degrees along x and y.
    pub turn_x: Vec<Complex32>,
    /// The same along y.
    pub turn_y: Vec<Complex32>,
    frame_window: Vec<f32>,
    grid: Grid,
    /// The same at half the size, for the walk through all poses; none where the pictures are small.
    walk: Option<Box<CoarseTemplate>>,
}

/// Verification points, padded to whole chunks with points that are never visible.
#[derive(Debug, Default)]
struct Grid {
    x: Vec<f32>,
    y: Vec<f32>,
    value: Vec<f32>,
    count: usize,
    /// Sum of squared values.
    power: f64,
    /// Points that carry the structure, at most `count`: their number falls with the root of the kurtosis, which weighs how few they are
    /// against how far each stands out.
    effective: f64,
}

/// Position of padding points: outside every picture under every pose that the search looks at.
pub const NOWHERE: f32 = -1e9;

/// Working memory of the search.
#[derive(Debug, Default)]
pub struct CoarseScratch {
    pub(super) fft: spectrum::Scratch,
    pub(super) log: log_polar::Scratch,
    pub(super) picture: Vec<f32>,
    pub(super) spectrum: Vec<Complex32>,
    pub(super) product: Vec<Complex32>,
    pub(super) correlation: Vec<f32>,
    pub(super) log_polar: Vec<f32>,
    pub(super) log_spectrum: Vec<Complex32>,
    pub(super) log_product: Vec<Complex32>,
    pub(super) line: Vec<Complex32>,
    pub(super) tops: Vec<(f32, f32)>,
}

/// How well a pose fits at the coarse level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// `atanh(NCC) sqrt(points)`: the NCC in standard deviations of chance. Points are counted by the structure that they carry: those of
    /// a board that is plain but for one corner are few.
    pub z: f32,
    /// Normalised cross-correlation of the LCN pictures over the visible grid points.
    pub ncc: f32,
    /// Share of the grid points that the frame shows.
    pub visible_share: f32,
}

impl Fit {
    const NONE: Fit = Fit { z: -9.0, ncc: -1.0, visible_share: 0.0 };
}

/// Halves both sides of a map: the mean of each 2x2 block; an odd last column or row is left out.
pub fn halve(source: &Map, out: &mut Map) {
    let (w, h) = (source.width() / 2, source.height() / 2);
    out.resize_for_overwrite(w, h);
    for y in 0..h {
        let (a, b) = (source.row(2 * y), source.row(2 * y + 1));
        for ((o, a), b) in out.row_mut(y).iter_mut().zip(a.as_chunks::<2>().0).zip(b.as_chunks::<2>().0) {
            *o = 0.25 * ((a[0] + a[1]) + (b[0] + b[1]));
        }
    }
}

fn outer(x: &[f32], y: &[f32]) -> Vec<f32> {
    y.iter().flat_map(|v| x.iter().map(move |u| u * v)).collect()
}

impl CoarseTemplate {
    /// Prepares the template's LCN picture (`lcn`, zero where it must not be used, `used` 1 where it may) for frames whose coarse level
    /// has `frame_size`.
    #[must_use]
    pub fn new(level: usize, lcn: &Map, used: &[bool], frame_size: (usize, usize), scale_band: (f64, f64)) -> Self {
        let isa = Isa::detect();
        let (tw, th) = lcn.size();
        let (w, h) = (good_length(tw.max(frame_size.0)), good_length(th.max(frame_size.1)));
        let plan = Fft2::new(w, h);
        let limit = |n: usize| ((n as f64 * BAND) as usize).min(n / 2 - 1);
        let band = (limit(w), limit(h));
        let shift_plan = Fft2::new(w, h);
        let table = LogPolar::new(&plan);
        let log_plan = Fft2::new(RADII, ANGLES);
        let turn = |n: usize| {
            (0..n).map(|k| Complex32::from_polar(1.0, 2.0 * std::f32::consts::PI * k as f32 / n as f32)).collect::<Vec<_>>()
        };
        let mut out = Self {
            level,
            frame_size,
            template_size: (tw, th),
            log_plan,
            shift_plan,
            band,
            table,
            scale_band,
            offset: ((w - tw) / 2, (h - th) / 2),
            canvas_window: outer(&tukey(w, TUKEY_TAPER), &tukey(h, TUKEY_TAPER)),
            spectrum: Vec::new(),
            log_spectrum: Vec::new(),
            turn_x: turn(w),
            turn_y: turn(h),
            frame_window: outer(&hann(frame_size.0), &hann(frame_size.1)),
            grid: Grid::new(lcn, used),
            walk: None,
            plan,
        };
        let mut s = CoarseScratch::default();
        s.fit(&out);
        out.mellin(isa, lcn, &outer(&hann(tw), &hann(th)), &mut s);
        out.log_spectrum = s.log_spectrum.clone();
        let window = outer(&tukey(tw, TUKEY_TAPER), &tukey(th, TUKEY_TAPER));
        place(lcn, &window, w, out.offset, &mut s.picture);
        out.plan.forward(&mut s.picture, &mut s.spectrum, &mut s.fft);
        out.spectrum = s.spectrum;
        if tw.min(th).min(frame_size.0).min(frame_size.1) >= WALK_HALVE_FROM {
            let mut half = Map::default();
            halve(lcn, &mut half);
            let used = halve_used(used, tw, half.size());
            let frame_size = (frame_size.0 / 2, frame_size.1 / 2);
            out.walk = Some(Box::new(Self::new(level + 1, &half, &used, frame_size, scale_band)));
        }
        out
    }

    /// What the walk through all poses correlates with, and by how many levels it is smaller than this.
    #[must_use]
    pub fn for_walk(&self) -> (&CoarseTemplate, usize) {
        self.walk.as_deref().map_or((self, 0), |w| (w, 1))
    }

    /// Spectrum of the log-polar spectrum of the frame's LCN picture, into `s.log_spectrum`.
    pub fn frame_mellin(&self, isa: Isa, frame: &Map, s: &mut CoarseScratch) {
        self.mellin(isa, frame, &self.frame_window, s);
    }

    fn mellin(&self, isa: Isa, lcn: &Map, window: &[f32], s: &mut CoarseScratch) {
        place(lcn, window, self.plan.size().0, (0, 0), &mut s.picture);
        self.plan.forward(&mut s.picture, &mut s.spectrum, &mut s.fft);
        self.table.sample(isa, &s.spectrum, &mut s.log_polar, &mut s.log);
        self.log_plan.forward(&mut s.log_polar, &mut s.log_spectrum, &mut s.fft);
    }

    /// How well `pose` (coarse template to coarse frame) fits the frame's LCN picture.
    #[must_use]
    pub fn verify(&self, isa: Isa, frame: &Map, pose: &Affine, least_visible: f32) -> Fit {
        let mut sums = [0.0; 6];
        correlate(isa, frame, pose, &self.grid.x, &self.grid.y, &self.grid.value, &mut sums);
        let [n, t, v, tt, vv, tv] = sums.map(f64::from);
        let visible_share = (n / self.grid.count.max(1) as f64) as f32;
        if visible_share < least_visible || n < 20.0 {
            return Fit { visible_share, ..Fit::NONE };
        }
        let product = (tt - t * t / n) * (vv - v * v / n);
        if product < 1e-9 {
            return Fit { visible_share, ..Fit::NONE };
        }
        let ncc = ((tv - t * v / n) / product.sqrt()).clamp(-0.999, 0.999);
        let points = self.grid.effective * tt / self.grid.power;
        Fit { z: (ncc.atanh() * points.sqrt()) as f32, ncc: ncc as f32, visible_share }
    }

    /// Whether the template shows nothing that could be registered.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.grid.power <= LEAST_POWER * self.grid.count as f64
    }
}

impl CoarseScratch {
    /// Grows every buffer to what `t` needs; does nothing when they fit already.
    pub fn fit(&mut self, t: &CoarseTemplate) {
        self.picture.resize(t.plan.picture_len(), 0.0);
        self.spectrum.resize(t.plan.spectrum_len(), Complex32::default());
        self.product.resize(t.shift_plan.spectrum_len(), Complex32::default());
        self.correlation.resize(t.shift_plan.picture_len(), 0.0);
        self.log_polar.resize(ANGLES * RADII, 0.0);
        self.log_spectrum.resize(t.log_plan.spectrum_len(), Complex32::default());
        self.log_product.resize(t.log_plan.spectrum_len(), Complex32::default());
    }
}

/// Puts `source * window` on a canvas of `width` columns with its pixel (0, 0) at `offset`; 0 elsewhere.
fn place(source: &Map, window: &[f32], width: usize, offset: (usize, usize), canvas: &mut [f32]) {
    let (w, h) = source.size();
    if canvas.len() != w * h {
        canvas.fill(0.0);
    }
    for y in 0..h {
        let start = (y + offset.1) * width + offset.0;
        let out = &mut canvas[start..start + w];
        for ((o, v), k) in out.iter_mut().zip(source.row(y)).zip(&window[y * w..(y + 1) * w]) {
            *o = v * k;
        }
    }
}

impl Grid {
    fn new(lcn: &Map, used: &[bool]) -> Self {
        let (w, h) = lcn.size();
        let step = ((w.max(h)) as f64 / GRID as f64).max(1.0);
        let mut grid = Self::default();
        let mut y = step / 2.0;
        while y < h as f64 - 1.0 {
            let mut x = step / 2.0;
            while x < w as f64 - 1.0 {
                let (xi, yi) = (x as usize, y as usize);
                if used[yi * w + xi] {
                    grid.x.push(xi as f32);
                    grid.y.push(yi as f32);
                    grid.value.push(lcn.get(xi, yi));
                }
                x += step;
            }
            y += step;
        }
        grid.count = grid.x.len();
        let moment = |k: i32| grid.value.iter().map(|v| f64::from(*v).powi(k)).sum::<f64>();
        grid.power = moment(2);
        if grid.power > 0.0 {
            let kurtosis = grid.count as f64 * moment(4) / (grid.power * grid.power);
            grid.effective = grid.count as f64 * (NORMAL_KURTOSIS / kurtosis).min(1.0).sqrt();
        }
        let padded = grid.count.next_multiple_of(CHUNK);
        grid.x.resize(padded, NOWHERE);
        grid.y.resize(padded, NOWHERE);
        grid.value.resize(padded, 0.0);
        grid
    }
}

kernel! {
    /// Sums over the visible points: count, t, v, t², v², t v (t = template, v = frame).
    fn correlate(frame: &Map, pose: &Affine, x: &[f32], y: &[f32], value: &[f32], sums: &mut [f32; 6]) = correlate_body
}

#[inline(always)]
fn correlate_body<S: Simd>(simd: S, frame: &Map, pose: &Affine, x: &[f32], y: &[f32], value: &[f32], sums: &mut [f32; 6]) {
    let m = pose.m.map(|r| r.map(|v| v as f32));
    let mut c = Chunk::default();
    let mut lanes = [simd.splat(0.0); 6];
    for ((x, y), t) in x.as_chunks::<CHUNK>().0.iter().zip(y.as_chunks::<CHUNK>().0).zip(value.as_chunks::<CHUNK>().0) {
        for i in 0..CHUNK {
            c.x[i] = m[0][0] * x[i] + m[0][1] * y[i] + m[0][2];
            c.y[i] = m[1][0] * x[i] + m[1][1] * y[i] + m[1][2];
        }
        sampling::bilinear(simd, frame, &mut c);
        for ((n, v), t) in c.visible.as_chunks().0.iter().zip(c.value.as_chunks().0).zip(t.as_chunks().0) {
            let n = simd.load(n);
            let (t, v) = (simd.mul(simd.load(t), n), simd.mul(simd.load(v), n));
            lanes[0] = simd.add(lanes[0], n);
            lanes[1] = simd.add(lanes[1], t);
            lanes[2] = simd.add(lanes[2], v);
            lanes[3] = simd.mul_add(t, t, lanes[3]);
            lanes[4] = simd.mul_add(v, v, lanes[4]);
            lanes[5] = simd.mul_add(t, v, lanes[5]);
        }
    }
    for (s, l) in sums.iter_mut().zip(lanes) {
        let mut out = [0.0; LANES];
        simd.store(l, &mut out);
        *s = out.iter().sum();
    }
}
