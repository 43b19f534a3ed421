//! Clients of four servers joined by a bus, cut off at random, that come back to whichever server: each time as what they
//! were, with no event lost, doubled or out of order. And what does not come back.
//!
//! The clients keep to the official one: they remember the last text of an event's arguments, and hand events that come
//! before the answer to CONNECT on after it. They call the server's service in place, over polling.

#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sundew_adapter::{LocalBus, PeerName};
use sundew_socketio::recovery::{Memory, Recovery};
use sundew_socketio::{Auth, Data, EmitError, NotFound, Socket, SocketIo, SocketIoService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower_service::Service;

/// What never comes is noticed after this long.
const PATIENCE: Duration = Duration::from_secs(10);
const SERVERS: usize = 4;
const ROOMS: u64 = 5;

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

fn server(recovery: Recovery) -> (SocketIo, LocalBus) {
    let bus = LocalBus::new();
    let io = SocketIo::builder().adapter(bus.clone()).connection_state_recovery(recovery).build();
    io.on_connect(async |socket: Socket, Auth(auth): Auth<Value>| {
        // A recovered one is in its rooms and has its data.
        if !socket.recovered() {
            if let Some(room) = auth["room"].as_str() {
                socket.join(room);
            }
            socket.set_data(json!({"of": auth["index"]})).unwrap();
        }
        assert_eq!(socket.data()["of"], auth["index"]);
    });
    io.on("join", async |socket: Socket, Data(room): Data<String>| socket.join(room));
    (io, bus)
}

fn joined(count: usize, recovery: impl Fn() -> Recovery) -> Vec<SocketIo> {
    let (servers, buses): (Vec<_>, Vec<_>) = (0..count).map(|_| server(recovery())).unzip();
    for (first, bus) in buses.iter().enumerate() {
        for (second, other) in buses.iter().enumerate().skip(first + 1) {
            link(bus, other, [first, second]);
        }
    }
    servers
}

fn name(slot: usize) -> PeerName {
    PeerName { slot: u16::try_from(slot).unwrap(), generation: 1 }
}

fn link(first: &LocalBus, second: &LocalBus, slots: [usize; 2]) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    first.add_peer(name(slots[1]), ours).unwrap();
    second.add_peer(name(slots[0]), theirs).unwrap();
}

