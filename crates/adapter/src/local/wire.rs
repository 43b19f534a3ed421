//! The heads of the bus's frames, as JSON; a packet's binary values travel beside it as attachments.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sundew_socketio::adapter::{Operation, Request, Response};

use super::frame::{self, Frame, FrameError};

/// What workers say to each other.
#[derive(Debug)]
pub(super) enum Message {
    Operation { nsp: String, operation: Operation },
    Request { id: u64, nsp: String, timeout: Duration, request: Request },
    Answer { id: u64, response: Response },
    Done { id: u64 },
    Failed { id: u64, why: String },
    Cancel { id: u64 },
}

/// Why a frame could not be made or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
}

/// Short names: they are in every frame. `S` is `&str` to write and `String` to read.
///
/// Externally tagged: the raw JSON in a packet survives no other representation in `serde_json`.
#[derive(Serialize, Deserialize)]
enum Head<S> {
    #[serde(rename = "do")]
    Operation { nsp: S, op: Operation },
    #[serde(rename = "ask")]
    Request { id: u64, nsp: S, timeout_ms: u64, req: Request },
    #[serde(rename = "answer")]
    Answer { id: u64, res: Response },
    #[serde(rename = "done")]
    Done { id: u64 },
    /// In the place of `done`. A worker that does not know it ignores it, and its request ends with its timeout.
    #[serde(rename = "failed")]
    Failed { id: u64, why: S },
    /// From the one who asked: nobody waits for the answer any more. A worker that does not know it answers in vain.
    #[serde(rename = "cancel")]
    Cancel { id: u64 },
}

pub(super) fn operation(nsp: &str, operation: &Operation) -> Result<Bytes, WireError> {
    let mut op = operation.clone();
    let attachments = op.packet_mut().map(|packet| packet.take_attachments()).unwrap_or_default();
    encode(&Head::Operation { nsp, op }, &attachments)
}

pub(super) fn request(id: u64, nsp: &str, mut req: Request, timeout: Duration) -> Result<Bytes, WireError> {
    let attachments = req.packet_mut().map(|packet| packet.take_attachments()).unwrap_or_default();
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    encode(&Head::Request { id, nsp, timeout_ms, req }, &attachments)
}

pub(super) fn answer(id: u64, mut res: Response) -> Result<Bytes, WireError> {
    let attachments = res.packet_mut().map(|packet| packet.take_attachments()).unwrap_or_default();
    encode(&Head::<&str>::Answer { id, res }, &attachments)
}

pub(super) fn done(id: u64) -> Result<Bytes, WireError> {
    encode(&Head::<&str>::Done { id }, &[])
}

pub(super) fn failed(id: u64, why: &str) -> Result<Bytes, WireError> {
    encode(&Head::Failed { id, why }, &[])
}

pub(super) fn cancel(id: u64) -> Result<Bytes, WireError> {
    encode(&Head::<&str>::Cancel { id }, &[])
}

fn encode(head: &Head<&str>, attachments: &[Bytes]) -> Result<Bytes, WireError> {
    Ok(frame::encode(&serde_json::to_vec(head)?, attachments)?)
}

pub(super) fn read(frame: Frame) -> Result<Message, WireError> {
    let Frame { head, attachments } = frame;
    let message = match serde_json::from_slice::<Head<String>>(&head)? {
        Head::Operation { nsp, mut op } => {
            if let Some(packet) = op.packet_mut() {
                packet.set_attachments(attachments);
            }
            Message::Operation { nsp, operation: op }
        }
        Head::Request { id, nsp, timeout_ms, mut req } => {
            if let Some(packet) = req.packet_mut() {
                packet.set_attachments(attachments);
            }
            Message::Request { id, nsp, timeout: Duration::from_millis(timeout_ms), request: req }
        }
        Head::Answer { id, mut res } => {
            if let Some(packet) = res.packet_mut() {
                packet.set_attachments(attachments);
            }
            Message::Answer { id, response: res }
        }
        Head::Done { id } => Message::Done { id },
        Head::Cancel { id } => Message::Cancel { id },
        Head::Failed { id, why } => Message::Failed { id, why },
    };
    Ok(message)
}
