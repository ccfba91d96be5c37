//! The pump: outbox to broker, one connection after the other.
//!
//! Each connection: dial, CONNECT with the last will, CONNACK; subscribe to commands; birth, state and alarms; then the outbox from its
//! oldest row, at most `window` rows sent and not yet deleted. Acknowledged rows are deleted in small groups (at most a quarter of the
//! window waits, at most one tick). A broken connection is given up as a whole, its unacknowledged rows are sent again on the next one.
//!
//! Invariants:
//! - a row is deleted only after a PUBACK without refusal for the packet id it was sent with on the same connection;
//! - rows are sent in the order of `seq` within a connection, so a subscriber sees each number first in order, repeats aside;
//! - at most `window` rows come twice for one fault;
//! - what the broker does not take is named by topic or result and reason, also when it closes the connection over it;
//! - `replayed` is set on rows sent later than twice the publish time-out after their commit, by the monotonic clock, and on all rows of
//!   an earlier boot of the machine: the wall clock plays no part.
//!
//! Limits: a broker that acknowledges and then loses a message is beyond reach (see `config/mqtt.md` for its settings); MQTT 3.1.1 has no
//! way to refuse one PUBLISH, so a broker whose access rules forbid it acknowledges and drops it: MQTT 5 tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Sender, TrySendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::commands::{self, Answer, Command, Refusal};
use super::desk::{Desk, Link, MAX_RESPONSES, RefusedReason, Slot, encode};
use super::link::{DialError, Stream, dial};
use super::mqtt::ShutdownReport;
use super::packet::{Codec, Connect, Incoming, Message, Refused};
use super::settings::PublishSettings;
use super::window::Window;
use crate::error::Error;
use crate::record::event::{INSPECTION_SCHEMA, mark_replayed};
use crate::record::message::{
    ALARM_SCHEMA, Outcome, Presence, RESPONSE_SCHEMA, Reason, STATE_SCHEMA, STATS_SCHEMA, STATUS_SCHEMA, Status,
};
use crate::record::store::StoreReader;

/// Rhythm of time-outs, pings and late acknowledgements.
const TICK: Duration = Duration::from_millis(100);
/// How long acknowledgements of a backlog may gather before they are read. A broker sends them one by one, and waking for each costs more than
/// all the rest of a result's way: while at least half the window is under way the broker has work for longer than this.
const GATHER: Duration = Duration::from_micros(50);
/// Bytes that may wait for the socket before more rows are read.
const MAX_OUT_BYTES: usize = 256 * 1024;
/// Kept for `stopped` out of the time for ending.
const STOP_RESERVE: Duration = Duration::from_millis(500);
/// A connection shorter than this that the broker closes is a sign of another client with our id.
const SHORT_LIVED: Duration = Duration::from_secs(3);
/// How long the broker keeps the session (the subscription to commands) without us; MQTT 5.
const SESSION_EXPIRY_S: u32 = 300;
/// Commands the broker may send ahead; MQTT 5.
const RECEIVE_MAX: u16 = 16;
/// Responses under way at a time.
const RESPONSES_AHEAD: usize = 32;

/// What a packet id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ticket {
    Row(u64),
    /// Birth.
    Status,
    Retained(Slot),
    Response(u64),
    Stopped,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// `stopped` is acknowledged and DISCONNECT sent.
    Stopped,
    /// Asked to end, and the time is up.
    TimeUp,
    /// The network, the broker or a time-out.
    Broken(String),
    /// The broker does not want it.
    Refused(RefusedReason, String),
    /// The spool cannot be read or written.
    Storage(Error),
}

/// The thread's state.
pub(super) struct Pump {
    settings: PublishSettings,
    desk: Arc<Desk>,
    reader: StoreReader,
    commands: Sender<Command>,
    highest_sent: u64,
    short_lived: u32,
    /// The last connection was short and did no good: the next sends one message at a time until a result is acknowledged. A broker that closes the
    /// connection on a refusal (mosquitto 2.0 does) has then nothing unread, and its reason arrives.
    cautious: bool,
    housekept: Option<Instant>,
}

