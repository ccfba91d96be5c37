//! One step's loss and gradient, on the processor's own engine or on a burn device.

use burn::tensor::Device;

use crate::error::{Error, Kind, Result};
use crate::train::batch::Batch;
use crate::train::config::{DeviceKind, TrainConfig};
use crate::train::cpu::CpuNet;
use crate::train::loss::{Parts, loss, read, read_parts, tensor4};
use crate::train::net::{BurnParams, forward};
use crate::train::phase::Irrelevance;
use crate::train::spec::Layout;

/// Share by which running statistics move towards a batch's.
const STATISTICS_SHARE: f32 = 0.1;

/// Pictures that one inference pass takes at most, so that memory stays bounded.
const INFERENCE_BATCH: usize = 8;

/// Computes losses, gradients and maps.
pub struct Engine {
    layout: Layout,
    /// Where losses are computed; with burn also the network.
    device: Device,
    /// The processor's own engine, with memory for training and for inference; `None` computes everything on `device`.
    cpu: Option<[Option<CpuNet>; 2]>,
    /// Constants of L_irr for the crop size in use.
    irrelevance: Option<(usize, Irrelevance)>,
}

/// Opens a burn device.
///
/// # Errors
/// A device this build or this machine does not have.
fn open(kind: DeviceKind) -> Result<Device> {
    match kind {
        DeviceKind::Cpu | DeviceKind::Flex => Ok(Device::flex()),
        DeviceKind::Vulkan => open_vulkan(),
        DeviceKind::Cuda => open_cuda(),
    }
}

#[cfg(feature = "train-vulkan")]
fn open_vulkan() -> Result<Device> {
    use burn::tensor::DeviceType;
    // opening is lazy and panics at the first operation without a driver: ask for the list first
    let found = std::panic::catch_unwind(|| Device::enumerate(DeviceType::Vulkan).into_iter().next());
    match found {
        Ok(Some(device)) => Ok(device),
        _ => Err(Error::unavailable(
            "--device vulkan: no Vulkan device was found (is the GPU's driver installed?); --device cpu works everywhere",
        )),
    }
}

#[cfg(not(feature = "train-vulkan"))]
fn open_vulkan() -> Result<Device> {
    Err(Error::new(
        Kind::Usage,
        "--device vulkan: this ssds-train was built without it; build with --features train-vulkan, or use --device cpu",
    ))
}

#[cfg(feature = "train-cuda")]
fn open_cuda() -> Result<Device> {
    use burn::tensor::DeviceType;
    let found = std::panic::catch_unwind(|| Device::enumerate(DeviceType::Cuda).into_iter().next());
    match found {
        Ok(Some(device)) => Ok(device),
        _ => Err(Error::unavailable(
            "--device cuda: no CUDA device was found (is the NVIDIA driver installed?); --device cpu works everywhere",
        )),
    }
}

#[cfg(not(feature = "train-cuda"))]
fn open_cuda() -> Result<Device> {
    Err(Error::new(
        Kind::Usage,
        "--device cuda: this ssds-train was built without it; build with --features train-cuda, or use --device cpu",
    ))
}

impl Engine {
    /// The engine for `kind`.
    ///
    /// # Errors
    /// A device this build or this machine does not have.
    pub fn new(layout: &Layout, kind: DeviceKind) -> Result<Self> {
        let cpu = (kind == DeviceKind::Cpu).then(|| [None, None]);
        Ok(Self { layout: layout.clone(), device: open(kind)?.autodiff(), cpu, irrelevance: None })
    }

