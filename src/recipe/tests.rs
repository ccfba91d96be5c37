use super::*;
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::frame::{Gray, save_gray_png};
use crate::template::Meta;
use crate::template::store::{Draft, Store};

const FULL: &str = r#"
recipe_version = 1
product = "pcb-a17"
templates = ["pcb-a17/top", "pcb-a17/bottom"]
detector = "variation"
compare_with = "ssds"
mm_per_px = 0.1
judge_outside_zones = false
[decision]
threshold = 0.6
low_threshold = 0.3
min_area_mm2 = 0.055
min_size_mm = 0.21
edge_margin_px = 3
merge_distance_px = 0
max_defects = 2
max_defect_area_px = 40
max_total_area_mm2 = 1
polarity = "dark"
[image]
min_mean = 20
max_mean = 230.5
[align]
max_rotation_degrees = 10
min_scale = 0.95
max_scale = 1.05
min_confidence = 0.5
max_shift_px = 30
[trigger]
mode = "gpio"
[classical]
match_light = false
variation_absolute = 12
[[zone]]
name = "pads"
polygon = [[1, 1], [20.5, 1], [20.5, 10]]
threshold = 0.4
min_area_mm2 = 0.02
[[zone]]
name = "label"
role = "ignore"
mask = "masks/label.png"
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("masks")).unwrap();
    let mask = Gray::from_fn(32, 24, |x, _| if x > 25 { 255 } else { 0 });
    save_gray_png(&dir.path().join("masks/label.png"), &mask).unwrap();
    dir
}

