//! The whole line against a real broker: what a separate subscriber received is what was recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Broker, Station, root, shared, skipped};

const TO_START: Duration = Duration::from_secs(60);
const TO_INSPECT: Duration = Duration::from_secs(300);

fn schema() -> jsonschema::Validator {
    let text = std::fs::read_to_string(root().join("config/schema/inspection.v1.schema.json")).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

/// The inspection messages in a subscriber's log, by seq; the topic must fit the verdict and every message the schema.
fn received(log: &str, prefix: &str) -> BTreeMap<u64, Value> {
    let schema = schema();
    let mut out = BTreeMap::new();
    for line in log.lines() {
        let Some((topic, payload)) = line.split_once(' ') else { continue };
        let Some(word) = topic.strip_prefix(&format!("{prefix}/ssds/result/")) else { continue };
        let event: Value = serde_json::from_str(payload).unwrap();
        assert_eq!(event["verdict"].as_str().unwrap().to_lowercase(), word, "{line}");
        let faults: Vec<String> = schema.iter_errors(&event).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{faults:?} in {payload}");
        let before = out.insert(event["seq"].as_u64().unwrap(), event);
        assert!(before.is_none(), "a message came twice though nothing failed: {line}");
    }
    out
}

/// Received equals recorded, gap-free from 1, and nothing waits.
fn compare(station: &Station, log: &str, count: u64) -> BTreeMap<u64, Value> {
    let (recorded, outbox) = station.recorded();
    let received = received(log, "t");
    assert_eq!(outbox, 0, "all was acknowledged");
    assert_eq!(recorded.len() as u64, count);
    assert_eq!(received.keys().copied().collect::<Vec<_>>(), (1..=count).collect::<Vec<_>>(), "gap-free");
    for event in &recorded {
        let seq = event["seq"].as_u64().unwrap();
        assert_eq!(received[&seq]["event_id"], event["event_id"]);
        assert_eq!(received[&seq]["verdict"], event["verdict"]);
    }
    received
}

/// Demo frames: OK, NG and wrong-product parts end as such, and the subscriber gets exactly what was recorded.
#[test]
fn demo_frames_reach_a_subscriber_as_recorded() {
    let Some(broker) = Broker::start() else {
        return skipped("demo_frames_reach_a_subscriber_as_recorded", "mosquitto is not installed");
    };
    let station = Station::new(broker.port, "");
    let data = root().join("tests/data/demo");
    let truth: BTreeMap<String, String> =
        serde_json::from_str(&std::fs::read_to_string(data.join("truth.json")).unwrap()).unwrap();
    for name in truth.keys() {
        std::fs::copy(data.join("frames").join(name), station.path("frames").join(name)).unwrap();
    }
    let taught = station.teach(&data.join("template.png"));
    assert!(taught.status.success(), "{}", crate::support::text(&taught));

    let subscriber = broker.subscribe();
    let mut daemon = station.run();
    daemon.wait_for("ready", TO_START);
    let status = daemon.wait(TO_INSPECT);
    assert!(status.success(), "{status}:\n{}", daemon.log());
    std::thread::sleep(Duration::from_millis(500));
    let log = subscriber.log();
    let events = compare(&station, &log, truth.len() as u64);

    let mut wrong = Vec::new();
    for (event, (name, expected)) in events.values().zip(&truth) {
        if event["verdict"] != expected.as_str() {
            wrong.push(format!("{name}: expected {expected}, got {}", event["verdict"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let statuses: Vec<&str> = log.lines().filter(|l| l.starts_with("t/ssds/status ")).collect();
    assert!(statuses.first().is_some_and(|l| l.contains("online")), "{statuses:?}");
    assert!(statuses.last().is_some_and(|l| l.contains("stopped")), "{statuses:?}");
    let balance = format!("{0} frames = {0} recorded", truth.len());
    assert!(daemon.log().contains(&balance) && daemon.log().contains("+ 0 dropped + 0 lost"), "{}", daemon.log());
}

/// Real pairs: the first pair's template is taught; its own frame is inspected, the frames of other boards are refused; all arrive.
#[test]
fn real_pairs_reach_a_subscriber_as_recorded() {
    const NAME: &str = "real_pairs_reach_a_subscriber_as_recorded";
    let Some(shared) = shared() else { return skipped(NAME, "no shared data (SSDS_SHARED or ../shared)") };
    let Some(broker) = Broker::start() else { return skipped(NAME, "mosquitto is not installed") };
    let data = shared.join("data/deeppcb/PCBData");
    let list = std::fs::read_to_string(data.join("test.txt")).unwrap();
    let images: Vec<String> = list
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .map(|p| p.trim_end_matches(".jpg").to_owned())
        .step_by(8)
        .take(12)
        .collect();
    // Bare boards are nearly white.
    let station = Station::new(broker.port, "image.max_mean = 255");
    for (i, image) in images.iter().enumerate() {
        std::fs::copy(data.join(format!("{image}_test.jpg")), station.path("frames").join(format!("{i:03}.jpg"))).unwrap();
    }
    let taught = station.teach(&data.join(format!("{}_temp.jpg", images[0])));
    assert!(taught.status.success(), "{}", crate::support::text(&taught));

    let subscriber = broker.subscribe();
    let mut daemon = station.run();
    let status = daemon.wait(TO_INSPECT);
    assert!(status.success(), "{status}:\n{}", daemon.log());
    std::thread::sleep(Duration::from_millis(500));
    let events = compare(&station, &subscriber.log(), images.len() as u64);
    assert_eq!(events[&1]["verdict"], "NG", "the part of the taught board has defects: {}", events[&1]);
    for (seq, event) in events.iter().skip(1) {
        assert_eq!(event["error"]["code"], "ALIGN_FAIL", "frame {seq} shows another board: {event}");
    }
}

/// A broker that is not there at the start: inspection goes on, and once it is there everything arrives, marked as such.
#[test]
fn an_absent_broker_delays_results_and_loses_none() {
    const NAME: &str = "an_absent_broker_delays_results_and_loses_none";
    let Some(broker) = Broker::start() else { return skipped(NAME, "mosquitto is not installed") };
    let nobody = crate::support::free_port();
    let station = Station::new(nobody, "");
    let data = root().join("tests/data/demo");
    let mut frames: Vec<_> = std::fs::read_dir(data.join("frames")).unwrap().map(|e| e.unwrap().path()).collect();
    frames.sort();
    for frame in frames.iter().take(5) {
        std::fs::copy(frame, station.path("frames").join(frame.file_name().unwrap())).unwrap();
    }
    assert!(station.teach(&data.join("template.png")).status.success());
    let mut daemon = station.run();
    let status = daemon.wait(TO_INSPECT);
    assert!(status.success(), "{status}:\n{}", daemon.log());
    assert_eq!(station.recorded().1, 5, "all five wait for the broker:\n{}", daemon.log());

    // The same station, now with a broker and no new frame beyond one.
    let text = std::fs::read_to_string(&station.config)
        .unwrap()
        .replace(&format!("mqtt.port = {nobody}"), &format!("mqtt.port = {}", broker.port));
    std::fs::write(&station.config, text).unwrap();
    for frame in frames.iter().skip(1).take(4) {
        std::fs::remove_file(station.path("frames").join(frame.file_name().unwrap())).unwrap();
    }
    let subscriber = broker.subscribe();
    let mut daemon = station.run();
    assert!(daemon.wait(TO_INSPECT).success(), "{}", daemon.log());
    std::thread::sleep(Duration::from_millis(500));
    compare(&station, &subscriber.log(), 6);
}

/// SIGTERM while frames come: drained, exit 0 within five seconds, every frame accounted for; a second signal ends at once.
#[test]
fn sigterm_drains_and_a_second_signal_ends_at_once() {
    let station = Station::new(crate::support::free_port(), "camera.loop = true\nmqtt.enabled = false");
    let data = root().join("tests/data/demo");
    for entry in std::fs::read_dir(data.join("frames")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, station.path("frames").join(path.file_name().unwrap())).unwrap();
    }
    assert!(station.teach(&data.join("template.png")).status.success());
    let mut daemon = station.run();
    daemon.wait_for("frame 3 ", TO_INSPECT);
    daemon.signal("TERM");
    let status = daemon.wait(Duration::from_secs(5));
    assert!(status.success(), "{status}:\n{}", daemon.log());
    let log = daemon.log();
    let line = log.lines().find(|l| l.contains("frames = ")).unwrap_or_else(|| panic!("no summary in\n{log}"));
    assert!(line.contains("+ 0 dropped + 0 lost"), "{line}");
    let recorded = station.recorded().0.len();
    assert!(line.contains(&format!("{recorded} frames = {recorded} recorded")), "{line}");

    let mut daemon = station.run();
    daemon.wait_for("ready", TO_START);
    daemon.signal("TERM");
    daemon.signal("TERM");
    let status = daemon.wait(Duration::from_secs(5));
    // Either the second signal cut the drain short, or the drain had already ended.
    assert!(
        status.success() || std::os::unix::process::ExitStatusExt::signal(&status).is_none() && status.code() == Some(143),
        "{status}"
    );
}

/// Free run with a slow consumer: the oldest frames are dropped and counted, and the sums agree.
#[test]
fn overload_drops_are_counted() {
    let station = Station::new(crate::support::free_port(), "mqtt.enabled = false\npipeline.queue_frames = 1");
    let text = std::fs::read_to_string(&station.config)
        .unwrap()
        .replace("pipeline.overload = \"wait\"", "pipeline.overload = \"newest\"")
        .replace("camera.rate_hz = 50", "camera.rate_hz = 2000");
    std::fs::write(&station.config, text).unwrap();
    let data = root().join("tests/data/demo");
    let frame = ssds::frame::load_gray(&data.join("template.png")).unwrap();
    for i in 0..40 {
        station.frame(&format!("{i:03}.png"), &frame);
    }
    assert!(station.teach(&data.join("template.png")).status.success());
    let mut daemon = station.run();
    assert!(daemon.wait(TO_INSPECT).success(), "{}", daemon.log());
    let log = daemon.log();
    let line = log.lines().find(|l| l.contains("frames = ")).unwrap_or_else(|| panic!("no summary in\n{log}"));
    let recorded = station.recorded().0.len();
    assert!(recorded < 40, "a frame a half millisecond cannot all be inspected");
    assert!(line.contains(&format!("40 frames = {recorded} recorded")), "{line}");
    assert!(line.contains(&format!("+ {} dropped + 0 lost", 40 - recorded)), "{line}");
}

/// Health, readiness and metrics while the line runs.
#[test]
fn http_tells_health_readiness_and_counts() {
    let port = crate::support::free_port();
    let station = Station::new(crate::support::free_port(), "camera.loop = true\nmqtt.enabled = false");
    let text = std::fs::read_to_string(&station.config).unwrap();
    let text = text.replace("http.enabled = false", &format!("http.listen = \"127.0.0.1:{port}\""));
    std::fs::write(&station.config, text).unwrap();
    let data = root().join("tests/data/demo");
    std::fs::copy(data.join("template.png"), station.path("frames/0.png")).unwrap();
    assert!(station.teach(&data.join("template.png")).status.success());
    let mut daemon = station.run();
    daemon.wait_for("frame 2 ", TO_INSPECT);
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    let ready = get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"ready\":true"), "{ready}");
    let metrics = get("/metrics");
    for want in
        ["ssds_inspections_total{verdict=\"OK\"}", "ssds_stage_duration_seconds_count{stage=\"infer\"}", "ssds_camera_up 1"]
    {
        assert!(metrics.contains(want), "{want} not in\n{metrics}");
    }
    assert!(get("/api/v1/status").contains("\"state\":\"continuous_execution\""), "{}", get("/api/v1/status"));
    assert!(get("/nothing").starts_with("HTTP/1.1 404"));
}

/// systemd is told READY=1 once, WATCHDOG=1 while the line works, STOPPING=1 at the end.
#[test]
fn systemd_is_told_of_readiness_progress_and_stop() {
    let station = Station::new(crate::support::free_port(), "camera.loop = true\nmqtt.enabled = false");
    let data = root().join("tests/data/demo");
    std::fs::copy(data.join("template.png"), station.path("frames/0.png")).unwrap();
    assert!(station.teach(&data.join("template.png")).status.success());
    let path = station.path("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(TO_START)).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ssds"));
    command.args(["run", "--config"]).arg(&station.config).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let mut daemon = crate::support::Process::start(&mut command);
    let mut told = String::new();
    let mut buffer = [0u8; 4096];
    let mut listen_until = |told: &mut String, what: &str| {
        while !told.contains(what) {
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("systemd was not told {what}: {e}; told so far: {told}"));
            told.push_str(&String::from_utf8_lossy(&buffer[..n]));
            told.push('\n');
        }
    };
    listen_until(&mut told, "READY=1");
    assert!(!told.contains("WATCHDOG=1"), "nothing is fed before it is ready: {told}");
    listen_until(&mut told, "WATCHDOG=1");
    daemon.signal("TERM");
    listen_until(&mut told, "STOPPING=1");
    assert!(daemon.wait(Duration::from_secs(5)).success(), "{}", daemon.log());
    assert_eq!(told.matches("READY=1").count(), 1, "{told}");
}
