//! The CPU engine: forward and backward pass of both U-Nets, written out by hand.
//!
//! burn's CPU backend spends most of a training step in layout changes and small matrix products; this engine keeps everything
//! channels-last with a zero border and needs a fraction of the time (`docs/bench/training.md`). It computes the same function as
//! `net::forward` on burn: values and gradients are compared in the tests. Losses stay with burn (`loss`): they give the gradients with
//! respect to O_t, O_s and the logit, which [`CpuNet::backward`] carries back to the parameters.
//!
//! Pictures are divided over rayon's threads. Sums across pictures are taken in a fixed order over a fixed number of groups, so that
//! results do not depend on the number of threads.

pub mod kernels;
pub mod simd;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::train::spec::{BATCH_NORM_EPSILON, ConvBn, Layout, UNetLayout};
use kernels::{Area, Conv, WeightGrad};
use simd::LANES;

/// Groups of pictures whose weight gradients are summed apart; fixed, so that rounding does not depend on the number of threads.
const GROUPS: usize = 8;

fn padded(channels: usize) -> usize {
    channels.div_ceil(LANES) * LANES
}

/// A batch of feature maps with border.
#[derive(Clone)]
struct Maps {
    area: Area,
    /// Channels in memory.
    channels: usize,
    data: Vec<f32>,
}

impl Maps {
    fn new(n: usize, area: Area, channels: usize) -> Self {
        let channels = padded(channels);
        Self { area, channels, data: vec![0.0; n * area.padded() * channels] }
    }

    fn stride(&self) -> usize {
        self.area.padded() * self.channels
    }

    fn each(&self) -> rayon::slice::ChunksExact<'_, f32> {
        self.data.par_chunks_exact(self.stride())
    }

    fn each_mut(&mut self) -> rayon::slice::ChunksExactMut<'_, f32> {
        let stride = self.stride();
        self.data.par_chunks_exact_mut(stride)
    }
}

/// Runs one convolution on every picture.
fn conv_all(x: &Maps, used: usize, weight: &[f32], offsets: &[isize], out: &mut Maps) {
    let (area, x_channels, out_channels) = (x.area, x.channels, out.channels);
    x.each().zip(out.each_mut()).for_each(|(x, out)| {
        kernels::conv(&Conv { area, x, x_channels, used, weight, offsets, out_channels }, out);
    });
}

/// The weight gradient over all pictures, [taps][x channels][out channels] in memory.
fn weight_grad_all(x: &Maps, dz: &Maps, offsets: &[isize]) -> Vec<f32> {
    let (area, x_channels, out_channels) = (x.area, x.channels, dz.channels);
    let n = x.data.len() / x.stride();
    let size = offsets.len() * x_channels * out_channels;
    let group = n.div_ceil(GROUPS);
    let parts: Vec<Vec<f32>> = x
        .data
        .par_chunks(x.stride() * group)
        .zip(dz.data.par_chunks(dz.stride() * group))
        .map(|(x, dz)| {
            let mut grad = vec![0f32; size];
            for (x, dz) in x.chunks_exact(area.padded() * x_channels).zip(dz.chunks_exact(area.padded() * out_channels)) {
                kernels::weight_grad(&WeightGrad { area, x, x_channels, dz, out_channels, offsets }, &mut grad);
            }
            grad
        })
        .collect();
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_default();
    for part in parts {
        for (t, p) in total.iter_mut().zip(part) {
            *t += p;
        }
    }
    total
}

/// Weights [out][in][taps] as [taps][in in memory][out in memory], and transposed as [taps][out in memory][in in memory].
fn pack(weight: &[f32], outputs: usize, inputs: usize, taps: usize) -> (Vec<f32>, Vec<f32>) {
    let (pi, po) = (padded(inputs), padded(outputs));
    let (mut forward, mut back) = (vec![0f32; taps * pi * po], vec![0f32; taps * pi * po]);
    for o in 0..outputs {
        for i in 0..inputs {
            for t in 0..taps {
                let v = weight[(o * inputs + i) * taps + t];
                forward[(t * pi + i) * po + o] = v;
                back[(t * po + o) * pi + i] = v;
            }
        }
    }
    (forward, back)
}

