//! Socket.IO over WebTransport, beside polling and websockets: one program, one port of TCP and the same of UDP.
//!
//! Browsers want a certificate. One that is not an authority's may live for 14 days at most:
//!
//! ```sh
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 13 -nodes \
//!   -subj /CN=localhost -keyout key.pem -out cert.pem
//! npm install socket.io-client
//! cargo run -p sundew --example webtransport --features webtransport
//! ```
//!
//! Then open <http://127.0.0.1:8080/>. `CERT`, `KEY`, `CLIENT` (the client's `dist` folder) and `PORT` say what is elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::response::Html;
use axum::routing::get;
use serde_json::{Value, json};
use sundew::webtransport::{Certificate, Options};
use sundew::{
    Ack, Args, Data, DisconnectReason, Listener, Namespace, Socket, SocketIo, Transports, webtransport,
};

/// What `GET /` serves.
const PAGE: &str = include_str!("page.html");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().without_time().with_target(false).init();
    let path = |name: &str, default: &str| std::env::var_os(name).unwrap_or(default.into());
    let client = PathBuf::from(path("CLIENT", "node_modules/socket.io-client/dist"));
    if !client.join("socket.io.min.js").exists() {
        tracing::warn!("no client script in {}: see CLIENT", client.display());
    }

    let io = SocketIo::builder()
        .transports(Transports { webtransport: true, ..Transports::default() })
        .serve_client(client)
        .build();
    answer(&io);

    let certificate = Certificate::from_pem_files(path("CERT", "cert.pem"), path("KEY", "key.pem"))?;
    // Browsers that know the certificate by its hash need no authority.
    let page = PAGE.replacen("[]", &format!("{:?}", certificate.sha256()), 1);
    let app = axum::Router::new().route("/", get(|| async { Html(page) }));

    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let over_tcp = Listener::bind(&address.to_string()).await?;
    let over_udp = webtransport::Listener::bind(address, certificate, Options::default())?;
    tracing::info!("http://127.0.0.1:{port}/");
    // The second ends with the first, once its clients have heard of it.
    let (http, http3) = tokio::join!(sundew::serve(over_tcp, io.wrap(app)), io.serve_webtransport(over_udp));
    http?;
    Ok(http3?)
}

// A client that is gone by the time of its answer is no failure: hence `let _ =`.

fn answer(io: &SocketIo) {
    io.on("whoami", async |socket: Socket, ack: Ack| {
        let (transport, who) = (socket.transport().as_str(), socket.query("who"));
        let _ = ack.send(json!({ "transport": transport, "address": socket.peer_addr(), "who": who }));
    });
    io.on("echo", async |socket: Socket, args: Args| {
        let _ = socket.emit("echo", args);
    });
    io.on("echo-ack", async |args: Args, ack: Ack| {
        let _ = ack.send(args);
    });
    io.on("ask-me", async |socket: Socket, args: Args, ack: Ack| {
        let answer: Value = socket.emit_with_ack("ask-me", args).await?;
        let _ = ack.send(answer);
        Ok::<(), sundew::AckError>(())
    });
    io.on("broadcast", async |namespace: Namespace, args: Args| {
        namespace.emit("broadcast", args);
    });
    io.on("go", async |socket: Socket, Data(close): Data<bool>| {
        let _ = socket.emit("echo", "last");
        socket.disconnect(close);
    });
    io.on_disconnect(async |socket: Socket, namespace: Namespace, reason: DisconnectReason| {
        namespace.emit("left", (socket.id(), reason.as_str()));
    });
}
