//! Software triggers from end to end: `ssds trigger` and HTTP against the running daemon with a replay camera.

use std::io::{Read, Write};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use ssds::clock::{Clock, SystemClock};

use crate::support::{Broker, Process, Station, free_port, library, root, skipped};

const TO_START: Duration = Duration::from_secs(60);
const TOKEN: &str = "0123456789abcdef-trigger";

/// A station whose replay camera shows one demo frame a trigger.
fn station(frames: &[&str], extra: &str) -> (Station, u16) {
    let port = free_port();
    let text = format!(
        "mqtt.enabled = false\ncamera.trigger = \"software\"\nhttp.listen = \"127.0.0.1:{port}\"\nhttp.token_file = \"token\"\n{extra}"
    );
    let station = Station::new(free_port(), &text);
    let config = std::fs::read_to_string(&station.config).unwrap().replace("http.enabled = false\n", "");
    std::fs::write(&station.config, config).unwrap();
    std::fs::write(station.path("token"), format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(station.path("token"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let data = root().join("tests/data/demo");
    for (n, frame) in frames.iter().enumerate() {
        std::fs::copy(data.join("frames").join(frame), station.path("frames").join(format!("{n:03}.jpg"))).unwrap();
    }
    let taught = station.teach(&data.join("template.png"));
    assert!(taught.status.success(), "{}", crate::support::text(&taught));
    (station, port)
}

fn trigger(station: &Station, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ssds")).args(["trigger", "--config"]).arg(&station.config).args(args).output().unwrap()
}

/// Status and body of a request that is written as it is.
fn raw(port: u16, request: &str) -> (u16, String) {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(TO_START)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn post(port: u16, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    raw(
        port,
        &format!(
            "POST /api/v1/trigger HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ),
    )
}

fn started(station: &Station) -> Process {
    let mut daemon = station.run();
    daemon.wait_for("ready", TO_START);
    daemon
}

#[test]
fn a_trigger_inspects_one_part_and_tells_its_result() {
    const NAME: &str = "a_trigger_inspects_one_part_and_tells_its_result";
    if library().is_none() {
        return skipped(NAME, "no ONNX Runtime library");
    }
    let truth: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&std::fs::read_to_string(root().join("tests/data/demo/truth.json")).unwrap()).unwrap();
    let of = |verdict: &str| truth.iter().find(|(_, v)| *v == verdict).map(|(n, _)| n.as_str()).unwrap();
    let (station, port) = station(&[of("OK"), of("NG"), of("ERROR"), of("OK")], "camera.loop = true");
    let mut daemon = started(&station);

    for (n, (verdict, exit)) in [("OK", 0), ("NG", 1), ("ERROR", 2)].iter().enumerate() {
        let part = format!("SN{n}");
        let out = trigger(&station, &["--json", "--part-id", &part, "--job-id", "WO-1", "--request-id", "r1"]);
        assert_eq!(out.status.code(), Some(*exit), "{verdict}: {}", crate::support::text(&out));
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((answer["verdict"].as_str(), answer["seq"].as_u64()), (Some(*verdict), Some(n as u64 + 1)));
        assert_eq!(answer["request_id"], "r1");
    }

    // Who may not trigger does not.
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(post(port, "", "{}").0, 401);
    assert_eq!(post(port, "Authorization: Bearer wrong-wrong-wrong\r\n", "{}").0, 401);
    assert_eq!(post(port, &format!("{bearer}Origin: http://elsewhere.example\r\n"), "{}").0, 403);
    assert_eq!(post(port, &bearer, r#"{"part": "x"}"#).0, 400);
    let long = format!(r#"{{"part_id": "{}"}}"#, "x".repeat(129));
    let (code, why) = post(port, &bearer, &long);
    assert!(code == 400 && why.contains("part_id must be 1 to 128 characters"), "{code} {why}");
    assert_eq!(post(port, &bearer, &" ".repeat(5000)).0, 413);
    assert_eq!(raw(port, &format!("GET /api/v1/trigger HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{bearer}\r\n")).0, 405);

    // One more, without ids.
    let (code, answer) = post(port, &bearer, "");
    assert_eq!(code, 200, "{answer}");
    daemon.signal("TERM");
    let status = daemon.wait(TO_START);
    assert!(status.success(), "{status}:\n{}", daemon.log());

    let (events, _) = station.recorded();
    let ids: Vec<(Option<&str>, Option<&str>, &str)> =
        events.iter().map(|e| (e["part_id"].as_str(), e["job_id"].as_str(), e["trigger"].as_str().unwrap())).collect();
    let job = Some("WO-1");
    assert_eq!(ids, [(Some("SN0"), job, "http"), (Some("SN1"), job, "http"), (Some("SN2"), job, "http"), (None, None, "http")]);
    assert!(daemon.log().contains("4 frames = 4 recorded"), "nothing was inspected without a trigger:\n{}", daemon.log());
}

#[test]
fn a_station_that_runs_freely_or_without_a_token_takes_no_trigger() {
    const NAME: &str = "a_station_that_runs_freely_or_without_a_token_takes_no_trigger";
    if library().is_none() {
        return skipped(NAME, "no ONNX Runtime library");
    }
    let (station, port) = station(&["000.jpg"], "camera.loop = true");
    let free = std::fs::read_to_string(&station.config).unwrap().replace("camera.trigger = \"software\"", "camera.rate_hz = 1");
    let free = free.replace("camera.rate_hz = 50\n", "");
    std::fs::write(&station.config, &free).unwrap();
    let mut daemon = started(&station);
    let out = trigger(&station, &[]);
    assert_eq!(out.status.code(), Some(64), "{}", crate::support::text(&out));
    assert!(crate::support::text(&out).contains("is free_run, not software"), "{}", crate::support::text(&out));
    daemon.signal("TERM");
    assert!(daemon.wait(TO_START).success());

    std::fs::write(&station.config, free.replace("http.token_file = \"token\"\n", "")).unwrap();
    let mut daemon = started(&station);
    let (code, why) = post(port, &format!("Authorization: Bearer {TOKEN}\r\n"), "");
    assert!(code == 403 && why.contains("http.token_file is not set"), "{code} {why}");
    let out = trigger(&station, &[]);
    assert!(crate::support::text(&out).contains("http.socket or http.token_file must be set"), "{}", crate::support::text(&out));
    daemon.signal("TERM");
    assert!(daemon.wait(TO_START).success());
}

/// A recipe brings the trigger mode of its product with it, and the running line follows.
#[test]
fn a_recipe_switches_the_trigger_mode_of_a_running_station() {
    const NAME: &str = "a_recipe_switches_the_trigger_mode_of_a_running_station";
    if library().is_none() {
        return skipped(NAME, "no ONNX Runtime library");
    }
    let (station, _) = station(&["000.jpg"], "camera.loop = true");
    let apply = |mode: &str| {
        let file = station.path(&format!("{mode}.toml"));
        std::fs::write(&file, format!("recipe_version = 1\nproduct = \"board\"\n[trigger]\nmode = \"{mode}\"\n")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_ssds"))
            .args(["recipe", "apply", "--config"])
            .args([&station.config, &file])
            .output()
            .unwrap()
    };
    let mut daemon = started(&station);
    let first = trigger(&station, &["--part-id", "SN1"]);
    assert_eq!(first.status.code(), Some(0), "{}", crate::support::text(&first));

    assert!(apply("free_run").status.success());
    daemon.wait_for("trigger mode free_run", TO_START);
    daemon.wait_for("seq 4 ", TO_START);
    let refused = crate::support::text(&trigger(&station, &[]));
    assert!(refused.contains("is free_run, not software"), "{refused}");

    assert!(apply("software").status.success());
    daemon.wait_for("asks for trigger mode software", TO_START);
    // While the camera is being opened a trigger is answered CAMERA_LOST, exit 2.
    let mut last = trigger(&station, &["--part-id", "SN2"]);
    while last.status.code() == Some(2) && crate::support::text(&last).contains("CAMERA_LOST") {
        last = trigger(&station, &["--part-id", "SN2"]);
    }
    assert_eq!(last.status.code(), Some(0), "{}", crate::support::text(&last));
    let gpio = apply("gpio");
    let why = "camera.backend replay cannot be switched to it while running";
    assert!(crate::support::text(&gpio).contains(why), "{}", crate::support::text(&gpio));
    daemon.signal("TERM");
    assert!(daemon.wait(TO_START).success(), "{}", daemon.log());

    let (events, _) = station.recorded();
    let words: Vec<&str> = events.iter().map(|e| e["trigger"].as_str().unwrap()).collect();
    assert_eq!((words[0], events[0]["part_id"].as_str()), ("http", Some("SN1")));
    let last = events.iter().rfind(|e| e["verdict"] != "ERROR").unwrap();
    assert_eq!((last["trigger"].as_str(), last["part_id"].as_str()), (Some("http"), Some("SN2")));
    let free = words.iter().filter(|w| **w == "replay").count();
    assert!(free >= 3 && words[1..=free].iter().all(|w| *w == "replay"), "{words:?}");
    assert!(daemon.log().contains("dropped + 0 lost"), "{}", daemon.log());
}

#[test]
fn a_command_over_mqtt_inspects_one_part_and_is_answered_with_its_result() {
    const NAME: &str = "a_command_over_mqtt_inspects_one_part_and_is_answered_with_its_result";
    let Some(broker) = Broker::start() else { return skipped(NAME, "mosquitto is not installed") };
    if library().is_none() {
        return skipped(NAME, "no ONNX Runtime library");
    }
    let station = Station::new(broker.port, "camera.trigger = \"software\"\nmqtt.commands = true\ncamera.loop = true");
    let data = root().join("tests/data/demo");
    std::fs::copy(data.join("frames/000.jpg"), station.path("frames/000.jpg")).unwrap();
    assert!(station.teach(&data.join("template.png")).status.success());
    let mut subscriber = broker.subscribe();
    let mut daemon = started(&station);
    subscriber.wait_for("t/ssds/status ", TO_START);

    let mut ask = |id: &str, args: &str| -> Value {
        let now = SystemClock.now();
        let message = format!(r#"{{"request_id":"{id}","issued_at":"{now}","ttl_ms":60000,"args":{args}}}"#);
        let port = broker.port.to_string();
        let sent = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "t/ssds/cmd/trigger", "-m", &message])
            .status()
            .unwrap();
        assert!(sent.success());
        let topic = format!("t/ssds/rsp/{id} ");
        subscriber.wait_for(&topic, TO_START);
        let log = subscriber.log();
        serde_json::from_str(log.lines().find_map(|l| l.strip_prefix(&topic)).unwrap()).unwrap()
    };
    let done = ask("r1", r#"{"part_id":"SN7","job_id":"WO-7"}"#);
    assert_eq!((done["outcome"].as_str(), done["result"]["seq"].as_u64()), (Some("done"), Some(1)), "{done}");
    let refused = ask("r2", r#"{"part_id":7}"#);
    assert_eq!((refused["outcome"].as_str(), refused["reason"].as_str()), (Some("refused"), Some("bad_arguments")), "{refused}");
    daemon.signal("TERM");
    assert!(daemon.wait(TO_START).success(), "{}", daemon.log());
    let (events, _) = station.recorded();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["verdict"], done["result"]["verdict"]);
    assert_eq!(
        (events[0]["part_id"].as_str(), events[0]["job_id"].as_str(), events[0]["trigger"].as_str()),
        (Some("SN7"), Some("WO-7"), Some("mqtt"))
    );
}
