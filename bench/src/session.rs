//! A Socket.IO session that starts with HTTP long-polling, request by request as the official client sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, bail, ensure};

use crate::client::Client;
use crate::http::{Pool, Response};

/// What separates the packets of one body.
const SEPARATOR: char = '\x1e';

/// A session with the main namespace connected, and the connections it may use.
pub(crate) struct Session {
    pool: Arc<Pool>,
    sid: String,
    path: String,
}

impl Session {
    /// Handshake, and CONNECT to the main namespace.
    pub(crate) async fn open(pool: Arc<Pool>) -> anyhow::Result<Self> {
        let session = Self::handshake(pool).await?;
        session.post("40").await?;
        let body = session.poll().await?;
        ensure!(body.starts_with("40{"), "CONNECT was answered with {body:?}");
        Ok(session)
    }

    async fn handshake(pool: Arc<Pool>) -> anyhow::Result<Self> {
        let path = "/socket.io/?EIO=4&transport=polling";
        let body = ok(pool.request("GET", path, None).await, "handshake")?;
        let open: serde_json::Value =
            serde_json::from_str(body.strip_prefix('0').unwrap_or_default()).context("handshake")?;
        let sid = open["sid"].as_str().context("handshake: no sid")?.to_owned();
        Ok(Self { pool, path: format!("{path}&sid={sid}"), sid })
    }

    /// One GET and one POST at the same time, as a client that always polls: `packet` comes back.
    pub(crate) async fn echo(&self, packet: &str) -> anyhow::Result<()> {
        let (body, ()) = tokio::try_join!(self.poll(), self.post(packet))?;
        let mut found = body;
        loop {
            if found.split(SEPARATOR).any(|got| got == packet) {
                return Ok(());
            }
            for got in found.split(SEPARATOR) {
                match got {
                    "2" => self.post("3").await?,
                    other => bail!("a reply differs: {other:?}"),
                }
            }
            found = self.poll().await?;
        }
    }

    /// Says goodbye.
    pub(crate) async fn leave(self) -> anyhow::Result<()> {
        self.post("1").await
    }

    /// A whole life in the order of browsers: handshake, CONNECT over polling while the websocket is being opened,
    /// probe, upgrade when the open poll has been answered, and one echo.
    pub(crate) async fn upgraded(pool: Arc<Pool>, packet: &str) -> anyhow::Result<()> {
        let session = Self::handshake(pool).await?;
        let (probed, connected) = (AtomicBool::default(), AtomicBool::default());
        let probe = async {
            let mut client =
                Client::upgrade(session.pool.server, session.pool.source, Some(&session.sid)).await?;
            client.send(b"2probe").await?;
            let answer = client.next().await?;
            ensure!(
                answer == b"3probe",
                "the probe was answered with {:?}",
                String::from_utf8_lossy(&answer)
            );
            probed.store(true, Relaxed);
            anyhow::Ok(client)
        };
        let polls = async {
            while !probed.load(Relaxed) {
                let body = session.poll().await?;
                connected.fetch_or(body.split(SEPARATOR).any(|got| got.starts_with("40{")), Relaxed);
            }
            anyhow::Ok(())
        };
        let (client, (), ()) =
            tokio::try_join!(async { probe.await.context("probe") }, polls, session.post("40"))?;
        Self::finish(client, connected.load(Relaxed), packet).await.context("after the upgrade")
    }

    async fn finish(mut client: Client, mut connected: bool, packet: &str) -> anyhow::Result<()> {
        client.send(b"5").await?;
        client.send(packet.as_bytes()).await?;
        loop {
            let got = client.next().await?;
            match &got[..] {
                b"6" => {}
                b"2" => client.send(b"3").await?,
                got if got.starts_with(b"40{") && !connected => connected = true,
                got if got == packet.as_bytes() => break,
                other => bail!("a reply differs: {:?}", String::from_utf8_lossy(other)),
            }
        }
        ensure!(connected, "an echo before CONNECT was answered");
        Ok(())
    }

    async fn poll(&self) -> anyhow::Result<String> {
        ok(self.pool.request("GET", &self.path, None).await, "GET")
    }

    async fn post(&self, packet: &str) -> anyhow::Result<()> {
        let body = ok(self.pool.request("POST", &self.path, Some(packet)).await, "POST")?;
        ensure!(body == "ok", "POST was answered with {body:?}");
        Ok(())
    }
}

fn ok(response: anyhow::Result<Response>, what: &str) -> anyhow::Result<String> {
    let Response { status, body } = response.with_context(|| what.to_owned())?;
    ensure!(status == 200, "{what}: {status} {}", body.chars().take(80).collect::<String>());
    Ok(body)
}
