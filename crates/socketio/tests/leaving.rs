//! Clients that go or are thrown out while something of theirs still waits, and emits that wait for room.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use sundew_socketio::recovery::Recovery;
use sundew_socketio::{Ack, AckError, DisconnectReason, EmitError, Namespace, Order, Socket, SocketIo};
use support::{Client, PATIENCE, client, quick, serve, with};
use tokio::sync::{Notify, mpsc};

async fn next<T>(receiver: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("nothing happened").expect("sender gone")
}

/// Counts the events `do` that are handled, after `on_connect` has thrown the client out.
async fn thrown_out(close: bool) -> usize {
    let io = quick().build();
    let (handled, proceed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    io.on_connect(with!([proceed] (socket: Socket) => {
        proceed.notified().await;
        socket.disconnect(close);
    }));
    io.on("do", with!([handled] () => { handled.fetch_add(1, Ordering::SeqCst); }));
    let addr = serve(&io).await;
    let go = proceed.clone();
    client(move || {
        let mut c = Client::open(addr);
        c.send("40");
        assert!(c.text().starts_with("40{"));
        c.send("42[\"do\"]");
        c.send("42[\"do\"]");
        std::thread::sleep(Duration::from_millis(100));
        go.notify_one();
        let _ = c.next();
        std::thread::sleep(Duration::from_millis(100));
    })
    .await;
    handled.load(Ordering::SeqCst)
}

#[tokio::test]
async fn nothing_begins_for_a_client_that_was_thrown_out() {
    assert_eq!(thrown_out(false).await, 0);
    assert_eq!(thrown_out(true).await, 0);
}

#[tokio::test]
async fn in_the_serial_order_nothing_follows_a_handler_that_throws_its_client_out() {
    let io = quick().build();
    io.order(Order::Serial);
    let (handled, mut events) = mpsc::unbounded_channel();
    io.on("kick", async |socket: Socket| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        socket.disconnect(false);
    });
    io.on("do", with!([handled] () => { handled.send("do").unwrap(); }));
    io.on_disconnect(with!([handled] () => { handled.send("gone").unwrap(); }));
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("42[\"kick\"]");
        c.send("42[\"do\"]");
        c.expect("41");
        // The connection goes on, and so does a new socket on it.
        c.join("/");
        c.send("42[\"do\"]");
        c.send("41");
    })
    .await;
    assert_eq!(next(&mut events).await, "gone");
    assert_eq!(next(&mut events).await, "do");
    assert_eq!(next(&mut events).await, "gone");
}

#[tokio::test]
async fn who_said_goodbye_has_left_for_that_reason() {
    let io = quick().build();
    io.order(Order::Serial);
    let (left, mut reasons) = mpsc::unbounded_channel();
    io.on("slow", async || tokio::time::sleep(Duration::from_secs(2)).await);
    io.on_disconnect(with!([left] (reason: DisconnectReason) => { left.send(reason).unwrap(); }));
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("42[\"slow\"]");
        c.send("41");
        c.send("1");
        c.expect_closed();
    })
    .await;
    assert_eq!(next(&mut reasons).await, DisconnectReason::ClientNamespaceDisconnect);
}

#[tokio::test]
async fn disconnected_by_its_middleware_a_client_is_told_and_what_it_sent_is_forgotten() {
    let io = quick().build();
    let waits = io.of("/waits");
    waits.with(async |socket: Socket| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        socket.disconnect(false);
        Ok::<(), String>(())
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        // More than `max_waiting` in all: had they been kept, nothing would be read any more.
        for _ in 0..3 {
            c.send("40/waits");
            for _ in 0..600 {
                c.send("42/waits,[\"x\"]");
            }
            c.expect("44/waits,{\"message\":\"Disconnected by the server\"}");
        }
    })
    .await;
}

