//! The task that turns the timer wheel: pings, timeouts and deadlines of all sessions of an engine.
//!
//! It runs while there is a session, and does a session's timer work itself: an idle session's own task sleeps on. An engine
//! may outlive the runtime it runs in, and go on in another.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::now;
use super::registry::Registry;
use super::shared::Shared;
use super::wheel::{Plan, Tick, Wheel};
use crate::proto::session::Settings;

/// Sessions worked off before other tasks get their turn.
const BATCH: usize = 128;

pub(crate) struct Heartbeat {
    wheel: Mutex<State>,
    /// Whether the task runs. Changed under the lock of `wheel`.
    running: AtomicBool,
    /// An earlier deadline than all others was set.
    earlier: Notify,
}

thread_local! {
    /// That the task is being begun on this thread, which holds a session's lock.
    static BEGINS: Cell<bool> = const { Cell::new(false) };
}

struct State {
    wheel: Wheel<Weak<Shared>>,
    /// What the task sleeps for, in ticks.
    asleep: Tick,
}

impl Heartbeat {
    pub(crate) fn new(settings: &Settings) -> Heartbeat {
        let shortest = settings
            .ping_interval
            .min(settings.ping_timeout)
            .min(settings.upgrade_timeout)
            .min(settings.close_timeout);
        let tick = (shortest / 50).clamp(Duration::from_millis(2), Duration::from_millis(100));
        let wheel = Wheel::new(now(), tick);
        Heartbeat {
            wheel: Mutex::new(State { wheel, asleep: Tick::MAX }),
            running: AtomicBool::new(false),
            earlier: Notify::new(),
        }
    }

    /// Whether what is planned will be looked at, as far as is known.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Has `session` looked at when `at` comes. Returns the tick this is planned for.
    pub(crate) fn arm(&self, registry: &Arc<Registry>, session: &Arc<Shared>, at: Instant) -> (Tick, Plan) {
        let mut state = self.wheel.lock();
        let tick = state.wheel.tick_of(at);
        let plan = state.wheel.insert(tick, Arc::downgrade(session));
        if self.is_running() {
            if tick < state.asleep {
                state.asleep = tick;
                self.earlier.notify_one();
            }
        } else if let Ok(runtime) = Handle::try_current() {
            state.asleep = tick;
            self.running.store(true, Ordering::Relaxed);
            // A runtime that is ending drops the task at once, and that takes the lock.
            drop(state);
            let running = Running { registry: Arc::downgrade(registry), ended: false, due: Vec::new() };
            BEGINS.set(true);
            runtime.spawn(run(running));
            BEGINS.set(false);
        }
        // Without a runtime, the next plan that is made in one begins it.
        (tick, plan)
    }

    /// Takes a plan of `session` back. Left in the wheel, it would keep the memory of a session that is over.
    pub(crate) fn disarm(&self, session: &Arc<Shared>, plan: Plan) {
        let is_meant = |planned: &Weak<Shared>| planned.as_ptr() == Arc::as_ptr(session);
        self.wheel.lock().wheel.remove(plan, is_meant);
    }

    fn end(&self, state: &mut State) {
        self.running.store(false, Ordering::Relaxed);
        state.asleep = Tick::MAX;
    }
}

/// That the task runs: no other is begun meanwhile. It also ends with its runtime, which may not be the engine's last.
struct Running {
    registry: Weak<Registry>,
    /// It has said that it ends, and another may have begun since.
    ended: bool,
    /// Taken out of the wheel and not done with yet, the last one first.
    due: Vec<(Tick, Weak<Shared>)>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(registry) = self.registry.upgrade().filter(|_| !self.ended) else { return };
        let left: Vec<_> = {
            let mut state = registry.heartbeat.wheel.lock();
            registry.heartbeat.end(&mut state);
            if BEGINS.get() { Vec::new() } else { state.wheel.items().cloned().collect() }
        };
        for (tick, session) in self.due.drain(..) {
            if let Some(session) = session.upgrade() {
                session.unplanned(tick);
            }
        }
        // Those whose runtime goes on see to it that the task does, too.
        for session in left.iter().filter_map(Weak::upgrade) {
            session.wake_task();
        }
    }
}

async fn run(mut running: Running) {
    loop {
        let Some(engine) = running.registry.upgrade() else { return };
        let next = {
            let mut state = engine.heartbeat.wheel.lock();
            let Some(next) = state.wheel.next() else {
                engine.heartbeat.end(&mut state);
                running.ended = true;
                return;
            };
            state.asleep = state.wheel.tick_of(next);
            next
        };
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = engine.heartbeat.earlier.notified() => continue,
        }
        engine.heartbeat.wheel.lock().wheel.expire(now(), |tick, session| running.due.push((tick, session)));
        running.due.reverse();
        let mut count = 0;
        while let Some((tick, session)) = running.due.last() {
            if let Some(session) = session.upgrade() {
                session.on_timer(*tick);
            }
            running.due.pop();
            count += 1;
            if count % BATCH == 0 {
                tokio::task::yield_now().await;
            }
        }
        // A crowd's memory is not kept.
        running.due = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::dialect::Dialect;
    use crate::proto::session::Machine;
    use crate::{Config, Frames, Transport};

    fn session(registry: &Arc<Registry>, sid: &str) -> Arc<Shared> {
        let settings = registry.settings.clone();
        let machine = Machine::new(settings, Transport::Websocket, Dialect::V4, Frames::text("open"), now());
        let session = Arc::new(Shared::new(sid.to_owned(), registry.clone(), machine, None));
        session.enlist(true).unwrap();
        session
    }

    #[tokio::test]
    async fn a_session_that_is_over_is_in_no_plan() {
        let registry = Arc::new(Registry::new(Config::default()));
        for _ in 0..3 {
            let session = session(&registry, "sid");
            session.act(|state| state.alarm = Some(now()));
            assert_eq!(Arc::weak_count(&session), 1, "its first ping is planned, or what comes before it");
            session.act(|state| state.machine.abort());
            // A plan kept to its time would keep the memory of the session as long.
            assert_eq!((Arc::weak_count(&session), Arc::strong_count(&session)), (0, 1));
        }
    }

    #[test]
    fn a_plan_that_is_made_where_no_task_can_run_leaves_the_next_to_begin_one() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let registry = Arc::new(Registry::new(Config::default()));
        let begun = |sid: &str| {
            session(&registry, sid).act(|_| {});
            registry.heartbeat.is_running()
        };
        assert!(!begun("in no runtime"));
        let ended = runtime().handle().clone();
        let entered = ended.enter();
        assert!(!begun("in one that has ended"));
        drop(entered);
        assert!(runtime().block_on(async { begun("in one that goes on") }));
        assert!(!registry.heartbeat.is_running(), "and has ended since");
    }
}
