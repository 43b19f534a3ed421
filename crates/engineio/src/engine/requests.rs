//! What becomes of a request: refused, answered by a session, or the beginning of one.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use http::header::{Entry, ORIGIN, SEC_WEBSOCKET_VERSION, SET_COOKIE, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use sundew_io::PeerAddr;

use super::{Engine, NotOpened};
use crate::proto::deflate::Deflater;
use crate::proto::dialect::Dialect;
use crate::proto::request::{ErrorCode, Facts, Query, Wanted, check_version, verify};
use crate::server::polling::{PostFacts, Refusal};
use crate::server::probe::{self, Begun};
use crate::server::shared::Shared;
use crate::server::upgrade::{Taken, Upgrade};
use crate::server::{cors, polling, reply, upgrade};
use crate::{AddHeaders, AllowRequest, Answer, Body, Config, ConnectionError, Protocol, Transport};

/// A hook that panics lets nobody in.
pub(super) async fn allowed(allow: &AllowRequest, parts: &Parts) -> Result<(), String> {
    let asked = AssertUnwindSafe(async { allow(parts).await });
    asked.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("allow_request panicked: the client is refused");
        Err(String::new())
    })
}

/// What a hook adds that does not panic: the client gets its answer either way.
fn add_headers(name: &'static str, hook: &AddHeaders, headers: &mut HeaderMap, parts: &Parts) {
    let before = headers.clone();
    if catch_unwind(AssertUnwindSafe(|| hook(headers, parts))).is_err() {
        tracing::error!("{name} panicked: the answer goes without its headers");
        *headers = before;
    }
}

impl<P: Protocol> Engine<P> {
    /// Answers one request: CORS, verification, handshake, polling, upgrade. Dropping the answer while a poll
    /// waits ends that session (the client is gone). A handshake opens its session in this call, unless `allow_request` has to
    /// be asked first; a client that never gets the answer is given up when it misses its pings.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and where [`Protocol::open`] does.
    pub fn handle<B>(&self, request: Request<B>) -> Answer
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
    {
        let (parts, body) = request.into_parts();
        let allow = match &self.config().cors {
            Some(cors) if parts.method == Method::OPTIONS => {
                return cors::preflight(cors, &parts.headers).into();
            }
            Some(cors) => cors::headers(cors, &parts.headers),
            None => HeaderMap::new(),
        };
        let upgrade = upgrade::is_asked_for(&parts);
        let wanted = self.verify(&parts, upgrade);
        let more = match &wanted {
            Ok(wanted) => self.more_headers(&parts, matches!(wanted, Wanted::Handshake(_))),
            Err(_) => HeaderMap::new(),
        };
        // Most answers get none, and a future is as large as what it may have to keep.
        let extra = (!allow.is_empty() || !more.is_empty()).then(|| Box::new(Extra { allow, more }));
        self.begin(parts, body, wanted, upgrade, extra)
    }

    /// What can be done at once of a request.
    fn begin<B>(
        &self,
        parts: Parts,
        body: B,
        wanted: Result<Wanted<Arc<Shared>>, ErrorCode>,
        upgrade: bool,
        extra: Option<Box<Extra>>,
    ) -> Answer
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
    {
        let response = match wanted {
            Err(code) => self.refused(&parts, upgrade, code, None),
            Ok(Wanted::Existing(session, Transport::Websocket)) => match accept(parts) {
                Ok(Accepted { parts, accept, upgrade }) => {
                    let agreed = upgrade::agreed(&parts.headers, self.config());
                    let subprotocol = upgrade::subprotocol(&parts.headers);
                    // The client does.
                    let speaks_first = false;
                    let begun = Begun::new(&session, Transport::Websocket);
                    upgrade.then(speaks_first, move |connection| {
                        Some(Box::pin(probe::websocket(session, begun, connection, agreed)))
                    });
                    reply::switching(accept, agreed, subprotocol)
                }
                Err(parts) => self.refused(&parts, upgrade, ErrorCode::BadRequest, None),
            },
            Ok(Wanted::Existing(session, _)) => {
                let peer = peer(&parts);
                match parts.method {
                    Method::GET => {
                        let taken = polling::taken(&parts.headers);
                        return Answer::later(async move {
                            let answer = polling::get(&session, taken).await;
                            with(answer.unwrap_or_else(|refusal| refusal.told(&session, peer)), extra)
                        });
                    }
                    Method::POST => {
                        let facts = PostFacts::of(&parts.headers, peer);
                        return Answer::later(async move {
                            let answer = polling::post(&session, facts, body).await;
                            with(answer.unwrap_or_else(|refusal| refusal.told(&session, peer)), extra)
                        });
                    }
                    _ => Refusal::new("neither GET nor POST", reply::method_not_served).told(&session, peer),
                }
            }
            Ok(Wanted::Handshake(transport)) => match self.config().allow_request.clone() {
                None => self.open(parts, transport, upgrade),
                Some(allow) => {
                    let engine = self.clone();
                    return Answer::later(async move {
                        let response = match allowed(&allow, &parts).await {
                            Ok(()) => engine.open(parts, transport, upgrade),
                            Err(message) => {
                                let message = (!message.is_empty()).then_some(message);
                                engine.refused(&parts, upgrade, ErrorCode::Forbidden, message)
                            }
                        };
                        with(response, extra)
                    });
                }
            },
        };
        with(response, extra).into()
    }

