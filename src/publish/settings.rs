//! What the publisher is told: broker, names, security, limits. Plain values; [`PublishSettings::check`] finds every fault at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// Longest topic prefix, bytes; leaves room below MQTT's 65 535.
const MAX_PREFIX_BYTES: usize = 256;

/// Version of the protocol on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1 (OASIS 2014).
    #[default]
    V311,
    /// MQTT 5 (OASIS 2019): reasons for refusals, user properties, message expiry.
    V5,
}

/// TLS towards the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Certificates (PEM) of the authorities that may sign the broker's; the plant's own CA, or the system's collection.
    pub ca_file: PathBuf,
    /// This station's certificate chain (PEM), for mutual TLS.
    pub cert_file: Option<PathBuf>,
    /// Its key (PEM); together with `cert_file`.
    pub key_file: Option<PathBuf>,
    /// The name the broker's certificate must bear, when it is not the host.
    pub server_name: Option<String>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { ca_file: "/etc/ssl/certs/ca-certificates.crt".into(), cert_file: None, key_file: None, server_name: None }
    }
}

/// Commands over MQTT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSettings {
    /// Off by default: whoever may publish on `cmd/` can stop the line.
    pub enabled: bool,
    /// Longest request, bytes; a longer one is refused unread.
    pub max_bytes: usize,
    /// Longest `ttl_ms` accepted.
    pub max_ttl: Duration,
    /// How far in the future `issued_at` may lie by this station's clock.
    pub max_clock_skew: Duration,
    /// Requests that may wait for the pipeline.
    pub queue: usize,
    /// Time for the pipeline to answer, after which `failed`/`timeout` goes out.
    pub answer_timeout: Duration,
}

impl Default for CommandSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            max_bytes: 4096,
            max_ttl: Duration::from_secs(60),
            max_clock_skew: Duration::from_secs(5),
            queue: 16,
            answer_timeout: Duration::from_secs(30),
        }
    }
}

/// Everything the publisher needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishSettings {
    /// Host name or address of the broker.
    pub host: String,
    /// Its port; 1883, with TLS usually 8883.
    pub port: u16,
    /// The plant's path above `ssds/`, say `acme/hz/smt/line3/aoi1`; may be empty.
    pub prefix: String,
    /// Station name, as in the events.
    pub station: String,
    /// MQTT client id; empty means `ssds-{station}`. Two stations with one id throw each other out.
    pub client_id: String,
    /// Protocol version.
    pub protocol: Protocol,
    /// Longest silence on the connection.
    pub keep_alive: Duration,
    /// TLS, or plain TCP.
    pub tls: Option<TlsSettings>,
    /// User name.
    pub username: Option<String>,
    /// File with the password (its first line); together with `username`.
    pub password_file: Option<PathBuf>,
    /// Results sent and not yet deleted from the outbox; also the bound of what may arrive twice after a fault.
    pub window: u16,
    /// Time for connecting and for the broker's answer to CONNECT.
    pub connect_timeout: Duration,
    /// Time for an acknowledgement, after which the connection counts as broken.
    pub publish_timeout: Duration,
    /// First pause before reconnecting; doubles to `reconnect_max`, drawn between half and whole.
    pub reconnect_min: Duration,
    /// Longest pause before reconnecting.
    pub reconnect_max: Duration,
    /// MQTT 5: how long the broker keeps results for absent subscribers; `None` for ever.
    pub message_expiry: Option<Duration>,
    /// Commands.
    pub commands: CommandSettings,
}

impl Default for PublishSettings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 1883,
            prefix: String::new(),
            station: "station".to_owned(),
            client_id: String::new(),
            protocol: Protocol::V311,
            keep_alive: Duration::from_secs(10),
            tls: None,
            username: None,
            password_file: None,
            window: 100,
            connect_timeout: Duration::from_secs(5),
            publish_timeout: Duration::from_secs(10),
            reconnect_min: Duration::from_millis(500),
            reconnect_max: Duration::from_secs(30),
            message_expiry: None,
            commands: CommandSettings::default(),
        }
    }
}

impl PublishSettings {
    /// The client id in force.
    #[must_use]
    pub fn client_id(&self) -> String {
        if self.client_id.is_empty() { format!("ssds-{}", self.station) } else { self.client_id.clone() }
    }

