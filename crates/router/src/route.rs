//! Decides over the request that waits in a client's socket, and starts what was decided. The request is looked at, not
//! taken: a websocket is handed over with its request unread.

mod send;

use std::io;
use std::sync::Arc;

use crate::access::Line;
use crate::advertise;
use crate::backend::BackendId;
use crate::client::Client;
use crate::config::{Advertise, Affinity};
use crate::direct;
use crate::front::Shared;
use crate::http::MAX_HEADERS;
use crate::http::answer::{Answer, Manner};
use crate::http::forwarded;
use crate::http::query::{self, Query};
use crate::http::request::{self, Fault, Head, Upgrade};
use crate::members::Member;
use crate::nodes;
use crate::pick::Wanted;
use crate::proxy::Exchange;
use crate::scratch::{self, Scratch};
use crate::sids::Session;
use crate::site::Whose;

/// What was tried for a request already.
#[derive(Default)]
pub(crate) struct Tries {
    /// Workers that could not be reached.
    pub(crate) except: Vec<BackendId>,
    /// The leg used before was stale: use a new one.
    pub(crate) fresh: bool,
    pub(crate) count: u32,
    /// A worker died with this request.
    pub(crate) lost_one: bool,
    /// When to give up waiting for a worker.
    pub(crate) deadline: Option<tokio::time::Instant>,
    /// This worker gave the connection back: it does not get it again.
    pub(crate) refused: Option<BackendId>,
    /// The other nodes were asked for the session; this one has it.
    pub(crate) asked: bool,
    pub(crate) found: Option<Arc<Member>>,
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
pub(crate) enum Routed<'a> {
    /// There is no complete one yet.
    Incomplete,
    /// There will be none: the client has ended.
    Ended,
    /// It was answered.
    Answered { keep_alive: bool },
    /// It is another app's, at the same address.
    Elsewhere(Arc<Shared>),
    /// To be handed over; `sid`: to this worker only.
    HandOver { member: Arc<Member>, sid: bool, session: Option<Arc<Session>> },
    /// It went to a worker.
    Sent(Box<Exchange<'a>>),
    /// This worker cannot be reached.
    Unreachable { id: BackendId, sid: bool },
    /// No worker takes it now.
    NoWorker,
    /// The only worker that could take it has refused it.
    Refused,
    /// Its session is not known here: the other nodes are to be asked.
    Ask { sid: Box<[u8]> },
}

/// Looks for a request and routes it.
pub(crate) fn route<'a>(
    shared: &'a Shared,
    client: &mut Client,
    pinned: &mut Option<BackendId>,
    progress: &mut Progress,
    tries: &Tries,
) -> Routed<'a> {
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

fn incomplete<'a>(shared: &Shared, client: &mut Client, input: &[u8], progress: &mut Progress) -> Routed<'a> {
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

fn refuse_fault<'a>(shared: &Shared, client: &Client, fault: Fault) -> Routed<'a> {
    match fault {
        Fault::Headers => shared.counters.rejected_head_size.add(),
        _ => shared.counters.rejected_malformed.add(),
    }
    answer(client, Answer::Fault(fault), Manner::CLOSE)
}

/// Writes an answer of our own.
pub(crate) fn answer<'a>(client: &Client, answer: Answer, manner: Manner<'_>) -> Routed<'a> {
    let mut out = Vec::with_capacity(512);
    answer.write(&mut out, manner);
    // Who does not take these few bytes at once gets no more of them.
    let whole = client.write(&out).is_ok_and(|written| written == out.len());
    Routed::Answered { keep_alive: manner.keep_alive && whole }
}

/// One request on its way through the decisions.
struct Router<'a, 'b> {
    shared: &'a Shared,
    client: &'b mut Client,
    scratch: &'b mut Scratch,
    tries: &'b Tries,
    /// Bytes seen in the client's socket.
    seen: usize,
}

