//! The worker's mark inside a session id.
//!
//! A session id is 20 characters of base64url: 12 random bytes, then 3 bytes that name the worker, masked with a keyed
//! hash of the random ones. Whoever holds the key finds the owner without a table, also after a restart; anyone else
//! sees 120 random bits and learns nothing about the cluster. The 96 bits that stay random make it a bearer secret.
//! The mark is no signature: a forged one leads to a worker that does not know the session, which is harmless.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip::SipHasher24;

const RANDOM: usize = 12;
const BYTES: usize = 15;
/// The length of a session id, in characters.
pub const SID_LENGTH: usize = 20;

/// The key that masks the marks of one app. It has to outlive restarts of the supervisor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TagKey([u8; 16]);

impl TagKey {
    /// A key from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(bytes))
    }

    /// The bytes, to store them.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    fn mask(&self, random: &[u8]) -> [u8; 3] {
        let hash = SipHasher24::new_with_key(&self.0).hash(random).to_le_bytes();
        [hash[0], hash[1], hash[2]]
    }
}

/// A secret: not shown.
impl std::fmt::Debug for TagKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TagKey(..)")
    }
}

impl Serialize for TagKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for TagKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a tag key is 16 bytes in base64url without padding"))
    }
}

/// Which worker a session lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The host, 0 to 63: 6 bits are kept.
    pub node: u8,
    /// The worker's slot.
    pub slot: u8,
    /// How often the slot's worker was replaced, modulo 256.
    pub generation: u8,
}

/// The layout above; 2 bits, so that a later one can live beside it.
const VERSION: u8 = 1;
/// The highest node number that fits.
pub const MAX_NODE: u8 = 0x3f;

/// A new session id that carries `tag`.
///
/// # Panics
/// When the system has no randomness to give: an id that can be guessed gives the session away, which is worse.
pub fn new_sid(key: &TagKey, tag: Tag) -> String {
    let mut bytes = [0; BYTES];
    let (random, mark) = bytes.split_at_mut(RANDOM);
    if let Err(error) = getrandom::fill(random) {
        panic!("no randomness for a session id: {error}");
    }
    let mask = key.mask(random);
    let plain = [(VERSION << 6) | (tag.node & MAX_NODE), tag.slot, tag.generation];
    for ((to, plain), mask) in mark.iter_mut().zip(plain).zip(mask) {
        *to = plain ^ mask;
    }
    BASE64.encode(bytes)
}

/// The mark in `sid`, or `None` when it certainly carries none of this key (about 3 of 4 foreign ids of the right
/// length): a `Some` has still to be looked up.
pub fn decode(key: &TagKey, sid: &[u8]) -> Option<Tag> {
    if sid.len() != SID_LENGTH {
        return None;
    }
    let mut bytes = [0; BYTES];
    if BASE64.decode_slice(sid, &mut bytes).ok()? != BYTES {
        return None;
    }
    let (random, mark) = bytes.split_at(RANDOM);
    let mask = key.mask(random);
    let head = mark[0] ^ mask[0];
    (head >> 6 == VERSION).then_some(Tag {
        node: head & MAX_NODE,
        slot: mark[1] ^ mask[1],
        generation: mark[2] ^ mask[2],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: TagKey = TagKey::from_bytes(*b"0123456789abcdef");

    #[test]
    fn every_tag_comes_back() {
        for node in [0, 1, 63] {
            for slot in [0, 1, 127, 255] {
                for generation in [0, 3, 255] {
                    let tag = Tag { node, slot, generation };
                    let sid = new_sid(&KEY, tag);
                    assert_eq!(sid.len(), SID_LENGTH);
                    assert!(sid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
                    assert_eq!(decode(&KEY, sid.as_bytes()), Some(tag));
                }
            }
        }
    }

    #[test]
    fn the_mark_is_masked() {
        let tag = Tag { node: 0, slot: 2, generation: 1 };
        let tails: std::collections::HashSet<String> =
            (0..100).map(|_| new_sid(&KEY, tag)[16..].to_owned()).collect();
        assert!(tails.len() > 90, "the same worker must not show as the same ending: {tails:?}");
        let other = TagKey::from_bytes([7; 16]);
        let found = (0..1000).filter(|_| decode(&other, new_sid(&KEY, tag).as_bytes()) == Some(tag)).count();
        assert_eq!(found, 0, "another app's key must not find this worker");
    }

    #[test]
    fn foreign_ids_are_refused() {
        for sid in ["", "short", "abcdefghijklmnopqrstu", "abcdefghijklmnopqrs!", "abcdefghijklmnopqr=="] {
            assert_eq!(decode(&KEY, sid.as_bytes()), None, "{sid}");
        }
    }

    #[test]
    fn the_key_travels_as_base64_and_is_not_shown() {
        let json = serde_json::to_string(&KEY).unwrap();
        assert_eq!(serde_json::from_str::<TagKey>(&json).unwrap(), KEY);
        assert!(serde_json::from_str::<TagKey>("\"AAAA\"").is_err());
        assert_eq!(format!("{KEY:?}"), "TagKey(..)");
    }
}
