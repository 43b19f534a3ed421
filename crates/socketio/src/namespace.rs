//! A namespace: its handlers and its sockets.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::adapter::{BroadcastOptions, Operation, Request, Responses, SocketInfo};
use crate::io::Shared;

/// A namespace of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Table>);

#[derive(Debug)]
pub(crate) struct Table(Arc<str>);

impl Namespace {
    pub(crate) fn new(table: Arc<Table>) -> Namespace {
        Namespace(table)
    }

    /// Its name, with the slash.
    pub fn name(&self) -> &str {
        &self.0.0
    }
}

impl Table {
    pub(crate) fn new(name: Arc<str>, _: Weak<Shared>) -> Table {
        Table(name)
    }

    pub(crate) fn apply(&self, _: &Operation) {
        unimplemented!()
    }

    pub(crate) fn answer(&self, _: Request, _: Duration) -> Responses {
        unimplemented!()
    }

    pub(crate) fn describe(&self, _: &BroadcastOptions) -> Vec<SocketInfo> {
        unimplemented!()
    }
}
