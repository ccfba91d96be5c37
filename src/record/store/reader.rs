//! The reading end: outbox window, acknowledgement, history. One handle a thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior};

use super::open::{APPLICATION_ID, SCHEMA_VERSION, set_aside};
use super::{Shared, StoreSettings, from_sql, storage_error, to_sql};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::record::event::Verdict;

/// Most history rows removed with one acknowledgement, so that it stays short.
const PRUNE_ROWS: u64 = 512;
/// Answered request ids remembered.
const COMMANDS_KEPT: i64 = 10_000;

/// An event the broker has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number.
    pub seq: u64,
    /// Chooses the topic.
    pub verdict: Verdict,
    /// The event as JSON text, `replayed` false.
    pub body: Vec<u8>,
    /// Committed on this machine's boot, at this monotonic time; `None`: before the last restart of the machine.
    pub spooled_mono_ns: Option<u64>,
}

/// An event of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number.
    pub seq: u64,
    /// OK, NG or ERROR.
    pub verdict: Verdict,
    /// The event as JSON text.
    pub body: String,
    /// The broker has it.
    pub acknowledged: bool,
}

/// What waits for the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events.
    pub events: u64,
    /// Their size on disk.
    pub bytes: u64,
    /// Since when the oldest waits.
    pub oldest_age: Duration,
}

/// Whether new parts may be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Open,
    /// Yes, but the outbox is past its alarm level.
    High,
    /// No: the outbox is at its cap.
    Full,
}

/// How much of the outbox's limits is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Unacknowledged events.
    pub events: u64,
    /// From so many on no trigger is accepted.
    pub max_events: u64,
    /// Their size on disk.
    pub bytes: u64,
    /// From so much on no trigger is accepted.
    pub max_bytes: u64,
}

/// What looking through a file found, without changing it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// What SQLite says of the file's structure; none = in order.
    pub finding: Option<String>,
    /// Unacknowledged events whose body does not match its checksum.
    pub unreadable: u64,
    /// Damaged bodies set aside earlier.
    pub set_aside: u64,
}

/// Events stored, by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerdictCounts {
    /// OK.
    pub ok: u64,
    /// NG.
    pub ng: u64,
    /// ERROR.
    pub error: u64,
}

/// A handle on the spool for one thread.
pub struct StoreReader {
    connection: Connection,
    path: PathBuf,
    settings: StoreSettings,
    shared: Arc<Shared>,
    boot_id: String,
}

impl StoreReader {
    pub(super) const fn new(
        connection: Connection,
        path: PathBuf,
        settings: StoreSettings,
        shared: Arc<Shared>,
        boot_id: String,
    ) -> Self {
        Self { connection, path, settings, shared, boot_id }
    }

    /// The unacknowledged events after number `after`, in order, at most `limit`. Rows whose body does not match its checksum are set
    /// aside and counted ([`StoreReader::damaged`]).
    ///
    /// # Errors
    /// The system's.
    pub fn outbox_window(&mut self, after: u64, limit: usize, clock: &dyn Clock) -> Result<Vec<OutboxRow>> {
        let (rows, bad) = self.read_window(after, limit).map_err(|e| self.error("reading the outbox", e))?;
        if !bad.is_empty() {
            let now_us = clock.now().as_microsecond();
            let freed = set_aside(&mut self.connection, &bad, now_us)
                .map_err(|e| storage_error(&self.path, "setting damage aside", e))?;
            log::error!(
                "spool {}: {} events do not match their checksum and were set aside: {bad:?}",
                self.path.display(),
                bad.len()
            );
            self.shared.damaged.fetch_add(bad.len() as u64, Ordering::SeqCst);
            self.shared.outbox_events.fetch_sub(bad.len() as u64, Ordering::SeqCst);
            self.shared.outbox_bytes.fetch_sub(freed, Ordering::SeqCst);
        }
        Ok(rows)
    }

