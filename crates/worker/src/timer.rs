//! The timer behind hyper's head timeout: one per connection, that goes on from request to request.
//!
//! hyper asks for one per head and drops it when the head is there. A timer of tokio's own would enter the runtime's wheel
//! and leave it for each request, both under a lock that all connections share. This one stays: it fires for a head of
//! long ago at most once per timeout, and is then set to what is due.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;

type Wheel = Pin<Box<tokio::time::Sleep>>;

/// The timer of one connection.
#[derive(Default)]
pub(crate) struct HeadTimer(Arc<Mutex<Option<Wheel>>>);

/// What hyper waits for.
struct Head {
    deadline: tokio::time::Instant,
    /// Set for this head or for one before it.
    wheel: Option<Wheel>,
    /// Where it goes back to.
    place: Arc<Mutex<Option<Wheel>>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let deadline = deadline.into();
        let wheel = self.0.lock().take().filter(|wheel| wheel.deadline() <= deadline);
        Box::pin(Head { deadline, wheel, place: self.0.clone() })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

impl Future for Head {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let wheel = self.wheel.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            ready!(wheel.as_mut().poll(cx));
            if wheel.deadline() >= deadline {
                return Poll::Ready(());
            }
            wheel.as_mut().reset(deadline);
        }
    }
}

impl Sleep for Head {}

impl Drop for Head {
    fn drop(&mut self) {
        *self.place.lock() = self.wheel.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_whole_time_and_no_more() {
        let timer = HeadTimer::default();
        // Heads that come after 20 s each: the timer of the first would fire in the middle of the second.
        for _ in 0..4 {
            let head = timer.sleep(TIMEOUT);
            assert!(tokio::time::timeout(Duration::from_secs(20), head).await.is_err());
        }
        let started = tokio::time::Instant::now();
        timer.sleep(TIMEOUT).await;
        let taken = started.elapsed();
        assert!(taken >= TIMEOUT && taken < TIMEOUT + Duration::from_millis(10), "{taken:?}");
        // One that has fired is no shortcut for the next.
        assert!(tokio::time::timeout(TIMEOUT - Duration::from_secs(1), timer.sleep(TIMEOUT)).await.is_err());
        // Nor is one that is set for later.
        timer.sleep(Duration::from_secs(1)).await;
        assert!(started.elapsed() < 2 * TIMEOUT + Duration::from_secs(1));
    }
}
