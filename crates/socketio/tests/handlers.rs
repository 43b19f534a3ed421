//! What handlers may rely on: order, isolation, what they are given, and that they run to their end.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use serde_json::{Value, json};
use sundew_socketio::{
    Ack, Args, Auth, ConnectError, Data, DisconnectReason, Event, Failure, HttpExtension, Order, Params,
    Socket, SocketIo, State,
};
use support::{Client, PATIENCE, client, quick, serve, with};
use tokio::sync::{Notify, mpsc};

async fn next<T>(receiver: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("nothing happened").expect("sender gone")
}

#[tokio::test]
async fn extractors_give_what_they_say() {
    let io = SocketIo::builder().state(String::from("state")).keep_headers(true).build();
    io.on(
        "mixed",
        async |socket: Socket,
               io: SocketIo,
               State(state): State<String>,
               event: Event,
               Data((number, text)): Data<(u8, Option<String>)>,
               ack: Ack| {
            let peer = socket.peer_addr().map(|addr| addr.ip().to_string());
            let agent = socket.headers().and_then(|headers| headers.get("host")).is_some();
            ack.send((state, event.0.to_string(), number, text, io.socket_count(), peer, agent)).unwrap();
        },
    );
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("421[\"mixed\",7]");
        let answer = c.text();
        assert!(answer.starts_with("431[\"state\",\"mixed\",7,null,1,"), "{answer}");
        assert!(answer.ends_with(",true]"));
    })
    .await;
}

/// Whoever has read them before: observers, middleware, an extractor further left.
#[tokio::test]
async fn the_arguments_are_there_for_everybody() {
    let io = SocketIo::new();
    let (seen, mut told) = mpsc::unbounded_channel();
    let tell = move |who: &'static str| {
        let seen = seen.clone();
        move |args: Args| {
            seen.send((who, args.elements().to_owned())).unwrap();
            std::future::ready(())
        }
    };
    io.on_any(tell("observer")).on_any(tell("another"));
    let middleware = tell("middleware");
    io.with_event(move |args: Args| {
        drop(middleware(args));
        std::future::ready(Ok::<(), &str>(()))
    });
    io.on("last", tell("last"));
    let handler = tell("handler");
    io.on("often", move |first: Args, Data(number): Data<u8>, last: Args| {
        assert_eq!((first.elements(), number), ("1,\"x\"", 1));
        handler(last)
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("42[\"last\",1,\"x\"]");
        c.send("42[\"often\",1,\"x\"]");
    })
    .await;
    for who in ["last", "handler"].into_iter().flat_map(|last| ["observer", "another", "middleware", last]) {
        assert_eq!(next(&mut told).await, (who, "1,\"x\"".to_owned()));
    }
}

/// A layer around the server knows who asks.
#[tokio::test]
async fn what_a_layer_has_put_into_the_request_reaches_handlers() {
    #[derive(Clone, Debug, PartialEq)]
    struct User(String);
    #[derive(Clone)]
    struct Secret;

    let io = SocketIo::builder().keep_extension::<User>().build();
    let (errors, mut reported) = mpsc::unbounded_channel();
    io.on("who", async |HttpExtension(user): HttpExtension<User>, ack: Ack| ack.send(user.0))
        .on("secret", async |_: HttpExtension<Secret>| {})
        .on_error(move |failure| errors.send(failure.to_string()).unwrap());
    let identify = async |mut request: Request, next: Next| {
        let user = User(request.uri().query().unwrap().rsplit('=').next().unwrap().to_owned());
        request.extensions_mut().insert(user);
        request.extensions_mut().insert(Secret);
        next.run(request).await
    };
    let app = axum::Router::new().layer(io.layer()).layer(axum::middleware::from_fn(identify));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    client(move || {
        let mut clients = ["ann", "bob"].map(|name| {
            let mut c = Client::open_at(addr, &format!("EIO=4&transport=websocket&user={name}"));
            c.join("/");
            (name, c)
        });
        for (name, c) in &mut clients {
            c.send("421[\"who\"]");
            c.expect(&format!("431[\"{name}\"]"));
            c.send("42[\"secret\"]");
        }
        // Only who is asked for: the rest of the extensions is not kept.
        clients.map(|(_, c)| c)
    })
    .await;
    assert!(next(&mut reported).await.contains("there is no HttpExtension<"));
    let users = io.sockets().into_iter().map(|socket| socket.extension::<User>().unwrap().0);
    let mut users = users.collect::<Vec<_>>();
    users.sort();
    assert_eq!(users, ["ann", "bob"]);
}

