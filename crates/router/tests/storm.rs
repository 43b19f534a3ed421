//! Many clients at once on several threads, each with its own way of cutting what it sends: every answer is the right one.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use support::{Cluster, cluster, get, upgrade};

/// A small generator: the same storm every time, as far as the client's side goes.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

async fn client(cluster: Arc<Cluster>, seed: u64) {
    let mut dice = Dice(seed);
    let mut peer = cluster.connect().await;
    peer.stream.set_nodelay(true).unwrap();
    for _ in 0..12 {
        // Some requests in one go, cut anywhere.
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..=dice.below(4) {
            let slot = dice.below(cluster.workers.len());
            let session = format!("EIO=4&transport=polling&sid={}", cluster.workers[slot].sid());
            match dice.below(3) {
                0 => {
                    bytes.extend_from_slice(get(&format!("/?{session}")).as_bytes());
                    expected.push(format!("{slot}.0").into_bytes());
                }
                1 => {
                    let body = vec![b'a' + dice.below(26) as u8; dice.below(200_000)];
                    let head = format!(
                        "POST /echo?{session} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    bytes.extend_from_slice(&[head.as_bytes(), &body].concat());
                    expected.push(body);
                }
                _ => {
                    let body = vec![b'a' + dice.below(26) as u8; dice.below(100_000) + 1];
                    let head = format!(
                        "POST /chunked?{session} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                    );
                    bytes.extend_from_slice(head.as_bytes());
                    for part in body.chunks(dice.below(30_000) + 1) {
                        bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                        bytes.extend_from_slice(&[part, b"\r\n"].concat());
                    }
                    bytes.extend_from_slice(b"0\r\n\r\n");
                    expected.push(body);
                }
            }
        }
        let (read, mut write) = peer.stream.into_split();
        let cut = dice.below(20_000) + 1;
        let pause = dice.below(3) == 0;
        let writing = tokio::spawn(async move {
            for part in bytes.chunks(cut) {
                tokio::io::AsyncWriteExt::write_all(&mut write, part).await.unwrap();
                if pause {
                    tokio::task::yield_now().await;
                }
            }
            write
        });
        let mut reading = support::Peer::new(tokio::io::join(read, tokio::io::sink()));
        for expected in expected {
            let (head, body) = reading.response(false).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert!(body == expected, "{} bytes instead of {}", body.len(), expected.len());
        }
        let read = reading.stream.into_inner().0;
        peer = support::Peer::new(read.reunite(writing.await.unwrap()).unwrap());
    }
    let slot = dice.below(cluster.workers.len());
    let target = format!("/?EIO=4&transport=websocket&sid={}", cluster.workers[slot].sid());
    let (head, _) = peer.ask(&upgrade(&target)).await;
    assert!(head.contains(&format!("X-Worker: {slot}.0")), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_answer_is_the_right_one() {
    let cluster = Arc::new(cluster(4, |_| {}));
    let clients: Vec<_> = (0..60).map(|seed| tokio::spawn(client(cluster.clone(), seed))).collect();
    for client in clients {
        client.await.unwrap();
    }
    let handed: usize = cluster.workers.iter().map(|worker| worker.handed.load(Ordering::SeqCst)).sum();
    assert_eq!(handed, 60);
    let stats = cluster.front.stats();
    assert_eq!((stats.rejected_malformed, stats.worker_lost, stats.client_gone), (0, 0, 0), "{stats:?}");
}
