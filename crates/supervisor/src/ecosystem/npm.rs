//! `npm start` and its like: what a package manager would have a shell run, found in `package.json`, so that node can be
//! started directly. A manager between the supervisor and node would keep Node's channel for itself.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::context::Context;
use super::diagnostic::Diagnostic;
use super::line::{self, Line, MANAGERS, Runs, Unfit};
use super::package::{Outcome, Package, entry};
use super::script::Places;
use super::shell;

/// A program with its arguments in one text, or a package manager: what is not simply a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// `npm`, `yarn`, `pnpm`, with what follows.
    Manager { tool: String, args: Vec<String> },
    /// `node server.js` as one text.
    Node(Line),
}

/// What it comes down to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The file that node runs, absolute.
    pub(super) script: PathBuf,
    /// node, as the line has it.
    pub(super) node: String,
    /// node's arguments.
    pub(super) flags: Vec<String>,
    /// The file's.
    pub(super) args: Vec<String>,
    /// Variables the manager and the line set, the last one wins.
    pub(super) env: Vec<(String, String)>,
    /// Folders the manager puts before `PATH`.
    pub(super) bins: Vec<PathBuf>,
    /// Where it runs.
    pub(super) cwd: PathBuf,
    /// What the manager would do and is not done, each about the script.
    pub(super) warnings: Vec<Diagnostic>,
}

/// How often a script may lead to another one.
const MAX_DEPTH: u32 = 8;

/// Commands of package managers that run no script of the package.
const OTHER_COMMANDS: &[&str] = &[
    "exec",
    "x",
    "dlx",
    "create",
    "init",
    "install",
    "i",
    "ci",
    "add",
    "publish",
    "link",
    "pack",
    "update",
    "workspace",
    "workspaces",
    "node",
];

/// Flags that change nothing about what is run.
const IDLE_FLAGS: &[&str] = &[
    "-s",
    "--silent",
    "-q",
    "--quiet",
    "--no-progress",
    "--if-present",
    "--offline",
    "--prefer-offline",
    "--color",
    "--no-color",
    "--no-update-notifier",
];

/// Flags that say in which folder the package is.
const FOLDER_FLAGS: &[&str] = &["--prefix", "-C", "--cwd", "--dir"];

/// What `script` and `args` of an app are, if it is more than a file.
pub(super) fn typed(script: &str, args: &[String]) -> Option<Typed> {
    let manager = |word: &str| {
        let name = word.rsplit('/').next().unwrap_or(word);
        MANAGERS.iter().find(|manager| **manager == name).map(|manager| (*manager).to_owned())
    };
    if let Some(tool) = manager(script) {
        return Some(Typed::Manager { tool, args: args.to_vec() });
    }
    if !script.contains(char::is_whitespace) {
        return None;
    }
    match line::read(script).ok()? {
        Line { env, runs: Runs::Manager { tool, args: mut words } } if env.is_empty() => {
            words.extend_from_slice(args);
            Some(Typed::Manager { tool, args: words })
        }
        Line { runs: Runs::Manager { .. }, .. } => None,
        Line { env, runs: Runs::Node { node, flags, file, args: mut words } } => {
            words.extend_from_slice(args);
            Some(Typed::Node(Line { env, runs: Runs::Node { node, flags, file, args: words } }))
        }
    }
}

/// What a manager is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Task {
    folder: Option<String>,
    name: String,
    args: Vec<String>,
}

