//! The control API from the command line's side: one connection per call, no state.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sundew_nodes::NodesInfo;
use tokio::net::UnixStream;

use crate::Home;
use crate::api::{
    Description, Event, Failure, LogLine, LogsRequest, Pong, ProcessInfo, ScaleRequest, StartRequest, Target,
    TargetRequest,
};

/// The longest answer or line of an answer that is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No daemon listens.
    #[error("no daemon is running in {home}: `sundew start` starts one")]
    NoDaemon {
        /// The home that was looked in.
        home: PathBuf,
    },
    /// The daemon said no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The daemon went away in the middle.
    #[error("the daemon went away before it had answered: see sundew.log in its folder")]
    Lost,
    /// The socket cannot be used.
    #[error("cannot talk to the daemon over {socket}: {source}")]
    Io {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The answer could not be read: most likely the daemon is of another version.
    #[error(
        "cannot understand the daemon's answer ({reason}): is it of another version? `sundew kill` ends it"
    )]
    Answer {
        /// What was wrong with it.
        reason: String,
    },
}

/// A way to the daemon of a home.
#[derive(Debug, Clone)]
pub struct Client {
    home: Home,
}

impl Client {
    /// Nothing is opened yet.
    pub fn new(home: Home) -> Self {
        Self { home }
    }

    /// Whether there is a daemon, and which.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`] if there is none.
    pub async fn ping(&self) -> Result<Pong, ClientError> {
        self.get("/v1/ping").await
    }

    /// All processes, by id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(&self) -> Result<Vec<ProcessInfo>, ClientError> {
        self.get("/v1/processes").await
    }

    /// The other hosts; none if the daemon is in no cluster of several.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn nodes(&self) -> Result<Option<NodesInfo>, ClientError> {
        self.get("/v1/nodes").await
    }

    /// Everything about some processes.
    ///
    /// # Errors
    /// See [`ClientError`]; a target that is nothing's name is a [`Failure`].
    pub async fn describe(&self, target: &Target) -> Result<Vec<Description>, ClientError> {
        let response = self.call("POST", "/v1/describe", Some(target)).await?;
        self.document(response).await
    }

    /// Starts apps.
    ///
    /// # Errors
    /// Of the connection only: the operation's own failure is its last event.
    pub async fn start(&self, request: &StartRequest) -> Result<Operation, ClientError> {
        self.operate("/v1/start", request).await
    }

    /// Stops processes and keeps their entries.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub async fn stop(&self, target: Target) -> Result<Operation, ClientError> {
        self.operate("/v1/stop", &TargetRequest { target, wait: false }).await
    }

    /// Stops processes and starts them again: sessions are lost.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub async fn restart(&self, target: Target) -> Result<Operation, ClientError> {
        self.operate("/v1/restart", &TargetRequest { target, wait: false }).await
    }

    /// Replaces workers without a gap. Ends when the new ones serve; with `wait` when the old ones are gone.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub async fn reload(&self, target: Target, wait: bool) -> Result<Operation, ClientError> {
        self.operate("/v1/reload", &TargetRequest { target, wait }).await
    }

    /// Changes the number of instances of an app.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub async fn scale(&self, request: &ScaleRequest) -> Result<Operation, ClientError> {
        self.operate("/v1/scale", request).await
    }

    /// Stops processes and removes their entries.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub async fn delete(&self, target: Target) -> Result<Operation, ClientError> {
        self.operate("/v1/delete", &TargetRequest { target, wait: false }).await
    }

    /// Stops everything and the daemon.
    ///
    /// # Errors
    /// As [`Client::start`]; [`ClientError::NoDaemon`] if there is none to kill.
    pub async fn kill(&self) -> Result<Operation, ClientError> {
        self.operate("/v1/kill", &()).await
    }

    /// Log lines: stored ones, then new ones as they come if asked for.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn logs(&self, request: &LogsRequest) -> Result<LogStream, ClientError> {
        let response = self.call("POST", "/v1/logs", Some(request)).await?;
        Ok(LogStream { lines: Lines::new(response.into_body()) })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.call::<()>("GET", path, None).await?;
        self.document(response).await
    }

    async fn document<T: DeserializeOwned>(
        &self,
        response: http::Response<Incoming>,
    ) -> Result<T, ClientError> {
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|_| ClientError::Lost)?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| ClientError::Answer { reason: error.to_string() })
    }

    async fn operate<T: Serialize>(&self, path: &str, request: &T) -> Result<Operation, ClientError> {
        let response = self.call("POST", path, Some(request)).await?;
        Ok(Operation { lines: Lines::new(response.into_body()) })
    }

    /// Sends a request. An answer other than 200 carries a [`Failure`].
    async fn call<T: Serialize>(
        &self,
        method: &str,
        path: &str,
        body: Option<&T>,
    ) -> Result<http::Response<Incoming>, ClientError> {
        let socket = self.home.socket();
        let stream = UnixStream::connect(&socket).await.map_err(|source| match source.kind() {
            // Refused: the file outlived the daemon that made it.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon { home: self.home.path().to_owned() }
            }
            _ => ClientError::Io { socket, source },
        })?;
        let body = match body {
            Some(body) => {
                serde_json::to_vec(body).map_err(|error| ClientError::Answer { reason: error.to_string() })?
            }
            None => Vec::new(),
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "sundew")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Answer { reason: error.to_string() })?;
        let lost = |_: hyper::Error| ClientError::Lost;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(lost)?;
        if response.status() == http::StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let failure: Result<Failure, _> = self.document(response).await;
        Err(match failure {
            Ok(failure) => failure.into(),
            Err(_) => ClientError::Answer { reason: format!("status {status} for {path}") },
        })
    }
}

