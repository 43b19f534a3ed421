//! Ecosystem files that node evaluates. Without a node on this machine there is nothing to try here but its absence.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::evaluate::evaluate;
use super::super::*;
use super::Sandbox;

/// A sandbox with this machine's node, if it has one.
fn sandbox() -> Option<Sandbox> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(node) =
        std::env::split_paths(&path).map(|folder| folder.join("node")).find(|node| node.is_file())
    else {
        println!("skipped: there is no node on this machine");
        return None;
    };
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.dir.join("path/node")).unwrap();
    std::os::unix::fs::symlink(node, sandbox.dir.join("path/node")).unwrap();
    sandbox.write("shell/app.js", "", 0o644);
    Some(sandbox)
}

fn load_file(sandbox: &Sandbox, name: &str, text: &str) -> Result<Ecosystem, Invalid> {
    sandbox.write(&format!("shell/{name}"), text, 0o644);
    load(Path::new(name), &sandbox.context, &Flags::default())
}

fn says(sandbox: &Sandbox, name: &str, text: &str) -> String {
    let found = match load_file(sandbox, name, text) {
        Ok(ecosystem) => ecosystem.warnings,
        Err(invalid) => invalid.errors,
    };
    let each: Vec<_> = found.iter().map(ToString::to_string).collect();
    each.join("\n").replace(&sandbox.dir.display().to_string(), "DIR")
}

