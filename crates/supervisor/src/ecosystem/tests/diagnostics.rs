//! What is said, word for word.

use std::path::Path;

use super::super::*;
use super::Sandbox;

#[track_caller]
fn says(text: &str, expected: &str) {
    assert_eq!(Sandbox::new().says(text), expected);
}

#[test]
fn broken_syntax_with_line_and_column() {
    says(
        "{ \"apps\": [\n  { \"name\": \"bad\",\n    \"script\" \"./x\" }\n] }\n",
        "this is not valid JSON: expected colon after the string or word in object property
 --> ../pm2.json:3:14
  |
3 |     \"script\" \"./x\" }
  |              ^^^^^
  = help: comments, trailing commas, single quotes and unquoted keys are allowed; JavaScript expressions are not",
    );
    for (text, place) in [
        ("", "the file is empty"),
        ("{", "pm2.json:1:"),
        ("{ apps: [", "pm2.json:1:"),
        ("{ apps: [\n  require('x')\n] }", "pm2.json:2:"),
        ("{ \"a\": 1 \"b\": 2 }", "pm2.json:1:"),
        ("{} {}", "pm2.json:1:"),
    ] {
        let said = Sandbox::new().says(text);
        assert!(said.contains(place), "{text}: {said}");
        assert!(said.contains("help"), "{text}: {said}");
    }
}

#[test]
fn hostile_nesting_is_refused() {
    let said = Sandbox::new().says(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)));
    assert!(said.contains("nesting"), "{said}");
}

#[test]
fn no_apps() {
    says(
        "{ \"aps\": [] }",
        "there is no `apps` in this file, but `aps`
 --> ../pm2.json:1:3
  |
1 | { \"aps\": [] }
  |   ^^^^^
  = help: did you mean `apps`?",
    );
    for (text, message) in [
        ("{}", "there is no `apps` in this file"),
        ("{ apps: [] }", "there are no apps in this file"),
        ("[]", "there are no apps in this file"),
        ("7", "the file must hold an object with `apps`, not 7"),
        ("{ apps: 'x' }", "`apps` must be a list of apps, not \"x\""),
        ("{ apps: ['x'] }", "an app must be an object, not \"x\""),
    ] {
        let said = Sandbox::new().says(text);
        assert!(said.starts_with(message), "{text}: {said}");
        assert!(said.contains("the smallest file is"), "{text}: {said}");
    }
}

#[test]
fn unknown_keys_and_keys_not_built() {
    says(
        "[{ script: './bin',\n   instnaces: 4,\n   max_memory_restart: '300M', watch: false, cron: '* * * * *', vizion: true,\n   sundew: { drainTimout: 5, limits: { headByte: 1 }, letGo: { x: 1 } } }]",
        "`instnaces` has no effect: there is no such key
 --> ../pm2.json:2:4
  |
2 |    instnaces: 4,
  |    ^^^^^^^^^
  = help: did you mean `instances`?
`max_memory_restart` has no effect: this pm2 key is not built yet
 --> ../pm2.json:3:4
  |
3 |    max_memory_restart: '300M', watch: false, cron: '* * * * *', vizion: true,
  |    ^^^^^^^^^^^^^^^^^^
`cron` has no effect: this pm2 key is not built yet
 --> ../pm2.json:3:46
  |
3 |    max_memory_restart: '300M', watch: false, cron: '* * * * *', vizion: true,
  |                                              ^^^^
`vizion` has no effect: Sundew does not look at git
 --> ../pm2.json:3:65
  |
3 |    max_memory_restart: '300M', watch: false, cron: '* * * * *', vizion: true,
  |                                                                 ^^^^^^
`drainTimout` has no effect: there is no such key
 --> ../pm2.json:4:14
  |
4 |    sundew: { drainTimout: 5, limits: { headByte: 1 }, letGo: { x: 1 } } }]
  |              ^^^^^^^^^^^
  = help: did you mean `drainTimeout`?
`headByte` has no effect: there is no such key
 --> ../pm2.json:4:40
  |
4 |    sundew: { drainTimout: 5, limits: { headByte: 1 }, letGo: { x: 1 } } }]
  |                                        ^^^^^^^^
  = help: did you mean `headBytes`?
`x` has no effect: there is no such key
 --> ../pm2.json:4:64
  |
4 |    sundew: { drainTimout: 5, limits: { headByte: 1 }, letGo: { x: 1 } } }]
  |                                                                ^",
    );
}

#[test]
fn other_parts_and_doubled_keys_are_warned_of() {
    let said = Sandbox::new().says(
        "{ apps: [{ script: './bin', merge_logs: true, combine_logs: false }], deploy: {}, stattic: 1 }",
    );
    let messages: Vec<_> = said.lines().filter(|line| line.starts_with('`')).collect();
    assert_eq!(
        messages,
        [
            "`deploy` has no effect: this part of pm2 is not built",
            "`stattic` has no effect: there is no such key",
            "`combine_logs` and `merge_logs` are names of the same key: the last one counts",
        ]
    );
}