#[tokio::test]
async fn a_mismatch_is_reported_and_costs_nothing_else() {
    let io = SocketIo::new();
    let (errors, mut reported) = mpsc::unbounded_channel();
    io.on("number", async |Data(_): Data<u32>| {})
        .on("fails", async || Err::<(), _>("no luck"))
        .on("panics", async || -> () { panic!("boom") })
        .on("panics-later", async || {
            tokio::task::yield_now().await;
            assert_eq!(1, 2, "later");
        })
        .on("no-state", async |State(_): State<Vec<u8>>| {})
        .on("ping", async |socket: Socket| socket.emit("pong", ()))
        .on_error(move |error| errors.send(format!("{}: {}", error.event, error.failure)).unwrap());
    io.on("ping", async |socket: Socket| socket.emit("pong", ()).unwrap());
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        for event in ["number", "fails", "panics", "panics-later", "no-state", "unknown"] {
            c.send(&format!("42[\"{event}\",\"x\"]"));
        }
        c.send("42[\"ping\"]");
        c.expect("42[\"pong\"]");
    })
    .await;
    let mut all: Vec<String> = Vec::new();
    for _ in 0..5 {
        all.push(next(&mut reported).await);
    }
    all.sort();
    assert!(all[1].starts_with("no-state: there is no State<alloc::vec::Vec<u8>>"), "{all:?}");
    assert!(
        all[2].starts_with("number: the arguments cannot be read as u32: invalid type, expected u32"),
        "{all:?}"
    );
    assert_eq!(all[0], "fails: the handler failed: no luck");
    assert_eq!(
        all[3],
        "panics-later: the handler panicked: assertion `left == right` failed: later\n  left: 1\n right: 2"
    );
    assert_eq!(all[4], "panics: the handler panicked: boom");
    let troubles = io.troubles();
    assert_eq!((troubles.handler_errors, troubles.bad_arguments, troubles.panics), (2, 1, 2));
    assert_eq!(troubles.unhandled, 1);
}

#[tokio::test]
async fn rooms_that_a_middleware_joins_are_joined_on_entering() {
    let io = SocketIo::builder().max_rooms(2).build();
    let heard = io.clone();
    io.with(async |socket: Socket, Auth(auth): Auth<Value>| {
        let name = auth["name"].as_str().unwrap().to_owned();
        socket.join([format!("user:{name}"), "left".to_owned()]);
        socket.leave("left");
        tokio::task::yield_now().await;
        socket.join(["all", "all", "too many"]);
        assert_eq!(socket.rooms(), [format!("user:{name}"), "all".to_owned()]);
        match &*name {
            "mallory" => Err("go away"),
            _ => Ok(()),
        }
    });
    io.on_connect(async |socket: Socket| {
        assert_eq!(socket.rooms()[1..], ["user:alice", "all"]);
        socket.leave("all");
        assert_eq!(socket.rooms()[1..], ["user:alice"]);
        socket.join("all");
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::open(addr);
        c.send("40{\"name\":\"mallory\"}");
        c.expect("44{\"message\":\"go away\"}");
        assert_eq!(heard.to("all").emit("nobody", ()).sockets, 0);
        c.send("40{\"name\":\"alice\"}");
        assert!(c.text().starts_with("40{"));
        // Answered once on_connect is through.
        heard.to("user:alice").emit("one", ());
        heard.to("all").emit("all", ());
        c.expect("42[\"one\"]");
        c.expect("42[\"all\"]");
        assert_eq!(heard.to("left").emit("nobody", ()).sockets, 0);
    })
    .await;
    let troubles = io.troubles();
    assert_eq!((troubles.rooms_refused, troubles.handler_errors), (2, 0));
}

