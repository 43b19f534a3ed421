//! The body of a polling request or response, protocol version 4: packets joined by `0x1e`, binary as `b` + base64.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::packet::{Packet, PacketError, parse_text};
use crate::Message;

/// Between two packets.
pub(crate) const SEPARATOR: u8 = 0x1e;

/// Node writes padding and reads both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a request body packet by packet. Ends after the first that cannot be read.
///
/// Packets are read when they are asked for: a body of the allowed size may hold half a million of them.
#[derive(Debug)]
pub(crate) struct Packets(Option<Bytes>);

impl Packets {
    pub(crate) fn new(body: Bytes) -> Packets {
        Packets(Some(body))
    }

    /// The packet, if the body is a single one without a message: a pong, most of the time.
    pub(crate) fn single_control(body: &Bytes) -> Option<Packet> {
        match body.first() {
            Some(b'4' | b'b') | None => None,
            Some(_) if body.contains(&SEPARATOR) => None,
            Some(_) => parse_text(body.clone()).ok(),
        }
    }
}

impl Iterator for Packets {
    type Item = Result<Packet, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut body = self.0.take()?;
        let packet = match separator(&body) {
            Some(at) => {
                let packet = body.split_to(at);
                self.0 = Some(body.slice(1..));
                packet
            }
            None => body,
        };
        let packet = decode_packet(packet);
        if packet.is_err() {
            self.0 = None;
        }
        Some(packet)
    }
}

fn separator(body: &[u8]) -> Option<usize> {
    body.iter().position(|&byte| byte == SEPARATOR)
}

fn decode_packet(bytes: Bytes) -> Result<Packet, PacketError> {
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
        Packets::new(Bytes::from_static(body.as_bytes())).collect()
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
    fn reading_stops_at_the_first_error() {
        assert_eq!(all("4a\x1eabc\x1e4b"), [text("a"), Err(PacketError::Type('a'))]);
        assert_eq!(all(""), [Err(PacketError::Empty)]);
        assert_eq!(all("4a\x1e"), [text("a"), Err(PacketError::Empty)]);
        assert_eq!(all("b!!"), [Err(PacketError::Base64)]);
    }

    #[test]
    fn a_single_pong_is_seen_at_once() {
        let single = |body: &'static str| Packets::single_control(&Bytes::from_static(body.as_bytes()));
        assert_eq!(single("3"), Some(Packet::Pong));
        assert_eq!(single("1"), Some(Packet::Close));
        for body in ["", "4x", "bAQ==", "3\x1e4x", "x"] {
            assert_eq!(single(body), None);
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
