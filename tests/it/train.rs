//! `ssds-train` as a program: resuming after SIGKILL, Ctrl-C, and what it says when it cannot go on.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ssds::train::config::TrainConfig;

use crate::support::{root, text};

const SETTINGS: &str = "
preset = 'micro'
steps = 40
pool = 16
reuse = 2
scene_factor = 1.0
validation_pairs = 4
validate_every = 20
checkpoint_every = 4
ema_decay = 0.9
stages = [{ crop_px = 32, batch = 4, until = 1.0 }]
";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ssds-train"))
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn start(folder: &Path, settings: &Path) -> Child {
    let args = ["train", "--out", folder.to_str().unwrap(), "--config", settings.to_str().unwrap()];
    program().args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the run's checkpoint is past the start.
fn wait_for_a_checkpoint(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !folder.join("last.ckpt.previous").exists() {
        assert!(Instant::now() < deadline, "no second checkpoint in {}", folder.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("t.toml");
    std::fs::write(&settings, SETTINGS).unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    assert!(start(&whole, &settings).wait().unwrap().success());

    let mut child = start(&parts, &settings);
    wait_for_a_checkpoint(&parts);
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = run(&["train", "--resume", "--out", parts.to_str().unwrap()]);
    assert!(resumed.status.success(), "{}", text(&resumed));
    assert!(text(&resumed).contains("done after step 40: "), "{}", text(&resumed));
    let model = |f: &Path| std::fs::read(f.join("model.onnx")).unwrap();
    assert!(model(&whole) == model(&parts), "the models differ");
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("t.toml");
    std::fs::write(&settings, SETTINGS.replace("steps = 40", "steps = 1000000")).unwrap();
    let out = folder.path().join("run");
    let child = start(&out, &settings);
    wait_for_a_checkpoint(&out);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended));
    let wanted = format!("; go on with: ssds-train train --resume --out {}", out.display());
    assert!(text(&ended).contains(&wanted), "{}", text(&ended));
    let inspected = run(&["inspect", out.join("last.ckpt").to_str().unwrap()]);
    assert!(text(&inspected).contains("preset       micro"), "{}", text(&inspected));
}

#[test]
fn what_cannot_be_done_is_said_with_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let said = |args: &[&str], code: i32, wanted: &str| {
        let out = run(args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
        assert!(text(&out).contains(wanted), "{args:?}: wanted `{wanted}`, got {}", text(&out));
    };
    std::fs::write(path("empty.ckpt"), "").unwrap();
    said(&["inspect", &path("empty.ckpt")], 65, &format!("checkpoint {}: the file is empty", path("empty.ckpt")));
    said(&["inspect", &path("none.ckpt")], 66, &format!("checkpoint {}", path("none.ckpt")));
    said(&["train", "--resume", "--out", &path("none")], 66, "last.ckpt");
    std::fs::write(path("bad.toml"), "learning_rat = 1\n").unwrap();
    said(&["train", "--out", &path("a"), "--config", &path("bad.toml")], 78, "unknown field `learning_rat`");
    std::fs::write(path("crop.toml"), "stages = [{ crop_px = 96, batch = 4, until = 1.0 }]\n").unwrap();
    said(
        &["train", "--out", &path("b"), "--config", &path("crop.toml")],
        78,
        "with the irrelevance loss every crop must be a power of two of at least 16 px, got 96",
    );
    if cfg!(not(feature = "train-cuda")) {
        said(
            &["train", "--out", &path("c"), "--device", "cuda"],
            64,
            "--device cuda: this ssds-train was built without it; build with --features train-cuda, or use --device cpu",
        );
    }
    std::fs::write(path("file"), "").unwrap();
    said(&["train", "--out", &path("file/run"), "--preset", "micro"], 73, "cannot be created");
}

#[test]
fn a_checkpoint_of_another_preset_is_refused_and_a_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("t.toml");
    std::fs::write(&settings, SETTINGS.replace("steps = 40", "steps = 4")).unwrap();
    let out = folder.path().join("run");
    assert!(start(&out, &settings).wait().unwrap().success());
    let last = out.join("last.ckpt");
    let model = folder.path().join("m.onnx");
    let refused = run(&["export", last.to_str().unwrap(), "--out", model.to_str().unwrap(), "--preset", "base"]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(text(&refused).contains("holds preset micro, --preset asks for base"), "{}", text(&refused));
    let again = start(&out, &settings).wait_with_output().unwrap();
    assert_eq!(again.status.code(), Some(64));
    assert!(text(&again).contains("already holds a run: add --resume to go on with it"), "{}", text(&again));
}

#[test]
fn simulate_writes_pairs_a_manifest_and_a_contact_sheet() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("pairs");
    let ran = run(&["simulate", "--preset", "paper", "--n", "3", "--size", "64", "--out", out.to_str().unwrap()]);
    assert!(ran.status.success(), "{}", text(&ran));
    let manifest = ssds::dataset::Manifest::read(&out.join("pairs.jsonl")).unwrap();
    assert_eq!(manifest.pairs.len(), 3);
    assert!(out.join("sheet.png").is_file());
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_run_and_the_last_good_checkpoint_survives() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("t.toml");
    std::fs::write(&settings, SETTINGS.replace("steps = 40", "steps = 4")).unwrap();
    let out = folder.path().join("run");
    assert!(start(&out, &settings).wait().unwrap().success());
    let before = std::fs::read(out.join("last.ckpt")).unwrap();
    // no file may grow past a few kilobytes, and growing further is an error of the write: what a full disk does
    let script = r#"trap "" XFSZ; ulimit -f 16; exec "$@""#;
    let args = ["train", "--resume", "--steps", "400", "--out", out.to_str().unwrap()];
    let ended = Command::new("sh").args(["-c", script, "sh", env!("CARGO_BIN_EXE_ssds-train")]).args(args).output().unwrap();
    assert_eq!(ended.status.code(), Some(73), "{}", text(&ended));
    let wanted = format!("checkpoint {}: cannot be written: ", out.join("last.ckpt").display());
    assert!(text(&ended).contains(&wanted), "{}", text(&ended));
    assert!(text(&ended).contains("; the one before it is untouched"), "{}", text(&ended));
    assert!(std::fs::read(out.join("last.ckpt")).unwrap() == before, "the last checkpoint changed");
    assert!(run(&["inspect", out.join("last.ckpt").to_str().unwrap()]).status.success());
}

