//! The list of processes: a table where a terminal shows it, columns of text elsewhere.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use sundew_supervisor::api::{ProcessInfo, Status};

use crate::format::{memory, uptime};
use crate::ui::Look;

/// Which columns there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Full,
    Narrow,
    Mini,
}

impl Size {
    /// The widest first.
    const ALL: [Self; 3] = [Self::Full, Self::Narrow, Self::Mini];

    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Full => {
                &["id", "name", "mode", "kind", "pid", "uptime", "↺", "status", "sessions", "cpu", "mem"]
            }
            Self::Narrow => &["id", "name", "↺", "status", "sessions", "cpu", "mem"],
            Self::Mini => &["id", "name", "status", "mem"],
        }
    }
}

/// The widest table that fits, and what needs more words than a cell has. Whoever reads a pipe (no width) gets everything.
pub(crate) fn list(processes: &[ProcessInfo], look: Look, width: Option<u16>, now: u64) -> String {
    // pm2 sorts by name; instances of one app stay in their order.
    let mut sorted: Vec<_> = processes.iter().collect();
    sorted.sort_by(|a, b| (&a.name, a.pm_id).cmp(&(&b.name, b.pm_id)));
    let mut text = String::new();
    for size in Size::ALL {
        let table = table(&sorted, look, size, now);
        let needed: u16 = table.column_max_content_widths().iter().map(|column| column + 3).sum::<u16>() + 1;
        text = table.trim_fmt();
        if width.is_none_or(|width| needed <= width) {
            break;
        }
    }
    text.push('\n');
    for line in remarks(&sorted) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn table(processes: &[&ProcessInfo], look: Look, size: Size, now: u64) -> Table {
    let mut table = Table::new();
    table.force_no_tty();
    if look.terminal {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Disabled);
    } else {
        table.load_style(presets::NOTHING);
    }
    if look.coloured() {
        table.enforce_styling();
    }
    let heads =
        size.columns().iter().map(|head| Cell::new(head).fg(Color::Cyan).add_attribute(Attribute::Bold));
    table.set_header(heads.collect::<Vec<_>>());
    for process in processes {
        table.add_row(size.columns().iter().map(|column| cell(process, column, now)).collect::<Vec<_>>());
    }
    table
}

fn cell(process: &ProcessInfo, column: &str, now: u64) -> Cell {
    let runs = process.pid != 0;
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    match column {
        "id" => right(process.pm_id.to_string()).fg(Color::Cyan),
        "name" => Cell::new(&process.name),
        "kind" => Cell::new(if process.sundew.kind == "none" { "-" } else { &process.sundew.kind }),
        "mode" => Cell::new(process.pm2_env.exec_mode.trim_end_matches("_mode")),
        "pid" => right(if runs { process.pid.to_string() } else { "-".to_owned() }),
        "uptime" if runs => right(uptime(now.saturating_sub(process.pm2_env.pm_uptime))),
        "uptime" => right("-".to_owned()),
        "↺" => right(process.pm2_env.restart_time.to_string()),
        "status" => {
            let stuck = process.sundew.stuck_ms.is_some();
            let colour = match process.pm2_env.status {
                Status::Online if stuck => Color::Yellow,
                Status::Online => Color::Green,
                Status::Launching => Color::Blue,
                Status::WaitingRestart | Status::Stopping => Color::Yellow,
                Status::Stopped | Status::Errored => Color::Red,
            };
            let mark = if stuck { " (stuck)" } else { "" };
            Cell::new(format!("{}{mark}", process.pm2_env.status)).fg(colour).add_attribute(Attribute::Bold)
        }
        "sessions" => right(sessions(process)),
        "cpu" => right(format!("{:.0}%", process.monit.cpu)),
        _ => right(memory(process.monit.memory)),
    }
}

/// The worker's own sessions, and those its predecessor still keeps.
fn sessions(process: &ProcessInfo) -> String {
    let own = process.sundew.sessions.total;
    match &process.sundew.draining {
        Some(draining) => format!("{own} + {} draining", draining.sessions.total),
        None if process.sundew.kind == "none" => "-".to_owned(),
        None => own.to_string(),
    }
}

/// Where the apps are served, and why what does not run does not.
fn remarks(processes: &[&ProcessInfo]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut named: Vec<(&str, &[String])> = Vec::new();
    for process in processes {
        let addresses = (process.name.as_str(), process.sundew.listening.as_slice());
        if !addresses.1.is_empty() && !named.contains(&addresses) {
            named.push(addresses);
            let own = own_ports(processes, addresses.0);
            lines.push(format!("{} listens on {}{own}", addresses.0, addresses.1.join(", ")));
        }
    }
    for process in processes {
        if let Some(ms) = process.sundew.stuck_ms {
            let seconds = ms as f64 / 1000.0;
            lines.push(format!(
                "{} [{}] is stuck: its event loop has not answered for {seconds:.1} s, new sessions go to others",
                process.name, process.pm_id
            ));
        }
    }
    for process in processes {
        let failed = matches!(process.pm2_env.status, Status::Errored | Status::WaitingRestart);
        let exit = process.sundew.last_exit.as_ref().filter(|_| failed).map(|exit| exit.text.clone());
        let why = match (process.sundew.reason.clone(), exit) {
            // The reason may be the last exit's.
            (Some(reason), Some(exit)) if !reason.contains(&exit) => format!("{reason}; the last one {exit}"),
            (Some(why), _) | (None, Some(why)) => why,
            (None, None) => continue,
        };
        let next = match process.sundew.restart_in_ms {
            Some(ms) => format!(" (next start in {:.1} s)", ms as f64 / 1000.0),
            None => String::new(),
        };
        let status = process.pm2_env.status;
        lines.push(format!("{} [{}] {status}: {why}{next}", process.name, process.pm_id));
    }
    lines
}

