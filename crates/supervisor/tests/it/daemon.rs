//! The supervisor's own process: one per home, its end, its death, the foreground.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sundew_supervisor::HOME_ENV;
use sundew_supervisor::client::ClientError;

use crate::house::{House, as_process, folder, get, runs, until};

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_second_one_is_refused() {
    let house = House::new().await;
    let mut second = as_process("daemon");
    second.env(HOME_ENV, house.home.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = second.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Running"), "{said}");
    assert!(house.client.ping().await.is_ok());
}

#[tokio::test]
async fn kill_ends_everything() {
    let mut house = House::new().await;
    house.start(house.native("app", "first", 2)).await.unwrap();
    house.start(house.script("plain", "exec sleep 600")).await.unwrap();
    let pids: Vec<u32> = house.list().await.iter().map(|process| process.pid).collect();
    house.client.kill().await.unwrap().finish(|_| {}).await.unwrap();
    assert!(!pids.into_iter().any(runs));
    assert!(house.process.wait().unwrap().success());
    assert!(matches!(house.client.ping().await, Err(ClientError::NoDaemon { .. })));
    assert!(!house.home.socket().exists());
}

#[tokio::test]
async fn after_a_killed_one_the_next_start_works_and_nothing_is_left() {
    let mut house = House::new().await;
    let mut app = house.native("app", "first", 2);
    app.sundew.drain_timeout = 500;
    house.start(app.clone()).await.unwrap();
    house.start(house.script("plain", "exec sleep 600")).await.unwrap();
    let addr = house.addr().await;
    app.env.insert("ADDR".to_owned(), addr.to_string());
    let pids: Vec<u32> = house.list().await.iter().map(|process| process.pid).collect();
    house.process.kill().unwrap();
    house.process.wait().unwrap();
    let folder = house.folder.clone();
    std::mem::forget(house);

    let house = House::in_folder(folder).await;
    house.start(app).await.unwrap();
    assert_eq!(get(addr, "/").unwrap().0, 200);
    until("nothing is left", async || !pids.iter().any(|pid| runs(*pid))).await;
}

/// The foreground with one native app and one plain one.
async fn foreground(plain: &str) -> (std::process::Child, House) {
    // A house lends its ways to make apps; its own daemon is not used.
    let house = House::new().await;
    let apps = vec![house.native("app", "first", 2), house.script("plain", plain)];
    let mut command: Command = as_process("run");
    command
        .env(HOME_ENV, house.folder.join("foreground"))
        .env("APPS", serde_json::to_string(&apps).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    (command.spawn().unwrap(), house)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_foreground_shows_lines_and_ends_by_sigterm() {
    let (mut run, house) = foreground("echo $$; exec sleep 600").await;
    let mut out = run.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let mut byte = [0];
        while !text.contains("plain | ") || !text.ends_with('\n') {
            out.read_exact(&mut byte).unwrap();
            text.push(char::from(byte[0]));
        }
        text
    });
    let text = tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap();
    let line = text.lines().last().unwrap();
    let (prefix, pid) = line.split_once(" | ").unwrap();
    assert_eq!(prefix, "2|plain");
    let pid: u32 = pid.trim().parse().unwrap();
    assert!(runs(pid));
    signal(run.id(), Signal::TERM);
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert!(!runs(pid));
    drop(house);
}

#[tokio::test]
async fn a_second_signal_ends_the_foreground_at_once() {
    let (mut run, house) = foreground("trap '' INT; while :; do sleep 0.1; done").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = std::time::Instant::now();
    signal(run.id(), Signal::INT);
    tokio::time::sleep(Duration::from_millis(100)).await;
    signal(run.id(), Signal::INT);
    run.wait().unwrap();
    assert!(started.elapsed() < Duration::from_millis(1500), "kill_timeout was not waited for");
    drop(house);
}

#[test]
fn a_folder_nobody_can_write_to_is_named() {
    let file = folder().join("file");
    std::fs::write(&file, "").unwrap();
    let error = sundew_supervisor::Home::at(file.join("home")).unwrap().create().unwrap_err();
    assert!(error.to_string().contains("SUNDEW_HOME"), "{error}");
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}
