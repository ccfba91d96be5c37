//! From what a sensor delivers to 8-bit gray.
//!
//! Input: the bytes of one picture, its [`Layout`], size in pixels and stride in bytes; output: a tight [`Gray`]. Values of more than 8
//! bits are scaled by 255 / max and rounded, half up (the rule of [`crate::frame::load_gray`]); YUYV and NV12 give their luma bytes as
//! they are, without a change of range; Bayer is interpolated bilinearly (reflected borders, which keep the mosaic's phase) and weighted
//! by ITU-R BT.601 as `(299 R + 587 G + 114 B) / 1000`, rounded once at the end.
//!
//! Every line begins on a byte. Sources: the kernel's V4L2 pixel format pages (GREY, Y10, Y12, Y16, Y10P, Y12P, YUYV, NV12, SRGGB8 and
//! kin); EMVA/AIA Pixel Format Naming Convention 2 (Mono10p, Mono12p); GigE Vision 1.2 (Mono10Packed, Mono12Packed).

use crate::error::{Error, Result};
use crate::frame::Gray;

/// Colours of the mosaic's first two pixels of the first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mosaic {
    /// Red first, then green.
    Rggb,
    /// Blue first, then green.
    Bggr,
    /// Green first, then red.
    Grbg,
    /// Green first, then blue.
    Gbrg,
}

/// How pixels lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One byte a pixel: V4L2 GREY, GenICam Mono8.
    Mono8,
    /// 10 bits in the low bits of a little-endian 16-bit word: V4L2 Y10, GenICam Mono10.
    Mono10,
    /// 12 bits in the low bits of a little-endian 16-bit word: V4L2 Y12, GenICam Mono12.
    Mono12,
    /// A little-endian 16-bit word: V4L2 Y16, GenICam Mono16.
    Mono16,
    /// MIPI RAW10, four pixels in five bytes, low bits last: V4L2 Y10P.
    Mipi10,
    /// MIPI RAW12, two pixels in three bytes, low bits last: V4L2 Y12P.
    Mipi12,
    /// A stream of 10-bit values, least significant bit first: GenICam Mono10p.
    Stream10,
    /// A stream of 12-bit values, least significant bit first: GenICam Mono12p.
    Stream12,
    /// GigE Vision's two pixels in three bytes, low bits in the middle byte: Mono10Packed.
    Packed10,
    /// GigE Vision's two pixels in three bytes, low bits in the middle byte: Mono12Packed.
    Packed12,
    /// Y0 U Y1 V: V4L2 YUYV.
    Yuyv,
    /// A plane of luma, then one of colour, which is not read: V4L2 NV12.
    Nv12,
    /// One byte a pixel behind a colour mosaic.
    Bayer(Mosaic),
}

impl Layout {
    /// Bytes of a line of `width` pixels without padding.
    #[must_use]
    pub const fn line_bytes(self, width: usize) -> usize {
        match self {
            Layout::Mono8 | Layout::Nv12 | Layout::Bayer(_) => width,
            Layout::Mono10 | Layout::Mono12 | Layout::Mono16 => width * 2,
            Layout::Mipi10 => width.div_ceil(4) * 5,
            Layout::Stream10 => (width * 10).div_ceil(8),
            Layout::Stream12 => (width * 12).div_ceil(8),
            Layout::Mipi12 | Layout::Packed10 | Layout::Packed12 => width.div_ceil(2) * 3,
            Layout::Yuyv => width.div_ceil(2) * 4,
        }
    }
}

/// Converts one picture; `stride` is the distance of lines in bytes, 0 for lines without padding.
///
/// # Errors
/// [`crate::Kind::Data`] when the picture has no pixels, a mosaic is smaller than 2x2, the stride is shorter than a line, or the bytes do
/// not suffice: a short picture is never padded.
pub fn to_gray(layout: Layout, data: &[u8], width: usize, height: usize, stride: usize, out: &mut Gray) -> Result<()> {
    let line = layout.line_bytes(width);
    let stride = if stride == 0 { line } else { stride };
    let least = if matches!(layout, Layout::Bayer(_)) { 2 } else { 1 };
    if width < least || height < least {
        return Err(Error::data(format!("a {layout:?} picture must be at least {least}x{least}, got {width}x{height}")));
    }
    if stride < line {
        return Err(Error::data(format!(
            "a line of {width} {layout:?} pixels takes {line} bytes, but the device states a stride of {stride}"
        )));
    }
    let wanted = stride.checked_mul(height - 1).and_then(|n| n.checked_add(line));
    if wanted.is_none_or(|n| data.len() < n) {
        return Err(Error::data(format!(
            "a {width}x{height} {layout:?} picture with stride {stride} takes {} bytes, got {}",
            wanted.map_or_else(|| "too many".into(), |n| n.to_string()),
            data.len()
        )));
    }
    out.resize_for_overwrite(width, height);
    if let Layout::Bayer(mosaic) = layout {
        bayer(mosaic, data, stride, out);
        return Ok(());
    }
    for y in 0..height {
        line_to_gray(layout, &data[y * stride..y * stride + line], out.row_mut(y));
    }
    Ok(())
}

