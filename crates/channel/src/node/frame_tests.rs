//! What Node really wrote, whole and in pieces, and spoilt in every way: nothing may panic, and no frame be missed.

use bytes::Bytes;

use super::decode::decode;
use super::deframe::{Deframer, Piece};
use super::encode::Value;
use super::message::{AddressType, FromWorker, Handed, Query, Requester, Serialization, SockName};
use super::v8::{Reader, Scalar};

const ADVANCED: [&[u8]; 2] = [
    include_bytes!("../../tests/frames/node-18.advanced"),
    include_bytes!("../../tests/frames/node-26.advanced"),
];
const JSON: &[u8] = include_bytes!("../../tests/frames/node-26.json");

fn recordings() -> [(Serialization, &'static [u8]); 3] {
    [
        (Serialization::Advanced, ADVANCED[0]),
        (Serialization::Advanced, ADVANCED[1]),
        (Serialization::Json, JSON),
    ]
}

/// Cheap, and the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

fn frames(serialization: Serialization, bytes: &[u8], mut step: impl FnMut() -> usize) -> Vec<Bytes> {
    let mut deframer = Deframer::new(serialization, 1 << 20);
    let mut frames = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + step()).min(bytes.len());
        deframer.push(&bytes[at..end]);
        at = end;
        while let Some(Piece::Frame(frame)) = deframer.next() {
            frames.push(frame);
        }
    }
    assert!(!deframer.is_amid_frame());
    frames
}

#[test]
fn what_node_wrote_is_understood() {
    for (serialization, bytes) in recordings() {
        let frames = frames(serialization, bytes, || usize::MAX);
        let messages: Vec<_> = frames.iter().map(|frame| decode(serialization, frame.clone())).collect();
        let tcp = Query {
            address: Some("127.0.0.1".into()),
            port: Some(8080),
            address_type: AddressType::Tcp4,
            fd: None,
            index: 0,
            backlog: 0,
            ticket_keys: None,
            data_given: false,
            flags: 0,
        };
        let adapter = |at: usize, kind, uid: Option<&str>, requester| FromWorker::Adapter {
            kind,
            uid: uid.map(str::to_owned),
            nsp: Some("/".into()),
            requester,
            frame: frames[at].clone(),
        };
        let path = Query {
            address: Some("/nowhere/päth".into()),
            port: Some(-1),
            address_type: AddressType::Pipe,
            ..tcp.clone()
        };
        let fd =
            Query { address: None, port: None, address_type: AddressType::Fd, fd: Some(0), ..tcp.clone() };
        let tls = Query {
            address: None,
            port: Some(8443),
            ticket_keys: Some("ab".repeat(48)),
            data_given: true,
            ..tcp.clone()
        };
        let tcp6 = Query {
            address: Some("::1".into()),
            port: Some(1),
            address_type: AddressType::Tcp6,
            backlog: 7,
            flags: 1,
            ..tcp.clone()
        };
        let udp = Query {
            address: Some("::".into()),
            port: Some(53),
            address_type: AddressType::Udp6,
            ..tcp.clone()
        };
        let expected = [
            FromWorker::Online,
            FromWorker::Ready,
            FromWorker::Other,
            adapter(3, 4, Some("uid-1"), None),
            adapter(4, 8, Some("uid-1"), Some(Requester::Uid("uid-2".into()))),
            adapter(5, 9, None, Some(Requester::Worker(3))),
            FromWorker::Serves { http: true, server: None },
            FromWorker::Closed { total: 70000 },
            FromWorker::Sticky,
            FromWorker::QueryServer { seq: 1, query: path },
            FromWorker::QueryServer { seq: 2, query: fd },
            FromWorker::QueryServer { seq: 3, query: tls },
            FromWorker::Accepted { seq: 9, accepted: false },
            FromWorker::HandleAck { seq: None },
            FromWorker::HandleNack { seq: None },
            FromWorker::Handle,
            FromWorker::QueryServer { seq: 4, query: tcp },
            FromWorker::QueryServer { seq: 5, query: tcp6 },
            FromWorker::QueryServer { seq: 6, query: udp },
            FromWorker::ExitedAfterDisconnect { seq: 7 },
        ];
        assert_eq!(messages, expected, "{serialization:?}");
    }
}

#[test]
fn frames_are_found_however_they_come() {
    for (serialization, bytes) in recordings() {
        let whole = frames(serialization, bytes, || usize::MAX);
        assert_eq!(whole.concat(), bytes);
        for step in 1..40 {
            assert_eq!(frames(serialization, bytes, || step), whole);
        }
        let mut random = Random(7);
        for _ in 0..50 {
            assert_eq!(frames(serialization, bytes, || 1 + random.below(900)), whole);
        }
    }
}

