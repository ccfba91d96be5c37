//! How well a template can be registered at all: judged once, when it is taught.
//!
//! Three questions are answered from the template alone. How precisely could the best aligner place it: the Cramer-Rao bound of the
//! worst corner under camera noise, with gain, offset and light gradient unknown. Is it sharp: the width of its edges. Can it be mistaken
//! for itself: the best match of the template with itself turned by 180 degrees, and at any other pose.

use super::coarse::CoarseScratch;
use super::contrast;
use super::isa::Isa;
use super::model::TemplateModel;
use super::phase_correlation;
use super::points::Smooth;
use super::settings::Settings;
use super::walk::Walk;
use crate::error::Result;
use crate::frame::{Gray, Map};
use crate::geometry::Affine;

/// Camera noise that the expected error is stated for, gray levels.
pub const NOISE: f64 = 6.0;
/// Expected corner error, px, above which a template is called blank.
const BLANK_PX: f64 = 0.25;
/// Standard deviation at the top of the pyramid, gray levels, below which a template is called blank: noise hardly reaches that level.
const BLANK_CONTRAST: f64 = 4.0;
/// Squared gradient, gray levels a px, below which a pixel may be noise and does not count.
const LEAST_GRADIENT: f64 = 25.0;
/// Edge width, px, above which a template is called blurred.
const BLURRED_PX: f64 = 2.5;
/// Margin below which a template is called symmetric or self-similar.
const AMBIGUOUS: f32 = 0.1;
/// Corners nearer than this share of the longest side belong to the same pose.
const SAME_SHARE: f64 = 0.05;
/// Least visible share for a pose to count as a rival.
const RIVAL_VISIBLE: f32 = 0.5;

/// Why a template should not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    /// Too little structure to tell where it lies.
    Blank,
    /// Edges are too wide: out of focus or moved.
    Blurred,
    /// Looks the same after half a turn.
    Symmetric,
    /// Looks the same at another place, rotation or scale.
    SelfSimilar,
}

impl Weakness {
    /// Code for messages and records.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Weakness::Blank => "blank",
            Weakness::Blurred => "blurred",
            Weakness::Symmetric => "symmetric",
            Weakness::SelfSimilar => "self_similar",
        }
    }
}

/// What registration can expect of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateQuality {
    /// Standard deviation of the worst corner, px, under [`NOISE`] when the whole template is visible; no aligner does better. Infinite
    /// when the template has no structure.
    pub expected_corner_error_px: f64,
    /// Standard deviation of the used pixels at the top of the pyramid (where noise is averaged out), gray levels.
    pub contrast: f64,
    /// Width of the edges, px: the standard deviation of their blur on straight edges, down to half of it on parts smaller than the blur.
    pub edge_width_px: f64,
    /// 1 - NCC of the template with itself after half a turn at the best shift; 1 when the settings do not allow half a turn.
    pub margin_180: f32,
    /// 1 - NCC of the template with itself at the best other pose within the settings' range.
    pub margin_self: f32,
    /// Share of the template's pixels that the mask and region leave.
    pub used_share: f64,
    /// Every reason against the template; empty when it is good.
    pub weaknesses: Vec<Weakness>,
}

impl TemplateQuality {
    /// The reasons in words with their figures, one line each.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let say = |w: &Weakness| match w {
            Weakness::Blank if self.contrast >= BLANK_CONTRAST => format!(
                "undetermined: its structure does not hold the pose in every direction, expected corner error {:.3} px (at most {BLANK_PX} \
                 wanted), contrast {:.1} gray levels",
                self.expected_corner_error_px, self.contrast
            ),
            Weakness::Blank => format!(
                "blank: contrast {:.1} gray levels (at least {BLANK_CONTRAST} wanted), expected corner error {:.3} px (at most {BLANK_PX} wanted)",
                self.contrast, self.expected_corner_error_px
            ),
            Weakness::Blurred => {
                format!("blurred: edges are {:.1} px wide (at most {BLURRED_PX} wanted)", self.edge_width_px)
            }
            Weakness::Symmetric => {
                format!("symmetric: half a turn looks the same (margin {:.2}, at least {AMBIGUOUS} wanted)", self.margin_180)
            }
            Weakness::SelfSimilar => {
                format!("self-similar: another pose looks the same (margin {:.2}, at least {AMBIGUOUS} wanted)", self.margin_self)
            }
        };
        self.weaknesses.iter().map(say).collect()
    }
}