fn line_to_gray(layout: Layout, line: &[u8], out: &mut [u8]) {
    match layout {
        Layout::Mono8 | Layout::Nv12 | Layout::Bayer(_) => out.copy_from_slice(&line[..out.len()]),
        Layout::Mono10 => words(line, out, to8::<10>),
        Layout::Mono12 => words(line, out, to8::<12>),
        Layout::Mono16 => words(line, out, to8::<16>),
        Layout::Mipi10 => {
            for (group, out) in line.chunks_exact(5).zip(out.chunks_mut(4)) {
                for (i, pixel) in out.iter_mut().enumerate() {
                    *pixel = to8::<10>(u32::from(group[i]) << 2 | u32::from(group[4] >> (2 * i) & 3));
                }
            }
        }
        Layout::Mipi12 => {
            for (group, out) in line.chunks_exact(3).zip(out.chunks_mut(2)) {
                for (i, pixel) in out.iter_mut().enumerate() {
                    *pixel = to8::<12>(u32::from(group[i]) << 4 | u32::from(group[2] >> (4 * i) & 15));
                }
            }
        }
        Layout::Packed10 => {
            for (group, out) in line.chunks_exact(3).zip(out.chunks_mut(2)) {
                for (i, pixel) in out.iter_mut().enumerate() {
                    *pixel = to8::<10>(u32::from(group[2 * i]) << 2 | u32::from(group[1] >> (4 * i) & 3));
                }
            }
        }
        Layout::Packed12 => {
            for (group, out) in line.chunks_exact(3).zip(out.chunks_mut(2)) {
                for (i, pixel) in out.iter_mut().enumerate() {
                    *pixel = to8::<12>(u32::from(group[2 * i]) << 4 | u32::from(group[1] >> (4 * i) & 15));
                }
            }
        }
        Layout::Stream10 => bit_stream::<10>(line, out),
        Layout::Stream12 => bit_stream::<12>(line, out),
        Layout::Yuyv => {
            for (pixel, pair) in out.iter_mut().zip(line.chunks_exact(2)) {
                *pixel = pair[0];
            }
        }
    }
}

/// `BITS`-bit to 8-bit, rounded; a device that sets bits above its depth saturates.
fn to8<const BITS: u32>(value: u32) -> u8 {
    let max = (1u32 << BITS) - 1;
    ((value.min(max) * 255 + max / 2) / max) as u8
}

fn words(line: &[u8], out: &mut [u8], convert: fn(u32) -> u8) {
    for (pixel, word) in out.iter_mut().zip(line.chunks_exact(2)) {
        *pixel = convert(u32::from(u16::from_le_bytes([word[0], word[1]])));
    }
}

/// Values of 10 or 12 bits, each within two neighbouring bytes.
fn bit_stream<const BITS: u32>(line: &[u8], out: &mut [u8]) {
    for (x, pixel) in out.iter_mut().enumerate() {
        let bit = x * BITS as usize;
        let word = u32::from(line[bit / 8]) | u32::from(line[bit / 8 + 1]) << 8;
        *pixel = to8::<BITS>(word >> (bit % 8) & ((1 << BITS) - 1));
    }
}

