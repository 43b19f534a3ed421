//! One pipe of one process: read, cut into lines, dated, stored, shown.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Zoned;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::store::Store;
use super::{DateFormat, Hub, Recent};
use crate::api::{LogLine, Stream};

/// The longest line, in bytes; a longer one becomes several.
pub(crate) const LINE_LIMIT: usize = 8 * 1024;
/// What is read at once.
const CHUNK: usize = 8 * 1024;
/// How long the last write may take once the process is gone.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Whose pipe it is, and where its lines go.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) pm_id: u32,
    pub(crate) stream: Stream,
    pub(crate) file: Option<std::path::PathBuf>,
    pub(crate) date: Option<DateFormat>,
    pub(crate) json: bool,
    pub(crate) hub: Hub,
    pub(crate) lost: Arc<AtomicU64>,
    pub(crate) recent: Option<Arc<Recent>>,
    /// Show it on the supervisor's own output too.
    pub(crate) console: bool,
}

/// Reads to the end of the pipe, which is when the last process that holds it is gone.
pub(crate) async fn pump(mut pipe: impl AsyncRead + Unpin, source: Source) {
    let mut store = source.file.clone().map(|file| Store::new(file, source.lost.clone()));
    let mut console = source.console.then(|| Store::console(source.stream, source.lost.clone()));
    let mut buffer: Vec<u8> = Vec::with_capacity(CHUNK);
    loop {
        let open = match pipe.read_buf(&mut buffer).await {
            Ok(read) => read > 0,
            Err(error) => {
                tracing::warn!(app = source.name, id = source.pm_id, %error, "cannot read what the process writes");
                false
            }
        };
        let whole = match buffer.iter().rposition(|byte| *byte == b'\n') {
            _ if !open => buffer.len(),
            Some(end) => end + 1,
            None if buffer.len() >= LINE_LIMIT => buffer.len(),
            None => 0,
        };
        if whole > 0 {
            let mut batch = Batch::default();
            for line in buffer[..whole].split_inclusive(|byte| *byte == b'\n') {
                source.line(line, store.is_some(), &mut batch);
            }
            buffer.drain(..whole);
            for (store, bytes) in [(&mut store, batch.stored), (&mut console, batch.shown)] {
                if let Some(store) = store
                    && let Some(trouble) = store.write(bytes, batch.count).await
                {
                    source.complain(trouble);
                }
            }
        }
        if !open {
            break;
        }
    }
    for store in [store, console] {
        if let Some(mut store) = store
            && let Some(trouble) = store.settle(LAST_WRITE).await
        {
            source.complain(trouble);
        }
    }
}

/// Lines ready to be stored.
#[derive(Default)]
struct Batch {
    stored: Vec<u8>,
    shown: Vec<u8>,
    count: u64,
}

impl Source {
    fn line(&self, line: &[u8], stored: bool, batch: &mut Batch) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(recent) = &self.recent {
            recent.push(&String::from_utf8_lossy(line));
        }
        let shown = self.hub.wanted();
        if !stored && !shown && !self.console {
            return;
        }
        let mut stamp = String::new();
        if let Some(date) = &self.date {
            date.write(&Zoned::now(), &mut stamp);
        }
        if shown {
            let mut text = String::from_utf8_lossy(line).into_owned();
            if !stamp.is_empty() {
                text = format!("{stamp}: {text}");
            }
            let (name, pm_id, stream) = (self.name.clone(), Some(self.pm_id), self.stream);
            self.hub.publish(LogLine { name, pm_id, stream, text });
        }
        batch.count += 1;
        if self.console {
            batch.shown.extend_from_slice(format!("{}|{} | ", self.pm_id, self.name).as_bytes());
            if !stamp.is_empty() {
                batch.shown.extend_from_slice(stamp.as_bytes());
                batch.shown.extend_from_slice(b": ");
            }
            batch.shown.extend_from_slice(line);
            batch.shown.push(b'\n');
        }
        if !stored {
            return;
        }
        if self.json {
            let kind = if self.stream == Stream::Err { "err" } else { "out" };
            let mut message = String::from_utf8_lossy(line).into_owned();
            message.push('\n');
            let stamp = if stamp.is_empty() { jiff::Timestamp::now().to_string() } else { stamp };
            let line = serde_json::json!({
                "message": message, "timestamp": stamp, "type": kind,
                "process_id": self.pm_id, "app_name": self.name,
            });
            batch.stored.extend_from_slice(line.to_string().as_bytes());
        } else {
            if !stamp.is_empty() {
                batch.stored.extend_from_slice(stamp.as_bytes());
                batch.stored.extend_from_slice(b": ");
            }
            batch.stored.extend_from_slice(line);
        }
        batch.stored.push(b'\n');
    }

    fn complain(&self, trouble: String) {
        tracing::warn!(app = self.name, id = self.pm_id, "{trouble}");
        self.hub.notice(&self.name, self.pm_id, trouble);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Received;
    use super::*;

    fn source(hub: &Hub, file: Option<std::path::PathBuf>) -> Source {
        Source {
            name: "a".to_owned(),
            pm_id: 1,
            stream: Stream::Out,
            file,
            date: Some(DateFormat::new("[D]")),
            json: false,
            hub: hub.clone(),
            lost: Arc::default(),
            recent: None,
            console: false,
        }
    }

    #[tokio::test]
    async fn every_line_is_dated_and_long_ones_are_cut() {
        let path = std::env::temp_dir().join(format!("sundew-pump-{}.log", std::process::id()));
        let long = "x".repeat(LINE_LIMIT * 2 + 5);
        let input = format!("one\r\ntwo\n\n{long}\nlast");
        pump(input.as_bytes(), source(&Hub::new(), Some(path.clone()))).await;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["D: one", "D: two", "D: "]);
        assert_eq!(lines.last(), Some(&"D: last"));
        assert!(lines.iter().all(|line| line.starts_with("D: ") && line.len() <= 2 * LINE_LIMIT));
        assert_eq!(text.matches('x').count(), long.len());
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_slow_follower_loses_lines_and_learns_how_many() {
        let hub = Hub::new();
        let mut follower = hub.follow();
        let input = "line\n".repeat(10_000);
        pump(input.as_bytes(), source(&hub, None)).await;
        let Some(Received::Missed(missed)) = follower.next().await else { panic!("nothing was missed") };
        assert!(missed > 9_000);
        assert!(matches!(follower.next().await, Some(Received::Line(line)) if line.text == "D: line"));
    }
}
