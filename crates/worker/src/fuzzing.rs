//! What must hold for any input of the parser of request heads, as a function that panics where it does not. Driven by a fuzz
//! target of `fuzz/`, and by the unit test below with the inputs kept in `tests/corpus`.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method};

use crate::http1::request::{self, Head};

/// A request as a client may send it: what is taken is whole, is what its bytes say, and is taken the same way when it is
/// written anew.
pub fn head(input: &[u8]) {
    let _ = takes(input);
}

/// Whether the head is taken.
pub fn takes(input: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(input);
    let complete = request::is_complete(input, 0);
    let read = request::read(&bytes, |_| true);
    assert!(read.is_none() || complete, "a head that is taken has its end");
    if !complete {
        // It is waited for, or is not; neither panics.
        let _ = request::may_come(input);
    }
    let Some(head) = read else { return false };
    assert!(input[..head.end].ends_with(b"\r\n\r\n"), "it ends where everybody sees its end");
    for searched in 0..head.end {
        assert!(request::is_complete(&input[..head.end], searched), "however it was searched");
    }
    let lines = input[..head.end].split(|byte| *byte == b'\n').count();
    // The request line, the empty one, and what is behind the last LF; empty lines may come before.
    assert!(head.request.headers().len() <= lines.saturating_sub(3), "no header is made up");
    let length = head.request.headers().get(CONTENT_LENGTH).map(|length| length.to_str().expect("digits"));
    match (head.request.method(), length) {
        (&Method::GET, None | Some("0")) => assert_eq!(head.body, 0),
        (&Method::POST, Some(length)) => assert_eq!(length.parse(), Ok(head.body)),
        // Leading zeros say nothing.
        (&Method::GET, Some(length)) => assert_eq!((length.parse(), head.body), (Ok(0), 0)),
        other => panic!("taken: {other:?}"),
    }
    let (written, again) = rewritten(&head);
    assert_eq!((again.body, again.keep_alive, again.upgrade), (head.body, head.keep_alive, head.upgrade));
    assert_eq!(again.end, written.len());
    assert_eq!(again.request.uri(), head.request.uri());
    assert_eq!(sorted(again.request.headers()), sorted(head.request.headers()));
    true
}

fn rewritten(head: &Head) -> (Vec<u8>, Head) {
    let mut written = format!("{} {} HTTP/1.1\r\n", head.request.method(), head.request.uri()).into_bytes();
    for (name, value) in head.request.headers() {
        written.extend_from_slice(name.as_str().as_bytes());
        written.extend_from_slice(b": ");
        written.extend_from_slice(value.as_bytes());
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"\r\n");
    let again =
        request::read(&Bytes::from(written.clone()), |_| true).expect("what was taken is taken again");
    (written, again)
}

fn sorted(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    let mut sorted: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Each file's name begins with whether it is taken.
    #[test]
    fn the_corpus_is_read_as_its_names_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/head");
        let (mut taken, mut others) = (0, 0);
        for entry in std::fs::read_dir(folder).expect("the corpus").flatten() {
            let input = std::fs::read(entry.path()).expect("an input");
            let name = entry.file_name().into_string().expect("a name");
            let expected = name.starts_with("taken-");
            assert_eq!(super::takes(&input), expected, "{name}");
            *(if expected { &mut taken } else { &mut others }) += 1;
        }
        assert!(taken >= 8 && others >= 20, "{taken} and {others}: the corpus is not there");
    }
}
