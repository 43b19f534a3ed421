//! What can fail when something is sent, and how handlers' failures are told.

use std::any::Any;
use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::OnFull;
use crate::adapter::AdapterError;
use crate::packet::{Args, DataError};

/// An event was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The client reads too slowly and its queue is full. The event is lost, and the namespace's policy was applied.
    /// `emit_async` waits instead.
    #[error("the client's outgoing queue is full: it reads too slowly (policy: {policy:?})")]
    Full {
        /// What the namespace does in this case.
        policy: OnFull,
    },
    /// Too many acknowledgements of this socket are outstanding (`max_pending_acks`).
    #[error("the client owes too many acknowledgements (max_pending_acks)")]
    TooManyAcks,
    /// A volatile event was left out: the client was not ready to receive at that moment.
    #[error("a volatile event was left out: the client was not ready to receive")]
    LeftOut,
    /// The socket is disconnected.
    #[error("the socket is disconnected")]
    Closed,
    /// The adapter could not hand it on to the other servers.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The arguments do not serialize to JSON.
    #[error("the arguments do not serialize: {0}")]
    Serialize(#[from] serde_json::Error),
    /// The name means something to clients, or is refused by them (`connect`, `disconnect`, ...).
    #[error("{0:?} is a reserved event name")]
    Reserved(String),
}

/// An acknowledgement did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// Not in time.
    #[error("operation has timed out")]
    Timeout,
    /// The socket disconnected first.
    #[error("socket has been disconnected")]
    Disconnected,
    /// It is not what was expected.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The event was not sent in the first place.
    #[error(transparent)]
    Emit(#[from] EmitError),
}

/// A broadcast was not acknowledged by everybody.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastAckError {
    /// Some clients did not answer, in time or ever; of a server-side emit, some servers.
    #[error("{missing} of {expected} did not acknowledge")]
    Incomplete {
        /// The answers that came.
        answers: Vec<Args>,
        /// How many got the event.
        expected: u64,
        /// How many of them did not answer.
        missing: u64,
    },
    /// Other servers could not be asked.
    #[error("{error}")]
    Adapter {
        /// Why.
        error: AdapterError,
        /// The answers that came.
        answers: Vec<Args>,
    },
    /// The event was not sent in the first place.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// Everybody answered, but an answer is not what was expected.
    #[error("{error}")]
    Data {
        /// Why the first such answer is not.
        error: DataError,
        /// All answers, that one among them.
        answers: Vec<Args>,
    },
}

/// Reads what everybody answered. One answer that does not fit must not cost the others: the error has them all.
pub(crate) fn read_all<T: DeserializeOwned>(answers: Vec<Args>) -> Result<Vec<T>, BroadcastAckError> {
    match answers.iter().map(Args::decode).collect() {
        Ok(read) => Ok(read),
        Err(error) => Err(BroadcastAckError::Data { error, answers }),
    }
}

/// A middleware's refusal: what the client gets as `connect_error`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectError {
    /// The error's `message`.
    pub message: String,
    /// The error's `data`; null leaves it out.
    pub data: Value,
}

impl From<EventError> for ConnectError {
    fn from(EventError { message, data }: EventError) -> ConnectError {
        ConnectError { message, data }
    }
}

impl ConnectError {
    /// A refusal without data.
    pub fn new(message: impl Into<String>) -> ConnectError {
        ConnectError { message: message.into(), data: Value::Null }
    }