fn write(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("pcb.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_full_recipe_is_read() {
    let dir = folder();
    let r = Recipe::load(&write(&dir, FULL)).unwrap();
    assert_eq!((r.product.as_str(), r.templates.len()), ("pcb-a17", 2));
    assert_eq!((r.detector, r.compare_with), (Detector::Classical(Method::Variation), Some(Detector::Ssds)));
    assert_eq!((r.trigger, r.judge_outside_zones), (Some(Trigger::Hardware), false));
    let d = r.decision(&decide::Settings::default());
    assert_eq!(
        d,
        decide::Settings {
            threshold: 0.6,
            low_threshold: Some(0.3),
            min_area_px: 6,
            min_size_px: 3,
            edge_margin_px: 3,
            merge_distance_px: 0,
            max_defects: 2,
            max_defect_area_px: Some(40),
            max_total_area_px: Some(100),
            polarity: Polarity::Dark,
            zones: None,
        },
        "0.055 mm² of 0.01 mm² pixels are 5.5, so 6; 0.21 mm of 0.1 mm are 2.1, so 3"
    );
    let a = r.align(&align::Settings::default());
    assert_eq!((a.max_rotation_degrees, a.min_scale, a.max_scale, a.min_confidence), (10.0, 0.95, 1.05, 0.5));
    assert_eq!(a.max_points, align::Settings::default().max_points);
    assert_eq!((r.image.min_mean, r.image.min_focus, r.pose.max_shift_px), (Some(20.0), None, Some(30.0)));
    assert!(!r.classical.match_light && r.classical.variation_absolute == 12.0);
    assert_eq!((r.zones[0].min_area_px, r.zones[0].role, r.zones[1].role), (Some(2), Role::Inspect, Role::Ignore));
    let zones = r.zone_map((32, 24), &decide::Settings::default()).unwrap().unwrap();
    assert_eq!((zones.labels().get(19, 2), zones.labels().get(30, 2), zones.judges_outside()), (1, 2, false));
    let error = r.zone_map((33, 24), &decide::Settings::default()).unwrap_err();
    assert_eq!(error.to_string(), "zone \"label\": mask of 32x24 px, the template's 33x24 px wanted");
}

#[test]
fn what_is_left_out_stays_as_configured() {
    let r = Recipe::plain("relay").unwrap();
    assert_eq!(r.templates, ["relay/main"]);
    let base = decide::Settings { threshold: 0.7, low_threshold: Some(0.2), max_defects: 3, ..decide::Settings::default() };
    assert_eq!(r.decision(&base), base);
    assert_eq!(r.zone_map((10, 10), &base).unwrap(), None);
    let stricter =
        Recipe::parse("recipe_version = 1\nproduct = \"relay\"\n[decision]\nthreshold = 0.1\n", Path::new("r.toml")).unwrap();
    assert_eq!(stricter.decision(&base).low_threshold, Some(0.1), "never above the threshold");
}

#[test]
fn every_fault_is_told_at_once_with_its_line() {
    let text = r#"recipe_version = 2
product = "PCB A17"
templates = ["pcb"]
detector = "sds"
mm_per_pix = 0.1
[decision]
treshold = 0.5
threshold = nan
min_area_px = 3
min_area_mm2 = 0.1
max_total_area_mm2 = 0.1
edge_margin_px = -1
[image]
min_mean = 100
max_mean = 90
[trigger]
mode = "sometimes"
[[zone]]
role = "ignore"
[[zone]]
name = "a"
[[zone]]
name = "b"
polygon = [[1, 2], [3]]
[[zone]]
name = "c"
mask = "../c.png"
low_threshold = 0.5
threshold = 0.4
[[zone]]
name = "d"
mask = "none.png"
[classical]
absdiff_tolerance_px = 2.5
"#;
    let error = Recipe::parse(text, Path::new("r.toml")).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    let faults: Vec<_> = error.message().lines().collect();
    assert_eq!(
        faults,
        [
            "r.toml: image.min_mean must be below image.max_mean (90), got 100",
            "r.toml:1: recipe_version must be 1, got 2",
            "r.toml:2: product must be a name of 1 to 64 of a-z, 0-9, '_', '-', '.', beginning with a letter or digit, got \"PCB A17\"",
            "r.toml:3: templates: template id \"pcb\": product/view wanted, each 1 to 64 of a-z, 0-9, '_', '-', '.', beginning with a \
             letter or digit",
            "r.toml:4: detector must be one of ssds, absdiff, ssim, variation, got \"sds\"",
            "r.toml:5: unknown key mm_per_pix; did you mean mm_per_px?",
            "r.toml:7: unknown key decision.treshold; did you mean decision.threshold?",
            "r.toml:8: decision.threshold must be a number from 0.0001 to 1, got nan",
            "r.toml:10: decision.min_area_px and decision.min_area_mm2 are both set; one of them wanted",
            "r.toml:11: decision.max_total_area_mm2 is set, so mm_per_px must be set too",
            "r.toml:12: decision.edge_margin_px must be a whole number from 0 to 1000, got -1",
            "r.toml:17: trigger.mode must be one of free_run, software, gpio, got \"sometimes\"",
            "r.toml:18: zone[1].name is missing; wanted the zone's name",
            "r.toml:20: zone \"a\": one of polygon and mask wanted",
            "r.toml:24: zone[3].polygon must be a list of points [x, y], got a list of 2",
            "r.toml:27: zone[4].mask must lie in the recipe's folder or below, got \"../c.png\"",
            "r.toml:28: zone[4].low_threshold must be at most threshold (0.4), got 0.5",
            "r.toml:32: zone[5].mask: picture none.png: No such file or directory (os error 2)",
            "r.toml:34: classical.absdiff_tolerance_px must be a whole number from 0 to 10, got 2.5",
        ]
    );
    let empty = Recipe::parse("", Path::new("r.toml")).unwrap_err();
    assert_eq!(
        empty.message().lines().collect::<Vec<_>>(),
        ["r.toml: recipe_version is missing; wanted 1", "r.toml: product is missing; wanted the product's name"]
    );
    assert!(Recipe::parse("product = \n", Path::new("r.toml")).unwrap_err().message().starts_with("r.toml:1: not valid TOML: "));
    let shape = Recipe::parse("recipe_version = 1\nproduct = \"a\"\nzone = 3\ndecision = 4\n", Path::new("r.toml")).unwrap_err();
    assert_eq!(
        shape.message().lines().collect::<Vec<_>>(),
        ["r.toml:3: zone must be tables [[zone]], got 3", "r.toml:4: decision must be a table [decision], got 4"]
    );
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

#[test]
fn preparing_finds_what_the_file_alone_cannot() {
    let dir = folder();
    let store = Store::open(&dir.path().join("templates")).unwrap();
    let base = decide::Settings::default();
    let load = |text: &str| Recipe::load(&write(&dir, text)).unwrap();
    let meta = || Meta::at(at(0));
    store.add(&Draft::new("pcb-a17/top", Gray::new(32, 24), meta())).unwrap();
    store.activate("pcb-a17/top", 1, at(0)).unwrap();
    let error = load(FULL).prepare(&store, &base).unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    assert!(
        error.message().starts_with("recipe of product \"pcb-a17\": template \"pcb-a17/bottom\": unknown in ")
            && error.message().ends_with("the nearest known one is \"pcb-a17/top\""),
        "{error}"
    );
    store.add(&Draft::new("pcb-a17/bottom", Gray::new(32, 23), meta())).unwrap();
    store.activate("pcb-a17/bottom", 1, at(0)).unwrap();
    let error = load(FULL).prepare(&store, &base).unwrap_err();
    assert_eq!(
        error.message(),
        "recipe of product \"pcb-a17\": zone \"label\": mask of 32x24 px, the template's 32x23 px wanted"
    );
    let one = FULL.replace(", \"pcb-a17/bottom\"", "");
    let prepared = load(&one).prepare(&store, &base).unwrap();
    assert_eq!((prepared.views.len(), prepared.decision.threshold), (1, 0.6));
    assert!(prepared.views[0].zones.is_some());
}

#[test]
fn the_last_good_recipe_stays_in_force() {
    let dir = folder();
    let book = book::Book::open(&dir.path().join("book")).unwrap();
    assert_eq!(book.load_active().unwrap(), None);
    assert_eq!(book.before().unwrap_err().kind(), Kind::Missing);
    let path = write(&dir, FULL);
    let first = Recipe::load(&path).unwrap();
    book.apply(&first, at(1)).unwrap();
    // The file, and its mask, are changed and broken afterwards: what was applied stays.
    std::fs::write(&path, "nonsense").unwrap();
    std::fs::remove_file(dir.path().join("masks/label.png")).unwrap();
    assert_eq!(book.load_active().unwrap(), Some(first.clone()));
    let second = Recipe::plain("relay").unwrap();
    book.apply(&second, at(2)).unwrap();
    book.apply(&second, at(3)).unwrap();
    assert_eq!(book.load_active().unwrap().unwrap().product, "relay");
    assert_eq!(book.before().unwrap(), first);
    assert_eq!(book.roll_back(at(4)).unwrap(), first);
    assert_eq!(book.active().unwrap().unwrap().before, Vec::<String>::new());
    assert_eq!(book.load(&second.sha256).unwrap(), second, "what was ever applied is found by its hash");

    let copy = dir.path().join("book/applied").join(&first.sha256);
    std::fs::write(copy.join("masks/label.png"), "x").unwrap();
    assert_eq!(book.load_active().unwrap_err().kind(), Kind::Config);
    let mask = Gray::from_fn(32, 24, |x, _| if x > 25 { 255 } else { 0 });
    save_gray_png(&dir.path().join("masks/label.png"), &mask).unwrap();
    let again = Recipe::load(&write(&dir, FULL)).unwrap();
    book.apply(&again, at(5)).unwrap();
    assert_eq!(book.load_active().unwrap().unwrap(), first, "applying it again repairs the copy");
}

#[test]
fn a_recipes_hash_covers_its_masks() {
    let dir = folder();
    let path = write(&dir, FULL);
    let before = Recipe::load(&path).unwrap().sha256;
    save_gray_png(&dir.path().join("masks/label.png"), &Gray::from_fn(32, 24, |x, _| if x > 20 { 255 } else { 0 })).unwrap();
    assert_ne!(Recipe::load(&path).unwrap().sha256, before);
}

#[test]
fn the_sample_is_in_order() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipe.toml");
    let r = Recipe::load(&path).unwrap();
    assert_eq!((r.zones.len(), r.zones[0].min_area_px, r.zones[1].role), (2, Some(8), Role::Ignore));
    assert!(r.zone_map((640, 640), &decide::Settings::default()).unwrap().is_some());
}
