//! One running process, to its end: executes what it is told and reports what happens. Decides nothing; speaks to
//! nobody but the process and the dispatcher.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sundew_channel::native::{LetGo, NoTarget, RecvError, ToSupervisor, ToWorker};
use sundew_router::{Front, WeakFront};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api::{LastExit, Sessions};
use crate::dispatcher::Input;
use crate::link::Link;
use crate::native::Native;
use crate::node::Node;
use crate::node::listen::Said;
use crate::{exit, proc, reap};

/// Names a process for as long as the daemon lives: unlike a slot or a pid it is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerId(pub(crate) u64);

/// What a process was told about its end. Only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    Not,
    /// SIGINT (or the message 'shutdown'), and SIGKILL after `kill_timeout`.
    Gently,
    /// SIGKILL.
    Now,
}

/// How far a process is. The flows wait on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Started, not ready.
    Launching,
    /// Not ready in time, and waited for further.
    Late(String),
    /// Ready, and routed if it is to be.
    Online,
    /// Ended, or refused; why.
    Over(String),
}

/// What the executor reports.
#[derive(Debug)]
pub(crate) enum Report {
    Hello,
    Listen {
        id: u64,
        addr: String,
    },
    Ready,
    /// A Node worker's word on one of its servers.
    Said(Said),
    /// Its event loop has not answered for so long that it is to be restarted.
    Hung(Duration),
    /// It has taken what joins it with the others.
    Meshed,
    /// `listen_timeout` is over.
    Late,
    /// Its channel ended, its process may follow.
    Disconnected,
    Exited(LastExit),
    /// A drain is over and the worker can be told to leave.
    Retired,
}

/// A process as the dispatcher holds it.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) pid: u32,
    pub(crate) slot: u16,
    pub(crate) generation: u8,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) config: Arc<crate::ecosystem::AppConfig>,
    pub(crate) link: Link,
    pub(crate) said_hello: bool,
    /// Of a Node worker: it said "ready".
    pub(crate) said_ready: bool,
    /// It goes by itself, when its connections have.
    pub(crate) leaves: bool,
    pub(crate) ready: bool,
    /// It serves: the front door knows it.
    pub(crate) routed: bool,
    /// What it listens on, by the name under which that is listed.
    pub(crate) listens: Vec<String>,
    /// What a Node worker asked for so far, by the same names.
    pub(crate) asked: Vec<String>,
    /// What it did or was refused that explains its end.
    pub(crate) blame: Option<String>,
    /// Why it must not be started again, if so.
    pub(crate) fatal: Option<String>,
    pub(crate) recent: Arc<crate::logs::Recent>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) stop: watch::Sender<Stop>,
}

impl Worker {
    pub(crate) fn stop(&self, how: Stop) {
        self.stop.send_if_modified(|before| {
            let more = how > *before;
            if more {
                *before = how;
            }
            more
        });
    }
}

/// What the executor needs to know.
pub(crate) struct Execution {
    pub(crate) id: WorkerId,
    pub(crate) child: Child,
    pub(crate) started: Instant,
    pub(crate) kill_timeout: Duration,
    /// Signals go to everything the process started, not to it alone.
    pub(crate) tree: bool,
    /// It is told to leave by the message 'shutdown' instead of a signal.
    pub(crate) message: Option<Arc<Node>>,
    pub(crate) stop: watch::Receiver<Stop>,
    pub(crate) pumps: Vec<JoinHandle<()>>,
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// How long after a process's end its pipes may still bring lines that explain it.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How often a group that was told to leave is looked at once its leader is gone.
const GROUP_LOOK: Duration = Duration::from_millis(50);

impl Execution {
    /// Runs until the process, and what it started if it was told to stop, is gone.
    pub(crate) async fn run(mut self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let mut kill_at: Option<tokio::time::Instant> = None;
        let mut told = Stop::Not;
        let status = loop {
            let patience = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = self.child.wait() => break status,
                changed = self.stop.changed() => {
                    // The dispatcher dropped the worker: it is not wanted any more.
                    let how = if changed.is_err() { Stop::Now } else { *self.stop.borrow_and_update() };
                    if how > told {
                        told = how;
                        match how {
                            Stop::Gently => {
                                match &self.message {
                                    Some(node) => node.tell(sundew_channel::node::ToWorker::Shutdown),
                                    None => self.signal(pid, Signal::INT),
                                }
                                kill_at = Some(tokio::time::Instant::now() + self.kill_timeout);
                            }
                            _ => {
                                self.signal(pid, Signal::KILL);
                                kill_at = None;
                            }
                        }
                    }
                    if changed.is_err() {
                        break self.child.wait().await;
                    }
                }
                () = patience => {
                    kill_at = None;
                    tracing::warn!(pid = ?pid, after = ?self.kill_timeout, "did not leave in time: killed");
                    self.signal(pid, Signal::KILL);
                }
            }
        };
        let uptime = self.started.elapsed();
        if let Some(pid) = pid {
            reap::forget(pid.as_raw_nonzero().get().cast_unsigned());
        }
        if self.tree {
            self.end_group(pid, kill_at).await;
        }
        for pump in &mut self.pumps {
            // Somebody else may hold the pipe: the pump goes on then, the report does not wait for it.
            let _ = tokio::time::timeout(LAST_WORDS, pump).await;
        }
        let exit = match status {
            Ok(status) => exit::last_exit(status, uptime),
            Err(error) => exit::not_started(format!("its end was not seen: {error}")),
        };
        self.report(Report::Exited(exit)).await;
    }

