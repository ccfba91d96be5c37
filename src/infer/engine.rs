//! The cache of TensorRT engines: built once, used only by exactly what it was built for.
//!
//! An engine belongs to one model, TensorRT, ONNX Runtime, GPU, driver and set of options; [`Key`] names them all and its hash names the
//! folder `ENGINES/KEY/`. The folder holds TensorRT's own files and `engine.json` with the key in clear and each file's size and SHA-256.
//! Building happens in `ENGINES/.building-KEY-PID/`; only a finished folder is renamed into place, so a power cut leaves nothing that could
//! be taken for an engine. A folder whose files do not match its manifest is set aside and built anew.
//!
//! Input: what the engine is for, and a function that builds into a folder. Output: the folder. Nothing here talks to a GPU.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};

use super::Settings;
use super::model::hex;
use super::provider::{Precision, Profile, Provider, precision};

const FORMAT: &str = "ssds.engine/1";
const MANIFEST: &str = "engine.json";
/// Hexadecimal digits of the key in folder names.
const KEY_DIGITS: usize = 32;

/// What the machine brings to an engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// The GPU's or board's name.
    pub gpu: String,
    /// The driver's version.
    pub driver: String,
    /// TensorRT's library file, such as `libnvinfer.so.10.3.0`.
    pub tensorrt: String,
}

impl Machine {
    /// Asks the kernel's files and the library folders; what is not there stays empty.
    #[must_use]
    pub fn detect() -> Self {
        Self::under(Path::new("/"), std::env::var("LD_LIBRARY_PATH").unwrap_or_default().as_str())
    }

    fn under(root: &Path, library_path: &str) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let first_line = |text: String| text.lines().next().unwrap_or_default().trim_matches(['\0', ' ']).to_owned();
        let mut gpus: Vec<String> = folder(&root.join("proc/driver/nvidia/gpus"))
            .filter_map(|gpu| fs::read_to_string(gpu.join("information")).ok())
            .filter_map(|text| Some(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned()))
            .collect();
        gpus.sort();
        let board = first_line(text("proc/device-tree/model"));
        let driver = [text("proc/driver/nvidia/version"), text("etc/nv_tegra_release")].map(first_line);
        let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let folders = library_path.split(':').filter(|p| !p.is_empty()).map(PathBuf::from).chain(
            [triplet.as_str(), "usr/lib64", "usr/lib", "usr/local/lib", "usr/local/tensorrt/lib"].map(|path| root.join(path)),
        );
        let tensorrt = folders.flat_map(|path| folder(&path)).find_map(|path| {
            let is_library = path.file_name()?.to_str()?.starts_with("libnvinfer.so");
            is_library.then(|| path.canonicalize().ok()?.file_name()?.to_str().map(str::to_owned)).flatten()
        });
        Self {
            gpu: if gpus.is_empty() { board } else { gpus.join(" + ") },
            driver: driver.join(" ").trim().to_owned(),
            tensorrt: tensorrt.unwrap_or_default(),
        }
    }
}

fn folder(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut entries: Vec<PathBuf> = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    entries.into_iter()
}

/// Everything an engine depends on, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(BTreeMap<String, String>);

