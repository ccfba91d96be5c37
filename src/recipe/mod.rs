//! Recipes: what is particular to one product, in one TOML file.
//!
//! A recipe names the product's templates, its zones, and whatever shall differ from the station's configuration: thresholds, limits of
//! light and pose, trigger mode, the detector. What it leaves out stays as configured. It is checked as a whole before it is used: every
//! fault is reported at once with file, line, key, value and what was wanted, unknown keys with the nearest known one.
//!
//! ```toml
//! recipe_version = 1
//! product = "pcb-a17"
//! templates = ["pcb-a17/main"]     # left out: product/main; several: the best registered one is used
//! detector = "ssds"                # or absdiff, ssim, variation
//! compare_with = "variation"       # runs beside it; disagreements are counted
//! mm_per_px = 0.05                 # size of a template pixel on the part
//! judge_outside_zones = true
//! [decision]                       # as in the configuration; areas also as ..._mm2
//! threshold = 0.6
//! [[zone]]
//! name = "pads"
//! role = "inspect"                 # or ignore
//! polygon = [[10, 10], [200, 10], [200, 90]]   # template px; or mask = "pads.png", of the template's size
//! threshold = 0.4
//! min_area_mm2 = 0.02
//! [trigger]
//! mode = "software"                # or free_run, gpio: a camera that can be switched is, when the recipe comes into force
//! ```
//! Limits: masks lie in the recipe's folder or below. [`book::Book`] keeps what was applied.

pub mod book;
mod reader;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::align;
use crate::classical::{self, Method};
use crate::config::Trigger;
use crate::decide::{self, Polarity, Role, Shape, Zone, ZoneMap};
use crate::error::{Error, Result};
use crate::frame::load_gray;
use crate::template::{self, Template, sha256_hex};

use reader::{Reader, Section};

/// What finds the defects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// The network.
    Ssds,
    /// A classical comparator.
    Classical(Method),
}

impl Detector {
    /// The name in recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Detector::Ssds => "ssds",
            Detector::Classical(method) => method.name(),
        }
    }

    /// The detector of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "ssds" { Some(Detector::Ssds) } else { Method::from_name(name).map(Detector::Classical) }
    }
}

/// Names of all detectors.
pub const DETECTORS: [&str; 4] = ["ssds", "absdiff", "ssim", "variation"];

/// Limits of the picture itself; none = as configured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ImageLimits {
    /// Lowest mean gray level.
    pub min_mean: Option<f64>,
    /// Highest mean gray level.
    pub max_mean: Option<f64>,
    /// Largest share of pixels at 255, 0..1.
    pub max_saturated_frac: Option<f64>,
    /// Lowest focus measure (variance of the Laplacian).
    pub min_focus: Option<f64>,
}

/// Limits of the pose; none = as configured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PoseLimits {
    /// Largest rotation either way, degrees.
    pub max_rotation_degrees: Option<f64>,
    /// Smallest scale of the template in the frame.
    pub min_scale: Option<f64>,
    /// Largest scale of the template in the frame.
    pub max_scale: Option<f64>,
    /// Lowest confidence.
    pub min_confidence: Option<f64>,
    /// Largest shift of the template's centre from the frame's along each axis, px. Registration itself knows no such limit: who uses
    /// the recipe holds the pose against it.
    pub max_shift_px: Option<f64>,
}

/// What a recipe changes in the decision; none = as configured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DecisionChanges {
    threshold: Option<f64>,
    low_threshold: Option<f64>,
    min_area_px: Option<usize>,
    min_size_px: Option<usize>,
    edge_margin_px: Option<usize>,
    merge_distance_px: Option<usize>,
    max_defects: Option<usize>,
    max_defect_area_px: Option<usize>,
    max_total_area_px: Option<usize>,
    polarity: Option<Polarity>,
}

/// A checked recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Product name.
    pub product: String,
    /// Templates to register, `product/view` each.
    pub templates: Vec<String>,
    /// What finds the defects.
    pub detector: Detector,
    /// What runs beside it, for the disagreement counter.
    pub compare_with: Option<Detector>,
    /// Size of a template pixel on the part, mm.
    pub mm_per_px: Option<f64>,
    /// Whether pixels in no zone are judged.
    pub judge_outside_zones: bool,
    /// Limits of the picture.
    pub image: ImageLimits,
    /// Limits of the pose.
    pub pose: PoseLimits,
    /// What starts an inspection; none = as configured.
    pub trigger: Option<Trigger>,
    /// Settings of the comparators.
    pub classical: classical::Settings,
    /// Zones, in template coordinates; their areas in px.
    pub zones: Vec<Zone>,
    /// SHA-256 over the file and its masks, 64 hex digits.
    pub sha256: String,
    decision: DecisionChanges,
    /// The file's text and its masks' files, for the book.
    text: String,
    masks: Vec<(PathBuf, Vec<u8>)>,
}

