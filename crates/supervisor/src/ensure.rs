//! Brings up the daemon of a home from another process, and waits until it answers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::Home;
use crate::client::{Client, ClientError};
use crate::daemon::{DaemonError, io_error};

/// How long a new daemon may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// What is shown of a daemon's log when it did not start, in bytes.
const LOG_EXCERPT: u64 = 2000;

/// Makes sure that a daemon runs: starts one by `command` if there is none, and waits until it answers. The command gets
/// the daemon's log as its standard output and error.
///
/// # Errors
/// See [`DaemonError`].
pub async fn ensure(home: &Home, mut command: Command) -> Result<Client, DaemonError> {
    let client = Client::new(home.clone());
    if client.ping().await.is_ok() {
        return Ok(client);
    }
    home.create()?;
    let path = home.daemon_log();
    let cannot = || format!("cannot write the daemon's log {}", path.display());
    let mut options = OpenOptions::new();
    let log = options.create(true).append(true).mode(0o600).open(&path).map_err(io_error(cannot()))?;
    let from = log.metadata().map_or(0, |meta| meta.len());
    let err = log.try_clone().map_err(io_error(cannot()))?;
    command.stdin(Stdio::null()).stdout(log).stderr(err).env(crate::HOME_ENV, home.path());
    let mut child = command.spawn().map_err(io_error("cannot start the daemon"))?;
    let until = Instant::now() + START_TIMEOUT;
    let mut ended = None;
    loop {
        match client.ping().await {
            Ok(_) => return Ok(client),
            Err(ClientError::NoDaemon { .. }) => {}
            Err(error) => tracing::debug!(%error, "the daemon does not answer yet"),
        }
        // One that lost the race for the lock ends; the winner will answer.
        let status = child.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > until {
            let reason = match ended {
                Some(status) => format!("it ended ({status})"),
                None => format!("it did not answer within {START_TIMEOUT:?}"),
            };
            return Err(DaemonError::NotStarted { reason, log: excerpt(&path, from) });
        }
        ended = status.filter(|status| !status.success() && !lock_is_held(home));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lock_is_held(home: &Home) -> bool {
    let Ok(file) = File::open(home.lock()) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

fn excerpt(path: &std::path::Path, from: u64) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |meta| meta.len());
        let _ = file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_EXCERPT))));
        let _ = file.take(LOG_EXCERPT).read_to_string(&mut text);
    }
    text
}
