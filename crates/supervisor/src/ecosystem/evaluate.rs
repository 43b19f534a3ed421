//! Ecosystem files that are JavaScript: `node` evaluates them, here and once, and what they export is read as JSON.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use serde::Deserialize;

use super::answer::{self, Answer};
use super::context::Context;
use super::diagnostic::{Diagnostic, Source, Span};
use super::script;

/// What node runs; the file is an argument of it.
const EVALUATE: &str = include_str!("evaluate.cjs");

/// The descriptor the answer comes on: nothing a file prints is there.
const ANSWER_FD: i32 = 3;

/// How long a file may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong, as the script tells it.
#[derive(Debug, Deserialize)]
struct Failure {
    message: String,
    hint: Option<String>,
    file: Option<PathBuf>,
    line: Option<usize>,
    column: Option<usize>,
}

/// Evaluates a file. `shown` is how the user called it. Gives JSON of at most `limit` bytes.
pub(super) fn evaluate(
    shown: &Path,
    context: &Context,
    limit: u64,
    patience: Duration,
) -> Result<String, Box<Diagnostic>> {
    let path = context.cwd.join(shown);
    let name = shown.display();
    let node = script::interpreter("node", &context.cwd, context).map_err(|missing| {
        let message = format!("{name} is JavaScript, and there is no `node` to evaluate it");
        let hint = "install Node.js, or write the file as JSON: every key keeps its name";
        Box::new(Diagnostic { message, ..*missing }.hint(hint))
    })?;
    let cannot = |error: &dyn std::fmt::Display| {
        Box::new(Diagnostic::new(format!("cannot evaluate {name} with {node}: {error}")))
    };
    let (reader, writer) = std::io::pipe().map_err(|error| cannot(&error))?;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map_err(|error| cannot(&error))?;
    let mut command = Command::new(&node);
    command
        .args(["-e", EVALUATE, "--"])
        .arg(&path)
        .args(&context.command)
        .env_clear()
        .envs(&context.env)
        .current_dir(&context.cwd)
        .stdin(Stdio::null())
        // What the file prints is for the user to see, and not for who reads this command's output.
        .stdout(Stdio::from(stderr));
    command
        .fd_mappings(vec![FdMapping { parent_fd: OwnedFd::from(writer), child_fd: ANSWER_FD }])
        .map_err(|error| cannot(&error))?;
    let mut child = command.spawn().map_err(|error| cannot(&error))?;
    // The command holds the writing end.
    drop(command);
    let answer = answer::one_line(reader, limit + 1, patience);
    let line = match answer {
        Answer::Line(line) => line,
        Answer::TooLong => {
            answer::end(&mut child);
            return Err(cannot(&format!("it exports more than {limit} bytes of JSON")));
        }
        Answer::Late => {
            answer::end(&mut child);
            let message = format!("{name} was not evaluated within {} s", patience.as_secs_f32());
            let hint = "something in it does not end: a loop, or an `await` of what never comes";
            return Err(Box::new(Diagnostic::new(message).hint(hint)));
        }
        Answer::Nothing => {
            let ended = answer::gone(&mut child);
            let ended = ended.map_or_else(|| "it said nothing".to_owned(), |status| status.to_string());
            let message = format!("node ended before {name} was evaluated ({ended})");
            let hint = "the file must not call process.exit(), nor await what never comes";
            return Err(Box::new(Diagnostic::new(message).hint(hint)));
        }
    };
    answer::end(&mut child);
    if let Some(json) = line.strip_prefix('+') {
        return Ok(json.to_owned());
    }
    match serde_json::from_str::<Failure>(line.trim_start_matches('-')) {
        Ok(failure) => Err(Box::new(explain(shown, &path, failure, limit))),
        Err(error) => Err(cannot(&error)),
    }
}

fn explain(shown: &Path, path: &Path, failure: Failure, limit: u64) -> Diagnostic {
    let message = format!("cannot evaluate {}: {}", shown.display(), failure.message);
    let esm = ["outside a module", "Unexpected token 'export'"].iter().any(|part| message.contains(part));
    let mut diagnostic = Diagnostic::new(message);
    diagnostic.hint = failure.hint;
    if esm {
        diagnostic = diagnostic.hint("name a file with `import` and `export` .config.mjs");
    }
    let Some(file) = failure.file else { return diagnostic };
    // The file itself is called what the user called it; a module that it imports has its path.
    let same = path.canonicalize().is_ok_and(|path| file.canonicalize().is_ok_and(|file| file == path));
    let named = if same { shown.to_owned() } else { file.clone() };
    let short = file.metadata().is_ok_and(|data| data.len() <= limit);
    let text = short.then(|| std::fs::read_to_string(&file).ok()).flatten();
    match (text, failure.line) {
        (Some(text), Some(line)) => {
            let source = Source::new(named, text);
            let at = source.offset(line, failure.column.unwrap_or(1));
            diagnostic.at(&source, Span { start: at, end: at + 1 })
        }
        _ => diagnostic.in_file(&named),
    }
}
