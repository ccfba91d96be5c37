//! Zones of a template: where to judge, and how strictly.
//!
//! Zones are given in template coordinates (px, pixel centres at integers) and painted once into a picture of labels; a frame pixel is
//! looked up through the pose, to the nearest template pixel. Later zones lie over earlier ones, and ignore zones over all.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::frame::Gray;
use crate::geometry::Affine;

use super::Settings;
use super::runs::threshold_level;

/// What happens in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Judged.
    Inspect,
    /// Not judged.
    Ignore,
}

/// Where a zone lies.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Corners (x, y), template px, in order; the last joins the first. Pixels whose centre is inside belong to the zone.
    Polygon(Vec<(f64, f64)>),
    /// A picture of the template's size: the zone is where it is 128 or more.
    Mask(Gray),
}

/// One zone. What is `None` comes from the decision's [`Settings`].
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Name, told with every defect found in it.
    pub name: Arc<str>,
    /// Judged or not.
    pub role: Role,
    /// Where.
    pub shape: Shape,
    /// Score from which a pixel is a defect.
    pub threshold: Option<f32>,
    /// Score down to which a defect is followed.
    pub low_threshold: Option<f32>,
    /// Smallest blob that is a defect, px.
    pub min_area_px: Option<usize>,
    /// Least longer side of a defect's box, px.
    pub min_size_px: Option<usize>,
}

/// Most zones of one template.
pub const MAX_ZONES: usize = 250;

/// Zones painted on a template.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneMap {
    /// 0 outside all zones, else 1 + the zone's index.
    labels: Gray,
    zones: Vec<Zone>,
    judge_outside: bool,
}

impl ZoneMap {
    /// Paints `zones` on a template of `size` px. `judge_outside` says whether pixels in no zone are judged (with the settings).
    ///
    /// # Errors
    /// [`crate::Kind::Config`] naming every fault: a polygon of fewer than three corners, with edges that cross, without area or with a
    /// corner outside the template; a mask of another size or without a pixel; two inspect zones that share pixels and neither lies in
    /// the other; two zones of one name; values out of range; more than [`MAX_ZONES`].
    pub fn new(size: (usize, usize), zones: Vec<Zone>, judge_outside: bool, settings: &Settings) -> Result<Self> {
        let mut faults = Vec::new();
        if zones.len() > MAX_ZONES {
            return Err(Error::config(format!("zones: {} given, at most {MAX_ZONES} wanted", zones.len())));
        }
        let mut labels = Gray::new(size.0, size.1);
        let mut inspected: Vec<(usize, Vec<Span>)> = Vec::new();
        for role in [Role::Inspect, Role::Ignore] {
            for (i, zone) in zones.iter().enumerate().filter(|(_, z)| z.role == role) {
                check_values(zone, settings, &mut faults);
                let spans = match &zone.shape {
                    Shape::Polygon(corners) => match polygon_fault(corners, size) {
                        Some(fault) => {
                            faults.push(format!("zone {:?}: {fault}", zone.name));
                            continue;
                        }
                        None => polygon_spans(corners, size),
                    },
                    Shape::Mask(mask) if mask.size() != size => {
                        faults.push(format!(
                            "zone {:?}: mask of {}x{} px, the template's {}x{} px wanted",
                            zone.name,
                            mask.width(),
                            mask.height(),
                            size.0,
                            size.1
                        ));
                        continue;
                    }
                    Shape::Mask(mask) => mask_spans(mask),
                };
                if spans.is_empty() {
                    faults.push(format!("zone {:?}: holds no pixel of the template", zone.name));
                }
                for span in &spans {
                    labels.row_mut(span.y)[span.from..span.to].fill(i as u8 + 1);
                }
                if role == Role::Inspect {
                    inspected.push((i, spans));
                }
            }
        }
        for (n, (i, a)) in inspected.iter().enumerate() {
            for (j, b) in &inspected[n + 1..] {
                let both = common(a, b);
                if both > 0 && both < area(a) && both < area(b) {
                    faults.push(format!(
                        "zones {:?} and {:?}: they share {both} px, inspect zones must be apart or nested",
                        zones[*i].name, zones[*j].name
                    ));
                }
            }
        }
        for (i, a) in zones.iter().enumerate() {
            for b in &zones[i + 1..] {
                if a.name == b.name {
                    faults.push(format!("zone {:?}: the name is used twice", a.name));
                }
            }
        }
        if faults.is_empty() { Ok(Self { labels, zones, judge_outside }) } else { Err(Error::config(faults.join("; "))) }
    }

    /// Zones that were painted before: their labels ([`ZoneMap::labels`]) and what holds in each. The shapes are not needed any more.
    ///
    /// # Errors
    /// [`crate::Kind::Data`] when a label names no zone.
    pub fn painted(labels: Gray, zones: Vec<Zone>, judge_outside: bool) -> Result<Self> {
        let highest = labels.data().iter().copied().max().unwrap_or(0) as usize;
        if highest > zones.len() || zones.len() > MAX_ZONES {
            return Err(Error::data(format!("picture of zones: it names zone {highest}, there are {}", zones.len())));
        }
        Ok(Self { labels, zones, judge_outside })
    }

