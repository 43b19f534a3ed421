//! How many connections a worker has that does not tell (no preload): its open files, less those it had before it served.
//! An estimate, looked up at most once a second and only by who asks.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::proc;

const FRESH: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Count {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    pid: u32,
    /// Open files before it served.
    before: Option<u64>,
    last: Option<(Instant, u64)>,
}

impl Count {
    pub(super) fn runs_as(&self, pid: u32) {
        self.inner.lock().pid = pid;
    }

    /// It serves from now on.
    pub(super) fn begin(&self) {
        let mut inner = self.inner.lock();
        if inner.before.is_none() {
            inner.before = proc::open_files(inner.pid);
        }
    }

    /// Of `taken` connections, so many are open.
    pub(super) fn open(&self, taken: u64) -> u64 {
        if taken == 0 {
            return 0;
        }
        let mut inner = self.inner.lock();
        let known = inner.last.filter(|(at, _)| at.elapsed() < FRESH);
        let open = known.map(|(_, open)| open).or_else(|| {
            let now = proc::open_files(inner.pid)?;
            Some(now.saturating_sub(inner.before?))
        });
        // Where nobody can tell, all of them are.
        let Some(open) = open else { return taken };
        if known.is_none() {
            inner.last = Some((Instant::now(), open));
        }
        open.min(taken)
    }
}
