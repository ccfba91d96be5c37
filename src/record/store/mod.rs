//! The spool: events and their outbox rows in one SQLite file.
//!
//! For: a result that was recorded is published at least once, whatever stops: the broker, the network, this process, the machine's
//! power. Inputs: [`InspectionEvent`]s from the record stage. Outputs: their sequence numbers; rows for the publisher in that order;
//! history for operators.
//!
//! Format (application id "SSDS", `user_version` 1), WAL, page checks by SQLite, bodies by CRC-32:
//! `events(seq, event_id, captured_us, verdict, crc, body)` holds every event as it is published (JSON text, `replayed` false);
//! `outbox(seq, bytes, boot, mono_ns, wall_us)` names those the broker has not acknowledged; `damaged` keeps bodies whose CRC fails;
//! `commands` the request ids already answered; `meta` the station, the last `seq` and the file's age. Beside the file: `-wal`, `-shm`,
//! `-lock` (one process at a time) and `-seq` (numbers reserved in blocks, so that even the loss of the whole file never reuses one).
//!
//! Invariants:
//! - An event row and its outbox row are committed in one transaction with `synchronous=FULL`: when [`Store::record`] returns, both are
//!   on disk; when it fails, neither is, and the numbers are not used up.
//! - `seq` counts 1, 2, 3 ... for the station's life; a batch takes consecutive numbers.
//! - An outbox row goes only by [`StoreReader::acknowledge`] (or when its body no longer decodes; then it is counted). That deletion is
//!   committed without its own sync: a power cut can bring rows back, which are then published again, never lose one.
//! - History is pruned from its old end and only up to the oldest unacknowledged event.
//!
//! Limits: the outbox is meant to stay below [`StoreSettings::max_outbox_bytes`] and [`StoreSettings::max_outbox_events`]; the store itself
//! never refuses an event for that, [`StoreReader::admission`] says when to stop taking triggers, early enough for what is under way.
//! Group commit: the record stage hands over all that waits ([`collect_batch`]), so a batch is bounded by one part when nothing else
//! waits, and by [`StoreSettings::max_batch`] and 50 ms of waiting otherwise.
//!
//! Source: SQLite's WAL documentation (<https://sqlite.org/wal.html>); the outbox pattern.

mod open;
mod reader;
mod reserve;
mod salvage;

pub use reader::{Admission, Backlog, Examination, Fill, OutboxRow, StoreReader, StoredEvent, VerdictCounts};

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::record::event::{self, InspectionEvent};

/// Disk space a row needs beside its body, bytes: keys, index entries and page overhead (a test measures it).
const ROW_OVERHEAD_BYTES: u64 = 320;
/// WAL length from which a checkpoint is asked for, pages.
const CHECKPOINT_PAGES: i64 = 1000;
/// WAL length from which the checkpoint may make writers wait, so that the WAL stays bounded, pages.
const CHECKPOINT_FORCED_PAGES: i64 = 16_000;
/// How long one connection waits for another's short transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the spool keeps and when it warns.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSettings {
    /// The station's name; a file belongs to one station.
    pub station: String,
    /// Unacknowledged events from which no trigger is accepted (default 10 million).
    pub max_outbox_events: u64,
    /// Their size on disk from which no trigger is accepted, bytes (default 2 GiB).
    pub max_outbox_bytes: u64,
    /// Share of either limit from which the alarm `spool_high` stands, 0..1 (default 0.5).
    pub alarm_share: f64,
    /// Acknowledged events kept as history (default 100 000).
    pub history_events: u64,
    /// Most events in one transaction (default 64).
    pub max_batch: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            station: "station".to_owned(),
            max_outbox_events: 10_000_000,
            max_outbox_bytes: 2 << 30,
            alarm_share: 0.5,
            history_events: 100_000,
            max_batch: 64,
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The file was made new.
    pub created: bool,
    /// The last number given, 0 for none.
    pub last_seq: u64,
    /// Unacknowledged events.
    pub outbox_events: u64,
    /// The previous process did not close the file.
    pub unclean: bool,
    /// Damage found and repaired, if any.
    pub damage: Option<Damage>,
    /// Events lost to damage since the file was last closed in order, those of `damage` included.
    pub lost_events: u64,
}

