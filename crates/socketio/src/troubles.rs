//! What went wrong, counted; and what is at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

macro_rules! troubles {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What went wrong so far, counted up.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Troubles {
            $($(#[$doc])* pub $name: u64,)*
            /// Messages to other servers that were dropped because they do not read them, as the adapter counts.
            pub bus_dropped: u64,
        }

        impl Troubles {
            /// Each count with the name of its field, for a page of metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)* ("bus_dropped", self.bus_dropped)].into_iter()
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            at_work: AtomicUsize,
            at_rest: Notify,
        }

        impl Counters {
            pub(crate) fn troubles(&self, bus_dropped: u64) -> Troubles {
                Troubles { $($name: self.$name.load(Ordering::Relaxed),)* bus_dropped }
            }
        }
    };
}

troubles! {
    /// Handlers that returned an error, or could not be called for a reason of the app's own, such as a `State` the server
    /// was not given.
    handler_errors,
    /// Handlers that panicked.
    panics,
    /// Handlers that were not called because what the client sent is not what they expect.
    bad_arguments,
    /// Handlers that ended with an error because their client had left.
    clients_left,
    /// Events that a middleware refused, or a handler with an [`EventError`](crate::EventError).
    rejected,
    /// CONNECTs that were refused: by middleware, or because there is no such namespace, or one too many.
    connects_refused,
    /// Clients refused a namespace because there are too many (`max_dynamic_namespaces`).
    namespaces_refused,
    /// Rooms that were not joined because their socket is in too many (`max_rooms`).
    rooms_refused,
    /// Events that met a full queue, each recipient counted.
    queue_full,
    /// How often a client became too slow: its queue was full, and had not been since it last took something.
    slow_clients,
    /// Connections that were not read from at some time because as many handlers were at work, or as many events or bytes of them
    /// waited for one, as may be (`max_in_progress`, `max_waiting`, `max_waiting_bytes`).
    held_back,
    /// Volatile events left out because a client was not ready, each recipient counted.
    volatile_dropped,
    /// Connections closed because the client broke the protocol.
    protocol_errors,
    /// Events without a handler.
    unhandled,
    /// Events dropped because their socket sent more than [`Namespace::rate_limit`](crate::Namespace::rate_limit) allows.
    rate_limited,
    /// Events of other servers that were not handled because too many were at that moment (`max_server_events`).
    server_events_dropped,
}

/// A connection, or a handler that goes on without one: the end of the server waits for it.
#[derive(Debug)]
pub(crate) struct AtWork(Arc<Counters>);

impl AtWork {
    pub(crate) fn new(counters: &Arc<Counters>) -> AtWork {
        counters.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork(counters.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if self.0.at_work.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.at_rest.notify_waiters();
        }
    }
}

impl Counters {
    pub(crate) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::Acquire)
    }

    /// Completes when nothing is at work.
    pub(crate) async fn at_rest(&self) {
        loop {
            let mut rest = std::pin::pin!(self.at_rest.notified());
            rest.as_mut().enable();
            if self.at_work() == 0 {
                return;
            }
            rest.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_is_listed_under_its_own_name() {
        let counters = Counters::default();
        counters.panics.store(3, Ordering::Relaxed);
        counters.slow_clients.store(5, Ordering::Relaxed);
        let troubles = counters.troubles(7);
        let listed: Vec<_> = troubles.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(listed, [("panics", 3), ("slow_clients", 5), ("bus_dropped", 7)]);
        // As many as `Debug` shows.
        assert_eq!(troubles.iter().count(), format!("{troubles:?}").matches(": ").count());
    }
}
