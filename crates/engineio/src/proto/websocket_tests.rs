//! Framing: every cut, every broken rule, every limit.

use super::super::deflate::agree;
use super::*;
use crate::PerMessageDeflate;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn decode_in(parts: &[&[u8]], max: usize) -> Result<Vec<Item>, Violation> {
    let mut decoder = Decoder::new(max);
    let mut items = Vec::new();
    for part in parts {
        let mut part = part.to_vec();
        let used = decoder.absorb(&mut part);
        let mut input = BytesMut::from(&part[used..]);
        while let Some(item) = decoder.decode(&mut input)? {
            items.push(item);
        }
        assert!(input.is_empty());
    }
    assert!(decoder.is_idle());
    Ok(items)
}

#[test]
fn what_is_half_read_goes_on_in_another_decoder() {
    let long = vec![7; 70_000];
    let mut stream = [
        frame(0x81, b"4hello"),
        frame(0x01, b"4in "),
        frame(0x89, b"are you there"),
        frame(0x00, b""),
        frame(0x00, b"three "),
        frame(0x80, b"parts"),
        frame(0x82, &[1, 2, 3]),
        frame(0x02, b""),
        frame(0x80, b"late"),
        frame(0x88, b""),
    ]
    .concat();
    let check = |stream: &[u8], cuts: &mut dyn Iterator<Item = usize>| {
        let whole = decode(stream).unwrap();
        for cut in cuts {
            let (mut one, mut other) = (Decoder::new(100_000), Decoder::new(100_000));
            let mut items = Vec::new();
            let mut run = |decoder: &mut Decoder, bytes: &[u8]| {
                let mut bytes = BytesMut::from(bytes);
                while let Some(item) = decoder.decode(&mut bytes).unwrap() {
                    items.push(item);
                }
            };
            run(&mut one, &stream[..cut]);
            run(&mut other, &one.half_read());
            run(&mut other, &stream[cut..]);
            assert!(other.is_idle());
            assert_eq!(items, whole, "cut at {cut}");
        }
    };
    check(&stream, &mut (0..=stream.len()));
    stream = [frame(0x82, &long), frame(0x01, &long[..9000]), frame(0x80, &long[..9000])].concat();
    check(&stream, &mut (0..=stream.len()).step_by(997));
}

fn decode(bytes: &[u8]) -> Result<Vec<Item>, Violation> {
    decode_in(&[bytes], 100_000)
}

#[test]
fn a_stream_reads_the_same_however_it_is_cut() {
    let long = vec![7; 70_000];
    let stream = [
        frame(0x81, b"4hello"),
        frame(0x82, &[1, 2, 3]),
        frame(0x89, b"are you there"),
        frame(0x81, &[b'x'; 300]),
        frame(0x01, b"frag"),
        frame(0x89, b"between"),
        frame(0x00, b""),
        frame(0x80, b"ments"),
        frame(0x82, &long),
        frame(0x8a, b""),
        frame(0x88, &[0x03, 0xe8]),
    ]
    .concat();
    let expected = vec![
        Item::Text("4hello".into()),
        Item::Binary(Bytes::from_static(&[1, 2, 3])),
        Item::Ping("are you there".into()),
        Item::Text("x".repeat(300).into()),
        Item::Ping("between".into()),
        Item::Text("fragments".into()),
        Item::Binary(long.into()),
        Item::Pong,
        Item::Close(Some(1000)),
    ];
    assert_eq!(decode(&stream), Ok(expected));
    let expected = decode(&stream).unwrap();
    for size in [1, 2, 3, 5, 7, 64, 1000, 4096] {
        let parts: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(decode_in(&parts, 100_000).as_ref(), Ok(&expected), "in parts of {size}");
    }
}