    /// A refusal with data for the client.
    #[must_use]
    pub fn with_data(self, data: impl Into<Value>) -> ConnectError {
        ConnectError { data: data.into(), ..self }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConnectError {}

impl From<&str> for ConnectError {
    fn from(message: &str) -> ConnectError {
        ConnectError::new(message)
    }
}

impl From<String> for ConnectError {
    fn from(message: String) -> ConnectError {
        ConnectError::new(message)
    }
}

/// An event was refused, and this is what its client is told: if it asked for an acknowledgement, that is
/// `{"error":{"message":...,"data":...}}`. Returned by middleware for events, and by handlers.
///
/// ```
/// # use sundew_socketio::{EventError, SocketIo, extract::Data};
/// # let io = SocketIo::new();
/// io.on("withdraw", async |Data(amount): Data<u32>| {
///     if amount > 100 { Err(EventError::new("too much").with_data(100)) } else { Ok(()) }
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EventError {
    /// The message.
    pub message: String,
    /// More for the client; null is left out.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

impl EventError {
    /// An error with a message.
    pub fn new(message: impl Into<String>) -> EventError {
        EventError { message: message.into(), data: Value::Null }
    }

    /// An error with data for the client.
    #[must_use]
    pub fn with_data(self, data: impl Into<Value>) -> EventError {
        EventError { data: data.into(), ..self }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EventError {}

impl From<&str> for EventError {
    fn from(message: &str) -> EventError {
        EventError::new(message)
    }
}

impl From<String> for EventError {
    fn from(message: String) -> EventError {
        EventError::new(message)
    }
}

/// What went wrong in a handler. Always logged and counted; [`Namespace::on_error`](crate::Namespace::on_error) hears
/// of it too.
#[derive(Debug)]
#[non_exhaustive]
pub struct HandlerError {
    /// The namespace.
    pub namespace: String,
    /// The socket's public id. Empty where no socket has to do with it: events of other servers, and `of_when`.
    pub socket_id: String,
    /// The event's name; `connect`, `disconnecting` or `disconnect` for those handlers, `middleware` for middleware, `of_when`
    /// for a predicate that panicked.
    pub event: String,
    /// What happened.
    pub failure: Failure,
}

/// A name for a log: a client's may be as long as a message.
pub(crate) fn short(name: &str) -> &str {
    name.char_indices().nth(100).map_or(name, |(at, _)| &name[..at])
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The names are the client's: no line is to look like another's.
        write!(
            f,
            "{} in {}: {}",
            short(&self.event).escape_debug(),
            self.namespace.escape_debug(),
            self.failure
        )
    }
}

impl std::error::Error for HandlerError {}

/// How a handler failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// An argument of the handler could not be made; the handler did not run.
    #[error("{0}")]
    Extract(#[from] crate::extract::ExtractError),
    /// It returned an error.
    #[error("the handler failed: {0}")]
    Returned(String),
    /// It returned [`EmitError::Closed`] or [`AckError::Disconnected`], as it is or as a `Box<dyn Error + Send + Sync>`: its client
    /// had left, or another it had to do with.
    #[error("the client has left: {0}")]
    ClientLeft(String),
    /// It panicked. Nobody else is affected.
    #[error("the handler panicked: {0}")]
    Panicked(String),
    /// A middleware, or the handler itself, refused the event.
    #[error("refused: {0}")]
    Rejected(EventError),
    /// The client has sent more than [`Namespace::rate_limit`](crate::Namespace::rate_limit) allows. Told once, until an event
    /// passes again.
    #[error("the client sends more events than its rate limit allows")]
    RateLimited,
    /// A middleware refused the connection.
    #[error("refused: {0}")]
    Refused(ConnectError),
}

impl Failure {
    /// What a handler's error says of it.
    pub(crate) fn of<E: fmt::Display + 'static>(error: &E) -> Failure {
        type Boxed = Box<dyn std::error::Error + Send + Sync>;
        let found = match (error as &dyn Any).downcast_ref::<Boxed>() {
            Some(boxed) => Failure::known(boxed.downcast_ref(), boxed.downcast_ref(), boxed.downcast_ref()),
            None => {
                let error = error as &dyn Any;
                Failure::known(error.downcast_ref(), error.downcast_ref(), error.downcast_ref())
            }
        };
        // With its causes, where it tells them like that.
        found.unwrap_or_else(|| Failure::Returned(format!("{error:#}")))
    }

    fn known(
        rejected: Option<&EventError>,
        emit: Option<&EmitError>,
        ack: Option<&AckError>,
    ) -> Option<Failure> {
        let left = match (rejected, emit, ack) {
            (Some(error), ..) => return Some(Failure::Rejected(error.clone())),
            (_, Some(error @ EmitError::Closed), _) => error.to_string(),
            (.., Some(error @ (AckError::Disconnected | AckError::Emit(EmitError::Closed)))) => {
                error.to_string()
            }
            _ => return None,
        };
        Some(Failure::ClientLeft(left))
    }

    /// What the client is told. What failed inside is not its to know.
    pub(crate) fn for_client(&self) -> EventError {
        match self {
            Failure::Rejected(error) => error.clone(),
            Failure::RateLimited => EventError::new("Too many events"),
            Failure::Extract(error) => {
                error.for_client().unwrap_or_else(|| EventError::new("Internal error"))
            }
            _ => EventError::new("Internal error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a function of the app's returns, `?` turns into whatever holds errors.
    #[test]
    fn a_refusal_is_an_error_like_others() {
        fn refused() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err(ConnectError::new("not authorized").with_data(7))?
        }
        let error = refused().unwrap_err();
        assert_eq!(error.to_string(), "not authorized");
        assert_eq!(error.downcast_ref::<ConnectError>().map(|error| &error.data), Some(&Value::from(7)));
    }
}
