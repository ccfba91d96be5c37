//! Frozen pictures: a sensor's noise makes every frame differ from the one before, so frames without one differing pixel are not live.
//!
//! Frames are compared by size and CRC-32 of their pixels, several in a row, which chance does not repeat. A replay shows the same file again
//! rightly and is not judged, nor are pictures at the limits of the range, where a dark or blinded sensor has no noise to show.

use crate::frame::Gray;

/// Watches one camera's frames.
#[derive(Debug)]
pub struct Frozen {
    limit: u32,
    last: Option<(usize, usize, u32)>,
    repeats: u32,
}

impl Frozen {
    /// So many identical frames are a frozen picture; 0 = never.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, last: None, repeats: 0 }
    }

    /// Forgets the frames before, for a camera that was opened anew.
    pub fn reset(&mut self) {
        (self.last, self.repeats) = (None, 0);
    }

    /// Takes the next frame; how many were identical in a row, once they are too many.
    pub fn judge(&mut self, image: &Gray) -> Option<u32> {
        if self.limit == 0 {
            return None;
        }
        let data = image.data();
        let flat = data.first().is_none_or(|v| matches!(v, 0 | 255) && data.iter().all(|d| d == v));
        let now = (image.width(), image.height(), crc32fast::hash(data));
        self.repeats = if !flat && self.last == Some(now) { self.repeats + 1 } else { 1 };
        self.last = Some(now);
        (self.repeats >= self.limit.max(2)).then_some(self.repeats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_frames_are_frozen_and_one_pixel_thaws_them() {
        let mut frozen = Frozen::new(3);
        let image = Gray::from_fn(9, 7, |x, y| (x + y) as u8);
        assert_eq!((0..4).map(|_| frozen.judge(&image)).collect::<Vec<_>>(), [None, None, Some(3), Some(4)]);
        let mut other = image.clone();
        other.set(8, 6, 200);
        assert_eq!(frozen.judge(&other), None);
        assert_eq!(frozen.judge(&image), None);
        frozen.reset();
        assert_eq!((0..2).map(|_| frozen.judge(&image)).collect::<Vec<_>>(), [None, None]);
    }

    #[test]
    fn black_white_and_switched_off_are_not_judged() {
        for value in [0, 255] {
            let mut frozen = Frozen::new(2);
            assert!((0..5).all(|_| frozen.judge(&Gray::from_fn(4, 4, |_, _| value)).is_none()));
        }
        let mut off = Frozen::new(0);
        assert!((0..5).all(|_| off.judge(&Gray::from_fn(4, 4, |x, _| x as u8)).is_none()));
    }
}
