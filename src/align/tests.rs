//! The whole chain against frames rendered from known poses.

use proptest::prelude::*;

use super::testing::{Scene, board, normal, random};
use super::*;
use crate::frame::Gray;
use crate::geometry::Rect;

/// Corner error, px, that a clean rendered pair must stay under: the rounding of both pictures to 8 bits and the 3x3-point rendering
/// leave about a hundredth.
const CLEAN_PX: f64 = 0.1;

fn settings() -> Settings {
    Settings { fallback_threads: 1, ..Settings::default() }
}

fn align(template: &Gray, frame: &Gray, settings: &Settings) -> Registration {
    let model = TemplateModel::new(template, None, settings).unwrap();
    Aligner::new(settings).align(&model, frame)
}

/// Light of a middling camera: gain, offset, gradient, a little noise.
fn camera(seed: u64, width: usize) -> impl Fn(f64, usize, usize) -> f64 {
    let noise = std::cell::RefCell::new(random(seed));
    move |v, x, _| v * (0.8 + 0.2 * x as f64 / width as f64) + 12.0 + 2.0 * normal(&mut noise.borrow_mut())
}

fn assert_finite(r: &Registration) {
    assert!(r.frame_from_template.is_finite(), "{r:?}");
    for v in [r.confidence, r.ncc, r.psr, r.visible_share, r.inlier_share, r.margin] {
        assert!(v.is_finite(), "{r:?}");
    }
    assert_eq!(r.accepted, r.refusal.is_none());
}

/// 24 cases, or fewer where PROPTEST_CASES says so (emulation is slow).
fn cases() -> ProptestConfig {
    let base = ProptestConfig::default();
    ProptestConfig { cases: base.cases.min(24), ..base }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_known_similarity_is_recovered(
        seed in 0u64..1000, rotation in -3.1f64..3.1, scale in 0.8f64..1.25, dx in -25.0f64..25.0, dy in -25.0f64..25.0
    ) {
        let (scene, template) = (Scene::new(seed), board(192, 192, seed));
        let truth = Affine::about_centres(rotation, scale, dx, dy, (192, 192), (192, 192));
        let frame = scene.render(192, 192, &truth, camera(seed, 192));
        let r = align(&template, &frame, &settings());
        prop_assert!(r.accepted, "{r:?}");
        let error = r.frame_from_template.corner_error(&truth, 192, 192);
        prop_assert!(error < CLEAN_PX, "{error} {r:?}");
    }

    #[test]
    fn sizes_and_shapes_may_differ(
        seed in 0u64..1000, rotation in -3.1f64..3.1, tw in 150usize..280, th in 150usize..280, fw in 180usize..300, fh in 180usize..300
    ) {
        let template = board(tw, th, seed);
        let truth = Affine::about_centres(rotation, 0.95, 6.0, -4.0, (tw, th), (fw, fh));
        let frame = Scene::new(seed).render(fw, fh, &truth, camera(seed, fw));
        let r = align(&template, &frame, &settings());
        prop_assert!(r.accepted, "{r:?}");
        prop_assert!(r.frame_from_template.corner_error(&truth, tw, th) < CLEAN_PX, "{r:?}");
    }

    #[test]
    fn no_frame_makes_a_panic_or_a_nan(
        width in 1usize..200, height in 1usize..200, low in 0u8..=255, high in 0u8..=255, seed in 0u64..1000, density in 0.0f64..1.0
    ) {
        let mut r = random(seed);
        let frame = Gray::from_fn(width, height, |_, _| if rand::RngExt::random::<f64>(&mut r) < density { high } else { low });
        let out = align(&board(128, 96, 1), &frame, &settings());
        assert_finite(&out);
        prop_assert!(!out.accepted, "{out:?}");
    }
}

#[test]
fn a_template_twice_or_half_the_frame_is_found() {
    for (t, f) in [((160, 160), (320, 300)), ((320, 300), (170, 160))] {
        let template = board(t.0, t.1, 11);
        let truth = Affine::about_centres(0.5, 1.0, 8.0, -5.0, t, f);
        let frame = Scene::new(11).render(f.0, f.1, &truth, camera(1, f.0));
        let r = align(&template, &frame, &Settings { min_visible_share: 0.2, ..settings() });
        assert!(r.accepted && r.frame_from_template.corner_error(&truth, t.0, t.1) < 2.0 * CLEAN_PX, "{t:?} in {f:?}: {r:?}");
    }
}

