//! Reads an ecosystem file, or a program with flags, into apps. What a file is and what is in it at the top lives here.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sundew_nodes::ClusterConfig;

use super::cluster;
use super::coerce::{Given, Reader};
use super::config::AppConfig;
use super::context::Context;
use super::diagnostic::{Diagnostic, Report, Source, Span};
use super::evaluate::{PATIENCE, evaluate};
use super::keys;
use super::node::{self, EXAMPLE, Node, Property, Value};
use super::resolve::resolve;
use super::settings::{Settings, unknown};

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What can stand at the top of a file.
const TOP_LEVEL: &[&str] = &["apps", "pm2", "sundew", "deploy", "static"];

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ecosystem {
    /// The apps, in the file's order.
    pub apps: Vec<AppConfig>,
    /// The daemon's part in a cluster of several hosts.
    pub cluster: Option<ClusterConfig>,
    /// What the user should know and is no error.
    pub warnings: Vec<Diagnostic>,
}

/// Why there are no apps. All that was found, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// At least one.
    pub errors: Vec<Diagnostic>,
    /// As in [`Ecosystem`].
    pub warnings: Vec<Diagnostic>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// A key set by a flag of the command line. It is read as text in a file would be, and goes before the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The key, as in a file.
    pub key: &'static str,
    /// The flag, for messages: `--instances`.
    pub flag: &'static str,
    /// Its value.
    pub value: String,
}

/// What the command line says about the apps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// Keys.
    pub set: Vec<Flag>,
    /// What follows `--`.
    pub args: Option<Vec<String>>,
    /// `--only`: the names of the apps to take; empty for all.
    pub only: Vec<String>,
}

/// Whether an argument of `start` means an ecosystem file: pm2's rule, by what is in the name.
pub fn is_file(argument: &str) -> bool {
    argument == "-" || syntax(argument).is_some()
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Json,
    JavaScript,
    Yaml,
}

fn syntax(name: &str) -> Option<Syntax> {
    let kinds = [
        (".json", Syntax::Json),
        (".config.js", Syntax::JavaScript),
        (".config.cjs", Syntax::JavaScript),
        (".config.mjs", Syntax::JavaScript),
        (".yml", Syntax::Yaml),
        (".yaml", Syntax::Yaml),
    ];
    kinds.iter().find(|(part, _)| name.contains(part)).map(|(_, syntax)| *syntax)
}

/// Reads a file; `-` is standard input.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(file: &Path, context: &Context, flags: &Flags) -> Result<Ecosystem, Invalid> {
    let mut report = Report::default();
    match read(file, context) {
        Ok(source) => {
            let (apps, cluster) = apps(&source, context, flags, &mut report);
            finish(apps, cluster, report, context)
        }
        Err(diagnostic) => {
            report.error(*diagnostic);
            finish(Vec::new(), None, report, context)
        }
    }
}

/// An app that is a program and flags, without a file.
///
/// # Errors
/// Everything that is wrong with them.
pub fn program(script: &str, context: &Context, flags: &Flags) -> Result<Ecosystem, Invalid> {
    let mut report = Report::default();
    let script = Given { value: script.to_owned(), key: "PROGRAM".to_owned(), at: None };
    let mut settings = Settings { script: Some(script), ..Settings::default() };
    apply(&mut settings, flags, &mut report);
    let app = resolve(settings, None, 0, context, &mut Reader { source: None, report: &mut report });
    finish(app.into_iter().collect(), None, report, context)
}

fn finish(
    apps: Vec<AppConfig>,
    cluster: Option<ClusterConfig>,
    report: Report,
    context: &Context,
) -> Result<Ecosystem, Invalid> {
    let Report { errors, mut warnings } = report;
    if !errors.is_empty() {
        return Err(Invalid { errors, warnings });
    }
    for name in &context.unreadable_env {
        let message = format!("the variable {name} of your shell is not passed on: it is no UTF-8 text");
        warnings.push(Diagnostic::new(message));
    }
    Ok(Ecosystem { apps, cluster, warnings })
}