/// Follows scripts until one runs node.
pub(super) fn resolve(typed: &Typed, places: &Places<'_>, context: &Context) -> Outcome<Found> {
    let (tool, args) = match typed {
        Typed::Manager { tool, args } => (tool.clone(), args.clone()),
        Typed::Node(line) => {
            let Line { env, runs: Runs::Node { node, flags, file, args } } = line.clone() else {
                return Err(Box::new(Diagnostic::new("this runs no file")));
            };
            let folders = std::iter::once(places.cwd).chain(places.folder);
            let script = folders.map(|folder| folder.join(&file)).find_map(|path| entry(&path));
            let Some(script) = script else {
                let message = format!("there is no program `{file}`");
                let looked = format!("looked for {}", places.cwd.join(&file).display());
                return Err(Box::new(Diagnostic::new(message).note(looked)));
            };
            let cwd = places.cwd.to_owned();
            return Ok(Found { script, node, flags, args, env, bins: Vec::new(), cwd, warnings: Vec::new() });
        }
    };
    let first = task(&tool, &args)?;
    let package = match &first.folder {
        Some(folder) => Package::read(&context.path(folder, places.cwd).join("package.json"))?,
        None => Package::near(places, &tool)?,
    };
    Follow { package, context, env: Vec::new(), warnings: Vec::new() }.task(&tool, first)
}

struct Follow<'a> {
    package: Package,
    context: &'a Context,
    env: Vec<(String, String)>,
    warnings: Vec<Diagnostic>,
}

