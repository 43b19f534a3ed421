//! One connection.

use std::sync::Arc;
use std::task::Context;

use sundew_engineio::{CloseReason, Handshake, Message, Protocol, Session, SessionHandle};

use crate::io::Shared;

/// The protocol, as the engine sees it.
#[derive(Debug)]
pub struct Server(());

impl Server {
    pub(crate) fn new(_: Arc<Shared>) -> Server {
        Server(())
    }
}

impl Protocol for Server {
    type Session = Connection;
    fn open(&self, _: SessionHandle, _: Handshake) -> Connection {
        unimplemented!()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection(());

impl Session for Connection {
    fn message(&mut self, _: Message) {
        unimplemented!()
    }
    fn poll(&mut self, _: &mut Context<'_>) {}
    fn ready_for_more(&self) -> bool {
        true
    }
    fn close(self, _: CloseReason) {}
}
