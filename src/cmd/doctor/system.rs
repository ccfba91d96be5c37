//! What the doctor asks of the machine: systemd's unit, the clock, the disks, and the running daemon by its HTTP side.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Finding, State};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::pipeline::event::clock_state;
use crate::record::event::ClockState;

/// Below this share of a disk free, a warning.
const LOW_FREE_FRAC: f64 = 0.10;
/// Below this, a fault: SQLite and the archive cannot work.
const NO_FREE_BYTES: u64 = 64 << 20;
/// Time for the daemon's answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// A clock before this (2026-01-01) was never set: a board without a battery starts in 1970 or at its image's date.
const EARLIEST_SECS: i64 = 1_767_225_600;

/// The unit, as systemd shows it.
pub(super) fn unit(unit: &str) -> Finding {
    let what = "unit";
    let properties = "LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result,ExecMainStatus,StatusText";
    let output = match Command::new("systemctl").args(["show", unit, "--property", properties]).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Finding::new(what, State::Skipped, format!("systemd does not answer: {why}"));
        }
        Err(e) => return Finding::new(what, State::Skipped, format!("systemctl cannot be run: {e}")),
    };
    judge_unit(unit, &properties_of(&String::from_utf8_lossy(&output.stdout)))
}

fn properties_of(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|l| l.split_once('=')).collect()
}

fn judge_unit(unit: &str, p: &BTreeMap<&str, &str>) -> Finding {
    let what = "unit";
    let of = |key: &str| p.get(key).copied().unwrap_or_default();
    let restarts: u32 = of("NRestarts").parse().unwrap_or(0);
    match (of("LoadState"), of("ActiveState")) {
        ("not-found", _) => Finding::new(what, State::Warn, format!("{unit} is not installed"))
            .todo("install the package ssds, or the files of systemd/ by hand (docs/deploy.md)"),
        (_, "active") => {
            let text = format!("{unit} is active, {restarts} restarts; {}", of("StatusText"));
            if of("UnitFileState") != "enabled" {
                return Finding::new(what, State::Warn, format!("{text}; it is {}", of("UnitFileState")))
                    .todo(format!("it does not start at boot: sudo systemctl enable {unit}"));
            }
            if restarts > 0 {
                return Finding::new(what, State::Warn, text)
                    .todo(format!("see why it was restarted: journalctl -u {unit} -p warning"));
            }
            Finding::new(what, State::Ok, text)
        }
        (_, "activating") => {
            Finding::new(what, State::Warn, format!("{unit} is starting ({}); {}", of("SubState"), of("StatusText")))
                .todo(format!("wait, or see what it waits for: journalctl -u {unit} -f"))
        }
        (_, "failed") => {
            let status = of("ExecMainStatus");
            let meaning = match status {
                "64" => " (usage)",
                "65" => " (bad data)",
                "66" => " (input missing)",
                "69" => " (something it needs is not there)",
                "73" | "74" => " (cannot write)",
                "77" => " (permission)",
                "78" => " (configuration)",
                "243" => " (a credential file is missing)",
                _ => "",
            };
            Finding::new(what, State::Fault, format!("{unit} failed: {}, exit {status}{meaning}", of("Result")))
                .todo(format!("read its last words: journalctl -u {unit} -n 20; then: sudo systemctl restart {unit}"))
        }
        (load, active) => Finding::new(what, State::Warn, format!("{unit} is {active} ({load}, {})", of("UnitFileState")))
            .todo(format!("start it once the rest is in order: sudo systemctl enable --now {unit}")),
    }
}

/// The wall clock: set at all, and disciplined.
pub(super) fn clock() -> Finding {
    let what = "clock";
    let now = SystemClock.now();
    if now.as_second() < EARLIEST_SECS {
        return Finding::new(what, State::Fault, format!("{now} was never set"))
            .todo("results would bear a wrong time, and TLS certificates look not yet valid: set up time synchronisation (docs/deploy.md)");
    }
    if clock_state() == ClockState::Synced {
        return Finding::new(what, State::Ok, format!("{now}, synchronised by systemd-timesyncd"));
    }
    let asked = Command::new("timedatectl").args(["show", "--property", "NTPSynchronized", "--value"]).output();
    if asked.is_ok_and(|o| o.status.success() && o.stdout.starts_with(b"yes")) {
        return Finding::new(
            what,
            State::Ok,
            format!("{now}, synchronised; results say clock unknown, as it is not systemd-timesyncd's work"),
        );
    }
    Finding::new(what, State::Warn, format!("{now}, not known to be synchronised; results say so"))
        .todo("sudo timedatectl set-ntp true; the plant's server in /etc/systemd/timesyncd.conf, NTP=")
}

