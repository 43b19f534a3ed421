//! The front door: peeks, classifies, picks a worker, hands the connection over or proxies the request.
//!
//! ```text
//! accept -> peek the head (never consume before deciding) -> classify -> pick -> hand over or proxy
//! ```
//!
//! What it knows of workers is the [`Backend`] trait; it knows no processes. What happens to one connection is in
//! `connection.rs` (in `raw.rs` if it is not looked at), one request of it over a leg in `proxy/`. Who owns a session is
//! written in its id, or was learned from the worker's answer (`learn`, `sids`). The decisions (`http`, `pick`,
//! `rendezvous`) are pure.

mod accept;
mod access;
mod advertise;
mod announced;
mod backend;
mod client;
mod config;
mod connection;
mod crowds;
mod direct;
mod front;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod learn;
mod leg;
mod let_go;
mod members;
mod moving;
mod nodes;
mod pick;
mod proxy;
mod raw;
mod rendezvous;
mod request_id;
mod route;
mod scratch;
mod sids;
mod site;
mod stats;
mod tally;
mod tls;
mod trusted;

pub use accept::{ListenerHandle, Listening, Serve};
pub use access::{Access, AccessLog};
pub use announced::ProxyProtocol;
pub use backend::{Abilities, Backend, BackendId, HandOff, Leg};
pub use config::{Advertise, Affinity, Balance, FrontConfig, Limits};
pub use front::{Front, MemberLoad, WeakFront};
pub use http::forwarded::ForwardedHeader;
pub use moving::{Arrival, Departure, Mover, Moving};
pub use nodes::{Finder, Finding, Node};
pub use site::{Place, Site};
pub use stats::FrontStats;
pub use tally::WorkerStats;
pub use tls::{CertificateError, Certificates, Tls};
pub use trusted::{BadProxy, TrustedProxies};
