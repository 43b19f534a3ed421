//! A list, the same on every node: a node's number is its place in it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::core::{Core, Found};

/// A list of nodes.
pub(crate) struct List {
    nodes: Vec<String>,
    /// This node's place.
    own: Option<usize>,
}

impl List {
    pub(crate) fn new(nodes: Vec<String>) -> Self {
        Self { nodes, own: None }
    }

    pub(crate) async fn join(&mut self, core: &Arc<Core>) -> Result<u8, String> {
        let own = match core.config.node {
            Some(number) => usize::from(number),
            None => self.find(core).await?,
        };
        let Some(addr) = self.nodes.get(own) else {
            return Err(format!(
                "`node` is {own}, and the list in `registry` has {} entries: the first one is number 0",
                self.nodes.len()
            ));
        };
        if core.config.advertise.is_none() {
            core.me.write().addr.clone_from(addr);
        }
        self.own = Some(own);
        u8::try_from(own).map_err(|_| "the list in `registry` is too long".to_owned())
    }

    /// The entry that is this host.
    async fn find(&self, core: &Arc<Core>) -> Result<usize, String> {
        if let Some(advertise) = &core.config.advertise
            && let Some(own) = self.nodes.iter().position(|node| node == advertise)
        {
            return Ok(own);
        }
        let port = core.config.listen.parse().map_or(0, |addr: SocketAddr| addr.port());
        let mut own = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let Ok(mut found) = tokio::net::lookup_host(node).await else { continue };
            // What can be bound is this host's.
            if found.any(|addr| addr.port() == port && std::net::UdpSocket::bind((addr.ip(), 0)).is_ok()) {
                own.push(at);
            }
        }
        match own[..] {
            [own] => Ok(own),
            [] => Err(format!(
                "no entry of the list in `registry` is this host with port {port}: add it, or say which one it is by \
                 `advertise` or `node`"
            )),
            _ => {
                Err("several entries of the list in `registry` are this host: say which one it is by `node`"
                    .to_owned())
            }
        }
    }

    pub(crate) fn found(&self) -> Vec<Found> {
        let others = self.nodes.iter().enumerate().filter(|(at, _)| Some(*at) != self.own);
        others.map(|(at, addr)| Found { addr: addr.clone(), number: u8::try_from(at).ok() }).collect()
    }
}
