//! Legs: the connections to one worker, in use and idle. A leg carries one request at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown};
use slab::Slab;
use tokio::io::{Interest, Ready};

use crate::backend::{Backend, Leg};
use crate::moving::Mover;

impl AsFd for Leg {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) | Self::Node(stream, _) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Leg {
    /// A stream of the runtime, of whatever family the socket is. It must not block.
    pub(crate) fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        Ok(match rustix::net::sockopt::socket_domain(&socket)? {
            AddressFamily::UNIX => Self::Unix(tokio::net::UnixStream::from_std(socket.into())?),
            _ => Self::Tcp(tokio::net::TcpStream::from_std(socket.into())?),
        })
    }

    /// Out of the runtime again.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Unix(stream) | Self::Node(stream, _) => stream.into_std()?.into(),
            Self::Tcp(stream) => stream.into_std()?.into(),
        })
    }

    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Unix(stream) | Self::Node(stream, _) => stream.ready(interest).await,
            Self::Tcp(stream) => stream.ready(interest).await,
        }
    }

    pub(crate) fn try_io<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Unix(stream) | Self::Node(stream, _) => stream.try_io(interest, io),
            Self::Tcp(stream) => stream.try_io(interest, io),
        }
    }

    /// Reads what is there; 0 is the end.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = None;
        let result = self.try_io(Interest::READABLE, || {
            let (_, got) = rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT)?;
            length = Some(got);
            // All that was there: the next event tells of more, no read needs to find out.
            if got < buffer.len() && got > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (length, result) {
            (Some(length), _) => Ok(length),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// As [`Leg::read`], without asking the runtime, which may not know yet of what is there.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, &mut *buffer, RecvFlags::DONTWAIT)?.1)
    }

    /// Who can be asked for the session of a websocket on this leg, if it leads to another node.
    pub(crate) fn mover(&self) -> Option<&Arc<dyn Mover>> {
        match self {
            Self::Node(_, mover) => Some(mover),
            Self::Unix(_) | Self::Tcp(_) => None,
        }
    }

    /// Writes what can be written now; how much that is.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Before asking the runtime: of a new leg it knows nothing yet.
        match send(self, bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        match self.try_io(Interest::WRITABLE, || send(self, bytes)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            done => done,
        }
    }

    /// Ends our side.
    pub(crate) fn end(&self) {
        let _ = rustix::net::shutdown(self, Shutdown::Write);
    }

    /// Ends both sides: who waits for an answer on it waits no more.
    pub(crate) fn end_both(&self) {
        // Ours alone, unlike a client's socket: nobody else holds this end.
        let _ = rustix::net::shutdown(self, Shutdown::Both);
    }

    /// Nothing has come over it and it has not ended. Costs no system call unless something happened since the last
    /// read.
    fn is_quiet(&self) -> bool {
        let peek = || {
            rustix::net::recv(self, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT)
                .map_err(io::Error::from)
        };
        matches!(self.try_io(Interest::READABLE, peek), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Writes to a socket without waiting.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(&socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// All legs to one worker.
#[derive(Debug, Default)]
pub(crate) struct Legs {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Every leg, so that all of them can be ended at once.
    open: Slab<Open>,
    /// The oldest first; the newest is used first, so that the others can age.
    idle: Vec<Idle>,
    closed: bool,
}

#[derive(Debug)]
struct Open {
    leg: Arc<Leg>,
    /// It is one session's websocket.
    session: bool,
}

#[derive(Debug)]
struct Idle {
    leg: Arc<Leg>,
    key: usize,
    since: Instant,
    /// The worker closes it when it has been idle for somewhat longer.
    life: Option<Duration>,
}

impl Idle {
    /// Whether it may carry another request. `once`: one that must not be sent twice, so that the worker has to be far
    /// from closing the leg.
    fn is_good(&self, once: bool) -> bool {
        let Some(life) = self.life else { return true };
        self.since.elapsed() < if once { life / 2 } else { life }
    }
}

/// Which leg a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Any,
    /// The request must not be sent twice: no leg that the worker may be about to close.
    Once,
    /// A new one.
    Fresh,
}

/// A leg in use. Dropped, it is closed; [`Lease::give_back`] keeps it.
#[derive(Debug)]
pub(crate) struct Lease {
    leg: Arc<Leg>,
    key: usize,
    legs: Arc<Legs>,
    kept: bool,
    /// It carried requests before: it may turn out to be stale.
    pub(crate) reused: bool,
}

impl Legs {
    /// An idle leg, or a new one.
    pub(crate) fn lease(self: &Arc<Self>, backend: &dyn Backend, wanted: Wanted) -> io::Result<Lease> {
        if wanted != Wanted::Fresh {
            while let Some(Idle { leg, key, .. }) = self.pop_idle(wanted == Wanted::Once) {
                let lease = Lease { leg, key, legs: self.clone(), kept: false, reused: true };
                if lease.leg.is_quiet() {
                    return Ok(lease);
                }
            }
        }
        let leg = Arc::new(backend.open_leg()?);
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(io::Error::from(io::ErrorKind::NotConnected));
        }
        let key = inner.open.insert(Open { leg: leg.clone(), session: false });
        Ok(Lease { leg, key, legs: self.clone(), kept: false, reused: false })
    }

    fn pop_idle(&self, once: bool) -> Option<Idle> {
        // The newest: where that will not do, no other does. The sweep closes what is too old for anything.
        self.inner.lock().idle.pop_if(|idle| idle.is_good(once))
    }

    /// Closes the legs that have been idle for `age`, or for as long as their worker keeps them.
    pub(crate) fn sweep(&self, age: Duration) {
        let mut inner = self.inner.lock();
        let Inner { open, idle, .. } = &mut *inner;
        idle.retain(|idle| {
            let keep = idle.since.elapsed() < age && idle.is_good(false);
            if !keep {
                open.try_remove(idle.key);
            }
            keep
        });
    }

    /// Takes the legs that are sessions' websockets. Each is given out once.
    pub(crate) fn take_sessions(&self) -> Vec<Arc<Leg>> {
        let mut inner = self.inner.lock();
        let session = |open: &mut Open| std::mem::take(&mut open.session).then(|| open.leg.clone());
        inner.open.iter_mut().filter_map(|(_, open)| session(open)).collect()
    }

    /// Ends every leg, also those in use, whose requests then see the worker gone. No new one can be opened.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.idle.clear();
        for (_, open) in &inner.open {
            open.leg.end_both();
        }
        inner.open.retain(|_, open| Arc::strong_count(&open.leg) > 1);
    }

    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.open.len(), inner.idle.len())
    }
}

