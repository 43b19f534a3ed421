//! What the test program is when it is started as something else.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use sundew_supervisor::Home;

/// A daemon in the home of the environment.
#[test]
#[ignore = "not a test: the daemon of the others"]
fn process_daemon() {
    let home = Home::from_env().unwrap();
    sundew_supervisor::runtime().unwrap().block_on(sundew_supervisor::daemon(home)).unwrap();
}

/// The foreground, with the apps in the environment.
#[test]
#[ignore = "not a test: the foreground of the others"]
fn process_run() {
    let home = Home::from_env().unwrap();
    let apps = serde_json::from_str(&std::env::var("APPS").unwrap()).unwrap();
    let code =
        sundew_supervisor::runtime().unwrap().block_on(sundew_supervisor::run(home, apps, None)).unwrap();
    std::process::exit(code.into());
}

/// A native worker that does what `MODE`, or the file that it names, says.
#[test]
#[ignore = "not a test: the native worker of the others"]
fn process_worker() {
    let mode = std::env::var("MODE").unwrap();
    let mode = std::fs::read_to_string(&mode).unwrap_or(mode);
    let mode = mode.trim();
    if mode == "crash" {
        eprintln!("no database at db:5432");
        std::process::exit(7);
    }
    if mode == "silent" {
        std::thread::sleep(Duration::from_secs(600));
    }
    let addr = std::env::var("ADDR").unwrap();
    if mode == "by itself" {
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = match sundew_worker::Listener::bind(&addr).await {
            Ok(listener) => listener,
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(1);
            }
        };
        if mode == "never ready" {
            std::future::pending::<()>().await;
        }
        let answer = format!("{} {}", std::process::id(), mode);
        let slow = answer.clone();
        let app = Router::new().route("/", get(async move || answer)).route(
            "/slow",
            get(async move || {
                tokio::time::sleep(Duration::from_millis(300)).await;
                slow
            }),
        );
        sundew_worker::serve(listener, app).await.unwrap();
    });
}
