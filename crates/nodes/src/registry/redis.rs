//! Entries in Redis or Valkey: one hash for the cluster, a field per number. Each node writes its own at every heartbeat,
//! by a script that also reads all the others': one round trip, and no two nodes can take one number at once.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Script};
use serde::Deserialize;

use crate::config::{ClusterConfig, Limits};
use crate::core::{Core, Found};
use crate::keep;
use sundew_channel::tag::MAX_NODE;

/// KEYS: the hash. ARGV: number (empty: only look), id, run, addr, the id that may be replaced, milliseconds to keep.
const BEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local taken = ''
if ARGV[1] ~= '' then
    local there = redis.call('HGET', KEYS[1], ARGV[1])
    local id = there and cjson.decode(there).id
    if not there or id == ARGV[2] or id == ARGV[5] then
        local entry = cjson.encode({ id = ARGV[2], run = ARGV[3], addr = ARGV[4], seen = now })
        redis.call('HSET', KEYS[1], ARGV[1], entry)
        redis.call('PEXPIRE', KEYS[1], ARGV[6])
    else
        taken = there
    end
end
return { now, taken, redis.call('HGETALL', KEYS[1]) }
";

/// KEYS: the hash. ARGV: number, run.
const LEAVE: &str = r"
local there = redis.call('HGET', KEYS[1], ARGV[1])
if there and cjson.decode(there).run == ARGV[2] then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
";

/// The whole hash is forgotten when nobody has written to it for this long, in milliseconds.
const KEPT: u64 = 30 * 24 * 3600 * 1000;

/// A node's entry.
#[derive(Debug, Clone, Deserialize)]
struct Entry {
    id: String,
    addr: String,
    /// Milliseconds since 1970, by the clock of Redis.
    seen: String,
}

/// What a heartbeat gave.
struct Beat {
    now: u64,
    /// Who has the number.
    taken: Option<Entry>,
    entries: Vec<(u8, Entry)>,
}

impl Beat {
    fn age(&self, entry: &Entry) -> u64 {
        self.now.saturating_sub(entry.seen.parse().unwrap_or(0))
    }
}

/// The registry in Redis.
pub(crate) struct Redis {
    client: Client,
    shown: String,
    connection: Option<MultiplexedConnection>,
    beat: Script,
    hash: String,
    patience: Duration,
}

/// Host and port of a URL.
pub(crate) fn host(url: &str) -> Option<String> {
    use redis::IntoConnectionInfo as _;
    let info = url.into_connection_info().ok()?;
    match info.addr() {
        redis::ConnectionAddr::Tcp(host, port) => Some(format!("{host}:{port}")),
        redis::ConnectionAddr::TcpTls { host, port, .. } => Some(format!("{host}:{port}")),
        _ => None,
    }
}