#[test]
fn all_three_kinds_of_module() {
    let Some(sandbox) = sandbox() else { return };
    let app = "{ name: 'web', script: './app.js', instances: 2, env: { A: 1, B: undefined, C: () => 1, D: { e: [1] } } }";
    for (name, text) in [
        ("ecosystem.config.js", format!("module.exports = {{ apps: [{app}] }};")),
        ("a.config.cjs", format!("const apps = [{app}];\nmodule.exports = {{ apps }};")),
        ("a.config.mjs", format!("const apps = await Promise.resolve([{app}]);\nexport default {{ apps }};")),
        ("b.config.mjs", format!("export const apps = [{app}];")),
        ("c.config.js", format!("module.exports = Promise.resolve({{ apps: [{app}] }});")),
        ("d.config.js", format!("exports.__esModule = true; exports.default = {{ apps: [{app}] }};")),
    ] {
        let ecosystem = load_file(&sandbox, name, &text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(ecosystem.warnings, [], "{name}");
        let app = &ecosystem.apps[0];
        assert_eq!((app.name.as_str(), app.instances, app.kind), ("web", 2, Kind::Node), "{name}");
        assert_eq!((app.env["A"].as_str(), app.env["D"].as_str()), ("1", "{\"e\":[1]}"));
        assert!(!app.env.contains_key("B") && !app.env.contains_key("C"));
        assert_eq!(app.file, Some(sandbox.context.cwd.join(name)));
    }
}

/// As under pm2: the shell's folder and variables, and the command line.
#[test]
fn what_a_file_finds_around_it() {
    let Some(mut sandbox) = sandbox() else { return };
    sandbox.context.command = ["sundew", "start", "x", "--env", "blue"].map(str::to_owned).to_vec();
    let text = "console.log('on standard output'); process.stdout.write('+{}\\n');
        const { env } = require('./more');
        module.exports = { script: './app.js', name: process.argv[process.argv.indexOf('--env') + 1],
                           args: [process.cwd(), __filename, process.env.SHELL_ONLY, String(process.env.USER)], env };
        setInterval(() => {}, 1000);";
    sandbox.write("beside/more.js", "exports.env = { FROM: 'more' };", 0o644);
    sandbox.write("beside/ecosystem.config.js", text, 0o644);
    let ecosystem =
        load(Path::new("../beside/ecosystem.config.js"), &sandbox.context, &Flags::default()).unwrap();
    let app = &ecosystem.apps[0];
    assert_eq!((app.name.as_str(), app.env["FROM"].as_str()), ("blue", "more"));
    let [cwd, file, shell, user] = app.args.as_slice() else { panic!("{:?}", app.args) };
    let same = |path: &str, other: PathBuf| {
        assert_eq!(Path::new(path).canonicalize().unwrap(), other.canonicalize().unwrap())
    };
    same(cwd, sandbox.dir.join("shell"));
    same(file, sandbox.dir.join("beside/ecosystem.config.js"));
    assert_eq!((shell.as_str(), user.as_str()), ("shell", "undefined"));
}

#[test]
fn findings_name_the_file_and_the_way_to_the_key() {
    let Some(sandbox) = sandbox() else { return };
    assert_eq!(
        says(
            &sandbox,
            "e.config.js",
            "module.exports = { apps: [{ script: './app.js' }, { name: 'x', script: './none.js', port: -1, sundew: { limits: { headBytes: 1 } } }] }"
        ),
        "`port` must be a whole number from 1 to 65535, not -1
 --> e.config.js: apps[1].port
`sundew.limits.headBytes` must be from 1024 to 65536 (bytes), not 1
 --> e.config.js: apps[1].sundew.limits.headBytes
app `x`: there is no program `./none.js`
 --> e.config.js: apps[1].script
  = looked for DIR/shell/none.js
  = help: a relative `script` is looked up from the app's `cwd`, then from the folder of its file"
    );
    assert_eq!(
        says(&sandbox, "e.config.js", "module.exports = [{ script: './app.js', instnaces: 2 }]"),
        "`instnaces` has no effect: there is no such key\n --> e.config.js: [0].instnaces\n  = help: did you mean `instances`?"
    );
    let twice = says(
        &sandbox,
        "e.config.js",
        "module.exports = { apps: [{ script: './app.js' }, { script: './app.js' }] }",
    );
    assert!(
        twice.contains(" --> e.config.js: apps[1].script\n  = the first one is apps[0].script\n"),
        "{twice}"
    );
    assert_eq!(
        says(&sandbox, "e.config.js", ""),
        "there is no `apps` in this file\n --> e.config.js\n  = help: the smallest file is { \"apps\": [ { \"name\": \"web\", \"script\": \"./server\", \"instances\": 4 } ] }"
    );
}

#[test]
fn errors_have_their_place_in_the_file() {
    let Some(sandbox) = sandbox() else { return };
    assert_eq!(
        says(&sandbox, "e.config.js", "const x = 1;\nmodule.exports = { apps: [nope.x] };\n"),
        "cannot evaluate e.config.js: ReferenceError: nope is not defined
 --> e.config.js:2:27
  |
2 | module.exports = { apps: [nope.x] };
  |                           ^"
    );
    for (name, text, place) in [
        ("a.config.js", "module.exports = {\n  apps: [ foo bar ]\n};\n", " --> a.config.js:2:"),
        ("a.config.mjs", "export default {\n  apps: [ foo bar ]\n};\n", " --> a.config.mjs:2:"),
        (
            "b.config.mjs",
            "const x = 1;\nconst y = { a: nope() };\nexport default y;\n",
            " --> b.config.mjs:2:",
        ),
        ("c.config.js", "\nrequire('./broken.js');\n", " --> DIR/shell/broken.js:3:"),
        ("d.config.js", "\nrequire('./nowhere.js');\n", " --> d.config.js:2:"),
    ] {
        sandbox.write("shell/broken.js", "\n\nthrow new TypeError('in another file');\n", 0o644);
        let said = says(&sandbox, name, text);
        assert!(said.starts_with(&format!("cannot evaluate {name}: ")), "{said}");
        assert!(said.contains(place), "{name}: {said}");
    }
    for (text, says_) in [
        ("throw 'only text'", "cannot evaluate x.config.js: it threw only text"),
        (
            "module.exports = () => ({})",
            "cannot evaluate x.config.js: it exports a function\n  = help: export what",
        ),
        (
            "const a = {}; a.a = a; module.exports = a",
            "cannot be written as JSON: Converting circular structure to JSON",
        ),
        ("process.exit(3)", "node ended before x.config.js was evaluated (exit status: 3)"),
        ("module.exports = new Promise(() => {})", "node ended before x.config.js was evaluated"),
        ("module.exports = 'x'.repeat(1 << 21)", "exports more than 1048576 bytes of JSON"),
        ("module.exports = null", "the file must hold an object with `apps`, not null"),
    ] {
        let said = says(&sandbox, "x.config.js", text);
        assert!(said.contains(says_), "{text}: {said}");
    }
}

#[test]
fn what_does_not_end_is_ended() {
    let Some(sandbox) = sandbox() else { return };
    sandbox.write("shell/slow.config.js", "for (;;) {}", 0o644);
    let error = evaluate(Path::new("slow.config.js"), &sandbox.context, 1000, Duration::from_millis(500))
        .unwrap_err();
    assert_eq!(error.message, "slow.config.js was not evaluated within 0.5 s");
}

#[test]
fn without_node() {
    let sandbox = Sandbox::new();
    std::fs::remove_file(sandbox.dir.join("path/node")).unwrap();
    assert_eq!(
        says(&sandbox, "e.config.js", "module.exports = {}"),
        "e.config.js is JavaScript, and there is no `node` to evaluate it
  = looked for it in the folders of PATH
  = help: install Node.js, or write the file as JSON: every key keeps its name"
    );
    sandbox.write("app.js", "", 0o644);
    let said = sandbox.says("[{ script: '../app.js', instances: 2 }]");
    assert!(said.contains("there is no interpreter `node`") && said.contains("help: install"), "{said}");
}
