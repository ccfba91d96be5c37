//! The outbox's limits and damage to its file, as a station shows them: through `ssds run` and `ssds check`, with a real broker.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ssds::clock::SystemClock;
use ssds::record::event::{InspectionEvent, new_event_id};
use ssds::record::store::{Store, StoreSettings};

use crate::mqtt::broker::Mosquitto;
use crate::mqtt::subscriber::Subscriber;
use crate::mqtt::until;
use crate::support::{Station, need_library, root, ssds, text};

/// Puts `n` results into the station's spool, as an earlier run would have left them.
fn fill(state: &Path, n: usize) {
    std::fs::create_dir_all(state).unwrap();
    let settings = StoreSettings { station: "test1".into(), ..StoreSettings::default() };
    let (mut store, _) = Store::open(&state.join("ssds.db"), settings, Arc::new(SystemClock)).unwrap();
    let event =
        || InspectionEvent { event_id: new_event_id(&SystemClock), station: "test1".into(), ..InspectionEvent::example() };
    let mut batch: Vec<_> = (0..n).map(|_| event()).collect();
    store.record(&mut batch).unwrap();
    store.close().unwrap();
}

/// A station that inspects its own template for ever.
fn station(port: u16, extra: &str) -> Station {
    need_library();
    let station = Station::new(port, &format!("camera.loop = true\nmqtt.reconnect_max_secs = 1\n{extra}"));
    let template = root().join("tests/data/demo/template.png");
    std::fs::copy(&template, station.path("frames/0.png")).unwrap();
    assert!(station.teach(&template).status.success());
    station
}

/// The newest message on a topic.
fn message(subscriber: &Subscriber, topic: &str) -> Value {
    subscriber.look(|s| s.others.get(topic).and_then(|p| serde_json::from_slice(p).ok()).unwrap_or(Value::Null))
}

/// A broker that acknowledges states and refuses results lets the outbox run to its cap: a warning, then ERROR and no more frames. Once it
/// takes results, the station goes on by itself, and nothing is missing.
#[test]
fn at_the_cap_the_station_stops_taking_frames_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let access = folder.path().join("access");
    let states = "topic write t/ssds/status\ntopic write t/ssds/state\ntopic write t/ssds/stats\ntopic write t/ssds/alarm/+\n";
    std::fs::write(&access, states).unwrap();
    let lines = format!("allow_anonymous true\nacl_file {}", access.display());
    let Some(broker) = Mosquitto::start(folder.path(), &lines, "") else { return };
    let subscriber = Subscriber::keeping(broker.watch_port, "t/#");
    until("the subscriber", || subscriber.subscriptions() == 1);
    let station = station(broker.port, "mqtt.protocol = \"5\"\nrecord.max_events = 100");
    // Slow enough for the warning to be said before the error takes its place.
    let slow = std::fs::read_to_string(&station.config).unwrap().replace("camera.rate_hz = 50", "camera.rate_hz = 3");
    std::fs::write(&station.config, slow).unwrap();
    fill(&station.path("state"), 90);
    let mut daemon = station.run();

    let alarm = || message(&subscriber, "t/ssds/alarm/spool_high");
    let state = || message(&subscriber, "t/ssds/state");
    until("the state error", || state()["state"] == "error");
    assert!(state()["message"].as_str().unwrap().contains("the outbox is at its cap"), "{}", state());
    until("the alarm is an error", || alarm()["severity"] == "error");
    assert_eq!(alarm()["limit"], 100.0, "{}", alarm());
    let severities: Vec<Value> = subscriber.look(|s| {
        let alarms = s.messages.iter().filter(|(t, p)| t == "t/ssds/alarm/spool_high" && !p.is_empty());
        alarms.map(|(_, p)| serde_json::from_slice::<Value>(p).unwrap()["severity"].clone()).collect()
    });
    assert_eq!(severities.first(), Some(&Value::from("warning")), "an alarm well before: {severities:?}");
    // What was under way is recorded; then nothing more comes: twice the same count with a self-made pause in between.
    let mut last = 0;
    until("no frame is taken any more", || {
        let now = station.recorded().0.len();
        let same = now == std::mem::replace(&mut last, now);
        std::thread::sleep(Duration::from_millis(500));
        same && now >= 100
    });
    assert!(last < 100 + 80, "{last} results: the queues hold no more than that");
    let log = daemon.log();
    assert!(log.contains("the outbox is at its cap: no frame is taken"), "{log}");
    assert!(log.contains("result 1: not authorised"), "{log}");

    std::fs::write(&access, format!("{states}topic write t/ssds/result/+\n")).unwrap();
    broker.reload();
    until("the alarm is over", || subscriber.look(|s| s.others["t/ssds/alarm/spool_high"].is_empty()));
    until("frames are taken again", || station.recorded().0.len() > last + 3 && state()["state"] == "continuous_execution");
    daemon.signal("TERM");
    assert!(daemon.wait(Duration::from_secs(60)).success(), "{}", daemon.log());
    let (recorded, _) = station.recorded();
    let count = recorded.len() as u64;
    assert!(recorded.iter().map(|e| e["seq"].as_u64().unwrap()).eq(1..=count), "numbers without a gap");
    assert!(!recorded.iter().any(|e| e["result_state"] == "aborted" && e["seq"].as_u64() < Some(last as u64)));
    let log = daemon.log();
    let balance = log.lines().find(|l| l.contains("frames = ")).unwrap();
    assert!(balance.contains("+ 0 dropped + 0 lost"), "{balance}");
    subscriber.look(|s| {
        assert_eq!(s.wrong, [""; 0]);
        let missing: Vec<u64> = (1..=last as u64).filter(|seq| !s.results.contains_key(seq)).collect();
        assert_eq!(missing, [0_u64; 0], "what waited at the cap has arrived");
    });
}

