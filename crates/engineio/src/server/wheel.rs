//! A hashed timer wheel: one timer for all sessions, and a deadline costs one push.
//!
//! Plain data; `heartbeat` drives it.

use std::time::{Duration, Instant};

/// How many slots the wheel has. Deadlines further away than one turn stay in their slot for another.
const SLOTS: usize = 1024;

/// A deadline in ticks since the wheel was made.
pub(crate) type Tick = u64;

#[derive(Debug)]
pub(crate) struct Wheel<T> {
    start: Instant,
    tick: Duration,
    /// Ticks up to this one have been expired.
    done: Tick,
    slots: Vec<Vec<(Tick, T)>>,
    len: usize,
}

impl<T> Wheel<T> {
    /// A wheel that is right to one `tick`: deadlines fire up to one tick late, never early.
    pub(crate) fn new(start: Instant, tick: Duration) -> Wheel<T> {
        Wheel { start, tick, done: 0, slots: (0..SLOTS).map(|_| Vec::new()).collect(), len: 0 }
    }

    /// The tick at which `at` fires.
    pub(crate) fn tick_of(&self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.start).as_nanos();
        let tick = since.div_ceil(self.tick.as_nanos().max(1));
        Tick::try_from(tick).unwrap_or(Tick::MAX).max(self.done + 1)
    }

    /// Puts `item` at `tick`.
    pub(crate) fn insert(&mut self, tick: Tick, item: T) {
        let tick = tick.max(self.done + 1);
        self.slots[(tick % SLOTS as Tick) as usize].push((tick, item));
        self.len += 1;
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes everything out that is due at `now`.
    pub(crate) fn expire(&mut self, now: Instant, mut due: impl FnMut(Tick, T)) {
        let elapsed = now.saturating_duration_since(self.start).as_nanos();
        let now = Tick::try_from(elapsed / self.tick.as_nanos().max(1)).unwrap_or(Tick::MAX);
        // After a long sleep one turn visits every slot.
        let from = (self.done + 1).max((now + 1).saturating_sub(SLOTS as Tick));
        for tick in from..=now {
            let slot = &mut self.slots[(tick % SLOTS as Tick) as usize];
            if slot.is_empty() {
                continue;
            }
            let (expired, later) = std::mem::take(slot).into_iter().partition(|(at, _)| *at <= now);
            *slot = later;
            let expired: Vec<_> = expired;
            self.len -= expired.len();
            for (at, item) in expired {
                due(at, item);
            }
        }
        self.done = self.done.max(now);
    }

    /// When the next occupied slot comes round.
    pub(crate) fn next(&self) -> Option<Instant> {
        let ahead = (1..=SLOTS as Tick)
            .find(|ahead| !self.slots[((self.done + ahead) % SLOTS as Tick) as usize].is_empty())?;
        let ticks = u32::try_from(self.done + ahead).unwrap_or(u32::MAX);
        Some(self.start + self.tick * ticks)
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
            wheel.insert(wheel.tick_of(start + *after), number as u32);
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
            wheel.insert(wheel.tick_of(start + TICK * number), number);
        }
        assert_eq!(due(&mut wheel, start + TICK * 100_000).len(), 3000);
        assert!(wheel.is_empty());
    }

    #[test]
    fn the_past_fires_at_the_next_tick() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start, TICK);
        assert!(due(&mut wheel, start + TICK * 50).is_empty());
        wheel.insert(wheel.tick_of(start), 1);
        assert_eq!(wheel.next(), Some(start + TICK * 51));
        assert_eq!(due(&mut wheel, start + TICK * 51), [1]);
    }
}
