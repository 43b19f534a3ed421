//! The one stream of a session, and the session's end: what is written arrives before the client is told of it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;
use web_transport_quinn::{RecvStream, SendStream, Session};

/// How long the client's program has for the last output, once its machine has acknowledged it: a browser throws away what
/// a page has not read when it hears of the session's end.
const READING: Duration = Duration::from_millis(500);

/// A session of WebTransport that is closed when nobody holds it any more.
pub(crate) struct Owned(Session);

impl Owned {
    pub(crate) fn new(session: Session) -> Owned {
        Owned(session)
    }

    pub(crate) fn session(&self) -> &Session {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.0.close_reason().is_some() {
            return;
        }
        // Nothing, if it was closed with a reason before.
        self.0.close(0, b"");
        // Outside of a runtime, which is at the end of the process, that was all.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let session = self.0.clone();
            runtime.spawn(async move { ended(&session).await });
        }
    }
}

/// Waits until the connection of a session that was closed has ended: soon, by the library's own limit. To drop the session
/// before would stop the client's control stream, which is an error of HTTP/3 and overtakes the good end.
async fn ended(session: &Session) {
    session.closed().await;
}

/// The stream an Engine.IO session lives on.
pub(crate) struct Stream {
    receive: RecvStream,
    /// None once it is shut down.
    send: Option<SendStream>,
    session: Owned,
    close_timeout: Duration,
}

impl Stream {
    /// `close_timeout`: how long the last output may take.
    pub(crate) fn new(
        session: Owned,
        (send, receive): (SendStream, RecvStream),
        close_timeout: Duration,
    ) -> Stream {
        Stream { receive, send: Some(send), session, close_timeout }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // QUIC's streams know nothing of the task's budget.
        let budget = ready!(poll_proceed(cx));
        let read = Pin::new(&mut self.receive).poll_read(cx, buf);
        if read.is_ready() {
            budget.made_progress();
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.send {
            Some(send) => AsyncWrite::poll_write(Pin::new(send), cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut written = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match self.as_mut().poll_write(cx, slice) {
                Poll::Ready(Ok(count)) if count == slice.len() => written += count,
                Poll::Ready(Ok(count)) => return Poll::Ready(Ok(written + count)),
                // What came before was written: the next call tells the rest.
                _ if written > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will come, and has the session closed once the client has everything: the end of a session
    /// travels beside its streams and would overtake them. A client that was told to leave ends it first.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(mut send) = self.send.take() {
            let (session, limit) = (self.session.session().clone(), self.close_timeout);
            tokio::spawn(async move {
                if send.finish().is_ok() {
                    let _ = tokio::time::timeout(limit, send.stopped()).await;
                    let _ = tokio::time::timeout(limit.min(READING), session.closed()).await;
                }
                session.close(0, b"");
                ended(&session).await;
            });
        }
        Poll::Ready(Ok(()))
    }
}
