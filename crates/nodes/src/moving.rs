//! Two nodes agree on where a session goes on, over the leg that carries its websocket. The near side holds the client's
//! connection and decides; the far side has the session.
//!
//! ```text
//! near                far
//!   -- Take -->             freeze the session, if it is at rest
//!   <-- State, or Stays --
//!   -- Moved -->            let go of it: its websocket ends
//!   -- Keep -->             or thaw it, as also when the leg ends before
//! ```

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use sundew_router::{Departure, Mover, Moving, WeakFront};
use tokio::sync::{mpsc, oneshot};

use crate::seal::PLAIN;

/// The most bytes of a session that fit in one record.
pub(crate) const MOST_BYTES: u32 = PLAIN as u32 - 5;

/// What is said about a session, in a record of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Which question this belongs to: an answer may come when nobody waits for it any more.
    seq: u32,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// I would take this session.
    Take(String),
    /// It is frozen, and this is it.
    State(Vec<u8>),
    /// It stays, for the moment.
    Stays,
    /// It goes on here now.
    Moved,
    /// It stays with you after all.
    Keep,
}

impl Word {
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let with = |kind: u8, bytes: &[u8]| [&[kind], &self.seq.to_be_bytes()[..], bytes].concat();
        match &self.what {
            What::Take(sid) => with(1, sid.as_bytes()),
            What::State(state) => with(2, state),
            What::Stays => with(3, &[]),
            What::Moved => with(4, &[]),
            What::Keep => with(5, &[]),
        }
    }

    pub(crate) fn from_record(record: &[u8]) -> Option<Self> {
        let (kind, rest) = record.split_first()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let what = match (kind, rest) {
            (1, sid) => What::Take(std::str::from_utf8(sid).ok()?.to_owned()),
            (2, state) => What::State(state.to_vec()),
            (3, []) => What::Stays,
            (4, []) => What::Moved,
            (5, []) => What::Keep,
            _ => return None,
        };
        Some(Self { seq: u32::from_be_bytes(*seq), what })
    }
}

/// Which side of a leg this is.
pub(crate) enum Side {
    Near(Near),
    Far(Far),
    /// It says nothing about sessions.
    #[cfg(test)]
    Still,
}

/// The side of the client's connection.
pub(crate) struct Near {
    seq: u32,
    wishes: mpsc::Receiver<Wish>,
    asked: Option<oneshot::Sender<Option<Vec<u8>>>>,
}

enum Wish {
    Take { sid: String, answer: oneshot::Sender<Option<Vec<u8>>> },
    Settle { moved: bool },
}

/// The side of the session.
pub(crate) struct Far {
    front: WeakFront,
    /// The most bytes of state.
    limit: u32,
    /// The latest question.
    seq: u32,
    exporting: Option<Moving<Option<Departure>>>,
    frozen: Option<Departure>,
}

impl Far {
    pub(crate) fn new(front: WeakFront, limit: u32) -> Self {
        Self { front, limit: limit.min(MOST_BYTES), seq: 0, exporting: None, frozen: None }
    }
}

impl Side {
    /// A word came, and everything before it is in the pair. `say`: what is to be answered at once.
    pub(crate) fn hear(&mut self, word: Word, say: &mut Option<Word>) {
        let Word { seq, what } = word;
        match (self, what) {
            (Self::Near(near), What::State(state)) => near.answer(seq, Some(state)),
            (Self::Near(near), What::Stays) => near.answer(seq, None),
            (Self::Far(far), What::Take(sid)) => {
                // The other side has settled the question before.
                far.frozen = None;
                far.seq = seq;
                far.exporting = far.front.upgrade().map(|front| front.export(&sid, far.limit));
                if far.exporting.is_none() {
                    *say = Some(Word { seq, what: What::Stays });
                }
            }
            (Self::Far(far), What::Moved | What::Keep) if far.seq != seq => {}
            (Self::Far(far), What::Moved) => {
                far.exporting = None;
                if let Some(frozen) = far.frozen.take() {
                    frozen.moved();
                }
            }
            (Self::Far(far), What::Keep) => {
                far.exporting = None;
                far.frozen = None;
            }
            (_, what) => tracing::debug!(?what, "a word that does not belong here"),
        }
    }

    /// The next word to be said. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Word {
        match self {
            Self::Near(near) => {
                // The leg is given up when nobody can wish any more; the pair tells.
                let Some(wish) = near.wishes.recv().await else { return std::future::pending().await };
                let what = match wish {
                    Wish::Take { sid, answer } => {
                        near.seq = near.seq.wrapping_add(1);
                        near.asked = Some(answer);
                        What::Take(sid)
                    }
                    Wish::Settle { moved } => {
                        near.asked = None;
                        if moved { What::Moved } else { What::Keep }
                    }
                };
                Word { seq: near.seq, what }
            }
            Self::Far(far) => {
                let Some(exporting) = &mut far.exporting else { return std::future::pending().await };
                let departure = exporting.await;
                far.exporting = None;
                let what = match departure {
                    Some(departure) => {
                        let state = departure.state().to_vec();
                        far.frozen = Some(departure);
                        What::State(state)
                    }
                    None => What::Stays,
                };
                Word { seq: far.seq, what }
            }
            #[cfg(test)]
            Self::Still => std::future::pending().await,
        }
    }
}

impl Near {
    fn answer(&mut self, seq: u32, state: Option<Vec<u8>>) {
        // Otherwise nobody waits any more, and has said so.
        if seq == self.seq
            && let Some(asked) = self.asked.take()
        {
            let _ = asked.send(state);
        }
    }
}

/// The near side as the front door has it.
pub(crate) struct Asker {
    wishes: Mutex<mpsc::Sender<Wish>>,
    quiet: Duration,
    patience: Duration,
}

/// Both ends of the near side.
pub(crate) fn near(quiet: Duration, patience: Duration) -> (Asker, Near) {
    // A question, and what becomes of it, twice.
    let (sender, wishes) = mpsc::channel(4);
    (Asker { wishes: Mutex::new(sender), quiet, patience }, Near { seq: 0, wishes, asked: None })
}

impl Mover for Asker {
    fn quiet(&self) -> Duration {
        self.quiet
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn take(&self, sid: &str) -> Moving<Option<Vec<u8>>> {
        let (answer, state) = oneshot::channel();
        let asked = self.wishes.lock().try_send(Wish::Take { sid: sid.to_owned(), answer });
        Box::pin(async move {
            asked.ok()?;
            state.await.ok().flatten()
        })
    }

    fn settle(&self, moved: bool) {
        // Full only while the leg is stuck, and a question that is not settled ends with the leg.
        if self.wishes.lock().try_send(Wish::Settle { moved }).is_err() {
            tracing::debug!(moved, "the other node could not be told what becomes of a session");
        }
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("quiet", &self.quiet).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_travel_as_records() {
        let words = [
            What::Take("abc".to_owned()),
            What::State(vec![0, 255, 7]),
            What::Stays,
            What::Moved,
            What::Keep,
        ];
        for what in words {
            let word = Word { seq: 0x0102_0304, what };
            assert_eq!(Word::from_record(&word.to_record()), Some(word));
        }
        for wrong in [&[][..], &[3, 0, 0, 0], &[1, 0, 0, 0, 0, 0xff], &[3, 0, 0, 0, 0, 0], &[6, 0, 0, 0, 0]] {
            assert_eq!(Word::from_record(wrong), None);
        }
    }
}
