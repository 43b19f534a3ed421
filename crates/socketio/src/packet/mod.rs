//! Packets of protocol v5 (<https://socket.io/docs/v4/socket-io-protocol/>): reading, writing, and the arguments in
//! them. Payloads stay raw JSON until somebody names the type to read. No sockets, no IO.

mod args;
mod binary;
mod decode;
mod depth;
mod emit;
mod encode;
mod hidden;
mod placeholders;
mod plain;
mod spread;

pub(crate) use args::from_payload;
pub use args::{Args, DataError};
pub(crate) use decode::{EventName, Header, Kind, ParseError, RESERVED, check, parse};
pub(crate) use depth::too_deep;
pub use emit::EmitArgs;
pub(crate) use encode::{
    Refusal, ack, connect, connect_error, connect_error_legacy, connect_legacy, disconnect, event, frames,
};
pub(crate) use hidden::{RAW, hides_json};

pub(crate) use placeholders::check_placeholders;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sundew_engineio::Text;

/// Copies them: what they are views of is let go.
fn detach(attachments: &mut [Bytes]) {
    for attachment in attachments {
        *attachment = Bytes::copy_from_slice(attachment);
    }
}

/// What an event or an acknowledgement carries, encoded: a JSON array and the binary values that were lifted out of
/// it. An event's array starts with its name.
///
/// In the JSON, `{"_placeholder":true,"num":N}` stands for attachment N.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Packet {
    json: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Bytes>,
}

impl Packet {
    /// Encodes an event.
    ///
    /// # Errors
    /// `args` do not serialize to JSON.
    pub fn event(event: &str, args: impl EmitArgs) -> Result<Packet, serde_json::Error> {
        encode::to_packet(Some(event), args)
    }

    /// Encodes the arguments of an acknowledgement.
    ///
    /// # Errors
    /// `args` do not serialize to JSON.
    pub fn arguments(args: impl EmitArgs) -> Result<Packet, serde_json::Error> {
        encode::to_packet(None, args)
    }

    /// From the JSON array, as [`json`](Packet::json) gave it, and the attachments.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn from_parts(json: String, attachments: Vec<Bytes>) -> Result<Packet, serde_json::Error> {
        Ok(Packet { json: RawValue::from_string(json)?, attachments })
    }

    /// The JSON array.
    pub fn json(&self) -> &str {
        self.json.get()
    }

    /// The binary values.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Takes the binary values out, for a codec that carries them beside the rest.
    pub fn take_attachments(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.attachments)
    }

    /// Puts them back.
    pub fn set_attachments(&mut self, attachments: Vec<Bytes>) {
        self.attachments = attachments;
    }

    /// The name and the arguments of an event; `None` if it is none.
    pub(crate) fn to_event(&self) -> Option<(String, Args)> {
        let (name, rest) = decode::name(self.json()).ok()?;
        let text = Text::from(self.json().to_owned());
        Some((name.of(self.json()).to_owned(), Args::new(text, 0, Some(rest), self.attachments.clone())))
    }

    /// Its binary values in memory of their own.
    pub(crate) fn detach(&mut self) {
        detach(&mut self.attachments);
    }

    /// Its bytes on the wire, without heads and frames.
    pub(crate) fn size(&self) -> usize {
        self.json().len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// The same with one more element: a text without escapes.
    pub(crate) fn with(&self, last: &str) -> Result<Packet, serde_json::Error> {
        let elements = self.json().strip_suffix(']').unwrap_or_default();
        Packet::from_parts(format!("{elements},\"{last}\"]"), self.attachments.clone())
    }

    /// Whether the last element of the array is a text.
    pub(crate) fn ends_in_text(&self) -> bool {
        self.json().strip_suffix(']').is_some_and(|elements| elements.trim_end().ends_with('"'))
    }

    /// The JSON and the binary values.
    pub(crate) fn into_parts(self) -> (String, Vec<Bytes>) {
        (Box::<str>::from(self.json).into(), self.attachments)
    }

    /// The values of an acknowledgement.
    pub(crate) fn into_args(self) -> Args {
        Args::new(Text::from(String::from(Box::<str>::from(self.json))), 0, None, self.attachments)
    }
}
