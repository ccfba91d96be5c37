//! Scores a checkpoint on a pair manifest, as the daemon would see the pairs: template warped by the manifest's pose, residual shift
//! removed, the uncovered rim filled from the frame, one pass over the whole picture, the scorer of `ssds eval`.

use std::path::Path;

use crate::align::warp::warp_template;
use crate::dataset::Manifest;
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use crate::geometry::Affine;
use crate::residual::{self, Remover};
use crate::score::{self, Report, Scorer};
use crate::train::batch::standardise;
use crate::train::engine::Engine;
use crate::train::onnx::Calibration;
use crate::train::spec::Layout;

/// A network ready to mark pairs.
pub struct Marker<'a> {
    /// Its layout.
    pub layout: &'a Layout,
    /// Weights.
    pub params: &'a [f32],
    /// Running statistics.
    pub stats: &'a [f32],
    /// From logit to score.
    pub calibration: Calibration,
}

/// The rim that the template does not cover shows the frame with the template's mean and spread, as inference does it.
fn fill(template: &mut Gray, valid: &Gray, frame: &Gray) {
    let covered: Vec<usize> = (0..valid.data().len()).filter(|i| valid.data()[*i] != 0).collect();
    if covered.is_empty() || covered.len() == valid.data().len() {
        return;
    }
    let moments = |p: &Gray| {
        let n = covered.len() as f64;
        let mean = covered.iter().map(|i| f64::from(p.data()[*i])).sum::<f64>() / n;
        let spread = (covered.iter().map(|i| (f64::from(p.data()[*i]) - mean).powi(2)).sum::<f64>() / n).sqrt();
        (mean, spread)
    };
    let ((mt, st), (mf, sf)) = (moments(template), moments(frame));
    let gain = if sf < 1.0 { 1.0 } else { st / sf };
    for (i, t) in template.data_mut().iter_mut().enumerate() {
        if valid.data()[i] == 0 {
            *t = ((f64::from(frame.data()[i]) - mf) * gain + mt).round().clamp(0.0, 255.0) as u8;
        }
    }
}

impl Marker<'_> {
    /// The defect map of a pair whose template is already in the frame's coordinates.
    ///
    /// # Errors
    /// The device's failure.
    pub fn map(&self, engine: &mut Engine, template: &Gray, valid: &Gray, frame: &Gray) -> Result<Map> {
        let (w, h) = frame.size();
        // the engine takes squares of the layout's multiple: repeat the edge
        let side = w.max(h).div_ceil(self.layout.multiple) * self.layout.multiple;
        let mut pair = Vec::with_capacity(2 * side * side);
        for picture in [template, frame] {
            let first = pair.len();
            for y in 0..side {
                let row = picture.row(y.min(h - 1));
                pair.extend((0..side).map(|x| f32::from(row[x.min(w - 1)]) / 255.0));
            }
            standardise(&mut pair[first..]);
        }
        let logits = engine.logits(self.params, self.stats, &pair, side)?;
        let c = self.calibration;
        Ok(Map::from_fn(w, h, |x, y| {
            if valid.get(x, y) == 0 { 0.0 } else { 1.0 / (1.0 + (-c.scale * (logits[y * side + x] - c.centre)).exp()) }
        }))
    }

    /// The scorer's report on a manifest whose pairs have truth; pairs without a pose are taken as aligned.
    ///
    /// # Errors
    /// A manifest or picture that cannot be read, a pair without truth.
    pub fn report(&self, engine: &mut Engine, manifest: &Path, min_area_px: usize) -> Result<Report> {
        let pairs = Manifest::read(manifest)?;
        let mut scorer = Scorer::new(score::Settings { min_area_px, ..score::Settings::default() })?;
        let mut remover = Remover::new(&residual::Settings::default())?;
        let (mut template, mut valid) = (Gray::default(), Gray::default());
        for pair in &pairs.pairs {
            let frame = pairs.image(pair)?;
            let pose = pair.matrix.unwrap_or(Affine::similarity(0.0, 1.0, 0.0, 0.0));
            warp_template(&pairs.template(pair)?, &pose, frame.size(), &mut template, &mut valid);
            remover.remove(&mut template, &mut valid, &frame)?;
            fill(&mut template, &valid, &frame);
            let map = self.map(engine, &template, &valid, &frame)?;
            let Some(truth) = pairs.truth(pair)? else {
                return Err(Error::data(format!("pair {} of {}: has no truth to score against", pair.id, manifest.display())));
            };
            scorer.add(&pair.id, &map, &truth)?;
        }
        Ok(scorer.report())
    }
}
