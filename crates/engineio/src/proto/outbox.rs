//! What waits to be sent to one session, bounded in bytes and packets.
//!
//! Everything is kept as websocket frames. A websocket writes them as they are; a poll gets the same packets as a
//! payload, so it does not matter on which transport something was queued.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;

use super::dialect::{Answer, AnswerKind, Dialect};
use crate::Frames;

/// The most entries an emptied queue may have had room for to be kept as the thread's spare.
const SPARE: usize = 256;

thread_local! {
    /// An emptied queue, for the next session of this thread that has something to send: an idle session holds no memory, and
    /// a busy one does not ask for it again and again.
    static SPARE_QUEUE: Cell<Option<VecDeque<Frames>>> = const { Cell::new(None) };
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Frames>,
    /// How much of the first entry was written already.
    written: usize,
    bytes: usize,
    packets: usize,
    /// How many bytes have to leave until the last ping has: none, if none waits.
    ping: usize,
}

impl Outbox {
    /// What was queued last is a ping.
    pub(crate) fn mark_ping(&mut self) {
        self.ping = self.bytes;
    }

    /// Whether a ping waits.
    pub(crate) fn has_ping(&self) -> bool {
        self.ping > 0
    }

    pub(crate) fn push(&mut self, frames: Frames) {
        self.bytes += frames.len();
        self.packets += frames.packets();
        if self.queue.capacity() == 0
            && let Some(spare) = SPARE_QUEUE.take()
        {
            // It holds nothing: to drop it would be work for nothing, once per message.
            std::mem::forget(std::mem::replace(&mut self.queue, spare));
        }
        self.queue.push_back(frames);
    }

    /// The same for what is written to a websocket: short messages that wait behind one another become one entry, which is
    /// written, and counts as waiting, as a whole. What waits behind others takes no more memory than it needs.
    pub(crate) fn join(&mut self, frames: Frames) {
        let (bytes, packets) = (frames.len(), frames.packets());
        match self.queue.back_mut() {
            None => self.push(frames),
            Some(last) => match last.join(frames) {
                Some(frames) => self.push(frames.shared()),
                None => {
                    self.bytes += bytes;
                    self.packets += packets;
                }
            },
        }
    }

    /// Replaces what `change` gives something for. Nothing of it may have been written yet.
    pub(crate) fn change(&mut self, mut change: impl FnMut(&Frames) -> Option<Frames>) {
        for frames in &mut self.queue {
            if let Some(changed) = change(frames) {
                self.bytes = self.bytes - frames.len() + changed.len();
                *frames = changed;
            }
        }
        self.remark_ping();
    }

    /// From here on for WebTransport, what waits included. Nothing of it may have been written yet.
    pub(crate) fn unwrap(&mut self) {
        let waiting = std::mem::take(self);
        self.ping = waiting.ping;
        for frames in waiting.queue {
            for piece in frames.unwrapped() {
                self.push(piece);
            }
        }
        self.remark_ping();
    }

