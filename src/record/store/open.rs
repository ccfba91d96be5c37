//! Opening the spool: lock, schema, check.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use super::reserve::Reserve;
use super::salvage;
use super::{BUSY_TIMEOUT, Damage, OpenReport, StoreSettings, from_sql, storage_error, to_sql};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};

/// "SSDS" in the file's header, so that `file` and we know it.
pub(super) const APPLICATION_ID: i32 = 0x5353_4453;
/// Version of the tables below.
pub(super) const SCHEMA_VERSION: i32 = 1;

const TABLES: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE events(
  seq INTEGER PRIMARY KEY,
  event_id TEXT NOT NULL UNIQUE,
  captured_us INTEGER NOT NULL,
  verdict INTEGER NOT NULL,
  crc INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX events_verdict ON events(verdict, seq);
CREATE TABLE outbox(
  seq INTEGER PRIMARY KEY,
  bytes INTEGER NOT NULL,
  boot TEXT NOT NULL,
  mono_ns INTEGER NOT NULL,
  wall_us INTEGER NOT NULL
);
CREATE TABLE damaged(seq INTEGER PRIMARY KEY, body BLOB, found_us INTEGER NOT NULL);
CREATE TABLE commands(request_id TEXT PRIMARY KEY, at_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX commands_at ON commands(at_us);
";

/// `path` with `suffix` appended to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// One process at a time: an advisory lock that the kernel drops with the process.
pub(super) fn lock(path: &Path) -> Result<File> {
    let lock_path = beside(path, "-lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::PermissionDenied { Kind::Permission } else { Kind::CannotCreate };
        Error::io(format!("spool lock {}", lock_path.display()), e).with_kind(kind)
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::new(Kind::TryAgain, format!("spool {} is in use by another process", path.display())))
        }
        Err(TryLockError::Error(e)) => Err(Error::io(format!("locking {}", lock_path.display()), e)),
    }
}

/// A connection without settings.
pub(super) fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|e| storage_error(path, "opening", e))
}

/// The settings every connection needs. `durable`: each commit is synced before it returns; else at the next checkpoint, and a power
/// cut undoes the last commits (never a process's end).
pub(super) fn configure(connection: &Connection, durable: bool) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Else SQLite plans a prepared statement anew for every new value of a number it is compared with, which costs more than running it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Opens, checks and repairs; the caller holds the lock.
pub(super) fn open(path: &Path, settings: &StoreSettings, clock: &dyn Clock) -> Result<(Connection, Reserve, OpenReport)> {
    let mut reserve = Reserve::load(&beside(path, "-seq"))?;
    salvage::finish_swap(path, clock)?;
    let (mut created, mut damage) = (false, None);
    let mut connection = match check(path)? {
        Found::Sound(connection) => connection,
        Found::Empty(mut connection) => {
            created = true;
            create(&mut connection, settings, reserve.limit()).map_err(|e| storage_error(path, "creating", e))?;
            if reserve.limit() > 0 {
                let finding =
                    format!("the file was missing; counting goes on above {}, the last number reserved", reserve.limit());
                damage = Some(Damage { finding, ..Damage::default() });
            }
            connection
        }
        Found::Damaged(finding) => {
            let (connection, found) = salvage::rewrite(path, settings, clock, &finding, reserve.limit())?;
            damage = Some(found);
            connection
        }
    };
    let station: String = meta(&connection, path, "station")?;
    if station != settings.station {
        return Err(Error::config(format!(
            "spool {} belongs to station `{station}`, but station.name is `{}`: set the name back or move the spool away",
            path.display(),
            settings.station
        )));
    }
    if let Some(damage) = &damage {
        note_lost(&connection, damage.lost).map_err(|e| storage_error(path, "checking", e))?;
    } else {
        damage = quarantine_all(&mut connection, clock).map_err(|e| storage_error(path, "checking", e))?;
    }
    let unclean = !created && meta::<i64>(&connection, path, "closed")? == 0;
    // All are written in one transaction, so they agree unless somebody edited the file; the highest one is never reused.
    let last_seq: i64 = connection
        .query_row(
            "SELECT max((SELECT value FROM meta WHERE key = 'last_seq'), ifnull((SELECT max(seq) FROM events), 0),
                        ifnull((SELECT max(seq) FROM outbox), 0))",
            [],
            |r| r.get(0),
        )
        .map_err(|e| storage_error(path, "opening", e))?;
    connection.execute_batch("UPDATE meta SET value = 0 WHERE key = 'closed'").map_err(|e| storage_error(path, "opening", e))?;
    let last_seq = from_sql(last_seq);
    reserve.start(last_seq);
    let (outbox_events, _) = outbox_totals(&connection, path)?;
    let lost_events = connection
        .query_row("SELECT ifnull((SELECT value FROM meta WHERE key = 'lost'), 0)", [], |r| r.get::<_, i64>(0))
        .map(from_sql)
        .map_err(|e| storage_error(path, "opening", e))?;
    Ok((connection, reserve, OpenReport { created, last_seq, outbox_events, unclean, damage, lost_events }))
}

enum Found {
    /// Passed the check.
    Sound(Connection),
    /// No file, or one without any table (a crash before the first transaction): nothing in it to lose.
    Empty(Connection),
    /// What SQLite said.
    Damaged(String),
}

