//! Ecosystem files: what the user wrote, resolved into what the daemon runs.
//!
//! ```text
//! load (file, top level) -> node (syntax) -> settings (keys; types by coerce) -> resolve (paths, env, defaults) -> AppConfig
//! ```
//!
//! Everything found on the way is a [`Diagnostic`] with its place. All of it happens in the command, in the user's shell;
//! the daemon gets the [`AppConfig`] and never looks at the user's files.

mod coerce;
mod config;
mod context;
mod diagnostic;
mod keys;
mod load;
mod node;
mod options;
mod resolve;
mod script;
mod settings;
mod sundew;
#[cfg(test)]
mod tests;

pub use config::{AppConfig, ExecMode, Kind, LogFile, LogFormat, Milliseconds};
pub use context::Context;
pub use diagnostic::{Diagnostic, Place};
pub use load::{Ecosystem, Flag, Flags, Invalid, is_file, load, program};
pub use options::{Affinity, Balance, Limits, Serialization, SundewOptions};
pub use resolve::MAX_INSTANCES;
pub(crate) use script::is_node;
