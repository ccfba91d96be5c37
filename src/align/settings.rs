//! Settings of registration, checked.

use crate::error::{Error, Result};
use crate::geometry::Rect;

/// What the last stage of the refinement leaves free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// Rotation, scale and translation.
    #[default]
    Similarity,
    /// A similarity first, then all six numbers of an affine map: for a camera that looks a little askew.
    Affine,
}

/// How templates are registered. [`Settings::check`] says what each value may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the last stage leaves free.
    pub model: Model,
    /// Largest turn of the template in the frame either way, degrees, 0..=180.
    pub max_rotation_degrees: f64,
    /// Smallest scale of the template in the frame, 0.5..=1.
    pub min_scale: f64,
    /// Largest scale of the template in the frame, 1..=2.
    pub max_scale: f64,
    /// Least share of the template that the frame must show, 0.2..=1.
    pub min_visible_share: f64,
    /// Confidence below which the frame is refused, 0..=1.
    pub min_confidence: f64,
    /// Points at full size that the pose is refined on, 500..=100000.
    pub max_points: usize,
    /// The part of the template to register on, template px; all of it by default. What the network inspects is not affected.
    pub region: Option<Rect>,
    /// Start from the last accepted pose (a fixed camera and fixture) and search only when that does not fit.
    pub track: bool,
    /// Walk through all rotations and scales when the log-polar peaks do not lead to a fit.
    pub fallback: bool,
    /// Threads that the fallback may use; 0 = one a core.
    pub fallback_threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: Model::Similarity,
            max_rotation_degrees: 180.0,
            min_scale: 0.75,
            max_scale: 1.33,
            min_visible_share: 0.3,
            min_confidence: 0.37,
            max_points: 12_000,
            region: None,
            track: false,
            fallback: true,
            fallback_threads: 0,
        }
    }
}

impl Settings {
    /// Checks every value.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] naming the key, the value and its range.
    pub fn check(&self) -> Result<()> {
        let within = |key: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(Error::config(format!("align.{key} must be between {low} and {high}, got {value}")))
            }
        };
        within("max_rotation_degrees", self.max_rotation_degrees, 0.0, 180.0)?;
        within("min_scale", self.min_scale, 0.5, 1.0)?;
        within("max_scale", self.max_scale, 1.0, 2.0)?;
        within("min_visible_share", self.min_visible_share, 0.2, 1.0)?;
        within("min_confidence", self.min_confidence, 0.0, 1.0)?;
        within("max_points", self.max_points as f64, 500.0, 100_000.0)?;
        within("fallback_threads", self.fallback_threads as f64, 0.0, 256.0)?;
        if let Some(r) = self.region.filter(|r| r.width < 32 || r.height < 32) {
            return Err(Error::config(format!("align.region must be at least 32x32 px, got {}x{}", r.width, r.height)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_default_is_valid_and_faults_name_key_value_and_range() {
        Settings::default().check().unwrap();
        let error = Settings { max_rotation_degrees: 270.0, ..Settings::default() }.check().unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert_eq!(error.to_string(), "align.max_rotation_degrees must be between 0 and 180, got 270");
        let error = Settings { min_confidence: f64::NAN, ..Settings::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "align.min_confidence must be between 0 and 1, got NaN");
        let small = Rect { x: 0, y: 0, width: 10, height: 64 };
        let error = Settings { region: Some(small), ..Settings::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "align.region must be at least 32x32 px, got 10x64");
    }
}
