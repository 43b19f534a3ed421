//! Sessions that leave for another worker, and those that come from one: what the supervisor asks, and what has been
//! frozen or taken for it so far. Nothing stays so for good: it all ends with the channel.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use sundew_channel::native::{SessionState, ToSupervisor};
use sundew_io::Raw;
use tokio::task::AbortHandle;

use crate::Cluster;
use crate::sessions::{self, Export, Import};

/// How many sessions may be on their way in each direction.
const MOST: usize = 4096;
/// How long the connection of an imported session may take. The supervisor gives up long before.
const ARRIVAL: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Moves {
    leaving: Mutex<HashMap<u64, Leaving>>,
    arriving: Mutex<HashMap<u64, Arriving>>,
}

enum Leaving {
    /// Its task is asked.
    Asked(AbortHandle),
    Frozen(Box<dyn Export>),
}

struct Arriving {
    session: Box<dyn Import>,
    expiry: AbortHandle,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

impl Moves {
    /// Freezes a session if it is at rest, and tells the supervisor.
    pub(crate) fn export(&self, cluster: &Cluster, id: u64, sid: String, limit: u32) {
        // Held until the task is entered, so that it finds itself.
        let mut leaving = self.leaving.lock();
        let cluster = cluster.clone();
        let crowded = leaving.len() >= MOST;
        let task = tokio::spawn(async move {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let exported = if crowded { None } else { sessions::export(&sid, limit).await };
            let state = cluster.moves().frozen(id, exported);
            cluster.send(ToSupervisor::Exported { id, state }).await;
        });
        leaving.insert(id, Leaving::Asked(task.abort_handle()));
    }

    fn frozen(&self, id: u64, exported: Option<Box<dyn Export>>) -> Option<SessionState> {
        let mut leaving = self.leaving.lock();
        // Settled before it was frozen: dropped, it goes on.
        leaving.remove(&id)?;
        let exported = exported?;
        let state = SessionState(exported.state().to_vec());
        leaving.insert(id, Leaving::Frozen(exported));
        Some(state)
    }

    /// Lets it go, or keeps it.
    pub(crate) fn settle(&self, id: u64, moved: bool) {
        let leaving = self.leaving.lock().remove(&id);
        match leaving {
            Some(Leaving::Frozen(session)) if moved => {
                let open = session.release();
                if !open {
                    // Its close frame reaches the client all the same, which then ends the connection that goes there.
                    tracing::warn!(id, "a session was closed while it moved to another worker");
                }
            }
            Some(Leaving::Frozen(session)) => drop(session),
            Some(Leaving::Asked(task)) => task.abort(),
            None => {}
        }
    }

    /// Takes a session that another worker has frozen.
    pub(crate) fn import(&self, cluster: &Cluster, id: u64, state: &SessionState) -> Result<(), String> {
        if self.arriving.lock().len() >= MOST {
            return Err("too many sessions arrive at once".to_owned());
        }
        let session = sessions::import(&state.0)?;
        let cluster = cluster.clone();
        let expiry = tokio::spawn(async move {
            tokio::time::sleep(ARRIVAL).await;
            cluster.moves().forget(id);
        });
        let expiry = expiry.abort_handle();
        self.arriving.lock().insert(id, Arriving { session, expiry });
        Ok(())
    }

    /// Its connection has come. None: the session is not there any more.
    pub(crate) fn attach(&self, id: u64, socket: Raw) -> Option<()> {
        let Arriving { session, .. } = &mut self.arriving.lock().remove(&id)?;
        session.attach(socket).then_some(())
    }

    /// It stays where it was.
    pub(crate) fn forget(&self, id: u64) {
        let forgotten = self.arriving.lock().remove(&id);
        drop(forgotten);
    }

    /// The supervisor is gone: what is frozen goes on here, what was to come does not.
    pub(crate) fn end(&self) {
        let leaving = std::mem::take(&mut *self.leaving.lock());
        let arriving = std::mem::take(&mut *self.arriving.lock());
        for asked in leaving.values() {
            if let Leaving::Asked(task) = asked {
                task.abort();
            }
        }
        drop((leaving, arriving));
    }
}
