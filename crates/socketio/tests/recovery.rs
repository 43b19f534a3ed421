//! Connection state recovery on the wire.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sundew_socketio::recovery::{Memory, Recovery};
use sundew_socketio::{Builder, DisconnectReason, Socket, SocketIo};
use support::{Client, client, quick, serve};
use tokio::sync::mpsc;

fn recovering() -> Builder {
    quick().connection_state_recovery(Recovery::new())
}

/// Where clients stay that are not listened to all the time.
fn patient() -> Builder {
    SocketIo::builder().connection_state_recovery(Recovery::new())
}

/// Who is who, as the answer to CONNECT says.
#[derive(Debug, Clone, PartialEq)]
struct Ids {
    sid: String,
    pid: String,
}

/// The answer to CONNECT, and what came before it.
fn connected(c: &mut Client) -> (Ids, Vec<String>) {
    try_connected(c).expect("CONNECT is answered")
}

/// The same, unless the connection is closed first.
fn try_connected(c: &mut Client) -> Option<(Ids, Vec<String>)> {
    let mut before = Vec::new();
    loop {
        let text = c.next()?.to_text().unwrap().to_owned();
        match text.strip_prefix("40") {
            Some(json) => {
                let json: Value = serde_json::from_str(json).unwrap();
                let field = |name: &str| json[name].as_str().unwrap().to_owned();
                assert_eq!(json.as_object().unwrap().len(), 2);
                return Some((Ids { sid: field("sid"), pid: field("pid") }, before));
            }
            None => before.push(text),
        }
    }
}

fn join(addr: SocketAddr) -> (Client, Ids) {
    let mut c = Client::open(addr);
    c.send("40");
    let (ids, before) = connected(&mut c);
    assert!(before.is_empty() && ids.pid.len() == 20 && ids.pid != ids.sid);
    (c, ids)
}

/// One that was there, and whose connection was lost.
async fn come_and_go(addr: SocketAddr, gone: &mut mpsc::UnboundedReceiver<DisconnectReason>) -> Ids {
    let ids = client(move || {
        let (c, ids) = join(addr);
        c.vanish();
        ids
    })
    .await;
    gone.recv().await.unwrap();
    ids
}

fn back(addr: SocketAddr, pid: &str, offset: Option<&str>) -> (Client, Ids, Vec<String>) {
    let mut c = Client::open(addr);
    c.send(&format!("40{}", json!({"pid": pid, "offset": offset, "token": 1})));
    let (ids, before) = connected(&mut c);
    (c, ids, before)
}

/// The last argument of an event: what the official client remembers.
fn offset(event: &str) -> Option<String> {
    let array: Vec<Value> = serde_json::from_str(event.strip_prefix("42").unwrap()).unwrap();
    array.last().unwrap().as_str().map(str::to_owned)
}

/// An app whose sockets report that they left.
fn app(builder: Builder) -> (SocketIo, mpsc::UnboundedReceiver<DisconnectReason>) {
    let io = builder.build();
    let (left, gone) = mpsc::unbounded_channel();
    io.on_disconnect(move |reason: DisconnectReason| {
        let _ = left.send(reason);
        async {}
    });
    io.on("join", async |socket: Socket| {
        socket.join("r");
        socket.set_data(json!({"name": "x"})).unwrap();
        socket.emit("joined", 1).unwrap();
    });
    (io, gone)
}

