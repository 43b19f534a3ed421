//! What servers say to each other, and namespaces that only some of them have.

#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Client, PATIENCE, Server, mesh, servers};
use serde_json::{Value, json};
use sundew_adapter::LocalBus;
use sundew_socketio::{Ack, BroadcastAckError, Data, EmitError, Event, Namespace, SocketIo};
use tokio::sync::{Notify, mpsc};

/// What a namespace hears of other servers.
fn listen(nsp: &Namespace, events: &[&str], at: usize, log: &mpsc::UnboundedSender<(usize, String)>) {
    for event in events {
        let log = log.clone();
        nsp.on_server_event(event, move |nsp: Namespace, event: Event, args: sundew_socketio::Args| {
            let log = log.clone();
            async move {
                let bytes = args.attachments().iter().map(Bytes::len).sum::<usize>();
                log.send((at, format!("{} {event} {} {bytes}", nsp.name(), args.elements()))).unwrap();
            }
        });
    }
}

async fn next<T>(log: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(PATIENCE, log.recv()).await.expect("nothing was heard").unwrap()
}

#[tokio::test]
async fn the_other_servers_hear_an_event_once_and_in_order() {
    let servers = servers(3).await;
    let (sender, mut log) = mpsc::unbounded_channel();
    for (at, server) in servers.iter().enumerate() {
        listen(&server.io, &["hello", "n", "end"], at, &sender);
        listen(&server.io.of("/ws"), &["hello"], at, &sender);
    }
    servers[0].io.server_side_emit("hello", ("ü", json!({"a": [1]}), Bytes::from_static(b"\0\xff"))).unwrap();
    servers[0].io.of("/ws").server_side_emit("hello", ()).unwrap();
    servers[0].io.server_side_emit("nobody-listens", ()).unwrap();
    for n in 0..1000 {
        servers[0].io.server_side_emit("n", n).unwrap();
    }
    servers[0].io.server_side_emit("end", ()).unwrap();
    let mut heard = vec![Vec::new(); 3];
    while heard.iter().filter(|all| all.last().is_some_and(|last: &String| last == "/ end  0")).count() < 2 {
        let (at, text) = next(&mut log).await;
        heard[at].push(text);
    }
    assert!(heard[0].is_empty(), "{:?}", heard[0]);
    assert_eq!(heard[1][0], "/ hello \"ü\",{\"a\":[1]},{\"_placeholder\":true,\"num\":0} 2");
    assert_eq!(heard[1][1], "/ws hello  0");
    let numbers: Vec<String> = (0..1000).map(|n| format!("/ n {n} 0")).collect();
    assert_eq!(heard[1][2..1002], numbers);
    assert_eq!(heard[1], heard[2]);
    for name in ["connect", "connection", "new_namespace"] {
        assert!(matches!(servers[0].io.server_side_emit(name, ()), Err(EmitError::Reserved(_))));
    }
}

#[tokio::test]
async fn answers_of_the_other_servers_are_collected() {
    let servers = servers(3).await;
    for (at, server) in servers.iter().enumerate() {
        server.io.on_server_event("sum", async |Data((a, b)): Data<(usize, usize)>, ack: Ack| {
            tokio::task::yield_now().await;
            ack.send(json!({"sum": a + b})).unwrap();
        });
        if at != 1 {
            server.io.on_server_event("some", async |ack: Ack| ack.send("here").unwrap());
        }
        server.io.on_server_event("never", async |_ack: Ack| std::future::pending::<()>().await);
    }
    let (sender, mut errors) = mpsc::unbounded_channel();
    servers[1].io.on_server_event("fails", async |_ack: Ack| Err::<(), _>("no")).on_error(move |error| {
        sender.send((error.event.clone(), error.socket_id.clone(), error.failure.to_string())).unwrap();
    });
    servers[2].io.on_server_event("fails", async |Data(_): Data<String>| -> () { panic!("boom") });
    let io = &servers[0].io;
    let sums: Vec<Value> = io.server_side_emit_with_ack("sum", (2, 3)).await.unwrap();
    assert_eq!(sums, [json!({"sum": 5}), json!({"sum": 5})]);
    match io.server_side_emit_with_ack::<String>("some", ()).timeout(PATIENCE).await {
        Err(BroadcastAckError::Incomplete { answers, expected: 2, missing: 1 }) => {
            assert_eq!(answers[0].decode::<String>().unwrap(), "here");
        }
        other => panic!("{other:?}"),
    }
    match io.server_side_emit_with_ack::<usize>("sum", (2, 3)).await {
        Err(BroadcastAckError::Data { answers, .. }) => {
            let sums: Vec<Value> = answers.iter().map(|answer| answer.decode().unwrap()).collect();
            assert_eq!(sums, [json!({"sum": 5}), json!({"sum": 5})]);
        }
        other => panic!("{other:?}"),
    }
    for event in ["fails", "never"] {
        match io.server_side_emit_with_ack::<()>(event, "x").timeout(Duration::from_millis(200)).await {
            Err(BroadcastAckError::Incomplete { answers, expected: 2, missing: 2 }) if answers.is_empty() => {
            }
            other => panic!("{event}: {other:?}"),
        }
    }
    assert_eq!(
        next(&mut errors).await,
        ("fails".to_owned(), String::new(), "the handler failed: no".to_owned())
    );
    assert_eq!((servers[1].io.troubles().handler_errors, servers[2].io.troubles().panics), (1, 1));
    assert!(matches!(
        io.server_side_emit_with_ack::<()>("connection", ()).await,
        Err(BroadcastAckError::Emit(EmitError::Reserved(_)))
    ));
    // Alone, there is nobody to ask.
    let alone = SocketIo::new();
    alone.server_side_emit("x", ()).unwrap();
    assert!(alone.server_side_emit_with_ack::<()>("x", ()).await.unwrap().is_empty());
}

