//! MQTT packets, both protocol versions behind one face.
//!
//! For: encoding what the station sends and decoding what a broker sends. The bytes are made and read by rumqttc's codecs
//! (`rumqttc::mqttbytes`, `rumqttc::v5::mqttbytes`); its client is not used, because it keeps accepted messages in memory, clears them on
//! a CONNACK without a session and does not tell when which of them was given up. Framing and the length limit are here: a PUBLISH above
//! the limit is passed over unread, with only its topic and packet id kept, so that an oversized command costs no memory and can be
//! acknowledged instead of coming back with every connection.
//!
//! Invariants: [`Codec::decode`] consumes whole packets only; after an error the connection must be closed.
//! Source: MQTT 3.1.1 and MQTT 5, OASIS.

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::mqttbytes::{QoS, v4};
use rumqttc::v5::mqttbytes as q5;
use rumqttc::v5::mqttbytes::v5;

use super::settings::Protocol;

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
    /// MQTT 5 only: user properties and expiry.
    pub schema: Option<&'static str>,
    pub expiry_s: Option<u32>,
}

/// What opens a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub client_id: String,
    pub keep_alive_s: u16,
    pub clean_session: bool,
    pub will: Option<Message>,
    pub login: Option<(String, String)>,
    /// MQTT 5: how long the broker keeps the session after a disconnection.
    pub session_expiry_s: u32,
    /// MQTT 5: how many QoS 1 messages it may send ahead.
    pub receive_max: u16,
}

/// What a broker sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    ConnAck {
        refused: Option<(Refused, String)>,
        receive_max: Option<u16>,
        max_packet: Option<u32>,
    },
    PubAck {
        pkid: u16,
        refused: Option<String>,
    },
    Publish {
        topic: String,
        pkid: u16,
        retain: bool,
        payload: Bytes,
    },
    /// A PUBLISH above the limit, passed over.
    Oversized {
        topic: String,
        pkid: u16,
        retain: bool,
        bytes: usize,
    },
    SubAck {
        granted: bool,
    },
    PingResp,
    Disconnect {
        reason: String,
        taken_over: bool,
    },
    Other,
}

/// Why a broker refused the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    BadLogin,
    NotAuthorized,
    ClientId,
    ProtocolVersion,
    Unavailable,
    Other,
}

/// One connection's encoder and decoder.
#[derive(Debug)]
pub(crate) struct Codec {
    protocol: Protocol,
    station: String,
    /// Largest payload read, bytes.
    max_payload: usize,
    /// Bytes of an oversized PUBLISH still to pass over.
    skip: usize,
}

impl Codec {
    pub(crate) const fn new(protocol: Protocol, station: String, max_payload: usize) -> Self {
        Self { protocol, station, max_payload, skip: 0 }
    }

    pub(crate) fn connect(&self, connect: &Connect, out: &mut BytesMut) -> Result<(), String> {
        match self.protocol {
            Protocol::V311 => {
                let mut packet = v4::Connect::new(connect.client_id.clone());
                packet.keep_alive = connect.keep_alive_s;
                packet.clean_session = connect.clean_session;
                packet.last_will = connect
                    .will
                    .as_ref()
                    .map(|w| v4::LastWill::new(w.topic.clone(), w.payload.to_vec(), QoS::AtLeastOnce, w.retain));
                packet.login = connect.login.as_ref().map(|(u, p)| v4::Login::new(u.clone(), p.clone()));
                packet.write(out).map_err(shown)?;
            }
            Protocol::V5 => {
                let properties = v5::ConnectProperties {
                    session_expiry_interval: Some(connect.session_expiry_s),
                    receive_maximum: Some(connect.receive_max),
                    request_problem_info: Some(1),
                    user_properties: vec![("station".to_owned(), self.station.clone())],
                    ..v5::ConnectProperties::new()
                };
                let packet = v5::Connect {
                    keep_alive: connect.keep_alive_s,
                    client_id: connect.client_id.clone(),
                    clean_start: connect.clean_session,
                    properties: Some(properties),
                };
                let will = connect
                    .will
                    .as_ref()
                    .map(|w| v5::LastWill::new(w.topic.clone(), w.payload.to_vec(), q5::QoS::AtLeastOnce, w.retain, None));
                let login = connect.login.as_ref().map(|(u, p)| v5::Login::new(u.clone(), p.clone()));
                packet.write(&will, &login, out).map_err(shown)?;
            }
        }
        Ok(())
    }

