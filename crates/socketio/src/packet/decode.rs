//! Reads the head of a packet, strictly: `<type>[<n>-][<nsp>,][<ack>][json]`. The payload's shape is checked to the
//! depth the protocol asks for (an event is an array whose first element is a name); its values stay raw.

use std::ops::Range;

use memchr::memchr;
use serde::de::IgnoredAny;

use super::plain;

/// Packet types of protocol v5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
}

/// A packet's head; the payload is `text[payload..]`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub(crate) kind: Kind,
    /// How many binary messages follow.
    pub(crate) attachments: usize,
    pub(crate) nsp: &'a str,
    pub(crate) ack: Option<u64>,
    pub(crate) payload: &'a str,
    /// Of an event: its name, and where its arguments start in `payload` (at a comma or the closing bracket).
    pub(crate) event: Option<(EventName, usize)>,
}

/// The name of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EventName {
    /// As it stands in the payload.
    Plain(Range<usize>),
    /// It stands there with escapes.
    Unescaped(String),
}

impl EventName {
    /// The name, in the payload it was found in.
    #[inline(always)]
    pub(crate) fn of<'a>(&'a self, payload: &'a str) -> &'a str {
        match self {
            EventName::Plain(range) => &payload[range.clone()],
            EventName::Unescaped(name) => name,
        }
    }
}

/// What is wrong with a packet. Every one of these closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("the packet is empty")]
    Empty,
    #[error("unknown packet type")]
    UnknownType,
    #[error("illegal number of attachments")]
    Attachments,
    #[error("more attachments than allowed (max_attachments)")]
    TooManyAttachments,
    #[error("a namespace's name begins with a slash")]
    Namespace,
    #[error("illegal acknowledgement id")]
    AckId,
    #[error("the payload does not fit the packet type")]
    Payload,
    #[error("a placeholder does not begin with its two keys, or names no attachment or another one's")]
    Placeholder,
    #[error("the event name is reserved")]
    Reserved,
}

/// Names a client may not use as events, because they mean something on the server (Node: `RESERVED_EVENTS`).
pub(crate) const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Parses one text message.
pub(crate) fn parse(text: &str, max_attachments: usize) -> Result<Header<'_>, ParseError> {
    let bytes = text.as_bytes();
    let (kind, binary) = match bytes.first() {
        None => return Err(ParseError::Empty),
        Some(b'0') => (Kind::Connect, false),
        Some(b'1') => (Kind::Disconnect, false),
        Some(b'2') => (Kind::Event, false),
        Some(b'3') => (Kind::Ack, false),
        // CONNECT_ERROR: only the server sends it.
        Some(b'4') => return Err(ParseError::Payload),
        Some(b'5') => (Kind::Event, true),
        Some(b'6') => (Kind::Ack, true),
        Some(_) => return Err(ParseError::UnknownType),
    };
    let mut at = 1;
    let mut attachments = 0;
    if binary {
        let (count, next) = number(bytes, at).ok_or(ParseError::Attachments)?;
        // "450-" is refused as Node's parser 4.2.7 does: nothing would ever complete it there.
        if bytes.get(next) != Some(&b'-') || count == 0 {
            return Err(ParseError::Attachments);
        }
        attachments = usize::try_from(count).unwrap_or(usize::MAX);
        if attachments > max_attachments {
            return Err(ParseError::TooManyAttachments);
        }
        at = next + 1;
    }
    let nsp = if bytes.get(at) == Some(&b'/') {
        let end = memchr(b',', &bytes[at..]).map_or(bytes.len(), |offset| at + offset);
        let nsp = &text[at..end];
        at = (end + 1).min(bytes.len());
        nsp
    } else {
        "/"
    };
    let mut ack = None;
    if bytes.get(at).is_some_and(u8::is_ascii_digit) {
        let (id, next) = number(bytes, at).ok_or(ParseError::AckId)?;
        ack = Some(id);
        at = next;
    }
    let payload = &text[at..];
    let event = check(kind, payload)?;
    if kind == Kind::Ack && ack.is_none() {
        return Err(ParseError::AckId);
    }
    Ok(Header { kind, attachments, nsp, ack, payload, event })
}

