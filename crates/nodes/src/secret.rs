//! What is derived from the secret: one key per purpose, so that none tells of another.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use sundew_channel::tag::TagKey;

use crate::config::Secret;

/// The keys of a cluster.
#[derive(Clone)]
pub(crate) struct Keys {
    secret: Secret,
}

impl Keys {
    pub(crate) fn new(secret: Secret) -> Self {
        Self { secret }
    }

    fn derive(&self, purpose: &str, of: &str) -> [u8; 32] {
        // Any length is a key: this cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.bytes()) else { return [0; 32] };
        mac.update(b"sundew 1\0");
        mac.update(purpose.as_bytes());
        mac.update(b"\0");
        mac.update(of.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// What two nodes know of each other before they talk.
    pub(crate) fn link(&self) -> [u8; 32] {
        self.derive("link", "")
    }

    /// The key of an app's session ids, the same on every node.
    pub(crate) fn tags(&self, app: &str) -> TagKey {
        let [first @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = self.derive("tags", app);
        TagKey::from_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_and_app_has_a_key_of_its_own_and_the_same_everywhere() {
        let keys = || Keys::new(Secret::new("a secret of some length").unwrap());
        assert_eq!(keys().link(), keys().link());
        assert_eq!(keys().tags("chat"), keys().tags("chat"));
        assert_ne!(keys().tags("chat"), keys().tags("shop"));
        assert_ne!(keys().link()[..16], keys().tags("").to_bytes());
        let other = Keys::new(Secret::new("another secret of some length").unwrap());
        assert_ne!(other.link(), keys().link());
    }
}
