//! Picks the worker for a request: where a new session is placed, and who owns one that exists.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sundew_channel::tag::{self, TagKey};

use crate::backend::BackendId;
use crate::config::{Balance, FrontConfig};
use crate::members::{Member, Members};
use crate::rendezvous::{AddressKey, Rendezvous};

/// How much more than its share a worker may carry before hashing passes it over: 5/4.
const BOUND: (u64, u64) = (5, 4);

/// The app's way of picking.
pub(crate) struct Picker {
    balance: Balance,
    hash: Rendezvous,
    key: TagKey,
    node: u8,
    /// Where the next search begins: takes turns among equals. One for each kind, or a regular mix of both would give
    /// each kind the same worker every time.
    session_turn: AtomicUsize,
    request_turn: AtomicUsize,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A place for a new session.
    Session,
    /// Somebody to answer a request that is not Socket.IO.
    Request,
}

impl Picker {
    pub(crate) fn new(config: &FrontConfig) -> Self {
        Self {
            balance: config.balance,
            hash: Rendezvous::new(&config.tag_key.to_bytes()),
            key: config.tag_key,
            node: config.node,
            session_turn: AtomicUsize::new(0),
            request_turn: AtomicUsize::new(0),
        }
    }

    /// The worker that this session id names as its owner, also while it drains.
    pub(crate) fn owner(&self, members: &Members, sid: &[u8]) -> Option<Arc<Member>> {
        let tag = tag::decode(&self.key, sid).filter(|tag| tag.node == self.node)?;
        let member = members.find(BackendId { slot: tag.slot.into(), generation: tag.generation })?;
        // Another's session id can look so by chance.
        member.abilities.tells_sessions.then_some(member)
    }

    /// The other node that this session id names.
    pub(crate) fn node(&self, sid: &[u8]) -> Option<u8> {
        Some(tag::decode(&self.key, sid)?.node).filter(|node| *node != self.node)
    }

    /// A worker that takes new sessions; none of `except`.
    pub(crate) fn place(
        &self,
        members: &Members,
        wanted: Wanted,
        client: Option<IpAddr>,
        except: &[BackendId],
    ) -> Option<Arc<Member>> {
        members.with(|list| {
            let open = || candidates(list, except, true);
            let turn = match wanted {
                Wanted::Session => &self.session_turn,
                Wanted::Request => &self.request_turn,
            };
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let picked = match (self.balance, wanted, client) {
                (Balance::LeastSessions, Wanted::Session, _) => {
                    least(open().map(|member| member.load()), turn)
                }
                (Balance::LeastSessions, Wanted::Request, _) => {
                    least(open().map(|member| member.in_flight()), turn)
                }
                (Balance::IpHash, _, Some(client)) => {
                    let address = AddressKey::from(client);
                    let candidates = open().map(|m| (self.hash.weight(address, m.id.slot), m.load()));
                    bounded(candidates, BOUND)
                }
                // Without an address (a unix socket) there is nothing to hash.
                (Balance::RoundRobin | Balance::IpHash, _, _) => turn.checked_rem(open().count()),
                (Balance::Random, _, _) => {
                    let draw = self.hash.draw(turn as u64);
                    (draw >> 32).checked_rem(open().count() as u64).map(|index| index as usize)
                }
            };
            open().nth(picked?).cloned()
        })
    }

    /// Where the client's address hashes to, whatever that worker carries. `anew`: the request belongs to no session there
    /// may be, so that a stuck worker can be passed over.
    pub(crate) fn by_address(
        &self,
        members: &Members,
        client: Option<IpAddr>,
        except: &[BackendId],
        anew: bool,
    ) -> Option<Arc<Member>> {
        let Some(client) = client else { return self.place(members, Wanted::Request, None, except) };
        let address = AddressKey::from(client);
        members.with(|list| {
            let open = candidates(list, except, anew);
            open.max_by_key(|member| self.hash.weight(address, member.id.slot)).cloned()
        })
    }
}

/// The open workers but for some; without those that are stuck, if there are others.
fn candidates<'a>(
    list: &'a [Arc<Member>],
    except: &'a [BackendId],
    pass_stuck: bool,
) -> impl Iterator<Item = &'a Arc<Member>> + Clone {
    let open = list.iter().filter(|member| member.is_open() && !except.contains(&member.id));
    let pass_stuck = pass_stuck && open.clone().any(|member| !member.backend.is_stuck());
    open.filter(move |member| !(pass_stuck && member.backend.is_stuck()))
}

/// The index of the smallest; among equals, the first at or after `turn`, so that each gets its turn.
fn least(loads: impl Iterator<Item = u64> + Clone, turn: usize) -> Option<usize> {
    let smallest = loads.clone().min()?;
    let equals = || loads.clone().enumerate().filter(|(_, load)| *load == smallest);
    let count = equals().count();
    equals().nth(turn.checked_rem(count)?).map(|(index, _)| index)
}

/// The index of the highest weight among those whose load, with one more, stays within `bound` times the average; there
/// is always one.
fn bounded(candidates: impl Iterator<Item = (u64, u64)> + Clone, bound: (u64, u64)) -> Option<usize> {
    let (count, total) =
        candidates.clone().fold((0, 0), |(count, total), (_, load)| (count + 1, total + load));
    // ceil(bound * (total + 1) / count)
    let cap = (bound.0 * (total + 1)).div_ceil(bound.1 * count.max(1));
    let fits = candidates.enumerate().filter(|(_, (_, load))| *load < cap);
    fits.max_by_key(|(_, (weight, _))| *weight).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_loaded_is_picked_and_equals_take_turns() {
        assert_eq!(least([].into_iter(), 0), None);
        assert_eq!(least([3, 1, 2].into_iter(), 5), Some(1));
        let picks: Vec<_> = (0..4).map(|turn| least([1, 7, 1, 1].into_iter(), turn).unwrap()).collect();
        assert_eq!(picks, [0, 2, 3, 0]);
    }

    #[test]
    fn one_address_cannot_fill_one_worker() {
        // Ten thousand clients behind one address: the weights never change.
        let weights = [10u64, 40, 30, 20];
        let mut loads = [0u64; 4];
        for _ in 0..10_000 {
            let index = bounded(weights.into_iter().zip(loads), BOUND).unwrap();
            loads[index] += 1;
        }
        assert!(loads.iter().all(|load| *load <= 3126), "{loads:?}");
        assert_eq!(loads[1], *loads.iter().max().unwrap());
    }

    #[test]
    fn while_within_bounds_the_address_stays_where_it_is() {
        assert_eq!(bounded([(10, 5), (40, 5), (30, 5)].into_iter(), BOUND), Some(1));
        assert_eq!(bounded([(10, 5), (40, 12), (30, 5)].into_iter(), BOUND), Some(2));
        assert_eq!(bounded([].into_iter(), BOUND), None);
    }
}
