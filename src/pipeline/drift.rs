//! Drift: light, focus and pose that change so slowly that no single part shows it.
//!
//! The first parts with a template give a baseline for each figure: the median, and the spread as 1.4826 times the median absolute deviation,
//! not below a [`Figure::floor`] under which a change means nothing to the inspection. From then on an exponentially weighted moving average
//! follows (Roberts, "Control chart tests based on geometric moving averages", Technometrics 1, 1959), with values cut at one spread beyond
//! the limit, so that a few odd parts are not taken for a drift. What is told is the average's distance from the baseline in spreads; beyond the
//! limit it is a finding until it has come back to [`BACK`] of it. The spread is that of single parts, not of the average: chance alone does
//! not get there.
//!
//! Only registered parts count. A baseline belongs to a template (SHA-256 of its picture) and lasts over restarts in
//! `state_dir/drift/SHA256.json`; a template taught anew begins anew, and so does one whose file is deleted while the station is down. Limits:
//! at most [`KEPT`] templates in memory; a figure that is wild from the start (parts lying anyhow) has a wide spread and never drifts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::record::event::InspectionEvent;
use crate::template::store::replace;

/// Weight of the newest part in the average: about forty parts count.
const WEIGHT: f64 = 0.05;
/// A finding is over once the average is back within this share of the limit.
const BACK: f64 = 0.7;
/// Templates followed at a time.
const KEPT: usize = 32;
/// Version of the files.
const VERSION: u32 = 1;

/// When a drift is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Parts that make a baseline; 0 = off.
    pub parts: usize,
    /// Distance of the average from the baseline that is a finding, spreads of single parts.
    pub limit: f64,
    /// Where baselines are kept; none = in memory alone.
    pub folder: Option<PathBuf>,
}

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Light,
    Focus,
    Rotation,
    Scale,
    ShiftX,
    ShiftY,
}

/// All of them, in the order of the files.
const FIGURES: [Figure; 6] = [Figure::Light, Figure::Focus, Figure::Rotation, Figure::Scale, Figure::ShiftX, Figure::ShiftY];

impl Figure {
    /// Name in messages, with unit.
    const fn name(self) -> &'static str {
        match self {
            Figure::Light => "mean gray level",
            Figure::Focus => "focus measure (natural logarithm)",
            Figure::Rotation => "rotation in degrees",
            Figure::Scale => "scale",
            Figure::ShiftX => "shift along x in px",
            Figure::ShiftY => "shift along y in px",
        }
    }

    /// Smallest spread that is believed: three of them are about a tenth of the light, a quarter of the focus measure, a degree, a
    /// hundredth, three pixels.
    const fn floor(self) -> f64 {
        match self {
            Figure::Light => 4.0,
            Figure::Focus => 0.1,
            Figure::Rotation => 0.3,
            Figure::Scale => 0.003,
            Figure::ShiftX | Figure::ShiftY => 1.0,
        }
    }

    /// Its value in a recorded part.
    fn of(self, event: &InspectionEvent) -> Option<f64> {
        let image = event.image.as_ref()?;
        let value = match self {
            Figure::Light => image.mean?,
            Figure::Focus => (image.focus? + 1.0).ln(),
            Figure::Rotation => event.align.rotation_deg,
            Figure::Scale => event.align.scale,
            Figure::ShiftX => event.align.dx_px,
            Figure::ShiftY => event.align.dy_px,
        };
        value.is_finite().then_some(value)
    }
}

/// How one figure of one template's first parts lay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Normal {
    centre: f64,
    spread: f64,
}

/// A template's file.
#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    version: u32,
    template_sha256: String,
    parts: usize,
    /// In the order of [`FIGURES`].
    normals: [Normal; 6],
}

/// One template's parts so far.
#[derive(Debug)]
enum Chart {
    Learning(Vec<[f64; 6]>),
    Following { parts: usize, normals: [Normal; 6], averages: [f64; 6], beyond: [bool; 6] },
}

/// What a person should look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Figure, then and now.
    pub text: String,
    /// Distance in spreads, signed.
    pub distance: f64,
    /// The limit it exceeded.
    pub limit: f64,
}

