//! A station without camera or network: it records made-up results at a steady rate and publishes them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ssds::clock::{Clock, SystemClock, Timestamp};
use ssds::publish::{Identity, PublishHandle, PublishSettings, PublishStatus, Publisher};
use ssds::record::event::{ClockState, InspectionEvent, Verdict, boot_id, new_event_id};
use ssds::record::store::{Store, StoreReader, StoreSettings};

use crate::mqtt::subscriber::Subscriber;
use crate::mqtt::until;

/// Results a second.
const RATE: u64 = 30;
/// Resident memory may grow by this over a run: buffers find their size, nothing piles up.
const MAX_GROWTH_KIB: u64 = 64 * 1024;

/// A result as the decision stage would hand it over.
pub fn event(clock: &dyn Clock, n: u64) -> InspectionEvent {
    let mut event = InspectionEvent::example();
    event.event_id = new_event_id(clock);
    event.captured_at = clock.now();
    event.verdict = [Verdict::Ok, Verdict::Ng, Verdict::Error][(n % 3) as usize];
    event
}

/// Settings with pauses short enough for tests.
pub fn settings() -> PublishSettings {
    PublishSettings {
        station: "aoi1".into(),
        prefix: "plant".into(),
        publish_timeout: Duration::from_millis(1500),
        connect_timeout: Duration::from_secs(2),
        reconnect_min: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(200),
        ..PublishSettings::default()
    }
}

pub fn open(folder: &Path, clock: Arc<dyn Clock>) -> Store {
    let settings = StoreSettings { station: "aoi1".into(), ..StoreSettings::default() };
    let (store, report) = Store::open(&folder.join("ssds.db"), settings, clock).unwrap();
    assert_eq!(report.damage, None, "{report:?}");
    store
}

pub fn publish(settings: PublishSettings, reader: StoreReader, clock: Arc<dyn Clock>) -> Publisher {
    let identity = Identity {
        boot_id: boot_id().unwrap(),
        version: env!("CARGO_PKG_VERSION").into(),
        clock: ClockState::Unknown,
        model: None,
        template: None,
    };
    Publisher::start(settings, reader, identity, clock).unwrap()
}

/// Store, publisher and a thread that records.
pub struct Station {
    publisher: Publisher,
    recorder: JoinHandle<(Store, Vec<String>)>,
    stop: Arc<AtomicBool>,
    memory_kib: u64,
}

impl Station {
    pub fn start(folder: &Path, settings: PublishSettings, clock: Arc<dyn Clock>) -> Self {
        let mut store = open(folder, Arc::clone(&clock));
        let publisher = publish(settings, store.reader().unwrap(), Arc::clone(&clock));
        let (stop, handle): (_, PublishHandle) = (Arc::new(AtomicBool::new(false)), publisher.handle());
        let ended = Arc::clone(&stop);
        let recorder = std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || {
                let mut ids = Vec::new();
                while !ended.load(Ordering::SeqCst) {
                    let mut batch = [event(clock.as_ref(), ids.len() as u64)];
                    store.record(&mut batch).unwrap();
                    ids.push(batch[0].event_id.clone());
                    handle.notify();
                    SystemClock.sleep(Duration::from_millis(1000 / RATE));
                }
                (store, ids)
            })
            .unwrap();
        Self { publisher, recorder, stop, memory_kib: memory_kib() }
    }

    pub fn status(&self) -> PublishStatus {
        self.publisher.status()
    }

    /// Stops recording, waits for the outbox to empty and compares. Returns how many results were marked late.
    pub fn finish(self, subscriber: &Subscriber, mut report: Report) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let (store, ids) = self.recorder.join().unwrap();
        let reader = store.reader().unwrap();
        until("the outbox is empty", || reader.outbox_events() == 0);
        let status = self.publisher.status();
        let ended = self.publisher.shutdown(Duration::from_secs(10));
        assert!(ended.stopped_published, "{ended:?}");
        let ids: Vec<(u64, String)> = (1..).zip(ids).collect();
        assert_eq!(store.last_seq(), ids.len() as u64, "numbers recorded");
        report.connections = status.connections;
        report.growth_kib = memory_kib().saturating_sub(self.memory_kib);
        report.compare(&ids, subscriber);
        store.close().unwrap();
        subscriber.look(|s| s.replayed)
    }
}

