use super::*;
use crate::clock::{SimulatedClock, SystemClock, Timestamp};
use crate::record::event::Verdict;
use crate::record::event::tests::sample;

const BOOT: &str = "00000000000000000000000000000001";

fn clock() -> Arc<SimulatedClock> {
    Arc::new(SimulatedClock::new("2026-11-23T02:48:46Z".parse().unwrap()))
}

fn settings() -> StoreSettings {
    StoreSettings { station: "aoi1".into(), ..StoreSettings::default() }
}

fn open(path: &Path) -> (Store, OpenReport) {
    Store::open_with_boot(path, settings(), clock(), BOOT.into()).unwrap()
}

fn event(id: u64, verdict: Verdict) -> InspectionEvent {
    InspectionEvent { event_id: format!("00000000-0000-7000-8000-{id:012x}"), verdict, ..sample() }
}

fn record(store: &mut Store, ids: Range<u64>) -> Range<u64> {
    let mut batch: Vec<_> = ids.map(|i| event(i, Verdict::Ok)).collect();
    store.record(&mut batch).unwrap()
}

fn window(reader: &mut StoreReader) -> Vec<u64> {
    reader.outbox_window(0, 1000, clock().as_ref()).unwrap().iter().map(|r| r.seq).collect()
}

#[test]
fn numbers_run_on_over_reopening_and_rows_go_by_acknowledgement_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ssds.db");
    let (mut store, report) = open(&path);
    assert_eq!(report, OpenReport { created: true, ..OpenReport::default() });
    assert_eq!(record(&mut store, 0..3), 1..4);
    assert_eq!(store.record(&mut []).unwrap(), 4..4);
    let mut reader = store.reader().unwrap();
    assert_eq!(window(&mut reader), [1, 2, 3]);
    assert_eq!(reader.acknowledge(&[2, 2, 77]).unwrap(), 1);
    assert_eq!(window(&mut reader), [1, 3]);
    assert_eq!(reader.outbox_events(), 2);
    drop(reader);
    drop(store); // a crash as SQLite sees it: nothing noted

    let (mut store, report) = open(&path);
    assert_eq!((report.last_seq, report.outbox_events, report.unclean, report.damage.clone()), (3, 2, true, None));
    assert_eq!(record(&mut store, 3..5), 4..6);
    store.close().unwrap();
    let (store, report) = open(&path);
    assert_eq!((report.last_seq, report.outbox_events, report.unclean), (5, 4, false));
    assert_eq!(window(&mut store.reader().unwrap()), [1, 3, 4, 5]);
}

#[test]
fn a_row_carries_the_event_as_it_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(&folder.path().join("s.db"));
    let mut batch = [event(7, Verdict::Ng)];
    store.record(&mut batch).unwrap();
    let row = store.reader().unwrap().outbox_window(0, 1, clock().as_ref()).unwrap().remove(0);
    assert_eq!((row.seq, row.verdict, row.spooled_mono_ns), (1, Verdict::Ng, Some(0)));
    let read = InspectionEvent::from_json(&row.body).unwrap();
    assert_eq!(read, batch[0]);
    assert_eq!((read.seq, read.spooled_at), (1, Some("2026-11-23T02:48:46Z".parse().unwrap())));
}

#[test]
fn a_failed_commit_records_nothing_and_uses_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(&folder.path().join("s.db"));
    record(&mut store, 0..1);
    // A full disk as SQLite sees it: no page may be added.
    let pages: i64 = store.connection.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    let mut batch: Vec<_> = (1..40).map(|i| event(i, Verdict::Ok)).collect();
    let error = store.record(&mut batch).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.to_string().ends_with("recording: the disk is full"), "{error}");
    assert!(batch.iter().all(|e| e.seq == 0 && e.spooled_at.is_none()));
    assert_eq!((store.last_seq(), store.reader().unwrap().outbox_events()), (1, 1));
    store.connection.pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(())).unwrap();
    assert_eq!(store.record(&mut batch).unwrap(), 2..41);
}

#[test]
fn one_process_at_a_time_and_one_station_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (store, _) = open(&path);
    let error = Store::open(&path, settings(), clock()).err().unwrap();
    assert_eq!(
        (error.kind(), error.to_string()),
        (Kind::TryAgain, format!("spool {} is in use by another process", path.display()))
    );
    drop(store);
    let other = StoreSettings { station: "aoi2".into(), ..settings() };
    let error = Store::open(&path, other, clock()).err().unwrap();
    assert_eq!(error.kind(), Kind::Config);
    assert!(
        error
            .to_string()
            .ends_with("belongs to station `aoi1`, but station.name is `aoi2`: set the name back or move the spool away"),
        "{error}"
    );
}

