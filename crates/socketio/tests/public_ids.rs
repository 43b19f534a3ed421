//! Who knows a socket's id, or its private id, cannot read from its session, write to it or take it over.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;

use serde_json::Value;
use sundew_socketio::recovery::Recovery;
use sundew_socketio::{Args, Socket, SocketIo};
use support::{Client, client, http, serve};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const UPGRADE: &str = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\n";

fn app() -> SocketIo {
    let io = SocketIo::builder().allow_eio3(true).connection_state_recovery(Recovery::new()).build();
    io.on("say", async |socket: Socket, args: Args| socket.emit("said", args).unwrap());
    io
}

async fn run(test: impl FnOnce(SocketAddr) + Send + 'static) {
    let addr = serve(&app()).await;
    client(move || test(addr)).await;
}

/// Every way in for who has a session's id: status and body of each.
fn ways_in(addr: SocketAddr, version: u8, id: &str) -> [(&'static str, u16, String); 4] {
    let path = format!("/socket.io/?EIO={version}&sid={id}");
    let (polling, websocket) = (format!("{path}&transport=polling"), format!("{path}&transport=websocket"));
    let ask = |way, method, path: &str, head: &str, body: &str| {
        let (status, _, body) = http(addr, method, path, head, body);
        (way, status, body)
    };
    [
        ask("read", "GET", &polling, "", ""),
        ask("write", "POST", &polling, "", "42[\"say\",\"something else\"]"),
        ask("end", "POST", &polling, "", "1"),
        ask("upgrade", "GET", &websocket, UPGRADE, ""),
    ]
}

fn check_unknown(addr: SocketAddr, ids: &Value) {
    for name in ["sid", "pid"] {
        for version in [4, 3] {
            for (way, status, body) in ways_in(addr, version, ids[name].as_str().unwrap()) {
                assert!(
                    status == 400 && body.contains("Session ID unknown"),
                    "{way} by {name}, EIO={version}: {status} {body}"
                );
            }
        }
    }
}

fn ids(connected: &str) -> Value {
    let ids: Value = serde_json::from_str(connected.strip_prefix("40").unwrap()).unwrap();
    assert_eq!(ids.as_object().unwrap().len(), 2);
    ids
}

#[tokio::test]
async fn of_a_client_on_a_websocket() {
    run(|addr| {
        let mut victim = Client::open(addr);
        victim.send("40");
        let ids = ids(&victim.text());
        check_unknown(addr, &ids);
        victim.send("42[\"say\",\"mine\"]");
        assert!(victim.text().starts_with("42[\"said\",\"mine\""));
    })
    .await;
}

#[tokio::test]
async fn of_a_client_on_polling() {
    run(|addr| {
        let open: Value = serde_json::from_str(&http(addr, "GET", POLLING, "", "").2[1..]).unwrap();
        let path = format!("{POLLING}&sid={}", open["sid"].as_str().unwrap());
        assert_eq!(http(addr, "POST", &path, "", "40").2, "ok");
        let ids = ids(&http(addr, "GET", &path, "", "").2);
        check_unknown(addr, &ids);
        assert_eq!(http(addr, "POST", &path, "", "42[\"say\",\"mine\"]").2, "ok");
        assert!(http(addr, "GET", &path, "", "").2.starts_with("42[\"said\",\"mine\""));
    })
    .await;
}

/// The exception, and why version 3 is off by default: its clients take the session's id for their socket's.
#[tokio::test]
async fn but_of_a_client_of_version_3_the_public_id_is_the_sessions() {
    run(|addr| {
        let open = http(addr, "GET", "/socket.io/?EIO=3&transport=polling&b64=1", "", "").2;
        let start = open.find("\"sid\":\"").unwrap() + 7;
        let id = &open[start..start + 20];
        let path = format!("/socket.io/?EIO=3&transport=polling&b64=1&sid={id}");
        assert_eq!(http(addr, "POST", &path, "", "20:42[\"say\",\"stranger\"]").2, "ok");
        let heard = http(addr, "GET", &path, "", "").2;
        assert!(heard.contains("42[\"said\",\"stranger\""), "{heard}");
    })
    .await;
}
