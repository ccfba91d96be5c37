//! The archive against what it promises: folders whole or not there, decisions repeated to the bit, the right evidence removed.

use std::sync::Arc;

use super::writer::{Counts, Part, Settings, Skipped, Writer};
use super::*;
use crate::decide::{self, Decider, Decision, Role, Shape, Zone, ZoneMap};
use crate::frame::{Gray, Map};
use crate::geometry::Affine;
use crate::overlay::{Canvas, GROUND};
use crate::record::event::InspectionEvent;
use crate::telemetry::Telemetry;
use crate::template::Meta;
use crate::template::store::Draft;

const MIB: u64 = 1 << 20;

struct Bench {
    dir: tempfile::TempDir,
    telemetry: Telemetry,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Self { dir, telemetry: Telemetry::new() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn settings(&self) -> Settings {
        Settings {
            root: self.root(),
            state: self.dir.path().join("state"),
            station: "aoi1".into(),
            max_ok_bytes: MIB,
            max_ng_bytes: MIB,
            max_error_bytes: MIB,
            min_free_bytes: 0,
        }
    }

    fn writer(&self, settings: Settings) -> Writer {
        Writer::new(settings, Counts::new(&self.telemetry))
    }

    fn skipped(&self, why: &str) -> u64 {
        self.telemetry.counter("ssds_evidence_skipped_total", "", &[("reason", why)]).get()
    }
}

/// An event of that verdict, `second` after a fixed time.
fn event(verdict: Verdict, second: u64) -> InspectionEvent {
    let time = uuid::Timestamp::from_unix(uuid::NoContext, 1_795_000_000 + second, 0);
    let mut event =
        InspectionEvent { event_id: uuid::Uuid::new_v7(time).to_string(), verdict, seq: second, ..InspectionEvent::example() };
    if verdict == Verdict::Error {
        event.error = Some(crate::record::event::EventError {
            code: crate::record::event::ErrorCode::AlignFail,
            message: "not found".into(),
        });
    }
    event
}

/// One decided part with zones, a pose that no short decimal holds, and noise in every picture.
struct Scene {
    frame: Gray,
    warped: Gray,
    valid: Gray,
    map: Map,
    pose: Affine,
    settings: decide::Settings,
    decision: Decision,
}

fn scene(seed: u32) -> Scene {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let (w, h) = (96, 64);
    let frame = Gray::from_fn(w, h, |_, _| next() as u8);
    let warped = Gray::from_fn(w, h, |_, _| next() as u8);
    let valid = Gray::from_fn(w, h, |x, y| if x > 3 && y < 60 { 255 } else { 0 });
    let map = Map::from_fn(w, h, |x, y| {
        let noise = next() as f32 / 16_777_216.0;
        if valid.get(x, y) == 0 { 0.0 } else { noise * noise * noise }
    });
    let pose = Affine::similarity(0.012_345 + f64::from(seed) * 1e-3, 1.0 / 3.0 + 0.7, 3.1, -2.7);
    let settings = decide::Settings {
        threshold: 0.9,
        low_threshold: Some(0.5 + 0.1),
        merge_distance_px: 0,
        min_area_px: 3,
        edge_margin_px: 2,
        ..Default::default()
    };
    let zone = |name: &str, role, x: f64, threshold| Zone {
        name: name.into(),
        role,
        shape: Shape::Polygon(vec![(x, 5.0), (x + 30.0, 5.0), (x + 30.0, 50.0), (x, 50.0)]),
        threshold,
        low_threshold: None,
        min_area_px: None,
        min_size_px: Some(2),
    };
    let zones = vec![zone("pads", Role::Inspect, 5.0, Some(0.7)), zone("label", Role::Ignore, 45.0, None)];
    let zones = ZoneMap::new((80, 56), zones, true, &settings).unwrap();
    let settings = decide::Settings { zones: Some(Arc::new(zones)), ..settings };
    let decision = Decider::new().decide_posed(&map, &valid, &frame, &warped, &settings, &pose).unwrap();
    Scene { frame, warped, valid, map, pose, settings, decision }
}

impl Scene {
    fn part<'a>(&'a self, event: &'a InspectionEvent, overlay: Option<&'a Canvas>) -> Part<'a> {
        Part {
            event,
            frame: &self.frame,
            template: Some(((80, 56), "ab")),
            pose: Some((&self.pose, true, 0.9)),
            aligned: Some((&self.warped, &self.valid)),
            decided: Some((&self.map, &self.settings, &self.decision)),
            detector: "ssds",
            recipe_sha256: Some("cd"),
            overlay,
        }
    }
}

fn verdict(s: &Scene) -> Verdict {
    replay::verdict_of(&s.decision)
}

