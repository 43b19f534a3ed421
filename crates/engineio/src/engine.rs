//! The engine: all sessions of one server, and the entrance for HTTP requests.

mod requests;
#[cfg(feature = "webtransport")]
pub(crate) mod webtransport;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::request::Parts;

use crate::proto::dialect::Dialect;
use crate::proto::request::{ErrorCode, is_valid_sid};
use crate::proto::session::Machine;
use crate::server::moving::{self, Arriving, Exported, ImportError};
use crate::server::now;
use crate::server::registry::{NoPlace, Registry};
use crate::server::shared::{Arrival, Shared};
use crate::server::socket::Writer;
use crate::server::task::SessionTask;
use crate::{
    CloseReason, Config, Frames, Handshake, Pace, Protocol, ProtocolVersion, SessionHandle, Transport,
    Transports,
};

/// How often an id is made anew when the generator repeats itself.
const ID_ATTEMPTS: usize = 4;

/// An Engine.IO server. Cheap to clone.
pub struct Engine<P: Protocol>(Arc<Inner<P>>);

struct Inner<P> {
    registry: Arc<Registry>,
    offers: Offers,
    protocol: P,
}

/// What all open packets say behind the session's id.
struct Offers {
    polling: String,
    polling_v3: String,
    others: String,
}

impl Offers {
    fn new(config: &Config, upgrades: Transports) -> Offers {
        let names = match (upgrades.websocket, upgrades.webtransport) {
            (true, true) => r#""websocket","webtransport""#,
            (true, false) => r#""websocket""#,
            (false, true) => r#""webtransport""#,
            (false, false) => "",
        };
        let names_v3 = if upgrades.websocket { r#""websocket""# } else { "" };
        let offer = |names| {
            format!(
                r#"","upgrades":[{names}],"pingInterval":{},"pingTimeout":{},"maxPayload":{}}}"#,
                config.ping_interval.as_millis(),
                config.ping_timeout.as_millis(),
                config.max_payload,
            )
        };
        Offers { polling: offer(names), polling_v3: offer(names_v3), others: offer("") }
    }

    fn to(&self, transport: Transport, version: ProtocolVersion) -> &str {
        match (transport, version) {
            (Transport::Polling, ProtocolVersion::V4) => &self.polling,
            (Transport::Polling, ProtocolVersion::V3) => &self.polling_v3,
            (Transport::Websocket | Transport::WebTransport, _) => &self.others,
        }
    }
}

/// Why a request opens no session.
enum NotOpened {
    /// It cannot be one that does, or there is no id for it.
    BadRequest,
    Unavailable(NoPlace),
}

impl NotOpened {
    /// The protocol's word for it, if it has one, and what is said.
    fn told(&self) -> (Option<ErrorCode>, &'static str) {
        match self {
            NotOpened::BadRequest => (Some(ErrorCode::BadRequest), ErrorCode::BadRequest.message()),
            NotOpened::Unavailable(no_place) => (None, no_place.message()),
        }
    }
}

/// How many sessions there are, and were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sessions open now, and those whose client still has to fetch the close packet.
    pub sessions: usize,
    /// Those on polling.
    pub polling: usize,
    /// Those on a websocket.
    pub websocket: usize,
    /// Those on WebTransport.
    pub webtransport: usize,
    /// Sessions opened so far.
    pub handshakes: u64,
    /// Sessions moved from polling to another transport so far.
    pub upgrades: u64,
    /// Requests refused so far, those of sessions included (a body too large, a second poll at the same time).
    pub refused: u64,
}

impl<P: Protocol> Engine<P> {
    /// An engine that serves `protocol`.
    pub fn new(config: Config, protocol: P) -> Engine<P> {
        let registry = Arc::new(Registry::new(config.in_force()));
        let offers = Offers::new(&registry.config, registry.settings.upgrades);
        Engine(Arc::new(Inner { registry, offers, protocol }))
    }

    /// The options in force.
    pub fn config(&self) -> &Config {
        &self.0.registry.config
    }

    /// The protocol it serves.
    pub fn protocol(&self) -> &P {
        &self.0.protocol
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.0.registry.stats()
    }