    /// `host:port` with `tls` or `tcp`, for messages.
    #[must_use]
    pub fn broker(&self) -> String {
        let scheme = if self.tls.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Finds what is wrong with the values alone, every fault in one message.
    ///
    /// # Errors
    /// [`Kind::Config`], a line a fault.
    pub fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        let mut want = |good: bool, text: String| {
            if !good {
                faults.push(text);
            }
        };
        want(!self.host.is_empty(), "mqtt.host must name the broker, got an empty text".to_owned());
        want(self.port > 0, "mqtt.port must be between 1 and 65535, got 0".to_owned());
        want(is_station(&self.station), station_fault(&self.station));
        want(
            is_prefix(&self.prefix),
            format!(
                "mqtt.prefix must be topic levels without `+`, `#`, `$`, empty levels or a slash at either end, at most \
                 {MAX_PREFIX_BYTES} bytes, got `{}`",
                self.prefix
            ),
        );
        let ka = self.keep_alive.as_secs();
        want(
            (1..=65_535).contains(&ka) && self.keep_alive.subsec_nanos() == 0,
            format!("mqtt.keep_alive_secs must be between 1 and 65535, got {}", self.keep_alive.as_secs_f64()),
        );
        want((1..=1000).contains(&self.window), format!("mqtt.inflight must be between 1 and 1000, got {}", self.window));
        want(
            self.reconnect_min > Duration::ZERO && self.reconnect_min <= self.reconnect_max,
            format!(
                "mqtt.reconnect_max_secs must be at least the first pause, which is above 0, got {} and {}",
                self.reconnect_max.as_secs_f64(),
                self.reconnect_min.as_secs_f64()
            ),
        );
        want(!self.connect_timeout.is_zero(), "mqtt.connect_timeout_secs must be above 0, got 0".to_owned());
        want(!self.publish_timeout.is_zero(), "mqtt.ack_timeout_secs must be above 0, got 0".to_owned());
        want(
            self.password_file.is_none() || self.username.is_some(),
            "mqtt.password_file needs mqtt.username (MQTT 3.1.1 has no password without a name)".to_owned(),
        );
        want(
            self.message_expiry.is_none() || self.protocol == Protocol::V5,
            "mqtt.message_expiry_secs needs mqtt.protocol = \"5\"".to_owned(),
        );
        if let Some(tls) = &self.tls {
            want(
                tls.cert_file.is_some() == tls.key_file.is_some(),
                "mqtt.cert_file and mqtt.key_file must be given together".to_owned(),
            );
        }
        let c = &self.commands;
        want(
            (64..=65_536).contains(&c.max_bytes),
            format!("mqtt.command_max_bytes must be between 64 and 65536, got {}", c.max_bytes),
        );
        want((1..=1024).contains(&c.queue), format!("the command queue must be between 1 and 1024, got {}", c.queue));
        if faults.is_empty() { Ok(()) } else { Err(Error::config(faults.join("\n"))) }
    }

    /// User name and password, read from the file now.
    ///
    /// # Errors
    /// [`Kind::Config`] naming the file when it cannot be read or is empty.
    pub fn login(&self) -> Result<Option<(String, String)>> {
        let Some(username) = &self.username else { return Ok(None) };
        let password = match &self.password_file {
            None => String::new(),
            Some(path) => read_secret(path)?,
        };
        Ok(Some((username.clone(), password)))
    }
}

/// First line of a secret's file.
fn read_secret(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::io(format!("mqtt.password_file {}", path.display()), e).with_kind(Kind::Config))?;
    match text.lines().next().map(str::trim_end).filter(|l| !l.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => {
            Err(Error::config(format!("mqtt.password_file {}: its first line must be the password, it is empty", path.display())))
        }
    }
}

/// Station names are `[a-z0-9][a-z0-9_-]{0,63}` (schema `ssds.inspection/1`).
#[must_use]
pub fn is_station(name: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=64).contains(&bytes.len()) && ok(bytes[0]) && bytes.iter().all(|&b| ok(b) || b == b'_' || b == b'-')
}

fn station_fault(name: &str) -> String {
    format!("station.name must be 1 to 64 of a-z, 0-9, `_`, `-`, beginning with a letter or digit, got `{name}`")
}

fn is_prefix(prefix: &str) -> bool {
    prefix.is_empty()
        || (prefix.len() <= MAX_PREFIX_BYTES
            && !prefix.starts_with('$')
            && !prefix.contains(['+', '#', '\0'])
            && prefix.split('/').all(|level| !level.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass() {
        PublishSettings::default().check().unwrap();
        assert_eq!(PublishSettings { station: "aoi1".into(), ..PublishSettings::default() }.client_id(), "ssds-aoi1");
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let settings = PublishSettings {
            host: String::new(),
            prefix: "a//b".into(),
            station: "AOI 1".into(),
            keep_alive: Duration::from_millis(500),
            window: 0,
            reconnect_min: Duration::from_secs(40),
            password_file: Some("/p".into()),
            message_expiry: Some(Duration::from_secs(5)),
            tls: Some(TlsSettings { cert_file: Some("/c".into()), ..TlsSettings::default() }),
            commands: CommandSettings { max_bytes: 1, queue: 0, ..CommandSettings::default() },
            ..PublishSettings::default()
        };
        let error = settings.check().unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert_eq!(
            error.to_string(),
            "mqtt.host must name the broker, got an empty text\n\
             station.name must be 1 to 64 of a-z, 0-9, `_`, `-`, beginning with a letter or digit, got `AOI 1`\n\
             mqtt.prefix must be topic levels without `+`, `#`, `$`, empty levels or a slash at either end, at most 256 bytes, got `a//b`\n\
             mqtt.keep_alive_secs must be between 1 and 65535, got 0.5\n\
             mqtt.inflight must be between 1 and 1000, got 0\n\
             mqtt.reconnect_max_secs must be at least the first pause, which is above 0, got 30 and 40\n\
             mqtt.password_file needs mqtt.username (MQTT 3.1.1 has no password without a name)\n\
             mqtt.message_expiry_secs needs mqtt.protocol = \"5\"\n\
             mqtt.cert_file and mqtt.key_file must be given together\n\
             mqtt.command_max_bytes must be between 64 and 65536, got 1\n\
             the command queue must be between 1 and 1024, got 0"
        );
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pw");
        std::fs::write(&file, "s3cret\n").unwrap();
        let mut settings =
            PublishSettings { username: Some("aoi1".into()), password_file: Some(file.clone()), ..Default::default() };
        assert_eq!(settings.login().unwrap(), Some(("aoi1".into(), "s3cret".into())));
        std::fs::write(&file, "\n").unwrap();
        assert!(settings.login().unwrap_err().to_string().ends_with("its first line must be the password, it is empty"));
        settings.password_file = Some(folder.path().join("none"));
        assert_eq!(settings.login().unwrap_err().kind(), Kind::Config);
    }
}
