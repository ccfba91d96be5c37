//! Parts of one product as a camera sees them: pose, surroundings, light, blur, noise, defects; with the true pose and label.
//!
//! The demo's frames and `teach`'s self-proof come from here. [`Product::random`] designs a board larger than its template, so that
//! frames show real content beyond the template's edge; [`Product::from_template`] takes any golden image and continues it by its own
//! edge values. [`Product::part`] photographs part `index`: the same bytes for the same arguments on every machine.

use super::config::Config;
use super::photometry;
use super::random::{Draw, PI, sin_cos};
use super::scene::{Deviation, Scene};
use super::shapes::View;
use super::{defects, label};
use crate::dataset::Box4;
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};
use crate::geometry::Affine;
use crate::score;

/// Pixels around a pose's edge that are not scored: the warp mixes template and surroundings there.
const EDGE_PX: usize = 3;
/// How often a part is drawn anew when none of its defects can be seen.
const DEFECT_TRIES: u64 = 24;

/// How parts are photographed. Pairs `[low, high]` are uniform ranges.
#[derive(Debug, Clone, PartialEq)]
pub struct PartOptions {
    /// Width and height of the frame, px.
    pub frame_size: (usize, usize),
    /// Rotation of the part, degrees, clockwise on the screen.
    pub rotation_degrees: [f64; 2],
    /// Size of the part in the frame against the template.
    pub scale: [f64; 2],
    /// Shift of the template's centre from the frame's centre along each axis, px.
    pub shift_px: [f64; 2],
    /// Number of defects; 0 makes a good part.
    pub defects: usize,
    /// Radius of a defect, px of the template, on a logarithmic scale.
    pub defect_radius_px: [f32; 2],
    /// Strength of lighting changes (1 = the simulation's usual ranges).
    pub light: f32,
    /// Standard deviation of the blur, px.
    pub blur_px: [f32; 2],
    /// Standard deviation of the noise, gray 0..1.
    pub noise: [f32; 2],
    /// Whether elements move and lines change their width a little from part to part (designed products only).
    pub variation: bool,
}

impl Default for PartOptions {
    /// A 640 x 480 camera, parts turned by at most 12 degrees either way, good.
    fn default() -> Self {
        Self {
            frame_size: (640, 480),
            rotation_degrees: [-12.0, 12.0],
            scale: [0.95, 1.05],
            shift_px: [-25.0, 25.0],
            defects: 0,
            defect_radius_px: [2.5, 9.0],
            light: 0.5,
            blur_px: [0.4, 0.9],
            noise: [0.004, 0.015],
            variation: true,
        }
    }
}

impl PartOptions {
    fn check(&self) -> Result<()> {
        let (w, h) = self.frame_size;
        if !(32..=8192).contains(&w) || !(32..=8192).contains(&h) {
            return Err(Error::config(format!("part.frame_size must be between 32 and 8192 px each way, got {w}x{h}")));
        }
        let ranges = [
            ("rotation_degrees", self.rotation_degrees, -360.0, 360.0),
            ("scale", self.scale, 0.1, 10.0),
            ("shift_px", self.shift_px, -8192.0, 8192.0),
            ("defect_radius_px", self.defect_radius_px.map(f64::from), 0.5, 200.0),
            ("blur_px", self.blur_px.map(f64::from), 0.1, 10.0),
            ("noise", self.noise.map(f64::from), 0.0, 0.5),
            ("light", [f64::from(self.light); 2], 0.0, 3.0),
        ];
        for (name, [low, high], least, most) in ranges {
            if !(low >= least && low <= high && high <= most) {
                return Err(Error::config(format!(
                    "part.{name} must run from low to high within {least} to {most}, got [{low}, {high}]"
                )));
            }
        }
        Ok(())
    }
}

/// One photographed part with its truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The frame.
    pub frame: Gray,
    /// The true pose.
    pub frame_from_template: Affine,
    /// 255 defect, 0 good, 128 not scored (outside the template, specks); frame coordinates.
    pub label: Gray,
    /// Boxes of the defects, padded by the scorer's margin.
    pub boxes: Vec<Box4>,
    /// Whether nothing is labelled.
    pub clean: bool,
}

/// What parts are drawn from.
#[derive(Debug, Clone)]
enum Source {
    /// A design, drawn anew for each part.
    Designed(Box<Scene>),
    /// A picture.
    Pictured,
}

/// A product: its template and what parts of it look like.
#[derive(Debug, Clone)]
pub struct Product {
    /// The golden image.
    pub template: Gray,
    source: Source,
    canvas: Map,
    view: View,
    palette: Vec<f32>,
}

