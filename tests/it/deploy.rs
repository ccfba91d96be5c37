//! Deployment: the unit's hardening and restart rules, the doctor's findings.

use std::process::Command;

use serde_json::Value;
use ssds::Kind;

use crate::support::{Broker, Station, free_port, need_library, root, skipped, ssds, text};

/// What the issue of hardening is measured by; systemd's own scale, 0 (best) to 10.
const MAX_EXPOSURE: f64 = 2.0;

fn unit_text() -> String {
    std::fs::read_to_string(root().join("systemd/ssds.service")).unwrap()
}

/// Overall exposure of a unit file by systemd-analyze; `None` when that is not there.
fn exposure(file: &std::path::Path) -> Option<f64> {
    let output = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(file).output().ok()?;
    let said = text(&output);
    let line = said.lines().find(|l| l.contains("Overall exposure level")).unwrap_or_else(|| panic!("no exposure in:\n{said}"));
    Some(line.rsplit(": ").next().unwrap().split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn the_unit_is_hardened() {
    let Some(found) = exposure(&root().join("systemd/ssds.service")) else {
        skipped("the_unit_is_hardened", "systemd-analyze is not installed");
        return;
    };
    assert!(found <= MAX_EXPOSURE, "exposure {found}, wanted at most {MAX_EXPOSURE}");
    // The measure measures: without its sandbox the unit is exposed.
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("bare.service");
    std::fs::write(&bare, "[Service]\nType=notify\nExecStart=/usr/bin/ssds run\n").unwrap();
    assert!(exposure(&bare).unwrap() > 9.0);
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("ssds.service");
    // The program and its manual page are not installed here.
    let here = unit_text().replace("/usr/bin/ssds run", "/bin/true run").replace("man:ssds(1) ", "");
    std::fs::write(&unit, here).unwrap();
    std::fs::create_dir(dir.path().join("ssds.service.d")).unwrap();
    for name in ["jetson.conf", "genicam.conf"] {
        std::fs::copy(root().join("systemd").join(name), dir.path().join("ssds.service.d").join(name)).unwrap();
    }
    match Command::new("systemd-analyze").args(["verify", "--recursive-errors=no"]).arg(&unit).output() {
        Ok(output) => assert!(output.status.success() && text(&output).is_empty(), "{}", text(&output)),
        Err(_) => skipped("systemd_understands_every_line_of_the_unit", "systemd-analyze is not installed"),
    }
}

#[test]
fn the_unit_restarts_on_what_passes_by_itself_and_on_nothing_else() {
    let unit = unit_text();
    let line = unit.lines().find_map(|l| l.strip_prefix("RestartPreventExitStatus=")).unwrap();
    let codes: Vec<u8> = line.split(' ').map(|c| c.parse().unwrap()).collect();
    for kind in [Kind::Usage, Kind::Data, Kind::Missing, Kind::Config] {
        assert!(codes.contains(&kind.exit_code()), "{kind:?} needs a person, so {} must stand in {line}", kind.exit_code());
    }
    for kind in [Kind::Unavailable, Kind::Io, Kind::TryAgain, Kind::Internal, Kind::Permission, Kind::CannotCreate] {
        assert!(!codes.contains(&kind.exit_code()), "{kind:?} may pass, so {} must not stand in {line}", kind.exit_code());
    }
}

#[test]
fn the_command_line_is_well_formed_and_every_verb_documented() {
    let command = ssds::cmd::command();
    command.clone().debug_assert();
    for verb in command.get_subcommands() {
        assert!(verb.get_about().is_some(), "{} has no description", verb.get_name());
    }
}

/// `ssds doctor --json`: exit code, and the findings of each part.
fn doctor(station: &Station) -> (Option<i32>, Value) {
    let output = ssds(&["doctor", "--json", "--config", &station.config.to_string_lossy()]);
    let said = text(&output);
    let line = said.lines().find(|l| l.starts_with('{')).unwrap_or_else(|| panic!("no JSON in:\n{said}"));
    (output.status.code(), serde_json::from_str(line).unwrap())
}

fn finding<'a>(answer: &'a Value, what: &str) -> &'a Value {
    let all = answer["findings"].as_array().unwrap();
    all.iter().find(|f| f["what"] == what).unwrap_or_else(|| panic!("no {what} in {answer:#}"))
}

#[test]
fn the_doctor_finds_every_fault_at_once_and_says_what_to_do() {
    let port = free_port();
    let station = Station::new(port, "");
    let (code, answer) = doctor(&station);
    assert_eq!((code, &answer["ok"]), (Some(1), &Value::Bool(false)));
    for (what, text, todo) in [
        ("template", "product.name board", "ssds teach board"),
        ("camera", "frames", "ssds camera list"),
        ("broker", &format!("mqtt://127.0.0.1:{port}"), "nc -vz"),
    ] {
        let f = finding(&answer, what);
        assert_eq!(f["state"], "fault", "{f:#}");
        assert!(f["text"].as_str().unwrap().contains(text), "{f:#}");
        assert!(f["do"].as_str().unwrap().contains(todo), "{f:#}");
    }
    assert_eq!(finding(&answer, "configuration")["state"], "ok");
    assert_eq!(finding(&answer, "store")["state"], "ok");
}

#[test]
fn the_doctor_reports_wrong_settings_and_goes_on() {
    let station = Station::new(free_port(), "align.min_scael = 2");
    let (code, answer) = doctor(&station);
    assert_eq!(code, Some(1));
    let f = finding(&answer, "configuration");
    assert_eq!(f["state"], "fault");
    assert!(f["text"].as_str().unwrap().contains("did you mean align.min_scale?"), "{f:#}");
    finding(&answer, "clock");
    finding(&answer, "unit");
}

#[test]
fn a_station_in_order_has_no_fault_stopped_or_running() {
    need_library();
    let Some(broker) = Broker::start() else {
        skipped("a_station_in_order_has_no_fault_stopped_or_running", "mosquitto is not installed");
        return;
    };
    let http = free_port();
    let station = Station::new(broker.port, "camera.loop = true");
    let on = std::fs::read_to_string(&station.config)
        .unwrap()
        .replace("http.enabled = false", &format!("http.listen = \"127.0.0.1:{http}\""));
    std::fs::write(&station.config, on).unwrap();
    let picture = root().join("tests/data/demo/template.png");
    std::fs::copy(&picture, station.path("frames/a.png")).unwrap();
    assert!(station.teach(&picture).status.success());

    let (code, answer) = doctor(&station);
    assert_eq!(code, Some(0), "{answer:#}");
    for what in ["configuration", "template", "onnx runtime", "model", "provider cpu", "session", "camera", "broker", "store"] {
        assert_eq!(finding(&answer, what)["state"], "ok", "{answer:#}");
    }
    assert!(finding(&answer, "camera")["text"].as_str().unwrap().contains("mean gray level"));

    let mut daemon = station.run();
    daemon.wait_for("broker mqtt://", std::time::Duration::from_secs(60));
    daemon.wait_for("frame 2 ", std::time::Duration::from_secs(60));
    let (code, answer) = doctor(&station);
    assert_eq!(code, Some(0), "{answer:#}");
    assert!(finding(&answer, "daemon")["text"].as_str().unwrap().starts_with("runs, state continuous_execution"), "{answer:#}");
    assert!(finding(&answer, "broker")["text"].as_str().unwrap().contains("online"), "{answer:#}");
    let check = ssds(&["check", "--config", &station.config.to_string_lossy()]);
    assert!(check.status.success() && text(&check).contains("in use by the running daemon"), "{}", text(&check));
}
