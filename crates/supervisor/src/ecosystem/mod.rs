//! Ecosystem files: what the user wrote, resolved into what the daemon runs.
//!
//! ```text
//! load (file, top level; evaluate: JavaScript) -> node (syntax) -> settings (keys; types by coerce)
//!     -> resolve (paths, env, defaults; script, npm: the program; kind) -> AppConfig
//! ```
//!
//! Everything found on the way is a [`Diagnostic`] with its place. All of it happens in the command, in the user's shell;
//! the daemon gets the [`AppConfig`] and never looks at the user's files.

mod answer;
mod cluster;
mod coerce;
mod config;
mod context;
mod diagnostic;
mod direct;
mod evaluate;
mod keys;
mod kind;
mod line;
mod load;
mod node;
mod npm;
mod options;
mod package;
mod resolve;
mod runtime;
mod script;
mod settings;
mod shell;
mod started;
mod sundew;
#[cfg(test)]
mod tests;
mod tls;

pub use config::{AppConfig, ExecMode, Kind, LogFile, LogFormat, Milliseconds};
pub use context::Context;
pub use diagnostic::{Diagnostic, Place};
pub use load::{Ecosystem, Flag, Flags, Invalid, is_file, load, program};
pub use options::{
    AccessFormat, Affinity, Balance, Limits, Listen, Serialization, SundewOptions, TlsFiles, TlsOptions,
};
pub use resolve::MAX_INSTANCES;
pub(crate) use runtime::is_node;
