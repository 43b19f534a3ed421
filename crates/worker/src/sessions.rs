//! What a session server lends to this crate: how much it carries, and how to make it let go.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::{self, BoxFuture, FutureExt};
use parking_lot::RwLock;
use sundew_io::Raw;
use tokio::sync::Notify;

/// How many sessions a server carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// Sessions open now.
    pub sessions: u32,
    /// Those of them on long polling.
    pub polling: u32,
    /// Those of them on a websocket.
    pub websocket: u32,
}

/// How sessions are let go of at a drain's deadline: so many at a time, because all their clients come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Sessions per batch.
    pub batch: u32,
    /// The time between two batches.
    pub pause: Duration,
}

/// A server of long-lived sessions inside this process.
pub trait Sessions: Send + Sync + 'static {
    /// Whether a request for this path is the server's. Requests for such a path are read by the quick way of
    /// [`serve`](crate::serve), and go through the app all the same. The default: none.
    fn is_for(&self, path: &str) -> bool {
        let _ = path;
        false
    }
    /// What it carries now.
    fn stats(&self) -> SessionStats;
    /// Completes when the number of sessions changes after this call.
    fn changed(&self) -> BoxFuture<'_, ()>;
    /// Waits until no session is left or the deadline has passed, then lets go of those left, batch by batch. Returns
    /// when none is left.
    fn drain(&self, deadline: Duration, pace: Pace) -> BoxFuture<'_, ()>;
    /// Closes all sessions now. Returns when none is left.
    fn close(&self) -> BoxFuture<'_, ()>;
    /// Once they are closed: waits for what the app still does for them, no longer than it is worth. The default: nothing.
    fn finish(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }
    /// Freezes a session, to let it go on in another worker; none if there is no such session, or it has to stay for the
    /// moment. `limit`: the most bytes of state. The default: every session stays.
    fn export<'a>(&'a self, sid: &'a str, limit: usize) -> BoxFuture<'a, Option<Box<dyn Export>>> {
        let _ = (sid, limit);
        future::ready(None).boxed()
    }
    /// Takes a session that another worker has frozen.
    ///
    /// # Errors
    /// Why it cannot go on here. The default takes none.
    fn import(&self, state: &[u8]) -> Result<Box<dyn Import>, String> {
        let _ = state;
        Err("this server takes no sessions of other workers".to_owned())
    }
}

/// A frozen session. Dropped, it goes on as if nothing had happened.
pub trait Export: Send {
    /// What the other worker needs to go on with it.
    fn state(&self) -> &[u8];
    /// It goes on there: what has been queued for it leaves, then its connection ends. Returns whether it was still open: if
    /// not, it has ended here meanwhile.
    fn release(self: Box<Self>) -> bool;
}

/// A session of another worker whose connection has not come yet. Dropped, it was never here.
pub trait Import: Send {
    /// Goes on with this connection. Called once. Returns whether it was taken: if not, the session has ended meanwhile, and the
    /// connection does.
    fn attach(&mut self, socket: Raw) -> bool;
}

/// All that are known, in the order in which they were made known.
pub(crate) type Servers = Arc<Vec<Arc<dyn Sessions>>>;

/// Servers live as long as the process: an app builds one or a few of them at its start.
#[derive(Default)]
struct Registry {
    servers: RwLock<Servers>,
    added: Notify,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::default);

/// Makes a server known for the rest of the process's life: its sessions are reported to the supervisor, drained, and
/// closed when [`serve`](crate::serve) ends.
pub fn register(server: Arc<dyn Sessions>) {
    Arc::make_mut(&mut *REGISTRY.servers.write()).push(server);
    REGISTRY.added.notify_waiters();
}

/// All servers known so far.
pub(crate) fn servers() -> Servers {
    REGISTRY.servers.read().clone()
}

/// The sum over all servers.
pub(crate) fn stats() -> SessionStats {
    servers().iter().map(|server| server.stats()).fold(SessionStats::default(), |sum, one| SessionStats {
        sessions: sum.sessions.saturating_add(one.sessions),
        polling: sum.polling.saturating_add(one.polling),
        websocket: sum.websocket.saturating_add(one.websocket),
    })
}

/// Completes once [`stats`] may have changed since the first poll of this.
pub(crate) async fn changed() {
    let added = std::pin::pin!(REGISTRY.added.notified());
    let servers = servers();
    let changed = servers.iter().map(|server| server.changed());
    // Never empty: `select_all` panics on nothing.
    let changed = future::select_all(changed.chain([future::pending().boxed()]));
    future::select(added, changed).await;
}

/// Drains all servers.
pub(crate) async fn drain(deadline: Duration, pace: Pace) {
    let servers = servers();
    future::join_all(servers.iter().map(|server| server.drain(deadline, pace))).await;
}

/// Closes all sessions of all servers.
pub(crate) async fn close() {
    let servers = servers();
    future::join_all(servers.iter().map(|server| server.close())).await;
}

/// Waits for what the apps still do for closed sessions.
pub(crate) async fn finish() {
    let servers = servers();
    future::join_all(servers.iter().map(|server| server.finish())).await;
}

/// Freezes a session of any of the servers. Which one's it is goes before its state.
pub(crate) async fn export(sid: &str, limit: usize) -> Option<Box<dyn Export>> {
    for (index, server) in (0..=u8::MAX).zip(&*servers()) {
        if let Some(session) = server.export(sid, limit.saturating_sub(1)).await {
            let state = [&[index], session.state()].concat();
            return Some(Box::new(Numbered { session, state }));
        }
    }
    None
}

struct Numbered {
    session: Box<dyn Export>,
    state: Vec<u8>,
}

impl Export for Numbered {
    fn state(&self) -> &[u8] {
        &self.state
    }

    fn release(self: Box<Self>) -> bool {
        self.session.release()
    }
}

/// Takes a session into the server of the same number: an app makes its servers in the same order everywhere.
pub(crate) fn import(state: &[u8]) -> Result<Box<dyn Import>, String> {
    let (index, state) = state.split_first().ok_or("an empty session")?;
    let server = servers().get(usize::from(*index)).cloned().ok_or("no such server in this worker")?;
    server.import(state)
}
