//! `run` and the daemon itself: the commands that do not talk to a supervisor but are one.

use std::io::IsTerminal;
use std::process::ExitCode;

use sundew_supervisor::Home;
use sundew_supervisor::ecosystem::{Ecosystem, Flags};
use tracing_subscriber::EnvFilter;

use crate::args::Run;
use crate::session::apps;
use crate::ui::{Error, Look, Result};

/// The variable that says how much the supervisor itself logs.
const LOG: &str = "SUNDEW_LOG";

/// Runs the apps of a file until a signal comes.
pub(crate) fn run(run: &Run) -> Result<ExitCode> {
    let Ecosystem { apps, cluster, .. } = apps(&run.file, &run.choice, &Flags::default())?;
    let home = home()?;
    log();
    runtime()?.block_on(sundew_supervisor::run(home, apps, cluster)).map(ExitCode::from).map_err(failed)
}

/// The daemon: ends when it is told to.
pub(crate) fn daemon() -> Result<ExitCode> {
    let home = home()?;
    log();
    runtime()?.block_on(sundew_supervisor::daemon(home)).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

fn failed(error: sundew_supervisor::DaemonError) -> Error {
    Error::new(error.to_string())
}

fn home() -> Result<Home> {
    Home::from_env().map_err(|error| Error::new(error.to_string()))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    sundew_supervisor::runtime().map_err(|error| Error::new(format!("cannot start: {error}")))
}

/// The supervisor's own log, on standard error: standard output is the apps'.
fn log() {
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let result = if std::io::stderr().is_terminal() {
        subscriber.with_ansi(Look::stderr().coloured()).without_time().try_init()
    } else {
        subscriber.with_ansi(false).try_init()
    };
    // It fails only if there is one already, and then that one serves.
    drop(result);
}