    /// Completes when the number of sessions changes after this call. To miss nothing: call it, read
    /// [`stats`](Engine::stats), then await.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.registry.changed.notified()
    }

    /// Whether a request for this path is the engine's: a prefix is enough, as in Node.
    pub fn path_matches(&self, path: &str) -> bool {
        path.starts_with(&self.config().path)
    }

    /// Whether it has this session.
    pub fn has(&self, sid: &str) -> bool {
        self.0.registry.find(sid).is_some()
    }

    /// Freezes a session, to let it go on in another process. None unless it is on a websocket and at rest: nothing queued,
    /// nothing half sent, and nothing that [`Session::export`](crate::Session::export) cannot give away. `limit`: the most
    /// bytes of state. It may be dropped at any point; the session then stays.
    pub async fn export(&self, sid: &str, limit: usize) -> Option<Exported> {
        moving::export(self.0.registry.find(sid)?, limit).await
    }

    /// Takes a session that another process has frozen ([`Exported::state`]). It goes on once its connection is here:
    /// [`Arriving::attach`].
    ///
    /// # Errors
    /// When it cannot go on here.
    pub fn import(&self, state: &[u8]) -> Result<Arriving, ImportError> {
        let moving::State { sid, half_read, session } =
            moving::State::read(state).ok_or(ImportError::Unreadable)?;
        if !is_valid_sid(sid) {
            return Err(ImportError::Unreadable);
        }
        let registry = &self.0.registry;
        registry.place()?;
        let machine = Machine::resumed(registry.settings.clone(), now());
        let shared = Arc::new(Shared::new(sid.to_owned(), registry.clone(), machine, None));
        shared.act(|state| state.set_frozen(true));
        shared.enlist(false)?;
        let unopened = Unopened(&shared);
        let resumed = self.0.protocol.resume(SessionHandle(shared.clone()), session);
        let session = resumed.map_err(ImportError::Refused)?;
        std::mem::forget(unopened);
        tokio::spawn(SessionTask::resumed(shared.clone(), session));
        Ok(Arriving { shared: Some(shared), half_read: half_read.into() })
    }

    /// Waits until no session is left or `deadline` has passed; then closes those that are left, in paced batches,
    /// by closing the engine session (never a disconnect packet of the protocol above, after which clients do not
    /// come back). Returns when no session is left. New sessions are not refused: that is the router's part; but on
    /// WebTransport, which has no router, they are once the deadline has passed. Sessions on their way to or from another process
    /// ([`export`](Engine::export), [`import`](Engine::import)) are given as long as
    /// [`close_timeout`](Config::close_timeout) to get there.
    pub async fn drain(&self, deadline: Duration, pace: Pace) {
        if tokio::time::timeout(deadline, self.empty()).await.is_ok() {
            return;
        }
        let close_timeout = self.config().close_timeout;
        let _draining = Draining::begin(&self.0.registry.draining);
        // Closed here, one would be over here and go on there.
        let mut patient = true;
        loop {
            for batch in self.0.registry.all().chunks(pace.batch.max(1)) {
                for session in batch {
                    session.act(|state| {
                        if !(patient && state.frozen) {
                            state.machine.close(CloseReason::ServerShutdown, now());
                        }
                    });
                }
                tokio::time::sleep(pace.pause).await;
            }
            // Only sessions that came in meanwhile, or were on their way, can outlast the close timeout.
            if tokio::time::timeout(close_timeout, self.empty()).await.is_ok() {
                return;
            }
            patient = false;
        }
    }

    /// Closes every session now, and refuses new ones with 503. Returns when none is left.
    pub async fn close(&self) {
        self.0.registry.close();
        self.drain(Duration::ZERO, Pace { batch: usize::MAX, pause: Duration::ZERO }).await;
    }

    async fn empty(&self) {
        loop {
            let changed = self.changed();
            if self.0.registry.len() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// Says that sessions are being closed, until it is dropped.
struct Draining<'a>(&'a AtomicBool);

impl<'a> Draining<'a> {
    fn begin(draining: &'a AtomicBool) -> Draining<'a> {
        draining.store(true, Ordering::Relaxed);
        Draining(draining)
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl<P: Protocol> Inner<P> {
    /// Makes a session and enters it in the table.
    fn new_session(
        &self,
        parts: &Parts,
        transport: Transport,
        dialect: Dialect,
        socket: Option<(Writer, Vec<u8>)>,
    ) -> Result<Arc<Shared>, NotOpened> {
        let (mut writer, unwritten) = socket.unzip();
        for _ in 0..ID_ATTEMPTS {
            let made = catch_unwind(AssertUnwindSafe(|| (self.registry.config.generate_id)(parts)));
            let Ok(sid) = made else {
                tracing::error!("generate_id panicked: the client is refused");
                return Err(NotOpened::BadRequest);
            };
            if !is_valid_sid(&sid) {
                tracing::error!(length = sid.len(), "generate_id made an id that cannot be used");
                return Err(NotOpened::BadRequest);
            }
            let mut open = self.open_packet(&sid, transport, dialect);
            if let Some(head) = unwritten.as_ref().filter(|head| !head.is_empty()) {
                open = Frames::raw([&head[..], open.as_bytes()].concat().into());
            }
            let machine = Machine::new(self.registry.settings.clone(), transport, dialect, open, now());
            let shared = Arc::new(Shared::new(sid, self.registry.clone(), machine, writer.take()));
            match shared.enlist(true) {
                Ok(()) => return Ok(shared),
                Err(NoPlace::Taken) => writer = shared.take_writer(),
                Err(no_place) => return Err(NotOpened::Unavailable(no_place)),
            }
        }
        tracing::error!("generate_id keeps making ids that are in use");
        Err(NotOpened::BadRequest)
    }

    fn open_packet(&self, sid: &str, transport: Transport, dialect: Dialect) -> Frames {
        Frames::control(&[r#"0{"sid":""#, sid, self.offers.to(transport, dialect.version)].concat())
    }

    /// Opens the protocol's half; what is returned runs the session.
    fn session(
        &self,
        shared: &Arc<Shared>,
        parts: Parts,
        transport: Transport,
        arrival: Option<Arrival>,
    ) -> SessionTask<P::Session> {
        let peer_addr = requests::peer(&parts);
        let version = shared.look(|state| state.machine.dialect().version);
        let handshake = Handshake { parts, peer_addr, transport, version };
        let unopened = Unopened(shared);
        let session = self.protocol.open(SessionHandle(shared.clone()), handshake);
        std::mem::forget(unopened);
        SessionTask::new(shared.clone(), session, arrival)
    }
}

/// Ends a session whose protocol panics in `open`: it would stay in the table without a task.
struct Unopened<'a>(&'a Arc<Shared>);

impl Drop for Unopened<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl<P: Protocol> Clone for Engine<P> {
    fn clone(&self) -> Engine<P> {
        Engine(self.0.clone())
    }
}

impl<P: Protocol> fmt::Debug for Engine<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", self.config()).finish_non_exhaustive()
    }
}
