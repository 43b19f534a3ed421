//! The defaults that are documented, as an app sees them: of the engine's options their values, of the others what they do.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use sundew_socketio::recovery::Recovery;
use sundew_socketio::{AckError, Args, EmitError, Socket, SocketIo};
use support::in_place::InPlace;
use support::with;
use tokio::time::{Instant, sleep, timeout};

#[test]
fn of_the_engine() {
    let _ = SocketIo::builder().engine(|engine| {
        assert_eq!(engine.path, "/socket.io/");
        assert_eq!(engine.ping_interval, Duration::from_secs(25));
        assert_eq!(engine.ping_timeout, Duration::from_secs(20));
        assert_eq!(engine.upgrade_timeout, Duration::from_secs(10));
        assert_eq!(engine.close_timeout, Duration::from_secs(5));
        assert_eq!(engine.max_payload, 1_000_000);
        assert_eq!((engine.max_queued_bytes, engine.max_queued_packets), (2 << 20, 4096));
        assert_eq!(engine.max_sessions, 1_000_000);
        let transports = engine.transports;
        assert!(transports.polling && transports.websocket && !transports.webtransport);
        assert!(engine.allow_upgrades && !engine.allow_eio3 && !engine.allow_jsonp);
        assert_eq!(engine.http_compression.map(|options| options.threshold), Some(1024));
        assert!(engine.per_message_deflate.is_none() && engine.cors.is_none() && engine.cookie.is_none());
        assert!(engine.initial_headers.is_none() && engine.headers.is_none());
        assert!(engine.on_connection_error.is_none() && engine.allow_request.is_none());
    });
}

#[tokio::test(start_paused = true)]
async fn what_a_client_is_told() {
    let client = InPlace::new(&SocketIo::new());
    let mut open: Value = serde_json::from_str(&client.request(Method::GET, "", "").await[1..]).unwrap();
    assert_eq!(open["sid"].take().as_str().unwrap().len(), 20);
    let told = json!({
        "sid": null, "upgrades": ["websocket"], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 1000000
    });
    assert_eq!(open, told);
}

/// Whole seconds, and what the timers of the runtime and the engine add.
fn seconds(since: Instant) -> u64 {
    let elapsed = since.elapsed();
    assert!(elapsed.subsec_millis() < 500, "{elapsed:?}");
    elapsed.as_secs()
}

