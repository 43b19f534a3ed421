//! Ids of requests: what a line of the access log and what the program logs can be matched by. Off unless asked for.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::forward::REQUEST_ID;
use crate::http::request::Head;

/// The longest one that is taken over, in bytes.
const LONGEST: usize = 128;

/// Makes ids that no other front door makes, nor this one after a restart. They are no secret.
#[derive(Debug)]
pub(crate) struct RequestIds {
    run: u64,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self { run: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(1) }
    }
}

/// A request's id.
#[derive(Debug, Clone)]
pub(crate) struct RequestId {
    pub(crate) text: Box<str>,
    /// The request has it already, by the word of a trusted proxy or another node.
    pub(crate) given: bool,
}

impl RequestIds {
    /// The id of a request: the one it came with, if who sent it is to be believed.
    pub(crate) fn of(&self, head: &Head<'_, '_>, trusted: bool) -> RequestId {
        let given = head
            .headers
            .iter()
            .filter(|_| trusted)
            .find(|header| header.name.eq_ignore_ascii_case(REQUEST_ID));
        if let Some(text) = given.and_then(|header| well_formed(header.value)) {
            return RequestId { text: text.into(), given: true };
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId { text: format!("{:016x}-{next:x}", self.run).into(), given: false }
    }
}

/// What can stand in a log as it is.
fn well_formed(value: &[u8]) -> Option<&str> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    let text = std::str::from_utf8(value).ok()?;
    ((1..=LONGEST).contains(&text.len()) && value.iter().all(fits)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_stand_in_a_log_is_taken_over() {
        for good in ["a", "6e1a-77", "Root=1-67891233-abcdef012345678912345678", "a/b+c=="] {
            assert_eq!(well_formed(good.as_bytes()), Some(good));
        }
        for bad in ["", "a b", "a\"", "a,b", "\u{e4}", &"x".repeat(129)] {
            assert_eq!(well_formed(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
