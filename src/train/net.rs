//! The same network on burn: what a GPU trains with, and what the CPU engine is checked against.
//!
//! The forward pass is written on the flat parameter vector of [`Layout`]; shapes are in the comments, `s` is the stem's block and level
//! `k` has `h / (s * 2^k)` rows. Up-sampling is nearest (the gradient of bilinear interpolation panics on burn's GPU backends).

use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData, activation, module};

use crate::error::Result;
use crate::train::loss::{read, tensor4};
use crate::train::spec::{BATCH_NORM_EPSILON, ConvBn, Layout, UNetLayout};

/// Every parameter as a tensor of its own, in the order of `layout.params`, tracked for gradients.
pub struct BurnParams {
    tensors: Vec<Tensor<1>>,
    offsets: Vec<usize>,
}

impl BurnParams {
    /// Copies the flat vector to the device.
    #[must_use]
    pub fn new(layout: &Layout, params: &[f32], device: &Device) -> Self {
        let tensors = layout
            .params
            .iter()
            .map(|p| Tensor::<1>::from_data(TensorData::new(params[p.range()].to_vec(), [p.len()]), device).require_grad())
            .collect();
        Self { tensors, offsets: layout.params.iter().map(|p| p.offset).collect() }
    }

    fn at(&self, offset: usize) -> Tensor<1> {
        // every offset of a layout is the start of one of its parameters
        let k = self.offsets.partition_point(|o| *o < offset);
        self.tensors[k].clone()
    }

    fn weight(&self, offset: usize, dims: [usize; 4]) -> Tensor<4> {
        self.at(offset).reshape(dims)
    }

    /// The gradient of a scalar with respect to every parameter, flat; zero where it does not depend on one.
    ///
    /// # Errors
    /// The device's failure to read.
    pub fn gradients(&self, loss: &Tensor<1>, count: usize) -> Result<Vec<f32>> {
        let grads = loss.backward();
        let mut out = vec![0f32; count];
        for (t, offset) in self.tensors.iter().zip(&self.offsets) {
            if let Some(g) = t.grad(&grads) {
                let g = read(g)?;
                out[*offset..offset + g.len()].copy_from_slice(&g);
            }
        }
        Ok(out)
    }
}

/// Batch statistics seen on the way: where they belong in the statistics vector, mean and variance.
type Seen = Vec<(ConvBn, Tensor<1>, Tensor<1>)>;

/// Running statistics to normalise by, or `None` to take the batch's own.
type Running<'a> = Option<&'a [f32]>;

fn block(p: &BurnParams, at: &ConvBn, x: Tensor<4>, running: Running, seen: &mut Seen) -> Tensor<4> {
    let c = at.outputs;
    let device = x.device();
    let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
    let z = module::conv2d(x, p.weight(at.weight, [c, at.inputs, 3, 3]), None, options); // [n, c, h, w]
    let (mean, variance) = match running {
        Some(stats) => {
            let vector = |from: usize| tensor4(&stats[from..from + c], [1, c, 1, 1], &device);
            (vector(at.mean), vector(at.variance))
        }
        None => {
            let mean = z.clone().mean_dim(0).mean_dim(2).mean_dim(3); // [1, c, 1, 1]
            let variance = (z.clone() - mean.clone()).powi_scalar(2).mean_dim(0).mean_dim(2).mean_dim(3);
            seen.push((at.clone(), mean.clone().reshape([c]), variance.clone().reshape([c])));
            (mean, variance)
        }
    };
    let gamma = p.at(at.gamma).reshape([1, c, 1, 1]);
    let beta = p.at(at.beta).reshape([1, c, 1, 1]);
    activation::relu((z - mean) / (variance + BATCH_NORM_EPSILON).sqrt() * gamma + beta)
}

/// [n, c, h, w] to [n, c * s * s, h / s, w / s].
fn space_to_depth(x: Tensor<4>, s: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let x: Tensor<6> = x.reshape([n, c, h / s, s, w / s, s]);
    x.permute([0, 3, 5, 1, 2, 4]).reshape([n, s * s * c, h / s, w / s])
}

/// The inverse of [`space_to_depth`].
fn depth_to_space(x: Tensor<4>, s: usize) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let x: Tensor<6> = x.reshape([n, s, s, c / (s * s), h, w]);
    x.permute([0, 3, 4, 1, 5, 2]).reshape([n, c / (s * s), h * s, w * s])
}

fn unet(p: &BurnParams, l: &UNetLayout, x: Tensor<4>, running: Running, seen: &mut Seen) -> Tensor<4> {
    let levels = l.down.len();
    let mut x = space_to_depth(x, l.spec.stem); // [n, stem channels, h / s, w / s]
    let mut skips = Vec::new();
    for (k, [a, b]) in l.down.iter().enumerate() {
        if k > 0 {
            x = module::max_pool2d(x, MaxPoolOptions::new([2, 2]).with_stride([2, 2])); // level k - 1 to level k
        }
        x = block(p, a, x, running, seen);
        x = block(p, b, x, running, seen); // [n, channels k, h / (s 2^k), w / (s 2^k)]
        skips.push(x.clone());
    }
    for k in (0..levels - 1).rev() {
        let skip = skips[k].clone();
        let [_, _, h, w] = skip.dims();
        let up = module::interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([h, w]));
        let [a, b] = &l.up[k];
        x = block(p, a, Tensor::cat(vec![up, skip], 1), running, seen); // [n, channels k + 1 and k, ...] to [n, channels k, ...]
        x = block(p, b, x, running, seen);
    }
    let (inputs, outputs) = (l.spec.channels[0], l.head_channels());
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    let head = module::conv2d(x, p.weight(l.head_weight, [outputs, inputs, 1, 1]), Some(p.at(l.head_bias)), options);
    depth_to_space(head, l.spec.stem) // [n, outputs, h, w]
}

/// Standardised pairs [n, 2, h, w] to (O_t and O_s [n, 2, h, w], logit [n, 1, h, w]); batch norm by the batch unless `running` is given.
pub fn forward(
    p: &BurnParams,
    layout: &Layout,
    x: Tensor<4>,
    running: Option<&[f32]>,
) -> (Option<Tensor<4>>, Tensor<4>, Vec<(ConvBn, Tensor<1>, Tensor<1>)>) {
    let mut seen = Vec::new();
    let first = unet(p, &layout.differ, x, running, &mut seen);
    match &layout.mask {
        Some(mask) => {
            let logit = unet(p, mask, first.clone(), running, &mut seen);
            (Some(first), logit, seen)
        }
        None => (None, first, seen),
    }
}
