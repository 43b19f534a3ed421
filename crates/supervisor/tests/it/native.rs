//! Native workers: one address for all, and what goes wrong with it.

use sundew_supervisor::api::{IfPresent, Status};
use sundew_supervisor::ecosystem::AppConfig;

use crate::house::{House, get, until};

#[tokio::test]
async fn all_workers_share_one_address() {
    let house = House::new().await;
    let processes = house.start(house.native("app", "first", 3)).await.unwrap();
    assert!(processes.iter().all(|process| process.pm2_env.status == Status::Online));
    assert!(processes.iter().all(|process| process.sundew.listening == processes[0].sundew.listening));
    let addr = house.addr().await;
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let (status, body) = get(addr, "/").unwrap();
        assert_eq!(status, 200);
        pids.insert(body.split(' ').next().unwrap().parse::<u32>().unwrap());
    }
    let running: std::collections::BTreeSet<u32> = processes.iter().map(|process| process.pid).collect();
    assert!(pids.is_subset(&running), "{pids:?} of {running:?}");
    house.stop("all").await;
    assert!(get(addr, "/").is_err(), "nobody listens for a stopped app");
}

#[tokio::test]
async fn a_port_that_is_taken_is_no_crash_loop() {
    let house = House::new().await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut app = house.native("app", "first", 2);
    app.env.insert("ADDR".to_owned(), holder.local_addr().unwrap().to_string());
    let error = house.start(app).await.unwrap_err().to_string();
    assert!(error.contains("another program listens on port"), "{error}");
    for id in [0, 1] {
        let process = house.until_status(id, Status::Errored).await;
        assert_eq!(process.pm2_env.restart_time, 0);
        assert!(process.sundew.reason.unwrap().contains("another program listens on port"));
    }
}

#[tokio::test]
async fn two_apps_on_one_port() {
    let house = House::new().await;
    house.start(house.native("first", "first", 1)).await.unwrap();
    let addr = house.addr().await;
    let mut second = house.native("second", "second", 1);
    second.env.insert("ADDR".to_owned(), addr.to_string());
    let error = house.start(second).await.unwrap_err().to_string();
    assert!(error.contains("the app \"first\" of this daemon listens there already"), "{error}");
    assert_eq!(get(addr, "/").unwrap().0, 200, "the first one is not disturbed");
}

#[tokio::test]
async fn one_that_binds_by_itself_is_told_so() {
    let house = House::new().await;
    let app = AppConfig { listen_timeout: 500, ..house.native("own", "by itself", 1) };
    let error = house.start(app).await.unwrap_err().to_string();
    assert!(error.contains("by itself") && error.contains("sundew::Listener"), "{error}");
    house.until_status(0, Status::Errored).await;
}

#[tokio::test]
async fn one_that_dies_at_once_says_its_last_words() {
    let house = House::new().await;
    let app = AppConfig { restart_delay: 10_000, ..house.native("dies", "crash", 1) };
    let error = house.start(app).await.unwrap_err().to_string();
    assert!(error.contains("exited with code 7") && error.contains("no database at db:5432"), "{error}");
    house.until_status(0, Status::WaitingRestart).await;
}

#[tokio::test]
async fn a_killed_worker_costs_no_later_request() {
    let house = House::new().await;
    house.start(house.native("app", "first", 2)).await.unwrap();
    let addr = house.addr().await;
    let victim = house.process(0).await.pid;
    let pid = rustix::process::Pid::from_raw(victim.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("its end is noticed", async || house.process(0).await.pid != victim).await;
    for _ in 0..20 {
        assert_eq!(get(addr, "/").unwrap().0, 200);
    }
    let process = house.until_status(0, Status::Online).await;
    assert_eq!(process.sundew.generation, 1);
}

#[tokio::test]
async fn a_restart_of_the_only_worker_refuses_nobody() {
    let house = House::new().await;
    house.start(house.native("app", "first", 1)).await.unwrap();
    let addr = house.addr().await;
    let requests = tokio::task::spawn_blocking(move || {
        (0..100).map(|_| get(addr, "/").map(|(status, _)| status)).collect::<std::io::Result<Vec<_>>>()
    });
    house.start_as(house.native("app", "second", 1), IfPresent::Restart).await.unwrap();
    assert!(requests.await.unwrap().unwrap().iter().all(|status| *status == 200));
    assert!(get(addr, "/").unwrap().1.ends_with("second"));
    let refused = house.start_as(house.native("app", "third", 1), IfPresent::Refuse).await.unwrap_err();
    assert!(refused.to_string().contains("-f"), "{refused}");
}
