//! Brings up the daemon when a command needs one: this program again, away from the terminal.

use std::process::Command;

use crate::progress::Progress;
use crate::session::Session;
use crate::ui::{Error, Result};

/// Makes sure that a daemon answers.
pub(crate) async fn ensure(session: &Session) -> Result {
    if session.client.ping().await.is_ok() {
        return Ok(());
    }
    let program = std::env::current_exe()
        .map_err(|error| Error::new(format!("cannot find the sundew program: {error}")))?;
    let progress = Progress::new(format!("starting the daemon in {}", session.home.path().display()));
    let mut command = Command::new(program);
    command.arg("daemon");
    let result = sundew_supervisor::ensure(&session.home, command).await;
    drop(progress);
    let help = || format!("its log is {}", session.home.daemon_log().display());
    result.map(drop).map_err(|error| Error::new(error.to_string()).help(help()))
}
