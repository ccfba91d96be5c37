//! Tests against the ONNX Runtime CPU library with models of `tests/it/onnx_fixture.rs`.
//!
//! The library comes from `ORT_DYLIB_PATH` or `runtime/` of the checkout (`scripts/fetch-onnxruntime.sh`); without one they say that they
//! were skipped.

use std::path::{Path, PathBuf};

use super::fixture::{self, Model, fixed, symbolic};
use super::*;
use crate::error::Kind;
use crate::frame::{Gray, Map};
use crate::golden::{self, Golden};

/// Tiled against untiled: the same sums in another order.
const TILING_TOLERANCE: f32 = 1e-5;

pub(crate) fn runtime() -> Option<PathBuf> {
    let variable = std::env::var_os(library::VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/libonnxruntime.so");
    let found = variable.or_else(|| checkout.exists().then_some(checkout));
    if found.is_none() {
        println!("skipped: no ONNX Runtime library (scripts/fetch-onnxruntime.sh brings one)");
    }
    found
}

struct Bench {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Bench {
    fn new(model: &Model) -> Option<Self> {
        Self::of_bytes(&model.build())
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let library = runtime()?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, bytes).unwrap();
        let settings = Settings {
            model: path,
            library: Some(library),
            providers: vec![Provider::Cpu],
            threads: 1,
            engines: folder.path().join("engines"),
            ..Settings::default()
        };
        Some(Self { folder, settings })
    }

    fn error(&self) -> String {
        Detector::open(&self.settings).unwrap_err().to_string().replace(&self.folder.path().display().to_string(), "DIR")
    }
}

fn pyramid() -> Model {
    fixture::pyramid(&symbolic(2), &symbolic(1))
}

/// A pair with defects and a template that does not cover the left fifth and the lower right corner.
fn scene(width: usize, height: usize) -> (Gray, Gray, Gray) {
    let (template, frame) = golden::pair(3, width, height);
    let valid = Gray::from_fn(width, height, |x, y| if x * 5 < width || x + y + 20 > width + height { 0 } else { 255 });
    (template, valid, frame)
}

fn detect(settings: &Settings, scene: &(Gray, Gray, Gray)) -> Map {
    let mut map = Map::default();
    Detector::open(settings).unwrap().detect(&scene.0, &scene.1, &scene.2, &mut map).unwrap();
    map
}

fn largest_difference(a: &Map, b: &Map) -> f32 {
    assert_eq!(a.size(), b.size());
    a.data().iter().zip(b.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn the_map_is_what_the_network_says() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    let scene = scene(160, 96);
    let map = detect(&bench.settings, &scene);
    assert_eq!(map.size(), (160, 96));
    let (template, valid, frame) = &scene;
    let mut counts = [0, 0];
    for ((&score, &v), (&t, &f)) in map.data().iter().zip(valid.data()).zip(template.data().iter().zip(frame.data())) {
        if v == 0 {
            assert_eq!(score, 0.0);
        } else {
            // Texture differs by at most 7 of 255, a defect by at least 123.
            let defect = t.abs_diff(f) > 100;
            counts[usize::from(defect)] += 1;
            assert!(if defect { score > 0.4 } else { score < 0.4 }, "{score} {t} {f}");
        }
    }
    assert!(counts[0] > 1000 && counts[1] > 500, "{counts:?}");
    let mut detector = Detector::open(&bench.settings).unwrap();
    let info = detector.info().clone();
    assert_eq!((info.name.as_str(), info.version.as_str(), info.provider, info.precision), ("fixture", "0.0.1", "cpu", "fp32"));
    assert_eq!((info.threshold, info.parity, info.sha256.len()), (0.5, Parity::Unverified, 64));
    assert!(info.runtime_version.starts_with("1."), "{}", info.runtime_version);
    // A frame of another size on the same detector, and back.
    let mut out = Map::default();
    let small = self::scene(50, 33);
    detector.detect(&small.0, &small.1, &small.2, &mut out).unwrap();
    assert_eq!(out.size(), (50, 33));
    detector.detect(template, valid, frame, &mut out).unwrap();
    assert_eq!(out, map);
}

#[test]
fn tiled_equals_untiled_and_batched_equals_single() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    for (width, height) in [(640, 480), (333, 517), (257, 64)] {
        let scene = scene(width, height);
        let whole = detect(&bench.settings, &scene);
        for (tile_px, overlap_px, batch) in [(256, 96, 1), (256, 96, 4), (256, 96, 3), (240, 100, 2)] {
            let tiled = detect(&Settings { tile_px, overlap_px, batch, ..bench.settings.clone() }, &scene);
            let difference = largest_difference(&whole, &tiled);
            assert!(difference < TILING_TOLERANCE, "{width}x{height} by {tile_px}/{overlap_px}/{batch}: {difference}");
        }
    }
}

#[test]
fn models_of_a_fixed_size_and_batch_give_the_same_map() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    // As high as the network, so that both runs pad the frame's lower border alike.
    let scene = scene(300, 224);
    let whole = detect(&bench.settings, &scene);
    for n in [1, 3] {
        let model = fixture::pyramid(&fixed(n, 2, 224, 256), &fixed(n, 1, 224, 256));
        let fixed = Bench::new(&model).unwrap();
        let tiled = detect(&Settings { overlap_px: 96, ..fixed.settings.clone() }, &scene);
        assert!(largest_difference(&whole, &tiled) < TILING_TOLERANCE, "n = {n}");
    }
}

