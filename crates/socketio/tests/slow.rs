//! Clients that stop reading: what they cost, and what becomes of them. Memory is what the kernel says this process has;
//! what waits in the kernel's own buffers is not in there.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sundew_socketio::{Ack, Args, Builder, DisconnectReason, EmitError, OnFull, Socket, SocketIo};
use support::{Client, PATIENCE, client, serve};
use tokio::sync::mpsc;

const MIB: usize = 1 << 20;

/// The tests look at the memory of their process: one after another.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Resident memory of this process in bytes, without pages of files.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn app(builder: Builder) -> (SocketIo, mpsc::UnboundedReceiver<DisconnectReason>) {
    let io = builder
        .ping_interval(Duration::from_secs(2))
        .ping_timeout(Duration::from_secs(1))
        .engine(|engine| engine.close_timeout = Duration::from_secs(2))
        .build();
    let (left, gone) = mpsc::unbounded_channel();
    io.on_disconnect(move |reason: DisconnectReason| {
        let _ = left.send(reason);
        async {}
    });
    io.on("ping me", async |ack: Ack, args: Args| drop(ack.send(args)));
    (io, gone)
}

/// A payload nothing else shares.
fn megabyte(number: usize) -> String {
    let mut text = "x".repeat(MIB);
    text.push_str(&number.to_string());
    text
}