#[tokio::test]
async fn middleware_refuses_with_message_and_data() {
    let io = SocketIo::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    io.of("/mw")
        .with(async |Auth(auth): Auth<Value>| {
            tokio::task::yield_now().await;
            match auth["token"].as_str() {
                Some("good") => Ok(()),
                Some("text") => Err(ConnectError::from("plain")),
                _ => Err(ConnectError::new("not authorized").with_data(json!({"content": "x"}))),
            }
        })
        .with(async |socket: Socket| {
            assert!(!socket.is_connected());
            Ok::<(), String>(())
        })
        .on_connect(with!([count] () => {
            count.fetch_add(1, Ordering::SeqCst);
        }));
    io.of("/broken").with(async || -> Result<(), String> { panic!("secret") });
    let addr = serve(&io).await;
    let _client = client(move || {
        let mut c = Client::open(addr);
        c.send("40/mw,");
        c.expect("44/mw,{\"message\":\"not authorized\",\"data\":{\"content\":\"x\"}}");
        c.send("40/mw,{\"token\":\"text\"}");
        c.expect("44/mw,{\"message\":\"plain\"}");
        c.send("40/broken,");
        c.expect("44/broken,{\"message\":\"Internal error\"}");
        c.send("40/mw,{\"token\":\"good\"}");
        assert!(c.text().starts_with("40/mw,{\"sid\""));
        c
    })
    .await;
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    let troubles = io.troubles();
    assert_eq!((io.of("/mw").socket_count(), troubles.panics, troubles.connects_refused), (1, 1, 3));
}

#[tokio::test]
async fn connect_is_answered_before_what_on_connect_sends_and_events_wait_for_it() {
    let io = SocketIo::new();
    let gate = Arc::new(Notify::new());
    let waits = gate.clone();
    io.on_connect(with!([waits] (socket: Socket) => {
        socket.emit("first", 1).unwrap();
        assert!(socket.rooms().contains(&socket.id().to_owned()));
        // It hears broadcasts from the start.
        socket.namespace().emit("all", ());
        waits.notified().await;
        socket.on("late", async |socket: Socket, Data(n): Data<u32>| socket.emit("own", n).unwrap());
        socket.emit("ready", ()).unwrap();
    }));
    io.on("late", async |socket: Socket| socket.emit("namespace", ()).unwrap());
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::open(addr);
        c.send("40");
        c.send("42[\"late\",1]");
        c.send("42[\"late\",2]");
        assert!(c.text().starts_with("40{\"sid\""));
        c.expect("42[\"first\",1]");
        c.expect("42[\"all\"]");
        c
    })
    .await;
    gate.notify_one();
    client(move || {
        c.expect("42[\"ready\"]");
        c.expect("42[\"own\",1]");
        c.expect("42[\"own\",2]");
    })
    .await;
}

#[tokio::test]
async fn handlers_start_in_order_and_replies_keep_it() {
    let io = SocketIo::builder().max_in_progress(16).build();
    let last = Arc::new(AtomicUsize::new(0));
    io.on(
        "n",
        with!([last] (Data(n): Data<usize>, ack: Ack) => {
            assert_eq!(last.swap(n, Ordering::SeqCst) + 1, n);
            ack.send(n).unwrap();
            if n % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }),
    );
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        for n in 1..=2000 {
            c.send(&format!("42{n}[\"n\",{n}]"));
        }
        for n in 1..=2000 {
            c.expect(&format!("43{n}[{n}]"));
        }
    })
    .await;
    assert_eq!(io.troubles().handler_errors, 0);
}

#[tokio::test]
async fn in_the_serial_order_each_ends_before_the_next_begins() {
    let io = SocketIo::new();
    io.of("/serial").order(Order::Serial).on("n", async |socket: Socket, Data(n): Data<u64>| {
        tokio::time::sleep(Duration::from_millis(n * 7 % 5)).await;
        socket.emit("done", n).unwrap();
    });
    io.of("/side").on("n", async |socket: Socket, Data(n): Data<u64>| {
        tokio::time::sleep(Duration::from_millis(if n == 0 { 100 } else { 1 })).await;
        socket.emit("done", n).unwrap();
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/serial");
        for n in 0..50 {
            c.send(&format!("42/serial,[\"n\",{n}]"));
        }
        for n in 0..50 {
            c.expect(&format!("42/serial,[\"done\",{n}]"));
        }
        let mut c = Client::connect(addr, "/side");
        c.send("42/side,[\"n\",0]");
        c.send("42/side,[\"n\",1]");
        c.expect("42/side,[\"done\",1]");
        c.expect("42/side,[\"done\",0]");
    })
    .await;
}

