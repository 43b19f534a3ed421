//! A front door with real workers behind it, in one process: legs and hand-offs are real sockets, the workers are small
//! HTTP servers that do what the path says.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, each of which uses its part"
)]

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sundew_channel::tag::{self, Tag, TagKey};
use sundew_router::{
    Abilities, Backend, BackendId, Front, FrontConfig, HandOff, Leg, ListenerHandle, Listening, Serve,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

pub const KEY: TagKey = TagKey::from_bytes(*b"the key of tests");

pub struct Worker {
    this: Weak<Worker>,
    id: BackendId,
    pub legs: AtomicUsize,
    pub handed: AtomicUsize,
    pub requests: AtomicUsize,
    pub sessions: AtomicU32,
    pub placements: AtomicU64,
    /// Requests that hang and whose client went away.
    pub aborted: AtomicUsize,
    /// Refuses hand-offs and legs.
    pub full: AtomicBool,
    /// Does not answer, as far as the front door is told.
    pub stuck: AtomicBool,
    /// How often the front door said that it routed something here.
    pub touches: AtomicUsize,
    /// The pieces a handshake is answered in.
    pub handshake: Mutex<Vec<Vec<u8>>>,
    /// Speaks first on a connection it is handed.
    pub greets: AtomicBool,
    /// Lets `/deaf` close.
    pub hang_up: Notify,
    pub abilities: Abilities,
    killed: tokio::sync::watch::Sender<bool>,
}

impl Worker {
    pub fn new(slot: u16) -> Arc<Self> {
        Self::generation(slot, 0)
    }

    pub fn generation(slot: u16, generation: u8) -> Arc<Self> {
        Self::with(slot, generation, Abilities::default())
    }

    /// One whose sessions have to be learned.
    pub fn learning(slot: u16) -> Arc<Self> {
        let worker = Self::with(slot, 0, Abilities { tells_sessions: false, ..Abilities::default() });
        worker.opens(&format!("s{slot}"));
        worker
    }

    /// Handshakes are answered with this session id.
    pub fn opens(&self, sid: &str) {
        let packet = open_packet(sid);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", packet.len());
        *self.handshake.lock().unwrap() = vec![format!("{head}{packet}").into_bytes()];
    }

    pub fn with(slot: u16, generation: u8, abilities: Abilities) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            id: BackendId { slot, generation },
            legs: AtomicUsize::new(0),
            handed: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            sessions: AtomicU32::new(0),
            placements: AtomicU64::new(0),
            aborted: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            touches: AtomicUsize::new(0),
            handshake: Mutex::default(),
            greets: AtomicBool::new(false),
            hang_up: Notify::new(),
            abilities,
            killed: tokio::sync::watch::channel(false).0,
        })
    }

    /// A session id that this worker owns.
    pub fn sid(&self) -> String {
        let tag = Tag { node: 0, slot: self.id.slot as u8, generation: self.id.generation };
        tag::new_sid(&KEY, tag)
    }

    /// All its connections end, as when the process dies.
    pub fn kill(&self) {
        self.full.store(true, Ordering::SeqCst);
        self.killed.send_replace(true);
    }

    pub fn legs(&self) -> usize {
        self.legs.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self: &Arc<Self>, stream: S) {
        let worker = self.clone();
        let mut killed = self.killed.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = worker.run(stream) => {}
                _ = killed.wait_for(|killed| *killed) => {}
            }
        });
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<()> {
        let mut peer = Peer::new(stream);
        while let Some(head) = peer.head().await? {
            self.requests.fetch_add(1, Ordering::SeqCst);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let path = target.split('?').next().unwrap_or_default();
            let name = format!("{}", self.id);
            let is_handshake =
                head.starts_with("GET ") && target.contains("transport=polling") && !target.contains("sid=");
            let handshake = self.handshake.lock().unwrap().clone();
            if is_handshake && !handshake.is_empty() {
                for piece in handshake {
                    peer.write(&piece).await?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                continue;
            }
            match path {
                "/over" => peer.answer(200, b"1").await?,
                "/unknown" => {
                    peer.body(&head).await?;
                    peer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 41\r\n\r\n{\"code\":1,\"message\":\"Session ID unknown\"}")
                        .await?;
                }
                "/keep" => {
                    // Keeps its connections for as long as the query says.
                    peer.body(&head).await?;
                    let seconds = target.split("keep=").nth(1).unwrap_or_default();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout={seconds}\r\nContent-Length: 0\r\n\r\n"
                    );
                    peer.write(head.as_bytes()).await?;
                }
                "/deaf" => {
                    // Answers, and closes the leg without reading what comes next.
                    peer.answer(200, b"").await?;
                    self.hang_up.notified().await;
                    return Ok(());
                }
                "/head" => {
                    peer.body(&head).await?;
                    peer.answer(200, head.as_bytes()).await?;
                }
                "/echo" => {
                    let body = peer.body(&head).await?;
                    peer.answer(200, &body).await?;
                }
                "/chunked" => {
                    let body = peer.body(&head).await?;
                    peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                    for part in body.chunks(70_000) {
                        peer.write(format!("{:x};e=1\r\n", part.len()).as_bytes()).await?;
                        peer.write(part).await?;
                        peer.write(b"\r\n").await?;
                    }
                    peer.write(b"0\r\nX-Trailer: 1\r\n\r\n").await?;
                }
                "/continue" => {
                    peer.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                    let body = peer.body(&head).await?;
                    peer.answer(200, &body).await?;
                }
                "/hang" => {
                    let ended = peer.stream.read_u8().await.is_err();
                    self.aborted.fetch_add(usize::from(ended), Ordering::SeqCst);
                    return Ok(());
                }
                "/early" => {
                    peer.write(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
                        .await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    return Ok(());
                }
                "/drop" => return Ok(()),
                "/once" => {
                    // Answers, and closes the leg without a word.
                    peer.answer(200, name.as_bytes()).await?;
                    return Ok(());
                }
                "/until-end" => {
                    peer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it").await?;
                    return Ok(());
                }
                "/cut" => {
                    peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await?;
                    return Ok(());
                }
                "/nonsense" => peer.write(b"what?\r\n\r\n").await?,
                "/204" => peer.write(b"HTTP/1.1 204 No Content\r\n\r\n").await?,
                "/304" => peer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n").await?,
                _ if head.to_lowercase().contains("\r\nupgrade:") => {
                    let reply = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\nX-Worker: {name}\r\n\r\n"
                    );
                    peer.write(reply.as_bytes()).await?;
                    let mut buffer = vec![0; 4096];
                    loop {
                        match peer.read(&mut buffer).await? {
                            0 => return Ok(()),
                            length => peer.write(&buffer[..length]).await?,
                        }
                    }
                }
                _ => {
                    peer.body(&head).await?;
                    let body = if head.starts_with("HEAD") { &b""[..] } else { name.as_bytes() };
                    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", name.len());
                    peer.write(&[reply.as_bytes(), body].concat()).await?;
                }
            }
        }
        Ok(())
    }
}

