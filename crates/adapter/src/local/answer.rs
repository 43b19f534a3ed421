//! Answers a request of another worker: what the server yields, as it comes, and then the end, good or bad.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use sundew_socketio::adapter::{Local, Request, Response, Responses, SocketInfo};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::link::{Link, Refused};
use super::wire::{self, WireError};

/// How many requests of other workers may be answered at the same time. More are refused.
pub(super) const SOON_LIMIT: usize = 4096;
/// The same for those that clients answer, or do not before the time is over: they keep nothing else from being answered.
const BY_CLIENTS_LIMIT: usize = 32_768;

/// About how long a frame of sockets may become, so that others are sent between them. One socket is never cut.
const PART: usize = 1 << 20;

/// Why not all answers were sent.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Server(#[from] sundew_socketio::adapter::AdapterError),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("its answer waited for {0:?} to be read")]
    Unread(Duration),
    #[error("the link has ended")]
    Closed,
}

/// The requests of other workers that are being answered.
#[derive(Debug)]
pub(super) struct Answering {
    soon: Arc<Semaphore>,
    by_clients: Arc<Semaphore>,
    refused: AtomicU64,
    /// By link and the request's number there.
    tasks: Mutex<HashMap<(u64, u64), AbortHandle>>,
}

impl Default for Answering {
    fn default() -> Answering {
        Answering {
            soon: Arc::new(Semaphore::new(SOON_LIMIT)),
            by_clients: Arc::new(Semaphore::new(BY_CLIENTS_LIMIT)),
            refused: AtomicU64::new(0),
            tasks: Mutex::default(),
        }
    }
}

impl Answering {
    /// Begins in place, so that requests begin in their order among the operations.
    pub(super) fn answer(
        self: &Arc<Self>,
        link: &Arc<Link>,
        id: u64,
        local: &Local,
        nsp: &str,
        request: Request,
        timeout: Duration,
    ) {
        let mut last = LastWord { link: link.clone(), id, said: false };
        let permits = match request {
            Request::BroadcastWithAck { .. } => &self.by_clients,
            _ => &self.soon,
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_power_of_two() {
                tracing::warn!(peer = %link.peer, count, "too many requests of other workers at once: one is refused");
            }
            return last.failed("it answers too many requests at once already");
        };
        let answers = local.answer(nsp, request, timeout);
        let answering = self.clone();
        // Held over the start: the end must find the entry.
        let mut tasks = self.tasks.lock();
        let task = tokio::spawn(async move {
            let entry = Entry { answering, key: (last.link.id, id) };
            last.after(answers, timeout).await;
            drop((entry, permit));
        });
        tasks.insert((link.id, id), task.abort_handle());
    }

    /// The other end of `link` does not wait for this answer any more.
    pub(super) fn cancel(&self, id: u64, link: u64) {
        let task = self.tasks.lock().remove(&(link, id));
        if let Some(task) = task {
            task.abort();
        }
    }

    /// The worker at the other end of `link` is gone: it waits for nothing.
    pub(super) fn gone(&self, link: u64) {
        let gone: Vec<_> = self.tasks.lock().extract_if(|(of, _), _| *of == link).collect();
        gone.iter().for_each(|(_, task)| task.abort());
    }
}

/// A task's place in the table.
struct Entry {
    answering: Arc<Answering>,
    key: (u64, u64),
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.answering.tasks.lock().remove(&self.key);
    }
}

/// What the asking side waits for: said in any case, also when the answer panics.
struct LastWord {
    link: Arc<Link>,
    id: u64,
    said: bool,
}

impl LastWord {
    /// Sends all `answers` first, within the time the asking side gives them.
    async fn after(mut self, answers: Responses, timeout: Duration) {
        match send_all(&self.link, self.id, answers, timeout).await {
            Ok(()) => {
                self.said = true;
                done(&self.link, self.id);
            }
            Err(Failure::Closed) => self.said = true,
            Err(error) => {
                tracing::warn!(peer = %self.link.peer, %error, "an answer could not be sent");
                self.failed(&error.to_string());
            }
        }
    }

    fn failed(&mut self, why: &str) {
        self.said = true;
        // When not even a note is taken the asking side names this worker in its timeout.
        if let Ok(frame) = wire::failed(self.id, why) {
            let _ = self.link.note(frame);
        }
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if !self.said {
            self.failed("it dropped its answer");
        }
    }
}

async fn send_all(link: &Link, id: u64, mut answers: Responses, timeout: Duration) -> Result<(), Failure> {
    let mut limit = pin!(tokio::time::sleep(timeout));
    while let Some(answer) = answers.next().await {
        for frame in frames(id, answer?) {
            let frame = frame?;
            let sent = tokio::select! {
                biased;
                sent = link.send_in_turn(frame.clone()) => sent,
                // Counted as dropped, if there is still no room.
                () = &mut limit => link.send(frame),
            };
            match sent {
                Ok(()) => {}
                Err(Refused::Full) => return Err(Failure::Unread(timeout)),
                Err(Refused::Closed) => return Err(Failure::Closed),
            }
        }
    }
    Ok(())
}

/// One answer's frames: several for sockets that would not go into one.
fn frames(id: u64, response: Response) -> impl Iterator<Item = Result<Bytes, WireError>> {
    let parts: Box<dyn Iterator<Item = Response> + Send> = match response {
        Response::Sockets(sockets) if !sockets.is_empty() => Box::new(parts(sockets).map(Response::Sockets)),
        response => Box::new(std::iter::once(response)),
    };
    parts.map(move |part| wire::answer(id, part))
}

fn parts(sockets: Vec<SocketInfo>) -> impl Iterator<Item = Vec<SocketInfo>> {
    let mut rest = sockets.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut part = vec![rest.next()?];
        let mut length = part.iter().map(written).sum::<usize>();
        while let Some(socket) = rest.next_if(|next| {
            length += written(next);
            length <= PART
        }) {
            part.push(socket);
        }
        Some(part)
    })
}

/// How long a socket is in a frame.
fn written(socket: &SocketInfo) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written fails when its frame is made.
    let _ = serde_json::to_writer(&mut count, socket);
    count.0
}

/// Says that there is no more. When not even a note is taken this is lost, and the asking side names this worker in its timeout.
pub(super) fn done(link: &Link, id: u64) {
    if let Ok(frame) = wire::done(id) {
        let _ = link.note(frame);
    }
}
