//! The archive's writer in a process of its own, killed at random moments, and on a full disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ssds::clock::{Clock, SystemClock};
use ssds::frame::Gray;
use ssds::record::archive::writer::{Counts, Part, Settings, Skipped, Writer};
use ssds::record::archive::{Archive, Entry};
use ssds::record::event::{InspectionEvent, Verdict};
use ssds::telemetry::Telemetry;

use crate::support::skipped;

const FOLDER: &str = "SSDS_TEST_ARCHIVE_FOLDER";
const MIB: u64 = 1 << 20;
/// About a dozen parts.
const QUOTA: u64 = 300 << 10;

fn settings(folder: &Path) -> Settings {
    Settings {
        root: folder.join("archive"),
        state: folder.to_owned(),
        station: "aoi1".into(),
        // Small enough that the writer also removes while it is killed.
        max_ok_bytes: QUOTA,
        max_ng_bytes: QUOTA,
        max_error_bytes: QUOTA,
        min_free_bytes: 0,
    }
}

/// Writes part `n`; its frame tells which it is.
fn keep(writer: &mut Writer, n: u64) -> Result<Entry, Skipped> {
    let verdict = [Verdict::Ok, Verdict::Ng, Verdict::Error][(n % 3) as usize];
    let event = InspectionEvent { event_id: uuid::Uuid::now_v7().to_string(), seq: n, verdict, ..InspectionEvent::example() };
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let frame = Gray::from_fn(160, 120, |_, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    let part = Part {
        event: &event,
        frame: &frame,
        template: None,
        pose: None,
        aligned: None,
        decided: None,
        detector: "ssds",
        recipe_sha256: None,
        overlay: None,
    };
    writer.keep(&part)
}

/// The child's program: this test binary calls itself with this test alone. Called without the variable it has nothing to do.
#[test]
fn archive_child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut writer = Writer::new(settings(Path::new(&folder)), Counts::new(&Telemetry::new()));
    writer.ready().unwrap();
    for n in 0.. {
        keep(&mut writer, n).unwrap();
    }
}

fn spawn(folder: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "evidence::killed::archive_child", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_writer_killed_at_any_moment_leaves_whole_folders_only() {
    let dir = tempfile::tempdir().unwrap();
    let rounds: u64 = std::env::var("ARCHIVE_KILLS").ok().and_then(|v| v.parse().ok()).unwrap_or(25);
    let (mut seen, mut torn) = (0usize, 0usize);
    for round in 0..rounds {
        let mut child = spawn(dir.path());
        // Until it writes, and then for a while that is another each time.
        let root = dir.path().join("archive");
        let newest = || Archive::open(&root).and_then(|a| a.entries()).ok().and_then(|e| e.last().cloned());
        let before = newest();
        while newest() == before {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
            SystemClock.sleep(Duration::from_millis(1));
        }
        SystemClock.sleep(Duration::from_micros(round * 7919 % 40_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in Archive::open(&root).unwrap().entries().unwrap() {
            let manifest = entry.manifest().unwrap_or_else(|e| panic!("round {round}: {e:#}"));
            for name in manifest.files.keys() {
                entry.file(&manifest, name).unwrap_or_else(|e| panic!("round {round}: {e:#}"));
            }
            seen += 1;
        }
        let leftover: Vec<PathBuf> = std::fs::read_dir(&root)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(".tmp-"))
            .collect();
        torn += leftover.len();
        // The next writer clears up and stays within its quotas.
        let mut writer = Writer::new(settings(dir.path()), Counts::new(&Telemetry::new()));
        writer.ready().unwrap();
        writer.collect().unwrap();
        assert!(leftover.iter().all(|p| !p.exists()), "{leftover:?}");
        let [ok, ng, error] = writer.stock().map(|(_, bytes)| bytes);
        assert!(ok <= QUOTA && ng <= QUOTA && error <= QUOTA, "{ok} {ng} {error}");
    }
    println!("{rounds} kills: {seen} folders looked at, all whole; {torn} unfinished ones cleared");
    assert!(seen > 0 && torn > 0, "no kill fell into a write: {seen} {torn}");
}

#[test]
fn a_full_disk_costs_evidence_and_nothing_else() {
    const NAME: &str = "a_full_disk_costs_evidence_and_nothing_else";
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|m| m.status.success()) {
        return skipped(NAME, "a tmpfs cannot be mounted here (root is needed)");
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _mounted = Mounted(disk.clone());
    let telemetry = Telemetry::new();
    let quotas = Settings { max_ok_bytes: 9 * MIB, max_ng_bytes: 9 * MIB, max_error_bytes: 9 * MIB, ..settings(dir.path()) };
    let full = Settings { root: disk.join("archive"), ..quotas };
    let mut writer = Writer::new(full.clone(), Counts::new(&telemetry));
    writer.ready().unwrap();
    let (mut kept, mut failed) = (0, 0);
    for n in 0..80 {
        match keep(&mut writer, n) {
            Ok(_) => kept += 1,
            Err(why) => {
                assert_eq!(
                    why,
                    Skipped::NoRoom,
                    "no floor is set: a write that finds the disk full removes the oldest or is refused"
                );
                failed += 1;
            }
        }
    }
    assert!(kept > 20, "{kept} kept, {failed} not");
    drop(writer);
    // What is there is whole.
    for entry in Archive::open(&full.root).unwrap().entries().unwrap() {
        let manifest = entry.manifest().unwrap();
        manifest.files.keys().for_each(|name| drop(entry.file(&manifest, name).unwrap()));
    }
    // Another program fills the disk: nothing is removed for nothing, the fault is counted.
    let stock = Archive::open(&full.root).unwrap().entries().unwrap().len();
    let filler = disk.join("filler");
    let _ = std::fs::write(&filler, vec![1u8; 1 << 20]);
    let mut writer = Writer::new(Settings { min_free_bytes: 2 * MIB, ..full.clone() }, Counts::new(&telemetry));
    assert_eq!(keep(&mut writer, 100).unwrap_err(), Skipped::NoRoom);
    assert_eq!(Archive::open(&full.root).unwrap().entries().unwrap().len(), stock);
    assert!(telemetry.counter("ssds_evidence_skipped_total", "", &[("reason", "no_room")]).get() > 0);
}
