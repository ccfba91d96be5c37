//! Pictures and frames.
//!
//! [`Plane`] is a tight, row-major picture of one channel; [`Gray`] is the 8-bit gray that everything after capture works on. Files of
//! any bit depth come in through [`load_gray`], whose conversion is stated there. [`Frame`] is a picture with its identity and times.

use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, ImageReader};

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};

/// A picture of one channel, row-major without padding: pixel (x, y) is `data[y * width + x]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plane<T> {
    width: usize,
    height: usize,
    data: Vec<T>,
}

/// 8-bit gray.
pub type Gray = Plane<u8>;
/// A real-valued map, such as the defect map with scores 0..1.
pub type Map = Plane<f32>;

impl<T: Copy + Default> Plane<T> {
    /// A picture filled with `T::default()`.
    #[must_use]
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![T::default(); width * height] }
    }

    /// Wraps `data`, which must hold `width * height` values.
    pub fn from_vec(width: usize, height: usize, data: Vec<T>) -> Result<Self> {
        if data.len() != width * height {
            return Err(Error::internal(format!(
                "a {width}x{height} picture needs {} values, got {}",
                width * height,
                data.len()
            )));
        }
        Ok(Self { width, height, data })
    }

    /// Makes a picture from a function of (x, y).
    #[must_use]
    pub fn from_fn(width: usize, height: usize, mut f: impl FnMut(usize, usize) -> T) -> Self {
        let mut out = Self::new(width, height);
        for y in 0..height {
            for x in 0..width {
                out.data[y * width + x] = f(x, y);
            }
        }
        out
    }

    /// Changes the size, keeping the allocation where it suffices; the content is `T::default()` afterwards.
    pub fn reset(&mut self, width: usize, height: usize) {
        self.width = width;
        self.height = height;
        self.data.clear();
        self.data.resize(width * height, T::default());
    }

    /// Changes the size without clearing what the allocation held: every pixel must be written afterwards.
    pub fn resize_for_overwrite(&mut self, width: usize, height: usize) {
        self.width = width;
        self.height = height;
        self.data.resize(width * height, T::default());
    }

    /// Becomes a copy of `other`, in the memory it has.
    pub fn copy_from(&mut self, other: &Self) {
        self.width = other.width;
        self.height = other.height;
        self.data.clone_from(&other.data);
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

    /// (width, height).
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// All pixels, row by row.
    #[must_use]
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// All pixels, row by row.
    pub fn data_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// Gives the pixels away.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.data
    }

    /// One row.
    #[must_use]
    pub fn row(&self, y: usize) -> &[T] {
        &self.data[y * self.width..(y + 1) * self.width]
    }

    /// One row.
    pub fn row_mut(&mut self, y: usize) -> &mut [T] {
        &mut self.data[y * self.width..(y + 1) * self.width]
    }

    /// One pixel; panics outside the picture as slice indexing does.
    #[must_use]
    pub fn get(&self, x: usize, y: usize) -> T {
        debug_assert!(x < self.width);
        self.data[y * self.width + x]
    }

    /// Sets one pixel.
    pub fn set(&mut self, x: usize, y: usize, value: T) {
        debug_assert!(x < self.width);
        self.data[y * self.width + x] = value;
    }
}

/// Number of a frame within one run of the daemon, from 1, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct FrameId(pub u64);

impl std::fmt::Display for FrameId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One captured picture with its identity and times. Cloning shares the pixels.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Number within this run.
    pub id: FrameId,
    /// The picture.
    pub image: Arc<Gray>,
    /// Wall-clock time of exposure as well as it is known.
    pub captured_at: Timestamp,
    /// The same on CLOCK_MONOTONIC, ns.
    pub captured_mono_ns: u64,
    /// Where it came from: the camera's name, or the file of a replay.
    pub source: Arc<str>,
}

/// Reads a PNG, JPEG, BMP or TIFF file as 8-bit gray.
///
/// Conversion: more than 8 bits are scaled by 255 / max of the type and rounded (16-bit: `(v + 128) / 257`; float 0..1: `v * 255`);
/// colour becomes luma by ITU-R BT.601 as integers, `(299 R + 587 G + 114 B + 500) / 1000`; alpha is ignored. Embedded colour profiles
/// and EXIF orientation are not applied: a camera's pixels are taken as they are.
///
/// # Errors
/// [`Kind::Missing`] or [`Kind::Permission`] when the file cannot be opened, [`Kind::Data`] when it cannot be decoded; both name the file.
pub fn load_gray(path: &Path) -> Result<Gray> {
    let what = format!("picture {}", path.display());
    let file = std::fs::File::open(path).map_err(|e| Error::io(&what, e))?;
    decode_gray(std::io::BufReader::new(file), &what)
}

