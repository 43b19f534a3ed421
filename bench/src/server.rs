//! The servers under measurement: real programs, started here and ended on drop.

mod nginx;

pub(crate) use nginx::Nginx;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::cpu;

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a server may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Where ports are taken from: below those the kernel gives to clients, which the load takes by the thousand.
const PORTS: std::ops::Range<u16> = 25_000..25_900;

/// A running server.
pub(crate) struct Server {
    /// Its front door.
    pub(crate) address: SocketAddr,
    /// What its workers listen on past the front door, if they do.
    pub(crate) direct: Vec<SocketAddr>,
    child: Child,
    folder: PathBuf,
}

/// A program to be measured: a native one, or a script for node.
#[derive(Clone, Copy)]
pub(crate) enum Program<'a> {
    Native(&'a Path),
    Node(&'a Path),
}

impl Program<'_> {
    fn path(&self) -> &Path {
        match self {
            Program::Native(path) | Program::Node(path) => path,
        }
    }

    fn command(&self) -> Command {
        match self {
            Program::Native(path) => Command::new(path),
            Program::Node(path) => {
                let mut command = Command::new("node");
                command.arg(path);
                command
            }
        }
    }
}

impl Server {
    /// The program alone.
    pub(crate) async fn alone(program: Program<'_>) -> anyhow::Result<Server> {
        Self::alone_with(program, &[]).await
    }

    /// The same with these variables.
    pub(crate) async fn alone_with(
        program: Program<'_>,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let port = ports(1)?;
        let mut command = program.command();
        command.env("PORT", port.to_string()).envs(variables.iter().copied());
        Self::start(command, folder()?, port).await
    }

    /// The program as the workers of a cluster; each also has a port of its own if it listens on `DIRECT`.
    pub(crate) async fn cluster(bin: &Path, program: Program<'_>, workers: usize) -> anyhow::Result<Server> {
        Self::cluster_with(bin, program, workers, serde_json::json!({})).await
    }

    /// The same with these settings (`sundew`).
    pub(crate) async fn cluster_with(
        bin: &Path,
        program: Program<'_>,
        workers: usize,
        settings: serde_json::Value,
    ) -> anyhow::Result<Server> {
        let port = ports(workers as u16 + 1)?;
        let folder = folder()?;
        let file = folder.join("pm2.json");
        let app = serde_json::json!({ "apps": [{
            "name": "echo", "script": program.path(), "instances": workers, "exec_mode": "cluster",
            "env": { "PORT": port.to_string(), "DIRECT": (port + 1).to_string() },
            "out_file": "/dev/null", "error_file": "/dev/null", "sundew": settings,
        }] });
        std::fs::write(&file, app.to_string())?;
        let mut command = Command::new(bin.join("sundew"));
        command.arg("run").arg(&file).env("SUNDEW_HOME", folder.join("home"));
        let mut server = Self::start(command, folder, port).await?;
        let found = cpu::children(server.child.id()).len();
        ensure!(found == workers, "expected {workers} workers, found {found}");
        if matches!(program, Program::Node(_)) {
            server.find_direct(workers).await?;
        }
        Ok(server)
    }

    /// @socket.io/sticky with its workers.
    pub(crate) async fn sticky(scripts: &Path, workers: usize) -> anyhow::Result<Server> {
        Self::forking(&scripts.join("sticky.cjs"), workers, ports(1)?).await
    }

    /// Node's own cluster. Its workers also listen on ports of their own.
    pub(crate) async fn node_cluster(scripts: &Path, workers: usize) -> anyhow::Result<Server> {
        let port = ports(workers as u16 + 1)?;
        let mut server = Self::forking(&scripts.join("cluster.cjs"), workers, port).await?;
        server.find_direct(workers).await?;
        Ok(server)
    }

    async fn forking(script: &Path, workers: usize, port: u16) -> anyhow::Result<Server> {
        let mut command = Program::Node(script).command();
        command.env("PORT", port.to_string()).env("DIRECT", (port + 1).to_string());
        command.env("WORKERS", workers.to_string());
        let server = Self::start(command, folder()?, port).await?;
        let found = cpu::children(server.child.id()).len();
        ensure!(found == workers, "expected {workers} workers, found {found}");
        Ok(server)
    }

    /// The workers' own ports follow that of the front.
    async fn find_direct(&mut self, workers: usize) -> anyhow::Result<()> {
        self.direct = (1..=workers as u16).map(|number| local(self.address.port() + number)).collect();
        for address in &self.direct {
            ready(&mut self.child, *address).await?;
        }
        Ok(())
    }

    /// The whole tree of processes: the front first, then its workers.
    pub(crate) fn processes(&self) -> Vec<u32> {
        cpu::tree(self.child.id())
    }

    async fn start(mut command: Command, folder: PathBuf, port: u16) -> anyhow::Result<Server> {
        let log = std::fs::File::create(folder.join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let mut server = Self { address: local(port), direct: Vec::new(), child, folder };
        match ready(&mut server.child, server.address).await {
            Ok(()) => Ok(server),
            Err(error) => {
                let log = std::fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                Err(error.context(format!("{}:\n{log}", command.get_program().display())))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // All of these end their workers on SIGTERM; one that does not is killed with them.
        let processes = self.processes();
        signal("-TERM", &processes[..1]);
        let end = std::time::Instant::now() + STOP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if std::time::Instant::now() > end {
                signal("-KILL", &processes);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn signal(name: &str, pids: &[u32]) {
    let _ =
        Command::new("kill").arg(name).args(pids.iter().map(u32::to_string)).stderr(Stdio::null()).status();
}

/// Waits for the first session.
async fn ready(child: &mut Child, address: SocketAddr) -> anyhow::Result<()> {
    let end = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("the server ended at start: {status}");
        }
        match Client::connect(address, Ipv4Addr::LOCALHOST.into()).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error.context("the server does not answer")),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A folder of its own for each server.
fn folder() -> anyhow::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sundew-bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The first of `count` ports in a row that nobody listens on.
fn ports(count: u16) -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    for _ in 0..PORTS.len() {
        let first = PORTS.start + NEXT.fetch_add(count, Relaxed) % (PORTS.len() as u16 - count);
        if (first..first + count).all(free) {
            return Ok(first);
        }
    }
    bail!("no free port in {PORTS:?}")
}
