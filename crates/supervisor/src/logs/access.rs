//! The access log of an app: entries from the front doors, written as lines. Whoever is too fast for the disk loses lines,
//! and is told how many; no request waits for it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::{Timestamp, Zoned};
use sundew_router::{Access, AccessLog};
use tokio::sync::mpsc;

use super::store::{self, Store};
use crate::Home;
use crate::api::Stream;
use crate::ecosystem::{AccessFormat, AppConfig};

/// Entries written at once.
const BATCH: usize = 512;
/// Between two words about lines that were lost.
const COMPLAIN: Duration = Duration::from_secs(10);
/// How long the last write may take once the app is gone.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Opens an app's access log, if it has one. It closes when the last front door is gone.
pub(crate) fn access(config: &AppConfig, home: &Home, foreground: bool) -> Option<AccessLog> {
    let format = config.sundew.access_log;
    if format == AccessFormat::Off {
        return None;
    }
    let (log, entries, dropped) = AccessLog::new();
    let unwritten = Arc::new(AtomicU64::new(0));
    let store = match &config.sundew.access_log_file {
        Some(file) => Store::new(file.clone(), unwritten.clone()),
        None if foreground => Store::console(Stream::Out, unwritten.clone()),
        None => {
            let file = home.logs().join(format!("{}-access.log", store::name(config)));
            Store::new(file, unwritten.clone())
        }
    };
    tokio::spawn(write(config.name.clone(), format, entries, store, [dropped, unwritten]));
    Some(log)
}

async fn write(
    app: String,
    format: AccessFormat,
    mut entries: mpsc::Receiver<Access>,
    mut store: Store,
    lost: [Arc<AtomicU64>; 2],
) {
    let mut batch = Vec::new();
    let (mut told, mut told_at) = (0, Instant::now());
    while entries.recv_many(&mut batch, BATCH).await > 0 {
        let mut lines = String::new();
        for entry in &batch {
            match format {
                AccessFormat::Json => json(entry, &mut lines),
                _ => combined(entry, &mut lines),
            }
            lines.push('\n');
        }
        let count = batch.len() as u64;
        batch.clear();
        if let Some(trouble) = store.write(lines.into_bytes(), count).await {
            tracing::warn!(app, "{trouble}");
        }
        let sum = lost.iter().map(|lost| lost.load(Ordering::Relaxed)).sum();
        if sum > told && told_at.elapsed() >= COMPLAIN {
            tracing::warn!(
                app,
                lost = sum - told,
                "lines of the access log were lost: it cannot be written as fast"
            );
            (told, told_at) = (sum, Instant::now());
        }
    }
    let _ = store.settle(LAST_WRITE).await;
}

fn json(entry: &Access, out: &mut String) {
    let time = Timestamp::try_from(entry.time).unwrap_or_default();
    let mut line = serde_json::json!({
        "time": format!("{time:.3}"),
        "client": entry.client.map(|client| client.to_string()),
        "tls": entry.secure,
        "method": entry.method,
        "host": entry.host,
        "target": entry.target,
        "status": entry.status,
        "bytes": entry.bytes,
        "ms": milliseconds(entry),
        "worker": entry.worker.map(|worker| worker.slot),
        "handedOver": entry.handed_over,
    });
    if let Some(id) = &entry.id {
        line["id"] = (**id).into();
    }
    // Writing to a string cannot fail.
    let _ = write!(out, "{line}");
}

/// `ADDRESS - - [DATE] "METHOD TARGET HTTP/1.1" STATUS BYTES "-" "-"`, then the milliseconds and the worker.
fn combined(entry: &Access, out: &mut String) {
    let time = Timestamp::try_from(entry.time).unwrap_or_default();
    let time = Zoned::new(time, jiff::tz::TimeZone::system());
    let client = entry.client.map_or_else(|| "-".to_owned(), |client| client.ip().to_string());
    let worker = entry.worker.map_or_else(|| "-".to_owned(), |worker| worker.slot.to_string());
    let _ = write!(
        out,
        "{client} - - [{}] \"{} {} HTTP/1.1\" {} {} \"-\" \"-\" {} {worker}{}",
        time.strftime("%d/%b/%Y:%H:%M:%S %z"),
        escaped(&entry.method),
        escaped(&entry.target),
        entry.status,
        entry.bytes,
        milliseconds(entry),
        if entry.handed_over { " handed-over" } else { "" },
    );
    if let Some(id) = &entry.id {
        let _ = write!(out, " {id}");
    }
}

fn milliseconds(entry: &Access) -> u64 {
    u64::try_from(entry.took.as_millis()).unwrap_or(u64::MAX)
}

/// Nothing of a request ends a line, or a part of one.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\\' => drop(write!(out, "\\{char}")),
            ' '..='~' => out.push(char),
            _ => out.extend(char.escape_default()),
        }
    }
    out
}
