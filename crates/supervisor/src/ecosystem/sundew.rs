//! Reads the `sundew` object of an app: what pm2 has no key for.

use super::coerce::{Given, Reader};
use super::config::Kind;
use super::direct;
use super::keys;
use super::node::{Node, Property, Value};
use super::options::{
    AccessFormat, Affinity, Balance, ForwardedHeader, Limits, ProxyProtocol, Serialization,
};
use super::settings::{Settings, unknown};
use super::tls;
use sundew_router::{BadProxy, TrustedProxies};

const KEYS: &[&str] = &[
    "kind",
    "affinity",
    "balance",
    "drainTimeout",
    "letGo",
    "paths",
    "direct",
    "route",
    "trustedProxies",
    "forwardedHeader",
    "proxyProtocol",
    "preload",
    "serialization",
    "port",
    "hungAfter",
    "hungRestart",
    "hosts",
    "prefix",
    "requestId",
    "accessLog",
    "accessLogFile",
    "tls",
    "limits",
];
/// Those of them, and of the limits, that are about Node.js workers only.
const NODE_ONLY: &[&str] = &[
    "preload",
    "serialization",
    "port",
    "hungRestart",
    "ipcMessageBytes",
    "ipcQueueBytes",
    "ipcHandlesInFlight",
];
const LET_GO: &[&str] = &["batch", "pause"];
const LIMITS: &[&str] = &[
    "headBytes",
    "headTimeout",
    "handshakeTimeout",
    "h2Streams",
    "idleTimeout",
    "stallTimeout",
    "bodyTimeout",
    "bodyRate",
    "maxConnections",
    "connectionsPerIp",
    "noWorkerWait",
    "maxWaiting",
    "idleLegs",
    "idleLegTimeout",
    "lingerBytes",
    "lingerTimeout",
    "learnedSids",
    "ipcMessageBytes",
    "ipcQueueBytes",
    "ipcHandlesInFlight",
];

/// The router peeks at heads with a fixed buffer of this size.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// Of one HTTP/2 connection at once.
const MAX_STREAMS: u64 = 1 << 16;

/// Below this a worker that collects garbage counts as hung.
const MIN_HUNG: u64 = 100;

/// What Node's own messages need.
const MIN_IPC: u64 = 64 * 1024;
const MAX_IPC: u64 = 1 << 30;

/// More would be no faster, and descriptors on their way count against a limit of the system.
const MAX_HANDLES: u64 = 64;

pub(super) fn read(key: &str, node: &Node, settings: &mut Settings, reader: &mut Reader<'_>) {
    let mut node_only = Vec::new();
    each(key, node, KEYS, reader, |known, written, node, reader| {
        note_node_only(known, written, node, &mut node_only);
        one(known, written, node, settings, &mut node_only, reader);
    });
    settings.node_only.append(&mut node_only);
    direct::check(settings, reader);
    let own = &settings.sundew;
    if own.hung_restart != 0 && own.hung_restart < own.hung_after {
        let message = format!(
            "`hungRestart` ({} ms) must be 0 or at least `hungAfter` ({} ms)",
            own.hung_restart, own.hung_after
        );
        let diagnostic = reader.about(key, node.at, message);
        reader.report.error(diagnostic);
    }
    if own.proxy_protocol != ProxyProtocol::Off && own.trusted_proxies.is_empty() {
        let message = "`proxyProtocol` needs `trustedProxies`: anybody could claim to be anybody else";
        let hint = "name the balancer there; \"0.0.0.0/0\" and \"::/0\" if nobody else can reach the port";
        let diagnostic = reader.about(key, node.at, message).hint(hint);
        reader.report.error(diagnostic);
    }
    if own.limits.ipc_queue_bytes < own.limits.ipc_message_bytes {
        let message = format!(
            "`ipcQueueBytes` ({}) must be at least `ipcMessageBytes` ({}): one message has to fit",
            own.limits.ipc_queue_bytes, own.limits.ipc_message_bytes
        );
        let diagnostic = reader.about(key, node.at, message);
        reader.report.error(diagnostic);
    }
}

fn note_node_only(known: &str, written: &str, node: &Node, list: &mut Vec<Given<()>>) {
    if NODE_ONLY.contains(&known) {
        list.push(Given { value: (), key: written.to_owned(), at: node.at });
    }
}

