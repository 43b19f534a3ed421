//! Verification of a request: the checks of Node's server in its order, with its codes and messages.

use std::borrow::Cow;

use memchr::memchr;

use crate::{ProtocolVersion, Transport, Transports};

/// The longest session id that is looked up.
pub(crate) const MAX_SID: usize = 64;

/// Why a request is refused: the protocol's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorCode {
    UnknownTransport = 0,
    UnknownSid = 1,
    BadHandshakeMethod = 2,
    BadRequest = 3,
    Forbidden = 4,
    UnsupportedProtocol = 5,
}

impl ErrorCode {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn message(self) -> &'static str {
        match self {
            ErrorCode::UnknownTransport => "Transport unknown",
            ErrorCode::UnknownSid => "Session ID unknown",
            ErrorCode::BadHandshakeMethod => "Bad handshake method",
            ErrorCode::BadRequest => "Bad request",
            ErrorCode::Forbidden => "Forbidden",
            ErrorCode::UnsupportedProtocol => "Unsupported protocol version",
        }
    }
}

/// What the query says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    pub(crate) transport: Cow<'a, str>,
    pub(crate) eio: Cow<'a, str>,
    pub(crate) sid: Option<Cow<'a, str>>,
    /// `j`: the number of a JSONP callback.
    pub(crate) jsonp: Option<Cow<'a, str>>,
    /// `b64`: version 3, and binary is wanted as text.
    pub(crate) base64: bool,
}

impl<'a> Query<'a> {
    pub(crate) fn parse(query: &'a str) -> Query<'a> {
        let mut parsed = Query::default();
        // Nearly all queries are, and the whole is looked through faster than its parts.
        let plain = is_plain(query);
        let decoded = |value| if plain { Cow::Borrowed(value) } else { percent_decode(value) };
        let mut rest = query;
        while !rest.is_empty() {
            let pair;
            (pair, rest) = split_at_byte(rest, b'&');
            // First what every client of the protocol sends.
            if let Some(sid) = pair.strip_prefix("sid=") {
                // An empty sid is no sid, as in Node.
                if !sid.is_empty() {
                    parsed.sid = Some(decoded(sid));
                }
            } else if let Some(eio) = pair.strip_prefix("EIO=") {
                parsed.eio = decoded(eio);
            } else if let Some(transport) = pair.strip_prefix("transport=") {
                parsed.transport = decoded(transport);
            } else {
                match split_at_byte(pair, b'=') {
                    // Without the sign: it is as if nothing stood behind it.
                    ("transport", value) => parsed.transport = decoded(value),
                    ("EIO", value) => parsed.eio = decoded(value),
                    ("j", value) => parsed.jsonp = Some(decoded(value)),
                    ("b64", value) => parsed.base64 = !value.is_empty(),
                    _ => {}
                }
            }
        }
        parsed
    }

    fn version(&self) -> Option<ProtocolVersion> {
        match &*self.eio {
            "4" => Some(ProtocolVersion::V4),
            "3" => Some(ProtocolVersion::V3),
            _ => None,
        }
    }
}

/// What is before and behind the first `separator`. As `split_once`, which sets up a search fit for longer texts.
fn split_at_byte(text: &str, separator: u8) -> (&str, &str) {
    match memchr(separator, text.as_bytes()) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

/// Whether nothing in it is written in another way. Without an early end, many bytes are looked at at once.
fn is_plain(query: &str) -> bool {
    !query.bytes().fold(false, |found, byte| found | matches!(byte, b'%' | b'+'))
}

fn percent_decode(value: &str) -> Cow<'_, str> {
    if is_plain(value) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(String::from_utf8_lossy(&percent_decode_bytes(value.as_bytes())).into_owned())
}

/// As in forms: `+` is a space. What is no escape stays as it is.
pub(crate) fn percent_decode_bytes(value: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let digits = (ahead.next().and_then(hex), ahead.next().and_then(hex));
                if let (Some(high), Some(low)) = digits {
                    decoded.push(high << 4 | low);
                    bytes = ahead;
                } else {
                    decoded.push(b'%');
                }
            }
            other => decoded.push(other),
        }
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|digit| digit as u8)
}

