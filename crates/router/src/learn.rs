//! Reads the session id, and how long the session may be silent, out of a worker's answer to a handshake. It need not be
//! parsed for that: whether it is a packet of Engine.IO 4, a payload of Engine.IO 3 with lengths or in binary, or a script
//! (JSONP), the open packet's JSON is in there somewhere.

use std::borrow::Cow;

/// How much of an answer is looked at, in bytes. So much of it is held back at most.
pub(crate) const HOLD: usize = 4096;
/// What a session gets beyond what the worker said, in seconds: a request of its can be late on its way.
const SLACK: u64 = 15;
/// For a worker that does not say: Engine.IO's defaults, in milliseconds.
const PING_INTERVAL: u64 = 25_000;
const PING_TIMEOUT: u64 = 20_000;
/// The longest silence that is believed, in seconds.
const MAX_TTL: u64 = 24 * 3600;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Learned {
    pub(crate) sid: Vec<u8>,
    /// Seconds to remember it without a request.
    pub(crate) ttl: u32,
}

/// An answer, as far as it came.
#[derive(Debug, Default)]
pub(crate) struct Learner {
    body: Vec<u8>,
}

impl Learner {
    /// Goes on with the body, chunks undone.
    pub(crate) fn feed(&mut self, data: &[u8]) {
        let room = HOLD - self.body.len();
        self.body.extend_from_slice(&data[..data.len().min(room)]);
    }

    /// Looks for what is to be learned. `Err`: more is needed. `ended`: there is no more.
    pub(crate) fn look(&self, ended: bool) -> Result<Option<Learned>, ()> {
        let Found { sid, interval, timeout } = read(&self.body);
        let complete = sid.is_some() && interval.is_some() && timeout.is_some();
        if !complete && !ended && self.body.len() < HOLD {
            return Err(());
        }
        let silence = interval.unwrap_or(PING_INTERVAL).saturating_add(timeout.unwrap_or(PING_TIMEOUT));
        let ttl = (silence.div_ceil(1000).saturating_add(SLACK)).min(MAX_TTL);
        Ok(sid.map(|sid| Learned { sid, ttl: u32::try_from(ttl).unwrap_or(u32::MAX) }))
    }
}

#[derive(Debug, Default)]
struct Found {
    sid: Option<Vec<u8>>,
    interval: Option<u64>,
    timeout: Option<u64>,
}

