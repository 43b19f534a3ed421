//! A connection that goes on in another process: frozen here, resumed there, and its client notices nothing.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sundew_engineio::Exported;
use sundew_io::Raw;
use sundew_socketio::extract::Data;
use sundew_socketio::{Ack, Builder, Params, Socket, SocketIo};
use support::{Client, PATIENCE, client, quick, serve, with};

const LIMIT: usize = 16_000;

/// The app, as every process runs it. Counts `on_connect`, `on_disconnect` and `on_arrive`.
fn app(builder: Builder) -> (SocketIo, Arc<[AtomicUsize; 3]>) {
    let io = builder.build();
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    io.movable();
    io.on_connect(with!([counts] (socket: Socket) => {
        counts[0].fetch_add(1, Ordering::Relaxed);
        socket.join("lobby");
        socket.set_data(json!({"name": "ann"})).unwrap();
    }));
    io.on_disconnect(with!([counts] () => { counts[1].fetch_add(1, Ordering::Relaxed); }));
    io.on_arrive(with!([counts] (socket: Socket) => {
        counts[2].fetch_add(1, Ordering::Relaxed);
        socket.emit("arrived", std::process::id()).unwrap();
    }));
    io.on("who", async |socket: Socket, Data(said): Data<String>, ack: Ack| {
        let mut rooms = socket.rooms();
        rooms.retain(|room| *room != socket.id());
        let _ = ack.send((said, std::process::id(), socket.id(), rooms, socket.data()));
    });
    io.on("ask", async |socket: Socket| {
        let answer = socket.emit_with_ack::<u8>("there", ()).await;
        let _ = socket.emit("answered", answer.unwrap());
    });
    io.on("room", async |socket: Socket| {
        socket.namespace().within("lobby").emit("all", "here");
    });
    (io, counts)
}

