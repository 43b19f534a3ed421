//! Who gets which request: sessions stay with their owner, new ones spread, a dead worker is never waited for.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use sundew_router::{Affinity, BackendId, Balance, HandOff};
use support::{Peer, Worker, cluster, get, until, upgrade};

const NEW: &str = "/socket.io/?EIO=4&transport=polling";
const NEW_WS: &str = "/socket.io/?EIO=4&transport=websocket";

fn poll(sid: &str) -> String {
    format!("{NEW}&sid={sid}")
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[tokio::test]
async fn one_connection_polls_two_sessions_and_upgrades_a_third() {
    let cluster = cluster(4, |_| {});
    let mut peer = cluster.connect().await;
    for _ in 0..3 {
        for slot in [1, 3] {
            let (_, body) = peer.ask(&get(&poll(&cluster.workers[slot].sid()))).await;
            assert_eq!(text(&body), format!("{slot}.0"));
            let post = format!(
                "POST {} HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
                poll(&cluster.workers[slot].sid())
            );
            assert_eq!(text(&peer.ask(&post).await.1), format!("{slot}.0"));
        }
    }
    let target = format!("{NEW_WS}&sid={}", cluster.workers[2].sid());
    let (head, _) = peer.ask(&upgrade(&target)).await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("X-Worker: 2.0"), "{head}");
    peer.write(b"frames").await.unwrap();
    let mut echo = [0; 6];
    peer.read(&mut echo).await.unwrap();
    assert_eq!(&echo, b"frames");
    assert_eq!(cluster.workers[2].handed.load(Ordering::SeqCst), 1);
    until("the front door lets go of the connection", || cluster.front.stats().connections == 0).await;
    let legs: Vec<usize> = cluster.workers.iter().map(|worker| worker.legs()).collect();
    assert_eq!(legs, [0, 1, 0, 1], "one leg each carries all requests of one client");
}

