//! The script every Node worker loads before its own, unless `"preload": false`: it gives each request over a leg its
//! client's address, tells which servers speak HTTP, and counts connections that end.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::Home;

const SCRIPT: &str = include_str!("preload.cjs");

/// Writes it into the home and gives its path. It has the version in its name: a daemon of another one may use its own.
pub(crate) fn write(home: &Home) -> io::Result<PathBuf> {
    use std::io::Write;
    let path = home.path().join(format!("preload-{}.cjs", env!("CARGO_PKG_VERSION")));
    if std::fs::read(&path).is_ok_and(|there| there == SCRIPT.as_bytes()) {
        return Ok(path);
    }
    // Renamed into place: a worker that starts now reads the old one or the new one.
    let new = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(SCRIPT.as_bytes())?;
    std::fs::rename(&new, &path)?;
    Ok(path)
}
