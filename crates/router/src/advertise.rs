//! Tells a client where to connect: `GET` on a path of the front door's own is answered with the address of the worker
//! that its next session is meant for. Nothing of it passes a worker.

use crate::config::Advertise;
use crate::http::request::Head;
use crate::http::{elements, push_line, push_number};

/// What a request for an address gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// The address on this host.
    Where(&'a str),
    /// Leave of a browser to ask from a page of another origin.
    Leave,
    /// It has no `Host` that could be told.
    NoHost,
    /// GET only.
    Wrong,
}

/// What a request on the path asks for.
pub(crate) fn asked<'a>(advertise: &'a Advertise, head: &Head<'_, 'a>) -> Asked<'a> {
    match head.method {
        "GET" | "HEAD" => match advertise.host.as_deref().or_else(|| head.host().and_then(host_of)) {
            Some(host) => Asked::Where(host),
            None => Asked::NoHost,
        },
        "OPTIONS" => Asked::Leave,
        _ => Asked::Wrong,
    }
}

/// The host without a port, if it is one: what is told has to be text that needs no escapes.
pub(crate) fn host_of(host: &[u8]) -> Option<&str> {
    let host = std::str::from_utf8(host).ok()?;
    let name = match host.strip_prefix('[') {
        Some(rest) => &host[..rest.find(']')? + 2],
        None => host.split(':').next()?,
    };
    let port = &host[name.len()..];
    let digits = port.strip_prefix(':');
    if !port.is_empty() && !digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    is_host(name).then_some(name)
}

/// A name or an address as it stands in a URL.
pub(crate) fn is_host(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.len() <= 253 && name.bytes().all(plain),
    }
}

/// Writes an answer: `told` is the body of a 200.
pub(crate) fn write(
    out: &mut Vec<u8>,
    advertise: &Advertise,
    head: &Head<'_, '_>,
    asked: &Asked<'_>,
    told: &str,
) {
    let (status, body) = match asked {
        Asked::Where(_) => ("200 OK", told),
        Asked::Leave => ("204 No Content", ""),
        Asked::NoHost => (
            "400 Bad Request",
            r#"{"error":"the request's Host names no host: set sundew.route.host to the one that clients reach"}"#,
        ),
        Asked::Wrong => ("405 Method Not Allowed", r#"{"error":"ask for a route with GET"}"#),
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\r\n");
    if !body.is_empty() {
        out.extend_from_slice(b"content-type: application/json\r\ncontent-length: ");
        push_number(out, body.len() as u64);
        out.extend_from_slice(b"\r\n");
    }
    allow(out, advertise, head, *asked == Asked::Leave);
    if *asked == Asked::Wrong {
        out.extend_from_slice(b"allow: GET, HEAD, OPTIONS\r\n");
    }
    if !keeps_alive(head) {
        out.extend_from_slice(b"connection: close\r\n");
    } else if !head.is_1_1 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"cache-control: no-store\r\n\r\n");
    if head.method != "HEAD" {
        out.extend_from_slice(body.as_bytes());
    }
}

/// Whether the connection can go on: a body would be in the way of the next request.
pub(crate) fn keeps_alive(head: &Head<'_, '_>) -> bool {
    head.keep_alive && head.body.is_done()
}

/// What a browser needs to let a page of another origin read the answer. The cookies of this one do not matter here, so
/// that they are not asked for.
fn allow(out: &mut Vec<u8>, advertise: &Advertise, head: &Head<'_, '_>, preflight: bool) {
    if advertise.origins.is_empty() {
        return;
    }
    let any = advertise.origins.iter().any(|origin| origin == "*");
    if !any {
        // Of every answer, also to those who are not allowed: a cache must not mix them up.
        out.extend_from_slice(b"vary: origin\r\n");
    }
    let allowed = match head.origin {
        _ if any => Some(&b"*"[..]),
        Some(asking) => advertise.origins.iter().map(String::as_bytes).find(|origin| *origin == asking),
        None => None,
    };
    let Some(allowed) = allowed else { return };
    push_line(out, b"access-control-allow-origin", allowed);
    if preflight {
        out.extend_from_slice(b"access-control-allow-methods: GET, HEAD\r\naccess-control-max-age: 600\r\n");
        let headers = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("access-control-request-headers"));
        if let Some(headers) = headers.filter(|headers| elements(headers.value).next().is_some()) {
            push_line(out, b"access-control-allow-headers", headers.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_without_its_port_and_only_if_it_is_one() {
        for (given, host) in [
            ("a.example", "a.example"),
            ("a.example:8080", "a.example"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[fe80::1]", "[fe80::1]"),
            ("my_host", "my_host"),
        ] {
            assert_eq!(host_of(given.as_bytes()), Some(host), "{given}");
        }
        for wrong in ["", ":80", "a b", "a\"b", "a:b", "[::1", "[x]", "[::1]80", "a:80:80", "<b>", "é"] {
            assert_eq!(host_of(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
