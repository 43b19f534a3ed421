//! What is refused, with which answer, and that the rest goes on undisturbed.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use support::{Cluster, cluster, get};

async fn refused(cluster: &Cluster, request: &[u8], status: u16) {
    let (head, body) = cluster.say(request).await;
    let shown = String::from_utf8_lossy(request);
    let shown = &shown[..shown.len().min(100)];
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    let body = String::from_utf8(body).unwrap();
    assert!(body.starts_with("{\"error\":\"") && body.ends_with("\"}"), "{shown:?}: {body}");
}

#[tokio::test]
async fn ambiguous_and_broken_requests_reach_no_worker() {
    let cluster = cluster(1, |_| {});
    for (status, request) in [
        (400, "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03"),
        (400, "nonsense\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: t\n\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: t\r\nA: b\r\n c\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        (400, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: abc\r\n\r\nabc"),
        (400, "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        (400, "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        refused(&cluster, request.as_bytes(), status).await;
    }
    assert_eq!(cluster.workers[0].requests(), 0);
    assert_eq!(cluster.front.stats().rejected_malformed, 13);
    assert_eq!(cluster.get("/page").await.1, b"0.0");
}

#[tokio::test]
async fn a_chunk_that_breaks_later_is_refused_too() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    peer.write(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    peer.write(b"zz\r\n").await.unwrap();
    let (head, _) = peer.response(false).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(peer.rest().await.is_empty());
    assert_eq!(cluster.get("/page").await.1, b"0.0", "and the leg it spoilt is not used again");
    assert_eq!(cluster.workers[0].legs(), 2);
}

#[tokio::test]
async fn heads_that_are_too_long() {
    let cluster = cluster(1, |_| {});
    let head = |length: usize| {
        let text = "GET /page HTTP/1.1\r\nHost: t\r\nCookie: ";
        format!("{text}{}\r\n\r\n", "c".repeat(length - text.len() - 4))
    };
    assert_eq!(cluster.say(head(16 * 1024).as_bytes()).await.1, b"0.0", "exactly at the limit");
    refused(&cluster, head(16 * 1024 + 1).as_bytes(), 431).await;
    refused(&cluster, head(1_000_000).as_bytes(), 431).await;
    refused(&cluster, &head(1_000_000).as_bytes()[..17_000], 431).await;
    let many = format!("GET / HTTP/1.1\r\nHost: t\r\n{}\r\n", "A: b\r\n".repeat(200));
    refused(&cluster, many.as_bytes(), 431).await;
    assert_eq!(cluster.front.stats().rejected_head_size, 4);
}

#[tokio::test]
async fn heads_and_bodies_that_are_too_slow() {
    let cluster = cluster(1, |config| {
        config.limits.head_timeout = Duration::from_millis(200);
        config.limits.idle_timeout = Duration::from_millis(600);
        config.limits.stall_timeout = Duration::from_millis(200);
    });
    let mut drip = cluster.connect().await;
    let began = std::time::Instant::now();
    let dripping = async {
        // Never quiet for long: it is the whole head that has a time.
        for byte in get("/page").bytes().cycle() {
            if drip.write(&[byte]).await.is_err() || began.elapsed() > Duration::from_millis(230) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    };
    dripping.await;
    let (head, _) = drip.response(false).await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");

    refused(&cluster, b"GET / HTTP/1.1\r\nHo", 408).await;
    refused(&cluster, b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhal", 408).await;

    let mut quiet = cluster.connect().await;
    assert!(quiet.rest().await.is_empty(), "nothing was asked, nothing is answered");
    let mut quiet = cluster.connect().await;
    quiet.ask(&get("/page")).await;
    assert!(quiet.rest().await.is_empty(), "an idle connection is closed");
    // Waiting for a worker is not idling.
    let mut waiting = cluster.connect().await;
    waiting.write(get("/hang").as_bytes()).await.unwrap();
    let rest = tokio::time::timeout(Duration::from_secs(1), waiting.rest()).await;
    assert!(rest.is_err(), "a poll has no time limit here");
}

#[tokio::test]
async fn a_half_head_and_an_end_do_not_spin() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    peer.write(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    tokio::io::AsyncWriteExt::shutdown(&mut peer.stream).await.unwrap();
    assert!(peer.rest().await.is_empty());
    support::until("it is forgotten at once", || cluster.front.stats().connections == 0).await;
}

#[tokio::test]
async fn a_head_that_waits_costs_no_cpu() {
    let cluster = cluster(1, |_| {});
    let mut peers = Vec::new();
    for _ in 0..20 {
        let mut peer = cluster.connect().await;
        // One whole request first, so that the connection knows the path of leftovers too.
        peer.write(&[get("/page").as_bytes(), b"GET / HTTP/1.1\r\nHo"].concat()).await.unwrap();
        peer.response(false).await;
        peers.push(peer);
    }
    // Polls that wait, one with the next request behind it.
    for index in 0..20 {
        let mut peer = cluster.connect().await;
        let behind = if index % 2 == 0 { get("/page") } else { String::new() };
        peer.write(&[get("/hang").as_bytes(), behind.as_bytes()].concat()).await.unwrap();
        peers.push(peer);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.worker_total_busy_duration(0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let busy = metrics.worker_total_busy_duration(0) - before;
    assert!(busy < Duration::from_millis(50), "{busy:?} of 500 ms busy with nothing to do");
}

#[tokio::test]
async fn connections_over_the_limit_are_told_so() {
    let cluster = cluster(1, |config| config.limits.max_connections = 2);
    let mut first = cluster.connect().await;
    let mut second = cluster.connect().await;
    first.ask(&get("/page")).await;
    second.ask(&get("/page")).await;
    let mut third = cluster.connect().await;
    let (head, _) = third.response(false).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    // Handed over, it is not ours any more.
    let handed = first.ask(&support::upgrade("/?EIO=4&transport=websocket")).await;
    assert!(handed.0.starts_with("HTTP/1.1 101 "));
    support::until("there is room again", || cluster.front.stats().connections == 1).await;
    assert_eq!(cluster.get("/page").await.1, b"0.0");
    assert_eq!(cluster.front.stats().rejected_connections, 1);
}

#[tokio::test]
async fn a_stopped_listener_leaves_connections_alone() {
    let cluster = cluster(1, |_| {});
    let mut peer = cluster.connect().await;
    peer.ask(&get("/page")).await;
    cluster.listener.stop();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(tokio::net::TcpStream::connect(cluster.addr).await.is_err());
    assert_eq!(peer.ask(&get("/page")).await.1, b"0.0");
}
