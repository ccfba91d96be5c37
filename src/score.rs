//! Scores of defect maps against ground truth: pixel AP and MaxF1, object precision / recall / F1 / AP, hit recall and false alarms,
//! false-reject rate on clean pairs, image AUROC.
//!
//! Feed a [`Scorer`] pair by pair with a map (scores 0..1, frame coordinates) and its [`Truth`]; [`Scorer::report`] gives the figures in
//! percent. Definitions:
//! - Pixels: precision-recall over all scored pixels of all pairs pooled, every one of 65536 levels a threshold.
//!   AP = sum (R_i - R_(i-1)) P_i without interpolation; MaxF1 = max 2PR / (P + R). `AP_tol` leaves out false pixels within
//!   `tolerance_px` outside a true outline; `AP_img` is the mean over pairs with a defect.
//! - Objects: 8-connected components of `score >= threshold`, pieces nearer than about `2 merge_px` joined, at least `min_area_px`
//!   pixels, at most half of them unscored, boxes grown by `pad_px`; matched to true boxes one to one, highest peak first, at
//!   IoU >= `iou`, whatever the class. `best` is the best threshold of the sweep; object AP ranks the components found there.
//! - Hits: a true box counts as hit when a component has a pixel in it or within 2 px; components touching no box are false alarms.
//! - Clean: share of defect-free pairs with any component. AUROC: the pair's peak after a 3x3 mean ranks defective over clean pairs.
//!
//! Sources: section IV.B of the SSDS paper (arXiv 2103.04297), the DeepPCB protocol (IoU 0.33, boxes about 10 px wider than defects).

pub mod components;
mod gallery;
mod objects;
mod pixels;
pub mod plot;
mod report;

pub use gallery::{Entry, gallery_html};
pub use objects::boxes_of_mask;
pub use report::{Clean, Hit, Image, Object, Pixel, Report, SizeRecall};

use crate::dataset::Truth;
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use objects::Tally;
use pixels::Histogram;

/// The scoring protocol.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Settings {
    /// Operating threshold, fixed beforehand on other data, 0..1.
    pub threshold: f32,
    /// Components of fewer pixels do not count.
    pub min_area_px: usize,
    /// Components nearer than about twice this are one.
    pub merge_px: usize,
    /// Boxes of components grow by this before matching.
    pub pad_px: usize,
    /// Intersection over union a match needs.
    pub iou: f64,
    /// Band outside true outlines left out of `AP_tol`.
    pub tolerance_px: usize,
    /// Thresholds tried beside the operating one.
    pub sweep: Vec<f32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            min_area_px: 4,
            merge_px: 4,
            pad_px: 10,
            iou: 0.33,
            tolerance_px: 2,
            sweep: vec![0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95],
        }
    }
}

impl Settings {
    /// Whether every value makes sense.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] naming the value and its range.
    pub fn check(&self) -> Result<()> {
        for t in self.sweep.iter().chain([&self.threshold]) {
            if !(*t > 0.0 && *t <= 1.0) {
                return Err(Error::config(format!("score threshold must be above 0 and at most 1, got {t}")));
            }
        }
        if !(self.iou > 0.0 && self.iou <= 1.0) {
            return Err(Error::config(format!("score iou must be above 0 and at most 1, got {}", self.iou)));
        }
        Ok(())
    }
}

/// What one pair contributed, for finding the worst ones.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PairScore {
    /// The pair's id.
    pub pair: String,
    /// True boxes.
    pub defects: usize,
    /// True boxes without a component at the operating threshold.
    pub missed: usize,
    /// Components touching no true box there.
    pub false_alarms: usize,
    /// Components there.
    pub detections: usize,
    /// Of these, matched one to one.
    pub matched: usize,
    /// Average precision over the pair's pixels (pairs with defective pixels only).
    pub pixel_ap: Option<f64>,
    /// Peak of the map after a 3x3 mean over scored pixels.
    pub peak: f32,
    /// Whether registration was refused (the map is all zero then).
    pub refused: bool,
}

/// Collects pairs.
#[derive(Debug, Clone)]
pub struct Scorer {
    settings: Settings,
    thresholds: Vec<f32>,
    pixels: Histogram,
    tolerant: Histogram,
    tallies: Vec<Tally>,
    sizes: Vec<(f64, bool, bool)>,
    pairs: Vec<PairScore>,
    pair_f1: Vec<f64>,
    peaks: Vec<(f32, bool)>,
    defects: usize,
    clean_pairs: usize,
    refused: usize,
}

