//! The engine as a whole: drain, close, and life inside other servers.

#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use common::{Echo, Frame, Ws, calm, get, open, request, serve, serve_stream, text, until, ws_query};
use sundew_engineio::{CloseReason, Config, Engine, EngineLayer, Frames, Pace, SendError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn draining_waits_and_then_lets_go_in_batches() {
    let server = serve(calm()).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(Ws::open(server.addr).await.0);
    }
    let sid = open(server.addr).await;
    let begin = Instant::now();
    let engine = server.engine.clone();
    let pace = Pace { batch: 2, pause: Duration::from_millis(20) };
    let drain = tokio::spawn(async move { engine.drain(Duration::from_millis(200), pace).await });
    sockets[0].text("4still served").await;
    assert_eq!(sockets[0].next().await, text("4still served"));
    let poll = get(server.addr, &sid).await;
    assert_eq!(poll.body, "1");
    for ws in &mut sockets {
        assert_eq!(ws.next().await, Frame::Close(None));
    }
    timeout(Duration::from_secs(5), drain).await.unwrap().unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(200 + 4 * 20));
    assert_eq!(server.engine.stats().sessions, 0);
    server.until_closed(&[CloseReason::ServerShutdown; 11]).await;
}

#[tokio::test]
async fn draining_ends_early_when_everybody_left() {
    let server = serve(calm()).await;
    let (ws, _) = Ws::open(server.addr).await;
    let engine = server.engine.clone();
    let drain = tokio::spawn(async move { engine.drain(Duration::from_secs(60), Pace::default()).await });
    sleep(Duration::from_millis(20)).await;
    assert!(!drain.is_finished());
    drop(ws);
    timeout(Duration::from_secs(5), drain).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_closed_engine_takes_no_new_sessions() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    timeout(Duration::from_secs(5), server.engine.close()).await.unwrap();
    assert_eq!(ws.next().await, Frame::Close(None));
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    assert_eq!((answer.status, &*answer.body), (503, r#"{"message":"the server is shutting down"}"#));
}

/// A websocket client that has the first byte of its 101, and takes no more of it until it goes on.
async fn half_accepted(engine: &Engine<Echo>) -> DuplexStream {
    let (mut client, stream) = tokio::io::duplex(16);
    serve_stream(engine.clone(), stream, "192.0.2.1:1".parse().unwrap());
    let head = "GET /engine.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: test\r\nupgrade: websocket\r\n\
                connection: Upgrade\r\nsec-websocket-version: 13\r\n\
                sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'H');
    client
}

/// The rest of a connection that no session comes of: a head, and no frame.
async fn assert_ends_without_a_session(mut client: DuplexStream) {
    let mut rest = String::new();
    timeout(Duration::from_secs(5), client.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.starts_with("TTP/1.1 101") && rest.ends_with("\r\n\r\n"), "{rest}");
}

#[tokio::test]
async fn a_handshake_that_closing_overtakes_opens_no_session() {
    let engine = Engine::new(calm(), Echo::default());
    let client = half_accepted(&engine).await;
    timeout(Duration::from_secs(5), engine.close()).await.unwrap();
    assert_ends_without_a_session(client).await;
    let stats = engine.stats();
    assert_eq!((stats.sessions, stats.handshakes, stats.refused), (0, 0, 1));
}

#[tokio::test]
async fn handshakes_at_the_same_time_are_bounded_too() {
    let mut config = calm();
    config.max_sessions = 1;
    let server = serve(config).await;
    let client = half_accepted(&server.engine).await;
    let _sid = open(server.addr).await;
    assert_ends_without_a_session(client).await;
    let stats = server.engine.stats();
    assert_eq!((stats.sessions, stats.handshakes, stats.refused), (1, 1, 1));
}

#[tokio::test]
async fn a_handle_that_is_kept_keeps_no_connection() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    let handle = server.handle();
    handle.close(CloseReason::ForcedClose);
    assert_eq!(ws.next().await, Frame::Close(None));
    assert_eq!(ws.next().await, Frame::End);
    assert!(!handle.is_open());
}

#[tokio::test]
async fn it_lives_in_an_axum_router() {
    let echo = Echo::default();
    let engine = Engine::new(calm(), echo.clone());
    let router = axum::Router::new()
        .route("/page", axum::routing::get(|| async { "a page" }))
        .layer(EngineLayer::new(engine.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let (mut ws, _) = Ws::open(addr).await;
    ws.text("4over axum").await;
    assert_eq!(ws.next().await, text("4over axum"));
    let sid = open(addr).await;
    let mut ws = Ws::upgrade(addr, &sid).await;
    ws.text("4upgraded").await;
    assert_eq!(ws.next().await, text("4upgraded"));
    assert_eq!(engine.stats().websocket, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_sessions_on_many_threads() {
    let server = serve(calm()).await;
    let addr = server.addr;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..100 {
        tasks.spawn(async move {
            let (mut ws, _) = Ws::open(addr).await;
            for round in 0..50 {
                let message = format!("4{number}:{round}");
                ws.text(&message).await;
                assert_eq!(ws.next().await, text(&message));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(server.received(), 5000);
    common::until(|| server.engine.stats().sessions == 0).await;
}

/// A websocket on a stream that is no socket (as TLS would be), so that the clock can be stopped.
async fn in_memory(config: Config) -> (Engine<Echo>, Echo, Ws<DuplexStream>) {
    let echo = Echo::default();
    let engine = Engine::new(config, echo.clone());
    let ws = open_in_memory(&engine).await;
    (engine, echo, ws)
}

async fn open_in_memory(engine: &Engine<Echo>) -> Ws<DuplexStream> {
    let (client, server) = tokio::io::duplex(64 * 1024);
    serve_stream(engine.clone(), server, "192.0.2.1:1".parse().unwrap());
    let mut ws = Ws::over(client, &ws_query(None), b"").await.ok().unwrap();
    assert!(matches!(ws.next().await, Frame::Text(open) if open.starts_with("0{")));
    ws
}

#[tokio::test]
async fn other_streams_work_too() {
    let (_, echo, mut ws) = in_memory(calm()).await;
    let large = vec![3; 500_000];
    let handle = echo.log.lock().unwrap().handles[0].clone();
    handle.send(Frames::binary(&large)).unwrap();
    assert_eq!(ws.next().await, Frame::Binary(large.clone()));
    ws.text("4x").await;
    assert_eq!(ws.next().await, text("4x"));
    handle.close(CloseReason::ForcedClose);
    assert_eq!(ws.next().await, Frame::Close(None));
    assert_eq!(ws.next().await, Frame::End);
}

/// A stream with a buffer of its own, as TLS has: what is written leaves when it is flushed.
struct Buffering {
    inner: DuplexStream,
    buffer: Vec<u8>,
    jam: Jam,
}

/// While it holds, nothing can be flushed.
#[derive(Clone, Default)]
struct Jam(Arc<Mutex<(bool, Option<Waker>)>>);

impl Jam {
    fn begin(&self) {
        self.0.lock().unwrap().0 = true;
    }

    fn end(&self) {
        let mut jam = self.0.lock().unwrap();
        jam.0 = false;
        jam.1.take().into_iter().for_each(Waker::wake);
    }
}

impl AsyncRead for Buffering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffering {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.buffer.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        {
            let mut jam = this.jam.0.lock().unwrap();
            if jam.0 {
                jam.1 = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        while !this.buffer.is_empty() {
            let count = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.buffer))?;
            this.buffer.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Nothing else is written to them that would take it along.
#[tokio::test]
async fn what_a_stream_holds_back_leaves_when_it_can() {
    let echo = Echo::default();
    let engine = Engine::new(calm(), echo.clone());
    let (client, inner) = tokio::io::duplex(64 * 1024);
    let jam = Jam::default();
    let stream = Buffering { inner, buffer: Vec::new(), jam: jam.clone() };
    serve_stream(engine.clone(), stream, "192.0.2.1:1".parse().unwrap());
    let mut ws = Ws::over(client, &ws_query(None), b"").await.ok().unwrap();
    assert!(matches!(ws.next().await, Frame::Text(open) if open.starts_with("0{")));
    let handle = echo.log.lock().unwrap().handles[0].clone();
    // Sent from elsewhere.
    jam.begin();
    handle.send(Frames::text("told")).unwrap();
    until(|| !handle.is_writable()).await;
    handle.send(Frames::text("next")).unwrap();
    sleep(Duration::from_millis(20)).await;
    jam.end();
    assert_eq!(ws.next().await, text("4told"));
    assert_eq!(ws.next().await, text("4next"));
    // By the session's task.
    jam.begin();
    ws.text("4echo").await;
    until(|| !handle.is_writable()).await;
    jam.end();
    assert_eq!(ws.next().await, text("4echo"));
    until(|| handle.is_writable()).await;
    // At its end.
    jam.begin();
    handle.close(CloseReason::ForcedClose);
    until(|| echo.log.lock().unwrap().closed == [CloseReason::ForcedClose]).await;
    jam.end();
    assert_eq!(ws.next().await, Frame::Close(None));
    assert_eq!(ws.next().await, Frame::End);
}

/// The next frame, however long it takes on the stopped clock, and how long that was.
async fn frame_after(ws: &mut Ws<DuplexStream>) -> (Frame, Duration) {
    let begin = Instant::now();
    loop {
        if let Ok(frame) = timeout(Duration::from_secs(1), ws.read()).await {
            return (frame, begin.elapsed());
        }
    }
}

fn about(time: Duration, seconds: u64) -> bool {
    let expected = Duration::from_secs(seconds);
    time >= expected && time <= expected + Duration::from_millis(250)
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_session_is_the_options() {
    let (engine, echo, mut ws) = in_memory(Config::default()).await;
    for _ in 0..3 {
        let (frame, time) = frame_after(&mut ws).await;
        assert_eq!(frame, text("2"));
        assert!(about(time, 25), "{time:?}");
        ws.text("3").await;
    }
    assert_eq!(frame_after(&mut ws).await.0, text("2"));
    let (frame, time) = frame_after(&mut ws).await;
    assert_eq!(frame, Frame::Close(None));
    assert!(about(time, 20), "{time:?}");
    assert_eq!(echo.log.lock().unwrap().closed, [CloseReason::PingTimeout]);
    assert_eq!(engine.stats().sessions, 0);
}

#[tokio::test]
async fn times_without_end_are_as_long_as_clients_can_wait() {
    let mut config = calm();
    config.ping_interval = Duration::MAX;
    config.ping_timeout = Duration::MAX;
    config.upgrade_timeout = Duration::MAX;
    config.close_timeout = Duration::MAX;
    config.allow_eio3 = true;
    let server = serve(config).await;
    let legacy = request(server.addr, "GET", "EIO=3&transport=polling", "", b"").await;
    assert_eq!(legacy.status, 200);
    let open = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await.body;
    let told: serde_json::Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    let wait = told["pingInterval"].as_u64().unwrap() + told["pingTimeout"].as_u64().unwrap();
    assert!(i32::try_from(wait).is_ok(), "{wait} ms are too many for a timer of JavaScript");
    let mut ws = Ws::upgrade(server.addr, told["sid"].as_str().unwrap()).await;
    ws.text("4x").await;
    assert_eq!(ws.next().await, text("4x"));
    server.handle().close(CloseReason::ForcedClose);
    assert_eq!(ws.next().await, Frame::Close(None));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_polled_when_it_wanted_to_be() {
    let (_engine, echo, _ws) = in_memory(Config::default()).await;
    let (polled, handle) = (|| echo.log.lock().unwrap().polled, echo.log.lock().unwrap().handles[0].clone());
    let after = |seconds| Some((Instant::now() + Duration::from_secs(seconds)).into());
    sleep(Duration::from_millis(10)).await;
    let before = polled();
    // The one that is set last counts, and the first ping is far.
    handle.wake_at(after(2));
    handle.wake_at(after(10));
    sleep(Duration::from_millis(9_990)).await;
    assert_eq!(polled(), before);
    sleep(Duration::from_millis(120)).await;
    assert_eq!(polled(), before + 1);
    handle.wake_at(after(1));
    handle.wake_at(None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(polled(), before + 1, "once, and not what was taken back");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_peer_is_let_go_after_the_close_timeout() {
    let (engine, echo, _stuck) = in_memory(Config::default()).await;
    let handle = echo.log.lock().unwrap().handles[0].clone();
    while handle.send(Frames::binary(&[0; 100_000])).is_ok() {}
    tokio::task::yield_now().await;
    assert!(!handle.is_writable());
    let begin = Instant::now();
    handle.close(CloseReason::ForcedClose);
    assert!(matches!(handle.send(Frames::text("x")), Err(SendError::Closed(_))));
    timeout(Duration::from_secs(60), engine.drain(Duration::from_secs(30), Pace::default())).await.unwrap();
    assert!(about(begin.elapsed(), 5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_burst_from_elsewhere_arrives_whole_and_in_order() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    let handle = server.handle();
    for number in 0..1000 {
        handle.send(Frames::text(&number.to_string())).unwrap();
        assert!(handle.is_writable());
    }
    for number in 0..1000 {
        assert_eq!(ws.next().await, text(&format!("4{number}")));
    }
}

#[tokio::test]
async fn the_path_has_a_slash_at_each_end() {
    for (given, path) in [("/a", "/a/"), ("a//", "/a/"), ("/", "/")] {
        let mut config = calm();
        config.path = given.to_owned();
        let engine = Engine::new(config, Echo::default());
        assert_eq!(engine.config().path, path);
        assert!(engine.path_matches(&format!("{path}more")));
    }
}

#[cfg(not(feature = "webtransport"))]
#[tokio::test]
async fn a_build_without_webtransport_offers_none() {
    let mut config = calm();
    config.transports.webtransport = true;
    let server = serve(config).await;
    assert!(!server.engine.config().transports.webtransport, "and says so in the log");
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    assert!(answer.body.contains(r#""upgrades":["websocket"]"#), "{}", answer.body);
}

/// Handshakes of many threads at the same time.
#[test]
fn no_more_sessions_than_allowed_however_many_come_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for _ in 0..200 {
        let mut config = calm();
        config.max_sessions = 1;
        let engine = Engine::new(config, Echo::default());
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    let _entered = runtime.enter();
                    let request = http::Request::get("/engine.io/?EIO=4&transport=polling");
                    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
                    barrier.wait();
                    drop(engine.handle(request));
                });
            }
        });
        assert_eq!(engine.stats().sessions, 1);
    }
}

#[tokio::test]
async fn there_is_never_room_for_everything() {
    let server = serve(calm()).await;
    open(server.addr).await;
    server.handle().send(Frames::text("waits")).unwrap();
    assert!(server.handle().has_room_for(10, 1));
    assert!(!server.handle().has_room_for(usize::MAX, 1) && !server.handle().has_room_for(1, usize::MAX));
}