/// Judges a template as registration will use it (mask as for [`TemplateModel::new`]).
///
/// # Errors
/// Those of [`TemplateModel::new`].
pub fn assess(template: &Gray, mask: Option<&Gray>, settings: &Settings) -> Result<TemplateQuality> {
    let model = TemplateModel::new(template, mask, settings)?;
    let used_share = share(model.used(0));
    let contrast = contrast_of(model.picture(model.top()), model.used(model.top()));
    let expected_corner_error_px = expected_corner_error(model.picture(0), model.used(0));
    let edge_width_px = edge_width(&model);
    let (margin_180, margin_self) = margins(&model, settings);
    let mut weaknesses = Vec::new();
    // Blur takes the gradients away, so it is asked for before the error; widths and margins of an empty template are noise.
    let blurred = edge_width_px > BLURRED_PX;
    if contrast < BLANK_CONTRAST || (expected_corner_error_px > BLANK_PX && !blurred) {
        weaknesses.push(Weakness::Blank);
    } else {
        for (weak, reason) in [
            (blurred, Weakness::Blurred),
            (margin_180 < AMBIGUOUS, Weakness::Symmetric),
            (margin_self < AMBIGUOUS, Weakness::SelfSimilar),
        ] {
            if weak {
                weaknesses.push(reason);
            }
        }
    }
    Ok(TemplateQuality { expected_corner_error_px, contrast, edge_width_px, margin_180, margin_self, used_share, weaknesses })
}

fn share(used: &[bool]) -> f64 {
    used.iter().filter(|u| **u).count() as f64 / used.len() as f64
}

/// Standard deviation of the used pixels.
fn contrast_of(picture: &Gray, used: &[bool]) -> f64 {
    let (n, sum, square) = picture.data().iter().zip(used).filter(|(_, u)| **u).fold((0.0, 0.0, 0.0), |(n, s, q), (v, _)| {
        let v = f64::from(*v);
        (n + 1.0, s + v, q + v * v)
    });
    if n == 0.0 { 0.0 } else { (square / n - (sum / n) * (sum / n)).max(0.0).sqrt() }
}

/// Calls `f` with (x, y, [value, gx, gy, Laplacian]) of every used inner pixel.
fn each_used(picture: &Gray, used: &[bool], mut f: impl FnMut(usize, usize, [f32; 4])) {
    let (w, h) = picture.size();
    let smooth = Smooth::new(picture);
    for y in 1..h - 1 {
        for x in 1..w - 1 {
            if used[y * w + x] {
                f(x, y, smooth.at(x, y));
            }
        }
    }
}