impl Recipe {
    /// Reads a recipe and the masks it names.
    ///
    /// # Errors
    /// [`crate::Kind::Missing`] when the file cannot be read; [`crate::Kind::Config`] with one line for each fault.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("recipe {}", path.display()), e))?;
        Self::parse(&text, path)
    }

    /// Checks a recipe given as text; `name` stands in messages, and masks are looked for in its folder.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] with one line for each fault.
    pub fn parse(text: &str, name: &Path) -> Result<Self> {
        let mut reader = Reader::new(text, name);
        let recipe = read(&mut reader, text, name.parent().unwrap_or(Path::new("")));
        let faults = reader.faults();
        match recipe {
            Some(recipe) if faults.is_empty() => Ok(recipe),
            _ => Err(Error::config(faults.join("\n"))),
        }
    }

    /// A recipe that changes nothing: the product's main template, everything as configured.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] for a name that is no product.
    pub fn plain(product: &str) -> Result<Self> {
        Self::parse(&format!("recipe_version = 1\nproduct = {}\n", toml::Value::from(product)), Path::new("(built in)"))
    }

    /// The decision's settings: `base` with what the recipe changes, without zones ([`Recipe::zone_map`]). A base's low threshold above the recipe's threshold is lowered to it.
    #[must_use]
    pub fn decision(&self, base: &decide::Settings) -> decide::Settings {
        let d = &self.decision;
        let threshold = d.threshold.map_or(base.threshold, |v| v as f32);
        decide::Settings {
            threshold,
            low_threshold: d.low_threshold.map(|v| v as f32).or(base.low_threshold).map(|low| low.min(threshold)),
            min_area_px: d.min_area_px.unwrap_or(base.min_area_px),
            min_size_px: d.min_size_px.unwrap_or(base.min_size_px),
            edge_margin_px: d.edge_margin_px.unwrap_or(base.edge_margin_px),
            merge_distance_px: d.merge_distance_px.unwrap_or(base.merge_distance_px),
            max_defects: d.max_defects.unwrap_or(base.max_defects),
            max_defect_area_px: d.max_defect_area_px.or(base.max_defect_area_px),
            max_total_area_px: d.max_total_area_px.or(base.max_total_area_px),
            polarity: d.polarity.unwrap_or(base.polarity),
            zones: None,
        }
    }

    /// Registration's settings: `base` with what the recipe changes.
    #[must_use]
    pub fn align(&self, base: &align::Settings) -> align::Settings {
        let p = &self.pose;
        align::Settings {
            max_rotation_degrees: p.max_rotation_degrees.unwrap_or(base.max_rotation_degrees),
            min_scale: p.min_scale.unwrap_or(base.min_scale),
            max_scale: p.max_scale.unwrap_or(base.max_scale),
            min_confidence: p.min_confidence.unwrap_or(base.min_confidence),
            ..base.clone()
        }
    }

    /// Paints the zones on a template of `size` px; none when the recipe has no zones.
    ///
    /// # Errors
    /// As [`ZoneMap::new`].
    pub fn zone_map(&self, size: (usize, usize), base: &decide::Settings) -> Result<Option<ZoneMap>> {
        if self.zones.is_empty() {
            return Ok(None);
        }
        ZoneMap::new(size, self.zones.clone(), self.judge_outside_zones, &self.decision(base)).map(Some)
    }

    /// Loads the active version of every template and paints the zones on each: all that can fail does so here, before the switch.
    ///
    /// # Errors
    /// [`crate::Kind::Missing`] for an unknown template, [`crate::Kind::Config`] for zones that do not fit, [`crate::Kind::Data`] for damaged files; each names
    /// the product.
    pub fn prepare(self, store: &template::store::Store, base: &decide::Settings) -> Result<Prepared> {
        let what = |e: Error| e.context(format!("recipe of product {:?}", self.product));
        let mut views = Vec::new();
        for id in &self.templates {
            let template = store.load_active(id).map_err(what)?;
            let zones = self.zone_map(template.image.size(), base).map_err(what)?;
            views.push(View { template: Arc::new(template), zones: zones.map(Arc::new) });
        }
        Ok(Prepared { decision: self.decision(base), views, recipe: self })
    }
}

