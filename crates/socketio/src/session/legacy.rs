//! What is different for clients of Socket.IO 2 (protocol version 4, on Engine.IO 3): they are in `/` without asking,
//! the answer to CONNECT has no id because the socket's is the session's, a namespace may carry a query, and errors are
//! plain values.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::packet::RAW;

/// The id such a client gives its own socket.
pub(super) fn socket_id(nsp: &str, sid: &str) -> Arc<str> {
    if nsp == "/" { sid.into() } else { format!("{nsp}#{sid}").into() }
}

/// Splits `/name?a=1&a=2&b=3` into the name and `{"a":["1","2"],"b":"3"}`, which is the socket's auth. Without a query
/// the second is empty.
pub(crate) fn split(nsp: &str) -> (&str, String) {
    let Some((name, query)) = nsp.split_once('?') else { return (nsp, String::new()) };
    let mut auth = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key), Value::String(decode(value)));
        if key == RAW {
            // It would not be read as what it is.
            continue;
        }
        match auth.entry(key) {
            serde_json::map::Entry::Vacant(entry) => drop(entry.insert(value)),
            serde_json::map::Entry::Occupied(mut entry) => match entry.get_mut() {
                Value::Array(values) => values.push(value),
                first => *first = Value::Array(vec![first.take(), value]),
            },
        }
    }
    (name, Value::Object(auth).to_string())
}

fn decode(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        plain.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_of_the_sessions() {
        assert_eq!(&*socket_id("/", "abc"), "abc");
        assert_eq!(&*socket_id("/a", "abc"), "/a#abc");
    }

    #[test]
    fn a_namespace_carries_a_query() {
        let check = |nsp: &'static str, name: &str, auth: &str| {
            let (found, json) = split(nsp);
            assert_eq!((found, &*json), (name, auth), "{nsp}");
        };
        check("/a", "/a", "");
        check("/a?", "/a", "{}");
        check("/a?token=abc", "/a", r#"{"token":"abc"}"#);
        check("/a?x=1&x=2&x=3&y", "/a", r#"{"x":["1","2","3"],"y":""}"#);
        check("/a?=&k%20y=a+b%2C%zz%4", "/a", r#"{"":"","k y":"a b,%zz%4"}"#);
        check("/a?q=\"\u{e9}%C3%A9%ff", "/a", "{\"q\":\"\\\"\u{e9}\u{e9}\u{fffd}\"}");
    }
}
