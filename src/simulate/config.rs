//! Every number of the simulation in one struct: unit, default and allowed range side by side.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which family of pictures is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Boards, parts and abstract shapes under all that imaging does to them; what ships is trained on it.
    #[default]
    Wide,
    /// Section III-D of the paper taken literally: simple bright shapes on black, added shapes as defects, one pixel of jitter.
    Paper,
}

impl std::str::FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "wide" => Ok(Preset::Wide),
            "paper" => Ok(Preset::Paper),
            other => Err(Error::config(format!("simulation preset must be `wide` or `paper`, got `{other}`"))),
        }
    }
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Preset::Wide => "wide",
            Preset::Paper => "paper",
        })
    }
}

/// What a setting can be asked: its values, so that ranges are checked in one place.
trait Setting {
    fn values(&self) -> Vec<f64>;
    fn is_range() -> bool {
        false
    }
}

impl Setting for f32 {
    fn values(&self) -> Vec<f64> {
        vec![f64::from(*self)]
    }
}

impl Setting for usize {
    fn values(&self) -> Vec<f64> {
        vec![*self as f64]
    }
}

impl Setting for [f32; 2] {
    fn values(&self) -> Vec<f64> {
        self.iter().map(|v| f64::from(*v)).collect()
    }
    fn is_range() -> bool {
        true
    }
}

/// A short list, such as weights of kinds.
impl Setting for Vec<f32> {
    fn values(&self) -> Vec<f64> {
        self.iter().map(|v| f64::from(*v)).collect()
    }
}

fn check_setting<S: Setting>(faults: &mut Vec<String>, name: &str, setting: &S, low: f64, high: f64, wanted: usize) {
    let values = setting.values();
    for v in &values {
        if !(*v >= low && *v <= high) {
            faults.push(format!("simulate.{name} must be between {low} and {high}, got {v}"));
        }
    }
    if S::is_range() && values[0] > values[1] {
        faults.push(format!("simulate.{name} must run from low to high, got [{}, {}]", values[0], values[1]));
    }
    if values.len() != wanted {
        faults.push(format!("simulate.{name} must have {wanted} values, got {}", values.len()));
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $default:expr, $low:literal ..= $high:literal;)+) => {
        /// Settings of the simulation. A pair `[low, high]` is a uniform range; a `share` is a probability; lengths are pixels of
        /// the finished picture; gray values run from 0 (black) to 1 (white).
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Config {
            /// The family of pictures; all settings below but `size_px` speak of `wide`.
            pub preset: Preset,
            $($(#[doc = $doc])+ pub $name: $kind,)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { preset: Preset::Wide, $($name: $default,)+ }
            }
        }

        impl Config {
            fn faults(&self) -> Vec<String> {
                let wanted = Self::default();
                let mut faults = Vec::new();
                $(check_setting(&mut faults, stringify!($name), &self.$name, $low as f64, $high as f64, wanted.$name.values().len());)+
                faults
            }

            /// Name, lowest and highest allowed value of every numeric setting.
            #[must_use]
            pub fn limits() -> &'static [(&'static str, f64, f64)] {
                &[$((stringify!($name), $low as f64, $high as f64),)+]
            }
        }
    };
}