/// The facts about a request that verification looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) query: &'a Query<'a>,
    pub(crate) get: bool,
    /// It asks for a websocket upgrade.
    pub(crate) upgrade: bool,
    pub(crate) origin: Option<&'a [u8]>,
}

/// What a verified request wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted<S> {
    /// A new session. `allow_request` is asked next, then [`check_version`].
    Handshake(Transport),
    /// A session that exists.
    Existing(S, Transport),
}

/// Checks a request up to the point where `allow_request` is asked. `find` looks a session up and tells its transport and
/// version.
pub(crate) fn verify<S>(
    facts: Facts<'_>,
    offered: Transports,
    find: impl FnOnce(&str) -> Option<(S, Transport, ProtocolVersion)>,
) -> Result<Wanted<S>, ErrorCode> {
    let transport = match &*facts.query.transport {
        "polling" => Transport::Polling,
        "websocket" => Transport::Websocket,
        _ => return Err(ErrorCode::UnknownTransport),
    };
    if !offered.contains(transport) {
        return Err(ErrorCode::UnknownTransport);
    }
    if facts.origin.is_some_and(|origin| !origin.iter().all(|&byte| legal_in_header(byte))) {
        return Err(ErrorCode::BadRequest);
    }
    // An upgrade request for a transport that is none: Node accepts the upgrade and closes it.
    if facts.upgrade && transport != Transport::Websocket {
        return Err(ErrorCode::BadRequest);
    }
    if let Some(sid) = &facts.query.sid {
        let found = if sid.len() <= MAX_SID { find(sid) } else { None };
        let Some((session, current, version)) = found else { return Err(ErrorCode::UnknownSid) };
        // Without an upgrade it is a request of polling, whose session has to be, too.
        let fits = facts.upgrade || transport == Transport::Polling && current == transport;
        if !fits || facts.query.version() != Some(version) {
            return Err(ErrorCode::BadRequest);
        }
        return Ok(Wanted::Existing(session, transport));
    }
    if !facts.get {
        return Err(ErrorCode::BadHandshakeMethod);
    }
    if transport == Transport::Websocket && !facts.upgrade {
        return Err(ErrorCode::BadRequest);
    }
    Ok(Wanted::Handshake(transport))
}

/// The last check of a handshake. Stricter than Node, where with `allowEIO3` everything but 4 is version 3.
pub(crate) fn check_version(query: &Query<'_>, allow_eio3: bool) -> Result<ProtocolVersion, ErrorCode> {
    let version = query.version().filter(|version| allow_eio3 || *version == ProtocolVersion::V4);
    version.ok_or(ErrorCode::UnsupportedProtocol)
}

