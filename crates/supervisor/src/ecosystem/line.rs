//! A command line as it stands in `package.json`, as far as it comes down to one program that is node, or to another
//! script. What is run is told, nothing is looked up.

use super::runtime::Runtime;
use super::shell::{self, Token, Word};

/// The package managers whose scripts are resolved.
pub(super) const MANAGERS: &[&str] = &["npm", "yarn", "pnpm"];

/// What a line comes down to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Variables it sets.
    pub(super) env: Vec<(String, String)>,
    pub(super) runs: Runs,
}

/// The program of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Runs {
    /// node, with its own arguments, a file and the file's.
    Node { node: String, flags: Vec<String>, file: String, args: Vec<String> },
    /// A package manager.
    Manager { tool: String, args: Vec<String> },
}

/// Why a line cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// There is nothing in it.
    Empty,
    /// A quote is not closed.
    Open,
    /// More than one command: what stands between them, and the last one if that one could be run.
    Several { operator: String, last: Option<Box<Line>> },
    /// A word that needs a shell.
    Shell(String),
    /// Another program, with its arguments.
    Program { name: String, args: Vec<String> },
    /// node runs no file, because of this flag.
    NoFile(Option<String>),
}

/// Arguments of node that take their value from the next word.
const WITH_VALUE: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--env-file-if-exists",
    "--title",
    "--inspect-port",
    "--debug-port",
    "--icu-data-dir",
    "--openssl-config",
    "--redirect-warnings",
    "--disable-warning",
    "--diagnostic-dir",
    "--trace-event-categories",
    "--dns-result-order",
    "--unhandled-rejections",
    "--cpu-prof-dir",
    "--heap-prof-dir",
    "--report-dir",
    "--report-filename",
    "--report-signal",
    "--localstorage-file",
];

/// Arguments of node with which it does not run a file as a server would want it.
const WITHOUT_FILE: &[&str] = &[
    "-e",
    "--eval",
    "-p",
    "--print",
    "-i",
    "--interactive",
    "-c",
    "--check",
    "--test",
    "--run",
    "--watch",
    "-",
];

/// Reads a line.
pub(super) fn read(line: &str) -> Result<Line, Unfit> {
    let tokens = shell::tokens(line).ok_or(Unfit::Open)?;
    let mut parts: Vec<Vec<Word>> = vec![Vec::new()];
    let mut first = None;
    for token in tokens {
        match token {
            Token::Word(word) => parts.last_mut().into_iter().for_each(|part| part.push(word.clone())),
            Token::Operator(operator) => {
                first.get_or_insert(operator);
                parts.push(Vec::new());
            }
        }
    }
    let last = parts.pop().unwrap_or_default();
    match first {
        Some(operator) => Err(Unfit::Several { operator, last: command(&last).ok().map(Box::new) }),
        None => command(&last),
    }
}

fn command(words: &[Word]) -> Result<Line, Unfit> {
    if let Some(word) = words.iter().find(|word| word.dynamic.is_some()) {
        return Err(Unfit::Shell(word.text.clone()));
    }
    let mut env = Vec::new();
    let mut words = words.iter().map(|word| word.text.as_str());
    let program = loop {
        let word = words.next().ok_or(Unfit::Empty)?;
        match shell::assignment(word) {
            Some((name, value)) => env.push((name.to_owned(), value.to_owned())),
            // They set variables as a shell does, and `exec` leaves no shell behind, which there is none of anyway.
            None if matches!(word, "cross-env" | "env" | "exec") => {}
            None => break word,
        }
    };
    let rest: Vec<String> = words.map(str::to_owned).collect();
    let name = program.rsplit('/').next().unwrap_or(program);
    let runs = if MANAGERS.contains(&name) {
        Runs::Manager { tool: name.to_owned(), args: rest }
    } else if Runtime::named(name) == Runtime::Node {
        node(program, rest)?
    } else {
        return Err(Unfit::Program { name: program.to_owned(), args: rest });
    };
    Ok(Line { env, runs })
}