/// The gradient of packed weights back in [out][in][taps].
fn unpack(grad: &[f32], outputs: usize, inputs: usize, taps: usize, to: &mut [f32]) {
    let (pi, po) = (padded(inputs), padded(outputs));
    for o in 0..outputs {
        for i in 0..inputs {
            for t in 0..taps {
                to[(o * inputs + i) * taps + t] = grad[(t * pi + i) * po + o];
            }
        }
    }
}

/// A convolution with batch norm and ReLU, with what its backward pass needs.
struct Block {
    at: ConvBn,
    z: Maps,
    y: Maps,
    /// Gradient of `y`, turned into that of `z` in place.
    grad: Maps,
    mean: Vec<f32>,
    inverse: Vec<f32>,
    back: Vec<f32>,
}

/// How batch norm takes its mean and variance.
enum Norm<'a> {
    /// Of the batch; the running statistics move towards them by this share.
    Batch(&'a mut [f32], f32),
    /// The running statistics.
    Running(&'a [f32]),
}

impl Block {
    fn new(at: &ConvBn, n: usize, area: Area) -> Self {
        let maps = || Maps::new(n, area, at.outputs);
        Self { at: at.clone(), z: maps(), y: maps(), grad: maps(), mean: vec![], inverse: vec![], back: vec![] }
    }

    fn forward(&mut self, x: &Maps, params: &[f32], norm: &mut Norm) {
        let at = &self.at;
        let (c, memory, area) = (at.outputs, self.z.channels, self.z.area);
        let mut plain = params[at.weight..at.weight + c * at.inputs * 9].to_vec();
        if let Norm::Running(running) = norm {
            // folded as in the exported graph, so that both round alike
            for (i, w) in plain.chunks_exact_mut(at.inputs * 9).enumerate() {
                let scale = params[at.gamma + i] / (running[at.variance + i] + BATCH_NORM_EPSILON).sqrt();
                w.iter_mut().for_each(|w| *w *= scale);
            }
        }
        let (weight, back) = pack(&plain, c, at.inputs, 9);
        self.back = back;
        conv_all(x, at.inputs, &weight, &kernels::tap_offsets(9, area, 1), &mut self.z);
        // unused channels keep mean 0 and scale 0, so that they stay zero
        let (mut mean, mut inverse) = (vec![0f32; memory], vec![0f32; memory]);
        match norm {
            Norm::Batch(running, share) => {
                let sums: Vec<Vec<f64>> = self
                    .z
                    .each()
                    .map(|z| {
                        let mut sums = vec![0f64; 2 * memory];
                        kernels::sums(area, memory, z, &mut sums);
                        sums
                    })
                    .collect();
                let count = (sums.len() * area.pixels()) as f64;
                for i in 0..c {
                    let m = sums.iter().map(|s| s[i]).sum::<f64>() / count;
                    let v = (sums.iter().map(|s| s[memory + i]).sum::<f64>() / count - m * m).max(0.0);
                    mean[i] = m as f32;
                    inverse[i] = 1.0 / (v as f32 + BATCH_NORM_EPSILON).sqrt();
                    running[at.mean + i] += *share * (m as f32 - running[at.mean + i]);
                    running[at.variance + i] += *share * (v as f32 - running[at.variance + i]);
                }
            }
            Norm::Running(running) => {
                for i in 0..c {
                    mean[i] = running[at.mean + i];
                    inverse[i] = 1.0 / (running[at.variance + i] + BATCH_NORM_EPSILON).sqrt();
                }
            }
        }
        let (mut scale, mut shift) = (vec![0f32; memory], vec![0f32; memory]);
        for i in 0..c {
            let gain = params[at.gamma + i] * inverse[i];
            scale[i] = if matches!(norm, Norm::Running(_)) { 1.0 } else { gain };
            shift[i] = params[at.beta + i] - mean[i] * gain;
        }
        self.z.each().zip(self.y.each_mut()).for_each(|(z, y)| kernels::scale_relu(area, memory, z, &scale, &shift, y));
        (self.mean, self.inverse) = (mean, inverse);
    }

    /// Carries `self.grad` (of `y`) back: parameter gradients into `grads`, the input's gradient into `dx` when wanted.
    fn backward(&mut self, x: &Maps, params: &[f32], grads: &mut [f32], dx: Option<&mut Maps>) {
        let at = &self.at;
        let (c, memory, area) = (at.outputs, self.z.channels, self.z.area);
        let mean = &self.mean;
        let sums: Vec<Vec<f64>> = self
            .z
            .each()
            .zip(self.y.each())
            .zip(self.grad.each_mut())
            .map(|((z, y), dy)| {
                let mut sums = vec![0f64; 2 * memory];
                kernels::relu_grad_sums(area, memory, z, y, mean, dy, &mut sums);
                sums
            })
            .collect();
        let count = (sums.len() * area.pixels()) as f64;
        let (mut p, mut q, mut r) = (vec![0f32; memory], vec![0f32; memory], vec![0f32; memory]);
        for i in 0..c {
            let inverse = f64::from(self.inverse[i]);
            let dbeta = sums.iter().map(|s| s[i]).sum::<f64>();
            let dgamma = sums.iter().map(|s| s[memory + i]).sum::<f64>() * inverse;
            grads[at.beta + i] = dbeta as f32;
            grads[at.gamma + i] = dgamma as f32;
            // dz = gamma * inverse * (dy - dbeta / count - (z - mean) * inverse * dgamma / count)
            let k = f64::from(params[at.gamma + i]) * inverse;
            p[i] = k as f32;
            q[i] = (-k * inverse * dgamma / count) as f32;
            r[i] = (-k * dbeta / count + k * inverse * dgamma / count * f64::from(mean[i])) as f32;
        }
        self.z.each().zip(self.grad.each_mut()).for_each(|(z, dy)| kernels::norm_grad(area, memory, z, &p, &q, &r, dy));
        let grad = weight_grad_all(x, &self.grad, &kernels::tap_offsets(9, area, 1));
        unpack(&grad, c, at.inputs, 9, &mut grads[at.weight..at.weight + c * at.inputs * 9]);
        if let Some(dx) = dx {
            conv_all(&self.grad, c, &self.back, &kernels::tap_offsets(9, area, -1), dx);
        }
    }
}

struct UNet {
    layout: UNetLayout,
    /// Input of the stem after space-to-depth.
    stem: Maps,
    stem_grad: Maps,
    down: Vec<[Block; 2]>,
    /// Input of each level but the first, and its gradient.
    pooled: Vec<(Maps, Maps)>,
    up: Vec<[Block; 2]>,
    /// Input of each level on the way up, and its gradient.
    concat: Vec<(Maps, Maps)>,
    head: Maps,
    head_grad: Maps,
    head_back: Vec<f32>,
}

impl UNet {
    fn new(layout: &UNetLayout, n: usize, height: usize, width: usize) -> Self {
        let stem = layout.spec.stem;
        let area = |k: usize| Area { height: (height / stem) >> k, width: (width / stem) >> k };
        let ch = &layout.spec.channels;
        let pair = |blocks: &[ConvBn; 2], k: usize| [Block::new(&blocks[0], n, area(k)), Block::new(&blocks[1], n, area(k))];
        let maps = |k: usize, c: usize| (Maps::new(n, area(k), c), Maps::new(n, area(k), c));
        let (stem, stem_grad) = maps(0, layout.stem_channels());
        let (head, head_grad) = maps(0, layout.head_channels());
        Self {
            stem,
            stem_grad,
            down: layout.down.iter().enumerate().map(|(k, b)| pair(b, k)).collect(),
            pooled: (1..ch.len()).map(|k| maps(k, ch[k - 1])).collect(),
            up: layout.up.iter().enumerate().map(|(k, b)| pair(b, k)).collect(),
            concat: (0..ch.len() - 1).map(|k| maps(k, ch[k] + ch[k + 1])).collect(),
            head,
            head_grad,
            head_back: vec![],
            layout: layout.clone(),
        }
    }

    /// `self.stem` to `self.head`.
    fn forward(&mut self, params: &[f32], norm: &mut Norm) {
        let levels = self.down.len();
        for k in 0..levels {
            if k > 0 {
                let x = &self.down[k - 1][1].y;
                let (area, channels) = (x.area, x.channels);
                x.each().zip(self.pooled[k - 1].0.each_mut()).for_each(|(x, out)| kernels::pool(area, channels, x, out));
            }
            let [a, b] = &mut self.down[k];
            a.forward(if k == 0 { &self.stem } else { &self.pooled[k - 1].0 }, params, norm);
            b.forward(&a.y, params, norm);
        }
        for k in (0..levels - 1).rev() {
            let low = if k + 2 == levels { &self.down[k + 1][1].y } else { &self.up[k + 1][1].y };
            let skip = &self.down[k][1].y;
            let ch = &self.layout.spec.channels;
            let (a, b) = ((ch[k + 1], low.channels), (ch[k], skip.channels));
            let out = &mut self.concat[k].0;
            let (area, channels) = (out.area, out.channels);
            low.each()
                .zip(skip.each())
                .zip(out.each_mut())
                .for_each(|((low, skip), out)| kernels::upsample_concat(area, low, a, skip, b, out, channels));
            let [a, b] = &mut self.up[k];
            a.forward(&self.concat[k].0, params, norm);
            b.forward(&a.y, params, norm);
        }
        let (inputs, outputs) = (self.layout.spec.channels[0], self.layout.head_channels());
        let at = self.layout.head_weight;
        let (weight, back) = pack(&params[at..at + inputs * outputs], outputs, inputs, 1);
        self.head_back = back;
        let x = &self.up[0][1].y;
        conv_all(x, inputs, &weight, &[0], &mut self.head);
        let mut bias = vec![0f32; self.head.channels];
        bias[..outputs].copy_from_slice(&params[self.layout.head_bias..self.layout.head_bias + outputs]);
        let (area, channels) = (self.head.area, self.head.channels);
        self.head.each_mut().for_each(|y| kernels::add_bias(area, channels, &bias, y));
    }

    /// `self.head_grad` to the parameter gradients, and to `self.stem_grad` when `input` is wanted.
    fn backward(&mut self, params: &[f32], grads: &mut [f32], input: bool) {
        let levels = self.down.len();
        let (inputs, outputs) = (self.layout.spec.channels[0], self.layout.head_channels());
        {
            let [_, b] = &mut self.up[0];
            let grad = weight_grad_all(&b.y, &self.head_grad, &[0]);
            let at = self.layout.head_weight;
            unpack(&grad, outputs, inputs, 1, &mut grads[at..at + inputs * outputs]);
            let (area, channels) = (self.head_grad.area, self.head_grad.channels);
            let sums: Vec<Vec<f64>> = self
                .head_grad
                .each()
                .map(|d| {
                    let mut sums = vec![0f64; 2 * channels];
                    kernels::sums(area, channels, d, &mut sums);
                    sums
                })
                .collect();
            for o in 0..outputs {
                grads[self.layout.head_bias + o] = sums.iter().map(|s| s[o]).sum::<f64>() as f32;
            }
            conv_all(&self.head_grad, outputs, &self.head_back, &[0], &mut b.grad);
        }
        for k in 0..levels - 1 {
            let [a, b] = &mut self.up[k];
            b.backward(&a.y, params, grads, Some(&mut a.grad));
            let (x, dx) = &mut self.concat[k];
            a.backward(x, params, grads, Some(dx));
            let ch = &self.layout.spec.channels;
            let (area, channels) = (dx.area, dx.channels);
            let (skips, lower) = self.down.split_at_mut(k + 1);
            let skip = &mut skips[k][1].grad;
            let low = if k + 2 == levels { &mut lower[0][1].grad } else { &mut self.up[k + 1][1].grad };
            let (a, b) = ((ch[k + 1], low.channels), (ch[k], skip.channels));
            dx.each()
                .zip(low.each_mut())
                .zip(skip.each_mut())
                .for_each(|((d, low), skip)| kernels::upsample_concat_grad(area, d, channels, a, low, b, skip));
        }
        for k in (0..levels).rev() {
            let (above, here) = self.down.split_at_mut(k);
            let [a, b] = &mut here[0];
            b.backward(&a.y, params, grads, Some(&mut a.grad));
            if k == 0 {
                a.backward(&self.stem, params, grads, input.then_some(&mut self.stem_grad));
            } else {
                let (x, dx) = &mut self.pooled[k - 1];
                a.backward(x, params, grads, Some(dx));
                let source = &mut above[k - 1][1];
                let (area, channels) = (source.y.area, source.y.channels);
                source
                    .y
                    .each()
                    .zip(x.each())
                    .zip(dx.each())
                    .zip(source.grad.each_mut())
                    .for_each(|(((x, out), dout), dx)| kernels::pool_grad(area, channels, x, out, dout, dx));
            }
        }
    }
}

/// [n][c][h][w] to channels-last with border after space-to-depth by `block`.
fn space_to_depth(x: &[f32], channels: usize, block: usize, to: &mut Maps) {
    let (area, memory) = (to.area, to.channels);
    let (height, width) = (area.height * block, area.width * block);
    x.par_chunks_exact(channels * height * width).zip(to.each_mut()).for_each(|(x, to)| {
        for (c, plane) in x.chunks_exact(height * width).enumerate() {
            for (y, row) in plane.chunks_exact(width).enumerate() {
                let first = area.row(y / block) * memory + (y % block) * block * channels + c;
                for (x, v) in row.iter().enumerate() {
                    to[first + (x / block) * memory + (x % block) * channels] = *v;
                }
            }
        }
    });
}

/// The inverse of [`space_to_depth`].
fn depth_to_space(from: &Maps, channels: usize, block: usize) -> Vec<f32> {
    let (area, memory) = (from.area, from.channels);
    let (height, width) = (area.height * block, area.width * block);
    let n = from.data.len() / from.stride();
    let mut out = vec![0f32; n * channels * height * width];
    out.par_chunks_exact_mut(channels * height * width).zip(from.each()).for_each(|(out, from)| {
        for (c, plane) in out.chunks_exact_mut(height * width).enumerate() {
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                let first = area.row(y / block) * memory + (y % block) * block * channels + c;
                for (x, v) in row.iter_mut().enumerate() {
                    *v = from[first + (x / block) * memory + (x % block) * channels];
                }
            }
        }
    });
    out
}

