//! The store in memory, without a runtime and without a clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::{Args, Packet, SocketIo};

struct Bench {
    store: Memory,
    now: Instant,
}

const WINDOW: Duration = Duration::from_secs(120);

impl Bench {
    fn new(store: Memory) -> Bench {
        Bench { store, now: Instant::now() }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn event(&self, text: &str, to: Recipients) -> Offset {
        let offset = self.store.last("/").next();
        self.append(text, to, None);
        offset
    }

    fn append(&self, text: &str, to: Recipients, mark: Option<Mark>) {
        let packet = Arc::new(Packet::event("e", text).unwrap());
        let event = Logged { offset: self.store.last("/").next(), packet, mark };
        self.store.append("/", event, to, self.now, self.now + WINDOW);
    }

    fn all(&self, text: &str) -> Offset {
        self.event(text, Recipients::default())
    }

    /// A session that connected when nothing had happened, and leaves now.
    fn session(&self, pid: &str, sent: Offset) -> SavedSession {
        SavedSession {
            id: "id".into(),
            pid: pid.into(),
            stays: ["id", "r"].map(|room| (room.to_owned(), vec![Stay::default()])).into(),
            forgotten: Default::default(),
            data: serde_json::Value::Null,
            epoch: "abcd-".into(),
            said: None,
            start: Offset(0),
            sent,
            left: self.store.last("/"),
            lull: (Offset(0), Offset(0)),
            until: self.now + WINDOW,
            replayed: None,
        }
    }

    fn save(&self, session: SavedSession) {
        self.store.save("/", session, self.now, self.now + WINDOW);
    }

    fn take(&self, pid: &str) -> Option<SavedSession> {
        self.store.take("/", pid, self.now)
    }

    fn missed(&self, after: Offset, session: &SavedSession) -> Option<Vec<String>> {
        let missed = self.store.since("/", after, session)?;
        Some(missed.iter().map(|event| event.packet.json().to_owned()).collect())
    }
}

fn rooms(rooms: &[&str], except: &[&str]) -> Recipients {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Recipients { socket: None, rooms: names(rooms), except: names(except) }
}

#[test]
fn what_was_meant_for_it_in_order() {
    let bench = Bench::new(Memory::new());
    let first = bench.all("0");
    let session = bench.session("p", first);
    bench.all("1");
    bench.event("2", rooms(&["r"], &[]));
    bench.event("no", rooms(&["other"], &[]));
    bench.event("no", rooms(&["r"], &["id"]));
    bench.event("no", rooms(&[], &["r"]));
    bench.event("3", rooms(&["other", "id"], &["others"]));
    bench.event("no", Recipients { socket: Some("other".into()), ..Recipients::default() });
    bench.event("4", Recipients { socket: Some("id".into()), ..Recipients::default() });
    let expected = ["[\"e\",\"1\"]", "[\"e\",\"2\"]", "[\"e\",\"3\"]", "[\"e\",\"4\"]"];
    assert_eq!(bench.missed(first, &session).unwrap(), expected);
    // One that did not even get the first.
    assert_eq!(bench.missed(Offset(0), &session).unwrap().len(), 5);
    assert_eq!(bench.missed(bench.store.last("/"), &session).unwrap().len(), 0);
}

#[test]
fn what_a_room_heard_while_it_was_in_there_is_for_it() {
    let bench = Bench::new(Memory::new());
    let mut stays = Vec::new();
    for _ in 0..2 {
        bench.event("no", rooms(&["r"], &[]));
        bench.event("not for the room", rooms(&[], &["r"]));
        let joined = bench.store.last("/");
        bench.event("no", rooms(&[], &["r"]));
        bench.event("for the room", rooms(&["r"], &[]));
        stays.push(Stay { joined, left: Some(bench.store.last("/")) });
    }
    bench.event("no", rooms(&["r"], &[]));
    bench.event("not for the room", rooms(&[], &["r"]));
    let mut session = bench.session("p", bench.store.last("/"));
    session.stays.insert("r".to_owned(), stays);
    assert_eq!(session.rooms(), ["id"]);
    let [out, within] = ["[\"e\",\"not for the room\"]", "[\"e\",\"for the room\"]"];
    assert_eq!(bench.missed(Offset(0), &session).unwrap(), [out, within, out, within, out]);
}

#[test]
fn who_has_had_all_of_what_was_forgotten_misses_nothing() {
    let forgotten = (Offset(2), Offset(4));
    let session = Bench::new(Memory::new()).session("p", Offset(5));
    let session = SavedSession { forgotten, left: Offset(5), ..session };
    for (offset, received) in [("1", None), ("2", Some(4)), ("4", Some(4)), ("5", Some(5))] {
        let offset = format!("abcd-{offset}");
        assert_eq!(session.received(Some(&offset)), received.map(Offset), "{offset}");
    }
    assert_eq!(session.received(None), None);
}

#[test]
fn a_session_is_taken_once_and_within_the_window() {
    let mut bench = Bench::new(Memory::new());
    bench.save(bench.session("p", Offset(0)));
    assert_eq!(bench.take("q"), None);
    assert!(bench.take("p").is_some());
    assert_eq!(bench.take("p"), None);
    bench.save(bench.session("p", Offset(0)));
    bench.pass(119);
    assert!(bench.take("p").is_some());
    bench.save(bench.session("p", Offset(0)));
    bench.pass(120);
    assert_eq!(bench.take("p"), None);
    // Saved again and again it lives as long as the last time says.
    bench.save(bench.session("p", Offset(0)));
    bench.pass(100);
    assert!(bench.take("p").is_some());
    bench.save(bench.session("p", Offset(0)));
    bench.pass(100);
    bench.save(bench.session("q", Offset(0)));
    assert!(bench.take("p").is_some() && bench.take("q").is_some());
}

#[test]
fn idle_for_longer_than_the_window() {
    let mut bench = Bench::new(Memory::new());
    let last = bench.all("its last");
    bench.pass(1000);
    // For others: what it got is long gone, and so is much that came after.
    for _ in 0..10 {
        bench.event("no", rooms(&["other"], &[]));
        bench.pass(100);
    }
    assert!(bench.store.usage("/").0 < 5);
    let session = bench.session("p", last);
    bench.all("missed");
    assert_eq!(bench.missed(last, &session).unwrap(), ["[\"e\",\"missed\"]"]);
}

/// A session that was lost so late that what it was sent before has expired.
#[test]
fn what_has_expired_is_a_gap_unless_none_was_for_it() {
    let mut bench = Bench::new(Memory::new());
    let received = bench.all("received");
    bench.pass(50);
    bench.event("perhaps for it", rooms(&["r"], &[]));
    bench.pass(50);
    let second = bench.all("lost with its connection");
    let session = bench.session("p", second);
    let quiet = SavedSession { lull: (received, second), ..session.clone() };
    bench.pass(60);
    bench.all("missed");
    // Only what it has had has expired.
    assert_eq!(bench.missed(received, &session).unwrap().len(), 3);
    bench.pass(20);
    bench.all("missed");
    assert_eq!(bench.missed(received, &session), None);
    assert_eq!(bench.missed(received, &quiet).unwrap().len(), 3);
    assert_eq!(bench.missed(second, &session).unwrap().len(), 2);
    bench.pass(50);
    bench.all("missed");
    assert_eq!(bench.missed(received, &quiet), None);
}

#[test]
fn bounded_in_packets_and_bytes() {
    for (store, kept) in [(Memory::new().max_packets(10), 10), (Memory::new().max_bytes(10_000), 6)] {
        let bench = Bench::new(store);
        let early = bench.session("p", Offset(0));
        for number in 0..100 {
            bench.all(&format!("{number:01500}"));
        }
        let (packets, bytes) = bench.store.usage("/");
        assert_eq!(packets, kept);
        assert!(bytes <= kept * 1700);
        // It missed events that are gone: better anew than with a gap.
        assert_eq!(bench.missed(Offset(0), &early), None);
        // One that left late misses none.
        let late = bench.session("q", Offset(100));
        bench.all("x");
        assert_eq!(bench.missed(Offset(100), &late).unwrap().len(), 1);
        // Nor does one that had everything meant for it, when what is gone was before it left.
        let idle = bench.session("r", Offset(0));
        assert_eq!(bench.missed(Offset(0), &idle).unwrap().len(), 0);
    }
}

#[test]
fn namespaces_that_are_over_leave_nothing() {
    let mut bench = Bench::new(Memory::new());
    bench.all("x");
    for number in 0..1000 {
        bench.pass(1);
        bench.store.save(&format!("/{number}"), bench.session("p", Offset(0)), bench.now, bench.now + WINDOW);
    }
    assert!(bench.store.namespaces() < 400);
    // One that comes back goes on where it was.
    assert_eq!(bench.store.last("/"), Offset(1));
    assert_eq!(bench.all("y"), Offset(2));
    assert!(bench.store.take("/0", "p", bench.now).is_none());
    assert!(bench.store.take("/990", "p", bench.now).is_some());
}

#[test]
fn bounded_in_sessions() {
    let bench = Bench::new(Memory::new().max_sessions(3));
    for number in 0..10 {
        bench.save(bench.session(&format!("p{number}"), Offset(0)));
    }
    let there: Vec<_> = (0..10).filter(|number| bench.take(&format!("p{number}")).is_some()).collect();
    assert_eq!(there, [7, 8, 9]);
}

#[test]
fn bounded_in_all_namespaces_together() {
    let mut bench = Bench::new(Memory::new().max_total_bytes(100_000));
    let packet = Arc::new(Packet::event("e", "x".repeat(1000)).unwrap());
    let event = |bench: &Bench, nsp: &str| {
        let event = Logged { offset: bench.store.last(nsp).next(), packet: packet.clone(), mark: None };
        bench.store.append(nsp, event, Recipients::default(), bench.now, bench.now + WINDOW);
        assert!(bench.store.total_bytes() <= 100_000);
    };
    let save = |bench: &Bench, nsp: &str, pid: &str| {
        let data = serde_json::json!({"a": "y".repeat(1000)});
        let session = SavedSession { data, left: bench.store.last(nsp), ..bench.session(pid, Offset(0)) };
        bench.store.save(nsp, session, bench.now, bench.now + WINDOW);
        assert!(bench.store.total_bytes() <= 100_000);
    };
    // One that has a little loses nothing to one that has much.
    save(&bench, "/small", "p");
    (0..5).for_each(|_| event(&bench, "/small"));
    let missed = bench.session("p", Offset(0));
    for _ in 0..1000 {
        event(&bench, "/large");
        save(&bench, "/away", &format!("p{}", bench.store.last("/large").0));
    }
    assert_eq!(bench.store.since("/small", Offset(0), &missed).unwrap().len(), 5);
    assert_eq!(bench.store.since("/large", Offset(0), &missed).map(|events| events.len()), None);
    assert!(bench.store.total_bytes() > 90_000);
    let away = (1..=1000).filter(|number| bench.store.holds("/away", &format!("p{number}"), bench.now));
    let away = away.collect::<Vec<_>>();
    assert!(away.len() > 20 && away.is_sorted() && away.last() == Some(&1000), "{away:?}");
    // What has expired goes, wherever it is.
    bench.pass(WINDOW.as_secs() + 1);
    event(&bench, "/other");
    assert_eq!((bench.store.usage("/large"), bench.store.usage("/small")), ((0, 0), (0, 0)));
    let other = bench.store.total_bytes();
    assert!(bench.store.usage("/other").1 < other && other < 8000, "{other}");
    // And nothing is left of what is taken.
    save(&bench, "/other", "again");
    save(&bench, "/other", "again");
    assert!(bench.store.take("/other", "again", bench.now).is_some());
    assert_eq!(bench.store.total_bytes(), other);
}

/// Namespaces that clients make are many, and each may have a little.
#[test]
fn bounded_in_many_namespaces() {
    let bench = Bench::new(Memory::new().max_total_bytes(1_000_000));
    let last = 20_000;
    for number in 0..=last {
        bench.store.save(&format!("/{number}"), bench.session("p", Offset(0)), bench.now, bench.now + WINDOW);
        assert!(bench.store.total_bytes() <= 1_000_000);
    }
    let kept = bench.store.namespaces();
    assert!((300..1000).contains(&kept), "{kept}");
    let there = (0..=last).filter(|number| bench.store.holds(&format!("/{number}"), "p", bench.now));
    assert_eq!(there.count(), kept);
}

/// What was dropped of one namespace is no gap in another.
#[test]
fn a_namespace_that_was_full_is_no_other_ones_gap() {
    let mut bench = Bench::new(Memory::new().max_packets(2));
    let append = |bench: &Bench, nsp: &str| {
        let packet = Arc::new(Packet::event("e", "x").unwrap());
        let event = Logged { offset: bench.store.last(nsp).next(), packet, mark: None };
        bench.store.append(nsp, event, Recipients::default(), bench.now, bench.now + WINDOW);
        bench.store.last(nsp)
    };
    for _ in 0..5 {
        append(&bench, "/a");
    }
    for number in 0..40 {
        append(&bench, &format!("/{number}"));
    }
    bench.pass(WINDOW.as_secs() + 20);
    let last = append(&bench, "/b");
    for number in 40..60 {
        append(&bench, &format!("/{number}"));
    }
    assert!(bench.store.namespaces() < 40, "{}", bench.store.namespaces());
    bench.pass(20);
    assert_eq!(append(&bench, "/b"), last.next());
    for (from, missed) in [(last, 1), (last.next(), 0)] {
        let session = SavedSession { start: last, left: last.next(), ..bench.session("p", last.next()) };
        assert_eq!(bench.store.since("/b", from, &session).map(|events| events.len()), Some(missed));
    }
}

/// One event after another was missed on the way from another server; then the limit is met.
#[test]
fn a_gap_is_not_forgotten_when_older_events_are_dropped() {
    let bench = Bench::new(Memory::new().max_packets(3));
    (1..=2).for_each(|number| bench.append("x", Recipients::default(), mark(1, number)));
    let early = bench.session("p", Offset(2));
    // The third was lost.
    bench.append("x", Recipients::default(), mark(1, 4));
    assert_eq!(bench.missed(Offset(2), &SavedSession { sent: Offset(3), ..early.clone() }), None);
    bench.append("x", Recipients::default(), mark(1, 5));
    bench.append("x", Recipients::default(), mark(1, 6));
    assert_eq!(bench.missed(Offset(2), &SavedSession { sent: Offset(3), ..early }), None);
}

fn mark(origin: u64, number: u64) -> Option<Mark> {
    Some(Mark { origin, number })
}

impl Bench {
    fn unseen(&self, seen: &[(u64, u64)], from: Offset) -> Option<Vec<String>> {
        let seen = seen.iter().map(|&(origin, number)| Mark { origin, number }).collect();
        let events = self.store.unseen("/", &seen, from, &self.session("p", Offset(0)))?;
        Some(events.iter().map(|event| event.packet.json().to_owned()).collect())
    }
}

#[test]
fn what_another_server_had_not() {
    let bench = Bench::new(Memory::new());
    assert_eq!(bench.unseen(&[], Offset(0)).unwrap().len(), 0);
    for number in 1..=3 {
        bench.append(&format!("a{number}"), Recipients::default(), mark(1, number));
        bench.append(&format!("b{number}"), Recipients::default(), mark(2, number));
        bench.append("own", Recipients::default(), None);
    }
    bench.append("not for it", rooms(&["other"], &[]), mark(1, 4));
    let events = |names: &[&str]| names.iter().map(|name| format!("[\"e\",\"{name}\"]")).collect::<Vec<_>>();
    assert_eq!(bench.unseen(&[(1, 4), (2, 3)], Offset(0)).unwrap(), events(&[]));
    assert_eq!(bench.unseen(&[(1, 1), (2, 2)], Offset(0)).unwrap(), events(&["a2", "a3", "b3"]));
    // It had more than this one has.
    assert_eq!(bench.unseen(&[(1, 9), (2, 3), (3, 7)], Offset(0)).unwrap(), events(&[]));
    // Of an origin it knows nothing of, only what came since it was asked.
    assert_eq!(bench.unseen(&[(1, 4)], Offset(0)).unwrap(), events(&["b1", "b2", "b3"]));
    assert_eq!(bench.unseen(&[(1, 4)], Offset(5)).unwrap(), events(&["b3"]));
    let heard = bench.store.seen("/");
    assert_eq!((heard.of(1), heard.of(2), heard.of(3)), (Some(4), Some(3), None));
}

#[test]
fn a_gap_on_the_way_from_another_server_is_none_of_its_own() {
    let bench = Bench::new(Memory::new());
    bench.append("1", Recipients::default(), mark(1, 1));
    let early = bench.session("p", Offset(0));
    // The second one was lost on its way here.
    bench.append("3", Recipients::default(), mark(1, 3));
    assert_eq!(bench.missed(Offset(0), &early), None);
    assert_eq!(bench.unseen(&[(1, 1)], Offset(0)), None);
    assert_eq!(bench.unseen(&[], Offset(0)), None);
    // Who had it, or came after it, misses nothing.
    assert_eq!(bench.unseen(&[(1, 2)], Offset(0)).unwrap().len(), 1);
    let late = bench.session("p", Offset(2));
    assert_eq!(bench.missed(Offset(2), &late).unwrap().len(), 0);
}

/// The fourth came before this server was there to hear it.
#[test]
fn what_came_before_the_first_that_was_heard_is_a_gap() {
    let bench = Bench::new(Memory::new());
    (5..=6).for_each(|number| bench.append(&format!("{number}"), Recipients::default(), mark(1, number)));
    assert_eq!(bench.unseen(&[(1, 3)], Offset(0)), None);
    assert_eq!(bench.unseen(&[(1, 4)], Offset(0)).unwrap().len(), 2);
    assert_eq!(bench.unseen(&[], Offset(1)).unwrap().len(), 1);
}

#[test]
fn origins_that_are_silent_are_forgotten() {
    let mut bench = Bench::new(Memory::new());
    for origin in 0..1000 {
        bench.append("x", Recipients::default(), mark(origin, 1));
        bench.pass(10);
    }
    assert!(bench.store.seen("/").marks().count() < 100);
}

#[test]
fn what_a_client_says_it_has_had() {
    let bench = Bench::new(Memory::new());
    let mut session = SavedSession { start: Offset(5), left: Offset(9), ..bench.session("p", Offset(7)) };
    assert_eq!(session.received(Some("abcd-7")), Some(Offset(7)));
    for none in [None, Some("abcd-4"), Some("abcd-a"), Some("efgh-7"), Some("")] {
        assert_eq!(session.received(none), Some(Offset(5)), "{none:?}");
    }
    // It was on another server: what it says of yet another one, nobody can tell.
    session.said = Some("efgh-7".into());
    assert_eq!(session.received(Some("abcd-7")), Some(Offset(7)));
    assert_eq!(session.received(Some("efgh-7")), Some(Offset(5)));
    assert_eq!(session.received(Some("efgh-8")), None);
    assert_eq!(session.received(None), None);
}

/// What an app sends on is a view of all that came with it.
#[test]
fn what_is_kept_holds_nothing_else_in_memory() {
    let store = Arc::new(Memory::new());
    let io = SocketIo::builder().connection_state_recovery(Recovery::new().store(store.clone())).build();
    let body = Bytes::from(vec![7; 1000]);
    let text = "[\"e\",{\"_placeholder\":true,\"num\":0}]";
    let args = Args::new(text.into(), 0, Some(4), vec![body.slice(8..9)]);
    io.emit("x", &args);
    drop(args);
    assert!(body.is_unique());
    let session = Bench::new(Memory::new()).session("p", Offset(0));
    let kept = store.since("/", Offset(0), &session).unwrap();
    assert_eq!(kept[0].packet.attachments(), [body.slice(8..9)]);
}
