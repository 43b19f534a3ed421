//! Writes packets straight into frames: once per emit, and once per broadcast.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::value::RawValue;
use sundew_engineio::{Frames, FramesBuilder};

use super::emit::{EmitArgs, write_array};
use super::{Kind, Packet};
use crate::ConnectError;

/// Room for a typical event without growing.
const TYPICAL: usize = 128;

/// An event, for one socket or for all recipients of a broadcast.
pub(crate) fn event(
    nsp: &str,
    ack: Option<u64>,
    event: &str,
    args: impl EmitArgs,
) -> Result<Frames, serde_json::Error> {
    build(Kind::Event, nsp, ack, Some(event), args)
}

/// The answer to an event that asked for one.
pub(crate) fn ack(nsp: &str, id: u64, args: impl EmitArgs) -> Result<Frames, serde_json::Error> {
    build(Kind::Ack, nsp, Some(id), None, args)
}

#[inline(always)]
fn build(
    kind: Kind,
    nsp: &str,
    ack: Option<u64>,
    event: Option<&str>,
    args: impl EmitArgs,
) -> Result<Frames, serde_json::Error> {
    let mut builder = Frames::builder(TYPICAL);
    let mut attachments = Vec::new();
    head(&mut builder, kind, 0, nsp, ack);
    let start = builder.len();
    write_array(&mut builder, &mut attachments, event, args)?;
    if attachments.is_empty() {
        return Ok(builder.finish());
    }
    // The number of attachments stands before the text it is only known after.
    let end = builder.len();
    let draft = builder.finish();
    let bytes = draft.as_bytes();
    let text = &bytes[bytes.len() - (end - start)..];
    let mut builder = Frames::builder(text.len() + TYPICAL + size(&attachments));
    head(&mut builder, kind, attachments.len(), nsp, ack);
    std::io::Write::write_all(&mut builder, text).map_err(serde_json::Error::io)?;
    Ok(builder.finish_with(&attachments))
}

fn size(attachments: &[Bytes]) -> usize {
    attachments.iter().map(|data| data.len() + 10).sum()
}

/// Frames of a packet that is encoded already; `last`, a text without escapes, is put behind its elements.
pub(crate) fn frames(kind: Kind, nsp: &str, ack: Option<u64>, packet: &Packet, last: Option<&str>) -> Frames {
    let mut builder = Frames::builder(packet.json().len() + TYPICAL + size(packet.attachments()));
    head(&mut builder, kind, packet.attachments().len(), nsp, ack);
    match last.and_then(|last| Some((last, packet.json().strip_suffix(']')?))) {
        Some((last, elements)) => {
            for part in [elements, ",\"", last, "\"]"] {
                builder.push(part);
            }
        }
        None => builder.push(packet.json()),
    }
    builder.finish_with(packet.attachments())
}

/// A packet without a head, for the way to other servers.
pub(crate) fn to_packet(event: Option<&str>, args: impl EmitArgs) -> Result<Packet, serde_json::Error> {
    let (mut json, mut attachments) = (Vec::with_capacity(TYPICAL), Vec::new());
    write_array(&mut json, &mut attachments, event, args)?;
    let json = String::from_utf8(json).map_err(|error| serde::ser::Error::custom(error.utf8_error()))?;
    Ok(Packet { json: RawValue::from_string(json)?, attachments })
}

/// The answer to CONNECT; with a private id if the session can be recovered.
pub(crate) fn connect(nsp: &str, sid: &str, pid: Option<&str>) -> Frames {
    let mut builder = Frames::builder(TYPICAL);
    builder.push("0");
    namespace(&mut builder, nsp);
    builder.push("{\"sid\":\"");
    builder.push(sid);
    if let Some(pid) = pid {
        builder.push("\",\"pid\":\"");
        builder.push(pid);
    }
    builder.push("\"}");
    builder.finish()
}

/// The answer to CONNECT for clients of Socket.IO 2, who know their id.
pub(crate) fn connect_legacy(nsp: &str) -> Frames {
    let mut builder = Frames::builder(nsp.len() + 2);
    builder.push("0");
    namespace(&mut builder, nsp);
    builder.finish()
}

/// The refusal of CONNECT for clients of Socket.IO 2.
pub(crate) fn connect_error_legacy(nsp: &str, payload: &serde_json::Value) -> Frames {
    let mut builder = Frames::builder(TYPICAL);
    builder.push("4");
    namespace(&mut builder, nsp);
    // Writing to a buffer in memory does not fail.
    let _ = write!(builder, "{payload}");
    builder.finish()
}

/// The payload of a refusal. `data` is left out if null.
#[derive(serde::Serialize)]
pub(crate) struct Refusal<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    data: &'a serde_json::Value,
}

impl<'a> From<&'a ConnectError> for Refusal<'a> {
    fn from(error: &'a ConnectError) -> Refusal<'a> {
        Refusal { message: &error.message, data: &error.data }
    }
}