#[test]
fn what_was_kept_is_read_back_and_decided_again_to_the_bit() {
    let bench = Bench::new();
    let mut writer = bench.writer(Settings { max_ng_bytes: 100 * MIB, ..bench.settings() });
    let mut kept = Vec::new();
    for seed in 0..12 {
        let s = scene(seed);
        let e = event(verdict(&s), u64::from(seed));
        let overlay = Canvas::new(20, 10, GROUND);
        kept.push((writer.keep(&s.part(&e, Some(&overlay))).unwrap(), s, e));
    }
    let archive = Archive::open(&bench.root()).unwrap();
    let entries = archive.entries().unwrap();
    assert_eq!(entries, kept.iter().map(|(k, ..)| k.clone()).collect::<Vec<_>>(), "oldest first");
    let mut replayer = replay::Replayer::default();
    let mut blobs = 0;
    for (entry, s, e) in &kept {
        let m = entry.manifest().unwrap();
        assert_eq!(archive.get(&e.event_id).unwrap(), *entry);
        assert_eq!((m.verdict, m.pose.as_ref().unwrap().affine()), (e.verdict, s.pose), "the pose to the bit");
        assert_eq!(replayer.differences(entry, &m).unwrap(), Vec::<String>::new());
        let again = replayer.decide(&replay::Seen::all(entry, &m).unwrap(), &replay::settings_of(entry, &m).unwrap()).unwrap();
        assert_eq!(again, s.decision, "every figure of every blob");
        // Without the pictures all but signs and grays is the same.
        let fast = replayer.decide(&replay::Seen::scores(entry, &m).unwrap(), &replay::settings_of(entry, &m).unwrap()).unwrap();
        assert_eq!((fast.verdict, fast.blobs_total, fast.max_score), (again.verdict, again.blobs_total, again.max_score));
        blobs += again.blobs_total;
        let frame = archive.picture(&e.event_id, Picture::Frame, None).unwrap().unwrap();
        assert_eq!(picture::read_gray(&frame, Path::new("f")).unwrap(), s.frame, "the frame is lossless");
        let recorded = InspectionEvent::from_json(&entry.file(&m, EVENT).unwrap()).unwrap();
        assert_eq!((&recorded.event_id, recorded.seq, recorded.verdict), (&e.event_id, e.seq, e.verdict));
        let mask =
            picture::read_gray(&archive.picture(&e.event_id, Picture::Mask, None).unwrap().unwrap(), Path::new("m")).unwrap();
        assert_eq!(picture::cover_of(&mask), s.valid);
        assert_eq!(mask.data().iter().filter(|v| **v == 255).count(), again.ng_area_px);
    }
    assert!(blobs > 50, "the scenes must hold something to decide: {blobs}");
    // Another threshold is another decision: the comparison above can fail.
    let (entry, s, _) = &kept[0];
    let m = entry.manifest().unwrap();
    let looser = decide::Settings { threshold: 0.97, ..s.settings.clone() };
    assert_ne!(replayer.decide(&replay::Seen::all(entry, &m).unwrap(), &looser).unwrap(), s.decision);
}

#[test]
fn damage_is_named_and_a_missing_picture_is_none() {
    let bench = Bench::new();
    let mut writer = bench.writer(bench.settings());
    let s = scene(1);
    let e = event(Verdict::Ng, 1);
    let entry = writer.keep(&s.part(&e, None)).unwrap();
    let archive = Archive::open(&bench.root()).unwrap();
    assert_eq!(archive.picture(&e.event_id, Picture::Overlay, None).unwrap(), None);
    let store = TemplateStore::open(&bench.dir.path().join("templates")).unwrap();
    let error = archive.picture(&e.event_id, Picture::Template, Some(&store)).unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    let template = store.add(&Draft::new("a/b", Gray::new(80, 56), Meta::at(Timestamp::UNIX_EPOCH))).unwrap();
    let e2 = event(Verdict::Ng, 2);
    writer.keep(&Part { template: Some(((80, 56), &template.sha256)), ..s.part(&e2, None) }).unwrap();
    assert!(archive.picture(&e2.event_id, Picture::Template, Some(&store)).unwrap().is_some());

    let path = entry.folder.join("score.png");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = archive.picture(&e.event_id, Picture::Score, None).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.message().starts_with(&format!("evidence {}: damaged: its content has SHA-256 ", path.display())), "{error}");
    let path = entry.folder.join(EVIDENCE);
    let text =
        std::fs::read_to_string(&path).unwrap().replace("\"threshold\": \"0.8999999761581421\"", "\"threshold\": \"0.91\"");
    std::fs::write(&path, text).unwrap();
    let error = entry.manifest().unwrap_err();
    assert_eq!(error.message(), format!("evidence {}: damaged: its checksum does not fit", path.display()));
    let error = archive.find("../../etc/passwd").unwrap_err();
    assert_eq!(error.message(), "event id \"../../etc/passwd\": a UUID of version 7 wanted");
    let unknown = event(Verdict::Ok, 9).event_id;
    let error = archive.get(&unknown).unwrap_err();
    assert_eq!(
        error.message(),
        format!("event {unknown}: archive {} has no evidence of it (not kept, or removed by age)", bench.root().display())
    );
}