    /// A PUBLISH: QoS 1 with a packet id, QoS 0 with id 0.
    pub(crate) fn publish(&self, message: &Message, pkid: u16, out: &mut BytesMut) -> Result<(), String> {
        match self.protocol {
            Protocol::V311 => {
                let qos = if pkid == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                let mut packet = v4::Publish::from_bytes(message.topic.clone(), qos, message.payload.clone());
                (packet.pkid, packet.retain) = (pkid, message.retain);
                packet.write(out).map_err(shown)?;
            }
            Protocol::V5 => {
                let qos = if pkid == 0 { q5::QoS::AtMostOnce } else { q5::QoS::AtLeastOnce };
                let properties = message.schema.map(|schema| v5::PublishProperties {
                    payload_format_indicator: Some(1),
                    message_expiry_interval: message.expiry_s,
                    content_type: Some("application/json".to_owned()),
                    user_properties: vec![("schema".to_owned(), schema.to_owned()), ("station".to_owned(), self.station.clone())],
                    topic_alias: None,
                    response_topic: None,
                    correlation_data: None,
                    subscription_identifiers: Vec::new(),
                });
                let mut packet = v5::Publish::new(message.topic.clone(), qos, message.payload.clone(), properties);
                (packet.pkid, packet.retain) = (pkid, message.retain);
                packet.write(out).map_err(shown)?;
            }
        }
        Ok(())
    }

    /// SUBSCRIBE at QoS 1.
    pub(crate) fn subscribe(&self, filter: &str, pkid: u16, out: &mut BytesMut) -> Result<(), String> {
        match self.protocol {
            Protocol::V311 => {
                let mut packet = v4::Subscribe::new(filter, QoS::AtLeastOnce);
                packet.pkid = pkid;
                packet.write(out).map_err(shown)?;
            }
            Protocol::V5 => {
                let mut packet = v5::Subscribe::new(v5::Filter::new(filter, q5::QoS::AtLeastOnce), None);
                packet.pkid = pkid;
                packet.write(out).map_err(shown)?;
            }
        }
        Ok(())
    }

    // The packets below have fixed bytes: packet type and length, then the id. Reason code and properties of MQTT 5 may be left out when
    // they say "success".

    pub(crate) fn puback(pkid: u16, out: &mut BytesMut) {
        out.extend_from_slice(&[0x40, 2]);
        out.extend_from_slice(&pkid.to_be_bytes());
    }

    pub(crate) fn ping(out: &mut BytesMut) {
        out.extend_from_slice(&[0xC0, 0]);
    }

    pub(crate) fn disconnect(out: &mut BytesMut) {
        out.extend_from_slice(&[0xE0, 0]);
    }

    /// The next packet, or nothing until more bytes come.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Incoming>, String> {
        if self.skip > 0 {
            let now = self.skip.min(input.len());
            input.advance(now);
            self.skip -= now;
            if self.skip > 0 {
                return Ok(None);
            }
        }
        let Some((header, remaining)) = fixed_header(input)? else { return Ok(None) };
        let kind = input[0] >> 4;
        // Topic, id and properties come on top of the payload; anything else a broker sends is short.
        let limit = self.max_payload + 2048;
        if remaining > limit {
            return if kind == PUBLISH {
                self.oversized(input, header, remaining)
            } else {
                Err(format!("a packet of type {kind} with {remaining} bytes"))
            };
        }
        if input.len() < header + remaining {
            input.reserve(header + remaining - input.len());
            return Ok(None);
        }
        if kind == DISCONNECT {
            // A reason code without properties is right by MQTT 5 (3.14.2.2.1), but the codec wants both.
            let reason = if remaining == 0 { 0 } else { input[header] };
            input.advance(header + remaining);
            return Ok(Some(Incoming::Disconnect { reason: disconnect_reason(reason), taken_over: reason == 0x8E }));
        }
        let mut frame = input.split_to(header + remaining);
        let incoming = match self.protocol {
            Protocol::V311 => from_v4(v4::Packet::read(&mut frame, usize::MAX).map_err(shown)?),
            Protocol::V5 => from_v5(v5::Packet::read(&mut frame, None).map_err(shown)?),
        };
        if let Incoming::Publish { topic, pkid, retain, payload } = &incoming
            && payload.len() > self.max_payload
        {
            let (topic, pkid, retain, bytes) = (topic.clone(), *pkid, *retain, payload.len());
            return Ok(Some(Incoming::Oversized { topic, pkid, retain, bytes }));
        }
        Ok(Some(incoming))
    }

    /// Takes topic and packet id of a long PUBLISH and passes over the rest.
    fn oversized(&mut self, input: &mut BytesMut, header: usize, remaining: usize) -> Result<Option<Incoming>, String> {
        let Some(length) = input.get(header..header + 2).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]]))) else {
            return Ok(None);
        };
        let qos = (input[0] >> 1) & 3;
        let known = 2 + length + if qos > 0 { 2 } else { 0 };
        if known > remaining {
            return Err("a PUBLISH whose topic is longer than the packet".to_owned());
        }
        if input.len() < header + known {
            return Ok(None);
        }
        let retain = input[0] & 1 == 1;
        let topic = String::from_utf8_lossy(&input[header + 2..header + 2 + length]).into_owned();
        let id = &input[header + 2 + length..header + known];
        let pkid = if qos > 0 { u16::from_be_bytes([id[0], id[1]]) } else { 0 };
        input.advance(header + known);
        self.skip = remaining - known;
        let now = self.skip.min(input.len());
        input.advance(now);
        self.skip -= now;
        Ok(Some(Incoming::Oversized { topic, pkid, retain, bytes: remaining - known }))
    }
}

