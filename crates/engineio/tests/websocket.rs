//! Websockets beyond the conformance suite: upgrades, framing, limits, peers that do not read.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Frame, Server, Ws, calm, encode, get, open, quick, send_request, serve, text, until, ws_query};
use sundew_engineio::{CloseReason, Frames, SendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn a_waiting_poll_returns_at_once_when_the_probe_speaks() {
    let server = serve(calm()).await;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let sid = open(server.addr).await;
        let query = format!("EIO=4&transport=polling&sid={sid}");
        let mut poll = send_request(server.addr, "GET", &query, "", b"").await;
        sleep(Duration::from_millis(20)).await;
        let mut ws = Ws::connect(server.addr, Some(&sid)).await;
        let begin = Instant::now();
        ws.text("2probe").await;
        assert_eq!(common::read_answer(&mut poll).await.body, "6");
        waits.push(begin.elapsed());
        assert_eq!(ws.next().await, text("3probe"));
        ws.text("5").await;
        ws.text("4x").await;
        assert_eq!(ws.next().await, text("4x"));
    }
    // The machine may be busy, but not each time.
    assert!(waits.iter().min().unwrap() < &Duration::from_millis(50), "{waits:?}");
}

/// No timer in the way: Node answers them every 100 ms.
#[tokio::test]
async fn every_poll_between_probe_and_upgrade_returns_at_once() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let mut ws = Ws::connect(server.addr, Some(&sid)).await;
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    let polls = async {
        for _ in 0..100 {
            let answer = get(server.addr, &sid).await;
            assert_eq!((answer.status, &*answer.body), (200, "6"));
        }
    };
    // On a timer of 100 ms these took 10 s.
    tokio::time::timeout(Duration::from_secs(5), polls).await.unwrap();
    ws.text("5").await;
    ws.text("4x").await;
    assert_eq!(ws.next().await, text("4x"));
}

#[tokio::test]
async fn a_poll_after_a_failed_probe_waits_again() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let mut ws = Ws::connect(server.addr, Some(&sid)).await;
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    ws.text("4early").await;
    assert_eq!(ws.next().await, Frame::Close(None));
    let query = format!("EIO=4&transport=polling&sid={sid}");
    let mut poll = send_request(server.addr, "GET", &query, "", b"").await;
    sleep(Duration::from_millis(50)).await;
    server.handle().send(Frames::text("later")).unwrap();
    assert_eq!(common::read_answer(&mut poll).await.body, "4later");
}