fn one(
    known: &str,
    written: &str,
    node: &Node,
    settings: &mut Settings,
    node_only: &mut Vec<Given<()>>,
    reader: &mut Reader<'_>,
) {
    match known {
        "kind" => {
            let kinds =
                [("node", Kind::Node), ("port", Kind::Port), ("native", Kind::Native), ("none", Kind::None)];
            let kind = reader.word(written, node, &kinds, &[]);
            settings.kind = kind.map(|value| Given { value, key: written.to_owned(), at: node.at });
        }
        "preload" => put(&mut settings.sundew.preload, reader.boolean(written, node)),
        "serialization" => {
            let words = [("advanced", Serialization::Advanced), ("json", Serialization::Json)];
            settings.sundew.serialization = reader.word(written, node, &words, &[]).unwrap_or_default();
        }
        "port" => {
            let port = reader.count(written, node, 1, u64::from(u16::MAX));
            settings.sundew.port = port.and_then(|port| u16::try_from(port).ok());
        }
        "hungAfter" => put(&mut settings.sundew.hung_after, reader.time(written, node, MIN_HUNG)),
        "hungRestart" => put(&mut settings.sundew.hung_restart, reader.time(written, node, 0)),
        "affinity" => {
            let words = [("sid", Affinity::Sid), ("ip", Affinity::Ip), ("none", Affinity::None)];
            settings.sundew.affinity = reader.word(written, node, &words, &[]).unwrap_or_default();
        }
        "balance" => {
            let words = [
                ("least-sessions", Balance::LeastSessions),
                ("ip-hash", Balance::IpHash),
                ("round-robin", Balance::RoundRobin),
                ("random", Balance::Random),
            ];
            settings.sundew.balance = reader.word(written, node, &words, &[]).unwrap_or_default();
        }
        "drainTimeout" => put(&mut settings.sundew.drain_timeout, reader.time(written, node, 0)),
        "letGo" => each(written, node, LET_GO, reader, |known, written, node, reader| {
            let let_go = &mut settings.sundew.let_go;
            match known {
                "batch" => {
                    let batch = reader.count(written, node, 1, u64::from(u32::MAX));
                    put(&mut let_go.batch, batch.and_then(|batch| u32::try_from(batch).ok()));
                }
                _ => put(&mut let_go.pause_ms, reader.time(written, node, 0)),
            }
        }),
        "direct" => direct::direct(written, node, settings, reader),
        "route" => direct::route(written, node, settings, reader),
        "tls" => settings.tls = tls::read(written, node, reader),
        "requestId" => put(&mut settings.sundew.request_id, reader.boolean(written, node)),
        "accessLog" => {
            let words = [
                ("json", AccessFormat::Json),
                ("combined", AccessFormat::Combined),
                ("false", AccessFormat::Off),
            ];
            put(&mut settings.sundew.access_log, reader.word(written, node, &words, &[]));
        }
        "accessLogFile" => settings.access_log_file = reader.text(written, node),
        "hosts" => put(&mut settings.sundew.hosts, hosts(written, node, reader)),
        "prefix" => put(&mut settings.sundew.prefix, paths(written, node, reader)),
        "paths" => put(&mut settings.sundew.paths, paths(written, node, reader)),
        "trustedProxies" => put(&mut settings.sundew.trusted_proxies, proxies(written, node, reader)),
        "forwardedHeader" => {
            let words = [
                ("x-forwarded-for", ForwardedHeader::XForwardedFor),
                ("forwarded", ForwardedHeader::Forwarded),
                ("none", ForwardedHeader::None),
            ];
            put(&mut settings.sundew.forwarded_header, reader.word(written, node, &words, &[]));
        }
        "proxyProtocol" => {
            let words = [
                ("off", ProxyProtocol::Off),
                ("accept", ProxyProtocol::Accept),
                ("require", ProxyProtocol::Require),
            ];
            put(&mut settings.sundew.proxy_protocol, reader.word(written, node, &words, &[]));
        }
        _ => {
            let limits = &mut settings.sundew.limits;
            each(written, node, LIMITS, reader, |known, written, node, reader| {
                note_node_only(known, written, node, node_only);
                limit(limits, known, written, node, reader);
            });
        }
    }
}

