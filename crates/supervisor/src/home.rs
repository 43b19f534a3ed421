//! The folder a daemon lives in: where its socket, lock, logs and records are. Only paths and permissions live here.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The environment variable that names the folder.
pub const ENV: &str = "SUNDEW_HOME";

/// The longest path a unix socket can have, in bytes (`sun_path` less its final zero).
const SOCKET_PATH_LIMIT: usize = 107;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// Neither [`ENV`] nor `HOME` is set.
    #[error("no folder for the daemon: set SUNDEW_HOME, or HOME, to an absolute path")]
    Unknown,
    /// The path cannot be made or secured.
    #[error("cannot use {path} as the daemon's folder: {source}. Set SUNDEW_HOME to a folder you own")]
    Unusable {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The socket's path would be longer than the system allows.
    #[error(
        "{path} is too long for a socket ({length} bytes, {SOCKET_PATH_LIMIT} are allowed): set SUNDEW_HOME to a shorter path"
    )]
    TooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
}

/// The folder of one daemon. Two daemons with different homes know nothing of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// `$SUNDEW_HOME`, or `~/.sundew`.
    ///
    /// # Errors
    /// See [`HomeError`]. Nothing is created.
    pub fn from_env() -> Result<Self, HomeError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = match set(ENV) {
            Some(path) => path,
            None => set("HOME").ok_or(HomeError::Unknown)?.join(".sundew"),
        };
        Self::at(path)
    }

    /// A home at this path.
    ///
    /// # Errors
    /// See [`HomeError`]. Nothing is created.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, HomeError> {
        let path = path.as_ref();
        let path = std::path::absolute(path)
            .map_err(|source| HomeError::Unusable { path: path.to_owned(), source })?;
        let home = Self { path };
        let socket = home.socket();
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_LIMIT {
            return Err(HomeError::TooLong { path: socket, length });
        }
        Ok(home)
    }

    /// Makes the folder and those in it, for the owner alone (mode 0700).
    ///
    /// # Errors
    /// [`HomeError::Unusable`].
    pub fn create(&self) -> Result<(), HomeError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Unusable { path, source }
        };
        for path in [self.path.clone(), self.logs(), self.keys()] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(unusable(&path))?;
        }
        // The folder may have been there, made by hand: what is in it opens every app to whoever can read it.
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o700))
            .map_err(unusable(&self.path))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The control API's socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("sundew.sock")
    }

    /// Locked by the daemon as long as it lives. The lock, not the file, says that there is one.
    pub fn lock(&self) -> PathBuf {
        self.path.join("sundew.lock")
    }

    /// The daemon's own log.
    pub fn daemon_log(&self) -> PathBuf {
        self.path.join("sundew.log")
    }

    /// The apps' logs, unless configured elsewhere.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The keys of the apps' session ids, which outlive restarts.
    pub fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// What the daemon remembers of its cluster: who it is there.
    pub fn cluster(&self) -> PathBuf {
        self.path.join("cluster.json")
    }

    /// The processes that run, to find those a killed daemon left behind.
    pub fn processes(&self) -> PathBuf {
        self.path.join("processes.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_for_the_owner_alone() {
        let folder = std::env::temp_dir().join(format!("sundew-home-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        Home::at(&folder).unwrap().create().unwrap();
        for path in [folder.clone(), folder.join("logs"), folder.join("keys")] {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", path.display());
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_path_no_socket_can_have_is_refused() {
        let error = Home::at(format!("/{}", "x".repeat(120))).unwrap_err();
        assert!(error.to_string().contains("SUNDEW_HOME"), "{error}");
    }
}
