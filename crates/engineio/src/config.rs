//! Options of the engine, under the names of Node's server, with its defaults where they are safe.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::{AddHeaders, Cookie, OnConnectionError, Transport, random_id};

/// Decides about a handshake. `Err` refuses it with code 4; the text, if not empty, replaces `Forbidden`.
pub type AllowRequest = Arc<
    dyn for<'a> Fn(&'a Parts) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> + Send + Sync,
>;

/// Makes the id of a new session: at most 64 characters of `[A-Za-z0-9_-]`, unguessable.
pub type GenerateId = Arc<dyn Fn(&Parts) -> String + Send + Sync>;

/// The longest time an option can ask for. Clients wait for a ping through interval and timeout together, with JavaScript's
/// timers, which go off at once beyond 2^31 milliseconds.
pub(crate) const LONGEST: Duration = Duration::from_secs(12 * 24 * 60 * 60);

/// Options of an [`Engine`](crate::Engine). A time of more than 12 days is taken for 12 days: the timers of clients in
/// JavaScript count no further.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The path requests must start with. A slash is added at the end if there is none. Default `/engine.io/`
    /// (socketio sets `/socket.io/`).
    pub path: String,
    /// Time between the last pong (or the handshake) and the next ping. Default 25 s.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered. Default 20 s.
    pub ping_timeout: Duration,
    /// How long an upgrade may take from the probe's connection to the upgrade packet; and how long a WebTransport client
    /// may take from its first datagram to its open packet. Default 10 s.
    pub upgrade_timeout: Duration,
    /// The largest message, and the largest request body, in bytes, on every transport. Default 1,000,000
    /// (`maxHttpBufferSize`).
    pub max_payload: usize,
    /// The transports offered. Default polling and websocket.
    pub transports: Transports,
    /// Whether a polling session may move to another transport. Default true.
    pub allow_upgrades: bool,
    /// Whether clients of protocol version 3 are served (`allowEIO3`): those of Socket.IO 2 and older. Default false.
    ///
    /// They know a session by one id only. The protocol above cannot give it another for others to see: Socket.IO 2 uses
    /// the session's id as the public `socket.id`, and whoever learns it, another client for example, can read, write
    /// and end that session. Do not show the ids of such sockets to other clients.
    pub allow_eio3: bool,
    /// Whether JSONP polling is served (`j=` in the query; version 3's answer to browsers without CORS). Default false.
    ///
    /// A script can be loaded by any page: with JSONP, every site a user visits can open a session here, with the user's
    /// cookies, whatever [`cors`](Config::cors) says. Node always serves it.
    pub allow_jsonp: bool,
    /// Compression of polling answers, for clients that say they take it. Default: from 1,024 bytes on.
    pub http_compression: Option<HttpCompression>,
    /// Compression of websocket messages, for clients that offer it. Default none, as in Node: it costs time for every
    /// recipient, where a broadcast otherwise is encoded once.
    pub per_message_deflate: Option<PerMessageDeflate>,
    /// Cross-origin answers. Default none: no such header is sent.
    pub cors: Option<Cors>,
    /// A cookie with the session's id, set by polling handshakes. Default none.
    pub cookie: Option<Cookie>,
    /// Adds headers to the answers of handshakes, those of websockets included (Node's `initial_headers` event). They replace
    /// the engine's own of the same name, but for those of [`cors`](Config::cors), which stand. Of `Set-Cookie` and `Vary` an
    /// answer has both: an app's cookies go beside [`cookie`](Config::cookie).
    pub initial_headers: Option<AddHeaders>,
    /// Adds headers to every good answer to a poll, a body and a websocket (Node's `headers` event), those of handshakes after
    /// [`initial_headers`](Config::initial_headers). What they replace is the same.
    pub headers: Option<AddHeaders>,
    /// Told of every request that is refused by one of the protocol's errors, or for want of room (Node's `connection_error`
    /// event). Of others with a session of theirs (a body too large, a second poll at the same time) the log tells.
    pub on_connection_error: Option<OnConnectionError>,
    /// Asked for every handshake.
    pub allow_request: Option<AllowRequest>,
    /// Makes session ids, unguessable ones, and none of a client's choosing. Default: 20 characters from 15 random bytes.
    pub generate_id: GenerateId,
    /// How many bytes may wait for one session. Beyond it [`send`](crate::SessionHandle::send) answers `Full`.
    /// Default 2 MiB. One message larger than that is still taken when nothing else waits.
    pub max_queued_bytes: usize,
    /// How many messages may wait for one session. Default 4096.
    pub max_queued_packets: usize,
    /// How long a closing session may take to get rid of its last output, and a websocket to answer the close
    /// frame. Default 5 s.
    pub close_timeout: Duration,
    /// How many sessions there may be; more are answered with 503. Default 1,000,000.
    pub max_sessions: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            path: "/engine.io/".into(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            max_payload: 1_000_000,
            transports: Transports::default(),
            allow_upgrades: true,
            allow_eio3: false,
            allow_jsonp: false,
            http_compression: Some(HttpCompression::default()),
            per_message_deflate: None,
            cors: None,
            cookie: None,
            initial_headers: None,
            headers: None,
            on_connection_error: None,
            allow_request: None,
            generate_id: Arc::new(|_| random_id().unwrap_or_default()),
            max_queued_bytes: 2 << 20,
            max_queued_packets: 4096,
            close_timeout: Duration::from_secs(5),
            max_sessions: 1_000_000,
        }
    }
}