impl Redis {
    pub(crate) fn new(url: &str, config: &ClusterConfig) -> Result<Self, String> {
        if url.starts_with("rediss://") {
            // Somebody else may have chosen before: theirs is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let shown = config.registry.to_string();
        let client =
            Client::open(url).map_err(|error| format!("`registry` is no URL of a Redis server: {error}"))?;
        Ok(Self {
            client,
            shown,
            connection: None,
            beat: Script::new(BEAT),
            // One slot of a Redis cluster.
            hash: format!("sundew:{{{}}}:nodes", config.name),
            patience: config.limits.expiry().min(config.limits.registry_wait()),
        })
    }

    async fn connection(&mut self) -> redis::RedisResult<MultiplexedConnection> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let patience = Some(self.patience);
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(patience).set_response_timeout(patience);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    async fn beat(&mut self, core: &Core, number: Option<u8>, over: &str) -> Result<Beat, String> {
        let me = core.me();
        let beat = async {
            let mut connection = self.connection().await?;
            let mut call = self.beat.key(&self.hash);
            call.arg(number.map(|number| number.to_string()).unwrap_or_default());
            call.arg(&me.id).arg(&me.run).arg(&me.addr).arg(over).arg(KEPT);
            call.invoke_async::<(String, String, Vec<(String, String)>)>(&mut connection).await
        };
        let result = beat.await;
        let (now, taken, entries) = result.map_err(|error: redis::RedisError| {
            // A new connection next time.
            self.connection = None;
            format!("the registry {} cannot be used: {error}", self.shown)
        })?;
        let entry = |text: &str| serde_json::from_str::<Entry>(text).ok();
        let entries = entries.iter().filter_map(|(number, text)| Some((number.parse().ok()?, entry(text)?)));
        Ok(Beat { now: now.parse().unwrap_or(0), taken: entry(&taken), entries: entries.collect() })
    }

    pub(crate) async fn join(&mut self, core: &Arc<Core>, before: Option<u8>) -> Result<u8, String> {
        for _ in 0..=MAX_NODE {
            let there = match self.beat(core, None, "").await {
                Ok(there) => there,
                Err(trouble) => {
                    let known = core.config.node.or(before);
                    return known.inspect(|_| tracing::warn!("{trouble}. Starting without it")).ok_or_else(|| {
                        format!("{trouble}. A node that joins for the first time needs it, unless `node` gives its number")
                    });
                }
            };
            let (number, over) = choose(core, &there, before).await?;
            if self.beat(core, Some(number), &over).await?.taken.is_none() {
                return Ok(number);
            }
            // Somebody was faster.
        }
        Err("cannot get a number in the registry: too many nodes start at once".to_owned())
    }

    pub(crate) async fn refresh(&mut self, core: &Arc<Core>) -> Result<Vec<Found>, String> {
        let me = core.me();
        let beat = self.beat(core, me.number, "").await?;
        if let Some(other) = &beat.taken {
            return Err(format!(
                "in the registry the number {} belongs to the node at {}: restart this one, or give it another `node`",
                me.number.unwrap_or_default(),
                other.addr
            ));
        }
        let Limits { hold_ms, .. } = core.config.limits;
        let living = beat.entries.iter().filter(|(_, entry)| entry.id != me.id && beat.age(entry) < hold_ms);
        Ok(living.map(|(number, entry)| Found { addr: entry.addr.clone(), number: Some(*number) }).collect())
    }

    pub(crate) async fn leave(&mut self, core: &Arc<Core>) {
        let me = core.me();
        let leave = async {
            let mut connection = self.connection().await?;
            let script = Script::new(LEAVE);
            let mut call = script.key(&self.hash);
            call.arg(me.number.unwrap_or_default().to_string()).arg(&me.run);
            call.invoke_async::<()>(&mut connection).await
        };
        if let Err(error) = leave.await {
            tracing::debug!(%error, "cannot leave the registry");
        }
    }
}

/// Chooses a number nobody has who is alive, and whose entry it takes over.
async fn choose(core: &Arc<Core>, there: &Beat, before: Option<u8>) -> Result<(u8, String), String> {
    let me = core.me();
    let entry = |number: u8| there.entries.iter().find(|(of, _)| *of == number).map(|(_, entry)| entry);
    if let Some((number, mine)) = there.entries.iter().find(|(_, entry)| entry.id == me.id) {
        let twin = there.age(mine) < core.config.limits.expiry_ms && mine.addr != me.addr;
        if twin && answers(core, mine).await {
            return Err(format!(
                "another daemon has this one's identity, at {}: was its folder copied? Remove cluster.json from one of them",
                mine.addr
            ));
        }
        if core.config.node.is_none_or(|node| node == *number) {
            return Ok((*number, String::new()));
        }
    }
    if let Some(node) = core.config.node {
        let Some(other) = entry(node).filter(|other| other.id != me.id) else {
            return Ok((node, String::new()));
        };
        if there.age(other) < core.config.limits.expiry_ms || answers(core, other).await {
            return Err(format!(
                "`node` is {node}, which is the number of the node at {}: give this one another, or none",
                other.addr
            ));
        }
        return Ok((node, other.id.clone()));
    }
    let free = before.into_iter().chain(0..=MAX_NODE).find(|number| entry(*number).is_none());
    if let Some(free) = free {
        return Ok((free, String::new()));
    }
    let mut old: Vec<_> =
        there.entries.iter().filter(|(_, entry)| there.age(entry) > core.config.limits.hold_ms).collect();
    old.sort_by_key(|(_, entry)| std::cmp::Reverse(there.age(entry)));
    for (number, entry) in old {
        // Cut off from the registry is not dead.
        if !answers(core, entry).await {
            return Ok((*number, entry.id.clone()));
        }
    }
    Err(format!(
        "all {} numbers belong to nodes that are alive, or were within cluster.limits.hold",
        u16::from(MAX_NODE) + 1
    ))
}

/// Whether the node of an entry is alive, and still that one.
async fn answers(core: &Arc<Core>, entry: &Entry) -> bool {
    let met = keep::meet(core, &entry.addr, core.config.limits.connect_timeout()).await;
    met.is_ok_and(|(_, identity)| identity.id == entry.id && identity.run != core.me().run)
}
