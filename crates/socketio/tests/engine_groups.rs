//! The Engine.IO groups of the official protocol suite for Socket.IO, version 5 (16 titles: handshake, heartbeat, close,
//! upgrade), on the server's own path. The others are in `protocol.rs`.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use sundew_socketio::{Args, Socket, SocketIo};
use support::{PATIENCE, client, http, serve};
use tungstenite::{Message, WebSocket};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const WEBSOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

async fn run(test: impl FnOnce(SocketAddr) + Send + 'static) {
    // The suite's options but for connectTimeout: three heartbeats take almost as long as its 1000 ms.
    let io: SocketIo = SocketIo::builder()
        .ping_interval(Duration::from_millis(300))
        .ping_timeout(Duration::from_millis(200))
        .build();
    io.on("message", async |socket: Socket, args: Args| socket.emit("message-back", args).unwrap());
    let addr = serve(&io).await;
    client(move || test(addr)).await;
}

type Ws = WebSocket<TcpStream>;

fn websocket(addr: SocketAddr, path: &str) -> Result<Ws, String> {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let result = tungstenite::client(format!("ws://{addr}{path}"), stream);
    result.map(|(ws, _)| ws).map_err(|error| error.to_string())
}

/// The next text; `None` when it is closed.
fn text(ws: &mut Ws) -> Option<String> {
    loop {
        match ws.read() {
            Ok(Message::Text(text)) => return Some(text.as_str().into()),
            Ok(Message::Close(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("nothing came, not even the end")
            }
            Err(_) => return None,
        }
    }
}

fn send(ws: &mut Ws, text: &str) {
    ws.send(Message::text(text)).unwrap();
}

fn check_open(packet: &str, upgrades: &[&str]) -> String {
    let open: Value = serde_json::from_str(packet.strip_prefix('0').unwrap()).unwrap();
    let mut keys: Vec<&str> = open.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]);
    assert_eq!(open["upgrades"], serde_json::json!(upgrades));
    assert_eq!((&open["pingInterval"], &open["pingTimeout"]), (&300.into(), &200.into()));
    assert_eq!(open["maxPayload"], 1_000_000);
    open["sid"].as_str().unwrap().into()
}

/// A polling session: the path of its requests.
fn session(addr: SocketAddr) -> String {
    let (status, _, body) = http(addr, "GET", POLLING, "", "");
    assert_eq!(status, 200);
    format!("{POLLING}&sid={}", check_open(&body, &["websocket"]))
}

fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let (status, _, body) = http(addr, "GET", path, "", "");
    (status, body)
}

