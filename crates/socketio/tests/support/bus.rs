//! Servers in one process, joined by links that keep the order of what goes through them. What is said on a slow one arrives
//! with the next answer that comes on it; what is said on a broken one never does.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use sundew_socketio::adapter::{Adapter, AdapterError, Local, Operation, Request, Responses};

/// From one server to another.
type Link = (usize, usize);

#[derive(Default)]
pub struct Bus {
    servers: Mutex<Vec<Local>>,
    slow: Mutex<HashSet<Link>>,
    broken: Mutex<HashSet<Link>>,
    waiting: Mutex<Vec<(Link, String, Operation)>>,
}

impl Bus {
    pub fn slow_down(&self, link: Link) {
        self.slow.lock().insert(link);
    }

    pub fn break_off(&self, link: Link) {
        self.broken.lock().insert(link);
    }

    fn server(&self, index: usize) -> Local {
        self.servers.lock()[index].clone()
    }

    fn deliver(&self, link: Link) {
        let here: Vec<_> = self.waiting.lock().extract_if(.., |(on, ..)| *on == link).collect();
        for (_, nsp, operation) in here {
            self.server(link.1).apply(&nsp, operation);
        }
    }
}

/// One server's end: its index, and how many there are. They are built in the order of their indices.
pub struct End(pub Arc<Bus>, pub usize, pub usize);

impl End {
    fn others(&self) -> Vec<usize> {
        (0..self.2).filter(|&other| other != self.1).collect()
    }
}

impl Adapter for End {
    fn start(&self, local: Local) {
        self.0.servers.lock().push(local);
    }

    fn publish(&self, nsp: &str, operation: &Operation) -> Result<(), AdapterError> {
        for other in self.others() {
            let link = (self.1, other);
            if self.0.broken.lock().contains(&link) {
                continue;
            }
            self.0.waiting.lock().push((link, nsp.to_owned(), operation.clone()));
            if !self.0.slow.lock().contains(&link) {
                self.0.deliver(link);
            }
        }
        Ok(())
    }

    fn request(&self, nsp: &str, request: Request, timeout: Duration) -> Responses {
        let answers = self.others().into_iter().map(|other| {
            let (bus, link) = (self.0.clone(), (other, self.1));
            let before = async move { bus.deliver(link) }.into_stream().filter_map(async |()| None);
            self.0.server(other).answer(nsp, request.clone(), timeout).chain(before)
        });
        stream::iter(answers.collect::<Vec<_>>()).flatten().boxed()
    }

    fn server_count(&self) -> usize {
        self.2
    }

    fn close(&self) {}
}
