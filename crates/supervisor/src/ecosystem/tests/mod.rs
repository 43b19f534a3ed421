//! The parser against real files in a folder of its own, with a shell that is made up.

mod cluster;
mod diagnostics;
mod evaluated;
mod keys;
mod kinds;
mod npm;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{AppConfig, Context, Ecosystem, Flag, Flags, Invalid, load, program};

/// A folder with a `shell` folder in it (where the command is typed), a program `bin` in each, and a `plain` file.
pub(super) struct Sandbox {
    pub(super) dir: PathBuf,
    pub(super) context: Context,
}

impl Sandbox {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sundew-ecosystem-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let env = BTreeMap::from([
            ("HOME".to_owned(), "/home/me".to_owned()),
            ("PATH".to_owned(), dir.join("path").display().to_string()),
            ("SHELL_ONLY".to_owned(), "shell".to_owned()),
            ("NODE_ENV".to_owned(), "shell".to_owned()),
        ]);
        let cwd = dir.join("shell");
        let context =
            Context { cwd, env, unreadable_env: Vec::new(), cpus: 8, env_name: None, command: Vec::new() };
        let sandbox = Self { dir, context };
        for file in ["bin", "shell/bin", "path/node", "path/python3", "path/in-path"] {
            sandbox.write(file, "#!/bin/sh\n", 0o755);
        }
        sandbox.write("plain", "", 0o644);
        sandbox
    }

    pub(super) fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Loads a file of this text, which lies beside the shell's folder and is named from there.
    pub(super) fn load_with(&self, text: &str, flags: &Flags) -> Result<Ecosystem, Invalid> {
        self.write("pm2.json", text, 0o644);
        load(Path::new("../pm2.json"), &self.context, flags)
    }

    pub(super) fn load(&self, text: &str) -> Result<Ecosystem, Invalid> {
        self.load_with(text, &Flags::default())
    }

    /// The only app of a file that has nothing to warn of.
    pub(super) fn app(&self, keys: &str) -> AppConfig {
        let text = format!("{{ apps: [{{ script: './bin', {keys} }}] }}");
        let ecosystem = self.load(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(ecosystem.warnings, [], "{keys}");
        ecosystem.apps.into_iter().next().unwrap()
    }

    /// All that is said about a file, errors or else warnings, without the folder's name.
    pub(super) fn says(&self, text: &str) -> String {
        let found = match self.load(text) {
            Ok(ecosystem) => ecosystem.warnings,
            Err(invalid) => invalid.errors,
        };
        let each: Vec<_> = found.iter().map(ToString::to_string).collect();
        each.join("\n").replace(&self.dir.display().to_string(), "DIR")
    }

    pub(super) fn program(
        &self,
        script: &str,
        flags: &[(&'static str, &'static str, &str)],
    ) -> Result<Ecosystem, Invalid> {
        let set =
            flags.iter().map(|(key, flag, value)| Flag { key, flag, value: (*value).to_owned() }).collect();
        program(script, &self.context, &Flags { set, ..Flags::default() })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
