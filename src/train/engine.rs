//! One step's loss and gradient, on the processor's own engine or on a burn device.

use burn::tensor::{Device, Tensor};

use crate::error::{Error, Result};
use crate::train::batch::{self, Batch};
use crate::train::config::{DeviceKind, TrainConfig};
use crate::train::cpu::CpuNet;
use crate::train::device;
use crate::train::loss::{Parts, definition, read, read_parts, tensor4};
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

impl Engine {
    /// The engine for `kind`. A GPU's is used only if it takes the step that the processor's takes: a driver that does not run a kernel
    /// answers zeros as readily as an error.
    ///
    /// # Errors
    /// A device this build or this machine does not have, or one that computes something else than the processor.
    pub fn new(layout: &Layout, kind: DeviceKind) -> Result<Self> {
        let mut engine = Self::unchecked(layout, kind)?;
        if matches!(kind, DeviceKind::Vulkan | DeviceKind::Cuda) {
            let wanted = Self::unchecked(layout, DeviceKind::Cpu)?.trial()?;
            device::compare(kind, &engine.trial()?, &wanted)?;
        }
        Ok(engine)
    }

    fn unchecked(layout: &Layout, kind: DeviceKind) -> Result<Self> {
        let cpu = (kind == DeviceKind::Cpu).then_some([None, None]);
        Ok(Self { layout: layout.clone(), device: device::open(kind)?.autodiff(), cpu, irrelevance: None })
    }