    fn signal(&self, pid: Option<Pid>, signal: Signal) {
        let Some(pid) = pid else { return };
        // An error means it is gone already.
        let _ = if self.tree { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
    }

    /// Ends what the process left behind in its group: at once if it died by itself, else when the time it was given
    /// is over.
    async fn end_group(&self, pid: Option<Pid>, until: Option<tokio::time::Instant>) {
        let Some(group) = pid else { return };
        if let Some(until) = until {
            while proc::group_runs(group) && tokio::time::Instant::now() < until {
                tokio::time::sleep(GROUP_LOOK).await;
            }
        }
        let _ = kill_process_group(group, Signal::KILL);
    }

    async fn report(&self, report: Report) {
        let _ = self.inputs.send(Input::Report(self.id, report)).await;
    }
}

/// Reads what a native worker says, to the end of its channel. What only concerns routing goes to its [`Native`].
/// And so does what it asks of the front door.
pub(crate) async fn listen(id: WorkerId, native: Arc<Native>, front: WeakFront, inputs: mpsc::Sender<Input>) {
    let report = async |report| drop(inputs.send(Input::Report(id, report)).await);
    loop {
        match native.channel().recv().await {
            Ok(Some((message, _fd))) => match message {
                ToSupervisor::Hello { protocol, version, pid } => {
                    tracing::debug!(?id, protocol, version, pid, "a worker connected its channel");
                    report(Report::Hello).await;
                }
                ToSupervisor::Listen { id, addr } => report(Report::Listen { id, addr }).await,
                ToSupervisor::Ready => report(Report::Ready).await,
                ToSupervisor::Load { sessions, polling, websocket, placements } => {
                    native.report_load(Sessions { total: sessions, polling, websocket }, placements);
                }
                ToSupervisor::Accepted { through } => native.confirm(through),
                ToSupervisor::Drained => native.report_drained(),
                ToSupervisor::Exported { id, state } => native.moves.exported(id, state),
                ToSupervisor::Imported { id, result } => native.moves.imported(id, result),
                ToSupervisor::Route { id, host, client } => {
                    let told = front.upgrade().map(|front| front.tell(host.as_bytes(), client));
                    native.tell(ToWorker::Routed { id, result: told.unwrap_or(Err(NoTarget::NoWorker)) });
                }
            },
            Ok(None) => break,
            Err(RecvError::Io(error)) => {
                tracing::warn!(?id, %error, "the channel of a worker failed");
                break;
            }
            Err(error) => tracing::warn!(?id, %error, "a message of a worker was ignored"),
        }
    }
    report(Report::Disconnected).await;
}

/// How long a new session may be on its way to a worker that was just taken out of the choice.
pub(crate) const SETTLE: Duration = Duration::from_millis(250);
/// How long a worker may take to take what was sent to it before.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// What a worker gets on top of the deadline and of the pauses between its batches for letting go of its sessions.
pub(crate) const LET_GO_LIMIT: Duration = Duration::from_secs(30);
/// How long the requests in flight may take at least once no session is left: beyond it, until the deadline.
pub(crate) const RETIRE_LIMIT: Duration = Duration::from_secs(5);

/// Empties a worker the front door gives no new sessions any more. `deadline` can be moved forward meanwhile.
pub(crate) async fn drain(
    id: WorkerId,
    native: Arc<Native>,
    front: Front,
    let_go: LetGo,
    mut deadline: watch::Receiver<tokio::time::Instant>,
    inputs: mpsc::Sender<Input>,
) {
    use sundew_router::Backend as _;

    // What was sent before comes first: sessions that are being opened now are sessions it keeps.
    let _ = tokio::time::timeout(SETTLE_LIMIT, native.all_confirmed()).await;
    tokio::time::sleep(SETTLE).await;
    loop {
        let until = *deadline.borrow_and_update();
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let deadline_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        native.tell(ToWorker::Drain { deadline_ms });
        let batches = native.load().total.div_ceil(let_go.batch.max(1));
        let paced = Duration::from_millis(let_go.pause_ms.saturating_mul(u64::from(batches)));
        tokio::select! {
            () = native.drained() => break,
            () = tokio::time::sleep(left.saturating_add(paced) + LET_GO_LIMIT) => {
                tracing::warn!(?id, "the worker did not let go of its sessions in time");
                break;
            }
            changed = deadline.changed() => if changed.is_err() { break },
        }
    }
    loop {
        let until = *deadline.borrow_and_update();
        let left = until.saturating_duration_since(tokio::time::Instant::now()).max(RETIRE_LIMIT);
        tokio::select! {
            () = front.retire(native.id(), left) => break,
            changed = deadline.changed() => if changed.is_err() { break },
        }
    }
    let _ = inputs.send(Input::Report(id, Report::Retired)).await;
}
