//! The daemon's own settings at the top of a file.

use sundew_nodes::Registry;

use super::{Sandbox, load};
use crate::ecosystem::Flags;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn file(cluster: &str) -> String {
    format!("{{\"apps\": [{{\"script\": \"./bin\"}}],\n \"sundew\": {{\"cluster\": {cluster}}}}}")
}

#[test]
fn a_cluster_as_most_have_it() {
    let mut sandbox = Sandbox::new();
    sandbox.context.env.insert("SUNDEW_CLUSTER_SECRET".to_owned(), SECRET.to_owned());
    let read = sandbox.load(&file(r#"{"registry": "redis://redis:6379"}"#)).unwrap();
    assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    let cluster = read.cluster.unwrap();
    assert_eq!(cluster.registry, Registry::Redis("redis://redis:6379".to_owned()));
    assert!(cluster.listen.ends_with(":7465"), "{}", cluster.listen);
    assert_eq!(cluster.node, None);
    assert!(!read.apps[0].env.contains_key("SUNDEW_CLUSTER_SECRET"), "apps get to see the secret");
    assert_eq!(sandbox.load(r#"{"apps": [{"script": "./bin"}]}"#).unwrap().cluster, None);
}

#[test]
fn every_key() {
    let sandbox = Sandbox::new();
    sandbox.write("shell/secret", &format!("{SECRET}\n"), 0o600);
    let written = r#"{"listen": "10.0.0.1:70", "advertise": "a.example:71", "secretFile": "secret", "node": 3,
        "registry": ["a.example:71", "[::1]:71"], "name": "x", "heartbeat": "1s", "expiry": "3s",
        "limits": {"hold": "1m", "connectTimeout": 100, "askTimeout": 200, "asksInFlight": 5, "maxConnections": 6,
        "registryWait": 300, "moveQuiet": 0, "moveTimeout": "1s", "moveBytes": 1000}}"#;
    let cluster = sandbox.load(&file(written)).unwrap().cluster.unwrap();
    assert_eq!(cluster.registry, Registry::List(vec!["a.example:71".to_owned(), "[::1]:71".to_owned()]));
    assert_eq!(cluster.secret, sundew_nodes::Secret::new(SECRET).unwrap());
    assert_eq!((cluster.node, cluster.name.as_str()), (Some(3), "x"));
    assert_eq!((cluster.limits.heartbeat_ms, cluster.limits.expiry_ms), (1000, 3000));
    assert_eq!((cluster.limits.hold_ms, cluster.limits.asks_in_flight), (60_000, 5));
    let limits = &cluster.limits;
    assert_eq!((limits.move_quiet_ms, limits.move_timeout_ms, limits.move_bytes), (0, 1000, 1000));
    let dns = format!(r#"{{"secret": "{SECRET}", "registry": "dns:chat.default:7465", "node": "auto"}}"#);
    let dns = sandbox.load(&file(&dns)).unwrap().cluster.unwrap();
    assert_eq!(dns.registry, Registry::Dns { name: "chat.default".to_owned(), port: 7465 });
}

#[test]
fn errors_say_what_to_do() {
    let sandbox = Sandbox::new();
    let error = |cluster: &str| {
        let invalid = sandbox.load(&file(cluster)).unwrap_err();
        assert_eq!(invalid.errors.len(), 1, "{invalid}");
        assert_eq!(invalid.errors[0].place.as_ref().unwrap().line, 2, "{invalid}");
        invalid.to_string()
    };
    let with = |rest: &str| error(&format!(r#"{{"secret": "{SECRET}", {rest}}}"#));
    for (text, part) in [
        (error(r#"{"registry": "redis://r"}"#), "openssl rand -hex 32"),
        (with(r#""registry": "redis://r", "limits": {"moveBytes": 20000}"#), "16379"),
        (error(r#"{"registry": "redis://r", "secret": "short"}"#), "16 characters"),
        (error(r#"{"registry": "redis://r", "secretFile": "nowhere"}"#), "cannot read"),
        (with(r#""node": 1"#), "redis://HOST:6379"),
        (with(r#""registry": "http://r""#), "dns:NAME:PORT"),
        (with(r#""registry": ["a"]"#), "\"a\" in `sundew.cluster.registry` is not host:port"),
        (with(r#""registry": []"#), "1 to 64"),
        (with(r#""registry": "redis://r", "node": 64"#), "0 to 63"),
        (with(r#""registry": "redis://r", "listen": "here""#), "ip:port"),
        (with(r#""registry": "redis://r", "advertise": "here""#), "host:port"),
        (with(r#""registry": "redis://r", "expiry": "1s""#), "twice `heartbeat`"),
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let flags = Flags::default();
    sandbox.write(
        "pm2.json",
        &file(&format!(r#"{{"secret": "{SECRET}", "registry": "redis://r", "nod": 1}}"#)),
        0o644,
    );
    let read = load(std::path::Path::new("../pm2.json"), &sandbox.context, &flags).unwrap();
    assert!(read.warnings[0].to_string().contains("did you mean `node`?"), "{}", read.warnings[0]);
}
