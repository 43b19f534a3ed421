//! The head of a request: which ones are taken here, and what they say about the connection.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request, Uri};
use httparse::Status;

use super::usual;

/// The most headers of a request that is taken here: what the front door allows, and room for those it adds.
const MAX_HEADERS: usize = 128;

/// A head that is taken here.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) request: Request<()>,
    /// Where it ends.
    pub(crate) end: usize,
    /// The length of the body behind it.
    pub(crate) body: u64,
    /// The client keeps the connection for another request.
    pub(crate) keep_alive: bool,
    /// It asks for a websocket.
    pub(crate) upgrade: bool,
}

/// Whether all of the head that `bytes` begin with is there. `searched`: so much was looked at before.
pub(crate) fn is_complete(bytes: &[u8], searched: usize) -> bool {
    const END: &[u8] = b"\r\n\r\n";
    // Nothing follows on most heads. Before the first read there is nothing to search.
    bytes.ends_with(END)
        || !bytes.is_empty() && memchr::memmem::find(&bytes[searched.saturating_sub(3)..], END).is_some()
}

/// The head that `bytes` begin with, or all of them.
pub(crate) fn head_of(bytes: &[u8]) -> &[u8] {
    memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes, |at| &bytes[..at + 4])
}

/// Whether a head that is not complete may still become one that is taken here: what is no HTTP, or ends its lines as others
/// do, is not waited for.
pub(crate) fn may_come(bytes: &[u8]) -> bool {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    matches!(parsed.parse_with_uninit_headers(bytes, &mut storage), Ok(Status::Partial))
}

