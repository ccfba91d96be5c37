//! The evidence picture: what a person needs to see to understand one decision.
//!
//! Input: the frame, the template warped to it, the defect map, the mask of the defects, the blobs, and lines of text. Output: an RGB
//! picture with three panels side by side (frame with outlined and numbered defects, the template beside it, the score map as heat
//! with the threshold marked), a headline in the verdict's colour, and one line a defect. Frames are shown at a whole-number scale:
//! small ones enlarged to about [`PANEL_PX`], large ones reduced by the mean of blocks, so that no defect's outline is lost.
//!
//! [`Canvas`] is the small drawing surface that other reports use too.

use std::path::Path;

use crate::decide::{Blob, Sign};
use crate::error::Result;
use crate::font;
use crate::frame::{Gray, Map};
use crate::geometry::Affine;

/// Longest side of a panel that frames are brought near to, px.
pub const PANEL_PX: usize = 640;
/// Most defects listed in text; the panel marks all.
pub const LISTED: usize = 12;

/// Red, green, blue.
pub type Colour = [u8; 3];

/// Text and frames.
pub const WHITE: Colour = [240, 240, 240];
/// Less important text.
pub const DIM: Colour = [150, 155, 160];
/// Ground.
pub const GROUND: Colour = [24, 26, 30];
/// OK.
pub const GREEN: Colour = [46, 160, 67];
/// NG.
pub const RED: Colour = [218, 54, 51];
/// ERROR.
pub const AMBER: Colour = [200, 140, 20];
const ADDED: Colour = [255, 90, 60];
const MISSING: Colour = [60, 170, 255];
const MIXED: Colour = [255, 220, 60];
const OUTLINE: Colour = [0, 200, 120];

/// Colour that a blob's sign is drawn in.
#[must_use]
pub fn sign_colour(sign: Sign) -> Colour {
    match sign {
        Sign::Added => ADDED,
        Sign::Missing => MISSING,
        Sign::Mixed => MIXED,
    }
}

/// An RGB picture to draw on. What lies outside is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    /// A picture of one colour.
    #[must_use]
    pub fn new(width: usize, height: usize, ground: Colour) -> Self {
        Self { width, height, rgb: ground.iter().copied().cycle().take(width * height * 3).collect() }
    }

    /// Columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// `width * height * 3` bytes, row by row.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// One pixel; none outside.
    #[must_use]
    pub fn get(&self, x: usize, y: usize) -> Option<Colour> {
        (x < self.width && y < self.height).then(|| {
            let at = (y * self.width + x) * 3;
            [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
        })
    }

    /// Sets one pixel.
    pub fn set(&mut self, x: i64, y: i64, colour: Colour) {
        if x >= 0 && y >= 0 && (x as usize) < self.width && (y as usize) < self.height {
            let at = (y as usize * self.width + x as usize) * 3;
            self.rgb[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, x: i64, y: i64, width: usize, height: usize, colour: Colour) {
        for yy in y..y + height as i64 {
            for xx in x..x + width as i64 {
                self.set(xx, yy, colour);
            }
        }
    }

    /// Draws the border of a rectangle, `thickness` px inwards.
    pub fn frame(&mut self, x: i64, y: i64, width: usize, height: usize, thickness: usize, colour: Colour) {
        let t = thickness.min(width).min(height);
        self.fill(x, y, width, t, colour);
        self.fill(x, y + (height - t) as i64, width, t, colour);
        self.fill(x, y, t, height, colour);
        self.fill(x + (width - t) as i64, y, t, height, colour);
    }

    /// Draws a straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: Colour) {
        // Ends far outside (a pose gone wild) are not followed: a caption says what the picture cannot.
        let reach = 4.0 * (self.width + self.height) as f64;
        if [from.0, from.1, to.0, to.1].iter().any(|v| !v.is_finite() || v.abs() > reach) {
            return;
        }
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0);
        for i in 0..=steps as usize {
            let t = i as f64 / steps;
            let (x, y) = (from.0 + t * (to.0 - from.0), from.1 + t * (to.1 - from.1));
            self.set(x.round() as i64, y.round() as i64, colour);
        }
    }

    /// Writes one line of text with its top left corner at (x, y).
    pub fn text(&mut self, x: i64, y: i64, text: &str, scale: usize, colour: Colour) {
        for (i, c) in text.chars().enumerate() {
            let left = x + (i * font::ADVANCE * scale) as i64;
            for (column, bits) in font::glyph(c).into_iter().enumerate() {
                for row in (0..font::GLYPH_HEIGHT).filter(|row| bits >> row & 1 == 1) {
                    self.fill(left + (column * scale) as i64, y + (row * scale) as i64, scale, scale, colour);
                }
            }
        }
    }

    /// Puts another picture with its top left corner at (x, y).
    pub fn paste(&mut self, x: i64, y: i64, other: &Canvas) {
        for yy in 0..other.height {
            for xx in 0..other.width {
                if let Some(colour) = other.get(xx, yy) {
                    self.set(x + xx as i64, y + yy as i64, colour);
                }
            }
        }
    }

    /// Writes a PNG file.
    ///
    /// # Errors
    /// [`crate::Kind::CannotCreate`] naming the file.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::frame::save_rgb_png(path, &self.rgb, self.width, self.height)
    }
}

