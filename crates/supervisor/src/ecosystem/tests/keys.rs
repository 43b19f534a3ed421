//! What each key comes to.

use super::super::*;
use super::Sandbox;

#[test]
fn defaults() {
    let sandbox = Sandbox::new();
    let app = sandbox.app("");
    let expected = AppConfig {
        name: "bin".to_owned(),
        namespace: "default".to_owned(),
        file: Some(sandbox.context.cwd.join("../pm2.json")),
        script: sandbox.dir.join("shell/bin"),
        interpreter: Vec::new(),
        args: Vec::new(),
        cwd: sandbox.dir.join("shell"),
        env: sandbox.context.env.clone(),
        exec_mode: ExecMode::Fork,
        kind: Kind::None,
        instances: 1,
        instance_var: "NODE_APP_INSTANCE".to_owned(),
        port: None,
        autorestart: true,
        max_restarts: 16,
        min_uptime: 1000,
        restart_delay: 0,
        exp_backoff_restart_delay: 0,
        stop_exit_codes: Vec::new(),
        kill_timeout: 1600,
        shutdown_with_message: false,
        wait_ready: false,
        listen_timeout: 10_000,
        treekill: true,
        out_file: LogFile::Default,
        error_file: LogFile::Default,
        merge_logs: true,
        log_date_format: None,
        log_format: LogFormat::Raw,
        sundew: SundewOptions::default(),
    };
    assert_eq!(app, expected);
    assert_eq!(app.sundew.drain_timeout, 30_000);
}

/// The file users bring, with its script named like a program.
#[test]
fn the_file_as_users_have_it() {
    let sandbox = Sandbox::new();
    let text = r#"{ "apps": [ { "name": "ws", "script": "./bin",
        "env": { "NODE_ENV": "development" }, "env_production": { "NODE_ENV": "production" },
        "instances": 4, "exec_mode": "cluster", "max_restarts": 3, "restart_delay": 5000,
        "log_date_format": "YYYY-MM-DD HH:mm Z", "combine_logs": true } ] }"#;
    let ecosystem = sandbox.load(text).unwrap();
    assert_eq!(ecosystem.warnings, []);
    let app = &ecosystem.apps[0];
    assert_eq!((app.name.as_str(), app.instances, app.exec_mode), ("ws", 4, ExecMode::Cluster));
    assert_eq!((app.max_restarts, app.restart_delay, app.merge_logs), (3, 5000, true));
    assert_eq!(app.log_date_format.as_deref(), Some("YYYY-MM-DD HH:mm Z"));
    assert_eq!((app.kind, app.env["NODE_ENV"].as_str()), (Kind::Native, "development"));
}

#[test]
fn the_syntax_pm2_evaluates() {
    let sandbox = Sandbox::new();
    let app = "{ /* a */ script: './bin', 'name': \"x\", max_restarts: 0x10, // b\n args: ['a', 1, true,], watch: null, }";
    for text in [
        format!("{{ apps: [{app}] }}"),
        format!("{{ \"pm2\": [{app}], }}"),
        format!("{{ apps: {app} }}"),
        format!("[{app}]"),
        app.to_owned(),
        format!("\u{feff}{app}"),
    ] {
        let ecosystem = sandbox.load(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(ecosystem.warnings, [], "{text}");
        assert_eq!((ecosystem.apps[0].name.as_str(), ecosystem.apps[0].max_restarts), ("x", 16));
        assert_eq!(ecosystem.apps[0].args, ["a", "1", "true"]);
    }
}

#[test]
fn names() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.app("name: 'a', name_prefix: 'p'").name, "p:a");
    assert_eq!(sandbox.app("name: 7").name, "7");
    assert_eq!(sandbox.app("namespace: 'web'").namespace, "web");
    assert_eq!(sandbox.app("append_env_to_name: true").name, "bin");
    let mut sandbox = sandbox;
    sandbox.context.env_name = Some("production".to_owned());
    assert_eq!(sandbox.app("append_env_to_name: true, env_production: {}").name, "bin-production");
}

