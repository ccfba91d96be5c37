//! Light, blur, noise and coding: what imaging does to a scene. Gray runs from 0 to 1; [`quantise`] ends at 8 bits.

use super::config::Config;
use super::random::{Draw, PI, exp, ln, sin_cos};
use crate::frame::{Gray, Map};

/// Four taps of Keys' cubic interpolation (a = -0.75) for each of `size` positions over `nodes` grid nodes, edges repeated.
fn cubic_taps(size: usize, nodes: usize) -> Vec<([usize; 4], [f32; 4])> {
    let a = -0.75f32;
    (0..size)
        .map(|i| {
            let at = (i as f32 + 0.5) * nodes as f32 / size as f32 - 0.5;
            let base = at.floor();
            let t = at - base;
            let near = |d: f32| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
            let far = |d: f32| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
            let index = |k: i64| (base as i64 + k).clamp(0, nodes as i64 - 1) as usize;
            ([index(-1), index(0), index(1), index(2)], [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)])
        })
        .collect()
}

/// A smooth random field: standard normal draws at `nodes` (columns, rows), interpolated by cubics.
pub(crate) fn field(draw: &mut Draw, width: usize, height: usize, nodes: (usize, usize)) -> Map {
    let (columns, rows) = (nodes.0.max(1), nodes.1.max(1));
    let across = cubic_taps(width, columns);
    let down = cubic_taps(height, rows);
    let mut wide = vec![0.0f32; width * rows];
    let mut line = vec![0.0f32; columns];
    for row in wide.chunks_exact_mut(width) {
        line.iter_mut().for_each(|v| *v = draw.normal(1.0));
        for (v, (i, w)) in row.iter_mut().zip(&across) {
            *v = line[i[0]] * w[0] + line[i[1]] * w[1] + line[i[2]] * w[2] + line[i[3]] * w[3];
        }
    }
    let mut out = Map::new(width, height);
    for (y, (i, w)) in down.iter().enumerate() {
        let row = |k: usize| &wide[i[k] * width..(i[k] + 1) * width];
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        for (x, v) in out.row_mut(y).iter_mut().enumerate() {
            *v = a[x] * w[0] + b[x] * w[1] + c[x] * w[2] + d[x] * w[3];
        }
    }
    out
}

/// Adds a random texture times `strength`: broad clouds, grain, fine stripes, each present or not.
pub(crate) fn add_texture(draw: &mut Draw, map: &mut Map, strength: f32) {
    let (w, h) = map.size();
    let mut add = |layer: &Map, amount: f32| {
        for (v, l) in map.data_mut().iter_mut().zip(layer.data()) {
            *v += amount * *l;
        }
    };
    if draw.chance(0.5) {
        let nodes = draw.whole(2, 5);
        let layer = field(draw, w, h, (nodes, nodes));
        add(&layer, draw.uniform(0.0, 0.06) * strength);
    }
    if draw.chance(0.35) {
        // Grain of 2.7 to 13 px, whatever the picture's size.
        let pitch = 160.0 / draw.uniform(12.0, 60.0);
        let nodes = |size: usize| ((size as f32 / pitch) as usize).max(2);
        let layer = field(draw, w, h, (nodes(w), nodes(h)));
        add(&layer, draw.uniform(0.0, 0.04) * strength);
    }
    if draw.chance(0.15) {
        let (s, c) = sin_cos(draw.uniform(0.0, PI));
        let (frequency, amount) = (draw.uniform(0.15, 1.2), draw.uniform(0.0, 0.04) * strength);
        let layer = Map::from_fn(w, h, |x, y| sin_cos((c * x as f32 + s * y as f32) * frequency).0);
        add(&layer, amount);
    }
}

/// `values^gamma` on 0..1 by a table of 1024 intervals.
fn gamma_table(log_gamma: f32) -> Vec<f32> {
    let gamma = exp(log_gamma);
    (0..=1024).map(|i| if i == 0 { 0.0 } else { exp(gamma * ln(i as f32 / 1024.0)) }).collect()
}

