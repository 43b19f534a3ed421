//! What notepack 2.2 (the library of `socket.io-msgpack-parser` 3) wrote is in `tests/corpus/msgpack`.

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::json;

use super::super::PacketType;
use super::*;
use crate::packet::{Args, Kind, Packet, check};

fn corpus(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/msgpack").join(name)).unwrap()
}

fn decode(bytes: Vec<u8>) -> Result<Incoming, String> {
    Msgpack::new().decode(Message::Binary(bytes.into())).map_err(|error| error.to_string())
}

fn read(name: &str) -> Incoming {
    decode(corpus(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn json(packet: &Incoming) -> serde_json::Value {
    serde_json::from_str(packet.data.as_ref().unwrap().json()).unwrap()
}

/// The arguments of an event.
fn event_args(packet: &Packet) -> Args {
    let (_, rest) = check(Kind::Event, packet.json()).unwrap().unwrap();
    Args::new(packet.json().into(), 0, Some(rest), packet.attachments().to_vec())
}

fn hex(packet: Outgoing<'_>) -> String {
    let bytes = write::packet(packet).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn reads_what_the_client_writes() {
    let packet = read("connect");
    assert_eq!((packet.kind, &*packet.nsp, packet.ack), (PacketType::Connect, "/", None));
    assert_eq!(json(&packet), json!({"token": "x"}));
    let packet = read("connect-undefined");
    assert_eq!((packet.kind, &*packet.nsp), (PacketType::Connect, "/admin"));
    assert!(packet.data.is_none());
    assert!(read("disconnect").data.is_none());
    let expected = json!([
        "message", 1, -1, -33, 200, 70000, 5_000_000_000_u64, -5_000_000_000_i64, 1.5, "é→🌱", null, true, false, null,
        {"a": [1, {"b": []}]}
    ]);
    assert_eq!(json(&read("event")), expected);
    let packet = read("ack");
    assert_eq!((packet.kind, &*packet.nsp, packet.ack), (PacketType::Ack, "/a", Some(456)));
    assert_eq!((read("asked").ack, read("undef").ack), (Some(0), None));
    assert_eq!(json(&read("date")), json!(["d", "2023-11-14T22:13:20.123Z", "1970-01-01T00:00:00.000Z"]));
    assert_eq!(json(&read("nan")), json!(["n", null, null]));
    let long = json(&read("long"));
    assert_eq!((long[1].as_str().unwrap().len(), long[2].as_array().unwrap().len()), (70_000, 70_000));
    assert_eq!(long[3]["k19"], 19);
}

#[test]
fn binary_is_a_view_of_the_message() {
    let bytes = Bytes::from(corpus("binary"));
    let packet = Msgpack::new().decode(Message::Binary(bytes.clone())).unwrap();
    let data = packet.data.unwrap();
    let lengths: Vec<usize> = data.attachments().iter().map(Bytes::len).collect();
    assert_eq!(lengths, [3, 300, 1, 0]);
    assert_eq!(data.attachments()[2], [9][..]);
    assert!(bytes.as_ptr_range().contains(&data.attachments()[1].as_ptr()));
    let (first, second, third): (Bytes, std::collections::HashMap<String, Bytes>, Bytes) =
        event_args(&data).decode().unwrap();
    assert_eq!((&first[..], second["n"].len(), &third[..]), (&[1, 2, 3][..], 300, &[9][..]));
}

/// notepack counts an ArrayBuffer's length, which may look like the marker of a date or of undefined.
#[test]
fn an_array_buffer_of_any_length_is_binary() {
    for length in (1_usize..=600).chain([65_535, 65_536, 65_536 + 212, 65_536 + 215]) {
        let counted = match length {
            0..=0xff => vec![0xc7, length as u8],
            0x100..=0xffff => [&[0xc8][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[0xc9][..], &(length as u32).to_be_bytes()].concat(),
        };
        let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
        let message =
            [&b"\x83\xa4type\x02\xa4data\x92\xa1e"[..], &counted, &[0], &bytes, b"\xa3nsp\xa1/"].concat();
        let packet = decode(message).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!(json(&packet), json!(["e", {"_placeholder": true, "num": 0}]), "{length}");
        assert_eq!(packet.data.unwrap().attachments(), [Bytes::from(bytes)], "{length}");
    }
    // Of fixed length it is what it looks like.
    let one = |value: &[u8]| {
        let message = [&b"\x83\xa4type\x02\xa4data\x92\xa1e"[..], value, b"\xa3nsp\xa1/"].concat();
        json(&decode(message).unwrap())
    };
    let date = [&[0xd7, 0][..], &1_700_000_000_123_i64.to_be_bytes()].concat();
    assert_eq!(one(&date), json!(["e", "2023-11-14T22:13:20.123Z"]));
    assert_eq!(one(&[0xd4, 0, 0]), json!(["e", null]));
    // But of another type it is none of them.
    let placeholder = json!({"_placeholder": true, "num": 0});
    assert_eq!(one(&[&[0xd7, 5][..], &[0; 8]].concat()), json!(["e", [5, placeholder]]));
    assert_eq!(one(&[0xd4, 5, 0]), json!(["e", [5, placeholder]]));
}

#[test]
fn writes_what_notepack_would() {
    let packet = Packet::event("hello", 1).unwrap();
    let outgoing = Outgoing { kind: PacketType::Event, nsp: "/", ack: None, data: Some(&packet) };
    assert_eq!(hex(outgoing), "83a47479706502a46461746192a568656c6c6f01a36e7370a12f");
    let packet = Packet::from_parts("{\"sid\":\"id\"}".into(), Vec::new()).unwrap();
    let outgoing = Outgoing { kind: PacketType::Connect, nsp: "/a", ack: None, data: Some(&packet) };
    assert_eq!(hex(outgoing), "83a47479706500a46461746181a3736964a26964a36e7370a22f61");
    let packet = Packet::arguments(Bytes::from_static(&[1, 2])).unwrap();
    let outgoing = Outgoing { kind: PacketType::Ack, nsp: "/", ack: Some(300), data: Some(&packet) };
    assert_eq!(hex(outgoing), "84a47479706503a46461746191c4020102a36e7370a12fa26964cd012c");
    let outgoing = Outgoing { kind: PacketType::Disconnect, nsp: "/", ack: None, data: None };
    assert_eq!(hex(outgoing), "82a47479706501a36e7370a12f");
}

/// As serde_json tells of them where some crate asks it for `arbitrary_precision`.
#[test]
fn numbers_that_serde_json_keeps_as_texts_are_numbers() {
    let write = |value: &str| {
        let data = Packet::from_parts(format!("[{{\"$serde_json::private::Number\":{value}}}]"), Vec::new());
        let outgoing = Outgoing { kind: PacketType::Ack, nsp: "/", ack: Some(1), data: Some(&data.unwrap()) };
        write::packet(outgoing).unwrap()
    };
    for (text, number) in [("1.5", json!([1.5])), ("-2e3", json!([-2000.0]))] {
        assert_eq!(json(&decode(write(&format!("\"{text}\""))).unwrap()), number);
    }
    // An object of somebody's own, which is no number.
    for value in ["\"inf\"", "\"\"", "7", "\"1\",\"b\":2"] {
        let bytes = write(value);
        assert!(String::from_utf8_lossy(&bytes).contains("$serde_json"), "{value}");
        decode(bytes).unwrap();
    }
}

#[test]
fn everything_comes_back() {
    let many: Vec<u32> = (0..70_000).collect();
    let object: serde_json::Map<String, serde_json::Value> =
        (0..40).map(|number| (format!("k{number}"), json!(number))).collect();
    let odd = json!({"_placeholder": true, "num": 7, "more": 1});
    let blob = Bytes::from(vec![5; 70_000]);
    let packet = Packet::event("e", (&many, &object, &blob, &odd, u64::MAX, i64::MIN, 0.1, "")).unwrap();
    let outgoing = Outgoing { kind: PacketType::Event, nsp: "/n", ack: Some(u64::MAX), data: Some(&packet) };
    let bytes = write::packet(outgoing).unwrap();
    // An object of the app's own that has such a key can be sent; from a client it is refused.
    assert!(decode(bytes).unwrap_err().contains("_placeholder"));
    let packet = Packet::event("e", (&many, &object, &blob, u64::MAX, i64::MIN, 0.1, "")).unwrap();
    let outgoing = Outgoing { data: Some(&packet), ..outgoing };
    let back = decode(write::packet(outgoing).unwrap()).unwrap();
    assert_eq!(back.ack, Some(u64::MAX));
    let data = back.data.unwrap();
    assert_eq!((data.json(), data.attachments()), (packet.json(), packet.attachments()));
}

#[test]
fn hostile_messages_are_refused() {
    for (name, why) in [
        ("empty", "ends early"),
        ("array-bomb", "ends early"),
        ("map-bomb", "ends early"),
        ("text-bomb", "ends early"),
        ("bin-bomb", "ends early"),
        ("ext-bomb", "ends early"),
        ("too-deep", "nested"),
        ("binaries", "max_binaries"),
        ("trailing", "behind its end"),
        ("utf8", "UTF-8"),
        ("reserved-marker", "starts no value"),
        ("placeholder", "_placeholder"),
        ("type-5", "no known type"),
    ] {
        let error = decode(corpus(name)).unwrap_err();
        assert!(error.contains(why), "{name}: {error}");
    }
    assert!(Msgpack::new().decode(Message::Text("2[\"x\"]".into())).is_err());
    // Within the limit it is no bomb.
    read("deep");
    // Deep inside of what is skipped, too.
    let mut skipped = b"\x81\xa1x".to_vec();
    skipped.extend(vec![0x91; 100_000]);
    assert!(decode(skipped).unwrap_err().contains("nested"));
}

#[test]
fn the_corpus_holds() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/msgpack");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let whole = std::fs::read(entry.unwrap().path()).unwrap();
        fuzzing(&whole);
        for cut in 0..whole.len().min(200) {
            fuzzing(&whole[..cut]);
        }
        count += 1;
    }
    assert!(count > 20);
}
