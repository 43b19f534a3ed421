//! The control API's server side: HTTP on a unix socket, translated into operations. Decides nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use crate::api::{
    API_VERSION, Event, Failure, FailureKind, LogLine, LogsRequest, MAX_TAIL_LINES, Pong, ProcessInfo,
    Stream, Target, TargetRequest,
};
use crate::logs::{self, Received};
use crate::ops::{EVENTS, Operations, Watcher};

/// The longest request, in bytes: an app's configuration with its environment, many times over.
const REQUEST_LIMIT: usize = 16 * 1024 * 1024;
/// Log lines ready to be sent to one reader.
const LINES: usize = 64;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) operations: Operations,
    /// Set once everything was ended on request.
    pub(crate) quit: Arc<watch::Sender<bool>>,
    pub(crate) started: Instant,
}

/// Serves until the listener is dropped with the runtime.
pub(crate) async fn serve(listener: UnixListener, control: Control) {
    let router = Router::new()
        .route("/v1/ping", get(ping))
        .route("/v1/processes", get(processes))
        .route("/v1/describe", post(describe))
        .route("/v1/start", post(start))
        .route("/v1/stop", post(stop))
        .route("/v1/restart", post(restart))
        .route("/v1/reload", post(reload))
        .route("/v1/scale", post(scale))
        .route("/v1/delete", post(delete))
        .route("/v1/nodes", get(nodes))
        .route("/v1/kill", post(kill))
        .route("/v1/logs", post(follow))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(REQUEST_LIMIT))
        .with_state(control);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the control API ended");
    }
}