/// One connection's state.
struct Session {
    codec: Codec,
    out: BytesMut,
    window: Window<Ticket>,
    /// Most QoS 1 messages under way that the broker allows.
    receive_max: usize,
    /// One at a time for now.
    cautious: bool,
    /// What the broker did not take of birth, state and alarms, and why.
    denied: Option<String>,
    max_packet: usize,
    retained: BTreeMap<Slot, u64>,
    identity: u64,
    /// [`Desk::changes`] when all there was to say had been looked at.
    told: u64,
    /// Some of it had to wait.
    untold: bool,
    /// Number of the last row sent.
    cursor: u64,
    /// Rows sent and not yet deleted: what a crash sends again.
    rows: usize,
    /// Numbers of rows acknowledged and not yet deleted.
    acknowledged: Vec<u64>,
    more_rows: bool,
    responses_after: u64,
    responses: usize,
    stopping: bool,
    stopped: bool,
}

impl Pump {
    pub(super) const fn new(settings: PublishSettings, desk: Arc<Desk>, reader: StoreReader, commands: Sender<Command>) -> Self {
        Self { settings, desk, reader, commands, highest_sent: 0, short_lived: 0, cautious: false, housekept: None }
    }

    /// Runs until asked to end.
    pub(super) async fn run(mut self) -> ShutdownReport {
        let broker = self.settings.broker();
        let mut pause = self.settings.reconnect_min;
        let mut last_chance = true;
        self.housekeep();
        let stopped_published = loop {
            if self.desk.stopping().is_some_and(|left| left.is_zero()) {
                break false;
            }
            let accepted = self.desk.counters.connections.load(Ordering::Relaxed);
            let (end, useful) = self.connection(&broker).await;
            let accepted = self.desk.counters.connections.load(Ordering::Relaxed) > accepted;
            self.desk.counters.in_flight.store(0, Ordering::Relaxed);
            let link = match end {
                End::Stopped => break true,
                End::TimeUp => break false,
                End::Broken(message) => Link::Unreachable { message },
                End::Refused(reason, message) => Link::Refused { reason, message },
                End::Storage(e) => {
                    log::error!("publisher: {e:#}");
                    Link::Unreachable { message: e.to_string() }
                }
            };
            if useful {
                pause = self.settings.reconnect_min;
            }
            if self.desk.set_link(link.clone()) {
                match &link {
                    Link::Refused { message, .. } => log::error!("broker {broker} refuses: {message}; trying on"),
                    Link::Unreachable { message } => log::warn!("broker {broker}: {message}; trying on"),
                    _ => {}
                }
            }
            if self.desk.stopping().is_some() {
                // A connection that breaks just now says nothing of the broker; one that was not accepted does.
                if !(accepted && last_chance) {
                    break false;
                }
                last_chance = false;
            }
            self.wait(jittered(pause, self.desk.clock.mono_ns())).await;
            pause = (pause * 2).min(self.settings.reconnect_max);
        };
        self.desk.set_link(Link::Stopped);
        self.housekeep();
        ShutdownReport { stopped_published, outbox_events: self.reader.outbox_events() }
    }

    /// Waits, unless asked to end.
    async fn wait(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && self.desk.stopping().is_none() {
            let slice = until.min(Instant::now() + Duration::from_secs(1));
            let desk = Arc::clone(&self.desk);
            tokio::select! {
                () = tokio::time::sleep_until(slice) => {}
                () = desk.notify.notified() => {}
            }
            self.housekeep();
        }
    }

