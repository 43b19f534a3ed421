//! Several apps at one address. Each of them accepts from a duplicate of one socket, so that the address is open for as
//! long as any of them is; whose a request is, is decided by the router for each request.

use std::net::{SocketAddr, TcpListener};

use sundew_router::{Front, Place, Site};

use crate::bind::{self, Address, Refusal};
use crate::dispatcher::State;
use crate::state::App;

/// An address that apps may share, as one of them holds it.
pub(crate) struct Shared {
    socket: TcpListener,
    pub(crate) site: Site,
}

impl Shared {
    /// For whom accepts from it.
    pub(crate) fn socket(&self) -> std::io::Result<TcpListener> {
        self.socket.try_clone()
    }
}

impl State {
    /// Binds an address for an app, or joins the app that has it.
    pub(crate) fn share(
        &self,
        name: &str,
        addr: SocketAddr,
        v6_only: bool,
        front: &Front,
    ) -> Result<(Shared, SocketAddr), Refusal> {
        let app = self.apps.get(name).ok_or_else(|| Refusal::other("the app is gone"))?;
        let address = Address::Tcp(addr);
        let is_it = |here: &Address| {
            let everywhere = |addr: &SocketAddr| addr.ip().is_unspecified() && !v6_only;
            // 0.0.0.0 and [::]: whoever was first decides.
            let same = |here: SocketAddr| here == addr || (everywhere(&here) && everywhere(&addr));
            here.tcp().is_some_and(|here| here.port() == addr.port() && same(here))
        };
        let others = self.apps.iter().filter(|(other, _)| *other != name && addr.port() != 0);
        let holder = others.into_iter().find_map(|(other, holder)| {
            Some((other, holder, holder.listening.iter().find(|here| is_it(&here.addr))?))
        });
        let Some((other, holder, here)) = holder else {
            let explain =
                |error: std::io::Error| bind::explain(&address, &error, self.holder(name, &address));
            let socket = bind::bind(addr, v6_only).map_err(explain)?;
            let addr = socket.local_addr().map_err(explain)?;
            let site = Site::default();
            // Nobody else is there yet.
            let _ = site.join(place(app), front);
            return Ok((Shared { socket, site }, addr));
        };
        let refuse = |why: String| Err(Refusal::in_use(format!("cannot listen on {addr}: {why}")));
        let Some(shared) = &here.shared else {
            return refuse(format!(
                "the app {other:?} of this daemon listens there, and its workers speak TLS themselves, or no HTTP: such a \
                 port cannot be shared. Let TLS end at the front door (`sundew.tls`), or use another port"
            ));
        };
        let announces = |app: &App| {
            let own = &app.config.sundew;
            (own.proxy_protocol, own.trusted_proxies.clone())
        };
        if announces(app) != announces(holder) {
            return refuse(format!(
                "the app {other:?} of this daemon listens there with another `trustedProxies` or `proxyProtocol`: apps that \
                 share a port have the same"
            ));
        }
        let socket = shared.socket().map_err(|error| bind::explain(&address, &error, None))?;
        if let Err(same) = shared.site.join(place(app), front) {
            return refuse(format!(
                "the app {same:?} of this daemon listens there already. Give one of them another port, or tell them apart: \
                 \"sundew\": {{ \"hosts\": [\"chat.example.com\"] }} or {{ \"prefix\": \"/chat\" }}, different for each"
            ));
        }
        tracing::info!(app = name, %addr, with = other, "shares an address");
        Ok((Shared { socket, site: shared.site.clone() }, here.addr.tcp().unwrap_or(addr)))
    }
}

/// Where at its addresses an app is.
fn place(app: &App) -> Place {
    let own = &app.config.sundew;
    Place { hosts: own.hosts.clone(), prefixes: own.prefix.clone() }
}