impl Key {
    /// The key of a model (by its SHA-256) on a machine with these settings.
    ///
    /// # Errors
    /// When the calibration table cannot be read.
    pub fn new(
        model_sha256: &str,
        runtime_version: &str,
        machine: &Machine,
        settings: &Settings,
        profile: &Profile,
    ) -> Result<Self> {
        let precision = precision(Provider::TensorRt, settings);
        let calibration = match &settings.int8_calibration {
            Some(path) => {
                let table = fs::read(path).map_err(|e| Error::io(format!("calibration table {}", path.display()), e))?;
                hex(&Sha256::digest(table))
            }
            None => String::new(),
        };
        let Profile { batch, height, width, multiple } = profile;
        Ok(Self(
            [
                ("model", model_sha256.to_owned()),
                ("onnxruntime", runtime_version.to_owned()),
                ("tensorrt", machine.tensorrt.clone()),
                ("gpu", machine.gpu.clone()),
                ("driver", machine.driver.clone()),
                ("device", settings.device.to_string()),
                ("precision", precision.as_str().to_owned()),
                ("fp16", (precision != Precision::Fp32).to_string()),
                ("calibration", calibration),
                ("workspace_mib", settings.workspace_mib.to_string()),
                ("profile", format!("{batch}x2x{height}x{width} by {multiple}")),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ))
    }

    /// The folder's name: the first 128 bits of SHA-256 over `name=value` lines.
    #[must_use]
    pub fn id(&self) -> String {
        let text: String = self.0.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        hex(&Sha256::digest(text))[..KEY_DIGITS].to_owned()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    key: Key,
    files: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    sha256: String,
}

/// What the cache holds for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// A whole engine.
    Fresh(PathBuf),
    /// None.
    Absent,
    /// Something that must not be used, and why.
    Stale(String),
}

/// Looks an engine up and compares every file with the manifest.
#[must_use]
pub fn look_up(engines: &Path, key: &Key) -> Cached {
    let path = engines.join(key.id());
    if !path.exists() {
        return Cached::Absent;
    }
    match verify(&path, key) {
        Ok(()) => Cached::Fresh(path),
        Err(reason) => Cached::Stale(reason),
    }
}

fn verify(path: &Path, key: &Key) -> Result<(), String> {
    let text = fs::read(path.join(MANIFEST)).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    if manifest.format != FORMAT {
        return Err(format!("{MANIFEST}: format is `{}`, wanted `{FORMAT}`", manifest.format));
    }
    if manifest.key != *key {
        return Err(format!("{MANIFEST}: was written for something else"));
    }
    let found = entries(path).map_err(|e| e.to_string())?;
    if found == manifest.files {
        return Ok(());
    }
    let differing = manifest.files.iter().find(|entry| !found.contains(entry)).map_or("an added file", |entry| &entry.name);
    Err(format!("{differing} is not as it was built"))
}

/// Size and sum of every file but the manifest, by name.
fn entries(path: &Path) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    for file in folder(path).filter(|file| file.file_name() != Some(MANIFEST.as_ref())) {
        let content = fs::read(&file).map_err(|e| Error::io(format!("engine {}", file.display()), e))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        out.push(Entry { name, bytes: content.len() as u64, sha256: hex(&Sha256::digest(&content)) });
    }
    Ok(out)
}

/// The engine's folder, built with `build` when there is none or it is stale; `true` when it was built now.
///
/// # Errors
/// What `build` answers; [`Kind::CannotCreate`] when the folder cannot be written; [`Kind::Unavailable`] when `build` leaves no engine.
pub fn ensure(engines: &Path, key: &Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<(PathBuf, bool)> {
    match look_up(engines, key) {
        Cached::Fresh(path) => return Ok((path, false)),
        Cached::Stale(reason) => log::warn!("engine {} is not used and built anew: {reason}", engines.join(key.id()).display()),
        Cached::Absent => {}
    }
    rebuild(engines, key, build).map(|path| (path, true))
}

/// Builds the engine, whatever is there, and puts it into place.
///
/// # Errors
/// As [`ensure`].
pub fn rebuild(engines: &Path, key: &Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cannot =
        |path: &Path, e: std::io::Error| Error::new(Kind::CannotCreate, format!("engine folder {}: {e}", path.display()));
    fs::create_dir_all(engines).map_err(|e| cannot(engines, e))?;
    sweep(engines);
    let work = Work(engines.join(format!(".building-{}-{}", key.id(), std::process::id())));
    fs::create_dir(&work.0).map_err(|e| cannot(&work.0, e))?;
    build(&work.0)?;
    let files = entries(&work.0)?;
    if files.is_empty() {
        return Err(Error::unavailable("the provider left no engine to keep"));
    }
    for file in &files {
        fs::File::open(work.0.join(&file.name)).and_then(|f| f.sync_all()).map_err(|e| cannot(&work.0, e))?;
    }
    let manifest = Manifest { format: FORMAT.into(), key: key.clone(), files };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::internal("the engine's manifest").with_source(e))?;
    let written = fs::File::create(work.0.join(MANIFEST)).and_then(|mut f| {
        f.write_all(&text)?;
        f.sync_all()
    });
    written.map_err(|e| cannot(&work.0, e))?;
    let path = engines.join(key.id());
    if path.exists() {
        // A folder cannot be exchanged in one step; between these two there is none, which only means another build.
        let aside = Work(engines.join(format!(".stale-{}-{}", key.id(), std::process::id())));
        fs::rename(&path, &aside.0).map_err(|e| cannot(&path, e))?;
    }
    fs::rename(&work.0, &path).map_err(|e| cannot(&path, e))?;
    fs::File::open(engines).and_then(|f| f.sync_all()).map_err(|e| cannot(engines, e))?;
    Ok(path)
}

