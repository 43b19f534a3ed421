//! Ids of requests: made here, or taken over from who is trusted, and what the worker sees is what the log says.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use sundew_router::{AccessLog, TrustedProxies};
use support::{Cluster, cluster};

/// What the worker saw of one request with these headers.
async fn seen(cluster: &Cluster, headers: &str) -> Vec<String> {
    let request = format!("GET /head HTTP/1.1\r\nHost: t\r\n{headers}\r\n");
    let (_, body) = cluster.connect().await.ask(&request).await;
    let lines = std::str::from_utf8(&body).unwrap().to_lowercase();
    let ids = lines.lines().filter_map(|line| line.strip_prefix("x-request-id: "));
    ids.map(str::to_owned).collect()
}

#[tokio::test]
async fn each_request_has_one_and_the_log_knows_it() {
    let (log, mut entries, _) = AccessLog::new();
    let cluster = cluster(1, |config| {
        config.request_id = true;
        config.access_log = Some(log);
    });
    let mut before = Vec::new();
    for headers in ["", "X-Request-Id: mine\r\n", "x-request-id: a\r\nX-Request-ID: b\r\n"] {
        let ids = seen(&cluster, headers).await;
        assert_eq!(ids.len(), 1, "{headers:?}: {ids:?}");
        assert!(ids[0].len() > 17 && !before.contains(&ids[0]), "{headers:?}: {ids:?}");
        assert_eq!(entries.recv().await.unwrap().id.as_deref(), Some(&*ids[0]));
        before.extend(ids);
    }
    // On one connection too.
    let mut peer = cluster.connect().await;
    for _ in 0..2 {
        peer.ask("GET /head HTTP/1.1\r\nHost: t\r\n\r\n").await;
        let id = entries.recv().await.unwrap().id.unwrap().into_string();
        assert!(!before.contains(&id));
        before.push(id);
    }
}

#[tokio::test]
async fn a_trusted_proxys_is_kept_and_nobody_elses() {
    let trusting = cluster(1, |config| {
        config.request_id = true;
        config.trusted_proxies = TrustedProxies::parse(&["loopback"]).unwrap();
    });
    assert_eq!(seen(&trusting, "X-Request-Id: from-nginx-7\r\n").await, ["from-nginx-7"]);
    let replaced = seen(&trusting, "X-Request-Id: two words\r\n").await;
    assert!(replaced.len() == 1 && !replaced[0].contains(' '), "{replaced:?}");
    // Off: the client's header is between it and the program.
    let off = cluster(1, |_| {});
    assert_eq!(seen(&off, "X-Request-Id: two words\r\n").await, ["two words"]);
    assert!(seen(&off, "").await.is_empty());
}
