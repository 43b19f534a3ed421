//! What an app adds to answers, and what it hears about refused requests.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use common::{Ws, calm, open, request, serve, ws_query};
use http::HeaderValue;
use sundew_engineio::{AllowOrigin, Cookie, Cors};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_polling_handshake_sets_the_cookie_and_nothing_else_does() {
    let mut config = calm();
    config.cookie = Some(Cookie::default());
    let server = serve(config).await;
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    let sid = common::sid_of(&answer.body);
    let expected = format!("io={sid}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(answer.header("set-cookie"), Some(&*expected));
    assert_eq!(common::post(server.addr, &sid, "4x").await.header("set-cookie"), None);
    assert_eq!(common::get(server.addr, &sid).await.header("set-cookie"), None);
    assert!(!switching_head(server.addr, &ws_query(None)).await.contains("cookie"));
    let answer = request(server.addr, "GET", "EIO=4&transport=abc", "", b"").await;
    assert_eq!(answer.header("set-cookie"), None);
}

/// The head of a 101, in lower case.
async fn switching_head(addr: std::net::SocketAddr, query: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let headers = "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let head = format!("GET /engine.io/?{query} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    head
}

#[tokio::test]
async fn headers_are_added_to_handshakes_and_to_everything() {
    let mut config = calm();
    config.initial_headers = Some(Arc::new(|headers, request| {
        headers.insert("x-first", HeaderValue::from_static("yes"));
        headers.insert("x-method", HeaderValue::from_str(request.method.as_str()).unwrap());
    }));
    config.headers = Some(Arc::new(|headers, _| {
        headers.insert("x-all", HeaderValue::from_static("yes"));
        headers.insert("cache-control", HeaderValue::from_static("private"));
    }));
    let server = serve(config).await;
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    let values = ["x-first", "x-method", "x-all", "cache-control"].map(|name| answer.header(name));
    assert_eq!(values, [Some("yes"), Some("GET"), Some("yes"), Some("private")]);
    let sid = common::sid_of(&answer.body);
    for answer in [common::post(server.addr, &sid, "4x").await, common::get(server.addr, &sid).await] {
        assert_eq!((answer.header("x-first"), answer.header("x-all")), (None, Some("yes")));
    }
    let refused = common::get(server.addr, "unknown").await;
    assert_eq!((refused.header("x-all"), refused.header("cache-control")), (None, Some("no-store")));
    let first = switching_head(server.addr, &ws_query(None)).await;
    assert!(first.contains("x-first: yes") && first.contains("x-all: yes"));
    let later = switching_head(server.addr, &ws_query(Some(&sid))).await;
    assert!(!later.contains("x-first: yes") && later.contains("x-all: yes"));
}

#[tokio::test]
async fn what_hooks_add_takes_nothing_away_of_what_an_answer_can_have_several_of() {
    let mut config = calm();
    config.cookie = Some(Cookie::default());
    config.cors = Some(Cors::default().origin(AllowOrigin::Mirror));
    config.initial_headers = Some(Arc::new(|headers, _| {
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
    }));
    config.headers = Some(Arc::new(|headers, _| {
        headers.append("vary", HeaderValue::from_static("Accept-Encoding, origin"));
        headers.append("vary", HeaderValue::from_static("X-Theme"));
        headers.insert("access-control-allow-origin", HeaderValue::from_static("http://b.example"));
    }));
    let server = serve(config).await;
    let from = "origin: http://a.example\r\n";
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", from, b"").await;
    let sid = common::sid_of(&answer.body);
    let values = |name: &str| -> Vec<String> {
        let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
    };
    assert_eq!(values("set-cookie"), [&*format!("io={sid}; Path=/; HttpOnly; SameSite=Lax"), "a=1", "b=2"]);
    assert_eq!(values("vary"), ["Accept-Encoding, origin, X-Theme"]);
    assert_eq!(values("access-control-allow-origin"), ["http://a.example"]);
}

/// Code, message and query.
type Told = (Option<u8>, String, String);

#[tokio::test]
async fn a_hook_that_panics_lets_nobody_in_and_leaves_nobody_without_an_answer() {
    let mut config = calm();
    config.allow_request = Some(Arc::new(|parts| {
        assert!(!parts.uri.query().unwrap().contains("early"), "early");
        let late = parts.uri.query().unwrap().contains("late");
        Box::pin(async move { if late { panic!("late") } else { Ok(()) } })
    }));
    config.on_connection_error = Some(Arc::new(|_| panic!("told")));
    let server = serve(config).await;
    for query in ["early", "late"] {
        let answer = request(server.addr, "GET", &format!("EIO=4&transport=polling&{query}"), "", b"").await;
        assert_eq!((answer.status, &*answer.body), (403, r#"{"code":4,"message":"Forbidden"}"#));
    }
    assert_eq!(common::get(server.addr, "none").await.status, 400);
    let sid = open(server.addr).await;
    assert_eq!(common::post(server.addr, &sid, "4x").await.status, 200);
}

#[tokio::test]
async fn a_hook_for_headers_that_panics_leaves_the_others() {
    let mut config = calm();
    config.initial_headers = Some(Arc::new(|headers, _| {
        headers.insert("x-first", HeaderValue::from_static("yes"));
    }));
    config.headers = Some(Arc::new(|headers, parts| {
        headers.insert("x-all", HeaderValue::from_static("yes"));
        assert!(parts.uri.query().unwrap().contains("whole"), "as asked");
    }));
    let server = serve(config).await;
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    assert_eq!((answer.status, answer.header("x-first"), answer.header("x-all")), (200, Some("yes"), None));
    let whole = request(server.addr, "GET", "EIO=4&transport=polling&whole", "", b"").await;
    assert_eq!((whole.status, whole.header("x-all")), (200, Some("yes")));
    let mut config = calm();
    config.initial_headers = Some(Arc::new(|_, _| panic!("first")));
    let server = serve(config).await;
    let sid = open(server.addr).await;
    assert_eq!(common::post(server.addr, &sid, "4x").await.status, 200);
    let (mut ws, _) = Ws::open(server.addr).await;
    ws.text("4x").await;
    assert_eq!(ws.next().await, common::text("4x"));
}

#[tokio::test]
async fn a_client_is_refused_where_its_id_is_a_panic() {
    let mut config = calm();
    config.generate_id = Arc::new(|_| panic!("no id"));
    let server = serve(config).await;
    let answer = request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await;
    assert_eq!((answer.status, &*answer.body), (400, r#"{"code":3,"message":"Bad request"}"#));
    // Ids are made once the connection is a websocket.
    let mut ws = Ws::connect(server.addr, None).await;
    assert_eq!(ws.next().await, common::Frame::End);
    assert_eq!(server.engine.stats().refused, 2);
}

#[tokio::test]
async fn refused_requests_are_told_of() {
    let heard: Arc<Mutex<Vec<Told>>> = Arc::default();
    let mut config = calm();
    let log = heard.clone();
    config.on_connection_error = Some(Arc::new(move |error| {
        let path = error.request.uri.query().unwrap_or_default().to_owned();
        log.lock().unwrap().push((error.code, error.message.to_owned(), path));
    }));
    config.allow_request = Some(Arc::new(|parts| {
        let refuse = parts.uri.query().is_some_and(|query| query.contains("refuse"));
        Box::pin(async move { if refuse { Err("not you".to_owned()) } else { Ok(()) } })
    }));
    config.generate_id = Arc::new(|parts| match parts.uri.query() {
        Some(query) if query.contains("noid") => String::new(),
        _ => "the-only-id".to_owned(),
    });
    config.max_sessions = 1;
    let server = serve(config).await;
    let expected = [
        ("GET", "EIO=4", Some(0), "Transport unknown", 400),
        ("GET", "EIO=4&transport=polling&sid=x", Some(1), "Session ID unknown", 400),
        ("POST", "EIO=4&transport=polling", Some(2), "Bad handshake method", 400),
        ("GET", "EIO=4&transport=websocket", Some(3), "Bad request", 400),
        ("GET", "EIO=4&transport=polling&noid", Some(3), "Bad request", 400),
        ("GET", "EIO=4&transport=polling&refuse", Some(4), "not you", 403),
        ("GET", "EIO=2&transport=polling", Some(5), "Unsupported protocol version", 400),
    ];
    for (method, query, code, message, status) in expected {
        assert_eq!(request(server.addr, method, query, "", b"").await.status, status, "{query}");
        let told = heard.lock().unwrap().pop().unwrap();
        assert_eq!(told, (code, message.to_owned(), query.to_owned()));
    }
    assert!(Ws::try_connect(server.addr, "EIO=4&transport=websocket&refuse").await.is_err());
    assert_eq!(heard.lock().unwrap().pop().unwrap().0, Some(4));
    // Ids are made once the connection is a websocket.
    let query = "EIO=4&transport=websocket&noid";
    let mut ws = Ws::try_connect(server.addr, query).await.ok().unwrap();
    assert_eq!(ws.next().await, common::Frame::End);
    let told = heard.lock().unwrap().pop().unwrap();
    assert_eq!(told, (Some(3), "Bad request".to_owned(), query.to_owned()));
    let sid = open(server.addr).await;
    assert_eq!(common::post(server.addr, &sid, "4x").await.status, 200);
    assert!(heard.lock().unwrap().is_empty(), "nobody hears of what went well");
    assert_eq!(request(server.addr, "GET", "EIO=4&transport=polling", "", b"").await.status, 503);
    let told = heard.lock().unwrap().pop().unwrap();
    assert_eq!((told.0, &*told.1), (None, "too many sessions"));
    assert_eq!(server.engine.stats().refused, 10);
}
