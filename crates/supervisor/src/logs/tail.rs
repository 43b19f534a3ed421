//! The end of a log: of a file, to show what was before; of a process, to say why it failed.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use parking_lot::Mutex;

/// How much of a file is read back at most, in bytes.
const READ_BACK: u64 = 1024 * 1024;
/// How many lines, and how much of each, are kept to explain a failure.
const RECENT_LINES: usize = 8;
const RECENT_LENGTH: usize = 400;

/// The last lines of a file, oldest first. None if there is no such file.
pub(crate) fn last_lines(path: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let from = length.saturating_sub(READ_BACK);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(READ_BACK).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    if from > 0 && !lines.is_empty() {
        // It begins in the middle.
        lines.remove(0);
    }
    let skip = lines.len().saturating_sub(count);
    Ok(lines[skip..].iter().map(|line| (*line).to_owned()).collect())
}

/// The last lines a process wrote to its standard error.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    lines: Mutex<VecDeque<String>>,
}

impl Recent {
    pub(crate) fn push(&self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let mut lines = self.lines.lock();
        if lines.len() == RECENT_LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(RECENT_LENGTH).collect());
    }

    /// As the end of a message: nothing, or the lines under a heading.
    pub(crate) fn explain(&self) -> String {
        let lines = self.lines.lock();
        if lines.is_empty() {
            return String::new();
        }
        let mut text = String::from("\nIt last wrote:");
        for line in lines.iter() {
            text.push_str("\n    ");
            text.push_str(line);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_file_of_any_size() {
        let path = std::env::temp_dir().join(format!("sundew-tail-{}", std::process::id()));
        assert_eq!(last_lines(&path, 3).unwrap(), Vec::<String>::new());
        let line = "x".repeat(999);
        let text: String = (0..3000).map(|number| format!("{number}{line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let lines = last_lines(&path, 2).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("2998x") && lines[1].starts_with("2999x"));
        let all = last_lines(&path, 10_000).unwrap();
        assert!(all.len() < 1100, "bounded by bytes");
        assert!(all[0].starts_with(char::is_numeric), "begins with a whole line");
        std::fs::remove_file(path).unwrap();
    }
}
