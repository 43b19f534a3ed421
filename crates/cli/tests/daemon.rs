//! The commands on a daemon, with programs that are supervised and not routed: what needs the network is in the end-to-end
//! tests.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Ran, Sandbox};

const SLEEPS: &str = "#!/bin/sh\necho \"instance $NODE_APP_INSTANCE of $KIND\"\nexec sleep 1000\n";

fn online(sandbox: &Sandbox) -> Vec<(String, u64)> {
    let list: serde_json::Value = serde_json::from_str(&sandbox.sundew(&["jlist"]).out).unwrap();
    let each = list.as_array().unwrap().iter();
    let each = each.filter(|process| process["pm2_env"]["status"] == "online");
    each.map(|process| (process["name"].as_str().unwrap().to_owned(), process["pid"].as_u64().unwrap()))
        .collect()
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    online(sandbox).into_iter().map(|(name, _)| name).collect()
}

#[track_caller]
fn ok(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    ran
}

#[track_caller]
fn refused(ran: &Ran, says: &str) {
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.err.starts_with("error: ") && ran.err.contains(says), "{}", ran.err);
}

#[test]
fn a_file_from_start_to_kill() {
    let sandbox = Sandbox::new();
    sandbox.write("sleeps", SLEEPS, 0o755);
    let file = r#"{ apps: [
        { name: 'a', script: './sleeps', instances: 2, exec_mode: 'fork', kill_timeout: 100, env: { KIND: 'plain' }, env_special: { KIND: 'special' } },
        { name: 'b', script: './sleeps', watch: true },
    ] }"#;
    sandbox.write("pm2.json", file, 0o644);

    let ran = ok(sandbox.sundew(&["start", "pm2.json"]));
    assert!(ran.err.contains("warning: `watch` has no effect"), "{}", ran.err);
    assert!(ran.out.contains("online"), "the list follows: {}", ran.out);
    assert_eq!(ok(sandbox.sundew(&["ping"])).out, "{ msg: 'pong' }\n");
    let first = online(&sandbox);
    assert_eq!(first.len(), 3);

    // Bad input beside it changes nothing.
    refused(&sandbox.sundew(&["stop", "nobody"]), "nobody");
    refused(&sandbox.sundew(&["start", "./sleeps", "--name", "a"]), "-f");
    refused(&sandbox.sundew(&["start", "a", "-i", "3"]), "--instances");
    refused(&sandbox.sundew(&["scale", "a", "-5"]), "5");
    refused(&sandbox.sundew(&["scale", "a", "1000"]), "256");
    assert_eq!(online(&sandbox), first);

    // A file that runs is restarted, with what is in it now.
    ok(sandbox.sundew(&["start", "pm2.json", "--env", "special", "--only", "a"]));
    let second = online(&sandbox);
    assert!(second.iter().filter(|entry| first.contains(entry)).all(|(name, _)| name == "b"), "{second:?}");
    let logs = ok(sandbox.sundew(&["logs", "a", "--nostream"])).out;
    assert!(logs.contains("a | instance 1 of special"), "{logs}");
    assert!(!ok(sandbox.sundew(&["logs", "a", "--nostream", "--err"])).out.contains("instance"));

    ok(sandbox.sundew(&["stop", "a"]));
    assert_eq!(names(&sandbox), ["b"]);
    ok(sandbox.sundew(&["start", "a"]));
    assert_eq!(names(&sandbox), ["a", "a", "b"]);
    ok(sandbox.sundew(&["scale", "a", "-1"]));
    assert_eq!(names(&sandbox), ["a", "b"]);
    let described = ok(sandbox.sundew(&["describe", "a"])).out;
    assert!(described.contains("script path") && described.contains("sleeps"), "{described}");
    assert!(!described.contains("special"), "an environment holds secrets");

    ok(sandbox.sundew(&["delete", "all"]));
    assert_eq!(ok(sandbox.sundew(&["jlist"])).out, "[]\n");
    for command in ["stop", "restart", "delete"] {
        refused(&sandbox.sundew(&[command, "all"]), "no process");
    }
    ok(sandbox.sundew(&["kill"]));
    refused(&sandbox.sundew(&["ping"]), "no daemon is running");
}

#[test]
fn why_a_process_is_errored_is_in_the_list() {
    let sandbox = Sandbox::new();
    sandbox.write("fails", "#!/bin/sh\nexit 7\n", 0o755);
    sandbox.sundew(&["start", "./fails", "--max-restarts", "2"]);
    let mut list = String::new();
    for _ in 0..200 {
        list = sandbox.sundew(&["list"]).out;
        if list.contains("errored") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    assert!(list.contains("errored: ") && list.contains("code 7"), "{list}");
}

/// Two commands that find no daemon at the same time end up with the same one.
#[test]
fn starts_at_once_share_a_daemon() {
    let sandbox = Sandbox::new();
    sandbox.write("sleeps", SLEEPS, 0o755);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let sandbox = &sandbox;
            scope.spawn(move || ok(sandbox.sundew(&["start", "./sleeps", "--name", name])));
        }
    });
    let mut names = names(&sandbox);
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn run_is_refused_where_a_daemon_runs() {
    let sandbox = Sandbox::new();
    sandbox.write("sleeps", SLEEPS, 0o755);
    sandbox.write("pm2.json", "[{ script: './sleeps' }]", 0o644);
    ok(sandbox.sundew(&["start", "pm2.json"]));
    refused(&sandbox.sundew(&["run", "pm2.json"]), "runs in");
    assert_eq!(names(&sandbox), ["sleeps"]);
}
