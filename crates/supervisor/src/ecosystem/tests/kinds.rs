//! How connections reach an app's workers, by what runs it and what was written.

use super::super::*;
use super::Sandbox;

const NODE: &str = "script: '../app.js'";
const PYTHON: &str = "script: '../app.py'";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for file in ["app.js", "app.mjs", "app.cjs", "app.py", "app.sh", "app.ts", "app.mts", "app.tsx", "plain"]
    {
        sandbox.write(file, "", 0o644);
    }
    sandbox.write("www", "#!/usr/bin/env node\n", 0o644);
    sandbox.write("flags", "#!/usr/bin/env -S node --trace-gc\n", 0o755);
    sandbox.write("snake", "#!/usr/bin/python3\n", 0o755);
    sandbox.write("node18/bin/node", "#!/bin/sh\necho v18.20.8\n", 0o755);
    sandbox.write("node22.6/bin/node", "#!/bin/sh\necho v22.6.0\n", 0o755);
    sandbox.write("node24/bin/node", "#!/bin/sh\necho v24.1.0\n", 0o755);
    sandbox.write("odd/bin/node", "#!/bin/sh\nexit 1\n", 0o755);
    for name in ["deno", "runner", "bash"] {
        sandbox.write(&format!("path/{name}"), "#!/bin/sh\n", 0o755);
    }
    sandbox
}

fn app(sandbox: &Sandbox, keys: &str) -> AppConfig {
    let ecosystem =
        sandbox.load(&format!("[{{ {keys} }}]")).unwrap_or_else(|error| panic!("{keys}: {error}"));
    assert_eq!(ecosystem.warnings, [], "{keys}");
    ecosystem.apps.into_iter().next().unwrap()
}

#[test]
fn by_what_runs_it() {
    let sandbox = sandbox();
    sandbox.write("path/bun", "#!/bin/sh\n", 0o755);
    use ExecMode::{Cluster, Fork};
    for (keys, mode, kind) in [
        (NODE, Fork, Kind::None),
        ("script: '../app.js', instances: 1", Cluster, Kind::Node),
        ("script: '../app.mjs', instances: 'max'", Cluster, Kind::Node),
        ("script: '../app.cjs', exec_mode: 'cluster'", Cluster, Kind::Node),
        ("script: '../app.js', instances: 2, exec_mode: 'fork'", Fork, Kind::None),
        ("script: '../app.js', instances: 2, port: 80", Cluster, Kind::Node),
        ("script: '../app.js', sundew: { kind: 'node' }", Cluster, Kind::Node),
        ("script: '../app.js', sundew: { kind: 'port' }, port: 80, instances: 2", Cluster, Kind::Port),
        ("script: '../app.js', instances: 2, sundew: { kind: 'none' }", Cluster, Kind::None),
        ("script: '../plain', interpreter: '../node18/bin/node', instances: 2", Cluster, Kind::Node),
        ("script: '../www', instances: 2", Cluster, Kind::Node),
        ("script: '../bin', instances: 2", Cluster, Kind::Native),
        ("script: '../bin', instances: 2, port: 80", Cluster, Kind::Native),
        ("script: '../bin', instances: 2, port: 80, sundew: { kind: 'port' }", Cluster, Kind::Port),
        ("script: '../bin', instances: 2, sundew: { kind: 'node' }", Cluster, Kind::Node),
        (PYTHON, Fork, Kind::None),
        ("script: '../app.py', port: 80", Fork, Kind::None),
        ("script: '../app.py', port: 80, instances: 1", Fork, Kind::None),
        ("script: '../app.py', port: 80, instances: 2", Cluster, Kind::Port),
        ("script: '../app.py', port: 80, instances: 2, exec_mode: 'fork'", Fork, Kind::None),
        ("script: '../app.py', port: 80, exec_mode: 'cluster'", Cluster, Kind::Port),
        ("script: '../app.py', instances: 2", Fork, Kind::None),
        ("script: '../snake', port: 80, instances: 2", Cluster, Kind::Port),
        ("script: '../app.sh', exec_mode: 'cluster'", Cluster, Kind::Native),
        ("script: '../app.sh', exec_mode: 'cluster', port: 80", Cluster, Kind::Port),
        ("script: '../app.js', interpreter: 'bun', instances: 1", Fork, Kind::None),
        ("script: '../app.js', interpreter: 'bun', instances: 2, port: 80", Cluster, Kind::Port),
        ("script: '../app.js', interpreter: 'deno', instances: 2, port: 80", Cluster, Kind::Port),
        (
            "script: '../plain', interpreter: 'runner', instances: 2, sundew: { kind: 'node' }",
            Cluster,
            Kind::Node,
        ),
    ] {
        let app = app(&sandbox, keys);
        assert_eq!((app.exec_mode, app.kind), (mode, kind), "{keys}");
    }
}

