//! Clients of Socket.IO 2: protocol version 4 on Engine.IO 3.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::{Value, json};
use sundew_socketio::{Ack, Args, Auth, ConnectError, Socket, SocketIo};
use support::{Client, client, http, serve, with};

fn app() -> SocketIo {
    let io = SocketIo::builder().allow_eio3(true).connect_timeout(Duration::from_millis(300)).build();
    for nsp in ["/", "/custom", "/guarded"] {
        let nsp = io.of(nsp);
        nsp.on_connect(async |socket: Socket| {
            let auth: Value = socket.auth().unwrap();
            socket.emit("hello", (auth, socket.id().to_owned(), socket.is_legacy())).unwrap();
        });
        nsp.on("echo", async |socket: Socket, args: Args| socket.emit("echo", args).unwrap());
        nsp.on("ack", async |ack: Ack, args: Args| ack.send(args).unwrap());
    }
    io.of("/guarded").with(async |Auth(auth): Auth<Value>| match auth["token"].as_str() {
        Some("plain") => Err(ConnectError::new("not authorized")),
        Some("data") => Err(ConnectError::new("not authorized").with_data(json!({ "content": "x" }))),
        _ => Ok(()),
    });
    io
}

async fn run(test: impl FnOnce(SocketAddr) + Send + 'static) {
    let addr = serve(&app()).await;
    client(move || test(addr)).await;
}

fn greeted(addr: SocketAddr) -> Client {
    let mut c = Client::open_legacy(addr);
    c.expect("40");
    let hello = c.text();
    assert_eq!(hello, format!("42[\"hello\",null,\"{}\",true]", c.sid));
    c
}

#[tokio::test]
async fn the_client_is_in_the_main_namespace_at_once_under_its_sessions_id() {
    run(|addr| {
        let mut c = greeted(addr);
        c.send("42[\"echo\",1]");
        c.expect("42[\"echo\",1]");
        c.send("427[\"ack\",{\"a\":1}]");
        c.expect("437[{\"a\":1}]");
    })
    .await;
}

/// And on polling it, and what `on_connect` sends without waiting, is in the answer to the handshake.
#[tokio::test]
async fn the_main_namespace_is_in_the_first_answer() {
    run(|addr| {
        let (status, _, body) = http(addr, "GET", "/socket.io/?EIO=3&transport=polling&b64=1", "", "");
        assert_eq!(status, 200);
        let (open, rest) = body.split_once('}').unwrap();
        let sid = open.split('"').nth(3).unwrap();
        let hello = format!("42[\"hello\",null,\"{sid}\",true]");
        assert_eq!(rest, format!("2:40{}:{hello}", hello.len()), "{body}");
    })
    .await;
}

#[tokio::test]
async fn other_namespaces_are_asked_for_and_may_carry_a_query() {
    run(|addr| {
        let mut c = greeted(addr);
        c.send("40/custom?token=abc&n=1&n=%2C,");
        c.expect("40/custom,");
        let hello = json!(["hello", { "n": ["1", ","], "token": "abc" }, format!("/custom#{}", c.sid), true]);
        c.expect(&format!("42/custom,{hello}"));
        c.send("42/custom,[\"echo\",2]");
        c.expect("42/custom,[\"echo\",2]");
        c.send("41/custom");
        c.send("42/custom,[\"echo\",2]");
        c.send("42[\"echo\",3]");
        c.expect("42[\"echo\",3]");
    })
    .await;
}

#[tokio::test]
async fn who_leaves_and_comes_back_at_once_is_in_the_namespace_under_the_same_id() {
    let io = app();
    let slow = io.of("/slow");
    slow.on_connect(async || tokio::time::sleep(Duration::from_millis(200)).await);
    slow.on("ack", async |ack: Ack, args: Args| ack.send(args).unwrap());
    let addr = serve(&io).await;
    let c = client(move || {
        let mut c = greeted(addr);
        // The event waits for on_connect, and the leaving waits behind it.
        for packet in ["40/slow,", "42/slow,[\"ack\",1]", "41/slow,", "40/slow,", "42/slow,7[\"ack\",2]"] {
            c.send(packet);
        }
        c.expect("40/slow,");
        c.expect("40/slow,");
        c.expect("43/slow,7[2]");
        c
    })
    .await;
    let ids: Vec<_> = slow.sockets().iter().map(|socket| socket.id().to_owned()).collect();
    assert_eq!(ids, [format!("/slow#{}", c.sid)]);
}

