//! What must hold for any input of the parsers, as functions that panic where it does not. Driven by the fuzz targets of
//! `fuzz/`, and by the unit tests below with the inputs kept in `tests/corpus`.

use bytes::{Bytes, BytesMut};

use crate::proto::deflate::{Agreed, Deflater, Inflater, agree};
use crate::proto::dialect::Dialect;
use crate::proto::encoding::Encoding;
use crate::proto::packet::Packet;
use crate::proto::payload::Packets;
use crate::proto::request::MAX_SID;
use crate::proto::websocket::{Decoder, Item, Violation};
use crate::proto::webtransport::{self, Opening};
use crate::{Frames, Message, PerMessageDeflate, ProtocolVersion};

/// The largest message of these tests.
const MAX: usize = 4096;

/// A request's body in every dialect: what is read is no larger than what was sent, and survives being written and read.
pub fn payload(input: &[u8]) {
    let v3 = Dialect { version: ProtocolVersion::V3, binary: true, jsonp: None };
    for dialect in [Dialect::V4, v3, Dialect { binary: false, ..v3 }] {
        for jsonp in [None, Some(1)] {
            for octets in [false, true] {
                let dialect = Dialect { jsonp, ..dialect };
                if octets && !dialect.takes_octets() {
                    continue;
                }
                if let Ok(packets) = dialect.read(Bytes::copy_from_slice(input), octets) {
                    read(packets, input.len(), dialect);
                }
            }
        }
    }
}

fn read(packets: Packets, size: usize, dialect: Dialect) {
    let single = packets.single_control();
    let read: Vec<_> = packets.collect();
    if let Some(single) = single {
        assert_eq!(read, [Ok(single)], "a lone heartbeat is the whole body");
    }
    let errors = read.iter().filter(|packet| packet.is_err()).count();
    assert!(errors == usize::from(read.last().is_some_and(Result::is_err)), "an error is the end");
    let messages: Vec<Message> = read
        .into_iter()
        .filter_map(|packet| match packet {
            Ok(Packet::Message(message)) => Some(message),
            _ => None,
        })
        .collect();
    let total: usize = messages.iter().map(|message| frames(message).len()).sum();
    assert!(total <= size * 2 + 16, "{total} bytes out of {size}");
    if messages.is_empty() {
        return;
    }

    let queued: Vec<Frames> = messages
        .iter()
        .map(frames)
        .map(|frames| match dialect.version {
            ProtocolVersion::V4 => frames,
            ProtocolVersion::V3 => frames.for_v3(dialect.binary).unwrap_or(frames),
        })
        .collect();
    let plain = Dialect { jsonp: None, ..dialect };
    let answer = plain.answer(queued.iter().flat_map(Frames::iter), total);
    let octets = answer.kind == crate::proto::dialect::AnswerKind::Octets;
    let again = plain.read(answer.body, octets).unwrap_or_else(|error| panic!("{error}"));
    // The separator of version 4 may stand in a message that came in a form; only what version 4 can say comes back.
    let again: Vec<_> = again.collect();
    let split = |message: &Message| matches!(message, Message::Text(text) if text.contains('\u{1e}'));
    if dialect.version == ProtocolVersion::V3 || !messages.iter().any(split) {
        let expected: Vec<_> = messages.into_iter().map(|message| Ok(Packet::Message(message))).collect();
        assert_eq!(again, expected);
    }
}

fn frames(message: &Message) -> Frames {
    match message {
        Message::Text(text) => Frames::text(text),
        Message::Binary(data) => Frames::binary(data),
    }
}

fn agreed(takeover: bool) -> Option<Agreed> {
    agree(["permessage-deflate"].into_iter(), &options(takeover))
}

fn options(context_takeover: bool) -> PerMessageDeflate {
    PerMessageDeflate { threshold: 0, context_takeover, ..PerMessageDeflate::default() }
}

