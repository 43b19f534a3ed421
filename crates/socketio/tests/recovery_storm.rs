//! A thousand clients, cut off at random and back again, in virtual time: no event is lost, doubled or out of order while
//! they come back within the window.
//!
//! The clients keep to the official one: they remember the last text of an event's arguments, and hand events that come
//! before the answer to CONNECT on after it. They call the server's service in place, over polling. `SUNDEW_STORM_SEED`
//! repeats a run; the long form is an hour: `cargo test --release --test recovery_storm -- --ignored`.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sundew_socketio::recovery::{Memory, Recovery};
use sundew_socketio::{Auth, NotFound, Socket, SocketIo, SocketIoService};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tower_service::Service;

const ROOMS: u64 = 10;
const WINDOW: Duration = Duration::from_secs(30);
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(4));

/// Numbers that look random enough, the same ones for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }
}

#[derive(Default)]
struct Totals {
    recovered: u64,
    anew: u64,
    events: u64,
}

struct Client {
    service: SocketIoService<NotFound>,
    random: Random,
    index: usize,
    totals: Rc<RefCell<Totals>>,
    pid: Option<String>,
    offset: Option<String>,
    /// The last number of each stream.
    seen: HashMap<String, u64>,
    /// When it was cut off last, and that the server must know it again if it comes back in time.
    cut: Option<Instant>,
}

