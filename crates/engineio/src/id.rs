//! Ids that nobody can guess.

use std::cell::RefCell;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// The random bytes of an id: 120 bits.
const BYTES: usize = 15;
/// How many ids one call of the system is for.
const AT_ONCE: usize = 32;

thread_local! {
    static RANDOM: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; BYTES * AT_ONCE], left: 0 }) };
}

struct Pool {
    bytes: [u8; BYTES * AT_ONCE],
    /// Bytes at the front that were not given out yet.
    left: usize,
}

/// A new id: 20 characters of base64url, 120 bits from the system's random source. `None` (and an error in the log) if the
/// system has no randomness.
pub fn random_id() -> Option<String> {
    RANDOM.with_borrow_mut(|pool| {
        if pool.left == 0 {
            if let Err(error) = getrandom::fill(&mut pool.bytes) {
                tracing::error!(%error, "the system gives no random bytes for an id");
                return None;
            }
            pool.left = pool.bytes.len();
        }
        pool.left -= BYTES;
        let bytes = &mut pool.bytes[pool.left..][..BYTES];
        let id = BASE64_URL_SAFE_NO_PAD.encode(&*bytes);
        // What was given out is not kept.
        bytes.fill(0);
        Some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_comes_twice() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..1000).map(|_| random_id().unwrap()).collect::<Vec<_>>()))
            .collect();
        let mut ids: Vec<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(ids.iter().all(|id| id.len() == 20 && crate::proto::request::is_valid_sid(id)));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4000);
    }
}