#[test]
fn zones_leave_out_tiles_and_pixels() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    let settings = Settings { tile_px: 256, overlap_px: 96, ..bench.settings.clone() };
    let (template, valid, frame) = scene(600, 200);
    let zones = Gray::from_fn(600, 200, |x, _| if (150..220).contains(&x) { 255 } else { 0 });
    let (mut all, mut some) = (Map::default(), Map::default());
    let mut detector = Detector::open(&settings).unwrap();
    detector.detect(&template, &valid, &frame, &mut all).unwrap();
    detector.detect_within(&template, &valid, &frame, Some(&zones), &mut some).unwrap();
    for (i, (&all, &some)) in all.data().iter().zip(some.data()).enumerate() {
        let inside = zones.data()[i] != 0;
        assert!((some - if inside { all } else { 0.0 }).abs() < TILING_TOLERANCE, "pixel {i}");
    }
    // No template anywhere: nothing is computed and everything is 0.
    detector.detect(&template, &Gray::new(600, 200), &frame, &mut some).unwrap();
    assert!(some.data().iter().all(|&v| v == 0.0));
}

#[test]
fn a_missing_provider_is_refused_when_required_and_visible_when_not() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    let settings = Settings { providers: vec![Provider::Cuda, Provider::Cpu], ..bench.settings.clone() };
    let detector = Detector::open(&settings).unwrap();
    assert_eq!(detector.info().provider, "cpu");
    let [(Provider::Cuda, reason)] = detector.info().fallbacks.as_slice() else { panic!("{:?}", detector.info().fallbacks) };
    assert!(reason.contains("CUDA execution provider is not enabled in this build"), "{reason}");

    let error = Detector::open(&Settings { required: true, ..settings.clone() }).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().starts_with("inference.required is true and the first provider cannot be used: model "), "{error}");
    assert!(error.to_string().contains("provider cuda: CUDA execution provider is not enabled in this build"), "{error}");

    let error = Detector::open(&Settings { providers: vec![Provider::TensorRt, Provider::Cuda], ..settings }).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("none of inference.providers can be used:\n  provider tensorrt: "), "{error}");
    assert!(error.to_string().contains("\n  provider cuda: "), "{error}");
}

