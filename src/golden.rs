//! Golden vectors: what a network must answer to one fixed input, so that a loaded model can be checked without a data set.
//!
//! The trainer writes them into the model file's metadata from its own forward pass (fp32, CPU); the daemon runs the same input at every
//! load and refuses a session that drifts. The input is made by integer arithmetic from a seed ([`pair`]), so the file holds only the
//! seed, the size and the scores on a grid. Keys (all strings): `ssds.golden.formula` = [`FORMULA`], `ssds.golden.seed` (decimal),
//! `ssds.golden.size` (`WxH`), `ssds.golden.values` (scores with six decimals, comma separated, at [`positions`]).
//!
//! Source: the formula is this project's own; the mixing function is SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
//! generators, OOPSLA 2014).

use crate::error::{Error, Result};
use crate::frame::{Gray, Map};

/// Names the input formula of [`pair`]; another formula gets another name.
pub const FORMULA: &str = "blocks/1";
/// Distance of the grid's points, pixels.
pub const STEP_PX: usize = 8;
/// Largest side of a golden input, pixels.
pub const MAX_SIDE_PX: usize = 1024;
/// Metadata key of the formula's name.
pub const KEY_FORMULA: &str = "ssds.golden.formula";
/// Metadata key of the seed.
pub const KEY_SEED: &str = "ssds.golden.seed";
/// Metadata key of the size.
pub const KEY_SIZE: &str = "ssds.golden.size";
/// Metadata key of the scores.
pub const KEY_VALUES: &str = "ssds.golden.values";

const CELL_PX: usize = 8;
const GRID_OFFSET_PX: usize = STEP_PX / 2;

/// One golden vector: the input's seed and size, and the scores wanted at [`positions`].
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// Seed of [`pair`].
    pub seed: u64,
    /// Columns of the input.
    pub width: usize,
    /// Rows of the input.
    pub height: usize,
    /// Scores 0..1 in the order of [`positions`].
    pub scores: Vec<f32>,
}

/// How far a map is from the golden scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// Largest absolute difference; NaN when the map holds a value that is not finite.
    pub max_abs: f32,
    /// Mean absolute difference.
    pub mean_abs: f32,
    /// (x, y) of the largest difference, or of the first value that is not finite.
    pub at: (usize, usize),
    /// Score wanted there.
    pub wanted: f32,
    /// Score found there.
    pub found: f32,
}

/// The golden input: template and frame, `width` x `height`.
///
/// Cells of 8 px are dark (60) or bright (190) by one bit of a hash of seed and cell; every pixel adds 0..7 of a hash of its own. The frame
/// repeats the cells with another texture and inverts every eighth cell on average: those are the defects.
#[must_use]
pub fn pair(seed: u64, width: usize, height: usize) -> (Gray, Gray) {
    let level = |x: usize, y: usize, frame: bool| {
        let cell = hash(seed, 0, x / CELL_PX, y / CELL_PX);
        let inverted = frame && (cell >> 8) & 7 == 0;
        let texture = hash(seed, if frame { 2 } else { 1 }, x, y) & 7;
        (if (cell & 1 == 1) != inverted { 190 } else { 60 }) + texture as u8
    };
    (Gray::from_fn(width, height, |x, y| level(x, y, false)), Gray::from_fn(width, height, |x, y| level(x, y, true)))
}

/// (x, y) of every point that is compared: 4, 12, 20, ... in both directions, row by row.
pub fn positions(width: usize, height: usize) -> impl Iterator<Item = (usize, usize)> {
    (GRID_OFFSET_PX..height).step_by(STEP_PX).flat_map(move |y| (GRID_OFFSET_PX..width).step_by(STEP_PX).map(move |x| (x, y)))
}

