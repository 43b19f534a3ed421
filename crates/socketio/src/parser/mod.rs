//! How packets are written into messages: the JSON of protocol v5, or a parser of the app's choice (Node's `parser`
//! option; clients need the same one).
//!
//! Inside the server arguments are JSON with binary beside it ([`Packet`]), whatever the parser: adapters and handlers
//! never see the difference. The built-in JSON parser writes that straight into frames and is reached without a call
//! through a table; others get a [`Packet`] and make one message of it.

pub(crate) mod codec;
#[cfg(feature = "msgpack")]
mod msgpack;

use sundew_engineio::{Frames, Message};

use crate::Packet;

pub(crate) use codec::Codec;
#[cfg(feature = "msgpack")]
pub use msgpack::Msgpack;
#[cfg(all(feature = "msgpack", any(test, fuzzing)))]
pub use msgpack::fuzzing;

/// Why a message cannot be read, or a packet cannot be written.
pub type ParserError = Box<dyn std::error::Error + Send + Sync>;

/// Writes packets into messages and reads them back: one packet, one message. One parser serves all connections of a
/// server ([`Builder::parser`](crate::Builder::parser)), so it keeps nothing of any of them. It is called while events are put
/// in order: it may neither emit nor block.
pub trait Parser: Send + Sync + 'static {
    /// Reads a message a client sent: text or binary. What it returns is checked as every packet is: an event is an array
    /// that starts with a name that is not reserved, and so on. It must bound what it builds from `message` itself, whose
    /// size is at most `max_payload`.
    ///
    /// # Errors
    /// The message is no packet. The connection is closed.
    fn decode(&self, message: Message) -> Result<Incoming, ParserError>;

    /// Writes a packet as one message ([`Frames::text`] or [`Frames::binary`]). Called once per emit, and once per
    /// broadcast, whatever the number of its recipients.
    ///
    /// # Errors
    /// The packet has no form in this format. The emit fails.
    fn encode(&self, packet: Outgoing<'_>) -> Result<Frames, ParserError>;
}

/// What a packet is for. The discriminants are those of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// A client asks to join a namespace, or is told that it has. Its data is an object, or absent.
    Connect = 0,
    /// One side leaves a namespace. No data.
    Disconnect = 1,
    /// An event: an array, its name first.
    Event = 2,
    /// The answer to an event that has an id: an array.
    Ack = 3,
    /// The server refuses a CONNECT: an object. No client sends it.
    ConnectError = 4,
}

impl PacketType {
    /// The type of that number.
    pub fn from_number(number: u64) -> Option<PacketType> {
        Some(match number {
            0 => PacketType::Connect,
            1 => PacketType::Disconnect,
            2 => PacketType::Event,
            3 => PacketType::Ack,
            4 => PacketType::ConnectError,
            _ => return None,
        })
    }
}

/// A packet a client sent.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its type.
    pub kind: PacketType,
    /// The namespace, with its slash.
    pub nsp: String,
    /// The id an acknowledgement is asked for, or answers.
    pub ack: Option<u64>,
    /// The payload.
    pub data: Option<Packet>,
}

/// A packet for clients.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Its type.
    pub kind: PacketType,
    /// The namespace, with its slash.
    pub nsp: &'a str,
    /// The id an acknowledgement is asked for, or answers.
    pub ack: Option<u64>,
    /// The payload.
    pub data: Option<&'a Packet>,
}
