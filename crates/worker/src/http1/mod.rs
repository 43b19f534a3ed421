//! HTTP/1.1 for the requests that session servers get while their clients poll: small, many on a connection, each of them
//! answered by one write.
//!
//! A request goes through the app like any other. What this loop does not take, by its path or its form, is hyper's: that
//! request with every byte of it, and all that follow on the connection. So it can be strict, and refuses nothing itself.

pub(crate) mod request;
mod response;
#[cfg(test)]
mod tests;
mod usual;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use sundew_io::{Conn, Origin, TakeOver};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::body::{Feed, RequestBody};
use crate::connection::{Leaving, Requests};
use crate::placement::Placement;
use request::Head;
use response::Outgoing;

/// How much is read at a time, and the largest head that is taken here. One buffer per thread: an idle connection has none.
const READ_SIZE: usize = 16 * 1024;

/// How long a client may take nothing of a response. The front door has its own limit, so a leg has none.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How much memory the headers of a request may keep: a longer head has its own.
const KEPT: usize = 2048;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// What becomes of a connection.
pub(crate) enum Next {
    /// It has ended, or is to end.
    Over,
    /// It has a request that is not taken here.
    Hyper,
    /// It has been upgraded. The head of the 101 is not written yet.
    Switched { take_over: TakeOver, head: Vec<u8> },
}

/// What the connection brings while no request is being answered.
enum Brought {
    Bytes,
    End,
    /// The server leaves.
    Leaving,
}

pin_project! {
    /// A request that the app is working on.
    struct Working<F> {
        #[pin]
        answer: F,
        // What is missing of its body goes here.
        feed: Option<Feed>,
        take_over: Option<TakeOver>,
        placement: Option<Placement>,
        keep_alive: bool,
    }
}

/// A connection and what was read of it.
pub(crate) struct Quick {
    conn: Conn,
    /// Read and not used yet.
    input: BytesMut,
    patience: Patience,
}

impl Quick {
    /// `patience`: how long the connection may be idle, and a head take.
    pub(crate) fn new(conn: Conn, patience: Option<Duration>) -> Quick {
        Quick { conn, input: BytesMut::new(), patience: Patience::new(patience) }
    }

