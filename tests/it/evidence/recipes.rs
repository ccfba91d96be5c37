//! Recipes through the binary: checked, tried on the archive, applied, switched while the line runs, rolled back.

use std::process::Output;

use serde_json::Value;

use super::{TO_INSPECT, expect, inspected, json, verb};
use crate::support::{Station, free_port, root, text};

fn write(station: &Station, name: &str, body: &str) -> String {
    let path = station.path(name);
    std::fs::write(&path, format!("recipe_version = 1\nproduct = \"board\"\n{body}")).unwrap();
    path.to_string_lossy().into_owned()
}

fn apply(station: &Station, file: &str, more: &[&str]) -> Output {
    verb(station, &[&["recipe", "apply", file], more].concat())
}

#[test]
fn what_if_tells_the_flips_and_apply_shows_them_first() {
    let station = inspected("");
    let list = json(&station, &["archive", "list", "--json"]);
    let ng = super::count(&list, "NG");

    let same = write(&station, "same.toml", "");
    let answer = json(&station, &["whatif", "--recipe", &same, "--json"]);
    assert_eq!(answer["flips"], serde_json::json!([]), "{answer}");
    assert_eq!(answer["unknown"]["not inspected then"].as_u64().unwrap() as usize, super::count(&list, "ERROR"), "{answer}");
    assert_eq!(answer["same"].as_u64().unwrap() as usize, super::count(&list, "OK") + ng);

    // Nothing reaches this area: every NG would pass; and a zone that ignores all leaves nothing to judge.
    let loose = write(&station, "loose.toml", "[decision]\nmin_area_px = 100000\n");
    let page = station.path("flips.html");
    let output = verb(&station, &["whatif", "--recipe", &loose, "--html", &page.to_string_lossy()]);
    expect(&output, 0, &format!("flips    NG -> OK       {ng}"));
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<img src=\"data:image/png;base64,").count(), ng);
    assert!(html.contains("<b>NG &rarr; OK</b>"));
    let blind = write(
        &station,
        "blind.toml",
        "judge_outside_zones = false\n[[zone]]\nname = \"corner\"\npolygon = [[0, 0], [4, 0], [4, 4]]\n",
    );
    let answer = json(&station, &["whatif", "--recipe", &blind, "--json"]);
    assert_eq!(answer["counts"]["NG -> OK"].as_u64().unwrap() as usize, ng, "{answer}");

    // A limit of the pose turns parts into ERROR; another detector's maps are not ours to decide.
    let still = write(&station, "still.toml", "[align]\nmax_rotation_degrees = 0.001\n");
    let answer = json(&station, &["whatif", "--recipe", &still, "--json"]);
    assert!(answer["counts"]["OK -> ERROR"].as_u64().unwrap() > 0, "{answer}");
    assert!(answer["flips"][0]["why"].as_str().unwrap().contains("align.max_rotation_degrees is 0.001"), "{answer}");
    let other = write(&station, "other.toml", "detector = \"absdiff\"\n");
    let answer = json(&station, &["whatif", "--recipe", &other, "--json"]);
    assert_eq!(
        answer["unknown"]["judged by another detector"].as_u64().unwrap() as usize,
        list.as_array().unwrap().len() - super::count(&list, "ERROR")
    );

    // Apply shows the flips before it switches, and can be told how many are too many.
    expect(&apply(&station, &loose, &["--max-flips", "0"]), 1, "would be decided otherwise, at most 0 wanted: not put in force");
    expect(&verb(&station, &["recipe", "show"]), 1, "no recipe was applied");
    expect(&apply(&station, &loose, &["--dry-run"]), 0, "it was not put in force");
    let output = apply(&station, &loose, &[]);
    expect(&output, 0, &format!("what if: flips    NG -> OK       {ng}"));
    expect(&output, 0, "is in force");
}

