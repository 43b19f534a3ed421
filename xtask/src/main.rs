//! Developer commands: `cargo xtask test`, `cargo xtask demo`, `cargo xtask bench`, `cargo xtask fuzz`.
//!
//! What a new machine needs is installed here (`setup`), so that the README can promise two commands.
//! Nothing in this crate is part of the product.

mod bench;
mod demo;
mod e2e;
mod fuzz;
mod setup;
mod shell;
mod steps;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sundew's developer commands", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need, then run them all. Stops at the first step that fails.
    Test(steps::Options),
    /// Build the chat example and run it on four workers, in the foreground.
    Demo(demo::Options),
    /// Build in release mode and measure (`bench handoff`, `bench --help`). Prints ratios, never absolute figures.
    Bench(bench::Options),
    /// Fuzz the parsers (needs a nightly toolchain).
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Test(options) => steps::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::execute(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
