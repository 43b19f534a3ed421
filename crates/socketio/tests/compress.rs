//! `compress(false)`: single events go out as they are, on websockets and in polling answers that are compressed.

#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use sundew_socketio::engineio::PerMessageDeflate;
use sundew_socketio::recovery::Recovery;
use sundew_socketio::{Builder, Socket, SocketIo};
use support::{PATIENCE, client, http, serve};

/// Long enough to be compressed.
fn text(of: &str) -> String {
    format!("{of}, again and again ").repeat(100)
}

/// A client that has agreed to permessage-deflate and shows whether a frame is compressed (RSV1).
struct Deflating(TcpStream);

impl Deflating {
    fn connect(addr: SocketAddr) -> Deflating {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(
                b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                  Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                  Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            )
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(String::from_utf8(head).unwrap().contains("permessage-deflate"));
        let mut client = Deflating(stream);
        client.frame();
        // Masked with zeros.
        client.0.write_all(b"\x81\x82\0\0\0\x0040").unwrap();
        assert_eq!(client.frame().1[..2], *b"40");
        client
    }

    /// Whether the next frame is compressed, and its payload. Pings are left out.
    fn frame(&mut self) -> (bool, Vec<u8>) {
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).unwrap();
            let length = match head[1] {
                126 => {
                    let mut length = [0; 2];
                    self.0.read_exact(&mut length).unwrap();
                    usize::from(u16::from_be_bytes(length))
                }
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).unwrap();
            if payload != b"2" {
                return (head[0] & 0x40 != 0, payload);
            }
        }
    }

    /// The next event is compressed, and smaller than it says, or goes out as it is and says `of`.
    fn expect(&mut self, compressed: bool, of: &str) {
        let (is, payload) = self.frame();
        assert_eq!(is, compressed, "{of}");
        let plain = String::from_utf8_lossy(&payload).contains(&text(of));
        assert_eq!(plain, !compressed, "{of}");
        assert!(!compressed || payload.len() < 200, "{of}");
    }
}

fn builder() -> Builder {
    SocketIo::builder().per_message_deflate(Some(PerMessageDeflate::default())).ack_timeout(PATIENCE)
}

/// Everything that can emit, with and without.
fn emit_all(io: &SocketIo, socket: &Socket) -> [(bool, &'static str); 11] {
    socket.emit("e", text("socket")).unwrap();
    socket.compress(false).emit("e", text("socket, not")).unwrap();
    socket.compress(true).emit("e", text("socket, said")).unwrap();
    drop(socket.compress(false).emit_with_ack::<()>("e", text("ack, not")));
    drop(socket.emit_with_ack::<()>("e", text("ack")));
    socket.join("room");
    io.to("room").compress(false).emit("e", text("room, not"));
    io.compress(false).to("room").compress(true).emit("e", text("room, said"));
    io.compress(false).emit("e", text("all, not"));
    io.emit("e", text("all"));
    // What the socket says holds for what it says to others.
    socket.compress(false).broadcast().within("room").emit("e", text("not for itself"));
    io.of("/").compress(false).send(text("sent, not"));
    io.send(text("sent"));
    [
        (true, "socket"),
        (false, "socket, not"),
        (true, "socket, said"),
        (false, "ack, not"),
        (true, "ack"),
        (false, "room, not"),
        (true, "room, said"),
        (false, "all, not"),
        (true, "all"),
        (false, "sent, not"),
        (true, "sent"),
    ]
}

async fn on_a_websocket(io: SocketIo) {
    let addr = serve(&io).await;
    let mut c = client(move || Deflating::connect(addr)).await;
    let socket = io.sockets().remove(0);
    let expected = emit_all(&io, &socket);
    c = client(move || {
        for (compressed, of) in expected {
            c.expect(compressed, of);
        }
        c
    })
    .await;
    let others = io.clone();
    let asked = tokio::spawn(async move {
        let _ = others.compress(false).emit_with_ack::<()>("e", text("asked, not")).await;
    });
    io.compress(false).emit_async("e", text("waiting, not")).await;
    let _open = client(move || {
        let both = [c.frame(), c.frame()];
        assert!(both.iter().all(|(compressed, _)| !compressed));
        c
    })
    .await;
    asked.abort();
}

#[tokio::test]
async fn on_a_websocket_with_compression() {
    on_a_websocket(builder().build()).await;
}

#[tokio::test]
async fn where_connections_can_be_recovered() {
    on_a_websocket(builder().connection_state_recovery(Recovery::new()).build()).await;
}

#[tokio::test]
async fn where_somebody_listens() {
    let io = builder().build();
    io.of("/").on_any_outgoing(|_, _, _| {});
    on_a_websocket(io).await;
}

#[tokio::test]
async fn in_polling_answers() {
    let io = builder().build();
    let addr = serve(&io).await;
    let sid = client(move || {
        let open = http(addr, "GET", "/socket.io/?EIO=4&transport=polling", "", "").2;
        let open: serde_json::Value = serde_json::from_str(&open[1..]).unwrap();
        let sid = open["sid"].as_str().unwrap().to_owned();
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        assert_eq!(http(addr, "POST", &path, "", "40").0, 200);
        assert!(http(addr, "GET", &path, "", "").2.starts_with("40"));
        sid
    })
    .await;
    for compress in [true, false] {
        io.compress(compress).emit("e", text("polled"));
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        client(move || {
            let (status, head, body) = http(addr, "GET", &path, "Accept-Encoding: gzip\r\n", "");
            assert_eq!(status, 200);
            assert_eq!(head.contains("content-encoding: gzip"), compress);
            assert_eq!(body.contains(&text("polled")), !compress);
        })
        .await;
    }
}
