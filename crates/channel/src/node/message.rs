//! The messages between the supervisor and a Node worker, in our words. No bytes: how they are spelled is elsewhere.

use std::os::fd::OwnedFd;

use bytes::Bytes;

/// How messages are spelled on the channel. Node's name for it is the child process option `serialization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Serialization {
    /// V8's structured clone behind a length. Binary data of broadcasts between workers survives only in this one.
    #[default]
    Advanced,
    /// One JSON text per line. A `Buffer` becomes `{"type":"Buffer",...}` on the way.
    Json,
}

/// From the supervisor to a worker.
#[derive(Debug)]
pub enum ToWorker {
    /// Answers [`FromWorker::QueryServer`]: connections for this key come one by one, as [`ToWorker::Connection`].
    Bound {
        /// The query's `seq`.
        ack: u64,
        /// The name both sides give this server from now on.
        key: String,
        /// What `server.address()` says. Its port must be the one asked for unless that was 0, or Node reports
        /// EADDRINUSE. `None` for a server on a path.
        sockname: Option<SockName>,
        /// Required when the query had some, else the worker dies. Give all workers the ones of the first, so that a
        /// TLS session can be resumed on any of them.
        ticket_keys: Option<String>,
    },
    /// Answers [`FromWorker::QueryServer`]: `listen` fails.
    Refused {
        /// The query's `seq`.
        ack: u64,
        /// Negative, as libuv has it: -98 is EADDRINUSE on Linux.
        errno: i32,
        /// [`Query::key`].
        key: String,
        /// As in `Bound`: required even here when the query had some.
        ticket_keys: Option<String>,
    },
    /// Answers [`FromWorker::QueryServer`] with the listening (or bound) descriptor itself: the worker accepts alone.
    Shared {
        /// The query's `seq`.
        ack: u64,
        /// As in `Bound`.
        key: String,
        /// Closed here once it is written.
        fd: OwnedFd,
        /// A datagram socket.
        udp: bool,
        /// As in `Bound`.
        sockname: Option<SockName>,
        /// As in `Bound`.
        ticket_keys: Option<String>,
    },
    /// A connection for one of the worker's servers.
    Connection(Handed),
    /// Answers [`FromWorker::ExitedAfterDisconnect`], which waits for it.
    Ack {
        /// Its `seq`.
        ack: u64,
    },
    /// The message `'shutdown'`, which apps written for PM2 listen to.
    Shutdown,
    /// Answered by Node itself with [`FromWorker::HandleNack`] as soon as its event loop turns. Not written while
    /// descriptors are on their way: those are answered just as well.
    Ping,
    /// To our preload: end the connections that were handed over, a batch at a time.
    LetGo {
        /// Connections per batch.
        batch: u32,
        /// Milliseconds between two batches.
        pause_ms: u64,
    },
    /// To workers whose adapter is of version 0.2, and to those only: another one is gone. Without it they would wait
    /// for its answers.
    AdapterExit {
        /// The unique id it was started with.
        worker: u64,
    },
    /// To `@socket.io/cluster-adapter` 0.3: this adapter is gone. One that could say so itself would; without it the
    /// others wait for its answers until they time out.
    AdapterGone {
        /// [`FromWorker::Adapter`]'s `uid`.
        uid: String,
        /// Its namespace.
        nsp: String,
    },
    /// A whole frame another worker sent ([`FromWorker::Adapter`]), of the same serialization.
    Relay(Bytes),
}

/// A connection for a worker, and who waits for word of it.
#[derive(Debug)]
pub struct Handed {
    /// The server it is for. `None`: a `sticky:connection` message, as `@socket.io/sticky` understands; nothing says
    /// whether the app took it, only that it arrived.
    pub key: Option<String>,
    /// Comes back in [`FromWorker::Accepted`], [`FromWorker::HandleAck`] and [`FromWorker::HandleNack`].
    pub seq: u64,
    /// Our own leg and not a client's connection: the preload treats it otherwise.
    pub leg: bool,
    /// Where a proxy stands between: the client's address, as its socket would tell it. Only with our preload.
    pub client: Option<String>,
    /// Closed here once it is written. Keep a duplicate until it is accepted, if another worker should get it when it
    /// is not. Must be nonblocking: Node does not set it, and a blocking one stops its whole event loop.
    pub fd: OwnedFd,
}