/// The findings of the template in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The picture became darker or brighter.
    pub light: Option<Finding>,
    /// The picture became sharper or less sharp.
    pub focus: Option<Finding>,
    /// Parts lie elsewhere.
    pub pose: Option<Finding>,
}

/// Follows the parts.
#[derive(Debug)]
pub struct Drift {
    settings: Settings,
    charts: BTreeMap<String, Chart>,
}

impl Drift {
    /// Nothing seen yet; baselines of earlier runs are read when their template comes.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, charts: BTreeMap::new() }
    }

    /// Takes a part, writes the light's or the focus measure's distance, whichever is larger, into its event, and tells the findings; none for
    /// a part that says nothing: the findings before it stand.
    pub fn take(&mut self, event: &mut InspectionEvent) -> Option<Findings> {
        if self.settings.parts == 0 || !event.align.ok {
            return None;
        }
        let mut values = [0.0; 6];
        for (value, figure) in values.iter_mut().zip(FIGURES) {
            *value = figure.of(event)?;
        }
        let sha256 = &event.template.sha256;
        if !self.charts.contains_key(sha256) {
            if self.charts.len() >= KEPT {
                self.charts.pop_first();
            }
            self.charts.insert(sha256.clone(), self.begin(sha256));
        }
        let chart = self.charts.get_mut(sha256)?;
        if let Chart::Learning(seen) = chart {
            seen.push(values);
            if seen.len() < self.settings.parts {
                return Some(Findings::default());
            }
            let (parts, normals) = (seen.len(), normals_of(seen));
            *chart = Chart::follow(parts, normals);
            if let Some(folder) = &self.settings.folder
                && let Err(e) = save(folder, &Baseline { version: VERSION, template_sha256: sha256.clone(), parts, normals })
            {
                log::warn!("drift: {e:#}; the baseline lasts until the next start");
            }
            log::info!("drift: {parts} parts with template {} are the baseline", short(sha256));
        }
        let limit = self.settings.limit;
        let (findings, distances) = chart.step(&values, limit);
        if let Some(image) = &mut event.image {
            let larger = if distances[0].abs() >= distances[1].abs() { distances[0] } else { distances[1] };
            image.drift_z = Some((larger * 1e3).round() / 1e3);
        }
        Some(findings)
    }

    /// The chart of a template that was not seen in this run.
    fn begin(&self, sha256: &str) -> Chart {
        let Some(folder) = &self.settings.folder else { return Chart::Learning(Vec::new()) };
        match load(folder, sha256) {
            Ok(Some(baseline)) => Chart::follow(baseline.parts, baseline.normals),
            Ok(None) => Chart::Learning(Vec::new()),
            Err(e) => {
                log::warn!("drift: {e:#}; the next {} parts make another baseline", self.settings.parts);
                Chart::Learning(Vec::new())
            }
        }
    }
}

impl Chart {
    fn follow(parts: usize, normals: [Normal; 6]) -> Self {
        Chart::Following { parts, normals, averages: normals.map(|n| n.centre), beyond: [false; 6] }
    }

    /// Moves the averages; what is beyond the limit now, and every distance. Nothing while learning.
    fn step(&mut self, values: &[f64; 6], limit: f64) -> (Findings, [f64; 6]) {
        let (mut findings, mut distances) = (Findings::default(), [0.0; 6]);
        let Chart::Following { parts, normals, averages, beyond } = self else { return (findings, distances) };
        for (i, figure) in FIGURES.into_iter().enumerate() {
            let (Normal { centre, spread }, cut) = (normals[i], limit + 1.0);
            let value = values[i].clamp(centre - cut * spread, centre + cut * spread);
            averages[i] += WEIGHT * (value - averages[i]);
            distances[i] = (averages[i] - centre) / spread;
            beyond[i] = distances[i].abs() > if beyond[i] { BACK * limit } else { limit };
            if !beyond[i] {
                continue;
            }
            let slot = match figure {
                Figure::Light => &mut findings.light,
                Figure::Focus => &mut findings.focus,
                _ => &mut findings.pose,
            };
            if slot.as_ref().is_none_or(|f| f.distance.abs() < distances[i].abs()) {
                *slot = Some(Finding {
                    text: format!(
                        "{}: {:.3} on average by now, {centre:.3} over the first {parts} parts with this template, a change of {:.1} \
                         times their spread",
                        figure.name(),
                        averages[i],
                        distances[i].abs()
                    ),
                    distance: distances[i],
                    limit,
                });
            }
        }
        (findings, distances)
    }
}

