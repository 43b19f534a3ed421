//! The limits: websocket loops that know no Socket.IO beyond what a client needs to believe in it. `MODE`: `each` writes
//! every reply for itself, `coalesce` all replies to one read at once; both send what comes from one as `broadcast` to all,
//! one write per recipient. Polling and the upgrade from it are there too, with as little as a client of `bench` can do with:
//! no HTTP library, no checks, no timers, no end of a session.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tungstenite::handshake::derive_accept_key;

const OPEN: &str = r#"0{"sid":"bare","upgrades":[],"pingInterval":2500000,"pingTimeout":2000000,"maxPayload":1000000}"#;
const CONNECTED: &str = r#"40{"sid":"bare"}"#;

/// What polling sessions have to say to their clients.
type Sessions = Arc<Mutex<HashMap<String, Arc<Polled>>>>;

#[derive(Default)]
struct Polled {
    waiting: Mutex<String>,
    /// A websocket is coming: polls are answered at once.
    probed: AtomicBool,
    told: Notify,
}

impl Polled {
    fn say(&self, packet: &str) {
        let mut waiting = self.waiting.lock().unwrap();
        if !waiting.is_empty() {
            waiting.push('\x1e');
        }
        waiting.push_str(packet);
        self.told.notify_one();
    }

    async fn poll(&self) -> String {
        loop {
            let said = std::mem::take(&mut *self.waiting.lock().unwrap());
            if !said.is_empty() {
                return said;
            }
            if self.probed.load(Relaxed) {
                return "6".to_owned();
            }
            self.told.notified().await;
        }
    }
}

type Everybody = Arc<Mutex<HashMap<usize, Arc<tokio::net::tcp::OwnedWriteHalf>>>>;

#[tokio::main]
async fn main() -> io::Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".into());
    let coalesce = std::env::var("MODE").is_ok_and(|mode| mode == "coalesce");
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let (everybody, sessions) = (Everybody::default(), Sessions::default());
    for number in 0.. {
        let (stream, _) = listener.accept().await?;
        let (everybody, sessions) = (everybody.clone(), sessions.clone());
        tokio::spawn(async move {
            let _ = serve(stream, number, &everybody, &sessions, coalesce).await;
            everybody.lock().unwrap().remove(&number);
        });
    }
    Ok(())
}

async fn serve(
    stream: TcpStream,
    number: usize,
    everybody: &Everybody,
    sessions: &Sessions,
    coalesce: bool,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, write) = stream.into_split();
    let write = Arc::new(write);
    let Some(head) = polling(&mut read, &write, sessions).await? else { return Ok(()) };
    let polled = sid(&head).and_then(|sid| sessions.lock().unwrap().get(sid).cloned());
    let key = head.lines().find_map(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim().to_owned()));
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    let mut out = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes();
    if polled.is_none() {
        frame(&mut out, OPEN.as_bytes());
    }
    send(&write, &out).await?;
    let mut input = Vec::with_capacity(64 * 1024);
    loop {
        if read.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        out.clear();
        let mut used = 0;
        while let Some((payload, length)) = next(&mut input[used..]) {
            if payload == b"40" {
                frame(&mut out, CONNECTED.as_bytes());
                everybody.lock().unwrap().insert(number, write.clone());
            } else if payload == b"2probe" {
                frame(&mut out, b"3probe");
                if let Some(polled) = &polled {
                    polled.probed.store(true, Relaxed);
                    polled.told.notify_one();
                }
            } else if payload == b"5" {
                if let Some(sid) = sid(&head) {
                    sessions.lock().unwrap().remove(sid);
                }
                // What no poll has fetched.
                let waiting = polled.as_ref().map(|polled| std::mem::take(&mut *polled.waiting.lock().unwrap()));
                for packet in waiting.iter().flat_map(|waiting| waiting.split('\x1e')).filter(|packet| !packet.is_empty()) {
                    frame(&mut out, packet.as_bytes());
                }
            } else if payload.starts_with(br#"42["broadcast""#) {
                let mut framed = Vec::new();
                frame(&mut framed, payload);
                let all: Vec<_> = everybody.lock().unwrap().values().cloned().collect();
                for one in all {
                    let _ = send(&one, &framed).await;
                }
            } else if payload.starts_with(br#"420["echo-ack""#) {
                let answer = [&b"430["[..], &payload[br#"420["echo-ack","#.len()..]].concat();
                frame(&mut out, &answer);
            } else if payload != b"3" {
                frame(&mut out, payload);
            }
            used += length;
            if !coalesce {
                send(&write, &out).await?;
                out.clear();
            }
        }
        input.drain(..used);
        send(&write, &out).await?;
    }
}

async fn send(stream: &tokio::net::tcp::OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Answers requests until one is for a websocket, whose head is returned; none at the end.
async fn polling(read: &mut OwnedReadHalf, write: &tokio::net::tcp::OwnedWriteHalf, sessions: &Sessions) -> io::Result<Option<String>> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut input = Vec::with_capacity(1024);
    loop {
        let (head, body) = loop {
            if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&input[..end]).into_owned();
                let length = head.split("Content-Length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap_or("").parse().unwrap_or(0));
                if input.len() >= end + 4 + length {
                    let body = String::from_utf8_lossy(&input[end + 4..end + 4 + length]).into_owned();
                    input.drain(..end + 4 + length);
                    break (head, body);
                }
            }
            if read.read_buf(&mut input).await? == 0 {
                return Ok(None);
            }
        };
        if head.contains("transport=websocket") {
            return Ok(Some(head));
        }
        let found = sid(&head).and_then(|sid| sessions.lock().unwrap().get(sid).cloned());
        let answer = match (found, head.starts_with("POST")) {
            (Some(polled), true) => {
                match &body[..] {
                    "40" => polled.say(CONNECTED),
                    "1" | "3" => {}
                    message => polled.say(message),
                }
                "ok".to_owned()
            }
            (Some(polled), false) => polled.poll().await,
            (None, _) => {
                let sid = format!("bare{}", NUMBER.fetch_add(1, Relaxed));
                let open = OPEN.replace("bare", &sid);
                sessions.lock().unwrap().insert(sid, Arc::default());
                open
            }
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=UTF-8\r\ncache-control: no-store\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        send(write, answer.as_bytes()).await?;
    }
}

fn sid(head: &str) -> Option<&str> {
    head.lines().next()?.split("sid=").nth(1)?.split([' ', '&']).next()
}

fn frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x81);
    match payload.len() {
        length @ 0..126 => out.push(length as u8),
        length => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// The first frame of a client, unmasked in place, and its whole length.
fn next(input: &mut [u8]) -> Option<(&[u8], usize)> {
    let (start, length) = match input.get(1)? & 0x7f {
        126 => (8, u16::from_be_bytes([*input.get(2)?, *input.get(3)?]) as usize),
        length => (6, length as usize),
    };
    if input.len() < start + length {
        return None;
    }
    let mask: [u8; 4] = input[start - 4..start].try_into().unwrap();
    for (byte, key) in input[start..start + length].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Some((&input[start..start + length], start + length))
}
