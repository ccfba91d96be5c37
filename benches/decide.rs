//! Decision, what-if and recipe switch: `cargo bench --bench decide`.
//!
//! The maps carry what a network leaves: noise far below the threshold, 24 defects of 5 to 40 px, a rotated cover. One core.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use ssds::align;
use ssds::decide::{Decider, Role, Settings, Shape, Zone, ZoneMap};
use ssds::frame::{Gray, Map};
use ssds::geometry::Affine;
use ssds::pipeline::job::Product;
use ssds::record::archive::Archive;
use ssds::record::archive::replay::{Replayer, Seen, settings_of, verdict_of};
use ssds::record::archive::writer::{Counts, Part, Settings as ArchiveSettings, Writer};
use ssds::record::event::InspectionEvent;
use ssds::simulate::part;
use ssds::telemetry::Telemetry;
use ssds::template::{Meta, Template};

/// A frame as the line has it after the network.
struct Scene {
    map: Map,
    valid: Gray,
    frame: Gray,
    warped: Gray,
    pose: Affine,
}

fn scene(w: usize, h: usize) -> Scene {
    let pose = Affine::about_centres(0.05, 0.98, 3.0, -2.0, (w, h), (w, h));
    let back = pose.invert().expect("a similarity");
    let valid = Gray::from_fn(w, h, |x, y| {
        let (tx, ty) = back.apply(x as f64, y as f64);
        if tx >= 0.0 && ty >= 0.0 && tx < w as f64 && ty < h as f64 { 255 } else { 0 }
    });
    let mut state = 1u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0
    };
    let warped = Gray::from_fn(w, h, |x, y| if (x / 17 + y / 13) % 2 == 0 { 60 } else { 180 });
    let mut frame = Gray::from_fn(w, h, |x, y| warped.get(x, y).saturating_add((noise() * 8.0) as u8));
    let mut map = Map::from_fn(w, h, |x, y| if valid.get(x, y) == 0 { 0.0 } else { noise() * 0.05 });
    for i in 0..24 {
        let (cx, cy, side) = (w / 8 + (i * 37) % (w * 3 / 4), h / 8 + (i * 53) % (h * 3 / 4), 5 + (i * 7) % 36);
        for y in cy..(cy + side).min(h) {
            for x in cx..(cx + side).min(w) {
                map.set(x, y, 0.6 + 0.4 * noise());
                frame.set(x, y, 240);
            }
        }
    }
    Scene { map, valid, frame, warped, pose }
}

fn zones(size: (usize, usize), settings: &Settings) -> Settings {
    let (w, h) = (size.0 as f64, size.1 as f64);
    let zone = |name: &str, role, x: f64| Zone {
        name: name.into(),
        role,
        shape: Shape::Polygon(vec![(x, 0.1 * h), (x + 0.3 * w, 0.1 * h), (x + 0.3 * w, 0.9 * h), (x, 0.9 * h)]),
        threshold: Some(0.4),
        low_threshold: None,
        min_area_px: None,
        min_size_px: None,
    };
    let list = vec![zone("left", Role::Inspect, 0.1 * w), zone("right", Role::Ignore, 0.6 * w)];
    let map = ZoneMap::new(size, list, true, settings).expect("zones within the template");
    Settings { zones: Some(Arc::new(map)), ..settings.clone() }
}

fn decide(c: &mut Criterion) {
    let settings = Settings { low_threshold: Some(0.3), ..Settings::default() };
    for (name, (w, h)) in [("640x640", (640, 640)), ("2448x2048", (2448, 2048))] {
        let s = scene(w, h);
        let mut decider = Decider::new();
        let mut group = c.benchmark_group("decide");
        group.throughput(Throughput::Elements((w * h) as u64));
        for (kind, settings) in [("plain", settings.clone()), ("zones", zones((w, h), &settings))] {
            group.bench_function(format!("{name}/{kind}"), |b| {
                b.iter(|| decider.decide_posed(&s.map, &s.valid, &s.frame, &s.warped, black_box(&settings), &s.pose));
            });
        }
        group.finish();
    }
}

fn what_if(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let settings = ArchiveSettings {
        root: dir.path().join("archive"),
        state: dir.path().to_owned(),
        station: "bench".into(),
        max_ok_bytes: 1 << 30,
        max_ng_bytes: 1 << 30,
        max_error_bytes: 1 << 30,
        min_free_bytes: 0,
    };
    let (s, decision_settings) = (scene(640, 640), Settings::default());
    let decision = Decider::new()
        .decide_posed(&s.map, &s.valid, &s.frame, &s.warped, &decision_settings, &s.pose)
        .expect("the scene is sound");
    let mut writer = Writer::new(settings.clone(), Counts::new(&Telemetry::new()));
    writer.ready().expect("a new archive");
    let keep = |writer: &mut Writer| {
        let event = InspectionEvent { event_id: uuid::Uuid::now_v7().to_string(), ..InspectionEvent::example() };
        let part = Part {
            event: &event,
            frame: &s.frame,
            template: Some(((640, 640), "00")),
            pose: Some((&s.pose, true, 0.9)),
            aligned: Some((&s.warped, &s.valid)),
            decided: Some((&s.map, &decision_settings, &decision)),
            detector: "ssds",
            recipe_sha256: None,
            overlay: None,
        };
        writer.keep(&part).expect("there is room");
    };
    (0..8).for_each(|_| keep(&mut writer));
    let entries = Archive::open(&settings.root).and_then(|a| a.entries()).expect("just written");
    let mut replayer = Replayer::default();
    let mut group = c.benchmark_group("archive 640x640");
    group.throughput(Throughput::Elements(1));
    let mut next = entries.iter().cycle();
    group.bench_function("what-if, one event on one core", |b| {
        b.iter(|| {
            let entry = next.next().expect("a cycle");
            let manifest = entry.manifest().expect("sound");
            let settings = settings_of(entry, &manifest).expect("sound");
            let seen = Seen::scores(entry, &manifest).expect("sound");
            verdict_of(&replayer.decide(&seen, &settings).expect("sound"))
        });
    });
    group.sample_size(10);
    group.bench_function("keep one event", |b| b.iter(|| keep(&mut writer)));
    group.finish();
}

fn recipe_switch(c: &mut Criterion) {
    let mut group = c.benchmark_group("recipe switch");
    group.sample_size(10);
    for (w, h) in [(256, 256), (640, 640)] {
        let picture = part::product(3, (w, h)).expect("a design");
        let template = Template::loose("bench/main", picture, Meta::at(ssds::clock::Timestamp::UNIX_EPOCH)).expect("a name");
        let template = Arc::new(template);
        let settings = zones((w, h), &Settings::default());
        group.bench_function(format!("prepare the product, template {w}x{h}"), |b| {
            b.iter(|| Product::new(vec![(Arc::clone(&template), settings.clone())], &align::Settings::default()).expect("sound"));
        });
    }
    group.finish();
}

criterion_group!(benches, decide, what_if, recipe_switch);
criterion_main!(benches);
