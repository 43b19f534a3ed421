//! What the front costs HTTP long-polling: the same two workers asked directly, through Sundew and through nginx, and
//! beside them @socket.io/sticky with its own two. All in turn, round after round, in one run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use crate::busy::Busy;
use crate::cpu::Cost;
use crate::load::{Load, Target};
use crate::ratio::Spread;
use crate::server::{Nginx, Program, Server};

const WORKERS: usize = 2;

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds; each measures every server once
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Long-polling sessions, each with two connections
    #[arg(long, default_value_t = 100)]
    sessions: usize,
    /// Seconds measured per run
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Seconds of each load before the first round, which do not count
    #[arg(long, default_value_t = 6)]
    warm_up: u64,
    /// Servers to measure (default: all). Without `sundew`, the workers run under Node's own cluster
    #[arg(long, value_delimiter = ',')]
    only: Vec<Front>,
    /// What to measure (default: all)
    #[arg(long, value_delimiter = ',')]
    loads: Vec<Load>,
    /// Keep every CPU awake with a process of idle priority: all servers get equally fast CPUs then
    #[arg(long)]
    busy: bool,
    /// Folder of the built program `sundew`
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Front {
    /// One worker asked directly
    Direct,
    /// Sundew's front door
    Sundew,
    /// nginx, well tuned
    Nginx,
    /// nginx as the documentation of Socket.IO sets it up
    NginxDocs,
    /// @socket.io/sticky with two workers of its own
    Sticky,
}

/// By how much Sundew is meant to be ahead of whom.
const AIMS: [(Load, Front, f64); 6] = [
    (Load::Requests, Front::Direct, 0.75),
    (Load::Requests, Front::Nginx, 1.0),
    (Load::Requests, Front::NginxDocs, 2.5),
    (Load::Requests, Front::Sticky, 3.0),
    (Load::Polling, Front::Direct, 0.85),
    (Load::Websockets, Front::Direct, 0.85),
];

impl Front {
    const ALL: [Front; 5] = [Front::Direct, Front::Sundew, Front::Nginx, Front::NginxDocs, Front::Sticky];

    fn name(self) -> &'static str {
        match self {
            Front::Direct => "direct",
            Front::Sundew => "sundew",
            Front::Nginx => "nginx, tuned",
            Front::NginxDocs => "nginx, docs",
            Front::Sticky => "sticky 2.0.1",
        }
    }
}

pub(crate) async fn run(options: Options, scripts: &Path) -> anyhow::Result<()> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    let _busy = Busy::start(options.busy)?;
    let wanted = |front| options.only.is_empty() || options.only.contains(&front);
    let cluster = if wanted(Front::Sundew) {
        let bin = options.bin.canonicalize()?;
        Server::cluster(&bin, Program::Node(&scripts.join("echo.cjs")), WORKERS).await?
    } else {
        Server::node_cluster(scripts, WORKERS).await?
    };
    let processes = cluster.processes();
    let (supervisor, workers) = (processes[..1].to_vec(), processes[1..].to_vec());
    let mut servers = Vec::new();
    let mut targets = Vec::new();
    for front in Front::ALL.into_iter().filter(|front| wanted(*front)) {
        let server = match front {
            Front::Direct | Front::Sundew => None,
            Front::Nginx | Front::NginxDocs if !Nginx::is_installed() => {
                println!(
                    "{}: not measured, nginx is not installed (apt-get install nginx-light)",
                    front.name()
                );
                continue;
            }
            Front::Nginx => Some(Nginx::Tuned.start(&cluster.direct).await?),
            Front::NginxDocs => Some(Nginx::Docs.start(&cluster.direct).await?),
            Front::Sticky => Some(Server::sticky(scripts, WORKERS).await?),
        };
        let address = match &server {
            Some(server) => server.address,
            None if front == Front::Direct => cluster.direct[0],
            None => cluster.address,
        };
        let groups = match &server {
            None => vec![supervisor.clone(), workers.clone()],
            Some(server) if front == Front::Sticky => {
                let processes = server.processes();
                vec![processes[..1].to_vec(), processes[1..].to_vec()]
            }
            Some(server) => vec![server.processes(), [&supervisor[..], &workers].concat()],
        };
        servers.extend(server);
        targets.push((front, Target { name: front.name(), address, groups }));
    }
    println!(
        "{} sessions of 2 keep-alive connections, {} s a run; per CPU-second of all server processes (the front's part)",
        options.sessions, options.seconds
    );
    for load in Load::ALL.into_iter().filter(|load| options.loads.is_empty() || options.loads.contains(load))
    {
        let rates = measure(load, &targets, &options).await?;
        report(load, &targets, &rates);
    }
    Ok(())
}

/// Per round, in the order of the targets.
async fn measure(
    load: Load,
    targets: &[(Front, Target)],
    options: &Options,
) -> anyhow::Result<Vec<Vec<f64>>> {
    print!("\n{:<22}", load.name());
    for (_, target) in targets {
        print!(" {:>15}", target.name);
    }
    println!(" {:>6} {:>6} {:>7}", "load", "steal", "failed");
    // Node compiles what is used often: until then each round would be faster than the one before, and workers that get
    // half of the load slower than one that gets all of it.
    for (_, target) in targets {
        load.run(target, options.sessions, Duration::from_secs(options.warm_up)).await?;
    }
    let mut rounds = Vec::with_capacity(options.rounds);
    for round in 0..options.rounds {
        let mut runs = Vec::with_capacity(targets.len());
        for turn in 0..targets.len() {
            // Another one begins each round, so that no server always follows the same one.
            let at = (turn + round) % targets.len();
            let time = Duration::from_secs(options.seconds);
            runs.push((at, load.run(&targets[at].1, options.sessions, time).await?));
        }
        runs.sort_by_key(|(at, _)| *at);
        print!("round {:<16}", round + 1);
        for (_, run) in &runs {
            print!(" {:>8.0} ({:>3.0}%)", run.rate, run.cost.first() * 100.0);
        }
        let most = |of: fn(&Cost) -> f64| runs.iter().map(|(_, run)| of(&run.cost)).fold(0.0, f64::max);
        let failed: usize = runs.iter().map(|(_, run)| run.failed).sum();
        println!(" {:>6.2} {:>6.2} {failed:>7}", most(|cost| cost.generator), most(|cost| cost.steal));
        rounds.push(runs.into_iter().map(|(_, run)| run.rate).collect());
    }
    Ok(rounds)
}

fn report(load: Load, targets: &[(Front, Target)], rates: &[Vec<f64>]) {
    let Some(sundew) = targets.iter().position(|(front, _)| *front == Front::Sundew) else { return };
    for (other, (front, target)) in targets.iter().enumerate().filter(|(other, _)| *other != sundew) {
        let ratios = rates.iter().map(|round| round[sundew] / round[other]).collect();
        let aim = AIMS.iter().find(|(of, than, _)| (of, than) == (&load, front));
        let aim = aim.map(|(_, _, aim)| format!(" (aim {aim:.2})")).unwrap_or_default();
        println!("sundew/{:<15} {}{aim}", target.name, Spread::of(ratios));
    }
}