#[tokio::test]
async fn a_handler_awaits_an_ack_of_its_own_client() {
    // One place only: the ack must come through all the same.
    let io = SocketIo::builder().max_in_progress(1).build();
    io.on("ask", async |socket: Socket, ack: Ack| {
        let answer: (u32, String) = socket.emit_with_ack("question", "?").await.unwrap();
        ack.send(answer).unwrap();
    });
    io.on("n", async |ack: Ack| ack.send("n").unwrap());
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("421[\"ask\"]");
        c.send("422[\"n\"]");
        c.expect("420[\"question\",\"?\"]");
        c.send("430[42,\"x\"]");
        c.expect("431[42,\"x\"]");
        c.expect("432[\"n\"]");
    })
    .await;
}

#[tokio::test]
async fn too_many_handlers_push_back_and_nothing_is_lost() {
    let io = SocketIo::builder().max_in_progress(4).max_waiting(8).build();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    io.on(
        "n",
        with!([most, running] (Data(n): Data<u32>, ack: Ack) => {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            ack.send(n).unwrap();
        }),
    );
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        for n in 0..500 {
            c.send(&format!("42{n}[\"n\",{n}]"));
        }
        let mut answers: Vec<String> = (0..500).map(|_| c.text()).collect();
        answers.sort();
        answers.dedup();
        assert_eq!(answers.len(), 500);
    })
    .await;
    assert!(peak.load(Ordering::SeqCst) <= 4);
}

/// Large events that wait behind a handler are not kept without end: the client has to wait.
#[tokio::test]
async fn what_waits_is_bounded_in_bytes_too() {
    const ALL: usize = 100;
    let io = SocketIo::new();
    let (gate, handled) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    io.order(Order::Serial).on(
        "n",
        with!([gate, handled] (Data((n, _)): Data<(usize, String)>, ack: Ack) => {
            if n == 0 {
                gate.notified().await;
            }
            assert_eq!(handled.fetch_add(1, Ordering::SeqCst), n);
            if n == ALL - 1 {
                ack.send("all").unwrap();
            }
        }),
    );
    let addr = serve(&io).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let sending = tokio::task::spawn_blocking(move || {
        let mut c = Client::connect(addr, "/");
        let blob = "x".repeat(900_000);
        for n in 0..ALL {
            c.send(&format!("42{n}[\"n\",{n},\"{blob}\"]"));
            count.fetch_add(1, Ordering::SeqCst);
        }
        c.expect(&format!("43{}[\"all\"]", ALL - 1));
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What the kernel holds on the way is some megabytes.
    let stuck = sent.load(Ordering::SeqCst);
    assert!(stuck < 30, "{stuck}");
    gate.notify_one();
    sending.await.unwrap();
    assert_eq!(handled.load(Ordering::SeqCst), ALL);
}

#[tokio::test]
async fn a_handler_asleep_when_its_client_leaves_still_completes() {
    let io = SocketIo::new();
    let (sender, mut events) = mpsc::unbounded_channel();
    let (gate, started) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (waits, begun, left) = (gate.clone(), started.clone(), sender.clone());
    io.on(
        "slow",
        with!([begun, waits, sender] (socket: Socket) => {
            begun.notify_one();
            waits.notified().await;
            sender.send(format!("finished {:?}", socket.emit("x", ()).is_err())).unwrap();
        }),
    );
    io.on_disconnect(with!([left] (reason: DisconnectReason) => left.send(reason.to_string()).unwrap()));
    let addr = serve(&io).await;
    let c = client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("42[\"slow\"]");
        c
    })
    .await;
    started.notified().await;
    client(move || c.vanish()).await;
    assert!(next(&mut events).await.starts_with("transport"));
    gate.notify_one();
    assert_eq!(next(&mut events).await, "finished true");
}

