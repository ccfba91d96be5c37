//! The program on a real V4L2 device: the kernel's vivid driver inside a small QEMU guest.
//!
//! `make test-v4l2` sets `V4L2_GUEST`, `make test-v4l2-aarch64` names a cross-built program and library besides; without it, and where QEMU or the kernel package cannot be had, the test says that it was skipped. What
//! happens inside is `tests/v4l2/init`; here its files are judged. The same static picture was taken by the program and by `v4l2-ctl`, whose
//! raw bytes are converted here independently. Times are printed, not judged: the guest is emulated.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use ssds::frame::{Gray, load_gray};

use crate::support::{library, root, skipped};
use crate::webcam;

const NAME: &str = "the_program_on_the_kernel_s_virtual_camera";
const WIDTH: usize = 320;
const HEIGHT: usize = 180;

/// What the guest left.
struct Guest(PathBuf);

impl Guest {
    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// JSON lines of a command's output; its exit status and errors are checked.
    fn lines(&self, name: &str) -> Vec<Value> {
        assert_eq!(self.code(name), 0, "{name}: {}", self.text(&format!("{name}.err")));
        self.text(&format!("{name}.out")).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    fn line(&self, name: &str) -> Value {
        self.lines(name).pop().unwrap_or_else(|| panic!("{name} said nothing"))
    }

    fn code(&self, name: &str) -> i32 {
        let codes: BTreeMap<String, i32> = self
            .text("codes")
            .lines()
            .filter_map(|l| l.rsplit_once(' ').map(|(n, c)| (n.to_owned(), c.parse().unwrap_or(-1))))
            .collect();
        *codes.get(name).unwrap_or_else(|| panic!("{name} did not run: {codes:?}"))
    }

    /// What a command said when it was refused.
    fn refusal(&self, name: &str) -> String {
        assert_ne!(self.code(name), 0, "{name} was not refused");
        self.text(&format!("{name}.err"))
    }

    /// Seconds between the marks of one fault.
    fn times(&self, name: &str) -> Vec<f64> {
        let marks: Vec<f64> = self.text(&format!("{name}.times")).lines().map(|l| l.parse().unwrap()).collect();
        marks.windows(2).map(|w| w[1] - w[0]).collect()
    }
}

/// A raw picture of `v4l2-ctl` as gray, written without a look at the program's own conversion.
fn reference(format: &str, raw: &[u8]) -> Vec<u8> {
    let pixels = WIDTH * HEIGHT;
    let cell = match format {
        "GREY" | "NV12" => return raw[..pixels].to_vec(),
        "YUYV" => return raw[..pixels * 2].iter().step_by(2).copied().collect(),
        "Y16" => {
            let word = |c: &[u8]| f64::from(u16::from_le_bytes([c[0], c[1]]));
            return raw[..pixels * 2].chunks(2).map(|c| (word(c) * 255.0 / 65_535.0).round() as u8).collect();
        }
        "RGGB" => "RGGB",
        "BA81" => "BGGR",
        "GRBG" => "GRBG",
        "GBRG" => "GBRG",
        other => panic!("{other}"),
    };
    let colour = |x: usize, y: usize| cell.as_bytes()[(y % 2) * 2 + x % 2];
    let reflect = |v: i64, n: i64| {
        (if v < 0 {
            -v
        } else if v >= n {
            2 * n - 2 - v
        } else {
            v
        }) as usize
    };
    let mut out = Vec::with_capacity(pixels);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let mean = |wanted: u8| {
                if colour(x, y) == wanted {
                    return f64::from(raw[y * WIDTH + x]);
                }
                let (mut sum, mut n) = (0.0, 0.0);
                for (dx, dy) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))) {
                    let (u, v) = (reflect(x as i64 + dx, WIDTH as i64), reflect(y as i64 + dy, HEIGHT as i64));
                    if colour(u, v) == wanted {
                        sum += f64::from(raw[v * WIDTH + u]);
                        n += 1.0;
                    }
                }
                sum / n
            };
            out.push((0.299 * mean(b'R') + 0.587 * mean(b'G') + 0.114 * mean(b'B')).round() as u8);
        }
    }
    out
}

