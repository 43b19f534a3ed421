//! When a process that ended is started again. Pure: what happened goes in, what to do comes out; no clock, no process.
//!
//! pm2's option names, saner: consecutive exits younger than `min_uptime` count, a stable run resets the count, and the
//! `max_restarts`-th ends in a visible state instead of a loop.

use std::time::Duration;

use crate::ecosystem::AppConfig;

/// What `exp_backoff_restart_delay` grows by, and to at most: pm2's numbers.
const BACKOFF_FACTOR: f64 = 1.5;
const BACKOFF_LIMIT: Duration = Duration::from_secs(15);
/// A run this long ends a backoff: pm2's `EXP_BACKOFF_RESET_TIMER`.
const BACKOFF_RESET: Duration = Duration::from_secs(30);

/// What to do after an exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Stay down: the configuration says so.
    Stop,
    /// Stay down: it fails too often.
    GiveUp {
        /// One sentence.
        reason: String,
    },
    /// Start again after this long.
    Restart(Duration),
}

/// The memory of one slot.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    unstable: u32,
    backoff: Option<Duration>,
}

impl Policy {
    /// Consecutive exits younger than `min_uptime`.
    pub(crate) fn unstable(&self) -> u32 {
        self.unstable
    }

    /// Forgets everything: somebody started the process by hand.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// A process ended that nobody had told to. `code` is `None` after a signal.
    pub(crate) fn exited(&mut self, config: &AppConfig, code: Option<i32>, uptime: Duration) -> Verdict {
        let min_uptime = Duration::from_millis(config.min_uptime);
        self.unstable = if uptime < min_uptime { self.unstable + 1 } else { 0 };
        if !config.autorestart || code.is_some_and(|code| config.stop_exit_codes.contains(&code)) {
            return Verdict::Stop;
        }
        if self.unstable > 0 && self.unstable >= config.max_restarts {
            let times = if self.unstable == 1 {
                "once".to_owned()
            } else {
                format!("{} times in a row", self.unstable)
            };
            let reason = format!("ended within min_uptime ({min_uptime:?}) {times}: max_restarts is reached");
            return Verdict::GiveUp { reason };
        }
        Verdict::Restart(self.delay(config, uptime))
    }

    fn delay(&mut self, config: &AppConfig, uptime: Duration) -> Duration {
        if config.exp_backoff_restart_delay == 0 {
            return Duration::from_millis(config.restart_delay);
        }
        let first = Duration::from_millis(config.exp_backoff_restart_delay).min(BACKOFF_LIMIT);
        let delay = match self.backoff {
            Some(last) if uptime < BACKOFF_RESET => last.mul_f64(BACKOFF_FACTOR).min(BACKOFF_LIMIT),
            _ => first,
        };
        self.backoff = Some(delay);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    const YOUNG: Duration = Duration::from_millis(10);
    const OLD: Duration = Duration::from_secs(5);

    fn restarts(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Restart(_))
    }

    #[test]
    fn the_last_of_max_restarts_young_exits_gives_up() {
        let config = AppConfig { max_restarts: 3, restart_delay: 5000, ..config("a") };
        let mut policy = Policy::default();
        for _ in 0..2 {
            assert_eq!(policy.exited(&config, Some(1), YOUNG), Verdict::Restart(Duration::from_secs(5)));
        }
        let Verdict::GiveUp { reason } = policy.exited(&config, Some(1), YOUNG) else { panic!("went on") };
        assert!(reason.contains("3 times in a row") && reason.contains("max_restarts"), "{reason}");
    }

    #[test]
    fn a_stable_run_resets_the_count_whatever_its_age() {
        let config = AppConfig { max_restarts: 3, ..config("a") };
        let mut policy = Policy::default();
        for _ in 0..10 {
            assert!(restarts(&policy.exited(&config, Some(1), YOUNG)));
            assert!(restarts(&policy.exited(&config, Some(1), YOUNG)));
            assert!(restarts(&policy.exited(&config, None, OLD)));
            assert_eq!(policy.unstable(), 0);
        }
        // pm2's window is gone after 16 s; here a loop that begins late ends too.
        policy.exited(&config, Some(1), YOUNG);
        policy.exited(&config, Some(1), YOUNG);
        assert!(!restarts(&policy.exited(&config, Some(1), YOUNG)));
    }

    #[test]
    fn codes_and_autorestart_stop() {
        let codes = AppConfig { stop_exit_codes: vec![0, 7], ..config("a") };
        assert_eq!(Policy::default().exited(&codes, Some(7), OLD), Verdict::Stop);
        assert!(restarts(&Policy::default().exited(&codes, Some(8), OLD)));
        assert!(restarts(&Policy::default().exited(&codes, None, OLD)), "a signal is no exit code");
        let never = AppConfig { autorestart: false, ..config("a") };
        assert_eq!(Policy::default().exited(&never, Some(1), YOUNG), Verdict::Stop);
    }

    #[test]
    fn backoff_grows_to_its_limit_and_ends_by_a_long_run() {
        let config = AppConfig { exp_backoff_restart_delay: 100, max_restarts: 100, ..config("a") };
        let mut policy = Policy::default();
        let mut delays = Vec::new();
        for _ in 0..20 {
            match policy.exited(&config, Some(1), YOUNG) {
                Verdict::Restart(delay) => delays.push(delay.as_millis()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(delays[..4], [100, 150, 225, 337]);
        assert_eq!(delays[19], 15_000);
        let after = policy.exited(&config, Some(1), Duration::from_secs(31));
        assert_eq!(after, Verdict::Restart(Duration::from_millis(100)));
    }

    #[test]
    fn a_start_by_hand_forgets() {
        let config = AppConfig { max_restarts: 2, ..config("a") };
        let mut policy = Policy::default();
        policy.exited(&config, Some(1), YOUNG);
        policy.reset();
        assert!(restarts(&policy.exited(&config, Some(1), YOUNG)));
    }
}