/// From a worker to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromWorker {
    /// The worker's first message, before it runs the app.
    Online,
    /// A server wants to listen. Answer [`ToWorker::Bound`], [`ToWorker::Refused`] or [`ToWorker::Shared`].
    QueryServer {
        /// For the answer.
        seq: u64,
        /// What it asks for.
        query: Query,
    },
    /// A server listens. Its port is the one we answered: the key is the query's only if that asked for a port.
    Listening(Query),
    /// A server was closed.
    Close {
        /// The key we answered.
        key: String,
    },
    /// The worker is about to end by its own will. Answer [`ToWorker::Ack`].
    ExitedAfterDisconnect {
        /// For the answer.
        seq: u64,
    },
    /// What became of a connection with a key.
    Accepted {
        /// [`Handed::seq`].
        seq: u64,
        /// `false`: the server has its `maxConnections`, or is closed. Nothing of the connection was read.
        accepted: bool,
    },
    /// A descriptor arrived, or rather: its message and the descriptor met. The channel's own bookkeeping is done.
    HandleAck {
        /// [`Handed::seq`]; `None` for a [`ToWorker::Shared`].
        seq: Option<u64>,
    },
    /// The answer to a [`ToWorker::Ping`] (`seq` is `None`), or a descriptor got lost on the way: the worker has no
    /// descriptors left.
    HandleNack {
        /// [`Handed::seq`].
        seq: Option<u64>,
    },
    /// The worker sent a descriptor. The channel has closed and confirmed it.
    Handle,
    /// `process.send('ready')`.
    Ready,
    /// A message of `@socket.io/cluster-adapter`, for the other workers.
    Adapter {
        /// Its type. The numbers of 0.2 and 0.3 differ: only 0.3 has a `uid`.
        kind: u32,
        /// Who sent it: a worker has one per namespace. `None`: an adapter 0.2.
        uid: Option<String>,
        /// The namespace.
        nsp: Option<String>,
        /// The one who asked, if this is an answer: nobody else needs it.
        requester: Option<Requester>,
        /// The frame as it came, with what delimits it: for [`ToWorker::Relay`].
        frame: Bytes,
    },
    /// From the preload, before the query of the same server: whether it serves plain HTTP.
    Serves {
        /// An `http.Server`, and none of its secure or HTTP/2 relatives.
        http: bool,
        /// The number by which its connections can be sent over the [`HandPipe`](super::HandPipe). `None`: the worker
        /// does not read it.
        server: Option<u32>,
    },
    /// From the preload: the app waits for `sticky:connection` messages.
    Sticky,
    /// From the preload: how many connections that were handed over have ended so far.
    Closed {
        /// Since the worker began.
        total: u64,
    },
    /// Something for somebody else, or nothing we can read.
    Other,
    /// A message over [`Limits::message_bytes`](super::Limits::message_bytes), which was skipped.
    TooLong {
        /// Its size.
        bytes: u64,
    },
}

/// Who an adapter's answer is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Requester {
    /// Adapter 0.3: the `uid` of the messages the asking worker sent.
    Uid(String),
    /// Adapter 0.2: the unique id the asking worker was started with ([`env`](super::env)).
    Worker(u64),
}

/// Where a server wants to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The host, or the path. `None`: every address of the host.
    pub address: Option<String>,
    /// The port; 0 for any; -1 for a path; `None` for a descriptor.
    pub port: Option<i64>,
    /// What kind of address.
    pub address_type: AddressType,
    /// A descriptor the worker inherited.
    pub fd: Option<i64>,
    /// How many servers of this worker asked for the same before.
    pub index: i64,
    /// The length of the accept queue; 0 or less: Node's default (511).
    pub backlog: i64,
    /// A TLS server's session ticket keys, in hexadecimal.
    pub ticket_keys: Option<String>,
    /// The query had data at all: the server is a TLS server.
    pub data_given: bool,
    /// libuv's flags for binding (1: IPv6 only); 0 when the worker's Node does not tell.
    pub flags: i64,
}

/// Node's `addressType`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AddressType {
    /// A path.
    Pipe,
    /// TCP over IPv4, or over both when there is no address.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// A descriptor ([`Query::fd`]).
    Fd,
    /// Nothing we know.
    Unknown,
}

/// What `server.address()` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SockName {
    /// The address.
    pub address: String,
    /// The port.
    pub port: u16,
    /// `IPv4` or `IPv6`.
    pub ipv6: bool,
}

impl From<std::net::SocketAddr> for SockName {
    fn from(address: std::net::SocketAddr) -> Self {
        Self { address: address.ip().to_string(), port: address.port(), ipv6: address.is_ipv6() }
    }
}

impl AddressType {
    fn name(&self) -> &'static str {
        match self {
            Self::Pipe => "-1",
            Self::Tcp4 => "4",
            Self::Tcp6 => "6",
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::Fd => "fd",
            Self::Unknown => "unknown",
        }
    }
}

impl Query {
    /// `address:port:type:fd:index`: the same for workers that ask for the same, another for a second server of one
    /// worker. To a worker it is only a name.
    pub fn key(&self) -> String {
        let number = |value: Option<i64>| value.map_or_else(|| "null".to_owned(), |value| value.to_string());
        format!(
            "{}:{}:{}:{}:{}",
            self.address.as_deref().unwrap_or("null"),
            number(self.port),
            self.address_type.name(),
            number(self.fd),
            self.index
        )
    }
}
