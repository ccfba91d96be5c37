//! The template store: a folder that survives power cuts and can be checked with `sha256sum`.
//!
//! ```text
//! ROOT/ssds-templates.json          {"format": "ssds.templates/1"}: says that this is a store
//! ROOT/objects/ab/ab12...ef.png     pictures, each named by the SHA-256 of its file
//! ROOT/ids/PRODUCT/VIEW/v000003.json   one version: pictures by hash, meta, and the SHA-256 of the rest of the file
//! ROOT/ids/PRODUCT/VIEW/active.json    the version in force and those that were before it
//! ```
//! Invariants: objects and versions are written once and never changed; a file is complete before it has its name (temporary file,
//! fsync, link or rename, fsync of the folder); a version names only objects that are already safe. Two programs may write at the
//! same time: each version number is given once. Limits: nothing is deleted here; 999,999 versions a view.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Meta, Picture, Template, Tolerance, check_id, sha256_hex};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::frame::{Gray, Map, Plane};

const FORMAT: &str = "ssds.templates/1";
const IDENTITY: &str = "ssds-templates.json";
const ACTIVE: &str = "active.json";
/// Beginning of the names of files that are being written.
const TEMPORARY: &str = ".tmp-";
/// Most earlier activations remembered for a rollback.
const HISTORY: usize = 100;
/// Steps of a tolerance picture: a 16-bit level is a gray value times this.
const TOLERANCE_STEPS: f32 = 256.0;

/// What a new version is made of.
#[derive(Debug, Clone)]
pub struct Draft {
    /// `product/view`.
    pub id: String,
    /// The picture.
    pub image: Gray,
    /// Further pictures of the bank.
    pub bank: Vec<Gray>,
    /// 255 where registration may look, else 0; of the picture's size.
    pub mask: Option<Gray>,
    /// Variation of good parts, of the picture's size.
    pub tolerance: Option<Tolerance>,
    /// How it was taken.
    pub meta: Meta,
}

impl Draft {
    /// One picture alone.
    #[must_use]
    pub fn new(id: &str, image: Gray, meta: Meta) -> Self {
        Self { id: id.to_owned(), image, bank: Vec::new(), mask: None, tolerance: None, meta }
    }
}

/// One version in a listing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// `product/view`.
    pub id: String,
    /// From 1.
    pub version: u32,
    /// SHA-256 of the picture's file.
    pub sha256: String,
    /// Width and height of the picture, px.
    pub size_px: (usize, usize),
    /// Number of pictures, the first included.
    pub pictures: usize,
    /// When it was taught.
    pub taught_at: Timestamp,
    /// Whether it is the one in force.
    pub active: bool,
}

/// One fault that [`Store::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub message: String,
}