impl Scorer {
    /// An empty collection under a protocol.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn new(settings: Settings) -> Result<Self> {
        settings.check()?;
        let mut thresholds = settings.sweep.clone();
        thresholds.push(settings.threshold);
        thresholds.sort_by(f32::total_cmp);
        thresholds.dedup();
        let tallies = thresholds.iter().map(|_| Tally::default()).collect();
        Ok(Self {
            settings,
            thresholds,
            pixels: Histogram::new(),
            tolerant: Histogram::new(),
            tallies,
            sizes: Vec::new(),
            pairs: Vec::new(),
            pair_f1: Vec::new(),
            peaks: Vec::new(),
            defects: 0,
            clean_pairs: 0,
            refused: 0,
        })
    }

    /// Adds a pair. Scores are clamped to 0..1.
    ///
    /// # Errors
    /// [`crate::error::Kind::Data`] naming the pair when the map is not finite or its size is not the mask's.
    pub fn add(&mut self, id: &str, map: &Map, truth: &Truth) -> Result<&PairScore> {
        let (w, h) = map.size();
        if let Some(mask) = &truth.mask
            && mask.size() != map.size()
        {
            let (mw, mh) = mask.size();
            return Err(Error::data(format!("pair `{id}`: the map is {w}x{h}, its mask {mw}x{mh}")));
        }
        if let Some(bad) = map.data().iter().find(|v| !v.is_finite()) {
            return Err(Error::data(format!("pair `{id}`: the map must be finite, holds {bad}")));
        }
        let map = Map::from_fn(w, h, |x, y| map.get(x, y).clamp(0.0, 1.0));
        // Without a mask no pixel is scored, but components and boxes are.
        let state = truth.mask.as_ref().map_or(&[] as &[u8], |m: &Gray| m.data());
        let positive = state.contains(&255);
        let clean = !positive && truth.boxes.is_empty();

        let pixel_ap = positive.then(|| {
            let mut own = Histogram::new();
            own.add(&map, state);
            let curve = own.curve();
            self.pair_f1.push(curve.max_f1);
            curve.average_precision
        });
        self.pixels.add(&map, state);
        if !state.is_empty() {
            let near = pixels::ring(state, w, h, self.settings.tolerance_px);
            self.tolerant.add_where(&map, state, |i| !near[i]);
        }
        let peak = pixels::smoothed_peak(&map, state);
        let mut operating = (0, 0, 0, 0);
        for (t, tally) in self.thresholds.iter().zip(&mut self.tallies) {
            let found = objects::components(&map, *t, &self.settings, state);
            let outcome = tally.add(&found, &truth.boxes, &self.settings, clean);
            if *t == self.settings.threshold {
                operating = (outcome.missed, outcome.false_alarms, outcome.detections, outcome.matched);
                for (b, (hit, matched)) in truth.boxes.iter().zip(outcome.hits.iter().zip(&outcome.box_matched)) {
                    let side = ((b[2] - b[0]) * (b[3] - b[1])).max(0.0).sqrt();
                    self.sizes.push((side, *hit, *matched));
                }
            }
        }
        self.defects += truth.boxes.len();
        self.clean_pairs += usize::from(clean);
        self.pairs.push(PairScore {
            pair: id.to_string(),
            defects: truth.boxes.len(),
            missed: operating.0,
            false_alarms: operating.1,
            detections: operating.2,
            matched: operating.3,
            pixel_ap,
            peak,
            refused: false,
        });
        self.peaks.push((peak, !clean));
        Ok(&self.pairs[self.pairs.len() - 1])
    }

    /// Adds a pair whose registration was refused: an all-zero map of the frame's size.
    ///
    /// # Errors
    /// As [`Scorer::add`].
    pub fn add_refused(&mut self, id: &str, size: (usize, usize), truth: &Truth) -> Result<()> {
        self.add(id, &Map::new(size.0, size.1), truth)?;
        self.refused += 1;
        if let Some(last) = self.pairs.last_mut() {
            last.refused = true;
        }
        Ok(())
    }

    /// What each pair contributed, in the order added.
    #[must_use]
    pub fn pairs(&self) -> &[PairScore] {
        &self.pairs
    }

    /// Points of the pooled pixel precision-recall curve, (recall, precision), at most about `points` of them.
    #[must_use]
    pub fn pixel_curve(&self, points: usize) -> Vec<(f64, f64)> {
        self.pixels.curve().thinned(points)
    }

    /// Threshold, object precision, object recall, hit recall and false alarms a pair at every threshold of the sweep.
    #[must_use]
    pub fn sweep(&self) -> Vec<[f64; 5]> {
        let pairs = self.pairs.len().max(1) as f64;
        self.thresholds
            .iter()
            .zip(&self.tallies)
            .map(|(t, s)| {
                let (p, r, _) = s.precision_recall_f1(self.defects);
                [f64::from(*t), p, r, s.hits as f64 / self.defects.max(1) as f64, s.false_alarms as f64 / pairs]
            })
            .collect()
    }

    /// The figures.
    #[must_use]
    pub fn report(&self) -> Report {
        report::build(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Manifest, load_map};

    fn fixture() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evalseg")
    }

    fn score(settings: Settings) -> Scorer {
        let manifest = Manifest::read(&fixture().join("pairs.jsonl")).unwrap();
        let mut scorer = Scorer::new(settings).unwrap();
        for pair in &manifest.pairs {
            let map = load_map(&fixture().join(format!("{}.map.png", pair.id))).unwrap();
            scorer.add(&pair.id, &map, &manifest.truth(pair).unwrap().unwrap()).unwrap();
        }
        scorer
    }

    /// Every figure of the independent scorer, to its two decimals.
    fn compare(path: &str, expected: &serde_json::Value, got: &serde_json::Value) {
        match expected {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    compare(&format!("{path}.{key}"), value, &got[key]);
                }
            }
            serde_json::Value::Number(number) => {
                let (want, have) = (number.as_f64().unwrap(), got.as_f64().unwrap_or(f64::NAN));
                assert!((want - have).abs() < 0.0101, "{path}: wanted {want}, got {have}");
            }
            other => assert_eq!(other, got, "{path}"),
        }
    }

    #[test]
    fn figures_equal_the_independent_scorers() {
        let expected: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(fixture().join("expected.json")).unwrap()).unwrap();
        let strict = Settings {
            threshold: 0.3,
            pad_px: 3,
            min_area_px: 12,
            iou: 0.5,
            merge_px: 0,
            tolerance_px: 1,
            ..Settings::default()
        };
        for (name, settings) in [("default", Settings::default()), ("strict", strict)] {
            let got = serde_json::to_value(score(settings).report()).unwrap();
            assert!(expected[name].is_object());
            compare(name, &expected[name], &got);
        }
    }

    #[test]
    fn a_perfect_map_scores_everything_and_an_empty_one_nothing() {
        let mut mask = Gray::new(64, 64);
        for y in 20..26 {
            for x in 30..36 {
                mask.set(x, y, 255);
            }
        }
        let truth = Truth { mask: Some(mask.clone()), boxes: boxes_of_mask(&mask, 4, 10) };
        let clean = Truth { mask: Some(Gray::new(64, 64)), boxes: Vec::new() };
        let perfect = Map::from_fn(64, 64, |x, y| f32::from(mask.get(x, y)) / 255.0);
        let mut scorer = Scorer::new(Settings::default()).unwrap();
        scorer.add("bad", &perfect, &truth).unwrap();
        scorer.add("good", &Map::new(64, 64), &clean).unwrap();
        let r = scorer.report();
        assert_eq!((r.pixel.ap, r.pixel.max_f1, r.object.f1, r.object.ap), (Some(100.0), Some(100.0), 100.0, 100.0));
        assert_eq!((r.hit.recall, r.hit.fa, r.clean.unwrap().alarm_rate), (100.0, 0.0, 0.0));
        assert_eq!(r.image.unwrap().auroc, Some(100.0));
        assert_eq!(r.by_size.len(), 1);
        assert_eq!((r.by_size[0].from_px, r.by_size[0].hit), (24.0, 100.0));

        let mut scorer = Scorer::new(Settings::default()).unwrap();
        scorer.add_refused("bad", (64, 64), &truth).unwrap();
        let r = scorer.report();
        assert_eq!((r.refused, r.object.f1, r.hit.recall), (1, 0.0, 0.0));
        assert_eq!(scorer.pairs()[0].missed, 1);
        // Everything at level 0: precision is the share of defective pixels.
        assert_eq!(r.pixel.ap, Some((36.0f64 / 4096.0 * 1e4).round() / 1e2));
    }

    #[test]
    fn boxes_alone_score_objects_but_no_pixels() {
        let mut scorer = Scorer::new(Settings::default()).unwrap();
        let truth = Truth { mask: None, boxes: vec![[10.0, 10.0, 40.0, 40.0]] };
        let map = Map::from_fn(64, 64, |x, y| if (20..30).contains(&x) && (20..30).contains(&y) { 0.9 } else { 0.0 });
        scorer.add("a", &map, &truth).unwrap();
        let r = scorer.report();
        assert_eq!((r.pixel.ap, r.object.f1, r.hit.recall), (None, 100.0, 100.0));
    }

    #[test]
    fn maps_that_cannot_be_scored_are_refused() {
        let mut scorer = Scorer::new(Settings::default()).unwrap();
        let truth = Truth { mask: Some(Gray::new(4, 4)), boxes: Vec::new() };
        let message = |e: crate::Error| e.message().to_string();
        assert_eq!(message(scorer.add("p", &Map::new(5, 4), &truth).unwrap_err()), "pair `p`: the map is 5x4, its mask 4x4");
        let mut map = Map::new(4, 4);
        map.set(1, 1, f32::NAN);
        assert_eq!(message(scorer.add("p", &map, &truth).unwrap_err()), "pair `p`: the map must be finite, holds NaN");
        let wrong = Settings { threshold: 0.0, ..Settings::default() };
        assert_eq!(message(Scorer::new(wrong).unwrap_err()), "score threshold must be above 0 and at most 1, got 0");
    }

    #[test]
    fn the_page_and_the_curve_speak_of_the_pairs() {
        let scorer = score(Settings::default());
        let curve = scorer.pixel_curve(50);
        assert!(curve.len() > 5 && curve.windows(2).all(|w| w[0].0 <= w[1].0));
        assert_eq!(scorer.sweep().len(), 11);
        let entry = Entry { score: scorer.pairs()[0].clone(), pictures: vec![("map".into(), "x.png".into())] };
        let page = gallery_html("set <a>", &scorer.report(), &["pr.svg".into()], &[entry]);
        assert!(page.contains("set &lt;a&gt;") && page.contains("<b>00</b>") && page.contains("src=\"x.png\""));
    }
}
