//! Clients that come in crowds: how many do not get in, or get in and are lost on the way up to a websocket.
//!
//! Ratios do not matter here, only zeros: a session whose next request meets another worker is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::http::{BROWSER_CONNECTIONS, Pool};
use crate::load::source;
use crate::server::{Program, Server};
use crate::session::Session;

/// Tabs of one browser, which share its connections.
const TABS: usize = 4;
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Options {
    /// Sessions opened by long-polling, per kind of connections
    #[arg(long, default_value_t = 5000)]
    connects: usize,
    /// Sessions upgraded to a websocket in the order of browsers, per kind of connections
    #[arg(long, default_value_t = 500)]
    upgrades: usize,
    /// How many at once
    #[arg(long, default_value_t = 64)]
    width: usize,
    /// Times the whole is repeated
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Workers of each server
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Servers to try
    #[arg(long, value_delimiter = ',', default_value = "sundew,sticky")]
    only: Vec<Crowded>,
    /// Folder of the built program `sundew`
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Crowded {
    /// Sundew
    Sundew,
    /// @socket.io/sticky
    Sticky,
    /// Node's own cluster, which is what pm2's cluster mode is: no session affinity at all
    Cluster,
}

#[derive(Clone, Copy)]
struct Load {
    upgrade: bool,
    keep_alive: bool,
}

const LOADS: [Load; 4] = [
    Load { upgrade: false, keep_alive: true },
    Load { upgrade: false, keep_alive: false },
    Load { upgrade: true, keep_alive: true },
    Load { upgrade: true, keep_alive: false },
];

pub(crate) async fn run(options: Options, scripts: &Path) -> anyhow::Result<()> {
    ensure!(options.width >= TABS, "--width must be at least {TABS}");
    println!(
        "{} at once; shared: {TABS} sessions share the at most {BROWSER_CONNECTIONS} keep-alive connections of one \
         browser; fresh: a connection per request",
        options.width
    );
    println!("{:<14} {:<10} {:<7} {:>9} {:>7} {:>7}", "", "", "", "sessions", "failed", "s");
    for crowded in &options.only {
        let echo = scripts.join("echo.cjs");
        let (name, server) = match crowded {
            Crowded::Sundew => {
                let bin = options.bin.canonicalize()?;
                ("sundew", Server::cluster(&bin, Program::Node(&echo), options.workers).await?)
            }
            Crowded::Sticky => ("sticky 2.0.1", Server::sticky(scripts, options.workers).await?),
            Crowded::Cluster => ("node cluster", Server::node_cluster(scripts, options.workers).await?),
        };
        for _ in 0..options.rounds {
            for load in LOADS {
                let count = if load.upgrade { options.upgrades } else { options.connects };
                let started = Instant::now();
                let failures = crowd(&server, load, count, options.width).await?;
                println!(
                    "{name:<14} {:<10} {:<7} {count:>9} {:>7} {:>7.1}",
                    if load.upgrade { "upgrades" } else { "connects" },
                    if load.keep_alive { "shared" } else { "fresh" },
                    failures.values().sum::<usize>(),
                    started.elapsed().as_secs_f64()
                );
                for (why, count) in failures {
                    println!("{count:>10} x {why}");
                }
            }
        }
    }
    Ok(())
}

/// Browsers that open one tab after the other until `count` sessions have been tried. Returns what went wrong, counted.
async fn crowd(
    server: &Server,
    load: Load,
    count: usize,
    width: usize,
) -> anyhow::Result<BTreeMap<String, usize>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tabs = JoinSet::new();
    for browser in 0..width / TABS {
        let connections = if load.keep_alive { BROWSER_CONNECTIONS } else { usize::from(u16::MAX) };
        let pool = Arc::new(Pool::new(server.address, source(browser), connections, load.keep_alive));
        for _ in 0..TABS {
            let (next, pool) = (next.clone(), pool.clone());
            tabs.spawn(async move {
                let mut failures = Vec::new();
                while next.fetch_add(1, Relaxed) < count {
                    match timeout(SESSION_TIMEOUT, one(pool.clone(), load.upgrade)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => failures.push(format!("{error:#}")),
                        Err(_) => failures.push(format!("not within {} s", SESSION_TIMEOUT.as_secs())),
                    }
                }
                failures
            });
        }
    }
    let mut failures = BTreeMap::new();
    while let Some(done) = tabs.join_next().await {
        for why in done? {
            *failures.entry(why).or_default() += 1;
        }
    }
    Ok(failures)
}

async fn one(pool: Arc<Pool>, upgrade: bool) -> anyhow::Result<()> {
    let packet = r#"42["echo","hello"]"#;
    if upgrade {
        return Session::upgraded(pool, packet).await;
    }
    // The session stays open, as those of real crowds do.
    Session::open(pool).await?.echo(packet).await
}