    fn cpu_net<'a>(cpu: &'a mut Option<CpuNet>, layout: &Layout, n: usize, crop: usize) -> &'a mut CpuNet {
        match cpu {
            Some(net) if net.size() == (n, crop, crop) => {}
            _ => *cpu = Some(CpuNet::new(layout, n, crop, crop)),
        }
        cpu.get_or_insert_with(|| CpuNet::new(layout, n, crop, crop))
    }

    /// Loss and gradient of one batch; moves the running statistics.
    ///
    /// # Errors
    /// A crop that L_irr cannot take; the device's failure.
    pub fn step(
        &mut self,
        config: &TrainConfig,
        params: &[f32],
        stats: &mut [f32],
        batch: &Batch,
        irrelevance_weight: f32,
    ) -> Result<(Parts, Vec<f32>)> {
        let (n, c) = (batch.n, batch.crop);
        if irrelevance_weight > 0.0 && self.irrelevance.as_ref().is_none_or(|(size, _)| *size != c) {
            self.irrelevance = Some((c, Irrelevance::new(c, config.loss.irrelevance_temperature, &self.device)?));
        }
        let irrelevance = self.irrelevance.as_ref().filter(|_| irrelevance_weight > 0.0).map(|(_, i)| (i, irrelevance_weight));
        let label = tensor4(&batch.label, [n, 1, c, c], &self.device);
        let weight = tensor4(&batch.weight, [n, 1, c, c], &self.device);
        if let Some([training, _]) = &mut self.cpu {
            let net = Self::cpu_net(training, &self.layout, n, c);
            let out = net.forward_train(params, stats, STATISTICS_SHARE, &batch.pair);
            let logit = tensor4(&out.logit, [n, 1, c, c], &self.device).require_grad();
            let pair = out.pair.as_ref().map(|p| tensor4(p, [n, 2, c, c], &self.device).require_grad());
            let (total, parts) = loss(&config.loss, irrelevance, pair.clone(), logit.clone(), label, weight);
            let grads = total.backward();
            let parts = read_parts(parts)?;
            let dlogit = match logit.grad(&grads) {
                Some(g) => read(g)?,
                None => return Err(Error::internal("the loss does not depend on the network's output")),
            };
            let dpair = pair.and_then(|p| p.grad(&grads)).map(read).transpose()?;
            return Ok((parts, net.backward(params, &dlogit, dpair.as_deref())));
        }
        let p = BurnParams::new(&self.layout, params, &self.device);
        let x = tensor4(&batch.pair, [n, 2, c, c], &self.device);
        let (pair, logit, seen) = forward(&p, &self.layout, x, None);
        let (total, parts) = loss(&config.loss, irrelevance, pair, logit, label, weight);
        let grads = p.gradients(&total, self.layout.param_count)?;
        for (at, mean, variance) in seen {
            for (from, values) in [(at.mean, read(mean)?), (at.variance, read(variance)?)] {
                for (s, v) in stats[from..].iter_mut().zip(values) {
                    *s += STATISTICS_SHARE * (v - *s);
                }
            }
        }
        Ok((read_parts(parts)?, grads))
    }

    /// Logits of standardised pairs [n, 2, crop, crop] by the running statistics.
    ///
    /// # Errors
    /// The device's failure.
    pub fn logits(&mut self, params: &[f32], stats: &[f32], pairs: &[f32], crop: usize) -> Result<Vec<f32>> {
        let one = 2 * crop * crop;
        let mut out = Vec::with_capacity(pairs.len() / 2);
        for chunk in pairs.chunks(INFERENCE_BATCH * one) {
            let n = chunk.len() / one;
            if let Some([_, inference]) = &mut self.cpu {
                out.extend(Self::cpu_net(inference, &self.layout, n, crop).forward(params, stats, chunk).logit);
            } else {
                let p = BurnParams::new(&self.layout, params, &self.device);
                let x = tensor4(chunk, [n, 2, crop, crop], &self.device);
                out.extend(read(forward(&p, &self.layout, x, Some(stats)).1)?);
            }
        }
        Ok(out)
    }

    /// Replaces running statistics by the plain average over `batches`, for the moving average of the weights: its own activations differ
    /// from those the running statistics were gathered on.
    ///
    /// # Errors
    /// The device's failure.
    pub fn recalibrate(&mut self, params: &[f32], batches: &[Batch]) -> Result<Vec<f32>> {
        let mut total = vec![0f64; self.layout.stat_count];
        for batch in batches {
            // share 1: the statistics of this batch alone
            let mut stats = vec![0f32; self.layout.stat_count];
            if let Some([training, _]) = &mut self.cpu {
                Self::cpu_net(training, &self.layout, batch.n, batch.crop).forward_train(params, &mut stats, 1.0, &batch.pair);
            } else {
                let p = BurnParams::new(&self.layout, params, &self.device);
                let x = tensor4(&batch.pair, [batch.n, 2, batch.crop, batch.crop], &self.device);
                for (at, mean, variance) in forward(&p, &self.layout, x, None).2 {
                    for (from, values) in [(at.mean, read(mean)?), (at.variance, read(variance)?)] {
                        stats[from..from + values.len()].copy_from_slice(&values);
                    }
                }
            }
            for (t, s) in total.iter_mut().zip(&stats) {
                *t += f64::from(*s);
            }
        }
        Ok(total.iter().map(|t| (t / batches.len().max(1) as f64) as f32).collect())
    }
}
