//! The daemon's configuration: TOML files in, checked [`Config`] out.
//!
//! Files are merged in order, the main file first, then `conf.d/*.toml` beside it by name. Unknown keys, wrong types, values out of range
//! and settings that contradict each other are all reported at once ([`Fault`]). [`keys::KEYS`] is the one list of what exists; relative
//! paths are taken from the folder of the file that names them.

mod check;
pub mod keys;
mod print;
mod trigger;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use toml::Value;

pub use check::{Fault, Placed, Values, is_name, read_text, require};
pub use print::{json_schema, reference, sample};
pub use trigger::Trigger;

use crate::error::{Error, Kind, Result};
use keys::{KEYS, Presence};

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    values: Values,
    /// Folder that default relative paths are taken from: that of the main file.
    folder: PathBuf,
    /// SHA-256 of the effective values, hex; the same for files that say the same.
    pub sha256: String,
}

/// Reads and checks the main file and its `conf.d/*.toml`.
///
/// # Errors
/// [`Kind::Config`] with one line for each fault; a missing file is a configuration fault too.
pub fn load(path: &Path) -> Result<Config> {
    let mut values = Values::new();
    let mut faults = Vec::new();
    let mut files = vec![path.to_path_buf()];
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let extra = folder.join("conf.d");
    if extra.is_dir() {
        let mut more: Vec<PathBuf> = std::fs::read_dir(&extra)
            .map_err(|e| Error::io(format!("configuration folder {}", extra.display()), e).with_kind(Kind::Config))?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "toml"))
            .collect();
        more.sort();
        files.extend(more);
    }
    for file in &files {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::io(format!("configuration file {}", file.display()), e).with_kind(Kind::Config))?;
        read_text(&text, file, KEYS, &mut values, &mut faults);
    }
    finish(values, faults, path, folder)
}

/// Checks a configuration given as text; `name` stands in messages and relative paths are taken from its folder.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, name: &Path) -> Result<Config> {
    let (mut values, mut faults) = (Values::new(), Vec::new());
    read_text(text, name, KEYS, &mut values, &mut faults);
    let folder = name.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    finish(values, faults, name, folder)
}

fn finish(values: Values, mut faults: Vec<Fault>, main: &Path, folder: PathBuf) -> Result<Config> {
    // A key that was given wrongly is not also missing.
    let mentioned: Vec<String> = faults.iter().map(|f| f.message.clone()).collect();
    let mut missing = Vec::new();
    require(KEYS, &values, main, &mut missing);
    missing.retain(|m| {
        let key = m.message.split(' ').next().unwrap_or_default().to_owned();
        !mentioned.iter().any(|f| f.starts_with(&format!("{key} must be")))
    });
    faults.extend(missing);
    let mut config = Config { values, folder, sha256: String::new() };
    cross_check(&config, &mut faults);
    if !faults.is_empty() {
        let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
        return Err(Error::config(lines.join("\n")));
    }
    config.sha256 = config.digest();
    Ok(config)
}