/// One version as written.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    id: String,
    version: u32,
    image: String,
    size_px: (usize, usize),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bank: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mask: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tolerance: Option<ToleranceFiles>,
    meta: Meta,
    /// SHA-256 of this file's JSON with this field empty.
    #[serde(default)]
    checksum: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToleranceFiles {
    mean: String,
    deviation: String,
    parts: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Active {
    version: u32,
    activated_at: Timestamp,
    /// Versions in force before, oldest first.
    #[serde(default)]
    before: Vec<u32>,
}

/// A folder of templates.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store in `root`, creating it in a folder that is missing or empty.
    ///
    /// # Errors
    /// [`Kind::Data`] when `root` holds other things and no store, or a store of another format; I/O faults naming the path.
    pub fn open(root: &Path) -> Result<Self> {
        let identity = root.join(IDENTITY);
        match fs::read(&identity) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let format = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
                let format = format.as_ref().and_then(|v| v["format"].as_str());
                if format != Some(FORMAT) {
                    return Err(Error::data(format!(
                        "template store {}: {IDENTITY} says {:?}, format {FORMAT:?} wanted",
                        root.display(),
                        text.trim()
                    )));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                create_dirs(root)?;
                let what = |e| Error::io(format!("template store {}", root.display()), e);
                for entry in fs::read_dir(root).map_err(what)? {
                    let name = entry.map_err(what)?.file_name();
                    // What a new file system or a writer that was killed leaves is no reason to refuse; the identity may have come
                    // meanwhile from another program.
                    if name != "lost+found"
                        && name != IDENTITY
                        && !name.to_string_lossy().starts_with(TEMPORARY)
                        && !identity.exists()
                    {
                        return Err(Error::data(format!(
                            "template store {}: the folder is not empty and has no {IDENTITY}; an empty folder or a store wanted",
                            root.display()
                        )));
                    }
                }
                match write_new(&identity, format!("{{\"format\": \"{FORMAT}\"}}\n").as_bytes()) {
                    Err(e) if e.kind() != Kind::TryAgain => return Err(e),
                    _ => {}
                }
            }
            Err(e) => return Err(Error::io(format!("template store {}", identity.display()), e)),
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a new version, the next number of its id; it is not in force before [`Store::activate`].
    ///
    /// # Errors
    /// [`Kind::Usage`] for a bad id, [`Kind::Data`] for an empty picture or a mask or tolerance of another size, I/O faults.
    pub fn add(&self, draft: &Draft) -> Result<Template> {
        check_id(&draft.id)?;
        check_draft(draft)?;
        let image = self.put_gray(&draft.image)?;
        let bank = draft.bank.iter().map(|p| self.put_gray(p)).collect::<Result<Vec<_>>>()?;
        let mask = draft.mask.as_ref().map(|m| self.put_gray(m)).transpose()?;
        let tolerance = match &draft.tolerance {
            Some(t) => Some(ToleranceFiles {
                mean: self.put_object(&tolerance_png(&t.mean)?)?,
                deviation: self.put_object(&tolerance_png(&t.deviation)?)?,
                parts: t.parts,
            }),
            None => None,
        };
        let folder = self.folder(&draft.id);
        create_dirs(&folder)?;
        let mut manifest = Manifest {
            format: FORMAT.into(),
            id: draft.id.clone(),
            version: self.versions(&draft.id)?.last().map_or(1, |v| v + 1),
            image,
            size_px: draft.image.size(),
            bank,
            mask,
            tolerance,
            meta: draft.meta.clone(),
            checksum: String::new(),
        };
        loop {
            manifest.checksum = String::new();
            manifest.checksum = sha256_hex(&to_json(&manifest)?);
            match write_new(&self.manifest_path(&draft.id, manifest.version), &to_json(&manifest)?) {
                Ok(()) => break,
                // Another program took the number meanwhile.
                Err(e) if e.kind() == Kind::TryAgain && manifest.version < 999_999 => manifest.version += 1,
                Err(e) => return Err(e),
            }
        }
        self.load(&draft.id, manifest.version)
    }

    /// Reads one version, checking every hash.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there is no such version, [`Kind::Data`] when a file is damaged; each names the file.
    pub fn load(&self, id: &str, version: u32) -> Result<Template> {
        let m = self.manifest(id, version)?;
        let get = |sha: &str| -> Result<Picture> {
            Ok(Picture { sha256: sha.to_owned(), image: Arc::new(decode_gray(&self.get_object(sha)?, &self.object_path(sha))?) })
        };
        let image = get(&m.image)?;
        let tolerance = match &m.tolerance {
            None => None,
            Some(t) => {
                let map = |sha: &str| decode_tolerance(&self.get_object(sha)?, &self.object_path(sha));
                Some(Arc::new(Tolerance { mean: map(&t.mean)?, deviation: map(&t.deviation)?, parts: t.parts }))
            }
        };
        Ok(Template {
            id: m.id,
            version: m.version,
            sha256: image.sha256,
            image: image.image,
            bank: m.bank.iter().map(|s| get(s)).collect::<Result<_>>()?,
            mask: m.mask.as_deref().map(|s| get(s).map(|p| p.image)).transpose()?,
            tolerance,
            meta: m.meta,
        })
    }

    /// Reads the version in force.
    ///
    /// # Errors
    /// [`Kind::Missing`] when the id is unknown or has no version in force, naming the nearest known id; else as [`Store::load`].
    pub fn load_active(&self, id: &str) -> Result<Template> {
        match self.active(id)? {
            Some(version) => self.load(id, version),
            None if self.versions(id)?.is_empty() => Err(self.unknown(id)?),
            None => Err(Error::new(
                Kind::Missing,
                format!("template {id:?}: no version is active; `ssds template activate` chooses one"),
            )),
        }
    }

    /// Reads the picture whose file has this SHA-256 (say, one that an old event names).
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn picture(&self, sha256: &str) -> Result<Picture> {
        let bytes = self.get_object(sha256)?;
        Ok(Picture { sha256: sha256.to_owned(), image: Arc::new(decode_gray(&bytes, &self.object_path(sha256))?) })
    }

    /// The file of the picture with this SHA-256, checked.
    ///
    /// # Errors
    /// [`Kind::Missing`] when it is not here, [`Kind::Data`] when it is damaged.
    pub fn picture_file(&self, sha256: &str) -> Result<Vec<u8>> {
        self.get_object(sha256)
    }

    /// The version in force, if any.
    ///
    /// # Errors
    /// [`Kind::Data`] when the file that says so is damaged.
    pub fn active(&self, id: &str) -> Result<Option<u32>> {
        Ok(self.read_active(id)?.map(|a| a.version))
    }

    /// Every version of every id, by id, then version.
    ///
    /// # Errors
    /// I/O faults and damaged manifests.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut out = Vec::new();
        for id in self.ids()? {
            let active = self.active(&id)?;
            for version in self.versions(&id)? {
                let m = self.manifest(&id, version)?;
                out.push(Entry {
                    id: id.clone(),
                    version,
                    sha256: m.image,
                    size_px: m.size_px,
                    pictures: 1 + m.bank.len(),
                    taught_at: m.meta.taught_at,
                    active: active == Some(version),
                });
            }
        }
        Ok(out)
    }

    /// Puts a version in force, after checking all its files.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn activate(&self, id: &str, version: u32, at: Timestamp) -> Result<Template> {
        let template = self.load(id, version)?;
        let mut before = Vec::new();
        if let Some(old) = self.read_active(id)? {
            before = old.before;
            if old.version != version {
                before.push(old.version);
            }
        }
        let surplus = before.len().saturating_sub(HISTORY);
        before.drain(..surplus);
        self.write_active(id, &Active { version, activated_at: at, before })?;
        Ok(template)
    }

    /// Puts the version in force that was so before the present one.
    ///
    /// # Errors
    /// [`Kind::Missing`] when there was none; else as [`Store::load`].
    pub fn rollback(&self, id: &str, at: Timestamp) -> Result<Template> {
        let Some(mut active) = self.read_active(id)? else { return Err(self.unknown(id)?) };
        let Some(version) = active.before.pop() else {
            return Err(Error::new(
                Kind::Missing,
                format!("template {id:?}: version {} is the first that was active, there is none before it", active.version),
            ));
        };
        let template = self.load(id, version)?;
        self.write_active(id, &Active { version, activated_at: at, before: active.before })?;
        Ok(template)
    }

    /// Reads everything and reports every fault: objects whose content is not what their name says, damaged or missing files.
    ///
    /// # Errors
    /// Only when the folders themselves cannot be listed.
    pub fn verify(&self) -> Result<Vec<Problem>> {
        let mut out = Vec::new();
        for id in self.ids()? {
            let versions = self.versions(&id)?;
            for &version in &versions {
                if let Err(e) = self.load(&id, version) {
                    out.push(Problem { path: self.manifest_path(&id, version), message: format!("{e:#}") });
                }
            }
            match self.active(&id) {
                Ok(Some(v)) if !versions.contains(&v) => out.push(Problem {
                    path: self.folder(&id).join(ACTIVE),
                    message: format!("version {v} is active and does not exist"),
                }),
                Err(e) => out.push(Problem { path: self.folder(&id).join(ACTIVE), message: format!("{e:#}") }),
                Ok(_) => {}
            }
        }
        for folder in subfolders(&self.root.join("objects"))? {
            for path in files(&folder)? {
                let sha = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                if path.extension().is_some_and(|e| e == "png")
                    && let Err(e) = self.get_object(&sha)
                {
                    out.push(Problem { path, message: format!("{e:#}") });
                }
            }
        }
        Ok(out)
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.root.join("ids").join(id)
    }

    fn manifest_path(&self, id: &str, version: u32) -> PathBuf {
        self.folder(id).join(format!("v{version:06}.json"))
    }

    fn object_path(&self, sha256: &str) -> PathBuf {
        self.root.join("objects").join(sha256.get(..2).unwrap_or("xx")).join(format!("{sha256}.png"))
    }

    fn manifest(&self, id: &str, version: u32) -> Result<Manifest> {
        check_id(id)?;
        let path = self.manifest_path(id, version);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let versions = self.versions(id)?;
                return Err(match (versions.first(), versions.last()) {
                    (Some(first), Some(last)) => Error::new(
                        Kind::Missing,
                        format!("template {id:?}: no version {version}; versions {first} to {last} exist"),
                    ),
                    _ => self.unknown(id)?,
                });
            }
            Err(e) => return Err(Error::io(format!("template {}", path.display()), e)),
        };
        let damaged = |what: String| Error::data(format!("template {}: damaged: {what}", path.display()));
        let mut m: Manifest = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let said = std::mem::take(&mut m.checksum);
        if sha256_hex(&to_json(&m)?) != said {
            return Err(damaged("its checksum does not fit".into()));
        }
        if m.id != id || m.version != version {
            return Err(damaged(format!("it says {:?} version {}", m.id, m.version)));
        }
        Ok(m)
    }

    fn unknown(&self, id: &str) -> Result<Error> {
        let ids = self.ids()?;
        let near = ids.iter().max_by(|a, b| strsim::jaro_winkler(a, id).total_cmp(&strsim::jaro_winkler(b, id)));
        Ok(Error::new(
            Kind::Missing,
            match near {
                Some(near) => format!("template {id:?}: unknown in {}; the nearest known one is {near:?}", self.root.display()),
                None => format!("template {id:?}: the store {} is empty; `ssds teach` fills it", self.root.display()),
            },
        ))
    }

    fn ids(&self) -> Result<Vec<String>> {
        let mut out = Vec::new();
        for product in subfolders(&self.root.join("ids"))? {
            for view in subfolders(&product)? {
                if let (Some(p), Some(v)) = (product.file_name(), view.file_name()) {
                    let id = format!("{}/{}", p.to_string_lossy(), v.to_string_lossy());
                    if check_id(&id).is_ok() && !self.versions(&id)?.is_empty() {
                        out.push(id);
                    }
                }
            }
        }
        out.sort();
        Ok(out)
    }

    fn versions(&self, id: &str) -> Result<Vec<u32>> {
        let mut out: Vec<u32> = files(&self.folder(id))?
            .iter()
            .filter_map(|p| p.file_name()?.to_str()?.strip_prefix('v')?.strip_suffix(".json")?.parse().ok())
            .collect();
        out.sort_unstable();
        Ok(out)
    }

    fn read_active(&self, id: &str) -> Result<Option<Active>> {
        check_id(id)?;
        let path = self.folder(id).join(ACTIVE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                Error::data(format!("template {}: damaged: {e}; `ssds template activate` writes it anew", path.display()))
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("template {}", path.display()), e)),
        }
    }

    fn write_active(&self, id: &str, active: &Active) -> Result<()> {
        replace(&self.folder(id).join(ACTIVE), &to_json(active)?)
    }

    fn put_gray(&self, picture: &Gray) -> Result<String> {
        self.put_object(&png_bytes(picture)?)
    }

    fn put_object(&self, bytes: &[u8]) -> Result<String> {
        let sha = sha256_hex(bytes);
        let path = self.object_path(&sha);
        if let Some(folder) = path.parent() {
            create_dirs(folder)?;
        }
        match write_new(&path, bytes) {
            // It is there: good when whole. A damaged one is replaced by what it should have been.
            Err(e) if e.kind() == Kind::TryAgain => {
                if self.get_object(&sha).is_err() {
                    replace(&path, bytes)?;
                }
            }
            other => other?,
        }
        Ok(sha)
    }

    fn get_object(&self, sha256: &str) -> Result<Vec<u8>> {
        let path = self.object_path(sha256);
        let bytes = fs::read(&path).map_err(|e| Error::io(format!("template picture {}", path.display()), e))?;
        let found = sha256_hex(&bytes);
        if found != sha256 {
            return Err(Error::data(format!("template picture {}: damaged: its content has SHA-256 {found}", path.display())));
        }
        Ok(bytes)
    }
}