settings! {
    /// Side of the square pictures, px.
    size_px: usize = 128, 32..=2048;

    // -- recipe
    /// Share of pairs that the paper's recipe makes instead of the wide one.
    paper_share: f32 = 0.0, 0..=1;

    // -- scene
    /// Weights of the scene families: abstract shapes, routed board, traces and pads, buses, components, mixture.
    scene_weights: Vec<f32> = vec![0.17, 0.22, 0.24, 0.10, 0.09, 0.18], 0..=1;
    /// Elements in 160 x 160 px.
    elements: [f32; 2] = [4.0, 22.0], 1..=200;
    /// Share of scenes drawn in two gray values.
    two_tone_share: f32 = 0.5, 0..=1;
    /// Fewest gray levels between an element and the substrate in scenes of many grays.
    element_contrast: f32 = 0.12, 0..=0.5;

    // -- what differs between template and frame without being a defect
    /// Share of pairs whose elements moved on their own.
    jitter_share: f32 = 0.6, 0..=1;
    /// Standard deviation of one element's own movement, px.
    jitter_sigma_px: [f32; 2] = [0.0, 1.1], 0..=3;
    /// Largest movement of one element along an axis, px.
    jitter_max_px: f32 = 2.2, 0..=5;
    /// Share of elements that move in such a pair.
    jittered_share: f32 = 0.5, 0..=1;
    /// Share of pairs with wider or narrower lines in the frame (etching).
    line_width_share: f32 = 0.4, 0..=1;
    /// Change of the line width, px.
    line_width_px: [f32; 2] = [-0.8, 0.8], -3..=3;
    /// Levels of misregistration: standard deviation of the shift along each axis, px.
    misfit_px: Vec<f32> = vec![0.0, 0.4, 0.96, 1.76, 2.8], 0..=8;
    /// Weights of those levels.
    misfit_weights: Vec<f32> = vec![0.15, 0.30, 0.25, 0.18, 0.12], 0..=1;
    /// Standard deviation of the residual rotation, degrees for each pixel of the misfit's level.
    misfit_degrees_per_px: f32 = 0.19, 0..=2;
    /// Standard deviation of the residual scale error for each pixel of the misfit's level.
    misfit_scale_per_px: f32 = 0.0019, 0..=0.05;
    /// Largest residual shift along an axis, px.
    misfit_max_px: f32 = 6.0, 0..=16;
    /// Share of pairs with rough edges.
    roughness_share: f32 = 0.7, 0..=1;
    /// Standard deviation of the edges' roughness, px.
    roughness_px: [f32; 2] = [0.0, 0.9], 0..=3;
    /// Share of pairs with a smooth local distortion.
    local_warp_share: f32 = 0.35, 0..=1;
    /// Standard deviation of the local distortion, px.
    local_warp_px: [f32; 2] = [0.1, 1.1], 0..=5;
    /// Largest local distortion along an axis, px.
    local_warp_max_px: f32 = 2.0, 0..=8;
    /// Distance between independent local distortions, px.
    local_warp_pitch_px: [f32; 2] = [16.0, 64.0], 8..=512;
    /// Share of pairs in which one picture repeats its edge pixels instead of showing what lies beyond.
    edge_repeat_share: f32 = 0.4, 0..=1;
    /// Share of pairs whose template covers only a part of the frame; the rest is filled from the frame as inference does it.
    part_cover_share: f32 = 0.12, 0..=1;

    // -- defects
    /// Share of pairs without any defect.
    clean_share: f32 = 0.18, 0..=1;
    /// Most defects in 160 x 160 px (at least one in a defective pair).
    defects: f32 = 6.0, 1..=100;
    /// Share of defective pairs in which a whole small part is missing, moved or extra.
    part_defect_share: f32 = 0.15, 0..=1;
    /// Radius of a defect, px, on a logarithmic scale.
    defect_radius_px: [f32; 2] = [1.6, 13.0], 0.5..=80;
    /// Share of large defects.
    large_share: f32 = 0.03, 0..=1;
    /// Radius of a large defect, px, on a logarithmic scale; never more than 0.3 of the picture's side.
    large_radius_px: [f32; 2] = [13.0, 60.0], 1..=200;
    /// Share of defects placed on an edge.
    on_edge_share: f32 = 0.65, 0..=1;
    /// Share of defects that take their gray from the neighbourhood: spur, mouse bite, open, short, pin hole, missing copper.
    neighbour_gray_share: f32 = 0.65, 0..=1;
    /// Weights of the forms: polygon, ellipse, scratch, hair, rectangle, cut across, glyph.
    defect_weights: Vec<f32> = vec![0.38, 0.18, 0.20, 0.08, 0.07, 0.07, 0.02], 0..=1;
    /// Share of defects that are half transparent (stains, thin residue).
    stain_share: f32 = 0.06, 0..=1;

    // -- truth
    /// Contrast between the frame with and without its defects, before lighting, from which a place counts as changed; a pixel is
    /// defective when at least half of its area is.
    label_contrast: f32 = 0.08, 0.01..=0.5;
    /// Defects of fewer pixels than this are not scored.
    speck_px: usize = 8, 0..=1000;
    /// Defects whose mean contrast in the finished frame, but for its noise, is less than this are not scored: nobody could see them.
    visible_contrast: f32 = 0.025, 0..=0.5;
    /// The same as a multiple of the frame's noise.
    visible_noise: f32 = 0.7, 0..=5;

    // -- imaging
    /// Share of pairs without texture among scenes of two grays.
    plain_two_tone_share: f32 = 0.7, 0..=1;
    /// Share of pairs thresholded to two tones, as optical inspection machines record them.
    binarised_share: f32 = 0.3, 0..=1;
    /// Share of those whose pictures were blurred and noisy before the threshold: their edges carry single stray pixels.
    grainy_share: f32 = 0.6, 0..=1;
    /// Standard deviation of the blur before the threshold, px.
    grain_blur_px: [f32; 2] = [0.4, 1.1], 0.1..=5;
    /// Standard deviation of the noise before the threshold, as a share of the picture's contrast.
    grain_noise: [f32; 2] = [0.01, 0.08], 0..=0.3;
    /// Share of pairs with changed lighting.
    light_share: f32 = 0.7, 0..=1;
    /// Strength of the frame's lighting changes (1 = the ranges below).
    light: f32 = 1.0, 0..=3;
    /// Strength of the template's.
    template_light: f32 = 0.4, 0..=3;
    /// Gain: 1 plus or minus at most this.
    gain: f32 = 0.35, 0..=0.9;
    /// Offset: at most this, gray.
    offset: f32 = 0.12, 0..=0.5;
    /// Natural logarithm of gamma: at most this.
    log_gamma: f32 = 0.4, 0..=1.5;
    /// Linear gradient across the picture, share of the brightness: at most this.
    gradient: f32 = 0.4, 0..=1;
    /// Darkening from the centre to the corners: at most this.
    vignette: f32 = 0.3, 0..=1;
    /// Share of frames with a soft shadow or a reflection band.
    shadow_share: f32 = 0.2, 0..=1;
    /// Share of frames with soft specular spots.
    specular_share: f32 = 0.06, 0..=1;
    /// Share of pictures that are blurred.
    blur_share: f32 = 0.7, 0..=1;
    /// Standard deviation of the template's blur, px.
    template_blur_px: [f32; 2] = [0.3, 1.0], 0.1..=5;
    /// Standard deviation of the frame's blur, px.
    frame_blur_px: [f32; 2] = [0.3, 1.4], 0.1..=5;
    /// Standard deviation of the template's noise, gray.
    template_noise: [f32; 2] = [0.0, 0.015], 0..=0.3;
    /// Standard deviation of the frame's noise, gray.
    frame_noise: [f32; 2] = [0.0, 0.03], 0..=0.3;
    /// Share of frames that went through JPEG.
    jpeg_share: f32 = 0.25, 0..=1;
    /// JPEG quality.
    jpeg_quality: [f32; 2] = [60.0, 96.0], 1..=100;
}