/// Whether each socket of the main namespace that connects was recovered.
fn recoveries(io: &SocketIo) -> Arc<Mutex<Vec<bool>>> {
    let news = Arc::<Mutex<Vec<bool>>>::default();
    let told = news.clone();
    io.on_connect(move |socket: Socket| {
        told.lock().push(socket.recovered());
        async {}
    });
    news
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_events_then_the_answer_with_everything_as_it_was() {
    let (io, mut gone) = app(recovering());
    let addr = serve(&io).await;
    let (ids, last) = client(move || {
        let (mut c, ids) = join(addr);
        c.send("42[\"join\"]");
        let last = offset(&c.text()).unwrap();
        c.vanish();
        (ids, last)
    })
    .await;
    assert!(gone.recv().await.unwrap().is_recoverable());
    io.emit("all", ("x", json!({"a": 1})));
    io.to("r").emit("room", ());
    io.to("other").emit("no", ());
    io.except("r").emit("no", ());
    io.to(ids.sid.as_str()).emit("own", bytes::Bytes::from_static(b"b"));
    io.volatile().emit("no", ());
    let (recovered, mut news) = mpsc::unbounded_channel();
    io.on_connect(move |socket: Socket| {
        let _ = recovered.send((socket.recovered(), socket.rooms(), socket.data()));
        let _ = socket.emit("welcome", ());
        async {}
    });
    client(move || {
        let mut c = Client::open(addr);
        c.send(&format!("40{}", json!({"pid": ids.pid, "offset": last})));
        let event = c.text();
        assert!(event.starts_with("42[\"all\",\"x\",{\"a\":1},\""), "{event}");
        assert!(c.text().starts_with("42[\"room\",\""));
        assert!(c.text().starts_with("451-[\"own\",{\"_placeholder\":true,\"num\":0},\""));
        assert_eq!(c.binary(), &b"b"[..]);
        let (again, before) = connected(&mut c);
        assert_eq!((again, before.len()), (ids.clone(), 0));
        assert!(c.text().starts_with("42[\"welcome\",\""));
    })
    .await;
    let (recovered, mut rooms, data) = news.recv().await.unwrap();
    rooms.sort();
    assert!(recovered && rooms.contains(&"r".to_owned()) && rooms.len() == 2);
    assert_eq!(data, json!({"name": "x"}));
}

/// In Node there are two sockets of one id then. Here the session is where it was taken up last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_up_twice_it_is_one_session() {
    let (io, mut gone) = app(patient());
    let addr = serve(&io).await;
    let ids = come_and_go(addr, &mut gone).await;
    io.emit("missed", 1);
    let (server, old) = (io.clone(), ids.clone());
    client(move || {
        let pid = &ids.pid;
        let (mut first, again, before) = back(addr, pid, None);
        assert_eq!((&again, before.len()), (&ids, 1));
        // What has arrived is not sent again.
        let (mut second, again, none) = back(addr, pid, offset(&before[0]).as_deref());
        assert_eq!((&again, none.len()), (&ids, 0));
        first.expect_closed();
        assert_eq!(server.socket_count(), 1);
        server.emit("next", 2);
        assert!(second.text().starts_with("42[\"next\",2,"));
        // Once it has left by itself, it is over for both.
        second.send("41");
    })
    .await;
    assert_eq!(gone.recv().await, Some(DisconnectReason::TransportClose));
    assert_eq!(gone.recv().await, Some(DisconnectReason::ClientNamespaceDisconnect));
    client(move || {
        let (_, new, before) = back(addr, &old.pid, None);
        assert!(new.pid != old.pid && new.sid != old.sid && before.is_empty());
    })
    .await;
}

/// Whoever comes in the moment in which another takes the session up may get a new one; but none gets half of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_up_by_many_at_the_same_time_it_is_one_session() {
    let (io, mut gone) = app(patient());
    let addr = serve(&io).await;
    let ids = come_and_go(addr, &mut gone).await;
    io.emit("missed", 1);
    let start = Arc::new(Barrier::new(8));
    let all = (0..8).map(|_| {
        let (start, ids) = (start.clone(), ids.clone());
        client(move || {
            let mut c = Client::open(addr);
            start.wait();
            c.send(&format!("40{}", json!({"pid": ids.pid})));
            // Another may have taken it up again before this one is answered.
            let (found, before) = try_connected(&mut c)?;
            // None of them has said that it has the event.
            assert_eq!(before.len(), usize::from(found == ids), "{before:?}");
            assert_eq!(found.sid == ids.sid, found.pid == ids.pid);
            Some((c, found == ids))
        })
    });
    let all: Vec<_> = join_all(all).await.into_iter().flatten().collect();
    let anew = all.iter().filter(|(_, recovered)| !recovered).count();
    assert!(io.get(&ids.sid).is_some());
    assert_eq!(io.socket_count(), 1 + anew);
    io.emit("next", 2);
    let there = |(mut c, recovered): (Client, bool)| recovered && c.next().is_some();
    let there = client(move || all.into_iter().map(there).filter(|there| *there).count()).await;
    assert_eq!(there, 1, "so many have the session");
}