/// A random product's template, `size` = (width, height) px: shorthand for [`Product::random`].
///
/// # Errors
/// As [`Product::random`].
pub fn product(seed: u64, size: (usize, usize)) -> Result<Gray> {
    Product::random(seed, size).map(|p| p.template)
}

impl Product {
    /// Designs a product; its template is `size` = (width, height) px of a larger board.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] when a side is not between 64 and 4096 px.
    pub fn random(seed: u64, size: (usize, usize)) -> Result<Self> {
        let (w, h) = size;
        if !(64..=4096).contains(&w) || !(64..=4096).contains(&h) {
            return Err(Error::config(format!("product size must be between 64 and 4096 px each way, got {w}x{h}")));
        }
        // The pose must be observable and the board look like one: routed, many elements, two to four grays.
        let config = Config {
            scene_weights: vec![0.0, 0.7, 0.2, 0.0, 0.0, 0.1],
            elements: [7.0, 11.0],
            two_tone_share: 0.6,
            element_contrast: 0.25,
            ..Config::default()
        };
        let mut draw = Draw::new(seed, u64::MAX);
        let margin = (w.max(h) as f32 * 0.3).round();
        let view = View { margin, factor: 2.0 };
        let scene = Scene::random(&mut draw, &config, w as f32, h as f32, margin);
        let canvas_size = (((w as f32 + 2.0 * margin) * 2.0) as usize, ((h as f32 + 2.0 * margin) * 2.0) as usize);
        let canvas = scene.draw(view, canvas_size, &Deviation::default(), None);
        let palette = scene.inks();
        let mut template = photograph(&[&canvas], view, size, &Affine::IDENTITY).remove(0);
        tone(&mut template);
        photometry::blur(&mut template, 0.6);
        photometry::noise(&mut draw, &mut template, 0.004);
        let template = photometry::quantise(&template);
        Ok(Self { template, source: Source::Designed(Box::new(scene)), canvas, view, palette })
    }

    /// A product known by one picture only. Beyond the picture's edge frames show its edge values.
    ///
    /// # Errors
    /// [`crate::error::Kind::Data`] when a side is not between 32 and 8192 px.
    pub fn from_template(template: &Gray) -> Result<Self> {
        let (w, h) = template.size();
        if !(32..=8192).contains(&w) || !(32..=8192).contains(&h) {
            return Err(Error::data(format!("a template must have 32 to 8192 px each way, got {w}x{h}")));
        }
        let canvas = Map::from_fn(w, h, |x, y| f32::from(template.get(x, y)) / 255.0);
        // Gray values in use: deciles of the histogram.
        let mut sorted: Vec<u8> = template.data().to_vec();
        sorted.sort_unstable();
        let palette = (0..=10).map(|i| f32::from(sorted[(sorted.len() - 1) * i / 10]) / 255.0).collect();
        let view = View { margin: 0.0, factor: 1.0 };
        Ok(Self { template: template.clone(), source: Source::Pictured, canvas, view, palette })
    }

    /// Photographs part `index` under `seed`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`] when an option is out of range; [`crate::error::Kind::Data`] when defects were asked for and none
    /// can be seen in the frame after many tries (the pose leaves nothing of the template in view).
    pub fn part(&self, seed: u64, index: u64, options: &PartOptions) -> Result<Part> {
        options.check()?;
        for attempt in 0..DEFECT_TRIES {
            let mut draw = Draw::new(seed ^ (attempt << 48), index);
            let part = self.attempt(&mut draw, options);
            if options.defects == 0 || !part.clean {
                return Ok(part);
            }
        }
        Err(Error::data(format!(
            "part {index}: none of {} defects can be seen; the pose must leave some of the template in the frame",
            options.defects
        )))
    }

