//! `config/mqtt.md` as a new user follows it: its own blocks are run, only paths, host name and port are the test's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::mqtt::broker::Mosquitto;
use crate::mqtt::{LIMIT, free_port, until};
use crate::support::{Process, library, model, need_library, root, ssds, text};

/// The guide's code blocks: language and name of the fence, text.
pub fn blocks() -> Vec<(String, String)> {
    let guide = std::fs::read_to_string(root().join("config/mqtt.md")).unwrap();
    let mut blocks = Vec::new();
    let mut parts = guide.split("```");
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let (fence, text) = block.split_once('\n').unwrap();
        blocks.push((fence.to_owned(), text.to_owned()));
    }
    blocks
}

/// The block with exactly this fence.
pub fn block(name: &str) -> String {
    blocks().into_iter().find(|(fence, _)| fence == name).unwrap_or_else(|| panic!("no block {name}")).1
}

/// A folder that stands for the plant: where the guide is followed, and its /etc/mosquitto.
struct Plant {
    folder: PathBuf,
    port: u16,
}

impl Plant {
    /// The guide's words with this plant's paths and port.
    fn here(&self, text: &str) -> String {
        text.replace("/etc/mosquitto", self.folder.join("etc").to_str().unwrap())
            .replace("/var/lib/mosquitto/", &format!("{}/", self.folder.join("kept").display()))
            .replace("/etc/ssds/certs", self.folder.to_str().unwrap())
            .replace("/etc/ssds/mqtt.password", self.folder.join("aoi1.password").to_str().unwrap())
            // The test's broker keeps the test's user.
            .replace("-o mosquitto ", "")
            .replace("broker.plant.example", "localhost")
            .replace("8883", &self.port.to_string())
    }