    /// Once a second: answers that are overdue, figures for the status.
    fn housekeep(&mut self) {
        if self.housekept.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.housekept = Some(Instant::now());
        self.desk.time_out_answers();
        match self.reader.backlog(self.desk.clock.as_ref()) {
            Ok(backlog) => {
                let c = &self.desk.counters;
                c.outbox_events.store(backlog.events, Ordering::Relaxed);
                c.outbox_bytes.store(backlog.bytes, Ordering::Relaxed);
                c.outbox_oldest_ms.store(u64::try_from(backlog.oldest_age.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            Err(e) => log::warn!("publisher: {e:#}"),
        }
    }

    /// One connection from dialling to its end; true when it did any good.
    async fn connection(&mut self, broker: &str) -> (End, bool) {
        let limit = self.settings.connect_timeout;
        let desk = Arc::clone(&self.desk);
        let opened = tokio::select! {
            opened = timeout(limit, self.open()) => match opened {
                Ok(opened) => opened,
                Err(_) => Err(End::Broken(format!("no answer within {:.1} s", limit.as_secs_f64()))),
            },
            () = time_to_end(&desk) => Err(End::TimeUp),
        };
        let (stream, mut session, rest) = match opened {
            Ok(opened) => opened,
            Err(end) => return (end, false),
        };
        self.desk.counters.connections.fetch_add(1, Ordering::Relaxed);
        if self.desk.set_link(Link::Online) {
            log::info!("broker {broker}: connected, {} results wait", self.reader.outbox_events());
        }
        let (began, before) = (Instant::now(), self.desk.counters.acknowledged.load(Ordering::Relaxed));
        let mut end = self.serve(stream, &mut session, rest).await;
        // Acknowledgements read before the end are good; the rest of the window is sent again.
        if let Err(e) = self.delete(&mut session) {
            end = End::Storage(e);
        }
        let useful = self.desk.counters.acknowledged.load(Ordering::Relaxed) > before;
        self.cautious = !useful && began.elapsed() < SHORT_LIVED;
        if let (End::Broken(message), Some(denied), false) = (&end, &session.denied, useful) {
            end = End::Refused(RefusedReason::Message, format!("{denied}; then {message}"));
        }
        let short = self.cautious && matches!(end, End::Broken(_));
        self.short_lived = if short { self.short_lived + 1 } else { 0 };
        if self.short_lived >= 3 {
            end = End::Refused(
                RefusedReason::ClientId,
                format!(
                    "it closes the connection right after accepting it; another client may use the client id `{}`",
                    self.settings.client_id()
                ),
            );
        }
        (end, useful || began.elapsed() >= SHORT_LIVED)
    }

    /// Dials and opens the session. Returns what came behind the CONNACK, too.
    async fn open(&mut self) -> Result<(Box<dyn Stream>, Session, BytesMut), End> {
        let login = self.settings.login().map_err(|e| End::Refused(RefusedReason::BadLogin, e.to_string()))?;
        let mut stream = match dial(&self.settings).await {
            Ok(stream) => stream,
            Err(DialError::Unreachable(message)) => return Err(End::Broken(message)),
            Err(DialError::Tls(message)) => return Err(End::Refused(RefusedReason::Tls, message)),
        };
        let mut codec = Codec::new(self.settings.protocol, self.settings.station.clone(), self.settings.commands.max_bytes);
        let connect = Connect {
            client_id: self.settings.client_id(),
            keep_alive_s: u16::try_from(self.settings.keep_alive.as_secs()).unwrap_or(u16::MAX),
            clean_session: false,
            will: Some(self.status_message(Presence::Offline)),
            login,
            session_expiry_s: SESSION_EXPIRY_S,
            receive_max: RECEIVE_MAX,
        };
        let mut out = BytesMut::new();
        codec.connect(&connect, &mut out).map_err(End::Broken)?;
        // TLS 1.3 brokers check the station's certificate after the handshake: the refusal comes as an alert, or, when the connection's end
        // overtakes it, as a failed read or write.
        let secured = self.settings.tls.is_some();
        let failed = |error: &std::io::Error| refused_after_handshake(lost(error), secured);
        stream.write_all(&out).await.map_err(|e| failed(&e))?;
        stream.flush().await.map_err(|e| failed(&e))?;
        let mut input = BytesMut::with_capacity(4096);
        let answer = loop {
            match codec.decode(&mut input).map_err(malformed)? {
                Some(answer) => break answer,
                None => {
                    if stream.read_buf(&mut input).await.map_err(|e| failed(&e))? == 0 {
                        let closed = End::Broken("it closed the connection before accepting it".to_owned());
                        return Err(refused_after_handshake(closed, secured));
                    }
                }
            }
        };
        let Incoming::ConnAck { refused, receive_max, max_packet } = answer else {
            return Err(End::Broken(format!("expected CONNACK, got {answer:?}")));
        };
        if let Some((refused, message)) = refused {
            let reason = match refused {
                Refused::BadLogin => RefusedReason::BadLogin,
                Refused::NotAuthorized => RefusedReason::NotAuthorized,
                Refused::ClientId => RefusedReason::ClientId,
                Refused::ProtocolVersion => RefusedReason::ProtocolVersion,
                Refused::Unavailable => RefusedReason::Unavailable,
                Refused::Other => RefusedReason::Other,
            };
            return Err(End::Refused(reason, message));
        }
        Ok((stream, Session::new(codec, receive_max, max_packet, self.cautious), input))
    }

    /// The life of an accepted connection.
    async fn serve(&mut self, stream: Box<dyn Stream>, session: &mut Session, mut input: BytesMut) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let desk = Arc::clone(&self.desk);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alive = Alive::new(&self.settings);
        let mut unflushed = false;
        if self.settings.commands.enabled {
            // Nothing is under way yet, so 1 is free; SUBACK frees it before the 65 535th message could take it again.
            let filter = desk.topics.commands();
            if let Err(e) = session.codec.subscribe(&filter, 1, &mut session.out) {
                return End::Broken(e);
            }
        }
        loop {
            while let Some(packet) = match session.codec.decode(&mut input) {
                Ok(packet) => packet,
                Err(e) => return malformed(e),
            } {
                if let Err(end) = self.receive(session, packet) {
                    return end;
                }
            }
            if let Err(e) = self.delete_if_due(session, false) {
                return End::Storage(e);
            }
            if let Err(end) = self.fill(session) {
                return end;
            }
            if session.stopped {
                // Everything is acknowledged; DISCONNECT tells the broker to forget the last will.
                Codec::disconnect(&mut session.out);
                let farewell = async {
                    writer.write_all(&session.out).await?;
                    writer.shutdown().await
                };
                return match timeout(STOP_RESERVE, farewell).await {
                    Ok(Ok(())) => End::Stopped,
                    _ => End::Broken("lost while saying goodbye".to_owned()),
                };
            }
            input.reserve(16 * 1024);
            if session.out.is_empty() && !unflushed && 2 * session.rows >= usize::from(self.settings.window) && session.rows > 1 {
                gather();
            }
            let has_out = !session.out.is_empty();
            tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => return End::Broken("it closed the connection".to_owned()),
                    Ok(_) => alive.heard(),
                    Err(e) => return lost(&e),
                },
                written = async {
                    if has_out { writer.write_buf(&mut session.out).await.map(drop) } else { writer.flush().await }
                }, if has_out || unflushed => match written {
                    Ok(()) => unflushed = has_out,
                    Err(e) => return lost(&e),
                },
                () = desk.notify.notified() => session.more_rows = true,
                _ = ticks.tick() => {
                    self.housekeep();
                    session.more_rows = true;
                    if let Err(e) = self.delete_if_due(session, true) {
                        return End::Storage(e);
                    }
                    if let Err(message) = alive.tick(session.window.oldest(), &mut session.out) {
                        return End::Broken(message);
                    }
                    if desk.stopping().is_some_and(|left| left.is_zero()) {
                        return End::TimeUp;
                    }
                }
            }
        }
    }