/// Scale from a frame to its panel: enlarged by a whole number, or one pixel for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Each pixel becomes this many in each direction.
    Up(usize),
    /// Blocks of this many in each direction become one pixel.
    Down(usize),
}

impl Scale {
    /// The scale that brings the longer side near to `panel` px without passing it, when the frame is larger.
    #[must_use]
    pub fn to_fit(size: (usize, usize), panel: usize) -> Self {
        let side = size.0.max(size.1).max(1);
        if side > panel { Scale::Down(side.div_ceil(panel)) } else { Scale::Up((panel / side).clamp(1, 4)) }
    }

    /// Size on the panel, px.
    #[must_use]
    pub fn apply(self, size: (usize, usize)) -> (usize, usize) {
        match self {
            Scale::Up(n) => (size.0 * n, size.1 * n),
            Scale::Down(n) => (size.0.div_ceil(n), size.1.div_ceil(n)),
        }
    }

    /// Where the frame coordinate `v` (pixel centres at integers) lies on the panel.
    #[must_use]
    pub fn place(self, v: f64) -> f64 {
        match self {
            Scale::Up(n) => (v + 0.5) * n as f64 - 0.5,
            Scale::Down(n) => (v + 0.5) / n as f64 - 0.5,
        }
    }

    /// The frame pixels `from..to` that panel pixel `p` shows, of `n` in all.
    fn block(self, p: usize, n: usize) -> std::ops::Range<usize> {
        match self {
            Scale::Up(k) => p / k..p / k + 1,
            Scale::Down(k) => p * k..((p + 1) * k).min(n),
        }
    }
}

/// A panel of a picture through `colour`, which sees a block of frame pixels (x range, y range).
fn panel(
    size: (usize, usize),
    scale: Scale,
    colour: impl Fn(std::ops::Range<usize>, std::ops::Range<usize>) -> Colour,
) -> Canvas {
    let (w, h) = scale.apply(size);
    let mut out = Canvas::new(w, h, GROUND);
    for y in 0..h {
        for x in 0..w {
            out.set(x as i64, y as i64, colour(scale.block(x, size.0), scale.block(y, size.1)));
        }
    }
    out
}

/// A gray picture as a panel: the mean of each block.
#[must_use]
pub fn gray_panel(picture: &Gray, scale: Scale) -> Canvas {
    panel(picture.size(), scale, |xs, ys| {
        let n = (xs.len() * ys.len()).max(1) as u32;
        let sum: u32 = ys.map(|y| picture.row(y)[xs.clone()].iter().map(|&v| u32::from(v)).sum::<u32>()).sum();
        [(sum / n) as u8; 3]
    })
}

/// Colour of a score 0..1: black over violet, red and orange to pale yellow.
#[must_use]
pub fn heat(score: f32) -> Colour {
    const STOPS: [[f32; 3]; 6] = [
        [0.0, 0.0, 4.0],
        [66.0, 10.0, 104.0],
        [147.0, 38.0, 103.0],
        [221.0, 81.0, 58.0],
        [252.0, 165.0, 10.0],
        [252.0, 255.0, 164.0],
    ];
    let at = if score.is_finite() { score.clamp(0.0, 1.0) } else { 1.0 } * (STOPS.len() - 1) as f32;
    let i = (at as usize).min(STOPS.len() - 2);
    let t = at - i as f32;
    std::array::from_fn(|c| (STOPS[i][c] * (1.0 - t) + STOPS[i + 1][c] * t).round() as u8)
}

/// A score map as a panel: the highest score of each block, so that reducing hides no peak.
#[must_use]
pub fn heat_panel(map: &Map, scale: Scale) -> Canvas {
    panel(map.size(), scale, |xs, ys| {
        let top = ys.map(|y| map.row(y)[xs.clone()].iter().copied().fold(0.0f32, f32::max)).fold(0.0f32, f32::max);
        heat(top)
    })
}

