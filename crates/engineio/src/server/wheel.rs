//! A hashed timer wheel: one timer for all sessions; to plan a deadline and to take it out again cost the same, however many
//! there are.
//!
//! Plain data; `heartbeat` drives it.

use std::time::{Duration, Instant};

use slab::Slab;

/// How many slots the wheel has. Deadlines further away than one turn stay in their slot for another.
const SLOTS: usize = 1024;
/// No plan.
const NONE: u32 = u32::MAX;

/// A deadline in ticks since the wheel was made.
pub(crate) type Tick = u64;

/// Where a deadline is planned. It may be another's once it has fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan(u32);

#[derive(Debug)]
pub(crate) struct Wheel<T> {
    start: Instant,
    tick: Duration,
    /// Ticks up to this one have been expired.
    done: Tick,
    /// The first plan of each slot.
    slots: Box<[u32]>,
    plans: Slab<Planned<T>>,
}

/// One of the plans of a slot, which are a list.
#[derive(Debug)]
struct Planned<T> {
    tick: Tick,
    before: u32,
    after: u32,
    item: T,
}

fn slot_of(tick: Tick) -> usize {
    (tick % SLOTS as Tick) as usize
}

impl<T> Wheel<T> {
    /// A wheel that is right to one `tick`: deadlines fire up to one tick late, never early.
    pub(crate) fn new(start: Instant, tick: Duration) -> Wheel<T> {
        Wheel { start, tick, done: 0, slots: vec![NONE; SLOTS].into(), plans: Slab::new() }
    }