/// One template of a recipe with its zones.
#[derive(Debug, Clone)]
pub struct View {
    /// The template.
    pub template: Arc<Template>,
    /// The zones on it.
    pub zones: Option<Arc<ZoneMap>>,
}

/// A recipe with everything it needs in memory: switching to it takes one exchange of a pointer between two frames.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The recipe.
    pub recipe: Recipe,
    /// Its decision on top of the configuration's.
    pub decision: decide::Settings,
    /// At least one.
    pub views: Vec<View>,
}

const TOP: &[&str] = &[
    "recipe_version",
    "product",
    "templates",
    "detector",
    "compare_with",
    "mm_per_px",
    "judge_outside_zones",
    "decision",
    "image",
    "align",
    "trigger",
    "classical",
    "zone",
];
const DECISION: &[&str] = &[
    "threshold",
    "low_threshold",
    "min_area_px",
    "min_area_mm2",
    "min_size_px",
    "min_size_mm",
    "edge_margin_px",
    "merge_distance_px",
    "max_defects",
    "max_defect_area_px",
    "max_defect_area_mm2",
    "max_total_area_px",
    "max_total_area_mm2",
    "polarity",
];
const IMAGE: &[&str] = &["min_mean", "max_mean", "max_saturated_frac", "min_focus"];
const ALIGN: &[&str] = &["max_rotation_degrees", "min_scale", "max_scale", "min_confidence", "max_shift_px"];
const TRIGGER: &[&str] = &["mode"];
const CLASSICAL: &[&str] = &["match_light", "absdiff_tolerance_px", "absdiff_gray", "variation_absolute", "variation_factor"];
const ZONE: &[&str] = &[
    "name",
    "role",
    "polygon",
    "mask",
    "threshold",
    "low_threshold",
    "min_area_px",
    "min_area_mm2",
    "min_size_px",
    "min_size_mm",
];

/// Largest area and count that a setting may name.
const MANY: i64 = 1_000_000_000;

