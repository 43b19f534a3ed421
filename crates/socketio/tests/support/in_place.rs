//! A client in the server's process, which calls its service and polls: for tests in virtual time.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use sundew_socketio::{NotFound, SocketIo, SocketIoService};
use tokio::time::{Instant, timeout_at};
use tower_service::Service;

pub struct InPlace(SocketIoService<NotFound>);

impl InPlace {
    pub fn new(io: &SocketIo) -> InPlace {
        InPlace(io.clone().into_service())
    }

    pub async fn request(&self, method: Method, sid: &str, body: &str) -> String {
        let (status, body) = self.try_request(method, sid, body).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Whatever the answer is.
    pub async fn try_request(&self, method: Method, sid: &str, body: &str) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/socket.io/?EIO=4&transport=polling{sid}"))
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = self.0.clone().call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Opens the engine session; the id is for the query.
    pub async fn handshake(&self) -> String {
        let open = self.request(Method::GET, "", "").await;
        let open: Value = serde_json::from_str(&open[1..]).unwrap();
        format!("&sid={}", open["sid"].as_str().unwrap())
    }

    pub async fn send(&self, sid: &str, packets: &str) {
        assert_eq!(self.request(Method::POST, sid, packets).await, "ok");
    }

    /// Opens a session and asks for the main namespace.
    pub async fn open(&self, auth: &Value) -> String {
        let sid = self.handshake().await;
        self.send(&sid, &format!("40{auth}")).await;
        sid
    }

    pub async fn leave(&self, sid: &str) {
        self.send(sid, "1").await;
    }

    /// Stays until its connection is lost at that moment: a poll that is given up ends it. Returns the packets that came.
    pub async fn stay(&self, sid: &str, until: Instant) -> Vec<String> {
        let mut packets = Vec::new();
        while let Ok(body) = timeout_at(until, self.request(Method::GET, sid, "")).await {
            for packet in body.split('\x1e') {
                match packet {
                    "2" => self.send(sid, "3").await,
                    packet => packets.push(packet.to_owned()),
                }
            }
        }
        packets
    }
}
