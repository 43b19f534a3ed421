//! Reload: no failed request, and never a healthy worker for one that is not ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use sundew_supervisor::api::IfPresent;
use sundew_supervisor::ecosystem::AppConfig;

use crate::house::{House, get, runs, until};

/// Requests without a pause, some of them slow, on as many threads.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    threads: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn new(addr: std::net::SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let threads = (0..4)
            .map(|thread| {
                let (stop, answered) = (stop.clone(), answered.clone());
                std::thread::spawn(move || {
                    let path = if thread == 0 { "/slow" } else { "/" };
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match get(addr, path) {
                            Ok((200, _)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            other => failed.push(format!("{other:?}")),
                        }
                    }
                    failed
                })
            })
            .collect();
        Self { stop, answered, threads }
    }

    fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_over_many_reloads() {
    let house = House::new().await;
    house.start(house.native("app", "first", 2)).await.unwrap();
    let load = Load::new(house.addr().await);
    until("requests are answered", async || load.answered.load(Ordering::Relaxed) > 20).await;
    let before: Vec<u32> = house.list().await.iter().map(|process| process.pid).collect();
    for _ in 0..5 {
        house.reload("app", false).await.unwrap();
    }
    house.reload("app", true).await.unwrap();
    let after: Vec<u32> = house.list().await.iter().map(|process| process.pid).collect();
    assert!(!before.iter().any(|pid| after.contains(pid) || runs(*pid)));
    assert_eq!(load.failures(), Vec::<String>::new());
    for process in house.list().await {
        assert_eq!((process.sundew.generation, process.sundew.draining), (6, None));
    }
}

async fn fails(mode: &str, app: impl Fn(AppConfig) -> AppConfig, expected: &[&str]) {
    let house = House::new().await;
    let file = house.folder.join("mode");
    std::fs::write(&file, "good").unwrap();
    let app = app(house.native("app", file.to_str().unwrap(), 2));
    house.start(app).await.unwrap();
    let addr = house.addr().await;
    let before = house.list().await;
    std::fs::write(&file, mode).unwrap();
    let error = house.reload("app", false).await.unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert!(error.contains("the old workers stay"), "{error}");
    for (old, now) in before.iter().zip(house.list().await) {
        assert_eq!((old.pid, old.pm2_env.status), (now.pid, now.pm2_env.status));
    }
    assert!(get(addr, "/").unwrap().1.ends_with("good"));
    std::fs::write(&file, "better").unwrap();
    house.reload("app", true).await.unwrap();
    assert!(get(addr, "/").unwrap().1.ends_with("better"));
}

#[tokio::test]
async fn one_that_crashes_at_start_changes_nothing() {
    fails("crash", |app| app, &["exited with code 7", "no database at db:5432"]).await;
}

#[tokio::test]
async fn one_that_never_gets_ready_changes_nothing() {
    // Time enough for a good one on a busy machine.
    let app = |app| AppConfig { listen_timeout: 2500, ..app };
    fails("never ready", app, &["not ready within listen_timeout (2.5 s)"]).await;
}

#[tokio::test]
async fn a_new_file_rescales_and_a_bad_one_leaves_all_as_it_was() {
    let house = House::new().await;
    house.start(house.native("app", "first", 2)).await.unwrap();
    let addr = house.addr().await;
    house.start_as(house.native("app", "crash", 3), IfPresent::Reload).await.unwrap_err();
    assert_eq!(house.list().await.len(), 2);
    // What is started again is what ran, not what failed.
    house.reload("app", false).await.unwrap();
    assert!(get(addr, "/").unwrap().1.ends_with("first"));
    house.start_as(house.native("app", "second", 3), IfPresent::Reload).await.unwrap();
    assert_eq!(house.list().await.len(), 3);
    for _ in 0..10 {
        assert!(get(addr, "/").unwrap().1.ends_with("second"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_reload() {
    let house = House::new().await;
    let file = house.folder.join("mode");
    std::fs::write(&file, "good").unwrap();
    house.start(house.native("app", file.to_str().unwrap(), 1)).await.unwrap();
    std::fs::write(&file, "never ready").unwrap();
    let started = std::time::Instant::now();
    let (reload, ()) = tokio::join!(house.reload("app", false), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        house.stop("app").await;
    });
    assert!(reload.unwrap_err().to_string().contains("ended by another command"));
    assert!(started.elapsed() < Duration::from_secs(10), "the reload's listen_timeout was not waited for");
}
