//! What lies beside an event's pictures: everything that is needed to decide it again.
//!
//! One JSON file, `evidence.json`, format [`FORMAT`]. Numbers that must come back to the bit (pose, thresholds) are written as text in
//! the shortest form that reads back exactly: JSON readers may be a bit off with numbers. `checksum` is the SHA-256 of the file's JSON with that field empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;
use crate::decide::{self, Decision, Polarity, Role, Zone, ZoneMap};
use crate::error::{Error, Result};
use crate::frame::Gray;
use crate::geometry::Affine;
use crate::record::event::{EventError, ImageFigures, ModelRef, TemplateRef, Verdict};
use crate::template::sha256_hex;

/// Name and major version of the format.
pub const FORMAT: &str = "ssds.evidence/1";

/// A number that reads back to the bit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exact(pub f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| serde::de::Error::custom(format!("a number as text was wanted, got {text:?}")))
    }
}

impl From<f32> for Exact {
    fn from(v: f32) -> Self {
        Self(f64::from(v))
    }
}

/// One file of an event's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// SHA-256 of its content, 64 hex digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// An accepted or refused registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoseRecord {
    /// Template to frame, row-major 2x3.
    pub frame_from_template: [[Exact; 3]; 2],
    /// Whether it was accepted.
    pub accepted: bool,
    /// 0..1.
    pub confidence: Exact,
}

impl PoseRecord {
    /// The map.
    #[must_use]
    pub fn affine(&self) -> Affine {
        Affine { m: self.frame_from_template.map(|row| row.map(|v| v.0)) }
    }

    /// As it is written.
    #[must_use]
    pub fn new(pose: &Affine, accepted: bool, confidence: f32) -> Self {
        Self { frame_from_template: pose.m.map(|row| row.map(Exact)), accepted, confidence: confidence.into() }
    }
}

/// Figures of the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Mean gray value, 0..255.
    pub mean: Exact,
    /// Share of saturated pixels, 0..1.
    pub saturated_frac: Exact,
    /// Focus measure.
    pub focus: Exact,
}

impl ImageRecord {
    /// As it is written.
    #[must_use]
    pub fn new(figures: &ImageFigures) -> Self {
        let exact = |v: Option<f64>| Exact(v.unwrap_or(0.0));
        Self { mean: exact(figures.mean), saturated_frac: exact(figures.saturated_frac), focus: exact(figures.focus) }
    }
}

/// One zone; where it lies is in `zones.png`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZoneRecord {
    /// Name.
    pub name: String,
    /// Judged or not.
    pub inspect: bool,
    /// Score from which a pixel is a defect, none = the settings'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Exact>,
    /// Score down to which a defect is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_threshold: Option<Exact>,
    /// Smallest blob that is a defect, px.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_area_px: Option<usize>,
    /// Least longer side of a defect's box, px.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size_px: Option<usize>,
}

/// The settings that an event was decided with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// See [`decide::Settings`].
    pub threshold: Exact,
    /// See [`decide::Settings`].
    pub low_threshold: Option<Exact>,
    /// See [`decide::Settings`].
    pub min_area_px: usize,
    /// See [`decide::Settings`].
    pub min_size_px: usize,
    /// See [`decide::Settings`].
    pub edge_margin_px: usize,
    /// See [`decide::Settings`].
    pub merge_distance_px: usize,
    /// See [`decide::Settings`].
    pub max_defects: usize,
    /// See [`decide::Settings`].
    pub max_defect_area_px: Option<usize>,
    /// See [`decide::Settings`].
    pub max_total_area_px: Option<usize>,
    /// Material is dark.
    pub dark_material: bool,
    /// Zones, in their order; their picture is `zones.png`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<ZoneRecord>,
    /// Whether pixels in no zone are judged.
    pub judge_outside_zones: bool,
}

impl SettingsRecord {
    /// As it is written.
    #[must_use]
    pub fn new(s: &decide::Settings) -> Self {
        let zone = |z: &Zone| ZoneRecord {
            name: z.name.to_string(),
            inspect: z.role == Role::Inspect,
            threshold: z.threshold.map(Exact::from),
            low_threshold: z.low_threshold.map(Exact::from),
            min_area_px: z.min_area_px,
            min_size_px: z.min_size_px,
        };
        Self {
            threshold: s.threshold.into(),
            low_threshold: s.low_threshold.map(Exact::from),
            min_area_px: s.min_area_px,
            min_size_px: s.min_size_px,
            edge_margin_px: s.edge_margin_px,
            merge_distance_px: s.merge_distance_px,
            max_defects: s.max_defects,
            max_defect_area_px: s.max_defect_area_px,
            max_total_area_px: s.max_total_area_px,
            dark_material: s.polarity == Polarity::Dark,
            zones: s.zones.iter().flat_map(|z| z.zones().iter().map(zone)).collect(),
            judge_outside_zones: s.zones.as_ref().is_none_or(|z| z.judges_outside()),
        }
    }