#[tokio::test]
async fn nothing_behind_the_upgrade_packet_is_lost() {
    let server = serve(calm()).await;
    let burst =
        [encode(0x81, b"5"), encode(0x81, b"4one"), encode(0x82, &[2]), encode(0x81, b"4three")].concat();
    for cut in 1..burst.len() {
        let sid = open(server.addr).await;
        server.handle().send(Frames::text("backlog")).unwrap();
        let mut ws = Ws::connect(server.addr, Some(&sid)).await;
        ws.text("2probe").await;
        assert_eq!(ws.next().await, text("3probe"));
        let (head, tail) = burst.split_at(cut);
        ws.0.write_all(head).await.unwrap();
        // So that it is read in two parts.
        sleep(Duration::from_millis(2)).await;
        ws.0.write_all(tail).await.unwrap();
        for expected in [text("4backlog"), text("4one"), Frame::Binary(vec![2]), text("4three")] {
            assert_eq!(ws.next().await, expected);
        }
    }
    assert_eq!(server.engine.stats().upgrades, burst.len() as u64 - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_the_server_says_during_an_upgrade_arrives_once_and_in_order() {
    const ALL: usize = 40;
    let server = serve(calm()).await;
    for _ in 0..20 {
        let sid = open(server.addr).await;
        let handle = server.handle();
        let saying = tokio::spawn(async move {
            for number in 0..ALL {
                handle.send(Frames::text(&number.to_string())).unwrap();
                sleep(Duration::from_millis(1)).await;
            }
        });
        let mut heard = Vec::new();
        let mut ws = Ws::connect(server.addr, Some(&sid)).await;
        ws.text("2probe").await;
        assert_eq!(ws.next().await, text("3probe"));
        // As clients do: the upgrade follows the first poll that brings nothing.
        loop {
            let body = get(server.addr, &sid).await.body;
            if body == "6" {
                break;
            }
            heard.extend(body.split('\x1e').map(str::to_owned));
        }
        ws.text("5").await;
        while heard.len() < ALL {
            let Frame::Text(message) = ws.next().await else { panic!("{heard:?}") };
            heard.push(message);
        }
        assert_eq!(heard, (0..ALL).map(|number| format!("4{number}")).collect::<Vec<_>>());
        saying.await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_probe_leaves_the_polling_session_alive() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    // Each leaves in its own way.
    let mut rude = Ws::connect(server.addr, Some(&sid)).await;
    rude.text("2probe").await;
    assert_eq!(rude.next().await, text("3probe"));
    drop(rude);
    let mut closing = retry(&server, &sid).await;
    closing.frame(0x88, &[]).await;
    assert_eq!(closing.next().await, Frame::Close(None));
    let mut babbling = retry(&server, &sid).await;
    babbling.text("4early").await;
    assert_eq!(babbling.next().await, Frame::Close(None));
    let mut broken = retry(&server, &sid).await;
    broken.0.write_all(&[0x81, 0x01, b'x']).await.unwrap();
    assert_eq!(broken.next().await, Frame::Close(Some(1002)));

    assert_eq!(common::post(server.addr, &sid, "4alive").await.status, 200);
    assert_eq!(get(server.addr, &sid).await.body, "4alive");
    let mut ws = retry(&server, &sid).await;
    ws.text("5").await;
    ws.text("4x").await;
    assert_eq!(ws.next().await, text("4x"));
    assert_eq!(server.closed(), []);
}

/// A probe that has been answered, once the session has noticed the end of the one before.
async fn retry(server: &common::Server, sid: &str) -> Ws {
    for _ in 0..100 {
        let mut ws = Ws::connect(server.addr, Some(sid)).await;
        ws.text("2probe").await;
        if ws.next().await == text("3probe") {
            return ws;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the session takes no probe");
}

#[tokio::test]
async fn a_silent_probe_is_closed_after_the_upgrade_timeout() {
    let mut config = calm();
    config.upgrade_timeout = Duration::from_millis(100);
    let server = serve(config).await;
    let sid = open(server.addr).await;
    let mut ws = Ws::connect(server.addr, Some(&sid)).await;
    assert_eq!(ws.next().await, Frame::Close(None));
    assert_eq!(server.closed(), []);
    Ws::upgrade(server.addr, &sid).await;
}

#[tokio::test]
async fn a_probe_that_goes_no_further_is_closed_too_and_polls_wait_again() {
    let mut config = calm();
    config.upgrade_timeout = Duration::from_millis(100);
    let server = serve(config).await;
    let sid = open(server.addr).await;
    let mut ws = Ws::connect(server.addr, Some(&sid)).await;
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    assert_eq!(ws.next().await, Frame::Close(None));
    let query = format!("EIO=4&transport=polling&sid={sid}");
    let mut poll = send_request(server.addr, "GET", &query, "", b"").await;
    sleep(Duration::from_millis(50)).await;
    server.handle().send(Frames::text("still on polling")).unwrap();
    assert_eq!(common::read_answer(&mut poll).await.body, "4still on polling");
}

/// A probe whose client takes nothing: the server is in the middle of writing to it. Completes when its connection ends.
async fn jammed(server: &Server, sid: &str) -> impl Future<Output = ()> {
    let (client, stream) = tokio::io::duplex(512);
    common::serve_stream(server.engine.clone(), stream, "192.0.2.1:1".parse().unwrap());
    let mut ws = Ws::over(client, &ws_query(Some(sid)), b"").await.ok().unwrap();
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    let pings = tokio::spawn(async move {
        let ping = encode(0x89, &[b'x'; 125]);
        while ws.0.write_all(&ping).await.is_ok() {}
    });
    sleep(Duration::from_millis(50)).await;
    assert!(!pings.is_finished());
    async move { timeout(Duration::from_secs(5), pings).await.expect("the probe goes on").unwrap() }
}

#[tokio::test]
async fn a_probe_whose_answers_nobody_takes_is_given_up_and_a_poll_behind_it_goes_on() {
    let mut config = calm();
    config.upgrade_timeout = Duration::from_millis(400);
    let server = serve(config).await;
    let sid = open(server.addr).await;
    let over = jammed(&server, &sid).await;
    let query = format!("EIO=4&transport=polling&sid={sid}");
    let mut poll = send_request(server.addr, "GET", &query, "", b"").await;
    over.await;
    server.handle().send(Frames::text("still on polling")).unwrap();
    assert_eq!(common::read_answer(&mut poll).await.body, "4still on polling");
}

#[tokio::test]
async fn a_probe_whose_answers_nobody_takes_ends_with_its_session_and_a_poll_behind_it_is_answered() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let over = jammed(&server, &sid).await;
    let query = format!("EIO=4&transport=polling&sid={sid}");
    let mut poll = send_request(server.addr, "GET", &query, "", b"").await;
    sleep(Duration::from_millis(50)).await;
    server.handle().close(CloseReason::ForcedClose);
    // Long before the upgrade timeout.
    over.await;
    assert_eq!(common::read_answer(&mut poll).await.body, "1");
}

#[tokio::test]
async fn what_is_said_when_a_session_is_closed_on_its_way_arrives() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let mut ws = Ws::connect(server.addr, Some(&sid)).await;
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    server.handle().send(Frames::text("last")).unwrap();
    server.handle().close(CloseReason::ForcedClose);
    server.until_closed(&[CloseReason::ForcedClose]).await;
    sleep(Duration::from_millis(20)).await;
    ws.text("5").await;
    assert_eq!(ws.next().await, text("4last"));
    assert_eq!(ws.next().await, Frame::Close(None));
    until(|| server.engine.stats().sessions == 0).await;
    // One that is not heard of again is not waited for longer than for any other.
    let mut config = calm();
    config.close_timeout = Duration::from_millis(200);
    let server = serve(config).await;
    let sid = open(server.addr).await;
    let mut ws = Ws::connect(server.addr, Some(&sid)).await;
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    server.handle().close(CloseReason::ForcedClose);
    assert_eq!(ws.next().await, Frame::Close(None));
    until(|| server.engine.stats().sessions == 0).await;
}

/// A body under way when the session moves, and given up then.
#[tokio::test]
async fn a_request_that_is_lost_after_the_upgrade_is_no_matter() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let query = format!("EIO=4&transport=polling&sid={sid}");
    let body = send_request(server.addr, "POST", &query, "content-length: 100\r\n", b"").await;
    sleep(Duration::from_millis(20)).await;
    let mut ws = Ws::upgrade(server.addr, &sid).await;
    ws.text("4one").await;
    assert_eq!(ws.next().await, text("4one"));
    drop(body);
    sleep(Duration::from_millis(50)).await;
    ws.text("4two").await;
    assert_eq!(ws.next().await, text("4two"));
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_held_back_is_noticed() {
    let server = serve(quick()).await;
    server.gate(true);
    let (ws, _) = Ws::open(server.addr).await;
    drop(ws);
    server.until_closed(&[CloseReason::TransportClose]).await;
}

#[tokio::test]
async fn a_probe_ends_with_its_session() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let mut ws = Ws::connect(server.addr, Some(&sid)).await;
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    server.handle().close(CloseReason::ForcedClose);
    assert_eq!(ws.next().await, Frame::Close(None));
}

#[tokio::test]
async fn bytes_sent_together_with_the_handshake_are_read() {
    let server = serve(calm()).await;
    let mut ws = Ws::connect_with(server.addr, &ws_query(None), &encode(0x81, b"4early")).await.ok().unwrap();
    assert!(matches!(ws.next().await, Frame::Text(open) if open.starts_with("0{")));
    assert_eq!(ws.next().await, text("4early"));
}

/// Clients fail a handshake that takes none of what they offer.
#[tokio::test]
async fn the_first_subprotocol_offered_is_taken() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    for sid in [None, Some(&*sid)] {
        for (offer, taken) in [("chat.v2, other", Some("chat.v2")), ("no token, other", None)] {
            let headers = format!(
                "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {offer}\r\n"
            );
            let mut stream = send_request(server.addr, "GET", &ws_query(sid), &headers, b"").await;
            let answer = common::read_answer(&mut stream).await;
            assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, taken), "{offer}");
        }
    }
}

