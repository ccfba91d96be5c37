//! `ssds doctor`: looks at a board as the daemon would see it, and says what to do about what is wrong.
//!
//! Each part is looked at by itself, so that one fault does not hide the next: configuration, unit, clock, disk, store, template, model and
//! provider, camera, broker. While the daemon runs (its HTTP side answers) camera, model and broker are asked of it, as it holds them; else
//! they are tried from here: the camera is opened and one frame taken, the network is loaded and verified, the broker is logged in to under a
//! client id of its own. Nothing is changed. Exit 0: no fault (warnings allowed), 1: at least one.

mod system;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::capture::{self, Grab};
use crate::clock::SystemClock;
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::frame::Gray;
use crate::publish::PublishSettings;
use crate::publish::listen::listen;
use crate::record::store::StoreReader;

/// Longest wait for a frame beyond `camera.timeout_ms`.
const FRAME_MARGIN: Duration = Duration::from_secs(2);

/// What to look at.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// The unit that runs the daemon.
    #[arg(long, default_value = "ssds.service")]
    unit: String,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// How a part stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// In order.
    Ok,
    /// Works, and deserves a look.
    Warn,
    /// Keeps the station from working.
    Fault,
    /// Not looked at; the text says why.
    Skipped,
}

/// One part's finding.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    state: State,
    text: String,
    /// What to do, for a person at the board.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

impl Finding {
    fn new(what: impl Into<String>, state: State, text: impl Into<String>) -> Self {
        Self { what: what.into(), state, text: text.into(), todo: None }
    }

    fn todo(mut self, todo: impl Into<String>) -> Self {
        self.todo = Some(todo.into());
        self
    }

    fn fault(what: &'static str, error: &Error) -> Self {
        Self::new(what, State::Fault, format!("{error:#}"))
    }
}

/// Looks.
///
/// # Errors
/// None of its own: what is wrong is a finding.
pub fn run(args: Args) -> Result<u8> {
    let mut findings = Vec::new();
    let config = match config::load(&args.config) {
        Ok(config) => {
            findings.push(Finding::new(
                "configuration",
                State::Ok,
                format!("{}: sha256 {}", args.config.display(), config.sha256),
            ));
            Some(config)
        }
        Err(e) => {
            let todo = format!("edit {}, then: ssds check --config {}", args.config.display(), args.config.display());
            findings.push(Finding::fault("configuration", &e).todo(todo));
            None
        }
    };
    findings.push(system::unit(&args.unit));
    findings.push(system::clock());
    if let Some(config) = &config {
        findings.extend(system::disk(config));
        findings.push(store(config));
        findings.push(template(config));
        let daemon = system::ask_daemon(&config.text("http.listen"));
        match daemon.filter(|d| d["station"] == config.text("station.name")) {
            Some(daemon) => findings.extend(running(&daemon)),
            None => {
                findings.extend(inference(config));
                findings.extend([camera(config), broker(config)]);
            }
        }
    }
    let bad = findings.iter().any(|f| f.state == State::Fault);
    if args.json {
        println!("{}", serde_json::json!({"ok": !bad, "findings": findings}));
    } else {
        for f in &findings {
            println!("{}", line(f));
        }
    }
    Ok(u8::from(bad))
}

/// A finding for a person: what to do stands below it.
fn line(f: &Finding) -> String {
    let state = match f.state {
        State::Ok => "ok",
        State::Warn => "WARN",
        State::Fault => "FAULT",
        State::Skipped => "-",
    };
    let indent = format!("\n{:21}", "");
    let mut text = format!("{state:<5} {:<14} {}", f.what, f.text.replace('\n', &indent));
    if let Some(todo) = &f.todo {
        text += &format!("{indent}-> {}", todo.replace('\n', &indent));
    }
    text
}

/// What the running daemon says of itself (`/api/v1/status`).
fn running(daemon: &Value) -> Vec<Finding> {
    let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let reasons: Vec<String> = daemon["reasons"].as_array().into_iter().flatten().map(word).collect();
    let of = |part: &str| reasons.iter().find_map(|r| r.strip_prefix(part).map(|r| r.trim_start_matches(": ").to_owned()));
    let mut out = vec![Finding::new(
        "daemon",
        if reasons.is_empty() { State::Ok } else { State::Warn },
        format!("runs, state {}{}", word(&daemon["state"]), reasons.iter().map(|r| format!("; {r}")).collect::<String>()),
    )];
    out.push(match of("model") {
        None => {
            let m = &daemon["model"];
            let text =
                format!("{} {} on {} {}", word(&m["model"]), word(&m["version"]), word(&m["provider"]), word(&m["precision"]));
            Finding::new("model", State::Ok, format!("{text} (asked of the running daemon)"))
        }
        Some(why) => Finding::new("model", State::Fault, why),
    });
    out.push(match of("camera") {
        None => Finding::new("camera", State::Ok, "delivers to the running daemon"),
        Some(why) => Finding::new("camera", State::Fault, why).todo(CAMERA_TODO),
    });
    let mqtt = &daemon["mqtt"];
    let (broker, link, message) = (word(&mqtt["broker"]), word(&mqtt["link"]), word(&mqtt["message"]));
    out.push(match link.as_str() {
        "" => Finding::new("broker", State::Skipped, "mqtt.enabled is false: results are recorded, not published"),
        "online" => Finding::new("broker", State::Ok, format!("{broker}: online, {} results wait", mqtt["outbox_events"])),
        _ => Finding::new("broker", State::Fault, format!("{broker}: {link} {message}"))
            .todo(broker_todo(&word(&mqtt["reason"]), &message)),
    });
    out
}