/// Decodes a picture's file content as [`load_gray`] does; `what` stands in messages.
///
/// # Errors
/// [`Kind::Data`] when it cannot be decoded.
pub fn gray_from_bytes(bytes: &[u8], what: &str) -> Result<Gray> {
    decode_gray(std::io::Cursor::new(bytes), what)
}

fn decode_gray(source: impl std::io::BufRead + std::io::Seek, what: &str) -> Result<Gray> {
    // By content, never by the file's name.
    let reader = ImageReader::new(source).with_guessed_format().map_err(|e| Error::io(what, e))?;
    if reader.format().is_none() {
        return Err(Error::data(format!("{what}: not a PNG, JPEG, BMP or TIFF file")));
    }
    let picture = reader.decode().map_err(|e| Error::data(format!("{what}: cannot be decoded: {e}")))?;
    let out = gray_from_dynamic(&picture);
    if out.width == 0 || out.height == 0 {
        return Err(Error::data(format!("{what}: is empty ({}x{})", out.width, out.height)));
    }
    Ok(out)
}

/// The conversion of [`load_gray`] on a decoded picture.
#[must_use]
pub fn gray_from_dynamic(picture: &DynamicImage) -> Gray {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let luma = |p: [u32; 3]| ((299 * p[0] + 587 * p[1] + 114 * p[2] + 500) / 1000) as u8;
    let from16 = |v: u16| ((u32::from(v) + 128) / 257) as u8;
    let data: Vec<u8> = match picture {
        DynamicImage::ImageLuma8(p) => p.as_raw().clone(),
        DynamicImage::ImageLumaA8(p) => p.pixels().map(|p| p.0[0]).collect(),
        DynamicImage::ImageLuma16(p) => p.pixels().map(|p| from16(p.0[0])).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().map(|p| from16(p.0[0])).collect(),
        DynamicImage::ImageRgb16(p) => p.pixels().map(|p| luma(p.0.map(|v| u32::from(from16(v))))).collect(),
        DynamicImage::ImageRgba16(p) => {
            p.pixels().map(|p| luma([p.0[0], p.0[1], p.0[2]].map(|v| u32::from(from16(v))))).collect()
        }
        other => other.to_rgb8().pixels().map(|p| luma(p.0.map(u32::from))).collect(),
    };
    Plane { width, height, data }
}

/// Writes an 8-bit gray PNG.
///
/// # Errors
/// [`Kind::CannotCreate`] naming the file.
pub fn save_gray_png(path: &Path, picture: &Gray) -> Result<()> {
    save_png(path, &picture.data, picture.width, picture.height, image::ExtendedColorType::L8)
}

/// Writes a defect map as a 16-bit gray PNG: 0..65535 stands for 0..1, rounded, clamped; NaN becomes 0.
///
/// # Errors
/// [`Kind::CannotCreate`] naming the file.
pub fn save_map_png(path: &Path, map: &Map) -> Result<()> {
    let bytes: Vec<u8> = map.data.iter().flat_map(|v| ((v.clamp(0.0, 1.0) * 65535.0).round() as u16).to_ne_bytes()).collect();
    save_png(path, &bytes, map.width, map.height, image::ExtendedColorType::L16)
}

/// Writes an RGB PNG from `width * height * 3` bytes.
///
/// # Errors
/// [`Kind::CannotCreate`] naming the file.
pub fn save_rgb_png(path: &Path, rgb: &[u8], width: usize, height: usize) -> Result<()> {
    save_png(path, rgb, width, height, image::ExtendedColorType::Rgb8)
}

fn save_png(path: &Path, bytes: &[u8], width: usize, height: usize, color: image::ExtendedColorType) -> Result<()> {
    image::save_buffer_with_format(path, bytes, width as u32, height as u32, color, image::ImageFormat::Png)
        .map_err(|e| Error::new(Kind::CannotCreate, format!("picture {}: cannot be written: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bit_files_scale_to_eight() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let map = Map::from_vec(3, 1, vec![0.0, 0.5, 1.0]).unwrap();
        save_map_png(&path, &map).unwrap();
        assert_eq!(load_gray(&path).unwrap().data(), &[0, 128, 255]);
    }

    #[test]
    fn colour_becomes_bt601_luma() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        save_rgb_png(&path, &[255, 0, 0, 0, 255, 0, 0, 0, 255], 3, 1).unwrap();
        assert_eq!(load_gray(&path).unwrap().data(), &[76, 150, 29]);
    }

    #[test]
    fn unreadable_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = load_gray(&dir.path().join("none.png")).unwrap_err();
        assert_eq!(missing.kind(), Kind::Missing);
        assert!(missing.to_string().contains("none.png"), "{missing}");
        let text = dir.path().join("text.png");
        std::fs::write(&text, "hello").unwrap();
        let error = load_gray(&text).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        assert!(error.to_string().contains("text.png"), "{error}");
    }
}