/// Settings that must agree.
fn cross_check(config: &Config, faults: &mut Vec<Fault>) {
    let mut fault = |key: &str, message: String| {
        let placed = config.values.get(key);
        faults.push(Fault { file: placed.map(|p| p.file.clone()), line: placed.map(|p| p.line), message });
    };
    for (a, b) in
        [("mqtt.password_file", "mqtt.username"), ("mqtt.cert_file", "mqtt.key_file"), ("mqtt.key_file", "mqtt.cert_file")]
    {
        if config.has(a) && !config.has(b) {
            fault(a, format!("{a} is set, so {b} must be set too"));
        }
    }
    for key in ["mqtt.ca_file", "mqtt.cert_file", "mqtt.server_name"] {
        if config.has(key) && !config.bool("mqtt.tls") {
            fault(key, format!("{key} is set, so mqtt.tls must be true, got false"));
        }
    }
    if config.has("mqtt.message_expiry_secs") && config.text("mqtt.protocol") != "5" {
        fault("mqtt.message_expiry_secs", "mqtt.message_expiry_secs is set, so mqtt.protocol must be \"5\"".into());
    }
    let backend = config.text("camera.backend");
    if backend == "replay" && !config.has("camera.path") {
        fault(
            "camera.backend",
            format!("camera.path is missing; wanted {} with camera.backend replay", keys::describe(keys::Type::Path)),
        );
    }
    if !matches!(backend.as_str(), "" | "replay") && !config.has("camera.device") {
        fault(
            "camera.backend",
            format!("camera.device is missing; wanted a device's path or name with camera.backend {backend}"),
        );
    }
    if backend == "genicam" && cfg!(not(feature = "genicam")) {
        fault("camera.backend", "camera.backend is genicam, but this program was built without the feature genicam".into());
    }
    let (trigger, able): (_, &[&str]) = match config.text("camera.trigger").as_str() {
        "software" => ("software", &["replay", "genicam", "auto"]),
        "hardware" => ("hardware", &["v4l2", "genicam", "auto"]),
        _ => ("free", &["replay", "v4l2", "uvc", "genicam", "auto"]),
    };
    if !backend.is_empty() && !able.contains(&backend.as_str()) {
        let able = able.join(", ");
        fault("camera.trigger", format!("camera.trigger {trigger} needs camera.backend to be one of {able}, got {backend}"));
    }
    for text in config.texts("camera.controls") {
        if !text.split_once('=').is_some_and(|(name, value)| !name.trim().is_empty() && !value.trim().is_empty()) {
            fault("camera.controls", format!("camera.controls must hold texts \"name=value\", got {text:?}"));
        }
    }
    if config.f64("image.min_mean") >= config.f64("image.max_mean") {
        let (a, b) = (config.f64("image.min_mean"), config.f64("image.max_mean"));
        fault("image.min_mean", format!("image.min_mean must be below image.max_mean ({b}), got {a}"));
    }
    if let Some(low) = config.f64_opt("decision.low_threshold")
        && low > config.f64("decision.threshold")
    {
        let high = config.f64("decision.threshold");
        fault("decision.low_threshold", format!("decision.low_threshold must be at most decision.threshold ({high}), got {low}"));
    }
    let (tile, overlap) = (config.i64("inference.tile_px"), config.i64("inference.overlap_px"));
    if tile % 16 != 0 {
        fault("inference.tile_px", format!("inference.tile_px must be a multiple of 16, got {tile}"));
    }
    if overlap * 2 >= tile {
        fault(
            "inference.overlap_px",
            format!("inference.overlap_px must be below half of inference.tile_px ({tile}), got {overlap}"),
        );
    }
    let prefix = config.text("mqtt.prefix");
    if prefix.contains(['+', '#', '\0']) || prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains("//") {
        fault("mqtt.prefix", format!("mqtt.prefix must be topic levels without +, # or empty levels, got {prefix:?}"));
    }
    let listen = config.text("http.listen");
    if listen.parse::<std::net::SocketAddr>().is_err() {
        fault("http.listen", format!("http.listen must be ADDRESS:PORT such as 127.0.0.1:8077, got {listen:?}"));
    }
    if config.bool("mqtt.embedded_broker") && cfg!(not(feature = "embedded-broker")) {
        fault(
            "mqtt.embedded_broker",
            "mqtt.embedded_broker is true, but this program was built without the feature embedded-broker".into(),
        );
    }
}

impl Config {
    fn placed(&self, path: &str) -> Option<Value> {
        let key = keys::find(path).unwrap_or_else(|| panic!("setting {path} is not in the key table"));
        if let Some(placed) = self.values.get(path) {
            return Some(placed.value.clone());
        }
        match key.presence {
            Presence::Default(literal) => Some(default_value(literal)),
            Presence::Optional | Presence::Required => None,
        }
    }

