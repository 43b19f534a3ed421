//! When a socket was in which rooms. What they were told then was meant for it, also if it has left since.

use std::collections::{HashMap, VecDeque};

use super::{Offset, Stay};

/// Of a socket that is connected. Times are in milliseconds.
#[derive(Default)]
pub(super) struct Stays {
    /// The last event before it joined, of the rooms it is in and was not from its start.
    joined: HashMap<String, Offset>,
    /// In rooms it has left, from the first on, for as long as what these were told may not have arrived.
    past: VecDeque<Past>,
    /// As in [`SavedSession`](super::SavedSession).
    forgotten: (Offset, Offset),
}

struct Past {
    room: String,
    joined: Offset,
    left: Offset,
    /// The last event that was meant for it then.
    sent: Offset,
    at: u64,
}

/// When something is done.
pub(super) struct Now {
    /// The last event.
    pub(super) last: Offset,
    /// The last event that was meant for the socket.
    pub(super) sent: Offset,
    pub(super) millis: u64,
    /// What the socket was sent before this has arrived.
    pub(super) arrived: u64,
    /// As many stays are remembered.
    pub(super) most: usize,
}

impl Stays {
    /// Of a session that is taken up. `sent`: the last event that was meant for it.
    pub(super) fn new(
        stays: HashMap<String, Vec<Stay>>,
        forgotten: (Offset, Offset),
        sent: Offset,
        now: u64,
    ) -> Stays {
        let mut restored = Stays { forgotten, ..Stays::default() };
        for (room, stays) in stays {
            for Stay { joined, left } in stays {
                match left {
                    None => drop(restored.joined.insert(room.clone(), joined)),
                    Some(left) => {
                        let (room, sent) = (room.clone(), sent.min(left));
                        restored.past.push_back(Past { room, joined, left, sent, at: now });
                    }
                }
            }
        }
        restored.past.make_contiguous().sort_by_key(|past| past.left);
        restored
    }

    pub(super) fn join(&mut self, room: &str, now: &Now) {
        self.forget(now);
        self.joined.insert(room.to_owned(), now.last);
    }

    pub(super) fn leave(&mut self, room: &str, now: &Now) {
        let (room, joined) = self.joined.remove_entry(room).unwrap_or_else(|| (room.to_owned(), Offset(0)));
        if joined < now.last {
            self.past.push_back(Past { room, joined, left: now.last, sent: now.sent, at: now.millis });
        }
        self.forget(now);
    }

    fn forget(&mut self, now: &Now) {
        while self.past.len() > now.most || self.past.front().is_some_and(|past| past.at < now.arrived) {
            // Exact whatever was dropped and why: who has had all that was meant for it until it left misses nothing of that.
            if let Some(past) = self.past.pop_front() {
                self.forgotten = (past.sent, past.left);
            }
        }
        if self.past.is_empty() {
            // Sockets live long and are many.
            self.past = VecDeque::new();
        }
    }

    /// As in [`SavedSession`](super::SavedSession), of a socket that leaves and is in `rooms`.
    pub(super) fn save(self, rooms: Vec<String>) -> (HashMap<String, Vec<Stay>>, (Offset, Offset)) {
        let mut stays: HashMap<String, Vec<Stay>> = HashMap::with_capacity(rooms.len());
        for Past { room, joined, left, .. } in self.past {
            stays.entry(room).or_default().push(Stay { joined, left: Some(left) });
        }
        for room in rooms {
            let joined = self.joined.get(&room).copied().unwrap_or_default();
            stays.entry(room).or_default().push(Stay { joined, left: None });
        }
        (stays, self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn stay(joined: u64, left: Option<u64>) -> Stay {
        Stay { joined: Offset(joined), left: left.map(Offset) }
    }

    /// The last event, the last that was meant for it, when, and what has arrived.
    fn now(last: u64, sent: u64, millis: u64, arrived: u64) -> Now {
        Now { last: Offset(last), sent: Offset(sent), millis, arrived, most: 3 }
    }

    fn save(stays: Stays, rooms: &[&str]) -> (BTreeMap<String, Vec<Stay>>, (u64, u64)) {
        let (stays, forgotten) = stays.save(rooms.iter().map(|room| (*room).to_owned()).collect());
        let stays = stays.into_iter().collect();
        (stays, (forgotten.0.0, forgotten.1.0))
    }

    #[test]
    fn each_stay() {
        let mut stays = Stays::default();
        stays.join("a", &now(1, 0, 5, 0));
        stays.leave("own", &now(4, 4, 10, 0));
        stays.leave("a", &now(5, 4, 11, 0));
        stays.join("a", &now(7, 4, 12, 0));
        stays.join("b", &now(7, 4, 12, 0));
        // Nothing was sent at all meanwhile.
        stays.leave("b", &now(7, 4, 13, 0));
        let expected = |(all, forgotten): (BTreeMap<_, _>, _)| {
            let own = ("own".to_owned(), vec![stay(0, Some(4))]);
            let start = ("start".to_owned(), vec![stay(0, None)]);
            assert_eq!(all, [("a".to_owned(), vec![stay(1, Some(5)), stay(7, None)]), own, start].into());
            assert_eq!(forgotten, (0, 0));
        };
        let (saved, forgotten) = stays.save(vec!["a".into(), "start".into()]);
        let again = Stays::new(saved, forgotten, Offset(9), 100);
        expected(save(again, &["a", "start"]));
    }

    #[test]
    fn what_has_arrived_and_what_is_too_much_is_forgotten() {
        let mut stays = Stays::default();
        for (n, room) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let n = n as u64;
            stays.join(room, &now(10 * n, 0, n, 0));
            // The last event is somebody else's.
            stays.leave(room, &now(10 * n + 9, 10 * n + 5, n, 0));
        }
        assert_eq!((stays.past.len(), stays.forgotten), (3, (Offset(5), Offset(9))));
        stays.join("e", &now(40, 35, 10, 3));
        assert_eq!((stays.past.len(), stays.forgotten), (1, (Offset(25), Offset(29))));
        stays.leave("e", &now(49, 45, 10, 3));
        let (all, forgotten) = save(stays, &[]);
        assert_eq!(
            all,
            [("d".to_owned(), vec![stay(30, Some(39))]), ("e".to_owned(), vec![stay(40, Some(49))])].into()
        );
        assert_eq!(forgotten, (25, 29));
    }
}
