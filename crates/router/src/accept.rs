//! Accepts connections: one loop per listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::connection;
use crate::front::Shared;

/// How long to wait when there are no descriptors left: accepting at once would fail again, and spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks for idle legs, at least.
const MIN_SWEEP: Duration = Duration::from_secs(1);
/// A client that vanished without a word is found after this long, and three probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A listening socket being served. Dropped, it goes on being served.
#[derive(Debug)]
pub struct ListenerHandle {
    task: JoinHandle<()>,
    local: SocketAddr,
}

impl ListenerHandle {
    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts no further connection and closes the socket, unless somebody else holds it too. The connections that
    /// exist go on.
    pub fn stop(&self) {
        self.task.abort();
    }
}

pub(crate) fn listen(shared: &Arc<Shared>, listener: TcpListener) -> io::Result<ListenerHandle> {
    listener.set_nonblocking(true)?;
    // What is set here is inherited by every connection: no system call for each.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    rustix::net::sockopt::set_socket_keepalive(&listener, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&listener, KEEPALIVE_AFTER)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let local = listener.local_addr()?;
    let task = tokio::spawn(accept(shared.clone(), listener));
    Ok(ListenerHandle { task, local })
}

async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    let limits = &shared.config.limits;
    let mut sweep = tokio::time::interval((limits.idle_leg_timeout / 2).max(MIN_SWEEP));
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = sweep.tick() => {
                shared.members.sweep(limits.idle_leg_timeout);
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                exhausted = false;
                serve(&shared, stream, peer);
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // Once per time it happens, not once per connection.
                    if !std::mem::replace(&mut exhausted, true) {
                        tracing::warn!(app = shared.config.app, %error, "cannot accept connections for now: raise the limit of open files (ulimit -n)");
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The client was gone before we looked (and the other passing errors of accept(2)).
                _ => {
                    tracing::debug!(app = shared.config.app, %error, "a connection failed before it was accepted")
                }
            },
        }
    }
}

fn serve(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    shared.counters.accepted.add();
    let before = shared.connections.fetch_add(1, Ordering::Relaxed);
    let guard = Counted(shared.clone());
    if before >= shared.config.limits.max_connections {
        shared.counters.rejected_connections.add();
        connection::refuse(&stream);
        return;
    }
    tokio::spawn(connection::serve(guard, stream, Some(peer)));
}

/// A connection that counts as held.
pub(crate) struct Counted(pub(crate) Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
