//! The supervisor's process: one per home. In the background (`daemon`) or in the foreground (`run`), where it is fit to
//! be process 1 of a container.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sundew_nodes::ClusterConfig;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::api::{Failure, IfPresent, StartRequest};
use crate::client::Client;
use crate::control::{self, Control};
use crate::dispatcher::Dispatcher;
use crate::ecosystem::AppConfig;
use crate::ops::{Operations, Watcher};
use crate::{Home, HomeError, reap, records};

/// How long nothing may be online in the foreground before it ends: pm2-runtime's first look.
const NOTHING_ONLINE: Duration = Duration::from_secs(4);
/// The exit code then: pm2-runtime's.
const NOTHING_ONLINE_CODE: u8 = 2;
/// How long to wait for the lock: one that was killed a moment ago may not be quite gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Another one has the home.
    #[error("a supervisor runs in {home} already{}. `sundew list` shows what it runs; another SUNDEW_HOME makes room for a second one", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Running {
        /// The home.
        home: PathBuf,
        /// The other's process id, if known.
        pid: Option<u32>,
    },
    /// It was started and did not answer.
    #[error("the daemon did not start: {reason}\n{log}")]
    NotStarted {
        /// Why not.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// The system refused something it cannot do without.
    #[error("{what}: {source}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it could not.
        source: io::Error,
    },
    /// The first apps could not be started (foreground).
    #[error(transparent)]
    Start(#[from] Failure),
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let what = what.into();
    move |source| DaemonError::Io { what, source }
}

/// The runtime a supervisor is meant to run in: few threads, because each costs memory and the work is light.
///
/// # Errors
/// When the system has no threads or descriptors left.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(4))
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(2))
        .thread_name("sundew")
        .enable_all()
        .build()
}

/// Runs a daemon in this process until it is told to end. It leaves its terminal.
///
/// # Errors
/// See [`DaemonError`].
pub async fn daemon(home: Home) -> Result<(), DaemonError> {
    // Of no terminal any more. An error means it is so already.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    let house = House::open(home, false).await?;
    let mut signals = Signals::catch()?;
    tokio::select! {
        () = house.quit() => {}
        () = signals.recv() => {
            tracing::info!("draining: sessions stay until drainTimeout; a second signal ends at once");
            house.end(&mut signals).await;
        }
    }
    house.close().await;
    Ok(())
}

/// Runs apps in the foreground until a signal ends it, and gives the exit code. The log lines of the apps go to the
/// standard output and error; the control API is there as well.
///
/// # Errors
/// See [`DaemonError`]. [`DaemonError::Start`] only if nothing could be started at all.
pub async fn run(
    home: Home,
    apps: Vec<AppConfig>,
    cluster: Option<ClusterConfig>,
) -> Result<u8, DaemonError> {
    let house = House::open(home, true).await?;
    let mut signals = Signals::catch()?;
    let request = StartRequest { apps, if_present: IfPresent::Restart, cluster };
    let starting = house.operations.start(request, &house.watcher);
    let started = tokio::select! {
        started = starting => started,
        () = signals.recv() => {
            house.end(&mut signals).await;
            house.close().await;
            return Ok(0);
        }
    };
    let mut alive = house.alive().await;
    if let Err(failure) = started {
        if !*alive.borrow_and_update() {
            house.operations.end(false, &Watcher::none()).await?;
            house.close().await;
            return Err(failure.into());
        }
        tracing::error!("{failure}");
    }
    let code = tokio::select! {
        () = house.quit() => 0,
        () = signals.recv() => {
            tracing::info!("draining: sessions stay until drainTimeout; a second signal ends at once");
            house.end(&mut signals).await;
            0
        }
        () = nothing_online(&mut alive) => {
            tracing::error!("no process is online any more: ending");
            house.operations.end(false, &Watcher::none()).await?;
            NOTHING_ONLINE_CODE
        }
    };
    house.close().await;
    Ok(code)
}

