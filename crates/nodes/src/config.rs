//! What can be set about several nodes. Plain data; every limit has a name and a default.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the nodes of a cluster share, and only they may know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The fewest characters: a secret that can be guessed opens every node.
    pub const MIN: usize = 16;

    /// A secret, if it is long enough.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (text.len() >= Self::MIN).then_some(Self(text))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A secret: not shown.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How the nodes find each other.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registry {
    /// By entries in Redis or Valkey, at this URL.
    Redis(String),
    /// They are these, on every node in the same order: `host:port`.
    List(Vec<String>),
    /// They are what a name resolves to.
    Dns {
        /// The name.
        name: String,
        /// Where all of them listen.
        port: u16,
    },
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(url) => match url.split_once("://").zip(url.rsplit_once('@')) {
                // There is a password in front of it.
                Some(((scheme, _), (_, host))) => write!(f, "{scheme}://***@{host}"),
                None => f.write_str(url),
            },
            Self::List(nodes) => write!(f, "a list of {}", nodes.len()),
            Self::Dns { name, port } => write!(f, "dns:{name}:{port}"),
        }
    }
}

/// As it is displayed: a URL can hold a password.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({self})")
    }
}

/// A node's part in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Where the other nodes connect to: `ip:port`.
    pub listen: String,
    /// Where they reach it, if that is elsewhere: `host:port`.
    pub advertise: Option<String>,
    /// What they share.
    pub secret: Secret,
    /// This node's number. None: claimed in the registry.
    pub node: Option<u8>,
    /// How they find each other.
    pub registry: Registry,
    /// What the cluster is called in Redis.
    pub name: String,
    /// The limits.
    pub limits: Limits,
}

/// What bounds the traffic between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Between two signs of life, in milliseconds.
    pub heartbeat_ms: u64,
    /// A node is away when it has given none for this long.
    pub expiry_ms: u64,
    /// A number is kept this long for a node that gives no sign of life.
    pub hold_ms: u64,
    /// For a connection to another node, until both know each other.
    pub connect_timeout_ms: u64,
    /// How long the others are asked for a session.
    pub ask_timeout_ms: u64,
    /// Searches at once. One more finds nothing.
    pub asks_in_flight: u32,
    /// Connections of other nodes at once.
    pub max_connections: u32,
    /// How long a start waits for the registry.
    pub registry_wait_ms: u64,
    /// How long nothing has to move on a websocket that is relayed to its session's node before the session is asked to
    /// come over. 0: it never is.
    pub move_quiet_ms: u64,
    /// How long each step of a session's move may take.
    pub move_timeout_ms: u64,
    /// A session that needs more bytes to be described stays where it is: [`Limits::MOST_MOVE_BYTES`] at most.
    pub move_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            heartbeat_ms: 2000,
            expiry_ms: 10_000,
            hold_ms: 3_600_000,
            connect_timeout_ms: 3000,
            ask_timeout_ms: 1000,
            asks_in_flight: 1024,
            max_connections: 16_384,
            registry_wait_ms: 5000,
            move_quiet_ms: 50,
            move_timeout_ms: 2000,
            move_bytes: Self::MOST_MOVE_BYTES,
        }
    }
}

impl Limits {
    /// What fits in one record between nodes.
    pub const MOST_MOVE_BYTES: u32 = crate::moving::MOST_BYTES;

    pub(crate) fn move_quiet(&self) -> Duration {
        Duration::from_millis(self.move_quiet_ms)
    }

    pub(crate) fn move_timeout(&self) -> Duration {
        Duration::from_millis(self.move_timeout_ms)
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub(crate) fn expiry(&self) -> Duration {
        Duration::from_millis(self.expiry_ms)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn ask_timeout(&self) -> Duration {
        Duration::from_millis(self.ask_timeout_ms)
    }

    pub(crate) fn registry_wait(&self) -> Duration {
        Duration::from_millis(self.registry_wait_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let secret = Secret::new("0123456789abcdef").unwrap();
        let registry = Registry::Redis("rediss://user:hunter2@redis:6379/1".to_owned());
        let shown = format!("{secret:?} {registry} {registry:?}");
        assert!(!shown.contains("0123") && !shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("rediss://***@redis:6379/1"));
        assert!(Secret::new("short").is_none());
    }
}