/// What a websocket peer sends, with and without compression: it reads the same however it is cut, and nothing is larger
/// than allowed.
pub fn websocket(input: &[u8]) {
    let decoders = || {
        let inflating = |takeover| Some(Decoder::inflating(MAX, Inflater::new(agreed(takeover)?)));
        [Some(Decoder::new(MAX)), inflating(false), inflating(true)].into_iter().flatten()
    };
    for (mut whole, mut cut) in decoders().zip(decoders()) {
        let expected = decode(&mut whole, [input].into_iter());
        let step = usize::from(input.first().copied().unwrap_or_default() % 7) + 1;
        assert_eq!(decode(&mut cut, input.chunks(step)), expected, "in parts of {step}");
        for item in expected.0 {
            if let Item::Text(data) | Item::Binary(data) = item {
                assert!(data.len() <= MAX);
            }
        }
    }
}

fn decode<'a>(
    decoder: &mut Decoder,
    parts: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Item>, Option<Violation>) {
    let mut items = Vec::new();
    for part in parts {
        let mut part = part.to_vec();
        let used = decoder.absorb(&mut part);
        let mut input = BytesMut::from(&part[used..]);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(violation) => return (items, Some(violation)),
            }
        }
    }
    (items, None)
}

/// What a WebTransport peer sends: it reads the same however it is cut, nothing is larger than allowed, and what is read
/// can be written so that it reads the same again.
pub fn webtransport(input: &[u8]) {
    let decode = |step: usize| {
        let (mut decoder, mut items) = (webtransport::Decoder::new(MAX), Vec::new());
        for part in input.chunks(step) {
            let used = decoder.absorb(part);
            let mut rest = BytesMut::from(&part[used..]);
            loop {
                match decoder.decode(&mut rest) {
                    Ok(Some(item)) => items.push(item),
                    Ok(None) => break,
                    Err(error) => return (items, Some(error)),
                }
            }
        }
        (items, None)
    };
    let step = usize::from(input.first().copied().unwrap_or_default() % 7) + 1;
    let whole = decode(input.len().max(1));
    assert_eq!(decode(step), whole, "in parts of {step}");
    let (items, _) = whole;
    if let Some(Opening::Upgrade(sid)) = items.first().and_then(webtransport::opening) {
        assert!(sid.len() <= MAX_SID);
    }
    for item in items {
        let (frames, data) = match item {
            // Written as a message, which is text behind a type.
            Item::Text(data) => match data.strip_prefix(b"4").map(std::str::from_utf8) {
                Some(Ok(text)) => (Frames::text(text), data.clone()),
                _ => continue,
            },
            Item::Binary(data) => (Frames::binary(&data), data),
            _ => panic!("no such frame"),
        };
        assert!(data.len() <= MAX);
        let mut wire: BytesMut = frames.unwrapped().flat_map(|piece| piece.as_bytes().to_vec()).collect();
        match webtransport::Decoder::new(MAX).decode(&mut wire) {
            Ok(Some(Item::Text(again) | Item::Binary(again))) => assert_eq!(again, data),
            other => panic!("{other:?}"),
        }
    }
}

/// An offer, a compressed message, and a message to compress.
pub fn deflate(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let _ = Encoding::best([&*text].into_iter());
    for takeover in [false, true] {
        if let Some(agreed) = agree([&*text].into_iter(), &options(takeover)) {
            let answer = agreed.header();
            assert_eq!(agree([&*answer].into_iter(), &options(true)), Some(agreed), "{answer}");
        }
        let Some(agreed) = agreed(takeover) else { panic!("its own offer is refused") };
        let mut inflater = Inflater::new(agreed);
        if let Ok(plain) = inflater.message(input, MAX) {
            assert!(plain.len() <= MAX);
        }
        let (mut deflater, mut inflater) = (Deflater::new(agreed, &options(takeover)), Inflater::new(agreed));
        for _ in 0..2 {
            let frames = Frames::binary(input);
            let Some(deflated) = deflater.frames(&frames) else { continue };
            for (_, packet) in deflated.iter().filter(|_| deflated.as_bytes()[0] & 0x40 != 0) {
                let plain = inflater.message(packet, input.len());
                assert_eq!(plain.as_deref(), Ok(input));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_corpora_hold() {
        let targets = [
            ("payload", payload as fn(&[u8])),
            ("websocket", websocket),
            ("webtransport", webtransport),
            ("deflate", deflate),
        ];
        for (name, target) in targets {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
            let files: Vec<_> =
                std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(!files.is_empty());
            for file in files {
                target(&std::fs::read(file).unwrap());
            }
        }
    }
}
