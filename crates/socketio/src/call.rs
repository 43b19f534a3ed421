//! What a handler is called with; extractors read from it.

use std::sync::Arc;

use crate::ack::Owed;
use crate::packet::Args;
use crate::{DisconnectReason, Socket};

/// A call of a handler.
pub trait Call: Send + 'static {
    /// Whose it is.
    fn socket(&self) -> &Socket;
}

/// A socket connects: middleware, then `on_connect`.
#[derive(Debug)]
pub struct ConnectCall {
    pub(crate) socket: Socket,
}

/// An event arrived.
#[derive(Debug)]
pub struct EventCall {
    pub(crate) socket: Socket,
    pub(crate) event: Arc<str>,
    pub(crate) args: Args,
    pub(crate) ack: Option<Arc<Owed>>,
}

impl EventCall {
    /// For an observer: it cannot answer.
    pub(crate) fn observed(&self) -> EventCall {
        EventCall {
            socket: self.socket.clone(),
            event: self.event.clone(),
            args: self.args.clone(),
            ack: None,
        }
    }
}

/// A socket leaves.
#[derive(Debug)]
pub struct DisconnectCall {
    pub(crate) socket: Socket,
    pub(crate) reason: DisconnectReason,
}

macro_rules! call {
    ($($name:ident),*) => {$(
        impl Call for $name {
            fn socket(&self) -> &Socket {
                &self.socket
            }
        }
    )*};
}
call!(ConnectCall, EventCall, DisconnectCall);