/// An operation under way. Dropping it does not undo or stop anything.
#[derive(Debug)]
pub struct Operation {
    lines: Lines,
}

impl Operation {
    /// The next step. `None` after the last one.
    ///
    /// # Errors
    /// See [`ClientError`]. [`Event::Failed`] is no error here.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        self.lines.next().await
    }

    /// Runs to the end, showing each step on the way, and gives the processes it was about.
    ///
    /// # Errors
    /// [`ClientError::Failed`] if the operation failed, [`ClientError::Lost`] if it ended without saying how.
    pub async fn finish(mut self, mut step: impl FnMut(&Event)) -> Result<Vec<ProcessInfo>, ClientError> {
        while let Some(event) = self.next().await? {
            step(&event);
            match event {
                Event::Done { processes } => return Ok(processes),
                Event::Failed(failure) => return Err(failure.into()),
                _ => {}
            }
        }
        Err(ClientError::Lost)
    }
}

/// Log lines.
#[derive(Debug)]
pub struct LogStream {
    lines: Lines,
}

impl LogStream {
    /// The next line. `None` when there are no more: all stored ones were read, or the daemon left.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<LogLine>, ClientError> {
        self.lines.next().await
    }
}

/// A body of JSON documents. Each stands on a line, as it is or as the `data:` of a server-sent event.
#[derive(Debug)]
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    seen: usize,
}

impl Lines {
    fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), seen: 0 }
    }

    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer[self.seen..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.seen + end);
                self.buffer.advance(1);
                self.seen = 0;
                let line = line.strip_prefix(b"data:").unwrap_or(&line).trim_ascii();
                // A comment keeps a silent stream alive, an empty line ends an event.
                if line.is_empty() || line[0] == b':' {
                    continue;
                }
                return serde_json::from_slice(line)
                    .map(Some)
                    .map_err(|error| ClientError::Answer { reason: error.to_string() });
            }
            self.seen = self.buffer.len();
            if self.seen > ANSWER_LIMIT {
                return Err(ClientError::Answer { reason: "a line without end".to_owned() });
            }
            match Pin::new(&mut self.body).frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Err(ClientError::Lost),
                None => return Ok(None),
            }
        }
    }
}
