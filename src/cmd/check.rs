//! `ssds check`: a configuration and everything it names, without starting anything.
//!
//! Deployment runs it on the board before a restart. Exit 0 when the daemon would start, 1 when something is wrong; wrong settings are 78.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::capture;
use crate::clock::SystemClock;
use crate::config::{self, Config};
use crate::error::{Kind, Result};

/// What to check.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    text: String,
}

/// Checks.
///
/// # Errors
/// [`crate::Kind::Config`] when the settings themselves are wrong.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    let mut findings = Vec::new();
    let mut find = |what, answer: Result<String>| {
        let (ok, text) = match answer {
            Ok(text) => (true, text),
            Err(e) => (false, format!("{e:#}")),
        };
        findings.push(Finding { what, ok, text });
    };
    find("configuration", Ok(format!("{}: sha256 {}", args.config.display(), config.sha256)));
    find("camera", camera(&config));
    find(
        "template",
        super::run::load_product(&config).map(|p| {
            let (w, h) = p.template.image.size();
            format!("{} version {} ({w}x{h})", p.template.id, p.template.version)
        }),
    );
    find(
        "model",
        super::run::open_detector(&config).map(|d| {
            let i = d.info();
            format!(
                "{} {} on {} {} (ONNX Runtime {}), {}",
                i.name, i.version, i.provider, i.precision, i.runtime_version, i.parity
            )
        }),
    );
    find("store", super::run::check_store(&config));
    let bad = findings.iter().filter(|f| !f.ok).count();
    if args.json {
        println!("{}", serde_json::json!({"ok": bad == 0, "findings": findings}));
    } else {
        for f in &findings {
            println!("{:<5} {:<14} {}", if f.ok { "ok" } else { "FAULT" }, f.what, f.text);
        }
    }
    Ok(u8::from(bad > 0))
}

/// Whether the camera can be opened; one that is busy because the daemon runs is in order.
fn camera(config: &Config) -> Result<String> {
    match capture::open(config, Arc::new(SystemClock)) {
        Ok(camera) => Ok(camera.describe()),
        Err(e) if e.kind() == Kind::TryAgain && super::run::daemon_runs(config) => {
            Ok(format!("{}: in use by the running daemon", capture::Settings::of(config).label()))
        }
        Err(e) => Err(e),
    }
}
