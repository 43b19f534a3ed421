//! The websocket handshake: checks of RFC 6455, or of RFC 8441 on a stream of HTTP/2, and the way from the HTTP connection
//! to a socket.

use bytes::BytesMut;
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Version, request::Parts};
use hyper::upgrade::OnUpgrade;
use sundew_io::{HoldHead, Life, Recovered, TakeOver};
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

/// The version of the websocket protocol that is served.
pub(crate) const VERSION: HeaderValue = HeaderValue::from_static("13");

/// Whether a request asks for it.
pub(crate) fn is_of_our_version(headers: &HeaderMap) -> bool {
    headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| *version == VERSION)
}

/// How to accept the request, if it can be accepted.
pub(crate) fn acceptance(parts: &Parts) -> Option<Accept> {
    let headers = &parts.headers;
    if !is_of_our_version(headers) {
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

/// The first subprotocol a request offers, which is answered as Node's ws does: browsers fail a websocket whose server takes
/// none of those offered.
pub(crate) fn subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.as_bytes();
    let first = offered.split(|&byte| byte == b',').next()?.trim_ascii();
    let is_token = !first.is_empty() && first.iter().all(|&byte| is_token_char(byte));
    HeaderValue::from_bytes(first).ok().filter(|_| is_token)
}

/// RFC 9110 §5.6.2.
fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// How the connection of an accepted request is had.
#[derive(Debug)]
pub(crate) enum Upgrade {
    /// From a server loop of ours.
    TakeOver(TakeOver),
    /// From hyper, when it has written the answer; or, on HTTP/1, before that.
    Hyper(OnUpgrade, Option<HoldHead>),
}

impl Upgrade {
    /// Takes it out of the request. None where the connection cannot be upgraded: HTTP/1.0, or a test without a connection.
    pub(crate) fn of(parts: &mut Parts) -> Option<Upgrade> {
        if let Some(connection) = parts.extensions.remove::<TakeOver>() {
            return Some(Upgrade::TakeOver(connection));
        }
        let upgrade = parts.extensions.remove::<OnUpgrade>()?;
        Some(Upgrade::Hyper(upgrade, parts.extensions.remove::<HoldHead>()))
    }

    /// Begins what the connection becomes once its request is accepted. `speaks_first`: the server does, so that the head of
    /// the 101 may wait for what it says.
    pub(crate) fn then(
        self,
        speaks_first: bool,
        begin: impl FnOnce(Recovered) -> Option<Life> + Send + 'static,
    ) {
        match self {
            Upgrade::TakeOver(connection) => connection.then(begin),
            Upgrade::Hyper(upgrade, head) => {
                if let Some(head) = head.filter(|_| speaks_first) {
                    head.hold();
                }
                // Boxed, what is needed to begin goes when it has begun.
                let begin = Box::new(begin);
                tokio::spawn(async move {
                    let life = match upgrade.await {
                        Ok(upgraded) => begin(sundew_io::recover(upgraded)),
                        Err(error) => {
                            tracing::debug!(%error, "a websocket client left during its handshake");
                            return;
                        }
                    };
                    if let Some(life) = life {
                        life.await;
                    }
                });
            }
        }
    }
}

/// A websocket that has just been accepted.
pub(crate) struct Taken {
    pub(crate) writer: Writer,
    pub(crate) arrival: Arrival,
    /// The head of the 101 if it is not written yet: goes first.
    pub(crate) unwritten: Vec<u8>,
}

/// The websocket on a connection.
pub(crate) fn take(connection: Recovered, config: &Config, agreed: Option<Agreed>) -> Taken {
    let Recovered { stream, unread, unwritten } = connection;
    let (reader, writer) = split(stream);
    let decoder = match agreed {
        Some(agreed) => Decoder::inflating(config.max_payload, Inflater::new(agreed)),
        None => Decoder::new(config.max_payload),
    };
    let arrival =
        Arrival { reader, decoder: Framing::Websocket(decoder), unread: BytesMut::from(&unread[..]) };
    Taken { writer, arrival, unwritten }
}

fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_subprotocol_is_taken_if_it_is_a_token() {
        let taken = |offered: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offered));
            subprotocol(&headers)
        };
        assert_eq!(subprotocol(&HeaderMap::new()), None);
        assert_eq!(taken("chat.v2"), Some(HeaderValue::from_static("chat.v2")));
        assert_eq!(taken(" chat\t, other"), Some(HeaderValue::from_static("chat")));
        for refused in ["", ",chat", "a b", "a\"b\"", "(chat), other"] {
            assert_eq!(taken(refused), None, "{refused}");
        }
    }
}