impl Backend for Worker {
    fn id(&self) -> BackendId {
        self.id
    }
    fn abilities(&self) -> Abilities {
        self.abilities
    }
    fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::SeqCst)
    }
    fn touched(&self) {
        self.touches.fetch_add(1, Ordering::SeqCst);
    }
    fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
        if self.full.load(Ordering::SeqCst) {
            return Err(connection);
        }
        self.handed.fetch_add(1, Ordering::SeqCst);
        let this = self.this.upgrade().unwrap();
        let domain = rustix::net::sockopt::socket_domain(&connection.socket).unwrap();
        if domain == rustix::net::AddressFamily::UNIX {
            assert_eq!(connection.peer, None);
            this.serve(UnixStream::from_std(connection.socket.into()).unwrap());
        } else {
            let stream = std::net::TcpStream::from(connection.socket);
            if self.greets.load(Ordering::SeqCst) {
                let greeting = format!("hello from {}\r\n", self.id);
                std::io::Write::write_all(&mut &stream, greeting.as_bytes()).unwrap();
            }
            this.serve(TcpStream::from_std(stream).unwrap());
        }
        Ok(())
    }
    fn open_leg(&self) -> io::Result<Leg> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.legs.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = UnixStream::pair()?;
        self.this.upgrade().unwrap().serve(theirs);
        Ok(Leg::Unix(ours))
    }
    fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::SeqCst)
    }
    fn placements_seen(&self) -> u64 {
        self.placements.load(Ordering::SeqCst)
    }
}

pub struct Cluster {
    pub front: Front,
    pub workers: Vec<Arc<Worker>>,
    pub addr: SocketAddr,
    pub listener: ListenerHandle,
}

pub fn config() -> FrontConfig {
    FrontConfig::new("test", KEY)
}

