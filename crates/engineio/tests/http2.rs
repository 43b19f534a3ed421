//! Websockets on streams of HTTP/2, by extended CONNECT (RFC 8441), in a server that offers it.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{Echo, Frame, Ws, calm, open, sid_of, text, until, ws_query};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sundew_engineio::{CloseReason, Config, Engine, EngineLayer, Frames};
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

/// An axum app with the engine before it, served over HTTP/2 or HTTP/1.1, whatever the client begins with.
async fn serve(config: Config) -> (Engine<Echo>, Echo, SocketAddr) {
    let echo = Echo::default();
    let engine = Engine::new(config, echo.clone());
    let app = axum::Router::new()
        .route("/page", axum::routing::any(async || "page"))
        .layer(EngineLayer::new(engine.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let app = app.clone();
            let service = service_fn(move |request: Request<Incoming>| app.clone().call(request));
            tokio::spawn(async move {
                let mut first = [0; 3];
                stream.peek(&mut first).await.unwrap();
                let io = TokioIo::new(stream);
                match &first == b"PRI" {
                    true => {
                        let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(http2.enable_connect_protocol().serve_connection(io, service).await);
                    }
                    false => {
                        let http1 = hyper::server::conn::http1::Builder::new();
                        drop(http1.serve_connection(io, service).with_upgrades().await);
                    }
                }
            });
        }
    });
    (engine, echo, addr)
}

async fn client(addr: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap();
    // The server's settings come with its first answer: extended CONNECT may not be sent before.
    let page = client.send_request(get(addr, "/page")).await.unwrap();
    assert_eq!(page.into_body().collect().await.unwrap().to_bytes(), "page");
    client
}

fn get(addr: SocketAddr, path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://{addr}{path}");
    Request::builder().version(Version::HTTP_2).uri(uri).body(Empty::new()).unwrap()
}

async fn connect(
    client: &mut SendRequest<Empty<Bytes>>,
    addr: SocketAddr,
    query: &str,
    protocol: &'static str,
    headers: &[(&str, &str)],
) -> Response<Incoming> {
    let mut request = get(addr, &format!("/engine.io/?{query}"));
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static(protocol));
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    client.send_request(request).await.unwrap()
}

const VERSION: (&str, &str) = ("sec-websocket-version", "13");

async fn websocket(response: Response<Incoming>) -> Ws<TokioIo<Upgraded>> {
    assert_eq!(response.status(), StatusCode::OK);
    for header in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(header), "{header}");
    }
    Ws(TokioIo::new(hyper::upgrade::on(response).await.unwrap()))
}

#[tokio::test]
async fn many_websockets_and_polls_on_one_connection() {
    let (engine, echo, addr) = serve(calm()).await;
    let mut client = client(addr).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let response = connect(&mut client, addr, &ws_query(None), "websocket", &[VERSION]).await;
        let mut ws = websocket(response).await;
        let Frame::Text(open) = ws.next().await else { panic!("no open packet") };
        assert!(!sid_of(&open).is_empty());
        sockets.push(ws);
    }
    let polled = client.send_request(get(addr, "/engine.io/?EIO=4&transport=polling")).await.unwrap();
    assert!(polled.into_body().collect().await.unwrap().to_bytes().starts_with(b"0{"));
    assert_eq!((engine.stats().sessions, engine.stats().polling), (4, 1));
    // More than a window of HTTP/2, both ways.
    let large = "large".repeat(100_000);
    for (index, ws) in sockets.iter_mut().enumerate() {
        ws.text(&format!("4{index}{large}")).await;
        assert_eq!(ws.next().await, text(&format!("4{index}{large}")));
    }
    let handle = echo.log.lock().unwrap().handles[0].clone();
    handle.send(Frames::binary(&[7; 100_000])).unwrap();
    assert_eq!(sockets[0].next().await, Frame::Binary(vec![7; 100_000]));
    // Each ends by itself.
    handle.close(CloseReason::ForcedClose);
    assert_eq!(sockets[0].next().await, Frame::Close(None));
    sockets[1].text("4still here").await;
    assert_eq!(sockets[1].next().await, text("4still here"));
    drop(sockets);
    until(|| engine.stats().sessions == 1).await;
}

#[tokio::test]
async fn a_polling_session_is_upgraded() {
    let (engine, _, addr) = serve(calm()).await;
    let sid = open(addr).await;
    let mut client = client(addr).await;
    let response = connect(&mut client, addr, &ws_query(Some(&sid)), "websocket", &[VERSION]).await;
    let mut ws = websocket(response).await;
    ws.text("2probe").await;
    assert_eq!(ws.next().await, text("3probe"));
    ws.text("5").await;
    ws.text("4over").await;
    assert_eq!(ws.next().await, text("4over"));
    assert_eq!((engine.stats().sessions, engine.stats().polling), (1, 0));
}

#[tokio::test]
async fn compression_is_agreed_on_as_over_http_1() {
    let mut config = calm();
    config.per_message_deflate = Some(sundew_engineio::PerMessageDeflate::default());
    let (.., addr) = serve(config).await;
    let mut client = client(addr).await;
    let headers = [VERSION, ("sec-websocket-extensions", "permessage-deflate")];
    let response = connect(&mut client, addr, &ws_query(None), "websocket", &headers).await;
    let agreed = response.headers()["sec-websocket-extensions"].to_str().unwrap();
    assert!(agreed.starts_with("permessage-deflate"));
}

#[tokio::test]
async fn a_subprotocol_is_taken_as_over_http_1() {
    let (.., addr) = serve(calm()).await;
    let mut client = client(addr).await;
    let headers = [VERSION, ("sec-websocket-protocol", "chat, other")];
    let response = connect(&mut client, addr, &ws_query(None), "websocket", &headers).await;
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_ends_no_other_stream() {
    let (engine, _, addr) = serve(calm()).await;
    let mut client = client(addr).await;
    let mut ws = websocket(connect(&mut client, addr, &ws_query(None), "websocket", &[VERSION]).await).await;
    ws.next().await;
    for (query, protocol, headers, answer) in [
        ("EIO=4&transport=websocket", "websocket", &[("sec-websocket-version", "12")][..], "Bad request"),
        ("EIO=4&transport=websocket", "connect-udp", &[], r#"{"code":2,"message":"Bad handshake method"}"#),
        ("EIO=4&transport=polling", "websocket", &[VERSION], "Bad request"),
        ("EIO=4&transport=websocket&sid=x", "websocket", &[VERSION], "Session ID unknown"),
        ("EIO=9&transport=websocket", "websocket", &[VERSION], "Unsupported protocol version"),
    ] {
        let response = connect(&mut client, addr, query, protocol, headers).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), answer, "{query}");
    }
    ws.text("4untouched").await;
    assert_eq!(ws.next().await, text("4untouched"));
    assert_eq!(engine.stats().sessions, 1);
}