#[tokio::test]
async fn one_byte_at_a_time_is_enough() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    let long = format!("4{}", "x".repeat(300));
    for byte in [encode(0x81, b"4a"), encode(0x81, long.as_bytes())].concat() {
        ws.0.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(ws.next().await, text("4a"));
    assert_eq!(ws.next().await, text(&long));
}

#[tokio::test]
async fn fragments_and_control_frames_mix() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    ws.frame(0x01, b"4frag").await;
    ws.frame(0x89, b"ping").await;
    ws.frame(0x80, b"ments").await;
    assert_eq!(ws.next().await, Frame::Pong(b"ping".to_vec()));
    assert_eq!(ws.next().await, text("4fragments"));
}

/// As clients with `forceBase64` send it.
#[tokio::test]
async fn binary_may_come_as_base64() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    ws.text("bAQIDBA==").await;
    assert_eq!(ws.next().await, Frame::Binary(vec![1, 2, 3, 4]));
    ws.text("4x").await;
    ws.text("bAQ").await;
    assert_eq!(ws.next().await, text("4x"));
    assert_eq!(ws.next().await, Frame::Binary(vec![1]));
    ws.text("b!!").await;
    assert_eq!(ws.next().await, Frame::Close(None));
    server.until_closed(&[CloseReason::ParseError]).await;
}

