//! Acknowledgements: giving them, and waiting for them.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::Socket;
use crate::error::{AckError, EmitError, EventError};
use crate::operators::Flags;
use crate::packet::{Args, EmitArgs, Packet};
use crate::socket::acks::Waiter;
use crate::socket::{Inner, check};

/// Answers an event: the acknowledgement its client asked for, if it did. At most one can be sent; if the handler fails
/// before it is, the client is told of the failure instead (see [`Namespace::on_error`](crate::Namespace::on_error)).
///
/// In [`on_server_event`](crate::Namespace::on_server_event) it answers the server that asked.
#[derive(Debug)]
pub struct Ack(Option<To>);

#[derive(Debug)]
enum To {
    Client(Socket, Arc<Owed>),
    Server(oneshot::Sender<Packet>),
}

/// An acknowledgement a client asked for.
#[derive(Debug)]
pub(crate) struct Owed {
    id: u64,
    answered: AtomicBool,
}

impl Owed {
    pub(crate) fn new(id: u64) -> Owed {
        Owed { id, answered: AtomicBool::new(false) }
    }

    /// Sends it. Does nothing if it was sent before.
    fn answer(&self, socket: &Socket, args: impl EmitArgs) -> Result<(), EmitError> {
        let inner = socket.inner();
        let frames = inner.table.codec.ack(&inner.table.name, self.id, args)?;
        if !self.answered.swap(true, Ordering::AcqRel) {
            inner.deliver(frames, false)?;
        }
        Ok(())
    }

    /// The client learns that its event failed.
    pub(crate) fn fail(&self, socket: &Socket, error: &EventError) {
        #[derive(Serialize)]
        struct Failed<'a> {
            error: &'a EventError,
        }
        // If the client has left, or its queue is full, there is nobody to tell.
        let _ = self.answer(socket, Failed { error });
    }
}

impl Ack {
    pub(crate) fn of_client(socket: Socket, owed: Option<Arc<Owed>>) -> Ack {
        Ack(owed.map(|owed| To::Client(socket, owed)))
    }

    pub(crate) fn of_server(answer: Option<oneshot::Sender<Packet>>) -> Ack {
        Ack(answer.map(To::Server))
    }

    /// Whether it was asked for.
    pub fn is_expected(&self) -> bool {
        self.0.is_some()
    }

    /// Sends it; does nothing if nobody asked. A tuple is several values; see [`EmitArgs`].
    ///
    /// # Errors
    /// As [`Socket::emit`]. Where the value cannot be written as JSON the client is told of an error instead.
    pub fn send(self, args: impl EmitArgs) -> Result<(), EmitError> {
        match self.0 {
            Some(To::Client(socket, owed)) => {
                let sent = owed.answer(&socket, args);
                if let Err(error @ EmitError::Serialize(_)) = &sent {
                    // Many do not look at the result, and the client waits.
                    let nsp = &*socket.inner().table.name;
                    tracing::error!(nsp, %error, "an acknowledgement cannot be written: its client gets an error");
                    owed.fail(&socket, &EventError::new("Internal error"));
                }
                sent
            }
            Some(To::Server(answer)) => answer.send(Packet::arguments(args)?).map_err(|_| EmitError::Closed),
            None => Ok(()),
        }
    }
}

/// Waits for a client's acknowledgement. The event was sent when this was made.
#[must_use = "the event is sent, but nobody waits for its acknowledgement: await it, or use `emit`"]
pub struct AckFuture<T> {
    state: State,
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    expected: PhantomData<fn() -> T>,
}

enum State {
    Failed(Option<EmitError>),
    Waiting { answer: oneshot::Receiver<Args>, entry: Entry },
}

/// Takes the entry back if nobody waits any more.
struct Entry {
    socket: Weak<Inner>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.upgrade() {
            socket.forget(self.id);
        }
    }
}

impl<T> AckFuture<T> {
    pub(crate) fn send(
        socket: &Socket,
        name: &str,
        args: impl EmitArgs,
        timeout: Duration,
        flags: Flags,
    ) -> AckFuture<T> {
        let state = match AckFuture::<T>::start(socket, name, args, flags) {
            Ok(state) => state,
            Err(error) => State::Failed(Some(error)),
        };
        AckFuture { state, timeout, timer: None, expected: PhantomData }
    }

    fn start(socket: &Socket, name: &str, args: impl EmitArgs, flags: Flags) -> Result<State, EmitError> {
        check(name)?;
        let back = socket.inner().back();
        let socket = back.as_ref().unwrap_or(socket);
        let inner = socket.inner();
        let id = inner.table.next_ack();
        let (frames, listening) = inner.table.encode(Some(id), name, args)?;
        let (sender, answer) = oneshot::channel();
        // Before it is sent: the answer may be quick.
        inner.expect(id, Waiter::One(sender))?;
        let entry = Entry { socket: Arc::downgrade(inner), id };
        if !inner.deliver(flags.mark(frames), flags.volatile)? {
            return Err(EmitError::LeftOut);
        }
        if let Some(listening) = listening {
            listening.tell(socket);
        }
        Ok(State::Waiting { answer, entry })
    }

    /// Waits that long, counted from the first poll, instead of the server's `ack_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> AckFuture<T> {
        self.timeout = timeout;
        self
    }
}

impl<T: DeserializeOwned> Future for AckFuture<T> {
    type Output = Result<T, AckError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, AckError>> {
        let this = &mut *self;
        match &mut this.state {
            State::Failed(error) => {
                Poll::Ready(Err(error.take().map_or(AckError::Disconnected, AckError::Emit)))
            }
            State::Waiting { answer, entry } => {
                if let Poll::Ready(result) = Pin::new(answer).poll(cx) {
                    return Poll::Ready(match result {
                        Ok(args) => args.decode().map_err(AckError::Data),
                        Err(_) => Err(AckError::Disconnected),
                    });
                }
                let timeout = this.timeout;
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(timer.as_mut().poll(cx));
                if let Some(socket) = entry.socket.upgrade() {
                    socket.forget(entry.id);
                }
                this.state = State::Failed(None);
                Poll::Ready(Err(AckError::Timeout))
            }
        }
    }
}

impl<T> fmt::Debug for AckFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckFuture").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