/// Bilinear demosaic and luma in one pass; all sums are four times the colour, so nothing is rounded before the end.
fn bayer(mosaic: Mosaic, data: &[u8], stride: usize, out: &mut Gray) {
    let (width, height) = out.size();
    // Where red lies in the 2x2 cell; blue is diagonally opposite.
    let (red_x, red_y) = match mosaic {
        Mosaic::Rggb => (0, 0),
        Mosaic::Grbg => (1, 0),
        Mosaic::Gbrg => (0, 1),
        Mosaic::Bggr => (1, 1),
    };
    let line = |y: usize| &data[y * stride..y * stride + width];
    for y in 0..height {
        let above = line(if y == 0 { 1 } else { y - 1 });
        let here = line(y);
        let below = line(if y + 1 == height { height - 2 } else { y + 1 });
        let on_red_line = y % 2 == red_y;
        // Weights of the colour of this line and of the other one.
        let (own, other) = if on_red_line { (299, 114) } else { (114, 299) };
        let coloured = if on_red_line { red_x } else { 1 - red_x };
        for (x, pixel) in out.row_mut(y).iter_mut().enumerate() {
            let left = if x == 0 { 1 } else { x - 1 };
            let right = if x + 1 == width { width - 2 } else { x + 1 };
            let at = |line: &[u8], x: usize| u32::from(line[x]);
            let centre = 4 * at(here, x);
            let beside = at(here, left) + at(here, right);
            let upright = at(above, x) + at(below, x);
            let sum = if x % 2 == coloured {
                let corners = at(above, left) + at(above, right) + at(below, left) + at(below, right);
                own * centre + 587 * (beside + upright) + other * corners
            } else {
                587 * centre + own * 2 * beside + other * 2 * upright
            };
            *pixel = ((sum + 2000) / 4000) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    fn values(n: usize, bits: u32, seed: u64) -> Vec<u32> {
        let mut rng = rand_pcg::Pcg64::seed_from_u64(seed);
        let max = (1u32 << bits) - 1;
        let mut out: Vec<u32> = (0..n).map(|_| rng.random_range(0..=max)).collect();
        out[0] = max;
        out[n - 1] = 0;
        out
    }

    fn reference(value: u32, bits: u32) -> u8 {
        (f64::from(value) * 255.0 / f64::from((1u32 << bits) - 1)).round() as u8
    }

    /// Encodes line by line with three bytes of padding, unpacks, and compares with rounding in floating point.
    fn check(layout: Layout, bits: u32, encode: impl Fn(&[u32]) -> Vec<u8>) {
        for (width, height) in [(1, 1), (2, 2), (7, 5), (8, 3), (13, 4), (33, 2)] {
            let pixels = values(width * height, bits, 7 + width as u64);
            let line = layout.line_bytes(width);
            let (mut padded, mut tight) = (Vec::new(), Vec::new());
            for row in pixels.chunks(width) {
                let bytes = encode(row);
                assert_eq!(bytes.len(), line, "{layout:?} {width}");
                padded.extend_from_slice(&bytes);
                padded.extend_from_slice(&[0xa5; 3]);
                tight.extend_from_slice(&bytes);
            }
            let want: Vec<u8> = pixels.iter().map(|v| reference(*v, bits)).collect();
            let mut got = Gray::default();
            to_gray(layout, &padded, width, height, line + 3, &mut got).unwrap();
            assert_eq!(got.data(), want, "{layout:?} {width}x{height} padded");
            to_gray(layout, &tight, width, height, 0, &mut got).unwrap();
            assert_eq!(got.data(), want, "{layout:?} {width}x{height} tight");
            let short = to_gray(layout, &tight[..tight.len() - 1], width, height, 0, &mut got).unwrap_err();
            assert!(short.to_string().contains(&format!("takes {} bytes, got {}", tight.len(), tight.len() - 1)), "{short}");
        }
    }

    fn little_endian(row: &[u32]) -> Vec<u8> {
        row.iter().flat_map(|v| (*v as u16).to_le_bytes()).collect()
    }

    /// Bits written one at a time, least significant first.
    fn bits_of(row: &[u32], bits: u32) -> Vec<u8> {
        let all: Vec<bool> = row.iter().flat_map(|v| (0..bits).map(move |b| v >> b & 1 == 1)).collect();
        all.chunks(8).map(|c| c.iter().enumerate().map(|(i, b)| u8::from(*b) << i).sum()).collect()
    }

    #[test]
    fn whole_words_are_scaled_and_rounded() {
        check(Layout::Mono8, 8, |row| row.iter().map(|v| *v as u8).collect());
        check(Layout::Mono10, 10, little_endian);
        check(Layout::Mono12, 12, little_endian);
        check(Layout::Mono16, 16, little_endian);
    }

    #[test]
    fn packed_words_are_scaled_and_rounded() {
        check(Layout::Stream10, 10, |row| bits_of(row, 10));
        check(Layout::Stream12, 12, |row| bits_of(row, 12));
        check(Layout::Mipi10, 10, |row| {
            let mut out = Vec::new();
            for four in row.chunks(4) {
                let p = |i: usize| four.get(i).copied().unwrap_or(0);
                out.extend((0..4).map(|i| (p(i) / 4) as u8));
                out.push((p(0) % 4 + 4 * (p(1) % 4) + 16 * (p(2) % 4) + 64 * (p(3) % 4)) as u8);
            }
            out
        });
        let pairs = |row: &[u32], f: fn(u32, u32) -> [u32; 3]| -> Vec<u8> {
            row.chunks(2).flat_map(|c| f(c[0], c.get(1).copied().unwrap_or(0)).map(|v| v as u8)).collect()
        };
        check(Layout::Mipi12, 12, |row| pairs(row, |a, b| [a / 16, b / 16, a % 16 + 16 * (b % 16)]));
        check(Layout::Packed10, 10, |row| pairs(row, |a, b| [a / 4, a % 4 + 16 * (b % 4), b / 4]));
        check(Layout::Packed12, 12, |row| pairs(row, |a, b| [a / 16, a % 16 + 16 * (b % 16), b / 16]));
    }

    #[test]
    fn luma_is_taken_as_it_is() {
        check(Layout::Yuyv, 8, |row| {
            row.chunks(2).flat_map(|c| [c[0] as u8, 11, c.get(1).copied().unwrap_or(0) as u8, 22]).collect()
        });
        check(Layout::Nv12, 8, |row| row.iter().map(|v| *v as u8).collect());
    }

    #[test]
    fn bits_above_the_depth_saturate() {
        let mut out = Gray::default();
        to_gray(Layout::Mono10, &[0xff, 0xff], 1, 1, 0, &mut out).unwrap();
        assert_eq!(out.get(0, 0), 255);
    }

    /// Colour of a site by name, then plain averaging of every known neighbour in a 3x3 window, in floating point.
    fn bayer_reference(cell: [char; 4], pixels: &[u32], width: usize, height: usize, x: usize, y: usize) -> f64 {
        let reflect = |v: i64, n: usize| -> usize {
            let n = n as i64;
            (if v < 0 {
                -v
            } else if v >= n {
                2 * n - 2 - v
            } else {
                v
            }) as usize
        };
        let colour = |x: usize, y: usize| cell[(y % 2) * 2 + x % 2];
        let mean = |wanted: char| -> f64 {
            if colour(x, y) == wanted {
                return f64::from(pixels[y * width + x]);
            }
            let (mut sum, mut count) = (0.0, 0.0);
            for dy in -1..=1 {
                for dx in -1..=1 {
                    let (u, v) = (reflect(x as i64 + dx, width), reflect(y as i64 + dy, height));
                    if colour(u, v) == wanted {
                        sum += f64::from(pixels[v * width + u]);
                        count += 1.0;
                    }
                }
            }
            sum / count
        };
        0.299 * mean('R') + 0.587 * mean('G') + 0.114 * mean('B')
    }

    #[test]
    fn mosaics_are_interpolated_and_weighted() {
        for (mosaic, cell) in [
            (Mosaic::Rggb, ['R', 'G', 'G', 'B']),
            (Mosaic::Bggr, ['B', 'G', 'G', 'R']),
            (Mosaic::Grbg, ['G', 'R', 'B', 'G']),
            (Mosaic::Gbrg, ['G', 'B', 'R', 'G']),
        ] {
            for (width, height) in [(2, 2), (3, 2), (7, 5), (8, 6), (13, 9)] {
                let pixels = values(width * height, 8, 3);
                let stride = width + 2;
                let mut data = vec![0x5a; stride * height];
                for y in 0..height {
                    for x in 0..width {
                        data[y * stride + x] = pixels[y * width + x] as u8;
                    }
                }
                let mut out = Gray::default();
                to_gray(Layout::Bayer(mosaic), &data, width, height, stride, &mut out).unwrap();
                for y in 0..height {
                    for x in 0..width {
                        let want = bayer_reference(cell, &pixels, width, height, x, y);
                        let got = f64::from(out.get(x, y));
                        assert!((got - want).abs() <= 0.5 + 1e-9, "{mosaic:?} {width}x{height} ({x},{y}): {got} for {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_uniform_mosaic_stays_uniform_and_a_red_one_weighs_299() {
        let mut out = Gray::default();
        to_gray(Layout::Bayer(Mosaic::Grbg), &[137; 35], 7, 5, 0, &mut out).unwrap();
        assert!(out.data().iter().all(|v| *v == 137));
        let red: Vec<u8> = (0..36).map(|i| if (i % 6) % 2 == 0 && (i / 6) % 2 == 0 { 200 } else { 0 }).collect();
        to_gray(Layout::Bayer(Mosaic::Rggb), &red, 6, 6, 0, &mut out).unwrap();
        assert_eq!(out.get(2, 2), 60);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let mut out = Gray::default();
        let text = |r: Result<()>| r.unwrap_err().to_string();
        assert_eq!(
            text(to_gray(Layout::Bayer(Mosaic::Rggb), &[0; 9], 1, 9, 0, &mut out)),
            "a Bayer(Rggb) picture must be at least 2x2, got 1x9"
        );
        assert_eq!(
            text(to_gray(Layout::Mono16, &[0; 9], 2, 2, 3, &mut out)),
            "a line of 2 Mono16 pixels takes 4 bytes, but the device states a stride of 3"
        );
        assert!(text(to_gray(Layout::Mono8, &[0; 9], 2, 3, usize::MAX / 2, &mut out)).contains("too many"));
    }
}
