//! The network through the binary: what a station says of it, how it fails, and the verbs `model` and `bench`.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use ssds::frame::{Gray, load_gray};

use crate::onnx_fixture;
use crate::support::{Process, Station, free_port, model, need_library, root, ssds, text};

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(output)))
}

/// The configuration of a taught station, one frame, MQTT off, with changes.
fn station(changes: &[(&str, &str)], extra: &str) -> Station {
    let station = Station::new(free_port(), &format!("mqtt.enabled = false\n{extra}"));
    let mut config = std::fs::read_to_string(&station.config).unwrap();
    for (from, to) in changes {
        assert!(config.contains(from), "{from} is not in\n{config}");
        config = config.replace(from, to);
    }
    std::fs::write(&station.config, config).unwrap();
    let template = root().join("tests/data/demo/template.png");
    std::fs::copy(&template, station.path("frames/000.png")).unwrap();
    let taught = station.teach(&template);
    assert!(taught.status.success(), "{}", text(&taught));
    station
}

fn run(station: &Station) -> std::process::Output {
    need_library();
    ssds(&["run", "--config", &station.config.to_string_lossy()])
}

#[test]
fn a_network_that_gives_nan_is_an_error_result_and_its_session_is_built_anew() {
    let station = station(&[(&format!("inference.model = \"{}\"", model().display()), "inference.model = \"nan.onnx\"")], "");
    std::fs::write(station.path("nan.onnx"), onnx_fixture::brightness_root().build()).unwrap();
    std::fs::remove_file(station.path("frames/000.png")).unwrap();
    // Nothing darker than 80 of 255, then one dark spot.
    let bright = load_gray(&root().join("tests/data/demo/template.png")).unwrap();
    let bright = Gray::from_fn(bright.width(), bright.height(), |x, y| 80 + (u32::from(bright.get(x, y)) * 150 / 255) as u8);
    let mut dark = bright.clone();
    (0..6).for_each(|i| dark.set(200 + i, 150, 3));
    let names = ["0.png", "1.png", "2.png", "3.png", "4.png"];
    for (i, name) in names.iter().enumerate() {
        station.frame(name, if (1..4).contains(&i) { &dark } else { &bright });
    }
    let template = station.path("bright.png");
    ssds::frame::save_gray_png(&template, &bright).unwrap();
    assert!(station.teach(&template).status.success());
    let output = run(&station);
    assert!(output.status.success(), "{}", text(&output));
    let (events, _) = station.recorded();
    let codes: Vec<Option<&str>> = events.iter().map(|e| e["error"]["code"].as_str()).collect();
    assert_eq!(codes, [None, Some("INFER_NAN"), Some("INFER_NAN"), Some("INFER_NAN"), None], "{}", text(&output));
    assert!(events[1]["error"]["message"].as_str().unwrap().contains("is not finite"), "{}", events[1]);
    assert!(text(&output).contains("inference failed 3 times in a row"), "{}", text(&output));
}

#[test]
fn a_provider_that_is_not_there_is_refused_or_told() {
    let cuda = r#"inference.providers = ["cuda", "cpu"]"#;
    let refused = run(&station(&[], &format!("{cuda}\ninference.required = true")));
    assert_eq!(refused.status.code(), Some(69), "{}", text(&refused));
    assert!(text(&refused).contains("inference.required is true and the first provider cannot be used"), "{}", text(&refused));
    let station = station(&[], cuda);
    let told = run(&station);
    assert!(told.status.success(), "{}", text(&told));
    assert!(text(&told).contains("alarm engine_fallback: cuda cannot be used"), "{}", text(&told));
    let (events, _) = station.recorded();
    assert_eq!(events[0]["model"]["provider"], "cpu");
    assert_eq!(events[0]["model"]["precision"], "fp32");
    assert!(events[0]["model"]["runtime_version"].as_str().unwrap().starts_with("1."), "{}", events[0]);
}

#[test]
fn a_model_that_must_be_signed_or_have_a_sum_is_refused_without() {
    let unsigned = run(&station(&[], &format!("inference.trusted_keys = [\"{}\"]", "11".repeat(32))));
    assert_eq!(unsigned.status.code(), Some(65), "{}", text(&unsigned));
    assert!(text(&unsigned).contains("inference.trusted_keys asks for a signature"), "{}", text(&unsigned));
    let other = run(&station(&[], &format!("inference.sha256 = \"{}\"", "0".repeat(64))));
    assert_eq!(other.status.code(), Some(65), "{}", text(&other));
    assert!(text(&other).contains("inference.sha256 wants 0000"), "{}", text(&other));
    // A key file is looked for beside the configuration that names it.
    let named = station(&[], "inference.trusted_keys = [\"line.pem\"]");
    let missing = run(&named);
    assert!(text(&missing).contains(&named.path("line.pem").display().to_string()), "{}", text(&missing));
}

