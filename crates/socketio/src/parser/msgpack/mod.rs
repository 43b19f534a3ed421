//! The format of npm's `socket.io-msgpack-parser` 3: one MessagePack map per packet, `{type, data, nsp, id}`, binary
//! inside. <https://github.com/socketio/socket.io-msgpack-parser>
//!
//! Arguments are JSON inside the server, so this translates, in one pass each way and without building a tree.

mod read;
#[cfg(test)]
mod tests;
mod write;

use sundew_engineio::{Frames, Message};

use super::{Incoming, Outgoing, Parser, ParserError};

/// How deep arrays and objects may be nested. `serde_json` reads 128 levels; handlers' types sit inside these.
const MAX_DEPTH: usize = 100;

/// The parser of `socket.io-msgpack-parser` (3.x), whose clients are given it as `parser`.
///
/// Smaller than JSON where there are many numbers or binary values, which travel inside the packet. What JSON cannot
/// say arrives as `JSON.stringify` would write it: `undefined`, `NaN` and the infinities as null, a `Date` as its ISO
/// string. An `ArrayBuffer` is binary, as a `Buffer` is.
///
/// ```no_run
/// use sundew_socketio::{SocketIo, parser::Msgpack};
/// let io = SocketIo::builder().parser(Msgpack::new()).build();
/// ```
#[derive(Debug, Clone)]
pub struct Msgpack {
    max_binaries: usize,
}

impl Msgpack {
    /// With the default limits.
    pub fn new() -> Msgpack {
        Msgpack { max_binaries: 1000 }
    }

    /// The most binary values in one packet a client sends. Default 1,000. (`max_attachments` is the JSON parser's: there
    /// each is a message of its own.) A packet with more closes the connection.
    #[must_use]
    pub fn max_binaries(mut self, count: usize) -> Msgpack {
        self.max_binaries = count;
        self
    }
}

impl Default for Msgpack {
    fn default() -> Msgpack {
        Msgpack::new()
    }
}

/// Why a message is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("a text message")]
    Text,
    #[error("it ends early")]
    Truncated,
    #[error("bytes behind its end")]
    Trailing,
    #[error("not a map with text keys")]
    Map,
    #[error("a text is not UTF-8")]
    Utf8,
    #[error("nested deeper than {MAX_DEPTH}")]
    Deep,
    #[error("more binary values than allowed (max_binaries)")]
    Binaries,
    // It would be taken for binary: once for each, however long that is.
    #[error("a key named _placeholder")]
    Placeholder,
    #[error("a byte that starts no value")]
    Marker,
    #[error("no known type")]
    Type,
    #[error("no namespace")]
    Namespace,
    #[error("an id that is no whole number")]
    Id,
}

impl Parser for Msgpack {
    fn decode(&self, message: Message) -> Result<Incoming, ParserError> {
        match message {
            Message::Binary(bytes) => Ok(read::packet(&bytes, self.max_binaries)?),
            Message::Text(_) => Err(Malformed::Text.into()),
        }
    }

    fn encode(&self, packet: Outgoing<'_>) -> Result<Frames, ParserError> {
        Ok(Frames::binary(&write::packet(packet)?))
    }
}

/// What must hold for anything a client sends: driven by the fuzz target, and by a test with the corpus.
#[cfg(any(test, fuzzing))]
pub fn fuzzing(input: &[u8]) {
    let parser = Msgpack::new();
    let decode = |bytes: &[u8]| parser.decode(Message::Binary(bytes::Bytes::copy_from_slice(bytes)));
    let Ok(packet) = decode(input) else { return };
    let outgoing = |packet: &Incoming| {
        let data = packet.data.as_ref();
        write::packet(Outgoing { kind: packet.kind, nsp: &packet.nsp, ack: packet.ack, data })
    };
    if let Some(data) = &packet.data {
        // Bounded: no byte of input costs more than a few of output.
        assert!(data.json().len() <= 64 + input.len() * 40, "{} from {}", data.json().len(), input.len());
    }
    // What was read can be written, and reads as the same again.
    let written = match outgoing(&packet) {
        Ok(written) => written,
        Err(error) => panic!("not writable: {error}: {packet:?}"),
    };
    let again = match decode(&written) {
        Ok(again) => again,
        Err(error) => panic!("not readable: {error}: {packet:?}"),
    };
    assert_eq!((packet.kind, &packet.nsp, packet.ack), (again.kind, &again.nsp, again.ack));
    assert_eq!(outgoing(&again).ok(), Some(written));
}
