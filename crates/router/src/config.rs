//! What can be set on a front door. Every limit has a name and a default.

use std::sync::Arc;
use std::time::Duration;

use sundew_channel::tag::TagKey;

use crate::access::AccessLog;
use crate::announced::ProxyProtocol;
use crate::http::forwarded::ForwardedHeader;
use crate::nodes::Finder;
use crate::trusted::TrustedProxies;

/// How a session that exists is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affinity {
    /// Each request goes to the owner of the session id in its query.
    #[default]
    Sid,
    /// Each request goes where the client's address hashes to: the classic way, wrong behind proxies and on changes.
    Ip,
    /// Each TCP connection goes to one worker, whatever it carries: what pm2's cluster mode does. Breaks long polling.
    None,
}

/// Where a new session is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// On the worker with the fewest sessions.
    #[default]
    LeastSessions,
    /// By the client's address, unless that worker has 1.25 times its share already.
    IpHash,
    /// On each in turn.
    RoundRobin,
    /// Anywhere.
    Random,
}

/// The front door of one app.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// The app's name, for logs.
    pub app: String,
    /// How a session is found again.
    pub affinity: Affinity,
    /// Where a new session is placed.
    pub balance: Balance,
    /// The key of the marks in session ids.
    pub tag_key: TagKey,
    /// This host's number in those marks.
    pub node: u8,
    /// Paths of Socket.IO. Empty: any path; what makes a request Socket.IO is `EIO` and `transport` in its query.
    pub paths: Vec<String>,
    /// Who is asked for the sessions that are nowhere here. None: there are no other nodes, or session ids name theirs.
    pub finder: Option<Arc<dyn Finder>>,
    /// Tell clients which worker to connect to. None: no path means that.
    pub advertise: Option<Advertise>,
    /// Peers whose word about the client's address counts.
    pub trusted_proxies: TrustedProxies,
    /// In which header they say it.
    pub forwarded_header: ForwardedHeader,
    /// Whether they say it before the first request, too.
    pub proxy_protocol: ProxyProtocol,
    /// Give each request an id (`X-Request-Id`).
    pub request_id: bool,
    /// Where requests that ended are told. None: nowhere.
    pub access_log: Option<AccessLog>,
    /// The limits.
    pub limits: Limits,
}

/// Where clients are told that the workers are: each at a port of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// The path that is asked.
    pub path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The host that is told. None: the one the request was sent to.
    pub host: Option<String>,
    /// The port of slot 0; each further slot has the next one.
    pub base_port: u16,
    /// Origins whose pages may ask, besides the front door's own. `*` is any.
    pub origins: Vec<String>,
}

impl Advertise {
    /// The port of a slot.
    pub fn port(&self, slot: u16) -> u16 {
        self.base_port.saturating_add(slot)
    }

    /// Whether text can be told as a host: a name or an address as it stands in a URL.
    pub fn is_host(text: &str) -> bool {
        crate::advertise::is_host(text)
    }

    /// The host of a `Host` header, without its port. None: there is none that could be told.
    pub fn host_of(header: &[u8]) -> Option<&str> {
        crate::advertise::host_of(header)
    }
}

impl FrontConfig {
    /// The defaults, for an app of this name.
    pub fn new(app: impl Into<String>, tag_key: TagKey) -> Self {
        Self {
            app: app.into(),
            affinity: Affinity::default(),
            balance: Balance::default(),
            tag_key,
            node: 0,
            paths: Vec::new(),
            finder: None,
            advertise: None,
            trusted_proxies: TrustedProxies::default(),
            forwarded_header: ForwardedHeader::default(),
            proxy_protocol: ProxyProtocol::default(),
            request_id: false,
            access_log: None,
            limits: Limits::default(),
        }
    }
}

/// What bounds a front door. What is over a limit gets an answer that says so, and a counter moves.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest request head, in bytes (431). At most 64 KiB.
    pub head_bytes: usize,
    /// From the first byte of a request head to its last (408).
    pub head_timeout: Duration,
    /// From a connection to the end of its TLS handshake.
    pub handshake_timeout: Duration,
    /// Requests of one HTTP/2 connection at once. More wait at the client.
    pub streams: u32,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
    /// How long a client may neither send what it announced nor take what it is sent (408, or the connection is closed).
    pub stall_timeout: Duration,
    /// How long a request's body may be waited for (408), all the times together that the client sends nothing...
    pub body_timeout: Duration,
    /// ... besides a second for each this many bytes. 0: a body may take as long as it likes.
    pub body_rate: u64,
    /// Connections at once, those handed over not counted (503).
    pub max_connections: usize,
    /// Connections at once from one client's address (of IPv6, its /64), those handed over and those of trusted proxies
    /// not counted (429). 0: as many as it likes.
    pub connections_per_ip: u32,
    /// How long a request waits for a worker while none is up (503).
    pub no_worker_wait: Duration,
    /// How many requests wait so at once (503 for more).
    pub max_waiting: usize,
    /// Idle legs kept per worker. Polls are often answered all at once, and asked again at once: a leg closed in
    /// between costs the worker as much as several requests.
    pub idle_legs: usize,
    /// How long a leg is kept idle.
    pub idle_leg_timeout: Duration,
    /// Sessions learned from workers' answers at once (503 for a new one beyond it).
    pub learned_sids: usize,
    /// What is still read and thrown away of a body that was answered early, so that the answer is not lost: at most
    /// this many bytes...
    pub linger_bytes: u64,
    /// ... and this long.
    pub linger_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            streams: 128,
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            body_rate: 500,
            max_connections: 16_384,
            connections_per_ip: 0,
            no_worker_wait: Duration::from_secs(5),
            max_waiting: 1024,
            idle_legs: 1024,
            idle_leg_timeout: Duration::from_secs(60),
            learned_sids: 1_000_000,
            linger_bytes: 16 * 1024 * 1024,
            linger_timeout: Duration::from_secs(5),
        }
    }
}