impl Client {
    async fn request(&self, method: Method, sid: &str, body: String) -> (u16, String) {
        let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
        let request = Request::builder()
            .method(method)
            .uri(format!("/socket.io/?EIO=4&transport=polling{sid}"))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = self.service.clone().call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn event(&mut self, text: &str) {
        let args: Vec<Value> = serde_json::from_str(text).unwrap();
        let (stream, number) = (args[0].as_str().unwrap(), args[1].as_u64().unwrap());
        if let Some(last) = self.seen.insert(stream.to_owned(), number) {
            assert_eq!(number, last + 1, "client {}: {stream} after {last}", self.index);
        }
        if let Some(text) = args.last().unwrap().as_str() {
            self.offset = Some(text.to_owned());
        }
        self.totals.borrow_mut().events += 1;
    }

    /// Connects, and receives until it is cut off at `until`.
    async fn session(&mut self, until: Instant, last: bool) {
        let (status, open) = self.request(Method::GET, "", String::new()).await;
        assert_eq!(status, 200);
        let open: Value = serde_json::from_str(&open[1..]).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        let mut auth = json!({"index": self.index});
        if let Some(pid) = &self.pid {
            auth["pid"] = json!(pid);
            if let Some(offset) = &self.offset {
                auth["offset"] = json!(offset);
            }
        }
        let in_time = self.cut.is_some_and(|cut| cut.elapsed() < WINDOW);
        if !in_time {
            // Whatever comes of this attempt: what was before need not be known any more.
            self.cut = None;
        }
        assert_eq!(self.request(Method::POST, &sid, format!("40{auth}")).await.0, 200);
        let (mut connected, mut early) = (false, Vec::<String>::new());
        // Whether the last answer is lost on its way.
        let lossy = self.random.below(2) == 0;
        loop {
            let poll = self.request(Method::GET, &sid, String::new());
            let Ok((status, body)) = timeout_at(until, poll).await else {
                if lossy {
                    // The connection goes on to look alive, and one answer is taken and lost.
                    let poll = self.request(Method::GET, &sid, String::new());
                    let _ = tokio::time::timeout(Duration::from_secs(2), poll).await;
                }
                break;
            };
            assert_eq!(status, 200, "client {}: {body}", self.index);
            for packet in body.split('\u{1e}') {
                if packet == "2" {
                    assert_eq!(self.request(Method::POST, &sid, "3".into()).await.0, 200);
                } else if let Some(answer) = packet.strip_prefix("40") {
                    let answer: Value = serde_json::from_str(answer).unwrap();
                    let pid = answer["pid"].as_str().unwrap();
                    let recovered = self.pid.as_deref() == Some(pid);
                    assert!(recovered || !in_time, "client {} came back in time", self.index);
                    let mut totals = self.totals.borrow_mut();
                    if recovered {
                        totals.recovered += 1;
                    } else {
                        totals.anew += 1;
                        self.seen.clear();
                    }
                    drop(totals);
                    self.pid = Some(pid.to_owned());
                    connected = true;
                    for event in std::mem::take(&mut early) {
                        self.event(event_array(&event));
                    }
                } else if let Some(array) = packet.strip_prefix("42") {
                    if connected {
                        self.event(array);
                    } else {
                        early.push(packet.to_owned());
                    }
                } else {
                    assert_eq!(packet, "6", "client {}", self.index);
                }
            }
            if connected && !last && self.random.below(200) == 0 {
                // Gone between two polls.
                break;
            }
        }
        if connected {
            self.cut = Some(Instant::now());
        }
    }

    async fn run(mut self, end: Instant) -> Client {
        loop {
            let until = Instant::now() + self.random.millis(30_000);
            if until > end {
                break;
            }
            self.session(until, false).await;
            // Most are back soon, some too late.
            let away = match self.random.below(10) {
                0 => self.random.millis(60_000),
                1 | 2 => Duration::ZERO,
                _ => self.random.millis(15_000),
            };
            sleep(away).await;
        }
        // At last everybody is there, and hears everything.
        self.session(end.max(Instant::now()) + Duration::from_secs(20), true).await;
        self
    }
}

fn event_array(packet: &str) -> &str {
    &packet[2..]
}

type Sockets = Arc<Mutex<HashMap<usize, Socket>>>;

fn app() -> (SocketIo, Sockets) {
    let store = Memory::new().max_packets(1_000_000).max_bytes(1 << 30).max_total_bytes(1 << 30);
    let recovery = Recovery::new().max_disconnection_duration(WINDOW).store(store);
    let io = SocketIo::builder()
        .ping_interval(PING.0)
        .ping_timeout(PING.1)
        .connection_state_recovery(recovery)
        .build();
    let sockets = Sockets::default();
    let handles = sockets.clone();
    io.on_connect(move |socket: Socket, Auth(auth): Auth<Value>| {
        let index = auth["index"].as_u64().unwrap() as usize;
        // A recovered one is in its room.
        if !socket.recovered() {
            socket.join(format!("r{}", index as u64 % ROOMS));
        }
        handles.lock().unwrap().insert(index, socket);
        async {}
    });
    (io, sockets)
}

/// Emits to all, to rooms, and to each; returns the last number of every stream.
async fn emit(io: SocketIo, sockets: Sockets, end: Instant, seed: u64) -> HashMap<String, u64> {
    let mut random = Random(seed);
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut next = |stream: String| {
        let number = last.entry(stream.clone()).or_default();
        *number += 1;
        (stream, *number)
    };
    let mut second = 0;
    while Instant::now() < end {
        // Sometimes with a text at the end, and with one that is not kept between.
        if second % 4 == 0 {
            let (stream, number) = next("all".into());
            io.emit(&stream, (number, "text"));
        }
        if second % 4 == 2 {
            let room = random.below(ROOMS);
            let (stream, number) = next(format!("room{room}"));
            io.to(format!("r{room}")).emit(&stream, number);
        }
        let each: Vec<(usize, Socket)> =
            sockets.lock().unwrap().iter().map(|(index, socket)| (*index, socket.clone())).collect();
        for (index, socket) in each {
            if (index as u64 + second).is_multiple_of(16)
                && socket.emit("own", (second / 16 + 1, Value::Null)).is_ok()
            {
                next(format!("own{index}"));
            }
        }
        second += 1;
        sleep_until(Instant::now() + Duration::from_secs(1)).await;
    }
    last
}

fn storm(clients: usize, length: Duration) -> impl Future<Output = ()> {
    let seed = std::env::var("SUNDEW_STORM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 | 1
    });
    println!("SUNDEW_STORM_SEED={seed}");
    async move {
        let (io, sockets) = app();
        let end = Instant::now() + length;
        let totals = Rc::new(RefCell::new(Totals::default()));
        let clients: Vec<_> = (0..clients)
            .map(|index| {
                let client = Client {
                    service: io.clone().into_service(),
                    random: Random(seed.wrapping_mul(index as u64 * 2 + 1) | 1),
                    index,
                    totals: totals.clone(),
                    pid: None,
                    offset: None,
                    seen: HashMap::new(),
                    cut: None,
                };
                tokio::task::spawn_local(client.run(end))
            })
            .collect();
        let last = emit(io, sockets, end, seed).await;
        for client in clients {
            let client = client.await.unwrap();
            // Nothing is owed to anybody at the end.
            for (stream, number) in &client.seen {
                if !stream.starts_with("own") {
                    assert_eq!(number, &last[stream], "client {}: {stream}", client.index);
                }
            }
        }
        let totals = totals.borrow();
        println!("{} recovered, {} anew, {} events", totals.recovered, totals.anew, totals.events);
        assert!(totals.recovered > totals.anew && totals.anew > 0 && totals.events > totals.recovered);
    }
}

async fn in_place(future: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(future).await;
}

#[tokio::test(start_paused = true)]
async fn a_minute() {
    in_place(storm(1000, Duration::from_secs(90))).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "an hour of virtual time"]
async fn an_hour() {
    in_place(storm(1000, Duration::from_secs(3600))).await;
}
