//! The comparators against an independent computation (`tests/data/classical/make.py`) and against what they must say.

use super::*;
use crate::error::Kind;

const WIDTH: usize = 40;
const HEIGHT: usize = 28;
const PAIRS: usize = 20;
/// Single precision and the 16-bit steps of the stored maps; the moments of the window cancel in a flat neighbourhood, hence the
/// structural similarity's own.
const TOLERANCE: f32 = 2e-5;
const TOLERANCE_SSIM: f32 = 2e-4;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/classical").join(name)).unwrap()
}

struct Pair {
    template: Gray,
    frame: Gray,
    valid: Gray,
    tolerance: Tolerance,
}

fn pairs() -> Vec<(Pair, [Map; 4])> {
    const N: usize = WIDTH * HEIGHT;
    let (pairs, maps) = (file("pairs.bin"), file("maps.bin"));
    assert_eq!((pairs.len(), maps.len()), (PAIRS * 7 * N, PAIRS * 8 * N));
    let words = |bytes: &[u8], full: f32| -> Map {
        let values = bytes.chunks_exact(2).map(|b| f32::from(u16::from_le_bytes([b[0], b[1]])) / full).collect();
        Map::from_vec(WIDTH, HEIGHT, values).unwrap()
    };
    (0..PAIRS)
        .map(|i| {
            let p = &pairs[i * 7 * N..(i + 1) * 7 * N];
            let gray = |k: usize| Gray::from_vec(WIDTH, HEIGHT, p[k * N..(k + 1) * N].to_vec()).unwrap();
            let tolerance = Tolerance { mean: words(&p[3 * N..5 * N], 256.0), deviation: words(&p[5 * N..], 256.0), parts: 9 };
            let m = &maps[i * 8 * N..(i + 1) * 8 * N];
            let expected = std::array::from_fn(|k| words(&m[k * 2 * N..(k + 1) * 2 * N], 65535.0));
            (Pair { template: gray(0), frame: gray(1), valid: gray(2), tolerance }, expected)
        })
        .collect()
}

fn worst(a: &Map, b: &Map) -> f32 {
    a.data().iter().zip(b.data()).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn every_comparator_equals_the_independent_computation() {
    let settings = Settings::default();
    let mut comparators = Method::ALL.map(|m| Comparator::new(m, &settings).unwrap());
    let mut out = Map::default();
    for (i, (p, expected)) in pairs().iter().enumerate() {
        for (comparator, expected) in comparators.iter_mut().zip(expected) {
            comparator.detect(&p.template, &p.valid, &p.frame, &mut out).unwrap();
            let tolerance = if comparator.method() == Method::Ssim { TOLERANCE_SSIM } else { TOLERANCE };
            let off = worst(&out, expected);
            assert!(off <= tolerance, "pair {i}, {}: off by {off}", comparator.method().name());
        }
        comparators[2].detect_learnt(&p.tolerance, &Affine::IDENTITY, &p.template, &p.valid, &p.frame, &mut out).unwrap();
        let off = worst(&out, &expected[3]);
        assert!(off <= TOLERANCE, "pair {i}, variation learnt: off by {off}");
    }
}

fn blob_pair() -> (Gray, Gray, Gray) {
    let template = Gray::from_fn(60, 50, |x, y| if (x / 10 + y / 10) % 2 == 0 { 40 } else { 200 });
    let mut frame = template.clone();
    for y in 22..27 {
        frame.row_mut(y)[23..28].fill(120);
    }
    (template, frame, Gray::from_fn(60, 50, |_, _| 255))
}

#[test]
fn every_comparator_finds_a_blob_and_nothing_else() {
    let (template, frame, valid) = blob_pair();
    for method in Method::ALL {
        let mut out = Map::default();
        Comparator::new(method, &Settings::default()).unwrap().detect(&template, &valid, &frame, &mut out).unwrap();
        let inside = (22..27).flat_map(|y| (23..28).map(move |x| (x, y))).map(|(x, y)| out.get(x, y)).fold(0.0, f32::max);
        assert!(inside > 0.4, "{}: {inside}", method.name());
        let far = (0..50)
            .flat_map(|y| (0..60).map(move |x| (x, y)))
            .filter(|&(x, y)| !(15..36).contains(&x) || !(14..35).contains(&y))
            .map(|(x, y)| out.get(x, y))
            .fold(0.0, f32::max);
        assert!(far < 0.1, "{}: {far}", method.name());
    }
}

#[test]
fn a_shift_within_the_tolerance_is_no_difference() {
    let picture =
        |shift: usize| Gray::from_fn(64, 48, |x, y| if ((x + shift) / 9 + (y + shift) / 7) % 2 == 0 { 30 } else { 220 });
    let valid = Gray::from_fn(64, 48, |_, _| 255);
    let mut out = Map::default();
    let settings = Settings { match_light: false, ..Settings::default() };
    let mut comparator = Comparator::new(Method::AbsDiff, &settings).unwrap();
    comparator.detect(&picture(0), &valid, &picture(2), &mut out).unwrap();
    let inner = |out: &Map| (3..45).flat_map(|y| (3..61).map(move |x| (x, y))).map(|(x, y)| out.get(x, y)).fold(0.0, f32::max);
    assert_eq!(inner(&out), 0.0);
    comparator.detect(&picture(0), &valid, &picture(3), &mut out).unwrap();
    assert!(inner(&out) > 0.5, "three pixels are too many");
}

#[test]
fn what_was_learnt_moves_with_the_pose() {
    let (w, h) = (60, 50);
    let mean = Map::from_fn(w, h, |x, y| (x * 3 + y) as f32);
    let tolerance = Tolerance { mean, deviation: Map::new(w, h), parts: 5 };
    let pose = Affine::similarity(0.0, 1.0, 4.0, -3.0);
    let valid = Gray::from_fn(w, h, |x, y| if x >= 4 && y + 3 < h { 255 } else { 0 });
    let frame = Gray::from_fn(w, h, |x, y| ((x as i64 - 4).max(0) * 3 + (y as i64 + 3)) as u8);
    let settings = Settings { match_light: false, ..Settings::default() };
    let mut out = Map::default();
    Comparator::new(Method::Variation, &settings)
        .unwrap()
        .detect_learnt(&tolerance, &pose, &frame, &valid, &frame, &mut out)
        .unwrap();
    assert!(out.data().iter().all(|&s| s < 1e-4));
}

#[test]
fn bad_input_is_named() {
    let bad = Settings { absdiff_tolerance_px: 11, absdiff_gray: 0.0, variation_factor: f32::NAN, ..Settings::default() };
    let error = Comparator::new(Method::Ssim, &bad).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert_eq!(
        error.to_string(),
        "comparator settings: absdiff_tolerance_px must be at most 10, got 11; absdiff_gray must be above 0 and at most 255, got 0; \
         variation_factor must be above 0 and at most 255, got NaN"
    );
    let mut comparator = Comparator::new(Method::Ssim, &Settings::default()).unwrap();
    let error = comparator.detect(&Gray::new(3, 4), &Gray::new(3, 4), &Gray::new(4, 3), &mut Map::default()).unwrap_err();
    assert!(error.to_string().ends_with("beside a frame of 4x3 px: one size above 0 wanted"), "{error}");
    assert_eq!(Method::from_name("ssim"), Some(Method::Ssim));
    assert_eq!(Method::from_name("sim"), None);
}
