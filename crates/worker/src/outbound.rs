//! The task that writes to the channel: messages, confirmations and load. It is silent while nothing changes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sundew_channel::native::{ToSupervisor, WorkerChannel};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::Cluster;
use crate::sessions::{self, SessionStats};

/// How long a change of load waits for more of them: the supervisor knows what it placed, so it needs no haste.
const LOAD_DELAY: Duration = Duration::from_millis(25);

type Load = (SessionStats, u64);

pub(crate) async fn run(
    cluster: Cluster,
    channel: Arc<WorkerChannel>,
    mut messages: mpsc::Receiver<ToSupervisor>,
) {
    let mut confirmed = 0;
    let mut reported: Load = Load::default();
    let mut report_at: Option<Instant> = None;
    loop {
        let through = cluster.inbox().through();
        if through > confirmed {
            confirmed = through;
            if channel.send(&ToSupervisor::Accepted { through }, None).await.is_err() {
                break;
            }
        }
        // First the first poll, then the look at the counters: a change in between is not missed.
        let mut changed = Box::pin(sessions::changed().fuse());
        let missed = (&mut changed).now_or_never().is_some() || load(&cluster) != reported;
        if missed && report_at.is_none() {
            report_at = Some(Instant::now() + LOAD_DELAY);
        }
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else { break };
                if channel.send(&message, None).await.is_err() {
                    break;
                }
            }
            () = cluster.due() => {}
            () = changed, if report_at.is_none() => {}
            () = sleep_until(report_at.unwrap_or_else(Instant::now)), if report_at.is_some() => {
                report_at = None;
                reported = load(&cluster);
                if channel.send(&message(reported), None).await.is_err() {
                    break;
                }
            }
        }
    }
    // The reading task sees the end too, and knows what to do.
    tracing::debug!("the channel to the supervisor is closed");
}

fn load(cluster: &Cluster) -> Load {
    // Placements first: a session counted by neither would make this worker look idle.
    let placements = cluster.placements();
    (sessions::stats(), placements)
}

fn message((stats, placements): Load) -> ToSupervisor {
    ToSupervisor::Load {
        sessions: stats.sessions,
        polling: stats.polling,
        websocket: stats.websocket,
        placements,
    }
}