/// What the headline is coloured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headline {
    /// Good.
    Ok,
    /// Not good.
    Ng,
    /// Not inspected.
    Error,
}

impl Headline {
    /// The verdict's colour.
    #[must_use]
    pub fn colour(self) -> Colour {
        match self {
            Headline::Ok => GREEN,
            Headline::Ng => RED,
            Headline::Error => AMBER,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Headline::Ok => "OK",
            Headline::Ng => "NG",
            Headline::Error => "ERROR",
        }
    }
}

/// What the picture shows. Pictures that are `None` leave their panel out.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Verdict.
    pub headline: Headline,
    /// Text beside the verdict: product, part, time.
    pub title: &'a str,
    /// Lines under the headline: pose, thresholds, the error's message.
    pub notes: &'a [String],
    /// The frame.
    pub frame: &'a Gray,
    /// The template warped to the frame, of the frame's size; for a refused frame, the template as it is.
    pub template: Option<&'a Gray>,
    /// The defect map.
    pub map: Option<&'a Map>,
    /// 255 where a defect is (see [`crate::decide::Decider::draw_mask`]).
    pub mask: Option<&'a Gray>,
    /// The defects.
    pub blobs: &'a [Blob],
    /// Score from which a pixel is a defect, for the mark on the colour bar.
    pub threshold: f32,
    /// Pose, with the template's size, to draw the template's outline on the frame.
    pub outline: Option<(Affine, (usize, usize))>,
}

const GAP: usize = 8;

/// Draws the picture.
#[must_use]
pub fn render(scene: &Scene<'_>) -> Canvas {
    let scale = Scale::to_fit(scene.frame.size(), PANEL_PX);
    let (pw, ph) = scale.apply(scene.frame.size());
    let mut panels = vec![("frame", frame_panel(scene, scale))];
    if let Some(template) = scene.template {
        let own = if template.size() == scene.frame.size() { scale } else { Scale::to_fit(template.size(), PANEL_PX) };
        let mut shown = gray_panel(template, own);
        if own == scale && template.size() == scene.frame.size() {
            boxes(&mut shown, scene.blobs, scale);
        }
        panels.push((if scene.map.is_some() { "template, registered" } else { "template" }, shown));
    }
    if let Some(map) = scene.map {
        panels.push(("score map", heat_panel(map, scale)));
    }
    let width = (panels.iter().map(|(_, p)| p.width() + GAP).sum::<usize>() + GAP).max(480);
    let panel_height = panels.iter().map(|(_, p)| p.height()).max().unwrap_or(ph);
    // Wide pictures are looked at reduced: larger letters.
    let t = if width >= 1100 { 2 } else { 1 };
    let line_height = t * font::LINE;
    let listed = scene.blobs.len().min(LISTED);
    let more = usize::from(scene.blobs.len() > LISTED);
    let bar = usize::from(scene.map.is_some()) * (10 + line_height);
    let head = 14 + 2 * t * font::GLYPH_HEIGHT;
    let notes = scene.notes.len() * line_height;
    let height = head + GAP + notes + GAP + line_height + panel_height + bar + GAP + (listed + more) * line_height + GAP;
    let mut out = Canvas::new(width, height, GROUND);

    out.fill(0, 0, width, head, scene.headline.colour());
    out.text(GAP as i64, 7, scene.headline.word(), 2 * t, WHITE);
    out.text((GAP + 6 * 2 * t * font::ADVANCE) as i64, 7 + (t * font::GLYPH_HEIGHT / 2) as i64, scene.title, t, WHITE);
    let mut y = head + GAP;
    for note in scene.notes {
        out.text(GAP as i64, y as i64, note, t, DIM);
        y += line_height;
    }
    y += GAP;
    let mut x = GAP;
    for (name, picture) in &panels {
        out.text(x as i64, y as i64, name, t, WHITE);
        out.paste(x as i64, (y + line_height) as i64, picture);
        x += picture.width() + GAP;
    }
    y += line_height + panel_height;
    if scene.map.is_some() {
        colour_bar(&mut out, ((x - GAP - pw) as i64, y as i64 + 3), pw, scene.threshold, t);
        y += bar;
    }
    y += GAP;
    for (i, b) in scene.blobs.iter().take(LISTED).enumerate() {
        let zone = if b.zone.is_empty() { String::new() } else { format!(", zone {}", b.zone) };
        let line = format!(
            "{:>3} {:<7} {:>6} px  score {:.2} (mean {:.2})  at ({:.0}, {:.0})  {}x{}  gray {:+.0}{zone}",
            i + 1,
            b.sign.name(),
            b.area_px,
            b.score_max,
            b.score_mean,
            b.centroid.0,
            b.centroid.1,
            b.bbox.width,
            b.bbox.height,
            b.mean_gray_difference,
        );
        out.text(GAP as i64, y as i64, &line, t, sign_colour(b.sign));
        y += line_height;
    }
    if more > 0 {
        out.text(GAP as i64, y as i64, &format!("    and {} more", scene.blobs.len() - LISTED), t, DIM);
    }
    out
}

