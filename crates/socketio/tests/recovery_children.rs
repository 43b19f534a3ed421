//! Recovery in namespaces that clients have brought about, and sockets kept beyond their end: in virtual time, over polling.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use sundew_socketio::recovery::{Memory, Recovery};
use sundew_socketio::{EmitError, Namespace, Socket, SocketIo};
use support::bus::{Bus, End};
use support::in_place::InPlace;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

const WINDOW: Duration = Duration::from_secs(60);

fn recovering() -> SocketIo {
    SocketIo::builder().connection_state_recovery(Recovery::new().max_disconnection_duration(WINDOW)).build()
}

/// Joins `/org-7` and is lost. Returns what came before the answer to CONNECT, and the answer.
async fn visit(client: &InPlace, auth: &Value) -> (Vec<String>, Value) {
    let (sid, before, answer) = join(client, auth).await;
    client.leave(&sid).await;
    (before, answer)
}

async fn join(client: &InPlace, auth: &Value) -> (String, Vec<String>, Value) {
    let sid = client.handshake().await;
    client.send(&sid, &format!("40/org-7,{auth}")).await;
    let mut before = Vec::new();
    loop {
        for packet in client.request(Method::GET, &sid, "").await.split('\x1e') {
            match packet.strip_prefix("40/org-7,") {
                None => before.push(packet.to_owned()),
                Some(answer) => {
                    let answer = serde_json::from_str(answer).unwrap();
                    return (sid, before, answer);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_client_of_a_child_misses_nothing() {
    let io = recovering();
    let orgs = io.of_pattern("/org-{id}").unwrap();
    let client = InPlace::new(&io);
    let (_, first) = visit(&client, &json!({})).await;
    while orgs.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    let left = Instant::now();
    orgs.emit("to all orgs", ());
    io.find("/org-7").expect("it stays as long as its client may come back").emit("to one", ());
    sleep_until(left + WINDOW / 2).await;
    let (missed, again) = visit(&client, &json!({"pid": first["pid"]})).await;
    assert_eq!(again, first);
    assert!(missed[0].starts_with("42/org-7,[\"to all orgs\","), "{missed:?}");
    assert!(missed[1].starts_with("42/org-7,[\"to one\","), "{missed:?}");
    assert_eq!(missed.len(), 2);

    // It has left once more, and nobody else is there.
    let left = Instant::now();
    sleep_until(left + WINDOW - Duration::from_secs(1)).await;
    assert!(io.find("/org-7").is_some());
    sleep_until(left + WINDOW + Duration::from_secs(1)).await;
    assert_eq!(io.namespaces(), ["/"]);
    let (missed, anew) = visit(&client, &json!({"pid": first["pid"]})).await;
    assert!(missed.is_empty() && anew["pid"] != first["pid"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_last_client_said_goodbye_goes_at_once() {
    let io = recovering();
    io.of_pattern("/org-{id}").unwrap();
    let client = InPlace::new(&io);
    let sid = client.handshake().await;
    client.send(&sid, "40/org-7,").await;
    client.send(&sid, "41/org-7,").await;
    assert_eq!(io.namespaces(), ["/"]);
}

/// Nothing that is said by a handle of it is kept, least of all for the clients of a new one.
#[tokio::test(start_paused = true)]
async fn a_child_that_has_gone_says_nothing_to_the_next_one_of_its_name() {
    let store = Arc::new(Memory::new());
    let recovery = Recovery::new().max_disconnection_duration(WINDOW).store(store.clone());
    let io = SocketIo::builder().connection_state_recovery(recovery).build();
    let orgs = io.of_pattern("/org-{id}").unwrap();
    let client = InPlace::new(&io);
    visit(&client, &json!({})).await;
    while orgs.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    let old = io.find("/org-7").unwrap();
    sleep(WINDOW + Duration::from_secs(1)).await;
    assert!(io.find("/org-7").is_none());
    old.emit("x", ());
    assert_eq!(store.usage("/org-7"), (0, 0));

    let (_, first) = visit(&client, &json!({})).await;
    while orgs.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    old.emit("x", ());
    old.local().emit("x", ());
    io.find("/org-7").unwrap().emit("y", ());
    let (missed, again) = visit(&client, &json!({"pid": first["pid"]})).await;
    assert_eq!(again, first);
    assert!(missed.len() == 1 && missed[0].starts_with("42/org-7,[\"y\","), "{missed:?}");
}

/// Its last client is thrown out where there is no runtime, while one that has left before may come back.
#[tokio::test(start_paused = true)]
async fn a_child_that_is_emptied_outside_of_a_runtime_goes() {
    let io = recovering();
    let orgs = io.of_pattern("/org-{id}").unwrap();
    let client = InPlace::new(&io);
    visit(&client, &json!({})).await;
    let sid = client.handshake().await;
    client.send(&sid, "40/org-7,").await;
    while orgs.socket_count() != 1 {
        tokio::task::yield_now().await;
    }
    let socket = orgs.sockets().pop().unwrap();
    std::thread::spawn(move || socket.disconnect(false)).join().unwrap();
    assert_eq!(orgs.socket_count(), 0);
    sleep(Duration::from_secs(1)).await;
    assert!(io.find("/org-7").is_some());
    sleep(WINDOW).await;
    assert_eq!(io.namespaces(), ["/"]);
}

/// The runtime that was to look after it ends: whoever brings about another child does.
#[test]
fn a_child_whose_runtime_has_ended_goes_when_there_is_another() {
    let runtime = || Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let io = recovering();
    let orgs = io.of_pattern("/org-{id}").unwrap();
    runtime().block_on(async {
        visit(&InPlace::new(&io), &json!({})).await;
        while orgs.socket_count() > 0 {
            tokio::task::yield_now().await;
        }
    });
    runtime().block_on(async {
        let client = InPlace::new(&io);
        let sid = client.handshake().await;
        client.send(&sid, "40/org-8,").await;
        assert!(io.find("/org-7").is_some());
        sleep(WINDOW + Duration::from_secs(1)).await;
        assert!(io.find("/org-7").is_none());
    });
}

/// An emit is kept for a client that may come back, and for no other.
#[tokio::test(start_paused = true)]
async fn a_socket_is_over_when_its_client_cannot_come_back() {
    let io = recovering();
    let (sockets, mut entered) = mpsc::unbounded_channel();
    io.on_connect(move |socket: Socket| {
        let _ = sockets.send(socket);
        async {}
    });
    let client = InPlace::new(&io);
    let closed = |socket: &Socket| matches!(socket.emit("x", ()), Err(EmitError::Closed));

    // It does not come back.
    let sid = client.open(&json!({})).await;
    let socket = entered.recv().await.unwrap();
    client.leave(&sid).await;
    sleep(WINDOW - Duration::from_secs(1)).await;
    assert!(!closed(&socket));
    sleep(Duration::from_secs(2)).await;
    assert!(closed(&socket));

    // It comes back, and then says goodbye.
    let sid = client.open(&json!({})).await;
    let socket = entered.recv().await.unwrap();
    let answer = client.request(Method::GET, &sid, "").await;
    let answer: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
    client.leave(&sid).await;
    let sid = client.open(&json!({"pid": answer["pid"]})).await;
    let again = entered.recv().await.unwrap();
    assert!(again.recovered() && !closed(&socket));
    client.send(&sid, "41").await;
    assert!(closed(&socket) && closed(&again));
}

/// Three servers that know `/org-{id}`.
fn three(bus: &Arc<Bus>) -> [(SocketIo, Namespace); 3] {
    [0, 1, 2].map(|index| {
        let recovery = Recovery::new().max_disconnection_duration(WINDOW);
        let end = End(bus.clone(), index, 3);
        let io = SocketIo::builder().connection_state_recovery(recovery).adapter(end).build();
        let orgs = io.of_pattern("/org-{id}").unwrap();
        (io, orgs)
    })
}

/// A client that was lost by the first server after an event by the third, of which it says it has had it.
async fn lost_after_one(servers: &[(SocketIo, Namespace); 3]) -> (Value, Value) {
    let [(first, orgs), _, (_, emitter)] = servers;
    let client = InPlace::new(first);
    let (sid, _, answer) = join(&client, &json!({})).await;
    emitter.emit("one", 1);
    let event = client.request(Method::GET, &sid, "").await;
    let event: Vec<Value> = serde_json::from_str(event.strip_prefix("42/org-7,").unwrap()).unwrap();
    client.leave(&sid).await;
    while orgs.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    let auth = json!({"pid": answer["pid"], "offset": event.last()});
    (answer, auth)
}

/// The server it comes back to has heard of the event, but not in a child that was not there.
#[tokio::test(start_paused = true)]
async fn what_its_server_hears_late_is_not_lost_on_another_where_the_child_was_not() {
    let bus = Arc::default();
    let servers = three(&bus);
    let (was, auth) = lost_after_one(&servers).await;
    bus.slow_down((2, 0));
    servers[2].1.emit("two", 2);
    let (missed, is) = visit(&InPlace::new(&servers[1].0), &auth).await;
    assert_eq!(is, was);
    assert!(missed.len() == 1 && missed[0].contains("[\"two\",2,"), "{missed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_neither_server_has_is_a_gap() {
    let bus = Arc::default();
    let servers = three(&bus);
    let (was, auth) = lost_after_one(&servers).await;
    bus.break_off((2, 0));
    servers[2].1.emit("two", 2);
    let (missed, anew) = visit(&InPlace::new(&servers[1].0), &auth).await;
    assert!(missed.is_empty() && anew["pid"] != was["pid"]);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_the_child_was_anywhere_is_no_gap() {
    let bus = Arc::default();
    let servers = three(&bus);
    servers.iter().for_each(|(_, orgs)| drop(orgs.emit("before", ())));
    let (_, was) = visit(&InPlace::new(&servers[0].0), &json!({})).await;
    while servers[0].1.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    let (missed, is) = visit(&InPlace::new(&servers[1].0), &json!({"pid": was["pid"]})).await;
    assert_eq!((is, missed.len()), (was, 0));
}
