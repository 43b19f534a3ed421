//! The body of a request, whichever loop reads it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use axum::BoxError;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

/// How much of a body waits for whoever takes it before no more is read.
const WAITING: usize = 64 * 1024;

/// The body of a request, as [`serve`](crate::serve) gives it to the app.
pub struct RequestBody(Kind);

enum Kind {
    Hyper(Incoming),
    /// All of it, if it has not been taken.
    Whole(Bytes),
    Coming(Arc<Mutex<Coming>>),
}

/// A body of which a part is still to come.
struct Coming {
    here: BytesMut,
    /// Bytes that are not here yet.
    to_come: u64,
    /// Nobody feeds it any more.
    cut: bool,
    /// Who waits for more of it.
    taker: Option<Waker>,
    /// Who waits for what is here to be taken.
    feeder: Option<Waker>,
}

/// The other end of a body of which a part is still to come. Dropped, the body is cut.
pub(crate) struct Feed(Arc<Mutex<Coming>>);

impl RequestBody {
    pub(crate) fn whole(bytes: Bytes) -> RequestBody {
        RequestBody(Kind::Whole(bytes))
    }

    /// `here` of it, and `to_come` more bytes.
    pub(crate) fn coming(here: Bytes, to_come: u64) -> (RequestBody, Feed) {
        let coming = Coming { here: here.into(), to_come, cut: false, taker: None, feeder: None };
        let coming = Arc::new(Mutex::new(coming));
        (RequestBody(Kind::Coming(coming.clone())), Feed(coming))
    }
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> RequestBody {
        RequestBody(Kind::Hyper(body))
    }
}

impl Feed {
    /// Whether all of it has come.
    pub(crate) fn is_done(&self) -> bool {
        self.0.lock().to_come == 0
    }

    /// How much more to read now; pending while what has come is still waiting.
    pub(crate) fn poll_wants(&self, cx: &Context<'_>) -> Poll<usize> {
        let mut coming = self.0.lock();
        let room = WAITING.saturating_sub(coming.here.len());
        if room == 0 {
            coming.feeder = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(usize::try_from(coming.to_come).unwrap_or(usize::MAX).min(room))
    }

    /// Adds what has come, no more than was wanted.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut coming = self.0.lock();
        coming.here.extend_from_slice(bytes);
        coming.to_come = coming.to_come.saturating_sub(bytes.len() as u64);
        if let Some(waker) = coming.taker.take() {
            waker.wake();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut coming = self.0.lock();
        coming.cut = coming.to_come > 0;
        if let Some(waker) = coming.taker.take() {
            waker.wake();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Coming(coming) => {
                let mut coming = coming.lock();
                if !coming.here.is_empty() {
                    if let Some(waker) = coming.feeder.take() {
                        waker.wake();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut coming.here).freeze()))));
                }
                if coming.to_come == 0 {
                    return Poll::Ready(None);
                }
                if coming.cut {
                    return Poll::Ready(Some(Err("the connection ended within the body".into())));
                }
                coming.taker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Hyper(body) => body.is_end_stream(),
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Coming(coming) => {
                let coming = coming.lock();
                coming.here.is_empty() && coming.to_come == 0
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Hyper(body) => body.size_hint(),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Coming(coming) => {
                let coming = coming.lock();
                SizeHint::with_exact(coming.to_come.saturating_add(coming.here.len() as u64))
            }
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestBody").field(&self.size_hint()).finish()
    }
}
