//! What a worker says of itself counts: that it is stuck, how long it keeps legs, how it wants its heads.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sundew_router::{Abilities, Affinity, BackendId, Balance, HandOff, Serve};
use support::{Worker, cluster, cluster_of, get, until, upgrade};

const NEW: &str = "/socket.io/?EIO=4&transport=polling";
const NEW_WS: &str = "/socket.io/?EIO=4&transport=websocket";

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[tokio::test]
async fn a_stuck_worker_is_passed_over_while_there_are_others() {
    for balance in [Balance::LeastSessions, Balance::RoundRobin, Balance::Random, Balance::IpHash] {
        let cluster = cluster(2, |config| config.balance = balance);
        cluster.workers[1].sessions.store(100, Ordering::SeqCst);
        cluster.workers[0].stuck.store(true, Ordering::SeqCst);
        let stuck = cluster.workers[0].sid();
        for _ in 0..6 {
            assert_eq!(text(&cluster.get(NEW).await.1), "1.0", "{balance:?}");
            assert_eq!(text(&cluster.get("/page").await.1), "1.0", "{balance:?}");
            assert!(cluster.connect().await.ask(&upgrade(NEW_WS)).await.0.contains("X-Worker: 1.0"));
            // Its sessions are nowhere else.
            assert_eq!(text(&cluster.get(&format!("{NEW}&sid={stuck}")).await.1), "0.0");
        }
        cluster.workers[1].stuck.store(true, Ordering::SeqCst);
        let answers = [cluster.get(NEW).await.1, cluster.get("/page").await.1];
        assert!(answers.iter().all(|answer| !answer.is_empty()), "all are stuck: any is better than none");
    }
}

#[tokio::test]
async fn an_address_stays_with_its_stuck_worker_where_a_session_may_be() {
    let cluster = cluster(2, |config| config.affinity = Affinity::Ip);
    let owner = text(&cluster.get(NEW).await.1).to_owned();
    let slot: usize = owner[..1].parse().unwrap();
    cluster.workers[slot].stuck.store(true, Ordering::SeqCst);
    assert_eq!(text(&cluster.get(&format!("{NEW}&sid=a")).await.1), owner);
    assert_eq!(text(&cluster.get(NEW).await.1), owner, "its polls will come here too");
    assert_ne!(text(&cluster.get("/page").await.1), owner);
    assert!(!cluster.connect().await.ask(&upgrade(NEW_WS)).await.0.contains(&format!("X-Worker: {owner}")));
}

#[tokio::test]
async fn a_worker_is_told_when_something_comes_its_way() {
    let cluster = cluster(1, |_| {});
    let touches = || cluster.workers[0].touches.load(Ordering::SeqCst);
    cluster.get("/page").await;
    assert_eq!(touches(), 1);
    cluster.connect().await.ask(&upgrade(NEW_WS)).await;
    assert_eq!(touches(), 2);
    cluster.get(&format!("{NEW}&sid=nobodys")).await;
    assert_eq!(touches(), 2);
}

#[tokio::test]
async fn a_transparent_worker_reads_what_the_client_wrote() {
    let abilities = Abilities { transparent: true, tells_sessions: false, takes_connections: true };
    let cluster = cluster_of([Worker::with(0, 0, abilities)], Serve::Http, |_| {});
    let mut peer = cluster.connect().await;
    let local = peer.stream.local_addr().unwrap();
    let lines =
        "GET /head?a=b HTTP/1.1\r\nhOsT: t\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\n";
    let forged = "X-Sundew-Peer: 6.6.6.6:6\r\nx-sundew-other: 1\r\n";
    let seen = peer.ask(&format!("{lines}{forged}Accept: */*\r\n\r\n")).await.1;
    assert_eq!(text(&seen), format!("{lines}Accept: */*\r\nx-sundew-peer: {local}\r\n\r\n"));
    let seen = peer.ask("GET /head HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").await.1;
    assert!(
        text(&seen).contains("Connection: keep-alive\r\n"),
        "the leg is not the client's: {}",
        text(&seen)
    );
    assert_eq!(cluster.workers[0].legs(), 1);
    let request = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(cluster.say(request.as_bytes()).await.1, b"abc");
}

#[tokio::test]
async fn an_address_is_raw_where_it_is_to_be_as_a_socket_tells_it() {
    let transparent = Abilities { transparent: true, tells_sessions: false, takes_connections: true };
    for (abilities, prefix) in [(transparent, "::ffff:"), (Abilities::default(), "")] {
        let cluster = cluster_of([Worker::with(0, 0, abilities)], Serve::Http, |_| {});
        let Ok(both) = std::net::TcpListener::bind("[::]:0") else { return };
        let port = both.local_addr().unwrap().port();
        cluster.front.listen(sundew_router::Listening::Tcp(both), Serve::Http).unwrap();
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let local = stream.local_addr().unwrap().port();
        let seen = support::Peer::new(stream).ask(&get("/head")).await.1;
        let expected = if prefix.is_empty() {
            format!("x-sundew-peer: 127.0.0.1:{local}\r\n")
        } else {
            format!("x-sundew-peer: [::ffff:127.0.0.1]:{local}\r\n")
        };
        assert!(text(&seen).contains(&expected), "{}", text(&seen));
    }
}

