//! A webcam for a guest to plug in over the network: USB/IP on one side, a USB Video Class device with MJPG on the other.
//!
//! The guest's own kernel drives it (vhci_hcd, uvcvideo), so that what the program reads is a USB webcam's picture in all but the wire. The
//! device has one bulk endpoint, one size and one rate; its pictures are given as JPEG files and sent in turn. Three bus ids name three tempers:
//! [`STEADY`], [`TEARING`] and [`LOOSE`].
//! Sources: USB/IP protocol 1.1.1 (kernel documentation, usbip_protocol); USB Video Class 1.0, sections 2.4.3 (payload header), 3 (descriptors)
//! and 4.3.1.1 (probe and commit).

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Sends every picture whole.
pub const STEADY: &str = "1-1";
/// Every third picture ends in its middle.
pub const TEARING: &str = "1-2";
/// Comes off its cable after [`LOOSE_FRAMES`] pictures, each time it is plugged in.
pub const LOOSE: &str = "1-3";
/// See [`LOOSE`].
pub const LOOSE_FRAMES: u64 = 25;
/// Between pictures.
const FRAME: Duration = Duration::from_millis(100);

/// Bytes of a transfer with its header.
const PAYLOAD: usize = 16 * 1024;
const ENDPOINT: u32 = 1;
const EPIPE: i32 = -32;
const ECONNRESET: i32 = -104;

/// Serves the pictures, `width` by `height`, on a free port of the loopback interface, for as long as the process lives; returns the port.
pub fn serve(pictures: Vec<Vec<u8>>, width: u16, height: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let pictures = Arc::new(pictures);
    let listening = std::thread::Builder::new().name("usbip".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let pictures = Arc::clone(&pictures);
            let serving = std::thread::Builder::new().name("webcam".into()).spawn(move || {
                // How a connection ends is the guest's affair: it shuts down, or the cable is off.
                if let Err(e) = plugged_in(stream, &pictures, width, height) {
                    println!("webcam: {e}");
                }
            });
            serving.unwrap();
        }
    });
    listening.unwrap();
    port
}

fn malformed(what: String) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// One connection: import, then requests until it ends.
fn plugged_in(mut stream: TcpStream, pictures: &Arc<Vec<Vec<u8>>>, width: u16, height: u16) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 40];
    stream.read_exact(&mut request)?;
    if request[..4] != [1, 0x11, 0x80, 3] {
        return Err(malformed(format!("wanted OP_REQ_IMPORT, got {:?}", &request[..8])));
    }
    let bus_id: String = request[8..].iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect();
    if ![STEADY, TEARING, LOOSE].contains(&bus_id.as_str()) {
        stream.write_all(&[1, 0x11, 0, 3, 0, 0, 0, 1])?;
        return Err(malformed(format!("no device {bus_id}")));
    }
    let mut reply = vec![1, 0x11, 0, 3, 0, 0, 0, 0];
    let mut text = |text: &str, len: usize| {
        let mut field = text.as_bytes().to_vec();
        field.resize(len, 0);
        reply.extend(field);
    };
    text(&format!("/sys/devices/webcam/{bus_id}"), 256);
    text(&bus_id, 32);
    for value in [1_u32, 2, 3] {
        reply.extend(value.to_be_bytes()); // bus, device, high speed
    }
    for value in [VENDOR, PRODUCT, 0x0100] {
        reply.extend(value.to_be_bytes());
    }
    reply.extend([0xEF, 2, 1, 1, 1, 2]); // class, subclass, protocol, configuration, configurations, interfaces
    stream.write_all(&reply)?;

    let device = Arc::new(Device {
        out: Mutex::new(stream.try_clone()?),
        waiting: Mutex::new(Waiting { urbs: VecDeque::new(), rewind: false, ended: false }),
        more: Condvar::new(),
    });
    let (streaming, own) = (Arc::clone(&device), Arc::clone(pictures));
    let pictures_out = std::thread::Builder::new().name("pictures".into()).spawn(move || streaming.stream(&own, &bus_id))?;
    let largest = pictures.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let ended = device.requests(&mut stream, width, height, largest);
    device.waiting.lock().unwrap().ended = true;
    device.more.notify_all();
    let _ = pictures_out.join();
    ended
}

/// Transfers that wait for a picture.
struct Waiting {
    /// Number and length.
    urbs: VecDeque<(u32, usize)>,
    /// Begin with a new picture.
    rewind: bool,
    ended: bool,
}

