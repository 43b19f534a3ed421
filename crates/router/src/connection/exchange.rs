//! A request with its worker, from sending it to what follows the answer.

use std::time::Duration;

use super::{After, Connection};
use crate::http::answer::{Answer, Manner};
use crate::http::chunked;
use crate::http::request::Fault;
use crate::leg::Lease;
use crate::members::{InFlight, Relayed};
use crate::moving;
use crate::proxy::{self, About, End, Exchange};
use crate::route::{self, Routed, Tries};
use crate::tally::Tally;

/// How often a request is sent to another worker because one could not be reached.
const MAX_TRIES: u32 = 4;
/// A request that was with a worker for longer than this when it died is not sent to another one.
const REPEAT_WITHIN: Duration = Duration::from_secs(1);

impl Connection<'_> {
    /// Carries a request. `None`: nothing of it was taken, it can be sent again.
    pub(super) async fn exchange(&mut self, exchange: &mut Exchange<'_>, tries: &mut Tries) -> Option<After> {
        let shared = self.shared;
        let limits = &shared.config.limits;
        let counters = &shared.counters;
        let (member, opens) = (exchange.member().cloned(), exchange.about.placed.is_some());
        let end = exchange.run(&mut self.client, limits).await;
        if let Some(member) = member {
            count(&member.tally, &end, opens);
        }
        if !matches!(end, End::NoResponse { .. }) {
            arrived(exchange);
        }
        Some(match end {
            End::Answered { keep_alive } => {
                counters.proxied.add();
                match (keep_alive, exchange.is_body_done()) {
                    (true, true) => After::Next,
                    (_, true) if !self.client.has_unread() => After::Close,
                    // There is more than was answered: let it read the answer.
                    _ => After::Linger,
                }
            }
            End::Switched(lease, in_flight) => {
                counters.tunnelled.add();
                self.tunnel(&mut exchange.about, &lease, &in_flight).await
            }
            End::NoResponse { reused, unread, invalid, complete } => {
                exchange.about.placed = None;
                if invalid {
                    counters.worker_lost.add();
                    let manner = Manner { head: exchange.about.asked.head, ..Manner::CLOSE };
                    route::answer(&self.client, Answer::WorkerInvalid, manner);
                    return Some(After::Linger);
                }
                let over = exchange.about.session.as_ref().is_some_and(|session| session.is_over());
                // Twice is fine, or it was not carried out at all.
                let repeatable = exchange.about.safe || (reused && unread && exchange.about.atomic);
                if exchange.unconsumed > 0 && !over && repeatable && self.may_repeat(exchange, reused, tries)
                {
                    return None;
                }
                if !over {
                    counters.worker_lost.add();
                }
                self.worker_gone(&exchange.about, exchange.unconsumed, complete)
            }
            End::Cut => {
                counters.worker_lost.add();
                After::Close
            }
            End::ClientGone => {
                counters.client_gone.add();
                // Its leg ends with it, and at a poll that breaks off the engine ends the session, most of the time.
                if let Some(session) = exchange.about.session.as_ref().filter(|_| exchange.about.poll) {
                    session.abandon(shared.now());
                }
                After::Close
            }
            End::Stalled { silent } => {
                counters.rejected_slow.add();
                if silent {
                    route::answer(&self.client, Answer::Slow, Manner::CLOSE);
                    After::Linger
                } else {
                    After::Close
                }
            }
            End::Malformed { silent } => {
                counters.rejected_malformed.add();
                if silent {
                    let fault = Fault::Malformed(chunked::MALFORMED);
                    route::answer(&self.client, Answer::Fault(fault), Manner::CLOSE);
                }
                After::Linger
            }
        })
    }

    /// Carries what follows an upgrade, to its end.
    async fn tunnel(&mut self, about: &mut About, lease: &Lease, in_flight: &InFlight) -> After {
        let shared = self.shared;
        let rest = shared.config.limits.stall_timeout;
        if !about.websocket {
            proxy::relay(&mut self.client, lease.leg(), rest).await;
            return After::Close;
        }
        let member = &in_flight.0;
        let _relayed = (!member.abilities.tells_sessions).then(|| Relayed::new(member.clone()));
        lease.is_session();
        about.placed = None;
        if let Some(session) = &about.session {
            session.upgrade(shared.now());
        }
        let moved = match &about.follows {
            Some(sid) => moving::relay_until_moved(shared, &mut self.client, lease.leg(), sid, rest).await,
            None => {
                proxy::relay(&mut self.client, lease.leg(), rest).await;
                None
            }
        };
        if let Some(session) = &about.session {
            shared.sids.forget(session);
        }
        moved.map_or(After::Close, After::Moved)
    }

    /// Whether to send a request once more after a leg ended without an answer.
    fn may_repeat(&self, exchange: &Exchange<'_>, reused: bool, tries: &mut Tries) -> bool {
        tries.count += 1;
        // A worker that died of this request, or while it worked on it, is not followed by the next one.
        if tries.count > MAX_TRIES || exchange.age() > REPEAT_WITHIN {
            return false;
        }
        if reused {
            // The leg may have been stale: the same worker, a new leg.
            tries.fresh = true;
            return true;
        }
        // The worker itself is going. A session is nowhere else; anything else is.
        tries.except.extend(exchange.member().map(|member| member.id));
        let first = !std::mem::replace(&mut tries.lost_one, true);
        first && !exchange.about.sid
    }

    /// Answers a request whose worker is gone. `unconsumed`: so much of it is still in the socket.
    fn worker_gone(&mut self, about: &About, unconsumed: usize, complete: bool) -> After {
        let consumed = self.client.discard(unconsumed, &mut [0; 1024]).is_ok();
        let keep_alive = consumed && about.asked.keep_alive && complete;
        let answer = match (about.poll, about.sid) {
            (true, _) => Answer::SessionOver { eio3: about.eio3, jsonp: about.jsonp },
            (_, true) => Answer::UnknownSid,
            _ => Answer::WorkerGone,
        };
        let manner = Manner {
            keep_alive,
            head: about.asked.head,
            is_1_1: about.asked.is_1_1,
            origin: about.origin.as_deref(),
        };
        match route::answer(&self.client, answer, manner) {
            Routed::Answered { keep_alive: true } => After::Next,
            _ => After::Linger,
        }
    }
}

/// An exchange with a worker has ended. `opens`: its request asks for a new session.
fn count(tally: &Tally, end: &End, opens: bool) {
    let answered = match end {
        End::Answered { .. } => &tally.proxied,
        End::Switched(..) => &tally.tunnelled,
        End::NoResponse { invalid: true, .. } => return tally.invalid.add(),
        End::NoResponse { .. } => return tally.unanswered.add(),
        End::Cut => return tally.cut.add(),
        End::ClientGone => return tally.client_gone.add(),
        End::Stalled { .. } => return tally.stalled.add(),
        // The client's fault alone.
        End::Malformed { .. } => return,
    };
    answered.add();
    if opens {
        tally.handshakes.add();
    }
}

/// The worker has the session that was placed there, or nobody will ever know. Those that are to be learned, or whose
/// websocket runs through here, are ours to count: they are taken back when the exchange is over.
fn arrived(exchange: &mut Exchange<'_>) {
    let reports = exchange.about.placed.as_ref().is_some_and(|placed| placed.is_reported());
    if let Some(placed) = exchange.about.placed.take_if(|_| reports) {
        placed.arrived();
    }
}
