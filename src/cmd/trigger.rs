//! `ssds trigger`: triggers the running station over its Unix socket or HTTP address and tells the part's result.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config;
use crate::error::{Error, Kind, Result};

/// Longest answer that is read.
const MAX_ANSWER: u64 = 64 * 1024;

/// What to trigger.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file: names the station's address and token.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// The part's serial number.
    #[arg(long)]
    part_id: Option<String>,
    /// The order it belongs to.
    #[arg(long)]
    job_id: Option<String>,
    /// A key of your own, which the answer bears.
    #[arg(long)]
    request_id: Option<String>,
    /// Longest wait for the result, ms.
    #[arg(long, default_value_t = 60_000)]
    timeout_ms: u64,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Triggers; 0 = OK, 1 = NG, 2 = ERROR.
///
/// # Errors
/// A station that is not there, refuses, or does not answer in time; settings with neither `http.socket` nor `http.token_file`.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    let listen = config.text("http.listen");
    let body = json!({"part_id": args.part_id, "job_id": args.job_id, "request_id": args.request_id});
    let timeout = Duration::from_millis(args.timeout_ms);
    let (status, answer) = match (config.path_opt("http.socket"), config.path_opt("http.token_file")) {
        (Some(socket), _) => {
            let failed = |e: std::io::Error| Error::unavailable(format!("station at {}: {e}; is it running?", socket.display()));
            let stream = UnixStream::connect(&socket).map_err(failed)?;
            stream.set_read_timeout(Some(timeout)).map_err(failed)?;
            post(stream, "station", "/api/v1/trigger", None, &body.to_string())?
        }
        (None, Some(file)) => {
            let token =
                std::fs::read_to_string(&file).map_err(|e| Error::io(format!("http.token_file {}", file.display()), e))?;
            let (stream, address) = connect(&listen, timeout)?;
            post(stream, &address, "/api/v1/trigger", Some(token.trim()), &body.to_string())?
        }
        (None, None) => {
            let message = format!("{}: http.socket or http.token_file must be set for a trigger", args.config.display());
            return Err(Error::config(message));
        }
    };
    if status != 200 {
        let why = answer["error"].as_str().unwrap_or("no reason given");
        let kind = match status {
            400 => Kind::Usage,
            401 | 403 => Kind::Permission,
            503 => Kind::TryAgain,
            _ => Kind::Unavailable,
        };
        return Err(Error::new(kind, format!("station at {listen}: {why} (HTTP {status})")));
    }
    if args.json {
        println!("{answer}");
    } else {
        let why = answer["error"]["code"]
            .as_str()
            .map_or_else(String::new, |code| format!(": {code} {}", answer["error"]["message"].as_str().unwrap_or_default()));
        println!("seq {} {}{why}", answer["seq"], answer["verdict"].as_str().unwrap_or("?"));
    }
    match answer["verdict"].as_str() {
        Some("OK") => Ok(0),
        Some("NG") => Ok(1),
        Some("ERROR") => Ok(2),
        _ => Err(Error::data(format!("station at {listen}: answered without a verdict: {answer}"))),
    }
}

/// A connection to the address that the station listens on.
fn connect(listen: &str, timeout: Duration) -> Result<(TcpStream, String)> {
    let mut addresses = listen.to_socket_addrs().map_err(|e| Error::config(format!("http.listen {listen}: {e}")))?;
    let mut address = addresses.next().ok_or_else(|| Error::config(format!("http.listen {listen}: no address")))?;
    if address.ip().is_unspecified() {
        // A station that listens everywhere listens here too.
        let loopback = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address = SocketAddr::new(loopback, address.port());
    }
    let failed = |e: std::io::Error| Error::unavailable(format!("station at {address}: {e}; is it running, with http.enabled?"));
    let stream = TcpStream::connect_timeout(&address, timeout).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    Ok((stream, address.to_string()))
}

/// One HTTP/1.1 request on a connection of its own; the status and the JSON body.
fn post(mut stream: impl Read + Write, host: &str, path: &str, token: Option<&str>, body: &str) -> Result<(u16, Value)> {
    let failed = |e: std::io::Error| Error::unavailable(format!("station at {host}: {e}"));
    let bearer = token.map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\n{bearer}Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(failed)?;
    parse(&answer).ok_or_else(|| Error::data(format!("station at {host}: its answer is not HTTP with JSON")))
}

/// Status and JSON body of an HTTP/1.1 answer that ends with its connection.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    let value = serde_json::from_str(body).unwrap_or_else(|_| json!({"error": body.trim()}));
    Some((status, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"seq\":7}";
        assert_eq!(parse(ok), Some((200, json!({"seq": 7}))));
        let plain = b"HTTP/1.1 404 Not Found\r\n\r\nnothing here\n";
        assert_eq!(parse(plain), Some((404, json!({"error": "nothing here"}))));
        assert_eq!(parse(b"SSH-2.0-x"), None);
    }

    #[test]
    fn nobody_there_is_named() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = connect(&format!("127.0.0.1:{port}"), Duration::from_secs(2)).unwrap_err();
        assert!(error.to_string().contains("is it running, with http.enabled?"), "{error}");
    }
}