fn read(file: &Path, context: &Context) -> Result<Source, Box<Diagnostic>> {
    let shown = file.display();
    let syntax = file.to_str().and_then(syntax);
    if syntax == Some(Syntax::Yaml) {
        let message = format!("ecosystem files in YAML are not supported yet: {shown}");
        let hint = "write it as JSON: every key keeps its name";
        return Err(Box::new(Diagnostic::new(message).hint(hint)));
    }
    let failed = |error: io::Error| {
        let diagnostic = match error.kind() {
            io::ErrorKind::NotFound => Diagnostic::new(format!("there is no such file: {shown}"))
                .note(format!("looked for {}", context.cwd.join(file).display())),
            _ => Diagnostic::new(format!("cannot read {shown}: {error}")),
        };
        Box::new(diagnostic)
    };
    let mut bytes = Vec::new();
    let named = if file == Path::new("-") {
        io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        PathBuf::from("<stdin>")
    } else {
        let path = context.cwd.join(file);
        let opened = std::fs::File::open(&path).map_err(failed)?;
        if opened.metadata().map_err(failed)?.is_dir() {
            let message = format!("{shown} is a directory: name the ecosystem file in it");
            return Err(Box::new(Diagnostic::new(message)));
        }
        if syntax == Some(Syntax::JavaScript) {
            let text = evaluate(file, context, MAX_FILE, PATIENCE)?;
            return Ok(Source { evaluated: true, ..Source::new(file.to_owned(), text) });
        }
        opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        file.to_owned()
    };
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("{shown} is longer than {MAX_FILE} bytes: this is no ecosystem file");
        return Err(Box::new(Diagnostic::new(message)));
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).map(<[u8]>::to_vec).unwrap_or(bytes);
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(named, text)),
        Err(_) => Err(Box::new(Diagnostic::new(format!("{shown} is no UTF-8 text")))),
    }
}

fn apps(
    source: &Source,
    context: &Context,
    flags: &Flags,
    report: &mut Report,
) -> (Vec<AppConfig>, Option<ClusterConfig>) {
    let root = match node::parse(source) {
        Ok(root) => root,
        Err(diagnostic) => {
            report.error(*diagnostic);
            return (Vec::new(), None);
        }
    };
    let mut reader = Reader { source: Some(source), report };
    let Some(entries) = entries(&root, &mut reader) else { return (Vec::new(), None) };
    let cluster = daemons_own(&root).and_then(|own| cluster::read(own, context, &mut reader));
    let mut apps: Vec<(AppConfig, Option<Span>)> = Vec::new();
    for entry in entries {
        let Value::Object(properties) = &entry.value else {
            let message = format!("an app must be an object, not {}", entry.shown());
            let diagnostic = reader.about("apps", entry.at, message).hint(EXAMPLE);
            reader.report.error(diagnostic);
            continue;
        };
        let before = reader.report.errors.len();
        let mut settings = Settings::read(properties, &mut reader);
        apply(&mut settings, flags, reader.report);
        let named_environments: Vec<String> = settings.env_named.keys().cloned().collect();
        let name_at =
            settings.name.as_ref().or(settings.script.as_ref()).and_then(|given| given.at).or(entry.at);
        let app = resolve(settings, entry.at, before, context, &mut reader);
        let Some(app) = app.filter(|_| reader.report.errors.len() == before) else { continue };
        if !flags.only.is_empty() && !flags.only.contains(&app.name) {
            continue;
        }
        if let Some((_, first)) = apps.iter().find(|(other, _)| other.name == app.name) {
            let diagnostic = twice(&app.name, name_at, *first, &reader);
            reader.report.error(diagnostic);
            continue;
        }
        if let Some(env) = context.env_name.as_ref().filter(|env| !named_environments.contains(env)) {
            let message =
                format!("app `{}` has no `env_{env}`: --env {env} changes nothing for it", app.name);
            let warning = reader.about(&format!("env_{env}"), name_at, message);
            reader.report.warn(match keys::nearest(env, &named_environments) {
                Some(near) => warning.hint(format!("did you mean --env {near}?")),
                None => warning,
            });
        }
        apps.push((app, name_at));
    }
    for only in &flags.only {
        if reader.report.errors.is_empty() && !apps.iter().any(|(app, _)| app.name == *only) {
            let message = format!("--only: there is no app `{only}` in {}", source.file.display());
            reader.report.error(Diagnostic::new(message).key("--only"));
        }
    }
    (apps.into_iter().map(|(app, _)| app).collect(), cluster)
}

