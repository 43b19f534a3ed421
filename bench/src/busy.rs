//! Keeps every CPU awake with a process of idle priority.
//!
//! CPUs that share a core are faster while the other one sleeps, and waking one costs; so a server that leaves CPUs idle is
//! measured on another machine than one that uses them all. These processes get only what nobody else wants, and so put
//! all servers on the same machine.

use std::process::{Child, Command, Stdio};

use anyhow::Context;

pub(crate) struct Busy(Vec<Child>);

impl Busy {
    /// One per CPU if `wanted`, else none.
    pub(crate) fn start(wanted: bool) -> anyhow::Result<Self> {
        let cpus = if wanted { std::thread::available_parallelism()?.get() } else { 0 };
        let mut busy = Busy(Vec::new());
        for _ in 0..cpus {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0", "sh", "-c", "while :; do :; done"]).stdin(Stdio::null());
            busy.0.push(command.spawn().context("cannot run chrt (of util-linux)")?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
