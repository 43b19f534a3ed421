//! A session that follows its websocket to this node. The websocket came here, the session was at another node, so the one
//! is relayed to the other; once nothing moves for a moment, the session is asked to come over:
//!
//! ```text
//! nothing is read from the client any more, and what was read has arrived there
//! the session is frozen there, if it is at rest; what it said last has arrived here
//! a worker here takes it, silently          (until now it can stay: it thaws, and the relay goes on)
//! it is let go of there; what was queued for it meanwhile arrives, then the end of the relay
//! the client's socket is handed to the worker here
//! ```
//!
//! Only this side decides, because it holds the client's socket: from the moment it says that the session has moved,
//! whatever becomes of the other node does not matter.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::backend::Leg;
use crate::client::Client;
use crate::front::Shared;
use crate::pick::Wanted;
use crate::proxy::{Relay, Still};

/// The longest time that nothing moves before a session that stayed is asked again.
const MOST_QUIET: Duration = Duration::from_secs(30);

/// Something that takes its time.
pub type Moving<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A session that is frozen, or about to be. Dropped, it stays where it is.
pub struct Departure {
    state: Vec<u8>,
    settle: Option<Box<dyn FnOnce(bool) + Send>>,
}

impl Departure {
    /// `settle` is told what becomes of the session: whether it has moved.
    pub fn new(settle: impl FnOnce(bool) + Send + 'static) -> Self {
        Self { state: Vec::new(), settle: Some(Box::new(settle)) }
    }

    /// It is frozen; this is what its new worker needs.
    #[must_use]
    pub fn with(mut self, state: Vec<u8>) -> Self {
        self.state = state;
        self
    }

    /// What its new worker needs.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// It goes on elsewhere.
    pub fn moved(mut self) {
        if let Some(settle) = self.settle.take() {
            settle(true);
        }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle(false);
        }
    }
}

impl fmt::Debug for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departure").field("bytes", &self.state.len()).finish_non_exhaustive()
    }
}

/// Passes a session's connection to its worker; without one, the session is forgotten there.
type Attach = Box<dyn FnOnce(Option<OwnedFd>) -> io::Result<()> + Send>;

/// A session that a worker has taken and that waits for its connection. Dropped, it was never there.
pub struct Arrival(Option<Attach>);

impl Arrival {
    /// `attach` passes the connection on, or tells the worker that none will come.
    pub fn new(attach: impl FnOnce(Option<OwnedFd>) -> io::Result<()> + Send + 'static) -> Self {
        Self(Some(Box::new(attach)))
    }

    /// Passes the connection on.
    ///
    /// # Errors
    /// The worker cannot get it: the connection is closed, and the client comes back.
    pub fn attach(mut self, socket: OwnedFd) -> io::Result<()> {
        self.0.take().map_or(Ok(()), |attach| attach(Some(socket)))
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if let Some(attach) = self.0.take() {
            let _ = attach(None);
        }
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arrival")
    }
}

/// The far end of a leg to another node: asks there for the session whose websocket the leg carries.
pub trait Mover: fmt::Debug + Send + Sync {
    /// How long nothing may have moved before the session is asked for. Zero: it never is.
    fn quiet(&self) -> Duration;

    /// How long each step of a move may take.
    fn patience(&self) -> Duration;

    /// Asks for the session. When this is done, everything it said before is in the leg. None: it stays, for the moment.
    fn take(&self, sid: &str) -> Moving<Option<Vec<u8>>>;

    /// The session has moved, or stays after all. Said once after each [`Mover::take`].
    fn settle(&self, moved: bool);
}

/// Tells the other side that the session stays, unless it is told otherwise.
struct Asked<'a>(Option<&'a dyn Mover>);

impl Asked<'_> {
    fn moved(mut self) {
        if let Some(mover) = self.0.take() {
            mover.settle(true);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(mover) = self.0.take() {
            mover.settle(false);
        }
    }
}

/// Relays a websocket until it ends, or until its session is here. Then the client's socket belongs to what is returned.
pub(crate) async fn relay_until_moved(
    shared: &Shared,
    client: &mut Client,
    leg: &Leg,
    sid: &str,
    rest: Duration,
) -> Option<Arrival> {
    let mut relay = Relay::default();
    let mover = leg.mover().filter(|mover| !mover.quiet().is_zero());
    let Some(mover) = mover else {
        relay.run(client, leg, rest, None).await;
        return None;
    };
    let mut quiet = mover.quiet();
    while relay.run(client, leg, rest, Some(quiet)).await == Still::Open {
        match fetch(shared, client, &mut relay, leg, sid, &**mover).await {
            Fetched::Here(arrival) => {
                shared.counters.moved.add();
                return Some(arrival);
            }
            Fetched::Lost => return None,
            Fetched::Stays => quiet = (quiet * 2).min(MOST_QUIET),
        }
    }
    None
}

enum Fetched {
    Here(Arrival),
    Stays,
    /// It was let go of there, and cannot go on here.
    Lost,
}

async fn fetch(
    shared: &Shared,
    client: &mut Client,
    relay: &mut Relay,
    leg: &Leg,
    sid: &str,
    mover: &dyn Mover,
) -> Fetched {
    let patience = mover.patience();
    let Some(member) = shared.picker.place(&shared.members, Wanted::Session, client.ip(), &[]) else {
        return Fetched::Stays;
    };
    let asked = Asked(Some(mover));
    let Ok(Some(state)) = timeout(patience, mover.take(sid)).await else { return Fetched::Stays };
    if !matches!(timeout(patience, relay.empty(client, leg)).await, Ok(Still::Open)) {
        return Fetched::Stays;
    }
    // The worker counts it as placed in any case.
    member.place();
    let arrival = match timeout(patience, Arc::clone(&member.backend).import(state)).await {
        Ok(Ok(arrival)) => arrival,
        Ok(Err(why)) => {
            tracing::debug!(app = shared.config.app, %why, "a session cannot go on here");
            return Fetched::Stays;
        }
        Err(_) => return Fetched::Stays,
    };
    asked.moved();
    // The rest of what was meant for the client. Half of it would be worse than a new connection.
    match timeout(patience, relay.finish(client, leg)).await {
        Ok(Ok(())) => Fetched::Here(arrival),
        _ => Fetched::Lost,
    }
}
