//! Finds the program of an app and what runs it. No settings beyond those live here.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::coerce::Given;
use super::context::Context;
use super::diagnostic::Diagnostic;
use super::runtime::{self, Runtime, Strips};

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
    /// With its arguments; empty if it runs by itself.
    pub(super) interpreter: Vec<String>,
    /// What runs it in the end.
    pub(super) runtime: Runtime,
}

/// What runs a script that is no program itself, as pm2 has it. For TypeScript see [`typescript`].
const BY_EXTENSION: &[(&str, &str)] = &[
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("py", "python3"),
    ("sh", "bash"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
];

const TYPESCRIPT: &[&str] = &["ts", "tsx", "mts", "cts"];

/// What is known of an app besides its script.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) interpreter: Option<&'a Given<String>>,
    pub(super) node_args: &'a [String],
    /// It is to be a worker among others.
    pub(super) cluster: bool,
}

/// Finds `script` in the app's working folder, then in the file's, then, a bare name, in `PATH`.
pub(super) fn find(
    script: &Given<String>,
    wanted: &Wanted<'_>,
    places: &Places<'_>,
    context: &Context,
) -> Result<Program, (Box<Diagnostic>, Which)> {
    let path = locate(script, places, context).map_err(|diagnostic| (diagnostic, Which::Script))?;
    let of_script = |diagnostic| (diagnostic, Which::Script);
    let found = match wanted.interpreter {
        Some(given) if given.value == "none" => Vec::new(),
        Some(given) => {
            let found = interpreter(&given.value, places.cwd, context);
            vec![found.map_err(|diagnostic| (diagnostic, Which::Interpreter))?]
        }
        None => by_itself(&path, wanted.cluster, places, context).map_err(of_script)?,
    };
    if found.is_empty() {
        if rustix::fs::access(&path, Access::EXEC_OK).is_err() {
            return Err(of_script(Box::new(not_executable(&path))));
        }
        // The kernel runs what the first line names; a shell there is most often around a program.
        let named = runtime::first_line(&path).and_then(|line| line.into_iter().next());
        let runtime = match named.as_deref().map(|name| Runtime::of(&[name.to_owned()])) {
            Some(other @ (Runtime::Bun | Runtime::Deno | Runtime::Other(_))) => other,
            _ => Runtime::Direct,
        };
        return Ok(Program { script: path, interpreter: Vec::new(), runtime });
    }
    if let Err(error) = rustix::fs::access(&path, Access::READ_OK) {
        let message = format!("cannot read {}: {}", path.display(), std::io::Error::from(error));
        return Err(of_script(Box::new(Diagnostic::new(message))));
    }
    let interpreter: Vec<String> = found.into_iter().chain(wanted.node_args.iter().cloned()).collect();
    let program = Program { script: path, runtime: Runtime::of(&interpreter), interpreter };
    stripping(program, context).map_err(of_script)
}

/// What runs a script that names no interpreter.
fn by_itself(
    path: &Path,
    cluster: bool,
    places: &Places<'_>,
    context: &Context,
) -> Result<Vec<String>, Box<Diagnostic>> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if TYPESCRIPT.contains(&extension) {
        return typescript(extension, cluster, places, context).map(|found| vec![found]);
    }
    if let Some((_, name)) = BY_EXTENSION.iter().find(|(known, _)| *known == extension) {
        return interpreter(name, places.cwd, context).map(|found| vec![found]);
    }
    // A script like express' `bin/www`: as a worker it has to be known as Node's.
    match runtime::first_line(path) {
        Some(line)
            if line.first().is_some_and(|name| Runtime::of(std::slice::from_ref(name)) == Runtime::Node) =>
        {
            let found = interpreter(&line[0], places.cwd, context)?;
            Ok(std::iter::once(found).chain(line.into_iter().skip(1)).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// pm2 runs TypeScript with Bun if it is there. Bun cannot be a worker of a cluster, so there it is node.
fn typescript(
    extension: &str,
    cluster: bool,
    places: &Places<'_>,
    context: &Context,
) -> Result<String, Box<Diagnostic>> {
    if !cluster && let Some(bun) = in_path("bun", context).and_then(|path| path.to_str().map(str::to_owned)) {
        return Ok(bun);
    }
    if extension == "tsx" {
        let message = "node does not run .tsx files";
        let hint = "compile it and name what comes out, or name in `interpreter` what runs it";
        return Err(Box::new(Diagnostic::new(message).hint(hint)));
    }
    interpreter("node", places.cwd, context)
}

/// Sees to it that node runs TypeScript.
fn stripping(program: Program, context: &Context) -> Result<Program, Box<Diagnostic>> {
    let Program { script, mut interpreter, runtime } = program;
    let extension = script.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let options = context.env.get("NODE_OPTIONS").map(String::as_str).unwrap_or_default();
    let mut args = interpreter.iter().map(String::as_str).skip(1).chain(options.split_whitespace());
    if runtime == Runtime::Node && TYPESCRIPT.contains(&extension) && !runtime::has_loader(&mut args) {
        let node = interpreter.first().cloned().unwrap_or_default();
        let version = runtime::node_version(&node, context).map_err(|why| {
            let message = format!("cannot tell whether {node} runs TypeScript: {why}");
            Box::new(Diagnostic::new(message))
        })?;
        match Strips::of(version) {
            Strips::Yes => {}
            Strips::WithFlag => interpreter.insert(1, runtime::STRIP_TYPES.to_owned()),
            Strips::No => {
                let (major, minor) = version;
                let message =
                    format!("Node.js {major}.{minor} does not run TypeScript: {}", script.display());
                return Err(Box::new(Diagnostic::new(message).note(format!("asked {node}")).hint(
                    "use Node.js 22.6 or newer, or compile it and name what comes out, or load a compiler: \"node_args\": \"--import tsx\"",
                )));
            }
        }
    }
    Ok(Program { script, interpreter, runtime })
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

/// The path of an interpreter: as written, or looked up in `PATH`.
pub(super) fn interpreter(written: &str, cwd: &Path, context: &Context) -> Result<String, Box<Diagnostic>> {
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