    /// The tick at which `at` fires.
    pub(crate) fn tick_of(&self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.start).as_nanos();
        let tick = since.div_ceil(self.tick.as_nanos().max(1));
        Tick::try_from(tick).unwrap_or(Tick::MAX).max(self.done + 1)
    }

    /// Puts `item` at `tick`.
    pub(crate) fn insert(&mut self, tick: Tick, item: T) -> Plan {
        let tick = tick.max(self.done + 1);
        let slot = slot_of(tick);
        let after = self.slots[slot];
        let plan = self.plans.insert(Planned { tick, before: NONE, after, item }) as u32;
        if let Some(first) = self.plans.get_mut(after as usize) {
            first.before = plan;
        }
        self.slots[slot] = plan;
        Plan(plan)
    }

    /// Takes a plan out if it still is for the item meant.
    pub(crate) fn remove(&mut self, plan: Plan, is_meant: impl FnOnce(&T) -> bool) {
        if self.plans.get(plan.0 as usize).is_some_and(|planned| is_meant(&planned.item)) {
            self.take(plan.0);
        }
    }

    fn take(&mut self, plan: u32) -> Planned<T> {
        let planned = self.plans.remove(plan as usize);
        match self.plans.get_mut(planned.before as usize) {
            Some(before) => before.after = planned.after,
            None => self.slots[slot_of(planned.tick)] = planned.after,
        }
        if let Some(after) = self.plans.get_mut(planned.after as usize) {
            after.before = planned.before;
        }
        planned
    }

    /// All that is planned, in no order.
    pub(crate) fn items(&self) -> impl Iterator<Item = &T> {
        self.plans.iter().map(|(_, planned)| &planned.item)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Takes everything out that is due at `now`.
    pub(crate) fn expire(&mut self, now: Instant, mut due: impl FnMut(Tick, T)) {
        let elapsed = now.saturating_duration_since(self.start).as_nanos();
        let now = Tick::try_from(elapsed / self.tick.as_nanos().max(1)).unwrap_or(Tick::MAX);
        // After a long sleep one turn visits every slot.
        let from = (self.done + 1).max((now + 1).saturating_sub(SLOTS as Tick));
        for tick in from..=now {
            let mut next = self.slots[slot_of(tick)];
            while let Some(planned) = self.plans.get(next as usize) {
                let plan = std::mem::replace(&mut next, planned.after);
                if planned.tick <= now {
                    let Planned { tick, item, .. } = self.take(plan);
                    due(tick, item);
                }
            }
        }
        self.done = self.done.max(now);
        // What a crowd took is given back when it has gone.
        if self.plans.is_empty() {
            self.plans = Slab::new();
        }
    }

    /// When the next occupied slot comes round.
    pub(crate) fn next(&self) -> Option<Instant> {
        let ahead = (1..=SLOTS as Tick).find(|ahead| self.slots[slot_of(self.done + ahead)] != NONE)?;
        let after = self.tick.as_nanos().saturating_mul(u128::from(self.done + ahead));
        Some(self.start + Duration::from_nanos(u64::try_from(after).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    fn due(wheel: &mut Wheel<u32>, now: Instant) -> Vec<u32> {
        let mut items = Vec::new();
        wheel.expire(now, |_, item| items.push(item));
        items
    }

    #[test]
    fn nothing_fires_early_and_nothing_is_lost() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, TICK);
        let deadlines: Vec<Duration> =
            [0, 1, 9, 10, 11, 250, 10_239, 10_240, 10_241, 45_000].map(Duration::from_millis).to_vec();
        for (number, after) in deadlines.iter().enumerate() {
            let _ = wheel.insert(wheel.tick_of(start + *after), number as u32);
        }
        let mut fired = Vec::new();
        let mut now = start;
        while let Some(next) = wheel.next() {
            assert!(next > now);
            now = next;
            for item in due(&mut wheel, now) {
                let late = now - (start + deadlines[item as usize]);
                assert!(late <= TICK, "{item} fired {late:?} late");
                fired.push(item);
            }
        }
        fired.sort_unstable();
        assert_eq!(fired, (0..10).collect::<Vec<_>>());
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_long_sleep_misses_nothing() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, TICK);
        for number in 0..3000 {
            let _ = wheel.insert(wheel.tick_of(start + TICK * number), number);
        }
        assert_eq!(due(&mut wheel, start + TICK * 100_000).len(), 3000);
        assert!(wheel.is_empty());
    }

    #[test]
    fn the_past_fires_at_the_next_tick() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, TICK);
        assert!(due(&mut wheel, start + TICK * 50).is_empty());
        let _ = wheel.insert(wheel.tick_of(start), 1);
        assert_eq!(wheel.next(), Some(start + TICK * 51));
        assert_eq!(due(&mut wheel, start + TICK * 51), [1]);
    }

    #[test]
    fn a_wheel_turns_for_longer_than_32_bits_of_ticks() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, TICK);
        let now = start + TICK * u32::MAX + TICK * 10;
        assert!(due(&mut wheel, now).is_empty());
        let _ = wheel.insert(wheel.tick_of(now + TICK * 3), 1);
        assert_eq!(wheel.next(), Some(now + TICK * 3));
        assert!(due(&mut wheel, now + TICK * 2).is_empty());
        assert_eq!(due(&mut wheel, now + TICK * 3), [1]);
    }

    #[test]
    fn what_was_taken_out_does_not_fire_and_its_place_is_used_again() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, TICK);
        let tick = wheel.tick_of(start + TICK * 3);
        let plans: Vec<Plan> = (0..5).map(|number| wheel.insert(tick, number)).collect();
        for taken in [2, 0, 4] {
            wheel.remove(plans[taken as usize], |item| *item == taken);
        }
        // Not its own any more.
        let reused = wheel.insert(tick, 7);
        wheel.remove(plans[4], |item| *item == 4);
        let mut fired = due(&mut wheel, start + TICK * 3);
        fired.sort_unstable();
        assert_eq!(fired, [1, 3, 7]);
        assert!(wheel.is_empty());
        wheel.remove(reused, |_| true);
        assert!(wheel.next().is_none());
        for round in 0..100 {
            let plan = wheel.insert(tick + 10, round);
            wheel.remove(plan, |item| *item == round);
        }
        assert!(wheel.plans.capacity() <= 8, "{}", wheel.plans.capacity());
    }
}