#[test]
fn twenty_megapixels_are_registered() {
    // A small board drawn four times as large; frames are moved by the warp, whose own tests hold it to its kernel.
    let (w, h) = (5472, 3648);
    let small = board(w / 4, h / 4, 5);
    let at = |x: usize, y: usize| u32::from(small.get(x.min(w / 4 - 1), y.min(h / 4 - 1)));
    let template = Gray::from_fn(w, h, |x, y| {
        let (i, j, u, v) = (x / 4, y / 4, (x % 4) as u32, (y % 4) as u32);
        let top = (4 - u) * at(i, j) + u * at(i + 1, j);
        let bottom = (4 - u) * at(i, j + 1) + u * at(i + 1, j + 1);
        (((4 - v) * top + v * bottom + 8) / 16) as u8
    });
    let truth = Affine::about_centres(0.8, 1.04, 150.0, -90.0, (w, h), (w, h));
    let (mut frame, mut valid) = (Gray::default(), Gray::default());
    warp::warp_template(&template, &truth, (w, h), &mut frame, &mut valid);
    let r = align(&template, &frame, &settings());
    assert!(r.accepted && r.frame_from_template.corner_error(&truth, w, h) < CLEAN_PX, "{r:?}");
}

/// A plain board with a few parts in one corner.
fn corner_board(dx: usize, dy: usize) -> Gray {
    let parts = board(90, 60, 8);
    Gray::from_fn(320, 320, |x, y| {
        let inside = (dx..dx + 90).contains(&x) && (dy..dy + 60).contains(&y);
        if inside { parts.get(x - dx, y - dy) } else { 215 }
    })
}

#[test]
fn structure_in_one_corner_is_enough_where_the_part_is_expected() {
    let template = corner_board(0, 0);
    for (dx, dy) in [(0, 0), (3, 2)] {
        let r = align(&template, &corner_board(dx, dy), &settings());
        let (x, y) = r.frame_from_template.apply(45.0, 30.0);
        assert!(r.accepted, "{dx} {dy}: {r:?}");
        assert!((x - 45.0 - dx as f64).hypot(y - 30.0 - dy as f64) < CLEAN_PX, "{dx} {dy}: {r:?}");
    }
    let r = align(&template, &board(320, 320, 3), &settings());
    assert!(!r.accepted, "{r:?}");
}

/// A plain board with half a disc at each lower corner, the two `apart` px further apart and `dy` px lower; turned about one disc's centre
/// it lays half of itself on it.
fn two_half_discs(apart: f64, dy: f64) -> Gray {
    Gray::from_fn(640, 640, |x, y| {
        let (x, y) = (x as f64, y as f64 - dy - 512.0);
        let near = (x + 60.0 + apart / 2.0).hypot(y).min((x - 726.0 - apart / 2.0).hypot(y));
        (255.0 * (near - 158.0 + 0.5).clamp(0.0, 1.0)) as u8
    })
}

#[test]
fn of_poses_that_fit_alike_the_expected_one_is_taken() {
    let mut frame = two_half_discs(12.0, -4.0);
    for (x, y) in (150..158).flat_map(|x| (490..504).map(move |y| (x, y))) {
        frame.set(x, y, 10);
    }
    let r = align(&two_half_discs(0.0, 0.0), &frame, &settings());
    assert!(r.accepted, "{r:?}");
    assert!(r.frame_from_template.rotation_rad().abs() < 0.03, "{r:?}");
}

/// A plain board that shows no more than the rims of three pads at its left border: too little to tell turn and scale from.
fn three_rims(dx: f64, dy: f64) -> Gray {
    Gray::from_fn(640, 640, |x, y| {
        let pad = |cy: f64| (x as f64 - dx + 6.0).hypot(y as f64 - dy - cy) - 24.0;
        (255.0 * (pad(140.0).min(pad(280.0)).min(pad(420.0)) + 0.5).clamp(0.0, 1.0)) as u8
    })
}

