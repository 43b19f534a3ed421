//! Clients that come back, and are lost again before what they had missed has arrived: in virtual time, over polling.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use sundew_socketio::recovery::Recovery;
use sundew_socketio::{ConnectError, DisconnectReason, Socket, SocketIo};
use support::in_place::InPlace;
use tokio::time::{Instant, sleep_until};

/// Connects and leaves, and remembers nothing of what it got: the private id, and how many events came before it.
async fn connect(client: &InPlace, auth: &Value) -> (String, usize) {
    let sid = client.open(auth).await;
    let mut events = 0;
    loop {
        let body = client.request(Method::GET, &sid, "").await;
        for packet in body.split('\x1e') {
            match packet.strip_prefix("40") {
                None => events += 1,
                Some(answer) => {
                    client.leave(&sid).await;
                    let answer: Value = serde_json::from_str(answer).unwrap();
                    return (answer["pid"].as_str().unwrap().to_owned(), events);
                }
            }
        }
    }
}

/// Events are kept for 45 seconds, the heartbeat's, longer than sessions.
fn recovery() -> Recovery {
    Recovery::new().max_disconnection_duration(Duration::from_secs(60))
}

#[tokio::test(start_paused = true)]
async fn what_has_not_arrived_and_has_expired_is_a_gap() {
    let io = SocketIo::builder().connection_state_recovery(recovery()).build();
    let client = InPlace::new(&io);
    let start = Instant::now();
    let at = |seconds| sleep_until(start + Duration::from_secs(seconds));
    let (pid, _) = connect(&client, &json!({})).await;
    while io.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    io.emit("missed", ());
    let auth = json!({"pid": &pid});
    for seconds in [50, 100] {
        at(seconds).await;
        assert_eq!(connect(&client, &auth).await, (pid.clone(), 1), "{seconds}");
    }
    // The session is there until 160, the event was until 105.
    at(110).await;
    let (anew, events) = connect(&client, &auth).await;
    assert!(anew != pid && events == 0);
}

#[tokio::test(start_paused = true)]
async fn nor_is_a_gap_hidden_by_the_middleware() {
    let io = SocketIo::builder().connection_state_recovery(recovery().skip_middlewares(false)).build();
    let asked = Arc::new(AtomicUsize::new(0));
    io.with(move || {
        let turn = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            if turn == 1 || turn == 2 {
                std::future::pending::<()>().await;
            }
            Ok::<(), ConnectError>(())
        }
    });
    let client = InPlace::new(&io);
    let start = Instant::now();
    let at = |seconds| sleep_until(start + Duration::from_secs(seconds));
    let (pid, _) = connect(&client, &json!({})).await;
    while io.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    io.emit("missed", ());
    let auth = json!({"pid": &pid});
    // Twice it dies in the middleware.
    for seconds in [50, 100] {
        at(seconds).await;
        let sid = client.open(&auth).await;
        client.leave(&sid).await;
    }
    at(104).await;
    assert_eq!(connect(&client, &auth).await, (pid.clone(), 1));
    at(110).await;
    let (anew, events) = connect(&client, &auth).await;
    assert!(anew != pid && events == 0);
}

/// socketio/socket.io#5282: in Node a client to which nothing was sent for longer than the window is not recovered, as the
/// event its offset names is there no more.
#[tokio::test(start_paused = true)]
async fn idle_for_longer_than_the_window() {
    let io = SocketIo::builder().connection_state_recovery(recovery()).build();
    let client = InPlace::new(&io);
    let start = Instant::now();
    let at = move |seconds| start + Duration::from_secs(seconds);
    let sid = client.open(&json!({})).await;
    let server = io.clone();
    tokio::spawn(async move {
        sleep_until(at(1)).await;
        server.emit("its last", ());
        // Others are sent more, so that what has expired is dropped.
        for seconds in (10..1000).step_by(10) {
            sleep_until(at(seconds)).await;
            server.to("others").emit("no", ());
        }
    });
    let packets = client.stay(&sid, at(1000)).await;
    let [answer, event] = &packets[..] else { panic!("{packets:?}") };
    let answer: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
    let event: Vec<Value> = serde_json::from_str(event.strip_prefix("42").unwrap()).unwrap();
    assert_eq!((io.socket_count(), &event[0]), (1, &json!("its last")));
    // Its connection is lost; what is sent then it has not missed.
    sleep_until(at(1010)).await;
    assert_eq!(io.socket_count(), 0);
    io.emit("missed", ());
    sleep_until(at(1050)).await;
    let sid = client.open(&json!({"pid": &answer["pid"], "offset": event.last()})).await;
    io.emit("next", ());
    let packets = client.stay(&sid, at(1051)).await;
    let [missed, again, next] = &packets[..] else { panic!("{packets:?}") };
    assert!(missed.starts_with("42[\"missed\",") && next.starts_with("42[\"next\","), "{packets:?}");
    assert_eq!(serde_json::from_str::<Value>(again.strip_prefix("40").unwrap()).unwrap(), answer);
}

