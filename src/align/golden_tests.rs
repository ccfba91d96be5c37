//! The golden set of `tests/data/align`: 40 procedural pairs with truth, rendered by another program (`make.py` there says how).

use std::path::{Path, PathBuf};

use super::{Aligner, Registration, Settings, TemplateModel};
use crate::frame::load_gray;
use crate::geometry::Affine;

#[derive(serde::Deserialize)]
struct Pair {
    pair: String,
    set: String,
    template: PathBuf,
    image: PathBuf,
    matrix: Option<[[f64; 3]; 2]>,
}

/// (pair, its registration, corner error in px; infinite when refused) of every pair of `set`.
fn run(set: &str) -> Vec<(String, Registration, f64)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/align");
    let settings = Settings { fallback_threads: 1, ..Settings::default() };
    let mut aligner = Aligner::new(&settings);
    let manifest = std::fs::read_to_string(folder.join("pairs.jsonl")).unwrap();
    let pairs = manifest.lines().map(|l| serde_json::from_str::<Pair>(l).unwrap());
    pairs
        .filter(|p| p.set == set)
        .map(|p| {
            let [template, frame] = [&p.template, &p.image].map(|f| load_gray(&folder.join(f)).unwrap());
            let r = aligner.align(&TemplateModel::new(&template, None, &settings).unwrap(), &frame);
            let (w, h) = template.size();
            let error = p.matrix.filter(|_| r.accepted).map(|m| r.frame_from_template.corner_error(&Affine { m }, w, h));
            (p.pair, r, error.unwrap_or(f64::INFINITY))
        })
        .collect()
}

fn median(errors: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = errors.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[test]
fn golden_pairs_are_registered_within_their_bars() {
    // Bars a little above what is reached, corner error in px: of 128 px pairs, whose bound (Cramer-Rao) is twice that of 256 px ones.
    for (set, count, least_right, most_median) in [("std", 24, 24, 0.04), ("hard", 8, 6, 0.1)] {
        let found = run(set);
        assert_eq!(found.len(), count);
        let right = found.iter().filter(|f| f.2 < 1.0).count();
        let errors: Vec<_> = found.iter().map(|(pair, r, e)| (pair, e, r.confidence, r.refusal)).collect();
        assert!(right >= least_right, "{set}: {right} of {count} under 1 px: {errors:#?}");
        let median = median(found.iter().map(|f| f.2));
        assert!(median < most_median, "{set}: median {median} px: {errors:#?}");
        assert!(found.iter().all(|f| f.2 < 3.0 || f.2.is_infinite()), "{set}: wrong yet accepted: {errors:#?}");
    }
}

#[test]
fn golden_pairs_that_do_not_match_are_refused() {
    let found = run("other");
    assert_eq!(found.len(), 8);
    for (pair, r, _) in found {
        assert!(!r.accepted, "{pair}: {r:?}");
    }
}
