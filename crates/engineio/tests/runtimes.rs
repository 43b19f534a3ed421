//! An engine in several runtimes, at once and one after another, and a heartbeat that is cut off.

#![allow(clippy::unwrap_used)]

mod common;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{Echo, Frame, Ws, calm, quick, serve_stream, text, until, ws_query};
use sundew_engineio::{Config, Engine};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A websocket session over memory, on the runtime this is called in.
async fn connect(engine: &Engine<Echo>) -> Ws<DuplexStream> {
    let (client, server) = duplex(64 * 1024);
    serve_stream(engine.clone(), server, "192.0.2.1:1".parse().unwrap());
    let mut ws = Ws::over(client, &ws_query(None), b"").await.ok().unwrap();
    assert!(matches!(ws.next().await, Frame::Text(open) if open.starts_with("0{")));
    ws
}

/// One in a `static`, for example.
#[test]
fn an_engine_that_outlives_a_runtime_goes_on_in_the_next() {
    let engine = Engine::new(quick(), Echo::default());
    // It ends while its heartbeat has something to wait for.
    runtime().block_on(async {
        let mut ws = connect(&engine).await;
        assert_eq!(ws.next().await, text("2"));
    });
    runtime().block_on(async {
        let mut ws = connect(&engine).await;
        assert_eq!(ws.next().await, text("2"));
        assert_eq!(ws.next().await, Frame::Close(None));
    });
}

/// As tests of an app do, each with a runtime of its own and all with the same engine.
#[test]
fn sessions_of_one_runtime_go_on_when_another_ends() {
    let engine = Engine::new(quick(), Echo::default());
    let (first, second) = (runtime(), runtime());
    // The heartbeat runs where the first session began.
    let ended = first.block_on(connect(&engine));
    let mut ws = second.block_on(connect(&engine));
    drop(first);
    let ping = second.block_on(async { timeout(Duration::from_secs(5), ws.next()).await });
    assert_eq!(ping.expect("no ping came"), text("2"));
    drop(ended);
}

/// A handshake that is answered at once may be all that a runtime does: the heartbeat has not even begun when it ends.
#[test]
fn a_heartbeat_that_never_came_to_run_leaves_nobody_waiting() {
    let engine = Engine::new(quick(), Echo::default());
    let first = Builder::new_current_thread().enable_all().build().unwrap();
    let second = runtime();
    let handshake = http::Request::get("/engine.io/?EIO=4&transport=polling");
    let handshake = handshake.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    assert_eq!(first.block_on(async { engine.handle(handshake).await }).status(), 200);
    let mut ws = second.block_on(connect(&engine));
    drop(first);
    let ping = second.block_on(async { timeout(Duration::from_secs(5), ws.next()).await });
    assert_eq!(ping.expect("no ping came"), text("2"));
}

/// A stream of the app's own with a mistake in it: it panics when it is written to, or flushed.
struct Faulty {
    inner: DuplexStream,
    breaks: Arc<AtomicBool>,
    at_flush: bool,
}

impl Faulty {
    fn check(&self, at_flush: bool) {
        assert!(self.at_flush != at_flush || !self.breaks.load(Ordering::Relaxed), "as it is meant to");
    }

    /// A session on one. Its client goes on to be there.
    async fn connect(engine: &Engine<Echo>, breaks: &Arc<AtomicBool>, at_flush: bool) -> Ws<DuplexStream> {
        let (client, inner) = duplex(64 * 1024);
        let faulty = Faulty { inner, breaks: breaks.clone(), at_flush };
        serve_stream(engine.clone(), faulty, "192.0.2.1:1".parse().unwrap());
        Ws::over(client, &ws_query(None), b"").await.ok().unwrap()
    }
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.check(false);
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(true);
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_stream_that_panics_takes_no_timer_of_other_sessions_along() {
    let mut config = Config::default();
    config.ping_interval = Duration::from_millis(500);
    let engine = Engine::new(config, Echo::default());
    let breaks = Arc::new(AtomicBool::new(false));
    let (mut all, mut faulty) = (Vec::new(), None);
    // All of them are pinged in the same few ticks, the faulty one somewhere among them.
    for number in 0..9 {
        if number == 4 {
            faulty = Some(Faulty::connect(&engine, &breaks, false).await);
        } else {
            all.push(connect(&engine).await);
        }
    }
    breaks.store(true, Ordering::Relaxed);
    for ws in &mut all {
        assert_eq!(timeout(Duration::from_secs(5), ws.next()).await.expect("no ping came"), text("2"));
    }
    // The session is over, and the others are not.
    until(|| engine.stats().sessions == all.len()).await;
    drop(faulty);
}

/// Panicking once more while it is dropped would end the process.
#[tokio::test]
async fn a_stream_that_panics_whenever_it_is_flushed_ends_its_session_only() {
    let engine = Engine::new(calm(), Echo::default());
    let breaks = Arc::new(AtomicBool::new(false));
    let mut faulty = Faulty::connect(&engine, &breaks, true).await;
    let mut other = connect(&engine).await;
    breaks.store(true, Ordering::Relaxed);
    faulty.text("4hello").await;
    until(|| engine.stats().sessions == 1).await;
    other.text("4hello").await;
    assert_eq!(other.next().await, text("4hello"));
}
