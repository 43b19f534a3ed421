//! Side-by-side measurements of Sundew. Figures are ratios of messages or requests per CPU-second of all server
//! processes, taken in alternated pairs in one run, because machines are shared and noisy.

mod burst;
mod busy;
mod client;
mod cpu;
mod handoff;
mod http;
mod load;
mod numbered;
mod peers;
mod placement;
mod polling;
mod ratio;
mod server;
mod session;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Side-by-side measurements, as ratios per CPU-second")]
struct Args {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Echo on websockets handed over by the supervisor, against the same program asked directly
    Handoff(handoff::Options),
    /// The same with a Node process as the worker
    Node(handoff::Options),
    /// Long-polling through the front, against a worker asked directly, nginx and @socket.io/sticky
    Polling(polling::Options),
    /// Where thousands of sessions are placed after some have gone, by address and by load, beside nginx `ip_hash`
    Placement(placement::Options),
    /// The Socket.IO server itself, beside socketioxide, Node's and bare websocket loops
    Peers(peers::Options),
    /// Many clients at once: how many are lost, by Sundew, by @socket.io/sticky and by pm2
    Burst(burst::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Args::parse().workload {
        Workload::Handoff(options) => handoff::native(options).await,
        Workload::Node(options) => handoff::node(options, &scripts()?).await,
        Workload::Polling(options) => polling::run(options, &scripts()?).await,
        Workload::Placement(options) => placement::run(options).await,
        Workload::Peers(options) => peers::run(options, &scripts()?).await,
        Workload::Burst(options) => burst::run(options, &scripts()?).await,
    }
}

/// The folder of the Node programs.
fn scripts() -> anyhow::Result<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/node"));
    ensure!(
        folder.join("node_modules/socket.io").is_dir(),
        "no socket.io in {0}\n  install it with: npm ci --prefix {0}",
        folder.display()
    );
    Ok(folder)
}
