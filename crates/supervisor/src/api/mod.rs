//! The control API's types, shared by the daemon and the command line.
//!
//! HTTP/1 and JSON over the unix socket of a [`Home`](crate::Home). Reads (`GET`) answer one JSON document. Operations
//! (`POST`) answer a stream of JSON lines: an [`Event`] per step, and one [`Event::Done`] or [`Event::Failed`] as the
//! last. No logic lives here beyond what both sides must agree on.

mod events;
mod processes;
mod requests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use events::{Event, Failure, FailureKind, Step};
pub use processes::{
    Description, Draining, LastExit, Monit, Pm2Env, ProcessInfo, Sessions, Status, SundewInfo, TlsInfo,
    Traffic, WorkerErrors,
};
pub use requests::{
    IfPresent, LogLine, LogsRequest, MAX_TAIL_LINES, Scale, ScaleRequest, StartRequest, Stream, TargetRequest,
};

/// The version of this API. A client and a daemon of different versions say so instead of guessing.
pub const API_VERSION: u32 = 1;

/// What an operation is about: pm2's `id | name | namespace | all`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Every process.
    All,
    /// Processes by id, name or namespace. Text of digits only is an id first and a name if there is no such id.
    These(Vec<String>),
}

impl Target {
    /// Reads command line arguments: `all` anywhere means all.
    pub fn parse<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Self {
        let words: Vec<String> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        if words.iter().any(|word| word == "all") { Self::All } else { Self::These(words) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::These(names) => f.write_str(&names.join(", ")),
        }
    }
}

/// The answer to `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// [`API_VERSION`] of the daemon.
    pub api: u32,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// How long it has run, in milliseconds.
    pub uptime_ms: u64,
}