async fn ping(State(control): State<Control>) -> Response {
    json(&Pong {
        api: API_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_ms: u64::try_from(control.started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

async fn processes(State(control): State<Control>) -> Response {
    answer(control.operations.dispatcher.run(|state| state.list()).await)
}

/// Null: the daemon is in no cluster.
async fn nodes(State(control): State<Control>) -> Response {
    let nodes = control.operations.dispatcher.run(|state| state.nodes.clone()).await;
    answer(nodes.map(|nodes| nodes.map(|nodes| nodes.info())))
}

async fn describe(State(control): State<Control>, body: Bytes) -> Response {
    let target: Target = match read(&body) {
        Ok(target) => target,
        Err(failure) => return refuse(&failure),
    };
    let described = control.operations.dispatcher.run(move |state| state.describe(&target)).await;
    answer(described.and_then(|described| described))
}

async fn start(State(control): State<Control>, body: Bytes) -> Response {
    operate(&body, move |request, watcher| async move { control.operations.start(request, &watcher).await })
}

async fn stop(State(control): State<Control>, body: Bytes) -> Response {
    operate(&body, move |request: TargetRequest, watcher| async move {
        control.operations.stop(request.target, &watcher).await
    })
}

async fn restart(State(control): State<Control>, body: Bytes) -> Response {
    operate(&body, move |request: TargetRequest, watcher| async move {
        control.operations.restart(request.target, &watcher).await
    })
}

async fn reload(State(control): State<Control>, body: Bytes) -> Response {
    operate(&body, move |request: TargetRequest, watcher| async move {
        control.operations.reload(request.target, request.wait, &watcher).await
    })
}

async fn scale(State(control): State<Control>, body: Bytes) -> Response {
    operate(&body, move |request, watcher| async move { control.operations.scale(request, &watcher).await })
}

async fn delete(State(control): State<Control>, body: Bytes) -> Response {
    operate(&body, move |request: TargetRequest, watcher| async move {
        control.operations.delete(request.target, &watcher).await
    })
}

async fn kill(State(control): State<Control>) -> Response {
    operate(b"null", move |(), watcher| async move {
        control.operations.end(false, &watcher).await?;
        control.quit.send_replace(true);
        Ok(Vec::new())
    })
}

async fn unknown(request: axum::extract::Request) -> Response {
    let what = format!("{} {} is not in this daemon's API", request.method(), request.uri().path());
    refuse(&Failure::new(FailureKind::Invalid, what))
}

/// Runs an operation to its end whether or not the client stays, and streams its steps.
fn operate<T, F, Fut>(body: &[u8], operation: F) -> Response
where
    T: DeserializeOwned + Send + 'static,
    F: FnOnce(T, Watcher) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Vec<ProcessInfo>, Failure>> + Send,
{
    let request = match read(body) {
        Ok(request) => request,
        Err(failure) => return refuse(&failure),
    };
    let (events, mut steps) = mpsc::channel(EVENTS);
    tokio::spawn(async move {
        let last = match operation(request, Watcher::new(events.clone())).await {
            Ok(processes) => Event::Done { processes },
            Err(failure) => Event::Failed(failure),
        };
        let _ = events.send(last).await;
    });
    let lines = stream::poll_fn(move |cx| steps.poll_recv(cx).map(|event| event.map(|event| line(&event))));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn line<T: Serialize>(value: &T) -> Result<Bytes, Infallible> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    Ok(line.into())
}

async fn follow(State(control): State<Control>, body: Bytes) -> Response {
    let request: LogsRequest = match read(&body) {
        Ok(request) => request,
        Err(failure) => return refuse(&failure),
    };
    let target = request.target.clone();
    let found = control.operations.dispatcher.run(move |state| {
        let places = state.resolve(&target)?;
        // From here on, so that no line falls between what is stored and what comes.
        let follower = state.hub.follow();
        let files = places.iter().flat_map(|place| {
            let config = state
                .apps
                .get(&place.app)
                .and_then(|app| app.slots.get(&place.slot))
                .map(|slot| &slot.config);
            let files = config.map(|config| {
                [Stream::Out, Stream::Err].map(|stream| {
                    let pm_id = (!config.merge_logs).then_some(place.pm_id);
                    (state.log_file(config, place.pm_id, stream), place.app.clone(), pm_id, stream)
                })
            });
            files.into_iter().flatten()
        });
        let mut stored: Vec<Stored> = Vec::new();
        for (path, name, pm_id, stream) in files {
            let Some(path) = path else { continue };
            if !stored.iter().any(|file| file.path == path) {
                stored.push(Stored { path, name, pm_id, stream });
            }
        }
        Ok((places.iter().map(|place| place.pm_id).collect::<Vec<_>>(), stored, follower))
    });
    let (ids, stored, mut follower) = match found.await.and_then(|found| found) {
        Ok(found) => found,
        Err(failure) => return refuse(&failure),
    };
    let (lines, mut ready) = mpsc::channel::<LogLine>(LINES);
    let count = usize::try_from(request.lines.min(MAX_TAIL_LINES)).unwrap_or(0);
    tokio::spawn(async move {
        for file in stored.into_iter().filter(|_| count > 0) {
            let read = tokio::task::spawn_blocking(move || file.read(count)).await;
            for line in read.unwrap_or_default() {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
        }
        if !request.follow {
            return;
        }
        loop {
            let line = tokio::select! {
                line = follower.next() => line,
                () = lines.closed() => return,
            };
            let line = match line {
                Some(Received::Line(line)) if line.pm_id.is_none_or(|id| ids.contains(&id)) => {
                    LogLine::clone(&line)
                }
                Some(Received::Line(_)) => continue,
                Some(Received::Missed(count)) => LogLine {
                    name: "sundew".to_owned(),
                    pm_id: None,
                    stream: Stream::Notice,
                    text: format!("{count} lines were left out: they came faster than they were read"),
                },
                None => return,
            };
            if lines.send(line).await.is_err() {
                return;
            }
        }
    });
    let events = stream::poll_fn(move |cx| ready.poll_recv(cx).map(|line| line.map(|line| event(&line))));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

fn event(log: &LogLine) -> Result<Bytes, Infallible> {
    let mut text = b"data: ".to_vec();
    text.extend(serde_json::to_vec(log).unwrap_or_default());
    text.extend(b"\n\n");
    Ok(text.into())
}

/// A log file to read from.
struct Stored {
    path: std::path::PathBuf,
    name: String,
    pm_id: Option<u32>,
    stream: Stream,
}

impl Stored {
    fn read(self, count: usize) -> Vec<LogLine> {
        let line = |stream, text| LogLine { name: self.name.clone(), pm_id: self.pm_id, stream, text };
        match logs::last_lines(&self.path, count) {
            Ok(lines) => lines.into_iter().map(|text| line(self.stream, text)).collect(),
            Err(error) => vec![line(Stream::Notice, format!("cannot read {}: {error}", self.path.display()))],
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::new(
            FailureKind::Invalid,
            format!("cannot read the request: {error}. Is the command of another version?"),
        )
    })
}

fn json<T: Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => refuse(&Failure::new(FailureKind::Internal, error.to_string())),
    }
}

fn answer<T: Serialize>(result: Result<T, Failure>) -> Response {
    match result {
        Ok(value) => json(&value),
        Err(failure) => refuse(&failure),
    }
}

fn refuse(failure: &Failure) -> Response {
    let status = match failure.kind {
        FailureKind::NotFound => StatusCode::NOT_FOUND,
        FailureKind::Invalid => StatusCode::BAD_REQUEST,
        FailureKind::Present | FailureKind::Busy => StatusCode::CONFLICT,
        FailureKind::Leaving => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = serde_json::to_vec(failure).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
