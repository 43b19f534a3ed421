//! `describe`: everything about a process, in the rows of pm2 and those of Sundew.

use sundew_supervisor::api::{Description, ProcessInfo, Traffic, WorkerErrors};

use crate::args::Targets;
use crate::format::{memory, now, uptime};
use crate::session::{Session, target};
use crate::ui::{self, Look, Result};

pub(crate) async fn describe(session: &Session, targets: &Targets) -> Result {
    let target = target(&targets.targets)?;
    let look = Look::stdout();
    let mut text = String::new();
    for description in session.client.describe(&target).await? {
        let process = &description.process;
        let head = format!("{} [{}] {}", process.name, process.pm_id, process.pm2_env.status);
        text.push_str(&format!("{}\n", look.cyan(head)));
        for (name, value) in rows(&description, now()) {
            text.push_str(&format!("  {name:<20} {value}\n"));
        }
        text.push('\n');
    }
    ui::print(text)
}

fn rows(description: &Description, now: u64) -> Vec<(String, String)> {
    let Description { process, config, front } = description;
    let env = &process.pm2_env;
    let own = &process.sundew;
    let time = |ms: u64| format!("{} ms", ms);
    let words = |words: &[String]| if words.is_empty() { "-".to_owned() } else { words.join(" ") };
    let mut rows: Vec<(&str, String)> = vec![
        ("status", status(process)),
        ("name", process.name.clone()),
        ("namespace", env.namespace.clone()),
        ("pid", if process.pid == 0 { "-".to_owned() } else { process.pid.to_string() }),
        ("restarts", env.restart_time.to_string()),
        ("unstable restarts", env.unstable_restarts.to_string()),
        ("uptime", if process.pid == 0 { "-".to_owned() } else { uptime(now.saturating_sub(env.pm_uptime)) }),
        ("script path", env.pm_exec_path.clone()),
        ("script args", words(&env.args)),
        ("interpreter", words(&config.interpreter)),
        ("exec cwd", env.pm_cwd.clone()),
        ("exec mode", env.exec_mode.clone()),
        ("instances", format!("{} (this is {} = {})", env.instances, config.instance_var, env.instance)),
        ("out log path", env.pm_out_log_path.clone()),
        ("error log path", env.pm_err_log_path.clone()),
        ("cpu, memory", format!("{:.0}%, {}", process.monit.cpu, memory(process.monit.memory))),
    ];
    if let Some(file) = &config.file {
        rows.push(("ecosystem file", file.display().to_string()));
    }
    if let Some(reason) = &own.reason {
        rows.push(("reason", reason.clone()));
    }
    if let Some(exit) = &own.last_exit {
        let ago = uptime(now.saturating_sub(exit.at));
        rows.push(("last exit", format!("{} ({ago} ago, after {} ms)", exit.text, exit.uptime_ms)));
    }
    if let Some(ms) = own.restart_in_ms {
        rows.push(("next start in", time(ms)));
    }
    rows.extend([
        ("autorestart", config.autorestart.to_string()),
        ("max restarts", config.max_restarts.to_string()),
        ("min uptime", time(config.min_uptime)),
        ("restart delay", time(config.restart_delay)),
        ("kill timeout", time(config.kill_timeout)),
        ("listen timeout", time(config.listen_timeout)),
        ("kind", own.kind.clone()),
    ]);
    if own.kind != "none" {
        let sessions = own.sessions;
        let kinds = format!("{} polling, {} websocket", sessions.polling, sessions.websocket);
        rows.extend([("listens on", words(&own.listening))]);
        rows.extend(own.direct.clone().map(|addr| ("own port", addr)));
        rows.extend(config.sundew.advertise().map(|told| ("told at", told.path)));
        rows.extend(own.tls.as_ref().map(|tls| ("TLS on", words(&tls.listening))));
        rows.extend(
            own.tls
                .as_ref()
                .and_then(|tls| tls.error.as_ref())
                .map(|error| ("new certificates", format!("not used: {error}"))),
        );
        rows.extend([
            ("slot, generation", format!("{}, {}", own.slot, own.generation)),
            ("sessions", format!("{} ({kinds})", sessions.total)),
            ("given to it", given(&own.traffic)),
            ("under way", under_way(&own.traffic)),
            ("errors", errors(&own.traffic.errors)),
            ("affinity", name_of(&config.sundew.affinity)),
            ("balance", name_of(&config.sundew.balance)),
            ("drain timeout", time(config.sundew.drain_timeout)),
        ]);
    }
    match own.kind.as_str() {
        "node" => {
            let sundew = &config.sundew;
            let restart = match sundew.hung_restart {
                0 => "never".to_owned(),
                ms => time(ms),
            };
            rows.extend([
                ("preload", sundew.preload.to_string()),
                ("serialization", name_of(&sundew.serialization)),
                ("hung after, restart", format!("{}, {restart}", time(sundew.hung_after))),
                (
                    "told to leave by",
                    if config.shutdown_with_message { "message" } else { "SIGINT" }.to_owned(),
                ),
            ]);
        }
        "port" => rows.extend(config.port.map(|port| ("port", port.to_string()))),
        _ => {}
    }
    if let Some(draining) = &own.draining {
        let left = format!("{} sessions, {} ms left", draining.sessions.total, draining.deadline_ms);
        rows.push(("old worker", format!("pid {}, {left}", draining.pid)));
    }
    if let Some(ms) = own.unaccepted_ms {
        rows.push(("hangs", format!("a connection has been waiting for {ms} ms to be taken")));
    }
    if own.log_lines_lost > 0 {
        rows.push(("log lines lost", own.log_lines_lost.to_string()));
    }
    let rows = rows.into_iter().map(|(name, value)| (name.to_owned(), value));
    rows.chain(front.iter().map(|(name, value)| (format!("front: {name}"), value.to_string()))).collect()
}

/// What the running process was given so far.
fn given(traffic: &Traffic) -> String {
    let Traffic { handshakes, handed_off, proxied, tunnelled, .. } = traffic;
    format!(
        "{handshakes} handshakes, {handed_off} connections, {proxied} requests, {tunnelled} upgrades through the front door"
    )
}

fn under_way(traffic: &Traffic) -> String {
    format!("{} requests, {} connections being handed over", traffic.in_flight, traffic.handing_off)
}

/// Those kinds there were.
fn errors(errors: &WorkerErrors) -> String {
    let WorkerErrors { returned, unreachable, unanswered, invalid, cut, stalled, client_gone } = *errors;
    let kinds = [
        (returned, "connections came back"),
        (unreachable, "requests could not be sent"),
        (unanswered, "requests without an answer"),
        (invalid, "answers that are no HTTP"),
        (cut, "answers cut off"),
        (stalled, "stalled"),
        (client_gone, "clients gone too early"),
    ];
    let there: Vec<_> = kinds.iter().filter(|(count, _)| *count > 0).collect();
    if there.is_empty() {
        return "none".to_owned();
    }
    there.iter().map(|(count, kind)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

/// The status, and what pm2 has no word for.
fn status(process: &ProcessInfo) -> String {
    let status = process.pm2_env.status;
    match process.sundew.stuck_ms {
        Some(ms) => format!("{status} (stuck: its event loop has not answered for {ms} ms)"),
        None => status.to_string(),
    }
}

/// The word that a file would have for it.
fn name_of(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}
