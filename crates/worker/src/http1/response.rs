//! Writes a response: whole where its length is known and its body is there, in chunks where it is not.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use sundew_io::Conn;
use tokio::io::AsyncWrite;
use tokio::time::{Sleep, sleep};

use super::BoxError;

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

pin_project! {
    /// A response on its way.
    pub(crate) struct Outgoing<B> {
        // Encoded, of which so much is written.
        out: Vec<u8>,
        written: usize,
        framing: Framing,
        // How much of the body is still to come.
        left: u64,
        ended: bool,
        keep: bool,
        // How long the client may take nothing, and the timer while it does.
        stall: Option<Duration>,
        patience: Option<Pin<Box<Sleep>>>,
        // What is wrong with the rest of the body: told when what came before it is written.
        broken: Option<io::Error>,
        #[pin]
        body: B,
    }
}

impl<B> Outgoing<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// `keep`: the connection is kept, unless the response says otherwise. `stall`: how long a client may take nothing of it.
    pub(crate) fn new(response: Response<B>, keep: bool, stall: Option<Duration>) -> Outgoing<B> {
        let (parts, body) = response.into_parts();
        let framing = Framing::of(&parts, body.size_hint().exact());
        let keep = keep && keeps(&parts.headers);
        let mut out = SPARE.take();
        out.clear();
        head(&mut out, &parts, framing, !keep);
        let left = match framing {
            Framing::None => 0,
            Framing::Length(length) => length,
            Framing::Chunked => u64::MAX,
        };
        let (patience, broken) = (None, None);
        Outgoing { out, written: 0, framing, left, ended: false, keep, stall, patience, broken, body }
    }

    /// Writes all of it. Returns whether the connection is kept: not if the body turns out shorter than announced, too.
    pub(crate) fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        conn: &mut Conn,
    ) -> Poll<io::Result<bool>> {
        loop {
            self.as_mut().gather(cx);
            let this = self.as_mut().project();
            if this.out.is_empty() && !*this.ended {
                return Poll::Pending;
            }
            while *this.written < this.out.len() {
                let count = ready!(write(conn, cx, &this.out[*this.written..], *this.stall, this.patience))?;
                *this.written += count;
            }
            if let Some(broken) = this.broken.take() {
                return Poll::Ready(Err(broken));
            }
            if *this.ended {
                if this.out.capacity() <= GATHERED {
                    SPARE.set(std::mem::take(this.out));
                }
                return Poll::Ready(Ok(*this.keep && (*this.left == 0 || *this.framing == Framing::Chunked)));
            }
            this.out.clear();
            *this.written = 0;
        }
    }

    /// Encodes what is there of the body, up to a limit.
    fn gather(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        let mut this = self.project();
        while !*this.ended && this.out.len() < GATHERED {
            let frame = match *this.left > 0 && !this.body.is_end_stream() {
                true => this.body.as_mut().poll_frame(cx),
                false => Poll::Ready(None),
            };
            match frame {
                // What is there need not wait for what is not.
                Poll::Pending => break,
                Poll::Ready(None) => {
                    *this.ended = true;
                    if *this.framing == Framing::Chunked {
                        this.out.extend_from_slice(b"0\r\n\r\n");
                    }
                }
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are for nobody.
                    if let Ok(data) = frame.into_data() {
                        *this.left -= push(this.out, data, *this.framing, *this.left);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    *this.broken = Some(io::Error::other(error.into()));
                    *this.ended = true;
                }
            }
        }
    }
}

/// Adds at most `left` bytes of `data` to what is written, and says how many of those that are left they were.
fn push(out: &mut Vec<u8>, data: impl Buf, framing: Framing, left: u64) -> u64 {
    let size = usize::try_from(left).map_or(data.remaining(), |left| data.remaining().min(left));
    if size == 0 {
        return 0;
    }
    if framing == Framing::Chunked {
        line(out, format_args!("{size:x}"));
    }
    out.put(data.take(size));
    if framing == Framing::Chunked {
        out.extend_from_slice(b"\r\n");
        return 0;
    }
    size as u64
}

/// Writes once. An error if the client takes nothing for too long.
fn write(
    conn: &mut Conn,
    cx: &mut Context<'_>,
    bytes: &[u8],
    stall: Option<Duration>,
    patience: &mut Option<Pin<Box<Sleep>>>,
) -> Poll<io::Result<usize>> {
    if let Poll::Ready(count) = Pin::new(conn).poll_write(cx, bytes)? {
        *patience = None;
        return Poll::Ready(if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) });
    }
    // Nearly always there is room, and no timer is needed.
    let Some(stall) = stall else { return Poll::Pending };
    ready!(patience.get_or_insert_with(|| Box::pin(sleep(stall))).as_mut().poll(cx));
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
