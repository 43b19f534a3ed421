//! A request that was decided over, on its way to a worker.

use std::sync::Arc;

use super::{Purpose, Routed, Router, is_eio3, refuse_fault};
use crate::config::Affinity;
use crate::http::answer;
use crate::http::body::Body;
use crate::http::chunked;
use crate::http::forward;
use crate::http::query::Query;
use crate::http::request::{Fault, Head, Upgrade};
use crate::http::response::Asked;
use crate::leg;
use crate::members::{InFlight, Member, Placed};
use crate::proxy::{About, Exchange, Pending, Sent};

/// The longest request that a worker reads at once or not at all, in bytes: what Node and hyper have room for.
const ATOMIC: usize = 8 * 1024;

impl<'a> Router<'a, '_> {
    /// Sends the request over a leg: in one write, with what there is of its body.
    pub(super) fn send(
        &mut self,
        head: &Head<'_, '_>,
        rest: &[u8],
        query: &Query<'_>,
        purpose: Purpose,
        member: Arc<Member>,
    ) -> Routed<'a> {
        let get = head.method == "GET";
        let Purpose { opens, websocket, session } = purpose;
        let abilities = member.abilities;
        let learns = opens && !websocket && !abilities.tells_sessions;
        let manner = if abilities.transparent {
            forward::Manner::Transparent
        } else {
            forward::Manner::Forwarded { native: abilities.tells_sessions, place: opens }
        };
        let mut body: Body = head.body;
        let out = &mut self.scratch.out;
        head.write(out, self.client.peers(), manner, learns);
        let taken = match body.feed(rest, |_| {}) {
            Ok(taken) => taken,
            Err(_) => return refuse_fault(self.shared, self.client, Fault::Malformed(chunked::MALFORMED)),
        };
        out.extend_from_slice(&rest[..taken]);
        let whole = body.is_done();

        let in_flight = InFlight::new(member.clone());
        if query.sid.is_none() && !member.is_open() && self.shared.config.affinity != Affinity::None {
            // It began to drain since it was picked, and might be retired before this arrives.
            return self.unreachable(head, query, &member);
        }
        let mut wanted = match (self.tries.fresh, head.is_safe()) {
            (true, _) => leg::Wanted::Fresh,
            (false, true) => leg::Wanted::Any,
            (false, false) => leg::Wanted::Once,
        };
        let (lease, written) = loop {
            let Ok(lease) = member.legs.lease(&*member.backend, wanted) else {
                return self.unreachable(head, query, &member);
            };
            if !lease.reused {
                self.shared.counters.legs_opened.add();
            }
            match lease.leg().write(out) {
                Ok(written) => break (lease, written),
                // Nothing was sent: whatever the method, this is no repetition.
                Err(_) if lease.reused => wanted = leg::Wanted::Fresh,
                Err(_) => return self.unreachable(head, query, &member),
            }
        };
        member.backend.touched();
        if member.id.is_node() {
            let counters = &self.shared.counters;
            if websocket { &counters.relayed } else { &counters.forwarded }.add();
        }
        let poll = query.sid.is_some() && get && !websocket;
        let pending = match (&session, poll) {
            (Some(session), true) => match Pending::new(session, lease.leg()) {
                Some(pending) => Some(pending),
                // It was let go of a moment ago.
                None => return self.no_owner(head, query),
            },
            _ => None,
        };
        let to_leg = out[written..].to_vec();
        let closes = session.is_some() && head.method == "POST" && is_close(&rest[..taken], query);
        // What was decrypted here stays here.
        let follows =
            query.sid.as_deref().filter(|_| websocket && member.id.is_node() && !self.client.is_encrypted());
        let follows = follows.and_then(|sid| std::str::from_utf8(sid).ok()).map(Into::into);
        let about = About {
            asked: Asked {
                head: head.method == "HEAD",
                is_1_1: head.is_1_1,
                upgrade: head.upgrade != Upgrade::None,
                keep_alive: head.keep_alive,
            },
            sid: query.sid.is_some(),
            poll,
            eio3: is_eio3(query),
            jsonp: query.jsonp,
            safe: head.is_safe(),
            atomic: whole && to_leg.is_empty() && out.len() <= ATOMIC,
            placed: opens.then(|| Placed::new(&member)),
            websocket,
            follows,
            session,
            closes,
            origin: head.origin.filter(|_| query.sid.is_some()).map(Into::into),
        };
        let length = head.length + taken;
        // What is here as a whole stays unread until the worker answers: it can be sent again from there.
        let mut unconsumed = length;
        if !whole {
            if self.client.discard(length, &mut self.scratch.leg).is_err() {
                return Routed::Ended;
            }
            unconsumed = 0;
        }
        let seen_all = self.seen < self.scratch_room();
        self.client.left_unread(self.seen > length || !seen_all);
        let request = Sent { body, unconsumed, to_leg, pending, learns };
        Routed::Sent(Box::new(Exchange::new(self.shared, about, (lease, in_flight), request)))
    }

    /// What is handed over of a client that came by TLS is one end of a pair: its head has to say who the client is.
    pub(super) fn introduce(&mut self, head: &Head<'_, '_>, member: &Member) {
        if !self.client.is_encrypted() {
            return;
        }
        let manner = match member.abilities.transparent {
            true => forward::Manner::Transparent,
            false => forward::Manner::Forwarded { native: false, place: false },
        };
        // Of a Node worker's socket the preload tells it.
        let peers = match member.abilities.transparent {
            true => forward::Peers { client: None, ..self.client.peers() },
            false => self.client.peers(),
        };
        let out = &mut self.scratch.out;
        head.write(out, peers, manner, false);
        self.client.replace_head(head.length, out);
        out.clear();
    }

    fn unreachable(&mut self, head: &Head<'_, '_>, query: &Query<'_>, member: &Member) -> Routed<'a> {
        let sid = query.sid.is_some();
        if sid && self.tries.count > 0 {
            self.no_owner(head, query)
        } else {
            Routed::Unreachable { id: member.id, sid }
        }
    }
}

/// Whether a session's message is that it closes.
fn is_close(body: &[u8], query: &Query<'_>) -> bool {
    match query.jsonp {
        Some(_) => matches!(body, b"d=1" | b"d=1%3A1"),
        None => answer::is_close(body, is_eio3(query)),
    }
}