/// Changes the lighting of a picture: contrast, gamma, gain, gradient, vignette, offset, and now and then a shadow or specular spots.
/// `strength` scales every range of the settings.
pub(crate) fn light(draw: &mut Draw, config: &Config, map: &mut Map, strength: f32) {
    let l = strength;
    let (w, h) = map.size();
    let (low, high) = (draw.uniform(0.0, 0.3 * l).min(0.45), (1.0 - draw.uniform(0.0, 0.3 * l)).max(0.55));
    let table = gamma_table(l * draw.uniform(-config.log_gamma, config.log_gamma));
    let gain = 1.0 + l * draw.uniform(-config.gain, config.gain);
    let (s, c) = sin_cos(draw.uniform(0.0, 2.0 * PI));
    let gradient = l * draw.uniform(0.0, config.gradient);
    let vignette = l * 2.0 * draw.uniform(0.0, config.vignette);
    let offset = l * draw.uniform(-config.offset, config.offset);
    let shadow = draw.chance(config.shadow_share * l).then(|| {
        let (s, c) = sin_cos(draw.uniform(0.0, 2.0 * PI));
        let (depth, at, slope) = (draw.uniform(-0.35, 0.25), draw.uniform(-0.4, 0.4), draw.uniform(6.0, 40.0));
        (s, c, depth, at, slope)
    });
    let (nx, ny) = (1.0 / (w as f32 - 1.0), 1.0 / (h as f32 - 1.0));
    for y in 0..h {
        let v = y as f32 * ny - 0.5;
        for (x, p) in map.row_mut(y).iter_mut().enumerate() {
            let u = x as f32 * nx - 0.5;
            let flat = (low + (high - low) * p.clamp(0.0, 1.0)).clamp(0.0, 1.0) * 1024.0;
            let i = (flat as usize).min(1023);
            let bent = table[i] + (table[i + 1] - table[i]) * (flat - i as f32);
            *p = bent * gain * (1.0 + gradient * (c * u + s * v)) * (1.0 - vignette * (u * u + v * v)) + offset;
        }
    }
    if let Some((s, c, depth, at, slope)) = shadow {
        for y in 0..h {
            let v = y as f32 * ny - 0.5;
            for (x, p) in map.row_mut(y).iter_mut().enumerate() {
                let t = (c * (x as f32 * nx - 0.5) + s * v - at) * slope;
                // A smooth step without an exponential: within 0.06 of the logistic curve.
                let step = 0.5 + 0.5 * t / (1.6 + t.abs());
                *p *= 1.0 + depth * step;
            }
        }
    }
    if draw.chance(config.specular_share * l) {
        for _ in 0..draw.whole(1, 3) {
            let centre = [draw.unit() * w as f32, draw.unit() * h as f32];
            let (radius, height) = (draw.uniform(8.0, 30.0), draw.uniform(0.05, 0.3));
            for y in 0..h {
                let dy = y as f32 - centre[1];
                for (x, p) in map.row_mut(y).iter_mut().enumerate() {
                    let dx = x as f32 - centre[0];
                    let q = (dx * dx + dy * dy) / (radius * radius);
                    *p += height / (1.0 + q * q);
                }
            }
        }
    }
}

/// Blurs with a Gaussian of `sigma` px (separable, edges repeated).
pub(crate) fn blur(map: &mut Map, sigma: f32) {
    let reach = ((3.0 * sigma).ceil() as usize).max(1);
    let mut kernel: Vec<f32> = (0..=reach).map(|i| exp(-0.5 * (i * i) as f32 / (sigma * sigma))).collect();
    let total = kernel[0] + 2.0 * kernel[1..].iter().sum::<f32>();
    kernel.iter_mut().for_each(|k| *k /= total);
    let (w, h) = map.size();
    let mut padded = vec![0.0f32; w + 2 * reach];
    for y in 0..h {
        let row = map.row_mut(y);
        padded[reach..reach + w].copy_from_slice(row);
        padded[..reach].fill(row[0]);
        padded[reach + w..].fill(row[w - 1]);
        for (x, v) in row.iter_mut().enumerate() {
            *v = kernel[0] * padded[x + reach];
        }
        for (d, k) in kernel.iter().enumerate().skip(1) {
            let (left, right) = (&padded[reach - d..reach - d + w], &padded[reach + d..reach + d + w]);
            for ((v, l), r) in row.iter_mut().zip(left).zip(right) {
                *v += *k * (*l + *r);
            }
        }
    }
    let source = map.clone();
    for y in 0..h {
        let row = map.row_mut(y);
        row.iter_mut().for_each(|v| *v *= kernel[0]);
        for (d, k) in kernel.iter().enumerate().skip(1) {
            let (up, down) = (source.row(y.saturating_sub(d)), source.row((y + d).min(h - 1)));
            for ((v, a), b) in row.iter_mut().zip(up).zip(down) {
                *v += *k * (*a + *b);
            }
        }
    }
}

/// Adds independent noise of standard deviation `sigma`.
pub(crate) fn noise(draw: &mut Draw, map: &mut Map, sigma: f32) {
    for v in map.data_mut() {
        *v += draw.pixel_noise(sigma);
    }
}

/// 8 bits: clamped and rounded.
pub(crate) fn quantise(map: &Map) -> Gray {
    let mut out = Gray::new(map.width(), map.height());
    for (o, v) in out.data_mut().iter_mut().zip(map.data()) {
        *o = (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
    }
    out
}

/// Luminance quantisation table of ITU-T T.81, annex K, table K.1.
const JPEG_TABLE: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80,
    62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98,
    112, 100, 103, 99,
];

