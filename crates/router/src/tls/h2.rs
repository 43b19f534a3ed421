//! HTTP/2: each request of a connection is carried as HTTP/1.1 over a connection of its own inside this process, which is
//! served as any client's. Many polls may so wait at once on one HTTP/2 connection. The inner connections are kept for
//! the next requests, and end as idle ones do.
//!
//! Extended CONNECT is not announced: a browser then opens an HTTP/1.1 connection for a websocket, which can be handed
//! over or relayed without a frame of it being looked at.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use crate::accept::{At, Counted};
use crate::backend::Leg;
use crate::client::{Client, Peer};
use crate::connection;
use crate::front::Shared;

/// How long a client may take to answer a ping, before it counts as gone.
const PONG: Duration = Duration::from_secs(20);
/// How often it is asked, while there are requests. TCP's own probes are too slow for polls that wait.
const PING: Duration = Duration::from_secs(60);

/// How often a request is tried on an inner connection that turns out to have ended.
const MAX_TRIES: u32 = 4;

type Body = Either<Incoming, Full<Bytes>>;

/// One HTTP/2 connection.
struct Multiplexed {
    shared: Arc<Shared>,
    peer: Peer,
    at: At,
    /// Inner connections without a request; the one used last comes first.
    idle: Mutex<Vec<SendRequest<Incoming>>>,
    /// Requests at the moment.
    open: AtomicUsize,
    /// One has begun or ended.
    changed: Notify,
}

pub(super) async fn serve(held: Counted, stream: TlsStream<TcpStream>, peer: Peer) {
    let limits = held.shared.config.limits.clone();
    let multiplexed = Arc::new(Multiplexed {
        shared: held.shared.clone(),
        peer,
        at: held.at.clone(),
        idle: Mutex::default(),
        open: AtomicUsize::new(0),
        changed: Notify::new(),
    });
    let service = {
        let multiplexed = multiplexed.clone();
        service_fn(move |request| answer(multiplexed.clone(), request))
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = multiplexed.idle_for(limits.idle_timeout) => {
            connection.as_mut().graceful_shutdown();
            // It is to say goodbye in turn.
            let Ok(result) = tokio::time::timeout(limits.linger_timeout, connection).await else { return };
            result
        }
    };
    if let Err(error) = result {
        tracing::debug!(app = held.shared.config.app, %error, "an HTTP/2 connection failed");
    }
}

impl Multiplexed {
    /// Completes when there has been no request for so long.
    async fn idle_for(&self, timeout: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.open.load(Ordering::Relaxed) > 0 {
                changed.await;
            } else if tokio::time::timeout(timeout, changed).await.is_err() {
                return;
            }
        }
    }

    /// An inner connection. `None`: there are as many connections as there may be.
    async fn inner(self: &Arc<Self>) -> Option<SendRequest<Incoming>> {
        loop {
            let kept = self.idle.lock().pop();
            match kept {
                Some(sender) if sender.is_ready() => return Some(sender),
                Some(_) => {}
                None => break,
            }
        }
        let mut held = Counted::new(&self.shared);
        held.at = self.at.clone();
        if held.is_too_many {
            self.shared.counters.rejected_connections.add();
            return None;
        }
        let (ours, theirs) = UnixStream::pair().ok()?;
        let client = Client::watched_one(Leg::Unix(theirs), self.peer).secured(true);
        tokio::spawn(connection::serve(held, client, None, 0));
        let (sender, connection) = http1::handshake(TokioIo::new(ours)).await.ok()?;
        tokio::spawn(connection);
        Some(sender)
    }

    /// Keeps an inner connection for the next request, once the answer to the last one was read.
    async fn give_back(self: Arc<Self>, mut sender: SendRequest<Incoming>) {
        if sender.ready().await.is_ok() {
            self.idle.lock().push(sender);
        }
    }
}

/// A request that is being carried.
struct Open(Arc<Multiplexed>);

impl Open {
    fn new(multiplexed: &Arc<Multiplexed>) -> Self {
        multiplexed.open.fetch_add(1, Ordering::Relaxed);
        multiplexed.changed.notify_one();
        Self(multiplexed.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

async fn answer(
    multiplexed: Arc<Multiplexed>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let open = Open::new(&multiplexed);
    multiplexed.shared.counters.h2.add();
    let mut request = match translated(request) {
        Ok(request) => request,
        Err(why) => return Ok(refusal(StatusCode::BAD_REQUEST, why)),
    };
    for _ in 0..MAX_TRIES {
        let Some(mut sender) = multiplexed.inner().await else {
            return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "too many connections: try again"));
        };
        match sender.try_send_request(request).await {
            Ok(response) => {
                tokio::spawn(async move {
                    multiplexed.give_back(sender).await;
                    drop(open);
                });
                let (mut head, body) = response.into_parts();
                head.version = Version::HTTP_2;
                head.headers.remove(CONNECTION);
                return Ok(Response::from_parts(head, Either::Left(body)));
            }
            Err(mut error) => match error.take_message() {
                // It had ended while it was idle; nothing of the request was sent.
                Some(back) => request = back,
                None => break,
            },
        }
    }
    Ok(refusal(StatusCode::BAD_GATEWAY, "the request was not answered"))
}

/// The request as HTTP/1.1 says it.
fn translated(request: Request<Incoming>) -> Result<Request<Incoming>, &'static str> {
    if request.method() == Method::CONNECT {
        return Err("malformed request: CONNECT is for proxies, and a websocket needs HTTP/1.1 here");
    }
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "malformed request: :authority")?;
        head.headers.insert(HOST, host);
    }
    let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    head.uri = Uri::from(path);
    head.version = Version::HTTP_11;
    // HTTP/2 may say them one by one (RFC 9113, 8.2.3).
    if head.headers.get_all(COOKIE).iter().nth(1).is_some() {
        let all: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let all = HeaderValue::from_bytes(&all.join(&b"; "[..])).map_err(|_| "malformed request: cookies")?;
        head.headers.insert(COOKIE, all);
    }
    Ok(Request::from_parts(head, body))
}

/// An answer of our own.
fn refusal(status: StatusCode, why: &'static str) -> Response<Body> {
    // None of the texts has a character that JSON escapes.
    let body = Bytes::from(format!(r#"{{"error":"{why}"}}"#));
    let mut response = Response::new(Either::Right(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
