//! What the processes write: read from their pipes, stored in files, shown to followers. Bounded everywhere.
//!
//! - `pump`: one pipe, cut into lines.
//! - `format`: the date before a line.
//! - `store`: one file, and where files are.
//! - `hub`: who listens now; nothing is made ready when nobody does.
//! - `tail`: the last lines of a file, and of a process that failed.

mod access;
mod format;
mod hub;
mod pump;
mod store;
mod tail;

pub(crate) use access::access;
pub(crate) use format::DateFormat;
pub(crate) use hub::{Hub, Received};
pub(crate) use pump::{Source, pump};
pub(crate) use store::path;
pub(crate) use tail::{Recent, last_lines};
