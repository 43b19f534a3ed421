//! A session's shared half: the state machine and the writing half of its socket under one short lock.
//!
//! Its task, the polling requests, the timer wheel and every sender work on it through [`Shared::act`], which
//! afterwards does what has become due: answer the waiting poll, write, plan the next deadline, wake the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use sundew_io::Raw;
use tokio::sync::{Notify, oneshot};

use super::now;
use super::registry::{NoPlace, Registry};
use super::socket::{Reader, Writer};
use super::wheel::{Plan, Tick};
use crate::proto::dialect::Answer;
use crate::proto::framing::Framing;
use crate::proto::payload::Packets;
use crate::proto::session::{Machine, ProbeId, Unsendable};
use crate::{CloseReason, Frames, Transport};

/// A second message this soon after one was written in place is left to the session's task: a burst then leaves in
/// few writes, and a lone message still leaves at once.
pub(crate) const BURST: Duration = Duration::from_micros(500);

/// As much of a burst is worth a write of its own, whoever does it.
const WRITE_BYTES: usize = 32 * 1024;
const WRITE_PACKETS: usize = 64;

pub(crate) struct Shared {
    sid: Box<str>,
    registry: Arc<Registry>,
    /// Told when the outbox has room again, and when the session is over.
    pub(crate) news: Notify,
    /// Whether somebody may be waiting for `news` about room.
    pub(crate) waiting: AtomicBool,
    /// Whether the machine is open, as it was when the lock was last given back.
    open: AtomicBool,
    /// Whether it learns something from a message, as it was then.
    attentive: AtomicBool,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) machine: Machine,
    /// The session's own task, from its first turn to its end.
    task: Option<Waker>,
    /// While the task works off a batch, what is sent is queued and leaves in one write at its end.
    corked: bool,
    /// The socket did not take everything, or has not sent it: the task waits until it can be written to.
    blocked: bool,
    /// On the way from one process to another: nothing is read or written until it has arrived, or stays.
    pub(crate) frozen: bool,
    /// Who wants to take the session elsewhere.
    pub(crate) taker: Option<Box<Taker>>,
    pub(crate) writer: Option<Writer>,
    /// When a message was last written by its sender instead of the task.
    inline: Option<Instant>,
    /// The connection a finished upgrade brought, until the task takes it.
    pub(crate) arrival: Option<Box<Arrival>>,
    /// The body of a polling request, until the task takes it.
    pub(crate) inbox: Option<Posted>,
    /// The waiting poll.
    pub(crate) get: Option<oneshot::Sender<Answer>>,
    /// A poll that came during a probe: dropped when the probe has seen what came before it.
    pub(crate) behind_probe: Option<oneshot::Sender<()>>,
    /// The task of a probe, while it waits.
    pub(crate) prober: Option<Waker>,
    /// When the protocol above wants to be woken.
    pub(crate) alarm: Option<Instant>,
    /// The tick at which the timer wheel looks at this session, and the deadline it is for.
    armed: Option<Armed>,
    listed: Option<Transport>,
}

/// What is planned for a session.
struct Armed {
    tick: Tick,
    plan: Plan,
    at: Instant,
}

/// A body whose packets the session's task works off.
pub(crate) struct Posted {
    pub(crate) packets: Packets,
    /// Completed when all of them have been worked off.
    pub(crate) taken: oneshot::Sender<()>,
}

/// Who wants to take a session elsewhere.
pub(crate) enum Taker {
    /// Gets it as plain data, or nothing while it is not at rest.
    State(oneshot::Sender<Option<AtRest>>),
    /// Gets its connection, and what has been queued for it since it was frozen.
    Socket(oneshot::Sender<(Raw, Vec<u8>)>),
}

/// A session at rest, as plain data: what the protocol above needs to go on, and what was read of the client's next
/// message.
pub(crate) struct AtRest {
    pub(crate) state: Vec<u8>,
    pub(crate) half_read: Vec<u8>,
}

/// What was brought for the session's task.
pub(crate) struct Brought {
    pub(crate) posted: Option<Posted>,
    pub(crate) arrival: Option<Box<Arrival>>,
    pub(crate) frozen: bool,
}

