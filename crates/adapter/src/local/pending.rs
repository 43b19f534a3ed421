//! Requests of this worker that others still have to answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use sundew_socketio::adapter::{AdapterError, Response, Responses};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::link::{Link, Refused};
use super::wire;

/// How many answers of one request may wait for the one who asked. The request fails beyond.
pub(super) const ANSWER_LIMIT: usize = 65_536;
/// How much longer than the others this side waits: their last word comes when their time is over.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    asked: HashMap<u64, Asked>,
}

/// Dropped with the lock released when somebody may be left in it.
#[derive(Debug)]
struct Asked {
    id: u64,
    /// Who has not finished yet, by link.
    waiting: BTreeMap<u64, Arc<Link>>,
    answers: mpsc::Sender<Result<Response, AdapterError>>,
}

impl Pending {
    /// Sends a request to all `links` at once; their answers come out of the stream.
    pub(super) fn ask(
        self: &Arc<Self>,
        links: &[Arc<Link>],
        frame: impl FnOnce(u64) -> Result<Bytes, AdapterError>,
        timeout: Duration,
    ) -> Responses {
        // And an error of each worker, and one of our own.
        let (sender, answers) = mpsc::channel(ANSWER_LIMIT + links.len() + 1);
        // Held until the request is registered: an answer, or the end of a link, waits for it.
        let mut table = self.0.lock();
        table.next += 1;
        let id = table.next;
        match frame(id) {
            Ok(frame) => {
                let mut waiting = BTreeMap::new();
                for link in links {
                    match link.send(frame.clone()) {
                        Ok(()) => drop(waiting.insert(link.id, link.clone())),
                        Err(Refused::Closed) => {}
                        Err(Refused::Full) => {
                            let _ = sender.try_send(Err(AdapterError::Full(format!("worker {}", link.peer))));
                        }
                    }
                }
                if !waiting.is_empty() {
                    table.asked.insert(id, Asked { id, waiting, answers: sender });
                }
            }
            Err(error) => drop(sender.try_send(Err(error))),
        }
        drop(table);
        let deadline = Instant::now().checked_add(timeout.saturating_add(GRACE));
        let wait = Wait { pending: self.clone(), id, timeout, deadline, answers };
        Box::pin(stream::unfold(Some(wait), |wait| async {
            let mut wait = wait?;
            if let Some(deadline) = wait.deadline {
                match timeout_at(deadline, wait.answers.recv()).await {
                    Ok(answer) => return answer.map(|answer| (answer, Some(wait))),
                    Err(_) => {
                        if let Some(error) = wait.give_up() {
                            return Some((Err(error), None));
                        }
                    }
                }
            }
            // There is no deadline, or the last answers have come together with it.
            wait.answers.recv().await.map(|answer| (answer, Some(wait)))
        }))
    }

    pub(super) fn answer(&self, id: u64, response: Response) {
        let mut table = self.0.lock();
        // Not there: the one who asked has given up.
        let Some(asked) = table.asked.get(&id) else { return };
        let kept_for_errors = asked.answers.max_capacity() - ANSWER_LIMIT;
        if asked.answers.capacity() > kept_for_errors {
            let _ = asked.answers.try_send(Ok(response));
            return;
        }
        let error = AdapterError::Failed(format!("{ANSWER_LIMIT} of them were not read in time"));
        let _ = asked.answers.try_send(Err(error));
        let asked = table.asked.remove(&id);
        drop(table);
        drop(asked);
        tracing::warn!(limit = ANSWER_LIMIT, "answers of other workers are not read: the request is dropped");
    }

    /// The worker at the other end of `link` has answered all it will.
    pub(super) fn done(&self, id: u64, link: u64) {
        let mut table = self.0.lock();
        let Some(asked) = table.asked.get_mut(&id) else { return };
        asked.waiting.remove(&link);
        if asked.waiting.is_empty() {
            table.asked.remove(&id);
        }
    }

    /// The worker at the other end of `link` could not answer, or not to the end.
    pub(super) fn failed(&self, id: u64, link: u64, why: &str) {
        let mut table = self.0.lock();
        let Some(asked) = table.asked.get_mut(&id) else { return };
        let Some(link) = asked.waiting.remove(&link) else { return };
        let _ = asked.answers.try_send(Err(AdapterError::Failed(format!("worker {}: {why}", link.peer))));
        if asked.waiting.is_empty() {
            table.asked.remove(&id);
        }
    }

    #[cfg(test)]
    pub(super) fn is_waiting_for(&self, peer: super::PeerName) -> bool {
        let table = self.0.lock();
        table.asked.values().flat_map(|asked| asked.waiting.values()).any(|link| link.peer == peer)
    }

    /// The worker at the other end of `link` is gone: nobody waits for it any more.
    pub(super) fn gone(&self, link: u64) {
        self.0.lock().asked.retain(|_, asked| {
            asked.waiting.remove(&link);
            !asked.waiting.is_empty()
        });
    }
}

impl Drop for Asked {
    /// Whoever has not finished may stop.
    fn drop(&mut self) {
        for link in self.waiting.values() {
            if let Ok(frame) = wire::cancel(self.id) {
                let _ = link.note(frame);
            }
        }
    }
}

/// One request, as seen by the one who asked.
struct Wait {
    pending: Arc<Pending>,
    id: u64,
    timeout: Duration,
    /// Never, if it is further away than the clock can tell.
    deadline: Option<Instant>,
    answers: mpsc::Receiver<Result<Response, AdapterError>>,
}

impl Wait {
    fn give_up(&self) -> Option<AdapterError> {
        let asked = self.pending.0.lock().asked.remove(&self.id)?;
        let missing: Vec<String> = asked.waiting.values().map(|link| link.peer.to_string()).collect();
        tracing::warn!(workers = missing.join(", "), timeout = ?self.timeout, "no answer from these workers");
        Some(AdapterError::Timeout { missing: missing.len(), timeout: self.timeout })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let asked = self.pending.0.lock().asked.remove(&self.id);
        drop(asked);
    }
}
