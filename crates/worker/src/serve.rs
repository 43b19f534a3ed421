//! The serve loop: a task for every connection, and a graceful end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use futures_util::future::join;
use http::{Request, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_service::Service;

use crate::body::RequestBody;
use crate::cluster::{Cluster, Phase};
use crate::connection::Serving;
use crate::signals::Signals;
use crate::{Listener, sessions};

/// How long requests in flight may take to end once the server leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long clients may take to hear that their session is closed. One that does not poll at the moment, or is gone without
/// a word, never hears it; and pm2's default `kill_timeout`, 1.6 s, has to be enough.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `app` (an `axum::Router`, or any tower service) until this process is told to end.
///
/// Each request carries the client's own address, as axum's `ConnectInfo<SocketAddr>` and as
/// [`PeerAddr`](sundew_io::PeerAddr), on every
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
    S: Service<Request<RequestBody>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut signals = Signals::catch()?;
    let cluster = listener.cluster().cloned();
    tracing::debug!(addr = %listener.local_addr(), ?cluster, "serving");
    let leaving = watch::Sender::new(false);
    let mut accepting = JoinSet::new();
    accepting.spawn({
        let (cluster, leaving) = (cluster.clone(), leaving.subscribe());
        let serving = Arc::new(Serving { cluster, servers: sessions::servers(), leaving });
        // A task, so that connections begin on the thread that accepts them, and not through the queue of all threads.
        async move {
            loop {
                let (conn, placement) = listener.next().await;
                tokio::spawn(serving.clone().run(conn, placement, app.clone()));
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
        sessions::finish().await;
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