/// Damage is seen by `ssds check` without touching it, counted and told by the next start, and told again after a crash.
#[test]
fn damage_is_found_counted_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(folder.path(), "allow_anonymous true", "") else { return };
    let subscriber = Subscriber::keeping(broker.watch_port, "t/#");
    until("the subscriber", || subscriber.subscriptions() == 1);
    let station = station(broker.port, "");
    fill(&station.path("state"), 10);
    let check = || {
        let output = ssds(&["check", "--config", &station.config.to_string_lossy()]);
        (output.status.code(), text(&output))
    };
    let (code, said) = check();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("last seq 10, 10 events wait for the broker"), "{said}");

    let db = rusqlite::Connection::open(station.path("state/ssds.db")).unwrap();
    db.execute_batch("UPDATE events SET body = replace(body, 'test1', 'test2') WHERE seq IN (4, 5)").unwrap();
    drop(db);
    for _ in 0..2 {
        let (code, said) = check();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("damaged: 2 unacknowledged events do not match their checksum"), "{said}");
    }

    let mut daemon = station.run();
    let alarm = || message(&subscriber, "t/ssds/alarm/spool_damaged");
    let alarms =
        || subscriber.look(|s| s.messages.iter().filter(|(t, p)| t.ends_with("/spool_damaged") && !p.is_empty()).count());
    let told = "2 events were lost to a damaged spool file";
    until("the alarm", || alarm()["message"] == told);
    assert!(daemon.log().contains("was damaged (the checksum of unacknowledged events does not match): 8 events kept, 2 lost"));
    let (code, said) = check();
    assert_eq!(code, Some(0), "what is left is in order: {said}");
    assert!(said.contains("2 damaged events were set aside earlier"), "{said}");
    until("what was left", || subscriber.look(|s| s.results.len() >= 8));
    daemon.signal("KILL");
    daemon.wait(Duration::from_secs(60));

    // After a crash the alarm stands again; after a stop in order it does not.
    let before = alarms();
    let mut daemon = station.run();
    until("the alarm, again", || alarms() > before && alarm()["message"] == told);
    daemon.signal("TERM");
    assert!(daemon.wait(Duration::from_secs(60)).success(), "{}", daemon.log());
    let before = alarms();
    let mut daemon = station.run();
    daemon.wait_for("frame 1 ", crate::mqtt::LIMIT);
    daemon.signal("TERM");
    assert!(daemon.wait(Duration::from_secs(60)).success(), "{}", daemon.log());
    assert_eq!(alarms(), before);

    // The audit names exactly what was lost.
    let db = station.path("state/ssds.db");
    let audit = ssds(&["audit", "--db", &db.to_string_lossy()]);
    assert_eq!(audit.status.code(), Some(1));
    assert!(text(&audit).contains("2 MISSING: 4-5"), "{}", text(&audit));
    let missing: Vec<u64> = subscriber.look(|s| (1..=10).filter(|seq| !s.results.contains_key(seq)).collect());
    assert_eq!(missing, [4, 5]);
}
