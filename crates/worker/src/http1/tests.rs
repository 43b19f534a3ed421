//! The loop over a real socket, with an axum app behind it.
#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

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
use crate::connection::Connection;
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
        let requests = Requests::of_test(origin, Arc::new(vec![Arc::new(Io)]));
        let glance = told.clone();
        let told = pin!(async { drop(told.wait_for(|leaving| *leaving).await) });
        let mut leaving = Leaving::new(&glance, told);
        let mut quick = Quick::new(Conn::unix(server, origin), Some(PATIENCE));
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

#[tokio::test]
async fn requests_are_answered_one_after_another() {
    let mut driven = driven(Origin::Accepted);
    for _ in 0..3 {
        driven.send(get_request("hello")).await;
        let (head, body) = driven.response().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(head.matches("\r\ndate: ").count(), 1, "{head}");
        assert!(!head.contains("connection:"), "{head}");
        assert_eq!(body, "hello");
    }
    // Those that come at once, too.
    driven.send([get_request("hello"), post_request("length", "12345"), get_request("hello")].concat()).await;
    for body in ["hello", "5", "hello"] {
        assert_eq!(driven.response().await.1, body);
    }
    driven.client.shutdown().await.unwrap();
    assert_eq!(driven.rest().await, "");
    driven.over().await;
}

#[tokio::test]
async fn a_request_may_come_in_pieces() {
    let whole = post_request("length", "a body") + &get_request("hello");
    for cut in 1..whole.len() {
        let mut driven = driven(Origin::Accepted);
        driven.send(&whole[..cut]).await;
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        driven.send(&whole[cut..]).await;
        assert_eq!(
            (driven.response().await.1, driven.response().await.1),
            ("6".to_owned(), "hello".to_owned()),
            "{cut}"
        );
    }
}

#[tokio::test]
async fn a_large_body_goes_through_in_parts() {
    let mut driven = driven(Origin::Accepted);
    let body = "x".repeat(1 << 20);
    driven.send(post_request("length", &body)).await;
    assert_eq!(driven.response().await.1, body.len().to_string());
    driven.send(get_request("hello")).await;
    assert_eq!(driven.response().await.1, "hello");
}

#[tokio::test]
async fn a_body_nobody_wants_ends_the_connection() {
    let mut driven = driven(Origin::Accepted);
    driven
        .send("POST /io/deaf HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\nGET /io/hello HTTP/1.1\r\n\r\n")
        .await;
    let (head, body) = driven.response().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!((body.as_str(), driven.rest().await.as_str()), ("what?", ""));
    driven.over().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_waited_for_no_longer() {
    for (request, announced) in [
        (get_request("never"), true),
        ("POST /io/length HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf".to_owned(), false),
    ] {
        let mut driven = driven(Origin::Accepted);
        driven.send(request).await;
        if announced {
            driven.seen.begun.notified().await;
        }
        let seen = driven.seen.clone();
        let Driven { client, next, leaving, .. } = driven;
        drop(client);
        let next = tokio::time::timeout(SOON, next).await.expect("still driven").unwrap();
        assert!(matches!(next, (Next::Over, _)));
        if announced {
            seen.dropped.notified().await;
        }
        drop(leaving);
    }
}

#[tokio::test]
async fn what_is_not_taken_is_handed_on_byte_for_byte() {
    let large = format!("GET /io/hello HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(READ_SIZE));
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\nand more",
        "nonsense\r\n\r\n",
        "nonsense without an end\n",
        "POST /io/length HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &large,
    ] {
        let mut driven = driven(Origin::Accepted);
        // After one that is.
        driven.send(get_request("hello")).await;
        assert_eq!(driven.response().await.1, "hello");
        driven.send(request).await;
        driven.client.shutdown().await.unwrap();
        let (Next::Hyper, Some(mut conn)) = driven.next().await else { panic!("{request}") };
        let mut read = String::new();
        conn.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, request);
    }
}

#[tokio::test]
async fn a_body_without_a_length_goes_in_chunks() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("chunks") + &get_request("close")).await;
    let rest = driven.rest().await;
    let (head, body) = rest.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\ntransfer-encoding: chunked"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    let (chunks, bye) = body.split_once("HTTP/1.1 ").unwrap();
    assert_eq!(chunks, "3\r\none\r\n5\r\nthree\r\n0\r\n\r\n");
    // The app's own word for the end of the connection.
    assert!(bye.starts_with("200 ") && bye.ends_with("\r\n\r\nbye"), "{bye}");
    assert_eq!(bye.matches("connection: close\r\n").count(), 1, "{bye}");
    driven.over().await;
}

#[tokio::test]
async fn a_body_that_breaks_or_is_too_short_ends_the_connection() {
    let mut broken = driven(Origin::Accepted);
    broken.send(get_request("broken")).await;
    let rest = broken.rest().await;
    assert!(rest.ends_with("\r\n\r\n3\r\none\r\n"), "what came before is there, and no end: {rest}");
    broken.over().await;
    let mut short = driven(Origin::Accepted);
    short.send(get_request("short")).await;
    let rest = short.rest().await;
    assert!(rest.contains("content-length: 9\r\n") && rest.ends_with("\r\n\r\nfour"), "{rest}");
    short.over().await;
}

