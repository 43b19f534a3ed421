//! The client's address of a request, and the mark of a new session: from the leg's header, or from the connection.

use std::net::SocketAddr;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// Set by the front door on every request over a leg: `<ip:port>`, with `; place` behind it on a request that opens a
/// session. The front door strips it from what clients send.
pub(crate) const PEER_HEADER: HeaderName = HeaderName::from_static("x-sundew-peer");

/// What the front door says about a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The client's address.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether the request opens a session, by the front door's count.
    pub(crate) place: bool,
}

/// Takes the marks out of a leg's request. Whatever cannot be read counts as absent: the header is the front door's own.
pub(crate) fn take_marks(headers: &mut HeaderMap) -> Marks {
    headers.remove(PEER_HEADER).map(|value| read(&value)).unwrap_or_default()
}

fn read(value: &HeaderValue) -> Marks {
    let Ok(text) = value.to_str() else { return Marks::default() };
    let mut parts = text.split(';').map(str::trim);
    let peer = parts.next().and_then(|peer| peer.parse().ok());
    Marks { peer, place: parts.any(|part| part == "place") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_taken_out() {
        for (text, peer, place) in [
            ("10.1.2.3:456", Some("10.1.2.3:456"), false),
            ("10.1.2.3:456; place", Some("10.1.2.3:456"), true),
            ("[2001:db8::1]:80;place", Some("[2001:db8::1]:80"), true),
            ("unix; place", None, true),
            ("10.1.2.3; placed", None, false),
            ("", None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PEER_HEADER, HeaderValue::from_static(text));
            let marks = take_marks(&mut headers);
            assert_eq!(marks, Marks { peer: peer.map(|peer| peer.parse().unwrap()), place }, "{text}");
            assert!(headers.is_empty());
        }
        assert_eq!(take_marks(&mut HeaderMap::new()), Marks::default());
    }
}
