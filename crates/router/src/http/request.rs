//! Request heads: what is accepted, and what it means for the connection.

use std::mem::MaybeUninit;

use httparse::Header;

use super::body::Body;
use super::chunked::Chunked;
use super::{Connection, MAX_HEADERS, elements, length};

/// Why a request is refused before any worker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 400, and what is wrong with it.
    Malformed(&'static str),
    /// 431: more than [`MAX_HEADERS`].
    Headers,
    /// 501, and what of it we do not do.
    Unsupported(&'static str),
    /// 505.
    Version,
}

/// What is asked for besides an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrade {
    None,
    WebSocket,
    Other,
}

/// A request head that is accepted.
#[derive(Debug)]
pub(crate) struct Head<'h, 'b> {
    pub(crate) method: &'b str,
    /// In origin form: a path with its query, or `*`.
    pub(crate) target: &'b str,
    /// HTTP/1.1, not 1.0.
    pub(crate) is_1_1: bool,
    pub(crate) headers: &'h [Header<'b>],
    /// Where it ends, in bytes from the first.
    pub(crate) length: usize,
    pub(crate) body: Body,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: Upgrade,
    pub(crate) origin: Option<&'b [u8]>,
    /// From an absolute target: takes the place of `Host`.
    pub(super) authority: Option<&'b str>,
    /// A `Connection` header names other headers.
    pub(super) names: bool,
}

/// Room for the header lines of a head.
pub(crate) type Storage<'b> = [MaybeUninit<Header<'b>>; MAX_HEADERS];

/// Finds the end of a head in `input`, of which the first `searched` bytes were searched before.
pub(crate) fn find_end(input: &[u8], searched: usize) -> Option<usize> {
    // Empty lines before a request are skipped by every server.
    let start = input.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let from = searched.saturating_sub(3).max(start);
    memchr::memmem::find(&input[from..], b"\r\n\r\n").map(|at| from + at + 4)
}

/// Whether an incomplete head can still become one.
pub(crate) fn probe(input: &[u8]) -> Result<(), Fault> {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(input, &mut storage) {
        // It found an end that is not ours: lines that end in a bare LF.
        Ok(httparse::Status::Complete(_)) => Err(Fault::Malformed("lines of a head end in CR LF")),
        Ok(httparse::Status::Partial) => Ok(()),
        Err(error) => Err(fault(error, input)),
    }
}

fn fault(error: httparse::Error, input: &[u8]) -> Fault {
    match error {
        httparse::Error::TooManyHeaders => Fault::Headers,
        httparse::Error::Version if names_http(input) => Fault::Version,
        httparse::Error::HeaderName => Fault::Malformed("a header name is malformed"),
        httparse::Error::HeaderValue => Fault::Malformed("a header value is malformed"),
        httparse::Error::NewLine => Fault::Malformed("a line break is malformed"),
        _ => Fault::Malformed("not an HTTP request"),
    }
}

/// Whether the request line ends in some version of HTTP, rather than in anything at all.
fn names_http(input: &[u8]) -> bool {
    let line =
        input.trim_ascii_start().split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    line.rsplit(|byte| *byte == b' ').next().is_some_and(|word| word.starts_with(b"HTTP/"))
}

