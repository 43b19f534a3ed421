//! The connect, disconnect and message groups of the official protocol suite, version 5, as tests of our own.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use sundew_socketio::{Ack, Args, Namespace, Socket, SocketIo};
use support::{Client, client, http, quick, serve};

/// The suite's app under test.
fn app() -> SocketIo {
    let io = quick().build();
    let greet = async |socket: Socket| {
        let auth: Value = socket.auth().unwrap();
        let auth = if auth.is_null() { serde_json::json!({}) } else { auth };
        socket.emit("auth", auth).unwrap();
    };
    let echo = |nsp: Namespace| {
        nsp.on("message", async |socket: Socket, args: Args| socket.emit("message-back", args).unwrap());
        nsp.on("message-with-ack", async |ack: Ack, args: Args| ack.send(args).unwrap());
    };
    io.on_connect(greet);
    io.of("/custom").on_connect(greet);
    echo(io.of("/"));
    io
}

async fn run(test: impl FnOnce(std::net::SocketAddr) + Send + 'static) {
    let addr = serve(&app()).await;
    client(move || test(addr)).await;
}

#[tokio::test]
async fn should_allow_connection_to_the_main_namespace() {
    run(|addr| {
        let mut c = Client::open(addr);
        assert_eq!(c.join("/").len(), 20);
        c.expect("42[\"auth\",{}]");
    })
    .await;
}

#[tokio::test]
async fn should_allow_connection_with_a_payload() {
    run(|addr| {
        let mut c = Client::open(addr);
        c.send("40{\"token\":\"123\"}");
        assert!(c.text().starts_with("40{\"sid\":\""));
        c.expect("42[\"auth\",{\"token\":\"123\"}]");
    })
    .await;
}

#[tokio::test]
async fn should_allow_connection_to_a_custom_namespace() {
    run(|addr| {
        let mut c = Client::open(addr);
        c.join("/custom");
        c.expect("42/custom,[\"auth\",{}]");
        // Without the comma too, and several on one connection.
        let mut c = Client::open(addr);
        c.send("40/custom");
        assert!(c.text().starts_with("40/custom,{"));
        c.text();
        c.join("/");
    })
    .await;
}

#[tokio::test]
async fn should_allow_connection_to_a_custom_namespace_with_a_payload() {
    run(|addr| {
        let mut c = Client::open(addr);
        c.send("40/custom,{\"token\":\"abc\"}");
        assert!(c.text().starts_with("40/custom,{\"sid\":\""));
        c.expect("42/custom,[\"auth\",{\"token\":\"abc\"}]");
    })
    .await;
}

#[tokio::test]
async fn should_disallow_connection_to_an_unknown_namespace() {
    run(|addr| {
        let mut c = Client::open(addr);
        c.send("40/random");
        c.expect("44/random,{\"message\":\"Invalid namespace\"}");
        // The connection stays.
        c.join("/");
    })
    .await;
}

#[tokio::test]
async fn should_disallow_connection_with_an_invalid_handshake() {
    run(|addr| {
        let mut c = Client::open(addr);
        c.send("4abc");
        c.expect_closed();
    })
    .await;
}

#[tokio::test]
async fn should_close_the_connection_if_no_handshake_is_received() {
    run(|addr| {
        let start = Instant::now();
        let mut c = Client::open(addr);
        c.expect_closed();
        assert!(start.elapsed() > Duration::from_millis(900));
        // A refused namespace is no handshake.
        let mut c = Client::open(addr);
        c.send("40/random");
        c.text();
        c.expect_closed();
    })
    .await;
}

#[tokio::test]
async fn should_disconnect_from_the_main_namespace() {
    run(|addr| {
        let mut c = Client::connect(addr, "/");
        c.expect("42[\"auth\",{}]");
        c.keep_pings = true;
        c.send("41");
        c.expect("2");
    })
    .await;
}

#[tokio::test]
async fn should_connect_then_disconnect_from_a_custom_namespace() {
    run(|addr| {
        let mut c = Client::open(addr);
        c.join("/custom");
        c.text();
        c.join("/");
        c.text();
        c.send("41/custom");
        c.send("42/custom,[\"message\",1]");
        c.send("42[\"message\",2]");
        c.expect("42[\"message-back\",2]");
        // It may come back.
        c.join("/custom");
    })
    .await;
}

#[tokio::test]
async fn should_send_a_plain_text_packet() {
    run(|addr| {
        let mut c = Client::connect(addr, "/");
        c.text();
        c.send("42[\"message\",1,\"2\",{\"3\":[true]}]");
        c.expect("42[\"message-back\",1,\"2\",{\"3\":[true]}]");
    })
    .await;
}

