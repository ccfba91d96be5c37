//! Faults done for real: brokers killed, frozen and refusing, connections cut and half-open, the daemon killed inside its commits, full
//! disks, jumping clocks. After each run the subscriber's messages together must hold every number that was recorded, under one event id
//! each, first seen in order, with no more repeats than the in-flight window allows for each new connection.
//!
//! The short form runs with the other tests. The long form, `make fault-test FAULTS=300`, does that many of each kind (a sixth of it
//! where one fault takes seconds), each kind in a process of its own so that its memory is its own, and prints the table of
//! `docs/bench/faults.md`; `FAULTS_REPORT=FILE` appends the rows there.

mod child;
pub mod station;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use ssds::clock::{Clock, SystemClock};
use ssds::publish::{Link, PublishSettings, RefusedReason, TlsSettings};

use crate::mqtt::broker::Mosquitto;
use crate::mqtt::gate::Gate;
use crate::mqtt::subscriber::Subscriber;
use crate::mqtt::until;
use station::{JumpingClock, Report, Station, settings};

/// Faults of one kind: `short` in CI, `FAULTS` divided by `cost` when that is set.
fn count(short: u64, cost: u64) -> u64 {
    match std::env::var("FAULTS").ok().and_then(|n| n.parse::<u64>().ok()) {
        Some(n) => (n / cost).max(1),
        None => short,
    }
}

struct Rig {
    folder: tempfile::TempDir,
    broker: Mosquitto,
    gate: Gate,
    subscriber: Subscriber,
    rng: Pcg64Mcg,
}

impl Rig {
    /// A broker behind a gate with a subscriber that is there first.
    fn new(seed: u64, station: &str, general: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let persistence = folder.path().join("broker/");
        std::fs::create_dir(&persistence).unwrap();
        let general = general.replace("{persistence}", persistence.to_str().unwrap());
        let broker = Mosquitto::start(folder.path(), station, &general)?;
        let subscriber = Subscriber::start(broker.watch_port, "#");
        until("the subscriber", || subscriber.subscriptions() == 1);
        let gate = Gate::new();
        gate.open(broker.port);
        Some(Self { folder, broker, gate, subscriber, rng: Pcg64Mcg::seed_from_u64(seed) })
    }

    fn settings(&self) -> PublishSettings {
        PublishSettings { port: self.gate.port, ..settings() }
    }

    fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        SystemClock.sleep(Duration::from_millis(self.rng.random_range(milliseconds)));
    }

    /// Starts the broker again; the station gets to it when the subscriber is back, so that what is lost is lost by the station.
    fn revive(&mut self) {
        let before = self.subscriber.subscriptions();
        self.broker.launch();
        until("the subscriber is back", || self.subscriber.subscriptions() > before);
        self.gate.open(self.broker.port);
    }

    /// Kills the broker and starts it again.
    fn kill_broker(&mut self) {
        self.gate.shut();
        self.broker.kill();
        self.revive();
    }
}

fn broker_killed(name: &str, n: u64, seed: u64, general: &str, freeze: Option<Duration>) {
    let Some(mut rig) = Rig::new(seed, "allow_anonymous true", general) else { return };
    let station = Station::start(rig.folder.path(), rig.settings(), Arc::new(SystemClock));
    for _ in 0..n {
        rig.pause(100..900);
        if let Some(time) = freeze {
            rig.broker.freeze(time);
        }
        rig.kill_broker();
    }
    rig.pause(100..300);
    station.finish(&rig.subscriber, Report::new(name, n));
}

#[test]
fn a_broker_killed_without_persistence() {
    broker_killed("broker killed, no persistence", count(4, 1), 11, "persistence false", None);
}

#[test]
fn a_broker_killed_with_persistence() {
    let general = "persistence true\npersistence_location {persistence}\nautosave_interval 1";
    broker_killed("broker killed, with persistence", count(4, 1), 12, general, None);
}

#[test]
fn a_broker_frozen_and_then_killed() {
    broker_killed("broker frozen 2 s, then killed", count(1, 6), 13, "persistence false", Some(Duration::from_secs(2)));
}

#[test]
fn a_connection_cut() {
    let Some(mut rig) = Rig::new(14, "allow_anonymous true", "") else { return };
    let station = Station::start(rig.folder.path(), rig.settings(), Arc::new(SystemClock));
    let n = count(10, 1);
    for _ in 0..n {
        rig.pause(50..500);
        rig.gate.cut();
    }
    station.finish(&rig.subscriber, Report::new("connection cut", n));
}

#[test]
fn a_connection_half_open() {
    let Some(mut rig) = Rig::new(15, "allow_anonymous true", "") else { return };
    let station = Station::start(rig.folder.path(), rig.settings(), Arc::new(SystemClock));
    let n = count(2, 6);
    for _ in 0..n {
        rig.pause(50..500);
        let before = station.status().connections;
        rig.gate.half_open();
        until("the station gives the dead connection up", || station.status().connections > before);
    }
    station.finish(&rig.subscriber, Report::new("connection half-open", n));
}

