//! What heads are accepted, what they mean, and how they are written for a leg.

use super::*;
use crate::http::forward::{Manner, Peers};

fn with<T>(text: &str, look: impl FnOnce(Result<Head<'_, '_>, Fault>) -> T) -> T {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    look(parse(text.as_bytes(), &mut storage))
}

/// The client is at the other end of the connection.
fn direct(peer: Option<&str>) -> Peers<'static> {
    let peer = peer.map(|peer| peer.parse().unwrap());
    Peers { client: peer, last_hop: peer, secure: false, request_id: None }
}

fn fault(text: &str) -> Option<Fault> {
    with(text, |head| head.err())
}

fn written(text: &str, peer: &str, place: bool) -> String {
    with(text, |head| {
        let mut out = Vec::new();
        head.unwrap().write(&mut out, direct(Some(peer)), Manner::Forwarded { native: true, place }, false);
        String::from_utf8(out).unwrap()
    })
}

#[test]
fn the_end_is_found_wherever_the_head_is_cut() {
    let text = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
    let end = text.len() - 4;
    for cut in 0..=text.len() {
        let found = find_end(&text[..cut], 0);
        assert_eq!(found, (cut >= end).then_some(end), "cut at {cut}");
        assert_eq!(find_end(text, cut.min(end - 1)), Some(end), "searched {cut}");
    }
    assert_eq!(find_end(b"\r\n\r\n\r\n", 0), None, "empty lines are no request");
}

#[test]
fn ambiguous_requests_are_refused() {
    let malformed = |text| matches!(fault(text), Some(Fault::Malformed(_)));
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET foo HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\0\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        assert!(malformed(bad), "{bad:?}: {:?}", fault(bad));
    }
    for bad in ["gzip", "chunked, gzip", "gzip, chunked", "identity", "xchunked", "chunked, chunked"] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {bad}\r\n\r\n");
        assert!(matches!(fault(&text), Some(Fault::Unsupported(_))), "{bad}");
    }
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS));
    assert_eq!(fault(&many), Some(Fault::Headers));
    assert_eq!(fault("GET / HTTP/3.0\r\nHost: a\r\n\r\n"), Some(Fault::Version));
}

#[test]
fn garbage_is_known_before_it_is_complete() {
    assert!(probe(b"\x16\x03\x01\x02\x00").is_err(), "TLS on a plain port");
    assert!(probe(b"GET / HTTP/1.1\nHost: a\n\n").is_err());
    assert!(probe(b"GET / HT").is_ok());
    assert!(probe(b"GET / HTTP/1.1\r\nHo").is_ok());
}

