//! Letting go of the sessions learned from a worker's answers.

use std::time::Duration;

use crate::backend::BackendId;
use crate::front::Shared;

impl Shared {
    pub(crate) async fn let_go(&self, id: BackendId, _batch: u32, _pause: Duration) {
        let Some(_member) = self.members.find(id) else { return };
    }
}
