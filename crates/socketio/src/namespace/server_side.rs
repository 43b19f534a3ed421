//! Events that servers of one app send to each other (`serverSideEmit` in Node): no client sees them.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::{Namespace, Table};
use crate::adapter::{Operation, Request, Response, Responses};
use crate::call::ServerCall;
use crate::error::{BroadcastAckError, EmitError, Failure, HandlerError, read_all};
use crate::handler::{Handler, erase};
use crate::packet::{EmitArgs, Packet};
use crate::session::running::message;
use crate::troubles::AtWork;

/// Names that servers in Node cannot hear, because their namespaces emit these themselves.
const RESERVED: [&str; 3] = ["connect", "connection", "new_namespace"];

impl Namespace {
    /// Runs when another server of the app emits `event` with [`server_side_emit`](Namespace::server_side_emit) in this
    /// namespace (`io.on(event)` in Node). It may list `Data<T>`, `Args`, `Event`, `Ack`, `SocketIo`, `Namespace`, `State<T>`.
    /// Events of one server start in their order. At most
    /// [`max_server_events`](crate::Builder::max_server_events) run at a time.
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, Ack, extract::Data};
    /// # let io = SocketIo::new();
    /// io.on_server_event("forget-user", async |io: SocketIo, Data(user): Data<String>| {
    ///     io.local().to(user).disconnect_sockets(true);
    /// });
    /// io.on_server_event("how-many", async |io: SocketIo, ack: Ack| drop(ack.send(io.socket_count())));
    /// ```
    pub fn on_server_event<M>(&self, event: &str, handler: impl Handler<ServerCall, M>) -> &Namespace {
        self.0.change(|handlers| handlers.server_events.insert(event.into(), erase(handler)));
        self
    }

    /// Takes the handler of an event of other servers back.
    pub fn off_server_event(&self, event: &str) -> &Namespace {
        self.0.change(|handlers| handlers.server_events.remove(event));
        self
    }

    /// Sends an event to the other servers of the app, not to itself, and does not wait for them. With no others it does
    /// nothing. On a parent it is heard once by each server, whatever children there are.
    ///
    /// # Errors
    /// [`EmitError::Adapter`] if the adapter could not hand it on; `connect`, `connection` and `new_namespace` are reserved.
    pub fn server_side_emit(&self, event: &str, args: impl EmitArgs) -> Result<(), EmitError> {
        let packet = encode(event, args)?;
        if self.0.adapter.server_count() > 1 {
            self.0.adapter.publish(&self.0.name, &Operation::ServerSideEmit { packet })?;
        }
        Ok(())
    }

    /// Sends an event to the other servers of the app and, awaited, collects one answer of each, read as `T`.
    ///
    /// Awaiting it fails after [`request_timeout`](crate::Builder::request_timeout) unless told otherwise, as does a server
    /// without a handler or whose handler gives no answer: [`BroadcastAckError::Incomplete`] has the answers that came.
    /// [`BroadcastAckError::Data`] has them where one is no `T`.
    ///
    /// ```no_run
    /// # async fn f(io: sundew_socketio::SocketIo) -> Result<(), sundew_socketio::BroadcastAckError> {
    /// let others: Vec<usize> = io.server_side_emit_with_ack("how-many", ()).await?;
    /// let all = io.socket_count() + others.iter().sum::<usize>();
    /// # Ok(()) }
    /// ```
    pub fn server_side_emit_with_ack<T: DeserializeOwned>(
        &self,
        event: &str,
        args: impl EmitArgs,
    ) -> ServerAcks<T> {
        let timeout = self.0.options.request_timeout;
        ServerAcks { table: self.0.clone(), packet: encode(event, args), timeout, expected: PhantomData }
    }
}

fn encode(event: &str, args: impl EmitArgs) -> Result<Packet, EmitError> {
    if RESERVED.contains(&event) {
        return Err(EmitError::Reserved(event.into()));
    }
    Ok(Packet::event(event, args)?)
}

