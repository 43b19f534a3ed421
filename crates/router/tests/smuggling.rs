//! The requests of `corpus/requests`, over sockets: each is answered with the status its file's name begins with, those
//! that are refused reach no worker, and of the others the worker sees exactly one request.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::path::PathBuf;

use support::cluster;

#[tokio::test]
async fn what_is_ambiguous_reaches_no_worker_and_what_is_not_reaches_one_once() {
    let cluster = cluster(1, |config| config.limits.head_timeout = std::time::Duration::from_millis(1500));
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/requests");
    let mut refused = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let status = &name[..3];
        let bytes = std::fs::read(&path).unwrap();
        // At once, and with the body behind the head: what a body's fault is known from may come after the worker has
        // the head, and then it must see no end of the request.
        for pieces in [1, 2] {
            let before = cluster.workers[0].requests();
            let mut peer = cluster.connect().await;
            let cut = if pieces == 1 { bytes.len() } else { bytes.len() - bytes.len() / 3 };
            peer.write(&bytes[..cut]).await.unwrap();
            if cut < bytes.len() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                // It may have been refused by now.
                let _ = peer.write(&bytes[cut..]).await;
            }
            let (head, _) = peer.response(false).await;
            // A head that never ends is looked at again only when it has doubled; then its time is over.
            let late = pieces == 2 && head.starts_with("HTTP/1.1 408 ");
            let as_named = head.starts_with(&format!("HTTP/1.1 {status} "));
            assert!(as_named || (late && status != "200"), "{name}, {pieces} pieces: {head}");
            if status == "200" {
                assert_eq!(cluster.workers[0].requests() - before, 1, "{name}");
            } else {
                refused += 1;
                assert!(peer.rest().await.is_empty(), "{name}: nothing is answered behind it");
                let seen = cluster.workers[0].requests() - before;
                assert!(
                    seen == 0 || (pieces == 2 && (name.contains("chunk") || name.contains("trailer"))),
                    "{name}"
                );
            }
        }
    }
    let stats = cluster.front.stats();
    assert_eq!(stats.rejected_malformed + stats.rejected_head_size + stats.rejected_slow, refused);
    // The legs that were given up are not used again.
    assert_eq!(cluster.get("/page").await.1, b"0.0");
}
