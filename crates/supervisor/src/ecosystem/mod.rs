//! Ecosystem files: what the user wrote, resolved into what the daemon runs.

mod config;

pub use config::{
    Affinity, AppConfig, Balance, ExecMode, Kind, LogFile, LogFormat, Milliseconds, SundewOptions,
};