/// What a forward pass gives, both [n][channels][height][width].
pub struct Outputs {
    /// O_t and O_s; absent in the single-stage network.
    pub pair: Option<Vec<f32>>,
    /// Logit of the defect map.
    pub logit: Vec<f32>,
}

/// Both stages with the memory of one batch.
pub struct CpuNet {
    layout: Layout,
    /// Pictures, rows, columns.
    size: (usize, usize, usize),
    differ: UNet,
    mask: Option<UNet>,
}

impl CpuNet {
    /// Makes room for batches of `n` pictures of `height` x `width`, both multiples of the layout's `multiple`.
    #[must_use]
    pub fn new(layout: &Layout, n: usize, height: usize, width: usize) -> Self {
        assert!(n > 0 && height % layout.multiple == 0 && width % layout.multiple == 0 && height * width > 0);
        Self {
            layout: layout.clone(),
            size: (n, height, width),
            differ: UNet::new(&layout.differ, n, height, width),
            mask: layout.mask.as_ref().map(|m| UNet::new(m, n, height, width)),
        }
    }

    /// (pictures, height, width) this was made for.
    #[must_use]
    pub fn size(&self) -> (usize, usize, usize) {
        self.size
    }

    fn run(&mut self, params: &[f32], norm: &mut Norm, x: &[f32]) -> Outputs {
        let (n, height, width) = self.size;
        assert_eq!(x.len(), n * 2 * height * width);
        assert_eq!(params.len(), self.layout.param_count);
        let stem = self.layout.differ.spec.stem;
        space_to_depth(x, 2, stem, &mut self.differ.stem);
        self.differ.forward(params, norm);
        let outputs = self.layout.differ.spec.outputs;
        let first = depth_to_space(&self.differ.head, outputs, stem);
        let Some(mask) = &mut self.mask else {
            return Outputs { pair: None, logit: first };
        };
        let stem = mask.layout.spec.stem;
        space_to_depth(&first, 2, stem, &mut mask.stem);
        mask.forward(params, norm);
        Outputs { logit: depth_to_space(&mask.head, 1, stem), pair: Some(first) }
    }

