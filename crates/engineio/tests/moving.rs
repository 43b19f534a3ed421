//! A session on its way from one engine to another, and what may come between.

#![allow(clippy::unwrap_used)]

mod common;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use common::{Echo, Frame, Server, Ws, calm, encode, open, read_answer, send_request, serve, text, until};
use sundew_engineio::{Arriving, CloseReason, Engine, Exported, Frames, Pace};
use sundew_io::Raw;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(5);

/// Frozen as soon as it is at rest.
async fn export(server: &Server, sid: &str) -> Exported {
    let asking = async {
        loop {
            if let Some(exported) = server.engine.export(sid, 10_000).await {
                return exported;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, asking).await.expect("never at rest")
}

/// Another process.
fn elsewhere() -> (Engine<Echo>, Echo) {
    let echo = Echo::default();
    (Engine::new(calm(), echo.clone()), echo)
}

/// The two ends of a connection.
async fn connection() -> (TcpStream, Raw) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, Raw::Tcp(listener.accept().await.unwrap().0))
}

/// A session that has come to `engine`, without its connection.
async fn arriving(engine: &Engine<Echo>) -> Arriving {
    let server = serve(calm()).await;
    let (_ws, sid) = Ws::open(server.addr).await;
    let exported = export(&server, &sid).await;
    let arriving = engine.import(exported.state()).unwrap();
    assert!(exported.release());
    arriving
}

#[tokio::test]
async fn it_goes_on_with_the_connection_it_is_given() {
    let (engine, echo) = elsewhere();
    let arriving = arriving(&engine).await;
    let (client, socket) = connection().await;
    assert!(arriving.attach(socket, &encode(0x81, b"4early")));
    let mut ws = Ws(client);
    assert_eq!(ws.next().await, text("2"));
    assert_eq!(ws.next().await, text("4early"));
    assert!(echo.log.lock().unwrap().handles[0].is_open());
}

#[tokio::test]
async fn who_lets_go_of_a_session_hears_that_it_was_closed_meanwhile() {
    let server = serve(calm()).await;
    let (mut ws, sid) = Ws::open(server.addr).await;
    let exported = export(&server, &sid).await;
    server.handle().send(Frames::text("last")).unwrap();
    server.handle().close(CloseReason::ForcedClose);
    assert!(!exported.release());
    assert_eq!(ws.next().await, text("4last"));
    assert_eq!(ws.next().await, Frame::Close(None));
    server.until_closed(&[CloseReason::ForcedClose]).await;
}

#[tokio::test]
async fn whoever_waits_for_the_connection_of_a_session_that_is_closed_waits_no_longer() {
    let mut config = calm();
    config.close_timeout = 4 * SOON;
    let server = serve(config).await;
    let (mut ws, sid) = Ws::open(server.addr).await;
    let exported = export(&server, &sid).await;
    server.handle().send(Frames::text("last")).unwrap();
    let mut taking = pin!(exported.into_socket());
    // It has asked; the session's task has not run since.
    poll_fn(|cx| {
        assert!(taking.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    server.handle().close(CloseReason::ForcedClose);
    assert!(timeout(SOON, taking).await.unwrap().is_none());
    assert_eq!(ws.next().await, text("4last"));
    assert_eq!(ws.next().await, Frame::Close(None));
}

#[tokio::test]
async fn a_session_stays_until_a_body_from_before_its_upgrade_is_worked_off() {
    let server = serve(calm()).await;
    let sid = open(server.addr).await;
    let query = format!("EIO=4&transport=polling&sid={sid}");
    let mut body = send_request(server.addr, "POST", &query, "content-length: 6\r\n", b"").await;
    body.write_all(b"4he").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let mut ws = Ws::upgrade(server.addr, &sid).await;
    ws.text("4one").await;
    assert_eq!(ws.next().await, text("4one"));
    for _ in 0..10 {
        assert!(server.engine.export(&sid, 10_000).await.is_none());
        sleep(Duration::from_millis(2)).await;
    }
    body.write_all(b"llo").await.unwrap();
    assert_eq!(read_answer(&mut body).await.body, "ok");
    assert_eq!(ws.next().await, text("4hello"));
    assert!(export(&server, &sid).await.release());
}

#[tokio::test]
async fn a_connection_that_comes_to_a_session_that_is_over_ends() {
    let (engine, echo) = elsewhere();
    let arriving = arriving(&engine).await;
    // Kept, as an app may.
    let handle = echo.log.lock().unwrap().handles[0].clone();
    handle.close(CloseReason::ForcedClose);
    let (mut client, socket) = connection().await;
    assert!(!arriving.attach(socket, b""));
    assert_eq!(timeout(SOON, client.read(&mut [0; 10])).await.unwrap().unwrap(), 0);
    // Nothing is left to wait for: not even the close timeout.
    assert_eq!(engine.stats().sessions, 0);
    assert!(!handle.is_open());
}

#[tokio::test]
async fn draining_gives_a_session_that_is_on_its_way_time_to_get_there() {
    let server = serve(calm()).await;
    let (mut going, going_sid) = Ws::open(server.addr).await;
    let exported = export(&server, &going_sid).await;
    let (mut other, _) = Ws::open(server.addr).await;
    let engine = server.engine.clone();
    let draining = tokio::spawn(async move { engine.drain(Duration::ZERO, Pace::default()).await });
    assert_eq!(other.next().await, Frame::Close(None));
    assert!(exported.release(), "it was not closed");
    assert_eq!(going.next().await, Frame::End);
    drop((going, other));
    timeout(SOON, draining).await.unwrap().unwrap();
    // But it is not waited for longer than that.
    let (mut stuck, sid) = Ws::open(server.addr).await;
    let exported = export(&server, &sid).await;
    let begun = Instant::now();
    timeout(SOON, server.engine.drain(Duration::ZERO, Pace::default())).await.unwrap();
    assert!(begun.elapsed() >= server.engine.config().close_timeout);
    assert!(!exported.release());
    until(|| server.engine.stats().sessions == 0).await;
    let _ = stuck.next().await;
}
