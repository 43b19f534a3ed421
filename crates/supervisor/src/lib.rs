//! Ecosystem files, processes, restart policy, logs, rolling reload and the control API.
//!
//! - [`ecosystem`]: what the user wrote, resolved into what is run.
//! - [`api`], [`client`]: how the command line talks to a daemon.
//! - [`Home`]: the folder a daemon lives in.

pub mod api;
pub mod client;
pub mod ecosystem;
mod home;

pub use home::{ENV as HOME_ENV, Home, HomeError};
