//! The daemon's record and publish stages in a process of their own, to be killed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ssds::clock::{Clock, SystemClock};
use ssds::publish::PublishSettings;
use ssds::record::event::InspectionEvent;
use ssds::record::store::StoreReader;

use super::station::{Report, event, memory_kib, open, publish, settings};
use crate::mqtt::subscriber::Subscriber;
use crate::mqtt::until;

const STATE: &str = "SSDS_TEST_CHILD_STATE";
const LOG: &str = "SSDS_TEST_CHILD_LOG";
const PORT: &str = "SSDS_TEST_CHILD_PORT";
/// `0`: publishes what is left and ends.
const RECORD: &str = "SSDS_TEST_CHILD_RECORD";

/// The child's program: this test binary calls itself with this test alone. Called without the variables it has nothing to do.
#[test]
fn child_process() {
    let (Ok(state), Ok(log), Ok(port)) = (std::env::var(STATE), std::env::var(LOG), std::env::var(PORT)) else { return };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut store = open(Path::new(&state), Arc::clone(&clock));
    let settings = PublishSettings { port: port.parse().unwrap(), ..settings() };
    let publisher = publish(settings, store.reader().unwrap(), Arc::clone(&clock));
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    writeln!(log, "started").unwrap();
    if std::env::var(RECORD).is_ok_and(|v| v == "0") {
        let reader = store.reader().unwrap();
        until("the outbox is empty", || reader.outbox_events() == 0);
        assert!(publisher.shutdown(Duration::from_secs(10)).stopped_published);
        store.close().unwrap();
        return;
    }
    // Groups of one to six with next to no pause between the commits, so that a kill often falls inside one.
    for n in 0.. {
        let mut batch: Vec<InspectionEvent> = (0..1 + n % 6).map(|i| event(clock.as_ref(), n + i)).collect();
        let mut full = false;
        while let Err(e) = store.record(&mut batch) {
            assert!(e.kind().is_retryable(), "{e:#}");
            if !full {
                writeln!(log, "full {e}").unwrap();
                full = true;
            }
            clock.sleep(Duration::from_millis(20));
        }
        publisher.notify();
        let lines: String = batch.iter().map(|e| format!("recorded {} {}\n", e.seq, e.event_id)).collect();
        log.write_all(lines.as_bytes()).unwrap();
        if n % 32 == 0 {
            writeln!(log, "memory {}", memory_kib()).unwrap();
        }
        clock.sleep(Duration::from_millis(5));
    }
}

/// Processes one after the other on one state folder.
pub struct Children {
    state: PathBuf,
    log: PathBuf,
    port: u16,
    spawned: u64,
}

impl Children {
    pub fn new(state: &Path, port: u16) -> Self {
        Self { state: state.to_owned(), log: state.join("child.log"), port, spawned: 0 }
    }

    /// Puts the log on another disk.
    pub fn log_to(&mut self, folder: &Path) {
        self.log = folder.join("child.log");
    }

    pub fn spawn(&mut self) -> Child {
        self.start("1")
    }

    fn start(&mut self, record: &str) -> Child {
        self.spawned += 1;
        let output = std::fs::OpenOptions::new().create(true).append(true).open(self.log.with_extension("out")).unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::child::child_process", "--nocapture"])
            .env(STATE, &self.state)
            .env(LOG, &self.log)
            .env(PORT, self.port.to_string())
            .env(RECORD, record)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap()
    }

    /// Fails when the process has ended by itself.
    pub fn check(&self, child: &mut Child) {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the child ended: {}", std::fs::read_to_string(self.log.with_extension("out")).unwrap());
    }

    /// Results the processes said they had recorded.
    pub fn recorded(&self) -> usize {
        self.lines("recorded ").len()
    }

    /// Times they found the disk full.
    pub fn full(&self) -> usize {
        self.lines("full ").len()
    }

    /// Largest growth of one process from its first commit on.
    fn growth_kib(&self) -> u64 {
        let (mut first, mut growth) = (None, 0);
        for line in self.lines("") {
            if line == "started" {
                first = None;
            } else if let Some(now) = line.strip_prefix("memory ").and_then(|n| n.parse::<u64>().ok()) {
                growth = growth.max(now.saturating_sub(*first.get_or_insert(now)));
            }
        }
        growth
    }

    fn lines(&self, prefix: &str) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // A line that the kill cut short says nothing.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        whole.lines().filter_map(|l| l.strip_prefix(prefix)).map(str::to_owned).collect()
    }

    /// A last process publishes what is left; then all is compared.
    pub fn finish(mut self, subscriber: &Subscriber, mut report: Report) {
        let mut last = self.start("0");
        until("the last process ends", || last.try_wait().unwrap().is_some());
        let out = std::fs::read_to_string(self.log.with_extension("out")).unwrap();
        assert!(last.wait().unwrap().success(), "{out}");
        // The truth is the spool: it may hold one group more than the log, whose process died between the two.
        let (reader, _) = StoreReader::open_read_only(&self.state.join("ssds.db")).unwrap();
        let mut recorded = Vec::new();
        reader
            .scan(0, &mut |seq, body, sound| {
                assert!(sound);
                recorded.push((seq, InspectionEvent::from_json(body.as_bytes())?.event_id));
                Ok(())
            })
            .unwrap();
        assert!(recorded.iter().map(|(seq, _)| *seq).eq(1..=recorded.len() as u64), "the spool has gaps");
        for line in self.lines("recorded ") {
            let (seq, id) = line.split_once(' ').unwrap();
            assert_eq!(recorded[seq.parse::<usize>().unwrap() - 1].1, id, "a recorded result is not in the spool");
        }
        // Every process made at least one connection; cuts by the test made more. Each may repeat a window.
        report.growth_kib = self.growth_kib();
        report.connections = self.spawned + report.connections + self.full() as u64 * 16;
        report.compare(&recorded, subscriber);
    }
}
