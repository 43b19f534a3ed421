//! A handler at work: polled once in place, then wherever it is put. A panic in it ends here.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::Socket;
use crate::ack::Owed;
use crate::error::{ConnectError, Failure, HandlerError};
use crate::extract::ExtractError;
use crate::handler::Work;

/// Which handler.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Middleware,
    Connect,
    Event(Arc<str>),
    /// One that hears of every event.
    Any(Arc<str>),
    Disconnecting,
    Disconnect,
}

impl What {
    fn name(&self) -> &str {
        match self {
            What::Middleware => "middleware",
            What::Connect => "connect",
            What::Event(event) | What::Any(event) => event,
            What::Disconnecting => "disconnecting",
            What::Disconnect => "disconnect",
        }
    }
}

/// A handler at work.
pub(crate) struct Running {
    work: Option<Work>,
    early: Option<Failure>,
    socket: Socket,
    what: What,
    /// The acknowledgement that is asked for.
    owed: Option<Arc<Owed>>,
}

/// A handler at its end. Failures were reported.
pub(crate) struct Done {
    pub(crate) socket: Socket,
    pub(crate) what: What,
    /// Of a middleware: what the client is told.
    pub(crate) refused: Option<ConnectError>,
}

impl Running {
    /// `started` is what calling the handler gave.
    pub(crate) fn new(started: Result<Work, ExtractError>, socket: Socket, what: What) -> Running {
        match started {
            Ok(work) => Running { work: Some(work), early: None, socket, what, owed: None },
            Err(error) => Running { work: None, early: Some(error.into()), socket, what, owed: None },
        }
    }

    /// Calls a handler; a panic in its synchronous part counts as the handler's.
    pub(crate) fn call(
        socket: Socket,
        what: What,
        call: impl FnOnce() -> Result<Work, ExtractError>,
    ) -> Running {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(started) => Running::new(started, socket, what),
            Err(panic) => {
                let early = Some(Failure::Panicked(message(&*panic)));
                Running { work: None, early, socket, what, owed: None }
            }
        }
    }

    /// If it fails, and has not answered by then, the client is told.
    pub(crate) fn owing(self, owed: Option<Arc<Owed>>) -> Running {
        Running { owed, ..self }
    }

    /// Polls once, in place.
    pub(crate) fn first(mut self) -> Result<Done, Running> {
        match Pin::new(&mut self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Ok(done),
            Poll::Pending => Err(self),
        }
    }

    /// Polls once in place; what is left runs in a task of its own.
    pub(crate) fn detach(self) {
        if let Err(rest) = self.first() {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(rest)),
                Err(_) => tracing::error!(
                    event = rest.what.name(),
                    "a handler that waits was dropped: it was started outside of a tokio runtime"
                ),
            }
        }
    }

    fn end(&mut self, result: Result<(), Failure>) -> Done {
        let what = self.what.clone();
        let refused = match result {
            Ok(()) => None,
            Err(Failure::Refused(error)) => {
                tracing::debug!(
                    nsp = self.socket.namespace().name(),
                    socket = self.socket.id(),
                    "refused: {error}"
                );
                Some(error)
            }
            Err(Failure::Extract(ExtractError::Params(error))) if matches!(what, What::Middleware) => {
                tracing::debug!(nsp = self.socket.namespace().name(), %error, "refused");
                Some(ConnectError::new("Invalid namespace"))
            }
            Err(failure) => {
                if let Some(owed) = self.owed.take() {
                    owed.fail(&self.socket, &failure.for_client());
                }
                let error = HandlerError {
                    namespace: self.socket.namespace().name().into(),
                    socket_id: self.socket.id().into(),
                    event: what.name().into(),
                    failure,
                };
                self.socket.inner().table.report(&error);
                // What failed inside is not the client's to know.
                Some(ConnectError::new("Internal error"))
            }
        };
        Done { socket: self.socket.clone(), what, refused }
    }
}

impl Future for Running {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let this = &mut *self;
        let result = match &mut this.work {
            None => this.early.take().map_or(Ok(()), Err),
            Some(work) => match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(result)) => result,
                Err(panic) => Err(Failure::Panicked(message(&*panic))),
            },
        };
        // The work goes first: what it holds is free before anybody learns of its end.
        this.work = None;
        Poll::Ready(this.end(result))
    }
}

pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}
