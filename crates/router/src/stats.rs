//! The counters of a front door. Nothing is refused without one of them moving.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that grow, beside one figure that is as it is now; and what they are at one moment.
macro_rules! counters {
    (
        $(#[$about:meta])* $stats:ident of $counters:ident, beside $(#[$gauge_doc:meta])* $gauge:ident:
        $($(#[$doc:meta])* $name:ident,)*
    ) => {
        /// The counters as they are.
        #[derive(Debug, Default)]
        pub(crate) struct $counters { $(pub(crate) $name: Counter,)* }

        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $stats {
            $(#[$gauge_doc])* pub $gauge: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl $counters {
            pub(crate) fn read(&self, $gauge: u64) -> $stats {
                $stats { $gauge, $($name: self.$name.get(),)* }
            }
        }

        impl $stats {
            /// All of them, by name.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [(stringify!($gauge), self.$gauge), $((stringify!($name), self.$name),)*].into_iter()
            }
        }

        /// Of several front doors.
        impl std::ops::AddAssign for $stats {
            fn add_assign(&mut self, other: Self) {
                self.$gauge += other.$gauge;
                $(self.$name += other.$name;)*
            }
        }
    };
}

pub(crate) use counters;

counters! {
    /// The counters of a front door at one moment. All but `connections` only grow.
    FrontStats of Counters, beside
    /// Connections held now; those handed over are not.
    connections:
    /// Connections accepted.
    accepted,
    /// Connections handed over to a worker.
    handed_off,
    /// TLS handshakes completed.
    tls,
    /// Websockets between TLS and a worker, relayed from then on: part of those handed over.
    tls_relayed,
    /// Requests that came by HTTP/2: part of those below.
    h2,
    /// Connections handed over unread, as a whole.
    raw,
    /// Connections that came back from a dead worker and were routed again.
    rerouted,
    /// Requests answered by a worker over a leg.
    proxied,
    /// Upgrades other than Socket.IO's that run through a leg.
    tunnelled,
    /// Requests sent to the node that has their session.
    forwarded,
    /// Websockets relayed to the node that has their session.
    relayed,
    /// Sessions that have come over to such a websocket.
    moved,
    /// Requests taken for other nodes.
    from_nodes,
    /// Searches for a session at the other nodes.
    asked,
    /// Those that found it.
    found,
    /// Sessions learned from workers' answers.
    learned,
    /// Sessions let go of when their worker drained.
    let_go,
    /// Legs opened.
    legs_opened,
    /// Requests sent once more because a leg was stale or a worker gone.
    retried,
    /// Connections refused because there are too many (503, or 429 if they are of one address).
    rejected_connections,
    /// Connections without the PROXY header they must begin with, with a malformed one, or not from a trusted proxy.
    rejected_unannounced,
    /// Requests that are no HTTP, or are ambiguous (400, 501, 505).
    rejected_malformed,
    /// Request heads that are too long (431).
    rejected_head_size,
    /// Request heads or bodies that came too slowly (408).
    rejected_slow,
    /// TLS handshakes that failed, or took too long.
    rejected_tls,
    /// Requests for a host or a path that no app at their address has (421, 404).
    rejected_nowhere,
    /// Requests for a session nobody owns (400, code 1).
    rejected_unknown_sid,
    /// New sessions refused because as many as may be are known (503).
    rejected_learned_sids,
    /// Requests for which there was no worker (503).
    rejected_no_worker,
    /// Requests whose worker went away (the close packet, 400 code 1, or 502).
    worker_lost,
    /// Clients that went away before their answer was complete.
    client_gone,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
