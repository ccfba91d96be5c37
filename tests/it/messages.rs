//! The messages as documented: examples of `config/mqtt.md` against the schemas, the guide's own commands for a secured station against a
//! real mosquitto, every kind of message as it is really sent, and `ssds audit`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ssds::clock::{Clock, SystemClock};
use ssds::publish::{CommandSettings, Link, Protocol, PublishSettings, RefusedReason, TlsSettings};
use ssds::record::event::{InspectionEvent, Verdict, new_event_id};
use ssds::record::message::{
    Alarm, AlarmCode, CommandResponse, Mode, Outcome, Processing, Reason, Severity, State, Stats, Takt, VisionState,
};
use ssds::record::store::Store;
use ssds::schema;

use crate::faults::station::{open, publish};
use crate::guide::{self, block, blocks};
use crate::mqtt::broker::Mosquitto;
use crate::mqtt::subscriber::Subscriber;
use crate::mqtt::until;
use crate::support::{Process, root, skipped, ssds, text};

fn validators() -> BTreeMap<String, jsonschema::Validator> {
    schema::ALL
        .iter()
        .map(|s| {
            let value: Value = serde_json::from_str(s.text).unwrap();
            jsonschema::meta::validate(&value).unwrap_or_else(|e| panic!("{}: {e}", s.name));
            let name = value["properties"]["schema"]["const"].as_str().unwrap().to_owned();
            (name, jsonschema::options().should_validate_formats(true).build(&value).unwrap())
        })
        .collect()
}

/// The message's kind; panics with every fault.
fn valid(validators: &BTreeMap<String, jsonschema::Validator>, text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let kind = value["schema"].as_str().unwrap().to_owned();
    let validator = validators.get(&kind).unwrap_or_else(|| panic!("no schema {kind}"));
    let faults: Vec<String> = validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(faults.is_empty(), "{kind}: {faults:?}\n{text}");
    kind
}

#[test]
fn every_example_of_the_guide_is_valid_and_every_kind_has_one() {
    let validators = validators();
    let shown: BTreeSet<String> =
        blocks().iter().filter(|(f, _)| f == "json").map(|(_, text)| valid(&validators, text)).collect();
    assert!(shown.iter().eq(validators.keys()), "{shown:?}");
    // What the validators would let pass proves nothing: each example without one of its required fields must fail.
    for (_, text) in blocks().iter().filter(|(f, _)| f == "json") {
        let value: Value = serde_json::from_str(text).unwrap();
        let kind = value["schema"].as_str().unwrap();
        let schema: Value =
            serde_json::from_str(schema::find(kind.trim_start_matches("ssds.").trim_end_matches("/1")).unwrap().text).unwrap();
        for field in schema["required"].as_array().unwrap() {
            let mut less = value.clone();
            less.as_object_mut().unwrap().remove(field.as_str().unwrap());
            assert!(!validators[kind].is_valid(&less), "{kind} is valid without {field}");
        }
    }
}

#[test]
fn the_guide_names_every_topic_code_and_reason() {
    let guide = std::fs::read_to_string(root().join("config/mqtt.md")).unwrap();
    for code in AlarmCode::ALL {
        assert!(guide.contains(&format!("`{}`", code.topic())), "{code:?}");
    }
    for s in schema::ALL {
        let topic = s.topic.split('/').next().unwrap();
        assert!(guide.contains(&format!("`{topic}")), "{topic}");
    }
    let response: Value = serde_json::from_str(schema::find("response").unwrap().text).unwrap();
    for reason in response["properties"]["reason"]["enum"].as_array().unwrap() {
        assert!(guide.contains(&format!("`{}`", reason.as_str().unwrap())), "{reason}");
    }
    for line in ["toml station", "toml station-passwords"].map(block).concat().lines().filter(|l| l.contains(" = ")) {
        let key = format!("mqtt.{}", line.split_once(" = ").unwrap().0);
        assert!(ssds::config::keys::find(&key).is_some(), "{key} is no setting");
    }
}

