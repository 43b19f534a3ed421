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
    let (first, rest) =
        options.arguments.split_first().map_or(("", &[][..]), |(first, rest)| (&**first, rest));
    match first {
        "pm2" => {
            let needs =
                [NODE, NPM, Need::Npm("examples/node-chat"), Need::Npm("tests"), Need::Npm("tests/compare")];
            return node(&needs, &["tests/compare/pm2.mjs"], rest);
        }
        "nodes" => {
            let needs = [NODE, NPM, HAPROXY, REDIS, IPROUTE, Need::Npm("tests")];
            return node(&needs, &["tests/compare/nodes.mjs"], rest);
        }
        "ways" => {
            let needs = [NODE, NPM, HAPROXY, NGINX, Need::Npm("tests")];
            return node(&needs, &["tests/compare/ways.mjs"], rest);
        }
        "hostile" => {
            let test = ["--test", "--test-timeout=600000", "tests/e2e/hostile.test.mjs"];
            return node(&[NODE, NPM, Need::Npm("tests")], &test, &[]);
        }
        "peers" => {
            setup::provide(&[NODE, NPM, Need::Npm("bench/node")])?;
            let peers = ["build", "--release", "--locked", "--manifest-path", "bench/peers/Cargo.toml"];
            shell::run(&mut cargo(&peers))?;
        }
        "node" | "polling" | "burst" => setup::provide(&[NODE, NPM, Need::Npm("bench/node")])?,
        _ => {}
    }
    build()?;
    shell::run(
        command(release("sundew-bench"))
            .args(&options.arguments)
            .arg("--bin")
            .arg(shell::target().join("release")),
    )
}

/// As it ships. Always the same packages: with others the dependencies would have other features, and be built anew.
fn build() -> anyhow::Result<()> {
    let packages = ["-p", "sundew-cli", "-p", "echo", "-p", "sundew-bench"];
    shell::run(cargo(&["build", "--release", "--locked"]).args(packages))
}

/// A measurement or comparison that is a program for Node.js.
fn node(needs: &[Need], script: &[&str], arguments: &[String]) -> anyhow::Result<()> {
    setup::provide(needs)?;
    build()?;
    shell::run(
        command("node")
            .args(script)
            .args(arguments)
            // For the test of hostile clients alone: its full numbers.
            .env("SUNDEW_HOSTILE", "full")
            .env("SUNDEW_BIN", shell::target().join("release")),
    )
}