/// Emits 60 MiB to a client that does not read, by `emit`, while another one goes on; returns by how much memory grew at
/// most, and how often the other was answered.
async fn against_a_wall(
    io: &SocketIo,
    emit: impl AsyncFn(&Socket, usize) -> Result<(), EmitError>,
) -> (usize, Client) {
    let addr = serve(io).await;
    let (wall, id, other) = client(move || {
        let mut wall = Client::open(addr);
        let id = wall.join("/");
        (wall, id, Client::connect(addr, "/"))
    })
    .await;
    let done = Arc::new(AtomicUsize::new(0));
    let stop = done.clone();
    let other = tokio::task::spawn_blocking(move || {
        let mut other = other;
        let mut answers = 0;
        while stop.load(Ordering::Relaxed) == 0 {
            other.send("421[\"ping me\",1]");
            // It would panic if no answer came in time.
            other.expect("431[1]");
            answers += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        answers
    });
    let socket = io.get(&id).unwrap();
    let before = resident();
    let mut grown = 0;
    for number in 0..60 {
        let _ = emit(&socket, number).await;
        grown = grown.max(resident().saturating_sub(before));
        tokio::task::yield_now().await;
    }
    done.store(1, Ordering::Relaxed);
    assert!(other.await.unwrap() > 0);
    (grown, wall)
}

/// Beside the queue: the message that is being written, and what the allocator keeps.
const SLACK: usize = 6 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_megabytes_and_the_default_policy() {
    let _one = ONE.lock().await;
    let (io, mut gone) = app(SocketIo::builder());
    let slow = Arc::new(Mutex::new(Vec::new()));
    let heard = slow.clone();
    io.on_slow(move |socket, policy| heard.lock().unwrap().push((socket.id().to_owned(), policy)));
    let emitted = AtomicUsize::new(0);
    let (grown, wall) = against_a_wall(&io, async |socket, number| {
        let result = socket.emit("blob", megabyte(number));
        if result.is_ok() {
            emitted.fetch_add(1, Ordering::Relaxed);
        }
        result
    })
    .await;
    assert!(grown < 2 * MIB + SLACK, "grew by {grown}");
    assert!(emitted.load(Ordering::Relaxed) < 30);
    let started = Instant::now();
    assert_eq!(gone.recv().await, Some(DisconnectReason::QueueFull));
    assert!(started.elapsed() < Duration::from_secs(2));
    // The connection itself is gone by the deadline as well, although its peer takes nothing.
    let deadline = Instant::now() + PATIENCE;
    while io.stats().sessions > 0 {
        assert!(Instant::now() < deadline, "its session lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let slow = slow.lock().unwrap();
    assert!(slow.len() == 1 && slow[0].1 == OnFull::Disconnect);
    assert_eq!((io.troubles().slow_clients, io.troubles().queue_full), (1, 1));
    drop(wall);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_megabytes_dropped() {
    let _one = ONE.lock().await;
    let (io, mut gone) = app(SocketIo::builder());
    io.when_full(OnFull::Drop);
    let (emitted, full) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (grown, wall) = against_a_wall(&io, async |socket, number| {
        let result = socket.emit("blob", megabyte(number));
        match &result {
            Ok(()) => emitted.fetch_add(1, Ordering::Relaxed),
            Err(EmitError::Full { .. }) => full.fetch_add(1, Ordering::Relaxed),
            // On a slow machine it has missed its pings before the end.
            Err(_) => 0,
        };
        result
    })
    .await;
    assert!(grown < 2 * MIB + SLACK, "grew by {grown}");
    let (emitted, full) = (emitted.into_inner(), full.into_inner());
    assert!(emitted < 30 && full > 0, "{emitted} were taken, for {full} there was no room");
    let troubles = io.troubles();
    assert!(troubles.queue_full == full as u64 && troubles.slow_clients < 5, "{troubles:?}");
    // The other one has left by then.
    while gone.recv().await.unwrap() != DisconnectReason::PingTimeout {}
    drop(wall);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_megabytes_awaited() {
    let _one = ONE.lock().await;
    let (io, mut gone) = app(SocketIo::builder());
    let (grown, wall) = against_a_wall(&io, async |socket, number| {
        // Waits for a client that never takes it: until it is known to be gone.
        socket.emit_async("blob", megabyte(number)).await
    })
    .await;
    assert!(grown < 3 * MIB + SLACK, "grew by {grown}");
    assert_eq!(gone.recv().await, Some(DisconnectReason::PingTimeout));
    assert_eq!(io.troubles().queue_full, 0);
    drop(wall);
}

/// A server whose connections have small buffers in the kernel: a thousand times the usual ones are gigabytes.
async fn serve_with_small_buffers(io: &SocketIo) -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(16 << 10).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let addr = listener.local_addr().unwrap();
    let app = axum::Router::new().layer(io.layer());
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

const WALLS: usize = 1000;
const WALL_BOUND: usize = 64 << 10;

/// Forty rounds of `emit` to a thousand clients that read nothing, while one more asks for an answer after each. Memory stays
/// within what they may queue, and that one is answered as before: the median of its answers is compared with that of as
/// many rounds in which nothing was sent. Returns what is left to be looked at.
async fn against_a_thousand_walls(
    policy: OnFull,
    emit: impl AsyncFn(&[Socket], usize),
) -> (SocketIo, mpsc::UnboundedReceiver<DisconnectReason>, Vec<Client>) {
    const ROUNDS: usize = 40;
    // Heartbeats are no matter here: a thousand clients take their time to connect.
    let io = SocketIo::builder().max_queued(WALL_BOUND, 4096).build();
    let (left, gone) = mpsc::unbounded_channel();
    io.on_disconnect(move |reason: DisconnectReason| {
        let _ = left.send(reason);
        async {}
    });
    io.on("ping me", async |ack: Ack, args: Args| drop(ack.send(args)));
    io.when_full(policy);
    let addr = serve_with_small_buffers(&io).await;
    let walls = client(move || (0..WALLS).map(|_| Client::connect(addr, "/")).collect::<Vec<_>>()).await;
    let sockets = io.sockets();
    assert_eq!(sockets.len(), WALLS);
    let mut other = client(move || Client::connect(addr, "/")).await;
    let mut medians = [Duration::ZERO; 2];
    let before = resident();
    let mut grown = 0;
    for (sends, median) in [false, true].into_iter().zip(&mut medians) {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            if sends {
                emit(&sockets, round).await;
                grown = grown.max(resident().saturating_sub(before));
            }
            let (back, took) = client(move || {
                let started = Instant::now();
                other.send("421[\"ping me\",1]");
                other.expect("431[1]");
                (other, started.elapsed())
            })
            .await;
            other = back;
            times.push(took);
        }
        times.sort();
        *median = times[ROUNDS / 2];
    }
    // Beside what is queued for each: its connection, and the message that whoever waits for it has in hand.
    assert!(grown < WALLS * (WALL_BOUND + (96 << 10)), "grew by {grown}");
    // Whoever waited for the thousand would wait for hundreds of times as long.
    let [quiet, busy] = medians;
    assert!(busy < quiet * 50, "{quiet:?} before, {busy:?} beside them");
    (io, gone, walls)
}

/// Forty of them are several times what the kernel and the queue take.
fn sixteen_kilobytes() -> String {
    "x".repeat(16 << 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_that_stop_reading_are_disconnected() {
    let _one = ONE.lock().await;
    let (io, mut gone, walls) = against_a_thousand_walls(OnFull::Disconnect, async |sockets, _| {
        for socket in sockets {
            let _ = socket.emit("blob", sixteen_kilobytes());
        }
    })
    .await;
    for _ in 0..WALLS {
        let reason = tokio::time::timeout(PATIENCE, gone.recv()).await.expect("all leave").unwrap();
        // The one that reads may go first, by itself.
        assert!(
            matches!(reason, DisconnectReason::QueueFull | DisconnectReason::TransportClose),
            "{reason:?}"
        );
    }
    assert_eq!(io.troubles().slow_clients, WALLS as u64);
    drop(walls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_that_stop_reading_miss_events() {
    let _one = ONE.lock().await;
    let full = AtomicUsize::new(0);
    let (io, _gone, walls) = against_a_thousand_walls(OnFull::Drop, async |sockets, _| {
        for socket in sockets {
            if matches!(socket.emit("blob", sixteen_kilobytes()), Err(EmitError::Full { .. })) {
                full.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    // Each takes what fits and misses the rest.
    assert!(full.load(Ordering::Relaxed) > WALLS * 5, "{full:?} of {}", WALLS * 40);
    assert!(io.troubles().queue_full > WALLS as u64 * 5, "{:?}", io.troubles());
    drop(walls);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_that_stop_reading_are_waited_for() {
    let _one = ONE.lock().await;
    let (left, mut ended) = mpsc::unbounded_channel();
    let (io, mut gone, walls) = against_a_thousand_walls(OnFull::Disconnect, async |sockets, round| {
        // Each has somebody who sends it one message after the other, and waits until there is room.
        for socket in sockets.iter().filter(|_| round == 0) {
            let (socket, left) = (socket.clone(), left.clone());
            tokio::spawn(async move {
                let mut taken = 0;
                while socket.emit_async("blob", sixteen_kilobytes()).await.is_ok() {
                    taken += 1;
                }
                let _ = left.send(taken);
            });
        }
    })
    .await;
    assert_eq!(ended.try_recv(), Err(mpsc::error::TryRecvError::Empty), "they wait");
    // Until they are known to be gone.
    drop(walls);
    for _ in 0..WALLS {
        let reason = tokio::time::timeout(PATIENCE, gone.recv()).await.expect("all leave").unwrap();
        assert_eq!(reason, DisconnectReason::TransportClose);
        let taken =
            tokio::time::timeout(PATIENCE, ended.recv()).await.expect("nobody waits for ever").unwrap();
        assert!((1..100).contains(&taken), "one has taken {taken}");
    }
    assert_eq!(io.troubles().queue_full, 0);
}

#[tokio::test]
async fn what_is_held_before_connect_is_answered_is_bounded_too() {
    let _one = ONE.lock().await;
    let (io, _gone) = app(SocketIo::builder().max_queued(3 * MIB, 4096));
    let (results, mut taken) = mpsc::unbounded_channel();
    io.on_connect(move |socket: Socket| {
        // CONNECT is not answered before this returns.
        let taken = (0..60).filter(|&number| socket.emit("blob", megabyte(number)).is_ok()).count();
        let _ = results.send(taken);
        async {}
    });
    let addr = serve(&io).await;
    let wall = client(move || {
        let mut c = Client::open(addr);
        c.try_send("40");
        c
    })
    .await;
    assert_eq!(taken.recv().await, Some(2));
    drop(wall);
}
