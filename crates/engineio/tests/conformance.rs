//! The 25 titles of Engine.IO's own protocol test suite (version 4), against a server with its options: pingInterval
//! 300, pingTimeout 200, every message echoed.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Frame, Ws, calm, get, open, post, quick, request, send_request, serve, sid_of, text, ws_query};
use sundew_engineio::CloseReason;
use tokio::time::sleep;

mod handshake {
    use super::*;

    fn check_open(open: &str, upgrades: &[&str]) {
        let json: serde_json::Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"];
        expected.sort_unstable();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        let sid = json["sid"].as_str().unwrap();
        assert_eq!(sid.len(), 20);
        assert!(sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_eq!(json["upgrades"], serde_json::json!(upgrades));
        assert_eq!(json["pingInterval"], 300);
        assert_eq!(json["pingTimeout"], 200);
        assert_eq!(json["maxPayload"], 1_000_000);
    }

    #[tokio::test]
    async fn polling_successfully_opens_a_session() {
        let server = serve(quick()).await;
        let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
        check_open(&answer.body, &["websocket"]);
        assert!(answer.body.starts_with(r#"0{"sid":""#) && answer.body.contains(r#"","upgrades":["#));
    }

    #[tokio::test]
    async fn polling_fails_with_an_invalid_eio_query_parameter() {
        let server = serve(quick()).await;
        for query in ["transport=polling", "EIO=abc&transport=polling", "EIO=3&transport=polling"] {
            let answer = request(server.addr, "GET", query, "", b"").await;
            assert_eq!(answer.status, 400, "{query}");
            assert_eq!(answer.body, r#"{"code":5,"message":"Unsupported protocol version"}"#);
        }
    }

    #[tokio::test]
    async fn polling_fails_with_an_invalid_transport_query_parameter() {
        let server = serve(quick()).await;
        for query in ["EIO=4", "EIO=4&transport=abc"] {
            let answer = request(server.addr, "GET", query, "", b"").await;
            assert_eq!(answer.status, 400);
            assert_eq!(answer.body, r#"{"code":0,"message":"Transport unknown"}"#);
        }
    }

    #[tokio::test]
    async fn polling_fails_with_an_invalid_request_method() {
        let server = serve(quick()).await;
        for method in ["POST", "PUT"] {
            let answer = request(server.addr, method, "EIO=4&transport=polling", "", b"").await;
            assert_eq!(answer.status, 400);
            assert_eq!(answer.body, r#"{"code":2,"message":"Bad handshake method"}"#);
        }
    }

    #[tokio::test]
    async fn websocket_successfully_opens_a_session() {
        let server = serve(quick()).await;
        let mut ws = Ws::connect(server.addr, None).await;
        let Frame::Text(open) = ws.next().await else { panic!() };
        check_open(&open, &[]);
    }

    #[tokio::test]
    async fn websocket_fails_with_an_invalid_eio_query_parameter() {
        let server = serve(quick()).await;
        for query in ["transport=websocket", "EIO=abc&transport=websocket"] {
            let answer = Ws::try_connect(server.addr, query).await.err().unwrap();
            assert_eq!((answer.status, &*answer.body), (400, "Unsupported protocol version"));
        }
    }

    #[tokio::test]
    async fn websocket_fails_with_an_invalid_transport_query_parameter() {
        let server = serve(quick()).await;
        for query in ["EIO=4", "EIO=4&transport=abc"] {
            let answer = Ws::try_connect(server.addr, query).await.err().unwrap();
            assert_eq!((answer.status, &*answer.body), (400, "Transport unknown"));
            assert_eq!(answer.header("connection"), Some("close"));
        }
    }
}

mod message {
    use super::*;

    #[tokio::test]
    async fn polling_sends_and_receives_a_payload_containing_one_plain_text_packet() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        let sent = post(server.addr, &sid, "4hello").await;
        assert_eq!((sent.status, &*sent.body), (200, "ok"));
        assert_eq!(sent.header("content-type"), Some("text/html"));
        let got = get(server.addr, &sid).await;
        assert_eq!((got.status, &*got.body), (200, "4hello"));
        assert_eq!(got.header("content-type"), Some("text/plain; charset=UTF-8"));
        assert_eq!(got.header("cache-control"), Some("no-store"));
    }

    #[tokio::test]
    async fn polling_sends_and_receives_a_payload_containing_several_plain_text_packets() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        assert_eq!(post(server.addr, &sid, "4test1\x1e4test2\x1e4test3").await.status, 200);
        assert_eq!(get(server.addr, &sid).await.body, "4test1\x1e4test2\x1e4test3");
    }

    #[tokio::test]
    async fn polling_sends_and_receives_a_payload_containing_plain_text_and_binary_packets() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        assert_eq!(post(server.addr, &sid, "4hello\x1ebAQIDBA==").await.status, 200);
        assert_eq!(get(server.addr, &sid).await.body, "4hello\x1ebAQIDBA==");
    }

    #[tokio::test]
    async fn polling_closes_the_session_upon_invalid_packet_format() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        post(server.addr, &sid, "abc").await;
        assert_eq!(get(server.addr, &sid).await.status, 400);
        server.until_closed(&[CloseReason::ParseError]).await;
    }

    #[tokio::test]
    async fn polling_closes_the_session_upon_duplicate_poll_requests() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        let (first, second) = tokio::join!(get(server.addr, &sid), async {
            sleep(Duration::from_millis(5)).await;
            get(server.addr, &sid).await
        });
        assert_eq!((first.status, &*first.body), (200, "1"));
        assert_eq!((second.status, &*second.body), (400, ""));
        let third = get(server.addr, &sid).await;
        assert_eq!((third.status, &*third.body), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
        server.until_closed(&[CloseReason::TransportError]).await;
    }

    #[tokio::test]
    async fn polling_closes_the_session_upon_cancelled_polling_request() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        let query = format!("EIO=4&transport=polling&sid={sid}");
        let poll = send_request(server.addr, "GET", &query, "", b"").await;
        sleep(Duration::from_millis(5)).await;
        drop(poll);
        assert_eq!(get(server.addr, &sid).await.status, 400);
        server.until_closed(&[CloseReason::TransportError]).await;
    }

    #[tokio::test]
    async fn websocket_sends_and_receives_a_plain_text_packet() {
        let server = serve(quick()).await;
        let (mut ws, _) = Ws::open(server.addr).await;
        ws.text("4hello").await;
        assert_eq!(ws.next().await, text("4hello"));
    }

    #[tokio::test]
    async fn websocket_sends_and_receives_a_binary_packet() {
        let server = serve(quick()).await;
        let (mut ws, _) = Ws::open(server.addr).await;
        ws.frame(0x82, &[1, 2, 3, 4]).await;
        assert_eq!(ws.next().await, Frame::Binary(vec![1, 2, 3, 4]));
    }

    #[tokio::test]
    async fn websocket_closes_the_session_upon_invalid_packet_format() {
        let server = serve(quick()).await;
        let (mut ws, _) = Ws::open(server.addr).await;
        ws.text("abc").await;
        assert_eq!(ws.next().await, Frame::Close(None));
        assert_eq!(ws.next().await, Frame::End);
        server.until_closed(&[CloseReason::ParseError]).await;
    }
}

mod heartbeat {
    use super::*;

