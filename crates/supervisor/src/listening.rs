//! The addresses of apps: what workers ask for, bound once for all of them. The dispatcher's steps that touch listening
//! sockets.

use std::net::SocketAddr;
use std::path::PathBuf;

use sundew_channel::native;
use sundew_channel::node::{AddressType, Query, SockName, ToWorker};
use sundew_router::{Affinity, Balance, Front, FrontConfig, Listening as Socket, Serve};

use crate::bind::{self, Address, Refusal};
use crate::dispatcher::State;
use crate::state::{Listening, STICKY};
use crate::tls::Secure;
use crate::worker::{Stop, WorkerId};

/// Addresses an app may be served on.
const ADDRESSES: usize = 64;

/// An address somebody wants, and how its connections go.
struct Wish {
    asked: String,
    address: Address,
    v6_only: bool,
    serve: Serve,
    front: Front,
    ticket_keys: Option<String>,
}

impl State {
    /// A native worker asked for an address.
    pub(crate) fn listen(
        &mut self,
        id: WorkerId,
        listen: u64,
        asked: String,
        addr: Result<SocketAddr, String>,
    ) {
        let Some(name) = self.owners.get(&id).cloned() else { return };
        let bound = addr.and_then(|addr| self.bound(&name, asked, addr));
        let result = bound.and_then(|bound| self.open_own_door(&name, id).map(|()| bound));
        let Some(worker) = self.apps.get_mut(&name).and_then(|app| app.worker_mut(id)) else { return };
        let result = match result {
            Ok((asked, addr)) => {
                worker.listens.push(asked);
                Ok(addr)
            }
            Err(reason) => {
                tracing::error!(app = name, slot = worker.slot, "{reason}");
                // Trying again would fail again: the app is errored at once, with this reason.
                worker.fatal = Some(reason.clone());
                worker.stop(Stop::Gently);
                Err(reason)
            }
        };
        if let Some(native) = worker.link.native() {
            native.tell(native::ToWorker::Bound { id: listen, result });
        }
    }

    /// Serves the app's front door on an address. Gives the name it is listed under, and the address as it is.
    pub(crate) fn bound(
        &mut self,
        name: &str,
        asked: String,
        addr: SocketAddr,
    ) -> Result<(String, SocketAddr), String> {
        let app = self.apps.get(name).ok_or("the app is gone")?;
        let same = |listening: &&Listening| {
            listening.asked == asked || (addr.port() != 0 && listening.addr == Address::Tcp(addr))
        };
        if let Some(listening) = app.listening.iter().find(same) {
            return Ok((listening.asked.clone(), listening.addr.tcp().unwrap_or(addr)));
        }
        let front = app.front.clone();
        let address = Address::Tcp(addr);
        let wish = Wish {
            asked: asked.clone(),
            address,
            v6_only: false,
            serve: Serve::Http,
            front,
            ticket_keys: None,
        };
        let addr = self.serve(name, wish).map_err(|refusal| refusal.text)?.tcp().unwrap_or(addr);
        Ok((asked, addr))
    }

    fn serve(&mut self, name: &str, wish: Wish) -> Result<Address, Refusal> {
        let app = self.apps.get(name).ok_or_else(|| Refusal::other("the app is gone"))?;
        if app.listening.len() >= ADDRESSES {
            let text = format!(
                "cannot listen on {}: {name} listens on {ADDRESSES} addresses already, which is the limit",
                wish.address
            );
            return Err(Refusal::other(text));
        }
        let explain =
            |error: std::io::Error| bind::explain(&wish.address, &error, self.holder(name, &wish.address));
        let http = wish.serve == Serve::Http;
        let (socket, address, shared) = match &wish.address {
            Address::Tcp(addr) if http => {
                let (shared, addr) = self.share(name, *addr, wish.v6_only, &wish.front)?;
                (Socket::Tcp(shared.socket().map_err(explain)?), Address::Tcp(addr), Some(shared))
            }
            Address::Tcp(addr) => {
                let listener = bind::bind(*addr, wish.v6_only).map_err(explain)?;
                let addr = listener.local_addr().map_err(explain)?;
                (Socket::Tcp(listener), Address::Tcp(addr), None)
            }
            Address::Unix(path) => {
                (Socket::Unix(bind::bind_path(path).map_err(explain)?), wish.address.clone(), None)
            }
        };
        let site = shared.as_ref().map(|shared| &shared.site);
        let secure = match (&app.config.sundew.tls, &app.secure) {
            (Some(tls), None) if http => {
                let holder = |address: &Address| self.holder(name, address);
                let opened = Secure::open(name, tls, (&wish.front, site), None, holder);
                if let (Err(_), Some(site)) = (&opened, site) {
                    site.leave(&wish.front);
                }
                Some(opened?)
            }
            (Some(_), _) if !http => {
                tracing::warn!(app = name, addr = %address, "`tls` has no effect here: the app's own server speaks TLS, or no HTTP");
                None
            }
            _ => None,
        };
        let handle = match site {
            Some(site) => wish.front.listen_at(site, socket, wish.serve.clone()),
            None => wish.front.listen(socket, wish.serve.clone()),
        };
        let handle = handle.map_err(explain)?;
        tracing::info!(app = name, addr = %address, "listening");
        if let Some(app) = self.apps.get_mut(name) {
            let Wish { asked, front, serve, ticket_keys, .. } = wish;
            let addr = address.clone();
            app.listening.push(Listening { asked, addr, handle, front, serve, shared, ticket_keys });
            app.secure = secure.or(app.secure.take());
        }
        Ok(address)
    }

