use super::*;
use crate::classical::{self, Comparator, Method};
use crate::clock::Timestamp;
use crate::decide::{Role, Shape, Zone};
use crate::template::{Meta, Tolerance};

#[test]
fn the_curve_equals_an_independent_fit() {
    // Hit/miss data of 40 defects of diameters 1..40 * 0.25 px; the expected values are from scipy.optimize.minimize on the same
    // likelihood (with the same pull of 1e-3 / 2 * b1^2).
    let data: Vec<(f64, bool)> = (1..=40).map(|i| (f64::from(i) * 0.25, i > 24 || (i > 9 && i % 3 != 0))).collect();
    let curve = fit(&data).unwrap();
    assert!((curve.intercept - INTERCEPT).abs() < 1e-3, "{curve:?}");
    assert!((curve.slope - SLOPE).abs() < 1e-3, "{curve:?}");
    assert!((curve.at(curve.a90_px) - 0.9).abs() < 1e-9);
    assert!((curve.a90_bound_px - BOUND).abs() < 2e-3 * BOUND, "{curve:?}");
}

const INTERCEPT: f64 = -3.821784;
const SLOPE: f64 = 3.300143;
const BOUND: f64 = 8.741692;

#[test]
fn data_without_a_curve_gives_none() {
    assert_eq!(fit(&[(2.0, true), (1.0, false)]), None, "too few");
    let all: Vec<_> = (1..50).map(|i| (f64::from(i), true)).collect();
    assert_eq!(fit(&all), None);
    let against: Vec<_> = (1..50).map(|i| (f64::from(i), i < 25)).collect();
    assert_eq!(fit(&against), None, "larger defects found less often");
    let separable: Vec<_> = (1..50).map(|i| (f64::from(i), i >= 25)).collect();
    let curve = fit(&separable).unwrap();
    assert!((23.0..28.0).contains(&curve.a90_px), "{curve:?}");
}

#[test]
fn a_designed_product_proves_itself() {
    let image = crate::simulate::part::product(7, (160, 128)).unwrap();
    let template = Template::loose("demo/main", image, Meta::at(Timestamp::UNIX_EPOCH)).unwrap();
    let align = align::Settings { max_rotation_degrees: 10.0, ..align::Settings::default() };
    let model = TemplateModel::new(&template.image, None, &align).unwrap();
    let decision = decide::Settings { min_area_px: 12, edge_margin_px: 6, ..decide::Settings::default() };
    let half = |x: f64| Shape::Polygon(vec![(x, 0.0), (x + 79.0, 0.0), (x + 79.0, 127.0), (x, 127.0)]);
    let zone = |name: &str, x: f64| Zone {
        name: name.into(),
        role: Role::Inspect,
        shape: half(x),
        threshold: None,
        low_threshold: None,
        min_area_px: None,
        min_size_px: None,
    };
    let zones = ZoneMap::new((160, 128), vec![zone("left", 0.0), zone("right", 80.0)], true, &decision).unwrap();
    let subject = Subject { template: &template, model: &model, align: &align, decision: &decision, zones: Some(&zones) };
    let settings = Settings { good: 12, defective: 40, ..Settings::for_template((160, 128)) };
    let detectors = |n: usize, gray: f32| -> Vec<Comparator> {
        let settings = classical::Settings { absdiff_gray: gray, ..classical::Settings::default() };
        (0..n).map(|_| Comparator::new(Method::AbsDiff, &settings).unwrap()).collect()
    };
    let told = AtomicUsize::new(0);
    let proof = prove(subject, &mut detectors(2, 60.0), &settings, &|_, total| {
        assert_eq!(total, 52);
        told.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 52);
    assert_eq!((proof.good, proof.wrong_poses), (12, 0));
    assert!(proof.refused <= 1 && proof.median_pose_error_px < 0.5, "{proof:?}");
    assert_eq!(proof.all.trials, proof.trials.len());
    assert!(proof.all.trials >= 36, "{:?}", proof.all);
    // Pixels that differ by 60 differ by 20 too: whatever the blunt difference finds, the sharp one finds, and more.
    let sharp = prove(subject, &mut detectors(2, 20.0), &settings, &|_, _| {}).unwrap();
    assert_eq!(sharp.trials.len(), proof.trials.len());
    let same_parts = sharp.trials.iter().zip(&proof.trials);
    assert!(same_parts.clone().all(|(s, b)| s.diameter_px == b.diameter_px && (s.found || !b.found)), "{sharp:?}\n{proof:?}");
    assert!(proof.all.found > 0 && sharp.all.found > proof.all.found, "{:?} {:?}", sharp.all, proof.all);
    assert!(proof.all.curve.is_some_and(|c| c.slope > 0.0), "{:?}", proof.all);
    // The ends: a difference that no pixel reaches finds nothing, one that every noise reaches rejects every good part.
    let blind = prove(subject, &mut detectors(2, 255.0), &settings, &|_, _| {}).unwrap();
    assert_eq!((blind.all.found, blind.all.curve, blind.false_rejects), (0, None, 0));
    let nervous = prove(subject, &mut detectors(2, 0.5), &settings, &|_, _| {}).unwrap();
    assert_eq!((nervous.false_rejects, nervous.false_reject_bound), (nervous.good - nervous.refused, 1.0));
    assert!(nervous.warnings.iter().any(|w| w.contains("good parts were NG: raise the threshold")), "{:?}", nervous.warnings);
    assert_eq!(proof.zones.iter().map(|z| z.trials).sum::<usize>(), proof.all.trials);
    assert!(proof.zones.iter().any(|z| z.zone == "left") && proof.zones.iter().any(|z| z.zone == "right"));
    let sheet = proof.sheet("demo/main", &template.image);
    assert!(sheet.rgb().chunks_exact(3).any(|p| p == crate::overlay::RED) || proof.all.found == proof.all.trials);
    assert!(
        proof.lines()[0].starts_with("good parts") && proof.lines().iter().any(|l| l.contains("left: ")),
        "{:?}",
        proof.lines()
    );
    let again = prove(subject, &mut detectors(1, 60.0), &settings, &|_, _| {}).unwrap();
    assert_eq!(again, proof, "the same on one core as on two");
}

#[test]
fn the_proof_goes_by_what_was_learnt_from_good_parts() {
    let image = crate::simulate::part::product(7, (160, 128)).unwrap();
    let mean = Map::from_fn(160, 128, |x, y| f32::from(image.get(x, y)));
    let mut template = Template::loose("demo/main", image, Meta::at(Timestamp::UNIX_EPOCH)).unwrap();
    let align = align::Settings::default();
    let model = TemplateModel::new(&template.image, None, &align).unwrap();
    let decision = decide::Settings::default();
    let settings = Settings { good: 2, defective: 20, ..Settings::for_template((160, 128)) };
    let mut found = |deviation: Option<f32>| {
        let learnt = |d| Tolerance { mean: mean.clone(), deviation: Map::from_fn(160, 128, |_, _| d), parts: 9 };
        template.tolerance = deviation.map(|d| learnt(d).into());
        let subject = Subject { template: &template, model: &model, align: &align, decision: &decision, zones: None };
        let mut detectors = [Comparator::new(Method::Variation, &classical::Settings::default()).unwrap()];
        prove(subject, &mut detectors, &settings, &|_, _| {}).unwrap().all.found
    };
    let (plain, strict, lax) = (found(None), found(Some(0.0)), found(Some(250.0)));
    assert_eq!(lax, 0, "good parts that vary by any gray value have no defect");
    assert!(plain > 0 && strict > 0, "{plain} {strict}");
}
