//! The pump and the spool against a simple model: random sequences of recording, sending, acknowledging, losing connections, crashing,
//! losing power and reopening. No sockets and no waiting: the test plays broker on the session's own buffers. A crash leaves the files as
//! they are at that instant, a power cut also takes any part of what was written since the last sync.
//!
//! Ten thousand sequences with the other tests; `SEQUENCES=1000000 cargo test --lib publish::pump::` for a long form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crossbeam_channel::bounded;
use proptest::prelude::*;

use super::*;
use crate::clock::SimulatedClock;
use crate::publish::Identity;
use crate::publish::settings::Protocol;
use crate::publish::topics::Topics;
use crate::record::event::tests::sample;
use crate::record::event::{ClockState, InspectionEvent};
use crate::record::store::{Store, StoreSettings};

/// Small, so that it is full often.
const WINDOW: u16 = 5;

#[derive(Debug, Clone)]
enum Step {
    /// The record stage commits this many.
    Record(usize),
    /// The pump writes what it may.
    Fill,
    /// The broker takes this many packets off the wire.
    Take(usize),
    /// The broker acknowledges one of those it took (chosen by the number), and the pump hears it.
    Acknowledge(usize),
    /// The same in MQTT 5's words for "no".
    Refuse(usize),
    /// A tick passes: acknowledged rows are deleted.
    Tick,
    /// The connection breaks; what the pump has read stays read. The next one is a cautious one or not, and the broker may limit what is under
    /// way (MQTT 5's receive maximum).
    Disconnect(bool, Option<u16>),
    /// The process is gone from one instruction to the next, and comes back.
    Crash,
    /// The machine is: of what was written since the last sync, this share (of 255) is on the disk.
    PowerCut(u8),
    /// The process ends in order and comes back.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..5_usize).prop_map(Step::Record),
        4 => Just(Step::Fill),
        4 => (1..6_usize).prop_map(Step::Take),
        6 => (0..8_usize).prop_map(Step::Acknowledge),
        1 => (0..8_usize).prop_map(Step::Refuse),
        2 => Just(Step::Tick),
        2 => (any::<bool>(), prop::option::of(1..8_u16)).prop_map(|(cautious, most)| Step::Disconnect(cautious, most)),
        1 => Just(Step::Crash),
        1 => any::<u8>().prop_map(Step::PowerCut),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..24)
}

/// The process under test.
struct Station {
    path: PathBuf,
    /// Length of the log that the last synced commit has put on the disk.
    synced: u64,
    store: Store,
    pump: Pump,
    session: Session,
}

/// What must hold, in the simplest words.
#[derive(Default)]
struct Model {
    recorded: u64,
    /// Numbers the broker has, with how often.
    delivered: BTreeMap<u64, u32>,
    /// Numbers whose acknowledgement the pump has heard.
    acknowledged: BTreeSet<u64>,
    connections: u32,
    /// Acknowledged numbers that power cuts brought back: their deletion had not been synced.
    brought_back: u32,
    /// The order in which the broker first saw each.
    first_seen: Vec<u64>,
    ids: BTreeMap<u64, String>,
}

fn start(path: &Path) -> Station {
    let clock = Arc::new(SimulatedClock::new("2026-11-23T00:00:00Z".parse().unwrap()));
    let settings = StoreSettings { station: "aoi1".into(), ..StoreSettings::default() };
    let (store, report) = Store::open(path, settings, clock.clone()).unwrap();
    assert_eq!(report.damage, None);
    let settings = PublishSettings { station: "aoi1".into(), window: WINDOW, ..PublishSettings::default() };
    let identity =
        Identity { boot_id: "b".repeat(32), version: "0".into(), clock: ClockState::Unknown, model: None, template: None };
    let desk = Arc::new(Desk::new("aoi1".into(), Topics::new(""), String::new(), clock, identity));
    let pump = Pump::new(settings, desk, store.reader().unwrap(), bounded(1).0);
    Station { path: path.to_owned(), synced: log_length(path), store, pump, session: session(false, None) }
}

fn log(path: &Path) -> PathBuf {
    path.with_file_name("s.db-wal")
}

fn log_length(path: &Path) -> u64 {
    std::fs::metadata(log(path)).map_or(0, |m| m.len())
}

