//! The UDP port, and how much QUIC may hold for a connection on it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::server::NoServerSessionStorage;
use web_transport_quinn::ALPN;
use web_transport_quinn::quinn::crypto::rustls::QuicServerConfig;
use web_transport_quinn::quinn::{
    Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};

use super::certificate::{Certificate, Shown, provider};
use crate::config::LONGEST;

/// Streams of the client: the one of its request, and the session's.
const BIDI_STREAMS: u32 = 2;
/// HTTP/3's own (control, two of QPACK), and room for those that are there to be ignored.
const UNI_STREAMS: u32 = 8;
/// What the connection may hold beside the session's stream.
const OTHER_STREAMS: usize = 64 * 1024;
/// The least silence after which a peer is asked for a sign of life. The answer takes a while, and is asked for again
/// until it comes.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
/// Browsers want datagrams to be there. Nobody reads them, and the oldest go.
const DATAGRAMS: usize = 4096;

/// What QUIC may hold for a connection, and how long it waits. Timeouts and limits of sessions are the engine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How many connections may be there that have not opened a session yet; more are refused. From half of it on, clients
    /// have to prove their addresses first. Default 1,000.
    pub max_pending: usize,
    /// How many bytes of the session's stream may wait for being read. What one sends at once over a distance, it sends
    /// within this: 512 KiB in 100 ms are 5 MB/s. Default 512 KiB.
    pub receive_window: usize,
    /// How many bytes may be on their way to the client, sent and not acknowledged. They are kept here, beside
    /// [`max_queued_bytes`](crate::Config::max_queued_bytes). Default 512 KiB.
    pub send_window: usize,
    /// When a connection is given up that nothing comes from. Clients have one of their own, and the shorter one counts;
    /// with the heartbeat in its default, that comes first. At least 1 ms: none at all would leave it to the client alone
    /// when one that has vanished is given up. Default 60 s.
    pub idle_timeout: Duration,
    /// After how much silence the peer is asked for a sign of life, so that neither side's idle timeout (30 s in browsers)
    /// ends a session whose heartbeat is slower. Zero: never. From 1 s to 12 days; what is less or more counts as that. Default
    /// 15 s.
    pub keep_alive: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_pending: 1000,
            receive_window: 512 * 1024,
            send_window: 512 * 1024,
            idle_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// A UDP port with a certificate, for [`Engine::serve_webtransport`](crate::Engine::serve_webtransport). Cheap to clone, for
/// whoever replaces the certificate.
#[derive(Clone)]
pub struct Listener {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: ServerConfig,
    pub(crate) options: Options,
    shown: Arc<Shown>,
}

impl Listener {
    /// Binds `addr` (UDP). To be called inside a tokio runtime. Clients that come before it is served wait.
    ///
    /// # Errors
    /// The system's, or an option that QUIC cannot express, or [`Options::idle_timeout`] of less than a millisecond.
    pub fn bind(addr: SocketAddr, certificate: Certificate, options: Options) -> io::Result<Listener> {
        Listener::from_socket(UdpSocket::bind(addr)?, certificate, options)
    }

    /// The same, with a socket that is bound already.
    ///
    /// # Errors
    /// The same.
    pub fn from_socket(
        socket: UdpSocket,
        certificate: Certificate,
        options: Options,
    ) -> io::Result<Listener> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(io::Error::other("a WebTransport listener is made inside a tokio runtime"));
        }
        let shown = Arc::new(Shown::new(certificate));
        let config = config(shown.clone(), &options)?;
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(config.clone()), socket, Arc::new(TokioRuntime))?;
        Ok(Listener { endpoint, config, options, shown })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// What new connections are shown from now on: for certificates that are renewed.
    pub fn replace_certificate(&self, certificate: Certificate) {
        self.shown.replace(certificate);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("local_addr", &self.local_addr().ok())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn config(shown: Arc<Shown>, options: &Options) -> io::Result<ServerConfig> {
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(io::Error::other)?;
    let mut tls = builder.with_no_client_auth().with_cert_resolver(shown);
    tls.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    // A session's first flight could be replayed; and nothing is kept here for a client that may come back.
    tls.max_early_data_size = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(options)?));
    Ok(config)
}

fn transport(options: &Options) -> io::Result<TransportConfig> {
    let varint = |bytes: usize| VarInt::try_from(bytes as u64).map_err(io::Error::other);
    if options.idle_timeout.as_millis() == 0 {
        let message = "idle_timeout must be at least 1 ms: zero would mean never";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let keep_alive = options.keep_alive.clamp(SHORTEST_SILENCE, LONGEST);
    let idle_timeout = IdleTimeout::try_from(options.idle_timeout).map_err(io::Error::other)?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(BIDI_STREAMS.into())
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(varint(options.receive_window)?)
        .receive_window(varint(options.receive_window.saturating_add(OTHER_STREAMS))?)
        .send_window(options.send_window as u64)
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval((!options.keep_alive.is_zero()).then_some(keep_alive))
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS);
    Ok(transport)
}
