//! What the tests share: scratch folders, the ONNX Runtime library, a real broker, the daemon as a process.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ssds::frame::{Gray, save_gray_png};

/// Says why a test did nothing, in a line of its own.
pub fn skipped(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
}

/// The project's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder with shared benches and data, when there is one: `SSDS_SHARED`, else `../shared`.
pub fn shared() -> Option<PathBuf> {
    let path = std::env::var_os("SSDS_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    path.is_dir().then_some(path)
}

/// libonnxruntime: `ORT_DYLIB_PATH`, else what `make runtime` fetched.
pub fn library() -> Option<PathBuf> {
    let by_name = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    by_name.into_iter().chain([root().join("runtime/libonnxruntime.so.1.31.1")]).find(|p| p.is_file())
}

/// The library, or a failed test: `make test` fetches it.
pub fn need_library() -> PathBuf {
    library().expect("ONNX Runtime is needed: `make runtime` fetches it into runtime/")
}

/// The shipped network.
pub fn model() -> PathBuf {
    root().join("models/ssds.onnx")
}

/// A port nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// `ssds` with these arguments, run to its end.
pub fn ssds(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ssds")).args(args).env("RUST_LOG", "info").output().unwrap()
}

/// Both outputs as text.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A process that is killed when the test ends.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts a command, collecting what it prints.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        for pipe in [Box::new(out) as Box<dyn std::io::Read + Send>, Box::new(err)] {
            let log = Arc::clone(&log);
            std::thread::Builder::new()
                .spawn(move || {
                    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                        let mut log = log.lock().unwrap();
                        log.push_str(&line);
                        log.push('\n');
                    }
                })
                .unwrap();
        }
        Self { child, log }
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a line contains `what`.
    pub fn wait_for(&mut self, what: &str, within: Duration) {
        let until = Instant::now() + within;
        while !self.log().contains(what) {
            assert!(Instant::now() < until, "no line with {what:?} within {within:?} in:\n{}", self.log());
            if let Some(status) = self.child.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(100));
                assert!(self.log().contains(what), "ended with {status} before a line with {what:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(100));
                return status;
            }
            assert!(Instant::now() < until, "still running after {within:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mosquitto of its own on a free loopback port.
pub struct Broker {
    pub port: u16,
    _process: Process,
    _dir: tempfile::TempDir,
}

impl Broker {
    /// Starts it; `None` when mosquitto is not installed.
    pub fn start() -> Option<Self> {
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|p| Path::new(p).exists())?;
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = dir.path().join("mosquitto.conf");
        std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n"))
            .unwrap();
        let process = Process::start(Command::new(program).arg("-c").arg(&config));
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "mosquitto does not listen:\n{}", process.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { port, _process: process, _dir: dir })
    }

    /// A subscriber to everything, printing `topic payload` lines.
    pub fn subscribe(&self) -> Process {
        let mut subscriber = Process::start(Command::new("mosquitto_sub").args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-q",
            "1",
            "-t",
            "#",
            "-v",
        ]));
        // Retained messages of a marker topic show that the subscription stands.
        let marker = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-r", "-t", "marker", "-m", "subscribed"])
            .status()
            .unwrap();
        assert!(marker.success());
        subscriber.wait_for("marker subscribed", Duration::from_secs(10));
        subscriber
    }
}

/// A station's folder with configuration, frames and a taught template.
pub struct Station {
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
}

impl Station {
    /// Writes the configuration (`extra` is appended) for frames in `frames/`.
    pub fn new(mqtt_port: u16, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("frames")).unwrap();
        let config = dir.path().join("ssds.toml");
        let library = library().unwrap_or_default();
        let text = format!(
            "station.name = \"test1\"\nproduct.name = \"board\"\npaths.state_dir = \"state\"\npaths.cache_dir = \"cache\"\n\
             http.enabled = false\n\
             camera.backend = \"replay\"\ncamera.path = \"frames\"\ncamera.rate_hz = 50\n\
             pipeline.overload = \"wait\"\ncamera.max_age_ms = 60000\n\
             inference.model = \"{}\"\ninference.library = \"{}\"\ninference.tile_px = 640\n\
             mqtt.port = {mqtt_port}\nmqtt.prefix = \"t\"\n{extra}\n",
            model().display(),
            library.display()
        );
        std::fs::write(&config, text).unwrap();
        Self { dir, config }
    }

    /// Path inside the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Saves a frame.
    pub fn frame(&self, name: &str, picture: &Gray) {
        save_gray_png(&self.path("frames").join(name), picture).unwrap();
    }

    /// Teaches `picture` as product `board`.
    pub fn teach(&self, picture: &Path) -> Output {
        let config = self.config.to_string_lossy().into_owned();
        ssds(&["teach", "board", &picture.to_string_lossy(), "--config", &config])
    }

    /// Starts the daemon.
    pub fn run(&self) -> Process {
        Process::start(
            Command::new(env!("CARGO_BIN_EXE_ssds")).args(["run", "--config"]).arg(&self.config).env("RUST_LOG", "info"),
        )
    }

    /// Recorded events, by seq, with the number still in the outbox.
    pub fn recorded(&self) -> (Vec<serde_json::Value>, u64) {
        let db = rusqlite::Connection::open(self.path("state/ssds.db")).unwrap();
        let mut rows = db.prepare("SELECT seq, body FROM events ORDER BY seq").unwrap();
        let events = rows
            .query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?)))
            .unwrap()
            .map(|row| {
                let (seq, body) = row.unwrap();
                let event: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert_eq!(event["seq"], seq);
                event
            })
            .collect();
        let outbox: i64 = db.query_row("SELECT count(*) FROM outbox", [], |r| r.get(0)).unwrap();
        (events, u64::try_from(outbox).unwrap())
    }
}
