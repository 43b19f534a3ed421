//! Makes a worker's link before there is a worker: what it inherits, and what tells it so.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use sundew_channel::native::{self, PROTOCOL, ToWorker, Welcome};
use sundew_channel::node::{self, HandPipe, Limits, NodeChannel};
use sundew_router::BackendId;

use crate::bind;
use crate::dispatcher::State;
use crate::ecosystem::{self, AppConfig, Kind, Serialization};
use crate::link::Link;
use crate::native::Native;
use crate::node::pulse::Pulse;
use crate::node::{Node, NodeLink};
use crate::port::Port;
use crate::spawn::{CHANNEL_FD, HANDOVER_FD, Inheritance};
use crate::state::App;

impl State {
    /// Makes the link of a process to be started.
    pub(crate) fn connect(
        &mut self,
        name: &str,
        id: BackendId,
        config: &AppConfig,
    ) -> Result<(Link, Inheritance), String> {
        if config.kind == Kind::Port {
            // The address first: nobody could reach the program without.
            let port = config.port.ok_or("kind \"port\" needs a `port`: the one this app is served on")?;
            self.bound(name, format!("port {port}"), bind::everywhere(port))?;
            self.open_door_of(name, id.slot)?;
        }
        let preload = config.sundew.preload.then(|| self.preload.clone()).flatten();
        let app = self.apps.get_mut(name).ok_or("there is no such app")?;
        match config.kind {
            Kind::Native => native(app, id, config),
            Kind::Node => {
                let unique_id = app.next_unique_id;
                app.next_unique_id += 1;
                let (node, mut inheritance) = node(app, id, config, preload.is_some(), Some(unique_id))?;
                if let Some(preload) = preload {
                    inheritance.interpreter_args = vec!["--require".to_owned(), preload];
                }
                inheritance.interpreter_args.extend(inspect_port(config, id.slot));
                Ok((Link::Node(node), inheritance))
            }
            Kind::Port => {
                let port = Port::new(id, app.front.clone())
                    .map_err(|error| format!("cannot find a free port for a worker: {error}"))?;
                let vars = vec![("PORT".to_owned(), port.port().to_string())];
                Ok((Link::Port(port), Inheritance { vars, ..Inheritance::default() }))
            }
            // As pm2 does: a Node program on its own can send and receive messages too.
            Kind::None if ecosystem::is_node(&config.interpreter) => {
                let (node, inheritance) = node(app, id, config, false, None)?;
                Ok((Link::Node(node), inheritance))
            }
            Kind::None => Ok((Link::Off, Inheritance::default())),
        }
    }
}

fn failed(error: std::io::Error) -> String {
    format!("cannot make a channel for a worker: {error}")
}

/// A native worker's: the welcome and the ends of the local bus are in it before the worker exists.
fn native(app: &mut App, id: BackendId, config: &AppConfig) -> Result<(Link, Inheritance), String> {
    let (ours, theirs) = native::pair().map_err(failed)?;
    let hung_after = Duration::from_millis(config.sundew.hung_after);
    let native = Native::new(&config.name, id, ours.into_channel().map_err(failed)?, hung_after);
    native.tell(ToWorker::Welcome(Welcome {
        protocol: PROTOCOL,
        app: config.name.clone(),
        slot: id.slot,
        generation: id.generation,
        node: app.front_config.node,
        tag_key: app.tag_key,
        drain_timeout_ms: config.sundew.drain_timeout,
        let_go: config.sundew.let_go,
        route: config.sundew.route.as_ref().map(|route| route.limits()),
        features: Vec::new(),
    }));
    let others: Vec<_> = app.workers().filter_map(|worker| worker.link.native().cloned()).collect();
    app.mesh.join(&native, others.iter());
    let value = theirs.env_value(CHANNEL_FD).map_err(failed)?;
    let vars = vec![(sundew_channel::ENV.to_owned(), value)];
    Ok((Link::Native(native), Inheritance { fd: Some(theirs.into_fd()), vars, ..Inheritance::default() }))
}

/// A Node process's. Without a number it is no cluster worker.
fn node(
    app: &App,
    id: BackendId,
    config: &AppConfig,
    preload: bool,
    unique_id: Option<u64>,
) -> Result<(Arc<Node>, Inheritance), String> {
    let options = &config.sundew;
    let serialization = match options.serialization {
        Serialization::Advanced => node::Serialization::Advanced,
        Serialization::Json => node::Serialization::Json,
    };
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let limits = Limits {
        message_bytes: size(options.limits.ipc_message_bytes),
        queue_bytes: size(options.limits.ipc_queue_bytes),
        in_flight_handles: size(options.limits.ipc_handles_in_flight),
        ..Limits::default()
    };
    let (ours, theirs): (OwnedFd, OwnedFd) = node::pair().map_err(failed)?;
    let channel = NodeChannel::new(ours, serialization, limits).map_err(failed)?;
    let restart = Some(options.hung_restart).filter(|limit| *limit > 0).map(Duration::from_millis);
    let pulse = Pulse::new(Duration::from_millis(options.hung_after), restart);
    let in_flight = limits.in_flight_handles;
    let (pipe, handover) = match preload {
        true => {
            let (ours, theirs) = node::hand_pipe().map_err(failed)?;
            let pipe = HandPipe::new(ours, in_flight, limits.queued_handles).map_err(failed)?;
            (Some(pipe), Some(theirs))
        }
        false => (None, None),
    };
    let link = NodeLink { channel, pipe, unique_id };
    let node = Node::new(&config.name, id, link, app.hub.clone(), pulse);
    let vars = node::env(CHANNEL_FD, serialization, unique_id.unwrap_or_default()).into_iter();
    // Without a number Node takes it for a process on its own that has a channel.
    let vars = vars.filter(|(name, _)| unique_id.is_some() || *name != "NODE_UNIQUE_ID");
    let vars = vars.chain(preload.then(|| node::hand_pipe_env(HANDOVER_FD, in_flight)));
    let vars = vars.map(|(name, value)| (name.to_owned(), value)).collect();
    Ok((node, Inheritance { fd: Some(theirs), handover, vars, ..Inheritance::default() }))
}

/// Two workers cannot have the same inspector's port: each gets its own, as in a Node cluster.
fn inspect_port(config: &AppConfig, slot: u16) -> Option<String> {
    const DEFAULT: u16 = 9229;
    let mut args = config.interpreter.iter().skip(1).rev();
    let inspect = args.find(|arg| arg.starts_with("--inspect"))?;
    let base = inspect.rsplit(['=', ':']).next().and_then(|port| port.parse().ok()).unwrap_or(DEFAULT);
    Some(format!("--inspect-port={}", base.saturating_add(1).saturating_add(slot)))
}
