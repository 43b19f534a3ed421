//! Lends a server's sessions to the worker: to count, to drain, to close.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sundew_socketio::SocketIo;
use sundew_worker::{Pace, SessionStats, Sessions};

pub(crate) struct Hooks(pub(crate) SocketIo);

impl Sessions for Hooks {
    fn stats(&self) -> SessionStats {
        let stats = self.0.stats();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        SessionStats {
            sessions: count(stats.sessions),
            polling: count(stats.polling),
            websocket: count(stats.websocket),
        }
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.0.changed().boxed()
    }

    fn drain(&self, deadline: Duration, pace: Pace) -> BoxFuture<'_, ()> {
        let batch = usize::try_from(pace.batch).unwrap_or(usize::MAX);
        self.0.drain(deadline, sundew_engineio::Pace { batch, pause: pace.pause }).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.close().boxed()
    }
}
