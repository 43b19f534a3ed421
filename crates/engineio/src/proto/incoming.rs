//! What a frame of a websocket, or of WebTransport, says to a session or to a probe.

use bytes::Bytes;

use super::packet::{Packet, PacketError};
use super::websocket::{CLOSE, Item, Violation, close, pong};
use super::{payload, payload_v3};
use crate::{CloseReason, Message, ProtocolVersion};

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// For the session, or the probe, to obey.
    Packet(Packet),
    /// A ping of the websocket's own: to be answered with this frame.
    Ping(Bytes),
    /// Nothing to be done.
    Nothing,
    /// The connection is over; the peer is told so with this frame.
    Over(CloseReason, Bytes),
    /// It is no packet.
    Unreadable(PacketError),
}

impl Incoming {
    /// Reads a frame of a client of that version.
    #[inline(always)]
    pub(crate) fn of(item: Item, version: ProtocolVersion) -> Incoming {
        let packet = match (item, version) {
            (Item::Text(text), ProtocolVersion::V4) => payload::parse_packet(text),
            (Item::Binary(data), ProtocolVersion::V4) => Ok(Packet::Message(Message::Binary(data))),
            (Item::Text(text), ProtocolVersion::V3) => payload_v3::parse_frame_text(text),
            (Item::Binary(data), ProtocolVersion::V3) => payload_v3::parse_frame_binary(data),
            (Item::Ping(data), _) => return Incoming::Ping(pong(&data)),
            (Item::Pong, _) => return Incoming::Nothing,
            (Item::Close(code), _) => {
                return Incoming::Over(CloseReason::TransportClose, code.map_or(CLOSE, close));
            }
        };
        match packet {
            Ok(packet) => Incoming::Packet(packet),
            Err(PacketError::Utf8) => {
                Incoming::Over(CloseReason::TransportError, Violation::Utf8.close_frame())
            }
            Err(error) => Incoming::Unreadable(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProtocolVersion::{V3, V4};

    fn text(text: &'static [u8]) -> Item {
        Item::Text(Bytes::from_static(text))
    }

    fn binary(data: &'static [u8]) -> Item {
        Item::Binary(Bytes::from_static(data))
    }

    fn message(data: &'static [u8]) -> Incoming {
        Incoming::Packet(Packet::Message(Message::Binary(Bytes::from_static(data))))
    }

    #[test]
    fn messages_are_read_in_their_versions_words() {
        for version in [V4, V3] {
            let hello = Incoming::of(text(b"4hello"), version);
            assert_eq!(hello, Incoming::Packet(Packet::Message(Message::Text("hello".into()))));
        }
        assert_eq!(Incoming::of(binary(b"\x04\x01"), V4), message(b"\x04\x01"));
        assert_eq!(Incoming::of(binary(b"\x04\x01"), V3), message(b"\x01"), "its first byte is its type");
        assert_eq!(Incoming::of(text(b"bAQ=="), V4), message(b"\x01"));
        assert_eq!(Incoming::of(text(b"b4AQ=="), V3), message(b"\x01"));
    }

    #[test]
    fn what_is_no_packet_is_told_from_what_is_no_text() {
        for version in [V4, V3] {
            assert_eq!(Incoming::of(text(b""), version), Incoming::Unreadable(PacketError::Empty));
            assert_eq!(Incoming::of(text(b"x"), version), Incoming::Unreadable(PacketError::Type('x')));
            let over = Incoming::Over(CloseReason::TransportError, close(1007));
            assert_eq!(Incoming::of(text(b"4\xff"), version), over);
        }
        assert_eq!(Incoming::of(binary(b""), V3), Incoming::Unreadable(PacketError::Empty));
    }

    #[test]
    fn the_websockets_own_frames_are_answered_as_rfc_6455_says() {
        let ping = Incoming::of(Item::Ping(Bytes::from_static(b"data")), V4);
        assert_eq!(ping, Incoming::Ping(pong(b"data")));
        assert_eq!(Incoming::of(Item::Pong, V4), Incoming::Nothing);
        let over = |code| Incoming::of(Item::Close(code), V4);
        assert_eq!(over(None), Incoming::Over(CloseReason::TransportClose, CLOSE));
        assert_eq!(over(Some(1001)), Incoming::Over(CloseReason::TransportClose, close(1001)));
    }
}
