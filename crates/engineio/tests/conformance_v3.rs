//! The titles of Engine.IO's own protocol test suite for version 3 (Socket.IO 2 clients), against a server with its
//! options and `allow_eio3`; and JSONP, which it leaves out.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Answer, Frame, Server, Ws, calm, quick, request, send_request, serve, text};
use sundew_engineio::{CloseReason, Config, Frames, ProtocolVersion};
use tokio::time::sleep;

fn old() -> Config {
    let mut config = quick();
    config.allow_eio3 = true;
    config
}

async fn serve_old() -> Server {
    serve(old()).await
}

/// The session's id in an open packet.
fn sid_of(open: &str) -> String {
    let json = check_open(open);
    json["sid"].as_str().unwrap().to_owned()
}

fn check_open(open: &str) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    assert_eq!(json["sid"].as_str().unwrap().len(), 20);
    assert_eq!((&json["pingInterval"], &json["pingTimeout"]), (&300.into(), &200.into()));
    json
}

/// The only packet of a text payload.
fn single(payload: &str) -> &str {
    let (length, packet) = payload.split_once(':').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), packet.encode_utf16().count());
    packet
}

async fn open(addr: SocketAddr, more: &str) -> String {
    let answer = request(addr, "GET", &format!("EIO=3&transport=polling{more}"), "", b"").await;
    assert_eq!(answer.status, 200);
    sid_of(single(&answer.body))
}

async fn get(addr: SocketAddr, sid: &str) -> Answer {
    request(addr, "GET", &format!("EIO=3&transport=polling&sid={sid}"), "", b"").await
}

async fn post(addr: SocketAddr, sid: &str, body: &str) -> Answer {
    request(addr, "POST", &format!("EIO=3&transport=polling&sid={sid}"), "", body.as_bytes()).await
}

fn ws_query(sid: Option<&str>) -> String {
    format!("EIO=3&transport=websocket{}", sid.map(|sid| format!("&sid={sid}")).unwrap_or_default())
}

async fn connect(addr: SocketAddr, sid: Option<&str>) -> Ws {
    Ws::try_connect(addr, &ws_query(sid)).await.unwrap()
}

async fn open_ws(addr: SocketAddr) -> Ws {
    let mut ws = connect(addr, None).await;
    let Frame::Text(open) = ws.next().await else { panic!("no open packet") };
    check_open(&open);
    ws
}

async fn upgrade(addr: SocketAddr, sid: &str) -> Ws {
    let mut ws = connect(addr, Some(sid)).await;
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    ws.text("5").await;
    ws
}

mod handshake {
    use super::*;

    #[tokio::test]
    async fn polling_successfully_opens_a_session() {
        let server = serve_old().await;
        let answer = request(server.addr, "GET", "EIO=3&transport=polling", "", b"").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
        assert_eq!(check_open(single(&answer.body))["upgrades"], serde_json::json!(["websocket"]));
        assert_eq!(server.handle().version(), ProtocolVersion::V3);
    }