/// What the next process finds: the files as they are now, the log cut to `length`, in a folder of their own.
fn left_behind(station: Station, length: u64) -> PathBuf {
    let folder = station.path.with_file_name("next");
    std::fs::create_dir(&folder).unwrap();
    for name in ["s.db", "s.db-wal", "s.db-seq"] {
        let from = station.path.with_file_name(name);
        if from.exists() {
            std::fs::copy(from, folder.join(name)).unwrap();
        }
    }
    let path = folder.join("s.db");
    std::fs::OpenOptions::new().write(true).open(log(&path)).unwrap().set_len(length).unwrap();
    path
}

fn session(cautious: bool, receive_max: Option<u16>) -> Session {
    Session::new(Codec::new(Protocol::V311, "aoi1".into(), 4096), receive_max, None, cautious)
}

/// The broker's end of one connection.
#[derive(Default)]
struct Peer {
    wire: BytesMut,
    /// Taken and not acknowledged: packet id, number (none for a state).
    taken: Vec<(u16, Option<u64>)>,
}

impl Peer {
    /// Takes packets off the wire; each that is a result is the broker's from now on.
    fn take(&mut self, n: usize, model: &mut Model, codec: &mut Codec) {
        for _ in 0..n {
            let Some(packet) = codec.decode(&mut self.wire).unwrap() else { return };
            let Incoming::Publish { topic, pkid, payload, .. } = packet else { panic!("{packet:?}") };
            let seq = topic.starts_with("ssds/result/").then(|| InspectionEvent::from_json(&payload).unwrap());
            if let Some(event) = &seq {
                assert_eq!(model.ids.get(&event.seq), Some(&event.event_id), "another event under number {}", event.seq);
                let count = model.delivered.entry(event.seq).or_default();
                *count += 1;
                if *count == 1 {
                    model.first_seen.push(event.seq);
                }
            }
            self.taken.push((pkid, seq.map(|e| e.seq)));
        }
    }
}

fn run(path: &Path, steps: Vec<Step>) {
    let mut model = Model { connections: 1, ..Model::default() };
    let mut station = start(path);
    let mut peer = Peer::default();
    let mut codec = Codec::new(Protocol::V311, "broker".into(), 1 << 20);
    for step in steps {
        match step {
            Step::Record(n) => {
                let mut batch: Vec<_> = (0..n as u64)
                    .map(|i| {
                        let event_id = format!("00000000-0000-7000-8000-{:012x}", model.recorded + i);
                        InspectionEvent { event_id, ..sample() }
                    })
                    .collect();
                let given = station.store.record(&mut batch).unwrap();
                assert_eq!(given, model.recorded + 1..model.recorded + 1 + n as u64, "a gap, or a number given twice");
                model.ids.extend(batch.iter().map(|e| (e.seq, e.event_id.clone())));
                model.recorded += n as u64;
                station.session.more_rows = true;
                station.synced = log_length(&station.path);
            }
            Step::Fill => {
                station.pump.fill(&mut station.session).unwrap();
                peer.wire.extend_from_slice(&station.session.out.split());
            }
            Step::Take(n) => peer.take(n, &mut model, &mut codec),
            Step::Acknowledge(i) if !peer.taken.is_empty() => {
                let (pkid, seq) = peer.taken.remove(i % peer.taken.len());
                model.acknowledged.extend(seq);
                station.pump.receive(&mut station.session, Incoming::PubAck { pkid, refused: None }).unwrap();
                station.pump.delete_if_due(&mut station.session, false).unwrap();
            }
            Step::Refuse(i) if !peer.taken.is_empty() => {
                let (pkid, seq) = peer.taken.remove(i % peer.taken.len());
                let refused = Some("quota exceeded".to_owned());
                let end = station.pump.receive(&mut station.session, Incoming::PubAck { pkid, refused });
                assert_eq!(end.is_err(), seq.is_some());
                if end.is_err() {
                    disconnect(&mut station, &mut peer, &mut model);
                }
            }
            Step::Acknowledge(_) | Step::Refuse(_) => {}
            Step::Tick => station.pump.delete_if_due(&mut station.session, true).unwrap(),
            Step::Disconnect(cautious, most) => {
                disconnect(&mut station, &mut peer, &mut model);
                station.session = session(cautious, most);
            }
            Step::Crash => {
                let length = log_length(&station.path);
                station = start(&left_behind(station, length));
                (peer, model.connections) = (Peer::default(), model.connections + 1);
            }
            Step::PowerCut(share) => {
                let unsynced = log_length(&station.path) - station.synced;
                let length = station.synced + unsynced * u64::from(share) / 255;
                let window: BTreeSet<u64> = station.session.acknowledged.iter().copied().collect();
                station = start(&left_behind(station, length));
                let left = left(&mut station);
                let again = left.iter().filter(|seq| model.acknowledged.contains(seq) && !window.contains(seq)).count();
                model.brought_back += u32::try_from(again).unwrap();
                (peer, model.connections) = (Peer::default(), model.connections + 1);
            }
            Step::Restart => {
                station.pump.delete(&mut station.session).unwrap();
                station.store.close().unwrap();
                let path = station.path;
                drop((station.pump, station.session));
                station = start(&path);
                (peer, model.connections) = (Peer::default(), model.connections + 1);
            }
        }
        check(&mut station, &model);
    }
    // In the end a patient broker gets everything.
    disconnect(&mut station, &mut peer, &mut model);
    while station.store.reader().unwrap().outbox_events() > 0 {
        station.session.more_rows = true;
        station.pump.fill(&mut station.session).unwrap();
        peer.wire.extend_from_slice(&station.session.out.split());
        peer.take(usize::MAX, &mut model, &mut codec);
        assert!(
            !peer.taken.is_empty(),
            "the pump stands still with {} rows left",
            station.store.reader().unwrap().outbox_events()
        );
        for (pkid, seq) in peer.taken.drain(..) {
            model.acknowledged.extend(seq);
            station.pump.receive(&mut station.session, Incoming::PubAck { pkid, refused: None }).unwrap();
        }
        station.pump.delete_if_due(&mut station.session, true).unwrap();
    }
    assert!((1..=model.recorded).eq(model.delivered.keys().copied()), "{:?} of {}", model.delivered.keys(), model.recorded);
    assert!(model.first_seen.is_sorted(), "{:?}", model.first_seen);
    let repeats: u32 = model.delivered.values().map(|n| n - 1).sum();
    let most = (model.connections - 1) * u32::from(WINDOW) + model.brought_back;
    assert!(repeats <= most, "{repeats} repeats in {} connections, {} brought back", model.connections, model.brought_back);
}