/// A folder that goes when it is done with, unless it was renamed.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        // Fails when it was renamed, which is the good case; a leftover is swept by the next build.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what builders that are gone have left.
fn sweep(engines: &Path) {
    for path in folder(engines) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ours = name.starts_with(".building-") || name.starts_with(".stale-");
        let builder = name.rsplit('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if ours && builder.is_some_and(|pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists()) {
            // What cannot be removed now is tried again by the next build.
            let _ = fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: Profile = Profile { batch: 2, height: 256, width: 320, multiple: 16 };

    fn machine() -> Machine {
        Machine { gpu: "Orin".into(), driver: "540.4".into(), tensorrt: "libnvinfer.so.10.3.0".into() }
    }

    fn key() -> Key {
        Key::new("aa", "1.31.1", &machine(), &Settings::default(), &PROFILE).unwrap()
    }

    fn build(path: &Path) -> Result<()> {
        fs::write(path.join("a.engine"), b"plan").unwrap();
        fs::write(path.join("a.profile"), b"shape").unwrap();
        Ok(())
    }

    #[test]
    fn the_key_changes_with_everything_the_engine_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("table");
        fs::write(&table, "1").unwrap();
        let s = Settings::default;
        let of = |model: &str, runtime: &str, machine: &Machine, settings: &Settings, profile: &Profile| {
            Key::new(model, runtime, machine, settings, profile).unwrap().id()
        };
        let calibrated = Settings { int8_calibration: Some(table.clone()), ..s() };
        let mut ids = vec![
            key().id(),
            of("ab", "1.31.1", &machine(), &s(), &PROFILE),
            of("aa", "1.31.2", &machine(), &s(), &PROFILE),
            of("aa", "1.31.1", &Machine { gpu: "Xavier".into(), ..machine() }, &s(), &PROFILE),
            of("aa", "1.31.1", &Machine { driver: "541".into(), ..machine() }, &s(), &PROFILE),
            of("aa", "1.31.1", &Machine { tensorrt: "libnvinfer.so.10.4.0".into(), ..machine() }, &s(), &PROFILE),
            of("aa", "1.31.1", &machine(), &Settings { fp16: false, ..s() }, &PROFILE),
            of("aa", "1.31.1", &machine(), &Settings { workspace_mib: 512, ..s() }, &PROFILE),
            of("aa", "1.31.1", &machine(), &Settings { device: 1, ..s() }, &PROFILE),
            of("aa", "1.31.1", &machine(), &s(), &Profile { batch: 1, ..PROFILE }),
            of("aa", "1.31.1", &machine(), &s(), &Profile { height: 272, ..PROFILE }),
            of("aa", "1.31.1", &machine(), &calibrated, &PROFILE),
        ];
        fs::write(&table, "2").unwrap();
        ids.push(of("aa", "1.31.1", &machine(), &calibrated, &PROFILE));
        // What does not change an engine does not change its key.
        assert_eq!(ids[0], of("aa", "1.31.1", &machine(), &Settings { threads: 3, spinning: true, ..s() }, &PROFILE));
        assert!(ids.iter().all(|id| id.len() == KEY_DIGITS));
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn an_engine_is_built_once_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let engines = folder.path().join("cache/engines");
        assert_eq!(look_up(&engines, &key()), Cached::Absent);
        let (path, built) = ensure(&engines, &key(), build).unwrap();
        assert!(built && path == engines.join(key().id()));
        let again = ensure(&engines, &key(), |_| Err(Error::internal("must not build"))).unwrap();
        assert_eq!(again, (path, false));
        assert_eq!(super::folder(&engines).count(), 1);
    }

    #[test]
    fn a_changed_truncated_or_added_file_or_manifest_is_built_anew() {
        let folder = tempfile::tempdir().unwrap();
        let engines = folder.path();
        let path = engines.join(key().id());
        let cases: [(&str, &[u8], &str); 5] = [
            ("a.engine", b"plam", "a.engine is not as it was built"),
            ("a.profile", b"", "a.profile is not as it was built"),
            ("b.engine", b"x", "an added file is not as it was built"),
            (MANIFEST, b"{", "engine.json: EOF while parsing an object at line 1 column 1"),
            (
                MANIFEST,
                br#"{"format":"ssds.engine/2","key":{},"files":[]}"#,
                "engine.json: format is `ssds.engine/2`, wanted `ssds.engine/1`",
            ),
        ];
        for (name, content, reason) in cases {
            ensure(engines, &key(), build).unwrap();
            fs::write(path.join(name), content).unwrap();
            assert_eq!(look_up(engines, &key()), Cached::Stale(reason.into()));
            assert!(ensure(engines, &key(), build).unwrap().1, "{name}");
            assert_eq!(look_up(engines, &key()), Cached::Fresh(path.clone()));
        }
        assert_eq!(super::folder(engines).count(), 1);
    }

    #[test]
    fn a_failed_or_interrupted_build_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let engines = folder.path();
        let error = ensure(engines, &key(), |path| {
            build(path)?;
            Err(Error::unavailable("out of memory"))
        });
        assert_eq!(error.unwrap_err().to_string(), "out of memory");
        assert_eq!(ensure(engines, &key(), |_| Ok(())).unwrap_err().to_string(), "the provider left no engine to keep");
        assert_eq!(super::folder(engines).count(), 0);
        // A builder that was killed: no process has number 4194305, the kernel's limit is 4194304.
        let dead = engines.join(".building-x-4194305");
        fs::create_dir(&dead).unwrap();
        ensure(engines, &key(), build).unwrap();
        assert!(!dead.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let engines = folder.path().join("file");
        fs::write(&engines, "").unwrap();
        let error = ensure(&engines, &key(), build).unwrap_err();
        assert_eq!(error.kind(), Kind::CannotCreate);
        assert!(error.to_string().starts_with(&format!("engine folder {}: ", engines.display())), "{error}");
    }

    #[test]
    fn the_machine_is_read_from_the_kernels_files() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(Machine::under(root.path(), ""), Machine::default());
        put("proc/device-tree/model", "NVIDIA Jetson Orin Nano\0");
        put("etc/nv_tegra_release", "# R36 (release), REVISION: 4.0\nmore");
        put("usr/lib/libnvinfer.so.10.3.0", "");
        std::os::unix::fs::symlink("libnvinfer.so.10.3.0", root.path().join("usr/lib/libnvinfer.so.10")).unwrap();
        let jetson = Machine::under(root.path(), "");
        assert_eq!(jetson.gpu, "NVIDIA Jetson Orin Nano");
        assert_eq!(jetson.driver, "# R36 (release), REVISION: 4.0");
        assert_eq!(jetson.tensorrt, "libnvinfer.so.10.3.0");
        put("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA RTX A2000\nIRQ: 1\n");
        assert_eq!(Machine::under(root.path(), "").gpu, "NVIDIA RTX A2000");
    }
}
