//! What pm2 has no key for: the `sundew` object of an app, resolved. Defaults are the router's and the channel's own.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sundew_channel::native::{LetGo, RouteLimits};

use super::config::Milliseconds;

/// How a session's worker is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    /// Every request goes to the owner of its session id.
    #[default]
    Sid,
    /// Every request goes where its client's address leads.
    Ip,
    /// A connection stays where it began, as under pm2: shows the failure.
    None,
}

/// How a new session's worker is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The worker with the fewest.
    #[default]
    LeastSessions,
    /// By the client's address, load bounded.
    IpHash,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
}

/// In which header trusted proxies tell the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
    /// In none.
    None,
}

/// Whether trusted proxies announce connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    /// They do not.
    #[default]
    Off,
    /// They may.
    Accept,
    /// They do, and nobody else connects.
    Require,
}

impl From<ForwardedHeader> for sundew_router::ForwardedHeader {
    fn from(header: ForwardedHeader) -> Self {
        match header {
            ForwardedHeader::XForwardedFor => Self::XForwardedFor,
            ForwardedHeader::Forwarded => Self::Forwarded,
            ForwardedHeader::None => Self::None,
        }
    }
}

impl From<ProxyProtocol> for sundew_router::ProxyProtocol {
    fn from(protocol: ProxyProtocol) -> Self {
        match protocol {
            ProxyProtocol::Off => Self::Off,
            ProxyProtocol::Accept => Self::Accept,
            ProxyProtocol::Require => Self::Require,
        }
    }
}

impl From<Affinity> for sundew_router::Affinity {
    fn from(affinity: Affinity) -> Self {
        match affinity {
            Affinity::Sid => Self::Sid,
            Affinity::Ip => Self::Ip,
            Affinity::None => Self::None,
        }
    }
}

impl From<Balance> for sundew_router::Balance {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::LeastSessions => Self::LeastSessions,
            Balance::IpHash => Self::IpHash,
            Balance::RoundRobin => Self::RoundRobin,
            Balance::Random => Self::Random,
        }
    }
}

/// How the messages on a Node.js worker's channel are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serialization {
    /// V8's: buffers stay buffers, so binary broadcasts arrive as they were sent.
    #[default]
    Advanced,
    /// JSON, Node's own default: for programs that count on its conversions.
    Json,
}

/// `direct`: worker 0 is reachable on `base_port` too, worker 1 on the next one, and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direct {
    /// `basePort`.
    pub base_port: u16,
    /// `host`: the address they listen on. None: the app's.
    pub host: Option<IpAddr>,
}

impl Direct {
    /// The port of a worker. None: there are no more.
    pub fn port(&self, slot: u16) -> Option<u16> {
        self.base_port.checked_add(slot)
    }
}

/// `route`: where and how clients are told which worker to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// `path`: what they ask for.
    pub path: String,
    /// `scheme`: `http` or `https`.
    pub scheme: String,
    /// `host`: what they are told. None: the host they asked.
    pub host: Option<String>,
    /// `basePort`: the port they are told for worker 0. None: the one of `direct`.
    pub base_port: Option<u16>,
    /// `origins`: whose pages may ask, besides the app's own.
    pub origins: Vec<String>,
    /// `waiting`: how many questions of one worker may wait for an answer.
    pub waiting: u32,
    /// `timeout`, in milliseconds: how long one may.
    pub timeout: u64,
}

impl Route {
    /// What a worker has to know to ask.
    pub(crate) fn limits(&self) -> RouteLimits {
        RouteLimits { waiting: self.waiting, timeout_ms: self.timeout }
    }
}

impl Default for Route {
    fn default() -> Self {
        Self {
            path: "/.sundew/route".to_owned(),
            scheme: "http".to_owned(),
            host: None,
            base_port: None,
            origins: Vec::new(),
            waiting: 1024,
            timeout: 5000,
        }
    }
}

