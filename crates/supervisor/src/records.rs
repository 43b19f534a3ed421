//! Which processes run, on disk: after the daemon was killed, the next one finds those that did not notice. Native workers
//! do notice and leave by themselves; a plain program does not.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::proc;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    boot: String,
    processes: BTreeMap<u32, Record>,
}

/// With the boot, `started` tells a process from a later one of the same number.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    app: String,
    started: u64,
    kill_timeout: u64,
}

/// The running processes, written down at each change.
pub(crate) struct Records {
    path: PathBuf,
    stored: Stored,
}

impl Records {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, stored: Stored { boot: proc::boot_id(), processes: BTreeMap::new() } }
    }

    pub(crate) fn add(&mut self, pid: u32, app: &str, kill_timeout: u64) {
        let Some(started) = proc::start_time(pid) else { return };
        let record = Record { app: app.to_owned(), started, kill_timeout };
        self.stored.processes.insert(pid, record);
        self.write();
    }

    pub(crate) fn remove(&mut self, pid: u32) {
        if self.stored.processes.remove(&pid).is_some() {
            self.write();
        }
    }

    fn write(&self) {
        if let Err(error) = write(&self.path, &self.stored) {
            tracing::warn!(path = %self.path.display(), %error, "cannot note which processes run: after a crash of the \
                daemon they would not be found");
        }
    }
}

fn write(path: &Path, stored: &Stored) -> std::io::Result<()> {
    let text = serde_json::to_vec(stored)?;
    let new = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(&text)?;
    std::fs::rename(new, path)
}

/// Ends what a killed daemon left behind. Returns when it is gone.
pub(crate) async fn end_leftovers(path: &Path) {
    let Ok(text) = std::fs::read(path) else { return };
    let Ok(stored) = serde_json::from_slice::<Stored>(&text) else { return };
    if stored.boot != proc::boot_id() {
        return;
    }
    let ends = stored.processes.into_iter().filter_map(|(pid, record)| {
        let same = proc::start_time(pid) == Some(record.started);
        let group = Pid::from_raw(pid.cast_signed()).filter(|_| same)?;
        tracing::warn!(pid, app = record.app, "left behind by a daemon that was killed: ended");
        Some(tokio::spawn(end(group, Duration::from_millis(record.kill_timeout))))
    });
    for end in ends.collect::<Vec<_>>() {
        let _ = end.await;
    }
}

async fn end(group: Pid, kill_timeout: Duration) {
    let _ = kill_process_group(group, Signal::INT);
    let until = tokio::time::Instant::now() + kill_timeout;
    while proc::group_runs(group) {
        if tokio::time::Instant::now() >= until {
            let _ = kill_process_group(group, Signal::KILL);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
