//! What most clients send in their heads: known, it need not be checked or written anew, and a value that is kept does not keep the
//! memory it was read into.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE,
    COOKIE, HOST, HeaderName, HeaderValue, ORIGIN, PRAGMA, REFERER, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};

/// As browsers and Node write them.
static VALUES: [HeaderValue; 14] = [
    HeaderValue::from_static("*/*"),
    HeaderValue::from_static("13"),
    HeaderValue::from_static("2"),
    HeaderValue::from_static("cors"),
    HeaderValue::from_static("empty"),
    HeaderValue::from_static("Upgrade"),
    HeaderValue::from_static("no-cache"),
    HeaderValue::from_static("websocket"),
    HeaderValue::from_static("keep-alive"),
    HeaderValue::from_static("same-origin"),
    HeaderValue::from_static("gzip, deflate"),
    HeaderValue::from_static("gzip, deflate, br"),
    HeaderValue::from_static("gzip, deflate, br, zstd"),
    HeaderValue::from_static("text/plain;charset=UTF-8"),
];

/// The name of a header.
pub(super) fn name(name: &str) -> Option<HeaderName> {
    Some(match name {
        "Host" => HOST,
        "Accept" => ACCEPT,
        "Cookie" => COOKIE,
        "Origin" => ORIGIN,
        "Pragma" => PRAGMA,
        "Referer" => REFERER,
        "Upgrade" => UPGRADE,
        "Connection" => CONNECTION,
        "User-Agent" => USER_AGENT,
        "Content-Type" => CONTENT_TYPE,
        "Cache-Control" => CACHE_CONTROL,
        "Content-Length" => CONTENT_LENGTH,
        "Accept-Encoding" => ACCEPT_ENCODING,
        "Accept-Language" => ACCEPT_LANGUAGE,
        "Sec-WebSocket-Key" => SEC_WEBSOCKET_KEY,
        "Sec-WebSocket-Version" => SEC_WEBSOCKET_VERSION,
        "Sec-WebSocket-Extensions" => SEC_WEBSOCKET_EXTENSIONS,
        other => return HeaderName::from_bytes(other.as_bytes()).ok(),
    })
}

/// The value of a header, a part of `bytes`.
pub(super) fn value(bytes: &Bytes, value: &[u8]) -> Option<HeaderValue> {
    match VALUES.iter().find(|usual| usual.as_bytes() == value) {
        Some(usual) => Some(usual.clone()),
        None => HeaderValue::from_maybe_shared(bytes.slice_ref(value)).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_it_is_written() {
        for written in [
            "Host",
            "Accept",
            "Cookie",
            "Origin",
            "Pragma",
            "Referer",
            "Upgrade",
            "Connection",
            "User-Agent",
            "Content-Type",
            "Cache-Control",
            "Content-Length",
            "Accept-Encoding",
            "Accept-Language",
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Extensions",
            "X-Other",
        ] {
            assert_eq!(name(written), name(&written.to_lowercase()), "{written}");
            assert_eq!(name(written).unwrap().as_str(), written.to_lowercase());
        }
        assert_eq!(name("no name"), None);
    }

    #[test]
    fn a_value_is_what_was_sent() {
        let bytes = Bytes::from("13, 1, 133, no-cache, no-cachE, , keep-alive");
        for range in [0..2, 4..5, 7..10, 12..20, 22..30, 32..32, 34..44] {
            let part = &bytes[range];
            assert_eq!(value(&bytes, part).unwrap().as_bytes(), part);
        }
        assert_eq!(value(&Bytes::from("\0"), b""), Some(HeaderValue::from_static("")));
        let wrong = Bytes::from("a\0");
        assert_eq!(value(&wrong, &wrong), None);
    }
}
