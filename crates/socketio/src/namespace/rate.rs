//! How many events a socket may send: an allowance that comes back evenly (GCRA). Off unless the app sets one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{Namespace, Table};

/// The allowance of a namespace: so many events, spread over so long.
#[derive(Default)]
pub(super) struct Rate {
    /// Nanoseconds one event takes of the allowance. Zero: not said. [`OFF`]: said that there is none.
    each: AtomicU64,
    /// Nanoseconds the whole allowance takes to come back.
    all: AtomicU64,
}

/// Longer than any event takes: a child may be free of its parent's limit.
const OFF: u64 = u64::MAX;

/// What a namespace says of its sockets' allowance.
enum Said {
    Nothing,
    Off,
    Limit { each: Duration, all: Duration },
}

impl Rate {
    fn get(&self) -> Said {
        match self.each.load(Ordering::Relaxed) {
            0 => Said::Nothing,
            OFF => Said::Off,
            each => {
                let all = Duration::from_nanos(self.all.load(Ordering::Relaxed));
                Said::Limit { each: Duration::from_nanos(each), all }
            }
        }
    }
}

/// What one socket has used.
#[derive(Default)]
pub(crate) struct Used {
    /// When all of its allowance will have come back.
    whole: Option<Instant>,
    /// The last event was refused.
    over: bool,
}

/// Whether an event may pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Yes,
    /// The first that may not.
    Over,
    /// Nor may those after it.
    StillOver,
}

impl Used {
    fn pass(&mut self, each: Duration, all: Duration, now: Instant) -> Pass {
        let whole = self.whole.map_or(now, |whole| whole.max(now)) + each;
        if whole > now + all {
            return if std::mem::replace(&mut self.over, true) { Pass::StillOver } else { Pass::Over };
        }
        self.whole = Some(whole);
        self.over = false;
        Pass::Yes
    }
}

impl Table {
    /// An event came from the socket that `used` belongs to.
    pub(crate) fn pass(&self, used: &mut Used) -> Pass {
        let said = match (self.rate.get(), &self.parent) {
            (Said::Nothing, Some(parent)) => parent.rate.get(),
            (said, _) => said,
        };
        match said {
            Said::Nothing | Said::Off => Pass::Yes,
            Said::Limit { each, all } => used.pass(each, all, Instant::now()),
        }
    }
}

impl Namespace {
    /// Lets each socket send at most `events` at once, and as many again spread evenly `per` that time. Off by default, and
    /// with `events` or `per` zero, which on a child turns its parent's off. Acknowledgements do not count.
    ///
    /// An event beyond is dropped: if the client asked for an acknowledgement, it gets
    /// `{"error":{"message":"Too many events"}}`; [`Troubles::rate_limited`](crate::Troubles::rate_limited) counts it; and
    /// [`on_error`](Namespace::on_error) hears of the first in a row
    /// ([`Failure::RateLimited`](crate::Failure::RateLimited)): it may disconnect the socket.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use sundew_socketio::{Failure, SocketIo};
    /// # let io = SocketIo::new();
    /// io.rate_limit(50, Duration::from_secs(1));
    /// let namespace = (*io).clone();
    /// io.on_error(move |error| {
    ///     if let (Failure::RateLimited, Some(socket)) = (&error.failure, namespace.get(&error.socket_id)) {
    ///         socket.disconnect(true);
    ///     }
    /// });
    /// ```
    pub fn rate_limit(&self, events: u32, per: Duration) -> &Namespace {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        let each = per.checked_div(events).filter(|_| !per.is_zero()).map_or(OFF, |each| nanos(each).max(1));
        // Of times shorter than that many nanoseconds, too, all may come at once.
        let all = nanos(per).max(u64::from(events));
        self.0.rate.all.store(all, Ordering::Relaxed);
        self.0.rate.each.store(each, Ordering::Relaxed);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_comes_back_evenly() {
        let (each, all) = (Duration::from_millis(100), Duration::from_millis(300));
        let start = Instant::now();
        let mut used = Used::default();
        let mut at = |ms| used.pass(each, all, start + Duration::from_millis(ms));
        assert_eq!([at(0), at(0), at(0)], [Pass::Yes, Pass::Yes, Pass::Yes]);
        assert_eq!([at(0), at(50), at(99)], [Pass::Over, Pass::StillOver, Pass::StillOver]);
        assert_eq!([at(100), at(100)], [Pass::Yes, Pass::Over]);
        assert_eq!([at(310), at(310), at(310)], [Pass::Yes, Pass::Yes, Pass::Over]);
        // Nothing is saved up beyond the whole.
        assert_eq!([at(9000), at(9000), at(9000), at(9000)], [Pass::Yes, Pass::Yes, Pass::Yes, Pass::Over]);
    }
}
