//! The server that tests and measurements use: it gives back what it gets, alone (`cargo run -p echo`) and on four workers
//! (`sundew run examples/echo/pm2.json`).

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::routing::get;
use serde_json::{Value, json};
use sundew::adapter::AdapterError;
use sundew::parser::Msgpack;
use sundew::recovery::Recovery;
use sundew::{
    Ack, AckError, Args, Auth, BroadcastAckError, Builder, ConnectError, Data, DisconnectReason, Event,
    EventError, Listener, Namespace, Params, PatternError, PerMessageDeflate, Socket, SocketIo,
};
use tracing_subscriber::EnvFilter;

/// How long clients may take to acknowledge.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> std::io::Result<()> {
    // `RUST_LOG=debug` says why clients are refused or disconnected.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(std::io::stdout().is_terminal())
        .without_time()
        .with_target(false)
        .init();

    let io = options().build();
    for namespace in ["/", "/ws", "/auth"] {
        // It keeps nothing about a socket, so one may go on at another node.
        io.of(namespace).movable();
        one_client(&io.of(namespace));
        everybody(&io.of(namespace));
        rooms(&io.of(namespace));
        if std::env::var_os("ECHO_REASONS").is_some() {
            reasons(&io.of(namespace));
        }
    }
    io.of("/auth").with(only_with_the_secret);
    let made = io.of_pattern("/made-{name}").map_err(std::io::Error::other)?;
    one_client(&made);
    everybody(&made);
    made_on_demand(&io, &made);
    servers(&io);

    let app = axum::Router::new()
        .route("/", get(|| async { "echo" }))
        .route("/address", get(|ConnectInfo(addr): ConnectInfo<SocketAddr>| async move { addr.to_string() }));
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = Listener::bind(format!("0.0.0.0:{port}")).await?;
    tracing::info!("listening on port {port}");
    sundew::serve(listener, io.wrap(app)).await
}

/// What some tests ask for: old clients (`ECHO_EIO3`), compressed messages (`ECHO_DEFLATE`, `takeover` or anything else).
fn options() -> Builder {
    let old = std::env::var_os("ECHO_EIO3").is_some();
    let mut builder = SocketIo::builder().allow_eio3(old).allow_jsonp(old);
    // For clients with `socket.io-msgpack-parser`.
    if std::env::var("PARSER").is_ok_and(|name| name == "msgpack") {
        builder = builder.parser(Msgpack::new());
    }
    // Clients that come back within so many seconds find everything as it was.
    if let Some(seconds) = std::env::var("RECOVERY").ok().and_then(|text| text.parse().ok()) {
        let recovery = Recovery::new().max_disconnection_duration(Duration::from_secs(seconds));
        builder = builder.connection_state_recovery(recovery);
    }
    // Clients that are cut off know it within twice so many seconds.
    if let Some(seconds) = std::env::var("HEARTBEAT").ok().and_then(|text| text.parse().ok()) {
        let seconds = Duration::from_secs(seconds);
        builder = builder.ping_interval(seconds).ping_timeout(seconds);
    }
    let Some(how) = std::env::var_os("ECHO_DEFLATE") else { return builder };
    builder.per_message_deflate(Some(PerMessageDeflate::default().context_takeover(how == "takeover")))
}

async fn only_with_the_secret(Auth(auth): Auth<Value>) -> Result<(), ConnectError> {
    if auth["token"] == "secret" {
        return Ok(());
    }
    Err(ConnectError::new("not authorized").with_data(json!({ "content": "the token is not the secret" })))
}

// A client that is gone by the time of its answer is no failure: hence `let _ =`.

