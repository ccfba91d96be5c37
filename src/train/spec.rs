//! What the SSDS network is made of: the two U-Nets, their parameters and where each lies in one flat vector.
//!
//! The difference learner N_d takes the pair (template, frame; 2 channels) and gives O_t and O_s (2 channels); the outlier mask N_m takes
//! those two and gives the logit of the defect map (1 channel). Nothing but O_t and O_s passes from N_d to N_m (section III of the
//! paper). Each U-Net: space-to-depth stem by `stem`, levels of two (3x3 convolution, batch norm, ReLU), 2x2 max pooling downwards,
//! nearest x2 upwards with the skip concatenated behind, 1x1 head with bias, depth-to-space by `stem`.
//!
//! Every weight lives in one `Vec<f32>` ([`Layout`] says where), so that the optimizer, the checkpoint, the two engines (`cpu`, `burn`)
//! and the ONNX export read the same numbers. Convolution weights are stored [out][in][ky][kx]. Channels of stem and head follow ONNX's
//! SpaceToDepth / DepthToSpace (DCR): channel = (dy * stem + dx) * channels + c.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Added to the variance in batch norm.
pub const BATCH_NORM_EPSILON: f32 = 1e-5;
/// Added to the standard deviation when a picture is standardised.
pub const STANDARDISE_EPSILON: f32 = 0.05;

/// One U-Net.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetSpec {
    /// Channels a pixel in.
    pub inputs: usize,
    /// Channels a pixel out.
    pub outputs: usize,
    /// Channels of each level, finest first.
    pub channels: Vec<usize>,
    /// Side of the space-to-depth block: 1 = full resolution, 2 = half-resolution body.
    pub stem: usize,
}

/// Both stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// N_d: pair to O_t, O_s.
    pub differ: UNetSpec,
    /// N_m: O_t, O_s to the logit of the map; absent in the single-stage ablation, where N_d gives the logit itself.
    pub mask: Option<UNetSpec>,
}

/// Named sizes of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// The publication's widths (64..512) at full resolution, 12 million parameters a stage.
    Paper,
    /// What ships: the best quality within 25 ms at 256x256 on one x86-64 thread.
    Base,
    /// Continuous integration and weak boards.
    Tiny,
    /// Smallest that still has every part; for tests.
    Micro,
}

impl Preset {
    /// The name used in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Base => "base",
            Self::Tiny => "tiny",
            Self::Micro => "micro",
        }
    }

    /// The network of this preset.
    #[must_use]
    pub fn spec(self) -> NetSpec {
        let two = |differ: &[usize], mask: &[usize], stem| NetSpec {
            differ: UNetSpec { inputs: 2, outputs: 2, channels: differ.to_vec(), stem },
            mask: Some(UNetSpec { inputs: 2, outputs: 1, channels: mask.to_vec(), stem }),
        };
        match self {
            Self::Paper => two(&[64, 128, 256, 512], &[64, 128, 256, 512], 1),
            Self::Base => two(&[16, 32, 64, 96], &[16, 16, 32], 2),
            Self::Tiny => two(&[8, 16, 32, 48], &[8, 8, 16], 2),
            Self::Micro => two(&[8, 8], &[8, 8], 2),
        }
    }
}

/// What a stretch of the flat vector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Convolution weights [out][in][k][k].
    Weight,
    /// Batch norm scale.
    Gamma,
    /// Batch norm shift.
    Beta,
    /// Bias of a head.
    Bias,
}

/// One named stretch of the flat parameter vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Such as `differ.down0.a.weight`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its dimensions; the product is its length.
    pub dims: Vec<usize>,
    /// First index in the flat vector.
    pub offset: usize,
}

impl Param {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Never true: kept beside `len`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it lies in the flat vector.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// A convolution with batch norm and ReLU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvBn {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// First weight, [out][in][3][3].
    pub weight: usize,
    /// First gamma.
    pub gamma: usize,
    /// First beta.
    pub beta: usize,
    /// First running mean in the statistics vector.
    pub mean: usize,
    /// First running variance in the statistics vector.
    pub variance: usize,
}

