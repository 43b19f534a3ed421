//! A client's socket in one namespace.

pub(crate) mod acks;
mod inner;

use std::any::{Any, TypeId};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sundew_engineio::{SendError, Transport};

use crate::ack::AckFuture;
use crate::adapter::{HandshakeInfo, SocketInfo};
use crate::call::{DisconnectCall, EventCall};
use crate::error::EmitError;
use crate::handler::{EventMiddleware, Handler, erase, erase_event_middleware};
use crate::operators::{Broadcast, Flags, RoomNames, SocketEmitter};
use crate::packet::{Args, DataError, EmitArgs, Packet, RESERVED, from_payload};
use crate::recovery::sending::How;
use crate::{Namespace, SocketIo};

pub(crate) use inner::{Inner, Kept, Own, OwnEvent};

/// A client in a namespace. Cheap to clone; it may be kept and used after the client left, when sending fails with
/// [`EmitError::Closed`].
#[derive(Clone)]
pub struct Socket(Arc<Inner>);

impl From<Arc<Inner>> for Socket {
    fn from(inner: Arc<Inner>) -> Socket {
        Socket(inner)
    }
}

impl Socket {
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Its public id: 20 random characters. Not the connection's session id, which is a secret; knowing this one gives no
    /// hold on the connection. It is also the name of a room the socket is in.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Its namespace.
    pub fn namespace(&self) -> Namespace {
        Namespace::new(self.0.table.clone())
    }

    /// Its server; `None` once that is gone. In an app of the crate `sundew`, `sundew::SocketIo::from(..)` or `.into()` makes
    /// that crate's server of it. Handlers can take `SocketIo` as an argument instead: each crate's is an extractor.
    pub fn io(&self) -> Option<SocketIo> {
        self.0.table.io()
    }

    /// Whether it is in its namespace.
    pub fn is_connected(&self) -> bool {
        self.0.is_open()
    }

    /// Whether it has come back and is what it was: its id, rooms and data, and what it missed has been sent again
    /// ([`Builder::connection_state_recovery`](crate::Builder::connection_state_recovery)).
    pub fn recovered(&self) -> bool {
        self.0.resume.as_ref().is_some_and(|resume| resume.recovered)
    }