/// Each wrong value: the key, what it must be, what it is, and its place.
#[test]
fn wrong_values() {
    for (key, value, message) in [
        ("instances", "1.5", "`instances` must be a whole number, or \"max\" for one per CPU, not 1.5"),
        (
            "instances",
            "'many'",
            "`instances` must be a whole number, or \"max\" for one per CPU, not \"many\"",
        ),
        ("instances", "true", "`instances` must be a whole number, or \"max\" for one per CPU, not true"),
        ("instances", "100000", "`instances` is 100000, and an app can have at most 256"),
        (
            "args",
            "{ a: 1 }",
            "`args` must be a list of texts, or one text that is split at its spaces, not {\"a\":1}",
        ),
        ("args", "\"a 'b\"", "`args` must be text whose quotes are closed, not \"a 'b\""),
        ("name", "''", "`name` must be text that is not empty, not \"\""),
        ("name", "'all'", "\"all\" cannot be an app's name: it means all of them"),
        ("name", "[]", "`name` must be text, not []"),
        (
            "exec_mode",
            "'clustre'",
            "`exec_mode` must be one of \"cluster\", \"fork\", \"cluster_mode\", \"fork_mode\", not \"clustre\"",
        ),
        ("autorestart", "'yes'", "`autorestart` must be true or false, not \"yes\""),
        ("max_restarts", "-1", "`max_restarts` must be a whole number from 0 to 4294967295, not -1"),
        ("min_uptime", "50", "`min_uptime` must be at least 100 (milliseconds), not 50"),
        (
            "restartDelay",
            "'5 apples'",
            "`restartDelay` must be a time: milliseconds, or a number with ms, s, m or h such as \"5s\", not \"5 apples\"",
        ),
        ("kill_timeout", "'900h'", "`kill_timeout` must be at most 30 days, not \"900h\""),
        (
            "stop_exit_codes",
            "[0, 300]",
            "`stop_exit_codes` must be an exit code from 0 to 255 or a list of them, not 300",
        ),
        ("port", "70000", "`port` must be a whole number from 1 to 65535, not 70000"),
        ("env", "'A=1'", "`env` must be an object of variables such as { \"PORT\": 8080 }, not \"A=1\""),
        (
            "env_production",
            "[]",
            "`env_production` must be an object of variables such as { \"PORT\": 8080 }, not []",
        ),
        ("env", "{ 'A=B': 1 }", "\"A=B\" in `env` cannot be the name of a variable"),
        ("log_type", "'xml'", "`log_type` must be one of \"json\", \"raw\", not \"xml\""),
        ("cwd", "'./nowhere'", "`./nowhere` of `cwd` is not a directory"),
        ("sundew", "1", "`sundew` must be an object, not 1"),
        (
            "sundew",
            "{ affinity: 'cookie' }",
            "`sundew.affinity` must be one of \"sid\", \"ip\", \"none\", not \"cookie\"",
        ),
        (
            "sundew",
            "{ kind: 'nodejs' }",
            "`sundew.kind` must be one of \"node\", \"port\", \"native\", \"none\", not \"nodejs\"",
        ),
        ("sundew", "{ kind: 'port' }", "app `bin`: a worker of kind port needs a `port`"),
        ("sundew", "{ preload: 'no' }", "`sundew.preload` must be true or false, not \"no\""),
        (
            "sundew",
            "{ serialization: 'jsno' }",
            "`sundew.serialization` must be one of \"advanced\", \"json\", not \"jsno\"",
        ),
        ("sundew", "{ port: 0 }", "`sundew.port` must be a whole number from 1 to 65535, not 0"),
        ("sundew", "{ hungAfter: 5 }", "`sundew.hungAfter` must be at least 100 (milliseconds), not 5"),
        (
            "sundew",
            "{ hungRestart: 500 }",
            "`hungRestart` (500 ms) must be 0 or at least `hungAfter` (1000 ms)",
        ),
        (
            "sundew",
            "{ limits: { ipcQueueBytes: '1M' } }",
            "`ipcQueueBytes` (1048576) must be at least `ipcMessageBytes` (16777216): one message has to fit",
        ),
        (
            "sundew",
            "{ limits: { ipcHandlesInFlight: 100 } }",
            "`sundew.limits.ipcHandlesInFlight` must be a whole number from 1 to 64, not 100",
        ),
        (
            "sundew",
            "{ paths: 'ws' }",
            "\"ws\" in `sundew.paths` is not a path: it must start with / and have no query",
        ),
        (
            "sundew",
            "{ limits: { headBytes: '1M' } }",
            "`sundew.limits.headBytes` must be from 1024 to 65536 (bytes), not \"1M\"",
        ),
        (
            "sundew",
            "{ letGo: { batch: 0 } }",
            "`sundew.letGo.batch` must be a whole number from 1 to 4294967295, not 0",
        ),
    ] {
        let said = Sandbox::new().says(&format!("[{{ script: './bin',\n  {key}: {value} }}]"));
        assert_eq!(said.lines().next().unwrap(), message);
        assert!(said.contains(" --> ../pm2.json:2:"), "{said}");
    }
}