    fn read_window(&self, after: u64, limit: usize) -> rusqlite::Result<(Vec<OutboxRow>, Vec<u64>)> {
        let mut statement = self.connection.prepare_cached(
            "SELECT o.seq, e.verdict, e.crc, CAST(e.body AS BLOB), o.boot = ?3, o.mono_ns
             FROM outbox o LEFT JOIN events e ON e.seq = o.seq WHERE o.seq > ?1 ORDER BY o.seq LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut found = statement.query((to_sql(after), limit, &self.boot_id))?;
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        while let Some(row) = found.next()? {
            let seq = from_sql(row.get(0)?);
            match sound_body(row)? {
                Some((verdict, body)) => {
                    let this_boot: bool = row.get(4)?;
                    let spooled_mono_ns = if this_boot { Some(from_sql(row.get(5)?)) } else { None };
                    rows.push(OutboxRow { seq, verdict, body, spooled_mono_ns });
                }
                None => bad.push(seq),
            }
        }
        Ok((rows, bad))
    }

    /// Deletes the outbox rows of `seqs`: the broker has acknowledged them. Numbers without a row are passed over. Also prunes history.
    /// Returns the rows deleted.
    ///
    /// # Errors
    /// The system's; then no row was deleted.
    pub fn acknowledge(&mut self, seqs: &[u64]) -> Result<u64> {
        let mut seqs = seqs.to_vec();
        seqs.sort_unstable();
        let seqs = &runs(&seqs);
        let (events, bytes) = self.delete(seqs).map_err(|e| {
            self.shared.note_failure(&e);
            self.error("acknowledging", e)
        })?;
        self.shared.outbox_events.fetch_sub(events, Ordering::SeqCst);
        self.shared.outbox_bytes.fetch_sub(bytes, Ordering::SeqCst);
        Ok(events)
    }

    fn delete(&mut self, runs: &[(u64, u64)]) -> rusqlite::Result<(u64, u64)> {
        let last = self.shared.last_seq.load(Ordering::SeqCst);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut events, mut bytes) = (0, 0);
        {
            let mut rows = transaction.prepare_cached("DELETE FROM outbox WHERE seq BETWEEN ?1 AND ?2 RETURNING bytes")?;
            for &(first, last) in runs {
                let mut deleted = rows.query((to_sql(first), to_sql(last)))?;
                while let Some(row) = deleted.next()? {
                    bytes += from_sql(row.get(0)?);
                    events += 1;
                }
            }
            let oldest: Option<i64> = transaction.prepare_cached("SELECT min(seq) FROM outbox")?.query_row([], |r| r.get(0))?;
            let bound = last.saturating_sub(self.settings.history_events) + 1;
            let bound = oldest.map_or(bound, |o| bound.min(from_sql(o)));
            let pruned = transaction
                .prepare_cached("DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE seq < ?1 ORDER BY seq LIMIT ?2)")?
                .execute((to_sql(bound), to_sql(PRUNE_ROWS)))?;
            if pruned > 0 {
                transaction
                    .prepare_cached(
                        "UPDATE meta SET value = ifnull((SELECT min(seq) FROM events), ?1 + 1) WHERE key = 'first_seq'",
                    )?
                    .execute([to_sql(last)])?;
            }
        }
        transaction.commit()?;
        Ok((events, bytes))
    }

    /// What waits for the broker. The age counts on the monotonic clock within this boot, else on the wall clock, never below zero.
    ///
    /// # Errors
    /// The system's.
    pub fn backlog(&self, clock: &dyn Clock) -> Result<Backlog> {
        let oldest = self
            .connection
            .prepare_cached("SELECT boot = ?1, mono_ns, wall_us FROM outbox ORDER BY seq LIMIT 1")
            .and_then(|mut s| {
                s.query_row([&self.boot_id], |r| Ok((r.get::<_, bool>(0)?, r.get::<_, i64>(1)?, r.get::<_, i64>(2)?))).optional()
            })
            .map_err(|e| self.error("reading the outbox", e))?;
        let oldest_age = match oldest {
            None => Duration::ZERO,
            Some((true, mono_ns, _)) => Duration::from_nanos(clock.mono_ns().saturating_sub(from_sql(mono_ns))),
            Some((false, _, wall_us)) => Duration::from_micros(from_sql(clock.now().as_microsecond().saturating_sub(wall_us))),
        };
        Ok(Backlog { events: self.outbox_events(), bytes: self.shared.outbox_bytes.load(Ordering::SeqCst), oldest_age })
    }

