//! Reads the `sundew` object of an app: what pm2 has no key for.

use super::coerce::{Given, Reader};
use super::config::Kind;
use super::keys;
use super::node::{Node, Property, Value};
use super::options::{Affinity, Balance, Limits};
use super::settings::{Settings, unknown};

const KEYS: &[&str] = &["kind", "affinity", "balance", "drainTimeout", "letGo", "paths", "limits"];
const LET_GO: &[&str] = &["batch", "pause"];
const LIMITS: &[&str] = &[
    "headBytes",
    "headTimeout",
    "idleTimeout",
    "stallTimeout",
    "maxConnections",
    "noWorkerWait",
    "maxWaiting",
    "idleLegs",
    "idleLegTimeout",
    "lingerBytes",
    "lingerTimeout",
];

/// The router peeks at heads with a fixed buffer of this size.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

pub(super) fn read(key: &str, node: &Node, settings: &mut Settings, reader: &mut Reader<'_>) {
    each(key, node, KEYS, reader, |known, written, node, reader| match known {
        "kind" => {
            let kinds = [("native", Kind::Native), ("none", Kind::None)];
            let kind = reader.word(written, node, &kinds, &["node", "port"]);
            settings.kind = kind.map(|value| Given { value, key: written.to_owned(), at: node.at });
        }
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
        "paths" => put(&mut settings.sundew.paths, paths(written, node, reader)),
        _ => {
            let limits = &mut settings.sundew.limits;
            each(written, node, LIMITS, reader, |known, written, node, reader| {
                limit(limits, known, written, node, reader);
            });
        }
    });
}

fn limit(limits: &mut Limits, key: &str, written: &str, node: &Node, reader: &mut Reader<'_>) {
    let count = |reader: &mut Reader<'_>, least| reader.count(written, node, least, u64::MAX);
    match key {
        "headBytes" => put(&mut limits.head_bytes, reader.size(written, node, 1024, MAX_HEAD_BYTES)),
        "headTimeout" => put(&mut limits.head_timeout, reader.time(written, node, 1)),
        "idleTimeout" => put(&mut limits.idle_timeout, reader.time(written, node, 1)),
        "stallTimeout" => put(&mut limits.stall_timeout, reader.time(written, node, 1)),
        "maxConnections" => put(&mut limits.max_connections, count(reader, 1)),
        "noWorkerWait" => put(&mut limits.no_worker_wait, reader.time(written, node, 0)),
        "maxWaiting" => put(&mut limits.max_waiting, count(reader, 0)),
        "idleLegs" => put(&mut limits.idle_legs, count(reader, 0)),
        "idleLegTimeout" => put(&mut limits.idle_leg_timeout, reader.time(written, node, 0)),
        "lingerBytes" => put(&mut limits.linger_bytes, reader.size(written, node, 0, u64::MAX)),
        _ => put(&mut limits.linger_timeout, reader.time(written, node, 0)),
    }
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

/// What was not readable has been reported and leaves the default.
fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Calls `set` for each known key of an object, by its name here and its name there. Both spellings are known.
fn each(
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
