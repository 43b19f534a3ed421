//! A worker without a supervisor, as a process: this test program runs itself.

#![allow(clippy::unwrap_used, reason = "clippy knows helpers of tests only inside #[test] functions")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::routing::get;
use sundew_worker::{Listener, cluster, instance, serve};

const CHILD: &str = "SUNDEW_TEST_CHILD";

#[tokio::test]
#[ignore = "not a test: the program that the others start"]
async fn child() {
    let slow = Duration::from_millis(std::env::var(CHILD).unwrap().parse().unwrap());
    assert!(cluster().is_none());
    assert_eq!((instance().app, instance().slot, instance().pid), (None, 0, std::process::id()));
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let app = axum::Router::new()
        .route("/address", get(|ConnectInfo(addr): ConnectInfo<SocketAddr>| async move { addr.to_string() }))
        .route(
            "/slow",
            get(move || async move {
                println!("\nslow");
                tokio::time::sleep(slow).await;
                "done"
            }),
        );
    println!("\nport {}", listener.local_addr().port());
    serve(listener, app).await.unwrap();
    println!("\nreturned");
}

struct Server {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Server {
    fn start(slow_ms: u64) -> Server {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture"])
            .env(CHILD, slow_ms.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Server { child, output, port: 0 };
        server.port = server.line("port ").parse().unwrap();
        server
    }

    /// Waits for a line that begins so, and returns its rest.
    fn line(&mut self, start: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "no line {start:?}");
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    fn get(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The forged header must not be believed.
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nx-sundew-peer: 6.6.6.6:6\r\n\r\n").unwrap();
        stream
    }
}

#[test]
fn a_signal_ends_it_after_the_requests_in_flight() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(300);
        let mut idle = server.get("/address");
        let mut answer = [0; 512];
        let length = idle.read(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(text.ends_with(&idle.local_addr().unwrap().to_string()), "{text}");

        let mut busy = server.get("/slow");
        server.line("slow");
        server.signal(signal);
        let mut text = String::new();
        busy.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("done"), "{text}");
        assert_eq!(idle.read(&mut answer).unwrap(), 0, "an idle connection is closed");
        server.line("returned");
        assert!(server.child.wait().unwrap().success());
        assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(60_000);
    let _busy = server.get("/slow");
    server.line("slow");
    server.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    server.signal("TERM");
    server.line("returned");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(server.child.wait().unwrap().success());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = first.local_addr();
    let error = Listener::bind(addr).await.unwrap_err().to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("another process"), "{error}");
    let error = Listener::bind("8080").await.unwrap_err().to_string();
    assert!(error.contains("\"8080\""), "{error}");
}
