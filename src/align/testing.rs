//! Pictures for this module's tests: procedural boards, and frames rendered from them by a known pose.
//!
//! Frames are rendered independently of the code under test: the scene is a function of continuous coordinates, area-averaged over 3x3
//! points a pixel, so template and frame are both exact samples of it and the truth is known to rounding.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::frame::Gray;
use crate::geometry::Affine;

/// The tests' random source.
pub fn random(seed: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed)
}

/// A standard normal number (sum of twelve uniform ones).
pub fn normal(random: &mut Pcg64Mcg) -> f64 {
    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
}

/// Side of a scene's cells, px; each holds one part.
const CELL: f64 = 23.0;
/// Cells each way from the template's origin; further out the board repeats.
const CELLS: i64 = 64;

/// A board that goes on around the template's window: discs, bars and rings in a jittered grid of cells.
pub struct Scene {
    parts: Vec<Part>,
}

struct Part {
    x: f64,
    y: f64,
    kind: u32,
    size: f64,
    cos: f64,
    sin: f64,
    gray: f64,
}

impl Scene {
    /// The board of that number.
    pub fn new(seed: u64) -> Self {
        let mut r = random(seed);
        let part = |_| {
            let (sin, cos) = (std::f64::consts::PI * r.random::<f64>()).sin_cos();
            Part {
                x: CELL * r.random::<f64>(),
                y: CELL * r.random::<f64>(),
                kind: r.random_range(0..3),
                size: 3.0 + 8.0 * r.random::<f64>(),
                cos,
                sin,
                gray: 20.0 + 220.0 * r.random::<f64>(),
            }
        };
        Self { parts: (0..CELLS * CELLS).map(part).collect() }
    }

    /// Gray level at a point of the template's coordinates; edges are 1 px wide ramps.
    pub fn at(&self, x: f64, y: f64) -> f64 {
        let mut gray = 90.0;
        let (ci, cj) = ((x / CELL).floor() as i64, (y / CELL).floor() as i64);
        for j in cj - 1..=cj + 1 {
            for i in ci - 1..=ci + 1 {
                let p = &self.parts[(j.rem_euclid(CELLS) * CELLS + i.rem_euclid(CELLS)) as usize];
                let (dx, dy) = (x - i as f64 * CELL - p.x, y - j as f64 * CELL - p.y);
                let (u, v) = (dx * p.cos + dy * p.sin, dy * p.cos - dx * p.sin);
                let inside = match p.kind {
                    0 => p.size - u.hypot(v),
                    1 => (1.5 * p.size - u.abs()).min(0.35 * p.size - v.abs()),
                    _ => 0.25 * p.size - (u.hypot(v) - p.size).abs(),
                };
                let share = (inside + 0.5).clamp(0.0, 1.0);
                gray += share * (p.gray - gray);
            }
        }
        gray
    }

    /// What a camera sees of the board: `width` x `height` px at `frame_from_template`, each pixel the mean over 3x3 points.
    pub fn render(
        &self,
        width: usize,
        height: usize,
        frame_from_template: &Affine,
        light: impl Fn(f64, usize, usize) -> f64,
    ) -> Gray {
        let inverse = frame_from_template.invert().expect("poses of tests can be inverted");
        Gray::from_fn(width, height, |x, y| {
            let mut sum = 0.0;
            for k in 0..9 {
                let (sx, sy) = (f64::from(k % 3 - 1) / 3.0, f64::from(k / 3 - 1) / 3.0);
                let (u, v) = inverse.apply(x as f64 + sx, y as f64 + sy);
                sum += self.at(u, v);
            }
            light(sum / 9.0, x, y).round().clamp(0.0, 255.0) as u8
        })
    }
}

/// A template: the window of a board.
pub fn board(width: usize, height: usize, seed: u64) -> Gray {
    Scene::new(seed).render(width, height, &Affine::IDENTITY, |v, _, _| v)
}

/// Gaussian blur of `sigma` px, borders repeated.
pub fn blur(picture: &Gray, sigma: f64) -> Gray {
    let reach = (3.0 * sigma).ceil() as i64;
    let kernel: Vec<f64> = (-reach..=reach).map(|k| (-(k * k) as f64 / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = kernel.iter().sum();
    let pass = |p: &Gray, dx: i64, dy: i64| {
        Gray::from_fn(p.width(), p.height(), |x, y| {
            let at = |k: i64| {
                let u = (x as i64 + k * dx).clamp(0, p.width() as i64 - 1) as usize;
                let v = (y as i64 + k * dy).clamp(0, p.height() as i64 - 1) as usize;
                f64::from(p.get(u, v))
            };
            (kernel.iter().zip(-reach..=reach).map(|(w, k)| w * at(k)).sum::<f64>() / sum).round() as u8
        })
    };
    pass(&pass(picture, 1, 0), 0, 1)
}
