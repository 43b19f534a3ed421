//! Lends a server's sessions to the worker: to count, to drain, to close.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sundew_engineio::{Arriving, Exported};
use sundew_io::Raw;
use sundew_socketio::SocketIo;
use sundew_worker::{Export, Import, Pace, SessionStats, Sessions};

pub(crate) struct Hooks(pub(crate) SocketIo);

impl Sessions for Hooks {
    fn is_for(&self, path: &str) -> bool {
        self.0.engine().path_matches(path)
    }

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
        self.0.engine().close().boxed()
    }

    fn finish(&self) -> BoxFuture<'_, ()> {
        self.0.finish().boxed()
    }

    fn export<'a>(&'a self, sid: &'a str, limit: usize) -> BoxFuture<'a, Option<Box<dyn Export>>> {
        let exported = self.0.engine().export(sid, limit);
        exported.map(|exported| Some(Box::new(Leaving(exported?)) as Box<dyn Export>)).boxed()
    }

    fn import(&self, state: &[u8]) -> Result<Box<dyn Import>, String> {
        let arriving = self.0.engine().import(state).map_err(|error| error.to_string())?;
        Ok(Box::new(Coming(Some(arriving))))
    }
}

struct Leaving(Exported);

impl Export for Leaving {
    fn state(&self) -> &[u8] {
        self.0.state()
    }

    fn release(self: Box<Self>) -> bool {
        self.0.release()
    }
}

struct Coming(Option<Arriving>);

impl Import for Coming {
    fn attach(&mut self, socket: Raw) -> bool {
        self.0.take().is_some_and(|arriving| arriving.attach(socket, &[]))
    }
}