#[test]
fn recipes_are_checked_applied_activated_and_rolled_back() {
    let station = Station::new(free_port(), "mqtt.enabled = false\nevidence.min_free_mib = 0");
    let template = root().join("tests/data/demo/template.png");
    let first = write(&station, "first.toml", "[decision]\nthreshold = 0.6\n");
    expect(&verb(&station, &["recipe", "check", &first]), 66, "recipe of product \"board\": template \"board/main\": the store ");
    assert!(station.teach(&template).status.success());
    expect(&verb(&station, &["recipe", "check", &first]), 0, "is in order");
    for (name, body, wanted) in [
        (
            "zone.toml",
            "[[zone]]\nname = \"z\"\npolygon = [[0, 0], [99999, 0], [0, 9]]\n",
            "zone \"z\": corner (99999, 0) lies outside the template",
        ),
        ("bow.toml", "[[zone]]\nname = \"z\"\npolygon = [[1, 1], [9, 9], [9, 1], [1, 9]]\n", "crosses or touches the edge"),
        (
            "trigger.toml",
            "[trigger]\nmode = \"gpio\"\n",
            "trigger.mode is gpio, and the station runs free_run (camera.trigger is \"free\")",
        ),
        (
            "light.toml",
            "[image]\nmin_mean = 251\n",
            "image.min_mean must be below image.max_mean (250, recipe and configuration taken together), got 251",
        ),
        ("other.toml", "templates = [\"bord/main\"]\n", "the nearest known one is \"board/main\""),
    ] {
        let file = write(&station, name, body);
        let output = verb(&station, &["recipe", "check", &file]);
        assert!(!output.status.success(), "{name}");
        assert!(text(&output).contains(wanted), "{name}: no {wanted:?} in\n{}", text(&output));
        assert!(!apply(&station, &file, &[]).status.success(), "{name}: what does not pass the check is not applied");
    }
    ssds::frame::save_gray_png(&station.path("small.png"), &ssds::frame::Gray::from_fn(8, 8, |_, _| 255)).unwrap();
    let mask = write(&station, "mask.toml", "[[zone]]\nname = \"m\"\nmask = \"small.png\"\n");
    let output = verb(&station, &["recipe", "check", &mask]);
    expect(&output, 78, "zone \"m\": mask of 8x8 px, the template's");

    expect(&apply(&station, &first, &[]), 0, "is in force");
    let second = write(&station, "second.toml", "detector = \"variation\"\ncompare_with = \"absdiff\"\n");
    expect(&apply(&station, &second, &[]), 0, "is in force");
    let listed = json(&station, &["recipe", "list", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let shown = json(&station, &["recipe", "show", "--json"]);
    expect(&verb(&station, &["recipe", "rollback"]), 0, "is in force");
    let back = json(&station, &["recipe", "show", "--json"]);
    assert_ne!(shown["sha256"], back["sha256"]);
    let sha = shown["sha256"].as_str().unwrap();
    expect(&verb(&station, &["recipe", "activate", &sha[..10]]), 0, "is in force");
    assert_eq!(json(&station, &["recipe", "show", "--json"]), shown);
    expect(
        &verb(&station, &["recipe", "activate", "relay"]),
        66,
        "recipe \"relay\": no product or hash of a recipe that was applied",
    );
    assert_eq!(json(&station, &["recipe", "show", "--json"]), shown, "the last good one stays");
}

/// The running line switches between two frames: events before carry one detector's verdicts, events after another's, and none is lost.
#[test]
fn a_running_line_switches_without_a_restart() {
    let station =
        Station::new(free_port(), "mqtt.enabled = false\ncamera.loop = true\nevidence.ok_every = 1\nevidence.min_free_mib = 0");
    let data = root().join("tests/data/demo");
    for name in ["000.jpg", "002.jpg", "007.jpg"] {
        std::fs::copy(data.join("frames").join(name), station.path("frames").join(name)).unwrap();
    }
    assert!(station.teach(&data.join("template.png")).status.success());
    let mut daemon = station.run();
    daemon.wait_for("frame 3 ", TO_INSPECT);
    let blind = write(
        &station,
        "blind.toml",
        "detector = \"absdiff\"\ncompare_with = \"variation\"\nmm_per_px = 0.1\n[decision]\nmin_area_px = 100000\n[align]\nmax_shift_px = 500\n",
    );
    expect(&apply(&station, &blind, &[]), 0, "is in force");
    daemon.wait_for("recipe switched", TO_INSPECT);
    let frames = daemon.log().matches(" seq ").count();
    daemon.wait_for(&format!("frame {} ", frames + 8), TO_INSPECT);
    // A recipe that cannot be loaded leaves the one before in force.
    std::fs::remove_dir_all(station.path("state/templates/ids/board")).unwrap();
    let plain = write(&station, "plain.toml", "");
    assert!(!apply(&station, &plain, &[]).status.success());
    daemon.signal("TERM");
    assert!(daemon.wait(TO_INSPECT).success(), "{}", daemon.log());

    let (events, _) = station.recorded();
    // What the archive could not keep up with is skipped and counted; what it has tells which detector judged.
    let list = json(&station, &["archive", "list", "--json"]);
    let kept: Vec<(u64, &str)> =
        list.as_array().unwrap().iter().map(|e| (e["seq"].as_u64().unwrap(), e["event_id"].as_str().unwrap())).collect();
    let shown: Vec<(u64, Value)> =
        kept.iter().map(|(seq, id)| (*seq, json(&station, &["archive", "show", id, "--json"])["evidence"].clone())).collect();
    let (turn, _) = *shown
        .iter()
        .find(|(_, e)| e["detector"] == "absdiff")
        .map(|(seq, e)| (*seq, e))
        .as_ref()
        .expect("the switch shows in the evidence");
    assert!(turn > 3, "three frames were inspected before: {turn}");
    assert!(shown.iter().all(|(seq, e)| (*seq >= turn) == (e["detector"] == "absdiff")), "one switch");
    assert!(shown.iter().all(|(seq, e)| (*seq >= turn) == e["recipe_sha256"].is_string()));
    let seq_of = |e: &Value| e["seq"].as_u64().unwrap();
    assert!(events.iter().any(|e| seq_of(e) < turn && e["verdict"] == "NG"), "the network sees 002's defect");
    assert!(events.iter().all(|e| seq_of(e) < turn || e["verdict"] != "NG"), "nothing is 100000 px large");
    assert!(events.iter().any(|e| seq_of(e) >= turn && e["verdict"] == "OK"));
    let log = daemon.log();
    assert!(log.contains("+ 0 dropped + 0 lost"), "{log}");
}