/// What one kind of fault came to.
pub struct Report {
    name: String,
    faults: u64,
    pub connections: u64,
    pub growth_kib: u64,
}

impl Report {
    pub fn new(name: &str, faults: u64) -> Self {
        Self { name: name.to_owned(), faults, connections: 0, growth_kib: 0 }
    }

    /// Compares what was recorded with what came, prints the row and fails on any difference.
    pub fn compare(&self, recorded: &[(u64, String)], subscriber: &Subscriber) {
        let window = u64::from(settings().window);
        // The broker acknowledged all; the last ones may still be on their way to the subscriber.
        until("the subscriber has the last result", || {
            let last = recorded.last().map_or(0, |(seq, _)| *seq);
            subscriber.look(|s| last == 0 || s.results.contains_key(&last))
        });
        subscriber.look(|seen| {
            let lost: Vec<u64> = recorded.iter().filter(|(seq, _)| !seen.results.contains_key(seq)).map(|(s, _)| *s).collect();
            let (n, duplicates) = (recorded.len(), seen.duplicates());
            let bound = (1.0 - 0.05_f64.powf(1.0 / self.faults as f64)) * 100.0;
            let row = format!(
                "| {} | {} | {n} | {} | {duplicates} | {} | ≤ {bound:.2} % | {} KiB |",
                self.name,
                self.faults,
                lost.len(),
                self.connections,
                self.growth_kib
            );
            println!("{row}");
            if let Ok(path) = std::env::var("FAULTS_REPORT") {
                let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
                writeln!(file, "{row}").unwrap();
            }
            assert_eq!(lost, [0_u64; 0], "{}: lost", self.name);
            assert_eq!(seen.wrong, [""; 0], "{}", self.name);
            assert_eq!(seen.results.len(), n, "{}: results nobody recorded", self.name);
            for (seq, id) in recorded {
                assert_eq!(&seen.results[seq].0, id, "{}: number {seq} is another event", self.name);
            }
            assert!(seen.first.is_sorted(), "{}: out of order: {:?}", self.name, seen.first);
            let most = window * self.connections.saturating_sub(1);
            assert!(
                duplicates <= most,
                "{}: {duplicates} repeats, at most {most} for {} connections",
                self.name,
                self.connections
            );
            assert!(self.growth_kib < MAX_GROWTH_KIB, "{}: memory grew by {} KiB", self.name, self.growth_kib);
        });
    }
}

/// Resident memory of this process.
pub fn memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The system's clocks with a wall clock that can be set.
#[derive(Default)]
pub struct JumpingClock {
    offset_seconds: AtomicI64,
}

impl JumpingClock {
    pub fn jump(&self, seconds: i64) {
        self.offset_seconds.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        let offset = self.offset_seconds.load(Ordering::SeqCst);
        Timestamp::from_microsecond(SystemClock.now().as_microsecond() + offset * 1_000_000).unwrap()
    }

    fn mono_ns(&self) -> u64 {
        SystemClock.mono_ns()
    }

    fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration);
    }
}

/// A file system of a few megabytes in memory; needs the right to mount.
pub struct SmallDisk {
    path: PathBuf,
    filled: AtomicU64,
}

impl SmallDisk {
    pub fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let path = folder.join("disk");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&path).output();
        if !mounted.is_ok_and(|o| o.status.success()) {
            println!("skipped: mounting a small tmpfs needs root");
            return None;
        }
        Some(Self { path, filled: AtomicU64::new(0) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.path.join("ballast")).unwrap();
        let block = [0; 4096];
        while file.write_all(&block).is_ok() {
            self.filled.fetch_add(4096, Ordering::SeqCst);
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        std::fs::remove_file(self.path.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
