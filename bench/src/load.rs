//! What is asked of a server: the same of each, so that what it costs them can be compared.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::cpu::{Cost, Meter};
use crate::http::Pool;
use crate::session::Session;

/// Sessions that are opened again and again at the same time, when opening is what is measured.
const OPENING: usize = 16;
const WARM_UP: Duration = Duration::from_secs(1);
/// After the load: what it left behind (closed connections, ended sessions) is part of its cost.
const SETTLE: Duration = Duration::from_millis(300);
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is asked.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The front's own processes, and the workers'.
    pub(crate) groups: Vec<Vec<u32>>,
}

/// What came of it.
pub(crate) struct Run {
    /// Per CPU-second of all server processes.
    pub(crate) rate: f64,
    pub(crate) cost: Cost,
    /// Sessions that could not be opened.
    pub(crate) failed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Load {
    /// Requests of sessions that always poll and always have something to say
    Requests,
    /// Sessions opened by long-polling and left at once, each on a fresh connection
    Polling,
    /// Sessions opened on websockets alone and left at once
    Websockets,
}

impl Load {
    pub(crate) const ALL: [Load; 3] = [Load::Requests, Load::Polling, Load::Websockets];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Load::Requests => "requests",
            Load::Polling => "connects by polling",
            Load::Websockets => "connects on websockets",
        }
    }

    pub(crate) async fn run(self, target: &Target, sessions: usize, time: Duration) -> anyhow::Result<Run> {
        match self {
            Load::Requests => requests(target, sessions, time).await,
            Load::Polling | Load::Websockets => openings(target, time, self == Load::Websockets).await,
        }
    }
}

async fn requests(target: &Target, sessions: usize, time: Duration) -> anyhow::Result<Run> {
    let mut failed = 0;
    let message: Arc<str> = format!(r#"42["echo","{}"]"#, "x".repeat(64)).into();
    let trips = Arc::new(AtomicU64::new(0));
    let mut opened = Vec::with_capacity(sessions);
    while opened.len() < sessions {
        let pool = Arc::new(Pool::new(target.address, source(opened.len()), 2, true));
        // One by one: how many a server loses when many come at once is for `burst` to say.
        match timeout(SESSION_TIMEOUT, Session::open(pool)).await? {
            Ok(session) => opened.push(session),
            Err(error) if failed >= sessions => return Err(error),
            Err(_) => failed += 1,
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
        done?.with_context(|| target.name)?;
    }
    Ok(Run { rate: (after - before) as f64 * 2.0 / cost.seconds(), cost, failed })
}

async fn openings(target: &Target, time: Duration, websocket: bool) -> anyhow::Result<Run> {
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
    let (mut total, mut failed) = (0, 0);
    while let Some(done) = running.join_next().await {
        let (opened, lost) = done?;
        total += opened;
        failed += lost;
    }
    sleep(SETTLE).await;
    let cost = meter.stop();
    Ok(Run { rate: f64::from(total) / cost.seconds(), cost, failed })
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
