//! What the steps need from the machine, and how to get it.
//!
//! As root, missing packages are installed; otherwise every missing thing is named at once, with the command that
//! installs it. Cargo tools and npm packages need no root: they go under `target/` and `node_modules/`.

use crate::shell::{self, command, run, works};
use anyhow::{Context as _, bail};
use std::path::PathBuf;
use std::process::Command;

/// One thing a step needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A program of a Debian package.
    Package { program: &'static str, package: &'static str },
    /// A component of the Rust toolchain.
    Component { program: &'static str, component: &'static str },
    /// A cargo subcommand, installed under `target/tools` when the machine has none.
    Tool { name: &'static str, version: &'static str },
    /// `npm ci` in this folder.
    Npm(&'static str),
    /// The Python packages of this file, under `target/python`.
    Python(&'static str),
}

pub(crate) const NODE: Need = Need::Package { program: "node", package: "nodejs" };
pub(crate) const NPM: Need = Need::Package { program: "npm", package: "npm" };
pub(crate) const CHROMIUM: Need = Need::Package { program: "chromium", package: "chromium" };
pub(crate) const NGINX: Need = Need::Package { program: "nginx", package: "nginx" };
pub(crate) const HAPROXY: Need = Need::Package { program: "haproxy", package: "haproxy" };
pub(crate) const REDIS: Need = Need::Package { program: "redis-server", package: "redis-server" };
pub(crate) const IPROUTE: Need = Need::Package { program: "ip", package: "iproute2" };
pub(crate) const OPENSSL: Need = Need::Package { program: "openssl", package: "openssl" };
pub(crate) const CURL: Need = Need::Package { program: "curl", package: "curl" };
pub(crate) const PYTHON: Need = Need::Package { program: "python3", package: "python3" };
pub(crate) const PIP: Need = Need::Package { program: "pip3", package: "python3-pip" };
pub(crate) const PKG_CONFIG: Need = Need::Package { program: "pkg-config", package: "pkg-config" };
/// No program, but a file tells as well.
pub(crate) const LIBSSL: Need =
    Need::Package { program: "/usr/include/openssl/ssl.h", package: "libssl-dev" };
pub(crate) const RUSTFMT: Need = Need::Component { program: "cargo-fmt", component: "rustfmt" };
pub(crate) const CLIPPY: Need = Need::Component { program: "cargo-clippy", component: "clippy" };
pub(crate) const DENY: Need = Need::Tool { name: "cargo-deny", version: "0.20.2" };
pub(crate) const MACHETE: Need = Need::Tool { name: "cargo-machete", version: "0.9.2" };

/// The oldest Node the tests and the example's client package run on.
const NODE_MAJOR: u32 = 18;

/// Provides everything in `needs`, or says what is missing.
pub(crate) fn provide(needs: &[Need]) -> anyhow::Result<()> {
    let mut packages = Vec::new();
    let mut components = Vec::new();
    for need in needs {
        match *need {
            Need::Package { program, package } if find(program).is_none() => packages.push(package),
            Need::Component { program, component } if find(program).is_none() => components.push(component),
            _ => {}
        }
    }
    if !packages.is_empty() {
        let list = packages.join(" ");
        if !shell::is_root() || find("apt-get").is_none() {
            bail!(
                "not installed: {list}\n  install with: sudo apt-get install --no-install-recommends {list}"
            );
        }
        run(command("apt-get").args(["update", "-qq"]))?;
        run(command("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&packages))?;
    }
    if !components.is_empty() {
        let list = components.join(" ");
        if find("rustup").is_none() {
            bail!(
                "not installed: {list}\n  install with: rustup component add {list} (or your distribution's package)"
            );
        }
        run(command("rustup").args(["component", "add"]).args(&components))?;
    }
    if needs.contains(&NODE) {
        check_node()?;
    }
    for need in needs {
        match *need {
            Need::Tool { name, version } => install_tool(name, version)?,
            Need::Npm(folder) => npm_ci(folder)?,
            Need::Python(file) => pip_install(file)?,
            Need::Package { .. } | Need::Component { .. } => {}
        }
    }
    Ok(())
}

/// A cargo subcommand: the machine's own, or the one under `target/tools`.
pub(crate) fn tool(name: &str) -> Command {
    command(find(name).unwrap_or_else(|| tools().join("bin").join(name)))
}

fn tools() -> PathBuf {
    shell::target().join("tools")
}

fn install_tool(name: &str, version: &str) -> anyhow::Result<()> {
    if works(tool(name).arg("--version")) {
        return Ok(());
    }
    // Not optimized: it runs for seconds, and would be built for minutes.
    let mut install = shell::cargo(&["install", "--locked", "--debug", "--version", version, name, "--root"]);
    run(install.arg(tools()).env_remove("CARGO_TARGET_DIR").env("CARGO_PROFILE_DEV_DEBUG", "false"))
}

/// Where Python packages go. Nothing of the machine's own is touched.
pub(crate) fn python() -> PathBuf {
    shell::target().join("python")
}

/// Installs what the file names, unless that was done since the file was changed.
fn pip_install(file: &str) -> anyhow::Result<()> {
    let file = shell::root().join(file);
    let stamp = python().join(".installed");
    let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|data| data.modified());
    let wanted = modified(&file).with_context(|| format!("no {}", file.display()))?;
    if modified(&stamp).is_ok_and(|installed| installed >= wanted) {
        return Ok(());
    }
    let mut install = command("python3");
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    run(install.arg(python()).arg("-r").arg(&file).env("PIP_ROOT_USER_ACTION", "ignore"))
        .with_context(|| format!("Python packages of {}", file.display()))?;
    std::fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))
}

/// `npm ci`, unless what is installed is what the lock file names.
fn npm_ci(folder: &str) -> anyhow::Result<()> {
    let folder = shell::root().join(folder);
    let modified = |path: &str| std::fs::metadata(folder.join(path)).and_then(|data| data.modified());
    let locked = modified("package-lock.json")
        .with_context(|| format!("no package-lock.json in {}", folder.display()))?;
    if modified("node_modules/.package-lock.json").is_ok_and(|installed| installed >= locked) {
        return Ok(());
    }
    run(command("npm").args(["ci", "--ignore-scripts", "--no-fund", "--no-audit"]).current_dir(&folder))
        .with_context(|| format!("npm packages of {}", folder.display()))
}

fn check_node() -> anyhow::Result<()> {
    let output = command("node").arg("--version").output().context("cannot run node")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= NODE_MAJOR => Ok(()),
        _ => bail!("node {version} is too old: the tests need {NODE_MAJOR} or newer"),
    }
}

/// Looks a program up in `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Servers are in a folder that only root has in its PATH.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
