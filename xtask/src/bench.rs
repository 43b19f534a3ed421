//! `cargo xtask bench`: builds what is measured as it ships, then runs the program of `bench/` with the arguments given.

use crate::shell::{self, cargo, command, release};
use clap::Args;

#[derive(Args)]
pub(crate) struct Options {
    /// What to measure, and its options.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
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