    /// Unacknowledged events, without asking the disk.
    #[must_use]
    pub fn outbox_events(&self) -> u64 {
        self.shared.outbox_events.load(Ordering::SeqCst)
    }

    /// Whether new parts may be inspected, without asking the disk. At [`Admission::Full`] the pipeline takes no trigger and shows the
    /// state ERROR; what is under way is still recorded.
    #[must_use]
    pub fn admission(&self) -> Admission {
        let s = &self.settings;
        let (events, bytes) = (self.outbox_events(), self.shared.outbox_bytes.load(Ordering::SeqCst));
        if events >= s.max_outbox_events || bytes >= s.max_outbox_bytes {
            return Admission::Full;
        }
        let past = |value: u64, limit: u64| value as f64 >= limit as f64 * s.alarm_share;
        if past(events, s.max_outbox_events) || past(bytes, s.max_outbox_bytes) { Admission::High } else { Admission::Open }
    }

    /// How full the outbox is, without asking the disk.
    #[must_use]
    pub fn fill(&self) -> Fill {
        Fill {
            events: self.outbox_events(),
            max_events: self.settings.max_outbox_events,
            bytes: self.shared.outbox_bytes.load(Ordering::SeqCst),
            max_bytes: self.settings.max_outbox_bytes,
        }
    }

