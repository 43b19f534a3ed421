//! The parser in force: the built-in one, or the app's.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use sundew_engineio::Frames;

use super::{Outgoing, PacketType, Parser, ParserError};
use crate::ConnectError;
use crate::packet::{self, EmitArgs, Kind, Packet};

#[derive(Clone)]
pub(crate) enum Codec {
    Json,
    Other(Arc<dyn Parser>),
}

impl From<Kind> for PacketType {
    fn from(kind: Kind) -> PacketType {
        match kind {
            Kind::Connect => PacketType::Connect,
            Kind::Disconnect => PacketType::Disconnect,
            Kind::Event => PacketType::Event,
            Kind::Ack => PacketType::Ack,
        }
    }
}

impl Codec {
    /// An event, for one socket or for all recipients of a broadcast.
    #[inline(always)]
    pub(crate) fn event(
        &self,
        nsp: &str,
        ack: Option<u64>,
        event: &str,
        args: impl EmitArgs,
    ) -> Result<Frames, serde_json::Error> {
        match self {
            Codec::Json => packet::event(nsp, ack, event, args),
            Codec::Other(_) => self.frames(Kind::Event, nsp, ack, &Packet::event(event, args)?),
        }
    }

    /// The answer to an event that asked for one.
    pub(crate) fn ack(&self, nsp: &str, id: u64, args: impl EmitArgs) -> Result<Frames, serde_json::Error> {
        match self {
            Codec::Json => packet::ack(nsp, id, args),
            Codec::Other(_) => self.frames(Kind::Ack, nsp, Some(id), &Packet::arguments(args)?),
        }
    }

    /// Frames of a packet whose payload is encoded already.
    pub(crate) fn frames(
        &self,
        kind: Kind,
        nsp: &str,
        ack: Option<u64>,
        packet: &Packet,
    ) -> Result<Frames, serde_json::Error> {
        self.frames_with(kind, nsp, ack, packet, None)
    }

    /// The same, with one more element: `last`, a text without escapes.
    pub(crate) fn frames_with(
        &self,
        kind: Kind,
        nsp: &str,
        ack: Option<u64>,
        packet: &Packet,
        last: Option<&str>,
    ) -> Result<Frames, serde_json::Error> {
        match self {
            Codec::Json => Ok(packet::frames(kind, nsp, ack, packet, last)),
            Codec::Other(parser) => {
                let longer = last.map(|last| packet.with(last)).transpose()?;
                let data = Some(longer.as_ref().unwrap_or(packet));
                let outgoing = Outgoing { kind: kind.into(), nsp, ack, data };
                parser.encode(outgoing).map_err(|error| unwritable(&error))
            }
        }
    }

    /// The answer to CONNECT; with a private id if the session can be recovered.
    pub(crate) fn connect(&self, nsp: &str, sid: &str, pid: Option<&str>) -> Frames {
        #[derive(Serialize)]
        struct Payload<'a> {
            sid: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<&'a str>,
        }
        match self {
            Codec::Json => packet::connect(nsp, sid, pid),
            Codec::Other(parser) => control(&**parser, PacketType::Connect, nsp, Some(&Payload { sid, pid })),
        }
    }

    /// The refusal of CONNECT.
    pub(crate) fn connect_error(&self, nsp: &str, error: &ConnectError) -> Frames {
        match self {
            Codec::Json => packet::connect_error(nsp, error),
            Codec::Other(parser) => {
                control(&**parser, PacketType::ConnectError, nsp, Some(&packet::Refusal::from(error)))
            }
        }
    }

    /// The answer to CONNECT for clients of Socket.IO 2, who know their id.
    pub(crate) fn connect_legacy(&self, nsp: &str) -> Frames {
        match self {
            Codec::Json => packet::connect_legacy(nsp),
            Codec::Other(parser) => control::<()>(&**parser, PacketType::Connect, nsp, None),
        }
    }

    /// The refusal of CONNECT for clients of Socket.IO 2: the data alone, or the message if there is none.
    pub(crate) fn connect_error_legacy(&self, nsp: &str, error: &ConnectError) -> Frames {
        let message = serde_json::Value::from(&*error.message);
        let payload = if error.data.is_null() { &message } else { &error.data };
        match self {
            Codec::Json => packet::connect_error_legacy(nsp, payload),
            Codec::Other(parser) => control(&**parser, PacketType::ConnectError, nsp, Some(payload)),
        }
    }

    /// Takes a socket off its namespace.
    pub(crate) fn disconnect(&self, nsp: &str) -> Frames {
        match self {
            Codec::Json => packet::disconnect(nsp),
            Codec::Other(parser) => control::<()>(&**parser, PacketType::Disconnect, nsp, None),
        }
    }
}

fn control<T: Serialize>(parser: &dyn Parser, kind: PacketType, nsp: &str, data: Option<&T>) -> Frames {
    let written = || {
        let data =
            data.map(|data| Packet::from_parts(serde_json::to_string(data)?, Vec::new())).transpose()?;
        parser.encode(Outgoing { kind, nsp, ack: None, data: data.as_ref() })
    };
    written().unwrap_or_else(|error| {
        tracing::error!(nsp, ?kind, error, "the parser cannot write this packet");
        // No packet: the client cannot read it either, and closes.
        Frames::binary(&[])
    })
}

fn unwritable(error: &ParserError) -> serde_json::Error {
    serde::ser::Error::custom(format_args!("the parser cannot write it: {error}"))
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::Json => "Json",
            Codec::Other(_) => "Other",
        })
    }
}