#[tokio::test]
async fn large_messages_pass_and_too_large_ones_close() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    let large = vec![7; 999_999];
    ws.frame(0x82, &large).await;
    assert_eq!(ws.next().await, Frame::Binary(large));
    let _ = ws.0.write_all(&encode(0x82, &vec![7; 1_000_001])).await;
    assert_eq!(ws.next().await, Frame::Close(Some(1009)));
    server.until_closed(&[CloseReason::TransportError]).await;
}

#[tokio::test]
async fn broken_rules_are_answered_with_their_code() {
    let server = serve(calm()).await;
    for (bytes, code) in [
        (vec![0x81, 0x01, b'4'], 1002),
        (encode(0xc1, b"4"), 1002),
        (encode(0x80, b"4"), 1002),
        (encode(0x81, b"4\xff"), 1007),
    ] {
        let (mut ws, _) = Ws::open(server.addr).await;
        ws.0.write_all(&bytes).await.unwrap();
        assert_eq!(ws.next().await, Frame::Close(Some(code)), "{bytes:?}");
        assert_eq!(ws.next().await, Frame::End);
    }
    server.until_closed(&[CloseReason::TransportError; 4]).await;
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    ws.frame(0x88, &1001u16.to_be_bytes()).await;
    assert_eq!(ws.next().await, Frame::Close(Some(1001)));
    assert_eq!(ws.next().await, Frame::End);
    server.until_closed(&[CloseReason::TransportClose]).await;
    assert_eq!(server.engine.stats().sessions, 0);
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_transport_close() {
    let server = serve(calm()).await;
    let (ws, _) = Ws::open(server.addr).await;
    drop(ws);
    server.until_closed(&[CloseReason::TransportClose]).await;
}

#[tokio::test]
async fn answers_to_one_read_leave_in_one_write() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    let burst: Vec<u8> = (0..8).flat_map(|number| encode(0x81, format!("4{number}").as_bytes())).collect();
    ws.0.write_all(&burst).await.unwrap();
    let mut answers = [0; 1024];
    let read = ws.0.read(&mut answers).await.unwrap();
    assert_eq!(read, 8 * 4);
}

#[tokio::test]
async fn closing_sends_what_is_queued_first() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    let handle = server.handle();
    handle.send(Frames::text("last")).unwrap();
    handle.close(CloseReason::ForcedClose);
    assert_eq!(ws.next().await, text("4last"));
    assert_eq!(ws.next().await, Frame::Close(None));
    assert_eq!(ws.next().await, Frame::End);
    server.until_closed(&[CloseReason::ForcedClose]).await;
}

#[tokio::test]
async fn what_follows_the_end_in_the_same_read_is_not_handed_on() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    let burst: Vec<u8> = ["one", "two", "end", "late", "later"]
        .iter()
        .flat_map(|message| encode(0x81, format!("4{message}").as_bytes()))
        .collect();
    ws.0.write_all(&burst).await.unwrap();
    for answer in ["4one", "4two"] {
        assert_eq!(ws.next().await, text(answer));
    }
    assert_eq!(ws.next().await, Frame::Close(None));
    assert_eq!(ws.next().await, Frame::End);
    server.until_closed(&[CloseReason::ForcedClose]).await;
    assert_eq!(server.received(), 3);
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_its_bound_and_is_gone_by_the_deadline() {
    let mut config = calm();
    config.max_queued_bytes = 300_000;
    let server = serve(config).await;
    let (ws, _) = Ws::open(server.addr).await;
    let handle = server.handle();
    let frames = Frames::binary(&[7; 100_000]);
    let mut taken = 0;
    let full = loop {
        match handle.send(frames.clone()) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        // The kernel takes some megabytes; 600 would be the whole 60 MB.
        assert!(taken < 600);
    };
    assert!(matches!(full, SendError::Full(ref back) if *back == frames));
    assert!(!handle.is_writable());
    assert!(timeout(Duration::from_millis(50), handle.ready()).await.is_err(), "there is no room");
    let begin = Instant::now();
    handle.close(CloseReason::ForcedClose);
    server.until_closed(&[CloseReason::ForcedClose]).await;
    until(|| server.engine.stats().sessions == 0).await;
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(handle.ready().await, Err(sundew_engineio::Closed));
    drop(ws);
}