/// The `sundew` object of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SundewOptions {
    /// `affinity`.
    pub affinity: Affinity,
    /// `balance`.
    pub balance: Balance,
    /// `drainTimeout`: how long a replaced worker keeps its sessions.
    pub drain_timeout: Milliseconds,
    /// `letGo`: how the sessions left at that deadline are let go of.
    pub let_go: LetGo,
    /// `paths`: where Socket.IO is. Empty: any path.
    pub paths: Vec<String>,
    /// `direct`: each worker has a port of its own besides the app's.
    pub direct: Option<Direct>,
    /// `route`: the front door tells clients which of those ports to connect to.
    pub route: Option<Route>,
    /// `trustedProxies`: addresses, networks, and words for some, whose word about the client's address counts.
    pub trusted_proxies: Vec<String>,
    /// `forwardedHeader`: where they say it.
    pub forwarded_header: ForwardedHeader,
    /// `proxyProtocol`: whether they say it at the beginning of a connection.
    pub proxy_protocol: ProxyProtocol,
    /// `preload`: a Node.js worker loads a module that gives its program the clients' addresses.
    pub preload: bool,
    /// `serialization`: of a Node.js worker's channel.
    pub serialization: Serialization,
    /// `port`: where a Node.js app is served that never listens by itself. See [`AppConfig::sticky_port`].
    ///
    /// [`AppConfig::sticky_port`]: crate::ecosystem::AppConfig::sticky_port
    pub port: Option<u16>,
    /// `hungAfter`: a worker that does not answer, or take a connection, for so long gets no new sessions. At least 100.
    pub hung_after: Milliseconds,
    /// `hungRestart`: a Node.js worker that does not answer for so long is started anew; 0 is never.
    pub hung_restart: Milliseconds,
    /// `hosts`: of those that share its addresses, the app is for these. Empty: any.
    pub hosts: Vec<String>,
    /// `prefix`: and for paths that begin with one of these. Empty: any.
    pub prefix: Vec<String>,
    /// `requestId`: each request gets an id.
    pub request_id: bool,
    /// `accessLog`: a line for each request that ended.
    pub access_log: AccessFormat,
    /// `accessLogFile`: where they go; `logs/NAME-access.log` in the daemon's home if not set.
    pub access_log_file: Option<PathBuf>,
    /// `tls`: where TLS ends at the front door.
    pub tls: Option<TlsOptions>,
    /// `limits`: the front door's and the channel's.
    pub limits: Limits,
}

/// How the lines of the access log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessFormat {
    /// Not at all.
    #[default]
    Off,
    /// As JSON.
    Json,
    /// As web servers write them, with a few words more.
    Combined,
}

/// `tls`, with absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsOptions {
    /// `listen`.
    pub listen: Vec<Listen>,
    /// `cert` and `key`: the first is for clients that ask for no name, or an unknown one.
    pub files: Vec<TlsFiles>,
}

/// A certificate, with those it is signed by, and its key: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// An address as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Listen {
    /// Every address of this host.
    Port(u16),
    /// This one.
    Address(SocketAddr),
}

impl Listen {
    pub(crate) fn address(self) -> SocketAddr {
        match self {
            Self::Port(port) => crate::bind::everywhere(port),
            Self::Address(address) => address,
        }
    }
}

impl Default for SundewOptions {
    fn default() -> Self {
        Self {
            affinity: Affinity::default(),
            balance: Balance::default(),
            drain_timeout: 30_000,
            let_go: LetGo::default(),
            paths: Vec::new(),
            direct: None,
            route: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            proxy_protocol: ProxyProtocol::default(),
            preload: true,
            serialization: Serialization::default(),
            port: None,
            hung_after: 1000,
            hung_restart: 30_000,
            hosts: Vec::new(),
            prefix: Vec::new(),
            request_id: false,
            access_log: AccessFormat::default(),
            access_log_file: None,
            tls: None,
            limits: Limits::default(),
        }
    }
}

impl SundewOptions {
    /// What the front door tells clients of its workers' ports.
    pub fn advertise(&self) -> Option<sundew_router::Advertise> {
        let (direct, route) = (self.direct.as_ref()?, self.route.clone()?);
        Some(sundew_router::Advertise {
            path: route.path,
            scheme: route.scheme,
            host: route.host,
            base_port: route.base_port.unwrap_or(direct.base_port),
            origins: route.origins,
        })
    }

    /// Whether both ask for the same front door.
    pub fn same_front(&self, other: &Self) -> bool {
        let front = |options: &Self| {
            let limits = sundew_router::Limits::from(&options.limits);
            (
                (options.affinity, options.balance, options.paths.clone(), Limits::from(&limits)),
                (
                    options.direct.clone(),
                    options.route.clone(),
                    options.hosts.clone(),
                    options.prefix.clone(),
                ),
                (options.access_log, options.access_log_file.clone(), options.request_id),
                (options.trusted_proxies.clone(), options.forwarded_header, options.proxy_protocol),
            )
        };
        front(self) == front(other)
    }
}

