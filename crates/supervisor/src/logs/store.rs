//! Log files: where they are, and writing to one without ever stopping the worker for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::Home;
use crate::api::Stream;
use crate::ecosystem::{AppConfig, LogFile};

/// How long a write may take before lines are dropped instead of waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The file for a stream of a process, named as pm2 names it. `None` when it is not stored.
pub(crate) fn path(config: &AppConfig, home: &Home, pm_id: u32, stream: Stream) -> Option<PathBuf> {
    let (file, kind) = match stream {
        Stream::Err => (&config.error_file, "error"),
        _ => (&config.out_file, "out"),
    };
    match file {
        LogFile::Off => None,
        LogFile::Default => {
            let name = name(config);
            let id = if config.merge_logs { String::new() } else { format!("-{pm_id}") };
            Some(home.logs().join(format!("{name}-{kind}{id}.log")))
        }
        LogFile::Path(path) if config.merge_logs => Some(path.clone()),
        LogFile::Path(path) => {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let mut name = format!("{stem}-{pm_id}");
            if let Some(extension) = path.extension() {
                name.push('.');
                name.push_str(&extension.to_string_lossy());
            }
            Some(path.with_file_name(name))
        }
    }
}

/// The app's name, in the letters of file names.
pub(super) fn name(config: &AppConfig) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || char == '.' || char == '-';
    config.name.chars().map(|char| if plain(char) { char } else { '-' }).collect()
}

/// Where lines are written to.
enum Writer {
    File(Appender),
    /// The supervisor's own standard output or error.
    Console(Stream),
}

impl Writer {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(lines),
            Self::Console(Stream::Err) => io::stderr().lock().write_all(lines),
            Self::Console(_) => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
        }
    }
}

/// A file that is appended to.
struct Appender {
    path: PathBuf,
    file: Option<File>,
    /// The last write ended inside of a line.
    torn: bool,
}

impl Appender {
    /// Writes whole lines in one call, because several processes may share the file.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        // Somebody moved or removed the file: go on in a new one.
        if self.file.as_ref().is_some_and(|file| file.metadata().map_or(true, |meta| meta.nlink() == 0)) {
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.path)?),
        };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
        }
        let written = file.write(lines)?;
        if written < lines.len() {
            // A full disk takes a part first and refuses the rest.
            self.torn = true;
            file.write_all(&lines[written..])?;
            self.torn = false;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// A file behind a thread that may block.
pub(crate) struct Store {
    writer: Option<Writer>,
    path: PathBuf,
    running: Option<JoinHandle<(Writer, io::Result<()>)>>,
    /// Lines in the write under way.
    under_way: u64,
    lost: Arc<AtomicU64>,
    failing: bool,
}

impl Store {
    /// Opens nothing yet. What cannot be stored is counted in `lost`.
    pub(crate) fn new(path: PathBuf, lost: Arc<AtomicU64>) -> Self {
        let file = Appender { path: path.clone(), file: None, torn: false };
        Self::over(Writer::File(file), path, lost)
    }

    /// The supervisor's own output, for a stream.
    pub(crate) fn console(stream: Stream, lost: Arc<AtomicU64>) -> Self {
        Self::over(Writer::Console(stream), "the standard output".into(), lost)
    }

    fn over(writer: Writer, path: PathBuf, lost: Arc<AtomicU64>) -> Self {
        Self { writer: Some(writer), path, running: None, under_way: 0, lost, failing: false }
    }

    /// Stores `count` whole lines. Waits for the disk, but not for long; gives a sentence when it begins to fail.
    pub(crate) async fn write(&mut self, lines: Vec<u8>, count: u64) -> Option<String> {
        // Whoever waited in vain once does not wait again until the disk has answered.
        let mut trouble = self.settle(Duration::ZERO).await;
        let Some(mut writer) = self.writer.take() else {
            self.lost.fetch_add(count, Ordering::Relaxed);
            return trouble;
        };
        self.under_way = count;
        self.running = Some(tokio::task::spawn_blocking(move || {
            let result = writer.write(&lines);
            (writer, result)
        }));
        if let Some(failed) = self.settle(PATIENCE).await {
            trouble = Some(failed);
        }
        if self.running.is_some() && !self.failing {
            self.failing = true;
            trouble = Some(self.sentence("the disk does not answer"));
        }
        trouble
    }

    /// Waits for the write under way.
    pub(crate) async fn settle(&mut self, patience: Duration) -> Option<String> {
        let running = self.running.as_mut()?;
        let done = if running.is_finished() {
            running.await
        } else {
            tokio::time::timeout(patience, running).await.ok()?
        };
        self.running = None;
        let (writer, result) = done.ok()?;
        self.writer = Some(writer);
        match result {
            Ok(()) => {
                self.failing = false;
                None
            }
            Err(error) => {
                self.lost.fetch_add(self.under_way, Ordering::Relaxed);
                let first = !std::mem::replace(&mut self.failing, true);
                first.then(|| self.sentence(&error.to_string()))
            }
        }
    }

    fn sentence(&self, why: &str) -> String {
        format!(
            "cannot write {}: {why}. Lines are dropped until it works again; the process goes on",
            self.path.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    #[test]
    fn named_as_pm2_names_them() {
        let home = Home::at("/h").unwrap();
        let mut app = config("my app");
        let show =
            |app: &AppConfig, stream| path(app, &home, 3, stream).map(|path| path.display().to_string());
        assert_eq!(show(&app, Stream::Out).unwrap(), "/h/logs/my-app-out-3.log");
        assert_eq!(show(&app, Stream::Err).unwrap(), "/h/logs/my-app-error-3.log");
        app.out_file = LogFile::Path("/var/x.log".into());
        assert_eq!(show(&app, Stream::Out).unwrap(), "/var/x-3.log");
        app.merge_logs = true;
        assert_eq!(show(&app, Stream::Out).unwrap(), "/var/x.log");
        assert_eq!(show(&app, Stream::Err).unwrap(), "/h/logs/my-app-error.log");
        app.error_file = LogFile::Off;
        assert_eq!(show(&app, Stream::Err), None);
    }

    #[tokio::test]
    async fn a_full_disk_costs_lines_and_says_so_once() {
        let lost = Arc::new(AtomicU64::new(0));
        let mut store = Store::new("/dev/full".into(), lost.clone());
        let said = store.write(b"a\nb\n".to_vec(), 2).await.unwrap();
        assert!(said.contains("/dev/full") && said.contains("dropped"), "{said}");
        assert_eq!(store.write(b"c\n".to_vec(), 1).await, None);
        assert_eq!(lost.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_removed_file_is_made_again() {
        let file = std::env::temp_dir().join(format!("sundew-store-{}/x.log", std::process::id()));
        let mut store = Store::new(file.clone(), Arc::default());
        assert_eq!(store.write(b"a\n".to_vec(), 1).await, None);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(store.write(b"b\n".to_vec(), 1).await, None);
        assert_eq!(std::fs::read(&file).unwrap(), b"b\n");
        std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    }
}
