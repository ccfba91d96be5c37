//! Rewriting a damaged spool: what decodes is kept, what does not is counted.
//!
//! The rows are read in order; where SQLite stops, the following numbers are tried one by one until reading works again. An event counts
//! as kept when its CRC matches and it decodes. When the outbox itself is damaged, every kept event counts as unacknowledged again: the
//! broker may get it twice, never not at all. The new file is built beside the old one, then both change names; a crash in between is
//! finished by the next opening ([`finish_swap`]).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::open::{beside, configure, connect, create, ranges};
use super::{Damage, ROW_OVERHEAD_BYTES, StoreSettings, from_sql, storage_error, to_sql};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::record::event::InspectionEvent;

/// Most numbers tried one by one behind a fault.
const MAX_PROBES: u64 = 20_000_000;

/// Makes a new file at `path` of what the damaged one still holds. `reserved`: numbers up to this one may have been used.
pub(super) fn rewrite(
    path: &Path,
    settings: &StoreSettings,
    clock: &dyn Clock,
    finding: &str,
    reserved: u64,
) -> Result<(Connection, Damage)> {
    log::error!("spool {}: damaged ({finding}); keeping what decodes", path.display());
    let building = beside(path, "-rewriting");
    remove_with_logs(&building)?;
    let mut new = connect(&building)?;
    let fault = |e| storage_error(&building, "rewriting", e);
    configure(&new, true).map_err(fault)?;
    create(&mut new, settings, 0).map_err(fault)?;

    let old = connect(path)?;
    let (last_known, outbox) = (number(&old, "last_seq"), outbox_numbers(&old));
    let mut damage = Damage { finding: finding.to_owned(), ..Damage::default() };
    let mut seen = number(&old, "first_seq").map(|n| n.saturating_sub(1));
    let mut missing = BTreeSet::new();
    {
        let transaction = new.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
        let boot = crate::record::event::boot_id()?;
        walk(&old, last_known.unwrap_or(reserved), &mut |row| {
            if !InspectionEvent::from_json(row.body.as_bytes()).is_ok_and(|e| e.seq == row.seq && e.station == settings.station) {
                return Ok(());
            }
            transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO events(seq, event_id, captured_us, verdict, crc, body) VALUES (?1,?2,?3,?4,?5,?6)",
                )?
                .execute((to_sql(row.seq), &row.event_id, row.captured_us, row.verdict, row.crc, &row.body))?;
            if outbox.as_ref().is_none_or(|o| o.contains(&row.seq)) {
                transaction
                    .prepare_cached("INSERT INTO outbox(seq, bytes, boot, mono_ns, wall_us) VALUES (?1, ?2, ?3, ?4, ?5)")?
                    .execute((
                        to_sql(row.seq),
                        to_sql(row.body.len() as u64 + ROW_OVERHEAD_BYTES),
                        &boot,
                        to_sql(0),
                        clock.now().as_microsecond(),
                    ))?;
            }
            damage.kept += 1;
            // Without the note where history begins, it begins with the first event that reads.
            let seen = seen.get_or_insert(row.seq - 1);
            missing.extend((*seen + 1..row.seq).take(MAX_NAMED));
            damage.lost += row.seq.saturating_sub(*seen + 1);
            *seen = row.seq;
            Ok(())
        })
        .map_err(fault)?;
        // The last number written beside the rows is believed when it is possible; else the reserved block's end is, above every used one.
        let seen = seen.unwrap_or(0);
        let last = last_known.filter(|&n| n >= seen && (n <= reserved || reserved == 0)).unwrap_or(seen.max(reserved));
        if last_known == Some(last) {
            damage.lost += last.saturating_sub(seen);
            missing.extend((seen + 1..=last).take(MAX_NAMED));
        }
        transaction.execute("UPDATE meta SET value = ?1 WHERE key = 'last_seq'", [to_sql(last)]).map_err(fault)?;
        let kept_from = number(&old, "first_seq").unwrap_or(1).min(last + 1);
        transaction.execute("UPDATE meta SET value = ?1 WHERE key = 'first_seq'", [to_sql(kept_from)]).map_err(fault)?;
        transaction.execute("UPDATE meta SET value = 0 WHERE key = 'closed'", []).map_err(fault)?;
        transaction.commit().map_err(fault)?;
    }
    damage.lost_ranges = ranges(missing.into_iter());
    drop(old);
    // Everything into the main file, so that it can change its name alone.
    new.pragma_update(None, "journal_mode", "DELETE").map_err(fault)?;
    drop(new);
    std::fs::rename(&building, beside(path, "-rewrite")).map_err(|e| Error::io(format!("renaming {}", building.display()), e))?;
    damage.moved_to = finish_swap(path, clock)?;
    let connection = connect(path)?;
    configure(&connection, true).map_err(|e| storage_error(path, "opening", e))?;
    Ok((connection, damage))
}

