//! What went wrong, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

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

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            /// Each handler that goes on without its connection holds a receiver.
            pub(crate) left_behind: watch::Sender<()>,
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
    /// Events that met a full queue, each recipient counted.
    queue_full,
    /// How often a client became too slow: its queue was full, and had not been since it last took something.
    slow_clients,
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