    #[tokio::test]
    async fn polling_fails_with_an_invalid_transport_query_parameter() {
        let server = serve_old().await;
        for query in ["EIO=3", "EIO=3&transport=abc"] {
            let answer = request(server.addr, "GET", query, "", b"").await;
            assert_eq!((answer.status, &*answer.body), (400, r#"{"code":0,"message":"Transport unknown"}"#));
        }
    }

    #[tokio::test]
    async fn polling_fails_with_an_invalid_request_method() {
        let server = serve_old().await;
        for method in ["POST", "PUT"] {
            let answer = request(server.addr, method, "EIO=3&transport=polling", "", b"").await;
            assert_eq!(answer.status, 400);
        }
    }

    #[tokio::test]
    async fn websocket_successfully_opens_a_session() {
        let server = serve_old().await;
        let mut ws = connect(server.addr, None).await;
        let Frame::Text(open) = ws.next().await else { panic!() };
        assert_eq!(check_open(&open)["upgrades"], serde_json::json!([]));
    }

    /// Node takes everything that is not 4 for version 3; its suite's test never waits for the failure it expects.
    #[tokio::test]
    async fn websocket_fails_with_an_invalid_eio_query_parameter() {
        let server = serve_old().await;
        for query in ["transport=websocket", "EIO=abc&transport=websocket"] {
            let answer = Ws::try_connect(server.addr, query).await.err().unwrap();
            assert_eq!((answer.status, &*answer.body), (400, "Unsupported protocol version"));
            let query = query.replace("websocket", "polling");
            assert_eq!(request(server.addr, "GET", &query, "", b"").await.status, 400);
        }
    }

    #[tokio::test]
    async fn websocket_fails_with_an_invalid_transport_query_parameter() {
        let server = serve_old().await;
        for query in ["EIO=3", "EIO=3&transport=abc"] {
            let answer = Ws::try_connect(server.addr, query).await.err().unwrap();
            assert_eq!((answer.status, &*answer.body), (400, "Transport unknown"));
        }
    }

    #[tokio::test]
    async fn version_3_is_refused_unless_allowed_and_versions_are_not_mixed() {
        let answer = request(serve(quick()).await.addr, "GET", "EIO=3&transport=polling", "", b"").await;
        assert_eq!(
            (answer.status, &*answer.body),
            (400, r#"{"code":5,"message":"Unsupported protocol version"}"#)
        );

        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let answer = common::get(server.addr, &sid).await;
        assert_eq!((answer.status, &*answer.body), (400, r#"{"code":3,"message":"Bad request"}"#));
        let sid = common::open(server.addr).await;
        assert_eq!(get(server.addr, &sid).await.status, 400);
        assert_eq!(server.closed(), [], "neither session was harmed");
    }
}

mod message {
    use super::*;

    #[tokio::test]
    async fn polling_sends_and_receives_a_payload_containing_one_plain_text_packet() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let sent = post(server.addr, &sid, "6:4hello").await;
        assert_eq!((sent.status, &*sent.body), (200, "ok"));
        assert_eq!(get(server.addr, &sid).await.body, "6:4hello");
    }

    #[tokio::test]
    async fn polling_sends_and_receives_a_payload_containing_several_plain_text_packets() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let payload = "6:4test16:4test26:4test33:4\u{1f600}3:4\u{e9}\u{20ac}";
        assert_eq!(post(server.addr, &sid, payload).await.status, 200);
        assert_eq!(get(server.addr, &sid).await.body, payload);
    }

    #[tokio::test]
    async fn polling_sends_and_receives_a_payload_containing_plain_text_and_binary_packets_base64_encoded() {
        let server = serve_old().await;
        let sid = open(server.addr, "&b64=1").await;
        assert_eq!(post(server.addr, &sid, "6:4hello10:b4AQIDBA==").await.status, 200);
        let answer = get(server.addr, &sid).await;
        assert_eq!(answer.body, "6:4hello10:b4AQIDBA==");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    }

    #[tokio::test]
    async fn polling_sends_and_receives_a_payload_containing_plain_text_and_binary_packets_binary() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let payload = b"\x00\x06\xff4hello\x01\x05\xff\x04\x01\x02\x03\x04";
        let query = format!("EIO=3&transport=polling&sid={sid}");
        let kind = "content-type: application/octet-stream\r\n";
        assert_eq!(request(server.addr, "POST", &query, kind, payload).await.status, 200);
        let answer = get(server.addr, &sid).await;
        assert_eq!(answer.bytes, payload);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    }

    #[tokio::test]
    async fn polling_closes_the_session_upon_invalid_packet_format() {
        for body in ["abc", "1:x", "9:4x"] {
            let server = serve_old().await;
            let sid = open(server.addr, "").await;
            post(server.addr, &sid, body).await;
            assert_eq!(get(server.addr, &sid).await.status, 400);
            server.until_closed(&[CloseReason::ParseError]).await;
        }
    }

    /// Skipped in the suite.
    #[tokio::test]
    async fn polling_closes_the_session_upon_duplicate_poll_requests() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let (first, second) = tokio::join!(get(server.addr, &sid), async {
            sleep(Duration::from_millis(5)).await;
            get(server.addr, &sid).await
        });
        assert_eq!((first.status, &*first.body), (200, "1:1"));
        assert_eq!((second.status, &*second.body), (400, ""));
        assert_eq!(get(server.addr, &sid).await.status, 400);
    }

    #[tokio::test]
    async fn polling_closes_the_session_upon_cancelled_polling_request() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let query = format!("EIO=3&transport=polling&sid={sid}");
        let poll = send_request(server.addr, "GET", &query, "", b"").await;
        sleep(Duration::from_millis(5)).await;
        drop(poll);
        assert_eq!(get(server.addr, &sid).await.status, 400);
        server.until_closed(&[CloseReason::TransportError]).await;
    }

