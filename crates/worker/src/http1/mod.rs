//! HTTP/1.1 for the requests that session servers get while their clients poll: small, many on a connection, each of them
//! answered by one write.
//!
//! A request goes through the app like any other. What this loop does not take, by its path or its form, is hyper's: that
//! request with every byte of it, and all that follow on the connection. So it can be strict, and refuses nothing itself.

mod request;
mod response;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use sundew_io::{Conn, Life, Origin, TakeOver};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::body::{Body, Feed};
use crate::connection::{Leaving, Requests};

/// How much is read at a time, and the largest head that is taken here. One buffer per thread: an idle connection has none.
const READ_SIZE: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// What becomes of a connection.
pub(crate) enum Next {
    /// It has ended, or is to end.
    Over,
    /// It has a request that is not taken here.
    Hyper(Conn),
    /// It is a websocket now.
    Life(Life),
}

/// What the connection brings while no request is being answered.
enum Brought {
    Bytes,
    End,
    /// The server leaves.
    Leaving,
}

/// Answers requests for as long as they can be taken here. `patience`: how long a connection may be idle, and a head take.
pub(crate) async fn serve<S, B>(
    conn: Conn,
    requests: &Requests,
    app: &mut S,
    leaving: &mut Leaving<'_>,
    patience: Option<Duration>,
) -> Next
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let mut driven = Driven { conn, input: BytesMut::new(), patience: Patience::new(patience), leaving };
    loop {
        driven.patience.begin();
        let mut searched = 0;
        while request::find_end(&driven.input, searched).is_none() {
            searched = driven.input.len();
            if searched >= READ_SIZE {
                return driven.to_hyper();
            }
            match poll_fn(|cx| driven.poll_input(cx)).await {
                Ok(Brought::Bytes) => {}
                // What is left of a head then is nobody's.
                Ok(Brought::End | Brought::Leaving) | Err(_) => return Next::Over,
            }
        }
        let bytes = std::mem::take(&mut driven.input).freeze();
        let Some(head) = request::read(&bytes, |path| requests.is_for_sessions(path)) else {
            driven.conn.put_back(bytes);
            return Next::Hyper(driven.conn);
        };
        let (body, feed) = driven.body_of(&bytes, head.end, head.body);
        let mut request = head.request.map(|()| body);
        let take_over = head.upgrade.then(TakeOver::default);
        if let Some(take_over) = &take_over {
            request.extensions_mut().insert(take_over.clone());
        }
        drop(bytes);
        let placement = requests.prepare(&mut request);
        let response = match driven.answered(app, request, feed.as_ref()).await {
            Ok(Some(response)) => response,
            Ok(None) => return Next::Over,
            Err(error) => {
                tracing::debug!(error = %error.into(), "the app did not answer a request");
                return Next::Over;
            }
        };
        drop(placement);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let head = response::switching(&response.into_parts().0);
            driven.conn.put_back(driven.input.freeze());
            let mut connection = driven.conn.into_recovered();
            connection.unwritten = head;
            // None is there if the client could not be served, or if the app said 101 to what asked for nothing.
            let life = take_over.and_then(|take_over| take_over.begin(connection));
            return life.map_or(Next::Over, Next::Life);
        }
        let mut keep = head.keep_alive && !driven.leaving.has_begun();
        // The front door sees no later request of a socket it has handed over, so there must be none.
        keep &= requests.origin() != Origin::HandedOff;
        // What is left of a body that nobody wants would be taken for the next request.
        keep &= feed.as_ref().is_none_or(Feed::is_done);
        match response::write(&mut driven.conn, response, keep).await {
            Ok(true) => {}
            Ok(false) => return Next::Over,
            Err(error) => {
                tracing::debug!(%error, "a connection ended within a response");
                return Next::Over;
            }
        }
    }
}

struct Driven<'a, 'l> {
    conn: Conn,
    /// Read and not used yet.
    input: BytesMut,
    patience: Patience,
    leaving: &'a mut Leaving<'l>,
}

impl Driven<'_, '_> {
    /// Waits for bytes, the end, or the end of patience.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Brought>> {
        if let Poll::Ready(read) =
            read(&mut self.conn, cx, READ_SIZE, |bytes| self.input.extend_from_slice(bytes))
        {
            return Poll::Ready(read.map(|count| if count == 0 { Brought::End } else { Brought::Bytes }));
        }
        if self.leaving.poll(cx).is_ready() {
            return Poll::Ready(Ok(Brought::Leaving));
        }
        ready!(self.patience.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The body behind the head in `bytes`, and where what is missing of it goes.
    fn body_of(&mut self, bytes: &Bytes, start: usize, length: u64) -> (Body, Option<Feed>) {
        let here = bytes.len() - start;
        match usize::try_from(length) {
            Ok(length) if length <= here => {
                if length < here {
                    self.input.extend_from_slice(&bytes[start + length..]);
                }
                let body = if length == 0 { Bytes::new() } else { bytes.slice(start..start + length) };
                (Body::whole(body), None)
            }
            _ => {
                let (body, feed) = Body::coming(bytes.slice(start..), length - here as u64);
                (body, Some(feed))
            }
        }
    }

    /// The app's answer; none if the client leaves before.
    async fn answered<S>(
        &mut self,
        app: &mut S,
        request: Request<Body>,
        feed: Option<&Feed>,
    ) -> Result<Option<S::Response>, S::Error>
    where
        S: Service<Request<Body>>,
    {
        poll_fn(|cx| app.poll_ready(cx)).await?;
        let mut answer = pin!(app.call(request));
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                    return Poll::Ready(answer.map(Some));
                }
                match ready!(self.poll_meanwhile(cx, feed)) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return Poll::Ready(Ok(None)),
                }
            }
        })
        .await
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

    fn to_hyper(mut self) -> Next {
        self.conn.put_back(self.input.freeze());
        Next::Hyper(self.conn)
    }
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
