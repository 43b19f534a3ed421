//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, one after the other, from the corpora that the unit tests replay. What
//! is found beyond them is kept under `fuzz/corpus`; an input that panics is named at the end, and belongs into the corpus
//! of its crate once it does not any more.

use crate::setup::{self, Need};
use crate::shell::{self, root, run};
use anyhow::ensure;
use clap::Args;

/// The targets, and where their first inputs are.
const TARGETS: &[(&str, &str)] = &[
    ("request", "crates/router/tests/corpus/requests"),
    ("chunked", "crates/router/tests/corpus/chunked"),
    ("response", "crates/router/tests/corpus/response"),
    ("announced", "crates/router/tests/corpus/announced"),
    ("learn", "crates/router/tests/corpus/learn"),
    ("node_advanced", "crates/channel/tests/corpus/node-advanced"),
    ("node_json", "crates/channel/tests/corpus/node-json"),
    ("native", "crates/channel/tests/corpus/native"),
    ("payload", "crates/engineio/tests/corpus/payload"),
    ("websocket", "crates/engineio/tests/corpus/websocket"),
    ("webtransport", "crates/engineio/tests/corpus/webtransport"),
    ("deflate", "crates/engineio/tests/corpus/deflate"),
    ("packet", "crates/socketio/tests/corpus/packet"),
    ("msgpack", "crates/socketio/tests/corpus/msgpack"),
    ("head", "crates/worker/tests/corpus/head"),
];

const CARGO_FUZZ: Need = Need::Tool { name: "cargo-fuzz", version: "0.13.2" };

#[derive(Args)]
pub(crate) struct Options {
    /// Only these targets
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn execute(options: &Options) -> anyhow::Result<()> {
    let names = || TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    for wanted in &options.targets {
        ensure!(
            TARGETS.iter().any(|(name, _)| name == wanted),
            "no target {wanted:?}: there are {}",
            names()
        );
    }
    setup::provide(&[CARGO_FUZZ])?;
    for (name, seeds) in TARGETS {
        if !options.targets.is_empty() && !options.targets.iter().any(|wanted| wanted == name) {
            continue;
        }
        let found = root().join("fuzz/corpus").join(name);
        std::fs::create_dir_all(&found)?;
        let mut fuzz = setup::tool("cargo-fuzz");
        fuzz.arg("fuzz").arg("run").arg(name).arg(found).arg(root().join(seeds));
        fuzz.args(["--", &format!("-max_total_time={}", options.seconds), "-max_len=20000", "-timeout=10"]);
        run(fuzz.env("RUSTUP_TOOLCHAIN", "nightly").env("CARGO_TARGET_DIR", shell::target().join("fuzz")))?;
    }
    Ok(())
}