    /// The settings again, with the zones of the picture `labels`.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] when there are zones and no picture of them, or it names a zone that is not listed.
    pub fn settings(&self, labels: Option<Gray>) -> Result<decide::Settings> {
        let zone = |z: &ZoneRecord| Zone {
            name: z.name.as_str().into(),
            role: if z.inspect { Role::Inspect } else { Role::Ignore },
            shape: decide::Shape::Mask(Gray::default()),
            threshold: z.threshold.map(|v| v.0 as f32),
            low_threshold: z.low_threshold.map(|v| v.0 as f32),
            min_area_px: z.min_area_px,
            min_size_px: z.min_size_px,
        };
        let zones = match (self.zones.is_empty(), labels) {
            (true, _) => None,
            (false, None) => return Err(Error::data("evidence: it was decided with zones, and zones.png is not there")),
            (false, Some(labels)) => {
                Some(Arc::new(ZoneMap::painted(labels, self.zones.iter().map(zone).collect(), self.judge_outside_zones)?))
            }
        };
        Ok(decide::Settings {
            threshold: self.threshold.0 as f32,
            low_threshold: self.low_threshold.map(|v| v.0 as f32),
            min_area_px: self.min_area_px,
            min_size_px: self.min_size_px,
            edge_margin_px: self.edge_margin_px,
            merge_distance_px: self.merge_distance_px,
            max_defects: self.max_defects,
            max_defect_area_px: self.max_defect_area_px,
            max_total_area_px: self.max_total_area_px,
            polarity: if self.dark_material { Polarity::Dark } else { Polarity::Bright },
            zones,
        })
    }
}

/// What was decided, in the figures that a second decision must equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// With these settings.
    pub settings: SettingsRecord,
    /// Highest judged score.
    pub max_score: Exact,
    /// Defects.
    pub blobs_total: usize,
    /// Blobs that were too small.
    pub specks_total: usize,
    /// Area of all defects, px.
    pub ng_area_px: usize,
    /// SHA-256 of the listed blobs, every figure to the bit ([`blobs_sha256`]).
    pub blobs_sha256: String,
}

impl DecisionRecord {
    /// As it is written.
    #[must_use]
    pub fn new(settings: &decide::Settings, decision: &Decision) -> Self {
        Self {
            settings: SettingsRecord::new(settings),
            max_score: decision.max_score.into(),
            blobs_total: decision.blobs_total,
            specks_total: decision.specks_total,
            ng_area_px: decision.ng_area_px,
            blobs_sha256: blobs_sha256(decision),
        }
    }
}

/// SHA-256 over every figure of every listed blob, numbers by their bits.
#[must_use]
pub fn blobs_sha256(decision: &Decision) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for b in &decision.blobs {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} {} {} {} {} {:08x} {:08x} {:08x} {:08x} {} {:08x} {}",
            b.bbox.x,
            b.bbox.y,
            b.bbox.width,
            b.bbox.height,
            b.area_px,
            b.centroid.0.to_bits(),
            b.centroid.1.to_bits(),
            b.score_max.to_bits(),
            b.score_mean.to_bits(),
            b.sign.name(),
            b.mean_gray_difference.to_bits(),
            b.zone
        );
    }
    sha256_hex(text.as_bytes())
}

/// `evidence.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// The event.
    pub event_id: String,
    /// Its number at the station.
    pub seq: u64,
    /// The station.
    pub station: String,
    /// When the frame was taken.
    pub captured_at: Timestamp,
    /// What was decided.
    pub verdict: Verdict,
    /// Why it could not be inspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<EventError>,
    /// Product.
    pub product: String,
    /// Template.
    pub template: TemplateRef,
    /// SHA-256 of the picture of its bank that was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture_sha256: Option<String>,
    /// Width and height of the template, px.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_size_px: Option<(usize, usize)>,
    /// The network in force.
    pub model: ModelRef,
    /// What made the score map: `ssds` or a comparator's name.
    pub detector: String,
    /// The recipe in force; none = as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_sha256: Option<String>,
    /// The configuration in force.
    pub config_sha256: String,
    /// Figures of the picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRecord>,
    /// Registration, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pose: Option<PoseRecord>,
    /// The decision, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,
    /// The folder's other files.
    pub files: BTreeMap<String, FileEntry>,
    /// SHA-256 of this file's JSON with this field empty.
    #[serde(default)]
    pub checksum: String,
}

impl Manifest {
    /// The written form, its checksum set.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] when it has no JSON form.
    pub fn to_bytes(&mut self) -> Result<Vec<u8>> {
        self.checksum = String::new();
        self.checksum = sha256_hex(&encode(self)?);
        encode(self)
    }

    /// Reads the written form and checks its checksum.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] saying what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut m: Self = serde_json::from_slice(bytes).map_err(|e| Error::data(format!("damaged: {e}")))?;
        if m.format != FORMAT {
            return Err(Error::data(format!("format {:?}, {FORMAT:?} wanted", m.format)));
        }
        let said = std::mem::take(&mut m.checksum);
        if sha256_hex(&encode(&m)?) != said {
            return Err(Error::data("damaged: its checksum does not fit"));
        }
        m.checksum = said;
        Ok(m)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|f| f.bytes).sum()
    }
}

fn encode(m: &Manifest) -> Result<Vec<u8>> {
    let mut out = serde_json::to_vec_pretty(m).map_err(|e| Error::internal(format!("JSON: {e}")))?;
    out.push(b'\n');
    Ok(out)
}
