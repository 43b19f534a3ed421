//! Polling beyond the conformance suite: limits, overlaps, answers to bad requests, hooks.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use common::{Frame, Ws, calm, get, open, post, read_answer, request, send_request, serve, until, ws_query};
use http::request::Parts;
use sundew_engineio::{CloseReason, Frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

fn query(sid: &str) -> String {
    format!("EIO=4&transport=polling&sid={sid}")
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_session_lives() {
    let mut config = calm();
    config.max_payload = 1000;
    let server = serve(config).await;
    let sid = open(server.addr).await;
    let large = format!("4{}", "x".repeat(1000));
    let announced = post(server.addr, &sid, &large).await;
    assert_eq!((announced.status, &*announced.body), (413, ""));

    let mut chunked =
        send_request(server.addr, "POST", &query(&sid), "transfer-encoding: chunked\r\n", b"").await;
    for _ in 0..3 {
        chunked.write_all(format!("190\r\n{}\r\n", "x".repeat(400)).as_bytes()).await.unwrap();
    }
    chunked.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(read_answer(&mut chunked).await.status, 413);
    assert_eq!(server.engine.stats().refused, 2);

    let just_fits = format!("4{}", "y".repeat(999));
    assert_eq!(post(server.addr, &sid, &just_fits).await.status, 200);
    assert_eq!(get(server.addr, &sid).await.body, just_fits);
    assert_eq!(server.closed(), []);
}

#[tokio::test]
async fn where_upgrades_are_not_allowed_none_is_offered_and_none_happens() {
    let mut config = calm();
    config.allow_upgrades = false;
    let server = serve(config).await;
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    assert!(answer.body.contains(r#""upgrades":[],"#), "{} {}", answer.head, answer.body);
    let sid = open(server.addr).await;
    let mut ws = Ws::connect(server.addr, Some(&sid)).await;
    assert_eq!(ws.next().await, Frame::Close(None));
    assert_eq!(post(server.addr, &sid, "4echo").await.status, 200);
    assert_eq!(get(server.addr, &sid).await.body, "4echo");
}

#[tokio::test]
async fn a_much_larger_body_is_not_read_to_its_end() {
    let mut config = calm();
    config.max_payload = 1000;
    let server = serve(config).await;
    let sid = open(server.addr).await;
    let headers = "content-length: 1000000000\r\n";
    let mut stream = send_request(server.addr, "POST", &query(&sid), headers, b"").await;
    stream.write_all(&[b'x'; 8000]).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 413);
    assert_eq!(post(server.addr, &sid, "4still here").await.status, 200);
}

/// It would be kept, and its connection, for as long as the client likes.
#[tokio::test]
async fn a_body_that_does_not_end_ends_with_its_session() {
    let mut config = calm();
    config.ping_interval = Duration::from_millis(100);
    config.ping_timeout = Duration::from_millis(100);
    let server = serve(config).await;
    let sid = open(server.addr).await;
    let mut stream = send_request(server.addr, "POST", &query(&sid), "content-length: 1000\r\n", b"").await;
    stream.write_all(b"4x").await.unwrap();
    let answer = timeout(Duration::from_secs(10), read_answer(&mut stream)).await.expect("it ends");
    assert!(answer.status == 400 && answer.body.contains("\"code\":1"), "{} {}", answer.head, answer.body);
    assert_eq!(
        timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await.expect("it is closed").unwrap(),
        0
    );
    // Another body comes beside it, which ends the session at once.
    let mut config = calm();
    config.ping_timeout = Duration::from_secs(60);
    let server = serve(config).await;
    let sid = open(server.addr).await;
    let mut stream = send_request(server.addr, "POST", &query(&sid), "content-length: 1000\r\n", b"").await;
    stream.write_all(b"4x").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(post(server.addr, &sid, "4y").await.status, 400);
    let answer = timeout(Duration::from_secs(10), read_answer(&mut stream)).await.expect("it ends");
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn a_body_in_pieces_is_put_together() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let mut stream = send_request(server.addr, "POST", &query(&sid), "content-length: 6\r\n", b"").await;
    for byte in b"4hello" {
        stream.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(read_answer(&mut stream).await.body, "ok");
    assert_eq!(get(server.addr, &sid).await.body, "4hello");
}

#[tokio::test]
async fn an_octet_stream_ends_the_session() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let headers = "content-type: application/octet-stream\r\n";
    assert_eq!(request(server.addr, "POST", &query(&sid), headers, b"4x").await.status, 400);
    server.until_closed(&[CloseReason::TransportError]).await;
    assert_eq!(get(server.addr, &sid).await.status, 400);
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let text = "again and again ".repeat(64);
    for (accept, size, flag, encoding) in [
        ("gzip, deflate", text.len(), true, Some("gzip")),
        ("deflate", text.len(), true, Some("deflate")),
        ("br", text.len(), true, None),
        ("gzip", text.len(), false, None),
        ("gzip", 1000, true, None),
    ] {
        let frames = Frames::text(&text[..size]);
        let frames = if flag { frames } else { frames.without_compression() };
        server.handle().send(frames).unwrap();
        let headers = format!("accept-encoding: {accept}\r\n");
        let answer = request(server.addr, "GET", &query(&sid), &headers, b"").await;
        assert_eq!(answer.header("content-encoding"), encoding, "{accept}");
        let mut plain = String::new();
        match encoding {
            Some("gzip") => drop(flate2::read::GzDecoder::new(&answer.bytes[..]).read_to_string(&mut plain)),
            Some(_) => drop(flate2::read::ZlibDecoder::new(&answer.bytes[..]).read_to_string(&mut plain)),
            None => plain = answer.body,
        }
        assert_eq!(plain, format!("4{}", &text[..size]));
    }
    let mut config = calm();
    config.http_compression = None;
    let server = serve(config).await;
    let sid = open(server.addr).await;
    server.handle().send(Frames::text(&text)).unwrap();
    let answer = request(server.addr, "GET", &query(&sid), "accept-encoding: gzip\r\n", b"").await;
    assert_eq!((answer.header("content-encoding"), answer.body.len()), (None, 1 + text.len()));
}

#[tokio::test]
async fn overlapping_bodies_end_the_session() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let _first = send_request(server.addr, "POST", &query(&sid), "content-length: 10\r\n", b"").await;
    sleep(Duration::from_millis(20)).await;
    assert_eq!(post(server.addr, &sid, "4x").await.status, 400);
    server.until_closed(&[CloseReason::TransportError]).await;
}

#[tokio::test]
async fn a_body_whose_session_ended_meanwhile_is_answered() {
    let server = serve(calm()).await;
    for rest in ["67890", "\x1e4abc"] {
        let sid = open(server.addr).await;
        let mut first = send_request(server.addr, "POST", &query(&sid), "content-length: 10\r\n", b"").await;
        first.write_all(b"42345").await.unwrap();
        sleep(Duration::from_millis(20)).await;
        assert_eq!(post(server.addr, &sid, "4x").await.status, 400);
        until(|| !server.engine.has(&sid)).await;
        first.write_all(rest.as_bytes()).await.unwrap();
        let answer = timeout(Duration::from_secs(5), read_answer(&mut first)).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
    }
    assert_eq!(server.received(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_body_ends_the_session() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let first = send_request(server.addr, "POST", &query(&sid), "content-length: 10\r\n", b"").await;
    sleep(Duration::from_millis(20)).await;
    drop(first);
    server.until_closed(&[CloseReason::TransportError]).await;
}

#[tokio::test]
async fn messages_before_a_bad_packet_are_delivered() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let answer = post(server.addr, &sid, "4good\x1eabc\x1e4never").await;
    assert_eq!((answer.status, &*answer.body), (200, "ok"));
    server.until_closed(&[CloseReason::ParseError]).await;
    assert!(server.received() <= 1);
}

#[tokio::test]
async fn other_methods_on_a_session_are_no_use() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    for method in ["PUT", "DELETE", "OPTIONS"] {
        let answer = request(server.addr, method, &query(&sid), "", b"").await;
        assert_eq!((answer.status, &*answer.body), (500, ""));
    }
    assert_eq!(post(server.addr, &sid, "4x").await.status, 200);
}

#[tokio::test]
async fn a_session_that_is_behind_holds_the_answer_back() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    server.gate(true);
    let addr = server.addr;
    let posted = {
        let sid = sid.clone();
        tokio::spawn(async move { post(addr, &sid, "4held").await })
    };
    sleep(Duration::from_millis(100)).await;
    assert!(!posted.is_finished());
    assert_eq!(server.received(), 0);
    server.gate(false);
    assert_eq!(posted.await.unwrap().body, "ok");
    assert_eq!(get(server.addr, &sid).await.body, "4held");
}

#[tokio::test]
async fn what_is_sent_from_elsewhere_answers_the_waiting_poll() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let handle = server.handle();
    assert!(handle.is_writable(), "idle between two polls");
    let (poll, ()) = tokio::join!(get(server.addr, &sid), async {
        sleep(Duration::from_millis(20)).await;
        handle.send(Frames::with_attachments("51-x", &[vec![1, 2, 3, 4].into()])).unwrap();
    });
    assert_eq!(poll.body, "451-x\x1ebAQIDBA==");
    handle.send(Frames::text("queued")).unwrap();
    assert!(!handle.is_writable());
}

