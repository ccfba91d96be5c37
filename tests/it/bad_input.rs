//! Bad input: each ends or goes on as ARCHITECTURE.md says, with a message that names the thing, the value and what was wanted.

use std::process::Output;
use std::time::Duration;

use crate::support::{Station, free_port, model, need_library, root, ssds, text};

fn run(station: &Station) -> Output {
    ssds(&["run", "--config", &station.config.to_string_lossy()])
}

/// Exit code and message.
fn expect(output: &Output, code: i32, wanted: &[&str]) {
    let got = text(output);
    assert_eq!(output.status.code(), Some(code), "{got}");
    for want in wanted {
        assert!(got.contains(want), "no {want:?} in\n{got}");
    }
}

fn edit(station: &Station, from: &str, to: &str) {
    let before = std::fs::read_to_string(&station.config).unwrap();
    assert!(before.contains(from), "{from} is not in\n{before}");
    std::fs::write(&station.config, before.replace(from, to)).unwrap();
}

/// A station with one frame and a taught template.
fn taught() -> Station {
    let station = Station::new(free_port(), "mqtt.enabled = false");
    let template = root().join("tests/data/demo/template.png");
    std::fs::copy(&template, station.path("frames/000.png")).unwrap();
    let output = station.teach(&template);
    assert!(output.status.success(), "{}", text(&output));
    station
}

#[test]
fn a_missing_configuration_is_named() {
    expect(&ssds(&["run", "--config", "/nowhere/ssds.toml"]), 78, &["configuration file /nowhere/ssds.toml", "No such file"]);
}

#[test]
fn unknown_keys_and_bad_values_end_with_78_all_at_once() {
    let station = Station::new(free_port(), "align.max_rotation_degrees = 270\ndecision.treshold = 0.5");
    expect(
        &run(&station),
        78,
        &[
            "align.max_rotation_degrees must be a number from 0 to 180, got 270",
            "unknown key decision.treshold; did you mean decision.threshold?",
        ],
    );
}

#[test]
fn wrong_usage_is_64() {
    expect(&ssds(&["inspect", "--what"]), 64, &["--what"]);
    expect(&ssds(&["dance"]), 64, &["dance"]);
}

#[test]
fn a_product_that_was_never_taught_is_named() {
    let station = Station::new(free_port(), "mqtt.enabled = false");
    station.frame("0.png", &ssds::frame::Gray::new(64, 64));
    let output = run(&station);
    assert_ne!(output.status.code(), Some(0));
    expect(&output, output.status.code().unwrap(), &["product.name board", "board/main"]);
}

#[test]
fn an_unreadable_template_picture_is_named() {
    let station = Station::new(free_port(), "");
    expect(&station.teach(&station.path("none.png")), 66, &["none.png", "No such file"]);
    std::fs::write(station.path("text.png"), "hello").unwrap();
    expect(&station.teach(&station.path("text.png")), 65, &["text.png", "not a PNG, JPEG, BMP or TIFF file"]);
}

#[test]
fn a_blank_template_picture_is_refused() {
    let station = Station::new(free_port(), "");
    let blank = station.path("blank.png");
    ssds::frame::save_gray_png(&blank, &ssds::frame::Gray::from_fn(256, 256, |_, _| 128)).unwrap();
    expect(&station.teach(&blank), 65, &["blank.png"]);
}

#[test]
fn a_missing_or_foreign_library_is_named() {
    need_library();
    let station = taught();
    let before = std::fs::read_to_string(&station.config).unwrap();
    let line = before.lines().find(|l| l.starts_with("inference.library")).unwrap().to_owned();
    edit(&station, &line, "inference.library = \"/nowhere/libonnxruntime.so\"");
    let output = run(&station);
    assert_ne!(output.status.code(), Some(0));
    assert!(text(&output).contains("/nowhere/libonnxruntime.so"), "{}", text(&output));
}

