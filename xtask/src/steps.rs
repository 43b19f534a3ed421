//! `cargo xtask test`: the steps in order, the first failure ends the run with its name, a summary at the end.

use crate::e2e;
use crate::setup::{
    self, CHROMIUM, CLIPPY, CURL, DENY, HAPROXY, IPROUTE, LIBSSL, MACHETE, NGINX, NODE, NPM, Need, OPENSSL,
    PIP, PKG_CONFIG, PYTHON, REDIS, RUSTFMT,
};
use crate::shell::{self, cargo};
use anyhow::bail;
use clap::{Args, ValueEnum};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Options {
    /// Only these steps (all of them when none is named).
    #[arg(value_enum)]
    steps: Vec<Step>,
    /// Only end-to-end files whose name contains this. May be given several times.
    #[arg(long = "e2e", value_name = "NAME")]
    files: Vec<String>,
    /// Use what is installed; install nothing.
    #[arg(long)]
    no_setup: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// cargo fmt --check
    Fmt,
    /// cargo clippy, warnings are errors
    Clippy,
    /// Licences and sources of the dependencies
    Licences,
    /// Dependencies nobody uses
    Unused,
    /// cargo doc, warnings are errors
    Doc,
    /// cargo test
    Unit,
    /// cargo build --release
    Build,
    /// Real clients against the real binary
    E2e,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Fmt,
        Self::Clippy,
        Self::Licences,
        Self::Unused,
        Self::Doc,
        Self::Unit,
        Self::Build,
        Self::E2e,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Licences => "licences",
            Self::Unused => "unused",
            Self::Doc => "doc",
            Self::Unit => "unit",
            Self::Build => "build",
            Self::E2e => "e2e",
        }
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Fmt => &[RUSTFMT],
            Self::Clippy => &[CLIPPY, PKG_CONFIG, LIBSSL],
            Self::Licences => &[DENY],
            Self::Unused => &[MACHETE],
            Self::Doc | Self::Unit | Self::Build => &[],
            Self::E2e => &[
                NODE,
                NPM,
                CHROMIUM,
                NGINX,
                HAPROXY,
                REDIS,
                IPROUTE,
                OPENSSL,
                CURL,
                PYTHON,
                PIP,
                PKG_CONFIG,
                LIBSSL,
                Need::Npm("tests"),
                Need::Npm("tests/nodes"),
                Need::Npm("examples/chat"),
                Need::Npm("examples/node-chat"),
                Need::Npm("examples/node-ports"),
                Need::Python("tests/apps/requirements.txt"),
            ],
        }
    }

    fn execute(self, options: &Options) -> anyhow::Result<()> {
        match self {
            Self::Fmt => {
                shell::run(&mut cargo(&["fmt", "--all", "--check"]))?;
                shell::run(cargo(&["fmt", "--check"]).args(RUST_CLIENT))
            }
            Self::Clippy => {
                let strict = ["--all-targets", "--", "-D", "warnings"];
                shell::run(cargo(&["clippy", "--workspace", "--locked"]).args(strict))?;
                shell::run(with_webtransport("clippy").args(strict))?;
                // Where the tests build it.
                let mut client = cargo(&["clippy", "--locked"]);
                client.args(RUST_CLIENT).args(strict).env_remove("CARGO_TARGET_DIR");
                shell::run(&mut client)
            }
            Self::Licences => shell::run(setup::tool("cargo-deny").args([
                "--workspace",
                "check",
                "licenses",
                "bans",
                "sources",
            ])),
            Self::Unused => shell::run(setup::tool("cargo-machete").arg("--skip-target-dir")),
            Self::Doc => {
                let strict = ("RUSTDOCFLAGS", "-D warnings");
                let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
                shell::run(doc.env(strict.0, strict.1))?;
                shell::run(with_webtransport("doc").arg("--no-deps").env(strict.0, strict.1))
            }
            Self::Unit => {
                shell::run(&mut cargo(&["test", "--workspace", "--locked"]))?;
                // Only what is not tested without it.
                shell::run(with_webtransport("test").args(["--test", "webtransport"]))?;
                shell::run(with_webtransport("test").args(["--doc", "webtransport"]))
            }
            Self::Build => shell::run(&mut cargo(&["build", "--release", "--workspace", "--locked"])),
            Self::E2e => e2e::run(&options.files),
        }
    }
}

/// The workspace of its own whose client is rust_socketio.
const RUST_CLIENT: [&str; 2] = ["--manifest-path", "tests/clients-rust/Cargo.toml"];

/// A command of cargo's for the crates that have the feature `webtransport`, with it. Nothing else is built with it: what
/// is measured is what people build.
fn with_webtransport(command: &str) -> Command {
    let mut cargo = cargo(&[command, "--locked", "--features", "webtransport"]);
    cargo.args(["-p", "sundew-engineio", "-p", "sundew-socketio", "-p", "sundew"]);
    cargo
}

/// `cargo xtask test`.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let chosen = |step: &Step| options.steps.is_empty() || options.steps.contains(step);
    let steps: Vec<Step> = Step::ALL.into_iter().filter(chosen).collect();
    if !options.no_setup {
        let needs: Vec<Need> = steps.iter().flat_map(|step| step.needs()).copied().collect();
        setup::provide(&needs)?;
    }
    let mut done = Vec::new();
    for step in &steps {
        println!("\n== {}", step.name());
        let started = Instant::now();
        let outcome = step.execute(options);
        done.push((step.name(), started.elapsed(), outcome.is_ok()));
        if let Err(error) = outcome {
            summary(&done);
            bail!("step `{0}` failed: {error:#}\n  again: cargo xtask test {0}", step.name());
        }
    }
    summary(&done);
    Ok(())
}

fn summary(done: &[(&str, Duration, bool)]) {
    println!("\n== summary");
    for (name, took, passed) in done {
        println!("{name:<10} {:<7} {:>5} s", if *passed { "passed" } else { "FAILED" }, took.as_secs());
    }
    let total: Duration = done.iter().map(|(_, took, _)| *took).sum();
    println!("{:<10} {:<7} {:>5} s", "", "", total.as_secs());
}
