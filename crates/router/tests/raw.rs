//! Connections that are handed over whole, and listeners on a path.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use sundew_router::{Affinity, BackendId, Balance, HandOff, Listening, Serve};
use support::{Cluster, Peer, Worker, cluster, cluster_of, get, until, upgrade};
use tokio::net::UnixStream;

fn raw(count: u16, configure: impl FnOnce(&mut sundew_router::FrontConfig)) -> Cluster {
    cluster_of((0..count).map(Worker::new), Serve::Raw, configure)
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

fn handed(cluster: &Cluster) -> Vec<usize> {
    cluster.workers.iter().map(|worker| worker.handed.load(Ordering::SeqCst)).collect()
}

#[tokio::test]
async fn a_connection_goes_over_unread_whoever_speaks_first() {
    let cluster = raw(2, |config| config.balance = Balance::RoundRobin);
    for worker in &cluster.workers {
        worker.greets.store(true, Ordering::SeqCst);
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        let mut peer = cluster.connect().await;
        let mut greeting = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut peer.stream, &mut greeting).await.unwrap();
        // All on one connection is that worker's, whatever it asks for.
        let name = text(&greeting)[11..14].to_owned();
        for target in ["/page", "/?EIO=4&transport=polling&sid=nobodys"] {
            assert_eq!(text(&peer.ask(&get(target)).await.1), name);
        }
        seen.push(name);
    }
    seen.sort();
    assert_eq!(seen, ["0.0", "0.0", "1.0", "1.0"]);
    let stats = cluster.front.stats();
    assert_eq!((stats.raw, stats.connections, stats.proxied), (4, 0, 0));
    assert!(cluster.workers.iter().all(|worker| worker.touches.load(Ordering::SeqCst) == 2));
}

#[tokio::test]
async fn they_are_placed_by_load_or_by_address() {
    let by_load = raw(3, |_| {});
    by_load.workers[1].sessions.store(10, Ordering::SeqCst);
    for _ in 0..6 {
        by_load.connect().await.ask(&get("/page")).await;
    }
    assert_eq!(handed(&by_load), [3, 0, 3]);

    let by_address = raw(4, |config| config.affinity = Affinity::Ip);
    for _ in 0..6 {
        by_address.connect().await.ask(&get("/page")).await;
    }
    let mut counts = handed(&by_address);
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 6]);
}

#[tokio::test]
async fn another_takes_what_one_refuses_and_nobody_waits_for_ever() {
    let cluster = raw(2, |config| config.limits.no_worker_wait = Duration::from_millis(300));
    cluster.workers[0].full.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        assert_eq!(text(&cluster.connect().await.ask(&get("/page")).await.1), "1.0");
    }
    cluster.workers[1].full.store(true, Ordering::SeqCst);
    let mut waits = cluster.connect().await;
    waits.write(get("/page").as_bytes()).await.unwrap();
    until("it is held", || cluster.front.stats().connections == 1).await;
    cluster.workers[0].full.store(false, Ordering::SeqCst);
    assert_eq!(text(&waits.response(false).await.1), "0.0");
    cluster.workers[0].full.store(true, Ordering::SeqCst);
    let mut closed = cluster.connect().await;
    assert!(closed.rest().await.is_empty());
    let stats = cluster.front.stats();
    assert_eq!((stats.rejected_no_worker, stats.connections), (1, 0));
    // Nothing that failed weighs on the worker.
    let total = |slot| cluster.front.load_of(BackendId { slot, generation: 0 }).unwrap().total;
    assert_eq!((total(0), total(1)), (1, 4));
}

#[tokio::test]
async fn without_workers_it_waits_for_one() {
    let mut cluster = raw(0, |_| {});
    let mut peer = cluster.connect().await;
    peer.write(get("/page").as_bytes()).await.unwrap();
    until("it is held", || cluster.front.stats().connections == 1).await;
    cluster.add(Worker::new(7));
    assert_eq!(text(&peer.response(false).await.1), "7.0");
    until("it is held no more", || cluster.front.stats().connections == 0).await;
}

/// Listens on a path in a directory of its own.
struct Path(std::path::PathBuf);

impl Path {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sundew-router-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn listen(&self) -> Listening {
        Listening::Unix(std::os::unix::net::UnixListener::bind(&self.0).unwrap())
    }