    /// How long the connection may be idle, and a head take.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.patience.limit
    }

    /// The connection, with all that was read and not used.
    pub(crate) fn into_conn(mut self) -> Conn {
        self.conn.put_back(self.input.freeze());
        self.conn
    }

    /// Answers requests for as long as they can be taken here.
    pub(crate) async fn serve<S, B>(
        &mut self,
        requests: &Requests,
        app: &mut S,
        leaving: &mut Leaving<'_>,
    ) -> Next
    where
        S: Service<Request<RequestBody>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        loop {
            self.patience.begin();
            let mut searched = 0;
            while !request::is_complete(&self.input, searched) {
                searched = self.input.len();
                if searched >= READ_SIZE || searched > 0 && !request::may_come(&self.input) {
                    return Next::Hyper;
                }
                match poll_fn(|cx| self.poll_input(cx, leaving)).await {
                    Ok(Brought::Bytes) => {}
                    // A request that has begun is waited for.
                    Ok(Brought::Leaving) if !self.input.is_empty() => return Next::Hyper,
                    Ok(Brought::End | Brought::Leaving) | Err(_) => return Next::Over,
                }
            }
            let ready =
                poll_fn(|cx| self.poll_unless_gone(cx, |_, cx| app.poll_ready(cx).map_err(unanswered)));
            if !matches!(ready.await, Some(Ok(()))) {
                return Next::Over;
            }
            let step = {
                let Some(working) = self.begin(requests, app) else { return Next::Hyper };
                let mut working = pin!(working);
                // The front door sees no later request of a socket it has handed over, so there must be none.
                let (keep, leaves) = (requests.origin() != Origin::HandedOff, leaving.has_begun());
                poll_fn(|cx| self.poll_answered(cx, working.as_mut(), || keep && !leaves())).await
            };
            let mut outgoing = match step {
                ControlFlow::Break(next) => return next,
                ControlFlow::Continue(outgoing) => pin!(outgoing),
            };
            let written = poll_fn(|cx| {
                self.poll_unless_gone(cx, |quick, cx| outgoing.as_mut().poll_write(cx, &mut quick.conn))
            });
            match written.await {
                Some(Ok(true)) => {}
                Some(Ok(false)) | None => return Next::Over,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection ended within a response");
                    return Next::Over;
                }
            }
        }
    }

    /// Waits for bytes, the end, or the end of patience.
    fn poll_input(&mut self, cx: &mut Context<'_>, leaving: &mut Leaving<'_>) -> Poll<io::Result<Brought>> {
        if let Poll::Ready(read) =
            read(&mut self.conn, cx, READ_SIZE, |bytes| self.input.extend_from_slice(bytes))
        {
            return Poll::Ready(read.map(|count| if count == 0 { Brought::End } else { Brought::Bytes }));
        }
        if leaving.poll(cx).is_ready() {
            return Poll::Ready(Ok(Brought::Leaving));
        }
        ready!(self.patience.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The body behind the head in `bytes`, and where what is missing of it goes.
    fn body_of(&mut self, bytes: &Bytes, start: usize, length: u64) -> (RequestBody, Option<Feed>) {
        let here = bytes.len() - start;
        match usize::try_from(length) {
            Ok(length) if length <= here => {
                if length < here {
                    self.input.extend_from_slice(&bytes[start + length..]);
                }
                let body = if length == 0 { Bytes::new() } else { bytes.slice(start..start + length) };
                (RequestBody::whole(body), None)
            }
            _ => {
                let (body, feed) = RequestBody::coming(bytes.slice(start..), length - here as u64);
                (body, Some(feed))
            }
        }
    }

    /// Gives the app the request whose head is there. `None`: it is not taken here.
    fn begin<S>(&mut self, requests: &Requests, app: &mut S) -> Option<Working<S::Future>>
    where
        S: Service<Request<RequestBody>>,
    {
        let bytes = std::mem::take(&mut self.input).freeze();
        // Whoever keeps a header keeps the memory it was read into.
        let alone = (bytes.len() > KEPT).then(|| Bytes::copy_from_slice(request::head_of(&bytes)));
        let Some(Head { request, end, body, keep_alive, upgrade }) =
            request::read(alone.as_ref().unwrap_or(&bytes), |path| requests.is_for_sessions(path))
        else {
            self.conn.put_back(bytes);
            return None;
        };
        let (body, feed) = self.body_of(&bytes, end, body);
        let mut request = request.map(|()| body);
        let take_over = upgrade.then(TakeOver::default);
        if let Some(take_over) = &take_over {
            request.extensions_mut().insert(take_over.clone());
        }
        let placement = requests.prepare(&mut request);
        Some(Working { answer: app.call(request), feed, take_over, placement, keep_alive })
    }

    /// Waits for the app's answer, unless the client leaves before. `keep`: whether the connection can be kept then.
    fn poll_answered<F, B, E>(
        &mut self,
        cx: &mut Context<'_>,
        working: Pin<&mut Working<F>>,
        keep: impl FnOnce() -> bool,
    ) -> Poll<ControlFlow<Next, Outgoing<B>>>
    where
        F: Future<Output = Result<Response<B>, E>>,
        E: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        let mut working = working.project();
        let answer = loop {
            if let Poll::Ready(answer) = working.answer.as_mut().poll(cx) {
                break answer;
            }
            match ready!(self.poll_meanwhile(cx, working.feed.as_ref())) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(ControlFlow::Break(Next::Over)),
            }
        };
        if working.feed.as_ref().is_some_and(|feed| !feed.is_done()) {
            // The rest of it may be there already.
            let _ = self.poll_meanwhile(cx, working.feed.as_ref());
        }
        *working.placement = None;
        Poll::Ready(match answer {
            Err(error) => {
                unanswered(error);
                ControlFlow::Break(Next::Over)
            }
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let head = response::switching(&response.into_parts().0);
                // None is there if the app said 101 to what asked for nothing.
                let take_over = working.take_over.take();
                ControlFlow::Break(
                    take_over.map_or(Next::Over, |take_over| Next::Switched { take_over, head }),
                )
            }
            Ok(mut response) => {
                let interim = response.status().is_informational();
                if interim {
                    // Whoever gets one waits for another response.
                    tracing::error!(status = %response.status(), "the app answered with a status that is no answer");
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                // What is left of a body that nobody wants would be taken for the next request.
                let clean = *working.keep_alive && working.feed.as_ref().is_none_or(Feed::is_done);
                let stall = self.patience.limit.map(|_| STALL_TIMEOUT);
                ControlFlow::Continue(Outgoing::new(response, clean && !interim && keep(), stall))
            }
        })
    }

    /// Waits for something that is not the client's, unless the client leaves before: `None`.
    fn poll_unless_gone<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Quick, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        loop {
            if let Poll::Ready(done) = poll(self, cx) {
                return Poll::Ready(Some(done));
            }
            match ready!(self.poll_meanwhile(cx, None)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(None),
            }
        }
    }

    /// Reads on while the app has not answered. False: the client has gone.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>, feed: Option<&Feed>) -> Poll<io::Result<bool>> {
        if let Some(feed) = feed.filter(|feed| !feed.is_done()) {
            let wanted = ready!(feed.poll_wants(cx));
            return read(&mut self.conn, cx, wanted, |bytes| feed.push(bytes)).map_ok(|count| count > 0);
        }
        // The next request, already: it waits, and no more than it.
        let room = READ_SIZE.saturating_sub(self.input.len());
        if room == 0 {
            return Poll::Pending;
        }
        read(&mut self.conn, cx, room, |bytes| self.input.extend_from_slice(bytes)).map_ok(|count| count > 0)
    }
}

fn unanswered(error: impl Into<BoxError>) {
    tracing::debug!(error = %error.into(), "the app did not answer a request");
}

/// Reads once, at most `limit` bytes.
fn read(
    conn: &mut Conn,
    cx: &mut Context<'_>,
    limit: usize,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let limit = limit.min(scratch.len());
        let mut buf = ReadBuf::new(&mut scratch[..limit]);
        ready!(Pin::new(conn).poll_read(cx, &mut buf))?;
        take(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    })
}

/// How long the next head may take. One timer per connection, that goes on from request to request: to enter the runtime's
/// wheel and to leave it takes a lock that all connections share.
struct Patience {
    limit: Option<Duration>,
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Option<Duration>) -> Patience {
        Patience { limit, until: None, timer: None }
    }

    fn begin(&mut self) {
        self.until = self.limit.map(|limit| Instant::now() + limit);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}