impl Follow<'_> {
    fn task(mut self, tool: &str, mut task: Task) -> Outcome<Found> {
        for _ in 0..MAX_DEPTH {
            let line = self.package.script(tool, &task.name)?;
            self.around(&task.name);
            self.variables(&task.name, &line);
            let read = line::read(&line).map_err(|unfit| self.unfit(&task.name, &line, unfit))?;
            self.env.extend(read.env);
            match read.runs {
                Runs::Node { node, flags, file, mut args } => {
                    args.append(&mut task.args);
                    return self.found(&task.name, node, flags, &file, args);
                }
                Runs::Manager { tool, mut args } => {
                    args.append(&mut task.args);
                    let next = self::task(&tool, &args)?;
                    if next.folder.is_some() {
                        return Err(self.unfit(&task.name, &line, Unfit::Program { name: tool, args }));
                    }
                    task = next;
                }
            }
        }
        let message =
            format!("the script `{}` of {} leads to itself", task.name, self.package.file.display());
        Err(Box::new(Diagnostic::new(message)))
    }

    /// The scripts a manager would run before and after.
    fn around(&mut self, name: &str) {
        for (word, when) in [("pre", "before"), ("post", "after")] {
            let other = format!("{word}{name}");
            if let Some(line) = self.package.line(&other) {
                let message = format!("the script `{other}` is not run {when} `{name}`: `{line}`");
                let hint = "run it yourself, for example where you deploy";
                self.warnings.push(Diagnostic::new(message).hint(hint));
            }
        }
    }

    /// What programs read that are used to being run by npm.
    fn variables(&mut self, name: &str, line: &str) {
        let content = &self.package.content;
        let text = |key: &str| content.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut set = |name: String, value: Option<String>| {
            self.env.extend(value.map(|value| (name, value)));
        };
        set("npm_lifecycle_event".to_owned(), Some(name.to_owned()));
        set("npm_lifecycle_script".to_owned(), Some(line.to_owned()));
        set("npm_package_name".to_owned(), text("name"));
        set("npm_package_version".to_owned(), text("version"));
        set("npm_package_json".to_owned(), Some(self.package.file.display().to_string()));
        set("INIT_CWD".to_owned(), Some(self.context.cwd.display().to_string()));
        for (key, value) in content.get("config").and_then(Value::as_object).into_iter().flatten() {
            let value = match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
                _ => None,
            };
            set(format!("npm_package_config_{key}"), value);
        }
    }

    fn found(
        self,
        name: &str,
        node: String,
        flags: Vec<String>,
        file: &str,
        args: Vec<String>,
    ) -> Outcome<Found> {
        let path = self.context.path(file, &self.package.folder);
        let Some(script) = entry(&path) else {
            let message = format!("the script `{name}` runs `{file}`, and there is no such file");
            let diagnostic =
                Diagnostic::new(message).note(format!("looked for {}", path.display())).note(self.source());
            return Err(Box::new(match self.package.line("build") {
                Some(_) => diagnostic.hint("build it first: npm run build"),
                None => diagnostic,
            }));
        };
        let bins = self.package.folder.ancestors().map(|folder| folder.join("node_modules/.bin"));
        let bins = bins.filter(|folder| folder.is_dir()).collect();
        let Self { package, env, warnings, .. } = self;
        Ok(Found { script, node, flags, args, env, bins, cwd: package.folder, warnings })
    }

    fn source(&self) -> String {
        format!("from {}", self.package.file.display())
    }

    /// What was found, and what to write instead.
    fn unfit(&self, name: &str, line: &str, unfit: Unfit) -> Box<Diagnostic> {
        let (what, hint) = match unfit {
            Unfit::Empty => ("runs nothing".to_owned(), None),
            Unfit::Open => ("has a quote that is not closed".to_owned(), None),
            Unfit::Several { operator, last } => {
                let hint = last.map(|last| {
                    format!(
                        "write what runs last, {}, and run the rest before `sundew start`",
                        last.as_keys()
                    )
                });
                (format!("is more than one command (`{operator}`)"), hint)
            }
            Unfit::Shell(word) => (
                format!("has `{word}`, which a shell would work out"),
                Some(
                    "write the file in `script`, its arguments in `args`, and variables in `env`".to_owned(),
                ),
            ),
            Unfit::NoFile(Some(flag)) => (
                format!("runs node with `{flag}`"),
                Some("write the file alone in `script`; Sundew starts it again when it exits".to_owned()),
            ),
            Unfit::NoFile(None) => ("runs node without a file".to_owned(), None),
            Unfit::Program { name, args } => {
                (format!("runs `{name}`, not node"), Some(self.instead(&name, &args)))
            }
        };
        let hint = hint.unwrap_or_else(|| "write the file that node runs in `script`".to_owned());
        let diagnostic = Diagnostic::new(format!("the script `{name}` {what}: `{line}`"));
        Box::new(diagnostic.note(self.source()).hint(hint))
    }

    /// What to write for a program that is not node.
    fn instead(&self, program: &str, args: &[String]) -> String {
        let file = args.iter().find(|arg| !arg.starts_with('-')).map_or("FILE", String::as_str);
        match program {
            "nodemon" | "node-dev" | "supervisor" | "forever" | "pm2" => {
                format!(
                    "\"script\": \"{file}\": {program} starts a process of its own, which is Sundew's work"
                )
            }
            "ts-node" => format!(
                "\"script\": \"{file}\", \"node_args\": \"-r ts-node/register\", or compile it and name what comes out"
            ),
            "tsx" => format!(
                "\"script\": \"{file}\", \"node_args\": \"--import tsx\", or compile it and name what comes out"
            ),
            "bun" | "deno" => {
                "give the app a `port` and \"sundew\": { \"kind\": \"port\" }: it is run as it is then, \
                 and each instance gets a PORT of its own"
                    .to_owned()
            }
            _ => {
                let bin = Path::new("node_modules/.bin").join(program);
                let own = self.package.folder.join(&bin).exists().then(|| {
                    let args = shell::join(args.iter().map(String::as_str));
                    let args =
                        if args.is_empty() { args } else { format!(", \"args\": {}", Value::from(args)) };
                    format!("\"script\": \"{}\"{args} if it listens in its own process; else ", bin.display())
                });
                format!(
                    "{}a `port` with \"sundew\": {{ \"kind\": \"port\" }} runs it as it is, and each instance gets a PORT of its own",
                    own.unwrap_or_default()
                )
            }
        }
    }
}