impl Config {
    /// As it is served: what cannot be is changed, or said in the log.
    pub(crate) fn in_force(mut self) -> Config {
        // One slash at each end, as in Node.
        self.path = match self.path.trim_matches('/') {
            "" => "/".to_owned(),
            path => format!("/{path}/"),
        };
        let times = [
            &mut self.ping_interval,
            &mut self.ping_timeout,
            &mut self.upgrade_timeout,
            &mut self.close_timeout,
        ];
        for time in times {
            *time = LONGEST.min(*time);
        }
        if self.transports.webtransport && !cfg!(feature = "webtransport") {
            tracing::error!(
                "`transports` includes webtransport, which this program was built without: it is not offered; add the \
                 feature `webtransport` to the dependency"
            );
            self.transports.webtransport = false;
        }
        if self.cors.as_ref().is_some_and(Cors::is_refused) {
            tracing::error!(
                "`cors` allows credentials to any origin, and browsers refuse answers that do: name the origins that \
                 may have them"
            );
        }
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("ping_interval", &self.ping_interval)
            .field("ping_timeout", &self.ping_timeout)
            .field("max_payload", &self.max_payload)
            .field("transports", &self.transports)
            .finish_non_exhaustive()
    }
}

/// Compression of polling answers (`httpCompression`): gzip or deflate, as the client's `Accept-Encoding` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpCompression {
    /// The smallest answer that is compressed, in bytes. Default 1,024.
    pub threshold: usize,
    /// How hard to try, from 0 to 9: higher costs more time. Default 6.
    pub level: u32,
}

impl HttpCompression {
    /// The smallest answer that is compressed, in bytes.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> HttpCompression {
        self.threshold = bytes;
        self
    }

    /// How hard to try, from 0 to 9.
    #[must_use]
    pub fn level(mut self, level: u32) -> HttpCompression {
        self.level = level;
        self
    }
}

impl Default for HttpCompression {
    fn default() -> HttpCompression {
        HttpCompression { threshold: 1024, level: 6 }
    }
}

/// Compression of websocket messages: permessage-deflate, RFC 7692 (`perMessageDeflate`). A message is never inflated
/// beyond [`Config::max_payload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerMessageDeflate {
    /// The smallest message that is compressed, in bytes. Default 1,024.
    pub threshold: usize,
    /// How hard to try, from 0 to 9: higher costs more time. Default 6.
    pub level: u32,
    /// The window messages are compressed with, as a power of two from 9 to 15 (`serverMaxWindowBits`). Default 15. A
    /// client may ask for a smaller one.
    pub window_bits: u8,
    /// Whether a message builds on those before it. Default false: sessions then hold no memory for compression. When
    /// true, many small messages that resemble each other become smaller, and every session that agrees costs some 300
    /// KB. (In Node it is true unless `serverNoContextTakeover` and `clientNoContextTakeover` are set.)
    pub context_takeover: bool,
}

impl PerMessageDeflate {
    /// The smallest message that is compressed, in bytes.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> PerMessageDeflate {
        self.threshold = bytes;
        self
    }

    /// How hard to try, from 0 to 9.
    #[must_use]
    pub fn level(mut self, level: u32) -> PerMessageDeflate {
        self.level = level;
        self
    }

    /// The window messages are compressed with, as a power of two from 9 to 15.
    #[must_use]
    pub fn window_bits(mut self, bits: u8) -> PerMessageDeflate {
        self.window_bits = bits;
        self
    }

    /// Whether a message builds on those before it, which costs memory for every session.
    #[must_use]
    pub fn context_takeover(mut self, takeover: bool) -> PerMessageDeflate {
        self.context_takeover = takeover;
        self
    }
}

impl Default for PerMessageDeflate {
    fn default() -> PerMessageDeflate {
        PerMessageDeflate { threshold: 1024, level: 6, window_bits: 15, context_takeover: false }
    }
}

/// A set of transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transports {
    /// HTTP long-polling.
    pub polling: bool,
    /// WebSocket.
    pub websocket: bool,
    /// WebTransport. Default false, as in Node. Needs the feature `webtransport`, and
    /// `Engine::serve_webtransport` to be running: clients are told of it either way.
    pub webtransport: bool,
}