    /// A step and an inference on two small simulated pairs with random weights.
    fn trial(&mut self) -> Result<device::Trial> {
        const CROP: usize = 32;
        let config = TrainConfig::default();
        let params = self.layout.initial(1, -1.0);
        let mut stats = self.layout.initial_stats();
        let pairs = batch::validation(&config, CROP, 2);
        let (parts, gradient) = self.step(&config, &params, &mut stats, &pairs, 1.0)?;
        let logits = self.logits(&params, &stats, &pairs.pair, CROP)?;
        Ok(device::Trial { losses: [parts.mse, parts.bce, parts.dice, parts.irrelevance], gradient, logits })
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
        let irrelevance = self.irrelevance.as_ref().filter(|_| irrelevance_weight > 0.0).map(|(_, i)| i);
        let device = &self.device;
        let label = tensor4(&batch.label, [n, 1, c, c], device);
        let weight = tensor4(&batch.weight, [n, 1, c, c], device);
        if let Some([training, _]) = &mut self.cpu {
            let net = Self::cpu_net(training, &self.layout, n, c);
            let out = net.forward_train(params, stats, STATISTICS_SHARE, &batch.pair);
            let mut grads = vec![0f32; params.len()];
            // L_irr needs O_t and O_s only: it runs beside L_def and the mask stage's backward pass
            let irr = || -> Result<Option<(f32, Vec<f32>)>> {
                let (Some(irr), Some(pair)) = (irrelevance, &out.pair) else { return Ok(None) };
                let pair = tensor4(pair, [n, 2, c, c], device).require_grad();
                let l = irr.loss(pair.clone(), config.loss.irrelevance_form);
                let g = (l.clone() * irrelevance_weight).backward();
                let Some(g) = pair.grad(&g) else { return Ok(None) };
                Ok(Some((read(l)?[0], read(g)?)))
            };
            let rest = || -> Result<(Tensor<1>, Vec<f32>)> {
                let logit = tensor4(&out.logit, [n, 1, c, c], device).require_grad();
                let (total, parts) = definition(&config.loss, logit.clone(), label, weight);
                let g = total.backward();
                let Some(g) = logit.grad(&g) else {
                    return Err(Error::internal("the loss does not depend on the network's output"));
                };
                Ok((parts, net.backward_mask(params, &read(g)?, &mut grads)))
            };
            let (irr, rest) = rayon::join(irr, rest);
            let (irr, (parts, through)) = (irr?, rest?);
            net.backward_differ(params, through, irr.as_ref().map(|(_, g)| g.as_slice()), &mut grads);
            return Ok((read_parts(parts, irr.map_or(0.0, |(l, _)| l), irrelevance_weight)?, grads));
        }
        let p = BurnParams::new(&self.layout, params, device);
        let x = tensor4(&batch.pair, [n, 2, c, c], device);
        let (pair, logit, seen) = forward(&p, &self.layout, x, None);
        let (mut total, parts) = definition(&config.loss, logit, label, weight);
        let mut irr = 0.0;
        if let (Some(irrelevance), Some(pair)) = (irrelevance, pair) {
            let l = irrelevance.loss(pair, config.loss.irrelevance_form);
            irr = read(l.clone())?[0];
            total = total + l * irrelevance_weight;
        }
        let grads = p.gradients(&total, self.layout.param_count)?;
        for (at, mean, variance) in seen {
            for (from, values) in [(at.mean, read(mean)?), (at.variance, read(variance)?)] {
                for (s, v) in stats[from..].iter_mut().zip(values) {
                    *s += STATISTICS_SHARE * (v - *s);
                }
            }
        }
        Ok((read_parts(parts, irr, irrelevance_weight)?, grads))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::phase::Form;
    use crate::train::spec::Preset;

    /// Compares a step, logits and recalibrated statistics of the processor's own engine with those of `other`.
    fn takes_the_same_step(other: DeviceKind) {
        for (single_stage, form) in [(false, Form::Paper), (false, Form::PublishedCode), (true, Form::Paper)] {
            let mut config = TrainConfig { preset: Preset::Micro, single_stage, ..TrainConfig::smoke() };
            config.loss.irrelevance_form = form;
            let layout = config.spec().layout().unwrap();
            let params = layout.initial(3, -1.0);
            let data = batch::validation(&config, 32, 3);
            let weight = if single_stage { 0.0 } else { 0.5 };
            let run = |kind: DeviceKind| {
                let mut stats = layout.initial_stats();
                let mut engine = Engine::new(&layout, kind).unwrap();
                let (parts, grads) = engine.step(&config, &params, &mut stats, &data, weight).unwrap();
                let logits = engine.logits(&params, &stats, &data.pair, 32).unwrap();
                let stats2 = engine.recalibrate(&params, std::slice::from_ref(&data)).unwrap();
                (parts, grads, stats, logits, stats2)
            };
            let (a, b) = (run(DeviceKind::Cpu), run(other));
            let near = |what: &str, x: &[f32], y: &[f32], tolerance: f64| {
                let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
                let d = (square(&mut x.iter().zip(y).map(|(x, y)| x - y)) / square(&mut y.iter().copied())).sqrt();
                println!("{other:?}, single stage {single_stage}, {form:?}: {what} differ by {d:.1e}");
                assert!(d < tolerance, "{what} differ by {d:.1e}: {:?} and {:?}", &x[..x.len().min(5)], &y[..y.len().min(5)]);
            };
            let list = |p: Parts| [p.total, p.mse, p.bce, p.dice, p.irrelevance];
            near("losses", &list(a.0), &list(b.0), 1e-4);
            assert_eq!(a.0.irrelevance > 0.0, !single_stage);
            // see the engine's own test for what limits gradients
            near("gradients", &a.1, &b.1, 1e-2);
            near("running statistics", &a.2, &b.2, 1e-4);
            near("logits", &a.3, &b.3, 1e-3);
            near("recalibrated statistics", &a.4, &b.4, 1e-4);
        }
    }

    #[test]
    fn both_engines_take_the_same_step() {
        takes_the_same_step(DeviceKind::Flex);
    }

    /// `make test-vulkan` runs it, on a GPU or on a software Vulkan device.
    #[cfg(feature = "train-vulkan")]
    #[test]
    fn a_vulkan_device_takes_the_same_step() {
        if let Err(error) = device::open(DeviceKind::Vulkan) {
            assert!(std::env::var_os("SSDS_VULKAN_REQUIRED").is_none(), "{error}");
            println!("skipped: {error}");
            return;
        }
        takes_the_same_step(DeviceKind::Vulkan);
    }
}
