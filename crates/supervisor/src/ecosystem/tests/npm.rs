//! Package managers' scripts, resolved to what node runs.

use super::super::*;
use super::Sandbox;

const PACKAGE: &str = r#"{
  "name": "shop", "version": "1.2.3", "config": { "port": 80 },
  "scripts": {
    "prestart": "npm run build", "poststart": "echo done",
    "start": "npm run start:prod -- --one",
    "start:prod": "cross-env NODE_ENV=production A='b c' node --max-old-space-size=512 dist/main",
    "build": "tsc",
    "chain": "npm run build && A=1 node -r ./x dist/main.js --two",
    "dev": "nodemon dist/main.js",
    "next": "next start -p 3000",
    "ts": "ts-node src/main.ts",
    "shell": "node dist/main.js --port $PORT",
    "watch": "node --watch dist/main.js",
    "loop": "npm run loop",
    "gone": "node dist/gone.js",
    "own": "node own.js"
  }
}"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("shop/package.json", PACKAGE, 0o644);
    sandbox.write("shop/dist/main.js", "", 0o644);
    sandbox.write("shop/own.js", "", 0o644);
    sandbox.write("shop/node_modules/.bin/next", "#!/usr/bin/env node\n", 0o755);
    sandbox.write("path/npm", "#!/usr/bin/env node\n", 0o755);
    sandbox
}

/// The app of these keys, with warnings.
fn load(sandbox: &Sandbox, keys: &str) -> (AppConfig, Vec<String>) {
    let ecosystem =
        sandbox.load(&format!("[{{ {keys} }}]")).unwrap_or_else(|error| panic!("{keys}: {error}"));
    let warnings = ecosystem.warnings.iter().map(|warning| warning.message.clone()).collect();
    (ecosystem.apps.into_iter().next().unwrap(), warnings)
}

#[test]
fn in_cluster_mode_node_is_started_directly() {
    let sandbox = sandbox();
    let node = sandbox.dir.join("path/node").display().to_string();
    for keys in [
        "script: 'npm', args: 'run start:prod', cwd: '../shop'",
        "script: 'npm', args: ['start:prod'], cwd: '../shop'",
        "script: 'npm run start:prod', cwd: '../shop'",
        "script: 'yarn', args: 'start:prod', cwd: '../shop', interpreter: 'none'",
        "script: 'pnpm --dir shop start:prod', cwd: '..'",
        "script: 'npm --prefix ../shop run start:prod'",
    ] {
        for more in ["instances: 2", "exec_mode: 'cluster'", "sundew: { kind: 'node' }"] {
            let (app, warnings) = load(&sandbox, &format!("{keys}, {more}"));
            assert_eq!(warnings, [""; 0], "{keys}");
            assert_eq!((app.kind, app.exec_mode), (Kind::Node, ExecMode::Cluster), "{keys}, {more}");
            assert_eq!(app.interpreter, [&node, "--max-old-space-size=512"], "{keys}");
            assert_eq!(app.script, sandbox.dir.join("shop/dist/main.js"));
            assert_eq!(app.cwd, sandbox.dir.join("shop"), "{keys}");
            assert_eq!(app.args, [""; 0]);
            assert_eq!((app.env["NODE_ENV"].as_str(), app.env["A"].as_str()), ("production", "b c"));
        }
    }
}

#[test]
fn scripts_that_lead_to_scripts() {
    let sandbox = sandbox();
    let keys = "name: 'x', script: 'npm', args: 'start -- --three', cwd: '../shop', instances: 2, node_args: '--trace-gc', \
                env: { NODE_ENV: 'file', B: 1 }";
    let (app, warnings) = load(&sandbox, keys);
    assert_eq!(app.args, ["--one", "--three"]);
    assert_eq!(app.interpreter[1..], ["--trace-gc", "--max-old-space-size=512"]);
    assert_eq!(
        warnings,
        [
            "app `x`: the script `prestart` is not run before `start`: `npm run build`",
            "app `x`: the script `poststart` is not run after `start`: `echo done`",
        ]
    );
    let value = |name: &str| app.env[name].as_str();
    assert_eq!((value("NODE_ENV"), value("B"), value("npm_package_name")), ("production", "1", "shop"));
    assert_eq!((value("npm_package_version"), value("npm_package_config_port")), ("1.2.3", "80"));
    assert_eq!(value("npm_lifecycle_event"), "start:prod");
    let bin = sandbox.dir.join("shop/node_modules/.bin").display().to_string();
    assert_eq!(value("PATH"), format!("{bin}:{}", sandbox.dir.join("path").display()));
}