struct Device {
    out: Mutex<TcpStream>,
    waiting: Mutex<Waiting>,
    more: Condvar,
}

impl Device {
    /// USBIP_RET_SUBMIT, with data for transfers to the host.
    fn answer(&self, seqnum: u32, status: i32, length: usize, data: &[u8]) -> Result<()> {
        let mut reply = Vec::with_capacity(48 + data.len());
        for value in [3, seqnum, 0, 0, 0, status as u32, length as u32, 0, 0, 0, 0, 0] {
            reply.extend(value.to_be_bytes());
        }
        reply.extend(data);
        self.out.lock().unwrap().write_all(&reply)
    }

    fn requests(&self, stream: &mut TcpStream, width: u16, height: u16, largest: u32) -> Result<()> {
        let probe = probe(largest);
        loop {
            let mut head = [0; 48];
            stream.read_exact(&mut head)?;
            let (command, seqnum, direction, endpoint) = (be32(&head, 0), be32(&head, 4), be32(&head, 12), be32(&head, 16));
            match command {
                1 => {
                    let length = be32(&head, 24) as usize;
                    let mut data = vec![0; if direction == 0 { length } else { 0 }];
                    stream.read_exact(&mut data)?;
                    if endpoint == ENDPOINT {
                        self.waiting.lock().unwrap().urbs.push_back((seqnum, length));
                        self.more.notify_all();
                        continue;
                    }
                    let setup: [u8; 8] = head[40..48].try_into().unwrap();
                    if setup[..2] == [0x02, 1] {
                        // CLEAR_FEATURE(ENDPOINT_HALT): how a host ends a stream over a bulk endpoint.
                        self.waiting.lock().unwrap().rewind = true;
                    }
                    match control(setup, &data, &probe, width, height) {
                        Some(mut answer) => {
                            answer.truncate(length);
                            let length = if direction == 0 { length } else { answer.len() };
                            self.answer(seqnum, 0, length, &answer)?;
                        }
                        None => self.answer(seqnum, EPIPE, 0, &[])?,
                    }
                }
                2 => {
                    let unlinked = be32(&head, 20);
                    let mut waiting = self.waiting.lock().unwrap();
                    let before = waiting.urbs.len();
                    waiting.urbs.retain(|(n, _)| *n != unlinked);
                    let status = if waiting.urbs.len() < before { ECONNRESET } else { 0 };
                    let mut reply = Vec::new();
                    for value in [4, seqnum, 0, 0, 0, status as u32, 0, 0, 0, 0, 0, 0] {
                        reply.extend(value.to_be_bytes());
                    }
                    self.out.lock().unwrap().write_all(&reply)?;
                }
                other => return Err(malformed(format!("command {other}"))),
            }
        }
    }

    /// Sends the pictures in turn, each cut into payloads, to whatever transfers wait.
    fn stream(&self, pictures: &[Vec<u8>], bus_id: &str) {
        let mut due = Instant::now();
        for number in 0_u64.. {
            if bus_id == LOOSE && number == LOOSE_FRAMES {
                let _ = self.out.lock().unwrap().shutdown(std::net::Shutdown::Both);
                return;
            }
            let picture = &pictures[(number % pictures.len() as u64) as usize];
            let torn = bus_id == TEARING && number % 3 == 2;
            let mut rest = if torn { &picture[..picture.len() / 2] } else { &picture[..] };
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due = Instant::now() + FRAME;
            let mut begun = false;
            while !rest.is_empty() {
                let mut waiting = self.waiting.lock().unwrap();
                let (seqnum, length) = loop {
                    if waiting.ended {
                        return;
                    }
                    if std::mem::take(&mut waiting.rewind) && begun {
                        break (0, 0);
                    }
                    if let Some(urb) = waiting.urbs.pop_front() {
                        break urb;
                    }
                    waiting = self.more.wait(waiting).unwrap();
                };
                // The lock is held until the answer is written: an unlinked transfer is either taken back or answered before its unlinking is.
                if length == 0 {
                    break;
                }
                begun = true;
                let (now, later) = rest.split_at(rest.len().min(length.min(PAYLOAD) - 2));
                rest = later;
                // Header: length; end of header, end of frame, frame id.
                let flags = 0x80 | u8::from(rest.is_empty()) << 1 | u8::from(number % 2 == 1);
                let mut payload = vec![2, flags];
                payload.extend(now);
                if self.answer(seqnum, 0, payload.len(), &payload).is_err() {
                    return;
                }
            }
        }
    }
}