fn store(config: &Config) -> Finding {
    let path = config.path("paths.state_dir").join("ssds.db");
    if !path.exists() {
        return Finding::new("store", State::Ok, format!("{}: will be made at the first start", path.display()));
    }
    match StoreReader::open_read_only(&path) {
        Ok((_, station)) if station != config.text("station.name") => Finding::new(
            "store",
            State::Fault,
            format!("{} belongs to station {station}, station.name is {}", path.display(), config.text("station.name")),
        )
        .todo("give the station its old name back, or move the file away: its results stay readable with `ssds audit --db`"),
        Ok((reader, _)) => Finding::new(
            "store",
            State::Ok,
            format!("{}: last seq {}, {} results wait for the broker", path.display(), reader.last_seq(), reader.outbox_events()),
        ),
        Err(e) if e.kind() == Kind::Permission => {
            Finding::fault("store", &e).todo("run the doctor as root or as the daemon's user: sudo -u ssds ssds doctor")
        }
        Err(e) => Finding::fault("store", &e)
            .todo("a damaged file is repaired and reported at the daemon's next start; copy it away before"),
    }
}

fn template(config: &Config) -> Finding {
    let product = config.text("product.name");
    let todo = format!(
        "take a picture of a good part and teach it:\nsudo -u ssds ssds camera grab --out /tmp/good && sudo -u ssds ssds teach {product} /tmp/good/000000.png"
    );
    // Opening the store would make it.
    let folder = config.template_dir();
    if std::fs::read_dir(&folder).map_or(true, |mut entries| entries.next().is_none()) {
        let text = format!("product.name {product}: nothing was taught yet ({} is empty or not readable)", folder.display());
        return Finding::new("template", State::Fault, text).todo(todo);
    }
    match super::run::load_product(config) {
        Ok(p) => {
            let (w, h) = p.template.image.size();
            Finding::new("template", State::Ok, format!("{} version {} ({w}x{h})", p.template.id, p.template.version))
        }
        Err(e) => Finding::fault("template", &e).todo(todo),
    }
}

/// Library, model, providers, engine, session. Once a session opens, what is not as the settings ask is a warning: another provider computes.
fn inference(config: &Config) -> Vec<Finding> {
    let found = match super::model::examine(config) {
        Ok(found) => found,
        Err(e) => return vec![Finding::fault("model", &e)],
    };
    let opens = found.iter().any(|f| f.what == "session" && f.text.contains("parity"));
    found
        .into_iter()
        .map(|f| {
            let state = match (f.good, opens) {
                (true, _) => State::Ok,
                (false, true) => State::Warn,
                (false, false) => State::Fault,
            };
            let todo = (!f.good).then(|| inference_todo(&f.what));
            Finding { what: f.what, state, text: f.text, todo }
        })
        .collect()
}

fn inference_todo(what: &str) -> String {
    match what {
        "onnx runtime" => "install the package ssds, which brings the CPU library, or set inference.library to the board's own build",
        "model" => "compare the file with its manifest: ssds model info --model FILE; reinstall the package",
        "engine" => "sudo -u ssds ssds model build --config /etc/ssds/ssds.toml",
        w if w.starts_with("provider") || w == "session" => {
            "on a Jetson: inference.library must name the board's own GPU build, and the unit needs the jetson.conf drop-in (docs/deploy.md)"
        }
        _ => "see the settings of inference: ssds config show",
    }
    .to_owned()
}

const CAMERA_TODO: &str =
    "see what there is: ssds camera list; set camera.device to a stable path (/dev/v4l/by-id/...); check the cable";

fn camera(config: &Config) -> Finding {
    match grab(config) {
        Ok((camera, image)) => {
            let mean = mean(&image);
            let (low, high) = (config.f64("image.min_mean"), config.f64("image.max_mean"));
            let text = format!("{camera}; a frame came, mean gray level {mean:.1}");
            if mean < low || mean > high {
                return Finding::new("camera", State::Warn, format!("{text}, outside image.min_mean {low} to image.max_mean {high}"))
                    .todo("check lens cap, light and camera.exposure_us; such frames are answered ERROR");
            }
            Finding::new("camera", State::Ok, text)
        }
        Err(e) if e.kind() == Kind::Permission => Finding::fault("camera", &e).todo(
            "the device's group must be one of the daemon's: ls -l the device; the unit has SupplementaryGroups=video;\nthis doctor must run as root or as that user: sudo -u ssds ssds doctor",
        ),
        Err(e) if e.kind() == Kind::TryAgain => {
            Finding::fault("camera", &e).todo("another program has the camera; find it: sudo fuser -v the device")
        }
        Err(e) => Finding::fault("camera", &e).todo(CAMERA_TODO),
    }
}

