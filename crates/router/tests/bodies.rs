//! Bodies of any kind and size go through byte-exact, both ways, and nothing of one request is taken for another's.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::{Peer, cluster, get, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that repeat nowhere within reach, so that any slip shows.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in body.chunks(size) {
        out.extend_from_slice(format!("{:X};ext\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn same(got: &[u8], sent: &[u8], what: &str) {
    let at = got.iter().zip(sent).position(|(got, sent)| got != sent);
    assert!(got == sent, "{what}: {} bytes of {}, first difference at {at:?}", got.len(), sent.len());
}

/// Sends while receiving: a body larger than all buffers on the way must not wait for its own answer.
async fn exchange(peer: Peer<tokio::net::TcpStream>, request: Vec<u8>) -> (String, Vec<u8>) {
    let (read, mut write) = peer.stream.into_split();
    let sending = tokio::spawn(async move {
        write.write_all(&request).await.unwrap();
        write
    });
    let mut peer = Peer::new(tokio::io::join(read, tokio::io::sink()));
    let response = peer.response(false).await;
    sending.await.unwrap();
    response
}

#[tokio::test]
async fn ten_megabytes_both_ways_with_length_and_in_chunks() {
    let cluster = cluster(1, |_| {});
    let body = noise(10 * 1024 * 1024 + 1);
    for path in ["/echo", "/chunked"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
        let request = [head.as_bytes(), &body].concat();
        let (head, got) = exchange(cluster.connect().await, request).await;
        same(&got, &body, &format!("{path} with a length: {head}"));
        for size in [1000, 99_999] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
            let request = [head.as_bytes(), &chunked(&body, size)].concat();
            let (head, got) = exchange(cluster.connect().await, request).await;
            same(&got, &body, &format!("{path} in chunks of {size}: {head}"));
        }
    }
    assert_eq!(cluster.workers[0].legs(), 1, "every one of them left the leg usable");
}