#[test]
fn a_broker_that_refuses() {
    let secret = tempfile::tempdir().unwrap();
    let password = secret.path().join("password");
    let table = secret.path().join("table");
    let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&table).args(["aoi1", "right"]).status();
    if !made.is_ok_and(|s| s.success()) {
        println!("skipped: mosquitto_passwd is not installed");
        return;
    }
    let Some(mut rig) = Rig::new(16, &format!("allow_anonymous false\npassword_file {}", table.display()), "") else { return };
    std::fs::write(&password, "right\n").unwrap();
    let login = PublishSettings { username: Some("aoi1".into()), password_file: Some(password.clone()), ..rig.settings() };
    let station = Station::start(rig.folder.path(), login, Arc::new(SystemClock));
    let n = count(3, 1);
    for _ in 0..n {
        until("connected", || station.status().link == Link::Online);
        rig.pause(50..200);
        std::fs::write(&password, "wrong\n").unwrap();
        rig.gate.cut();
        until("refused", || {
            matches!(station.status().link, Link::Refused { reason: RefusedReason::BadLogin | RefusedReason::NotAuthorized, .. })
        });
        std::fs::write(&password, "right\n").unwrap();
    }
    station.finish(&rig.subscriber, Report::new("broker refuses the password", n));
}

/// Two authorities and a broker's certificate for 127.0.0.1 by the first of them, made by the openssl program.
fn certificates(folder: &Path) -> bool {
    let script = "
        for ca in ca other; do
            openssl ecparam -name prime256v1 -genkey -noout -out $ca.key
            openssl req -x509 -new -key $ca.key -subj /CN=$ca -days 2 -out $ca.pem
        done
        openssl ecparam -name prime256v1 -genkey -noout -out broker.key
        openssl req -new -key broker.key -subj /CN=broker -out broker.csr
        echo subjectAltName=IP:127.0.0.1 > broker.ext
        openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile broker.ext -out broker.pem";
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: openssl is not installed");
        return false;
    }
    let output = Command::new("sh").args(["-e", "-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

#[test]
fn a_wrong_certificate_authority() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    if !certificates(folder.path()) {
        return;
    }
    let lines =
        format!("allow_anonymous true\ncertfile {}\nkeyfile {}", path("broker.pem").display(), path("broker.key").display());
    let Some(mut rig) = Rig::new(17, &lines, "") else { return };
    let trusted = path("trusted.pem");
    std::fs::copy(path("ca.pem"), &trusted).unwrap();
    let tls = TlsSettings { ca_file: trusted.clone(), ..TlsSettings::default() };
    let secured = PublishSettings { host: "127.0.0.1".into(), tls: Some(tls), ..rig.settings() };
    let station = Station::start(rig.folder.path(), secured, Arc::new(SystemClock));
    let n = count(3, 1);
    for _ in 0..n {
        until("connected", || station.status().link == Link::Online);
        rig.pause(50..200);
        std::fs::copy(path("other.pem"), &trusted).unwrap();
        rig.gate.cut();
        until("refused", || matches!(station.status().link, Link::Refused { reason: RefusedReason::Tls, .. }));
        std::fs::copy(path("ca.pem"), &trusted).unwrap();
    }
    station.finish(&rig.subscriber, Report::new("wrong certificate authority", n));
}

#[test]
fn a_clock_that_jumps_by_days() {
    let Some(mut rig) = Rig::new(18, "allow_anonymous true", "") else { return };
    let clock = Arc::new(JumpingClock::default());
    let station = Station::start(rig.folder.path(), rig.settings(), clock.clone());
    let n = count(10, 1);
    for i in 0..n {
        rig.pause(50..300);
        clock.jump(if rig.rng.random() { 86_400 } else { -86_400 });
        if i % 5 == 4 {
            rig.gate.cut();
        }
    }
    let late = station.finish(&rig.subscriber, Report::new("clock jumps by a day", n));
    assert_eq!(late, 0, "nothing was late by the monotonic clock");
}

#[test]
fn a_daemon_killed() {
    let Some(mut rig) = Rig::new(19, "allow_anonymous true", "") else { return };
    let n = count(6, 1);
    let mut children = child::Children::new(rig.folder.path(), rig.gate.port);
    for _ in 0..n {
        let mut running = children.spawn();
        let before = children.recorded();
        until("the daemon records", || {
            children.check(&mut running);
            children.recorded() > before
        });
        rig.pause(1..400);
        running.kill().unwrap();
        running.wait().unwrap();
    }
    children.finish(&rig.subscriber, Report::new("daemon killed (SIGKILL)", n));
}

#[test]
fn a_disk_that_fills() {
    let Some(mut rig) = Rig::new(20, "allow_anonymous true", "") else { return };
    let n = count(2, 6);
    // Every result of the run stays in the file, to be compared at the end: the disk must be full by the ballast alone.
    let Some(disk) = station::SmallDisk::mount(rig.folder.path(), (12 + 4 * n) << 20) else { return };
    let mut children = child::Children::new(disk.path(), rig.gate.port);
    children.log_to(rig.folder.path());
    let mut running = children.spawn();
    for _ in 0..n {
        rig.gate.shut();
        rig.gate.cut();
        let before = children.recorded();
        until("some are recorded", || children.recorded() > before + 20);
        let fulls = children.full();
        disk.fill();
        until("the disk is full", || {
            children.check(&mut running);
            children.full() > fulls
        });
        rig.pause(50..300);
        // The way is open again while the disk is full: acknowledgements, too, need room.
        rig.gate.open(rig.broker.port);
        rig.pause(50..300);
        disk.free();
        let before = children.recorded();
        until("it records again", || children.recorded() > before + 20);
    }
    running.kill().unwrap();
    running.wait().unwrap();
    children.finish(&rig.subscriber, Report::new("disk full", n));
}
