//! Side-by-side measurements of Sundew. Figures are ratios of messages per CPU-second of all server
//! processes, taken in alternated pairs in one run, because machines are shared and noisy.

mod client;
mod cpu;
mod handoff;
mod server;

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
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Args::parse().workload {
        Workload::Handoff(options) => handoff::run(options).await,
    }
}
