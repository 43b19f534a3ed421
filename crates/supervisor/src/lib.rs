//! Ecosystem files, processes, restart policy, logs, rolling reload and the control API.
//!
//! - [`ecosystem`]: what the user wrote, resolved into what is run.
//! - [`api`], [`client`]: how the command line talks to a daemon.
//! - [`Home`]: the folder a daemon lives in.
//! - [`ensure`], [`daemon`], [`run`]: the supervisor's process, in the background and in the foreground.
//!
//! Inside, one actor decides (`dispatcher`, with its data in `state`): executors (`worker`, `logs`) report to it, and
//! operations (`ops`) are sequences of its steps. The data plane is the router's; what it needs of a worker is `native`.

pub mod api;
mod bind;
pub mod client;
mod connect;
mod control;
mod daemon;
mod direct;
mod dispatcher;
pub mod ecosystem;
mod ensure;
mod exit;
mod home;
mod info;
mod keys;
mod late;
mod launch;
mod link;
mod listening;
mod logs;
mod mesh;
mod moves;
mod native;
mod node;
mod ops;
mod policy;
mod port;
mod proc;
mod reap;
mod records;
mod said;
mod site;
mod spawn;
mod state;
#[cfg(test)]
mod testing;
mod tls;
mod worker;

pub use daemon::{DaemonError, daemon, run, runtime};
pub use ensure::ensure;
pub use home::{ENV as HOME_ENV, Home, HomeError};
pub use sundew_nodes::{ClusterConfig, NodesInfo};
