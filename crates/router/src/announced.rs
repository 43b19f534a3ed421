//! Connections that a proxy announces by a PROXY protocol header: it is taken, and nothing behind it, before anything
//! else is looked at. [`read`] decides over bytes; [`serve`] waits for them.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::Interest;
use tokio::time::Instant;

use crate::accept::{Counted, Serve};
use crate::client::Client;
use crate::connection;
use crate::http::answer::{Answer, Manner};
use crate::http::request::Fault;
use crate::raw;
use crate::route;
use crate::scratch;
use crate::tls;

/// Whether connections begin with a PROXY protocol header (versions 1 and 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// Never: such a header is a malformed request.
    #[default]
    Off,
    /// From a trusted proxy they may, and then the client's address is the one in it. From others it is a malformed
    /// request.
    Accept,
    /// They come from trusted proxies and begin with one. All others are closed.
    Require,
}

/// The longest header, in bytes: version 2 with a unix socket's paths, and room for what proxies add (TLVs).
const MAX_HEADER: usize = 4096;
/// The longest line of version 1, by its specification.
const MAX_LINE: usize = 107;
const LINE: &[u8] = b"PROXY ";
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// The beginning of a header.
    Incomplete,
    /// Something else.
    Otherwise,
    /// With a header of this length. `client`: none for a proxy's own connections, and for what has no such address.
    Header { length: usize, client: Option<SocketAddr> },
    /// With a header that is malformed, or too long.
    Malformed,
}

/// Looks for a header at the beginning of `input`.
pub(crate) fn read(input: &[u8]) -> Begins {
    let begins = |mark: &[u8]| input.starts_with(&mark[..mark.len().min(input.len())]);
    let length = if begins(LINE) {
        match memchr::memchr(b'\n', &input[..input.len().min(MAX_LINE)]) {
            Some(at) => at + 1,
            None if input.len() < MAX_LINE => return Begins::Incomplete,
            None => return Begins::Malformed,
        }
    } else if begins(BINARY) {
        match input.get(BINARY.len() + 2..BINARY.len() + 4) {
            Some(&[high, low]) => BINARY.len() + 4 + usize::from(u16::from_be_bytes([high, low])),
            _ => return Begins::Incomplete,
        }
    } else {
        return Begins::Otherwise;
    };
    if length > MAX_HEADER {
        return Begins::Malformed;
    }
    let Some(whole) = input.get(..length) else { return Begins::Incomplete };
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(whole, config) {
        Ok((header, end)) if end == length => match header.proxied_address() {
            Some(address) if address.protocol != Protocol::Stream => Begins::Malformed,
            address => Begins::Header { length, client: address.map(|address| address.source) },
        },
        _ => Begins::Malformed,
    }
}

/// Serves a connection that was just accepted, once what it begins with is known.
pub(crate) async fn serve(mut held: Counted, mut client: Client, serve: Serve) {
    let shared = held.shared.clone();
    let config = &shared.config;
    if !config.trusted_proxies.contains(client.ip()) {
        if config.proxy_protocol == ProxyProtocol::Require {
            return shared.counters.rejected_unannounced.add();
        }
    } else if let Err(answer) = take(&held, &mut client).await {
        shared.counters.rejected_unannounced.add();
        if let Some(answer) = answer.filter(|_| serve == Serve::Http) {
            route::answer(&client, answer, Manner::CLOSE);
            let limits = &config.limits;
            client.linger(limits.linger_bytes, limits.linger_timeout).await;
        }
        return;
    }
    if !held.count_client(client.ip()) {
        shared.counters.rejected_connections.add();
        if serve == Serve::Http {
            connection::refuse(&mut client, Answer::TooManyOfClient);
        }
        return;
    }
    match serve {
        Serve::Http => connection::serve(held, client, None, 0).await,
        Serve::Raw => raw::serve(held, client),
        Serve::Tls(tls) => tls::serve(held, client, tls).await,
    }
}

