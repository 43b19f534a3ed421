//! What becomes of a worker that is not ready within `listen_timeout`, and what its user is told.

use crate::dispatcher::State;
use crate::ecosystem::Kind;
use crate::link::Link;
use crate::state::{App, Role};
use crate::worker::{Phase, Report, Stop, Worker, WorkerId};
use crate::{exit, proc};

/// What is to be done.
enum Judgement {
    /// It has nothing to be ready for, and nothing is lost by it.
    Ready { warning: String },
    /// It may still become ready; a reload does not wait for that.
    Wait { reason: String },
    /// It never will.
    Hopeless { reason: String },
}

impl State {
    /// `listen_timeout` is over.
    pub(crate) fn late(&mut self, name: &str, id: WorkerId) {
        let Some(app) = self.apps.get_mut(name) else { return };
        let role = app.role(id);
        let Some(worker) = app.worker(id) else { return };
        if worker.ready {
            return warn_of_own(name, worker);
        }
        if *worker.phase.borrow() != Phase::Launching {
            return;
        }
        let timeout = exit::shown(std::time::Duration::from_millis(worker.config.listen_timeout));
        let judgement = match &worker.link {
            Link::Native(_) => native(worker, &timeout),
            Link::Node(_) if worker.config.kind == Kind::Node => node(app, &role, worker, &timeout),
            Link::Port(port) => Judgement::Wait {
                reason: format!(
                    "not ready within listen_timeout ({timeout}): nothing listens on 127.0.0.1:{}. The program must listen \
                     on the port in its environment variable PORT",
                    port.port()
                ),
            },
            Link::Node(_) | Link::Off => Judgement::Wait { reason: not_said(&timeout) },
        };
        let Some(worker) = app.worker_mut(id) else { return };
        let (reason, hopeless) = match judgement {
            Judgement::Ready { warning } => {
                tracing::warn!(app = name, slot = worker.slot, pid = worker.pid, "{warning}");
                return self.report(id, Report::Ready);
            }
            Judgement::Wait { reason } => (reason, false),
            Judgement::Hopeless { reason } => (reason, true),
        };
        match role {
            Some(Role::Incoming(_)) => {
                worker.fatal = Some(format!("{reason}{}", worker.recent.explain()));
                worker.stop(Stop::Gently);
            }
            Some(Role::Current(index)) => {
                if hopeless {
                    worker.fatal = Some(reason.clone());
                    worker.stop(Stop::Gently);
                } else {
                    worker.phase.send_replace(Phase::Late(reason.clone()));
                }
                if let Some(slot) = app.slots.get_mut(&index) {
                    slot.reason = Some(reason);
                }
            }
            _ => {}
        }
    }
}

/// What a Node worker listens on without its primary.
fn own(worker: &Worker) -> Option<String> {
    let own = Some(proc::listens_on(worker.pid)).filter(|own| !own.is_empty())?;
    Some(format!(
        "it listens on {} by itself, with `exclusive` or `reusePort`: those connections do not pass Sundew",
        own.join(", ")
    ))
}

/// A worker that is up may have sockets of its own all the same.
fn warn_of_own(app: &str, worker: &Worker) {
    if worker.config.kind == Kind::Node
        && let Some(own) = own(worker)
    {
        tracing::warn!(app, slot = worker.slot, pid = worker.pid, "{own}");
    }
}

fn not_said(timeout: &str) -> String {
    format!(
        "not ready within listen_timeout ({timeout}): `wait_ready` is set, and it did not call process.send('ready')"
    )
}

fn native(worker: &Worker, timeout: &str) -> Judgement {
    let script = worker.config.script.display();
    let own = proc::listens_on(worker.pid);
    if !worker.said_hello && !own.is_empty() {
        return Judgement::Hopeless {
            reason: format!(
                "{script} listens on {} by itself: a native worker in cluster mode must use sundew::Listener, so that all \
                 workers share the address. Use it, or set exec_mode to \"fork\"",
                own.join(", ")
            ),
        };
    }
    Judgement::Wait {
        reason: if worker.said_hello {
            format!("not ready within listen_timeout ({timeout}): sundew::serve() was not reached")
        } else {
            format!(
                "not ready within listen_timeout ({timeout}): it did not connect to the supervisor. A native worker in \
                 cluster mode must use sundew::Listener; a program that serves nothing needs exec_mode \"fork\""
            )
        },
    }
}

fn node(app: &App, role: &Option<Role>, worker: &Worker, timeout: &str) -> Judgement {
    if worker.config.wait_ready && !worker.said_ready {
        return Judgement::Wait { reason: not_said(timeout) };
    }
    let instead = own(worker).map_or_else(String::new, |own| format!(" ({own})"));
    let replaced = match role {
        Some(Role::Incoming(index)) => app.slots.get(index).and_then(|slot| slot.current.as_ref()),
        _ => None,
    };
    if !worker.said_hello {
        return Judgement::Wait {
            reason: format!(
                "not ready within listen_timeout ({timeout}): Node has not reached the program. Is {} Node.js?",
                worker.config.interpreter.first().map_or("the interpreter", String::as_str)
            ),
        };
    }
    if replaced.is_some_and(|replaced| !replaced.listens.is_empty()) {
        return Judgement::Wait {
            reason: format!(
                "not ready within listen_timeout ({timeout}): it does not listen, and the worker it is to replace does{instead}"
            ),
        };
    }
    // As under pm2: a program in cluster mode may well serve nothing.
    Judgement::Ready {
        warning: format!(
            "it listens on nothing after listen_timeout ({timeout}): supervised, not routed{instead}"
        ),
    }
}
