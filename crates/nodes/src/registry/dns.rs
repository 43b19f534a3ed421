//! What a name resolves to: a headless service. It tells addresses and no numbers, so that each node has to know its own.

use std::sync::Arc;

use crate::core::{Core, Found};

/// A name.
pub(crate) struct Dns {
    name: String,
    port: u16,
}

impl Dns {
    pub(crate) fn new(name: String, port: u16) -> Self {
        Self { name, port }
    }

    pub(crate) fn join(&self, core: &Arc<Core>) -> Result<u8, String> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        core.config.node.or_else(|| ordinal(&host)).ok_or_else(|| {
            format!(
                "DNS tells no node its number, and the host name {host:?} does not end in one (as a StatefulSet's do): \
                 set `node`, a different one on each"
            )
        })
    }

    pub(crate) async fn refresh(&self) -> Result<Vec<Found>, String> {
        let found = tokio::net::lookup_host((self.name.as_str(), self.port)).await;
        let found = found.map_err(|error| format!("cannot look {} up: {error}", self.name))?;
        Ok(found.map(|addr| Found { addr: addr.to_string(), number: None }).collect())
    }
}

/// The number at the end of a name like `chat-2`.
fn ordinal(host: &str) -> Option<u8> {
    let (_, number) = host.split('.').next()?.rsplit_once('-')?;
    number.parse().ok().filter(|number| *number <= sundew_channel::tag::MAX_NODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_pods_is_numbered_by_its_names() {
        assert_eq!(ordinal("chat-2"), Some(2));
        assert_eq!(ordinal("chat-0.chat.default.svc"), Some(0));
        for host in ["chat", "chat-64", "chat-x", "web-7d4f9-abc", ""] {
            assert_eq!(ordinal(host), None, "{host}");
        }
    }
}
