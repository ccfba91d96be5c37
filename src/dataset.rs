//! Pair manifests and ground truth on disk.
//!
//! A manifest is JSON lines, one pair a line, paths relative to the manifest's folder, unknown keys ignored:
//! `{"pair": "id", "template": "t.png", "image": "i.png", "mask": "m.png" | null, "boxes": "b.txt" | [[x1, y1, x2, y2], ...] | null,
//! "matrix": [[a, b, tx], [c, d, ty]] | null}`.
//! Mask: 0 good, 255 defect, anything between not scored. Boxes: frame pixels, `x2` and `y2` exclusive, an optional fifth column is a
//! class and ignored. Matrix: `frame_from_template`. A `/` in an id makes a folder where something is written per pair.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, Map, load_gray};
use crate::geometry::Affine;

/// A box in frame pixels: `[x1, y1, x2, y2]`, the last column and row exclusive.
pub type Box4 = [f64; 4];

/// Where a pair's boxes are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BoxSource {
    /// A text file, one box a line: `x1 y1 x2 y2 [class]`.
    File(PathBuf),
    /// In the manifest itself; more than four numbers are allowed, the first four count.
    Inline(Vec<Vec<f64>>),
}

/// One line of a manifest. Paths as written, relative to the manifest's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The pair's id, unique in its manifest.
    #[serde(rename = "pair")]
    pub id: String,
    /// The golden image.
    pub template: PathBuf,
    /// The frame.
    pub image: PathBuf,
    /// Ground truth per pixel, if known.
    #[serde(default)]
    pub mask: Option<PathBuf>,
    /// Ground truth boxes, if known.
    #[serde(default)]
    pub boxes: Option<BoxSource>,
    /// The true pose, if known.
    #[serde(default)]
    pub matrix: Option<Affine>,
}

/// What is known about a frame's defects.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Truth {
    /// 0 good, 255 defect, anything between not scored; none when only boxes are known.
    pub mask: Option<Gray>,
    /// Boxes of the defects.
    pub boxes: Vec<Box4>,
}

/// A manifest read from disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The folder the paths are relative to.
    pub folder: PathBuf,
    /// The pairs in the file's order.
    pub pairs: Vec<Pair>,
}

/// Whether `id` can name a file below a folder: not empty, relative, without `..` and without a trailing `/`.
fn id_fault(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        return Some("must not be empty");
    }
    let plain = Path::new(id).components().all(|c| matches!(c, Component::Normal(_)));
    (!plain || id.ends_with('/') || id.contains('\0')).then_some("must be a relative name without `..`")
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`Kind::Missing`] when the file is not there; [`Kind::Data`] naming the line when it is not a pair, an id comes twice or cannot
    /// name a file, or the manifest holds no pair at all.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("manifest {}", path.display());
        let file = std::fs::File::open(path).map_err(|e| Error::io(what(), e))?;
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let mut pairs = Vec::new();
        let mut seen = HashSet::new();
        for (i, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|e| Error::io(what(), e))?;
            if line.trim().is_empty() {
                continue;
            }
            let at = || format!("{} line {}", what(), i + 1);
            let pair: Pair = serde_json::from_str(&line).map_err(|e| Error::data(format!("{}: {e}", at())))?;
            if let Some(fault) = id_fault(&pair.id) {
                return Err(Error::data(format!("{}: pair id `{}` {fault}", at(), pair.id)));
            }
            if pair.matrix.is_some_and(|m| !m.is_finite() || m.invert().is_none()) {
                return Err(Error::data(format!("{}: matrix of pair `{}` must be invertible", at(), pair.id)));
            }
            if !seen.insert(pair.id.clone()) {
                return Err(Error::data(format!("{}: pair id `{}` comes a second time", at(), pair.id)));
            }
            pairs.push(pair);
        }
        if pairs.is_empty() {
            return Err(Error::data(format!("{}: holds no pairs", what())));
        }
        Ok(Self { folder, pairs })
    }

    /// A pair's template picture.
    ///
    /// # Errors
    /// As [`load_gray`], with the pair's id.
    pub fn template(&self, pair: &Pair) -> Result<Gray> {
        load_gray(&self.folder.join(&pair.template)).map_err(|e| e.context(format!("pair `{}`", pair.id)))
    }

    /// A pair's frame.
    ///
    /// # Errors
    /// As [`load_gray`], with the pair's id.
    pub fn image(&self, pair: &Pair) -> Result<Gray> {
        load_gray(&self.folder.join(&pair.image)).map_err(|e| e.context(format!("pair `{}`", pair.id)))
    }

    /// A pair's ground truth; `None` when the manifest has neither mask nor boxes for it.
    ///
    /// # Errors
    /// [`Kind::Missing`] or [`Kind::Data`] when what the manifest names cannot be read, with the pair's id.
    pub fn truth(&self, pair: &Pair) -> Result<Option<Truth>> {
        if pair.mask.is_none() && pair.boxes.is_none() {
            return Ok(None);
        }
        let inner = || -> Result<Truth> {
            let mask = pair.mask.as_ref().map(|m| load_gray(&self.folder.join(m))).transpose()?;
            let boxes = match &pair.boxes {
                None => Vec::new(),
                Some(BoxSource::File(file)) => read_boxes(&self.folder.join(file))?,
                Some(BoxSource::Inline(rows)) => rows.iter().map(|row| box_of(row)).collect::<Result<_>>()?,
            };
            Ok(Truth { mask, boxes })
        };
        inner().map(Some).map_err(|e| e.context(format!("pair `{}`", pair.id)))
    }
}

