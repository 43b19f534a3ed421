//! Every key an app can have: pm2's, their other names, and which of them do something. No values here.

/// What Sundew does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It does what pm2 does, or what the documentation says.
    Built,
    /// Known, and without effect so far.
    NotBuilt,
    /// Known, and without effect for good: what it is about does not exist here.
    Without(&'static str),
}

/// A key under pm2's first name.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    aliases: &'static [&'static str],
    pub(super) state: State,
}

const fn built(name: &'static str, aliases: &'static [&'static str]) -> Key {
    Key { name, aliases, state: State::Built }
}

const fn not_built(name: &'static str, aliases: &'static [&'static str]) -> Key {
    Key { name, aliases, state: State::NotBuilt }
}

const fn without(name: &'static str, why: &'static str) -> Key {
    Key { name, aliases: &[], state: State::Without(why) }
}

const MONITORING: &str = "it belongs to pm2's monitoring service";
const GIT: &str = "Sundew does not look at git";
const INTERNAL: &str = "it is internal to pm2";

/// All keys of an app but `env_NAME`. Each is also known in camelCase.
pub(super) const KEYS: &[Key] = &[
    built("script", &["exec", "cmd", "command"]),
    built("name", &[]),
    built("name_prefix", &[]),
    built("namespace", &[]),
    built("cwd", &[]),
    built("args", &[]),
    built("interpreter", &["exec_interpreter"]),
    built("node_args", &["interpreter_args"]),
    built("exec_mode", &[]),
    built("instances", &[]),
    built("instance_var", &[]),
    built("port", &[]),
    built("env", &[]),
    built("filter_env", &[]),
    built("append_env_to_name", &[]),
    built("autorestart", &[]),
    built("max_restarts", &[]),
    built("min_uptime", &[]),
    built("restart_delay", &[]),
    built("exp_backoff_restart_delay", &[]),
    built("stop_exit_codes", &[]),
    built("kill_timeout", &[]),
    built("shutdown_with_message", &[]),
    built("wait_ready", &[]),
    built("listen_timeout", &[]),
    built("treekill", &[]),
    built("out_file", &["out", "output", "out_log"]),
    built("error_file", &["error", "err", "err_file", "err_log"]),
    built("merge_logs", &["combine_logs"]),
    built("disable_logs", &[]),
    built("log_date_format", &[]),
    built("time", &[]),
    built("log_type", &[]),
    built("sundew", &[]),
    not_built("increment_var", &[]),
    not_built("autostart", &[]),
    not_built("kill_retry_time", &[]),
    not_built("max_memory_restart", &[]),
    not_built("cron_restart", &["cron"]),
    not_built("watch", &[]),
    not_built("ignore_watch", &[]),
    not_built("watch_options", &[]),
    not_built("watch_delay", &[]),
    not_built("log_file", &["log"]),
    not_built("pid_file", &["pid"]),
    not_built("uid", &["user"]),
    not_built("gid", &[]),
    not_built("source_map_support", &[]),
    not_built("disable_source_map_support", &[]),
    not_built("force", &[]),
    not_built("post_update", &[]),
    without("vizion", GIT),
    without("username", INTERNAL),
    without("write", INTERNAL),
    without("execute_command", INTERNAL),
    without("install_url", "Sundew has no modules"),
    without("windowsHide", "Sundew does not run on Windows"),
    without("pmx", MONITORING),
    without("automation", MONITORING),
    without("trace", MONITORING),
    without("disable_trace", MONITORING),
    without("v8", MONITORING),
    without("event_loop_inspector", MONITORING),
    without("deep_monitoring", MONITORING),
    without("io", MONITORING),
];

impl Key {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// The key a name stands for.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.names().any(|known| known == name || camel(known) == name))
}

/// `max_restarts` as `maxRestarts`: every key has this form too.
pub(super) fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// The known name nearest to an unknown one, if one is near enough to be meant.
pub(super) fn nearest_key(name: &str) -> Option<String> {
    let known = KEYS.iter().flat_map(Key::names).flat_map(|known| [known.to_owned(), camel(known)]);
    nearest(name, known)
}

/// The candidate nearest to a word, if one is near enough to be meant.
pub(super) fn nearest<S: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = S>) -> Option<S> {
    let distance = |candidate: &S| {
        strsim::damerau_levenshtein(&word.to_ascii_lowercase(), &candidate.as_ref().to_ascii_lowercase())
    };
    let (far, best) = candidates
        .into_iter()
        .map(|candidate| (distance(&candidate), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    // A third of the word may differ: `instnaces` is meant, `database` for `namespace` is not.
    (far <= word.chars().count().max(3) / 3).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_once_and_in_camel_case() {
        let names: Vec<_> = KEYS.iter().flat_map(Key::names).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name} twice");
            let key = find(name).unwrap();
            assert_eq!(find(&camel(name)).unwrap().name, key.name);
        }
        assert_eq!(find("combineLogs").unwrap().name, "merge_logs");
        assert_eq!(find("expBackoffRestartDelay").unwrap().name, "exp_backoff_restart_delay");
        assert!(find("max-restarts").is_none());
    }

    #[test]
    fn the_nearest_key_is_found_if_it_is_near() {
        assert_eq!(nearest_key("instnaces").unwrap(), "instances");
        assert_eq!(nearest_key("max_restart").unwrap(), "max_restarts");
        assert_eq!(nearest_key("maxRestart").unwrap(), "maxRestarts");
        assert_eq!(nearest_key("scrpt").unwrap(), "script");
        assert_eq!(nearest_key("completely_else"), None);
        assert_eq!(nearest_key("x"), None);
    }
}
