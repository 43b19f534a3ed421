//! Rendezvous hashing of client addresses over worker slots: each slot draws a number for the address, the highest wins.
//! A slot that comes or goes moves only the addresses it gains or had. Pure: no worker, no load known here.

use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// What of a client's address is hashed: IPv4 whole, of IPv6 the /64 (one customer), IPv4 written as IPv6 as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AddressKey(u64);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            // No /64 is mistaken for an IPv4 address: that would have to be one of ::/32.
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

/// The keyed hash. The key has to outlive restarts, or every address moves.
#[derive(Debug, Clone)]
pub(crate) struct Rendezvous(SipHasher13);

impl Rendezvous {
    /// With this key.
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(key))
    }

    /// The `number`th of a series that looks random.
    pub(crate) fn draw(&self, number: u64) -> u64 {
        self.0.hash(&number.to_le_bytes())
    }

    /// What `slot` draws for `address`.
    pub(crate) fn weight(&self, address: AddressKey, slot: u16) -> u64 {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&address.0.to_le_bytes());
        bytes[8..].copy_from_slice(&slot.to_le_bytes());
        self.0.hash(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn winner(hash: &Rendezvous, address: u32, slots: &[u16]) -> u16 {
        let key = AddressKey::from(IpAddr::V4(Ipv4Addr::from_bits(address)));
        *slots.iter().max_by_key(|slot| hash.weight(key, **slot)).unwrap()
    }

    #[test]
    fn addresses_spread_evenly() {
        let hash = Rendezvous::new(&[3; 16]);
        for count in [2, 4, 7, 64] {
            let slots: Vec<u16> = (0..count).collect();
            let mut hits = vec![0u32; count as usize];
            let total = 1000 * u32::from(count);
            // One /16 of neighbours, the hardest case for a weak hash.
            for address in 0..total {
                hits[winner(&hash, 0x0a00_0000 + address, &slots) as usize] += 1;
            }
            for (slot, hits) in hits.iter().enumerate() {
                assert!((850..=1150).contains(hits), "slot {slot} of {count}: {hits} of 1000");
            }
        }
    }

    #[test]
    fn only_the_addresses_of_a_lost_slot_move_and_they_come_back() {
        let hash = Rendezvous::new(&[5; 16]);
        let all: Vec<u16> = (0..8).collect();
        let without: Vec<u16> = all.iter().copied().filter(|slot| *slot != 3).collect();
        let mut moved = 0;
        for address in 0..10_000 {
            let (before, after) = (winner(&hash, address, &all), winner(&hash, address, &without));
            if before == 3 {
                moved += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!((1000..1500).contains(&moved), "{moved} of 10000 lived on one of 8 slots");
    }

    #[test]
    fn one_client_has_one_key() {
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
        let mapped = IpAddr::V6(Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped());
        assert_eq!(AddressKey::from(v4), AddressKey::from(mapped));
        let (a, b, c) = ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1");
        let key = |text: &str| AddressKey::from(IpAddr::V6(text.parse::<Ipv6Addr>().unwrap()));
        assert_eq!(key(a), key(b));
        assert_ne!(key(a), key(c));
        let near = AddressKey::from(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 4)));
        assert_ne!(AddressKey::from(v4), near, "all of an IPv4 address counts");
    }
}