/// What the words after a manager's name ask for.
fn task(tool: &str, words: &[String]) -> Outcome<Task> {
    let wrong = |message: String, hint: &str| Box::new(Diagnostic::new(message).hint(hint));
    let example = "\"args\": \"start\" or \"args\": \"run NAME\" runs a script of package.json";
    let (mut folder, mut name, mut args) = (None, None, Vec::new());
    let mut words = words.iter();
    let mut run = false;
    while let Some(word) = words.next() {
        let (flag, value) =
            word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
        if name.is_none() && FOLDER_FLAGS.contains(&flag) {
            folder = value.or_else(|| words.next().map(String::as_str)).map(str::to_owned);
        } else if name.is_none() && matches!(flag, "-w" | "--workspace" | "--filter" | "-F") {
            let message = format!("`{tool} {flag}` is not resolved: it leads to another package");
            return Err(wrong(message, "name that package's folder in `cwd`"));
        } else if IDLE_FLAGS.contains(&word.as_str()) && (name.is_none() || tool == "npm") {
        } else if word == "--" && name.is_some() {
            args.extend(words.by_ref().cloned());
        } else if word.starts_with('-') && (name.is_none() || tool == "npm") {
            let message = format!("the flag `{word}` of {tool} is not understood");
            return Err(wrong(message, "what the program itself is to get stands behind `--`"));
        } else if name.is_some() {
            args.push(word.clone());
        } else if !run && matches!(word.as_str(), "run" | "run-script" | "rum" | "urn") {
            run = true;
        } else if !run && OTHER_COMMANDS.contains(&word.as_str()) {
            return Err(wrong(format!("`{tool} {word}` runs no script of package.json"), example));
        } else {
            name = Some(word.clone());
        }
    }
    match name {
        Some(name) => Ok(Task { folder, name, args }),
        None => Err(wrong(format!("`{tool}` alone runs no script"), example)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_is_typed() {
        let manager =
            |tool: &str, args: &[&str]| Some(Typed::Manager { tool: tool.to_owned(), args: strings(args) });
        assert_eq!(typed("npm", &strings(&["start"])), manager("npm", &["start"]));
        assert_eq!(typed("/usr/bin/yarn", &[]), manager("yarn", &[]));
        assert_eq!(typed("npm run  x", &strings(&["--", "y"])), manager("npm", &["run", "x", "--", "y"]));
        assert!(matches!(typed("node a.js", &[]), Some(Typed::Node(_))));
        for other in ["./app.js", "npm-run-all x", "my server", "python3 a.py", "npm start && x"] {
            assert_eq!(typed(other, &[]), None, "{other}");
        }
    }

    #[test]
    fn what_a_manager_is_asked_for() {
        let asked = |tool: &str, words: &[&str]| task(tool, &strings(words));
        let is = |folder: Option<&str>, name: &str, args: &[&str]| {
            Ok(Task { folder: folder.map(str::to_owned), name: name.to_owned(), args: strings(args) })
        };
        assert_eq!(asked("npm", &["start"]), is(None, "start", &[]));
        assert_eq!(
            asked("npm", &["run", "-s", "x", "a", "--", "--b", "--"]),
            is(None, "x", &["a", "--b", "--"])
        );
        assert_eq!(asked("npm", &["--prefix", "api", "run", "run"]), is(Some("api"), "run", &[]));
        assert_eq!(asked("yarn", &["--cwd=api", "serve", "--b"]), is(Some("api"), "serve", &["--b"]));
        assert_eq!(asked("pnpm", &["serve", "--", "--b"]), is(None, "serve", &["--b"]));
        for (tool, words, says) in [
            ("npm", &[][..], "`npm` alone"),
            ("npm", &["run"], "`npm` alone"),
            ("npm", &["exec", "x"], "`npm exec` runs no script"),
            ("npm", &["start", "--port"], "the flag `--port` of npm"),
            ("pnpm", &["--filter", "x", "start"], "leads to another package"),
        ] {
            let message = asked(tool, words).unwrap_err().message;
            assert!(message.contains(says), "{message}");
        }
    }
}
