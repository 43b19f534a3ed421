//! One app as it was written: every key it has, in the type it wants. Which keys there are is in `keys`, what they come
//! to is in `resolve`.

use std::collections::BTreeMap;

use super::coerce::{Given, Instances, Reader};
use super::config::{ExecMode, Kind, LogFormat, Milliseconds};
use super::keys::{self, State};
use super::node::{Node, Property, Value};
use super::options::SundewOptions;
use super::sundew;
use super::tls::Tls;

/// `filter_env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FilterEnv {
    /// Nothing of the shell's environment is passed on.
    All,
    /// Not this variable.
    One(String),
    /// No variable whose name contains one of these.
    Containing(Vec<String>),
}

/// What was written; `None` is for what was not.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) script: Option<Given<String>>,
    pub(super) name: Option<Given<String>>,
    pub(super) name_prefix: Option<Given<String>>,
    pub(super) namespace: Option<Given<String>>,
    pub(super) cwd: Option<Given<String>>,
    pub(super) args: Option<Vec<String>>,
    pub(super) interpreter: Option<Given<String>>,
    pub(super) node_args: Option<Vec<String>>,
    pub(super) exec_mode: Option<Given<ExecMode>>,
    pub(super) instances: Option<Given<Instances>>,
    pub(super) instance_var: Option<Given<String>>,
    pub(super) port: Option<u16>,
    pub(super) env: Vec<(String, String)>,
    /// `env_NAME`, by `NAME`.
    pub(super) env_named: BTreeMap<String, Vec<(String, String)>>,
    pub(super) filter_env: Option<FilterEnv>,
    pub(super) append_env_to_name: Option<bool>,
    pub(super) autorestart: Option<bool>,
    pub(super) max_restarts: Option<u32>,
    pub(super) min_uptime: Option<Milliseconds>,
    pub(super) restart_delay: Option<Milliseconds>,
    pub(super) exp_backoff_restart_delay: Option<Milliseconds>,
    pub(super) stop_exit_codes: Option<Vec<i32>>,
    pub(super) kill_timeout: Option<Milliseconds>,
    pub(super) shutdown_with_message: Option<bool>,
    pub(super) wait_ready: Option<bool>,
    pub(super) listen_timeout: Option<Milliseconds>,
    pub(super) treekill: Option<bool>,
    pub(super) out_file: Option<Given<String>>,
    pub(super) error_file: Option<Given<String>>,
    pub(super) merge_logs: Option<bool>,
    pub(super) disable_logs: Option<bool>,
    pub(super) log_date_format: Option<Given<String>>,
    pub(super) time: Option<bool>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) kind: Option<Given<Kind>>,
    /// That `sundew.direct` and `sundew.route` were given, and where.
    pub(super) direct: Option<Given<()>>,
    pub(super) route: Option<Given<()>>,
    /// What was written and is about Node.js workers only.
    pub(super) node_only: Vec<Given<()>>,
    pub(super) sundew: SundewOptions,
    pub(super) tls: Option<Tls>,
    pub(super) access_log_file: Option<Given<String>>,
}

