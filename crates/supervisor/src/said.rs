//! What Node workers say about themselves, and what follows: the dispatcher's steps for them.

use sundew_channel::node::Query;

use crate::dispatcher::State;
use crate::ecosystem::Kind;
use crate::node::listen::{Said, may_leave};
use crate::state::{App, Listening, Role, backend_id};
use crate::worker::{Report, Worker, WorkerId};

impl State {
    /// A Node worker said something.
    pub(crate) fn said(&mut self, name: &str, id: WorkerId, said: Said) {
        match said {
            Said::Asks { seq, query, http, server } => {
                if let Some(node) = self.node_of(name, id) {
                    node.server_is(&query.key(), server);
                }
                self.asked(id, seq, &query, http);
            }
            Said::Listens { query } => {
                let Some(asked) = self.apps.get(name).and_then(|app| listed(app, id, &query)) else { return };
                self.listens(name, id, asked);
            }
            Said::TakesSticky => self.takes_sticky(id),
            Said::Ready => {
                let Some(worker) = self.apps.get_mut(name).and_then(|app| app.worker_mut(id)) else { return };
                worker.said_ready = true;
                self.if_ready(name, id);
            }
            Said::Closed { key } => self.closed(name, id, &key),
            Said::Leaves { seq } => {
                let Some(app) = self.apps.get_mut(name) else { return };
                let Some(worker) = app.worker_mut(id) else { return };
                worker.leaves = true;
                if let Some(node) = worker.link.node() {
                    may_leave(node, seq);
                }
                if let Some(worker) = app.worker(id) {
                    app.drain(worker);
                }
            }
        }
    }

    fn node_of(&self, name: &str, id: WorkerId) -> Option<&std::sync::Arc<crate::node::Node>> {
        self.apps.get(name)?.worker(id)?.link.node()
    }

    /// A worker listens: with its first address it may be ready, with a further one it is known there as well.
    pub(crate) fn listens(&mut self, name: &str, id: WorkerId, asked: String) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(worker) = app.worker_mut(id) else { return };
        if worker.listens.contains(&asked) {
            return;
        }
        if let Err(reason) = self.open_own_door(name, id) {
            return self.refuse_for_good(name, id, reason);
        }
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(worker) = app.worker_mut(id) else { return };
        worker.listens.push(asked.clone());
        let serves = matches!(app.role(id), Some(Role::Current(_)));
        match app.worker(id) {
            Some(worker) if worker.routed && serves => app.open_door(worker, &asked),
            _ => self.if_ready(name, id),
        }
    }

    /// A worker closed one of its servers.
    fn closed(&mut self, name: &str, id: WorkerId, key: &str) {
        let Some(app) = self.apps.get_mut(name) else { return };
        if let Some(worker) = app.worker_mut(id) {
            worker.asked.retain(|asked| asked != key);
            if let Some(node) = worker.link.node() {
                node.forget_server(key);
            }
        }
        if app.datagrams.contains_key(key) {
            if !app.workers().any(|worker| worker.asked.iter().any(|asked| asked == key)) {
                app.datagrams.remove(key);
            }
            return;
        }
        let Some(here) = app.listening.iter().find(|here| here.asked == key) else { return };
        let front = here.front.clone();
        let Some(worker) = app.worker_mut(id) else { return };
        worker.listens.retain(|asked| asked != key);
        let backend = backend_id(worker);
        let timeout = std::time::Duration::from_millis(worker.config.sundew.drain_timeout);
        if let Some(node) = worker.link.node() {
            node.not_at_door(&front);
        }
        front.drain(backend);
        // The requests it works on are answered.
        tokio::spawn(async move { front.retire(backend, timeout).await });
        app.close_unused();
    }

    /// Reports the worker ready if it is.
    fn if_ready(&mut self, name: &str, id: WorkerId) {
        let ready = self.apps.get(name).and_then(|app| app.worker(id)).is_some_and(is_ready);
        if ready {
            self.report(id, Report::Ready);
        }
    }
}

/// The name under which a worker's new server is listed. None: a UDP port, or a socket of its own.
fn listed(app: &App, id: WorkerId, query: &Query) -> Option<String> {
    let (worker, key) = (app.worker(id)?, query.key());
    let mut listed = app.listening.iter().filter(|here| worker.asked.contains(&here.asked));
    let by_name = |here: &&Listening| here.asked == key;
    if let Some(here) = listed.clone().find(by_name) {
        return Some(here.asked.clone());
    }
    // Who asked for any port now names the one it got.
    let port =
        |here: &&Listening| here.addr.tcp().is_some_and(|addr| Some(i64::from(addr.port())) == query.port);
    listed.find(port).map(|here| here.asked.clone())
}

/// pm2's rule: with `wait_ready` it is ready when it says so, else when it listens. Here a cluster worker that says so
/// must listen as well: before that, nothing could be sent to it.
fn is_ready(worker: &Worker) -> bool {
    let listens = worker.config.kind == Kind::None || !worker.listens.is_empty();
    listens && (worker.said_ready || !worker.config.wait_ready)
}
