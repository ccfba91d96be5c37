//! One simulated pair of the wide recipe: a scene drawn twice, defects in the second drawing, both warped and imaged.

use super::config::Config;
use super::photometry::{self, field};
use super::random::Draw;
use super::scene::Scene;
use super::shapes::View;
use super::{DEFECT, NOT_SCORED, Notes, Sample, defects, label};
use crate::frame::{Gray, Map};

/// Scenes are drawn at this many canvas pixels for a picture pixel.
const FACTOR: usize = 2;
/// Drawn around the picture, px: what shifts and distortions bring into view.
const MARGIN_PX: usize = 8;

/// Where each canvas-resolution pixel of the picture looks in the canvas, relative to its own place, canvas pixels.
pub(crate) struct Displacement {
    pub x: Map,
    pub y: Map,
}

/// Edge roughness: independent displacements a few pixels apart, `amplitude` px.
fn roughness(draw: &mut Draw, side: usize, amplitude: f32) -> Displacement {
    let nodes = draw.whole((side / 12).max(2), (side / 4).max(2));
    let mut layer = || {
        let mut map = field(draw, side, side, (nodes, nodes));
        map.data_mut().iter_mut().for_each(|v| *v *= amplitude * FACTOR as f32);
        map
    };
    Displacement { x: layer(), y: layer() }
}

/// A smooth local distortion, limited to the settings' largest.
fn local_warp(draw: &mut Draw, config: &Config, side: usize) -> Displacement {
    let pitch = draw.within(config.local_warp_pitch_px) * FACTOR as f32;
    let nodes = ((side as f32 / pitch + 0.5) as usize).max(2);
    let amplitude = draw.within(config.local_warp_px) * FACTOR as f32;
    let most = config.local_warp_max_px * FACTOR as f32;
    let mut layer = || {
        let mut map = field(draw, side, side, (nodes, nodes));
        map.data_mut().iter_mut().for_each(|v| *v = (*v * amplitude).clamp(-most, most));
        map
    };
    Displacement { x: layer(), y: layer() }
}

/// A residual similarity: picture pixel `p` shows canvas pixel `linear (p - centre) + centre + shift`.
#[derive(Debug, Clone, Copy)]
struct Misfit {
    cos: f32,
    sin: f32,
    shift: [f32; 2],
}

impl Misfit {
    const NONE: Misfit = Misfit { cos: 1.0, sin: 0.0, shift: [0.0, 0.0] };

    fn random(draw: &mut Draw, config: &Config) -> (Self, f32) {
        let level = config.misfit_px[draw.weighted(&config.misfit_weights).min(config.misfit_px.len() - 1)];
        let degrees = draw.normal(config.misfit_degrees_per_px * level);
        let scale = 1.0 + draw.normal(config.misfit_scale_per_px * level);
        let (s, c) = super::random::sin_cos(degrees * super::random::PI / 180.0);
        let most = config.misfit_max_px;
        let shift = [draw.normal(level).clamp(-most, most), draw.normal(level).clamp(-most, most)];
        (Self { cos: c * scale, sin: s * scale, shift }, level)
    }
}

/// Samples `canvases` through a misfit and displacements and averages blocks of canvas pixels to the picture.
fn warp<const N: usize>(
    canvases: [&Map; N],
    misfit: Misfit,
    displacements: &[&Displacement],
    size: usize,
    repeat_edge: bool,
) -> [Map; N] {
    let (width, height) = canvases[0].size();
    let margin = (MARGIN_PX * FACTOR) as f32;
    let side = size * FACTOR;
    let centre = (side as f32 - 1.0) / 2.0;
    let (low, high_x, high_y) = if repeat_edge {
        (margin, width as f32 - 1.0 - margin, height as f32 - 1.0 - margin)
    } else {
        (0.0, width as f32 - 1.0, height as f32 - 1.0)
    };
    let mut out = [(); N].map(|()| Map::new(size, size));
    let share = 1.0 / (FACTOR * FACTOR) as f32;
    for y in 0..side {
        let dy = y as f32 - centre;
        let rows_x: Vec<&[f32]> = displacements.iter().map(|d| d.x.row(y)).collect();
        let rows_y: Vec<&[f32]> = displacements.iter().map(|d| d.y.row(y)).collect();
        for x in 0..side {
            let dx = x as f32 - centre;
            let mut sx = misfit.cos * dx - misfit.sin * dy + centre + misfit.shift[0] * FACTOR as f32 + margin;
            let mut sy = misfit.sin * dx + misfit.cos * dy + centre + misfit.shift[1] * FACTOR as f32 + margin;
            for (rx, ry) in rows_x.iter().zip(&rows_y) {
                sx += rx[x];
                sy += ry[x];
            }
            let (sx, sy) = (sx.clamp(low, high_x), sy.clamp(low, high_y));
            let (x0, y0) = ((sx as usize).min(width - 2), (sy as usize).min(height - 2));
            let (fx, fy) = (sx - x0 as f32, sy - y0 as f32);
            let at = y0 * width + x0;
            let target = (y / FACTOR) * size + x / FACTOR;
            for (canvas, picture) in canvases.iter().zip(&mut out) {
                let data = canvas.data();
                let top = data[at] + fx * (data[at + 1] - data[at]);
                let below = &data[at + width..at + width + 2];
                let bottom = below[0] + fx * (below[1] - below[0]);
                picture.data_mut()[target] += share * (top + fy * (bottom - top));
            }
        }
    }
    out
}

