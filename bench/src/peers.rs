//! Sundew's server beside its peers and the limits of the machine: the same loads on each in turn, the server on one
//! processor and the load on another.

mod report;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::cpu::{self, Cost, Meter};
use crate::http::Pool;
use crate::load::{Load, Target, source};
use crate::numbered::Numbered;
use crate::server::{Program, Server};
use crate::session::Session;
use report::{Report, Row};

/// The load keeps to this processor, the servers to the other.
const SERVER_CPU: &str = "0";
const LOAD_CPU: &str = "1";
const WARM_UP: Duration = Duration::from_secs(1);
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);
/// Sessions that are being upgraded at a time.
const UPGRADE_LANES: usize = 50;
/// What browsers allow themselves to one server over HTTP/1.1, websockets apart.
const BROWSER_CONNECTIONS: usize = 6;
/// How long sessions have been idle when their memory is looked at.
const IDLE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds: in each, every server gets every load once, in an order that changes
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these loads
    #[arg(long, value_enum, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// Only these servers
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Peer>,
    /// Seconds measured per run
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Websockets that echo
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Websockets a broadcast goes to
    #[arg(long, default_value_t = 1000)]
    recipients: usize,
    /// Idle websockets whose memory is measured
    #[arg(long, default_value_t = 15_000)]
    idle: usize,
    /// The load looks for answers without ever sleeping: to wake it is charged to no server
    #[arg(long)]
    awake: bool,
    /// Folder of the built program `echo`
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
    /// Folder of the built peers
    #[arg(long, default_value = "bench/peers/target/release")]
    peers: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    Sundew,
    Socketioxide,
    Node,
    /// A bare websocket loop that writes each reply
    Each,
    /// The same, with all replies to one read in one write
    Coalesce,
}

impl Peer {
    const ALL: [Peer; 5] = [Peer::Sundew, Peer::Socketioxide, Peer::Node, Peer::Each, Peer::Coalesce];