    /// The app's configuration has changed, or somebody wants its certificates looked at.
    pub(crate) fn secure(&mut self, name: &str) {
        let Some(app) = self.apps.get(name) else { return };
        let here = app.listening.iter().find(|here| here.serve == Serve::Http);
        match (&app.config.sundew.tls, &app.secure, here) {
            (Some(options), Some(secure), _) if secure.is(options) => secure.look(),
            (Some(options), before, Some(here)) => {
                let holder = |address: &Address| self.holder(name, address);
                let at = (&here.front, here.shared.as_ref().map(|shared| &shared.site));
                let opened = Secure::open(name, options, at, before.as_ref(), holder);
                let Some(app) = self.apps.get_mut(name) else { return };
                match (opened, &app.secure) {
                    (Ok(secure), _) => app.secure = Some(secure),
                    (Err(refusal), before) => {
                        tracing::error!(app = name, "TLS stays as it was: {}", refusal.text);
                        if let Some(before) = before {
                            before.stays(refusal.text);
                        }
                    }
                }
            }
            (None, Some(_), _) => {
                if let Some(app) = self.apps.get_mut(name) {
                    app.secure = None;
                }
            }
            _ => {}
        }
    }

    /// A Node worker asked for an address. `http`: what its server speaks, where that is known.
    pub(crate) fn asked(&mut self, id: WorkerId, seq: u64, query: &Query, http: Option<bool>) {
        let Some(name) = self.owners.get(&id).cloned() else { return };
        let key = query.key();
        let result = match query.address_type {
            AddressType::Udp4 | AddressType::Udp6 => self.datagram(&name, seq, query),
            _ => self.served(&name, query, http).map(|(address, ticket_keys)| {
                let sockname = address.tcp().map(SockName::from);
                ToWorker::Bound { ack: seq, key: key.clone(), sockname, ticket_keys }
            }),
        };
        let Some(worker) = self.apps.get_mut(&name).and_then(|app| app.worker_mut(id)) else { return };
        if result.is_ok() && !worker.asked.contains(&key) {
            worker.asked.push(key.clone());
        }
        let Some(node) = worker.link.node() else { return };
        node.tell(result.unwrap_or_else(|Refusal { errno, text }| {
            // What to do about it is for the program to decide: it gets the error it would get alone.
            tracing::error!(app = name, slot = worker.slot, "{text}");
            worker.blame = Some(text);
            ToWorker::Refused { ack: seq, errno: -errno, key, ticket_keys: query.ticket_keys.clone() }
        }));
    }

    fn served(
        &mut self,
        name: &str,
        query: &Query,
        http: Option<bool>,
    ) -> Result<(Address, Option<String>), Refusal> {
        let asked = query.key();
        if query.fd.is_some_and(|fd| fd >= 0) {
            let text = "a worker wants to listen on a descriptor it was given, which a cluster cannot do: use a port";
            return Err(Refusal::invalid(text));
        }
        let (mut address, v6_only) = wanted(query)?;
        let app = self.apps.get_mut(name).ok_or_else(|| Refusal::other("the app is gone"))?;
        if let Address::Unix(path) = &mut address {
            // The program means its own folder, not the daemon's.
            *path = app.config.cwd.join(&*path);
        }
        if let Some(at) = app.listening.iter().position(|here| here.asked == asked) {
            match &app.listening[at].addr {
                // A worker removes the path before it listens, as everybody does: the socket of the others with it.
                Address::Unix(path) if !path.exists() => {
                    let gone = app.listening.remove(at);
                    gone.handle.stop();
                    let wish = Wish {
                        asked,
                        address,
                        v6_only,
                        serve: if http == Some(false) { Serve::Raw } else { Serve::Http },
                        front: gone.front,
                        ticket_keys: gone.ticket_keys,
                    };
                    let keys = wish.ticket_keys.clone();
                    return Ok((self.serve(name, wish)?, keys));
                }
                _ => return Ok((app.listening[at].addr.clone(), app.listening[at].ticket_keys.clone())),
            }
        }
        let tls = query.ticket_keys.is_some() || query.data_given;
        // Where nobody says what a server speaks: the first one is taken to be the web server.
        let http = http.unwrap_or(!tls && app.listening.is_empty());
        let finder = self.nodes.as_ref().map(|nodes| nodes.finder(name, &asked));
        let app = self.apps.get_mut(name).ok_or_else(|| Refusal::other("the app is gone"))?;
        let config = FrontConfig {
            finder,
            // What is encrypted cannot be routed by what it says: each client stays where its address leads.
            affinity: if tls { Affinity::Ip } else { app.front_config.affinity },
            balance: if http { app.front_config.balance } else { Balance::RoundRobin },
            ..app.front_config.clone()
        };
        let (front, ticket_keys) = (Front::new(config), query.ticket_keys.clone());
        if let Some(nodes) = &self.nodes {
            nodes.open(name, &asked, &front);
        }
        let serve = if http { Serve::Http } else { Serve::Raw };
        let wish = Wish { asked, address, v6_only, serve, front, ticket_keys: ticket_keys.clone() };
        Ok((self.serve(name, wish)?, ticket_keys))
    }

