//! Clients that come back, and are lost again before what they had missed has arrived: in virtual time, over polling.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use sundew_socketio::recovery::Recovery;
use sundew_socketio::{ConnectError, NotFound, SocketIo, SocketIoService};
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

struct Client(SocketIoService<NotFound>);

impl Client {
    async fn request(&self, method: Method, sid: &str, body: &str) -> String {
        let request = Request::builder()
            .method(method)
            .uri(format!("/socket.io/?EIO=4&transport=polling{sid}"))
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = self.0.clone().call(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    async fn open(&self, auth: &Value) -> String {
        let open = self.request(Method::GET, "", "").await;
        let open: Value = serde_json::from_str(&open[1..]).unwrap();
        let sid = format!("&sid={}", open["sid"].as_str().unwrap());
        assert_eq!(self.request(Method::POST, &sid, &format!("40{auth}")).await, "ok");
        sid
    }

    async fn leave(&self, sid: &str) {
        assert_eq!(self.request(Method::POST, sid, "1").await, "ok");
    }

    /// Connects and leaves, and remembers nothing of what it got: the private id, and how many events came before it.
    async fn connect(&self, auth: &Value) -> (String, usize) {
        let sid = self.open(auth).await;
        let mut events = 0;
        loop {
            let body = self.request(Method::GET, &sid, "").await;
            for packet in body.split('\x1e') {
                match packet.strip_prefix("40") {
                    None => events += 1,
                    Some(answer) => {
                        self.leave(&sid).await;
                        let answer: Value = serde_json::from_str(answer).unwrap();
                        return (answer["pid"].as_str().unwrap().to_owned(), events);
                    }
                }
            }
        }
    }
}

/// Events are kept for 45 seconds, the heartbeat's, longer than sessions.
fn recovery() -> Recovery {
    Recovery::new().max_disconnection_duration(Duration::from_secs(60))
}

#[tokio::test(start_paused = true)]
async fn what_has_not_arrived_and_has_expired_is_a_gap() {
    let io = SocketIo::builder().connection_state_recovery(recovery()).build();
    let client = Client(io.into_service());
    let start = Instant::now();
    let at = |seconds| sleep_until(start + Duration::from_secs(seconds));
    let (pid, _) = client.connect(&json!({})).await;
    while io.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    io.emit("missed", ());
    let auth = json!({"pid": &pid});
    for seconds in [50, 100] {
        at(seconds).await;
        assert_eq!(client.connect(&auth).await, (pid.clone(), 1), "{seconds}");
    }
    // The session is there until 160, the event was until 105.
    at(110).await;
    let (anew, events) = client.connect(&auth).await;
    assert!(anew != pid && events == 0);
}

#[tokio::test(start_paused = true)]
async fn nor_is_a_gap_hidden_by_the_middleware() {
    let io = SocketIo::builder().connection_state_recovery(recovery().skip_middlewares(false)).build();
    let asked = Arc::new(AtomicUsize::new(0));
    io.with(move || {
        let turn = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            if turn == 1 || turn == 2 {
                std::future::pending::<()>().await;
            }
            Ok::<(), ConnectError>(())
        }
    });
    let client = Client(io.into_service());
    let start = Instant::now();
    let at = |seconds| sleep_until(start + Duration::from_secs(seconds));
    let (pid, _) = client.connect(&json!({})).await;
    while io.socket_count() > 0 {
        tokio::task::yield_now().await;
    }
    io.emit("missed", ());
    let auth = json!({"pid": &pid});
    // Twice it dies in the middleware.
    for seconds in [50, 100] {
        at(seconds).await;
        let sid = client.open(&auth).await;
        client.leave(&sid).await;
    }
    at(104).await;
    assert_eq!(client.connect(&auth).await, (pid.clone(), 1));
    at(110).await;
    let (anew, events) = client.connect(&auth).await;
    assert!(anew != pid && events == 0);
}