#[test]
fn a_frame_too_long_is_skipped_and_measured() {
    for (serialization, bytes) in recordings() {
        let whole = frames(serialization, bytes, || usize::MAX);
        let limit = 250;
        for step in [1, 3, 100, 10_000] {
            let mut deframer = Deframer::new(serialization, limit);
            let mut pieces = Vec::new();
            for part in bytes.chunks(step) {
                deframer.push(part);
                pieces.extend(std::iter::from_fn(|| deframer.next()));
            }
            let expected: Vec<_> = whole
                .iter()
                .map(|frame| match frame.len() {
                    fits if fits <= limit => Piece::Frame(frame.clone()),
                    size => Piece::TooLong(size as u64),
                })
                .collect();
            assert!(expected.iter().any(|piece| matches!(piece, Piece::TooLong(_))));
            assert_eq!(pieces, expected, "{serialization:?} by {step}");
        }
    }
}

#[test]
fn no_truncation_and_no_mutation_panics() {
    let mut random = Random(0x5eed);
    for (serialization, bytes) in recordings() {
        for frame in frames(serialization, bytes, || usize::MAX) {
            for length in 0..frame.len() {
                decode(serialization, frame.slice(..length));
            }
            for _ in 0..3000 {
                let mut spoilt = frame.to_vec();
                for _ in 0..=random.below(4) {
                    let at = random.below(spoilt.len());
                    match random.below(4) {
                        0 => spoilt[at] = random.below(256) as u8,
                        1 => spoilt[at] ^= 1 << random.below(8),
                        2 => drop(spoilt.splice(at..at, [0xff; 9])),
                        _ => drop(spoilt.drain(at..(at + 1 + random.below(8)).min(spoilt.len()))),
                    }
                    if spoilt.is_empty() {
                        spoilt.push(0);
                    }
                }
                decode(serialization, spoilt.into());
            }
        }
        // Whatever is announced, the deframer takes no more than its limit and goes on.
        let mut deframer = Deframer::new(serialization, 1000);
        for _ in 0..20_000 {
            deframer.push(&[random.below(256) as u8]);
            while deframer.next().is_some() {}
        }
    }
}

#[test]
fn a_descriptor_is_confirmed_even_if_its_message_cannot_be_read() {
    let mut frame = Value::ping().frame(Serialization::Advanced);
    frame.truncate(frame.len() - 3);
    assert_eq!(decode(Serialization::Advanced, frame.into()), FromWorker::Handle);
}

#[test]
fn nesting_takes_no_stack() {
    let mut deep = vec![0xff, 15];
    deep.extend(vec![b';'; 90_000]);
    assert!(Reader::new(&deep).unwrap().skip().unwrap_err().to_string().contains("the end comes too early"));
    deep.extend(vec![b';'; 20_000]);
    assert!(Reader::new(&deep).unwrap().skip().unwrap_err().to_string().contains("too deep"));
    let json = ["[".repeat(200_000), "]".repeat(200_000)].concat();
    assert_eq!(decode(Serialization::Json, json.into()), FromWorker::Other);
}

#[test]
fn views_and_references_are_one_value_with_their_buffer() {
    // Not Node's way, but V8's: a view after its buffer, before and since it has flags, and one of a known buffer.
    for (version, view) in [(13, &b"V\x42\x01\x02"[..]), (15, &b"V\x42\x01\x02\x00"[..])] {
        let mut bytes = vec![0xff, version];
        bytes.extend(b"B\x03abc");
        bytes.extend(view);
        bytes.extend(b"^\x00");
        bytes.extend(view);
        bytes.extend(b"I\x54");
        let mut reader = Reader::new(&bytes).unwrap();
        reader.skip().unwrap();
        reader.skip().unwrap();
        assert_eq!(reader.scalar(), Ok(Scalar::Number(42.0)));
    }
}

#[test]
fn what_we_spell_we_can_read() {
    let sockname = SockName { address: "::1".into(), port: 8080, ipv6: true };
    let handed = |key: Option<&str>| Handed {
        key: key.map(str::to_owned),
        seq: 1 << 40,
        leg: true,
        client: None,
        fd: std::fs::File::open("/dev/null").unwrap().into(),
    };
    for serialization in [Serialization::Advanced, Serialization::Json] {
        let says = |value: &Value<'_>| decode(serialization, value.frame(serialization).into());
        let accepted = |seq| FromWorker::Accepted { seq, accepted: false };
        let key = "ü\"\n🦔";
        assert_eq!(
            says(&Value::bound(1 << 40, Some(-98), key, Some(&sockname), Some("ab"))),
            accepted(1 << 40)
        );
        assert_eq!(says(&Value::ack(5)), accepted(5));
        assert_eq!(says(&Value::bound(5, None, key, None, None).shared(true)), FromWorker::Handle);
        assert_eq!(says(&Value::connection(&handed(Some(key)))), FromWorker::Handle);
        assert_eq!(says(&Value::connection(&handed(None))), FromWorker::Handle);
        assert_eq!(says(&Value::handle_ack()), FromWorker::HandleAck { seq: None });
        assert_eq!(says(&Value::shutdown()), FromWorker::Other);
        assert_eq!(says(&Value::let_go(u32::MAX, u64::MAX)), FromWorker::Other);
    }
    let line = Value::bound(1, None, "k", Some(&sockname), None).frame(Serialization::Json);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        concat!(
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"k","ack":1,"data":null,"#,
            r#""sockname":{"address":"::1","family":"IPv6","port":8080}}"#,
            "\n"
        )
    );
}
