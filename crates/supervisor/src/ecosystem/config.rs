//! A fully resolved app: everything the daemon needs and nothing it would have to look up. No parsing here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::options::SundewOptions;

/// Milliseconds, the unit of pm2's time options.
pub type Milliseconds = u64;

/// pm2's `exec_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecMode {
    /// Supervised, not routed (unless it has a port).
    Fork,
    /// The instances share one front door.
    Cluster,
}

/// How connections reach a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Over the channel: a program that uses `sundew::Listener`.
    Native,
    /// Over Node's own channel: a Node.js program that listens as under pm2's cluster.
    Node,
    /// By its own port: any program that listens on `PORT`, of which each instance gets another one.
    Port,
    /// Not at all: the program is supervised only.
    None,
}

/// Where a stream is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFile {
    /// `logs/NAME-out-ID.log` in the daemon's home.
    Default,
    /// Nowhere.
    Off,
    /// An absolute path, as configured: `-ID` is put before its extension unless logs are merged.
    Path(PathBuf),
}

/// How a line is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// As written, behind the date if one is configured.
    Raw,
    /// pm2's `log_type: "json"`.
    Json,
}

/// One app, fully resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppConfig {
    /// `name`.
    pub name: String,
    /// `namespace`.
    pub namespace: String,
    /// The file this app came from, for messages.
    pub file: Option<PathBuf>,
    /// The program or script: an absolute path to an existing file.
    pub script: PathBuf,
    /// What runs `script`, with its own arguments; empty when it is run directly.
    pub interpreter: Vec<String>,
    /// `args`.
    pub args: Vec<String>,
    /// `cwd`, absolute.
    pub cwd: PathBuf,
    /// The environment, complete: nothing of the daemon's own is added.
    pub env: BTreeMap<String, String>,
    /// `exec_mode`.
    pub exec_mode: ExecMode,
    /// How connections reach the workers.
    pub kind: Kind,
    /// `instances`, resolved: at least 1.
    pub instances: u32,
    /// `instance_var`.
    pub instance_var: String,
    /// `port`: sets `PORT`.
    pub port: Option<u16>,
    /// `autorestart`.
    pub autorestart: bool,
    /// `max_restarts`.
    pub max_restarts: u32,
    /// `min_uptime`.
    pub min_uptime: Milliseconds,
    /// `restart_delay`.
    pub restart_delay: Milliseconds,
    /// `exp_backoff_restart_delay`; 0 is off.
    pub exp_backoff_restart_delay: Milliseconds,
    /// `stop_exit_codes`.
    pub stop_exit_codes: Vec<i32>,
    /// `kill_timeout`.
    pub kill_timeout: Milliseconds,
    /// `shutdown_with_message`: a Node.js program is told by the message `shutdown` and not by SIGINT.
    pub shutdown_with_message: bool,
    /// `wait_ready`.
    pub wait_ready: bool,
    /// `listen_timeout`.
    pub listen_timeout: Milliseconds,
    /// `treekill`.
    pub treekill: bool,
    /// `out_file`.
    pub out_file: LogFile,
    /// `error_file`.
    pub error_file: LogFile,
    /// `merge_logs` / `combine_logs`.
    pub merge_logs: bool,
    /// `log_date_format`, or what `time` stands for: dayjs tokens.
    pub log_date_format: Option<String>,
    /// `log_type`.
    pub log_format: LogFormat,
    /// The `sundew` object.
    pub sundew: SundewOptions,
}

/// Where an app written for @socket.io/pm2 is served if nothing says otherwise.
const PM2_PORT: u16 = 8080;

impl AppConfig {
    /// The port of an app that never listens by itself, as those written for @socket.io/pm2: `sundew.port`, else the app's
    /// `PM2_PORT`, else 8080.
    pub fn sticky_port(&self) -> u16 {
        let from_env =
            || self.env.get("PM2_PORT").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        self.sundew.port.or_else(from_env).unwrap_or(PM2_PORT)
    }
}
