//! Finds Engine.IO's parameters in the query of a request target. Percent-decoded; of several with one name the first
//! counts.

use std::borrow::Cow;

/// What of the query matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query<'a> {
    /// `EIO` is there; its value.
    pub(crate) eio: Option<Cow<'a, [u8]>>,
    pub(crate) transport: bool,
    /// Empty is as if it were not there.
    pub(crate) sid: Option<Cow<'a, [u8]>>,
    /// `j`: the answer is wrapped in a script (JSONP).
    pub(crate) jsonp: Option<u32>,
}

impl Query<'_> {
    pub(crate) fn is_socket_io(&self) -> bool {
        self.eio.is_some() && self.transport
    }
}

/// Splits a request target into path and query.
pub(crate) fn split(target: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[]),
    }
}

pub(crate) fn scan(query: &[u8]) -> Query<'_> {
    let mut found = Query::default();
    if query.is_empty() {
        return found;
    }
    for pair in query.split(|byte| *byte == b'&') {
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        // The longest name, each letter written as three.
        if name.len() > 3 * "transport".len() {
            continue;
        }
        match decode(name).as_ref() {
            b"EIO" if found.eio.is_none() => found.eio = Some(decode(value)),
            b"transport" => found.transport = true,
            b"sid" if found.sid.is_none() && !value.is_empty() => found.sid = Some(decode(value)),
            b"j" if found.jsonp.is_none() => {
                // As Engine.IO does: what is not a digit is dropped.
                let digits = decode(value);
                let digits = digits.iter().filter(|byte| byte.is_ascii_digit()).take(9);
                found.jsonp = Some(digits.fold(0, |sum, byte| sum * 10 + u32::from(byte - b'0')));
            }
            _ => {}
        }
    }
    found
}

/// Percent-decoding with `+` for a space, as in forms. What is no valid escape stays as it is.
fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (*byte, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            (byte, _) => out.push(byte),
        }
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str) -> Query<'_> {
        scan(split(target.as_bytes()).1)
    }

    #[test]
    fn socket_io_is_told_by_two_parameters() {
        for target in
            ["/socket.io/?EIO=4&transport=polling", "/x?a=b&transport=websocket&EIO=3", "/?EIO&transport"]
        {
            assert!(of(target).is_socket_io(), "{target}");
        }
        for target in [
            "/socket.io/",
            "/?EIO=4",
            "/?transport=polling",
            "/?eio=4&transport=polling",
            "/EIO=4&transport=x",
        ] {
            assert!(!of(target).is_socket_io(), "{target}");
        }
    }

    #[test]
    fn escapes_are_seen_through() {
        let query = of("/?%45IO=%34&tr%61nsport=polling&s%69d=ab%2Dcd%5F&t=1");
        assert!(query.is_socket_io());
        assert_eq!(query.eio.as_deref(), Some(&b"4"[..]));
        assert_eq!(query.sid.as_deref(), Some(&b"ab-cd_"[..]));
        assert_eq!(of("/?sid=a+b%").sid.as_deref(), Some(&b"a b%"[..]));
        assert_eq!(of("/?sid=%zz%4").sid.as_deref(), Some(&b"%zz%4"[..]));
    }

    #[test]
    fn the_first_of_several_counts_and_empty_is_none() {
        assert_eq!(of("/?sid=a&sid=b").sid.as_deref(), Some(&b"a"[..]));
        assert_eq!(of("/?sid=&sid=b").sid.as_deref(), Some(&b"b"[..]));
        assert_eq!(of("/?sid=").sid, None);
        assert_eq!(of("/?sid").sid, None);
        assert_eq!(of("/?j=12;alert(3)").jsonp, Some(123));
        assert_eq!(of("/?sid=a?b=c").sid.as_deref(), Some(&b"a?b=c"[..]));
    }
}