#[test]
fn a_run_starts_from_the_model_of_another_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("t.toml");
    std::fs::write(&settings, SETTINGS.replace("steps = 40", "steps = 4")).unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    assert!(start(&first, &settings).wait().unwrap().success());
    let path = |p: &Path, name: &str| p.join(name).to_str().unwrap().to_string();
    let model = path(&first, "model.onnx");
    let out = second.to_str().unwrap();
    let config = settings.to_str().unwrap();
    let ran = run(&["train", "--out", out, "--config", config, "--seed", "5", "--init", &model]);
    assert!(ran.status.success(), "{}", text(&ran));
    let inspected = text(&run(&["inspect", &path(&second, "last.ckpt")]));
    assert!(inspected.contains("started from model.onnx sha256 "), "{inspected}");
    assert!(inspected.contains(": preset micro, seed 1, 4 steps"), "{inspected}");
    let bytes = std::fs::read(second.join("model.onnx")).unwrap();
    assert!(bytes.windows(9).any(|w| w == b"ssds.init"), "the model does not say what it started from");
    // the settings that were saved start the same run again
    let again = folder.path().join("again");
    let ran = run(&["train", "--out", again.to_str().unwrap(), "--config", &path(&second, "train.toml")]);
    assert!(ran.status.success(), "{}", text(&ran));
    assert!(std::fs::read(again.join("model.onnx")).unwrap() == bytes, "another model");
    let refused = run(&["train", "--out", &path(folder.path(), "c"), "--preset", "tiny", "--init", &model]);
    assert_eq!(refused.status.code(), Some(65), "{}", text(&refused));
    assert!(text(&refused).contains("holds preset micro, whose weights do not fit preset tiny"), "{}", text(&refused));
}

#[test]
fn shipped_networks_are_what_their_cards_say() {
    for name in ["ssds", "ssds-tiny"] {
        let models = root().join("models");
        let card: toml::Table = std::fs::read_to_string(models.join(format!("{name}.toml"))).unwrap().parse().unwrap();
        let bytes = std::fs::read(models.join(card["file"].as_str().unwrap())).unwrap();
        let sum: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(card["sha256"].as_str(), Some(sum.as_str()), "{name}");
        // The command's settings, where it names some, are there and are the card's.
        let command = card["command"].as_str().unwrap();
        let Some(file) = command.split_whitespace().skip_while(|word| *word != "--config").nth(1) else { continue };
        let settings = TrainConfig::load(&root().join(file)).unwrap();
        settings.check().unwrap();
        assert_eq!(card["seed"].as_integer(), Some(settings.seed as i64), "{name}: {file}");
        assert_eq!(card["steps"].as_integer(), Some(settings.steps as i64), "{name}: {file}");
    }
}