/// A client in two namespaces, as socket.io-client is one: what comes before CONNECT is answered is kept until it is, and only
/// then its offsets are known.
struct InTwo {
    names: [&'static str; 2],
    pids: [String; 2],
    offsets: [Option<String>; 2],
    waiting: [Vec<Value>; 2],
    heard: [Vec<Value>; 2],
}

impl InTwo {
    /// Asks for both at once, and polls until both have answered or the connection is closed. Whether they have.
    async fn come_back(&mut self, client: &InPlace) -> bool {
        let sid = client.handshake().await;
        let connect = |at: usize| {
            let auth = json!({"pid": self.pids[at], "offset": self.offsets[at]});
            format!("40{},{auth}", self.names[at])
        };
        client.send(&sid, &[connect(0), connect(1)].join("\x1e")).await;
        let mut answered = [false; 2];
        while answered != [true; 2] {
            let (status, body) = client.try_request(Method::GET, &sid, "").await;
            if status != 200 {
                return false;
            }
            for packet in body.split('\x1e') {
                for (at, name) in self.names.iter().enumerate() {
                    if let Some(event) = packet.strip_prefix(&format!("42{name},")) {
                        self.waiting[at].push(serde_json::from_str(event).unwrap());
                    } else if packet.starts_with(&format!("40{name},")) {
                        answered[at] = true;
                        self.heard[at].append(&mut self.waiting[at]);
                        let last = self.heard[at].last().and_then(|event| event.as_array()?.last()?.as_str());
                        self.offsets[at] = last.map(str::to_owned);
                    }
                }
            }
        }
        true
    }
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_behind_the_replay_of_another_namespace_is_not_begun() {
    const MISSED: usize = 50;
    let names = ["/a", "/b"];
    let recovery = Recovery::new();
    let io =
        SocketIo::builder().max_queued(10_000_000, 2 * MISSED).connection_state_recovery(recovery).build();
    let namespaces = names.map(|name| io.of(name));
    let client = InPlace::new(&io);
    let sid = client.handshake().await;
    client.send(&sid, "40/a,\x1e40/b,").await;
    let answers = client.request(Method::GET, &sid, "").await;
    let pids = names.map(|name| {
        let answer = answers.split('\x1e').find_map(|packet| packet.strip_prefix(&format!("40{name},")));
        serde_json::from_str::<Value>(answer.unwrap()).unwrap()["pid"].as_str().unwrap().to_owned()
    });
    client.leave(&sid).await;
    while namespaces.iter().any(|namespace| namespace.socket_count() > 0) {
        tokio::task::yield_now().await;
    }
    for namespace in &namespaces {
        for n in 0..MISSED {
            namespace.emit("e", n);
        }
    }
    let mut both = InTwo {
        names,
        pids,
        offsets: Default::default(),
        waiting: Default::default(),
        heard: Default::default(),
    };
    let mut rounds = 1;
    while !both.come_back(&client).await {
        rounds += 1;
        assert!(rounds < 5, "it never gets what it missed");
    }
    // With the answers it is more than a queue takes. What did not fit was not begun, and is sent the next time.
    assert_eq!(rounds, 2);
    for heard in &both.heard {
        let numbers: Vec<_> = heard.iter().map(|event| event[1].as_u64().unwrap() as usize).collect();
        assert_eq!(numbers, (0..MISSED).collect::<Vec<_>>());
    }
}

/// All of a queue may be replayed but for what else is sent at the time; it is not tried again and again.
#[tokio::test(start_paused = true)]
async fn half_of_a_queue_is_replayed_and_no_more() {
    for (missed, recovered) in [(50, true), (51, false), (100, false)] {
        let io = SocketIo::builder()
            .max_queued(10_000_000, 100)
            .connection_state_recovery(Recovery::new())
            .build();
        let client = InPlace::new(&io);
        let (pid, _) = connect(&client, &json!({})).await;
        while io.socket_count() > 0 {
            tokio::task::yield_now().await;
        }
        for n in 0..missed {
            io.emit("e", n);
        }
        let (again, events) = connect(&client, &json!({"pid": &pid})).await;
        assert_eq!((again == pid, events), (recovered, if recovered { missed } else { 0 }));
    }
}

/// `emit_async` waits until all have room; while it waits for one of them, another one's queue may fill up.
#[tokio::test(start_paused = true)]
async fn a_broadcast_that_waits_disconnects_nobody() {
    const QUEUE: usize = 100;
    let io =
        SocketIo::builder().max_queued(1_000_000, QUEUE).connection_state_recovery(Recovery::new()).build();
    let lost = Arc::new(AtomicUsize::new(0));
    let count = lost.clone();
    io.on_disconnect(move |reason: DisconnectReason| {
        count.fetch_add(usize::from(reason == DisconnectReason::QueueFull), Ordering::SeqCst);
        async {}
    });
    let client = InPlace::new(&io);
    let mut both = Vec::new();
    for _ in 0..2 {
        let sid = client.open(&json!({})).await;
        let answer = client.request(Method::GET, &sid, "").await;
        let ids: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
        both.push((sid, io.get(ids["sid"].as_str().unwrap()).unwrap()));
    }
    for n in 0..QUEUE {
        both[1].1.emit("fill", n).unwrap();
    }
    let soon = || tokio::time::sleep(Duration::from_millis(10));
    let everybody = [io.except("nobody"), io.local()]
        .map(|everybody| tokio::spawn(async move { everybody.emit_async("all", 1).await }));
    soon().await;
    // They wait for the second one. Meanwhile the first one's fills up, by somebody as polite.
    let first = both[0].1.clone();
    let polite = tokio::spawn(async move {
        for n in 0..2 * QUEUE {
            first.emit_async("fill", n).await.unwrap();
        }
    });
    soon().await;
    let polls = both.iter().zip([2 * QUEUE + 2, QUEUE + 2]).map(|((sid, _), all)| {
        let client = &client;
        async move {
            let mut got = 0;
            while got < all {
                let body = client.request(Method::GET, sid, "").await;
                got += body.split('\x1e').filter(|packet| packet.starts_with("42")).count();
                soon().await;
            }
            assert_eq!(got, all);
        }
    });
    let polled = tokio::time::timeout(Duration::from_secs(10), futures_util::future::join_all(polls));
    polled.await.expect("something never comes");
    polite.await.unwrap();
    for all in everybody {
        let sent = all.await.unwrap();
        assert_eq!((sent.sockets, sent.failed), (2, 0));
    }
    assert_eq!(lost.load(Ordering::SeqCst), 0);
}

/// A client whose queue was full has been disconnected by that, and its task had no turn yet: nobody waits for it, least of all
/// the thread that has to do it.
#[tokio::test(start_paused = true)]
async fn a_broadcast_does_not_wait_for_whom_it_cannot_reach() {
    let io = SocketIo::builder().max_queued(1_000_000, 10).connection_state_recovery(Recovery::new()).build();
    let ended = Arc::new(AtomicUsize::new(0));
    let (server, count) = (io.clone(), ended.clone());
    io.on("fill", move |socket: Socket| {
        let (server, count) = (server.clone(), count.clone());
        async move {
            while socket.emit("row", ()).is_ok() {}
            server.local().emit_async("done", ()).await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let client = InPlace::new(&io);
    let watched = ended.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(20));
        if watched.load(Ordering::SeqCst) < 2 {
            // A thread that never waits cannot be stopped otherwise.
            eprintln!("it still waits");
            std::process::abort();
        }
    });
    let sid = client.open(&json!({})).await;
    client.request(Method::GET, &sid, "").await;
    client.send(&sid, "42[\"fill\"]").await;
    while ended.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // From a task that is none of its own.
    let sid = client.open(&json!({})).await;
    let answer = client.request(Method::GET, &sid, "").await;
    let ids: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
    let socket = io.get(ids["sid"].as_str().unwrap()).unwrap();
    while socket.emit("row", ()).is_ok() {}
    io.except("nobody").emit_async("done", ()).await;
    ended.fetch_add(1, Ordering::SeqCst);
}

/// What it was sent last was lost with its connection, and much that was for others before that has expired.
#[tokio::test(start_paused = true)]
async fn the_first_event_in_a_long_time_is_lost() {
    let io = SocketIo::builder().connection_state_recovery(recovery()).build();
    let client = InPlace::new(&io);
    let start = Instant::now();
    let at = move |seconds| start + Duration::from_secs(seconds);
    let sid = client.open(&json!({})).await;
    let server = io.clone();
    let others = tokio::spawn(async move {
        for seconds in (1..1200).step_by(10) {
            sleep_until(at(seconds)).await;
            server.to("others").emit("no", ());
        }
    });
    let packets = client.stay(&sid, at(1000)).await;
    let answer: Value = serde_json::from_str(packets[0].strip_prefix("40").unwrap()).unwrap();
    let pid = answer["pid"].as_str().unwrap().to_owned();
    assert_eq!((io.socket_count(), packets.len()), (1, 1));
    // Its connection is lost, and the server does not know yet.
    io.emit("lost", ());
    let auth = json!({"pid": &pid});
    for seconds in [1050, 1059] {
        sleep_until(at(seconds)).await;
        assert_eq!(connect(&client, &auth).await, (pid.clone(), 1), "{seconds}");
    }
    others.abort();
}

/// It says that it has had nothing: what rooms were told while it was in there is for it, the first time and the second, and
/// nothing else that they were told.
#[tokio::test(start_paused = true)]
async fn what_rooms_heard_while_it_was_in_there() {
    let io = SocketIo::builder().connection_state_recovery(recovery()).build();
    let client = InPlace::new(&io);
    let sid = client.open(&json!({})).await;
    let answer = client.request(Method::GET, &sid, "").await;
    let answer: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
    let rooms = ["board", "again", "left"];
    io.to(rooms).emit("before", ());
    let id = answer["sid"].as_str().unwrap();
    let socket = io.get(id).unwrap();
    // Where it hears nothing, somebody else does.
    socket.join("quiet");
    io.except("quiet").emit("not for it", ());
    socket.leave("quiet");
    socket.join(rooms);
    io.to("again").emit("again: first", ());
    socket.leave("again");
    io.to("again").emit("meanwhile", ());
    io.except("again").emit("not again", ());
    socket.join(rooms);
    io.to(rooms).emit("everywhere", ());
    io.except("again").emit("not for it", ());
    io.to("left").emit("left", ());
    socket.leave("left");
    io.to("left").emit("since", ());
    client.leave(&sid).await;
    let mut expected = vec!["again: first", "not again", "everywhere", "left"];
    for _ in 0..2 {
        let sid = client.open(&json!({"pid": &answer["pid"]})).await;
        let packets = client.request(Method::GET, &sid, "").await;
        let packets: Vec<_> = packets.split('\x1e').collect();
        let (last, missed) = packets.split_last().unwrap();
        let event =
            |packet: &&str| -> Value { serde_json::from_str(packet.strip_prefix("42").unwrap()).unwrap() };
        let missed: Vec<_> = missed.iter().map(event).map(|event| event[0].clone()).collect();
        assert_eq!(missed, expected);
        assert_eq!(serde_json::from_str::<Value>(last.strip_prefix("40").unwrap()).unwrap(), answer);
        let back = io.get(id).unwrap();
        assert_eq!(back.rooms(), [id, "board", "again"].map(str::to_owned));
        // It is in there already.
        back.join("board");
        // By a handle from before it came back.
        io.to("late").emit("before", ());
        socket.join("late");
        io.to("late").emit("late", ());
        expected.push("late");
        socket.leave("late");
        client.leave(&sid).await;
    }
}

/// Of the rooms it has left, no more are remembered than it may be in: who had not had everything of the first ones starts
/// anew, and nobody else.
#[tokio::test(start_paused = true)]
async fn it_has_left_too_many_rooms() {
    let io = SocketIo::builder().connection_state_recovery(recovery()).max_rooms(2).build();
    let client = InPlace::new(&io);
    for (had, recovered) in [(0, false), (1, true)] {
        let sid = client.open(&json!({})).await;
        let answer = client.request(Method::GET, &sid, "").await;
        let answer: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
        let socket = io.get(answer["sid"].as_str().unwrap()).unwrap();
        let mut offsets = vec![Value::Null];
        for room in ["a", "b", "c"] {
            socket.join(room);
            io.to(room).emit("told", room);
            socket.leave(room);
        }
        let packets = client.request(Method::GET, &sid, "").await;
        for packet in packets.split('\x1e') {
            let event: Value = serde_json::from_str(packet.strip_prefix("42").unwrap()).unwrap();
            offsets.push(event[2].clone());
        }
        client.leave(&sid).await;
        let sid = client.open(&json!({"pid": &answer["pid"], "offset": &offsets[had]})).await;
        let packets = client.request(Method::GET, &sid, "").await;
        let told = packets.split('\x1e').filter(|packet| packet.starts_with("42[\"told\"")).count();
        assert_eq!(told, if recovered { 2 } else { 0 }, "{packets}");
        assert_eq!(packets.contains(answer["pid"].as_str().unwrap()), recovered, "{packets}");
        client.leave(&sid).await;
    }
}
