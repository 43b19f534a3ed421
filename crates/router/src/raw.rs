//! Connections that are handed over whole, without a byte of them being looked at: TLS that ends in the worker, and what
//! is no HTTP at all. Who speaks first does not matter here.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::accept::Counted;
use crate::backend::{BackendId, HandOff};
use crate::client::Client;
use crate::config::Affinity;
use crate::direct;
use crate::front::Shared;
use crate::pick::Wanted;

/// Between two looks whether a worker that could not take a connection now can.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Hands a connection over.
pub(crate) fn serve(held: Counted, client: Client) {
    let (peer, told) = (client.peer(), client.other_than_socket());
    let Ok(socket) = client.into_fd() else { return };
    let at = held.at.clone();
    place(held, HandOff { raw: true, told, at, ..HandOff::new(socket, peer, true) }, None);
}

/// Hands a connection over that a worker gave back.
pub(crate) fn reroute(held: Counted, connection: HandOff, except: Option<BackendId>) {
    if has_ended(&connection.socket) {
        return;
    }
    held.shared.counters.rerouted.add();
    place(held, connection, except);
}

/// The client is gone, as far as can be told without waiting.
fn has_ended(socket: &OwnedFd) -> bool {
    use rustix::io::Errno;
    use rustix::net::{RecvFlags, recv};
    match recv(socket, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, length)) => length == 0,
        Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
    }
}

fn place(held: Counted, connection: HandOff, except: Option<BackendId>) {
    let mut tried: Vec<BackendId> = except.into_iter().collect();
    if let Some(connection) = try_all(&held.shared, connection, &mut tried) {
        tokio::spawn(wait(held, connection, except));
    }
}

/// Tries one worker after the other. The connection comes back when none takes it.
fn try_all(shared: &Shared, mut connection: HandOff, tried: &mut Vec<BackendId>) -> Option<HandOff> {
    let ip = connection.peer.map(|peer| peer.ip());
    loop {
        let member = match (connection.at.slot, shared.config.affinity) {
            (Some(slot), _) => direct::place(shared, slot, Wanted::Session, ip, tried),
            (None, Affinity::Ip) => shared.picker.by_address(&shared.members, ip, tried, false),
            _ => shared.picker.place(&shared.members, Wanted::Session, ip, tried),
        };
        let Some(member) = member else { return Some(connection) };
        member.place();
        match member.hand_over(connection) {
            Ok(()) => {
                shared.counters.raw.add();
                return None;
            }
            Err(back) => {
                member.unplace();
                tried.push(member.id);
                connection = back;
            }
        }
    }
}

/// Tries again until a worker takes the connection, for a bounded time. Then it is closed: there is no way to say why.
async fn wait(held: Counted, mut connection: HandOff, except: Option<BackendId>) {
    let shared = &held.shared;
    let limits = &shared.config.limits;
    let _waiting = match Waiting::begin(shared) {
        Some(waiting) => waiting,
        None => return shared.counters.rejected_no_worker.add(),
    };
    let deadline = Instant::now() + limits.no_worker_wait;
    let mut tried: Vec<BackendId> = Vec::new();
    loop {
        if !shared.members.wait(deadline).await || Instant::now() >= deadline {
            return shared.counters.rejected_no_worker.add();
        }
        tokio::time::sleep(BUSY_PAUSE).await;
        tried.clear();
        tried.extend(except);
        match try_all(shared, connection, &mut tried) {
            None => return,
            Some(back) => connection = back,
        }
    }
}

/// One that waits for a worker.
pub(crate) struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    /// None when as many wait as may.
    pub(crate) fn begin(shared: &'a Shared) -> Option<Self> {
        let waiting = Self(shared);
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        (before < shared.config.limits.max_waiting).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
