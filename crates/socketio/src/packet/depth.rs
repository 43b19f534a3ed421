//! How deep a client's JSON is nested. What it sends is handed on as it came, to handlers, clients and servers whose
//! readers may recurse.

/// Whether arrays and objects are nested deeper than `most` in `json`. Brackets are counted without looking at strings
/// first: hardly any packet has so many.
pub(crate) fn too_deep(json: &str, most: usize) -> bool {
    let bytes = json.as_bytes();
    bytes.len() > most && brackets(bytes) > most && depth_exceeds(bytes, most)
}

/// How many open. As many as fit in a byte are counted in bytes, many bytes at once.
fn brackets(bytes: &[u8]) -> usize {
    let count =
        |chunk: &[u8]| chunk.iter().fold(0, |count: u8, byte| count + u8::from(matches!(byte, b'[' | b'{')));
    bytes.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum()
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
        assert!(!too_deep(&nested(1000), 1000) && too_deep(&nested(1000), 999));
    }
}