#[test]
fn the_service_manager_is_told_how_far_the_network_is() {
    need_library();
    let station = station(&[], "");
    let path = station.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut daemon = Process::start(
        Command::new(env!("CARGO_BIN_EXE_ssds")).args(["run", "--config"]).arg(&station.config).env("NOTIFY_SOCKET", &path),
    );
    let mut told = String::new();
    while !told.contains("READY=1") {
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{e}\n{told}\n{}", daemon.log()));
        told.push_str(&String::from_utf8_lossy(&buffer[..n]));
        told.push('\n');
    }
    let order = ["STATUS=model: loading", "STATUS=model: building a session on cpu", "STATUS=model: warming up", "READY=1"];
    let places: Vec<_> = order.iter().map(|what| told.find(what).unwrap_or_else(|| panic!("no {what} in\n{told}"))).collect();
    assert!(places.is_sorted(), "{told}");
    assert!(told[..places[3]].matches("EXTEND_TIMEOUT_USEC=120000000").count() >= 3, "{told}");
    assert!(daemon.wait(Duration::from_secs(60)).success(), "{}", daemon.log());
}

#[test]
fn model_verbs_say_what_a_file_is_and_whether_this_machine_computes_it() {
    let library = need_library();
    let (model, library) = (model().to_string_lossy().into_owned(), library.to_string_lossy().into_owned());
    let info = json(&ssds(&["model", "info", "--model", &model, "--json"]));
    assert_eq!((info["metadata"]["ssds.contract"].as_str(), info["golden"].as_bool()), (Some("ssds/1"), Some(true)), "{info}");

    let base = ["--model", &model, "--library", &library, "--json", "--threads", "1"];
    let good = ssds(&[&["model", "verify"], &base[..], &["--providers", "cpu"]].concat());
    assert_eq!(good.status.code(), Some(0), "{}", text(&good));
    assert_eq!(json(&good)["parity"]["state"], "golden");
    let fell = ssds(&[&["model", "verify"], &base[..], &["--providers", "cuda,cpu"]].concat());
    assert_eq!(fell.status.code(), Some(1), "a lesser provider is no success: {}", text(&fell));
    assert_eq!(json(&fell)["fallbacks"][0]["provider"], "cuda");

    let doctor = ssds(&[&["model", "doctor"], &base[..], &["--providers", "tensorrt,cpu"]].concat());
    assert_eq!(doctor.status.code(), Some(1), "{}", text(&doctor));
    let findings = json(&doctor)["findings"].as_array().unwrap().clone();
    let of = |what: &str| findings.iter().find(|f| f["what"] == what).unwrap_or_else(|| panic!("{what}: {findings:?}"));
    assert_eq!((of("provider tensorrt")["ok"].as_bool(), of("provider cpu")["ok"].as_bool()), (Some(false), Some(true)));
    assert!(of("onnx runtime")["text"].as_str().unwrap().starts_with("1."), "{findings:?}");
    assert!(of("session")["text"].as_str().unwrap().contains("parity verified"), "{findings:?}");

    let folder = tempfile::tempdir().unwrap();
    let engines = folder.path().join("engines");
    let built = ssds(&[&["model", "build"], &base[..], &["--engines", &engines.to_string_lossy()]].concat());
    assert_eq!(built.status.code(), Some(69), "{}", text(&built));
    assert!(
        text(&built).contains("provider tensorrt: TensorRT execution provider is not enabled in this build"),
        "{}",
        text(&built)
    );
    assert!(!Path::new(&engines).exists(), "nothing is left of an engine that cannot be built");
}

#[test]
fn bench_times_every_stage_and_the_line() {
    let library = need_library().to_string_lossy().into_owned();
    let model = model().to_string_lossy().into_owned();
    let base = ["bench", "--model", &model, "--library", &library, "--providers", "cpu", "--threads", "1", "--json"];
    let output =
        ssds(&[&base[..], &["--size", "160x128", "--frames", "6", "--warm-up", "2", "--line", "--rounds", "2"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    let bench = &json(&output)["benches"][0];
    for stage in ["align", "infer", "decide", "record"] {
        let s = &bench["stages"][stage];
        let [p50, p95, p99, max] = ["p50_ms", "p95_ms", "p99_ms", "max_ms"].map(|k| s[k].as_f64().unwrap());
        assert!(0.0 < p50 && p50 <= p95 && p95 <= p99 && p99 <= max, "{stage}: {s}");
    }
    assert_eq!((bench["width"].as_u64(), bench["height"].as_u64(), bench["refused"].as_u64()), (Some(160), Some(128), Some(0)));
    assert!(bench["peak_memory_bytes"].as_u64() > Some(1 << 20) && bench["frames_per_second"].as_f64() > Some(0.0), "{bench}");
    let line = &bench["line"];
    assert!(bench["stages"].get(line["slowest_stage"].as_str().unwrap()).is_some(), "{line}");
    assert!(line["throughput_ratio"].as_f64() > Some(0.0) && line["latency"]["p50_ms"].as_f64() > Some(0.0), "{line}");

    // Pairs of a manifest; one that registration refuses is counted, not timed.
    let folder = tempfile::tempdir().unwrap();
    let data = root().join("tests/data/demo");
    let pair = |frame: &str| {
        serde_json::json!({"pair": frame, "template": data.join("template.png"), "image": data.join("frames").join(frame)})
            .to_string()
    };
    let pairs = folder.path().join("pairs.jsonl");
    std::fs::write(&pairs, format!("{}\n{}\n", pair("000.jpg"), pair("007.jpg"))).unwrap();
    let output = ssds(&[&base[..], &["--pairs", &pairs.to_string_lossy(), "--frames", "2", "--warm-up", "0"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(json(&output)["benches"][0]["refused"], 1);
    let none = ssds(&["bench", "--size", "0x5"]);
    assert_eq!(none.status.code(), Some(64), "{}", text(&none));
}