/// Cramer-Rao bound of the worst corner, px; unknowns are the similarity, gain, offset and additive light gradient.
fn expected_corner_error(picture: &Gray, used: &[bool]) -> f64 {
    const UNKNOWNS: usize = 8;
    let (w, h) = picture.size();
    let (cx, cy) = ((w as f64 - 1.0) / 2.0, (h as f64 - 1.0) / 2.0);
    let mut a = [[0.0f64; UNKNOWNS]; UNKNOWNS];
    each_used(picture, used, |x, y, [value, gx, gy, _]| {
        let (gx, gy) = (f64::from(gx), f64::from(gy));
        // Flat pixels still tell about the light.
        let (gx, gy) = if gx * gx + gy * gy < LEAST_GRADIENT { (0.0, 0.0) } else { (gx, gy) };
        let (u, v) = ((x as f64 - cx) / cx, (y as f64 - cy) / cx);
        let row = [gx, gy, gx * u + gy * v, gy * u - gx * v, f64::from(value) - 128.0, 1.0, u, v];
        for (a, i) in a.iter_mut().zip(row) {
            for (a, j) in a.iter_mut().zip(row) {
                *a += i * j;
            }
        }
    });
    let mut worst = 0.0f64;
    for (x, y) in [(-1.0, -cy / cx), (1.0, -cy / cx), (-1.0, cy / cx), (1.0, cy / cx)] {
        // Variance of the corner's two coordinates: j' A^-1 j.
        let mut variance = 0.0;
        for j in [[1.0, 0.0, x, -y, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, y, x, 0.0, 0.0, 0.0, 0.0]] {
            let Some(solved) = solve(a, j) else {
                return f64::INFINITY;
            };
            variance += solved.iter().zip(j).map(|(s, j)| s * j).sum::<f64>();
        }
        worst = worst.max(NOISE * variance.max(0.0).sqrt());
    }
    worst
}

/// Solves `a x = b` for a symmetric positive definite `a`; `None` when it is not.
fn solve<const N: usize>(mut a: [[f64; N]; N], mut b: [f64; N]) -> Option<[f64; N]> {
    let largest = (0..N).map(|i| a[i][i]).fold(0.0, f64::max);
    for i in 0..N {
        if a[i][i] <= largest * 1e-12 {
            return None;
        }
        for r in i + 1..N {
            let f = a[r][i] / a[i][i];
            for c in i..N {
                a[r][c] -= f * a[i][c];
            }
            b[r] -= f * b[i];
        }
    }
    for i in (0..N).rev() {
        b[i] = (b[i] - (i + 1..N).map(|c| a[i][c] * b[c]).sum::<f64>()) / a[i][i];
    }
    Some(b)
}

/// Standard deviation of the blur of the strong edges, px. A Gaussian edge of width s has squared gradients 2 s² times its squared
/// second derivatives; measured at half size, where noise is a quarter.
fn edge_width(model: &TemplateModel) -> f64 {
    /// Variance of the smoothing kernel, px².
    const KERNEL_VARIANCE: f64 = 1.0 / 3.0;
    /// Pixels around a strong gradient that still belong to its edge.
    const REACH: usize = 3;
    let level = model.top().min(1);
    let (picture, used) = (model.picture(level), model.used(level));
    let (w, h) = picture.size();
    let mut gradient = Map::new(w, h);
    let mut laplacian = Map::new(w, h);
    each_used(picture, used, |x, y, [_, gx, gy, l]| {
        gradient.set(x, y, gx * gx + gy * gy);
        laplacian.set(x, y, l * l);
    });
    let mut sorted: Vec<f32> = gradient.data().to_vec();
    let at = sorted.len() * 19 / 20;
    let strong = *sorted.select_nth_unstable_by(at, f32::total_cmp).1 / 4.0;
    let (mut first, mut second) = (0.0f64, 0.0f64);
    for y in 0..h {
        for x in 0..w {
            let near = (y.saturating_sub(REACH)..(y + REACH + 1).min(h))
                .any(|j| gradient.row(j)[x.saturating_sub(REACH)..(x + REACH + 1).min(w)].iter().any(|g| *g > strong));
            if near {
                first += f64::from(gradient.get(x, y));
                second += f64::from(laplacian.get(x, y));
            }
        }
    }
    let variance = first / (2.0 * second.max(1e-9)) - KERNEL_VARIANCE;
    f64::from(1u32 << level) * variance.max(0.0).sqrt()
}