impl<'a> Router<'a, '_> {
    fn route(mut self, head: &Head<'_, '_>, rest: &[u8], pinned: &mut Option<BackendId>) -> Routed<'a> {
        if let Some(site) = &self.client.at.site {
            match site.whose(head, self.shared) {
                Whose::Here => {}
                Whose::There(shared) => return Routed::Elsewhere(shared),
                Whose::NoPath => return self.refuse(head, Answer::NoPath),
                Whose::NoHost => return self.refuse(head, Answer::NoHost),
            }
        }
        let config = &self.shared.config;
        if self.client.is_node {
            self.shared.counters.from_nodes.add();
            let (peer, secure) = nodes::client_of(head);
            self.client.set_peer(peer);
            self.client.secure = secure;
        } else if !config.trusted_proxies.is_empty() {
            let peer = self.client.connection_peer().address;
            let told =
                forwarded::client(head.headers, config.forwarded_header, &config.trusted_proxies, peer);
            self.client.told(told);
        }
        if config.request_id && self.client.request_id.is_none() {
            let peer = self.client.connection_peer().address.map(|peer| peer.ip());
            let trusted = self.client.is_node || config.trusted_proxies.contains(peer);
            self.client.request_id = Some(self.shared.request_ids.of(head, trusted));
        }
        if let (Some(log), None) = (&config.access_log, &self.client.line) {
            let id = self.client.request_id.as_ref();
            let line = Line::new(log, head, self.client.raw_peer(), self.client.secure, id);
            self.client.line = Some(Box::new(line));
        }
        let (path, query) = query::split(head.target.as_bytes());
        if let Some(advertise) = &self.shared.config.advertise
            && path == advertise.path.as_bytes()
        {
            return self.tell_route(advertise, head);
        }
        let mut query = query::scan(query);
        let socket_io = query.is_socket_io() && self.is_socket_io_path(path);
        if !socket_io {
            query = Query::default();
        }
        let websocket = socket_io && head.upgrade == Upgrade::WebSocket;
        let session = match &query.sid {
            Some(sid) => self.shared.sids.find(sid),
            None => None,
        };
        if let Some(session) = &session {
            session.touch(self.shared.now(), !websocket);
        }
        let asked = What { sid: query.sid.as_deref(), session: session.as_ref(), socket_io, websocket };
        let member = match self.pick(&asked, pinned) {
            Ok(Some(member)) => member,
            Ok(None) => return Routed::NoWorker,
            Err(UnknownSid) => match &query.sid {
                Some(sid) if self.may_ask() => return Routed::Ask { sid: sid.as_ref().into() },
                _ => return self.no_owner(head, &query),
            },
        };
        if let Some(line) = &mut self.client.line {
            line.at(member.id);
        }
        // Another affinity may have sent it elsewhere.
        let session = session.filter(|session| Arc::ptr_eq(&session.owner, &member.owner));
        if query.sid.is_some() && self.tries.refused == Some(member.id) {
            return Routed::Refused;
        }
        // A worker that has no other way to learn the client's address is not given another node's connection.
        let takes =
            member.abilities.takes_connections && (!self.client.is_node || member.abilities.tells_sessions);
        if websocket && takes {
            self.introduce(head, &member);
            return Routed::HandOver { member, sid: query.sid.is_some(), session };
        }
        let opens = socket_io && query.sid.is_none() && (websocket || head.method == "GET");
        if opens && !websocket && !member.abilities.tells_sessions && self.shared.sids.is_full() {
            self.shared.counters.rejected_learned_sids.add();
            return answer(self.client, Answer::TooManySessions, Manner::CLOSE);
        }
        self.send(head, rest, &query, Purpose { opens, websocket, session }, member)
    }

    fn is_socket_io_path(&self, path: &[u8]) -> bool {
        let paths = &self.shared.config.paths;
        fn plain(path: &[u8]) -> &[u8] {
            path.strip_suffix(b"/").unwrap_or(path)
        }
        paths.is_empty() || paths.iter().any(|known| plain(known.as_bytes()) == plain(path))
    }

    fn pick(
        &self,
        asked: &What<'_>,
        pinned: &mut Option<BackendId>,
    ) -> Result<Option<Arc<Member>>, UnknownSid> {
        let Shared { members, picker, config, .. } = self.shared;
        let (client, except) = (self.client.ip(), &self.tries.except[..]);
        let wanted = if asked.socket_io && asked.sid.is_none() { Wanted::Session } else { Wanted::Request };
        // At a worker's own door the session is all that counts: there is no other way to know where it is.
        let affinity = if self.client.at.slot.is_some() { Affinity::Sid } else { config.affinity };
        match (affinity, asked.sid) {
            (Affinity::Sid, Some(sid)) => {
                let learned = asked.session.and_then(|session| members.find(session.owner.id));
                let here = learned.or_else(|| picker.owner(members, sid));
                here.or_else(|| self.elsewhere(asked, sid)).map(Some).ok_or(UnknownSid)
            }
            (Affinity::Sid, None) => Ok(match self.client.at.slot {
                Some(slot) => direct::place(self.shared, slot, wanted, client, except),
                None => picker.place(members, wanted, client, except),
            }),
            (Affinity::Ip, sid) => {
                // What follows a handshake by polling will hash to the same worker.
                let anew = !asked.socket_io || (asked.websocket && sid.is_none());
                Ok(picker.by_address(members, client, except, anew))
            }
            (Affinity::None, _) => {
                let known = pinned.filter(|id| !except.contains(id)).and_then(|id| members.find(id));
                let member = known.or_else(|| picker.place(members, wanted, client, except));
                *pinned = member.as_ref().map(|member| member.id);
                Ok(member)
            }
        }
    }

    /// The other node that has the session. What another node sent here goes no further: it could go round for ever.
    fn elsewhere(&self, asked: &What<'_>, sid: &[u8]) -> Option<Arc<Member>> {
        let Shared { nodes, picker, config, .. } = self.shared;
        if self.client.is_node || nodes.is_empty() {
            return None;
        }
        let known = asked.session.and_then(|session| nodes.find(session.owner.id));
        let found = known.or_else(|| self.tries.found.clone());
        // Where session ids tell nothing, they may look as if they did.
        let tells = config.finder.is_none();
        found.or_else(|| nodes.of(picker.node(sid).filter(|_| tells)?))
    }

    fn may_ask(&self) -> bool {
        let Shared { nodes, config, .. } = self.shared;
        config.finder.is_some() && !self.client.is_node && !self.tries.asked && !nodes.is_empty()
    }

    /// Tells a client which worker to connect to.
    fn tell_route(&mut self, advertise: &Advertise, head: &Head<'_, '_>) -> Routed<'a> {
        let asked = advertise::asked(advertise, head);
        let told = match &asked {
            advertise::Asked::Where(host) => {
                let Shared { picker, members, .. } = self.shared;
                let Some(member) = picker.place(members, Wanted::Session, self.client.ip(), &[]) else {
                    return Routed::NoWorker;
                };
                member.promised.make();
                let (scheme, port) = (&advertise.scheme, advertise.port(member.id.slot));
                format!(r#"{{"url":"{scheme}://{host}:{port}","host":"{host}","port":{port}}}"#)
            }
            _ => String::new(),
        };
        let keep_alive = advertise::keeps_alive(head);
        if keep_alive {
            if self.client.discard(head.length, &mut self.scratch.leg).is_err() {
                return Routed::Ended;
            }
            self.client.left_unread(self.seen > head.length);
        }
        let mut out = Vec::with_capacity(512);
        advertise::write(&mut out, advertise, head, &asked, &told);
        let whole = self.client.write(&out).is_ok_and(|written| written == out.len());
        Routed::Answered { keep_alive: keep_alive && whole }
    }

    /// Answers a request that is nobody's.
    fn refuse(&mut self, head: &Head<'_, '_>, why: Answer) -> Routed<'a> {
        let keep_alive = head.keep_alive && head.body.is_done() && head.upgrade == Upgrade::None;
        if keep_alive {
            if self.client.discard(head.length, &mut self.scratch.leg).is_err() {
                return Routed::Ended;
            }
            self.client.left_unread(self.seen > head.length);
        }
        self.shared.counters.rejected_nowhere.add();
        let manner =
            Manner { keep_alive, head: head.method == "HEAD", is_1_1: head.is_1_1, origin: head.origin };
        answer(self.client, why, manner)
    }

    /// Answers a request whose session is nowhere.
    fn no_owner(&mut self, head: &Head<'_, '_>, query: &Query<'_>) -> Routed<'a> {
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

    /// What could be looked at at once.
    fn scratch_room(&self) -> usize {
        scratch::input_room(self.shared.config.limits.head_bytes)
    }
}

struct UnknownSid;

/// What decides who gets a request.
struct What<'a> {
    sid: Option<&'a [u8]>,
    session: Option<&'a Arc<Session>>,
    socket_io: bool,
    websocket: bool,
}

/// What a request that goes over a leg is to its session.
struct Purpose {
    /// It opens one.
    opens: bool,
    websocket: bool,
    session: Option<Arc<Session>>,
}

fn is_eio3(query: &Query<'_>) -> bool {
    query.eio.as_deref() == Some(b"3")
}
