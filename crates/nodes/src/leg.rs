//! Legs to another node: to the front door an end of a socket pair, which is there at once; the connection behind it is
//! made meanwhile.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sundew_router::{Leg, Node};
use tokio::net::UnixStream;

use crate::doors::Name;
use crate::moving::{self, Side};
use crate::pump::pump;
use crate::seal;
use crate::wire::Hello;

/// How a node is reached.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) addr: String,
    pub(crate) key: [u8; 32],
    pub(crate) connect_timeout: Duration,
    pub(crate) silence: Duration,
    /// How long a websocket has to be quiet before its session is asked for; zero: it never is.
    pub(crate) move_quiet: Duration,
    /// How long each step of a session's move may take.
    pub(crate) move_timeout: Duration,
}

impl Way {
    /// To one front door there.
    pub(crate) fn to(self: &Arc<Self>, name: &Name) -> Arc<dyn Node> {
        Arc::new(Door { way: self.clone(), name: name.clone() })
    }
}

struct Door {
    way: Arc<Way>,
    name: Name,
}

impl Node for Door {
    fn open_leg(&self) -> io::Result<Leg> {
        let (ours, theirs) = UnixStream::pair()?;
        let (way, Name { app, door }) = (self.way.clone(), self.name.clone());
        let (asker, near) = moving::near(way.move_quiet, way.move_timeout);
        tokio::spawn(async move {
            let Way { addr, key, connect_timeout, silence, .. } = &*way;
            // Whatever goes wrong, the front door sees its end of the pair closed.
            match seal::connect(addr, key, *connect_timeout, *silence).await {
                Ok(mut sealed) => {
                    if sealed.say(&Hello::Leg { app, door }).await.is_ok() {
                        pump(theirs, sealed, Side::Near(near)).await;
                    }
                }
                Err(error) => tracing::debug!(addr, %error, "cannot reach a node"),
            }
        });
        Ok(Leg::Node(ours, Arc::new(asker)))
    }
}
