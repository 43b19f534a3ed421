//! The client's address by the word of proxies: `X-Forwarded-For`, or `Forwarded` (RFC 7239). Each proxy adds its peer at
//! the right, and what is left of the last proxy's word anybody may have written: the client is the first address from
//! the right that is no trusted proxy's.

use std::net::{IpAddr, SocketAddr};

use httparse::Header;

use crate::trusted::TrustedProxies;

/// Hops looked at, from the right. No path through proxies is longer.
const MAX_HOPS: usize = 32;

/// Which header the trusted proxies set. The others are whatever the client has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
    /// None of them: only the PROXY protocol counts.
    None,
}

/// The client of a request with these headers that came from `peer`. None: it is `peer` itself. A port that nobody told
/// is 0.
pub(crate) fn client(
    headers: &[Header<'_>],
    header: ForwardedHeader,
    trusted: &TrustedProxies,
    peer: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let name = match header {
        ForwardedHeader::XForwardedFor => "x-forwarded-for",
        ForwardedHeader::Forwarded => "forwarded",
        ForwardedHeader::None => return None,
    };
    if !trusted.contains(peer.map(|peer| peer.ip())) {
        return None;
    }
    let mut hops = 0;
    let mut client = None;
    let mut walk = |hop: Option<SocketAddr>| {
        hops += 1;
        // Who it was is not said, or not in a way that can be read: the proxy that says so is as near as it gets.
        let Some(hop) = hop.filter(|_| hops <= MAX_HOPS) else { return Walk::End };
        client = Some(hop);
        if trusted.contains(Some(hop.ip())) { Walk::On } else { Walk::End }
    };
    for header in headers.iter().rev().filter(|header| header.name.eq_ignore_ascii_case(name)) {
        let walk = match name {
            "forwarded" => forwarded(header.value, &mut walk),
            _ => list(header.value, &mut walk),
        };
        if walk == Walk::End {
            break;
        }
    }
    client
}

#[derive(PartialEq, Eq)]
enum Walk {
    On,
    End,
}

/// Walks the elements of one `X-Forwarded-For` line from the right.
fn list(line: &[u8], walk: &mut impl FnMut(Option<SocketAddr>) -> Walk) -> Walk {
    for element in line.rsplit(|byte| *byte == b',') {
        if walk(node(element.trim_ascii())) == Walk::End {
            return Walk::End;
        }
    }
    Walk::On
}

/// Walks the elements of one `Forwarded` line from the right. Quotes can be told from the left only.
fn forwarded(line: &[u8], walk: &mut impl FnMut(Option<SocketAddr>) -> Walk) -> Walk {
    let mut hops = [None; MAX_HOPS];
    let mut count = 0;
    let mut rest = line;
    loop {
        // One that cannot be read may hide where the next begins: what a client has opened, its proxy's word may close.
        let Ok((hop, after)) = element(rest) else { return walk(None) };
        hops[count % MAX_HOPS] = Some(hop);
        count += 1;
        match after {
            Some(after) => rest = after,
            None => break,
        }
    }
    for at in (count.saturating_sub(MAX_HOPS)..count).rev() {
        if walk(hops[at % MAX_HOPS].flatten()) == Walk::End {
            return Walk::End;
        }
    }
    if count > MAX_HOPS { Walk::End } else { Walk::On }
}

struct Unreadable;

/// Where the `for` of an element is, and what follows behind its comma.
type Element<'a> = (Option<SocketAddr>, Option<&'a [u8]>);

/// Reads one element: pairs with `;` between them, up to a comma.
fn element(mut rest: &[u8]) -> Result<Element<'_>, Unreadable> {
    let mut hop = None;
    let mut seen = false;
    loop {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| !is_token(*byte)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if !name.is_empty() {
            let after = after.strip_prefix(b"=").ok_or(Unreadable)?;
            let is_for = name.eq_ignore_ascii_case(b"for");
            if is_for && std::mem::replace(&mut seen, true) {
                return Err(Unreadable);
            }
            if after.first() == Some(&b'"') {
                let mut text = [0; 64];
                let (text, after) = quoted(&after[1..], &mut text)?;
                if is_for {
                    hop = text.and_then(node);
                }
                rest = after;
            } else {
                // A port is not a token's, but written so.
                let end =
                    after.iter().position(|byte| !is_token(*byte) && *byte != b':').unwrap_or(after.len());
                if is_for {
                    hop = node(&after[..end]);
                }
                rest = &after[end..];
            }
        }
        rest = rest.trim_ascii_start();
        match rest.first() {
            None => return Ok((hop, None)),
            Some(b',') => return Ok((hop, Some(&rest[1..]))),
            Some(b';') => rest = &rest[1..],
            Some(_) => return Err(Unreadable),
        }
    }
}

/// Reads a quoted text behind its first quote; what is too long for an address is passed over.
fn quoted<'a, 'b>(input: &'a [u8], text: &'b mut [u8]) -> Result<(Option<&'b [u8]>, &'a [u8]), Unreadable> {
    let (mut at, mut length) = (0, 0);
    loop {
        let byte = match *input.get(at).ok_or(Unreadable)? {
            b'"' => return Ok((text.get(..length), &input[at + 1..])),
            b'\\' => {
                at += 1;
                *input.get(at).ok_or(Unreadable)?
            }
            byte => byte,
        };
        if let Some(place) = text.get_mut(length) {
            *place = byte;
        }
        length += 1;
        at += 1;
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An address as proxies write it: with a port or without, IPv6 in brackets or not. None for `unknown`, `_hidden` and
/// what is no address.
fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            // More than one colon: an IPv6 address without brackets, which has no port.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let ip: IpAddr = host.parse().ok()?;
    let port = match port {
        // `_hidden` is fine as a port, too.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
        Some(port) if !port.starts_with('_') => return None,
        _ => 0,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
