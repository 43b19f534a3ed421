//! The `sundew` command: reads the command line and calls the command. What a command does is in its module; what the
//! supervisor does is in `sundew-supervisor`.

mod args;
mod daemon;
mod describe;
mod format;
mod logs;
mod nodes;
mod operate;
mod progress;
mod proxy;
mod run;
mod session;
mod start;
mod table;
mod ui;

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use args::{Cli, Command};
use session::Session;
use ui::{Error, Result};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Daemon => run::daemon(),
        Command::Nginx(args) => proxy::nginx(&args.proxy, args.hash).map(|()| ExitCode::SUCCESS),
        Command::Haproxy(args) => proxy::haproxy(&args).map(|()| ExitCode::SUCCESS),
        other => command(&other).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        error.print();
        ExitCode::FAILURE
    })
}

/// A command that talks to the daemon. It waits for one socket, so one thread does.
fn command(command: &Command) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(format!("cannot start: {error}")))?;
    let session = Session::open()?;
    runtime.block_on(async {
        match command {
            Command::Start(args) => start::start(&session, args).await,
            Command::List => session.show_list().await,
            Command::Jlist => operate::jlist(&session).await,
            Command::Describe(targets) => describe::describe(&session, targets).await,
            Command::Logs(args) => logs::logs(&session, args).await,
            Command::Stop(targets) => operate::stop(&session, targets).await,
            Command::Restart(args) => operate::restart(&session, args).await,
            Command::Reload(args) => operate::reload(&session, args).await,
            Command::Scale(args) => operate::scale(&session, args).await,
            Command::Delete(targets) => operate::delete(&session, targets).await,
            Command::Nodes(args) => nodes::nodes(&session, args).await,
            Command::Kill => operate::kill(&session).await,
            Command::Ping => operate::ping(&session).await,
            Command::Run(_) | Command::Daemon | Command::Nginx(_) | Command::Haproxy(_) => Ok(()),
        }
    })
}

/// What clap says, with pm2's exit codes: 1 for everything but help and version.
fn usage(error: &clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
        && args::not_built(name)
    {
        let message = format!("pm2's command `{name}` is not built yet");
        Error::new(message).help("`sundew --help` lists the commands there are").print();
        return ExitCode::FAILURE;
    }
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
