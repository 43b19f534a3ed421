//! Other nodes, as one app's front door sees them: a way to send on what is theirs, and somebody to ask whose a session
//! is. Connections between nodes, and who is there, are not known here.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::backend::{Abilities, Backend, BackendId, HandOff, Leg};
use crate::http::forward;
use crate::http::request::Head;
use crate::members::Member;

/// From this slot on it is not a worker but a node. Workers have lower ones: their slot fits in a session id.
const FIRST: u16 = 1 << 8;
/// What another node says of a request's client, on its connections only.
const PEER: &str = "x-sundew-peer";
/// Seconds another node's session is remembered here without a request. Then that node is asked again.
pub(crate) const REMEMBERED: u32 = 120;

/// What a search for a session gives: the node that has it.
pub type Finding = Pin<Box<dyn Future<Output = Option<u8>> + Send>>;

/// Finds the node that has a session whose id does not tell.
pub trait Finder: fmt::Debug + Send + Sync + 'static {
    /// Asks. What it costs is bounded: an answer comes soon, if only that it is not known.
    fn find(&self, sid: &[u8]) -> Finding;
}

/// A way to another node's front door of the same app.
pub trait Node: Send + Sync + 'static {
    /// Opens a connection to it, on which it takes requests as from clients. Never blocks; that it cannot be opened may
    /// show later, by its end.
    ///
    /// # Errors
    /// When there is none to be had now.
    fn open_leg(&self) -> std::io::Result<Leg>;
}

impl BackendId {
    fn of_node(node: u8) -> Self {
        Self { slot: FIRST + u16::from(node), generation: 0 }
    }

    pub(crate) fn is_node(self) -> bool {
        self.slot >= FIRST
    }
}

/// A node in a worker's place.
struct Remote {
    id: BackendId,
    node: Arc<dyn Node>,
}

impl Backend for Remote {
    fn id(&self) -> BackendId {
        self.id
    }

    fn abilities(&self) -> Abilities {
        // It learns and counts its sessions itself, and is told the client's address by one header.
        Abilities { takes_connections: false, tells_sessions: true, transparent: true }
    }

    fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
        Err(connection)
    }

    fn open_leg(&self) -> std::io::Result<Leg> {
        self.node.open_leg()
    }

    fn sessions(&self) -> u32 {
        0
    }

    fn placements_seen(&self) -> u64 {
        0
    }
}

/// The nodes that can be reached now.
#[derive(Default)]
pub(crate) struct Nodes {
    list: RwLock<Vec<Arc<Member>>>,
}

impl Nodes {
    /// The one of this number can be reached. One of the same number is forgotten.
    pub(crate) fn add(&self, number: u8, node: Arc<dyn Node>) {
        self.lost(number);
        let remote = Remote { id: BackendId::of_node(number), node };
        self.list.write().push(Arc::new(Member::new(Arc::new(remote))));
    }

    /// It cannot be reached any more. Requests it has not answered end at once.
    pub(crate) fn lost(&self, number: u8) {
        let id = BackendId::of_node(number);
        let mut list = self.list.write();
        let gone = list.iter().position(|member| member.id == id).map(|at| list.swap_remove(at));
        drop(list);
        if let Some(gone) = gone {
            gone.end();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.read().is_empty()
    }

    pub(crate) fn of(&self, number: u8) -> Option<Arc<Member>> {
        self.find(BackendId::of_node(number))
    }

    pub(crate) fn find(&self, id: BackendId) -> Option<Arc<Member>> {
        self.list.read().iter().find(|member| member.id == id).cloned()
    }

    pub(crate) fn sweep(&self, age: Duration) {
        for member in self.list.read().iter() {
            member.legs.sweep(age);
        }
    }
}

/// The client another node took a request from, and whether it came by TLS.
pub(crate) fn client_of(head: &Head<'_, '_>) -> (Option<SocketAddr>, bool) {
    let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(PEER));
    let Some(text) = header.and_then(|header| std::str::from_utf8(header.value).ok()) else {
        return (None, false);
    };
    match text.strip_suffix(forward::BY_TLS) {
        Some(address) => (address.parse().ok(), true),
        None => (text.parse().ok(), false),
    }
}
