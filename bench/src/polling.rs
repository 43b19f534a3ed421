//! What the front costs HTTP long-polling: the same two workers asked directly, through Sundew and through nginx, and
//! beside them @socket.io/sticky with its own two. All in turn, round after round, in one run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::cpu::{Cost, Meter};
use crate::http::Pool;
use crate::ratio::Spread;
use crate::server::{Nginx, Program, Server};
use crate::session::Session;

const WORKERS: usize = 2;
/// Sessions that are opened again and again at the same time, when opening is what is measured.
const OPENING: usize = 16;
const WARM_UP: Duration = Duration::from_secs(1);
/// After the load: what it left behind (closed connections, ended sessions) is part of its cost.
const SETTLE: Duration = Duration::from_millis(300);
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds; each measures every server once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Long-polling sessions, each with two connections
    #[arg(long, default_value_t = 100)]
    sessions: usize,
    /// Seconds measured per run
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Servers to measure beside `direct` (default: all)
    #[arg(long, value_delimiter = ',')]
    only: Vec<Front>,
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

/// What is measured, and by how much Sundew is meant to be ahead of whom.
const AIMS: [(&str, &[(Front, f64)]); 3] = [
    (
        "requests",
        &[(Front::Direct, 0.75), (Front::Nginx, 1.0), (Front::NginxDocs, 2.5), (Front::Sticky, 3.0)],
    ),
    ("polling connects", &[(Front::Direct, 0.85)]),
    ("websocket connects", &[(Front::Direct, 0.85)]),
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

struct Target {
    front: Front,
    address: SocketAddr,
    /// The front's own processes, and the workers'.
    groups: Vec<Vec<u32>>,
    /// Per round, in the order of `AIMS`: operations per CPU-second.
    rates: Vec<[f64; 3]>,
}

pub(crate) async fn run(options: Options, scripts: &Path) -> anyhow::Result<()> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    let wanted = |front| front == Front::Direct || options.only.is_empty() || options.only.contains(&front);
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
        targets.push(Target { front, address, groups, rates: Vec::new() });
    }
    measure(&mut targets, &options).await?;
    report(&targets);
    Ok(())
}

async fn measure(targets: &mut [Target], options: &Options) -> anyhow::Result<()> {
    println!(
        "{} sessions of 2 keep-alive connections, {} s a run; per CPU-second of all server processes",
        options.sessions, options.seconds
    );
    println!(
        "{:>5} {:<13} {:>9} {:>8} {:>9} {:>8} {:>10} {:>8} {:>6} {:>6} {:>7}",
        "round",
        "",
        "requests",
        "(front)",
        "connects",
        "(front)",
        "websockets",
        "(front)",
        "load",
        "steal",
        "failed"
    );
    let time = Duration::from_secs(options.seconds);
    for round in 0..options.rounds {
        let count = targets.len();
        for turn in 0..count {
            // Another one begins each round, so that no server always follows the same one.
            let target = &mut targets[(turn + round) % count];
            let mut failed = 0;
            let (requests, first) = requests(target, options.sessions, time, &mut failed).await?;
            let (connects, second) = openings(target, time, false, &mut failed).await?;
            let (websockets, third) = openings(target, time, true, &mut failed).await?;
            let costs = [&first, &second, &third];
            println!(
                "{:>5} {:<13} {requests:>9.0} {:>7.1}% {connects:>9.0} {:>7.1}% {websockets:>10.0} {:>7.1}% {:>6.2} {:>6.2} {failed:>7}",
                round + 1,
                target.front.name(),
                first.first() * 100.0,
                second.first() * 100.0,
                third.first() * 100.0,
                costs.iter().map(|cost| cost.generator).fold(0.0, f64::max),
                costs.iter().map(|cost| cost.steal).fold(0.0, f64::max),
            );
            target.rates.push([requests, connects, websockets]);
        }
    }
    Ok(())
}