/// Reads what it can; faults are in the reader. None when the file is no TOML at all.
fn read(r: &mut Reader<'_>, text: &str, folder: &Path) -> Option<Recipe> {
    let top = r.top()?;
    r.known(&top, TOP);
    if r.integer(&top, "recipe_version", 1, 1).is_none() && !r.has(&top, "recipe_version") {
        r.fault(None, "recipe_version is missing; wanted 1");
    }
    let product = match r.text(&top, "product") {
        Some(name) => match template::id_of(&name) {
            Ok(_) if !name.contains('/') => name,
            _ => {
                let wanted = "1 to 64 of a-z, 0-9, '_', '-', '.', beginning with a letter or digit";
                r.fault_at(&top, "product", format!("product must be a name of {wanted}, got {name:?}"));
                String::new()
            }
        },
        None => {
            if !r.has(&top, "product") {
                r.fault(None, "product is missing; wanted the product's name");
            }
            String::new()
        }
    };
    let templates = match r.texts(&top, "templates") {
        None => vec![format!("{product}/{}", template::DEFAULT_VIEW)],
        Some(list) => {
            if list.is_empty() {
                r.fault_at(&top, "templates", "templates must name at least one template, got an empty list".into());
            }
            for id in &list {
                if let Err(e) = template::check_id(id) {
                    r.fault_at(&top, "templates", format!("templates: {e}"));
                }
            }
            list
        }
    };
    let detector = r.one_of(&top, "detector", &DETECTORS).and_then(|name| Detector::from_name(&name)).unwrap_or(Detector::Ssds);
    let compare_with = r.one_of(&top, "compare_with", &DETECTORS).and_then(|name| Detector::from_name(&name));
    if compare_with == Some(detector) {
        r.fault_at(&top, "compare_with", format!("compare_with must differ from detector, both are {:?}", detector.name()));
    }
    let mm_per_px = r.number(&top, "mm_per_px", 1e-6, 1e3);
    let judge_outside_zones = r.boolean(&top, "judge_outside_zones").unwrap_or(true);

    let decision = r.section(&top, "decision").map_or_else(DecisionChanges::default, |s| read_decision(r, &s, mm_per_px));
    let image = r.section(&top, "image").map_or_else(ImageLimits::default, |s| {
        r.known(&s, IMAGE);
        ImageLimits {
            min_mean: r.number(&s, "min_mean", 0.0, 255.0),
            max_mean: r.number(&s, "max_mean", 0.0, 255.0),
            max_saturated_frac: r.number(&s, "max_saturated_frac", 0.0, 1.0),
            min_focus: r.number(&s, "min_focus", 0.0, 1e9),
        }
    });
    if let (Some(low), Some(high)) = (image.min_mean, image.max_mean)
        && low >= high
    {
        r.fault(None, format!("image.min_mean must be below image.max_mean ({high}), got {low}"));
    }
    let pose = r.section(&top, "align").map_or_else(PoseLimits::default, |s| {
        r.known(&s, ALIGN);
        PoseLimits {
            max_rotation_degrees: r.number(&s, "max_rotation_degrees", 0.0, 180.0),
            min_scale: r.number(&s, "min_scale", 0.5, 1.0),
            max_scale: r.number(&s, "max_scale", 1.0, 2.0),
            min_confidence: r.number(&s, "min_confidence", 0.0, 1.0),
            max_shift_px: r.number(&s, "max_shift_px", 0.0, 1e5),
        }
    });
    let trigger = r.section(&top, "trigger").and_then(|s| {
        r.known(&s, TRIGGER);
        Trigger::from_word(&r.one_of(&s, "mode", &["free_run", "software", "gpio"])?)
    });
    let classical = r.section(&top, "classical").map_or_else(classical::Settings::default, |s| {
        r.known(&s, CLASSICAL);
        let d = classical::Settings::default();
        let gray = |r: &mut Reader<'_>, key: &str, or: f32| r.number(&s, key, 0.001, 255.0).map_or(or, |v| v as f32);
        classical::Settings {
            match_light: r.boolean(&s, "match_light").unwrap_or(d.match_light),
            absdiff_tolerance_px: r.integer(&s, "absdiff_tolerance_px", 0, 10).map_or(d.absdiff_tolerance_px, |v| v as usize),
            absdiff_gray: gray(r, "absdiff_gray", d.absdiff_gray),
            variation_absolute: gray(r, "variation_absolute", d.variation_absolute),
            variation_factor: gray(r, "variation_factor", d.variation_factor),
        }
    });

    let mut masks = Vec::new();
    let mut zones = Vec::new();
    for section in r.sections(&top, "zone") {
        if let Some(zone) = read_zone(r, &section, mm_per_px, folder, &mut masks) {
            zones.push(zone);
        }
    }
    let mut identity = sha256_hex(text.as_bytes());
    for (path, bytes) in &masks {
        identity.push_str(&format!("\n{} {}", sha256_hex(bytes), path.display()));
    }
    Some(Recipe {
        product,
        templates,
        detector,
        compare_with,
        mm_per_px,
        judge_outside_zones,
        image,
        pose,
        trigger,
        classical,
        zones,
        sha256: sha256_hex(identity.as_bytes()),
        decision,
        text: text.to_owned(),
        masks,
    })
}

fn read_decision(r: &mut Reader<'_>, s: &Section<'_>, mm_per_px: Option<f64>) -> DecisionChanges {
    r.known(s, DECISION);
    let (threshold, low_threshold) = thresholds(r, s);
    DecisionChanges {
        threshold,
        low_threshold,
        min_area_px: area(r, s, "min_area", 1, mm_per_px),
        min_size_px: length(r, s, "min_size", mm_per_px),
        edge_margin_px: r.integer(s, "edge_margin_px", 0, 1000).map(|v| v as usize),
        merge_distance_px: r.integer(s, "merge_distance_px", 0, 100).map(|v| v as usize),
        max_defects: r.integer(s, "max_defects", 0, MANY).map(|v| v as usize),
        max_defect_area_px: area(r, s, "max_defect_area", 0, mm_per_px),
        max_total_area_px: area(r, s, "max_total_area", 0, mm_per_px),
        polarity: r
            .one_of(s, "polarity", &["bright", "dark"])
            .map(|p| if p == "dark" { Polarity::Dark } else { Polarity::Bright }),
    }
}

fn thresholds(r: &mut Reader<'_>, s: &Section<'_>) -> (Option<f64>, Option<f64>) {
    let threshold = r.number(s, "threshold", 0.0001, 1.0);
    let low = r.number(s, "low_threshold", 0.0001, 1.0);
    if let (Some(high), Some(low)) = (threshold, low)
        && low > high
    {
        r.fault_at(s, "low_threshold", format!("{} must be at most threshold ({high}), got {low}", s.path("low_threshold")));
    }
    (threshold, low)
}