fn node(node: &str, words: Vec<String>) -> Result<Runs, Unfit> {
    let mut flags = Vec::new();
    let mut words = words.into_iter();
    let file = loop {
        let word = words.next().ok_or(Unfit::NoFile(None))?;
        if word == "--" {
            break words.next().ok_or(Unfit::NoFile(None))?;
        }
        if !word.starts_with('-') {
            break word;
        }
        let name = word.split('=').next().unwrap_or_default();
        if WITHOUT_FILE.contains(&name) {
            return Err(Unfit::NoFile(Some(word)));
        }
        let value = WITH_VALUE.contains(&word.as_str()).then(|| words.next()).flatten();
        flags.push(word);
        flags.extend(value);
    };
    Ok(Runs::Node { node: node.to_owned(), flags, file, args: words.collect() })
}

impl Line {
    /// The line as keys of an ecosystem file.
    pub(super) fn as_keys(&self) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let words = |words: &[String]| text(&shell::join(words.iter().map(String::as_str)));
        let mut keys = Vec::new();
        let mut add = |key: &str, value: String| keys.push(format!("\"{key}\": {value}"));
        match &self.runs {
            Runs::Node { node, flags, file, args } => {
                add("script", text(file));
                if node.contains('/') {
                    add("interpreter", text(node));
                }
                if !flags.is_empty() {
                    add("node_args", words(flags));
                }
                if !args.is_empty() {
                    add("args", words(args));
                }
            }
            Runs::Manager { tool, args } => {
                add("script", text(tool));
                add("args", words(args));
            }
        }
        if !self.env.is_empty() {
            let each = self.env.iter().map(|(name, value)| format!("{}: {}", text(name), text(value)));
            add("env", format!("{{ {} }}", each.collect::<Vec<_>>().join(", ")));
        }
        keys.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn lines_that_run_node() {
        for (line, node, flags, file, args, env) in [
            ("node server.js", "node", &[][..], "server.js", &[][..], &[][..]),
            (
                "NODE_ENV=production node --max-old-space-size=512 -r dotenv/config dist/main --port 80",
                "node",
                &["--max-old-space-size=512", "-r", "dotenv/config"],
                "dist/main",
                &["--port", "80"],
                &[("NODE_ENV", "production")],
            ),
            (
                "cross-env A=1 B='x y' /opt/node/bin/node -- .",
                "/opt/node/bin/node",
                &[],
                ".",
                &[],
                &[("A", "1"), ("B", "x y")],
            ),
            ("exec env A=1 node a -r", "node", &[], "a", &["-r"], &[("A", "1")]),
            ("node --import=tsx a.ts", "node", &["--import=tsx"], "a.ts", &[], &[]),
        ] {
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let runs = Runs::Node {
                node: node.to_owned(),
                flags: strings(flags),
                file: file.to_owned(),
                args: strings(args),
            };
            assert_eq!(read(line), Ok(Line { env: env.collect(), runs }), "{line}");
        }
    }

    #[test]
    fn lines_that_run_a_manager() {
        let line = read("A=1 npm run -s x -- --y").unwrap();
        assert_eq!(
            line.runs,
            Runs::Manager { tool: "npm".to_owned(), args: strings(&["run", "-s", "x", "--", "--y"]) }
        );
        assert_eq!(line.env, [("A".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn lines_that_cannot_be_resolved() {
        let program =
            |name: &str, args: &[&str]| Unfit::Program { name: name.to_owned(), args: strings(args) };
        for (line, unfit) in [
            ("", Unfit::Empty),
            ("A=1", Unfit::Empty),
            ("node 'a", Unfit::Open),
            ("node a.js --port $PORT", Unfit::Shell("$PORT".to_owned())),
            ("nodemon a.js", program("nodemon", &["a.js"])),
            ("ts-node -T a.ts", program("ts-node", &["-T", "a.ts"])),
            ("cross-env-shell A=1 node a.js", program("cross-env-shell", &["A=1", "node", "a.js"])),
            ("node", Unfit::NoFile(None)),
            ("node --watch a.js", Unfit::NoFile(Some("--watch".to_owned()))),
            ("node -e 'x()'", Unfit::NoFile(Some("-e".to_owned()))),
        ] {
            assert_eq!(read(line), Err(unfit), "{line}");
        }
        let Err(Unfit::Several { operator, last: Some(last) }) =
            read("npm run build && A=1 node -r x 'a b.js' y")
        else {
            panic!()
        };
        assert_eq!(operator, "&&");
        assert_eq!(
            last.as_keys(),
            r#""script": "a b.js", "node_args": "-r x", "args": "y", "env": { "A": "1" }"#
        );
        let Err(Unfit::Several { last: None, .. }) = read("node a.js | pino-pretty") else { panic!() };
    }
}
