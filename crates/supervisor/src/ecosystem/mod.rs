//! Ecosystem files: what the user wrote, resolved into what the daemon runs.

mod config;
mod options;

pub use config::{AppConfig, ExecMode, Kind, LogFile, LogFormat, Milliseconds};
pub use options::{Affinity, Balance, Limits, SundewOptions};