fn hash(seed: u64, plane: u64, x: usize, y: usize) -> u64 {
    let mut z = seed ^ (plane << 60) ^ ((x as u64) << 32) ^ (y as u64);
    for _ in 0..2 {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    z
}

impl Golden {
    /// Takes the scores from `map`, the network's answer to [`pair`]`(seed, map.width(), map.height())`.
    #[must_use]
    pub fn of(seed: u64, map: &Map) -> Self {
        let scores = positions(map.width(), map.height()).map(|(x, y)| map.get(x, y)).collect();
        Self { seed, width: map.width(), height: map.height(), scores }
    }

    /// The metadata entries that [`Golden::from_metadata`] reads.
    #[must_use]
    pub fn to_metadata(&self) -> Vec<(String, String)> {
        let values: Vec<String> = self.scores.iter().map(|v| format!("{v:.6}")).collect();
        vec![
            (KEY_FORMULA.into(), FORMULA.into()),
            (KEY_SEED.into(), self.seed.to_string()),
            (KEY_SIZE.into(), format!("{}x{}", self.width, self.height)),
            (KEY_VALUES.into(), values.join(",")),
        ]
    }

    /// Reads the entries through `lookup`; `None` when the model has none.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] naming the key when some are there and do not fit together.
    pub fn from_metadata(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let keys = [KEY_FORMULA, KEY_SEED, KEY_SIZE, KEY_VALUES];
        let values = keys.map(&lookup);
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(keys.len());
        for (key, value) in keys.iter().zip(values) {
            found.push(value.ok_or_else(|| Error::data(format!("metadata key {key} is missing beside other golden keys")))?);
        }
        if found[0] != FORMULA {
            return Err(Error::data(format!("{KEY_FORMULA} is `{}`, wanted `{FORMULA}`", found[0])));
        }
        let seed = found[1].parse().map_err(|_| Error::data(format!("{KEY_SEED} is `{}`, wanted a number", found[1])))?;
        let size =
            || Error::data(format!("{KEY_SIZE} is `{}`, wanted WxH with sides of {STEP_PX} to {MAX_SIDE_PX} px", found[2]));
        let (width, height) = found[2].split_once('x').ok_or_else(size)?;
        let side = |text: &str| text.parse::<usize>().ok().filter(|v| (STEP_PX..=MAX_SIDE_PX).contains(v)).ok_or_else(size);
        let (width, height) = (side(width)?, side(height)?);
        let scores: Option<Vec<f32>> =
            found[3].split(',').map(|v| v.trim().parse::<f32>().ok().filter(|v| (0.0..=1.0).contains(v))).collect();
        let scores = scores.ok_or_else(|| Error::data(format!("{KEY_VALUES} holds something that is no score in 0..1")))?;
        let wanted = positions(width, height).count();
        if scores.len() != wanted {
            return Err(Error::data(format!("{KEY_VALUES} holds {} scores, wanted {wanted} for {width}x{height}", scores.len())));
        }
        Ok(Some(Self { seed, width, height, scores }))
    }

    /// Compares `map`, which must have this vector's size.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] on another size.
    pub fn drift(&self, map: &Map) -> Result<Drift> {
        if map.size() != (self.width, self.height) {
            return Err(Error::internal(format!("golden map is {:?}, wanted {:?}", map.size(), (self.width, self.height))));
        }
        let mut drift = Drift { max_abs: 0.0, mean_abs: 0.0, at: (0, 0), wanted: 0.0, found: 0.0 };
        // Every value must be finite, also between the grid's points.
        if let Some(i) = map.data().iter().position(|v| !v.is_finite()) {
            let at = (i % self.width, i / self.width);
            return Ok(Drift { max_abs: f32::NAN, mean_abs: f32::NAN, at, wanted: f32::NAN, found: map.data()[i] });
        }
        let mut sum = 0.0_f64;
        for ((x, y), &wanted) in positions(self.width, self.height).zip(&self.scores) {
            let found = map.get(x, y);
            let difference = (found - wanted).abs();
            sum += f64::from(difference);
            if difference > drift.max_abs {
                drift = Drift { max_abs: difference, at: (x, y), wanted, found, ..drift };
            }
        }
        drift.mean_abs = (sum / self.scores.len() as f64) as f32;
        Ok(drift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(entries: &[(String, String)]) -> impl Fn(&str) -> Option<String> + '_ {
        |key| entries.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone())
    }

    /// Another program that writes golden vectors must make the same input: these sums, from an independent Python version, pin it.
    #[test]
    fn the_formula_is_pinned() {
        let (template, frame) = pair(10, 16, 16);
        let sum = |g: &Gray| g.data().iter().fold(0_u32, |a, &v| a.wrapping_mul(31).wrapping_add(u32::from(v)));
        assert_eq!(template.data()[..4], [196, 191, 195, 191]);
        assert_eq!((sum(&template), sum(&frame)), (1_973_490_381, 3_818_994_423));
    }

    #[test]
    fn defects_are_there_and_rare() {
        let (template, frame) = pair(1, 256, 256);
        let changed = template.data().iter().zip(frame.data()).filter(|(a, b)| a.abs_diff(**b) > 100).count();
        let share = changed as f64 / template.data().len() as f64;
        assert!((0.06..0.20).contains(&share), "{share}");
    }

    #[test]
    fn metadata_goes_round() {
        let map = Map::from_fn(24, 16, |x, y| (x * 16 + y) as f32 / 400.0);
        let golden = Golden::of(9, &map);
        assert_eq!(golden.scores.len(), 6);
        let entries = golden.to_metadata();
        let back = Golden::from_metadata(lookup(&entries)).unwrap().unwrap();
        assert_eq!((back.seed, back.width, back.height), (9, 24, 16));
        let drift = back.drift(&map).unwrap();
        assert!(drift.max_abs < 1e-6, "{drift:?}");
        assert_eq!(Golden::from_metadata(|_| None).unwrap(), None);
    }

    #[test]
    fn drift_names_the_place() {
        let mut map = Map::new(24, 16);
        let golden = Golden::of(9, &map);
        map.set(12, 4, 0.25);
        let drift = golden.drift(&map).unwrap();
        assert_eq!((drift.at, drift.max_abs), ((12, 4), 0.25));
        map.set(3, 9, f32::NAN);
        let drift = golden.drift(&map).unwrap();
        assert!(drift.max_abs.is_nan());
        assert_eq!(drift.at, (3, 9));
    }

    #[test]
    fn broken_metadata_is_named() {
        let good = Golden::of(9, &Map::new(24, 16)).to_metadata();
        for (key, value, wanted) in [
            (KEY_FORMULA, "other/9", "ssds.golden.formula is `other/9`, wanted `blocks/1`"),
            (KEY_SEED, "x", "ssds.golden.seed is `x`, wanted a number"),
            (KEY_SIZE, "0x8", "ssds.golden.size is `0x8`, wanted WxH with sides of 8 to 1024 px"),
            (KEY_VALUES, "0.5", "ssds.golden.values holds 1 scores, wanted 6 for 24x16"),
            (KEY_VALUES, "NaN", "ssds.golden.values holds something that is no score in 0..1"),
        ] {
            let mut entries = good.clone();
            entries.iter_mut().find(|(k, _)| k == key).unwrap().1 = value.into();
            assert_eq!(Golden::from_metadata(lookup(&entries)).unwrap_err().to_string(), wanted);
        }
        let error = Golden::from_metadata(lookup(&good[..3])).unwrap_err();
        assert_eq!(error.to_string(), "metadata key ssds.golden.values is missing beside other golden keys");
    }
}