/// (margin after half a turn, margin at any other pose).
fn margins(model: &TemplateModel, settings: &Settings) -> (f32, f32) {
    let isa = Isa::detect();
    let size = model.size();
    let search = model.search(size);
    let mut lcn = Map::default();
    contrast::normalise(isa, model.picture(search.level), &mut lcn, &mut contrast::Scratch::default());
    let mut rivals = Vec::new();
    let mut scratch = CoarseScratch::default();
    scratch.fit(&search);
    phase_correlation::shifts(isa, &search, &mut scratch, &lcn, 0.0, 1.0, 4, |pose| rivals.push(pose));
    let mut walk = Walk::default();
    walk.run(isa, &search, &lcn, &Settings { fallback_threads: 1, ..settings.clone() });
    rivals.extend(walk.found().map(|c| c.pose));
    let (w, h) = search.template_size;
    let same_px = SAME_SHARE * w.max(h) as f64;
    let (mut half_turn, mut other) = (0.0f32, 0.0f32);
    for pose in rivals {
        if !super::aligner::rotation_allowed(&pose, settings, 0.0) || pose.corner_error(&Affine::IDENTITY, w, h) < same_px {
            continue;
        }
        let ncc = search.verify(isa, &lcn, &pose, RIVAL_VISIBLE).ncc;
        let turned = 180.0 - pose.rotation_rad().to_degrees().abs() < 5.0 && (pose.scale() - 1.0).abs() < 0.05;
        let best = if turned { &mut half_turn } else { &mut other };
        *best = best.max(ncc);
    }
    (1.0 - half_turn, 1.0 - other)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn judge(picture: &Gray) -> TemplateQuality {
        assess(picture, None, &Settings::default()).unwrap()
    }

    #[test]
    fn a_board_is_good() {
        let q = judge(&testing::board(256, 256, 7));
        assert_eq!(q.weaknesses, [], "{q:?}");
        assert!(q.expected_corner_error_px < 0.05 && q.edge_width_px < 2.0, "{q:?}");
        assert!(q.margin_180 > 0.4 && q.margin_self > 0.4 && q.used_share == 1.0, "{q:?}");
    }

    #[test]
    fn constant_saturated_and_noise_templates_are_blank() {
        let mut random = testing::random(3);
        let noise = Gray::from_fn(200, 160, |_, _| (120.0 + 4.0 * testing::normal(&mut random)) as u8);
        for picture in [Gray::new(200, 160), Gray::from_fn(200, 160, |_, _| 255), noise] {
            let q = judge(&picture);
            assert_eq!(q.weaknesses, [Weakness::Blank], "{q:?}");
            assert!(q.reasons()[0].starts_with("blank: contrast "), "{:?}", q.reasons());
        }
    }

    #[test]
    fn stripes_hold_one_direction_and_are_said_to() {
        let q = judge(&Gray::from_fn(256, 256, |x, _| if x / 16 % 2 == 0 { 60 } else { 200 }));
        assert!(q.reasons()[0].starts_with("undetermined: its structure does not hold the pose"), "{:?}", q.reasons());
    }

    #[test]
    fn a_blurred_board_is_refused_and_its_width_is_measured() {
        let sharp = testing::board(320, 256, 5);
        let q = judge(&testing::blur(&sharp, 6.0));
        assert_eq!(q.weaknesses, [Weakness::Blurred], "{q:?}");
        assert!((3.0..=6.0).contains(&q.edge_width_px), "{q:?}");
    }

    #[test]
    fn a_half_turn_symmetric_board_is_refused_unless_turns_are_limited() {
        let board = testing::board(256, 256, 9);
        let symmetric =
            Gray::from_fn(256, 256, |x, y| ((u16::from(board.get(x, y)) + u16::from(board.get(255 - x, 255 - y))) / 2) as u8);
        let q = judge(&symmetric);
        assert_eq!(q.weaknesses, [Weakness::Symmetric], "{q:?}");
        let limited = Settings { max_rotation_degrees: 30.0, ..Settings::default() };
        assert_eq!(assess(&symmetric, None, &limited).unwrap().weaknesses, []);
    }

    #[test]
    fn a_periodic_board_is_refused() {
        let board = testing::board(64, 64, 2);
        let periodic = Gray::from_fn(256, 256, |x, y| board.get(x % 64, y % 64));
        let q = judge(&periodic);
        assert!(q.weaknesses.contains(&Weakness::SelfSimilar), "{q:?}");
    }
}
