//! What must hold for anything a client sends, as functions that panic where it does not. Driven by the fuzz targets of
//! `fuzz/`, and by the unit tests below with the inputs kept in `tests/corpus`.

use bytes::Bytes;
use serde_json::Value;
use sundew_engineio::{Frames, Text};

use crate::packet::{Args, Header, Kind, ack, event, hides_json, parse, too_deep};
use crate::session::legacy;

const MAX_ATTACHMENTS: usize = 10;
const MAX_DEPTH: usize = 64;

/// A packet of the built-in parser: what is read is a part of what was sent, and survives being written and read.
pub fn packet(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(header) = parse(text, MAX_ATTACHMENTS) else { return };
    let Header { kind, attachments, nsp, ack: id, payload, event: name } = header;
    assert!(attachments <= MAX_ATTACHMENTS && text.ends_with(payload) && text.contains(nsp) | (nsp == "/"));
    let (plain, auth) = legacy::split(nsp);
    assert!(nsp.starts_with(plain) && (auth.is_empty() || serde_json::from_str::<Value>(&auth).is_ok()));
    if too_deep(payload, MAX_DEPTH) || hides_json(payload) || matches!(kind, Kind::Connect | Kind::Disconnect)
    {
        assert!(name.is_none() || kind == Kind::Event);
        return;
    }
    let start = text.len() - payload.len();
    let rest = name.as_ref().map(|(_, rest)| start + rest);
    let bytes: Vec<Bytes> = (0..attachments).map(|number| vec![number as u8; number].into()).collect();
    let args = Args::new(Text::from(text), start, rest, bytes);
    // Whatever a handler asks for, it is told that it is not there.
    drop((
        args.decode::<(Value, Option<Bytes>)>(),
        args.decode::<Vec<u8>>(),
        args.decode::<Option<String>>(),
    ));

    let written = match (kind, &name, id) {
        (Kind::Event, Some((name, _)), id) => event(nsp, id, name.of(payload), &args),
        (Kind::Ack, None, Some(id)) => ack(nsp, id, &args),
        (kind, name, id) => panic!("{kind:?} with the name {name:?} and the id {id:?}"),
    };
    let written = written.unwrap_or_else(|error| panic!("not writable: {error}"));
    let first = first_text(&written);
    let again =
        parse(&first, MAX_ATTACHMENTS).unwrap_or_else(|error| panic!("not readable: {error}: {first}"));
    assert_eq!((again.kind, again.nsp, again.ack), (kind, nsp, id));
    let called = name.as_ref().map(|(name, _)| name.of(payload));
    assert_eq!(again.event.as_ref().map(|(name, _)| name.of(again.payload)), called);
    let start = first.len() - again.payload.len();
    let rest = again.event.as_ref().map(|(_, rest)| start + rest);
    assert_eq!(Args::new(Text::from(&*first), start, rest, Vec::new()).elements(), args.elements());
}

/// The text of the first frame, without the engine's packet type.
fn first_text(frames: &Frames) -> String {
    let bytes = frames.as_bytes();
    let (start, length) = match bytes[1] {
        126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        127 => panic!("longer than any input"),
        length => (2, usize::from(length)),
    };
    String::from_utf8(bytes[start + 1..start + length].to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    #[test]
    fn the_corpus_of_packets_holds() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/packet");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let whole = std::fs::read(entry.unwrap().path()).unwrap();
            super::packet(&whole);
            for cut in 0..whole.len().min(200) {
                super::packet(&whole[..cut]);
            }
            count += 1;
        }
        assert!(count >= 15, "{count} inputs");
    }
}
