//! Plain programs: started, watched, stopped.

use sundew_supervisor::api::{Scale, ScaleRequest, Status, Target};
use sundew_supervisor::ecosystem::AppConfig;

use crate::house::{House, runs, until};

#[tokio::test]
async fn a_program_finds_what_pm2_gives_it() {
    let house = House::new().await;
    let mut app = house.script(
        "env",
        "echo \"$name $pm_id $NODE_APP_INSTANCE $I $PORT $MINE ${HOME:-none}\"; pwd; exec sleep 600",
    );
    app.instances = 2;
    app.instance_var = "I".to_owned();
    app.port = Some(4321);
    app.env.insert("MINE".to_owned(), "yes".to_owned());
    let processes = house.start(app).await.unwrap();
    assert_eq!(processes.iter().map(|process| process.pm_id).collect::<Vec<_>>(), [0, 1]);
    for id in [0, 1] {
        let expected = format!("env {id} {id} {id} 4321 yes none\n{}\n", house.folder.display());
        until("it wrote", async || house.stored(&format!("env-out-{id}.log")) == expected).await;
    }
    let process = house.process(1).await;
    assert_eq!(process.pm2_env.status, Status::Online);
    assert!(process.monit.memory > 0 && runs(process.pid));
}

#[tokio::test]
async fn one_that_dies_at_every_start_ends_errored_with_its_reason() {
    let house = House::new().await;
    // Whether it was up before it was over is a matter of chance.
    let _ = house.start(house.script("dies", "exit 3")).await;
    let process = house.until_status(0, Status::Errored).await;
    assert_eq!(process.pm2_env.restart_time, 2, "the third exit is max_restarts' last");
    assert_eq!(process.pm2_env.exit_code, Some(3));
    let exit = process.sundew.last_exit.unwrap();
    assert!(exit.text.starts_with("exited with code 3 after"), "{}", exit.text);
    assert!(process.sundew.reason.unwrap().contains("max_restarts"));
}

#[tokio::test]
async fn a_killed_one_waits_its_delay_and_comes_back() {
    let house = House::new().await;
    let app = AppConfig { restart_delay: 300, ..house.script("back", "exec sleep 600") };
    house.start(app).await.unwrap();
    let before = house.process(0).await.pid;
    kill(before);
    let waiting = house.until_status(0, Status::WaitingRestart).await;
    assert_eq!(waiting.sundew.last_exit.unwrap().signal.as_deref(), Some("SIGKILL"));
    assert!(waiting.sundew.restart_in_ms.unwrap() <= 300);
    let after = house.until_status(0, Status::Online).await;
    assert_ne!(after.pid, before);
    assert_eq!(after.pm2_env.restart_time, 1);
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn stop_ends_the_whole_tree_and_the_stubborn() {
    let house = House::new().await;
    let text = "trap '' INT\nsleep 600 &\necho $!\nwhile :; do sleep 1; done";
    let app = AppConfig { kill_timeout: 200, ..house.script("tree", text) };
    house.start(app).await.unwrap();
    until("it wrote", async || house.stored("tree-out-0.log").ends_with('\n')).await;
    let child: u32 = house.stored("tree-out-0.log").trim().parse().unwrap();
    let leader = house.process(0).await.pid;
    assert!(runs(child) && runs(leader));
    let stopped = house.stop("tree").await;
    assert_eq!(stopped[0].pm2_env.status, Status::Stopped);
    assert_eq!(stopped[0].pid, 0);
    assert!(!runs(leader) && !runs(child));
}

#[tokio::test]
async fn a_stop_ends_a_restart_that_waits() {
    let house = House::new().await;
    let app = AppConfig { restart_delay: 200, max_restarts: 100, ..house.script("loop", "exit 1") };
    // Whether it was up before it was over is a matter of chance.
    let _ = house.start(app).await;
    house.until_status(0, Status::WaitingRestart).await;
    house.stop("0").await;
    let restarts = house.process(0).await.pm2_env.restart_time;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let process = house.process(0).await;
    assert_eq!((process.pm2_env.status, process.pm2_env.restart_time), (Status::Stopped, restarts));
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let house = House::new().await;
    let plain = house.folder.join("plain");
    std::fs::write(&plain, "text").unwrap();
    let mut app = AppConfig { script: plain.clone(), interpreter: Vec::new(), ..house.script("a", "") };
    let error = house.start(app.clone()).await.unwrap_err().to_string();
    assert!(error.contains("not executable") && error.contains("chmod +x"), "{error}");
    assert_eq!(house.process(0).await.pm2_env.status, Status::Errored);
    app.cwd = "/no/such/folder".into();
    let error = house.start(app.clone()).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/folder") && error.contains("cwd"), "{error}");
    app.cwd = house.folder.clone();
    app.interpreter = vec!["/no/such/interpreter".to_owned()];
    let error = house.start(app).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/interpreter"), "{error}");
}

#[tokio::test]
async fn targets_scale_and_delete() {
    let house = House::new().await;
    house.start(house.script("one", "exec sleep 600")).await.unwrap();
    house.start(house.script("two", "exec sleep 600")).await.unwrap();
    let scale = async |to| {
        let request = ScaleRequest { app: "one".to_owned(), to };
        let processes = house.client.scale(&request).await.unwrap().finish(|_| {}).await;
        processes.map(|processes| processes.len())
    };
    assert_eq!(scale(Scale::Up(2)).await.unwrap(), 3);
    assert_eq!(scale(Scale::Down(1)).await.unwrap(), 2);
    assert_eq!(house.list().await.len(), 3);
    assert!(scale(Scale::To(0)).await.unwrap_err().to_string().contains("1 to 256"));
    let error = house.client.stop(Target::parse(["three"])).await.unwrap().finish(|_| {}).await.unwrap_err();
    assert!(error.to_string().contains("\"three\" not found (there are: one, two)"), "{error}");
    let pids: Vec<u32> = house.list().await.iter().map(|process| process.pid).collect();
    house.client.delete(Target::All).await.unwrap().finish(|_| {}).await.unwrap();
    assert!(house.list().await.is_empty() && !pids.into_iter().any(runs));
    let again = house.start(house.script("one", "exec sleep 600")).await.unwrap();
    assert_eq!(again[0].pm_id, 0, "ids begin anew when the list is empty");
}
