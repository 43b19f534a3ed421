//! What the tests share: a server on loopback whose protocol echoes, a raw HTTP client and a raw websocket client.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::{Context, Waker};
use std::time::Duration;

use sundew_engineio::{
    CloseReason, Config, Cors, Engine, Frames, Handshake, Message, Protocol, Session, SessionHandle,
};
use sundew_io::{Conn, Origin, PeerAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happened to the sessions of an [`Echo`].
#[derive(Default)]
pub struct Log {
    pub closed: Vec<CloseReason>,
    pub handles: Vec<SessionHandle>,
    pub received: usize,
    pub polled: usize,
    pub peers: Vec<Option<SocketAddr>>,
}

/// Sends every message back.
#[derive(Clone, Default)]
pub struct Echo {
    pub log: Arc<Mutex<Log>>,
    pub gate: Arc<Mutex<Gate>>,
}

/// Holds a session back.
#[derive(Default)]
pub struct Gate {
    pub shut: bool,
    /// Shuts by itself after so many messages.
    pub after: Option<usize>,
    pub wakers: Vec<Waker>,
}

pub struct EchoSession {
    echo: Echo,
    handle: SessionHandle,
    /// It panics when it is closed.
    broken: bool,
}

impl Protocol for Echo {
    type Session = EchoSession;

    fn open(&self, handle: SessionHandle, request: Handshake) -> EchoSession {
        let mut log = self.log.lock().unwrap();
        log.handles.push(handle.clone());
        log.peers.push(request.peer_addr);
        EchoSession { echo: self.clone(), handle, broken: false }
    }

    fn resume(&self, handle: SessionHandle, _: &[u8]) -> Result<EchoSession, String> {
        self.log.lock().unwrap().handles.push(handle.clone());
        Ok(EchoSession { echo: self.clone(), handle, broken: false })
    }
}

impl Session for EchoSession {
    fn message(&mut self, message: Message) {
        let received = {
            let mut log = self.echo.log.lock().unwrap();
            log.received += 1;
            log.received
        };
        {
            let mut gate = self.echo.gate.lock().unwrap();
            if gate.after == Some(received) {
                gate.after = None;
                gate.shut = true;
            }
        }
        self.broken = message == Message::Text("panic twice".into());
        assert!(!self.broken && message != Message::Text("panic".into()), "as asked");
        if message == Message::Text("end".into()) {
            self.handle.close(CloseReason::ForcedClose);
        }
        let frames = match message {
            Message::Text(text) => Frames::text(&text),
            Message::Binary(data) => Frames::binary(&data),
        };
        let _ = self.handle.send(frames);
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        self.echo.log.lock().unwrap().polled += 1;
        let mut gate = self.echo.gate.lock().unwrap();
        if gate.shut {
            gate.wakers.push(cx.waker().clone());
        }
    }

    fn ready_for_more(&self) -> bool {
        !self.echo.gate.lock().unwrap().shut
    }

    fn export(&mut self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn close(self, reason: CloseReason) {
        self.echo.log.lock().unwrap().closed.push(reason);
        assert!(!self.broken, "as asked");
    }
}

/// A server, and what its protocol saw.
pub struct Server {
    pub addr: SocketAddr,
    pub engine: Engine<Echo>,
    pub echo: Echo,
}

impl Server {
    pub fn closed(&self) -> Vec<CloseReason> {
        self.echo.log.lock().unwrap().closed.clone()
    }

    pub fn received(&self) -> usize {
        self.echo.log.lock().unwrap().received
    }

    /// The handle of the only session.
    pub fn handle(&self) -> SessionHandle {
        self.echo.log.lock().unwrap().handles.last().unwrap().clone()
    }

    pub fn gate(&self, shut: bool) {
        let mut gate = self.echo.gate.lock().unwrap();
        gate.shut = shut;
        gate.wakers.drain(..).for_each(Waker::wake);
    }

    /// Waits until the sessions' ends are as told.
    pub async fn until_closed(&self, reasons: &[CloseReason]) {
        until(|| self.closed() == reasons).await;
    }
}

pub async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not become true within 5 s");
}

/// The options the conformance suites ask for.
pub fn quick() -> Config {
    let mut config = Config::default();
    config.ping_interval = Duration::from_millis(300);
    config.ping_timeout = Duration::from_millis(200);
    config.close_timeout = Duration::from_millis(500);
    config.cors = Some(Cors::default());
    config
}

/// Quiet heartbeats, for tests about something else.
pub fn calm() -> Config {
    let mut config = Config::default();
    config.close_timeout = Duration::from_millis(500);
    config
}

pub async fn serve(config: Config) -> Server {
    let echo = Echo::default();
    let engine = Engine::new(config, echo.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, engine.clone()));
    Server { addr, engine, echo }
}

async fn accept(listener: TcpListener, engine: Engine<Echo>) {
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        serve_stream(engine.clone(), Conn::tcp(stream, None, Origin::Accepted), peer);
    }
}

/// Serves one connection of any kind.
pub fn serve_stream<T>(engine: Engine<Echo>, stream: T, peer: SocketAddr)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        let engine = engine.clone();
        async move {
            request.extensions_mut().insert(PeerAddr(peer));
            Ok::<_, Infallible>(engine.handle(request).await)
        }
    });
    let io = hyper_util::rt::TokioIo::new(stream);
    tokio::spawn(async move {
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
    });
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// The body as it came.
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One request on a connection of its own.
pub async fn request(addr: SocketAddr, method: &str, query: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = send_request(addr, method, query, headers, body).await;
    read_answer(&mut stream).await
}