fn disconnect(station: &mut Station, peer: &mut Peer, model: &mut Model) {
    station.pump.delete(&mut station.session).unwrap();
    station.session = session(false, None);
    *peer = Peer::default();
    model.connections += 1;
}

/// The numbers in the outbox.
fn left(station: &mut Station) -> BTreeSet<u64> {
    let clock = Arc::clone(&station.pump.desk.clock);
    station.pump.reader.outbox_window(0, usize::MAX, clock.as_ref()).unwrap().iter().map(|r| r.seq).collect()
}

fn check(station: &mut Station, model: &Model) {
    let s = &station.session;
    assert!(s.rows <= usize::from(WINDOW) && s.window.len() <= s.receive_max);
    assert!(!s.cautious || s.window.len() <= 1, "{} under way, one at a time was wanted", s.window.len());
    let left = left(station);
    for seq in 1..=model.recorded {
        assert!(left.contains(&seq) || model.acknowledged.contains(&seq), "number {seq} left the outbox unacknowledged");
        assert!(model.delivered.contains_key(&seq) || left.contains(&seq), "number {seq} is nowhere");
    }
    assert_eq!(station.pump.reader.outbox_events(), left.len() as u64);
    assert_eq!(station.store.last_seq(), model.recorded);
}

/// Runs `cases` sequences, each in a folder of its own (in memory where the system has such a folder).
fn sequences(cases: u32, seed: u8) {
    let cases = std::env::var("SEQUENCES").ok().and_then(|n| n.parse::<u32>().ok()).map_or(cases, |n| n / 4);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, rng);
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    runner
        .run(&steps(), |steps| {
            let folder = tempfile::tempdir_in(&base).unwrap();
            run(&folder.path().join("s.db"), steps);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

// Ten thousand sequences, in four parts that run side by side.

#[test]
fn random_sequences_lose_nothing_1() {
    sequences(2500, 1);
}

#[test]
fn random_sequences_lose_nothing_2() {
    sequences(2500, 2);
}

#[test]
fn random_sequences_lose_nothing_3() {
    sequences(2500, 3);
}

#[test]
fn random_sequences_lose_nothing_4() {
    sequences(2500, 4);
}
