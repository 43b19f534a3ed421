//! Where a page is told to connect to: a question to the supervisor, which the test is.
#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

mod common;

use std::time::Duration;

use common::{Supervisor, joined_with, welcome};
use sundew_channel::native::{NoTarget, RouteLimits, Target, ToSupervisor, ToWorker};
use sundew_worker::{Cluster, NoRoute};

async fn with(waiting: u32, timeout_ms: u64) -> (Supervisor, Cluster) {
    let (supervisor, cluster) = joined_with(sundew_channel::native::Welcome {
        route: Some(RouteLimits { waiting, timeout_ms }),
        ..welcome()
    })
    .await;
    cluster.start().unwrap();
    (supervisor, cluster)
}

/// The next question: its id, the host, the client.
async fn question(supervisor: &mut Supervisor) -> (u64, String, Option<std::net::IpAddr>) {
    supervisor
        .recv_until(|message| match message {
            ToSupervisor::Route { id, host, client } => Some((*id, host.clone(), *client)),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn each_question_gets_its_own_answer() {
    let (mut supervisor, cluster) = with(8, 10_000).await;
    let client = "10.0.0.1".parse().unwrap();
    let questions = ["a.example", "b.example:80"].map(|host| {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.route(host, Some(client)).await })
    });
    let mut asked = [question(&mut supervisor).await, question(&mut supervisor).await];
    asked.sort_by_key(|(_, host, _)| host.clone());
    assert!(asked.iter().all(|(.., from)| *from == Some(client)));
    let target = Target { scheme: "https".into(), host: "a.example".into(), port: 3132 };
    supervisor.send(ToWorker::Routed { id: asked[1].0, result: Err(NoTarget::NoHost) }, None).await;
    supervisor.send(ToWorker::Routed { id: 99, result: Err(NoTarget::NoWorker) }, None).await;
    supervisor.send(ToWorker::Routed { id: asked[0].0, result: Ok(target) }, None).await;
    let [first, second] = questions;
    let told = first.await.unwrap().unwrap();
    assert_eq!(
        (told.url.as_str(), told.host.as_str(), told.port),
        ("https://a.example:3132", "a.example", 3132)
    );
    assert_eq!(second.await.unwrap(), Err(NoRoute::NoHost));
}

#[tokio::test]
async fn questions_are_bounded_and_do_not_wait_for_ever() {
    let (mut supervisor, cluster) = with(1, 300).await;
    let waits = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.route("a", None).await }
    });
    question(&mut supervisor).await;
    assert_eq!(cluster.route("b", None).await, Err(NoRoute::Busy(1)));
    assert_eq!(waits.await.unwrap(), Err(NoRoute::Late(Duration::from_millis(300))));
    // What was given up makes room, and so does who leaves.
    for _ in 0..2 {
        let leaves = tokio::time::timeout(Duration::from_millis(20), cluster.route("c", None)).await;
        assert!(leaves.is_err(), "{leaves:?}");
    }
    // A supervisor that goes answers all.
    let waits = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.route("d", None).await }
    });
    supervisor
        .recv_until(|message| {
            matches!(message, ToSupervisor::Route { host, .. } if host == "d").then_some(())
        })
        .await;
    drop(supervisor);
    assert_eq!(waits.await.unwrap(), Err(NoRoute::Gone));
    assert_eq!(cluster.route("e", None).await, Err(NoRoute::Gone));
}

#[tokio::test]
async fn where_the_app_tells_no_routes_nobody_is_asked() {
    let (_supervisor, cluster) = joined_with(welcome()).await;
    assert_eq!(cluster.route("a", None).await, Err(NoRoute::Off));
}