/// A front door with so many native workers.
pub fn cluster(count: u16, configure: impl FnOnce(&mut FrontConfig)) -> Cluster {
    cluster_of((0..count).map(Worker::new), Serve::Http, configure)
}

/// A front door with these workers.
pub fn cluster_of(
    workers: impl IntoIterator<Item = Arc<Worker>>,
    serve: Serve,
    configure: impl FnOnce(&mut FrontConfig),
) -> Cluster {
    let mut config = config();
    configure(&mut config);
    let front = Front::new(config);
    let listener =
        front.listen(Listening::Tcp(std::net::TcpListener::bind("127.0.0.1:0").unwrap()), serve).unwrap();
    let mut cluster = Cluster { front, workers: Vec::new(), addr: listener.local_addr().unwrap(), listener };
    for worker in workers {
        cluster.add(worker);
    }
    cluster
}

impl Cluster {
    pub fn add(&mut self, worker: Arc<Worker>) {
        self.workers.push(worker.clone());
        self.front.add(worker);
    }

    pub async fn connect(&self) -> Peer<TcpStream> {
        Peer::new(TcpStream::connect(self.addr).await.unwrap())
    }

    /// One request on a connection of its own; the head and the body of the answer.
    pub async fn get(&self, target: &str) -> (String, Vec<u8>) {
        self.connect().await.ask(&get(target)).await
    }

    pub async fn say(&self, request: &[u8]) -> (String, Vec<u8>) {
        let mut peer = self.connect().await;
        peer.write(request).await.unwrap();
        peer.response(false).await
    }
}

/// What opens a session, as Engine.IO 4 writes it.
pub fn open_packet(sid: &str) -> String {
    format!(
        r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
    )
}

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

pub fn upgrade(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
}

/// One end of a connection that speaks HTTP/1 in the plainest way.
pub struct Peer<S> {
    pub stream: S,
    kept: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, kept: Vec::new() }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.kept.is_empty() {
            let length = self.kept.len().min(buffer.len());
            buffer[..length].copy_from_slice(&self.kept[..length]);
            self.kept.drain(..length);
            return Ok(length);
        }
        self.stream.read(buffer).await
    }

    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.kept).await? > 0)
    }

    async fn exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.kept.len() < count {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.kept.drain(..count).collect())
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.exact(1).await?);
        }
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// `None`: the end.
    pub async fn head(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.kept.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.kept.drain(..at + 4).collect();
                return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
            }
            if !self.more().await? {
                return if self.kept.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    pub async fn body(&mut self, head: &str) -> io::Result<Vec<u8>> {
        let lower = head.to_ascii_lowercase();
        if lower.contains("transfer-encoding: chunked") {
            let mut body = Vec::new();
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| io::Error::other(format!("no chunk size: {size:?}")))?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    return Ok(body);
                }
                body.extend(self.exact(size).await?);
                self.exact(2).await?;
            }
        }
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        self.exact(length.map_or(0, |length| length.parse().unwrap())).await
    }

    async fn answer(&mut self, status: u16, body: &[u8]) -> io::Result<()> {
        let head = format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n", body.len());
        self.write(&[head.as_bytes(), body].concat()).await
    }

    /// The next response, with its body unless it was asked by HEAD.
    pub async fn response(&mut self, head_only: bool) -> (String, Vec<u8>) {
        let receive = async {
            let head = self.head().await.unwrap().expect("the connection ended without a response");
            let lower = head.to_ascii_lowercase();
            if head_only || head.contains(" 304 ") || head.contains(" 1") && head.starts_with("HTTP/1.1 1") {
                return (head, Vec::new());
            }
            if !lower.contains("content-length")
                && !lower.contains("transfer-encoding")
                && !head.contains(" 204 ")
            {
                let rest = self.rest().await;
                return (head, rest);
            }
            let body = self.body(&head).await.unwrap();
            (head, body)
        };
        tokio::time::timeout(Duration::from_secs(60), receive).await.expect("no response in 60 s")
    }

    pub async fn ask(&mut self, request: &str) -> (String, Vec<u8>) {
        self.write(request.as_bytes()).await.unwrap();
        self.response(request.starts_with("HEAD")).await
    }

    /// All that comes until the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        let read = async { while self.more().await.unwrap_or(false) {} };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("no end in 20 s");
        std::mem::take(&mut self.kept)
    }
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..4000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not happen within 20 s: {what}");
}
