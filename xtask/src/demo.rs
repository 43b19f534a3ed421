//! `cargo xtask demo`: the chat example on four workers, in the foreground, from a fresh clone.

use crate::setup::{self, NODE, NPM, Need};
use crate::shell::{self, cargo, release, root};
use anyhow::{Context as _, bail};
use clap::Args;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Args)]
pub(crate) struct Options {
    /// Where the page is served: `PORT`, or 8080.
    #[arg(long, default_value_t = default_port())]
    port: u16,
}

/// How long the workers may take until the page answers.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// Builds, starts, prints the URL, and stays until the cluster ends.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::provide(&[NODE, NPM, Need::Npm("examples/chat")])?;
    shell::run(&mut cargo(&["build", "--release", "--locked", "-p", "sundew-cli", "-p", "chat"]))?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(options.port))
}

async fn serve(port: u16) -> anyhow::Result<()> {
    // Ctrl-C reaches the cluster too (same terminal): it drains, and we stay until it has.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut cluster = Command::new(release("sundew"))
        .args(["run", "examples/chat/pm2.json"])
        .env("PORT", port.to_string())
        .current_dir(root())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start target/release/sundew")?;
    let announce = announce(port);
    tokio::pin!(announce);
    let mut announced = false;
    loop {
        tokio::select! {
            status = cluster.wait() => {
                let status = status?;
                if !status.success() {
                    bail!("the cluster ended with {status}");
                }
                return Ok(());
            }
            () = &mut announce, if !announced => announced = true,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                if let Some(pid) = cluster.id() {
                    shell::works(std::process::Command::new("kill").arg(pid.to_string()));
                }
            }
        }
    }
}

/// Prints the URL once the page answers.
async fn announce(port: u16) {
    let started = Instant::now();
    while started.elapsed() < READY_DEADLINE {
        if answers(port).await.unwrap_or(false) {
            println!(
                "\n  Open http://localhost:{port}/page   (Ctrl-C ends it)\n  By the workers' own ports: http://localhost:{port}/page?route=direct\n"
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("\n  http://localhost:{port}/page does not answer after {} s\n", READY_DEADLINE.as_secs());
}

async fn answers(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(status.ends_with(b" 200"))
}

fn default_port() -> u16 {
    std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080)
}