#[test]
fn models_that_break_the_contract_are_refused_with_found_and_wanted() {
    let Some(bench) = Bench::new(&fixture::renamed("image", "p", 1, 3)) else { return };
    assert_eq!(
        bench.error(),
        "model DIR/model.onnx: does not follow contract ssds/1: input is named `image`, wanted `pair`; input `image` has shape [n, 3, h, w], \
         wanted `pair` float32 [n, 2, h, w]; output is named `p`, wanted `score`; output `p` has shape [n, 3, h, w], wanted `score` float32 \
         [n, 1, h, w]"
    );
    let cases = [
        (fixture::renamed("pair", "score", 10, 2), "input `pair` has ONNX element type 10, wanted 1 (float32)"),
        (pyramid().meta("ssds.contract", "ssds/2"), "metadata key ssds.contract is `ssds/2`, wanted `ssds/1`"),
        (pyramid().meta("ssds.contract", ""), "metadata key ssds.contract is missing, wanted `ssds/1`"),
        (pyramid().meta("ssds.scaling", "x/128-1"), "metadata key ssds.scaling is `x/128-1`, wanted `x/255`"),
        (pyramid().meta("ssds.threshold", "NaN"), "metadata key ssds.threshold is `NaN`, wanted a number in 0..1"),
        (pyramid().meta("ssds.multiple", "12"), "metadata key ssds.multiple is `12`, wanted 1, 2, 4, ... 256"),
        (pyramid().meta("ssds.seed", "x"), "metadata key ssds.seed is `x`, wanted a whole number"),
        (fixture::pyramid(&fixed(1, 2, 250, 256), &symbolic(1)), "`pair` is fixed to 256x250, wanted multiples of 16"),
        (fixture::pyramid(&fixed(1, 2, 64, 64), &fixed(2, 1, 64, 64)), "`pair` has n = 1 but `score` has n = 2, wanted the same"),
        (pyramid().input("extra", 1, &symbolic(2)), "has 2 inputs (`pair`, `extra`), wanted one: `pair` float32 [n, 2, h, w]"),
        (pyramid().meta("ssds.golden.seed", "1"), "metadata key ssds.golden.formula is missing beside other golden keys"),
    ];
    for (model, wanted) in cases {
        let error = Bench::new(&model).unwrap().error();
        assert!(error.starts_with("model DIR/model.onnx: does not follow contract ssds/1: "), "{error}");
        assert!(error.contains(wanted), "{error}\nwanted: {wanted}");
    }
}

#[test]
fn files_that_are_no_models_are_refused() {
    let Some(bench) = Bench::of_bytes(b"") else { return };
    assert_eq!(bench.error(), "model DIR/model.onnx: the file is empty, wanted an ONNX model");
    let text = Bench::of_bytes(b"# hello\n").unwrap().error();
    assert!(text.starts_with("model DIR/model.onnx: model"), "{text}");
    let settings = Settings { model: bench.folder.path().join("none.onnx"), ..bench.settings.clone() };
    let error = Detector::open(&settings).unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    assert!(error.to_string().ends_with("none.onnx: No such file or directory (os error 2)"), "{error}");
    let folder = Detector::open(&Settings { model: bench.folder.path().into(), ..bench.settings.clone() }).unwrap_err();
    assert!(folder.to_string().ends_with("is no file"), "{folder}");
}

#[test]
fn sums_are_compared_with_setting_and_manifest() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    let sum = Detector::open(&bench.settings).unwrap().info().sha256.clone();
    let zeros = "0".repeat(64);
    let of = |sum: &str| Settings { sha256: Some(sum.into()), ..bench.settings.clone() };
    Detector::open(&of(&sum.to_uppercase())).unwrap();
    let error = Detector::open(&of(&zeros)).unwrap_err().to_string();
    assert!(error.ends_with(&format!("sha256 is {sum}, inference.sha256 wants {zeros}")), "{error}");

    let manifest = bench.folder.path().join("model.onnx.sha256");
    for name in ["model.onnx.sha256", "SHA256SUMS"] {
        let manifest = bench.folder.path().join(name);
        std::fs::write(&manifest, format!("{zeros}  other.onnx\n{sum}  model.onnx\n")).unwrap();
        assert_eq!(model::ModelFile::read(&bench.settings).unwrap().manifest, Some(manifest.clone()));
        std::fs::write(&manifest, format!("{zeros} *model.onnx\n")).unwrap();
        let error = bench.error();
        assert_eq!(error, format!("model DIR/model.onnx: sha256 is {sum}, manifest DIR/{name} wants {zeros}"));
        std::fs::remove_file(&manifest).unwrap();
    }
    std::fs::write(&manifest, format!("{sum}  other.onnx\n")).unwrap();
    assert_eq!(bench.error(), "model DIR/model.onnx: manifest DIR/model.onnx.sha256 has no line for model.onnx");
}

