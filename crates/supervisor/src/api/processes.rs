//! What the list and `describe` tell of a process.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ecosystem::AppConfig;

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
