//! Tests that need a process of their own: ONNX Runtime is loaded once a process, and a crash in it must be seen and not spread.
//!
//! A parent runs this same test binary again with only the child test and a variable that tells it what to do. Run without the variable
//! the child tests do a small share of the work in place.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::fixture::{self, symbolic};
use super::tests::runtime;
use super::*;
use crate::frame::{Gray, Map};

const MUTANTS: u64 = 800;
/// A hang, not a slow machine: the work takes seconds.
const DEADLINE: Duration = Duration::from_secs(300);
const WHAT: &str = "SSDS_TEST_CHILD";

/// Runs one child test of this binary; answers whether it ended well and what it printed.
fn child(test: &str, what: &str, variables: &[(&str, &Path)]) -> (bool, String) {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("infer::isolated::{test}"), "--nocapture", "--test-threads=1"]).env(WHAT, what);
    command.env_remove(library::VARIABLE);
    command.envs(variables.iter().copied());
    let file = out.reopen().unwrap();
    let mut process = command.stdout(file.try_clone().unwrap()).stderr(file).stdin(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break Some(status);
        }
        if begun.elapsed() > DEADLINE {
            process.kill().unwrap();
            process.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = std::fs::read_to_string(out.path()).unwrap();
    let ended = status.map_or_else(|| "killed: it hung".to_owned(), |status| status.to_string());
    (status.is_some_and(|s| s.success()), format!("{text}\n[{ended}]"))
}

// -- mutants of a model file

