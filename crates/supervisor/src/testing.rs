//! What the unit tests of several modules need.

use std::collections::BTreeMap;

use crate::ecosystem::{AppConfig, ExecMode, Kind, LogFile, LogFormat, SundewOptions};

/// An app with pm2's defaults.
pub(crate) fn config(name: &str) -> AppConfig {
    AppConfig {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        file: None,
        script: "/bin/true".into(),
        interpreter: Vec::new(),
        args: Vec::new(),
        cwd: "/".into(),
        env: BTreeMap::new(),
        exec_mode: ExecMode::Fork,
        kind: Kind::None,
        instances: 1,
        instance_var: "NODE_APP_INSTANCE".to_owned(),
        port: None,
        autorestart: true,
        max_restarts: 16,
        min_uptime: 1000,
        restart_delay: 0,
        exp_backoff_restart_delay: 0,
        stop_exit_codes: Vec::new(),
        kill_timeout: 1600,
        shutdown_with_message: false,
        wait_ready: false,
        listen_timeout: 3000,
        treekill: true,
        out_file: LogFile::Default,
        error_file: LogFile::Default,
        merge_logs: false,
        log_date_format: None,
        log_format: LogFormat::Raw,
        sundew: SundewOptions::default(),
    }
}