/// How things stand at the end of a batch.
pub(crate) struct Uncorked {
    /// Why the session is over, if it is.
    pub(crate) over: Option<CloseReason>,
    /// Nothing is left to do.
    pub(crate) closed: bool,
    /// Somebody wants to take it elsewhere.
    pub(crate) wanted: bool,
}

/// What has become the session's connection: a websocket, or a stream of WebTransport.
pub(crate) struct Arrival {
    pub(crate) reader: Reader,
    pub(crate) decoder: Framing,
    /// Bytes read behind the upgrade packet.
    pub(crate) unread: BytesMut,
}

impl Shared {
    pub(crate) fn new(
        sid: String,
        registry: Arc<Registry>,
        machine: Machine,
        writer: Option<Writer>,
    ) -> Shared {
        let state = State {
            machine,
            task: None,
            corked: true,
            blocked: false,
            frozen: false,
            taker: None,
            writer,
            inline: None,
            arrival: None,
            inbox: None,
            get: None,
            behind_probe: None,
            prober: None,
            alarm: None,
            armed: None,
            listed: None,
        };
        Shared {
            sid: sid.into_boxed_str(),
            registry,
            news: Notify::new(),
            waiting: AtomicBool::new(false),
            open: AtomicBool::new(state.machine.is_open()),
            attentive: AtomicBool::new(state.machine.is_attentive()),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn sid(&self) -> &str {
        &self.sid
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Whether the session goes on.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether the machine has to see the next message.
    pub(crate) fn is_attentive(&self) -> bool {
        self.attentive.load(Ordering::Relaxed)
    }

    /// Has the session's task look at what has changed.
    pub(crate) fn wake_task(&self) {
        self.state.lock().wake_task();
    }

    /// Looks at the state without changing what is due.
    pub(crate) fn look<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.state.lock())
    }

    /// Enters the session in the engine's table. `opened`: it begins here.
    pub(crate) fn enlist(self: &Arc<Self>, opened: bool) -> Result<(), NoPlace> {
        let mut state = self.state.lock();
        let transport = state.machine.transport();
        self.registry.insert(self, transport, opened)?;
        state.listed = Some(transport);
        Ok(())
    }

    /// Gives the socket back: the id was taken.
    pub(crate) fn take_writer(&self) -> Option<Writer> {
        self.state.lock().writer.take()
    }

    /// Does something to the session, then what has become due by it.
    pub(crate) fn act<R>(self: &Arc<Self>, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let before = state.progress();
        let result = f(&mut state);
        if !state.corked {
            state.flush(None);
        }
        let after = state.progress();
        self.settle(&mut state);
        if before != after {
            state.wake_task();
        }
        if before.open && !after.open {
            self.open.store(false, Ordering::Release);
            self.news.notify_waiters();
        }
        result
    }

    /// Queues a message, and writes it at once if that is best done here: not within `burst` of the one before.
    pub(crate) fn send(
        self: &Arc<Self>,
        frames: Frames,
        burst: Duration,
    ) -> Result<(), (Unsendable, Frames)> {
        let mut state = self.state.lock();
        let idle = state.machine.outbox().is_empty();
        state.machine.send(frames)?;
        // The task sends it at the end of its batch, or when the socket can be written to.
        if state.corked || state.blocked || state.frozen {
            return Ok(());
        }
        if state.machine.transport() != Transport::Polling {
            let now = now();
            let soon = state.inline.is_some_and(|last| now.saturating_duration_since(last) < burst);
            let outbox = state.machine.outbox();
            let much = outbox.bytes() >= WRITE_BYTES || outbox.packets() >= WRITE_PACKETS;
            if (soon || !idle) && !much {
                if burst > BURST {
                    // Broadcasts that follow on one another: as long as they do.
                    state.inline = Some(now);
                }
                // The task was woken by the message that is waiting already.
                if idle {
                    state.wake_task();
                }
                return Ok(());
            }
            state.inline = Some(now);
        }
        let before = state.progress();
        state.flush(None);
        let after = state.progress();
        self.settle(&mut state);
        if before != after {
            self.open.store(after.open, Ordering::Release);
            state.wake_task();
        }
        Ok(())
    }

    /// A message or packet for the state machine in the middle of a batch: what follows from it waits for its end.
    pub(crate) fn within_batch<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = f(&mut state);
        if !state.machine.is_open() {
            self.open.store(false, Ordering::Release);
        }
        self.tell_attention(&state);
        result
    }

