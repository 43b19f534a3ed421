//! What clients are told when an argument of a handler cannot be made, and what is told of clients that are held back.

#![allow(clippy::unwrap_used)]

mod support;

use serde::Deserialize;
use serde_json::json;
use sundew_socketio::call::SocketCall;
use sundew_socketio::{Ack, Auth, EventError, Extract, ExtractError, Socket, SocketIo};
use support::{Client, client, serve};

#[derive(Deserialize)]
struct Login {
    #[allow(dead_code)]
    token: String,
}

/// An extractor of the app's own.
struct Me;

impl<C: SocketCall> Extract<C> for Me {
    fn extract(call: &mut C) -> Result<Me, ExtractError> {
        let asked = |word| call.socket().query("as").is_some_and(|name| name == word);
        match () {
            () if asked("nobody") => {
                Err(EventError::new("log in").with_data(json!({"where": "/login"})).into())
            }
            () if asked("broken") => Err(ExtractError::Other("hunter2".into())),
            () => Ok(Me),
        }
    }
}

#[tokio::test]
async fn clients_learn_what_is_theirs_to_know() {
    let io = SocketIo::new();
    io.of("/auth").with(async |Auth(_): Auth<Login>| Ok::<(), String>(()));
    io.of("/me").with(async |_: Me| Ok::<(), String>(()));
    io.on("login", async |Auth(_): Auth<Login>, ack: Ack| ack.send(1));
    io.on("me", async |_: Me, ack: Ack| ack.send(1));
    // What a broadcast says is fit to be the last word.
    io.on("all", async |socket: Socket| socket.broadcast().emit("heard", 1));
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("40/auth,{\"token\":1}");
        c.expect("44/auth,{\"message\":\"Invalid auth\"}");
        c.send("40/auth,{\"token\":\"t\"}");
        assert!(c.text().starts_with("40/auth,"));
        c.send("421[\"login\"]");
        c.expect("431[{\"error\":{\"message\":\"Invalid auth\"}}]");
        c.send("421[\"all\"]");
        c.send("422[\"me\"]");
        c.expect("432[1]");
        for (name, told) in [
            ("nobody", "{\"message\":\"log in\",\"data\":{\"where\":\"/login\"}}"),
            ("broken", "{\"message\":\"Internal error\"}"),
        ] {
            let mut c = Client::open_at(addr, &format!("EIO=4&transport=websocket&as={name}"));
            c.send("40/me,");
            c.expect(&format!("44/me,{told}"));
            c.join("/");
            c.send("421[\"me\"]");
            c.expect(&format!("431[{{\"error\":{told}}}]"));
        }
    })
    .await;
    let troubles = io.troubles();
    assert_eq!((troubles.bad_arguments, troubles.rejected, troubles.handler_errors), (2, 1, 2));
}

#[tokio::test]
async fn who_is_held_back_is_counted_once() {
    let io = SocketIo::builder().max_in_progress(2).max_waiting(3).max_waiting_bytes(1000).build();
    io.on("hang", async || std::future::pending::<()>().await);
    io.of("/slow").on_connect(async || std::future::pending::<()>().await);
    io.of("/seen").on_any(async || std::future::pending::<()>().await);
    io.of("/seen").on("hang", async || std::future::pending::<()>().await);
    let addr = serve(&io).await;
    client(move || {
        let mut busy = Client::connect(addr, "/");
        let mut waiting = Client::open(addr);
        waiting.send("40/slow,");
        assert!(waiting.text().starts_with("40/slow,"));
        for _ in 0..5 {
            busy.send("42[\"hang\"]");
            waiting.send("42/slow,[\"e\"]");
        }
        let mut seen = Client::connect(addr, "/seen");
        // With an observer each: they are three at work, and never two.
        seen.send("42/seen,[\"e\"]");
        seen.send("42/seen,[\"hang\"]");
        let mut large = Client::open(addr);
        large.send("40/slow,");
        assert!(large.text().starts_with("40/slow,"));
        large.send(&format!("42/slow,[\"e\",\"{}\"]", "x".repeat(1000)));
        // Another one is not.
        Client::connect(addr, "/").send("42[\"hang\"]");
        let until = std::time::Instant::now() + support::PATIENCE;
        while io.troubles().held_back < 4 && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(io.troubles().held_back, 4);
    })
    .await;
}
