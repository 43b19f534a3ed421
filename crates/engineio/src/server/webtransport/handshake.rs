//! From a client's first datagram to its first packet: QUIC, the request of HTTP/3, the one stream.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use sundew_io::{PeerAddr, Raw};
use web_transport_quinn::Request;
use web_transport_quinn::quinn::Incoming;

use super::stream::{Owned, Stream};
use crate::Config;
use crate::proto::framing::Framing;
use crate::proto::webtransport::{Decoder, MAX_OPEN, Opening, opening};
use crate::server::probe::Probe;
use crate::server::shared::Arrival;
use crate::server::socket::split;

/// How long the connection of a refused request is kept for the answer to get through.
const ANSWER: Duration = Duration::from_secs(1);

/// Waits for the request. `None`: the client left, or speaks something else.
pub(crate) async fn request(incoming: Incoming) -> Option<Request> {
    let connection = match incoming.accept() {
        Ok(connecting) => connecting.await,
        Err(error) => Err(error),
    };
    let request = match connection {
        Ok(connection) => Request::accept(connection).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    request.inspect_err(|error| tracing::debug!(error, "no request for WebTransport")).ok()
}

/// The request as those of HTTP/1 and 2 are: its target is path and query, the authority is the host. `None` if it cannot
/// be one.
pub(crate) fn parts(request: &Request) -> Option<Parts> {
    let url = &request.url;
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let (mut parts, ()) = http::Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_3)
        .uri(target)
        .body(())
        .ok()?
        .into_parts();
    parts.headers = request.headers.clone();
    parts.headers.insert(HOST, HeaderValue::from_str(url.authority()).ok()?);
    let peer = request.conn().remote_address();
    parts.extensions.insert(PeerAddr(SocketAddr::new(peer.ip().to_canonical(), peer.port())));
    Some(parts)
}

/// Answers that it is not served.
pub(crate) async fn refuse(request: Request, status: StatusCode) {
    let connection = request.conn().clone();
    let answered = async {
        if request.reject(status).await.is_ok() {
            connection.closed().await;
        }
    };
    // A client may also leave no room for the answer.
    let _ = tokio::time::timeout(ANSWER, answered).await;
}

/// A client's stream, and what it wants of it.
pub(crate) struct Opened {
    pub(crate) opening: Opening,
    pub(crate) connection: Probe,
    pub(crate) session: web_transport_quinn::Session,
}

/// Accepts the request and waits for the stream and its first packet. `None`: the client left, or said something else; the
/// session is closed then.
pub(crate) async fn open(request: Request, config: &Config) -> Option<Opened> {
    let session = match request.ok().await {
        Ok(session) => Owned::new(session),
        Err(error) => {
            tracing::debug!(%error, "a WebTransport client left during its handshake");
            return None;
        }
    };
    let streams = match session.session().accept_bi().await {
        Ok(streams) => streams,
        Err(error) => {
            tracing::debug!(%error, "a WebTransport client left without a stream");
            return None;
        }
    };
    let told = session.session().clone();
    let stream = Stream::new(session, streams, config.close_timeout);
    let (reader, writer) = split(Raw::Other(Box::pin(stream)));
    let decoder = Framing::WebTransport(Decoder::new(MAX_OPEN));
    let arrival = Arrival { reader, decoder, unread: BytesMut::new() };
    let mut connection = Probe { writer, arrival, unwritten: Vec::new() };
    let wanted = poll_fn(|cx| connection.poll_item(cx)).await.ok().and_then(|item| opening(&item));
    let Some(opening) = wanted else {
        told.close(0, b"Bad request");
        return None;
    };
    if let Framing::WebTransport(decoder) = &mut connection.arrival.decoder {
        decoder.set_max(config.max_payload);
    }
    Some(Opened { opening, connection, session: told })
}