#[test]
fn schemas_are_printed() {
    let output = ssds(&["config", "schema", "--topic", "result/ok"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), schema::find("inspection").unwrap().text);
    let output = ssds(&["config", "schema", "--topic", "dance"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        text(&output).contains("ssds: no message `dance`; there are result/{ok,ng,error}, status, state"),
        "{}",
        text(&output)
    );
}

fn record(store: &mut Store, verdicts: &[Verdict]) {
    let mut batch: Vec<InspectionEvent> = verdicts
        .iter()
        .map(|&verdict| {
            let mut event = InspectionEvent::example();
            event.event_id = new_event_id(&SystemClock);
            event.verdict = verdict;
            event
        })
        .collect();
    store.record(&mut batch).unwrap();
}

fn state() -> State {
    State {
        schema: String::new(),
        station: String::new(),
        state: VisionState::Error,
        mode: Mode::Paused,
        recipe: None,
        model: None,
        since: SystemClock.now(),
        message: Some("the camera is away".into()),
    }
}

fn alarm() -> Alarm {
    Alarm {
        schema: String::new(),
        station: String::new(),
        code: AlarmCode::DiskLow,
        severity: Severity::Warning,
        since: SystemClock.now(),
        message: "2 GiB left".into(),
        value: Some(2.0),
        limit: Some(5.0),
    }
}

fn stats() -> Stats {
    Stats {
        schema: String::new(),
        station: String::new(),
        at: SystemClock.now(),
        boot_id: "0".repeat(32),
        period_s: 10.0,
        triggers: 3,
        ok: 1,
        ng: 1,
        error: 1,
        overruns: 0,
        takt_ms: Some(Takt { last: 33.0, worst: 40.0 }),
        processing_ms: Some(Processing { min: 1.0, mean: 2.0, max: 3.0, p99: 3.0 }),
        outbox_events: 0,
        outbox_oldest_age_s: 0.0,
    }
}

#[test]
fn a_station_set_up_by_the_guide_is_secured_and_every_message_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = guide::broker(folder.path(), false) else { return };
    let file = |name: &str| folder.path().join(name);
    let validators = validators();
    for protocol in [Protocol::V311, Protocol::V5] {
        let subscriber = Subscriber::keeping(broker.watch_port, "acme/#");
        until("the subscriber", || subscriber.subscriptions() == 1);
        let properties = Process::start(Command::new("mosquitto_sub").args([
            "-V",
            "5",
            "-h",
            "127.0.0.1",
            "-p",
            &broker.watch_port.to_string(),
            "-t",
            "acme/hz/smt/line3/aoi1/ssds/result/+",
            "-t",
            "marker",
            "-F",
            "%t %P",
        ]));
        until("mosquitto_sub", || {
            let port = broker.watch_port.to_string();
            assert!(Command::new("mosquitto_pub").args(["-p", &port, "-t", "marker", "-m", "x"]).status().unwrap().success());
            properties.log().contains("marker")
        });
        let state_folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut store = open(state_folder.path(), Arc::clone(&clock));
        let settings = PublishSettings {
            host: "localhost".into(),
            port: broker.port,
            prefix: "acme/hz/smt/line3/aoi1".into(),
            station: "aoi1".into(),
            protocol,
            message_expiry: (protocol == Protocol::V5).then_some(Duration::from_secs(3600)),
            tls: Some(TlsSettings {
                ca_file: file("ca.pem"),
                cert_file: Some(file("aoi1.pem")),
                key_file: Some(file("aoi1.key")),
                server_name: None,
            }),
            commands: CommandSettings { enabled: true, ..CommandSettings::default() },
            reconnect_min: Duration::from_millis(20),
            ..PublishSettings::default()
        };
        let publisher = publish(settings.clone(), store.reader().unwrap(), Arc::clone(&clock));
        record(&mut store, &[Verdict::Ok, Verdict::Ng, Verdict::Error]);
        let handle = publisher.handle();
        handle.notify();
        handle.set_state(state());
        handle.set_alarm(AlarmCode::DiskLow, Some(alarm()));
        handle.set_stats(stats());
        let topic = |suffix: &str| format!("acme/hz/smt/line3/aoi1/ssds/{suffix}");
        let has = |suffix: &str, what: &str| {
            subscriber.look(|s| s.others.get(&topic(suffix)).is_some_and(|p| String::from_utf8_lossy(p).contains(what)))
        };
        until("the results", || subscriber.look(|s| s.results.len() == 3));
        until("state, alarm, stats", || has("state", "camera") && has("alarm/disk_low", "2 GiB") && has("stats", "takt_ms"));
        assert!(has("status", "online"));

        // Commands: one done, one refused, each answered once.
        let send = |name: &str, payload: &str| {
            let port = broker.watch_port.to_string();
            let sent = Command::new("mosquitto_pub").args(["-p", &port, "-q", "1", "-t", &topic(name), "-m", payload]).status();
            assert!(sent.unwrap().success());
        };
        let id = format!("r{protocol:?}");
        let request = format!(
            r#"{{"schema":"ssds.command/1","request_id":"{id}","issued_at":"{}","ttl_ms":60000,"args":{{}}}}"#,
            SystemClock.now()
        );
        assert_eq!(valid(&validators, &request), "ssds.command/1");
        send("cmd/pause", &request);
        publisher.commands().recv_timeout(crate::mqtt::LIMIT).unwrap().done(serde_json::json!({"paused": true}));
        until("the answer", || has(&format!("rsp/{id}"), "done"));
        send("cmd/pause", &request);
        until("the refusal", || has(&format!("rsp/{id}"), "replayed"));
        send("cmd/pause", "nonsense");
        until("the second refusal", || has("rsp/invalid", "malformed"));
        handle.set_alarm(AlarmCode::DiskLow, None);
        until("the alarm is cleared", || subscriber.look(|s| s.others[&topic("alarm/disk_low")].is_empty()));

        // Gone without a word, back, and ended in order.
        drop(publisher);
        until("the last will", || has("status", "offline"));
        let publisher = publish(settings.clone(), store.reader().unwrap(), Arc::clone(&clock));
        until("back", || has("status", "online"));
        assert!(publisher.shutdown(Duration::from_secs(20)).stopped_published);
        until("stopped", || has("status", "stopped"));

        let kinds: BTreeSet<String> = subscriber.look(|s| {
            let messages = s.messages.iter().filter(|(t, p)| t.contains("/ssds/") && !t.contains("/cmd/") && !p.is_empty());
            messages.map(|(_, payload)| valid(&validators, &String::from_utf8_lossy(payload))).collect()
        });
        let sent = validators.keys().filter(|k| *k != "ssds.command/1");
        assert!(kinds.iter().eq(sent), "{kinds:?}");
        let answers: Vec<CommandResponse> = subscriber.look(|s| {
            s.messages.iter().filter(|(t, _)| t.contains("/rsp/")).map(|(_, p)| serde_json::from_slice(p).unwrap()).collect()
        });
        let found: Vec<_> = answers.iter().map(|a| (a.outcome, a.reason)).collect();
        let (refused, replayed, malformed) = (Outcome::Refused, Some(Reason::Replayed), Some(Reason::Malformed));
        assert_eq!(found, [(Outcome::Done, None), (refused, replayed), (refused, malformed)]);
        if protocol == Protocol::V5 {
            until("user properties", || properties.log().contains("schema:ssds.inspection/1 station:aoi1"));
        }
        store.close().unwrap();
        // What is retained would greet the next round.
        for suffix in ["status", "state", "stats"] {
            let port = broker.watch_port.to_string();
            let topic = topic(suffix);
            assert!(Command::new("mosquitto_pub").args(["-p", &port, "-r", "-n", "-t", &topic]).status().unwrap().success());
        }
    }
}

