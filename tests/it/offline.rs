//! The offline verbs on pair manifests.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use ssds::frame::load_gray;

use crate::support::{model, need_library, root, ssds, text};

/// A manifest over the demo frames; 999 is a pair whose frame is missing.
fn manifest(folder: &std::path::Path, frames: &[&str]) -> std::path::PathBuf {
    let data = root().join("tests/data/demo");
    let mut lines = String::new();
    for frame in frames {
        let pair = json!({"pair": format!("demo/{frame}"), "template": data.join("template.png"), "image": data.join(format!("frames/{frame}.jpg"))});
        lines.push_str(&format!("{pair}\n"));
    }
    let path = folder.join("pairs.jsonl");
    std::fs::write(&path, lines).unwrap();
    path
}

#[test]
fn inspect_writes_a_map_and_a_line_for_every_pair() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = manifest(dir.path(), &["000", "002", "007", "999"]);
    let (maps, out) = (dir.path().join("maps"), dir.path().join("out.jsonl"));
    let output = ssds(&[
        "inspect",
        "--pairs",
        &pairs.to_string_lossy(),
        "--model",
        &model().to_string_lossy(),
        "--library",
        &need_library().to_string_lossy(),
        "--maps",
        &maps.to_string_lossy(),
        "--out",
        &out.to_string_lossy(),
    ]);
    assert_eq!(output.status.code(), Some(2), "one pair at least is ERROR: {}", text(&output));
    let lines: BTreeMap<String, Value> = std::fs::read_to_string(&out)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .map(|v| (v["pair"].as_str().unwrap().to_owned(), v))
        .collect();
    assert_eq!(lines.keys().collect::<Vec<_>>(), ["demo/000", "demo/002", "demo/007", "demo/999"]);
    for (pair, event) in &lines {
        let map = load_gray(&maps.join(format!("{pair}.png"))).unwrap();
        if event["verdict"] == "ERROR" {
            assert!(map.data().iter().all(|v| *v == 0), "{pair}: an ERROR pair writes an all-zero map");
        } else {
            assert_eq!(map.size(), (640, 480));
            assert_eq!(map.get(0, 0), 0, "{pair}: the template does not cover the frame's corner");
        }
    }
    assert_eq!(lines["demo/002"]["verdict"], "NG", "{}", lines["demo/002"]);
    assert_eq!(lines["demo/007"]["error"]["code"], "ALIGN_FAIL");
    assert_eq!(lines["demo/999"]["error"]["code"], "FRAME_INVALID");
    assert!(lines["demo/999"]["error"]["message"].as_str().unwrap().contains("999.jpg"));
}

#[test]
fn align_finds_the_pose_of_a_single_frame() {
    let data = root().join("tests/data/demo");
    let template = data.join("template.png");
    let template = template.to_string_lossy();
    let good = ssds(&["align", "--json", "--template", &template, "--image", &data.join("frames/000.jpg").to_string_lossy()]);
    assert!(good.status.success(), "{}", text(&good));
    let answer: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert!(answer["matrix"].is_array(), "{answer}");
    assert!(answer["confidence"].as_f64().unwrap() > 0.5, "{answer}");
}

#[test]
fn a_broken_manifest_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pairs.jsonl");
    std::fs::write(&path, "{\"pair\": \"a\", \"template\": \"t.png\", \"image\": \"i.png\"}\nnot json\n").unwrap();
    let output = ssds(&[
        "inspect",
        "--pairs",
        &path.to_string_lossy(),
        "--model",
        &model().to_string_lossy(),
        "--library",
        &need_library().to_string_lossy(),
    ]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
    assert!(text(&output).contains("pairs.jsonl line 2"), "{}", text(&output));
}