#[test]
fn numbers_times_and_texts_in_any_form() {
    let sandbox = Sandbox::new();
    for (keys, value) in [
        ("min_uptime: 2000", 2000),
        ("minUptime: '2000'", 2000),
        ("min_uptime: '2s'", 2000),
        ("min_uptime: '1m'", 60_000),
    ] {
        assert_eq!(sandbox.app(keys).min_uptime, value, "{keys}");
    }
    let app = sandbox.app(
        "max_restarts: '3', restart_delay: '100ms', exp_backoff_restart_delay: 50, kill_timeout: 3000, listen_timeout: '1.5s'",
    );
    assert_eq!((app.max_restarts, app.restart_delay, app.exp_backoff_restart_delay), (3, 100, 50));
    assert_eq!((app.kill_timeout, app.listen_timeout), (3000, 1500));
    let app = sandbox.app("autorestart: false, wait_ready: true, treekill: false, instance_var: 'I'");
    assert_eq!(
        (app.autorestart, app.wait_ready, app.treekill, app.instance_var.as_str()),
        (false, true, false, "I")
    );
    for keys in ["stop_exit_codes: 0", "stop_exit_codes: [0]", "stop_exit_codes: '0'"] {
        assert_eq!(sandbox.app(keys).stop_exit_codes, [0], "{keys}");
    }
    assert_eq!(sandbox.app("args: \"--a 'b c' \\\"d\\\"\"").args, ["--a", "b c", "d"]);
    assert_eq!(sandbox.app("args: ['b c', 2]").args, ["b c", "2"]);
}

#[test]
fn instances_and_the_mode_they_lead_to() {
    let sandbox = Sandbox::new();
    for (keys, instances, mode) in [
        ("instances: 4", 4, ExecMode::Cluster),
        ("instances: '4'", 4, ExecMode::Cluster),
        ("instances: 1", 1, ExecMode::Cluster),
        ("instances: 'max'", 8, ExecMode::Cluster),
        ("instances: 0", 8, ExecMode::Cluster),
        ("instances: -1", 7, ExecMode::Cluster),
        ("instances: -100", 1, ExecMode::Cluster),
        ("instances: 2, exec_mode: 'fork'", 2, ExecMode::Fork),
        ("exec_mode: 'cluster_mode'", 1, ExecMode::Cluster),
        ("execMode: 'fork_mode'", 1, ExecMode::Fork),
        ("instances: 2, interpreter: 'python3'", 2, ExecMode::Fork),
    ] {
        let app = sandbox.app(keys);
        assert_eq!((app.instances, app.exec_mode), (instances, mode), "{keys}");
        let kind = if mode == ExecMode::Cluster { Kind::Native } else { Kind::None };
        assert_eq!(app.kind, kind, "{keys}");
    }
    assert_eq!(sandbox.app("instances: 2, sundew: { kind: 'none' }").kind, Kind::None);
    assert_eq!(sandbox.app("sundew: { kind: 'native' }").kind, Kind::Native);
}

#[test]
fn the_environment_in_pm2s_order() {
    let mut sandbox = Sandbox::new();
    let keys = "env: { NODE_ENV: 'file', PORT: 8080, FLAG: true, OBJECT: { a: [1, 'x'] } }, \
                env_production: { NODE_ENV: 'named' }, env_other: { NODE_ENV: 'other' }";
    let env = sandbox.app(keys).env;
    assert_eq!((env["NODE_ENV"].as_str(), env["SHELL_ONLY"].as_str()), ("file", "shell"));
    assert_eq!((env["PORT"].as_str(), env["FLAG"].as_str()), ("8080", "true"));
    assert_eq!(env["OBJECT"], "{\"a\":[1,\"x\"]}");
    sandbox.context.env_name = Some("production".to_owned());
    let env = sandbox.app(keys).env;
    assert_eq!((env["NODE_ENV"].as_str(), env["PORT"].as_str()), ("named", "8080"));
    sandbox.context.env_name = None;

    let app = sandbox.app("port: '9000', env: { PORT: 1 }");
    assert_eq!((app.port, app.env["PORT"].as_str()), (Some(9000), "9000"));
    assert_eq!(sandbox.app("filter_env: true, env: { A: 1 }").env.into_keys().collect::<Vec<_>>(), ["A"]);
    assert!(!sandbox.app("filter_env: 'SHELL_ONLY'").env.contains_key("SHELL_ONLY"));
    let env = sandbox.app("filter_env: ['SHELL', 'NODE']").env;
    assert_eq!(env.into_keys().collect::<Vec<_>>(), ["HOME", "PATH"]);
}

#[test]
fn logs() {
    let sandbox = Sandbox::new();
    let shell = sandbox.dir.join("shell");
    let app =
        sandbox.app("out_file: 'a.log', error: '~/b.log', mergeLogs: false, time: true, log_type: 'json'");
    assert_eq!(app.out_file, LogFile::Path(shell.join("a.log")));
    assert_eq!(app.error_file, LogFile::Path("/home/me/b.log".into()));
    assert_eq!(app.log_date_format.as_deref(), Some("YYYY-MM-DDTHH:mm:ss"));
    assert_eq!((app.merge_logs, app.log_format), (false, LogFormat::Json));
    let app = sandbox.app("output: 'NULL', err_file: '/dev/null'");
    assert_eq!((app.out_file, app.error_file), (LogFile::Off, LogFile::Off));
    let app = sandbox.app("disable_logs: true, out: 'a.log'");
    assert_eq!((app.out_file, app.error_file), (LogFile::Off, LogFile::Off));
    assert!(!sandbox.app("instances: 1").merge_logs, "a file for each instance");
    let app = sandbox.app("time: true, log_date_format: 'HH:mm'");
    assert_eq!(app.log_date_format.as_deref(), Some("HH:mm"));
}