/// One U-Net with the places of its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UNetLayout {
    /// What it was made from.
    pub spec: UNetSpec,
    /// The way down: two convolutions a level.
    pub down: Vec<[ConvBn; 2]>,
    /// The way up, indexed by level (finest first); one fewer than `down`.
    pub up: Vec<[ConvBn; 2]>,
    /// First weight of the head, [out][in].
    pub head_weight: usize,
    /// First bias of the head.
    pub head_bias: usize,
}

impl UNetLayout {
    /// Channels into the first convolution.
    #[must_use]
    pub fn stem_channels(&self) -> usize {
        self.spec.inputs * self.spec.stem * self.spec.stem
    }

    /// Channels out of the head.
    #[must_use]
    pub fn head_channels(&self) -> usize {
        self.spec.outputs * self.spec.stem * self.spec.stem
    }

    /// Every convolution with batch norm, in the order of computation.
    pub fn blocks(&self) -> impl Iterator<Item = &ConvBn> {
        self.down.iter().chain(self.up.iter().rev()).flatten()
    }
}

/// Where everything of a network lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The difference learner.
    pub differ: UNetLayout,
    /// The outlier mask.
    pub mask: Option<UNetLayout>,
    /// Every trained stretch, in order.
    pub params: Vec<Param>,
    /// Trained values in all.
    pub param_count: usize,
    /// Running means and variances in all.
    pub stat_count: usize,
    /// Height and width of a picture must be multiples of this, px.
    pub multiple: usize,
}

#[derive(Default)]
struct Builder {
    params: Vec<Param>,
    param_count: usize,
    stat_count: usize,
}

impl Builder {
    fn param(&mut self, name: String, role: Role, dims: &[usize]) -> usize {
        let offset = self.param_count;
        self.param_count += dims.iter().product::<usize>();
        self.params.push(Param { name, role, dims: dims.to_vec(), offset });
        offset
    }

    fn stat(&mut self, n: usize) -> usize {
        self.stat_count += n;
        self.stat_count - n
    }

    fn block(&mut self, name: &str, inputs: usize, outputs: usize) -> ConvBn {
        ConvBn {
            inputs,
            outputs,
            weight: self.param(format!("{name}.weight"), Role::Weight, &[outputs, inputs, 3, 3]),
            gamma: self.param(format!("{name}.gamma"), Role::Gamma, &[outputs]),
            beta: self.param(format!("{name}.beta"), Role::Beta, &[outputs]),
            mean: self.stat(outputs),
            variance: self.stat(outputs),
        }
    }

    fn unet(&mut self, name: &str, spec: &UNetSpec) -> UNetLayout {
        let ch = &spec.channels;
        let levels = ch.len();
        let mut down = Vec::new();
        let mut inputs = spec.inputs * spec.stem * spec.stem;
        for (k, &c) in ch.iter().enumerate() {
            down.push([self.block(&format!("{name}.down{k}.a"), inputs, c), self.block(&format!("{name}.down{k}.b"), c, c)]);
            inputs = c;
        }
        let mut up = Vec::new();
        for k in (0..levels - 1).rev() {
            let a = self.block(&format!("{name}.up{k}.a"), ch[k + 1] + ch[k], ch[k]);
            up.push([a, self.block(&format!("{name}.up{k}.b"), ch[k], ch[k])]);
        }
        up.reverse();
        let out = spec.outputs * spec.stem * spec.stem;
        let head_weight = self.param(format!("{name}.head.weight"), Role::Weight, &[out, ch[0], 1, 1]);
        let head_bias = self.param(format!("{name}.head.bias"), Role::Bias, &[out]);
        UNetLayout { spec: spec.clone(), down, up, head_weight, head_bias }
    }
}

