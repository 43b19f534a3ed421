//! The command line: pm2's commands, flags and other names. What they do is elsewhere.

mod start;
#[cfg(test)]
mod tests;

use clap::{Args, Parser, Subcommand};
use sundew_supervisor::api::Scale;

pub(crate) use start::Start;

/// Runs Socket.IO services on every core: supervises the workers and brings each session to the one that owns it.
#[derive(Debug, Parser)]
#[command(name = "sundew", version, arg_required_else_help = true, infer_subcommands = false)]
#[command(after_help = "The daemon of these commands lives in $SUNDEW_HOME (default ~/.sundew).")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the apps of a file in the foreground: for containers and systemd
    Run(Run),
    /// Start the apps of a file, a program, or what was stopped
    Start(Box<Start>),
    /// Show the processes
    #[command(visible_aliases = ["ls", "l", "ps", "status"])]
    List,
    /// Print the processes as JSON, in the shape of pm2
    Jlist,
    /// Show everything about processes
    #[command(visible_aliases = ["desc", "info", "show"])]
    Describe(Targets),
    /// Show the logs and follow them
    #[command(visible_alias = "log")]
    Logs(Logs),
    /// Stop processes and keep them in the list
    Stop(Targets),
    /// Stop processes and start them again: their sessions are lost
    Restart(Restart),
    /// Replace workers one by one, without a failed request
    Reload(Reload),
    /// Change the number of instances of an app
    Scale(ScaleArgs),
    /// Stop processes and remove them from the list
    #[command(visible_alias = "del")]
    Delete(Targets),
    /// Show the other hosts of the cluster, and the traffic between them
    Nodes(Nodes),
    /// Print an nginx configuration for apps whose workers have ports of their own
    Nginx(Nginx),
    /// Print an HAProxy configuration for them
    Haproxy(Proxy),
    /// Stop everything and the daemon
    Kill,
    /// Say whether the daemon runs
    Ping,
    /// The daemon itself; `start` runs it
    #[command(hide = true)]
    Daemon,
}

/// What a command is about.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// Ids, names, namespaces, `all`, or an ecosystem file
    #[arg(required = true, value_name = "ID|NAME|all|FILE")]
    pub(crate) targets: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The ecosystem file; `-` is standard input
    pub(crate) file: String,
    #[command(flatten)]
    pub(crate) choice: Choice,
}

/// Flags about a file as a whole.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// Add the variables of `env_NAME` in the file
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// Take these apps of the file only
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) choice: Choice,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Return when the old workers are gone too
    #[arg(long)]
    pub(crate) wait: bool,
}

/// What a proxy's configuration is written from.
#[derive(Debug, Args)]
pub(crate) struct Proxy {
    /// The ecosystem file; `-` is standard input
    pub(crate) file: String,
    /// This app of the file only
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    /// Add the variables of `env_NAME` in the file
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// The port the proxy listens on; a second app gets the next one
    #[arg(long, value_name = "PORT", default_value_t = 8000, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) listen: u16,
    /// The host with the workers, as the proxy reaches it; this one if not given
    #[arg(long, value_name = "HOST")]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Nginx {
    #[command(flatten)]
    pub(crate) proxy: Proxy,
    /// How a client's worker is chosen: `ip_hash`, or `hash $remote_addr consistent`
    #[arg(long, value_enum, default_value_t = Hash::Ip)]
    pub(crate) hash: Hash,
}

/// How nginx chooses by the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Hash {
    /// ip_hash
    Ip,
    /// hash $remote_addr consistent
    Consistent,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// The app's name
    pub(crate) app: String,
    /// The number of instances, or how many more or fewer
    #[arg(value_name = "N|+N|-N", allow_hyphen_values = true)]
    pub(crate) number: Scale,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Ids, names or namespaces; all if none is given
    #[arg(value_name = "ID|NAME")]
    pub(crate) targets: Vec<String>,
    /// How many of the last lines to show first, per file
    #[arg(long, default_value_t = 15, value_name = "N")]
    pub(crate) lines: u32,
    /// Show what is stored and end
    #[arg(long)]
    pub(crate) nostream: bool,
    /// Print the lines alone, without the name before them
    #[arg(long)]
    pub(crate) raw: bool,
    /// Standard error only
    #[arg(long)]
    pub(crate) err: bool,
    /// Standard output only
    #[arg(long, conflicts_with = "err")]
    pub(crate) out: bool,
}

/// pm2's commands that are not built: they get an answer that says so.
const NOT_BUILT: &[&str] = &[
    "attach",
    "autoinstall",
    "cleardump",
    "conf",
    "config",
    "create",
    "dashboard",
    "deepUpdate",
    "deploy",
    "dump",
    "ecosystem",
    "env",
    "expose",
    "flush",
    "get",
    "id",
    "imonit",
    "init",
    "inspect",
    "install",
    "link",
    "logrotate",
    "login",
    "logout",
    "monit",
    "monitor",
    "multiset",
    "open",
    "package",
    "pid",
    "plus",
    "prettylist",
    "profile:cpu",
    "profile:mem",
    "publish",
    "pull",
    "reloadLogs",
    "report",
    "reset",
    "resurrect",
    "save",
    "send",
    "sendSignal",
    "serve",
    "set",
    "slist",
    "startOrGracefulReload",
    "startOrReload",
    "startOrRestart",
    "startup",
    "trigger",
    "uninstall",
    "unlink",
    "unmonitor",
    "unset",
    "unstartup",
    "update",
    "updatePM2",
];

/// Whether a word is a pm2 command that Sundew knows and does not have.
pub(crate) fn not_built(command: &str) -> bool {
    NOT_BUILT.contains(&command)
}