#[test]
fn little_structure_at_the_border_is_followed_by_its_shift() {
    let r = align(&three_rims(0.0, 0.0), &three_rims(-2.0, 1.5), &settings());
    assert!(r.accepted, "{r:?}");
    let error = r.frame_from_template.corner_error(&Affine::similarity(0.0, 1.0, -2.0, 1.5), 640, 640);
    assert!(error < CLEAN_PX, "{error} {r:?}");
    assert!(!align(&three_rims(0.0, 0.0), &board(640, 640, 3), &settings()).accepted);
}

#[test]
fn a_blank_template_goes_with_plain_frames_in_its_light_only() {
    let template = Gray::from_fn(200, 160, |_, _| 230);
    let spotted = Gray::from_fn(200, 160, |x, y| if (60..68).contains(&x) && (90..96).contains(&y) { 30 } else { 210 });
    let r = align(&template, &spotted, &settings());
    assert!(r.accepted && r.frame_from_template == Affine::IDENTITY, "{r:?}");
    assert_finite(&r);
    for frame in [board(200, 160, 2), Gray::new(200, 160)] {
        let r = align(&template, &frame, &settings());
        assert_eq!(r.refusal, Some(Refusal::BlankTemplate), "{r:?}");
        assert_finite(&r);
    }
}

#[test]
fn half_a_turn_is_told_from_none() {
    let template = board(200, 160, 4);
    for rotation in [0.0, std::f64::consts::PI] {
        let truth = Affine::about_centres(rotation, 1.0, 2.0, 3.0, (200, 160), (200, 160));
        let frame = Scene::new(4).render(200, 160, &truth, camera(4, 200));
        let r = align(&template, &frame, &settings());
        assert!(r.accepted && r.frame_from_template.corner_error(&truth, 200, 160) < CLEAN_PX, "{rotation}: {r:?}");
        assert!(r.margin > 0.3, "{r:?}");
    }
}

#[test]
fn frames_without_the_template_are_refused_with_a_reason() {
    let template = board(192, 192, 1);
    let mut noise = random(5);
    let noise_only = Gray::from_fn(192, 192, |_, _| (128.0 + 25.0 * normal(&mut noise)).clamp(0.0, 255.0) as u8);
    let cases = [
        (Gray::new(192, 192), Some(Refusal::Featureless)),
        (Gray::from_fn(192, 192, |_, _| 255), Some(Refusal::Featureless)),
        (noise_only, None),
        (board(192, 192, 77), None),
        (board(20, 20, 1), Some(Refusal::FrameSize)),
        (board(400, 192, 1), Some(Refusal::FrameSize)),
    ];
    for (k, (frame, want)) in cases.iter().enumerate() {
        let r = align(&template, frame, &settings());
        assert_finite(&r);
        assert!(!r.accepted, "case {k}: {r:?}");
        assert!(want.is_none() || r.refusal == *want, "case {k}: {r:?}");
    }
}

#[test]
fn a_pose_beyond_the_settings_is_refused() {
    let template = board(192, 192, 3);
    let truth = Affine::about_centres(0.5, 1.0, 0.0, 0.0, (192, 192), (192, 192));
    let frame = Scene::new(3).render(192, 192, &truth, camera(1, 192));
    let r = align(&template, &frame, &Settings { max_rotation_degrees: 27.0, ..settings() });
    assert_eq!(r.refusal, Some(Refusal::OutOfRange), "{r:?}");
    let r = align(&template, &frame, &Settings { max_rotation_degrees: 10.0, ..settings() });
    assert!(!r.accepted, "{r:?}");
}

#[test]
fn the_answer_does_not_depend_on_threads() {
    // A frame that does not match walks through everything.
    let (template, frame) = (board(192, 160, 1), board(192, 160, 2));
    let run = |threads| align(&template, &frame, &Settings { fallback_threads: threads, ..Settings::default() });
    let one = run(1);
    assert!(one.used_fallback);
    for threads in [2, 3, 8] {
        assert_eq!(run(threads), one, "{threads} threads");
    }
}