#[tokio::test]
async fn reasons_and_rooms_of_those_who_leave() {
    let io = quick().build();
    let (sender, mut events) = mpsc::unbounded_channel();
    let gone = sender.clone();
    io.on_connect(async |socket: Socket| socket.join("r"))
        .on_disconnecting(with!([sender] (socket: Socket, reason: DisconnectReason) => {
            sender.send(format!("{reason} {}", socket.rooms().len())).unwrap();
        }))
        .on_disconnect(with!([gone] (socket: Socket, reason: DisconnectReason) => {
            gone.send(format!("{reason} {}", socket.rooms().len())).unwrap();
        }))
        .on("kick", async |socket: Socket, Data(close): Data<bool>| socket.disconnect(close));
    let addr = serve(&io).await;
    let leave = |run: fn(Client)| client(move || run(Client::connect(addr, "/")));

    for (run, reason) in [
        ((|mut c| c.send("41")) as fn(Client), "client namespace disconnect"),
        (
            |mut c| {
                c.send("42[\"kick\",false]");
                c.expect("41");
                // Ignored, and the connection stays: it may join again.
                c.send("42[\"kick\",false]");
                c.join("/");
                c.send("41");
            },
            "server namespace disconnect",
        ),
        (
            |mut c| {
                c.send("42{}");
                c.expect_closed()
            },
            "forced close",
        ),
        (
            |mut c| {
                c.send("1");
                c.expect_closed()
            },
            "transport close",
        ),
        (
            |mut c| {
                c.send("9");
                c.expect_closed()
            },
            "parse error",
        ),
        (
            |mut c| {
                c.keep_pings = true;
                c.expect("2");
                c.expect_closed();
            },
            "ping timeout",
        ),
    ] {
        leave(run).await;
        assert_eq!(next(&mut events).await, format!("{reason} 2"));
        assert_eq!(next(&mut events).await, format!("{reason} 0"));
        if reason == "server namespace disconnect" {
            assert_eq!(next(&mut events).await, "client namespace disconnect 2");
            assert_eq!(next(&mut events).await, "client namespace disconnect 0");
        }
    }
    leave(|mut c| {
        c.send("42[\"kick\",true]");
        c.expect("41");
        c.expect_closed();
    })
    .await;
    assert_eq!(next(&mut events).await, "server namespace disconnect 2");
    next(&mut events).await;
    let waiting = client(move || Client::connect(addr, "/")).await;
    io.close().await;
    assert_eq!(next(&mut events).await, "server shutting down 2");
    drop(waiting);
    assert_eq!(io.socket_count(), 0);
}

/// Not what an app has to look into.
#[tokio::test]
async fn a_handler_whose_client_has_left_has_not_failed() {
    type Boxed = Box<dyn std::error::Error + Send + Sync>;
    let io = SocketIo::new();
    let (sender, mut errors) = mpsc::unbounded_channel();
    async fn left(socket: Socket) -> Result<(), sundew_socketio::EmitError> {
        while socket.is_connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        socket.emit("late", ())
    }
    io.on("plain", left)
        .on("boxed", async |socket: Socket| Ok::<(), Boxed>(left(socket).await?))
        .on("ack", async |socket: Socket| socket.emit_with_ack::<Value>("ask", ()).await.map(drop))
        .on("refuses", async || Err::<(), Boxed>(sundew_socketio::EventError::new("no").into()))
        .on("fails", async || Err::<(), Boxed>("no".into()))
        .on_error(move |error| sender.send(format!("{} {}", error.event, error.failure)).unwrap());
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        for event in ["plain", "boxed", "ack", "refuses", "fails"] {
            c.send(&format!("42[\"{event}\"]"));
        }
        c.expect("420[\"ask\"]");
    })
    .await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(next(&mut errors).await);
    }
    all.sort();
    let expected = [
        "ack the client has left: socket has been disconnected",
        "boxed the client has left: the socket is disconnected",
        "fails the handler failed: no",
        "plain the client has left: the socket is disconnected",
        "refuses refused: no",
    ];
    assert_eq!(all, expected);
    let troubles = io.troubles();
    assert_eq!((troubles.clients_left, troubles.rejected, troubles.handler_errors), (3, 1, 1));
}

/// Many do not look at what `send` returns.
#[tokio::test]
async fn an_acknowledgement_that_cannot_be_written_is_an_error_to_its_client() {
    let io = SocketIo::new();
    io.on("odd", async |ack: Ack| drop(ack.send(std::collections::HashMap::from([((1, 2), 3)]))));
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("427[\"odd\"]");
        c.expect("437[{\"error\":{\"message\":\"Internal error\"}}]");
    })
    .await;
}