#[test]
fn the_guides_access_list_keeps_stations_apart_and_mqtt_5_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = guide::broker(folder.path(), false) else { return };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut store = open(folder.path(), Arc::clone(&clock));
    let file = |name: &str| folder.path().join(name);
    let settings = PublishSettings {
        host: "localhost".into(),
        port: broker.port,
        prefix: "acme/hz/smt/line3/aoi2".into(),
        station: "aoi1".into(),
        protocol: Protocol::V5,
        tls: Some(TlsSettings {
            ca_file: file("ca.pem"),
            cert_file: Some(file("aoi1.pem")),
            key_file: Some(file("aoi1.key")),
            server_name: None,
        }),
        reconnect_min: Duration::from_millis(20),
        ..PublishSettings::default()
    };
    record(&mut store, &[Verdict::Ok]);
    let publisher = publish(settings.clone(), store.reader().unwrap(), Arc::clone(&clock));
    let refused = |link: &Link, reason: RefusedReason| matches!(link, Link::Refused { reason: r, .. } if *r == reason);
    until("the refusal", || refused(&publisher.status().link, RefusedReason::Message));
    let Link::Refused { message, .. } = publisher.status().link else { panic!() };
    // mosquitto 2.0.11 closes the connection over the first message it refuses, the birth; newer ones go on to the result.
    let birth = "acme/hz/smt/line3/aoi2/ssds/status: not authorised; then ";
    assert!(message.starts_with(birth) || message == "result 1: not authorised", "{message}");
    drop(publisher);
    assert_eq!(store.reader().unwrap().outbox_events(), 1, "what was refused is kept");
}