/// What a damaged file still held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// What SQLite or the checksums said, for a person.
    pub finding: String,
    /// Events kept.
    pub kept: u64,
    /// Events known to have existed that do not decode.
    pub lost: u64,
    /// The first of the lost numbers, as inclusive ranges (at most 16 named).
    pub lost_ranges: Vec<(u64, u64)>,
    /// Where the damaged file was put, when it had to be rewritten.
    pub moved_to: Option<PathBuf>,
}

/// Figures shared by the store's handles; plain counters, each true at some moment.
#[derive(Debug, Default)]
struct Shared {
    outbox_events: AtomicU64,
    outbox_bytes: AtomicU64,
    last_seq: AtomicU64,
    damaged: AtomicU64,
    wal_pages: AtomicI64,
    stop: AtomicBool,
    /// Wakes the checkpoint thread.
    wake: OnceLock<Sender<()>>,
}

impl Shared {
    /// Asks for a checkpoint; at once and with writers waiting when the WAL is long or the disk full.
    fn ask_for_checkpoint(&self) {
        if let Some(wake) = self.wake.get() {
            // Full means that it has been asked for already; disconnected, that the store is closed.
            let (Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(()))) = wake.try_send(());
        }
    }

    /// A commit found the disk full: what is in the WAL already can make room by going into the main file, whose free pages wait there.
    fn note_failure(&self, error: &rusqlite::Error) {
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            self.wal_pages.store(CHECKPOINT_FORCED_PAGES, Ordering::SeqCst);
            self.ask_for_checkpoint();
        }
    }
}

/// The writing end, owned by the record stage; one a file.
pub struct Store {
    connection: Connection,
    path: PathBuf,
    settings: StoreSettings,
    shared: Arc<Shared>,
    reserve: reserve::Reserve,
    boot_id: String,
    clock: Arc<dyn Clock>,
    checkpoint: Option<std::thread::JoinHandle<()>>,
    // Held for its lock; released when the store goes.
    _lock: std::fs::File,
}

impl Store {
    /// Opens or makes the spool at `path`, checks it, and repairs what is damaged: what decodes is kept, the rest is counted.
    ///
    /// # Errors
    /// [`Kind::TryAgain`] while another process holds it, [`Kind::Config`] when it belongs to another station or was written by a newer
    /// version, otherwise the system's.
    pub fn open(path: &Path, settings: StoreSettings, clock: Arc<dyn Clock>) -> Result<(Self, OpenReport)> {
        Self::open_with_boot(path, settings, clock, event::boot_id()?)
    }

    /// The same with the machine's boot given.
    fn open_with_boot(
        path: &Path,
        settings: StoreSettings,
        clock: Arc<dyn Clock>,
        boot_id: String,
    ) -> Result<(Self, OpenReport)> {
        let lock = open::lock(path)?;
        let (mut connection, reserve, report) = open::open(path, &settings, clock.as_ref())?;
        let shared = Arc::new(Shared::default());
        shared.last_seq.store(report.last_seq, Ordering::SeqCst);
        shared.damaged.store(report.lost_events, Ordering::SeqCst);
        let (events, bytes) = open::outbox_totals(&connection, path)?;
        shared.outbox_events.store(events, Ordering::SeqCst);
        shared.outbox_bytes.store(bytes, Ordering::SeqCst);
        let checkpoint = start_checkpoints(path, &shared)?;
        watch_wal(&mut connection, path, &shared)?;
        let store = Self {
            connection,
            path: path.to_owned(),
            settings,
            shared,
            reserve,
            boot_id,
            clock,
            checkpoint: Some(checkpoint),
            _lock: lock,
        };
        Ok((store, report))
    }