/// Checks the payload as `isPayloadValid` of Node's parser does, and that it is JSON to its end.
#[inline(always)]
pub(crate) fn check(kind: Kind, payload: &str) -> Result<Option<(EventName, usize)>, ParseError> {
    match (kind, payload.as_bytes().first()) {
        (Kind::Connect | Kind::Disconnect, None) => Ok(None),
        (Kind::Connect, Some(b'{')) => end(payload, value(payload, 0)?).map(|()| None),
        (Kind::Ack, Some(b'[')) => {
            let start = skip_space(payload.as_bytes(), 1);
            match payload.as_bytes().get(start) {
                Some(b']') => end(payload, start + 1)?,
                _ => elements(payload, value(payload, start)?)?,
            }
            Ok(None)
        }
        (Kind::Event, Some(b'[')) => {
            let (name, rest) = name(payload)?;
            if RESERVED.contains(&name.of(payload)) {
                return Err(ParseError::Reserved);
            }
            elements(payload, rest)?;
            Ok(Some((name, rest)))
        }
        _ => Err(ParseError::Payload),
    }
}

/// The first element of the array: a string, or a number (whose digits then are the name). And where what follows it
/// starts.
#[inline(always)]
pub(super) fn name(payload: &str) -> Result<(EventName, usize), ParseError> {
    let bytes = payload.as_bytes();
    let start = skip_space(bytes, 1);
    let (name, stop) = match plain_string(bytes, start) {
        Some(stop) => (EventName::Plain(start + 1..stop - 1), stop),
        None => {
            let stop = any_value(payload, start)?;
            let name = match bytes[start] {
                b'"' => EventName::Unescaped(
                    serde_json::from_str(&payload[start..stop]).map_err(|_| ParseError::Payload)?,
                ),
                b'-' | b'0'..=b'9' => EventName::Plain(start..stop),
                _ => return Err(ParseError::Payload),
            };
            (name, stop)
        }
    };
    Ok((name, skip_space(bytes, stop)))
}

/// The rest of an array, from behind an element to the end of the payload.
#[inline(always)]
fn elements(payload: &str, mut at: usize) -> Result<(), ParseError> {
    loop {
        at = skip_space(payload.as_bytes(), at);
        match payload.as_bytes().get(at) {
            Some(b',') => at = value(payload, at + 1)?,
            Some(b']') => return end(payload, at + 1),
            _ => return Err(ParseError::Payload),
        }
    }
}

/// Where the JSON value at `at` ends: read without building anything and without recursion (types that read it are held
/// to serde_json's 128 levels).
#[inline(always)]
fn value(payload: &str, at: usize) -> Result<usize, ParseError> {
    // What most values are is read faster than by a reader of everything.
    if let Some(stop) = plain_string(payload.as_bytes(), at) {
        return Ok(stop);
    }
    any_value(payload, at)
}

fn any_value(payload: &str, at: usize) -> Result<usize, ParseError> {
    let mut values = serde_json::Deserializer::from_str(&payload[at..]).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(at + values.byte_offset()),
        _ => Err(ParseError::Payload),
    }
}

/// Where the string at `at` ends, if it is one without escapes.
#[inline(always)]
fn plain_string(bytes: &[u8], at: usize) -> Option<usize> {
    let text = bytes.get(at..)?.strip_prefix(b"\"")?;
    let end = plain::prefix(text);
    (text.get(end) == Some(&b'"')).then_some(at + end + 2)
}

/// Nothing but space follows.
fn end(payload: &str, at: usize) -> Result<(), ParseError> {
    if skip_space(payload.as_bytes(), at) == payload.len() { Ok(()) } else { Err(ParseError::Payload) }
}

/// A run of digits; `None` if there is none or it does not fit.
fn number(bytes: &[u8], from: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    let mut at = from;
    while let Some(digit) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        at += 1;
    }
    (at > from).then_some((value, at))
}

pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Header<'_>, ParseError> {
        super::parse(text, 10)
    }

    #[test]
    fn connect() {
        let header = parse("0").unwrap();
        assert_eq!((header.kind, header.nsp, header.payload), (Kind::Connect, "/", ""));
        assert_eq!(parse("0{\"token\":\"123\"}").unwrap().payload, "{\"token\":\"123\"}");
        assert_eq!(parse("0/custom").unwrap().nsp, "/custom");
        let header = parse("0/custom,{\"a\":1}").unwrap();
        assert_eq!((header.nsp, header.payload), ("/custom", "{\"a\":1}"));
        for bad in ["0[]", "0\"x\"", "0{", "0{}x", "0null", "0/a,1{}"] {
            let result = parse(bad);
            // An ack id on CONNECT is ignored, as Node does.
            assert!(result.is_err() || bad == "0/a,1{}", "{bad}: {result:?}");
        }
    }

    #[test]
    fn disconnect_has_no_payload() {
        assert_eq!(parse("1/custom").unwrap().nsp, "/custom");
        assert_eq!(parse("1/custom,").unwrap().nsp, "/custom");
        assert_eq!(parse("1{}"), Err(ParseError::Payload));
    }

    #[test]
    fn event_name_and_arguments() {
        let header = parse("2/nsp,12[\"message\",1,\"2\"]").unwrap();
        assert_eq!((header.nsp, header.ack), ("/nsp", Some(12)));
        let (name, rest) = header.event.unwrap();
        assert_eq!((name.of(header.payload), &header.payload[rest..]), ("message", ",1,\"2\"]"));
        let (name, rest) = parse("2[\"a\\n\\u00e9\"]").unwrap().event.unwrap();
        assert_eq!((name.of(""), rest), ("a\n\u{e9}", 12));
        let header = parse("2[ 42 , 1]").unwrap();
        assert_eq!(header.event.unwrap().0.of(header.payload), "42");
    }

    #[test]
    fn refused() {
        for (text, error) in [
            ("", ParseError::Empty),
            ("abc", ParseError::UnknownType),
            ("7", ParseError::UnknownType),
            ("4{}", ParseError::Payload),
            ("2{}", ParseError::Payload),
            ("2", ParseError::Payload),
            ("2[]", ParseError::Payload),
            ("2[{}]", ParseError::Payload),
            ("2[null]", ParseError::Payload),
            ("2[\"a\"", ParseError::Payload),
            ("2[\"a\",]", ParseError::Payload),
            ("2[\"a\"]]", ParseError::Payload),
            ("2[\"a\\", ParseError::Payload),
            ("2[1-2]", ParseError::Payload),
            ("2abc[\"message\"]", ParseError::Payload),
            ("299999999999999999999[\"a\"]", ParseError::AckId),
            ("3[\"a\"]", ParseError::AckId),
            ("31{}", ParseError::Payload),
            ("5[\"a\"]", ParseError::Attachments),
            ("5-[\"a\"]", ParseError::Attachments),
            ("50-[\"a\"]", ParseError::Attachments),
            ("52[\"a\"]", ParseError::Attachments),
            ("511-[\"a\"]", ParseError::TooManyAttachments),
            ("599999999999999999999-[\"a\"]", ParseError::Attachments),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        for name in RESERVED {
            assert_eq!(parse(&format!("2[\"{name}\"]")), Err(ParseError::Reserved));
        }
        assert_eq!(parse("2[\"discon\\u006eect\"]"), Err(ParseError::Reserved));
    }

    #[test]
    fn a_string_is_taken_and_ends_as_any_value_is_and_does() {
        let letters = ["\"", "\\", "a", "\n", " ", "\u{e9}"];
        for (length, words) in (0..=6).map(|length| (length, letters.len().pow(length))) {
            for word in 0..words {
                let digits = (0..length).map(|at| word / letters.len().pow(at) % letters.len());
                let text: String = std::iter::once("\"").chain(digits.map(|digit| letters[digit])).collect();
                assert_eq!(value(&text, 0), any_value(&text, 0), "{text:?}");
            }
        }
    }

    #[test]
    fn deep_nesting_overflows_nothing() {
        let text = format!("2[\"a\",{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        let _ = parse(&text);
    }

    #[test]
    fn binary() {
        let header = parse("52-/a,3[\"x\",{\"_placeholder\":true,\"num\":0}]").unwrap();
        assert_eq!((header.attachments, header.nsp, header.ack), (2, "/a", Some(3)));
        let header = parse("61-7[{\"_placeholder\":true,\"num\":0}]").unwrap();
        assert_eq!((header.kind, header.attachments, header.ack), (Kind::Ack, 1, Some(7)));
    }

    #[test]
    fn multibyte_text_is_no_trouble() {
        for text in
            ["2\u{1f600}", "\u{e9}", "5\u{e9}-", "2/\u{e9},[\"\u{4f60}\",\"\u{597d}\"]", "2[\"\\\u{e9}\"]"]
        {
            let _ = parse(text);
        }
    }
}
