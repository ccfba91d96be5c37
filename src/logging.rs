//! Log output: plain lines in a terminal, syslog priorities under systemd.
//!
//! `RUST_LOG` chooses levels as env_logger documents; the default is `info`. When standard error is the journal (`JOURNAL_STREAM` names
//! it), every line begins with its priority as sd-daemon(3) describes, `<6>`, and the time is left to the journal.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use log::Level;

/// Starts logging to standard error.
pub fn init() {
    let mut builder = env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("info,ort=warn,rumqttc=warn,rumqttd=off,tracing=warn"),
    );
    if to_journal() {
        builder.format(|out, record| {
            let text = format!("{}: {}", record.target(), record.args());
            out.write_all(prefixed(priority(record.level()), &text).as_bytes())
        });
    } else {
        builder.format_timestamp_millis();
    }
    // A second call (tests) keeps the first logger.
    let _ = builder.try_init();
}

/// Tells what ended the program, on standard error: with priority `err` on every line under systemd, so that `journalctl -p err` shows it.
pub fn last_words(text: &str) {
    let text = format!("ssds: {text}");
    if to_journal() {
        eprint!("{}", prefixed(priority(Level::Error), &text));
    } else {
        eprintln!("{text}");
    }
}

/// Whether standard error is the journal's stream: `JOURNAL_STREAM` is inherited by children whose output goes elsewhere, so device and
/// inode are compared (systemd.exec(5)).
fn to_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|m| named == format!("{}:{}", m.dev(), m.ino()))
}

/// The text with the priority before each of its lines: the journal takes a line without one as `info`.
fn prefixed(priority: u8, text: &str) -> String {
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

/// sd-daemon(3) priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_message_bears_its_priority() {
        assert_eq!(prefixed(priority(Level::Error), "a.toml:1: x\na.toml:2: y"), "<3>a.toml:1: x\n<3>a.toml:2: y\n");
        assert_eq!(prefixed(priority(Level::Warn), "one"), "<4>one\n");
    }
}
