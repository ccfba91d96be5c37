//! Random scenes: a substrate and elements of one family, and how the scene is drawn.

use super::config::Config;
use super::random::Draw;
use super::raster::Point;
use super::shapes::{self, Element, Ink, Kind, View};
use crate::frame::Map;

/// The picture side in which [`Config::elements`] and [`Config::defects`] count, px.
pub(crate) const REFERENCE_SIDE_PX: f32 = 160.0;

/// Family of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Abstract shapes.
    Shapes,
    /// Copper areas, routed buses, rows of pads, vias.
    Board,
    /// Traces, pads, vias and polygons in any arrangement.
    Traces,
    /// Mostly parallel lines.
    Buses,
    /// Chips with leads.
    Components,
    /// Anything.
    Mixture,
}

const FAMILIES: [Family; 6] = [Family::Shapes, Family::Board, Family::Traces, Family::Buses, Family::Components, Family::Mixture];

const ABSTRACT: [Kind; 7] = [Kind::Rectangle, Kind::Disc, Kind::Triangle, Kind::Ring, Kind::Plus, Kind::Mesh, Kind::Polygon];

/// A scene: what the template shows, and the frame but for its defects.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub family: Family,
    pub two_tone: bool,
    pub background: f32,
    pub palette: Vec<f32>,
    pub elements: Vec<Element>,
}

/// How one drawing of a scene differs from the drawing as designed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deviation {
    /// Shift of each element, px (empty: none).
    pub shifts: Vec<Point>,
    /// Change of line widths, px.
    pub width_change: f32,
}

impl Scene {
    /// A random scene filling `width` x `height` px and `margin` px around.
    pub(crate) fn random(draw: &mut Draw, config: &Config, width: f32, height: f32, margin: f32) -> Self {
        let two_tone = draw.chance(config.two_tone_share);
        let (background, palette) = if two_tone {
            let (dark, bright) = (draw.uniform(0.0, 0.45), draw.uniform(0.55, 1.0));
            let (background, ink) = if draw.chance(0.5) { (bright, dark) } else { (dark, bright) };
            (background, vec![ink, ink, ink, background])
        } else {
            let background = draw.uniform(0.05, 0.95);
            let palette = (0..draw.whole(2, 5))
                .map(|_| {
                    let p = draw.unit();
                    if (p - background).abs() > config.element_contrast { p } else { (background + 0.3) % 1.0 }
                })
                .collect();
            (background, palette)
        };
        let family = FAMILIES[draw.weighted(&config.scene_weights).min(FAMILIES.len() - 1)];
        let (full_w, full_h) = (width + 2.0 * margin, height + 2.0 * margin);
        let share = full_w * full_h / (REFERENCE_SIDE_PX * REFERENCE_SIDE_PX);
        let density = match family {
            // Its elements are large or repeat themselves.
            Family::Board => 0.55,
            _ => 1.0,
        };
        let count = ((draw.within(config.elements) * share * density + 0.5) as usize).max(2);
        let longest = (0.7 * full_w.max(full_h)).clamp(20.0, 220.0);
        let mut elements: Vec<Element> = (0..count)
            .map(|i| {
                let gray = *draw.pick(&palette);
                let at = [draw.uniform(-0.05, 1.05) * full_w - margin, draw.uniform(-0.05, 1.05) * full_h - margin];
                let kind = Self::kind(draw, family);
                // Boards lay copper first: the first elements in the ink, so that a background-coloured one carves into something.
                let gray = if two_tone && i * 2 < count { palette[0] } else { gray };
                let ink = Ink { gray, background, second: (gray + 0.35) % 1.0 };
                shapes::element(draw, kind, at, ink, longest)
            })
            .collect();
        if family == Family::Board {
            // Areas below everything else.
            elements.sort_by_key(|e| e.kind != Kind::Pour);
        }
        Self { family, two_tone, background, palette, elements }
    }

    fn kind(draw: &mut Draw, family: Family) -> Kind {
        match family {
            Family::Shapes => *draw.pick(&ABSTRACT),
            Family::Board => {
                let kinds = [Kind::Pour, Kind::Bus, Kind::PadRow, Kind::Trace, Kind::Via, Kind::ViaGrid, Kind::Pad, Kind::Text];
                kinds[draw.weighted(&[0.20, 0.22, 0.14, 0.22, 0.08, 0.07, 0.05, 0.02])]
            }
            Family::Traces => [Kind::Trace, Kind::Pad, Kind::Via, Kind::Polygon][draw.weighted(&[0.45, 0.25, 0.2, 0.1])],
            Family::Buses => {
                if draw.chance(0.4) {
                    Kind::Bus
                } else {
                    Kind::Trace
                }
            }
            Family::Components => Kind::Component,
            Family::Mixture => match draw.whole(0, 8) {
                0 => *draw.pick(&ABSTRACT),
                1 => Kind::Trace,
                2 => Kind::Pad,
                3 => Kind::Via,
                4 => Kind::Bus,
                5 => Kind::Component,
                6 => Kind::Text,
                7 => Kind::PadRow,
                _ => Kind::Pour,
            },
        }
    }

    /// Draws the scene on a fresh canvas; element `without` is left out.
    pub(crate) fn draw(&self, view: View, size: (usize, usize), deviation: &Deviation, without: Option<usize>) -> Map {
        let mut canvas = Map::new(size.0, size.1);
        canvas.data_mut().fill(self.background);
        for (i, element) in self.elements.iter().enumerate() {
            if Some(i) != without {
                let shift = deviation.shifts.get(i).copied().unwrap_or([0.0, 0.0]);
                element.draw(&mut canvas, view, shift, deviation.width_change);
            }
        }
        canvas
    }

    /// Gray values in use, the substrate's last.
    pub(crate) fn inks(&self) -> Vec<f32> {
        self.palette.iter().copied().chain([self.background]).collect()
    }

    /// Random own movements and etching of a second part of the same design.
    pub(crate) fn deviation(&self, draw: &mut Draw, config: &Config) -> Deviation {
        let mut out = Deviation::default();
        if draw.chance(config.jitter_share) {
            let sigma = draw.within(config.jitter_sigma_px);
            let most = config.jitter_max_px;
            out.shifts = self
                .elements
                .iter()
                .map(|_| {
                    if draw.chance(config.jittered_share) {
                        [draw.normal(sigma).clamp(-most, most), draw.normal(sigma).clamp(-most, most)]
                    } else {
                        [0.0, 0.0]
                    }
                })
                .collect();
        }
        if draw.chance(config.line_width_share) {
            out.width_change = draw.within(config.line_width_px);
        }
        out
    }
}