#[test]
fn foreign_and_newer_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE t(x); PRAGMA user_version = 3;").unwrap();
    drop(other);
    let error = Store::open(&path, settings(), clock()).err().unwrap();
    assert!(
        error.to_string().ends_with("is an SQLite file of another program (application id 0x0, version 3), not a spool"),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    open(&path).0.close().unwrap();
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    let error = Store::open(&path, settings(), clock()).err().unwrap();
    assert!(error.to_string().ends_with("has version 9, written by a newer ssds; this one knows version 1"), "{error}");
}

#[test]
fn admission_warns_before_it_closes() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreSettings { max_outbox_events: 10, ..settings() };
    let (mut store, _) = Store::open_with_boot(&folder.path().join("s.db"), limits, clock(), BOOT.into()).unwrap();
    let mut reader = store.reader().unwrap();
    assert_eq!(reader.admission(), Admission::Open);
    record(&mut store, 0..5);
    assert_eq!(reader.admission(), Admission::High);
    record(&mut store, 5..10);
    assert_eq!(reader.admission(), Admission::Full);
    assert_eq!(record(&mut store, 10..12), 11..13, "what is under way is still recorded");
    reader.acknowledge(&(1..=8).collect::<Vec<_>>()).unwrap();
    assert_eq!(reader.admission(), Admission::Open);
}

#[test]
fn history_is_pruned_behind_the_oldest_unacknowledged_event() {
    let folder = tempfile::tempdir().unwrap();
    let limits = StoreSettings { history_events: 4, ..settings() };
    let (mut store, _) = Store::open_with_boot(&folder.path().join("s.db"), limits, clock(), BOOT.into()).unwrap();
    record(&mut store, 0..20);
    let mut reader = store.reader().unwrap();
    reader.acknowledge(&[1, 2, 3, 5, 6]).unwrap();
    let kept = |r: &StoreReader| r.history(None, None, 100).unwrap().iter().map(|e| e.seq).collect::<Vec<_>>();
    assert_eq!(kept(&reader), (4..=20).rev().collect::<Vec<_>>(), "4 waits");
    reader.acknowledge(&(4..=20).collect::<Vec<_>>()).unwrap();
    assert_eq!(kept(&reader), [20, 19, 18, 17]);
}

#[test]
fn history_answers_by_verdict_id_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(&folder.path().join("s.db"));
    let verdicts = [Verdict::Ok, Verdict::Ng, Verdict::Error, Verdict::Ng];
    let mut batch: Vec<_> = verdicts.iter().enumerate().map(|(i, &v)| event(i as u64, v)).collect();
    store.record(&mut batch).unwrap();
    let mut reader = store.reader().unwrap();
    reader.acknowledge(&[2]).unwrap();
    let seqs = |found: Vec<StoredEvent>| found.iter().map(|e| (e.seq, e.acknowledged)).collect::<Vec<_>>();
    assert_eq!(seqs(reader.history(Some(Verdict::Ng), None, 10).unwrap()), [(4, false), (2, true)]);
    assert_eq!(seqs(reader.history(None, Some(3), 1).unwrap()), [(2, true)]);
    assert_eq!(reader.event(&batch[2].event_id).unwrap().unwrap().verdict, Verdict::Error);
    assert_eq!(reader.event("none").unwrap(), None);
    assert_eq!(reader.counts().unwrap(), VerdictCounts { ok: 1, ng: 2, error: 1 });
}

#[test]
fn the_age_of_the_oldest_survives_a_jumping_clock() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let (mut store, _) = Store::open_with_boot(&folder.path().join("s.db"), settings(), clock.clone(), BOOT.into()).unwrap();
    record(&mut store, 0..1);
    clock.advance(Duration::from_secs(7));
    clock.jump_wall(-86_400_000_000_000);
    let backlog = store.reader().unwrap().backlog(clock.as_ref()).unwrap();
    assert_eq!((backlog.events, backlog.oldest_age), (1, Duration::from_secs(7)));
    drop(store);
    // After a restart of the machine only the wall clock is left; it never gives a negative age.
    let (store, _) = Store::open_with_boot(&folder.path().join("s.db"), settings(), clock.clone(), "f".repeat(32)).unwrap();
    let mut reader = store.reader().unwrap();
    assert_eq!(reader.backlog(clock.as_ref()).unwrap().oldest_age, Duration::ZERO);
    assert_eq!(reader.outbox_window(0, 1, clock.as_ref()).unwrap()[0].spooled_mono_ns, None);
}

