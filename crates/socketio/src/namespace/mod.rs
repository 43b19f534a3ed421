//! A namespace as the app sees it: register handlers, emit to everybody.

mod cluster;
mod deliver;
mod family;
mod known;
mod pace;
mod params;
mod pattern;
mod rate;
mod registry;
mod server_side;
mod table;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::adapter::AdapterError;
use crate::call::{ConnectCall, DisconnectCall, EventCall};
use crate::error::{BroadcastAckError, HandlerError};
use crate::handler::{EventMiddleware, Handler, Middleware, erase, erase_event_middleware, erase_middleware};
use crate::operators::{Broadcast, RemoteSocket, RoomNames, Sent};
use crate::packet::{Args, EmitArgs, RESERVED};
use crate::{Socket, SocketIo};

pub(crate) use known::Known;
pub(crate) use params::read as read_params;
pub use params::{Params, ParamsError};
pub(crate) use pattern::Pattern;
pub use pattern::PatternError;
pub(crate) use rate::{Pass, Used};
pub(crate) use registry::{Asking, Claim, Decided, Hold, Registry, Rule};
pub use server_side::ServerAcks;
pub(crate) use table::{Found, Table};
pub(crate) use watch::{Listener, Listening, Watch};

/// A namespace of a server. Cheap to clone.
///
/// Handlers are registered here once, for all its sockets; each is an async function of extractors
/// ([`crate::extract`]). Registering the same event again replaces its handler. Register before the server serves:
/// then they are in place before any CONNECT is answered.
///
/// It may also be the parent of namespaces that are made on demand ([`SocketIo::of_pattern`], [`SocketIo::of_when`]). Then
/// what is registered or set on it holds for its children, unless they have their own, and what is done to its sockets is
/// done to those of all children.
#[derive(Clone)]
pub struct Namespace(Arc<Table>);

/// When the handlers of one socket's events run. They always start in the order of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Each runs to its first `await` before the next starts, as in Node; then they run side by side.
    #[default]
    Concurrent,
    /// Each runs to its end before the next starts.
    Serial,
}

/// What happens to a client whose outgoing queue is full when something (not volatile) is to be sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// Its connection is closed: it comes back and starts afresh, rather than miss something unnoticed.
    #[default]
    Disconnect,
    /// It misses the event; the emitter gets [`EmitError::Full`](crate::EmitError::Full).
    Drop,
}

impl Namespace {
    pub(crate) fn new(table: Arc<Table>) -> Namespace {
        Namespace(table)
    }

    /// Its name, with the slash. That of a parent begins with `~` instead.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What its name has in the place of a parameter: of a child of [`SocketIo::of_pattern`]. See also
    /// [`Params`](crate::Params).
    pub fn param(&self, name: &str) -> Option<&str> {
        self.0.params.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }

    pub(crate) fn params(&self) -> &[(Arc<str>, Box<str>)] {
        &self.0.params
    }

    /// Of a parent: its children on this server. Of any other namespace: none.
    pub fn children(&self) -> Vec<Namespace> {
        if !self.0.is_parent {
            return Vec::new();
        }
        self.0.children().into_iter().map(Namespace::new).collect()
    }

    /// Its server; `None` once that is gone. In an app of the crate `sundew`, `sundew::SocketIo::from(..)` or `.into()` makes
    /// that crate's server of it. Handlers can take `SocketIo` as an argument instead: each crate's is an extractor.
    pub fn io(&self) -> Option<SocketIo> {
        self.0.io()
    }

