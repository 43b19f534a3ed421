//! Load and drain, over a fake session server. Alone in its file: servers are registered for the whole process.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{joined, listening};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sundew_channel::native::{ToSupervisor, ToWorker};
use sundew_worker::{Pace, SessionStats, Sessions, register, serve};
use tokio::sync::Notify;

#[derive(Default)]
struct Fake {
    open: AtomicU32,
    changed: Notify,
}

impl Fake {
    fn set(&self, open: u32) {
        self.open.store(open, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

impl Sessions for Fake {
    fn stats(&self) -> SessionStats {
        let sessions = self.open.load(Ordering::SeqCst);
        SessionStats { sessions, polling: sessions / 2, websocket: sessions - sessions / 2 }
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        self.changed.notified().boxed()
    }

    fn drain(&self, deadline: Duration, _: Pace) -> BoxFuture<'_, ()> {
        async move {
            tokio::time::sleep(deadline).await;
            self.set(0);
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { self.set(0) }.boxed()
    }
}

#[tokio::test]
async fn load_is_reported_on_change_and_a_drain_is_answered_when_it_is_over() {
    let (mut supervisor, cluster) = joined().await;
    let fake = Arc::new(Fake::default());
    let listener = listening(&mut supervisor, &cluster).await;
    register(fake.clone());
    let server = tokio::spawn(serve(listener, axum::Router::new()));
    assert_eq!(supervisor.recv().await, ToSupervisor::Ready);

    // Many changes, few messages, and the last state is among them.
    let mut messages = 0;
    for open in 1..=500 {
        fake.set(open);
        if open % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    loop {
        let ToSupervisor::Load { sessions, polling, websocket, placements: 0 } = supervisor.recv().await
        else {
            panic!("not a load")
        };
        messages += 1;
        assert_eq!(polling + websocket, sessions);
        if sessions == 500 {
            break;
        }
    }
    assert!(messages <= 50, "{messages} messages for 500 changes");
    let silent = tokio::time::timeout(Duration::from_millis(150), supervisor.channel.recv()).await;
    assert!(silent.is_err(), "nothing changed, but {silent:?}");

    supervisor.send(ToWorker::Drain { deadline_ms: 60_000 }, None).await;
    let silent = tokio::time::timeout(Duration::from_millis(100), supervisor.channel.recv()).await;
    assert!(silent.is_err(), "before the deadline: {silent:?}");
    // The latest deadline counts.
    supervisor.send(ToWorker::Drain { deadline_ms: 50 }, None).await;
    supervisor
        .recv_until(|message| match message {
            ToSupervisor::Drained => Some(()),
            ToSupervisor::Load { sessions, .. } => {
                assert_eq!(*sessions, 0);
                None
            }
            other => panic!("{other:?}"),
        })
        .await;

    fake.set(3);
    supervisor.send(ToWorker::Shutdown, None).await;
    server.await.unwrap().unwrap();
    assert_eq!(fake.stats().sessions, 0, "what is left is closed");
}
