//! What an operation says on its way, and how it may fail.

use serde::{Deserialize, Serialize};

use super::ProcessInfo;

/// A step of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A process changed.
    Process {
        /// The app's name.
        name: String,
        /// pm2's id.
        pm_id: u32,
        /// What happened to it.
        step: Step,
        /// A detail in words, if there is one.
        detail: Option<String>,
    },
    /// The operation succeeded; nothing follows.
    Done {
        /// The processes it was about, as they are now.
        processes: Vec<ProcessInfo>,
    },
    /// The operation failed; nothing follows.
    Failed(Failure),
}

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A worker was started, and is not ready yet.
    Launching,
    /// It is ready.
    Online,
    /// It was told to leave.
    Stopping,
    /// It is gone.
    Stopped,
    /// A replaced worker keeps its sessions until they end or the deadline comes.
    Draining,
    /// A replaced worker is gone.
    Drained,
    /// It failed.
    Errored,
    /// Its entry was removed.
    Deleted,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its class.
    pub kind: FailureKind,
    /// What failed, on which input, what to do. May have several lines.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The exit code of a command that ends by it. pm2 knows 1 only.
    pub fn exit_code(&self) -> u8 {
        1
    }
}

/// The class of a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// There is no such process, or none at all.
    NotFound,
    /// The request makes no sense.
    Invalid,
    /// The app is running already.
    Present,
    /// A process could not be started.
    Start,
    /// The reload stopped; the old workers stay.
    Reload,
    /// Another operation on the same app is under way.
    Busy,
    /// The daemon is leaving.
    Leaving,
    /// A fault of the daemon.
    Internal,
}
