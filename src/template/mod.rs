//! Templates: the golden images of the products, versioned and content-addressed.
//!
//! A [`Template`] is one version of one view of a product (`product/view`): its picture, optionally further pictures (a bank), a mask
//! of what registration may use, and the variation of good parts. Its identity on the wire is (id, version, SHA-256 of the picture's
//! PNG file). [`store::Store`] keeps them on disk.

pub mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::frame::{Gray, Map};

/// What is known about how a template was taken. Unknown fields in a file are ignored, missing ones take their default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// When it was taught, UTC.
    pub taught_at: Timestamp,
    /// Where the picture came from: a file name or a camera's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The camera's settings when it was taken, by control name (`exposure_us`, `gain_db`, ...).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub camera: BTreeMap<String, String>,
    /// Size of a template pixel on the part, mm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mm_per_px: Option<f64>,
    /// What a person wrote about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Meta {
    /// Only the time.
    #[must_use]
    pub fn at(taught_at: Timestamp) -> Self {
        Self { taught_at, source: String::new(), camera: BTreeMap::new(), mm_per_px: None, note: String::new() }
    }
}

/// A picture with the SHA-256 of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// 64 hex digits.
    pub sha256: String,
    /// Its pixels.
    pub image: Arc<Gray>,
}

/// How good parts vary, per template pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct Tolerance {
    /// Mean gray value, 0..255.
    pub mean: Map,
    /// Standard deviation, gray values.
    pub deviation: Map,
    /// Number of parts it was learnt from.
    pub parts: u32,
}

/// One version of a template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// `product/view`.
    pub id: String,
    /// From 1.
    pub version: u32,
    /// SHA-256 of the picture's PNG file, 64 hex digits.
    pub sha256: String,
    /// The picture.
    pub image: Arc<Gray>,
    /// Further pictures of the bank, of any size; the registration's confidence chooses among all.
    pub bank: Vec<Picture>,
    /// 255 where registration may look, else 0; of the picture's size.
    pub mask: Option<Arc<Gray>>,
    /// Variation of good parts, of the picture's size.
    pub tolerance: Option<Arc<Tolerance>>,
    /// How it was taken.
    pub meta: Meta,
}

impl Template {
    /// A template that is in no store: version 1, its SHA-256 that of the PNG file [`store::png_bytes`] would write.
    ///
    /// # Errors
    /// [`crate::Kind::Usage`] for an id that [`check_id`] refuses.
    pub fn loose(id: &str, image: Gray, meta: Meta) -> Result<Self> {
        check_id(id)?;
        let sha256 = sha256_hex(&store::png_bytes(&image)?);
        Ok(Self {
            id: id.to_owned(),
            version: 1,
            sha256,
            image: Arc::new(image),
            bank: Vec::new(),
            mask: None,
            tolerance: None,
            meta,
        })
    }

    /// The product: the id up to the slash.
    #[must_use]
    pub fn product(&self) -> &str {
        self.id.split_once('/').map_or(&self.id, |(product, _)| product)
    }
}

/// SHA-256 as 64 lower-case hex digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// View of a product that names none.
pub const DEFAULT_VIEW: &str = "main";

/// Checks `product/view`: each part 1 to 64 of a-z, 0-9, `_`, `-`, `.`, beginning with a letter or digit.
///
/// # Errors
/// [`crate::Kind::Usage`] naming the id.
pub fn check_id(id: &str) -> Result<()> {
    let part_ok = |part: &str| {
        (1..=64).contains(&part.len())
            && part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c))
    };
    match id.split_once('/') {
        Some((product, view)) if part_ok(product) && part_ok(view) => Ok(()),
        _ => Err(Error::new(
            crate::Kind::Usage,
            format!(
                "template id {id:?}: product/view wanted, each 1 to 64 of a-z, 0-9, '_', '-', '.', beginning with a letter or digit"
            ),
        )),
    }
}

/// The id of a product's only view, or `name` itself when it already names a view.
///
/// # Errors
/// As [`check_id`].
pub fn id_of(name: &str) -> Result<String> {
    let id = if name.contains('/') { name.to_owned() } else { format!("{name}/{DEFAULT_VIEW}") };
    check_id(&id)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for good in ["pcb-a17/top", "a/b", "0/x.y_z-1"] {
            check_id(good).unwrap();
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "A/b", "../x", "a/.b", "a b/c", &format!("a/{}", "x".repeat(65))] {
            let error = check_id(bad).unwrap_err();
            assert!(error.to_string().starts_with(&format!("template id {bad:?}: product/view wanted")), "{error}");
        }
        assert_eq!(id_of("pcb").unwrap(), "pcb/main");
        assert_eq!(id_of("pcb/top").unwrap(), "pcb/top");
    }

    #[test]
    fn sha256_of_a_known_text() {
        // FIPS 180-4, example B.1.
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