#[tokio::test]
async fn a_peer_that_reads_again_gets_everything_in_order() {
    let mut config = calm();
    config.max_queued_bytes = 1_000_000;
    let server = serve(config).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    let handle = server.handle();
    let sender = tokio::spawn(async move {
        for number in 0..300u32 {
            let mut data = vec![0; 100_000];
            data[..4].copy_from_slice(&number.to_be_bytes());
            let mut frames = Frames::binary(&data);
            while let Err(SendError::Full(back)) = handle.send(frames) {
                frames = back;
                handle.ready().await.unwrap();
            }
        }
    });
    sleep(Duration::from_millis(50)).await;
    for number in 0..300u32 {
        let Frame::Binary(data) = ws.next().await else { panic!() };
        assert_eq!(data.len(), 100_000);
        assert_eq!(data[..4], number.to_be_bytes());
    }
    sender.await.unwrap();
    assert!(server.handle().is_writable());
}

#[tokio::test]
async fn a_session_that_is_behind_stops_reading() {
    let server = serve(calm()).await;
    let (mut ws, _) = Ws::open(server.addr).await;
    server.gate(true);
    // One read may still be under way.
    ws.text("4a").await;
    sleep(Duration::from_millis(50)).await;
    let before = server.received();
    ws.text("4b").await;
    ws.text("4c").await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(server.received(), before);
    server.gate(false);
    for expected in ["4a", "4b", "4c"] {
        assert_eq!(ws.next().await, text(expected));
    }
}

#[tokio::test]
async fn five_hundred_upgrades_lose_nothing() {
    let server = serve(calm()).await;
    let addr = server.addr;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..500 {
        tasks.spawn(async move {
            let sid = open(addr).await;
            let query = format!("EIO=4&transport=polling&sid={sid}");
            let mut poll = send_request(addr, "GET", &query, "", b"").await;
            let mut ws = Ws::connect(addr, Some(&sid)).await;
            ws.text("2probe").await;
            assert_eq!(ws.next().await, text("3probe"));
            assert_eq!(common::read_answer(&mut poll).await.body, "6");
            ws.text("5").await;
            ws.text(&format!("4{number}")).await;
            assert_eq!(ws.next().await, text(&format!("4{number}")));
            ws
        });
    }
    let sockets = tasks.join_all().await;
    let stats = server.engine.stats();
    assert_eq!((stats.websocket, stats.polling, stats.upgrades), (500, 0, 500));
    drop(sockets);
    until(|| server.engine.stats().sessions == 0).await;
}

/// RFC 6455 §4.4: it is told which version is served.
#[tokio::test]
async fn a_request_that_asks_for_no_websocket_gets_none() {
    let server = serve(calm()).await;
    let (_ws, sid) = Ws::open(server.addr).await;
    let key = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (method, asks) in [
        ("GET", ""),
        ("GET", "upgrade: h2c\r\nconnection: upgrade\r\n"),
        ("POST", "upgrade: websocket\r\nconnection: upgrade\r\n"),
        ("PUT", "upgrade: foo\r\n"),
    ] {
        let answer =
            common::request(server.addr, method, &ws_query(Some(&sid)), &format!("{key}{asks}"), b"").await;
        let expected = (400, r#"{"code":3,"message":"Bad request"}"#);
        assert_eq!((answer.status, &*answer.body), expected, "{method} {asks}");
    }
    assert_eq!(server.closed(), []);
}

#[tokio::test]
async fn another_version_of_the_websocket_protocol_is_refused_by_name() {
    let server = serve(calm()).await;
    for version in ["sec-websocket-version: 8\r\n", "sec-websocket-version: 14\r\n", ""] {
        let headers = format!(
            "upgrade: websocket\r\nconnection: Upgrade\r\n{version}sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        let answer = common::request(server.addr, "GET", &ws_query(None), &headers, b"").await;
        assert_eq!((answer.status, answer.header("sec-websocket-version")), (400, Some("13")), "{version}");
    }
    // What is wrong elsewhere is not its matter.
    let headers =
        "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n";
    let answer = common::request(server.addr, "GET", &ws_query(None), headers, b"").await;
    assert_eq!((answer.status, answer.header("sec-websocket-version")), (400, None));
}