/// What a client may have for a private id and is none.
fn no_pids(ids: &Ids) -> Vec<Value> {
    vec![
        json!("A".repeat(20)),
        json!(ids.pid[..19]),
        json!(format!("{}A", ids.pid)),
        json!(ids.sid),
        json!(""),
        json!("\u{0}".repeat(20)),
        json!("x".repeat(10_000)),
        json!(5),
        json!(1e300),
        json!(true),
        json!(null),
        json!([ids.pid]),
        json!({"pid": ids.pid}),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_private_id_gets_a_new_session() {
    let (io, mut gone) = app(patient());
    let news = recoveries(&io);
    io.of("/other");
    let addr = serve(&io).await;
    let (ids, last) = {
        let io = io.clone();
        client(move || {
            let (mut c, ids) = join(addr);
            io.emit("kept", 1);
            let last = offset(&c.text()).unwrap();
            c.vanish();
            (ids, last)
        })
        .await
    };
    gone.recv().await.unwrap();
    io.emit("missed", 1);
    let old = ids.clone();
    let tried = client(move || {
        let no_pids = no_pids(&ids);
        let mut seen = vec![ids.clone()];
        for pid in &no_pids {
            for offset in [json!(last), json!(null), json!(7)] {
                let mut c = Client::open(addr);
                c.send(&format!("40{}", json!({"pid": pid, "offset": offset})));
                let (new, before) = connected(&mut c);
                assert!(before.is_empty(), "{pid}: {before:?}");
                assert!(seen.iter().all(|old| old.sid != new.sid && old.pid != new.pid), "{pid}");
                seen.push(new);
            }
        }
        // The session is of the main namespace.
        let mut c = Client::open(addr);
        c.send(&format!("40/other,{}", json!({"pid": ids.pid, "offset": last})));
        assert!(c.text().starts_with("40/other,{\"sid\":"));
        seen.len() - 1
    })
    .await;
    assert_eq!(*news.lock(), vec![false; 1 + tried]);
    // None of that has cost the session anything.
    let (_, again, before) = client(move || back(addr, &old.pid, None)).await;
    assert_eq!(before.len(), 2, "{before:?}");
    assert_eq!(news.lock().last(), Some(&true), "{again:?}");
}

/// Clients of Socket.IO 2 know of no private ids: whatever their query says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_clients_get_new_sessions() {
    let (io, mut gone) = app(patient().allow_eio3(true));
    let news = recoveries(&io);
    let addr = serve(&io).await;
    let ids = come_and_go(addr, &mut gone).await;
    io.emit("missed", 1);
    let (server, old) = (io.clone(), ids.clone());
    client(move || {
        let Ids { sid, pid } = ids;
        let mut sids = vec![sid];
        for _ in 0..2 {
            let mut c = Client::open_at(addr, &format!("EIO=3&transport=websocket&pid={pid}&offset=x"));
            c.expect("40");
            assert!(!sids.contains(&c.sid));
            sids.push(c.sid.clone());
            server.emit("next", 1);
            assert!(c.text().starts_with("42[\"next\",1"));
            c.vanish();
        }
    })
    .await;
    assert_eq!(*news.lock(), [false; 3]);
    // The session is still there for its own client: it has missed what they got as well.
    let (_, _, before) = client(move || back(addr, &old.pid, None)).await;
    assert_eq!(before.len(), 3, "{before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_ask_for_an_acknowledgement_are_as_ever() {
    let (io, _gone) = app(recovering());
    io.on("go", async |socket: Socket| {
        let _: Value = socket.emit_with_ack("ask", "why").await.unwrap();
        socket.volatile().emit("v", 1).unwrap();
        socket.emit("e", 1).unwrap();
    });
    let addr = serve(&io).await;
    client(move || {
        let (mut c, _) = join(addr);
        c.send("42[\"go\"]");
        c.expect("420[\"ask\",\"why\"]");
        c.send("430[1]");
        c.expect("42[\"v\",1]");
        assert!(offset(&c.text()).is_some());
    })
    .await;
}

/// socketio/socket.io#5538: in Node a client that has got no event yet cannot be recovered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_event() {
    let (io, mut gone) = app(recovering());
    let addr = serve(&io).await;
    io.emit("long ago", ());
    let ids = come_and_go(addr, &mut gone).await;
    io.emit("first", 1);
    client(move || {
        // No offset at all, or one of an earlier server: the client never forgets one.
        let (c, again, before) = back(addr, &ids.pid, None);
        assert_eq!((again, before.len()), (ids.clone(), 1));
        c.vanish();
        let (_, again, before) = back(addr, &ids.pid, Some("abcd-7"));
        assert_eq!((again, before.len()), (ids, 1));
        assert!(before[0].starts_with("42[\"first\",1,\""));
    })
    .await;
}

/// As in Node's server: both are texts, or it is a new session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_is_no_text_starts_anew() {
    let (io, mut gone) = app(recovering());
    let addr = serve(&io).await;
    for offset in [json!(123), json!({}), json!(true), json!(["abcd-7"])] {
        let ids = come_and_go(addr, &mut gone).await;
        client(move || {
            let mut c = Client::open(addr);
            c.send(&format!("40{}", json!({"pid": ids.pid, "offset": offset, "token": 1})));
            let (new, _) = connected(&mut c);
            assert!(new.sid != ids.sid && new.pid != ids.pid, "{offset}");
            c.vanish();
        })
        .await;
        gone.recv().await.unwrap();
    }
}