async fn nothing_online(alive: &mut watch::Receiver<bool>) {
    loop {
        if alive.wait_for(|alive| !alive).await.is_err() {
            return std::future::pending().await;
        }
        let again = alive.wait_for(|alive| *alive);
        if tokio::time::timeout(NOTHING_ONLINE, again).await.is_err() {
            return;
        }
    }
}

/// What makes this process the supervisor of a home.
struct House {
    home: Home,
    operations: Operations,
    watcher: Watcher,
    quit: Arc<watch::Sender<bool>>,
    /// The lock, held by being open.
    _lock: File,
}

impl House {
    async fn open(home: Home, foreground: bool) -> Result<Self, DaemonError> {
        home.create()?;
        let lock = lock(&home).await?;
        raise_file_limit();
        records::end_leftovers(&home.processes()).await;
        let _ = std::fs::remove_file(home.processes());
        reap::start().map_err(io_error("cannot watch for children that end"))?;
        let socket = home.socket();
        // The lock is ours, so whoever made this is gone.
        let _ = std::fs::remove_file(&socket);
        let cannot = || format!("cannot listen on {}", socket.display());
        let listener = UnixListener::bind(&socket).map_err(io_error(cannot()))?;
        std::fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(io_error(cannot()))?;
        let operations = Operations { dispatcher: Dispatcher::start(home.clone(), foreground) };
        let quit = Arc::new(watch::channel(false).0);
        let control = Control { operations: operations.clone(), quit: quit.clone(), started: Instant::now() };
        tokio::spawn(control::serve(listener, control));
        tracing::info!(home = %home.path().display(), pid = std::process::id(), "ready");
        Ok(Self { home, operations, watcher: Watcher::none(), quit, _lock: lock })
    }

    async fn quit(&self) {
        let _ = self.quit.subscribe().wait_for(|quit| *quit).await;
    }

    /// Whether any process is up or will be.
    async fn alive(&self) -> watch::Receiver<bool> {
        let alive = self.operations.dispatcher.run(|state| state.alive.subscribe()).await;
        alive.unwrap_or_else(|_| watch::channel(true).1)
    }

    /// Ends everything in order; at a second signal at once.
    async fn end(&self, signals: &mut Signals) {
        let watcher = Watcher::none();
        tokio::select! {
            _ = self.operations.end(true, &watcher) => {}
            () = signals.recv() => {
                tracing::warn!("told so twice: ending at once");
                let _ = self.operations.end_now().await;
            }
        }
    }

    async fn close(self) {
        if let Ok(Some(nodes)) = self.operations.dispatcher.run(|state| state.nodes.take()).await {
            nodes.leave().await;
        }
        // Whoever asked for the end gets its answer out first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = std::fs::remove_file(self.home.socket());
        let _ = std::fs::remove_file(self.home.processes());
    }
}

/// Takes the home's lock. The system lets go of it when this process ends in whatever way, so nothing stale is left.
async fn lock(home: &Home) -> Result<File, DaemonError> {
    let path = home.lock();
    let cannot = || format!("cannot lock {}", path.display());
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(&path).map_err(io_error(cannot()))?;
    let until = Instant::now() + LOCK_PATIENCE;
    let other = Client::new(home.clone());
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(io_error(cannot())(error.into()));
        }
        // One that answers stays. One that is about to end, or to begin, does not answer.
        let asked = tokio::time::timeout_at(until.into(), other.ping()).await;
        if matches!(asked, Ok(Ok(_))) || Instant::now() > until {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            return Err(DaemonError::Running { home: home.path().to_owned(), pid: text.trim().parse().ok() });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // For people: the lock itself is what counts.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// As many open files as the system lets us have: a connection is one, until it is handed over.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    _hangup: Signal,
}

impl Signals {
    fn catch() -> Result<Self, DaemonError> {
        let catch = |kind| signal(kind).map_err(io_error("cannot catch signals"));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            quit: catch(SignalKind::quit())?,
            // A terminal that closes ends nothing.
            _hangup: catch(SignalKind::hangup())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