    /// The client's own address, through whatever proxy of Sundew's; `None` if the server around it does not say.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.link.peer_addr
    }

    /// Whether the client is one of Socket.IO 2, whose id is its session's and has to be kept from others
    /// ([`Builder::allow_eio3`](crate::Builder::allow_eio3)).
    pub fn is_legacy(&self) -> bool {
        self.0.link.legacy
    }

    /// The transport its connection uses now.
    pub fn transport(&self) -> Transport {
        self.0.link.handle.transport()
    }

    /// Path and query of the request that opened the connection.
    pub fn url(&self) -> &str {
        &self.0.link.url
    }

    /// The first value of a parameter in the query of the request that opened the connection, decoded (`handshake.query`);
    /// the client's `query` option is sent there.
    ///
    /// ```no_run
    /// # fn f(socket: sundew_socketio::Socket) {
    /// let token = socket.query("token").unwrap_or_default();
    /// # }
    /// ```
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.url().split_once('?')?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (crate::query::decode(key) == name).then(|| crate::query::decode(value))
        })
    }

    /// Headers of the request that opened the connection; `None` unless
    /// [`Builder::keep_headers`](crate::Builder::keep_headers) is on.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.0.link.headers.as_deref()
    }

    /// A value of the handshake request's extensions, if
    /// [`Builder::keep_extension`](crate::Builder::keep_extension) keeps it and there was one.
    pub fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.0.link.extensions.as_ref()?.get::<T>().cloned()
    }

    /// What the client sent as `auth`; nothing sent is null.
    ///
    /// # Errors
    /// It is not what `T` expects.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, DataError> {
        from_payload(&self.0.auth)
    }

    pub(crate) fn auth_json(&self) -> &str {
        &self.0.auth
    }

    /// How it connected, as other servers see it.
    pub fn handshake(&self) -> HandshakeInfo {
        let link = &self.0.link;
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        HandshakeInfo {
            address: link.peer_addr,
            issued: link.issued,
            url: link.url.to_string(),
            auth: self.auth().unwrap_or_default(),
            headers: link
                .headers
                .iter()
                .flat_map(|headers| headers.iter().map(|(name, value)| (name.to_string(), text(value))))
                .collect(),
        }
    }

    pub(crate) fn describe(&self) -> SocketInfo {
        SocketInfo {
            id: self.id().into(),
            handshake: self.handshake(),
            rooms: self.rooms(),
            data: self.data(),
        }
    }

    /// Sends an event to this client, without waiting. A tuple is several arguments; see [`EmitArgs`].
    ///
    /// # Errors
    /// [`EmitError`]. A full queue has met the namespace's [`OnFull`](crate::OnFull) policy by then; ignoring the
    /// error is fine.
    pub fn emit(&self, event: &str, args: impl EmitArgs) -> Result<(), EmitError> {
        self.emit_as(event, args, Flags::default())
    }

    pub(crate) fn emit_as(&self, name: &str, args: impl EmitArgs, flags: Flags) -> Result<(), EmitError> {
        check(name)?;
        if let Some(recovery) = &self.0.table.recovery {
            let how = if flags.volatile { How::Volatile } else { How::Now };
            return recovery.emit(self, &Packet::event(name, args)?.into(), how, flags);
        }
        let (frames, listening) = self.0.table.encode(None, name, args)?;
        if self.0.deliver(flags.mark(frames), flags.volatile)?
            && let Some(listening) = listening
        {
            listening.tell(self);
        }
        Ok(())
    }

    /// Emits the event `message`.
    ///
    /// # Errors
    /// As [`emit`](Socket::emit).
    pub fn send(&self, args: impl EmitArgs) -> Result<(), EmitError> {
        self.emit("message", args)
    }

    /// Sends an event, waiting while the client's queue is full.
    ///
    /// # Errors
    /// [`EmitError`]; `Full` only from its middleware: what is emitted there is held until the middleware is done.
    pub async fn emit_async(&self, name: &str, args: impl EmitArgs) -> Result<(), EmitError> {
        check(name)?;
        if let Some(recovery) = &self.0.table.recovery {
            let packet = Packet::event(name, args)?.into();
            return recovery.emit_async(self, &packet).await;
        }
        let (mut frames, listening) = self.0.table.encode(None, name, args)?;
        loop {
            match self.0.try_deliver(frames) {
                Ok(()) => {
                    if let Some(listening) = listening {
                        listening.tell(self);
                    }
                    return Ok(());
                }
                Err(SendError::Closed(_)) => return Err(EmitError::Closed),
                Err(SendError::Full(back)) => {
                    frames = back;
                    self.0.room(frames.len(), frames.packets()).await?;
                }
            }
        }
    }

    /// Waits until the client has read most of what was sent.
    ///
    /// # Errors
    /// [`EmitError::Closed`].
    pub async fn ready(&self) -> Result<(), EmitError> {
        self.0.link.handle.ready().await.map_err(|_| EmitError::Closed)
    }

    /// Sends an event at once; the returned future waits for the client's acknowledgement and reads it as `T` (a tuple
    /// takes several values). It fails after `ack_timeout` unless told otherwise, and when the socket disconnects.
    ///
    /// ```no_run
    /// # async fn f(socket: sundew_socketio::Socket) -> Result<(), sundew_socketio::AckError> {
    /// let answer: String = socket.emit_with_ack("question", "why?").timeout(std::time::Duration::from_secs(1)).await?;
    /// # Ok(()) }
    /// ```
    pub fn emit_with_ack<T: DeserializeOwned>(&self, event: &str, args: impl EmitArgs) -> AckFuture<T> {
        AckFuture::send(self, event, args, self.0.table.options.ack_timeout, Flags::default())
    }

    /// Emits to this socket with a different timeout for acknowledgements.
    pub fn timeout(&self, timeout: Duration) -> SocketEmitter {
        SocketEmitter::new(self.clone()).timeout(timeout)
    }

    /// Emits to this socket; with false, as it is where its connection would compress it
    /// ([`Builder::per_message_deflate`](crate::Builder::per_message_deflate),
    /// [`http_compression`](crate::Builder::http_compression)).
    pub fn compress(&self, compress: bool) -> SocketEmitter {
        SocketEmitter::new(self.clone()).compress(compress)
    }

    /// Emits to this socket only if it is ready to receive at this moment.
    pub fn volatile(&self) -> SocketEmitter {
        SocketEmitter::new(self.clone()).volatile()
    }

    /// To the others in these rooms.
    pub fn to(&self, rooms: impl RoomNames) -> Broadcast {
        self.broadcast().to(rooms)
    }

    /// To the others, but those in these rooms.
    pub fn except(&self, rooms: impl RoomNames) -> Broadcast {
        self.broadcast().except(rooms)
    }

    /// To the others in the namespace.
    pub fn broadcast(&self) -> Broadcast {
        Broadcast::new(self.0.table.clone()).except(self.id())
    }

    /// To the others on this server.
    pub fn local(&self) -> Broadcast {
        self.broadcast().local()
    }

    /// Joins rooms. Being in one already is fine. Beyond `max_rooms` it is refused with a warning. In its middleware it is in no
    /// namespace yet: it is in the rooms when it enters.
    pub fn join(&self, rooms: impl RoomNames) {
        rooms.each(&mut |room| {
            if !self.0.joins_later(room) {
                self.0.join(room);
            }
        });
    }

    /// Leaves rooms.
    pub fn leave(&self, rooms: impl RoomNames) {
        rooms.each(&mut |room| {
            if !self.0.joins_no_more(room) {
                self.0.leave_room(room);
            }
        });
    }

    /// The rooms it is in, that of its own id among them. In its middleware: those it has joined there, and those it comes back
    /// to.
    pub fn rooms(&self) -> Vec<String> {
        match self.0.rooms_to_join() {
            Some(rooms) => rooms,
            None => self.0.table.rooms.read().rooms_of(&self.0.id),
        }
    }

    /// Takes it off the namespace; with `close`, closes its connection too, and with it its sockets in other namespaces. The
    /// client does not come back by itself. One that has left and may come back starts anew then.
    pub fn disconnect(&self, close: bool) {
        self.0.disconnect(close);
    }

    /// Handles an event of this socket alone; goes before the namespace's handler of the same event. Registered in
    /// `on_connect`, before its first `await`, it misses nothing.
    pub fn on<M>(&self, event: &str, handler: impl Handler<EventCall, M>) {
        let handler = OwnEvent { handler: erase(handler), once: false };
        self.with_own(|own| own.events.insert(event.into(), handler));
    }

    /// Handles the next event of that name of this socket alone; in all else as [`on`](Socket::on).
    pub fn once<M>(&self, event: &str, handler: impl Handler<EventCall, M>) {
        let handler = OwnEvent { handler: erase(handler), once: true };
        self.with_own(|own| own.events.insert(event.into(), handler));
    }

    /// Takes this socket's own handler of an event back.
    pub fn off(&self, event: &str) {
        self.with_own(|own| own.events.remove(event));
    }

    /// Hears of every event of this client, after those of [`Namespace::on_any`].
    pub fn on_any<M>(&self, handler: impl Handler<EventCall, M>) {
        self.with_own(|own| own.watch.any.push(erase(handler)));
        self.0.table.watch();
    }

    /// Takes back what [`on_any`](Socket::on_any) added.
    pub fn off_any(&self) {
        self.with_own(|own| std::mem::take(&mut own.watch.any));
    }

    /// Adds a middleware for the events of this socket alone (`socket.use` in Node), after those of
    /// [`Namespace::with_event`].
    pub fn with_event<M>(&self, middleware: impl EventMiddleware<M>) {
        self.with_own(|own| own.watch.middleware.push(erase_event_middleware(middleware)));
        self.0.table.watch();
    }

    /// Hears of every event sent to this socket; see [`Namespace::on_any_outgoing`]. From then on, what is sent to others in
    /// its namespace costs as much as if somebody listened to it.
    pub fn on_any_outgoing(&self, listener: impl Fn(&Socket, &str, &Args) + Send + Sync + 'static) {
        self.with_own(|own| own.listeners.push(Arc::new(listener)));
        self.0.table.listen();
    }

    /// Takes back what [`on_any_outgoing`](Socket::on_any_outgoing) added.
    pub fn off_any_outgoing(&self) {
        self.with_own(|own| std::mem::take(&mut own.listeners));
    }

    /// Runs when this socket leaves, its rooms still there until the handler first waits; goes before the namespace's.
    pub fn on_disconnecting<M>(&self, handler: impl Handler<DisconnectCall, M>) {
        self.with_own(|own| own.disconnecting.replace(erase(handler)));
    }

    /// Runs when this socket has left; goes before the namespace's.
    pub fn on_disconnect<M>(&self, handler: impl Handler<DisconnectCall, M>) {
        self.with_own(|own| own.disconnect.replace(erase(handler)));
    }

    /// Changes what it has of its own. What the change gives back is dropped when nothing is locked any more: what it holds may
    /// come back here.
    fn with_own<T>(&self, change: impl FnOnce(&mut Own) -> T) {
        let mut before = None;
        self.0.with_own(|own| before = Some(change(own)));
        drop(before);
    }

    /// Attaches data that all servers can read, through `fetch_sockets`.
    ///
    /// # Errors
    /// It does not serialize to JSON.
    pub fn set_data(&self, data: impl Serialize) -> Result<(), serde_json::Error> {
        let data = serde_json::to_value(data)?;
        let back = self.0.back();
        back.as_ref().unwrap_or(self).with_kept(|kept| kept.data = data);
        Ok(())
    }

    /// The data attached; null if none.
    pub fn data(&self) -> serde_json::Value {
        let back = self.0.back();
        let kept = back.as_ref().unwrap_or(self).0.kept.lock();
        kept.as_ref().map(|kept| kept.data.clone()).unwrap_or_default()
    }

    /// Attaches a value of this server's own, one per type. Returns the one it replaces. A value that holds this socket keeps
    /// both for ever: let it hold the id.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) -> Option<Arc<T>> {
        let old = self.with_kept(|kept| kept.values.insert(TypeId::of::<T>(), Arc::new(value)));
        old.and_then(|old: Arc<dyn Any + Send + Sync>| old.downcast().ok())
    }

    /// The value of that type.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let value = self.0.kept.lock().as_ref()?.values.get(&TypeId::of::<T>()).cloned()?;
        value.downcast().ok()
    }

    fn with_kept<R>(&self, change: impl FnOnce(&mut Kept) -> R) -> R {
        change(self.0.kept.lock().get_or_insert_default())
    }
}

/// Refuses names that mean something to clients.
pub(crate) fn check(event: &str) -> Result<(), EmitError> {
    // The shortest reserved name has seven letters; most events do not get past the first test.
    if event.len() >= 7 && RESERVED.contains(&event) {
        return Err(EmitError::Reserved(event.into()));
    }
    Ok(())
}

impl PartialEq for Socket {
    fn eq(&self, other: &Socket) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Socket {}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.0.id)
            .field("namespace", &self.0.table.name)
            .field("connected", &self.is_connected())
            .finish()
    }
}
