//! Box pyramid of an 8-bit picture, and the one place that maps poses between its levels.
//!
//! Level 0 is the picture itself (never copied); level `l` has `2^l` times fewer columns and rows, each pixel the rounded mean of a
//! 2x2 block of the level below; an odd last column or row is left out. A pixel centre `p` of level `l` lies at `f p + (f - 1) / 2` of
//! level 0 with `f = 2^l`.

use super::isa::kernel;
use super::lanes::Simd;
use crate::frame::Gray;
use crate::geometry::Affine;

/// Levels 1, 2, ... of a picture (level 0 is held by whoever owns the picture).
#[derive(Debug, Default)]
pub struct Pyramid {
    levels: Vec<Gray>,
}

impl Pyramid {
    /// Builds levels 1..=`top` of `picture`, reusing the memory.
    pub fn build(&mut self, isa: super::Isa, picture: &Gray, top: usize) {
        if self.levels.len() < top {
            self.levels.resize_with(top, Gray::default);
        }
        for l in 0..top {
            let (below, here) = self.levels.split_at_mut(l);
            let source = below.last().unwrap_or(picture);
            halve(isa, source, &mut here[0]);
        }
    }

    /// The picture of `level` (which [`Pyramid::build`] has made); `picture` is level 0.
    #[must_use]
    pub fn level<'a>(&'a self, picture: &'a Gray, level: usize) -> &'a Gray {
        if level == 0 { picture } else { &self.levels[level - 1] }
    }
}

/// Halves both sides: each output pixel is `(a + b + c + d + 2) / 4` of its 2x2 block.
fn halve(isa: super::Isa, source: &Gray, out: &mut Gray) {
    let (width, height) = (source.width() / 2, source.height() / 2);
    out.resize_for_overwrite(width, height);
    for y in 0..height {
        halve_row(isa, &source.row(2 * y)[..2 * width], &source.row(2 * y + 1)[..2 * width], out.row_mut(y));
    }
}

kernel! {
    /// One output row of the 2x2 mean from two input rows of twice its length.
    fn halve_row(a: &[u8], b: &[u8], out: &mut [u8]) = halve_row_body
}

#[inline(always)]
fn halve_row_body<S: Simd>(_: S, a: &[u8], b: &[u8], out: &mut [u8]) {
    // Pairs are read as one 16-bit lane: low and high byte are then summed without any shuffle.
    let pairs = |s: [u8; 2]| u16::from_le_bytes(s);
    for ((o, a), b) in out.iter_mut().zip(a.as_chunks::<2>().0).zip(b.as_chunks::<2>().0) {
        let (a, b) = (pairs(*a), pairs(*b));
        *o = (((a & 255) + (a >> 8) + (b & 255) + (b >> 8) + 2) >> 2) as u8;
    }
}

/// The pose between two pictures' levels `level` that equals `pose` between the pictures themselves.
#[must_use]
pub fn pose_at_level(pose: &Affine, level: usize) -> Affine {
    let f = f64::from(1u32 << level);
    let o = (f - 1.0) / 2.0;
    let (x, y) = pose.apply(o, o);
    let m = &pose.m;
    Affine { m: [[m[0][0], m[0][1], (x - o) / f], [m[1][0], m[1][1], (y - o) / f]] }
}

/// The pose between two pictures that equals `pose` between their levels `level`: the inverse of [`pose_at_level`].
#[must_use]
pub fn pose_from_level(pose: &Affine, level: usize) -> Affine {
    let f = f64::from(1u32 << level);
    let o = (f - 1.0) / 2.0;
    let m = &pose.m;
    Affine {
        m: [
            [m[0][0], m[0][1], f * m[0][2] + o - (m[0][0] + m[0][1]) * o],
            [m[1][0], m[1][1], f * m[1][2] + o - (m[1][0] + m[1][1]) * o],
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;

    #[test]
    fn levels_hold_block_means_and_drop_odd_edges() {
        let picture = Gray::from_fn(71, 37, |x, y| ((x * 7 + y * 13) % 256) as u8);
        for isa in [Isa::scalar(), Isa::detect()] {
            let mut pyramid = Pyramid::default();
            pyramid.build(isa, &picture, 2);
            assert_eq!(pyramid.level(&picture, 0), &picture);
            let one = pyramid.level(&picture, 1);
            assert_eq!(one.size(), (35, 18));
            for y in 0..18 {
                for x in 0..35 {
                    let sum: u32 =
                        [(0, 0), (1, 0), (0, 1), (1, 1)].iter().map(|(i, j)| u32::from(picture.get(2 * x + i, 2 * y + j))).sum();
                    assert_eq!(u32::from(one.get(x, y)), (sum + 2) / 4, "{x} {y}");
                }
            }
            assert_eq!(pyramid.level(&picture, 2).size(), (17, 9));
        }
    }

    #[test]
    fn poses_go_down_and_up_the_pyramid_unchanged() {
        let pose = Affine::similarity(0.7, 1.1, 12.5, -3.25);
        for level in 0..5 {
            let back = pose_from_level(&pose_at_level(&pose, level), level);
            assert!(pose.corner_error(&back, 2000, 1000) < 1e-9, "level {level}");
        }
        // The centre of the first 2x2 block is (0.5, 0.5) at level 0 and (0, 0) at level 1.
        let shift = Affine::similarity(0.0, 1.0, 2.0, 4.0);
        assert_eq!(pose_at_level(&shift, 1), Affine::similarity(0.0, 1.0, 1.0, 2.0));
    }
}