    /// Free room for ordinary users on the file's disk, bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn free_bytes(&self) -> Result<u64> {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let disk = rustix::fs::statvfs(folder).map_err(|e| Error::io(format!("disk of {}", folder.display()), e.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Events lost to damage since this file was opened (alarm `spool_damaged`).
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::SeqCst)
    }

    /// The last number given.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.shared.last_seq.load(Ordering::SeqCst)
    }

    /// The first number still kept.
    ///
    /// # Errors
    /// The system's.
    pub fn first_seq(&self) -> Result<u64> {
        self.connection
            .query_row("SELECT value FROM meta WHERE key = 'first_seq'", [], |r| r.get::<_, i64>(0))
            .map(from_sql)
            .map_err(|e| self.error("reading history", e))
    }

    /// Remembers an answered request id; false when it is known already. The newest 10 000 are kept, across restarts.
    ///
    /// # Errors
    /// The system's.
    pub fn remember_command(&mut self, request_id: &str, clock: &dyn Clock) -> Result<bool> {
        let now_us = clock.now().as_microsecond();
        let run = |connection: &mut Connection| -> rusqlite::Result<bool> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let new = transaction
                .execute("INSERT OR IGNORE INTO commands(request_id, at_us) VALUES (?1, ?2)", (request_id, now_us))?
                == 1;
            transaction.execute(
                "DELETE FROM commands WHERE request_id IN (SELECT request_id FROM commands ORDER BY at_us DESC LIMIT -1 OFFSET ?1)",
                [COMMANDS_KEPT],
            )?;
            transaction.commit()?;
            Ok(new)
        };
        run(&mut self.connection).map_err(|e| storage_error(&self.path, "noting a command", e))
    }

    /// The newest events first: of one verdict or all, with numbers below `before`, at most `limit`.
    ///
    /// # Errors
    /// The system's.
    pub fn history(&self, verdict: Option<Verdict>, before: Option<u64>, limit: usize) -> Result<Vec<StoredEvent>> {
        let before = before.map_or(i64::MAX, to_sql);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        const FIELDS: &str = "SELECT e.seq, e.verdict, e.body, o.seq IS NULL FROM events e LEFT JOIN outbox o ON o.seq = e.seq";
        let run = || -> rusqlite::Result<Vec<StoredEvent>> {
            match verdict {
                Some(v) => self
                    .connection
                    .prepare_cached(&format!("{FIELDS} WHERE e.verdict = ?1 AND e.seq < ?2 ORDER BY e.seq DESC LIMIT ?3"))?
                    .query_map((v.code(), before, limit), stored)?
                    .collect(),
                None => self
                    .connection
                    .prepare_cached(&format!("{FIELDS} WHERE e.seq < ?1 ORDER BY e.seq DESC LIMIT ?2"))?
                    .query_map((before, limit), stored)?
                    .collect(),
            }
        };
        run().map_err(|e| self.error("reading history", e))
    }

    /// The event with this id, if it is still kept.
    ///
    /// # Errors
    /// The system's.
    pub fn event(&self, event_id: &str) -> Result<Option<StoredEvent>> {
        self.connection
            .prepare_cached(
                "SELECT e.seq, e.verdict, e.body, o.seq IS NULL FROM events e LEFT JOIN outbox o ON o.seq = e.seq WHERE e.event_id = ?1",
            )
            .and_then(|mut s| s.query_row([event_id], stored).optional())
            .map_err(|e| self.error("reading history", e))
    }

    /// Events kept, by verdict.
    ///
    /// # Errors
    /// The system's.
    pub fn counts(&self) -> Result<VerdictCounts> {
        let count = |verdict: Verdict| -> rusqlite::Result<u64> {
            self.connection
                .prepare_cached("SELECT count(*) FROM events WHERE verdict = ?1")?
                .query_row([verdict.code()], |r| r.get::<_, i64>(0))
                .map(from_sql)
        };
        let run = || -> rusqlite::Result<VerdictCounts> {
            Ok(VerdictCounts { ok: count(Verdict::Ok)?, ng: count(Verdict::Ng)?, error: count(Verdict::Error)? })
        };
        run().map_err(|e| self.error("counting", e))
    }

    /// Looks for damage as an opening for writing would, and changes nothing; also while a daemon writes.
    ///
    /// # Errors
    /// The system's; damage is no error.
    pub fn examine(&self) -> Result<Examination> {
        let run = || -> rusqlite::Result<Examination> {
            let finding: String = self.connection.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
            let set_aside = self.connection.query_row("SELECT count(*) FROM damaged", [], |r| r.get::<_, i64>(0))?;
            let mut unreadable = 0;
            let mut statement = self.connection.prepare(
                "SELECT o.seq, e.verdict, e.crc, CAST(e.body AS BLOB) FROM outbox o LEFT JOIN events e ON e.seq = o.seq",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                unreadable += u64::from(sound_body(row)?.is_none());
            }
            let finding = (finding != "ok").then_some(finding);
            Ok(Examination { finding, unreadable, set_aside: from_sql(set_aside) })
        };
        match run() {
            Ok(found) => Ok(found),
            Err(e) if super::open::is_damage(&e) => Ok(Examination { finding: Some(e.to_string()), ..Examination::default() }),
            Err(e) => Err(self.error("examining", e)),
        }
    }

    /// Calls `each` with every stored number and body in order, from `after` on, as text whatever its checksum; for `ssds audit`.
    ///
    /// # Errors
    /// The system's, or the first error of `each`.
    pub fn scan(&self, after: u64, each: &mut dyn FnMut(u64, &str, bool) -> Result<()>) -> Result<()> {
        let mut statement = self
            .connection
            .prepare("SELECT seq, crc, CAST(body AS BLOB) FROM events WHERE seq > ?1 ORDER BY seq")
            .map_err(|e| self.error("reading history", e))?;
        let mut rows = statement.query([to_sql(after)]).map_err(|e| self.error("reading history", e))?;
        while let Some(row) = rows.next().map_err(|e| self.error("reading history", e))? {
            let read = || -> rusqlite::Result<(u64, i64, Vec<u8>)> { Ok((from_sql(row.get(0)?), row.get(1)?, row.get(2)?)) };
            let (seq, crc, body) = read().map_err(|e| self.error("reading history", e))?;
            let sound = crc == i64::from(crc32fast::hash(&body));
            each(seq, &String::from_utf8_lossy(&body), sound)?;
        }
        Ok(())
    }

    /// Opens a spool for reading only, also while a daemon writes it; for `ssds audit` and `ssds check`. Returns the station's name too.
    ///
    /// # Errors
    /// [`Kind::Missing`] without the file, [`Kind::Data`] when it is no spool, otherwise the system's.
    pub fn open_read_only(path: &Path) -> Result<(Self, String)> {
        if !path.exists() {
            return Err(Error::new(Kind::Missing, format!("spool {} does not exist", path.display())));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|e| storage_error(path, "opening", e))?;
        let look = || -> rusqlite::Result<(i32, i32)> {
            connection.busy_timeout(super::BUSY_TIMEOUT)?;
            let id = connection.pragma_query_value(None, "application_id", |r| r.get(0))?;
            Ok((id, connection.pragma_query_value(None, "user_version", |r| r.get(0))?))
        };
        match look().map_err(|e| storage_error(path, "opening", e))? {
            (APPLICATION_ID, SCHEMA_VERSION) => {}
            (id, version) => {
                return Err(Error::data(format!(
                    "{} is not a spool of this version (application id {id:#x}, version {version})",
                    path.display()
                )));
            }
        }
        let (station, last): (String, i64) = connection
            .query_row(
                "SELECT (SELECT value FROM meta WHERE key = 'station'), (SELECT value FROM meta WHERE key = 'last_seq')",
                [],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .map_err(|e| storage_error(path, "opening", e))?;
        let (events, bytes) = super::open::outbox_totals(&connection, path)?;
        let shared = Shared::default();
        shared.last_seq.store(from_sql(last), Ordering::SeqCst);
        shared.outbox_events.store(events, Ordering::SeqCst);
        shared.outbox_bytes.store(bytes, Ordering::SeqCst);
        let settings = StoreSettings { station: station.clone(), ..StoreSettings::default() };
        Ok((Self::new(connection, path.to_owned(), settings, Arc::new(shared), crate::record::event::boot_id()?), station))
    }

    fn error(&self, doing: &str, error: rusqlite::Error) -> Error {
        storage_error(&self.path, doing, error)
    }
}

/// Ascending numbers as inclusive runs of consecutive ones.
fn runs(seqs: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &seq in seqs {
        match runs.last_mut() {
            Some((_, last)) if seq <= *last + 1 => *last = seq,
            _ => runs.push((seq, seq)),
        }
    }
    runs
}

/// Verdict and body of a row whose checksum matches (columns 1 to 3), else nothing.
fn sound_body(row: &Row<'_>) -> rusqlite::Result<Option<(Verdict, Vec<u8>)>> {
    let (verdict, crc, body) = (row.get_ref(1)?, row.get_ref(2)?, row.get_ref(3)?);
    let (Ok(verdict), Ok(crc), Ok(body)) = (verdict.as_i64(), crc.as_i64(), body.as_blob()) else { return Ok(None) };
    let verdict = u8::try_from(verdict).ok().and_then(Verdict::from_code);
    Ok(verdict.filter(|_| crc == i64::from(crc32fast::hash(body))).map(|v| (v, body.to_vec())))
}

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let code: u8 = row.get(1)?;
    let verdict = Verdict::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(1, i64::from(code)))?;
    Ok(StoredEvent { seq: from_sql(row.get(0)?), verdict, body: row.get(2)?, acknowledged: row.get(3)? })
}
