//! Slow changes on a running line: the alarms stand at the broker, and the baseline lasts over a restart.

use std::time::Duration;

use serde_json::Value;

use ssds::frame::{Gray, load_gray};

use crate::support::{Broker, Process, Station, library, root, skipped};

const PATIENCE: Duration = Duration::from_secs(120);

/// The picture dimmer and moved to the right.
fn changed(picture: &Gray, light: f32, right: usize) -> Gray {
    Gray::from_fn(picture.width(), picture.height(), |x, y| (f32::from(picture.get(x.saturating_sub(right), y)) * light) as u8)
}

fn payload(subscriber: &Process, topic: &str) -> Option<Value> {
    subscriber.log().lines().filter_map(|l| l.strip_prefix(topic)).next_back().and_then(|p| serde_json::from_str(p.trim()).ok())
}

#[test]
fn light_focus_and_pose_that_drift_raise_their_alarms() {
    const NAME: &str = "light_focus_and_pose_that_drift_raise_their_alarms";
    let Some(broker) = Broker::start() else { return skipped(NAME, "mosquitto is not installed") };
    if library().is_none() {
        return skipped(NAME, "no ONNX Runtime library");
    }
    let station = Station::new(broker.port, "drift.parts = 5\ndrift.limit = 1.0\nevidence.min_free_mib = 0");
    let template = root().join("tests/data/demo/template.png");
    let picture = load_gray(&template).unwrap();
    assert!(station.teach(&template).status.success());
    for n in 0..5 {
        station.frame(&format!("{n:03}.png"), &picture);
    }
    let mut daemon = station.run();
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
    assert!(daemon.log().contains("drift: 5 parts with template"), "{}", daemon.log());
    let log = daemon.log();
    assert!(!log.contains("alarm "), "{log}");

    // Another day: less light, and the fixture has moved.
    let mut subscriber = broker.subscribe();
    let worse = changed(&picture, 0.7, 6);
    for n in 0..40 {
        station.frame(&format!("{n:03}.png"), &worse);
    }
    let config = std::fs::read_to_string(&station.config).unwrap();
    std::fs::write(&station.config, format!("{config}camera.loop = true\n")).unwrap();
    let mut daemon = station.run();
    for code in ["light_drift", "focus_drift", "pose_drift"] {
        daemon.wait_for(&format!("alarm {code}: "), PATIENCE);
        subscriber.wait_for(&format!("t/ssds/alarm/{code} {{"), PATIENCE);
        let alarm = payload(&subscriber, &format!("t/ssds/alarm/{code} ")).unwrap();
        assert_eq!((alarm["severity"].as_str(), alarm["limit"].as_f64()), (Some("warning"), Some(1.0)), "{alarm}");
        assert!(alarm["value"].as_f64().unwrap().abs() > 1.0, "{alarm}");
    }
    daemon.signal("TERM");
    assert!(daemon.wait(PATIENCE).success(), "{}", daemon.log());
    let (events, _) = station.recorded();
    let drift: Vec<Option<f64>> = events.iter().map(|e| e["image"]["drift_z"].as_f64()).collect();
    assert_eq!(drift[..4], [None; 4]);
    assert!(drift[4..].iter().all(Option::is_some) && drift.last().unwrap().unwrap().abs() > 1.0, "{drift:?}");
}
