//! The engine against its plain definition and against the same network on burn.

use super::kernels::{Area, Conv, WeightGrad, conv, tap_offsets, weight_grad};
use super::*;
use crate::train::loss::{read, tensor4};
use crate::train::net::{BurnParams, forward};
use crate::train::spec::{NetSpec, Preset, UNetSpec};
use burn::tensor::Device;

/// Repeatable values in -1..1.
fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// A padded map with a zero border.
fn map(area: Area, channels: usize, seed: u64) -> Vec<f32> {
    let mut out = vec![0f32; area.padded() * channels];
    let fill = values(area.pixels() * channels, seed);
    for y in 0..area.height {
        let to = area.row(y) * channels;
        let n = area.width * channels;
        out[to..to + n].copy_from_slice(&fill[y * n..(y + 1) * n]);
    }
    out
}

#[test]
fn convolution_and_weight_gradient_follow_their_definition() {
    // widths that leave remainders of every tile; channel counts that take every branch
    for (width, x_channels, out_channels) in [(21, 16, 16), (9, 16, 32), (5, 32, 48), (16, 16, 64), (3, 16, 96)] {
        let area = Area { height: 4, width };
        let offsets = tap_offsets(9, area, 1);
        let x = map(area, x_channels, 1);
        let weight = values(9 * x_channels * out_channels, 2);
        let mut out = vec![0f32; area.padded() * out_channels];
        conv(&Conv { area, x: &x, x_channels, used: x_channels, weight: &weight, offsets: &offsets, out_channels }, &mut out);
        let dz = map(area, out_channels, 3);
        let mut grad = vec![0f32; weight.len()];
        weight_grad(&WeightGrad { area, x: &x, x_channels, dz: &dz, out_channels, offsets: &offsets }, &mut grad);
        let mut wanted_grad = vec![0f64; weight.len()];
        for y in 0..area.height {
            for col in 0..area.width {
                let p = area.row(y) + col;
                for o in 0..out_channels {
                    let mut sum = 0f64;
                    for (t, offset) in offsets.iter().enumerate() {
                        let q = (p as isize + offset) as usize;
                        for i in 0..x_channels {
                            let w = (t * x_channels + i) * out_channels + o;
                            sum += f64::from(x[q * x_channels + i]) * f64::from(weight[w]);
                            wanted_grad[w] += f64::from(x[q * x_channels + i]) * f64::from(dz[p * out_channels + o]);
                        }
                    }
                    let got = f64::from(out[p * out_channels + o]);
                    assert!((got - sum).abs() < 1e-4, "width {width}, {out_channels} channels: {got} for {sum}");
                }
            }
        }
        for (got, wanted) in grad.iter().zip(&wanted_grad) {
            assert!((f64::from(*got) - wanted).abs() < 1e-4, "width {width}: {got} for {wanted}");
        }
    }
}

#[test]
fn unused_channels_of_the_input_are_not_read() {
    let area = Area { height: 3, width: 4 };
    let offsets = tap_offsets(9, area, 1);
    let (mut x, weight) = (map(area, 16, 1), values(9 * 256, 2));
    let run = |x: &[f32]| {
        let mut out = vec![0f32; area.padded() * 16];
        conv(&Conv { area, x, x_channels: 16, used: 8, weight: &weight, offsets: &offsets, out_channels: 16 }, &mut out);
        out
    };
    let before = run(&x);
    x.chunks_exact_mut(16).for_each(|p| p[8..].fill(f32::NAN));
    assert_eq!(before, run(&x));
}

/// Relative difference of two vectors in the Euclidean norm.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(1e-12)
}

fn specs() -> Vec<(&'static str, NetSpec)> {
    let two = |differ: &[usize], mask: &[usize], stems: (usize, usize)| NetSpec {
        differ: UNetSpec { inputs: 2, outputs: 2, channels: differ.to_vec(), stem: stems.0 },
        mask: Some(UNetSpec { inputs: 2, outputs: 1, channels: mask.to_vec(), stem: stems.1 }),
    };
    vec![
        ("tiny", Preset::Tiny.spec()),
        ("full resolution, three levels", two(&[8, 16, 24], &[8, 8], (1, 1))),
        ("different stems", two(&[16, 24], &[8, 16], (2, 1))),
        ("single stage", Preset::Micro.spec().single_stage()),
    ]
}

/// Both engines sum in single precision in another order; where that turns a ReLU or the winner of a pooling the other way, one pixel's
/// gradient differs altogether, which is a few thousandths of the whole at these sizes. Without such a pixel they agree to 5e-6.
const TOLERANCE: f64 = 1e-2;

#[test]
fn values_statistics_and_gradients_equal_burn() {
    let device = Device::flex().autodiff();
    for (name, spec) in specs() {
        let layout = spec.layout().unwrap();
        let (n, side) = (3, layout.multiple * 4);
        let params = layout.initial(5, -1.0);
        let x = values(n * 2 * side * side, 7);
        let (klogit, kpair) = (values(n * side * side, 8), values(n * 2 * side * side, 9));

        let mut stats = layout.initial_stats();
        let mut net = CpuNet::new(&layout, n, side, side);
        // twice: nothing of one step may leak into the next
        net.forward_train(&params, &mut stats.clone(), 1.0, &values(n * 2 * side * side, 70));
        let _ = net.backward(&params, &kpair[..n * side * side], None);
        let out = net.forward_train(&params, &mut stats, 1.0, &x);
        let grads = net.backward(&params, &klogit, out.pair.as_ref().map(|_| kpair.as_slice()));

        let p = BurnParams::new(&layout, &params, &device);
        let (pair, logit, seen) = forward(&p, &layout, tensor4(&x, [n, 2, side, side], &device), None);
        let mut loss = (logit.clone() * tensor4(&klogit, [n, 1, side, side], &device)).sum();
        if let Some(pair) = &pair {
            loss = loss + (pair.clone() * tensor4(&kpair, [n, 2, side, side], &device)).sum();
        }
        assert!(distance(&out.logit, &read(logit).unwrap()) < 1e-4, "{name}");
        if let (Some(ours), Some(theirs)) = (&out.pair, pair) {
            assert!(distance(ours, &read(theirs).unwrap()) < 1e-4, "{name}");
        }
        for (at, mean, variance) in seen {
            assert!(distance(&stats[at.mean..at.mean + at.outputs], &read(mean).unwrap()) < 1e-4, "{name}");
            assert!(distance(&stats[at.variance..at.variance + at.outputs], &read(variance).unwrap()) < 1e-4, "{name}");
        }
        let theirs = p.gradients(&loss, layout.param_count).unwrap();
        for param in &layout.params {
            let d = distance(&grads[param.range()], &theirs[param.range()]);
            assert!(d < TOLERANCE, "{name}: gradient of {} differs by {d:.1e}", param.name);
        }

        // inference with the statistics just gathered
        let logit = net.forward(&params, &stats, &x).logit;
        let (_, theirs, _) = forward(&p, &layout, tensor4(&x, [n, 2, side, side], &device), Some(&stats));
        assert!(distance(&logit, &read(theirs).unwrap()) < 1e-4, "{name}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let layout = Preset::Micro.spec().layout().unwrap();
    let (n, side) = (9, 32);
    let params = layout.initial(5, -1.0);
    let (x, k) = (values(n * 2 * side * side, 7), values(n * side * side, 8));
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let mut net = CpuNet::new(&layout, n, side, side);
            let mut stats = layout.initial_stats();
            let out = net.forward_train(&params, &mut stats, 0.1, &x);
            (out.logit, stats, net.backward(&params, &k, None))
        })
    };
    assert!(run(1) == run(3));
}
