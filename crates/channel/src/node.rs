//! What the supervisor and a Node worker say to each other: the supervisor is the primary of Node's own cluster, so
//! that an unmodified `server.listen(8080)` gets its connections from us.
//!
//! The protocol is Node's, internal and undocumented, and has not changed in what matters here from Node 16 to 26.
//! The messages are in `message.rs`. Reading: `deframe.rs` finds where one ends, `v8.rs` and `json.rs` read its two
//! spellings into `fields.rs`, `decode.rs` says what it means. Writing: `encode.rs` spells, `outbox.rs` says what may be
//! written when. Only `channel.rs` and `stream.rs` touch a socket. With the preload, connections go past all this:
//! `handover.rs`.

mod channel;
mod decode;
mod deframe;
mod encode;
mod fields;
#[cfg(test)]
mod frame_tests;
mod handover;
mod json;
mod message;
mod outbox;
#[cfg(test)]
mod outbox_tests;
mod stream;
mod v8;

/// The messages in a stream that comes in these pieces.
#[cfg(any(test, fuzzing))]
pub(crate) fn frames<'a>(
    serialization: Serialization,
    limit: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<FromWorker> {
    let mut deframer = deframe::Deframer::new(serialization, limit);
    let mut messages = Vec::new();
    for piece in pieces {
        deframer.push(piece);
        while let Some(piece) = deframer.next() {
            messages.push(match piece {
                deframe::Piece::Frame(frame) => decode::decode(serialization, frame),
                deframe::Piece::TooLong(bytes) => FromWorker::TooLong { bytes },
            });
        }
    }
    messages
}

pub use channel::{Inbox, Limits, NodeChannel, SendError, WhyNot, env, pair};
pub use handover::{Carries, HandPipe, NotSent, Verdict, hand_pipe, hand_pipe_env};
pub use message::{AddressType, FromWorker, Handed, Query, Requester, Serialization, SockName, ToWorker};
