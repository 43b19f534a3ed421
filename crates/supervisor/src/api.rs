//! The control API's types, shared by the daemon and the command line.
//!
//! HTTP/1 and JSON over the unix socket of a [`Home`](crate::Home). Reads (`GET`) answer one JSON document. Operations
//! (`POST`) answer a stream of JSON lines: an [`Event`] per step, and one [`Event::Done`] or [`Event::Failed`] as the
//! last. No logic lives here beyond what both sides must agree on.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sundew_nodes::ClusterConfig;

use crate::ecosystem::AppConfig;

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

/// A process's state, under pm2's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Runs and, for a routed worker, serves.
    #[serde(rename = "online")]
    Online,
    /// Started, not ready yet.
    #[serde(rename = "launching")]
    Launching,
    /// Was told to leave.
    #[serde(rename = "stopping")]
    Stopping,
    /// Not running, on purpose.
    #[serde(rename = "stopped")]
    Stopped,
    /// Not running: it failed too often, or cannot run as configured.
    #[serde(rename = "errored")]
    Errored,
    /// Not running, will be started again after a delay.
    #[serde(rename = "waiting restart")]
    WaitingRestart,
}

impl Status {
    /// pm2's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Launching => "launching",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Errored => "errored",
            Self::WaitingRestart => "waiting restart",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One process, in the shape of pm2's `jlist`, with what is Sundew's own under [`ProcessInfo::sundew`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// The process id; 0 when it does not run.
    pub pid: u32,
    /// The app's name.
    pub name: String,
    /// pm2's id: counted from 0 over all apps.
    pub pm_id: u32,
    /// pm2's description of the process.
    pub pm2_env: Pm2Env,
    /// Sampled when asked for.
    pub monit: Monit,
    /// What pm2 has no place for.
    pub sundew: SundewInfo,
}

/// The part of pm2's `pm2_env` that tools read. The app's environment is not in it: it holds secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pm2Env {
    /// The app's name.
    pub name: String,
    /// The app's namespace.
    pub namespace: String,
    /// The state.
    pub status: Status,
    /// How often it was started again.
    pub restart_time: u32,
    /// Consecutive exits younger than `min_uptime`.
    pub unstable_restarts: u32,
    /// When the running process was started, in milliseconds since 1970; 0 if it never ran.
    pub pm_uptime: u64,
    /// When the entry was made, in milliseconds since 1970.
    pub created_at: u64,
    /// `cluster_mode` or `fork_mode`.
    pub exec_mode: String,
    /// The number of instances of the app.
    pub instances: u32,
    /// The program.
    pub pm_exec_path: String,
    /// Its working folder.
    pub pm_cwd: String,
    /// The file that gets its standard output.
    pub pm_out_log_path: String,
    /// The file that gets its standard error.
    pub pm_err_log_path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What runs the program, or `none`.
    pub exec_interpreter: String,
    /// Whether an exit is followed by a restart.
    pub autorestart: bool,
    /// The value of the instance variable.
    #[serde(rename = "NODE_APP_INSTANCE")]
    pub instance: u32,
    /// The last exit code, if it exited by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// What a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Monit {
    /// Resident memory, in bytes.
    pub memory: u64,
    /// Percent of one core, since the last sample or the start.
    pub cpu: f32,
}

/// Sundew's own part of [`ProcessInfo`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SundewInfo {
    /// The worker's place in its app, from 0.
    pub slot: u16,
    /// Which worker of that place this is.
    pub generation: u8,
    /// `native`, `node`, `port`, or `none` for a program that is supervised and not routed.
    pub kind: String,
    /// Addresses the app is served on.
    pub listening: Vec<String>,
    /// The address that is this worker's alone (`direct`).
    #[serde(default)]
    pub direct: Option<String>,
    /// Where TLS ends at the front door.
    #[serde(default)]
    pub tls: Option<TlsInfo>,
    /// Sessions, as the worker last reported them.
    pub sessions: Sessions,
    /// What the front door gave the running process since it was started.
    #[serde(default)]
    pub traffic: Traffic,
    /// A replaced worker of this place that still keeps its sessions.
    pub draining: Option<Draining>,
    /// How the last process of this place ended.
    pub last_exit: Option<LastExit>,
    /// Why the state is what it is, where that is not obvious.
    pub reason: Option<String>,
    /// Milliseconds until the next start, in state `waiting restart`.
    pub restart_in_ms: Option<u64>,
    /// Milliseconds that the oldest connection handed to the worker has been waiting to be taken: a worker that hangs.
    pub unaccepted_ms: Option<u64>,
    /// Milliseconds for which the worker's event loop has not answered, from when on it counts as stuck.
    #[serde(default)]
    pub stuck_ms: Option<u64>,
    /// Log lines that could not be stored.
    pub log_lines_lost: u64,
}

/// TLS of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsInfo {
    /// Addresses.
    pub listening: Vec<String>,
    /// When the certificates in use were loaded, in milliseconds since the Unix epoch.
    pub loaded_at: u64,
    /// Why newer ones are not used.
    pub error: Option<String>,
}

/// Sessions by transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// All.
    pub total: u32,
    /// On long polling.
    pub polling: u32,
    /// On a websocket.
    pub websocket: u32,
}

/// What a worker was given by the app's front doors since its process was started, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests it is working on now, websockets that run through the front door included.
    pub in_flight: u64,
    /// Connections handed to it that it has not taken yet.
    pub handing_off: u64,
    /// Requests for a new session that it answered, or that were handed over with their connection.
    pub handshakes: u64,
    /// Connections handed over to it.
    pub handed_off: u64,
    /// Requests it answered through the front door.
    pub proxied: u64,
    /// Upgrades that run through the front door.
    pub tunnelled: u64,
    /// What went wrong, by kind.
    pub errors: WorkerErrors,
}

/// What went wrong between a front door and a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerErrors {
    /// Connections that came back from it and were given to others: part of those handed over.
    pub returned: u64,
    /// Requests for which it could not be reached.
    pub unreachable: u64,
    /// Requests it ended without an answer.
    pub unanswered: u64,
    /// Answers that are no HTTP.
    pub invalid: u64,
    /// Answers that ended in the middle.
    pub cut: u64,
    /// Requests whose body or answer stood still for longer than `limits.stallTimeout`.
    pub stalled: u64,
    /// Requests whose client went away before the answer was complete.
    pub client_gone: u64,
}

/// A worker that is being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Its process id.
    pub pid: u32,
    /// Which worker of the slot it is.
    pub generation: u8,
    /// What it still holds.
    pub sessions: Sessions,
    /// Milliseconds until it has to let go.
    pub deadline_ms: u64,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Its exit code, if it ended by one.
    pub code: Option<i32>,
    /// The signal that ended it, by name (`SIGKILL`).
    pub signal: Option<String>,
    /// How long it had run, in milliseconds.
    pub uptime_ms: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// One sentence.
    pub text: String,
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

/// Everything about one process: [`ProcessInfo`] and what only `describe` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// As in the list.
    pub process: ProcessInfo,
    /// How the app is configured, with the values of its environment left out.
    pub config: AppConfig,
    /// The front door's counters, for an app that has one.
    pub front: BTreeMap<String, u64>,
}

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
