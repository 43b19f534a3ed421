//! The body of a polling request or response. Protocol version 4: packets joined by `0x1e`, binary as `b` + base64;
//! version 3 is in `payload_v3`.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::packet::{Packet, PacketError, parse_text};
use super::payload_v3;
use crate::Message;

/// Between two packets.
pub(crate) const SEPARATOR: u8 = 0x1e;

/// Node writes padding and reads both.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a request body packet by packet. Ends after the first that cannot be read.
///
/// Packets are read when they are asked for: a body of the allowed size may hold half a million of them.
#[derive(Debug, Clone)]
pub(crate) struct Packets {
    rest: Option<Bytes>,
    form: Form,
}

/// How a body is divided.
#[derive(Debug, Clone, Copy)]
enum Form {
    V4,
    V3Text,
    V3Binary,
}

/// A body of at most this size is looked at for being a lone heartbeat.
const SMALL: usize = 16;

impl Packets {
    pub(crate) fn v4(body: Bytes) -> Packets {
        Packets { rest: Some(body), form: Form::V4 }
    }

    /// Version 3, text. Checked to be UTF-8 once: its lengths are in characters.
    pub(crate) fn v3_text(body: Bytes) -> Result<Packets, PacketError> {
        std::str::from_utf8(&body).map_err(|_| PacketError::Utf8)?;
        Ok(Packets { rest: Some(body), form: Form::V3Text })
    }

    pub(crate) fn v3_binary(body: Bytes) -> Packets {
        Packets { rest: Some(body), form: Form::V3Binary }
    }

    /// The packet, if it is a single one without a message: a heartbeat, most of the time.
    pub(crate) fn single_control(&self) -> Option<Packet> {
        let body = self.rest.as_ref().filter(|body| body.len() <= SMALL)?;
        match (self.form, body.first()) {
            (Form::V4, Some(b'4' | b'b')) => return None,
            (Form::V4, Some(_)) if body.contains(&SEPARATOR) => return None,
            _ => {}
        }
        let mut packets = self.clone();
        match (packets.next(), packets.next()) {
            (Some(Ok(Packet::Message(_))), _) => None,
            (Some(Ok(packet)), None) => Some(packet),
            _ => None,
        }
    }

    fn next_v3(
        &mut self,
        take: fn(&mut Bytes) -> Option<Result<Packet, PacketError>>,
    ) -> Option<Result<Packet, PacketError>> {
        let mut body = self.rest.take()?;
        if body.is_empty() {
            return Some(Err(PacketError::Empty));
        }
        let packet = take(&mut body)?;
        if packet.is_ok() && !body.is_empty() {
            self.rest = Some(body);
        }
        Some(packet)
    }
}

impl Iterator for Packets {
    type Item = Result<Packet, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.form {
            Form::V4 => {}
            Form::V3Text => return self.next_v3(payload_v3::next_text),
            Form::V3Binary => return self.next_v3(payload_v3::next_binary),
        }
        let mut body = self.rest.take()?;
        let packet = match separator(&body) {
            Some(at) => {
                let packet = body.split_to(at);
                self.rest = Some(body.slice(1..));
                packet
            }
            None => body,
        };
        let packet = parse_packet(packet);
        if packet.is_err() {
            self.rest = None;
        }
        Some(packet)
    }
}

fn separator(body: &[u8]) -> Option<usize> {
    body.iter().position(|&byte| byte == SEPARATOR)
}

/// Reads a packet sent as text, which may be binary: on any transport, as Node reads it.
#[inline(always)]
pub(crate) fn parse_packet(bytes: Bytes) -> Result<Packet, PacketError> {
    match bytes.first() {
        Some(b'b') => {
            let data = BASE64.decode(&bytes[1..]).map_err(|_| PacketError::Base64)?;
            Ok(Packet::Message(Message::Binary(data.into())))
        }
        _ => parse_text(bytes),
    }
}

/// Appends one packet to a response body.
pub(crate) fn append(body: &mut Vec<u8>, text: bool, payload: &[u8]) {
    if !body.is_empty() {
        body.push(SEPARATOR);
    }
    if text {
        body.extend_from_slice(payload);
    } else {
        body.push(b'b');
        let start = body.len();
        body.resize(start + payload.len().div_ceil(3) * 4, 0);
        // The slice has exactly the room base64 needs.
        let written = BASE64.encode_slice(payload, &mut body[start..]).unwrap_or(0);
        body.truncate(start + written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &'static str) -> Vec<Result<Packet, PacketError>> {
        Packets::v4(Bytes::from_static(body.as_bytes())).collect()
    }

    fn text(text: &str) -> Result<Packet, PacketError> {
        Ok(Packet::Message(Message::Text(text.into())))
    }

    #[test]
    fn packets_are_split_and_binary_is_decoded() {
        let binary = Ok(Packet::Message(Message::Binary(Bytes::from_static(&[1, 2, 3, 4]))));
        assert_eq!(all("4hello"), [text("hello")]);
        assert_eq!(
            all("4a\x1e3\x1ebAQIDBA==\x1e4b"),
            [text("a"), Ok(Packet::Pong), binary.clone(), text("b")]
        );
        assert_eq!(all("bAQIDBA"), [binary]);
    }

    #[test]
    fn a_packet_may_be_binary_as_base64() {
        let parse = |packet: &'static str| parse_packet(Bytes::from_static(packet.as_bytes()));
        let binary = |data: &'static [u8]| Ok(Packet::Message(Message::Binary(Bytes::from_static(data))));
        assert_eq!(parse("bAQIDBA=="), binary(&[1, 2, 3, 4]));
        assert_eq!(parse("b"), binary(&[]));
        assert_eq!(parse("b!!"), Err(PacketError::Base64));
        assert_eq!(parse("4b"), text("b"));
        assert_eq!(parse(""), Err(PacketError::Empty));
    }

    #[test]
    fn reading_stops_at_the_first_error() {
        assert_eq!(all("4a\x1eabc\x1e4b"), [text("a"), Err(PacketError::Type('a'))]);
        assert_eq!(all(""), [Err(PacketError::Empty)]);
        assert_eq!(all("4a\x1e"), [text("a"), Err(PacketError::Empty)]);
        assert_eq!(all("b!!"), [Err(PacketError::Base64)]);
    }

    #[test]
    fn a_single_pong_is_seen_at_once() {
        let single = |body: &'static str| Packets::v4(Bytes::from_static(body.as_bytes())).single_control();
        assert_eq!(single("3"), Some(Packet::Pong));
        assert_eq!(single("1"), Some(Packet::Close));
        for body in ["", "4x", "bAQ==", "3\x1e4x", "x"] {
            assert_eq!(single(body), None);
        }
        let v3 = |body: &'static str| Packets::v3_text(body.into()).unwrap().single_control();
        assert_eq!(v3("1:2"), Some(Packet::Ping(Bytes::new())));
        assert_eq!(v3("1:1"), Some(Packet::Close));
        for body in ["", "2:4x", "1:22:4x", "9:2", "x"] {
            assert_eq!(v3(body), None);
        }
    }

    #[test]
    fn packets_are_joined() {
        let mut body = Vec::new();
        append(&mut body, true, b"4hello");
        append(&mut body, false, &[1, 2, 3, 4]);
        append(&mut body, false, &[]);
        assert_eq!(body, b"4hello\x1ebAQIDBA==\x1eb");
    }
}
