//! JSONP, the polling of browsers that may not ask across origins: answers are scripts, bodies are forms.

use bytes::Bytes;

use super::request::percent_decode_bytes;

/// A payload as the script that hands it to the page: a call of the callback `___eio[number]` with a string.
///
/// The number is all a client decides about the script's beginning, so no client can make it mean something else.
pub(crate) fn script(number: u32, payload: &[u8]) -> Bytes {
    let text = serde_json::Value::from(String::from_utf8_lossy(payload).into_owned()).to_string();
    // Legal in JSON, the end of a line in old JavaScript.
    let text = text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    format!("___eio[{number}]({text});").into()
}

/// The payload in a form's field `d`. Browsers turn line feeds in forms to something else, so clients escape them.
pub(crate) fn form(body: &[u8]) -> Option<Bytes> {
    let value = body.split(|&byte| byte == b'&').find_map(|pair| pair.strip_prefix(b"d="))?;
    Some(unescape(&percent_decode_bytes(value)).into())
}

/// `\n` is a line feed, `\\n` is `\n`; everything else is itself.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    for &byte in text {
        if byte == b'n' && plain.ends_with(b"\\") {
            plain.pop();
            // The one before it said that this is no line feed.
            plain.push(if plain.ends_with(b"\\") { b'n' } else { b'\n' });
        } else {
            plain.push(byte);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_a_call_with_one_string() {
        let text = |payload: &str| String::from_utf8(script(7, payload.as_bytes()).to_vec()).unwrap();
        assert_eq!(text("1:2"), "___eio[7](\"1:2\");");
        assert_eq!(text("\"\\\n\u{2028}\u{2029}"), r#"___eio[7]("\"\\\n\u2028\u2029");"#);
        assert_eq!(text("</script>\u{e9}"), "___eio[7](\"</script>\u{e9}\");");
    }

    #[test]
    fn a_form_is_unescaped() {
        let plain =
            |body: &str| form(body.as_bytes()).map(|plain| String::from_utf8(plain.to_vec()).unwrap());
        assert_eq!(plain("d=6%3A4hello").as_deref(), Some("6:4hello"));
        assert_eq!(plain("d=a+b%2Bc&e=1").as_deref(), Some("a b+c"));
        assert_eq!(plain("e=1&d=%5Cn").as_deref(), Some("\n"));
        assert_eq!(plain("d=%5C%5Cn").as_deref(), Some("\\n"));
        assert_eq!(plain("d=%5C%5C%5Cn").as_deref(), Some("\\\\n"));
        assert_eq!(plain("d=n%5C%5C").as_deref(), Some("n\\\\"));
        assert_eq!(plain("d=").as_deref(), Some(""));
        for body in ["", "d", "x=1", "xd=1"] {
            assert_eq!(plain(body), None, "{body:?}");
        }
    }
}
