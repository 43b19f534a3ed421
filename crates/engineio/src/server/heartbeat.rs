//! The task that turns the timer wheel: pings, timeouts and deadlines of all sessions of an engine.
//!
//! It runs while there is a session, and does a session's timer work itself: an idle session's own task sleeps on.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
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
    /// An earlier deadline than all others was set.
    earlier: Notify,
}

struct State {
    wheel: Wheel<Weak<Shared>>,
    running: bool,
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
            wheel: Mutex::new(State { wheel, running: false, asleep: Tick::MAX }),
            earlier: Notify::new(),
        }
    }

    /// Has `session` looked at when `at` comes. Returns the tick this is planned for.
    pub(crate) fn arm(&self, registry: &Arc<Registry>, session: &Arc<Shared>, at: Instant) -> (Tick, Plan) {
        let mut state = self.wheel.lock();
        let tick = state.wheel.tick_of(at);
        let plan = state.wheel.insert(tick, Arc::downgrade(session));
        if !state.running {
            state.running = true;
            state.asleep = tick;
            tokio::spawn(run(Arc::downgrade(registry)));
        } else if tick < state.asleep {
            state.asleep = tick;
            self.earlier.notify_one();
        }
        (tick, plan)
    }

    /// Takes a plan of `session` back. Left in the wheel, it would keep the memory of a session that is over.
    pub(crate) fn disarm(&self, session: &Arc<Shared>, plan: Plan) {
        let is_meant = |planned: &Weak<Shared>| planned.as_ptr() == Arc::as_ptr(session);
        self.wheel.lock().wheel.remove(plan, is_meant);
    }
}

async fn run(registry: Weak<Registry>) {
    loop {
        let next = {
            let Some(registry) = registry.upgrade() else { return };
            let mut state = registry.heartbeat.wheel.lock();
            let Some(next) = state.wheel.next() else {
                state.running = false;
                state.asleep = Tick::MAX;
                return;
            };
            state.asleep = state.wheel.tick_of(next);
            next
        };
        let Some(engine) = registry.upgrade() else { return };
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = engine.heartbeat.earlier.notified() => continue,
        }
        let mut due = Vec::new();
        {
            let mut state = engine.heartbeat.wheel.lock();
            state.wheel.expire(now(), |tick, session| due.push((tick, session)));
        }
        for (count, (tick, session)) in due.into_iter().enumerate() {
            if let Some(session) = session.upgrade() {
                session.on_timer(tick);
            }
            if count % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::dialect::Dialect;
    use crate::proto::session::Machine;
    use crate::{Config, Frames, Transport};

    #[tokio::test]
    async fn a_session_that_is_over_is_in_no_plan() {
        let registry = Arc::new(Registry::new(Config::default()));
        for _ in 0..3 {
            let settings = registry.settings.clone();
            let machine =
                Machine::new(settings, Transport::Websocket, Dialect::V4, Frames::text("open"), now());
            let session = Arc::new(Shared::new("sid".to_owned(), registry.clone(), machine, None));
            session.enlist(true).unwrap();
            session.act(|_| {});
            assert_eq!(Arc::weak_count(&session), 1, "its first ping is planned");
            session.act(|state| state.machine.abort());
            // A plan kept to its time would keep the memory of the session as long.
            assert_eq!((Arc::weak_count(&session), Arc::strong_count(&session)), (0, 1));
        }
    }
}