    /// The task begins a batch: what is sent from now on is queued. Returns what has been brought for it.
    pub(crate) fn cork(&self, cx: &Context<'_>) -> Brought {
        let mut state = self.state.lock();
        if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            state.task = Some(cx.waker().clone());
        }
        state.corked = true;
        Brought { posted: state.inbox.take(), arrival: state.arrival.take(), frozen: state.frozen }
    }

    /// The task has worked off its batch: everything queued leaves in one write. Returns why the session is over,
    /// if it is, and whether nothing is left to do.
    pub(crate) fn uncork(self: &Arc<Self>, cx: &mut Context<'_>) -> Uncorked {
        let mut state = self.state.lock();
        state.corked = false;
        state.flush(Some(cx));
        self.settle(&mut state);
        let over = state.machine.over();
        if over.is_some() {
            self.open.store(false, Ordering::Release);
            self.news.notify_waiters();
            // Nobody takes it any more. Who waits to do so keeps it frozen, and its last output here.
            state.taker = None;
        }
        Uncorked { over, closed: state.machine.is_closed(), wanted: state.taker.is_some() }
    }

    /// A planned tick of the timer wheel has come.
    pub(crate) fn on_timer(self: &Arc<Self>, tick: Tick) {
        self.act(|state| {
            // A later plan than the one in force is left over from before a nearer deadline was set.
            if state.armed.as_ref().is_none_or(|armed| armed.tick != tick) {
                return;
            }
            state.armed = None;
            let now = now();
            state.machine.handle_timeout(now);
            if state.machine.is_closed()
                && let Some(writer) = &mut state.writer
            {
                writer.abort();
            }
            if state.alarm.take_if(|alarm| *alarm <= now).is_some() {
                state.wake_task();
            }
        });
    }

    /// What was planned for this tick will not come: its task plans anew.
    pub(crate) fn unplanned(&self, tick: Tick) {
        let mut state = self.state.lock();
        state.armed.take_if(|armed| armed.tick == tick);
        state.wake_task();
    }

    /// The task is gone, whatever the reason: nothing may wait for it, and the connection ends.
    pub(crate) fn abandon(self: &Arc<Self>) {
        let writer = self.act(|state| {
            state.machine.abort();
            state.task = None;
            state.corked = false;
            state.inbox = None;
            state.arrival = None;
            state.taker = None;
            // Nothing is written any more: a stream that has panicked may do so again.
            state.writer.take()
        });
        if let Some(writer) = writer {
            writer.release();
        }
        self.news.notify_waiters();
    }

    /// Completes when nothing of the session is left.
    pub(crate) async fn gone(&self) {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if self.look(|state| state.machine.is_gone()) {
                return;
            }
            news.await;
        }
    }

    fn tell_attention(&self, state: &State) {
        let attentive = state.machine.is_attentive();
        // Nearly always it is so already.
        if self.is_attentive() != attentive {
            self.attentive.store(attentive, Ordering::Relaxed);
        }
    }

    fn settle(self: &Arc<Self>, state: &mut State) {
        self.tell_attention(state);
        if state.machine.is_gone()
            && let Some(transport) = state.listed.take()
        {
            self.registry.remove(&self.sid, transport);
        }
        if !state.machine.is_open() {
            state.behind_probe = None;
        }
        if !state.machine.is_probing() {
            state.behind_probe = None;
            if let Some(prober) = state.prober.take() {
                prober.wake();
            }
        }
        let at = state.machine.poll_timeout().map(|at| state.alarm.map_or(at, |alarm| alarm.min(at)));
        // A plan for too early is no harm: it is made anew then. So a heartbeat that moves on costs nothing here.
        let stands = match (&state.armed, at) {
            (Some(armed), Some(at)) => armed.at <= at && self.registry.heartbeat.is_running(),
            (armed, None) => armed.is_none(),
            (None, Some(_)) => false,
        };
        if !stands {
            let heartbeat = &self.registry.heartbeat;
            if let Some(armed) = state.armed.take() {
                heartbeat.disarm(self, armed.plan);
            }
            state.armed = at.map(|at| {
                let (tick, plan) = heartbeat.arm(&self.registry, self, at);
                Armed { tick, plan, at }
            });
        }
        // The flag is set before the waiter looks at the state under this lock, so none is missed.
        if self.waiting.load(Ordering::Relaxed) && state.machine.has_room() {
            self.waiting.store(false, Ordering::Relaxed);
            self.news.notify_waiters();
        }
    }
}

