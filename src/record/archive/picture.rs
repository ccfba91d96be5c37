//! The archive's pictures as PNG, losslessly, in both directions.
//!
//! | file | form |
//! |---|---|
//! | `frame.png` | 8-bit gray, the frame as it was inspected |
//! | `aligned.png` | 8-bit gray with alpha: the template in the frame's place, alpha 0 where it does not reach |
//! | `score.png` | 16-bit gray: the score's level, round(65535 score), all that the decision looks at |
//! | `mask.png` | 8-bit gray: 255 defect, 0 good, 128 where the template does not reach |
//! | `zones.png` | 8-bit gray, template px: 0 in no zone, else 1 + the zone's index |
//! | `overlay.png` | RGB, for a person |
//!
//! Encoding favours speed over size; the standard's filters and deflate are lossless either way.

use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};
use crate::frame::{Gray, Map, Plane};

/// Value of `mask.png` where the template does not reach.
pub const NOT_COVERED: u8 = 128;

fn encode(bytes: &[u8], size: (usize, usize), colour: ExtendedColorType, filter: FilterType) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() / 2 + 1024);
    PngEncoder::new_with_quality(&mut out, CompressionType::Fast, filter)
        .write_image(bytes, size.0 as u32, size.1 as u32, colour)
        .map_err(|e| Error::internal(format!("PNG of {}x{} px: {e}", size.0, size.1)))?;
    Ok(out)
}

/// An 8-bit gray picture.
///
/// # Errors
/// [`crate::Kind::Internal`] when the encoder refuses (an empty picture).
pub fn gray_png(picture: &Gray) -> Result<Vec<u8>> {
    encode(picture.data(), picture.size(), ExtendedColorType::L8, FilterType::Up)
}

/// The aligned template with its cover as alpha.
///
/// # Errors
/// As [`gray_png`].
pub fn aligned_png(warped: &Gray, valid: &Gray) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = warped.data().iter().zip(valid.data()).flat_map(|(&v, &a)| [v, a]).collect();
    encode(&bytes, warped.size(), ExtendedColorType::La8, FilterType::Up)
}

/// A score map by its levels; the same file that [`crate::frame::save_map_png`] stands for.
///
/// # Errors
/// As [`gray_png`].
pub fn score_png(map: &Map) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = map.data().iter().flat_map(|v| ((v.clamp(0.0, 1.0) * 65535.0).round() as u16).to_ne_bytes()).collect();
    encode(&bytes, map.size(), ExtendedColorType::L16, FilterType::NoFilter)
}

/// Defects and cover in one picture.
///
/// # Errors
/// As [`gray_png`].
pub fn mask_png(mask: &Gray, valid: &Gray) -> Result<Vec<u8>> {
    let join = |(&m, &v): (&u8, &u8)| if v == 0 { NOT_COVERED } else { m };
    let bytes: Vec<u8> = mask.data().iter().zip(valid.data()).map(join).collect();
    encode(&bytes, mask.size(), ExtendedColorType::L8, FilterType::NoFilter)
}

/// An RGB picture.
///
/// # Errors
/// As [`gray_png`].
pub fn rgb_png(rgb: &[u8], size: (usize, usize)) -> Result<Vec<u8>> {
    encode(rgb, size, ExtendedColorType::Rgb8, FilterType::Up)
}

fn decode(bytes: &[u8], path: &Path) -> Result<DynamicImage> {
    image::load_from_memory_with_format(bytes, image::ImageFormat::Png)
        .map_err(|e| Error::data(format!("picture {}: cannot be decoded: {e}", path.display())))
}

fn wrong(path: &Path, wanted: &str, got: &DynamicImage) -> Error {
    Error::data(format!("picture {}: {wanted} wanted, got {:?}", path.display(), got.color()))
}

/// Reads an 8-bit gray picture; `path` stands in messages.
///
/// # Errors
/// [`crate::Kind::Data`] when it is no such PNG.
pub fn read_gray(bytes: &[u8], path: &Path) -> Result<Gray> {
    match decode(bytes, path)? {
        DynamicImage::ImageLuma8(p) => Plane::from_vec(p.width() as usize, p.height() as usize, p.into_raw()),
        other => Err(wrong(path, "8-bit gray", &other)),
    }
}

/// Reads the aligned template and its cover.
///
/// # Errors
/// As [`read_gray`].
pub fn read_aligned(bytes: &[u8], path: &Path) -> Result<(Gray, Gray)> {
    match decode(bytes, path)? {
        DynamicImage::ImageLumaA8(p) => {
            let (w, h) = (p.width() as usize, p.height() as usize);
            let (warped, valid) = p.as_raw().chunks_exact(2).map(|c| (c[0], c[1])).unzip();
            Ok((Plane::from_vec(w, h, warped)?, Plane::from_vec(w, h, valid)?))
        }
        other => Err(wrong(path, "8-bit gray with alpha", &other)),
    }
}

/// Reads a score map: each score the one that its level stands for.
///
/// # Errors
/// As [`read_gray`].
pub fn read_score(bytes: &[u8], path: &Path) -> Result<Map> {
    match decode(bytes, path)? {
        DynamicImage::ImageLuma16(p) => {
            let (w, h) = (p.width() as usize, p.height() as usize);
            Plane::from_vec(w, h, p.as_raw().iter().map(|&v| f32::from(v) / 65535.0).collect())
        }
        other => Err(wrong(path, "16-bit gray", &other)),
    }
}

/// The cover (255 or 0) out of a mask picture.
#[must_use]
pub fn cover_of(mask: &Gray) -> Gray {
    let data = mask.data().iter().map(|&m| if m == NOT_COVERED { 0 } else { 255 }).collect();
    Plane::from_vec(mask.width(), mask.height(), data).unwrap_or_default()
}
