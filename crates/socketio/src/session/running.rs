//! A handler at work: polled once in place, then wherever it is put. A panic in it ends here.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};

use crate::Socket;
use crate::ack::Owed;
use crate::call::EventCall;
use crate::error::{ConnectError, Failure, HandlerError};
use crate::extract::ExtractError;
use crate::handler::{Erased, Work};
use crate::troubles::{AtWork, Counters};

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
    /// None once it is over.
    work: Option<Result<Work, Box<Failure>>>,
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
        let work = Some(started.map_err(|error| Box::new(error.into())));
        Running { work, socket, what, owed: None }
    }

    /// Calls a handler; a panic in its synchronous part counts as the handler's.
    pub(crate) fn call(
        socket: Socket,
        what: What,
        call: impl FnOnce() -> Result<Work, ExtractError>,
    ) -> Running {
        Running { work: Some(guarded(call)), socket, what, owed: None }
    }

    /// Calls the handler of an event and polls it, once and in place: what [`call`](Running::call) and [`first`](Running::first)
    /// do, in one guard. Gives back whose it was, and which, if it is over then; a failure was reported. What the handler left
    /// of the arguments goes after it has been polled.
    #[inline(always)]
    pub(crate) fn event(
        mut call: EventCall,
        handler: &Erased<EventCall>,
    ) -> Result<(Socket, Arc<str>), Running> {
        let owed = call.ack.clone();
        let mut work = None;
        let polled = catch_unwind(AssertUnwindSafe(|| match handler(&mut call) {
            Ok(started) => work.insert(started).as_mut().poll(&mut Context::from_waker(Waker::noop())),
            Err(error) => Poll::Ready(Err(error.into())),
        }));
        let EventCall { socket, event, .. } = call;
        match polled {
            Ok(Poll::Ready(Ok(()))) => return Ok((socket, event)),
            Ok(Poll::Pending) => {
                return Err(Running { work: work.map(Ok), socket, what: What::Event(event), owed });
            }
            Ok(Poll::Ready(Err(failure))) => Running::failed(work, &socket, &event, owed, failure),
            Err(panic) => Running::failed(work, &socket, &event, owed, Failure::Panicked(message(&*panic))),
        }
        Ok((socket, event))
    }

    #[cold]
    fn failed(
        work: Option<Work>,
        socket: &Socket,
        event: &Arc<str>,
        owed: Option<Arc<Owed>>,
        failure: Failure,
    ) {
        // The work goes first, as in `poll_work`.
        drop(work);
        let ended = Running { work: None, socket: socket.clone(), what: What::Event(event.clone()), owed };
        ended.end(Err(failure));
    }

    pub(crate) fn is_of(&self, socket: &Socket) -> bool {
        self.socket == *socket
    }

    /// If it fails, and has not answered by then, the client is told.
    pub(crate) fn owing(self, owed: Option<Arc<Owed>>) -> Running {
        Running { owed, ..self }
    }

    /// Polls once, in place.
    pub(crate) fn first(mut self) -> Result<Done, Running> {
        match self.poll_work(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Ok(self.end(result)),
            Poll::Pending => Err(self),
        }
    }

    /// Polls once in place; what is left runs in a task of its own, with what `keeps` gives until it is over.
    pub(crate) fn detach<T: Send + 'static>(self, keeps: impl FnOnce() -> T) {
        if let Err(rest) = self.first() {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => {
                    let kept = (AtWork::new(&rest.socket.inner().table.counters), keeps());
                    runtime.spawn(async move {
                        rest.await;
                        drop(kept);
                    });
                }
                Err(_) => tracing::error!(
                    event = rest.what.name(),
                    "a handler that waits was dropped: it was started outside of a tokio runtime"
                ),
            }
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let result = match &mut self.work {
            Some(Ok(work)) => match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(result)) => result,
                Err(panic) => Err(Failure::Panicked(message(&*panic))),
            },
            _ => match self.work.take() {
                Some(Err(failure)) => Err(*failure),
                _ => Ok(()),
            },
        };
        // The work goes first: what it holds is free before anybody learns of its end.
        self.work = None;
        Poll::Ready(result)
    }

    fn end(self, result: Result<(), Failure>) -> Done {
        let Running { socket, what, owed, .. } = self;
        let refused = match result {
            Ok(()) => None,
            Err(Failure::Refused(error)) => Some(error),
            Err(Failure::Extract(ref error @ (ExtractError::Params(_) | ExtractError::Rejected(_))))
                if matches!(what, What::Middleware) =>
            {
                tracing::debug!(nsp = socket.namespace().name(), %error, "a middleware is not called");
                error.for_client().map(ConnectError::from)
            }
            Err(failure) => {
                // What failed inside is not the client's to know.
                let told = failure.for_client();
                if let Some(owed) = owed {
                    owed.fail(&socket, &told);
                }
                let error = HandlerError {
                    namespace: socket.namespace().name().into(),
                    socket_id: socket.id().into(),
                    event: what.name().into(),
                    failure,
                };
                socket.inner().table.report(&error);
                Some(told.into())
            }
        };
        Done { socket, what, refused }
    }
}

impl Future for Running {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Done> {
        let result = ready!(self.poll_work(cx));
        let (socket, what) = (self.socket.clone(), self.what.clone());
        let ended = Running { work: None, socket, what, owed: self.owed.take() };
        Poll::Ready(ended.end(result))
    }
}

fn guarded(call: impl FnOnce() -> Result<Work, ExtractError>) -> Result<Work, Box<Failure>> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(started) => started.map_err(|error| Box::new(error.into())),
        Err(panic) => Err(Box::new(Failure::Panicked(message(&*panic)))),
    }
}

/// Drops what is the app's, in the middle of what is not: a destructor that panics is to end nothing else.
pub(crate) fn drop_apps<T>(counters: &Counters, value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        counters.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!("a destructor of what a handler holds panicked: {}", message(&*panic));
    }
}

pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").into()
}
