//! The real binary with a home of its own, whose daemon is gone when the test is.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A folder the commands run in.
pub(crate) struct Sandbox {
    pub(crate) dir: PathBuf,
    pub(crate) home: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sundew-cli-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let home = dir.join("home").display().to_string();
        Self { dir, home }
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn sundew(&self, words: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_sundew"))
            .args(words)
            .current_dir(&self.dir)
            .env("SUNDEW_HOME", &self.home)
            .env_remove("PORT")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Also when the test failed: the daemon would outlive it.
        if self.dir.join("home").exists() {
            self.sundew(&["kill"]);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
