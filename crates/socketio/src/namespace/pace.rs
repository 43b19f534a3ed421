//! Whether broadcasts follow so closely on one another that several should leave in one write.
//!
//! A lone broadcast is written to each recipient in place: nobody has to be woken for it. If the next one comes before
//! a broadcast's own time has passed again, writing is most of what the server does. Then the frames are left to
//! the recipients' tasks: by the time these run, more have been queued, and leave together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A pause longer than this is one, however long broadcasts take.
const MOST: Duration = Duration::from_millis(50);

/// How long broadcasts of a namespace take, when they are written in place.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    /// What comes within this of the one before follows closely on it.
    pub(super) fn window(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// A broadcast took this long. Those that are left to others take less, and count for little.
    pub(super) fn took(&self, time: Duration) {
        let window = u64::try_from((2 * time).min(MOST).as_nanos()).unwrap_or(u64::MAX);
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(window.max(before - before / 32), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_at_once_and_shrinks_by_and_by() {
        let pace = Pace::default();
        assert_eq!(pace.window(), Duration::ZERO);
        pace.took(Duration::from_millis(5));
        assert_eq!(pace.window(), Duration::from_millis(10));
        pace.took(Duration::from_micros(300));
        assert!(pace.window() < Duration::from_millis(10) && pace.window() > Duration::from_millis(9));
        pace.took(Duration::from_secs(1));
        assert_eq!(pace.window(), MOST);
        (0..1000).for_each(|_| pace.took(Duration::ZERO));
        assert!(pace.window() < Duration::from_micros(1));
    }
}