/// Reads the head `input`, which [`find_end`] found the end of.
pub(crate) fn parse<'h, 'b>(input: &'b [u8], storage: &'h mut Storage<'b>) -> Result<Head<'h, 'b>, Fault> {
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(input, storage).map_err(|error| fault(error, input))? {
        httparse::Status::Complete(end) if end == input.len() => {}
        _ => return Err(Fault::Malformed("lines of a head end in CR LF")),
    }
    // httparse takes a bare LF for a line end; others may not.
    if memchr::memchr_iter(b'\n', input).any(|at| at == 0 || input[at - 1] != b'\r') {
        return Err(Fault::Malformed("lines of a head end in CR LF"));
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Fault::Malformed("not an HTTP request"));
    };
    let headers: &'h [Header<'b>] = request.headers;
    let is_1_1 = version == 1;

    let mut connection = Connection::default();
    let (mut host, mut content_length, mut chunked, mut upgrade) = (None, None, false, None);
    let (mut origin, mut hosts) = (None, 0);
    for header in headers {
        let (name, value) = (header.name, header.value);
        // By length first: most headers are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                host = Some(value);
                hosts += 1;
            }
            6 if name.eq_ignore_ascii_case("origin") => origin = Some(value),
            7 if name.eq_ignore_ascii_case("upgrade") => upgrade = Some(value),
            10 if name.eq_ignore_ascii_case("connection") => connection.read(value),
            14 if name.eq_ignore_ascii_case("content-length") => {
                let value = length(value).ok_or(Fault::Malformed("Content-Length is not a number"))?;
                if content_length.replace(value).is_some_and(|before| before != value) {
                    return Err(Fault::Malformed("Content-Length headers that differ"));
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if !value.eq_ignore_ascii_case(b"chunked") || chunked {
                    return Err(Fault::Unsupported("a Transfer-Encoding other than chunked"));
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if hosts > 1 {
        return Err(Fault::Malformed("more than one Host header"));
    }
    if host.is_some_and(|host| !may_be_host(host)) {
        return Err(Fault::Malformed("Host is not a host"));
    }
    if is_1_1 && host.is_none() {
        return Err(Fault::Malformed("an HTTP/1.1 request without Host"));
    }
    let body = match (chunked, content_length) {
        (true, Some(_)) => {
            return Err(Fault::Malformed("both Content-Length and Transfer-Encoding"));
        }
        (true, None) if !is_1_1 => return Err(Fault::Malformed("Transfer-Encoding in an HTTP/1.0 request")),
        (true, None) => Body::Chunked(Chunked::new()),
        (false, length) => Body::Length(length.unwrap_or(0)),
    };
    let (target, authority) = origin_form(target, host)?;
    let keep_alive = !connection.close && (is_1_1 || connection.keep_alive);
    let upgrade = match upgrade {
        Some(upgrade) if is_1_1 && connection.upgrade && body.is_done() => kind(upgrade, method),
        _ => Upgrade::None,
    };
    let names = connection.names;
    let length = input.len();
    Ok(Head { method, target, is_1_1, headers, length, body, keep_alive, upgrade, origin, authority, names })
}

fn kind(upgrade: &[u8], method: &str) -> Upgrade {
    let mut kind = Upgrade::None;
    for element in elements(upgrade) {
        if element.eq_ignore_ascii_case(b"websocket") && method == "GET" {
            return Upgrade::WebSocket;
        }
        // HTTP/2 in the clear would carry requests nobody routed.
        if !element.eq_ignore_ascii_case(b"h2c") {
            kind = Upgrade::Other;
        }
    }
    kind
}

/// No list, and nothing that others would look for a path or a user in.
fn may_be_host(host: &[u8]) -> bool {
    let forbidden = memchr::memchr3(b',', b' ', b'\t', host);
    forbidden.or_else(|| memchr::memchr3(b'/', b'@', b'\\', host)).is_none()
}

/// The target without scheme and host, and the host if the target had one.
fn origin_form<'b>(target: &'b str, host: Option<&[u8]>) -> Result<(&'b str, Option<&'b str>), Fault> {
    if target.starts_with('/') || target == "*" {
        return Ok((target, None));
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let prefix = target.get(..scheme.len())?;
        prefix.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    });
    let Some(rest) = rest else {
        return Err(Fault::Malformed("a request target is a path, or a whole http:// address"));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // It becomes the `Host` of what is passed on.
    if !may_be_host(authority.as_bytes()) {
        return Err(Fault::Malformed("the target's authority is not a host"));
    }
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(Fault::Malformed("Host differs from the host in the request target"));
    }
    match path.as_bytes().first() {
        Some(b'/') => Ok((path, Some(authority))),
        None => Ok(("/", Some(authority))),
        // `http://host?query`: legal, and seen nowhere.
        _ => Err(Fault::Malformed("a request target without a path")),
    }
}

impl<'b> Head<'_, 'b> {
    /// Whom it was sent to, if it says so.
    pub(crate) fn host(&self) -> Option<&'b [u8]> {
        let header = || self.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
        self.authority.map(str::as_bytes).or_else(|| header().map(|header| header.value))
    }

    /// Repeating the request changes nothing (RFC 9110 §9.2.1).
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS")
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