pub async fn send_request(
    addr: SocketAddr,
    method: &str,
    query: &str,
    headers: &str,
    body: &[u8],
) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let length = match body.is_empty() {
        true => String::new(),
        false => format!("content-length: {}\r\n", body.len()),
    };
    let head = format!("{method} /engine.io/?{query} HTTP/1.1\r\nhost: test\r\n{length}{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(body).await;
    stream
}

pub async fn read_answer(stream: &mut TcpStream) -> Answer {
    let head = read_head(stream).await;
    let mut answer =
        Answer { status: head[9..12].parse().unwrap(), head, body: String::new(), bytes: Vec::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    answer.body = String::from_utf8_lossy(&body).into_owned();
    answer.bytes = body;
    answer
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

pub async fn get(addr: SocketAddr, sid: &str) -> Answer {
    request(addr, "GET", &format!("EIO=4&transport=polling&sid={sid}"), "", b"").await
}

pub async fn post(addr: SocketAddr, sid: &str, body: &str) -> Answer {
    request(addr, "POST", &format!("EIO=4&transport=polling&sid={sid}"), "", body.as_bytes()).await
}

/// Opens a polling session.
pub async fn open(addr: SocketAddr) -> String {
    let answer = request(addr, "GET", "EIO=4&transport=polling", "", b"").await;
    assert_eq!(answer.status, 200);
    sid_of(&answer.body)
}

pub fn sid_of(open: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    json["sid"].as_str().unwrap().to_owned()
}

/// What a websocket server sent.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    /// With the code, if there is one.
    Close(Option<u16>),
    /// The connection ended.
    End,
}

pub fn text(text: &str) -> Frame {
    Frame::Text(text.to_owned())
}

pub struct Ws<T = TcpStream>(pub T);

impl Ws {
    /// Connects; `sid` makes it a probe.
    pub async fn connect(addr: SocketAddr, sid: Option<&str>) -> Ws {
        Ws::try_connect(addr, &ws_query(sid)).await.unwrap()
    }

    pub async fn try_connect(addr: SocketAddr, query: &str) -> Result<Ws, Answer> {
        Ws::connect_with(addr, query, b"").await
    }

    /// Connects and sends `early` together with the request.
    pub async fn connect_with(addr: SocketAddr, query: &str, early: &[u8]) -> Result<Ws, Answer> {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Ws::over(stream, query, early).await
    }

    /// Opens a session and takes the open packet.
    pub async fn open(addr: SocketAddr) -> (Ws, String) {
        let mut ws = Ws::connect(addr, None).await;
        let Frame::Text(open) = ws.next().await else { panic!("no open packet") };
        let sid = sid_of(&open);
        (ws, sid)
    }

    /// Moves a polling session here.
    pub async fn upgrade(addr: SocketAddr, sid: &str) -> Ws {
        let mut ws = Ws::connect(addr, Some(sid)).await;
        ws.text("2probe").await;
        assert_eq!(ws.next().await, text("3probe"));
        ws.text("5").await;
        ws
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Ws<T> {
    /// Does the handshake on a connection.
    pub async fn over(mut stream: T, query: &str, early: &[u8]) -> Result<Ws<T>, Answer> {
        let headers = "upgrade: websocket\r\nconnection: keep-alive, Upgrade\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let mut request =
            format!("GET /engine.io/?{query} HTTP/1.1\r\nhost: test\r\n{headers}\r\n").into_bytes();
        request.extend_from_slice(early);
        stream.write_all(&request).await.unwrap();
        let head = read_head(&mut stream).await;
        if !head.starts_with("HTTP/1.1 101") {
            let mut answer =
                Answer { status: head[9..12].parse().unwrap(), head, body: String::new(), bytes: Vec::new() };
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            answer.body = String::from_utf8(body).unwrap();
            return Err(answer);
        }
        assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        Ok(Ws(stream))
    }

    pub async fn text(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes()).await;
    }

    pub async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.0.write_all(&encode(first, payload)).await.unwrap();
    }

    pub async fn next(&mut self) -> Frame {
        match tokio::time::timeout(Duration::from_secs(10), self.read()).await {
            Ok(frame) => frame,
            Err(_) => panic!("no frame within 10 s"),
        }
    }

    pub async fn read(&mut self) -> Frame {
        let Ok(first) = self.0.read_u8().await else { return Frame::End };
        let length = match self.0.read_u8().await.unwrap() {
            126 => self.0.read_u16().await.unwrap() as usize,
            127 => self.0.read_u64().await.unwrap() as usize,
            length => length as usize,
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.unwrap();
        match first {
            0x81 => Frame::Text(String::from_utf8(payload).unwrap()),
            0x82 => Frame::Binary(payload),
            0x8a => Frame::Pong(payload),
            0x88 => Frame::Close(payload.try_into().ok().map(u16::from_be_bytes)),
            other => panic!("unexpected frame {other:#x}"),
        }
    }
}

pub fn ws_query(sid: Option<&str>) -> String {
    match sid {
        Some(sid) => format!("EIO=4&transport=websocket&sid={sid}"),
        None => "EIO=4&transport=websocket".to_owned(),
    }
}

/// A masked frame, as clients send it.
pub fn encode(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
