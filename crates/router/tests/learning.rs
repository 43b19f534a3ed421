//! Sessions of workers that write no tag into their ids: learned from the answer to the handshake, before the client has it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sundew_router::{Abilities, BackendId, Serve};
use support::{Cluster, Worker, cluster_of, get, open_packet, until, upgrade};

const NEW: &str = "/socket.io/?EIO=4&transport=polling";
const NEW_WS: &str = "/socket.io/?EIO=4&transport=websocket";

fn learning(count: u16) -> Cluster {
    cluster_of((0..count).map(Worker::learning), Serve::Http, |_| {})
}

fn id(slot: u16) -> BackendId {
    BackendId { slot, generation: 0 }
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

/// The session id in an open packet.
fn sid(body: &[u8]) -> String {
    text(body).split(r#""sid":""#).nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn learned(cluster: &Cluster) -> Vec<u32> {
    cluster
        .workers
        .iter()
        .map(|worker| cluster.front.learned(BackendId { slot: slot(worker), generation: 0 }))
        .collect()
}

fn slot(worker: &Arc<Worker>) -> u16 {
    sundew_router::Backend::id(&**worker).slot
}

#[tokio::test]
async fn who_opened_a_session_gets_its_requests() {
    let cluster = learning(4);
    let mut sids = Vec::new();
    for _ in 0..4 {
        let (head, body) = cluster.get(NEW).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        sids.push(sid(&body));
    }
    // Each counts at once, so that the next goes elsewhere.
    assert_eq!(learned(&cluster), [1, 1, 1, 1]);
    let mut peer = cluster.connect().await;
    for _ in 0..3 {
        for sid in &sids {
            let owner = format!("{}.0", &sid[1..]);
            let poll = format!("{NEW}&sid={sid}");
            assert_eq!(text(&peer.ask(&get(&poll)).await.1), owner);
            let post = format!("POST {poll} HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
            assert_eq!(text(&peer.ask(&post).await.1), owner);
            let options = format!("OPTIONS {poll} HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(text(&peer.ask(&options).await.1), owner);
        }
    }
    assert!(peer.ask(&get(&format!("{NEW}&sid=never"))).await.0.starts_with("HTTP/1.1 400 "));
    let stats = cluster.front.stats();
    assert_eq!((stats.learned, stats.rejected_unknown_sid), (4, 1));
}

#[tokio::test]
async fn every_dialect_however_its_answer_is_cut() {
    let packet = open_packet("ab/c?d=e");
    let payload = format!("{}:{packet}2:40", packet.len());
    let mut binary = vec![0];
    binary.extend(packet.len().to_string().bytes().map(|digit| digit - b'0'));
    binary.push(255);
    binary.extend_from_slice(packet.as_bytes());
    let script = format!("___eio[0](\"{}\");", packet.replace('"', "\\\""));
    let bodies: [(&str, Vec<u8>); 4] = [
        ("/?EIO=4&transport=polling", packet.into_bytes()),
        ("/?EIO=3&transport=polling&b64=1", payload.into_bytes()),
        ("/?EIO=3&transport=polling", binary),
        ("/?EIO=4&transport=polling&j=0", script.into_bytes()),
    ];
    let cluster = learning(2);
    for (target, body) in bodies {
        let length = body.len();
        let plain =
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes(), &body].concat();
        let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body.chunks(7) {
            chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunked.extend_from_slice(chunk);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        for response in [plain, chunked] {
            let step = response.len() / 9;
            let cuts = (0..response.len()).step_by(step.max(1));
            let mut ways: Vec<Vec<Vec<u8>>> =
                cuts.map(|at| vec![response[..at].to_vec(), response[at..].to_vec()]).collect();
            ways.push(response.iter().map(|byte| vec![*byte]).collect());
            for pieces in ways {
                let last = &cluster.workers[1];
                *last.handshake.lock().unwrap() =
                    pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
                cluster.workers[0].sessions.store(1000, Ordering::SeqCst);
                let (_, got) = cluster.get(target).await;
                assert!(got == body, "{target}: {:?}", String::from_utf8_lossy(&got));
                let poll = format!("{target}&sid=ab%2Fc%3Fd%3De");
                let (head, got) = cluster.get(&poll).await;
                assert_eq!(text(&got), "1.0", "{target}: {head}");
                // The worker says that it is over: the next round learns it anew.
                let over = format!("/unknown{}&sid=ab%2Fc%3Fd%3De", &target[1..]);
                assert!(cluster.get(&over).await.0.starts_with("HTTP/1.1 400 "));
                assert_eq!(learned(&cluster), [0, 0]);
            }
        }
    }
}

#[tokio::test]
async fn session_ids_of_all_sorts() {
    let cluster = learning(2);
    cluster.workers[0].sessions.store(1000, Ordering::SeqCst);
    for (json, query) in [
        ("user:1/2?x=y&z#", "user%3A1%2F2%3Fx%3Dy%26z%23"),
        ("with space+plus", "with%20space%2Bplus"),
        ("ünï", "%C3%BCn%C3%AF"),
        (r#"q\"uote"#, "q%22uote"),
        ("x", "x"),
    ] {
        cluster.workers[1].opens(json);
        cluster.get(NEW).await;
        assert_eq!(text(&cluster.get(&format!("{NEW}&sid={query}")).await.1), "1.0", "{json}");
    }
    let long = "long".repeat(900);
    cluster.workers[1].opens(&long);
    cluster.get(NEW).await;
    assert_eq!(text(&cluster.get(&format!("{NEW}&sid={long}")).await.1), "1.0");
}

#[tokio::test]
async fn the_answer_is_held_back_only_as_long_as_it_may_teach() {
    let cluster = learning(1);
    // A stream without end that is no handshake: it goes through once it is too long to be one.
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
    *cluster.workers[0].handshake.lock().unwrap() = vec![head, vec![b'x'; 3000], vec![b'x'; 3000]];
    let mut peer = cluster.connect().await;
    peer.write(get(NEW).as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 8192];
    while got.len() < 6000 {
        let read = tokio::time::timeout(Duration::from_secs(20), peer.read(&mut buffer)).await;
        got.extend_from_slice(&buffer[..read.expect("it is let through").unwrap()]);
    }
    // One without a length ends with its connection.
    let body = open_packet("until-end");
    *cluster.workers[0].handshake.lock().unwrap() =
        vec![b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), body.clone().into_bytes()];
    let mut peer = cluster.connect().await;
    peer.write(get(NEW).as_bytes()).await.unwrap();
    until("it is learned", || cluster.front.learned(id(0)) == 1).await;
    // A refusal teaches nothing, whatever it says.
    let refusal = format!("HTTP/1.1 403 No\r\nContent-Length: {}\r\n\r\n{}", body.len(), body);
    *cluster.workers[0].handshake.lock().unwrap() = vec![refusal.into_bytes()];
    assert!(cluster.get(NEW).await.0.starts_with("HTTP/1.1 403 "));
    assert_eq!(cluster.front.stats().learned, 1);
    let load = cluster.front.load_of(id(0)).unwrap();
    assert_eq!((load.learned, load.relayed), (1, 0));
}

#[tokio::test]
async fn only_a_handshake_loses_its_accept_encoding() {
    let cluster = learning(1);
    cluster.workers[0].handshake.lock().unwrap().clear();
    let ask = async |target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n");
        String::from_utf8(cluster.connect().await.ask(&request).await.1).unwrap()
    };
    assert!(!ask("/head?EIO=4&transport=polling").await.contains("gzip"));
    assert!(ask("/head").await.contains("gzip"));
    cluster.workers[0].opens("a");
    cluster.get(NEW).await;
    assert!(ask("/head?EIO=4&transport=polling&sid=a").await.contains("gzip"));
}

#[tokio::test]
async fn an_upgraded_session_is_the_workers_to_count() {
    let cluster = learning(2);
    let own = sid(&cluster.get(NEW).await.1);
    let slot: u16 = own[1..].parse().unwrap();
    assert_eq!(cluster.front.learned(id(slot)), 1);
    let (head, _) = cluster.connect().await.ask(&upgrade(&format!("{NEW_WS}&sid={own}"))).await;
    assert!(head.contains(&format!("X-Worker: {slot}.0")), "{head}");
    assert_eq!(cluster.workers[usize::from(slot)].handed.load(Ordering::SeqCst), 1);
    until("it does not count", || cluster.front.learned(id(slot)) == 0).await;
    // What comes late still finds it.
    assert_eq!(text(&cluster.get(&format!("{NEW}&sid={own}")).await.1), format!("{slot}.0"));
    assert_eq!(cluster.front.learned(id(slot)), 0);
}

#[tokio::test]
async fn a_session_that_ends_is_forgotten() {
    let cluster = learning(1);
    for (name, request) in [
        ("poll", "GET /over?EIO=4&transport=polling&sid=s0 HTTP/1.1\r\nHost: t\r\n\r\n"),
        ("unknown", "GET /unknown?EIO=4&transport=polling&sid=s0 HTTP/1.1\r\nHost: t\r\n\r\n"),
        (
            "post",
            "POST /echo?EIO=4&transport=polling&sid=s0 HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n1",
        ),
        (
            "post 3",
            "POST /echo?EIO=3&transport=polling&sid=s0 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n1:1",
        ),
    ] {
        cluster.get(NEW).await;
        assert_eq!(cluster.front.learned(id(0)), 1);
        cluster.get("/over").await;
        cluster.get(&format!("{NEW}&sid=s0")).await;
        assert_eq!(cluster.front.learned(id(0)), 1, "{name}: not by this");
        cluster.connect().await.ask(request).await;
        assert_eq!(cluster.front.learned(id(0)), 0, "{name}");
        assert!(cluster.get(&format!("{NEW}&sid=s0")).await.0.starts_with("HTTP/1.1 400 "));
    }
}

#[tokio::test]
async fn who_leaves_amid_a_poll_does_not_count_until_it_comes_back() {
    let cluster = learning(1);
    cluster.get(NEW).await;
    let mut peer = cluster.connect().await;
    peer.write(get("/hang?EIO=4&transport=polling&sid=s0").as_bytes()).await.unwrap();
    until("it polls", || cluster.workers[0].requests() == 2).await;
    // Ended at once, it would be one that only sends no more.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(peer);
    until("the worker is told", || cluster.workers[0].aborted.load(Ordering::SeqCst) == 1).await;
    until("it does not count", || cluster.front.learned(id(0)) == 0).await;
    assert_eq!(text(&cluster.get(&format!("{NEW}&sid=s0")).await.1), "0.0");
    assert_eq!(cluster.front.learned(id(0)), 1);
}

#[tokio::test]
async fn the_table_is_bounded() {
    let cluster = cluster_of([Worker::learning(0)], Serve::Http, |config| config.limits.learned_sids = 2);
    for name in ["a", "b"] {
        cluster.workers[0].opens(name);
        assert!(cluster.get(NEW).await.0.starts_with("HTTP/1.1 200 "));
    }
    let (head, body) = cluster.get(NEW).await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after"), "{head}");
    assert!(text(&body).contains("learnedSids"), "{}", text(&body));
    assert_eq!(cluster.front.stats().rejected_learned_sids, 1);
    // Sessions that need no entry, and those that have one, go on.
    assert!(cluster.connect().await.ask(&upgrade(NEW_WS)).await.0.starts_with("HTTP/1.1 101 "));
    assert_eq!(text(&cluster.get(&format!("{NEW}&sid=a")).await.1), "0.0");
    cluster.get("/over?EIO=4&transport=polling&sid=a").await;
    assert!(cluster.get(NEW).await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn who_is_let_go_gets_the_close_packet_in_paced_batches() {
    let cluster = learning(2);
    cluster.workers[1].sessions.store(1000, Ordering::SeqCst);
    let mut waiting = Vec::new();
    for (index, dialect) in ["EIO=4", "EIO=3", "EIO=4&j=7"].into_iter().enumerate() {
        let name = format!("let-go-{index}");
        cluster.workers[0].opens(&name);
        cluster.get(NEW).await;
        let mut peer = cluster.connect().await;
        // On a new leg, and on one that was used before.
        let target = format!("/hang?{dialect}&transport=polling&sid={name}");
        peer.write(get(&target).as_bytes()).await.unwrap();
        waiting.push((peer, target));
    }
    cluster.workers[0].opens("between-polls");
    cluster.get(NEW).await;
    until("all wait", || cluster.workers[0].requests() == 7).await;
    assert_eq!(cluster.front.learned(id(0)), 4);

    cluster.front.drain(id(0));
    let front = cluster.front.clone();
    let going = tokio::spawn(async move { front.let_go(id(0), 3, Duration::from_secs(3600)).await });
    until("the first batch is let go of", || cluster.front.learned(id(0)) == 1).await;
    assert!(!going.is_finished(), "the rest has to wait");
    going.abort();
    cluster.front.let_go(id(0), 100, Duration::ZERO).await;
    assert_eq!(cluster.front.learned(id(0)), 0);
    for ((mut peer, target), expected) in waiting.into_iter().zip(["1", "1:1", "___eio[7](\"1\");"]) {
        let (head, body) = peer.response(false).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(text(&body), expected);
        // On the same connection, which goes on.
        assert!(peer.ask(&get(&target)).await.0.starts_with("HTTP/1.1 400 "));
    }
    assert!(cluster.get(&format!("{NEW}&sid=between-polls")).await.0.starts_with("HTTP/1.1 400 "));
    let stats = cluster.front.stats();
    assert_eq!((stats.let_go, stats.worker_lost), (4, 0));
    assert_eq!(text(&cluster.get("/page").await.1), "1.0");
}

#[tokio::test]
async fn a_worker_that_is_lost_takes_its_sessions_along() {
    let cluster = learning(2);
    cluster.get(NEW).await;
    cluster.get(NEW).await;
    let mut waiting = cluster.connect().await;
    waiting.write(get("/hang?EIO=4&transport=polling&sid=s0").as_bytes()).await.unwrap();
    until("the poll waits", || cluster.workers[0].requests() == 2).await;
    cluster.workers[0].kill();
    cluster.front.lost(id(0));
    assert_eq!(text(&waiting.response(false).await.1), "1");
    assert!(cluster.get(&format!("{NEW}&sid=s0")).await.0.starts_with("HTTP/1.1 400 "));
    assert_eq!(text(&cluster.get(&format!("{NEW}&sid=s1")).await.1), "1.0");
    assert_eq!((cluster.front.learned(id(0)), cluster.front.learned(id(1))), (0, 1));
    // Amid an answer that was held back.
    *cluster.workers[1].handshake.lock().unwrap() =
        vec![b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0{".to_vec()];
    let mut cut = cluster.connect().await;
    cut.write(get(NEW).as_bytes()).await.unwrap();
    until("it is asked", || cluster.workers[1].requests() == 3).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    cluster.workers[1].kill();
    assert!(cut.response(false).await.0.starts_with("HTTP/1.1 502 "));
    // Another worker of the slot is another owner.
    let next = Worker::with(0, 0, cluster.workers[0].abilities);
    cluster.front.add(next);
    assert!(cluster.get(&format!("{NEW}&sid=s0")).await.0.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn websockets_run_through_a_leg_where_connections_are_not_taken() {
    let abilities = Abilities { takes_connections: false, tells_sessions: false, transparent: false };
    let workers = [0, 1].map(|slot| Worker::with(slot, 0, abilities));
    let cluster = cluster_of(workers, Serve::Http, |_| {});
    cluster.workers[0].opens("a");
    cluster.workers[1].sessions.store(1, Ordering::SeqCst);
    // A session that upgrades.
    cluster.get(NEW).await;
    assert_eq!(cluster.front.load_of(id(0)).unwrap().learned, 1);
    let mut upgraded = cluster.connect().await;
    let (head, _) = upgraded.ask(&upgrade(&format!("{NEW_WS}&sid=a"))).await;
    assert!(head.contains("X-Worker: 0.0"), "{head}");
    until("it is relayed", || cluster.front.load_of(id(0)).unwrap().relayed == 1).await;
    let load = cluster.front.load_of(id(0)).unwrap();
    assert_eq!((load.learned, load.total), (0, 1));
    // One without polling, placed by the loads: these are 1 and 1, then 1 and 2 or 2 and 1.
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let mut socket = cluster.connect().await;
        assert!(socket.ask(&upgrade(NEW_WS)).await.0.starts_with("HTTP/1.1 101 "));
        socket.write(b"frames").await.unwrap();
        let mut echo = [0; 6];
        tokio::io::AsyncReadExt::read_exact(&mut socket.stream, &mut echo).await.unwrap();
        sockets.push(socket);
    }
    let totals = || [0, 1].map(|slot| cluster.front.load_of(id(slot)).unwrap().total);
    until("both have as many", || totals() == [3, 3]).await;
    assert_eq!(cluster.workers[0].handed.load(Ordering::SeqCst), 0);
    drop(upgraded);
    until("it is over", || totals() == [2, 3]).await;
    assert!(cluster.get(&format!("{NEW}&sid=a")).await.0.starts_with("HTTP/1.1 400 "), "and forgotten");
    // Let go of: the websockets end.
    cluster.front.let_go(id(0), 1, Duration::from_millis(1)).await;
    cluster.front.let_go(id(1), 10, Duration::from_secs(3600)).await;
    for mut socket in sockets {
        assert!(socket.rest().await.is_empty());
    }
    until("none is left", || totals() == [0, 1]).await;
}

#[tokio::test]
async fn a_refused_websocket_leaves_the_session_as_it_was() {
    let abilities = Abilities { takes_connections: false, tells_sessions: false, transparent: true };
    let cluster = cluster_of([Worker::with(0, 0, abilities)], Serve::Http, |_| {});
    cluster.workers[0].opens("a");
    cluster.get(NEW).await;
    let target = "/unknown?EIO=4&transport=websocket";
    assert!(cluster.connect().await.ask(&upgrade(target)).await.0.starts_with("HTTP/1.1 400 "));
    until("nothing is placed", || cluster.front.load_of(id(0)).unwrap().total == 1).await;
    assert_eq!(text(&cluster.get(&format!("{NEW}&sid=a")).await.1), "0.0");
}
