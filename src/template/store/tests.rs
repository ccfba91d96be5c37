use super::*;

fn picture(seed: usize) -> Gray {
    Gray::from_fn(24, 16, |x, y| ((x * 7 + y * 13 + seed * 31) % 251) as u8)
}

fn meta() -> Meta {
    Meta { source: "line3".into(), mm_per_px: Some(0.05), ..Meta::at("2026-01-02T03:04:05Z".parse().unwrap()) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("templates")).unwrap();
    (dir, store)
}

#[test]
fn versions_are_numbered_activated_and_rolled_back() {
    let (_dir, store) = store();
    let id = "pcb-a17/top";
    for n in 1..=3 {
        let t = store.add(&Draft::new(id, picture(n), meta())).unwrap();
        assert_eq!((t.version, &*t.image), (n as u32, &picture(n)));
        assert_eq!(t.sha256, sha256_hex(&png_bytes(&picture(n)).unwrap()));
        assert_eq!(t.meta, meta());
        assert_eq!(t.product(), "pcb-a17");
    }
    let error = store.load_active(id).unwrap_err();
    assert_eq!(error.to_string(), "template \"pcb-a17/top\": no version is active; `ssds template activate` chooses one");
    store.activate(id, 1, at(1)).unwrap();
    store.activate(id, 3, at(2)).unwrap();
    store.activate(id, 3, at(3)).unwrap();
    store.activate(id, 2, at(4)).unwrap();
    assert_eq!(store.load_active(id).unwrap().version, 2);
    let listed: Vec<_> = store.list().unwrap().iter().map(|e| (e.version, e.active)).collect();
    assert_eq!(listed, [(1, false), (2, true), (3, false)]);
    assert_eq!(store.rollback(id, at(5)).unwrap().version, 3);
    assert_eq!(store.rollback(id, at(6)).unwrap().version, 1);
    let error = store.rollback(id, at(7)).unwrap_err();
    assert_eq!(error.to_string(), "template \"pcb-a17/top\": version 1 is the first that was active, there is none before it");
    assert_eq!(Store::open(store.root()).unwrap().active(id).unwrap(), Some(1), "as read by another program");
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn equal_pictures_are_kept_once() {
    let (_dir, store) = store();
    let a = store.add(&Draft::new("a/main", picture(1), meta())).unwrap();
    let b = store.add(&Draft::new("b/main", picture(1), meta())).unwrap();
    assert_eq!(a.sha256, b.sha256);
    assert_eq!(store.picture(&a.sha256).unwrap().image, a.image);
    let objects: usize = subfolders(&store.root().join("objects")).unwrap().iter().map(|f| files(f).unwrap().len()).sum();
    assert_eq!(objects, 1);
}

#[test]
fn banks_masks_and_tolerances_come_back() {
    let (_dir, store) = store();
    let tolerance = Tolerance {
        mean: Map::from_fn(24, 16, |x, y| (x + y) as f32 + 0.25),
        deviation: Map::from_fn(24, 16, |x, _| x as f32 / 16.0),
        parts: 12,
    };
    let draft = Draft {
        bank: vec![picture(5), Gray::new(30, 8)],
        mask: Some(Gray::from_fn(24, 16, |x, _| if x > 3 { 255 } else { 0 })),
        tolerance: Some(tolerance.clone()),
        ..Draft::new("p/v", picture(4), meta())
    };
    let t = store.add(&draft).unwrap();
    assert_eq!(t.bank.iter().map(|p| (*p.image).clone()).collect::<Vec<_>>(), draft.bank);
    assert_eq!(*t.mask.unwrap(), draft.mask.unwrap());
    assert_eq!(*t.tolerance.unwrap(), tolerance, "sixteenths of a gray value are whole steps of the file");
}

#[test]
fn drafts_of_mixed_sizes_are_refused() {
    let (_dir, store) = store();
    let draft = Draft { mask: Some(Gray::new(24, 15)), ..Draft::new("p/v", picture(4), meta()) };
    assert_eq!(store.add(&draft).unwrap_err().to_string(), "template \"p/v\": mask of 24x15 px, the picture's 24x16 px wanted");
    let empty = store.add(&Draft::new("p/v", Gray::new(0, 3), meta())).unwrap_err();
    assert_eq!(empty.to_string(), "template \"p/v\": its picture is empty");
}

#[test]
fn unknown_templates_name_the_nearest() {
    let (_dir, store) = store();
    let error = store.load_active("pcb/top").unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    assert!(error.to_string().ends_with("is empty; `ssds teach` fills it"), "{error}");
    store.add(&Draft::new("pcb-a17/top", picture(1), meta())).unwrap();
    store.add(&Draft::new("relay/main", picture(1), meta())).unwrap();
    let error = store.load_active("pcb-a71/top").unwrap_err();
    assert!(error.to_string().ends_with("the nearest known one is \"pcb-a17/top\""), "{error}");
    let error = store.load("pcb-a17/top", 9).unwrap_err();
    assert_eq!(error.to_string(), "template \"pcb-a17/top\": no version 9; versions 1 to 1 exist");
}

#[test]
fn damage_is_found_and_named() {
    let (_dir, store) = store();
    let t = store.add(&Draft::new("p/v", picture(1), meta())).unwrap();
    let u = store.add(&Draft::new("p/v", picture(2), meta())).unwrap();
    store.activate("p/v", 2, at(0)).unwrap();
    let object = store.object_path(&t.sha256);
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, &bytes).unwrap();
    let error = store.load("p/v", 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("damaged: its content has SHA-256"), "{error}");
    assert_eq!(store.activate("p/v", 1, at(1)).unwrap_err().kind(), Kind::Data, "a damaged version never comes into force");
    assert_eq!(store.load_active("p/v").unwrap().version, 2);
    assert_eq!(store.verify().unwrap().len(), 2, "the version and the object");
    // Teaching the same picture again repairs the object.
    store.add(&Draft::new("p/v", picture(1), meta())).unwrap();
    assert!(store.verify().unwrap().is_empty());

    let manifest = store.manifest_path("p/v", 2);
    let text = fs::read_to_string(&manifest).unwrap().replace("line3", "line4");
    fs::write(&manifest, text).unwrap();
    assert!(store.load("p/v", 2).unwrap_err().to_string().ends_with("v000002.json: damaged: its checksum does not fit"));
    fs::remove_file(store.object_path(&u.sha256)).unwrap();
    assert_eq!(store.verify().unwrap().len(), 1);
}

