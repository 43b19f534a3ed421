//! Brings up the daemon when a command needs one: this program again, away from the terminal.

use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sundew_supervisor::Home;
use sundew_supervisor::client::{Client, ClientError};

use crate::progress::Progress;
use crate::ui::{Error, Result};

/// How long a daemon may take until it answers.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(20);
/// How much of the daemon's log is shown if it does not come up, in bytes.
const TAIL: u64 = 2000;

/// Makes sure that a daemon answers.
pub(crate) async fn ensure(home: &Home, client: &Client) -> Result {
    match client.ping().await {
        Ok(_) => return Ok(()),
        Err(ClientError::NoDaemon { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    home.create().map_err(|error| Error::new(error.to_string()))?;
    let progress = Progress::new(format!("starting the daemon in {}", home.path().display()));
    let path = home.daemon_log();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let log = log.map_err(|error| Error::new(format!("cannot write {}: {error}", path.display())))?;
    let before = log.metadata().map_or(0, |data| data.len());
    let mut child = spawn(home, log)?;
    let started = Instant::now();
    let mut ended = None;
    loop {
        match client.ping().await {
            Ok(_) => return Ok(()),
            Err(ClientError::NoDaemon { .. } | ClientError::Lost) => {}
            Err(error) => return Err(error.into()),
        }
        // One that has ended may have met another one that was started at the same time: that one will answer.
        if ended.is_none() {
            ended = child.try_wait().ok().flatten().map(|status| (status, Instant::now()));
        }
        if let Some((status, when)) = ended
            && when.elapsed() > Duration::from_secs(1)
        {
            drop(progress);
            return Err(failed(format!("the daemon did not start: {status}"), home, before));
        }
        if started.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            drop(progress);
            let message = format!("the daemon does not answer after {} s", DEADLINE.as_secs());
            return Err(failed(message, home, before));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn spawn(home: &Home, log: std::fs::File) -> Result<Child> {
    let program = std::env::current_exe()
        .map_err(|error| Error::new(format!("cannot find the sundew program: {error}")))?;
    let errors =
        log.try_clone().map_err(|error| Error::new(format!("cannot open the daemon's log: {error}")))?;
    Command::new(&program)
        .arg("daemon")
        // The folder this was typed in may be unmounted while the daemon lives.
        .current_dir("/")
        .env(sundew_supervisor::HOME_ENV, home.path())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| Error::new(format!("cannot start {}: {error}", program.display())))
}

fn failed(message: String, home: &Home, before: u64) -> Error {
    let said = tail(home, before).unwrap_or_default();
    let said = said.trim();
    let message = if said.is_empty() { message } else { format!("{message}. It said:\n{said}") };
    Error::new(message).help(format!("its log is {}", home.daemon_log().display()))
}

/// What the daemon wrote since.
fn tail(home: &Home, before: u64) -> std::io::Result<String> {
    let mut log = std::fs::File::open(home.daemon_log())?;
    let end = log.metadata()?.len();
    log.seek(SeekFrom::Start(before.max(end.saturating_sub(TAIL))))?;
    let mut said = Vec::new();
    log.take(TAIL).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}