async fn request(
    service: &SocketIoService<NotFound>,
    method: Method,
    sid: &str,
    body: String,
) -> (u16, String) {
    let sid = if sid.is_empty() { String::new() } else { format!("&sid={sid}") };
    let request = Request::builder()
        .method(method)
        .uri(format!("/socket.io/?EIO=4&transport=polling{sid}"))
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let response = service.clone().call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// One client, wherever it is connected.
struct Client {
    servers: Vec<SocketIo>,
    index: usize,
    auth: Value,
    id: String,
    pid: Option<String>,
    offset: Option<String>,
    /// The last number of each stream.
    seen: HashMap<String, u64>,
    service: Option<SocketIoService<NotFound>>,
    sid: String,
    /// How often it was taken up, and by another server than the one before.
    recovered: usize,
}

impl Client {
    fn new(servers: &[SocketIo], index: usize, room: &str) -> Client {
        Client {
            servers: servers.to_vec(),
            index,
            auth: json!({"index": index, "room": room}),
            id: String::new(),
            pid: None,
            offset: None,
            seen: HashMap::new(),
            service: None,
            sid: String::new(),
            recovered: 0,
        }
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
    }

    async fn poll(&self) -> String {
        let body = self.poll_or_end().await;
        body.unwrap_or_else(|| panic!("client {}: the session is over", self.index))
    }

    /// None when the session is over: another connection of the client has taken it up.
    async fn poll_or_end(&self) -> Option<String> {
        let (status, body) =
            request(self.service.as_ref().unwrap(), Method::GET, &self.sid, String::new()).await;
        assert!(status == 200 || body.contains("Session ID unknown"), "client {}: {body}", self.index);
        (status == 200 && !body.ends_with('1')).then_some(body)
    }

    /// Connects to a server and says whether it was recovered. Gives up at that time, and when another connection of its own,
    /// given up before, has come to have its session.
    async fn connect(&mut self, server: usize, by: Instant) -> Option<bool> {
        self.service = Some(self.servers[server].clone().into_service());
        let (_, open) = request(self.service.as_ref().unwrap(), Method::GET, "", String::new()).await;
        let open: Value = serde_json::from_str(&open[1..]).unwrap();
        self.sid = open["sid"].as_str().unwrap().to_owned();
        let mut auth = self.auth.clone();
        if let Some(pid) = &self.pid {
            auth["pid"] = json!(pid);
            auth["offset"] = json!(self.offset);
        }
        let service = self.service.as_ref().unwrap();
        assert_eq!(request(service, Method::POST, &self.sid, format!("40{auth}")).await.0, 200);
        let mut early = Vec::<String>::new();
        loop {
            let body = timeout_at(by, self.poll_or_end()).await.ok()??;
            let mut answered = None;
            for packet in body.split('\u{1e}') {
                if let Some(answer) = packet.strip_prefix("40") {
                    let answer: Value = serde_json::from_str(answer).unwrap();
                    let pid = answer["pid"].as_str().unwrap().to_owned();
                    let recovered = self.pid.as_ref() == Some(&pid);
                    let id = answer["sid"].as_str().unwrap().to_owned();
                    assert!(!recovered || id == self.id);
                    if !recovered {
                        self.seen.clear();
                    }
                    (self.pid, self.id) = (Some(pid), id);
                    self.recovered += usize::from(recovered);
                    answered = Some(recovered);
                    for event in std::mem::take(&mut early) {
                        self.event(&event);
                    }
                } else if let Some(array) = packet.strip_prefix("42") {
                    match answered {
                        Some(_) => self.event(array),
                        None => early.push(array.to_owned()),
                    }
                } else {
                    assert!(packet == "6" || packet == "2", "client {}: {packet}", self.index);
                }
            }
            if answered.is_some() {
                return answered;
            }
        }
    }

    fn received(&mut self, body: &str) {
        for packet in body.split('\u{1e}') {
            match packet.strip_prefix("42") {
                Some(array) => self.event(array),
                None => assert!(packet == "6" || packet == "2", "client {}: {packet}", self.index),
            }
        }
    }

    /// Receives until then; the last poll is broken off, and with it the session.
    async fn receive(&mut self, until: Instant) {
        while let Ok(Some(body)) = timeout_at(until, self.poll_or_end()).await {
            self.received(&body);
        }
    }

    async fn until(&mut self, stream: &str, number: u64) {
        let by = Instant::now() + PATIENCE;
        while self.seen.get(stream) != Some(&number) {
            let Ok(body) = timeout_at(by, self.poll()).await else {
                panic!("client {}: no {stream} {number}", self.index)
            };
            self.received(&body);
        }
    }

    /// Is cut off at random, and comes back to whichever server, until the end.
    async fn run(mut self, seed: u64, end: Instant) -> Client {
        let mut random = Random(seed);
        self.connect(random.below(SERVERS as u64) as usize, end + PATIENCE).await.unwrap();
        while Instant::now() < end {
            self.receive(Instant::now() + random.millis(300)).await;
            sleep(random.millis(100)).await;
            let server = random.below(SERVERS as u64) as usize;
            let recovered = self.connect(server, end + PATIENCE).await;
            assert_eq!(recovered, Some(true), "client {}", self.index);
        }
        self
    }
}

/// Emits from one server, to all and to rooms; returns the last number of every stream.
async fn emit(io: SocketIo, server: usize, end: Instant) -> HashMap<String, u64> {
    let mut random = Random(server as u64 + 1);
    let mut last = HashMap::<String, u64>::new();
    while Instant::now() < end {
        let (room, kept) = (random.below(ROOMS), random.below(4) > 0);
        let stream = if kept { format!("room {room} of {server}") } else { format!("all of {server}") };
        let number = last.entry(stream.clone()).or_default();
        *number += 1;
        let sent = match kept {
            true => io.to(format!("r{room}")).emit(&stream, *number),
            // With a text at the end, and one that is not kept before it.
            false => {
                io.volatile().to("nobody").emit("gone", "text");
                io.emit(&stream, (*number, "text"))
            }
        };
        assert!(sent.error.is_none());
        sleep(random.millis(20)).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_at_random_and_back_on_any_server() {
    let servers = joined(SERVERS, || Recovery::new().lookup_timeout(PATIENCE));
    let end = Instant::now() + Duration::from_secs(4);
    let clients: Vec<_> = (0..60)
        .map(|index| {
            let client = Client::new(&servers, index, &format!("r{}", index as u64 % ROOMS));
            tokio::spawn(client.run(index as u64 * 7919 + 1, end))
        })
        .collect();
    // Everybody is there from the first event on.
    sleep(Duration::from_millis(300)).await;
    let emitting: Vec<_> =
        servers.iter().enumerate().map(|(index, io)| tokio::spawn(emit(io.clone(), index, end))).collect();
    let mut last = HashMap::new();
    for emitting in emitting {
        last.extend(emitting.await.unwrap());
    }
    let mut recovered = 0;
    for client in clients {
        let mut client = client.await.unwrap();
        let again = client.connect(0, Instant::now() + PATIENCE).await;
        assert_eq!(again, Some(true), "client {}", client.index);
        let room = format!("room {} of", client.index as u64 % ROOMS);
        for (stream, number) in
            last.iter().filter(|(stream, _)| !stream.starts_with("room") || stream.starts_with(&room))
        {
            client.until(stream, *number).await;
        }
        recovered += client.recovered;
    }
    assert!(recovered > 400, "{recovered} times recovered");
}

#[tokio::test]
async fn rooms_data_and_what_came_meanwhile() {
    let servers = joined(3, Recovery::new);
    let mut client = Client::new(&servers, 7, "r");
    let by = || Instant::now() + PATIENCE;
    assert_eq!(client.connect(0, by()).await, Some(false));
    let old = servers[0].sockets().remove(0);
    servers[1].emit("all", 1);
    client.until("all", 1).await;
    // It is cut off without a word: from here it still looks alive.
    servers[1].to("r").emit("all", (2, Bytes::from_static(b"\x01")));
    until_served(&servers, 2).await;
    servers[2].to(&client.id).emit("all", 3);
    until_served(&servers, 2).await;
    servers[0].to("others").emit("all", 100);
    servers[0].local().emit("all", 4);
    old.emit("all", 5).unwrap();
    // What a server beside it sends to its own alone is not for it.
    servers[1].local().emit("all", 100);
    assert_eq!(servers[0].socket_count(), 1);

    client.auth["binary"] = json!(true);
    let found = client_with_binary(&mut client, 1).await;
    assert_eq!(found, ["451-[\"all\",2", "42[\"all\",3,\"", "42[\"all\",4,\"", "42[\"all\",5,\""]);
    client.seen.insert("all".into(), 5);
    assert_eq!((servers[0].socket_count(), servers[1].socket_count()), (0, 1));
    let socket = servers[1].sockets().remove(0);
    assert!(socket.recovered());
    assert_eq!((socket.id(), socket.data()), (&*client.id, json!({"of": 7})));
    assert_eq!(socket.rooms().len(), 2);
    // The old handle is of a socket that is elsewhere.
    assert!(matches!(old.emit("all", 100), Err(EmitError::Closed)));
    // From server to server, with no event in between: nobody is told anything twice.
    for server in [2, 0, 1, 0] {
        assert_eq!(client.connect(server, by()).await, Some(true));
    }
    servers[2].emit("last", 1);
    client.until("last", 1).await;
    assert_eq!(client.seen["all"], 5);
}

/// Waits until what was published has reached all servers.
async fn until_served(servers: &[SocketIo], count: usize) {
    let rounds = Arc::new(AtomicUsize::new(0));
    for io in servers {
        let rounds = rounds.clone();
        io.on_server_event("round", move || {
            rounds.fetch_add(1, Ordering::Relaxed);
            async {}
        });
    }
    for io in servers {
        io.server_side_emit("round", ()).unwrap();
    }
    timeout(PATIENCE, async {
        while rounds.load(Ordering::Relaxed) < count * servers.len() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

/// Connects, and returns the beginnings of the packets that came before the answer.
async fn client_with_binary(client: &mut Client, server: usize) -> Vec<String> {
    let service = client.servers[server].clone().into_service();
    let (_, open) = request(&service, Method::GET, "", String::new()).await;
    let open: Value = serde_json::from_str(&open[1..]).unwrap();
    client.sid = open["sid"].as_str().unwrap().to_owned();
    client.service = Some(service);
    let mut auth = client.auth.clone();
    (auth["pid"], auth["offset"]) = (json!(client.pid), json!(client.offset));
    let service = client.service.as_ref().unwrap();
    assert_eq!(request(service, Method::POST, &client.sid, format!("40{auth}")).await.0, 200);
    let mut found = Vec::new();
    loop {
        for packet in client.poll().await.split('\u{1e}') {
            if packet.starts_with("40") {
                assert!(packet.contains(client.pid.as_ref().unwrap()));
                return found;
            }
            if let Some(array) = packet.strip_prefix("42") {
                let args: Vec<Value> = serde_json::from_str(array).unwrap();
                client.offset = args.last().unwrap().as_str().map(str::to_owned);
            }
            if !packet.starts_with('b') {
                found.push(packet[..12].to_owned());
            }
        }
    }
}

#[tokio::test]
async fn what_is_lost_anywhere_is_a_new_session() {
    let by = || Instant::now() + PATIENCE;
    // The server that kept it has dropped some of what its client missed.
    let servers = joined(2, || Recovery::new().store(Memory::new().max_packets(3)));
    let mut client = Client::new(&servers, 1, "r");
    client.connect(0, by()).await.unwrap();
    for number in 1..=5 {
        servers[1].emit("all", number);
    }
    until_served(&servers, 1).await;
    assert_eq!(client.connect(1, by()).await, Some(false));
    // Nobody knows it, and it is not waited for where nobody can be asked.
    client.pid = Some("x".repeat(20));
    assert_eq!(client.connect(0, by()).await, Some(false));
    // It was taken up once.
    let (pid, offset) = (client.pid.clone(), client.offset.clone());
    assert_eq!(client.connect(1, by()).await, Some(true));
    client.until_gone(1).await;
    assert_eq!(client.connect(0, by()).await, Some(true));
    let mut twin = Client::new(&servers, 1, "r");
    (twin.pid, twin.offset, twin.id) = (pid, offset, client.id.clone());
    // Whoever has the private id is the client.
    assert_eq!(twin.connect(1, by()).await, Some(true));
    assert!(servers[0].get(&client.id).is_none() && servers[1].get(&client.id).is_some());
}

impl Client {
    /// Ends its session on that server as a lost connection does.
    async fn until_gone(&self, server: usize) {
        let io = &self.servers[server];
        assert!(io.get(&self.id).is_some());
        let service = self.service.as_ref().unwrap();
        assert_eq!(request(service, Method::POST, &self.sid, "1".into()).await.0, 200);
        while io.get(&self.id).is_some() {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_holds_nobody_up_for_long() {
    let quick = || Recovery::new().lookup_timeout(Duration::from_millis(200)).max_lookups(1);
    let servers = joined(2, quick);
    // A peer that takes part in nothing.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (stuck, bus) = server(quick());
    bus.add_peer(name(9), ours).unwrap();
    let mut client = Client::new(&[stuck, servers[0].clone()], 1, "r");
    client.pid = Some("x".repeat(20));
    let start = Instant::now();
    assert_eq!(client.connect(0, Instant::now() + PATIENCE).await, Some(false));
    assert!((Duration::from_millis(200)..PATIENCE / 2).contains(&start.elapsed()));
    drop(theirs);
}

/// A link whose second end hears everything late.
fn slow_link(first: &LocalBus, second: &LocalBus, slots: [usize; 2], late: Duration) {
    let pair = || std::os::unix::net::UnixStream::pair().unwrap();
    let ((ours, near), (far, theirs)) = (pair(), pair());
    first.add_peer(name(slots[1]), ours).unwrap();
    second.add_peer(name(slots[0]), theirs).unwrap();
    let stream = |stream: std::os::unix::net::UnixStream| {
        stream.set_nonblocking(true).unwrap();
        tokio::net::UnixStream::from_std(stream).unwrap().into_split()
    };
    let ((mut from_first, mut to_first), (mut from_second, mut to_second)) = (stream(near), stream(far));
    tokio::spawn(async move { tokio::io::copy(&mut from_second, &mut to_first).await });
    tokio::spawn(async move {
        let mut buf = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_first.read(&mut buf).await {
            sleep(late).await;
            to_second.write_all(&buf[..count]).await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_server_that_hears_late_says_nothing_twice() {
    let late = Duration::from_millis(150);
    let (servers, buses): (Vec<_>, Vec<_>) = (0..3).map(|_| server(Recovery::new())).unzip();
    link(&buses[0], &buses[1], [0, 1]);
    link(&buses[2], &buses[0], [2, 0]);
    slow_link(&buses[2], &buses[1], [2, 1], late);
    let mut client = Client::new(&servers, 1, "r");
    client.connect(0, Instant::now() + PATIENCE).await.unwrap();
    let mut number = 0;
    for round in 0..4 {
        // One that it has had, and one that it has missed: the server it comes back to knows of neither yet.
        number += 1;
        servers[2].emit("all", number);
        client.until("all", number).await;
        number += 1;
        servers[2].emit("all", number);
        sleep(late / 5).await;
        assert_eq!(client.connect(1, Instant::now() + PATIENCE).await, Some(true), "round {round}");
        client.until("all", number).await;
        number += 1;
        servers[2].emit("all", number);
        client.until("all", number).await;
        assert_eq!(client.connect(0, Instant::now() + PATIENCE).await, Some(true), "round {round}");
    }
}