    async fn connect(&self) -> Peer<UnixStream> {
        Peer::new(UnixStream::connect(&self.0).await.unwrap())
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_path_is_served_like_an_address() {
    let cluster = cluster(2, |_| {});
    let path = Path::new("http");
    let listener = cluster.front.listen(path.listen(), Serve::Http).unwrap();
    assert_eq!(listener.local_addr(), None);
    let sid = cluster.workers[1].sid();
    let mut peer = path.connect().await;
    assert_eq!(text(&peer.ask(&get(&format!("/?EIO=4&transport=polling&sid={sid}"))).await.1), "1.0");
    let body = vec![b'x'; 200_000];
    let post = format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    peer.write(&[post.as_bytes(), &body].concat()).await.unwrap();
    assert!(peer.response(false).await.1 == body);
    let seen = peer.ask(&get("/head")).await.1;
    assert!(!text(&seen).contains("x-forwarded-for") && !text(&seen).contains("x-sundew-peer"), "{seen:?}");
    let (head, _) = peer.ask(&upgrade(&format!("/?EIO=4&transport=websocket&sid={sid}"))).await;
    assert!(head.contains("X-Worker: 1.0"), "{head}");
    peer.write(b"frames").await.unwrap();
    let mut echo = [0; 6];
    peer.read(&mut echo).await.unwrap();
    assert_eq!(&echo, b"frames");
    assert_eq!(cluster.workers[1].handed.load(Ordering::SeqCst), 1);
    until("the front door lets go of it", || cluster.front.stats().connections == 0).await;
    // Both sides end, here as well.
    let (head, _) = path.connect().await.ask("GET / HTTP/1.1\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

#[tokio::test]
async fn a_path_is_handed_over_raw_as_well() {
    let cluster = cluster_of([Worker::new(0)], Serve::Raw, |config| config.affinity = Affinity::Ip);
    let path = Path::new("raw");
    let listener = cluster.front.listen(path.listen(), Serve::Raw).unwrap();
    let mut peer = path.connect().await;
    assert_eq!(text(&peer.ask(&get("/page")).await.1), "0.0");
    assert_eq!(handed(&cluster), [1]);
    listener.stop();
    until("it is closed", || std::os::unix::net::UnixStream::connect(&path.0).is_err()).await;
    assert_eq!(text(&peer.ask(&get("/page")).await.1), "0.0");
}

/// A worker that only collects what it is handed.
struct Collector(std::sync::Mutex<Vec<HandOff>>, BackendId);

impl sundew_router::Backend for Collector {
    fn id(&self) -> BackendId {
        self.1
    }
    fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
        self.0.lock().unwrap().push(connection);
        Ok(())
    }
    fn open_leg(&self) -> std::io::Result<sundew_router::Leg> {
        Err(std::io::ErrorKind::NotConnected.into())
    }
    fn sessions(&self) -> u32 {
        0
    }
    fn placements_seen(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn what_a_worker_gives_back_goes_to_another() {
    for serve in [Serve::Http, Serve::Raw] {
        let mut cluster =
            cluster_of([], serve.clone(), |config| config.limits.no_worker_wait = Duration::from_millis(200));
        let refuser = BackendId { slot: 0, generation: 0 };
        let collector = std::sync::Arc::new(Collector(std::sync::Mutex::default(), refuser));
        cluster.front.add(collector.clone());
        let take = || collector.0.lock().unwrap().pop();
        let begin = async || {
            let mut peer = cluster.connect().await;
            peer.write(upgrade("/?EIO=4&transport=websocket").as_bytes()).await.unwrap();
            until("it is handed over", || !collector.0.lock().unwrap().is_empty()).await;
            peer
        };
        // Nobody else is there: it waits a bounded time.
        let mut peer = begin().await;
        cluster.front.reroute(take().unwrap(), Some(refuser));
        let expected = if serve == Serve::Http { "HTTP/1.1 503 " } else { "" };
        let rest = peer.rest().await;
        assert!(text(&rest).starts_with(expected) && rest.is_empty() == expected.is_empty());
        drop(peer);
        // Without a reason not to, it may go back; but not for ever.
        let mut peer = begin().await;
        let mut times = 0;
        while peer_is_open(&cluster).await || !collector.0.lock().unwrap().is_empty() {
            if let Some(connection) = take() {
                cluster.front.reroute(connection, None);
                times += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(times < 1000);
        }
        assert!(peer.rest().await.is_empty());
        assert!(times > 10, "{times}");
        // Another is there.
        let mut peer = begin().await;
        cluster.add(Worker::new(1));
        cluster.front.reroute(take().unwrap(), Some(refuser));
        assert!(peer.response(false).await.0.contains("X-Worker: 1.0"));
    }
}

async fn peer_is_open(cluster: &Cluster) -> bool {
    cluster.front.stats().connections > 0
}
