//! A namespace inside: the handlers, the settings and the room index. No lock is held while a handler runs.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::known::Events;
use super::pace::Pace;
use super::pattern::Params;
use super::rate::Rate;
use super::watch::{Listener, Watch};
use super::{OnFull, Order};
use crate::adapter::Adapter;
use crate::builder::Options;
use crate::call::{ConnectCall, DisconnectCall, EventCall, ServerCall};
use crate::error::{Failure, HandlerError, short};
use crate::handler::Erased;
use crate::io::Shared;
use crate::parser::Codec;
use crate::recovery::live::Live;
use crate::rooms::{Rooms, TooManyRooms};
use crate::session::running::message;
use crate::socket::Inner;
use crate::troubles::{AtWork, Counters};
use crate::{ExtractError, Socket, SocketIo};

pub(crate) struct Table {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<Options>,
    pub(crate) codec: Codec,
    pub(crate) adapter: Arc<dyn Adapter>,
    pub(crate) recovery: Option<Live>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) handlers: RwLock<Handlers>,
    pub(crate) rooms: RwLock<Rooms<Socket>>,
    pub(super) shared: Weak<Shared>,
    /// Of a child: whose handlers and settings it has besides its own.
    pub(crate) parent: Option<Arc<Table>>,
    /// Of a child: what its name has in the gaps of the parent's pattern.
    pub(crate) params: Params,
    pub(crate) is_parent: bool,
    /// Of a child: how many sockets are in it or on their way.
    pub(super) held: AtomicUsize,
    /// Of a child: the app has asked for it by name, so it stays.
    pub(super) pinned: AtomicBool,
    /// Of a child: whether it is looked at again when nobody can come back any more.
    pub(super) lingers: AtomicBool,
    /// Of a child: it was taken out, and what is sent to it is nothing of a new one of its name.
    pub(super) removed: AtomicBool,
    /// What the app wanted to do to it first is done.
    pub(super) set_up: AtomicBool,
    pub(super) rate: Rate,
    pub(super) pace: Pace,
    acks: AtomicU64,
    /// How often the event handlers have changed.
    pub(super) changes: AtomicU64,
    /// Whether there may be a [`Watch`], here or at a socket.
    watched: Setting,
    /// Whether anybody may listen to what goes out, here or at a socket.
    listened: Setting,
    serial: Setting,
    drop_when_full: Setting,
    movable: Setting,
}

type OnSlow = Arc<dyn Fn(&Socket, OnFull) + Send + Sync>;
type OnError = Arc<dyn Fn(&HandlerError) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) middleware: Vec<Erased<ConnectCall>>,
    pub(crate) connect: Option<Erased<ConnectCall>>,
    pub(super) events: Events,
    pub(crate) fallback: Option<Erased<EventCall>>,
    pub(crate) watch: Watch,
    pub(crate) disconnecting: Option<Erased<DisconnectCall>>,
    pub(crate) disconnect: Option<Erased<DisconnectCall>>,
    pub(crate) on_error: Option<OnError>,
    pub(crate) on_slow: Option<OnSlow>,
    pub(crate) arrive: Option<Erased<ConnectCall>>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) server_events: HashMap<Arc<str>, Erased<ServerCall>>,
}

/// Yes, no, or not said.
#[derive(Default)]
struct Setting(AtomicU8);

impl Setting {
    fn set(&self, value: bool) {
        self.0.store(1 + u8::from(value), Ordering::Relaxed);
    }

    fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            value => Some(value == 2),
        }
    }
}

/// What is done with an event.
pub(crate) struct Found {
    pub(crate) event: Arc<str>,
    /// None if there is only `watch` for it.
    pub(crate) handler: Option<Erased<EventCall>>,
    /// What every event goes through, if anything.
    pub(crate) watch: Option<Box<Watch>>,
}