#[tokio::test]
async fn an_upgrade_in_one_byte_segments_arrives_untouched() {
    let cluster = cluster(2, |_| {});
    let mut peer = cluster.connect().await;
    let request = upgrade(NEW_WS) + "glued";
    for byte in request.as_bytes() {
        peer.write(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    let (head, _) = peer.response(false).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut got = Vec::new();
    while got.len() < 5 {
        let mut buffer = [0; 5];
        let length = peer.read(&mut buffer).await.unwrap();
        got.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(got, b"glued");
}

#[tokio::test]
async fn a_session_nobody_owns_is_refused_without_a_leg() {
    let cluster = cluster(2, |_| {});
    let gone = Worker::generation(1, 7).sid();
    let mut peer = cluster.connect().await;
    for sid in ["abc", "%00%ff", "abcdefghijklmnopqrst", &gone] {
        let request = format!("GET {} HTTP/1.1\r\nHost: test\r\nOrigin: http://a\r\n\r\n", poll(sid));
        let (head, body) = peer.ask(&request).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{sid}: {head}");
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
        assert!(head.contains("access-control-allow-origin: http://a\r\n"), "{head}");
        assert_eq!(text(&body), r#"{"code":1,"message":"Session ID unknown"}"#);
    }
    let (head, _) = peer.ask(&upgrade(&format!("{NEW_WS}&sid={gone}"))).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let post = format!("POST {} HTTP/1.1\r\nHost: t\r\nContent-Length: 500000\r\n\r\n", poll(&gone));
    let body = vec![b'x'; 500_000];
    let (head, _) = cluster.say(&[post.as_bytes(), &body].concat()).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(cluster.workers.iter().map(|worker| worker.legs()).sum::<usize>(), 0);
    assert_eq!(cluster.front.stats().rejected_unknown_sid, 6);
}

#[tokio::test]
async fn new_sessions_go_where_the_fewest_are() {
    let cluster = cluster(4, |_| {});
    cluster.workers[0].sessions.store(40, Ordering::SeqCst);
    let mut counts = [0; 4];
    for index in 0..80 {
        let answer = if index % 2 == 0 {
            text(&cluster.get(NEW).await.1).to_owned()
        } else {
            let (head, _) = cluster.connect().await.ask(&upgrade(NEW_WS)).await;
            head.split("X-Worker: ").nth(1).unwrap()[..3].to_owned()
        };
        counts[answer[..1].parse::<usize>().unwrap()] += 1;
    }
    // 120 in all: 30 each would be even, the first has 40 already.
    assert_eq!(counts[0], 0, "{counts:?}");
    assert!(counts[1..].iter().all(|count| (26..=27).contains(count)), "{counts:?}");
}

#[tokio::test]
async fn a_draining_worker_keeps_its_sessions_and_gets_no_new_ones() {
    let cluster = cluster(2, |_| {});
    cluster.front.drain(BackendId { slot: 0, generation: 0 });
    for _ in 0..6 {
        assert_eq!(text(&cluster.get(NEW).await.1), "1.0");
        assert_eq!(text(&cluster.get("/page").await.1), "1.0");
        assert_eq!(text(&cluster.get(&poll(&cluster.workers[0].sid())).await.1), "0.0");
    }
}

#[tokio::test]
async fn retiring_waits_for_requests_and_then_ends_the_legs() {
    let cluster = cluster(2, |_| {});
    let sid = cluster.workers[0].sid();
    let mut peer = cluster.connect().await;
    peer.write(get(&format!("/hang?EIO=4&transport=polling&sid={sid}")).as_bytes()).await.unwrap();
    until("the poll is with the worker", || cluster.workers[0].requests() == 1).await;
    let id = BackendId { slot: 0, generation: 0 };
    let front = cluster.front.clone();
    let short = tokio::time::timeout(Duration::from_millis(100), front.retire(id, Duration::from_secs(60)));
    assert!(short.await.is_err(), "it must wait for the poll");
    front.retire(id, Duration::from_millis(50)).await;
    let (head, body) = peer.response(false).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(text(&body), "1", "what is pending past the time gets the close packet");
    assert!(cluster.get(&poll(&sid)).await.0.starts_with("HTTP/1.1 400 "));
    // Nothing in flight: at once.
    let id = BackendId { slot: 1, generation: 0 };
    tokio::time::timeout(Duration::from_secs(5), front.retire(id, Duration::from_secs(60))).await.unwrap();
}

#[tokio::test]
async fn the_requests_of_a_dead_worker_are_answered_at_once() {
    for lost_first in [false, true] {
        let cluster = cluster(2, |_| {});
        let sid = cluster.workers[0].sid();
        let mut waiting = cluster.connect().await;
        // On a leg that was used before, as in life.
        waiting.ask(&get(&poll(&sid))).await;
        let target = format!("/hang?EIO=4&transport=polling&sid={sid}");
        waiting.write(get(&target).as_bytes()).await.unwrap();
        let mut posting = cluster.connect().await;
        let post = format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhal");
        posting.write(post.as_bytes()).await.unwrap();
        until("both are with the worker", || cluster.workers[0].requests() == 3).await;
        let id = BackendId { slot: 0, generation: 0 };
        if lost_first {
            // Told before the sockets ended: nothing may wait for them to.
            cluster.front.lost(id);
        } else {
            cluster.workers[0].kill();
            tokio::time::sleep(Duration::from_millis(30)).await;
            cluster.front.lost(id);
        }
        let (head, body) = waiting.response(false).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(text(&body), "1", "a pending poll gets the close packet");
        let (head, body) = posting.response(false).await;
        assert!(head.starts_with("HTTP/1.1 400 ") && text(&body).contains("\"code\":1"), "{head}");
        assert!(cluster.get(&poll(&sid)).await.0.starts_with("HTTP/1.1 400 "));
        assert_eq!(text(&cluster.get("/page").await.1), "1.0", "the others go on");
    }
}

#[tokio::test]
async fn what_a_worker_drops_is_tried_elsewhere_if_that_is_safe() {
    let cluster = cluster(5, |config| config.balance = Balance::RoundRobin);
    // Every worker drops it: tried on two, then told.
    let (head, body) = cluster.get("/drop").await;
    assert!(head.starts_with("HTTP/1.1 5"), "{head}");
    assert!(text(&body).contains("\"error\""), "{}", text(&body));
    let tried = cluster.workers.iter().map(|worker| worker.requests()).sum::<usize>();
    assert_eq!(tried, 2, "a GET is safe to repeat, and one that kills must not go round");
    let (head, _) = cluster.say(b"POST /drop HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    let after = cluster.workers.iter().map(|worker| worker.requests()).sum::<usize>();
    assert_eq!(after, tried + 1, "a POST is not");
}

#[tokio::test]
async fn without_workers_a_request_waits_a_bounded_time() {
    let mut cluster = cluster(0, |config| {
        config.limits.no_worker_wait = Duration::from_millis(300);
        config.limits.max_waiting = 1;
    });
    let (head, body) = cluster.get("/page").await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after:"), "{head}");
    assert!(text(&body).contains("\"error\""));

    let mut first = cluster.connect().await;
    first.write(get(NEW).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = std::time::Instant::now();
    assert!(cluster.get(NEW).await.0.starts_with("HTTP/1.1 503 "), "one too many waits");
    assert!(began.elapsed() < Duration::from_millis(200), "and is told at once");
    cluster.add(Worker::new(0));
    assert_eq!(text(&first.response(false).await.1), "0.0", "who waited gets the new worker");
}

#[tokio::test]
async fn a_worker_that_cannot_take_a_connection_is_passed_over() {
    let cluster = cluster(2, |config| config.limits.no_worker_wait = Duration::from_millis(200));
    cluster.workers[0].full.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        let (head, _) = cluster.connect().await.ask(&upgrade(NEW_WS)).await;
        assert!(head.contains("X-Worker: 1.0"), "{head}");
        assert_eq!(text(&cluster.get("/page").await.1), "1.0");
    }
    let (head, _) = cluster.get(&poll(&cluster.workers[0].sid())).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "its own sessions wait for it, bounded: {head}");
    let target = format!("{NEW_WS}&sid={}", cluster.workers[0].sid());
    let mut waiting = cluster.connect().await;
    waiting.write(upgrade(&target).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.workers[0].full.store(false, Ordering::SeqCst);
    assert!(waiting.response(false).await.0.contains("X-Worker: 0.0"));
}

#[tokio::test]
async fn a_connection_that_comes_back_is_routed_again() {
    let cluster = cluster(1, |_| {});
    let near = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for read_by_worker in [false, true] {
        let client = tokio::net::TcpStream::connect(near.local_addr().unwrap()).await.unwrap();
        let mut client = support::Peer::new(client);
        client.write(upgrade(NEW_WS).as_bytes()).await.unwrap();
        let (socket, peer) = near.accept().unwrap();
        if read_by_worker {
            std::io::Read::read(&mut &socket, &mut [0; 1000]).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        cluster.front.reroute(HandOff::new(socket.into(), Some(peer), true), None);
        if read_by_worker {
            assert!(client.rest().await.is_empty());
        } else {
            assert!(client.response(false).await.0.starts_with("HTTP/1.1 101 "));
        }
    }
    assert_eq!(cluster.front.stats().rerouted, 1);
}

#[tokio::test]
async fn affinity_to_the_address_and_to_the_connection() {
    let by_address = cluster(4, |config| config.affinity = Affinity::Ip);
    let owner = text(&by_address.get(NEW).await.1).to_owned();
    for index in 0..8 {
        let target = if index % 2 == 0 { NEW.to_owned() } else { poll("whatever") };
        assert_eq!(text(&by_address.get(&target).await.1), owner);
    }

    let by_connection = cluster(4, |config| config.affinity = Affinity::None);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..8 {
        let mut peer = by_connection.connect().await;
        let first = peer.ask(&get(NEW)).await.1;
        assert_eq!(peer.ask(&get(&poll(&by_connection.workers[3].sid()))).await.1, first);
        seen.insert(first);
    }
    assert!(seen.len() > 1, "another connection, another worker: the failure on purpose");
}

#[tokio::test]
async fn each_in_turn_and_at_random() {
    for (balance, least, most) in [(Balance::RoundRobin, 25, 25), (Balance::Random, 10, 45)] {
        let cluster = cluster(4, |config| config.balance = balance);
        let mut counts = std::collections::HashMap::<Vec<u8>, u32>::new();
        for _ in 0..100 {
            // Both kinds in a regular mix.
            *counts.entry(cluster.get(NEW).await.1).or_default() += 1;
            cluster.get("/page").await;
        }
        assert_eq!(counts.len(), 4, "{balance:?}: {counts:?}");
        assert!(counts.values().all(|count| (least..=most).contains(count)), "{balance:?}: {counts:?}");
    }
}

#[tokio::test]
async fn an_address_that_hashes_is_bounded() {
    let cluster = cluster(4, |config| config.balance = Balance::IpHash);
    let mut counts = std::collections::HashMap::<Vec<u8>, u32>::new();
    for _ in 0..100 {
        *counts.entry(cluster.get(NEW).await.1).or_default() += 1;
    }
    assert_eq!(counts.len(), 4, "{counts:?}");
    assert!(counts.values().all(|count| *count <= 32), "1.25 of 25: {counts:?}");
}

#[tokio::test]
async fn a_request_of_another_node_keeps_its_client_and_that_it_came_by_tls() {
    let cluster = cluster(1, |_| {});
    for (said, proto, peer) in [
        ("10.1.2.3:444; tls", "https", "10.1.2.3:444"),
        ("10.1.2.3:444", "http", "10.1.2.3:444"),
        ("[fe80::7]:5; tls", "https", "[fe80::7]:5"),
    ] {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).unwrap();
        }
        cluster.front.serve_node(theirs.into()).unwrap();
        let mut node = Peer::new(tokio::net::UnixStream::from_std(ours).unwrap());
        // One connection carries requests of many clients.
        let other = "GET /head HTTP/1.1\r\nHost: t\r\nx-sundew-peer: 9.9.9.9:9; tls\r\n\r\n";
        node.ask(other).await;
        let request = format!("GET /head HTTP/1.1\r\nHost: t\r\nx-sundew-peer: {said}\r\n\r\n");
        let (_, seen) = node.ask(&request).await;
        let seen = text(&seen);
        assert!(seen.contains(&format!("x-forwarded-proto: {proto}\r\n")), "{said}: {seen}");
        assert!(seen.contains(&format!("x-sundew-peer: {peer}\r\n")), "{said}: {seen}");
    }
}
