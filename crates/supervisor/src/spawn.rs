//! Starts a process: its environment, its group, its pipes, its end of the channel. What happens to it is in `worker.rs`.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use parking_lot::{Mutex, MutexGuard};
use tokio::process::{Child, Command};

use crate::Home;
use crate::ecosystem::{AppConfig, ExecMode};

/// The child's end of the channel: the first descriptor after the standard ones, so that nothing is inherited above it.
pub(crate) const CHANNEL_FD: i32 = 3;
/// The child's end of the pipe that connections come from, if it has one.
pub(crate) const HANDOVER_FD: i32 = 4;

/// Which process of the app it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) pm_id: u32,
    pub(crate) slot: u16,
    pub(crate) restarts: u32,
}

/// What a process gets for its link.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    /// Becomes [`CHANNEL_FD`].
    pub(crate) fd: Option<OwnedFd>,
    /// Becomes [`HANDOVER_FD`].
    pub(crate) handover: Option<OwnedFd>,
    pub(crate) vars: Vec<(String, String)>,
    /// Before the interpreter's own arguments.
    pub(crate) interpreter_args: Vec<String>,
}

/// Held while a child is started and until it is known: who reaps orphans holds it too, and so never takes the end of a
/// child that is not known yet.
static SPAWNING: Mutex<()> = Mutex::new(());

/// See [`SPAWNING`].
pub(crate) fn spawning() -> MutexGuard<'static, ()> {
    SPAWNING.lock()
}

/// Starts it. `known` hears the process id before anybody
/// can reap it.
pub(crate) fn spawn(
    config: &AppConfig,
    identity: Identity,
    home: &Home,
    inheritance: Inheritance,
    known: impl FnOnce(u32),
) -> Result<Child, String> {
    let mut command = match config.interpreter.split_first() {
        Some((interpreter, args)) => {
            let mut command = Command::new(interpreter);
            command.args(&inheritance.interpreter_args).args(args).arg(&config.script);
            command
        }
        None => Command::new(&config.script),
    };
    command
        .args(&config.args)
        .current_dir(&config.cwd)
        .env_clear()
        .envs(environment(config, identity, home))
        .envs(inheritance.vars)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group: signals of the terminal are for the supervisor, and its whole tree can be ended.
        .process_group(0)
        .kill_on_drop(false);
    let fds = [(inheritance.fd, CHANNEL_FD), (inheritance.handover, HANDOVER_FD)];
    let mappings: Vec<_> =
        fds.into_iter().filter_map(|(fd, child_fd)| Some(FdMapping { parent_fd: fd?, child_fd })).collect();
    if !mappings.is_empty() {
        command.fd_mappings(mappings).map_err(|error| format!("cannot pass the channel on: {error}"))?;
    }
    let _guard = spawning();
    let child = command.spawn().map_err(|error| explain(config, &error))?;
    if let Some(pid) = child.id() {
        known(pid);
    }
    Ok(child)
}

/// What a process finds in its environment besides its own: pm2's names, because programs read them.
fn environment(config: &AppConfig, identity: Identity, home: &Home) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = config.env.clone().into_iter().collect();
    let mut set = |name: &str, value: String| all.push((name.to_owned(), value));
    let mode = match config.exec_mode {
        ExecMode::Cluster => "cluster_mode",
        ExecMode::Fork => "fork_mode",
    };
    set("name", config.name.clone());
    set("namespace", config.namespace.clone());
    set("pm_id", identity.pm_id.to_string());
    set("exec_mode", mode.to_owned());
    set("status", "launching".to_owned());
    set("pm_exec_path", config.script.display().to_string());
    set("pm_cwd", config.cwd.display().to_string());
    set("restart_time", identity.restarts.to_string());
    set("instances", config.instances.to_string());
    set("PM2_HOME", home.path().display().to_string());
    set("NODE_APP_INSTANCE", identity.slot.to_string());
    set(&config.instance_var, identity.slot.to_string());
    if let Some(port) = config.port {
        set("PORT", port.to_string());
    }
    all
}

/// Why it could not be started, and what to do.
fn explain(config: &AppConfig, error: &io::Error) -> String {
    let script = config.script.display();
    let runs = match config.interpreter.first() {
        Some(interpreter) => format!("{interpreter} (the interpreter of {script})"),
        None => script.to_string(),
    };
    if !config.cwd.is_dir() {
        return format!("cannot start in {}: no such folder. Check `cwd`", config.cwd.display());
    }
    match error.kind() {
        io::ErrorKind::NotFound if config.script.exists() && config.interpreter.is_empty() => {
            format!("cannot start {script}: the program named in its first line (#!) does not exist")
        }
        io::ErrorKind::NotFound => format!("cannot start {runs}: no such file"),
        io::ErrorKind::PermissionDenied => {
            format!("cannot start {runs}: it is not executable. Try: chmod +x {script}")
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("cannot start {runs}: it is neither a program nor a script with #! in its first line")
        }
        _ => format!("cannot start {runs}: {error}"),
    }
}