    /// Writes what may be sent now.
    fn fill(&mut self, s: &mut Session) -> Result<(), End> {
        let changes = self.desk.changes();
        if s.told != changes || s.untold {
            s.untold = !self.fill_desk(s)?;
            s.told = changes;
        }
        self.fill_rows(s)?;
        if let Some(left) = self.desk.stopping() {
            // No time at all: gone without a word, and the broker publishes the last will.
            if left.is_zero() && !s.stopping {
                return Err(End::TimeUp);
            }
            let drained = s.rows == 0 && self.reader.outbox_events() == 0 && self.desk.responses_waiting() == 0;
            if !s.stopping && (drained || left <= STOP_RESERVE) {
                s.stopping = true;
                let farewell = self.status_message(Presence::Stopped);
                s.publish(&farewell, Ticket::Stopped)?;
            }
        }
        self.desk.counters.in_flight.store(s.window.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Birth, retained topics and answers that are not said yet; false when some of it must wait.
    fn fill_desk(&mut self, s: &mut Session) -> Result<bool, End> {
        if s.identity != self.desk.identity_version() && s.has_room() && !s.stopping {
            let birth = self.status_message(Presence::Online);
            s.identity = self.desk.identity_version();
            s.publish(&birth, Ticket::Status)?;
        }
        for (slot, retained) in self.desk.unsent(&s.retained) {
            if !s.has_room() {
                return Ok(false);
            }
            let schema = match slot {
                Slot::State => STATE_SCHEMA,
                Slot::Alarm(_) => ALARM_SCHEMA,
                Slot::Stats => STATS_SCHEMA,
            };
            let message = Message {
                topic: slot.topic(&self.desk.topics),
                payload: retained.payload,
                retain: true,
                schema: Some(schema),
                expiry_s: None,
            };
            if slot == Slot::Stats {
                s.codec.publish(&message, 0, &mut s.out).map_err(End::Broken)?;
            } else {
                s.publish(&message, Ticket::Retained(slot))?;
            }
            s.retained.insert(slot, retained.version);
        }
        let ahead = RESPONSES_AHEAD.saturating_sub(s.responses);
        for response in self.desk.responses(s.responses_after, ahead) {
            if !s.has_room() {
                return Ok(false);
            }
            s.respond(response.topic, response.payload, response.id)?;
        }
        Ok(s.identity == self.desk.identity_version() && s.responses < RESPONSES_AHEAD)
    }

    fn fill_rows(&mut self, s: &mut Session) -> Result<(), End> {
        let limit = usize::from(self.settings.window);
        let room = limit.saturating_sub(s.rows).min(s.ahead().saturating_sub(s.window.len()));
        // Rows are read in groups: not one by one behind every acknowledgement.
        let group = (limit.min(s.ahead()) / 4).max(1);
        if !s.more_rows || s.stopping || room < group || s.out.len() >= MAX_OUT_BYTES {
            return Ok(());
        }
        let rows = self.reader.outbox_window(s.cursor, room, self.desk.clock.as_ref()).map_err(End::Storage)?;
        s.more_rows = rows.len() == room;
        let late_ns = 2 * u64::try_from(self.settings.publish_timeout.as_nanos()).unwrap_or(u64::MAX / 2);
        let now_ns = self.desk.clock.mono_ns();
        for row in rows {
            let late = row.spooled_mono_ns.is_none_or(|t| now_ns.saturating_sub(t) > late_ns);
            let body = if late { mark_replayed(&row.body).map_err(End::Storage)? } else { row.body };
            let message = Message {
                topic: self.desk.topics.result(row.verdict),
                payload: Bytes::from(body),
                retain: false,
                schema: Some(INSPECTION_SCHEMA),
                expiry_s: self.settings.message_expiry.map(|e| u32::try_from(e.as_secs()).unwrap_or(u32::MAX)),
            };
            s.publish(&message, Ticket::Row(row.seq))?;
            s.cursor = row.seq;
            s.rows += 1;
            let counters = &self.desk.counters;
            counters.sent.fetch_add(1, Ordering::Relaxed);
            if row.seq <= self.highest_sent {
                counters.resent.fetch_add(1, Ordering::Relaxed);
            }
            self.highest_sent = self.highest_sent.max(row.seq);
        }
        Ok(())
    }

    fn receive(&mut self, s: &mut Session, packet: Incoming) -> Result<(), End> {
        match packet {
            Incoming::PubAck { pkid, refused } => match (s.window.settle(pkid), refused) {
                (Some(Ticket::Row(seq)), None) => {
                    s.acknowledged.push(seq);
                    s.cautious = false;
                }
                (Some(Ticket::Row(seq)), Some(why)) => {
                    return Err(End::Refused(RefusedReason::Message, format!("result {seq}: {why}")));
                }
                (Some(Ticket::Response(id)), refused) => {
                    s.responses -= 1;
                    self.desk.response_done(id);
                    if let Some(why) = refused {
                        log::error!("broker refuses a command's response: {why}");
                    }
                }
                (Some(Ticket::Stopped), _) => s.stopped = true,
                (Some(Ticket::Status), Some(why)) => s.deny(&self.desk.topics.status(), &why),
                (Some(Ticket::Retained(slot)), Some(why)) => s.deny(&slot.topic(&self.desk.topics), &why),
                (Some(Ticket::Status | Ticket::Retained(_)), None) => {}
                (None, _) => return Err(End::Broken(format!("it acknowledged packet {pkid}, which is not under way"))),
            },
            Incoming::Publish { topic, pkid, retain, payload } => {
                let judged = |pump: &Self, name: &str| {
                    commands::check(&pump.settings.commands, name, retain, &payload, pump.desk.clock.now())
                };
                self.command(s, &topic, pkid, judged)?;
            }
            Incoming::Oversized { topic, pkid, bytes, .. } => {
                self.command(s, &topic, pkid, |pump, _| Err(commands::oversized(&pump.settings.commands, bytes)))?;
            }
            Incoming::SubAck { granted: false } => {
                log::error!("broker does not grant the subscription to {}: no commands", self.desk.topics.commands());
            }
            Incoming::Disconnect { reason, taken_over: true } => return Err(End::Refused(RefusedReason::ClientId, reason)),
            Incoming::Disconnect { reason, .. } => return Err(End::Broken(format!("it disconnected: {reason}"))),
            Incoming::ConnAck { .. } => return Err(End::Broken("a second CONNACK".to_owned())),
            Incoming::SubAck { granted: true } | Incoming::PingResp | Incoming::Other => {}
        }
        Ok(())
    }

    /// Takes or refuses a command, then acknowledges the packet: a command lost with this process is answered by nobody, but none is
    /// carried out twice.
    fn command(
        &mut self,
        s: &mut Session,
        topic: &str,
        pkid: u16,
        judge: impl FnOnce(&Self, &str) -> Result<(super::topics::CommandKind, crate::record::message::CommandRequest), Refusal>,
    ) -> Result<(), End> {
        if self.desk.responses_waiting() >= MAX_RESPONSES {
            return Err(End::Broken(format!("{MAX_RESPONSES} responses wait; commands come faster than they are answered")));
        }
        let Some(name) = self.desk.topics.command_name(topic) else {
            log::warn!("broker sent a message on {topic}, which was not asked for");
            return Ok(());
        };
        self.desk.counters.commands.fetch_add(1, Ordering::Relaxed);
        match judge(self, name) {
            Err(Refusal { request_id, reason, message }) => {
                log::warn!("command {name}: refused ({reason:?}): {message}");
                self.desk.respond(request_id.as_deref(), name, Outcome::Refused, Some(reason), Some(message), None);
            }
            Ok((kind, request)) => {
                let id = request.request_id.clone();
                let new = self.reader.remember_command(&id, self.desk.clock.as_ref()).map_err(End::Storage)?;
                let answer = Answer::new(Arc::clone(&self.desk), name, &id);
                self.desk.expect_answer(&id, name, answer.given(), self.settings.commands.answer_timeout);
                let command = Command::new(kind, request, answer);
                if !new {
                    command.refuse(Reason::Replayed, "this request_id was used before");
                } else if let Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) =
                    self.commands.try_send(command)
                {
                    command.refuse(Reason::Busy, format!("{} commands wait", self.settings.commands.queue));
                } else {
                    log::info!("command {name} {id}: taken");
                }
            }
        }
        if pkid != 0 {
            Codec::puback(pkid, &mut s.out);
        }
        Ok(())
    }

    /// Deletes acknowledged rows once a quarter of the window has gathered, nothing else is under way, or a tick has passed.
    fn delete_if_due(&mut self, s: &mut Session, tick: bool) -> Result<(), Error> {
        let gathered = s.acknowledged.len();
        if gathered > 0 && (tick || gathered == s.rows || gathered >= (usize::from(self.settings.window) / 4).max(1)) {
            self.delete(s)?;
        }
        Ok(())
    }

    fn delete(&mut self, s: &mut Session) -> Result<(), Error> {
        if s.acknowledged.is_empty() {
            return Ok(());
        }
        self.reader.acknowledge(&s.acknowledged)?;
        s.rows -= s.acknowledged.len();
        self.desk.counters.acknowledged.fetch_add(s.acknowledged.len() as u64, Ordering::Relaxed);
        s.acknowledged.clear();
        Ok(())
    }

    fn status_message(&self, status: Presence) -> Message {
        let (identity, _) = self.desk.identity();
        // The last will is made before the numbers it would name.
        let known = status != Presence::Offline;
        let status = Status {
            schema: STATUS_SCHEMA.to_owned(),
            station: self.settings.station.clone(),
            status,
            boot_id: identity.boot_id,
            at: self.desk.clock.now(),
            clock: identity.clock,
            version: identity.version,
            model: identity.model,
            template: identity.template,
            last_seq: known.then(|| self.reader.last_seq()),
            outbox_events: known.then(|| self.reader.outbox_events()),
        };
        Message {
            topic: self.desk.topics.status(),
            payload: encode(&status),
            retain: true,
            schema: Some(STATUS_SCHEMA),
            expiry_s: None,
        }
    }
}

impl Session {
    /// A fresh connection's state, within what the broker said in CONNACK.
    fn new(codec: Codec, receive_max: Option<u16>, max_packet: Option<u32>, cautious: bool) -> Self {
        Self {
            codec,
            out: BytesMut::with_capacity(16 * 1024),
            window: Window::new(),
            receive_max: receive_max.map_or(usize::from(u16::MAX) / 2, usize::from),
            cautious,
            denied: None,
            max_packet: max_packet.map_or(usize::MAX, |m| m as usize),
            retained: BTreeMap::new(),
            identity: 0,
            told: 0,
            untold: true,
            cursor: 0,
            rows: 0,
            acknowledged: Vec::new(),
            more_rows: true,
            responses_after: 0,
            responses: 0,
            stopping: false,
            stopped: false,
        }
    }