#[test]
fn quotas_take_the_oldest_of_their_own_kind() {
    let bench = Bench::new();
    let s = scene(2);
    let mut writer = bench.writer(bench.settings());
    let size = {
        let e = event(Verdict::Ng, 0);
        let entry = writer.keep(&s.part(&e, None)).unwrap();
        let files = std::fs::read_dir(&entry.folder).unwrap();
        files.map(|f| f.unwrap().metadata().unwrap().len()).sum::<u64>()
    };
    drop(writer);
    // Room for three NG and a half, and for every OK and ERROR.
    let mut writer = bench.writer(Settings { max_ng_bytes: size * 7 / 2, ..bench.settings() });
    for second in 1..=6 {
        for v in [Verdict::Ok, Verdict::Ng, Verdict::Error] {
            writer.keep(&s.part(&event(v, second), None)).unwrap();
        }
    }
    let seqs = |v: Verdict| -> Vec<u64> {
        let entries = Archive::open(&bench.root()).unwrap().entries().unwrap();
        entries.iter().filter(|e| e.verdict() == v).map(|e| e.manifest().unwrap().seq).collect()
    };
    assert_eq!(seqs(Verdict::Ng), [4, 5, 6]);
    assert_eq!((seqs(Verdict::Ok).len(), seqs(Verdict::Error).len()), (6, 6));
    assert_eq!(writer.stock().map(|(n, _)| n), [6, 3, 6]);
    let removed = bench.telemetry.counter("ssds_evidence_removed_total", "", &[("verdict", "NG")]).get();
    assert_eq!(removed, 4, "0 to 3");
    // A writer that starts anew takes the same stock.
    let before = writer.stock();
    drop(writer);
    let mut again = bench.writer(Settings { max_ng_bytes: size * 3 / 2, ..bench.settings() });
    again.ready().unwrap();
    assert_eq!(again.stock(), before);
    assert_eq!(again.collect().unwrap(), 2);
    assert_eq!(seqs(Verdict::Ng), [6]);
    // One event larger than its quota is refused, and nothing goes for it.
    let mut tight = {
        drop(again);
        bench.writer(Settings { max_ng_bytes: 10, ..bench.settings() })
    };
    assert_eq!(tight.keep(&s.part(&event(Verdict::Ng, 20), None)).unwrap_err(), Skipped::NoRoom);
    assert_eq!(bench.skipped("no_room"), 1);
    assert_eq!(seqs(Verdict::Ng), [6]);
}

#[test]
fn the_floor_takes_ok_then_error_then_ng_and_nothing_when_it_cannot_be_reached() {
    let bench = Bench::new();
    let s = scene(3);
    let mut writer = bench.writer(bench.settings());
    for second in 0..2 {
        for v in [Verdict::Ng, Verdict::Error, Verdict::Ok] {
            writer.keep(&s.part(&event(v, second), None)).unwrap();
        }
    }
    drop(writer);
    // A floor that even an empty archive does not leave free.
    let mut hopeless = bench.writer(Settings { min_free_bytes: u64::MAX / 2, ..bench.settings() });
    assert_eq!(hopeless.keep(&s.part(&event(Verdict::Ng, 9), None)).unwrap_err(), Skipped::NoRoom);
    assert_eq!(hopeless.stock().map(|(n, _)| n), [2, 2, 2], "nothing is removed for nothing");
    let error = hopeless.collect().unwrap_err();
    assert!(
        error.message().starts_with(&format!("archive {}: ", bench.root().display()))
            && error.message().ends_with(&format!("bytes are free on its disk, 0 wanted above the floor of {}", u64::MAX / 2)),
        "{error}"
    );
    drop(hopeless);
    // The order, without a disk to fill: one after another.
    let mut writer = bench.writer(bench.settings());
    writer.ready().unwrap();
    let mut order = Vec::new();
    while writer.remove_for_room().unwrap() {
        order.push(writer.stock().map(|(n, _)| n));
    }
    assert_eq!(order, [[1, 2, 2], [0, 2, 2], [0, 2, 1], [0, 2, 0], [0, 1, 0], [0, 0, 0]]);
}