impl Table {
    pub(crate) fn new(name: Arc<str>, shared: &Arc<Shared>) -> Table {
        Table {
            name,
            options: shared.options.clone(),
            codec: shared.codec.clone(),
            adapter: shared.adapter.clone(),
            recovery: shared.recovery.clone().map(Live::new),
            counters: shared.counters.clone(),
            handlers: RwLock::default(),
            rooms: RwLock::default(),
            shared: Arc::downgrade(shared),
            parent: None,
            params: Params::default(),
            is_parent: false,
            held: AtomicUsize::new(0),
            pinned: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            set_up: AtomicBool::new(false),
            rate: Rate::default(),
            pace: Pace::default(),
            acks: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            watched: Setting::default(),
            listened: Setting::default(),
            serial: Setting::default(),
            drop_when_full: Setting::default(),
            movable: Setting::default(),
        }
    }

    pub(crate) fn io(&self) -> Option<SocketIo> {
        self.shared.upgrade().map(SocketIo::from_shared)
    }

    pub(crate) fn next_ack(&self) -> u64 {
        self.acks.fetch_add(1, Ordering::Relaxed)
    }

    /// What the next would be.
    pub(crate) fn ack_count(&self) -> u64 {
        self.acks.load(Ordering::Relaxed)
    }

    /// A client comes that was asked elsewhere, and may answer that yet: no such id is used again.
    pub(crate) fn was_asked(&self, elsewhere: u64) {
        self.acks.fetch_max(elsewhere, Ordering::Relaxed);
    }

    pub(crate) fn is_serial(&self) -> bool {
        self.setting(|table| &table.serial)
    }

    pub(crate) fn set_order(&self, order: Order) {
        self.serial.set(order == Order::Serial);
    }

    pub(crate) fn on_full(&self) -> OnFull {
        if self.setting(|table| &table.drop_when_full) { OnFull::Drop } else { OnFull::Disconnect }
    }

    pub(crate) fn set_on_full(&self, policy: OnFull) {
        self.drop_when_full.set(policy == OnFull::Drop);
    }

    /// Whether anybody may listen to what goes out.
    pub(crate) fn is_listened(&self) -> bool {
        self.setting(|table| &table.listened)
    }

    /// From now on somebody listens, here or at a socket.
    pub(crate) fn listen(&self) {
        self.listened.set(true);
    }

    fn setting(&self, which: fn(&Table) -> &Setting) -> bool {
        let parent = || self.parent.as_ref().and_then(|parent| which(parent).get());
        which(self).get().or_else(parent).unwrap_or_default()
    }

    pub(crate) fn is_movable(&self) -> bool {
        self.setting(|table| &table.movable)
    }

    pub(crate) fn set_movable(&self) {
        self.movable.set(true);
    }

    /// A client has become too slow. Its hook runs in a task of its own: whoever emits may hold locks.
    pub(crate) fn too_slow(&self, id: &str, policy: OnFull) {
        self.counters.slow_clients.fetch_add(1, Ordering::Relaxed);
        let Some(hook) = self.inherited(|handlers| handlers.on_slow.clone()) else { return };
        let socket = self.rooms.read().get(id);
        match (socket, tokio::runtime::Handle::try_current()) {
            (Some(socket), Ok(runtime)) => {
                let at_work = AtWork::new(&self.counters);
                runtime.spawn(async move {
                    hook(&socket, policy);
                    drop(at_work);
                });
            }
            (None, _) => {}
            (Some(_), Err(_)) => tracing::error!("on_slow is not called: emitted outside of a tokio runtime"),
        }
    }

    /// The handler of an event: the socket's own, the namespace's, the fallback. And what every event goes through.
    pub(crate) fn find(&self, socket: &Inner, event: &str) -> Option<Found> {
        let watch = self.watched(socket);
        let (event, handler) = match self.handler(socket, event) {
            Some((event, handler)) => (event, Some(handler)),
            None => (watch.is_some().then(|| event.into())?, None),
        };
        Some(Found { event, handler, watch })
    }

    fn handler(&self, socket: &Inner, event: &str) -> Option<(Arc<str>, Erased<EventCall>)> {
        let found = |(event, handler): (&Arc<str>, &Erased<EventCall>)| (event.clone(), handler.clone());
        if let Some(own) = socket.own_handler(event) {
            return Some(own);
        }
        self.inherited(|handlers| handlers.events.get(event).map(found)).or_else(|| {
            let fallback = self.inherited(|handlers| handlers.fallback.clone())?;
            Some((event.into(), fallback))
        })
    }

