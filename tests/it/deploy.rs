//! Deployment: the unit's hardening and restart rules, command line.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ssds::Kind;

use crate::support::{root, skipped, text};

/// What the issue of hardening is measured by; systemd's own scale, 0 (best) to 10.
const MAX_EXPOSURE: f64 = 2.0;

/// What `make pages` runs.
#[path = "../../examples/cli_pages.rs"]
#[allow(dead_code)]
mod cli_pages;

/// Every file of the two folders by its name.
fn pages(dir: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for folder in ["man", "completions"] {
        for entry in std::fs::read_dir(dir.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{folder}/{}", path.file_name().unwrap().to_string_lossy());
            out.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    out
}

#[test]
fn packages_have_the_manual_pages_of_this_command_line() {
    let dir = tempfile::tempdir().unwrap();
    cli_pages::write(dir.path()).unwrap();
    let (wanted, found) = (pages(dir.path()), pages(&root().join("packaging")));
    assert!(wanted.len() > 40, "{}", wanted.len());
    let names = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&wanted), "files of packaging/man and packaging/completions; `make pages` writes them anew");
    for (name, text) in &wanted {
        assert!(found[name] == *text, "packaging/{name} is not what the command line says; `make pages` writes it anew");
    }
}

fn unit_text() -> String {
    std::fs::read_to_string(root().join("systemd/ssds.service")).unwrap()
}

/// Overall exposure of a unit file by systemd-analyze; `None` when that is not there.
fn exposure(file: &std::path::Path) -> Option<f64> {
    let output = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(file).output().ok()?;
    let said = text(&output);
    let line = said.lines().find(|l| l.contains("Overall exposure level")).unwrap_or_else(|| panic!("no exposure in:\n{said}"));
    Some(line.rsplit(": ").next().unwrap().split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn the_unit_is_hardened() {
    let Some(found) = exposure(&root().join("systemd/ssds.service")) else {
        skipped("the_unit_is_hardened", "systemd-analyze is not installed");
        return;
    };
    assert!(found <= MAX_EXPOSURE, "exposure {found}, wanted at most {MAX_EXPOSURE}");
    // The measure measures: without its sandbox the unit is exposed.
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("bare.service");
    std::fs::write(&bare, "[Service]\nType=notify\nExecStart=/usr/bin/ssds run\n").unwrap();
    assert!(exposure(&bare).unwrap() > 9.0);
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("ssds.service");
    // The program and its manual page are not installed here.
    let here = unit_text().replace("/usr/bin/ssds run", "/bin/true run").replace("man:ssds(1) ", "");
    std::fs::write(&unit, here).unwrap();
    std::fs::create_dir(dir.path().join("ssds.service.d")).unwrap();
    for name in ["jetson.conf", "genicam.conf"] {
        std::fs::copy(root().join("systemd").join(name), dir.path().join("ssds.service.d").join(name)).unwrap();
    }
    match Command::new("systemd-analyze").args(["verify", "--recursive-errors=no"]).arg(&unit).output() {
        Ok(output) => assert!(output.status.success() && text(&output).is_empty(), "{}", text(&output)),
        Err(_) => skipped("systemd_understands_every_line_of_the_unit", "systemd-analyze is not installed"),
    }
}

#[test]
fn the_unit_restarts_on_what_passes_by_itself_and_on_nothing_else() {
    let unit = unit_text();
    let line = unit.lines().find_map(|l| l.strip_prefix("RestartPreventExitStatus=")).unwrap();
    let codes: Vec<u8> = line.split(' ').map(|c| c.parse().unwrap()).collect();
    for kind in [Kind::Usage, Kind::Data, Kind::Missing, Kind::Config] {
        assert!(codes.contains(&kind.exit_code()), "{kind:?} needs a person, so {} must stand in {line}", kind.exit_code());
    }
    for kind in [Kind::Unavailable, Kind::Io, Kind::TryAgain, Kind::Internal, Kind::Permission, Kind::CannotCreate] {
        assert!(!codes.contains(&kind.exit_code()), "{kind:?} may pass, so {} must not stand in {line}", kind.exit_code());
    }
}

#[test]
fn the_command_line_is_well_formed_and_every_verb_documented() {
    let command = ssds::cmd::command();
    command.clone().debug_assert();
    for verb in command.get_subcommands() {
        assert!(verb.get_about().is_some(), "{} has no description", verb.get_name());
    }
}