/// socketio/socket.io#5539: the client takes the last text of any event for an offset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volatile_text_is_no_offset() {
    let (io, mut gone) = app(recovering());
    let addr = serve(&io).await;
    let (ids, last) = {
        let io = io.clone();
        client(move || {
            let (mut c, ids) = join(addr);
            io.emit("kept", 1);
            let kept = offset(&c.text()).unwrap();
            let mut last = None;
            for text in ["tick", "tock"] {
                io.volatile().emit(text, "text");
                io.get(&ids.sid).unwrap().volatile().emit(text, ()).unwrap();
                for _ in 0..2 {
                    last = offset(&c.text());
                    assert_eq!(last.as_ref(), Some(&kept));
                }
            }
            c.vanish();
            (ids, last.unwrap())
        })
        .await
    };
    gone.recv().await.unwrap();
    io.emit("missed", 1);
    client(move || {
        let (_, again, before) = back(addr, &ids.pid, Some(&last));
        assert_eq!((again, before.len()), (ids, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_were_sent_away_start_anew() {
    let (io, mut gone) = app(recovering());
    io.on("kick", async |socket: Socket| socket.disconnect(true));
    let addr = serve(&io).await;
    for way in ["41", "42[\"kick\"]"] {
        let ids = client(move || {
            let (mut c, ids) = join(addr);
            c.send(way);
            if way != "41" {
                c.expect("41");
                c.expect_closed();
            }
            ids
        })
        .await;
        assert!(!gone.recv().await.unwrap().is_recoverable());
        io.emit("missed", ());
        client(move || {
            let (_, new, before) = back(addr, &ids.pid, None);
            assert!(new.sid != ids.sid && new.pid != ids.pid && before.is_empty());
        })
        .await;
        gone.recv().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_window_or_with_a_gap_it_is_a_new_session() {
    let recovery = Recovery::new()
        .max_disconnection_duration(Duration::from_millis(100))
        .store(Memory::new().max_packets(3));
    let (io, mut gone) = app(quick().connection_state_recovery(recovery));
    let addr = serve(&io).await;
    for (events, wait, recovered) in [(3, 0, true), (4, 0, false), (1, 150, false)] {
        let ids = come_and_go(addr, &mut gone).await;
        for number in 0..events {
            io.emit("e", number);
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        client(move || {
            let (c, again, before) = back(addr, &ids.pid, None);
            assert_eq!(again == ids, recovered, "{events} {wait}");
            assert_eq!(before.len(), if recovered { events } else { 0 });
            c.vanish();
        })
        .await;
        gone.recv().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn middleware_is_asked_if_it_is_to_be() {
    for skip in [true, false] {
        let recovery = Recovery::new().skip_middlewares(skip);
        let (io, mut gone) = app(quick().connection_state_recovery(recovery));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        io.with(move |socket: Socket| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                // Long enough for an event to pass by.
                tokio::time::sleep(Duration::from_millis(100)).await;
                drop(socket);
                Ok::<(), sundew_socketio::ConnectError>(())
            }
        });
        let addr = serve(&io).await;
        let ids = come_and_go(addr, &mut gone).await;
        io.emit("one", ());
        let news = client(move || back(addr, &ids.pid, None));
        if !skip {
            tokio::time::sleep(Duration::from_millis(50)).await;
            io.emit("two", ());
        }
        let (_, _, before) = news.await;
        assert_eq!(before.len(), if skip { 1 } else { 2 }, "{before:?}");
        assert_eq!(asked.load(Ordering::Relaxed), if skip { 1 } else { 2 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_dies_in_the_middleware_costs_no_session() {
    let (io, mut gone) = app(quick().connection_state_recovery(Recovery::new().skip_middlewares(false)));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    io.with(move |_: Socket| {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        async move {
            if turn == 1 {
                std::future::pending::<()>().await;
            }
            Ok::<(), sundew_socketio::ConnectError>(())
        }
    });
    let addr = serve(&io).await;
    let ids = come_and_go(addr, &mut gone).await;
    io.emit("one", ());
    let again = ids.clone();
    client(move || {
        let mut c = Client::open(addr);
        c.send(&format!("40{}", json!({"pid": again.pid, "offset": null})));
        while asked.load(Ordering::SeqCst) < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        c.vanish();
    })
    .await;
    tokio::time::timeout(support::PATIENCE, async {
        while io.stats().sessions > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is gone");
    io.emit("two", ());
    let pid = ids.pid.clone();
    let (_, found, before) = client(move || back(addr, &pid, None)).await;
    assert_eq!((found, before.len()), (ids, 2), "{before:?}");
}

/// The client's network changed: it is back before this side has noticed that it was gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_only_seems_alive() {
    let (io, mut gone) = app(patient());
    let addr = serve(&io).await;
    let server = io.clone();
    let _both = client(move || {
        let (dead, ids) = join(addr);
        server.emit("lost", 1);
        let (mut c, again, before) = back(addr, &ids.pid, None);
        assert_eq!((again, before.len()), (ids, 1));
        server.emit("next", 1);
        assert!(c.text().starts_with("42[\"next\",1"));
        assert_eq!(server.socket_count(), 1);
        (dead, c)
    })
    .await;
    assert_eq!(gone.recv().await, Some(DisconnectReason::TransportClose));
}

/// An app keeps handles of sockets: what it emits while a client is away is not lost, nor is what it emits through the old
/// handle when the client is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_outlive_their_connections() {
    let (io, mut gone) = app(recovering());
    let addr = serve(&io).await;
    let server = io.clone();
    let (ids, socket) = client(move || {
        let (c, ids) = join(addr);
        let socket = server.get(&ids.sid).unwrap();
        c.vanish();
        (ids, socket)
    })
    .await;
    gone.recv().await.unwrap();
    socket.emit("away", 1).unwrap();
    client(move || {
        let (mut c, again, before) = back(addr, &ids.pid, None);
        assert_eq!(again, ids);
        assert!(before[0].starts_with("42[\"away\",1,"));
        socket.emit("back", 2).unwrap();
        assert!(c.text().starts_with("42[\"back\",2,"));
    })
    .await;
}

/// What does not fit into the client's queue cannot be sent at once: it starts anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_fits_into_a_queue_is_not_replayed() {
    let (io, mut gone) = app(recovering().max_queued(100_000, 100));
    let addr = serve(&io).await;
    let ids = come_and_go(addr, &mut gone).await;
    for _ in 0..101 {
        io.emit("e", 1);
    }
    client(move || {
        let (_, new, before) = back(addr, &ids.pid, None);
        assert!(new != ids && before.is_empty());
    })
    .await;
}

/// Its own handlers hold a connection up that is dead, so that its end is noticed late: some of what it was sent has expired.
#[tokio::test]
async fn lost_long_before_it_is_noticed_it_is_a_new_session() {
    let quick = Duration::from_millis(100);
    let builder = SocketIo::builder().ping_interval(quick).ping_timeout(quick).max_in_progress(1);
    let recovery = Recovery::new().max_disconnection_duration(3 * quick);
    let (io, mut gone) = app(builder.connection_state_recovery(recovery));
    io.on("slow", async || tokio::time::sleep(Duration::from_millis(1000)).await);
    let addr = serve(&io).await;
    // It reads nothing from here on.
    let (c, was) = client(move || {
        let (mut c, ids) = join(addr);
        c.send("42[\"slow\"]");
        (c, ids)
    })
    .await;
    tokio::time::sleep(quick).await;
    io.emit("expires", 1);
    tokio::time::sleep(8 * quick).await;
    io.emit("is kept", 2);
    gone.recv().await.unwrap();
    drop(c);
    let pid = was.pid.clone();
    let (_c, is, before) = client(move || back(addr, &pid, None)).await;
    assert!(is.pid != was.pid && before.is_empty(), "{before:?}");
}