#[test]
fn scripts_without_an_extension_that_are_nodes() {
    let sandbox = sandbox();
    let node = sandbox.dir.join("path/node").display().to_string();
    assert_eq!(app(&sandbox, "script: '../www', node_args: '--x'").interpreter, [&node, "--x"]);
    assert_eq!(app(&sandbox, "script: '../flags'").interpreter, [&node, "--trace-gc"]);
    assert_eq!(app(&sandbox, "script: '../flags', interpreter: 'none'").interpreter, [""; 0]);
}

#[test]
fn what_cannot_share_a_port() {
    let sandbox = sandbox();
    sandbox.write("path/bun", "#!/bin/sh\n", 0o755);
    assert_eq!(
        sandbox.says("[{ script: '../app.py',\n  exec_mode: 'cluster', env: { PORT: 5000 } }]"),
        "app `app`: python3 in cluster mode needs a `port`
 --> ../pm2.json:1:12
  |
1 | [{ script: '../app.py',
  |            ^^^^^^^^^^^
  = help: \"port\": 5000: Sundew serves the app there, and each instance gets a PORT of its own to listen on; \"exec_mode\": \"fork\" runs it supervised only"
    );
    assert_eq!(
        sandbox.says("[{ script: '../app.js',\n  instances: 2, interpreter: 'bun' }]"),
        "app `app`: Bun cannot be a worker of a Node.js cluster
 --> ../pm2.json:2:30
  |
2 |   instances: 2, interpreter: 'bun' }]
  |                              ^^^^^
  = Bun does not take connections over Node's channel (oven-sh/bun#34659)
  = help: \"port\": 8000 gives each instance a PORT of its own to listen on and serves them all on 8000; \"interpreter\": \"node\" makes it Node.js"
    );
    for (keys, says) in [
        ("script: '../app.js', interpreter: 'deno', exec_mode: 'cluster'", "Deno cannot be a worker"),
        ("script: '../app.js', interpreter: 'bun', sundew: { kind: 'node' }", "Bun cannot be a worker"),
        ("script: '../app.py', sundew: { kind: 'node' }", "only Node.js can be a worker of kind node"),
        ("script: '../app.js', sundew: { kind: 'native' }", "is a program with sundew::Listener"),
        (
            "script: '../app.py', instances: 2, sundew: { kind: 'port' }",
            "a worker of kind port needs a `port`",
        ),
        (
            "script: '../plain', interpreter: 'runner', exec_mode: 'cluster'",
            "if runner is Node.js, say so: \"sundew\": { \"kind\": \"node\" }",
        ),
    ] {
        let said = sandbox.says(&format!("[{{ {keys} }}]"));
        assert!(said.starts_with("app `") && said.contains(says), "{keys}: {said}");
        assert!(said.contains("= help: "), "{said}");
    }
}

