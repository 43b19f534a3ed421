//! A thousand clients, cut off at random and back again, in virtual time: no event is lost, doubled or out of order while
//! they come back within the window.
//!
//! The clients keep to the official one: they remember the last text of an event's arguments, and hand events that come
//! before the answer to CONNECT on after it. They call the server's service in place: half of them poll, the others have a
//! websocket on a pipe. `SUNDEW_STORM_SEED` repeats a run; the long form is an hour:
//! `cargo test --release --test recovery_storm -- --ignored`.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sundew_io::{Raw, Recovered, TakeOver};
use sundew_socketio::recovery::{Memory, Recovery};
use sundew_socketio::{Auth, NotFound, Socket, SocketIo, SocketIoService};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tower_service::Service;

const ROOMS: usize = 10;
/// Each is in one of them, and goes from one to another.
const PLACES: usize = 5;
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

/// The connection of a client.
enum Wire {
    Polling { service: SocketIoService<NotFound>, sid: String },
    Websocket(DuplexStream),
}

impl Wire {
    /// Opens an engine session.
    async fn open(service: &SocketIoService<NotFound>, websocket: bool) -> Wire {
        let mut wire = match websocket {
            true => Wire::Websocket(websocket_to(service).await),
            false => Wire::Polling { service: service.clone(), sid: String::new() },
        };
        let open: Value = serde_json::from_str(&wire.receive().await[0][1..]).unwrap();
        if let Wire::Polling { sid, .. } = &mut wire {
            *sid = format!("&sid={}", open["sid"].as_str().unwrap());
        }
        wire
    }

    async fn send(&mut self, packet: &str) {
        match self {
            Wire::Polling { service, sid } => {
                assert_eq!(request(service, Method::POST, sid, packet).await, (200, "ok".into()));
            }
            Wire::Websocket(pipe) => {
                let length = u8::try_from(packet.len()).unwrap();
                let mut frame = vec![0x81, 0x80 | length.min(126)];
                if length >= 126 {
                    frame.extend([0, length]);
                }
                // A mask that changes nothing.
                frame.extend([0; 4]);
                frame.extend(packet.as_bytes());
                pipe.write_all(&frame).await.unwrap();
            }
        }
    }

    /// The next packets. Given up before they are there, the connection is of no use any more.
    async fn receive(&mut self) -> Vec<String> {
        match self {
            Wire::Polling { service, sid } => {
                let (status, body) = request(service, Method::GET, sid, "").await;
                assert_eq!(status, 200, "{body}");
                body.split('\u{1e}').map(str::to_owned).collect()
            }
            Wire::Websocket(pipe) => {
                assert_eq!(pipe.read_u8().await.unwrap(), 0x81);
                let length = match pipe.read_u8().await.unwrap() {
                    126 => usize::from(pipe.read_u16().await.unwrap()),
                    length => usize::from(length),
                };
                let mut text = vec![0; length];
                pipe.read_exact(&mut text).await.unwrap();
                vec![String::from_utf8(text).unwrap()]
            }
        }
    }
}

async fn request(
    service: &SocketIoService<NotFound>,
    method: Method,
    sid: &str,
    body: &str,
) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(format!("/socket.io/?EIO=4&transport=polling{sid}"))
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let response = service.clone().call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn websocket_to(service: &SocketIoService<NotFound>) -> DuplexStream {
    let connection = TakeOver::default();
    let request = Request::builder()
        .uri("/socket.io/?EIO=4&transport=websocket")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .extension(connection.clone())
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = service.clone().call(request).await.unwrap();
    assert_eq!(response.status(), 101);
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let stream = Raw::Other(Box::pin(theirs));
    let life = connection.begin(Recovered { stream, unread: Bytes::new(), unwritten: Vec::new() });
    tokio::spawn(life.unwrap());
    ours
}

/// What a client is sent: events to all, to its room, and to itself. Each stream counts for itself, from 1. What the places
/// are told comes besides.
fn streams_of(index: usize) -> [String; 3] {
    ["all".into(), format!("room{}", index % ROOMS), format!("own{index}")]
}

/// How far each stream is.
type Numbers = HashMap<String, u64>;

/// What the server knows.
#[derive(Default)]
struct Truth {
    sockets: HashMap<usize, Socket>,
    last: Numbers,
    /// Of each session, by its socket's id: how far its streams were when it began.
    begun: HashMap<String, Numbers>,
    /// Where each client is.
    places: HashMap<usize, usize>,
    /// Of each client: what the places were told while it was there, and it has not had.
    told: HashMap<usize, VecDeque<u64>>,
    /// Of all events together.
    count: u64,
}

impl Truth {
    fn so_far(&self, index: usize) -> Numbers {
        streams_of(index).map(|name| (name.clone(), self.last.get(&name).copied().unwrap_or(0))).into()
    }

    /// The place of the next event of a stream, in it and among all.
    fn next(&mut self, stream: &str) -> (u64, u64) {
        self.count += 1;
        let last = self.last.entry(stream.to_owned()).or_default();
        *last += 1;
        (*last, self.count)
    }
}