#[test]
fn a_station_without_a_certificate_is_shown_as_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = guide::broker(folder.path(), false) else { return };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = open(folder.path(), Arc::clone(&clock));
    let tls = TlsSettings { ca_file: folder.path().join("ca.pem"), ..TlsSettings::default() };
    let settings = PublishSettings {
        host: "localhost".into(),
        port: broker.port,
        prefix: "acme/hz/smt/line3/aoi1".into(),
        station: "aoi1".into(),
        tls: Some(tls),
        reconnect_min: Duration::from_millis(20),
        ..PublishSettings::default()
    };
    let publisher = publish(settings, store.reader().unwrap(), clock);
    until("the refusal", || matches!(publisher.status().link, Link::Refused { reason: RefusedReason::Tls, .. }));
}

#[test]
fn audit_proves_a_spool_complete_or_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ssds.db");
    let audit = |json: bool| {
        let mut args = vec!["audit", "--db", path.to_str().unwrap()];
        args.extend(json.then_some("--json"));
        ssds(&args)
    };
    assert_eq!(audit(false).status.code(), Some(66));
    let mut store = open(folder.path(), Arc::new(SystemClock));
    record(&mut store, &[Verdict::Ok; 9]);
    // While the daemon has it open:
    let output = audit(false);
    assert_eq!(
        (output.status.code(), text(&output).trim()),
        (Some(0), "aoi1: 9 results, 1 to 9, 9 not yet acknowledged: complete")
    );
    store.close().unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("DELETE FROM events WHERE seq IN (3, 4, 9); UPDATE events SET body = 'x' WHERE seq = 6").unwrap();
    drop(db);
    let output = audit(false);
    assert_eq!(output.status.code(), Some(1));
    let wanted = "aoi1: 5 results, 1 to 8, 9 not yet acknowledged; 1 do not decode; 4 MISSING: 3-4, 6, 9";
    assert_eq!(text(&output).trim(), wanted);
    let answer: Value = serde_json::from_slice(&audit(true).stdout).unwrap();
    assert_eq!(
        (&answer["complete"], &answer["stations"]["aoi1"]["gaps"]),
        (&false.into(), &serde_json::json!([[3, 4], [6, 6], [9, 9]]))
    );
}