#[test]
fn a_golden_vector_is_verified_at_load() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    let (template, frame) = golden::pair(5, 96, 64);
    let valid = Gray::from_fn(96, 64, |_, _| 255);
    let golden = Golden::of(5, &detect(&bench.settings, &(template, valid, frame)));
    let with = |golden: &Golden| golden.to_metadata().iter().fold(pyramid(), |model, (k, v)| model.meta(k, v));

    let good = Bench::new(&with(&golden)).unwrap();
    let detector = Detector::open(&Settings { require_parity: true, ..good.settings.clone() }).unwrap();
    let Parity::Golden { max_abs, tolerance } = detector.info().parity else { panic!("{:?}", detector.info().parity) };
    assert!(max_abs < 1e-6 && tolerance == 1e-3, "{max_abs}");

    let mut other = golden.clone();
    other.scores[7] = 1.0 - other.scores[7];
    let error = Bench::new(&with(&other)).unwrap().error();
    assert!(error.starts_with("model DIR/model.onnx on provider cpu (fp32): differs from the golden vector by 0."), "{error}");
    assert!(error.ends_with("allowed 0.001"), "{error}");

    let error = Detector::open(&Settings { require_parity: true, ..bench.settings.clone() }).unwrap_err().to_string();
    assert!(error.ends_with("has no golden vector (ssds.golden.*), which inference.require_parity asks for"), "{error}");
}

#[test]
fn values_that_are_not_finite_are_faults_and_the_session_is_built_anew() {
    let Some(bench) = Bench::new(&fixture::brightness_root()) else { return };
    let mut detector = Detector::open(&bench.settings).unwrap();
    let valid = Gray::from_fn(64, 48, |_, _| 255);
    let bright = Gray::from_fn(64, 48, |_, _| 200);
    let mut dark = bright.clone();
    dark.set(40, 30, 3);
    let mut map = Map::default();
    for round in 1..=4_u64 {
        let error = detector.detect(&bright, &valid, &dark, &mut map).unwrap_err();
        assert_eq!((Fault::of(&error), Fault::of(&error).code()), (Fault::NotFinite, "INFER_NAN"));
        assert_eq!(error.to_string(), "score NaN at (40, 30) of a tile is not finite (1 of 3072 values)");
        assert!(map.size() == (64, 48) && map.data().iter().all(|&v| v == 0.0));
        // The third failure in a row builds the session anew.
        assert_eq!(detector.reloads(), u64::from(round >= 3));
    }
    detector.detect(&bright, &valid, &bright, &mut map).unwrap();
    assert!(map.data().iter().all(|v| (v - (200.0_f32 / 255.0 - 0.1).sqrt()).abs() < 1e-5));
}

#[test]
fn an_answer_outside_the_contract_is_infer_fail_and_the_session_stays_on_its_provider() {
    // The warm-up's pictures reach 197 of 255 and pass; a frame of 250 does not.
    let Some(bench) = Bench::new(&fixture::amplified(1.2)) else { return };
    let settings = Settings { providers: vec![Provider::Cuda, Provider::Cpu], reload_after: 2, ..bench.settings.clone() };
    let mut detector = Detector::open(&settings).unwrap();
    let valid = Gray::from_fn(32, 32, |_, _| 255);
    let (bright, dim) = (Gray::from_fn(32, 32, |_, _| 250), Gray::from_fn(32, 32, |_, _| 100));
    let mut map = Map::default();
    for round in 1..=2_u64 {
        let error = detector.detect(&dim, &valid, &bright, &mut map).unwrap_err();
        assert_eq!((Fault::of(&error), Fault::of(&error).code()), (Fault::Failed, "INFER_FAIL"));
        assert!(error.to_string().contains("is outside 0..1 (1024 of 1024 values)"), "{error}");
        assert_eq!(detector.reloads(), round / 2);
    }
    // What the results say of provider and fallbacks holds for the new session too.
    assert_eq!((detector.info().provider, detector.info().fallbacks.len()), ("cpu", 1));
    detector.detect(&dim, &valid, &dim, &mut map).unwrap();
    assert!(map.data().iter().all(|v| (v - 100.0 / 255.0 * 1.2).abs() < 1e-5));
}