#[derive(Default)]
struct Totals {
    /// Of those that poll, and of those with a websocket.
    recovered: [u64; 2],
    anew: [u64; 2],
    /// Events that came before the answer to CONNECT: those that were missed.
    replayed: [u64; 2],
    events: u64,
}

struct Client {
    service: SocketIoService<NotFound>,
    random: Random,
    index: usize,
    truth: Arc<Mutex<Truth>>,
    totals: Rc<RefCell<Totals>>,
    pid: Option<String>,
    offset: Option<String>,
    /// How far each of its streams is.
    seen: Numbers,
    /// The place of the last event among all.
    count: u64,
    /// When it was cut off last, and that the server must know it again if it comes back in time.
    cut: Option<Instant>,
}

impl Client {
    fn has_websocket(&self) -> bool {
        // Of each room, half have one.
        (self.index / ROOMS).is_multiple_of(2)
    }

    fn event(&mut self, packet: &str) {
        let args: Vec<Value> = serde_json::from_str(packet.strip_prefix("42").unwrap()).unwrap();
        let stream = args[0].as_str().unwrap();
        let (number, count) = (args[1].as_u64().unwrap(), args[2].as_u64().unwrap());
        if stream == "place" {
            let told = self.truth.lock().unwrap().told.get_mut(&self.index).unwrap().pop_front();
            assert_eq!(told, Some(count), "client {}: place {number}", self.index);
        } else {
            let last = self.seen.get_mut(stream).unwrap_or_else(|| panic!("{stream} is for others"));
            assert_eq!(number, *last + 1, "client {}: {stream} after {last}", self.index);
            *last = number;
        }
        assert!(count > self.count, "client {}: {count} after {}", self.index, self.count);
        self.count = count;
        if let Some(text) = args.last().unwrap().as_str() {
            self.offset = Some(text.to_owned());
        }
        self.totals.borrow_mut().events += 1;
    }

    /// CONNECT was answered; `early` came before that.
    fn connected(&mut self, answer: &str, early: Vec<String>, in_time: bool) {
        let answer: Value = serde_json::from_str(answer).unwrap();
        let pid = answer["pid"].as_str().unwrap();
        let recovered = self.pid.as_deref() == Some(pid);
        assert!(recovered || !in_time, "client {} came back in time", self.index);
        let which = usize::from(self.has_websocket());
        let mut totals = self.totals.borrow_mut();
        if recovered {
            totals.recovered[which] += 1;
            totals.replayed[which] += early.len() as u64;
        } else {
            totals.anew[which] += 1;
            assert!(early.is_empty(), "client {}: {early:?}", self.index);
            // From here on it gets everything.
            self.seen = self.truth.lock().unwrap().begun[answer["sid"].as_str().unwrap()].clone();
            self.count = 0;
        }
        drop(totals);
        self.pid = Some(pid.to_owned());
        for event in early {
            self.event(&event);
        }
    }

    /// Connects, and receives until it is cut off at `until`.
    async fn session(&mut self, until: Instant, last: bool) {
        let mut wire = Wire::open(&self.service, self.has_websocket()).await;
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
        wire.send(&format!("40{auth}")).await;
        let (mut connected, mut early) = (false, Vec::<String>::new());
        while let Some(packets) = self.receive(&mut wire, until).await {
            for packet in packets {
                if packet == "2" {
                    wire.send("3").await;
                } else if let Some(answer) = packet.strip_prefix("40") {
                    self.connected(answer, std::mem::take(&mut early), in_time);
                    connected = true;
                } else if packet.starts_with("42") {
                    match connected {
                        true => self.event(&packet),
                        false => early.push(packet),
                    }
                } else {
                    assert_eq!(packet, "6", "client {}", self.index);
                }
            }
            if connected && !last && self.random.below(200) == 0 {
                // Gone between two polls, or two events.
                break;
            }
        }
        if connected {
            self.cut = Some(Instant::now());
        }
        assert!(connected || !last, "client {} is not answered", self.index);
    }