    /// One load while nobody has ever asked for it.
    fn watched(&self, socket: &Inner) -> Option<Box<Watch>> {
        if !self.setting(|table| &table.watched) {
            return None;
        }
        let mut watch = Watch::default();
        if let Some(parent) = &self.parent {
            watch.add(&parent.handlers.read().watch);
        }
        watch.add(&self.handlers.read().watch);
        if let Some(own) = &*socket.own.read() {
            watch.add(&own.watch);
        }
        (!watch.is_empty()).then(|| Box::new(watch))
    }

    /// Whether an event of that socket goes to the namespace's handler and nowhere else.
    pub(crate) fn is_plain(&self, socket: &Inner) -> bool {
        !socket.has_own() && !self.setting(|table| &table.watched)
    }

    /// From now on somebody, or one socket, has a [`Watch`].
    pub(crate) fn watch(&self) {
        self.watched.set(true);
    }

    pub(crate) fn disconnect_handlers(
        &self,
    ) -> (Option<Erased<DisconnectCall>>, Option<Erased<DisconnectCall>>) {
        let disconnecting = self.inherited(|handlers| handlers.disconnecting.clone());
        (disconnecting, self.inherited(|handlers| handlers.disconnect.clone()))
    }

    /// Changes the handlers. What the change gives back is dropped when nothing is locked any more: what it holds may come back
    /// here.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Handlers) -> T) {
        let before = change(&mut self.handlers.write());
        drop(before);
    }

    /// A handler was registered where there may have been one, which many do not expect: an emitter of Node's would call
    /// both.
    pub(crate) fn replaced<H>(&self, before: Option<H>, event: &str) {
        if before.is_some() {
            tracing::warn!(
                nsp = &*self.name,
                event,
                "a handler was replaced: there is one for each event, and it is the last one registered"
            );
        }
    }

    pub(crate) fn report(&self, error: &HandlerError) {
        let HandlerError { namespace, socket_id, event, failure } = error;
        let counters = &self.counters;
        let (counter, is_the_apps) = match failure {
            Failure::RateLimited => (&counters.rate_limited, false),
            Failure::Rejected(_) | Failure::Extract(ExtractError::Rejected(_)) => (&counters.rejected, false),
            Failure::ClientLeft(_) => (&counters.clients_left, false),
            Failure::Extract(ExtractError::Data(_) | ExtractError::Params(_)) => {
                (&counters.bad_arguments, true)
            }
            Failure::Panicked(_) => (&counters.panics, true),
            _ => (&counters.handler_errors, true),
        };
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let event = short(event);
        // What clients can bring about at will is told ever more rarely.
        let often = matches!(failure, Failure::Extract(_)) && !count.is_power_of_two();
        match is_the_apps && !often {
            true => tracing::warn!(nsp = namespace, socket = socket_id, event, count, "{failure}"),
            false => tracing::debug!(nsp = namespace, socket = socket_id, event, count, "{failure}"),
        }
        let hook = self.inherited(|handlers| handlers.on_error.clone());
        // It runs in the middle of a connection's work, which is not to end with it.
        if let Some(hook) = hook
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(error)))
        {
            tracing::error!(nsp = namespace, "on_error panicked: {}", message(&*panic));
        }
    }

    /// Whether it is in there now and was not before.
    pub(crate) fn join(&self, id: &str, room: &str) -> Result<bool, TooManyRooms> {
        self.rooms.write().join(id, room, self.options.max_rooms)
    }

    pub(crate) fn refuse_room(&self, id: &str, room: &str) {
        let count = self.counters.rooms_refused.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            let (most, room) = (self.options.max_rooms, short(room));
            tracing::warn!(
                nsp = &*self.name,
                socket = id,
                room,
                most,
                count,
                "not joined: too many rooms (max_rooms)"
            );
        }
    }
}