    /// Whether the key was given or has a default.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.placed(path).is_some()
    }

    /// A Boolean setting.
    #[must_use]
    pub fn bool(&self, path: &str) -> bool {
        self.placed(path).and_then(|v| v.as_bool()).unwrap_or_default()
    }

    /// A whole number.
    #[must_use]
    pub fn i64(&self, path: &str) -> i64 {
        self.placed(path).and_then(|v| v.as_integer()).unwrap_or_default()
    }

    /// A whole number that the key's range keeps non-negative.
    #[must_use]
    pub fn usize(&self, path: &str) -> usize {
        usize::try_from(self.i64(path)).unwrap_or_default()
    }

    /// A number that may be left out.
    #[must_use]
    pub fn f64_opt(&self, path: &str) -> Option<f64> {
        self.placed(path).and_then(|v| v.as_float().or_else(|| v.as_integer().map(|i| i as f64)))
    }

    /// A number.
    #[must_use]
    pub fn f64(&self, path: &str) -> f64 {
        self.f64_opt(path).unwrap_or_default()
    }

    /// A duration from a key in milliseconds or seconds (by its name's ending).
    #[must_use]
    pub fn duration(&self, path: &str) -> std::time::Duration {
        let n = self.usize(path) as u64;
        if path.ends_with("_secs") { std::time::Duration::from_secs(n) } else { std::time::Duration::from_millis(n) }
    }

    /// A text that may be left out.
    #[must_use]
    pub fn text_opt(&self, path: &str) -> Option<String> {
        self.placed(path).and_then(|v| v.as_str().map(str::to_owned))
    }

    /// A text.
    #[must_use]
    pub fn text(&self, path: &str) -> String {
        self.text_opt(path).unwrap_or_default()
    }

    /// A list of texts.
    #[must_use]
    pub fn texts(&self, path: &str) -> Vec<String> {
        let list = self.placed(path);
        list.as_ref()
            .and_then(|v| v.as_array())
            .map_or_else(Vec::new, |a| a.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect())
    }

    /// A list of whole numbers that the key's range keeps non-negative.
    #[must_use]
    pub fn usizes(&self, path: &str) -> Vec<usize> {
        let list = self.placed(path);
        let number = |v: &Value| v.as_integer().and_then(|v| usize::try_from(v).ok());
        list.as_ref().and_then(|v| v.as_array()).map_or_else(Vec::new, |a| a.iter().filter_map(number).collect())
    }

    /// A path, made absolute against the folder of the file that names it.
    #[must_use]
    pub fn path_opt(&self, path: &str) -> Option<PathBuf> {
        Some(self.beside(path, &self.text_opt(path)?))
    }

    /// `raw`, made absolute against the folder of the file that gives the key `path`.
    #[must_use]
    pub fn beside(&self, path: &str, raw: &str) -> PathBuf {
        let folder =
            self.values.get(path).and_then(|p| p.file.parent().map(Path::to_path_buf)).unwrap_or_else(|| self.folder.clone());
        folder.join(raw)
    }

    /// A path that has a default or is required.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.path_opt(path).unwrap_or_default()
    }

    /// The folder of templates.
    #[must_use]
    pub fn template_dir(&self) -> PathBuf {
        self.path_opt("paths.template_dir").unwrap_or_else(|| self.path("paths.state_dir").join("templates"))
    }

    /// The folder of evidence.
    #[must_use]
    pub fn archive_dir(&self) -> PathBuf {
        self.path_opt("paths.archive_dir").unwrap_or_else(|| self.path("paths.state_dir").join("archive"))
    }

    /// Every key's effective value as TOML, with keys left unset as comments.
    #[must_use]
    pub fn effective(&self) -> String {
        print::render(|key| self.placed(key.path).map(|v| v.to_string()))
    }

    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for key in KEYS {
            if let Some(value) = self.placed(key.path) {
                hash.update(key.path.as_bytes());
                hash.update([b'=']);
                hash.update(value.to_string().as_bytes());
                hash.update([b'\n']);
            }
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// A key's default literal as a value; the table's own test proves every literal parses.
fn default_value(literal: &str) -> Value {
    format!("v = {literal}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v")).unwrap_or(Value::Boolean(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "station.name = \"aoi1\"\nproduct.name = \"board\"\n[camera]\nbackend = \"replay\"\npath = \"frames\"\n";

    fn faults(text: &str) -> String {
        parse(text, Path::new("/etc/x/t.toml")).unwrap_err().to_string()
    }

    #[test]
    fn every_default_is_what_its_own_key_allows() {
        for key in KEYS {
            if let Presence::Default(literal) = key.presence {
                let (section, name) = key.path.split_once('.').unwrap_or(("", key.path));
                let text =
                    if section.is_empty() { format!("{name} = {literal}") } else { format!("[{section}]\n{name} = {literal}") };
                let (mut values, mut found) = (Values::new(), Vec::new());
                read_text(&text, Path::new("d.toml"), KEYS, &mut values, &mut found);
                assert!(found.is_empty(), "{}: {found:?}", key.path);
                assert_eq!(values[key.path].value, default_value(literal), "{}", key.path);
            }
        }
    }

    #[test]
    fn a_minimal_file_gives_the_defaults() {
        let config = parse(MINIMAL, Path::new("/etc/x/t.toml")).unwrap();
        assert_eq!(config.f64("decision.threshold"), 0.5);
        assert_eq!(config.path("camera.path"), Path::new("/etc/x/frames"));
        assert_eq!(config.template_dir(), Path::new("/var/lib/ssds/templates"));
        assert_eq!(config.sha256.len(), 64);
    }

    #[test]
    fn all_faults_are_reported_at_once_with_place_value_and_range() {
        let text =
            "station.name = \"AOI 1\"\n[align]\nmax_rotation_degrees = 270\nmin_scael = 0.9\n[decision]\nthreshold = nan\n";
        let got = faults(text);
        for want in [
            "/etc/x/t.toml:1: station.name must be a name of lower-case letters, digits, _ and -, starting with a letter or digit, at most 64 bytes, got \"AOI 1\"",
            "/etc/x/t.toml:3: align.max_rotation_degrees must be a number from 0 to 180, got 270",
            "/etc/x/t.toml:4: unknown key align.min_scael; did you mean align.min_scale?",
            "/etc/x/t.toml:6: decision.threshold must be a number from 0 to 1, got nan",
            "/etc/x/t.toml: product.name is missing; wanted text of 1 to 64 bytes",
        ] {
            assert!(got.contains(want), "missing line\n{want}\nin\n{got}");
        }
        assert!(!got.contains("station.name is missing"), "{got}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let got = faults(&format!("{MINIMAL}[mqtt]\npassword_file = \"p\"\n[inference]\ntile_px = 100\n"));
        assert!(got.contains("t.toml:7: mqtt.password_file is set, so mqtt.username must be set too"), "{got}");
        assert!(got.contains("inference.tile_px must be a multiple of 16, got 100"), "{got}");
    }

    #[test]
    fn broken_toml_names_the_line() {
        let got = faults("a = [1,\n b");
        assert!(got.contains("not valid TOML"), "{got}");
    }

    #[test]
    fn later_files_override_and_resolve_their_own_paths() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("ssds.toml");
        std::fs::write(&main, MINIMAL).unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(dir.path().join("conf.d/50-site.toml"), "[camera]\npath = \"other\"\nrate_hz = 2\n").unwrap();
        let config = load(&main).unwrap();
        assert_eq!(config.path("camera.path"), dir.path().join("conf.d/other"));
        assert_eq!(config.f64("camera.rate_hz"), 2.0);
    }

    #[test]
    fn the_digest_changes_with_the_values_only() {
        let a = parse(MINIMAL, Path::new("/a/t.toml")).unwrap().sha256;
        let b = parse(&format!("# note\n{MINIMAL}"), Path::new("/b/t.toml")).unwrap().sha256;
        let c = parse(&format!("{MINIMAL}[decision]\nthreshold = 0.6\n"), Path::new("/a/t.toml")).unwrap().sha256;
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn the_shipped_sample_says_exactly_the_defaults() {
        let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/ssds.toml")).unwrap();
        assert_eq!(shipped, sample(), "regenerate with `ssds config sample > config/ssds.toml`");
        let config = parse(&shipped, Path::new("/etc/ssds/ssds.toml")).unwrap();
        for key in KEYS {
            if let Presence::Default(literal) = key.presence {
                assert_eq!(config.placed(key.path), Some(default_value(literal)), "{}", key.path);
            }
        }
    }

    #[test]
    fn the_reference_page_is_current() {
        let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/README.md")).unwrap();
        assert_eq!(shipped, reference(), "regenerate with `ssds config reference > config/README.md`");
    }
}