/// Where each worker of an app is reached alone, if it is.
fn own_ports(processes: &[&ProcessInfo], app: &str) -> String {
    let own = |process: &&&ProcessInfo| process.name == app && process.sundew.direct.is_some();
    let mut workers: Vec<_> = processes.iter().filter(own).map(|process| &process.sundew).collect();
    workers.sort_by_key(|worker| worker.slot);
    match workers.as_slice() {
        [] => String::new(),
        [one] => format!("; worker {} also on {}", one.slot, one.direct.as_deref().unwrap_or_default()),
        [first, .., last] => {
            let (from, to) =
                (first.direct.as_deref().unwrap_or_default(), last.direct.as_deref().unwrap_or_default());
            let port = to.rsplit(':').next().unwrap_or(to);
            format!("; workers {} to {} also on {from} to {port}", first.slot, last.slot)
        }
    }
}

#[cfg(test)]
mod tests {
    use sundew_supervisor::api::{LastExit, Monit, Pm2Env, Sessions, SundewInfo};

    use super::*;

    fn process(name: &str, pm_id: u32, status: Status) -> ProcessInfo {
        let pid = if matches!(status, Status::Online) { 100 + pm_id } else { 0 };
        ProcessInfo {
            pid,
            name: name.to_owned(),
            pm_id,
            pm2_env: Pm2Env {
                name: name.to_owned(),
                namespace: "default".to_owned(),
                status,
                restart_time: 3,
                unstable_restarts: 0,
                pm_uptime: 1_000_000,
                created_at: 0,
                exec_mode: "cluster_mode".to_owned(),
                instances: 2,
                pm_exec_path: "/a".to_owned(),
                pm_cwd: "/".to_owned(),
                pm_out_log_path: String::new(),
                pm_err_log_path: String::new(),
                args: Vec::new(),
                exec_interpreter: "none".to_owned(),
                autorestart: true,
                instance: 0,
                exit_code: None,
            },
            monit: Monit { memory: 43_830_477, cpu: 1.6 },
            sundew: SundewInfo {
                kind: "native".to_owned(),
                listening: vec!["0.0.0.0:8080".to_owned()],
                sessions: Sessions { total: 12, polling: 2, websocket: 10 },
                ..SundewInfo::default()
            },
        }
    }

    #[test]
    fn plain_text_for_a_pipe() {
        let mut errored = process("b", 0, Status::Errored);
        errored.sundew.last_exit = Some(LastExit {
            code: Some(1),
            signal: None,
            uptime_ms: 5,
            at: 0,
            text: "exited with code 1 after 5 ms".to_owned(),
        });
        let text = list(&[errored, process("a", 1, Status::Online)], Look::plain(false), None, 6_400_000);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows[0],
            ["id", "name", "mode", "kind", "pid", "uptime", "↺", "status", "sessions", "cpu", "mem"]
        );
        assert_eq!(
            rows[1],
            ["1", "a", "cluster", "native", "101", "90m", "3", "online", "12", "2%", "41.8mb"]
        );
        assert_eq!(rows[2], ["0", "b", "cluster", "native", "-", "-", "3", "errored", "12", "2%", "41.8mb"]);
        assert!(text.contains("a listens on 0.0.0.0:8080\n"), "{text}");
        assert!(text.ends_with("b [0] errored: exited with code 1 after 5 ms\n"), "{text}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn ports_of_single_workers_are_named() {
        let mut all: Vec<_> = (0..3).map(|id| process("a", id, Status::Online)).collect();
        for (slot, process) in (0u16..).zip(&mut all) {
            process.sundew.slot = slot;
            process.sundew.direct = Some(format!("[::]:{}", 3131 + slot));
        }
        let text = list(&all, Look::plain(false), None, 6_400_000);
        let wanted = "a listens on 0.0.0.0:8080; workers 0 to 2 also on [::]:3131 to 3133\n";
        assert!(text.ends_with(wanted), "{text}");
    }

    #[test]
    fn a_stuck_worker_is_marked() {
        let mut stuck = process("a", 1, Status::Online);
        stuck.sundew.kind = "node".to_owned();
        stuck.sundew.stuck_ms = Some(5240);
        let text = list(&[stuck, process("a", 2, Status::Online)], Look::plain(false), None, 6_400_000);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1][..5], ["1", "a", "cluster", "node", "101"]);
        assert_eq!(rows[1][7..9], ["online", "(stuck)"]);
        assert_eq!(rows[2][7..9], ["online", "12"]);
        assert!(text.contains("a [1] is stuck: its event loop has not answered for 5.2 s"), "{text}");
    }

    #[test]
    fn fewer_columns_where_there_is_less_room() {
        let all: Vec<_> = (0..4).map(|id| process("web", id, Status::Online)).collect();
        let mut heads = Vec::new();
        for width in [120, 70, 40] {
            let text = list(&all, Look::plain(true), Some(width), 1_000_000);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(width), "{width}: {widest}\n{text}");
            heads.push(text.lines().nth(1).unwrap().matches('┆').count() + 1);
        }
        assert_eq!(heads, [11, 7, 4]);
    }
}
