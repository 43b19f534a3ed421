//! Writes a response: whole where its length is known and its body is there, in chunks where it is not.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Buf;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame};
use sundew_io::Conn;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use super::BoxError;

/// How long a client may take nothing of a response.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body is gathered before it is written.
const GATHERED: usize = 64 * 1024;

thread_local! {
    /// What the last response was written from: most need no more.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static NOW: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// There is none.
    None,
    Length(u64),
    Chunked,
}

impl Framing {
    fn of(parts: &Parts, exact: Option<u64>) -> Framing {
        let status = parts.status;
        if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Framing::None;
        }
        let said = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        said.or(exact).map_or(Framing::Chunked, Framing::Length)
    }
}

/// Whether these headers let the connection stay.
fn keeps(headers: &HeaderMap) -> bool {
    let mut tokens =
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    !tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// The head of a 101.
pub(crate) fn switching(parts: &Parts) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    head(&mut out, parts, Framing::None, false);
    out
}

/// Writes all of `response`. `keep`: the connection is kept, unless the response says otherwise, or its body turns out
/// shorter than announced; whether it is after all is returned.
pub(crate) async fn write<B>(conn: &mut Conn, response: Response<B>, keep: bool) -> io::Result<bool>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (parts, body) = response.into_parts();
    let mut body = pin!(body);
    let framing = Framing::of(&parts, body.size_hint().exact());
    let keep = keep && keeps(&parts.headers);
    let mut out = SPARE.take();
    out.clear();
    head(&mut out, &parts, framing, !keep);
    let mut left = match framing {
        Framing::None => return finish(conn, out).await.map(|()| keep),
        Framing::Length(length) => length,
        Framing::Chunked => u64::MAX,
    };
    while left > 0 && !body.is_end_stream() {
        let frame = match poll_fn(|cx| Poll::Ready(poll_frame(body.as_mut(), cx))).await {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                write_all(conn, &out).await?;
                out.clear();
                poll_fn(|cx| poll_frame(body.as_mut(), cx)).await
            }
        };
        let Some(frame) = frame else { break };
        // Trailers are for nobody.
        let Ok(data) = frame?.into_data() else { continue };
        let size = usize::try_from(left).map_or(data.remaining(), |left| data.remaining().min(left));
        if size == 0 {
            continue;
        }
        if framing == Framing::Chunked {
            line(&mut out, format_args!("{size:x}"));
        }
        let mut taken = data.take(size);
        while taken.has_remaining() {
            let chunk = taken.chunk();
            let length = chunk.len();
            out.extend_from_slice(chunk);
            taken.advance(length);
        }
        match framing {
            Framing::Chunked => out.extend_from_slice(b"\r\n"),
            _ => left -= size as u64,
        }
        if out.len() >= GATHERED {
            write_all(conn, &out).await?;
            out.clear();
        }
    }
    let complete = left == 0 || framing == Framing::Chunked;
    if framing == Framing::Chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    finish(conn, out).await.map(|()| keep && complete)
}

fn poll_frame<B>(body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<B::Data>>>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    body.poll_frame(cx).map_err(|error| io::Error::other(error.into()))
}

async fn finish(conn: &mut Conn, out: Vec<u8>) -> io::Result<()> {
    write_all(conn, &out).await?;
    if out.capacity() <= GATHERED {
        SPARE.set(out);
    }
    Ok(())
}

async fn write_all(conn: &mut Conn, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut written = pin!(poll_fn(|cx| Pin::new(&mut *conn).poll_write(cx, bytes)));
        // Nearly always there is room, and no timer is needed.
        let count = match poll_fn(|cx| Poll::Ready(written.as_mut().poll(cx))).await {
            Poll::Ready(result) => result?,
            Poll::Pending => timeout(STALL_TIMEOUT, written).await.map_err(io::Error::from)??,
        };
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
    }
    Ok(())
}

fn head(out: &mut Vec<u8>, parts: &Parts, framing: Framing, close: bool) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or("-").as_bytes());
    out.extend_from_slice(b"\r\n");
    let (mut said, mut dated) = (false, false);
    for (name, value) in &parts.headers {
        if *name == CONTENT_LENGTH {
            // Once, and only where it is what ends the body.
            if said || !matches!(framing, Framing::Length(_)) {
                continue;
            }
            said = true;
        }
        if *name == TRANSFER_ENCODING {
            continue;
        }
        if *name == CONNECTION && close {
            continue;
        }
        dated |= *name == DATE;
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    match framing {
        Framing::Length(length) if !said => line(out, format_args!("content-length: {length}")),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Length(_) | Framing::None => {}
    }
    if !dated {
        out.extend_from_slice(b"date: ");
        with_date(|date| out.extend_from_slice(date.as_bytes()));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    struct Text<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Text<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // Writing to memory does not fail.
    let _ = Text(out).write_fmt(text);
    out.extend_from_slice(b"\r\n");
}

/// The time of day for the `Date` header, made anew once a second.
fn with_date(f: impl FnOnce(&str)) {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    NOW.with_borrow_mut(|(made, text)| {
        if *made != second || text.is_empty() {
            *made = second;
            *text = httpdate::fmt_http_date(now);
        }
        f(text);
    });
}