async fn export(io: &SocketIo, sid: &str) -> Exported {
    let asking = async {
        loop {
            if let Some(exported) = io.engine().export(sid, LIMIT).await {
                return exported;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("never at rest")
}

/// A client's frame.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 1, 2, 3, 4];
    frame.extend(text.bytes().enumerate().map(|(at, byte)| byte ^ [1, 2, 3, 4][at % 4]));
    frame
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_in_another_process_in_the_middle_of_a_frame() {
    // Pings of the old process must not mix in: the new one sends one at once.
    let (io, counts) = app(SocketIo::builder().ping_interval(Duration::from_secs(60)));
    let addr = serve(&io).await;
    let (mut peer, id) = client(move || {
        let mut peer = Client::open(addr);
        let id = peer.join("/");
        (peer, id)
    })
    .await;
    let message = frame(r#"421["who","half and half"]"#);
    // It is asked something, does not answer in time, and will once it is elsewhere: that is no answer to another question.
    let asked = io.timeout(Duration::from_millis(1)).emit_with_ack::<u8>("here", ()).await;
    assert!(asked.is_err());
    peer.stream().write_all(&message[..9]).unwrap();

    let exported = export(&io, &peer.sid).await;
    // It cannot be taken twice, and what is emitted to it meanwhile is not lost.
    assert!(io.engine().export(&peer.sid, LIMIT).await.is_none());
    io.within("lobby").emit("late", 1);
    let state = hex(exported.state());
    let (socket, queued) = exported.into_socket().await.unwrap();
    let Raw::Tcp(socket) = socket else { panic!("{socket:?}") };
    let socket = socket.into_std().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["the_other_process", "--exact", "--nocapture"])
        .env("SUNDEW_TEST_STATE", state)
        .env("SUNDEW_TEST_QUEUED", hex(&queued))
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = other.id();
    // Nothing of it is left here, and nobody was told of an end.
    assert_eq!(io.stats().sessions, 0);
    assert!(io.get(&id).is_none() && io.rooms().is_empty());

    client(move || {
        peer.keep_pings = true;
        peer.expect(r#"420["here"]"#);
        peer.expect(r#"42["late",1]"#);
        peer.expect("2");
        peer.expect(&format!(r#"42["arrived",{pid}]"#));
        peer.stream().write_all(&message[9..]).unwrap();
        peer.send("3");
        peer.expect(&format!(r#"431["half and half",{pid},"{id}",["lobby"],{{"name":"ann"}}]"#));
        peer.send(r#"42["room"]"#);
        peer.expect(r#"42["all","here"]"#);
        peer.send(r#"42["ask"]"#);
        peer.expect(r#"421["there"]"#);
        peer.send("430[0]");
        peer.send("431[1]");
        peer.expect(r#"42["answered",1]"#);
        peer.send("41");
        peer.vanish();
    })
    .await;
    let ended = tokio::task::spawn_blocking(move || other.wait().unwrap()).await.unwrap();
    assert!(ended.success());
    let counts: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(counts, [1, 0, 0]);
}

/// Run by the test above.
#[tokio::test]
async fn the_other_process() {
    let Ok(state) = std::env::var("SUNDEW_TEST_STATE") else { return };
    let queued = unhex(&std::env::var("SUNDEW_TEST_QUEUED").unwrap());
    let socket = std::net::TcpStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    (&socket).write_all(&queued).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (io, counts) = app(SocketIo::builder());
    let arriving = io.engine().import(&unhex(&state)).unwrap();
    arriving.attach(Raw::Tcp(tokio::net::TcpStream::from_std(socket).unwrap()), &[]);
    let ending = async {
        while io.stats().sessions > 0 {
            let changed = io.changed();
            if io.stats().sessions > 0 {
                changed.await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ending).await.unwrap();
    let counts: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(counts, [0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_stays_after_all_goes_on_as_if_nothing_had_happened() {
    let (io, counts) = app(quick());
    let addr = serve(&io).await;
    let mut peer = client(move || Client::connect(addr, "/")).await;
    for round in 0..3 {
        let exported = export(&io, &peer.sid).await;
        io.emit("late", round);
        peer = client(move || {
            peer.send(&format!(r#"42{round}["who","{round}"]"#));
            peer
        })
        .await;
        // Longer than a ping may stay unanswered: no reason to give up a client whose pong cannot be read.
        tokio::time::sleep(Duration::from_millis(600)).await;
        match round {
            0 => drop(exported),
            // Who asked has gone before the answer.
            1 => {
                drop(exported);
                let asking = io.engine().export(&peer.sid, LIMIT);
                let _ = tokio::time::timeout(Duration::from_micros(1), asking).await;
            }
            // Elsewhere it was imported, and dropped again.
            _ => {
                let (other, other_counts) = app(quick());
                let arriving = other.engine().import(exported.state()).unwrap();
                assert_eq!(other.stats().sessions, 1);
                assert_eq!(other.rooms(), ["lobby"]);
                assert!(other.engine().import(exported.state()).is_err(), "its id is there already");
                drop((arriving, exported));
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert_eq!(other.stats().sessions, 0);
                assert!(other.rooms().is_empty());
                assert!(other_counts.iter().all(|count| count.load(Ordering::Relaxed) == 0));
            }
        }
        peer = client(move || {
            peer.expect(&format!(r#"42["late",{round}]"#));
            assert!(peer.text().starts_with(&format!(r#"43{round}["{round}","#)));
            peer
        })
        .await;
    }
    assert_eq!(counts[1].load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_at_rest_stays() {
    let io = quick().build();
    let held: Arc<parking_lot::Mutex<Vec<Socket>>> = Arc::default();
    io.movable();
    io.of("/fixed").on_connect(async || {});
    io.on("hold", with!([held] (socket: Socket) => held.lock().push(socket)));
    io.on("own", async |socket: Socket| socket.on("mine", async || {}));
    io.on("value", async |socket: Socket| drop(socket.insert(7u8)));
    io.on("ask", async |socket: Socket| {
        drop(tokio::spawn(socket.emit_with_ack::<Value>("question", ()).into_future()))
    });
    io.on("sleep", async || std::future::pending::<()>().await);
    io.on("data", async |socket: Socket| socket.set_data("x".repeat(LIMIT)).unwrap());
    let addr = serve(&io).await;
    let stays = async |what: &str| {
        let what = what.to_owned();
        let peer = client(move || {
            let mut peer = Client::connect(addr, "/");
            match &*what {
                "" => {}
                "/fixed" => drop(peer.join(&what)),
                "partial" => peer.send(r#"451-["x",{"_placeholder":true,"num":0}]"#),
                _ => peer.send(&format!(r#"420["{what}"]"#)),
            }
            peer
        })
        .await;
        // A moment for the server to read it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let exported = io.engine().export(&peer.sid, LIMIT).await;
        (exported.is_none(), peer)
    };
    assert!(!stays("").await.0, "one at rest moves");
    for what in ["/fixed", "partial", "hold", "own", "value", "ask", "sleep", "data"] {
        assert!(stays(what).await.0, "{what}");
    }
    // What a layer knew of its request is known here alone.
    let known = SocketIo::builder().keep_extension::<u8>().build();
    known.movable();
    let app = axum::Router::new().layer(known.layer()).layer(axum::Extension(7u8));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let peer = client(move || Client::connect(at, "/")).await;
    assert!(known.engine().export(&peer.sid, LIMIT).await.is_none());
    // Once let go of, it may.
    let (stayed, peer) = stays("hold").await;
    assert!(stayed);
    held.lock().clear();
    assert!(io.engine().export(&peer.sid, LIMIT).await.is_some());
    // A session on polling, and none at all.
    let (_, _, body) =
        client(move || support::http(addr, "GET", "/socket.io/?EIO=4&transport=polling", "", "")).await;
    let open: Value = serde_json::from_str(&body[1..]).unwrap();
    let asking = io.engine().export(open["sid"].as_str().unwrap(), LIMIT);
    assert!(tokio::time::timeout(PATIENCE, asking).await.unwrap().is_none());
    assert!(io.engine().export("nobody", LIMIT).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_its_namespace_is_not_movable_it_is_not_taken() {
    let (io, _) = app(quick());
    let addr = serve(&io).await;
    let peer = client(move || Client::connect(addr, "/")).await;
    let exported = export(&io, &peer.sid).await;
    let other = quick().build();
    let refused = other.engine().import(exported.state()).unwrap_err();
    assert_eq!(refused.to_string(), "the namespace / is not movable here");
    assert_eq!(other.stats().sessions, 0);
    assert!(other.engine().import(b"nonsense").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_made_on_demand_is_made_again_where_its_socket_goes() {
    let server = || {
        let io = SocketIo::builder().ping_interval(Duration::from_secs(60)).build();
        let orgs = io.of_pattern("/org-{id}").unwrap();
        orgs.movable();
        orgs.on_arrive(async |socket: Socket| socket.emit("arrived", ()).unwrap());
        orgs.on("which", async |Params(id): Params<u32>, ack: Ack| ack.send(id).unwrap());
        io
    };
    let (here, there) = (server(), server());
    let addr = serve(&here).await;
    let mut peer = client(move || Client::connect(addr, "/org-7")).await;
    let exported = export(&here, &peer.sid).await;
    // Where it may not exist, none is left behind.
    let (without, fixed) = (SocketIo::new(), SocketIo::new());
    fixed.of_pattern("/org-{id}").unwrap();
    for other in [without, fixed] {
        assert!(other.engine().import(exported.state()).is_err());
        assert_eq!(other.namespaces(), ["/"]);
    }
    let arriving = there.engine().import(exported.state()).unwrap();
    let (socket, queued) = exported.into_socket().await.unwrap();
    assert!(queued.is_empty());
    assert!(here.find("/org-7").is_none());
    arriving.attach(socket, &[]);
    assert_eq!(there.find("/org-7").unwrap().socket_count(), 1);
    peer = client(move || {
        peer.expect("42/org-7,[\"arrived\"]");
        peer.send("42/org-7,0[\"which\"]");
        peer.expect("43/org-7,0[7]");
        peer.send("41/org-7,");
        peer.join("/");
        peer
    })
    .await;
    assert!(there.find("/org-7").is_none());
    drop(peer);
}