    /// The next packets; none when it is cut off.
    async fn receive(&mut self, wire: &mut Wire, until: Instant) -> Option<Vec<String>> {
        let mut packets = pin!(wire.receive());
        if let Ok(packets) = timeout_at(until, &mut packets).await {
            return Some(packets);
        }
        if self.random.below(2) == 0 {
            // The connection goes on to look alive, and what is sent on it is lost.
            let _ = timeout(Duration::from_secs(2), packets).await;
        }
        None
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

fn app(truth: &Arc<Mutex<Truth>>) -> SocketIo {
    let store = Memory::new().max_packets(1_000_000).max_bytes(1 << 30).max_total_bytes(1 << 30);
    let recovery = Recovery::new().max_disconnection_duration(WINDOW).store(store);
    let io = SocketIo::builder()
        .ping_interval(PING.0)
        .ping_timeout(PING.1)
        .connection_state_recovery(recovery)
        .build();
    let truth = truth.clone();
    io.on_connect(move |socket: Socket, Auth(auth): Auth<Value>| {
        let index = auth["index"].as_u64().unwrap() as usize;
        let mut truth = truth.lock().unwrap();
        // A recovered one is in its room.
        if !socket.recovered() {
            socket.join([format!("r{}", index % ROOMS), format!("p{}", index % PLACES)]);
            truth.places.insert(index, index % PLACES);
            truth.told.insert(index, VecDeque::new());
            let so_far = truth.so_far(index);
            truth.begun.insert(socket.id().to_owned(), so_far);
        }
        truth.sockets.insert(index, socket);
        async {}
    });
    io
}

/// Emits to all, to rooms, and to each.
async fn emit(io: SocketIo, truth: Arc<Mutex<Truth>>, end: Instant, seed: u64) {
    let mut random = Random(seed);
    let mut second = 0;
    while Instant::now() < end {
        emit_once(&io, &mut truth.lock().unwrap(), second, &mut random);
        second += 1;
        sleep_until(Instant::now() + Duration::from_secs(1)).await;
    }
}

fn emit_once(io: &SocketIo, truth: &mut Truth, second: usize, random: &mut Random) {
    // Sometimes with a text at the end, and with one that is not kept between.
    if second.is_multiple_of(4) {
        let (number, count) = truth.next("all");
        io.emit("all", (number, count, "text"));
    }
    if second % 4 == 2 {
        let room = random.below(ROOMS as u64);
        let stream = format!("room{room}");
        let place = truth.next(&stream);
        io.to(format!("r{room}")).emit(&stream, place);
    }
    move_some(truth, random);
    tell_a_place(io, truth, second, random);
    let due = truth.sockets.iter().filter(|(index, _)| (*index + second).is_multiple_of(16));
    let due: Vec<_> = due.map(|(index, socket)| (*index, socket.clone())).collect();
    for (index, socket) in due {
        let stream = format!("own{index}");
        let before = truth.last.get(&stream).copied().unwrap_or(0);
        let (number, count) = truth.next(&stream);
        // One whose session is over is sent nothing.
        if socket.emit(&stream, (number, count, Value::Null)).is_err() {
            truth.last.insert(stream, before);
        }
    }
}

/// Some go to another place, or out and in again. Those who are away stay where they are.
fn move_some(truth: &mut Truth, random: &mut Random) {
    let Truth { sockets, places, .. } = truth;
    for (index, socket) in &*sockets {
        if random.below(30) > 0 {
            continue;
        }
        let place = places.get_mut(index).unwrap();
        let to = random.below(PLACES as u64) as usize;
        socket.leave(format!("p{place}"));
        socket.join(format!("p{to}"));
        if socket.rooms().contains(&format!("p{to}")) {
            *place = to;
        }
    }
}

/// What a place is told is for those who are there, or for those who are not.
fn tell_a_place(io: &SocketIo, truth: &mut Truth, second: usize, random: &mut Random) {
    let place = random.below(PLACES as u64) as usize;
    truth.count += 1;
    let count = truth.count;
    let within = !second.is_multiple_of(8);
    let room = format!("p{place}");
    let to = if within { io.to(room) } else { io.except(room) };
    to.emit("place", (place, count));
    for (index, at) in &truth.places {
        if (*at == place) == within {
            truth.told.get_mut(index).unwrap().push_back(count);
        }
    }
}

fn storm(clients: usize, length: Duration) -> impl Future<Output = ()> {
    let seed = std::env::var("SUNDEW_STORM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 | 1
    });
    println!("SUNDEW_STORM_SEED={seed}");
    async move {
        let truth = Arc::<Mutex<Truth>>::default();
        let io = app(&truth);
        let end = Instant::now() + length;
        let totals = Rc::new(RefCell::new(Totals::default()));
        let clients: Vec<_> = (0..clients)
            .map(|index| {
                let client = Client {
                    service: io.clone().into_service(),
                    random: Random(seed.wrapping_mul(index as u64 * 2 + 1) | 1),
                    index,
                    truth: truth.clone(),
                    totals: totals.clone(),
                    pid: None,
                    offset: None,
                    seen: Numbers::new(),
                    count: 0,
                    cut: None,
                };
                tokio::task::spawn_local(client.run(end))
            })
            .collect();
        emit(io, truth.clone(), end, seed).await;
        for client in clients {
            let client = client.await.unwrap();
            // Nothing is owed to anybody at the end: not the last event of any stream.
            let so_far = truth.lock().unwrap().so_far(client.index);
            assert_eq!(client.seen, so_far, "client {}", client.index);
            assert!(truth.lock().unwrap().told[&client.index].is_empty(), "client {}", client.index);
        }
        let Totals { recovered, anew, replayed, events } = &*totals.borrow();
        println!("polling, websocket: {recovered:?} recovered, {anew:?} anew, {replayed:?} replayed");
        println!("{events} events");
        for which in [0, 1] {
            assert!(recovered[which] > anew[which] && anew[which] > 0);
            // Most miss several while they are away.
            assert!(replayed[which] > recovered[which]);
        }
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
