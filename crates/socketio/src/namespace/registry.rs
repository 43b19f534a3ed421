//! Which namespaces there are: those the app made, and those made when a client asked for a name that a parent allows.
//!
//! A child is counted by its sockets from before their middleware until they have left and nothing of them runs. Sockets are counted in under the
//! lock under which empty children are taken out, so nobody enters one that has gone.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use parking_lot::{Mutex, ReentrantMutex, RwLock};
use serde_json::Value;
use tokio::runtime::Handle;

use super::pattern::{Params, Pattern};
use super::{Namespace, Table};
use crate::error::{ConnectError, Failure, HandlerError};
use crate::io::Shared;
use crate::recovery::elsewhere;
use crate::session::running::drop_apps;

#[derive(Default)]
pub(crate) struct Registry {
    tables: RwLock<Tables>,
    parents: RwLock<Arc<[Parent]>>,
    on_new: RwLock<Option<OnNew>>,
    /// Where a client brought about a child last: for what comes to an end outside of any runtime.
    runtime: Mutex<Option<Handle>>,
    /// Nobody looks after some child that may be empty.
    unattended: AtomicBool,
    /// Held while the app sets a new namespace up. It may ask for others then, on the same thread.
    setting_up: ReentrantMutex<()>,
}

#[derive(Default)]
struct Tables {
    by_name: HashMap<Arc<str>, Arc<Table>>,
    /// How many of them clients have brought about.
    dynamic: usize,
}

impl Tables {
    /// The namespace of that name stays, if it is there.
    fn pin(&mut self, nsp: &str) -> Option<Arc<Table>> {
        let table = self.by_name.get(nsp)?.clone();
        if !table.pinned.swap(true, Ordering::Relaxed) && table.parent.is_some() {
            // No longer one of those that clients may bring about as they like.
            self.dynamic -= 1;
        }
        Some(table)
    }

    /// One of those that clients have brought about goes.
    fn take_out(&mut self, nsp: &str) {
        self.dynamic -= usize::from(self.by_name.remove(nsp).is_some());
    }
}

type OnNew = Arc<dyn Fn(&Namespace) + Send + Sync>;

/// Answers whether a client may have the namespace.
pub(crate) type Predicate = Arc<dyn Fn(String, Value) -> Deciding + Send + Sync>;

type Deciding = Pin<Box<dyn Future<Output = bool> + Send>>;

#[derive(Clone)]
pub(crate) enum Rule {
    Pattern(Arc<Pattern>),
    When(Predicate),
}

#[derive(Clone)]
struct Parent {
    rule: Rule,
    table: Arc<Table>,
}

/// Keeps a child in being. The table of any other namespace stays in any case.
pub(crate) struct Hold(Arc<Table>);

impl Hold {
    /// Under the registry's lock, or while there is another.
    fn new(table: &Arc<Table>) -> Hold {
        if table.parent.is_some() {
            table.held.fetch_add(1, Ordering::Relaxed);
        }
        Hold(table.clone())
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.0
    }

    /// Another of the same.
    pub(crate) fn again(&self) -> Hold {
        Hold::new(&self.0)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.parent.is_some() && self.0.held.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.tidy();
        }
    }
}

/// What a client that asks for a namespace gets.
pub(crate) enum Claim {
    Granted(Hold),
    Refused(ConnectError),
    /// A predicate is asked.
    Asked(Asking),
}

/// A predicate at work.
pub(crate) struct Asking {
    pub(crate) nsp: Arc<str>,
    pub(crate) auth: Box<str>,
    /// The client has taken it back.
    pub(crate) withdrawn: bool,
    /// The session the client wants to take up was looked for.
    looked: bool,
    work: Pin<Box<dyn Future<Output = Result<Hold, ConnectError>> + Send>>,
}