#[test]
fn scores_outside_their_range_refuse_the_model() {
    let Some(bench) = Bench::new(&fixture::too_bright()) else { return };
    let error = bench.error();
    assert!(error.starts_with("model DIR/model.onnx: warm-up: score "), "{error}");
    assert!(error.contains("is outside 0..1"), "{error}");
}

#[test]
fn pictures_of_different_sizes_are_refused() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    let mut detector = Detector::open(&bench.settings).unwrap();
    let (a, b) = (Gray::new(64, 48), Gray::new(64, 47));
    let error = detector.detect(&a, &b, &a, &mut Map::default()).unwrap_err();
    assert_eq!(error.to_string(), "the valid mask is 64x47, wanted 64x48 as the frame");
    assert_eq!(Fault::of(&error), Fault::Failed);
}

#[test]
fn another_library_in_the_same_process_is_refused() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    Detector::open(&bench.settings).unwrap();
    let error =
        Detector::open(&Settings { library: Some("/nowhere/libonnxruntime.so".into()), ..bench.settings.clone() }).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    assert!(
        error.to_string().starts_with("inference.library is /nowhere/libonnxruntime.so, but this process has loaded "),
        "{error}"
    );
}

#[test]
fn the_doctor_says_what_is_not_as_asked() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    let of = |settings: &Settings| doctor::examine(settings);
    let bad =
        |findings: &[doctor::Finding]| -> Vec<String> { findings.iter().filter(|f| !f.good).map(|f| f.what.clone()).collect() };
    // This model brings no golden vector, so its session is not proven.
    assert_eq!(bad(&of(&bench.settings)), ["session"]);
    let asked = Settings { providers: vec![Provider::Cuda, Provider::Cpu], ..bench.settings.clone() };
    assert_eq!(bad(&of(&asked)), ["provider cuda", "session"]);
    // Once one works, a later one that is missing does no harm.
    let spare = Settings { providers: vec![Provider::Cpu, Provider::Cuda], ..bench.settings.clone() };
    assert_eq!(bad(&of(&spare)), ["session"]);
    let far = Settings { cpus: vec![100_000], model: bench.folder.path().join("none.onnx"), ..bench.settings.clone() };
    let findings = of(&far);
    assert_eq!(bad(&findings), ["threads", "model"]);
    assert!(findings[0].text.starts_with("inference.cpus names processor 100000, this machine has 0 to "), "{findings:?}");
    assert_eq!(bad(&of(&Settings { batch: 0, ..bench.settings.clone() })), ["inference settings"]);
}

#[test]
fn settings_are_checked_all_at_once() {
    assert!(Settings::default().check().is_ok());
    let settings = Settings {
        tile_px: 32,
        batch: 0,
        tolerance: f32::NAN,
        providers: vec![Provider::Cpu, Provider::Cpu],
        sha256: Some("ab".into()),
        ..Settings::default()
    };
    assert_eq!(
        settings.check().unwrap_err().to_string(),
        "inference.tile_px must be between 64 and 8192, got 32; inference.batch must be between 1 and 64, got 0; inference.tolerance must be \
         between 0.000001 and 0.1, got NaN; inference.overlap_px must be less than half of inference.tile_px (32), got 128; \
         inference.providers names `cpu` twice; inference.sha256 must be 64 hexadecimal digits, got `ab`"
    );
}

#[test]
fn a_steady_stream_of_frames_allocates_nothing_outside_onnx_runtime() {
    let Some(bench) = Bench::new(&pyramid()) else { return };
    for (tile_px, batch) in [(1024, 1), (256, 3)] {
        let settings = Settings { tile_px, batch, overlap_px: 96, ..bench.settings.clone() };
        let mut detector = Detector::open(&settings).unwrap();
        let (template, valid, frame) = scene(600, 400);
        let mut map = Map::default();
        detector.detect(&template, &valid, &frame, &mut map).unwrap();
        let count = allocation_counter::measure(|| {
            for _ in 0..5 {
                detector.detect(&template, &valid, &frame, &mut map).unwrap();
            }
        })
        .count_total;
        assert_eq!(count, 0, "tile_px {tile_px}, batch {batch}");
    }
}
