//! How good parts vary, learnt pixel by pixel: mean and variance after registration.
//!
//! Input: pictures of good parts moved to the template's coordinates, with what each covers. Each is first brought to the template's light
//! (the fit of the comparators), so that the deviation is that of the parts and not of the lamp. Running mean and sum of squares after
//! Welford, "Note on a method for calculating corrected sums of squares and products", Technometrics 4(3), 1962: one pass, no
//! cancellation. The deviation is that of a sample (n - 1). This is HALCON's train_variation_model with the mean as ideal image.

use super::light;
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use crate::template::Tolerance;

/// Fewest pictures that say anything about variation.
pub const FEWEST: u32 = 2;

/// Mean and variance so far.
#[derive(Debug, Clone)]
pub struct Learner {
    template: Gray,
    parts: u32,
    count: Vec<u32>,
    mean: Vec<f64>,
    squares: Vec<f64>,
    lit: Gray,
}

impl Learner {
    /// Begins with the template itself as the first part.
    #[must_use]
    pub fn new(template: &Gray) -> Self {
        let n = template.data().len();
        let mut out = Self {
            template: template.clone(),
            parts: 0,
            count: vec![0; n],
            mean: vec![0.0; n],
            squares: vec![0.0; n],
            lit: Gray::default(),
        };
        out.take(template, None);
        out
    }

    /// Adds a part: its picture in the template's coordinates, and 255 where it shows the part.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] for pictures of another size than the template's.
    pub fn add(&mut self, picture: &Gray, covered: &Gray) -> Result<()> {
        if picture.size() != self.template.size() || covered.size() != self.template.size() {
            return Err(Error::internal("a part to learn from has another size than its template"));
        }
        // The line that takes this picture to the template's light, where both are seen.
        let line = light::fit(picture.data().iter().map(|&v| f32::from(v)), covered, &self.template);
        let mut lit = std::mem::take(&mut self.lit);
        light::relight(line, picture, covered, &self.template, &mut lit);
        self.take(&lit, Some(covered));
        self.lit = lit;
        Ok(())
    }

    fn take(&mut self, picture: &Gray, covered: Option<&Gray>) {
        self.parts += 1;
        for (i, &v) in picture.data().iter().enumerate() {
            if covered.is_some_and(|c| c.data()[i] == 0) {
                continue;
            }
            self.count[i] += 1;
            let off = f64::from(v) - self.mean[i];
            self.mean[i] += off / f64::from(self.count[i]);
            self.squares[i] += off * (f64::from(v) - self.mean[i]);
        }
    }

    /// What was learnt. A pixel that fewer than two parts show has no deviation.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] after fewer than [`FEWEST`] parts.
    pub fn finish(&self) -> Result<Tolerance> {
        if self.parts < FEWEST {
            return Err(Error::data(format!(
                "tolerance: {} part, at least {FEWEST} wanted to see how good parts vary",
                self.parts
            )));
        }
        let (w, h) = self.template.size();
        let deviation = |i: usize| match self.count[i] {
            n if n < 2 => 0.0,
            n => (self.squares[i] / f64::from(n - 1)).sqrt() as f32,
        };
        Ok(Tolerance {
            mean: Map::from_vec(w, h, self.mean.iter().map(|&m| m as f32).collect())?,
            deviation: Map::from_vec(w, h, (0..w * h).map(deviation).collect())?,
            parts: self.parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn mean_and_deviation_equal_two_passes(
            pictures in prop::collection::vec(prop::collection::vec(any::<u8>(), 24), 1..9),
            template in prop::collection::vec(any::<u8>(), 24),
            holes in prop::collection::vec(0u8..4, 24),
        ) {
            let template = Gray::from_vec(6, 4, template).unwrap();
            let covered = Gray::from_vec(6, 4, holes.iter().map(|&h| if h == 0 { 0 } else { 255 }).collect()).unwrap();
            let mut learner = Learner::new(&template);
            let mut seen: Vec<Vec<f64>> = template.data().iter().map(|&v| vec![f64::from(v)]).collect();
            for p in pictures {
                let p = Gray::from_vec(6, 4, p).unwrap();
                learner.add(&p, &covered).unwrap();
                // The light fit has tests of its own; here the lit picture is taken as it is.
                for (i, s) in seen.iter_mut().enumerate() {
                    if covered.data()[i] != 0 {
                        s.push(f64::from(learner.lit.data()[i]));
                    }
                }
            }
            let t = learner.finish().unwrap();
            for (i, s) in seen.iter().enumerate() {
                let n = s.len() as f64;
                let mean = s.iter().sum::<f64>() / n;
                let variance = if s.len() < 2 { 0.0 } else { s.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) };
                prop_assert!((f64::from(t.mean.data()[i]) - mean).abs() < 1e-3, "{i}");
                prop_assert!((f64::from(t.deviation.data()[i]) - variance.sqrt()).abs() < 1e-3, "{i}");
            }
        }
    }

    #[test]
    fn one_part_is_too_few_and_light_is_no_variation() {
        let template = Gray::from_fn(20, 20, |x, y| (40 + (x * 5 + y * 3) % 100) as u8);
        let mut learner = Learner::new(&template);
        let error = learner.finish().unwrap_err();
        assert_eq!(error.message(), "tolerance: 1 part, at least 2 wanted to see how good parts vary");
        let brighter = Gray::from_fn(20, 20, |x, y| (f64::from(template.get(x, y)) * 1.2 + 15.0).round() as u8);
        learner.add(&brighter, &Gray::from_fn(20, 20, |_, _| 255)).unwrap();
        let t = learner.finish().unwrap();
        // Rounding twice is at most one gray value off.
        assert!(t.deviation.data().iter().all(|&d| d <= 1.0), "{:?}", t.deviation.data().iter().copied().fold(0.0, f32::max));
    }
}