fn limit(limits: &mut Limits, key: &str, written: &str, node: &Node, reader: &mut Reader<'_>) {
    let count = |reader: &mut Reader<'_>, least| reader.count(written, node, least, u64::MAX);
    match key {
        "headBytes" => put(&mut limits.head_bytes, reader.size(written, node, 1024, MAX_HEAD_BYTES)),
        "headTimeout" => put(&mut limits.head_timeout, reader.time(written, node, 1)),
        "handshakeTimeout" => put(&mut limits.handshake_timeout, reader.time(written, node, 1)),
        "h2Streams" => put(&mut limits.h2_streams, reader.count(written, node, 1, MAX_STREAMS)),
        "idleTimeout" => put(&mut limits.idle_timeout, reader.time(written, node, 1)),
        "stallTimeout" => put(&mut limits.stall_timeout, reader.time(written, node, 1)),
        "bodyTimeout" => put(&mut limits.body_timeout, reader.time(written, node, 1)),
        "bodyRate" => put(&mut limits.body_rate, reader.size(written, node, 0, u64::MAX)),
        "maxConnections" => put(&mut limits.max_connections, count(reader, 1)),
        "connectionsPerIp" => {
            let count = reader.count(written, node, 0, u64::from(u32::MAX));
            put(&mut limits.connections_per_ip, count.and_then(|count| u32::try_from(count).ok()));
        }
        "noWorkerWait" => put(&mut limits.no_worker_wait, reader.time(written, node, 0)),
        "maxWaiting" => put(&mut limits.max_waiting, count(reader, 0)),
        "idleLegs" => put(&mut limits.idle_legs, count(reader, 0)),
        "idleLegTimeout" => put(&mut limits.idle_leg_timeout, reader.time(written, node, 0)),
        "lingerBytes" => put(&mut limits.linger_bytes, reader.size(written, node, 0, u64::MAX)),
        "learnedSids" => put(&mut limits.learned_sids, count(reader, 1)),
        "ipcMessageBytes" => {
            put(&mut limits.ipc_message_bytes, reader.size(written, node, MIN_IPC, MAX_IPC));
        }
        "ipcQueueBytes" => put(&mut limits.ipc_queue_bytes, reader.size(written, node, MIN_IPC, MAX_IPC)),
        "ipcHandlesInFlight" => {
            put(&mut limits.ipc_handles_in_flight, reader.count(written, node, 1, MAX_HANDLES));
        }
        _ => put(&mut limits.linger_timeout, reader.time(written, node, 0)),
    }
}

/// Names as they come in a request, in lower case.
fn hosts(key: &str, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let hosts = reader.list(key, node)?;
    let is_name = |host: &str| {
        let name = host.strip_prefix("*.").unwrap_or(host);
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte))
            && (!name.contains(':') || name.starts_with('['))
    };
    let Some(wrong) = hosts.iter().find(|host| !is_name(host)) else {
        return Some(hosts.iter().map(|host| host.to_ascii_lowercase()).collect());
    };
    let message = format!("{wrong:?} in `{key}` is not a host: a name without port, or \"*.\" and a name");
    let diagnostic = reader.about(key, node.at, message);
    reader.report.error(diagnostic);
    None
}

fn paths(key: &str, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let paths = reader.list(key, node)?;
    let wrong = paths.iter().find(|path| !path.starts_with('/') || path.contains(['?', '#']));
    let Some(wrong) = wrong else { return Some(paths) };
    let message = format!("{wrong:?} in `{key}` is not a path: it must start with / and have no query");
    let diagnostic = reader.about(key, node.at, message);
    reader.report.error(diagnostic);
    None
}

fn proxies(key: &str, node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let entries = reader.list(key, node)?;
    let wrong = TrustedProxies::parse(&entries).err();
    let Some(BadProxy(wrong)) = wrong else { return Some(entries) };
    let message = format!("{wrong:?} in `{key}` is neither an address nor a network");
    let hint = "write 10.0.0.1, 10.0.0.0/8, 2001:db8::/32, loopback, private or unix";
    let diagnostic = reader.about(key, node.at, message).hint(hint);
    reader.report.error(diagnostic);
    None
}

/// What was not readable has been reported and leaves the default.
pub(super) fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Calls `set` for each known key of an object, by its name here and its name there. Both spellings are known.
pub(super) fn each(
    key: &str,
    node: &Node,
    known: &'static [&'static str],
    reader: &mut Reader<'_>,
    mut set: impl FnMut(&str, &str, &Node, &mut Reader<'_>),
) {
    let Value::Object(properties) = &node.value else {
        let message = format!("`{key}` must be an object, not {}", node.shown());
        let diagnostic =
            reader.about(key, node.at, message).hint(format!("its keys are {}", known.join(", ")));
        reader.report.error(diagnostic);
        return;
    };
    for property in properties {
        let Property { name, node, .. } = property;
        if matches!(node.value, Value::Null) {
            continue;
        }
        match known.iter().find(|known| **known == *name || **known == keys::camel(name)) {
            Some(known) => set(known, &format!("{key}.{name}"), node, reader),
            None => unknown(property, keys::nearest(name, known).map(|near| (*near).to_owned()), reader),
        }
    }
}