    fn attempt(&self, draw: &mut Draw, options: &PartOptions) -> Part {
        let (fw, fh) = options.frame_size;
        let (tw, th) = self.template.size();
        let within = |draw: &mut Draw, r: [f64; 2]| r[0] + (r[1] - r[0]) * f64::from(draw.unit());
        let degrees = within(draw, options.rotation_degrees);
        let scale = within(draw, options.scale);
        let shift = (within(draw, options.shift_px), within(draw, options.shift_px));
        let pose = exact_pose(degrees, scale, shift, (tw, th), (fw, fh));

        let config =
            Config { defect_radius_px: options.defect_radius_px, large_share: 0.0, stain_share: 0.0, ..Config::default() };
        let good = match &self.source {
            Source::Designed(scene) if options.variation => {
                let deviation = scene.deviation(draw, &Config { jitter_max_px: 1.0, ..Config::default() });
                scene.draw(self.view, self.canvas.size(), &deviation, None)
            }
            _ => self.canvas.clone(),
        };
        let mut bad = good.clone();
        let (f, m) = (self.view.factor, self.view.margin);
        let inner = [m * f, m * f, (m + tw as f32) * f, (m + th as f32) * f];
        // Only where the camera looks, a defect's radius from the frame's edge.
        let allowed = |p: [f32; 2]| {
            let half = f64::from((f - 1.0) / 2.0);
            let at = |v: f32| (f64::from(v) - half) / f64::from(f) - f64::from(m);
            let (tx, ty) = (at(p[0]), at(p[1]));
            let (x, y) = pose.apply(tx, ty);
            let keep = 8.0;
            x >= keep
                && y >= keep
                && x < fw as f64 - keep
                && y < fh as f64 - keep
                && tx >= keep
                && ty >= keep
                && tx < tw as f64 - keep
                && ty < th as f64 - keep
        };
        let ground = defects::Ground { palette: &self.palette, factor: f, inner, allowed: &allowed };
        defects::paint(draw, &config, &ground, &good, &mut bad, options.defects);

        let mut pictures = photograph(&[&good, &bad], self.view, (fw, fh), &pose);
        let (mut frame, clean) = (pictures.remove(1), pictures.remove(0));
        let defective: Vec<bool> =
            clean.data().iter().zip(frame.data()).map(|(a, b)| (a - b).abs() > config.label_contrast).collect();
        if matches!(self.source, Source::Designed(_)) {
            tone(&mut frame);
        }
        photometry::light(draw, &config, &mut frame, options.light);
        let sigma = draw.within(options.blur_px);
        photometry::blur(&mut frame, sigma);
        let sigma = draw.within(options.noise);
        photometry::noise(draw, &mut frame, sigma);

        let mut label = label::from_mask(fw, fh, &defective, config.speck_px, None);
        mark_outside(&mut label, &pose, (tw, th));
        let protocol = score::Settings::default();
        let boxes = score::boxes_of_mask(&label, protocol.merge_px, protocol.pad_px);
        let clean = boxes.is_empty();
        Part { frame: photometry::quantise(&frame), frame_from_template: pose, label, boxes, clean }
    }
}

/// Leaves the darkest and brightest values to lighting: scene grays 0..1 become 0.12..0.88.
fn tone(map: &mut Map) {
    map.data_mut().iter_mut().for_each(|v| *v = 0.12 + 0.76 * *v);
}

/// [`Affine::about_centres`] with exactly rounded operations only.
fn exact_pose(degrees: f64, scale: f64, shift: (f64, f64), template: (usize, usize), frame: (usize, usize)) -> Affine {
    let (s, c) = sin_cos((degrees as f32) * (PI / 180.0));
    let (s, c) = (f64::from(s) * scale, f64::from(c) * scale);
    let centre = |v: usize| (v as f64 - 1.0) / 2.0;
    let (tx, ty) = (centre(template.0), centre(template.1));
    let (gx, gy) = (centre(frame.0) + shift.0, centre(frame.1) + shift.1);
    Affine { m: [[c, -s, gx - c * tx + s * ty], [s, c, gy - s * tx - c * ty]] }
}

/// Looks at canvases through `frame_from_template`, 2 x 2 samples a pixel, edges repeated.
fn photograph(canvases: &[&Map], view: View, size: (usize, usize), pose: &Affine) -> Vec<Map> {
    // A similarity from this module is never singular (scale >= 0.1), so the identity is never used.
    let inverse = pose.invert().unwrap_or(Affine::IDENTITY).m;
    let (cw, ch) = canvases[0].size();
    let (f, margin, half) = (f64::from(view.factor), f64::from(view.margin), f64::from((view.factor - 1.0) / 2.0));
    let mut out: Vec<Map> = canvases.iter().map(|_| Map::new(size.0, size.1)).collect();
    for y in 0..size.1 {
        for x in 0..size.0 {
            for (ox, oy) in [(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)] {
                let (px, py) = (x as f64 + ox, y as f64 + oy);
                let tx = inverse[0][0] * px + inverse[0][1] * py + inverse[0][2];
                let ty = inverse[1][0] * px + inverse[1][1] * py + inverse[1][2];
                let sx = (((tx + margin) * f + half) as f32).clamp(0.0, cw as f32 - 1.0);
                let sy = (((ty + margin) * f + half) as f32).clamp(0.0, ch as f32 - 1.0);
                let (x0, y0) = ((sx as usize).min(cw - 2), (sy as usize).min(ch - 2));
                let (fx, fy) = (sx - x0 as f32, sy - y0 as f32);
                let at = y0 * cw + x0;
                for (canvas, picture) in canvases.iter().zip(&mut out) {
                    let (a, b) = (&canvas.data()[at..at + 2], &canvas.data()[at + cw..at + cw + 2]);
                    let top = a[0] + fx * (a[1] - a[0]);
                    let bottom = b[0] + fx * (b[1] - b[0]);
                    picture.data_mut()[y * size.0 + x] += 0.25 * (top + fy * (bottom - top));
                }
            }
        }
    }
    out
}

