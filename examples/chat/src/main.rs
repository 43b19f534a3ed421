//! The demo: a page with a button, and a Socket.IO server that says which worker answered.
//!
//! Run it alone (`cargo run -p chat`) or on four workers (`sundew run examples/chat/pm2.json`) and open `/page`. With
//! `/page?route=direct` the page is told which worker's own port to connect to.

mod client;

use std::borrow::Cow;
use std::io::IsTerminal;

use axum::RequestPartsExt;
use axum::http::request::Parts;
use axum::response::{Html, Redirect};
use axum::routing::get;
use serde_json::json;
use sundew::{Cors, DisconnectReason, Listener, Namespace, NoRoute, Route, Socket, SocketIo};
use tracing_subscriber::EnvFilter;

/// What `GET /page` serves.
const PAGE: &str = include_str!("page.html");

#[tokio::main]
async fn main() -> std::io::Result<()> {
    // `RUST_LOG=debug` says why clients are refused or disconnected.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_ansi(std::io::stdout().is_terminal())
        .without_time()
        .with_target(false)
        .init();

    // A page that connects to a worker's own port is of another origin, as browsers see it. `Cors::default()` allows any;
    // outside of a demo, name the page's.
    let mut builder = SocketIo::builder().cors(Cors::default());
    match client::find() {
        Some(folder) => builder = builder.serve_client(folder),
        None => tracing::warn!("no client script: run `{}` once, then start again", client::INSTALL),
    }
    let io = builder.build();
    for namespace in ["/", "/ws"] {
        answer(&io.of(namespace));
    }

    let app = axum::Router::new()
        .route("/", get(|| async { Redirect::temporary("/page") }))
        .route("/page", get(page));
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = Listener::bind(format!("0.0.0.0:{port}")).await?;
    tracing::info!("http://localhost:{port}/page");
    sundew::serve(listener, io.wrap(app)).await
}

/// The page; with `?route=direct`, with the port that its session should use written into it.
async fn page(mut request: Parts) -> Result<Html<Cow<'static, str>>, NoRoute> {
    let query = request.uri.query().unwrap_or_default();
    if !query.split('&').any(|pair| pair == "route=direct") {
        return Ok(Html(PAGE.into()));
    }
    // Asked for only where it is told: each one counts as a client that is expected.
    let Route { url, .. } = request.extract().await?;
    Ok(Html(PAGE.replacen(r#"data-direct="""#, &format!(r#"data-direct="{url}""#), 1).into()))
}

/// Answers `b:message` with `s:message`, and logs who comes and goes.
fn answer(namespace: &Namespace) {
    namespace.on_connect(async |socket: Socket| {
        let namespace = socket.namespace();
        tracing::info!(id = socket.id(), namespace = namespace.name(), peer = ?socket.peer_addr(), "connected");
    });
    namespace.on("b:message", async |socket: Socket| {
        let worker = sundew::instance();
        // A client that is gone by now is no failure.
        let _ = socket.emit("s:message", json!({ "instance": worker.slot, "pid": worker.pid }));
    });
    namespace.on_disconnect(async |socket: Socket, reason: DisconnectReason| {
        let namespace = socket.namespace();
        tracing::info!(id = socket.id(), namespace = namespace.name(), %reason, "disconnected");
    });
}