impl Asking {
    /// The client may join when the session it wants to take up was looked for on the other servers. `Err`: at once.
    pub(crate) fn to_look_for(hold: Hold, auth: &str) -> Result<Asking, Hold> {
        let Some(looking) = elsewhere::look_for(&hold, auth) else { return Err(hold) };
        let nsp = hold.table().name.clone();
        let work = Box::pin(async move {
            looking.await;
            Ok(hold)
        });
        Ok(Asking { nsp, auth: auth.into(), withdrawn: false, looked: true, work })
    }
}

/// Its end.
pub(crate) struct Decided {
    pub(crate) nsp: Arc<str>,
    pub(crate) auth: Box<str>,
    pub(crate) withdrawn: bool,
    /// The session the client wants to take up was looked for.
    pub(crate) looked: bool,
    pub(crate) result: Result<Hold, ConnectError>,
}

impl Future for Asking {
    type Output = Decided;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Decided> {
        self.work.as_mut().poll(cx).map(|result| Decided {
            nsp: self.nsp.clone(),
            auth: std::mem::take(&mut self.auth),
            withdrawn: self.withdrawn,
            looked: self.looked,
            result,
        })
    }
}

impl Registry {
    pub(crate) fn get(&self, nsp: &str) -> Option<Arc<Table>> {
        self.tables.read().by_name.get(nsp).cloned()
    }

    /// A namespace, or a parent by its own name: what other servers may speak of.
    pub(crate) fn target(&self, nsp: &str) -> Option<Arc<Table>> {
        if nsp.starts_with('/') {
            return self.get(nsp);
        }
        let parents = self.parents.read();
        parents.iter().find(|parent| &*parent.table.name == nsp).map(|parent| parent.table.clone())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.tables.read().by_name.keys().map(|name| name.to_string()).collect()
    }

    pub(crate) fn children(&self, parent: &Table) -> Vec<Arc<Table>> {
        let is_child = |table: &&Arc<Table>| {
            table.parent.as_ref().is_some_and(|other| std::ptr::eq(Arc::as_ptr(other), parent))
        };
        self.tables.read().by_name.values().filter(is_child).cloned().collect()
    }

    pub(crate) fn set_on_new(&self, hook: OnNew) {
        *self.on_new.write() = Some(hook);
    }