fn check_draft(draft: &Draft) -> Result<()> {
    let size = draft.image.size();
    if size.0 == 0 || size.1 == 0 {
        return Err(Error::data(format!("template {:?}: its picture is empty", draft.id)));
    }
    let mut others = vec![("mask", draft.mask.as_ref().map(Plane::size))];
    if let Some(t) = &draft.tolerance {
        others.push(("mean of the tolerance", Some(t.mean.size())));
        others.push(("deviation of the tolerance", Some(t.deviation.size())));
    }
    for (name, other) in others {
        if let Some((w, h)) = other
            && (w, h) != size
        {
            return Err(Error::data(format!(
                "template {:?}: {name} of {w}x{h} px, the picture's {}x{} px wanted",
                draft.id, size.0, size.1
            )));
        }
    }
    Ok(())
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut out = serde_json::to_vec_pretty(value).map_err(|e| Error::internal(format!("JSON: {e}")))?;
    out.push(b'\n');
    Ok(out)
}

/// An 8-bit gray PNG in memory.
///
/// # Errors
/// [`Kind::Internal`] when the encoder refuses (an empty picture).
pub fn png_bytes(picture: &Gray) -> Result<Vec<u8>> {
    encode(picture.data(), picture.size(), image::ExtendedColorType::L8)
}

