//! Teaching through the binary: one picture, several, a tolerance, a proof; refusals by name.

use super::{expect, json, verb};
use crate::support::{Station, free_port, root, shared, skipped, text};

#[test]
fn several_pictures_make_a_bank_and_a_tolerance() {
    let station = Station::new(free_port(), "mqtt.enabled = false");
    let data = root().join("tests/data/demo");
    let picture = |name: &str| data.join(name).to_string_lossy().into_owned();
    let (first, second, third) = (picture("template.png"), picture("frames/000.jpg"), picture("frames/001.jpg"));
    let taught = json(&station, &["teach", "board", &first, &second, &third, "--tolerance", "--mm-per-px", "0.1", "--json"]);
    assert_eq!(
        (&taught["pictures"], &taught["tolerance_parts"], &taught["version"]),
        (&3.into(), &3.into(), &1.into()),
        "{taught}"
    );
    let alone = json(&station, &["teach", "board", &first, &second, "--tolerance", "--no-bank", "--no-activate", "--json"]);
    assert_eq!((&alone["pictures"], &alone["active"], &alone["version"]), (&1.into(), &false.into(), &2.into()), "{alone}");
    let list = json(&station, &["template", "list", "--json"]);
    assert_eq!(
        (&list[0]["pictures"], &list[0]["active"], &list[1]["active"]),
        (&3.into(), &true.into(), &false.into()),
        "{list}"
    );
    expect(&verb(&station, &["template", "verify"]), 0, "0 problems");
    // The bank is of one coordinate system: all pictures have the first one's size.
    let sizes: std::collections::BTreeSet<(usize, usize)> = walk(&station.path("state/templates/objects"))
        .iter()
        .map(|p| image::image_dimensions(p).map(|(w, h)| (w as usize, h as usize)).unwrap())
        .collect();
    assert_eq!(sizes.len(), 1, "{sizes:?}");

    let stranger = picture("frames/007.jpg");
    expect(&verb(&station, &["teach", "board", &first, &stranger]), 65, "007.jpg: does not show the part of the first picture");
    expect(&verb(&station, &["teach", "board", &first, "--tolerance"]), 65, "tolerance: 1 part, at least 2 wanted");
    expect(
        &verb(&station, &["teach", "board", &first, "--mm-per-px", "0"]),
        64,
        "--mm-per-px must be from 0.000001 to 1000, got 0",
    );
    expect(&verb(&station, &["teach", "Board", &first]), 64, "template id \"Board/main\": product/view wanted");
    let blank = station.path("blank.png");
    ssds::frame::save_gray_png(&blank, &ssds::frame::Gray::from_fn(200, 200, |_, _| 128)).unwrap();
    let refused = verb(&station, &["teach", "board", &blank.to_string_lossy()]);
    assert!(!refused.status.success() && text(&refused).contains("blank.png"), "{}", text(&refused));
    let list = json(&station, &["template", "list", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 2, "what was refused left no version: {list}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(walk(&path)) } else { out.push(path) }
    }
    out
}

#[test]
fn a_template_proves_itself_by_the_recipe_it_will_run_with() {
    let station = Station::new(free_port(), "mqtt.enabled = false");
    let template = root().join("tests/data/demo/template.png").to_string_lossy().into_owned();
    let recipe = station.path("r.toml");
    std::fs::write(
        &recipe,
        "recipe_version = 1\nproduct = \"board\"\ndetector = \"variation\"\n[align]\nmax_rotation_degrees = 3\n\
         [[zone]]\nname = \"left\"\npolygon = [[0, 0], [150, 0], [150, 200], [0, 200]]\n",
    )
    .unwrap();
    let (recipe, sheet) = (recipe.to_string_lossy().into_owned(), station.path("proof.png"));
    let args = ["teach", "board", &template, "--prove", "--parts", "24", "--recipe", &recipe, "--json", "--sheet"];
    let answer = json(&station, &[&args[..], &[&*sheet.to_string_lossy()]].concat());
    let proof = &answer["proof"];
    assert_eq!((&proof["good"], &proof["wrong_poses"]), (&24.into(), &0.into()), "{proof}");
    assert!(proof["min_confidence"].as_f64().unwrap() > proof["confidence_limit"].as_f64().unwrap(), "{proof}");
    let zones: Vec<&str> = proof["zones"].as_array().unwrap().iter().map(|z| z["zone"].as_str().unwrap()).collect();
    assert!(zones.contains(&"left") && zones.contains(&""), "{zones:?}");
    let (width, height) = image::image_dimensions(&sheet).unwrap();
    assert!(width > 400 && height > 400, "{width}x{height}");
    let output = verb(&station, &["teach", "board", &template, "--prove", "--parts", "4", "--recipe", &recipe]);
    expect(&output, 0, "false-reject rate");
    expect(&output, 0, "proof [##############################] 8/8 parts");
}

#[test]
fn templates_of_real_boards_are_taught() {
    let Some(shared) = shared() else {
        return skipped("templates_of_real_boards_are_taught", "no shared data (SSDS_SHARED or ../shared)");
    };
    let data = shared.join("data/deeppcb/PCBData");
    let list = std::fs::read_to_string(data.join("test.txt")).unwrap();
    let station = Station::new(free_port(), "mqtt.enabled = false");
    let images: Vec<&str> = list
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .map(|p| p.trim_end_matches(".jpg"))
        .step_by(60)
        .take(5)
        .collect();
    for (i, image) in images.iter().enumerate() {
        let template = data.join(format!("{image}_temp.jpg")).to_string_lossy().into_owned();
        let taught = json(&station, &["teach", &format!("pcb{i}"), &template, "--json"]);
        assert_eq!((&taught["active"], &taught["size_px"]), (&true.into(), &serde_json::json!([640, 640])), "{taught}");
    }
    expect(&verb(&station, &["template", "verify"]), 0, "0 problems");
    assert_eq!(json(&station, &["template", "list", "--json"]).as_array().unwrap().len(), images.len());
}
