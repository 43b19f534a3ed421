//! Decides over the request that waits in a client's socket, and starts what was decided. The request is looked at, not
//! taken: a websocket is handed over with its request unread.

use std::io;
use std::sync::Arc;

use crate::backend::BackendId;
use crate::client::Client;
use crate::config::Affinity;
use crate::front::Shared;
use crate::http::MAX_HEADERS;
use crate::http::answer::{Answer, Manner};
use crate::http::body::Body;
use crate::http::chunked;
use crate::http::query::{self, Query};
use crate::http::request::{self, Fault, Head, Upgrade};
use crate::http::response::Asked;
use crate::members::{InFlight, Member};
use crate::pick::Wanted;
use crate::proxy::{About, Exchange};
use crate::scratch::{self, Scratch};

/// What was tried for a request already.
#[derive(Default)]
pub(crate) struct Tries {
    /// Workers that could not be reached.
    pub(crate) except: Vec<BackendId>,
    /// The leg used before was stale: use a new one.
    pub(crate) fresh: bool,
    pub(crate) count: u32,
    /// When to give up waiting for a worker.
    pub(crate) deadline: Option<tokio::time::Instant>,
    /// This worker gave the connection back: it does not get it again.
    pub(crate) refused: Option<BackendId>,
}

impl Tries {
    pub(crate) fn new(refused: Option<BackendId>) -> Self {
        Self { refused, except: refused.into_iter().collect(), ..Self::default() }
    }

    /// All workers may be tried again, but for that one.
    pub(crate) fn start_over(&mut self) {
        self.except.clear();
        self.except.extend(self.refused);
    }
}

/// How far the search for a head has come.
#[derive(Default)]
pub(crate) struct Progress {
    /// Bytes seen of it.
    pub(crate) seen: usize,
    probed: usize,
}

/// What became of a request.
pub(crate) enum Routed {
    /// There is no complete one yet.
    Incomplete,
    /// There will be none: the client has ended.
    Ended,
    /// It was answered.
    Answered { keep_alive: bool },
    /// To be handed over; `sid`: to this worker only.
    HandOver { member: Arc<Member>, sid: bool },
    /// It went to a worker.
    Sent(Box<Exchange>),
    /// This worker cannot be reached.
    Unreachable { id: BackendId, sid: bool },
    /// No worker takes it now.
    NoWorker,
    /// The only worker that could take it has refused it.
    Refused,
}

/// Looks for a request and routes it.
pub(crate) fn route(
    shared: &Shared,
    client: &mut Client,
    pinned: &mut Option<BackendId>,
    progress: &mut Progress,
    tries: &Tries,
) -> Routed {
    let limit = shared.config.limits.head_bytes;
    scratch::with(limit, |scratch| {
        let seen = match client.peek(&mut scratch.input) {
            Ok(0) => return Routed::Ended,
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Routed::Incomplete,
            Err(_) => return Routed::Ended,
        };
        // Both are needed at once, and borrowed from the same place.
        let input = std::mem::take(&mut scratch.input);
        let routed = match request::find_end(&input[..seen], progress.seen) {
            Some(end) if end <= limit => {
                let mut storage = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
                match request::parse(&input[..end], &mut storage) {
                    Ok(head) => Router { shared, client, scratch, tries, seen }.route(
                        &head,
                        &input[end..seen],
                        pinned,
                    ),
                    Err(fault) => refuse_fault(shared, client, fault),
                }
            }
            None if seen <= limit => incomplete(shared, client, &input[..seen], progress),
            _ => {
                shared.counters.rejected_head_size.add();
                answer(client, Answer::HeadTooLong(limit), Manner::CLOSE)
            }
        };
        scratch.input = input;
        routed
    })
}

fn incomplete(shared: &Shared, client: &mut Client, input: &[u8], progress: &mut Progress) -> Routed {
    // Garbage may never come to an end. Probing whenever it has doubled keeps the work in proportion to the bytes.
    if input.len() >= 2 * progress.probed {
        progress.probed = input.len();
        if let Err(fault) = request::probe(input) {
            return refuse_fault(shared, client, fault);
        }
    }
    progress.seen = input.len();
    // From here on, only what comes is news.
    client.left_unread(false);
    Routed::Incomplete
}

