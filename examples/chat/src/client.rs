//! Finds the client script that npm has installed. Nothing of it is in this repository.

use std::path::{Path, PathBuf};

/// What installs it, from the repository's root.
pub(crate) const INSTALL: &str = "npm install --prefix examples/chat";

/// The folder with `socket.io.js`: below the working directory, or where this example was built.
pub(crate) fn find() -> Option<PathBuf> {
    [".", "examples/chat", env!("CARGO_MANIFEST_DIR")]
        .into_iter()
        .map(|base| Path::new(base).join("node_modules/socket.io-client/dist"))
        .find(|folder| folder.join("socket.io.js").is_file())
}