#[test]
fn all_errors_of_a_file_are_said_at_once() {
    let said = Sandbox::new()
        .says("[{ script: './bin', instances: 'x', port: 0 }, { script: './none' }, { name: 'n' }]");
    let errors = said.matches("-->").count();
    assert_eq!(errors, 4, "{said}");
}

#[test]
fn a_script_that_is_missing() {
    says(
        "{ apps: [{ name: 'web',\n  script: './target/release/server' }] }",
        "app `web`: there is no program `./target/release/server`
 --> ../pm2.json:2:11
  |
2 |   script: './target/release/server' }] }
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^
  = looked for DIR/shell/target/release/server
  = looked for DIR/target/release/server
  = help: build it first: cargo build --release",
    );
    let said = Sandbox::new().says("[{ script: 'server --port 80' }]");
    assert!(said.contains("its arguments go into `args`") && said.contains("folders of PATH"), "{said}");
    says(
        "[{ name: 'x' }]",
        "the app `x` has no `script`
 --> ../pm2.json:1:2
  |
1 | [{ name: 'x' }]
  |  ^^^^^^^^^^^^^
  = help: name the program to run: \"script\": \"./target/release/server\"",
    );
}

#[test]
fn a_script_that_cannot_run() {
    says(
        "[{ script: '../plain' }]",
        "app `plain`: DIR/plain is not executable
 --> ../pm2.json:1:12
  |
1 | [{ script: '../plain' }]
  |            ^^^^^^^^^^
  = help: chmod +x DIR/plain, or name the program that runs it in `interpreter`",
    );
    says(
        "[{ script: '../shell' }]",
        "app `shell`: `../shell` is a directory, not a program: DIR/shell
 --> ../pm2.json:1:12
  |
1 | [{ script: '../shell' }]
  |            ^^^^^^^^^^",
    );
    let said = Sandbox::new().says("[{ script: '../plain', interpreter: 'perl6' }]");
    assert!(
        said.starts_with("app `plain`: there is no interpreter `perl6`\n --> ../pm2.json:1:37\n"),
        "{said}"
    );
    let said = Sandbox::new().says("[{ script: '../plain', interpreter: 'node@20' }]");
    assert!(said.contains("nvm which 20"), "{said}");
}

#[test]
fn two_apps_of_one_name() {
    says(
        "[{ name: 'a', script: './bin' },\n { name: 'a', script: './bin' }]",
        "two apps have the name `a`
 --> ../pm2.json:2:10
  |
2 |  { name: 'a', script: './bin' }]
  |          ^^^
  = the first one is in line 1
  = help: give one of them another `name`, or one of them more `instances`",
    );
}

#[test]
fn an_environment_that_is_not_there() {
    let mut sandbox = Sandbox::new();
    sandbox.context.env_name = Some("prodution".to_owned());
    assert_eq!(
        sandbox.says("[{ script: './bin', env_production: {} }]"),
        "app `bin` has no `env_prodution`: --env prodution changes nothing for it
 --> ../pm2.json:1:12
  |
1 | [{ script: './bin', env_production: {} }]
  |            ^^^^^^^
  = help: did you mean --env production?"
    );
}

#[test]
fn files_that_are_none() {
    let sandbox = Sandbox::new();
    let says = |file: &str| {
        let invalid = load(Path::new(file), &sandbox.context, &Flags::default()).unwrap_err();
        invalid.to_string().replace(&sandbox.dir.display().to_string(), "DIR")
    };
    assert_eq!(says("no.json"), "there is no such file: no.json\n  = looked for DIR/shell/no.json");
    assert_eq!(says(".."), ".. is a directory: name the ecosystem file in it");
    assert_eq!(
        says("ecosystem.config.js"),
        "there is no such file: ecosystem.config.js\n  = looked for DIR/shell/ecosystem.config.js"
    );
    assert!(says("a.yml").starts_with("ecosystem files in YAML are not supported yet"));
    sandbox.write("big.json", &" ".repeat((1 << 20) + 1), 0o644);
    assert!(says("../big.json").contains("longer than 1048576 bytes"));
}

#[test]
fn a_flag_is_named_as_it_was_typed() {
    let sandbox = Sandbox::new();
    let error = sandbox.program("./bin", &[("instances", "--instances", "lots")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`--instances` must be a whole number, or \"max\" for one per CPU, not \"lots\""
    );
    let error = sandbox.program("./none", &[]).unwrap_err();
    assert!(
        error.to_string().starts_with("app `none`: there is no program `./none`\n  = looked for"),
        "{error}"
    );
}