#[test]
fn a_missing_or_broken_model_is_named() {
    let station = taught();
    let line = format!("inference.model = \"{}\"", model().display());
    edit(&station, &line, "inference.model = \"none.onnx\"");
    let output = run(&station);
    expect(&output, 66, &["none.onnx"]);
    let bytes = std::fs::read(model()).unwrap();
    std::fs::write(station.path("none.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    expect(&run(&station), 65, &["none.onnx"]);
}

#[test]
fn a_library_that_is_none_is_named() {
    let station = taught();
    let before = std::fs::read_to_string(&station.config).unwrap();
    let line = before.lines().find(|l| l.starts_with("inference.library")).unwrap().to_owned();
    edit(&station, &line, "inference.library = \"lib.so\"");
    std::fs::write(station.path("lib.so"), "not a library").unwrap();
    let output = run(&station);
    assert_ne!(output.status.code(), Some(0));
    assert!(text(&output).contains("lib.so"), "{}", text(&output));
}

#[test]
fn a_model_with_other_inputs_is_refused_with_what_was_wanted() {
    let station = taught();
    let line = format!("inference.model = \"{}\"", model().display());
    edit(&station, &line, "inference.model = \"other.onnx\"");
    let other = crate::onnx_fixture::renamed("picture", "score", 1, 2);
    std::fs::write(station.path("other.onnx"), other.build()).unwrap();
    expect(&run(&station), 65, &["other.onnx", "`picture`", "`pair`"]);
    let three = crate::onnx_fixture::renamed("pair", "score", 1, 3);
    std::fs::write(station.path("other.onnx"), three.build()).unwrap();
    expect(&run(&station), 65, &["other.onnx", "[n, 3, h, w]", "[n, 2, h, w]"]);
}

#[test]
fn a_frame_of_another_size_is_an_error_result_and_the_line_goes_on() {
    let station = taught();
    station.frame("001.png", &ssds::frame::Gray::from_fn(200, 150, |x, y| (x * 7 + y * 13) as u8));
    std::fs::copy(station.path("frames/000.png"), station.path("frames/002.png")).unwrap();
    let mut daemon = station.run();
    assert!(daemon.wait(Duration::from_secs(120)).success(), "{}", daemon.log());
    let events = station.recorded().0;
    assert_eq!(events[1]["error"]["code"], "ALIGN_FAIL", "{}", events[1]);
    assert!(events[1]["error"]["message"].as_str().unwrap().contains("200 x 150"), "{}", events[1]);
    assert_eq!(events[2]["verdict"], "OK", "{}", events[2]);
}

#[test]
fn an_unreadable_frame_is_an_error_result_and_the_line_goes_on() {
    let station = taught();
    std::fs::write(station.path("frames/001.png"), "not a picture").unwrap();
    std::fs::copy(station.path("frames/000.png"), station.path("frames/002.png")).unwrap();
    let mut daemon = station.run();
    assert!(daemon.wait(Duration::from_secs(120)).success(), "{}", daemon.log());
    let events = station.recorded().0;
    assert_eq!(events.len(), 3);
    let by_code: Vec<_> = events.iter().map(|e| e["error"]["code"].as_str().unwrap_or("none")).collect();
    assert!(by_code.contains(&"FRAME_INVALID"), "{by_code:?}");
    let bad = events.iter().find(|e| e["error"]["code"] == "FRAME_INVALID").unwrap();
    assert_eq!(bad["verdict"], "ERROR");
    assert!(bad["error"]["message"].as_str().unwrap().contains("001.png: not a PNG, JPEG, BMP or TIFF file"), "{bad}");
    assert_eq!(events.iter().filter(|e| e["verdict"] == "OK").count(), 2, "{events:#?}");
}

#[test]
fn a_frame_too_small_to_register_is_an_error_result() {
    let station = taught();
    station.frame("001.png", &ssds::frame::Gray::from_fn(8, 8, |x, y| (x * y) as u8));
    let mut daemon = station.run();
    assert!(daemon.wait(Duration::from_secs(120)).success(), "{}", daemon.log());
    let events = station.recorded().0;
    assert_eq!(events[1]["verdict"], "ERROR");
    assert_eq!(events[1]["error"]["code"], "ALIGN_FAIL", "{}", events[1]);
}

#[test]
fn a_dark_frame_is_an_error_result() {
    let station = taught();
    station.frame("001.png", &ssds::frame::Gray::from_fn(640, 480, |_, _| 1));
    let mut daemon = station.run();
    assert!(daemon.wait(Duration::from_secs(120)).success(), "{}", daemon.log());
    let events = station.recorded().0;
    assert_eq!(events[1]["error"]["code"], "IMAGE_DARK", "{}", events[1]);
    assert!(events[1]["error"]["message"].as_str().unwrap().contains("below image.min_mean 5"), "{}", events[1]);
}

#[test]
fn check_finds_what_run_would_stumble_over() {
    let station = taught();
    let config = station.config.to_string_lossy().into_owned();
    let good = ssds(&["check", "--config", &config]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good));
    let line = format!("inference.model = \"{}\"", model().display());
    edit(&station, &line, "inference.model = \"none.onnx\"");
    let bad = ssds(&["check", "--config", &config, "--json"]);
    assert_eq!(bad.status.code(), Some(1), "{}", text(&bad));
    let answer: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    let model = answer["findings"].as_array().unwrap().iter().find(|f| f["what"] == "model").unwrap();
    assert!(model["ok"] == false && model["text"].as_str().unwrap().contains("none.onnx"), "{model}");
}