#[test]
fn typescript() {
    let sandbox = sandbox();
    let dir = sandbox.dir.display().to_string();
    let runs = |keys: &str| app(&sandbox, keys).interpreter.join(" ").replace(&dir, "DIR");
    let with =
        |node: &str, more: &str| format!("script: '../app.ts', interpreter: '../{node}/bin/node'{more}");
    assert_eq!(runs(&with("node24", ", instances: 2")), "DIR/node24/bin/node");
    assert_eq!(
        runs(&with("node22.6", ", instances: 2, node_args: '--trace-gc'")),
        "DIR/node22.6/bin/node --experimental-strip-types --trace-gc"
    );
    assert_eq!(runs(&with("node22.6", "")), "DIR/node22.6/bin/node --experimental-strip-types");
    assert_eq!(runs(&with("node18", ", node_args: '--import tsx'")), "DIR/node18/bin/node --import tsx");
    for (node, says) in [
        ("node18", "app `app`: Node.js 18.20 does not run TypeScript: DIR/app.ts\n"),
        ("odd", "cannot tell whether DIR/odd/bin/node runs TypeScript"),
    ] {
        let said = sandbox.says(&format!("[{{ {} }}]", with(node, ", instances: 2")));
        assert!(said.contains(says), "{said}");
    }

    sandbox.write("path/node", "#!/bin/sh\necho v24.1.0\n", 0o755);
    assert_eq!(runs("script: '../app.ts'"), "DIR/path/node", "without bun");
    sandbox.write("path/bun", "#!/bin/sh\n", 0o755);
    assert_eq!(runs("script: '../app.ts'"), "DIR/path/bun", "as pm2");
    assert_eq!(runs("script: '../app.mts', exec_mode: 'fork'"), "DIR/path/bun");
    assert_eq!(runs("script: '../app.ts', instances: 2"), "DIR/path/node");
    let said = sandbox.says("[{ script: '../app.tsx', instances: 2 }]");
    assert!(said.contains("node does not run .tsx files"), "{said}");
}

#[test]
fn keys_of_node_workers() {
    let sandbox = sandbox();
    let app = app(
        &sandbox,
        "script: '../app.js', instances: 2, shutdown_with_message: true, env: { PM2_PORT: 9000 }, sundew: { preload: false, \
         serialization: 'json', hungAfter: '2s', hung_restart: 0, \
         limits: { ipcMessageBytes: '1M', ipcQueueBytes: '2M', ipcHandlesInFlight: 1 } }",
    );
    assert!(app.shutdown_with_message && !app.sundew.preload);
    assert_eq!(app.sundew.serialization, Serialization::Json);
    assert_eq!((app.sundew.hung_after, app.sundew.hung_restart), (2000, 0));
    let limits = &app.sundew.limits;
    assert_eq!(
        (limits.ipc_message_bytes, limits.ipc_queue_bytes, limits.ipc_handles_in_flight),
        (1 << 20, 2 << 20, 1)
    );
    assert_eq!((app.sundew.port, app.sticky_port()), (None, 9000));
    let port = |keys: &str| self::app(&sandbox, &format!("{NODE}, instances: 2, {keys}")).sticky_port();
    assert_eq!(port("sundew: { port: 7000 }, env: { PM2_PORT: 9000 }"), 7000);
    assert_eq!(port("env: {}"), 8080);

    let said = sandbox.says("[{ script: '../app.js', instances: 2, env: { PM2_PORT: 'x' } }]");
    assert!(said.starts_with("app `app`: PM2_PORT is \"x\", which is no port and has no effect\n"), "{said}");

    assert_eq!(
        sandbox.says(
            "[{ script: './bin', instances: 2, shutdown_with_message: true,\n sundew: { preload: true } }]"
        ),
        "`shutdown_with_message` has no effect: it is about Node.js programs
 --> ../pm2.json:1:58
  |
1 | [{ script: './bin', instances: 2, shutdown_with_message: true,
  |                                                          ^^^^
`sundew.preload` has no effect: it is about Node.js programs
 --> ../pm2.json:2:21
  |
2 |  sundew: { preload: true } }]
  |                     ^^^^"
    );
    assert_eq!(sandbox.says("[{ script: './bin', shutdown_with_message: false }]"), "");
}