#[tokio::test]
async fn sockets_that_were_taken_off_count_no_more() {
    let io = quick().max_namespaces(5).build();
    let rooms = io.of_pattern("/room-{id}").unwrap();
    rooms.on("kick", async |socket: Socket| socket.disconnect(false));
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::open(addr);
        for number in 0..20 {
            let nsp = format!("/room-{number}");
            c.join(&nsp);
            c.send(&format!("42{nsp},[\"kick\"]"));
            c.expect(&format!("41{nsp},"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_third_socket_of_one_name_is_a_breach_while_the_first_still_leaves() {
    let io = quick().build();
    io.order(Order::Serial);
    io.on("slow", async || tokio::time::sleep(Duration::from_secs(2)).await);
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("42[\"slow\"]");
        c.send("41");
        c.join("/");
        c.send("40");
        c.expect_closed();
    })
    .await;
}

/// A handler of the client itself sends more than its queue holds, in messages of more than half of it.
#[tokio::test]
async fn an_emit_that_waits_lets_others_work_and_ends() {
    for recovery in [false, true] {
        let mut builder = SocketIo::builder().max_queued(2_000_000, 4096);
        if recovery {
            builder = builder.connection_state_recovery(Recovery::new());
        }
        let io = builder.build();
        io.on("more", async |socket: Socket, namespace: Namespace| {
            for _ in 0..5 {
                socket.emit_async("one", "x".repeat(1_000_000)).await.unwrap();
                socket.emit_async("two", "x".repeat(1_200_000)).await.unwrap();
                let sent = namespace.compress(true).emit_async("three", "x".repeat(1_200_000)).await;
                assert!(sent.error.is_none(), "{:?}", sent.error);
            }
        });
        let addr = serve(&io).await;
        client(move || {
            let mut c = Client::open(addr);
            c.send("40");
            assert!(c.text().starts_with("40{"));
            c.send("42[\"more\"]");
            for _ in 0..5 {
                for event in ["one", "two", "three"] {
                    let start = format!("42[\"{event}\",");
                    assert!(c.text().starts_with(&start));
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn before_connect_is_answered_an_emit_waits_for_the_answer() {
    let io = SocketIo::new();
    io.on_connect(async |socket: Socket| {
        for number in 0..3000 {
            socket.emit_async("row", number).await.unwrap();
        }
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        for number in 0..3000 {
            c.expect(&format!("42[\"row\",{number}]"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_fit_beside_a_wall_waits_without_a_turn_of_the_processor() {
    let io = SocketIo::builder().max_queued(20_000_000, 4096).build();
    let (sockets, mut joined) = mpsc::unbounded_channel();
    io.on_connect(with!([sockets] (socket: Socket) => { sockets.send(socket).unwrap(); }));
    let addr = serve(&io).await;
    let wall = client(move || Client::connect(addr, "/")).await;
    let socket = next(&mut joined).await;
    // What the kernel takes, and then less than half of the queue.
    socket.emit_async("wall", "x".repeat(9_000_000)).await.unwrap();
    let late = tokio::spawn(async move {
        let emit = socket.emit_async("late", "x".repeat(19_000_000));
        tokio::pin!(emit);
        let (mut polls, mut longest) = (0, Duration::ZERO);
        let outcome = std::future::poll_fn(|cx| {
            polls += 1;
            let began = Instant::now();
            let outcome = emit.as_mut().poll(cx);
            longest = longest.max(began.elapsed());
            outcome
        });
        (outcome.await, polls, longest)
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!late.is_finished(), "there is no room");
    drop(wall);
    let (outcome, polls, longest) = late.await.unwrap();
    assert!(outcome.is_err());
    assert!(polls < 20 && longest < Duration::from_secs(3), "polled {polls} times, {longest:?}");
}

#[tokio::test]
async fn the_end_of_the_server_waits_for_handlers() {
    let io = quick().handler_timeout(Duration::from_secs(5)).build();
    let done = Arc::new(AtomicUsize::new(0));
    io.on_disconnect(with!([done] () => {
        tokio::time::sleep(Duration::from_millis(200)).await;
        done.fetch_add(1, Ordering::SeqCst);
    }));
    io.on(
        "slow",
        with!([done] () => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            done.fetch_add(1, Ordering::SeqCst);
        }),
    );
    let addr = serve(&io).await;
    let clients = client(move || {
        let join = |_| Client::connect(addr, "/");
        let mut clients = (0..20).map(join).collect::<Vec<_>>();
        clients.iter_mut().for_each(|c| c.send("42[\"slow\"]"));
        clients
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    io.close().await;
    assert_eq!(done.load(Ordering::SeqCst), 40);
    drop(clients);
}

/// Handlers of a socket's own often hold the socket.
#[tokio::test]
async fn nothing_is_left_of_sockets_that_never_entered() {
    let io = quick().build();
    let held = Arc::new(());
    io.with(with!([held] (socket: Socket) => {
        socket.on("x", with!([held, socket] () => drop((held, socket))));
        Err::<(), &str>("no")
    }));
    io.of("/late").with(with!([held] (socket: Socket) => {
        // Its client is gone when this goes on.
        tokio::time::sleep(Duration::from_millis(100)).await;
        socket.on("x", with!([held, socket] () => drop((held, socket))));
        Ok::<(), &str>(())
    }));
    let addr = serve(&io).await;
    client(move || {
        for _ in 0..10 {
            let mut c = Client::open(addr);
            c.send("40");
            c.expect("44{\"message\":\"no\"}");
            c.send("40/late,");
            c.vanish();
        }
    })
    .await;
    // The middleware of each namespace holds one.
    none_is_left(&held, 3).await;
}

#[tokio::test]
async fn the_end_of_the_server_waits_for_no_handler_longer_than_it_is_told() {
    let io = quick().handler_timeout(Duration::from_millis(200)).build();
    io.on_disconnect(async || std::future::pending::<()>().await);
    let addr = serve(&io).await;
    let one = client(move || Client::connect(addr, "/")).await;
    tokio::time::timeout(PATIENCE, io.close()).await.expect("it ends");
    drop(one);
}

/// A piece of binary data that is counted.
struct Counted {
    _held: Arc<()>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &[7; 1000]
    }
}

#[tokio::test]
async fn whoever_keeps_a_socket_that_was_refused_sends_nothing_and_holds_up_nothing() {
    for recovery in [false, true] {
        let mut builder = quick().max_queued(100_000, 64).ack_timeout(Duration::from_secs(3600));
        if recovery {
            builder = builder.connection_state_recovery(Recovery::new());
        }
        let io = builder.build();
        let (sockets, mut kept) = mpsc::unbounded_channel();
        let (held, answers) = (Arc::new(()), Arc::new(Mutex::new(Vec::new())));
        for (name, by_itself) in [("/refused", false), ("/thrown-out", true)] {
            io.of(name).with(with!([sockets, held, answers] (socket: Socket) => {
                let data = || Bytes::from_owner(Counted { _held: held.clone() });
                socket.emit("held", data()).unwrap();
                answers.lock().push(socket.emit_with_ack::<()>("held", data()));
                sockets.send(socket.clone()).unwrap();
                if by_itself {
                    socket.disconnect(false);
                    return Ok(());
                }
                Err("no")
            }));
        }
        let addr = serve(&io).await;
        let mut c = client(move || {
            let mut c = Client::open(addr);
            c.send("40");
            assert!(c.text().starts_with("40{"));
            for name in ["/refused", "/thrown-out"] {
                c.send(&format!("40{name},"));
                assert!(c.text().starts_with(&format!("44{name},")));
            }
            c
        })
        .await;
        let waiting = std::mem::take(&mut *answers.lock());
        for answer in waiting {
            let answer = tokio::time::timeout(PATIENCE, answer).await.expect("nobody will answer");
            assert!(matches!(answer, Err(AckError::Disconnected)), "{answer:?}");
        }
        for _ in 0..2 {
            let socket = next(&mut kept).await;
            for _ in 0..2000 {
                let sent = socket.emit("x", Bytes::from_owner(Counted { _held: held.clone() }));
                assert!(matches!(sent, Err(EmitError::Closed)), "{sent:?}");
            }
            assert!(matches!(socket.emit_async("x", ()).await, Err(EmitError::Closed)));
            let answer = socket.emit_with_ack::<()>("x", ()).await;
            assert!(matches!(answer, Err(AckError::Emit(EmitError::Closed))), "{answer:?}");
            assert!(!socket.is_connected());
        }
        // This one, and those of the middlewares.
        assert_eq!(Arc::strong_count(&held), 3);
        io.on("ping me", async |ack: Ack| ack.send(1).unwrap());
        client(move || {
            c.send("421[\"ping me\"]");
            c.expect("431[1]");
        })
        .await;
    }
}

/// Counts those that are left of what a handler holds together with its socket.
async fn none_is_left(held: &Arc<()>, registered: usize) {
    let gone = async {
        while Arc::strong_count(held) > registered {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, gone).await;
    assert!(waited.is_ok(), "{} are left", Arc::strong_count(held) - registered);
}

#[tokio::test]
async fn what_is_registered_on_a_socket_after_its_end_is_not_kept() {
    let io = quick().build();
    let (held, proceed) = (Arc::new(()), Arc::new(Notify::new()));
    let register = |socket: &Socket, held: &Arc<()>| {
        let keep = with!([held, socket] () => drop((held, socket)));
        socket.on("x", keep.clone());
        socket.once("y", keep.clone());
        socket.on_any(keep.clone());
        socket.on_disconnect(keep);
    };
    let (sockets, mut joined) = mpsc::unbounded_channel();
    io.on_connect(with!([sockets] (socket: Socket) => sockets.send(socket).unwrap()));
    io.on_disconnect(with!([held, proceed] (socket: Socket) => {
        proceed.notified().await;
        register(&socket, &held);
    }));
    let addr = serve(&io).await;
    client(move || Client::connect(addr, "/").vanish()).await;
    let socket = next(&mut joined).await;
    while io.socket_count() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    register(&socket, &held);
    socket.off("x");
    drop(socket);
    proceed.notify_one();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // `on_disconnect` has one.
    none_is_left(&held, 2).await;
}