/// Polls and answers pings until the session is over.
async fn until_gone(io: &SocketIo, client: &InPlace, sid: &str) {
    while io.stats().sessions > 0 {
        for packet in client.request(Method::GET, sid, "").await.split('\x1e') {
            match packet {
                "2" => client.send(sid, "3").await,
                packet => assert!(["1", "6"].contains(&packet), "{packet}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_has_45_seconds_to_join_a_namespace() {
    let io = SocketIo::new();
    let client = InPlace::new(&io);
    let (start, sid) = (Instant::now(), client.handshake().await);
    until_gone(&io, &client, &sid).await;
    assert_eq!(seconds(start), 45);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_gone_after_45_seconds() {
    let io = SocketIo::new();
    let client = InPlace::new(&io);
    let start = Instant::now();
    client.open(&json!({})).await;
    while io.stats().sessions > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seconds(start), 25 + 20);
}

/// A socket whose client has fetched the answer to CONNECT, and the id of its session.
async fn connected(io: &SocketIo, client: &InPlace) -> (Socket, String) {
    let sid = client.open(&json!({})).await;
    assert!(client.request(Method::GET, &sid, "").await.starts_with("40{"));
    (io.sockets().pop().unwrap(), sid)
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_are_awaited_for_5_seconds_and_no_more_than_10_000() {
    let io = SocketIo::new();
    let client = InPlace::new(&io);
    let (socket, sid) = connected(&io, &client).await;
    let start = Instant::now();
    let mut asked = Vec::new();
    for count in 1..=10_000 {
        asked.push(socket.emit_with_ack::<Value>("ask", ()));
        if count % 1000 == 0 {
            client.request(Method::GET, &sid, "").await;
        }
    }
    let more = socket.emit_with_ack::<Value>("ask", ()).await;
    assert!(matches!(more, Err(AckError::Emit(EmitError::TooManyAcks))), "{more:?}");
    for answer in join_all(asked).await {
        assert!(matches!(answer, Err(AckError::Timeout)), "{answer:?}");
    }
    assert_eq!(seconds(start), 5);
}

#[tokio::test(start_paused = true)]
async fn sessions_are_recovered_for_2_minutes() {
    for (away, same) in [(119, true), (121, false)] {
        let io = SocketIo::builder().connection_state_recovery(Recovery::new()).build();
        let client = InPlace::new(&io);
        let sid = client.open(&json!({})).await;
        let answer = client.request(Method::GET, &sid, "").await;
        client.leave(&sid).await;
        sleep(Duration::from_secs(away)).await;
        let answer: Value = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
        let sid = client.open(&json!({"pid": answer["pid"]})).await;
        let again = client.request(Method::GET, &sid, "").await;
        let again: Value = serde_json::from_str(again.strip_prefix("40").unwrap()).unwrap();
        assert_eq!(again == answer, same, "after {away}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_handlers_for_5_seconds() {
    let io = SocketIo::new();
    io.on("for ever", async || std::future::pending::<()>().await);
    let client = InPlace::new(&io);
    let (_, sid) = connected(&io, &client).await;
    client.send(&sid, "42[\"for ever\"]").await;
    client.leave(&sid).await;
    let start = Instant::now();
    io.close().await;
    assert_eq!(seconds(start), 5);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_client_is_4096_packets_and_then_it_is_disconnected() {
    let io = SocketIo::new();
    let client = InPlace::new(&io);
    let (socket, _) = connected(&io, &client).await;
    let taken = (0..10_000).take_while(|_| socket.emit("e", ()).is_ok()).count();
    assert_eq!((taken, io.troubles().queue_full, io.troubles().slow_clients), (4096, 1, 1));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(io.socket_count(), 0);
}

/// `Duration::MAX` is never, wherever it is said.
#[tokio::test(start_paused = true)]
async fn what_is_never_due_is_no_error() {
    let recovery = Recovery::new().max_disconnection_duration(Duration::MAX).lookup_timeout(Duration::MAX);
    let io = SocketIo::builder()
        .ping_interval(Duration::MAX)
        .ping_timeout(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .ack_timeout(Duration::MAX)
        .connection_state_recovery(recovery)
        .build();
    let client = InPlace::new(&io);
    let (socket, sid) = connected(&io, &client).await;
    io.emit("e", ());
    let asked = tokio::spawn(socket.emit_with_ack::<u8>("asked", ()).into_future());
    sleep(Duration::from_secs(1_000_000)).await;
    assert!(!asked.is_finished() && socket.is_connected());
    client.leave(&sid).await;
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_socket_may_be_in_10_000_rooms() {
    let io = SocketIo::new();
    let (socket, _) = connected(&io, &InPlace::new(&io)).await;
    for room in 0..10_001 {
        socket.join(format!("r{room}"));
    }
    // That of its own id does not count.
    assert_eq!((socket.rooms().len(), io.troubles().rooms_refused), (10_001, 1));
    assert!(socket.headers().is_none(), "headers are not kept");
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_join_100_namespaces() {
    let io = SocketIo::new();
    let client = InPlace::new(&io);
    let sid = client.handshake().await;
    let names: Vec<String> = (0..101).map(|number| format!("/n{number}")).collect();
    let connects: Vec<String> = names.iter().map(|name| format!("40{name},")).collect();
    names.iter().for_each(|name| drop(io.of(name)));
    client.send(&sid, &connects.join("\x1e")).await;
    let answers = client.request(Method::GET, &sid, "").await;
    let (joined, refused): (Vec<_>, Vec<_>) =
        answers.split('\x1e').partition(|answer| answer.starts_with("40"));
    assert_eq!(joined.len(), 100);
    assert_eq!(refused, ["44/n100,{\"message\":\"Too many namespaces\"}"]);
}

#[tokio::test(start_paused = true)]
async fn auth_may_have_64_kibibytes() {
    let client = InPlace::new(&SocketIo::new());
    for (length, start) in [(64 << 10, "40{\"sid\""), ((64 << 10) + 1, "44{\"message\":\"Auth too large\"")] {
        let auth = json!({"a": "x".repeat(length - r#"{"a":""}"#.len())});
        assert_eq!(auth.to_string().len(), length);
        let sid = client.open(&auth).await;
        let answer = client.request(Method::GET, &sid, "").await;
        assert!(answer.starts_with(start), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_may_have_10_attachments() {
    let io = SocketIo::new();
    let seen = Arc::new(AtomicUsize::new(0));
    io.on(
        "e",
        with!([seen] (args: Args) => {
            seen.fetch_add(args.attachments().len(), Ordering::SeqCst);
        }),
    );
    let client = InPlace::new(&io);
    for (attachments, errors) in [(10, 0), (11, 1)] {
        let (_, sid) = connected(&io, &client).await;
        let places = (0..attachments).map(|number| format!(",{{\"_placeholder\":true,\"num\":{number}}}"));
        let event = format!("45{attachments}-[\"e\"{}]", places.collect::<String>());
        let _ = client.try_request(Method::POST, &sid, &(event + &"\x1ebAQID".repeat(attachments))).await;
        assert_eq!((seen.load(Ordering::SeqCst), io.troubles().protocol_errors), (10, errors));
    }
}

#[tokio::test(start_paused = true)]
async fn of_one_connection_256_handlers_are_in_progress() {
    let io = SocketIo::new();
    let begun = Arc::new(AtomicUsize::new(0));
    io.on(
        "e",
        with!([begun] () => {
            begun.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }),
    );
    let client = InPlace::new(&io);
    let (_, sid) = connected(&io, &client).await;
    assert!(!is_taken(&client, &sid, &["42[\"e\"]"; 1000].join("\x1e")).await);
    assert_eq!(begun.load(Ordering::SeqCst), 256);
}

/// Whether a request is answered: not while some of its packets have to wait.
async fn is_taken(client: &InPlace, sid: &str, packets: &str) -> bool {
    timeout(Duration::from_secs(1), client.send(sid, packets)).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn of_one_connection_1024_events_wait_or_2_mebibytes() {
    let large = format!("42[\"e\",\"{}\"]", "x".repeat(900_000));
    let few = ["42[\"e\"]"; 1023].join("\x1e");
    // Of each the last event is taken too, and reading stops behind it.
    for (taken, last) in [(vec![&*few], "42[\"e\"]"), (vec![&*large, &*large], &*large)] {
        let io = SocketIo::new();
        io.on_connect(async || std::future::pending::<()>().await);
        let client = InPlace::new(&io);
        let (_, sid) = connected(&io, &client).await;
        for packets in taken {
            assert!(is_taken(&client, &sid, packets).await);
        }
        assert!(!is_taken(&client, &sid, last).await);
    }
}
