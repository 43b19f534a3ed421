//! The serve loop: HTTP/1 with upgrades on every connection, the client's address on every request, a graceful end.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use axum::extract::ConnectInfo;
use futures_util::future::join;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming as RequestBody;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sundew_io::{Conn, HoldHead, Origin, PeerAddr};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_service::Service;

use crate::address::{self, PEER_HEADER};
use crate::cluster::{Cluster, Phase};
use crate::placement::Placement;
use crate::signals::Signals;
use crate::timer::HeadTimer;
use crate::{Listener, sessions};

/// How long a client may take to send a head, and how long an idle connection is kept. The front door has its own
/// limits, so a leg has none.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head, and the read buffer of a connection. The front door allows less.
const HEAD_LIMIT: usize = 64 * 1024;
/// How long requests in flight may take to end once the server leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long clients may take to hear that their session is closed. One that does not poll at the moment, or is gone without
/// a word, never hears it; and pm2's default `kill_timeout`, 1.6 s, has to be enough.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The most headers of a request on a leg: what the front door allows, and room for those it adds. Elsewhere it is hyper's own
/// limit, 100: with any other it asks for memory twice per request.
const LEG_HEADERS: usize = 128;

type BoxError = Box<dyn Error + Send + Sync>;

/// Serves `app` (an `axum::Router`, or any tower service) until this process is told to end.
///
/// Each request carries the client's own address, as axum's `ConnectInfo<SocketAddr>` and as [`PeerAddr`], on every
/// transport: also when it came through the supervisor's proxy.
///
/// Alone, SIGINT and SIGTERM end it. Under the supervisor they do too, and so does the supervisor; when the supervisor
/// is gone, sessions are kept for the drain timeout first. To end means: accept nothing more, close all sessions so
/// that their clients come back elsewhere, let requests in flight finish, for 5 seconds at most. Alone, a second signal
/// ends it at once.
///
/// # Errors
/// When signals cannot be caught. An error of one connection ends that connection.
pub async fn serve<S, B>(mut listener: Listener, app: S) -> io::Result<()>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let mut signals = Signals::catch()?;
    let cluster = listener.cluster().cloned();
    tracing::debug!(addr = %listener.local_addr(), ?cluster, "serving");
    let leaving = watch::Sender::new(false);
    let mut accepting = JoinSet::new();
    accepting.spawn({
        let (cluster, leaving) = (cluster.clone(), leaving.clone());
        // A task, so that connections begin on the thread that accepts them, and not through the queue of all threads.
        async move {
            loop {
                let (conn, placement) = listener.next().await;
                let connection = Connection { cluster: cluster.clone(), leaving: leaving.subscribe() };
                tokio::spawn(connection.run(conn, placement, app.clone()));
            }
        }
    });
    tokio::select! {
        biased;
        () = end(cluster.as_ref(), &mut signals) => {}
        Some(Err(error)) = accepting.join_next() => if let Ok(panic) = error.try_into_panic() {
            std::panic::resume_unwind(panic);
        }
    }
    // Connections nobody took go back: to the system's next listener, or to the supervisor.
    accepting.shutdown().await;
    leaving.send_replace(true);
    let closed = async {
        if timeout(CLOSE_TIMEOUT, sessions::close()).await.is_err() {
            tracing::debug!(after = ?CLOSE_TIMEOUT, "some clients did not hear that their session is closed");
        }
    };
    let finished = async {
        if timeout(LEAVE_TIMEOUT, leaving.closed()).await.is_err() {
            tracing::warn!(after = ?LEAVE_TIMEOUT, "some requests did not end in time");
        }
    };
    tokio::select! {
        _ = join(closed, finished) => {}
        // A supervisor may say it twice, and has SIGKILL for the impatient.
        signal = signals.recv(), if cluster.is_none() => tracing::warn!("ended at once: {signal} again"),
    }
    Ok(())
}

/// Completes when the server has to end.
async fn end(cluster: Option<&Cluster>, signals: &mut Signals) {
    let told = async {
        match cluster {
            // An error means the cluster is gone, which its own end has announced.
            Some(cluster) => drop(cluster.phase().wait_for(|phase| *phase == Phase::Leaving).await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        signal = signals.recv() => {
            tracing::info!("ending: {signal}");
            if let Some(cluster) = cluster {
                cluster.enter(Phase::Leaving);
            }
        }
        () = told => tracing::info!("ending: no longer needed"),
    }
}

/// What one connection's task needs.
struct Connection {
    cluster: Option<Cluster>,
    /// True once the server leaves. The server also waits until all of these are gone.
    leaving: watch::Receiver<bool>,
}

impl Connection {
    async fn run<S, B>(mut self, mut conn: Conn, placement: Option<Placement>, app: S)
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let origin = conn.origin();
        let requests = Arc::new(Requests {
            cluster: self.cluster.take(),
            origin,
            peer: conn.peer_addr(),
            head: conn.hold_head(),
            placement: Mutex::new(placement),
        });
        let service = service_fn(move |mut request: Request<RequestBody>| {
            let mut app = app.clone();
            let placement = requests.prepare(&mut request);
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
        server
            .timer(HeadTimer::default())
            .header_read_timeout((origin != Origin::Leg).then_some(HEAD_TIMEOUT))
            .max_buf_size(HEAD_LIMIT);
        if origin == Origin::Leg {
            server.max_headers(LEG_HEADERS);
        }
        let mut http = pin!(server.serve_connection(TokioIo::new(conn), service).with_upgrades());
        let result = match unless_told(http.as_mut(), &mut self.leaving).await {
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
}

/// Drives `work` to its end, or until the server leaves: `None`. To wait for that takes a lock that all connections share,
/// so it is done once and not each time the connection is driven.
async fn unless_told<T>(
    mut work: Pin<&mut impl Future<Output = T>>,
    leaving: &mut watch::Receiver<bool>,
) -> Option<T> {
    let glance = leaving.clone();
    let mut told = pin!(leaving.wait_for(|leaving| *leaving));
    let mut waits: Option<Waker> = None;
    poll_fn(|cx| {
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        if waits.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return match glance.has_changed() {
                Ok(false) => Poll::Pending,
                Ok(true) | Err(_) => Poll::Ready(None),
            };
        }
        waits = Some(cx.waker().clone());
        told.as_mut().poll(cx).map(|_| None)
    })
    .await
}

/// What the requests of one connection have in common.
struct Requests {
    cluster: Option<Cluster>,
    origin: Origin,
    peer: Option<SocketAddr>,
    head: HoldHead,
    /// Of a handed-over connection, until its one request takes it.
    placement: Mutex<Option<Placement>>,
}

impl Requests {
    /// Sets the client's address. What is returned counts the session the request opens once it is dropped.
    fn prepare<B>(&self, request: &mut Request<B>) -> Option<Placement> {
        let (peer, placement) = if self.origin == Origin::Leg {
            let marks = address::take_marks(request.headers_mut());
            let cluster = self.cluster.as_ref().filter(|_| marks.place);
            (marks.peer, cluster.map(|cluster| Placement::new(cluster.clone())))
        } else {
            // Only the front door may say it.
            request.headers_mut().remove(PEER_HEADER);
            (self.peer, self.placement.lock().take())
        };
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(PeerAddr(peer));
        }
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(self.head.clone());
        }
        placement
    }
}
