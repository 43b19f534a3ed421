//! `start`, with the keys of the ecosystem file as flags.

use clap::Args;
use sundew_supervisor::ecosystem::{Flag, Flags};

use super::Choice;

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