    /// Training pass: batch norm by the batch; `stats` moves towards the batch's statistics by `share`.
    pub fn forward_train(&mut self, params: &[f32], stats: &mut [f32], share: f32, x: &[f32]) -> Outputs {
        self.run(params, &mut Norm::Batch(stats, share), x)
    }

    /// Inference pass: batch norm by the running statistics.
    pub fn forward(&mut self, params: &[f32], stats: &[f32], x: &[f32]) -> Outputs {
        self.run(params, &mut Norm::Running(stats), x)
    }

    /// Adds to `moments` (laid out as the running statistics) the mean and the mean square that every convolution's result had over the
    /// last pass, where a running variance has its place the mean square.
    pub fn add_moments(&self, moments: &mut [f64]) {
        for unet in std::iter::once(&self.differ).chain(&self.mask) {
            for block in unet.down.iter().chain(&unet.up).flatten() {
                let (area, memory, at) = (block.z.area, block.z.channels, &block.at);
                let mut sums = vec![0f64; 2 * memory];
                block.z.data.chunks_exact(block.z.stride()).for_each(|z| kernels::sums(area, memory, z, &mut sums));
                let count = (self.size.0 * area.pixels()) as f64;
                for i in 0..at.outputs {
                    moments[at.mean + i] += sums[i] / count;
                    moments[at.variance + i] += sums[memory + i] / count;
                }
            }
        }
    }

