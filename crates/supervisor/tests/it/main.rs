//! The supervisor with real processes: a daemon in a process of its own, driven over its control API.
//!
//! The daemon and the native workers are this very test program, started as one of the `process_*` tests below.

#![allow(missing_docs)]
// Clippy lets `#[test]` functions unwrap, not the functions they share.
#![allow(clippy::unwrap_used)]

mod daemon;
mod fork;
mod house;
mod logs;
mod native;
mod process;
mod reload;