    fn command(&self, fence: &str, edit: impl Fn(String) -> String) -> Command {
        let mut command = Command::new("sh");
        let program = Path::new(env!("CARGO_BIN_EXE_ssds")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let script = edit(self.here(&block(fence)));
        // In its place the shell becomes the command, so that ending it ends the command.
        let script =
            if script.starts_with("mosquitto_") || script.starts_with("ssds ") { format!("exec {script}") } else { script };
        command.args(["-e", "-c", &script]).env("BROKER_NAME", "localhost").env("PATH", path).current_dir(&self.folder);
        command
    }

    fn run(&self, fence: &str) {
        let output = self.command(fence, |s| s).output().unwrap();
        assert!(output.status.success(), "{fence}: {}", text(&output));
    }
}

/// A broker set up by the guide's blocks in `folder`; `passwords` or else client certificates.
pub fn broker(folder: &Path, passwords: bool) -> Option<Mosquitto> {
    Mosquitto::program()?;
    for (program, argument) in [("openssl", "version"), ("mosquitto_passwd", "--help"), ("mosquitto_sub", "--help")] {
        if Command::new(program).arg(argument).output().is_err() {
            println!("skipped: {program} is not installed");
            return None;
        }
    }
    let plant = Plant { folder: folder.to_owned(), port: free_port() };
    std::fs::create_dir_all(folder.join("etc")).unwrap();
    std::fs::create_dir_all(folder.join("kept")).unwrap();
    plant.run("sh certificates");
    plant.run("sh broker-files");
    std::fs::write(folder.join("etc/stations.acl"), block("conf acl")).unwrap();
    if passwords {
        plant.run("sh passwords");
    }
    let watch_port = free_port();
    let config = plant.here(&block(if passwords { "conf mosquitto-passwords" } else { "conf mosquitto" }));
    let config = config.replace(&format!("listener {}", plant.port), &format!("listener {} 127.0.0.1", plant.port));
    // A door of the tests' own, and the tests' own user.
    let config = format!("{config}\nuser root\nlog_type error\nlistener {watch_port} 127.0.0.1\nallow_anonymous true\n");
    Some(Mosquitto::start_with(folder, &config, plant.port, watch_port))
}

/// A station with the guide's `[mqtt]` section; it inspects its own template for ever.
fn station(plant: &Plant, fence: &str) -> PathBuf {
    let path = plant.folder.join("ssds.toml");
    std::fs::create_dir_all(plant.folder.join("frames")).unwrap();
    let template = root().join("tests/data/demo/template.png");
    std::fs::copy(&template, plant.folder.join("frames/0.png")).unwrap();
    let settings = format!(
        "station.name = \"aoi1\"\nproduct.name = \"board\"\npaths.state_dir = \"state\"\npaths.cache_dir = \"cache\"\n\
         http.enabled = false\ncamera.backend = \"replay\"\ncamera.path = \"frames\"\ncamera.rate_hz = 20\ncamera.loop = true\n\
         pipeline.overload = \"wait\"\ncamera.max_age_ms = 60000\n\
         inference.model = \"{}\"\ninference.library = \"{}\"\ninference.tile_px = 640\n\n{}",
        model().display(),
        library().unwrap_or_default().display(),
        plant.here(&block(fence))
    );
    std::fs::write(&path, settings).unwrap();
    let config = path.to_str().unwrap();
    let taught = ssds(&["teach", "board", template.to_str().unwrap(), "--config", config]);
    assert!(taught.status.success(), "{}", text(&taught));
    let checked = ssds(&["check", "--config", config]);
    assert!(checked.status.success(), "{}", text(&checked));
    path
}

fn daemon(config: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssds"));
    Process::start(command.args(["run", "--config"]).arg(config).env("RUST_LOG", "info"))
}

fn wait_for(process: &Process, what: &str) {
    until(what, || process.log().contains(what));
}

#[test]
fn a_new_user_gets_a_secured_station() {
    need_library();
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = broker(folder.path(), false) else { return };
    let plant = Plant { folder: folder.path().to_owned(), port: broker.port };
    let config = station(&plant, "toml station");
    // Before the station speaks: that the windows are open shows when what is retained comes, and the rest as it comes.
    let watch = Process::start(&mut plant.command("sh watch", |s| s));
    let mut run = daemon(&config);
    wait_for(
        &watch,
        "acme/hz/smt/line3/aoi1/ssds/status {\"schema\":\"ssds.status/1\",\"station\":\"aoi1\",\"status\":\"online\"",
    );
    wait_for(&watch, "acme/hz/smt/line3/aoi1/ssds/result/ok {");

    let mut audit = Process::start(&mut plant.command("sh audit", |s| s.replace("--seconds 30", "--until 3")));
    let status = audit.wait(LIMIT);
    assert!(status.success() && audit.log().contains(": complete"), "{}", audit.log());

    let answers = Process::start(&mut plant.command("sh answers", |s| s.replace("mosquitto_sub", "stdbuf -oL mosquitto_sub -d")));
    wait_for(&answers, "Subscribed");
    let sent = plant.command("sh command", |s| s).output().unwrap();
    assert!(sent.status.success(), "{}", text(&sent));
    wait_for(&answers, "\"command\":\"pause\"");
    wait_for(&answers, "\"outcome\":\"done\"");
    wait_for(&watch, "\"mode\":\"paused\"");

    run.signal("TERM");
    assert!(run.wait(Duration::from_secs(60)).success(), "{}", run.log());
    wait_for(&watch, "\"status\":\"stopped\"");
}

#[test]
fn a_new_user_gets_a_station_with_a_password() {
    need_library();
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = broker(folder.path(), true) else { return };
    let plant = Plant { folder: folder.path().to_owned(), port: broker.port };
    let config = station(&plant, "toml station-passwords");
    let password = std::fs::read_to_string(folder.path().join("mes.password")).unwrap();
    let login = format!("-u mes -P {} -v", password.trim());
    let watch =
        Process::start(&mut plant.command("sh watch", |s| s.replace("--cert mes.pem --key mes.key", "").replace("-v", &login)));
    let mut run = daemon(&config);
    wait_for(&watch, "acme/hz/smt/line3/aoi1/ssds/result/ok {");
    run.signal("TERM");
    assert!(run.wait(Duration::from_secs(60)).success(), "{}", run.log());
    wait_for(&watch, "\"status\":\"stopped\"");
}
