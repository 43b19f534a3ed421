//! What an app is resolved against: the shell the command was typed in. Read once; everything after is pure but for
//! looking at files.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The surroundings of the command.
#[derive(Debug, Clone)]
pub struct Context {
    /// The shell's working folder, absolute.
    pub cwd: PathBuf,
    /// The shell's environment.
    pub env: BTreeMap<String, String>,
    /// Variables that cannot be passed on because they are no UTF-8.
    pub unreadable_env: Vec<String>,
    /// What `"max"` means.
    pub cpus: u32,
    /// `--env NAME`.
    pub env_name: Option<String>,
    /// The command as it was typed, for files that look at it.
    pub command: Vec<String>,
}

/// Variables that say something about the process they were given to, and nothing about its children.
const OWN: &[&str] = &["SUNDEW_CHANNEL", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];

impl Context {
    /// This process's surroundings.
    ///
    /// # Errors
    /// If the working folder does not exist any more.
    pub fn from_process(env_name: Option<String>) -> std::io::Result<Self> {
        let mut env = BTreeMap::new();
        let mut unreadable_env = Vec::new();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), _) if OWN.contains(&name.as_str()) => {}
                (Ok(name), Ok(value)) => {
                    env.insert(name, value);
                }
                (Ok(name), Err(_)) => unreadable_env.push(name),
                (Err(name), _) => unreadable_env.push(name.to_string_lossy().into_owned()),
            }
        }
        // The processor mask and the cgroup's quota count, the host's number of CPUs does not.
        let cpus =
            std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1));
        let command = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
        Ok(Self { cwd: std::env::current_dir()?, env, unreadable_env, cpus, env_name, command })
    }

    /// A path as the user wrote it: `~` is `$HOME`, what is relative is so to `base`.
    pub(super) fn path(&self, written: &str, base: &Path) -> PathBuf {
        let home = self.env.get("HOME").filter(|home| !home.is_empty());
        let path = match (written.strip_prefix('~'), home) {
            (Some(""), Some(home)) => PathBuf::from(home),
            (Some(rest), Some(home)) if rest.starts_with('/') => Path::new(home).join(&rest[1..]),
            _ => base.join(written),
        };
        tidy(&path)
    }
}

/// Without `.` and, where it makes no difference, without `..`. Links are kept: a release that is switched by a link must
/// be found anew at each start.
fn tidy(path: &Path) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    let same = |path: &Path| path.metadata().map(|data| (data.dev(), data.ino())).ok();
    // `..` behind a link leads elsewhere than it reads.
    if same(&tidy) == same(path) { tidy } else { path.components().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_written() {
        let env = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
        let context = Context {
            cwd: "/w".into(),
            env,
            unreadable_env: Vec::new(),
            cpus: 1,
            env_name: None,
            command: Vec::new(),
        };
        let path = |written| context.path(written, Path::new("/w/x"));
        assert_eq!(path("~/a"), Path::new("/home/me/a"));
        assert_eq!(path("~"), Path::new("/home/me"));
        assert_eq!(path("~other/a"), Path::new("/w/x/~other/a"));
        assert_eq!(path("./a/../b"), Path::new("/w/x/b"));
        assert_eq!(path("/etc/./b"), Path::new("/etc/b"));
    }
}