#[test]
fn audit_listens_to_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(folder.path(), "allow_anonymous true", "") else { return };
    let url = format!("mqtt://127.0.0.1:{}", broker.watch_port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssds"));
    command.args(["audit", "--broker", &url, "--prefix", "plant", "--until", "40", "--json"]).env("RUST_LOG", "info");
    let mut audit = Process::start(&mut command);
    audit.wait_for("listening to plant/ssds/result/+", crate::mqtt::LIMIT);
    let mut store = open(folder.path(), Arc::new(SystemClock));
    record(&mut store, &[Verdict::Ng; 40]);
    // One that never leaves: the broker has acknowledged it, somebody lost it.
    store.reader().unwrap().acknowledge(&[17]).unwrap();
    let settings = PublishSettings { port: broker.port, ..crate::faults::station::settings() };
    let publisher = publish(settings, store.reader().unwrap(), Arc::new(SystemClock));
    let status = audit.wait(crate::mqtt::LIMIT);
    assert_eq!(status.code(), Some(1), "{}", audit.log());
    assert!(audit.log().contains(r#""gaps":[[17,17]]"#), "{}", audit.log());
    drop(publisher);
    let missing = ssds(&["audit", "--broker", "mqtt://127.0.0.1:1"]);
    assert_eq!(missing.status.code(), Some(69), "{}", text(&missing));
}

/// Runs scripts/check-messages.py on lines `topic payload`; exit code and what it said. `None` where Python has no jsonschema.
fn checked(lines: &str, args: &[&str]) -> Option<(Option<i32>, String)> {
    use std::io::Write as _;
    let mut child = Command::new("python3")
        .arg(root().join("scripts/check-messages.py"))
        .args(args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .ok()?;
    // It may have ended already, for want of jsonschema.
    let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code() != Some(69)).then(|| (output.status.code(), text(&output)))
}

#[test]
fn the_checker_of_received_messages_finds_what_is_wrong() {
    let sample = std::fs::read_to_string(root().join("config/schema/examples/inspection.json")).unwrap();
    let line = |seq: u64, id: u64, change: (&str, &str)| {
        let id = format!("\"event_id\":\"0193a6d2-7c11-7b3e-9f10-{id:012}\"");
        let body = sample.trim().replace("\"seq\":184213", &format!("\"seq\":{seq}"));
        let body = body.replace("\"event_id\":\"0193a6d2-7c11-7b3e-9f10-3d5b6c1e8a42\"", &id);
        assert!(body.contains(&id) && body.contains(&format!("\"seq\":{seq},")) && body.contains(change.0), "{body}");
        format!("plant/line/ssds/result/ng {}\n", body.replace(change.0, change.1))
    };
    let same = ("\"verdict\"", "\"verdict\"");
    let good = format!(
        "other/topic no matter\nplant/line/ssds/status (null)\n{}{}{}",
        line(1, 1, same),
        line(2, 2, same),
        line(2, 2, same)
    );
    let Some((code, said)) = checked(&good, &["--from", "1"]) else {
        skipped("the_checker_of_received_messages_finds_what_is_wrong", "Python has no jsonschema");
        return;
    };
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("aoi1: 2 results, 1 to 2, 0 missing, 1 repeats, NG 2, over 1 boots"), "{said}");
    for (lines, args, fault) in [
        (String::new(), &[][..], "FAULT no result came"),
        (line(1, 1, same) + &line(3, 3, same), &[], "FAULT aoi1: 1 results missing from 1 to 3"),
        (line(2, 2, same), &["--from", "1"], "FAULT aoi1: 1 results missing from 1 to 2"),
        (line(1, 1, same) + &line(1, 2, same), &[], "seq 1 came with two event ids"),
        (line(1, 1, ("\"verdict\":\"NG\"", "\"verdict\":\"PERHAPS\"")), &[], "'PERHAPS' is not one of"),
        (line(1, 1, ("2026-11-23T02:48:46.123456Z", "2026-11-31T02:48:46Z")), &[], "is not a 'date-time' at $.captured_at"),
        (good.clone() + "plant/ssds/gossip {}\n", &[], "plant/ssds/gossip: no such topic"),
        (good.clone() + "plant/ssds/state {\n", &[], "plant/ssds/state: not JSON"),
    ] {
        let (code, said) = checked(&lines, args).unwrap();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(fault), "wanted {fault} in:\n{said}");
    }
    // Every topic of the contract is known to it.
    for s in schema::ALL {
        let level = s.topic.split('/').next().unwrap();
        let (_, said) = checked(&format!("plant/ssds/{level}/x {{}}\n"), &[]).unwrap();
        assert!(!said.contains("no such topic") && said.contains(&format!("{} 1", s.name)), "{level}: {said}");
    }
}
