//! What handlers may list as arguments.

use std::any::TypeId;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::DeserializeOwned;

use crate::call::{Call, DisconnectCall, EventCall, ServerCall, SocketCall};
use crate::error::EventError;
use crate::namespace::{Params, ParamsError, read_params};
use crate::packet::{Args, DataError, from_payload};
use crate::{Ack, DisconnectReason, Namespace, Socket, SocketIo};

/// An argument of a handler, made from the call `C`: [`ConnectCall`](crate::call::ConnectCall) (`on_connect`, middleware), [`EventCall`] (`on`),
/// [`DisconnectCall`] (`on_disconnecting`, `on_disconnect`), or [`ServerCall`] (`on_server_event`).
///
/// Implement it for your own types; use other extractors inside.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of this handler",
    label = "not an extractor here",
    note = "everywhere: `Socket`, `Auth<T>` and `HttpExtension<T>` (but in `on_server_event`), `SocketIo`, `Namespace`, `State<T>`, `Params<T>`, `Option<_>` or `Result<_, ExtractError>` of an extractor",
    note = "in `on` and `on_server_event`: `Data<T>`, `Args`, `Ack`, `Event`; in `on_disconnect`: `DisconnectReason`"
)]
pub trait Extract<C>: Sized {
    /// Makes the argument.
    ///
    /// # Errors
    /// It cannot be made: the handler does not run, and the error is reported.
    fn extract(call: &mut C) -> Result<Self, ExtractError>;

    /// The same for the last argument of a handler: nobody reads from the call after it.
    #[doc(hidden)]
    fn extract_last(call: &mut C) -> Result<Self, ExtractError> {
        Self::extract(call)
    }
}

/// An argument of a handler could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The client's arguments do not have the type the handler expects.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The namespace's parameters do not have the type the handler expects.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The server has no such state.
    #[error("there is no State<{0}>: give it to the builder with .state(value)")]
    State(&'static str),
    /// The request had no such extension, or it was not kept.
    #[error(
        "there is no HttpExtension<{0}>: keep it with Builder::keep_extension, and put it into the request in a layer around the server"
    )]
    HttpExtension(&'static str),
    /// The server is gone.
    #[error("the server is gone")]
    Gone,
    /// An extractor of the app's own refused, and the client is told why.
    #[error("refused: {0}")]
    Rejected(#[from] EventError),
    /// An extractor of the app's own refused, which is not the client's to know.
    #[error("{0}")]
    Other(String),
}

impl ExtractError {
    /// What the client is told, if it is its to know.
    pub(crate) fn for_client(&self) -> Option<EventError> {
        match self {
            ExtractError::Data(error) if error.is_of_auth() => Some(EventError::new("Invalid auth")),
            ExtractError::Data(_) => Some(EventError::new("Invalid arguments")),
            ExtractError::Params(_) => Some(EventError::new("Invalid namespace")),
            ExtractError::Rejected(error) => Some(error.clone()),
            ExtractError::State(_)
            | ExtractError::HttpExtension(_)
            | ExtractError::Gone
            | ExtractError::Other(_) => None,
        }
    }
}

/// The arguments of an event, read as `T`: a tuple takes several, any other type the first.
/// See [`Args::decode`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Data<T>(pub T);

/// What the client sent as `auth`, read as `T`. `Auth<serde_json::Value>` takes anything; nothing sent is null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Auth<T>(pub T);

/// A value the server was built with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State<T>(pub T);

/// A value of the handshake request's extensions, kept by
/// [`Builder::keep_extension`](crate::Builder::keep_extension).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpExtension<T>(pub T);

/// The event's name: for handlers of several events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event(pub std::sync::Arc<str>);

macro_rules! deref {
    ($($name:ident),*) => {$(
        impl<T> Deref for $name<T> {
            type Target = T;
            fn deref(&self) -> &T {
                &self.0
            }
        }
        impl<T> DerefMut for $name<T> {
            fn deref_mut(&mut self) -> &mut T {
                &mut self.0
            }
        }
    )*};
}
deref!(Data, Auth, State, HttpExtension);

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<C: SocketCall> Extract<C> for Socket {
    fn extract(call: &mut C) -> Result<Socket, ExtractError> {
        Ok(call.socket().clone())
    }
}

impl<C: Call> Extract<C> for SocketIo {
    fn extract(call: &mut C) -> Result<SocketIo, ExtractError> {
        call.namespace().io().ok_or(ExtractError::Gone)
    }
}

impl<C: Call> Extract<C> for Namespace {
    fn extract(call: &mut C) -> Result<Namespace, ExtractError> {
        Ok(call.namespace())
    }
}

impl<C: Call, T: Clone + Send + Sync + 'static> Extract<C> for State<T> {
    fn extract(call: &mut C) -> Result<State<T>, ExtractError> {
        let io = call.namespace().io().ok_or(ExtractError::Gone)?;
        let value = io.shared().state.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref::<T>());
        value.cloned().map(State).ok_or(ExtractError::State(std::any::type_name::<T>()))
    }
}