    /// Most QoS 1 messages that may be under way now.
    fn ahead(&self) -> usize {
        if self.cautious { 1 } else { self.receive_max }
    }

    /// Whether one more QoS 1 message may be sent now.
    fn has_room(&self) -> bool {
        self.window.len() < self.ahead()
    }

    /// Takes down that a retained message was refused. Results may be taken all the same.
    fn deny(&mut self, topic: &str, why: &str) {
        log::error!("broker refuses {topic}: {why}");
        self.denied.get_or_insert_with(|| format!("{topic}: {why}"));
    }

    fn publish(&mut self, message: &Message, ticket: Ticket) -> Result<(), End> {
        let pkid = self.window.send(ticket);
        let before = self.out.len();
        self.codec.publish(message, pkid, &mut self.out).map_err(End::Broken)?;
        let bytes = self.out.len() - before;
        if bytes > self.max_packet {
            let text = format!("a packet of {bytes} bytes on {}; it takes {} at most", message.topic, self.max_packet);
            return Err(End::Refused(RefusedReason::Message, text));
        }
        Ok(())
    }

    fn respond(&mut self, topic: String, payload: Bytes, id: u64) -> Result<(), End> {
        let message = Message { topic, payload, retain: false, schema: Some(RESPONSE_SCHEMA), expiry_s: None };
        self.publish(&message, Ticket::Response(id))?;
        self.responses_after = id;
        self.responses += 1;
        Ok(())
    }
}

/// Lets acknowledgements come in. The thread has nothing else to do, and the runtime's own timers count whole milliseconds.
#[allow(clippy::disallowed_methods)]
fn gather() {
    std::thread::sleep(GATHER);
}

/// Waits until the time for ending is up, for ever when nobody asks to end.
async fn time_to_end(desk: &Desk) {
    while desk.stopping().is_none_or(|left| !left.is_zero()) {
        tokio::time::sleep(desk.stopping().map_or(TICK, |left| left.min(TICK))).await;
    }
}

/// Whether the other side is still there: pings, and the age of the oldest message under way.
struct Alive {
    ping_every: Duration,
    silent_after: Duration,
    publish_timeout: Duration,
    heard: Instant,
    pinged: Instant,
    oldest: Option<(u64, Instant)>,
}

impl Alive {
    fn new(settings: &PublishSettings) -> Self {
        let now = Instant::now();
        Self {
            // Early enough for the broker, which waits one and a half times the keep-alive.
            ping_every: settings.keep_alive * 3 / 4,
            silent_after: settings.keep_alive * 3 / 2,
            publish_timeout: settings.publish_timeout,
            heard: now,
            pinged: now,
            oldest: None,
        }
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
    }

