//! The command line: pm2's commands, flags and other names. What they do is elsewhere.

use clap::{Args, Parser, Subcommand};
use sundew_supervisor::api::Scale;
use sundew_supervisor::ecosystem::{Flag, Flags};

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
pub(crate) struct Start {
    /// An ecosystem file, a program, or ids and names of processes that are in the list; ecosystem.config.js or pm2.json
    /// if nothing is given
    #[arg(value_name = "FILE|PROGRAM|NAME")]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Start it even if the same program runs under the same name
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
    /// Arguments of the program
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

/// Keys of the ecosystem file as flags: they go before the file. Values are read as in the file.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Keys of the ecosystem file")]
pub(crate) struct Keys {
    /// Workers: a number, or max for one per CPU
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    instances: Option<String>,
    /// The name in the list
    #[arg(short, long)]
    name: Option<String>,
    /// A name for a group of apps
    #[arg(long)]
    namespace: Option<String>,
    /// Working folder
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// What runs the program; none runs it directly
    #[arg(long, value_name = "PROGRAM")]
    interpreter: Option<String>,
    /// The port; of another program than Node.js, each instance gets a PORT of its own behind it
    #[arg(long, value_name = "N")]
    port: Option<String>,
    /// Run it in fork mode: supervised, not routed
    #[arg(short = 'x', long)]
    execute_command: bool,
    /// Leave out variables of the shell whose name contains one of these
    #[arg(long, value_name = "NAMES")]
    filter_env: Option<String>,
    /// Add the name of --env to the app's
    #[arg(long)]
    append_env_to_name: bool,
    /// Arguments of the interpreter
    #[arg(long, visible_alias = "interpreter-args", value_name = "ARGS", allow_hyphen_values = true)]
    node_args: Option<String>,
    /// File for standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// File for standard error
    #[arg(short, long, value_name = "FILE")]
    error: Option<String>,
    /// Put the time before each line, as in "YYYY-MM-DD HH:mm Z"
    #[arg(long, value_name = "FORMAT")]
    log_date_format: Option<String>,
    /// Put the time before each line
    #[arg(long)]
    time: bool,
    /// raw or json
    #[arg(long, value_name = "TYPE")]
    log_type: Option<String>,
    /// One log file for all instances
    #[arg(long)]
    merge_logs: bool,
    /// Store no logs
    #[arg(long)]
    disable_logs: bool,
    /// Do not start it again when it exits
    #[arg(long)]
    no_autorestart: bool,
    /// Exits in a row younger than --min-uptime until it counts as errored
    #[arg(long, value_name = "N")]
    max_restarts: Option<String>,
    /// From when on a run counts as stable
    #[arg(long, value_name = "TIME")]
    min_uptime: Option<String>,
    /// Wait before a restart
    #[arg(long, value_name = "TIME")]
    restart_delay: Option<String>,
    /// First wait before a restart; grows with each
    #[arg(long, value_name = "TIME")]
    exp_backoff_restart_delay: Option<String>,
    /// Exit codes after which it is not started again
    #[arg(long, value_name = "CODES")]
    stop_exit_codes: Option<String>,
    /// From SIGINT to SIGKILL
    #[arg(short, long, value_name = "TIME")]
    kill_timeout: Option<String>,
    /// Wait until the program says that it is ready
    #[arg(long)]
    wait_ready: bool,
    /// Tell a Node.js program to leave by the message "shutdown", not by SIGINT
    #[arg(long)]
    shutdown_with_message: bool,
    /// How long a start may take
    #[arg(long, value_name = "TIME")]
    listen_timeout: Option<String>,
    /// Signal the program only, not its children
    #[arg(long)]
    no_treekill: bool,
}

impl Start {
    /// The flags as the ecosystem reader wants them.
    pub(crate) fn flags(&self) -> Flags {
        let args = (!self.args.is_empty()).then(|| self.args.clone());
        Flags { set: self.keys.set(), args, only: self.choice.only.clone() }
    }
}

impl Keys {
    fn set(&self) -> Vec<Flag> {
        let texts = [
            ("instances", "--instances", &self.instances),
            ("name", "--name", &self.name),
            ("namespace", "--namespace", &self.namespace),
            ("cwd", "--cwd", &self.cwd),
            ("interpreter", "--interpreter", &self.interpreter),
            ("port", "--port", &self.port),
            ("filter_env", "--filter-env", &self.filter_env),
            ("node_args", "--node-args", &self.node_args),
            ("out_file", "--output", &self.output),
            ("error_file", "--error", &self.error),
            ("log_date_format", "--log-date-format", &self.log_date_format),
            ("log_type", "--log-type", &self.log_type),
            ("max_restarts", "--max-restarts", &self.max_restarts),
            ("min_uptime", "--min-uptime", &self.min_uptime),
            ("restart_delay", "--restart-delay", &self.restart_delay),
            ("exp_backoff_restart_delay", "--exp-backoff-restart-delay", &self.exp_backoff_restart_delay),
            ("stop_exit_codes", "--stop-exit-codes", &self.stop_exit_codes),
            ("kill_timeout", "--kill-timeout", &self.kill_timeout),
            ("listen_timeout", "--listen-timeout", &self.listen_timeout),
        ];
        let switches = [
            ("exec_mode", "--execute-command", self.execute_command, "fork"),
            ("append_env_to_name", "--append-env-to-name", self.append_env_to_name, "true"),
            ("time", "--time", self.time, "true"),
            ("merge_logs", "--merge-logs", self.merge_logs, "true"),
            ("disable_logs", "--disable-logs", self.disable_logs, "true"),
            ("autorestart", "--no-autorestart", self.no_autorestart, "false"),
            ("wait_ready", "--wait-ready", self.wait_ready, "true"),
            ("shutdown_with_message", "--shutdown-with-message", self.shutdown_with_message, "true"),
            ("treekill", "--no-treekill", self.no_treekill, "false"),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(key, flag, value)| value.clone().map(|value| Flag { key, flag, value }));
        let switches = switches.into_iter().filter(|(_, _, set, _)| *set);
        texts
            .chain(switches.map(|(key, flag, _, value)| Flag { key, flag, value: value.to_owned() }))
            .collect()
    }

