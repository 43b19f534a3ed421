//! The rule about descriptors, against a model of the kernel's stream socket and of how Node reads it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::encode::Value;
use super::message::{Handed, Serialization, ToWorker};
use super::outbox::{Confirmed, Outbox, OutboxLimits, Over, READ};

const LIMITS: OutboxLimits =
    OutboxLimits { queue_bytes: 64 << 20, in_flight_handles: 8, queued_handles: 1024 };

fn fd() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn handed(seq: u64) -> Handed {
    // Long, so that the end of a read often falls into it.
    Handed { key: Some("k".repeat(3000)), seq, leg: false, client: None, fd: fd() }
}

fn outbox() -> Outbox {
    Outbox::new(Serialization::Advanced, LIMITS)
}

/// What a frame is to Node.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// With the number of its descriptor.
    Handle(u64),
    Ping,
}

/// One write in the kernel, with the number of the descriptor in it.
struct Write {
    left: u64,
    fd: Option<u64>,
}

/// A worker at the other end of a socket.
#[derive(Default)]
struct Node {
    writes: VecDeque<Write>,
    /// Frames by the position they end at.
    frames: VecDeque<(u64, Kind)>,
    written: u64,
    read: u64,
    pending: Option<u64>,
    /// ACK (`true`) and NACK on their way back.
    answers: VecDeque<bool>,
    delivered: Vec<u64>,
    handles: u64,
}

impl Node {
    fn unread(&self) -> u64 {
        self.written - self.read
    }

    /// Writes as the channel does, into a socket that holds `room` and splits long writes at `split`.
    fn take(&mut self, outbox: &mut Outbox, room: u64, split: usize) {
        let ping = Value::ping().frame(Serialization::Advanced);
        while self.unread() < room {
            let Some((bytes, fd)) = outbox.next() else { return };
            let kind = match fd {
                Some(_) => Kind::Handle(self.handles),
                None if bytes == ping => Kind::Ping,
                None => Kind::Plain,
            };
            let number = fd.map(|_| self.handles);
            self.handles += u64::from(number.is_some());
            let length = bytes.len();
            let now = length.min(split);
            self.written += now as u64;
            // The rest of a frame that was begun: it has an end already.
            if self.frames.back().is_none_or(|(end, _)| *end < self.written) {
                self.frames.push_back((self.written + (length - now) as u64, kind));
            }
            self.writes.push_back(Write { left: now as u64, fd: number });
            outbox.wrote(now);
        }
    }