impl Lease {
    pub(crate) fn leg(&self) -> &Arc<Leg> {
        &self.leg
    }

    /// The leg is a session's websocket from now on.
    pub(crate) fn is_session(&self) {
        if let Some(open) = self.legs.inner.lock().open.get_mut(self.key) {
            open.session = true;
        }
    }

    /// Keeps the leg for the next request, unless `limit` idle ones are there already. The answer to the last request
    /// must have been read to its end. `life`: how long it can be used.
    pub(crate) fn give_back(mut self, limit: usize, life: Option<Duration>) {
        if life.is_some_and(|life| life.is_zero()) {
            return;
        }
        let mut inner = self.legs.inner.lock();
        if !inner.closed && inner.idle.len() < limit {
            let idle = Idle { leg: self.leg.clone(), key: self.key, since: Instant::now(), life };
            inner.idle.push(idle);
            self.kept = true;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.kept {
            self.legs.inner.lock().open.try_remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::backend::{BackendId, HandOff};

    #[derive(Default)]
    struct Worker(Mutex<Vec<std::os::unix::net::UnixStream>>);

    impl Backend for Worker {
        fn id(&self) -> BackendId {
            BackendId { slot: 0, generation: 0 }
        }
        fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
            Err(connection)
        }
        fn open_leg(&self) -> io::Result<Leg> {
            let (ours, theirs) = tokio::net::UnixStream::pair()?;
            self.0.lock().push(theirs.into_std()?);
            Ok(Leg::Unix(ours))
        }
        fn sessions(&self) -> u32 {
            0
        }
        fn placements_seen(&self) -> u64 {
            0
        }
    }

    #[tokio::test]
    async fn a_leg_is_used_again_unless_it_is_stale_or_one_too_many() {
        let (worker, legs) = (Worker::default(), Arc::new(Legs::default()));
        let first = legs.lease(&worker, Wanted::Any).unwrap();
        let second = legs.lease(&worker, Wanted::Any).unwrap();
        assert_eq!(legs.counts(), (2, 0));
        first.give_back(1, None);
        second.give_back(1, None);
        assert_eq!(legs.counts(), (1, 1));

        let again = legs.lease(&worker, Wanted::Any).unwrap();
        assert!(again.reused);
        again.give_back(1, None);
        assert!(!legs.lease(&worker, Wanted::Fresh).unwrap().reused);

        // The worker closed the idle one, and wrote a late byte on another: neither may carry a request.
        worker.0.lock().clear();
        tokio::task::yield_now().await;
        let fresh = legs.lease(&worker, Wanted::Any).unwrap();
        assert!(!fresh.reused);
        fresh.give_back(1, None);
        worker.0.lock()[0].write_all(b"late").unwrap();
        tokio::task::yield_now().await;
        assert!(!legs.lease(&worker, Wanted::Any).unwrap().reused);
        assert_eq!(legs.counts(), (0, 0));
    }

    #[tokio::test]
    async fn idle_legs_age_and_a_lost_worker_ends_all() {
        let (worker, legs) = (Worker::default(), Arc::new(Legs::default()));
        let used = legs.lease(&worker, Wanted::Any).unwrap();
        legs.lease(&worker, Wanted::Any).unwrap().give_back(9, None);
        legs.sweep(Duration::from_secs(60));
        assert_eq!(legs.counts(), (2, 1));
        legs.sweep(Duration::ZERO);
        assert_eq!(legs.counts(), (1, 0));

        legs.close();
        let ready = used.leg().ready(Interest::READABLE).await.unwrap();
        assert!(ready.is_read_closed());
        assert!(legs.lease(&worker, Wanted::Any).is_err());
        used.give_back(9, None);
        assert_eq!(legs.counts(), (0, 0));
    }

    #[tokio::test]
    async fn a_leg_is_used_no_longer_than_its_worker_keeps_it() {
        let (worker, legs) = (Worker::default(), Arc::new(Legs::default()));
        let lease = |wanted| legs.lease(&worker, wanted).unwrap();
        let long = Some(Duration::from_secs(1000));
        lease(Wanted::Any).give_back(9, long);
        let again = lease(Wanted::Once);
        assert!(again.reused);
        again.give_back(9, long);
        // As if it had been idle for so long.
        let age = |secs| {
            let mut inner = legs.inner.lock();
            let since = Instant::now().checked_sub(Duration::from_secs(secs)).unwrap();
            inner.idle.iter_mut().for_each(|idle| idle.since = since);
        };
        age(600);
        let once = lease(Wanted::Once);
        assert!(!once.reused, "more than half of its time is over");
        drop(once);
        let any = lease(Wanted::Any);
        assert!(any.reused);
        any.give_back(9, long);
        age(1001);
        assert!(!lease(Wanted::Any).reused);
        assert_eq!(legs.counts(), (1, 1));
        legs.sweep(Duration::from_secs(100_000));
        assert_eq!(legs.counts(), (0, 0));
        lease(Wanted::Any).give_back(9, Some(Duration::ZERO));
        assert_eq!(legs.counts(), (0, 0));
    }
}
