//! How clients break the protocol.

use crate::packet::{ParseError, RAW, hides_json, too_deep};
use crate::parser::ParserError;

/// What is handed on as it came may be read by who recurses.
pub(super) fn check_depth(json: &str, most: usize) -> Result<(), Violation> {
    match (too_deep(json, most), hides_json(json)) {
        (true, _) => Err(Violation::TooDeep),
        (_, true) => Err(Violation::HiddenJson),
        (false, false) => Ok(()),
    }
}

/// How a client broke the protocol.
#[derive(Debug, thiserror::Error)]
pub(super) enum Violation {
    #[error(transparent)]
    Packet(#[from] ParseError),
    #[error("the parser cannot read a message: {0}")]
    Parser(#[source] ParserError),
    #[error("a text message came where an attachment was due")]
    AttachmentsMissing,
    #[error("a binary message came without a packet it belongs to")]
    UnexpectedBinary,
    #[error("what was sent is nested deeper than allowed (max_depth)")]
    TooDeep,
    #[error("an object has the key {RAW}, which is none for clients")]
    HiddenJson,
    #[error("a namespace was joined twice")]
    ConnectedTwice,
}
