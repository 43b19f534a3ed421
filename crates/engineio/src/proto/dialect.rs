//! How one client wants its packets: the version it speaks, whether it takes binary, whether it reads scripts (JSONP).
//! Decided by its handshake, and the same for all its requests.

use bytes::Bytes;

use super::packet::PacketError;
use super::payload::{self, Packets};
use super::request::{ErrorCode, Query};
use super::{jsonp, payload_v3};
use crate::{ProtocolVersion, Transport};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) version: ProtocolVersion,
    /// Version 3: whether binary may be sent as it is. (Version 4 says it by the transport.)
    pub(crate) binary: bool,
    /// The number of the callback that polls are answered with.
    pub(crate) jsonp: Option<u32>,
}

/// The answer of a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    pub(crate) kind: AnswerKind,
    /// Whether compressing it is worth trying.
    pub(crate) compress: bool,
}

/// What an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    Text,
    Octets,
    Script,
}

impl Dialect {
    /// Version 4, as everybody speaks it.
    pub(crate) const V4: Dialect = Dialect { version: ProtocolVersion::V4, binary: true, jsonp: None };

    /// What a handshake asks for. A callback is refused unless `allow_jsonp`, or if it is no number.
    pub(crate) fn of(
        query: &Query<'_>,
        version: ProtocolVersion,
        transport: Transport,
        allow_jsonp: bool,
    ) -> Result<Dialect, ErrorCode> {
        let jsonp = match &query.jsonp {
            Some(number) if transport == Transport::Polling => {
                let number = number.parse::<u32>().ok().filter(|_| allow_jsonp);
                Some(number.ok_or(ErrorCode::BadRequest)?)
            }
            _ => None,
        };
        Ok(Dialect { version, binary: !query.base64 && jsonp.is_none(), jsonp })
    }

    /// Whether polls are answered, and bodies sent, as plain version 4.
    pub(crate) fn is_plain(&self) -> bool {
        self.version == ProtocolVersion::V4 && self.jsonp.is_none()
    }

    /// Packets as the answer of a poll; `room`: about how many bytes they are.
    pub(crate) fn answer<'a>(
        &self,
        packets: impl Iterator<Item = (bool, &'a [u8])> + Clone,
        room: usize,
    ) -> Answer {
        let mut body = Vec::with_capacity(room + room / 3 + 16);
        let mut kind = AnswerKind::Text;
        match self.version {
            ProtocolVersion::V4 => {
                for (text, data) in packets {
                    payload::append(&mut body, text, data);
                }
            }
            ProtocolVersion::V3 if packets.clone().any(|(text, _)| !text) => {
                kind = AnswerKind::Octets;
                for (text, data) in packets {
                    payload_v3::append_binary(&mut body, text, data);
                }
            }
            ProtocolVersion::V3 => {
                for (_, data) in packets {
                    payload_v3::append_text(&mut body, data);
                }
            }
        }
        match self.jsonp {
            Some(number) => {
                Answer { body: jsonp::script(number, &body), kind: AnswerKind::Script, compress: true }
            }
            None => Answer { body: body.into(), kind, compress: true },
        }
    }

    /// A single packet that is no message.
    pub(crate) fn control(&self, packet: &'static str) -> Answer {
        if self.is_plain() {
            let body = Bytes::from_static(packet.as_bytes());
            return Answer { body, kind: AnswerKind::Text, compress: false };
        }
        self.answer(std::iter::once((true, packet.as_bytes())), packet.len())
    }

    /// Whether a body of raw bytes (`application/octet-stream`) is allowed.
    pub(crate) fn takes_octets(&self) -> bool {
        self.version == ProtocolVersion::V3 && self.jsonp.is_none()
    }

    /// The packets of a request's body.
    pub(crate) fn read(&self, body: Bytes, octets: bool) -> Result<Packets, PacketError> {
        let body = match self.jsonp {
            Some(_) => jsonp::form(&body).ok_or(PacketError::Form)?,
            None => body,
        };
        match self.version {
            ProtocolVersion::V4 => Ok(Packets::v4(body)),
            ProtocolVersion::V3 if octets => Ok(Packets::v3_binary(body)),
            ProtocolVersion::V3 => Packets::v3_text(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V3: Dialect = Dialect { version: ProtocolVersion::V3, binary: true, jsonp: None };

    fn of(query: &str, allow_jsonp: bool) -> Result<Dialect, ErrorCode> {
        Dialect::of(&Query::parse(query), ProtocolVersion::V3, Transport::Polling, allow_jsonp)
    }

    #[test]
    fn the_handshake_decides() {
        assert_eq!(of("", true), Ok(V3));
        assert_eq!(of("b64=1", true), Ok(Dialect { binary: false, ..V3 }));
        assert_eq!(of("j=12", true), Ok(Dialect { binary: false, jsonp: Some(12), ..V3 }));
        for refused in ["j=", "j=alert(1)", "j=-1", "j=99999999999"] {
            assert_eq!(of(refused, true), Err(ErrorCode::BadRequest), "{refused}");
        }
        assert_eq!(of("j=1", false), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn answers_are_worded_in_every_dialect() {
        let packets = [(true, &b"4h\xc3\xa9"[..]), (true, b"2")];
        let answer = |dialect: Dialect| {
            let answer = dialect.answer(packets.iter().copied(), 10);
            (String::from_utf8(answer.body.to_vec()).unwrap(), answer.kind)
        };
        assert_eq!(answer(Dialect::V4), ("4h\u{e9}\x1e2".into(), AnswerKind::Text));
        assert_eq!(answer(V3), ("3:4h\u{e9}1:2".into(), AnswerKind::Text));
        let script = Dialect { binary: false, jsonp: Some(3), ..V3 };
        assert_eq!(answer(script), ("___eio[3](\"3:4h\u{e9}1:2\");".into(), AnswerKind::Script));
        assert_eq!(V3.control("6").body, "1:6");
        assert_eq!(Dialect::V4.control("6").body, "6");
        assert_eq!(Dialect { jsonp: Some(0), ..Dialect::V4 }.control("1").body, "___eio[0](\"1\");");
    }

    #[test]
    fn one_binary_packet_makes_the_whole_answer_binary() {
        let packets = [(true, &b"4hello"[..]), (false, &[4, 1, 2, 3, 4])];
        let answer = V3.answer(packets.iter().copied(), 10);
        assert_eq!(answer.kind, AnswerKind::Octets);
        assert_eq!(&answer.body[..], b"\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04");
    }
}
