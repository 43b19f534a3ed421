//! One connection's task: requests by the quick way while they can be taken there, by hyper from then on, and what the
//! connection becomes after an upgrade. The client's address is on every request.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::BoxError;
use axum::extract::ConnectInfo;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sundew_io::{Conn, Life, Origin, PeerAddr};
use tokio::sync::watch;
use tokio::task::unconstrained;
use tower_service::Service;

use crate::address::{self, PEER_HEADER};
use crate::body::RequestBody;
use crate::cluster::Cluster;
use crate::http1::{Next, Quick, STALL_TIMEOUT};
use crate::placement::Placement;
use crate::sessions::Servers;
use crate::timer::HeadTimer;

/// How long a client may take to send a head, and how long an idle connection is kept. The front door has its own
/// limits, so a leg has none.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head, and the read buffer of a connection. The front door allows less.
const HEAD_LIMIT: usize = 64 * 1024;
/// The most headers of a request on a leg: what the front door allows, and room for those it adds. On other connections hyper
/// has its own limit, 100 (with any other it asks for memory twice per request), while requests of sessions may have as many.
const LEG_HEADERS: usize = 128;

/// What is served: the bounds of [`serve`](crate::serve).
pub(crate) trait App<B>:
    Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<B, S> App<B> for S where
    S: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// What the connections of a server have in common.
pub(crate) struct Serving {
    pub(crate) cluster: Option<Cluster>,
    /// Whose requests are taken by the quick way.
    pub(crate) servers: Servers,
    /// True once the server leaves. The server also waits until this is gone, and so all its connections.
    pub(crate) leaving: watch::Receiver<bool>,
}

impl Serving {
    #[cfg(test)]
    pub(crate) fn of_test(servers: Servers, leaving: watch::Receiver<bool>) -> Arc<Serving> {
        Arc::new(Serving { cluster: None, servers, leaving })
    }

    /// The task of a connection.
    pub(crate) fn run<S, B>(
        self: Arc<Self>,
        conn: Conn,
        placement: Option<Placement>,
        app: S,
    ) -> impl Future<Output = ()> + Send + use<S, B>
    where
        S: App<B>,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        // Boxed, what HTTP needs goes when the connection has become something else.
        let http = Box::pin(self.http(conn, placement, app));
        async move {
            if let Some(life) = http.await {
                life.await;
            }
        }
    }

    /// What it becomes, if it does.
    pub(crate) fn http<S, B>(
        self: Arc<Self>,
        conn: Conn,
        placement: Option<Placement>,
        mut app: S,
    ) -> impl Future<Output = Option<Life>> + Send
    where
        S: App<B>,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let (origin, peer) = (conn.origin(), conn.peer_addr());
        let placement = placement.map(|placement| Mutex::new(Some(placement)));
        let requests = Requests { serving: self, origin, peer, placement };
        let patience = (origin != Origin::Leg).then_some(HEAD_TIMEOUT);
        let mut quick = Quick::new(conn, patience);
        // What is moved into it is not there twice, as arguments of an `async fn` would be.
        async move {
            let glance = &requests.serving.leaving;
            // Unconstrained, it is registered by its first poll, whatever the task has done before.
            let told = pin!(unconstrained(async { drop(glance.clone().wait_for(|leaving| *leaving).await) }));
            let mut leaving = Leaving::new(glance, told);
            // In a scope of its own, what it leaves takes no room while hyper has the connection.
            {
                let next = match requests.serving.servers.is_empty() {
                    true => Next::Hyper,
                    false => quick.serve(&requests, &mut app, &mut leaving).await,
                };
                match next {
                    Next::Over => return None,
                    Next::Switched { take_over, head } => {
                        let mut connection = quick.into_conn().into_recovered();
                        connection.unwritten = head;
                        return take_over.begin(connection);
                    }
                    Next::Hyper => {}
                }
            }
            // One that has been polled may hold what it was promised (a permit, say) for as long as it lives.
            let unpolled = app.clone();
            drop(app);
            let patience = quick.patience();
            Box::pin(by_hyper(quick.into_conn(), &requests, unpolled, &mut leaving, patience)).await;
            None
        }
    }
}

