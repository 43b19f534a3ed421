//! Clients that stop reading: what they cost, and what becomes of them. Memory is what the kernel says this process has;
//! what waits in the kernel's own buffers is not in there. Those are small here: nearly all that is taken for a client is in
//! its queue.
//!
//! Each test has a process of its own: memory that an earlier one gave back, but the allocator kept, would hide what the next
//! one takes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
use sundew_socketio::{Ack, Args, Builder, DisconnectReason, EmitError, OnFull, Socket, SocketIo};
use support::pace::Other;
use support::poller::Poller;
use support::{Client, client};
use tokio::sync::mpsc;

const MIB: usize = 1 << 20;

/// What the kernel is asked to keep of a connection, on either side.
const KERNEL: usize = 16 << 10;

const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(1);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How late a busy machine may be with what is due.
const LATE: Duration = Duration::from_secs(3);

/// One after another: they measure time.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Set in the process of a single test.
const ALONE: &str = "SUNDEW_TEST_ALONE";

/// Runs the test of that name in a process of its own.
fn alone(name: &str, test: impl Future<Output = ()>) {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(test);
    }
    let _one = ONE.blocking_lock();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(ALONE, "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "it failed in its process");
}

/// Resident memory of this process in bytes, without pages of files.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// How much more of it there is than at the beginning, at most.
struct Growth {
    before: usize,
    most: usize,
}

impl Growth {
    fn new() -> Growth {
        Growth { before: resident(), most: 0 }
    }

    fn look(&mut self) {
        self.most = self.most.max(resident().saturating_sub(self.before));
    }
}

type Gone = mpsc::UnboundedReceiver<DisconnectReason>;

fn app(builder: Builder) -> (SocketIo, Gone) {
    let io = builder.engine(|engine| engine.close_timeout = CLOSE_TIMEOUT).build();
    let (left, gone) = mpsc::unbounded_channel();
    io.on_disconnect(move |reason: DisconnectReason| {
        let _ = left.send(reason);
        async {}
    });
    io.on("ping me", async |ack: Ack, args: Args| drop(ack.send(args)));
    (io, gone)
}

fn impatient() -> Builder {
    SocketIo::builder().ping_interval(PING_INTERVAL).ping_timeout(PING_TIMEOUT)
}

/// A server whose connections have small buffers in the kernel: a thousand times the usual ones are gigabytes.
async fn serve(io: &SocketIo) -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(KERNEL as u32).unwrap();
    socket.set_recv_buffer_size(KERNEL as u32).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let addr = listener.local_addr().unwrap();
    let app = axum::Router::new().layer(io.layer());
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

/// A client that reads no more once it is there, and its socket's id.
fn wall(addr: SocketAddr) -> (Client, String) {
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&stream, KERNEL).unwrap();
    connect(&stream, &addr).unwrap();
    let mut wall = Client::open_over(TcpStream::from(stream), addr, "EIO=4&transport=websocket");
    let id = wall.join("/");
    (wall, id)
}

async fn next(gone: &mut Gone, deadline: Instant) -> DisconnectReason {
    let next = tokio::time::timeout_at(deadline.into(), gone.recv());
    next.await.expect("on_disconnect comes in time").unwrap()
}

