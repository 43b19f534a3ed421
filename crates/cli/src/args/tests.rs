//! Command lines as they are typed.

use clap::CommandFactory;

use super::*;

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
    for name in NOT_BUILT {
        assert!(Cli::command().find_subcommand(name).is_none(), "{name} is built");
    }
}

fn start(words: &[&str]) -> Start {
    match Cli::try_parse_from(["sundew", "start"].iter().chain(words)).unwrap().command {
        Command::Start(start) => *start,
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_become_keys() {
    let start = start(&["./a", "-i", "-1", "--name", "x", "--no-autorestart", "--", "--flag", "b c"]);
    let flags = start.flags();
    let set: Vec<_> = flags.set.iter().map(|flag| (flag.key, flag.value.as_str())).collect();
    assert_eq!(set, [("instances", "-1"), ("name", "x"), ("autorestart", "false")]);
    assert_eq!(flags.args.unwrap(), ["--flag", "b c"]);
}

/// What pm2's users type for a Node.js program.
#[test]
fn a_node_program_as_under_pm2() {
    let words = [
        "app.js",
        "-i",
        "max",
        "--name",
        "x",
        "--wait-ready",
        "--listen-timeout",
        "3000",
        "--node-args",
        "--max-old-space-size=512 --trace-gc",
        "--shutdown-with-message",
        "-k",
        "5000",
        "--",
        "--port",
        "80",
    ];
    let start = start(&words);
    assert_eq!(start.what, ["app.js"]);
    let flags = start.flags();
    let set: Vec<_> = flags.set.iter().map(|flag| (flag.key, flag.value.as_str())).collect();
    assert_eq!(
        set,
        [
            ("instances", "max"),
            ("name", "x"),
            ("node_args", "--max-old-space-size=512 --trace-gc"),
            ("kill_timeout", "5000"),
            ("listen_timeout", "3000"),
            ("wait_ready", "true"),
            ("shutdown_with_message", "true"),
        ]
    );
    assert_eq!(flags.args.unwrap(), ["--port", "80"]);
    let fork = self::start(&["app.js", "-x", "--port", "80", "--filter-env", "A B"]).flags();
    let set: Vec<_> = fork.set.iter().map(|flag| (flag.key, flag.value.as_str())).collect();
    assert_eq!(set, [("port", "80"), ("filter_env", "A B"), ("exec_mode", "fork")]);
}

#[test]
fn scale_takes_signs() {
    for (word, expected) in [("4", Scale::To(4)), ("+2", Scale::Up(2)), ("-3", Scale::Down(3))] {
        let Command::Scale(scale) = Cli::try_parse_from(["sundew", "scale", "a", word]).unwrap().command
        else {
            panic!()
        };
        assert_eq!(scale.number, expected);
    }
    let error = Cli::try_parse_from(["sundew", "scale", "a", "lots"]).unwrap_err().to_string();
    assert!(error.contains("lots") && error.contains("N, +N or -N"), "{error}");
}

#[test]
fn other_names_of_commands() {
    for (name, command) in [
        ("ls", "List"),
        ("status", "List"),
        ("l", "List"),
        ("ps", "List"),
        ("desc", "Describe"),
        ("del", "Delete"),
    ] {
        let cli =
            Cli::try_parse_from(["sundew", name, "x"]).or_else(|_| Cli::try_parse_from(["sundew", name]));
        assert!(format!("{:?}", cli.unwrap().command).starts_with(command), "{name}");
    }
}
