//! What a handler is called with; extractors read from it.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::ack::Owed;
use crate::packet::{Args, Packet};
use crate::{DisconnectReason, Namespace, Socket};

/// A call of a handler.
pub trait Call: Send + 'static {
    /// Where it belongs.
    fn namespace(&self) -> Namespace;
}

/// A call of a handler about one socket.
pub trait SocketCall: Call {
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

/// Another server sent an event.
#[derive(Debug)]
pub struct ServerCall {
    pub(crate) namespace: Namespace,
    pub(crate) event: Arc<str>,
    pub(crate) args: Args,
    pub(crate) answer: Option<oneshot::Sender<Packet>>,
}

impl Call for ServerCall {
    fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }
}

macro_rules! call {
    ($($name:ident),*) => {$(
        impl Call for $name {
            fn namespace(&self) -> Namespace {
                self.socket.namespace()
            }
        }

        impl SocketCall for $name {
            fn socket(&self) -> &Socket {
                &self.socket
            }
        }
    )*};
}
call!(ConnectCall, EventCall, DisconnectCall);
