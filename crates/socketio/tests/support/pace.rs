//! How long another client waits for its answers: in quiet times, and beside whatever a test does to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Client, PATIENCE};

const QUIET: usize = 100;

/// A client that asks for one answer after the other (of an event "ping me"), on a thread of its own.
pub struct Other {
    thread: JoinHandle<Client>,
    stop: Arc<AtomicBool>,
    /// Each answer's time, and whether it counts.
    rounds: mpsc::UnboundedReceiver<(Duration, bool)>,
    quiet: Vec<Duration>,
    beside: Vec<Duration>,
}

impl Other {
    /// Connects, and learns what is usual while nothing happens. Later rounds count if `there` is true before and after:
    /// whatever they are to be measured beside is still there.
    pub async fn connect(addr: SocketAddr, there: impl Fn() -> bool + Send + 'static) -> Other {
        let (told, rounds) = mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let mut c = Client::connect(addr, "/");
            while !stopped.load(Ordering::Relaxed) {
                let before = there();
                let started = Instant::now();
                c.send("421[\"ping me\",1]");
                c.expect("431[1]");
                let _ = told.send((started.elapsed(), before && there()));
                std::thread::sleep(Duration::from_millis(1));
            }
            c
        });
        let mut other = Other { thread, stop, rounds, quiet: Vec::new(), beside: Vec::new() };
        other.goes_on(QUIET).await;
        other.quiet = std::mem::take(&mut other.beside);
        other
    }

    /// Waits for so many more answers.
    pub async fn goes_on(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let round = tokio::time::timeout(PATIENCE, self.rounds.recv()).await;
            self.note(round.expect("the other client is not answered").expect("it goes on"));
        }
    }

    fn note(&mut self, (took, counts): (Duration, bool)) {
        // In quiet times there is nothing else to count.
        if counts || self.quiet.is_empty() {
            self.beside.push(took);
        }
    }

    /// Ends it, and compares what it has met with what was usual: the limits are what a busy machine of two cores keeps to
    /// by itself. Whoever had to wait for somebody that reads nothing would wait for seconds.
    pub async fn was_unharmed(mut self) -> Client {
        self.stop.store(true, Ordering::Relaxed);
        let client = self.thread.await.unwrap();
        while let Ok(round) = self.rounds.try_recv() {
            if round.1 {
                self.beside.push(round.0);
            }
        }
        let (mut quiet, mut beside) = (self.quiet, self.beside);
        assert!(beside.len() >= 20, "only {} rounds count", beside.len());
        quiet.sort();
        beside.sort();
        let of = |times: &[Duration], percent: usize| times[(times.len() - 1) * percent / 100];
        let (usual, met) = (of(&quiet, 50), of(&beside, 50));
        assert!(
            met < (usual * 10).max(Duration::from_millis(100)),
            "median: {usual:?} before, {met:?} beside"
        );
        // All but two: between what holds them up there are many that are fast.
        let (usual, met) = (of(&quiet, 90), beside[beside.len() - 3]);
        assert!(met < (usual * 20).max(Duration::from_millis(500)), "late: {usual:?} before, {met:?} beside");
        let longest = of(&beside, 100);
        assert!(longest < Duration::from_secs(3), "one answer took {longest:?}");
        client
    }
}