#[test]
fn scalar_and_vector_builds_give_the_same_pose() {
    /// Largest difference of the two answers, px: both stop within `stop_px` = 0.005 of the optimum.
    const PARITY_PX: f64 = 0.01;
    let template = board(256, 200, 8);
    let truth = Affine::about_centres(2.0, 1.1, 5.0, 9.0, (256, 200), (256, 220));
    let frame = Scene::new(8).render(256, 220, &truth, camera(3, 256));
    let model = TemplateModel::new(&template, None, &settings()).unwrap();
    let [a, b] = [Isa::scalar(), Isa::detect()].map(|isa| Aligner::with_isa(&settings(), isa).align(&model, &frame));
    assert!(a.accepted && b.accepted);
    assert!(a.frame_from_template.corner_error(&b.frame_from_template, 256, 200) < PARITY_PX, "{a:?} {b:?}");
    assert!((a.confidence - b.confidence).abs() < 1e-3);
}

#[test]
fn tracking_starts_from_the_last_pose_and_leaves_it_at_once() {
    let template = board(192, 192, 6);
    let s = Settings { track: true, ..settings() };
    let model = TemplateModel::new(&template, None, &s).unwrap();
    let mut aligner = Aligner::new(&s);
    let pose = |rotation: f64, dx: f64| Affine::about_centres(rotation, 1.0, dx, 0.0, (192, 192), (192, 192));
    let see = |truth: &Affine, seed: u64| Scene::new(6).render(192, 192, truth, camera(seed, 192));
    let first = aligner.align(&model, &see(&pose(0.3, 4.0), 1));
    assert!(first.accepted && !first.tracked);
    let near = aligner.align(&model, &see(&pose(0.305, 4.8), 2));
    assert!(near.accepted && near.tracked && near.frame_from_template.corner_error(&pose(0.305, 4.8), 192, 192) < CLEAN_PX);
    let far = aligner.align(&model, &see(&pose(-2.0, -12.0), 3));
    assert!(far.accepted && !far.tracked && far.frame_from_template.corner_error(&pose(-2.0, -12.0), 192, 192) < CLEAN_PX);
    assert!(!aligner.align(&model, &Gray::new(192, 192)).accepted);
    let again = aligner.align(&model, &see(&pose(-2.0, -12.0), 4));
    assert!(again.accepted && !again.tracked, "a refused frame ends tracking");
    aligner.forget_pose();
    assert!(!aligner.align(&model, &see(&pose(-2.0, -12.0), 5)).tracked);
}

#[test]
fn mask_and_region_leave_out_what_moves() {
    // The right third of the frame shows another board.
    let (template, other) = (board(240, 200, 12), board(240, 200, 13));
    let truth = Affine::about_centres(0.05, 1.0, 3.0, -2.0, (240, 200), (240, 200));
    let good = Scene::new(12).render(240, 200, &truth, camera(1, 240));
    let frame = Gray::from_fn(240, 200, |x, y| if x < 160 { good.get(x, y) } else { other.get(x, y) });
    let mask = Gray::from_fn(240, 200, |x, _| if x < 150 { 255 } else { 0 });
    let masked = TemplateModel::new(&template, Some(&mask), &settings()).unwrap();
    let s = Settings { region: Some(Rect { x: 0, y: 0, width: 150, height: 200 }), ..settings() };
    let region = TemplateModel::new(&template, None, &s).unwrap();
    let r = Aligner::new(&settings()).align(&masked, &frame);
    assert!(r.accepted && r.inlier_share > 0.95, "{r:?}");
    assert!(r.frame_from_template.corner_error(&truth, 240, 200) < CLEAN_PX, "{r:?}");
    assert_eq!(Aligner::new(&s).align(&region, &frame).frame_from_template, r.frame_from_template, "a region is a mask");
}

