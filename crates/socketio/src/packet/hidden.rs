//! JSON that hides in a string. To who reads a `serde_json::Value`, an object that begins with [`RAW`] is what is written in the
//! string behind it, read anew and as deep again: a megabyte of strings in strings, each nested no deeper than allowed, is a
//! value that no stack holds. Nothing but `serde_json` itself has a use for that key.

use memchr::{memchr, memchr2, memmem};

/// The key by which `serde_json` tells its own readers of a `RawValue`.
pub(crate) const RAW: &str = "$serde_json::private::RawValue";

/// Whether an object in `json` has that key.
pub(crate) fn hides_json(json: &str) -> bool {
    let bytes = json.as_bytes();
    // Its first letter is written as it is, or escaped: hardly any packet has either.
    if bytes.len() < RAW.len() || memchr2(b'$', b'\\', bytes).is_none() {
        return false;
    }
    (memmem::find(bytes, RAW.as_bytes()).is_some() || memmem::find(bytes, b"\\u").is_some()) && has_key(bytes)
}

fn has_key(mut rest: &[u8]) -> bool {
    while let Some(open) = memchr(b'"', rest) {
        rest = &rest[open + 1..];
        let Some(end) = end(rest) else { return false };
        let text = &rest[..end];
        rest = &rest[end + 1..];
        if is_raw(text) && rest.trim_ascii_start().first() == Some(&b':') {
            return true;
        }
    }
    false
}

/// Where a string ends.
fn end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        // What follows a backslash ends no string.
        at += 2;
    }
}

fn is_raw(mut text: &[u8]) -> bool {
    for letter in RAW.bytes() {
        text = match text {
            [b'\\', b'u', digits @ ..] if is_code(digits, letter) => &digits[4..],
            [first, rest @ ..] if *first == letter => rest,
            _ => return false,
        };
    }
    text.is_empty()
}

fn is_code(digits: &[u8], letter: u8) -> bool {
    let code = digits.get(..4).and_then(|digits| std::str::from_utf8(digits).ok());
    code.is_some_and(|code| u16::from_str_radix(code, 16) == Ok(u16::from(letter)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn however_it_is_written() {
        let escaped: String = RAW.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
        let partly = RAW.replace('$', "\\u0024").replace("RawV", "\\u0052aw\\u0056");
        for key in [RAW, &escaped, &partly, &escaped.to_lowercase().replace("\\U", "\\u")] {
            for around in
                ["[\"\\\\\",{KEY\n:\"1\"}]", "{\"\u{e9}\":[{ KEY :\"[[1]]\"}]}", "{\"\\\"\":{KEY:\"1\"}}"]
            {
                let json = around.replace("KEY", &format!("\"{key}\""));
                assert!(hides_json(&json), "{json}");
                // It is what serde_json takes for raw text.
                assert!(
                    !serde_json::from_str::<Value>(&json).unwrap().to_string().contains("RawValue"),
                    "{json}"
                );
            }
        }
    }

    #[test]
    fn what_only_looks_like_it() {
        let longer = format!("[{{\"{RAW}x\":1,\"\\u0024x\":2}},\"{RAW}\",{{\"a\":\"{RAW}\"}}]");
        let quoted = format!("[\"{{\\\"{RAW}\\\":1}}\"]");
        let cut = format!("[\"\\u00\",\"{RAW}");
        for json in [&*longer, &quoted, &cut, "[\"\\u0024\"]", "[\"\\", "[\"\\u", "\"", ""] {
            assert!(!hides_json(json), "{json}");
        }
    }
}
