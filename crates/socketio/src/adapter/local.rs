//! The adapter's way back in: does here what other servers ask for.

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::{Operation, Request, Responses, SocketInfo};
use crate::adapter::{BroadcastOptions, Response};
use crate::io::Shared;

/// This server's sockets, for an adapter. Keeps nothing alive.
#[derive(Clone)]
pub struct Local(Weak<Shared>);

impl Local {
    pub(crate) fn new(shared: Weak<Shared>) -> Local {
        Local(shared)
    }

    /// Does `operation` on this server's sockets. Unknown namespaces have no sockets.
    pub fn apply(&self, nsp: &str, operation: Operation) {
        if let Some(namespace) = self.namespace(nsp) {
            namespace.apply(&operation);
        }
    }

    /// Answers `request` for this server: at least one answer (zero clients, no sockets) even where the namespace is
    /// unknown, so that the asking server can count them.
    pub fn answer(&self, nsp: &str, request: Request, timeout: Duration) -> Responses {
        match self.namespace(nsp) {
            Some(namespace) => namespace.answer(request, timeout),
            None => {
                let nothing = match request {
                    Request::BroadcastWithAck { .. } => Some(Response::Clients(0)),
                    Request::Fetch { .. } => Some(Response::Sockets(Vec::new())),
                    Request::AllRooms => Some(Response::Rooms(Vec::new())),
                    Request::ServerSideEmit { .. } | Request::TakeSession { .. } | Request::CatchUp => None,
                };
                stream::iter(nothing.map(Ok)).boxed()
            }
        }
    }

    /// This server's sockets among those `opts` selects.
    pub fn fetch(&self, nsp: &str, opts: &BroadcastOptions) -> Vec<SocketInfo> {
        self.namespace(nsp).map_or_else(Vec::new, |namespace| namespace.describe(opts))
    }

    fn namespace(&self, nsp: &str) -> Option<std::sync::Arc<crate::namespace::Table>> {
        self.0.upgrade()?.registry.target(nsp)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}