const VENDOR: u16 = 0x1d6b;
const PRODUCT: u16 = 0x0102;
/// The name that the kernel shows.
pub const NAME: &str = "Recorded pictures";

/// Video probe and commit control, 26 bytes (UVC 1.0, table 4-47).
fn probe(largest: u32) -> Vec<u8> {
    let mut p = vec![0, 0, 1, 1];
    p.extend((FRAME.as_nanos() as u32 / 100).to_le_bytes());
    p.extend([0; 10]);
    p.extend(largest.to_le_bytes());
    p.extend((PAYLOAD as u32).to_le_bytes());
    p
}

/// The answer to a control request; `None` stalls.
fn control(setup: [u8; 8], data: &[u8], probe: &[u8], width: u16, height: u16) -> Option<Vec<u8>> {
    let (kind, request, value) = (setup[0], setup[1], u16::from_le_bytes([setup[2], setup[3]]));
    match (kind, request) {
        (0x80, 6) => match value >> 8 {
            1 => Some(device_descriptor()),
            2 => Some(configuration(width, height)),
            3 => Some(string(value as u8)),
            _ => None,
        },
        (0x80..=0x82, 0) => Some(vec![0, 0]),
        (0x80, 8) => Some(vec![1]),
        (0x81, 10) => Some(vec![0]),
        (0..=2, _) => Some(Vec::new()),
        // Class requests to the streaming interface: probe and commit.
        (0x21, 1) => {
            // The host may choose among one format, one size and one rate.
            if data.len() != probe.len() || data[2..4] != probe[2..4] {
                return None;
            }
            Some(Vec::new())
        }
        (0xA1, 0x81..=0x84 | 0x87) => Some(probe.to_vec()),
        (0xA1, 0x85) => Some(vec![probe.len() as u8, 0]),
        (0xA1, 0x86) => Some(vec![3]),
        _ => None,
    }
}

fn device_descriptor() -> Vec<u8> {
    let mut d = vec![18, 1, 0, 2, 0xEF, 2, 1, 64];
    d.extend([VENDOR, PRODUCT, 0x0100].iter().flat_map(|v| v.to_le_bytes()));
    d.extend([1, 2, 3, 1]);
    d
}

fn string(index: u8) -> Vec<u8> {
    let text = match index {
        0 => return vec![4, 3, 9, 4],
        1 => "SSDS",
        2 => NAME,
        _ => "1",
    };
    let mut d = vec![2 + 2 * text.len() as u8, 3];
    d.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    d
}

fn configuration(width: u16, height: u16) -> Vec<u8> {
    let mut control = vec![13, 0x24, 1, 0, 1, 39, 0, 0, 0x6C, 0xDC, 2, 1, 1]; // header: UVC 1.0, 39 bytes, 48 MHz, interface 1
    control.extend([17, 0x24, 2, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0]); // camera terminal 1, no controls
    control.extend([9, 0x24, 3, 2, 1, 1, 0, 1, 0]); // output terminal 2, fed by 1
    let rate = FRAME.as_nanos() as u32 / 100;
    let largest = u32::from(width) * u32::from(height) * 2;
    let mut formats = vec![11, 0x24, 6, 1, 1, 0, 1, 0, 0, 0, 0]; // MJPG, one size
    formats.extend([30, 0x24, 7, 1, 0]);
    formats.extend([width, height].iter().flat_map(|v| v.to_le_bytes()));
    formats.extend([largest * 80, largest * 80, largest, rate].iter().flat_map(|v| v.to_le_bytes()));
    formats.push(1);
    formats.extend(rate.to_le_bytes());
    formats.extend([6, 0x24, 13, 1, 1, 4]); // colours of sRGB, matrix of BT.601
    let mut streaming = vec![14, 0x24, 1, 1];
    streaming.extend((14 + formats.len() as u16).to_le_bytes());
    streaming.extend([0x81, 0, 2, 0, 0, 0, 1, 0]);
    streaming.extend(formats);

    let mut body = vec![8, 11, 0, 2, 14, 3, 0, 2]; // both interfaces make one function
    body.extend([9, 4, 0, 0, 0, 14, 1, 0, 2]);
    body.extend(control);
    body.extend([9, 4, 1, 0, 1, 14, 2, 0, 0]);
    body.extend(streaming);
    body.extend([7, 5, 0x81, 2, 0, 2, 0]); // bulk, 512 bytes
    let mut d = vec![9, 2];
    d.extend((9 + body.len() as u16).to_le_bytes());
    d.extend([2, 1, 0, 0x80, 250]);
    d.extend(body);
    d
}
