//! How a request head is written for a leg.

use std::io::Write;
use std::net::SocketAddr;

use super::body::Body;
use super::request::{Head, Upgrade};
use super::{is_hop_by_hop, is_named, push_line, push_number};

/// The header with a request's id.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// Behind the address of a client that came by TLS.
pub(crate) const BY_TLS: &str = "; tls";

/// What the worker is told besides what the client said.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// `X-Forwarded-*`. A native worker also gets the client's address as a socket would tell it, and whether the request
    /// opens a session that was placed there.
    Forwarded { native: bool, place: bool },
    /// The client's address, and nothing else: the worker makes its sockets tell it.
    Transparent,
}

/// Whose addresses the worker is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peers<'a> {
    /// Who asks. None: nobody knows, it came through a unix socket.
    pub(crate) client: Option<SocketAddr>,
    /// Who the connection is from: the client, or a proxy.
    pub(crate) last_hop: Option<SocketAddr>,
    /// It came by TLS.
    pub(crate) secure: bool,
    /// The request's id, in place of any that the client wrote. None: what it wrote is its own business.
    pub(crate) request_id: Option<&'a str>,
}

impl Peers<'_> {
    /// A header of the client's that another one takes the place of.
    fn replaces(&self, name: &str) -> bool {
        self.request_id.is_some() && name.eq_ignore_ascii_case(REQUEST_ID)
    }
}