/// The refusal of CONNECT.
pub(crate) fn connect_error(nsp: &str, error: &ConnectError) -> Frames {
    let mut builder = Frames::builder(TYPICAL);
    builder.push("4");
    namespace(&mut builder, nsp);
    if serde_json::to_writer(&mut builder, &Refusal::from(error)).is_err() {
        tracing::error!("a connect error could not be written");
    }
    builder.finish()
}

/// Takes a socket off its namespace.
pub(crate) fn disconnect(nsp: &str) -> Frames {
    let mut builder = Frames::builder(nsp.len() + 2);
    builder.push("1");
    namespace(&mut builder, nsp);
    builder.finish()
}

#[inline(always)]
fn head(builder: &mut FramesBuilder, kind: Kind, attachments: usize, nsp: &str, ack: Option<u64>) {
    let binary = attachments > 0;
    builder.push(match (kind, binary) {
        (Kind::Connect, _) => "0",
        (Kind::Disconnect, _) => "1",
        (Kind::Event, false) => "2",
        (Kind::Ack, false) => "3",
        (Kind::Event, true) => "5",
        (Kind::Ack, true) => "6",
    });
    if binary {
        // Writing to a buffer in memory does not fail.
        let _ = write!(builder, "{attachments}-");
    }
    namespace(builder, nsp);
    if let Some(ack) = ack {
        builder.push(itoa::Buffer::new().format(ack));
    }
}

fn namespace(builder: &mut FramesBuilder, nsp: &str) {
    if nsp != "/" {
        builder.push(nsp);
        builder.push(",");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wire(frames: &Frames) -> Vec<u8> {
        let bytes = frames.as_bytes();
        let length = usize::from(bytes[1]);
        assert!(length < 126 && bytes[2] == b'4');
        bytes[3..2 + length].to_vec()
    }

    fn text(frames: &Frames) -> String {
        String::from_utf8(wire(frames)).unwrap()
    }

    #[test]
    fn as_the_protocol_writes_them() {
        assert_eq!(text(&event("/", None, "hello", (1, "2")).unwrap()), "2[\"hello\",1,\"2\"]");
        assert_eq!(text(&event("/a", Some(7), "x", ()).unwrap()), "2/a,7[\"x\"]");
        assert_eq!(
            text(&ack("/", 456, (1, "2", json!({"3": [false]}))).unwrap()),
            "3456[1,\"2\",{\"3\":[false]}]"
        );
        assert_eq!(text(&connect_legacy("/")), "0");
        assert_eq!(text(&connect_legacy("/a")), "0/a,");
        assert_eq!(text(&connect_error_legacy("/a", &json!("no"))), "4/a,\"no\"");
        assert_eq!(text(&connect_error_legacy("/", &json!({"c": 1}))), "4{\"c\":1}");
        assert_eq!(text(&connect("/", "id", None)), "0{\"sid\":\"id\"}");
        assert_eq!(text(&connect("/a", "id", None)), "0/a,{\"sid\":\"id\"}");
        assert_eq!(text(&connect("/a", "id", Some("private"))), "0/a,{\"sid\":\"id\",\"pid\":\"private\"}");
        assert_eq!(text(&disconnect("/")), "1");
        assert_eq!(text(&disconnect("/a")), "1/a,");
        assert_eq!(
            text(&connect_error("/r", &ConnectError::new("Invalid namespace"))),
            "4/r,{\"message\":\"Invalid namespace\"}"
        );
        assert_eq!(
            text(&connect_error("/", &ConnectError::new("no").with_data(json!({"c": 1})))),
            "4{\"message\":\"no\",\"data\":{\"c\":1}}"
        );
    }

    #[test]
    fn binary_is_counted_and_follows() {
        let bytes = Bytes::from_static(&[1, 2, 3]);
        let frames = event("/a", Some(1), "x", (&bytes, &bytes)).unwrap();
        assert_eq!(frames.packets(), 3);
        assert_eq!(
            text(&frames),
            "52-/a,1[\"x\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]"
        );
        assert!(frames.as_bytes().ends_with(&[0x82, 3, 1, 2, 3, 0x82, 3, 1, 2, 3]));
        let packet = Packet::event("x", (&bytes, &bytes)).unwrap();
        assert_eq!(super::frames(Kind::Event, "/a", Some(1), &packet, None), frames);
    }

    #[test]
    fn packets_survive_a_json_codec() {
        let mut packet = Packet::event("x", (1, Bytes::from_static(b"b"))).unwrap();
        let attachments = packet.take_attachments();
        let head = serde_json::to_string(&packet).unwrap();
        assert_eq!(head, "{\"json\":[\"x\",1,{\"_placeholder\":true,\"num\":0}]}");
        let mut back: Packet = serde_json::from_str(&head).unwrap();
        back.set_attachments(attachments);
        assert_eq!((back.json(), back.attachments()), (packet.json(), &[Bytes::from_static(b"b")][..]));
    }
}