const PUBLISH: u8 = 3;
const DISCONNECT: u8 = 14;

/// Length of the fixed header and of what follows it (MQTT 3.1.1, 2.2.3), or nothing until the header is complete.
fn fixed_header(input: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut remaining = 0;
    for i in 1..=4 {
        let Some(&byte) = input.get(i) else { return Ok(None) };
        remaining |= usize::from(byte & 0x7F) << (7 * (i - 1));
        if byte & 0x80 == 0 {
            return Ok(Some((i + 1, remaining)));
        }
    }
    Err("a packet length of more than four bytes".to_owned())
}

fn from_v4(packet: v4::Packet) -> Incoming {
    use v4::ConnectReturnCode as Code;
    match packet {
        v4::Packet::ConnAck(ack) => {
            let refused = match ack.code {
                Code::Success => None,
                Code::RefusedProtocolVersion => Some((Refused::ProtocolVersion, "it does not speak MQTT 3.1.1")),
                Code::BadClientId => Some((Refused::ClientId, "it does not accept the client id")),
                Code::ServiceUnavailable => Some((Refused::Unavailable, "its service is unavailable")),
                Code::BadUserNamePassword => Some((Refused::BadLogin, "bad user name or password")),
                Code::NotAuthorized => Some((Refused::NotAuthorized, "not authorised")),
            };
            let refused = refused.map(|(r, text)| (r, text.to_owned()));
            Incoming::ConnAck { refused, receive_max: None, max_packet: None }
        }
        v4::Packet::PubAck(ack) => Incoming::PubAck { pkid: ack.pkid, refused: None },
        v4::Packet::Publish(p) => Incoming::Publish { topic: p.topic, pkid: p.pkid, retain: p.retain, payload: p.payload },
        v4::Packet::SubAck(ack) => {
            Incoming::SubAck { granted: !ack.return_codes.iter().any(|c| matches!(c, v4::SubscribeReasonCode::Failure)) }
        }
        v4::Packet::PingResp => Incoming::PingResp,
        _ => Incoming::Other,
    }
}

fn from_v5(packet: v5::Packet) -> Incoming {
    use v5::ConnectReturnCode as Code;
    match packet {
        v5::Packet::ConnAck(ack) => {
            let reason = ack.properties.as_ref().and_then(|p| p.reason_string.clone());
            let refused = match ack.code {
                Code::Success => None,
                Code::BadUserNamePassword | Code::BadAuthenticationMethod => {
                    Some((Refused::BadLogin, "bad user name or password"))
                }
                Code::NotAuthorized | Code::Banned => Some((Refused::NotAuthorized, "not authorised")),
                Code::BadClientId | Code::ClientIdentifierNotValid => {
                    Some((Refused::ClientId, "it does not accept the client id"))
                }
                Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
                    Some((Refused::ProtocolVersion, "it does not speak MQTT 5"))
                }
                Code::ServerUnavailable | Code::ServerBusy | Code::ServiceUnavailable | Code::ConnectionRateExceeded => {
                    Some((Refused::Unavailable, "its service is unavailable"))
                }
                _ => Some((Refused::Other, "refused")),
            };
            let refused = refused.map(|(r, text)| (r, reason.map_or(text.to_owned(), |s| format!("{text}: {s}"))));
            let properties = ack.properties.as_ref();
            Incoming::ConnAck {
                refused,
                receive_max: properties.and_then(|p| p.receive_max),
                max_packet: properties.and_then(|p| p.max_packet_size),
            }
        }
        v5::Packet::PubAck(ack) => {
            use v5::PubAckReason as Reason;
            let refused = match ack.reason {
                Reason::Success | Reason::NoMatchingSubscribers => None,
                Reason::NotAuthorized => Some("not authorised"),
                Reason::TopicNameInvalid => Some("topic name invalid"),
                Reason::QuotaExceeded => Some("quota exceeded"),
                Reason::PayloadFormatInvalid => Some("payload format invalid"),
                Reason::PacketIdentifierInUse => Some("packet identifier in use"),
                Reason::UnspecifiedError | Reason::ImplementationSpecificError => Some("an error of its own"),
            };
            Incoming::PubAck { pkid: ack.pkid, refused: refused.map(str::to_owned) }
        }
        v5::Packet::Publish(p) => Incoming::Publish {
            topic: String::from_utf8_lossy(&p.topic).into_owned(),
            pkid: p.pkid,
            retain: p.retain,
            payload: p.payload,
        },
        v5::Packet::SubAck(ack) => {
            Incoming::SubAck { granted: ack.return_codes.iter().all(|c| matches!(c, v5::SubscribeReasonCode::Success(_))) }
        }
        v5::Packet::PingResp(_) => Incoming::PingResp,
        _ => Incoming::Other,
    }
}