    /// UDP ports are shared: each datagram goes to one of the workers, as in a Node cluster.
    fn datagram(&mut self, name: &str, seq: u64, query: &Query) -> Result<ToWorker, Refusal> {
        let (address, v6_only) = wanted(query)?;
        let app = self.apps.get_mut(name).ok_or_else(|| Refusal::other("the app is gone"))?;
        let explain = |error: std::io::Error| bind::explain(&address, &error, None);
        let key = query.key();
        let socket = match app.datagrams.get(&key) {
            Some(socket) => socket,
            None if app.datagrams.len() >= ADDRESSES => {
                return Err(Refusal::other(format!(
                    "{name} has {ADDRESSES} UDP ports already, which is the limit"
                )));
            }
            None => {
                let addr = address.tcp().ok_or_else(|| Refusal::invalid("a UDP socket needs a port"))?;
                let socket = bind::bind_datagram(addr, v6_only).map_err(explain)?;
                app.datagrams.entry(key.clone()).or_insert(socket)
            }
        };
        let sockname = socket.local_addr().map(SockName::from).ok();
        let fd = socket.try_clone().map_err(explain)?.into();
        Ok(ToWorker::Shared { ack: seq, key, fd, udp: true, sockname, ticket_keys: None })
    }

    /// A worker takes `sticky:connection`: it never listens, so its address is opened for it.
    pub(crate) fn takes_sticky(&mut self, id: WorkerId) {
        let Some(name) = self.owners.get(&id).cloned() else { return };
        let Some(app) = self.apps.get(&name) else { return };
        let Some(worker) = app.worker(id).filter(|worker| worker.listens.is_empty()) else { return };
        let served = app.listening.iter().any(|here| here.asked == STICKY);
        if !served {
            let port = worker.config.sticky_port();
            let addr = bind::everywhere(port);
            let finder = self.nodes.as_ref().map(|nodes| nodes.finder(&name, STICKY));
            let front = Front::new(FrontConfig { finder, ..app.front_config.clone() });
            if let Some(nodes) = &self.nodes {
                nodes.open(&name, STICKY, &front);
            }
            let wish = Wish {
                asked: STICKY.to_owned(),
                address: Address::Tcp(addr),
                v6_only: false,
                serve: Serve::Http,
                front,
                ticket_keys: None,
            };
            if let Err(refusal) = self.serve(&name, wish) {
                let reason = format!(
                    "{}. \"sundew\": {{ \"port\": ... }} is the port of apps that never listen",
                    refusal.text
                );
                let Some(worker) = self.apps.get_mut(&name).and_then(|app| app.worker_mut(id)) else {
                    return;
                };
                tracing::error!(app = name, slot = worker.slot, "{reason}");
                worker.fatal = Some(reason);
                worker.stop(Stop::Gently);
                return;
            }
        }
        self.listens(&name, id, STICKY.to_owned());
    }
}

/// What a query asks for, and whether IPv6 only.
fn wanted(query: &Query) -> Result<(Address, bool), Refusal> {
    let given = query.address.as_deref().filter(|address| !address.is_empty());
    match query.port {
        Some(port @ 0..=65535) => {
            let port = u16::try_from(port).unwrap_or_default();
            let four = matches!(query.address_type, AddressType::Tcp4 | AddressType::Udp4);
            let ip = match given {
                Some(text) => {
                    text.parse().map_err(|_| Refusal::invalid(format!("{text} is not an IP address")))?
                }
                None if four && matches!(query.address_type, AddressType::Udp4) => {
                    std::net::Ipv4Addr::UNSPECIFIED.into()
                }
                None => bind::everywhere(port).ip(),
            };
            Ok((Address::Tcp(SocketAddr::new(ip, port)), query.flags & 1 != 0))
        }
        _ => match given {
            Some(path) => Ok((Address::Unix(PathBuf::from(path)), false)),
            None => Err(Refusal::invalid("a worker wants to listen on neither a port nor a path")),
        },
    }
}
