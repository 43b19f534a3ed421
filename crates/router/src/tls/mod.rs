//! TLS that ends at the front door.
//!
//! After the handshake a connection is served as any other: [`Session`] is what a client's socket then reads and writes
//! through, so that requests are peeked, routed and answered by the same code. What cannot be done is to give such a
//! socket away: a websocket's worker gets one end of a pair, and the other end is relayed for as long as it lives. HTTP/2
//! is translated (`h2`).
//!
//! - `certificates`: what is proved to clients, and how it is replaced while connections come in.
//! - `session`: the encrypted side of a connection.
//! - `h2`: the requests of an HTTP/2 connection.

mod certificates;
mod h2;
mod session;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::accept::Counted;
use crate::backend::Leg;
use crate::client::Client;
use crate::connection;
use crate::front::Shared;
use crate::http::answer::Answer;
use crate::members::Member;
use crate::proxy;

pub use certificates::{CertificateError, Certificates};
pub(crate) use session::Session;

use certificates::Shown;

const H2: &[u8] = b"h2";
/// The first byte of a TLS connection.
const HANDSHAKE: [u8; 1] = [0x16];

/// What a listening socket proves to its clients. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
}

impl Tls {
    /// With these certificates. Sessions can be resumed by ticket, under keys that live as long as this and never leave
    /// the process.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(certificates: Certificates) -> Result<Self, CertificateError> {
        let shown = Arc::new(Shown::new(certificates));
        let config = certificates::config(shown.clone(), vec![H2.to_vec(), b"http/1.1".to_vec()])?;
        Ok(Self { config: Arc::new(config), shown })
    }

    /// New connections are shown these from now on. Those that exist go on.
    pub fn replace(&self, certificates: Certificates) {
        self.shown.replace(certificates);
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Tls {}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Serves a connection, from its handshake to its end.
pub(crate) async fn serve(held: Counted, client: Client, tls: Tls) {
    let Ok((stream, peer)) = client.into_tcp() else { return };
    let Some(stream) = handshake(&held.shared, stream, &tls).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(H2) {
        return h2::serve(held, stream, peer).await;
    }
    let (stream, session) = stream.into_inner();
    let client = Client::encrypted(Leg::Tcp(stream), peer, Session::new(session));
    // On its own: a handshake's state is not kept for as long as the connection lives.
    tokio::spawn(connection::serve(held, client, None, 0));
}

async fn handshake(shared: &Shared, stream: TcpStream, tls: &Tls) -> Option<TlsStream<TcpStream>> {
    let accepted = async {
        // Most often a browser that was given http:// for https://. To be found out before an alert is sent.
        let mut first = [0];
        if !matches!(stream.peek(&mut first).await, Ok(1..)) {
            return None;
        }
        if first != HANDSHAKE {
            shared.counters.rejected_tls.add();
            let mut client = Client::watched_one(Leg::Tcp(stream), None);
            connection::refuse(&mut client, Answer::NotTls);
            return None;
        }
        match TlsAcceptor::from(tls.config.clone()).accept(stream).await {
            Ok(stream) => {
                shared.counters.tls.add();
                Some(stream)
            }
            Err(error) => {
                shared.counters.rejected_tls.add();
                tracing::debug!(app = shared.config.app, %error, "a TLS handshake failed");
                None
            }
        }
    };
    let handshake = tokio::time::timeout(shared.config.limits.handshake_timeout, accepted).await;
    handshake.unwrap_or_else(|_| {
        shared.counters.rejected_tls.add();
        None
    })
}

/// Gives what a worker takes of an encrypted connection: one end of a pair, with what was looked at in it. The other end
/// is relayed from now on.
pub(crate) fn hand_over(shared: &Arc<Shared>, mut client: Client, member: &Member) -> io::Result<OwnedFd> {
    let (ours, theirs) = member.backend.pair()?;
    let seen = client.take_seen();
    // A new pair has more room than the longest head.
    if ours.write(&seen)? < seen.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    shared.counters.tls_relayed.add();
    let held = Counted::new(shared);
    tokio::spawn(async move {
        let limits = &held.shared.config.limits;
        proxy::relay(&mut client, &ours, limits.stall_timeout).await;
        client.finish(limits.linger_timeout).await;
    });
    Ok(theirs)
}
