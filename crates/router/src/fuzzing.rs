//! What must hold for any input of the parsers, as functions that panic where it does not. Driven by the fuzz targets of
//! `fuzz/`, and by the unit tests below with the inputs kept in `tests/corpus`.

use std::mem::MaybeUninit;

use crate::announced::{self, Begins};
use crate::http::MAX_HEADERS;
use crate::http::body::Body;
use crate::http::chunked::Chunked;
use crate::http::forward::{Manner, Peers};
use crate::http::forwarded::{self, ForwardedHeader};
use crate::http::query;
use crate::http::request::{self, Fault, Upgrade};
use crate::http::response::{self, Asked};
use crate::learn::Learner;
use crate::trusted::TrustedProxies;

const PEER: &str = "127.0.0.1:4711";
const MANNERS: [Manner; 3] = [
    Manner::Transparent,
    Manner::Forwarded { native: true, place: true },
    Manner::Forwarded { native: false, place: false },
];

/// A request as a client may send it, its body behind its head: the front door and whoever reads what it passes on see
/// the same one request.
pub fn request(input: &[u8]) {
    let _ = status_of(input);
}

/// How a request is answered by the front door itself: 200 is for the worker to answer, 0 for what is not complete.
pub fn status_of(input: &[u8]) -> u16 {
    let end = request::find_end(input, 0);
    for searched in [1, input.len() / 2, input.len()] {
        if end.is_none_or(|end| searched < end) {
            assert_eq!(
                request::find_end(input, searched),
                end,
                "the end is the same however it is searched for"
            );
        }
    }
    let Some(end) = end else {
        let probed = request::probe(input).err().map_or(0, status);
        return if probed == 0 && input.len() > 16 * 1024 { 431 } else { probed };
    };
    if end > 16 * 1024 {
        return 431;
    }
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let head = match request::parse(&input[..end], &mut storage) {
        Ok(head) => head,
        Err(fault) => return status(fault),
    };
    let _ = query::scan(query::split(head.target.as_bytes()).1);
    told(&head);
    for manner in MANNERS {
        let peer = PEER.parse().ok();
        let mut written = Vec::new();
        head.write(
            &mut written,
            Peers { client: peer, last_hop: peer, secure: false, request_id: None },
            manner,
            false,
        );
        let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        assert_eq!(
            request::find_end(&written, 0),
            Some(written.len()),
            "one head goes out for one that came in"
        );
        match request::parse(&written, &mut storage) {
            Ok(again) => {
                assert_eq!((again.method, again.target), (head.method, head.target));
                assert_eq!(again.body, head.body, "{manner:?}: the same body follows");
                assert!(again.keep_alive || again.upgrade != Upgrade::None, "{manner:?}: the leg stays");
                let private = |name: &str| name.to_ascii_lowercase().starts_with("x-sundew-");
                let marks = again.headers.iter().filter(|header| private(header.name)).count();
                assert!(marks <= 1, "{manner:?}: nobody but the front door says who the client is");
            }
            // What is added may be one too many for us; workers have room for it.
            Err(fault) => assert_eq!(fault, Fault::Headers, "{manner:?}: what is passed on is valid"),
        }
    }
    let mut body: Body = head.body;
    match body.feed(&input[end..], |_| {}) {
        Err(_) => 400,
        Ok(_) if body.is_done() => 200,
        Ok(_) => 0,
    }
}

fn status(fault: Fault) -> u16 {
    match fault {
        Fault::Malformed(_) => 400,
        Fault::Headers => 431,
        Fault::Unsupported(_) => 501,
        Fault::Version => 505,
    }
}

/// Whatever the headers say: an untrusted peer is who it is, and nobody's word makes a client out of nothing.
fn told(head: &request::Head<'_, '_>) {
    let peer = PEER.parse().ok();
    let none = TrustedProxies::default();
    let all = TrustedProxies::parse(&["0.0.0.0/0", "::/0"]).unwrap_or_default();
    let one = TrustedProxies::parse(&["loopback"]).unwrap_or_default();
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        assert_eq!(forwarded::client(head.headers, header, &none, peer), None);
        let _ = forwarded::client(head.headers, header, &all, peer);
        if let Some(client) = forwarded::client(head.headers, header, &one, peer) {
            let again = forwarded::client(head.headers, header, &one, Some(client));
            assert_eq!(again.unwrap_or(client), client, "asked again of the client, it is the same one");
        }
    }
}

