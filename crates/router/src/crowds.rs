//! How many connections each client's address holds, where that is limited. Only those held here count.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::rendezvous::AddressKey;

/// Connections by client's address. Holds as many entries as there are connections at most.
#[derive(Debug, Default)]
pub(crate) struct Crowds(Mutex<HashMap<AddressKey, u32>>);

impl Crowds {
    /// One more of this client. None: it has `limit` already.
    pub(crate) fn enter(&self, client: IpAddr, limit: u32) -> Option<AddressKey> {
        let key = AddressKey::from(client);
        let mut crowds = self.0.lock();
        let count = crowds.entry(key).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(key)
    }

    pub(crate) fn leave(&self, key: AddressKey) {
        let mut crowds = self.0.lock();
        if let Some(count) = crowds.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                crowds.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_limit_and_nothing_is_kept_of_those_that_left() {
        let crowds = Crowds::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = crowds.enter(ip("10.0.0.1"), 2).unwrap();
        assert!(crowds.enter(ip("::ffff:10.0.0.1"), 2).is_some());
        assert!(crowds.enter(ip("10.0.0.1"), 2).is_none());
        assert!(crowds.enter(ip("10.0.0.2"), 2).is_some());
        crowds.leave(first);
        assert!(crowds.enter(ip("10.0.0.1"), 2).is_some());
        for key in ["10.0.0.1", "10.0.0.1", "10.0.0.2"].map(|text| AddressKey::from(ip(text))) {
            crowds.leave(key);
        }
        assert!(crowds.0.lock().is_empty());
    }
}