    #[tokio::test]
    async fn websocket_sends_and_receives_a_plain_text_packet() {
        let server = serve_old().await;
        let mut ws = open_ws(server.addr).await;
        ws.text("4hello").await;
        assert_eq!(ws.next().await, text("4hello"));
    }

    #[tokio::test]
    async fn websocket_sends_and_receives_a_binary_packet() {
        let server = serve_old().await;
        let mut ws = open_ws(server.addr).await;
        ws.frame(0x82, &[4, 1, 2, 3]).await;
        assert_eq!(ws.next().await, Frame::Binary(vec![4, 1, 2, 3]));
        // A client may also send it as text, and one that asked for text gets it so.
        ws.text("b4AQID").await;
        assert_eq!(ws.next().await, Frame::Binary(vec![4, 1, 2, 3]));
        let query = format!("{}&b64=1", ws_query(None));
        let mut ws = Ws::try_connect(server.addr, &query).await.unwrap();
        ws.next().await;
        ws.text("b4AQID").await;
        assert_eq!(ws.next().await, text("b4AQID"));
    }

    #[tokio::test]
    async fn websocket_closes_the_session_upon_invalid_packet_format() {
        for frame in [&b"abc"[..], b"\x07\x01"] {
            let server = serve_old().await;
            let mut ws = open_ws(server.addr).await;
            ws.frame(if frame == b"abc" { 0x81 } else { 0x82 }, frame).await;
            assert_eq!(ws.next().await, Frame::Close(None));
            assert_eq!(ws.next().await, Frame::End);
            server.until_closed(&[CloseReason::ParseError]).await;
        }
    }
}

mod heartbeat {
    use super::*;

    #[tokio::test]
    async fn polling_sends_ping_pong_packets() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        for _ in 0..3 {
            assert_eq!(post(server.addr, &sid, "1:2").await.status, 200);
            assert_eq!(get(server.addr, &sid).await.body, "1:3");
        }
    }

    #[tokio::test]
    async fn polling_closes_the_session_upon_ping_timeout() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        server.until_closed(&[CloseReason::PingTimeout]).await;
        assert_eq!(get(server.addr, &sid).await.status, 400);
    }

    #[tokio::test]
    async fn websocket_sends_ping_pong_packets() {
        let server = serve_old().await;
        let mut ws = open_ws(server.addr).await;
        for _ in 0..3 {
            ws.text("2").await;
            assert_eq!(ws.next().await, text("3"));
        }
    }

    #[tokio::test]
    async fn websocket_closes_the_session_upon_ping_timeout() {
        let server = serve_old().await;
        let mut ws = open_ws(server.addr).await;
        assert_eq!(ws.next().await, Frame::Close(None), "and no ping before");
        assert_eq!(ws.next().await, Frame::End);
        server.until_closed(&[CloseReason::PingTimeout]).await;
    }
}

mod close {
    use super::*;

    #[tokio::test]
    async fn polling_forcefully_closes_the_session() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let (poll, closed) = tokio::join!(get(server.addr, &sid), async {
            sleep(Duration::from_millis(5)).await;
            post(server.addr, &sid, "1:1").await
        });
        assert_eq!((poll.status, &*poll.body), (200, "1:6"));
        assert_eq!((closed.status, &*closed.body), (200, "ok"));
        assert_eq!(get(server.addr, &sid).await.status, 400);
        server.until_closed(&[CloseReason::TransportClose]).await;
    }

    #[tokio::test]
    async fn websocket_forcefully_closes_the_session() {
        let server = serve_old().await;
        let mut ws = open_ws(server.addr).await;
        ws.text("1").await;
        assert_eq!(ws.next().await, Frame::Close(None));
        assert_eq!(ws.next().await, Frame::End);
        server.until_closed(&[CloseReason::TransportClose]).await;
    }
}

mod upgrading {
    use super::*;