fn normals_of(seen: &[[f64; 6]]) -> [Normal; 6] {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut normals = [Normal { centre: 0.0, spread: 1.0 }; 6];
    for (i, figure) in FIGURES.into_iter().enumerate() {
        let centre = median(seen.iter().map(|v| v[i]).collect());
        let deviation = median(seen.iter().map(|v| (v[i] - centre).abs()).collect());
        normals[i] = Normal { centre, spread: (1.4826 * deviation).max(figure.floor()) };
    }
    normals
}

fn file_of(folder: &Path, sha256: &str) -> PathBuf {
    folder.join(format!("{sha256}.json"))
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn save(folder: &Path, baseline: &Baseline) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(format!("folder {}", folder.display()), e))?;
    let bytes = serde_json::to_vec_pretty(baseline).map_err(|e| Error::internal(format!("a baseline cannot be written: {e}")))?;
    replace(&file_of(folder, &baseline.template_sha256), &bytes)
}

/// [`Kind::Data`] for a file that is not a sound baseline of this template.
fn load(folder: &Path, sha256: &str) -> Result<Option<Baseline>> {
    let path = file_of(folder, sha256);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("reading {}", path.display()), e)),
    };
    let wrong = |what: String| Error::new(Kind::Data, format!("{}: {what}", path.display()));
    let baseline: Baseline = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    if baseline.version != VERSION || baseline.template_sha256 != sha256 {
        return Err(wrong(format!(
            "version {} of template {}, wanted version {VERSION} of {}",
            baseline.version,
            short(&baseline.template_sha256),
            short(sha256)
        )));
    }
    for (normal, figure) in baseline.normals.iter().zip(FIGURES) {
        if !normal.centre.is_finite() || !normal.spread.is_finite() || normal.spread < figure.floor() {
            return Err(wrong(format!("{} lies at {} with spread {}", figure.name(), normal.centre, normal.spread)));
        }
    }
    Ok(Some(baseline))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;
    use crate::record::event::tests::sample;
    use crate::record::event::{AlignFigures, ImageFigures};

    const PARTS: usize = 100;

    fn part(sha256: &str, mean: f64, focus: f64, dx_px: f64) -> InspectionEvent {
        let mut event = sample();
        event.template.sha256 = sha256.into();
        event.image = Some(ImageFigures { mean: Some(mean), focus: Some(focus), ..ImageFigures::default() });
        event.align =
            AlignFigures { ok: true, rotation_deg: 0.1, scale: 1.0, dx_px, dy_px: 2.0, psr: 9.0, ncc: None, overlap: None };
        event
    }

    fn settings(folder: Option<&Path>) -> Settings {
        Settings { parts: PARTS, limit: 3.0, folder: folder.map(Path::to_owned) }
    }

    /// Noise around zero, of about this size.
    fn noise(rng: &mut rand_pcg::Pcg64Mcg, size: f64) -> f64 {
        size * (0..6).map(|_| rng.random_range(-1.0..1.0)).sum::<f64>() / 2.0_f64.sqrt()
    }

    #[test]
    fn steady_parts_raise_nothing_in_a_day_of_them() {
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let mut drift = Drift::new(settings(None));
        let mut largest: f64 = 0.0;
        for _ in 0..50_000 {
            let (light, focus, dx) = (noise(&mut rng, 6.0), noise(&mut rng, 20.0), noise(&mut rng, 3.0));
            let mut event = part("a", 120.0 + light, 200.0 + focus, dx);
            assert_eq!(drift.take(&mut event), Some(Findings::default()));
            largest = largest.max(event.image.unwrap().drift_z.unwrap_or(0.0).abs());
        }
        assert!(largest > 0.1 && largest < 1.5, "{largest}");
    }

    #[test]
    fn each_slow_change_is_told_and_is_over_once_it_has_come_back() {
        type Change = fn(f64) -> InspectionEvent;
        type Slot = fn(&Findings) -> Option<&Finding>;
        let changes: [(Change, Slot, &str); 3] = [
            (|s| part("a", 120.0 - 30.0 * s, 200.0, 0.0), |f| f.light.as_ref(), "mean gray level"),
            (|s| part("a", 120.0, 200.0 * (1.0 - 0.6 * s), 0.0), |f| f.focus.as_ref(), "focus measure"),
            (|s| part("a", 120.0, 200.0, 8.0 * s), |f| f.pose.as_ref(), "shift along x in px"),
        ];
        for (change, slot, name) in changes {
            let mut drift = Drift::new(settings(None));
            for _ in 0..PARTS {
                drift.take(&mut change(0.0));
            }
            // Over 400 parts the figure goes all the way; no single step is 0.3 % of it.
            let mut told = None;
            for n in 0..400 {
                let findings = drift.take(&mut change(f64::from(n) / 400.0)).unwrap();
                let others = [findings.light.is_some(), findings.focus.is_some(), findings.pose.is_some()];
                assert!(others.iter().filter(|o| **o).count() <= 1, "{name}: {findings:?}");
                if let (Some(finding), None) = (slot(&findings), told) {
                    assert!(finding.text.starts_with(name), "{}", finding.text);
                    assert!(finding.distance.abs() > 3.0 && finding.distance.abs() < 3.2, "{}", finding.distance);
                    told = Some(n);
                }
            }
            assert!(told.is_some_and(|n| n > 100), "{name}: {told:?}");
            let back = (0..200).position(|_| slot(&drift.take(&mut change(0.0)).unwrap()).is_none());
            assert!(back.is_some_and(|n| n > 2), "{name}: back after {back:?}");
        }
    }

    #[test]
    fn a_few_odd_parts_are_no_drift() {
        let mut drift = Drift::new(settings(None));
        for n in 0..1000 {
            let flash = if n > 100 && n % 10 == 0 { 120.0 } else { 0.0 };
            assert_eq!(drift.take(&mut part("a", 120.0 + flash, 200.0, 0.0)).unwrap(), Findings::default(), "part {n}");
        }
        // Parts that were not registered are no parts.
        let mut lost = part("a", 0.0, 0.0, 0.0);
        lost.align.ok = false;
        assert_eq!((drift.take(&mut lost), lost.image.unwrap().drift_z), (None, None));
    }

    #[test]
    fn a_baseline_belongs_to_its_template_and_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let mut drift = Drift::new(settings(Some(folder.path())));
        for _ in 0..PARTS {
            drift.take(&mut part("a", 120.0, 200.0, 0.0));
        }
        // The process starts anew, and the light is another by now.
        let mut drift = Drift::new(settings(Some(folder.path())));
        let mut findings = Findings::default();
        for _ in 0..60 {
            findings = drift.take(&mut part("a", 80.0, 200.0, 0.0)).unwrap();
        }
        assert!(findings.light.is_some());
        for _ in 0..PARTS + 60 {
            findings = drift.take(&mut part("b", 80.0, 200.0, 0.0)).unwrap();
        }
        assert_eq!(findings, Findings::default(), "another template");
        let mut off = Drift::new(Settings { parts: 0, ..settings(Some(folder.path())) });
        assert_eq!(off.take(&mut part("a", 10.0, 1.0, 0.0)), None);

        // A damaged file is told and not believed.
        for damage in ["", "{}", &std::fs::read_to_string(file_of(folder.path(), "a")).unwrap().replace("\"a\"", "\"c\"")] {
            std::fs::write(file_of(folder.path(), "a"), damage).unwrap();
            let e = load(folder.path(), "a").unwrap_err();
            assert_eq!(e.kind(), Kind::Data, "{e:#}");
            let mut drift = Drift::new(settings(Some(folder.path())));
            assert_eq!(drift.take(&mut part("a", 80.0, 200.0, 0.0)), Some(Findings::default()));
        }
    }
}
