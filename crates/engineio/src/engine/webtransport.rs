//! WebTransport: what becomes of the connections on a UDP port.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;
use http::StatusCode;
use http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use web_transport_quinn::quinn::{Endpoint, Incoming, VarInt};

use super::Engine;
use super::requests::allowed;
use crate::proto::dialect::Dialect;
use crate::proto::request::ErrorCode;
use crate::proto::webtransport::Opening;
use crate::server::probe::{self, Begun, Probe};
use crate::server::task::SessionTask;
use crate::server::webtransport::handshake::{self, Opened};
use crate::server::webtransport::listener::Listener;
use crate::{Protocol, Transport};

/// How long connections may take to end once their sessions have.
const LAST_DATAGRAMS: Duration = Duration::from_secs(1);

/// The longest reason that the end of a session may have (draft-ietf-webtrans-http3, "Session Termination").
const MAX_REASON: usize = 1024;

/// Why WebTransport is not served, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The option leaves it out.
    #[error("the option `transports` does not include webtransport, so no client would come")]
    NotOffered,
    /// The port is gone: its socket failed, or somebody else has closed it.
    #[error("the UDP socket of WebTransport has failed")]
    Lost,
}

impl<P: Protocol> Engine<P> {
    /// Serves WebTransport on `listener`, until the engine is [closed](Engine::close): then no client is let in any more,
    /// those that are there get their last output within [`close_timeout`](crate::Config::close_timeout), and this
    /// returns. Dropped, it lets no client in either; sessions go on.
    ///
    /// A client opens one stream, and on it a session, or says which polling session is to move here. Sessions are as on
    /// every transport: `allow_request` and `generate_id` see the request (method CONNECT, its headers and the client's
    /// address), all limits hold. A client has [`upgrade_timeout`](crate::Config::upgrade_timeout) from its first datagram to
    /// its first packet.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve_webtransport(&self, listener: Listener) -> Result<(), ServeError> {
        if !self.config().transports.webtransport {
            return Err(ServeError::NotOffered);
        }
        let Listener { endpoint, config, options, .. } = listener;
        endpoint.set_server_config(Some(config));
        let served = Served(&endpoint);
        let places = Arc::new(Semaphore::new(options.max_pending.min(Semaphore::MAX_PERMITS)));
        // Connections outlast their sessions for the clients to hear of the end.
        let most = self.config().max_sessions.saturating_add(options.max_pending);
        loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming.ok_or(ServeError::Lost)?,
                () = self.closed() => break,
            };
            if endpoint.open_connections() >= most {
                self.not_met("too many connections");
                incoming.refuse();
                continue;
            }
            let crowded = places.available_permits() <= options.max_pending / 2;
            if crowded && !incoming.remote_address_validated() {
                // It comes again with a token, unless the address is not its own.
                let _ = incoming.retry();
                continue;
            }
            let Ok(place) = places.clone().try_acquire_owned() else {
                self.not_met("too many clients that have not opened a session");
                incoming.refuse();
                continue;
            };
            let engine = self.clone();
            let meet = async move { engine.meet(incoming, place).await };
            // One task after the other in the same place, as with websockets.
            tokio::spawn(Box::pin(meet).then(OptionFuture::from));
        }
        drop(served);
        let _ = timeout(self.config().close_timeout + LAST_DATAGRAMS, endpoint.wait_idle()).await;
        endpoint.close(VarInt::from_u32(0), b"");
        Ok(())
    }

    async fn closed(&self) {
        loop {
            let changed = self.changed();
            if self.is_closed() {
                return;
            }
            changed.await;
        }
    }

    fn is_closed(&self) -> bool {
        self.0.registry.is_closed()
    }

    /// A client that came to nothing before there was a request.
    fn not_met(&self, why: &'static str) {
        self.0.registry.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(reason = why, "a WebTransport client is refused");
    }

    /// From a client's first datagram to its session, whose task is returned.
    async fn meet(
        &self,
        incoming: Incoming,
        _place: OwnedSemaphorePermit,
    ) -> Option<SessionTask<P::Session>> {
        let until = Instant::now() + self.config().upgrade_timeout;
        let request = match timeout_at(until, handshake::request(incoming)).await {
            Ok(Some(request)) => request,
            Ok(None) => return None,
            Err(_) => {
                self.not_met("no request in time");
                return None;
            }
        };
        let Some(parts) = handshake::parts(&request) else {
            self.not_met("a request that cannot be read");
            handshake::refuse(request, StatusCode::BAD_REQUEST).await;
            return None;
        };
        let refusal = if !self.path_matches(parts.uri.path()) {
            Some((StatusCode::NOT_FOUND, "not the path of this server"))
        } else if self.is_closed() {
            Some((StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down"))
        } else {
            None
        };
        if let Some((status, why)) = refusal {
            self.count_refused(&parts, None, why);
            handshake::refuse(request, status).await;
            return None;
        }
        let opened = timeout_at(until, handshake::open(request, self.config())).await;
        let Some(Opened { opening, connection, session }) = opened.ok().flatten() else {
            let code = ErrorCode::BadRequest;
            self.count_refused(&parts, Some(code), code.message());
            return None;
        };
        // Said before the connection is dropped, which ends the session without a word.
        let refused = |parts: &Parts, code: Option<ErrorCode>, message: &str| {
            self.count_refused(parts, code, message);
            session.close(0, &message.as_bytes()[..message.floor_char_boundary(MAX_REASON)]);
        };
        match opening {
            Opening::New => tokio::select! {
                task = self.open_webtransport(parts, connection, refused) => task,
                // `allow_request` may take its time.
                _ = session.closed() => None,
            },
            Opening::Upgrade(sid) => {
                match self.0.registry.find(&sid) {
                    Some(shared) => {
                        let begun = Begun::new(&shared, Transport::WebTransport);
                        let probe = probe::run(shared, begun, connection, None);
                        tokio::spawn(probe);
                    }
                    None => refused(&parts, Some(ErrorCode::UnknownSid), ErrorCode::UnknownSid.message()),
                }
                None
            }
        }
    }

    async fn open_webtransport(
        &self,
        parts: Parts,
        connection: Probe,
        refused: impl Fn(&Parts, Option<ErrorCode>, &str),
    ) -> Option<SessionTask<P::Session>> {
        if let Some(allow) = &self.config().allow_request
            && let Err(message) = allowed(allow, &parts).await
        {
            let code = ErrorCode::Forbidden;
            let message = if message.is_empty() { code.message() } else { &message };
            refused(&parts, Some(code), message);
            return None;
        }
        // There is no router that sends clients elsewhere when this engine is drained.
        if self.is_closed() || self.0.registry.draining.load(Ordering::Relaxed) {
            refused(&parts, None, "the server is shutting down");
            return None;
        }
        if self.0.registry.len() >= self.config().max_sessions {
            refused(&parts, None, "too many sessions");
            return None;
        }
        let Probe { writer, arrival, .. } = connection;
        let socket = Some((writer, Vec::new()));
        let transport = Transport::WebTransport;
        let shared = match self.0.new_session(&parts, transport, Dialect::V4, socket) {
            Ok(shared) => shared,
            Err(why) => {
                let (code, message) = why.told();
                refused(&parts, code, message);
                return None;
            }
        };
        Some(self.0.session(&shared, parts, transport, Some(arrival)))
    }
}

/// Lets no client in any more when it is dropped.
struct Served<'a>(&'a Endpoint);

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.0.set_server_config(None);
    }
}
