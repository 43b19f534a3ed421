//! Spells messages to a worker. Only frames come from here; when they are written is the outbox's business.

use super::decode::ADAPTER;
use super::message::{Handed, Serialization, SockName};

/// A value to be written: what these messages are made of, and no more.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Object(Vec<(&'static str, Value<'a>)>),
}

use Value::{Int, Null, Object, Text};

/// The type of an adapter's last message.
const ADAPTER_CLOSE: i64 = 13;

impl<'a> Value<'a> {
    fn cluster(mut fields: Vec<(&'static str, Value<'a>)>) -> Self {
        fields.insert(0, ("cmd", Text("NODE_CLUSTER")));
        Object(fields)
    }

    /// Wraps a message that a descriptor travels with. `mark` is for our preload; Node overlooks it.
    fn with_handle(self, kind: &'static str, mark: Option<&'a str>) -> Self {
        let mut fields = vec![("cmd", Text("NODE_HANDLE")), ("type", Text(kind)), ("msg", self)];
        if let Some(mark) = mark {
            fields.push(("sundew", Text(mark)));
        }
        Object(fields)
    }

    pub(super) fn bound(
        ack: u64,
        errno: Option<i32>,
        key: &'a str,
        sockname: Option<&'a SockName>,
        ticket_keys: Option<&'a str>,
    ) -> Self {
        // Node looks at `data` even when it reports an error.
        let data = ticket_keys.map_or(Null, |keys| Object(vec![("ticketKeys", Text(keys))]));
        let mut fields = vec![
            ("errno", errno.map_or(Null, |errno| Int(errno.into()))),
            ("key", Text(key)),
            ("ack", number(ack)),
            ("data", data),
        ];
        if let Some(SockName { address, port, ipv6 }) = sockname {
            let family = if *ipv6 { "IPv6" } else { "IPv4" };
            fields.push((
                "sockname",
                Object(vec![
                    ("address", Text(address)),
                    ("family", Text(family)),
                    ("port", Int((*port).into())),
                ]),
            ));
        }
        Self::cluster(fields)
    }

    pub(super) fn shared(self, udp: bool) -> Self {
        self.with_handle(if udp { "dgram.Native" } else { "net.Native" }, None)
    }

    pub(super) fn connection(handed: &'a Handed) -> Self {
        let mark = match (handed.leg, &handed.client) {
            (true, _) => "leg",
            (false, None) => "client",
            // An address cannot be mistaken for one of these words.
            (false, Some(client)) => client,
        };
        let mark = Some(mark);
        match &handed.key {
            Some(key) => {
                let message = vec![("act", Text("newconn")), ("key", Text(key)), ("seq", number(handed.seq))];
                Self::cluster(message).with_handle("net.Native", mark)
            }
            // `data` is what the primary has read already. We have read nothing, and the field must be there.
            None => Object(vec![("type", Text("sticky:connection")), ("data", Text(""))])
                .with_handle("net.Socket", mark),
        }
    }

    pub(super) fn ack(ack: u64) -> Self {
        Self::cluster(vec![("ack", number(ack))])
    }

    pub(super) fn shutdown() -> Self {
        Text("shutdown")
    }

    pub(super) fn handle_ack() -> Self {
        Object(vec![("cmd", Text("NODE_HANDLE_ACK"))])
    }

    /// A message that announces a descriptor and brings none: Node answers that it did not get one, and does no more.
    pub(super) fn ping() -> Self {
        Null.with_handle("net.Native", None)
    }

    /// What the primary's part of @socket.io/cluster-adapter 0.2 says when a worker is gone. In 0.3 the same type is a
    /// broadcast.
    pub(super) fn adapter_exit(worker: u64) -> Self {
        Object(vec![("source", Text(ADAPTER)), ("type", Int(3)), ("data", number(worker))])
    }

    pub(super) fn let_go(batch: u32, pause_ms: u64) -> Self {
        Object(vec![
            ("cmd", Text("NODE_SUNDEW")),
            ("act", Text("letgo")),
            ("batch", Int(batch.into())),
            ("pause", number(pause_ms)),
        ])
    }

    /// What an adapter 0.3 that has the time says last.
    pub(super) fn adapter_gone(uid: &'a str, nsp: &'a str) -> Self {
        Object(vec![
            ("source", Text(ADAPTER)),
            ("type", Int(ADAPTER_CLOSE)),
            ("uid", Text(uid)),
            ("nsp", Text(nsp)),
        ])
    }

    /// The whole frame, with what delimits it.
    pub(super) fn frame(&self, serialization: Serialization) -> Vec<u8> {
        let mut frame = Vec::with_capacity(192);
        match serialization {
            Serialization::Json => {
                self.json(&mut frame);
                frame.push(b'\n');
            }
            Serialization::Advanced => {
                // Version 13 is the oldest of the living, and all later ones read it.
                frame.extend([0, 0, 0, 0, 0xff, 13]);
                self.v8(&mut frame);
                let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
                frame[..4].copy_from_slice(&length.to_be_bytes());
            }
        }
        frame
    }

    fn json(&self, out: &mut Vec<u8>) {
        match self {
            Null => out.extend(b"null"),
            Int(number) => out.extend(number.to_string().bytes()),
            // Cannot fail: text, into memory.
            Text(text) => drop(serde_json::to_writer(out, text)),
            Object(fields) => {
                out.push(b'{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    Text(name).json(out);
                    out.push(b':');
                    value.json(out);
                }
                out.push(b'}');
            }
        }
    }

    fn v8(&self, out: &mut Vec<u8>) {
        match self {
            Null => out.push(b'0'),
            Int(number) => match i32::try_from(*number) {
                Ok(small) => {
                    out.push(b'I');
                    varint(out, u64::from(((small << 1) ^ (small >> 31)) as u32));
                }
                Err(_) => {
                    out.push(b'N');
                    out.extend((*number as f64).to_ne_bytes());
                }
            },
            Text(text) => {
                out.push(if text.is_ascii() { b'"' } else { b'S' });
                varint(out, text.len() as u64);
                out.extend(text.bytes());
            }
            Object(fields) => {
                out.push(b'o');
                for (name, value) in fields {
                    Text(name).v8(out);
                    value.v8(out);
                }
                out.push(b'{');
                varint(out, fields.len() as u64);
            }
        }
    }
}

fn number(value: u64) -> Value<'static> {
    Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
