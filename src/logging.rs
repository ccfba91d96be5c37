//! Log output: plain lines in a terminal, syslog priorities under systemd.
//!
//! `RUST_LOG` chooses levels as env_logger documents; the default is `info`.

use std::io::Write;

use log::Level;

/// Starts logging to standard error. Under systemd (`JOURNAL_STREAM` is set) each line begins with its priority, `<6>`, and leaves the
/// time to the journal.
pub fn init() {
    let mut builder = env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("info,ort=warn,rumqttc=warn,rumqttd=off,tracing=warn"),
    );
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(|out, record| writeln!(out, "<{}>{}: {}", priority(record.level()), record.target(), record.args()));
    }
    // A second call (tests) keeps the first logger.
    let _ = builder.try_init();
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