/// The limits of an app's front door, under the router's names, and those of a Node.js worker's channel. Times in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// `headBytes`.
    pub head_bytes: u64,
    /// `headTimeout`.
    pub head_timeout: Milliseconds,
    /// `handshakeTimeout`.
    pub handshake_timeout: Milliseconds,
    /// `h2Streams`.
    pub h2_streams: u64,
    /// `idleTimeout`.
    pub idle_timeout: Milliseconds,
    /// `stallTimeout`.
    pub stall_timeout: Milliseconds,
    /// `bodyTimeout`.
    pub body_timeout: Milliseconds,
    /// `bodyRate`: bytes a second, 0 is no limit.
    pub body_rate: u64,
    /// `maxConnections`.
    pub max_connections: u64,
    /// `connectionsPerIp`: 0 is no limit.
    pub connections_per_ip: u32,
    /// `noWorkerWait`.
    pub no_worker_wait: Milliseconds,
    /// `maxWaiting`.
    pub max_waiting: u64,
    /// `idleLegs`.
    pub idle_legs: u64,
    /// `idleLegTimeout`.
    pub idle_leg_timeout: Milliseconds,
    /// `lingerBytes`.
    pub linger_bytes: u64,
    /// `lingerTimeout`.
    pub linger_timeout: Milliseconds,
    /// `learnedSids`: sessions of workers that do not tell of them.
    pub learned_sids: u64,
    /// `ipcMessageBytes`: the longest message of a Node.js worker.
    pub ipc_message_bytes: u64,
    /// `ipcQueueBytes`: what may wait to be written to a Node.js worker.
    pub ipc_queue_bytes: u64,
    /// `ipcHandlesInFlight`: connections handed to a Node.js worker that it has not taken yet.
    pub ipc_handles_in_flight: u64,
}

impl Default for Limits {
    fn default() -> Self {
        (&sundew_router::Limits::default()).into()
    }
}

impl From<&sundew_router::Limits> for Limits {
    fn from(limits: &sundew_router::Limits) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let count = |count: usize| count as u64;
        Self {
            head_bytes: count(limits.head_bytes),
            head_timeout: ms(limits.head_timeout),
            handshake_timeout: ms(limits.handshake_timeout),
            h2_streams: limits.streams.into(),
            idle_timeout: ms(limits.idle_timeout),
            stall_timeout: ms(limits.stall_timeout),
            body_timeout: ms(limits.body_timeout),
            body_rate: limits.body_rate,
            max_connections: count(limits.max_connections),
            connections_per_ip: limits.connections_per_ip,
            no_worker_wait: ms(limits.no_worker_wait),
            max_waiting: count(limits.max_waiting),
            idle_legs: count(limits.idle_legs),
            idle_leg_timeout: ms(limits.idle_leg_timeout),
            linger_bytes: limits.linger_bytes,
            linger_timeout: ms(limits.linger_timeout),
            learned_sids: count(limits.learned_sids),
            ipc_message_bytes: 16 << 20,
            ipc_queue_bytes: 64 << 20,
            ipc_handles_in_flight: 8,
        }
    }
}

impl From<&Limits> for sundew_router::Limits {
    fn from(limits: &Limits) -> Self {
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            head_bytes: count(limits.head_bytes),
            head_timeout: Duration::from_millis(limits.head_timeout),
            handshake_timeout: Duration::from_millis(limits.handshake_timeout),
            streams: u32::try_from(limits.h2_streams).unwrap_or(u32::MAX),
            idle_timeout: Duration::from_millis(limits.idle_timeout),
            stall_timeout: Duration::from_millis(limits.stall_timeout),
            body_timeout: Duration::from_millis(limits.body_timeout),
            body_rate: limits.body_rate,
            max_connections: count(limits.max_connections),
            connections_per_ip: limits.connections_per_ip,
            no_worker_wait: Duration::from_millis(limits.no_worker_wait),
            max_waiting: count(limits.max_waiting),
            idle_legs: count(limits.idle_legs),
            idle_leg_timeout: Duration::from_millis(limits.idle_leg_timeout),
            linger_bytes: limits.linger_bytes,
            linger_timeout: Duration::from_millis(limits.linger_timeout),
            learned_sids: count(limits.learned_sids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_reach_the_router_as_they_were_set() {
        let set = Limits { head_bytes: 1, max_waiting: 2, linger_timeout: 3, ..Limits::default() };
        let router = sundew_router::Limits::from(&set);
        assert_eq!((router.head_bytes, router.max_waiting), (1, 2));
        assert_eq!(router.linger_timeout, Duration::from_millis(3));
        assert_eq!(Limits::from(&router), set);
    }
}