#[test]
fn a_disk_that_is_not_there_is_neither_filled_nor_taken_for_empty() {
    let bench = Bench::new();
    let s = scene(4);
    let mut writer = bench.writer(bench.settings());
    writer.keep(&s.part(&event(Verdict::Ng, 0), None)).unwrap();
    // The disk goes while the line runs: the folder below its mount point is empty.
    let aside = bench.dir.path().join("disk");
    std::fs::rename(bench.root(), &aside).unwrap();
    std::fs::create_dir(bench.root()).unwrap();
    assert_eq!(writer.keep(&s.part(&event(Verdict::Ng, 1), None)).unwrap_err(), Skipped::Unavailable);
    assert_eq!(bench.skipped("unavailable"), 1);
    assert_eq!(std::fs::read_dir(bench.root()).unwrap().count(), 0, "nothing is written there");
    let missing = format!(
        "archive {}: its ssds-archive.json is not there; is the disk mounted? `ssds archive init` begins a new archive",
        bench.root().display()
    );
    let mut cold = bench.writer(bench.settings());
    let error = cold.ready().unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Unavailable, missing.as_str()));
    // It comes back: a new writer goes on where it was.
    std::fs::remove_dir(bench.root()).unwrap();
    std::fs::rename(&aside, bench.root()).unwrap();
    drop(writer);
    let mut back = bench.writer(bench.settings());
    back.ready().unwrap();
    assert_eq!(back.stock()[1].0, 1);
    let second = bench.writer(bench.settings()).ready().unwrap_err();
    assert_eq!(
        second.message(),
        format!("archive {}: another process, the running daemon most likely, writes and collects here", bench.root().display())
    );
}

#[test]
fn foreign_folders_are_never_touched() {
    let bench = Bench::new();
    let s = scene(5);
    // Other people's files.
    std::fs::create_dir_all(bench.root().join("2026-01-01")).unwrap();
    std::fs::write(bench.root().join("photo.jpg"), "x").unwrap();
    let error = bench.writer(bench.settings()).ready().unwrap_err();
    assert_eq!(
        error.message(),
        format!(
            "archive {}: the folder is not empty and has no ssds-archive.json; an empty folder or an archive wanted",
            bench.root().display()
        )
    );
    std::fs::remove_dir_all(bench.root()).unwrap();
    // The archive of another station.
    let other = Settings { station: "aoi2".into(), state: bench.dir.path().join("other"), ..bench.settings() };
    std::fs::create_dir(&other.state).unwrap();
    let mut writer = bench.writer(other);
    writer.keep(&s.part(&event(Verdict::Ok, 0), None)).unwrap();
    drop(writer);
    let error = bench.writer(bench.settings()).ready().unwrap_err();
    assert_eq!(
        error.message(),
        format!(
            "archive {}: it belongs to station \"aoi2\", not to \"aoi1\"; name another folder in paths.archive_dir",
            bench.root().display()
        )
    );
    std::fs::remove_dir_all(bench.root()).unwrap();
    // Within an archive: what is no event's folder stays, leftovers of a killed writer go.
    let mut writer = bench.writer(bench.settings());
    let entry = writer.keep(&s.part(&event(Verdict::Ok, 0), None)).unwrap();
    drop(writer);
    let own = bench.root().join("notes");
    std::fs::create_dir(&own).unwrap();
    std::fs::create_dir(entry.folder.parent().unwrap().join("copy of a part.ok")).unwrap();
    let elsewhere = bench.root().join("2020-01-01");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(&entry.folder, elsewhere.join(entry.folder.file_name().unwrap())).unwrap();
    std::fs::create_dir(bench.root().join(".tmp-x")).unwrap();
    let mut writer = bench.writer(Settings { max_ok_bytes: 1, ..bench.settings() });
    writer.ready().unwrap();
    assert_eq!(writer.collect().unwrap(), 0, "a folder under another day is not the archive's to collect");
    assert!(own.exists() && elsewhere.exists() && !bench.root().join(".tmp-x").exists());
}

#[test]
fn a_part_without_pictures_is_kept_all_the_same() {
    let bench = Bench::new();
    let mut writer = bench.writer(bench.settings());
    let e = event(Verdict::Error, 0);
    let part = Part {
        event: &e,
        frame: &Gray::default(),
        template: None,
        pose: None,
        aligned: None,
        decided: None,
        detector: "ssds",
        recipe_sha256: None,
        overlay: None,
    };
    let entry = writer.keep(&part).unwrap();
    let m = entry.manifest().unwrap();
    assert_eq!(m.files.keys().collect::<Vec<_>>(), ["event.json"]);
    assert_eq!(replay::Replayer::default().differences(&entry, &m).unwrap(), Vec::<String>::new());
    let error = replay::settings_of(&entry, &m).unwrap_err();
    assert!(error.message().ends_with("the part was not inspected, so there is nothing to decide again"), "{error}");
}
