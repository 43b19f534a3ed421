//! As process 1 of a container: takes the ends of orphans, which nobody else does, and never those of our own children,
//! which tokio waits for.

use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::Mutex;
use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::{proc, spawn};

static OWN: LazyLock<Mutex<HashSet<u32>>> = LazyLock::new(Mutex::default);

/// A child of ours. Called while [`spawn::spawning`] is held.
pub(crate) fn know(pid: u32) {
    if std::process::id() == 1 {
        OWN.lock().insert(pid);
    }
}

/// Its end was taken.
pub(crate) fn forget(pid: u32) {
    if std::process::id() == 1 {
        OWN.lock().remove(&pid);
    }
}

/// Reaps orphans for as long as this process lives. Does nothing unless it is process 1.
pub(crate) fn start() -> std::io::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    let mut children = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            reap();
        }
    });
    Ok(())
}

fn reap() {
    let _guard = spawn::spawning();
    let own = OWN.lock();
    for pid in proc::zombies().into_iter().filter(|pid| !own.contains(pid)) {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}
