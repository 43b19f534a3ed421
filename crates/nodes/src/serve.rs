//! Takes the connections of other nodes: legs to the front doors here, and links.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::core::Core;
use crate::doors::Name;
use crate::moving::{Far, Side};
use crate::pump::pump;
use crate::seal::{self, Sealed};
use crate::wire::{Hello, Identity, Reply, Request};

/// How long to wait when there are no descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Serves for as long as the runtime lives.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener) {
    let room = usize::try_from(core.config.limits.max_connections).unwrap_or(usize::MAX);
    let room = Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS)));
    let full = AtomicBool::new(false);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a node's connection");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            if !full.swap(true, Ordering::Relaxed) {
                tracing::warn!("other nodes want more connections than cluster.limits.maxConnections allows");
            }
            continue;
        };
        full.store(false, Ordering::Relaxed);
        let core = core.clone();
        tokio::spawn(async move {
            let from = stream.peer_addr().ok();
            if let Err(error) = one(&core, stream).await {
                tracing::debug!(?from, %error, "a node's connection ended");
            }
            drop(place);
        });
    }
}

async fn one(core: &Arc<Core>, stream: TcpStream) -> io::Result<()> {
    let limits = &core.config.limits;
    let mut sealed = seal::accept(stream, &core.link_key, limits.connect_timeout(), limits.expiry())
        .await
        .map_err(io::Error::other)?;
    match timeout(limits.connect_timeout(), sealed.hear()).await?? {
        Hello::Leg { app, door } => {
            let front = core.doors.find(&Name { app, door }).ok_or(io::ErrorKind::NotFound)?;
            let (ours, theirs) = UnixStream::pair()?;
            front.serve_node(theirs.into_std()?.into())?;
            let far = Far::new(front.downgrade(), limits.move_bytes);
            drop(front);
            pump(ours, sealed, Side::Far(far)).await;
            Ok(())
        }
        Hello::Control(identity) => answer(core, sealed, &identity).await,
    }
}

/// Answers a node's questions. One that asks nothing for too long is gone.
async fn answer(core: &Arc<Core>, mut sealed: Sealed, identity: &Identity) -> io::Result<()> {
    let limits = &core.config.limits;
    let me = core.me();
    sealed.say(&Reply::Welcome(me.clone())).await?;
    if identity.run != me.run && identity.number.is_some() {
        core.introduced(&identity.addr);
    }
    let mut buffer = Vec::new();
    loop {
        let reply = match timeout(limits.expiry(), sealed.hear_any(&mut buffer)).await?? {
            Request::Ping => {
                core.introduced(&identity.addr);
                Reply::Pong
            }
            Request::Has { ask, app, door, sid } => {
                let front = core.doors.find(&Name { app, door });
                Reply::Has { ask, yes: front.is_some_and(|front| front.has(sid.as_bytes())) }
            }
        };
        timeout(limits.expiry(), sealed.say(&reply)).await??;
    }
}