#[test]
fn what_it_means_for_the_connection() {
    let keep = |text: &str| with(text, |head| head.unwrap().keep_alive);
    assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
    assert!(keep("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));

    let upgrade = |line: &str, connection: &str, extra: &str| {
        let text = format!("{line}\r\nHost: a\r\nConnection: {connection}\r\n{extra}\r\n");
        with(&text, |head| head.unwrap().upgrade)
    };
    let ws = "Upgrade: WebSocket\r\n";
    assert_eq!(upgrade("GET / HTTP/1.1", "keep-alive, Upgrade", ws), Upgrade::WebSocket);
    assert_eq!(upgrade("GET / HTTP/1.1", "keep-alive", ws), Upgrade::None);
    assert_eq!(upgrade("GET / HTTP/1.0", "upgrade", ws), Upgrade::None);
    assert_eq!(upgrade("POST / HTTP/1.1", "upgrade", ws), Upgrade::Other);
    assert_eq!(upgrade("GET / HTTP/1.1", "upgrade", "Upgrade: foo/2\r\n"), Upgrade::Other);
    assert_eq!(upgrade("GET / HTTP/1.1", "upgrade", "Upgrade: h2c\r\n"), Upgrade::None);
    assert_eq!(upgrade("GET / HTTP/1.1", "upgrade", &format!("{ws}Content-Length: 3\r\n")), Upgrade::None);
}

#[test]
fn a_leg_carries_the_client_and_not_its_connection() {
    let text = "GET /a?b HTTP/1.1\r\nHOST: x:1\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
                X-Sundew-Peer: 1.1.1.1:1; place\r\nx-sundew-other: 1\r\nX-Forwarded-For: 9.9.9.9\r\nCookie: c\r\n\r\n";
    let expected = "GET /a?b HTTP/1.1\r\nCookie: c\r\nhost: x:1\r\nconnection: keep-alive\r\nx-forwarded-proto: http\r\n\
                    x-forwarded-host: x:1\r\nx-forwarded-for: 9.9.9.9, 10.0.0.1\r\nx-sundew-peer: 10.0.0.1:5; place\r\n\r\n";
    assert_eq!(written(text, "10.0.0.1:5", true), expected);
}

#[test]
fn old_clients_and_whole_addresses_are_written_as_http_1_1() {
    let old = written("POST / HTTP/1.0\r\n\r\n", "[2001:db8::1]:5", false);
    assert_eq!(
        old,
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: keep-alive\r\nx-forwarded-proto: http\r\n\
         x-forwarded-for: 2001:db8::1\r\nx-sundew-peer: [2001:db8::1]:5\r\n\r\n"
    );
    let whole = written("GET HTTP://x/p HTTP/1.1\r\nHost: X\r\n\r\n", "10.0.0.1:5", false);
    assert!(whole.starts_with("GET /p HTTP/1.1\r\nhost: x\r\n"), "{whole}");
    let bare = written("GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", "10.0.0.1:5", false);
    assert!(bare.starts_with("GET / HTTP/1.1\r\n"), "{bare}");
}

#[test]
fn who_is_no_native_worker_is_told_only_what_proxies_tell() {
    let text = "GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nAccept: a\r\n\r\n";
    let write = |plain| {
        let mut out = Vec::new();
        let manner = Manner::Forwarded { native: false, place: true };
        // As a socket that listens on both families tells it.
        let peer = direct(Some("[::ffff:10.0.0.1]:5"));
        with(text, |head| head.unwrap().write(&mut out, peer, manner, plain));
        String::from_utf8(out).unwrap()
    };
    assert!(write(true).ends_with("x-forwarded-host: x\r\nx-forwarded-for: 10.0.0.1\r\n\r\n"));
    assert!(!write(true).contains("gzip") && write(false).contains("Accept-Encoding: gzip\r\n"));
}

#[test]
fn who_came_by_tls_is_told_so_whatever_the_client_says() {
    let text = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: http\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let write = |manner| {
        let mut out = Vec::new();
        let peers = Peers { secure: true, ..direct(Some("10.0.0.1:5")) };
        with(text, |head| head.unwrap().write(&mut out, peers, manner, false));
        String::from_utf8(out).unwrap()
    };
    for (manner, said) in [
        (Manner::Transparent, "X-Forwarded-Proto: https\r\nx-sundew-peer: 10.0.0.1:5; tls\r\n"),
        (Manner::Forwarded { native: true, place: false }, "x-forwarded-proto: https\r\n"),
    ] {
        let written = write(manner);
        assert!(written.contains(said) && !written.contains("Proto: http\r\n"), "{written}");
    }
}

#[test]
fn a_transparent_leg_carries_the_clients_own_words() {
    let write = |text: &str, plain| {
        let mut out = Vec::new();
        let peer = direct(Some("[::ffff:10.0.0.1]:5"));
        with(text, |head| head.unwrap().write(&mut out, peer, Manner::Transparent, plain));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        write(
            "POST http://a:1/x HTTP/1.1\r\nX-Forwarded-For: 9.9.9.9\r\nHoST: a:1\r\nx-SUNDEW-Peer: 1.1.1.1:1\r\n\
             Connection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\
             content-length: 3\r\nAccept-Encoding: gzip\r\nCOOKIE: c\r\n\r\n",
            false
        ),
        "POST /x HTTP/1.1\r\nX-Forwarded-For: 9.9.9.9\r\nHoST: a:1\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\
         Accept-Encoding: gzip\r\nCOOKIE: c\r\nx-sundew-peer: [::ffff:10.0.0.1]:5\r\n\r\n"
    );
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: k\r\n";
    let expected = format!("{upgrade}x-sundew-peer: [::ffff:10.0.0.1]:5\r\n\r\n");
    assert_eq!(write(&format!("{upgrade}\r\n"), false), expected);
    let old = write("POST / HTTP/1.0\r\n\r\n", true);
    assert_eq!(old, "POST / HTTP/1.1\r\nHost: localhost\r\nx-sundew-peer: [::ffff:10.0.0.1]:5\r\n\r\n");
    let chunked =
        write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n", true);
    assert!(chunked.contains("Transfer-Encoding: chunked\r\nx-"), "{chunked}");
}

#[test]
fn behind_a_proxy_the_client_and_the_hop_are_two() {
    let write = |text: &str, client: Option<&str>, last_hop: Option<&str>| {
        let address = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let peers =
            Peers { client: address(client), last_hop: address(last_hop), secure: false, request_id: None };
        let mut out = Vec::new();
        let manner = Manner::Forwarded { native: true, place: true };
        with(text, |head| head.unwrap().write(&mut out, peers, manner, false));
        let text = String::from_utf8(out).unwrap();
        text.split_once("x-forwarded-host: a\r\n").unwrap().1.trim_end().to_owned()
    };
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
    assert_eq!(
        write(text, Some("1.1.1.1:0"), Some("10.0.0.1:5")),
        "x-forwarded-for: 6.6.6.6, 1.1.1.1, 10.0.0.1\r\nx-sundew-peer: 1.1.1.1:0; place"
    );
    // A proxy at the other end of a unix socket has no address, and what it says is not lost.
    assert_eq!(
        write(text, Some("1.1.1.1:0"), None),
        "x-forwarded-for: 6.6.6.6, 1.1.1.1\r\nx-sundew-peer: 1.1.1.1:0; place"
    );
    assert_eq!(write("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None, None), "x-sundew-peer: unix; place");
}

#[test]
fn no_input_panics() {
    // A small deterministic fuzz: mutations of a real head, cut anywhere.
    let seed = b"POST /socket.io/?EIO=4&transport=polling&sid=abc HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, upgrade\r\n\
                 Transfer-Encoding: chunked\r\nX-Forwarded-For: 1\r\n\r\n";
    let mut state = 1u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % bound
    };
    for _ in 0..20_000 {
        let mut input = seed.to_vec();
        for _ in 0..next(6) {
            let at = next(input.len());
            input[at] = next(256) as u8;
        }
        input.truncate(next(input.len()) + 1);
        let _ = probe(&input);
        if let Some(end) = find_end(&input, next(input.len())) {
            let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
            if let Ok(head) = parse(&input[..end], &mut storage) {
                head.write(&mut Vec::new(), direct(None), Manner::Transparent, true);
                head.write(
                    &mut Vec::new(),
                    direct(None),
                    Manner::Forwarded { native: true, place: true },
                    true,
                );
                super::super::query::scan(super::super::query::split(head.target.as_bytes()).1);
            }
        }
    }
}
