//! Response heads: what they mean for the leg, and how they are written for the client.

use std::mem::MaybeUninit;

use super::body::Body;
use super::chunked::Chunked;
use super::{Connection, MAX_HEADERS, elements, is_hop_by_hop, is_named, length, push_line, push_number};

/// What of the request decides how its response is read and written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) head: bool,
    pub(crate) is_1_1: bool,
    pub(crate) upgrade: bool,
    /// The client's connection stays open after this response.
    pub(crate) keep_alive: bool,
}

/// What a head read from a leg means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An interim response (1xx): the real one follows.
    Interim,
    /// 101: no HTTP from here on.
    Switched,
    /// The response.
    Final {
        /// What follows the head on the leg.
        body: Body,
        /// The leg can carry another request afterwards.
        leg_stays: bool,
        /// The client's connection stays open afterwards.
        client_stays: bool,
        /// The client does not know chunks: only what is in them goes to it.
        unchunk: bool,
        status: u16,
        /// So many seconds after this response the worker closes the leg, if it is still idle then.
        closes_after: Option<u32>,
    },
}

/// The worker did not speak HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Reads a response head at the start of `input` and writes to `out` what the client gets. `None`: not complete yet.
pub(crate) fn translate(
    input: &[u8],
    asked: Asked,
    out: &mut Vec<u8>,
) -> Result<Option<(usize, Meaning)>, Invalid> {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let end = match config.parse_response_with_uninit_headers(&mut response, input, &mut storage) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Invalid),
    };
    let status = response.code.ok_or(Invalid)?;
    let headers: &[httparse::Header<'_>] = response.headers;
    let mut connection = Connection::default();
    let (mut content_length, mut chunked, mut closes_after) = (None, false, None);
    for header in headers {
        match header.name.len() {
            10 if header.name.eq_ignore_ascii_case("keep-alive") => closes_after = timeout(header.value),
            10 if header.name.eq_ignore_ascii_case("connection") => connection.read(header.value),
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let value = length(header.value).ok_or(Invalid)?;
                if content_length.replace(value).is_some_and(|before| before != value) {
                    return Err(Invalid);
                }
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                if chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Invalid);
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if chunked && content_length.is_some() {
        return Err(Invalid);
    }

    let meaning = match status {
        101 if asked.upgrade => Meaning::Switched,
        101 => return Err(Invalid),
        100..=199 => Meaning::Interim,
        _ => {
            let bodiless = asked.head || status == 204 || status == 304;
            let body = match (bodiless, chunked, content_length) {
                (true, _, _) => Body::NONE,
                (_, true, _) => Body::Chunked(Chunked::new()),
                (_, _, Some(length)) => Body::Length(length),
                (_, _, None) => Body::UntilEnd,
            };
            let old = response.version != Some(1);
            let leg_stays = !connection.close && (!old || connection.keep_alive) && body != Body::UntilEnd;
            let unchunk = chunked && !bodiless && !asked.is_1_1;
            // Without a length or chunks, only the end of the connection tells the end of the body.
            let client_stays = asked.keep_alive && body != Body::UntilEnd && !unchunk;
            Meaning::Final { body, leg_stays, client_stays, unchunk, status, closes_after }
        }
    };
    // HTTP/1.0 knows no interim responses.
    if meaning == Meaning::Interim && !asked.is_1_1 {
        return Ok(Some((end, meaning)));
    }

    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(out, status.into());
    out.push(b' ');
    out.extend_from_slice(response.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for header in headers {
        let name = header.name;
        let ends_here = is_hop_by_hop(name) || (connection.names && is_named(headers, name));
        if !ends_here {
            push_line(out, name.as_bytes(), header.value);
        } else if meaning == Meaning::Switched && name.eq_ignore_ascii_case("upgrade") {
            push_line(out, b"upgrade", header.value);
        }
    }
    match meaning {
        Meaning::Switched => out.extend_from_slice(b"connection: upgrade\r\n"),
        Meaning::Interim => {}
        Meaning::Final { client_stays, unchunk, .. } => {
            if let Some(length) = content_length.filter(|_| status != 204) {
                out.extend_from_slice(b"content-length: ");
                push_number(out, length);
                out.extend_from_slice(b"\r\n");
            }
            if chunked && !unchunk && status != 204 {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            match (client_stays, asked.is_1_1) {
                (false, _) => out.extend_from_slice(b"connection: close\r\n"),
                (true, false) => out.extend_from_slice(b"connection: keep-alive\r\n"),
                (true, true) => {}
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some((end, meaning)))
}

/// `timeout` of a `Keep-Alive` header.
fn timeout(value: &[u8]) -> Option<u32> {
    let number = |element: &[u8]| {
        let digits = element.strip_prefix(b"timeout=")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    elements(value).find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Asked = Asked { head: false, is_1_1: true, upgrade: false, keep_alive: true };

    fn of(input: &str, asked: Asked) -> (String, Meaning) {
        let mut out = Vec::new();
        let (end, meaning) = translate(input.as_bytes(), asked, &mut out).unwrap().unwrap();
        assert_eq!(end, input.len());
        (String::from_utf8(out).unwrap(), meaning)
    }

    fn body(meaning: &Meaning) -> Body {
        match meaning {
            Meaning::Final { body, .. } => *body,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn where_the_body_ends() {
        let head = Asked { head: true, ..GET };
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(body(&of(length, GET).1), Body::Length(5));
        assert_eq!(body(&of(length, head).1), Body::NONE);
        assert!(
            of(length, head).0.contains("content-length: 5\r\n"),
            "HEAD tells the length of the body it has not"
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(body(&of(chunked, GET).1), Body::Chunked(Chunked::new()));
        assert_eq!(body(&of("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", GET).1), Body::NONE);
        assert_eq!(body(&of("HTTP/1.1 204 No Content\r\n\r\n", GET).1), Body::NONE);
        let (out, meaning) = of("HTTP/1.0 200 OK\r\n\r\n", GET);
        assert_eq!(body(&meaning), Body::UntilEnd);
        assert!(out.contains("connection: close\r\n"), "{out}");
    }

    #[test]
    fn what_concerns_the_leg_stays_there() {
        let input = "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nServer: s\r\n\
                     Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n";
        let (out, meaning) = of(input, GET);
        assert_eq!(
            out,
            "HTTP/1.1 200 OK\r\nServer: s\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ncontent-length: 0\r\n\r\n"
        );
        assert!(matches!(
            meaning,
            Meaning::Final { leg_stays: false, client_stays: true, closes_after: Some(5), .. }
        ));
        assert_eq!(timeout(b"max=100, timeout=72"), Some(72));
        assert_eq!(timeout(b"timeout=soon"), None);
    }

    #[test]
    fn old_clients_get_no_chunks() {
        let old = Asked { is_1_1: false, ..GET };
        let (out, meaning) = of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", old);
        assert_eq!(out, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        assert!(matches!(
            meaning,
            Meaning::Final { unchunk: true, client_stays: false, leg_stays: true, .. }
        ));
        let (out, _) = of("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", old);
        assert!(out.contains("connection: keep-alive\r\n"), "{out}");
        assert_eq!(of("HTTP/1.1 100 Continue\r\n\r\n", old), (String::new(), Meaning::Interim));
    }

    #[test]
    fn interim_and_switching() {
        assert_eq!(
            of("HTTP/1.1 100 Continue\r\n\r\n", GET),
            ("HTTP/1.1 100 Continue\r\n\r\n".into(), Meaning::Interim)
        );
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\nA: b\r\n\r\n";
        let (out, meaning) = of(switch, Asked { upgrade: true, ..GET });
        assert_eq!(meaning, Meaning::Switched);
        assert_eq!(
            out,
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: foo\r\nA: b\r\nconnection: upgrade\r\n\r\n"
        );
        assert_eq!(translate(switch.as_bytes(), GET, &mut Vec::new()), Err(Invalid));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for bad in [
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            assert_eq!(translate(bad.as_bytes(), GET, &mut Vec::new()), Err(Invalid), "{bad:?}");
        }
        assert_eq!(translate(b"HTTP/1.1 200 OK\r\nA", GET, &mut Vec::new()), Ok(None));
    }
}
