//! The local bus: every worker of an app linked to every other, each operation and request sent to all of them.
//!
//! A frame is serialised once for all links. A link has a bounded queue: when a worker does not read, what does not fit
//! is dropped for that worker, counted and logged, and the others notice nothing.

mod answer;
mod frame;
mod link;
mod pending;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use sundew_socketio::adapter::{Adapter, AdapterError, Local, Operation, Request, Responses};
use tokio::net::UnixStream;

use answer::Answering;
use frame::Frame;
use link::{Link, Receiver, Refused};
use pending::Pending;
use wire::Message;

pub use link::PeerName;

/// The adapter of an app's workers on one host.
#[derive(Debug, Clone)]
pub struct LocalBus(Arc<Bus>);

#[derive(Debug)]
struct Bus {
    local: OnceLock<Local>,
    links: RwLock<Vec<Arc<Link>>>,
    pending: Arc<Pending>,
    answering: Arc<Answering>,
    /// Dropped on links that have ended.
    dropped: AtomicU64,
}

impl LocalBus {
    /// A bus without links: [`add_peer`](LocalBus::add_peer) adds them, after the server has started it.
    pub fn new() -> LocalBus {
        LocalBus(Arc::new(Bus {
            local: OnceLock::new(),
            links: RwLock::default(),
            pending: Arc::default(),
            answering: Arc::default(),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Links to another worker over `stream`. The other end does the same; the link ends when either process does.
    ///
    /// # Errors
    /// Outside of a runtime.
    pub fn add_peer(&self, peer: PeerName, stream: std::os::unix::net::UnixStream) -> std::io::Result<()> {
        tokio::runtime::Handle::try_current().map_err(std::io::Error::other)?;
        stream.set_nonblocking(true)?;
        // The lock is held over the start: `ended` must find the link.
        let mut links = self.0.links.write();
        links.push(Link::start(peer, UnixStream::from_std(stream)?, self.0.clone()));
        Ok(())
    }

    /// The workers it is linked to.
    pub fn peers(&self) -> Vec<PeerName> {
        self.0.links.read().iter().map(|link| link.peer).collect()
    }

    /// How many messages were dropped because a worker did not read them.
    pub fn dropped(&self) -> u64 {
        let links = self.0.links.read();
        self.0.dropped.load(Ordering::Relaxed) + links.iter().map(|link| link.dropped()).sum::<u64>()
    }
}

impl Default for LocalBus {
    fn default() -> LocalBus {
        LocalBus::new()
    }
}

impl Adapter for LocalBus {
    fn start(&self, local: Local) {
        if self.0.local.set(local).is_err() {
            tracing::error!("one bus was given to two servers: it stays with the first");
        }
    }

    fn publish(&self, nsp: &str, operation: &Operation) -> Result<(), AdapterError> {
        let frame = wire::operation(nsp, operation).map_err(unavailable)?;
        let mut full = Vec::new();
        for link in self.0.links.read().iter() {
            // A peer that is gone needs no news.
            if link.send(frame.clone()) == Err(Refused::Full) {
                full.push(link.peer.to_string());
            }
        }
        if full.is_empty() { Ok(()) } else { Err(AdapterError::Full(format!("worker {}", full.join(", ")))) }
    }

    fn request(&self, nsp: &str, request: Request, timeout: Duration) -> Responses {
        let bus = &self.0;
        let ask = |id| wire::request(id, nsp, request, timeout).map_err(unavailable);
        bus.pending.ask(&bus.links.read(), ask, timeout)
    }

    fn server_count(&self) -> usize {
        1 + self.0.links.read().len()
    }

    fn dropped(&self) -> u64 {
        LocalBus::dropped(self)
    }

    fn close(&self) {
        for link in self.0.links.read().iter() {
            link.close();
        }
    }
}

fn unavailable(error: wire::WireError) -> AdapterError {
    AdapterError::Unavailable(error.to_string())
}

impl Receiver for Bus {
    fn received(&self, link: &Arc<Link>, frame: Frame) {
        let message = match wire::read(frame) {
            Ok(message) => message,
            Err(error) => {
                return tracing::warn!(peer = %link.peer, %error, "a message of the bus was ignored");
            }
        };
        match message {
            Message::Operation { nsp, operation } => match self.local.get() {
                Some(local) => local.apply(&nsp, operation),
                None => tracing::warn!("a message of the bus came before the server was started: ignored"),
            },
            Message::Request { id, nsp, timeout, request } => match self.local.get() {
                Some(local) => self.answering.answer(link, id, local, &nsp, request, timeout),
                None => answer::done(link, id),
            },
            Message::Cancel { id } => self.answering.cancel(id, link.id),
            Message::Answer { id, response } => self.pending.answer(id, response),
            Message::Done { id } => self.pending.done(id, link.id),
            Message::Failed { id, why } => self.pending.failed(id, link.id, &why),
        }
    }

    fn ended(&self, link: &Arc<Link>) {
        self.links.write().retain(|other| other.id != link.id);
        self.dropped.fetch_add(link.dropped(), Ordering::Relaxed);
        self.pending.gone(link.id);
        self.answering.gone(link.id);
    }
}
