//! Keeps a link to one address: to know that the node there is alive, and to ask it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::core::Core;
use crate::seal::{self, SealError, Sealed};
use crate::table::{Asked, Met};
use crate::wire::{Hello, Identity, Reply, Request};

/// Questions that wait for a node. One more counts as not answered.
const QUESTIONS: usize = 1024;

/// A link while it is up.
struct Up {
    number: u8,
    run: String,
    link: mpsc::Sender<Asked>,
}

/// Keeps the link as long as the address is wanted.
pub(crate) async fn keep(core: Arc<Core>, addr: String) {
    let mut up: Option<Up> = None;
    let mut told = String::new();
    let limits = core.config.limits.clone();
    // A node that is known gets less time to answer once more: who waits for it has waited long. Not too little, though:
    // to call a busy node lost ends every session that is relayed to it.
    let patience = |up: &Option<Up>| match up {
        Some(_) => limits.connect_timeout().min(limits.expiry()),
        None => limits.connect_timeout(),
    };
    loop {
        let again = match meet(&core, &addr, patience(&up)).await {
            Ok((sealed, identity)) => match known(&core, &addr, &identity, &mut up) {
                Ok(None) => return,
                Ok(Some(asked)) => {
                    told.clear();
                    let number = up.as_ref().map_or(0, |up| up.number);
                    let since = Instant::now();
                    converse(&core, sealed, number, asked).await;
                    // One that is cut as soon as it is there would be made anew without end.
                    since.elapsed() > limits.heartbeat()
                }
                Err(trouble) => {
                    tell(&mut told, &trouble, |trouble| tracing::error!(addr, "{trouble}"));
                    false
                }
            },
            Err(error) => {
                let text = error.to_string();
                match error {
                    SealError::Stranger => {
                        tell(&mut told, &text, |text| tracing::error!(addr, "cannot talk to a node: {text}"));
                    }
                    _ => tell(&mut told, &text, |text| tracing::info!(addr, "cannot reach a node: {text}")),
                }
                false
            }
        };
        if again {
            // A new connection tells whether the node is still there: until then, its legs live on.
            if let Some(up) = &up {
                core.table.lost(up.number, &up.link);
            }
            continue;
        }
        down(&core, &addr, up.take());
        if !core.is_wanted(&addr) {
            return;
        }
        tokio::time::sleep(limits.heartbeat()).await;
    }
}

/// Says something once, not at each try.
fn tell(told: &mut String, text: &str, say: impl FnOnce(&str)) {
    if told != text {
        say(text);
        text.clone_into(told);
    }
}

fn down(core: &Core, addr: &str, up: Option<Up>) {
    let Some(up) = up else { return };
    if core.table.lost(up.number, &up.link) {
        core.doors.down(up.number);
        tracing::warn!(node = up.number, addr, "a node cannot be reached: its sessions are unknown here");
    }
}

/// Connects, and finds out who is there.
pub(crate) async fn meet(
    core: &Core,
    addr: &str,
    patience: Duration,
) -> Result<(Sealed, Identity), SealError> {
    let mut sealed = seal::connect(addr, &core.link_key, patience, core.config.limits.expiry()).await?;
    sealed.say(&Hello::Control(core.me())).await?;
    let welcome = timeout(patience, sealed.hear()).await;
    match welcome.map_err(|_| SealError::Timeout)?? {
        Reply::Welcome(identity) => Ok((sealed, identity)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

/// Enters who is there. None: it is this node itself.
fn known(
    core: &Core,
    addr: &str,
    identity: &Identity,
    up: &mut Option<Up>,
) -> Result<Option<mpsc::Receiver<Asked>>, String> {
    let me = core.me();
    if identity.run == me.run {
        return Ok(None);
    }
    let Some(number) = identity.number else { return Err("it has no number yet".to_owned()) };
    if Some(number) == me.number {
        return Err(format!(
            "the node at {addr} has the number {number} too, which is this one's: every node needs its own (`node`)"
        ));
    }
    if let Some(expected) = core.expected(addr).filter(|expected| *expected != number) {
        return Err(format!(
            "the node at {addr} says it is number {number}, here it is number {expected}: \
             the list in `registry` has to be the same on every node, in the same order"
        ));
    }
    let (link, asked) = mpsc::channel(QUESTIONS);
    // By the address it was found at: that one works from here.
    let at = Identity { addr: addr.to_owned(), ..identity.clone() };
    if let Met::Taken(by) = core.table.met(number, &at, link.clone()) {
        return Err(format!(
            "the nodes at {addr} and {by} both say they are number {number}: every node needs its own (`node`)"
        ));
    }
    let same = up.as_ref().is_some_and(|up| up.number == number && up.run == identity.run);
    if !same {
        if let Some(before) = up.take().filter(|before| before.number != number) {
            down(core, addr, Some(before));
        }
        core.doors.up(number, core.way(addr));
        tracing::info!(node = number, addr, "a node can be reached");
    }
    *up = Some(Up { number, run: identity.run.clone(), link });
    Ok(Some(asked))
}

/// Asks what is to be asked, and for a sign of life in between, until the connection is cut or there is none for too long.
async fn converse(core: &Core, mut sealed: Sealed, number: u8, mut asked: mpsc::Receiver<Asked>) {
    let limits = &core.config.limits;
    let mut beat = interval(limits.heartbeat());
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = Vec::new();
    let mut open: HashMap<u64, (mpsc::Sender<(u8, bool)>, Instant)> = HashMap::new();
    let mut heard = Instant::now();
    loop {
        let said = tokio::select! {
            reply = sealed.hear_any(&mut buffer) => match reply {
                Ok(reply) => {
                    heard = Instant::now();
                    core.table.heard(number);
                    if let Reply::Has { ask, yes } = reply
                        && let Some((answer, _)) = open.remove(&ask)
                    {
                        let _ = answer.try_send((number, yes));
                    }
                    continue;
                }
                Err(_) => return,
            },
            question = asked.recv() => {
                let Some(Asked { request, answer }) = question else { return };
                if let Request::Has { ask, .. } = &request {
                    open.insert(*ask, (answer, Instant::now()));
                }
                timeout(limits.expiry(), sealed.say(&request)).await
            }
            _ = beat.tick() => {
                if heard.elapsed() > limits.expiry() {
                    return;
                }
                let patience = limits.ask_timeout();
                open.retain(|_, (_, since)| since.elapsed() < patience);
                timeout(limits.expiry(), sealed.say(&Request::Ping)).await
            }
        };
        if !matches!(said, Ok(Ok(()))) {
            return;
        }
    }
}
