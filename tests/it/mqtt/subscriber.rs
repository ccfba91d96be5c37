//! A subscriber that remembers every result it got, over reconnections: stable client id, session kept by the broker.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet, PubAck, Subscribe};
use rumqttc::mqttbytes::{Error, QoS};
use ssds::clock::{Clock, SystemClock};
use ssds::record::event::InspectionEvent;

/// What came.
#[derive(Default)]
pub struct Seen {
    /// Number to event id and how often.
    pub results: BTreeMap<u64, (String, u64)>,
    /// Numbers in the order they first came.
    pub first: Vec<u64>,
    /// Results marked `replayed`.
    pub replayed: u64,
    /// Results under one number with two event ids, or that do not decode.
    pub wrong: Vec<String>,
    /// All other messages, by topic, newest.
    pub others: BTreeMap<String, Vec<u8>>,
    /// Every message, when asked to keep them.
    pub messages: Vec<(String, Vec<u8>)>,
    keep: bool,
}

impl Seen {
    /// Results that came more than once, counted without the first.
    pub fn duplicates(&self) -> u64 {
        self.results.values().map(|(_, n)| n - 1).sum()
    }
}

/// The thread.
pub struct Subscriber {
    seen: Arc<Mutex<Seen>>,
    subscribed: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Subscribes to `filter` on `port`, for ever.
    pub fn start(port: u16, filter: &str) -> Self {
        Self::run(port, filter, Seen::default())
    }

    /// The same, keeping every message.
    pub fn keeping(port: u16, filter: &str) -> Self {
        Self::run(port, filter, Seen { keep: true, ..Seen::default() })
    }

    fn run(port: u16, filter: &str, seen: Seen) -> Self {
        let (seen, subscribed, ended) =
            (Arc::new(Mutex::new(seen)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let own = (Arc::clone(&seen), Arc::clone(&subscribed), Arc::clone(&ended), filter.to_owned());
        let thread = std::thread::Builder::new()
            .name("subscriber".to_owned())
            .spawn(move || {
                let (seen, subscribed, ended, filter) = own;
                while !ended.load(Ordering::SeqCst) {
                    // The connection ends with the broker; the next one begins with it.
                    let _ = session(port, &filter, &seen, &subscribed, &ended);
                    SystemClock.sleep(Duration::from_millis(10));
                }
            })
            .unwrap();
        Self { seen, subscribed, ended, thread: Some(thread) }
    }

    /// How often the broker has confirmed the subscription.
    pub fn subscriptions(&self) -> u64 {
        self.subscribed.load(Ordering::SeqCst)
    }

    /// Looks at what came.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn session(port: u16, filter: &str, seen: &Mutex<Seen>, subscribed: &AtomicU64, ended: &AtomicBool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut connect = Connect::new("fault-checker");
    (connect.clean_session, connect.keep_alive) = (false, 0);
    let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
    subscribe.pkid = 1;
    send(&mut stream, &Packet::Connect(connect))?;
    let mut input = BytesMut::new();
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match Packet::read(&mut input, 1 << 20) {
            Ok(Packet::ConnAck(ack)) => {
                assert_eq!(ack.code, ConnectReturnCode::Success);
                send(&mut stream, &Packet::Subscribe(subscribe.clone()))?;
            }
            Ok(Packet::SubAck(_)) => {
                subscribed.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Packet::Publish(p)) => {
                note(seen, p.topic, &p.payload);
                if p.pkid != 0 {
                    send(&mut stream, &Packet::PubAck(PubAck::new(p.pkid)))?;
                }
            }
            Ok(_) => {}
            Err(Error::InsufficientBytes(_)) => match stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(n) => input.extend_from_slice(&bytes[..n]),
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    if ended.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                }
                Err(e) => return Err(e),
            },
            Err(e) => panic!("the broker sent what is not MQTT: {e}"),
        }
    }
}

fn note(seen: &Mutex<Seen>, topic: String, payload: &[u8]) {
    let mut seen = seen.lock().unwrap();
    if seen.keep {
        seen.messages.push((topic.clone(), payload.to_vec()));
    }
    if !topic.contains("/result/") && !topic.starts_with("result/") {
        seen.others.insert(topic, payload.to_vec());
        return;
    }
    let event = match InspectionEvent::from_json(payload) {
        Ok(event) => event,
        Err(e) => {
            seen.wrong.push(format!("{topic}: {e}"));
            return;
        }
    };
    seen.replayed += u64::from(event.replayed);
    let (seq, id) = (event.seq, event.event_id);
    match seen.results.get_mut(&seq) {
        Some((known, count)) if *known == id => *count += 1,
        Some((known, _)) => {
            let text = format!("number {seq} as {known} and as {id}");
            seen.wrong.push(text);
        }
        None => {
            seen.results.insert(seq, (id, 1));
            seen.first.push(seq);
        }
    }
}

fn send(stream: &mut TcpStream, packet: &Packet) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    packet.write(&mut out, 1 << 20).expect("a packet within the limit");
    stream.write_all(&out)
}