    /// A new session.
    fn open(&self, parts: Parts, transport: Transport, upgrade: bool) -> Response<Body> {
        let dialect = match self.dialect(&parts, transport) {
            Ok(dialect) => dialect,
            Err(code) => return self.refused(&parts, upgrade, code, None),
        };
        let opened = match (self.0.registry.place(), transport) {
            (Err(no_place), _) => Err((Box::new(parts), NotOpened::Unavailable(no_place))),
            (Ok(()), Transport::Websocket) => self.open_websocket(parts, dialect),
            // A request of HTTP asks for no third one.
            (Ok(()), Transport::Polling | Transport::WebTransport) => self.open_polling(parts, dialect),
        };
        opened.unwrap_or_else(|(parts, why)| match why {
            NotOpened::BadRequest => self.refused(&parts, upgrade, ErrorCode::BadRequest, None),
            NotOpened::Unavailable(no_place) => {
                self.count_refused(&parts, None, no_place.message());
                reply::unavailable(no_place.message())
            }
        })
    }

    fn refused(
        &self,
        parts: &Parts,
        upgrade: bool,
        code: ErrorCode,
        message: Option<String>,
    ) -> Response<Body> {
        self.count_refused(parts, Some(code), message.as_deref().unwrap_or(code.message()));
        if !upgrade {
            return reply::error(code, message.as_deref());
        }
        let mut response = reply::upgrade_error(code, message.as_deref(), parts.method == Method::GET);
        if !upgrade::is_of_our_version(&parts.headers) {
            // RFC 6455 §4.4.
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, upgrade::VERSION);
        }
        response
    }

    /// What the app's hooks add to a good answer.
    fn more_headers(&self, parts: &Parts, handshake: bool) -> HeaderMap {
        let Config { initial_headers, headers, .. } = self.config();
        let mut more = HeaderMap::new();
        if let Some(hook) = initial_headers.as_ref().filter(|_| handshake) {
            add_headers("initial_headers", hook, &mut more, parts);
        }
        if let Some(hook) = headers {
            add_headers("headers", hook, &mut more, parts);
        }
        more
    }

    pub(super) fn count_refused(&self, parts: &Parts, code: Option<ErrorCode>, message: &str) {
        self.0.registry.counters.refused.fetch_add(1, Ordering::Relaxed);
        let peer = peer(parts);
        let hint = match code {
            Some(ErrorCode::UnknownSid) => {
                ": it is over, or of another server, to which its requests should go"
            }
            _ => "",
        };
        let code = code.map(ErrorCode::code);
        tracing::debug!(?peer, method = %parts.method, code, reason = message, "a request is refused{hint}");
        let Some(hook) = &self.config().on_connection_error else { return };
        let error = ConnectionError { code, message, request: parts };
        // The client still gets its answer.
        if catch_unwind(AssertUnwindSafe(|| hook(&error))).is_err() {
            tracing::error!("on_connection_error panicked");
        }
    }

    /// It was answered already: that its connection ends is all the client sees of it.
    fn count_not_opened(&self, parts: &Parts, why: &NotOpened) {
        let (code, message) = why.told();
        self.count_refused(parts, code, message);
    }

    fn verify(&self, parts: &Parts, upgrade: bool) -> Result<Wanted<Arc<Shared>>, ErrorCode> {
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let facts = Facts {
            query: &query,
            get: parts.method == Method::GET || upgrade,
            upgrade,
            origin: parts.headers.get(ORIGIN).map(|origin| origin.as_bytes()),
        };
        verify(facts, self.config().transports, |sid| {
            let session = self.0.registry.find(sid)?;
            let (transport, dialect) =
                session.look(|state| (state.machine.transport(), state.machine.dialect()));
            Some((session, transport, dialect.version))
        })
    }

    fn dialect(&self, parts: &Parts, transport: Transport) -> Result<Dialect, ErrorCode> {
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let version = check_version(&query, self.config().allow_eio3)?;
        Dialect::of(&query, version, transport, self.config().allow_jsonp)
    }

    fn open_polling(
        &self,
        parts: Parts,
        dialect: Dialect,
    ) -> Result<Response<Body>, (Box<Parts>, NotOpened)> {
        let shared = match self.0.new_session(&parts, Transport::Polling, dialect, None) {
            Ok(shared) => shared,
            Err(why) => return Err((Box::new(parts), why)),
        };
        let cookie = self.config().cookie.as_ref().and_then(|cookie| cookie.header(shared.sid()));
        let (taken, peer) = (polling::taken(&parts.headers), peer(&parts));
        let session = self.0.session(&shared, parts, Transport::Polling, None);
        // A handshake is a poll, and there is something to say: the open packet, and what the protocol has sent by now.
        let answer = polling::answer_now(&shared, taken);
        let mut response = answer.unwrap_or_else(|refusal| refusal.told(&shared, peer));
        tokio::spawn(session);
        if let Some(cookie) = cookie {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        Ok(response)
    }

    fn open_websocket(
        &self,
        parts: Parts,
        dialect: Dialect,
    ) -> Result<Response<Body>, (Box<Parts>, NotOpened)> {
        let accepted = accept(parts).map_err(|parts| (parts, NotOpened::BadRequest))?;
        let Accepted { parts, accept, upgrade } = accepted;
        let engine = self.clone();
        let agreed = upgrade::agreed(&parts.headers, self.config());
        let subprotocol = upgrade::subprotocol(&parts.headers);
        let speaks_first = true;
        upgrade.then(speaks_first, move |connection| {
            let config = engine.config();
            let Taken { writer, arrival, unwritten } = upgrade::take(connection, config, agreed);
            let socket = Some((writer, unwritten));
            let opened = engine.0.new_session(&parts, Transport::Websocket, dialect, socket);
            let shared = opened.map_err(|why| engine.count_not_opened(&parts, &why)).ok()?;
            if let Some((agreed, options)) = agreed.zip(config.per_message_deflate.as_ref()) {
                shared.act(|state| state.machine.compress_with(Box::new(Deflater::new(agreed, options))));
            }
            Some(Box::pin(engine.0.session(&shared, parts, Transport::Websocket, Some(arrival))))
        });
        Ok(reply::switching(accept, agreed, subprotocol))
    }
}