fn post(addr: SocketAddr, path: &str, body: &str) {
    assert_eq!(http(addr, "POST", path, "", body).2, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn polling_should_successfully_open_a_session() {
    run(|addr| {
        session(addr);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn polling_should_fail_with_an_invalid_eio_query_parameter() {
    run(|addr| {
        for path in ["/socket.io/?transport=polling", "/socket.io/?EIO=abc&transport=polling"] {
            assert_eq!(get(addr, path).0, 400);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn polling_should_fail_with_an_invalid_transport_query_parameter() {
    run(|addr| {
        for path in ["/socket.io/?EIO=4", "/socket.io/?EIO=4&transport=abc"] {
            assert_eq!(get(addr, path).0, 400);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn polling_should_fail_with_an_invalid_request_method() {
    run(|addr| {
        for method in ["POST", "PUT"] {
            assert_eq!(http(addr, method, POLLING, "", "").0, 400);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn websocket_should_successfully_open_a_session() {
    run(|addr| {
        let mut ws = websocket(addr, WEBSOCKET).unwrap();
        check_open(&text(&mut ws).unwrap(), &[]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn websocket_should_fail_with_an_invalid_eio_query_parameter() {
    run(|addr| {
        for path in ["/socket.io/?transport=websocket", "/socket.io/?EIO=abc&transport=websocket"] {
            assert!(websocket(addr, path).unwrap_err().contains("400"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn websocket_should_fail_with_an_invalid_transport_query_parameter() {
    run(|addr| {
        for path in ["/socket.io/?EIO=4", "/socket.io/?EIO=4&transport=abc"] {
            assert!(websocket(addr, path).unwrap_err().contains("400"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn polling_should_send_ping_pong_packets() {
    run(|addr| {
        let path = session(addr);
        for _ in 0..3 {
            assert_eq!(get(addr, &path), (200, "2".into()));
            post(addr, &path, "3");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn polling_should_close_the_session_upon_ping_timeout() {
    run(|addr| {
        let path = session(addr);
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(get(addr, &path).0, 400);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn websocket_should_send_ping_pong_packets() {
    run(|addr| {
        let mut ws = websocket(addr, WEBSOCKET).unwrap();
        text(&mut ws);
        for _ in 0..3 {
            assert_eq!(text(&mut ws).as_deref(), Some("2"));
            send(&mut ws, "3");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn websocket_should_close_the_session_upon_ping_timeout() {
    run(|addr| {
        let mut ws = websocket(addr, WEBSOCKET).unwrap();
        text(&mut ws);
        assert_eq!(text(&mut ws).as_deref(), Some("2"));
        assert_eq!(text(&mut ws), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn polling_should_forcefully_close_the_session() {
    run(|addr| {
        let path = session(addr);
        let (waiting, same) = (path.clone(), path.clone());
        let poll = std::thread::spawn(move || get(addr, &waiting));
        // It waits at the server by then, or comes after: both are answered.
        std::thread::sleep(Duration::from_millis(100));
        post(addr, &same, "1");
        assert_eq!(poll.join().unwrap(), (200, "6".into()));
        assert_eq!(get(addr, &path).0, 400);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn websocket_should_forcefully_close_the_session() {
    run(|addr| {
        let mut ws = websocket(addr, WEBSOCKET).unwrap();
        text(&mut ws);
        send(&mut ws, "1");
        assert_eq!(text(&mut ws), None);
    })
    .await;
}

/// A session that is told to move, and nothing waited for: its path, and its websocket.
fn upgraded(addr: SocketAddr) -> (String, Ws) {
    let path = session(addr);
    let mut ws = websocket(addr, &path.replace("polling", "websocket")).unwrap();
    send(&mut ws, "2probe");
    send(&mut ws, "5");
    (path, ws)
}

/// The next packet that is no ping and no answer to the probe.
fn packet(ws: &mut Ws) -> String {
    loop {
        match text(ws).expect("the session ended") {
            ping if ping == "2" => send(ws, "3"),
            answer if answer == "3probe" => {}
            other => return other,
        }
    }
}

fn check_echo(ws: &mut Ws) {
    send(ws, "42[\"message\",\"hello\"]");
    assert_eq!(packet(ws), "42[\"message-back\",\"hello\"]");
}

fn join(ws: &mut Ws) {
    send(ws, "40");
    assert!(packet(ws).starts_with("40{\"sid\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn should_successfully_upgrade_from_polling_to_websocket() {
    run(|addr| {
        let (_, mut ws) = upgraded(addr);
        join(&mut ws);
        check_echo(&mut ws);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn should_ignore_http_requests_with_same_sid_after_upgrade() {
    run(|addr| {
        let (path, mut ws) = upgraded(addr);
        assert_eq!(get(addr, &path).0, 400);
        join(&mut ws);
        check_echo(&mut ws);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn should_ignore_websocket_connection_with_same_sid_after_upgrade() {
    run(|addr| {
        let (path, mut ws) = upgraded(addr);
        // Refused, or closed at once.
        if let Ok(mut second) = websocket(addr, &path.replace("polling", "websocket")) {
            assert_eq!(text(&mut second), None);
        }
        join(&mut ws);
        check_echo(&mut ws);
    })
    .await;
}
