//! What processes cost, as the scheduler accounts it, and what the machine did not get.

use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the load generator has looked for something to do and found nothing, since [`stay_awake`].
static IDLE: AtomicU64 = AtomicU64::new(0);
/// How often a second it does with nothing to do at all.
static IDLE_RATE: OnceLock<f64> = OnceLock::new();
/// How long that is measured.
const REST: Duration = Duration::from_millis(200);

/// CPU time used so far by all threads of the processes, user and system; one that has ended counts nothing.
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

/// User and system time of the processes, in ticks. Coarser than [`used`], which does not tell them apart.
fn ticks(pids: &[u32]) -> [u64; 2] {
    let mut sum = [0; 2];
    for pid in pids {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in brackets may have spaces in it.
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        for (sum, field) in sum.iter_mut().zip(fields.split_whitespace().skip(11)) {
            *sum += field.parse::<u64>().unwrap_or_default();
        }
    }
    sum
}

/// The process and all that descend from it.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    found
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Keeps this thread, which has to be its runtime's only one, from sleeping. A load that sleeps is woken by the server that
/// sends to it, and at that server's cost; one that has more to do than it can is never woken.
pub(crate) async fn stay_awake() {
    if IDLE_RATE.get().is_some() {
        return;
    }
    tokio::spawn(async {
        loop {
            IDLE.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let (started, before) = (Instant::now(), IDLE.load(Ordering::Relaxed));
    tokio::time::sleep(REST).await;
    let rate = (IDLE.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64();
    let _ = IDLE_RATE.set(rate);
}

/// What a stretch of time cost whom.
pub(crate) struct Cost {
    /// CPU time of each group of processes, in the order they were given.
    pub(crate) groups: Vec<Duration>,
    /// The part of the servers' CPU time that the kernel took: no server can do without.
    pub(crate) kernel: f64,
    /// How much of one processor the load generator took, its waiting left out.
    pub(crate) generator: f64,
    /// Processors that the host gave to others.
    pub(crate) steal: f64,
}

impl Cost {
    /// CPU seconds of all server processes.
    pub(crate) fn seconds(&self) -> f64 {
        self.groups.iter().sum::<Duration>().as_secs_f64()
    }

    /// The first group's part of it.
    pub(crate) fn first(&self) -> f64 {
        self.groups.first().map_or(0.0, |group| group.as_secs_f64() / self.seconds())
    }
}

/// A running measurement.
pub(crate) struct Meter {
    groups: Vec<Vec<u32>>,
    before: Vec<Duration>,
    ticks: [u64; 2],
    generator: Duration,
    idle: u64,
    steal: f64,
    started: Instant,
}

impl Meter {
    pub(crate) fn start(groups: Vec<Vec<u32>>) -> Self {
        Self {
            before: groups.iter().map(|group| used(group)).collect(),
            ticks: ticks(&groups.concat()),
            groups,
            generator: used_by(std::process::id()),
            idle: IDLE.load(Ordering::Relaxed),
            steal: stolen(),
            started: Instant::now(),
        }
    }

    pub(crate) fn stop(self) -> Cost {
        let time = self.started.elapsed().as_secs_f64();
        let generator = match IDLE_RATE.get() {
            Some(rate) => 1.0 - (IDLE.load(Ordering::Relaxed) - self.idle) as f64 / rate / time,
            None => (used_by(std::process::id()) - self.generator).as_secs_f64() / time,
        };
        let after = ticks(&self.groups.concat());
        let [user, system] = [0, 1].map(|at| after[at].saturating_sub(self.ticks[at]) as f64);
        Cost {
            kernel: system / (user + system).max(1.0),
            groups: self.groups.iter().zip(self.before).map(|(group, before)| used(group) - before).collect(),
            generator,
            steal: (stolen() - self.steal) / time,
        }
    }
}

/// Processor seconds the host gave to others since the start, as far as it says so.
fn stolen() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: u64 = stat
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(8))
        .and_then(|field| field.parse().ok())
        .unwrap_or_default();
    ticks as f64 / 100.0
}

/// Memory of the processes in bytes, with what they share with others counted in proportion (PSS).
pub(crate) fn proportional(pids: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
        sum += kib.unwrap_or_default() * 1024;
    }
    Ok(sum)
}