#[test]
fn broken_rules_are_named() {
    assert_eq!(decode(&[0x81, 0x01, b'x']), Err(Violation::Unmasked));
    assert_eq!(decode(&frame(0xc1, b"x")), Err(Violation::Reserved));
    assert_eq!(decode(&frame(0x83, b"x")), Err(Violation::Reserved));
    assert_eq!(decode(&frame(0x8b, b"x")), Err(Violation::Reserved));
    assert_eq!(decode(&frame(0x09, b"x")), Err(Violation::Control));
    assert_eq!(decode(&frame(0x89, &[0; 126])), Err(Violation::Control));
    assert_eq!(decode(&frame(0x80, b"x")), Err(Violation::Fragmentation));
    assert_eq!(decode(&[frame(0x01, b"x"), frame(0x81, b"y")].concat()), Err(Violation::Fragmentation));
    assert_eq!(decode(&frame(0x88, &[3])), Err(Violation::Control));
    assert_eq!(decode(&frame(0x88, &[0x03, 0xed])), Err(Violation::Control));
    assert_eq!(decode(&frame(0x88, &[0x03, 0xe8, 0xff])), Err(Violation::Utf8));
}

#[test]
fn compressed_messages_are_read_where_that_was_agreed_on() {
    let agreed = agree(["permessage-deflate"].into_iter(), &PerMessageDeflate::default()).unwrap();
    let decode = |bytes: &[u8], size: usize| {
        let mut decoder = Decoder::inflating(10, Inflater::new(agreed));
        let mut items = Vec::new();
        for part in bytes.chunks(size) {
            let mut input = BytesMut::from(part);
            while let Some(item) = decoder.decode(&mut input)? {
                items.push(item);
            }
        }
        Ok(items)
    };
    const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let stream = [
        frame(0xc1, &HELLO),
        frame(0x81, b"plain"),
        frame(0x42, &HELLO[..3]),
        frame(0x89, b"ping"),
        frame(0x80, &HELLO[3..]),
        frame(0x01, b"pl"),
        frame(0x80, b"ain"),
    ]
    .concat();
    let expected = vec![
        Item::Text("Hello".into()),
        Item::Text("plain".into()),
        Item::Ping("ping".into()),
        Item::Binary("Hello".into()),
        Item::Text("plain".into()),
    ];
    for size in [1, 2, 5, 1000] {
        assert_eq!(decode(&stream, size).as_ref(), Ok(&expected), "in parts of {size}");
    }
    for (bytes, violation) in [
        (frame(0xc9, b"x"), Violation::Reserved),
        (frame(0xa1, b"x"), Violation::Reserved),
        ([frame(0x41, b"x"), frame(0xc0, b"y")].concat(), Violation::Reserved),
        (frame(0xc1, &[0xff; 9]), Violation::Deflate),
        // Eleven zeros.
        (frame(0xc2, &[0x62, 0x60, 0x80, 0x03, 0x00, 0x00]), Violation::TooBig),
    ] {
        assert_eq!(decode(&bytes, 1000), Err(violation));
    }
}

#[test]
fn the_limit_holds_for_frames_and_for_messages() {
    assert_eq!(decode_in(&[&frame(0x82, &[0; 10])], 10), Ok(vec![Item::Binary(vec![0; 10].into())]));
    assert_eq!(decode_in(&[&frame(0x82, &[0; 11])], 10), Err(Violation::TooBig));
    let fragments = [frame(0x02, &[0; 6]), frame(0x80, &[0; 5])].concat();
    assert_eq!(decode_in(&[&fragments], 10), Err(Violation::TooBig));
    // Refused on the header alone.
    assert_eq!(decode_in(&[&frame(0x82, &[0; 70_000])[..14]], 10), Err(Violation::TooBig));
    let mut huge = vec![0x82, 0xff];
    huge.extend_from_slice(&[0xff; 8]);
    huge.extend_from_slice(&MASK);
    assert_eq!(decode(&huge), Err(Violation::TooBig));
}

#[test]
fn an_announced_length_reserves_nothing() {
    let mut decoder = Decoder::new(100_000_000);
    let mut head = vec![0x82, 0x80 | 127];
    head.extend_from_slice(&50_000_000u64.to_be_bytes());
    head.extend_from_slice(&MASK);
    head.push(1);
    let mut input = BytesMut::from(&head[..]);
    assert_eq!(decoder.decode(&mut input), Ok(None));
    assert!(decoder.rest.unwrap().data.capacity() < 100);
}