#[test]
fn where_scripts_and_folders_are() {
    let sandbox = Sandbox::new();
    let script = |keys: &str| {
        let ecosystem = sandbox.load(&format!("[{{ {keys} }}]")).unwrap_or_else(|error| panic!("{error}"));
        ecosystem.apps[0].clone()
    };
    sandbox.write("beside/only-here", "#!/bin/sh\n", 0o755);
    let dir = &sandbox.dir;
    assert_eq!(script("script: './bin'").script, dir.join("shell/bin"), "from the shell's folder first");
    assert_eq!(
        script("script: 'beside/only-here'").script,
        dir.join("beside/only-here"),
        "then from the file's"
    );
    let app = script("script: 'only-here', cwd: 'beside'");
    assert_eq!((app.script, app.cwd), (dir.join("beside/only-here"), dir.join("beside")));
    assert_eq!(script("script: '../bin'").script, dir.join("bin"));
    assert_eq!(script("script: 'in-path'").script, dir.join("path/in-path"));
    assert_eq!(script(&format!("script: '{}'", dir.join("bin").display())).script, dir.join("bin"));

    sandbox.write("app.js", "", 0o644);
    let app = script("script: '../app.js', node_args: '--trace-gc --inspect'");
    let node = dir.join("path/node").display().to_string();
    assert_eq!(app.interpreter, [&node, "--trace-gc", "--inspect"]);
    assert_eq!((app.name.as_str(), app.exec_mode), ("app", ExecMode::Fork));
    assert_eq!(
        script("script: '../plain', interpreter: 'python3'").interpreter,
        [dir.join("path/python3").display().to_string()]
    );
    sandbox.write("tool.py", "", 0o755);
    assert_eq!(script("script: '../tool.py', interpreter: 'none'").interpreter, [""; 0]);
}

/// A release that is switched by a link is found anew at each start.
#[test]
fn links_are_kept() {
    let sandbox = Sandbox::new();
    sandbox.write("releases/1/server", "#!/bin/sh\n", 0o755);
    std::os::unix::fs::symlink(sandbox.dir.join("releases/1"), sandbox.dir.join("current")).unwrap();
    let app = sandbox.load("[{ script: '../current/server' }]").unwrap().apps.remove(0);
    assert_eq!(app.script, sandbox.dir.join("current/server"));
}

#[test]
fn the_sundew_object() {
    let sandbox = Sandbox::new();
    let app = sandbox.app(
        "sundew: { affinity: 'ip', balance: 'round-robin', drainTimeout: '5s', letGo: { batch: 10, pause: 20 }, \
         paths: ['/socket.io', '/ws'], limits: { headBytes: '8K', head_timeout: 500, maxConnections: 100, learnedSids: 9 } }",
    );
    assert_eq!((app.sundew.affinity, app.sundew.balance), (Affinity::Ip, Balance::RoundRobin));
    assert_eq!(
        (app.sundew.drain_timeout, app.sundew.let_go.batch, app.sundew.let_go.pause_ms),
        (5000, 10, 20)
    );
    assert_eq!(app.sundew.paths, ["/socket.io", "/ws"]);
    let limits = Limits {
        head_bytes: 8192,
        head_timeout: 500,
        max_connections: 100,
        learned_sids: 9,
        ..Limits::default()
    };
    assert_eq!(app.sundew.limits, limits);
    for word in ["least-sessions", "ip-hash", "round-robin", "random"] {
        sandbox.app(&format!("sundew: {{ balance: '{word}' }}"));
    }
    for word in ["sid", "ip", "none"] {
        sandbox.app(&format!("sundew: {{ affinity: '{word}' }}"));
    }
}