/// `<stem>_px`, or `<stem>_mm2` through the size of a pixel: the least number of pixels that covers it.
fn area(r: &mut Reader<'_>, s: &Section<'_>, stem: &str, least: i64, mm_per_px: Option<f64>) -> Option<usize> {
    measure(r, s, (&format!("{stem}_px"), &format!("{stem}_mm2")), least, mm_per_px.map(|size| size * size))
}

/// `<stem>_px`, or `<stem>_mm`: the least number of pixels that reaches it.
fn length(r: &mut Reader<'_>, s: &Section<'_>, stem: &str, mm_per_px: Option<f64>) -> Option<usize> {
    measure(r, s, (&format!("{stem}_px"), &format!("{stem}_mm")), 1, mm_per_px)
}

/// One of two keys, in pixels or in units of which one pixel has `unit`.
fn measure(r: &mut Reader<'_>, s: &Section<'_>, (px_key, mm_key): (&str, &str), least: i64, unit: Option<f64>) -> Option<usize> {
    let px = r.integer(s, px_key, least, MANY);
    let mm = r.number(s, mm_key, 1e-9, 1e9);
    match (px, mm, unit) {
        (Some(_), Some(_), _) => {
            r.fault_at(s, mm_key, format!("{} and {} are both set; one of them wanted", s.path(px_key), s.path(mm_key)));
            None
        }
        (None, Some(_), None) => {
            r.fault_at(s, mm_key, format!("{} is set, so mm_per_px must be set too", s.path(mm_key)));
            None
        }
        (None, Some(mm), Some(unit)) => Some((mm / unit).ceil().max(least as f64) as usize),
        (px, None, _) => px.map(|v| v as usize),
    }
}

fn read_zone(
    r: &mut Reader<'_>,
    s: &Section<'_>,
    mm_per_px: Option<f64>,
    folder: &Path,
    masks: &mut Vec<(PathBuf, Vec<u8>)>,
) -> Option<Zone> {
    r.known(s, ZONE);
    let name = match r.text(s, "name") {
        Some(name) if name.chars().count() <= 64 => name,
        Some(name) => {
            r.fault_at(s, "name", format!("{} must be at most 64 characters, got {}", s.path("name"), name.chars().count()));
            name
        }
        None => {
            if !r.has(s, "name") {
                r.fault_in(s, format!("{} is missing; wanted the zone's name", s.path("name")));
            }
            return None;
        }
    };
    let role = match r.one_of(s, "role", &["inspect", "ignore"]).as_deref() {
        Some("ignore") => Role::Ignore,
        _ => Role::Inspect,
    };
    let (threshold, low_threshold) = thresholds(r, s);
    let min_area_px = area(r, s, "min_area", 1, mm_per_px);
    let min_size_px = length(r, s, "min_size", mm_per_px);
    let polygon = r.points(s, "polygon");
    let mask = r.text(s, "mask");
    let shape = match (polygon, mask) {
        (Some(corners), None) => Shape::Polygon(corners),
        (None, Some(file)) => Shape::Mask(read_mask(r, s, &file, folder, masks)?),
        (None, None) if r.has(s, "polygon") || r.has(s, "mask") => return None,
        _ => {
            r.fault_in(s, format!("zone {name:?}: one of polygon and mask wanted"));
            return None;
        }
    };
    Some(Zone {
        name: name.into(),
        role,
        shape,
        threshold: threshold.map(|v| v as f32),
        low_threshold: low_threshold.map(|v| v as f32),
        min_area_px,
        min_size_px,
    })
}

fn read_mask(
    r: &mut Reader<'_>,
    s: &Section<'_>,
    file: &str,
    folder: &Path,
    masks: &mut Vec<(PathBuf, Vec<u8>)>,
) -> Option<crate::frame::Gray> {
    let relative = PathBuf::from(file);
    if !relative.components().all(|c| matches!(c, std::path::Component::Normal(_))) {
        r.fault_at(s, "mask", format!("{} must lie in the recipe's folder or below, got {file:?}", s.path("mask")));
        return None;
    }
    let path = folder.join(&relative);
    let read = std::fs::read(&path).map_err(|e| Error::io(format!("picture {}", path.display()), e));
    match read.and_then(|bytes| Ok((load_gray(&path)?, bytes))) {
        Ok((picture, bytes)) => {
            if !masks.iter().any(|(known, _)| *known == relative) {
                masks.push((relative, bytes));
            }
            Some(picture)
        }
        Err(e) => {
            r.fault_at(s, "mask", format!("{}: {e}", s.path("mask")));
            None
        }
    }
}

#[cfg(test)]
mod tests;