#[tokio::test]
async fn too_many_events_of_other_servers_are_dropped_and_counted() {
    let buses = [LocalBus::new(), LocalBus::new()];
    let from = SocketIo::builder().adapter(buses[0].clone()).build();
    let to = SocketIo::builder().adapter(buses[1].clone()).max_server_events(2).build();
    mesh(&[&buses[0], &buses[1]]);
    let gate = Arc::new(Notify::new());
    let (sender, mut done) = mpsc::unbounded_channel();
    let waits = gate.clone();
    to.on_server_event("slow", move |Data(n): Data<u32>| {
        let (waits, sender) = (waits.clone(), sender.clone());
        async move {
            waits.notified().await;
            sender.send(n).unwrap();
        }
    });
    for n in 0..5 {
        from.server_side_emit("slow", n).unwrap();
    }
    tokio::time::timeout(PATIENCE, async {
        while to.troubles().server_events_dropped < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("all were taken");
    gate.notify_waiters();
    let mut finished = [next(&mut done).await, next(&mut done).await];
    finished.sort_unstable();
    assert_eq!(finished, [0, 1]);
    // Their places are free again.
    gate.notify_one();
    from.server_side_emit("slow", 9).unwrap();
    assert_eq!(next(&mut done).await, 9);
}

#[tokio::test]
async fn a_parent_reaches_children_that_only_another_server_has() {
    let servers = servers(2).await;
    let (sender, mut log) = mpsc::unbounded_channel();
    let parents: Vec<Namespace> =
        servers.iter().map(|server: &Server| server.io.of_pattern("/org-{id}").unwrap()).collect();
    listen(&parents[1], &["hello"], 1, &sender);
    let mut a = Client::connect(servers[0].addr, "/org-a").await;
    let mut b = Client::connect(servers[1].addr, "/org-b").await;
    let mut c = Client::connect(servers[1].addr, "/org-c").await;
    assert_eq!((parents[0].children().len(), parents[1].children().len()), (1, 2));
    parents[0].emit("news", 1);
    for client in [&mut a, &mut b, &mut c] {
        assert_eq!(client.expect("2").await, "[\"news\",1]");
    }
    parents[0].to(&b.id).sockets_join("room");
    parents[0].to("room").emit("room", ());
    assert_eq!(b.expect("2").await, "[\"room\"]");
    assert_eq!(parents[0].fetch_sockets().await.unwrap().len(), 3);
    // Once, though there are two children.
    parents[0].server_side_emit("hello", ()).unwrap();
    servers[0].io.of("/org-b").server_side_emit("hello", 2).unwrap();
    assert_eq!(next(&mut log).await, (1, "~/org-{id} hello  0".to_owned()));
    assert_eq!(next(&mut log).await, (1, "/org-b hello 2 0".to_owned()));

    let ask = tokio::spawn({
        let parent = parents[0].clone();
        async move { parent.timeout(PATIENCE).emit_with_ack::<u32>("q", ()).await }
    });
    for (n, client) in [&mut a, &mut b, &mut c].into_iter().enumerate() {
        let question = client.expect("2").await;
        client.send("3", &format!("{}[{n}]", question.split_once('[').unwrap().0)).await;
    }
    let mut answers = ask.await.unwrap().unwrap();
    answers.sort_unstable();
    assert_eq!(answers, [0, 1, 2]);
}