/// Sets every value above `threshold` to 1 and the rest to 0.
fn binarise(map: &mut Map, threshold: f32) {
    map.data_mut().iter_mut().for_each(|v| *v = if *v > threshold { 1.0 } else { 0.0 });
}

/// Cuts the template off beyond one or two random straight edges, as when its picture does not reach across the frame. Beyond, the
/// template shows the frame's values with the template's mean and spread (what inference puts there), and nothing is scored.
fn uncover(draw: &mut Draw, template: &mut Gray, frame: &Gray, label: &mut Gray) {
    let size = template.width();
    let half = size as f32 / 2.0;
    let edges: Vec<(f32, f32, f32)> = (0..draw.whole(1, 2))
        .map(|_| {
            let (s, c) = super::random::sin_cos(draw.uniform(0.0, 2.0 * super::random::PI));
            (c, s, draw.uniform(0.1, 0.95) * half)
        })
        .collect();
    // How far inside the covered part, px; negative beyond it.
    let inside = |x: usize, y: usize| {
        let (u, v) = (x as f32 - half, y as f32 - half);
        edges.iter().map(|(c, s, d)| d - c * u - s * v).fold(f32::INFINITY, f32::min)
    };
    let (mut n, mut sums) = (0.0f32, [0.0f32; 4]);
    for y in 0..size {
        for x in 0..size {
            if inside(x, y) >= 0.0 {
                let (t, f) = (f32::from(template.get(x, y)), f32::from(frame.get(x, y)));
                n += 1.0;
                for (sum, v) in sums.iter_mut().zip([t, t * t, f, f * f]) {
                    *sum += v;
                }
            }
        }
    }
    let n = n.max(1.0);
    let spread = |sum: f32, squares: f32| (squares / n - (sum / n) * (sum / n)).max(0.0).sqrt();
    let gain = spread(sums[0], sums[1]) / spread(sums[2], sums[3]).max(1.0);
    for y in 0..size {
        for x in 0..size {
            let depth = inside(x, y);
            if depth < 0.0 {
                let v = (f32::from(frame.get(x, y)) - sums[2] / n) * gain + sums[0] / n;
                template.set(x, y, (v + 0.5).clamp(0.0, 255.0) as u8);
            }
            if depth < 1.0 {
                label.set(x, y, NOT_SCORED);
            }
        }
    }
}

