//! What bounds a client's events: how deep they are nested, how often they come, how many rooms it can fill.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use sundew_socketio::{Ack, Args, Data, DisconnectReason, Failure, Params, Socket, SocketIo};
use support::{Client, PATIENCE, client, serve, with};
use tokio::sync::{Notify, mpsc};

fn nested(depth: usize) -> String {
    // The event's own array is one level.
    format!("{}1{}", "[".repeat(depth - 1), "]".repeat(depth - 1))
}

#[tokio::test]
async fn what_is_nested_too_deep_closes_the_connection() {
    for most in [128, 5] {
        let builder = SocketIo::builder();
        let io = if most == 128 { builder } else { builder.max_depth(most) }.build();
        io.on("deep", async |args: Args, ack: Ack| ack.send(args).unwrap());
        let addr = serve(&io).await;
        client(move || {
            let mut c = Client::connect(addr, "/");
            let deepest = nested(most);
            c.send(&format!("420[\"deep\",{deepest}]"));
            c.expect(&format!("430[{deepest}]"));
            // Brackets in strings are text.
            let text = format!("\"\\\"{}\"", "[".repeat(1000));
            c.send(&format!("421[\"deep\",{text}]"));
            c.expect(&format!("431[{text}]"));
            c.send(&format!("422[\"deep\",{}]", nested(most + 1)));
            c.expect_closed();
            // As the payload of CONNECT too.
            let mut c = Client::open(addr);
            c.send(&format!("40{{\"a\":{}}}", nested(most + 1)));
            c.expect_closed();
        })
        .await;
        assert_eq!(io.troubles().protocol_errors, 2);
    }
}

/// `serde_json` reads such an object as the JSON in its string, which may be as deep again, and hold another one: 500 KB of
/// this have no stack large enough.
#[tokio::test]
async fn json_that_hides_in_strings_closes_the_connection() {
    let io = SocketIo::new();
    io.on("any", async |Data(value): Data<Value>, ack: Ack| ack.send(value).unwrap());
    let mut hidden = nested(126);
    loop {
        let text = serde_json::to_string(&hidden).unwrap();
        let around = (nested(126), format!("{{\"$serde_json::private::RawValue\":{text}}}"));
        hidden = around.0.replace('1', &around.1);
        if hidden.len() > 300_000 {
            break;
        }
    }
    let addr = serve(&io).await;
    client(move || {
        for (packet, closes) in [
            (format!("420[\"any\",{hidden}]"), true),
            (format!("40{hidden}"), true),
            (format!("430[{}]", hidden.replacen('$', "\\u0024", 1)), true),
            // As text it is text.
            ("420[\"any\",\"{\\\"$serde_json::private::RawValue\\\":1}\"]".to_owned(), false),
        ] {
            let mut c = Client::open(addr);
            if !packet.starts_with("40") {
                c.join("/");
            }
            c.send(&packet);
            match closes {
                true => c.expect_closed(),
                false => assert_eq!(c.text(), packet.replace("420[\"any\",", "430[")),
            }
        }
    })
    .await;
    assert_eq!(io.troubles().protocol_errors, 3);
}

#[tokio::test]
async fn events_beyond_the_rate_are_dropped_answered_counted_and_told_once() {
    let io = SocketIo::new();
    let (sender, mut errors) = mpsc::unbounded_channel();
    let limited = io.of("/limited");
    // What is used up comes back within an hour: not during this test.
    limited.rate_limit(3, Duration::from_secs(3600));
    limited.on("e", async |ack: Ack| ack.send("handled").unwrap());
    limited.on_error(move |error| {
        assert!(matches!(error.failure, Failure::RateLimited));
        sender.send((error.event.clone(), error.socket_id.clone())).unwrap();
    });
    io.on("e", async |ack: Ack| ack.send("free").unwrap());
    let addr = serve(&io).await;
    let (c, id) = client(move || {
        let mut c = Client::open(addr);
        let id = c.join("/limited");
        c.join("/");
        for n in 0..3 {
            c.send(&format!("42/limited,{n}[\"e\"]"));
            c.expect(&format!("43/limited,{n}[\"handled\"]"));
        }
        c.send("42/limited,[\"e\"]");
        c.send("42/limited,7[\"e\"]");
        c.expect("43/limited,7[{\"error\":{\"message\":\"Too many events\"}}]");
        // Other namespaces of the connection, and other sockets, are not concerned.
        c.send("428[\"e\"]");
        c.expect("438[\"free\"]");
        let mut other = Client::connect(addr, "/limited");
        other.send("42/limited,0[\"e\"]");
        other.expect("43/limited,0[\"handled\"]");
        (c, id)
    })
    .await;
    let told = tokio::time::timeout(PATIENCE, errors.recv()).await.unwrap().unwrap();
    assert_eq!(told, ("e".into(), id));
    assert!(errors.try_recv().is_err());
    let troubles = io.troubles();
    assert_eq!((troubles.rate_limited, troubles.rejected, troubles.handler_errors), (2, 0, 0));
    // Off again.
    limited.rate_limit(0, Duration::from_secs(1));
    client(move || {
        let mut c = c;
        c.send("42/limited,9[\"e\"]");
        c.expect("43/limited,9[\"handled\"]");
    })
    .await;
}