#[tokio::test]
async fn an_answer_without_a_body_has_no_length() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("nothing") + &get_request("hello")).await;
    let (head, _) = driven.response().await;
    assert!(head.starts_with("HTTP/1.1 204 No Content\r\n"), "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(driven.response().await.1, "hello");
}

#[tokio::test]
async fn a_client_may_end_the_connection_with_its_request() {
    let mut driven = driven(Origin::Accepted);
    driven.send("GET /io/header HTTP/1.1\r\nx: y\r\nconnection: close\r\n\r\n").await;
    let (head, body) = driven.response().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!((body.as_str(), driven.rest().await.as_str()), ("y", ""));
    driven.over().await;
}

#[tokio::test]
async fn a_handed_over_connection_has_one_request() {
    let mut driven = driven(Origin::HandedOff);
    driven.send(get_request("hello").repeat(2)).await;
    let all = driven.rest().await;
    assert_eq!(all.matches("HTTP/1.1 200").count(), 1, "{all}");
    assert!(all.contains("\r\nconnection: close\r\n"), "{all}");
    driven.over().await;
}

#[tokio::test]
async fn a_server_that_leaves_answers_what_it_has_and_ends() {
    let mut idle = driven(Origin::Accepted);
    idle.send(get_request("hello")).await;
    idle.response().await;
    idle.leaving.send_replace(true);
    assert_eq!(idle.rest().await, "");
    idle.over().await;

    let mut busy = driven(Origin::Accepted);
    busy.send(get_request("slow")).await;
    busy.seen.begun.notified().await;
    busy.leaving.send_replace(true);
    let (head, body) = busy.response().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!((body.as_str(), busy.rest().await.as_str()), ("done", ""));
    busy.over().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_and_a_slow_head_have_a_limit() {
    for head in ["", "GET /io/hel"] {
        let mut driven = driven(Origin::Accepted);
        // The limit is each head's own.
        for _ in 0..3 {
            tokio::time::sleep(PATIENCE / 2).await;
            driven.send(get_request("hello")).await;
            driven.response().await;
        }
        driven.send(head).await;
        let started = Instant::now();
        let mut rest = Vec::new();
        driven.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        let taken = started.elapsed();
        assert!(taken >= PATIENCE / 2 && taken <= PATIENCE + Duration::from_secs(1), "{taken:?}");
        driven.over().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_has_a_limit() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("large")).await;
    let Driven { client, next, leaving, .. } = driven;
    assert!(matches!(next.await.unwrap(), (Next::Over, _)));
    drop((client, leaving));
}

#[tokio::test]
async fn a_websocket_has_every_byte_and_the_head_to_write() {
    let (client, server) = UnixStream::pair().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let seen = taken.clone();
    let app = Router::new().route(
        "/io/ws",
        get(move |request: axum::extract::Request| async move {
            let take_over = request.extensions().get::<TakeOver>().cloned().expect("an upgrade");
            take_over.then(move |connection| {
                assert_eq!(connection.unread, "frames");
                assert!(connection.unwritten.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
                assert!(connection.unwritten.ends_with(b"\r\n\r\n"));
                seen.fetch_add(1, Ordering::Relaxed);
                Some(Box::pin(async {}))
            });
            (StatusCode::SWITCHING_PROTOCOLS, [("upgrade", "websocket"), ("connection", "Upgrade")])
        }),
    );
    let mut client = client;
    client
        .write_all(b"GET /io/ws HTTP/1.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\nframes")
        .await
        .unwrap();
    let (_leaving, leaving) = watch::channel(false);
    let connection = Connection { cluster: None, servers: Arc::new(vec![Arc::new(Io)]), leaving };
    let life = connection.http(Conn::unix(server, Origin::Accepted), None, app).await;
    assert!(life.is_some());
    assert_eq!(taken.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_101_that_nobody_took_ends_the_connection() {
    for asked in ["upgrade: websocket\r\nconnection: Upgrade\r\n", ""] {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(format!("GET /io/switch HTTP/1.1\r\n{asked}\r\n").as_bytes()).await.unwrap();
        let (_leaving, leaving) = watch::channel(false);
        let connection = Connection { cluster: None, servers: Arc::new(vec![Arc::new(Io)]), leaving };
        let app = app(&Arc::default());
        let life = connection.http(Conn::unix(server, Origin::Accepted), None, app).await;
        assert!(life.is_none());
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"");
    }
}

#[tokio::test]
async fn a_connection_that_waits_is_small() {
    let (_client, server) = UnixStream::pair().unwrap();
    let (_leaving, leaving) = watch::channel(false);
    let connection = Connection { cluster: None, servers: Arc::default(), leaving };
    let http = connection.http(Conn::unix(server, Origin::Accepted), None, Small);
    assert!(size_of_val(&http) <= 1024, "{} bytes, of which malloc keeps no spare", size_of_val(&http));
}

/// An app whose answers are small, as those of sessions are.
#[derive(Clone)]
struct Small;

impl Service<Request<RequestBody>> for Small {
    type Response = Response<AxumBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        std::future::ready(Ok(Response::new(AxumBody::empty()))).boxed()
    }
}

#[tokio::test]
async fn an_interim_status_is_no_answer() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("interim")).await;
    let rest = driven.rest().await;
    assert!(rest.starts_with("HTTP/1.1 500 ") && rest.contains("connection: close\r\n"), "{rest}");
    driven.over().await;
}