    #[tokio::test]
    async fn polling_sends_ping_pong_packets() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        for _ in 0..3 {
            assert_eq!(get(server.addr, &sid).await.body, "2");
            assert_eq!(post(server.addr, &sid, "3").await.status, 200);
        }
    }

    #[tokio::test]
    async fn polling_closes_the_session_upon_ping_timeout() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        server.until_closed(&[CloseReason::PingTimeout]).await;
        assert_eq!(get(server.addr, &sid).await.status, 400);
    }

    #[tokio::test]
    async fn websocket_sends_ping_pong_packets() {
        let server = serve(quick()).await;
        let (mut ws, _) = Ws::open(server.addr).await;
        for _ in 0..3 {
            assert_eq!(ws.next().await, text("2"));
            ws.text("3").await;
        }
    }

    #[tokio::test]
    async fn websocket_closes_the_session_upon_ping_timeout() {
        let server = serve(quick()).await;
        let (mut ws, _) = Ws::open(server.addr).await;
        assert_eq!(ws.next().await, text("2"));
        assert_eq!(ws.next().await, Frame::Close(None));
        assert_eq!(ws.next().await, Frame::End);
        server.until_closed(&[CloseReason::PingTimeout]).await;
    }
}

mod close {
    use super::*;

    #[tokio::test]
    async fn polling_forcefully_closes_the_session() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        let (poll, closed) = tokio::join!(get(server.addr, &sid), async {
            sleep(Duration::from_millis(5)).await;
            post(server.addr, &sid, "1").await
        });
        assert_eq!((poll.status, &*poll.body), (200, "6"));
        assert_eq!((closed.status, &*closed.body), (200, "ok"));
        assert_eq!(get(server.addr, &sid).await.status, 400);
        server.until_closed(&[CloseReason::TransportClose]).await;
    }

    #[tokio::test]
    async fn websocket_forcefully_closes_the_session() {
        let server = serve(quick()).await;
        let (mut ws, _) = Ws::open(server.addr).await;
        ws.text("1").await;
        assert_eq!(ws.next().await, Frame::Close(None));
        assert_eq!(ws.next().await, Frame::End);
        server.until_closed(&[CloseReason::TransportClose]).await;
    }
}