impl Transports {
    pub(crate) const NONE: Transports = Transports { polling: false, websocket: false, webtransport: false };

    /// Whether `transport` is in the set.
    pub fn contains(self, transport: Transport) -> bool {
        match transport {
            Transport::Polling => self.polling,
            Transport::Websocket => self.websocket,
            Transport::WebTransport => self.webtransport,
        }
    }
}

impl Default for Transports {
    fn default() -> Transports {
        Transports { polling: true, websocket: true, webtransport: false }
    }
}

/// Cross-origin answers, as the npm package `cors` gives them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Cors {
    /// Who may read the answers.
    pub origin: AllowOrigin,
    /// `Access-Control-Allow-Credentials: true`. Default false.
    pub credentials: bool,
    /// Methods of a preflight answer. Default `GET,HEAD,PUT,PATCH,POST,DELETE`.
    pub methods: Vec<String>,
    /// Headers of a preflight answer. Default: those the client asks for.
    pub allowed_headers: Option<Vec<String>>,
    /// `Access-Control-Expose-Headers`. Default none.
    pub exposed_headers: Vec<String>,
    /// `Access-Control-Max-Age`. Default none.
    pub max_age: Option<Duration>,
}

impl Cors {
    /// Who may read the answers: one origin, a list, or any [`AllowOrigin`].
    #[must_use]
    pub fn origin(mut self, origin: impl Into<AllowOrigin>) -> Cors {
        self.origin = origin.into();
        self
    }

    /// Whether requests with cookies may be made. Not with [`AllowOrigin::Any`]: browsers refuse that.
    #[must_use]
    pub fn credentials(mut self, credentials: bool) -> Cors {
        self.credentials = credentials;
        self
    }

    /// Methods of a preflight answer.
    #[must_use]
    pub fn methods<S: Into<String>>(mut self, methods: impl IntoIterator<Item = S>) -> Cors {
        self.methods = methods.into_iter().map(Into::into).collect();
        self
    }

    /// Headers of a preflight answer, instead of those the client asks for.
    #[must_use]
    pub fn allowed_headers<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Cors {
        self.allowed_headers = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Headers of answers that pages may read, beside those they always may.
    #[must_use]
    pub fn exposed_headers<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Cors {
        self.exposed_headers = names.into_iter().map(Into::into).collect();
        self
    }

    /// How long browsers may keep a preflight answer, in whole seconds.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Cors {
        self.max_age = Some(max_age);
        self
    }

    /// Whether browsers refuse answers that say so: credentials go to origins with a name alone.
    fn is_refused(&self) -> bool {
        self.credentials && matches!(&self.origin, AllowOrigin::Any)
    }
}

impl Default for Cors {
    fn default() -> Cors {
        Cors {
            origin: AllowOrigin::Any,
            credentials: false,
            methods: ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"].map(String::from).to_vec(),
            allowed_headers: None,
            exposed_headers: Vec::new(),
            max_age: None,
        }
    }
}

/// Which origins `Access-Control-Allow-Origin` names.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AllowOrigin {
    /// `*`.
    Any,
    /// Whatever origin asks (`origin: true`).
    Mirror,
    /// One fixed origin, sent to everybody.
    Exact(String),
    /// The asking origin if it is in the list.
    List(BTreeSet<String>),
}

/// One origin; `*` is any.
impl From<&str> for AllowOrigin {
    fn from(origin: &str) -> AllowOrigin {
        AllowOrigin::from(origin.to_owned())
    }
}

/// The same.
impl From<String> for AllowOrigin {
    fn from(origin: String) -> AllowOrigin {
        match &*origin {
            "*" => AllowOrigin::Any,
            _ => AllowOrigin::Exact(origin),
        }
    }
}

/// A list.
impl<S: Into<String>, const N: usize> From<[S; N]> for AllowOrigin {
    fn from(origins: [S; N]) -> AllowOrigin {
        AllowOrigin::List(origins.into_iter().map(Into::into).collect())
    }
}

/// How sessions are let go: so many at a time, with a pause between, so that their clients do not all come back in
/// the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Sessions per batch. Default 50.
    pub batch: usize,
    /// Time between batches. Default 50 ms.
    pub pause: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { batch: 50, pause: Duration::from_millis(50) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_origins_with_a_name() {
        let refused = |origin: AllowOrigin| Cors::default().origin(origin).credentials(true).is_refused();
        assert!(refused("*".into()));
        assert!(!refused("http://a.example".into()) && !refused(["http://a.example"].into()));
        assert!(!refused(AllowOrigin::Mirror) && !Cors::default().is_refused());
    }
}
