//! What a handed-over websocket costs: messages per CPU-second of all server processes through the front,
//! against the same program asked directly.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::Client;
use crate::cpu::Meter;
use crate::ratio::Spread;
use crate::server::{Program, Server};

#[derive(Args)]
pub(crate) struct Options {
    /// Alternated pairs of runs
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Websocket connections
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Messages on their way per connection
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// Seconds measured per run, after one second of warm-up
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Folder of the built programs `sundew` and `echo`
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
}

/// With the native example as the worker.
pub(crate) async fn native(options: Options) -> anyhow::Result<()> {
    let bin = options.bin.canonicalize()?;
    pairs(&bin, Program::Native(&bin.join("echo")), &options).await
}

/// With a Node process as the worker.
pub(crate) async fn node(options: Options, scripts: &Path) -> anyhow::Result<()> {
    let bin = options.bin.canonicalize()?;
    pairs(&bin, Program::Node(&scripts.join("echo.cjs")), &options).await
}

async fn pairs(bin: &Path, program: Program<'_>, options: &Options) -> anyhow::Result<()> {
    ensure!(options.pairs > 0, "--pairs must be at least 1");
    let direct = Server::alone(program).await?;
    let cluster = Server::cluster(bin, program, 1).await?;
    println!(
        "echo, 64 bytes, {} connections x {} in flight, {} s a run; messages per CPU-second of all server processes",
        options.connections, options.in_flight, options.seconds
    );
    println!(
        "{:>4} {:>12} {:>12} {:>7} {:>12} {:>6} {:>6}",
        "pair", "direct", "through", "ratio", "supervisor", "load", "steal"
    );
    let mut ratios = Vec::with_capacity(options.pairs);
    for pair in 0..options.pairs {
        // The order changes from pair to pair, so that a drift of the machine favours neither.
        let (straight, through) = if pair % 2 == 0 {
            let straight = measure(&direct, options).await?;
            (straight, measure(&cluster, options).await?)
        } else {
            let through = measure(&cluster, options).await?;
            (measure(&direct, options).await?, through)
        };
        let ratio = through.rate / straight.rate;
        ratios.push(ratio);
        println!(
            "{:>4} {:>12.0} {:>12.0} {ratio:>7.3} {:>11.1}% {:>6.2} {:>6.2}",
            pair + 1,
            straight.rate,
            through.rate,
            through.front * 100.0,
            straight.generator.max(through.generator),
            straight.steal.max(through.steal),
        );
    }
    println!("ratio through/direct: {}", Spread::of(ratios));
    Ok(())
}

struct Run {
    rate: f64,
    front: f64,
    generator: f64,
    steal: f64,
}

async fn measure(server: &Server, options: &Options) -> anyhow::Result<Run> {
    let message = format!(r#"42["echo","{}"]"#, "x".repeat(64));
    let mut clients = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        clients.push(Client::connect(server.address, Ipv4Addr::LOCALHOST.into()).await?);
    }
    let clients = load(clients, &message, options.in_flight, Duration::from_secs(1)).await?.0;
    let processes = server.processes();
    let meter = Meter::start(vec![processes[..1].to_vec(), processes[1..].to_vec()]);
    let (_, replies) =
        load(clients, &message, options.in_flight, Duration::from_secs(options.seconds)).await?;
    let cost = meter.stop();
    Ok(Run {
        rate: replies as f64 / cost.seconds(),
        front: cost.first(),
        generator: cost.generator,
        steal: cost.steal,
    })
}

async fn load(
    clients: Vec<Client>,
    message: &str,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<(Vec<Client>, u64)> {
    let end = Instant::now() + time;
    let message: Arc<str> = message.into();
    let mut running = JoinSet::new();
    for mut client in clients {
        let message = message.clone();
        running.spawn(async move {
            let replies = client.echo(message.as_bytes(), in_flight, end).await?;
            anyhow::Ok((client, replies))
        });
    }
    let (mut clients, mut total) = (Vec::new(), 0);
    while let Some(done) = running.join_next().await {
        let (client, replies) = done??;
        clients.push(client);
        total += replies;
    }
    Ok((clients, total))
}
