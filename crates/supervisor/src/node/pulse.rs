//! Whether a worker's event loop answers. While something is open it is watched; while it gets traffic it is asked now
//! and then; when idle, rarely. What is asked for costs the worker one message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sundew_router::BackendId;
use tokio::sync::{Notify, mpsc};

use super::Node;
use crate::dispatcher::Input;
use crate::worker::{Report, WorkerId};

/// Between two questions to a worker that gets traffic.
const ASK: u64 = 200;
/// Between two questions to one that gets none.
const ASK_IDLE: Duration = Duration::from_secs(10);

/// What is known of an event loop.
pub(crate) struct Pulse {
    born: Instant,
    /// When to ask next, in milliseconds since `born`.
    due: AtomicU64,
    last: Mutex<Option<Instant>>,
    stuck: AtomicBool,
    ended: AtomicBool,
    open: Notify,
    /// From here on nothing new goes there.
    hung_after: Duration,
    /// From here on it is restarted; none: never.
    restart_after: Option<Duration>,
}

impl Pulse {
    pub(crate) fn new(hung_after: Duration, restart_after: Option<Duration>) -> Self {
        Self {
            born: Instant::now(),
            due: AtomicU64::new(0),
            last: Mutex::new(None),
            stuck: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            open: Notify::new(),
            hung_after,
            restart_after,
        }
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// When it answered last.
    pub(crate) fn last(&self) -> Option<Instant> {
        *self.last.lock()
    }

    /// Whether it is time to ask; if so, the caller does.
    pub(super) fn is_due(&self) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        now >= due && self.due.compare_exchange(due, now + ASK, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// It answered.
    pub(super) fn answered(&self, app: &str, id: BackendId) {
        *self.last.lock() = Some(Instant::now());
        if self.stuck.load(Ordering::Relaxed) && self.stuck.swap(false, Ordering::Relaxed) {
            tracing::info!(app, worker = %id, "the worker's event loop answers again");
        }
    }

    /// There is something to wait for.
    pub(super) fn watch(&self) {
        self.open.notify_one();
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.open.notify_one();
    }
}

/// Watches a worker until it is gone, or has to be restarted.
pub(crate) async fn watch(id: WorkerId, node: Arc<Node>, inputs: mpsc::Sender<Input>) {
    let pulse = &node.pulse;
    while !pulse.ended.load(Ordering::Relaxed) {
        match node.silent_for() {
            None => {
                if tokio::time::timeout(ASK_IDLE, pulse.open.notified()).await.is_err() {
                    node.ping();
                }
            }
            Some(silent) if silent < pulse.hung_after => tokio::time::sleep(pulse.hung_after - silent).await,
            Some(silent) => {
                if !pulse.stuck.swap(true, Ordering::Relaxed) {
                    tracing::warn!(app = node.app(), worker = %node.id, ?silent, "the worker's event loop does not answer: new sessions go elsewhere");
                }
                let moved = node.reroute_unsent();
                if moved > 0 {
                    tracing::warn!(app = node.app(), worker = %node.id, moved, "connections that waited for it go elsewhere");
                }
                // One that still loads its program takes as long as that takes: `listen_timeout` is for it.
                let restart_after = pulse.restart_after.filter(|_| node.serves());
                let left = restart_after.map(|limit| limit.saturating_sub(silent));
                if left.is_some_and(|left| left.is_zero()) {
                    let _ = inputs.send(Input::Report(id, Report::Hung(silent))).await;
                    return;
                }
                tokio::time::sleep(left.unwrap_or(pulse.hung_after).min(pulse.hung_after)).await;
            }
        }
    }
}
