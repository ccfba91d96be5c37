//! Commands through the running daemon: sent by a broker's other client, carried out between two frames, answered once, with the results
//! showing what was done.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use ssds::clock::{Clock, SystemClock};
use ssds::schema;

use crate::guide::block;
use crate::mqtt::broker::Mosquitto;
use crate::mqtt::subscriber::Subscriber;
use crate::mqtt::{LIMIT, until};
use crate::support::{Process, Station, need_library, root, ssds, text};

/// A broker with a station that inspects its own template for ever and takes commands.
struct Line {
    broker: Mosquitto,
    subscriber: Subscriber,
    station: Station,
    daemon: Process,
    answers: jsonschema::Validator,
    asked: u64,
    _folder: tempfile::TempDir,
}

impl Line {
    fn start(extra: &str) -> Option<Self> {
        need_library();
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(folder.path(), "allow_anonymous true", "")?;
        let subscriber = Subscriber::keeping(broker.watch_port, "t/#");
        until("the subscriber", || subscriber.subscriptions() == 1);
        let lines = format!("camera.loop = true\nmqtt.commands = true\nmqtt.stats_secs = 1\n{extra}");
        let station = Station::new(broker.port, &lines);
        let template = root().join("tests/data/demo/template.png");
        std::fs::copy(&template, station.path("frames/0.png")).unwrap();
        assert!(station.teach(&template).status.success());
        let mut daemon = station.run();
        daemon.wait_for("frame 1 ", LIMIT);
        let text = schema::find("response").unwrap().text;
        let answers = jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap();
        Some(Self { broker, subscriber, station, daemon, answers, asked: 0, _folder: folder })
    }

    /// Sends a command and waits for its answer.
    fn ask(&mut self, name: &str, args: &Value) -> Value {
        self.asked += 1;
        let id = format!("r{}", self.asked);
        let request = json!({"request_id": id, "issued_at": SystemClock.now(), "ttl_ms": 60_000, "args": args}).to_string();
        let port = self.broker.watch_port.to_string();
        let topic = format!("t/ssds/cmd/{name}");
        let sent = Command::new("mosquitto_pub").args(["-p", &port, "-q", "1", "-t", &topic, "-m", &request]).status();
        assert!(sent.unwrap().success());
        let topic = format!("t/ssds/rsp/{id}");
        until(&format!("the answer to {request}"), || self.subscriber.look(|s| s.others.contains_key(&topic)));
        let answer: Value = self.subscriber.look(|s| serde_json::from_slice(&s.others[&topic]).unwrap());
        let faults: Vec<String> = self.answers.iter_errors(&answer).map(|e| e.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?} in {answer}");
        answer
    }

    fn done(&mut self, name: &str, args: &Value) -> Value {
        let answer = self.ask(name, args);
        assert_eq!(answer["outcome"], "done", "{answer}");
        answer["result"].clone()
    }

    /// Reason and message of a refusal.
    fn refused(&mut self, name: &str, args: &Value) -> (String, String) {
        let answer = self.ask(name, args);
        assert_eq!(answer["outcome"], "refused", "{answer}");
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        (text("reason"), text("message"))
    }

    /// The results that came so far, by number.
    fn results(&self) -> BTreeMap<u64, Value> {
        self.subscriber.look(|s| {
            let results = s.messages.iter().filter(|(topic, _)| topic.starts_with("t/ssds/result/"));
            let events = results.map(|(_, payload)| serde_json::from_slice::<Value>(payload).unwrap());
            events.map(|event| (event["seq"].as_u64().unwrap(), event)).collect()
        })
    }

    fn newest(&self) -> u64 {
        self.results().keys().next_back().copied().unwrap_or(0)
    }

    /// Waits for a result that is compared with this threshold.
    fn until_threshold(&self, threshold: f64) {
        let before = self.newest();
        until(&format!("a result at threshold {threshold}"), || {
            self.results().range(before + 1..).any(|(_, event)| event["decision"]["threshold"] == threshold)
        });
    }

    fn state(&self) -> Value {
        self.subscriber.look(|s| s.others.get("t/ssds/state").map_or(Value::Null, |p| serde_json::from_slice(p).unwrap()))
    }
}

/// Names of all fields, with their place.
fn fields(value: &Value) -> Vec<String> {
    let Value::Object(object) = value else { return vec![String::new()] };
    object.iter().flat_map(|(name, value)| fields(value).into_iter().map(move |rest| format!("{name}.{rest}"))).collect()
}