fn one_client(namespace: &Namespace) {
    namespace.on("echo", async |socket: Socket, args: Args| {
        let _ = socket.emit("echo", args);
    });
    namespace.on("echo-ack", async |args: Args, ack: Ack| {
        let _ = ack.send(args);
    });
    namespace.on("ask-me", async |socket: Socket, args: Args, ack: Ack| {
        let answer: Value = socket.emit_with_ack("ask-me", args).timeout(ACK_TIMEOUT).await?;
        let _ = ack.send(answer);
        Ok::<(), AckError>(())
    });
    namespace.on("recovered", async |socket: Socket, ack: Ack| {
        let _ = ack.send(json!([socket.recovered(), socket.rooms()]));
    });
    namespace.on("whoami", async |socket: Socket, ack: Ack| {
        let worker = sundew::instance();
        let _ = ack.send(json!({
            "instance": worker.slot,
            "pid": worker.pid,
            "address": socket.peer_addr(),
            "transport": socket.transport().as_str(),
        }));
    });
}

/// Why clients leave, told to those in the room `watchers`; and one that asks for it is sent away.
fn reasons(namespace: &Namespace) {
    namespace.on_disconnect(async |socket: Socket, namespace: Namespace, reason: DisconnectReason| {
        namespace.to("watchers").emit("left", (socket.id(), reason.as_str()));
    });
    namespace.on("go", async |socket: Socket, Data(close): Data<bool>| socket.disconnect(close));
}

/// To all sockets of the namespace, on all workers.
fn everybody(namespace: &Namespace) {
    namespace.on("broadcast", async |namespace: Namespace, args: Args| {
        namespace.emit("broadcast", args);
    });
    namespace.on("broadcast-ack", async |namespace: Namespace, args: Args, ack: Ack| {
        let everybody = namespace.timeout(ACK_TIMEOUT);
        let answers: Vec<Value> = everybody.emit_with_ack("broadcast-ack", args).await?;
        let _ = ack.send(answers.len());
        Ok::<(), BroadcastAckError>(())
    });
    namespace.on("count", async |namespace: Namespace, ack: Ack| {
        let _ = ack.send(namespace.fetch_sockets().await?.len());
        Ok::<(), AdapterError>(())
    });
}

/// Namespaces that are there while somebody is in them.
fn made_on_demand(io: &SocketIo, made: &Namespace) {
    made.with_event(async |event: Event| match &*event.0 {
        "forbidden" => Err(EventError::new("forbidden").with_data(json!({ "code": 7 }))),
        _ => Ok(()),
    });
    made.on("name", async |Params(name): Params<String>, ack: Ack| {
        let _ = ack.send(name);
    });
    io.on("all-made", async |io: SocketIo, args: Args| {
        io.of_pattern("/made-{name}")?.emit("broadcast", args);
        Ok::<(), PatternError>(())
    });
    io.on("namespaces", async |io: SocketIo, ack: Ack| {
        let _ = ack.send((io.namespaces(),));
    });
}

/// What the workers say to each other.
fn servers(io: &SocketIo) {
    io.on_server_event("who", async |ack: Ack| {
        let slot = sundew::instance().slot;
        let _ = ack.send((slot, Bytes::from(slot.to_be_bytes().to_vec())));
    });
    io.on("everywhere", async |io: SocketIo, ack: Ack| {
        let others: Vec<(u16, Bytes)> = io.server_side_emit_with_ack("who", ()).await?;
        let _ = ack.send((others,));
        Ok::<(), BroadcastAckError>(())
    });
}

fn rooms(namespace: &Namespace) {
    namespace.on("join", async |socket: Socket, Data(room): Data<String>, ack: Ack| {
        socket.join(room);
        let _ = ack.send(());
    });
    namespace.on("leave", async |socket: Socket, Data(room): Data<String>, ack: Ack| {
        socket.leave(room);
        let _ = ack.send(());
    });
    namespace.on("room-broadcast", async |namespace: Namespace, args: Args| {
        if args.attachments().is_empty() {
            let (room, payload): (String, Value) = args.decode()?;
            namespace.to(room).emit("broadcast", payload);
        } else {
            let (room, payload): (String, Bytes) = args.decode()?;
            namespace.to(room).emit("broadcast", payload);
        }
        Ok::<(), sundew::DataError>(())
    });
}