impl<C: Call, T: DeserializeOwned> Extract<C> for Params<T> {
    fn extract(call: &mut C) -> Result<Params<T>, ExtractError> {
        Ok(Params(read_params(call.namespace().params())?))
    }
}

impl<C: Call, T: Extract<C>> Extract<C> for Option<T> {
    fn extract(call: &mut C) -> Result<Option<T>, ExtractError> {
        Ok(T::extract(call).ok())
    }
}

impl<C: Call, T: Extract<C>> Extract<C> for Result<T, ExtractError> {
    fn extract(call: &mut C) -> Result<Result<T, ExtractError>, ExtractError> {
        Ok(T::extract(call))
    }
}

macro_rules! events {
    ($($call:ident),*) => {$(
        impl<T: DeserializeOwned> Extract<$call> for Data<T> {
            fn extract(call: &mut $call) -> Result<Data<T>, ExtractError> {
                Ok(Data(call.args.decode()?))
            }
        }

        impl Extract<$call> for Args {
            fn extract(call: &mut $call) -> Result<Args, ExtractError> {
                Ok(call.args.clone())
            }

            fn extract_last(call: &mut $call) -> Result<Args, ExtractError> {
                Ok(call.args.take())
            }
        }

        impl Extract<$call> for Event {
            fn extract(call: &mut $call) -> Result<Event, ExtractError> {
                Ok(Event(call.event.clone()))
            }
        }
    )*};
}
events!(EventCall, ServerCall);

impl Extract<EventCall> for Ack {
    fn extract(call: &mut EventCall) -> Result<Ack, ExtractError> {
        Ok(Ack::of_client(call.socket.clone(), call.ack.take()))
    }
}

impl Extract<ServerCall> for Ack {
    fn extract(call: &mut ServerCall) -> Result<Ack, ExtractError> {
        Ok(Ack::of_server(call.answer.take()))
    }
}

impl<C: SocketCall, T: DeserializeOwned> Extract<C> for Auth<T> {
    fn extract(call: &mut C) -> Result<Auth<T>, ExtractError> {
        Ok(Auth(from_payload(call.socket().auth_json())?))
    }
}

impl<C: SocketCall, T: Clone + Send + Sync + 'static> Extract<C> for HttpExtension<T> {
    fn extract(call: &mut C) -> Result<HttpExtension<T>, ExtractError> {
        let missing = || ExtractError::HttpExtension(std::any::type_name::<T>());
        call.socket().extension().map(HttpExtension).ok_or_else(missing)
    }
}

impl Extract<DisconnectCall> for DisconnectReason {
    fn extract(call: &mut DisconnectCall) -> Result<DisconnectReason, ExtractError> {
        Ok(call.reason)
    }
}
