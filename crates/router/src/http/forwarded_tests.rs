//! Who the client is, by what its proxies say, and what nobody can make them say.

use super::*;

const TRUSTED: &[&str] = &["10.0.0.0/8", "2001:db8:1::/48", "unix"];

fn ask(header: ForwardedHeader, lines: &[&str], peer: Option<&str>) -> Option<String> {
    let name = match header {
        ForwardedHeader::Forwarded => "Forwarded",
        _ => "X-Forwarded-For",
    };
    let headers: Vec<_> = lines.iter().map(|line| Header { name, value: line.as_bytes() }).collect();
    let trusted = TrustedProxies::parse(TRUSTED).unwrap();
    let peer = peer.map(|peer| peer.parse().unwrap());
    client(&headers, header, &trusted, peer).map(|client| client.to_string())
}

fn x(lines: &[&str]) -> Option<String> {
    ask(ForwardedHeader::XForwardedFor, lines, Some("10.0.0.1:5"))
}

fn rfc(lines: &[&str]) -> Option<String> {
    ask(ForwardedHeader::Forwarded, lines, Some("10.0.0.1:5"))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_first_untrusted_hop_from_the_right_is_the_client() {
    assert_eq!(x(&["1.1.1.1"]), some("1.1.1.1:0"));
    assert_eq!(x(&["6.6.6.6, 1.1.1.1"]), some("1.1.1.1:0"), "what the client wrote itself is at the left");
    assert_eq!(x(&["6.6.6.6, 1.1.1.1, 10.9.9.9"]), some("1.1.1.1:0"), "a proxy between");
    assert_eq!(x(&["6.6.6.6", "1.1.1.1", "10.9.9.9"]), some("1.1.1.1:0"), "lines are one list");
    assert_eq!(x(&["10.2.2.2, 10.3.3.3"]), some("10.2.2.2:0"), "all of them trusted: the leftmost");
    assert_eq!(x(&[]), None);
    assert_eq!(x(&["1.1.1.1, ::ffff:10.9.9.9"]), some("1.1.1.1:0"));
}

#[test]
fn only_trusted_peers_are_believed() {
    let header = ForwardedHeader::XForwardedFor;
    assert_eq!(ask(header, &["1.1.1.1"], Some("11.0.0.1:5")), None);
    assert_eq!(ask(header, &["1.1.1.1"], Some("[::ffff:10.0.0.1]:5")), some("1.1.1.1:0"));
    assert_eq!(ask(header, &["1.1.1.1"], Some("[2001:db8:1::7]:5")), some("1.1.1.1:0"));
    assert_eq!(ask(header, &["1.1.1.1"], None), some("1.1.1.1:0"), "a unix socket, which is trusted here");
    assert_eq!(ask(ForwardedHeader::None, &["1.1.1.1"], Some("10.0.0.1:5")), None);
}

#[test]
fn addresses_in_every_spelling() {
    for (text, client) in [
        ("1.1.1.1:80", "1.1.1.1:80"),
        ("2001:db8::1", "[2001:db8::1]:0"),
        ("[2001:db8::1]", "[2001:db8::1]:0"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("::ffff:1.1.1.1", "1.1.1.1:0"),
        ("[::ffff:1.1.1.1]:80", "1.1.1.1:80"),
        ("  1.1.1.1\t", "1.1.1.1:0"),
    ] {
        assert_eq!(x(&[text]), some(client), "{text}");
    }
}

#[test]
fn behind_what_cannot_be_read_nothing_is_believed() {
    for bad in [
        "unknown",
        "_hidden",
        "",
        "1.1.1",
        "1.1.1.1:",
        "1.1.1.1:99999",
        "[2001:db8::1",
        "fe80::1%eth0",
        "a.b",
        "\"1.1.1.1\"",
        "1.1.1.1:80:80",
        "[1.1.1.1]x",
    ] {
        assert_eq!(x(&[bad]), None, "{bad:?}");
        assert_eq!(
            x(&[&format!("6.6.6.6, {bad}, 10.9.9.9")]),
            some("10.9.9.9:0"),
            "{bad:?}: the proxy that said so"
        );
    }
    assert_eq!(x(&["6.6.6.6", "\u{e9}"]), None);
}

#[test]
fn hops_are_bounded() {
    let chain = format!("1.1.1.1{}", ", 10.0.0.9".repeat(MAX_HOPS - 1));
    assert_eq!(x(&[&chain]), some("1.1.1.1:0"));
    let chain = format!("1.1.1.1{}", ", 10.0.0.9".repeat(MAX_HOPS));
    assert_eq!(x(&[&chain]), some("10.0.0.9:0"));
    let chain = format!("for=1.1.1.1{}", ", for=10.0.0.9".repeat(MAX_HOPS - 1));
    assert_eq!(rfc(&[&chain]), some("1.1.1.1:0"));
    let chain = format!("for=1.1.1.1{}", ", for=10.0.0.9".repeat(MAX_HOPS));
    assert_eq!(rfc(&[&chain]), some("10.0.0.9:0"));
    assert_eq!(rfc(&["for=6.6.6.6", &chain]), some("10.0.0.9:0"));
}

#[test]
fn rfc_7239() {
    for (line, client) in [
        ("for=192.0.2.60;proto=http;by=203.0.113.43", some("192.0.2.60:0")),
        ("For=\"[2001:db8:cafe::17]:4711\"", some("[2001:db8:cafe::17]:4711")),
        ("for=\"192.0.2.43:47011\"", some("192.0.2.43:47011")),
        ("for=192.0.2.43:47011", some("192.0.2.43:47011")),
        ("for=192.0.2.43, for=198.51.100.17", some("198.51.100.17:0")),
        ("for=6.6.6.6, for=1.1.1.1 , for=10.2.2.2;by=x", some("1.1.1.1:0")),
        ("by=10.2.2.2;host=\"a, for=6.6.6.6\";for=1.1.1.1", some("1.1.1.1:0")),
        ("for=\"1.1\\.1.1\"", some("1.1.1.1:0")),
        ("for=\"1.1.1.1:_x\"", some("1.1.1.1:0")),
        ("for=6.6.6.6, for=unknown, for=10.2.2.2", some("10.2.2.2:0")),
        ("for=6.6.6.6, for=_hidden", None),
        ("for=6.6.6.6, proto=https", None),
        ("for=6.6.6.6,", None),
        ("", None),
    ] {
        assert_eq!(rfc(&[line]), client, "{line}");
    }
}

#[test]
fn a_quote_left_open_hides_nobody() {
    // A client writes the first part, its proxy what follows the comma.
    for theirs in [
        "for=\"x",
        "for=6.6.6.6, x=\"",
        "for=6.6.6.6;x=\"\\",
        "for=6.6.6.6\"",
        "for=6.6.6.6;for=7.7.7.7",
        "=",
    ] {
        for proxys in
            ["for=1.1.1.1", "for=\"[2001:db8::1]\"", "for=1.1.1.1;by=\"_a\"", "for=\"1.1.1.1:5\";by=\"_a\""]
        {
            let client = rfc(&[&format!("{theirs}, {proxys}")]);
            assert_eq!(client, None, "{theirs}, {proxys}");
        }
    }
    let long = format!("for=\"{}\", for=6.6.6.6", "x".repeat(500));
    assert_eq!(rfc(&[&long]), some("6.6.6.6:0"));
    assert_eq!(rfc(&[&format!("for=6.6.6.6, for=\"{}\"", "1".repeat(500))]), None);
}