impl NetSpec {
    /// Places every parameter.
    ///
    /// # Errors
    /// A spec that is no network: fewer than two levels, widths that are no multiples of 8, stages that do not fit each other.
    pub fn layout(&self) -> Result<Layout> {
        let check = |name: &str, u: &UNetSpec| -> Result<()> {
            if !(2..=6).contains(&u.channels.len()) {
                return Err(Error::config(format!("network {name}.channels: wanted 2 to 6 levels, got {}", u.channels.len())));
            }
            if let Some(c) = u.channels.iter().find(|c| **c == 0 || **c % 8 != 0) {
                return Err(Error::config(format!(
                    "network {name}.channels: every width must be a positive multiple of 8, got {c}"
                )));
            }
            if u.stem != 1 && u.stem != 2 {
                return Err(Error::config(format!("network {name}.stem: wanted 1 or 2, got {}", u.stem)));
            }
            Ok(())
        };
        check("differ", &self.differ)?;
        let wanted = if self.mask.is_some() { 2 } else { 1 };
        if self.differ.inputs != 2 || self.differ.outputs != wanted {
            return Err(Error::config(format!(
                "network differ: wanted 2 inputs and {wanted} outputs, got {} and {}",
                self.differ.inputs, self.differ.outputs
            )));
        }
        if let Some(mask) = &self.mask {
            check("mask", mask)?;
            if mask.inputs != 2 || mask.outputs != 1 {
                return Err(Error::config(format!(
                    "network mask: wanted 2 inputs and 1 output, got {} and {}",
                    mask.inputs, mask.outputs
                )));
            }
        }
        let mut b = Builder::default();
        let differ = b.unet("differ", &self.differ);
        let mask = self.mask.as_ref().map(|m| b.unet("mask", m));
        let side = |u: &UNetSpec| u.stem << (u.channels.len() - 1);
        let multiple = side(&self.differ).max(self.mask.as_ref().map_or(1, side));
        Ok(Layout { differ, mask, params: b.params, param_count: b.param_count, stat_count: b.stat_count, multiple })
    }

    /// This network without its mask stage: the single-stage ablation.
    #[must_use]
    pub fn single_stage(&self) -> Self {
        let mut differ = self.differ.clone();
        differ.outputs = 1;
        Self { differ, mask: None }
    }

    /// Multiply-accumulates for one picture of `width` x `height` px.
    #[must_use]
    pub fn multiply_accumulates(&self, width: usize, height: usize) -> u64 {
        let unet = |u: &UNetSpec| {
            let area = |k: usize| (width * height / (u.stem * u.stem)) as u64 >> (2 * k);
            let ch = &u.channels;
            let mut n = 0u64;
            let mut inputs = u.inputs * u.stem * u.stem;
            for (k, &c) in ch.iter().enumerate() {
                n += area(k) * (9 * c * (inputs + c)) as u64;
                inputs = c;
                if k + 1 < ch.len() {
                    n += area(k) * (9 * c * (c + ch[k + 1] + c)) as u64;
                }
            }
            n + area(0) * (ch[0] * u.outputs * u.stem * u.stem) as u64
        };
        unet(&self.differ) + self.mask.as_ref().map_or(0, unet)
    }
}

impl Layout {
    /// Starting values: He for convolutions before a ReLU, one for gamma, zero for the rest; the last bias at `prior` (a logit), so that
    /// training starts near the share of defect pixels instead of at one half.
    #[must_use]
    pub fn initial(&self, seed: u64, prior: f32) -> Vec<f32> {
        use rand::{Rng as _, SeedableRng};
        let mut rng = rand_pcg::Pcg64::seed_from_u64(seed);
        // open interval: the logarithm below must stay finite
        let mut uniform = move || ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let mut out = vec![0f32; self.param_count];
        for p in &self.params {
            match p.role {
                Role::Weight => {
                    let fan_in: usize = p.dims[1..].iter().product();
                    let gain = if p.dims[2] == 1 { 1.0 } else { 2.0 };
                    let sigma = (gain / fan_in as f64).sqrt();
                    for v in &mut out[p.range()] {
                        let (a, b) = (uniform(), uniform());
                        *v = (sigma * (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32;
                    }
                }
                Role::Gamma => out[p.range()].fill(1.0),
                Role::Beta | Role::Bias => {}
            }
        }
        let last = self.mask.as_ref().unwrap_or(&self.differ);
        out[last.head_bias..last.head_bias + last.head_channels()].fill(prior);
        out
    }

    /// Starting running statistics: mean 0, variance 1.
    #[must_use]
    pub fn initial_stats(&self) -> Vec<f32> {
        let mut out = vec![0f32; self.stat_count];
        for b in self.differ.blocks().chain(self.mask.iter().flat_map(UNetLayout::blocks)) {
            out[b.variance..b.variance + b.outputs].fill(1.0);
        }
        out
    }
}
