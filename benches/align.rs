//! Registration's parts and the whole of it on simulated products: `cargo bench --bench align`.
//!
//! Frames are the template moved by a known pose under a light gradient. Criterion reports wall-clock time; the figures of
//! `docs/bench/align.md` are processor time, from `make bench-align`.

#![allow(missing_docs)] // criterion_group! makes a public function without any

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ssds::align::log_polar::{self, ANGLES, LogPolar, RADII};
use ssds::align::points::LevelPoints;
use ssds::align::refine::{self, Effort, refine};
use ssds::align::spectrum::{self, Fft2, good_length};
use ssds::align::{Aligner, Isa, Settings, TemplateModel, warp};
use ssds::frame::Gray;
use ssds::geometry::Affine;
use ssds::simulate::product;

/// A product's template, a frame of it, and the frame's pose.
fn pair(side: usize) -> (Gray, Gray, Affine) {
    let template = product(7, (side, side)).expect("a picture of that size");
    let s = side as f64;
    let pose = Affine::about_centres(0.6, 1.05, 0.05 * s, -0.03 * s, (side, side), (side, side));
    let (mut frame, mut valid) = (Gray::default(), Gray::default());
    warp::warp_template(&template, &pose, (side, side), &mut frame, &mut valid);
    let lit = Gray::from_fn(side, side, |x, y| {
        let v = if valid.get(x, y) == 0 { 60.0 } else { f32::from(frame.get(x, y)) };
        (v * (0.75 + 0.2 * x as f32 / side as f32) + 14.0) as u8
    });
    (template, lit, pose)
}

fn isas() -> Vec<Isa> {
    let mut all = vec![Isa::scalar(), Isa::detect()];
    all.dedup();
    all
}

fn fft(c: &mut Criterion) {
    let mut group = c.benchmark_group("fft");
    for side in [128, 160, 192] {
        let plan = Fft2::new(good_length(side), good_length(side));
        let source: Vec<f32> = (0..plan.picture_len()).map(|i| ((i * 2_654_435_761) >> 7 & 255) as f32).collect();
        let (mut picture, mut spectrum) = (source.clone(), vec![Default::default(); plan.spectrum_len()]);
        let mut scratch = spectrum::Scratch::default();
        group.bench_function(BenchmarkId::new("forward", side), |b| {
            b.iter(|| {
                // The transform destroys its input.
                picture.copy_from_slice(black_box(&source));
                plan.forward(&mut picture, &mut spectrum, &mut scratch);
            });
        });
    }
    group.finish();
}

fn log_polar(c: &mut Criterion) {
    let plan = Fft2::new(160, 160);
    let mut picture: Vec<f32> = (0..plan.picture_len()).map(|i| ((i * 2_654_435_761) >> 7 & 255) as f32).collect();
    let mut spectrum = vec![Default::default(); plan.spectrum_len()];
    plan.forward(&mut picture, &mut spectrum, &mut spectrum::Scratch::default());
    let table = LogPolar::new(&plan);
    let mut out = vec![0.0; ANGLES * RADII];
    let mut scratch = log_polar::Scratch::default();
    for isa in isas() {
        c.bench_function(&format!("log_polar/160/{}", isa.name()), |b| {
            b.iter(|| table.sample(isa, black_box(&spectrum), &mut out, &mut scratch));
        });
    }
}

fn refinement(c: &mut Criterion) {
    let (template, frame, pose) = pair(256);
    let points = LevelPoints::choose(&template, &vec![true; 256 * 256], Settings::default().max_points, 100.0);
    let start = Affine::about_centres(0.602, 1.051, 13.1, -7.4, (256, 256), (256, 256));
    let effort = Effort { rounds: 5, fresh_rounds: 2, stop_px: 0.0 };
    let mut scratch = refine::Scratch::default();
    for isa in isas() {
        let found = refine::<4>(isa, &points, &frame, &start, None, effort, &mut scratch).expect("the frame shows the template");
        assert!(found.pose.corner_error(&pose, 256, 256) < 0.5, "{found:?}");
        c.bench_function(&format!("refine/256, 5 rounds/{}", isa.name()), |b| {
            b.iter(|| refine::<4>(isa, &points, black_box(&frame), &start, None, effort, &mut scratch));
        });
    }
}

fn warping(c: &mut Criterion) {
    let (template, _, pose) = pair(640);
    let (mut out, mut valid) = (Gray::default(), Gray::default());
    for isa in isas() {
        c.bench_function(&format!("warp/640/{}", isa.name()), |b| {
            b.iter(|| warp::warp_template_with(isa, black_box(&template), &pose, (640, 640), &mut out, &mut valid));
        });
    }
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("align");
    for side in [256, 640, 1024, 2048] {
        let (template, frame, pose) = pair(side);
        let settings = Settings::default();
        let model = TemplateModel::new(&template, None, &settings).expect("a product is a template");
        for isa in isas() {
            let mut aligner = Aligner::with_isa(&settings, isa);
            let found = aligner.align(&model, &frame);
            assert!(found.accepted && found.frame_from_template.corner_error(&pose, side, side) < 0.5, "{found:?}");
            group.bench_function(BenchmarkId::new(isa.name(), side), |b| b.iter(|| aligner.align(&model, black_box(&frame))));
        }
    }
    group.finish();
}

criterion_group!(benches, fft, log_polar, refinement, warping, whole);
criterion_main!(benches);
