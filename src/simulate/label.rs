//! From defective pixels to the label picture.

use crate::frame::Gray;
use crate::score::components::label8;

/// Label value of a good pixel.
pub const GOOD: u8 = 0;
/// Label value of a pixel that is not scored and not learnt from.
pub const NOT_SCORED: u8 = 128;
/// Label value of a defective pixel.
pub const DEFECT: u8 = 255;

/// Marks 8-connected groups of at least `speck_px` defective pixels as [`DEFECT`], smaller ones as [`NOT_SCORED`].
pub(crate) fn from_mask(width: usize, height: usize, defective: &[bool], speck_px: usize) -> Gray {
    let components = label8(width, height, |i| defective[i]);
    let mut area = vec![0usize; components.count + 1];
    for l in &components.labels {
        area[*l as usize] += 1;
    }
    let mut out = Gray::new(width, height);
    for (o, l) in out.data_mut().iter_mut().zip(&components.labels) {
        *o = match *l {
            0 => GOOD,
            l if area[l as usize] < speck_px => NOT_SCORED,
            _ => DEFECT,
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specks_are_not_scored() {
        let mut mask = vec![false; 100];
        for i in [0, 1, 10, 11, 55, 66] {
            mask[i] = true;
        }
        let label = from_mask(10, 10, &mask, 3);
        assert_eq!((label.data()[0], label.data()[11], label.data()[55], label.data()[66]), (255, 255, 128, 128));
        assert_eq!(label.data().iter().filter(|v| **v == 0).count(), 94);
    }
}
