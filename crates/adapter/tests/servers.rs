//! Real Socket.IO servers over real socket pairs: what one server does, the clients of all others see, once.

#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

mod common;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Client, PATIENCE, Server, servers};
use serde_json::{Value, json};
use sundew_adapter::PeerName;
use sundew_socketio::adapter::AdapterError;
use sundew_socketio::{Ack, BroadcastAckError, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn one_client_each(servers: &[Server], nsp: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for server in servers {
        server.io.of(nsp);
        clients.push(Client::connect(server.addr, nsp).await);
    }
    clients
}

#[tokio::test]
async fn a_broadcast_reaches_the_clients_of_all_servers_once() {
    let servers = servers(3).await;
    let mut clients = one_client_each(&servers, "/ws").await;
    servers[0].io.of("/ws").emit("news", ("ü", 1));
    servers[1].io.of("/ws").emit("more", json!({ "deep": [1, null] }));
    // Not to clients of another namespace.
    servers[1].io.of("/").emit("elsewhere", ());
    servers[2].io.of("/ws").emit("last", ());
    for (index, client) in clients.iter_mut().enumerate() {
        let mut got = Vec::new();
        while got.len() < 3 {
            got.push(client.expect("2").await);
        }
        got.sort();
        assert_eq!(
            got,
            [r#"["last"]"#, r#"["more",{"deep":[1,null]}]"#, r#"["news","ü",1]"#],
            "client {index}"
        );
        // Nothing came twice: the next message is the next broadcast.
        servers[index].io.of("/ws").local().emit("mark", index);
        assert_eq!(client.expect("2").await, format!("[\"mark\",{index}]"));
    }
}

/// Whether the next poll of a client that takes gzip is answered with it.
async fn poll_is_compressed(client: &Client) -> bool {
    let mut stream = TcpStream::connect(client.addr).await.unwrap();
    let head = format!(
        "GET /socket.io/?EIO=4&transport=polling&sid={} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         accept-encoding: gzip\r\n\r\n",
        client.sid
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.contains("content-encoding: gzip")
}

#[tokio::test]
async fn what_is_not_to_be_compressed_is_not_by_any_server() {
    let servers = servers(2).await;
    let clients = one_client_each(&servers, "/ws").await;
    let text = "again and again ".repeat(200);
    for compress in [true, false] {
        servers[0].io.of("/ws").compress(compress).emit("text", &text);
        for client in &clients {
            assert_eq!(poll_is_compressed(client).await, compress);
        }
    }
}

#[tokio::test]
async fn binary_arrives_as_it_was_sent() {
    let servers = servers(2).await;
    let mut clients = one_client_each(&servers, "/ws").await;
    servers[0].io.of("/ws").emit("file", ("name", Bytes::from_static(b"\0\x01\xfe\xff"), Bytes::new()));
    for client in &mut clients {
        assert_eq!(
            client.expect("52-").await,
            r#"["file","name",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#
        );
        assert_eq!(client.recv().await, "bAAH+/w==");
        assert_eq!(client.recv().await, "b");
    }
}

#[tokio::test]
async fn rooms_span_servers() {
    let servers = servers(3).await;
    let mut clients = one_client_each(&servers, "/ws").await;
    let nsp = servers[0].io.of("/ws");
    // From one server, into a room: a socket of another, and all.
    nsp.to(&clients[1].id).sockets_join("one");
    nsp.sockets_join(["all", "some"]);
    nsp.to(&clients[2].id).sockets_leave("some");
    nsp.to("one").emit("to-one", ());
    assert_eq!(clients[1].expect("2").await, r#"["to-one"]"#);
    nsp.to(["some", "all"]).except("one").emit("not-one", ());
    nsp.to("some").emit("to-some", ());
    nsp.to("all").emit("to-all", ());
    let expected: [&[&str]; 3] =
        [&["not-one", "to-some", "to-all"], &["to-some", "to-all"], &["not-one", "to-all"]];
    for (client, expected) in clients.iter_mut().zip(expected) {
        for event in expected {
            assert_eq!(client.expect("2").await, format!("[\"{event}\"]"));
        }
    }

    let mut sockets = nsp.to("all").fetch_sockets().await.unwrap();
    sockets.sort_by(|a, b| a.id().cmp(b.id()));
    let mut ids: Vec<&str> = clients.iter().map(|client| client.id.as_str()).collect();
    ids.sort();
    assert_eq!(sockets.iter().map(|socket| socket.id()).collect::<Vec<_>>(), ids);
    let second = sockets.iter().find(|socket| socket.id() == clients[1].id).unwrap();
    let mut rooms = second.rooms().to_vec();
    rooms.retain(|room| *room != clients[1].id);
    rooms.sort();
    assert_eq!(rooms, ["all", "one", "some"]);

    // And out of the namespace.
    nsp.to("one").disconnect_sockets(false);
    assert_eq!(clients[1].recv().await, "41/ws,");
    tokio::time::timeout(PATIENCE, async {
        while nsp.fetch_sockets().await.unwrap().len() > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the socket is still listed");
}

#[tokio::test]
async fn sockets_that_fill_more_than_a_frame_are_all_fetched() {
    const EACH: usize = 3 << 20;
    const MANY: usize = 24;
    let servers = servers(2).await;
    for _ in 0..MANY {
        Client::connect(servers[1].addr, "/").await;
    }
    for socket in servers[1].io.sockets() {
        socket.set_data("d".repeat(EACH)).unwrap();
    }
    let sockets = servers[0].io.timeout(6 * PATIENCE).fetch_sockets().await.unwrap();
    let mut ids: Vec<_> = sockets.iter().map(|socket| socket.id().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), MANY);
    assert!(sockets.iter().all(|socket| socket.data().as_str().is_some_and(|data| data.len() == EACH)));
    assert_eq!(servers[1].bus.dropped(), 0);
}

#[tokio::test]
async fn an_answer_no_frame_takes_is_an_error_at_once() {
    let servers = servers(3).await;
    servers[1].io.on_server_event("all", async |ack: Ack| ack.send("x".repeat(65 << 20)).unwrap());
    servers[2].io.on_server_event("all", async |ack: Ack| ack.send("a little").unwrap());
    let began = Instant::now();
    let asked = servers[0].io.server_side_emit_with_ack::<String>("all", ()).timeout(30 * PATIENCE).await;
    match asked {
        Err(BroadcastAckError::Adapter { error: AdapterError::Failed(why), answers }) => {
            assert!(why.starts_with("worker 1 ") && why.contains("over the limit"), "{why}");
            assert_eq!(answers.len(), 1);
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < 15 * PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn acknowledgements_of_a_broadcast_are_collected_from_all_servers() {
    let servers = servers(3).await;
    let mut clients = one_client_each(&servers, "/ws").await;
    let nsp = servers[0].io.of("/ws");
    let ask = tokio::spawn({
        let nsp = nsp.clone();
        async move { nsp.timeout(PATIENCE).emit_with_ack::<Value>("question", "why").await }
    });
    for (index, client) in clients.iter_mut().enumerate() {
        let packet = client.expect("2").await;
        let (id, args) = packet.split_once('[').unwrap();
        assert_eq!(args, r#""question","why"]"#);
        client.send("3", &format!("{id}[{{\"from\":{index}}}]")).await;
    }
    let mut answers = ask.await.unwrap().unwrap();
    answers.sort_by_key(|answer| answer["from"].as_u64());
    assert_eq!(answers, [json!({"from": 0}), json!({"from": 1}), json!({"from": 2})]);

    // One of another server does not answer: it is counted, and the others' answers are there.
    let ask = tokio::spawn(async move {
        nsp.timeout(Duration::from_millis(300)).emit_with_ack::<Value>("again", ()).await
    });
    for client in &mut clients[..2] {
        let packet = client.expect("2").await;
        client.send("3", &format!("{}[7]", packet.split_once('[').unwrap().0)).await;
    }
    match ask.await.unwrap() {
        Err(BroadcastAckError::Incomplete { answers, expected: 3, missing: 1 }) => {
            assert_eq!(answers.len(), 2)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn clients_that_never_acknowledge_leave_their_server_free_to_answer_others() {
    let servers = servers(2).await;
    let nsp = servers[0].io.of("/ws");
    servers[1].io.of("/ws");
    let mut silent = Client::connect(servers[1].addr, "/ws").await;
    const ASKED: usize = 5_000;
    let mut asks = Vec::new();
    for _ in 0..ASKED {
        let to_it = nsp.to(&*silent.id).timeout(60 * PATIENCE);
        asks.push(tokio::spawn(async move { to_it.emit_with_ack::<Value>("ring", ()).await.is_ok() }));
    }
    let mut last = String::new();
    for _ in 0..ASKED {
        last = silent.expect("2").await;
    }
    assert_eq!(nsp.timeout(PATIENCE).fetch_sockets().await.unwrap().len(), 1);

    // Each was asked, and one that answers is heard.
    silent.send("3", &format!("{}[7]", last.split_once('[').unwrap().0)).await;
    tokio::time::timeout(PATIENCE, async {
        while !asks.iter().any(|ask| ask.is_finished()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the answer was not heard");
    assert_eq!(asks.iter().filter(|ask| ask.is_finished()).count(), 1);
}

#[tokio::test]
async fn a_destructor_of_the_app_that_panics_leaves_the_servers_joined() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a destructor of the app's");
        }
    }
    let servers = servers(2).await;
    servers[1].io.of("/ws").on_connect(async |socket: Socket| {
        let bomb = Bomb;
        socket.on_disconnect(move || {
            let _ = &bomb;
            async {}
        });
    });
    let mut victim = Client::connect(servers[1].addr, "/ws").await;
    let mut other = Client::connect(servers[1].addr, "/").await;
    servers[0].io.of("/ws").to(&victim.id).disconnect_sockets(false);
    assert_eq!(victim.recv().await, "41/ws,");
    servers[0].io.emit("still", ());
    assert_eq!(other.recv().await, "42[\"still\"]");
    for server in &servers {
        assert_eq!(server.bus.peers().len(), 1);
        assert_eq!(server.io.timeout(6 * PATIENCE).fetch_sockets().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_request_holds_nobody_up() {
    let mut servers = servers(2).await;
    // The third lives in a runtime of its own, and its links and connections end with that.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let third = runtime.spawn(Server::start()).await.unwrap();
    for (slot, server) in (0..).zip(&servers) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        server.bus.add_peer(PeerName { slot: 9, generation: 1 }, ours).unwrap();
        let bus = third.bus.clone();
        let link = async move { bus.add_peer(PeerName { slot, generation: 1 }, theirs) };
        runtime.spawn(link).await.unwrap().unwrap();
    }
    servers.push(third);
    let mut clients = one_client_each(&servers, "/ws").await;

    let nsp = servers[0].io.of("/ws");
    let began = Instant::now();
    let ask =
        tokio::spawn(async move { nsp.timeout(6 * PATIENCE).emit_with_ack::<Value>("question", ()).await });
    for client in &mut clients[..2] {
        let packet = client.expect("2").await;
        client.send("3", &format!("{}[7]", packet.split_once('[').unwrap().0)).await;
    }
    clients[2].expect("2").await;
    runtime.shutdown_background();
    match ask.await.unwrap() {
        Err(BroadcastAckError::Incomplete { answers, expected: 3, missing: 1 }) => {
            assert_eq!(answers.len(), 2)
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < 3 * PATIENCE, "{:?}", began.elapsed());

    // Those that are left go on.
    assert_eq!(servers[1].io.of("/ws").fetch_sockets().await.unwrap().len(), 2);
    servers[1].io.of("/ws").emit("still", ());
    for client in &mut clients[..2] {
        assert_eq!(client.expect("2").await, r#"["still"]"#);
    }
}