#[tokio::test]
async fn one_byte_segments() {
    let cluster = cluster(1, |_| {});
    let body = noise(300);
    let with_length = [b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 300\r\n\r\n", &body[..]].concat();
    let in_chunks =
        [b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n", &chunked(&body, 7)[..]]
            .concat();
    let mut peer = cluster.connect().await;
    peer.stream.set_nodelay(true).unwrap();
    for request in [with_length, in_chunks] {
        for byte in &request {
            peer.write(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        assert_eq!(peer.response(false).await.1, body);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let cluster = cluster(2, |_| {});
    let mut all = Vec::new();
    for index in 0..20 {
        let body = noise(index * 50);
        match index % 3 {
            0 => {
                all.extend_from_slice(
                    format!(
                        "POST /echo?{index} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    )
                    .as_bytes(),
                );
                all.extend_from_slice(&body);
            }
            1 => {
                all.extend_from_slice(
                    b"POST /chunked HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n",
                );
                all.extend_from_slice(&chunked(&body, 13));
            }
            _ => all.extend_from_slice(get(&format!("/head?{index}")).as_bytes()),
        }
    }
    all.extend_from_slice(support::upgrade("/socket.io/?EIO=4&transport=websocket").as_bytes());
    let mut peer = cluster.connect().await;
    peer.write(&all).await.unwrap();
    for index in 0..20 {
        let (_, body) = peer.response(false).await;
        match index % 3 {
            2 => assert!(String::from_utf8_lossy(&body).starts_with(&format!("GET /head?{index} "))),
            _ => assert_eq!(body, noise(index * 50), "{index}"),
        }
    }
    assert!(peer.response(false).await.0.starts_with("HTTP/1.1 101 "), "and the last one is handed over");
}

#[tokio::test]
async fn a_pipelined_request_behind_a_poll_that_waits_costs_nothing() {
    let cluster = cluster(1, |_| {});
    let sid = cluster.workers[0].sid();
    let mut peer = cluster.connect().await;
    let poll = get(&format!("/hang?EIO=4&transport=polling&sid={sid}"));
    peer.write(&[poll.as_bytes(), get("/page").as_bytes()].concat()).await.unwrap();
    until("the poll is with the worker", || cluster.workers[0].requests() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(cluster.workers[0].requests(), 1, "the second waits for the first");
    drop(peer);
    until("the leg is closed", || cluster.workers[0].aborted.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_leg_along() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    peer.write(get("/hang").as_bytes()).await.unwrap();
    until("the request is with the worker", || cluster.workers[0].requests() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(peer);
    until("the leg is closed", || cluster.workers[0].aborted.load(Ordering::SeqCst) == 1).await;
    assert_eq!(cluster.front.stats().client_gone, 1);
    until("the connection is forgotten", || cluster.front.stats().connections == 0).await;
}

#[tokio::test]
async fn a_client_that_ends_its_side_with_its_request_is_answered() {
    let cluster = cluster(1, |_| {});
    for _ in 0..20 {
        let mut peer = cluster.connect().await;
        // Two of them: the second is read when the end is long known.
        peer.write(&[get("/page"), get("/page")].concat().into_bytes()).await.unwrap();
        peer.stream.shutdown().await.unwrap();
        let rest = String::from_utf8(peer.rest().await).unwrap();
        assert_eq!(rest.matches("HTTP/1.1 200 ").count(), 2, "{rest}");
    }
}

#[tokio::test]
async fn responses_without_a_body() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    for _ in 0..2 {
        let (head, body) = peer.ask("HEAD /page HTTP/1.1\r\nHost: t\r\n\r\n").await;
        assert!(head.contains("content-length: 3\r\n") && body.is_empty(), "{head}");
        assert!(peer.ask(&get("/204")).await.0.starts_with("HTTP/1.1 204 "));
        assert!(peer.ask(&get("/304")).await.0.starts_with("HTTP/1.1 304 "));
        assert_eq!(peer.ask(&get("/page")).await.1, b"0.0");
    }
    assert_eq!(cluster.workers[0].legs(), 1);
}

#[tokio::test]
async fn expect_continue() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    let request = "POST /continue HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let (head, _) = peer.ask(request).await;
    assert!(head.starts_with("HTTP/1.1 100 "), "{head}");
    peer.write(b"body").await.unwrap();
    assert_eq!(peer.response(false).await.1, b"body");
    assert_eq!(peer.ask(&get("/page")).await.1, b"0.0");
}

#[tokio::test]
async fn an_answer_that_comes_early_reaches_the_client() {
    let cluster = cluster(1, |_| {});
    let body = noise(3_000_000);
    let head = format!("POST /early HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    let (head, answer) = exchange(cluster.connect().await, [head.as_bytes(), &body].concat()).await;
    assert!(head.starts_with("HTTP/1.1 413 ") && head.contains("connection: close"), "{head}");
    assert_eq!(answer, b"big");
    // Chunked, and the client waits with the rest until it has an answer.
    let mut peer = cluster.connect().await;
    peer.write(b"POST /early HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        .await
        .unwrap();
    assert!(peer.response(false).await.0.starts_with("HTTP/1.1 413 "));
    assert!(peer.rest().await.is_empty());
}

#[tokio::test]
async fn old_clients_and_old_workers() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    peer.write(b"POST /chunked HTTP/1.0\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello")
        .await
        .unwrap();
    let answer = String::from_utf8(peer.rest().await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("chunked") && head.contains("connection: close"), "{head}");
    assert_eq!(body, "hello", "without its chunks, and the end of the connection is its end");

    let mut peer = cluster.connect().await;
    for _ in 0..2 {
        let (head, _) = peer.ask("GET /page HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert!(head.contains("connection: keep-alive"), "{head}");
    }
    peer.ask("GET /page HTTP/1.0\r\n\r\n").await;
    assert!(peer.rest().await.is_empty());

    assert_eq!(cluster.get("/until-end").await.1, b"all of it");
}

#[tokio::test]
async fn a_worker_that_breaks_off_or_speaks_nonsense() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    peer.write(get("/cut").as_bytes()).await.unwrap();
    let all = peer.rest().await;
    assert!(
        all.ends_with(b"\r\n\r\nhalf"),
        "the client sees that it is cut: {}",
        String::from_utf8_lossy(&all)
    );
    let (head, _) = cluster.get("/nonsense").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

#[tokio::test]
async fn a_stale_leg_costs_nothing() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    for round in 1..=5 {
        assert_eq!(peer.ask(&get("/once")).await.1, b"0.0");
        // A POST too: that the leg is dead shows before anything is sent.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let post = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(peer.ask(post).await.1, b"hi");
        assert_eq!(cluster.workers[0].requests(), 2 * round, "and nothing is done twice");
    }
}

#[tokio::test]
async fn other_upgrades_run_through_a_leg() {
    let cluster = cluster(1, |_| {});
    for request in [
        support::upgrade("/graphql"),
        "GET /x HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n".into(),
    ] {
        let mut peer = cluster.connect().await;
        let (head, _) = peer.ask(&request).await;
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: x"), "{head}");
        let body = noise(1_000_000);
        let (mut read, mut write) = peer.stream.into_split();
        let sent = body.clone();
        let sending = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut echo = Vec::new();
        read.read_to_end(&mut echo).await.unwrap();
        sending.await.unwrap();
        same(&echo, &body, "both ways, and the end too");
    }
    assert_eq!(cluster.workers[0].handed.load(Ordering::SeqCst), 0);
    // Refused: the connection goes on.
    let mut peer = cluster.connect().await;
    let (head, _) =
        peer.ask("GET /204 HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert_eq!(peer.ask(&get("/page")).await.1, b"0.0");
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_worker_and_not_the_front_door() {
    let cluster = cluster(1, |config| config.limits.stall_timeout = Duration::from_millis(500));
    let body = noise(20_000_000);
    let head = format!("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut peer = cluster.connect().await;
    peer.write(head.as_bytes()).await.unwrap();
    peer.write(&body).await.unwrap();
    // Never reads. Others are served, and it is given up on.
    assert_eq!(cluster.get("/page").await.1, b"0.0");
    until("it is given up on", || cluster.front.stats().connections == 0).await;
    assert_eq!(cluster.front.stats().rejected_slow, 1);
}

#[tokio::test]
async fn a_body_in_drops_is_given_up_on_and_one_that_is_merely_slow_is_not() {
    let cluster = cluster(1, |config| {
        config.limits.body_timeout = Duration::from_millis(300);
        config.limits.body_rate = 1000;
    });
    let mut drip = cluster.connect().await;
    drip.write(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
    let began = std::time::Instant::now();
    // Never quiet for as long as it may stall.
    while cluster.front.stats().rejected_slow == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "it is given up on");
        let _ = drip.write(b"x").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
    let (head, _) = drip.response(false).await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");

    // Slower than that altogether, but with more bytes than it needs: each 1000 earn a second.
    let mut slow = cluster.connect().await;
    slow.write(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 16000\r\n\r\n").await.unwrap();
    for _ in 0..16 {
        slow.write(&[b'y'; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let (head, body) = slow.response(false).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body.len() == 16_000, "{head}");
}

#[tokio::test]
async fn the_worker_sees_the_client() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    let local = peer.stream.local_addr().unwrap();
    let request =
        "GET /head HTTP/1.1\r\nHost: t\r\nX-Sundew-Peer: 1.2.3.4:5\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n";
    let seen = String::from_utf8(peer.ask(request).await.1).unwrap();
    assert!(seen.contains(&format!("x-sundew-peer: {local}\r\n")), "{seen}");
    assert!(seen.contains("x-forwarded-for: 9.9.9.9, 127.0.0.1\r\n"), "{seen}");
    assert!(!seen.contains("1.2.3.4"), "{seen}");
    let seen = String::from_utf8(peer.ask(&get("/head?EIO=4&transport=polling")).await.1).unwrap();
    assert!(seen.contains(&format!("x-sundew-peer: {local}; place\r\n")), "a new session is marked: {seen}");
}
