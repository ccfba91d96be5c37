//! Listening to a broker: the other end of the contract, for `ssds audit`.
//!
//! For: every message on some filters, over reconnections, with one session at the broker that is removed at the end. QoS 1; messages are
//! acknowledged after the caller has seen them.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::link::{DialError, Stream, dial};
use super::packet::{Codec, Connect, Incoming};
use super::settings::PublishSettings;
use crate::error::{Error, Result};

/// Largest payload read; stations send 64 KiB at most.
const MAX_PAYLOAD_BYTES: usize = 1 << 20;
/// How often `go_on` is asked.
const TICK: Duration = Duration::from_millis(100);

/// A message as the broker delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// The broker had it in store before the subscription.
    pub retained: bool,
}

/// Listens to `filters` until `go_on` says no. `connected` is called at every (re)connection once the broker has confirmed the
/// subscriptions, `each` with every message. Of `settings`, host, port, TLS, login, client id, protocol and time-outs are used.
///
/// # Errors
/// [`Kind::Unavailable`](crate::Kind) when the first connection fails, or the broker refuses; later interruptions are retried.
pub fn listen(
    settings: &PublishSettings,
    filters: &[String],
    connected: &mut dyn FnMut(),
    each: &mut dyn FnMut(Heard),
    go_on: &dyn Fn() -> bool,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("starting the listener's runtime", e))?;
    let answer = runtime.block_on(async {
        let mut ever = false;
        while go_on() {
            let mut subscribed = || {
                ever = true;
                connected();
            };
            match session(settings, filters, &mut subscribed, each, go_on).await {
                Ok(()) => break,
                Err(Stop::Refused(text)) => {
                    return Err(Error::unavailable(format!("broker {} refuses: {text}", settings.broker())));
                }
                Err(Stop::Broken(text)) if !ever => {
                    return Err(Error::unavailable(format!("broker {}: {text}", settings.broker())));
                }
                Err(Stop::Broken(text)) => {
                    log::warn!("broker {}: {text}; reconnecting", settings.broker());
                    tokio::time::sleep(settings.reconnect_min).await;
                }
            }
        }
        forget(settings).await;
        Ok(())
    });
    runtime.shutdown_background();
    answer
}

enum Stop {
    Refused(String),
    Broken(String),
}

async fn open(settings: &PublishSettings, clean: bool) -> std::result::Result<(Box<dyn Stream>, Codec, BytesMut), Stop> {
    let connecting = async {
        let login = settings.login().map_err(|e| Stop::Refused(e.to_string()))?;
        let mut stream = dial(settings).await.map_err(|e| match e {
            DialError::Unreachable(text) => Stop::Broken(text),
            DialError::Tls(text) => Stop::Refused(text),
        })?;
        let mut codec = Codec::new(settings.protocol, settings.station.clone(), MAX_PAYLOAD_BYTES);
        let connect = Connect {
            client_id: settings.client_id(),
            keep_alive_s: u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX),
            clean_session: clean,
            will: None,
            login,
            session_expiry_s: if clean { 0 } else { 3600 },
            receive_max: settings.window,
        };
        let mut out = BytesMut::new();
        codec.connect(&connect, &mut out).map_err(Stop::Broken)?;
        stream.write_all(&out).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let mut input = BytesMut::new();
        match next(&mut stream, &mut codec, &mut input).await? {
            Incoming::ConnAck { refused: None, .. } => Ok((stream, codec, input)),
            Incoming::ConnAck { refused: Some((_, text)), .. } => Err(Stop::Refused(text)),
            other => Err(Stop::Broken(format!("expected CONNACK, got {other:?}"))),
        }
    };
    match timeout(settings.connect_timeout, connecting).await {
        Ok(opened) => opened,
        Err(_) => Err(Stop::Broken(format!("no answer within {:.1} s", settings.connect_timeout.as_secs_f64()))),
    }
}

async fn session(
    settings: &PublishSettings,
    filters: &[String],
    subscribed: &mut dyn FnMut(),
    each: &mut dyn FnMut(Heard),
    go_on: &dyn Fn() -> bool,
) -> std::result::Result<(), Stop> {
    let (mut stream, mut codec, mut input) = open(settings, false).await?;
    let mut out = BytesMut::new();
    for (filter, pkid) in filters.iter().zip(1..) {
        codec.subscribe(filter, pkid, &mut out).map_err(Stop::Broken)?;
    }
    stream.write_all(&out).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let (mut waiting, mut pinged) = (filters.len(), Instant::now());
    while go_on() {
        out.clear();
        match timeout(TICK, next(&mut stream, &mut codec, &mut input)).await {
            Err(_) => {}
            Ok(packet) => match packet? {
                Incoming::Publish { topic, pkid, retain, payload } => {
                    each(Heard { topic, payload: payload.to_vec(), retained: retain });
                    if pkid != 0 {
                        Codec::puback(pkid, &mut out);
                    }
                }
                Incoming::SubAck { granted: true } => {
                    waiting -= 1;
                    if waiting == 0 {
                        subscribed();
                    }
                }
                Incoming::SubAck { granted: false } => {
                    return Err(Stop::Refused("it does not grant the subscription".to_owned()));
                }
                Incoming::Disconnect { reason, .. } => return Err(Stop::Broken(format!("it disconnected: {reason}"))),
                _ => {}
            },
        }
        if pinged.elapsed() > settings.keep_alive / 2 {
            pinged = Instant::now();
            Codec::ping(&mut out);
        }
        if !out.is_empty() {
            stream.write_all(&out).await.map_err(broken)?;
            stream.flush().await.map_err(broken)?;
        }
    }
    Ok(())
}

/// Removes the session, so that the broker keeps nothing for a client that does not come back. A broker that is gone keeps nothing either.
async fn forget(settings: &PublishSettings) {
    if let Ok((mut stream, _, _)) = open(settings, true).await {
        let mut out = BytesMut::new();
        Codec::disconnect(&mut out);
        if let Err(e) = stream.write_all(&out).await {
            log::debug!("while leaving the broker: {e}");
        }
    }
}

async fn next(stream: &mut Box<dyn Stream>, codec: &mut Codec, input: &mut BytesMut) -> std::result::Result<Incoming, Stop> {
    loop {
        if let Some(packet) = codec.decode(input).map_err(Stop::Broken)? {
            return Ok(packet);
        }
        input.reserve(16 * 1024);
        if stream.read_buf(input).await.map_err(broken)? == 0 {
            return Err(Stop::Broken("it closed the connection".to_owned()));
        }
    }
}

fn broken(error: std::io::Error) -> Stop {
    match error.get_ref().and_then(|e| e.downcast_ref::<tokio_rustls::rustls::Error>()) {
        Some(tls) => Stop::Refused(tls.to_string()),
        None => Stop::Broken(error.to_string()),
    }
}