#[test]
fn the_affine_stage_follows_a_tilted_camera() {
    let template = board(256, 256, 21);
    let mut truth = Affine::about_centres(0.4, 1.0, 3.0, 1.0, (256, 256), (256, 256));
    // 1 % shear and 1 % stretch: two to three px at the corners, which no similarity can follow.
    truth = truth.compose(&Affine { m: [[1.01, 0.01, -2.0], [0.0, 0.995, 1.0]] });
    let frame = Scene::new(21).render(256, 256, &truth, camera(2, 256));
    let similar = align(&template, &frame, &settings());
    let affine = align(&template, &frame, &Settings { model: Model::Affine, ..settings() });
    let error = |r: &Registration| r.frame_from_template.corner_error(&truth, 256, 256);
    assert!(error(&similar) > 1.0, "{}", error(&similar));
    assert!(affine.accepted && error(&affine) < CLEAN_PX, "{} {affine:?}", error(&affine));
}

#[test]
fn no_memory_is_allocated_after_warm_up() {
    let template = board(256, 256, 30);
    let truth = Affine::about_centres(1.0, 1.05, 5.0, 5.0, (256, 256), (256, 256));
    let scene = Scene::new(30);
    let frames = [1, 2, 3].map(|seed| scene.render(256, 256, &truth, camera(seed, 256)));
    let stranger = board(256, 256, 31);
    for s in [settings(), Settings { track: true, ..settings() }, Settings { model: Model::Affine, ..settings() }] {
        let model = TemplateModel::new(&template, None, &s).unwrap();
        let mut aligner = Aligner::new(&s);
        let [mut warped, mut valid] = [Gray::default(), Gray::default()];
        // Warm-up: an accepted frame, and one that walks through everything.
        for frame in [&frames[0], &stranger] {
            let r = aligner.align(&model, frame);
            warp::warp_template(&template, &r.frame_from_template, frame.size(), &mut warped, &mut valid);
        }
        let info = allocation_counter::measure(|| {
            for frame in [&frames[1], &frames[2], &stranger] {
                let r = aligner.align(&model, frame);
                warp::warp_template(&template, &r.frame_from_template, frame.size(), &mut warped, &mut valid);
            }
        });
        assert_eq!(info.count_total, 0, "{info:?}");
    }
}

/// A picture of dark discs (centre x, y, radius, px) on a light ground: `own` in the template's pixels, `others` in the picture's own.
fn discs(pose: &Affine, own: &[(f64, f64, f64)], others: &[(f64, f64, f64)], seed: Option<u64>) -> Gray {
    let (back, mut noise) = (pose.invert().unwrap(), random(seed.unwrap_or(0)));
    Gray::from_fn(256, 256, |x, y| {
        let here = (x as f64, y as f64);
        // Share of the pixel inside a disc.
        let inside = |at: (f64, f64), scale: f64, discs: &[(f64, f64, f64)]| {
            discs.iter().map(|d| (0.5 + scale * (d.2 - (at.0 - d.0).hypot(at.1 - d.1))).clamp(0.0, 1.0)).fold(0.0, f64::max)
        };
        let dark = inside(back.apply(here.0, here.1), pose.scale(), own).max(inside(here, 1.0, others));
        let light = if seed.is_some() { 0.85 + 0.1 * here.0 / 256.0 } else { 1.0 };
        (light * (172.0 - 92.0 * dark) + if seed.is_some() { 4.0 * normal(&mut noise) } else { 0.0 }) as u8
    })
}

/// Two discs, one of them cut by the template's border: a wrong turn that covers the small one alone fits well enough to be taken, but only
/// just, and the true one fits far better.
#[test]
fn a_pose_taken_only_just_gives_way_to_the_true_one() {
    let own = [(65.0, 187.0, 39.0), (256.0, 266.0, 81.0)];
    let template = discs(&Affine::IDENTITY, &own, &[], None);
    let truth = Affine { m: [[0.1322, 0.9422, -48.04], [-0.9422, 0.1322, 257.94]] };
    for seed in 1..=4 {
        let frame = discs(&truth, &own, &[(251.0, 240.0, 35.0), (0.0, -3.0, 12.0)], Some(seed));
        let r = align(&template, &frame, &settings());
        let error = r.frame_from_template.corner_error(&truth, 256, 256);
        assert!(r.accepted && error < 3.0, "seed {seed}: {error:.1} px off: {r:?}");
    }
}
