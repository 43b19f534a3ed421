//! Reads the `sundew` object at the top of a file: what is about the daemon as a whole, which is its part in a cluster of
//! several hosts.

use std::net::SocketAddr;

use sundew_nodes::{ClusterConfig, Limits, Registry, Secret};

use super::coerce::Reader;
use super::context::Context;
use super::node::{Node, Value};
use super::sundew::{each, put};
use crate::bind;

/// The variable that has the secret, where the file has none.
pub(super) const SECRET: &str = "SUNDEW_CLUSTER_SECRET";
/// Where nodes listen for each other unless they are told otherwise.
const PORT: u16 = 7465;
/// The highest number that fits in a session id.
const MAX_NODE: u64 = sundew_channel::tag::MAX_NODE as u64;

const KEYS: &[&str] = &["cluster"];
const CLUSTER: &[&str] = &[
    "listen",
    "advertise",
    "secret",
    "secretFile",
    "node",
    "registry",
    "name",
    "heartbeat",
    "expiry",
    "limits",
];
const LIMITS: &[&str] = &[
    "hold",
    "connectTimeout",
    "askTimeout",
    "asksInFlight",
    "maxConnections",
    "registryWait",
    "moveQuiet",
    "moveTimeout",
    "moveBytes",
];

const SECRET_HINT: &str = "every node needs the same: make one with `openssl rand -hex 32`, and keep it in a file that only \
                           you can read (`secretFile`) or in the variable SUNDEW_CLUSTER_SECRET";

#[derive(Default)]
struct Written {
    listen: Option<String>,
    advertise: Option<String>,
    secret: Option<String>,
    node: Option<u8>,
    registry: Option<Registry>,
    name: Option<String>,
    limits: Limits,
}

/// The daemon's part in a cluster, if the file gives it one.
pub(super) fn read(node: &Node, context: &Context, reader: &mut Reader<'_>) -> Option<ClusterConfig> {
    let mut config = None;
    each("sundew", node, KEYS, reader, |_, written, node, reader| {
        config = cluster(written, node, context, reader);
    });
    config
}

fn cluster(key: &str, node: &Node, context: &Context, reader: &mut Reader<'_>) -> Option<ClusterConfig> {
    let before = reader.report.errors.len();
    let mut written = Written::default();
    each(key, node, CLUSTER, reader, |known, name, node, reader| {
        one(known, name, node, context, &mut written, reader);
    });
    let Written { listen, advertise, secret, node: number, registry, name, limits } = written;
    let secret = secret.or_else(|| context.env.get(SECRET).cloned());
    let secret = match secret.map(Secret::new) {
        Some(Some(secret)) => Some(secret),
        Some(None) => {
            let message = format!("the secret of `{key}` is too short: it needs {} characters", Secret::MIN);
            let error = reader.about(key, node.at, message).hint(SECRET_HINT);
            reader.report.error(error);
            None
        }
        None if reader.report.errors.len() == before => {
            let message = format!("`{key}` needs a `secret`, which only its nodes know");
            let error = reader.about(key, node.at, message).hint(SECRET_HINT);
            reader.report.error(error);
            None
        }
        None => None,
    };
    if registry.is_none() && reader.report.errors.len() == before {
        let message = format!("`{key}` needs a `registry`: how its nodes find each other");
        let hint = "\"redis://HOST:6379\", a list of \"HOST:PORT\", or \"dns:NAME:PORT\"";
        let error = reader.about(key, node.at, message).hint(hint);
        reader.report.error(error);
    }
    if limits.expiry_ms < 2 * limits.heartbeat_ms {
        let message = format!(
            "`expiry` ({} ms) must be at least twice `heartbeat` ({} ms): one that is late is no death",
            limits.expiry_ms, limits.heartbeat_ms
        );
        let error = reader.about(key, node.at, message);
        reader.report.error(error);
    }
    if reader.report.errors.len() > before {
        return None;
    }
    Some(ClusterConfig {
        listen: listen.unwrap_or_else(|| bind::everywhere(PORT).to_string()),
        advertise,
        secret: secret?,
        node: number,
        registry: registry?,
        name: name.unwrap_or_else(|| "default".to_owned()),
        limits,
    })
}