fn disconnect_reason(code: u8) -> String {
    match code {
        0x00 => "normal disconnection".to_owned(),
        0x87 => "not authorised".to_owned(),
        0x89 => "server busy".to_owned(),
        0x8B => "server shutting down".to_owned(),
        0x8D => "keep-alive time-out".to_owned(),
        0x8E => "another client took over the client id".to_owned(),
        0x95 => "packet too large".to_owned(),
        0x97 => "quota exceeded".to_owned(),
        0x98 => "administrative action".to_owned(),
        other => format!("reason {other:#04x}"),
    }
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(protocol: Protocol) -> Codec {
        Codec::new(protocol, "aoi1".into(), 1000)
    }

    fn message(bytes: usize) -> Message {
        Message {
            topic: "ssds/cmd/trigger".into(),
            payload: Bytes::from(vec![b'x'; bytes]),
            retain: true,
            schema: Some("ssds.command/1"),
            expiry_s: None,
        }
    }

    #[test]
    fn a_publish_reads_back_whatever_pieces_it_comes_in() {
        for protocol in [Protocol::V311, Protocol::V5] {
            let mut codec = codec(protocol);
            let mut wire = BytesMut::new();
            codec.publish(&message(300), 7, &mut wire).unwrap();
            codec.publish(&message(5000), 8, &mut wire).unwrap();
            codec.publish(&message(1500), 9, &mut wire).unwrap();
            Codec::puback(5, &mut wire);
            for piece in [1, 2, 7, 400, 100_000] {
                let (mut input, mut got) = (BytesMut::new(), Vec::new());
                for part in wire.chunks(piece) {
                    input.extend_from_slice(part);
                    while let Some(packet) = codec.decode(&mut input).unwrap() {
                        got.push(packet);
                    }
                }
                assert_eq!(got.len(), 4, "{protocol:?} in pieces of {piece}: {got:?}");
                assert!(matches!(&got[0], Incoming::Publish { pkid: 7, retain: true, payload, .. } if payload.len() == 300));
                assert!(
                    matches!(&got[1], Incoming::Oversized { pkid: 8, topic, bytes, .. } if topic == "ssds/cmd/trigger" && *bytes >= 5000)
                );
                assert!(matches!(&got[2], Incoming::Oversized { pkid: 9, bytes: 1500, .. }));
                assert_eq!(got[3], Incoming::PubAck { pkid: 5, refused: None });
                assert!(input.is_empty());
            }
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let mut codec4 = codec(Protocol::V311);
        let mut wire = BytesMut::from(&[0x20, 2, 0, 4][..]);
        let Some(Incoming::ConnAck { refused: Some((reason, text)), .. }) = codec4.decode(&mut wire).unwrap() else { panic!() };
        assert_eq!((reason, text.as_str()), (Refused::BadLogin, "bad user name or password"));
        let mut codec5 = codec(Protocol::V5);
        // CONNACK, not authorised; receive maximum 20. PUBACK not authorised. DISCONNECT with a reason code alone.
        let mut wire = BytesMut::from(&[0x20, 6, 0, 0x87, 3, 0x21, 0, 20, 0x40, 3, 0, 9, 0x87, 0xE0, 1, 0x8E][..]);
        let Some(Incoming::ConnAck { refused, receive_max, .. }) = codec5.decode(&mut wire).unwrap() else { panic!() };
        assert_eq!((refused.unwrap().0, receive_max), (Refused::NotAuthorized, Some(20)));
        let ack = codec5.decode(&mut wire).unwrap();
        assert_eq!(ack, Some(Incoming::PubAck { pkid: 9, refused: Some("not authorised".into()) }));
        let end = codec5.decode(&mut wire).unwrap();
        assert!(matches!(end, Some(Incoming::Disconnect { taken_over: true, .. })), "{end:?}");
    }

    proptest::proptest! {
        /// Arbitrary bytes from a broker give packets, a wish for more, or an error; never a panic or endless loop.
        #[test]
        fn arbitrary_bytes_are_survived(data: Vec<u8>, five: bool) {
            let mut codec = codec(if five { Protocol::V5 } else { Protocol::V311 });
            let mut input = BytesMut::from(&data[..]);
            loop {
                let before = input.len();
                match codec.decode(&mut input) {
                    Ok(Some(_)) => assert!(input.len() < before),
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }
}
