//! A client that asks and does not read, alone, without a front door.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::routing::get;
use sundew_worker::{Listener, serve};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// More than the system takes for a connection.
const LARGE: usize = 64 << 20;

/// Says when it is let go.
struct Large(Vec<u8>, mpsc::UnboundedSender<()>);

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_the_apps_answer_has_a_limit() {
    let (asked, mut heard) = mpsc::unbounded_channel();
    let (dropped, mut gone) = mpsc::unbounded_channel();
    let large = move || async move {
        asked.send(()).unwrap();
        Body::from(Bytes::from_owner(Large(vec![0; LARGE], dropped)))
    };
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr();
    tokio::spawn(serve(listener, axum::Router::new().route("/large", get(large))));
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    heard.recv().await.unwrap();
    // From here on nothing comes from the network any more.
    tokio::time::pause();
    let begin = Instant::now();
    tokio::time::timeout(Duration::from_secs(600), gone.recv()).await.expect("it is held").unwrap();
    let taken = begin.elapsed();
    assert!(taken >= Duration::from_secs(60) && taken < Duration::from_secs(120), "{taken:?}");
    drop(client);
}