#[test]
fn a_folder_that_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    assert!(error.to_string().contains("the folder is not empty and has no ssds-templates.json"), "{error}");
    fs::remove_file(dir.path().join("holiday.jpg")).unwrap();
    fs::write(dir.path().join(IDENTITY), "{\"format\": \"ssds.templates/9\"}").unwrap();
    assert!(Store::open(dir.path()).unwrap_err().to_string().contains("format \"ssds.templates/1\" wanted"));
}

#[test]
fn what_a_crash_leaves_behind_does_no_harm() {
    let (_dir, store) = store();
    store.add(&Draft::new("p/v", picture(1), meta())).unwrap();
    // A temporary file of a writer that was killed, and an empty folder of a view whose first version never came.
    fs::write(store.folder("p/v").join(".tmp-abc"), "half").unwrap();
    fs::create_dir_all(store.folder("q/v")).unwrap();
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join(".tmp-xyz"), "").unwrap();
    Store::open(other.path()).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(store.add(&Draft::new("p/v", picture(2), meta())).unwrap().version, 2);
}

#[test]
fn two_writers_never_share_a_version() {
    let (_dir, store) = store();
    let mut versions: Vec<u32> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|n| {
                let store = &store;
                scope.spawn(move || {
                    (0..5).map(|k| store.add(&Draft::new("p/v", picture(n * 5 + k), meta())).unwrap().version).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    versions.sort_unstable();
    assert_eq!(versions, (1..=20).collect::<Vec<_>>());
}
