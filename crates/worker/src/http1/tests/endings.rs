//! How a connection ends, and who is not waited for.

use super::*;

#[tokio::test]
async fn a_body_nobody_wants_ends_the_connection() {
    let mut driven = driven(Origin::Accepted);
    driven
        .send("POST /io/deaf HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\nGET /io/hello HTTP/1.1\r\n\r\n")
        .await;
    let (head, body) = driven.response().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!((body.as_str(), driven.rest().await.as_str()), ("what?", ""));
    driven.over().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_waited_for_no_longer() {
    for (request, announced) in [
        (get_request("never"), true),
        ("POST /io/length HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf".to_owned(), false),
    ] {
        let mut driven = driven(Origin::Accepted);
        driven.send(request).await;
        if announced {
            driven.seen.begun.notified().await;
        }
        let seen = driven.seen.clone();
        let Driven { client, next, leaving, .. } = driven;
        drop(client);
        let next = tokio::time::timeout(SOON, next).await.expect("still driven").unwrap();
        assert!(matches!(next, (Next::Over, _)));
        if announced {
            seen.dropped.notified().await;
        }
        drop(leaving);
    }
}

#[tokio::test]
async fn a_body_that_breaks_or_is_too_short_ends_the_connection() {
    let mut broken = driven(Origin::Accepted);
    broken.send(get_request("broken")).await;
    let rest = broken.rest().await;
    assert!(rest.ends_with("\r\n\r\n3\r\none\r\n"), "what came before is there, and no end: {rest}");
    broken.over().await;
    let mut short = driven(Origin::Accepted);
    short.send(get_request("short")).await;
    let rest = short.rest().await;
    assert!(rest.contains("content-length: 9\r\n") && rest.ends_with("\r\n\r\nfour"), "{rest}");
    short.over().await;
}

#[tokio::test]
async fn a_client_may_end_the_connection_with_its_request() {
    let mut driven = driven(Origin::Accepted);
    driven.send("GET /io/header HTTP/1.1\r\nx: y\r\nconnection: close\r\n\r\n").await;
    let (head, body) = driven.response().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!((body.as_str(), driven.rest().await.as_str()), ("y", ""));
    driven.over().await;
}

#[tokio::test]
async fn a_handed_over_connection_has_one_request() {
    let mut driven = driven(Origin::HandedOff);
    driven.send(get_request("hello").repeat(2)).await;
    let all = driven.rest().await;
    assert_eq!(all.matches("HTTP/1.1 200").count(), 1, "{all}");
    assert!(all.contains("\r\nconnection: close\r\n"), "{all}");
    driven.over().await;
}

#[tokio::test]
async fn a_server_that_leaves_answers_what_it_has_and_ends() {
    let mut idle = driven(Origin::Accepted);
    idle.send(get_request("hello")).await;
    idle.response().await;
    idle.leaving.send_replace(true);
    assert_eq!(idle.rest().await, "");
    idle.over().await;

    let mut busy = driven(Origin::Accepted);
    busy.send(get_request("slow")).await;
    busy.seen.begun.notified().await;
    busy.leaving.send_replace(true);
    let (head, body) = busy.response().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!((body.as_str(), busy.rest().await.as_str()), ("done", ""));
    busy.over().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_and_a_slow_head_have_a_limit() {
    for head in ["", "GET /io/hel"] {
        let mut driven = driven(Origin::Accepted);
        // The limit is each head's own.
        for _ in 0..3 {
            tokio::time::sleep(PATIENCE / 2).await;
            driven.send(get_request("hello")).await;
            driven.response().await;
        }
        driven.send(head).await;
        let started = Instant::now();
        let mut rest = Vec::new();
        driven.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        let taken = started.elapsed();
        assert!(taken >= PATIENCE / 2 && taken <= PATIENCE + Duration::from_secs(1), "{taken:?}");
        driven.over().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_has_a_limit() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("large")).await;
    let Driven { client, next, leaving, .. } = driven;
    assert!(matches!(next.await.unwrap(), (Next::Over, _)));
    drop((client, leaving));
}

/// The front door reads a leg as its client reads, and has the limit.
#[tokio::test(start_paused = true)]
async fn a_leg_may_stand_still() {
    let mut leg = driven(Origin::Leg);
    leg.send(get_request("large")).await;
    tokio::time::sleep(STALL_TIMEOUT * 10).await;
    assert!(!leg.next.is_finished());
    assert_eq!(leg.response().await.1.len(), 8 << 20);
    tokio::time::sleep(PATIENCE * 10).await;
    leg.send(get_request("hello")).await;
    assert_eq!(leg.response().await.1, "hello");
}

#[tokio::test]
async fn a_body_that_goes_on_for_ever_ends_with_its_client() {
    let mut driven = driven(Origin::Accepted);
    driven.send(get_request("endless")).await;
    driven.seen.begun.notified().await;
    let mut first = [0; 256];
    let count = driven.client.read(&mut first).await.unwrap();
    assert!(first[..count].ends_with(b"\r\nfirst\r\n"));
    let Driven { client, seen, next, leaving } = driven;
    drop(client);
    assert!(matches!(next.await.unwrap(), (Next::Over, _)));
    seen.dropped.notified().await;
    drop(leaving);
}