fn worst_difference(a: &Gray, b: &[u8]) -> u8 {
    assert_eq!(a.data().len(), b.len());
    a.data().iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

/// The webcam's pictures: what they show, and as JPEG of several payloads each.
fn webcam_pictures() -> (Vec<Gray>, Vec<Vec<u8>>) {
    (0..4_usize)
        .map(|k| {
            // A fine texture, and a square whose place names the picture.
            let shown = Gray::from_fn(WIDTH, HEIGHT, |x, y| {
                let square = (60 * k..60 * k + 40).contains(&x) && (70..110).contains(&y);
                if square { 230 } else { (60 + (x * 7 + y * 13) % 90) as u8 }
            });
            let mut bytes = Vec::new();
            let rgb: Vec<u8> = shown.data().iter().flat_map(|v| [*v; 3]).collect();
            image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 98)
                .encode(&rgb, WIDTH as u32, HEIGHT as u32, image::ExtendedColorType::Rgb8)
                .unwrap();
            // As webcams do, the standard's Huffman tables are left to the reader.
            while let Some(at) = bytes.windows(2).position(|w| w == [0xff, 0xc4]) {
                let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
                bytes.drain(at..at + 2 + length);
            }
            (shown, bytes)
        })
        .unzip()
}

/// Runs the guest; `None` when it was skipped.
fn run() -> Option<Guest> {
    if std::env::var_os("V4L2_GUEST").is_none() {
        skipped(NAME, "V4L2_GUEST is not set; `make test-v4l2` sets it");
        return None;
    }
    let Some(library) = library() else {
        skipped(NAME, "no ONNX Runtime library");
        return None;
    };
    let out = root().join("target/v4l2/out");
    let _ = std::fs::remove_dir_all(&out);
    // Of the guest's machine; GUEST_ARCH names it (tests/v4l2/guest.sh).
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let program = given("GUEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_ssds").into());
    let library = given("GUEST_LIBRARY").unwrap_or(library);
    let port = webcam::serve(webcam_pictures().1, WIDTH as u16, HEIGHT as u16);
    let ran = Command::new("bash")
        .arg(root().join("tests/v4l2/guest.sh"))
        .args([&out, &program, &library])
        .env("GUEST_WEBCAM", port.to_string())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    if ran.status.code() == Some(77) {
        skipped(NAME, text.lines().find(|l| l.starts_with("skipped:")).unwrap_or("guest.sh gave no reason"));
        return None;
    }
    assert!(ran.status.success(), "{text}");
    Some(Guest(out))
}

#[test]
fn the_program_on_the_kernel_s_virtual_camera() {
    let Some(guest) = run() else { return };
    lists(&guest);
    pictures(&guest);
    losses(&guest);
    controls(&guest);
    recovery(&guest);
    frozen_and_stale(&guest);
    verdicts(&guest);
    usb_webcam(&guest);
    println!("guest: {} s from power-on to the end", guest.text("uptime").split(' ').next().unwrap_or("?"));
}

fn lists(guest: &Guest) {
    let lines = guest.lines("list");
    let device = lines.iter().find(|l| l["device"] == "/dev/video0").unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(device["stable_paths"][0], "/dev/v4l/by-id/usb-vivid-index0");
    let formats = device["offers"]["formats"].as_array().unwrap();
    for name in ["GREY", "Y16", "RGGB", "YUYV", "NV12"] {
        let format = formats.iter().find(|f| f["format"] == name).unwrap_or_else(|| panic!("no {name} in {formats:?}"));
        let size = format["sizes"].as_array().unwrap().iter().find(|s| s["size_px"] == serde_json::json!([320, 180])).unwrap();
        assert!(size["rates_hz"].as_array().unwrap().iter().any(|r| r.as_f64() == Some(10.0)), "{name}: {size}");
    }
    let gain = &device["offers"]["controls"]["gain"];
    assert_eq!((gain["min"].as_i64(), gain["max"].as_i64()), (Some(0), Some(255)), "{gain}");
    assert_eq!(device["offers"]["controls"]["test_pattern"]["items"][0]["text"], "75% Colorbar");
}

