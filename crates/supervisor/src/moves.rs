//! Sessions on their way from one native worker to another: what was asked of a worker and is not answered yet. Whoever
//! asks and gives up leaves nothing behind: what the worker froze goes on there, what it took is forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sundew_channel::native::{SessionState, ToWorker};
use sundew_router::{Arrival, Departure, Moving};
use tokio::sync::oneshot;

use crate::native::Native;

/// The questions to one worker.
#[derive(Default)]
pub(crate) struct Moves {
    next: AtomicU64,
    exports: Questions<Option<SessionState>>,
    imports: Questions<Result<(), String>>,
}

struct Questions<T>(Mutex<HashMap<u64, oneshot::Sender<T>>>);

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Questions<T> {
    fn ask(&self, id: u64) -> oneshot::Receiver<T> {
        let (sender, answer) = oneshot::channel();
        self.0.lock().insert(id, sender);
        answer
    }

    fn take(&self, id: u64) -> Option<oneshot::Sender<T>> {
        self.0.lock().remove(&id)
    }
}

impl Moves {
    /// The worker answered [`ToWorker::Export`].
    pub(crate) fn exported(&self, id: u64, state: Option<SessionState>) {
        // Who gave up has said so to the worker.
        if let Some(asker) = self.exports.take(id) {
            let _ = asker.send(state);
        }
    }

    /// The worker answered [`ToWorker::Import`].
    pub(crate) fn imported(&self, id: u64, result: Result<(), String>) {
        if let Some(asker) = self.imports.take(id) {
            let _ = asker.send(result);
        }
    }

    /// The worker is gone.
    pub(crate) fn close(&self) {
        self.exports.0.lock().clear();
        self.imports.0.lock().clear();
    }
}

/// Asks the worker to freeze a session.
pub(crate) fn export(native: Arc<Native>, sid: &str, limit: u32) -> Moving<Option<Departure>> {
    let id = native.moves.next.fetch_add(1, Ordering::Relaxed);
    let answer = native.moves.exports.ask(id);
    native.tell(ToWorker::Export { id, sid: sid.to_owned(), limit });
    let settle = move |moved| {
        native.moves.exports.take(id);
        native.tell(ToWorker::Settle { id, moved });
    };
    // From here on: dropped at any point, the session stays.
    let departure = Departure::new(settle);
    Box::pin(async move {
        let SessionState(state) = answer.await.ok().flatten()?;
        Some(departure.with(state))
    })
}

/// Asks the worker to take a session.
pub(crate) fn import(native: Arc<Native>, state: Vec<u8>) -> Moving<Result<Arrival, String>> {
    let id = native.moves.next.fetch_add(1, Ordering::Relaxed);
    let answer = native.moves.imports.ask(id);
    native.tell(ToWorker::Import { id, state: SessionState(state) });
    let attach = move |socket| match socket {
        Some(socket) => native.attach(id, socket),
        None => {
            native.moves.imports.take(id);
            native.tell(ToWorker::Forget { id });
            Ok(())
        }
    };
    let arrival = Arrival::new(attach);
    Box::pin(async move {
        answer.await.unwrap_or_else(|_| Err("the worker is gone".to_owned()))?;
        Ok(arrival)
    })
}