fn check(path: &Path) -> Result<Found> {
    let connection = connect(path)?;
    let looked = (|| -> rusqlite::Result<(i32, i32, i64, String)> {
        configure(&connection, true)?;
        let id = connection.pragma_query_value(None, "application_id", |r| r.get(0))?;
        let version = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
        let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
        let finding = connection.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
        Ok((id, version, tables, finding))
    })();
    match looked {
        Ok((0, 0, 0, _)) => Ok(Found::Empty(connection)),
        Ok((APPLICATION_ID, version, ..)) if version > SCHEMA_VERSION => Err(Error::config(format!(
            "spool {} has version {version}, written by a newer ssds; this one knows version {SCHEMA_VERSION}",
            path.display()
        ))),
        Ok((APPLICATION_ID, SCHEMA_VERSION, _, finding)) if finding == "ok" => Ok(Found::Sound(connection)),
        Ok((APPLICATION_ID, SCHEMA_VERSION, _, finding)) => Ok(Found::Damaged(finding)),
        Ok((id, version, ..)) => Err(Error::config(format!(
            "{} is an SQLite file of another program (application id {id:#x}, version {version}), not a spool",
            path.display()
        ))),
        Err(e) if is_damage(&e) => Ok(Found::Damaged(e.to_string())),
        Err(e) => Err(storage_error(path, "checking", e)),
    }
}

/// SQLite found the file's content wrong, as opposed to not being able to read it.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Makes the tables in one transaction, so that a crash leaves all or nothing. `used` numbers are taken already.
pub(super) fn create(connection: &mut Connection, settings: &StoreSettings, used: u64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    {
        let mut row = transaction.prepare("INSERT INTO meta(key, value) VALUES (?1, ?2)")?;
        row.execute(("station", &settings.station))?;
        row.execute(("last_seq", to_sql(used)))?;
        row.execute(("first_seq", to_sql(used + 1)))?;
        row.execute(("closed", 1))?;
    }
    transaction.commit()
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, path: &Path, key: &str) -> Result<T> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get(0))
        .map_err(|e| storage_error(path, &format!("reading meta.{key}"), e))
}

/// Unacknowledged events and their bytes.
pub(super) fn outbox_totals(connection: &Connection, path: &Path) -> Result<(u64, u64)> {
    connection
        .query_row("SELECT count(*), ifnull(sum(bytes), 0) FROM outbox", [], |r| {
            Ok((from_sql(r.get::<_, i64>(0)?), from_sql(r.get::<_, i64>(1)?)))
        })
        .map_err(|e| storage_error(path, "opening", e))
}

/// Looks through the unacknowledged bodies and sets aside those that do not decode.
fn quarantine_all(connection: &mut Connection, clock: &dyn Clock) -> rusqlite::Result<Option<Damage>> {
    let mut bad = Vec::new();
    let mut kept = 0;
    {
        let mut rows = connection.prepare(
            "SELECT o.seq, e.crc, CAST(e.body AS BLOB) FROM outbox o LEFT JOIN events e ON e.seq = o.seq ORDER BY o.seq",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let sound = match (row.get_ref(1)?.as_i64(), row.get_ref(2)?.as_blob()) {
                (Ok(crc), Ok(body)) => crc == i64::from(crc32fast::hash(body)),
                _ => false,
            };
            if sound {
                kept += 1;
            } else {
                bad.push(from_sql(row.get(0)?));
            }
        }
    }
    if bad.is_empty() {
        return Ok(None);
    }
    set_aside(connection, &bad, clock.now().as_microsecond())?;
    let lost_ranges = ranges(bad.iter().copied());
    let finding = "the checksum of unacknowledged events does not match".to_owned();
    Ok(Some(Damage { finding, kept, lost: bad.len() as u64, lost_ranges, moved_to: None }))
}

/// Adds to the count of lost events, which stands until the file is closed in order: a crash must not silence the alarm.
fn note_lost(connection: &Connection, lost: u64) -> rusqlite::Result<()> {
    const ADD: &str =
        "INSERT OR REPLACE INTO meta(key, value) VALUES ('lost', ifnull((SELECT value FROM meta WHERE key = 'lost'), 0) + ?1)";
    connection.execute(ADD, [to_sql(lost)]).map(drop)
}

/// Moves rows that do not decode out of the outbox, in one transaction. Returns the outbox bytes freed.
pub(super) fn set_aside(connection: &mut Connection, bad: &[u64], now_us: i64) -> rusqlite::Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut freed = 0;
    for &seq in bad {
        let seq = to_sql(seq);
        transaction.execute(
            "INSERT OR REPLACE INTO damaged(seq, body, found_us) VALUES (?1, (SELECT body FROM events WHERE seq = ?1), ?2)",
            (seq, now_us),
        )?;
        transaction.execute("DELETE FROM events WHERE seq = ?1", [seq])?;
        let bytes: Option<i64> =
            transaction.query_row("DELETE FROM outbox WHERE seq = ?1 RETURNING bytes", [seq], |r| r.get(0)).optional()?;
        freed += from_sql(bytes.unwrap_or(0));
    }
    note_lost(&transaction, bad.len() as u64)?;
    transaction.commit()?;
    Ok(freed)
}

/// Ascending numbers as inclusive ranges, the first 16 of them.
pub(super) fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for n in numbers {
        let full = ranges.len() == 16;
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ if full => break,
            _ => ranges.push((n, n)),
        }
    }
    ranges
}