fn mutant(model: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
    let mut bytes = model.to_vec();
    let kind = rng.random_range(0..5);
    if kind == 0 {
        bytes.truncate(rng.random_range(0..bytes.len()));
        return bytes;
    }
    for _ in 0..[1, 1, 1, 2, 4, 8][rng.random_range(0..6)] {
        let at = rng.random_range(0..bytes.len());
        match kind {
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = [0, 1, 127, 128, 255][rng.random_range(0..5)],
            3 => {
                let from = rng.random_range(0..bytes.len());
                let piece = bytes[from..(from + rng.random_range(1..16)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes[at] = (rng.next_u32() & 255) as u8,
        }
    }
    bytes
}

/// Opens and runs mutants; answers how many were refused, how many opened, and how many of those ran.
fn take_mutants(library: &Path, seeds: std::ops::Range<u64>) -> [u64; 3] {
    let model = fixture::pyramid(&symbolic(2), &symbolic(1)).build();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let settings = Settings {
        model: path.clone(),
        library: Some(library.into()),
        providers: vec![Provider::Cpu],
        threads: 1,
        warm_up_px: Some((32, 32)),
        ..Settings::default()
    };
    let (template, frame) = crate::golden::pair(1, 48, 40);
    let valid = Gray::from_fn(48, 40, |_, _| 255);
    let mut counts = [0; 3];
    for seed in seeds {
        println!("mutant {seed}");
        std::fs::write(&path, mutant(&model, seed)).unwrap();
        match Detector::open(&settings) {
            Err(error) => {
                counts[0] += 1;
                assert!(
                    error.to_string().contains("model.onnx: "),
                    "mutant {seed}: an error that does not name the file: {error}"
                );
            }
            Ok(mut detector) => {
                counts[1] += 1;
                let mut map = Map::default();
                if detector.detect(&template, &valid, &frame, &mut map).is_ok() {
                    counts[2] += 1;
                    assert!(map.data().iter().all(|v| (0.0..=1.0).contains(v)), "mutant {seed}");
                }
            }
        }
    }
    println!("refused {} opened {} ran {}", counts[0], counts[1], counts[2]);
    counts
}

#[test]
fn mutants_child() {
    let Some(library) = runtime() else { return };
    let seeds = if std::env::var_os(WHAT).is_some() { 0..MUTANTS } else { 0..20 };
    let count = seeds.end;
    let [refused, opened, _] = take_mutants(&library, seeds);
    assert_eq!(refused + opened, count);
    assert!(refused > 0);
}

/// Neither a crash, a panic nor a hang, whatever is in the file.
#[test]
fn mutants_of_a_model_are_refused_or_run() {
    let Some(library) = runtime() else { return };
    let (good, text) = child("mutants_child", "mutants", &[(library::VARIABLE, &library)]);
    let tail: Vec<&str> = text.lines().rev().take(8).collect();
    assert!(good, "{tail:#?}");
    // Most changes hit the structure and are seen; some hit a weight, which nothing but a sum or a golden vector can tell.
    let line = text.lines().find(|line| line.starts_with("refused ")).expect("the child's counts");
    let counts: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(counts[0] > MUTANTS / 2 && counts[1] > MUTANTS / 50, "{line}");
}

/// Cheap enough for many more: the structure reader alone, on every mutant and every truncation.
#[test]
fn the_structure_reader_takes_anything() {
    let model = fixture::pyramid(&symbolic(2), &symbolic(1)).build();
    assert!(onnx::read(&model).is_ok());
    for length in 0..model.len() {
        assert!(onnx::read(&model[..length]).is_err() || length > model.len() - 700, "{length}");
    }
    let refused = (0..20_000).filter(|&seed| onnx::read(&mutant(&model, seed)).is_err()).count();
    assert!((5_000..20_000).contains(&refused), "{refused}");
}

// -- libraries that do not fit

/// A shared library that calls itself ONNX Runtime 1.19.2.
const OLD: &str = "static const void *api(unsigned v) { (void)v; return 0; }\n\
                   static const char *version(void) { return \"1.19.2\"; }\n\
                   struct base { const void *(*a)(unsigned); const char *(*v)(void); };\n\
                   static const struct base base = { api, version };\n\
                   const struct base *OrtGetApiBase(void) { return &base; }\n";

fn compiled(folder: &Path, name: &str, code: &str) -> Option<PathBuf> {
    let (source, library) = (folder.join(name).with_extension("c"), folder.join(name).with_extension("so"));
    std::fs::write(&source, code).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler to make a library with");
        return None;
    }
    Some(library)
}

#[test]
fn library_child() {
    let Some(what) = std::env::var_os(WHAT) else {
        // In place: whatever library the other tests use answers its version.
        if let Some(path) = runtime() {
            assert!(library::load(Some(&path)).unwrap().version.starts_with("1."));
        }
        return;
    };
    let setting = (what != "search").then(|| PathBuf::from(what));
    match library::load(setting.as_deref()) {
        Ok(library) => println!("loaded {} {}", library.version, library.path.display()),
        Err(error) => println!("{:?}: {error}", error.kind()),
    }
}

#[test]
fn libraries_that_do_not_fit_are_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let expect = |setting: &Path, reason: &str| {
        let (good, text) = child("library_child", setting.to_str().unwrap(), &[]);
        let wanted =
            format!("Config: no usable ONNX Runtime library; tried\n  {} (inference.library): {reason}", setting.display());
        assert!(good && text.contains(&wanted), "{text}\nwanted: {wanted}");
        assert!(text.contains("wanted libonnxruntime.so 1.20 or newer for "), "{text}");
    };
    expect(&at("none.so"), "not there");
    std::fs::write(at("text.so"), "hello, ".repeat(20)).unwrap();
    expect(&at("text.so"), "is no shared library (no ELF header)");
    std::fs::write(at("short.so"), "\x7fELF").unwrap();
    expect(&at("short.so"), "is no shared library (shorter than an ELF header)");
    // This program's own header, but for other machines: the other common board's, 32 bits, one that nobody has.
    let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    program.truncate(4096);
    let own = program.clone();
    let other = if cfg!(target_arch = "x86_64") { (183_u16, "aarch64") } else { (62, "x86_64") };
    for (machine, name) in [other, (243, "riscv64"), (2, "another machine")] {
        program[18..20].copy_from_slice(&machine.to_le_bytes());
        std::fs::write(at("foreign.so"), &program).unwrap();
        expect(&at("foreign.so"), &format!("is built for {name}, wanted {}", std::env::consts::ARCH));
    }
    // 32 bits, little endian, ARM.
    program[4] = 1;
    program[18..20].copy_from_slice(&40_u16.to_le_bytes());
    std::fs::write(at("foreign.so"), &program).unwrap();
    expect(&at("foreign.so"), &format!("is built for arm, wanted {}", std::env::consts::ARCH));
    std::fs::write(at("cut.so"), &own).unwrap();
    expect(&at("cut.so"), "is cut short: it has 4096 bytes, its header asks for ");
    // A whole library that is not ONNX Runtime: made by the same compiler as the old one.
    if let Some(other) = compiled(folder.path(), "other", "int nothing(void) { return 0; }\n") {
        expect(&other, "is not ONNX Runtime (no OrtGetApiBase)");
    }
    if let Some(old) = compiled(folder.path(), "old", OLD) {
        expect(&old, "is version 1.19.2, wanted 1.20 or newer");
    }
}

#[test]
fn a_setting_comes_before_the_variable_and_a_folder_stands_for_its_library() {
    let Some(library) = runtime() else { return };
    let wrong = Path::new("/nowhere/libonnxruntime.so");
    // The setting wins over a wrong variable.
    let (good, text) = child("library_child", library.to_str().unwrap(), &[(library::VARIABLE, wrong)]);
    assert!(good && text.contains("loaded 1."), "{text}");
    let (good, text) = child("library_child", library.parent().unwrap().to_str().unwrap(), &[]);
    assert!(good && text.contains("loaded 1."), "{text}");
    let (good, text) = child("library_child", "search", &[(library::VARIABLE, &library)]);
    assert!(good && text.contains("loaded 1."), "{text}");
    // A variable that names nothing is not passed over.
    let (good, text) = child("library_child", "search", &[(library::VARIABLE, wrong)]);
    assert!(good && text.contains("/nowhere/libonnxruntime.so (ORT_DYLIB_PATH): not there"), "{text}");
    assert!(!text.contains("/usr/lib/ssds"), "{text}");
}

#[test]
fn a_search_without_success_names_every_place() {
    // Only where the machine has no library of its own can the search fail.
    let (good, text) = child("library_child", "search", &[]);
    assert!(good, "{text}");
    if text.contains("loaded ") {
        println!("skipped: this machine has an ONNX Runtime library in a customary place");
        return;
    }
    assert!(text.contains("Unavailable: no usable ONNX Runtime library; tried"), "{text}");
    for place in
        ["(beside the program): not there", "/usr/lib/ssds/libonnxruntime.so (package): not there", "(system): not there"]
    {
        assert!(text.contains(place), "{place}\n{text}");
    }
}
