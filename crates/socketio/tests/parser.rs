//! Parsers of the app's choice, over a real server: one of the test's own, and msgpack byte by byte.

#![allow(clippy::unwrap_used)]

mod support;

use std::future::Future;
use std::time::{Duration, Instant};

use sundew_socketio::engineio::{Frames, Message};
use sundew_socketio::parser::{Incoming, Outgoing, PacketType, Parser, ParserError};
use sundew_socketio::recovery::Recovery;
use sundew_socketio::{Ack, Args, Packet, Socket, SocketIo};
use support::{Client, PATIENCE, client, quick, serve};

/// `type|nsp|id|json`: no parser of anybody's, and that is the point.
struct Bars;

impl Parser for Bars {
    fn decode(&self, message: Message) -> Result<Incoming, ParserError> {
        let Message::Text(text) = message else { return Err("binary".into()) };
        let mut parts = text.splitn(4, '|');
        let mut next = || parts.next().ok_or("too few parts");
        let kind = PacketType::from_number(next()?.parse()?).ok_or("no type")?;
        let nsp = next()?.to_owned();
        let ack = Some(next()?).filter(|id| !id.is_empty()).map(str::parse).transpose()?;
        let data = Some(next()?).filter(|data| !data.is_empty());
        let data = data.map(|data| Packet::from_parts(data.to_owned(), Vec::new())).transpose()?;
        Ok(Incoming { kind, nsp, ack, data })
    }

    fn encode(&self, packet: Outgoing<'_>) -> Result<Frames, ParserError> {
        let id = packet.ack.map(|id| id.to_string()).unwrap_or_default();
        let data = packet.data.map(Packet::json).unwrap_or_default();
        if data.contains("unsayable") {
            return Err("cannot say it".into());
        }
        Ok(Frames::text(&format!("{}|{}|{id}|{data}", packet.kind as u8, packet.nsp)))
    }
}

/// Writes twice as much as there is to say.
struct Wordy;

impl Parser for Wordy {
    fn decode(&self, message: Message) -> Result<Incoming, ParserError> {
        Bars.decode(message)
    }

    fn encode(&self, packet: Outgoing<'_>) -> Result<Frames, ParserError> {
        let data = packet.data.map(Packet::json).unwrap_or_default();
        Ok(Frames::text(&format!("{}|{}||{data}{}", packet.kind as u8, packet.nsp, " ".repeat(data.len()))))
    }
}

/// How much room an event takes is the parser's to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_waits_for_room_waits_for_as_much_as_it_takes() {
    let recovery = Recovery::new();
    let io = quick().parser(Wordy).connection_state_recovery(recovery).max_queued(20_000_000, 4096);
    let io = io.ping_timeout(PATIENCE).build();
    let addr = serve(&io).await;
    let wall = client(move || {
        let mut wall = Client::open(addr);
        wall.send("40|/||");
        assert!(wall.text().starts_with("40|/||"));
        wall
    })
    .await;
    let socket = io.sockets().remove(0);
    // What the kernel takes, and then less than half of the queue.
    socket.emit_async("wall", "x".repeat(4_500_000)).await.unwrap();
    let late = tokio::spawn(async move {
        let emit = socket.emit_async("late", "x".repeat(9_600_000));
        tokio::pin!(emit);
        let mut longest = Duration::ZERO;
        let outcome = std::future::poll_fn(|cx| {
            let began = Instant::now();
            let outcome = emit.as_mut().poll(cx);
            longest = longest.max(began.elapsed());
            outcome
        });
        (outcome.await, longest)
    });
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!late.is_finished(), "there is no room");
    drop(wall);
    // Kept for when its client comes back, or not: it has left.
    let (_, longest) = late.await.unwrap();
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

/// What cannot be written is acknowledged by nobody.
#[tokio::test]
async fn an_event_that_cannot_be_written_is_an_error() {
    let io = quick().parser(Bars).build();
    let addr = serve(&io).await;
    let _c = client(move || {
        let mut c = Client::open(addr);
        c.send("40|/||");
        c.text();
        c
    })
    .await;
    assert!(io.emit("unsayable", ()).error.is_some());
    let asked = io.timeout(Duration::from_millis(50)).emit_with_ack::<u8>("unsayable", ()).await;
    assert!(asked.is_err(), "{asked:?}");
}

/// The names of parents begin otherwise.
#[tokio::test]
async fn a_namespace_begins_with_a_slash() {
    let io = quick().parser(Bars).build();
    io.of_when(async |_: String, _: serde_json::Value| true);
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::open(addr);
        c.send("40|~0||");
        c.expect_closed();
    })
    .await;
    assert_eq!(io.troubles().protocol_errors, 1);
}

fn app(io: SocketIo) -> SocketIo {
    for nsp in ["/", "/a"] {
        let nsp = io.of(nsp);
        nsp.on("echo", async |socket: Socket, args: Args| {
            let _ = socket.emit("echo", args);
        });
        nsp.on("ask", async |args: Args, ack: Ack| {
            let _ = ack.send(args);
        });
        nsp.on("all", async |socket: Socket, args: Args| drop(socket.namespace().emit("all", args)));
    }
    io
}

