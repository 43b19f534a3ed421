//! Payloads of protocol version 3: as text, `<length>:<packet>` with the length in UTF-16 units; as bytes,
//! `<0 text, 1 binary><the length's decimal digits><255><packet>`.

use base64::Engine as _;
use bytes::Bytes;

use super::packet::{Packet, PacketError, parse_text};
use super::payload::BASE64;
use crate::Message;

/// The packet type of messages, as the first byte of binary ones.
pub(crate) const MESSAGE: u8 = 4;
/// More digits than any body that is accepted can need.
const MAX_DIGITS: usize = 10;

/// Appends a packet to a payload of text. Binary was made text when it was queued.
pub(crate) fn append_text(body: &mut Vec<u8>, packet: &[u8]) {
    put_decimal(body, utf16_length(packet), b'0');
    body.push(b':');
    body.extend_from_slice(packet);
}

/// Appends a packet to a payload of bytes. A binary one begins with its type.
pub(crate) fn append_binary(body: &mut Vec<u8>, text: bool, packet: &[u8]) {
    body.push(u8::from(!text));
    put_decimal(body, packet.len(), 0);
    body.push(0xff);
    body.extend_from_slice(packet);
}

fn put_decimal(body: &mut Vec<u8>, number: usize, zero: u8) {
    body.extend(number.to_string().bytes().map(|digit| digit - b'0' + zero));
}

/// UTF-16 units of UTF-8: one per character, two for those of four bytes.
fn utf16_length(text: &[u8]) -> usize {
    text.iter().map(|&byte| units(byte)).sum()
}

/// How many UTF-16 units begin at this byte of UTF-8.
fn units(byte: u8) -> usize {
    match byte {
        0x80..0xc0 => 0,
        0xf0.. => 2,
        _ => 1,
    }
}

/// Takes the first packet of a text payload, which has been found to be UTF-8. `None`: there is no more.
pub(crate) fn next_text(body: &mut Bytes) -> Option<Result<Packet, PacketError>> {
    loop {
        if body.is_empty() {
            return None;
        }
        let packet = match split_text(body) {
            Ok(packet) => packet,
            Err(error) => return Some(Err(error)),
        };
        // Packets of no length are nothing, as in Node.
        if !packet.is_empty() {
            return Some(parse_frame_text(packet));
        }
    }
}

fn split_text(body: &mut Bytes) -> Result<Bytes, PacketError> {
    let colon = body.iter().take(MAX_DIGITS + 1).position(|&byte| byte == b':').ok_or(PacketError::Length)?;
    let length = decimal(&body[..colon], b'0')?;
    let _ = body.split_to(colon + 1);
    let (mut left, mut end) = (length, 0);
    while left > 0 {
        let &byte = body.get(end).ok_or(PacketError::Length)?;
        // A length that ends in the middle of a character is none.
        left = left.checked_sub(units(byte)).ok_or(PacketError::Length)?;
        end += 1;
    }
    while body.get(end).is_some_and(|&byte| units(byte) == 0) {
        end += 1;
    }
    Ok(body.split_to(end))
}

/// Takes the first packet of a binary payload. `None`: there is no more.
pub(crate) fn next_binary(body: &mut Bytes) -> Option<Result<Packet, PacketError>> {
    (!body.is_empty()).then(|| {
        let kind = body[0];
        let end =
            body.iter().take(MAX_DIGITS + 2).position(|&byte| byte == 0xff).ok_or(PacketError::Length)?;
        let length = decimal(body.get(1..end).ok_or(PacketError::Length)?, 0)?;
        if body.len() - end - 1 < length {
            return Err(PacketError::Length);
        }
        let _ = body.split_to(end + 1);
        let packet = body.split_to(length);
        match kind {
            0 => parse_frame_text(packet),
            1 => parse_frame_binary(packet),
            other => Err(PacketError::Type(char::from(other))),
        }
    })
}

fn decimal(digits: &[u8], zero: u8) -> Result<usize, PacketError> {
    if digits.is_empty() {
        return Err(PacketError::Length);
    }
    digits.iter().try_fold(0usize, |number, &digit| {
        let digit = digit.checked_sub(zero).filter(|digit| *digit < 10).ok_or(PacketError::Length)?;
        number.checked_mul(10).and_then(|number| number.checked_add(digit.into())).ok_or(PacketError::Length)
    })
}