fn box_of(row: &[f64]) -> Result<Box4> {
    match row {
        [x1, y1, x2, y2, ..] if row.iter().all(|v| v.is_finite()) && x2 >= x1 && y2 >= y1 => Ok([*x1, *y1, *x2, *y2]),
        _ => Err(Error::data(format!("a box must be x1 y1 x2 y2 with x1 <= x2 and y1 <= y2, got {row:?}"))),
    }
}

/// Reads a box file: a box a line, `x1 y1 x2 y2 [class]` separated by blanks or commas; empty lines are skipped.
///
/// # Errors
/// [`Kind::Missing`] when the file is not there, [`Kind::Data`] naming file and line when a line is not a box.
pub fn read_boxes(path: &Path) -> Result<Vec<Box4>> {
    let what = || format!("boxes {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(what(), e))?;
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split([' ', '\t', ',']).filter(|f| !f.trim().is_empty()).collect();
        if fields.is_empty() {
            continue;
        }
        let numbers: Vec<f64> = fields.iter().take(4).map_while(|f| f.trim().parse().ok()).collect();
        out.push(box_of(&numbers).map_err(|_| {
            Error::data(format!(
                "{} line {}: a box must be x1 y1 x2 y2 with x1 <= x2 and y1 <= y2, got `{}`",
                what(),
                i + 1,
                line.trim()
            ))
        })?);
    }
    Ok(out)
}

/// Reads a defect map: a gray PNG, 16 bits standing for 0..1 (as [`crate::frame::save_map_png`] writes it), or 8 bits.
///
/// # Errors
/// [`Kind::Missing`] when the file is not there, [`Kind::Data`] when it is no gray picture.
pub fn load_map(path: &Path) -> Result<Map> {
    let what = || format!("map {}", path.display());
    let reader = image::ImageReader::open(path).map_err(|e| Error::io(what(), e))?;
    let reader = reader.with_guessed_format().map_err(|e| Error::io(what(), e))?;
    let picture = reader.decode().map_err(|e| Error::data(format!("{}: cannot be decoded: {e}", what())))?;
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let data: Vec<f32> = match &picture {
        image::DynamicImage::ImageLuma8(p) => p.as_raw().iter().map(|v| f32::from(*v) / 255.0).collect(),
        image::DynamicImage::ImageLuma16(p) => p.as_raw().iter().map(|v| f32::from(*v) / 65535.0).collect(),
        other => return Err(Error::data(format!("{}: must be gray of 8 or 16 bits, got {:?}", what(), other.color()))),
    };
    Map::from_vec(w, h, data)
}

/// Where something is written for a pair: `folder/<id>.<extension>`, with folders for the slashes of the id.
///
/// # Errors
/// [`Kind::CannotCreate`] when a folder on the way cannot be made.
pub fn path_for(folder: &Path, id: &str, extension: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{id}.{extension}"));
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    Ok(path)
}

/// Makes a folder and those above it.
///
/// # Errors
/// [`Kind::CannotCreate`] naming the folder.
pub fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .map_err(|e| Error::new(Kind::CannotCreate, format!("folder {}: cannot be created: {e}", path.display())))
}

/// Writes a manifest line by line.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: BufWriter<std::fs::File>,
}

