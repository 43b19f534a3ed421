//! The websocket handshake: checks of RFC 6455, or of RFC 8441 on a stream of HTTP/2, and the way from hyper's upgrade to a
//! socket.

use bytes::BytesMut;
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Version, request::Parts};
use hyper::upgrade::OnUpgrade;
use sundew_io::{HoldHead, Recovered};
use tungstenite::handshake::derive_accept_key;

use super::shared::Arrival;
use super::socket::{Writer, split};
use crate::Config;
use crate::proto::deflate::{Agreed, Inflater, agree};
use crate::proto::framing::Framing;
use crate::proto::websocket::Decoder;

/// Whether a request asks for a websocket.
pub(crate) fn is_asked_for(parts: &Parts) -> bool {
    is_extended_connect(parts)
        || parts.method == Method::GET
            && has_token(&parts.headers, UPGRADE, "websocket")
            && has_token(&parts.headers, CONNECTION, "upgrade")
}

/// Whether it does so by extended CONNECT (RFC 8441 §5), on a stream of HTTP/2. A CONNECT of the plain kind has no path, and
/// never comes here; of the extended kind, one that is for a websocket says its version.
pub(crate) fn is_extended_connect(parts: &Parts) -> bool {
    parts.method == Method::CONNECT
        && parts.version == Version::HTTP_2
        && parts.headers.contains_key(SEC_WEBSOCKET_VERSION)
}

/// How a request for a websocket is accepted.
#[derive(Debug)]
pub(crate) enum Accept {
    /// By 101, with a key.
    Switching(HeaderValue),
    /// By 200: the stream is the websocket's.
    Stream,
}

/// How to accept the request, if it can be accepted.
pub(crate) fn acceptance(parts: &Parts) -> Option<Accept> {
    let headers = &parts.headers;
    if headers.get(SEC_WEBSOCKET_VERSION)?.as_bytes() != b"13" {
        return None;
    }
    if is_extended_connect(parts) {
        return Some(Accept::Stream);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY)?.as_bytes();
    // Base64 of 16 bytes.
    if key.len() != 24 || !key.ends_with(b"==") {
        return None;
    }
    HeaderValue::try_from(derive_accept_key(key)).ok().map(Accept::Switching)
}

/// The compression a request offers and the options allow.
pub(crate) fn agreed(headers: &HeaderMap, config: &Config) -> Option<Agreed> {
    let options = config.per_message_deflate.as_ref()?;
    let offers = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|value| value.to_str().ok());
    agree(offers, options)
}

/// Lets the head of the 101 leave with the first bytes of the websocket, where the server's connections can do that.
pub(crate) fn hold_head(parts: &Parts) {
    if let Some(head) = parts.extensions.get::<HoldHead>() {
        head.hold();
    }
}

/// A websocket that has just been accepted.
pub(crate) struct Taken {
    pub(crate) writer: Writer,
    pub(crate) arrival: Arrival,
    /// The head of the 101 if it was held: to be written first.
    pub(crate) unwritten: Vec<u8>,
}

/// Waits until the 101 has left or is held, or the 200 has left, and takes the socket over.
pub(crate) async fn take_over(upgrade: OnUpgrade, config: &Config, agreed: Option<Agreed>) -> Option<Taken> {
    let Recovered { stream, unread, unwritten } = match upgrade.await {
        Ok(upgraded) => sundew_io::recover(upgraded),
        Err(error) => {
            tracing::debug!(%error, "a websocket client left during its handshake");
            return None;
        }
    };
    let (reader, writer) = split(stream);
    let decoder = match agreed {
        Some(agreed) => Decoder::inflating(config.max_payload, Inflater::new(agreed)),
        None => Decoder::new(config.max_payload),
    };
    let arrival =
        Arrival { reader, decoder: Framing::Websocket(decoder), unread: BytesMut::from(&unread[..]) };
    Some(Taken { writer, arrival, unwritten })
}

fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}