#[tokio::test]
async fn should_send_a_packet_with_binary_attachments() {
    run(|addr| {
        let mut c = Client::connect(addr, "/");
        c.text();
        c.send("452-[\"message\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]");
        c.send_binary(&[1, 2, 3]);
        c.send_binary(&[4, 5, 6]);
        c.expect(
            "452-[\"message-back\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]",
        );
        assert_eq!(&c.binary()[..], [1, 2, 3]);
        assert_eq!(&c.binary()[..], [4, 5, 6]);
    })
    .await;
}

#[tokio::test]
async fn should_send_a_plain_text_packet_with_an_ack() {
    run(|addr| {
        let mut c = Client::connect(addr, "/");
        c.text();
        c.send("42456[\"message-with-ack\",1,\"2\",{\"3\":[false]}]");
        c.expect("43456[1,\"2\",{\"3\":[false]}]");
    })
    .await;
}

#[tokio::test]
async fn should_send_a_packet_with_binary_attachments_and_an_ack() {
    run(|addr| {
        let mut c = Client::connect(addr, "/");
        c.text();
        c.send("452-789[\"message-with-ack\",{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]");
        c.send_binary(&[1, 2, 3]);
        c.send_binary(&[4, 5, 6]);
        c.expect("462-789[{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":1}]");
        assert_eq!(&c.binary()[..], [1, 2, 3]);
        assert_eq!(&c.binary()[..], [4, 5, 6]);
    })
    .await;
}

/// Sends frames of text, separated by `|`, after CONNECT; the connection has to end, and nothing else to come.
async fn closes(frames: &'static str) {
    run(move |addr| {
        let mut c = Client::connect(addr, "/");
        c.text();
        for frame in frames.split('|') {
            c.try_send(frame);
        }
        c.expect_closed();
    })
    .await;
}

#[tokio::test]
async fn should_close_the_connection_upon_invalid_format_unknown_packet_type() {
    closes("4abc").await;
}

#[tokio::test]
async fn should_close_the_connection_upon_invalid_format_invalid_payload_format() {
    closes("42{}").await;
}

#[tokio::test]
async fn should_close_the_connection_upon_invalid_format_invalid_ack_id() {
    closes("42abc[\"message-with-ack\",1,\"2\",{\"3\":[false]}]").await;
}

#[tokio::test]
async fn other_breaches_close_the_connection_too() {
    let reserved = "42[\"disconnect\"]";
    let text_for_an_attachment = "451-[\"message\"]|42[\"x\"]";
    for frames in [reserved, "40", text_for_an_attachment, "4511-[\"message\"]", "450-[\"message\"]"] {
        closes(frames).await;
    }
}

#[tokio::test]
async fn placeholders_fit_the_attachments() {
    let far = "451-[\"message\",{\"_placeholder\":true,\"num\":1}]";
    let twice = "451-[\"message\",[{\"_placeholder\":true,\"num\":0},{\"_placeholder\":true,\"num\":0}]]";
    // Two numbers, of which one reader could take the first and another the last.
    let both =
        "452-[\"message\",{\"_placeholder\":true,\"num\":0,\"num\":1},{\"_placeholder\":true,\"num\":0}]";
    let late = "451-[\"message\",{\"x\":1,\"_placeholder\":true,\"num\":0}]";
    for (text, attachments) in [(far, 1), (twice, 1), (both, 2), (late, 1)] {
        run(move |addr| {
            let mut c = Client::connect(addr, "/");
            c.text();
            c.send(text);
            for _ in 0..attachments {
                c.send_binary(&[1]);
            }
            c.expect_closed();
        })
        .await;
    }
}

#[tokio::test]
async fn binary_out_of_place_closes() {
    run(|addr| {
        let mut c = Client::connect(addr, "/");
        c.text();
        c.send_binary(&[1]);
        c.expect_closed();
    })
    .await;
}

#[tokio::test]
async fn polling_works_and_other_paths_are_the_apps() {
    run(|addr| {
        let path = "/socket.io/?EIO=4&transport=polling";
        let (status, _, body) = http(addr, "GET", path, "", "");
        assert_eq!(status, 200);
        let open: Value = serde_json::from_str(&body[1..]).unwrap();
        let path = format!("{path}&sid={}", open["sid"].as_str().unwrap());
        assert_eq!(http(addr, "POST", &path, "", "40").2, "ok");
        let (_, _, body) = http(addr, "GET", &path, "", "");
        let mut packets = body.split('\u{1e}');
        let answer = packets.next().unwrap();
        // The public id is not the session's.
        assert!(answer.starts_with("40{\"sid\":") && !answer.contains(open["sid"].as_str().unwrap()));
        assert_eq!(packets.next(), Some("42[\"auth\",{}]"));
        assert_eq!(http(addr, "GET", "/page", "", "").2, "page");
        assert_eq!(http(addr, "GET", "/socket.io/socket.io.js", "", "").0, 400);
    })
    .await;
}