/// Room and ownership of the folders that the daemon writes to.
pub(super) fn disk(config: &Config) -> Vec<Finding> {
    let state = config.path("paths.state_dir");
    let mut folders = vec![("paths.state_dir", state.clone()), ("paths.cache_dir", config.path("paths.cache_dir"))];
    for (key, folder) in [("paths.template_dir", config.template_dir()), ("paths.archive_dir", config.archive_dir())] {
        if !folder.starts_with(&state) {
            folders.push((key, folder));
        }
    }
    let mut out: Vec<Finding> = folders.iter().map(|(key, folder)| room(key, folder)).collect();
    out.extend(foreign(&state));
    out
}

fn room(key: &str, folder: &Path) -> Finding {
    let what = "disk";
    // A folder that is still to be made lies on the disk of its nearest parent.
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let Some(there) = absolute.ancestors().find(|f| f.exists()) else {
        return Finding::new(what, State::Fault, format!("{key} {}: no such place", folder.display()));
    };
    let stat = match rustix::fs::statvfs(there) {
        Ok(stat) => stat,
        Err(e) => return Finding::new(what, State::Fault, format!("{key} {}: {e}", folder.display())),
    };
    let (free, all) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    let percent = 100.0 * free as f64 / all.max(1) as f64;
    let text = format!("{key} {}: {} MiB free of {} MiB ({percent:.0} %)", folder.display(), free >> 20, all >> 20);
    let todo = "make room: evidence.max_files, record.history_events, journalctl --vacuum-size=200M";
    if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Finding::new(what, State::Fault, format!("{text}, mounted read-only"))
            .todo("see why: dmesg | grep -i -e ext4 -e mmc; a worn card is remounted read-only");
    }
    if free < NO_FREE_BYTES {
        Finding::new(what, State::Fault, text).todo(todo)
    } else if (free as f64) < LOW_FREE_FRAC * all as f64 {
        Finding::new(what, State::Warn, text).todo(todo)
    } else {
        Finding::new(what, State::Ok, text)
    }
}

/// Files that another user left in the state folder (a verb run as root): the daemon cannot write them.
fn foreign(state: &Path) -> Option<Finding> {
    let owner = std::fs::metadata(state).ok()?.uid();
    let mut found = Vec::new();
    let mut folders = vec![state.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.uid() != owner {
                found.push(entry.path());
            } else if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    let first: &PathBuf = found.iter().min()?;
    let more = if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
    Some(Finding::new("disk", State::Fault, format!("{}{more} not owned by {}'s owner", first.display(), state.display())).todo(
        format!(
            "sudo chown -R --reference={0} {0}; run verbs that write as the daemon's user: sudo -u ssds ssds ...",
            state.display()
        ),
    ))
}

/// `/api/v1/status` of a daemon that listens on `listen`; `None` when none answers.
pub(super) fn ask_daemon(listen: &str) -> Option<Value> {
    let mut address: SocketAddr = listen.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let mut stream = TcpStream::connect_timeout(&address, ASK_LIMIT).ok()?;
    stream.set_read_timeout(Some(ASK_LIMIT)).ok()?;
    stream.write_all(format!("GET /api/v1/status HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    if !head.lines().next()?.contains(" 200 ") {
        return None;
    }
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Finding {
        judge_unit("ssds.service", &properties_of(text))
    }

    #[test]
    fn the_unit_s_state_becomes_a_finding() {
        let f = judged("LoadState=loaded\nActiveState=failed\nResult=exit-code\nExecMainStatus=78\n");
        assert_eq!((f.state, f.text.as_str()), (State::Fault, "ssds.service failed: exit-code, exit 78 (configuration)"));
        let f = judged("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=0\nStatusText=ready = yes\n");
        assert_eq!((f.state, f.text.as_str()), (State::Ok, "ssds.service is active, 0 restarts; ready = yes"));
        assert_eq!(judged("LoadState=loaded\nActiveState=active\nUnitFileState=disabled\n").state, State::Warn);
        assert_eq!(judged("LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=3\n").state, State::Warn);
        assert_eq!(judged("LoadState=not-found\nActiveState=inactive\n").state, State::Warn);
    }

    #[test]
    fn a_folder_to_be_made_is_judged_by_its_parent_s_disk() {
        let dir = tempfile::tempdir().unwrap();
        let f = room("paths.state_dir", &dir.path().join("a/b"));
        assert!(f.text.contains("MiB free of"), "{f:?}");
    }

    #[test]
    fn a_tree_of_one_owner_has_no_foreign_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/b"), "").unwrap();
        assert!(foreign(dir.path()).is_none());
    }

    #[test]
    fn only_a_daemon_s_answer_counts() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::Builder::new()
            .spawn(move || {
                for answer in
                    ["HTTP/1.1 200 OK\r\nx: y\r\n\r\n{\"station\":\"a\"}", "HTTP/1.1 404 Not Found\r\n\r\n{}", "nonsense"]
                {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut request = [0; 512];
                    let _ = stream.read(&mut request).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            })
            .unwrap();
        assert_eq!(ask_daemon(&address).unwrap()["station"], "a");
        assert!(ask_daemon(&address).is_none());
        assert!(ask_daemon(&address).is_none());
        server.join().unwrap();
        assert!(ask_daemon(&address).is_none());
    }
}
