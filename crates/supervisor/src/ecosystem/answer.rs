//! One line from a child process, with an end to the patience. What is asked and what it means is elsewhere.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// What came.
#[derive(Debug)]
pub(super) enum Answer {
    /// A whole line, without its end.
    Line(String),
    /// A line that is longer than asked for.
    TooLong,
    /// The end, and no line before it.
    Nothing,
    /// Neither, for so long.
    Late,
}

/// Waits for one line. A grandchild may hold the writing end long after, so the end is not waited for.
pub(super) fn one_line(from: impl Read + Send + 'static, limit: u64, patience: Duration) -> Answer {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut line = Vec::new();
        // One more is the line's end, and another one tells too long from just fitting.
        let read = BufReader::new(from.take(limit + 2)).read_until(b'\n', &mut line);
        let ended = line.pop_if(|last| *last == b'\n').is_some();
        let answer = match read {
            _ if line.len() as u64 > limit => Answer::TooLong,
            Ok(_) if ended => String::from_utf8(line).map_or(Answer::Nothing, Answer::Line),
            _ => Answer::Nothing,
        };
        // Nobody listens any more if it came late.
        let _ = tell.send(answer);
    });
    told.recv_timeout(patience).unwrap_or(Answer::Late)
}

/// How long a child that has closed its end may take to be gone.
const GOING: Duration = Duration::from_secs(1);

/// How a child ended that has nothing more to say, or `None` if it has to be ended.
pub(super) fn gone(child: &mut Child) -> Option<ExitStatus> {
    let late = Instant::now() + GOING;
    while Instant::now() < late {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    end(child);
    None
}

/// Ends a child that has said what was wanted of it, or has not.
pub(super) fn end(child: &mut Child) {
    // It may have ended by itself, which is just as well.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_and_its_limit() {
        let ask = |text: &'static str| one_line(text.as_bytes(), 3, Duration::from_secs(60));
        assert!(matches!(ask("abc\nd"), Answer::Line(line) if line == "abc"));
        assert!(matches!(ask("abcd\n"), Answer::TooLong));
        assert!(matches!(ask("abcd"), Answer::TooLong));
        assert!(matches!(ask("ab"), Answer::Nothing), "no end of line");
        assert!(matches!(ask(""), Answer::Nothing));
    }

    #[test]
    fn what_never_comes_is_late() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(matches!(one_line(reader, 3, Duration::from_millis(10)), Answer::Late));
        drop(writer);
    }
}