/// Node's `checkInvalidHeaderChar`: tab, printable ASCII and Latin-1.
fn legal_in_header(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether a generated session id can be used: it must survive a query string, a header and a log line.
pub(crate) fn is_valid_sid(sid: &str) -> bool {
    (1..=MAX_SID).contains(&sid.len())
        && sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        query: &'static str,
        get: bool,
        upgrade: bool,
        origin: Option<&'static [u8]>,
    }

    fn case(query: &'static str) -> Case {
        Case { query, get: true, upgrade: false, origin: None }
    }

    impl Case {
        fn post(self) -> Case {
            Case { get: false, ..self }
        }

        fn upgrade(self) -> Case {
            Case { upgrade: true, ..self }
        }

        fn verify(self) -> Result<Wanted<&'static str>, ErrorCode> {
            let query = Query::parse(self.query);
            let facts = Facts { query: &query, get: self.get, upgrade: self.upgrade, origin: self.origin };
            verify(facts, Transports::default(), |sid| match sid {
                "poll" => Some(("poll", Transport::Polling, ProtocolVersion::V4)),
                "old" => Some(("old", Transport::Polling, ProtocolVersion::V3)),
                "ws" => Some(("ws", Transport::Websocket, ProtocolVersion::V4)),
                _ => None,
            })
        }
    }

    #[test]
    fn the_query_is_decoded() {
        let query = Query::parse("EIO=4&transport=poll%69ng&t=abc&sid=a%2Bb+c%zz&sid");
        assert_eq!(query.transport, "polling");
        assert_eq!(query.eio, "4");
        assert_eq!(query.sid.as_deref(), Some("a+b c%zz"));
        assert_eq!(Query::parse("sid=").sid, None);
    }

    #[test]
    fn checks_come_in_nodes_order() {
        assert_eq!(case("").verify(), Err(ErrorCode::UnknownTransport));
        assert_eq!(case("EIO=4&transport=tcp&sid=no").post().verify(), Err(ErrorCode::UnknownTransport));
        let bad_origin = Case { origin: Some(b"http://a\x7f"), ..case("EIO=4&transport=polling&sid=no") };
        assert_eq!(bad_origin.verify(), Err(ErrorCode::BadRequest));
        assert_eq!(case("EIO=3&transport=polling&sid=no").post().verify(), Err(ErrorCode::UnknownSid));
        assert_eq!(case("EIO=4&transport=polling&sid=ws").verify(), Err(ErrorCode::BadRequest));
        assert_eq!(case("EIO=4&transport=websocket&sid=poll").verify(), Err(ErrorCode::BadRequest));
        assert_eq!(case("EIO=4&transport=websocket&sid=ws").verify(), Err(ErrorCode::BadRequest));
        assert_eq!(case("EIO=4&transport=websocket&sid=ws").post().verify(), Err(ErrorCode::BadRequest));
        assert_eq!(case("EIO=3&transport=polling&sid=poll").verify(), Err(ErrorCode::BadRequest));
        assert_eq!(case("EIO=4&transport=polling&sid=old").verify(), Err(ErrorCode::BadRequest));
        assert_eq!(case("transport=polling").post().verify(), Err(ErrorCode::BadHandshakeMethod));
        assert_eq!(case("EIO=4&transport=websocket").verify(), Err(ErrorCode::BadRequest));
        assert_eq!(case("EIO=4&transport=polling").upgrade().verify(), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn good_requests_pass() {
        use Transport::{Polling, Websocket};
        assert_eq!(case("EIO=4&transport=polling").verify(), Ok(Wanted::Handshake(Polling)));
        assert_eq!(case("EIO=4&transport=websocket").upgrade().verify(), Ok(Wanted::Handshake(Websocket)));
        assert_eq!(case("EIO=3&transport=polling&sid=old").verify(), Ok(Wanted::Existing("old", Polling)));
        assert_eq!(case("EIO=4&transport=polling&sid=poll").verify(), Ok(Wanted::Existing("poll", Polling)));
        assert_eq!(
            case("EIO=4&transport=websocket&sid=poll").upgrade().verify(),
            Ok(Wanted::Existing("poll", Websocket))
        );
    }

    #[test]
    fn the_version_is_checked_last() {
        for allow_eio3 in [false, true] {
            let check = |query| check_version(&Query::parse(query), allow_eio3);
            assert_eq!(check("EIO=4"), Ok(ProtocolVersion::V4));
            assert_eq!(check("EIO=3").ok(), allow_eio3.then_some(ProtocolVersion::V3));
            for query in ["", "EIO=abc", "EIO=5", "EIO=2"] {
                assert_eq!(check(query), Err(ErrorCode::UnsupportedProtocol));
            }
        }
    }

    #[test]
    fn transports_that_are_not_offered_are_unknown() {
        let query = Query::parse("EIO=4&transport=polling");
        let facts = Facts { query: &query, get: true, upgrade: false, origin: None };
        let offered = Transports { polling: false, ..Transports::default() };
        assert_eq!(verify(facts, offered, |_| None::<((), _, _)>), Err(ErrorCode::UnknownTransport));
    }

    #[test]
    fn ids_are_short_and_plain() {
        assert!(is_valid_sid("abc_DEF-123"));
        assert!(is_valid_sid(&"x".repeat(64)));
        for sid in ["", "a b", "a.b", "\u{e9}", &"x".repeat(65)] {
            assert!(!is_valid_sid(sid), "{sid:?}");
        }
    }
}
