//! Socket.IO servers joined by a bus, and a client that speaks HTTP polling by hand.
#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sundew_adapter::{LocalBus, PeerName};
use sundew_socketio::SocketIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What never comes is noticed after this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    pub(crate) io: SocketIo,
    pub(crate) bus: LocalBus,
    pub(crate) addr: SocketAddr,
}

impl Server {
    pub(crate) async fn start() -> Server {
        let bus = LocalBus::new();
        let io = SocketIo::builder().adapter(bus.clone()).build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let app = axum::Router::new().layer(io.layer());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { io, bus, addr }
    }
}

/// Joins each server to every other.
pub(crate) fn mesh(buses: &[&LocalBus]) {
    let name = |index: usize| PeerName { slot: u16::try_from(index).unwrap(), generation: 1 };
    for (first, bus) in buses.iter().enumerate() {
        for (second, other) in buses.iter().enumerate().skip(first + 1) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            bus.add_peer(name(second), ours).unwrap();
            other.add_peer(name(first), theirs).unwrap();
        }
    }
}

pub(crate) async fn servers(count: usize) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::start().await);
    }
    mesh(&servers.iter().map(|server| &server.bus).collect::<Vec<_>>());
    servers
}

/// A client on long polling. What it receives are the Engine.IO messages, as they stand in the payload.
pub(crate) struct Client {
    pub(crate) addr: SocketAddr,
    /// The engine session's.
    pub(crate) sid: String,
    nsp: String,
    /// Its public id.
    pub(crate) id: String,
    received: Vec<String>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, nsp: &str) -> Client {
        let open = request(addr, "GET", "", "").await;
        let sid = between(&open, "\"sid\":\"", "\"").to_owned();
        let mut client = Client { addr, sid, nsp: nsp.to_owned(), id: String::new(), received: Vec::new() };
        client.post(&format!("40{nsp},")).await;
        let answer = client.recv().await;
        client.id = between(&answer, "\"sid\":\"", "\"").to_owned();
        client
    }

    async fn post(&self, body: &str) {
        let answer = request(self.addr, "POST", &format!("&sid={}", self.sid), body).await;
        assert_eq!(answer, "ok");
    }

    /// Sends an event or an acknowledgement: what follows the namespace in the packet.
    pub(crate) async fn send(&self, kind: &str, rest: &str) {
        self.post(&format!("4{kind}{},{rest}", self.nsp)).await;
    }

    /// The next message that is not a ping.
    pub(crate) async fn recv(&mut self) -> String {
        tokio::time::timeout(PATIENCE, async {
            loop {
                if !self.received.is_empty() {
                    return self.received.remove(0);
                }
                let payload = request(self.addr, "GET", &format!("&sid={}", self.sid), "").await;
                self.received =
                    payload.split('\x1e').filter(|packet| *packet != "2").map(str::to_owned).collect();
            }
        })
        .await
        .expect("no message")
    }

    /// The arguments of the next packet of this kind (`2` event, `3` acknowledgement, ...).
    pub(crate) async fn expect(&mut self, kind: &str) -> String {
        let packet = self.recv().await;
        let start = format!("4{kind}{},", self.nsp);
        packet
            .strip_prefix(&start)
            .unwrap_or_else(|| panic!("{packet:?} does not begin with {start:?}"))
            .to_owned()
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?} in {text:?}"));
    rest.split_once(end).unwrap().0
}

async fn request(addr: SocketAddr, method: &str, query: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "{method} /socket.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: text/plain\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    body.to_owned()
}
