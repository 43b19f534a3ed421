//! The raw stream and every unread byte come back out of hyper, whichever builder drove it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sundew_io::{Conn, HoldHead, Origin, Raw, Recovered, recover};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: test\r\n\r\nunread bytes";

#[derive(Clone, Copy)]
enum Builder {
    Http1,
    Auto,
}

/// Upgrades `server` and says what came back out.
async fn upgrade<S>(builder: Builder, server: S, mut client: impl AsyncRead + AsyncWrite + Unpin) -> Recovered
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, recovered) = oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let upgrade = hyper::upgrade::on(&mut request);
        let sender = sender.lock().unwrap().take().unwrap();
        tokio::spawn(async move { sender.send(recover(upgrade.await.unwrap())).ok().unwrap() });
        async {
            let response = Response::builder().status(101).header("connection", "upgrade");
            Ok::<_, Infallible>(response.header("upgrade", "test").body(Empty::<Bytes>::new()).unwrap())
        }
    });
    client.write_all(REQUEST).await.unwrap();
    tokio::spawn(async move {
        let io = TokioIo::new(server);
        match builder {
            Builder::Http1 => {
                let http = hyper::server::conn::http1::Builder::new();
                http.serve_connection(io, service).with_upgrades().await.unwrap();
            }
            Builder::Auto => {
                let http = auto::Builder::new(TokioExecutor::new());
                http.serve_connection_with_upgrades(io, service).await.unwrap();
            }
        }
    });
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    recovered.await.unwrap()
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

#[tokio::test]
async fn tcp_comes_back() {
    for builder in [Builder::Http1, Builder::Auto] {
        let (client, server) = tcp_pair().await;
        let peer = client.local_addr().unwrap();
        let conn = Conn::tcp(server, None, Origin::Accepted);
        assert_eq!(conn.peer_addr(), Some(peer));
        let Recovered { stream: raw, unread, .. } = upgrade(builder, conn, client).await;
        assert!(matches!(raw, Raw::Tcp(stream) if stream.peer_addr().unwrap() == peer));
        assert_eq!(unread, "unread bytes");

        let (client, server) = tcp_pair().await;
        let Recovered { stream: raw, unread, .. } = upgrade(builder, server, client).await;
        assert!(matches!(raw, Raw::Tcp(_)));
        assert_eq!(unread, "unread bytes");
    }
}

#[tokio::test]
async fn unix_comes_back() {
    for builder in [Builder::Http1, Builder::Auto] {
        let (client, server) = UnixStream::pair().unwrap();
        let conn = Conn::unix(server, Origin::Leg);
        assert_eq!((conn.peer_addr(), conn.origin()), (None, Origin::Leg));
        let Recovered { stream: raw, unread, .. } = upgrade(builder, conn, client).await;
        assert!(matches!(raw, Raw::Unix(_)));
        assert_eq!(unread, "unread bytes");

        let (client, server) = UnixStream::pair().unwrap();
        let Recovered { stream: raw, unread, .. } = upgrade(builder, server, client).await;
        assert!(matches!(raw, Raw::Unix(_)));
        assert_eq!(unread, "unread bytes");
    }
}

#[tokio::test]
async fn other_streams_keep_their_bytes_inside() {
    for builder in [Builder::Http1, Builder::Auto] {
        let (client, server) = tokio::io::duplex(1024);
        let Recovered { stream: raw, unread, .. } = upgrade(builder, server, client).await;
        assert!(unread.is_empty());
        let Raw::Other(mut stream) = raw else { panic!("{raw:?}") };
        let mut bytes = [0; 12];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"unread bytes");
    }
}

/// Serves one request on a connection whose head is to be held, with `status`.
async fn held(builder: Builder, status: u16) -> (TcpStream, oneshot::Receiver<Recovered>) {
    let (mut client, server) = tcp_pair().await;
    let mut conn = Conn::tcp(server, None, Origin::Accepted);
    let head: HoldHead = conn.hold_head();
    let (sender, recovered) = oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let upgrade = hyper::upgrade::on(&mut request);
        if let Some(sender) = sender.lock().unwrap().take() {
            head.hold();
            tokio::spawn(async move { upgrade.await.map(|upgraded| sender.send(recover(upgraded))) });
        }
        async move {
            let response = Response::builder().status(status).header("upgrade", "test");
            Ok::<_, Infallible>(response.header("connection", "upgrade").body(Empty::<Bytes>::new()).unwrap())
        }
    });
    client.write_all(&REQUEST[..REQUEST.len() - 12]).await.unwrap();
    tokio::spawn(async move {
        match builder {
            Builder::Http1 => {
                let http = hyper::server::conn::http1::Builder::new();
                drop(http.serve_connection(TokioIo::new(conn), service).with_upgrades().await);
            }
            Builder::Auto => {
                let http = auto::Builder::new(TokioExecutor::new());
                drop(http.serve_connection_with_upgrades(TokioIo::new(conn), service).await);
            }
        }
    });
    (client, recovered)
}

#[tokio::test]
async fn the_head_of_a_101_can_be_held() {
    for builder in [Builder::Http1, Builder::Auto] {
        let (mut client, recovered) = held(builder, 101).await;
        let Recovered { stream, unwritten, .. } = recovered.await.unwrap();
        assert!(unwritten.starts_with(b"HTTP/1.1 101 "));
        assert!(unwritten.ends_with(b"\r\n\r\n"));
        let Raw::Tcp(mut stream) = stream else { panic!("{stream:?}") };
        stream.write_all(b"first").await.unwrap();
        drop(stream);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"first");
    }
}

#[tokio::test]
async fn no_other_head_is_held() {
    for builder in [Builder::Http1, Builder::Auto] {
        let (mut client, recovered) = held(builder, 403).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(client.read_buf(&mut head).await.unwrap(), 0);
        }
        assert!(head.starts_with(b"HTTP/1.1 403 "));
        drop((client, recovered));
    }
}
