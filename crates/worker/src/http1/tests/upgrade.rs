//! Upgrades, and what is none.

use super::*;

#[tokio::test]
async fn a_websocket_has_every_byte_and_the_head_to_write() {
    let (client, server) = UnixStream::pair().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let seen = taken.clone();
    let app = Router::new().route(
        "/io/ws",
        get(move |request: axum::extract::Request| async move {
            let take_over = request.extensions().get::<TakeOver>().cloned().expect("an upgrade");
            take_over.then(move |connection| {
                assert_eq!(connection.unread, "frames");
                assert!(connection.unwritten.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
                assert!(connection.unwritten.ends_with(b"\r\n\r\n"));
                seen.fetch_add(1, Ordering::Relaxed);
                Some(Box::pin(async {}))
            });
            (StatusCode::SWITCHING_PROTOCOLS, [("upgrade", "websocket"), ("connection", "Upgrade")])
        }),
    );
    let mut client = client;
    client
        .write_all(b"GET /io/ws HTTP/1.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\nframes")
        .await
        .unwrap();
    let (_leaving, leaving) = watch::channel(false);
    let serving = Serving::of_test(Arc::new(vec![Arc::new(Io)]), leaving);
    let life = serving.http(Conn::unix(server, Origin::Accepted), None, app).await;
    assert!(life.is_some());
    assert_eq!(taken.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_101_that_nobody_took_ends_the_connection() {
    for asked in ["upgrade: websocket\r\nconnection: Upgrade\r\n", ""] {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(format!("GET /io/switch HTTP/1.1\r\n{asked}\r\n").as_bytes()).await.unwrap();
        let (_leaving, leaving) = watch::channel(false);
        let serving = Serving::of_test(Arc::new(vec![Arc::new(Io)]), leaving);
        let app = app(&Arc::default());
        let life = serving.http(Conn::unix(server, Origin::Accepted), None, app).await;
        assert!(life.is_none());
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"");
    }
}
