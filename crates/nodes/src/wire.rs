//! What nodes say to each other, as JSON in sealed records. No sockets.

use serde::{Deserialize, Serialize};

/// The version of all this. It is part of the handshake: nodes of different versions do not understand each other, and
/// say so.
pub(crate) const PROTOCOL: u32 = 2;

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Kept over restarts.
    pub(crate) id: String,
    /// Another one after each.
    pub(crate) run: String,
    /// Its number in session ids. None: not known yet.
    pub(crate) number: Option<u8>,
    /// Where it is reached.
    pub(crate) addr: String,
}

/// The first record of who connects: what for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hello {
    /// To carry requests to an app's front door.
    Leg {
        /// The app.
        app: String,
        /// Which of its front doors.
        door: String,
    },
    /// To ask, and to know that the other is there.
    Control(Identity),
}

/// From who connected for control.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Are you there?
    Ping,
    /// Do you have this session?
    Has {
        /// Which question this is.
        ask: u64,
        app: String,
        door: String,
        sid: String,
    },
}

/// From the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// First: who it is.
    Welcome(Identity),
    /// I am.
    Pong,
    /// The answer to that question.
    Has { ask: u64, yes: bool },
}