#[test]
fn ports_of_single_workers_and_how_clients_are_told() {
    let sandbox = Sandbox::new();
    let app = sandbox.app("instances: 4, sundew: { direct: 3131 }");
    let direct = app.sundew.direct.clone().unwrap();
    assert_eq!((direct.base_port, direct.host, direct.port(3)), (3131, None, Some(3134)));
    assert_eq!(app.sundew.advertise(), None);
    let app = sandbox
        .app("instances: 2, sundew: { direct: { basePort: '0xc3b', host: '127.0.0.1' }, route: true }");
    assert_eq!(app.sundew.direct.as_ref().unwrap().host, Some([127, 0, 0, 1].into()));
    let told = app.sundew.advertise().unwrap();
    assert_eq!((told.path.as_str(), told.scheme.as_str(), told.port(1)), ("/.sundew/route", "http", 3132));
    let app = sandbox.app(
        "instances: 2, sundew: { direct: 3131, route: { path: '/where', scheme: 'https', host: 'a.example', basePort: 443, \
         origins: ['https://a.example', 'http://localhost:5173'] } }",
    );
    let told = app.sundew.advertise().unwrap();
    assert_eq!((told.path.as_str(), told.scheme.as_str(), told.port(0)), ("/where", "https", 443));
    assert_eq!((told.host.as_deref(), told.origins.len()), (Some("a.example"), 2));
    let app = sandbox.app("instances: 2, sundew: { direct: 3131, route: { waiting: 9, timeout: '2s' } }");
    let route = app.sundew.route.unwrap();
    assert_eq!((route.path.as_str(), route.waiting, route.timeout), ("/.sundew/route", 9, 2000));
    assert_eq!(sandbox.app("instances: 2, sundew: { route: false }").sundew.route, None);
    for (keys, wanted) in [
        ("instances: 2, sundew: { route: true }", "`sundew.route` needs `direct`"),
        ("instances: 2, sundew: { direct: {} }", "`sundew.direct` needs a `basePort`"),
        (
            "sundew: { direct: { basePort: 0 } }",
            "`sundew.direct.basePort` must be a whole number from 1 to 65535",
        ),
        (
            "instances: 2, sundew: { direct: { basePort: 1, host: 'x' } }",
            "must be an address of this host, not \"x\"",
        ),
        ("instances: 8, sundew: { direct: 65530 }", "worker 7 would have port 65537"),
        ("exec_mode: 'fork', sundew: { direct: 3131 }", "for apps in cluster mode"),
        ("instances: 2, sundew: { direct: 1, route: { host: 'a:1' } }", "without scheme and port"),
        ("instances: 2, sundew: { direct: 1, route: { scheme: 'ws' } }", "\"http\", \"https\""),
        (
            "instances: 2, sundew: { direct: 1, route: { path: 'x' } }",
            "must be a path such as \"/.sundew/route\"",
        ),
        (
            "sundew: { direct: 1, route: { origins: ['https://a/'] } }",
            "\"https://a/\" in `sundew.route.origins`",
        ),
    ] {
        let says = sandbox.says(&format!("[{{ script: './bin', {keys} }}]"));
        assert!(says.contains(wanted), "{keys}: {says}");
    }
}

#[test]
fn flags_go_before_the_file() {
    let sandbox = Sandbox::new();
    let set = vec![
        Flag { key: "instances", flag: "--instances", value: "max".to_owned() },
        Flag { key: "namespace", flag: "--namespace", value: "n".to_owned() },
    ];
    let flags = Flags { set, args: Some(vec!["--x".to_owned()]), only: vec!["b".to_owned()] };
    let text = "[{ name: 'a', script: './bin' }, { name: 'b', script: './bin', instances: 2, args: 'y' }]";
    let apps = sandbox.load_with(text, &flags).unwrap().apps;
    assert_eq!(apps.len(), 1);
    assert_eq!((apps[0].name.as_str(), apps[0].instances, apps[0].namespace.as_str()), ("b", 8, "n"));
    assert_eq!(apps[0].args, ["--x"]);
}

#[test]
fn a_program_without_a_file() {
    let sandbox = Sandbox::new();
    let ecosystem =
        sandbox.program("./bin", &[("instances", "--instances", "2"), ("name", "--name", "x")]).unwrap();
    let app = &ecosystem.apps[0];
    assert_eq!((app.name.as_str(), app.instances, app.exec_mode), ("x", 2, ExecMode::Cluster));
    assert_eq!((&app.file, &app.script), (&None, &sandbox.dir.join("shell/bin")));
    let flags = [("filter_env", "--filter-env", "SHELL NODE")];
    let app = sandbox.program("./bin", &flags).unwrap().apps.remove(0);
    assert_eq!(app.env.into_keys().collect::<Vec<_>>(), ["HOME", "PATH"]);
    let app = sandbox.program("./bin", &[]).unwrap().apps.remove(0);
    assert_eq!((app.name.as_str(), app.exec_mode, app.merge_logs), ("bin", ExecMode::Fork, true));
}

#[test]
fn what_is_a_file() {
    for file in ["pm2.json", "a.json5", "ecosystem.config.js", "x.config.cjs", "a.yml", "a.yaml", "-"] {
        assert!(is_file(file), "{file}");
    }
    for program in ["app.js", "./server", "web", "all", "0"] {
        assert!(!is_file(program), "{program}");
    }
}
