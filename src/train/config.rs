//! The settings of a training run: one struct, saved beside the weights, checked before anything starts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::simulate;
use crate::train::init::Init;
use crate::train::loss::LossConfig;
use crate::train::spec::{NetSpec, Preset};

/// A stretch of the training with one crop size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Side of the square crops, px.
    pub crop_px: usize,
    /// Crops a step.
    pub batch: usize,
    /// The stage ends at this share of the training.
    pub until: f64,
}

/// Where tensors are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// This machine's processor, with the engine of `train::cpu`.
    #[default]
    Cpu,
    /// The processor through burn's own backend: slow, for comparison.
    Flex,
    /// A GPU through Vulkan (feature `train-vulkan`).
    Vulkan,
    /// An NVIDIA GPU through CUDA (feature `train-cuda`).
    Cuda,
}

/// Everything that decides what a run computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Size of the network.
    pub preset: Preset,
    /// Leaves the mask stage out (an ablation, not the paper's network).
    pub single_stage: bool,
    /// Seed of the weights, the simulation and the order of samples.
    pub seed: u64,
    /// Steps in all; with `max_minutes` the training may end earlier.
    pub steps: u64,
    /// Wall-clock budget: the schedule is stretched over it and the training ends with it. Such a run depends on the machine's speed.
    pub max_minutes: Option<f64>,
    /// Crop sizes, one after the other; the last must end at 1.
    pub stages: Vec<Stage>,
    /// Simulated pictures are larger than the crops by this factor.
    pub scene_factor: f64,
    /// Every simulated pair gives this many crops, each turned, mirrored, inverted and cut anew.
    pub reuse: u64,
    /// Pairs simulated before their crops are mixed.
    pub pool: u64,
    /// Share of crops in which part of the picture is not covered by the template.
    pub uncovered_share: f32,
    /// Share of crops without any labelled pixel that are taken as they come; the others are cut again, up to three times.
    pub empty_share: f32,
    /// Largest weight of a pixel of a small defect; 1 weighs all alike.
    pub small_defect_weight: f32,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Share of the training over which the learning rate grows from 0.
    pub warmup: f64,
    /// Last learning rate as a share of the highest (cosine in between).
    pub final_rate: f64,
    /// AdamW's weight decay, on convolution weights only.
    pub weight_decay: f64,
    /// Gradients longer than this are shortened to it.
    pub clip_norm: f64,
    /// Decay a step of the moving average of the weights that is validated and exported.
    pub ema_decay: f64,
    /// The loss.
    pub loss: LossConfig,
    /// The simulation.
    pub simulation: simulate::Config,
    /// Steps between validations.
    pub validate_every: u64,
    /// Pairs of the validation, on a seed of their own.
    pub validation_pairs: usize,
    /// Validations without improvement after which the training ends; 0 never ends early.
    pub patience: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Where tensors are computed.
    pub device: DeviceKind,
    /// Weights to start from; without it they are random.
    pub init: Option<Init>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            preset: Preset::Base,
            single_stage: false,
            seed: 1,
            steps: 12_000,
            max_minutes: None,
            stages: vec![Stage { crop_px: 128, batch: 16, until: 1.0 }],
            scene_factor: 1.25,
            reuse: 4,
            pool: 256,
            uncovered_share: 0.15,
            empty_share: 0.2,
            small_defect_weight: 2.5,
            learning_rate: 2e-3,
            warmup: 0.03,
            final_rate: 0.01,
            weight_decay: 1e-3,
            clip_norm: 1.0,
            ema_decay: 0.998,
            loss: LossConfig::default(),
            simulation: simulate::Config { paper_share: 0.12, ..simulate::Config::default() },
            validate_every: 250,
            validation_pairs: 64,
            patience: 0,
            checkpoint_every: 250,
            device: DeviceKind::Cpu,
            init: None,
        }
    }
}

impl TrainConfig {
    /// Settings that finish in seconds, for tests.
    #[must_use]
    pub fn smoke() -> Self {
        Self {
            preset: Preset::Micro,
            steps: 60,
            stages: vec![Stage { crop_px: 64, batch: 8, until: 1.0 }],
            scene_factor: 1.0,
            pool: 32,
            validate_every: 30,
            validation_pairs: 8,
            checkpoint_every: 20,
            ema_decay: 0.9,
            ..Self::default()
        }
    }

    /// The network.
    #[must_use]
    pub fn spec(&self) -> NetSpec {
        let spec = self.preset.spec();
        if self.single_stage { spec.single_stage() } else { spec }
    }