fn pictures(guest: &Guest) {
    for format in ["GREY", "Y16", "RGGB", "BA81", "GRBG", "GBRG", "NV12", "YUYV"] {
        let lines = guest.lines(&format!("grab_{format}"));
        assert_eq!(lines.len(), 4, "{format}");
        stamps(format, &lines);
        let raw = std::fs::read(guest.0.join(format!("{format}.raw"))).unwrap();
        let want = reference(format, &raw);
        assert!(want.iter().any(|v| *v != want[0]), "{format}: the picture is empty");
        for n in 0..4 {
            let got = load_gray(&guest.0.join(format!("{format}/{n:06}.png"))).unwrap();
            assert_eq!(got.size(), (WIDTH, HEIGHT));
            // Bayer is rounded in whole numbers here and in floating point there.
            let worst = worst_difference(&got, &want);
            let allowed = u8::from(matches!(format, "RGGB" | "BA81" | "GRBG" | "GBRG"));
            assert!(worst <= allowed, "{format} picture {n}: {worst} levels off");
        }
    }
    for format in ["YUYV", "NV12"] {
        let lines = guest.lines(&format!("uvc_{format}"));
        assert_eq!(lines.len(), 4, "uvc {format}");
        let want = reference(format, &std::fs::read(guest.0.join(format!("{format}.raw"))).unwrap());
        let got = load_gray(&guest.0.join(format!("uvc_{format}/000003.png"))).unwrap();
        assert_eq!(worst_difference(&got, &want), 0, "uvc {format}");
    }
    assert!(guest.text("auto.err").contains("camera.backend auto took v4l2: it offers GREY"), "{}", guest.text("auto.err"));
    let refused = guest.refusal("refused");
    assert!(refused.contains("wanted H264"), "{refused}");
    let size = guest.refusal("size_refused");
    assert!(size.contains("format was set to GREY 321x180, but the device reads back GREY 320x180"), "{size}");
}

/// Kernel numbers rise, stamps are monotonic, and a frame's number and stamp tell the same time: ten frames a second.
fn stamps(what: &str, lines: &[Value]) {
    for pair in lines.windows(2) {
        let of = |v: &Value, key: &str| v[key].as_u64().unwrap();
        let frames = of(&pair[1], "device_sequence") - of(&pair[0], "device_sequence");
        let ns = of(&pair[1], "captured_mono_ns") - of(&pair[0], "captured_mono_ns");
        assert!(frames >= 1, "{what}");
        let off = ns as f64 / 1e8 - frames as f64;
        assert!(off.abs() < 0.5, "{what}: {frames} frames in {} ms", ns / 1_000_000);
    }
    let ages: Vec<f64> = lines.iter().map(|l| l["age_ms"].as_f64().unwrap()).collect();
    assert!(ages.iter().all(|a| *a > 0.0), "the driver's stamp lies behind: {ages:?}");
}

fn losses(guest: &Guest) {
    let steady = guest.line("steady");
    // What a slow guest missed is counted, so that the device's own rate comes out.
    let frames = steady["frames"].as_f64().unwrap() - 1.0;
    let rate = steady["rate_hz"].as_f64().unwrap() * (frames + steady["missing"].as_f64().unwrap()) / frames;
    assert!(frames > 2.0 && (rate - 10.0).abs() < 0.5, "{steady}");
    assert_eq!(steady["incomplete"], 0, "{steady}");
    println!("steady: {steady}");
    let dropping = guest.line("dropping");
    let share = dropping["lost_share"].as_f64().unwrap();
    assert!(dropping["missing"].as_u64() > Some(0) && (0.1..0.8).contains(&share), "40 % of the buffers are dropped: {dropping}");
    let bad = guest.line("marked_bad");
    assert_eq!(bad["incomplete_by_status"]["marked_bad"], 2, "{bad}");
    // A counter that wraps is no loss of four billion frames.
    let wrapped = guest.line("wrapped");
    let count = |key: &str| wrapped[key].as_u64().unwrap();
    assert!(count("frames") + count("missing") > 130 && count("missing") < 1000, "{wrapped}");
}

fn controls(guest: &Guest) {
    let values = &guest.line("controls")["controls"];
    assert_eq!((values["gain"].as_str(), values["brightness"].as_str()), (Some("77"), Some("140")), "{values}");
    assert_eq!((values["test_pattern"].as_str(), values["horizontal_flip"].as_str()), (Some("0"), Some("1")), "{values}");
    let now = guest.text("controls.now");
    for wanted in ["gain: 77", "gain_automatic: 0", "brightness: 140", "horizontal_flip: 1"] {
        assert!(now.contains(wanted), "the device itself says {now}");
    }
    let bad = guest.refusal("bad_value");
    assert!(bad.contains("control brightness must be 0 to 255, got \"999\""), "{bad}");
    let lacking = guest.refusal("no_exposure");
    assert!(lacking.contains("has no control exposure_time_absolute, which camera.exposure_us needs"), "{lacking}");
}