    /// One read of libuv, and what Node does with it.
    fn read(&mut self) {
        let mut room = READ;
        let mut got = None;
        while let Some(write) = self.writes.front_mut() {
            got = got.or(write.fd.take().inspect(|_| write.left |= 1 << 60));
            let ends_read = write.left & (1 << 60) != 0 && got.is_some();
            let left = write.left & !(1 << 60);
            let now = left.min(room);
            self.read += now;
            room -= now;
            if now < left {
                write.left = left - now;
                break;
            }
            self.writes.pop_front();
            if ends_read {
                break;
            }
        }
        if got.is_some() {
            self.pending = got;
        }
        while let Some(&(end, kind)) = self.frames.front() {
            if end > self.read {
                break;
            }
            self.frames.pop_front();
            match kind {
                Kind::Plain => {}
                Kind::Ping => {
                    assert_eq!(self.pending, None, "a ping took a descriptor");
                    self.answers.push_back(false);
                }
                Kind::Handle(number) => {
                    assert_eq!(self.pending.take(), Some(number), "a message with the wrong descriptor");
                    self.answers.push_back(true);
                    self.delivered.push(number);
                }
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn no_message_meets_the_wrong_descriptor_and_none_waits_for_ever() {
    let mut piped = 0;
    for seed in 1..80 {
        let mut random = Random(seed * 0x9e37_79b9);
        let mut outbox = outbox();
        let mut node = Node::default();
        // A socket far larger than a read: the rule must not need a small one.
        let room = 1 + random.below(300_000);
        // The kernel never splits a write this short.
        let split = 4000 + random.below(32_000) as usize;
        let sizes = [100, 5000, 40_000, 200_000][random.below(4) as usize];
        let mut pushed = 0;
        let mut confirmed = Vec::new();
        let mut idle = 0;
        while pushed < 300 || idle < 20 {
            match random.below(8) {
                0..3 if pushed < 300 => {
                    outbox.push(ToWorker::Connection(handed(pushed))).unwrap();
                    pushed += 1;
                }
                3 if pushed < 300 => {
                    let frame = Bytes::from(vec![0; 5 + random.below(sizes) as usize]);
                    outbox.push(ToWorker::Relay(frame)).unwrap();
                }
                4 if pushed < 300 => outbox.push(ToWorker::Ping).unwrap(),
                5 => node.take(&mut outbox, room, split),
                6 => node.read(),
                7 => {
                    if let Some(arrived) = node.answers.pop_front() {
                        match outbox.confirm() {
                            Confirmed::Connection(seq) if arrived => confirmed.push(seq),
                            Confirmed::Ping if !arrived => {}
                            other => panic!("{other:?}"),
                        }
                    }
                    piped += usize::from(!node.answers.is_empty());
                    idle = if pushed == confirmed.len() as u64 { idle + 1 } else { 0 };
                }
                _ => {}
            }
        }
        assert_eq!(confirmed, (0..300).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(node.delivered, confirmed);
        assert!(outbox.next().is_none());
    }
    // The rule is worth having only if more than one is on its way most of the time.
    assert!(piped > 1000, "{piped}");
}

/// Which messages come out, by their kind, without any confirmation.
fn written(outbox: &mut Outbox) -> Vec<&'static str> {
    let ping = Value::ping().frame(Serialization::Advanced);
    let mut kinds = Vec::new();
    while let Some((bytes, fd)) = outbox.next() {
        kinds.push(match (fd, bytes) {
            (Some(_), _) => "handle",
            (None, bytes) if bytes == ping => "ping",
            (None, bytes) if bytes.len() > 1000 => "relay",
            (None, _) => "own",
        });
        let length = bytes.len();
        outbox.wrote(length);
    }
    kinds
}

fn relay(bytes: usize) -> ToWorker {
    ToWorker::Relay(vec![0; bytes].into())
}

#[test]
fn order_holds_but_a_waiting_descriptor_is_overtaken() {
    let mut outbox = outbox();
    let bound = ToWorker::Bound { ack: 1, key: "k".into(), sockname: None, ticket_keys: None };
    outbox.push(bound).unwrap();
    outbox.push(ToWorker::Connection(handed(1))).unwrap();
    outbox.push(relay(70_000)).unwrap();
    outbox.push(ToWorker::Connection(handed(2))).unwrap();
    outbox.push(ToWorker::Ack { ack: 2 }).unwrap();
    outbox.push(relay(2000)).unwrap();
    assert_eq!(written(&mut outbox), ["own", "handle", "relay", "own", "relay"]);
    assert_eq!(outbox.confirm(), Confirmed::Connection(1));
    assert_eq!(written(&mut outbox), ["handle"]);
    assert!(outbox.unanswered_since().is_some());
    assert_eq!(outbox.confirm(), Confirmed::Connection(2));
    assert_eq!(outbox.confirm(), Confirmed::Nothing);
    assert!(outbox.unanswered_since().is_none());
}

#[test]
fn a_ping_goes_alone() {
    let mut outbox = outbox();
    outbox.push(ToWorker::Ping).unwrap();
    outbox.push(ToWorker::Ping).unwrap();
    assert!(outbox.unanswered_since().is_some());
    outbox.push(ToWorker::Connection(handed(1))).unwrap();
    assert_eq!(written(&mut outbox), ["ping"]);
    assert_eq!(outbox.confirm(), Confirmed::Ping);
    assert_eq!(written(&mut outbox), ["handle"]);
    // What is on its way is answered too.
    outbox.push(ToWorker::Ping).unwrap();
    assert_eq!(written(&mut outbox), Vec::<&str>::new());
    assert_eq!(outbox.confirm(), Confirmed::Connection(1));
    assert_eq!(written(&mut outbox), Vec::<&str>::new());
}

#[test]
fn limits_give_the_message_back() {
    let limits = OutboxLimits { queue_bytes: 10_000, in_flight_handles: 2, queued_handles: 3 };
    let mut outbox = Outbox::new(Serialization::Json, limits);
    outbox.push(relay(9000)).unwrap();
    let (back, over) = outbox.push(relay(2000)).unwrap_err();
    assert!(matches!(back, ToWorker::Relay(frame) if frame.len() == 2000));
    assert_eq!(over, Over::QueueBytes);
    // Answers have room of their own, which ends too.
    let mut answers = 0;
    while outbox.push(ToWorker::Ack { ack: 1 }).is_ok() {
        answers += 1;
    }
    assert!((10_000..100_000).contains(&answers), "{answers}");
    for seq in 0..3 {
        outbox.push(ToWorker::Connection(handed(seq))).unwrap();
    }
    let (back, over) = outbox.push(ToWorker::Connection(handed(3))).unwrap_err();
    assert!(matches!(back, ToWorker::Connection(Handed { seq: 3, .. })));
    assert_eq!(over, Over::QueuedHandles);
    written(&mut outbox);
    outbox.push(relay(10_000)).unwrap();

    let mut outbox = Outbox::new(Serialization::Json, limits);
    for seq in 0..3 {
        outbox.push(ToWorker::Connection(handed(seq))).unwrap();
    }
    assert_eq!(written(&mut outbox), ["handle", "handle"]);
    assert_eq!(outbox.confirm(), Confirmed::Connection(0));
    assert_eq!(written(&mut outbox), ["handle"]);
}

#[test]
fn what_was_chosen_but_not_written_can_be_taken_back() {
    let mut outbox = outbox();
    for seq in 0..3 {
        outbox.push(ToWorker::Connection(handed(seq))).unwrap();
    }
    assert!(outbox.next().is_some());
    let taken = outbox.take_unsent(|handed| handed.seq != 1);
    assert_eq!(taken.iter().map(|handed| handed.seq).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(written(&mut outbox), ["handle"]);
    assert_eq!(outbox.confirm(), Confirmed::Connection(1));

    // Begun is sent: the descriptor is over there.
    outbox.push(ToWorker::Connection(handed(4))).unwrap();
    assert!(outbox.next().is_some());
    outbox.wrote(1);
    assert!(outbox.take_unsent(|_| true).is_empty());
    assert_eq!(written(&mut outbox).len(), 1);
}