/// A packet as text: `b4` and base64 is a binary message.
pub(crate) fn parse_frame_text(packet: Bytes) -> Result<Packet, PacketError> {
    match *packet {
        [b'b', b'4', ref data @ ..] => {
            let data = BASE64.decode(data).map_err(|_| PacketError::Base64)?;
            Ok(Packet::Message(Message::Binary(data.into())))
        }
        _ => parse_text(packet),
    }
}

/// A packet as bytes: only messages have a use for it.
pub(crate) fn parse_frame_binary(mut packet: Bytes) -> Result<Packet, PacketError> {
    match packet.first() {
        Some(&MESSAGE) => Ok(Packet::Message(Message::Binary(packet.split_off(1)))),
        Some(&other) => Err(PacketError::Type(char::from(other))),
        None => Err(PacketError::Empty),
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Packets;
    use super::*;

    fn text(text: &str) -> Result<Packet, PacketError> {
        Ok(Packet::Message(Message::Text(text.into())))
    }

    fn binary(data: &'static [u8]) -> Result<Packet, PacketError> {
        Ok(Packet::Message(Message::Binary(Bytes::from_static(data))))
    }

    fn read(body: &'static str) -> Vec<Result<Packet, PacketError>> {
        Packets::v3_text(Bytes::from_static(body.as_bytes())).unwrap().collect()
    }

    fn read_binary(body: &'static [u8]) -> Vec<Result<Packet, PacketError>> {
        Packets::v3_binary(Bytes::from_static(body)).collect()
    }

    #[test]
    fn text_payloads_are_read() {
        assert_eq!(read("6:4hello"), [text("hello")]);
        assert_eq!(
            read("6:4hello10:b4AQIDBA==1:2"),
            [text("hello"), binary(&[1, 2, 3, 4]), Ok(Packet::Ping(Bytes::new()))]
        );
        // Lengths are UTF-16 units: one for an accent, two for a face.
        assert_eq!(
            read("3:4\u{e9}\u{20ac}3:4\u{1f600}0:1:3"),
            [text("\u{e9}\u{20ac}"), text("\u{1f600}"), Ok(Packet::Pong)]
        );
    }

    #[test]
    fn lengths_that_are_wrong_end_the_payload() {
        let wrong = Err(PacketError::Length);
        for body in ["abc", "7:4hello", "2:4\u{1f600}", ":4", "x:4", "1", "12345678901:4", "-1:4"] {
            assert_eq!(read(body), std::slice::from_ref(&wrong), "{body}");
        }
        assert_eq!(read("1:21:"), [Ok(Packet::Ping(Bytes::new())), wrong.clone()]);
        assert_eq!(read(""), [Err(PacketError::Empty)]);
        assert_eq!(read("0:"), [], "nothing, as Node reads it");
        assert_eq!(read("1:x"), [Err(PacketError::Type('x'))]);
        assert_eq!(read("3:b4!"), [Err(PacketError::Base64)]);
        assert!(Packets::v3_text(Bytes::from_static(b"2:4\xff")).is_err());
    }

    #[test]
    fn binary_payloads_are_read() {
        assert_eq!(
            read_binary(b"\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04"),
            [text("hello"), binary(&[1, 2, 3, 4])]
        );
        assert_eq!(read_binary(b"\x00\x03\xff4\xc3\xa9"), [text("\u{e9}")]);
        for body in [&b"\x00\x06\xff4hel"[..], b"\x00\xff4", b"\x00\x0a\xff4", b"\x01", b"\xff", b"\x00\x01"]
        {
            assert_eq!(read_binary(body), [Err(PacketError::Length)], "{body:?}");
        }
        assert_eq!(read_binary(b"\x02\x01\xff4"), [Err(PacketError::Type('\u{2}'))]);
        assert_eq!(read_binary(b"\x01\x01\xff\x02"), [Err(PacketError::Type('\u{2}'))]);
        assert_eq!(read_binary(b"\x01\x00\xff"), [Err(PacketError::Empty)]);
        assert_eq!(read_binary(b""), [Err(PacketError::Empty)]);
    }

    #[test]
    fn what_is_written_is_read() {
        let packets = [&b"4hello"[..], b"2", "4\u{e9}\u{1f600}".as_bytes()];
        let (mut as_text, mut as_binary) = (Vec::new(), Vec::new());
        for packet in packets {
            append_text(&mut as_text, packet);
            append_binary(&mut as_binary, true, packet);
        }
        append_binary(&mut as_binary, false, &[MESSAGE, 9]);
        assert_eq!(Packets::v3_text(as_text.into()).unwrap().count(), 3);
        let last = Packets::v3_binary(as_binary.into()).last();
        assert_eq!(last, Some(binary(&[9])));
    }
}