/// Reads the head at the beginning of `bytes`. `None`: it is none of those taken here, by its path (`ours`) or its form.
pub(crate) fn read(bytes: &Bytes, ours: impl FnOnce(&str) -> bool) -> Option<Head> {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let Ok(Status::Complete(end)) = parsed.parse_with_uninit_headers(bytes, &mut storage) else {
        return None;
    };
    let (Some("GET" | "POST"), Some(target), Some(1)) = (parsed.method, parsed.path, parsed.version) else {
        return None;
    };
    let post = parsed.method == Some("POST");
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if !path.starts_with('/') || !ours(path) {
        return None;
    }
    // httparse takes a bare LF for a line end; others may not.
    if has_bare_lf(&bytes[..end]) {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 1);
    let (mut length, mut keep_alive, mut websocket, mut switches) = (None, true, false, false);
    for httparse::Header { name, value } in parsed.headers {
        // By length first: most are none of these.
        match name.len() {
            6 if name.eq_ignore_ascii_case("expect") => return None,
            7 if name.eq_ignore_ascii_case("upgrade") => {
                if websocket || !value.eq_ignore_ascii_case(b"websocket") {
                    return None;
                }
                websocket = true;
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    keep_alive &= !token.eq_ignore_ascii_case(b"close");
                    switches |= token.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let before = length.replace(digits(value)?);
                if before.is_some() {
                    return None;
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => return None,
            _ => {}
        }
        headers.append(usual::name(name)?, usual::value(bytes, value)?);
    }
    // A body has its length, where there is one; other forms are rare.
    let body = match (post, length) {
        (true, Some(length)) => length,
        (false, None | Some(0)) => 0,
        _ => return None,
    };
    if websocket && (post || !switches) {
        return None;
    }
    let mut request = Request::new(());
    *request.method_mut() = if post { Method::POST } else { Method::GET };
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).ok()?;
    *request.headers_mut() = headers;
    Some(Head { request, end, body, keep_alive, upgrade: websocket })
}

/// Without an early end, many bytes are looked at at once.
fn has_bare_lf(bytes: &[u8]) -> bool {
    let bare = |(&before, &byte): (&u8, &u8)| (byte == b'\n') & (before != b'\r');
    bytes.first() == Some(&b'\n')
        || bytes.iter().zip(bytes.get(1..).unwrap_or_default()).fold(false, |found, two| found | bare(two))
}

fn digits(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Head> {
        read(&Bytes::copy_from_slice(text.as_bytes()), |path| path.starts_with("/io/"))
    }

    #[test]
    fn what_session_clients_send_is_taken() {
        let text = "GET /io/?EIO=4&sid=x HTTP/1.1\r\nHost: a\r\nX-Twice: 1\r\nx-twice: 2\r\n\r\nnext";
        let poll = of(text).unwrap();
        assert_eq!((poll.body, poll.keep_alive, poll.upgrade), (0, true, false));
        assert_eq!(poll.request.uri(), "/io/?EIO=4&sid=x");
        assert_eq!(poll.request.method(), Method::GET);
        let twice: Vec<_> =
            poll.request.headers().get_all("x-twice").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!((twice, poll.request.headers().len()), (vec!["1", "2"], 3));
        assert_eq!(&text[poll.end..], "next");
        let post = of("POST /io/ HTTP/1.1\r\nContent-Length: 12\r\nConnection: x, Close\r\n\r\n").unwrap();
        assert_eq!((post.body, post.keep_alive), (12, false));
        assert_eq!(post.request.method(), Method::POST);
        let websocket = "GET /io/ HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\r\n";
        assert!(of(websocket).unwrap().upgrade);
        assert!(of("GET /io/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n").is_some());
    }

    #[test]
    fn whatever_else_is_not() {
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET /other?x=/io/ HTTP/1.1\r\n\r\n",
            "GET http://a/io/ HTTP/1.1\r\n\r\n",
            "GET /io/ HTTP/1.0\r\n\r\n",
            "GET /io/ HTTP/2.0\r\n\r\n",
            "PUT /io/ HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
            "OPTIONS /io/ HTTP/1.1\r\n\r\n",
            "GET /io/ HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
            "POST /io/ HTTP/1.1\r\n\r\n",
            "POST /io/ HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST /io/ HTTP/1.1\r\nContent-Length: \r\n\r\n",
            "POST /io/ HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST /io/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST /io/ HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "POST /io/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /io/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /io/ HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
            "POST /io/ HTTP/1.1\r\nContent-Length: 1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            "GET /io/ HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "GET /io/ HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            "GET /io/ HTTP/1.1\r\nfolded: a\r\n b\r\n\r\n",
            "GET /io/ HTTP/1.1\r\nname : a\r\n\r\n",
            "GET /io/ HTTP/1.1\nHost: a\r\n\r\n",
            "\nGET /io/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /io/ HTTP/1.1\r\nHost: a\n\r\n",
            "GET /io/ HTTP/1.1\n\nGET /io/ HTTP/1.1\r\n\r\n",
            "GET /io/ HTTP/1.1\r\nHost: a",
            "nonsense\r\n\r\n",
        ] {
            assert!(of(request).is_none(), "{request}");
        }
        let many = format!("GET /io/ HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert!(of(&many).is_none());
    }

    #[test]
    fn what_cannot_become_a_head_is_not_waited_for() {
        for partial in ["", "GE", "GET /io/ HTTP/1.1\r\nHost: a\r\n", "GET /io/ HTTP/1.1\r\nHost: a\r\n\r"] {
            assert!(may_come(partial.as_bytes()), "{partial}");
        }
        let tls: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        for other in
            [tls, b"GET /io/ HTTP/1.1\n\n", b"GET /io/ HTTP/1.1\r\nname : a\r\n", b"PRI * HTTP/2.0\r\n"]
        {
            assert!(!may_come(other), "{other:?}");
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_comes() {
        let bytes = b"GET / HTTP/1.1\r\n\r\nbody\r\n\r\n";
        for searched in 0..18 {
            assert!(is_complete(bytes, searched), "{searched}");
            assert!(is_complete(&bytes[..20], searched), "{searched}");
            assert!(is_complete(&bytes[..18], searched), "{searched}");
            assert!(!is_complete(&bytes[..searched], 0), "{searched}");
        }
    }
}
