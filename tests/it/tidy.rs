//! The invariants of ARCHITECTURE.md that can be read off the source: who may import whom, and one home for each outside crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::root;

/// Layers from the bottom up; a module may use its own layer and those below.
const LAYERS: &[&[&str]] = &[
    &["error", "clock", "telemetry"],
    &["frame", "geometry", "font", "golden", "shutdown", "logging", "schema"],
    &[
        "align",
        "calibrate",
        "classical",
        "config",
        "dataset",
        "decide",
        "overlay",
        "prove",
        "recipe",
        "residual",
        "score",
        "simulate",
        "template",
    ],
    &["capture", "infer", "publish", "record"],
    &["pipeline", "status"],
    &["cmd"],
    &["bin"],
];

/// The trainer may use the core only.
const CORE_LAYERS: usize = 3;

/// Outside crates and the modules that may name them.
const HOMES: &[(&str, &[&str])] = &[
    ("ort", &["infer"]),
    ("rumqttc", &["publish"]),
    ("rumqttd", &["publish"]),
    ("rusqlite", &["record"]),
    ("axum", &["status"]),
    ("nokhwa", &["capture"]),
    ("v4l", &["capture"]),
    ("aravis", &["capture"]),
    ("base64", &["cmd"]),
    ("rustfft", &["align"]),
    ("realfft", &["align"]),
    ("burn", &["train"]),
    ("toml", &["config", "recipe", "template", "train", "simulate"]),
];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Module (first folder or file below src/) and code without comments of every source file, test modules left out.
fn modules() -> Vec<(String, PathBuf, String)> {
    let src = root().join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut out = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().to_path_buf();
        let name = relative.to_string_lossy().into_owned();
        if name == "lib.rs" || name.contains("tests.rs") || name.contains("/tests/") || name.contains("testing") {
            continue;
        }
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let code: String = text
            .split("#[cfg(test)]\nmod ")
            .next()
            .unwrap()
            .lines()
            .filter(|l| !l.trim_start().starts_with("//"))
            .map(|l| format!("{l}\n"))
            .collect();
        out.push((first, relative, code));
    }
    out
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

/// Words that follow `prefix` in `code`, where the prefix begins a path.
fn words_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    code.match_indices(prefix)
        .filter(|(at, _)| *at == 0 || !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
        .map(|(at, _)| {
            let rest = &code[at + prefix.len()..];
            &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())]
        })
        .collect()
}

#[test]
fn modules_import_downwards_only() {
    let mut faults = Vec::new();
    for (module, file, code) in modules() {
        for used in words_after(&code, "crate::").into_iter().filter(|w| !w.is_empty() && *w != module.as_str()) {
            // `crate::Error` and the like are re-exports of the lowest layer.
            let Some(target) = layer(used) else {
                if used == "train" {
                    faults.push(format!("{} uses train", file.display()));
                }
                continue;
            };
            let own = if module == "train" {
                CORE_LAYERS - 1
            } else {
                layer(&module).unwrap_or_else(|| panic!("{module} has no layer in tidy.rs"))
            };
            if target > own {
                faults.push(format!("{} ({module}) uses {used}, which lies above it", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn outside_crates_have_one_home() {
    let mut faults = BTreeMap::new();
    for (module, file, code) in modules() {
        for (name, homes) in HOMES {
            if !words_after(&code, &format!("{name}::")).is_empty() && !homes.contains(&module.as_str()) {
                faults.insert(file.display().to_string(), format!("names {name}, whose home is {}", homes.join(", ")));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_module_says_what_it_is_for() {
    let src = root().join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let bare: Vec<_> = files
        .iter()
        .filter(|f| !f.ends_with("tests.rs"))
        .filter(|f| !std::fs::read_to_string(f).unwrap().starts_with("//!"))
        .collect();
    assert!(bare.is_empty(), "no header: {bare:?}");
}