    /// The stage in force at `progress` (0..1).
    #[must_use]
    pub fn stage(&self, progress: f64) -> (usize, &Stage) {
        let k = self.stages.iter().position(|s| progress < s.until).unwrap_or(self.stages.len() - 1);
        (k, &self.stages[k])
    }

    /// The learning rate at `progress` (0..1): linear warm-up, then a cosine.
    #[must_use]
    pub fn rate(&self, progress: f64) -> f64 {
        let p = progress.clamp(0.0, 1.0);
        if p < self.warmup {
            return self.learning_rate * (p / self.warmup).max(1e-3);
        }
        let q = (p - self.warmup) / (1.0 - self.warmup);
        let floor = self.final_rate;
        self.learning_rate * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * q).cos()))
    }

    /// The weight of L_irr at `progress`.
    #[must_use]
    pub fn irrelevance_weight(&self, progress: f64) -> f32 {
        let grown = if self.loss.irrelevance_warmup > 0.0 { progress / f64::from(self.loss.irrelevance_warmup) } else { 1.0 };
        self.loss.irrelevance * grown.min(1.0) as f32
    }

    /// Whether every value is in its range.
    ///
    /// # Errors
    /// The first that is not, with its value and what was wanted.
    pub fn check(&self) -> Result<()> {
        let range = |name: &str, v: f64, low: f64, high: f64| {
            if v >= low && v <= high {
                Ok(())
            } else {
                Err(Error::config(format!("train.{name} must be between {low} and {high}, got {v}")))
            }
        };
        range("steps", self.steps as f64, 1.0, 1e9)?;
        if let Some(m) = self.max_minutes {
            range("max_minutes", m, 0.01, 1e6)?;
        }
        range("scene_factor", self.scene_factor, 1.0, 4.0)?;
        range("reuse", self.reuse as f64, 1.0, 1000.0)?;
        range("pool", self.pool as f64, 1.0, 100_000.0)?;
        range("uncovered_share", f64::from(self.uncovered_share), 0.0, 1.0)?;
        range("empty_share", f64::from(self.empty_share), 0.0, 1.0)?;
        range("small_defect_weight", f64::from(self.small_defect_weight), 1.0, 100.0)?;
        range("learning_rate", self.learning_rate, 1e-9, 1.0)?;
        range("warmup", self.warmup, 0.0, 0.9)?;
        range("final_rate", self.final_rate, 0.0, 1.0)?;
        range("weight_decay", self.weight_decay, 0.0, 1.0)?;
        range("clip_norm", self.clip_norm, 1e-6, 1e9)?;
        range("ema_decay", self.ema_decay, 0.0, 0.999_999)?;
        range("validate_every", self.validate_every as f64, 1.0, 1e9)?;
        range("validation_pairs", self.validation_pairs as f64, 1.0, 100_000.0)?;
        range("checkpoint_every", self.checkpoint_every as f64, 1.0, 1e9)?;
        self.loss.check()?;
        self.simulation.check()?;
        let layout = self.spec().layout()?;
        let mut before = 0.0;
        if self.stages.is_empty() {
            return Err(Error::config("train.stages: wanted at least one stage, got none"));
        }
        for s in &self.stages {
            if s.crop_px == 0 || s.crop_px % layout.multiple != 0 || s.crop_px > 2048 {
                return Err(Error::config(format!(
                    "train.stages crop_px must be a multiple of {} up to 2048 for preset {}, got {}",
                    layout.multiple,
                    self.preset.name(),
                    s.crop_px
                )));
            }
            if self.loss.irrelevance > 0.0 && !self.single_stage && (!s.crop_px.is_power_of_two() || s.crop_px < 16) {
                return Err(Error::config(format!(
                    "train.stages crop_px: with the irrelevance loss every crop must be a power of two of at least 16 px, got {}; \
                     choose another crop or set train.loss.irrelevance = 0",
                    s.crop_px
                )));
            }
            if !(1..=4096).contains(&s.batch) {
                return Err(Error::config(format!("train.stages batch must be between 1 and 4096, got {}", s.batch)));
            }
            if !(s.until > before && s.until <= 1.0) {
                return Err(Error::config(format!(
                    "train.stages until must rise from above 0 to 1, got {} after {before}",
                    s.until
                )));
            }
            before = s.until;
        }
        if before < 1.0 {
            return Err(Error::config(format!("train.stages: the last stage must end at 1, got {before}")));
        }
        Ok(())
    }

    /// Reads a TOML file; keys that are absent keep their defaults, unknown keys are refused.
    ///
    /// # Errors
    /// A file that cannot be read, or is no such configuration.
    pub fn load(path: &Path) -> Result<Self> {
        let what = format!("training configuration {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(&what, e))?;
        toml::from_str(&text).map_err(|e| Error::config(format!("{what}: {e}")))
    }

    /// This configuration as TOML.
    ///
    /// # Errors
    /// None that is known: every type here has a TOML form.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal(format!("training configuration as TOML: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(config: TrainConfig) -> String {
        config.check().unwrap_err().message().to_string()
    }

    #[test]
    fn the_defaults_pass_and_survive_toml() {
        for preset in [Preset::Paper, Preset::Base, Preset::Tiny, Preset::Micro] {
            let config = TrainConfig { preset, max_minutes: Some(5.0), ..TrainConfig::default() };
            config.check().unwrap();
            let back: TrainConfig = toml::from_str(&config.to_toml().unwrap()).unwrap();
            assert_eq!(back, config);
        }
        TrainConfig::smoke().check().unwrap();
        assert_eq!(toml::from_str::<TrainConfig>("").unwrap(), TrainConfig::default());
    }

    #[test]
    fn unknown_keys_and_missing_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, "learning_rat = 0.1\n").unwrap();
        let error = TrainConfig::load(&path).unwrap_err();
        assert!(error.message().contains("t.toml") && error.message().contains("learning_rat"), "{error}");
        let error = TrainConfig::load(Path::new("/nowhere/t.toml")).unwrap_err();
        assert!(error.message().contains("training configuration /nowhere/t.toml"), "{error}");
    }

    #[test]
    fn faults_name_the_value_and_what_was_wanted() {
        let base = TrainConfig::default;
        let stage = |crop_px, batch, until| vec![Stage { crop_px, batch, until }];
        assert_eq!(
            fault(TrainConfig { learning_rate: f64::NAN, ..base() }),
            "train.learning_rate must be between 0.000000001 and 1, got NaN"
        );
        assert_eq!(
            fault(TrainConfig { stages: stage(100, 8, 1.0), ..base() }),
            "train.stages crop_px must be a multiple of 16 up to 2048 for preset base, got 100"
        );
        assert_eq!(
            fault(TrainConfig { stages: stage(96, 8, 1.0), ..base() }),
            "train.stages crop_px: with the irrelevance loss every crop must be a power of two of at least 16 px, got 96; \
             choose another crop or set train.loss.irrelevance = 0"
        );
        assert_eq!(
            fault(TrainConfig { stages: stage(128, 8, 0.5), ..base() }),
            "train.stages: the last stage must end at 1, got 0.5"
        );
        assert_eq!(
            fault(TrainConfig { stages: stage(128, 0, 1.0), ..base() }),
            "train.stages batch must be between 1 and 4096, got 0"
        );
        assert_eq!(fault(TrainConfig { stages: vec![], ..base() }), "train.stages: wanted at least one stage, got none");
        let without =
            TrainConfig { stages: stage(96, 8, 1.0), loss: LossConfig { irrelevance: 0.0, ..LossConfig::default() }, ..base() };
        without.check().unwrap();
    }

    #[test]
    fn the_rate_rises_then_falls_and_stages_follow_each_other() {
        let config = TrainConfig::default();
        let rates: Vec<f64> = (0..=100).map(|i| config.rate(f64::from(i) / 100.0)).collect();
        let top = rates.iter().copied().fold(0.0, f64::max);
        assert!((top - config.learning_rate).abs() < 1e-9);
        assert!(rates[0] > 0.0 && rates[0] < 0.01 * top);
        assert!(rates[3..].windows(2).all(|w| w[1] <= w[0]));
        assert!((rates[100] - config.final_rate * top).abs() < 1e-12);
        let two = vec![Stage { crop_px: 128, batch: 16, until: 0.85 }, Stage { crop_px: 256, batch: 6, until: 1.0 }];
        let mixed = TrainConfig { stages: two, ..config.clone() };
        mixed.check().unwrap();
        assert_eq!((mixed.stage(0.0).0, mixed.stage(0.849).0, mixed.stage(0.85).0, mixed.stage(1.0).0), (0, 0, 1, 1));
        assert_eq!(config.irrelevance_weight(0.0), 0.0);
        assert_eq!(config.irrelevance_weight(0.5), config.loss.irrelevance);
    }
}