impl Settings {
    /// Reads an app's object.
    pub(super) fn read(properties: &[Property], reader: &mut Reader<'_>) -> Self {
        let mut settings = Self::default();
        let mut seen: Vec<(&'static str, &str)> = Vec::new();
        for property in properties {
            if let Some(name) = property.name.strip_prefix("env_").filter(|name| !name.is_empty()) {
                if let Some(variables) = reader.variables(&property.name, &property.node) {
                    settings.env_named.insert(name.to_owned(), variables);
                }
                continue;
            }
            let Some(key) = keys::find(&property.name) else {
                unknown(property, keys::nearest_key(&property.name), reader);
                continue;
            };
            if let Some((_, before)) = seen.iter().find(|(name, _)| *name == key.name) {
                let message = match *before == property.name {
                    true => format!("`{}` is given twice: the last one counts", property.name),
                    false => format!(
                        "`{}` and `{before}` are names of the same key: the last one counts",
                        property.name
                    ),
                };
                let warning = reader.about(&property.name, property.name_at, message);
                reader.report.warn(warning);
            }
            seen.push((key.name, &property.name));
            match key.state {
                // JavaScript's way to leave something out.
                _ if matches!(property.node.value, Value::Null) => {}
                State::Built => {
                    settings.set(key.name, &property.name, &property.node, reader);
                }
                State::NotBuilt => {
                    // Turned off, it is as if it were built.
                    if inert(key.name, &property.node) {
                        continue;
                    }
                    let message = format!("`{}` has no effect: this pm2 key is not built yet", property.name);
                    let warning = reader.about(&property.name, property.name_at, message);
                    reader.report.warn(warning);
                }
                State::Without(why) => {
                    if inert(key.name, &property.node) {
                        continue;
                    }
                    let message = format!("`{}` has no effect: {why}", property.name);
                    let warning = reader.about(&property.name, property.name_at, message);
                    reader.report.warn(warning);
                }
            }
        }
        settings
    }

    /// Sets one built key. `written` is how the user called it. False if it is not one.
    pub(super) fn set(&mut self, key: &str, written: &str, node: &Node, reader: &mut Reader<'_>) -> bool {
        let most = u64::from(u32::MAX);
        match key {
            "script" => self.script = reader.text(written, node),
            "name" => self.name = reader.text(written, node),
            "name_prefix" => self.name_prefix = reader.text(written, node),
            "namespace" => self.namespace = reader.text(written, node),
            "cwd" => self.cwd = reader.text(written, node),
            "args" => self.args = reader.list(written, node),
            "interpreter" => self.interpreter = reader.text(written, node),
            "node_args" => self.node_args = reader.list(written, node),
            "exec_mode" => {
                let modes = [
                    ("cluster", ExecMode::Cluster),
                    ("fork", ExecMode::Fork),
                    ("cluster_mode", ExecMode::Cluster),
                    ("fork_mode", ExecMode::Fork),
                ];
                let mode = reader.word(written, node, &modes, &[]);
                self.exec_mode = mode.map(|value| Given { value, key: written.to_owned(), at: node.at });
            }
            "instances" => self.instances = reader.instances(written, node),
            "instance_var" => self.instance_var = reader.text(written, node),
            "port" => {
                let port = reader.count(written, node, 1, u64::from(u16::MAX));
                self.port = port.and_then(|port| u16::try_from(port).ok());
            }
            "env" => self.env = reader.variables(written, node).unwrap_or_default(),
            "filter_env" => self.filter_env = filter_env(written, node, reader),
            "append_env_to_name" => self.append_env_to_name = reader.boolean(written, node),
            "autorestart" => self.autorestart = reader.boolean(written, node),
            "max_restarts" => {
                let count = reader.count(written, node, 0, most);
                self.max_restarts = count.and_then(|count| u32::try_from(count).ok());
            }
            // The bound is pm2's.
            "min_uptime" => self.min_uptime = reader.time(written, node, 100),
            "restart_delay" => self.restart_delay = reader.time(written, node, 0),
            "exp_backoff_restart_delay" => self.exp_backoff_restart_delay = reader.time(written, node, 0),
            "stop_exit_codes" => self.stop_exit_codes = reader.exit_codes(written, node),
            "kill_timeout" => self.kill_timeout = reader.time(written, node, 0),
            "shutdown_with_message" => {
                self.shutdown_with_message = reader.boolean(written, node);
                if self.shutdown_with_message == Some(true) {
                    self.node_only.push(Given { value: (), key: written.to_owned(), at: node.at });
                }
            }
            "wait_ready" => self.wait_ready = reader.boolean(written, node),
            "listen_timeout" => self.listen_timeout = reader.time(written, node, 1),
            "treekill" => self.treekill = reader.boolean(written, node),
            "out_file" => self.out_file = reader.text(written, node),
            "error_file" => self.error_file = reader.text(written, node),
            "merge_logs" => self.merge_logs = reader.boolean(written, node),
            "disable_logs" => self.disable_logs = reader.boolean(written, node),
            "log_date_format" => self.log_date_format = reader.text(written, node),
            "time" => self.time = reader.boolean(written, node),
            "log_type" => {
                let types = [("json", LogFormat::Json), ("raw", LogFormat::Raw)];
                self.log_format = reader.word(written, node, &types, &[]);
            }
            "sundew" => sundew::read(written, node, self, reader),
            _ => return false,
        }
        true
    }
}

/// Warns of a key nobody knows. pm2 drops it without a word.
pub(super) fn unknown(property: &Property, near: Option<String>, reader: &mut Reader<'_>) {
    let message = format!("`{}` has no effect: there is no such key", property.name);
    let warning = reader.about(&property.name, property.name_at, message);
    reader.report.warn(match near {
        Some(near) => warning.hint(format!("did you mean `{near}`?")),
        None => warning,
    });
}

/// Whether a key that does nothing is set to what it does when it is not set.
fn inert(key: &str, node: &Node) -> bool {
    match (key, &node.value) {
        ("autostart" | "source_map_support", Value::Bool(value)) => *value,
        (_, Value::Bool(value)) => !value,
        (_, Value::Text(text)) => text.is_empty(),
        (_, Value::List(items)) => items.is_empty(),
        _ => false,
    }
}

fn filter_env(written: &str, node: &Node, reader: &mut Reader<'_>) -> Option<FilterEnv> {
    match &node.value {
        Value::Bool(false) => None,
        Value::Bool(true) => Some(FilterEnv::All),
        // A flag is text, and pm2 takes it for a list.
        Value::Text(text) if written.starts_with('-') => match text.as_str() {
            "true" => Some(FilterEnv::All),
            "false" => None,
            _ => reader.list(written, node).map(FilterEnv::Containing),
        },
        Value::Text(name) => Some(FilterEnv::One(name.clone())),
        _ => reader.list(written, node).map(FilterEnv::Containing),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::Report;
    use super::*;

    #[test]
    fn every_built_key_is_read() {
        for key in keys::KEYS {
            let mut report = Report::default();
            let mut reader = Reader { source: None, report: &mut report };
            let read = Settings::default().set(key.name, key.name, &Node::text("1"), &mut reader);
            assert_eq!(read, key.state == State::Built, "{}", key.name);
        }
    }
}
