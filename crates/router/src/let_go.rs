//! Letting go of sessions that only we know: those learned from a worker's answers, and those whose websocket runs through
//! a leg. A worker that counts its sessions itself does this on its own.

use std::time::Duration;

use crate::backend::BackendId;
use crate::front::Shared;

impl Shared {
    /// `batch` sessions at a time, with a `pause` in between, until there are none.
    pub(crate) async fn let_go(&self, id: BackendId, batch: u32, pause: Duration) {
        let Some(member) = self.members.find(id) else { return };
        let mut pace = Pace { batch: batch.max(1), left: batch.max(1), pause };
        loop {
            let (sessions, websockets) = (self.sids.polling_of(&member.owner), member.legs.take_sessions());
            if sessions.is_empty() && websockets.is_empty() {
                return;
            }
            for session in sessions {
                pace.step().await;
                self.sids.let_go(&session);
                self.counters.let_go.add();
            }
            for leg in websockets {
                pace.step().await;
                leg.end_both();
                self.counters.let_go.add();
            }
        }
    }
}

struct Pace {
    batch: u32,
    left: u32,
    pause: Duration,
}

impl Pace {
    async fn step(&mut self) {
        if self.left == 0 {
            tokio::time::sleep(self.pause).await;
            self.left = self.batch;
        }
        self.left -= 1;
    }
}
