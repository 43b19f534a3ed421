//! Handlers: async functions that list what they need as arguments.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::call::{Call, ConnectCall, EventCall};
use crate::error::{ConnectError, EventError, Failure};
use crate::extract::{Extract, ExtractError};

/// A handler's future.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// A handler whose arguments' types were forgotten.
pub(crate) type Erased<C> = Arc<dyn Fn(&mut C) -> Result<Work, ExtractError> + Send + Sync>;

/// An async function whose arguments are extractors of `C` (at most eight), returning `()` or `Result<(), E>` where `E`
/// can be displayed. An error is logged, counted and given to [`on_error`](crate::Namespace::on_error), and the client that
/// asked for an acknowledgement is told; an [`EventError`] in full.
///
/// Implemented for functions and closures; not to be implemented by hand. `M` only tells arities apart.
///
/// An `async |...|` closure that captures variables lends them to its future and is no handler. Give handlers what they
/// share as [`State`](crate::State), or clone it for each call:
///
/// ```
/// # use sundew_socketio::{Socket, SocketIo};
/// # let (io, name) = (SocketIo::new(), String::new());
/// io.on("name", move |socket: Socket| {
///     let name = name.clone();
///     async move { socket.emit("name", name) }
/// });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not an async function of extractors",
    note = "a handler is `async fn(A, B, ...)` or `async |a: A, b: B| {{ ... }}` with at most 8 arguments, each an extractor (`Socket`, `Data<T>`, `Ack`, ...), returning `()` or `Result<(), impl Display>`",
    note = "an `async |..|` closure cannot capture variables: use `move |..| {{ let x = x.clone(); async move {{ .. }} }}` or `State<T>`",
    note = "its future must be `Send + 'static`, and the closure `Fn + Send + Sync + 'static`: use `move` and clone what it captures"
)]
pub trait Handler<C, M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn start(&self, call: &mut C) -> Result<Work, ExtractError>;
}

/// An async function whose arguments are extractors of [`ConnectCall`] (at most eight), returning `Result<(), E>`: an `Err`
/// refuses the socket, and the client gets `connect_error` with the message (and data) of the [`ConnectError`] that `E`
/// turns into. A string does.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a middleware",
    label = "not an async function of extractors that returns a Result",
    note = "a middleware is `async fn(Socket, Auth<T>, ...) -> Result<(), E>` where `E: Into<ConnectError>` (`&str`, `String`, `ConnectError`)"
)]
pub trait Middleware<M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn start(&self, call: &mut ConnectCall) -> Result<Work, ExtractError>;
}

/// An async function whose arguments are extractors of [`EventCall`] (at most eight), returning `Result<(), E>`: an `Err`
/// refuses the event, and the client gets the [`EventError`] that `E` turns into as its acknowledgement, if it asked for
/// one. A string does.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a middleware for events",
    label = "not an async function of extractors that returns a Result",
    note = "it is `async fn(Socket, Event, ...) -> Result<(), E>` where `E: Into<EventError>` (`&str`, `String`, `EventError`)"
)]
pub trait EventMiddleware<M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn start(&self, call: &mut EventCall) -> Result<Work, ExtractError>;
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return `()` or `Result<(), E>` where `E: std::fmt::Display`; answer an event with the `Ack` extractor"
)]
pub trait Outcome {
    #[doc(hidden)]
    fn outcome(self) -> Result<(), Failure>;
}

impl Outcome for () {
    fn outcome(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: std::fmt::Display + 'static> Outcome for Result<(), E> {
    fn outcome(self) -> Result<(), Failure> {
        self.map_err(|error| Failure::of(&error))
    }
}

/// Who is reached is no reason to fail: what a broadcast says is not sent at all is.
impl Outcome for crate::operators::Sent {
    fn outcome(self) -> Result<(), Failure> {
        self.error.map_or(Ok(()), |error| Err(Failure::of(&error)))
    }
}

pub(crate) fn erase<C: Call, M>(handler: impl Handler<C, M>) -> Erased<C> {
    Arc::new(move |call| handler.start(call))
}

pub(crate) fn erase_event_middleware<M>(middleware: impl EventMiddleware<M>) -> Erased<EventCall> {
    Arc::new(move |call| middleware.start(call))
}

pub(crate) fn erase_middleware<M>(middleware: impl Middleware<M>) -> Erased<ConnectCall> {
    Arc::new(move |call| middleware.start(call))
}

macro_rules! handlers {
    ($(($($arg:ident),*; $($last:ident)?);)*) => {$(
        #[allow(non_snake_case, unused_variables)]
        impl<F, Fut, C, $($arg,)* $($last)?> Handler<C, ($($arg,)* $($last,)?)> for F
        where
            F: Fn($($arg,)* $($last)?) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: Outcome,
            C: Call,
            $($arg: Extract<C>,)*
            $($last: Extract<C>,)?
        {
            fn start(&self, call: &mut C) -> Result<Work, ExtractError> {
                $(let $arg = $arg::extract(call)?;)*
                $(let $last = $last::extract_last(call)?;)?
                let future = self($($arg,)* $($last)?);
                Ok(Box::pin(async move { future.await.outcome() }))
            }
        }

        #[allow(non_snake_case, unused_variables)]
        impl<F, Fut, E, $($arg,)* $($last)?> Middleware<($($arg,)* $($last,)?)> for F
        where
            F: Fn($($arg,)* $($last)?) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<(), E>> + Send + 'static,
            E: Into<ConnectError>,
            $($arg: Extract<ConnectCall>,)*
            $($last: Extract<ConnectCall>,)?
        {
            fn start(&self, call: &mut ConnectCall) -> Result<Work, ExtractError> {
                $(let $arg = $arg::extract(call)?;)*
                $(let $last = $last::extract(call)?;)?
                let future = self($($arg,)* $($last)?);
                Ok(Box::pin(async move { future.await.map_err(|error| Failure::Refused(error.into())) }))
            }
        }

        #[allow(non_snake_case, unused_variables)]
        impl<F, Fut, E, $($arg,)* $($last)?> EventMiddleware<($($arg,)* $($last,)?)> for F
        where
            F: Fn($($arg,)* $($last)?) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<(), E>> + Send + 'static,
            E: Into<EventError>,
            $($arg: Extract<EventCall>,)*
            $($last: Extract<EventCall>,)?
        {
            fn start(&self, call: &mut EventCall) -> Result<Work, ExtractError> {
                $(let $arg = $arg::extract(call)?;)*
                $(let $last = $last::extract(call)?;)?
                let future = self($($arg,)* $($last)?);
                Ok(Box::pin(async move { future.await.map_err(|error| Failure::Rejected(error.into())) }))
            }
        }
    )*};
}

handlers! {
    (;);
    (; A1);
    (A1; A2);
    (A1, A2; A3);
    (A1, A2, A3; A4);
    (A1, A2, A3, A4; A5);
    (A1, A2, A3, A4, A5; A6);
    (A1, A2, A3, A4, A5, A6; A7);
    (A1, A2, A3, A4, A5, A6, A7; A8);
}
