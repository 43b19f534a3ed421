//! The loop over a real socket, with an axum app behind it.
#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

mod apps;
mod endings;
mod requests;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body as AxumBody;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::connection::{Leaving, Requests, Serving};
use crate::sessions::Servers;
use crate::{Pace, SessionStats, Sessions};

/// What never comes is noticed after this long.
const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// A server whose requests are those under `/io/`.
struct Io;

impl Sessions for Io {
    fn is_for(&self, path: &str) -> bool {
        path.starts_with("/io/")
    }

    fn stats(&self) -> SessionStats {
        SessionStats::default()
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        std::future::pending().boxed()
    }

    fn drain(&self, _: Duration, _: Pace) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// Counts the answers that were begun, and those that nobody waits for any more.
#[derive(Default)]
struct Seen {
    begun: Notify,
    dropped: Notify,
}

struct Guard(Arc<Seen>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

fn app(seen: &Arc<Seen>) -> Router {
    let waiting = seen.clone();
    let slow = seen.clone();
    Router::new()
        .route("/io/hello", get(|| async { "hello" }))
        .route("/io/length", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/io/deaf", post(|| async { "what?" }))
        .route(
            "/io/deaf-late",
            post({
                let seen = seen.clone();
                move || async move {
                    seen.begun.notify_one();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    "late"
                }
            }),
        )
        .route(
            "/io/header",
            get(|headers: HeaderMap| async move { headers["x"].to_str().unwrap().to_owned() }),
        )
        .route(
            "/io/chunks",
            get(|| async {
                let parts = ["one", "", "three"].map(|part| Ok::<_, io::Error>(Bytes::from(part)));
                AxumBody::from_stream(stream::iter(parts))
            }),
        )
        .route(
            "/io/broken",
            get(|| async {
                let parts = [Ok(Bytes::from("one")), Err(io::Error::other("broken"))];
                AxumBody::from_stream(stream::iter(parts))
            }),
        )
        .route(
            "/io/short",
            get(|| async {
                ([("content-length", "9")], AxumBody::from_stream(stream::iter([Ok::<_, io::Error>("four")])))
            }),
        )
        .route("/io/interim", get(|| async { StatusCode::EARLY_HINTS }))
        .route(
            "/io/endless",
            get({
                let seen = seen.clone();
                move || async move {
                    let guard = Guard(seen.clone());
                    seen.begun.notify_one();
                    let first = stream::iter([Ok::<_, io::Error>("first")]);
                    AxumBody::from_stream(first.chain(stream::poll_fn(move |_| {
                        let _kept = &guard;
                        Poll::Pending
                    })))
                }
            }),
        )
        .route("/io/nothing", get(|| async { StatusCode::NO_CONTENT }))
        .route("/io/close", get(|| async { ([("connection", "close")], "bye") }))
        .route("/io/large", get(|| async { "x".repeat(8 << 20) }))
        .route("/io/switch", get(|| async { (StatusCode::SWITCHING_PROTOCOLS, [("upgrade", "websocket")]) }))
        .route(
            "/io/never",
            get(move || async move {
                let _guard = Guard(waiting.clone());
                waiting.begun.notify_one();
                std::future::pending::<()>().await;
            }),
        )
        .route(
            "/io/slow",
            get(move || async move {
                slow.begun.notify_one();
                tokio::time::sleep(Duration::from_secs(1)).await;
                "done"
            }),
        )
}

/// A connection under the loop.
struct Driven {
    client: UnixStream,
    leaving: watch::Sender<bool>,
    seen: Arc<Seen>,
    next: JoinHandle<(Next, Option<Conn>)>,
}

fn driven(origin: Origin) -> Driven {
    let (client, server) = UnixStream::pair().unwrap();
    let leaving = watch::Sender::new(false);
    let seen = Arc::new(Seen::default());
    let (mut app, mut told) = (app(&seen), leaving.subscribe());
    let next = tokio::spawn(async move {
        let glance = told.clone();
        let serving = Serving::of_test(Arc::new(vec![Arc::new(Io)]), glance.clone());
        let requests = Requests::of_test(origin, serving);
        let told = pin!(async { drop(told.wait_for(|leaving| *leaving).await) });
        let mut leaving = Leaving::new(&glance, told);
        let patience = (origin != Origin::Leg).then_some(PATIENCE);
        let mut quick = Quick::new(Conn::unix(server, origin), patience);
        let next = quick.serve(&requests, &mut app, &mut leaving).await;
        // An end closes it.
        let conn = matches!(next, Next::Hyper).then(|| quick.into_conn());
        (next, conn)
    });
    Driven { client, leaving, seen, next }
}

impl Driven {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).await.unwrap();
    }

    /// One response: its head, and its body by its length.
    async fn response(&mut self) -> (String, String) {
        let mut got = Vec::new();
        loop {
            if request::is_complete(&got, 0) {
                let head = String::from_utf8(got).unwrap();
                let length = head
                    .split("content-length: ")
                    .nth(1)
                    .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
                let mut body = vec![0; length];
                self.client.read_exact(&mut body).await.unwrap();
                return (head, String::from_utf8(body).unwrap());
            }
            got.push(
                tokio::time::timeout(SOON, self.client.read_u8()).await.expect("no answer").expect("the end"),
            );
        }
    }

    /// All there is until the end.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        tokio::time::timeout(SOON, self.client.read_to_string(&mut rest)).await.expect("still open").unwrap();
        rest
    }

    async fn next(self) -> (Next, Option<Conn>) {
        tokio::time::timeout(SOON, self.next).await.expect("still driven").unwrap()
    }

    async fn over(self) {
        assert!(matches!(self.next().await, (Next::Over, _)));
    }
}

fn get_request(path: &str) -> String {
    format!("GET /io/{path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

fn post_request(path: &str, body: &str) -> String {
    format!("POST /io/{path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
