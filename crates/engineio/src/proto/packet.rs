//! Engine.IO packets: one character of type, then data. The same in versions 3 and 4.

use bytes::{Buf, Bytes};

use crate::{Message, Text};

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    /// `0`: only servers send it; ignored.
    Open,
    /// `1`: the client leaves.
    Close,
    /// `2`: the probe of an upgrade (`2probe`); anywhere else the wrong direction.
    Ping(Bytes),
    /// `3`: answers a ping.
    Pong,
    /// `4`, or a binary frame.
    Message(Message),
    /// `5`: the upgrade is complete.
    Upgrade,
    /// `6`: nothing.
    Noop,
}

/// A packet that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("the packet is empty")]
    Empty,
    #[error("no packet type is called {0:?}")]
    Type(char),
    #[error("the packet is not UTF-8")]
    Utf8,
    #[error("the binary packet is not base64")]
    Base64,
    #[error("a packet is not as long as it says")]
    Length,
    #[error("the form has no field d")]
    Form,
}

/// Reads a packet sent as text.
#[inline(always)]
pub(crate) fn parse_text(mut bytes: Bytes) -> Result<Packet, PacketError> {
    let Some(&kind) = bytes.first() else { return Err(PacketError::Empty) };
    if !matches!(kind, b'0'..=b'6') {
        return Err(PacketError::Type(kind as char));
    }
    // Not sliced, which would share memory that is this packet's alone.
    bytes.advance(1);
    // The type is ASCII, so what follows it is UTF-8 exactly when the whole is.
    let text = Text::from_utf8(bytes).map_err(|_| PacketError::Utf8)?;
    Ok(match kind {
        b'0' => Packet::Open,
        b'1' => Packet::Close,
        b'2' => Packet::Ping(text.into_bytes()),
        b'3' => Packet::Pong,
        b'4' => Packet::Message(Message::Text(text)),
        b'5' => Packet::Upgrade,
        _ => Packet::Noop,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &'static str) -> Result<Packet, PacketError> {
        parse_text(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn every_type_is_read() {
        assert_eq!(parse("0"), Ok(Packet::Open));
        assert_eq!(parse("1"), Ok(Packet::Close));
        assert_eq!(parse("2probe"), Ok(Packet::Ping(Bytes::from_static(b"probe"))));
        assert_eq!(parse("3"), Ok(Packet::Pong));
        assert_eq!(parse("4h\u{e9}"), Ok(Packet::Message(Message::Text("h\u{e9}".into()))));
        assert_eq!(parse("5"), Ok(Packet::Upgrade));
        assert_eq!(parse("6"), Ok(Packet::Noop));
    }

    #[test]
    fn what_is_no_packet_is_an_error() {
        assert_eq!(parse(""), Err(PacketError::Empty));
        assert_eq!(parse("abc"), Err(PacketError::Type('a')));
        assert_eq!(parse_text(Bytes::from_static(b"4\xff")), Err(PacketError::Utf8));
        assert_eq!(parse_text(Bytes::from_static(b"3\xff")), Err(PacketError::Utf8));
    }
}
