//! A worker in a cluster, with the test as its supervisor: addresses, counts, confirmations and the end.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::routing::get;
use common::{PATIENCE, joined, listening, read_body};
use sundew_channel::native::{PeerId, ToSupervisor, ToWorker};
use sundew_worker::{Cluster, Phase, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn app() -> Router {
    Router::new()
        .route("/address", get(|ConnectInfo(addr): ConnectInfo<SocketAddr>| async move { addr.to_string() }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                "done"
            }),
        )
        .route(
            "/upgrade",
            get(|| async {
                let headers = [(CONNECTION, "Upgrade"), (UPGRADE, "other")];
                (StatusCode::SWITCHING_PROTOCOLS, headers)
            }),
        )
        .route("/headers", get(|headers: axum::http::HeaderMap| async move { format!("{headers:?}") }))
}

#[tokio::test]
async fn every_leg_request_has_its_own_address_and_counts_its_mark() {
    let (mut supervisor, cluster) = joined().await;
    let listener = listening(&mut supervisor, &cluster).await;
    tokio::spawn(serve(listener, app()));
    assert_eq!(supervisor.recv().await, ToSupervisor::Ready);

    let mut leg = supervisor.leg().await;
    for (n, mark) in [("1", "; place"), ("2", ""), ("3", "; place")] {
        let head = format!("GET /address HTTP/1.1\r\nhost: x\r\nx-sundew-peer: 10.0.0.{n}:99{mark}\r\n\r\n");
        leg.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(read_body(&mut leg).await, format!("10.0.0.{n}:99"));
    }
    leg.write_all(b"GET /headers HTTP/1.1\r\nhost: x\r\nx-sundew-peer: 10.0.0.1:1\r\n\r\n").await.unwrap();
    assert!(!read_body(&mut leg).await.contains("sundew"), "the header is the front door's own");

    supervisor
        .recv_until(|message| match message {
            ToSupervisor::Accepted { through } => {
                assert_eq!(*through, 1);
                None
            }
            ToSupervisor::Load { placements, .. } => (*placements == 2).then_some(()),
            other => panic!("{other:?}"),
        })
        .await;
}

#[tokio::test]
async fn a_handed_over_socket_has_its_own_address_only_and_takes_one_request() {
    let (mut supervisor, cluster) = joined().await;
    let listener = listening(&mut supervisor, &cluster).await;
    tokio::spawn(serve(listener, app()));

    let head = "GET /address HTTP/1.1\r\nhost: x\r\nx-sundew-peer: 10.0.0.1:99; place\r\n\r\n";
    let mut client = supervisor.hand_off(head, true).await;
    assert_eq!(read_body(&mut client).await, client.local_addr().unwrap().to_string());
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("still open").unwrap();

    // The forged mark is not counted, the hand-off's own is.
    let placements = supervisor
        .recv_until(|message| match message {
            ToSupervisor::Load { placements, .. } => Some(*placements),
            _ => None,
        })
        .await;
    assert_eq!(placements, 1);
}

#[tokio::test]
async fn a_handed_over_socket_takes_no_second_request_even_if_it_is_there_already() {
    let (mut supervisor, cluster) = joined().await;
    let listener = listening(&mut supervisor, &cluster).await;
    tokio::spawn(serve(listener, app()));

    let get = "GET /address HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut client = supervisor.hand_off(&get.repeat(2), true).await;
    let mut all = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut all)).await.expect("still open").unwrap();
    assert_eq!(all.matches("HTTP/1.1 200").count(), 1, "{all}");
    assert!(all.contains("connection: close\r\n"), "{all}");
}

/// aiohttp takes nothing else for an upgrade.
#[tokio::test]
async fn an_upgrade_of_a_handed_over_socket_says_nothing_but_upgrade() {
    let (mut supervisor, cluster) = joined().await;
    let listener = listening(&mut supervisor, &cluster).await;
    tokio::spawn(serve(listener, app()));

    let head = "GET /upgrade HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: other\r\n\r\n";
    let mut client = supervisor.hand_off(head, true).await;
    let mut all = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut all)).await.expect("still open").unwrap();
    assert!(all.starts_with("HTTP/1.1 101 ") && all.contains("\r\nconnection: Upgrade\r\n"), "{all}");
}

