//! Reads what a Node worker says, to the end of its channel. What only concerns routing stays here; what changes the app is
//! reported.

use std::sync::Arc;

use sundew_channel::node::{FromWorker, Inbox, ToWorker};
use tokio::sync::mpsc;

use super::Node;
use super::hub::Envelope;
use crate::dispatcher::Input;
use crate::worker::{Report, WorkerId};

/// A worker's word on one of its servers.
#[derive(Debug)]
pub(crate) enum Said {
    /// It wants to listen. `http`: whether the server speaks plain HTTP, where that is known.
    /// `server`: its number on the pipe of the preload.
    Asks { seq: u64, query: sundew_channel::node::Query, http: Option<bool>, server: Option<u32> },
    /// It listens.
    Listens { query: sundew_channel::node::Query },
    /// It closed that server.
    Closed { key: String },
    /// `process.send('ready')`.
    Ready,
    /// It takes `sticky:connection`.
    TakesSticky,
    /// `worker.disconnect()` or `worker.kill()`: it goes when its connections have.
    Leaves { seq: u64 },
}

/// Reads until the channel ends.
pub(crate) async fn listen(id: WorkerId, node: Arc<Node>, inputs: mpsc::Sender<Input>) {
    let report = async |report| drop(inputs.send(Input::Report(id, report)).await);
    let said = async |said| report(Report::Said(said)).await;
    let mut inbox = Inbox::default();
    // The preload says what a server is just before the worker asks for its address.
    let mut serves = None;
    let mut too_long = false;
    loop {
        match node.channel().recv(&mut inbox).await {
            Ok(Some(message)) => match message {
                FromWorker::Online => report(Report::Hello).await,
                FromWorker::Serves { http, server } => serves = Some((http, server)),
                FromWorker::QueryServer { seq, query } => {
                    let (http, server) = serves.take().unzip();
                    said(Said::Asks { seq, query, http, server: server.flatten() }).await;
                }
                FromWorker::Listening(query) => said(Said::Listens { query }).await,
                FromWorker::Close { key } => said(Said::Closed { key }).await,
                FromWorker::ExitedAfterDisconnect { seq } => said(Said::Leaves { seq }).await,
                FromWorker::Ready => said(Said::Ready).await,
                FromWorker::Sticky => said(Said::TakesSticky).await,
                FromWorker::Accepted { seq, accepted } => node.accepted(seq, accepted),
                FromWorker::HandleAck { seq } => node.arrived(seq, true),
                FromWorker::HandleNack { seq } => node.arrived(seq, false),
                FromWorker::Adapter { uid, nsp, requester, frame, .. } => {
                    node.hub.relay(&node, Envelope { uid: uid.zip(nsp), requester, frame });
                }
                FromWorker::Closed { total } => node.report_ended(total),
                FromWorker::TooLong { bytes } => {
                    if !std::mem::replace(&mut too_long, true) {
                        tracing::warn!(app = node.app(), worker = %node.id, bytes, "a message of the worker is over limits.ipcMessageBytes and was dropped; further ones are not logged");
                    }
                }
                FromWorker::Handle | FromWorker::Other => {}
            },
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(app = node.app(), worker = %node.id, %error, "the channel of a worker failed");
                break;
            }
        }
    }
    report(Report::Disconnected).await;
}

/// Confirms a `worker.disconnect()`: the worker waits for it.
pub(crate) fn may_leave(node: &Node, seq: u64) {
    node.tell(ToWorker::Ack { ack: seq });
}