    #[tokio::test]
    async fn successfully_upgrades_from_polling_to_websocket() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let mut ws = connect(server.addr, Some(&sid)).await;
        ws.text("2probe").await;
        assert_eq!(ws.next().await, text("3probe"));
        let poll = get(server.addr, &sid).await;
        assert_eq!((poll.status, &*poll.body), (200, "1:6"));
        ws.text("5").await;
        ws.text("4hello").await;
        assert_eq!(ws.next().await, text("4hello"));
        assert_eq!(server.engine.stats().upgrades, 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn ignores_http_requests_with_same_sid_after_upgrade() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let mut ws = upgrade(server.addr, &sid).await;
        assert_eq!(get(server.addr, &sid).await.status, 400);
        ws.text("4hello").await;
        assert_eq!(ws.next().await, text("4hello"));
    }

    #[tokio::test]
    async fn ignores_websocket_connection_with_same_sid_after_upgrade() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let mut ws = upgrade(server.addr, &sid).await;
        let mut second = connect(server.addr, Some(&sid)).await;
        assert_eq!(second.next().await, Frame::Close(None));
        assert_eq!(second.next().await, Frame::End);
        ws.text("4hello").await;
        assert_eq!(ws.next().await, text("4hello"));
    }

    #[tokio::test]
    async fn binary_that_waits_for_a_poll_leaves_on_the_websocket_with_its_type() {
        let server = serve_old().await;
        let sid = open(server.addr, "").await;
        let mut ws = connect(server.addr, Some(&sid)).await;
        server.handle().send(Frames::binary(&[7, 7])).unwrap();
        ws.text("2probe").await;
        assert_eq!(ws.next().await, text("3probe"));
        ws.text("5").await;
        assert_eq!(ws.next().await, Frame::Binary(vec![4, 7, 7]));
    }
}

mod jsonp {
    use super::*;

    fn scripts() -> Config {
        let mut config = calm();
        config.allow_eio3 = true;
        config.allow_jsonp = true;
        config
    }

    /// What a page's callback gets.
    fn called(answer: &Answer, number: &str) -> String {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=UTF-8"));
        let json = answer.body.strip_prefix(&format!("___eio[{number}](")).unwrap();
        serde_json::from_str(json.strip_suffix(");").unwrap()).unwrap()
    }

    async fn exchange(server: &Server, eio: &str, send: &str, receive: &str) {
        let base = format!("EIO={eio}&transport=polling&j=4");
        let opened = called(&request(server.addr, "GET", &base, "", b"").await, "4");
        let open = if eio == "3" { single(&opened) } else { &opened };
        let sid = common::sid_of(open);
        let query = format!("{base}&sid={sid}");
        let form = "content-type: application/x-www-form-urlencoded\r\n";
        let sent = request(server.addr, "POST", &query, form, send.as_bytes()).await;
        assert_eq!((sent.status, &*sent.body), (200, "ok"));
        assert_eq!(called(&request(server.addr, "GET", &query, "", b"").await, "4"), receive);
    }

    #[tokio::test]
    async fn packets_travel_as_scripts_and_forms() {
        let server = serve(scripts()).await;
        exchange(&server, "3", "d=6%3A4a%5Cnb%22%E2%80%A8", "6:4a\nb\"\u{2028}").await;
        exchange(&server, "3", "d=10%3Ab4AQIDBA%3D%3D", "10:b4AQIDBA==").await;
        exchange(&server, "4", "d=4a%1EbAQIDBA%3D%3D%1E4%5C%5Cn", "4a\x1ebAQIDBA==\x1e4\\n").await;
    }

    #[tokio::test]
    async fn a_form_without_its_field_is_a_parse_error() {
        let server = serve(scripts()).await;
        let opened = request(server.addr, "GET", "EIO=4&transport=polling&j=0", "", b"").await;
        let sid = common::sid_of(&called(&opened, "0"));
        request(server.addr, "POST", &format!("EIO=4&transport=polling&j=0&sid={sid}"), "", b"4hello").await;
        server.until_closed(&[CloseReason::ParseError]).await;
    }

    #[tokio::test]
    async fn it_is_off_unless_asked_for_and_calls_nothing_but_its_own_callbacks() {
        let server = serve_old().await;
        let answer = request(server.addr, "GET", "EIO=3&transport=polling&j=0", "", b"").await;
        assert_eq!((answer.status, &*answer.body), (400, r#"{"code":3,"message":"Bad request"}"#));
        let server = serve(scripts()).await;
        for number in ["", "alert(1)", "0](1);alert(1", "-1"] {
            let query = format!("EIO=4&transport=polling&j={number}");
            assert_eq!(request(server.addr, "GET", &query, "", b"").await.status, 400, "{number}");
        }
    }
}
