//! Doors of single workers, and being told which one to come to.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sundew_router::{Advertise, Affinity, Balance, Listening, Serve};
use support::{Cluster, Peer, Worker, cluster, cluster_of, get, upgrade};
use tokio::net::TcpStream;

const NEW: &str = "/socket.io/?EIO=4&transport=polling";
const NEW_WS: &str = "/socket.io/?EIO=4&transport=websocket";

fn door(cluster: &Cluster, slot: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    cluster.front.listen_for(slot, Listening::Tcp(listener), Serve::Http).unwrap().local_addr().unwrap()
}

async fn at(addr: SocketAddr, request: &str) -> (String, String) {
    let (head, body) = Peer::new(TcpStream::connect(addr).await.unwrap()).ask(request).await;
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn what_is_new_goes_to_the_workers_own_and_what_exists_to_its_owner() {
    for affinity in [Affinity::Sid, Affinity::Ip, Affinity::None] {
        let cluster = cluster(3, |config| config.affinity = affinity);
        let door = door(&cluster, 1);
        for _ in 0..6 {
            assert_eq!(at(door, &get(NEW)).await.1, "1.0");
            assert_eq!(at(door, &get("/page")).await.1, "1.0");
        }
        for _ in 0..3 {
            let (head, _) = at(door, &upgrade(NEW_WS)).await;
            assert!(head.contains("X-Worker: 1.0"), "{head}");
        }
        let sid = cluster.workers[2].sid();
        assert_eq!(at(door, &get(&format!("{NEW}&sid={sid}"))).await.1, "2.0", "{affinity:?}");
        let (head, body) = at(door, &get(&format!("{NEW}&sid=nobodys"))).await;
        assert!(head.starts_with("HTTP/1.1 400") && body.contains(r#""code":1"#), "{head}{body}");
    }
}

#[tokio::test]
async fn a_learned_session_is_found_from_every_door() {
    let cluster = cluster_of((0..3).map(Worker::learning), Serve::Http, |_| {});
    let (one, two) = (door(&cluster, 1), door(&cluster, 2));
    assert!(at(one, &get(NEW)).await.1.contains(r#""sid":"s1""#));
    for addr in [one, two, cluster.addr] {
        assert_eq!(at(addr, &get(&format!("{NEW}&sid=s1"))).await.1, "1.0");
    }
}

#[tokio::test]
async fn where_a_worker_is_away_or_stuck_another_takes_what_is_new() {
    let mut cluster = cluster(2, |_| {});
    let door = door(&cluster, 1);
    cluster.workers[1].stuck.store(true, Ordering::SeqCst);
    assert_eq!(at(door, &get(NEW)).await.1, "0.0");
    cluster.workers[1].stuck.store(false, Ordering::SeqCst);
    assert_eq!(at(door, &get(NEW)).await.1, "1.0");
    // Replaced: the one that came for it.
    cluster.add(Worker::generation(1, 1));
    assert_eq!(at(door, &get(NEW)).await.1, "1.1");
    cluster.workers[2].full.store(true, Ordering::SeqCst);
    let (head, _) = at(door, &upgrade(NEW_WS)).await;
    assert!(head.contains("X-Worker: 1.0"), "{head}");
    for generation in [0, 1] {
        cluster.front.lost(sundew_router::BackendId { slot: 1, generation });
    }
    assert_eq!(at(door, &get(NEW)).await.1, "0.0");
    assert_eq!(at(door, &get("/page")).await.1, "0.0");
}

#[tokio::test]
async fn a_raw_door_is_its_workers_own_too() {
    let workers: Vec<Arc<Worker>> = (0..3).map(Worker::new).collect();
    workers.iter().for_each(|worker| worker.greets.store(true, Ordering::SeqCst));
    let cluster = cluster_of(workers, Serve::Raw, |config| config.affinity = Affinity::Ip);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let door = cluster.front.listen_for(2, Listening::Tcp(listener), Serve::Raw).unwrap();
    for _ in 0..4 {
        let mut peer = Peer::new(TcpStream::connect(door.local_addr().unwrap()).await.unwrap());
        let mut greeting = [0; 14];
        peer.read(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello from 2.0");
    }
}

fn told() -> Advertise {
    Advertise {
        path: "/.sundew/route".to_owned(),
        scheme: "http".to_owned(),
        host: None,
        base_port: 3131,
        origins: Vec::new(),
    }
}

const ROUTE: &str = "/.sundew/route";

#[tokio::test]
async fn clients_are_told_where_to_go_in_turn_and_count_until_they_come() {
    let cluster = cluster(4, |config| config.advertise = Some(told()));
    let mut ports = Vec::new();
    let mut peer = cluster.connect().await;
    for _ in 0..8 {
        let (head, body) = peer.ask(&format!("GET {ROUTE} HTTP/1.1\r\nHost: a.example:8080\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("cache-control: no-store"), "{head}");
        assert!(!head.contains("access-control"), "nobody else was allowed to ask: {head}");
        let body: String = String::from_utf8(body).unwrap();
        let port = body.split("\"port\":").nth(1).unwrap().trim_end_matches('}').parse::<u16>().unwrap();
        let wanted = format!(r#"{{"url":"http://a.example:{port}","host":"a.example","port":{port}}}"#);
        assert_eq!(body, wanted);
        ports.push(port);
    }
    ports.sort_unstable();
    assert_eq!(ports, [3131, 3131, 3132, 3132, 3133, 3133, 3134, 3134]);
    let loads = || -> Vec<u64> {
        let id = |slot| sundew_router::BackendId { slot, generation: 0 };
        (0..4).map(|slot| cluster.front.load_of(id(slot)).unwrap().total).collect()
    };
    assert_eq!(loads(), [2, 2, 2, 2], "two are expected at each");
    // One comes, and is a session on its way now, until its worker reports it.
    let door = door(&cluster, 1);
    at(door, &get(NEW)).await;
    assert_eq!(loads()[1], 2);
    // Who asks for no session keeps no promise.
    at(door, &get("/page")).await;
    assert_eq!(loads()[1], 2);
    assert!(cluster.workers.iter().all(|worker| worker.requests() < 3), "no worker was asked");
}

#[tokio::test(start_paused = true)]
async fn who_never_comes_is_forgotten() {
    let cluster = cluster(1, |config| config.advertise = Some(told()));
    let id = sundew_router::BackendId { slot: 0, generation: 0 };
    for _ in 0..100 {
        assert_eq!(cluster.front.promise(None), Some(id));
    }
    assert_eq!(cluster.front.load_of(id).unwrap().total, 100);
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(cluster.front.load_of(id).unwrap().total, 100, "it may still come");
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    assert_eq!(cluster.front.load_of(id).unwrap().total, 0);
}

#[tokio::test]
async fn other_origins_may_ask_if_they_are_listed() {
    let with = |origins: &[&str]| {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        cluster(1, |config| config.advertise = Some(Advertise { origins, ..told() }))
    };
    let ask = |method: &str, origin: &str, more: &str| {
        format!("{method} {ROUTE} HTTP/1.1\r\nHost: test\r\nOrigin: {origin}\r\n{more}\r\n")
    };
    let listed = with(&["https://a.example", "https://b.example"]);
    let (head, _) = at(listed.addr, &ask("GET", "https://b.example", "")).await;
    assert!(head.contains("access-control-allow-origin: https://b.example\r\n"), "{head}");
    assert!(head.contains("vary: origin\r\n"), "{head}");
    let (head, _) = at(listed.addr, &ask("GET", "https://c.example", "")).await;
    assert!(!head.contains("access-control-allow-origin") && head.contains("vary: origin\r\n"), "{head}");
    let more = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-mine\r\n";
    let (head, body) = at(listed.addr, &ask("OPTIONS", "https://a.example", more)).await;
    assert!(head.starts_with("HTTP/1.1 204"), "{head}");
    assert!(head.contains("access-control-allow-headers: x-mine\r\n"), "{head}");
    assert_eq!(body, "");
    let any = with(&["*"]);
    let (head, _) = at(any.addr, &ask("GET", "https://c.example", "")).await;
    assert!(head.contains("access-control-allow-origin: *\r\n") && !head.contains("vary"), "{head}");
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_with_what_does() {
    let cluster = cluster(1, |config| config.advertise = Some(told()));
    let mut peer = cluster.connect().await;
    let (head, _) = peer.ask(&format!("POST {ROUTE} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 405") && head.contains("allow: GET, HEAD, OPTIONS\r\n"), "{head}");
    let (head, body) = peer.ask(&format!("GET {ROUTE} HTTP/1.1\r\nHost: \"<b>\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("sundew.route.host"));
    let (head, _) = peer.ask(&format!("HEAD {ROUTE} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // A path that only begins so is the app's.
    assert_eq!(peer.ask(&get("/.sundew/route/x")).await.1, b"0.0");
    // With a body the connection ends after the answer: nobody reads it.
    let (head, _) =
        peer.ask(&format!("GET {ROUTE} HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc")).await;
    assert!(head.contains("connection: close"), "{head}");
}

#[tokio::test]
async fn a_worker_that_asks_for_its_page_is_told_the_same() {
    use sundew_channel::native::NoTarget;

    let silent = cluster(1, |_| {});
    assert_eq!(silent.front.tell(b"a.example", None), Err(NoTarget::Off));
    let cluster = cluster(2, |config| config.advertise = Some(told()));
    let mut ports: Vec<_> = (0..4)
        .map(|_| {
            let target = cluster.front.tell(b"a.example:8080", None).unwrap();
            assert_eq!((target.scheme.as_str(), target.host.as_str()), ("http", "a.example"));
            target.port
        })
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [3131, 3131, 3132, 3132], "they count until they come");
    assert_eq!(cluster.front.tell(b"\"<b>", None), Err(NoTarget::NoHost));
    for slot in 0..2 {
        cluster.front.drain(sundew_router::BackendId { slot, generation: 0 });
    }
    assert_eq!(cluster.front.tell(b"a.example", None), Err(NoTarget::NoWorker));
}

#[tokio::test]
async fn balance_decides_who_is_told_what() {
    let cluster = cluster(4, |config| {
        config.balance = Balance::IpHash;
        config.advertise = Some(told());
    });
    let client = Some("10.0.0.1".parse().unwrap());
    let first = cluster.front.promise(client);
    cluster.workers.iter().for_each(|worker| worker.sessions.store(100, Ordering::SeqCst));
    for _ in 0..10 {
        assert_eq!(cluster.front.promise(client), first);
    }
}
