//! Asks the other nodes whose a session is, where its id does not tell.
//!
//! Nothing is written anywhere when a session begins: who has it answers for it. So a handshake waits for nobody, and a
//! registry that is away is not missed. What a question costs is bounded: so many at once, so long, and who asks again
//! for what was just not found asks nobody.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sundew_router::{Finder, Finding};
use tokio::sync::{Semaphore, mpsc};

use crate::doors::Name;
use crate::table::{Asked, Table};
use crate::wire::Request;

/// What was not found is not asked for again this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);
/// So many of those are kept.
const NOT_FOUND: usize = 8192;
/// The longest session id that is asked for, in bytes.
const MAX_SID: usize = 4096;

/// What all questions share.
pub(crate) struct Asking {
    pub(crate) table: Arc<Table>,
    in_flight: Arc<Semaphore>,
    timeout: Duration,
    seq: AtomicU64,
    /// Questions that were not asked: too many at once.
    pub(crate) refused: AtomicU64,
    not_found: Mutex<NotFound>,
}

struct NotFound {
    now: HashSet<(Name, String)>,
    before: HashSet<(Name, String)>,
    since: Instant,
}

impl NotFound {
    fn turn(&mut self) {
        if self.since.elapsed() >= FORGOTTEN_AFTER / 2 || self.now.len() >= NOT_FOUND / 2 {
            let stale = self.since.elapsed() >= FORGOTTEN_AFTER;
            self.before = std::mem::take(&mut self.now);
            if stale {
                self.before.clear();
            }
            self.since = Instant::now();
        }
    }
}

impl Asking {
    pub(crate) fn new(table: Arc<Table>, in_flight: u32, timeout: Duration) -> Self {
        let not_found = NotFound { now: HashSet::new(), before: HashSet::new(), since: Instant::now() };
        Self {
            table,
            in_flight: Arc::new(Semaphore::new(usize::try_from(in_flight).unwrap_or(usize::MAX))),
            timeout,
            seq: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            not_found: Mutex::new(not_found),
        }
    }

    async fn ask(&self, name: Name, sid: String) -> Option<u8> {
        let key = (name, sid);
        {
            let mut not_found = self.not_found.lock();
            not_found.turn();
            if not_found.now.contains(&key) || not_found.before.contains(&key) {
                return None;
            }
        }
        let Ok(_permit) = self.in_flight.try_acquire() else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let (links, all) = self.table.links();
        let (answer, mut answers) = mpsc::channel(links.len().max(1));
        for (_, link) in &links {
            let (Name { app, door }, sid) = key.clone();
            let request = Request::Has { ask: self.seq.fetch_add(1, Ordering::Relaxed), app, door, sid };
            // One that cannot take it now has too much to do: it counts as no.
            let _ = link.try_send(Asked { request, answer: answer.clone() });
        }
        drop(answer);
        let first_yes = async {
            while let Some((node, yes)) = answers.recv().await {
                if yes {
                    return Some(node);
                }
            }
            None
        };
        match tokio::time::timeout(self.timeout, first_yes).await {
            Ok(Some(node)) => Some(node),
            Ok(None) if all => {
                self.not_found.lock().now.insert(key);
                None
            }
            // Somebody may have it and be slow, or be back soon: the next request asks again.
            Ok(None) | Err(_) => None,
        }
    }
}

/// Asks for the sessions of one front door.
pub(crate) struct Seeker {
    pub(crate) asking: Arc<Asking>,
    pub(crate) name: Name,
}

impl fmt::Debug for Seeker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seeker").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Finder for Seeker {
    fn find(&self, sid: &[u8]) -> Finding {
        let sid = std::str::from_utf8(sid).ok().filter(|sid| sid.len() <= MAX_SID).map(str::to_owned);
        let (asking, name) = (self.asking.clone(), self.name.clone());
        Box::pin(async move {
            match sid {
                Some(sid) => asking.ask(name, sid).await,
                // What a worker writes in JSON is text.
                None => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Identity;

    fn name() -> Name {
        Name { app: "a".to_owned(), door: String::new() }
    }

    fn node(table: &Table, number: u8) -> mpsc::Receiver<Asked> {
        let (link, asked) = mpsc::channel(4);
        let identity = Identity {
            id: number.to_string(),
            run: String::new(),
            number: Some(number),
            addr: number.to_string(),
        };
        table.met(number, &identity, link);
        asked
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_it_is_found_whoever_else_is_silent() {
        let table = Arc::new(Table::default());
        let (mut one, _silent) = (node(&table, 1), node(&table, 2));
        let asking = Asking::new(table, 8, Duration::from_secs(1));
        let answering = async {
            let asked = one.recv().await.unwrap();
            assert!(matches!(&asked.request, Request::Has { sid, .. } if sid == "x"));
            asked.answer.send((1, true)).await.unwrap();
        };
        let (found, ()) = tokio::join!(asking.ask(name(), "x".to_owned()), answering);
        assert_eq!(found, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_is_asked_for_once() {
        let table = Arc::new(Table::default());
        let mut one = node(&table, 1);
        let asking = Asking::new(table, 8, Duration::from_secs(1));
        let answering = async {
            one.recv().await.unwrap().answer.send((1, false)).await.unwrap();
        };
        let (found, ()) = tokio::join!(asking.ask(name(), "x".to_owned()), answering);
        assert_eq!(found, None);
        assert_eq!(asking.ask(name(), "x".to_owned()).await, None);
        assert!(one.try_recv().is_err(), "asked twice");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_are_asked_at_once_and_nobody_waits_for_ever() {
        let table = Arc::new(Table::default());
        let _silent = node(&table, 1);
        let asking = Asking::new(table, 1, Duration::from_secs(1));
        let (first, second) =
            tokio::join!(asking.ask(name(), "x".to_owned()), asking.ask(name(), "y".to_owned()));
        assert_eq!((first, second), (None, None));
        assert_eq!(asking.refused.load(Ordering::Relaxed), 1);
    }
}