fn encode(bytes: &[u8], size: (usize, usize), color: image::ExtendedColorType) -> Result<Vec<u8>> {
    let mut out = std::io::Cursor::new(Vec::new());
    image::write_buffer_with_format(&mut out, bytes, size.0 as u32, size.1 as u32, color, image::ImageFormat::Png)
        .map_err(|e| Error::internal(format!("PNG of {}x{} px: {e}", size.0, size.1)))?;
    Ok(out.into_inner())
}

fn tolerance_png(map: &Map) -> Result<Vec<u8>> {
    let levels = map.data().iter().map(|v| (v * TOLERANCE_STEPS).round().clamp(0.0, 65535.0) as u16);
    let bytes: Vec<u8> = levels.flat_map(u16::to_ne_bytes).collect();
    encode(&bytes, map.size(), image::ExtendedColorType::L16)
}

fn decode(bytes: &[u8], path: &Path) -> Result<image::DynamicImage> {
    image::load_from_memory_with_format(bytes, image::ImageFormat::Png)
        .map_err(|e| Error::data(format!("template picture {}: cannot be decoded: {e}", path.display())))
}

fn decode_gray(bytes: &[u8], path: &Path) -> Result<Gray> {
    Ok(crate::frame::gray_from_dynamic(&decode(bytes, path)?))
}