    /// The namespace of that name, made if need be; it stays.
    pub(crate) fn make(&self, shared: &Arc<Shared>, nsp: &str) -> Arc<Table> {
        if let Some(table) = self.get(nsp)
            && (table.parent.is_none() || table.pinned.load(Ordering::Relaxed))
        {
            return table;
        }
        if let Some(table) = self.tables.write().pin(nsp) {
            return table;
        }
        let parents = self.parents.read().clone();
        let (parent, params) = matching(&parents, nsp).unzip();
        let _setting_up = self.setting_up.lock();
        let mut tables = self.tables.write();
        if let Some(table) = tables.pin(nsp) {
            return table;
        }
        let parent = parent.map(|parent| parent.table.clone());
        let table = Arc::new(Table::new(nsp.into(), shared).child_of(parent, params.unwrap_or_default()));
        table.pinned.store(true, Ordering::Relaxed);
        tables.by_name.insert(table.name.clone(), table.clone());
        drop(tables);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.set_up(&table))) {
            // Whoever asks next tries again.
            self.tables.write().by_name.remove(&table.name);
            resume_unwind(panic);
        }
        table
    }

    /// A parent: the namespaces that follow `rule` are its children.
    pub(crate) fn add_parent(&self, shared: &Arc<Shared>, name: Option<&str>, rule: Rule) -> Arc<Table> {
        let mut parents = self.parents.write();
        // No name of a namespace begins like this: neither clients nor other servers take one for the other.
        let name = match name {
            Some(pattern) => format!("~{pattern}"),
            None => format!("~{}", parents.len()),
        };
        if let Some(known) = parents.iter().find(|parent| *parent.table.name == *name) {
            return known.table.clone();
        }
        let table = Arc::new(Table::new(name.into(), shared).parent());
        let parent = Parent { rule, table: table.clone() };
        *parents = parents.iter().cloned().chain([parent]).collect();
        table
    }

    /// A client asks for a namespace, which is there or whose name a parent may allow.
    pub(crate) fn claim(&self, shared: &Arc<Shared>, nsp: &str, auth: &str) -> Claim {
        let there = self.tables.read().by_name.get(nsp).map(Hold::new);
        if let Some(hold) = there {
            return match self.enters(hold) {
                Ok(hold) => Claim::Granted(hold),
                Err(error) => Claim::Refused(error),
            };
        }
        let parents = self.parents.read().clone();
        if parents.is_empty() || nsp.len() > shared.options.max_namespace_length {
            return Claim::Refused(invalid());
        }
        for (index, parent) in parents.iter().enumerate() {
            match &parent.rule {
                Rule::Pattern(pattern) => {
                    if let Some(params) = pattern.matches(nsp) {
                        return match self.child(shared, nsp, &parent.table, params) {
                            Ok(hold) => Claim::Granted(hold),
                            Err(error) => Claim::Refused(error),
                        };
                    }
                }
                // Those after it come when it has answered.
                Rule::When(_) => {
                    let (name, auth): (Arc<str>, Box<str>) = (nsp.into(), auth.into());
                    let value = serde_json::from_str(&auth).unwrap_or_default();
                    let work = Box::pin(ask(shared.clone(), parents, index, name.clone(), value));
                    return Claim::Asked(Asking { nsp: name, auth, withdrawn: false, looked: false, work });
                }
            }
        }
        Claim::Refused(invalid())
    }

    fn child(
        &self,
        shared: &Arc<Shared>,
        nsp: &str,
        parent: &Arc<Table>,
        params: Params,
    ) -> Result<Hold, ConnectError> {
        self.attend();
        let _setting_up = self.setting_up.lock();
        let mut tables = self.tables.write();
        if let Some(table) = tables.by_name.get(nsp) {
            let hold = Hold::new(table);
            drop(tables);
            return self.enters(hold);
        }
        let most = shared.options.max_dynamic_namespaces;
        if tables.dynamic >= most {
            drop(tables);
            let count = shared.counters.namespaces_refused.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_power_of_two() {
                tracing::warn!(
                    nsp,
                    most,
                    count,
                    "namespace refused: clients have brought about too many (max_dynamic_namespaces)"
                );
            }
            return Err(ConnectError::new("Too many namespaces on this server"));
        }
        let table = Arc::new(Table::new(nsp.into(), shared).child_of(Some(parent.clone()), params));
        tables.by_name.insert(table.name.clone(), table.clone());
        tables.dynamic += 1;
        let hold = Hold::new(&table);
        drop(tables);
        let set_up = catch_unwind(AssertUnwindSafe(|| self.set_up(&table)));
        if set_up.is_err() {
            tracing::error!(nsp, "on_new_namespace panicked: nobody is let in");
        }
        self.enters(hold)
    }

    /// Nobody enters before the app has set the namespace up: its middleware may be missing.
    fn enters(&self, hold: Hold) -> Result<Hold, ConnectError> {
        let set_up = || hold.table().set_up.load(Ordering::Acquire);
        if set_up() {
            return Ok(hold);
        }
        drop(self.setting_up.lock());
        if set_up() { Ok(hold) } else { Err(ConnectError::new("Internal error")) }
    }

    /// Remembers the runtime this is, and looks after the children that nobody looks after.
    fn attend(&self) {
        let Ok(runtime) = Handle::try_current() else { return };
        *self.runtime.lock() = Some(runtime);
        if self.unattended.load(Ordering::Relaxed) && self.unattended.swap(false, Ordering::AcqRel) {
            let tables = self.tables.read().by_name.values().cloned().collect::<Vec<_>>();
            tables.iter().filter(|table| table.parent.is_some()).for_each(|table| table.tidy());
        }
    }

    /// The current runtime, or the one that was last seen, which may have ended.
    pub(super) fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok().or_else(|| self.runtime.lock().clone())
    }

    /// Nobody looks after some child: it is looked at again when a client brings about another.
    pub(super) fn unattended(&self) {
        self.unattended.store(true, Ordering::Release);
    }

    /// Takes a child out if it is empty, and nobody may come back to it.
    pub(super) fn tidy(&self, table: &Table) {
        let mut tables = self.tables.write();
        let same = |other: &&Arc<Table>| std::ptr::eq(Arc::as_ptr(other), table);
        let Some(there) = tables.by_name.get(&table.name).filter(same).cloned() else { return };
        if table.held.load(Ordering::Acquire) > 0 || table.pinned.load(Ordering::Relaxed) {
            return;
        }
        if let Some(until) = table.awaited_until() {
            drop(tables);
            return there.tidy_at(until, self);
        }
        tables.take_out(&table.name);
        table.removed.store(true, Ordering::Release);
        drop(tables);
        // They often hold the namespace itself.
        let handlers = std::mem::take(&mut *there.handlers.write());
        drop_apps(&there.counters, handlers);
    }

    fn set_up(&self, table: &Arc<Table>) {
        let hook = self.on_new.read().clone();
        if let Some(hook) = hook {
            hook(&Namespace::new(table.clone()));
        }
        table.set_up.store(true, Ordering::Release);
    }
}

