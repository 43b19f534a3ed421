//! Empties a Node worker, or one behind a port, that the front doors give no new sessions any more.

use std::sync::Arc;
use std::time::Duration;

use sundew_channel::native::LetGo;
use sundew_channel::node::ToWorker;
use sundew_router::{BackendId, Front};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Node;
use crate::dispatcher::Input;
use crate::worker::{LET_GO_LIMIT, RETIRE_LIMIT, Report, SETTLE, SETTLE_LIMIT, WorkerId};

/// Between two looks at how many sessions are left. Looked at only while a worker drains.
const LOOK: Duration = Duration::from_millis(100);

/// A worker that leaves, and where it is known.
pub(crate) struct Leaver {
    pub(crate) id: WorkerId,
    pub(crate) backend: BackendId,
    /// None: it is reached by its port.
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) doors: Vec<Front>,
    pub(crate) let_go: LetGo,
}

impl Leaver {
    fn sessions(&self) -> u32 {
        match &self.node {
            // An upgrade counts as polling no more and as a websocket once it was taken: in between it is on its way.
            Some(node) => node.load().total + node.waiting(),
            None => {
                let loads = self.doors.iter().filter_map(|front| front.load_of(self.backend));
                loads.map(|load| load.learned + load.relayed).sum()
            }
        }
    }

    /// Waits until no session is left.
    async fn empty(&self) {
        while self.sessions() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until it has taken, or refused, all that was handed to it.
    async fn settled(&self) {
        while self.node.as_ref().is_some_and(|node| node.oldest_unaccepted().is_some()) {
            tokio::time::sleep(LOOK / 10).await;
        }
    }

    /// Ends the sessions that are left, in paced batches: their clients come back, to other workers.
    async fn let_go(&self) {
        let LetGo { batch, pause_ms } = self.let_go;
        let sessions = self.sessions();
        if let Some(node) = &self.node {
            node.tell(ToWorker::LetGo { batch, pause_ms });
        }
        let pause = Duration::from_millis(pause_ms);
        let polling = self.doors.iter().map(|front| front.let_go(self.backend, batch, pause));
        futures_util::future::join_all(polling).await;
        let batches = sessions.div_ceil(batch.max(1));
        let paced = Duration::from_millis(pause_ms.saturating_mul(u64::from(batches)));
        if self.node.as_ref().is_some_and(|node| !node.preload) {
            // Nobody in there can end a websocket: the end of the process does.
            return;
        }
        if tokio::time::timeout(paced + LET_GO_LIMIT, self.empty()).await.is_err() {
            tracing::warn!(id = ?self.id, left = self.sessions(), "the worker did not let go of its sessions in time");
        }
    }
}

/// Empties it. `deadline` can be moved forward meanwhile.
pub(crate) async fn drain(
    leaver: Leaver,
    mut deadline: watch::Receiver<Instant>,
    inputs: mpsc::Sender<Input>,
) {
    // What was sent before comes first: sessions that are being opened now are sessions it keeps.
    let _ = tokio::time::timeout(SETTLE_LIMIT, leaver.settled()).await;
    tokio::time::sleep(SETTLE).await;
    loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            () = leaver.empty() => break,
            () = tokio::time::sleep_until(until) => {
                leaver.let_go().await;
                break;
            }
            changed = deadline.changed() => if changed.is_err() { break },
        }
    }
    loop {
        let until = *deadline.borrow_and_update();
        let left = until.saturating_duration_since(Instant::now()).max(RETIRE_LIMIT);
        let retired = leaver.doors.iter().map(|front| front.retire(leaver.backend, left));
        tokio::select! {
            _ = futures_util::future::join_all(retired) => break,
            changed = deadline.changed() => if changed.is_err() { break },
        }
    }
    let _ = inputs.send(Input::Report(leaver.id, Report::Retired)).await;
}
