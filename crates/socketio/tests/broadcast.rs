//! Rooms, broadcasts, acknowledgements, and what happens to clients that read too slowly.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sundew_socketio::adapter::{
    Adapter, AdapterError, BroadcastOptions, Local, Operation, Request, Response, Responses,
};
use sundew_socketio::{
    AckError, Broadcast, BroadcastAckError, Data, DisconnectReason, EmitError, OnFull, Packet, Socket,
    SocketIo,
};
use support::{Client, PATIENCE, client, http, serve, with};
use tokio::sync::mpsc;

/// Joins with the rooms it wants as auth.
fn enter(addr: SocketAddr, rooms: &[&str]) -> (Client, String) {
    let mut c = Client::open(addr);
    c.send(&format!("40{}", json!({ "rooms": rooms })));
    let answer: Value = serde_json::from_str(&c.text()[2..]).unwrap();
    (c, answer["sid"].as_str().unwrap().into())
}

/// Lets everybody say what they heard: all that came before the mark.
fn heard(c: &mut Client) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match c.text() {
            text if text == "42[\"mark\"]" => return all,
            text => all.push(text),
        }
    }
}

#[tokio::test]
async fn operators_choose_recipients() {
    let io = SocketIo::new();
    io.on_connect(async |socket: Socket| {
        let auth: Value = socket.auth().unwrap();
        for room in auth["rooms"].as_array().unwrap() {
            socket.join(room.as_str().unwrap());
        }
    });
    io.on("others", async |socket: Socket| {
        socket.broadcast().emit("o1", ());
        socket.to("x").emit("o2", ());
        socket.to(["x", "y"]).except("y").emit("o3", ());
        socket.local().emit("o4", ());
        socket.except("y").emit("o5", ());
        socket.volatile().emit("self", ()).unwrap();
    });
    let addr = serve(&io).await;
    let (mut clients, ids) = client(move || {
        let all = [enter(addr, &["x"]), enter(addr, &["x", "y"]), enter(addr, &[])];
        let (clients, ids): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        (clients, ids)
    })
    .await;
    io.emit("all", 1);
    io.to("x").emit("x", 1);
    io.to(["x", "y"]).emit("xy", 1);
    io.to(&ids[2]).emit("id", 1);
    io.except(["y"]).emit("not-y", 1);
    io.to("x").except(&ids[0]).emit("x-0", 1);
    let sent = io.to("nobody").emit("never", 1);
    assert_eq!((sent.sockets, sent.failed), (0, 0));
    assert!(matches!(io.emit("disconnect", ()).error, Some(EmitError::Reserved(_))));
    io.emit("mark", ());
    let mut clients = client(move || {
        assert_eq!(
            heard(&mut clients[0]),
            ["42[\"all\",1]", "42[\"x\",1]", "42[\"xy\",1]", "42[\"not-y\",1]"]
        );
        assert_eq!(heard(&mut clients[1]), ["42[\"all\",1]", "42[\"x\",1]", "42[\"xy\",1]", "42[\"x-0\",1]"]);
        assert_eq!(heard(&mut clients[2]), ["42[\"all\",1]", "42[\"id\",1]", "42[\"not-y\",1]"]);
        clients[0].send("42[\"others\"]");
        clients
    })
    .await;
    let _clients = client(move || {
        // Whether its own volatile reply is left out depends on what is queued; the rest is not for it.
        for event in ["o1", "o2", "o4"] {
            clients[1].expect(&format!("42[\"{event}\"]"));
        }
        for event in ["o1", "o4", "o5"] {
            clients[2].expect(&format!("42[\"{event}\"]"));
        }
        clients
    })
    .await;
    io.to("x").sockets_join(["z", "w"]);
    io.to("y").sockets_leave("z");
    assert_eq!(io.get(&ids[0]).unwrap().rooms(), [&ids[0], "x", "z", "w"]);
    assert_eq!(io.to("z").fetch_sockets().await.unwrap().len(), 1);
    let fetched = io.to("w").fetch_sockets().await.unwrap();
    assert_eq!(fetched.len(), 2);
    let first = fetched.iter().find(|socket| socket.id() == ids[0]).unwrap();
    assert_eq!((first.rooms().len(), &first.handshake().auth["rooms"][0]), (4, &json!("x")));
    io.to("x").disconnect_sockets(true);
    assert_eq!((io.socket_count(), io.rooms()), (1, vec![]));
}