/// The connections themselves are gone by the deadline as well, although their peers take nothing. That of the other client
/// is left.
async fn only_the_other(io: &SocketIo, deadline: Instant) {
    while io.stats().sessions > 1 {
        assert!(Instant::now() < deadline, "{} sessions are there", io.stats().sessions);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A payload nothing else shares.
fn megabyte(number: usize) -> String {
    let mut text = "x".repeat(MIB);
    text.push_str(&number.to_string());
    text
}

/// What became of the 60.
#[derive(Default)]
struct Sixty {
    grown: usize,
    taken: usize,
    full: usize,
    /// When it was first known that no more would ever be taken.
    closed: Option<Instant>,
    /// It reads, and is there to the end.
    other: Option<Client>,
}

/// Emits 60 MiB to the only client, which does not read, by `emit`. Meanwhile another one goes on, and is answered as ever.
async fn against_a_wall(
    io: &SocketIo,
    addr: SocketAddr,
    emit: impl AsyncFn(&Socket, usize) -> Result<(), EmitError>,
) -> Sixty {
    let socket = io.sockets().pop().unwrap();
    let (there, id) = (io.clone(), socket.id().to_owned());
    let mut other = Other::connect(addr, move || there.get(&id).is_some()).await;
    let mut sixty = Sixty::default();
    let mut growth = Growth::new();
    for number in 0..60 {
        let result = emit(&socket, number).await;
        growth.look();
        // What is taken may be all there is time for.
        other.goes_on(if result.is_ok() { 24 } else { 1 }).await;
        match result {
            Ok(()) => sixty.taken += 1,
            Err(EmitError::Full { .. }) => sixty.full += 1,
            Err(_) => drop(sixty.closed.get_or_insert_with(Instant::now)),
        }
    }
    growth.look();
    sixty.grown = growth.most;
    sixty.other = Some(other.was_unharmed().await);
    sixty
}

/// What the default bound leaves room for: one more would be beyond it.
const ROOM: usize = 2;

/// Beside the queue: the message that is being written, and what the allocator keeps.
const SLACK: usize = 4 * MIB;

#[test]
fn sixty_megabytes_and_the_default_policy() {
    alone("sixty_megabytes_and_the_default_policy", async {
        let (io, mut gone) = app(impatient());
        let slow = Arc::new(Mutex::new(Vec::new()));
        let heard = slow.clone();
        io.on_slow(move |socket, policy| heard.lock().unwrap().push((socket.id().to_owned(), policy)));
        let addr = serve(&io).await;
        let (wall, id) = client(move || wall(addr)).await;
        let sixty =
            against_a_wall(&io, addr, async |socket, number| socket.emit("blob", megabyte(number))).await;
        assert_eq!((sixty.taken, sixty.full), (ROOM, 1));
        assert!(sixty.grown < 2 * MIB + SLACK, "grew by {}", sixty.grown);
        assert_eq!(gone.try_recv(), Ok(DisconnectReason::QueueFull));
        only_the_other(&io, sixty.closed.unwrap() + CLOSE_TIMEOUT + LATE).await;
        assert_eq!(*slow.lock().unwrap(), [(id, OnFull::Disconnect)]);
        assert_eq!((io.troubles().slow_clients, io.troubles().queue_full), (1, 1));
        drop(wall);
    });
}

#[test]
fn sixty_megabytes_dropped() {
    alone("sixty_megabytes_dropped", async {
        let (io, mut gone) = app(impatient());
        io.when_full(OnFull::Drop);
        let addr = serve(&io).await;
        let (wall, _) = client(move || wall(addr)).await;
        let unanswered = Instant::now() + PING_INTERVAL + PING_TIMEOUT;
        let sixty =
            against_a_wall(&io, addr, async |socket, number| socket.emit("blob", megabyte(number))).await;
        assert!(sixty.grown < 2 * MIB + SLACK, "grew by {}", sixty.grown);
        // On a slow machine it has missed its pings before the end.
        assert!(
            sixty.taken == ROOM && sixty.full > 0,
            "{} were taken, for {} there was no room",
            sixty.taken,
            sixty.full
        );
        let troubles = io.troubles();
        assert_eq!((troubles.queue_full, troubles.slow_clients), (sixty.full as u64, 1));
        assert_eq!(next(&mut gone, unanswered + LATE).await, DisconnectReason::PingTimeout);
        only_the_other(&io, unanswered + CLOSE_TIMEOUT + LATE).await;
        drop(wall);
    });
}

#[test]
fn sixty_megabytes_awaited() {
    alone("sixty_megabytes_awaited", async {
        let (io, mut gone) = app(impatient());
        let addr = serve(&io).await;
        let (wall, _) = client(move || wall(addr)).await;
        let unanswered = Instant::now() + PING_INTERVAL + PING_TIMEOUT;
        // Waits for a client that never takes it: until it is known to be gone.
        let emit = async |socket: &Socket, number| socket.emit_async("blob", megabyte(number)).await;
        let sixty = against_a_wall(&io, addr, emit).await;
        assert!(sixty.closed.unwrap() < unanswered + LATE, "it waits for too long");
        assert_eq!((sixty.taken, sixty.full), (ROOM, 0));
        assert!(sixty.grown < 2 * MIB + SLACK, "grew by {}", sixty.grown);
        assert_eq!(gone.try_recv(), Ok(DisconnectReason::PingTimeout));
        assert_eq!(io.troubles().queue_full, 0);
        only_the_other(&io, unanswered + CLOSE_TIMEOUT + LATE).await;
        drop(wall);
    });
}

/// Opens a session by polling, joins, and never polls again: not even the answer to CONNECT is fetched.
fn never_polls(addr: SocketAddr) {
    Poller::open(addr).send(&["40"]);
}

#[test]
fn sixty_megabytes_to_one_that_never_polls() {
    alone("sixty_megabytes_to_one_that_never_polls", async {
        let (io, mut gone) = app(impatient());
        let addr = serve(&io).await;
        client(move || never_polls(addr)).await;
        let sixty =
            against_a_wall(&io, addr, async |socket, number| socket.emit("blob", megabyte(number))).await;
        // Two are a little more than the bound, and here the kernel has nothing of them.
        assert_eq!((sixty.taken, sixty.full), (1, 1));
        assert!(sixty.grown < 2 * MIB + SLACK, "grew by {}", sixty.grown);
        assert_eq!(gone.try_recv(), Ok(DisconnectReason::QueueFull));
        only_the_other(&io, sixty.closed.unwrap() + CLOSE_TIMEOUT + LATE).await;
        assert_eq!((io.troubles().slow_clients, io.troubles().queue_full), (1, 1));
    });
}

#[test]
fn sixty_megabytes_dropped_for_one_that_never_polls() {
    alone("sixty_megabytes_dropped_for_one_that_never_polls", async {
        let (io, mut gone) = app(impatient());
        io.when_full(OnFull::Drop);
        let addr = serve(&io).await;
        client(move || never_polls(addr)).await;
        let unanswered = Instant::now() + PING_INTERVAL + PING_TIMEOUT;
        let sixty =
            against_a_wall(&io, addr, async |socket, number| socket.emit("blob", megabyte(number))).await;
        assert!(
            sixty.taken == 1 && sixty.full > 0,
            "{} were taken, for {} there was no room",
            sixty.taken,
            sixty.full
        );
        assert!(sixty.grown < 2 * MIB + SLACK, "grew by {}", sixty.grown);
        assert_eq!(next(&mut gone, unanswered + LATE).await, DisconnectReason::PingTimeout);
        // There is nothing that would have to leave.
        only_the_other(&io, unanswered + LATE).await;
    });
}

const WALLS: usize = 1000;
const WALL_BOUND: usize = 64 << 10;

const ROUNDS: usize = 20;
const BATCH: usize = WALLS / ROUNDS;

/// What is emitted to each at a time: a few of them fill the queue.
const PIECE: usize = 16 << 10;

/// How many of them are taken for each at most: what the queue and the kernel's buffers have room for, and one that is cut
/// short.
const TAKEN: usize = (WALL_BOUND + 4 * KERNEL) / PIECE + 1;

/// Nothing to be encoded, only to be copied: a machine that is busy with the emits alone tells nothing about the others.
fn piece() -> Bytes {
    Bytes::from_static(&[b'x'; PIECE])
}

/// What is left to be looked at.
struct Aftermath {
    io: SocketIo,
    gone: Gone,
    walls: Vec<Client>,
    /// It reads, and is there to the end.
    _other: Client,
}

/// Rounds of `emit` to a thousand clients that read nothing, while one more goes on and is answered as before. Memory
/// stays within what they may queue. `emit` returns how many it knows to have been taken.
async fn against_a_thousand_walls(
    policy: OnFull,
    emit: impl AsyncFn(&[Socket], usize) -> usize,
) -> Aftermath {
    // Heartbeats are no matter here: a thousand clients take their time to connect.
    let (io, gone) = app(SocketIo::builder().max_queued(WALL_BOUND, 4096));
    io.when_full(policy);
    let addr = serve(&io).await;
    let walls = client(move || (0..WALLS).map(|_| wall(addr).0).collect::<Vec<_>>()).await;
    let sockets = io.sockets();
    assert_eq!(sockets.len(), WALLS);
    let there = io.clone();
    let mut other = Other::connect(addr, move || there.socket_count() > WALLS / 2).await;
    let mut growth = Growth::new();
    let mut taken = 0;
    for round in 0..ROUNDS {
        taken += emit(&sockets, round).await;
        growth.look();
        other.goes_on(5).await;
    }
    growth.look();
    assert!(taken <= WALLS * TAKEN, "{taken} were taken");
    // Beside what is queued for each: its connection, and the message that whoever waits for it has in hand.
    assert!(growth.most < WALLS * (WALL_BOUND + (48 << 10)), "grew by {}", growth.most);
    let _other = other.was_unharmed().await;
    Aftermath { io, gone, walls, _other }
}

#[test]
fn a_thousand_that_stop_reading_are_disconnected() {
    alone("a_thousand_that_stop_reading_are_disconnected", async {
        let mut after = against_a_thousand_walls(OnFull::Disconnect, async |sockets, _| {
            sockets.iter().filter(|socket| socket.emit("blob", piece()).is_ok()).count()
        })
        .await;
        let deadline = Instant::now() + CLOSE_TIMEOUT + LATE;
        for _ in 0..WALLS {
            assert_eq!(next(&mut after.gone, deadline).await, DisconnectReason::QueueFull);
        }
        only_the_other(&after.io, deadline).await;
        assert_eq!(after.io.troubles().slow_clients, WALLS as u64);
    });
}

#[test]
fn a_thousand_that_stop_reading_miss_events() {
    alone("a_thousand_that_stop_reading_miss_events", async {
        let full = AtomicUsize::new(0);
        let after = against_a_thousand_walls(OnFull::Drop, async |sockets, _| {
            let mut taken = 0;
            for socket in sockets {
                match socket.emit("blob", piece()) {
                    Ok(()) => taken += 1,
                    Err(EmitError::Full { .. }) => drop(full.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => panic!("{error}"),
                }
            }
            taken
        })
        .await;
        // Each takes what fits and misses the rest.
        let full = full.into_inner();
        assert!(full > WALLS * 5, "{full:?} of {}", WALLS * ROUNDS);
        assert_eq!(after.io.troubles().queue_full, full as u64);
        assert_eq!(after.io.socket_count(), WALLS + 1);
    });
}

#[test]
fn a_thousand_that_stop_reading_are_waited_for() {
    alone("a_thousand_that_stop_reading_are_waited_for", async {
        let (left, mut ended) = mpsc::unbounded_channel();
        let mut after = against_a_thousand_walls(OnFull::Disconnect, async |sockets, round| {
            // Each gets somebody who sends it one message after the other, and waits until there is room. They come in batches:
            // a thousand tasks that have work at once would keep the runtime busy for long, whomever they send to.
            for socket in &sockets[round * BATCH..][..BATCH] {
                let (socket, left) = (socket.clone(), left.clone());
                tokio::spawn(async move {
                    let mut taken = 0;
                    while socket.emit_async("blob", piece()).await.is_ok() {
                        taken += 1;
                    }
                    let _ = left.send(taken);
                });
            }
            0
        })
        .await;
        assert_eq!(ended.try_recv(), Err(mpsc::error::TryRecvError::Empty), "they wait");
        // Until they are known to be gone.
        drop(after.walls);
        let deadline = Instant::now() + CLOSE_TIMEOUT + LATE;
        for _ in 0..WALLS {
            assert_eq!(next(&mut after.gone, deadline).await, DisconnectReason::TransportClose);
            let taken = tokio::time::timeout_at(deadline.into(), ended.recv());
            let taken = taken.await.expect("nobody waits for ever").unwrap();
            assert!((1..=TAKEN).contains(&taken), "one has taken {taken}");
        }
        only_the_other(&after.io, deadline).await;
        assert_eq!(after.io.troubles().queue_full, 0);
    });
}

#[test]
fn what_is_held_before_connect_is_answered_is_bounded_too() {
    alone("what_is_held_before_connect_is_answered_is_bounded_too", async {
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
        let taken = tokio::time::timeout(support::PATIENCE, taken.recv()).await;
        assert_eq!(taken.expect("on_connect returns"), Some(2));
        drop(wall);
    });
}