    /// Runs when a socket connects, after the middleware. CONNECT is answered when it returns or first waits; what is
    /// emitted to the socket before that follows the answer. Events of the client wait until it has returned
    /// (`max_waiting` of them).
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, Socket, extract::Auth};
    /// # let io = SocketIo::new();
    /// io.of("/chat").on_connect(async |socket: Socket, Auth(name): Auth<Option<String>>| {
    ///     socket.join("lobby");
    ///     let _ = socket.emit("welcome", name);
    /// });
    /// ```
    pub fn on_connect<M>(&self, handler: impl Handler<ConnectCall, M>) -> &Namespace {
        let before = self.0.handlers.write().connect.replace(erase(handler));
        self.0.replaced(before, "connect");
        self
    }

    /// Runs when a client emits `event`.
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, Socket, Ack, extract::Data};
    /// # let io = SocketIo::new();
    /// io.of("/").on("add", async |Data((a, b)): Data<(i64, i64)>, ack: Ack| {
    ///     let _ = ack.send(a + b);
    /// });
    /// ```
    pub fn on<M>(&self, event: &str, handler: impl Handler<EventCall, M>) -> &Namespace {
        if RESERVED.contains(&event) {
            tracing::error!(
                nsp = self.name(),
                event,
                "this handler is never called: no client can send an event of that name (see on_connect, on_disconnect and on_disconnecting)"
            );
        }
        self.0.set_handler(event, Some(erase(handler)));
        self
    }

    /// Takes an event's handler back.
    pub fn off(&self, event: &str) -> &Namespace {
        self.0.set_handler(event, None);
        self
    }

    /// Runs for events that have no handler of their own.
    pub fn on_fallback<M>(&self, handler: impl Handler<EventCall, M>) -> &Namespace {
        self.0.change(|handlers| handlers.fallback.replace(erase(handler)));
        self
    }

    /// Hears of every event of the clients, before its handler starts and whether there is one or not: for logs and figures.
    /// Nobody waits for it, and it cannot answer. Several may be added; they start in that order. For events without a
    /// handler see [`on_fallback`](Namespace::on_fallback).
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, Socket, Event};
    /// # let io = SocketIo::new();
    /// io.on_any(async |socket: Socket, event: Event| println!("{} sent {event}", socket.id()));
    /// ```
    pub fn on_any<M>(&self, handler: impl Handler<EventCall, M>) -> &Namespace {
        self.0.handlers.write().watch.any.push(erase(handler));
        self.0.watch();
        self
    }

    /// Takes back what [`on_any`](Namespace::on_any) added.
    pub fn off_any(&self) -> &Namespace {
        self.0.change(|handlers| std::mem::take(&mut handlers.watch.any));
        self
    }

    /// Adds a middleware for events (`socket.use` in Node, here for all sockets): runs before an event's handler, in the
    /// order added. Its error is the answer to the event, which is not handled then: if the client asked for an
    /// acknowledgement, it gets `{"error":{"message","data"?}}`. [`on_error`](Namespace::on_error) hears of it.
    ///
    /// A middleware that does not wait keeps the order of the events; behind one that does, later events may overtake,
    /// unless the order is [`Order::Serial`]. The packet cannot be changed. One that takes the `Ack` answers in the
    /// handler's place.
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, Socket, Event};
    /// # struct Admin;
    /// # let io = SocketIo::new();
    /// io.with_event(async |socket: Socket, event: Event| match &*event.0 {
    ///     "delete" if socket.get::<Admin>().is_none() => Err("not allowed"),
    ///     _ => Ok(()),
    /// });
    /// ```
    pub fn with_event<M>(&self, middleware: impl EventMiddleware<M>) -> &Namespace {
        self.0.handlers.write().watch.middleware.push(erase_event_middleware(middleware));
        self.0.watch();
        self
    }

    /// Hears of every event sent to a socket of this server, acknowledgements and what the adapter brings from other
    /// servers included, but not answers to events; once for each socket it was handed to. It is called in place: be quick.
    /// While nobody listens it costs nothing; then broadcasts and events are encoded apart from their frames.
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, Socket};
    /// # let io = SocketIo::new();
    /// io.on_any_outgoing(|socket, event, args| println!("{event}({}) to {}", args.elements(), socket.id()));
    /// ```
    pub fn on_any_outgoing(
        &self,
        listener: impl Fn(&Socket, &str, &Args) + Send + Sync + 'static,
    ) -> &Namespace {
        self.0.handlers.write().listeners.push(Arc::new(listener));
        self.0.listen();
        self
    }

    /// Takes back what [`on_any_outgoing`](Namespace::on_any_outgoing) added.
    pub fn off_any_outgoing(&self) -> &Namespace {
        self.0.change(|handlers| std::mem::take(&mut handlers.listeners));
        self
    }

    /// Runs when a socket is about to leave: it is still in its rooms until the handler first waits.
    pub fn on_disconnecting<M>(&self, handler: impl Handler<DisconnectCall, M>) -> &Namespace {
        let before = self.0.handlers.write().disconnecting.replace(erase(handler));
        self.0.replaced(before, "disconnecting");
        self
    }

    /// Runs when a socket has left.
    pub fn on_disconnect<M>(&self, handler: impl Handler<DisconnectCall, M>) -> &Namespace {
        let before = self.0.handlers.write().disconnect.replace(erase(handler));
        self.0.replaced(before, "disconnect");
        self
    }

    /// Adds a middleware: decides about every socket before `on_connect`, in the order added. Its error is the client's
    /// `connect_error`. (`use` in Node; the word is taken in Rust.)
    ///
    /// ```
    /// # use sundew_socketio::{SocketIo, ConnectError, extract::Auth};
    /// # use serde_json::{Value, json};
    /// # let io = SocketIo::new();
    /// io.of("/admin").with(async |Auth(auth): Auth<Value>| {
    ///     if auth["token"] == "secret" { Ok(()) } else { Err(ConnectError::new("not authorized").with_data(json!({"code": 7}))) }
    /// });
    /// ```
    pub fn with<M>(&self, middleware: impl Middleware<M>) -> &Namespace {
        self.0.handlers.write().middleware.push(erase_middleware(middleware));
        self
    }

    /// Hears of every handler that failed, panicked, or could not be called because the client's arguments did not fit, and
    /// of every event that a middleware refused. They are logged and counted in any case. If the client asked for an
    /// acknowledgement and got none yet, it gets `{"error":{"message","data"?}}`: of an [`EventError`](crate::EventError)
    /// what it says, of any other failure no more than that there was one.
    pub fn on_error(&self, hook: impl Fn(&HandlerError) + Send + Sync + 'static) -> &Namespace {
        self.0.change(|handlers| handlers.on_error.replace(Arc::new(hook)));
        self
    }

    /// When the handlers of one socket's events run. Default [`Order::Concurrent`].
    pub fn order(&self, order: Order) -> &Namespace {
        self.0.set_order(order);
        self
    }

    /// Hears of every client that reads too slowly, as its queue fills up: once, and again only after it has taken something.
    /// It runs in a task of its own, with what is done about it ([`when_full`](Namespace::when_full)). All such events are
    /// counted: [`Troubles::slow_clients`](crate::Troubles::slow_clients).
    ///
    /// ```
    /// # use sundew_socketio::{OnFull, SocketIo};
    /// # let io = SocketIo::new();
    /// io.when_full(OnFull::Drop).on_slow(|socket, _| println!("{} misses events", socket.id()));
    /// ```
    pub fn on_slow(&self, hook: impl Fn(&Socket, OnFull) + Send + Sync + 'static) -> &Namespace {
        self.0.change(|handlers| handlers.on_slow.replace(Arc::new(hook)));
        self
    }

    /// What happens to clients that read too slowly. Default [`OnFull::Disconnect`].
    pub fn when_full(&self, policy: OnFull) -> &Namespace {
        self.0.set_on_full(policy);
        self
    }

    /// Lets its sockets go on in another worker: where several nodes serve one app, a websocket that came to another node
    /// than its session's is relayed between the two, until the session is at rest for a moment; then it moves to the node
    /// that holds the connection. The client notices nothing, and neither `on_disconnect` nor `on_connect` runs.
    ///
    /// What moves with a socket: its id, rooms, [`data`](Socket::data), auth and handshake. So this promises that nothing
    /// else belongs to it: no entry in a map of the app's own, no task that will emit to it. One that has handlers of its
    /// own or values of [`Socket::insert`], that waits for an acknowledgement, has a handler running, or is held somewhere
    /// as a [`Socket`] stays where it is. All namespaces of a connection have to allow it, in both workers. What other sockets do
    /// to it in the instant of the move (put it into a room, say) may be lost. What is emitted to it is not.
    pub fn movable(&self) -> &Namespace {
        self.0.set_movable();
        self
    }

    /// Runs when a socket has come from another worker ([`movable`](Namespace::movable)), as `on_connect` does when one
    /// connects: to begin here what the app does for each socket.
    pub fn on_arrive<M>(&self, handler: impl Handler<ConnectCall, M>) -> &Namespace {
        self.0.change(|handlers| handlers.arrive.replace(erase(handler)));
        self
    }

    /// How many sockets it has on this server.
    pub fn socket_count(&self) -> usize {
        self.0.each(|table| table.rooms.read().len()).into_iter().sum()
    }

    /// Its sockets on this server.
    pub fn sockets(&self) -> Vec<Socket> {
        let each = |table: &Table| table.rooms.read().select(&[], &[]).iter().cloned().collect::<Vec<_>>();
        self.0.each(each).concat()
    }

    /// The socket of that id, if it is on this server.
    pub fn get(&self, id: &str) -> Option<Socket> {
        self.0.each(|table| table.rooms.read().get(id)).into_iter().flatten().next()
    }

    /// The rooms that have members on this server, without the sockets' own.
    pub fn rooms(&self) -> Vec<String> {
        self.0.room_names()
    }

    fn all(&self) -> Broadcast {
        Broadcast::new(self.0.clone())
    }

    /// To the sockets in these rooms.
    pub fn to(&self, rooms: impl RoomNames) -> Broadcast {
        self.all().to(rooms)
    }

    /// The same as [`to`](Namespace::to) (Node's `in`).
    pub fn within(&self, rooms: impl RoomNames) -> Broadcast {
        self.all().to(rooms)
    }

    /// To all sockets but those in these rooms.
    pub fn except(&self, rooms: impl RoomNames) -> Broadcast {
        self.all().except(rooms)
    }

    /// To the sockets of this server.
    pub fn local(&self) -> Broadcast {
        self.all().local()
    }

    /// To those who are ready to receive at this moment.
    pub fn volatile(&self) -> Broadcast {
        self.all().volatile()
    }

    /// To everybody; with false, as it is where connections would compress it
    /// ([`Builder::per_message_deflate`](crate::Builder::per_message_deflate),
    /// [`http_compression`](crate::Builder::http_compression)).
    pub fn compress(&self, compress: bool) -> Broadcast {
        self.all().compress(compress)
    }

    /// With a time limit for acknowledgements.
    pub fn timeout(&self, timeout: Duration) -> Broadcast {
        self.all().timeout(timeout)
    }

    /// Sends an event to all sockets, on all servers. See [`Broadcast::emit`].
    pub fn emit(&self, event: &str, args: impl EmitArgs) -> Sent {
        self.all().emit(event, args)
    }

    /// Emits the event `message` to all sockets.
    pub fn send(&self, args: impl EmitArgs) -> Sent {
        self.all().send(args)
    }

    /// Sends an event to all sockets and collects their acknowledgements. See [`Broadcast::emit_with_ack`].
    ///
    /// # Errors
    /// As there.
    pub async fn emit_with_ack<T: DeserializeOwned>(
        &self,
        event: &str,
        args: impl EmitArgs,
    ) -> Result<Vec<T>, BroadcastAckError> {
        self.all().emit_with_ack(event, args).await
    }

    /// All sockets, of all servers.
    ///
    /// # Errors
    /// As [`Broadcast::fetch_sockets`].
    pub async fn fetch_sockets(&self) -> Result<Vec<RemoteSocket>, AdapterError> {
        self.all().fetch_sockets().await
    }

    /// Puts all sockets into rooms.
    pub fn sockets_join(&self, rooms: impl RoomNames) {
        self.all().sockets_join(rooms);
    }

    /// Takes all sockets out of rooms.
    pub fn sockets_leave(&self, rooms: impl RoomNames) {
        self.all().sockets_leave(rooms);
    }

    /// Disconnects all sockets; with `close`, their connections too. To empty a server whose clients shall come back, use
    /// [`SocketIo::drain`].
    pub fn disconnect_sockets(&self, close: bool) {
        self.all().disconnect_sockets(close);
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("name", &self.name()).finish_non_exhaustive()
    }
}