fn refuse_fault(shared: &Shared, client: &Client, fault: Fault) -> Routed {
    match fault {
        Fault::Headers => shared.counters.rejected_head_size.add(),
        _ => shared.counters.rejected_malformed.add(),
    }
    answer(client, Answer::Fault(fault), Manner::CLOSE)
}

/// Writes an answer of our own.
pub(crate) fn answer(client: &Client, answer: Answer, manner: Manner<'_>) -> Routed {
    let mut out = Vec::with_capacity(512);
    answer.write(&mut out, manner);
    // Who does not take these few bytes at once gets no more of them.
    let whole = client.write(&out).is_ok_and(|written| written == out.len());
    Routed::Answered { keep_alive: manner.keep_alive && whole }
}

/// One request on its way through the decisions.
struct Router<'a> {
    shared: &'a Shared,
    client: &'a mut Client,
    scratch: &'a mut Scratch,
    tries: &'a Tries,
    /// Bytes seen in the client's socket.
    seen: usize,
}

impl Router<'_> {
    fn route(mut self, head: &Head<'_, '_>, rest: &[u8], pinned: &mut Option<BackendId>) -> Routed {
        let (path, query) = query::split(head.target.as_bytes());
        let mut query = query::scan(query);
        let socket_io = query.is_socket_io() && self.is_socket_io_path(path);
        if !socket_io {
            query = Query::default();
        }
        let member = match self.pick(&query, socket_io, pinned) {
            Ok(Some(member)) => member,
            Ok(None) => return Routed::NoWorker,
            Err(UnknownSid) => return self.no_owner(head, &query),
        };
        if query.sid.is_some() && self.tries.refused == Some(member.id) {
            return Routed::Refused;
        }
        if socket_io && head.upgrade == Upgrade::WebSocket {
            return Routed::HandOver { member, sid: query.sid.is_some() };
        }
        self.send(head, rest, &query, socket_io, member)
    }

    fn is_socket_io_path(&self, path: &[u8]) -> bool {
        let paths = &self.shared.config.paths;
        let plain = |path: &[u8]| path.strip_suffix(b"/").unwrap_or(path).to_vec();
        paths.is_empty() || paths.iter().any(|known| plain(known.as_bytes()) == plain(path))
    }

    fn pick(
        &self,
        query: &Query<'_>,
        socket_io: bool,
        pinned: &mut Option<BackendId>,
    ) -> Result<Option<Arc<Member>>, UnknownSid> {
        let Shared { members, picker, config, .. } = self.shared;
        let (client, except) = (self.client.ip(), &self.tries.except[..]);
        let wanted = if socket_io && query.sid.is_none() { Wanted::Session } else { Wanted::Request };
        match (config.affinity, &query.sid) {
            (Affinity::Sid, Some(sid)) => match picker.owner(members, sid) {
                Some(owner) => Ok(Some(owner)),
                None => Err(UnknownSid),
            },
            (Affinity::Sid, None) => Ok(picker.place(members, wanted, client, except)),
            (Affinity::Ip, _) => Ok(picker.by_address(members, client, except)),
            (Affinity::None, _) => {
                let known = pinned.filter(|id| !except.contains(id)).and_then(|id| members.find(id));
                let member = known.or_else(|| picker.place(members, wanted, client, except));
                *pinned = member.as_ref().map(|member| member.id);
                Ok(member)
            }
        }
    }

    /// Answers a request whose session is nowhere.
    fn no_owner(&mut self, head: &Head<'_, '_>, query: &Query<'_>) -> Routed {
        let keep_alive = head.keep_alive && head.body.is_done() && head.upgrade == Upgrade::None;
        if keep_alive {
            if self.client.discard(head.length, &mut self.scratch.leg).is_err() {
                return Routed::Ended;
            }
            self.client.left_unread(self.seen > head.length);
        }
        let answered = if self.tries.count > 0 && head.method == "GET" {
            // A poll that was with its worker already when that went away.
            self.shared.counters.worker_lost.add();
            Answer::SessionOver { eio3: is_eio3(query), jsonp: query.jsonp }
        } else {
            self.shared.counters.rejected_unknown_sid.add();
            Answer::UnknownSid
        };
        let is_head = head.method == "HEAD";
        let manner = Manner { keep_alive, head: is_head, is_1_1: head.is_1_1, origin: head.origin };
        answer(self.client, answered, manner)
    }

    /// Sends the request over a leg: in one write, with what there is of its body.
    fn send(
        &mut self,
        head: &Head<'_, '_>,
        rest: &[u8],
        query: &Query<'_>,
        socket_io: bool,
        member: Arc<Member>,
    ) -> Routed {
        let get = head.method == "GET";
        let place = socket_io && query.sid.is_none() && get;
        let about = About {
            asked: Asked {
                head: head.method == "HEAD",
                is_1_1: head.is_1_1,
                upgrade: head.upgrade != Upgrade::None,
                keep_alive: head.keep_alive,
            },
            sid: query.sid.is_some(),
            poll: query.sid.is_some() && get,
            eio3: is_eio3(query),
            jsonp: query.jsonp,
            safe: head.is_safe(),
            placed: place,
            origin: head.origin.filter(|_| query.sid.is_some()).map(Into::into),
        };
        let bodiless = head.body.is_done();
        let mut body: Body = head.body;
        let out = &mut self.scratch.out;
        head.write(out, self.client.peer(), place);
        let taken = match body.feed(rest, |_| {}) {
            Ok(taken) => taken,
            Err(_) => return refuse_fault(self.shared, self.client, Fault::Malformed(chunked::MALFORMED)),
        };
        out.extend_from_slice(&rest[..taken]);

        let in_flight = InFlight::new(member.clone());
        if query.sid.is_none() && !member.is_open() && self.shared.config.affinity != Affinity::None {
            // It began to drain since it was picked, and might be retired before this arrives.
            return self.unreachable(head, query, &member);
        }
        let mut fresh = self.tries.fresh;
        let (lease, written) = loop {
            let Ok(lease) = member.legs.lease(&*member.backend, fresh) else {
                return self.unreachable(head, query, &member);
            };
            if !lease.reused {
                self.shared.counters.legs_opened.add();
            }
            match lease.leg().write(out) {
                Ok(written) => break (lease, written),
                // Nothing was sent: whatever the method, this is no repetition.
                Err(_) if lease.reused => fresh = true,
                Err(_) => return self.unreachable(head, query, &member),
            }
        };
        if place {
            member.place();
        }
        let to_leg = out[written..].to_vec();
        let mut unconsumed = head.length;
        if !bodiless {
            if self.client.discard(head.length + taken, &mut self.scratch.leg).is_err() {
                return Routed::Ended;
            }
            unconsumed = 0;
        }
        let seen_all = self.seen < self.scratch_room();
        self.client.left_unread(self.seen > head.length + taken || !seen_all);
        let upstream = (lease, in_flight);
        let idle_legs = self.shared.config.limits.idle_legs;
        Routed::Sent(Box::new(Exchange::new(about, upstream, body, unconsumed, to_leg, idle_legs)))
    }

    fn unreachable(&mut self, head: &Head<'_, '_>, query: &Query<'_>, member: &Member) -> Routed {
        let sid = query.sid.is_some();
        if sid && self.tries.count > 0 {
            self.no_owner(head, query)
        } else {
            Routed::Unreachable { id: member.id, sid }
        }
    }

    /// What could be looked at at once.
    fn scratch_room(&self) -> usize {
        scratch::input_room(self.shared.config.limits.head_bytes)
    }
}

struct UnknownSid;

fn is_eio3(query: &Query<'_>) -> bool {
    query.eio.as_deref() == Some(b"3")
}