#[test]
fn commands_are_carried_out_between_two_frames_and_answered() {
    let Some(mut line) = Line::start("") else { return };

    // The self-test proves the line and leaves no result.
    let report = line.done("selftest", &json!({}));
    assert_eq!(report["passed"], true, "{report}");
    assert!(report["registration"]["confidence"].as_f64().unwrap() > 0.5, "{report}");
    assert!(report["registration"]["corner_error_px"].as_f64().unwrap() <= 0.5, "{report}");
    let network = &report["network"];
    assert_eq!((&network["verified"], &network["provider"]), (&json!(true), &json!("cpu")), "{report}");
    assert!(network["max_abs"].as_f64().unwrap() <= network["tolerance"].as_f64().unwrap(), "{report}");
    assert!(report["store"]["ok"] == true && report["store"]["ms"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(
        fields(&report),
        fields(&serde_json::from_str(&block("text selftest")).unwrap()),
        "the guide shows another answer"
    );
    assert_eq!(line.refused("selftest", &json!({"x": 1})), ("bad_arguments".into(), "selftest takes no arguments, got x".into()));

    // A recipe is named by its product, by its hash, or as the one before.
    let plain = line.done("recipe", &json!({"product": "board"}));
    assert_eq!(
        (&plain["product"], &plain["template"]["id"], &plain["changed"]),
        (&json!("board"), &json!("board/main"), &json!(true))
    );
    assert_eq!(fields(&plain), fields(&serde_json::from_str(&block("text recipe")).unwrap()), "the guide shows another answer");
    until("the state names the recipe", || line.state()["recipe"]["product"] == "board");
    let again = line.done("recipe", &json!({"product": "board"}));
    assert_eq!((&again["changed"], &again["recipe_sha256"]), (&json!(false), &plain["recipe_sha256"]));
    let default = line.results()[&1]["decision"]["threshold"].as_f64().unwrap();
    let file = line.station.path("strict.toml");
    std::fs::write(&file, "recipe_version = 1\nproduct = \"board\"\n[decision]\nthreshold = 0.8125\n").unwrap();
    let config = line.station.config.to_string_lossy().into_owned();
    let applied = ssds(&["recipe", "apply", &file.to_string_lossy(), "--config", &config, "--json"]);
    assert!(applied.status.success(), "{}", text(&applied));
    let strict: Value = serde_json::from_slice(&applied.stdout).unwrap();
    line.until_threshold(0.8125);
    let before = line.done("recipe", &json!({"rollback": true}));
    assert_eq!(before["recipe_sha256"], plain["recipe_sha256"]);
    line.until_threshold(default);
    let hash = strict["sha256"].as_str().unwrap();
    let by_hash = line.done("recipe", &json!({"sha256": hash[..12], "product": "board"}));
    assert_eq!(by_hash["recipe_sha256"], hash);
    line.until_threshold(0.8125);

    // What cannot be put in force changes nothing.
    let (reason, message) = line.refused("recipe", &json!({"product": "unknown"}));
    assert_eq!(reason, "bad_arguments");
    assert!(message.contains("unknown/main") && message.ends_with("the recipe in force stays"), "{message}");
    let (reason, message) = line.refused("recipe", &json!({"sha256": hash, "product": "other"}));
    assert!(reason == "bad_arguments" && message.contains("is of product board, not other"), "{message}");
    assert_eq!(line.refused("recipe", &json!({})).0, "bad_arguments");
    line.until_threshold(0.8125);

    // Paused, no frame is taken, and the self-test still works.
    assert_eq!(line.done("pause", &json!({})), json!({"paused": true}));
    until("the state says paused", || line.state()["mode"] == "paused");
    // A self-test goes through the whole line: after the first, what was under way has been recorded; the second finds nothing new.
    let report = line.done("selftest", &json!({}));
    assert_eq!(report["passed"], true, "{report}");
    let count = line.station.recorded().0.len();
    assert_eq!(line.done("selftest", &json!({}))["passed"], true);
    assert_eq!(line.station.recorded().0.len(), count, "a paused station took a frame");
    assert_eq!(line.done("resume", &json!({})), json!({"paused": false}));
    let newest = line.newest();
    until("results come again", || line.newest() > newest);

    line.daemon.signal("TERM");
    assert!(line.daemon.wait(Duration::from_secs(60)).success(), "{}", line.daemon.log());
    let (recorded, _) = line.station.recorded();
    assert!(recorded.iter().all(|e| e["trigger"] == "replay"), "a self-test left a result");
    // Every question was answered once.
    let answers = line.subscriber.look(|s| s.messages.iter().filter(|(t, _)| t.starts_with("t/ssds/rsp/")).count());
    assert_eq!(answers as u64, line.asked);
}
