//! What a handed-over websocket costs: messages per CPU-second of all server processes through the front,
//! against the same program asked directly.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::time::Instant;

use crate::client::Client;
use crate::cpu;
use crate::server::Server;

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

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let bin = options.bin.canonicalize()?;
    let direct = Server::direct(&bin.join("echo")).await?;
    let cluster = Server::cluster(&bin.join("sundew"), &bin.join("echo")).await?;
    println!(
        "echo, 64 bytes, {} connections x {} in flight, {} s a run; messages per CPU-second of all server processes",
        options.connections, options.in_flight, options.seconds
    );
    println!("{:>4} {:>12} {:>12} {:>7}", "pair", "direct", "through", "ratio");
    let mut ratios = Vec::with_capacity(options.pairs);
    for pair in 0..options.pairs {
        // The order changes from pair to pair, so that a drift of the machine favours neither.
        let (straight, through) = if pair % 2 == 0 {
            let straight = measure(&direct, &options).await?;
            (straight, measure(&cluster, &options).await?)
        } else {
            let through = measure(&cluster, &options).await?;
            (measure(&direct, &options).await?, through)
        };
        ratios.push(through / straight);
        println!("{:>4} {straight:>12.0} {through:>12.0} {:>7.3}", pair + 1, through / straight);
    }
    ensure!(!ratios.is_empty(), "--pairs must be at least 1");
    ratios.sort_by(f64::total_cmp);
    println!(
        "ratio through/direct: median {:.3}, min {:.3}, max {:.3}",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
    Ok(())
}

async fn measure(server: &Server, options: &Options) -> anyhow::Result<f64> {
    let message = format!(r#"42["echo","{}"]"#, "x".repeat(64));
    let mut clients = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        clients.push(Client::connect(server.address).await?);
    }
    let clients = load(clients, &message, options.in_flight, Duration::from_secs(1)).await?.0;
    let before = cpu::used(&server.pids);
    let (_, replies) =
        load(clients, &message, options.in_flight, Duration::from_secs(options.seconds)).await?;
    let used = cpu::used(&server.pids) - before;
    Ok(replies as f64 / used.as_secs_f64())
}

async fn load(
    clients: Vec<Client>,
    message: &str,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<(Vec<Client>, u64)> {
    let end = Instant::now() + time;
    let message: std::sync::Arc<str> = message.into();
    let mut running = tokio::task::JoinSet::new();
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