fn recovery(guest: &Guest) {
    let log = guest.text("run.log");
    let missed: Vec<String> = guest.text("codes").lines().filter(|l| l.starts_with("notseen")).map(str::to_owned).collect();
    assert!(missed.is_empty(), "{missed:?}\n{log}");
    assert_eq!(guest.code("run"), 0, "{log}");
    for (fault, words) in [
        ("inject_fatal_streaming_error", "(os error 5)"),
        ("disconnect", "(os error 19)"),
        ("silence", "no frame for 1."),
        ("unplug", "No such"),
    ] {
        assert!(log.contains(words), "{fault}: nothing says {words}\n{log}");
        let times = guest.times(fault);
        println!("{fault}: alarm after {:.2} s; then {:?} s", times[0], &times[1..]);
    }
    assert!(log.contains("+ 0 lost"), "{log}");
    // Set again on the device that came back, under another number.
    assert_ne!(guest.text("plugged").trim(), "/dev/video0");
    let after = guest.text("gain.after");
    assert!(after.contains("gain: 100") && after.contains("gain_automatic: 0"), "{after}");
    let status: Value = serde_json::from_str(&guest.text("status.json")).unwrap();
    assert!(status["frames"]["recorded"].as_u64() > Some(3), "{status}");
    let db = rusqlite::Connection::open(guest.0.join("ssds.db")).unwrap();
    let mut rows = db.prepare("SELECT body FROM events ORDER BY seq").unwrap();
    let events: Vec<Value> =
        rows.query_map([], |r| r.get::<_, String>(0)).unwrap().map(|b| serde_json::from_str(&b.unwrap()).unwrap()).collect();
    assert!(events.len() > 3);
    let mut last = 0;
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], n as u64 + 1);
        let at = event["captured_mono_ns"].as_u64().unwrap();
        assert!(at > last, "frames are inspected once, in order: {event}");
        last = at;
    }
    println!("run: {} results, {} without error", events.len(), events.iter().filter(|e| e["error"].is_null()).count());
}

fn frozen_and_stale(guest: &Guest) {
    let log = guest.text("frozen.log");
    // From the sixth alike on; the alarm tells of the newest frame when it is raised, which is one of those refused for it.
    let words = "frames in a row without one differing pixel";
    let refused = |count: u32| log.contains(&format!("| {count} {words}"));
    assert!(refused(6) && !refused(5), "{log}");
    let told = log.split_once("alarm camera_frozen: ").and_then(|(_, told)| told.split(' ').next()?.parse().ok()).unwrap_or(0);
    assert!(told >= 6 && refused(told) && log.contains(&format!("alarm camera_frozen: {told} {words}")), "{told}: {log}");
    assert!(log.contains("alarm camera_frozen is over"), "{log}");
    assert!(log.contains("alarm template_stale: the template was taught with other camera values: gain 100, now 120"), "{log}");
    assert_eq!(guest.code("frozen"), 0, "{log}");
}