/// Lost numbers looked at to name ranges.
const MAX_NAMED: usize = 4096;

/// Puts a completed rewrite in the damaged file's place, if there is one. Returns the damaged file's new name.
pub(super) fn finish_swap(path: &Path, clock: &dyn Clock) -> Result<Option<PathBuf>> {
    let rewritten = beside(path, "-rewrite");
    if !rewritten.exists() {
        return Ok(None);
    }
    let aside = beside(path, &format!(".damaged-{}", clock.now().as_second()));
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (beside(path, suffix), beside(&aside, suffix));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("renaming {}", from.display()), e)),
        }
    }
    std::fs::rename(&rewritten, path).map_err(|e| Error::io(format!("renaming {}", rewritten.display()), e))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io(format!("syncing {}", folder.display()), e))?;
    Ok(Some(aside))
}

struct OldRow {
    seq: u64,
    event_id: String,
    captured_us: i64,
    verdict: i64,
    crc: i64,
    body: String,
}

/// Calls `each` with every row whose checksum matches, in order, passing over what SQLite cannot read. `last`: no number is above.
fn walk(old: &Connection, last: u64, each: &mut dyn FnMut(OldRow) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    const FIELDS: &str = "SELECT seq, event_id, captured_us, verdict, crc, CAST(body AS BLOB) FROM events NOT INDEXED WHERE seq";
    let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Option<OldRow>> {
        let (seq, crc, body): (i64, i64, Vec<u8>) = (row.get(0)?, row.get(4)?, row.get(5)?);
        if crc != i64::from(crc32fast::hash(&body)) {
            return Ok(None);
        }
        let Ok(body) = String::from_utf8(body) else { return Ok(None) };
        Ok(Some(OldRow { seq: from_sql(seq), event_id: row.get(1)?, captured_us: row.get(2)?, verdict: row.get(3)?, crc, body }))
    };
    let mut at = 0;
    let mut probes = 0;
    loop {
        // A run of readable rows; then single numbers until one reads again.
        let mut statement = match old.prepare_cached(&format!("{FIELDS} > ?1 ORDER BY seq")) {
            Ok(statement) => statement,
            Err(_) => return Ok(()),
        };
        let mut rows = statement.query([to_sql(at)])?;
        let complete = loop {
            match rows.next() {
                Ok(Some(row)) => {
                    let Ok(seq) = row.get::<_, i64>(0) else { break false };
                    // A number out of order or range comes from a damaged page: nothing behind it can be believed.
                    if from_sql(seq) <= at || from_sql(seq) > last {
                        break false;
                    }
                    at = from_sql(seq);
                    if let Ok(Some(found)) = read(row) {
                        each(found)?;
                    }
                }
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        if complete {
            return Ok(());
        }
        drop(rows);
        let mut single = old.prepare_cached(&format!("{FIELDS} = ?1"))?;
        loop {
            at += 1;
            probes += 1;
            if at > last || probes > MAX_PROBES {
                return Ok(());
            }
            if let Ok(Some(found)) = single.query_row([to_sql(at)], read) {
                each(found)?;
                break;
            }
        }
    }
}

fn number(old: &Connection, key: &str) -> Option<u64> {
    old.query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get::<_, i64>(0)).ok().map(from_sql)
}

/// The unacknowledged numbers, or nothing when the outbox does not read to its end.
fn outbox_numbers(old: &Connection) -> Option<BTreeSet<u64>> {
    let read = || -> rusqlite::Result<BTreeSet<u64>> {
        let problem: Option<String> = old.query_row("PRAGMA quick_check('outbox')", [], |r| r.get(0)).optional()?;
        if problem.as_deref() != Some("ok") {
            return Err(rusqlite::Error::InvalidQuery);
        }
        old.prepare("SELECT seq FROM outbox ORDER BY seq")?.query_map([], |r| r.get::<_, i64>(0).map(from_sql))?.collect()
    };
    read().ok()
}

fn remove_with_logs(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let name = beside(path, suffix);
        match std::fs::remove_file(&name) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("removing {}", name.display()), e)),
        }
    }
    Ok(())
}