#[test]
fn a_request_id_is_new_once_also_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (store, _) = open(&path);
    let mut reader = store.reader().unwrap();
    assert!(reader.remember_command("a", clock().as_ref()).unwrap());
    assert!(!reader.remember_command("a", clock().as_ref()).unwrap());
    drop((store, reader));
    assert!(!open(&path).0.reader().unwrap().remember_command("a", clock().as_ref()).unwrap());
}

#[test]
fn a_body_that_changed_is_set_aside_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (mut store, _) = open(&path);
    record(&mut store, 0..5);
    let spoil = |store: &Store, seq: u64| {
        let sql = "UPDATE events SET body = replace(body, 'pcb-a17', 'pcb-a18') WHERE seq = ?1";
        store.connection.execute(sql, [to_sql(seq)]).unwrap();
    };
    // Found while publishing,
    spoil(&store, 2);
    let mut reader = store.reader().unwrap();
    assert_eq!(window(&mut reader), [1, 3, 4, 5]);
    assert_eq!((reader.damaged(), reader.outbox_events()), (1, 4));
    // and found at opening.
    spoil(&store, 4);
    spoil(&store, 5);
    drop((store, reader));
    let (store, report) = open(&path);
    let damage = report.damage.unwrap();
    assert_eq!((damage.kept, damage.lost, damage.lost_ranges, damage.moved_to), (2, 2, vec![(4, 5)], None));
    assert_eq!(report.last_seq, 5, "the number is not given again");
    assert_eq!(store.connection.query_row("SELECT count(*) FROM damaged", [], |r| r.get::<_, i64>(0)).unwrap(), 3);
}

/// Overwrites page `page` (from 1) with zeros.
fn wipe_page(path: &Path, page: u64) {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start((page - 1) * 4096)).unwrap();
    file.write_all(&[0; 4096]).unwrap();
}

/// A file with 200 events of which the first 100 are acknowledged, all in the main file; returns its pages.
fn filled(path: &Path) -> u64 {
    let (mut store, _) = open(path);
    for i in 0..20 {
        record(&mut store, i * 10..(i + 1) * 10);
    }
    store.reader().unwrap().acknowledge(&(1..=100).collect::<Vec<_>>()).unwrap();
    let pages: i64 = store.connection.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    store.close().unwrap(); // the last connection moves the log into the main file
    from_sql(pages)
}

#[test]
fn whatever_page_is_wiped_the_rest_is_kept_and_no_number_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.db");
    let pages = filled(&path);
    assert!(pages > 40, "{pages}");
    let mut rewritten = 0;
    for page in 1..=pages {
        let folder = tempfile::tempdir().unwrap();
        let damaged = folder.path().join("ssds.db");
        std::fs::copy(&path, &damaged).unwrap();
        std::fs::copy(path.with_file_name("good.db-seq"), folder.path().join("ssds.db-seq")).unwrap();
        wipe_page(&damaged, page);
        let (mut store, report) = open(&damaged);
        let mut reader = store.reader().unwrap();
        let kept = reader.history(None, None, 1000).unwrap().len();
        let first = record(&mut store, 1000..1001).start;
        assert!(first > 200, "page {page}: number {first} was given twice");
        let Some(damage) = report.damage else {
            // A free page, or one that no check looks at: nothing may be missing then.
            assert_eq!(kept, 200, "page {page}: loss without a report");
            assert_eq!(window(&mut reader).len(), 101, "page {page}");
            continue;
        };
        rewritten += 1;
        assert_eq!(damage.kept, kept as u64, "page {page}");
        if page > 1 {
            assert_eq!(damage.kept + damage.lost, 200, "page {page}: {damage:?}");
        }
        // One page holds at most a few events; only the file's head takes more with it.
        let head = page <= 3 || kept == 0;
        assert!(head || kept >= 150, "page {page}: {damage:?}");
        let unacknowledged = window(&mut reader);
        let expected: Vec<_> =
            reader.history(None, None, 1000).unwrap().iter().rev().map(|e| e.seq).filter(|&s| s > 100).collect();
        assert!(expected.iter().all(|s| unacknowledged.contains(s)), "page {page}: a kept event left the outbox");
        if let Some(moved) = &damage.moved_to {
            assert!(moved.exists());
        }
    }
    assert!(rewritten > 20, "only {rewritten} of {pages} wiped pages were noticed");
}