fn read(body: &[u8]) -> Found {
    // In a script the JSON is a string in turn.
    let json = match memchr::memmem::find(body, br#"\"sid\""#) {
        Some(_) => {
            // Behind the script's own quote.
            let quote = memchr::memchr(b'"', body).filter(|at| !body[..*at].ends_with(b"\\"));
            Cow::Owned(unescape(&body[quote.map_or(0, |at| at + 1)..]).0)
        }
        None => Cow::Borrowed(body),
    };
    Found {
        sid: value(&json, br#""sid""#).and_then(string).filter(|sid| !sid.is_empty()),
        interval: value(&json, br#""pingInterval""#).and_then(number),
        timeout: value(&json, br#""pingTimeout""#).and_then(number),
    }
}

/// What follows a key and its colon.
fn value<'a>(json: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(json, key)?;
    let rest = json[at + key.len()..].trim_ascii_start();
    Some(rest.strip_prefix(b":")?.trim_ascii_start())
}

/// A string that has ended.
fn string(json: &[u8]) -> Option<Vec<u8>> {
    let json = json.strip_prefix(b"\"")?;
    let (string, ended) = unescape(json);
    ended.then_some(string)
}

/// A number that has ended.
fn number(json: &[u8]) -> Option<u64> {
    let digits = json.iter().take_while(|byte| byte.is_ascii_digit()).count();
    json.get(digits)?;
    std::str::from_utf8(&json[..digits]).ok()?.parse().ok()
}

/// The text of a JSON string up to its end, and whether it has one. What is cut off amid an escape is left out.
fn unescape(json: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(json.len());
    let mut rest = json;
    loop {
        let Some((byte, after)) = rest.split_first() else { return (out, false) };
        rest = after;
        match byte {
            b'"' => return (out, true),
            b'\\' => {
                let Some((escape, after)) = rest.split_first() else { return (out, false) };
                rest = after;
                match escape {
                    b'n' => out.push(b'\n'),
                    b'r' => out.push(b'\r'),
                    b't' => out.push(b'\t'),
                    b'b' => out.push(8),
                    b'f' => out.push(12),
                    b'u' => {
                        let Some((character, after)) = unicode(rest) else { return (out, false) };
                        rest = after;
                        let mut buffer = [0; 4];
                        out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                    }
                    other => out.push(*other),
                }
            }
            other => out.push(*other),
        }
    }
}

/// The character of a `\u` escape, of two if it takes two.
fn unicode(rest: &[u8]) -> Option<(char, &[u8])> {
    fn unit(rest: &[u8]) -> Option<(u16, &[u8])> {
        let (digits, after) = rest.split_at_checked(4)?;
        let digits = std::str::from_utf8(digits).ok()?;
        Some((u16::from_str_radix(digits, 16).ok()?, after))
    }
    let (first, after) = unit(rest)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER), after));
    }
    let Some(second) = after.strip_prefix(b"\\u").and_then(unit) else {
        return Some((char::REPLACEMENT_CHARACTER, after));
    };
    let character = char::decode_utf16([first, second.0]).next().and_then(Result::ok);
    Some((character.unwrap_or(char::REPLACEMENT_CHARACTER), second.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

    fn whole(body: &[u8]) -> Option<Learned> {
        let mut learner = Learner::default();
        learner.feed(body);
        learner.look(true).unwrap()
    }

    fn sid(body: &[u8]) -> Option<String> {
        whole(body).map(|learned| String::from_utf8(learned.sid).unwrap())
    }

    /// As a script, the way Engine.IO writes it.
    fn script(json: &str) -> String {
        let escaped = json.replace('\\', "\\\\").replace('"', "\\\"");
        format!("___eio[3](\"{escaped}\");")
    }

    #[test]
    fn every_way_an_open_packet_is_written() {
        let expected = Learned { sid: b"lv_VI97HAXpY6yYWAAAC".to_vec(), ttl: 45 + 15 };
        let eio3 = format!("{}:{PLAIN}2:40", PLAIN.len());
        let mut binary = vec![0];
        binary.extend(PLAIN.len().to_string().bytes().map(|digit| digit - b'0'));
        binary.push(255);
        binary.extend_from_slice(PLAIN.as_bytes());
        binary.extend_from_slice(b"\x00\x02\xff40");
        let spaced = PLAIN.replace(':', ": ").replace(',', ", ");
        let (script, script3) = (script(PLAIN), script(&eio3));
        let ways: [&[u8]; 6] = [
            PLAIN.as_bytes(),
            eio3.as_bytes(),
            &binary,
            spaced.as_bytes(),
            script.as_bytes(),
            script3.as_bytes(),
        ];
        for body in ways {
            assert_eq!(whole(body).as_ref(), Some(&expected), "{}", String::from_utf8_lossy(body));
            // However it is cut in two, and byte by byte: never something else, and once all is there, that.
            for cut in 0..=body.len() {
                let mut learner = Learner::default();
                learner.feed(&body[..cut]);
                if let Ok(early) = learner.look(false) {
                    assert_eq!(early.as_ref(), Some(&expected), "cut at {cut}");
                }
                learner.feed(&body[cut..]);
                assert_eq!(learner.look(true).unwrap().as_ref(), Some(&expected), "cut at {cut}");
            }
            let mut learner = Learner::default();
            let first = body.iter().position(|byte| {
                learner.feed(&[*byte]);
                learner.look(false).is_ok()
            });
            assert!(first.is_some_and(|at| at + 10 < body.len()), "it need not end to be understood");
        }
    }

    #[test]
    fn session_ids_of_any_kind() {
        for name in ["a", "user:1/2?x=y&z#ü", "with \"quotes\" and \\", &"long".repeat(800), "\u{1f600}"] {
            let json = format!(
                r#"0{{"sid":"{}","pingInterval":1}}"#,
                name.replace('\\', "\\\\").replace('"', "\\\"")
            );
            assert_eq!(sid(json.as_bytes()).as_deref(), Some(name));
            assert_eq!(sid(script(&json).as_bytes()).as_deref(), Some(name));
        }
        assert_eq!(
            sid(br#""0{\"sid\":\"first\"}""#).as_deref(),
            Some("first"),
            "a script of nothing but its string"
        );
        assert_eq!(sid(br#"0{"sid":"\u00fc\ud83d\ude00\n"}"#).as_deref(), Some("ü\u{1f600}\n"));
    }

    #[test]
    fn what_has_none_teaches_nothing() {
        for body in [
            "",
            "ok",
            r#"{"code":1}"#,
            r#"0{"sid":""}"#,
            r#"0{"sid":"cut off"#,
            r#"0{"sid":7}"#,
            r#"\"sid\""#,
        ] {
            assert_eq!(sid(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn no_more_than_so_much_is_held() {
        let mut learner = Learner::default();
        learner.feed(&[b'x'; HOLD - 1]);
        assert_eq!(learner.look(false), Err(()));
        learner.feed(PLAIN.as_bytes());
        assert_eq!(learner.look(false), Ok(None));
    }

    #[test]
    fn silence_is_taken_from_the_worker_within_reason() {
        let ttl = |rest: &str| whole(format!(r#"0{{"sid":"a"{rest}}}"#).as_bytes()).unwrap().ttl;
        assert_eq!(ttl(""), 60);
        assert_eq!(ttl(r#","pingTimeout":500,"pingInterval":1200"#), 17);
        assert_eq!(ttl(r#","pingInterval":18446744073709551615,"pingTimeout":1"#), 24 * 3600);
        assert_eq!(ttl(r#","pingInterval":99999999999999999999999,"pingTimeout":5000"#), 45);
    }
}
