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
    let (grown, wall) =
        against_a_wall(&io, async |socket, number| socket.emit("blob", megabyte(number))).await;
    assert!(grown < 2 * MIB + SLACK, "grew by {grown}");
    let troubles = io.troubles();
    assert!(troubles.queue_full > 30 && troubles.slow_clients < 5, "{troubles:?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_that_stop_reading() {
    const CLIENTS: usize = 1000;
    const BOUND: usize = 64 << 10;
    let _one = ONE.lock().await;
    let (io, mut gone) = app(SocketIo::builder().max_queued(BOUND, 4096));
    let addr = serve_with_small_buffers(&io).await;
    let walls = client(move || (0..CLIENTS).map(|_| Client::connect(addr, "/")).collect::<Vec<_>>()).await;
    let before = resident();
    let mut grown = 0;
    // Each of its own, so that nothing is shared; then the rest of the 60 MiB for whoever is left.
    let sockets = io.sockets();
    assert_eq!(sockets.len(), CLIENTS);
    for round in 0..20 {
        for socket in &sockets {
            let _ = socket.emit("blob", format!("{round:016384}"));
        }
        grown = grown.max(resident().saturating_sub(before));
        tokio::task::yield_now().await;
    }
    for number in 0..60 {
        io.emit("blob", megabyte(number));
        grown = grown.max(resident().saturating_sub(before));
    }
    assert!(grown < CLIENTS * (BOUND + (48 << 10)), "grew by {grown}");
    let all = async {
        for _ in 0..CLIENTS {
            gone.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(4), all).await.expect("all leave by the deadline");
    assert_eq!(io.socket_count(), 0);
    drop(walls);
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
