//! Live log lines, to whoever listens. A listener that is too slow loses lines and is told how many; nobody waits for it.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use crate::api::{LogLine, Stream};

/// Lines that a slow listener may be behind. With `LINE_LIMIT` this bounds the memory.
const BEHIND: usize = 256;

/// Where live lines go.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    lines: broadcast::Sender<Arc<LogLine>>,
}

/// What a listener gets.
pub(crate) enum Received {
    Line(Arc<LogLine>),
    /// So many lines came faster than they were taken.
    Missed(u64),
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { lines: broadcast::Sender::new(BEHIND) }
    }

    /// Whether anybody listens: ask before making a line.
    pub(crate) fn wanted(&self) -> bool {
        self.lines.receiver_count() > 0
    }

    pub(crate) fn publish(&self, line: LogLine) {
        // An error means nobody listens any more.
        let _ = self.lines.send(Arc::new(line));
    }

    /// Says something about the logs of a process to those who follow them.
    pub(crate) fn notice(&self, name: &str, pm_id: u32, text: String) {
        if self.wanted() {
            self.publish(LogLine { name: name.to_owned(), pm_id: Some(pm_id), stream: Stream::Notice, text });
        }
    }

    pub(crate) fn follow(&self) -> Follower {
        Follower { lines: self.lines.subscribe() }
    }
}

/// A listener.
pub(crate) struct Follower {
    lines: broadcast::Receiver<Arc<LogLine>>,
}

impl Follower {
    /// `None` when there will be no more lines.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        match self.lines.recv().await {
            Ok(line) => Some(Received::Line(line)),
            Err(RecvError::Lagged(missed)) => Some(Received::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}
