//! How a connection's bytes become packets: as a websocket's frames, or as those of WebTransport.

use bytes::{Bytes, BytesMut};

use super::websocket::{self, Item};
#[cfg(feature = "webtransport")]
use super::webtransport;
use crate::CloseReason;

/// The decoder of one connection.
#[derive(Debug)]
pub(crate) enum Framing {
    Websocket(websocket::Decoder),
    #[cfg(feature = "webtransport")]
    WebTransport(webtransport::Decoder),
}

/// The peer broke a rule of the framing.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Why the session ends.
    pub(crate) reason: CloseReason,
    /// Tells a websocket.
    pub(crate) frame: Bytes,
    /// Which rule it was, for what is logged.
    pub(crate) rule: Box<str>,
}

impl Framing {
    /// Whether there are frames beside those with packets: pings, and one to close with.
    pub(crate) fn is_websocket(&self) -> bool {
        matches!(self, Framing::Websocket(_))
    }

    /// Whether there is nothing to decode once all that was read is used up.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Framing::Websocket(decoder) => decoder.is_idle(),
            #[cfg(feature = "webtransport")]
            Framing::WebTransport(_) => false,
        }
    }

    /// As [`websocket::Decoder::absorb`].
    pub(crate) fn absorb(&mut self, input: &mut [u8]) -> usize {
        match self {
            Framing::Websocket(decoder) => decoder.absorb(input),
            #[cfg(feature = "webtransport")]
            Framing::WebTransport(decoder) => decoder.absorb(input),
        }
    }

    /// As [`websocket::Decoder::decode`].
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Item>, Broken> {
        match self {
            Framing::Websocket(decoder) => decoder.decode(input).map_err(|violation| Broken {
                reason: CloseReason::TransportError,
                frame: violation.close_frame(),
                rule: violation.to_string().into(),
            }),
            #[cfg(feature = "webtransport")]
            Framing::WebTransport(decoder) => decoder.decode(input).map_err(|error| Broken {
                reason: CloseReason::ParseError,
                frame: Bytes::new(),
                rule: error.to_string().into(),
            }),
        }
    }

    /// What is half-read, for a connection that goes to another process: only a websocket's can.
    pub(crate) fn half_read(&self) -> Vec<u8> {
        match self {
            Framing::Websocket(decoder) => decoder.half_read(),
            #[cfg(feature = "webtransport")]
            Framing::WebTransport(_) => Vec::new(),
        }
    }
}