#[tokio::test]
async fn acks_of_one_client() {
    let io = SocketIo::builder().ack_timeout(Duration::from_millis(200)).build();
    let addr = serve(&io).await;
    let mut c = client(move || Client::connect(addr, "/")).await;
    let socket = io.sockets().remove(0);

    let answer = socket.emit_with_ack::<(u8, Bytes)>("q", Bytes::from_static(b"?"));
    c = client(move || {
        c.expect("451-0[\"q\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!(c.binary(), "?");
        c.send("461-0[1,{\"_placeholder\":true,\"num\":0}]");
        c.send_binary(b"!");
        // Twice, and one never asked for: ignored.
        c.send("430[2]");
        c.send("4399[2]");
        c
    })
    .await;
    assert_eq!(answer.await.unwrap(), (1, Bytes::from_static(b"!")));
    let start = Instant::now();
    let error = socket.emit_with_ack::<()>("q", ()).await.unwrap_err();
    assert!(matches!(error, AckError::Timeout));
    assert_eq!(error.to_string(), "operation has timed out");
    assert!(start.elapsed() >= Duration::from_millis(200));
    let answer = socket.emit_with_ack::<u8>("q", ()).timeout(PATIENCE);
    let mistyped = socket.timeout(PATIENCE).emit_with_ack::<u8>("q", ());
    let dropped = socket.emit_with_ack::<u8>("q", ());
    drop(dropped);
    client(move || {
        c.send("433[\"text\"]");
        c.send("434[1]");
        for id in 1..=4 {
            c.expect(&format!("42{id}[\"q\"]"));
        }
        c.send("41");
        // The client leaves with one acknowledgement owed.
        c
    })
    .await;
    assert!(matches!(mistyped.await, Err(AckError::Data(_))));
    assert!(matches!(answer.await, Err(AckError::Disconnected)));
    assert!(matches!(socket.emit_with_ack::<u8>("q", ()).await, Err(AckError::Emit(EmitError::Closed))));
    assert!(matches!(socket.emit("x", ()), Err(EmitError::Closed)));
}

#[tokio::test]
async fn acks_of_a_broadcast() {
    let io = SocketIo::new();
    let addr = serve(&io).await;
    let mut clients = client(move || (0..3).map(|_| Client::connect(addr, "/")).collect::<Vec<_>>()).await;
    let all = tokio::spawn({
        let io = io.clone();
        async move { io.emit_with_ack::<u32>("q", 7).await }
    });
    clients = client(move || {
        for (n, c) in clients.iter_mut().enumerate() {
            c.expect("420[\"q\",7]");
            c.send(&format!("430[{n}]"));
        }
        clients
    })
    .await;
    let mut answers = all.await.unwrap().unwrap();
    answers.sort_unstable();
    assert_eq!(answers, [0, 1, 2]);

    // One answers, one leaves, one is silent: what came is told.
    let all = tokio::spawn({
        let io = io.clone();
        async move { io.timeout(Duration::from_millis(300)).emit_with_ack::<u32>("q", ()).await }
    });
    client(move || {
        clients[0].expect("421[\"q\"]");
        clients[0].send("431[5]");
        clients.remove(1).vanish();
        clients[1].expect("421[\"q\"]");
        clients
    })
    .await;
    match all.await.unwrap() {
        Err(BroadcastAckError::Incomplete { answers, expected: 3, missing: 2 }) => {
            assert_eq!(answers[0].decode::<u32>().unwrap(), 5);
        }
        other => panic!("{other:?}"),
    }
}

/// A client says what it likes: what the others have answered is not lost by it.
#[tokio::test]
async fn an_answer_that_does_not_fit_leaves_the_others() {
    let io = SocketIo::new();
    let addr = serve(&io).await;
    let clients = client(move || (0..3).map(|_| Client::connect(addr, "/")).collect::<Vec<_>>()).await;
    let all = tokio::spawn(async move { io.emit_with_ack::<u32>("q", ()).await });
    let clients = client(move || {
        let mut clients = clients;
        for (c, answer) in clients.iter_mut().zip(["1", "\"two\"", "3"]) {
            c.expect("420[\"q\"]");
            c.send(&format!("430[{answer}]"));
        }
        clients
    })
    .await;
    match all.await.unwrap() {
        Err(BroadcastAckError::Data { error, answers }) => {
            assert!(error.to_string().contains("u32"), "{error}");
            let mut fit: Vec<u32> = answers.iter().filter_map(|answer| answer.decode().ok()).collect();
            fit.sort_unstable();
            assert_eq!((answers.len(), fit), (3, vec![1, 3]));
        }
        other => panic!("{other:?}"),
    }
    drop(clients);
}

/// One that owes too many acknowledgements already, or reads too slowly, was not even asked: its silence is no consent.
#[tokio::test]
async fn who_could_not_be_asked_has_not_acknowledged() {
    let io = SocketIo::builder().max_pending_acks(1).max_queued(1 << 20, 4096).build();
    io.when_full(OnFull::Drop);
    let addr = serve(&io).await;
    let ask = |event: &'static str| {
        let io = io.clone();
        tokio::spawn(async move { io.timeout(PATIENCE).emit_with_ack::<u32>(event, ()).await })
    };
    let mut owing = client(move || Client::connect(addr, "/")).await;
    let slow = io.sockets().remove(0);
    let owed = slow.emit_with_ack::<()>("first", ());
    let mut good = client(move || Client::connect(addr, "/")).await;
    let answer = move |mut c: Client, frame: &'static str, answer: &'static str| {
        client(move || {
            c.expect(frame);
            c.send(answer);
            c
        })
    };
    let all = ask("q");
    good = answer(good, "421[\"q\"]", "431[7]").await;
    let outcome = all.await.unwrap();
    assert!(
        matches!(&outcome, Err(BroadcastAckError::Incomplete { answers, expected: 2, missing: 1 }) if answers.len() == 1),
        "{outcome:?}"
    );
    drop(owed);
    // It reads nothing from now on.
    owing = client(move || {
        owing.expect("420[\"first\"]");
        owing
    })
    .await;
    while slow.emit("much", "x".repeat(100_000)).is_ok() {}
    let all = ask("again");
    good = answer(good, "422[\"again\"]", "432[8]").await;
    let outcome = all.await.unwrap();
    assert!(
        matches!(&outcome, Err(BroadcastAckError::Incomplete { answers, expected: 2, missing: 1 }) if answers.len() == 1),
        "{outcome:?}"
    );
    drop((good, owing));
}

