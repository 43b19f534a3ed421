//! What an app does with its sockets while their clients leave and come back: in virtual time, over polling.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use sundew_socketio::recovery::Recovery;
use sundew_socketio::{AckError, ConnectError, EmitError, Socket, SocketIo};
use support::in_place::InPlace;

/// A client that comes and goes.
struct Guest {
    client: InPlace,
    io: SocketIo,
    sid: String,
    answer: Value,
}

impl Guest {
    async fn new(io: &SocketIo) -> Guest {
        let client = InPlace::new(io);
        let mut guest = Guest { client, io: io.clone(), sid: String::new(), answer: json!({}) };
        guest.come().await;
        guest
    }

    /// What it is sent before it is answered.
    async fn come(&mut self) -> Vec<String> {
        self.sid = self.client.open(&json!({"pid": &self.answer["pid"]})).await;
        let mut packets = self.receive().await;
        let answer = packets.pop().unwrap();
        self.answer = serde_json::from_str(answer.strip_prefix("40").unwrap()).unwrap();
        packets
    }

    async fn receive(&self) -> Vec<String> {
        let packets = self.client.request(Method::GET, &self.sid, "").await;
        packets.split('\x1e').map(str::to_owned).collect()
    }

    async fn leave(&self) {
        self.client.leave(&self.sid).await;
        while self.io.get(self.id()).is_some() {
            tokio::task::yield_now().await;
        }
    }

    fn id(&self) -> &str {
        self.answer["sid"].as_str().unwrap()
    }

    fn socket(&self) -> Socket {
        self.io.get(self.id()).unwrap()
    }
}

fn recovery() -> Recovery {
    Recovery::new().max_disconnection_duration(Duration::from_secs(60))
}

#[tokio::test(start_paused = true)]
async fn a_handle_from_before_is_the_socket_it_has_become() {
    let io = SocketIo::builder().connection_state_recovery(recovery()).build();
    let mut guest = Guest::new(&io).await;
    let before = guest.socket();
    before.set_data("before").unwrap();
    guest.leave().await;
    guest.come().await;
    assert_eq!((before.data(), guest.socket().data()), (json!("before"), json!("before")));
    before.set_data("since").unwrap();
    assert_eq!((before.data(), guest.socket().data()), (json!("since"), json!("since")));
    before.join("room");
    assert_eq!(guest.socket().rooms(), [guest.id(), "room"]);
    before.volatile().emit("volatile", 1).unwrap();
    let asked = before.emit_with_ack::<u8>("asked", ());
    let answered = async {
        let packets = guest.receive().await;
        assert_eq!(packets[0], "42[\"volatile\",1]");
        let id = packets[1].strip_prefix("42").unwrap().strip_suffix("[\"asked\"]").unwrap();
        guest.client.send(&guest.sid, &format!("43{id}[7]")).await;
    };
    assert_eq!(tokio::join!(asked, answered).0.unwrap(), 7);
    before.disconnect(true);
    assert_eq!([guest.receive().await, guest.receive().await].concat(), ["41", "1"]);
    assert!(io.get(guest.id()).is_none());
    let asked = before.emit_with_ack::<u8>("asked", ()).await;
    assert!(matches!(asked, Err(AckError::Emit(EmitError::Closed))), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_thrown_out_while_away_starts_anew() {
    let io = SocketIo::builder().connection_state_recovery(recovery()).build();
    let mut guest = Guest::new(&io).await;
    let before = guest.socket();
    guest.leave().await;
    before.emit("kept", ()).unwrap();
    before.disconnect(true);
    assert!(matches!(before.emit("too late", ()), Err(EmitError::Closed)));
    let first = guest.answer.clone();
    assert_eq!(guest.come().await, [""; 0]);
    assert_ne!((&guest.answer["sid"], &guest.answer["pid"]), (&first["sid"], &first["pid"]));
}

/// It sees the rooms that a client comes back to, and decides anew.
#[tokio::test(start_paused = true)]
async fn middleware_that_is_asked_again_may_leave_rooms() {
    let recovery = recovery().skip_middlewares(false);
    let io = SocketIo::builder().connection_state_recovery(recovery).build();
    let asked = Arc::new(AtomicUsize::new(0));
    io.with(move |socket: Socket| {
        let rooms = socket.rooms();
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => {
                assert_eq!(rooms, [""; 0]);
                socket.join(["admin", "all"]);
            }
            1 => {
                assert_eq!(rooms, [socket.id(), "admin", "all"]);
                socket.leave("admin");
                socket.join("more");
            }
            _ => assert_eq!(rooms, [socket.id(), "all", "more"]),
        }
        async { Ok::<(), ConnectError>(()) }
    });
    let mut guest = Guest::new(&io).await;
    guest.leave().await;
    io.to("admin").emit("while away", ());
    assert_eq!(guest.come().await.len(), 1);
    let rooms = [guest.id(), "all", "more"].map(str::to_owned);
    assert_eq!(guest.socket().rooms(), rooms);
    // Lost with its connection: it was in none but these.
    io.to("admin").emit("no", ());
    io.to(["admin", "more"]).emit("more", ());
    guest.leave().await;
    let missed = guest.come().await;
    assert_eq!(missed.len(), 2, "{missed:?}");
    assert!(
        missed[0].starts_with("42[\"while away\",") && missed[1].starts_with("42[\"more\","),
        "{missed:?}"
    );
}

/// As an app has its log shown in a browser.
struct Forward(SocketIo);

impl tracing::Subscriber for Forward {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.to("log").emit("warning", ());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_log_may_be_sent_to_sockets() {
    let builder = SocketIo::builder().max_rooms(1).max_queued(1_000_000, 10);
    let io = builder.connection_state_recovery(recovery()).build();
    let guest = Guest::new(&io).await;
    let socket = guest.socket();
    let (done, watched) = std::sync::mpsc::channel();
    let log = Forward(io.clone());
    // It would wait for itself for ever.
    std::thread::spawn(move || {
        tracing::subscriber::with_default(log, || {
            socket.join(["log", "one too many"]);
            while socket.emit("e", ()).is_ok() {}
        });
        done.send(()).unwrap();
    });
    watched.recv_timeout(Duration::from_secs(10)).expect("it waits for itself");
    let packets = guest.receive().await;
    assert!(packets.len() == 10 && packets[0].starts_with("42[\"warning\","), "{packets:?}");
}