/// A client names its events: it cannot write lines of its own into a log.
#[tokio::test]
async fn a_failure_is_told_in_one_line() {
    let io = SocketIo::new();
    let (sender, mut errors) = mpsc::unbounded_channel();
    let other = sender.clone();
    io.with_event(async || Err::<(), _>("no")).on_error(move |error| sender.send(error.to_string()).unwrap());
    io.of_pattern("/org-{id}")
        .unwrap()
        .on_error(move |error| other.send(error.to_string()).unwrap())
        .on_connect(async |_: Params<u32>| {});
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("42[\"a\\nERROR \\u001b[31mred\"]");
        c.send(&format!("42[\"{}\"]", "x".repeat(1000)));
        c.send("42[\"last\"]");
        c.send("40/org-1\nERROR,");
        c
    })
    .await;
    assert_eq!(next(&mut errors).await, "a\\nERROR \\u{1b}[31mred in /: refused: no");
    assert_eq!(next(&mut errors).await, format!("{} in /: refused: no", "x".repeat(100)));
    assert_eq!(next(&mut errors).await, "last in /: refused: no");
    let params = next(&mut errors).await;
    assert!(params.starts_with("connect in /org-1\\nERROR: the parameters (id=\"1\\nERROR\")"), "{params}");
    assert_eq!(params.lines().count(), 1);
}

#[tokio::test]
async fn the_failure_of_a_handler_names_its_kind() {
    let io = SocketIo::new();
    let (sender, mut errors) = mpsc::unbounded_channel();
    io.on_connect(async || Err::<(), _>("x")).on_error(move |error| {
        sender.send((error.event.clone(), matches!(error.failure, Failure::Returned(_)))).unwrap();
    });
    let addr = serve(&io).await;
    client(move || Client::connect(addr, "/")).await;
    assert_eq!(next(&mut errors).await, ("connect".into(), true));
}

/// Not even where it is asked for by a task of its own, when as many handlers are at work as may be.
#[tokio::test]
async fn handlers_that_are_too_many_get_the_ack_they_wait_for() {
    let io = SocketIo::builder().max_in_progress(1).build();
    io.on("ask", async |socket: Socket, ack: Ack| {
        let asked = tokio::spawn(async move {
            // By now nothing is read from the client.
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.emit_with_ack::<u32>("question", "?").await
        });
        ack.send(asked.await.unwrap().unwrap()).unwrap();
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        for n in 0..5 {
            c.send("427[\"ask\"]");
            c.expect(&format!("42{n}[\"question\",\"?\"]"));
            c.send(&format!("43{n}[{n}]"));
            c.expect(&format!("437[{n}]"));
        }
    })
    .await;
}

/// A guard of the app's that panics when it is dropped, as one does that locks what another panic has poisoned.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// Whatever of the app's is dropped when a socket leaves: its other sockets, and other clients, are none the worse.
#[tokio::test]
async fn a_destructor_that_panics_costs_nobody_else_anything() {
    let io = SocketIo::new();
    let guarded = async |socket: Socket| {
        for event in ["one", "two"] {
            let guard = Guard;
            socket.on(event, move || {
                let _ = &guard;
                async {}
            });
        }
        let guard = Guard;
        socket.on_disconnect(move || {
            let _ = &guard;
            async {}
        });
    };
    io.on_connect(guarded);
    io.of("/b").on_connect(guarded);
    let left = Arc::new(AtomicUsize::new(0));
    io.of("/c").on_disconnect(with!([left] () => { left.fetch_add(1, Ordering::SeqCst); }));
    io.of_when(|_: String, _: Value| async {
        let _guard = Guard;
        std::future::pending::<bool>().await
    });
    let addr = serve(&io).await;
    client(move || {
        let mut bystander = Client::connect(addr, "/c");
        let mut c = Client::connect(addr, "/");
        c.join("/b");
        c.join("/c");
        c.send("40/asked,");
        // From one namespace, then from all.
        c.send("41");
        c.send("42/c,0[\"none\"]");
        c.vanish();
        let mut c = Client::connect(addr, "/");
        c.join("/b");
        c.vanish();
        bystander.send("41/c,");
    })
    .await;
    let rest = async {
        while io.stats().sessions > 0 || io.troubles().panics < 13 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rest).await.expect("somebody is still there");
    assert_eq!(left.load(Ordering::SeqCst), 2);
    for nsp in ["/", "/b", "/c"] {
        assert_eq!(io.of(nsp).socket_count(), 0, "{nsp}");
    }
    assert_eq!(io.troubles().panics, 13);
}
