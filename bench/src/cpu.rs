//! CPU time of processes, as the scheduler accounts it.

use std::fs;
use std::time::Duration;

/// CPU time used so far by all threads of the processes; one that has ended counts nothing.
pub(crate) fn used(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| used_by(*pid)).sum()
}

fn used_by(pid: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanoseconds = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanoseconds)
}