    /// The first flag that is set, for commands in which none makes sense.
    pub(crate) fn first(&self) -> Option<&'static str> {
        self.set().first().map(|flag| flag.flag)
    }
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
        for name in NOT_BUILT {
            assert!(Cli::command().find_subcommand(name).is_none(), "{name} is built");
        }
    }

    fn start(words: &[&str]) -> Start {
        match Cli::try_parse_from(["sundew", "start"].iter().chain(words)).unwrap().command {
            Command::Start(start) => *start,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_keys() {
        let start = start(&["./a", "-i", "-1", "--name", "x", "--no-autorestart", "--", "--flag", "b c"]);
        let flags = start.flags();
        let set: Vec<_> = flags.set.iter().map(|flag| (flag.key, flag.value.as_str())).collect();
        assert_eq!(set, [("instances", "-1"), ("name", "x"), ("autorestart", "false")]);
        assert_eq!(flags.args.unwrap(), ["--flag", "b c"]);
    }

    /// What pm2's users type for a Node.js program.
    #[test]
    fn a_node_program_as_under_pm2() {
        let words = [
            "app.js",
            "-i",
            "max",
            "--name",
            "x",
            "--wait-ready",
            "--listen-timeout",
            "3000",
            "--node-args",
            "--max-old-space-size=512 --trace-gc",
            "--shutdown-with-message",
            "-k",
            "5000",
            "--",
            "--port",
            "80",
        ];
        let start = start(&words);
        assert_eq!(start.what, ["app.js"]);
        let flags = start.flags();
        let set: Vec<_> = flags.set.iter().map(|flag| (flag.key, flag.value.as_str())).collect();
        assert_eq!(
            set,
            [
                ("instances", "max"),
                ("name", "x"),
                ("node_args", "--max-old-space-size=512 --trace-gc"),
                ("kill_timeout", "5000"),
                ("listen_timeout", "3000"),
                ("wait_ready", "true"),
                ("shutdown_with_message", "true"),
            ]
        );
        assert_eq!(flags.args.unwrap(), ["--port", "80"]);
        let fork = self::start(&["app.js", "-x", "--port", "80", "--filter-env", "A B"]).flags();
        let set: Vec<_> = fork.set.iter().map(|flag| (flag.key, flag.value.as_str())).collect();
        assert_eq!(set, [("port", "80"), ("filter_env", "A B"), ("exec_mode", "fork")]);
    }

    #[test]
    fn scale_takes_signs() {
        for (word, expected) in [("4", Scale::To(4)), ("+2", Scale::Up(2)), ("-3", Scale::Down(3))] {
            let Command::Scale(scale) = Cli::try_parse_from(["sundew", "scale", "a", word]).unwrap().command
            else {
                panic!()
            };
            assert_eq!(scale.number, expected);
        }
        let error = Cli::try_parse_from(["sundew", "scale", "a", "lots"]).unwrap_err().to_string();
        assert!(error.contains("lots") && error.contains("N, +N or -N"), "{error}");
    }

    #[test]
    fn other_names_of_commands() {
        for (name, command) in [
            ("ls", "List"),
            ("status", "List"),
            ("l", "List"),
            ("ps", "List"),
            ("desc", "Describe"),
            ("del", "Delete"),
        ] {
            let cli =
                Cli::try_parse_from(["sundew", name, "x"]).or_else(|_| Cli::try_parse_from(["sundew", name]));
            assert!(format!("{:?}", cli.unwrap().command).starts_with(command), "{name}");
        }
    }
}
