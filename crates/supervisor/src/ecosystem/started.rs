//! What is started for an app: its program, or what a package manager would run. Names settings in what it says, and
//! settles nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::coerce::{Given, Reader};
use super::context::Context;
use super::diagnostic::{Diagnostic, Span};
use super::kind;
use super::npm::{self, Found, Typed};
use super::script::{self, Places, Program, Wanted, Which};
use super::settings::Settings;

/// What is said about an app.
pub(super) struct App<'a> {
    pub(super) name: &'a str,
    pub(super) script: &'a Given<String>,
    pub(super) cwd: &'a Path,
    pub(super) folder: Option<&'a Path>,
}

impl App<'_> {
    pub(super) fn fails(&self, key: &str, at: Option<Span>, found: Diagnostic, reader: &mut Reader<'_>) {
        let error = self.about(key, at, found, reader);
        reader.report.error(error);
    }

    fn about(&self, key: &str, at: Option<Span>, found: Diagnostic, reader: &Reader<'_>) -> Diagnostic {
        let about = reader.about(key, at, format!("app `{}`: {}", self.name, found.message));
        Diagnostic { notes: found.notes, hint: found.hint, ..about }
    }
}

/// What is started.
pub(super) struct Started {
    pub(super) program: Program,
    pub(super) args: Vec<String>,
    /// Variables that go before the app's own.
    pub(super) env: Vec<(String, String)>,
    /// Folders that go before its `PATH`.
    pub(super) bins: Vec<PathBuf>,
    pub(super) cwd: PathBuf,
}

/// Finds the program. A package manager in cluster mode is replaced by what it would run.
pub(super) fn started(
    app: &App<'_>,
    settings: &Settings,
    context: &Context,
    reader: &mut Reader<'_>,
) -> Option<Started> {
    let places = Places { cwd: app.cwd, folder: app.folder };
    let mut args = settings.args.clone().unwrap_or_default();
    let node_args = settings.node_args.clone().unwrap_or_default();
    let cluster = kind::wants_cluster(settings);
    let mut script = app.script.clone();
    let exists = context.path(&script.value, app.cwd).is_file();
    match npm::typed(&script.value, &args).filter(|_| !exists) {
        Some(Typed::Manager { tool, args: words }) if !cluster => {
            script.value = tool;
            args = words;
        }
        Some(typed) => {
            return match npm::resolve(&typed, &places, context) {
                Ok(found) => resolved(app, found, node_args, settings, context, reader),
                Err(diagnostic) => {
                    let fork = "in fork mode a package manager runs as it is";
                    let diagnostic = match typed {
                        Typed::Manager { .. } => diagnostic.note(fork),
                        Typed::Node(_) => *diagnostic,
                    };
                    app.fails(&script.key, script.at, diagnostic, reader);
                    None
                }
            };
        }
        None => {}
    }
    let wanted = Wanted { interpreter: settings.interpreter.as_ref(), node_args: &node_args, cluster };
    match script::find(&script, &wanted, &places, context) {
        Ok(program) => {
            Some(Started { program, args, env: Vec::new(), bins: Vec::new(), cwd: app.cwd.to_owned() })
        }
        Err((diagnostic, which)) => {
            let given = match which {
                Which::Interpreter => settings.interpreter.as_ref(),
                Which::Script => None,
            };
            let given = given.unwrap_or(&script);
            app.fails(&given.key, given.at, *diagnostic, reader);
            None
        }
    }
}

/// A script of `package.json` as a program of node.
fn resolved(
    app: &App<'_>,
    found: Found,
    mut node_args: Vec<String>,
    settings: &Settings,
    context: &Context,
    reader: &mut Reader<'_>,
) -> Option<Started> {
    let Found { script, node, flags, args, env, bins, cwd, warnings } = found;
    for warning in warnings {
        let warning = app.about(&app.script.key, app.script.at, warning, reader);
        reader.report.warn(warning);
    }
    // npm is no program of its own, and the interpreter most often given for it is `none`.
    let given = settings.interpreter.as_ref().filter(|given| given.value != "none");
    let key = given.map_or("interpreter", |given| given.key.as_str()).to_owned();
    let interpreter = Given {
        value: given.map_or(node, |given| given.value.clone()),
        key,
        at: given.map_or(app.script.at, |given| given.at),
    };
    node_args.extend(flags);
    let mut context = context.clone();
    put_before(&mut context.env, &bins);
    let wanted = Wanted { interpreter: Some(&interpreter), node_args: &node_args, cluster: true };
    let script =
        Given { value: script.display().to_string(), key: app.script.key.clone(), at: app.script.at };
    match script::find(&script, &wanted, &Places { cwd: &cwd, folder: None }, &context) {
        Ok(program) => Some(Started { program, args, env, bins, cwd }),
        Err((diagnostic, _)) => {
            app.fails(&app.script.key, app.script.at, *diagnostic, reader);
            None
        }
    }
}

/// Puts folders before a `PATH`.
pub(super) fn put_before(env: &mut BTreeMap<String, String>, folders: &[PathBuf]) {
    if folders.is_empty() {
        return;
    }
    let before = env.get("PATH").cloned().unwrap_or_default();
    let all = folders.iter().cloned().chain(std::env::split_paths(&before));
    if let Some(path) = std::env::join_paths(all).ok().and_then(|path| path.into_string().ok()) {
        env.insert("PATH".to_owned(), path);
    }
}
