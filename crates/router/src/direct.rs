//! Doors of single workers: a listening socket beside the app's own whose new sessions belong to one slot. What exists
//! already is found from every door alike, so that a client which comes to the wrong one loses nothing; and where the
//! slot has no worker that answers, another one takes what is new.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::backend::BackendId;
use crate::front::Shared;
use crate::members::Member;
use crate::pick::Wanted;

/// The worker that gets what is new at the door of `slot`.
pub(crate) fn place(
    shared: &Shared,
    slot: u16,
    wanted: Wanted,
    client: Option<IpAddr>,
    except: &[BackendId],
) -> Option<Arc<Member>> {
    let Shared { members, picker, .. } = shared;
    let own = members.with(|list| {
        // The newest: a worker that is replaced is before the one that came for it.
        let mut own = list.iter().rev().filter(|member| member.id.slot == slot && member.is_open());
        own.find(|member| !except.contains(&member.id) && !member.backend.is_stuck()).cloned()
    });
    if wanted == Wanted::Session
        && let Some(member) = &own
    {
        member.promised.kept();
    }
    own.or_else(|| picker.place(members, wanted, client, except))
}

/// Clients that were told to come to a worker and have not come yet. They count as sessions there, or a burst of them
/// would all be sent to the same worker; but not for ever, because some never come.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    /// Made in this period, and in the one before.
    made: [AtomicU32; 2],
}

/// How long a period is, in seconds: a promise counts for one to two of them.
pub(crate) const PERIOD: u32 = 5;

impl Promises {
    pub(crate) fn count(&self) -> u64 {
        self.made.iter().map(|made| u64::from(made.load(Ordering::Relaxed))).sum()
    }

    /// A client was told to come.
    pub(crate) fn make(&self) {
        self.made[0].fetch_add(1, Ordering::Relaxed);
    }

    /// A client came: most likely the one that has been expected for longest.
    fn kept(&self) {
        let less = |made: u32| made.checked_sub(1);
        for made in self.made.iter().rev() {
            if made.load(Ordering::Relaxed) > 0
                && made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
            {
                return;
            }
        }
    }

    /// A period is over.
    pub(crate) fn age(&self) {
        self.made[1].store(self.made[0].swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_or_forgotten() {
        let promises = Promises::default();
        promises.make();
        promises.make();
        assert_eq!(promises.count(), 2);
        promises.age();
        promises.make();
        promises.kept();
        assert_eq!(promises.count(), 2);
        promises.age();
        assert_eq!(promises.count(), 1, "the older ones did not come");
        promises.age();
        assert_eq!(promises.count(), 0);
        promises.kept();
        assert_eq!(promises.count(), 0, "who was not told to come owes nothing");
    }
}