    fn name(self) -> &'static str {
        match self {
            Peer::Sundew => "sundew",
            Peer::Socketioxide => "socketioxide",
            Peer::Node => "node",
            Peer::Each => "bare, each",
            Peer::Coalesce => "bare, coalescing",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// 64 bytes, one in flight
    Echo1,
    /// 64 bytes, eight in flight
    Echo8,
    /// Acknowledged events, eight in flight
    Ack,
    /// 20 broadcasts a second
    Broadcast20,
    /// Broadcasts back to back, four in flight
    BroadcastMax,
    /// Websocket sessions opened and left
    Connects,
    /// Requests of polling sessions
    Polling,
    /// Sessions opened in the order of browsers: polling first, then a websocket; each by a browser just started
    Upgrades,
    /// The same by browsers with four tabs, which keep and share their connections
    Tabs,
    /// Bytes per idle websocket session: less is better
    Memory,
}

impl Workload {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it says something about this peer.
    fn is_for(self, peer: Peer) -> bool {
        // It has one reply to a read there, and the other bare loop would be the same.
        let polls = matches!(self, Workload::Polling | Workload::Upgrades | Workload::Tabs);
        !(peer == Peer::Coalesce && polls)
    }
}

/// One server under one load.
struct Measured {
    /// Per CPU-second; bytes for memory.
    value: f64,
    failed: usize,
    /// Replies that overtook an earlier one of the same socket, of all replies; None where order is not looked at.
    overtaken: Option<f64>,
    /// The kernel's part of the server's CPU time.
    kernel: f64,
    generator: f64,
    steal: f64,
}

impl Measured {
    fn new(amount: f64, cost: &Cost) -> Measured {
        let &Cost { kernel, generator, steal, .. } = cost;
        Measured { value: amount / cost.seconds(), failed: 0, overtaken: None, kernel, generator, steal }
    }
}

pub(crate) async fn run(options: Options, scripts: &Path) -> anyhow::Result<()> {
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    let peers = if options.only.is_empty() { Peer::ALL.to_vec() } else { options.only.clone() };
    let all: Vec<Workload> = Workload::value_variants().to_vec();
    let workloads = if options.workloads.is_empty() { all } else { options.workloads.clone() };
    ensure!(pin(std::process::id(), LOAD_CPU), "taskset cannot pin this process: two processors are needed");
    println!(
        "per CPU-second of the server, median (min-max) of {} rounds; server on processor {SERVER_CPU}, load on {LOAD_CPU}",
        options.rounds
    );
    if options.awake {
        cpu::stay_awake().await;
    }
    let mut report = Report::default();
    for workload in workloads {
        let running: Vec<Peer> = peers.iter().copied().filter(|peer| workload.is_for(*peer)).collect();
        let mut rows: Vec<Row> = running.iter().map(|peer| Row::new(peer.name())).collect();
        for round in 0..options.rounds {
            for turn in 0..running.len() {
                // Who begins changes from round to round, so that a drift of the machine favours nobody.
                let index = (turn + round) % running.len();
                let server = start(running[index], &options, scripts).await?;
                let measured = measure(workload, &server, running[index], &options)
                    .await
                    .with_context(|| format!("{} on {}", workload.name(), running[index].name()))?;
                rows[index].push(&measured);
            }
        }
        report.add(&workload.name(), workload == Workload::Memory, &rows);
    }
    let folder = options.bin.parent().unwrap_or(Path::new("target")).join("bench");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("peers.html");
    std::fs::write(&file, report.page(options.rounds, options.seconds))?;
    println!("\n{}", file.display());
    Ok(())
}

async fn start(peer: Peer, options: &Options, scripts: &Path) -> anyhow::Result<Server> {
    let (echo, rival, bare) =
        (options.bin.join("echo"), options.peers.join("socketioxide"), options.peers.join("bare"));
    let script = scripts.join("echo.cjs");
    let (program, mode) = match peer {
        Peer::Sundew => (Program::Native(&echo), ""),
        Peer::Socketioxide => (Program::Native(&rival), ""),
        Peer::Node => (Program::Node(&script), ""),
        Peer::Each => (Program::Native(&bare), "each"),
        Peer::Coalesce => (Program::Native(&bare), "coalesce"),
    };
    let server = Server::alone_with(program, &[("MODE", mode)]).await?;
    for pid in server.processes() {
        ensure!(pin(pid, SERVER_CPU), "taskset cannot pin {}", peer.name());
    }
    Ok(server)
}

fn pin(pid: u32, cpu: &str) -> bool {
    // All threads: some are there already.
    let done = std::process::Command::new("taskset").args(["-acp", cpu, &pid.to_string()]).output();
    done.is_ok_and(|output| output.status.success())
}

async fn measure(
    workload: Workload,
    server: &Server,
    peer: Peer,
    options: &Options,
) -> anyhow::Result<Measured> {
    let time = Duration::from_secs(options.seconds);
    let text = Numbered::text();
    let echo = format!(r#"42["echo","{text}"]"#);
    match workload {
        Workload::Echo1 => exchange(server, options.connections, &echo, &echo, 1, time).await,
        Workload::Echo8 => exchange(server, options.connections, &echo, &echo, 8, time).await,
        Workload::Ack => {
            let (asked, answered) = (format!(r#"420["echo-ack","{text}"]"#), format!(r#"430["{text}"]"#));
            exchange(server, options.connections, &asked, &answered, 8, time).await
        }
        Workload::Broadcast20 => {
            broadcast(server, options.recipients, &text, time, Some(Duration::from_millis(50))).await
        }
        Workload::BroadcastMax => broadcast(server, options.recipients, &text, time, None).await,
        Workload::Connects | Workload::Polling => {
            let load = if workload == Workload::Polling { Load::Requests } else { Load::Websockets };
            let groups = vec![server.processes()];
            let target = Target { name: peer.name(), address: server.address, groups };
            let run = load.run(&target, options.connections, time).await?;
            Ok(Measured { value: run.rate, failed: run.failed, ..Measured::new(0.0, &run.cost) })
        }
        Workload::Upgrades => upgrades(server, &echo, time, None).await,
        Workload::Tabs => upgrades(server, &echo, time, Some(4)).await,
        Workload::Memory => memory(server, options.idle).await,
    }
}

async fn exchange(
    server: &Server,
    connections: usize,
    message: &str,
    reply: &str,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<Measured> {
    let clients = connect(server.address, connections).await?.into_iter().map(|client| (client, 0)).collect();
    let patterns = Arc::new((Numbered::new(message)?, Numbered::new(reply)?));
    let rounds = async |clients: Vec<(Client, u32)>, time: Duration| {
        let end = Instant::now() + time;
        let mut running = JoinSet::new();
        for (mut client, mut number) in clients {
            let patterns = patterns.clone();
            running.spawn(async move {
                let (message, reply) = &*patterns;
                let counts = client.exchange_numbered((message, reply), in_flight, &mut number, end).await?;
                anyhow::Ok(((client, number), counts))
            });
        }
        let (mut clients, mut total, mut overtaken) = (Vec::new(), 0, 0);
        while let Some(done) = running.join_next().await {
            let (client, (replies, late)) = done??;
            clients.push(client);
            total += replies;
            overtaken += late;
        }
        anyhow::Ok((clients, total, overtaken))
    };
    let (clients, ..) = rounds(clients, WARM_UP).await?;
    let meter = Meter::start(vec![server.processes()]);
    let (_clients, replies, overtaken) = rounds(clients, time).await?;
    let cost = meter.stop();
    let share = overtaken as f64 / replies.max(1) as f64;
    Ok(Measured { overtaken: Some(share), ..Measured::new(replies as f64, &cost) })
}

/// Deliveries. `every`: between two broadcasts; none keeps four on their way.
async fn broadcast(
    server: &Server,
    recipients: usize,
    text: &str,
    time: Duration,
    every: Option<Duration>,
) -> anyhow::Result<Measured> {
    let mut clients = connect(server.address, recipients).await?;
    let message = format!(r#"42["broadcast","{text}"]"#);
    let mut sender = clients.pop().context("no recipients")?;
    let counted = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut reading = JoinSet::new();
    for mut client in clients {
        let (counted, message) = (counted.clone(), message.clone());
        reading.spawn(async move { client.count(message.as_bytes(), &counted).await });
    }
    let end = Instant::now() + WARM_UP + time;
    let sending = async {
        match every {
            Some(every) => {
                let mut tick = tokio::time::interval(every);
                while Instant::now() < end {
                    tick.tick().await;
                    sender.send(message.as_bytes()).await?;
                    sender.expect(message.as_bytes()).await?;
                }
                anyhow::Ok(())
            }
            None => sender.exchange(message.as_bytes(), message.as_bytes(), 4, end).await.map(drop),
        }
    };
    let measuring = async {
        sleep(WARM_UP).await;
        let meter = Meter::start(vec![server.processes()]);
        let before = counted.load(std::sync::atomic::Ordering::Relaxed);
        sleep(time - Duration::from_millis(100)).await;
        let after = counted.load(std::sync::atomic::Ordering::Relaxed);
        (meter.stop(), after - before)
    };
    let (sent, (cost, delivered)) = tokio::join!(sending, measuring);
    sent?;
    reading.abort_all();
    Ok(Measured::new(delivered as f64, &cost))
}

/// `tabs`: so many share one browser and the connections it keeps; else each session begins with a new one.
async fn upgrades(
    server: &Server,
    echo: &str,
    time: Duration,
    tabs: Option<usize>,
) -> anyhow::Result<Measured> {
    let address = server.address;
    let browser = move |lane| Arc::new(Pool::new(address, source(lane), BROWSER_CONNECTIONS, true));
    let browsers: Vec<_> = (0..UPGRADE_LANES.div_ceil(tabs.unwrap_or(1))).map(browser).collect();
    let meter = Meter::start(vec![server.processes()]);
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for lane in 0..UPGRADE_LANES {
        let kept = tabs.map(|tabs| browsers[lane / tabs].clone());
        let echo = echo.to_owned();
        running.spawn(async move {
            let (mut done, mut failed) = (0, 0);
            while Instant::now() < end {
                let pool = kept.clone().unwrap_or_else(|| browser(lane));
                match timeout(SESSION_TIMEOUT, Session::upgraded(pool, &echo)).await {
                    Ok(Ok(())) => done += 1,
                    _ => failed += 1,
                }
            }
            (done, failed)
        });
    }
    let (mut total, mut failed) = (0, 0);
    while let Some(lane) = running.join_next().await {
        let (done, lost) = lane?;
        total += done;
        failed += lost;
    }
    let cost = meter.stop();
    Ok(Measured { failed, ..Measured::new(f64::from(total), &cost) })
}

async fn memory(server: &Server, sessions: usize) -> anyhow::Result<Measured> {
    // What is made once, whoever comes.
    let mut clients = connect(server.address, 100).await?;
    sleep(IDLE).await;
    let before = cpu::proportional(&server.processes())?;
    clients.extend(connect(server.address, sessions).await?);
    sleep(IDLE).await;
    let after = cpu::proportional(&server.processes())?;
    let value = after.saturating_sub(before) as f64 / sessions as f64;
    Ok(Measured { value, failed: 0, overtaken: None, kernel: 0.0, generator: 0.0, steal: 0.0 })
}

async fn connect(address: SocketAddr, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for number in 0..count {
        // From several addresses, as many do not have enough ports.
        let from = if count > 10_000 { source(number) } else { Ipv4Addr::LOCALHOST.into() };
        clients.push(Client::connect(address, from).await.with_context(|| format!("client {number}"))?);
    }
    Ok(clients)
}
