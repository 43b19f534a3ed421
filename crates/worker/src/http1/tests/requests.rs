//! Requests, their bodies and their answers.

use super::*;

#[tokio::test]
async fn requests_are_answered_one_after_another() {
    let mut driven = driven(Origin::Accepted);
    for _ in 0..3 {
        driven.send(get_request("hello")).await;
        let (head, body) = driven.response().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(head.matches("\r\ndate: ").count(), 1, "{head}");
        assert!(!head.contains("connection:"), "{head}");
        assert_eq!(body, "hello");
    }
    // Those that come at once, too.
    driven.send([get_request("hello"), post_request("length", "12345"), get_request("hello")].concat()).await;
    for body in ["hello", "5", "hello"] {
        assert_eq!(driven.response().await.1, body);
    }
    driven.client.shutdown().await.unwrap();
    assert_eq!(driven.rest().await, "");
    driven.over().await;
}

#[tokio::test]
async fn a_request_may_come_in_pieces() {
    let whole = post_request("length", "a body") + &get_request("hello");
    for cut in 1..whole.len() {
        let mut driven = driven(Origin::Accepted);
        driven.send(&whole[..cut]).await;
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        driven.send(&whole[cut..]).await;
        assert_eq!(
            (driven.response().await.1, driven.response().await.1),
            ("6".to_owned(), "hello".to_owned()),
            "{cut}"
        );
    }
}

#[tokio::test]
async fn a_large_body_goes_through_in_parts() {
    let mut driven = driven(Origin::Accepted);
    let body = "x".repeat(1 << 20);
    driven.send(post_request("length", &body)).await;
    assert_eq!(driven.response().await.1, body.len().to_string());
    driven.send(get_request("hello")).await;
    assert_eq!(driven.response().await.1, "hello");
}

#[tokio::test]
async fn what_is_not_taken_is_handed_on_byte_for_byte() {
    let large = format!("GET /io/hello HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(READ_SIZE));
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\nand more",
        "nonsense\r\n\r\n",
        "nonsense without an end\n",
        "POST /io/length HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &large,
    ] {
        let mut driven = driven(Origin::Accepted);
        // After one that is.
        driven.send(get_request("hello")).await;
        assert_eq!(driven.response().await.1, "hello");
        driven.send(request).await;
        driven.client.shutdown().await.unwrap();
        let (Next::Hyper, Some(mut conn)) = driven.next().await else { panic!("{request}") };
        let mut read = String::new();
        conn.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, request);
    }
}

#[tokio::test]
async fn a_body_without_a_length_goes_in_chunks() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("chunks") + &get_request("close")).await;
    let rest = driven.rest().await;
    let (head, body) = rest.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\ntransfer-encoding: chunked"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    let (chunks, bye) = body.split_once("HTTP/1.1 ").unwrap();
    assert_eq!(chunks, "3\r\none\r\n5\r\nthree\r\n0\r\n\r\n");
    // The app's own word for the end of the connection.
    assert!(bye.starts_with("200 ") && bye.ends_with("\r\n\r\nbye"), "{bye}");
    assert_eq!(bye.matches("connection: close\r\n").count(), 1, "{bye}");
    driven.over().await;
}

#[tokio::test]
async fn an_answer_without_a_body_has_no_length() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("nothing") + &get_request("hello")).await;
    let (head, _) = driven.response().await;
    assert!(head.starts_with("HTTP/1.1 204 No Content\r\n"), "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(driven.response().await.1, "hello");
}

#[tokio::test]
async fn an_interim_status_is_no_answer() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("interim")).await;
    let rest = driven.rest().await;
    assert!(rest.starts_with("HTTP/1.1 500 ") && rest.contains("connection: close\r\n"), "{rest}");
    driven.over().await;
}

#[tokio::test]
async fn the_rest_of_a_body_that_is_there_is_read_before_the_answer() {
    let mut driven = driven(Origin::Accepted);
    // The head alone first, so that the body is not there when the app answers without it.
    let request = post_request("deaf-late", "a body");
    let (head, body) = request.split_at(request.len() - 6);
    driven.send(head).await;
    driven.seen.begun.notified().await;
    driven.send(body).await;
    driven.send(get_request("hello")).await;
    let (head, what) = driven.response().await;
    assert!(!head.contains("connection: close"), "{head}");
    assert_eq!((what.as_str(), driven.response().await.1.as_str()), ("late", "hello"));
}

/// All that a connection answers to `request`, which ends it; by the quick way or by hyper. The dates are left out.
async fn answered_by(servers: Servers, request: &str) -> String {
    let (mut client, server) = UnixStream::pair().unwrap();
    let (_leaving, leaving) = watch::channel(false);
    let serving = Serving::of_test(servers, leaving);
    tokio::spawn(serving.run(Conn::unix(server, Origin::Accepted), None, app(&Arc::default())));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    tokio::time::timeout(SOON, client.read_to_string(&mut all)).await.expect("still open").unwrap();
    let (head, body) = all.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<_> = head.split("\r\n").filter(|line| !line.starts_with("date: ")).collect();
    lines[1..].sort_unstable();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

#[tokio::test]
async fn both_ways_answer_the_same() {
    let requests = ["hello", "chunks", "nothing", "close", "nowhere", "length"]
        .map(|path| format!("GET /io/{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
    let post = "POST /io/length HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 6\r\n\r\na body";
    for request in requests.iter().map(String::as_str).chain([post]) {
        let quick = answered_by(Arc::new(vec![Arc::new(Io)]), request).await;
        assert_eq!(quick, answered_by(Arc::default(), request).await, "{request}");
    }
}