impl Config {
    /// The settings of a preset at its usual size (128 px).
    #[must_use]
    pub fn preset(preset: Preset) -> Self {
        Self { preset, ..Self::default() }
    }

    /// The same settings for pictures of `size_px` x `size_px`.
    #[must_use]
    pub fn with_size(mut self, size_px: usize) -> Self {
        self.size_px = size_px;
        self
    }

    /// Whether every value lies in its range.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] naming every value that does not, with its range.
    pub fn check(&self) -> Result<()> {
        let mut faults = self.faults();
        for (name, weights) in [
            ("scene_weights", &self.scene_weights),
            ("misfit_weights", &self.misfit_weights),
            ("defect_weights", &self.defect_weights),
        ] {
            if weights.iter().sum::<f32>() <= 0.0 {
                faults.push(format!("simulate.{name} must hold a value above 0"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::config(faults.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_in_range() {
        for preset in [Preset::Wide, Preset::Paper] {
            Config::preset(preset).check().unwrap();
            assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        }
        assert!(Config::limits().len() > 50);
    }

    #[test]
    fn faults_are_named_with_their_range() {
        let config = Config {
            size_px: 8,
            clean_share: f32::NAN,
            frame_noise: [0.2, 0.1],
            misfit_weights: vec![0.0; 4],
            ..Config::default()
        };
        assert_eq!(
            config.check().unwrap_err().message(),
            "simulate.size_px must be between 32 and 2048, got 8; \
             simulate.misfit_weights must have 5 values, got 4; \
             simulate.clean_share must be between 0 and 1, got NaN; \
             simulate.frame_noise must run from low to high, got [0.20000000298023224, 0.10000000149011612]; \
             simulate.misfit_weights must hold a value above 0"
        );
        assert_eq!("huge".parse::<Preset>().unwrap_err().message(), "simulation preset must be `wide` or `paper`, got `huge`");
    }

    #[test]
    fn settings_survive_json_and_unknown_keys_are_refused() {
        let config = Config::preset(Preset::Paper).with_size(256);
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        assert!(serde_json::from_str::<Config>("{\"sise_px\": 3}").unwrap_err().to_string().contains("sise_px"));
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
    }
}