#[tokio::test]
async fn closing_answers_the_waiting_poll() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let handle = server.handle();
    let (poll, ()) = tokio::join!(get(server.addr, &sid), async {
        sleep(Duration::from_millis(20)).await;
        handle.close(CloseReason::ForcedClose);
    });
    assert_eq!((poll.status, &*poll.body), (200, "1"));
    server.until_closed(&[CloseReason::ForcedClose]).await;
    assert_eq!(get(server.addr, &sid).await.status, 400);
    until(|| server.engine.stats().sessions == 0).await;
    assert!(!handle.is_open());
    assert!(handle.send(Frames::text("late")).is_err());
}

#[tokio::test]
async fn closing_waits_for_the_next_poll_but_not_for_ever() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    server.handle().send(Frames::text("last")).unwrap();
    server.handle().close(CloseReason::ForcedClose);
    assert_eq!(get(server.addr, &sid).await.body, "4last");
    assert_eq!(get(server.addr, &sid).await.body, "1");
    let _never_polls = open(server.addr).await;
    server.handle().close(CloseReason::ForcedClose);
    assert_eq!(server.engine.stats().sessions, 1);
    until(|| server.engine.stats().sessions == 0).await;
}

#[tokio::test]
async fn handshakes_can_be_refused() {
    let mut config = calm();
    config.allow_request = Some(Arc::new(|parts: &Parts| {
        let text = parts.headers.get("x-say").map(|text| text.to_str().unwrap().to_owned());
        Box::pin(async move { text.map_or(Ok(()), Err) })
    }));
    let server = serve(config).await;
    let plain = request(server.addr, "GET", "EIO=4&transport=polling", "x-say: \r\n", b"").await;
    assert_eq!((plain.status, &*plain.body), (403, r#"{"code":4,"message":"Forbidden"}"#));
    let own = request(server.addr, "GET", "EIO=4&transport=polling", "x-say: no \"you\"\r\n", b"").await;
    assert_eq!((own.status, &*own.body), (403, r#"{"code":4,"message":"no \"you\""}"#));
    assert_eq!(own.header("content-type"), Some("application/json"));
    assert_eq!(server.engine.stats().refused, 2);
    // Whoever has a session is not asked again.
    let sid = open(server.addr).await;
    let query = format!("EIO=4&transport=polling&sid={sid}");
    assert_eq!(request(server.addr, "POST", &query, "x-say: no\r\n", b"4x").await.status, 200);
}

#[tokio::test]
async fn ids_are_the_applications_choice() {
    let mut config = calm();
    config.generate_id = Arc::new(|parts: &Parts| {
        parts.headers.get("x-id").map_or("a".repeat(64), |id| id.to_str().unwrap().into())
    });
    let server = serve(config).await;
    let sid = open(server.addr).await;
    assert_eq!(sid, "a".repeat(64));
    assert_eq!(post(server.addr, &sid, "4x").await.status, 200);
    let taken = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    assert_eq!((taken.status, &*taken.body), (400, r#"{"code":3,"message":"Bad request"}"#));
    let useless = request(server.addr, "GET", "EIO=4&transport=polling", "x-id: a b\r\n", b"").await;
    assert_eq!(useless.status, 400);
    assert_eq!(get(server.addr, &sid).await.body, "4x", "the first session is untouched");
}

#[tokio::test]
async fn there_is_a_bound_on_sessions() {
    let mut config = calm();
    config.max_sessions = 1;
    let server = serve(config).await;
    let _sid = open(server.addr).await;
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    assert_eq!((answer.status, &*answer.body), (503, r#"{"message":"too many sessions"}"#));
}

#[tokio::test]
async fn cross_origin_answers_are_on_errors_too() {
    let server = serve(common::quick()).await;
    let preflight =
        request(server.addr, "OPTIONS", "EIO=4&transport=polling", "origin: http://a\r\n", b"").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    let error = request(server.addr, "GET", "", "origin: http://a\r\n", b"").await;
    assert_eq!(error.status, 400);
    assert_eq!(error.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn the_transport_must_be_the_sessions() {
    let server = serve(calm()).await;
    let (_ws, sid) = Ws::open(server.addr).await;
    let poll = get(server.addr, &sid).await;
    assert_eq!((poll.status, &*poll.body), (400, r#"{"code":3,"message":"Bad request"}"#));
    let unknown = Ws::try_connect(server.addr, &ws_query(Some("unknown"))).await.err().unwrap();
    assert_eq!((unknown.status, &*unknown.body), (400, "Session ID unknown"));
    assert_eq!(unknown.header("content-type"), Some("text/html"));
    assert_eq!(unknown.header("connection"), Some("close"));
}

#[tokio::test]
async fn the_peers_address_is_passed_on() {
    let server = serve(calm()).await;
    open(server.addr).await;
    Ws::open(server.addr).await;
    let log = server.echo.log.lock().unwrap();
    assert!(log.peers.iter().all(|peer| peer.unwrap().ip() == server.addr.ip()), "{:?}", log.peers);
}

#[tokio::test]
async fn a_body_of_very_many_messages_is_worked_off_as_the_session_takes_them() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    server.echo.gate.lock().unwrap().after = Some(10);
    let addr = server.addr;
    let body = vec!["4x"; 1000].join("\x1e");
    let posted = {
        let sid = sid.clone();
        tokio::spawn(async move { post(addr, &sid, &body).await })
    };
    until(|| server.received() == 10).await;
    sleep(Duration::from_millis(20)).await;
    assert_eq!(server.received(), 10);
    assert!(!posted.is_finished());
    server.gate(false);
    assert_eq!(posted.await.unwrap().body, "ok");
    assert_eq!(server.received(), 1000);
}

#[tokio::test]
async fn a_body_for_a_session_that_is_closing_is_answered() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    server.handle().close(CloseReason::ForcedClose);
    assert_eq!(post(server.addr, &sid, "4late").await.status, 200);
    assert_eq!(server.received(), 0);
    assert_eq!(get(server.addr, &sid).await.body, "1");
}

#[tokio::test]
async fn a_protocol_that_panics_costs_its_session_only() {
    let server = serve(calm()).await;
    let (mut other, _) = Ws::open(server.addr).await;
    let sid = open(server.addr).await;
    assert_eq!(post(server.addr, &sid, "4panic").await.status, 200);
    server.until_closed(&[CloseReason::TransportError]).await;
    assert_eq!(get(server.addr, &sid).await.status, 400);
    let (mut ws, _) = Ws::open(server.addr).await;
    ws.text("4panic").await;
    assert_eq!(ws.next().await, common::Frame::End);
    other.text("4fine").await;
    assert_eq!(other.next().await, common::text("4fine"));
    assert_eq!(server.engine.stats().sessions, 1);
}

/// A second panic while the first unwinds is the end of a process, unless it is caught.
#[tokio::test]
async fn a_protocol_that_panics_at_its_end_too_costs_its_session_only() {
    let server = serve(calm()).await;
    let (mut other, _) = Ws::open(server.addr).await;
    let sid = open(server.addr).await;
    assert_eq!(post(server.addr, &sid, "4panic twice").await.status, 200);
    server.until_closed(&[CloseReason::TransportError]).await;
    assert_eq!(get(server.addr, &sid).await.status, 400);
    other.text("4fine").await;
    assert_eq!(other.next().await, common::text("4fine"));
    assert_eq!(server.engine.stats().sessions, 1);
}