#[tokio::test]
async fn flags_and_shorthands() {
    let io = SocketIo::builder().ack_timeout(PATIENCE).build();
    io.on("message", async |socket: Socket, Data(text): Data<String>| {
        assert_eq!(text, "sent");
        socket.send("to me").unwrap();
        socket.compress(false).timeout(PATIENCE).emit("quiet", ()).unwrap();
        socket.compress(true).send("me too").unwrap();
        assert_eq!(socket.compress(true).broadcast().compress(false).send("others").sockets, 1);
    });
    let addr = serve(&io).await;
    let (mut c, id, mut other) = client(move || {
        let ((mut c, id), (mut other, _)) = (enter(addr, &[]), enter(addr, &[]));
        c.send("42[\"message\",\"sent\"]");
        for event in ["\"message\",\"to me\"", "\"quiet\"", "\"message\",\"me too\""] {
            c.expect(&format!("42[{event}]"));
        }
        other.expect("42[\"message\",\"others\"]");
        (c, id, other)
    })
    .await;
    assert_eq!((io.send("all").sockets, io.compress(true).send("all").sockets), (2, 2));
    // One of those fetched, wherever it is, with its own time limit.
    let mut fetched = io.fetch_sockets().await.unwrap();
    fetched.retain(|socket| socket.id() == id);
    let fetched = fetched.remove(0);
    let late = fetched.timeout(Duration::from_millis(50)).emit_with_ack::<u8>("late", ()).await;
    assert!(matches!(late, Err(BroadcastAckError::Incomplete { expected: 1, missing: 1, .. })));
    let answer = tokio::spawn(async move { fetched.emit_with_ack::<u8>("q", ()).await });
    client(move || {
        for all in ["42[\"message\",\"all\"]"; 2] {
            c.expect(all);
            other.expect(all);
        }
        c.expect("420[\"late\"]");
        c.expect("421[\"q\"]");
        c.send("431[7]");
        (c, other)
    })
    .await;
    assert_eq!(answer.await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn the_query_of_the_handshake_can_be_read() {
    const URL: &str = "/socket.io/?EIO=4&transport=polling&a%5B%5D=x%20y&empty&b=1&b=2&plus=1+%2B";
    let now = || u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let io = SocketIo::new();
    let addr = serve(&io).await;
    let before = now();
    client(move || {
        let (_, _, body) = http(addr, "GET", URL, "", "");
        let open: Value = serde_json::from_str(&body[1..]).unwrap();
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", open["sid"].as_str().unwrap());
        assert_eq!(http(addr, "POST", &path, "", "40").2, "ok");
    })
    .await;
    let socket = io.sockets().remove(0);
    let query = |name: &str| socket.query(name);
    assert_eq!(query("a[]").as_deref(), Some("x y"));
    assert_eq!((query("empty").as_deref(), query("b").as_deref()), (Some(""), Some("1")));
    assert_eq!((query("plus").as_deref(), query("none")), (Some("1 +"), None));
    let handshake = socket.handshake();
    assert_eq!((&*handshake.url, socket.url()), (URL, URL));
    assert!((before..=now()).contains(&handshake.issued), "{} after {before}", handshake.issued);
}

/// Two servers in one process: everything goes through a JSON codec, as a bus would do it.
#[derive(Clone, Default)]
struct Pair(Arc<Mutex<Vec<Local>>>, usize);

impl Adapter for Pair {
    fn start(&self, local: Local) {
        self.0.lock().push(local);
    }

    fn publish(&self, nsp: &str, operation: &Operation) -> Result<(), AdapterError> {
        let mut operation = operation.clone();
        let attachments = operation.packet_mut().map(Packet::take_attachments);
        let text = serde_json::to_string(&operation).unwrap();
        let mut operation: Operation = serde_json::from_str(&text).unwrap();
        if let (Some(packet), Some(attachments)) = (operation.packet_mut(), attachments) {
            packet.set_attachments(attachments);
        }
        let other = self.0.lock()[1 - self.1].clone();
        other.apply(nsp, operation);
        Ok(())
    }

    fn request(&self, nsp: &str, request: Request, timeout: Duration) -> Responses {
        let other = self.0.lock()[1 - self.1].clone();
        let through = |answer: Result<Response, AdapterError>| {
            let text = serde_json::to_string(&answer.unwrap()).unwrap();
            Ok(serde_json::from_str::<Response>(&text).unwrap())
        };
        other.answer(nsp, request, timeout).map(through).boxed()
    }

    fn server_count(&self) -> usize {
        2
    }

    fn close(&self) {}
}

#[tokio::test]
async fn everything_reaches_across_servers() {
    let shared = Pair::default();
    let one = SocketIo::builder().adapter(Pair(shared.0.clone(), 0)).build();
    let two = SocketIo::builder().adapter(Pair(shared.0.clone(), 1)).build();
    let (here, there) = (serve(&one).await, serve(&two).await);
    one.on("others", async |socket: Socket| drop(socket.broadcast().emit("from-a", ())));
    let (mut a, mut b, b_id) = client(move || {
        let a = Client::connect(here, "/");
        let mut b = Client::open(there);
        let id = b.join("/");
        (a, b, id)
    })
    .await;
    one.emit("all", Bytes::from_static(b"x"));
    one.local().emit("local", ());
    one.to(&b_id).emit("you", ());
    (a, b) = client(move || {
        a.expect("451-[\"all\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!(a.binary(), "x");
        a.expect("42[\"local\"]");
        b.expect("451-[\"all\",{\"_placeholder\":true,\"num\":0}]");
        assert_eq!(b.binary(), "x");
        b.expect("42[\"you\"]");
        a.send("42[\"others\"]");
        b.expect("42[\"from-a\"]");
        (a, b)
    })
    .await;
    two.get(&b_id).unwrap().set_data(json!({"name": "b"})).unwrap();
    one.to(&b_id).sockets_join("room");
    let fetched = one.to("room").fetch_sockets().await.unwrap();
    assert_eq!((fetched.len(), fetched[0].id(), &fetched[0].data()["name"]), (1, &*b_id, &json!("b")));
    assert_eq!(one.fetch_sockets().await.unwrap().len(), 2);
    assert_eq!(one.local().fetch_sockets().await.unwrap().len(), 1);
    let acks = tokio::spawn(async move { one.emit_with_ack::<String>("q", ()).await });
    client(move || {
        for (name, c) in [("a", &mut a), ("b", &mut b)] {
            c.expect("420[\"q\"]");
            c.send(&format!("430[\"{name}\"]"));
        }
        (a, b)
    })
    .await;
    let mut answers = acks.await.unwrap().unwrap();
    answers.sort();
    assert_eq!(answers, ["a", "b"]);
    fetched[0].disconnect(true);
    assert_eq!(two.socket_count(), 0);
    let local = shared.0.lock()[0].clone();
    assert!(local.fetch("/none", &BroadcastOptions::default()).is_empty());
}

/// Emits to a client that does not read until its queue is full.
fn flood(socket: &Socket) -> (usize, EmitError) {
    let chunk = "x".repeat(100_000);
    let start = Instant::now();
    for n in 0.. {
        if let Err(error) = socket.emit("chunk", &chunk) {
            return (n, error);
        }
        assert!(start.elapsed() < PATIENCE, "nothing holds it back");
    }
    unreachable!()
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_its_bound() {
    let io = SocketIo::builder()
        .max_queued(500_000, 100)
        .engine(|c| c.close_timeout = Duration::from_millis(200))
        .build();
    let (sender, mut left) = mpsc::unbounded_channel();
    io.on_disconnect(with!([sender] (reason: DisconnectReason) => sender.send(reason).unwrap()));
    let addr = serve(&io).await;
    let silent = client(move || Client::connect(addr, "/")).await;
    let (_, error) = flood(&io.sockets()[0]);
    assert!(matches!(error, EmitError::Full { policy: OnFull::Disconnect }), "{error}");
    let reason = tokio::time::timeout(PATIENCE, left.recv()).await.unwrap().unwrap();
    assert_eq!(reason, DisconnectReason::QueueFull);
    assert_eq!((io.troubles().queue_full, io.socket_count()), (1, 0));
    drop(silent);
}

#[tokio::test]
async fn dropping_and_waiting_are_the_other_ways() {
    let io = SocketIo::builder().max_queued(500_000, 100).build();
    io.when_full(OnFull::Drop);
    io.on("n", async |socket: Socket, Data(n): Data<u32>| socket.emit("n", n).unwrap());
    let addr = serve(&io).await;
    let mut c = client(move || Client::connect(addr, "/")).await;
    let socket = io.sockets().remove(0);
    let (sent, error) = flood(&socket);
    assert!(matches!(error, EmitError::Full { policy: OnFull::Drop }));
    assert!(socket.is_connected());
    // Volatile events are left out without an error, to one or to all.
    socket.volatile().emit("never", ()).unwrap();
    let left_out = socket.volatile().emit_with_ack::<()>("never", ()).await;
    assert!(matches!(left_out, Err(AckError::Emit(EmitError::LeftOut))));
    let all: Broadcast = io.volatile();
    assert_eq!(all.emit("never", ()).failed, 0);
    let waiting = tokio::spawn(async move { socket.emit_async("last", ()).await });
    let waiting_all = tokio::spawn({
        let io = io.clone();
        async move {
            io.to("nobody").emit_async("none", ()).await.sockets
                + io.except("x").emit_async("all", ()).await.sockets
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    client(move || {
        for _ in 0..sent {
            assert!(c.text().starts_with("42[\"chunk\""));
        }
        let mut last = [c.text(), c.text()];
        last.sort();
        assert_eq!(last, ["42[\"all\"]", "42[\"last\"]"]);
        c
    })
    .await;
    waiting.await.unwrap().unwrap();
    assert_eq!(waiting_all.await.unwrap(), 1);
}

#[tokio::test]
async fn volatile_is_not_lost_on_an_idle_connection() {
    let io = SocketIo::new();
    let addr = serve(&io).await;
    let c = client(move || Client::connect(addr, "/")).await;
    for n in 0..20 {
        io.volatile().emit("v", n);
    }
    client(move || {
        let mut c = c;
        for n in 0..20 {
            c.expect(&format!("42[\"v\",{n}]"));
        }
    })
    .await;
}

#[tokio::test]
async fn the_client_is_served_from_an_installed_package() {
    let package = std::env::temp_dir().join(format!("sundew-client-{}", std::process::id()));
    std::fs::create_dir_all(package.join("dist")).unwrap();
    std::fs::write(package.join("package.json"), "{\"version\":\"4.8.4\"}").unwrap();
    std::fs::write(package.join("dist/socket.io.min.js"), "client").unwrap();
    std::fs::write(package.join("dist/secret.js"), "secret").unwrap();
    let io = SocketIo::builder().serve_client(package.join("dist")).build();
    let addr = serve(&io).await;
    client(move || {
        let (status, head, body) = http(addr, "GET", "/socket.io/socket.io.min.js", "", "");
        assert_eq!((status, &*body), (200, "client"));
        assert!(
            head.contains("etag: \"4.8.4\"") && head.contains("cache-control: public, max-age=0"),
            "{head}"
        );
        assert!(head.contains("content-type: application/javascript"));
        let (status, _, body) =
            http(addr, "GET", "/socket.io/socket.io.min.js?x=1", "If-None-Match: \"4.8.4\"\r\n", "");
        assert_eq!((status, &*body), (304, ""));
        assert_eq!(http(addr, "GET", "/socket.io/socket.io.js.map", "", "").0, 404);
        assert_eq!(http(addr, "GET", "/socket.io/secret.js", "", "").0, 400);
    })
    .await;
    std::fs::remove_dir_all(package).unwrap();
}