#[tokio::test]
async fn a_body_that_goes_on_for_ever_ends_with_its_client() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("endless")).await;
    driven.seen.begun.notified().await;
    let mut first = [0; 256];
    let count = driven.client.read(&mut first).await.unwrap();
    assert!(first[..count].ends_with(b"\r\nfirst\r\n"));
    let Driven { client, seen, next, leaving } = driven;
    drop(client);
    assert!(matches!(next.await.unwrap(), (Next::Over, _)));
    seen.dropped.notified().await;
    drop(leaving);
}

#[tokio::test]
async fn the_rest_of_a_body_that_is_there_is_read_before_the_answer() {
    let mut driven = driven(Origin::Accepted);
    // The head alone first, so that the body is not there when the app answers without it.
    let request = post_request("deaf-late", "a body");
    let (head, body) = request.split_at(request.len() - 6);
    driven.send(head).await;
    driven.seen.begun.notified().await;
    driven.send(body).await;
    driven.send(get_request("hello")).await;
    let (head, what) = driven.response().await;
    assert!(!head.contains("connection: close"), "{head}");
    assert_eq!((what.as_str(), driven.response().await.1.as_str()), ("late", "hello"));
}

/// A service that may be called as often as it has said it is ready, by all its clones together.
#[derive(Clone)]
struct Permits {
    free: Arc<AtomicUsize>,
    promised: Arc<AtomicUsize>,
    app: Small,
}

impl Permits {
    fn new() -> Permits {
        Permits { free: Arc::new(AtomicUsize::new(1)), promised: Arc::default(), app: Small }
    }
}

/// Holds a permit from `poll_ready` to the end of the call, as tower's `ConcurrencyLimit` does; a clone has none.
struct Limited {
    permits: Permits,
    held: bool,
}

impl Clone for Limited {
    fn clone(&self) -> Limited {
        Limited { permits: self.permits.clone(), held: false }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if self.held {
            self.permits.free.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Service<Request<RequestBody>> for Limited {
    type Response = Response<AxumBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !self.held {
            let free = self
                .permits
                .free
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
            if free.is_err() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.held = true;
            self.permits.promised.fetch_add(1, Ordering::Relaxed);
        }
        self.permits.app.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        assert!(std::mem::take(&mut self.held), "not ready");
        let free = self.permits.free.clone();
        let answer = self.permits.app.call(request);
        Box::pin(async move {
            let answer = answer.await;
            free.fetch_add(1, Ordering::Relaxed);
            answer
        })
    }
}

/// A connection that has been handed to hyper holds nothing that others wait for.
#[tokio::test]
async fn what_an_app_has_promised_to_one_connection_is_not_kept_from_the_others() {
    let permits = Permits::new();
    let mut clients = Vec::new();
    for path in ["/page", "/page", "/io/x", "/io/x", "/page"] {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (leaving, told) = watch::channel(false);
        let connection = Connection { cluster: None, servers: Arc::new(vec![Arc::new(Io)]), leaving: told };
        let app = Limited { permits: permits.clone(), held: false };
        tokio::spawn(connection.run(Conn::unix(server, Origin::Accepted), None, app));
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 512];
        let count = tokio::time::timeout(SOON, client.read(&mut answer)).await.expect("no answer").unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "), "{path}");
        // They all stay.
        clients.push((client, leaving));
    }
    assert!(permits.promised.load(Ordering::Relaxed) >= 5);
}

/// All that a connection answers to `request`, which ends it; by the quick way or by hyper. The dates are left out.
async fn answered_by(servers: Servers, request: &str) -> String {
    let (mut client, server) = UnixStream::pair().unwrap();
    let (_leaving, leaving) = watch::channel(false);
    let connection = Connection { cluster: None, servers, leaving };
    tokio::spawn(connection.run(Conn::unix(server, Origin::Accepted), None, app(&Arc::default())));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    tokio::time::timeout(SOON, client.read_to_string(&mut all)).await.expect("still open").unwrap();
    let (head, body) = all.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<_> = head.split("\r\n").filter(|line| !line.starts_with("date: ")).collect();
    lines[1..].sort_unstable();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

#[tokio::test]
async fn both_ways_answer_the_same() {
    let requests = ["hello", "chunks", "nothing", "close", "nowhere", "length"]
        .map(|path| format!("GET /io/{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
    let post = "POST /io/length HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 6\r\n\r\na body";
    for request in requests.iter().map(String::as_str).chain([post]) {
        let quick = answered_by(Arc::new(vec![Arc::new(Io)]), request).await;
        assert_eq!(quick, answered_by(Arc::default(), request).await, "{request}");
    }
}
