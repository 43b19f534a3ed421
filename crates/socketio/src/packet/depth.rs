//! How deep a client's JSON is nested. What it sends is handed on as it came, to handlers, clients and servers whose
//! readers may recurse.

/// Whether arrays and objects are nested deeper than `most` in `json`. Brackets are counted without looking at strings
/// first: hardly any packet has so many.
pub(crate) fn too_deep(json: &str, most: usize) -> bool {
    let bytes = json.as_bytes();
    let opens = |byte: &&u8| matches!(byte, b'[' | b'{');
    bytes.len() > most && bytes.iter().filter(opens).count() > most && depth_exceeds(bytes, most)
}

fn depth_exceeds(bytes: &[u8], most: usize) -> bool {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                at += 1;
                while let Some(&byte) = bytes.get(at)
                    && byte != b'"'
                {
                    // What follows a backslash ends no string.
                    at += if byte == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::too_deep;

    #[test]
    fn depth() {
        let nested = |depth: usize| format!("2{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!too_deep(&nested(128), 128) && too_deep(&nested(129), 128));
        assert!(!too_deep("2[\"[[[[{{{{\\\"[[[\",[1],[2],{\"a\":[]}]", 3));
        assert!(too_deep("2[\"x\\\\\",[1],{\"a\":[{}]}]", 3));
        assert!(!too_deep(&format!("2[{}1]", "[],".repeat(1000)), 2));
        // No JSON at all: the parser's to refuse.
        for text in ["2[[[\"", "2[[[\"\\", "]]]][[[[", ""] {
            let _ = too_deep(text, 2);
        }
        assert!(too_deep("]]]][[[", 2));
    }
}
