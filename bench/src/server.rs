//! The servers under measurement: real programs, started here and ended on drop.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::client::Client;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server, and the processes whose CPU time counts.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) pids: Vec<u32>,
    child: Child,
    home: Option<PathBuf>,
}

impl Server {
    /// The program alone.
    pub(crate) async fn direct(program: &Path) -> anyhow::Result<Server> {
        let port = free_port()?;
        let child = Command::new(program)
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), pids: vec![child.id()], child, home: None }
            .ready()
            .await
    }

    /// The same program as one worker of a cluster.
    pub(crate) async fn cluster(sundew: &Path, program: &Path) -> anyhow::Result<Server> {
        let port = free_port()?;
        let home = std::env::temp_dir().join(format!("sundew-bench-{}", std::process::id()));
        std::fs::create_dir_all(&home)?;
        let file = home.join("pm2.json");
        let app = serde_json::json!({ "apps": [{
            "name": "echo", "script": program, "instances": 1, "exec_mode": "cluster",
            "env": { "PORT": port.to_string() }, "out_file": "/dev/null", "error_file": "/dev/null",
        }] });
        std::fs::write(&file, app.to_string())?;
        let child = Command::new(sundew)
            .arg("run")
            .arg(&file)
            .env("SUNDEW_HOME", home.join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", sundew.display()))?;
        let server = Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            pids: vec![child.id()],
            child,
            home: Some(home),
        };
        let mut server = server.ready().await?;
        let workers = children(server.pids[0]);
        if workers.len() != 1 {
            bail!("expected one worker, found {}", workers.len());
        }
        server.pids.extend(workers);
        Ok(server)
    }

    async fn ready(mut self) -> anyhow::Result<Server> {
        let end = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at start: {status}");
            }
            match Client::connect(self.address).await {
                Ok(_) => return Ok(self),
                Err(error) if Instant::now() > end => return Err(error.context("the server does not answer")),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The supervisor ends its workers on SIGTERM; a server that is gone already needs nothing.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        if let Some(home) = &self.home {
            let _ = std::fs::remove_dir_all(home);
        }
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}