/// Takes the header, if there is one. An error ends the connection, with that answer if there is one.
async fn take(held: &Counted, client: &mut Client) -> Result<(), Option<Answer>> {
    let config = &held.shared.config;
    let malformed = |what| Some(Answer::Fault(Fault::Malformed(what)));
    let mut deadline = Instant::now() + config.limits.idle_timeout;
    let mut seen = 0;
    loop {
        let begins = scratch::with(0, |scratch| match client.peek(&mut scratch.input[..MAX_HEADER]) {
            Ok(0) => Err(None),
            Ok(length) => Ok((length, read(&scratch.input[..length]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((0, Begins::Incomplete)),
            Err(_) => Err(None),
        })?;
        match begins {
            (_, Begins::Header { length, client: address }) => {
                client.discard(length, &mut [0; 512]).map_err(|_| None)?;
                client.left_unread(true);
                if let Some(address) = address {
                    client.announced(address);
                }
                return Ok(());
            }
            (_, Begins::Malformed) => return Err(malformed("its PROXY protocol header is malformed")),
            (_, Begins::Otherwise) if config.proxy_protocol == ProxyProtocol::Accept => {
                client.left_unread(true);
                return Ok(());
            }
            (_, Begins::Otherwise) => {
                return Err(malformed("connections to this port begin with a PROXY protocol header"));
            }
            (0, Begins::Incomplete) => {}
            (length, Begins::Incomplete) => {
                if std::mem::replace(&mut seen, length) == 0 {
                    deadline = Instant::now() + config.limits.head_timeout;
                }
                client.left_unread(false);
            }
        }
        match tokio::time::timeout_at(deadline, client.ready(Interest::READABLE)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(None),
            Err(_) => return Err((seen > 0).then_some(Answer::Slow)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [BINARY, &[0x20 | command, family], &length, body].concat()
    }

    fn header(input: &[u8]) -> Option<String> {
        match read(input) {
            Begins::Header { length, client } => {
                assert_eq!(length, input.len());
                Some(client.map_or("none".into(), |client| client.to_string()))
            }
            _ => None,
        }
    }

    const V4: &[u8] = &[192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

    #[test]
    fn both_versions_are_read_and_nothing_behind_them() {
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0x1f, 0x90, 0, 80]].concat();
        let tlvs = [V4, &[0x04, 0, 3, 1, 2, 3, 0x03, 0, 0]].concat();
        let unix = [&b"/run/a"[..], &[0; 210]].concat();
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\r\n".to_vec(), "192.0.2.1:8080"),
            (b"PROXY TCP6 2001:db8::1 ::1 8080 80\r\n".to_vec(), "[2001:db8::1]:8080"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "none"),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "none"),
            (binary(1, 0x11, V4), "192.0.2.1:8080"),
            (binary(1, 0x11, &tlvs), "192.0.2.1:8080"),
            (binary(1, 0x21, &v6), "[2001:db8::1]:8080"),
            (binary(1, 0x31, &unix), "none"),
            (binary(1, 0x00, b""), "none"),
            (binary(0, 0x11, V4), "none"),
            (binary(0, 0x00, b""), "none"),
        ] {
            assert_eq!(header(&bytes).as_deref(), Some(client), "{bytes:?}");
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert!(matches!(read(&followed), Begins::Header { length, .. } if length == bytes.len()));
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Begins::Incomplete, "cut at {cut} of {bytes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_left_alone_and_what_is_a_bad_one_is_not() {
        for other in
            [&b"GET / HTTP/1.1\r\n"[..], b"PROXYTCP4", b"\r\nGET /", b"\r\n\r\n\0\r\nQUIX", b"\x16\x03\x01"]
        {
            assert_eq!(read(other), Begins::Otherwise, "{other:?}");
        }
        let long = [&b"PROXY UNKNOWN "[..], &[b'a'; 100]].concat();
        for bad in [
            b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 8080\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 80800 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 8080 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80 \r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 10.0.0.1 8080 80\r\n".to_vec(),
            b"PROXY / HTTP/1.1\r\n".to_vec(),
            b"PROXY \r\n".to_vec(),
            b"PROXY UNKNOWN a\rb\r\n".to_vec(),
            long,
            binary(2, 0x11, V4),
            binary(1, 0x11, &V4[..11]),
            binary(1, 0x12, V4),
            binary(1, 0x41, V4),
            binary(1, 0x31, &[0; 100]),
            binary(1, 0x00, &[0; MAX_HEADER]),
        ] {
            assert_eq!(read(&bad), Begins::Malformed, "{:?}", String::from_utf8_lossy(&bad));
        }
    }
}
