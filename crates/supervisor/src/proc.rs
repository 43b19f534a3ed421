//! What the system tells about a process: identity, use, sockets. Read when asked, never on a timer.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::sync::LazyLock;
use std::time::Instant;

use rustix::process::{Pid, test_kill_process_group};

use crate::api::Monit;

/// When a process started, in clock ticks since boot: with its id and the boot, this names it for good.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    stat(pid)?.split(' ').nth(19)?.parse().ok()
}

/// Names this run of the system.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Whether the numbers in `/proc` are those this process sees. In a process namespace without a `/proc` of its own they are
/// other processes'.
static PROC_IS_OURS: LazyLock<bool> = LazyLock::new(|| {
    let own = std::fs::read_link("/proc/self");
    own.is_ok_and(|own| own.to_str() == Some(std::process::id().to_string().as_str()))
});

/// The fields of `/proc/PID/stat` after the name (which may hold anything), from the state on.
fn stat(pid: u32) -> Option<String> {
    if !*PROC_IS_OURS {
        return None;
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text[text.rfind(')')? + 1..].trim().to_owned())
}

/// Whether any process of a group still runs. Those that ended and were not waited for do not count: in a container
/// without an init nobody may ever do so.
pub(crate) fn group_runs(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    if !*PROC_IS_OURS {
        return true;
    }
    let group = group.as_raw_nonzero().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return true };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(stat).any(|stat| {
        let mut fields = stat.split(' ');
        fields.next() != Some("Z") && fields.nth(1) == Some(group.as_str())
    })
}

/// The files a process has open.
pub(crate) fn open_files(pid: u32) -> Option<u64> {
    if !*PROC_IS_OURS {
        return None;
    }
    let folder = format!("/proc/{pid}/fd");
    // Linux 6.2 and later tell the number without listing them.
    match std::fs::metadata(&folder).ok()?.len() {
        0 => Some(std::fs::read_dir(&folder).ok()?.count() as u64),
        number => Some(number),
    }
}

/// The TCP addresses a process listens on by itself.
pub(crate) fn listens_on(pid: u32) -> Vec<String> {
    if !*PROC_IS_OURS {
        return Vec::new();
    }
    let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let sockets: Vec<String> = fds
        .flatten()
        .filter_map(|fd| {
            let target = std::fs::read_link(fd.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let Ok(table) = std::fs::File::open(format!("/proc/{pid}/net/{table}")) else { continue };
        // The kernel lists what listens first. Of the rest there may be a hundred thousand lines, which nobody waits for.
        for line in std::io::BufReader::new(table).lines().skip(1).map_while(Result::ok) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            // Local address, state (0A: LISTEN), inode.
            let (Some(local), Some(&"0A"), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
            else {
                break;
            };
            let port = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok());
            if let (true, Some(port)) = (sockets.iter().any(|socket| socket == inode), port) {
                ports.push(format!("port {port}"));
            }
        }
    }
    ports.sort();
    ports.dedup();
    ports
}

/// Turns running totals into rates: keeps the last sample of each process.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    last: HashMap<u32, Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    ticks: u64,
    at: Instant,
    cpu: f32,
}

/// Samples closer than this repeat the last rate: clock ticks are too coarse for less.
const SAMPLE_GAP: std::time::Duration = std::time::Duration::from_millis(200);

impl Sampler {
    /// What `pid` uses now. `started` is where the first rate counts from.
    pub(crate) fn sample(&mut self, pid: u32, started: Instant) -> Monit {
        let Some(stat) = stat(pid) else { return Monit::default() };
        let field = |index: usize| stat.split(' ').nth(index).and_then(|text| text.parse::<u64>().ok());
        let ticks = field(11).unwrap_or(0) + field(12).unwrap_or(0);
        let memory = field(21).unwrap_or(0) * rustix::param::page_size() as u64;
        let now = Instant::now();
        let before = self.last.get(&pid).copied().unwrap_or(Sample { ticks: 0, at: started, cpu: 0.0 });
        let elapsed = now.duration_since(before.at);
        if elapsed < SAMPLE_GAP && self.last.contains_key(&pid) {
            return Monit { memory, cpu: before.cpu };
        }
        let seconds =
            ticks.saturating_sub(before.ticks) as f32 / rustix::param::clock_ticks_per_second() as f32;
        let cpu = (seconds / elapsed.as_secs_f32().max(0.01) * 1000.0).round() / 10.0;
        self.last.insert(pid, Sample { ticks, at: now, cpu });
        Monit { memory, cpu }
    }

    /// Forgets a process that ended.
    pub(crate) fn forget(&mut self, pid: u32) {
        self.last.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let pid = std::process::id();
        assert!(start_time(pid).unwrap() > 0);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!("port {}", listener.local_addr().unwrap().port());
        assert!(listens_on(pid).contains(&port));
        drop(listener);
        assert!(!listens_on(pid).contains(&port));
        assert!(Sampler::default().sample(pid, Instant::now()).memory > 100_000);
        assert_eq!(start_time(0), None);
    }
}
