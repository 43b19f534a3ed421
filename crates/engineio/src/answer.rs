//! The answer to a request: there at once, or when there is something to say.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;

use crate::Body;

/// The answer to a request. Dropped while a poll waits, that session ends: the client is gone.
pub struct Answer(Kind);

enum Kind {
    /// Until it is taken.
    Now(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Answer {
    /// One that has to be waited for.
    pub fn later(answer: impl Future<Output = Response<Body>> + Send + 'static) -> Answer {
        Answer(Kind::Later(Box::pin(answer)))
    }
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Answer {
        Answer(Kind::Now(Some(response)))
    }
}

impl Future for Answer {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        match &mut self.0 {
            // Nobody polls it again, as of any future.
            Kind::Now(response) => response.take().map_or(Poll::Pending, Poll::Ready),
            Kind::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("there", &matches!(self.0, Kind::Now(_))).finish()
    }
}
