//! The end-to-end suite: every file of `tests/e2e` under node's test runner, one after another, each with a deadline.
//!
//! One after another because they measure: two files at a time would see each other's load.

use crate::setup;
use crate::shell::{self, command};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// No file takes longer than this on two cores; one that does hangs.
const FILE_DEADLINE: Duration = Duration::from_secs(300);

/// Runs the files whose name contains one of `wanted` (all when empty).
pub(crate) fn run(wanted: &[String]) -> anyhow::Result<()> {
    let mut files = test_files()?;
    files.retain(|file| wanted.is_empty() || wanted.iter().any(|part| name(file).contains(part.as_str())));
    if files.is_empty() {
        bail!("no file in tests/e2e is named like {wanted:?}");
    }
    if !shell::release("sundew").exists() {
        shell::run(&mut shell::cargo(&["build", "--release", "--workspace", "--locked"]))?;
    }
    if files.iter().any(|file| name(file) == "client-rust") {
        // Not within the file's deadline.
        let client = ["build", "--locked", "--manifest-path", "tests/clients-rust/Cargo.toml"];
        shell::run(shell::cargo(&client).env_remove("CARGO_TARGET_DIR"))?;
    }
    if files.iter().any(|file| name(file) == "webtransport") {
        let example = ["build", "--release", "--locked", "-p", "sundew", "--features", "webtransport"];
        shell::run(shell::cargo(&example).args(["--example", "webtransport"]))?;
    }
    let output = shell::target().join("e2e");
    std::fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;

    let mut failed = Vec::new();
    for file in &files {
        println!("\n-- {}", name(file));
        let mut node = command("node");
        node.args(["--test", "--test-reporter=spec"]).arg(file);
        node.env("SUNDEW_BIN", shell::target().join("release")).env("SUNDEW_E2E_OUT", &output);
        node.env("SUNDEW_TEST_PYTHON", setup::python());
        let child = node.spawn().context("cannot run node")?;
        if !passes(child)? {
            failed.push(name(file));
        }
    }
    println!("\n{} of {} files passed", files.len() - failed.len(), files.len());
    if !failed.is_empty() {
        let again: Vec<String> = failed.iter().map(|file| format!("--e2e {file}")).collect();
        bail!("{} (one alone: cargo xtask test e2e {})", failed.join(", "), again.join(" "));
    }
    Ok(())
}

fn test_files() -> anyhow::Result<Vec<PathBuf>> {
    let folder = shell::root().join("tests/e2e");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.to_string_lossy().ends_with(".test.mjs"));
    files.sort();
    Ok(files)
}

fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".test.mjs").to_owned()
}

/// Waits for the runner; one that is still there at the deadline is ended, and has failed.
fn passes(mut child: Child) -> anyhow::Result<bool> {
    let deadline = Instant::now() + FILE_DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            println!("not done after {} s: ended", FILE_DEADLINE.as_secs());
            // SIGTERM first: the runner ends its file, and the harness ends what it started.
            shell::works(command("kill").arg(child.id().to_string()));
            std::thread::sleep(Duration::from_secs(5));
            child.kill().ok();
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