/// Pair `index` of the wide recipe.
pub(crate) fn wide(config: &Config, draw: &mut Draw) -> Sample {
    let size = config.size_px;
    let side = size * FACTOR;
    let canvas_side = (size + 2 * MARGIN_PX) * FACTOR;
    let view = View { margin: MARGIN_PX as f32, factor: FACTOR as f32 };
    let scene = Scene::random(draw, config, size as f32, size as f32, MARGIN_PX as f32);

    // Two parts of one design, the second with defects.
    let base = scene.draw(view, (canvas_side, canvas_side), &Default::default(), None);
    let deviation = scene.deviation(draw, config);
    let good = if deviation.shifts.is_empty() && deviation.width_change == 0.0 {
        base.clone()
    } else {
        scene.draw(view, (canvas_side, canvas_side), &deviation, None)
    };
    let count = defects::count(draw, config, size as f32, size as f32);
    let mut bad = None;
    if count > 0 && draw.chance(config.part_defect_share) {
        bad = defects::part_defect(draw, &scene, &good, view, &deviation);
    }
    let part_defect = bad.is_some();
    let mut bad = bad.unwrap_or_else(|| good.clone());
    let margin = (MARGIN_PX * FACTOR) as f32;
    let inner = [margin, margin, margin + side as f32, margin + side as f32];
    let palette = scene.inks();
    let ground = defects::Ground { palette: &palette, factor: view.factor, inner, allowed: &|_| true };
    defects::paint(draw, config, &ground, &good, &mut bad, count);

    // What registration leaves.
    let (misfit, level) = Misfit::random(draw, config);
    let amplitude = if draw.chance(config.roughness_share) { draw.within(config.roughness_px) } else { 0.0 };
    let template_amplitude = amplitude * draw.unit();
    let template_roughness = (template_amplitude > 0.0).then(|| roughness(draw, side, template_amplitude));
    let frame_roughness = (amplitude > 0.0).then(|| roughness(draw, side, amplitude));
    let distortion = draw.chance(config.local_warp_share).then(|| local_warp(draw, config, side));
    let repeat = draw.chance(config.edge_repeat_share);
    let repeat_template = repeat && draw.chance(0.5);
    let template_moves: Vec<&Displacement> = template_roughness.iter().collect();
    let frame_moves: Vec<&Displacement> = frame_roughness.iter().chain(&distortion).collect();
    // Which of the two pictures carries the misfit makes no difference to the network but to what its borders show.
    let [mut template] = warp([&base], Misfit::NONE, &template_moves, size, repeat_template);
    let contrast = config.label_contrast;
    let mut changed = bad.clone();
    changed.data_mut().iter_mut().zip(good.data()).for_each(|(b, g)| *b = if (*b - g).abs() > contrast { 1.0 } else { 0.0 });
    let [mut clean_frame, mut frame, coverage] =
        warp([&good, &bad, &changed], misfit, &frame_moves, size, repeat && !repeat_template);

    let mut touched: Vec<bool> = clean_frame.data().iter().zip(frame.data()).map(|(g, b)| (g - b).abs() > contrast).collect();
    let mut covered: Vec<bool> = coverage.data().iter().zip(&touched).map(|(c, t)| *t && *c >= 0.5).collect();

    // Imaging.
    if !(scene.two_tone && draw.chance(config.plain_two_tone_share)) {
        let mut texture = Map::new(size, size);
        photometry::add_texture(draw, &mut texture, 1.0);
        for map in [&mut template, &mut clean_frame, &mut frame] {
            for (v, t) in map.data_mut().iter_mut().zip(texture.data()) {
                *v += *t;
            }
        }
        if draw.chance(0.2) {
            photometry::add_texture(draw, &mut frame, 0.5);
        }
    }
    let binarised = draw.chance(config.binarised_share);
    if binarised {
        let (low, high) = template.data().iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
        let threshold = low + (high - low) * draw.uniform(0.4, 0.6);
        if draw.chance(config.grainy_share) {
            let (sigma, amount) = (draw.within(config.grain_blur_px), draw.within(config.grain_noise) * (high - low));
            let mut grain = Map::new(size, size);
            photometry::noise(draw, &mut grain, amount);
            for map in [&mut template, &mut clean_frame, &mut frame] {
                photometry::blur(map, sigma);
            }
            photometry::noise(draw, &mut template, amount);
            // the frame with and without its defects is one exposure
            for map in [&mut clean_frame, &mut frame] {
                map.data_mut().iter_mut().zip(grain.data()).for_each(|(v, n)| *v += n);
            }
        }
        for map in [&mut template, &mut clean_frame, &mut frame] {
            binarise(map, threshold);
        }
        for (i, (g, b)) in clean_frame.data().iter().zip(frame.data()).enumerate() {
            // two tones have no soft outline
            touched[i] &= g != b;
            covered[i] = touched[i];
        }
        if draw.chance(0.5) {
            for v in template.data_mut().iter_mut().chain(frame.data_mut()) {
                *v = 0.05 + 0.9 * *v;
            }
        }
    }
    if draw.chance(config.light_share) {
        // The frame without its defects in the same light shows how much of them is left to see.
        photometry::light(&mut draw.clone(), config, &mut clean_frame, config.light);
        photometry::light(draw, config, &mut frame, config.light);
        photometry::light(draw, config, &mut template, config.template_light);
    }
    if draw.chance(config.blur_share) {
        photometry::blur(&mut template, draw.within(config.template_blur_px));
    }
    if draw.chance(config.blur_share) {
        let sigma = draw.within(config.frame_blur_px);
        photometry::blur(&mut clean_frame, sigma);
        photometry::blur(&mut frame, sigma);
    }
    let seen: Vec<f32> =
        clean_frame.data().iter().zip(frame.data()).map(|(g, b)| (g.clamp(0.0, 1.0) - b.clamp(0.0, 1.0)).abs()).collect();
    let sigma = draw.within(config.template_noise);
    photometry::noise(draw, &mut template, sigma);
    let sigma = draw.within(config.frame_noise);
    photometry::noise(draw, &mut frame, sigma);
    let mut template = photometry::quantise(&template);
    let mut frame = photometry::quantise(&frame);
    if draw.chance(config.jpeg_share) {
        photometry::jpeg(&mut frame, draw.within(config.jpeg_quality));
    }
    let least = config.visible_contrast.max(config.visible_noise * sigma);
    let mut label = label::from_coverage(size, size, (&touched, &covered), config.speck_px, Some((&seen, least)));
    let part_cover = draw.chance(config.part_cover_share);
    if part_cover {
        uncover(draw, &mut template, &frame, &mut label);
    }
    let clean = label.data().iter().all(|v| *v != DEFECT);
    let notes = Notes {
        family: Some(scene.family),
        two_tone: scene.two_tone,
        binarised,
        defects: count,
        part_defect,
        misfit_px: level,
        shift_px: misfit.shift,
        local_warp: distortion.is_some(),
        part_cover,
    };
    Sample { template, frame, label, clean, notes }
}