fn report(targets: &[Target]) {
    let Some(sundew) = targets.iter().find(|target| target.front == Front::Sundew) else { return };
    println!("\nsundew against                 (aim)");
    for (what, (name, aims)) in AIMS.iter().enumerate() {
        for other in targets.iter().filter(|target| target.front != Front::Sundew) {
            let ratios = sundew
                .rates
                .iter()
                .zip(&other.rates)
                .map(|(ours, theirs)| ours[what] / theirs[what])
                .collect();
            let aim = aims.iter().find(|(front, _)| *front == other.front);
            let aim = aim.map(|(_, aim)| format!("{aim:.2}")).unwrap_or_default();
            println!("{:<13} {name:<18} {aim:>4} {}", other.front.name(), Spread::of(ratios));
        }
    }
}

/// Requests per CPU-second of sessions that always poll and always have something to say.
async fn requests(
    target: &Target,
    sessions: usize,
    time: Duration,
    failed: &mut usize,
) -> anyhow::Result<(f64, Cost)> {
    let message: Arc<str> = format!(r#"42["echo","{}"]"#, "x".repeat(64)).into();
    let trips = Arc::new(AtomicU64::new(0));
    let mut opened = Vec::with_capacity(sessions);
    while opened.len() < sessions {
        let pool = Arc::new(Pool::new(target.address, source(opened.len()), 2, true));
        // One by one: how many a server loses when many come at once is for `burst` to say.
        match timeout(SESSION_TIMEOUT, Session::open(pool)).await? {
            Ok(session) => opened.push(session),
            Err(error) if *failed >= sessions => return Err(error),
            Err(_) => *failed += 1,
        }
    }
    let end = Instant::now() + WARM_UP + time + SETTLE;
    let mut running = JoinSet::new();
    for session in opened {
        let (message, trips) = (message.clone(), trips.clone());
        running.spawn(async move {
            while Instant::now() < end {
                timeout(SESSION_TIMEOUT, session.echo(&message)).await.context("no echo")??;
                trips.fetch_add(1, Relaxed);
            }
            session.leave().await
        });
    }
    sleep(WARM_UP).await;
    let (meter, before) = (Meter::start(target.groups.clone()), trips.load(Relaxed));
    sleep(time).await;
    let (cost, after) = (meter.stop(), trips.load(Relaxed));
    while let Some(done) = running.join_next().await {
        done?.with_context(|| target.front.name())?;
    }
    Ok(((after - before) as f64 * 2.0 / cost.seconds(), cost))
}

/// Sessions opened on fresh connections per CPU-second, and left at once: by long-polling, or on websockets alone.
async fn openings(
    target: &Target,
    time: Duration,
    websocket: bool,
    failed: &mut usize,
) -> anyhow::Result<(f64, Cost)> {
    let meter = Meter::start(target.groups.clone());
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for lane in 0..OPENING {
        let address = target.address;
        running.spawn(async move {
            let (mut opened, mut failed) = (0, 0);
            for number in (lane..).step_by(OPENING) {
                if Instant::now() > end {
                    break;
                }
                match open(address, source(number), websocket).await {
                    Ok(()) => opened += 1,
                    Err(_) => failed += 1,
                }
            }
            (opened, failed)
        });
    }
    let mut total = 0;
    while let Some(done) = running.join_next().await {
        let (opened, lost) = done?;
        total += opened;
        *failed += lost;
    }
    sleep(SETTLE).await;
    let cost = meter.stop();
    Ok((f64::from(total) / cost.seconds(), cost))
}

async fn open(server: SocketAddr, source: IpAddr, websocket: bool) -> anyhow::Result<()> {
    if websocket {
        Client::connect(server, source).await?;
        return Ok(());
    }
    let pool = Arc::new(Pool::new(server, source, 2, true));
    let life = async { Session::open(pool).await?.leave().await };
    timeout(SESSION_TIMEOUT, life).await?
}

/// Where client number `number` comes from: nginx tells workers apart by the client's address.
pub(crate) fn source(number: usize) -> IpAddr {
    let [high, low] = ((number % 50_000) as u16).to_be_bytes();
    Ipv4Addr::new(127, 1, high, low).into()
}