#[tokio::test]
async fn nothing_is_confirmed_that_no_server_has_taken() {
    let (mut supervisor, cluster) = joined().await;
    let listener = listening(&mut supervisor, &cluster).await;
    let _first = supervisor.hand_off("", true).await;
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let seq = supervisor.next_seq();
    supervisor.send(ToWorker::Peer { seq, id: PeerId { slot: 0, generation: 1 } }, Some(theirs.into())).await;
    let silent = tokio::time::timeout(Duration::from_millis(100), supervisor.channel.recv()).await;
    assert!(silent.is_err(), "{silent:?}");

    tokio::spawn(serve(listener, app()));
    supervisor
        .recv_until(|message| match message {
            ToSupervisor::Ready => None,
            ToSupervisor::Accepted { through: 2 } => Some(()),
            other => panic!("{other:?}"),
        })
        .await;
}

#[tokio::test]
async fn peers_reach_the_bus_however_late_it_asks() {
    let (mut supervisor, cluster) = joined().await;
    cluster.start().unwrap();
    let (sender, mut peers) = tokio::sync::mpsc::unbounded_channel();
    let mut ends = Vec::new();
    for slot in [0, 1] {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ends.push(ours);
        let seq = supervisor.next_seq();
        supervisor
            .send(ToWorker::Peer { seq, id: PeerId { slot, generation: 1 } }, Some(theirs.into()))
            .await;
        if slot == 0 {
            assert_eq!(supervisor.recv().await, ToSupervisor::Accepted { through: 1 });
            let sender = sender.clone();
            cluster.on_peer(move |peer| sender.send(peer).unwrap());
        }
    }
    for slot in [0, 1] {
        assert_eq!(peers.recv().await.unwrap().id, PeerId { slot, generation: 1 });
    }
}

#[tokio::test]
async fn shutdown_ends_the_server_after_the_requests_in_flight() {
    let (mut supervisor, cluster) = joined().await;
    let listener = listening(&mut supervisor, &cluster).await;
    let server = tokio::spawn(serve(listener, app()));
    let mut busy = supervisor.leg().await;
    let mut idle = supervisor.leg().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    supervisor.recv_until(|message| (*message == ToSupervisor::Accepted { through: 2 }).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(50)).await;

    supervisor.send(ToWorker::Shutdown, None).await;
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(!server.is_finished(), "a request is in flight");
    assert_eq!(read_body(&mut busy).await, "done");
    tokio::time::timeout(PATIENCE, server).await.expect("still serving").unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_without_its_supervisor_ends() {
    let (mut supervisor, cluster) = joined().await;
    let listener = listening(&mut supervisor, &cluster).await;
    let mut phase = cluster.phase();
    let server = tokio::spawn(serve(listener, app()));
    supervisor.recv_until(|message| (*message == ToSupervisor::Ready).then_some(())).await;
    drop(supervisor);
    phase.wait_for(|phase| *phase == Phase::Leaving).await.unwrap();
    tokio::time::timeout(PATIENCE, server).await.expect("still serving").unwrap().unwrap();
}

#[tokio::test]
async fn what_the_supervisor_refuses_is_the_error_of_bind() {
    let (mut supervisor, cluster) = joined().await;
    let refuse = async {
        let ToSupervisor::Listen { id, .. } = supervisor.recv().await else { panic!("no listen") };
        supervisor
            .send(ToWorker::Bound { id, result: Err("port 80 belongs to app \"web\"".into()) }, None)
            .await;
    };
    let (listener, ()) = tokio::join!(sundew_worker::Listener::of(&cluster, "0.0.0.0:80"), refuse);
    assert_eq!(listener.unwrap_err().to_string(), "port 80 belongs to app \"web\"");

    // Nor does it wait for a supervisor that is gone.
    drop(supervisor);
    let gone = tokio::time::timeout(PATIENCE, sundew_worker::Listener::of(&cluster, "0.0.0.0:80")).await;
    assert!(gone.expect("waits").unwrap_err().to_string().contains("gone"));
    // Neither when it has noticed long before.
    cluster.phase().wait_for(|phase| *phase == Phase::Leaving).await.unwrap();
    let gone = tokio::time::timeout(PATIENCE, sundew_worker::Listener::of(&cluster, "0.0.0.0:80")).await;
    assert!(gone.expect("waits").unwrap_err().to_string().contains("gone"));
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let (ours, theirs) = sundew_channel::native::pair().unwrap();
    let mut welcome = common::welcome();
    welcome.protocol += 1;
    ours.try_send(&ToWorker::Welcome(welcome), None).unwrap();
    let error = Cluster::join(theirs).unwrap_err().to_string();
    assert!(error.contains("same Sundew release"), "{error}");
}
