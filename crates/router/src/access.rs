//! The access log: one entry per request that ended, or was handed over. Nothing of it exists while it is off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::backend::BackendId;
use crate::http::request::Head;
use crate::request_id::RequestId;

/// Entries that may wait to be written. More are dropped, and counted.
const WAITING: usize = 4096;

/// A request that ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Access {
    /// When it came.
    pub time: SystemTime,
    /// Whose it was. None: it came through a unix socket.
    pub client: Option<SocketAddr>,
    /// It came by TLS.
    pub secure: bool,
    /// Its id, where requests have one and the program knows it.
    pub id: Option<Box<str>>,
    /// Its method.
    pub method: Box<str>,
    /// What it asked for, without the ids of sessions: who knows one has the session.
    pub target: Box<str>,
    /// The host it named.
    pub host: Box<str>,
    /// The status of its answer; 0 if it got none.
    pub status: u16,
    /// Bytes of the answer, its head included.
    pub bytes: u64,
    /// From its head to the end of its answer.
    pub took: Duration,
    /// The worker that had it.
    pub worker: Option<BackendId>,
    /// The worker has the connection, and will answer itself.
    pub handed_over: bool,
}

/// Where entries go.
#[derive(Debug, Clone)]
pub struct AccessLog {
    entries: mpsc::Sender<Access>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// A log, what comes out of it, and how many entries were dropped so far.
    pub fn new() -> (Self, mpsc::Receiver<Access>, Arc<AtomicU64>) {
        let (entries, out) = mpsc::channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { entries, dropped: dropped.clone() }, out, dropped)
    }
}

/// The entry of a request under way.
pub(crate) struct Line {
    log: AccessLog,
    began: Instant,
    entry: Access,
    status: AtomicU16,
    bytes: AtomicU64,
}

impl Line {
    pub(crate) fn new(
        log: &AccessLog,
        head: &Head<'_, '_>,
        client: Option<SocketAddr>,
        secure: bool,
        id: Option<&RequestId>,
    ) -> Self {
        let entry = Access {
            time: SystemTime::now(),
            client: client.map(|client| SocketAddr::new(client.ip().to_canonical(), client.port())),
            secure,
            id: id.map(|id| id.text.clone()),
            method: head.method.into(),
            target: without_sids(head.target).into(),
            host: String::from_utf8_lossy(head.host().unwrap_or_default()).into(),
            status: 0,
            bytes: 0,
            took: Duration::ZERO,
            worker: None,
            handed_over: false,
        };
        let (status, bytes) = (AtomicU16::new(0), AtomicU64::new(0));
        Self { log: log.clone(), began: Instant::now(), entry, status, bytes }
    }

    /// So much went out to the client.
    pub(crate) fn wrote(&self, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // An interim answer is followed by another one.
        if self.status.load(Ordering::Relaxed) < 101
            && let Some(b"HTTP/1.1 ") = bytes.get(..9)
            && let Some(status) = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok())
        {
            self.status.store(status.parse().unwrap_or(0), Ordering::Relaxed);
        }
    }

    pub(crate) fn at(&mut self, worker: BackendId) {
        self.entry.worker = Some(worker);
    }

    /// The program does not know it.
    pub(crate) fn forget_id(&mut self) {
        self.entry.id = None;
    }

    /// It is over.
    pub(crate) fn end(self, handed_over: bool) {
        let status = if handed_over { 101 } else { self.status.into_inner() };
        let (bytes, took) = (self.bytes.into_inner(), self.began.elapsed());
        let entry = Access { status, bytes, took, handed_over, ..self.entry };
        if self.log.entries.try_send(entry).is_err() {
            self.log.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A target whose session ids are not told. Names that hide one behind escapes are not told either.
fn without_sids(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let mask = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.eq_ignore_ascii_case("sid") || name.contains('%') => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let pairs: Vec<String> = query.split('&').map(mask).collect();
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_are_not_told() {
        for (target, told) in [
            ("/socket.io/?EIO=4&sid=abc&t=1", "/socket.io/?EIO=4&sid=***&t=1"),
            ("/?s%69d=abc&x", "/?s%69d=***&x"),
            ("/sid=abc", "/sid=abc"),
            ("/?sid", "/?sid"),
        ] {
            assert_eq!(without_sids(target), told);
        }
    }
}
