//! Connections on their way to a Node worker over a pipe of their own, past Node's messages: eight bytes and a
//! descriptor each, taken in order and confirmed several at a time. The worker's side is the preload's.
//!
//! To the worker: the number of its server (never 0) and what the connection is. From it: a number and a verdict. What is sent is
//! numbered from 1; all up to and including a number was taken, or the connection of that number was refused.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::stream::{self, SendFailed};

/// The environment variable that tells the preload of the pipe: `<fd>:<confirm at the latest after so many>`.
const ENV: &str = "SUNDEW_HANDOVER";
/// Bytes of a message, in both directions.
const RECORD: usize = 8;
/// How long to wait when the system has too many descriptors on their way: no event tells when there are fewer.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);

/// What becomes of something that was sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// It is the worker's now.
    Taken(T),
    /// The worker closed its copy without looking at it.
    Refused(T),
}

/// What a connection is, to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// One client's.
    Client,
    /// A leg: the requests of many.
    Leg,
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSent;

/// The supervisor's end. What is sent is kept until the worker's word on it.
#[derive(Debug)]
pub struct HandPipe<T> {
    // Never used as a stream: tokio's socket is what watches a descriptor it owns.
    socket: UnixStream,
    queue: Mutex<Queue<T>>,
    /// The system had no room for another descriptor.
    crowded: Notify,
    in_flight: usize,
    queued: usize,
}

#[derive(Debug)]
struct Queue<T> {
    /// The number of the first one in `waiting`.
    first: u32,
    waiting: VecDeque<Waiting<T>>,
    /// So many of them were sent.
    sent: usize,
    closed: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    what: T,
    server: u32,
    carries: Carries,
    since: Instant,
}

/// Makes a pipe: the supervisor's end and the worker's.
///
/// # Errors
/// When the system has no sockets left.
pub fn hand_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    super::pair()
}

/// What the environment of a worker with the preload must say of its end of the pipe.
pub fn hand_pipe_env(fd: RawFd, in_flight: usize) -> (&'static str, String) {
    // Early enough for the pipe never to run dry for want of a confirmation.
    (ENV, format!("{fd}:{}", (in_flight / 2).max(1)))
}

impl<T: AsFd> HandPipe<T> {
    /// Takes our end into the current runtime. At most `in_flight` are sent and not confirmed, and `queued` wait behind those.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    ///
    /// # Panics
    /// Outside of a runtime with IO enabled.
    pub fn new(ours: OwnedFd, in_flight: usize, queued: usize) -> io::Result<Self> {
        Ok(Self {
            socket: UnixStream::from_std(ours.into())?,
            queue: Mutex::new(Queue { first: 1, waiting: VecDeque::new(), sent: 0, closed: false }),
            crowded: Notify::new(),
            in_flight: in_flight.max(1),
            queued,
        })
    }

    /// Sends it, or queues it behind others. Never waits. Whether nothing was open before it.
    ///
    /// # Errors
    /// Gives it back when the pipe has ended or too many wait.
    pub fn send(&self, server: u32, carries: Carries, what: T) -> Result<bool, (T, NotSent)> {
        let mut queue = self.queue.lock();
        if queue.closed || queue.waiting.len() >= self.in_flight + self.queued {
            return Err((what, NotSent));
        }
        let was_empty = queue.waiting.is_empty();
        queue.waiting.push_back(Waiting { what, server, carries, since: Instant::now() });
        self.flush(&mut queue);
        Ok(was_empty)
    }

    fn flush(&self, queue: &mut Queue<T>) {
        while queue.sent < self.in_flight {
            let Some(next) = queue.waiting.get(queue.sent) else { return };
            let mut record = [0; RECORD];
            record[..4].copy_from_slice(&next.server.to_le_bytes());
            record[4] = u8::from(next.carries == Carries::Leg);
            match stream::send(self.socket.as_fd(), &record, Some(next.what.as_fd())) {
                // With a descriptor it is all or nothing: so few bytes are never cut.
                Ok(_) => queue.sent += 1,
                // Sent when those before it are confirmed.
                Err(SendFailed::Blocked) if queue.sent > 0 => return,
                Err(SendFailed::Blocked | SendFailed::Crowded) => return self.crowded.notify_one(),
                // The end: reading tells.
                Err(SendFailed::Ended(_)) => return,
            }
        }
    }