    /// After [`CpuNet::forward_train`] with the same `params`: the gradient of a loss with respect to every parameter, from that with
    /// respect to the logit and, where it has one, to O_t and O_s.
    #[must_use]
    pub fn backward(&mut self, params: &[f32], dlogit: &[f32], dpair: Option<&[f32]>) -> Vec<f32> {
        let mut grads = vec![0f32; self.layout.param_count];
        let through = self.backward_mask(params, dlogit, &mut grads);
        self.backward_differ(params, through, dpair, &mut grads);
        grads
    }

    /// The first half of [`CpuNet::backward`]: writes the mask stage's part of `grads`, gives the gradient with respect to what the
    /// difference learner put out.
    #[must_use]
    pub fn backward_mask(&mut self, params: &[f32], dlogit: &[f32], grads: &mut [f32]) -> Vec<f32> {
        let Some(mask) = &mut self.mask else {
            return dlogit.to_vec();
        };
        let stem = mask.layout.spec.stem;
        space_to_depth(dlogit, 1, stem, &mut mask.head_grad);
        mask.backward(params, grads, true);
        depth_to_space(&mask.stem_grad, 2, stem)
    }

    /// The second half: `through` is what [`CpuNet::backward_mask`] gave, `dpair` is added to it.
    pub fn backward_differ(&mut self, params: &[f32], mut through: Vec<f32>, dpair: Option<&[f32]>, grads: &mut [f32]) {
        if let Some(extra) = dpair {
            for (d, e) in through.iter_mut().zip(extra) {
                *d += e;
            }
        }
        let spec = &self.differ.layout.spec;
        let (outputs, stem) = (spec.outputs, spec.stem);
        space_to_depth(&through, outputs, stem, &mut self.differ.head_grad);
        self.differ.backward(params, grads, false);
    }
}
