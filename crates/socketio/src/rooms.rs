//! Who is in which room: the index of one namespace on this server.
//!
//! Member lists are shared, immutable snapshots: a broadcaster takes one and lets go of the lock before it writes. A
//! change copies a list only if a broadcaster still holds it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use slab::Slab;

/// The index. `T` is the socket.
#[derive(Debug)]
pub(crate) struct Rooms<T> {
    sockets: Slab<Entry<T>>,
    ids: HashMap<Arc<str>, usize>,
    rooms: Slab<Room<T>>,
    names: HashMap<Arc<str>, usize>,
    all: Members<T>,
}

#[derive(Debug)]
struct Entry<T> {
    socket: T,
    /// Everybody starts in a room named after its id; it may leave it.
    in_own: bool,
    at: usize,
    /// Which rooms, and at which place in their lists.
    joined: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Room<T> {
    name: Arc<str>,
    members: Members<T>,
}

type Members<T> = Arc<Vec<(usize, T)>>;

/// Too many rooms for one socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyRooms;

/// Whom a broadcast goes to, as of one moment.
#[derive(Debug)]
pub(crate) struct Selection<T> {
    members: Members<T>,
    except: HashSet<usize>,
}

impl<T> Selection<T> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.members
            .iter()
            .filter(|(key, _)| self.except.is_empty() || !self.except.contains(key))
            .map(|(_, socket)| socket)
    }
}

impl<T> Default for Rooms<T> {
    fn default() -> Rooms<T> {
        Rooms {
            sockets: Slab::new(),
            ids: HashMap::new(),
            rooms: Slab::new(),
            names: HashMap::new(),
            all: Arc::default(),
        }
    }
}