    /// Reads the worker's word to the end of the pipe. One task only.
    pub async fn run(&self, mut told: impl FnMut(Verdict<T>)) {
        let mut buffer = [0; 64 * RECORD];
        let mut have = 0;
        let mut verdicts = Vec::new();
        loop {
            let read = self.socket.async_io(Interest::READABLE, || {
                Ok(rustix::net::recv(&self.socket, &mut buffer[have..], rustix::net::RecvFlags::DONTWAIT)?.0)
            });
            tokio::select! {
                read = read => match read {
                    Ok(read @ 1..) => have += read,
                    // The worker is gone: whoever watches the process takes back what is left.
                    _ => return,
                },
                () = self.crowded.notified() => {
                    tokio::time::sleep(CROWDED_PAUSE).await;
                    self.flush(&mut self.queue.lock());
                    continue;
                }
            }
            let whole = have - have % RECORD;
            let good = {
                let mut queue = self.queue.lock();
                let good =
                    buffer[..whole].chunks_exact(RECORD).all(|record| queue.apply(record, &mut verdicts));
                self.flush(&mut queue);
                good
            };
            verdicts.drain(..).for_each(&mut told);
            if !good {
                // It is not our preload that speaks. Nothing more is sent this way.
                tracing::warn!("a Node worker wrote something else into the pipe its connections come from");
                self.queue.lock().closed = true;
                return;
            }
            buffer.copy_within(whole..have, 0);
            have -= whole;
        }
    }

    /// Takes back what was not sent yet and is wanted by `pick`.
    pub fn take_unsent(&self, pick: impl Fn(&T) -> bool) -> Vec<T> {
        let mut queue = self.queue.lock();
        let sent = queue.sent;
        let (keep, take): (Vec<_>, Vec<_>) = queue.waiting.drain(sent..).partition(|one| !pick(&one.what));
        queue.waiting.extend(keep);
        take.into_iter().map(|one| one.what).collect()
    }

    /// Ends it. Gives back what the worker has not confirmed.
    pub fn close(&self) -> Vec<T> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.sent = 0;
        queue.waiting.drain(..).map(|one| one.what).collect()
    }

    /// Since when the oldest one waits for the worker's word.
    pub fn oldest(&self) -> Option<Instant> {
        self.queue.lock().waiting.front().map(|one| one.since)
    }

    /// Since when the oldest one waits, and how many do, of those that `pick` wants.
    pub fn waiting(&self, pick: impl Fn(&T) -> bool) -> (Option<Instant>, usize) {
        let queue = self.queue.lock();
        let mut wanted = queue.waiting.iter().filter(|one| pick(&one.what)).map(|one| one.since);
        let first = wanted.next();
        (first, wanted.count() + usize::from(first.is_some()))
    }
}

