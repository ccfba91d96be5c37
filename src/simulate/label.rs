//! From defective pixels to the label picture.

use crate::frame::Gray;
use crate::score::components::label8;

/// Label value of a good pixel.
pub const GOOD: u8 = 0;
/// Label value of a pixel that is not scored and not learnt from.
pub const NOT_SCORED: u8 = 128;
/// Label value of a defective pixel.
pub const DEFECT: u8 = 255;

/// Marks 8-connected groups of defective pixels as [`DEFECT`]. Those of under `speck_px` pixels, those nowhere two pixels thick (slivers
/// along an edge that moved), and those with a mean of `seen` under `least` become [`NOT_SCORED`].
pub(crate) fn from_mask(width: usize, height: usize, defective: &[bool], speck_px: usize, seen: Option<(&[f32], f32)>) -> Gray {
    let components = label8(width, height, |i| defective[i]);
    let mut area = vec![0usize; components.count + 1];
    let mut sum = vec![0.0f32; components.count + 1];
    for (i, l) in components.labels.iter().enumerate() {
        area[*l as usize] += 1;
        if let Some((seen, _)) = seen {
            sum[*l as usize] += seen[i];
        }
    }
    let mut thick = vec![false; components.count + 1];
    for (upper, lower) in components.labels.chunks_exact(width).zip(components.labels.chunks_exact(width).skip(1)) {
        for (u, l) in upper.windows(2).zip(lower.windows(2)) {
            // Four pixels touching one another belong to one group.
            if u[0] != 0 && u[1] != 0 && l[0] != 0 && l[1] != 0 {
                thick[u[0] as usize] = true;
            }
        }
    }
    let scored = |l: usize| area[l] >= speck_px && thick[l] && seen.is_none_or(|(_, least)| sum[l] >= least * area[l] as f32);
    let mut out = Gray::new(width, height);
    for (o, l) in out.data_mut().iter_mut().zip(&components.labels) {
        *o = match *l as usize {
            0 => GOOD,
            l if scored(l) => DEFECT,
            _ => NOT_SCORED,
        };
    }
    out
}

/// The same for soft outlines: `covered` are the pixels of which at least half changed, `touched` those that look different at all.
/// [`DEFECT`] is what is covered; of the rest of `touched`, the rim of a defect is [`GOOD`] (the outline runs where half a pixel is
/// covered) and what belongs to no scored defect is [`NOT_SCORED`].
pub(crate) fn from_coverage(
    width: usize,
    height: usize,
    (touched, covered): (&[bool], &[bool]),
    speck_px: usize,
    seen: Option<(&[f32], f32)>,
) -> Gray {
    let mut out = from_mask(width, height, covered, speck_px, seen);
    let rim: Vec<usize> = (0..touched.len()).filter(|i| touched[*i] && !covered[*i]).collect();
    let at_a_defect = |i: usize| {
        let (x, y) = (i % width, i / width);
        (y.saturating_sub(1)..(y + 2).min(height)).any(|v| out.row(v)[x.saturating_sub(1)..(x + 2).min(width)].contains(&DEFECT))
    };
    let apart: Vec<usize> = rim.into_iter().filter(|i| !at_a_defect(*i)).collect();
    for i in apart {
        out.data_mut()[i] = NOT_SCORED;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specks_are_not_scored() {
        let mut mask = vec![false; 100];
        for i in [0, 1, 10, 11, 55, 66, 70, 80, 90, 97, 98, 99, 89, 88] {
            mask[i] = true;
        }
        let label = from_mask(10, 10, &mask, 3, None);
        assert_eq!((label.data()[0], label.data()[11], label.data()[55], label.data()[66]), (255, 255, 128, 128));
        // Three pixels in a line are no defect, five in a patch are.
        assert_eq!((label.data()[80], label.data()[88]), (128, 255));
        assert_eq!(label.data().iter().filter(|v| **v == 0).count(), 86);

        // Nor is what cannot be seen.
        let seen: Vec<f32> = (0..100).map(|i| if i < 50 { 0.01 } else { 0.2 }).collect();
        let label = from_mask(10, 10, &mask, 2, Some((&seen, 0.05)));
        assert_eq!((label.data()[0], label.data()[88]), (128, 255));
    }

    #[test]
    fn the_rim_of_a_defect_is_good_and_what_is_too_faint_for_one_is_not_scored() {
        let square = |low: usize, high: usize| -> Vec<bool> {
            (0..144).map(|i| (low..high).contains(&(i % 12)) && (low..high).contains(&(i / 12))).collect()
        };
        let (mut touched, covered) = (square(2, 7), square(3, 6));
        // a faint speck far off, touched but nowhere covered
        touched[10 * 12 + 10] = true;
        let label = from_coverage(12, 12, (&touched, &covered), 4, None);
        assert_eq!((label.get(4, 4), label.get(2, 2), label.get(6, 4), label.get(10, 10)), (DEFECT, GOOD, GOOD, NOT_SCORED));
        // a defect that is a speck: its rim is not scored either
        let label = from_coverage(12, 12, (&touched, &covered), 20, None);
        assert_eq!((label.get(4, 4), label.get(2, 2)), (NOT_SCORED, NOT_SCORED));
    }
}