impl<T: Clone> Rooms<T> {
    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
    }

    pub(crate) fn get(&self, id: &str) -> Option<T> {
        self.ids.get(id).map(|&key| self.sockets[key].socket.clone())
    }

    /// Puts a socket in. One of the same id that is still here, as those of a client of Socket.IO 2 are, is out of it then.
    pub(crate) fn insert(&mut self, id: Arc<str>, socket: T) {
        if let Some(key) = self.ids.remove(&id) {
            self.take_out(key);
        }
        let all = Arc::make_mut(&mut self.all);
        let at = all.len();
        let key = self.sockets.insert(Entry { socket: socket.clone(), in_own: true, at, joined: Vec::new() });
        all.push((key, socket));
        self.ids.insert(id, key);
    }

    /// How often the index holds this socket: in its entry, in the list of all, and once for each room.
    pub(crate) fn handles(&self, id: &str) -> usize {
        self.ids.get(id).map_or(0, |&key| 2 + self.sockets[key].joined.len())
    }

    /// Takes a socket out of everything, if it is the one of its id.
    pub(crate) fn remove(&mut self, id: &str, socket: &T)
    where
        T: PartialEq,
    {
        if let Some(&key) = self.ids.get(id)
            && self.sockets[key].socket == *socket
        {
            self.ids.remove(id);
            self.take_out(key);
        }
    }

    fn take_out(&mut self, key: usize) {
        while let Some(&(room, _)) = self.sockets[key].joined.last() {
            self.part(key, room);
        }
        let entry = self.sockets.remove(key);
        let all = Arc::make_mut(&mut self.all);
        all.swap_remove(entry.at);
        if let Some(&(moved, _)) = all.get(entry.at) {
            self.sockets[moved].at = entry.at;
        }
    }

    /// Puts a socket into a room. Being in it already, or not being here, is fine: then it is false.
    pub(crate) fn join(&mut self, id: &str, room: &str, most: usize) -> Result<bool, TooManyRooms> {
        let Some(&key) = self.ids.get(id) else { return Ok(false) };
        if room == id {
            return Ok(!std::mem::replace(&mut self.sockets[key].in_own, true));
        }
        let entry = &self.sockets[key];
        let known = self.names.get(room).copied();
        if known.is_some_and(|known| entry.joined.iter().any(|&(room, _)| room == known)) {
            return Ok(false);
        }
        if entry.joined.len() >= most {
            return Err(TooManyRooms);
        }
        let socket = entry.socket.clone();
        let at = known.unwrap_or_else(|| {
            let name: Arc<str> = room.into();
            let at = self.rooms.insert(Room { name: name.clone(), members: Arc::default() });
            self.names.insert(name, at);
            at
        });
        let members = Arc::make_mut(&mut self.rooms[at].members);
        self.sockets[key].joined.push((at, members.len()));
        members.push((key, socket));
        Ok(true)
    }

    /// Takes a socket out of a room. False if it was not in there.
    pub(crate) fn leave(&mut self, id: &str, room: &str) -> bool {
        let Some(&key) = self.ids.get(id) else { return false };
        if room == id {
            return std::mem::take(&mut self.sockets[key].in_own);
        }
        self.names.get(room).copied().is_some_and(|room| self.part(key, room))
    }

    fn part(&mut self, key: usize, room: usize) -> bool {
        let joined = &mut self.sockets[key].joined;
        let Some(place) = joined.iter().rposition(|&(joined, _)| joined == room) else { return false };
        let (_, at) = joined.swap_remove(place);
        let members = Arc::make_mut(&mut self.rooms[room].members);
        members.swap_remove(at);
        if let Some(&(moved, _)) = members.get(at) {
            for joined in &mut self.sockets[moved].joined {
                if joined.0 == room {
                    joined.1 = at;
                }
            }
        }
        if members.is_empty() {
            let room = self.rooms.remove(room);
            self.names.remove(&room.name);
        }
        true
    }

    /// The rooms a socket is in, its own first.
    pub(crate) fn rooms_of(&self, id: &str) -> Vec<String> {
        let Some(&key) = self.ids.get(id) else { return Vec::new() };
        let entry = &self.sockets[key];
        let own = entry.in_own.then(|| id.to_owned());
        own.into_iter()
            .chain(entry.joined.iter().map(|&(room, _)| self.rooms[room].name.to_string()))
            .collect()
    }

    /// The rooms that have members, without the sockets' own.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.keys().map(|name| name.to_string()).collect()
    }

    /// The sockets in any of `rooms` (all, if empty) that are in none of `except`, each once.
    pub(crate) fn select(&self, rooms: &[String], except: &[String]) -> Selection<T> {
        let except = except.iter().flat_map(|room| self.keys(room)).collect();
        let members = match rooms {
            [] => self.all.clone(),
            [room] if self.owner(room).is_none() => match self.names.get(room.as_str()) {
                Some(&at) => self.rooms[at].members.clone(),
                None => Arc::default(),
            },
            rooms => {
                let mut seen = HashSet::new();
                let keys = rooms.iter().flat_map(|room| self.keys(room)).filter(|&key| seen.insert(key));
                Arc::new(keys.map(|key| (key, self.sockets[key].socket.clone())).collect())
            }
        };
        Selection { members, except }
    }

    fn owner(&self, room: &str) -> Option<usize> {
        self.ids.get(room).copied().filter(|&key| self.sockets[key].in_own)
    }

    fn keys<'a>(&'a self, room: &'a str) -> impl Iterator<Item = usize> + 'a {
        let members = self.names.get(room).map(|&at| &self.rooms[at].members);
        self.owner(room)
            .into_iter()
            .chain(members.into_iter().flat_map(|members| members.iter().map(|m| m.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn rooms(ids: &[&'static str]) -> Rooms<&'static str> {
        let mut rooms = Rooms::default();
        for &id in ids {
            rooms.insert(id.into(), id);
        }
        rooms
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| name.to_string()).collect()
    }

    fn selected(rooms: &Rooms<&'static str>, to: &[&str], except: &[&str]) -> Vec<&'static str> {
        let mut list: Vec<_> = rooms.select(&names(to), &names(except)).iter().copied().collect();
        list.sort_unstable();
        list
    }

    #[test]
    fn rooms_and_exceptions() {
        let mut index = rooms(&["a", "b", "c"]);
        for (id, room) in [("a", "x"), ("b", "x"), ("b", "y"), ("c", "y"), ("c", "y")] {
            index.join(id, room, 10).unwrap();
        }
        assert_eq!(selected(&index, &[], &[]), ["a", "b", "c"]);
        assert_eq!(selected(&index, &["x"], &[]), ["a", "b"]);
        assert_eq!(selected(&index, &["x", "y"], &[]), ["a", "b", "c"]);
        assert_eq!(selected(&index, &["x", "y"], &["b"]), ["a", "c"]);
        assert_eq!(selected(&index, &[], &["x"]), ["c"]);
        assert_eq!(selected(&index, &["a"], &[]), ["a"]);
        assert_eq!(selected(&index, &["none"], &[]), [""; 0]);
        assert_eq!(index.rooms_of("b"), ["b", "x", "y"]);
        index.join("c", "a", 10).unwrap();
        assert_eq!(selected(&index, &["a"], &[]), ["a", "c"]);
        index.leave("a", "a");
        assert_eq!(selected(&index, &["a"], &[]), ["c"]);
        index.remove("b", &"b");
        assert_eq!(selected(&index, &["x", "y"], &[]), ["a", "c"]);
        index.leave("a", "x");
        assert_eq!(
            index.names().into_iter().collect::<BTreeSet<_>>(),
            BTreeSet::from(["y".into(), "a".into()])
        );
        assert_eq!(index.len(), 2);
        assert_eq!(index.get("b"), None);
    }

    #[test]
    fn a_snapshot_does_not_change() {
        let mut index = rooms(&["a", "b"]);
        let before = index.select(&[], &[]);
        index.remove("a", &"a");
        assert_eq!(before.iter().count(), 2);
        assert_eq!(index.select(&[], &[]).iter().count(), 1);
    }

    #[test]
    fn rooms_are_bounded() {
        let mut index = rooms(&["a"]);
        index.join("a", "1", 2).unwrap();
        index.join("a", "2", 2).unwrap();
        assert_eq!(index.join("a", "3", 2), Err(TooManyRooms));
        index.join("a", "2", 2).unwrap();
        index.leave("a", "1");
        index.join("a", "3", 2).unwrap();
    }

    /// Against a plain model, in every order a small generator comes up with.
    #[test]
    fn agrees_with_a_model() {
        const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        const ROOMS: [&str; 4] = ["w", "x", "y", "z"];
        let mut index = Rooms::default();
        let mut model: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        let mut random = 12345u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let id = IDS[(random >> 8) as usize % IDS.len()];
            let room = ROOMS[(random >> 16) as usize % ROOMS.len()];
            match (random >> 24) % 5 {
                0 if !model.contains_key(id) => {
                    model.insert(id, BTreeSet::new());
                    index.insert(id.into(), id);
                }
                1 if (random >> 28) & 1 == 0 => {
                    model.remove(id);
                    index.remove(id, &id);
                }
                2 | 3 => {
                    if let Some(rooms) = model.get_mut(id) {
                        rooms.insert(room);
                    }
                    index.join(id, room, 10).unwrap();
                }
                _ => {
                    if let Some(rooms) = model.get_mut(id) {
                        rooms.remove(room);
                    }
                    index.leave(id, room);
                }
            }
            let mut expected: Vec<_> =
                model.iter().filter(|(_, rooms)| rooms.contains(room)).map(|(&id, _)| id).collect();
            expected.sort_unstable();
            assert_eq!(selected(&index, &[room], &[]), expected);
        }
        let used: BTreeSet<String> = model.values().flatten().map(|room| room.to_string()).collect();
        assert_eq!(index.names().into_iter().collect::<BTreeSet<_>>(), used);
    }
}
