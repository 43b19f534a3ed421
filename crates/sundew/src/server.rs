//! The server an app holds: Socket.IO's, built for where it runs.

use std::ops::Deref;

use sundew_socketio::call::Call;
use sundew_socketio::extract::{Extract, ExtractError};

use crate::Builder;

/// A Socket.IO server that works alone and as one of a supervisor's workers. Cheap to clone: hold one wherever something
/// is to be emitted.
///
/// All of [`sundew_socketio::SocketIo`] is there too. What is asked for its server gives one of those, which is made into
/// this one:
///
/// ```no_run
/// # use sundew::{Namespace, Socket, SocketIo};
/// fn servers(socket: &Socket, namespace: &Namespace) -> Option<(SocketIo, SocketIo)> {
///     Some((socket.io()?.into(), namespace.io()?.into()))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct SocketIo(sundew_socketio::SocketIo);

impl SocketIo {
    /// A server with default options. See [`Builder::build`].
    pub fn new() -> SocketIo {
        SocketIo::builder().build()
    }

    /// Options, to build a server from.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

/// The same server, as [`Socket::io`](crate::Socket::io) and [`Namespace::io`](crate::Namespace::io) give it.
impl From<sundew_socketio::SocketIo> for SocketIo {
    fn from(server: sundew_socketio::SocketIo) -> SocketIo {
        SocketIo(server)
    }
}

impl Default for SocketIo {
    fn default() -> SocketIo {
        SocketIo::new()
    }
}

impl Deref for SocketIo {
    type Target = sundew_socketio::SocketIo;

    fn deref(&self) -> &sundew_socketio::SocketIo {
        &self.0
    }
}

/// The server, in handlers.
impl<C: Call> Extract<C> for SocketIo {
    fn extract(call: &mut C) -> Result<SocketIo, ExtractError> {
        Extract::extract(call).map(SocketIo)
    }
}