fn invalid() -> ConnectError {
    ConnectError::new("Invalid namespace")
}

fn matching<'a>(parents: &'a [Parent], nsp: &str) -> Option<(&'a Parent, Params)> {
    parents.iter().find_map(|parent| match &parent.rule {
        Rule::Pattern(pattern) => Some((parent, pattern.matches(nsp)?)),
        Rule::When(_) => None,
    })
}

/// Goes on with the parents from the `first` on, in their order, until one allows the name.
async fn ask(
    shared: Arc<Shared>,
    parents: Arc<[Parent]>,
    first: usize,
    nsp: Arc<str>,
    auth: Value,
) -> Result<Hold, ConnectError> {
    for parent in &parents[first..] {
        let params = match &parent.rule {
            Rule::Pattern(pattern) => pattern.matches(&nsp),
            Rule::When(predicate) => {
                let ask = AssertUnwindSafe(async { predicate(nsp.to_string(), auth.clone()).await });
                match futures_util::FutureExt::catch_unwind(ask).await {
                    Ok(allowed) => allowed.then(Params::default),
                    Err(panic) => {
                        let failure = Failure::Panicked(crate::session::running::message(&*panic));
                        let _ = catch_unwind(AssertUnwindSafe(|| {
                            parent.table.report(&HandlerError {
                                namespace: nsp.to_string(),
                                socket_id: String::new(),
                                event: "of_when".into(),
                                failure,
                            });
                        }));
                        return Err(ConnectError::new("Internal error"));
                    }
                }
            }
        };
        if let Some(params) = params {
            return shared.registry.child(&shared, &nsp, &parent.table, params);
        }
    }
    Err(invalid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SocketIo;

    fn claim(io: &SocketIo, nsp: &str) -> Hold {
        match io.shared().registry.claim(io.shared(), nsp, "") {
            Claim::Granted(hold) => hold,
            _ => panic!("not granted"),
        }
    }

    #[tokio::test]
    async fn only_an_empty_child_that_is_still_the_one_of_its_name_goes() {
        let io = SocketIo::new();
        io.of_pattern("/{any}").unwrap();
        let registry = &io.shared().registry;
        let (first, second) = (claim(&io, "/a"), claim(&io, "/a"));
        let old = first.table().clone();
        drop(first);
        // The last one had left, but before it was taken out somebody came.
        registry.tidy(&old);
        assert!(registry.get("/a").is_some());
        drop(second);
        assert!(registry.get("/a").is_none());
        let new = claim(&io, "/a");
        registry.tidy(&old);
        assert!(registry.get("/a").is_some());
        io.of("/a");
        drop(new);
        assert!(registry.get("/a").is_some());
        assert_eq!(registry.tables.read().dynamic, 0);
    }
}
