//! mosquitto as a child process with a configuration of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ssds::clock::{Clock, SystemClock};

use super::{free_port, until};

/// The broker of one test; killed when it goes.
pub struct Mosquitto {
    /// For the station.
    pub port: u16,
    /// For subscribers, always without TLS and password.
    pub watch_port: u16,
    config: PathBuf,
    program: PathBuf,
    child: Option<Child>,
}

impl Mosquitto {
    /// Where the program is, or a line why the test is skipped.
    pub fn program() -> Option<PathBuf> {
        let found =
            ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"].iter().map(Path::new).find(|p| p.exists());
        if found.is_none() {
            println!("skipped: mosquitto is not installed (Debian: apt install mosquitto)");
        }
        found.map(Path::to_owned)
    }

    /// Starts it in `folder`. `station`: further lines for the station's listener, `general`: for the whole broker.
    pub fn start(folder: &Path, station: &str, general: &str) -> Option<Self> {
        Self::program()?;
        let (port, watch_port) = (free_port(), free_port());
        // Queues without limit: a broker that drops what it has acknowledged would be the broker's loss. `user root` keeps it from
        // giving up root, when the tests run as root, in favour of a user who may not read the folder.
        let text = format!(
            "per_listener_settings true\nuser root\nmax_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\nlog_type error\n\
             {general}\nlistener {watch_port} 127.0.0.1\nallow_anonymous true\nlistener {port} 127.0.0.1\n{station}\n"
        );
        Some(Self::start_with(folder, &text, port, watch_port))
    }

    /// Starts it with a configuration that listens on these two ports.
    pub fn start_with(folder: &Path, text: &str, port: u16, watch_port: u16) -> Self {
        let config = folder.join("mosquitto.conf");
        std::fs::write(&config, text).unwrap();
        let program = Self::program().expect("the caller has asked");
        let mut broker = Self { port, watch_port, config, program, child: None };
        broker.launch();
        broker
    }

    /// Starts the process (again) and waits until it listens.
    pub fn launch(&mut self) {
        assert!(self.child.is_none());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.config.with_extension("log")).unwrap();
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        for port in [self.watch_port, self.port] {
            until("mosquitto listens", || {
                let ended = self.child.as_mut().unwrap().try_wait().unwrap();
                assert!(
                    ended.is_none(),
                    "mosquitto ended: {}",
                    std::fs::read_to_string(self.config.with_extension("log")).unwrap()
                );
                std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP for a while; call [`Mosquitto::kill`] after.
    pub fn freeze(&self, time: Duration) {
        self.signal("-STOP");
        SystemClock.sleep(time);
    }

    /// SIGHUP: reads passwords and access lists anew.
    pub fn reload(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
