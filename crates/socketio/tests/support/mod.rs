//! A real server on loopback, and a raw client that shows every frame.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod bus;
pub mod in_place;
pub mod pace;
pub mod poller;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use sundew_socketio::{Builder, SocketIo};
use tungstenite::{Message, WebSocket};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Options under which heartbeats come often.
pub fn quick() -> Builder {
    SocketIo::builder()
        .ping_interval(Duration::from_millis(300))
        .ping_timeout(Duration::from_millis(200))
        .connect_timeout(Duration::from_millis(1000))
}

/// Serves `io` in an axum app; it ends with the test's runtime.
pub async fn serve(io: &SocketIo) -> SocketAddr {
    let app = axum::Router::new().route("/page", axum::routing::get(async || "page")).layer(io.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

/// Runs a blocking client beside the server.
pub async fn client<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// A websocket-only client.
pub struct Client {
    ws: WebSocket<TcpStream>,
    /// Engine.IO messages that came, pings answered and left out.
    pub keep_pings: bool,
    /// The engine session's id.
    pub sid: String,
}

impl Client {
    /// Opens the engine session and reads its open packet.
    pub fn open(addr: SocketAddr) -> Client {
        Client::open_as(addr, 4)
    }

    fn open_as(addr: SocketAddr, version: u8) -> Client {
        Client::open_at(addr, &format!("EIO={version}&transport=websocket"))
    }

    /// Opens it with that query.
    pub fn open_at(addr: SocketAddr, query: &str) -> Client {
        Client::open_over(TcpStream::connect(addr).unwrap(), addr, query)
    }

    /// The same on a connection that is there already.
    pub fn open_over(stream: TcpStream, addr: SocketAddr, query: &str) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let url = format!("ws://{addr}/socket.io/?{query}");
        let (ws, _) = tungstenite::client(url, stream).unwrap();
        let mut client = Client { ws, keep_pings: false, sid: String::new() };
        let open = client.text();
        let open: serde_json::Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        client.sid = open["sid"].as_str().unwrap().to_owned();
        client
    }

    /// Opens a session of Engine.IO 3 and reads its open packet.
    pub fn open_legacy(addr: SocketAddr) -> Client {
        Client::open_as(addr, 3)
    }

    /// Opens and joins a namespace.
    pub fn connect(addr: SocketAddr, nsp: &str) -> Client {
        let mut client = Client::open(addr);
        client.join(nsp);
        client
    }

    /// Joins a namespace; returns the socket's id.
    pub fn join(&mut self, nsp: &str) -> String {
        let comma = if nsp == "/" { String::new() } else { format!("{nsp},") };
        self.send(&format!("40{comma}"));
        let answer = self.text();
        let json = answer.strip_prefix(&format!("40{comma}")).unwrap_or_else(|| panic!("{answer}"));
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 1);
        json["sid"].as_str().unwrap().to_owned()
    }

    /// Sends an engine packet.
    pub fn send(&mut self, text: &str) {
        self.ws.send(Message::text(text)).unwrap();
    }

    /// Sends without looking whether it arrives.
    pub fn try_send(&mut self, text: &str) {
        let _ = self.ws.send(Message::text(text));
    }

    pub fn send_bytes(&mut self, bytes: Bytes) {
        self.ws.send(Message::binary(bytes)).unwrap();
    }

    pub fn send_binary(&mut self, bytes: &'static [u8]) {
        self.ws.send(Message::binary(Bytes::from_static(bytes))).unwrap();
    }

    /// Sends a websocket ping: its pong says that the server has taken all that was sent before.
    pub fn ping(&mut self, data: u64) {
        self.ws.send(Message::Ping(Bytes::copy_from_slice(&data.to_be_bytes()))).unwrap();
    }

    /// The next message; `None` when the connection is closed.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            match self.ws.read() {
                Ok(Message::Close(_)) => {}
                Ok(Message::Text(text)) if text == "2" && !self.keep_pings => self.try_send("3"),
                Ok(message) => return Some(message),
                Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("nothing came within {PATIENCE:?}")
                }
                Err(_) => return None,
            }
        }
    }

    /// The next text.
    pub fn text(&mut self) -> String {
        match self.next() {
            Some(Message::Text(text)) => text.as_str().into(),
            other => panic!("expected a text, got {other:?}"),
        }
    }

    pub fn binary(&mut self) -> Bytes {
        match self.next() {
            Some(Message::Binary(bytes)) => bytes,
            other => panic!("expected binary, got {other:?}"),
        }
    }

    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.text(), text);
    }

    /// Nothing but a heartbeat until the server closes.
    pub fn expect_closed(&mut self) {
        if let Some(message) = self.next() {
            panic!("expected the end, got {message:?}");
        }
    }

    /// Goes away without a word.
    pub fn vanish(self) {
        let _ = self.ws.get_ref().shutdown(std::net::Shutdown::Both);
    }

    pub fn stream(&self) -> &TcpStream {
        self.ws.get_ref()
    }
}

/// One HTTP request on a connection of its own: status, head, body.
pub fn http(addr: SocketAddr, method: &str, path: &str, head: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.into())
}

/// A handler that captures: `with!([a, b] (x: X) => body)` clones `a` and `b` for every call.
#[allow(unused_macros)]
macro_rules! with {
    ([$($name:ident),*] ($($args:tt)*) => $body:expr) => {{
        $(let $name = $name.clone();)*
        move |$($args)*| {
            $(let $name = $name.clone();)*
            async move { $body }
        }
    }};
}
#[allow(unused_imports)]
pub(crate) use with;