/// The frame alone, with the template's outline and the numbered defects.
#[must_use]
pub fn frame_panel(scene: &Scene<'_>, scale: Scale) -> Canvas {
    let mut out = gray_panel(scene.frame, scale);
    if let Some((pose, size)) = &scene.outline {
        // Centres of the corner pixels, so that the outline of a template that just fills the frame is still seen.
        let (w, h) = (size.0 as f64 - 1.0, size.1 as f64 - 1.0);
        let corners = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)].map(|(x, y)| pose.apply(x, y));
        for i in 0..4 {
            let place = |(x, y): (f64, f64)| (scale.place(x), scale.place(y));
            out.line(place(corners[i]), place(corners[(i + 1) % 4]), OUTLINE);
        }
    }
    if let Some(mask) = scene.mask.filter(|m| m.size() == scene.frame.size()) {
        contour(&mut out, mask, scale);
    }
    boxes(&mut out, scene.blobs, scale);
    out
}

/// Colours the panel pixels that show a border of the mask: defect pixels with a 4-neighbour that is none.
fn contour(out: &mut Canvas, mask: &Gray, scale: Scale) {
    let inside = panel(mask.size(), scale, |xs, ys| {
        let any = ys.into_iter().any(|y| mask.row(y)[xs.clone()].iter().any(|&v| v != 0));
        if any { WHITE } else { GROUND }
    });
    for y in 0..inside.height() {
        for x in 0..inside.width() {
            let here = |x: usize, y: usize| inside.get(x, y) == Some(WHITE);
            let bounded = x == 0 || y == 0 || !here(x - 1, y) || !here(x + 1, y) || !here(x, y - 1) || !here(x, y + 1);
            if here(x, y) && bounded {
                out.set(x as i64, y as i64, MIXED);
            }
        }
    }
}

/// Boxes a little larger than the blobs, numbered.
fn boxes(out: &mut Canvas, blobs: &[Blob], scale: Scale) {
    const ROOM: i64 = 4;
    for (i, b) in blobs.iter().enumerate() {
        let x0 = scale.place(b.bbox.x as f64 - 0.5).round() as i64 - ROOM;
        let y0 = scale.place(b.bbox.y as f64 - 0.5).round() as i64 - ROOM;
        let x1 = scale.place((b.bbox.x + b.bbox.width) as f64 - 0.5).round() as i64 + ROOM;
        let y1 = scale.place((b.bbox.y + b.bbox.height) as f64 - 0.5).round() as i64 + ROOM;
        let colour = sign_colour(b.sign);
        out.frame(x0, y0, (x1 - x0).max(1) as usize, (y1 - y0).max(1) as usize, 1, colour);
        let number = (i + 1).to_string();
        // Above the box, or below it at the upper border of the picture.
        let wanted = y0 - font::GLYPH_HEIGHT as i64 - 2;
        let y = if wanted >= 0 { wanted } else { y1 + 2 };
        let x = x0.clamp(0, (out.width() as i64 - font::text_width(&number) as i64).max(0));
        out.fill(x - 1, y - 1, font::text_width(&number) + 1, font::GLYPH_HEIGHT + 2, GROUND);
        out.text(x, y, &number, 1, colour);
    }
}