/// What a file with `apps` says about the daemon. In a file that is one app, `sundew` is that app's.
fn daemons_own(root: &Node) -> Option<&Node> {
    let Value::Object(properties) = &root.value else { return None };
    let named = |name| properties.iter().find(move |property| property.name == name);
    named("apps").or_else(|| named("pm2"))?;
    Some(&named("sundew").filter(|own| !matches!(own.node.value, Value::Null))?.node)
}

fn twice(name: &str, at: Option<Span>, first: Option<Span>, reader: &Reader<'_>) -> Diagnostic {
    let diagnostic = reader.about("name", at, format!("two apps have the name `{name}`"));
    let diagnostic = match (reader.source, first) {
        (Some(source), Some(first)) => diagnostic.note(format!("the first one is {}", source.called(first))),
        _ => diagnostic,
    };
    diagnostic.hint("give one of them another `name`, or one of them more `instances`")
}

/// The apps of a file: under `apps` or `pm2`, or the whole file.
fn entries<'a>(root: &'a Node, reader: &mut Reader<'_>) -> Option<&'a [Node]> {
    let list = match &root.value {
        Value::List(items) => items.as_slice(),
        Value::Object(properties) => {
            match properties.iter().find(|property| matches!(property.name.as_str(), "apps" | "pm2")) {
                Some(property) => {
                    top_level(properties, reader);
                    match &property.node.value {
                        Value::List(items) => items.as_slice(),
                        Value::Object(_) => std::slice::from_ref(&property.node),
                        _ => {
                            let shown = property.node.shown();
                            let message = format!("`{}` must be a list of apps, not {shown}", property.name);
                            let diagnostic = reader.about(&property.name, property.node.at, message);
                            reader.report.error(diagnostic.hint(EXAMPLE));
                            return None;
                        }
                    }
                }
                None if properties.iter().any(|property| keys::find(&property.name).is_some()) => {
                    std::slice::from_ref(root)
                }
                None => return nothing(properties, root, reader),
            }
        }
        _ => {
            let message = format!("the file must hold an object with `apps`, not {}", root.shown());
            let diagnostic = reader.about("apps", root.at, message).hint(EXAMPLE);
            reader.report.error(diagnostic);
            return None;
        }
    };
    if list.is_empty() {
        let diagnostic = reader.about("apps", root.at, "there are no apps in this file").hint(EXAMPLE);
        reader.report.error(diagnostic);
        return None;
    }
    Some(list)
}

fn top_level(properties: &[Property], reader: &mut Reader<'_>) {
    let file = reader.source.and_then(|source| source.file.file_name());
    let package = file.is_some_and(|name| name == "package.json");
    for property in properties {
        match property.name.as_str() {
            "apps" | "pm2" | "sundew" => {}
            "deploy" | "static" => {
                let message = format!("`{}` has no effect: this part of pm2 is not built", property.name);
                let warning = reader.about(&property.name, property.name_at, message);
                reader.report.warn(warning);
            }
            // The file has another purpose, and its other keys are that one's.
            _ if package => {}
            name => unknown(property, keys::nearest(name, TOP_LEVEL).map(|near| (*near).to_owned()), reader),
        }
    }
}

fn nothing<'a>(properties: &[Property], root: &Node, reader: &mut Reader<'_>) -> Option<&'a [Node]> {
    let near = properties.iter().find_map(|property| {
        keys::nearest(property.name.as_str(), TOP_LEVEL).filter(|near| *near == &"apps").map(|_| property)
    });
    let diagnostic = match near {
        Some(property) => reader
            .about(
                "apps",
                property.name_at,
                format!("there is no `apps` in this file, but `{}`", property.name),
            )
            .hint("did you mean `apps`?"),
        None => reader.about("apps", root.at, "there is no `apps` in this file").hint(EXAMPLE),
    };
    reader.report.error(diagnostic);
    None
}

fn apply(settings: &mut Settings, flags: &Flags, report: &mut Report) {
    let mut reader = Reader { source: None, report };
    for flag in &flags.set {
        settings.set(flag.key, flag.flag, &Node::text(flag.value.clone()), &mut reader);
    }
    if let Some(args) = &flags.args {
        settings.args = Some(args.clone());
    }
}