impl Head<'_, '_> {
    /// Writes the head as a leg carries it: without what concerns the client's connection only, and with the client's
    /// address. `plain`: the answer is to be read on its way, and must not be compressed.
    pub(crate) fn write(&self, out: &mut Vec<u8>, peers: Peers<'_>, manner: Manner, plain: bool) {
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        match manner {
            Manner::Forwarded { native, place } => self.write_forwarded(out, peers, native, place, plain),
            Manner::Transparent => self.write_transparent(out, peers, plain),
        }
        if let Some(id) = peers.request_id {
            push_line(out, REQUEST_ID.as_bytes(), id.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_forwarded(&self, out: &mut Vec<u8>, peers: Peers<'_>, native: bool, place: bool, plain: bool) {
        let (mut host, mut proto, mut forwarded_host) = (None, false, false);
        let mut forwarded = false;
        if let Some(authority) = self.authority {
            host = Some(authority.as_bytes());
        }
        for header in self.headers {
            let name = header.name;
            match name.as_bytes().first().map(|byte| byte | 0x20) {
                Some(b'h') if name.eq_ignore_ascii_case("host") => {
                    host.get_or_insert(header.value);
                    continue;
                }
                Some(b'x') => {
                    if is_private(name) || peers.replaces(name) {
                        continue;
                    }
                    if name.eq_ignore_ascii_case("x-forwarded-for") {
                        forwarded = true;
                        continue;
                    }
                    if name.eq_ignore_ascii_case("x-forwarded-proto") {
                        // What we know ourselves counts.
                        if peers.secure {
                            continue;
                        }
                        proto = true;
                    }
                    forwarded_host |= name.eq_ignore_ascii_case("x-forwarded-host");
                }
                Some(b'a') if plain && name.eq_ignore_ascii_case("accept-encoding") => continue,
                _ => {}
            }
            let ends_here = is_hop_by_hop(name) || (self.names && is_named(self.headers, name));
            if !ends_here {
                push_line(out, name.as_bytes(), header.value);
            }
        }
        push_line(out, b"host", host.unwrap_or(b"localhost"));
        match self.body {
            Body::Chunked(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            // Node and hyper tell "no body" from "an empty one" for a POST.
            Body::Length(length) if length > 0 || !self.is_safe() => {
                out.extend_from_slice(b"content-length: ");
                push_number(out, length);
                out.extend_from_slice(b"\r\n");
            }
            _ => {}
        }
        if self.upgrade == Upgrade::None {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        } else {
            out.extend_from_slice(b"connection: upgrade\r\n");
            for header in self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("upgrade")) {
                push_line(out, b"upgrade", header.value);
            }
        }
        match (peers.secure, proto) {
            (true, _) => out.extend_from_slice(b"x-forwarded-proto: https\r\n"),
            (false, false) => out.extend_from_slice(b"x-forwarded-proto: http\r\n"),
            (false, true) => {}
        }
        if let Some(host) = host.filter(|_| !forwarded_host) {
            push_line(out, b"x-forwarded-host", host);
        }
        if forwarded || peers.last_hop.is_some() {
            let given =
                self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("x-forwarded-for"));
            let mut before: &[u8] = b"x-forwarded-for: ";
            for header in given {
                out.extend_from_slice(before);
                out.extend_from_slice(header.value);
                before = b", ";
            }
            if let Some(hop) = peers.last_hop {
                out.extend_from_slice(before);
                // Writing to a Vec cannot fail.
                let _ = write!(out, "{}", hop.ip().to_canonical());
            }
            out.extend_from_slice(b"\r\n");
        }
        let place = if place { "; place" } else { "" };
        match peers.client {
            _ if !native => {}
            Some(client) => {
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                let _ = write!(out, "x-sundew-peer: {client}{place}\r\n");
            }
            None if place.is_empty() => {}
            None => {
                let _ = write!(out, "x-sundew-peer: unix{place}\r\n");
            }
        }
    }

    /// In the client's words and order, as far as that can be: whether the leg stays open is our business.
    fn write_transparent(&self, out: &mut Vec<u8>, peers: Peers<'_>, plain: bool) {
        let (mut host, mut length, mut connection) = (false, false, false);
        for header in self.headers {
            let name = header.name;
            match name.as_bytes().first().map(|byte| byte | 0x20) {
                Some(b'x') if is_private(name) || peers.replaces(name) => continue,
                Some(b'x') if peers.secure && name.eq_ignore_ascii_case("x-forwarded-proto") => continue,
                Some(b'a') if plain && name.eq_ignore_ascii_case("accept-encoding") => continue,
                Some(b'h') if name.eq_ignore_ascii_case("host") => host = true,
                Some(b'c') if name.eq_ignore_ascii_case("content-length") => {
                    // Several that agree are one.
                    let seen = std::mem::replace(&mut length, true);
                    if !seen {
                        push_line(out, name.as_bytes(), header.value);
                    }
                    continue;
                }
                Some(b'c') if name.eq_ignore_ascii_case("connection") => {
                    let seen = std::mem::replace(&mut connection, true);
                    match (self.upgrade, self.names) {
                        (Upgrade::None, _) if seen => {}
                        (Upgrade::None, _) => push_line(out, name.as_bytes(), b"keep-alive"),
                        (_, false) => push_line(out, name.as_bytes(), header.value),
                        (_, true) if seen => {}
                        (_, true) => push_line(out, name.as_bytes(), b"Upgrade"),
                    }
                    continue;
                }
                Some(b't') if name.eq_ignore_ascii_case("transfer-encoding") => {}
                Some(b'u') if name.eq_ignore_ascii_case("upgrade") && self.upgrade != Upgrade::None => {}
                _ if is_hop_by_hop(name) || (self.names && is_named(self.headers, name)) => continue,
                _ => {}
            }
            push_line(out, name.as_bytes(), header.value);
        }
        if !host {
            push_line(out, b"Host", self.authority.map_or(&b"localhost"[..], str::as_bytes));
        }
        if peers.secure {
            out.extend_from_slice(b"X-Forwarded-Proto: https\r\n");
        }
        if let Some(peer) = peers.client {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "x-sundew-peer: {peer}{}\r\n", if peers.secure { BY_TLS } else { "" });
        }
    }
}

/// A header that only the front door writes.
fn is_private(name: &str) -> bool {
    name.get(..9).is_some_and(|prefix| prefix.eq_ignore_ascii_case("x-sundew-"))
}