/// The colours of the scores from 0 to 1 with a mark at the threshold; letters at scale `t`.
fn colour_bar(out: &mut Canvas, (x, y): (i64, i64), width: usize, threshold: f32, t: usize) {
    for i in 0..width {
        let colour = heat(i as f32 / (width.max(2) - 1) as f32);
        out.fill(x + i as i64, y, 1, 6, colour);
    }
    let at = x + (threshold.clamp(0.0, 1.0) * (width.max(1) - 1) as f32) as i64;
    out.fill(at, y - 1, 1, 8, WHITE);
    let label = format!("threshold {threshold:.2}");
    let long = (t * font::text_width(&label)) as i64;
    let first = x + (2 * t * font::ADVANCE) as i64;
    let last = (x + width as i64 - (2 * t * font::ADVANCE) as i64 - long).max(first);
    out.text(x, y + 8, "0", t, DIM);
    out.text((at - long / 2).clamp(first, last), y + 8, &label, t, WHITE);
    out.text(x + width as i64 - (t * font::ADVANCE) as i64, y + 8, "1", t, DIM);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Decider, Settings};

    fn scene_of(size: (usize, usize)) -> (Gray, Gray, Map) {
        let template = Gray::from_fn(size.0, size.1, |x, y| if (x / 8 + y / 8) % 2 == 0 { 60 } else { 160 });
        let mut frame = template.clone();
        let mut map = Map::new(size.0, size.1);
        for y in size.1 / 2..size.1 / 2 + 6 {
            frame.row_mut(y)[size.0 / 2..size.0 / 2 + 9].fill(250);
            map.row_mut(y)[size.0 / 2..size.0 / 2 + 9].fill(0.9);
        }
        (frame, template, map)
    }

    fn rendered(size: (usize, usize)) -> Canvas {
        let (frame, template, map) = scene_of(size);
        let valid = Gray::from_fn(size.0, size.1, |_, _| 255);
        let mut decider = Decider::new();
        let d = decider.decide(&map, &valid, &frame, &template, &Settings::default()).unwrap();
        assert_eq!(d.blobs.len(), 1);
        let mut mask = Gray::default();
        decider.draw_mask(size, &mut mask);
        render(&Scene {
            headline: Headline::Ng,
            title: "pcb-a17  part SN1",
            notes: &["rotation 1.7 deg".into()],
            frame: &frame,
            template: Some(&template),
            map: Some(&map),
            mask: Some(&mask),
            blobs: &d.blobs,
            threshold: 0.5,
            outline: Some((Affine::IDENTITY, size)),
        })
    }

    fn count(canvas: &Canvas, colour: Colour) -> usize {
        canvas.rgb().chunks_exact(3).filter(|p| *p == colour).count()
    }

    #[test]
    fn a_defect_is_boxed_outlined_and_listed() {
        let out = rendered((200, 120));
        assert_eq!(out.width(), 3 * 600 + 4 * GAP);
        assert!(out.get(2, 2) == Some(RED) && count(&out, GREEN) == 0);
        // Box on frame and template, number and line of text, all in the colour of an added defect.
        assert!(count(&out, ADDED) > 2 * 4 * 20, "{}", count(&out, ADDED));
        assert!(count(&out, MIXED) > 30, "the contour of the mask");
        assert!(count(&out, OUTLINE) > 600, "the outline of the template");
        assert!(count(&out, heat(0.9)) >= 9 * 6 * 9, "the peak of the map at scale 3");
    }

    #[test]
    fn large_frames_are_reduced_and_keep_their_peaks() {
        let out = rendered((2592, 1944));
        assert!(out.width() <= 3 * PANEL_PX + 4 * GAP, "{}", out.width());
        assert!(count(&out, heat(0.9)) >= 2);
        assert!(count(&out, ADDED) > 40);
    }

    #[test]
    fn a_refused_frame_shows_frame_and_template() {
        let (frame, template, _) = scene_of((300, 100));
        let notes = ["ALIGN_FAIL: confidence 0.21, at least 0.37 wanted".to_owned()];
        let out = render(&Scene {
            headline: Headline::Error,
            title: "",
            notes: &notes,
            frame: &frame,
            template: Some(&template),
            map: None,
            mask: None,
            blobs: &[],
            threshold: 0.5,
            outline: None,
        });
        assert_eq!(out.width(), 2 * 600 + 3 * GAP);
        assert_eq!(out.get(2, 2), Some(AMBER));
    }

    #[test]
    fn drawing_outside_is_left_out() {
        let mut c = Canvas::new(10, 10, GROUND);
        c.text(-3, -3, "W", 1, WHITE);
        c.fill(8, 8, 100, 100, RED);
        c.line((-1e12, 3.0), (1e12, 3.0), RED);
        c.line((f64::NAN, 3.0), (5.0, 3.0), RED);
        c.frame(5, 5, 1, 1, 3, GREEN);
        assert_eq!(count(&c, RED), 4);
        assert_eq!(c.get(5, 5), Some(GREEN));
        assert_eq!(c.get(10, 0), None);
    }
}