/// The network's verdicts on the camera's pictures: the taught part passes, the same with the driver's text in its corner does not.
fn verdicts(guest: &Guest) {
    let log = guest.text("verdict.log");
    assert_eq!(guest.code("verdict_teach"), 0, "{}{log}", guest.text("verdict_teach.err"));
    // 70: the frame in the network at the stop took longer than the stop may; how long that is decides no test.
    assert!([0, 70].contains(&guest.code("verdict")), "{log}");
    let db = rusqlite::Connection::open(guest.0.join("verdict/ssds.db")).unwrap();
    let mut rows = db.prepare("SELECT body FROM events ORDER BY seq").unwrap();
    let events: Vec<Value> =
        rows.query_map([], |r| r.get::<_, String>(0)).unwrap().map(|b| serde_json::from_str(&b.unwrap()).unwrap()).collect();
    let of = |verdict: &str| events.iter().filter(|e| e["verdict"] == verdict).cloned().collect::<Vec<_>>();
    let (good, bad) = (of("OK"), of("NG"));
    assert!(!good.is_empty() && !bad.is_empty(), "{log}");
    for event in &good {
        assert_eq!((&event["align"]["ok"], event["defects_total"].as_u64()), (&Value::Bool(true), Some(0)), "{event}");
        assert_eq!((&event["model"]["provider"], &event["simulated"]), (&Value::from("cpu"), &Value::Bool(false)), "{event}");
    }
    for event in &bad {
        let defects = event["defects"].as_array().unwrap();
        assert!(!defects.is_empty(), "{event}");
        // The text's first line begins at the picture's corner.
        for defect in defects {
            let bbox: Vec<u64> = defect["bbox_px"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
            assert!(bbox[0] < 160 && bbox[1] < 60, "{event}");
        }
    }
    let ms = |e: &Value| e["timing_ms"]["infer"].as_f64().unwrap();
    println!("verdicts: {} OK, {} NG; the network took {:.0} ms a frame", good.len(), bad.len(), ms(&bad[0]));
}

/// A USB webcam that has MJPG only: whole pictures as they were sent, torn ones counted and not passed on, and its cable coming off.
fn usb_webcam(guest: &Guest) {
    let (shown, sent) = webcam_pictures();
    assert!(sent.iter().all(|s| s.len() > 20_000), "several payloads each: {:?}", sent.iter().map(Vec::len).collect::<Vec<_>>());
    let missed: Vec<String> = guest.text("codes").lines().filter(|l| l.starts_with("notseen")).map(str::to_owned).collect();
    assert!(missed.is_empty(), "{missed:?}\n{}", guest.text("console.log"));

    let lines = guest.lines("webcam_list");
    let device = lines.iter().find(|l| l["offers"]["card"].as_str().is_some_and(|c| c.starts_with(webcam::NAME)));
    let device = device.unwrap_or_else(|| panic!("{lines:?}"));
    let formats = device["offers"]["formats"].as_array().unwrap();
    assert_eq!((formats.len(), &formats[0]["format"]), (1, &Value::from("MJPG")), "{device}");

    let auto = guest.text("webcam_v4l2.err");
    assert!(auto.contains("camera.backend auto took v4l2: it offers MJPG"), "{auto}");
    for backend in ["v4l2", "uvc"] {
        let grabbed = guest.lines(&format!("webcam_{backend}"));
        assert_eq!(grabbed.len(), 6, "{backend}");
        let mut last: Option<u64> = None;
        for (n, line) in grabbed.iter().enumerate() {
            let got = load_gray(&guest.0.join(format!("webcam_{backend}/{n:06}.png"))).unwrap();
            let off = |k: usize| {
                let total: u64 = got.data().iter().zip(shown[k].data()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
                total as f64 / (WIDTH * HEIGHT) as f64
            };
            let nearest = (0..4).map(off).fold(f64::INFINITY, f64::min);
            assert!(nearest < 1.0, "{backend} picture {n} is none of those sent: {nearest:.1} levels off");
            let at = line["captured_mono_ns"].as_u64().unwrap();
            assert!(last.is_none_or(|l| at > l) && line["age_ms"].as_f64() > Some(0.0), "{line}");
            last = Some(at);
        }
    }
    // What the kernel hands out is what was sent, to the byte.
    let raw = std::fs::read(guest.0.join("webcam.raw")).unwrap();
    assert!(sent.iter().any(|s| raw.starts_with(s)), "{} bytes of no picture", raw.len());

    let torn = guest.line("webcam_torn");
    let (whole, undecodable) =
        (torn["frames"].as_f64().unwrap(), torn["incomplete_by_status"]["undecodable"].as_f64().unwrap_or(0.0));
    let share = undecodable / (whole + undecodable);
    assert!(whole > 3.0 && (0.2..0.5).contains(&share), "every third picture is torn: {torn}");

    let log = guest.text("webcam.log");
    assert_eq!(guest.code("webcam"), 0, "{log}");
    let times = guest.times("webcam");
    println!("webcam: {torn}; unplugged: alarm {:.2} s after the start; then {:?} s", times[0], &times[1..]);
    assert!(log.contains("+ 0 lost"), "{log}");
}
