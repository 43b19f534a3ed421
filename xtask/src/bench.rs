//! `cargo xtask bench`: builds what is measured as it ships, then runs the program of `bench/` with the arguments given.
//!
//! `bench nodes` measures the hop between nodes. `bench pm2` is no measurement but a comparison: the Node example under stock pm2 and under Sundew.
//! `bench ways` measures what each way to route costs. `bench hostile` is an end-to-end test with larger numbers.

use crate::setup::{self, HAPROXY, IPROUTE, NGINX, NODE, NPM, Need, REDIS};
use crate::shell::{self, cargo, command, release};
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// What to measure, and its options.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    match options.arguments.split_first() {
        Some((first, rest)) if first == "pm2" => return compare(rest),
        Some((first, rest)) if first == "nodes" => return nodes(rest),
        Some((first, rest)) if first == "ways" => return ways(rest),
        Some((first, _)) if first == "hostile" => return hostile(),
        Some((first, _)) if ["node", "polling", "burst"].contains(&first.as_str()) => {
            setup::provide(&[NODE, NPM, Need::Npm("bench/node")])?;
        }
        _ => {}
    }
    shell::run(&mut cargo(&[
        "build",
        "--release",
        "--locked",
        "-p",
        "sundew-cli",
        "-p",
        "echo",
        "-p",
        "sundew-bench",
    ]))?;
    shell::run(
        command(release("sundew-bench"))
            .args(&options.arguments)
            .arg("--bin")
            .arg(shell::target().join("release")),
    )
}

/// The hop from the wrong node to the right one, on several hosts that are network namespaces.
fn nodes(arguments: &[String]) -> anyhow::Result<()> {
    setup::provide(&[NODE, NPM, HAPROXY, REDIS, IPROUTE, Need::Npm("tests")])?;
    shell::run(&mut cargo(&["build", "--release", "--locked", "-p", "sundew-cli", "-p", "echo"]))?;
    shell::run(
        command("node")
            .arg("tests/compare/nodes.mjs")
            .args(arguments)
            .env("SUNDEW_BIN", shell::target().join("release")),
    )
}

/// What each way to route costs, beside the others.
fn ways(arguments: &[String]) -> anyhow::Result<()> {
    setup::provide(&[NODE, NPM, HAPROXY, NGINX, Need::Npm("tests")])?;
    shell::run(&mut cargo(&["build", "--release", "--locked", "-p", "sundew-cli", "-p", "echo"]))?;
    shell::run(
        command("node")
            .arg("tests/compare/ways.mjs")
            .args(arguments)
            .env("SUNDEW_BIN", shell::target().join("release")),
    )
}

/// The end-to-end test of hostile clients with its full numbers. What it measures is in its diagnostics.
fn hostile() -> anyhow::Result<()> {
    setup::provide(&[NODE, NPM, Need::Npm("tests")])?;
    shell::run(&mut cargo(&["build", "--release", "--locked", "-p", "sundew-cli", "-p", "echo"]))?;
    shell::run(
        command("node")
            .args(["--test", "--test-timeout=600000", "tests/e2e/hostile.test.mjs"])
            .env("SUNDEW_HOSTILE", "full")
            .env("SUNDEW_BIN", shell::target().join("release")),
    )
}

/// The same example and the same crowd under stock pm2 and under Sundew. pm2 is installed for this alone.
fn compare(arguments: &[String]) -> anyhow::Result<()> {
    setup::provide(&[
        NODE,
        NPM,
        Need::Npm("examples/node-chat"),
        Need::Npm("tests"),
        Need::Npm("tests/compare"),
    ])?;
    shell::run(&mut cargo(&["build", "--release", "--locked", "-p", "sundew-cli"]))?;
    shell::run(
        command("node")
            .arg("tests/compare/pm2.mjs")
            .args(arguments)
            .env("SUNDEW_BIN", shell::target().join("release")),
    )
}