#[tokio::test]
async fn a_parser_of_ones_own() {
    let io = app(quick().parser(Bars).build());
    io.on("unsayable", async |socket: Socket| {
        assert!(socket.emit("x", "unsayable").unwrap_err().to_string().contains("cannot say it"));
        socket.emit("said", ()).unwrap();
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::open(addr);
        c.send("40|/a||{\"token\":1}");
        assert!(c.text().starts_with("40|/a||{\"sid\":\""));
        c.send("42|/a||[\"echo\",1]");
        c.expect("42|/a||[\"echo\",1]");
        c.send("42|/a|7|[\"ask\",2]");
        c.expect("43|/a|7|[2]");
        c.send("40|/none||");
        c.expect("44|/none||{\"message\":\"Invalid namespace\"}");
        c.send("40|/||");
        c.text();
        c.send("42|/||[\"unsayable\"]");
        c.expect("42|/||[\"said\"]");
        // The rules of the protocol hold whatever the parser.
        for bad in
            ["42|/||{}", "42|/||[\"disconnect\"]", "42|/||[]", "43|/||[1]", "44|/||{}", "4", "40|/||[]"]
        {
            let mut c = Client::open(addr);
            c.send("40|/||");
            c.text();
            c.try_send(bad);
            c.expect_closed();
        }
    })
    .await;
}

#[cfg(feature = "msgpack")]
mod msgpack {
    use bytes::Bytes;
    use serde_json::json;
    use sundew_socketio::parser::Msgpack;
    use sundew_socketio::{Auth, ConnectError};

    use super::*;

    fn write(kind: PacketType, nsp: &str, ack: Option<u64>, data: Option<&Packet>) -> Bytes {
        let frames = Msgpack::new().encode(Outgoing { kind, nsp, ack, data }).unwrap();
        // A short frame: two bytes of header.
        Bytes::copy_from_slice(&frames.as_bytes()[2..])
    }

    fn read(c: &mut Client) -> Incoming {
        Msgpack::new().decode(Message::Binary(c.binary())).unwrap()
    }

    fn join(addr: std::net::SocketAddr) -> Client {
        let mut c = Client::open(addr);
        c.send_bytes(write(PacketType::Connect, "/", None, None));
        let answer = read(&mut c);
        assert_eq!((answer.kind, &*answer.nsp), (PacketType::Connect, "/"));
        assert!(answer.data.unwrap().json().starts_with("{\"sid\":\""));
        c
    }

    #[tokio::test]
    async fn events_acks_binary_and_errors() {
        let io = app(quick().parser(Msgpack::new()).build());
        io.with(async |Auth(auth): Auth<Option<serde_json::Value>>| match auth {
            None => Ok(()),
            Some(auth) => Err(ConnectError::new("no").with_data(json!({ "got": auth }))),
        });
        let addr = serve(&io).await;
        client(move || {
            let mut c = join(addr);
            let args = (1, "é", Bytes::from_static(&[1, 2, 3]), json!({"n": [null, 1.5]}));
            let packet = Packet::event("echo", &args).unwrap();
            let sent = write(PacketType::Event, "/", None, Some(&packet));
            c.send_bytes(sent.clone());
            assert_eq!(c.binary(), sent);
            let packet = Packet::event("ask", &args).unwrap();
            c.send_bytes(write(PacketType::Event, "/", Some(300), Some(&packet)));
            let answer = read(&mut c);
            assert_eq!((answer.kind, answer.ack), (PacketType::Ack, Some(300)));
            assert_eq!(answer.data.unwrap().attachments(), [Bytes::from_static(&[1, 2, 3])]);
            // Refusals: of the middleware, and of namespaces that are not there.
            let auth = Packet::from_parts("{\"token\":1}".into(), Vec::new()).unwrap();
            let mut other = Client::open(addr);
            other.send_bytes(write(PacketType::Connect, "/", None, Some(&auth)));
            let refusal = read(&mut other);
            assert_eq!(refusal.kind, PacketType::ConnectError);
            assert_eq!(refusal.data.unwrap().json(), "{\"message\":\"no\",\"data\":{\"got\":{\"token\":1}}}");
            // One that leaves is gone; what is no packet ends the connection.
            c.send_bytes(write(PacketType::Disconnect, "/", None, None));
            c.send_bytes(write(PacketType::Connect, "/", None, None));
            assert_eq!(read(&mut c).kind, PacketType::Connect);
            c.try_send("42[\"echo\",1]");
            c.expect_closed();
            let mut c = join(addr);
            c.send_binary(&[0xdf, 0xff, 0xff, 0xff, 0xff]);
            c.expect_closed();
        })
        .await;
    }

    #[tokio::test]
    async fn a_broadcast_is_the_same_bytes_for_all() {
        let addr = serve(&app(quick().parser(Msgpack::new()).build())).await;
        client(move || {
            let mut clients: Vec<Client> = (0..5).map(|_| join(addr)).collect();
            let packet = Packet::event("all", (json!({"a": [1, 2]}), Bytes::from_static(b"xyz"))).unwrap();
            let sent = write(PacketType::Event, "/", None, Some(&packet));
            clients[0].send_bytes(sent.clone());
            for c in &mut clients {
                assert_eq!(c.binary(), sent);
            }
        })
        .await;
    }
}