fn one(
    known: &str,
    key: &str,
    node: &Node,
    context: &Context,
    written: &mut Written,
    reader: &mut Reader<'_>,
) {
    match known {
        "listen" => written.listen = listen(key, node, reader),
        "advertise" => written.advertise = address(key, node, reader),
        "secret" => written.secret = reader.text(key, node).map(|given| given.value),
        "secretFile" => {
            let Some(given) = reader.text(key, node) else { return };
            let path = context.path(&given.value, &context.cwd);
            match std::fs::read_to_string(&path) {
                Ok(text) => written.secret = Some(text.trim().to_owned()),
                Err(error) => {
                    let message = format!("`{key}`: cannot read {}: {error}", path.display());
                    let error = reader.about(key, node.at, message);
                    reader.report.error(error);
                }
            }
        }
        "node" => {
            let auto = matches!(&node.value, Value::Text(text) if text == "auto");
            if !auto {
                let number = reader.count(key, node, 0, MAX_NODE);
                written.node = number.and_then(|number| u8::try_from(number).ok());
            }
        }
        "registry" => written.registry = registry(key, node, reader),
        "name" => written.name = reader.text(key, node).map(|given| given.value),
        "heartbeat" => put(&mut written.limits.heartbeat_ms, reader.time(key, node, 10)),
        "expiry" => put(&mut written.limits.expiry_ms, reader.time(key, node, 100)),
        _ => {
            let limits = &mut written.limits;
            each(key, node, LIMITS, reader, |known, key, node, reader| {
                limit(limits, known, key, node, reader)
            });
        }
    }
}

fn limit(limits: &mut Limits, known: &str, key: &str, node: &Node, reader: &mut Reader<'_>) {
    let mut count = |most: u32| {
        let count = reader.count(key, node, 1, u64::from(most));
        count.and_then(|count| u32::try_from(count).ok())
    };
    match known {
        "asksInFlight" => put(&mut limits.asks_in_flight, count(u32::MAX)),
        "maxConnections" => put(&mut limits.max_connections, count(u32::MAX)),
        "moveBytes" => put(&mut limits.move_bytes, count(Limits::MOST_MOVE_BYTES)),
        "moveQuiet" => put(&mut limits.move_quiet_ms, reader.time(key, node, 0)),
        "moveTimeout" => put(&mut limits.move_timeout_ms, reader.time(key, node, 10)),
        "hold" => put(&mut limits.hold_ms, reader.time(key, node, 1000)),
        "connectTimeout" => put(&mut limits.connect_timeout_ms, reader.time(key, node, 10)),
        "askTimeout" => put(&mut limits.ask_timeout_ms, reader.time(key, node, 10)),
        _ => put(&mut limits.registry_wait_ms, reader.time(key, node, 10)),
    }
}

/// A port, or `ip:port`.
fn listen(key: &str, node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let given = reader.text(key, node)?.value;
    if let Ok(port) = given.parse::<u16>() {
        return Some(bind::everywhere(port).to_string());
    }
    match given.parse::<SocketAddr>() {
        Ok(addr) => Some(addr.to_string()),
        Err(_) => {
            let message = format!("`{key}` must be a port or ip:port of this host, not {}", node.shown());
            let error = reader.about(key, node.at, message);
            reader.report.error(error);
            None
        }
    }
}

/// `host:port`.
fn address(key: &str, node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let given = reader.text(key, node)?.value;
    if is_address(&given) {
        return Some(given);
    }
    let message = format!("`{key}` must be host:port, not {}", node.shown());
    let error = reader.about(key, node.at, message);
    reader.report.error(error);
    None
}

fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn registry(key: &str, node: &Node, reader: &mut Reader<'_>) -> Option<Registry> {
    const WAYS: &str = "\"redis://HOST:6379\" or \"rediss://HOST:6379\" (TLS), a list of \"HOST:PORT\", or \"dns:NAME:PORT\"";
    let wrong = |reader: &mut Reader<'_>, message: String| {
        let error = reader.about(key, node.at, message).hint(format!("it can be {WAYS}"));
        reader.report.error(error);
        None
    };
    if matches!(node.value, Value::List(_)) {
        let nodes = reader.list(key, node)?;
        let most = usize::try_from(MAX_NODE).unwrap_or_default() + 1;
        if nodes.is_empty() || nodes.len() > most {
            return wrong(reader, format!("`{key}` must name 1 to {most} nodes, not {}", nodes.len()));
        }
        if let Some(bad) = nodes.iter().find(|node| !is_address(node)) {
            return wrong(reader, format!("{bad:?} in `{key}` is not host:port"));
        }
        return Some(Registry::List(nodes));
    }
    let text = reader.text(key, node)?.value;
    if text.starts_with("redis://") || text.starts_with("rediss://") {
        return Some(Registry::Redis(text));
    }
    let dns = text.strip_prefix("dns:").and_then(|rest| rest.rsplit_once(':'));
    match dns.map(|(name, port)| (name.to_owned(), port.parse())) {
        Some((name, Ok(port))) if !name.is_empty() => Some(Registry::Dns { name, port }),
        _ => wrong(reader, format!("`{key}` is no way to find nodes: {}", node.shown())),
    }
}
