//! Connections that came over the channel and that no [`Listener`](crate::Listener) has taken yet.

use std::collections::VecDeque;

use parking_lot::Mutex;
use sundew_io::Conn;
use tokio::sync::Notify;

/// How many connections may wait to be taken. Beyond it the channel is not read, so the supervisor holds back.
pub(crate) const INBOX_LIMIT: usize = 1024;

/// A connection to serve.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) conn: Conn,
    /// It opens a session: see [`Placement`](crate::placement::Placement).
    pub(crate) places: bool,
}

/// The waiting connections, and how far the descriptors have been taken.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(u64, Incoming)>,
    last_seq: u64,
}

impl Inbox {
    /// Adds a connection, waiting while [`INBOX_LIMIT`] others wait.
    pub(crate) async fn push(&self, seq: u64, incoming: Incoming) {
        while self.state.lock().waiting.len() >= INBOX_LIMIT {
            self.taken.notified().await;
        }
        let mut state = self.state.lock();
        state.last_seq = seq;
        state.waiting.push_back((seq, incoming));
        drop(state);
        self.arrived.notify_one();
    }

    /// Notes a descriptor that did not go through this inbox.
    pub(crate) fn pass(&self, seq: u64) {
        self.state.lock().last_seq = seq;
    }

    /// Takes the next connection. Cancel-safe.
    pub(crate) async fn take(&self) -> Incoming {
        loop {
            if let Some((_, incoming)) = self.state.lock().waiting.pop_front() {
                self.taken.notify_one();
                return incoming;
            }
            self.arrived.notified().await;
        }
    }

    /// Every descriptor up to this one has been taken.
    pub(crate) fn through(&self) -> u64 {
        let state = self.state.lock();
        state.waiting.front().map_or(state.last_seq, |(seq, _)| seq - 1)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use sundew_io::Origin;
    use tokio::net::UnixStream;

    use super::*;

    fn incoming() -> Incoming {
        Incoming { conn: Conn::unix(UnixStream::pair().unwrap().0, Origin::Leg), places: false }
    }

    #[tokio::test]
    async fn through_follows_what_is_taken() {
        let inbox = Inbox::default();
        assert_eq!(inbox.through(), 0);
        inbox.push(1, incoming()).await;
        inbox.pass(2);
        inbox.push(3, incoming()).await;
        assert_eq!(inbox.through(), 0);
        inbox.take().await;
        assert_eq!(inbox.through(), 2);
        inbox.take().await;
        assert_eq!(inbox.through(), 3);
    }

    #[tokio::test]
    async fn a_full_inbox_holds_back() {
        let inbox = Inbox::default();
        for seq in 1..=INBOX_LIMIT as u64 {
            inbox.push(seq, incoming()).await;
        }
        let mut push = Box::pin(inbox.push(2000, incoming()));
        assert!((&mut push).now_or_never().is_none());
        inbox.take().await;
        assert!(push.now_or_never().is_some());
    }
}
