//! Ecosystem files, processes, restart policy, logs, rolling reload and the control API.
