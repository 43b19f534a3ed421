//! A Socket.IO client on a websocket that costs little: raw frames, the same bytes sent again and again (numbered, where
//! order matters), every reply compared byte for byte.

use std::io::Cursor;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::http;
use crate::numbered::{InFlight, Numbered};

/// How long a connection may take from TCP connect to the answer to CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A websocket to a Socket.IO server.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    /// A websocket-only session with the main namespace connected.
    pub(crate) async fn connect(server: SocketAddr, source: IpAddr) -> anyhow::Result<Client> {
        let handshake = async {
            let mut client = Self::upgrade(server, source, None).await?;
            ensure!(client.next().await?.starts_with(b"0{"), "the first packet is not the open packet");
            client.send(b"40").await?;
            loop {
                match &client.next().await?[..] {
                    // socketioxide pings at once.
                    b"2" => client.send(b"3").await?,
                    answer if answer.starts_with(b"40{") => break,
                    answer => bail!("CONNECT was answered with {}", String::from_utf8_lossy(answer)),
                }
            }
            Ok(client)
        };
        timeout(CONNECT_TIMEOUT, handshake).await.context("the server did not answer in time")?
    }

    /// The bare websocket, of a new session or of the one given.
    pub(crate) async fn upgrade(
        server: SocketAddr,
        source: IpAddr,
        sid: Option<&str>,
    ) -> anyhow::Result<Client> {
        let stream = http::connect(server, source).await.context("connect")?;
        let mut client = Client { stream, input: Vec::with_capacity(4096) };
        let session = sid.map(|sid| format!("&sid={sid}")).unwrap_or_default();
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket{session} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.stream.write_all(request.as_bytes()).await?;
        let head = loop {
            if let Some(end) = client.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break client.input.drain(..end + 4).collect::<Vec<u8>>();
            }
            client.fill().await?;
        };
        if !head.starts_with(b"HTTP/1.1 101") {
            let (head, body) = (String::from_utf8_lossy(&head), String::from_utf8_lossy(&client.input));
            bail!("not upgraded: {} {body}", head.lines().next().unwrap_or_default());
        }
        Ok(client)
    }

    /// Keeps `in_flight` copies of `message` on their way until `end`; returns the replies received.
    pub(crate) async fn echo(
        &mut self,
        message: &[u8],
        in_flight: usize,
        end: Instant,
    ) -> anyhow::Result<u64> {
        self.exchange(message, message, in_flight, end).await
    }

    /// The same, where every `message` is answered with `reply`.
    pub(crate) async fn exchange(
        &mut self,
        message: &[u8],
        reply: &[u8],
        in_flight: usize,
        end: Instant,
    ) -> anyhow::Result<u64> {
        let framed = frame(message);
        self.stream.write_all(&framed.repeat(in_flight)).await?;
        let (mut received, mut outstanding) = (0, in_flight);
        while outstanding > 0 {
            let running = Instant::now() < end;
            let due = if running { end } else { end + CONNECT_TIMEOUT };
            match timeout_at(due, self.fill()).await {
                Ok(filled) => filled?,
                Err(_) if running => continue,
                Err(_) => bail!("{outstanding} replies are missing"),
            }
            let mut replies = 0;
            while let Some(packet) = self.take()? {
                if packet == b"2" {
                    self.send(b"3").await?;
                } else {
                    ensure!(packet == reply, "a reply differs: {}", String::from_utf8_lossy(&packet));
                    replies += 1;
                }
            }
            outstanding -= replies;
            if Instant::now() < end {
                received += replies as u64;
                self.stream.write_all(&framed.repeat(replies)).await?;
                outstanding += replies;
            }
        }
        Ok(received)
    }

    /// As `exchange` with messages that carry a number, of which the first is `first`. Returns the replies received, and how
    /// many of them overtook an earlier one.
    pub(crate) async fn exchange_numbered(
        &mut self,
        (message, reply): (&Numbered, &Numbered),
        in_flight: usize,
        first: &mut u32,
        end: Instant,
    ) -> anyhow::Result<(u64, u64)> {
        let mut outstanding = InFlight::default();
        let (mut received, mut overtaken) = (0, 0);
        let mut output = Vec::new();
        let mut wanted = in_flight;
        loop {
            output.clear();
            for _ in 0..wanted {
                frame_into(&mut output, &message.with(*first));
                outstanding.sent(*first);
                *first += 1;
            }
            self.stream.write_all(&output).await?;
            if outstanding.is_empty() {
                return Ok((received, overtaken));
            }
            let running = Instant::now() < end;
            let due = if running { end } else { end + CONNECT_TIMEOUT };
            wanted = 0;
            match timeout_at(due, self.fill()).await {
                Ok(filled) => filled?,
                Err(_) if running => continue,
                Err(_) => bail!("{} replies are missing", outstanding.len()),
            }
            while let Some(packet) = self.take()? {
                if packet == b"2" {
                    self.send(b"3").await?;
                    continue;
                }
                let number = reply
                    .number_of(&packet)
                    .with_context(|| format!("a reply differs: {}", String::from_utf8_lossy(&packet)))?;
                overtaken += u64::from(outstanding.answered(number)?);
                wanted += 1;
            }
            if Instant::now() < end {
                received += wanted as u64;
            } else {
                wanted = 0;
            }
        }
    }

    /// Waits for this packet, pings answered.
    pub(crate) async fn expect(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        loop {
            let next = self.next().await?;
            if next == packet {
                return Ok(());
            }
            ensure!(next == b"2", "expected something else than {}", String::from_utf8_lossy(&next));
            self.send(b"3").await?;
        }
    }

    /// Counts packets of this kind until the connection ends.
    pub(crate) async fn count(&mut self, packet: &[u8], counted: &AtomicU64) -> anyhow::Result<()> {
        loop {
            self.expect(packet).await?;
            counted.fetch_add(1, Relaxed);
        }
    }

    pub(crate) async fn send(&mut self, packet: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&frame(packet)).await?)
    }

    /// The next packet.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the server closed the websocket");
        Ok(())
    }

    fn take(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut cursor = Cursor::new(&self.input[..]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor)? else { return Ok(None) };
        let (start, length) = (cursor.position() as usize, length as usize);
        if self.input.len() < start + length {
            return Ok(None);
        }
        ensure!(header.opcode == OpCode::Data(Data::Text), "an unexpected frame: {:?}", header.opcode);
        let packet = self.input[start..start + length].to_vec();
        self.input.drain(..start + length);
        Ok(Some(packet))
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    frame_into(&mut bytes, payload);
    bytes
}

fn frame_into(bytes: &mut Vec<u8>, payload: &[u8]) {
    let header =
        FrameHeader { opcode: OpCode::Data(Data::Text), mask: Some([0; 4]), ..FrameHeader::default() };
    // Writing to a Vec does not fail; a zero mask leaves the payload as it is.
    let _ = header.format(payload.len() as u64, bytes);
    bytes.extend_from_slice(payload);
}