/// Marks as not scored what the template does not cover, with a band inside its edge.
fn mark_outside(label: &mut Gray, pose: &Affine, template: (usize, usize)) {
    let inverse = pose.invert().unwrap_or(Affine::IDENTITY);
    let edge = EDGE_PX as f64;
    for y in 0..label.height() {
        for x in 0..label.width() {
            let (tx, ty) = inverse.apply(x as f64, y as f64);
            if tx < edge || ty < edge || tx > template.0 as f64 - 1.0 - edge || ty > template.1 as f64 - 1.0 - edge {
                label.set(x, y, label::NOT_SCORED);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(a: &Gray, b: &Gray, usable: impl Fn(usize, usize) -> bool) -> f64 {
        let (mut sum, mut n) = (0.0, 0.0);
        for y in 0..a.height() {
            for x in 0..a.width() {
                if usable(x, y) {
                    sum += (f64::from(a.get(x, y)) - f64::from(b.get(x, y))).abs();
                    n += 1.0;
                }
            }
        }
        sum / n
    }

    #[test]
    fn the_stated_pose_lays_the_template_on_the_frame() {
        let product = Product::random(3, (200, 160)).unwrap();
        let options = PartOptions {
            frame_size: (240, 220),
            rotation_degrees: [90.0, 90.0],
            scale: [1.0, 1.0],
            shift_px: [4.0, 4.0],
            light: 0.0,
            noise: [0.0, 0.0],
            blur_px: [0.6, 0.6],
            variation: false,
            ..PartOptions::default()
        };
        let part = product.part(1, 0, &options).unwrap();
        let back = part.frame_from_template.invert().unwrap();
        let usable = |x: usize, y: usize| part.label.get(x, y) == 0;
        let warped = Gray::from_fn(240, 220, |x, y| {
            if !usable(x, y) {
                return 0;
            }
            let (tx, ty) = back.apply(x as f64, y as f64);
            product.template.get((tx + 0.5) as usize, (ty + 0.5) as usize)
        });
        let right = difference(&warped, &part.frame, usable);
        assert!(right < 4.0, "mean difference {right}");
        let off = Gray::from_fn(240, 220, |x, y| warped.get((x + 3).min(239), y));
        assert!(difference(&off, &part.frame, usable) > 2.0 * right);
    }

    #[test]
    fn defects_are_labelled_inside_the_template_and_good_parts_are_clean() {
        for product in [
            Product::random(5, (256, 192)).unwrap(),
            Product::from_template(&Product::random(5, (256, 192)).unwrap().template).unwrap(),
        ] {
            for i in 0..6 {
                let frame_size = (256, 200);
                let bad = product.part(9, i, &PartOptions { frame_size, defects: 3, ..PartOptions::default() }).unwrap();
                assert!(!bad.clean && !bad.boxes.is_empty() && bad.label.data().contains(&255));
                let good = product.part(9, i, &PartOptions { frame_size, ..PartOptions::default() }).unwrap();
                assert!(good.clean && good.boxes.is_empty() && !good.label.data().contains(&255));
                assert!(good.label.data().contains(&128), "the template does not cover the whole frame");
                assert_eq!(good, product.part(9, i, &PartOptions { frame_size, ..PartOptions::default() }).unwrap());
            }
        }
    }

    #[test]
    fn bad_options_are_named() {
        let product = Product::random(1, (64, 64)).unwrap();
        let message = |o: PartOptions| product.part(0, 0, &o).unwrap_err().message().to_string();
        assert_eq!(
            message(PartOptions { frame_size: (8, 480), ..PartOptions::default() }),
            "part.frame_size must be between 32 and 8192 px each way, got 8x480"
        );
        assert_eq!(
            message(PartOptions { scale: [0.0, 1.0], ..PartOptions::default() }),
            "part.scale must run from low to high within 0.1 to 10, got [0, 1]"
        );
        assert!(
            message(PartOptions { defects: 1, shift_px: [5000.0, 5000.0], ..PartOptions::default() })
                .contains("none of 1 defects")
        );
        assert_eq!(
            Product::random(1, (10, 64)).unwrap_err().message(),
            "product size must be between 64 and 4096 px each way, got 10x64"
        );
        assert!(Product::from_template(&Gray::new(4, 4)).is_err());
    }
}