/// The new socket has the id of the one that is still on its way out, on another thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn who_comes_back_while_it_is_thrown_out_is_in_the_namespace() {
    let io = SocketIo::builder().allow_eio3(true).build();
    let custom = io.of("/custom");
    let back = Arc::new(Barrier::new(2));
    // Until the client is back, the first time.
    let first = Arc::new(AtomicBool::new(true));
    custom.on_disconnecting(with!([back, first] () => {
        if first.swap(false, Ordering::SeqCst) {
            back.wait();
        }
    }));
    custom.on("room", async |socket: Socket, ack: Ack| {
        socket.join("room");
        ack.send(socket.rooms()).unwrap();
    });
    let addr = serve(&io).await;
    let server = custom.clone();
    let c = client(move || {
        let mut c = Client::open_legacy(addr);
        c.expect("40");
        c.send("40/custom,");
        c.expect("40/custom,");
        let old = server.sockets().remove(0);
        let thrown_out = std::thread::spawn(move || old.disconnect(false));
        c.expect("41/custom,");
        c.send("40/custom,");
        c.expect("40/custom,");
        back.wait();
        thrown_out.join().unwrap();
        c.send("42/custom,7[\"room\"]");
        c.expect(&format!("43/custom,7[[\"/custom#{}\",\"room\"]]", c.sid));
        server.to("room").emit("heard", ());
        c.expect("42/custom,[\"heard\"]");
        c
    })
    .await;
    let found: Vec<_> = custom.sockets().iter().map(|socket| socket.is_connected()).collect();
    assert_eq!((found, custom.socket_count()), (vec![true], 1));
    assert!(custom.get(&format!("/custom#{}", c.sid)).is_some());
}

#[tokio::test]
async fn refusals_are_plain_values() {
    run(|addr| {
        let mut c = greeted(addr);
        c.send("40/guarded?token=plain,");
        c.expect("44/guarded,\"not authorized\"");
        c.send("40/guarded?token=data,");
        c.expect("44/guarded,{\"content\":\"x\"}");
        c.send("40/nowhere,");
        c.expect("44/nowhere,{\"message\":\"Invalid namespace\"}");
        c.send("40/guarded,");
        c.expect("40/guarded,");
    })
    .await;
}

#[tokio::test]
async fn binary_has_its_type_in_front() {
    run(|addr| {
        let mut c = greeted(addr);
        c.send("451-[\"echo\",{\"_placeholder\":true,\"num\":0}]");
        c.send_binary(&[4, 1, 2, 3]);
        c.expect("451-[\"echo\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!(&c.binary()[..], [4, 1, 2, 3]);
    })
    .await;
}

#[tokio::test]
async fn asking_for_the_main_namespace_again_breaks_the_protocol() {
    run(|addr| {
        let mut c = greeted(addr);
        c.send("40");
        assert_eq!(c.next(), None);
    })
    .await;
}

#[tokio::test]
async fn being_in_the_main_namespace_is_being_connected() {
    run(|addr| {
        let mut c = greeted(addr);
        std::thread::sleep(Duration::from_millis(600));
        c.send("42[\"echo\",1]");
        c.expect("42[\"echo\",1]");
    })
    .await;
}

#[tokio::test]
async fn broadcasts_reach_both_kinds_in_their_own_words() {
    let io = app();
    let addr = serve(&io).await;
    let (old, new) = client(move || {
        let mut new = Client::open(addr);
        new.join("/");
        new.text();
        (greeted(addr), new)
    })
    .await;
    io.emit("all", bytes::Bytes::from_static(&[9]));
    client(move || {
        for (mut c, bytes) in [(old, &[4, 9][..]), (new, &[9])] {
            c.expect("451-[\"all\",{\"_placeholder\":true,\"num\":0}]");
            assert_eq!(&c.binary()[..], bytes);
        }
    })
    .await;
}

#[tokio::test]
async fn they_are_refused_unless_allowed() {
    let addr = serve(&SocketIo::builder().build()).await;
    client(move || {
        let stream = std::net::TcpStream::connect(addr).unwrap();
        let url = format!("ws://{addr}/socket.io/?EIO=3&transport=websocket");
        assert!(tungstenite::client(url, stream).is_err());
    })
    .await;
}

/// It has the connection of one that joins nothing.
#[tokio::test]
async fn who_is_refused_by_the_main_namespace_is_not_kept() {
    let io = SocketIo::builder().allow_eio3(true).connect_timeout(Duration::from_millis(300)).build();
    io.with(async || Err::<(), _>("no"));
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::open_legacy(addr);
        c.expect("44\"no\"");
        c.expect_closed();
    })
    .await;
}