/// One frame from the configured camera.
fn grab(config: &Config) -> Result<(String, Gray)> {
    let mut camera = capture::open(config, Arc::new(SystemClock))?;
    let limit = config.duration("camera.timeout_ms") + FRAME_MARGIN;
    let until = Instant::now() + limit;
    loop {
        match camera.grab(until.saturating_duration_since(Instant::now()))? {
            Grab::Frame(frame) => return Ok((camera.describe(), frame.image)),
            Grab::Unusable { source, message } => return Err(Error::data(format!("{source}: {message}"))),
            Grab::End => return Err(Error::unavailable(format!("{}: has no frame", camera.describe()))),
            Grab::Idle if Instant::now() < until => {}
            Grab::Idle if camera.may_be_silent() => {
                return Err(Error::unavailable(format!(
                    "{}: no frame within {:.1} s; it waits for its trigger",
                    camera.describe(),
                    limit.as_secs_f64()
                )));
            }
            Grab::Idle => {
                return Err(Error::unavailable(format!("{}: no frame within {:.1} s", camera.describe(), limit.as_secs_f64())));
            }
        }
    }
}

fn mean(image: &Gray) -> f64 {
    let pixels = image.data();
    pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / pixels.len().max(1) as f64
}

fn broker(config: &Config) -> Finding {
    if !config.bool("mqtt.enabled") {
        return Finding::new("broker", State::Skipped, "mqtt.enabled is false: results are recorded, not published");
    }
    if config.bool("mqtt.embedded_broker") {
        return Finding::new("broker", State::Skipped, "mqtt.embedded_broker: it runs inside the daemon");
    }
    let settings = super::run::publish_settings(config);
    // The daemon's own id would throw the daemon out.
    let settings = PublishSettings { client_id: format!("{}-doctor", settings.client_id()), ..settings };
    // Connecting, being accepted and leaving is all: no subscription, no message.
    let asked = std::cell::Cell::new(false);
    match listen(&settings, &[], &mut || {}, &mut |_| {}, &|| !asked.replace(true)) {
        Ok(()) => Finding::new("broker", State::Ok, format!("{}: accepts this station's login", settings.broker())),
        Err(e) => Finding::fault("broker", &e).todo(broker_todo("", e.message())),
    }
}

/// What to do about a broker that is not online: by the daemon's reason code where there is one, else by the message.
fn broker_todo(reason: &str, message: &str) -> String {
    let text = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    let todo = if reason == "tls" || has(&["certificate", "tls", "pem", "ca_file"]) {
        "check mqtt.ca_file, mqtt.cert_file, mqtt.key_file and mqtt.server_name, and that the clock is right:\nopenssl s_client -connect HOST:PORT -CAfile CA"
    } else if matches!(reason, "bad_login" | "not_authorized") || has(&["password", "user name", "authori", "login"]) {
        "check mqtt.username and mqtt.password_file, and the broker's access list (config/mqtt.md)"
    } else if reason == "client_id" || has(&["client id"]) {
        "another station uses the client id: station.name and mqtt.client_id must be unique at the broker"
    } else if has(&["lookup", "resolve", "name or service"]) {
        "check mqtt.host and the board's name server: getent hosts HOST"
    } else {
        "check mqtt.host and mqtt.port, the network and the firewall: nc -vz HOST PORT; results wait on disk meanwhile"
    };
    todo.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below_the_finding() {
        let f = Finding::new("camera", State::Fault, "camera top: gone\nsecond").todo("a\nb");
        assert_eq!(
            line(&f),
            "FAULT camera         camera top: gone\n                     second\n                     -> a\n                     b"
        );
    }

    #[test]
    fn a_running_daemon_is_asked() {
        let daemon = serde_json::json!({"state": "preoperational", "reasons": ["camera: top (/dev/video0): no frame"], "model": {"model": "ssds", "provider": "cpu"},
            "mqtt": {"link": "refused", "reason": "tls", "message": "bad certificate", "broker": "mqtts://b:8883", "outbox_events": 3}});
        let findings = running(&daemon);
        let of = |what: &str| findings.iter().find(|f| f.what == what).unwrap();
        assert_eq!((of("camera").state, of("camera").text.as_str()), (State::Fault, "top (/dev/video0): no frame"));
        assert_eq!(of("model").state, State::Ok);
        assert_eq!(of("broker").state, State::Fault);
        assert!(of("broker").todo.as_ref().unwrap().contains("mqtt.ca_file"));
    }

    #[test]
    fn the_broker_s_words_lead_to_what_to_do() {
        for (message, wanted) in [
            ("invalid peer certificate: UnknownIssuer", "openssl s_client"),
            ("not authorized", "mqtt.username"),
            ("failed to lookup address information: Name or service not known", "getent hosts"),
            ("Connection refused (os error 111)", "nc -vz"),
        ] {
            assert!(broker_todo("", message).contains(wanted), "{message}: {}", broker_todo("", message));
        }
    }
}
