//! Who may change the station over HTTP, and the record of who did.
//!
//! Reading is open to whoever reaches the address (by default the machine itself). Writing needs either a connection over the Unix socket,
//! whose file's permissions decide, or the bearer token of `http.token_file`; a browser's request must also come from the station's own
//! page (`Origin` is compared with `Host`). Every attempt to write is a line of `audit.jsonl`, refused ones too.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, UnixListener};

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};

/// Shortest token accepted, bytes.
const TOKEN_BYTES: usize = 16;
/// A wrong token is answered after this, so that guessing is slow.
const WRONG_TOKEN_DELAY: Duration = Duration::from_millis(500);
/// The audit file is set aside as `audit.jsonl.1` beyond this size, bytes.
const AUDIT_BYTES: u64 = 8 << 20;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// Over the network.
    Address(SocketAddr),
    /// Over the Unix socket, by this user.
    User(Option<u32>),
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Peer::Address(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Peer::User(stream.io().peer_cred().ok().map(|c| c.uid()))
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Address(address) => write!(f, "{address}"),
            Peer::User(Some(uid)) => write!(f, "uid {uid}"),
            Peer::User(None) => f.write_str("unknown user"),
        }
    }
}

/// Decides who may write, and keeps the record.
pub struct Access {
    /// SHA-256 of the token; comparing hashes takes the same time wherever they differ.
    token: Option<[u8; 32]>,
    audit: Mutex<std::fs::File>,
    path: std::path::PathBuf,
    clock: Arc<dyn Clock>,
}

impl Access {
    /// Reads the token and opens the audit file `folder/audit.jsonl`.
    ///
    /// # Errors
    /// [`Kind::Config`] for a token that cannot be read, is too short, or may be read by everybody; [`Kind::CannotCreate`] for the audit file.
    pub fn open(token_file: Option<&Path>, folder: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let token = token_file.map(read_token).transpose()?;
        let path = folder.join("audit.jsonl");
        let audit = Mutex::new(open_audit(&path)?);
        Ok(Self { token, audit, path, clock })
    }

    /// Whether a token is set, so that writes over the network are possible at all.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The answer to a request that may change nothing: 401 without or with a wrong token, 403 from another origin or when no token is
    /// configured; none when it may pass.
    pub async fn refuse(&self, peer: Peer, headers: &HeaderMap, action: &str) -> Option<Response> {
        let (code, message) = self.refusal(peer, headers)?;
        if code == StatusCode::UNAUTHORIZED {
            tokio::time::sleep(WRONG_TOKEN_DELAY).await;
        }
        self.record(peer, action, &Value::Null, Err(message));
        let mut response = (code, axum::Json(json!({ "error": message }))).into_response();
        if code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        Some(response)
    }

    fn refusal(&self, peer: Peer, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
        if matches!(peer, Peer::User(_)) {
            return None;
        }
        if !same_origin(headers) {
            return Some((StatusCode::FORBIDDEN, "the request comes from another page than the station's own"));
        }
        let Some(wanted) = &self.token else {
            let message = "http.token_file is not set: changes are accepted over the Unix socket only (http.socket)";
            return Some((StatusCode::FORBIDDEN, message));
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
        match given {
            Some(token) if <[u8; 32]>::from(Sha256::digest(token.trim())) == *wanted => None,
            Some(_) => Some((StatusCode::UNAUTHORIZED, "the bearer token is wrong")),
            None => Some((StatusCode::UNAUTHORIZED, "changes need a bearer token (Authorization: Bearer ...)")),
        }
    }

    /// Writes a line of the audit file: who did what, and what came of it.
    pub fn record(&self, peer: Peer, action: &str, arguments: &Value, outcome: Result<(), &str>) {
        let (word, message) = match outcome {
            Ok(()) => ("done", None),
            Err(message) => ("refused", Some(message)),
        };
        log::info!("http: {peer} {action} {arguments}: {word}{}", message.map_or_else(String::new, |m| format!(": {m}")));
        let line = json!({
            "at": self.clock.now(), "peer": peer.to_string(), "action": action, "arguments": arguments, "outcome": word, "message": message,
        });
        let mut file = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = append(&mut file, &self.path, &format!("{line}\n")) {
            log::error!("audit file {}: {e}: {line}", self.path.display());
        }
    }
}

fn append(file: &mut std::fs::File, path: &Path, line: &str) -> std::io::Result<()> {
    if file.metadata()?.len() > AUDIT_BYTES {
        std::fs::rename(path, path.with_extension("jsonl.1"))?;
        *file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    }
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

fn open_audit(path: &Path) -> Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| Error::io(format!("audit file {}", path.display()), e).with_kind(Kind::CannotCreate))
}