#[tokio::test]
async fn a_leg_is_not_used_once_its_worker_may_close_it() {
    let cluster = cluster(1, |_| {});
    let legs = || cluster.workers[0].legs();
    let mut peer = cluster.connect().await;
    peer.ask(&get("/keep?keep=1000")).await;
    peer.ask(&get("/page")).await;
    assert_eq!(legs(), 1);
    // One second is all there is: nothing is left of it for us.
    peer.ask(&get("/keep?keep=1")).await;
    peer.ask(&get("/page")).await;
    assert_eq!(legs(), 2);
    // Two leave one: half of it for what must not be sent twice.
    peer.ask(&get("/keep?keep=2")).await;
    assert_eq!(legs(), 2);
    tokio::time::sleep(Duration::from_millis(550)).await;
    peer.ask("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!(legs(), 3);
    peer.ask(&get("/keep?keep=2")).await;
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let before = legs();
    peer.ask(&get("/page")).await;
    assert_eq!(legs(), before + 1);
}

#[tokio::test]
async fn what_a_closing_worker_never_read_is_sent_again_whatever_it_is() {
    let cluster = cluster(1, |_| {});
    let worker = cluster.workers[0].clone();
    let mut peer = cluster.connect().await;
    for request in ["POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello", &get("/page")] {
        peer.ask(&get("/deaf")).await;
        let retried = cluster.front.stats().retried;
        peer.write(request.as_bytes()).await.unwrap();
        let id = BackendId { slot: 0, generation: 0 };
        until("it was sent", || cluster.front.load_of(id).unwrap().requests == 1).await;
        worker.hang_up.notify_one();
        let (head, body) = peer.response(false).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(matches!(text(&body), "hello" | "0.0"));
        assert_eq!(cluster.front.stats().retried, retried + 1);
    }
    // One that it had begun to read is not: `/drop` reads it and goes.
    peer.ask(&get("/page")).await;
    let requests = worker.requests();
    let (head, _) = peer.ask("POST /drop HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!(worker.requests(), requests + 1);
}

#[tokio::test]
async fn a_session_is_not_sent_back_to_the_owner_that_refused_it() {
    let cluster = cluster(2, |_| {});
    let near = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = tokio::net::TcpStream::connect(near.local_addr().unwrap()).await.unwrap();
    let mut client = support::Peer::new(client);
    let target = format!("{NEW_WS}&sid={}", cluster.workers[0].sid());
    client.write(upgrade(&target).as_bytes()).await.unwrap();
    let (socket, peer) = near.accept().unwrap();
    let id = BackendId { slot: 0, generation: 0 };
    cluster.front.reroute(HandOff::new(socket.into(), Some(peer), false), Some(id));
    let (head, _) = client.response(false).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(cluster.workers[0].handed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nothing_is_left_of_a_front_door_that_is_dropped() {
    let cluster = cluster(1, |_| {});
    cluster.get("/page").await;
    let support::Cluster { front, mut workers, listener, .. } = cluster;
    listener.stop();
    drop(front);
    let worker = Arc::downgrade(&workers.remove(0));
    // Its sweep task, the last that knows it, ends on its own.
    until("the worker is forgotten", || worker.strong_count() == 0).await;
}

#[tokio::test]
async fn a_worker_that_listens_again_amid_its_last_requests_stays() {
    let cluster = cluster(1, |_| {});
    let id = BackendId { slot: 0, generation: 0 };
    let mut peer = cluster.connect().await;
    peer.write(b"POST /page HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    until("the request has begun", || cluster.workers[0].touches.load(Ordering::SeqCst) == 1).await;
    let front = cluster.front.clone();
    cluster.front.drain(id);
    let retired = tokio::spawn(async move { front.retire(id, Duration::from_secs(20)).await });
    tokio::task::yield_now().await;
    cluster.front.add(cluster.workers[0].clone());
    peer.write(b"cd").await.unwrap();
    let (head, _) = peer.response(false).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    retired.await.unwrap();
    assert_eq!(text(&cluster.get("/page").await.1), "0.0");
}

#[tokio::test]
async fn a_request_whose_worker_takes_no_leg_goes_to_another_at_once() {
    let cluster = cluster(2, |_| {});
    cluster.workers[0].full.store(true, Ordering::SeqCst);
    for _ in 0..6 {
        let mut peer = cluster.connect().await;
        // The front door waits for it by now, and is told of what comes once.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let answer = tokio::time::timeout(Duration::from_secs(3), peer.ask(&get("/page"))).await;
        assert_eq!(answer.expect("an answer").1, b"1.0");
    }
}