/// What the task has to know about when it changes.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Progress {
    open: bool,
    closed: bool,
    blocked: bool,
}

impl Shared {
    /// Completes when the probe, if there is one, has seen what has arrived so far: the upgrade packet may have come before a
    /// poll does, on another connection.
    pub(crate) async fn probe_caught_up(&self) {
        let caught_up = {
            let mut state = self.state.lock();
            if !state.machine.is_probing() || !state.machine.is_open() {
                return;
            }
            let (behind, caught_up) = oneshot::channel();
            state.behind_probe = Some(behind);
            if let Some(prober) = &state.prober {
                prober.wake_by_ref();
            }
            caught_up
        };
        // It never says anything.
        let _ = caught_up.await;
    }
}

impl Shared {
    /// What a probe's task waits for besides its connection: that the probe is over. Lets a poll go on that waits for what has
    /// come on the connection, unless there is more.
    pub(crate) fn poll_probe(
        &self,
        cx: &mut Context<'_>,
        id: ProbeId,
        has_more: impl FnOnce() -> bool,
    ) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.machine.is_probing_by(id) {
            return Poll::Ready(());
        }
        if state.behind_probe.is_some() && !has_more() {
            state.behind_probe = None;
        }
        if !state.prober.as_ref().is_some_and(|prober| prober.will_wake(cx.waker())) {
            state.prober = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl State {
    /// Has the session's task look at what has changed.
    pub(crate) fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    fn progress(&self) -> Progress {
        Progress { open: self.machine.is_open(), closed: self.machine.is_closed(), blocked: self.blocked }
    }

    /// Whether a message sent now would leave at once.
    pub(crate) fn is_writable(&self) -> bool {
        // What is queued only for the end of the task's batch is no obstacle.
        self.machine.is_ready(!self.blocked && !self.frozen)
    }

    /// The session has left polling.
    pub(crate) fn upgraded(&mut self, registry: &Registry, writer: Writer, arrival: Box<Arrival>) {
        self.writer = Some(writer);
        self.arrival = Some(arrival);
        let to = self.machine.transport();
        if self.listed.replace(to) == Some(Transport::Polling) {
            registry.upgraded(to);
        }
    }

    /// Nothing is read or written from now on, or it goes on.
    pub(crate) fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
        // A pong may be on its way.
        self.machine.set_paused(frozen, now());
    }

    fn flush(&mut self, mut cx: Option<&mut Context<'_>>) {
        if self.machine.has_get()
            && let Some(get) = self.get.take()
        {
            match self.machine.poll_get() {
                // Nobody there any more: the request's guard ends the session.
                Some(body) => drop(get.send(body)),
                None => self.get = Some(get),
            }
        }
        if self.frozen {
            return;
        }
        let Some(writer) = &mut self.writer else { return };
        // Whoever is not the task has nothing to try while the task waits for the socket.
        if self.blocked && cx.is_none() {
            return;
        }
        self.blocked = false;
        while !self.machine.outbox().is_empty() {
            match writer.poll_write(cx.as_deref_mut(), self.machine.outbox()) {
                Poll::Ready(Ok(count)) => self.machine.written(count),
                Poll::Ready(Err(_)) => return self.machine.disconnected(),
                Poll::Pending => {
                    self.blocked = true;
                    return;
                }
            }
        }
        match writer.poll_flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => self.machine.disconnected(),
            Poll::Pending => self.blocked = true,
        }
    }
}