/// The package's own node goes before the shell's.
#[test]
fn where_node_and_the_package_are_found() {
    let sandbox = sandbox();
    sandbox.write("shop/node_modules/.bin/node", "#!/bin/sh\n", 0o755);
    let (app, _) = load(&sandbox, "script: 'npm run own', cwd: '../shop', instances: 2");
    assert_eq!(app.interpreter, [sandbox.dir.join("shop/node_modules/.bin/node").display().to_string()]);
    let (app, _) = load(&sandbox, "script: 'npm run own', cwd: '../shop', instances: 2, interpreter: 'node'");
    assert_eq!(app.interpreter, [sandbox.dir.join("shop/node_modules/.bin/node").display().to_string()]);
    sandbox.write("package.json", r#"{ "scripts": {} }"#, 0o644);
    sandbox.write("server.js", "", 0o644);
    let (app, _) = load(&sandbox, "script: 'npm start', instances: 2");
    assert_eq!(app.script, sandbox.dir.join("server.js"), "beside the file, and npm's own default");
    let (app, _) = load(&sandbox, "script: 'node own --x', cwd: '../shop', args: ['y']");
    assert_eq!(
        (app.script, app.args),
        (sandbox.dir.join("shop/own.js"), vec!["--x".to_owned(), "y".to_owned()])
    );
    assert_eq!((app.kind, app.interpreter.len()), (Kind::None, 1));
}

#[test]
fn in_fork_mode_npm_is_the_program() {
    let sandbox = sandbox();
    let node = sandbox.dir.join("path/node").display().to_string();
    for keys in [
        "script: 'npm', args: 'start'",
        "script: 'npm start'",
        "script: 'npm start', exec_mode: 'fork', instances: 2",
    ] {
        let (app, _) = load(&sandbox, &format!("{keys}, cwd: '../shop'"));
        assert_eq!((app.kind, app.exec_mode), (Kind::None, ExecMode::Fork), "{keys}");
        assert_eq!((app.script, app.args), (sandbox.dir.join("path/npm"), vec!["start".to_owned()]));
        assert_eq!(app.interpreter, std::slice::from_ref(&node));
    }
    let (app, _) = load(
        &sandbox,
        "script: 'npm run next', cwd: '../shop', instances: 2, port: 80, sundew: { kind: 'port' }",
    );
    assert_eq!((app.kind, app.script), (Kind::Port, sandbox.dir.join("path/npm")));
}

#[test]
fn what_is_not_resolved() {
    let sandbox = sandbox();
    assert_eq!(
        sandbox.says("[{ name: 'web', script: 'npm',\n args: 'run chain', cwd: '../shop', instances: 2 }]"),
        "app `web`: the script `chain` is more than one command (`&&`): `npm run build && A=1 node -r ./x dist/main.js --two`
 --> ../pm2.json:1:25
  |
1 | [{ name: 'web', script: 'npm',
  |                         ^^^^^
  = from DIR/shop/package.json
  = in fork mode a package manager runs as it is
  = help: write what runs last, \"script\": \"dist/main.js\", \"node_args\": \"-r ./x\", \"args\": \"--two\", \"env\": { \"A\": \"1\" }, and run the rest before `sundew start`"
    );
    for (args, says, help) in [
        ("run dev", "the script `dev` runs `nodemon`, not node", "\"script\": \"dist/main.js\": nodemon"),
        (
            "run next",
            "runs `next`, not node: `next start -p 3000`",
            "\"script\": \"node_modules/.bin/next\", \"args\": \"start -p 3000\" if it listens in its own process; else a `port`",
        ),
        ("run ts", "runs `ts-node`, not node", "\"node_args\": \"-r ts-node/register\""),
        ("run shell", "has `$PORT`, which a shell would work out", "write the file in `script`"),
        ("run watch", "runs node with `--watch`", "write the file alone in `script`"),
        ("run loop", "the script `loop` of DIR/shop/package.json leads to itself", ""),
        ("run gone", "runs `dist/gone.js`, and there is no such file", "build it first: npm run build"),
        ("run strat", "there is no script `strat` in DIR/shop/package.json", "did you mean `start`?"),
        ("run zzzzzzzz", "there is no script `zzzzzzzz`", ""),
        ("exec x", "`npm exec` runs no script of package.json", "\"args\": \"start\""),
    ] {
        let said = sandbox.says(&format!(
            "[{{ name: 'web', script: 'npm', args: '{args}', cwd: '../shop', instances: 2 }}]"
        ));
        assert!(said.starts_with("app `web`: ") && said.contains(says), "{args}: {said}");
        assert!(said.contains(help) && said.contains(" --> ../pm2.json:1:25\n"), "{args}: {said}");
    }
    let said = sandbox.says("[{ script: 'npm start', instances: 2 }]");
    assert!(said.contains("there is no package.json for npm\n"), "{said}");
    sandbox.write("shop/package.json", "{ \"scripts\": ", 0o644);
    let said = sandbox.says("[{ script: 'npm start', cwd: '../shop', instances: 2 }]");
    assert!(said.contains("shop/package.json is not valid JSON: EOF"), "{said}");
}
