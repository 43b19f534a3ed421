//! A daemon for one test, in a folder of its own, and short ways to ask it for things.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sundew_supervisor::Home;
use sundew_supervisor::api::{Event, IfPresent, ProcessInfo, StartRequest, Status, Target};
use sundew_supervisor::client::{Client, ClientError};
use sundew_supervisor::ecosystem::{AppConfig, ExecMode, Kind, LogFile, LogFormat, SundewOptions};

/// Nothing a test waits for takes this long on a machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct House {
    pub(crate) folder: PathBuf,
    pub(crate) home: Home,
    pub(crate) client: Client,
    pub(crate) process: Child,
}

/// This program as one of the tests in `process.rs`.
pub(crate) fn as_process(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("process::process_{name}"), "--ignored", "--nocapture"]);
    command
}

pub(crate) fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("sundew-it-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::in_folder(folder()).await
    }

    pub(crate) async fn in_folder(folder: PathBuf) -> Self {
        let home = Home::at(folder.join("home")).unwrap();
        let mut command = as_process("daemon");
        command.env(sundew_supervisor::HOME_ENV, home.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().unwrap();
        let client = Client::new(home.clone());
        until("the daemon answers", async || client.ping().await.is_ok()).await;
        Self { folder, home, client, process }
    }

    /// An app that runs a shell script.
    pub(crate) fn script(&self, name: &str, text: &str) -> AppConfig {
        let path = self.folder.join(format!("{name}.sh"));
        std::fs::write(&path, text).unwrap();
        AppConfig { script: path, interpreter: vec!["/bin/sh".to_owned()], ..config(name, &self.folder) }
    }

    /// An app of native workers.
    pub(crate) fn native(&self, name: &str, mode: &str, instances: u32) -> AppConfig {
        let program = as_process("worker");
        let args = program.get_args().map(|arg| arg.to_str().unwrap().to_owned()).collect();
        let mut app = AppConfig {
            script: program.get_program().into(),
            args,
            exec_mode: ExecMode::Cluster,
            kind: Kind::Native,
            instances,
            ..config(name, &self.folder)
        };
        app.env.insert("MODE".to_owned(), mode.to_owned());
        app.env.insert("ADDR".to_owned(), "127.0.0.1:0".to_owned());
        app
    }

    pub(crate) async fn start(&self, app: AppConfig) -> Result<Vec<ProcessInfo>, ClientError> {
        self.start_as(app, IfPresent::Restart).await
    }

    pub(crate) async fn start_as(
        &self,
        app: AppConfig,
        if_present: IfPresent,
    ) -> Result<Vec<ProcessInfo>, ClientError> {
        let request = StartRequest { apps: vec![app], if_present, cluster: None };
        self.client.start(&request).await?.finish(|_| {}).await
    }

    pub(crate) async fn stop(&self, what: &str) -> Vec<ProcessInfo> {
        self.client.stop(Target::parse([what])).await.unwrap().finish(|_| {}).await.unwrap()
    }

    pub(crate) async fn reload(&self, what: &str, wait: bool) -> Result<Vec<Event>, ClientError> {
        let mut events = Vec::new();
        let operation = self.client.reload(Target::parse([what]), wait).await?;
        operation.finish(|event| events.push(event.clone())).await.map(|_| events)
    }

    pub(crate) async fn list(&self) -> Vec<ProcessInfo> {
        self.client.list().await.unwrap()
    }

    pub(crate) async fn process(&self, id: u32) -> ProcessInfo {
        self.list().await.into_iter().find(|process| process.pm_id == id).unwrap()
    }

    pub(crate) async fn until_status(&self, id: u32, status: Status) -> ProcessInfo {
        until(&format!("process {id} is {status}"), async || self.process(id).await.pm2_env.status == status)
            .await;
        self.process(id).await
    }

    /// Where the app of process 0 is served.
    pub(crate) async fn addr(&self) -> SocketAddr {
        self.process(0).await.sundew.listening[0].parse().unwrap()
    }

    /// The stored lines of process 0.
    pub(crate) fn stored(&self, file: &str) -> String {
        std::fs::read_to_string(self.home.logs().join(file)).unwrap_or_default()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn config(name: &str, cwd: &Path) -> AppConfig {
    AppConfig {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        file: None,
        script: PathBuf::new(),
        interpreter: Vec::new(),
        args: Vec::new(),
        cwd: cwd.to_owned(),
        env: BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]),
        exec_mode: ExecMode::Fork,
        kind: Kind::None,
        instances: 1,
        instance_var: "NODE_APP_INSTANCE".to_owned(),
        port: None,
        autorestart: true,
        max_restarts: 3,
        min_uptime: 1000,
        restart_delay: 0,
        exp_backoff_restart_delay: 0,
        stop_exit_codes: Vec::new(),
        kill_timeout: 1600,
        shutdown_with_message: false,
        wait_ready: false,
        listen_timeout: 10_000,
        treekill: true,
        out_file: LogFile::Default,
        error_file: LogFile::Default,
        merge_logs: false,
        log_date_format: None,
        log_format: LogFormat::Raw,
        sundew: SundewOptions::default(),
    }
}

pub(crate) async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// One request on a connection of its own: status and body.
pub(crate) fn get(addr: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {text:?}")))?;
    Ok((status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}
