//! A bound on how long the other side may take nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

#[derive(Debug)]
pub(crate) struct Stall {
    limit: Duration,
    /// While something waits to be written.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) fn new(limit: Duration) -> Stall {
        Stall { limit, timer: None }
    }

    /// What a write is to return that came to this.
    pub(crate) fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        timer.as_mut().poll(cx).map(|()| {
            let limit = self.limit;
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client has taken nothing for {limit:?}"),
            ))
        })
    }
}