mod upgrade {
    use super::*;

    #[tokio::test]
    async fn successfully_upgrades_from_polling_to_websocket() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        let mut ws = Ws::connect(server.addr, Some(&sid)).await;
        ws.text("2probe").await;
        assert_eq!(ws.next().await, text("3probe"));
        let poll = get(server.addr, &sid).await;
        assert_eq!((poll.status, &*poll.body), (200, "6"));
        ws.text("5").await;
        ws.text("4hello").await;
        assert_eq!(ws.next().await, text("4hello"));
        let stats = server.engine.stats();
        assert_eq!((stats.sessions, stats.polling, stats.websocket, stats.upgrades), (1, 0, 1, 1));
    }

    /// On threads, as servers run: the upgrade packet and the poll come on two connections, and keep their order.
    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn ignores_http_requests_with_same_sid_after_upgrade() {
        let server = serve(calm()).await;
        for round in 0..100 {
            let sid = open(server.addr).await;
            let mut ws = Ws::upgrade(server.addr, &sid).await;
            let poll = get(server.addr, &sid).await;
            assert_eq!((poll.status, &*poll.body), (400, r#"{"code":3,"message":"Bad request"}"#), "{round}");
            ws.text("4hello").await;
            assert_eq!(ws.next().await, text("4hello"));
        }
    }

    #[tokio::test]
    async fn ignores_websocket_connection_with_same_sid_after_upgrade() {
        let server = serve(quick()).await;
        let sid = open(server.addr).await;
        let mut ws = Ws::upgrade(server.addr, &sid).await;
        let mut second = Ws::try_connect(server.addr, &ws_query(Some(&sid))).await.ok().unwrap();
        assert_eq!(second.next().await, Frame::Close(None));
        assert_eq!(second.next().await, Frame::End);
        ws.text("4hello").await;
        assert_eq!(ws.next().await, text("4hello"));
    }
}

#[test]
fn open_packets_are_understood_by_these_tests() {
    assert_eq!(sid_of(r#"0{"sid":"abc"}"#), "abc");
}
