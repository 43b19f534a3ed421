//! What runs a program, told by names and by the first line of a script, and which Node.js it is. No settings here.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::answer::{self, Answer};
use super::context::Context;

/// What runs a program, as far as it decides how connections reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Runtime {
    /// Nothing: it is a program itself.
    Direct,
    /// Node.js.
    Node,
    /// Bun: runs what Node runs, and takes no connections over its channel.
    Bun,
    /// Deno: the same.
    Deno,
    /// A shell: most often around a program.
    Shell,
    /// Python and its like, by name.
    Other(String),
    /// A name that says nothing.
    Unknown(String),
}

/// How long an interpreter may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(10);

/// The longest first line of a script that is looked at, as the kernel has it.
const FIRST_LINE: u64 = 256;

const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "busybox"];
const OTHERS: &[&str] = &["python", "pypy", "ruby", "php", "perl", "java", "dotnet", "lua", "uv", "poetry"];

impl Runtime {
    /// By the path of an interpreter; empty for none.
    pub(super) fn of(interpreter: &[String]) -> Self {
        let Some(path) = interpreter.first() else { return Self::Direct };
        Self::named(Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path))
    }

    /// By a name, with or without a version: `node`, `node-20`, `python3.12`.
    pub(super) fn named(name: &str) -> Self {
        let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '@'));
        match bare {
            "node" | "nodejs" => Self::Node,
            "bun" => Self::Bun,
            "deno" => Self::Deno,
            shell if SHELLS.contains(&shell) => Self::Shell,
            other if OTHERS.contains(&other) => Self::Other(name.to_owned()),
            _ => Self::Unknown(name.to_owned()),
        }
    }
}

/// Whether a program is run by Node.js, and so can send and receive messages over its channel.
pub(crate) fn is_node(interpreter: &[String]) -> bool {
    Runtime::of(interpreter) == Runtime::Node
}

/// The first line of a script: `#!/usr/bin/env node` is `["node"]`, `#!/opt/node/bin/node --flag` is itself. `env` is
/// undone, because what it finds depends on whose `PATH` it is.
pub(super) fn first_line(path: &Path) -> Option<Vec<String>> {
    let mut start = Vec::new();
    std::fs::File::open(path).ok()?.take(FIRST_LINE).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace().map(str::to_owned);
    let program = words.next()?;
    let mut words: Vec<String> = match program.rsplit('/').next() {
        Some("env") => words.skip_while(|word| word == "-S").collect(),
        _ => std::iter::once(program).chain(words).collect(),
    };
    // Other options and variables of `env` are left to it.
    let usable = words.first().is_some_and(|word| !word.starts_with('-') && !word.contains('='));
    usable.then(|| std::mem::take(&mut words))
}

/// A version of Node.js: major and minor.
pub(super) type Version = (u32, u32);

/// Asks an interpreter for its version.
pub(super) fn node_version(node: &str, context: &Context) -> Result<Version, String> {
    let mut command = Command::new(node);
    command.arg("--version").env_clear().envs(&context.env).current_dir(&context.cwd);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("cannot run {node}: {error}"))?;
    let Some(out) = child.stdout.take() else { return Err(format!("cannot read from {node}")) };
    let answer = answer::one_line(out, 100, VERSION_PATIENCE);
    answer::end(&mut child);
    match answer {
        Answer::Line(line) => version(line.trim())
            .ok_or_else(|| format!("{node} --version says {line:?}, which is no version of Node.js")),
        _ => Err(format!("{node} --version gives no answer")),
    }
}

fn version(text: &str) -> Option<Version> {
    let mut parts = text.strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// How a version of Node.js comes to run TypeScript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strips {
    /// It does.
    Yes,
    /// With a flag.
    WithFlag,
    /// Not at all.
    No,
}

/// The flag of [`Strips::WithFlag`].
pub(super) const STRIP_TYPES: &str = "--experimental-strip-types";

impl Strips {
    pub(super) fn of(version: Version) -> Self {
        match version {
            (..22, _) | (22, ..6) => Self::No,
            (22, 18..) | (23, 6..) | (24.., _) => Self::Yes,
            _ => Self::WithFlag,
        }
    }
}

/// Whether arguments of node bring a loader, which then is what runs TypeScript.
pub(super) fn has_loader<'a>(mut args: impl Iterator<Item = &'a str>) -> bool {
    const LOADERS: &[&str] =
        &["-r", "--require", "--import", "--loader", "--experimental-loader", STRIP_TYPES, "--strip-types"];
    args.any(|arg| {
        LOADERS.iter().any(|loader| {
            arg.strip_prefix(loader).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["node", "nodejs", "node20", "node-22", "node@18.1"] {
            assert_eq!(Runtime::named(name), Runtime::Node, "{name}");
        }
        assert_eq!(Runtime::named("bun"), Runtime::Bun);
        assert_eq!(Runtime::named("python3.12"), Runtime::Other("python3.12".to_owned()));
        assert_eq!(Runtime::named("nodemon"), Runtime::Unknown("nodemon".to_owned()));
        assert_eq!(Runtime::of(&["/x/node18/bin/node".to_owned(), "-r".to_owned()]), Runtime::Node);
        assert_eq!(Runtime::of(&["/x/node/run-it".to_owned()]), Runtime::Unknown("run-it".to_owned()));
        assert_eq!(Runtime::of(&[]), Runtime::Direct);
    }

    #[test]
    fn versions() {
        assert_eq!(version("v20.20.2"), Some((20, 20)));
        assert_eq!(version("v26.1.0-nightly"), Some((26, 1)));
        for other in ["1.2.3", "deno 2", "v", "vx.y", ""] {
            assert_eq!(version(other), None, "{other}");
        }
        for (version, strips) in [
            ((18, 20), Strips::No),
            ((22, 5), Strips::No),
            ((22, 6), Strips::WithFlag),
            ((22, 17), Strips::WithFlag),
            ((22, 18), Strips::Yes),
            ((23, 0), Strips::WithFlag),
            ((23, 5), Strips::WithFlag),
            ((23, 6), Strips::Yes),
            ((24, 0), Strips::Yes),
            ((26, 10), Strips::Yes),
        ] {
            assert_eq!(Strips::of(version), strips, "{version:?}");
        }
    }

    #[test]
    fn loaders() {
        let has = |args: &[&str]| has_loader(args.iter().copied());
        assert!(has(&["--trace-gc", "--import", "tsx"]) && has(&["--require=ts-node/register"]));
        assert!(!has(&["--trace-gc", "--report-on-signal", "--requires"]));
    }
}