impl Writer {
    /// Creates (or empties) the manifest.
    ///
    /// # Errors
    /// [`Kind::CannotCreate`] naming the file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = std::fs::File::create(path)
            .map_err(|e| Error::new(Kind::CannotCreate, format!("manifest {}: cannot be created: {e}", path.display())))?;
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file) })
    }

    /// Adds a pair. Keys of `notes` that a manifest does not know go along and are ignored by readers.
    ///
    /// # Errors
    /// [`Kind::Data`] when the id cannot name a file, [`Kind::Io`] when writing fails.
    pub fn add<N: Serialize>(&mut self, pair: &Pair, notes: Option<&N>) -> Result<()> {
        if let Some(fault) = id_fault(&pair.id) {
            return Err(Error::data(format!("manifest {}: pair id `{}` {fault}", self.path.display(), pair.id)));
        }
        let unserialisable =
            |e: serde_json::Error| Error::internal(format!("manifest {}: pair `{}`: {e}", self.path.display(), pair.id));
        let mut line = serde_json::to_value(pair).map_err(unserialisable)?;
        if let (Some(notes), Some(object)) = (notes, line.as_object_mut()) {
            object.insert("notes".into(), serde_json::to_value(notes).map_err(unserialisable)?);
        }
        writeln!(self.file, "{line}").map_err(|e| Error::io(format!("manifest {}", self.path.display()), e))
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// [`Kind::Io`] when writing fails.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|e| Error::io(format!("manifest {}", self.path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{save_gray_png, save_map_png};

    fn read(text: &str) -> Result<Manifest> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        std::fs::write(&path, text).unwrap();
        Manifest::read(&path).map_err(|e| {
            let message = e.message().replace(&dir.path().display().to_string(), "DIR");
            Error::new(e.kind(), message)
        })
    }

    #[test]
    fn a_written_manifest_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        let first = Pair {
            id: "a/1".into(),
            template: "t.png".into(),
            image: "i.png".into(),
            mask: Some("m.png".into()),
            boxes: Some(BoxSource::Inline(vec![vec![1.0, 2.0, 3.0, 4.0, 5.0]])),
            matrix: Some(Affine::IDENTITY),
        };
        let second =
            Pair { id: "b".into(), mask: None, boxes: Some(BoxSource::File("b.txt".into())), matrix: None, ..first.clone() };
        let mut writer = Writer::create(&path).unwrap();
        writer.add(&first, Some(&"made by hand")).unwrap();
        writer.add::<()>(&second, None).unwrap();
        writer.finish().unwrap();

        let mask = Gray::from_vec(2, 1, vec![0, 255]).unwrap();
        save_gray_png(&dir.path().join("m.png"), &mask).unwrap();
        std::fs::write(dir.path().join("b.txt"), "0 0 5 6 1\n\n7,8,9,10\n").unwrap();

        let manifest = Manifest::read(&path).unwrap();
        assert_eq!(manifest.pairs, [first, second]);
        let truth = manifest.truth(&manifest.pairs[0]).unwrap().unwrap();
        assert_eq!(truth, Truth { mask: Some(mask), boxes: vec![[1.0, 2.0, 3.0, 4.0]] });
        let truth = manifest.truth(&manifest.pairs[1]).unwrap().unwrap();
        assert_eq!(truth.boxes, [[0.0, 0.0, 5.0, 6.0], [7.0, 8.0, 9.0, 10.0]]);
    }

    #[test]
    fn faults_name_file_line_and_what_was_wanted() {
        let line = r#"{"pair": "x", "template": "t.png", "image": "i.png", "extra": 1}"#;
        assert_eq!(read(line).unwrap().pairs.len(), 1);
        let message = |text: &str| read(text).unwrap_err().message().to_string();
        assert_eq!(message(""), "manifest DIR/pairs.jsonl: holds no pairs");
        assert_eq!(message(&format!("{line}\n{line}")), "manifest DIR/pairs.jsonl line 2: pair id `x` comes a second time");
        assert_eq!(
            message(r#"{"pair": "x", "image": "i.png"}"#),
            "manifest DIR/pairs.jsonl line 1: missing field `template` at line 1 column 31"
        );
        assert_eq!(
            message(r#"{"pair": "../x", "template": "t.png", "image": "i.png"}"#),
            "manifest DIR/pairs.jsonl line 1: pair id `../x` must be a relative name without `..`"
        );
        assert_eq!(
            message(r#"{"pair": "", "template": "t.png", "image": "i.png"}"#),
            "manifest DIR/pairs.jsonl line 1: pair id `` must not be empty"
        );
        assert_eq!(
            message(r#"{"pair": "x", "template": "t.png", "image": "i.png", "matrix": [[0,0,1],[0,0,2]]}"#),
            "manifest DIR/pairs.jsonl line 1: matrix of pair `x` must be invertible"
        );
        assert_eq!(Manifest::read(Path::new("/nowhere/pairs.jsonl")).unwrap_err().kind(), Kind::Missing);
    }

    #[test]
    fn bad_boxes_and_maps_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let boxes = dir.path().join("b.txt");
        std::fs::write(&boxes, "1 2 3 4\n5 6 x 8\n").unwrap();
        let message = read_boxes(&boxes).unwrap_err().message().to_string();
        assert!(
            message.ends_with("b.txt line 2: a box must be x1 y1 x2 y2 with x1 <= x2 and y1 <= y2, got `5 6 x 8`"),
            "{message}"
        );
        std::fs::write(&boxes, "9 2 3 4\n").unwrap();
        assert!(read_boxes(&boxes).is_err());

        let map = dir.path().join("map.png");
        save_map_png(&map, &Map::from_vec(3, 1, vec![0.0, 0.25, 1.0]).unwrap()).unwrap();
        assert_eq!(load_map(&map).unwrap().data(), &[0.0, 16384.0 / 65535.0, 1.0]);
        crate::frame::save_rgb_png(&map, &[0; 12], 2, 2).unwrap();
        assert!(load_map(&map).unwrap_err().message().contains("must be gray of 8 or 16 bits"));
    }
}
