//! Makes the workers of an app known to each other. The local bus between two workers is one socket pair; the supervisor
//! only hands out its ends.
//!
//! A worker gets traffic once it and every worker that has traffic hold the ends that join them: before that, a
//! broadcast could miss the sessions of one of them.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::native::Native;

/// How long a worker waits for the others to take their ends. One that hangs must not keep the app from growing.
const PATIENCE: Duration = Duration::from_secs(3);

/// The pair between two workers of an app.
struct Joint {
    one: (Weak<Native>, u64),
    other: (Weak<Native>, u64),
}

/// The pairs of one app.
#[derive(Default)]
pub(crate) struct Mesh {
    joints: Vec<Joint>,
}

impl Mesh {
    /// Joins a new worker with the others.
    pub(crate) fn join<'a>(&mut self, new: &Arc<Native>, others: impl Iterator<Item = &'a Arc<Native>>) {
        self.joints.retain(|joint| joint.one.0.strong_count() > 0 && joint.other.0.strong_count() > 0);
        for other in others {
            match UnixStream::pair() {
                Ok((one_end, other_end)) => {
                    let one = new.introduce(other.peer_id(), one_end.into());
                    let two = other.introduce(new.peer_id(), other_end.into());
                    let joint =
                        Joint { one: (Arc::downgrade(new), one), other: (Arc::downgrade(other), two) };
                    self.joints.push(joint);
                }
                Err(error) => tracing::error!(
                    one = ?new.peer_id(), other = ?other.peer_id(), %error,
                    "cannot join two workers: broadcasts between them are lost"
                ),
            }
        }
    }

    /// Completes when `new` and all of `serving` have taken the ends that join them, or patience is over.
    pub(crate) fn complete(
        &self,
        new: &Arc<Native>,
        serving: &[Arc<Native>],
    ) -> impl Future<Output = bool> + use<> {
        let serves = |one: &Arc<Native>| serving.iter().any(|serving| Arc::ptr_eq(serving, one));
        let mut waits = Vec::new();
        for joint in &self.joints {
            let (Some(one), Some(other)) = (joint.one.0.upgrade(), joint.other.0.upgrade()) else { continue };
            let wanted =
                (Arc::ptr_eq(&one, new) && serves(&other)) || (Arc::ptr_eq(&other, new) && serves(&one));
            if wanted {
                waits.push((one, joint.one.1));
                waits.push((other, joint.other.1));
            }
        }
        async move {
            let all = async {
                for (worker, seq) in &waits {
                    worker.confirmed(*seq).await;
                }
            };
            tokio::time::timeout(PATIENCE, all).await.is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use sundew_channel::native::{ToWorker, WorkerChannel, pair};
    use sundew_router::BackendId;

    use super::*;

    fn worker(slot: u16) -> (Arc<Native>, WorkerChannel) {
        let (ours, theirs) = pair().unwrap();
        let native = Native::new(
            "a",
            BackendId { slot, generation: 0 },
            ours.into_channel().unwrap(),
            Duration::from_secs(1),
        );
        (native, theirs.into_channel().unwrap())
    }

    #[tokio::test]
    async fn a_worker_waits_for_those_that_serve_only() {
        let mut mesh = Mesh::default();
        let (serving, serving_end) = worker(0);
        let (starting, _starting_end) = worker(1);
        mesh.join(&starting, [&serving].into_iter());
        let (new, new_end) = worker(2);
        mesh.join(&new, [&serving, &starting].into_iter());

        let mut complete = Box::pin(mesh.complete(&new, std::slice::from_ref(&serving)));
        assert!(futures_util::FutureExt::now_or_never(&mut complete).is_none());
        let (message, fd) = new_end.recv().await.unwrap().unwrap();
        assert!(matches!(message, ToWorker::Peer { seq: 1, id } if id.slot == 0));
        assert!(fd.is_some());
        new.confirm(2);
        assert!(
            futures_util::FutureExt::now_or_never(&mut complete).is_none(),
            "the other one has not taken its end"
        );
        let (message, _) = serving_end.recv().await.unwrap().unwrap();
        assert!(matches!(message, ToWorker::Peer { seq: 1, id } if id.slot == 1));
        serving.confirm(2);
        assert!(complete.await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_hangs_holds_nobody_up_for_ever() {
        let mut mesh = Mesh::default();
        let ((serving, _a), (new, _b)) = (worker(0), worker(1));
        mesh.join(&new, [&serving].into_iter());
        assert!(!mesh.complete(&new, std::slice::from_ref(&serving)).await);
    }
}