#[test]
fn a_file_that_is_no_database_is_put_aside_and_counting_goes_on_above() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (mut store, _) = open(&path);
    record(&mut store, 0..3);
    store.close().unwrap();
    std::fs::write(&path, vec![0x55; 40_000]).unwrap();
    let (mut store, report) = open(&path);
    let damage = report.damage.unwrap();
    assert_eq!((damage.kept, damage.finding.as_str()), (0, "file is not a database"));
    assert!(damage.moved_to.unwrap().exists());
    assert_eq!(record(&mut store, 3..4), 4..5);
    drop(store);
    std::fs::remove_file(&path).unwrap();
    let (store, report) = open(&path);
    assert_eq!(report.last_seq, 10_004, "the block reserved by the process that did not close");
    assert_eq!(report.damage.unwrap().finding, "the file was missing; counting goes on above 10004, the last number reserved");
    drop(store);
}

#[test]
fn a_swap_that_a_crash_cut_short_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    filled(&path);
    std::fs::copy(&path, folder.path().join("s.db-rewrite")).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (_store, report) = open(&path);
    assert_eq!((report.last_seq, report.outbox_events, report.created), (200, 100, false));
    assert!(!folder.path().join("s.db-rewrite").exists());
}

#[test]
fn the_bytes_counted_are_near_the_bytes_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (mut store, _) = open(&path);
    for i in 0..50 {
        record(&mut store, i * 64..(i + 1) * 64);
    }
    let counted = store.reader().unwrap().backlog(&SystemClock).unwrap().bytes as f64;
    store.close().unwrap(); // the last connection moves the log into the main file
    let on_disk = std::fs::metadata(&path).unwrap().len() as f64;
    assert!((0.75..=1.3).contains(&(on_disk / counted)), "on disk {on_disk}, counted {counted}");
}

#[test]
fn the_log_stays_bounded_while_writing_and_acknowledging() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (mut store, _) = open(&path);
    let mut reader = store.reader().unwrap();
    for i in 0..400 {
        let seqs: Vec<u64> = record(&mut store, i * 20..(i + 1) * 20).collect();
        reader.acknowledge(&seqs).unwrap();
    }
    let wal = std::fs::metadata(open::beside(&path, "-wal")).unwrap().len();
    assert!(wal < 4096 * 2 * CHECKPOINT_FORCED_PAGES as u64, "{wal}");
    assert_eq!(reader.outbox_events(), 0);
}

#[test]
fn a_reader_of_another_process_sees_the_committed_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    assert_eq!(StoreReader::open_read_only(&path).err().unwrap().kind(), Kind::Missing);
    let (mut store, _) = open(&path);
    record(&mut store, 0..3);
    let (reader, station) = StoreReader::open_read_only(&path).unwrap();
    assert_eq!((station.as_str(), reader.last_seq(), reader.outbox_events()), ("aoi1", 3, 3));
    let mut seen = Vec::new();
    reader
        .scan(1, &mut |seq, body, sound| {
            seen.push((seq, InspectionEvent::from_json(body.as_bytes())?.seq, sound));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [(2, 2, true), (3, 3, true)]);
}

#[test]
fn a_group_is_what_waits_and_no_more_than_the_limit() {
    let (sender, receiver) = bounded(10);
    (2..8).for_each(|i| sender.send(i).unwrap());
    let mut batch = Vec::new();
    collect_batch(1, &receiver, 4, &mut batch);
    assert_eq!(batch, [1, 2, 3, 4]);
    batch.clear();
    collect_batch(5, &receiver, 64, &mut batch);
    assert_eq!(batch, [5, 5, 6, 7]);
}

#[test]
fn times_before_the_epoch_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SimulatedClock::new(Timestamp::from_second(-5).unwrap()));
    let (mut store, _) = Store::open_with_boot(&folder.path().join("s.db"), settings(), clock, BOOT.into()).unwrap();
    assert_eq!(record(&mut store, 0..1), 1..2);
}