    /// Commits a batch: gives each event its `seq` and `spooled_at`, brings it within the schema's limits, writes event and outbox rows
    /// in one transaction and syncs. Returns the numbers given.
    ///
    /// # Errors
    /// On any error nothing was recorded and no number used: keep the batch and try again. [`Kind::Io`] or [`Kind::TryAgain`] (disk full,
    /// busy) can pass by themselves.
    pub fn record(&mut self, batch: &mut [InspectionEvent]) -> Result<Range<u64>> {
        let first = self.shared.last_seq.load(Ordering::SeqCst) + 1;
        let next = first + batch.len() as u64;
        if batch.is_empty() {
            return Ok(first..first);
        }
        self.reserve.cover(next - 1)?;
        let (wall, mono_ns) = (self.clock.now(), self.clock.mono_ns());
        let mut bodies = Vec::with_capacity(batch.len());
        for (seq, event) in (first..next).zip(batch.iter_mut()) {
            event.seq = seq;
            event.spooled_at = Some(wall);
            event.replayed = false;
            let changed = event.normalise();
            if !changed.is_empty() {
                log::warn!("event {} (seq {seq}): brought within the schema's limits: {}", event.event_id, changed.join(", "));
            }
            bodies.push(event.to_json()?);
        }
        let written = self.write(batch, &bodies, first, wall.as_microsecond(), mono_ns);
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(e) => {
                self.shared.note_failure(&e);
                for event in batch {
                    event.seq = 0;
                    event.spooled_at = None;
                }
                return Err(storage_error(&self.path, "recording", e));
            }
        };
        self.shared.last_seq.store(next - 1, Ordering::SeqCst);
        self.shared.outbox_events.fetch_add(next - first, Ordering::SeqCst);
        self.shared.outbox_bytes.fetch_add(bytes, Ordering::SeqCst);
        Ok(first..next)
    }

    fn write(
        &mut self,
        batch: &[InspectionEvent],
        bodies: &[Vec<u8>],
        first: u64,
        wall_us: i64,
        mono_ns: u64,
    ) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut total = 0;
        {
            let mut event_row = transaction.prepare_cached(
                "INSERT INTO events(seq, event_id, captured_us, verdict, crc, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            let mut outbox_row = transaction
                .prepare_cached("INSERT INTO outbox(seq, bytes, boot, mono_ns, wall_us) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for (i, (event, body)) in batch.iter().zip(bodies).enumerate() {
                let seq = to_sql(first + i as u64);
                // JSON from serde is UTF-8; as text it is open to SQLite's own JSON functions.
                let text = std::str::from_utf8(body).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                let bytes = body.len() as u64 + ROW_OVERHEAD_BYTES;
                event_row.execute(params![
                    seq,
                    event.event_id,
                    event.captured_at.as_microsecond(),
                    event.verdict.code(),
                    crc32fast::hash(body),
                    text
                ])?;
                outbox_row.execute(params![seq, to_sql(bytes), self.boot_id, to_sql(mono_ns), wall_us])?;
                total += bytes;
            }
            let last = to_sql(first + batch.len() as u64 - 1);
            transaction.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'last_seq'")?.execute(params![last])?;
        }
        transaction.commit()?;
        Ok(total)
    }

    /// Writes one row as durably as an event and reads it back; no event and no number comes of it.
    ///
    /// # Errors
    /// As [`Store::record`]; [`Kind::Data`] when another value is read back.
    pub fn prove_write(&mut self, clock: &dyn Clock) -> Result<()> {
        let written = clock.now().as_microsecond();
        let run = |connection: &Connection| -> rusqlite::Result<i64> {
            connection.prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES ('proved_us', ?1)")?.execute([written])?;
            connection.prepare_cached("SELECT value FROM meta WHERE key = 'proved_us'")?.query_row([], |r| r.get(0))
        };
        let read = run(&self.connection).map_err(|e| {
            self.shared.note_failure(&e);
            storage_error(&self.path, "proving a write", e)
        })?;
        if read == written {
            Ok(())
        } else {
            Err(Error::data(format!("spool {}: wrote {written}, read {read}", self.path.display())))
        }
    }

    /// Another handle on the same file, for another thread: the publisher, the status page.
    ///
    /// # Errors
    /// The system's, when the file cannot be opened once more.
    pub fn reader(&self) -> Result<StoreReader> {
        let mut connection = open::connect(&self.path)?;
        open::configure(&connection, false).map_err(|e| storage_error(&self.path, "opening", e))?;
        watch_wal(&mut connection, &self.path, &self.shared)?;
        Ok(StoreReader::new(connection, self.path.clone(), self.settings.clone(), Arc::clone(&self.shared), self.boot_id.clone()))
    }

    /// The last number given, 0 for none.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.shared.last_seq.load(Ordering::SeqCst)
    }

    /// The machine's boot written into new outbox rows, 32 hex digits.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// The settings it was opened with.
    #[must_use]
    pub const fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// Closes the file and notes that it was closed in order.
    ///
    /// # Errors
    /// The system's; the events are safe all the same.
    pub fn close(mut self) -> Result<()> {
        self.stop_checkpoints();
        self.connection
            .execute_batch("BEGIN; UPDATE meta SET value = 1 WHERE key = 'closed'; DELETE FROM meta WHERE key = 'lost'; COMMIT")
            .map_err(|e| storage_error(&self.path, "closing", e))?;
        let last = self.last_seq();
        self.reserve.settle(last)
    }

    fn stop_checkpoints(&mut self) {
        if let Some(thread) = self.checkpoint.take() {
            // The readers share the sender, so the thread ends by the flag, not by disconnection. A full channel wakes it as well.
            self.shared.stop.store(true, Ordering::SeqCst);
            self.shared.ask_for_checkpoint();
            if thread.join().is_err() {
                log::error!("spool {}: the checkpoint thread panicked", self.path.display());
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop_checkpoints();
    }
}

/// Takes all that waits behind `first`, up to `max` in all: the group that shares one commit. Never waits itself, so a single part is
/// committed at once; while a commit is under way the next group gathers.
pub fn collect_batch<T>(first: T, waiting: &Receiver<T>, max: usize, batch: &mut Vec<T>) {
    batch.push(first);
    while batch.len() < max {
        match waiting.try_recv() {
            Ok(next) => batch.push(next),
            Err(_) => break,
        }
    }
}

/// The thread that moves the WAL into the database file, so that the record stage waits for its own sync only.
fn start_checkpoints(path: &Path, shared: &Arc<Shared>) -> Result<std::thread::JoinHandle<()>> {
    let (sender, wake) = bounded::<()>(1);
    shared.wake.set(sender).map_err(|_| Error::internal("spool: a second checkpoint thread"))?;
    let shared = Arc::clone(shared);
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("spool-ckpt".to_owned())
        .spawn(move || {
            // Its own connection, made when first needed: most short runs never are.
            let mut connection = None;
            for () in &wake {
                if shared.stop.load(Ordering::SeqCst) {
                    break;
                }
                if let Err(e) = checkpoint(&path, &shared, &mut connection) {
                    log::warn!("{e}; the log grows until a checkpoint succeeds");
                }
            }
        })
        .map_err(|e| Error::io("starting thread spool-ckpt", e))
}

fn checkpoint(path: &Path, shared: &Shared, connection: &mut Option<Connection>) -> Result<()> {
    let fault = |e| storage_error(path, "checkpoint", e);
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let new = open::connect(path)?;
            open::configure(&new, false).map_err(fault)?;
            connection.insert(new)
        }
    };
    let forced = shared.wal_pages.load(Ordering::SeqCst) >= CHECKPOINT_FORCED_PAGES;
    let mode = if forced { CheckpointMode::RESTART } else { CheckpointMode::PASSIVE };
    connection.wal_checkpoint_v2(Some("main"), mode).map_err(fault)?;
    Ok(())
}

/// Asks for a checkpoint whenever a commit of `connection` leaves the WAL long.
fn watch_wal(connection: &mut Connection, path: &Path, shared: &Arc<Shared>) -> Result<()> {
    let shared = Arc::clone(shared);
    connection
        .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
            shared.wal_pages.store(i64::from(pages), Ordering::SeqCst);
            if i64::from(pages) >= CHECKPOINT_PAGES {
                shared.ask_for_checkpoint();
            }
            Ok(())
        }))
        .map_err(|e| storage_error(path, "opening", e))
}

/// SQLite's integers are signed; the numbers here (rows, bytes, nanoseconds since boot) stay far below 2^63.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The reverse of [`to_sql`].
fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// SQLite's error as this crate's: full and busy pass by themselves, damage does not.
fn storage_error(path: &Path, doing: &str, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::TryAgain,
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => Kind::Permission,
        Some(ErrorCode::CannotOpen) => Kind::CannotCreate,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Data,
        _ => Kind::Io,
    };
    let message = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => format!("spool {}: {doing}: the disk is full", path.display()),
        _ => format!("spool {}: {doing}: {error}", path.display()),
    };
    Error::new(kind, message).with_source(error)
}

#[cfg(test)]
mod tests;
