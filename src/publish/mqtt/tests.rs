//! The publisher against a broker of a few lines, driven packet by packet, so that every order of events can be had on purpose.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish};
use rumqttc::mqttbytes::{Error as WireError, QoS};

use super::*;
use crate::clock::SystemClock;
use crate::publish::settings::{CommandSettings, Protocol};
use crate::publish::{Link, RefusedReason};
use crate::record::event::tests::sample;
use crate::record::event::{ClockState, InspectionEvent};
use crate::record::message::{Mode, Outcome, Presence, Reason, Severity, Status, VisionState};
use crate::record::store::{Store, StoreSettings};

/// No test waits this long unless it fails.
const LIMIT: Duration = Duration::from_secs(20);

fn identity() -> Identity {
    Identity { boot_id: "b".repeat(32), version: "0.1.0".into(), clock: ClockState::Unknown, model: None, template: None }
}

struct Rig {
    store: Store,
    publisher: Option<Publisher>,
    listener: TcpListener,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new(change: impl FnOnce(&mut PublishSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let settings = StoreSettings { station: "aoi1".into(), ..StoreSettings::default() };
        let (store, _) = Store::open(&folder.path().join("s.db"), settings, Arc::clone(&clock)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = PublishSettings {
            port: listener.local_addr().unwrap().port(),
            prefix: "p".into(),
            station: "aoi1".into(),
            window: 4,
            reconnect_min: Duration::from_millis(5),
            reconnect_max: Duration::from_millis(20),
            ..PublishSettings::default()
        };
        change(&mut settings);
        let publisher = Publisher::start(settings, store.reader().unwrap(), identity(), clock).unwrap();
        Self { store, publisher: Some(publisher), listener, _folder: folder }
    }

    fn record(&mut self, n: usize) {
        let mut batch: Vec<InspectionEvent> =
            (0..n).map(|_| InspectionEvent { event_id: crate::record::event::new_event_id(&SystemClock), ..sample() }).collect();
        self.store.record(&mut batch).unwrap();
        self.publisher().notify();
    }

    fn publisher(&self) -> &Publisher {
        self.publisher.as_ref().unwrap()
    }

    /// Takes the next connection and accepts its session; the birth and the cleared alarms are acknowledged.
    fn accept(&self) -> Peer {
        let mut peer = self.accept_as(ConnectReturnCode::Success);
        let birth = peer.publish();
        assert_eq!(birth.topic, "p/ssds/status");
        let status: Status = serde_json::from_slice(&birth.payload).unwrap();
        assert_eq!((status.status, birth.retain), (Presence::Online, true));
        peer.ack(birth.pkid);
        for _ in AlarmCode::ALL {
            let alarm = peer.publish();
            assert!(alarm.topic.starts_with("p/ssds/alarm/") && alarm.retain, "{alarm:?}");
            peer.ack(alarm.pkid);
        }
        peer
    }

    fn accept_as(&self, code: ConnectReturnCode) -> Peer {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut peer = Peer { stream, input: BytesMut::new() };
        let Packet::Connect(connect) = peer.packet() else { panic!("no CONNECT") };
        assert_eq!((connect.client_id.as_str(), connect.clean_session), ("ssds-aoi1", false));
        let will = connect.last_will.unwrap();
        let status: Status = serde_json::from_slice(&will.message).unwrap();
        assert_eq!((status.status, status.last_seq, will.retain, will.qos), (Presence::Offline, None, true, QoS::AtLeastOnce));
        peer.send(&Packet::ConnAck(ConnAck::new(code, false)));
        peer
    }

    fn until(&self, what: &str, done: impl Fn(&PublishStatus) -> bool) {
        let begun = SystemClock.mono_ns();
        while !done(&self.publisher().status()) {
            assert!(SystemClock.mono_ns() - begun < LIMIT.as_nanos() as u64, "{what}: {:?}", self.publisher().status());
            SystemClock.sleep(Duration::from_millis(2));
        }
    }
}

struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

impl Peer {
    fn packet(&mut self) -> Packet {
        loop {
            match Packet::read(&mut self.input, 1 << 20) {
                Ok(packet) => return packet,
                Err(WireError::InsufficientBytes(_)) => {
                    let mut bytes = [0; 4096];
                    let n = self.stream.read(&mut bytes).unwrap();
                    assert!(n > 0, "the publisher closed the connection");
                    self.input.extend_from_slice(&bytes[..n]);
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn publish(&mut self) -> Publish {
        loop {
            match self.packet() {
                Packet::Publish(p) => return p,
                Packet::PingReq => self.send(&Packet::PingResp),
                other => panic!("expected PUBLISH, got {other:?}"),
            }
        }
    }

    fn result(&mut self) -> (u64, u16, InspectionEvent) {
        let p = self.publish();
        assert_eq!((p.topic.as_str(), p.retain, p.qos), ("p/ssds/result/ng", false, QoS::AtLeastOnce));
        let event = InspectionEvent::from_json(&p.payload).unwrap();
        (event.seq, p.pkid, event)
    }

    fn send(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        packet.write(&mut out, 1 << 20).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    fn ack(&mut self, pkid: u16) {
        self.send(&Packet::PubAck(PubAck::new(pkid)));
    }
}

#[test]
fn rows_go_out_in_order_within_the_window_and_by_their_own_acknowledgement() {
    let mut rig = Rig::new(|_| {});
    let mut peer = rig.accept();
    rig.record(6);
    let sent: Vec<_> = (0..4).map(|_| peer.result()).collect();
    assert_eq!(sent.iter().map(|s| s.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    // Out of order: only what was named is deleted.
    peer.ack(sent[2].1);
    let fifth = peer.result();
    assert_eq!(fifth.0, 5);
    rig.until("one deleted", |s| s.acknowledged == 1);
    let mut reader = rig.store.reader().unwrap();
    let left: Vec<u64> = reader.outbox_window(0, 10, &SystemClock).unwrap().iter().map(|r| r.seq).collect();
    assert_eq!(left, [1, 2, 4, 5, 6]);
    for pkid in [sent[0].1, sent[1].1, sent[3].1, fifth.1] {
        peer.ack(pkid);
    }
    let (seq, pkid, event) = peer.result();
    assert_eq!((seq, event.replayed), (6, false));
    peer.ack(pkid);
    rig.until("all deleted", |s| s.acknowledged == 6);
    assert_eq!(reader.outbox_events(), 0);
}

#[test]
fn a_new_connection_begins_at_the_oldest_row_that_is_left() {
    let mut rig = Rig::new(|_| {});
    let mut peer = rig.accept();
    rig.record(5);
    let (_, first, _) = peer.result();
    let _ = (peer.result(), peer.result());
    peer.ack(first);
    rig.until("one deleted", |s| s.acknowledged == 1);
    drop(peer);
    let mut peer = rig.accept();
    let again: Vec<u64> = (0..4).map(|_| peer.result().0).collect();
    assert_eq!(again, [2, 3, 4, 5]);
    let status = rig.publisher().status();
    // The fifth row may have followed the acknowledgement before the connection went.
    assert!((3..=4).contains(&status.resent), "{status:?}");
    assert_eq!(status.connections, 2);
}

#[test]
fn an_acknowledgement_of_nothing_costs_the_connection_not_a_row() {
    let mut rig = Rig::new(|_| {});
    let mut peer = rig.accept();
    rig.record(1);
    let (_, pkid, _) = peer.result();
    peer.ack(pkid + 1);
    let mut peer = rig.accept();
    assert_eq!(peer.result().0, 1);
    assert_eq!(rig.publisher().status().acknowledged, 0);
}

#[test]
fn a_broker_that_stops_acknowledging_is_left() {
    let mut rig = Rig::new(|s| s.publish_timeout = Duration::from_millis(150));
    let mut peer = rig.accept();
    rig.record(1);
    let (_, _, first) = peer.result();
    // The connection stays open without a word: half-open.
    let mut second = rig.accept();
    let (seq, pkid, event) = second.result();
    assert_eq!(seq, 1);
    assert_eq!(event.event_id, first.event_id);
    second.ack(pkid);
    rig.until("deleted", |s| s.acknowledged == 1);
}

#[test]
fn what_is_late_is_marked_replayed() {
    let mut rig = Rig::new(|s| s.publish_timeout = Duration::from_millis(1));
    rig.record(1);
    SystemClock.sleep(Duration::from_millis(5));
    let mut peer = rig.accept();
    assert!(peer.result().2.replayed);
}

#[test]
fn refusals_are_their_own_state_and_are_retried() {
    let mut rig = Rig::new(|_| {});
    for (code, reason) in [
        (ConnectReturnCode::BadUserNamePassword, RefusedReason::BadLogin),
        (ConnectReturnCode::NotAuthorized, RefusedReason::NotAuthorized),
        (ConnectReturnCode::BadClientId, RefusedReason::ClientId),
    ] {
        drop(rig.accept_as(code));
        rig.until("refused", |s| matches!(s.link, Link::Refused { reason: r, .. } if r == reason));
    }
    rig.record(1);
    let mut peer = rig.accept();
    assert_eq!(peer.result().0, 1);
    assert_eq!(rig.publisher().status().link, Link::Online);
}

#[test]
fn a_connection_closed_right_after_accepting_hints_at_the_client_id() {
    let rig = Rig::new(|_| {});
    for _ in 0..3 {
        drop(rig.accept_as(ConnectReturnCode::Success));
    }
    rig.until("refused", |s| matches!(s.link, Link::Refused { reason: RefusedReason::ClientId, .. }));
    let Link::Refused { message, .. } = rig.publisher().status().link else { panic!() };
    assert_eq!(message, "it closes the connection right after accepting it; another client may use the client id `ssds-aoi1`");
}

#[test]
fn states_and_alarms_are_sent_on_change_and_again_on_a_new_connection() {
    let rig = Rig::new(|_| {});
    let handle = rig.publisher().handle();
    let mut peer = rig.accept();
    let state = State {
        schema: String::new(),
        station: String::new(),
        state: VisionState::Ready,
        mode: Mode::Triggered,
        recipe: None,
        model: None,
        since: SystemClock.now(),
        message: None,
    };
    handle.set_state(state.clone());
    let sent = peer.publish();
    assert_eq!((sent.topic.as_str(), sent.retain), ("p/ssds/state", true));
    let read: State = serde_json::from_slice(&sent.payload).unwrap();
    assert_eq!((read.schema.as_str(), read.station.as_str()), ("ssds.state/1", "aoi1"));
    handle.set_state(state); // the same: nothing to say
    let alarm = Alarm {
        schema: String::new(),
        station: String::new(),
        code: AlarmCode::CameraLost,
        severity: Severity::Error,
        since: SystemClock.now(),
        message: "no frame for 5.0 s".into(),
        value: None,
        limit: None,
    };
    handle.set_alarm(AlarmCode::CameraLost, Some(alarm));
    assert_eq!(peer.publish().topic, "p/ssds/alarm/camera_lost");
    drop(peer);
    let mut peer = rig.accept_as(ConnectReturnCode::Success);
    let mut topics = Vec::new();
    for _ in 0..2 + AlarmCode::ALL.len() {
        let p = peer.publish();
        peer.ack(p.pkid);
        topics.push((p.topic, p.payload.is_empty()));
    }
    assert_eq!(topics.remove(0).0, "p/ssds/status");
    assert!(topics.contains(&("p/ssds/state".to_owned(), false)));
    assert!(topics.contains(&("p/ssds/alarm/camera_lost".to_owned(), false)));
    assert!(topics.contains(&("p/ssds/alarm/disk_low".to_owned(), true)));
    handle.set_alarm(AlarmCode::CameraLost, None);
    let cleared = peer.publish();
    assert_eq!((cleared.topic.as_str(), cleared.payload.len(), cleared.retain), ("p/ssds/alarm/camera_lost", 0, true));
}

#[test]
fn the_end_drains_says_stopped_and_disconnects() {
    let mut rig = Rig::new(|_| {});
    let mut peer = rig.accept();
    rig.record(2);
    let publisher = rig.publisher.take().unwrap();
    let ending = std::thread::Builder::new().spawn(move || publisher.shutdown(LIMIT)).unwrap();
    for seq in 1..=2 {
        let (got, pkid, _) = peer.result();
        assert_eq!(got, seq);
        peer.ack(pkid);
    }
    let stopped = peer.publish();
    let status: Status = serde_json::from_slice(&stopped.payload).unwrap();
    assert_eq!((status.status, status.last_seq, stopped.retain), (Presence::Stopped, Some(2), true));
    peer.ack(stopped.pkid);
    assert_eq!(peer.packet(), Packet::Disconnect);
    assert_eq!(ending.join().unwrap(), ShutdownReport { stopped_published: true, outbox_events: 0 });
}

#[test]
fn a_connection_that_breaks_at_the_end_is_made_again_once() {
    for breaks in [1, 2] {
        let mut rig = Rig::new(|_| {});
        let mut peer = rig.accept();
        rig.record(1);
        let publisher = rig.publisher.take().unwrap();
        let ending = std::thread::Builder::new().spawn(move || publisher.shutdown(LIMIT)).unwrap();
        assert_eq!(peer.result().0, 1);
        drop(peer);
        let mut peer = rig.accept();
        let (got, pkid, _) = peer.result();
        assert_eq!(got, 1);
        if breaks == 2 {
            drop(peer);
            assert_eq!(ending.join().unwrap(), ShutdownReport { stopped_published: false, outbox_events: 1 });
            continue;
        }
        peer.ack(pkid);
        let stopped = peer.publish();
        peer.ack(stopped.pkid);
        assert_eq!(peer.packet(), Packet::Disconnect);
        assert_eq!(ending.join().unwrap(), ShutdownReport { stopped_published: true, outbox_events: 0 });
    }
}

#[test]
fn the_end_comes_in_time_whatever_the_broker_does() {
    // Nobody accepts, nobody acknowledges, nobody listens.
    for stage in 0..3 {
        let mut rig = Rig::new(|_| {});
        rig.record(1);
        let peer = (stage == 1).then(|| rig.accept());
        if stage == 2 {
            rig.listener = TcpListener::bind("127.0.0.1:0").unwrap();
        }
        let begun = SystemClock.mono_ns();
        let report = rig.publisher.take().unwrap().shutdown(Duration::from_millis(700));
        let took = Duration::from_nanos(SystemClock.mono_ns() - begun);
        assert_eq!(report, ShutdownReport { stopped_published: false, outbox_events: 1 }, "stage {stage}");
        assert!(took < LIMIT, "stage {stage}: {took:?}");
        drop(peer);
    }
}

fn commanded() -> Rig {
    Rig::new(|s| s.commands = CommandSettings { enabled: true, queue: 1, max_bytes: 300, ..CommandSettings::default() })
}

/// The subscription comes first.
fn accept_commanded(rig: &Rig) -> Peer {
    let mut peer = rig.accept_as(ConnectReturnCode::Success);
    let Packet::Subscribe(subscribe) = peer.packet() else { panic!("no SUBSCRIBE") };
    assert_eq!(subscribe.filters[0].path, "p/ssds/cmd/#");
    for _ in 0..1 + AlarmCode::ALL.len() {
        let p = peer.publish();
        peer.ack(p.pkid);
    }
    peer
}

fn request(id: &str) -> String {
    format!(r#"{{"request_id":"{id}","issued_at":"{}","ttl_ms":30000}}"#, SystemClock.now())
}

fn send_command(peer: &mut Peer, pkid: u16, name: &str, payload: &str) {
    let mut publish = Publish::new(format!("p/ssds/cmd/{name}"), QoS::AtLeastOnce, payload);
    publish.pkid = pkid;
    peer.send(&Packet::Publish(publish));
}

fn response(peer: &mut Peer) -> (String, crate::record::message::CommandResponse) {
    let p = peer.publish();
    peer.ack(p.pkid);
    (p.topic, serde_json::from_slice(&p.payload).unwrap())
}

#[test]
fn commands_are_answered_once_each() {
    let rig = commanded();
    let commands = rig.publisher().commands();
    let mut peer = accept_commanded(&rig);

    send_command(&mut peer, 1, "trigger", &request("a"));
    assert_eq!(peer.packet(), Packet::PubAck(PubAck::new(1)));
    let command = commands.recv_timeout(LIMIT).unwrap();
    assert_eq!((command.kind, command.request_id.as_str()), (crate::publish::CommandKind::Trigger, "a"));
    command.done(serde_json::json!({"seq": 7}));
    let (topic, answer) = response(&mut peer);
    assert_eq!((topic.as_str(), answer.outcome, answer.command.as_str()), ("p/ssds/rsp/a", Outcome::Done, "trigger"));
    assert_eq!(answer.result.unwrap()["seq"], 7);

    // Used before; unknown; too long, unread; one more than the queue holds; dropped by its holder.
    send_command(&mut peer, 2, "trigger", &request("a"));
    send_command(&mut peer, 3, "dance", &request("b"));
    send_command(&mut peer, 4, "pause", &"x".repeat(5000));
    let mut answers = Vec::new();
    while answers.len() < 3 {
        match peer.packet() {
            Packet::Publish(p) => {
                peer.ack(p.pkid);
                let answer: crate::record::message::CommandResponse = serde_json::from_slice(&p.payload).unwrap();
                answers.push((p.topic, answer.outcome, answer.reason.unwrap()));
            }
            Packet::PubAck(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        answers,
        [
            ("p/ssds/rsp/a".into(), Outcome::Refused, Reason::Replayed),
            ("p/ssds/rsp/b".into(), Outcome::Refused, Reason::Unknown),
            ("p/ssds/rsp/invalid".into(), Outcome::Refused, Reason::Oversized),
        ]
    );
    send_command(&mut peer, 5, "pause", &request("c"));
    send_command(&mut peer, 6, "pause", &request("d"));
    let mut busy = None;
    while busy.is_none() {
        if let Packet::Publish(p) = peer.packet() {
            peer.ack(p.pkid);
            busy = Some((p.topic, serde_json::from_slice::<crate::record::message::CommandResponse>(&p.payload).unwrap()));
        }
    }
    let (topic, answer) = busy.unwrap();
    assert_eq!((topic.as_str(), answer.reason), ("p/ssds/rsp/d", Some(Reason::Busy)));
    drop(commands.recv_timeout(LIMIT).unwrap());
    let (topic, answer) = response(&mut peer);
    assert_eq!((topic.as_str(), answer.outcome, answer.reason), ("p/ssds/rsp/c", Outcome::Failed, Some(Reason::Internal)));
}

#[test]
fn what_a_broker_refuses_before_it_closes_the_connection_is_named() {
    let mut rig = Rig::new(|s| s.protocol = Protocol::V5);
    rig.record(3);
    // The first time its word is lost with the connection; then it is sent one message at a time, and its word arrives.
    for denied in [None, Some(0x87)] {
        let (mut stream, _) = rig.listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut bytes = [0; 1 << 16];
        assert!(stream.read(&mut bytes).unwrap() > 0, "CONNECT");
        stream.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
        let birth = stream.read(&mut bytes).unwrap();
        assert_eq!(bytes[0] >> 4, 3, "a PUBLISH");
        if let Some(code) = denied {
            stream.write_all(&[0x40, 3, 0, 1, code]).unwrap();
            // Fixed header of three bytes: between 128 and 16383 follow.
            let told = usize::from(bytes[1] & 0x7f) + (usize::from(bytes[2]) << 7);
            assert_eq!(birth, 3 + told, "nothing behind the birth");
        }
    }
    rig.until("the refusal", |s| matches!(s.link, Link::Refused { reason: RefusedReason::Message, .. }));
    let Link::Refused { message, .. } = rig.publisher().status().link else { panic!() };
    assert!(message.starts_with("p/ssds/status: not authorised; then "), "{message}");
    assert_eq!(rig.store.reader().unwrap().outbox_events(), 3);
}

#[test]
fn an_answer_the_broker_did_not_get_is_sent_again() {
    let rig = commanded();
    let mut peer = accept_commanded(&rig);
    send_command(&mut peer, 1, "nothing", &request("a"));
    assert_eq!(peer.packet(), Packet::PubAck(PubAck::new(1)));
    assert_eq!(peer.publish().topic, "p/ssds/rsp/a"); // not acknowledged
    drop(peer);
    let mut peer = rig.accept_as(ConnectReturnCode::Success);
    assert!(matches!(peer.packet(), Packet::Subscribe(_)));
    // After a short connection that did no good, one at a time.
    for _ in 0..1 + AlarmCode::ALL.len() {
        let p = peer.publish();
        peer.ack(p.pkid);
    }
    assert_eq!(peer.publish().topic, "p/ssds/rsp/a");
}

#[test]
fn a_command_nobody_answers_times_out() {
    let rig = Rig::new(|s| {
        s.commands = CommandSettings { enabled: true, answer_timeout: Duration::from_millis(50), ..CommandSettings::default() };
    });
    let commands = rig.publisher().commands();
    let mut peer = accept_commanded(&rig);
    send_command(&mut peer, 1, "selftest", &request("a"));
    let command = commands.recv_timeout(LIMIT).unwrap();
    assert_eq!(peer.packet(), Packet::PubAck(PubAck::new(1)));
    let (_, answer) = response(&mut peer);
    assert_eq!((answer.outcome, answer.reason), (Outcome::Failed, Some(Reason::Timeout)));
    command.done(serde_json::Value::Null); // too late: the first answer stands
    send_command(&mut peer, 2, "none", &request("b"));
    assert_eq!(peer.packet(), Packet::PubAck(PubAck::new(2)));
    assert_eq!(response(&mut peer).0, "p/ssds/rsp/b");
}

#[cfg(feature = "embedded-broker")]
#[test]
fn the_embedded_broker_takes_results() {
    let broker = crate::publish::broker::EmbeddedBroker::start(0).unwrap();
    let mut rig = Rig::new(|s| s.port = broker.port());
    rig.record(300);
    rig.until("all acknowledged", |s| s.acknowledged == 300);
    let report = rig.publisher.take().unwrap().shutdown(LIMIT);
    assert_eq!(report, ShutdownReport { stopped_published: true, outbox_events: 0 });
}
