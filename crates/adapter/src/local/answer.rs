//! Answers a request of another worker: what the server yields, as it comes, and then the end.

use std::sync::Arc;

use futures_util::StreamExt;
use sundew_socketio::adapter::Responses;
use tokio::sync::OwnedSemaphorePermit;

use super::link::{Link, Refused};
use super::wire;

/// Sends all `answers`. The permit is held until the last one.
pub(super) async fn send(link: Arc<Link>, id: u64, mut answers: Responses, _permit: OwnedSemaphorePermit) {
    while let Some(answer) = answers.next().await {
        // A server of its own has no one else to fail; the asking side has its own timeout.
        let Ok(response) = answer else { continue };
        let frame = match wire::answer(id, response) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(peer = %link.peer, %error, "an answer could not be sent");
                continue;
            }
        };
        if link.send(frame) == Err(Refused::Closed) {
            return;
        }
    }
    done(&link, id);
}

/// Says that there is no more. When the queue is full this is lost, and the asking side names this worker in its timeout.
pub(super) fn done(link: &Link, id: u64) {
    if let Ok(frame) = wire::done(id) {
        let _ = link.send(frame);
    }
}
