//! The raw stream and every unread byte come back out of hyper, whichever builder drove it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sundew_io::{Conn, Origin, Raw, recover};
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
async fn upgrade<S>(
    builder: Builder,
    server: S,
    mut client: impl AsyncRead + AsyncWrite + Unpin,
) -> (Raw, Bytes)
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
        let (raw, unread) = upgrade(builder, conn, client).await;
        assert!(matches!(raw, Raw::Tcp(stream) if stream.peer_addr().unwrap() == peer));
        assert_eq!(unread, "unread bytes");

        let (client, server) = tcp_pair().await;
        let (raw, unread) = upgrade(builder, server, client).await;
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
        let (raw, unread) = upgrade(builder, conn, client).await;
        assert!(matches!(raw, Raw::Unix(_)));
        assert_eq!(unread, "unread bytes");

        let (client, server) = UnixStream::pair().unwrap();
        let (raw, unread) = upgrade(builder, server, client).await;
        assert!(matches!(raw, Raw::Unix(_)));
        assert_eq!(unread, "unread bytes");
    }
}

#[tokio::test]
async fn other_streams_keep_their_bytes_inside() {
    for builder in [Builder::Http1, Builder::Auto] {
        let (client, server) = tokio::io::duplex(1024);
        let (raw, unread) = upgrade(builder, server, client).await;
        assert!(unread.is_empty());
        let Raw::Other(mut stream) = raw else { panic!("{raw:?}") };
        let mut bytes = [0; 12];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"unread bytes");
    }
}