#[tokio::test]
async fn a_rate_is_inherited_and_whoever_is_over_it_may_be_disconnected() {
    let io = SocketIo::new();
    let parent = io.of_pattern("/{any}").unwrap();
    parent.rate_limit(1, Duration::from_secs(3600)).on("e", async |Params(_): Params<String>| {});
    let (sender, mut left) = mpsc::unbounded_channel();
    parent.on_disconnect(with!([sender] (reason: DisconnectReason) => sender.send(reason).unwrap()));
    let sockets = parent.clone();
    parent.on_error(move |error| sockets.get(&error.socket_id).unwrap().disconnect(true));
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/x");
        c.send("42/x,[\"e\"]");
        c.send("42/x,[\"e\"]");
        c.expect("41/x,");
        c.expect_closed();
    })
    .await;
    let reason = tokio::time::timeout(PATIENCE, left.recv()).await.unwrap().unwrap();
    assert_eq!(reason, DisconnectReason::ServerNamespaceDisconnect);
}

#[tokio::test]
async fn a_child_may_be_free_of_its_parents_rate() {
    let io = SocketIo::new();
    let parent = io.of_pattern("/{any}").unwrap();
    parent.rate_limit(1, Duration::from_secs(3600)).on("e", async |ack: Ack| ack.send("handled").unwrap());
    io.of("/free").rate_limit(0, Duration::from_secs(1));
    io.of("/at-once").rate_limit(1, Duration::ZERO);
    io.of("/more").rate_limit(2, Duration::from_secs(3600));
    let addr = serve(&io).await;
    client(move || {
        for (nsp, most) in [("/free", 5), ("/at-once", 5), ("/more", 2), ("/like-it", 1)] {
            let mut c = Client::connect(addr, nsp);
            for n in 0..5 {
                c.send(&format!("42{nsp},{n}[\"e\"]"));
                match n < most {
                    true => c.expect(&format!("43{nsp},{n}[\"handled\"]")),
                    false => {
                        c.expect(&format!("43{nsp},{n}[{{\"error\":{{\"message\":\"Too many events\"}}}}]"))
                    }
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_socket_is_in_at_most_so_many_rooms() {
    let io = SocketIo::builder().max_rooms(2).build();
    io.on("join", async |socket: Socket, Data(room): Data<String>, ack: Ack| {
        socket.join(room);
        let mut rooms = socket.rooms();
        rooms.retain(|room| room != socket.id());
        rooms.sort();
        ack.send(rooms).unwrap();
    });
    io.on("leave", async |socket: Socket, Data(room): Data<String>| socket.leave(room));
    let addr = serve(&io).await;
    let c = client(move || {
        let mut c = Client::connect(addr, "/");
        let mut join = |room: &str, rooms: &str| {
            c.send(&format!("420[\"join\",\"{room}\"]"));
            c.expect(&format!("430[{rooms}]"));
        };
        join("a", "[\"a\"]");
        join("b", "[\"a\",\"b\"]");
        join("c", "[\"a\",\"b\"]");
        join("b", "[\"a\",\"b\"]");
        c.send("42[\"leave\",\"a\"]");
        c.send("420[\"join\",\"c\"]");
        c.expect("430[[\"b\",\"c\"]]");
        c
    })
    .await;
    // From outside as well, and its own room is not one of them.
    io.sockets_join(["d", "e"]);
    let rooms = io.sockets()[0].rooms();
    assert_eq!((rooms.len(), rooms[1..].contains(&"d".into())), (3, false));
    assert_eq!(io.troubles().rooms_refused, 3);
    drop(c);
}

#[tokio::test]
async fn a_client_may_take_its_time_where_it_is_given_all_of_it() {
    let addr = serve(&SocketIo::builder().connect_timeout(Duration::MAX).build()).await;
    client(move || {
        let mut c = Client::open(addr);
        assert_eq!(c.join("/").len(), 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_whose_ends_are_still_at_work_count() {
    const MOST: usize = 10;
    let io = SocketIo::builder().max_namespaces(MOST).build();
    let (begun, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    for namespace in [io.of_pattern("/x-{n}").unwrap(), io.of("/y")] {
        namespace.on_disconnecting(with!([go_on] () => go_on.notified().await));
        namespace.on_disconnect(with!([begun, go_on] () => {
            begun.fetch_add(1, Ordering::SeqCst);
            go_on.notified().await;
        }));
    }
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::connect(addr, "/");
        // One of them is the main namespace.
        for n in 1..MOST {
            let nsp = if n % 2 == 0 { format!("/x-{n}") } else { "/y".to_owned() };
            c.join(&nsp);
            c.send(&format!("41{nsp},"));
        }
        for _ in 0..100 {
            c.send("40/y,");
            c.expect("44/y,{\"message\":\"Too many namespaces\"}");
        }
        c
    })
    .await;
    assert_eq!(begun.load(Ordering::SeqCst), MOST - 1);
    // Their namespaces stay for what fails in them.
    assert_eq!(io.namespaces().len(), 2 + (MOST - 1) / 2);
    go_on.notify_waiters();
    let empty = async {
        while io.namespaces().len() > 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, empty).await.expect("children that stay");
    client(move || {
        c.join("/y");
    })
    .await;
}
