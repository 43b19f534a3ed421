//! Clients that take nothing, leave at the wrong moment or come back at once: what they cost ends.

use super::*;

/// A connection that leaves so little room on each stream until it has been read.
async fn narrow(rig: &Rig, window: u32) -> quinn::Connection {
    let mut config = client_config(&rig.trusted);
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(window.into());
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    endpoint.connect_with(config, rig.addr, "localhost").unwrap().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_nobody_reads_keeps_no_place() {
    let rig = serve_with(config(), |options| options.max_pending = 4).await;
    let mut refused = Vec::new();
    for _ in 0..4 {
        // The server's settings fit, its answer does not.
        let connection = narrow(&rig, 40).await;
        let mut bytes = Vec::new();
        let mut settings = web_transport_quinn::proto::Settings::default();
        settings.enable_webtransport(1);
        settings.encode(&mut bytes);
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(&bytes).await.unwrap();
        bytes.clear();
        let url = parsed(|request| request.url, "https://localhost/elsewhere/");
        ConnectRequest::new(url).encode(&mut bytes).unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        refused.push((connection, control, send, receive));
    }
    until(|| rig.engine.stats().refused >= 4).await;
    for (connection, ..) in &refused {
        timeout(SOON, connection.closed()).await.expect("it is kept");
    }
    let (mut client, _) = rig.open().await;
    client.text("4hello").await;
    assert_eq!(client.next_text().await, "4hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_whose_answers_nobody_reads_is_given_up() {
    let mut config = config();
    config.upgrade_timeout = Duration::from_millis(300);
    let rig = serve(config).await;
    let sid = open(rig.http.addr).await;
    let url = parsed(|request| request.url, "https://localhost/engine.io/");
    let session = timeout(SOON, Session::connect(narrow(&rig, 64).await, url)).await.unwrap().unwrap();
    let mut client = Client::over(session).await;
    client.text(&format!(r#"0{{"sid":"{sid}"}}"#)).await;
    for _ in 0..30 {
        client.text("2probe").await;
    }
    // It is closed without a word, which would wait behind the answers.
    let ended = timeout(SOON, client.session.closed()).await;
    assert!(ended.is_ok(), "the probe goes on");
    assert_eq!(post(rig.http.addr, &sid, "4still here").await.body, "ok");
    assert_eq!(get(rig.http.addr, &sid).await.body, "4still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_while_allow_request_decides_keeps_no_place() {
    let asked = Arc::new(tokio::sync::Notify::new());
    let mut config = config();
    config.allow_request = Some(Arc::new({
        let asked = asked.clone();
        move |parts| {
            let waits = parts.uri.query().is_some_and(|query| query.contains("slow"));
            let asked = asked.clone();
            Box::pin(async move {
                if waits {
                    asked.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok(())
            })
        }
    }));
    let rig = serve_with(config, |options| options.max_pending = 1).await;
    let mut client = Client::over(rig.try_connect("/engine.io/?slow").await.unwrap()).await;
    client.text("0").await;
    timeout(SOON, asked.notified()).await.unwrap();
    assert!(rig.try_connect("/engine.io/").await.is_err(), "it has the only place");
    client.session.close(0, b"");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (mut client, _) = rig.open().await;
    client.text("4hello").await;
    assert_eq!(client.next_text().await, "4hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_engine_lets_nobody_back_in_after_its_deadline() {
    let rig = serve(config()).await;
    let clients = [rig.open().await.0, rig.open().await.0, rig.open().await.0];
    let engine = rig.engine.clone();
    let draining = tokio::spawn(async move {
        let pace = sundew_engineio::Pace { batch: 1, pause: Duration::from_millis(500) };
        engine.drain(Duration::from_millis(100), pace).await;
    });
    futures_util::future::select_all(clients.iter().map(|client| Box::pin(client.closed()))).await;
    // Whoever was closed comes back while the others are still there.
    let mut back = Vec::new();
    let coming = async {
        loop {
            let mut client = Client::over(rig.connect().await).await;
            client.text("0").await;
            let let_in = client.try_next().await.is_some();
            back.push((client, let_in));
        }
    };
    tokio::select! {
        () = coming => {}
        done = timeout(SOON, draining) => done.expect("they are let in again and again").unwrap(),
    }
    assert!(!back.is_empty() && back.iter().all(|(_, let_in)| !let_in));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_is_cut_to_what_the_end_of_a_session_can_say() {
    let mut config = config();
    config.allow_request = Some(Arc::new(|_| Box::pin(async { Err("x".repeat(1023) + "\u{e9}") })));
    let rig = serve(config).await;
    let mut client = Client::over(rig.connect().await).await;
    client.text("0").await;
    assert_eq!(client.closed().await, (0, "x".repeat(1023)));
}