    fn tick(&mut self, oldest: Option<u64>, out: &mut BytesMut) -> Result<(), String> {
        let now = Instant::now();
        match (oldest, self.oldest) {
            (Some(serial), Some((known, since))) if serial == known => {
                if now - since > self.publish_timeout {
                    return Err(format!("no acknowledgement for {:.1} s", self.publish_timeout.as_secs_f64()));
                }
            }
            (oldest, _) => self.oldest = oldest.map(|serial| (serial, now)),
        }
        if now - self.heard > self.silent_after {
            return Err(format!("silent for {:.1} s", self.silent_after.as_secs_f64()));
        }
        // A ping behind bytes that do not leave would only pile up.
        if now - self.pinged >= self.ping_every && out.len() < MAX_OUT_BYTES {
            self.pinged = now;
            Codec::ping(out);
        }
        Ok(())
    }
}

fn lost(error: &std::io::Error) -> End {
    // TLS 1.3 refuses a client's certificate only after the handshake, by an alert.
    match error.get_ref().and_then(|e| e.downcast_ref::<tokio_rustls::rustls::Error>()) {
        Some(tls) => End::Refused(RefusedReason::Tls, tls.to_string()),
        None => End::Broken(error.to_string()),
    }
}

/// A secured connection that ends between handshake and CONNACK: the broker may have refused the station's certificate, or its absence.
fn refused_after_handshake(end: End, secured: bool) -> End {
    match end {
        End::Broken(text) if secured => End::Refused(
            RefusedReason::Tls,
            format!("{text}, right after the TLS handshake; it may want another certificate of the station (mqtt.cert_file)"),
        ),
        other => other,
    }
}

fn malformed(error: String) -> End {
    End::Broken(format!("it sent what is not MQTT: {error}"))
}

/// Between half and the whole of `pause`, so that stations do not return to a broker all at once.
fn jittered(pause: Duration, seed: u64) -> Duration {
    // The finaliser of SplitMix64 spreads the clock's low digits.
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    pause.mul_f64(0.5 + 0.5 * ((x >> 11) as f64 / (1_u64 << 53) as f64))
}

#[cfg(test)]
mod tests;