fn read_token(path: &Path) -> Result<[u8; 32]> {
    use std::os::unix::fs::MetadataExt as _;
    let what = format!("http.token_file {}", path.display());
    let mode = std::fs::metadata(path).map_err(|e| Error::io(&what, e).with_kind(Kind::Config))?.mode();
    if mode & 0o007 != 0 {
        return Err(Error::config(format!("{what}: may be read by everybody (mode {:o}), wanted 640 or less", mode & 0o777)));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(&what, e).with_kind(Kind::Config))?;
    let token = text.trim();
    if token.len() < TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::config(format!(
            "{what}: holds {} characters, wanted one line of at least {TOKEN_BYTES} letters, digits or signs",
            token.len()
        )));
    }
    Ok(Sha256::digest(token).into())
}

/// A browser names the page that a request comes from; other programs do not.
fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return false;
    }
    match text(header::ORIGIN) {
        None => true,
        Some(origin) => {
            let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            host.is_some() && host == text(header::HOST)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use std::os::unix::fs::PermissionsExt as _;

    const TOKEN: &str = "0123456789abcdef-token";
    const NETWORK: Peer = Peer::Address(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4000));

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (header::HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    fn token_file(folder: &Path, text: &str, mode: u32) -> std::path::PathBuf {
        let path = folder.join("token");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn access(folder: &Path, token: Option<&str>) -> Access {
        let file = token.map(|t| token_file(folder, t, 0o600));
        Access::open(file.as_deref(), folder, Arc::new(SystemClock)).unwrap()
    }

    #[test]
    fn the_network_needs_the_token_and_its_own_page() {
        let folder = tempfile::tempdir().unwrap();
        let access = access(folder.path(), Some(&format!("{TOKEN}\n")));
        let bearer = format!("Bearer {TOKEN}");
        let code = |pairs: &[(&'static str, &str)]| access.refusal(NETWORK, &headers(pairs)).map(|r| r.0.as_u16());
        assert_eq!(code(&[]), Some(401));
        assert_eq!(code(&[("authorization", "Bearer 0123456789abcdef-tokem")]), Some(401));
        assert_eq!(code(&[("authorization", TOKEN)]), Some(401));
        assert_eq!(code(&[("authorization", &bearer)]), None);
        let own = ("host", "station:8077");
        assert_eq!(code(&[("authorization", &bearer), own, ("origin", "http://station:8077")]), None);
        for foreign in ["http://evil", "null", "http://station", "ftp://station:8077"] {
            assert_eq!(code(&[("authorization", &bearer), own, ("origin", foreign)]), Some(403), "{foreign}");
        }
        assert_eq!(code(&[("authorization", &bearer), ("sec-fetch-site", "cross-site")]), Some(403));
        assert!(access.refusal(Peer::User(Some(7)), &HeaderMap::new()).is_none(), "the socket's file decides");
    }

    #[test]
    fn without_a_token_the_network_may_only_read() {
        let folder = tempfile::tempdir().unwrap();
        let access = access(folder.path(), None);
        let refused = access.refusal(NETWORK, &headers(&[("authorization", "Bearer anything-at-all-here")])).unwrap();
        assert_eq!(refused.0, StatusCode::FORBIDDEN);
        assert!(refused.1.contains("http.token_file is not set"), "{}", refused.1);
    }

    #[test]
    fn tokens_that_are_short_or_public_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| Access::open(Some(path), folder.path(), Arc::new(SystemClock)).err().unwrap().to_string();
        let short = open(&token_file(folder.path(), "secret\n", 0o600));
        assert!(short.ends_with("token: holds 6 characters, wanted one line of at least 16 letters, digits or signs"), "{short}");
        let public = open(&token_file(folder.path(), TOKEN, 0o644));
        assert!(public.ends_with("may be read by everybody (mode 644), wanted 640 or less"), "{public}");
        let missing = open(&folder.path().join("none"));
        assert!(missing.starts_with("http.token_file ") && missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn every_attempt_is_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let access = access(folder.path(), None);
        access.record(NETWORK, "pause", &Value::Null, Err("no token"));
        access.record(Peer::User(Some(1000)), "activate", &json!({"version": 2}), Ok(()));
        let text = std::fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0]["outcome"].as_str(), lines[0]["peer"].as_str()), (Some("refused"), Some("127.0.0.1:4000")));
        assert_eq!((lines[1]["outcome"].as_str(), lines[1]["arguments"]["version"].as_u64()), (Some("done"), Some(2)));
    }
}