/// A chunked body: where it ends, and what it is, does not depend on how it comes.
pub fn chunked(input: &[u8]) {
    let (&step, input) = input.split_first().unwrap_or((&1, input));
    let whole = feed(input, input.len().max(1));
    let pieces = feed(input, usize::from(step).max(1));
    assert_eq!(whole, pieces);
}

/// Bytes taken, the body, and whether it is done.
fn feed(input: &[u8], step: usize) -> Option<(usize, Vec<u8>, bool)> {
    let (mut chunked, mut body, mut used) = (Chunked::new(), Vec::new(), 0);
    for part in input.chunks(step) {
        let taken = chunked.feed(part, |data| body.extend_from_slice(data)).ok()?;
        used += taken;
        assert!(taken == part.len() || chunked.is_done());
        if chunked.is_done() {
            break;
        }
    }
    Some((used, body, chunked.is_done()))
}

/// A worker's response head.
pub fn response(input: &[u8]) {
    let (&flags, input) = input.split_first().unwrap_or((&0, input));
    let asked = Asked {
        head: flags & 1 != 0,
        is_1_1: flags & 2 != 0,
        upgrade: flags & 4 != 0,
        keep_alive: flags & 8 != 0,
    };
    let mut out = Vec::new();
    if let Ok(Some((end, _))) = response::translate(input, asked, &mut out) {
        assert!(end <= input.len());
    }
}

/// The beginning of a connection that a proxy may have announced: once it is known what it is, more bytes change nothing.
pub fn announced(input: &[u8]) {
    let whole = announced::read(input);
    if let Begins::Header { length, .. } = whole {
        assert!(length <= input.len());
        assert_eq!(announced::read(&input[..length]), whole, "what is behind it does not matter");
        assert_eq!(announced::read(&input[..length - 1]), Begins::Incomplete, "and all of it is needed");
    }
    let half = announced::read(&input[..input.len() / 2]);
    assert!(half == Begins::Incomplete || half == whole, "{half:?}, then {whole:?}");
}

/// A worker's answer to a handshake: what is learned does not depend on how it comes, and is part of the answer.
pub fn learn(input: &[u8]) {
    let (&step, input) = input.split_first().unwrap_or((&1, input));
    let (mut whole, mut pieces) = (Learner::default(), Learner::default());
    whole.feed(input);
    for part in input.chunks(usize::from(step).max(1)) {
        pieces.feed(part);
    }
    let learned = whole.look(true);
    assert_eq!(learned, pieces.look(true));
    if let Ok(Some(learned)) = learned {
        assert!(!learned.sid.is_empty() && learned.sid.len() <= input.len() && learned.ttl > 0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = entries
            .map(|path| {
                (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
            })
            .collect();
        assert!(!files.is_empty());
        files
    }

    #[test]
    fn every_request_of_the_corpus_is_answered_as_its_name_says() {
        for (name, bytes) in corpus("requests") {
            let expected: u16 = name[..3].parse().unwrap();
            assert_eq!(status_of(&bytes), expected, "{name}");
            // Whatever comes of the first half, it does not come to be accepted as something else.
            for cut in 0..bytes.len().min(4000) {
                assert!([0, expected, 200].contains(&status_of(&bytes[..cut])), "{name} cut at {cut}");
            }
        }
    }

    #[test]
    fn the_other_corpora_hold() {
        for (name, target) in [
            ("chunked", chunked as fn(&[u8])),
            ("response", response),
            ("announced", announced),
            ("learn", learn),
        ] {
            for (_, bytes) in corpus(name) {
                target(&bytes);
            }
        }
    }
}
