//! Evidence from the running line to the verbs: kept, verified, decided again, labelled, reported, calibrated; recipes by the binary.

mod killed;
mod recipes;
mod teach;

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Station, free_port, root, ssds, text};

const TO_INSPECT: Duration = Duration::from_secs(300);

/// A verb on the station's configuration, its answer as JSON.
fn json(station: &Station, args: &[&str]) -> Value {
    let output = verb(station, args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", text(&output)))
}

fn verb(station: &Station, args: &[&str]) -> Output {
    let config = station.config.to_string_lossy().into_owned();
    ssds(&[args, &["--config", &config]].concat())
}

fn expect(output: &Output, code: i32, wanted: &str) {
    let got = text(output);
    assert_eq!(output.status.code(), Some(code), "{got}");
    assert!(got.contains(wanted), "no {wanted:?} in\n{got}");
}

/// A station that has inspected the demo frames, with evidence of all of them.
fn inspected(extra: &str) -> Station {
    let station = Station::new(
        free_port(),
        &format!(
            "mqtt.enabled = false\nevidence.ok_every = 1\nevidence.min_free_mib = 0\n\
         pipeline.queue_frames = 32\n{extra}"
        ),
    );
    let data = root().join("tests/data/demo");
    for entry in std::fs::read_dir(data.join("frames")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, station.path("frames").join(path.file_name().unwrap())).unwrap();
    }
    let taught = station.teach(&data.join("template.png"));
    assert!(taught.status.success(), "{}", text(&taught));
    let mut daemon = station.run();
    let status = daemon.wait(TO_INSPECT);
    assert!(status.success(), "{status}:\n{}", daemon.log());
    station
}

fn count(list: &Value, verdict: &str) -> usize {
    list.as_array().unwrap().iter().filter(|e| e["verdict"] == verdict).count()
}

#[test]
fn evidence_of_a_run_is_kept_decided_again_labelled_and_reported() {
    let station = inspected("evidence.overlays = \"all\"");
    let (recorded, _) = station.recorded();
    let list = json(&station, &["archive", "list", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), recorded.len(), "one folder an event: {list}");
    for verdict in ["OK", "NG", "ERROR"] {
        let wanted = recorded.iter().filter(|e| e["verdict"] == verdict).count();
        assert_eq!(count(&list, verdict), wanted, "{verdict}");
        assert!(wanted > 0, "the demo frames hold all three");
    }

    // Every file is what its hash says, and every decided part is decided again to the bit.
    let verified = json(&station, &["archive", "verify", "--json"]);
    assert_eq!(verified["problems"], serde_json::json!([]), "{verified}");
    assert_eq!(verified["decided_again"].as_u64().unwrap() as usize, count(&list, "OK") + count(&list, "NG"));

    // An NG part has all its pictures; the event's own path leads to them.
    let ng = recorded.iter().find(|e| e["verdict"] == "NG").unwrap();
    let id = ng["event_id"].as_str().unwrap();
    assert_eq!(ng["evidence"]["uri"], format!("/api/v1/inspections/{id}"));
    let shown = json(&station, &["archive", "show", id, "--json"]);
    let files: Vec<&str> = shown["evidence"]["files"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(files, ["aligned.png", "event.json", "frame.png", "mask.png", "overlay.png", "score.png"]);
    for key in ["event_id", "seq", "verdict", "captured_at", "defects_total", "template", "model", "spooled_at"] {
        assert_eq!(shown["event"][key], ng[key], "the event as it was recorded: {key}");
    }
    assert_eq!(shown["evidence"]["template"], ng["template"]);
    let folder = std::path::PathBuf::from(shown["folder"].as_str().unwrap());
    let frame = ssds::frame::load_gray(&folder.join("frame.png")).unwrap();
    assert_eq!(frame.size(), (640, 480));

    // A picture that lost a byte is found.
    let path = folder.join("frame.png");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    expect(&verb(&station, &["archive", "verify"]), 1, "damaged: its content has SHA-256");
    std::fs::write(&path, &whole).unwrap();
    expect(&verb(&station, &["archive", "verify"]), 0, " 0 problems");

    // Labels by id and by number, and the report on them.
    let ok = recorded.iter().find(|e| e["verdict"] == "OK").unwrap();
    expect(&verb(&station, &["label", id, "ok", "--note", "dust on the lens"]), 0, "is labelled ok");
    expect(&verb(&station, &["label", &ok["seq"].to_string(), "ng"]), 0, "is labelled ng");
    expect(&verb(&station, &["label", "4711", "ng"]), 66, "event \"4711\": neither ");
    expect(&verb(&station, &["label", id, "maybe"]), 64, "label must be ok or ng, got \"maybe\"");
    let page = station.path("report.html");
    let report = json(&station, &["report", "--json", "--html", &page.to_string_lossy()]);
    let board = &report["products"]["board"];
    assert_eq!((&board["escapes"], &board["overkill"]), (&1.into(), &1.into()), "{report}");
    assert_eq!(board["ok"].as_u64().unwrap() as usize, count(&list, "OK"));
    assert_eq!(std::fs::read_to_string(&page).unwrap().matches("<svg").count(), 3);

    // The threshold that the good parts need: the archive alone is too few for 1 %, enough for 50 %.
    expect(
        &verb(&station, &["calibrate", "--archive"]),
        65,
        "good parts, at least 299 wanted to show a false-reject rate under 1 %",
    );
    let answer = json(&station, &["calibrate", "--archive", "--max-reject-rate", "0.5", "--json"]);
    let calibrated = &answer["calibration"];
    assert_eq!(calibrated["parts"].as_u64().unwrap() as usize, count(&list, "OK"), "one labelled ng, one NG labelled ok");
    let worst = calibrated["worst_score"].as_f64().unwrap();
    assert!(worst >= 0.5, "the NG part that was labelled ok scored above the threshold: {answer}");
}

#[test]
fn an_empty_archive_and_a_wrong_folder_are_told() {
    let station = Station::new(free_port(), "mqtt.enabled = false");
    expect(&verb(&station, &["archive", "list"]), 66, "there is no ssds-archive.json; nothing was archived here");
    expect(&verb(&station, &["archive", "init"]), 0, "is this station's");
    expect(&verb(&station, &["archive", "list"]), 0, "no evidence");
    let recipe = station.path("r.toml");
    std::fs::write(&recipe, "recipe_version = 1\nproduct = \"board\"\n").unwrap();
    let recipe = recipe.to_string_lossy().into_owned();
    expect(&verb(&station, &["whatif", "--recipe", &recipe]), 66, "no evidence to decide again");
    std::fs::create_dir(station.path("state/archive/2026-11-25")).unwrap();
    std::fs::remove_file(station.path("state/archive/ssds-archive.json")).unwrap();
    expect(&verb(&station, &["archive", "gc"]), 69, "is the disk mounted? `ssds archive init` begins a new archive");
    expect(&verb(&station, &["archive", "init"]), 65, "the folder is not empty and has no ssds-archive.json");
    expect(&verb(&station, &["archive", "list", "--since", "tomorrow"]), 66, "there is no ssds-archive.json");
}
