//! What is asked for: operations, and logs.

use serde::{Deserialize, Serialize};
use sundew_nodes::ClusterConfig;

use super::Target;
use crate::ecosystem::AppConfig;

/// What to do with an app that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfPresent {
    /// Start it again with the new configuration, as `start FILE` does.
    Restart,
    /// Start it again if it is stopped, refuse if the same program is running under this name, as `start PROGRAM` does.
    Refuse,
    /// Replace its workers one by one with the new configuration, as `reload FILE` does.
    Reload,
    /// Add more processes beside it (`--force`).
    Add,
}

/// Starts apps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartRequest {
    /// The apps, with everything resolved.
    pub apps: Vec<AppConfig>,
    /// For those that are there already.
    pub if_present: IfPresent,
    /// The daemon's part in a cluster of several hosts.
    #[serde(default)]
    pub cluster: Option<ClusterConfig>,
}

/// An operation on processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRequest {
    /// Which.
    pub target: Target,
    /// Wait until replaced workers are gone too (`reload --wait`).
    #[serde(default)]
    pub wait: bool,
}

/// Changes the number of instances of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleRequest {
    /// The app's name.
    pub app: String,
    /// How.
    pub to: Scale,
}

/// A number of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// `N`.
    To(u32),
    /// `+N`.
    Up(u32),
    /// `-N`.
    Down(u32),
}

impl std::str::FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (make, digits): (fn(u32) -> Self, &str) = match text.as_bytes().first() {
            Some(b'+') => (Self::Up, &text[1..]),
            Some(b'-') => (Self::Down, &text[1..]),
            _ => (Self::To, text),
        };
        let number = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
        number.map(make).ok_or_else(|| format!("{text:?} is not a number of instances: use N, +N or -N"))
    }
}

/// Which log lines to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsRequest {
    /// Of which processes.
    pub target: Target,
    /// How many of the last stored lines first, per file. Bounded by the daemon at [`MAX_TAIL_LINES`].
    pub lines: u32,
    /// Go on with new ones.
    pub follow: bool,
}

/// The most stored lines that are read back, per file.
pub const MAX_TAIL_LINES: u32 = 10_000;

/// Where a log line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Sundew itself, about the log: lines were lost, a file cannot be written.
    Notice,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The app's name.
    pub name: String,
    /// pm2's id; `None` for a stored line of a file that several processes share.
    pub pm_id: Option<u32>,
    /// Where it comes from.
    pub stream: Stream,
    /// As stored, so with the date if one is configured.
    pub text: String,
}
