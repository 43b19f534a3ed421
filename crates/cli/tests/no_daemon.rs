//! What the command answers without a daemon: bad input, commands on an empty list, exit codes.

mod common;

use common::Sandbox;

#[test]
fn commands_that_only_look_find_nothing() {
    let sandbox = Sandbox::new();
    let list = sandbox.sundew(&["list"]);
    assert_eq!((list.code, list.out.split_whitespace().next()), (0, Some("id")), "{list:?}");
    assert_eq!(sandbox.sundew(&["jlist"]).out, "[]\n");
    assert_eq!(sandbox.sundew(&["kill"]).code, 0);
    assert!(!sandbox.dir.join("home").exists(), "looking makes no folder");
}

#[test]
fn commands_that_need_a_process_fail() {
    let sandbox = Sandbox::new();
    for words in [
        &["ping"][..],
        &["stop", "all"],
        &["restart", "web"],
        &["reload", "0"],
        &["delete", "web"],
        &["describe", "web"],
        &["scale", "web", "+1"],
        &["logs", "--nostream"],
    ] {
        let ran = sandbox.sundew(words);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.starts_with("error: no daemon is running in "), "{words:?}: {}", ran.err);
        assert_eq!(ran.out, "");
    }
}

#[test]
fn usage_errors_have_pm2s_exit_code() {
    let sandbox = Sandbox::new();
    for (words, says) in [
        (&["relaod", "web"][..], "reload"),
        (&["reload", "web", "--wiat"], "--wait"),
        (&["scale", "web", "lots"], "\"lots\" is not a number of instances"),
        (&["stop"], "required"),
        (&["save"], "pm2's command `save` is not built yet"),
        (&[], "Usage"),
        (&["reload", "web", "--env", "production"], "belong to an ecosystem file"),
        (&["start", "--only", "x", "./web"], "--only chooses apps of an ecosystem file"),
    ] {
        let ran = sandbox.sundew(words);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(says), "{words:?}: {}", ran.err);
    }
    assert_eq!(sandbox.sundew(&["--version"]).code, 0);
    assert_eq!(sandbox.sundew(&["--help"]).code, 0);
}

/// Each is refused before a daemon is started for it.
#[test]
fn bad_files_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "broken.json",
        "{ \"apps\": [\n  { \"name\": \"bad\",\n    \"script\" \"./x\" }\n] }\n",
        0o644,
    );
    sandbox.write("none.json", "{ \"aps\": [] }", 0o644);
    sandbox.write("missing.json", "{ \"apps\": [{ \"name\": \"bad\", \"script\": \"./no-such\" }] }", 0o644);
    sandbox.write("plain.txt", "hello", 0o644);
    sandbox.write("plain.json", "{ \"apps\": [{ \"script\": \"./plain.txt\" }] }", 0o644);
    sandbox.write("many.json", "{ \"apps\": [{ \"script\": \"/bin/sh\", \"instances\": \"many\" }] }", 0o644);
    sandbox.write("a.yml", "apps: []", 0o644);
    for (file, says) in [
        ("nowhere.json", "error: there is no such file: nowhere.json\n"),
        ("broken.json", " --> broken.json:3:14\n"),
        ("none.json", "did you mean `apps`?"),
        ("missing.json", "error: app `bad`: there is no program `./no-such`\n --> missing.json:1:"),
        ("plain.json", "plain.txt is not executable\n"),
        (
            "many.json",
            "error: `instances` must be a whole number, or \"max\" for one per CPU, not \"many\"\n",
        ),
        ("a.yml", "YAML are not supported yet"),
        (".", "is a directory"),
    ] {
        for command in ["start", "run"] {
            let ran = sandbox.sundew(&[command, file]);
            assert_eq!(ran.code, 1, "{command} {file}: {ran:?}");
            assert!(ran.err.starts_with("error: "), "{}", ran.err);
            assert!(ran.err.contains(says), "{command} {file}: {}", ran.err);
            assert!(!ran.err.contains('\x1b'), "plain where there is no terminal");
        }
    }
    assert!(!sandbox.dir.join("home").exists(), "no daemon was started");
}

#[test]
fn nothing_to_start() {
    let sandbox = Sandbox::new();
    let ran = sandbox.sundew(&["start"]);
    assert!(
        ran.code == 1 && ran.err.contains("there is no ecosystem.config.js and no pm2.json here"),
        "{ran:?}"
    );
    let ran = sandbox.sundew(&["start", "./nothing"]);
    assert!(ran.code == 1 && ran.err.contains("there is no program `./nothing`"), "{ran:?}");
    let ran = sandbox.sundew(&["start", "/bin/sh", "-i", "lots"]);
    assert!(ran.code == 1 && ran.err.contains("`--instances` must be a whole number"), "{ran:?}");
}

/// What a file prints is for the user and not for who reads the command's output.
#[test]
fn a_javascript_file_is_evaluated_before_anything_is_started() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join("node").is_file()) {
        println!("skipped: there is no node on this machine");
        return;
    }
    let sandbox = Sandbox::new();
    let text = "console.log('from the file');\nmodule.exports = { apps: [{ script: './none', port: 0 }] };\n";
    sandbox.write("ecosystem.config.js", text, 0o644);
    sandbox.write("pm2.json", "{", 0o644);
    let ran = sandbox.sundew(&["start"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("warning: ecosystem.config.js is taken, and not pm2.json\n"), "{ran:?}");
    assert!(ran.err.contains("from the file\n"), "{ran:?}");
    assert!(ran.err.contains(" --> ecosystem.config.js: apps[0].port\n"), "{ran:?}");
    sandbox.write("broken.config.mjs", "const a = 1;\nconst b = { c: d };\nexport default b;\n", 0o644);
    let ran = sandbox.sundew(&["run", "broken.config.mjs"]);
    assert!(
        ran.code == 1 && ran.err.contains("ReferenceError: d is not defined\n --> broken.config.mjs:2:16\n"),
        "{ran:?}"
    );
    sandbox.write("npm.json", "{ apps: [{ script: 'npm start', instances: 2 }] }", 0o644);
    sandbox.write("package.json", "{ \"scripts\": { \"start\": \"nodemon app.js\" } }", 0o644);
    let ran = sandbox.sundew(&["start", "npm.json"]);
    assert!(ran.code == 1 && ran.err.contains("the script `start` runs `nodemon`, not node"), "{ran:?}");
    assert!(!sandbox.dir.join("home").exists(), "no daemon was started");
}

#[test]
fn a_home_that_cannot_be_one() {
    let mut sandbox = Sandbox::new();
    sandbox.home = format!("/{}", "x".repeat(120));
    let ran = sandbox.sundew(&["list"]);
    assert!(ran.code == 1 && ran.err.contains("SUNDEW_HOME"), "{ran:?}");
}
