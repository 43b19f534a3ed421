//! Where sessions are placed: thousands of websockets, half of them closed and opened again, and how even the workers are
//! filled then. By address, and with all clients behind one.
//!
//! Each websocket takes a descriptor here and one in its worker, none in the supervisor. nginx, which keeps two for each,
//! is asked one request per address instead: `ip_hash` does not look at what a server carries.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::http::Pool;
use crate::server::{Nginx, Program, Server};

/// Connections being opened at once.
const WIDTH: usize = 64;
/// How often half of the sessions go and others come.
const CHURNS: usize = 2;

#[derive(Args)]
pub(crate) struct Options {
    /// Sessions at once
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Workers
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Fail where a worker is further from the mean than promised
    #[arg(long)]
    check: bool,
    /// Folder of the built programs `sundew` and `echo`
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
}

/// Whose sessions they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    One,
    /// Neighbours: 250 in each of so many networks of 256.
    Networks,
    Many,
}

impl Clients {
    const ALL: [Self; 3] = [Self::One, Self::Networks, Self::Many];

    fn name(self) -> &'static str {
        match self {
            Self::One => "one address",
            Self::Networks => "250 per /24",
            Self::Many => "an address each",
        }
    }

    fn address(self, number: usize) -> IpAddr {
        let number = number + 1;
        let [_, a, b, c] = match self {
            Self::One => return Ipv4Addr::new(127, 0, 0, 91).into(),
            Self::Networks => (((number as u32 / 250) << 8) + number as u32 % 250 + 0x10_0001).to_be_bytes(),
            // Spread like addresses of strangers. The factor is odd, so that no two are the same.
            Self::Many => ((number as u32).wrapping_mul(0x009e_3779) & 0xff_ffff).to_be_bytes(),
        };
        Ipv4Addr::new(127, a, b, c).into()
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let bin = options.bin.canonicalize()?;
    println!(
        "{} websockets on {} workers, half of them replaced {CHURNS} times; each worker's share of the mean, in percent",
        options.sessions, options.workers
    );
    let mut off = Vec::new();
    for balance in ["least-sessions", "ip-hash"] {
        for clients in Clients::ALL {
            let echo = bin.join("echo");
            let settings = serde_json::json!({ "balance": balance });
            let server =
                Server::cluster_with(&bin, Program::Native(&echo), options.workers, settings).await?;
            let shares = fill(server.address, clients, &options).await?;
            let (least, most) = show(&format!("sundew {balance}"), clients, &shares, options.sessions);
            let bounds = match (balance, clients) {
                ("least-sessions", _) => (75.0, 125.0),
                (_, Clients::Many) => (75.0, 125.5),
                _ => (0.0, 125.5),
            };
            if least < bounds.0 || most > bounds.1 {
                off.push(format!("{balance}, {}: {least:.1} to {most:.1} %", clients.name()));
            }
        }
    }
    if Nginx::is_installed() {
        let worker = Server::alone(Program::Native(&bin.join("echo"))).await?;
        let count = u16::try_from(options.workers)?;
        let nginx = Nginx::IpHash(count).start(&[worker.address]).await?;
        for clients in Clients::ALL {
            let mut shares: BTreeMap<_, _> = (0..count).map(|number| (number.to_string(), 0)).collect();
            for number in 0..options.sessions {
                let pool = Pool::new(nginx.address, clients.address(number), 1, false);
                *shares.entry(pool.request("GET", "/place", None).await?.body).or_default() += 1;
            }
            show("nginx ip_hash", clients, &shares, options.sessions);
        }
    }
    ensure!(!options.check || off.is_empty(), "not as even as promised: {}", off.join("; "));
    Ok(())
}

/// Opens the sessions, replaces some, and counts those of each worker.
async fn fill(
    server: SocketAddr,
    clients: Clients,
    options: &Options,
) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut sessions = open(server, clients, 0..options.sessions).await?;
    for churn in 1..=CHURNS {
        // Every other one, whichever worker it has: what is closed is not even either.
        let mut index = 0;
        sessions.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let first = churn * options.sessions;
        let missing = options.sessions - sessions.len();
        sessions.extend(open(server, clients, first..first + missing).await?);
    }
    let mut shares = BTreeMap::new();
    for (_, worker) in &sessions {
        *shares.entry(worker.clone()).or_default() += 1;
    }
    Ok(shares)
}

async fn open(
    server: SocketAddr,
    clients: Clients,
    numbers: std::ops::Range<usize>,
) -> anyhow::Result<Vec<(Client, String)>> {
    let (mut opening, mut opened) = (JoinSet::new(), Vec::with_capacity(numbers.len()));
    for number in numbers {
        if opening.len() >= WIDTH {
            opened.push(opening.join_next().await.context("a task")???);
        }
        let source = clients.address(number);
        opening.spawn(async move {
            let mut client = Client::connect(server, source).await?;
            client.send(br#"420["whoami"]"#).await?;
            let answer = client.next().await?;
            let answer: serde_json::Value = serde_json::from_slice(answer.get(3..).unwrap_or_default())?;
            anyhow::Ok((client, answer[0]["instance"].to_string()))
        });
    }
    while let Some(done) = opening.join_next().await {
        opened.push(done??);
    }
    Ok(opened)
}

/// The least and the most, in percent of the mean.
fn show(name: &str, clients: Clients, shares: &BTreeMap<String, usize>, sessions: usize) -> (f64, f64) {
    let mean = sessions as f64 / shares.len().max(1) as f64;
    let percents: Vec<f64> = shares.values().map(|share| *share as f64 / mean * 100.0).collect();
    let list: Vec<_> = percents.iter().map(|percent| format!("{percent:>6.1}")).collect();
    println!("{name:<24} {:<16} {}", clients.name(), list.join(" "));
    (percents.iter().copied().fold(f64::MAX, f64::min), percents.iter().copied().fold(0.0, f64::max))
}