/// HTTP/1 with upgrades, and all else there is in it.
async fn by_hyper<S, B>(
    mut conn: Conn,
    requests: &Requests,
    app: S,
    leaving: &mut Leaving<'_>,
    patience: Option<Duration>,
) where
    S: App<B>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let origin = requests.origin;
    let head = conn.hold_head();
    if patience.is_some() {
        conn.limit_stalls(STALL_TIMEOUT);
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let mut app = app.clone();
        let mut request = request.map(RequestBody::from);
        let placement = requests.prepare(&mut request);
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(head.clone());
        }
        async move {
            poll_fn(|cx| app.poll_ready(cx)).await?;
            let mut response = app.call(request).await;
            drop(placement);
            // The front door sees no later request of a socket it has handed over, so there must be none. hyper's own
            // switch for it would say so on a 101 as well, and there are clients (aiohttp) that take "Upgrade, close"
            // for no upgrade.
            if origin == Origin::HandedOff
                && let Ok(response) = &mut response
                && response.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    });
    let mut server = http1::Builder::new();
    server.timer(HeadTimer::default()).header_read_timeout(patience).max_buf_size(HEAD_LIMIT);
    if origin == Origin::Leg {
        server.max_headers(LEG_HEADERS);
    }
    let mut http = pin!(server.serve_connection(TokioIo::new(conn), service).with_upgrades());
    let result = match unless_told(http.as_mut(), leaving).await {
        Some(result) => result,
        None => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, ?origin, "a connection ended early");
    }
}

/// Drives `work` to its end, or until the server leaves: `None`.
async fn unless_told<T>(mut work: Pin<&mut impl Future<Output = T>>, leaving: &mut Leaving<'_>) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        leaving.poll(cx).map(|()| None)
    })
    .await
}

/// Says when the server leaves. To wait for that takes a lock that all connections share, so it is done once and not each
/// time the connection is driven.
pub(crate) struct Leaving<'a> {
    glance: &'a watch::Receiver<bool>,
    told: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
    waits: Option<Waker>,
}

impl<'a> Leaving<'a> {
    /// `told` completes when `glance` turns true.
    pub(crate) fn new(
        glance: &'a watch::Receiver<bool>,
        told: Pin<&'a mut (dyn Future<Output = ()> + Send)>,
    ) -> Leaving<'a> {
        Leaving { glance, told, waits: None }
    }

    /// Says whether it does so already.
    pub(crate) fn has_begun(&self) -> impl Fn() -> bool + use<'a> {
        let glance = self.glance;
        move || !matches!(glance.has_changed(), Ok(false))
    }

    /// Completes when it does.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return if self.has_begun()() { Poll::Ready(()) } else { Poll::Pending };
        }
        self.waits = Some(cx.waker().clone());
        self.told.as_mut().poll(cx)
    }
}

/// What the requests of one connection have in common.
pub(crate) struct Requests {
    serving: Arc<Serving>,
    origin: Origin,
    peer: Option<SocketAddr>,
    /// Of a handed-over connection: there until its one request takes it.
    placement: Option<Mutex<Option<Placement>>>,
}

impl Requests {
    #[cfg(test)]
    pub(crate) fn of_test(origin: Origin, serving: Arc<Serving>) -> Requests {
        Requests { serving, origin, peer: None, placement: None }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether a request for this path is a session server's.
    pub(crate) fn is_for_sessions(&self, path: &str) -> bool {
        self.serving.servers.iter().any(|server| server.is_for(path))
    }

    /// Sets the client's address. What is returned counts the session the request opens once it is dropped.
    pub(crate) fn prepare<B>(&self, request: &mut Request<B>) -> Option<Placement> {
        let (peer, placement) = if self.origin == Origin::Leg {
            let marks = address::take_marks(request.headers_mut());
            let cluster = self.serving.cluster.as_ref().filter(|_| marks.place);
            (marks.peer, cluster.map(|cluster| Placement::new(cluster.clone())))
        } else {
            // Only the front door may say it.
            request.headers_mut().remove(PEER_HEADER);
            (self.peer, self.placement.as_ref().and_then(|placement| placement.lock().take()))
        };
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(PeerAddr(peer));
        }
        placement
    }
}