/// An event for the other servers, and their answers: sent when awaited.
#[must_use = "nothing is sent until it is awaited"]
pub struct ServerAcks<T> {
    table: Arc<Table>,
    packet: Result<Packet, EmitError>,
    timeout: Duration,
    expected: PhantomData<fn() -> T>,
}

impl<T> ServerAcks<T> {
    /// How long the others may take.
    pub fn timeout(mut self, timeout: Duration) -> ServerAcks<T> {
        self.timeout = timeout;
        self
    }
}

impl<T: DeserializeOwned + 'static> IntoFuture for ServerAcks<T> {
    type Output = Result<Vec<T>, BroadcastAckError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let packet = self.packet?;
            let expected = self.table.adapter.server_count().saturating_sub(1) as u64;
            if expected == 0 {
                return Ok(Vec::new());
            }
            let mut all = self.table.request(Request::ServerSideEmit { packet }, self.timeout);
            let (mut answers, mut failed) = (Vec::new(), None);
            while let Some(answer) = all.next().await {
                match answer {
                    Ok(Response::Value(packet)) => answers.push(packet.into_args()),
                    Ok(_) => {}
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(BroadcastAckError::Adapter { error, answers });
            }
            match expected.saturating_sub(answers.len() as u64) {
                0 => read_all(answers),
                missing => Err(BroadcastAckError::Incomplete { answers, expected, missing }),
            }
        })
    }
}

impl<T> fmt::Debug for ServerAcks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerAcks").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Table {
    /// Handles an event of another server; one answer, if the handler gives one in time.
    pub(crate) fn asked(&self, packet: &Packet, timeout: Duration) -> Responses {
        let (sender, answer) = oneshot::channel();
        self.heard(packet, Some(sender));
        let answer = tokio::time::timeout(timeout, answer);
        let value = answer.map(|answer| stream::iter(answer.ok().and_then(Result::ok)));
        value.flatten_stream().map(|packet| Ok(Response::Value(packet))).boxed()
    }

    /// Handles an event of another server: polled once in place, so that events start in their order.
    pub(crate) fn heard(&self, packet: &Packet, answer: Option<oneshot::Sender<Packet>>) {
        let Some((event, args)) = packet.to_event() else { return };
        let Some(handler) = self.inherited(|handlers| handlers.server_events.get(&*event).cloned()) else {
            return tracing::debug!(nsp = &*self.name, event, "no handler for this event of another server");
        };
        let Some(shared) = self.shared.upgrade() else { return };
        let Ok(permit) = shared.server_events.clone().try_acquire_owned() else {
            self.counters.server_events_dropped.fetch_add(1, Ordering::Relaxed);
            return tracing::warn!(
                nsp = &*self.name,
                event,
                most = self.options.max_server_events,
                "an event of another server was dropped: too many are being handled (max_server_events)"
            );
        };
        let Some(table) = shared.registry.target(&self.name) else { return };
        let mut call = ServerCall { namespace: Namespace::new(table), event: event.into(), args, answer };
        let event = call.event.clone();
        let work = async move {
            let work = AssertUnwindSafe(async { handler(&mut call)?.await });
            let result = work.catch_unwind().await;
            let failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure),
                Err(panic) => Some(Failure::Panicked(message(&*panic))),
            };
            if let Some(failure) = failure {
                let (namespace, socket_id) = (call.namespace.name().to_owned(), String::new());
                let error = HandlerError { namespace, socket_id, event: event.to_string(), failure };
                // The app's hook: a panic in it must not end the adapter's task.
                let report = AssertUnwindSafe(|| call.namespace.0.report(&error));
                let _ = catch_unwind(report);
            }
            drop(permit);
        };
        let mut work = Box::pin(work);
        if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => {
                    let at_work = AtWork::new(&self.counters);
                    runtime.spawn(async move {
                        work.await;
                        drop(at_work);
                    });
                }
                Err(_) => {
                    tracing::error!("an event of another server was dropped: it came outside of a runtime")
                }
            }
        }
    }
}