    /// The zones, in their order.
    #[must_use]
    pub fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// Template pixels: 0 outside all zones, else 1 + the index of the zone that holds there.
    #[must_use]
    pub fn labels(&self) -> &Gray {
        &self.labels
    }

    /// The zone at template coordinates (x, y), if any.
    #[must_use]
    pub fn zone_at(&self, x: f64, y: f64) -> Option<&Zone> {
        match self.rule_at(&Affine::similarity(0.0, 1.0, x, y), 0, 0) {
            0 => None,
            i => self.zones.get(i as usize - 1),
        }
    }

    /// Whether pixels in no zone are judged.
    #[must_use]
    pub fn judges_outside(&self) -> bool {
        self.judge_outside
    }

    /// The index into [`Rules`] of the zone at frame pixel (x, y): 0 = in none.
    #[inline]
    pub(super) fn rule_at(&self, template_from_frame: &Affine, x: usize, y: usize) -> u8 {
        let (tx, ty) = template_from_frame.apply(x as f64, y as f64);
        // A saturating cast: what rounds to just outside the template takes its border pixel.
        let tx = ((tx + 0.5).floor() as i64).clamp(0, self.labels.width() as i64 - 1) as usize;
        let ty = ((ty + 0.5).floor() as i64).clamp(0, self.labels.height() as i64 - 1) as usize;
        self.labels.get(tx, ty)
    }
}

fn check_values(zone: &Zone, settings: &Settings, faults: &mut Vec<String>) {
    let with_zone = Settings {
        threshold: zone.threshold.unwrap_or(settings.threshold),
        low_threshold: zone_low(zone, settings),
        min_area_px: zone.min_area_px.unwrap_or(settings.min_area_px),
        min_size_px: zone.min_size_px.unwrap_or(settings.min_size_px),
        ..Settings::default()
    };
    faults.extend(with_zone.faults().into_iter().map(|f| format!("zone {:?}: {f}", zone.name)));
}

/// A zone's own threshold without a low one of its own keeps the settings' low one when that is still below.
fn zone_low(zone: &Zone, settings: &Settings) -> Option<f32> {
    match (zone.low_threshold, zone.threshold) {
        (Some(low), _) => Some(low),
        (None, Some(high)) => settings.low_threshold.map(|low| low.min(high)),
        (None, None) => settings.low_threshold,
    }
}

/// How one zone's pixels are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub high: u16,
    pub low: u16,
    pub min_area: usize,
    pub min_size: usize,
}

/// The rules of one frame: index 0 outside all zones, then one a zone; none = not judged.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    rules: &'a [Option<Rule>],
    zones: Option<&'a ZoneMap>,
}

impl<'a> Rules<'a> {
    /// Writes the rules into `rules`, for their memory.
    pub fn new(settings: &Settings, zones: Option<&'a ZoneMap>, rules: &'a mut Vec<Option<Rule>>) -> Self {
        let rule = |threshold: f32, low: Option<f32>, min_area: usize, min_size: usize| {
            let high = threshold_level(threshold);
            Rule { high, low: low.map_or(high, threshold_level).min(high), min_area, min_size }
        };
        let base = rule(settings.threshold, settings.low_threshold, settings.min_area_px, settings.min_size_px);
        rules.clear();
        rules.push(zones.is_none_or(|z| z.judge_outside).then_some(base));
        for zone in zones.iter().flat_map(|z| &z.zones) {
            rules.push((zone.role == Role::Inspect).then(|| {
                rule(
                    zone.threshold.unwrap_or(settings.threshold),
                    zone_low(zone, settings),
                    zone.min_area_px.unwrap_or(settings.min_area_px),
                    zone.min_size_px.unwrap_or(settings.min_size_px),
                )
            }));
        }
        Self { rules, zones }
    }

    #[inline]
    pub fn get(&self, index: u8) -> Option<Rule> {
        self.rules[index as usize]
    }

    /// Lowest level that any rule looks at.
    pub fn lowest(&self) -> u16 {
        self.rules.iter().flatten().map(|r| r.low).min().unwrap_or(u16::MAX)
    }

    pub fn has_zones(&self) -> bool {
        self.zones.is_some()
    }

    pub fn name(&self, index: u8) -> Arc<str> {
        match (index, self.zones) {
            (0, _) | (_, None) => Arc::default(),
            (i, Some(map)) => Arc::clone(&map.zones[i as usize - 1].name),
        }
    }
}

/// Pixels `from..to` of row `y`.
#[derive(Debug, Clone, Copy)]
struct Span {
    y: usize,
    from: usize,
    to: usize,
}

