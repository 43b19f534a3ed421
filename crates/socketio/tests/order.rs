//! The order of each socket's events under load, and that none is lost when many connect at once.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sundew_socketio::{Ack, Data, Order, Socket, SocketIo};
use support::poller::Poller;
use support::{Client, client, serve, with};
use tungstenite::Message;

/// Threads of clients.
const THREADS: usize = 10;

/// The last number a socket's handler has begun with.
struct Last(AtomicU64);

/// The same for the same seed: what goes wrong goes wrong again.
fn random(seed: u64) -> u64 {
    let x = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_100_sockets_start_in_order_and_immediate_replies_arrive_in_order() {
    /// From each socket; so many at once.
    const EVENTS: u64 = 10_000;
    const BATCH: u64 = 50;
    let io = SocketIo::new();
    let handled = Arc::new(AtomicU64::new(0));
    io.on_connect(async |socket: Socket| drop(socket.insert(Last(AtomicU64::new(0)))));
    io.on(
        "n",
        with!([handled] (socket: Socket, Data(n): Data<u64>, ack: Ack) => {
            let before = socket.get::<Last>().unwrap().0.swap(n, Ordering::SeqCst);
            assert_eq!(before + 1, n);
            ack.send(n).unwrap();
            // Some go on for a while, beside those that come after them.
            if n % 7 == 0 {
                tokio::time::sleep(Duration::from_millis(random(n) % 4)).await;
            }
            handled.fetch_add(1, Ordering::SeqCst);
        }),
    );
    let addr = serve(&io).await;
    let threads = (0..THREADS).map(|_| {
        client(move || {
            let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(addr, "/")).collect();
            for start in (1..=EVENTS).step_by(BATCH as usize) {
                for c in &mut clients {
                    for n in start..start + BATCH {
                        c.send(&format!("42{n}[\"n\",{n}]"));
                    }
                }
                for c in &mut clients {
                    for n in start..start + BATCH {
                        c.expect(&format!("43{n}[{n}]"));
                    }
                }
            }
            clients
        })
    });
    let clients = join_all(threads).await;
    let all = EVENTS * 10 * THREADS as u64;
    tokio::time::timeout(support::PATIENCE, async {
        while handled.load(Ordering::SeqCst) < all {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("handlers that never ended");
    assert_eq!((handled.load(Ordering::SeqCst), io.troubles().handler_errors), (all, 0));
    drop(clients);
}

/// Sends `events` of them before it reads anything, and a ping behind every fourth. Its pong says that they were taken so far:
/// returns how many events at most had been taken and were not answered.
fn pile_up(c: &mut Client, seed: u64, events: u64) -> u64 {
    for n in 1..=events {
        c.send(&format!("42{n}[\"n\",{seed},{n}]"));
        if n % 4 == 0 {
            c.ping(n);
        }
    }
    let (mut taken, mut done, mut most) = (0, 0, 0);
    while taken < events || done < events {
        match c.next().unwrap() {
            Message::Pong(data) => {
                taken += 4;
                assert_eq!(data, &taken.to_be_bytes()[..]);
                most = most.max(taken - done);
            }
            message => {
                done += 1;
                assert_eq!(message.to_text().unwrap(), format!("42[\"done\",{done}]"));
                c.expect(&format!("43{done}[{done}]"));
            }
        }
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_serial_order_handlers_that_sleep_at_random_complete_in_order() {
    /// From each of 100 sockets.
    const EVENTS: u64 = 1000;
    const MAX_WAITING: u64 = 16;
    let io = SocketIo::builder().max_waiting(MAX_WAITING as usize).build();
    io.order(Order::Serial);
    io.on_connect(async |socket: Socket| drop(socket.insert(Last(AtomicU64::new(0)))));
    io.on("n", async |socket: Socket, Data((seed, n)): Data<(u64, u64)>, ack: Ack| {
        let last = socket.get::<Last>().unwrap();
        assert_eq!(last.0.load(Ordering::SeqCst) + 1, n);
        match random(seed + n) % 4 {
            0 => {}
            1 => tokio::task::yield_now().await,
            millis => tokio::time::sleep(Duration::from_millis(millis - 1)).await,
        }
        // Nobody else has begun meanwhile.
        assert_eq!(last.0.swap(n, Ordering::SeqCst) + 1, n);
        socket.emit("done", n).unwrap();
        ack.send(n).unwrap();
    });
    let addr = serve(&io).await;
    let threads = (0..THREADS as u64).map(|thread| {
        client(move || {
            let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(addr, "/")).collect();
            let pile_up = |(seed, c)| pile_up(c, (thread * 10 + seed) * EVENTS, EVENTS);
            (0..).zip(&mut clients).map(pile_up).max()
        })
    });
    let most = join_all(threads).await.into_iter().max();
    // One at work, and those that wait, with room for the next: the server takes no more, and it does take as many.
    assert_eq!(most, Some(Some(MAX_WAITING)));
    assert_eq!(io.troubles().handler_errors, 0);
}

enum Either {
    Websocket(Box<Client>),
    Polling(Poller),
}

impl Either {
    fn open(addr: SocketAddr, websocket: bool) -> Either {
        match websocket {
            true => Either::Websocket(Box::new(Client::open(addr))),
            false => Either::Polling(Poller::open(addr)),
        }
    }

    fn send(&mut self, packets: &[&str]) {
        match self {
            Either::Websocket(c) => packets.iter().for_each(|packet| c.send(packet)),
            Either::Polling(c) => c.send(packets),
        }
    }

    fn text(&mut self) -> String {
        match self {
            Either::Websocket(c) => c.text(),
            Either::Polling(c) => c.text(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_1000_clients_that_connect_and_emit_at_once_no_first_event_is_lost() {
    const EACH: usize = 100;
    // Both ends of every connection are here.
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(4096).max(limit.current.unwrap_or(u64::MAX));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).unwrap();
    let io = SocketIo::new();
    let (connected, first) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    io.on_connect(with!([connected] (socket: Socket, nsp: sundew_socketio::Namespace) => {
        socket.emit("welcome", ()).unwrap();
        let count = connected.fetch_add(1, Ordering::SeqCst);
        // Events wait for it.
        if count % 3 == 0 {
            tokio::time::sleep(Duration::from_millis(count as u64 % 5)).await;
        }
        assert!(nsp.get(socket.id()).is_some());
        socket.emit("ready", ()).unwrap();
    }));
    io.on(
        "first",
        with!([first] (Data(n): Data<usize>, ack: Ack) => {
            first.fetch_add(1, Ordering::SeqCst);
            ack.send(n).unwrap();
        }),
    );
    let addr = serve(&io).await;
    let start = Arc::new(Barrier::new(THREADS));
    let threads = (0..THREADS).map(|thread| {
        let start = start.clone();
        client(move || {
            start.wait();
            let mut clients: Vec<Either> = (0..EACH)
                .map(|n| {
                    let mut c = Either::open(addr, n / 2 % 2 == 0);
                    let packets = ["40", &format!("420[\"first\",{n}]")];
                    // Half of them do not even wait for the answer.
                    c.send(&packets[..2 - n % 2]);
                    c
                })
                .collect();
            for (n, c) in clients.iter_mut().enumerate() {
                let answer = c.text();
                assert!(answer.starts_with("40{\"sid\""), "{thread}/{n}: {answer}");
                if n % 2 == 1 {
                    c.send(&[&format!("420[\"first\",{n}]")]);
                }
            }
            for (n, c) in clients.iter_mut().enumerate() {
                let expected = ["42[\"welcome\"]", "42[\"ready\"]", &format!("430[{n}]")];
                for text in expected {
                    assert_eq!(c.text(), text);
                }
            }
            clients
        })
    });
    let clients = join_all(threads).await;
    assert_eq!((first.load(Ordering::SeqCst), io.socket_count()), (1000, 1000));
    assert_eq!(io.troubles().handler_errors, 0);
    drop(clients);
}