/// The client's address.
pub(super) fn peer(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<PeerAddr>().map(|peer| peer.0)
}

/// Headers an answer gets.
struct Extra {
    /// By CORS: any answer.
    allow: HeaderMap,
    /// By the app's hooks: a good one.
    more: HeaderMap,
}

/// The response with them.
fn with(mut response: Response<Body>, extra: Option<Box<Extra>>) -> Response<Body> {
    if let Some(extra) = extra {
        if matches!(response.status(), StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS) {
            put(response.headers_mut(), extra.more);
        }
        put(response.headers_mut(), extra.allow);
    }
    response
}

/// Puts `more` among the headers. What is there by the same name is replaced; but one cookie is no replacement for another,
/// and an answer varies by what anybody says it does.
fn put(headers: &mut HeaderMap, mut more: HeaderMap) {
    if let Entry::Occupied(cookies) = more.entry(SET_COOKIE) {
        for cookie in cookies.remove_entry_mult().1 {
            headers.append(SET_COOKIE, cookie);
        }
    }
    if let (true, Entry::Occupied(mut vary)) = (headers.contains_key(VARY), more.entry(VARY)) {
        let both = merged(headers.get_all(VARY).iter().chain(vary.iter()));
        vary.insert(both);
    }
    headers.extend(more);
}

/// One list of the names in several, each of them once.
fn merged<'a>(lists: impl Iterator<Item = &'a HeaderValue>) -> HeaderValue {
    let mut names: Vec<&str> = Vec::new();
    for name in lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')).map(str::trim) {
        if !name.is_empty() && !names.iter().any(|there| there.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static("*"))
}

/// A request that becomes a websocket.
struct Accepted {
    parts: Parts,
    accept: upgrade::Accept,
    upgrade: Upgrade,
}

/// Checks the websocket part of a request and takes the connection out of it; gives the request back if it cannot be
/// accepted.
fn accept(mut parts: Parts) -> Result<Accepted, Box<Parts>> {
    let Some(accept) = upgrade::acceptance(&parts) else { return Err(Box::new(parts)) };
    match Upgrade::of(&mut parts) {
        Some(upgrade) => Ok(Accepted { parts, accept, upgrade }),
        None => Err(Box::new(parts)),
    }
}