impl<T> Queue<T> {
    /// Whether it makes sense.
    fn apply(&mut self, record: &[u8], verdicts: &mut Vec<Verdict<T>>) -> bool {
        let word = |at: usize| {
            record[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or_default()
        };
        let (number, verdict) = (word(0), word(4));
        match verdict {
            0 => {
                let count = number.wrapping_sub(self.first).wrapping_add(1) as usize;
                if count > self.sent {
                    return false;
                }
                self.pop(count, |what| verdicts.push(Verdict::Taken(what)));
                true
            }
            // Always the first: those before it are confirmed first.
            1 if number == self.first && self.sent > 0 => {
                self.pop(1, |what| verdicts.push(Verdict::Refused(what)));
                true
            }
            _ => false,
        }
    }

    fn pop(&mut self, count: usize, mut done: impl FnMut(T)) {
        for one in self.waiting.drain(..count) {
            done(one.what);
        }
        self.sent -= count;
        self.first = self.first.wrapping_add(u32::try_from(count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Std;

    use super::*;

    /// A pipe, the worker's end of it, and a descriptor of each kind to send.
    fn pipe(in_flight: usize, queued: usize) -> (HandPipe<OwnedFd>, Std) {
        let (ours, theirs) = hand_pipe().unwrap();
        let theirs = Std::from(theirs);
        theirs.set_nonblocking(true).unwrap();
        (HandPipe::new(ours, in_flight, queued).unwrap(), theirs)
    }

    fn descriptor() -> OwnedFd {
        Std::pair().unwrap().0.into()
    }

    fn say(worker: &mut Std, number: u32, verdict: u32) {
        let mut record = number.to_le_bytes().to_vec();
        record.extend(verdict.to_le_bytes());
        worker.write_all(&record).unwrap();
    }

    /// The servers of what has arrived. Descriptors that are not asked for are closed by the kernel.
    fn arrived(worker: &mut Std) -> Vec<u32> {
        let mut servers = Vec::new();
        let mut record = [0; RECORD];
        while worker.read_exact(&mut record).is_ok() {
            servers.push(u32::from_le_bytes(*record.first_chunk().unwrap()));
        }
        servers
    }

    async fn verdicts(pipe: &HandPipe<OwnedFd>, count: usize) -> Vec<bool> {
        let mut got = Vec::new();
        let mut seen = 0;
        let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
        let run = pipe.run(|verdict| {
            got.push(matches!(verdict, Verdict::Taken(_)));
            seen += 1;
            if seen == count {
                let _ = done.send(());
            }
        });
        tokio::select! { () = run => {}, _ = finished.recv() => {} }
        got
    }

    #[tokio::test]
    async fn so_many_are_on_their_way_and_so_many_wait() {
        let (pipe, mut worker) = pipe(2, 1);
        assert_eq!(pipe.send(7, Carries::Client, descriptor()).ok(), Some(true));
        assert_eq!(pipe.send(8, Carries::Leg, descriptor()).ok(), Some(false));
        assert!(pipe.send(9, Carries::Client, descriptor()).is_ok());
        assert!(pipe.send(10, Carries::Client, descriptor()).is_err(), "one waits already");
        assert_eq!(arrived(&mut worker), [7, 8]);
        say(&mut worker, 2, 0);
        assert_eq!(verdicts(&pipe, 2).await, [true, true]);
        assert_eq!(arrived(&mut worker), [9], "the next one follows");
    }

    #[tokio::test]
    async fn what_is_refused_comes_back_and_the_others_do_not() {
        let (pipe, mut worker) = pipe(8, 0);
        for server in 1..=4 {
            pipe.send(server, Carries::Client, descriptor()).unwrap();
        }
        say(&mut worker, 2, 0);
        say(&mut worker, 3, 1);
        assert_eq!(verdicts(&pipe, 3).await, [true, true, false]);
        assert_eq!(pipe.close().len(), 1, "nothing was said of the last one");
        assert!(pipe.send(1, Carries::Client, descriptor()).is_err());
    }

    #[tokio::test]
    async fn nonsense_ends_the_pipe_and_loses_nothing() {
        for (number, verdict) in [(3, 0), (2, 1), (1, 2), (0, 1)] {
            let (pipe, mut worker) = pipe(8, 0);
            pipe.send(1, Carries::Client, descriptor()).unwrap();
            pipe.send(1, Carries::Client, descriptor()).unwrap();
            say(&mut worker, number, verdict);
            assert!(verdicts(&pipe, usize::MAX).await.is_empty(), "{number} {verdict}");
            assert!(pipe.send(1, Carries::Client, descriptor()).is_err());
            assert_eq!(pipe.close().len(), 2);
        }
    }

    #[tokio::test]
    async fn what_was_not_sent_can_be_taken_back() {
        let (pipe, mut worker) = pipe(1, 8);
        for server in 1..=3 {
            pipe.send(server, Carries::Client, descriptor()).unwrap();
        }
        assert_eq!(pipe.take_unsent(|_| true).len(), 2);
        assert_eq!(pipe.waiting(|_| true).1, 1);
        say(&mut worker, 1, 0);
        assert_eq!(verdicts(&pipe, 1).await, [true]);
        assert_eq!(arrived(&mut worker), [1]);
        assert!(pipe.oldest().is_none());
    }

    #[tokio::test]
    async fn a_word_that_comes_in_pieces_is_put_together() {
        let (pipe, mut worker) = pipe(8, 0);
        pipe.send(1, Carries::Client, descriptor()).unwrap();
        let told = tokio::spawn(async move { verdicts(&pipe, 1).await });
        for byte in [1, 0, 0, 0, 0, 0, 0, 0u8] {
            worker.write_all(&[byte]).unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(told.await.unwrap(), [true]);
    }
}