fn area(spans: &[Span]) -> usize {
    spans.iter().map(|s| s.to - s.from).sum()
}

/// Number of pixels in both; each list is by row, then column, without overlaps.
fn common(a: &[Span], b: &[Span]) -> usize {
    let (mut i, mut j, mut out) = (0, 0, 0);
    while let (Some(p), Some(q)) = (a.get(i), b.get(j)) {
        if p.y == q.y {
            out += p.to.min(q.to).saturating_sub(p.from.max(q.from));
        }
        if (p.y, p.to) < (q.y, q.to) {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

fn mask_spans(mask: &Gray) -> Vec<Span> {
    let mut out: Vec<Span> = Vec::new();
    for y in 0..mask.height() {
        for (x, _) in mask.row(y).iter().enumerate().filter(|&(_, &m)| m >= 128) {
            match out.last_mut() {
                Some(s) if s.y == y && s.to == x => s.to += 1,
                _ => out.push(Span { y, from: x, to: x + 1 }),
            }
        }
    }
    out
}

/// Pixels whose centre lies inside by the even-odd rule, edges half open, so that polygons sharing an edge share no pixel.
fn polygon_spans(corners: &[(f64, f64)], size: (usize, usize)) -> Vec<Span> {
    let mut out = Vec::new();
    let mut crossings: Vec<f64> = Vec::new();
    for y in 0..size.1 {
        crossings.clear();
        let line = y as f64;
        for ((x0, y0), (x1, y1)) in edges(corners) {
            if (y0 <= line) != (y1 <= line) {
                crossings.push(x0 + (line - y0) * (x1 - x0) / (y1 - y0));
            }
        }
        crossings.sort_unstable_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let from = pair[0].ceil().max(0.0) as usize;
            let to = (pair[1].ceil().max(0.0) as usize).min(size.0);
            if from < to {
                out.push(Span { y, from, to });
            }
        }
    }
    out
}

fn edges(corners: &[(f64, f64)]) -> impl Iterator<Item = ((f64, f64), (f64, f64))> + '_ {
    corners.iter().copied().zip(corners.iter().copied().cycle().skip(1))
}

fn polygon_fault(corners: &[(f64, f64)], size: (usize, usize)) -> Option<String> {
    if corners.len() < 3 {
        return Some(format!("polygon of {} corners, at least 3 wanted", corners.len()));
    }
    let inside = |v: f64, n: usize| v >= -0.5 && v <= n as f64 - 0.5;
    if let Some(&(x, y)) = corners.iter().find(|&&(x, y)| !(inside(x, size.0) && inside(y, size.1))) {
        return Some(format!("corner ({x}, {y}) lies outside the template of {}x{} px", size.0, size.1));
    }
    let list: Vec<_> = edges(corners).collect();
    for (i, a) in list.iter().enumerate() {
        for (j, b) in list.iter().enumerate().skip(i + 1) {
            let neighbours = j == i + 1 || (i == 0 && j == list.len() - 1);
            let faulty = if neighbours { fold_back(*a, *b) } else { segments_meet(*a, *b) };
            if faulty {
                return Some(format!(
                    "the edge from ({}, {}) crosses or touches the edge from ({}, {})",
                    a.0.0, a.0.1, b.0.0, b.0.1
                ));
            }
        }
    }
    None
}

type Segment = ((f64, f64), (f64, f64));

fn cross(o: (f64, f64), a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.0 - o.0) * (b.1 - o.1) - (a.1 - o.1) * (b.0 - o.0)
}

/// Whether the segments share a point.
fn segments_meet((a, b): Segment, (c, d): Segment) -> bool {
    let on = |p: (f64, f64), q: (f64, f64), r: (f64, f64)| {
        r.0 >= p.0.min(q.0) && r.0 <= p.0.max(q.0) && r.1 >= p.1.min(q.1) && r.1 <= p.1.max(q.1)
    };
    let (d1, d2, d3, d4) = (cross(c, d, a), cross(c, d, b), cross(a, b, c), cross(a, b, d));
    ((d1 > 0.0) != (d2 > 0.0) && d1 != 0.0 && d2 != 0.0 && (d3 > 0.0) != (d4 > 0.0) && d3 != 0.0 && d4 != 0.0)
        || (d1 == 0.0 && on(c, d, a))
        || (d2 == 0.0 && on(c, d, b))
        || (d3 == 0.0 && on(a, b, c))
        || (d4 == 0.0 && on(a, b, d))
}

/// Whether two edges that share a corner lie on each other (a spike), or one has no length.
fn fold_back(a: Segment, b: Segment) -> bool {
    let (shared, p, q) = if a.1 == b.0 { (a.1, a.0, b.1) } else { (a.0, a.1, b.0) };
    let along = (p.0 - shared.0) * (q.0 - shared.0) + (p.1 - shared.1) * (q.1 - shared.1);
    p == shared || q == shared || (cross(shared, p, q) == 0.0 && along > 0.0)
}