fn decode_tolerance(bytes: &[u8], path: &Path) -> Result<Map> {
    let picture = decode(bytes, path)?.into_luma16();
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    Map::from_vec(w, h, picture.as_raw().iter().map(|&v| f32::from(v) / TOLERANCE_STEPS).collect())
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    entries(folder, |t| t.is_dir())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    entries(folder, |t| t.is_file())
}

/// Entries of a folder, sorted; none when it is missing.
fn entries(folder: &Path, wanted: impl Fn(&fs::FileType) -> bool) -> Result<Vec<PathBuf>> {
    let what = |e| Error::io(format!("folder {}", folder.display()), e);
    let list = match fs::read_dir(folder) {
        Ok(list) => list,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(what(e)),
    };
    let mut out = Vec::new();
    for entry in list {
        let entry = entry.map_err(what)?;
        if wanted(&entry.file_type().map_err(what)?) {
            out.push(entry.path());
        }
    }
    out.sort();
    Ok(out)
}

fn create_dirs(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .map_err(|e| Error::io(format!("folder {}", folder.display()), e))
        .map_err(|e| if e.kind() == Kind::Io { e.with_kind(Kind::CannotCreate) } else { e })
}

/// Writes a file that must not exist yet: complete and on disk before it has its name. [`Kind::TryAgain`] when it exists.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = write_temporary(path, bytes)?;
    match temporary.persist_noclobber(path) {
        Ok(_) => sync_folder_of(path),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new(Kind::TryAgain, format!("{} exists already", path.display())))
        }
        Err(e) => Err(Error::io(format!("writing {}", path.display()), e.error)),
    }
}

/// Writes a file over an older one: at any time the one or the other is there, whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = write_temporary(path, bytes)?;
    temporary.persist(path).map_err(|e| Error::io(format!("writing {}", path.display()), e.error))?;
    sync_folder_of(path)
}

fn write_temporary(path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    let what = |e| Error::io(format!("writing {}", path.display()), e);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    // Temporary files are private by default; what others may read decides the process's umask, as for any file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(folder).map_err(what)?;
    file.write_all(bytes).map_err(what)?;
    file.as_file().sync_all().map_err(what)?;
    Ok(file)
}

fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io(format!("syncing {}", folder.display()), e))
}

#[cfg(test)]
mod tests;