    /// What waits has changed in size. Where its ping is now is of no account: it leaves with the rest.
    fn remark_ping(&mut self) {
        if self.has_ping() {
            self.mark_ping();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes not written yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Packets not written whole yet.
    pub(crate) fn packets(&self) -> usize {
        self.packets
    }

    /// The only entry's unwritten bytes, if there is just one: the common case, and a plain write.
    pub(crate) fn single(&self) -> Option<&[u8]> {
        match self.queue.len() {
            1 => Some(&self.queue[0].as_bytes()[self.written..]),
            _ => None,
        }
    }

    /// What is next to be written, all of it.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes);
        let mut skip = self.written;
        for frames in &self.queue {
            bytes.extend_from_slice(&frames.as_bytes()[skip..]);
            skip = 0;
        }
        bytes
    }

    /// Fills `slices` with what is next to be written and returns how many were filled.
    pub(crate) fn chunks<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.written;
        let mut filled = 0;
        for (slice, frames) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(&frames.as_bytes()[skip..]);
            skip = 0;
            filled += 1;
        }
        filled
    }

    /// `count` bytes were written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.bytes -= count;
        self.ping = self.ping.saturating_sub(count);
        self.written += count;
        while let Some(front) = self.queue.front()
            && self.written >= front.len()
        {
            self.written -= front.len();
            self.packets -= front.packets();
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            let emptied = std::mem::take(&mut self.queue);
            if emptied.capacity() <= SPARE {
                SPARE_QUEUE.set(Some(emptied));
            }
        }
    }

    /// Drops everything but the rest of a half-written entry, which must reach the peer whole or break the framing.
    pub(crate) fn discard(&mut self) {
        let half = if self.written > 0 { self.queue.pop_front() } else { None };
        self.queue = VecDeque::new();
        (self.bytes, self.packets, self.ping) = (0, 0, 0);
        if let Some(half) = half {
            self.bytes = half.len() - self.written;
            self.packets = half.packets();
            self.queue.push_back(half);
        } else {
            self.written = 0;
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Outbox::default();
    }

    /// Everything as the answer of a poll.
    pub(crate) fn take_answer(&mut self, dialect: &Dialect) -> Answer {
        let queue = std::mem::take(&mut self.queue);
        let bytes = std::mem::take(&mut self.bytes);
        (self.packets, self.ping) = (0, 0);
        if let [frames] = queue.as_slices().0
            && queue.len() == 1
            && dialect.is_plain()
            && let Some(body) = frames.only_text()
        {
            return Answer { body, kind: AnswerKind::Text, compress: frames.compress() };
        }
        // As in Node, one that may be compressed is enough.
        let compress = queue.iter().any(Frames::compress);
        Answer { compress, ..dialect.answer(queue.iter().flat_map(Frames::iter), bytes) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn written(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outbox.chunks(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn partial_writes_keep_the_order() {
        let mut outbox = Outbox::default();
        outbox.push(Frames::text("one"));
        outbox.push(Frames::binary(&[9, 9]));
        let whole = written(&outbox);
        assert_eq!(whole, b"\x81\x044one\x82\x02\x09\x09");
        for at in 1..whole.len() {
            outbox.advance(1);
            assert_eq!(written(&outbox), &whole[at..]);
            assert_eq!(outbox.bytes(), whole.len() - at);
        }
        outbox.advance(1);
        assert!(outbox.is_empty());
        assert_eq!((outbox.bytes(), outbox.packets()), (0, 0));
    }

    #[test]
    fn short_messages_to_one_client_become_one_entry() {
        let mut outbox = Outbox::default();
        outbox.join(Frames::text("one"));
        outbox.advance(2);
        outbox.join(Frames::binary(&[9, 9]));
        outbox.join(Frames::text("three"));
        let whole = b"4one\x82\x02\x09\x09\x81\x064three";
        assert_eq!(outbox.single(), Some(&whole[..]));
        assert_eq!((outbox.bytes(), outbox.packets()), (whole.len(), 3));
        // Shared memory is not appended to, nor what follows it.
        outbox.join(Frames::text("many").shared());
        outbox.join(Frames::text("five"));
        assert_eq!((outbox.queue.len(), outbox.packets()), (3, 5));
        let whole = [&whole[..], b"\x81\x054many\x81\x054five"].concat();
        for at in 0..whole.len() {
            assert_eq!(written(&outbox), &whole[at..]);
            assert_eq!(outbox.bytes(), whole.len() - at);
            outbox.advance(1);
        }
        assert_eq!((outbox.bytes(), outbox.packets()), (0, 0));
    }

    #[test]
    fn an_entry_does_not_grow_without_end() {
        let mut outbox = Outbox::default();
        let text = "x".repeat(100);
        for _ in 0..1000 {
            outbox.join(Frames::text(&text));
        }
        assert!(outbox.queue.iter().all(|frames| frames.len() <= 4096));
        assert_eq!((outbox.bytes(), outbox.packets()), (103_000, 1000));
        assert_eq!(outbox.to_vec(), [&b"\x81\x654"[..], text.as_bytes()].concat().repeat(1000));
    }

    #[test]
    fn a_payload_has_every_packet_of_every_entry() {
        let mut outbox = Outbox::default();
        outbox.push(Frames::with_attachments("51-[]", &[Bytes::from_static(&[1, 2, 3, 4])]));
        outbox.push(Frames::text(&"x".repeat(200)));
        assert_eq!(outbox.packets(), 3);
        let expected = format!("451-[]\x1ebAQIDBA==\x1e4{}", "x".repeat(200));
        assert_eq!(outbox.take_answer(&Dialect::V4).body, expected.as_bytes());
        assert!(outbox.is_empty());
        assert_eq!((outbox.bytes(), outbox.packets()), (0, 0));
    }

    #[test]
    fn one_text_is_sliced_not_copied() {
        let mut outbox = Outbox::default();
        let frames = Frames::text("hello").shared();
        let inside = frames.as_bytes()[2..].as_ptr();
        outbox.push(frames);
        let payload = outbox.take_answer(&Dialect::V4).body;
        assert_eq!(payload, "4hello");
        assert_eq!(payload.as_ptr(), inside);
    }

    #[test]
    fn discard_keeps_a_half_written_entry() {
        let mut outbox = Outbox::default();
        outbox.push(Frames::text("one"));
        outbox.push(Frames::text("two"));
        outbox.advance(3);
        outbox.discard();
        assert_eq!(written(&outbox), b"one");
        assert_eq!((outbox.bytes(), outbox.packets()), (3, 1));
        outbox.advance(3);
        outbox.push(Frames::text("three"));
        outbox.discard();
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_ping_waits_until_its_last_byte_has_left() {
        let mut outbox = Outbox::default();
        outbox.join(Frames::text("one"));
        outbox.join(Frames::control("2"));
        outbox.mark_ping();
        outbox.join(Frames::text("two"));
        outbox.advance(8);
        assert!(outbox.has_ping());
        outbox.advance(1);
        assert!(!outbox.has_ping() && !outbox.is_empty());
        outbox.join(Frames::control("2"));
        outbox.mark_ping();
        outbox.take_answer(&Dialect::V4);
        assert!(!outbox.has_ping());
        // On WebTransport it takes fewer bytes.
        outbox.push(Frames::control("2"));
        outbox.mark_ping();
        outbox.unwrap();
        assert!(outbox.has_ping());
        outbox.advance(2);
        assert!(!outbox.has_ping() && outbox.is_empty());
    }

    #[test]
    fn an_emptied_queue_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.push(Frames::text("x"));
        }
        outbox.advance(outbox.bytes());
        assert_eq!(outbox.queue.capacity(), 0);
    }
}
