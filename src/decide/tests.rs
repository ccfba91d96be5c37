//! The decision against a plain one written from the definitions: flood fill, full scans, no runs.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::error::Kind;
use crate::geometry::Rect;

/// A blob as the plain reference sees it.
#[derive(Debug, Clone, PartialEq)]
struct Plain {
    bbox: Rect,
    area: usize,
    level_max: u16,
    level_sum: u64,
    zone: u8,
    pixels: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Case {
    map: Map,
    valid: Gray,
    /// Zone label of every frame pixel; 0 = outside all.
    zone_of: Gray,
    zones: Vec<Zone>,
    settings: Settings,
}

/// Defects by the definitions, in scan order of their first pixel.
fn reference(case: &Case) -> Vec<Plain> {
    let (w, h) = case.map.size();
    let s = &case.settings;
    let margin = s.edge_margin_px as i64;
    let judged = |x: i64, y: i64| {
        (-margin..=margin).all(|dy| {
            (-margin..=margin).all(|dx| {
                let (x, y) = (x + dx, y + dy);
                x >= 0 && y >= 0 && x < w as i64 && y < h as i64 && case.valid.get(x as usize, y as usize) != 0
            })
        })
    };
    let rule = |zone: u8| -> Option<(f64, f64, usize, usize)> {
        let zone = (zone > 0).then(|| &case.zones[zone as usize - 1]);
        if zone.is_some_and(|z| z.role == Role::Ignore) {
            return None;
        }
        let high = zone.and_then(|z| z.threshold).unwrap_or(s.threshold);
        let low = match zone.and_then(|z| z.low_threshold) {
            Some(low) => low,
            None => s.low_threshold.map_or(high, |l| l.min(high)),
        };
        let min_area = zone.and_then(|z| z.min_area_px).unwrap_or(s.min_area_px);
        Some((high.into(), low.into(), min_area, zone.and_then(|z| z.min_size_px).unwrap_or(s.min_size_px)))
    };
    let level_at = |x: usize, y: usize| (f64::from(case.map.get(x, y)) * 65535.0).round() as u16;
    let state = |x: usize, y: usize| -> (bool, bool) {
        match rule(case.zone_of.get(x, y)) {
            Some((high, low, ..)) if judged(x as i64, y as i64) => {
                let score = f64::from(level_at(x, y)) / 65535.0;
                (score >= low, score >= high)
            }
            _ => (false, false),
        }
    };
    let fill = |member: &dyn Fn(usize, usize) -> bool, reach: i64| -> Vec<Vec<(usize, usize)>> {
        let mut seen = Gray::new(w, h);
        let mut out = Vec::new();
        for y in 0..h {
            for x in 0..w {
                if seen.get(x, y) != 0 || !member(x, y) {
                    continue;
                }
                seen.set(x, y, 1);
                let mut pixels = vec![(x, y)];
                let mut next = 0;
                while next < pixels.len() {
                    let (cx, cy) = pixels[next];
                    next += 1;
                    for ny in (cy as i64 - reach).max(0)..=(cy as i64 + reach).min(h as i64 - 1) {
                        for nx in (cx as i64 - reach).max(0)..=(cx as i64 + reach).min(w as i64 - 1) {
                            let (nx, ny) = (nx as usize, ny as usize);
                            if seen.get(nx, ny) == 0 && member(nx, ny) {
                                seen.set(nx, ny, 1);
                                pixels.push((nx, ny));
                            }
                        }
                    }
                }
                out.push(pixels);
            }
        }
        out
    };
    let mut kept = Gray::new(w, h);
    for piece in fill(&|x, y| state(x, y).0, 1) {
        if piece.iter().any(|&(x, y)| state(x, y).1) {
            piece.iter().for_each(|&(x, y)| kept.set(x, y, 1));
        }
    }
    let mut out = Vec::new();
    for mut pixels in fill(&|x, y| kept.get(x, y) != 0, s.merge_distance_px as i64 + 1) {
        let mut per_zone: HashMap<u8, usize> = HashMap::new();
        for &(x, y) in &pixels {
            *per_zone.entry(case.zone_of.get(x, y)).or_default() += 1;
        }
        let (&zone, _) = per_zone.iter().max_by_key(|&(&z, &n)| (n, std::cmp::Reverse(z))).unwrap();
        let (_, _, min_area, min_size) = rule(zone).unwrap();
        let (x0, y0) = (pixels.iter().map(|p| p.0).min().unwrap(), pixels.iter().map(|p| p.1).min().unwrap());
        let (x1, y1) = (pixels.iter().map(|p| p.0).max().unwrap(), pixels.iter().map(|p| p.1).max().unwrap());
        if pixels.len() < min_area || (x1 - x0 + 1).max(y1 - y0 + 1) < min_size {
            continue;
        }
        pixels.sort_unstable();
        out.push(Plain {
            bbox: Rect { x: x0, y: y0, width: x1 - x0 + 1, height: y1 - y0 + 1 },
            area: pixels.len(),
            level_max: pixels.iter().map(|&(x, y)| level_at(x, y)).max().unwrap(),
            level_sum: pixels.iter().map(|&(x, y)| u64::from(level_at(x, y))).sum(),
            zone,
            pixels,
        });
    }
    out
}

fn zone(name: &str, role: Role, mask: Gray) -> Zone {
    Zone {
        name: name.into(),
        role,
        shape: Shape::Mask(mask),
        threshold: None,
        low_threshold: None,
        min_area_px: None,
        min_size_px: None,
    }
}

prop_compose! {
    fn any_case()(
        w in 1usize..40,
        h in 1usize..24,
        threshold in prop::sample::select(vec![0.3f32, 0.5, 0.7]),
        low in prop::sample::select(vec![None, Some(0.1f32), Some(0.3)]),
        min_area in 1usize..6,
        min_size in 1usize..4,
        margin in 0usize..4,
        gap in 0usize..4,
        with_zones in any::<bool>(),
    )(
        scores in prop::collection::vec(prop::sample::select(vec![0.0f32, 0.0, 0.0, 0.2, 0.31, 0.49999, 0.5, 0.6, 0.95, 1.0]), w * h),
        holes in prop::collection::vec(0u8..40, w * h),
        zone_of in prop::collection::vec(0u8..4, w * h),
        settings in Just(Settings {
            threshold, low_threshold: low, min_area_px: min_area, min_size_px: min_size, edge_margin_px: margin, merge_distance_px: gap,
            ..Settings::default()
        }),
        w in Just(w), h in Just(h), with_zones in Just(with_zones),
    ) -> Case {
        let zone_of = if with_zones { Gray::from_vec(w, h, zone_of).unwrap() } else { Gray::new(w, h) };
        let painted = |label: u8| Gray::from_fn(w, h, |x, y| if zone_of.get(x, y) == label { 255 } else { 0 });
        let zones = vec![
            Zone { threshold: Some(0.9), min_area_px: Some(2), min_size_px: Some(3), ..zone("strict", Role::Inspect, painted(1)) },
            zone("void", Role::Ignore, painted(2)),
            Zone { threshold: Some(0.4), low_threshold: Some(0.25), ..zone("loose", Role::Inspect, painted(3)) },
        ];
        Case {
            map: Map::from_vec(w, h, scores).unwrap(),
            valid: Gray::from_vec(w, h, holes.iter().map(|&v| if v == 0 { 0 } else { 255 }).collect()).unwrap(),
            zone_of,
            zones: if with_zones { zones } else { Vec::new() },
            settings: Settings { low_threshold: settings.low_threshold.map(|l| l.min(settings.threshold)), ..settings },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_decision_equals_a_flood_fill_by_the_definitions(case in any_case()) {
        let (w, h) = case.map.size();
        let map = match ZoneMap::new((w, h), case.zones.clone(), true, &case.settings) {
            Ok(map) => Some(map),
            // A zone without a pixel is refused; such a draw says nothing about the decision.
            Err(e) => { prop_assert!(e.to_string().contains("holds no pixel"), "{e}"); None }
        };
        prop_assume!(map.is_some() || case.zones.is_empty());
        let placed = map.as_ref().map(|map| PlacedZones { map, template_from_frame: &Affine::IDENTITY });
        let gray = Gray::new(w, h);
        let mut decider = Decider::new();
        // A second frame through the same scratch must not remember the first.
        let noise = Map::from_fn(50, 30, |x, y| ((x * 7 + y * 13) % 11) as f32 / 11.0);
        let blank = Gray::new(50, 30);
        decider.decide(&noise, &Gray::from_fn(50, 30, |_, _| 255), &blank, &blank, &case.settings).unwrap();
        let decision = decider.decide_zones(&case.map, &case.valid, &gray, &gray, &case.settings, placed).unwrap();

        let mut expected = reference(&case);
        prop_assert_eq!(decision.blobs_total, expected.len());
        prop_assert_eq!(decision.verdict, if expected.is_empty() { Verdict::Ok } else { Verdict::Ng });
        prop_assert_eq!(decision.ng_area_px, expected.iter().map(|p| p.area).sum::<usize>());
        let mut mask = Gray::default();
        decider.draw_mask((w, h), &mut mask);
        let mut drawn = Gray::new(w, h);
        expected.iter().flat_map(|p| &p.pixels).for_each(|&(x, y)| drawn.set(x, y, 255));
        prop_assert_eq!(&mask, &drawn);
        // Largest first; the reference is in scan order of the first pixel, and the sort is stable.
        expected.sort_by_key(|p| std::cmp::Reverse(p.area));
        for (blob, plain) in decision.blobs.iter().zip(&expected) {
            prop_assert_eq!(blob.bbox, plain.bbox);
            prop_assert_eq!(blob.area_px, plain.area);
            prop_assert_eq!(blob.score_max, f32::from(plain.level_max) / 65535.0);
            let mean = plain.level_sum as f64 / plain.area as f64 / 65535.0;
            prop_assert!((f64::from(blob.score_mean) - mean).abs() < 1e-6);
            let cx = plain.pixels.iter().map(|p| p.0 as f64).sum::<f64>() / plain.area as f64;
            let cy = plain.pixels.iter().map(|p| p.1 as f64).sum::<f64>() / plain.area as f64;
            prop_assert!((f64::from(blob.centroid.0) - cx).abs() < 1e-3 && (f64::from(blob.centroid.1) - cy).abs() < 1e-3);
            let name = if plain.zone == 0 { "" } else { &*case.zones[plain.zone as usize - 1].name };
            prop_assert_eq!(&*blob.zone, name);
        }
    }

    #[test]
    fn a_stored_map_is_decided_alike(
        scores in prop::collection::vec(0.0f32..1.0, 300),
        grays in prop::collection::vec(any::<(u8, u8)>(), 300),
        threshold in 0.01f32..1.0,
    ) {
        let map = Map::from_vec(20, 15, scores).unwrap();
        let stored = Map::from_vec(20, 15, map.data().iter().map(|&v| f32::from((v * 65535.0).round() as u16) / 65535.0).collect()).unwrap();
        let full = Gray::from_fn(20, 15, |_, _| 255);
        let frame = Gray::from_vec(20, 15, grays.iter().map(|g| g.0).collect()).unwrap();
        let warped = Gray::from_vec(20, 15, grays.iter().map(|g| g.1).collect()).unwrap();
        let settings = Settings { threshold, min_area_px: 1, edge_margin_px: 0, merge_distance_px: 0, ..Settings::default() };
        let mut decider = Decider::new();
        let a = decider.decide(&map, &full, &frame, &warped, &settings).unwrap();
        prop_assert_eq!(a, decider.decide(&stored, &full, &frame, &warped, &settings).unwrap());
    }
}

fn full(w: usize, h: usize) -> Gray {
    Gray::from_fn(w, h, |_, _| 255)
}

#[test]
fn levels_equal_those_of_a_stored_map() {
    for i in 0..=65535u32 {
        for v in [i as f32 / 65535.0, (i as f32 + 0.5) / 65535.0, (i as f32 + 0.49) / 65535.0] {
            assert_eq!(runs::level(v), (v.clamp(0.0, 1.0) * 65535.0).round() as u16, "{v}");
        }
    }
    for t in [0.5f32, 0.1, 0.98, 1.0, 1e-6] {
        let level = runs::threshold_level(t);
        assert!(f64::from(level) / 65535.0 >= f64::from(t) && f64::from(level - 1) / 65535.0 < f64::from(t), "{t}");
    }
}

#[test]
fn a_score_that_is_not_finite_is_named() {
    let (gray, mut decider) = (Gray::new(30, 9), Decider::new());
    for (bad, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        for at in [(0, 0), (17, 4), (29, 8)] {
            let mut map = Map::new(30, 9);
            map.set(at.0, at.1, bad);
            // Even where the template does not cover the frame: a network that says NaN anywhere cannot be trusted elsewhere.
            let error = decider.decide(&map, &Gray::new(30, 9), &gray, &gray, &Settings::default()).unwrap_err();
            assert_eq!(error.kind(), Kind::Data);
            assert_eq!(
                error.to_string(),
                format!("defect map: score {word} at ({}, {}), a finite number was wanted", at.0, at.1)
            );
        }
    }
}

#[test]
fn pictures_of_two_sizes_are_refused() {
    let (map, gray) = (Map::new(4, 3), Gray::new(4, 3));
    let error = Decider::new().decide(&map, &gray, &Gray::new(3, 4), &gray, &Settings::default()).unwrap_err();
    assert_eq!(error.to_string(), "frame of 3x4 px beside a defect map of 4x3 px: one size wanted");
}

#[test]
fn settings_out_of_range_are_all_named() {
    let bad = Settings {
        threshold: f32::NAN,
        low_threshold: Some(0.0),
        min_area_px: 0,
        min_size_px: 0,
        edge_margin_px: 2000,
        merge_distance_px: 101,
        ..Settings::default()
    };
    assert_eq!(
        bad.faults(),
        [
            "threshold must be above 0 and at most 1, got NaN",
            "low_threshold must be above 0 and at most threshold (NaN), got 0",
            "min_area_px must be at least 1, got 0",
            "min_size_px must be at least 1, got 0",
            "edge_margin_px must be at most 1000, got 2000",
            "merge_distance_px must be at most 100, got 101",
        ]
    );
    assert!(Settings::default().faults().is_empty());
    let higher = Settings { low_threshold: Some(0.6), ..Settings::default() };
    assert_eq!(higher.faults(), ["low_threshold must be above 0 and at most threshold (0.5), got 0.6"]);
}

#[test]
fn limits_let_small_defects_pass() {
    let mut map = Map::new(60, 20);
    for (x, n) in [(5, 3), (25, 5)] {
        for y in 5..5 + n {
            map.row_mut(y)[x..x + n].fill(0.9);
        }
    }
    let gray = Gray::new(60, 20);
    let decide = |s: Settings| Decider::new().decide(&map, &full(60, 20), &gray, &gray, &s).unwrap();
    let strict = decide(Settings::default());
    assert_eq!((strict.verdict, strict.ng_area_px), (Verdict::Ng, 34));
    assert_eq!(strict.violations, [Violation::Count { found: 2, allowed: 0 }]);
    let two = Settings { max_defects: 2, ..Settings::default() };
    assert_eq!(decide(two.clone()).verdict, Verdict::Ok);
    assert_eq!(
        decide(Settings { max_defect_area_px: Some(24), max_total_area_px: Some(33), ..two }).violations,
        [Violation::Area { found: 25, allowed: 24 }, Violation::TotalArea { found: 34, allowed: 33 }]
    );
}

#[test]
fn signs_follow_the_gray_and_not_the_light() {
    // The frame is 30 gray values brighter everywhere; one blob is 100 brighter on top, one 80 darker, one half and half.
    let (w, h) = (90, 30);
    let template = Gray::from_fn(w, h, |_, _| 100);
    let mut frame = Gray::from_fn(w, h, |_, _| 130);
    let mut map = Map::new(w, h);
    for y in 10..20 {
        map.row_mut(y)[10..20].fill(0.8);
        frame.row_mut(y)[10..20].fill(230);
        map.row_mut(y)[40..50].fill(0.8);
        frame.row_mut(y)[40..50].fill(50);
        map.row_mut(y)[70..80].fill(0.8);
        frame.row_mut(y)[70..75].fill(230);
        frame.row_mut(y)[75..80].fill(50);
    }
    let signs = |polarity| -> Vec<(usize, Sign, f32)> {
        let settings = Settings { polarity, ..Settings::default() };
        let d = Decider::new().decide(&map, &full(w, h), &frame, &template, &settings).unwrap();
        d.blobs.iter().map(|b| (b.bbox.x, b.sign, b.mean_gray_difference)).collect()
    };
    assert_eq!(signs(Polarity::Bright), [(10, Sign::Added, 100.0), (40, Sign::Missing, -80.0), (70, Sign::Mixed, 10.0)]);
    assert_eq!(signs(Polarity::Dark), [(10, Sign::Missing, 100.0), (40, Sign::Added, -80.0), (70, Sign::Mixed, 10.0)]);
}

fn polygon(name: &str, role: Role, corners: &[(f64, f64)]) -> Zone {
    Zone { shape: Shape::Polygon(corners.to_vec()), ..zone(name, role, Gray::default()) }
}

#[test]
fn zones_follow_the_pose() {
    // An ignore zone in the template's left half; the part lies turned by 180 degrees, so it is the frame's right half.
    let (w, h) = (100, 80);
    let zones = vec![polygon("left", Role::Ignore, &[(-0.5, -0.5), (49.5, -0.5), (49.5, 79.5), (-0.5, 79.5)])];
    let settings = Settings { edge_margin_px: 0, ..Settings::default() };
    let map_of = ZoneMap::new((w, h), zones, true, &settings).unwrap();
    assert_eq!(map_of.labels().data().iter().filter(|&&v| v == 1).count(), 50 * 80);
    let pose = Affine::about_centres(std::f64::consts::PI, 1.0, 0.0, 0.0, (w, h), (w, h));
    let mut map = Map::new(w, h);
    for y in 10..20 {
        map.row_mut(y)[10..20].fill(0.8);
        map.row_mut(y)[70..80].fill(0.8);
    }
    let gray = Gray::new(w, h);
    let placed = PlacedZones { map: &map_of, template_from_frame: &pose.invert().unwrap() };
    let d = Decider::new().decide_zones(&map, &full(w, h), &gray, &gray, &settings, Some(placed)).unwrap();
    assert_eq!(d.blobs.iter().map(|b| b.bbox.x).collect::<Vec<_>>(), [10]);
    let settings = Settings { zones: Some(std::sync::Arc::new(map_of)), ..settings };
    let same = Decider::new().decide_posed(&map, &full(w, h), &gray, &gray, &settings, &pose).unwrap();
    assert_eq!(same, d);
    let error = Decider::new().decide(&map, &full(w, h), &gray, &gray, &settings).unwrap_err();
    assert_eq!(error.to_string(), "the decision's settings have zones, so the pose is wanted too");
}

#[test]
fn only_the_zones_are_judged_when_told_so() {
    let (w, h) = (40, 40);
    let zones = vec![polygon("pads", Role::Inspect, &[(5.0, 5.0), (20.0, 5.0), (20.0, 20.0), (5.0, 20.0)])];
    let settings = Settings { edge_margin_px: 0, ..Settings::default() };
    let mut map = Map::new(w, h);
    for y in 8..12 {
        map.row_mut(y)[8..12].fill(0.8);
        map.row_mut(y)[30..34].fill(0.9);
    }
    let gray = Gray::new(w, h);
    for (outside, expected) in [(true, vec!["pads", ""]), (false, vec!["pads"])] {
        let zones = ZoneMap::new((w, h), zones.clone(), outside, &settings).unwrap();
        let placed = PlacedZones { map: &zones, template_from_frame: &Affine::IDENTITY };
        let d = Decider::new().decide_zones(&map, &full(w, h), &gray, &gray, &settings, Some(placed)).unwrap();
        assert_eq!(d.blobs.iter().map(|b| &*b.zone).collect::<Vec<_>>(), expected);
        assert_eq!(d.max_score, if outside { runs::score(runs::level(0.9)) } else { runs::score(runs::level(0.8)) });
    }
}

#[test]
fn bad_zones_are_refused_all_at_once() {
    let square = |x: f64| [(x, 2.0), (x + 10.0, 2.0), (x + 10.0, 12.0), (x, 12.0)];
    let zones = vec![
        polygon("line", Role::Inspect, &[(1.0, 1.0), (2.0, 2.0)]),
        polygon("out", Role::Inspect, &[(1.0, 1.0), (64.0, 1.0), (1.0, 9.0)]),
        polygon("bow", Role::Ignore, &[(1.0, 1.0), (9.0, 9.0), (9.0, 1.0), (1.0, 9.0)]),
        polygon("nan", Role::Ignore, &[(f64::NAN, 1.0), (9.0, 9.0), (9.0, 1.0)]),
        zone("mask", Role::Ignore, Gray::new(32, 31)),
        zone("empty", Role::Ignore, Gray::new(32, 32)),
        polygon("a", Role::Inspect, &square(4.0)),
        polygon("b", Role::Inspect, &square(9.5)),
        Zone { threshold: Some(2.0), ..polygon("a", Role::Ignore, &square(4.0)) },
    ];
    let error = ZoneMap::new((32, 32), zones, true, &Settings::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Config);
    let faults: Vec<_> = error.to_string().split("; ").map(str::to_owned).collect();
    assert_eq!(
        faults,
        [
            "zone \"line\": polygon of 2 corners, at least 3 wanted",
            "zone \"out\": corner (64, 1) lies outside the template of 32x32 px",
            "zone \"bow\": the edge from (1, 1) crosses or touches the edge from (9, 1)",
            "zone \"nan\": corner (NaN, 1) lies outside the template of 32x32 px",
            "zone \"mask\": mask of 32x31 px, the template's 32x32 px wanted",
            "zone \"empty\": holds no pixel of the template",
            "zone \"a\": threshold must be above 0 and at most 1, got 2",
            "zones \"a\" and \"b\": they share 40 px, inspect zones must be apart or nested",
            "zone \"a\": the name is used twice",
        ]
    );
}

proptest! {
    #[test]
    fn a_painted_polygon_holds_the_pixels_whose_centre_is_inside(
        corners in prop::collection::vec((0.0f64..40.0, 0.0f64..30.0), 3..9),
    ) {
        // Corners ordered by angle about their mean make a polygon that does not cross itself.
        let n = corners.len() as f64;
        let (cx, cy) = (corners.iter().map(|c| c.0).sum::<f64>() / n, corners.iter().map(|c| c.1).sum::<f64>() / n);
        let mut corners = corners;
        corners.sort_by(|a, b| (a.1 - cy).atan2(a.0 - cx).total_cmp(&(b.1 - cy).atan2(b.0 - cx)));
        let Ok(zones) = ZoneMap::new((40, 30), vec![polygon("z", Role::Inspect, &corners)], true, &Settings::default()) else {
            return Ok(());
        };
        for y in 0..30 {
            for x in 0..40 {
                // Ray to the right; a centre exactly on an edge has probability nil here.
                let inside = (0..corners.len()).filter(|&i| {
                    let (a, b) = (corners[i], corners[(i + 1) % corners.len()]);
                    (a.1 <= y as f64) != (b.1 <= y as f64) && a.0 + (y as f64 - a.1) * (b.0 - a.0) / (b.1 - a.1) > x as f64
                }).count() % 2 == 1;
                prop_assert_eq!(zones.labels().get(x, y) == 1, inside, "({}, {})", x, y);
            }
        }
    }
}