/// What JPEG at `quality` (1..=100, scaled as libjpeg does) leaves of the picture: block transform, quantisation, inverse. The
/// entropy coding is lossless and left out; blocks at the right and lower edge repeat the last pixels.
pub(crate) fn jpeg(picture: &mut Gray, quality: f32) {
    let scale = if quality < 50.0 { 5000.0 / quality.max(1.0) } else { 200.0 - 2.0 * quality };
    let steps: [f32; 64] = JPEG_TABLE.map(|t| ((f32::from(t) * scale + 50.0) / 100.0).floor().clamp(1.0, 255.0));
    // Orthonormal DCT-II: basis[u][x].
    let mut basis = [[0.0f32; 8]; 8];
    for (u, row) in basis.iter_mut().enumerate() {
        let norm = if u == 0 { 0.125f32.sqrt() } else { 0.5 };
        for (x, v) in row.iter_mut().enumerate() {
            *v = norm * sin_cos((2 * x + 1) as f32 * u as f32 * (PI / 16.0)).1;
        }
    }
    let (w, h) = picture.size();
    let mut block = [[0.0f32; 8]; 8];
    let mut half = [[0.0f32; 8]; 8];
    for by in (0..h).step_by(8) {
        for bx in (0..w).step_by(8) {
            for (y, row) in block.iter_mut().enumerate() {
                let source = picture.row((by + y).min(h - 1));
                for (x, v) in row.iter_mut().enumerate() {
                    *v = f32::from(source[(bx + x).min(w - 1)]) - 128.0;
                }
            }
            transform(&block, &mut half, &basis);
            transform(&half, &mut block, &basis);
            for (v, q) in block.iter_mut().flatten().zip(&steps) {
                *v = (*v / q).round() * q;
            }
            inverse(&block, &mut half, &basis);
            inverse(&half, &mut block, &basis);
            for (y, row) in block.iter().enumerate().take(h - by.min(h)) {
                if by + y < h {
                    let target = &mut picture.row_mut(by + y)[bx..];
                    for (t, v) in target.iter_mut().zip(row) {
                        *t = (*v + 128.0).round().clamp(0.0, 255.0) as u8;
                    }
                }
            }
        }
    }
}

/// `out[u][y] = sum_x basis[u][x] * block[y][x]`: transforms rows and transposes, so that two calls transform both ways.
fn transform(block: &[[f32; 8]; 8], out: &mut [[f32; 8]; 8], basis: &[[f32; 8]; 8]) {
    for (u, b) in basis.iter().enumerate() {
        for (y, row) in block.iter().enumerate() {
            out[u][y] = b.iter().zip(row).map(|(p, q)| p * q).sum();
        }
    }
}

/// `out[x][u] = sum_v basis[v][x] * block[u][v]`: inverse of [`transform`], again transposing.
fn inverse(block: &[[f32; 8]; 8], out: &mut [[f32; 8]; 8], basis: &[[f32; 8]; 8]) {
    for (u, row) in block.iter().enumerate() {
        for (x, target) in out.iter_mut().enumerate() {
            target[u] = basis.iter().zip(row).map(|(b, c)| b[x] * c).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_passes_through_its_nodes_scale() {
        let mut draw = Draw::new(1, 1);
        let f = field(&mut draw, 200, 120, (20, 12));
        let n = f.data().len() as f32;
        let mean = f.data().iter().sum::<f32>() / n;
        let variance = f.data().iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n;
        assert!((0.4..1.3).contains(&variance), "variance {variance}");
    }

    #[test]
    fn blur_keeps_the_mean_and_spreads_a_point() {
        let mut map = Map::new(41, 41);
        map.set(20, 20, 1.0);
        blur(&mut map, 2.0);
        let total: f32 = map.data().iter().sum();
        assert!((total - 1.0).abs() < 1e-4);
        let second: f32 =
            (0..41).map(|x| (0..41).map(|y| map.get(x, y)).sum::<f32>() * (x as f32 - 20.0) * (x as f32 - 20.0)).sum();
        assert!((second - 4.0).abs() < 0.15, "variance {second}");
        let mut flat = Map::new(5, 3);
        flat.data_mut().fill(0.4);
        blur(&mut flat, 3.0);
        assert!(flat.data().iter().all(|v| (v - 0.4).abs() < 1e-5));
    }

    #[test]
    fn jpeg_at_full_quality_changes_little_and_at_low_quality_much() {
        let mut draw = Draw::new(3, 0);
        let mut map = field(&mut draw, 61, 45, (20, 15));
        map.data_mut().iter_mut().for_each(|v| *v = *v * 0.2 + 0.5);
        let original = quantise(&map);
        let error = |quality: f32| {
            let mut coded = original.clone();
            jpeg(&mut coded, quality);
            let sum: f64 = original.data().iter().zip(coded.data()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
            (sum / original.data().len() as f64).sqrt()
        };
        assert!(error(100.0) < 0.7, "{}", error(100.0));
        assert!(error(20.0) > 2.0, "{}", error(20.0));
    }

    #[test]
    fn gamma_follows_the_power_law() {
        let table = gamma_table(0.3);
        for i in (8..=1024).step_by(8) {
            let expected = (i as f64 / 1024.0).powf(0.3f64.exp());
            assert!((f64::from(table[i]) - expected).abs() < 1e-6);
        }
    }
}
