//! As process 1 of a container: takes the ends of orphans, which nobody else does, and never those of our own children,
//! which tokio waits for.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

use crate::spawn;

/// How soon to look again when one of our own children, whose end tokio is about to take, is in front of the others.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

static OWN: LazyLock<Mutex<HashSet<u32>>> = LazyLock::new(Mutex::default);

fn is_init() -> bool {
    std::process::id() == 1
}

/// A child of ours. Called while [`spawn::spawning`] is held.
pub(crate) fn know(pid: u32) {
    if is_init() {
        OWN.lock().insert(pid);
    }
}

/// Its end was taken.
pub(crate) fn forget(pid: u32) {
    if is_init() {
        OWN.lock().remove(&pid);
    }
}

/// Reaps orphans for as long as this process lives. Does nothing unless it is process 1.
pub(crate) fn start() -> std::io::Result<()> {
    if !is_init() {
        return Ok(());
    }
    let mut children = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            while own_is_in_front() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    });
    Ok(())
}

/// Takes the ends of orphans. Says whether one of our own children keeps it from seeing whether there are more.
fn own_is_in_front() -> bool {
    let _guard = spawn::spawning();
    let own = OWN.lock();
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(pid) = waitid(Id::All, look).ok().and_then(|ended| ended.pid()) {
        if own.contains(&pid.as_raw().cast_unsigned()) {
            return true;
        }
        reap(pid);
    }
    false
}

fn reap(pid: Pid) {
    if let Err(error) = waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        tracing::debug!(%pid, %error, "an orphan's end was taken by somebody else");
    }
}
