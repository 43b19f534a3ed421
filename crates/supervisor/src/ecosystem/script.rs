//! Finds the program of an app and what runs it. No settings beyond those live here.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::coerce::Given;
use super::context::Context;
use super::diagnostic::Diagnostic;

/// Where a script may be.
#[derive(Debug)]
pub(super) struct Places<'a> {
    /// The app's working folder.
    pub(super) cwd: &'a Path,
    /// The file's folder; none for a program from the command line.
    pub(super) folder: Option<&'a Path>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) script: PathBuf,
    pub(super) interpreter: Vec<String>,
}

/// What runs a script that is no program itself, as pm2 has it.
const BY_EXTENSION: &[(&str, &str)] = &[
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("ts", "bun"),
    ("tsx", "bun"),
    ("py", "python3"),
    ("sh", "bash"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
];

/// Whether an interpreter is one that pm2 runs in cluster mode.
pub(crate) fn is_node(interpreter: &[String]) -> bool {
    let name = interpreter.first().and_then(|path| Path::new(path).file_name()?.to_str());
    matches!(name, Some("node" | "nodejs" | "bun"))
}

/// Finds `script` in the app's working folder, then in the file's, then, a bare name, in `PATH`.
pub(super) fn find(
    script: &Given<String>,
    interpreter: Option<&Given<String>>,
    node_args: Option<Vec<String>>,
    places: &Places<'_>,
    context: &Context,
) -> Result<Program, (Box<Diagnostic>, Which)> {
    let path = locate(script, places, context).map_err(|diagnostic| (diagnostic, Which::Script))?;
    let runs = match interpreter {
        Some(given) if given.value == "none" => None,
        Some(given) => {
            let found = interpreter_path(&given.value, places.cwd, context);
            Some(found.map_err(|diagnostic| (diagnostic, Which::Interpreter))?)
        }
        None => {
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            match BY_EXTENSION.iter().find(|(known, _)| *known == extension) {
                Some((_, name)) => {
                    let found = interpreter_path(name, places.cwd, context);
                    Some(found.map_err(|diagnostic| (diagnostic, Which::Script))?)
                }
                None => None,
            }
        }
    };
    let readable = |access| rustix::fs::access(&path, access);
    let Some(runs) = runs else {
        if readable(Access::EXEC_OK).is_err() {
            return Err((Box::new(not_executable(&path)), Which::Script));
        }
        return Ok(Program { script: path, interpreter: Vec::new() });
    };
    if let Err(error) = readable(Access::READ_OK) {
        let message = format!("cannot read {}: {}", path.display(), std::io::Error::from(error));
        return Err((Box::new(Diagnostic::new(message)), Which::Script));
    }
    let interpreter = std::iter::once(runs).chain(node_args.unwrap_or_default()).collect();
    Ok(Program { script: path, interpreter })
}

/// Which setting a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Script,
    Interpreter,
}

fn locate(
    script: &Given<String>,
    places: &Places<'_>,
    context: &Context,
) -> Result<PathBuf, Box<Diagnostic>> {
    let written = script.value.as_str();
    let mut candidates = vec![context.path(written, places.cwd)];
    if let Some(folder) = places.folder {
        let beside = context.path(written, folder);
        if !candidates.contains(&beside) {
            candidates.push(beside);
        }
    }
    let mut odd = None;
    for candidate in &candidates {
        match candidate.metadata() {
            Ok(data) if data.is_file() => return Ok(candidate.clone()),
            Ok(data) if data.is_dir() => {
                let message = format!("`{written}` is a directory, not a program: {}", candidate.display());
                odd.get_or_insert(Diagnostic::new(message));
            }
            Ok(_) => {
                let message = format!("`{written}` is not a regular file: {}", candidate.display());
                odd.get_or_insert(Diagnostic::new(message));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("cannot look at {}: {error}", candidate.display());
                odd.get_or_insert(Diagnostic::new(message));
            }
        }
    }
    if let Some(found) = in_path(written, context) {
        return Ok(found);
    }
    if let Some(odd) = odd {
        return Err(Box::new(odd));
    }
    let mut diagnostic = Diagnostic::new(format!("there is no program `{written}`"));
    for candidate in &candidates {
        diagnostic = diagnostic.note(format!("looked for {}", candidate.display()));
    }
    if !written.contains('/') {
        diagnostic = diagnostic.note("looked for it in the folders of PATH");
    }
    Err(Box::new(
        diagnostic.hint(match written.contains(char::is_whitespace) {
            true => "`script` is the program alone: its arguments go into `args`".to_owned(),
            false
                if candidates
                    .iter()
                    .any(|path| path.components().any(|part| part.as_os_str() == "target")) =>
            {
                "build it first: cargo build --release".to_owned()
            }
            false => {
                "a relative `script` is looked up from the app's `cwd`, then from the folder of its file"
                    .to_owned()
            }
        }),
    ))
}

fn not_executable(path: &Path) -> Diagnostic {
    let message = format!("{} is not executable", path.display());
    Diagnostic::new(message)
        .hint(format!("chmod +x {}, or name the program that runs it in `interpreter`", path.display()))
}

fn interpreter_path(written: &str, cwd: &Path, context: &Context) -> Result<String, Box<Diagnostic>> {
    if let Some((program, version)) = written.split_once('@') {
        let message = format!("the interpreter `{written}` is not supported: Sundew does not look into nvm");
        return Err(Box::new(Diagnostic::new(message).hint(format!(
            "give the path of the {program} of version {version}, as `nvm which {version}` prints it"
        ))));
    }
    let found = if written.contains('/') {
        Some(context.path(written, cwd)).filter(|path| executable(path))
    } else {
        in_path(written, context)
    };
    found.and_then(|path| path.into_os_string().into_string().ok()).ok_or_else(|| {
        Box::new(
            Diagnostic::new(format!("there is no interpreter `{written}`"))
                .note(if written.contains('/') {
                    "it is no executable file"
                } else {
                    "looked for it in the folders of PATH"
                })
                .hint("install it, or give its path in `interpreter`; \"none\" runs the script directly"),
        )
    })
}

fn executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

fn in_path(name: &str, context: &Context) -> Option<PathBuf> {
    if name.contains('/') {
        return None;
    }
    let folders = context.env.get("PATH")?;
    // A relative entry is meant from the shell's folder, where it works too.
    std::env::split_paths(folders)
        .map(|folder| context.cwd.join(folder).join(name))
        .find(|path| executable(path))
}
